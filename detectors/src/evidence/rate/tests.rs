//! Rates: what is quiet, what is found, told and over.

use super::super::noise::Noise;
use super::*;

const PANE: i64 = 10_000;
const B: f64 = 4e-9;

fn errors() -> RateSettings {
    RateSettings { direction: Direction::Up, tolerance: 0.2, at_least: 0.0 }
}

/// Feeds panes of n events at rate p until the bank calls something; returns panes used and the call.
fn run(bank: &mut RateBank, noise: &mut Noise, t: &mut i64, n: u32, p: f64, injection: f64, panes_max: usize) -> (usize, Call) {
    for i in 1..=panes_max {
        let hits = f64::from(noise.binomial(n, p));
        let r = bank.judge(CountPane { hits, total: f64::from(n) }, *t, PANE, injection);
        *t += PANE;
        if !matches!(r.call, Call::Quiet) {
            return (i, r.call);
        }
    }
    (panes_max, Call::Quiet)
}

#[test]
fn quiet_series_stay_within_the_budget() {
    let mut pages = 0;
    let mut noise = Noise::new(7);
    let (series, panes) = (300, 1_500);
    for (i, p) in [0.001, 0.01, 0.05].iter().cycle().take(series).enumerate() {
        let mut bank = RateBank::new(errors());
        let mut t = 0;
        for _ in 0..[20, 200, 2_000][i % 3] {
            bank.learn_only(CountPane { hits: f64::from(noise.binomial(100, *p)), total: 100.0 }, t, PANE);
            t += PANE;
        }
        let (_, call) = run(&mut bank, &mut noise, &mut t, 100, *p, 10.0 / (series * panes) as f64, panes);
        pages += usize::from(matches!(call, Call::Alarm { .. }));
    }
    assert!(pages <= 10, "{pages} false pages of 10 allowed");
}

#[test]
fn over_dispersed_errors_stay_within_the_budget() {
    let mut noise = Noise::new(8);
    let mut pages = 0;
    for _ in 0..40 {
        let mut bank = RateBank::new(errors());
        for i in 0..6_000 {
            let p = (0.05 * (0.35 * noise.normal()).exp()).min(0.5);
            let pane = CountPane { hits: f64::from(noise.binomial(200, p)), total: 200.0 };
            let b = if i < 1_000 { 0.0 } else { 10.0 / (40.0 * 5_000.0) };
            pages += usize::from(matches!(bank.judge(pane, i * PANE, PANE, b).call, Call::Alarm { .. }));
        }
    }
    assert!(pages <= 10, "{pages} of 10");
}

#[test]
fn a_huge_fault_is_found_in_the_least_panes_the_cap_allows() {
    for n in [1u32, 10, 30, 100, 1_000, 100_000] {
        // Panes of fewer than ten events are merged to ten.
        let merged = (MERGE_EVENTS as usize).div_ceil(n as usize);
        let learned = if n < 30 { 40_000 / n as usize } else { 400_000 / n as usize + 60 };
        for (p, to) in [(0.0, 0.3), (0.0, 1.0), (0.01, 1.0), (0.05, 0.6)] {
            let mut bank = RateBank::new(RateSettings { at_least: 0.002, ..errors() });
            let mut noise = Noise::new(u64::from(n));
            let mut t = 0;
            let (_, call) = run(&mut bank, &mut noise, &mut t, n, p, B, learned);
            assert_eq!(call, Call::Quiet, "{n} {p}");
            assert_eq!(bank.state(), State::Armed, "{n} {p} {:?}", bank.sees(B));
            let (panes, call) = run(&mut bank, &mut noise, &mut t, n, to, B, 50 * merged);
            assert!(matches!(call, Call::Alarm { .. }), "{n} {p} -> {to}: {call:?}");
            // Ten events of which 30 or 60 % fail do not always fill the cap.
            assert!(panes <= if n < 30 && to < 1.0 { 14 } else { 9 } * merged, "{n} {p} -> {to}: {panes} panes");
        }
    }
}

