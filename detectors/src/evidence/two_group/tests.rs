//! Two groups: what is quiet, what is found, and what is not enough to tell.

use super::super::noise::Noise;
use super::*;

const PANE: i64 = 600_000;
const B: f64 = 1e-6;

/// Two groups in two segments; the level has a day and a walk of its own, and so have the shares of groups and segments.
struct Office {
    noise: Noise,
    level: f64,
    share: f64,
    mix: f64,
    events: f64,
    base: f64,
}

impl Office {
    fn new(seed: u64, events: f64, base: f64) -> Office {
        let mut noise = Noise::new(seed);
        noise.unit();
        Office { noise, level: 0.0, share: 0.0, mix: 0.0, events, base }
    }

    fn pane(&mut self, at_ms: i64, ratio: f64, rho: f64) -> [Stratum; 2] {
        self.level = 0.98 * self.level + 0.06 * self.noise.normal();
        self.share = 0.99 * self.share + 0.15 * self.noise.normal();
        self.mix = 0.99 * self.mix + 0.15 * self.noise.normal();
        let day = (at_ms as f64 / 86_400_000.0 * std::f64::consts::TAU).sin();
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        let mut out = [[CountPane { hits: 0.0, total: 0.0 }; GROUPS_MAX]; 2];
        for (segment, stratum) in out.iter_mut().enumerate() {
            let p = logistic((self.base / (1.0 - self.base)).ln() + self.level + 0.5 * day + if segment == 0 { -0.6 } else { 0.6 });
            for (group, count) in stratum.iter_mut().enumerate().take(2) {
                let own = logistic(self.share) * if group == 0 { 1.0 } else { -1.0 } + f64::from(u8::from(group == 1));
                // The segments of the two groups drift apart.
                let here = logistic(self.mix * if group == 0 { 1.0 } else { -1.0 });
                let share = own * if segment == 0 { here } else { 1.0 - here };
                let n = self.noise.poisson(self.events * share);
                let mut q = if group == 0 { ratio * p } else { p };
                if rho > 0.0 {
                    let (a, b) = (q * (1.0 / rho - 1.0), (1.0 - q) * (1.0 / rho - 1.0));
                    let (x, y) = (a * self.noise.gamma(a), b * self.noise.gamma(b));
                    q = x / (x + y);
                }
                *count = CountPane { hits: f64::from(self.noise.binomial(n as u32, q)), total: n };
            }
        }
        out
    }
}

fn run(bank: &mut TwoGroupBank, office: &mut Office, t: &mut i64, ratio: f64, b: f64, panes: usize) -> (usize, Call) {
    for i in 1..=panes {
        let r = bank.judge(&office.pane(*t, ratio, 0.0), *t, PANE, b);
        *t += PANE;
        if !matches!(r.call, Call::Quiet) {
            return (i, r.call);
        }
    }
    (panes, Call::Quiet)
}

#[test]
fn a_projection_is_the_least_divergent_point_of_the_null() {
    for (ql, qh, nl, nh, edge) in [(0.3, 0.5, 10.0, 10.0, 0.8), (0.05, 0.1, 3.0, 100.0, 0.8), (0.6, 0.95, 40.0, 7.0, 0.8), (0.9, 0.6, 5.0, 5.0, 1.1)]
    {
        let of = |p: f64| {
            let d = |q: f64, p: f64| q * (q / p).ln() + (1.0 - q) * ((1.0 - q) / (1.0 - p)).ln();
            nl * d(ql, edge * p) + nh * d(qh, p)
        };
        let best = projection(ql, qh, nl, nh, edge);
        let grid = (1..9_999).map(|i| f64::from(i) / 10_000.0).filter(|p| edge * p < 1.0).min_by(|a, b| of(*a).total_cmp(&of(*b))).unwrap();
        assert!((best - grid).abs() < 2e-4, "{best} {grid}");
    }
}

