//! Do pages stay within the budget on data that no model describes?
//!
//! Rates at the daemon's defaults (tolerance 20 %, panes of 10 s): 60 series of each process learn for a day (daily patterns three,
//! weekly ones eight) and are then judged for two days; 10 false pages are promised over all of them. Then, from the same baselines,
//! the rate doubles: median panes to the page. With LEVELS=1 also how many of the series climbed over 10^4 .. 10^7 panes' worth of
//! injection (no resets).
//!
//! Numeric values and classes likewise at their defaults (0.1 sigma, 20 %), panes of about 100, from a day of learning; the faults are a
//! shift of half a sigma, and 5 % of all events that move from the first class to the eighth.
//!
//! `cargo bench -p bellwether-detectors --bench ugly`; RATES (1), VALUES (1), CLASSES (1), SERIES (60), DAYS (2), SEED (91), ONLY (parts of
//! names, with commas), LEVELS (0), LEARN (1: the part of the learning days that a young series has had; days for values).

mod common;

use bellwether_detectors::evidence::bins::{BinsBank, BinsSettings};
use bellwether_detectors::evidence::classes::{ClassBank, ClassSettings};
use bellwether_detectors::evidence::rate::{CountPane, Direction, RateBank, RateSettings};
use bellwether_detectors::{Call, Release};
use common::{CLASSES, Rng, bin, setting};

const PANE_MS: i64 = 10_000;
const DAY: usize = 8_640;
const PROMISED: f64 = 10.0;

/// A process: what it does to the rate and the number of events, pane by pane.
#[derive(Clone, Copy)]
struct Process {
    name: &'static str,
    p: f64,
    n: f64,
    learn_days: usize,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Plain {
        swing: f64,
    },
    /// Beta-binomial of a correlation within panes.
    Within {
        rho: f64,
        swing: f64,
    },
    /// Log rate AR(1).
    Wave {
        keep: f64,
        sd: f64,
    },
    /// Factor for so many panes, every so many.
    Bursts {
        factor: f64,
        panes: usize,
        every: usize,
    },
    /// Bursts at random times, of random length (mean panes) and height.
    RandomBursts {
        every: f64,
        panes: f64,
    },
    Cycle {
        panes: usize,
        swing: f64,
    },
    /// Daily swing of the rate, and of the traffic in phase with it.
    Daily {
        swing: f64,
        traffic: f64,
    },
    /// Reflected random walk within a band, in a day about once through it.
    Walk {
        band: f64,
    },
    /// Two regimes that last for random hours.
    Regimes {
        factor: f64,
        hours: f64,
    },
    /// Within a pane a clump (one retrying client) of Pareto size, now and then.
    Clumps {
        every: f64,
    },
    Weekly {
        weekend: f64,
    },
}

fn processes() -> Vec<Process> {
    let p = |name, p, n, kind| Process { name, p, n, learn_days: 1, kind };
    let long = |name, rate, n, kind, learn_days| Process { learn_days, ..p(name, rate, n, kind) };
    vec![
        p("independent 0.1 %, n 100", 0.001, 100.0, Kind::Plain { swing: 0.0 }),
        p("independent 1 %, n 100", 0.01, 100.0, Kind::Plain { swing: 0.0 }),
        p("independent 5 %, n 100, traffic swing 80 %", 0.05, 100.0, Kind::Plain { swing: 0.8 }),
        p("independent 50 %, n 100", 0.5, 100.0, Kind::Plain { swing: 0.0 }),
        p("beta-binomial 1 %, rho .01, n 100", 0.01, 100.0, Kind::Within { rho: 0.01, swing: 0.0 }),
        p("beta-binomial 5 %, rho .05, n 100", 0.05, 100.0, Kind::Within { rho: 0.05, swing: 0.0 }),
        p("beta-binomial 5 %, rho .05, n 1000", 0.05, 1_000.0, Kind::Within { rho: 0.05, swing: 0.0 }),
        p("beta-binomial 1 %, rho .05, n 1000, swing 80 %", 0.01, 1_000.0, Kind::Within { rho: 0.05, swing: 0.8 }),
        p("AR(1) .5, sd .3, 5 %, n 1000", 0.05, 1_000.0, Kind::Wave { keep: 0.5, sd: 0.3 }),
        p("AR(1) .95, sd .3, 5 %, n 1000", 0.05, 1_000.0, Kind::Wave { keep: 0.95, sd: 0.3 }),
        p("bursts x3, 1 min every 2 h, 1 %, n 100", 0.01, 100.0, Kind::Bursts { factor: 3.0, panes: 6, every: 720 }),
        p("30-min cycle 20 %, 5 %, n 100", 0.05, 100.0, Kind::Cycle { panes: 180, swing: 0.2 }),
        long("daily 10 %, 5 %, n 100", 0.05, 100.0, Kind::Daily { swing: 0.1, traffic: 0.0 }, 3),
        long("daily 30 %, 5 %, n 100", 0.05, 100.0, Kind::Daily { swing: 0.3, traffic: 0.0 }, 3),
        long("daily 30 %, 1 %, n 100", 0.01, 100.0, Kind::Daily { swing: 0.3, traffic: 0.0 }, 3),
        p("random walk within 10 %, 5 %, n 100", 0.05, 100.0, Kind::Walk { band: 0.1 }),
        p("worse: bursts of random length and height", 0.01, 100.0, Kind::RandomBursts { every: 720.0, panes: 8.0 }),
        p("worse: two regimes x1.5 for hours", 0.01, 100.0, Kind::Regimes { factor: 1.5, hours: 3.0 }),
        p("worse: heavy-tailed clumps within panes, 1 %, n 100", 0.01, 100.0, Kind::Clumps { every: 60.0 }),
        long("worse: rate 40 % and traffic 80 % swing in phase", 0.02, 100.0, Kind::Daily { swing: 0.4, traffic: 0.8 }, 3),
        p("worse: random walk within 20 %, 5 %, n 1000", 0.05, 1_000.0, Kind::Walk { band: 0.2 }),
        long("worse: weekend x1.4, 2 %, n 100", 0.02, 100.0, Kind::Weekly { weekend: 1.4 }, 8),
    ]
}