#[test]
fn where_bursts_made_panes_longer_a_longer_burst_does_not_page_and_what_lasts_does() {
    for seed in 0..20 {
        let mut bank = RateBank::new(errors());
        let mut noise = Noise::new(500 + seed);
        let mut t = 0;
        assert_eq!(run(&mut bank, &mut noise, &mut t, 100, 0.01, B, 3_000).1, Call::Quiet);
        assert!(bank.climb.lengthen(t));
        assert_eq!(run(&mut bank, &mut noise, &mut t, 100, 0.01, B, 600).1, Call::Quiet);
        let mut burst = bank.clone();
        assert_eq!(run(&mut burst, &mut noise, &mut t.clone(), 100, 0.04, B, 40).1, Call::Quiet, "a burst of 40 panes");
        let (panes, call) = run(&mut bank, &mut noise, &mut t, 100, 0.2, B, 200);
        assert!(matches!(call, Call::Alarm { .. }) && (50..=114).contains(&panes), "{panes} panes, {call:?}");
    }
}

#[test]
fn it_recovers_by_evidence_and_sees_the_same_fault_again() {
    let mut bank = RateBank::new(errors());
    let mut noise = Noise::new(3);
    let mut t = 0;
    run(&mut bank, &mut noise, &mut t, 300, 0.01, B, 1_000);
    for _ in 0..2 {
        let (panes, call) = run(&mut bank, &mut noise, &mut t, 300, 0.12, B, 60);
        let Call::Alarm { change, onset } = call else { panic!("{call:?} after {panes}") };
        // At the alarm a size is a little too large: it is why the alarm came then.
        assert!((0.1..0.15).contains(&change.after) && change.low < 0.125 && 0.12 < change.high, "{change:?}");
        let began = t - panes as i64 * PANE;
        assert!(onset.from_ms <= began && began <= onset.to_ms, "{began} {onset:?}");
        let (_, call) = run(&mut bank, &mut noise, &mut t, 300, 0.12, B, 2_000);
        assert_eq!(call, Call::Quiet, "no recovery while it lasts, and no second alarm");
        let (panes, call) = run(&mut bank, &mut noise, &mut t, 300, 0.01, B, 600);
        assert!(matches!(call, Call::Recovered { .. }), "{call:?}");
        assert!(panes < 150, "{panes}");
        let (_, call) = run(&mut bank, &mut noise, &mut t, 300, 0.01, B, 2_000);
        assert_eq!(call, Call::Quiet);
        let band = bank.baseline().expect("learned");
        assert!((band.value - 0.01).abs() < 0.002, "nothing was learned from the incident: {band:?}");
    }
}

/// What evidence would waste beyond the threshold is handed out, and no more: without, half of the promise was used.
#[test]
fn most_of_what_is_promised_is_used_and_no_more() {
    let used = overshoot::promise::used(20, 20_000, 170_000, |seed| {
        let mut bank = RateBank::new(RateSettings { direction: Direction::Up, tolerance: 0.0, at_least: 0.0 });
        let mut noise = Noise::new(7_100 + seed);
        move |i, spent| {
            let pane = CountPane { hits: f64::from(noise.binomial(10, 0.05)), total: 10.0 };
            let alarmed = matches!(bank.judge(pane, i * PANE, PANE, spent).call, Call::Alarm { .. });
            if alarmed {
                bank.release(Release::Fixed);
            }
            alarmed
        }
    });
    assert!((0.6..1.1).contains(&used), "{used} of the promise used");
}

/// It was learned for two days before it grew and was found: to fall back to it is no recovery.
#[test]
fn a_fault_that_was_learned_for_days_is_not_healthy() {
    let mut noise = Noise::new(19);
    let mut bank = RateBank::new(errors());
    let mut t = 0;
    run(&mut bank, &mut noise, &mut t, 100, 0.002, 1e-30, 3_000);
    assert_eq!(run(&mut bank, &mut noise, &mut t, 100, 0.0036, 1e-30, 20_000).1, Call::Quiet, "nothing may be spent");
    assert!(bank.baseline().is_some_and(|b| b.value > 0.003), "learned: {:?}", bank.baseline());
    assert!(matches!(run(&mut bank, &mut noise, &mut t, 100, 0.03, B, 300).1, Call::Alarm { .. }));
    assert_eq!(run(&mut bank, &mut noise, &mut t, 100, 0.0036, B, 8_640).1, Call::Quiet);
    assert!(matches!(run(&mut bank, &mut noise, &mut t, 100, 0.002, B, 8_640).1, Call::Recovered { .. }));
}

#[test]
fn a_change_within_tolerance_never_pages() {
    let mut noise = Noise::new(5);
    let mut bank = RateBank::new(errors());
    let mut t = 0;
    run(&mut bank, &mut noise, &mut t, 500, 0.05, B, 2_000);
    for _ in 0..10 {
        let (_, call) = run(&mut bank, &mut noise, &mut t, 500, 0.057, B, 500);
        assert!(!matches!(call, Call::Alarm { .. }), "{call:?}");
    }
}

