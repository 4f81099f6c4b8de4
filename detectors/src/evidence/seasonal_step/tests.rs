//! Cost and traffic: weeks, holidays, clocks, and steps in them.

use super::super::noise::Noise;
use super::*;

const STEP: i64 = 600_000;
/// One page in 1,000 hours.
const B: f64 = 1.0 / 6_000.0;

/// A made-up office: a day, a second harmonic, quiet weekends, AR(1) noise of .6 per interval and 8 %, or heavy tails.
struct Office {
    noise: Noise,
    ar: f64,
    heavy: bool,
    mean: f64,
}

impl Office {
    fn new(seed: u64, heavy: bool) -> Office {
        Office { noise: Noise::new(seed), ar: 0.0, heavy, mean: 1_500.0 }
    }

    fn value(&mut self, at_ms: i64) -> f64 {
        let day = at_ms as f64 / DAY_MS as f64 * std::f64::consts::TAU;
        let weekend = if (at_ms - MONDAY_MS).rem_euclid(WEEK_MS) >= 5 * DAY_MS { 0.6 } else { 1.0 };
        let z = if self.heavy { self.noise.normal() / (self.noise.gamma(2.0)).sqrt() / 2f64.sqrt() } else { self.noise.normal() };
        self.ar = 0.6 * self.ar + 0.064 * z;
        self.mean * weekend * (1.0 - 0.5 * day.cos() + 0.15 * (2.0 * day).sin()) * self.ar.exp()
    }
}

fn learned(office: &mut Office, weeks: i64) -> (SeasonalStepBank, i64) {
    let mut bank = SeasonalStepBank::new(SeasonalSettings::default());
    for i in 0..weeks * 1_008 {
        bank.import(i * STEP, office.value(i * STEP));
    }
    (bank, weeks * 1_008 * STEP)
}

fn run(bank: &mut SeasonalStepBank, office: &mut Office, t: &mut i64, factor: f64, b: f64, intervals: usize) -> (usize, Call) {
    for i in 1..=intervals {
        let r = bank.judge(factor * office.value(*t), *t, b);
        *t += STEP;
        if !matches!(r.call, Call::Quiet) {
            return (i, r.call);
        }
    }
    (intervals, Call::Quiet)
}

#[test]
fn quiet_weeks_stay_within_the_budget() {
    // Injected: 12 x 8 weeks x 1,008 / 6,000 = 16 pages.
    for (heavy, weeks, allowed) in [(false, 8, 8), (false, 2, 8), (true, 4, 16)] {
        let mut pages = 0;
        for seed in 0..12 {
            let mut office = Office::new(100 + seed, heavy);
            let (mut bank, mut t) = learned(&mut office, weeks);
            for _ in 0..8 * 1_008 {
                if let (_, Call::Alarm { .. }) = run(&mut bank, &mut office, &mut t, 1.0, B, 1) {
                    pages += 1;
                    bank.release(Release::FalseAlarm);
                }
            }
            assert_eq!(bank.state(), State::Armed);
        }
        println!("heavy {heavy}, {weeks} weeks learned: {pages} pages of 16 injected");
        assert!(pages <= allowed, "heavy {heavy}, {weeks} weeks: {pages}");
    }
}

#[test]
fn steps_spikes_and_stops_are_found_in_time() {
    for (factor, intervals_max) in [(1.3, 36), (3.0, 6), (0.0, 6), (0.6, 24), (2.0, 9)] {
        let mut delays = Vec::new();
        for seed in 0..12 {
            let mut office = Office::new(200 + seed, false);
            let (mut bank, mut t) = learned(&mut office, 8);
            let lead = 300 + 80 * seed as usize;
            for _ in 0..lead {
                bank.judge(office.value(t), t, 1e-9);
                t += STEP;
            }
            let (n, call) = run(&mut bank, &mut office, &mut t, factor, B, 288);
            assert!(matches!(call, Call::Alarm { .. }), "{factor} {call:?}");
            delays.push(n);
        }
        delays.sort_unstable();
        println!("x{factor}: median {} intervals, worst {}", delays[6], delays[11]);
        assert!(delays[6] <= intervals_max, "x{factor}: {delays:?}");
    }
}

