//! Classes: what is quiet, what is found, told and over.

use super::super::noise::Noise;
use super::*;

const PANE: i64 = 10_000;
const B: f64 = 4e-9;

fn pane(noise: &mut Noise, n: u32, shares: &[f64]) -> Vec<(u16, u32)> {
    let total: f64 = shares.iter().sum();
    let mut counts = vec![0u32; shares.len()];
    for _ in 0..n {
        let mut x = noise.unit() * total;
        let class = shares.iter().position(|s| {
            x -= s;
            x < 0.0
        });
        counts[class.unwrap_or(0)] += 1;
    }
    counts.iter().enumerate().filter(|(_, c)| **c > 0).map(|(i, c)| (i as u16, *c)).collect()
}

fn run(bank: &mut ClassBank, noise: &mut Noise, t: &mut i64, n: u32, shares: &[f64], injection: f64, panes: usize) -> (usize, Call) {
    for i in 1..=panes {
        let r = bank.judge(&pane(noise, n, shares), *t, PANE, injection);
        *t += PANE;
        if !matches!(r.call, Call::Quiet) {
            return (i, r.call);
        }
    }
    (panes, Call::Quiet)
}

const FEW: [f64; 4] = [0.6, 0.25, 0.1, 0.05];

fn many() -> Vec<f64> {
    (1..=60).map(|rank| 1.0 / f64::from(rank)).collect()
}

#[test]
fn near_the_threshold_evidence_is_multiplied_by_what_it_would_waste() {
    let mut bank = ClassBank::new(ClassSettings { tolerance: 0.0 });
    let mut noise = Noise::new(92);
    for i in 0..20_000 {
        bank.judge(&pane(&mut noise, 10, &FEW), i * PANE, PANE, 0.0);
    }
    let mut seen = 0;
    for i in 20_000.. {
        let moved = pane(&mut noise, 10, &[0.55, 0.25, 0.1, 0.1]);
        let mut plain = bank.clone();
        // As if nothing had been gathered yet.
        plain.log_evidence = NO_EVIDENCE;
        let far = bank.threshold - bank.log_evidence;
        let (lifted, plain) = (bank.judge(&moved, i * PANE, PANE, 1e-5), plain.judge(&moved, i * PANE, PANE, 1e-5));
        let more = lifted.log_evidence - plain.log_evidence;
        assert!((0.0..0.7).contains(&more) && (far < 3.92 || more == 0.0), "{more} more, {far} from the threshold");
        seen += usize::from(more > 0.02);
        if matches!(lifted.call, Call::Alarm { .. }) {
            break;
        }
    }
    assert!(seen > 2, "{seen}");
}

#[test]
fn without_tolerance_no_more_than_promised_is_used() {
    let used = overshoot::promise::used(8, 20_000, 120_000, |seed| {
        let mut bank = ClassBank::new(ClassSettings { tolerance: 0.0 });
        let mut noise = Noise::new(7_500 + seed);
        move |i, spent| {
            let alarmed = matches!(bank.judge(&pane(&mut noise, 10, &FEW), i * PANE, PANE, spent).call, Call::Alarm { .. });
            if alarmed {
                bank.release(Release::Fixed);
            }
            alarmed
        }
    });
    assert!((0.4..1.1).contains(&used), "{used} of the promise used");
}

#[test]
fn quiet_classes_stay_within_the_budget_plain_and_wavy() {
    for wavy in [false, true] {
        let mut noise = Noise::new(21);
        let mut pages = 0;
        let (series, panes) = (30, 1_500);
        for i in 0..series {
            let shares = if i % 2 == 0 { FEW.to_vec() } else { many() };
            let mut bank = ClassBank::new(ClassSettings { tolerance: 0.2 });
            let mut t = 0;
            for k in 0..600 + panes {
                let mut now = shares.clone();
                if wavy {
                    now.iter_mut().for_each(|s| *s *= (0.3 * noise.normal()).exp());
                }
                let b = if k < 600 { 0.0 } else { 10.0 / (series * panes) as f64 };
                let r = bank.judge(&pane(&mut noise, 100, &now), t, PANE, b);
                t += PANE;
                if matches!(r.call, Call::Alarm { .. }) {
                    pages += 1;
                    bank.start_live();
                }
            }
            assert_eq!(bank.state(), State::Armed);
        }
        assert!(pages <= 10, "wavy {wavy}: {pages} of 10");
    }
}

