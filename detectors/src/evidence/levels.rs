//! The level of values by hour of the day, believed as far as the hours are seen to differ and to come again.
//!
//! **Formula.** Every value has a score on a scale that does not move (an event of a class scores 1, any other 0). For each of 24 hours (of UTC) the sum of quiet scores and their
//! number are kept. tau2 is the variance of the hours' means beyond what chance shows, phi v / n; an hour's level is its mean, drawn to that
//! of all hours with the weight kappa = phi v / tau2 (empirical Bayes). Hours are told apart only when tau2 is three standard
//! errors beyond chance. Where tolerance forgives the whole course, all hours are judged alike; that it is no noise is known all the same.
//! **Do hours come again?** One day cannot tell a daily course from a random walk. Each hour is compared, before it is learned, with its own
//! level of the days before and with that of all hours. Until a dozen of them were compared, *both* count as normal, and all that lies between
//! them; from then on the hour's own, as far as it foretold better. A course that does not come again is not believed at all.
//! A change in the first day looks like the beginning of a course too. Without tolerance, hours since the evidence of it began do not tell how
//! much hours differ; with one they do, since a young series with a course would page for it (27 pages of 10 at a swing of .2, against 5).
//! From the fourth hour on it is also gathered how the hours of the *week* differ from those of the day (`week.rs`).
//! **Does not see** an hour whose shape changes while its level stays.

use serde::{Deserialize, Serialize};

use super::week::{Differs, Foretold, Week};

const HOUR_MS: i64 = 3_600_000;
const HOURS: usize = 24;
const HOURS_OF_WEEK: i64 = 7 * HOURS as i64;
/// Hours that must be known before they are told apart, and the events of which one consists at least.
const KNOWN_MIN: f64 = 6.0;
const EVENTS_MIN: f64 = 30.0;
/// Standard errors of what chance shows that are not believed.
const DOUBT: f64 = 3.0;
/// Variance of the hours' means in units of the squared tolerance below which it forgives the whole course, that of a wave as high; and the
/// height that no hour may reach, with room for chance.
const FORGIVEN: f64 = 0.5;
const FORGIVEN_HEIGHT: f64 = 1.25;
/// Stretches of panes so long and longer hold the course of the day.
pub const HOURLY_PANES: u32 = 32;
/// Part of a share, and of what it leaves, that every hour has at least.
pub const HOUR_SHARE_MIN: f64 = 0.1;
/// Hours learned before those of the week are gathered too: a series that does not live so long needs no memory for them.
const HOURS_BEFORE_WEEK: u8 = 3;
/// Hours of an incident that are set aside: two weeks.
const ASIDE_MAX: usize = 336;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Levels {
    /// Sum of scores and their number.
    cells: [(f32, f32); HOURS],
    /// Hours since 1970.
    hour: i64,
    /// What the present hour has brought so far.
    sum: f64,
    n: f64,
    /// By the hours' own levels, and by that of all hours.
    foretold: Foretold,
    /// Variance between hours that is believed, 0 when they are not told apart; phi times the variance of one score.
    tau2: f64,
    chance: f64,
    mean: f64,
    /// Tolerance forgives all that the hours differ by.
    forgiven: bool,
    /// Hours learned, as far as that matters.
    learned: u8,
    week: Option<Box<Week>>,
    /// Hours, sums and numbers of an open incident: learned if it is called a false alarm, and so belongs to its hours.
    aside: Vec<(i64, f32, f32)>,
}

/// Levels within an hour that comes again, from the mean of all hours, evenly between the middles of hours and as the week has it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// At the middles of the hour before, of this one and of the next.
    levels: [f32; 3],
}

/// What is normal in an hour: the middle of its levels, from the mean of all hours, and how far they reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Level {
    pub middle: f64,
    pub half: f64,
}

impl Default for Levels {
    fn default() -> Self {
        Levels {
            cells: [(0.0, 0.0); HOURS],
            hour: i64::MIN,
            sum: 0.0,
            n: 0.0,
            foretold: Foretold::default(),
            tau2: 0.0,
            chance: 0.0,
            mean: 0.0,
            forgiven: false,
            learned: 0,
            week: None,
            aside: Vec::new(),
        }
    }
}

