//! Cost and traffic: how often does the seasonal step bank page on quiet load, and how soon does it find a step, a spike, a ramp and
//! a stop? One configuration for everything. `cargo bench -p bellwether-detectors --bench seasonal`; `SERIES`, `RUNS`, `SEED`.
//!
//! A made-up load: 2,000 to 20,000 requests an hour, a day of 30 to 70 % with a second harmonic, weekends of 40 to 90 %, AR(1) noise
//! of .5 per hour and 8 % with normal or t(4) innovations, Poisson counts; the cost of a request is skewed. Three weeks are learned.
//! Delays stand beside an oracle: Page's sum that knows level, noise and the size of the step, with its limit set by simulation to one
//! false page in 1,000 hours of the same load. Its innovations are normal or t(4) as the load's are; counting adds white noise.
//! In the second judged week local time moves by an hour against UTC; in the third a Wednesday is a holiday, at .5 to 1 of a Sunday.

mod noise;

use bellwether_detectors::evidence::seasonal_step::{SeasonalSettings, SeasonalStepBank};
use bellwether_detectors::{Call, Release};
use noise::{Noise, quantile, setting};

const STEP_MS: i64 = 600_000;
const DAY_MS: i64 = 86_400_000;
const WEEK_MS: i64 = 7 * DAY_MS;
const MONDAY_MS: i64 = 4 * DAY_MS;
const PER_HOUR: usize = 6;
const PER_DAY: usize = 144;
const PER_WEEK: usize = 1_008;
const LEARNED_WEEKS: usize = 3;
/// One page in 1,000 hours.
const INJECTION: f64 = 1.0 / 6_000.0;

struct Load {
    noise: Noise,
    heavy: bool,
    cost: bool,
    level: f64,
    day: f64,
    second: f64,
    phase: f64,
    weekend: f64,
    ar: f64,
    /// Local time minus UTC, and by how much it changes in the second judged week.
    zone_ms: i64,
    summer_ms: i64,
    holiday: Option<f64>,
}

impl Load {
    fn new(seed: u64, heavy: bool, cost: bool) -> Load {
        let mut noise = Noise::new(seed);
        let mut between = |low: f64, high: f64| low + (high - low) * noise.unit();
        let (level, day, second) = (between(2_000f64.ln(), 20_000f64.ln()).exp() / 6.0, between(0.3, 0.7), between(0.05, 0.2));
        let (phase, weekend, zone_ms) = (between(0.0, std::f64::consts::TAU), between(0.4, 0.9), (between(-8.0, 9.0).floor() * 3_600_000.0) as i64);
        Load { noise, heavy, cost, level, day, second, phase, weekend, ar: 0.0, zone_ms, summer_ms: 0, holiday: None }
    }

    /// Requests expected in an interval, without the slow noise.
    fn mean(&self, i: usize) -> f64 {
        let utc = MONDAY_MS + i as i64 * STEP_MS;
        let mut local = utc + self.zone_ms;
        // Clocks are put forward on the Sunday that ends the first judged week.
        if i >= (LEARNED_WEEKS + 1) * PER_WEEK - PER_DAY {
            local += self.summer_ms;
        }
        let of_week = (local - MONDAY_MS).rem_euclid(WEEK_MS);
        let angle = local.rem_euclid(DAY_MS) as f64 / DAY_MS as f64 * std::f64::consts::TAU;
        let mut kind = if of_week >= 5 * DAY_MS { self.weekend } else { 1.0 };
        let week = (local - MONDAY_MS).div_euclid(WEEK_MS);
        if let Some(depth) = self.holiday
            && week == LEARNED_WEEKS as i64 + 2
            && (2 * DAY_MS..3 * DAY_MS).contains(&of_week)
        {
            kind = self.weekend * depth;
        }
        self.level * kind * (1.0 - self.day * angle.cos() + self.second * (2.0 * angle + self.phase).sin())
    }