/// Baselines are learned from nothing, by a bank that may page from its first pane on.
#[test]
fn quiet_classes_stay_within_the_budget_from_the_first_pane_on() {
    let laws: [(&str, Vec<f64>); 7] = [
        ("sixty by rank", many()),
        ("four", vec![0.82, 0.12, 0.04, 0.02]),
        ("one and 1 % of another", vec![0.99, 0.01]),
        ("two alike", vec![0.5, 0.5]),
        ("eleven alike", vec![1.0; 11]),
        ("geometric", (0..40).map(|i| 0.6f64.powi(i)).collect()),
        ("a thousand alike", vec![1.0; 1_000]),
    ];
    for tolerance in [0.2, 0.0] {
        let (mut pages, mut promised) = (0, 0);
        for n in [1u32, 40, 800, 5_000] {
            let panes = if n == 1 { 8_000 } else { 300 };
            for (name, parts) in &laws {
                promised += 1;
                for k in 0..2 {
                    let mut noise = Noise::new(31 + k);
                    let mut bank = ClassBank::new(ClassSettings { tolerance });
                    for i in 0..panes {
                        let drawn = (0u16..).zip(noise.multinomial(n, parts)).filter(|k| k.1 > 0);
                        let r = bank.judge(&drawn.collect::<Vec<_>>(), i * 2_000, 2_000, 1.0 / (2 * panes) as f64);
                        if matches!(r.call, Call::Alarm { .. }) {
                            pages += 1;
                            bank.start_live();
                        }
                    }
                    assert!(tolerance <= 0.0 || bank.climb.stretch() == 1, "{name} {n}");
                    assert_ne!(bank.state(), State::Warming, "{name} {n}");
                }
            }
        }
        assert!(pages <= promised, "tolerance {tolerance}: {pages} of {promised}");
    }
}

#[test]
fn moved_vanished_and_new_classes_are_found_told_and_recover() {
    let swap = vec![0.45, 0.25, 0.25, 0.05];
    let gone = vec![0.6, 0.0, 0.1, 0.05];
    let new = vec![0.6, 0.25, 0.1, 0.05, 0.2];
    let all = vec![0.0, 0.0, 0.0, 0.0, 1.0];
    for (to, told, panes_max) in [(swap, Some(2), 16), (gone, Some(1), 9), (new, None, 14), (all, None, 9)] {
        let mut noise = Noise::new(22);
        let mut bank = ClassBank::new(ClassSettings { tolerance: 0.2 });
        let mut t = 0;
        assert_eq!(run(&mut bank, &mut noise, &mut t, 100, &FEW, B, 400).1, Call::Quiet);
        assert!(bank.is_known(3) && !bank.is_known(4) && bank.state() == State::Armed);
        for _ in 0..2 {
            let (panes, call) = run(&mut bank, &mut noise, &mut t, 100, &to, B, 60);
            let Call::Alarm { change, onset } = call else { panic!("{to:?} {call:?}") };
            let began = t - panes as i64 * PANE;
            assert!(panes <= panes_max, "{to:?}: {panes} panes");
            assert!(onset.from_ms <= began && began <= onset.to_ms, "{began} {onset:?}");
            assert!(bank.told() == told || to.len() == 5 && to[0] == 0.0, "{to:?}: {:?} {change:?}", bank.told());
            assert_eq!(run(&mut bank, &mut noise, &mut t, 100, &to, B, 500).1, Call::Quiet, "no recovery while it lasts");
            let (panes, call) = run(&mut bank, &mut noise, &mut t, 100, &FEW, B, 300);
            assert!(matches!(call, Call::Recovered { .. }), "{call:?}");
            assert!(panes < 100, "{panes}");
            assert_eq!(run(&mut bank, &mut noise, &mut t, 100, &FEW, B, 500).1, Call::Quiet);
        }
        assert!((bank.share(0).expect("armed") - 0.6).abs() < 0.02, "nothing was learned from the incident");
    }
}

