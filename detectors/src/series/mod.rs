//! The judge of plain series: any number that comes in regularly, of any shape, without a word about what it is.
//!
//! **Idea.** Look at a series from eight sides, each a plain number: the value, its mean over 48 rows, its step, the change of that
//! mean, how much it moves, how little it moves, its distance from what is usual at this time, and the mean of that distance. Ask of
//! each number only how far it lies *beyond the largest this series has ever shown*, in decimal orders of rarity; what was seen
//! before counts nothing. **Add** the eight answers: one side may be surprised by chance, several at once seldom are. A record enters
//! the memory, so an event pages once and is then known. **Habit** takes off a part of what the series reaches anyway; **youth** a
//! little while there is not much to have been seen; a side that sets records all the time (a walk, a trend) loses **credit**.
//! Two arms stand beside the sum and may page alone: **local** (a step against all steps so far, which does not get used to faults)
//! and **stuck** (a value that repeats longer than ever). After a page only what is clearly worse pages again, for 96 rows or two days.
//!
//! **Sees** spikes, new levels, ramps, changed or missing seasons, unusual noise and unusual calm, frozen values. **Does not see**
//! what looks like something in its memory, rows that are missing (that is [`crate::evidence`]'s gap bank), and nothing happening in a
//! series whose events are rare. **Knobs**: [`Settings`] only; the numbers inside are the same for every series
//! ([`Constants::FROZEN`]). **False alarms** are measured, not proven: rarities of correlated numbers are added. The figures are in
//! `benches/results/series.md`: about one page in three weeks on quiet series, in the first fortnight almost one a week.
//!
//! ```
//! use bellwether_detectors::series::{Answer, Judge, Settings};
//!
//! let mut judge = Judge::new(Settings::default());
//! for i in 0..1000 {
//!     let quiet = (i * 37 % 101) as f64 / 10.0;
//!     assert!(!judge.update(i * 300_000, quiet).pages());
//! }
//! let said = judge.update(1000 * 300_000, 60.0);
//! assert!(said.score >= 0.5);
//! assert!(said.words().ends_with(": above everything of the last weeks"));
//! // A person's word: the rows of that page leave the memory, and the same again pages again.
//! judge.answer(said.page.expect("it paged"), Answer::Real);
//! ```

use serde::{Deserialize, Serialize};

mod aspect;
mod constants;
mod explain;
mod fixed;
mod habit;
mod local;
mod peaks;
mod ring;
mod season;
mod stuck;

pub use constants::Constants;
pub use explain::{VOICES, Voice};

use aspect::{Aspect, Row, Side};
use habit::Habit;
use local::Local;
use peaks::Peaks;
use ring::Ring;
use season::Season;
use stuck::Stuck;

/// Version of a serialised judge. A snapshot with another version is not read but rebuilt.
pub const VERSION: u32 = 1;
pub const DAY_MS: i64 = 86_400_000;
/// Pages that can still be answered.
pub const ANSWERABLE: u64 = 64;
/// Rows of the long and of the shorter horizon.
const LONG: usize = 48;
const SWING: usize = 12;
/// Part of the greatest value that is no difference.
const SAME: f64 = 1e-9;
/// Values are cut to this size, which leaves room for sums in single precision.
const VALUE_MAX: f64 = 1e36;
/// Orders of the local arm from which on a page is of its kind.
const LOCAL_SPOKE_ORDERS: f64 = 2.0;
/// Marks go around: far more than can be answered. 0 is no mark.
const MARKS: u64 = 255;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// A row pages from this score on, between 0 and 1. Higher is quieter: one half is the level that was measured.
    pub threshold: f64,
    /// Length of the short season, in milliseconds: a day. Seven of them are the long one.
    pub cycle_ms: i64,
}

/// The answer to one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// At least 0 and less than 1; at least the threshold exactly when the row pages. While a page is fresh, what is not clearly
    /// worse scores 0.
    pub score: f64,
    /// The number of the page (from 1), if this row pages.
    pub page: Option<u64>,
    /// It would have paged, had not a page shortly before said the same.
    pub muted: bool,
    /// Decimal orders of rarity, all together.
    pub evidence: f64,
    /// What each voice said, in the order of [`Voice::ALL`]; negative where it is the low side that is rare. The two arms are
    /// listed where they decided.
    pub orders: [f64; VOICES],
}

/// A person's word on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A fault, and no news to get used to: its rows leave the memory, and steps of its kind page sooner.
    Real,
    /// Known, planned or harmless: it stays in the memory, and steps of its kind page later.
    Expected,
}

