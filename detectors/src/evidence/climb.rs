//! Is a series noisier than its model? Its own evidence tells: it climbs more often than was promised.
//!
//! **Idea.** A mixture that may spend B a pane reaches three hundred times B at most once in so many quiet panes; that is the promise of
//! the page at a lower level, where a day of quiet suffices to see whether it is kept. A series that breaks it has bursts that
//! outlast a pane (a job that runs every two hours), and no dispersion helps against those: its tail is heavier than the bets allow.
//! **Rule.** A climb counts once it has come down by itself; one that ends as a page is for people to judge, else a fault that comes three
//! times a day would make its own series blind. One that reaches 300 times 300 counts twice: the promise allows it 300 times more rarely.
//! Climbs are counted by the day; when they are too many, or a page is closed as a false alarm, six panes are judged as one from then
//! on, and after one more climb six of those: where six panes were needed, the next burst that outlasts them is only a matter of time (until
//! then a rate's pane may say less, so that this one does not page). The decision rests on panes already judged, so the
//! bound on false pages is not touched. It is taken back after four weeks without a climb. The road not taken is to temper the bets
//! until the past stays quiet: it costs ten times the delay and does not help, since the next burst is another one.

use serde::{Deserialize, Serialize};

const DAY_MS: i64 = 86_400_000;
/// A climb, in units of the injection, and where it has ended.
pub const HIGH: f64 = 300.0;
const LOW: f64 = 3.0;
/// Climbs of a day that are too many, and one more for so many panes. A quiet series in the middle of its tolerance climbs far more
/// rarely than the one in `HIGH` panes that is promised; without tolerance it does not.
const CLIMBS: u32 = 3;
const PANES_PER_CLIMB: u32 = 2_000;
pub const PANES_PER_CLIMB_BARE: u32 = 300;
/// A tolerance below this is none.
pub const BARE: f64 = 0.1;
const STRETCH: u8 = 6;
const STRETCH_MAX: u8 = 36;
const FORGET_MS: i64 = 28 * DAY_MS;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Climb {
    day_end_ms: i64,
    last_ms: i64,
    panes: u32,
    climbs: u16,
    high: bool,
    stretch: u8,
    /// The highest evidence of the climb that goes on.
    peak: f32,
}

impl Default for Climb {
    fn default() -> Self {
        Climb { day_end_ms: i64::MIN, last_ms: i64::MIN, panes: 0, climbs: 0, high: false, stretch: 1, peak: 0.0 }
    }
}

impl Climb {
    /// Panes that are judged as one.
    pub fn stretch(&self) -> u8 {
        self.stretch
    }

    /// Panes are longer, and could be longer still.
    pub fn stretched_once(&self) -> bool {
        self.stretch == STRETCH
    }

    /// One judged pane: the evidence in units of its injection, and how many of those a page takes. True when longer panes begin.
    #[inline]
    pub fn step(&mut self, ratio: f64, page: f64, tolerance: f64, at_ms: i64) -> bool {
        let panes_per_climb = if tolerance < BARE { PANES_PER_CLIMB_BARE } else { PANES_PER_CLIMB };
        self.step_allowing(panes_per_climb, HIGH, ratio, page, at_ms)
    }

    /// The same, with one climb more allowed a day for so many panes, and climbs counted twice that reach `high` times so high as one must.
    #[inline]
    pub fn step_allowing(&mut self, panes_per_climb: u32, high: f64, ratio: f64, page: f64, at_ms: i64) -> bool {
        self.panes += 1;
        if at_ms >= self.day_end_ms {
            (self.day_end_ms, self.panes, self.climbs) = (at_ms + DAY_MS, 1, 0);
            if self.stretch > 1 && at_ms - self.last_ms > FORGET_MS {
                (self.stretch, self.last_ms) = (self.stretch / STRETCH, at_ms);
            }
        }
        if !self.high {
            (self.high, self.peak) = (ratio >= HIGH, ratio as f32);
            return false;
        }
        if ratio >= LOW {
            self.peak = self.peak.max(ratio as f32);
            return false;
        }
        self.high = false;
        self.last_ms = at_ms;
        let peak = f64::from(self.peak);
        self.climbs = self.climbs.saturating_add(if peak >= HIGH * high && peak < page { 2 } else { 1 });
        if self.stretch > 1 {
            return self.lengthen(at_ms);
        }
        u32::from(self.climbs) >= CLIMBS + self.panes / panes_per_climb && self.lengthen(at_ms)
    }

    /// The climb has become a page, and does not count.
    pub fn paged(&mut self) {
        self.high = false;
    }

    /// Longer panes from now on, if there are any; also when people say that a page was a false alarm.
    pub fn lengthen(&mut self, at_ms: i64) -> bool {
        if self.stretch >= STRETCH_MAX {
            return false;
        }
        *self = Climb { stretch: self.stretch * STRETCH, last_ms: at_ms, ..Climb::default() };
        true
    }
}
