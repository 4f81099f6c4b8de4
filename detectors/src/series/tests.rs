//! Quiet laws and planted faults: the quick half of `benches/series.rs`, as a gate.

use super::*;

const ROW_MS: i64 = 300_000;
const WEEK_ROWS: usize = 2016;
/// Rows that nobody counts: the judge has seen next to nothing.
const FROM_ROW: usize = 604;

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

fn day(i: usize) -> f64 {
    (std::f64::consts::TAU * i as f64 / 288.0).sin()
}

/// Daily swing of 20 around 100 with noise of 2.
fn daily(seed: u64, rows: usize) -> Vec<f64> {
    let mut r = Chance(seed);
    (0..rows).map(|i| 100.0 + 20.0 * day(i) + 2.0 * r.normal()).collect()
}

fn judged(values: &[f64]) -> Vec<Judgement> {
    let mut judge = Judge::new(Settings::default());
    values.iter().enumerate().map(|(i, &v)| judge.update(i as i64 * ROW_MS, v)).collect()
}

/// Rows that page, from [`FROM_ROW`] on.
fn pages(values: &[f64]) -> Vec<usize> {
    judged(values).iter().enumerate().filter(|(i, said)| *i >= FROM_ROW && said.pages()).map(|(i, _)| i).collect()
}

/// The first page at or after the fault, as rows after it, and what it said.
#[track_caller]
fn found(values: &[f64], fault: usize, rows_max: usize) -> Judgement {
    let said = judged(values);
    let first = (fault..fault + rows_max).find(|&i| said[i].pages());
    said[first.unwrap_or_else(|| panic!("no page within {rows_max} rows of the fault"))]
}

#[test]
fn quiet_series_page_seldom() {
    type Law = fn(&mut Chance, &mut f64, usize) -> f64;
    let laws: [(&str, Law); 6] = [
        ("normal", |r, _, _| r.normal()),
        ("random walk", |r, x, _| {
            *x += r.normal();
            *x
        }),
        ("AR(1) .99", |r, x, _| {
            *x = 0.99 * *x + 0.14 * r.normal();
            *x
        }),
        ("log-normal", |r, _, _| r.normal().exp()),
        ("daily", |r, _, i| 10.0 * day(i) + r.normal()),
        ("constant", |_, _, _| 42.0),
    ];
    let (seeds, rows) = (4, 8 * WEEK_ROWS);
    let weeks = seeds as f64 * (rows - FROM_ROW) as f64 / WEEK_ROWS as f64;
    let mut sum = 0.0;
    for (name, law) in laws {
        let count: usize = (0..seeds)
            .map(|seed| {
                let (mut r, mut x) = (Chance(1000 + seed), 0.0);
                let values: Vec<f64> = (0..rows).map(|i| law(&mut r, &mut x, i)).collect();
                pages(&values).len()
            })
            .sum();
        let a_week = count as f64 / weeks;
        assert!(a_week <= 1.0, "{name}: {a_week:.2} pages a week");
        sum += a_week / laws.len() as f64;
    }
    assert!(sum <= 0.5, "{sum:.2} pages a week on the mean");
}

#[test]
fn a_spike_pages_at_its_first_row_and_says_why() {
    let mut values = daily(1, 3000);
    values[2500] += 60.0;
    let said = found(&values, 2500, 1);
    assert!(said.score >= 0.5 && said.orders[Voice::Jump as usize] > 2.0 && said.orders[Voice::Level as usize] > 0.0);
    assert!(said.words().contains("jump") && said.words().contains(": "), "{}", said.words());
    assert!(pages(&values).iter().all(|i| *i >= 2500));
}

#[test]
fn a_new_level_pages_and_is_then_known() {
    let mut values = daily(2, 4032);
    values[2500..].iter_mut().for_each(|v| *v -= 40.0);
    assert!(found(&values, 2500, 3).words().contains("below") || found(&values, 2500, 3).words().contains("fall"));
    let after = pages(&values).iter().filter(|i| **i >= 2500).count();
    assert!(after <= 5, "{after} pages of one new level");
}

#[test]
fn a_season_that_stays_away_pages_though_every_value_is_usual() {
    let mut values = daily(3, 4032);
    let mut r = Chance(33);
    // The level of the morning, all day.
    (3000..3288).for_each(|i| values[i] = 100.0 + 2.0 * r.normal());
    let said = found(&values, 3000, 160);
    assert!(said.orders[Voice::Season as usize] != 0.0 || said.orders[Voice::LongSeason as usize] != 0.0, "{}", said.words());
}

#[test]
fn a_frozen_value_pages() {
    let mut values = daily(4, 3000);
    let last = values[2000];
    values[2001..].fill(last);
    let said = found(&values, 2001, 12);
    assert!(said.words().contains("the same value"), "{}", said.words());
}