/// Everything that is kept of a series: 5.6 kB, whatever its length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    version: u32,
    settings: Settings,
    /// Rows so far.
    n: u64,
    /// The first value; all others are taken relative to it, so that single precision serves a clock as well as a ratio.
    origin: f64,
    greatest: f64,
    previous: f64,
    level: Aspect,
    long_level: Aspect,
    jump: Aspect,
    long_shift: Aspect,
    swing: Side,
    calm: Side,
    distance: Aspect,
    long_distance: Aspect,
    values: Ring<LONG>,
    values_before: Ring<LONG>,
    steps: Ring<SWING>,
    steps_long: Ring<LONG>,
    distances: Ring<LONG>,
    season: Season,
    habit: Habit,
    local: Local,
    stuck: Stuck,
    pages: Pages,
}

/// Pages so far, of which the last may still mute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Pages {
    count: u64,
    /// Rows since the last, when it was, and its evidence.
    rows: u32,
    at_ms: i64,
    height: f64,
    /// The last was called real: what follows in its time is not learned.
    is_real: bool,
    /// The last 64 pages, the newest in the lowest bit: of the local arm's kind; answered.
    local: u64,
    answered: u64,
    /// Pages of the local arm's kind that were called real, less those that were not.
    eager: u8,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Settings {
        Settings { threshold: 0.5, cycle_ms: DAY_MS }
    }
}

// === impl Judgement ===

impl Judgement {
    pub fn pages(&self) -> bool {
        self.page.is_some()
    }
}

// === impl Judge ===

impl Judge {
    pub fn new(settings: Settings) -> Judge {
        Judge {
            version: VERSION,
            settings,
            n: 0,
            origin: 0.0,
            greatest: 0.0,
            previous: 0.0,
            level: Aspect::default(),
            long_level: Aspect::default(),
            jump: Aspect::default(),
            long_shift: Aspect::default(),
            swing: Side::high(),
            calm: Side::low(),
            distance: Aspect::default(),
            long_distance: Aspect::default(),
            values: Ring::default(),
            values_before: Ring::default(),
            steps: Ring::default(),
            steps_long: Ring::default(),
            distances: Ring::default(),
            season: Season::new(settings.cycle_ms),
            habit: Habit::default(),
            local: Local::default(),
            stuck: Stuck::default(),
            pages: Pages::default(),
        }
    }

    /// Whether a judge that was read back is of this version; another must be made anew.
    pub fn is_current(&self) -> bool {
        self.version == VERSION
    }

    /// Judges the value first and learns it after. `at_ms`: since the epoch, in local time where the season is local. A value that
    /// is not finite scores 0 and changes nothing: the caller counts it.
    pub fn update(&mut self, at_ms: i64, value: f64) -> Judgement {
        self.update_under(&Constants::FROZEN, at_ms, value)
    }

    /// The same with other constants, for study: the bench turns one at a time.
    #[doc(hidden)]
    pub fn update_under(&mut self, c: &Constants, at_ms: i64, value: f64) -> Judgement {
        if !value.is_finite() {
            return Judgement { score: 0.0, page: None, muted: false, evidence: 0.0, orders: [0.0; VOICES] };
        }
        let value = value.clamp(-VALUE_MAX, VALUE_MAX);
        if self.n == 0 {
            self.origin = value;
        }
        self.greatest = self.greatest.max(value.abs());
        let x = value - self.origin;
        let is_fresh = self.pages.is_fresh(c, at_ms);
        let mark = if is_fresh { mark(self.pages.count) } else { 0 };
        let row = Row { eps: SAME * self.greatest, mark, kept_out: is_fresh && self.pages.is_real };

        let mut orders = self.aspects(c, at_ms, x, row);
        let sum: f64 = orders.iter().map(|o| o.abs()).sum();
        let used = sum - self.habit.step(c, sum, row.mark, row.kept_out) - self.youth(c);
        let local_orders = self.local.step(c, x);
        let local = c.page_orders / self.pages.local_orders(c) * local_orders;
        let stuck = c.page_orders * self.stuck.step(c, x);
        if local > used {
            orders[Voice::Local as usize] = local;
        }
        if stuck > used {
            orders[Voice::Stuck as usize] = stuck;
        }
        self.previous = x;
        self.n += 1;
        let evidence = used.max(local).max(stuck).max(0.0);
        let score = (1.0 - (-evidence / c.page_orders).exp2()).min(1.0 - f64::EPSILON);
        let is_local = local_orders >= LOCAL_SPOKE_ORDERS;
        self.decide(c, at_ms, Judgement { score, page: None, muted: false, evidence, orders }, is_local)
    }

    /// Page, or silence because one is fresh.
    fn decide(&mut self, c: &Constants, at_ms: i64, said: Judgement, is_local: bool) -> Judgement {
        self.pages.rows = self.pages.rows.saturating_add(1);
        if said.score < self.settings.threshold {
            return said;
        }
        if self.pages.is_fresh(c, at_ms) && said.evidence < self.pages.height + c.again_orders {
            return Judgement { score: 0.0, muted: true, ..said };
        }
        self.pages.open(at_ms, said.evidence, is_local);
        let mark = mark(self.pages.count);
        self.peaks().for_each(|peaks| peaks.page(mark));
        self.habit.page(mark);
        Judgement { page: Some(self.pages.count), ..said }
    }

