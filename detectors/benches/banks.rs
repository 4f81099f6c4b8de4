//! What does a pane cost?
//!
//! Banks of SERIES series in memory, touched at random, everything included (judging, learning, the ladder, resemblance within panes),
//! after each has learned, and the first panes of banks that learn. As in the daemon, which knows what it judges next, the memory of the next
//! ones is asked for meanwhile (`ahead`; ASK=0 leaves it out). The yardstick is a chain of dependent additions in the same run,
//! nanoseconds each; beside it a cycle of the processor.
//!
//! `cargo bench -p bellwether-detectors --bench banks`; SERIES (10000), PANES (2000000), OLD=0 leaves out the banks that have learned, RATES=10 is
//! nothing but rates of ten events a pane and BINS=10 values (for a profile: with YARDSTICK=0, and twice, for what a clock would leave out).

mod common;

use std::hint::black_box;
use std::time::Instant;

use bellwether_detectors::ahead::Ahead;
use bellwether_detectors::evidence::bins::{BinsBank, BinsSettings};
use bellwether_detectors::evidence::classes::{ClassBank, ClassSettings};
use bellwether_detectors::evidence::rate::{CountPane, Direction, RateBank, RateSettings};
use common::{Rng, bin, setting};

const PANE_MS: i64 = 10_000;
const B: f64 = 4e-9;

/// Time that this process spent on a processor, so that neighbours on the machine count less; nanoseconds.
fn on_cpu_ns() -> f64 {
    static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let began = BEGAN.get_or_init(Instant::now);
    let told = std::fs::read_to_string("/proc/self/schedstat").ok();
    let ns = told.and_then(|text| text.split(' ').next().and_then(|n| n.parse().ok()));
    ns.unwrap_or_else(|| began.elapsed().as_nanos() as f64)
}

fn yardstick() -> f64 {
    let began = on_cpu_ns();
    let (mut x, step) = (black_box(0.0f64), black_box(1.0f64));
    for _ in 0..200_000 {
        for _ in 0..1_000 {
            x += step;
        }
        x = black_box(x);
    }
    (on_cpu_ns() - began) / 2e8
}

/// Nanoseconds of a cycle: rotations and additions of whole numbers that wait for each other take one each on every machine, where an addition of
/// f64 takes two to four.
fn cycle() -> f64 {
    let began = on_cpu_ns();
    let mut x = black_box(0x9e37_79b9_7f4a_7c15u64);
    for _ in 0..100_000 {
        for _ in 0..1_000 {
            x = x.rotate_left(7).wrapping_add(0x5851_f42d_4c95_7f2d);
        }
        x = black_box(x);
    }
    (on_cpu_ns() - began) / 2e8
}

/// Asks for the memory of the banks that come next, the farther off the less of it.
#[inline]
fn ask_ahead<B: Ahead>(banks: &[B], next: impl Fn(usize) -> usize) {
    banks[next(3)].ask_for_own();
    banks[next(2)].ask_for_state();
    banks[next(1)].ask_for_trail();
}

fn rate(series: usize, panes: usize, events: u32, r: &mut Rng) -> f64 {
    let settings = RateSettings { direction: Direction::Up, tolerance: 0.2, at_least: 0.005 };
    let mut bank = RateBank::new(settings);
    let pane = |r: &mut Rng| CountPane { hits: f64::from(r.binomial(events, 0.02)), total: f64::from(events) };
    let mut at = 0;
    for _ in 0..(200_000 / events).max(2_000) {
        bank.learn_only(pane(r), at, PANE_MS);
        at += PANE_MS;
    }
    bank.start_live();
    let mut banks: Vec<RateBank> = (0..series).map(|_| bank.clone()).collect();
    let drawn: Vec<(usize, CountPane)> = (0..65_536).map(|_| (r.below(series as u64) as usize, pane(r))).collect();
    // Every series has its memory before the clock starts.
    for bank in &mut banks {
        for _ in 0..20 {
            bank.judge(drawn[3].1, at, PANE_MS, B);
            at += 1;
        }
    }
    let began = on_cpu_ns();
    let asks = setting("ASK", 1.0) > 0.0;
    for i in 0..panes {
        // Another part of the series each time round.
        let one = |i: usize| (drawn[i & 65_535].0 + (i >> 16) * 7_919) % series;
        if asks {
            ask_ahead(&banks, |k| one(i + k));
        }
        let pane = drawn[i & 65_535].1;
        black_box(banks[one(i)].judge(pane, at + (i / series) as i64 * PANE_MS, PANE_MS, B));
    }
    (on_cpu_ns() - began) / panes as f64
}