#[test]
fn sparse_panes_are_merged_and_still_see_a_fault() {
    let mut noise = Noise::new(6);
    let mut bank = RateBank::new(RateSettings { at_least: 0.005, ..errors() });
    let mut t = 0;
    run(&mut bank, &mut noise, &mut t, 1, 0.01, B, 60_000);
    assert_eq!(bank.state(), State::Armed);
    let (_, call) = run(&mut bank, &mut noise, &mut t, 1, 0.5, B, 2_000);
    assert!(matches!(call, Call::Alarm { .. }));
}

#[test]
fn new_normal_starts_the_baseline_anew() {
    let mut noise = Noise::new(9);
    let mut bank = RateBank::new(errors());
    let mut t = 0;
    run(&mut bank, &mut noise, &mut t, 300, 0.01, B, 1_000);
    assert!(matches!(run(&mut bank, &mut noise, &mut t, 300, 0.1, B, 60).1, Call::Alarm { .. }));
    run(&mut bank, &mut noise, &mut t, 300, 0.1, B, 500);
    bank.release(Release::NewNormal);
    let (_, call) = run(&mut bank, &mut noise, &mut t, 300, 0.1, B, 2_000);
    assert_eq!(call, Call::Quiet);
    assert!((bank.baseline().expect("learned").value - 0.1).abs() < 0.01);
}

/// Panes of two seconds with 100 to 300 events, half an hour of baseline: what a demo shows.
#[test]
fn short_panes_page_within_half_a_minute_and_recover_within_two() {
    let second_panes = |seconds: usize| seconds / 2;
    for (usual, fault, at_least) in [(0.01, 0.12, 0.005), (0.001, 0.06, 0.002), (0.0, 0.06, 0.002)] {
        let mut pages = Vec::new();
        for seed in 0..10 {
            let mut bank = RateBank::new(RateSettings { at_least, ..errors() });
            let mut noise = Noise::new(300 + seed);
            let mut t = 0;
            let mut feed = |bank: &mut RateBank, p: f64, panes: usize| -> (usize, Call) {
                for i in 1..=panes {
                    let n = 100 + (noise.unit() * 200.0) as u32;
                    let hits = f64::from(noise.binomial(n, p));
                    let r = bank.judge(CountPane { hits, total: f64::from(n) }, t, 2_000, 1e-8);
                    t += 2_000;
                    if !matches!(r.call, Call::Quiet) {
                        return (i, r.call);
                    }
                }
                (panes, Call::Quiet)
            };
            assert_eq!(feed(&mut bank, usual, second_panes(1_800)).1, Call::Quiet);
            assert_eq!(bank.state(), State::Armed, "{usual}: {:?}", bank.sees(1e-8));
            assert_eq!(feed(&mut bank, usual, second_panes(7_200)).1, Call::Quiet, "two quiet hours");
            for _ in 0..2 {
                let (panes, call) = feed(&mut bank, fault, second_panes(60));
                assert!(matches!(call, Call::Alarm { .. }) && panes <= second_panes(30), "{usual} -> {fault}: {panes} panes, {call:?}");
                let (back, call) = {
                    feed(&mut bank, fault, second_panes(120));
                    feed(&mut bank, usual, second_panes(600))
                };
                assert!(matches!(call, Call::Recovered { .. }), "{usual} -> {fault}: {call:?}");
                pages.push((panes, back));
                assert!(back <= second_panes(120), "{usual} -> {fault}: recovered after {back} panes");
            }
        }
        println!("{usual} -> {fault}: (panes to page, to recover) {pages:?}");
    }
}