#[derive(Clone)]
struct State {
    level: f64,
    left: f64,
    height: f64,
    phase: f64,
}

impl Process {
    fn start(&self, r: &mut Rng) -> State {
        State { level: 0.0, left: 0.0, height: 1.0, phase: r.unit() }
    }

    fn pane(&self, s: &mut State, r: &mut Rng, i: usize, factor: f64) -> CountPane {
        let turn = std::f64::consts::TAU * (i as f64 / DAY as f64 + s.phase);
        let (mut p, mut n) = (self.p * factor, self.n);
        let mut clump = 0u32;
        match self.kind {
            Kind::Plain { swing } => n *= 1.0 + swing * turn.sin(),
            Kind::Within { rho, swing } => {
                n *= 1.0 + swing * turn.sin();
                let size = 1.0 / rho - 1.0;
                p = r.beta(p * size, (1.0 - p) * size);
            }
            Kind::Wave { keep, sd } => {
                s.level = keep * s.level + (1.0f64 - keep * keep).sqrt() * sd * r.normal();
                p *= s.level.exp();
            }
            Kind::Bursts { factor, panes, every } => {
                if (i + (s.phase * every as f64) as usize) % every < panes {
                    p *= factor;
                }
            }
            Kind::RandomBursts { every, panes } => {
                if s.left <= 0.0 && r.unit() < 1.0 / every {
                    s.left = 1.0 - panes * (1.0 - r.unit()).ln();
                    s.height = 2.0 + 2.0 * r.unit();
                }
                if s.left > 0.0 {
                    s.left -= 1.0;
                    p *= s.height;
                }
            }
            Kind::Cycle { panes, swing } => p *= 1.0 + swing * (std::f64::consts::TAU * (i as f64 / panes as f64 + s.phase)).sin(),
            Kind::Daily { swing, traffic } => {
                p *= 1.0 + swing * turn.sin();
                n *= 1.0 + traffic * turn.sin();
            }
            Kind::Walk { band } => {
                s.level += band * 2.0 / (DAY as f64).sqrt() * r.normal();
                if s.level.abs() > band {
                    s.level = s.level.signum() * (2.0 * band - s.level.abs());
                }
                p *= 1.0 + s.level;
            }
            Kind::Regimes { factor, hours } => {
                if r.unit() < 1.0 / (hours * 360.0) {
                    s.height = if s.height > 1.0 { 1.0 } else { factor };
                }
                p *= s.height;
            }
            Kind::Clumps { every } => {
                if r.unit() < 1.0 / every {
                    clump = (2.0 * (1.0 - r.unit()).powf(-1.0 / 1.5)).min(n / 2.0) as u32;
                }
            }
            Kind::Weekly { weekend } => {
                if (i as f64 / DAY as f64 + 7.0 * s.phase) % 7.0 >= 5.0 {
                    p *= weekend;
                }
            }
        }
        let n = r.poisson(n).max(1);
        let hits = (r.binomial(n, p.min(1.0)) + clump).min(n);
        CountPane { hits: f64::from(hits), total: f64::from(n) }
    }
}