    /// The first interval of its week, from this one on, that lies between 22 and 6 h of a night before a workday, local time; the place
    /// in the night is drawn.
    fn night(&mut self, from: usize) -> usize {
        let place = self.noise.below(8 * PER_HOUR as u64) as i64 * STEP_MS - 2 * PER_HOUR as i64 * STEP_MS;
        let day = (from / PER_DAY) % 4;
        // Tuesday to Friday: a night before a workday that follows one.
        let local_ms = (day as i64 + 1) * DAY_MS + place;
        (from / PER_WEEK * PER_WEEK) + ((local_ms - self.zone_ms).rem_euclid(WEEK_MS) / STEP_MS) as usize
    }

    fn value(&mut self, i: usize, factor: f64) -> f64 {
        let phi = 0.5f64.powf(1.0 / PER_HOUR as f64);
        let z = if self.heavy { self.noise.t4() } else { self.noise.normal() };
        self.ar = phi * self.ar + 0.08 * (1.0 - phi * phi).sqrt() * z;
        let mean = factor * self.mean(i) * self.ar.exp();
        let count = f64::from(self.noise.poisson(mean.max(0.0)));
        if !self.cost || count <= 0.0 {
            return count;
        }
        // The sum of so many skewed costs: gamma, with the deviation of one request 1.2 times its mean.
        0.004 * count * self.noise.gamma(count / 1.44)
    }
}

/// An oracle's evidence on a load whose level it knows.
struct Oracle {
    drift: f64,
    unsure: f64,
    shows: f64,
    sum: f64,
}

impl Oracle {
    const SLOW: f64 = 0.08 * 0.08;

    fn new() -> Oracle {
        Oracle { drift: 0.0, unsure: Oracle::SLOW, shows: 0.0, sum: 0.0 }
    }

    /// `e`: ln of the value over its true mean; `white`: variance of counting at that mean; `step`: ln of the step looked for.
    fn judge(&mut self, e: f64, white: f64, step: f64, heavy: bool) -> f64 {
        let phi = 0.5f64.powf(1.0 / PER_HOUR as f64);
        let (gain, square) = (self.unsure / (self.unsure + white), self.unsure + white);
        let u = e - self.drift;
        let density = |u: f64| if heavy { -2.5 * (u * u / (2.0 * square)).ln_1p() } else { -0.5 * u * u / square };
        let nats = |shows: f64| density(u - step * shows) - density(u);
        // Page's sum: goes on with the step begun before, or begins now.
        if nats(1.0) > self.sum + nats(self.shows) || self.sum + nats(self.shows) <= 0.0 {
            (self.sum, self.shows) = (nats(1.0).max(0.0), 1.0);
        } else {
            self.sum += nats(self.shows);
        }
        // What is left of the step in the next innovation: the filter takes it in.
        self.shows = 1.0 - phi * ((1.0 - self.shows) + gain * self.shows);
        self.drift = phi * (self.drift + gain * u);
        self.unsure = phi * phi * self.unsure * (1.0 - gain) + Oracle::SLOW * (1.0 - phi * phi);
        self.sum
    }
}

