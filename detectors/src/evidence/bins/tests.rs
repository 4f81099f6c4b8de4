//! Numeric values: what is quiet, what is found, told and over.

use super::super::noise::Noise;
use super::super::normal_quantile;
use super::bets::WEIGHTS;
use super::*;
use crate::sketch::log_linear::bin_of;

const PANE: i64 = 10_000;
const B: f64 = 4e-9;

fn pane(noise: &mut Noise, n: usize, value: &dyn Fn(f64) -> f64) -> Vec<(u16, u32)> {
    let mut bins: Vec<u16> = (0..n).map(|_| bin_of(value(noise.normal()))).collect();
    bins.sort_unstable();
    let mut out: Vec<(u16, u32)> = vec![];
    for b in bins {
        match out.last_mut() {
            Some(last) if last.0 == b => last.1 += 1,
            _ => out.push((b, 1)),
        }
    }
    out
}

fn run(bank: &mut BinsBank, noise: &mut Noise, t: &mut i64, value: &dyn Fn(f64) -> f64, injection: f64, panes: usize) -> (usize, Call) {
    for i in 1..=panes {
        let r = bank.judge(&pane(noise, 100, value), *t, PANE, injection);
        *t += PANE;
        if !matches!(r.call, Call::Quiet) {
            return (i, r.call);
        }
    }
    (panes, Call::Quiet)
}

#[test]
fn near_the_threshold_evidence_is_multiplied_by_what_it_would_waste() {
    let mut seen = 0;
    for seed in 91..97 {
        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.0 });
        let mut noise = Noise::new(seed);
        for i in 0..20_000 {
            bank.judge(&pane(&mut noise, 10, &|z| z), i * PANE, PANE, 0.0);
        }
        for i in 20_000.. {
            let shifted = pane(&mut noise, 10, &|z| z + 0.1);
            let mut plain = bank.clone();
            // As if nothing had been gathered yet.
            plain.log_evidence = NO_EVIDENCE;
            let (far, armed) = (bank.threshold - bank.log_evidence, bank.armed.as_ref().expect("it has learned"));
            let handed_out = if armed.bets.made { armed.handed_out(10.0 / armed.dispersion, 1e-5, 0.0) } else { 1.0 };
            let lift = if far > 3.9 { 1.0 } else { overshoot::tempered(handed_out, nats_per_pane_max(armed.dispersion)) };
            let (lifted, plain) = (bank.judge(&shifted, i * PANE, PANE, 1e-5), plain.judge(&shifted, i * PANE, PANE, 1e-5));
            let more = lifted.log_evidence - plain.log_evidence;
            assert!((0.0..0.7).contains(&more) && (more - lift.ln()).abs() < 1e-3, "{more} more, {lift}");
            seen += usize::from(more > 0.02);
            if matches!(lifted.call, Call::Alarm { .. }) {
                break;
            }
        }
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn without_tolerance_no_more_than_promised_is_used() {
    let used = overshoot::promise::used(8, 20_000, 120_000, |seed| {
        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.0 });
        let mut noise = Noise::new(7_300 + seed);
        move |i, spent| {
            let alarmed = matches!(bank.judge(&pane(&mut noise, 10, &|z| z), i * PANE, PANE, spent).call, Call::Alarm { .. });
            if alarmed {
                bank.release(Release::Fixed);
            }
            alarmed
        }
    });
    assert!((0.4..1.1).contains(&used), "{used} of the promise used");
}

#[test]
fn what_is_gathered_is_what_was_added_however_much_it_is() {
    let mut gathered = Gathered::default();
    let mut truth = std::collections::BTreeMap::<u16, u32>::new();
    for n in 0..3_000u32 {
        let pane = [((n * 7 % 90) as u16, 1 + n % 3), (200, 70_000), (201, u32::from(u16::MAX))];
        gathered.add(&pane);
        pane.iter().for_each(|(bin, count)| *truth.entry(*bin).or_default() += count);
    }
    assert_eq!(gathered.grid(), truth.clone().into_iter().collect::<Vec<_>>());
    gathered.put_in_order();
    assert_eq!(gathered.grid(), truth.into_iter().collect::<Vec<_>>());
    assert!(gathered.0.len() < 90 + 2 * 3_300 && gathered.0.is_sorted_by_key(|e| e.0));
}