/// What makes values and classes resemble each other; levels in sigma, for classes in log weights.
#[derive(Clone, Copy)]
struct Mess {
    name: &'static str,
    /// AR(1) from value to value.
    keep_value: f64,
    /// AR(1) of the pane's level, and its standard deviation.
    keep: f64,
    sd: f64,
    /// A level that lasts for six panes every 720.
    burst: f64,
    daily: f64,
    /// Two days of seven, beginning anywhere in the day; such rows learn eight times as long.
    weekend: f64,
    /// Reflected random walk within a band.
    walk: f64,
    /// Swing of the traffic.
    traffic: f64,
    /// Part of panes in which a tenth of the values comes from one slow client.
    clumps: f64,
}

const CALM: Mess = Mess { name: "", keep_value: 0.0, keep: 0.0, sd: 0.0, burst: 0.0, daily: 0.0, weekend: 0.0, walk: 0.0, traffic: 0.0, clumps: 0.0 };

struct Course {
    level: f64,
    walk: f64,
    value: f64,
    /// Levels of classes.
    of_class: [f64; CLASSES.len()],
    phase: f64,
}

impl Mess {
    fn n(&self, s: &Course, r: &mut Rng, i: usize) -> usize {
        let turn = std::f64::consts::TAU * (i as f64 / DAY as f64 + s.phase);
        r.poisson(100.0 * (1.0 + self.traffic * turn.sin())).max(1) as usize
    }

    /// The level of a pane.
    fn level(&self, s: &mut Course, r: &mut Rng, i: usize) -> f64 {
        let turn = std::f64::consts::TAU * (i as f64 / DAY as f64 + s.phase);
        s.level = self.keep * s.level + (1.0 - self.keep * self.keep).sqrt() * self.sd * r.normal();
        s.walk += self.walk * 2.0 / (DAY as f64).sqrt() * r.normal();
        if s.walk.abs() > self.walk {
            s.walk = s.walk.signum() * (2.0 * self.walk - s.walk.abs());
        }
        let burst = if (i + (s.phase * 720.0) as usize) % 720 < 6 { self.burst } else { 0.0 };
        let is_weekend = (i as f64 / DAY as f64 + 7.0 * s.phase) % 7.0 >= 5.0;
        s.level + s.walk + burst + self.daily * turn.sin() + if is_weekend { self.weekend } else { 0.0 }
    }

    fn values(&self, s: &mut Course, r: &mut Rng, i: usize, shift: f64, out: &mut Vec<(u16, u32)>) {
        let n = self.n(s, r, i);
        let level = self.level(s, r, i) + shift;
        let slow = if r.unit() < self.clumps { n / 10 } else { 0 };
        let mut bins: Vec<u16> = Vec::with_capacity(n);
        for k in 0..n {
            s.value = self.keep_value * s.value + (1.0 - self.keep_value * self.keep_value).sqrt() * r.normal();
            bins.push(bin(level + s.value + if k < slow { 2.0 } else { 0.0 }, true));
        }
        bins.sort_unstable();
        out.clear();
        for b in bins {
            match out.last_mut() {
                Some(last) if last.0 == b => last.1 += 1,
                _ => out.push((b, 1)),
            }
        }
    }

    fn classes(&self, s: &mut Course, r: &mut Rng, i: usize, moved: f64, out: &mut Vec<(u16, u32)>) {
        let mut left = self.n(s, r, i) as u32;
        let all = self.level(s, r, i);
        let mut weights = CLASSES;
        weights[0] -= moved;
        weights[7] += moved;
        for (c, weight) in weights.iter_mut().enumerate() {
            // Each class goes its own way, and the third and the eighth also the common one, against each other.
            s.of_class[c] = self.keep * s.of_class[c] + (1.0 - self.keep * self.keep).sqrt() * self.sd * r.normal();
            let common = all - s.level;
            *weight *= (s.of_class[c]
                + if c == 7 {
                    common
                } else if c == 2 {
                    -common
                } else {
                    0.0
                })
            .exp();
        }
        let mut rest: f64 = weights.iter().sum();
        out.clear();
        for (c, weight) in weights.iter().enumerate() {
            let k = r.binomial(left, (weight / rest).min(1.0));
            if k > 0 {
                out.push((c as u16, k));
            }
            left -= k;
            rest = (rest - weight).max(1e-12);
        }
    }
}

