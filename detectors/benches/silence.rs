//! Silence: does the gap bank keep quiet on real arrivals it has not seen, on learned nights and while its source is blind, and how
//! soon does it page a stop? `cargo bench -p bellwether-detectors --bench silence -- TRACE.csv`, with the Azure LLM conversation
//! trace of 2023 (`TIMESTAMP,ContextTokens,GeneratedTokens`, unpacked); without a path only the made-up parts run.

mod noise;

use bellwether_detectors::Call;
use bellwether_detectors::evidence::gap::{GapBank, GapSettings};
use noise::Noise;

const PANE_MS: i64 = 2_000;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// 1970-01-05 was a Monday.
const MONDAY_MS: i64 = 4 * DAY_MS;
/// One page in 30 days.
const INJECTION: f64 = PANE_MS as f64 / (30 * DAY_MS) as f64;

/// Milliseconds of the day of every row.
fn arrivals(text: &str) -> Vec<i64> {
    let row = |line: &str| -> Option<i64> {
        let clock = line.split(',').next()?.split_once(' ')?.1;
        let mut parts = clock.split(':');
        let (h, m, s): (f64, f64, f64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(((h * 60.0 + m) * 60_000.0 + s * 1_000.0) as i64)
    };
    let mut out: Vec<i64> = text.lines().skip(1).filter_map(row).collect();
    out.sort_unstable();
    out
}

/// Feeds a stretch pane by pane from `start`; returns the pages and the end.
fn feed(bank: &mut GapBank, times: &[i64], start: i64, injection: f64, pane_ms: i64) -> (usize, i64) {
    let (mut pages, mut i, mut at) = (0, 0, start);
    let end = times.last().copied().unwrap_or(start);
    while at + pane_ms <= end {
        let from = i;
        while i < times.len() && times[i] < at + pane_ms {
            i += 1;
        }
        pages += usize::from(matches!(bank.judge(&times[from..i], at, pane_ms, true, injection).call, Call::Alarm { .. }));
        at += pane_ms;
    }
    (pages, at)
}

fn stop(bank: &mut GapBank, mut at: i64, last: i64, pane_ms: i64) -> Option<i64> {
    for _ in 0..20_000 {
        if let Call::Alarm { .. } = bank.judge(&[], at, pane_ms, true, INJECTION).call {
            return Some(at + pane_ms - last);
        }
        at += pane_ms;
    }
    None
}

fn rare_gap(times: &[i64]) -> i64 {
    let mut gaps: Vec<i64> = times.windows(2).map(|w| w[1] - w[0]).collect();
    gaps.sort_unstable();
    gaps.get((gaps.len() as f64 * 0.9999) as usize).or(gaps.last()).copied().unwrap_or(0)
}

fn main() {
    let quick = || GapBank::new(GapSettings { armed_after_ms: 20 * 60_000, ..GapSettings::default() });
    if let Some(path) = std::env::args().skip(1).find(|a| !a.starts_with('-')) {
        let Ok(text) = std::fs::read_to_string(&path) else {
            println!("cannot read {path}");
            return;
        };
        let all = arrivals(&text);
        let (first, second) = all.split_at(all.len() / 2);
        println!("| learned on | q99.99 learned | pages on the other half | stop paged after | of q99.99 |\n| --- | --- | --- | --- | --- |");
        for (name, learn, other) in [("first half", first, second), ("second half", second, first)] {
            let mut bank = quick();
            feed(&mut bank, learn, learn[0], 0.0, PANE_MS);
            let mut stopped = bank.clone();
            let end = learn[0] + (learn[learn.len() - 1] - learn[0]) / PANE_MS * PANE_MS;
            // What came in after the last whole pane was never told to the bank.
            let last = learn[learn.partition_point(|t| *t < end) - 1];
            let after = stop(&mut stopped, end, last, PANE_MS);
            bank.start_live();
            // The other half follows on as if it were the next hour of the same day.
            let offset = end - other[0];
            let moved: Vec<i64> = other.iter().map(|t| t + offset).collect();
            let (pages, _) = feed(&mut bank, &moved, end, INJECTION, PANE_MS);
            let rare = rare_gap(learn);
            let after = after.map_or(f64::NAN, |ms| ms as f64);
            println!("| {name} | {:.2} s | {pages} | {:.1} s | {:.1}x |", rare as f64 / 1e3, after / 1e3, after / rare as f64);
        }
    }
    println!(
        "\n| made-up arrivals, 3 days learned | q99.99 | false pages in 4 days x 10 series | stop paged: median, worst of q99.99 |\n| --- | --- | --- | --- |"
    );
    for (name, shape, mean_ms) in
        [("Poisson, every 3 s", 1.0, 3_000.0), ("bursts (gamma .3), every 5 s", 0.3, 5_000.0), ("regular (gamma 5), every 20 s", 5.0, 20_000.0)]
    {
        let (mut pages, mut parts, mut rares) = (0, Vec::new(), Vec::new());
        for seed in 0..10 {
            let mut noise = Noise::new(90 + seed);
            let mut times = Vec::new();
            let mut t = MONDAY_MS as f64;
            while (t as i64) < MONDAY_MS + 7 * DAY_MS {
                times.push(t as i64);
                t += mean_ms * noise.gamma(shape);
            }
            let at = times.partition_point(|t| *t < MONDAY_MS + 3 * DAY_MS);
            let mut bank = GapBank::new(GapSettings::default());
            let (learn, rest) = times.split_at(at);
            let pane = 10_000;
            let (_, end) = feed(&mut bank, learn, MONDAY_MS, 0.0, pane);
            let (found, end) = feed(&mut bank, rest, end, INJECTION * 5.0, pane);
            pages += found;
            let rare = rare_gap(&times);
            if let Some(after) = stop(&mut bank, end, times[times.len() - 1], PANE_MS) {
                parts.push(after as f64 / rare as f64);
            }
            rares.push(rare as f64 / 1e3);
        }
        println!(
            "| {name} | {:.0} s | {pages} | {:.1}x, {:.1}x |",
            noise::quantile(&rares, 0.5),
            noise::quantile(&parts, 0.5),
            noise::quantile(&parts, 0.999)
        );
    }
    println!("\n| calendar, Poisson every 10 s while open | false pages, 10 series |\n| --- | --- |");
    for (name, learn_days, judge_days, weekends, blind) in [
        ("nightly pause 22 to 6 h, 8 days learned, 14 judged", 8, 14, false, false),
        ("nights and weekends, 8 days learned, 14 judged", 8, 14, true, false),
        ("nights and weekends, Monday to Thursday learned, the first weekend judged", 4, 4, true, false),
        ("the source blind for two days, 8 days learned", 8, 2, false, true),
    ] {
        let mut pages = 0;
        for seed in 0..10 {
            let mut noise = Noise::new(700 + seed);
            let mut bank = GapBank::new(GapSettings::default());
            let pane = 10_000;
            let start = MONDAY_MS + 7 * HOUR_MS;
            let mut at = start;
            while at < start + (learn_days + judge_days) * DAY_MS {
                let hour = at.rem_euclid(DAY_MS) / HOUR_MS;
                let weekend = (at - MONDAY_MS).rem_euclid(7 * DAY_MS) >= 5 * DAY_MS;
                let judged = at >= start + learn_days * DAY_MS;
                let open = (6..22).contains(&hour) && !(weekends && weekend) && !(blind && judged);
                let mut times: Vec<i64> = (0..if open { noise.poisson(1.0) } else { 0 }).map(|_| at + (noise.unit() * pane as f64) as i64).collect();
                times.sort_unstable();
                let b = if judged { INJECTION * 5.0 } else { 0.0 };
                pages += usize::from(matches!(bank.judge(&times, at, pane, !(blind && judged), b).call, Call::Alarm { .. }));
                at += pane;
            }
        }
        println!("| {name} | {pages} |");
    }
}