#[test]
fn it_tells_the_size_recovers_and_learns_nothing_from_an_incident() {
    for (factor, seed, recovers_within) in [(1.5, 7, 60), (0.0, 7, 30), (4.0, 7, 30), (1.5, 17, 60), (1.5, 27, 60), (1.35, 37, 100)] {
        let mut office = Office::new(seed, false);
        let (mut bank, mut t) = learned(&mut office, 6);
        for _ in 0..2 {
            let began = t;
            let (_, call) = run(&mut bank, &mut office, &mut t, factor, 1e-8, 200);
            let Call::Alarm { change, onset } = call else { panic!("{factor} {call:?}") };
            assert!((change.after / change.before - factor).abs() < 0.25 * factor.max(0.1), "{change:?}");
            assert!(onset.from_ms <= began && began <= onset.to_ms, "{began} {onset:?}");
            assert_eq!(run(&mut bank, &mut office, &mut t, factor, 1e-8, 1_500).1, Call::Quiet, "no recovery while it lasts");
            let (n, call) = run(&mut bank, &mut office, &mut t, 1.0, 1e-8, 150);
            assert!(matches!(call, Call::Recovered { .. }), "{factor}: {call:?}");
            println!("x{factor}: recovered after {n}");
            assert!(n <= recovers_within, "{factor}: {n}");
            assert_eq!(run(&mut bank, &mut office, &mut t, 1.0, 1e-8, 500).1, Call::Quiet);
        }
    }
}

#[test]
fn a_holiday_and_summer_time_are_life_and_a_stop_on_a_holiday_is_not() {
    for seed in 0..4 {
        let mut office = Office::new(50 + seed, seed % 2 == 1);
        let (mut bank, mut t) = learned(&mut office, 3);
        // The clock goes forward or back on the first Sunday; the Wednesday after the next is a holiday.
        let clock = if seed < 2 { 3_600_000 } else { -3_600_000 };
        // History began on a Thursday.
        let sunday = t + WEEK_MS + 3 * DAY_MS;
        let (changes, holiday) = (sunday + 2 * 3_600_000, sunday + 10 * DAY_MS);
        let mut calls = 0;
        while t < sunday + 21 * DAY_MS {
            let local = if t >= changes { t + clock } else { t };
            let low = (holiday..holiday + DAY_MS).contains(&local);
            let value = office.value(local) * if low { 0.5 } else { 1.0 };
            calls += usize::from(matches!(bank.judge(value, t, B).call, Call::Alarm { .. }));
            t += STEP;
        }
        assert_eq!(calls, 0, "seed {seed}");
        // The last Wednesday is a holiday again, and at noon all falls silent.
        let (again, mut found) = (holiday + 14 * DAY_MS, None);
        while found.is_none() && t < again + DAY_MS {
            let local = t + clock;
            let since_noon = local - again - DAY_MS / 2;
            let value = office.value(local);
            let value = if since_noon >= 0 { 0.0 } else { value * if local >= again { 0.5 } else { 1.0 } };
            if let Call::Alarm { .. } = bank.judge(value, t, B).call {
                found = Some(since_noon / STEP);
            }
            t += STEP;
        }
        assert!(found.is_some_and(|n| (0..6).contains(&n)), "seed {seed}: {found:?}");
    }
}

