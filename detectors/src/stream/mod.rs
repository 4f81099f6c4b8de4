//! The stream tests that the field knows by name: one value at a time, one answer at a time.
//!
//! Picture a row of old instruments beside the house's own evidence. Each follows its paper (and the library that made its defaults
//! customary) so closely that it raises its alarms at the same index; `detectors/reference` holds the comparison. They are here to
//! be selected by people who know them and to be shown side by side; none of them keeps a promise on false pages, which is why
//! `evidence` stays the default. One file per test, one line in [`ALL`]; the manual has a page for each under `docs/tests`.
//!
//! **Contract.** A test is built once from its knobs, and every bad knob is refused by name; after that `update` cannot fail. Its
//! cost and memory are bounded and it allocates nothing after it was built. A test never resets itself: after [`Signal::Drift`] the
//! caller decides, and `reset` begins anew as after building. State is plain data and can be serialised. Values that are not finite
//! are not taken in: they answer quiet and change nothing (the caller counts them).

use serde::{Deserialize, Serialize};

pub mod knob;

pub mod adwin;
pub mod bocpd;
pub mod burn_rate;
pub mod cusum;
pub mod ddm;
pub mod ecdd;
pub mod eddm;
pub mod ewma;
pub mod fhddm;
pub mod gma;
pub mod glr_rate;
pub mod hddm_a;
pub mod hddm_w;
pub mod holt_winters;
pub mod kswin;
pub mod level_shift;
pub mod mad;
pub mod page_hinkley;
pub mod z_score;

use knob::{Knob, Knobs, Refusal};

/// What a test says of the newest value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    Quiet,
    /// The paper's warning zone; only the tests that have one say it.
    Warning,
    Drift,
}

/// The answer with its evidence: the score that was compared, and the limit it was compared with, in the test's own unit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub signal: Signal,
    pub score: f64,
    pub limit: f64,
}

impl Verdict {
    /// Nothing to compare yet, or nothing that could be compared.
    pub const SILENT: Verdict = Verdict { signal: Signal::Quiet, score: 0.0, limit: f64::INFINITY };

    fn drift_if(drift: bool, score: f64, limit: f64) -> Verdict {
        Verdict { signal: if drift { Signal::Drift } else { Signal::Quiet }, score, limit }
    }

    /// Drift outranks warning.
    fn graded(drift: bool, warning: bool, score: f64, limit: f64) -> Verdict {
        let signal = match (drift, warning) {
            (true, _) => Signal::Drift,
            (false, true) => Signal::Warning,
            (false, false) => Signal::Quiet,
        };
        Verdict { signal, score, limit }
    }
}

/// A test on a stream.
pub trait Stream {
    /// Takes in one finite value and says what it makes of it.
    fn update(&mut self, x: f64) -> Verdict;
    /// Forgets everything but the settings.
    fn reset(&mut self);
}

/// What kind of value a test was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Any finite number.
    Values,
    /// 1 for an error, 0 for none; numbers between count as part of an error, others are clamped.
    Errors,
}

/// One entry of the table: a test that describes itself.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    /// One line for help and lists.
    pub about: &'static str,
    pub takes: Takes,
    pub knobs: &'static [Knob],
    pub build: fn(&Knobs) -> Result<Detector, Refusal>,
}

/// Every stream test. A new one is a file, a `mod` line and a line here.
pub static ALL: &[Kind] = &[
    adwin::KIND,
    bocpd::KIND,
    bocpd::KIND_BERNOULLI,
    bocpd::KIND_NORMAL,
    burn_rate::KIND,
    cusum::KIND,
    ddm::KIND,
    ecdd::KIND,
    eddm::KIND,
    ewma::KIND,
    fhddm::KIND,
    glr_rate::KIND,
    gma::KIND,
    hddm_a::KIND,
    hddm_w::KIND,
    holt_winters::KIND,
    kswin::KIND,
    level_shift::KIND,
    mad::KIND,
    page_hinkley::KIND,
    z_score::KIND,
];

/// Builds the test of this name; knobs that are not given keep their defaults.
///
/// ```
/// use bellwether_detectors::stream::{self, Signal};
///
/// let mut test = stream::build("page_hinkley", &[("threshold", 10.0)])?;
/// let quiet = (0..200).all(|_| test.update(0.0).signal == Signal::Quiet);
/// let alarm = (0..200).position(|_| test.update(1.0).signal == Signal::Drift);
/// assert!(quiet && alarm == Some(10));
/// # Ok::<(), bellwether_detectors::stream::knob::Refusal>(())
/// ```
///
/// # Errors
/// An unknown test, an unknown knob, or a knob outside its range.
pub fn build(name: &str, settings: &[(&str, f64)]) -> Result<Detector, Refusal> {
    let kind = ALL
        .iter()
        .find(|k| k.name == name)
        .ok_or_else(|| Refusal::UnknownTest { name: name.to_owned(), known: ALL.iter().map(|k| k.name).collect::<Vec<_>>().join(", ") })?;
    (kind.build)(&Knobs::of(kind.knobs, settings)?)
}

