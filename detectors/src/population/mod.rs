//! The tests that compare one population with another: a reference and what is current.
//!
//! Picture two sacks of grain poured out side by side. Each test measures how unlike they are in its own way, and a limit that the
//! trade made customary says when that is too much. They know no time: asked every hour they answer every hour anew, and nothing
//! keeps the number of false answers within a budget. They are here because people know them by name and want to see them in
//! reports; the house's own evidence is the default. One file per test, one line in [`ALL`], one page under `docs/tests`.
//!
//! **Contract.** Built once from knobs that are refused by name; a comparison is pure and fails only for a sample that cannot be
//! compared ([`Unfit`]). Statistics and p-values are those of the reference library named in each file, to 1e-9.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::stream::knob::{Knob, Knobs, Refusal};

pub mod bins;
pub mod chi_square;
pub mod cramer_von_mises;
pub mod hellinger;
pub mod jensen_shannon;
pub mod ks;
pub mod mmd;
pub mod psi;
pub mod total_variation;
pub mod wasserstein;

/// One population.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample<'a> {
    /// Numbers in any order.
    Values(&'a [f64]),
    /// How many of each class; both samples list the same classes in the same order.
    Counts(&'a [u64]),
}

/// Which kinds of sample a test compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    Values,
    Counts,
    Both,
}

/// The answer: what was measured, how surprising it would be without a change, and what it was held against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub statistic: f64,
    /// Where the test has one: the probability of a statistic at least this large when nothing changed.
    pub p_value: Option<f64>,
    /// Of the p-value where there is one (drifted at or below it), else of the statistic (drifted at or above it).
    pub threshold: f64,
    pub drifted: bool,
}

impl Outcome {
    fn of_p_value(statistic: f64, p_value: f64, threshold: f64) -> Outcome {
        Outcome { statistic, p_value: Some(p_value), threshold, drifted: p_value <= threshold }
    }

    fn of_distance(statistic: f64, threshold: f64) -> Outcome {
        Outcome { statistic, p_value: None, threshold, drifted: statistic >= threshold }
    }
}

/// Why two samples could not be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unfit {
    /// Fewer values (or events) than the test needs.
    TooFew { side: Side, has: u64, needs: u64 },
    /// A value that is not finite, at this place.
    NotFinite { side: Side, at: usize },
    /// Two lists of classes of different length.
    OtherClasses { reference: usize, current: usize },
    /// The test compares the other kind of sample, or the two samples are not of one kind.
    WrongKind { takes: Wanted },
    /// More values than the test can compare in sensible time.
    TooMany { side: Side, has: u64, at_most: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    Reference,
    Current,
}

/// What a refused comparison should have been given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    TwoLists,
    TwoCounts,
    TwoOfAKind,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Reference => "reference",
            Side::Current => "current",
        })
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::TooFew { side, has, needs } => write!(f, "the {side} sample has {has} values, but {needs} are needed"),
            Unfit::NotFinite { side, at } => write!(f, "value {at} of the {side} sample is not finite"),
            Unfit::OtherClasses { reference, current } => {
                write!(f, "the reference lists {reference} classes, the current sample {current}")
            }
            Unfit::WrongKind { takes: Wanted::TwoLists } => f.write_str("this test compares two lists of numbers"),
            Unfit::WrongKind { takes: Wanted::TwoCounts } => f.write_str("this test compares two lists of class counts"),
            Unfit::WrongKind { takes: Wanted::TwoOfAKind } => f.write_str("both samples must be numbers or both class counts"),
            Unfit::TooMany { side, has, at_most } => write!(f, "the {side} sample has {has} values, but at most {at_most} are compared"),
        }
    }
}

impl std::error::Error for Unfit {}

/// A comparison of two populations.
pub trait Compare {
    /// # Errors
    /// When the samples do not fit the test or each other.
    fn compare(&self, reference: Sample<'_>, current: Sample<'_>) -> Result<Outcome, Unfit>;
}

/// One entry of the table: a test that describes itself.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    /// One line for help and lists.
    pub about: &'static str,
    pub takes: Takes,
    pub knobs: &'static [Knob],
    pub build: fn(&Knobs) -> Result<Box<dyn Compare + Send + Sync>, Refusal>,
}

/// Every population test. A new one is a file, a `mod` line and a line here.
pub static ALL: &[Kind] = &[
    chi_square::KIND,
    cramer_von_mises::KIND,
    hellinger::KIND,
    jensen_shannon::KIND,
    ks::KIND,
    mmd::KIND,
    psi::KIND,
    total_variation::KIND,
    wasserstein::KIND,
];

/// Builds the test of this name; knobs that are not given keep their defaults.
///
/// ```
/// use bellwether_detectors::population::{self, Sample};
///
/// let psi = population::build("psi", &[])?;
/// let outcome = psi.compare(Sample::Counts(&[500, 300, 200]), Sample::Counts(&[300, 300, 400]))?;
/// assert!(outcome.drifted && (outcome.statistic - 0.2408).abs() < 1e-4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// An unknown test, an unknown knob, or a knob outside its range.
pub fn build(name: &str, settings: &[(&str, f64)]) -> Result<Box<dyn Compare + Send + Sync>, Refusal> {
    let kind = ALL
        .iter()
        .find(|k| k.name == name)
        .ok_or_else(|| Refusal::UnknownTest { name: name.to_owned(), known: ALL.iter().map(|k| k.name).collect::<Vec<_>>().join(", ") })?;
    (kind.build)(&Knobs::of(kind.knobs, settings)?)
}

