//! Handing out beforehand what evidence would waste beyond the threshold.
//!
//! **Idea.** A page comes when the sum of evidence S reaches 1, and is paid for as if it had come at 1: what a pane carries it beyond
//! is lost, and a bank that promises a false alarm in a million events makes one in two or three. So just before a pane everything at
//! stake is multiplied by the largest b that keeps the mean of min(b S, 1) under the null at what was at stake. It changes nothing
//! while evidence is small, which is nearly always, and lets a change be found some panes earlier. **Proven**: with Z the evidence
//! plus the pages minus all that was injected, a page removes at least 1 and adds 1, so Z may be taken with S cut off at 1 in the
//! pane of the page, and then it is a supermartingale for any b chosen before the pane for which that mean is kept; the bound on the
//! expected number of false pages is the same as without. Of several statistics one is looked at, of the bets with the most at stake;
//! the others count as if none of theirs ever went beyond, which only makes b smaller. **Measured**: tails of sums of scores are told
//! by a saddle point. What the *cap* of a pane takes from a bet on counts is given back too, in small panes: each bet is multiplied by the constant for
//! which the null's mean of what is left is 1 again. **Paper**: Fischer and Ramdas, Improving Wald's (approximate) sequential probability ratio test by avoiding
//! overshoot (arXiv 2410.16076), there for one bet and one test.

use super::{NATS_PER_PANE_MAX, exp, ln, normal_cdf};

/// Nothing can go far beyond the threshold from below this, in units of it.
const AT_STAKE_MIN: f64 = 0.02;
/// The same in nats.
pub const LN_AT_STAKE_MIN: f64 = -3.912_023_005_428_146;
/// The most that is ever handed out in one pane: data are burstier than any model.
const LIFT_MAX: f64 = 2.0;
/// Events of a pane beside the weight of the baseline, up to which a baseline is as good as known.
const YOUNG: f64 = 1.0 / 200.0;
/// Rounds towards the largest b; each is valid by itself.
const ROUNDS: usize = 4;
/// Counts that are gone through one by one; beyond, they are as good as continuous.
const COUNTS_MAX: usize = 192;
const BETS_MAX: usize = 6;
/// Events of a pane up to which it is told what its cap takes: beyond, a large change goes beyond it in nearly every pane, and finds it so soon
/// that it does not matter.
pub const GIVEN_BACK_EVENTS_MAX: f64 = 32.0;
/// The most that is given back.
const GIVEN_BACK_MAX: f64 = 1.15;
const GIVEN_BACK_ROUNDS: usize = 2;

/// Bets on one statistic T of a pane: bet j gains exp(tilt_j T) divided by its mean under the null. All tilts have one sign.
pub struct Family<'a> {
    pub tilts: &'a [f64],
    /// Evidence held and what is injected, in units of the threshold.
    pub stakes: &'a [f64],
    /// What all other bets have at stake.
    pub others: f64,
}

/// Is there enough at stake for anything to go beyond the threshold, and is the null known? `events` are those of the pane, `weight`
/// those of the baseline.
pub fn worth_asking(at_stake: f64, events: f64, weight: f64) -> bool {
    (AT_STAKE_MIN..1.0).contains(&at_stake) && events <= weight * YOUNG
}

/// What there is to multiply by where panes are this much noisier than independent events: all of it at 1, nothing from where the cap of a
/// pane begins to count.
pub fn tempered(lift: f64, nats_per_pane: f64) -> f64 {
    1.0 + (lift - 1.0) * (nats_per_pane / NATS_PER_PANE_MAX - 1.0).clamp(0.0, 1.0)
}

/// What the cap of a pane takes from a bet on k of n, given back: ln of a c for which the mean of min(c L, e^cap) under the null is at most 1, and
/// nearly that. `p`: the rate of the null, `q`: that of the bet.
pub fn given_back(n: u32, p: f64, q: f64, nats_per_pane: f64) -> f64 {
    let cap = exp(nats_per_pane);
    let nf = f64::from(n);
    let (odds_p, odds_q) = (p / (1.0 - p), q / (1.0 - q));
    let (none_p, none_q) = (exp(nf * ln(1.0 - p)), exp(nf * ln(1.0 - q)));
    let mut c = 1.0;
    for _ in 0..GIVEN_BACK_ROUNDS {
        // The mean is concave in c, so that c over the mean is valid again.
        let (mut of_p, mut of_q, mut mean) = (none_p, none_q, 0.0);
        for k in 0..=n {
            mean += (c * of_q).min(cap * of_p);
            let more = f64::from(n - k) / f64::from(k + 1);
            (of_p, of_q) = (of_p * odds_p * more, of_q * odds_q * more);
        }
        c /= mean.max(1.0 / GIVEN_BACK_MAX);
    }
    ln(c.clamp(1.0, GIVEN_BACK_MAX))
}