impl Course {
    /// In the middle of a pane that begins within the hour.
    #[inline]
    pub fn at(&self, start_ms: i64, pane_ms: i64) -> f64 {
        let since_middle_ms = start_ms.rem_euclid(HOUR_MS) + pane_ms / 2 - HOUR_MS / 2;
        let way = (since_middle_ms as f64 * (1.0 / HOUR_MS as f64)).clamp(-1.0, 1.0);
        let [before, now, after] = self.levels.map(f64::from);
        now + way * if way < 0.0 { now - before } else { after - now }
    }
}

impl Levels {
    pub fn hour(&self) -> i64 {
        self.hour
    }

    /// Variance between hours, 0 when they are not told apart.
    pub fn tau2(&self) -> f64 {
        self.tau2 + self.week.as_ref().map_or(0.0, |week| week.tau2())
    }

    /// A new hour begins: the last one is compared and kept, and how much hours differ is told anew. `mean` and `variance` are those
    /// of one score over all hours, `forgiven` is the tolerance in its units. `suspect_from_ms`: since when there has been evidence of a
    /// change; nothing where tolerance is what tells a change from a course.
    pub fn turn(&mut self, hour: i64, mean: f64, variance: f64, phi: f64, forgiven: f64, suspect_from_ms: Option<i64>) {
        let fade = if self.hour == i64::MIN { 1.0 } else { super::decay((hour - self.hour).clamp(0, 1_000) * HOUR_MS) };
        if self.n > 0.0 {
            let at = self.hour.rem_euclid(HOURS as i64) as usize;
            let (sum, n) = self.cells[at];
            if let Some(week) = &mut self.week {
                week.hour(self.hour, self.sum, self.n, self.chance, EVENTS_MIN, means_of_day(&self.cells, mean));
            } else if self.learned >= HOURS_BEFORE_WEEK {
                self.week = Some(Box::default());
            }
            self.learned = self.learned.saturating_add(1);
            if f64::from(n) >= EVENTS_MIN && self.n >= EVENTS_MIN {
                let now = self.sum / self.n;
                self.foretold.compare(now - f64::from(sum / n), now - mean);
            }
            self.cells[at] = (sum + self.sum as f32, n + self.n as f32);
        }
        for cell in &mut self.cells {
            *cell = (cell.0 * fade as f32, cell.1 * fade as f32);
        }
        (self.hour, self.sum, self.n) = (hour, 0.0, 0.0);
        (self.tau2, self.chance, self.mean, self.forgiven) = (0.0, phi * variance, mean, false);
        if let Some(week) = &mut self.week {
            week.fade(fade as f32);
            week.tell(self.chance, EVENTS_MIN, means_of_day(&self.cells, mean));
        }
        // Until it is known whether hours come again, those since the evidence began may be the change that it speaks of.
        let suspected = match suspect_from_ms {
            Some(ms) if self.foretold.part().is_none() => (hour - ms.div_euclid(HOUR_MS)).clamp(0, HOURS as i64),
            _ => 0,
        };
        let is_suspected = |at: usize| (hour - 1 - at as i64).rem_euclid(HOURS as i64) < suspected;
        let (mut hours, mut sum, mut squares, mut chance) = (0.0, 0.0, 0.0, 0.0);
        for (_, (s, n)) in self.cells.iter().enumerate().filter(|(at, c)| f64::from(c.1) >= EVENTS_MIN && !is_suspected(*at)) {
            let level = f64::from(s / n);
            hours += 1.0;
            sum += level;
            squares += level * level;
            chance += self.chance / f64::from(*n);
        }
        if hours < KNOWN_MIN {
            return;
        }
        let seen = (squares - sum * sum / hours) / (hours - 1.0);
        let chance = chance / hours;
        let tau2 = seen - chance;
        if tau2 > chance * DOUBT * (2.0 / (hours - 1.0)).sqrt() {
            self.tau2 = tau2;
        }
        // A course that is no wave goes farther than its variance tells.
        let all = self.tau2 + self.week.as_ref().map_or(0.0, |week| week.tau2());
        let low = || (0..HOURS_OF_WEEK).all(|hour| self.middle_of(hour).abs() <= FORGIVEN_HEIGHT * forgiven);
        self.forgiven = all > 0.0 && all <= FORGIVEN * forgiven * forgiven && low();
    }