/// It may be a holiday until that has to be over by the clock; then it is not, and the next night is no excuse.
#[test]
fn a_drop_that_begins_in_the_night_is_found_once_a_low_day_is_over() {
    for (seed, factor) in [(60, 0.7), (61, 0.7), (62, 0.5), (63, 0.5), (64, 0.6), (65, 0.8)] {
        let mut office = Office::new(seed, seed % 2 == 1);
        let (mut bank, mut t) = learned(&mut office, 3);
        // History began on a Thursday; the drop comes in the night before a Tuesday or Wednesday.
        let began = t + 4 * DAY_MS + (seed as i64 % 4) * 9 * HOUR_MS / 2 + 23 * HOUR_MS;
        while t < began {
            assert_eq!(run(&mut bank, &mut office, &mut t, 1.0, B, 1).1, Call::Quiet, "seed {seed}");
        }
        let (n, call) = run(&mut bank, &mut office, &mut t, factor, B, 288);
        let Call::Alarm { change, .. } = call else { panic!("x{factor}, seed {seed}: {call:?}") };
        println!("x{factor}, seed {seed}: {n}");
        assert!(n <= 192, "x{factor}, seed {seed}: {n}");
        assert!((change.after / change.before / factor - 1.0).abs() < 0.25, "{change:?}");
    }
}

/// All but nothing for a day: the odds must not come to the end of the numbers.
#[test]
fn a_very_low_holiday_is_life() {
    for (seed, low) in [(70, 0.4), (71, 0.25), (72, 0.19)] {
        let mut office = Office::new(seed, false);
        let (mut bank, mut t) = learned(&mut office, 3);
        let holiday = t + 6 * DAY_MS;
        while t < holiday + 3 * DAY_MS {
            let factor = if (holiday..holiday + DAY_MS).contains(&t) { low } else { 1.0 };
            let r = bank.judge(factor * office.value(t), t, B);
            assert!(!matches!(r.call, Call::Alarm { .. }), "x{low}, {} h", (t - holiday) / HOUR_MS);
            t += STEP;
        }
    }
}

#[test]
fn a_lasting_change_closed_as_new_normal_is_normal() {
    let mut office = Office::new(8, false);
    let (mut bank, mut t) = learned(&mut office, 6);
    assert!(matches!(run(&mut bank, &mut office, &mut t, 2.0, 1e-8, 50).1, Call::Alarm { .. }));
    run(&mut bank, &mut office, &mut t, 2.0, 1e-8, 100);
    bank.release(Release::NewNormal);
    assert_eq!(run(&mut bank, &mut office, &mut t, 2.0, 1e-8, 2_000).1, Call::Quiet);
    assert!(matches!(run(&mut bank, &mut office, &mut t, 1.0, 1e-8, 50).1, Call::Alarm { .. }));
}

#[test]
fn constants_zeros_gaps_and_repeats_do_no_harm() {
    for law in [0, 1, 2] {
        let mut bank = SeasonalStepBank::new(SeasonalSettings::default());
        let value = |i: i64| match law {
            0 => 0.0,
            1 => 7.0,
            _ => f64::from(u8::from(i % 10 == 0)),
        };
        for i in 0..5 * 1_008 {
            if (2_000..2_050).contains(&i) {
                continue;
            }
            let r = bank.judge(value(i), i * STEP, B);
            bank.judge(99.0, i * STEP, B);
            assert!(matches!(r.call, Call::Quiet) && r.log_evidence.is_finite(), "{law} {i} {r:?}");
        }
        if law == 1 {
            assert_eq!(bank.state(), State::Armed);
            let found = (0..6).any(|i| matches!(bank.judge(0.0, (5 * 1_008 + i) * STEP, B).call, Call::Alarm { .. }));
            assert!(found, "a constant that stops");
        }
    }
}

#[test]
fn a_copy_goes_on_the_same() {
    let mut office = Office::new(9, false);
    let (mut bank, mut t) = learned(&mut office, 4);
    let mut twin = bank.clone();
    for _ in 0..300 {
        let v = office.value(t);
        assert_eq!(twin.judge(v, t, B), bank.judge(v, t, B));
        t += STEP;
    }
}