impl Family<'_> {
    fn at_stake(&self) -> f64 {
        self.stakes.iter().sum()
    }

    /// The largest multiple, from what is seen below a threshold: `below` gives the null's probability of S < 1 / b and the mean of S there.
    fn largest(&self, below: impl Fn(f64) -> Option<(f64, f64)>) -> f64 {
        let all = self.at_stake() + self.others;
        let mut lift = 1.0;
        for _ in 0..ROUNDS {
            let Some((probability, mean)) = below(1.0 / lift) else {
                break;
            };
            let next = (all - (1.0 - probability)) / (mean + self.others).max(1e-300);
            if next.is_nan() || next <= lift * 1.001 {
                break;
            }
            if next >= LIFT_MAX {
                return LIFT_MAX;
            }
            lift = next;
        }
        lift
    }

    /// T is a number of hits among `n` independent events, each with probability `p`; tilts are logarithms of odds ratios.
    pub fn lift_of_counts(&self, n: f64, p: f64) -> f64 {
        // A fall of hits is a rise of misses.
        let (p, sign) = if self.tilts[0] < 0.0 { (1.0 - p, -1.0) } else { (p, 1.0) };
        let n = n.round();
        let bets = self.tilts.len().min(BETS_MAX);
        let (mut odds, mut first) = ([0.0; BETS_MAX], [0.0; BETS_MAX]);
        for j in 0..bets {
            odds[j] = exp(sign * self.tilts[j]);
            first[j] = self.stakes[j] * exp(-n * ln(1.0 - p + p * odds[j]));
        }
        let none = n * ln(1.0 - p);
        if n * p > COUNTS_MAX as f64 / 3.0 || none < -600.0 {
            let scores = [0.0, 1.0];
            return self.lift_of_scores(n, &[1.0 - p, p], &scores.map(|s| s * sign));
        }
        let ratio = p / (1.0 - p);
        self.largest(|threshold| {
            let (mut terms, mut chance, mut probability, mut mean) = (first, exp(none), 0.0, 0.0);
            for k in 0..COUNTS_MAX.min(n as usize + 1) {
                let sum: f64 = terms[..bets].iter().sum();
                if sum >= threshold {
                    return Some((probability, mean));
                }
                probability += chance;
                mean += chance * sum;
                chance *= (n - k as f64) / (k as f64 + 1.0) * ratio;
                terms.iter_mut().zip(&odds).for_each(|(term, odds)| *term *= odds);
            }
            // Nothing that a pane of so many events can show reaches it.
            None
        })
    }

    /// T is the sum of the scores of `n` independent events, a score for each of the `shares`.
    pub fn lift_of_scores(&self, n: f64, shares: &[f64], scores: &[f64]) -> f64 {
        let sign = self.tilts[0].signum();
        let law = Tilted { shares, scores, sign };
        let bets = self.tilts.len().min(BETS_MAX);
        let (mut tilts, mut norms) = ([0.0; BETS_MAX], [0.0; BETS_MAX]);
        for j in 0..bets {
            tilts[j] = self.tilts[j].abs();
            norms[j] = law.cumulants(tilts[j])[0];
        }
        let ln_stakes: [f64; BETS_MAX] = std::array::from_fn(|j| if j < bets { ln(self.stakes[j].max(1e-300)) } else { 0.0 });
        // ln S at T, and how fast it grows.
        let evidence = |t: f64| {
            let (mut sum, mut slope) = (0.0, 0.0);
            for j in 0..bets {
                let term = exp(ln_stakes[j] + tilts[j] * t - n * norms[j]);
                sum += term;
                slope += tilts[j] * term;
            }
            (ln(sum.max(1e-300)), slope / sum.max(1e-300))
        };
        self.largest(|threshold| {
            let wanted = ln(threshold);
            // S is a sum of exponentials: Newton's method on its logarithm, from beyond, comes down to the root.
            let mut t = (0..bets).map(|j| (wanted - ln_stakes[j] + n * norms[j]) / tilts[j]).fold(f64::INFINITY, f64::min);
            for _ in 0..8 {
                let (value, slope) = evidence(t);
                t -= (value - wanted) / slope;
                if (value - wanted).abs() < 1e-6 {
                    break;
                }
            }
            let at = law.saddle(t / n, tilts[0])?;
            let probability = law.below(n, t / n, at, 0.0);
            let mean = (0..bets).map(|j| self.stakes[j] * law.below(n, t / n, at, tilts[j])).sum();
            Some((probability, mean))
        })
    }
}

/// The law of one score and its tilts.
struct Tilted<'a> {
    shares: &'a [f64],
    scores: &'a [f64],
    sign: f64,
}