trait Judge: Clone {
    fn judge(&mut self, pane: &[(u16, u32)], at_ms: i64, injection: f64) -> Call;
    fn false_alarm(&mut self);
    fn start_live(&mut self);
}

impl Judge for BinsBank {
    fn judge(&mut self, pane: &[(u16, u32)], at_ms: i64, injection: f64) -> Call {
        self.judge(pane, at_ms, PANE_MS, injection).call
    }
    fn false_alarm(&mut self) {
        self.release(Release::FalseAlarm);
    }
    fn start_live(&mut self) {
        self.start_live();
    }
}

impl Judge for ClassBank {
    fn judge(&mut self, pane: &[(u16, u32)], at_ms: i64, injection: f64) -> Call {
        self.judge(pane, at_ms, PANE_MS, injection).call
    }
    fn false_alarm(&mut self) {
        self.release(Release::FalseAlarm);
    }
    fn start_live(&mut self) {
        self.start_live();
    }
}

fn values<J: Judge>(
    of: &str,
    new: &J,
    series: usize,
    days: usize,
    seed: u64,
    learned: f64,
    draw: impl Fn(&Mess, &mut Course, &mut Rng, usize, bool, &mut Vec<(u16, u32)>),
) {
    let messes = [
        Mess { name: "independent", ..CALM },
        Mess { name: "independent, traffic swing 80 %", traffic: 0.8, ..CALM },
        Mess { name: "AR(1) .5 between values", keep_value: 0.5, ..CALM },
        Mess { name: "AR(1) .9 between values", keep_value: 0.9, ..CALM },
        Mess { name: "pane level, independent, sd .3", sd: 0.3, ..CALM },
        Mess { name: "pane level AR(1) .9, sd .1", keep: 0.9, sd: 0.1, ..CALM },
        Mess { name: "pane level AR(1) .95, sd .3", keep: 0.95, sd: 0.3, ..CALM },
        Mess { name: "bursts +1, 1 min every 2 h", burst: 1.0, ..CALM },
        Mess { name: "daily swing .2", daily: 0.2, ..CALM },
        Mess { name: "daily swing .5", daily: 0.5, ..CALM },
        Mess { name: "daily swing 1", daily: 1.0, ..CALM },
        Mess { name: "weekend +.5", weekend: 0.5, ..CALM },
        Mess { name: "random walk within .1", walk: 0.1, ..CALM },
        Mess { name: "a slow client in one pane of 60", clumps: 1.0 / 60.0, ..CALM },
    ];
    let only = std::env::var("ONLY").unwrap_or_default();
    println!("\n| {of} | pages (series) | panes to the fault, median (90 %) | not found in 3,000 |");
    println!("| --- | --- | --- | --- |");
    for (row, mess) in messes.iter().enumerate().filter(|m| only.split(',').any(|part| m.1.name.contains(part))) {
        // Values alone follow each other.
        if of == "classes" && (mess.keep_value > 0.0 || mess.clumps > 0.0) {
            continue;
        }
        let judged = days * DAY;
        let learn = (DAY as f64 * learned * if mess.weekend > 0.0 { 8.0 } else { 1.0 }) as usize;
        let injection = PROMISED / (series * judged) as f64;
        let (mut pages, mut paged, mut missed, mut found) = (0, 0, 0, Vec::new());
        let mut pane = Vec::new();
        for one in 0..series {
            let mut r = Rng::new(seed, (100_000 + row * 1_000 + one) as u64);
            let mut s = Course { level: 0.0, walk: 0.0, value: 0.0, of_class: [0.0; CLASSES.len()], phase: r.unit() };
            let mut bank = new.clone();
            for i in 0..learn {
                draw(mess, &mut s, &mut r, i, false, &mut pane);
                bank.judge(&pane, i as i64 * PANE_MS, 0.0);
            }
            bank.start_live();
            let mut copy = bank.clone();
            let mut mine = 0;
            for i in learn..learn + judged {
                draw(mess, &mut s, &mut r, i, false, &mut pane);
                if matches!(bank.judge(&pane, i as i64 * PANE_MS, injection), Call::Alarm { .. }) {
                    mine += 1;
                    bank.false_alarm();
                }
            }
            pages += mine;
            paged += usize::from(mine > 0);
            let at = (0..3_000).find(|j| {
                draw(mess, &mut s, &mut r, learn + j, true, &mut pane);
                matches!(copy.judge(&pane, (learn + j) as i64 * PANE_MS, injection), Call::Alarm { .. })
            });
            match at {
                Some(panes) => found.push((panes + 1) as f64),
                None => missed += 1,
            }
        }
        let (half, most) = (common::quantile(&found, 0.5), common::quantile(&found, 0.9));
        println!("| {} | {pages} ({paged}) | {half:.0} ({most:.0}) | {missed} |", mess.name);
    }
}