/// Six incidents of 45 panes with a pause between, that end by evidence, by a person's word while they last, or after them; all in a day.
#[test]
fn the_same_fault_is_found_as_often_as_it_comes() {
    for (usual, fault, n, panes, pause) in
        [(0.02, 0.4, 40, 45, 500), (0.02, 0.4, 40, 45, 1_500), (0.02, 0.1, 40, 90, 500), (0.01, 0.05, 200, 60, 700), (0.05, 0.1, 300, 90, 900)]
    {
        for how in [None, Some(panes / 2), Some(panes)] {
            let mut bank = RateBank::new(RateSettings { at_least: 0.005, ..errors() });
            let mut noise = Noise::new(41 + u64::from(n));
            let mut t = 0;
            let mut pane = |bank: &mut RateBank, p: f64| {
                let hits = f64::from(noise.binomial(n, p));
                t += 2_000;
                bank.judge(CountPane { hits, total: f64::from(n) }, t, 2_000, 1e-8)
            };
            for _ in 0..750 {
                pane(&mut bank, usual);
            }
            assert_eq!(bank.state(), State::Armed);
            let mut found = Vec::new();
            for _ in 0..8 {
                let mut at = None;
                for i in 0..panes {
                    if matches!(pane(&mut bank, fault).call, Call::Alarm { .. }) {
                        at = at.or(Some(i));
                    }
                    if how == Some(i) {
                        bank.release(Release::Fixed);
                    }
                }
                if how == Some(panes) {
                    bank.release(Release::Fixed);
                }
                found.push(at);
                for _ in 0..pause {
                    pane(&mut bank, usual);
                }
                // Where a pause is too short for it to be shown that all is well, a person says so.
                bank.release(Release::Fixed);
            }
            let slowest = found.iter().map(|f| f.unwrap_or(usize::MAX)).max().unwrap_or(0);
            println!("{usual} -> {fault}, {n} {how:?}: {found:?} {:?} {:?}", bank.baseline(), bank.ladder.phi());
            assert!(slowest < panes, "{usual} -> {fault}, {n} events, {how:?}: {found:?}");
            let level = bank.baseline().map_or(0.0, |b| b.value);
            assert!((level / usual - 1.0).abs() < 0.1, "{usual} -> {fault}: learned {level}");
            assert!(bank.ladder.phi() < 1.2 && bank.within.rho < 0.002, "noise {} {}", bank.ladder.phi(), bank.within.rho);
        }
    }
}

/// Twenty errors suffice for a fivefold rise, and it is not learned before it is found.
#[test]
fn a_young_baseline_sees_large_faults_before_it_sees_a_doubling() {
    for seed in 0..20 {
        let mut bank = RateBank::new(errors());
        let mut noise = Noise::new(500 + seed);
        let mut t = 0;
        run(&mut bank, &mut noise, &mut t, 100, 0.001, 0.0, 400);
        run(&mut bank, &mut noise, &mut t, 100, 0.001, B, 5);
        let sees = bank.sees(B);
        assert!(!sees.armed && sees.needs_events > 50_000.0, "{sees:?}");
        if bank.state() != State::Armed {
            // Luck gave it too few errors.
            assert!(bank.k < 30.0, "{}", bank.k);
            continue;
        }
        assert!(bank.seen_factor(B).is_some_and(|factor| (3.0..=5.0).contains(&factor)), "{:?}", bank.seen_factor(B));
        let (panes, call) = run(&mut bank, &mut noise, &mut t, 100, 0.008, B, 200);
        assert!(matches!(call, Call::Alarm { .. }), "{seed}: {call:?} after {panes}");
    }
}

/// Of twenty errors a doubling can show little more than half of what a page takes, if all of it is learned.
#[test]
fn most_doublings_of_a_young_baseline_are_found() {
    let found_of_40 = |tolerance: f64, p: f64| {
        let mut noise = Noise::new(70_001);
        let found = |_: &u32| {
            let mut bank = RateBank::new(RateSettings { tolerance, ..errors() });
            let mut t = 0;
            run(&mut bank, &mut noise, &mut t, 10, p, 0.0, 1_000);
            run(&mut bank, &mut noise, &mut t, 10, p, 1e-5, 1_000);
            matches!(run(&mut bank, &mut noise, &mut t, 10, 2.0 * p, 1e-5, 15_000).1, Call::Alarm { .. })
        };
        let found = (0..40).filter(found).count();
        println!("{tolerance} {p}: {found} of 40");
        found
    };
    assert!(found_of_40(0.0, 0.001) >= 36);
    assert!(found_of_40(0.2, 0.001) >= 34);
    assert!(found_of_40(0.2, 0.01) >= 39);
}

