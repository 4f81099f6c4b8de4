//! Settings of the named tests: a name, a default, a range, a reason.
//!
//! Every knob is a number, so that one table serves help, configuration and the pages of the manual, and one loop refuses what is
//! out of range. A typed struct per test was the road not taken: two dozen of them would say the same four things in two dozen ways.

use std::fmt;

/// One setting of one test.
#[derive(Clone, Copy, Debug)]
pub struct Knob {
    pub name: &'static str,
    pub default: f64,
    /// Smallest and largest value that is accepted.
    pub low: f64,
    pub high: f64,
    /// Only whole numbers are accepted.
    pub whole: bool,
    pub about: &'static str,
}

impl Knob {
    pub const fn real(name: &'static str, default: f64, low: f64, high: f64, about: &'static str) -> Knob {
        Knob { name, default, low, high, whole: false, about }
    }

    pub const fn whole(name: &'static str, default: f64, low: f64, high: f64, about: &'static str) -> Knob {
        Knob { name, default, low, high, whole: true, about }
    }
}

/// The knobs of one test with the values that apply.
#[derive(Clone, Debug)]
pub struct Knobs {
    declared: &'static [Knob],
    values: Vec<f64>,
}

impl Knobs {
    /// Defaults, overridden by `settings`.
    ///
    /// # Errors
    /// A setting whose name the test does not know, or whose value is out of range.
    pub fn of(declared: &'static [Knob], settings: &[(&str, f64)]) -> Result<Knobs, Refusal> {
        let mut values: Vec<f64> = declared.iter().map(|k| k.default).collect();
        for (name, value) in settings {
            let at = declared.iter().position(|k| k.name == *name).ok_or_else(|| Refusal::UnknownKnob {
                name: (*name).to_owned(),
                known: declared.iter().map(|k| k.name).collect::<Vec<_>>().join(", "),
            })?;
            let knob = &declared[at];
            let fits = *value >= knob.low && *value <= knob.high && (!knob.whole || value.fract() == 0.0);
            if !fits {
                return Err(Refusal::OutOfRange { name: knob.name, value: *value, low: knob.low, high: knob.high, whole: knob.whole });
            }
            values[at] = *value;
        }
        Ok(Knobs { declared, values })
    }

    /// The value of a knob that the test declares itself.
    ///
    /// # Panics
    /// When the test asks for a knob that is not in its own list, which every build of it would show at once.
    pub fn get(&self, name: &str) -> f64 {
        let at = self.declared.iter().position(|k| k.name == name).expect("a test asks only for knobs it declares");
        self.values[at]
    }

    /// As [`Knobs::get`], for a whole knob that is not negative.
    pub fn count(&self, name: &str) -> usize {
        self.get(name) as usize
    }
}

/// Why a test was not built.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    UnknownTest {
        name: String,
        known: String,
    },
    UnknownKnob {
        name: String,
        known: String,
    },
    OutOfRange {
        name: &'static str,
        value: f64,
        low: f64,
        high: f64,
        whole: bool,
    },
    /// Two knobs that do not fit each other, in words.
    Conflict {
        name: &'static str,
        why: &'static str,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::UnknownTest { name, known } => write!(f, "unknown test {name:?} (known: {known})"),
            Refusal::UnknownKnob { name, known } => write!(f, "unknown knob {name:?} (known: {known})"),
            Refusal::OutOfRange { name, value, low, high, whole } => {
                write!(f, "{name} is {value}, but must be {}from {low} to {high}", if *whole { "a whole number " } else { "" })
            }
            Refusal::Conflict { name, why } => write!(f, "{name}: {why}"),
        }
    }
}

impl std::error::Error for Refusal {}