fn bins(series: usize, panes: usize, events: u32, r: &mut Rng) -> f64 {
    let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
    let pane = |r: &mut Rng| {
        let mut all: Vec<u16> = (0..events).map(|_| bin(r.normal(), true)).collect();
        all.sort_unstable();
        let mut out: Vec<(u16, u32)> = Vec::new();
        for b in all {
            match out.last_mut() {
                Some(last) if last.0 == b => last.1 += 1,
                _ => out.push((b, 1)),
            }
        }
        out
    };
    let mut at = 0;
    for _ in 0..(200_000 / events).max(2_000) {
        bank.learn_only(&pane(r), at, PANE_MS);
        at += PANE_MS;
    }
    bank.start_live();
    let mut banks: Vec<BinsBank> = (0..series).map(|_| bank.clone()).collect();
    let drawn: Vec<(usize, Vec<(u16, u32)>)> = (0..16_384).map(|_| (r.below(series as u64) as usize, pane(r))).collect();
    // Every series has its memory and its bets before the clock starts.
    for (i, bank) in banks.iter_mut().enumerate() {
        for k in 0..20 {
            bank.judge(&drawn[(i + k) % 16_384].1, at, PANE_MS, B);
        }
    }
    at += PANE_MS;
    let began = on_cpu_ns();
    let asks = setting("ASK", 1.0) > 0.0;
    for i in 0..panes {
        let one = |i: usize| (drawn[i & 16_383].0 + (i >> 14) * 7_919) % series;
        if asks {
            ask_ahead(&banks, |k| one(i + k));
        }
        let pane = &drawn[i & 16_383].1;
        black_box(banks[one(i)].judge(pane, at + (i / series) as i64 * PANE_MS, PANE_MS, B));
    }
    (on_cpu_ns() - began) / panes as f64
}

/// Banks that are new or still learn: `history` panes are learned before the clock starts, and `timed` more of every series are timed.
/// With a history of 0 the first touch of their memory is part of it.
fn learning<B: Clone + Ahead>(new: &B, series: usize, history: usize, timed: usize, mut step: impl FnMut(&mut B, usize, i64)) -> f64 {
    let mut banks: Vec<B> = (0..series).map(|_| new.clone()).collect();
    let mut at = 0;
    let asks = setting("ASK", 1.0) > 0.0;
    let mut round = |banks: &mut [B], at: i64| {
        for i in 0..series {
            // Neighbours in time are no neighbours in memory.
            let one = |i: usize| (i * 7_919) % series;
            if asks {
                ask_ahead(banks, |k| one(i + k));
            }
            step(&mut banks[one(i)], i, at);
        }
    };
    for _ in 0..history {
        round(&mut banks, at);
        at += PANE_MS;
    }
    let began = on_cpu_ns();
    for _ in 0..timed {
        round(&mut banks, at);
        at += PANE_MS;
    }
    black_box(&banks);
    (on_cpu_ns() - began) / (timed * series) as f64
}

fn grid_panes(events: u32, r: &mut Rng) -> Vec<Vec<(u16, u32)>> {
    let of = |r: &mut Rng, class: &dyn Fn(&mut Rng) -> u16| {
        let mut all: Vec<u16> = (0..events).map(|_| class(r)).collect();
        all.sort_unstable();
        let mut out: Vec<(u16, u32)> = Vec::new();
        for b in all {
            match out.last_mut() {
                Some(last) if last.0 == b => last.1 += 1,
                _ => out.push((b, 1)),
            }
        }
        out
    };
    (0..4_099).map(|_| of(r, &|r| bin(r.normal(), true))).collect()
}

fn class_panes(events: u32, classes: f64, r: &mut Rng) -> Vec<Vec<(u16, u32)>> {
    (0..4_099)
        .map(|_| {
            let mut out: Vec<(u16, u32)> = Vec::new();
            for _ in 0..events {
                let class = (r.unit() * r.unit() * classes) as u16;
                match out.iter_mut().find(|k| k.0 == class) {
                    Some(k) => k.1 += 1,
                    None => out.push((class, 1)),
                }
            }
            out
        })
        .collect()
}

