//! The play: which fault comes when. Times count from the moment when live traffic begins.

use std::str::FromStr;
use std::time::Duration;

use crate::domain::Time;
use crate::fleet::{Fault, Fleet, UnknownFault};

/// Longest time that a script or a duration may name: a leap year.
const SECONDS_MAX: f64 = 366.0 * 86_400.0;

/// `NAME[@FROM[-TO]]`, in seconds: `error_spike`, `silence@30`, `timeouts@10-70`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cue {
    pub fault: Fault,
    pub from_ms: i64,
    /// `None` lasts to the end.
    pub to_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Fault(#[from] UnknownFault),
    #[error("{found:?} is no time in seconds (expected NAME[@FROM[-TO]], such as error_spike@10-40)")]
    Seconds { found: String },
    #[error("{name}: the fault ends at {to} s, before it begins at {from} s")]
    Backwards { name: &'static str, from: String, to: String },
    #[error("{found:?} is no duration (expected a number and ms, s, m, h or d, such as 60s)")]
    Duration { found: String },
}

/// A fault that goes on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub after_ms: i64,
    pub fault: Fault,
    pub on: bool,
}

/// All cues of a demo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    cues: Vec<Cue>,
    moments: Vec<Moment>,
    /// Moments that [`Script::due`] has told.
    told: usize,
}

// === impl Cue ===

impl FromStr for Cue {
    type Err = Error;

    fn from_str(text: &str) -> Result<Cue, Error> {
        let (name, when) = match text.split_once('@') {
            Some((name, when)) => (name, Some(when)),
            None => (text, None),
        };
        let fault: Fault = name.trim().parse()?;
        let Some(when) = when else { return Ok(Cue { fault, from_ms: 0, to_ms: None }) };
        let (from, to) = match when.split_once('-') {
            Some((from, "")) => (from, None),
            Some((from, to)) => (from, Some(to)),
            None => (when, None),
        };
        let from_ms = seconds(from)?;
        let to_ms = to.map(seconds).transpose()?;
        if to_ms.is_some_and(|to| to <= from_ms) {
            return Err(Error::Backwards { name: fault.name(), from: from.to_owned(), to: to.unwrap_or_default().to_owned() });
        }
        Ok(Cue { fault, from_ms, to_ms })
    }
}

fn seconds(text: &str) -> Result<i64, Error> {
    let number = text.trim().trim_end_matches('s');
    let number: Option<f64> = number.parse().ok().filter(|n| (0.0..=SECONDS_MAX).contains(n));
    number.map(|n| (n * 1_000.0).round() as i64).ok_or_else(|| Error::Seconds { found: text.to_owned() })
}

/// Reads `500ms`, `60s`, `5m`, `24h`, `7d`.
///
/// # Errors
/// Anything else, nothing at all, and more than a year.
pub fn duration(text: &str) -> Result<Duration, Error> {
    let refused = || Error::Duration { found: text.to_owned() };
    let trimmed = text.trim();
    let unit_at = trimmed.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(refused)?;
    let (number, unit) = trimmed.split_at(unit_at);
    let factor = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(refused()),
    };
    let number: f64 = number.trim().parse().map_err(|_| refused())?;
    let seconds = number * factor;
    if !(0.001..=SECONDS_MAX).contains(&seconds) {
        return Err(refused());
    }
    Ok(Duration::from_millis((seconds * 1_000.0).round() as u64))
}

// === impl Script ===

impl Script {
    /// These cues; without any, one fault comes by itself after two seconds and stays.
    pub fn new(cues: Vec<Cue>) -> Script {
        let cues = if cues.is_empty() { vec![Cue { fault: Fault::ErrorSpike, from_ms: 2_000, to_ms: None }] } else { cues };
        Script::exactly(cues)
    }

    /// These cues, and nothing when there are none: for those who switch by hand.
    pub fn exactly(cues: Vec<Cue>) -> Script {
        let on = cues.iter().map(|c| Moment { after_ms: c.from_ms, fault: c.fault, on: true });
        let off = cues.iter().filter_map(|c| c.to_ms.map(|to| Moment { after_ms: to, fault: c.fault, on: false }));
        let mut moments: Vec<Moment> = on.chain(off).collect();
        // Of one fault that ends and begins anew at the same moment, the end comes first.
        moments.sort_by_key(|m| (m.after_ms, m.on, m.fault));
        Script { cues, moments, told: 0 }
    }

    pub fn cues(&self) -> &[Cue] {
        &self.cues
    }