    /// Were enough hours compared to tell whether they come again?
    pub fn have_been_compared(&self) -> bool {
        self.foretold.is_known()
    }

    /// Have hours, of the day or of the week, been seen to come again as they were?
    pub fn come_again(&self) -> bool {
        self.days_come_again() || self.weeks_come_again()
    }

    fn days_come_again(&self) -> bool {
        self.tau2 > 0.0 && self.foretold.comes_again()
    }

    pub fn weeks_come_again(&self) -> bool {
        self.week.as_ref().is_some_and(|week| week.comes_again())
    }

    fn differs(&self, hour: i64) -> Option<Differs> {
        self.week.as_ref()?.differs(hour, self.chance, means_of_day(&self.cells, self.mean))
    }

    /// The level of an hour of the week as far as it is certain, from the mean of all hours.
    fn middle_of(&self, hour: i64) -> f64 {
        self.own(hour).0 + self.differs(hour).filter(|d| d.certain).map_or(0.0, |d| d.by)
    }

    /// An hour's own level, from the mean of all hours, and the weight it has.
    fn own(&self, hour: i64) -> (f64, f64) {
        let (sum, n) = self.cells[hour.rem_euclid(HOURS as i64) as usize];
        let weight = f64::from(n) / (f64::from(n) + self.chance / self.tau2.max(1e-12));
        (if n > 0.0 { weight * (f64::from(sum / n) - self.mean) } else { 0.0 }, weight)
    }

    /// Levels of all hours, of the week where weeks come again, and the part of all events that each has.
    pub fn all(&self) -> impl Iterator<Item = (f64, f64)> {
        let hours = if self.weeks_come_again() { HOURS_OF_WEEK } else { HOURS as i64 };
        let of = |hour: i64| f64::from(self.cells[hour.rem_euclid(HOURS as i64) as usize].1);
        let sum: f64 = (0..hours).map(of).sum();
        (0..hours).map(move |hour| (self.middle_of(hour), if sum > 0.0 { of(hour) / sum } else { 1.0 / hours as f64 }))
    }

    /// The course within the present hour, if hours come again: it is no noise.
    pub fn course_now(&self) -> Option<Course> {
        if !self.come_again() {
            return None;
        }
        let of_week = self.differs(self.hour).filter(|d| d.certain).map_or(0.0, |d| d.by);
        Some(Course { levels: [-1, 0, 1].map(|beside| (self.own(self.hour + beside).0 + of_week) as f32) })
    }

    /// The hours around a time with their levels, and how far on the way from the middle of the one to that of the other it is.
    fn around(&self, at_ms: i64) -> ((f64, f64), (f64, f64), f64) {
        let half_hours = at_ms as f64 / HOUR_MS as f64 - 0.5;
        let before = half_hours.floor() as i64;
        (self.own(before), self.own(before + 1), half_hours - half_hours.floor())
    }

    /// The level of an hour (since 1970); that of all hours where tolerance forgives the course.
    pub fn level(&self, hour: i64) -> Level {
        if self.forgiven { Level::default() } else { self.course(hour) }
    }

    /// The level at a time, whether tolerance forgives the course or not; of the whole hour while it is not known whether hours come again.
    pub fn course_at(&self, at_ms: i64) -> Level {
        let hour = at_ms.div_euclid(HOUR_MS);
        if !self.days_come_again() {
            return self.course(hour);
        }
        let ((before, one), (after, other), part) = self.around(at_ms);
        let level = (1.0 - part) * before + part * after;
        let unsure = (self.tau2 * (1.0 - one.min(other))).sqrt();
        self.with_week(hour, level - unsure, level + unsure)
    }

    fn course(&self, hour: i64) -> Level {
        let (low, high) = self.of_day(hour);
        self.with_week(hour, low, high)
    }