/// Hours until the oracle finds +30 %, at the limit that pages once in 1,000 hours.
fn oracle(heavy: bool, cost: bool, runs: u64, seed: u64) -> Vec<f64> {
    let step = 1.3f64.ln();
    let surprise = |load: &mut Load, i: usize, factor: f64| {
        let mean = load.mean(i);
        let (unit, spread) = if cost { (0.004, 2.44) } else { (1.0, 1.0) };
        ((load.value(i, factor).max(0.5 * unit) / (unit * mean)).ln(), spread / mean)
    };
    // Each crossing of a limit starts the sum anew: the limit is the lowest at which that happens at most once in 1,000 hours.
    let weeks = 2 * runs as usize;
    let mut quiet: Vec<(f64, f64)> = Vec::with_capacity(weeks * PER_WEEK);
    for k in 0..weeks {
        let mut load = Load::new(seed * 3_000_017 + k as u64, heavy, cost);
        quiet.extend((0..PER_WEEK).map(|i| surprise(&mut load, i, 1.0)));
    }
    let pages = |limit: f64| {
        let (mut oracle, mut pages) = (Oracle::new(), 0);
        for (e, white) in &quiet {
            if oracle.judge(*e, *white, step, heavy) >= limit {
                pages += 1;
                (oracle.sum, oracle.shows) = (0.0, 1.0);
            }
        }
        1_000.0 * f64::from(pages) / (quiet.len() as f64 / PER_HOUR as f64)
    };
    let limit = (2..80).map(|half| f64::from(half) / 2.0).find(|limit| pages(*limit) <= 1.0).unwrap_or(40.0);
    let mut delays = Vec::new();
    for k in 0..runs {
        let mut load = Load::new(seed * 2_000_003 + k, heavy, cost);
        let began = load.noise.below(PER_WEEK as u64) as usize + PER_DAY;
        let mut oracle = Oracle::new();
        for i in 0..began + 48 * PER_HOUR {
            let (e, white) = surprise(&mut load, i, if i < began { 1.0 } else { 1.3 });
            let sum = oracle.judge(e, white, step, heavy);
            if sum >= limit && i < began {
                (oracle.sum, oracle.shows) = (0.0, 1.0);
            }
            if sum >= limit && i >= began {
                delays.push((i - began + 1) as f64 / PER_HOUR as f64);
                break;
            }
        }
    }
    delays
}

fn learned(load: &mut Load) -> SeasonalStepBank {
    let mut bank = SeasonalStepBank::new(SeasonalSettings::default());
    for i in 0..LEARNED_WEEKS * PER_WEEK {
        bank.import(MONDAY_MS + i as i64 * STEP_MS, load.value(i, 1.0));
    }
    bank
}

/// Pages of four quiet weeks, by week.
fn quiet(load: &mut Load) -> [usize; 4] {
    let mut bank = learned(load);
    let mut pages = [0; 4];
    for i in LEARNED_WEEKS * PER_WEEK..(LEARNED_WEEKS + 4) * PER_WEEK {
        let value = load.value(i, 1.0);
        let at = MONDAY_MS + i as i64 * STEP_MS;
        if let Call::Alarm { .. } = bank.judge(value, at, INJECTION).call {
            // The week of the change of clocks begins with the change.
            // An incident stays open until the bank itself calls it recovered.
            pages[((i + PER_DAY) / PER_WEEK - LEARNED_WEEKS).min(3)] += 1;
        }
    }
    pages
}

/// Intervals until a page after the fault began, if within `within`.
fn found(load: &mut Load, began: usize, within: usize, factor: &dyn Fn(usize) -> f64) -> Option<usize> {
    let mut bank = learned(load);
    for i in LEARNED_WEEKS * PER_WEEK..began + within {
        let value = load.value(i, if i < began { 1.0 } else { factor(i - began) });
        if let Call::Alarm { .. } = bank.judge(value, MONDAY_MS + i as i64 * STEP_MS, INJECTION).call {
            if i >= began {
                return Some(i - began + 1);
            }
            bank.release(Release::FalseAlarm);
        }
    }
    None
}