    /// Everything that happens, in order.
    pub fn moments(&self) -> &[Moment] {
        &self.moments
    }

    /// Tells the fleet everything beforehand, so that what belongs to a fault (a deployment, a failed run) can come before it.
    /// Live traffic begins at `live`. Best done before the traffic of the minute before `live` is made.
    pub fn schedule(&self, fleet: &mut Fleet, live: Time) {
        for moment in &self.moments {
            fleet.switch(moment.fault, moment.on, live.plus_ms(moment.after_ms));
        }
    }

    /// What has happened by now and was not told yet.
    pub fn due(&mut self, after_ms: i64) -> &[Moment] {
        let from = self.told;
        self.told = self.moments.partition_point(|m| m.after_ms <= after_ms).max(from);
        &self.moments[from..self.told]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(Fault, i64, Option<i64>), &str>) {
        let found = text.parse::<Cue>().map(|c| (c.fault, c.from_ms, c.to_ms)).map_err(|e| e.to_string());
        match (found, expected) {
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
            (found, expected) => assert_eq!(found, expected.map_err(str::to_owned), "{text}"),
        }
    }

    #[test]
    fn cues_read_as_they_are_written() {
        check("error_spike", Ok((Fault::ErrorSpike, 0, None)));
        check("silence@30", Ok((Fault::Silence, 30_000, None)));
        check("timeouts@10-70", Ok((Fault::Timeouts, 10_000, Some(70_000))));
        check("timeouts@1.5-2.25", Ok((Fault::Timeouts, 1_500, Some(2_250))));
        check("cost_drift@10s-20s", Ok((Fault::CostDrift, 10_000, Some(20_000))));
        check("cost_drift@10-", Ok((Fault::CostDrift, 10_000, None)));
        check("error_spke@3", Err("unknown fault \"error_spke\" (known: error_spike"));
        check("error_spike@", Err("\"\" is no time"));
        check("error_spike@soon", Err("\"soon\" is no time"));
        check("error_spike@-5", Err("\"\" is no time"));
        check("error_spike@1e300", Err("is no time"));
        check("error_spike@NaN", Err("is no time"));
        check("error_spike@20-10", Err("ends at 10 s, before it begins at 20 s"));
        check("error_spike@20-20", Err("before it begins"));
        check("", Err("unknown fault \"\""));
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in [("60s", 60_000), ("500ms", 500), ("5m", 300_000), ("1.5h", 5_400_000), ("7d", 604_800_000), (" 2 s ", 2_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "60", "s", "0s", "-5s", "1w", "1e9d", "5mm", "infs", "NaNs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_script_tells_each_moment_once() {
        let cue = |text: &str| text.parse::<Cue>().unwrap();
        let mut script = Script::new(vec![cue("silence@30-40"), cue("error_spike@10-30")]);
        let told = |moments: &[Moment]| moments.iter().map(|m| (m.after_ms / 1_000, m.fault.name(), m.on)).collect::<Vec<_>>();
        assert_eq!(told(script.due(9_999)), []);
        assert_eq!(told(script.due(10_000)), [(10, "error_spike", true)]);
        assert_eq!(told(script.due(10_000)), []);
        assert_eq!(told(script.due(35_000)), [(30, "error_spike", false), (30, "silence", true)]);
        assert_eq!(told(script.due(5_000)), []);
        assert_eq!(told(script.due(99_000)), [(40, "silence", false)]);
        assert_eq!(told(Script::new(vec![]).moments()), [(2, "error_spike", true)]);
        assert_eq!(told(Script::exactly(vec![]).moments()), []);
    }

    #[test]
    fn the_fleet_knows_the_script_beforehand() {
        let start = Time(1_795_010_400_000);
        let live = start.plus_ms(120_000);
        let mut fleet = Fleet::new(crate::fleet::Plan::demo(), 1, start);
        Script::new(vec!["timeouts@10-20".parse().unwrap()]).schedule(&mut fleet, live);
        assert!(!fleet.is_on(Fault::Timeouts, live.plus_ms(9_999)));
        assert!(fleet.is_on(Fault::Timeouts, live.plus_ms(10_000)));
        assert!(!fleet.is_on(Fault::Timeouts, live.plus_ms(20_000)));
        let mut events = Vec::new();
        fleet.next_before(live, &mut events);
        let deployment = events.iter().find(|e| e.json.starts_with(b"{\"kind\":\"deployment")).expect("announced in time");
        assert_eq!(deployment.arrival, live.plus_ms(-50_000));
    }
}
