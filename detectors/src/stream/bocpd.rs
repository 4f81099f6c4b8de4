//! BOCPD: how long has the present regime lasted, and with what probability?
//!
//! **Idea.** Keep every run length r ("the last change was r values ago") as a hypothesis with a weight. Each predicts the next
//! value from its own r values; good prophets gain weight, and at every value each has a chance `hazard` of ending. **Formula.**
//! w(r + 1) = w(r) p(x | r) (1 - h), w(0) = h sum w(r) p(x | r), normalised. The prophets: `bocpd` a normal with unknown mean and
//! variance (normal-gamma prior, Student-t predictive), `bocpd_bernoulli` an unknown rate (beta prior), `bocpd_normal` a normal with
//! known variance. **Alarm** when the probability that the run is younger than the whole series, by at least `settle` values,
//! exceeds `certainty`; `since` says where the most probable run began. **Memory** is bounded: beyond `runs` hypotheses the one
//! with the least weight is forgotten. **Sees** changes of level and of spread of any sign; needs a prior in the unit of the data.
//! **Source**: Adams and MacKay 2007. frouros alarms whenever the most probable run is not the whole series: `settle` 0 with
//! `certainty` 0.5 differs from that only where no run has a majority; its run lengths themselves are compared in the golden test.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs};
use super::{Detector, Kind, Stream, Takes, Verdict};
use crate::evidence::ln_gamma;

const HAZARD: Knob = Knob::real("hazard", 0.01, 1e-12, 0.5, "chance that the regime ends at any one value");
const CERTAINTY: Knob = Knob::real("certainty", 0.5, 0.0, 1.0, "probability of a younger regime at which it alarms");
const SETTLE: Knob = Knob::whole("settle", 10.0, 0.0, 10_000.0, "a regime counts as old while it began within so many values of the start");
const RUNS: Knob = Knob::whole("runs", 300.0, 10.0, 10_000.0, "hypotheses kept");

pub const KIND: Kind = Kind {
    name: "bocpd",
    about: "Bayesian run length, normal values of unknown mean and variance; changes of level and spread",
    takes: Takes::Values,
    knobs: &[
        HAZARD,
        CERTAINTY,
        SETTLE,
        RUNS,
        Knob::real("mean", 0.0, -1e12, 1e12, "prior mean"),
        Knob::real("kappa", 1.0, 1e-12, 1e12, "values that the prior mean is worth"),
        Knob::real("alpha", 1.0, 1e-12, 1e12, "half the values that the prior variance is worth"),
        Knob::real("beta", 1.0, 1e-300, 1e300, "prior variance times alpha"),
    ],
    build: |k| Ok(started(Prior::NormalGamma { mean: k.get("mean"), kappa: k.get("kappa"), alpha: k.get("alpha"), beta: k.get("beta") }, k)),
};

pub const KIND_BERNOULLI: Kind = Kind {
    name: "bocpd_bernoulli",
    about: "Bayesian run length, errors of an unknown rate; rises and falls of the error rate",
    takes: Takes::Errors,
    knobs: &[
        HAZARD,
        CERTAINTY,
        SETTLE,
        RUNS,
        Knob::real("alpha", 1.0, 1e-12, 1e12, "errors that the prior is worth"),
        Knob::real("beta", 1.0, 1e-12, 1e12, "values without error that the prior is worth"),
    ],
    build: |k| Ok(started(Prior::Bernoulli { alpha: k.get("alpha"), beta: k.get("beta") }, k)),
};