    /// What is normal by the hour of the day becomes what is normal by that of the week.
    fn with_week(&self, hour: i64, mut low: f64, mut high: f64) -> Level {
        match self.differs(hour) {
            Some(d) if d.certain => (low, high) = (low + d.low, high + d.high),
            Some(d) => (low, high) = (low + d.low.min(0.0), high + d.high.max(0.0)),
            None => {}
        }
        Level { middle: 0.5 * (low + high), half: 0.5 * (high - low) }
    }

    /// What is normal by the hour of the day: the lowest and the highest level.
    fn of_day(&self, hour: i64) -> (f64, f64) {
        let foretold = self.foretold.part();
        if self.tau2 <= 0.0 || foretold.is_some_and(|part| part <= 0.0) {
            return (0.0, 0.0);
        }
        let (own, weight) = self.own(hour);
        let (mut low, mut high) = (own, own);
        // Within the hour the level goes half of the way to its neighbours.
        for (beside, its_weight) in [self.own(hour - 1), self.own(hour + 1)] {
            if its_weight > 0.0 && weight > 0.0 {
                low = low.min(0.5 * (own + beside));
                high = high.max(0.5 * (own + beside));
            }
        }
        let unsure = (self.tau2 * (1.0 - weight)).sqrt();
        let least = foretold.unwrap_or(0.0) * own;
        ((low - unsure).min(least), (high + unsure).max(least))
    }

    pub fn learn(&mut self, sum: f64, n: f64) {
        self.sum += sum;
        self.n += n;
    }

    /// What an incident brings in an hour.
    pub fn set_aside(&mut self, hour: i64, sum: f64, n: f64) {
        if let Some(last) = self.aside.last_mut().filter(|last| last.0 == hour) {
            (last.1, last.2) = (last.1 + sum as f32, last.2 + n as f32);
        } else if self.aside.len() < ASIDE_MAX {
            self.aside.push((hour, sum as f32, n as f32));
        }
    }

    /// The incident is over: what was set aside belongs to its hours, or is forgotten.
    pub fn settle_aside(&mut self, is_normal: bool) {
        for (hour, sum, n) in std::mem::take(&mut self.aside) {
            if !is_normal {
                continue;
            }
            if hour >= self.hour {
                self.learn(f64::from(sum), f64::from(n));
                continue;
            }
            let cell = &mut self.cells[hour.rem_euclid(HOURS as i64) as usize];
            *cell = (cell.0 + sum, cell.1 + n);
            if let Some(week) = &mut self.week {
                week.learn(hour, sum, n);
            }
        }
    }

    /// What was learned in an hour is taken out again.
    pub fn give_back(&mut self, hour: i64, sum: f64, n: f64) {
        if let Some(week) = self.week.as_mut().filter(|_| hour < self.hour) {
            week.give_back(hour, sum, n);
        }
        if hour >= self.hour {
            let share = (n / self.n.max(1e-9)).min(1.0);
            (self.sum, self.n) = if share < 1.0 { (self.sum - sum, self.n - n) } else { (0.0, 0.0) };
        } else {
            let cell = &mut self.cells[hour.rem_euclid(HOURS as i64) as usize];
            *cell = if f64::from(cell.1) > n { (cell.0 - sum as f32, cell.1 - n as f32) } else { (0.0, 0.0) };
        }
    }

    pub fn discount(&mut self, share: f64) {
        for cell in &mut self.cells {
            *cell = (cell.0 * share as f32, cell.1 * share as f32);
        }
        (self.sum, self.n) = (self.sum * share, self.n * share);
        self.aside = Vec::new();
        if let Some(week) = &mut self.week {
            week.discount(share as f32);
        }
    }
}