/// A class that swings by a third with the day is normal, and one that swings within its tolerance is no noise: a fault of another is found
/// in it and recovers within hours (it once took more than six), but not while half of it lasts, at no hour of a day.
#[test]
fn a_daily_course_is_normal_and_faults_are_found_in_it() {
    const MINUTE: i64 = 60_000;
    for hour in [0, 6, 13] {
        let mut noise = Noise::new(90 + hour);
        let mut bank = ClassBank::new(ClassSettings { tolerance: 0.2 });
        let mut t = 0;
        let mut feed = |bank: &mut ClassBank, t: &mut i64, moved: f64, injection: f64| {
            let swing = 0.06 * (*t as f64 / 86_400_000.0 * std::f64::consts::TAU).sin();
            *t += MINUTE;
            bank.judge(&pane(&mut noise, 100, &[0.5 - swing - moved, 0.2 + swing, 0.2, 0.1 + moved]), *t - MINUTE, MINUTE, injection).call
        };
        for _ in 0..1_440 {
            feed(&mut bank, &mut t, 0.0, 0.0);
        }
        bank.start_live();
        for _ in 0..2 * 1_440 + 60 * hour {
            assert_eq!(feed(&mut bank, &mut t, 0.0, B), Call::Quiet, "{hour}: minute {}", t / MINUTE);
        }
        let began = t;
        let call = (0..60).map(|_| feed(&mut bank, &mut t, 0.1, B)).find(|call| matches!(call, Call::Alarm { .. }));
        let Some(Call::Alarm { change, .. }) = call else { panic!("{hour}: {call:?}") };
        let found = (t - began) / MINUTE;
        for _ in 0..30 {
            assert_eq!(feed(&mut bank, &mut t, 0.1, B), Call::Quiet, "{hour}: no recovery while it lasts");
        }
        let (mut half, mut later) = (bank.clone(), t);
        for minute in 0..1_440 {
            assert_eq!(feed(&mut half, &mut later, 0.05, B), Call::Quiet, "{hour}: half of it lasts, minute {minute}");
        }
        let back = (1..=240).find(|_| matches!(feed(&mut bank, &mut t, 0.0, B), Call::Recovered { .. }));
        println!("{hour}: found after {found} minutes, back after {back:?}, {change:?}");
        assert!(back.is_some(), "{hour}");
    }
}

#[test]
fn changes_within_tolerance_never_page_even_in_big_panes() {
    for n in [100, 5_000] {
        let mut noise = Noise::new(23);
        let mut bank = ClassBank::new(ClassSettings { tolerance: 0.2 });
        let mut t = 0;
        run(&mut bank, &mut noise, &mut t, n, &FEW, B, 200);
        for _ in 0..800 {
            let (_, call) = run(&mut bank, &mut noise, &mut t, n, &[0.58, 0.25, 0.115, 0.055], B, 1);
            assert!(!matches!(call, Call::Alarm { .. }), "{n}: {call:?}");
        }
    }
}