#[test]
fn quiet_values_of_any_shape_stay_within_the_budget() {
    let laws: [&dyn Fn(f64) -> f64; 4] = [&|z| (6.0 + 0.6 * z).exp(), &|z| z, &|z| (3.0 * z).round(), &|z| (0.86 + 0.08 * z).min(1.0)];
    let mut pages = 0;
    let mut noise = Noise::new(1);
    for law in laws {
        for _ in 0..8 {
            let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
            let mut t = 0;
            let (_, call) = run(&mut bank, &mut noise, &mut t, law, 10.0 / (32.0 * 1_000.0), 1_000);
            assert_ne!(bank.state(), State::Warming);
            pages += usize::from(matches!(call, Call::Alarm { .. }));
        }
    }
    assert!(pages <= 10, "{pages} of 10");
}

/// Laws of few values and many, each value with its part: what counts, flags and rounded numbers look like.
fn discrete_laws() -> Vec<(&'static str, Vec<(f64, f64)>)> {
    let normal = |z: f64| (-0.5 * z * z).exp();
    vec![
        ("four values", vec![(0.0, 0.82), (1.0, 0.12), (2.0, 0.04), (3.0, 0.02)]),
        ("a constant and 1 % above", vec![(7.0, 0.99), (9.0, 0.01)]),
        ("a constant and 1 % below", vec![(5.0, 0.01), (7.0, 0.99)]),
        ("a coin", vec![(0.0, 0.5), (1.0, 0.5)]),
        ("integers", (0..=10).map(|i| (f64::from(i), 1.0)).collect()),
        ("geometric", (0..40).map(|i| (f64::from(i), 0.6f64.powi(i))).collect()),
        ("rounded lognormal", (1..=80).map(|i| (f64::from(i), normal((f64::from(i).ln() - 1.5) / 0.8) / f64::from(i))).collect()),
    ]
}

/// Values that tie make bins that no cut of the alternatives falls between. Baselines are learned from nothing, by a bank that may
/// page from its first pane on.
#[test]
fn quiet_values_that_tie_stay_within_the_budget_from_the_first_pane_on() {
    let laws = discrete_laws();
    for tolerance_sigma in [0.1, 0.0] {
        let (mut pages, mut promised) = (0, 0);
        for n in [1u32, 40, 800, 5_000] {
            let panes = if n == 1 { 3_000 } else { 300 };
            for (name, law) in &laws {
                let (values, parts): (Vec<u16>, Vec<f64>) = law.iter().map(|(v, p)| (bin_of(*v), *p)).unzip();
                promised += 1;
                for k in 0..2 {
                    let mut noise = Noise::new(31 + k);
                    let mut bank = BinsBank::new(BinsSettings { tolerance_sigma });
                    for i in 0..panes {
                        let drawn = values.iter().copied().zip(noise.multinomial(n, &parts)).filter(|k| k.1 > 0);
                        let r = bank.judge(&drawn.collect::<Vec<_>>(), i * 2_000, 2_000, 1.0 / (2 * panes) as f64);
                        if matches!(r.call, Call::Alarm { .. }) {
                            pages += 1;
                            bank.start_live();
                        }
                    }
                    assert!(tolerance_sigma <= 0.0 || bank.climb.stretch() == 1, "{name} {n}");
                    assert_ne!(bank.state(), State::Warming, "{name} {n}");
                }
            }
        }
        assert!(pages <= promised, "tolerance {tolerance_sigma}: {pages} of {promised}");
    }
}