/// What hours of the day say, whether they are told apart or not: the mean of each that is known, else that of all.
fn means_of_day(cells: &[(f32, f32); HOURS], mean: f64) -> impl Fn(i64) -> f64 {
    move |hour| {
        let (sum, n) = cells[hour.rem_euclid(HOURS as i64) as usize];
        if f64::from(n) >= EVENTS_MIN { f64::from(sum / n) } else { mean }
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::Noise;
    use super::*;

    /// Days of hours of 3,600 events whose mean is told by `level`, each learned, and the levels at the end.
    fn days(days: i64, tolerance: f64, seed: u64, mut level: impl FnMut(i64, &mut Noise) -> f64) -> Levels {
        let mut noise = Noise::new(seed);
        let mut levels = Levels::default();
        let (mut sum, mut n) = (0.0, 0.0);
        for hour in 0..=24 * days {
            levels.turn(hour, if n > 0.0 { sum / n } else { 0.0 }, 1.0, 1.0, tolerance, None);
            let all = 3_600.0 * level(hour, &mut noise) + 60.0 * noise.normal();
            levels.learn(all, 3_600.0);
            sum += all;
            n += 3_600.0;
        }
        levels
    }

    fn wave(hour: i64) -> f64 {
        (hour as f64 * std::f64::consts::TAU / 24.0).sin()
    }

    #[test]
    fn a_day_is_learned_between_both_levels_first_and_then_for_itself() {
        let (young, old) = (days(1, 0.1, 1, |hour, _| 0.3 * wave(hour)), days(4, 0.1, 1, |hour, _| 0.3 * wave(hour)));
        for hour in 0..24 {
            let (truth, first, then) = (0.3 * wave(hour), young.level(hour), old.level(hour));
            for level in [first, then] {
                assert!((level.middle - truth).abs() < level.half + 0.05, "{hour}: {level:?} of {truth}");
            }
            assert!(first.middle.abs() < first.half + 0.05, "{hour}: {first:?} holds all hours' level");
            assert!(then.half < 0.08, "{hour}: {then:?}");
        }
        assert!((old.level(6).middle - 0.3).abs() < 0.05, "{:?}", old.level(6));
    }

    #[test]
    fn a_change_of_which_there_is_evidence_is_no_course() {
        let after_seven_hours = |suspect_from_ms: Option<i64>| {
            let mut levels = Levels::default();
            for hour in 0..=7 {
                levels.turn(hour, 0.0, 1.0, 1.0, 0.0, suspect_from_ms.filter(|ms| *ms < hour * HOUR_MS));
                levels.learn(if hour == 5 || hour == 6 { 360.0 } else { 0.0 }, 3_600.0);
            }
            levels
        };
        assert!(after_seven_hours(None).level(7).half > 0.03, "two of seven hours are a tenth higher");
        let mut suspicious = after_seven_hours(Some(5 * 3_600_000 + 1));
        assert_eq!(suspicious.level(7), Level::default());
        assert!(suspicious.cells[5].1 > 3_500.0, "they are learned all the same");
        suspicious.turn(8, 0.0, 1.0, 1.0, 0.0, None);
        assert!(suspicious.level(8).half > 0.03, "once the evidence has gone they count");
    }

    #[test]
    fn without_a_day_hours_are_not_told_apart() {
        let believed = |name: &str, levels: &dyn Fn(u64) -> Levels| {
            let of = (0..200).filter(|seed| (0..24).any(|hour| levels(*seed).level(hour) != Level::default())).count();
            println!("{name}: {of} of 200");
            of
        };
        // Within one hundredth by chance, and never where tolerance forgives it.
        assert!(believed("independent", &|seed| days(3, 0.0, seed, |_, _| 0.0)) <= 6);
        assert_eq!(believed("a swing within tolerance", &|seed| days(3, 0.1, seed, |hour, _| 0.08 * wave(hour))), 0);
        // Hours that differ but do not come again.
        assert!(believed("levels drawn anew every hour", &|seed| days(3, 0.1, seed, |_, noise| 0.2 * noise.normal())) <= 6);
    }

    #[test]
    fn what_is_given_back_was_never_learned() {
        let mut levels = days(2, 0.1, 3, |hour, _| 0.3 * wave(hour));
        let before = levels.clone();
        levels.learn(500.0, 100.0);
        levels.give_back(48, 500.0, 100.0);
        assert!((levels.sum - before.sum).abs() < 1e-6 && levels.n == before.n);
        levels.give_back(40, 1e9, 1e9);
        assert_eq!(levels.cells[16], (0.0, 0.0));
    }
}