fn main() {
    let series = setting("SERIES", 60.0) as usize;
    let days = setting("DAYS", 2.0) as usize;
    let seed = setting("SEED", 91.0) as u64;
    let learned = setting("LEARN", 1.0);
    let levels = setting("LEVELS", 0.0) > 0.0;
    let tolerance = setting("TOLERANCE", 0.2);
    let only = std::env::var("ONLY").unwrap_or_default();
    println!("{series} series, {days} days judged, promised {PROMISED} pages, tolerance {tolerance}, seed {seed}\n");
    if setting("VALUES", 1.0) > 0.0 {
        let bins = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
        values("values", &bins, series, days, seed, learned, |m, s, r, i, fault, out| m.values(s, r, i, if fault { 0.5 } else { 0.0 }, out));
    }
    if setting("CLASSES", setting("VALUES", 1.0)) > 0.0 {
        let classes = ClassBank::new(ClassSettings { tolerance: 0.2 });
        values("classes", &classes, series, days, seed, learned, |m, s, r, i, fault, out| m.classes(s, r, i, if fault { 0.05 } else { 0.0 }, out));
        println!();
    }
    if setting("RATES", 1.0) <= 0.0 {
        return;
    }
    println!("| process | pages (series) | series on longer panes | panes to x2, median (90 %) | not found in 3,000 |");
    println!("| --- | --- | --- | --- | --- |");
    for (row, process) in processes().iter().enumerate().filter(|p| only.split(',').any(|part| p.1.name.contains(part))) {
        let judged = days * DAY;
        let injection = PROMISED / (series * judged) as f64;
        let (mut pages, mut paged, mut stretched, mut missed) = (0, 0, 0, 0);
        let mut found = Vec::new();
        let mut climbed = [0; 4];
        for one in 0..series {
            let mut r = Rng::new(seed, (row * 1_000 + one) as u64);
            let mut s = process.start(&mut r);
            let mut bank = RateBank::new(RateSettings { direction: Direction::Up, tolerance, at_least: 0.0 });
            let learn = ((process.learn_days * DAY) as f64 * learned) as usize;
            for i in 0..learn {
                let pane = process.pane(&mut s, &mut r, i, 1.0);
                bank.learn_only(pane, i as i64 * PANE_MS, PANE_MS);
            }
            bank.start_live();
            let (copy, mut course) = (bank.clone(), s.clone());
            let (mut mine, mut most) = (0, 0.0f64);
            for i in learn..learn + judged {
                let pane = process.pane(&mut s, &mut r, i, 1.0);
                let b = if levels { 1e-12 } else { injection };
                let reading = bank.judge(pane, i as i64 * PANE_MS, PANE_MS, b);
                most = most.max(reading.log_evidence);
                if matches!(reading.call, Call::Alarm { .. }) {
                    mine += 1;
                    bank.release(Release::FalseAlarm);
                }
            }
            for (k, level) in climbed.iter_mut().zip([1e4f64, 1e5, 1e6, 1e7]) {
                *k += usize::from(most >= level.ln());
            }
            pages += mine;
            paged += usize::from(mine > 0);
            stretched += usize::from(bank.stretch() > 1);
            // The fault comes at the boundary, from the baseline of the learning days.
            let mut bank = copy;
            let at = (0..3_000).find(|j| {
                let i = learn + j;
                let pane = process.pane(&mut course, &mut r, i, 2.0);
                matches!(bank.judge(pane, i as i64 * PANE_MS, PANE_MS, injection).call, Call::Alarm { .. })
            });
            match at {
                Some(panes) => found.push((panes + 1) as f64),
                None => missed += 1,
            }
        }
        let row = format!(
            "| {} | {pages} ({paged}) | {stretched} | {:.0} ({:.0}) | {missed} |",
            process.name,
            common::quantile(&found, 0.5),
            common::quantile(&found, 0.9)
        );
        println!("{row}{}", if levels { format!(" {climbed:?} |") } else { String::new() });
    }
}