/// A bet on one event makes no more than 1 on the average under any shift within tolerance, whatever bins the values make. To one
/// event the predictive adds nothing.
#[test]
fn every_alternative_is_divided_by_at_least_its_mean() {
    for tolerance in [0.1, 0.0] {
        let smooth: Vec<(f64, f64)> = (0..4_000).map(|i| (normal_quantile((f64::from(i) + 0.5) / 4_000.0), 1.0)).collect();
        for (name, law) in discrete_laws().into_iter().chain([("normal", smooth)]) {
            let all: f64 = law.iter().map(|k| k.1).sum();
            let mut grid: Vec<(u16, u32)> = law.iter().map(|(v, p)| (bin_of(*v), (p / all * 1e6) as u32)).collect();
            once_each(&mut grid, u32::saturating_add);
            let total = grid.iter().map(|k| f64::from(k.1)).sum();
            let mut armed = Armed::from_grid(&grid, total, tolerance).expect("there are values");
            let bins = armed.bins;
            for share in [-1.0, -0.5, 0.0, 0.5, 1.0] {
                let tilt = share * tolerance;
                let mut means = [0.0; KNOWN];
                for b in 0..bins {
                    let mut one = Regrouped { counts: [0.0; BINS_MAX], n: 1.0 };
                    one.counts[b] = 1.0;
                    let l = armed.likelihoods(&one, 1.0, B, tolerance);
                    let p = armed.share(b) * (tilt * f64::from(armed.scores.of_bin[b]) - armed.ln_norm(tilt)).exp();
                    means.iter_mut().zip(l.as_flattened()).for_each(|(mean, l)| *mean += p * f64::from(*l).exp());
                }
                for (arm, mean) in means.iter().enumerate() {
                    assert!(*mean < 1.0 + 1e-5, "{name}: alternative {arm} makes {mean} of 1 at {tilt}");
                }
            }
        }
    }
}

#[test]
fn shifts_and_tails_are_found_told_and_recover() {
    let usual: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * z).exp();
    let slow: &dyn Fn(f64) -> f64 = &|z| 1.6 * (6.0 + 0.6 * z).exp();
    let tail: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * z).exp() * if z > 1.2816 { 3.0 } else { 1.0 };
    let huge: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * (z + 6.0)).exp();
    for (fault, panes_max, told) in [(slow, 20, Told::Median), (tail, 30, Told::P95), (huge, 10, Told::Median)] {
        let mut noise = Noise::new(2);
        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
        let mut t = 0;
        assert_eq!(run(&mut bank, &mut noise, &mut t, usual, B, 400).1, Call::Quiet);
        for _ in 0..2 {
            let (panes, call) = run(&mut bank, &mut noise, &mut t, fault, B, 60);
            let Call::Alarm { change, .. } = call else { panic!("{call:?}") };
            assert!(panes <= panes_max, "{panes} > {panes_max}");
            assert!(change.after > 1.3 * change.before, "{change:?}");
            assert_eq!(bank.told(), told);
            assert_eq!(run(&mut bank, &mut noise, &mut t, fault, B, 500).1, Call::Quiet, "no recovery while it lasts");
            let (panes, call) = run(&mut bank, &mut noise, &mut t, usual, B, 300);
            assert!(matches!(call, Call::Recovered { .. }), "{call:?}");
            assert!(panes < 100, "{panes}");
            assert_eq!(run(&mut bank, &mut noise, &mut t, usual, B, 500).1, Call::Quiet);
        }
    }
}