fn main() {
    let series = setting("SERIES", 100.0) as u64;
    let runs = setting("RUNS", 100.0) as u64;
    let seed = setting("SEED", 1.0) as u64;
    let quiet_weeks = setting("QUIET", 1.0) > 0.0;
    let mut laws = vec![("traffic, normal", false, false), ("traffic, t(4)", true, false), ("cost, normal", false, true), ("cost, t(4)", true, true)];
    let only = std::env::var("ONLY").unwrap_or_default();
    laws.retain(|law| law.0.contains(&only));
    let faults = std::env::var("FAULTS").unwrap_or_else(|_| "0123456".to_string());
    println!("{LEARNED_WEEKS} weeks learned, seed {seed}; false pages per 1,000 series-hours (allowed: 1) over {series} series\n");
    println!(
        "| load | four plain weeks | clocks forward: that week, the two after | holiday: its week (pages per holiday) |\n| --- | --- | --- | --- |"
    );
    for (name, heavy, cost) in laws.iter().copied().filter(|_| quiet_weeks) {
        let mut plain = [0; 4];
        let mut summer = [0; 4];
        let mut holiday = [0; 4];
        for i in 0..series {
            let add = |sum: &mut [usize; 4], summer_ms: i64, day: bool| {
                let mut load = Load::new(seed * 1_000_003 + i, heavy, cost);
                load.summer_ms = summer_ms;
                load.holiday = day.then(|| 0.5 + 0.5 * ((i % 11) as f64 / 10.0));
                sum.iter_mut().zip(quiet(&mut load)).for_each(|(s, p)| *s += p);
            };
            add(&mut plain, 0, false);
            add(&mut summer, if i % 2 == 0 { 3_600_000 } else { -3_600_000 }, false);
            add(&mut holiday, 0, true);
        }
        let rate = |pages: usize, weeks: f64| 1_000.0 * pages as f64 / (series as f64 * weeks * 168.0);
        println!(
            "| {name} | {:.2} | {:.2}, {:.2} | {:.2} ({:.2}) |",
            rate(plain.iter().sum(), 4.0),
            rate(summer[1], 1.0),
            rate(summer[2] + summer[3], 2.0),
            rate(holiday[2], 1.0),
            holiday[2] as f64 / series as f64
        );
    }
    println!(
        "\n| load | +30 %: median h, within 6 h, within 48 h (oracle's median h) | x3 for one hour: in its hour | +1 % an hour: within 48 h, median h | stop: within 1 h | -30 %: median h, 48 h | -30 % from the night before a workday | -50 % likewise |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (name, heavy, cost) in laws {
        let mut cells = Vec::new();
        for fault in 0..7u32 {
            if !faults.contains(char::from(b'0' + fault as u8)) {
                cells.push("not run".to_string());
                continue;
            }
            let mut delays: Vec<f64> = Vec::new();
            for i in 0..runs {
                let mut load = Load::new(seed * 2_000_003 + i, heavy, cost);
                let mut began = LEARNED_WEEKS * PER_WEEK + load.noise.below(PER_WEEK as u64) as usize;
                if fault >= 5 {
                    began = load.night(began);
                }
                let factor: &dyn Fn(usize) -> f64 = match fault {
                    0 => &|_| 1.3,
                    1 => &|_| 3.0,
                    2 => &|k| 1.0 + 0.01 * (k + 1) as f64 / PER_HOUR as f64,
                    3 => &|_| 0.0,
                    4 | 5 => &|_| 0.7,
                    _ => &|_| 0.5,
                };
                let within = if fault == 1 || fault == 3 { PER_HOUR } else { 48 * PER_HOUR };
                delays.push(found(&mut load, began, within, factor).map_or(f64::INFINITY, |n| n as f64 / PER_HOUR as f64));
            }
            let share = |h: f64| 100.0 * delays.iter().filter(|d| **d <= h).count() as f64 / runs as f64;
            cells.push(match fault {
                0 => {
                    let oracle = quantile(&oracle(heavy, cost, runs, seed), 0.5);
                    format!("{:.1}, {:.0} %, {:.0} % ({oracle:.1})", quantile(&delays, 0.5), share(6.0), share(48.0))
                }
                2 => format!("{:.0} %, {:.1}", share(48.0), quantile(&delays, 0.5)),
                4..=6 => format!("{:.1}, {:.0} %", quantile(&delays, 0.5), share(48.0)),
                _ => format!("{:.0} %", share(1.0)),
            });
        }
        println!("| {name} | {} |", cells.join(" | "));
    }
}
