//! How the level of a stretch of the week differs from what its hours of the day say: weekends, and Mondays that are busier.
//!
//! **Formula.** For each of 56 stretches of three hours (of UTC) the sum of quiet scores and their number are kept. A stretch differs by its
//! mean less that of its hours of the day; tau2 is the variance of these differences beyond what chance shows, and each is drawn to nothing
//! with the weight kappa = phi v / tau2 (empirical Bayes), as hours are to the level of all hours.
//! **Do weeks come again?** Where the stretch of the week and the hour of the day foretell different things, it is noted, before the hour is
//! learned, which of both was nearer. Until a dozen such hours were compared both are normal, and all that lies between them; then the week's, if
//! it foretold most of what hours of the day missed, both if it foretold some, and the hour of the day's alone if it foretold nothing.
//! **Does not see** a first weekend beforehand, nor what comes once a month.

use serde::{Deserialize, Serialize};

const DAYS: usize = 7;
/// Three hours each: fewer would hold too little, more would mix the evening with the night.
const OF_A_DAY: usize = 8;
const HOURS_EACH: i64 = 3;
/// Differences in standard errors from which on it is compared who foretold better, and beyond chance from which on weeks are told apart.
const DISAGREE: f64 = 2.0;
const DOUBT: f64 = 3.0;
const STRETCHES: i64 = (DAYS * OF_A_DAY) as i64;
/// Stretches that must be known before they are told apart, and that must have passed: six days, so that both kinds of day were seen.
const KNOWN_MIN: f64 = 8.0;
const STRETCHES_MIN: i64 = STRETCHES - OF_A_DAY as i64;
/// Hours compared before it counts who foretells better, and how many of them are remembered.
const COMPARED_MIN: f32 = 12.0;
const COMPARED_MAX: f32 = 168.0;
/// Part of what the cruder one missed that must be foretold for the finer one to stand alone.
const COME_AGAIN: f64 = 0.5;

/// Which of two foretells hours better: squared errors of the finer one and of the cruder one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Foretold {
    with: f32,
    without: f32,
    compared: f32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Week {
    cells: [[(f32, f32); OF_A_DAY]; DAYS],
    /// What the present stretch has brought so far; it is no part of its cell yet, since an hour would foretell the next.
    stretch: i64,
    /// The first one.
    since: Option<i64>,
    pending: (f32, f32),
    /// By the week, and by the hour of the day.
    foretold: Foretold,
    /// Variance of the differences that is believed, 0 when weeks are not told apart.
    tau2: f64,
}

/// How an hour differs from its hour of the day, by the week.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Differs {
    /// The stretch's own, and the range of it and its neighbours: a weekend begins somewhere within a stretch.
    pub by: f64,
    pub low: f64,
    pub high: f64,
    /// It stands alone; else both are normal.
    pub certain: bool,
}

fn place(stretch: i64) -> (usize, usize) {
    let at = stretch.rem_euclid(STRETCHES) as usize;
    (at / OF_A_DAY, at % OF_A_DAY)
}

impl Foretold {
    /// By how much the finer and the cruder one missed an hour.
    pub fn compare(&mut self, with: f64, without: f64) {
        self.with += with.powi(2) as f32;
        self.without += without.powi(2) as f32;
        self.compared += 1.0;
        if self.compared > COMPARED_MAX {
            let keep = COMPARED_MAX / (COMPARED_MAX + 1.0);
            self.with *= keep;
            self.without *= keep;
            self.compared *= keep;
        }
    }

    /// Were enough hours compared to tell?
    pub fn is_known(&self) -> bool {
        self.compared >= COMPARED_MIN
    }

    /// Part of what the cruder one missed that the finer one foretold; nothing before enough hours were compared.
    pub fn part(&self) -> Option<f64> {
        self.is_known().then(|| 1.0 - f64::from(self.with / self.without.max(1e-12)))
    }

    pub fn comes_again(&self) -> bool {
        self.part().is_some_and(|part| part > COME_AGAIN)
    }
}

impl Week {
    fn cell(&self, stretch: i64) -> (f64, f64) {
        let (day, at) = place(stretch);
        let (sum, n) = self.cells[day][at];
        (f64::from(sum), f64::from(n))
    }