/// A course of the day three times as high as the tolerance, or just within it, is learned in one day, and a fault in it is found, dated and
/// repaired; half of it is no repair. The incident lasts over a turn of the hour. At the trough, where a rise must pass the level of all hours while little is known,
/// forty panes were seen not to be enough: that hour is not among these.
#[test]
fn a_daily_course_is_normal_and_faults_are_found_in_it() {
    const MINUTE: i64 = 60_000;
    for (hour, swing) in [(0, 0.3), (6, 0.3), (13, 0.3), (6, 0.09), (18, 0.09)] {
        let mut noise = Noise::new(70 + hour);
        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
        let mut t = 0;
        let mut feed = |bank: &mut BinsBank, t: &mut i64, shift: f64, injection: f64| {
            let level = shift + swing * (*t as f64 / 86_400_000.0 * std::f64::consts::TAU).sin();
            *t += MINUTE;
            bank.judge(&pane(&mut noise, 100, &|z| (6.0 + 0.6 * (z + level)).exp()), *t - MINUTE, MINUTE, injection).call
        };
        for _ in 0..1_440 {
            feed(&mut bank, &mut t, 0.0, 0.0);
        }
        bank.start_live();
        for _ in 0..2 * 1_440 + 60 * hour {
            assert_eq!(feed(&mut bank, &mut t, 0.0, B), Call::Quiet, "{hour}: minute {}", t / MINUTE);
        }
        let began = t;
        let call = (0..40).map(|_| feed(&mut bank, &mut t, 0.5, B)).find(|call| matches!(call, Call::Alarm { .. }));
        let Some(Call::Alarm { change, onset }) = call else { panic!("{hour}: {call:?}") };
        println!("{hour}: {} minutes, {change:?}, onset off by {} s", (t - began) / MINUTE, (onset.at_ms - began) / 1_000);
        assert!((onset.at_ms - began).abs() <= 30 * MINUTE, "{hour}: {onset:?} of {began}");
        let usual = (6.0 + 0.6 * swing * (began as f64 / 86_400_000.0 * std::f64::consts::TAU).sin()).exp();
        assert!((change.before / usual).ln().abs() < 0.08, "{hour}: {} of {usual}", change.before);
        for _ in 0..90 {
            assert_eq!(feed(&mut bank, &mut t, 0.5, B), Call::Quiet, "{hour}: no recovery while it lasts");
        }
        let (mut half, mut later) = (bank.clone(), t);
        for minute in 0..1_440 {
            assert_eq!(feed(&mut half, &mut later, 0.25, B), Call::Quiet, "{hour}: half of it lasts, minute {minute}");
        }
        let back = (1..=60).find(|_| matches!(feed(&mut bank, &mut t, 0.0, B), Call::Recovered { .. }));
        println!("{hour}, {swing}: back after {back:?}");
        assert!(back.is_some(), "{hour}");
    }
}

/// A young baseline took it for a course of the day: of a thousand such series nine did not page, three of these among them.
#[test]
fn a_small_rise_in_the_sixth_hour_is_no_course_of_the_day() {
    for seed in 160..300 {
        let mut noise = Noise::new(9_000 + seed);
        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.0 });
        let mut t = 0;
        let mut found = false;
        for i in 0..3_500 {
            let shift = if i < 2_000 { 0.0 } else { 0.1 };
            let injection = if i < 1_000 { 0.0 } else { 1e-5 };
            let call = bank.judge(&pane(&mut noise, 10, &|z| (6.0 + 0.6 * (z + shift)).exp()), t, PANE, injection).call;
            t += PANE;
            if matches!(call, Call::Alarm { .. }) {
                // One that came too early is a false alarm, of which one in a hundred is promised.
                found = true;
                break;
            }
        }
        assert!(found, "{seed}");
    }
}

#[test]
fn a_drop_of_a_bounded_score_is_found() {
    let mut noise = Noise::new(4);
    let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
    let mut t = 0;
    assert_eq!(run(&mut bank, &mut noise, &mut t, &|z| (0.86 + 0.08 * z).min(1.0), B, 400).1, Call::Quiet);
    let (panes, call) = run(&mut bank, &mut noise, &mut t, &|z| (0.78 + 0.08 * z).min(1.0), B, 60);
    let Call::Alarm { change, .. } = call else { panic!("{call:?}") };
    assert!(panes <= 12 && (0.75..0.81).contains(&change.after) && (0.84..0.88).contains(&change.before), "{panes} {change:?}");
}