/// The bet's expectation, summed over all outcomes, is at most 1 everywhere in the null, for every level and size.
#[test]
fn a_bet_is_fair_at_every_point_of_the_null() {
    let choose = |n: u32, k: u32| {
        (super::super::ln_gamma(f64::from(n) + 1.0) - super::super::ln_gamma(f64::from(k) + 1.0) - super::super::ln_gamma(f64::from(n - k) + 1.0))
            .exp()
    };
    for (nl, nh) in [(1u32, 1u32), (3, 1), (2, 9), (12, 12)] {
        for (r, qh) in [(0.76, 0.5), (0.3, 0.9), (0.56, 0.1)] {
            let (ql, p) = (r * qh, projection(r * qh, qh, f64::from(nl), f64::from(nh), 0.8));
            for truth in [0.01, 0.1, 0.3, 0.5, 0.8, 0.99] {
                for ratio in [0.8, 0.9, 1.0] {
                    let (tl, th) = (ratio * truth, truth);
                    let mut expectation = 0.0;
                    for x in 0..=nl {
                        for y in 0..=nh {
                            let law = |n: u32, k: u32, t: f64| choose(n, k) * t.powi(k as i32) * (1.0 - t).powi((n - k) as i32);
                            let bet = |n: u32, k: u32, q: f64, p: f64| (q / p).powi(k as i32) * ((1.0 - q) / (1.0 - p)).powi((n - k) as i32);
                            expectation += law(nl, x, tl) * law(nh, y, th) * bet(nl, x, ql, 0.8 * p) * bet(nh, y, qh, p);
                        }
                    }
                    assert!(expectation <= 1.0 + 1e-9, "{nl} {nh} {r} {qh} at {truth} {ratio}: {expectation}");
                }
            }
        }
    }
}

#[test]
fn quiet_pairs_stay_within_the_budget_at_parity_and_at_the_edge() {
    for (ratio, rho) in [(1.0, 0.0), (1.0, 0.03), (0.8, 0.0), (0.8, 0.03)] {
        let mut pages = 0;
        let (pairs, panes) = (60, 400);
        for seed in 0..pairs {
            let events = 5.0 * 20f64.powf(seed as f64 / pairs as f64);
            let mut office = Office::new(900 + seed, events, [0.1, 0.3, 0.5][seed as usize % 3]);
            let mut bank = TwoGroupBank::new(TwoGroupSettings::default());
            for i in 0..panes {
                let at = i * PANE;
                if let Call::Alarm { .. } = bank.judge(&office.pane(at, ratio, rho), at, PANE, 6.0 / (pairs * panes as u64) as f64).call {
                    pages += 1;
                    break;
                }
            }
        }
        println!("ratio {ratio}, rho {rho}: {pages} pages of 6");
        assert!(pages <= 6, "ratio {ratio}, rho {rho}: {pages}");
    }
}

#[test]
fn a_violation_is_found_told_and_recovers() {
    for outcome in [Outcome::Favourable, Outcome::Adverse] {
        let mut covered = 0;
        for seed in 0..6 {
            let mut office = Office::new(70 + seed, 250.0, if outcome == Outcome::Favourable { 0.4 } else { 0.2 });
            let mut bank = TwoGroupBank::new(TwoGroupSettings { outcome, ..TwoGroupSettings::default() });
            let mut t = 0;
            let bad = if outcome == Outcome::Favourable { 0.6 } else { 1.0 / 0.6 };
            assert_eq!(run(&mut bank, &mut office, &mut t, 1.0, B, 600).1, Call::Quiet);
            assert!(matches!(bank.fairness(0), Some(Fairness::FairSoFar { .. })), "{:?}", bank.fairness(0));
            let began = t;
            let (panes, call) = run(&mut bank, &mut office, &mut t, bad, B, 200);
            let Call::Alarm { change, onset } = call else { panic!("{call:?}") };
            assert!(panes <= 120 && bank.named() == Some((0, 1)), "{panes} {:?}", bank.named());
            assert!(change.after < 0.75 && (0.9..1.1).contains(&change.before), "{change:?}");
            covered += usize::from(change.low <= 0.6 && 0.6 <= change.high && onset.from_ms <= began && began <= onset.to_ms);
            assert_eq!(run(&mut bank, &mut office, &mut t, bad, B, 600).1, Call::Quiet, "no recovery while it lasts");
            let Some(Fairness::Violated { ratio, .. }) = bank.fairness(0) else { panic!("{:?}", bank.fairness(0)) };
            assert!((ratio - 0.6).abs() < 0.05, "{ratio}");
            let (back, call) = run(&mut bank, &mut office, &mut t, 1.0, B, 600);
            assert!(matches!(call, Call::Recovered { .. }), "{call:?}");
            println!("{outcome:?}: found after {panes} panes, recovered after {back}; {change:?}");
            assert!(back <= 150, "{back}");
            assert_eq!(run(&mut bank, &mut office, &mut t, 1.0, B, 600).1, Call::Quiet);
        }
        assert!(covered >= 4, "{covered} of 6 intervals hold both size and onset");
    }
}

