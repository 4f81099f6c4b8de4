//! When everything fails at once, one voice: at most so many incidents a minute, and no chatter.
//!
//! The picture is the bell in a signal box. Rung for every wire of a fallen mast it helps nobody; rung once, with the list of wires
//! beside it, it does. So there is a bound on how many incidents may be written in a minute. What comes beyond it is listed under
//! the first of them, and told in one summary when the minute is over. In ordinary times the same book keeps an incident from
//! telling of every further series at once: after a call, what is new waits a minute and goes out as one update.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::domain::Time;
use crate::domain::incident::IncidentKey;
use crate::domain::time::MINUTE_MS;

/// Incidents that are written within [`WITHIN_MS`]; those beyond are listed under the first.
const RECORDS_MAX: usize = 9;
const WITHIN_MS: i64 = MINUTE_MS;
/// After a call or an update, the next update waits for so long.
const UPDATE_EVERY_MS: i64 = MINUTE_MS;
/// A storm is over when nothing has been sheltered for so long.
const OVER_AFTER_MS: i64 = MINUTE_MS;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Storm {
    /// Records of the last minute, oldest first.
    recent: VecDeque<(Time, IncidentKey)>,
    /// The incident that shelters what comes, and when the last came.
    shelter: Option<(IncidentKey, Time)>,
    /// When an incident was last told of, and whether something is owed since.
    told: BTreeMap<IncidentKey, (Time, bool)>,
}

impl Storm {
    fn forget(&mut self, now: Time) {
        while self.recent.front().is_some_and(|(at, _)| now.since_ms(*at) >= WITHIN_MS) {
            self.recent.pop_front();
        }
    }

    /// An incident was written: it opened, or goes under `key`.
    pub fn opened(&mut self, key: &IncidentKey, now: Time) {
        self.forget(now);
        self.recent.push_back((now, key.clone()));
        self.told.insert(key.clone(), (now, false));
    }

    /// Is there no room for another record this minute?
    pub fn is_on(&mut self, now: Time) -> bool {
        self.forget(now);
        self.recent.len() >= RECORDS_MAX || self.shelter.as_ref().is_some_and(|(_, last)| now.since_ms(*last) < OVER_AFTER_MS)
    }

    /// Under which incident what has no other place goes, while the storm lasts.
    pub fn shelter(&mut self, now: Time) -> Option<IncidentKey> {
        if !self.is_on(now) {
            return None;
        }
        let key = match &self.shelter {
            Some((key, last)) if now.since_ms(*last) < OVER_AFTER_MS => key.clone(),
            _ => self.recent.front()?.1.clone(),
        };
        self.shelter = Some((key.clone(), now));
        Some(key)
    }

    /// May an update of this incident go out now? If not, it is owed.
    pub fn may_update(&mut self, key: &IncidentKey, now: Time) -> bool {
        let told = self.told.entry(key.clone()).or_insert((Time::MIN, false));
        let may = told.0 == Time::MIN || now.since_ms(told.0) >= UPDATE_EVERY_MS;
        *told = if may { (now, false) } else { (told.0, true) };
        may
    }

    /// Incidents of which an update is owed and due. In a storm only the one that shelters the rest speaks.
    pub fn due(&mut self, now: Time) -> Vec<IncidentKey> {
        let is_over = |last: Time| now.since_ms(last) >= OVER_AFTER_MS;
        let storm = self.shelter.as_ref().filter(|(_, last)| !is_over(*last)).map(|(key, _)| key.clone());
        if storm.is_some() {
            // What was owed is in the summary.
            self.told.iter_mut().filter(|(key, _)| Some(*key) != storm.as_ref()).for_each(|(_, told)| told.1 = false);
        }
        let summary = self.shelter.take_if(|(_, last)| is_over(*last)).map(|(key, _)| key);
        let due: Vec<IncidentKey> = (self.told.iter())
            .filter(|(key, (at, owed))| {
                *owed && now.since_ms(*at) >= UPDATE_EVERY_MS && storm.is_none() && summary.as_ref().is_none_or(|s| s == *key)
            })
            .map(|(key, _)| key.clone())
            .collect();
        self.told.retain(|_, (at, owed)| *owed || now.since_ms(*at) < UPDATE_EVERY_MS);
        for key in &due {
            self.told.insert(key.clone(), (now, false));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Category;

    fn key(n: usize) -> IncidentKey {
        IncidentKey { environment: "prod".into(), model: format!("m{n}"), category: Category::ModelFailure }
    }

    #[test]
    fn updates_wait_a_minute_and_go_out_as_one() {
        let mut s = Storm::default();
        s.opened(&key(0), Time(0));
        assert!(!s.may_update(&key(0), Time(10_000)));
        assert!(!s.may_update(&key(0), Time(20_000)));
        assert_eq!(s.due(Time(50_000)), []);
        assert_eq!(s.due(Time(60_000)), [key(0)]);
        assert_eq!(s.due(Time(120_000)), [], "nothing is owed any more");
        assert!(s.may_update(&key(0), Time(130_000)));
    }

    #[test]
    fn the_tenth_of_a_minute_is_sheltered_and_told_in_one_summary() {
        let mut s = Storm::default();
        for n in 0..RECORDS_MAX {
            assert_eq!(s.shelter(Time(1_000)), None, "room for {n}");
            s.opened(&key(n), Time(1_000));
        }
        assert_eq!(s.shelter(Time(2_000)), Some(key(0)));
        s.may_update(&key(0), Time(2_000));
        s.may_update(&key(3), Time(2_000));
        assert_eq!(s.due(Time(3_000)), []);
        assert_eq!(s.shelter(Time(50_000)), Some(key(0)), "it goes on while things come");
        s.may_update(&key(0), Time(50_000));
        assert_eq!(s.due(Time(100_000)), []);
        assert_eq!(s.due(Time(110_000)), [key(0)], "one summary, and none of the others");
        assert_eq!(s.shelter(Time(120_000)), None);
    }
}