#[test]
fn sparse_panes_many_names_and_a_copy() {
    let mut noise = Noise::new(24);
    let mut bank = ClassBank::new(ClassSettings { tolerance: 0.2 });
    let mut t = 0;
    run(&mut bank, &mut noise, &mut t, 2, &FEW, B, 12_000);
    assert_eq!(bank.state(), State::Armed, "{:?}", bank.sees(B));
    let mut twin = bank.clone();
    let p = pane(&mut noise, 2, &FEW);
    assert_eq!(twin.judge(&p, t, PANE, B), bank.judge(&p, t, PANE, B));
    assert_eq!(twin, bank);
    assert!(matches!(run(&mut bank, &mut noise, &mut t, 2, &[0.0, 0.2, 0.8], B, 600).1, Call::Alarm { .. }));
    bank.release(Release::NewNormal);
    assert_eq!(run(&mut bank, &mut noise, &mut t, 30, &[0.0, 0.2, 0.8], B, 2_000).1, Call::Quiet);
    assert_eq!(bank.state(), State::Armed);
    let mut crowd = ClassBank::new(ClassSettings { tolerance: 0.2 });
    let everyone: Vec<(u16, u32)> = (0..u16::MAX).map(|c| (c, 1)).collect();
    for k in 0..60 {
        crowd.judge(&everyone, k * PANE, PANE, B);
    }
    assert!(crowd.is_known(65_000));
}

#[test]
fn a_huge_fault_is_found_in_the_least_panes_the_cap_allows() {
    let least = ((1.0f64 / (B * WEIGHT_OF_ANYTHING)).ln() / 3.0).ceil() as usize;
    for n in [1u32, 10, 100, 1_000, 100_000] {
        let merged = (MERGE_EVENTS as usize).div_ceil(n as usize);
        // Large panes are drawn class by class.
        let draw = |noise: &mut Noise, shares: &[f64]| -> Vec<(u16, u32)> {
            if n <= 1_000 {
                return pane(noise, n, shares);
            }
            let all = shares.iter().enumerate().map(|(class, p)| (class as u16, noise.poisson(p * f64::from(n)) as u32));
            all.filter(|k| k.1 > 0).collect()
        };
        // Everything is of a class never seen, of a rare one, and half of it.
        for to in [vec![0.0, 0.0, 0.0, 0.0, 1.0], vec![0.0, 0.0, 0.0, 1.0], vec![0.3, 0.12, 0.05, 0.53]] {
            let mut bank = ClassBank::new(ClassSettings { tolerance: 0.2 });
            let mut noise = Noise::new(u64::from(n));
            let (mut t, mut quiet) = (0, 0);
            while bank.state() != State::Armed || quiet < 20 {
                assert_eq!(bank.judge(&draw(&mut noise, &FEW), t, PANE, B).call, Call::Quiet, "{n}");
                t += PANE;
                quiet += usize::from(bank.state() == State::Armed);
            }
            let mut found = None;
            for i in 1..=60 * merged {
                let call = bank.judge(&draw(&mut noise, &to), t, PANE, B).call;
                t += PANE;
                if matches!(call, Call::Alarm { .. }) {
                    found = Some(i);
                    break;
                }
            }
            let found = found.unwrap_or(usize::MAX);
            assert!(found <= (least + 1) * merged, "{n} {to:?}: {found} panes of {least}");
        }
    }
}

/// The naive twin: beta-binomial by gamma functions, alternatives by their shares.
#[test]
fn a_bet_agrees_with_the_formula_written_out() {
    use super::super::ln_gamma;
    for (p, weight, e, v) in [(0.3, 60_000.0, 4.0, 10.0), (0.01, 60_000.0, 3.0, 100.0), (0.05, 300.0, 30.0, 100.0), (0.2, 1e5, 700.5, 3_000.2)] {
        for r in ODDS {
            let q = moved(p, r);
            let (a, b) = (p * weight, (1.0 - p) * weight);
            let long = e * q.ln() + (v - e) * (1.0 - q).ln()
                - (ln_gamma(a + e) - ln_gamma(a) + ln_gamma(b + v - e) - ln_gamma(b) - ln_gamma(weight + v) + ln_gamma(weight));
            let halves = [(0.5 / p) as f32, (0.5 / (1.0 - p)) as f32];
            let short = e * r.ln() - v * (1.0 - p + p * r).ln() - excess(e, v, halves, weight);
            assert!((long - short).abs() < 0.02, "{p} {weight} {e} {v} {r}: {short} {long}");
        }
    }
}