#[test]
fn what_was_held_under_evidence_is_learned_once_it_has_gone_down_and_never_of_an_incident() {
    let mut bank = RateBank::new(RateSettings { tolerance: 0.0, ..errors() });
    let mut noise = Noise::new(70_002);
    let mut t = 0;
    run(&mut bank, &mut noise, &mut t, 10, 0.001, 0.0, 2_000);
    let learned = bank.m;
    let held = |bank: &RateBank| bank.live.as_ref().map_or(0.0, |live| live.held.total);
    for hits in [1.0, 1.0, 1.0, 0.0] {
        bank.judge(CountPane { hits, total: 10.0 }, t, PANE, 1e-5);
        t += PANE;
    }
    assert!(held(&bank) > 0.0, "three errors in thirty events are evidence");
    assert!((bank.m + held(&bank) - learned - 40.0).abs() < 0.5, "{} and {} of {learned} and 40", bank.m, held(&bank));
    let before = bank.m + held(&bank);
    let (panes, call) = run(&mut bank, &mut noise, &mut t, 10, 0.0, 1e-5, 300);
    assert_eq!(call, Call::Quiet);
    assert_eq!(held(&bank), 0.0);
    // Within what fades meanwhile.
    assert!((bank.m - before - 10.0 * panes as f64).abs() < 0.002 * bank.m, "{} of {before}", bank.m);
    let before = bank.k / bank.m;
    assert!(matches!(run(&mut bank, &mut noise, &mut t, 10, 0.2, 1e-5, 100).1, Call::Alarm { .. }));
    assert!((bank.k / bank.m / before - 1.0).abs() < 0.15, "{} of {before}", bank.k / bank.m);
    assert_eq!(held(&bank), 0.0);
}

/// A course of the day or of the week is normal, and is no noise: a doubling in it takes about as long as without one, but on series that went to
/// longer panes (up to 36, of which a page takes four) before the course was known.
#[test]
fn courses_are_learned_and_doublings_in_them_are_found_soon() {
    let day = 8_640i64;
    let turn = |i: i64, phase: f64| i as f64 / day as f64 + 7.0 * phase;
    let daily = |i: i64, phase: f64| 0.05 * (1.0 + 0.3 * (turn(i, phase) * std::f64::consts::TAU).sin());
    let weekly = |i: i64, phase: f64| if turn(i, phase) % 7.0 >= 5.0 { 0.07 } else { 0.05 };
    let courses: [(&str, &dyn Fn(i64, f64) -> f64, i64, i64); 2] = [("day", &daily, 3 * day, 25), ("week", &weekly, 22 * day, 100)];
    for (name, rate, learned, half_by) in courses {
        let mut found = Vec::new();
        for seed in 0..12u64 {
            let mut noise = Noise::new(700 + seed);
            let phase = (seed as f64 + 0.5) / 12.0;
            let mut bank = RateBank::new(errors());
            let mut pane = |i: i64, factor: f64| CountPane { hits: f64::from(noise.binomial(100, factor * rate(i, phase))), total: 100.0 };
            for i in 0..learned {
                bank.learn_only(pane(i, 1.0), i * PANE, PANE);
            }
            bank.start_live();
            for i in learned..learned + day {
                assert_eq!(bank.judge(pane(i, 1.0), i * PANE, PANE, 1e-6).call, Call::Quiet, "{name} {seed}: pane {}", i - learned);
            }
            let begin = learned + day;
            let at = (begin..begin + 1_000).find(|i| matches!(bank.judge(pane(*i, 2.0), i * PANE, PANE, 1e-6).call, Call::Alarm { .. }));
            found.push(at.map_or(1_000, |at| at - begin + 1));
        }
        found.sort_unstable();
        println!("{name}: panes to a doubling {found:?}");
        assert!(found[6] <= half_by && found[11] < 1_000, "{name}: {found:?}");
    }
}

/// However much an event is divided by, no alternative may gain on the mean while nothing changes.
#[test]
fn parts_of_events_are_no_evidence() {
    for (p, weight) in [(0.05, 20_000.0), (0.001, 100_000.0)] {
        let mut noise = Noise::new(6);
        let mut bank = RateBank::new(errors());
        bank.import(p * weight, weight);
        for phi in [1.0, 5.0, 50.0, 500.0] {
            let ladder = Ladder { phi, ..Ladder::default() };
            let bets = bank.bets(&Within::default(), &ladder);
            let mut gains = [0.0; ARMS];
            for _ in 0..20_000 {
                let pane = CountPane { hits: f64::from(noise.binomial(100, p)), total: 100.0 };
                for (gain, l) in gains.iter_mut().zip(bets.likelihoods(Direction::Up, pane, phi)) {
                    *gain += l / 20_000.0;
                }
            }
            println!("{p} {phi}: {gains:?}");
            assert!(gains.iter().all(|gain| *gain < 0.0), "{p} {phi}: {gains:?}");
        }
    }
}