/// Any of the tests, as plain data that can be stored and read back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Detector {
    Adwin(adwin::Adwin),
    Bocpd(bocpd::Bocpd),
    BurnRate(burn_rate::BurnRate),
    Cusum(cusum::Cusum),
    Ddm(ddm::Ddm),
    Ecdd(ecdd::Ecdd),
    Eddm(eddm::Eddm),
    Ewma(ewma::Ewma),
    Fhddm(fhddm::Fhddm),
    GlrRate(glr_rate::GlrRate),
    Gma(gma::Gma),
    HddmA(hddm_a::HddmA),
    HddmW(hddm_w::HddmW),
    HoltWinters(holt_winters::HoltWinters),
    Kswin(kswin::Kswin),
    LevelShift(level_shift::LevelShift),
    Mad(mad::Mad),
    PageHinkley(page_hinkley::PageHinkley),
    ZScore(z_score::ZScore),
}

impl Detector {
    /// Takes in one value; one that is not finite is left out and answers [`Verdict::SILENT`].
    pub fn update(&mut self, x: f64) -> Verdict {
        if x.is_finite() { self.test().update(x) } else { Verdict::SILENT }
    }

    pub fn reset(&mut self) {
        self.test().reset();
    }

    fn test(&mut self) -> &mut dyn Stream {
        match self {
            Detector::Adwin(t) => t,
            Detector::Bocpd(t) => t,
            Detector::BurnRate(t) => t,
            Detector::Cusum(t) => t,
            Detector::Ddm(t) => t,
            Detector::Ecdd(t) => t,
            Detector::Eddm(t) => t,
            Detector::Ewma(t) => t,
            Detector::Fhddm(t) => t,
            Detector::GlrRate(t) => t,
            Detector::Gma(t) => t,
            Detector::HddmA(t) => t,
            Detector::HddmW(t) => t,
            Detector::HoltWinters(t) => t,
            Detector::Kswin(t) => t,
            Detector::LevelShift(t) => t,
            Detector::Mad(t) => t,
            Detector::PageHinkley(t) => t,
            Detector::ZScore(t) => t,
        }
    }
}

/// Running mean and variance (Welford 1962): both to full precision in one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Moments {
    pub n: f64,
    pub mean: f64,
    /// Sum of squared deviations from the mean.
    pub squares: f64,
}

impl Moments {
    pub fn add(&mut self, x: f64) {
        self.n += 1.0;
        let before = x - self.mean;
        self.mean += before / self.n;
        self.squares += before * (x - self.mean);
    }

    /// Sample variance (n - 1); 0 below two values.
    pub fn variance(&self) -> f64 {
        if self.n > 1.0 { self.squares / (self.n - 1.0) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::noise::Noise;

    #[test]
    fn every_test_says_nothing_of_an_empty_room_and_begins_anew_after_reset() {
        for kind in ALL {
            let mut test = build(kind.name, &[]).unwrap_or_else(|e| panic!("{}: {e}", kind.name));
            let fresh = test.clone();
            let mut noise = Noise::new(5);
            let values: Vec<f64> = (0..600).map(|i| f64::from(u8::from(noise.unit() < if i < 300 { 0.2 } else { 0.9 }))).collect();
            let first: Vec<Signal> = values.iter().map(|x| test.update(*x).signal).collect();
            let seen = test.clone();
            assert_eq!(test.update(f64::NAN), Verdict::SILENT, "{}", kind.name);
            assert_eq!(test, seen, "{}: a value that is not finite must change nothing", kind.name);
            test.reset();
            assert_eq!(test, fresh, "{}: reset", kind.name);
            let again: Vec<Signal> = values.iter().map(|x| test.update(*x).signal).collect();
            assert_eq!(first, again, "{}", kind.name);
        }
    }

    #[test]
    fn every_knob_is_refused_by_name_when_it_is_out_of_range() {
        for kind in ALL {
            for knob in kind.knobs {
                let refused = build(kind.name, &[(knob.name, knob.high + 1.0 + knob.high.abs())]);
                let refusal = refused.expect_err(&format!("{} {}", kind.name, knob.name));
                assert!(refusal.to_string().contains(knob.name), "{refusal}");
                assert!(build(kind.name, &[(knob.name, f64::NAN)]).is_err(), "{} {}", kind.name, knob.name);
            }
        }
        assert!(build("cusum", &[("treshold", 1.0)]).expect_err("unknown").to_string().contains("treshold"));
        assert!(build("cusm", &[]).expect_err("unknown").to_string().contains("cusum"));
    }

    #[test]
    fn names_are_unique_and_sorted() {
        assert!(ALL.windows(2).all(|w| w[0].name < w[1].name));
    }
}