#[test]
fn a_series_that_never_varied_sees_a_change() {
    let mut noise = Noise::new(4);
    let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
    let mut t = 0;
    assert_eq!(run(&mut bank, &mut noise, &mut t, &|_| 1.0, B, 400).1, Call::Quiet);
    assert!(matches!(run(&mut bank, &mut noise, &mut t, &|_| 2.0, B, 60).1, Call::Alarm { .. }));
}

/// Panes of two seconds with 100 to 300 events, half an hour of baseline: what a demo shows.
#[test]
fn short_panes_page_within_half_a_minute_and_recover_within_two() {
    let latency: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * z).exp();
    let tail: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * z).exp() * if z > 1.2816 { 3.0 } else { 1.0 };
    let tokens: &dyn Fn(f64) -> f64 = &|z| (5.0 + 0.8 * z).exp().round();
    let more: &dyn Fn(f64) -> f64 = &|z| (1.6 * (5.0 + 0.8 * z).exp()).round();
    let score: &dyn Fn(f64) -> f64 = &|z| (0.86 + 0.08 * z).clamp(0.0, 1.0);
    let worse: &dyn Fn(f64) -> f64 = &|z| (0.78 + 0.08 * z).clamp(0.0, 1.0);
    for (name, usual, fault) in [("latency tail", latency, tail), ("tokens", tokens, more), ("score", score, worse)] {
        let mut pages = Vec::new();
        for seed in 0..3 {
            let mut noise = Noise::new(400 + seed);
            let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
            let mut t = 0;
            let mut feed = |bank: &mut BinsBank, law: &dyn Fn(f64) -> f64, seconds: usize| -> (usize, Call) {
                for i in 1..=seconds / 2 {
                    let n = 100 + (noise.unit() * 200.0) as usize;
                    let r = bank.judge(&pane(&mut noise, n, law), t, 2_000, 1e-8);
                    t += 2_000;
                    if !matches!(r.call, Call::Quiet) {
                        return (2 * i, r.call);
                    }
                }
                (seconds, Call::Quiet)
            };
            assert_eq!(feed(&mut bank, usual, 1_800).1, Call::Quiet);
            assert_eq!(bank.state(), State::Armed);
            assert_eq!(feed(&mut bank, usual, 7_200).1, Call::Quiet, "{name}: two quiet hours");
            for _ in 0..2 {
                let (found, call) = feed(&mut bank, fault, 60);
                assert!(matches!(call, Call::Alarm { .. }) && found <= 30, "{name}: {found} s, {call:?}");
                feed(&mut bank, fault, 120);
                let (back, call) = feed(&mut bank, usual, 600);
                assert!(matches!(call, Call::Recovered { .. }) && back <= 120, "{name}: {back} s, {call:?}");
                pages.push((found, back));
            }
        }
        println!("{name}: (seconds to page, to recover) {pages:?}");
    }
}

/// From baselines of no events at all (the bank arms itself on what comes) to panes of 100,000: a pane of the cap's nats is enough.
#[test]
fn a_huge_fault_is_found_in_the_least_panes_the_cap_allows() {
    // Nats to the threshold of the alternative that reaches anything, at 3 nats a pane.
    let least = ((1.0f64 / (B * WEIGHTS[KNOWN])).ln() / 3.0).ceil() as usize;
    for n in [1usize, 10, 100, 1_000, 100_000] {
        let merged = (MERGE_EVENTS as usize).div_ceil(n);
        // The law on the grid, by its quantiles; large panes are drawn bin by bin.
        let on_grid = |shift: f64| -> Vec<(u16, u32)> {
            let mut out: Vec<(u16, u32)> =
                (0..20_000).map(|i| (bin_of((6.0 + 0.6 * (normal_quantile((f64::from(i) + 0.5) / 20_000.0) + shift)).exp()), 1)).collect();
            once_each(&mut out, u32::saturating_add);
            out
        };
        let draw = |noise: &mut Noise, shift: f64, law: &[(u16, u32)]| -> Vec<(u16, u32)> {
            if n <= 1_000 {
                return pane(noise, n, &|z| (6.0 + 0.6 * (z + shift)).exp());
            }
            let all = law.iter().map(|(bin, c)| (*bin, noise.poisson(f64::from(*c) * n as f64 / 20_000.0) as u32));
            all.filter(|k| k.1 > 0).collect()
        };
        let usual = on_grid(0.0);
        for sigma in [3.0, 6.0, -6.0] {
            let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
            let mut noise = Noise::new(n as u64);
            let mut t = 0;
            let mut quiet = 0;
            while bank.state() != State::Armed || quiet < 20 {
                let call = bank.judge(&draw(&mut noise, 0.0, &usual), t, PANE, B).call;
                assert_eq!(call, Call::Quiet, "{n}");
                t += PANE;
                quiet += usize::from(bank.state() == State::Armed);
            }
            let (fault, mut found) = (on_grid(sigma), None);
            for i in 1..=60 * merged {
                let call = bank.judge(&draw(&mut noise, sigma, &fault), t, PANE, B).call;
                t += PANE;
                if matches!(call, Call::Alarm { .. }) {
                    found = Some(i);
                    break;
                }
            }
            let found = found.unwrap_or(usize::MAX);
            // Panes of one event wait for ten of them, and a pane that began before the fault is not counted as one of it.
            assert!(found <= (least + 1) * merged, "{n} {sigma}: {found} panes of {least}");
        }
    }
}