/// Both samples as numbers, checked: finite and at least `needs` on each side.
fn two_lists<'a>(reference: Sample<'a>, current: Sample<'a>, needs: u64) -> Result<(&'a [f64], &'a [f64]), Unfit> {
    let (Sample::Values(a), Sample::Values(b)) = (reference, current) else {
        return Err(Unfit::WrongKind { takes: Wanted::TwoLists });
    };
    for (side, values) in [(Side::Reference, a), (Side::Current, b)] {
        if (values.len() as u64) < needs {
            return Err(Unfit::TooFew { side, has: values.len() as u64, needs });
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(Unfit::NotFinite { side, at });
        }
    }
    Ok((a, b))
}

/// Both samples as class counts, checked: the same number of classes and at least one event on each side.
fn two_counts<'a>(reference: Sample<'a>, current: Sample<'a>) -> Result<(&'a [u64], &'a [u64]), Unfit> {
    let (Sample::Counts(a), Sample::Counts(b)) = (reference, current) else {
        return Err(Unfit::WrongKind { takes: Wanted::TwoCounts });
    };
    if a.len() != b.len() {
        return Err(Unfit::OtherClasses { reference: a.len(), current: b.len() });
    }
    for (side, counts) in [(Side::Reference, a), (Side::Current, b)] {
        if counts.iter().all(|c| *c == 0) {
            return Err(Unfit::TooFew { side, has: 0, needs: 1 });
        }
    }
    Ok((a, b))
}

/// In ascending order.
fn sorted(values: &[f64]) -> Vec<f64> {
    let mut v = values.to_vec();
    v.sort_unstable_by(f64::total_cmp);
    v
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::noise::Noise;

    fn samples(takes: Takes) -> Vec<Sample<'static>> {
        let values = Sample::Values(&[0.5, 1.0, 2.0, 4.0, 3.5, 2.5]);
        let counts = Sample::Counts(&[5, 10, 20]);
        match takes {
            Takes::Values => vec![values],
            Takes::Counts => vec![counts],
            Takes::Both => vec![values, counts],
        }
    }

    #[test]
    fn a_sample_is_like_itself_and_unfit_ones_are_named() {
        for kind in ALL {
            let test = build(kind.name, &[]).unwrap_or_else(|e| panic!("{}: {e}", kind.name));
            for sample in samples(kind.takes) {
                let same = test.compare(sample, sample).unwrap_or_else(|e| panic!("{}: {e}", kind.name));
                assert!(!same.drifted, "{} {same:?}", kind.name);
                let empty = match sample {
                    Sample::Values(_) => Sample::Values(&[]),
                    Sample::Counts(_) => Sample::Counts(&[0, 0, 0]),
                };
                assert!(matches!(test.compare(sample, empty), Err(Unfit::TooFew { side: Side::Current, .. })), "{}", kind.name);
                assert!(matches!(test.compare(empty, sample), Err(Unfit::TooFew { side: Side::Reference, .. })), "{}", kind.name);
                if let Sample::Values(_) = sample {
                    let unfit = test.compare(sample, Sample::Values(&[1.0, 2.0, f64::NAN, 3.0]));
                    assert_eq!(unfit, Err(Unfit::NotFinite { side: Side::Current, at: 2 }), "{}", kind.name);
                } else {
                    let unfit = test.compare(sample, Sample::Counts(&[1, 2]));
                    assert_eq!(unfit, Err(Unfit::OtherClasses { reference: 3, current: 2 }), "{}", kind.name);
                }
            }
            let mixed = test.compare(Sample::Values(&[1.0, 2.0, 3.0]), Sample::Counts(&[1, 2]));
            assert!(matches!(mixed, Err(Unfit::WrongKind { .. })), "{}", kind.name);
        }
    }

    #[test]
    fn every_test_sees_a_large_change() {
        let mut noise = Noise::new(4);
        let a: Vec<f64> = (0..500).map(|_| noise.normal()).collect();
        let b: Vec<f64> = (0..300).map(|_| noise.normal() + 1.0).collect();
        for kind in ALL {
            let test = build(kind.name, &[]).expect("defaults");
            let outcome = match kind.takes {
                Takes::Counts => test.compare(Sample::Counts(&[400, 300, 200]), Sample::Counts(&[200, 300, 400])),
                Takes::Values | Takes::Both => test.compare(Sample::Values(&a), Sample::Values(&b)),
            };
            assert!(outcome.as_ref().is_ok_and(|o| o.drifted), "{} {outcome:?}", kind.name);
        }
    }

    #[test]
    fn every_knob_is_refused_by_name_when_it_is_out_of_range() {
        for kind in ALL {
            for knob in kind.knobs {
                let Err(refusal) = build(kind.name, &[(knob.name, knob.high + 1.0 + knob.high.abs())]) else {
                    panic!("{} {}", kind.name, knob.name);
                };
                assert!(refusal.to_string().contains(knob.name), "{refusal}");
            }
        }
        assert!(ALL.windows(2).all(|w| w[0].name < w[1].name), "names are unique and sorted");
    }
}