impl Tilted<'_> {
    /// ln of the mean of exp(tilt score), and its first three derivatives.
    fn cumulants(&self, tilt: f64) -> [f64; 4] {
        let mut m = [0.0; 4];
        for (share, score) in self.shares.iter().zip(self.scores) {
            let s = self.sign * score;
            let w = share * exp(tilt * s);
            m[0] += w;
            m[1] += w * s;
            m[2] += w * s * s;
            m[3] += w * s * s * s;
        }
        let [mean, square, cube] = [m[1] / m[0], m[2] / m[0], m[3] / m[0]];
        [ln(m[0]), mean, square - mean * mean, cube - 3.0 * mean * square + 2.0 * mean * mean * mean]
    }

    /// The tilt under which the mean score is `x`, with its cumulants; `None` where hardly any tilt gets there.
    fn saddle(&self, x: f64, from: f64) -> Option<(f64, [f64; 4])> {
        const TILT_MAX: f64 = 30.0;
        let mut tilt = from;
        for _ in 0..24 {
            let at = self.cumulants(tilt);
            let step = (x - at[1]) / at[2].max(1e-9);
            if step.abs() < 1e-6 {
                return Some((tilt, at));
            }
            tilt += step.clamp(-2.0, 2.0);
            if tilt.abs() > TILT_MAX {
                return None;
            }
        }
        None
    }

    /// Probability that the mean of n scores lies below `x`, when each is drawn under a tilt (Lugannani and Rice 1980).
    fn below(&self, n: f64, x: f64, (saddle, at): (f64, [f64; 4]), tilt: f64) -> f64 {
        let by = saddle - tilt;
        let log = if tilt == 0.0 { 0.0 } else { self.cumulants(tilt)[0] };
        let w = by.signum() * (2.0 * n * (by * x - (at[0] - log)).max(0.0)).sqrt();
        if w.abs() < 0.01 {
            return 0.5 + at[3] / (6.0 * (std::f64::consts::TAU * n).sqrt() * at[2].powf(1.5));
        }
        let u = by * (n * at[2]).sqrt();
        let density = 0.398_942_280_401_432_7 * exp(-0.5 * w * w);
        (normal_cdf(w) + density * (1.0 / w - 1.0 / u)).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
pub mod promise {
    /// How much of its promise a bank uses on quiet data: `bank` makes one of a seed, which learns `learned` panes and is then given
    /// `SPENT` for each of the others. It judges pane i with what it may spend, and answers whether that was an alarm, after which it begins anew.
    pub fn used<B: FnMut(i64, f64) -> bool>(seeds: u64, learned: i64, panes: i64, bank: impl Fn(u64) -> B) -> f64 {
        const SPENT: f64 = 1e-4;
        let mut alarms = 0.0;
        for seed in 0..seeds {
            let mut alarmed = bank(seed);
            for i in 0..panes {
                alarms += f64::from(u8::from(alarmed(i, if i < learned { 0.0 } else { SPENT })));
            }
        }
        alarms / (seeds as f64 * (panes - learned) as f64 * SPENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of min(b S, 1) over what was at stake, all outcomes gone through.
    fn spent(outcomes: &[(f64, f64)], family: &Family<'_>, norms: &[f64], lift: f64) -> f64 {
        let mut mean = 0.0;
        for (t, probability) in outcomes {
            let s: f64 = family.tilts.iter().zip(family.stakes).zip(norms).map(|((tilt, stake), norm)| stake * (tilt * t - norm).exp()).sum();
            mean += probability * (lift * s).min(1.0);
        }
        (mean + lift * family.others) / (family.at_stake() + family.others)
    }

    fn binomial(n: usize, p: f64) -> Vec<(f64, f64)> {
        let mut chance = (n as f64 * (1.0 - p).ln()).exp();
        (0..=n)
            .map(|k| {
                let now = chance;
                chance *= (n - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
                (k as f64, now)
            })
            .collect()
    }

    /// All sums of n scores that are multiples of a hundredth.
    fn sums(n: usize, shares: &[f64], scores: &[f64]) -> Vec<(f64, f64)> {
        let low = scores.iter().fold(f64::INFINITY, |m, s| m.min(*s));
        let steps: Vec<usize> = scores.iter().map(|s| ((s - low) * 100.0).round() as usize).collect();
        let mut law = vec![1.0];
        for _ in 0..n {
            let mut next = vec![0.0; law.len() + steps.iter().max().unwrap()];
            for (i, p) in law.iter().enumerate() {
                for (step, share) in steps.iter().zip(shares) {
                    next[i + step] += p * share;
                }
            }
            law = next;
        }
        law.into_iter().enumerate().map(|(i, p)| (n as f64 * low + i as f64 / 100.0, p)).collect()
    }

    #[test]
    fn what_the_cap_takes_is_given_back_and_no_more() {
        for (n, p, r) in [(10, 0.05, 5.5), (10, 0.05, 14.0), (10, 0.01, 5.5), (32, 0.05, 3.4), (1, 0.3, 14.0), (20, 0.5, 1.0 / 5.5)] {
            let q = p * r / (1.0 - p + p * r);
            let mean = |nats: f64| -> f64 {
                let ways = |k: u32| (0..k).map(|i| f64::from(n - i) / f64::from(i + 1)).product::<f64>();
                let of = |rate: f64, k: u32| ways(k) * rate.powi(k as i32) * (1.0 - rate).powi((n - k) as i32);
                (0..=n).map(|k| of(p, k) * (of(q, k) / of(p, k) * nats.exp()).min(6f64.exp())).sum()
            };
            let nats = given_back(n, p, q, 6.0);
            assert!(nats >= 0.0 && mean(nats) <= 1.0 + 1e-6, "{n} {p} {r}: {nats} makes {}", mean(nats));
            assert!(nats > 0.13 || mean(nats) > 0.98, "{n} {p} {r}: {nats} leaves {}", 1.0 - mean(nats));
            println!("{n} {p} {r:.2}: {nats:.4}, mean {:.4} instead of {:.4}", mean(nats), mean(0.0));
        }
    }

    #[test]
    fn nothing_more_is_handed_out_than_counts_would_waste() {
        let tilts = [1.35f64, 2.156, 3.443, 5.5, 8.77, 14.0].map(f64::ln);
        for (n, p) in [(10, 0.001), (10, 0.01), (10, 0.05), (10, 0.6), (100, 0.001), (100, 0.05), (1_000, 0.001), (1_000, 0.3)] {
            for stakes in [[0.02, 0.3, 0.1, 0.02, 0.01, 0.0], [0.0, 0.0, 0.1, 0.5, 0.1, 0.02], [0.6, 0.2, 0.0, 0.0, 0.0, 0.0], [0.004; 6]] {
                for others in [0.0, 0.05] {
                    for (sign, q) in [(1.0, p), (-1.0, 1.0 - p)] {
                        let tilts = tilts.map(|t| sign * t);
                        let norms = tilts.map(|t| n as f64 * (1.0 - q + q * t.exp()).ln());
                        let family = Family { tilts: &tilts, stakes: &stakes, others };
                        let lift = family.lift_of_counts(n as f64, q);
                        let outcomes = binomial(n, p);
                        let outcomes: Vec<(f64, f64)> =
                            if sign > 0.0 { outcomes } else { outcomes.iter().map(|(k, c)| (n as f64 - k, *c)).collect() };
                        let spent = spent(&outcomes, &family, &norms, lift);
                        println!("{n} {p} {stakes:?} {others} {sign}: {lift:.4} {spent:.5}");
                        assert!(spent <= 1.002, "{n} {p} {stakes:?} {others}: lifted by {lift}, {spent} of the stake");
                        assert!(lift >= 1.0);
                        if lift < LIFT_MAX && others == 0.0 {
                            assert!(spent > 0.95, "{n} {p} {stakes:?} {others}: lifted by {lift}, {spent} of the stake");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_more_is_handed_out_than_scores_would_waste() {
        let shares = [0.01, 0.04, 0.05, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.05, 0.02, 0.02, 0.005, 0.005];
        let scores = [-2.66, -1.92, -1.45, -1.05, -0.68, -0.39, -0.13, 0.13, 0.39, 0.68, 1.05, 1.45, 1.84, 2.15, 2.5, 2.9];
        let tilts = [0.1, 0.2, 0.4, 0.8, 1.6];
        for n in [10, 25, 60] {
            let outcomes = sums(n, &shares, &scores);
            for sign in [1.0, -1.0] {
                for stakes in [[0.02, 0.3, 0.1, 0.02, 0.01], [0.0, 0.0, 0.1, 0.5, 0.1], [0.6, 0.2, 0.0, 0.0, 0.0], [0.004; 5]] {
                    for others in [0.0, 0.05] {
                        let tilts = tilts.map(|t| sign * t);
                        let norms = tilts.map(|t: f64| n as f64 * shares.iter().zip(&scores).map(|(p, s)| p * (t * s).exp()).sum::<f64>().ln());
                        let family = Family { tilts: &tilts, stakes: &stakes, others };
                        let lift = family.lift_of_scores(n as f64, &shares, &scores);
                        let spent = spent(&outcomes, &family, &norms, lift);
                        println!("{n} {stakes:?} {others} {sign}: {lift:.4} {spent:.5}");
                        assert!(spent <= 1.005, "{n} {stakes:?} {others}: lifted by {lift}, {spent} of the stake");
                        assert!(lift >= 1.0);
                    }
                }
            }
        }
    }
}