#[test]
fn the_series_of_the_predictive_agrees_with_the_exact_one() {
    for tolerance in [0.0, 0.1] {
        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: tolerance });
        let mut noise = Noise::new(9);
        let mut t = 0;
        run(&mut bank, &mut noise, &mut t, &|z| z, 0.0, 600);
        let armed = bank.armed.as_mut().expect("60,000 values arm it");
        armed.make_bets(tolerance);
        for n in [10, 100, 3_000] {
            let seen = armed.regroup(&pane(&mut noise, n, &|z| z + 0.3));
            let lanes = armed.likelihoods(&seen, 1.0, B, tolerance);
            let l = |arm: usize| f64::from(lanes.as_flattened()[arm]);
            let weight = armed.sum + 0.5 * armed.bins as f64;
            let (up, down) = armed.risen(&seen, 1.0, weight);
            let score: f64 = seen.counts.iter().zip(&armed.scores.of_bin).map(|(c, z)| c * f64::from(*z)).sum();
            let long_up = 0.2 * score - seen.n * (armed.ln_norm(0.2 + tolerance) - armed.ln_norm(tolerance)) - up;
            let long_down = -0.2 * score - seen.n * (armed.ln_norm(-0.2 - tolerance) - armed.ln_norm(-tolerance)) - down;
            assert!((l(1) - long_up).abs() < 0.03, "{n}: {} {long_up}", l(1));
            assert!((l(DOWN + 1) - long_down).abs() < 0.03, "{n}: {} {long_down}", l(DOWN + 1));
        }
    }
}