    /// An hour is over: who foretold it better, and then it is learned. `of_day`: what hours of the day say of an hour of the day; `chance`:
    /// phi times the variance of a score; `enough`: events from which on a level is one.
    pub fn hour(&mut self, hour: i64, sum: f64, n: f64, chance: f64, enough: f64, of_day: impl Fn(i64) -> f64) {
        let stretch = hour.div_euclid(HOURS_EACH);
        self.since.get_or_insert(stretch);
        let (of_week, events) = self.cell(stretch);
        if n >= enough && events >= enough {
            let without = of_day(hour);
            let differs = of_week / events - of_stretch(stretch, &of_day);
            if differs * differs > DISAGREE * DISAGREE * chance / events {
                let now = sum / n;
                self.foretold.compare(now - without - differs, now - without);
            }
        }
        if stretch != self.stretch {
            self.settle();
            self.stretch = stretch;
        }
        self.pending.0 += sum as f32;
        self.pending.1 += n as f32;
    }

    fn settle(&mut self) {
        let (day, at) = place(self.stretch);
        let (sum, n) = std::mem::take(&mut self.pending);
        self.cells[day][at].0 += sum;
        self.cells[day][at].1 += n;
    }

    /// How much stretches of the week differ is told anew.
    pub fn tell(&mut self, chance: f64, enough: f64, of_day: impl Fn(i64) -> f64) {
        self.tau2 = 0.0;
        if self.since.is_none_or(|since| self.stretch - since < STRETCHES_MIN) {
            return;
        }
        let (mut known, mut squares, mut by_chance) = (0.0, 0.0, 0.0);
        for stretch in 0..STRETCHES {
            let (sum, n) = self.cell(stretch);
            if n >= enough {
                known += 1.0;
                squares += (sum / n - of_stretch(stretch, &of_day)).powi(2);
                by_chance += chance / n;
            }
        }
        if known >= KNOWN_MIN && squares - by_chance > by_chance * DOUBT * (2.0 / known).sqrt() {
            self.tau2 = (squares - by_chance) / known;
        }
    }

    pub fn fade(&mut self, by: f32) {
        for cell in self.cells.iter_mut().flatten() {
            *cell = (cell.0 * by, cell.1 * by);
        }
    }

    pub fn discount(&mut self, share: f32) {
        self.fade(share);
        self.pending = (self.pending.0 * share, self.pending.1 * share);
    }

    fn of(&mut self, hour: i64) -> &mut (f32, f32) {
        let stretch = hour.div_euclid(HOURS_EACH);
        let (day, at) = place(stretch);
        if stretch == self.stretch { &mut self.pending } else { &mut self.cells[day][at] }
    }

    /// An hour that has passed is learned after all.
    pub fn learn(&mut self, hour: i64, sum: f32, n: f32) {
        let of = self.of(hour);
        *of = (of.0 + sum, of.1 + n);
    }

    /// What was learned in an hour is taken out again.
    pub fn give_back(&mut self, hour: i64, sum: f64, n: f64) {
        let of = self.of(hour);
        *of = if f64::from(of.1) > n { (of.0 - sum as f32, of.1 - n as f32) } else { (0.0, 0.0) };
    }

    pub fn comes_again(&self) -> bool {
        self.tau2 > 0.0 && self.foretold.comes_again()
    }

    /// Variance of the differences, where weeks come again.
    pub fn tau2(&self) -> f64 {
        if self.comes_again() { self.tau2 } else { 0.0 }
    }

    /// Nothing where weeks are not told apart, or do not come again.
    pub fn differs(&self, hour: i64, chance: f64, of_day: impl Fn(i64) -> f64) -> Option<Differs> {
        if self.tau2 <= 0.0 || self.foretold.part().is_some_and(|part| part <= 0.0) {
            return None;
        }
        let of = |stretch: i64| {
            let (sum, n) = self.cell(stretch);
            let weight = n / (n + chance / self.tau2);
            (if n > 0.0 { weight * (sum / n - of_stretch(stretch, &of_day)) } else { 0.0 }, (self.tau2 * (1.0 - weight)).sqrt())
        };
        let stretch = hour.div_euclid(HOURS_EACH);
        let (by, unsure) = of(stretch);
        let beside = [of(stretch - 1).0, of(stretch + 1).0];
        let low = beside.iter().fold(by, |low, d| low.min(*d)) - unsure;
        let high = beside.iter().fold(by, |high, d| high.max(*d)) + unsure;
        Some(Differs { by, low, high, certain: self.comes_again() })
    }
}

/// What hours of the day say of a stretch, on the mean.
fn of_stretch(stretch: i64, of_day: &impl Fn(i64) -> f64) -> f64 {
    (0..HOURS_EACH).map(|i| of_day(stretch * HOURS_EACH + i)).sum::<f64>() / HOURS_EACH as f64
}

#[cfg(test)]
mod tests {
    use super::super::levels::{Level, Levels};
    use super::super::noise::Noise;