    /// A person's word on a page, by its number; false if there is no such page among the last [`ANSWERABLE`], or it was answered
    /// before.
    ///
    /// After [`Answer::Real`] everything that fell into the page's time (its block of rows and the one before, and the rows while it
    /// is fresh) is taken out of the records, and what still comes in that time is not learned. Levels of a season keep what they
    /// took in before the answer.
    pub fn answer(&mut self, page: u64, answer: Answer) -> bool {
        let Some(age) = self.pages.count.checked_sub(page).filter(|age| page > 0 && *age < ANSWERABLE) else { return false };
        if self.pages.answered >> age & 1 == 1 {
            return false;
        }
        self.pages.answered |= 1 << age;
        let is_local = self.pages.local >> age & 1 == 1;
        match answer {
            Answer::Real => {
                self.pages.is_real |= age == 0;
                self.pages.eager = self.pages.eager.saturating_add(u8::from(is_local));
                let mark = mark(page);
                self.peaks().for_each(|peaks| peaks.forget(mark));
                self.habit.forget(mark);
            }
            Answer::Expected => self.pages.eager = self.pages.eager.saturating_sub(u8::from(is_local)),
        }
        true
    }

    /// Orders that a young series must show beyond others.
    #[inline]
    fn youth(&self, c: &Constants) -> f64 {
        let n = self.n as f64 + 1.0;
        if n < c.young_rows { c.young_orders * (c.young_rows / n).log10() } else { 0.0 }
    }

    /// What the eight aspects say, in the order of [`Voice::ALL`]; one whose number does not exist yet is silent and learns nothing.
    #[inline]
    fn aspects(&mut self, c: &Constants, at_ms: i64, x: f64, row: Row) -> [f64; VOICES] {
        let mut orders = [0.0; VOICES];
        if let Some(leaves) = self.values.push(x) {
            self.values_before.push(leaves);
        }
        orders[Voice::Level as usize] = self.level.step(c, x, row);
        if let Some(mean) = self.values.mean() {
            orders[Voice::LongLevel as usize] = self.long_level.step(c, mean, row);
            if let Some(before) = self.values_before.mean() {
                orders[Voice::LongShift as usize] = self.long_shift.step(c, mean - before, row);
            }
        }
        if self.n > 0 {
            let jump = x - self.previous;
            self.steps.push(jump.abs());
            self.steps_long.push(jump.abs());
            orders[Voice::Jump as usize] = self.jump.step(c, jump, row);
            if let Some(mean) = self.steps.mean() {
                orders[Voice::Swing as usize] = self.swing.step(c, mean, row);
            }
            if let Some(mean) = self.steps_long.mean() {
                orders[Voice::Calm as usize] = self.calm.step(c, mean, row);
            }
        }
        if let Some(distance) = self.season.step(c, at_ms, x, row.kept_out) {
            let weight = if self.season.week_is_seen() { 1.0 } else { c.season_first_week };
            self.distances.push(distance);
            orders[Voice::Season as usize] = weight * self.distance.step(c, distance, row);
            if let Some(mean) = self.distances.mean() {
                orders[Voice::LongSeason as usize] = weight * self.long_distance.step(c, mean, row);
            }
        }
        orders
    }

    /// Every record that is kept.
    fn peaks(&mut self) -> impl Iterator<Item = &mut Peaks> {
        let both = [&mut self.level, &mut self.long_level, &mut self.jump, &mut self.long_shift, &mut self.distance, &mut self.long_distance];
        let one = [&mut self.swing, &mut self.calm];
        both.into_iter().flat_map(Aspect::peaks).chain(one.into_iter().map(Side::peaks))
    }
}

// === impl Pages ===

impl Pages {
    /// Whether the last page still mutes.
    fn is_fresh(&self, c: &Constants, at_ms: i64) -> bool {
        self.count > 0 && self.rows < c.mute_rows && at_ms.saturating_sub(self.at_ms) < c.mute_ms
    }

    fn open(&mut self, at_ms: i64, height: f64, is_local: bool) {
        *self = Pages {
            count: self.count + 1,
            rows: 0,
            at_ms,
            height,
            is_real: false,
            local: self.local << 1 | u64::from(is_local),
            answered: self.answered << 1,
            eager: self.eager,
        };
    }

    /// Orders at which the local arm pages.
    fn local_orders(&self, c: &Constants) -> f64 {
        c.local_orders - c.eager_orders * f64::from(self.eager).min(c.eager_max)
    }
}

/// The mark of what fell into a page's time.
fn mark(page: u64) -> u8 {
    (page.saturating_sub(1) % MARKS) as u8 + 1
}

#[cfg(test)]
mod tests;