/// The naive twin: Dirichlet-multinomial by gamma functions, alternatives by their probabilities.
#[test]
fn likelihoods_agree_with_the_formula_written_out() {
    use super::super::ln_gamma;
    let tolerance = 0.1;
    let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: tolerance });
    let mut noise = Noise::new(10);
    let mut t = 0;
    run(&mut bank, &mut noise, &mut t, &|z| (6.0 + 0.6 * z).exp(), 0.0, 600);
    let armed = bank.armed.as_mut().expect("60,000 values arm it");
    armed.make_bets(tolerance);
    let bins = armed.bins;
    let shares: Vec<f64> = (0..bins).map(|b| armed.share(b)).collect();
    let scores: Vec<f64> = armed.scores.of_bin[..bins].iter().map(|z| f64::from(*z)).collect();
    let tilted = |d: f64| -> Vec<f64> {
        let raw: Vec<f64> = shares.iter().zip(&scores).map(|(p, z)| p * (d * z).exp()).collect();
        let norm: f64 = raw.iter().sum();
        raw.iter().map(|r| r / norm).collect()
    };
    let weight = armed.sum + 0.5 * bins as f64;
    for f in [1.0, 1.7] {
        let seen = armed.regroup(&pane(&mut noise, 200, &|z| (6.0 + 0.6 * (z + 0.2)).exp()));
        let lanes = armed.likelihoods(&seen, f, B, tolerance);
        let l = |arm: usize| f64::from(lanes.as_flattened()[arm]);
        let predictive = |null: &[f64]| -> f64 {
            let one: f64 = null.iter().zip(&seen.counts).map(|(p, c)| ln_gamma(p * weight / f + c / f) - ln_gamma(p * weight / f)).sum();
            one - ln_gamma((weight + seen.n) / f) + ln_gamma(weight / f)
        };
        for (arm, d) in [(0, 0.1), (3, 0.8), (DOWN, -0.1), (DOWN + 4, -1.6)] {
            let edge = if d > 0.0 { tolerance } else { -tolerance };
            let bet: f64 = tilted(d + edge).iter().zip(&seen.counts).map(|(q, c)| c / f * q.ln()).sum();
            let long = bet - predictive(&tilted(edge));
            assert!((l(arm) - long).abs() < 0.02, "{d} at {f}: {} {long}", l(arm));
        }
    }
}

#[test]
fn the_quick_quantile_is_one() {
    for i in 1..2_000 {
        let p = f64::from(i) / 2_000.0;
        assert!((quick_quantile(p) - normal_quantile(p)).abs() < 1e-6, "{p}");
    }
    for p in [1e-12, 1e-7, 1e-4] {
        assert!((quick_quantile(p) - normal_quantile(p)).abs() < 1e-5, "{p}");
    }
}

/// A day is learned, and the next three are like it. What the hours' course does to the ladder makes a pane of a hundred values count for a
/// part of one, and such parts once made evidence from nothing: 163 pages of the .3 promised at a swing of one sigma.
#[test]
fn a_daily_course_learned_in_one_day_does_not_page() {
    const MINUTE: i64 = 60_000;
    for swing in [0.3, 0.6, 1.0] {
        let mut pages = 0;
        for seed in 0..15u64 {
            let mut noise = Noise::new(1_000 + seed);
            let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
            for minute in 0..4 * 1_440 {
                if minute == 1_440 {
                    bank.start_live();
                }
                let level = swing * ((minute as f64 / 1_440.0 + seed as f64 / 15.0) * std::f64::consts::TAU).sin();
                let injection = if minute < 1_440 { 0.0 } else { 1e-6 };
                let of = pane(&mut noise, 100, &|z| (6.0 + 0.6 * (z + level)).exp());
                if let Call::Alarm { .. } = bank.judge(&of, minute * MINUTE, MINUTE, injection).call {
                    pages += 1;
                    bank.release(Release::FalseAlarm);
                }
            }
        }
        println!("swing {swing}: {pages} pages");
        assert!(pages <= 1, "swing {swing}: {pages} pages");
    }
}

/// However much a value is divided by, no alternative may gain on the mean while nothing changes.
#[test]
fn parts_of_events_are_no_evidence() {
    let law = |z: f64| (6.0 + 0.6 * z).exp();
    for tolerance in [0.0, 0.1, 0.4] {
        let mut noise = Noise::new(5);
        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: tolerance });
        for i in 0..1_440 {
            bank.learn_only(&pane(&mut noise, 100, &law), i * PANE, PANE);
        }
        let armed = bank.armed.as_mut().expect("armed");
        for dispersion in [1.0, 5.0, 50.0, 500.0] {
            let mut gains = [0.0; ARMS];
            for _ in 0..4_000 {
                let seen = armed.regroup(&pane(&mut noise, 100, &law));
                for (gain, l) in gains.iter_mut().zip(armed.likelihoods(&seen, dispersion, B, tolerance).as_flattened()) {
                    *gain += f64::from(*l) / 4_000.0;
                }
            }
            let most = gains.iter().fold(f64::NEG_INFINITY, |most, gain| most.max(*gain));
            println!("{tolerance} {dispersion}: {most:.5}");
            assert!(most < 0.0, "{tolerance} {dispersion}: {gains:?}");
        }
    }
}