pub const KIND_NORMAL: Kind = Kind {
    name: "bocpd_normal",
    about: "Bayesian run length, normal values of known variance; changes of level",
    takes: Takes::Values,
    knobs: &[
        HAZARD,
        CERTAINTY,
        SETTLE,
        RUNS,
        Knob::real("mean", 0.0, -1e12, 1e12, "prior mean"),
        Knob::real("variance_of_mean", 1.0, 1e-300, 1e300, "prior variance of the mean"),
        Knob::real("variance", 1.0, 1e-300, 1e300, "variance of the values, known"),
    ],
    build: |k| {
        let prior = Prior::Normal { mean: k.get("mean"), precision: 1.0 / k.get("variance_of_mean"), variance: k.get("variance") };
        Ok(started(prior, k))
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Prior {
    NormalGamma { mean: f64, kappa: f64, alpha: f64, beta: f64 },
    Bernoulli { alpha: f64, beta: f64 },
    Normal { mean: f64, precision: f64, variance: f64 },
}

/// One hypothesis: where its run began, its log weight, and what it learned. `learned` is (mean, beta) for the normal-gamma, (sum)
/// for the others; the counts follow from the length of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Run {
    start: u64,
    log_weight: f64,
    learned: [f64; 2],
    /// ln Gamma(alpha + 1/2) - ln Gamma(alpha) of the normal-gamma, carried along: half steps of a gamma ratio need no new logarithms
    /// of gammas.
    gamma_ratio: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bocpd {
    prior: Prior,
    log_hazard: f64,
    log_stays: f64,
    certainty: f64,
    settle: u64,
    runs_max: usize,
    n: u64,
    /// Oldest first.
    runs: Vec<Run>,
}

fn started(prior: Prior, k: &Knobs) -> Detector {
    let mut test = Bocpd {
        prior,
        log_hazard: k.get("hazard").ln(),
        log_stays: (1.0 - k.get("hazard")).ln(),
        certainty: k.get("certainty"),
        settle: k.get("settle") as u64,
        runs_max: k.count("runs"),
        n: 0,
        runs: Vec::with_capacity(k.count("runs") + 1),
    };
    test.reset();
    Detector::Bocpd(test)
}

// === impl Bocpd ===

impl Bocpd {
    /// Probability that the regime is younger than the series.
    fn younger(&self) -> f64 {
        self.runs.iter().filter(|r| r.start > self.settle).map(|r| r.log_weight.exp()).sum()
    }

    /// Index (values since building or reset) at which the present regime most probably began: among the younger ones where they
    /// have the say, else among all.
    pub fn since(&self) -> u64 {
        let after = if self.younger() > self.certainty { self.settle + 1 } else { 0 };
        let old_enough = self.runs.iter().filter(|r| r.start >= after);
        old_enough.fold((f64::NEG_INFINITY, 0), |best, r| if r.log_weight > best.0 { (r.log_weight, r.start) } else { best }).1
    }

    /// Probability of each run by its start, oldest first.
    pub fn weights(&self) -> impl Iterator<Item = (u64, f64)> + '_ {
        self.runs.iter().map(|r| (r.start, r.log_weight.exp()))
    }

    fn unborn(&self, start: u64, log_weight: f64) -> Run {
        let (learned, gamma_ratio) = match self.prior {
            Prior::NormalGamma { mean, alpha, beta, .. } => ([mean, beta], ln_gamma(alpha + 0.5) - ln_gamma(alpha)),
            Prior::Bernoulli { .. } => ([0.0, 0.0], 0.0),
            Prior::Normal { mean, .. } => ([mean, 0.0], 0.0),
        };
        Run { start, log_weight, learned, gamma_ratio }
    }
}

impl Run {
    /// Log probability of x under this run, which then learns it.
    fn foresee_and_learn(&mut self, prior: &Prior, n: f64, x: f64) -> f64 {
        match *prior {
            Prior::NormalGamma { kappa, alpha, .. } => {
                let (kappa, alpha) = (kappa + n, alpha + 0.5 * n);
                let [mean, beta] = self.learned;
                let off = x - mean;
                // Student-t of 2 alpha degrees and squared scale beta (kappa + 1) / (alpha kappa).
                let spread = 2.0 * beta * (kappa + 1.0) / kappa;
                let log_p = self.gamma_ratio - 0.5 * (std::f64::consts::PI * spread).ln() - (alpha + 0.5) * (off * off / spread).ln_1p();
                self.learned = [mean + off / (kappa + 1.0), beta + kappa * off * off / (2.0 * (kappa + 1.0))];
                // Gamma(a + 1) / Gamma(a + 1/2) = a / (Gamma(a + 1/2) / Gamma(a)).
                self.gamma_ratio = alpha.ln() - self.gamma_ratio;
                log_p
            }
            Prior::Bernoulli { alpha, beta } => {
                let errors = self.learned[0];
                let (a, b) = (alpha + errors, beta + n - errors);
                self.learned[0] += x;
                let p = (a * x + b * (1.0 - x)) / (a + b);
                p.ln()
            }
            Prior::Normal { precision, variance, .. } => {
                let precision = precision + n / variance;
                let mean = self.learned[0];
                let spread = 1.0 / precision + variance;
                let off = x - mean;
                self.learned[0] = (mean * precision + x / variance) / (precision + 1.0 / variance);
                -0.5 * (off * off / spread + (std::f64::consts::TAU * spread).ln())
            }
        }
    }
}

impl Stream for Bocpd {
    fn update(&mut self, x: f64) -> Verdict {
        let x = if matches!(self.prior, Prior::Bernoulli { .. }) { x.clamp(0.0, 1.0) } else { x };
        let mut largest = f64::NEG_INFINITY;
        for run in &mut self.runs {
            run.log_weight += run.foresee_and_learn(&self.prior, (self.n - run.start) as f64, x);
            largest = largest.max(run.log_weight);
        }
        self.n += 1;
        let evidence = largest + self.runs.iter().map(|r| (r.log_weight - largest).exp()).sum::<f64>().ln();
        for run in &mut self.runs {
            run.log_weight += self.log_stays - evidence;
        }
        self.runs.push(self.unborn(self.n, self.log_hazard));
        if self.runs.len() > self.runs_max {
            // The newest has not yet spoken and the oldest is what a change is measured against.
            let candidates = 1..self.runs.len() - 1;
            let least = candidates.fold(1, |least, i| if self.runs[i].log_weight < self.runs[least].log_weight { i } else { least });
            self.runs.remove(least);
        }
        let younger = self.younger();
        Verdict::drift_if(younger > self.certainty && self.n > self.settle + 1, younger, self.certainty)
    }

    fn reset(&mut self) {
        self.n = 0;
        self.runs.clear();
        self.runs.push(self.unborn(0, 0.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::noise::Noise;
    use crate::stream::{Signal, build};

    #[test]
    fn the_normal_gamma_run_agrees_with_the_marginal_likelihood_in_closed_form() {
        let prior = Prior::NormalGamma { mean: 0.3, kappa: 0.7, alpha: 1.3, beta: 2.1 };
        let mut noise = Noise::new(2);
        let xs: Vec<f64> = (0..200).map(|_| noise.normal() * 2.0 + 1.0).collect();
        let Detector::Bocpd(test) = started(prior, &Knobs::of(KIND.knobs, &[]).expect("defaults")) else { panic!("bocpd") };
        let mut run = test.unborn(0, 0.0);
        run.learned = [0.3, 2.1];
        let sum: f64 = xs.iter().enumerate().map(|(i, x)| run.foresee_and_learn(&prior, i as f64, *x)).sum();
        let n = xs.len() as f64;
        let mean = xs.iter().sum::<f64>() / n;
        let squares: f64 = xs.iter().map(|x| (x - mean) * (x - mean)).sum();
        let beta = 2.1 + 0.5 * squares + 0.5 * 0.7 * n * (mean - 0.3) * (mean - 0.3) / (0.7 + n);
        let alpha = 1.3 + 0.5 * n;
        let closed = ln_gamma(alpha) - ln_gamma(1.3) + 1.3 * 2.1f64.ln() - alpha * beta.ln() + 0.5 * (0.7f64 / (0.7 + n)).ln()
            - 0.5 * n * std::f64::consts::TAU.ln();
        assert!((sum - closed).abs() < 1e-8, "{sum} {closed}");
    }

    #[test]
    fn it_says_where_the_rate_rose() {
        let mut test = build("bocpd_bernoulli", &[("hazard", 0.002)]).expect("built");
        let mut noise = Noise::new(11);
        let alarm = (0..1_000).position(|i| test.update(f64::from(u8::from(noise.unit() < if i < 500 { 0.1 } else { 0.5 }))).signal == Signal::Drift);
        let Detector::Bocpd(test) = test else { panic!("bocpd") };
        let alarm = alarm.expect("a rise of five times is seen");
        assert!((500..560).contains(&alarm), "{alarm}");
        assert!(test.since().abs_diff(500) <= 10, "{}", test.since());
    }
}
