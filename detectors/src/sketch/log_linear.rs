//! One fixed grid for every number: 128 bins to the octave, told from the bits of the float.
//!
//! The everyday picture is a ruler whose marks grow with what is measured: 0.8 % of the value at most, from 5e-20 to 1.8e19 and
//! the same below zero. Since the grid is the same for everybody, summaries merge by adding counts, and no series needs to know
//! its range beforehand. A bin costs one shift of the bits. The road not taken is a sketch that adapts its bins (t-digest, KLL):
//! ten times dearer per value, and two of them do not merge to the same bytes in another order.

/// The bin of zero. Positive values lie above, negative ones below, mirrored.
pub const ZERO: u16 = 1 << 15;

const MANTISSA_BITS: u32 = 7;
const EXPONENT_MIN: i64 = -64;
const BINS_PER_SIGN: i64 = 128 << MANTISSA_BITS;

/// The bin of a finite value. Values beyond the grid are put into its outermost bins; NaN counts as zero, so callers refuse it before.
pub fn bin_of(value: f64) -> u16 {
    if value == 0.0 || value.is_nan() {
        return ZERO;
    }
    let bits = value.abs().to_bits();
    let step = (bits >> (52 - MANTISSA_BITS)) as i64 - ((1023 + EXPONENT_MIN) << MANTISSA_BITS);
    let step = step.clamp(0, BINS_PER_SIGN - 1) as u16;
    if value > 0.0 { ZERO + 1 + step } else { ZERO - 1 - step }
}

/// Smallest magnitude in the step-th bin away from zero.
fn magnitude(step: i64) -> f64 {
    let bits = (step + ((1023 + EXPONENT_MIN) << MANTISSA_BITS)) as u64;
    f64::from_bits(bits << (52 - MANTISSA_BITS))
}

/// Lower edge of a bin: every value in it is at least this.
pub fn lower_edge(bin: u16) -> f64 {
    let offset = i64::from(bin) - i64::from(ZERO);
    match offset {
        0 => 0.0,
        o if o > 0 => magnitude(o - 1),
        o => -magnitude(-o),
    }
}

/// Upper edge of a bin: every value in it is at most this.
pub fn upper_edge(bin: u16) -> f64 {
    let offset = i64::from(bin) - i64::from(ZERO);
    match offset {
        0 => 0.0,
        o if o > 0 => magnitude(o),
        o => -magnitude(-o - 1),
    }
}

/// The value by which a bin is told.
pub fn middle(bin: u16) -> f64 {
    (lower_edge(bin) + upper_edge(bin)) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bin_and_bins_keep_the_order() {
        let mut values: Vec<f64> = Vec::new();
        let mut x = 3e-19;
        while x < 1e19 {
            values.push(x);
            values.push(-x);
            x *= 1.0371;
        }
        values.push(0.0);
        values.sort_by(f64::total_cmp);
        for pair in values.windows(2) {
            assert!(bin_of(pair[0]) <= bin_of(pair[1]));
        }
        for v in values {
            let b = bin_of(v);
            assert!(lower_edge(b) <= v && v <= upper_edge(b), "{v} in {b}: {} .. {}", lower_edge(b), upper_edge(b));
            assert!((upper_edge(b) - lower_edge(b)).abs() <= 0.0079 * v.abs(), "{v}");
        }
    }

    #[test]
    fn the_ends_of_the_grid_hold_everything_beyond() {
        assert_eq!(bin_of(f64::MAX), bin_of(1e30));
        assert_eq!(bin_of(f64::MIN_POSITIVE), ZERO + 1);
        assert_eq!(bin_of(-0.0), ZERO);
        assert_eq!(bin_of(f64::INFINITY), bin_of(f64::MAX));
    }
}