/// Half of the values lie below a cut, to the last one: that cut's score is 0, from whichever end it is counted.
#[test]
fn a_cut_at_the_median_has_a_score() {
    let mut noise = Noise::new(11);
    let mut broken = 0;
    for _ in 0..20_000 {
        let mut half = || -> Vec<u32> { (0..5).map(|_| 60 + (80.0 * noise.unit()) as u32).collect() };
        let (mut below, mut above) = (half(), half());
        let (of_below, of_above): (u32, u32) = (below.iter().sum(), above.iter().sum());
        below[0] += of_above.saturating_sub(of_below);
        above[4] += of_below.saturating_sub(of_above);
        let grid: Vec<(u16, u32)> = (0u16..).map(|i| 1_000 + 10 * i).zip(below.into_iter().chain(above)).collect();
        let armed = Armed::from_grid(&grid, f64::from(2 * of_below.max(of_above)), 0.1).expect("a law");
        broken += usize::from(armed.edges()[..armed.bins - 1].iter().any(|edge| !edge.is_finite()));
    }
    assert_eq!(broken, 0);
}

/// Learned from the trough on: what lies in the far tail lies there at the crest only, and is expected there.
#[test]
fn at_the_crest_the_tail_is_as_heavy_as_it_comes() {
    const MINUTE: i64 = 60_000;
    let mut noise = Noise::new(8);
    let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
    let level = |minute: i64| -(minute as f64 / 1_440.0 * std::f64::consts::TAU).cos();
    let mut of = |n: usize, level: f64| pane(&mut noise, n, &|z| (6.0 + 0.6 * (z + level)).exp());
    for minute in 0..3 * 1_440 + 725 {
        bank.learn_only(&of(100, level(minute)), minute * MINUTE, MINUTE);
    }
    let armed = bank.armed.as_ref().expect("armed");
    let seen = armed.regroup(&of(200_000, level(725)));
    let beyond = |b: usize, of: &dyn Fn(usize) -> f64| -> f64 { (b..armed.bins).map(of).sum() };
    for b in armed.bins / 2..armed.bins {
        let (expected, is) = (beyond(b, &|b| armed.share(b)), beyond(b, &|b| seen.counts[b] / seen.n));
        println!("{b}: {expected:.5} {is:.5}");
        assert!(is < 2e-4 || (0.85..1.18).contains(&(expected / is)), "{b}: {expected} of {is}");
    }
}

/// A series that is higher at weekends is watched from its second day on: the first weekend is news. Somebody calls each page a false alarm three
/// hours later; what the incident brought belongs to its hours then, so that no later weekend is news.
#[test]
fn a_weekend_that_was_called_a_false_alarm_is_known_the_next_time() {
    const MINUTE: i64 = 60_000;
    let mut pages = [0; 5];
    for seed in 0..4u64 {
        let mut noise = Noise::new(40 + seed);
        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
        let mut closes = None;
        for minute in 0..5 * 7 * 1_440i64 {
            if minute == 1_440 {
                bank.start_live();
            }
            let level = if (minute + 360 * seed as i64) % (7 * 1_440) >= 5 * 1_440 { 0.5 } else { 0.0 };
            let of = pane(&mut noise, 100, &|z| (6.0 + 0.6 * (z + level)).exp());
            let injection = if minute < 1_440 { 0.0 } else { 1e-6 };
            if let Call::Alarm { .. } = bank.judge(&of, minute * MINUTE, MINUTE, injection).call {
                pages[(minute / (7 * 1_440)) as usize] += 1;
                closes = Some(minute + 180);
            }
            if closes == Some(minute) {
                bank.release(Release::FalseAlarm);
                closes = None;
            }
        }
    }
    println!("pages by week {pages:?}");
    assert!(pages[0] >= 4 && pages[2..].iter().sum::<i32>() == 0, "{pages:?}");
}