    /// Days of hours of 3,600 events whose mean is told by `level`, each learned. Returns the levels at the end.
    fn weeks(days: i64, seed: u64, mut level: impl FnMut(i64, &mut Noise) -> f64) -> Levels {
        let mut noise = Noise::new(seed);
        let mut levels = Levels::default();
        let (mut sum, mut n) = (0.0, 0.0);
        for hour in 0..=24 * days {
            levels.turn(hour, if n > 0.0 { sum / n } else { 0.0 }, 1.0, 1.0, 0.05, None);
            let all = 3_600.0 * level(hour, &mut noise) + 60.0 * noise.normal();
            levels.learn(all, 3_600.0);
            sum += all;
            n += 3_600.0;
        }
        levels
    }

    /// Two days of seven that begin within a stretch, on top of a course of the day.
    fn busy(hour: i64, swing: f64, weekend: f64) -> f64 {
        let is_weekend = (hour + 5).rem_euclid(168) >= 120;
        swing * (hour as f64 * std::f64::consts::TAU / 24.0).sin() + if is_weekend { weekend } else { 0.0 }
    }

    #[test]
    fn weekends_are_learned_with_and_without_a_course_of_the_day() {
        for swing in [0.0, 0.4] {
            let levels = weeks(21, 1, |hour, _| busy(hour, swing, 0.5));
            let mean = 0.5 * 2.0 / 7.0;
            for hour in 21 * 24..28 * 24 {
                let (truth, told) = (busy(hour, swing, 0.5) - mean, levels.level(hour));
                assert!((told.middle - truth).abs() < told.half + 0.08, "swing {swing}, {hour}: {told:?} of {truth}");
            }
            let certain = (21 * 24..28 * 24).filter(|hour| levels.level(*hour).half < 0.16).count();
            assert!(levels.come_again() && certain > 110, "swing {swing}: {certain} of 168 hours are told apart");
        }
    }

    /// The second weekend is normal, and so is the level that it would have if it were none.
    #[test]
    fn on_the_second_weekend_either_is_normal() {
        let levels = weeks(12, 2, |hour, _| busy(hour, 0.0, 0.5));
        let saturday = (12 * 24..).find(|hour| busy(*hour, 0.0, 1.0) > 0.5).expect("a weekend") + 12;
        let told = levels.level(saturday);
        let mean = 0.5 * 2.0 / 7.0;
        assert!((0.5 - mean - told.middle).abs() < told.half + 0.08, "{told:?}");
    }

    #[test]
    fn without_weeks_stretches_are_not_told_apart() {
        let believed = |name: &str, levels: &dyn Fn(u64) -> Levels| {
            let of = (0..60).filter(|seed| levels(*seed).weeks_come_again()).count();
            println!("{name}: {of} of 60");
            of
        };
        assert!(believed("independent", &|seed| weeks(24, seed, |_, _| 0.0)) <= 1);
        assert!(believed("a course of the day", &|seed| weeks(24, seed, |hour, _| busy(hour, 0.4, 0.0))) <= 1);
        assert!(believed("levels drawn anew every hour", &|seed| weeks(24, seed, |_, noise| 0.3 * noise.normal())) <= 1);
        let walk = |seed| {
            let mut at = 0.0;
            weeks(24, seed, move |_, noise| {
                at += 0.03 * noise.normal();
                at
            })
        };
        assert!(believed("a random walk", &walk) <= 3);
    }

    #[test]
    fn before_six_days_are_over_nothing_is_said_of_the_week() {
        let levels = weeks(6, 3, |hour, _| busy(hour, 0.0, 0.5));
        assert!(!levels.weeks_come_again());
        assert_eq!(levels.level(6 * 24 + 40), Level::default());
    }

    #[test]
    fn what_is_given_back_was_never_learned() {
        let with_fault = |gives_back: bool| {
            let mut levels = weeks(20, 4, |hour, _| busy(hour, 0.0, 0.5));
            for hour in 20 * 24 + 1..20 * 24 + 7 {
                levels.turn(hour, 0.14, 1.0, 1.0, 0.05, None);
                levels.learn(36_000.0, 3_600.0);
            }
            levels.turn(20 * 24 + 7, 0.14, 1.0, 1.0, 0.05, None);
            if gives_back {
                (20 * 24 + 1..20 * 24 + 7).for_each(|hour| levels.give_back(hour, 36_000.0, 3_600.0));
            }
            levels.turn(20 * 24 + 8, 0.14, 1.0, 1.0, 0.05, None);
            levels.level(27 * 24 + 3).middle
        };
        assert!(with_fault(false) > 1.0 && with_fault(true) < 0.7, "{} {}", with_fault(false), with_fault(true));
    }
}