#[test]
fn small_groups_are_never_called_fair() {
    for seed in 0..50 {
        let mut office = Office::new(300 + seed, 0.1, 0.5);
        let mut bank = TwoGroupBank::new(TwoGroupSettings::default());
        let mut t = 0;
        assert_eq!(run(&mut bank, &mut office, &mut t, 1.0, B, 500).1, Call::Quiet);
        for group in [0, 1] {
            assert!(matches!(bank.fairness(group), None | Some(Fairness::NotEnoughEvidence { .. })), "{:?}", bank.fairness(group));
        }
        assert!(!bank.sees(B).armed);
    }
}

/// Three groups, of which one is served worse; and a group whose usual ratio is low but does not change.
#[test]
fn the_group_that_is_worse_off_is_named_and_a_usual_gap_may_be_accepted() {
    let pane = |noise: &mut Noise, ratios: [f64; 3], level: f64| {
        let mut stratum = [CountPane { hits: 0.0, total: 0.0 }; GROUPS_MAX];
        for (count, ratio) in stratum.iter_mut().zip(ratios) {
            *count = CountPane { hits: f64::from(noise.binomial(60, ratio * level)), total: 60.0 };
        }
        [stratum]
    };
    let mut noise = Noise::new(5);
    let mut bank = TwoGroupBank::new(TwoGroupSettings::default());
    let mut own = TwoGroupBank::new(TwoGroupSettings { against: Against::OwnBaseline, ..TwoGroupSettings::default() });
    let mut named = None;
    for i in 0..600 {
        let p = pane(&mut noise, [1.0, 0.65, 0.95], 0.5 + 0.2 * (f64::from(i) / 30.0).sin());
        let at = i64::from(i) * PANE;
        if let Call::Alarm { .. } = bank.judge(&p, at, PANE, B).call {
            named = bank.named();
        }
        assert_eq!(own.judge(&p, at, PANE, B).call, Call::Quiet);
    }
    assert_eq!(named, Some((1, 0)));
    let found = (600..700).find(|i| {
        let p = pane(&mut noise, [1.0, 0.4, 0.95], 0.5);
        matches!(own.judge(&p, i * PANE, PANE, B).call, Call::Alarm { .. })
    });
    assert!(found.is_some_and(|i| i < 660), "{found:?}");
}

#[test]
fn a_copy_goes_on_the_same_and_nonsense_is_ignored() {
    let mut office = Office::new(9, 40.0, 0.3);
    let mut bank = TwoGroupBank::new(TwoGroupSettings::default());
    let mut t = 0;
    run(&mut bank, &mut office, &mut t, 0.9, B, 200);
    let mut twin = bank.clone();
    let mut pane = office.pane(t, 0.9, 0.0);
    pane[0][5] = CountPane { hits: f64::NAN, total: 3.0 };
    pane[1][5] = CountPane { hits: 9.0, total: f64::INFINITY };
    let reading = bank.judge(&pane, t, PANE, B);
    assert_eq!(twin.judge(&pane, t, PANE, B), reading);
    assert!(reading.log_evidence.is_finite() && bank.fairness(5).is_none());
}
