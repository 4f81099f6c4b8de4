//! The judge of plain series.

use serde::{Deserialize, Serialize};

mod aspect;
mod constants;
mod fixed;
mod habit;
mod local;
mod peaks;
mod ring;
mod season;
mod stuck;

pub use constants::Constants;

use aspect::{Aspect, Row};
use habit::Habit;
use local::Local;
use peaks::Peaks;
use ring::Ring;
use season::Season;
use stuck::Stuck;

/// Version of a serialised judge. A snapshot with another version is not read but rebuilt.
pub const VERSION: u32 = 1;
/// Decimal orders that page at the default.
pub const PAGE_ORDERS: f64 = 7.5;
pub const DAY_MS: i64 = 86_400_000;
const LONG: usize = 48;
const SWING: usize = 12;
/// Values are cut to this size, which leaves room for sums in single precision.
const VALUE_MAX: f64 = 1e36;

/// What may speak, in the order of [`Judgement::orders`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Voice {
    Level,
    LongLevel,
    Jump,
    LongShift,
    Swing,
    Calm,
    Season,
    LongSeason,
    Local,
    Stuck,
}

pub const VOICES: [Voice; 10] = [
    Voice::Level,
    Voice::LongLevel,
    Voice::Jump,
    Voice::LongShift,
    Voice::Swing,
    Voice::Calm,
    Voice::Season,
    Voice::LongSeason,
    Voice::Local,
    Voice::Stuck,
];
const ASPECTS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Orders of evidence that page.
    pub page_orders: f64,
    /// Length of the short season (a day); the long one is seven of them.
    pub cycle_ms: i64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { page_orders: PAGE_ORDERS, cycle_ms: DAY_MS }
    }
}

/// The answer to one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// From 0 to 1, at least one half exactly when the row pages.
    pub score: f64,
    pub pages: bool,
    pub muted: bool,
    /// Decimal orders of rarity, all together.
    pub evidence: f64,
    pub orders: [f64; VOICES.len()],
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    version: u32,
    settings: Settings,
    n: u64,
    origin: f64,
    greatest: f64,
    previous: f64,
    aspects: [Aspect; ASPECTS],
    mean: Ring<LONG>,
    before: Ring<LONG>,
    steps: Ring<SWING>,
    steps_long: Ring<LONG>,
    distance: Ring<LONG>,
    season: Season,
    habit: Habit,
    local: Local,
    stuck: Stuck,
    page: Option<Page>,
    pages: u64,
}

/// The last page.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    rows: u32,
    at_ms: i64,
    height: f64,
    real: bool,
}

impl Judge {
    pub fn new(settings: Settings) -> Judge {
        let both = Aspect::both;
        Judge {
            version: VERSION,
            settings,
            n: 0,
            origin: 0.0,
            greatest: 0.0,
            previous: 0.0,
            aspects: [both(), both(), both(), both(), Aspect::rises(), Aspect::falls(), both(), both()],
            mean: Ring::default(),
            before: Ring::default(),
            steps: Ring::default(),
            steps_long: Ring::default(),
            distance: Ring::default(),
            season: Season::new(settings.cycle_ms),
            habit: Habit::default(),
            local: Local::default(),
            stuck: Stuck::default(),
            page: None,
            pages: 0,
        }
    }

    pub fn update(&mut self, at_ms: i64, value: f64) -> Judgement {
        self.update_under(&Constants::FROZEN, at_ms, value)
    }

    #[doc(hidden)]
    pub fn update_under(&mut self, c: &Constants, at_ms: i64, value: f64) -> Judgement {
        let mut orders = [0.0; VOICES.len()];
        if !value.is_finite() {
            return Judgement { score: 0.0, pages: false, muted: false, evidence: 0.0, orders };
        }
        let value = value.clamp(-VALUE_MAX, VALUE_MAX);
        if self.n == 0 {
            self.origin = value;
        }
        self.greatest = self.greatest.max(value.abs());
        let x = value - self.origin;
        let inside = self.page.filter(|p| p.rows < c.mute_rows && at_ms.saturating_sub(p.at_ms) < c.mute_ms);
        let mark = if inside.is_some() { self.mark() } else { 0 };
        let row = Row { eps: 1e-9 * self.greatest, mark, kept_out: inside.is_some_and(|p| p.real) };

        let numbers = self.numbers(c, at_ms, x, row.kept_out);
        for ((aspect, number), order) in self.aspects.iter_mut().zip(numbers).zip(&mut orders) {
            if let Some(number) = number {
                *order = aspect.step(c, number, row);
            }
        }
        let sum: f64 = orders.iter().sum();
        let mut used = sum - self.habit.step(c, sum, row.mark, row.kept_out);
        if c.young_orders > 0.0 && (self.n as f64) < c.young_rows {
            used -= c.young_orders * (c.young_rows / (self.n as f64 + 1.0)).log10();
        }
        let local = c.local_weight * self.local.step(c, x);
        let stuck = PAGE_ORDERS * self.stuck.step(c, x);
        if local > used {
            orders[Voice::Local as usize] = local;
        }
        if stuck > used {
            orders[Voice::Stuck as usize] = stuck;
        }
        self.previous = x;
        self.n += 1;
        let evidence = used.max(local).max(stuck).max(0.0);

        if let Some(page) = &mut self.page {
            page.rows = page.rows.saturating_add(1);
        }
        let mut pages = evidence >= self.settings.page_orders;
        let mut muted = false;
        if pages {
            if let Some(page) = &self.page
                && page.rows < c.mute_rows
                && at_ms.saturating_sub(page.at_ms) < c.mute_ms
                && evidence < page.height + c.again_orders
            {
                (pages, muted) = (false, true);
            } else {
                self.page = Some(Page { rows: 0, at_ms, height: evidence, real: false });
                self.pages += 1;
                let mark = self.mark();
                self.aspects.iter_mut().flat_map(Aspect::sides).for_each(|p| p.page(mark));
                self.habit.page(mark);
            }
        }
        let score = if muted { 0.0 } else { 1.0 - (-evidence / PAGE_ORDERS).exp2() };
        Judgement { score, pages, muted, evidence, orders }
    }

    fn mark(&self) -> u8 {
        ((self.pages.max(1) - 1) % 255) as u8 + 1
    }

    /// The user's word on the last page: it was a fault, not news to get used to.
    pub fn real(&mut self) {
        let mark = self.mark();
        let Some(page) = &mut self.page else { return };
        page.real = true;
        self.aspects.iter_mut().flat_map(Aspect::sides).for_each(|p: &mut Peaks| p.forget(mark));
        self.habit.forget(mark);
    }

    /// The eight numbers; those that do not exist yet are none.
    #[inline]
    fn numbers(&mut self, c: &Constants, at_ms: i64, x: f64, kept_out: bool) -> [Option<f64>; ASPECTS] {
        if let Some(leaves) = self.mean.push(x) {
            self.before.push(leaves);
        }
        let (mean, before) = (self.mean.mean(), self.before.mean());
        let jump = (self.n > 0).then(|| x - self.previous);
        if let Some(jump) = jump {
            self.steps.push(jump.abs());
            self.steps_long.push(jump.abs());
        }
        let distance = self.season.step(c, at_ms, x, kept_out);
        if let Some(distance) = distance {
            self.distance.push(distance);
        }
        [
            Some(x),
            mean,
            jump,
            mean.zip(before).map(|(mean, before)| mean - before),
            jump.and_then(|_| self.steps.mean()),
            jump.and_then(|_| self.steps_long.mean()),
            distance,
            distance.and_then(|_| self.distance.mean()),
        ]
    }
}