#[test]
fn a_fault_that_was_called_real_pages_again_and_one_that_was_expected_does_not() {
    let mut values = daily(5, 6000);
    let faults = [2500, 3100, 3700, 4300, 4900];
    for at in faults {
        values[at..at + 30].iter_mut().for_each(|v| *v += 45.0);
    }
    let count = |answer: Answer| {
        let mut judge = Judge::new(Settings::default());
        let mut found = [false; 5];
        for (i, &v) in values.iter().enumerate() {
            let said = judge.update(i as i64 * ROW_MS, v);
            if let Some(page) = said.page {
                assert!(judge.answer(page, answer) && !judge.answer(page, answer), "a page is answered once");
                faults.iter().zip(&mut found).filter(|(at, _)| (**at..**at + 30).contains(&i)).for_each(|(_, found)| *found = true);
            }
        }
        found.iter().filter(|f| **f).count()
    };
    assert_eq!(count(Answer::Real), 5);
    assert!(count(Answer::Expected) < 5, "what stays in the memory is known");
}

#[test]
fn only_pages_that_exist_can_be_answered() {
    let mut judge = Judge::new(Settings::default());
    assert!(!judge.answer(0, Answer::Real) && !judge.answer(1, Answer::Real) && !judge.answer(u64::MAX, Answer::Real));
    judge.pages.count = 100;
    assert!(!judge.answer(36, Answer::Real) && judge.answer(37, Answer::Real) && judge.answer(100, Answer::Expected));
}

#[test]
fn a_mute_ends_after_its_time_though_rows_are_sparse() {
    let hour = 3_600_000;
    let again_after = |hours: i64| {
        let mut judge = Judge::new(Settings::default());
        let mut r = Chance(6);
        for i in 0..1000 {
            assert!(i < FROM_ROW as i64 || !judge.update(i * hour, r.normal()).pages(), "row {i}");
            if i < FROM_ROW as i64 {
                judge.update(i * hour, r.normal());
            }
        }
        assert!(judge.update(1000 * hour, 30.0).pages());
        judge.update((1000 + hours) * hour, -30.0)
    };
    assert!(again_after(47).muted);
    assert!(again_after(49).pages());
}

#[test]
fn the_threshold_is_where_scores_begin_to_page() {
    let mut values = daily(7, 3000);
    (0..12).for_each(|k| values[800 + 180 * k] += 9.0 + 3.0 * k as f64);
    let mut counts = Vec::new();
    for threshold in [0.3, 0.5, 0.6] {
        let mut judge = Judge::new(Settings { threshold, ..Settings::default() });
        let said: Vec<Judgement> = values.iter().enumerate().map(|(i, &v)| judge.update(i as i64 * ROW_MS, v)).collect();
        assert!(said.iter().all(|s| (s.score >= threshold) == s.pages() && (0.0..1.0).contains(&s.score)));
        counts.push(said.iter().filter(|s| s.pages()).count());
    }
    assert!(counts[0] > counts[2], "{counts:?}");
}

#[test]
fn what_is_no_number_changes_nothing_and_no_number_breaks_it() {
    let (mut a, mut b) = (Judge::new(Settings::default()), Judge::new(Settings::default()));
    for (i, v) in daily(8, 500).into_iter().enumerate() {
        a.update(i as i64 * ROW_MS, v);
        b.update(i as i64 * ROW_MS, v);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(b.update(i as i64 * ROW_MS, bad).score, 0.0);
        }
    }
    assert_eq!(a, b);
    for (i, v) in [f64::MAX, f64::MIN, 0.0, f64::MIN_POSITIVE, -0.0, 1e300].into_iter().cycle().take(3000).enumerate() {
        let at_ms = [i64::MAX, i64::MIN, 0][i % 3];
        let said = a.update(at_ms, v);
        assert!((0.0..1.0).contains(&said.score) && said.evidence.is_finite(), "{v}: {said:?}");
    }
}

/// The evidence does not depend on the unit, on where zero lies, or on which way is up (but for the two one-sided aspects, which
/// measure sizes of steps).
#[test]
fn unit_zero_and_sign_do_not_matter() {
    let mut values = daily(9, 3000);
    values[2500] += 60.0;
    let base = judged(&values);
    for (what, other) in [
        ("unit", values.iter().map(|v| v * 1024.0).collect::<Vec<_>>()),
        ("zero", values.iter().map(|v| v + 65_536.0).collect()),
        ("sign", values.iter().map(|v| -v).collect()),
    ] {
        let said = judged(&other);
        let far = base.iter().zip(&said).filter(|(a, b)| (a.score - b.score).abs() > 0.01).count();
        assert!(far <= 3, "{what}: {far} rows");
        assert_eq!(base.iter().position(|s| s.pages()), said.iter().position(|s| s.pages()), "{what}");
    }
}

#[test]
fn a_judge_is_small_whatever_it_has_seen() {
    assert!(size_of::<Judge>() <= 5_600, "{} bytes", size_of::<Judge>());
}