fn beginnings(series: usize, r: &mut Rng, row: impl Fn(&str, u32, usize, f64)) {
    let row = |name: &str, events: u32, ns: f64| row(name, events, series, ns);
    for events in [10, 30] {
        let counts: Vec<CountPane> = (0..4_099).map(|_| CountPane { hits: f64::from(r.binomial(events, 0.02)), total: f64::from(events) }).collect();
        let rate = RateBank::new(RateSettings { direction: Direction::Up, tolerance: 0.2, at_least: 0.005 });
        let feed = |b: &mut RateBank, i: usize, at: i64| {
            black_box(b.judge(counts[(i + at as usize / 1_000) % 4_099], at, PANE_MS, 0.0));
        };
        row("rate, first 20 panes", events, learning(&rate, series, 0, 20, feed));
        row("rate, learning from pane 500 on", events, learning(&rate, series, 500, 20, feed));
        let grid = grid_panes(events, r);
        let bins = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
        let feed = |b: &mut BinsBank, i: usize, at: i64| {
            black_box(b.judge(&grid[(i + at as usize / 1_000) % 4_099], at, PANE_MS, 0.0));
        };
        row("bins, first 30 panes", events, learning(&bins, series, 0, 30, feed));
        row("bins, learning from pane 200 on", events, learning(&bins, series, 200, 20, feed));
        let feed = |b: &mut BinsBank, i: usize, at: i64| {
            black_box(b.judge(&grid[(i + at as usize / 1_000) % 4_099], at, PANE_MS, B));
        };
        row("bins, judging from pane 200 on", events, learning(&bins, series, 200, 20, feed));
        let labels = class_panes(events, 12.0, r);
        let classes = ClassBank::new(ClassSettings { tolerance: 0.2 });
        let feed = |b: &mut ClassBank, i: usize, at: i64| {
            black_box(b.judge(&labels[(i + at as usize / 1_000) % 4_099], at, PANE_MS, 0.0));
        };
        row("classes, first 30 panes", events, learning(&classes, series, 0, 30, feed));
        row("classes, learning from pane 300 on", events, learning(&classes, series, 300, 20, feed));
        let feed = |b: &mut ClassBank, i: usize, at: i64| {
            black_box(b.judge(&labels[(i + at as usize / 1_000) % 4_099], at, PANE_MS, B));
        };
        row("classes, judging from pane 300 on", events, learning(&classes, series, 300, 20, feed));
    }
}

fn main() {
    let series = setting("SERIES", 10_000.0) as usize;
    let panes = setting("PANES", 2_000_000.0) as usize;
    let mut r = Rng::new(5, 5);
    let (yard, cycle) = if setting("YARDSTICK", 1.0) > 0.0 { (yardstick(), cycle()) } else { (f64::NAN, f64::NAN) };
    println!(
        "yardstick {yard:.2} ns, a cycle {cycle:.3} ns; rate bank {} bytes, bins bank {} bytes without what they hold on the heap",
        size_of::<RateBank>(),
        size_of::<BinsBank>()
    );
    println!("\n| bank | events a pane | series | ns a pane | in units of the yardstick / 1.2 ns | cycles |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let row = |kind: &str, events: u32, series: usize, ns: f64| {
        println!("| {kind} | {events} | {series} | {ns:.0} | {:.0} | {:.0} |", ns / (yard / 1.2), ns / cycle);
    };
    let (rates, values) = (setting("RATES", 0.0) as u32, setting("BINS", 0.0) as u32);
    if rates + values > 0 {
        let (kind, ns) = if rates > 0 { ("rate", rate(series, panes, rates, &mut r)) } else { ("bins", bins(series, panes, values, &mut r)) };
        row(kind, rates + values, series, ns);
        return;
    }
    let old = setting("OLD", 1.0) > 0.0;
    for events in [1, 3, 10, 30, 100, 1_000].into_iter().filter(|_| old) {
        for series in [series, 16] {
            let ns = rate(series, panes, events, &mut r);
            row("rate", events, series, ns);
        }
    }
    for events in [3, 10, 30, 100].into_iter().filter(|_| old) {
        let ns = bins(series, panes / 10, events, &mut r);
        row("bins", events, series, ns);
    }
    beginnings(series, &mut r, row);
}
