//! The bets on a pane of k of n: what each alternative gains against the edge of tolerance.

use serde::{Deserialize, Serialize};

use super::{CountPane, Direction, Live, RateBank, Within};
use crate::evidence::mixture::{LANES, lanes_of};
use crate::evidence::{Ladder, apart, excess_rising, ln, ln_near, ln_rising, ln_rising_of_half, nats_per_pane_max, overshoot};

const ODDS: [f64; 6] = [1.35, 2.156, 3.443, 5.5, 8.77, 14.0];
/// Their logarithms.
const LN_ODDS: [f64; 6] = [
    0.300_104_592_450_338_16,
    0.768_254_653_046_750_8,
    1.236_343_184_356_386_8,
    1.704_748_092_238_425_3,
    2.171_336_806_384_091_7,
    2.639_057_329_615_258_4,
];
pub(super) const ARMS: usize = ODDS.len() + 1;
/// Parts of the injection. A small change is found with few nats beyond what any detector needs, a large one with more to spare, so
/// small ones get the greater part: every change then pays about the same share of its delay for not being known.
const WEIGHTS: [f64; ARMS] = [0.15, 0.31, 0.17, 0.20, 0.08, 0.04, 0.05];
/// The same for lanes; what reaches everything comes after the odds.
pub(super) const SHARES: [[f32; LANES]; 1] = lanes_of(&WEIGHTS);
const LN_PI: f64 = 1.144_729_885_849_400_2;
/// Bets are made anew after so many panes, or when the baseline has grown by this part.
const REFRESH_PANES: u8 = 32;
const REFRESH_GROWTH: f64 = 1.0 / 256.0;
/// Part by which an edge of tolerance may move before it is told anew what the cap takes.
const SAME_EDGE: f32 = 0.02;

/// Null and alternatives as of the last refresh: what is the same for a number of panes is computed once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[repr(C)]
pub(super) struct Bets {
    /// The weight of the baseline at which the refresh is due, and panes until it is due anyway; 0 is stale.
    pub(super) refresh_at: f64,
    pub(super) panes: u8,
    /// Events of the smallest pane since, and from which on the bets know what the cap takes from them.
    pub(super) least: f32,
    pub(super) given_back_from: f32,
    pub(super) phi: f32,
    pub(super) rho: f32,
    /// The edge of tolerance, the beta law of the predictive there and what divides by it.
    pub(super) p: f32,
    a: f32,
    b: f32,
    per_a: f32,
    per_b: f32,
    per_ab: f32,
    /// ln of the edge and of what it leaves, and what an event is given too little where panes are noisy (`apart`).
    ln_p: f32,
    ln_left: f32,
    apart: f32,
    /// Nats of a hit and of a miss beside the edge, of each alternative with odds.
    of_hit: [f32; LANES],
    of_miss: [f32; LANES],
}

/// What the cap of a pane of so many events takes from each alternative, in nats, at an edge of tolerance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct GivenBack {
    events: f32,
    p: f32,
    cap: f32,
    nats: [f32; ODDS.len()],
}

// === impl RateBank, Live ===

impl RateBank {
    /// Null and alternatives from the quiet counts.
    pub(super) fn bets(&self, within: &Within, ladder: &Ladder) -> Bets {
        let p = self.edge(self.at_hour((self.k + 0.5) / (self.m + 1.0), self.level(), 1.0));
        let phi = ladder.phi();
        // Tolerance divides the exposure: evidence counts only beyond it.
        let weight = (self.m + 1.0) / (phi * (1.0 + self.settings.tolerance));
        let (a, b) = (p * weight, (1.0 - p) * weight);
        let lanes = |of: fn(f64, f64) -> f64| -> [f32; LANES] {
            std::array::from_fn(|j| {
                let Some(r) = ODDS.get(j) else { return 0.0 };
                let r = if self.settings.direction == Direction::Up { *r } else { 1.0 / r };
                // Odds of p, over what they leave.
                of(r, 1.0 - p + p * r) as f32
            })
        };
        Bets {
            panes: REFRESH_PANES,
            least: f32::INFINITY,
            given_back_from: 0.0,
            refresh_at: self.m * (1.0 + REFRESH_GROWTH),
            phi: phi as f32,
            rho: within.rho,
            p: p as f32,
            a: a as f32,
            b: b as f32,
            per_a: (1.0 / a) as f32,
            per_b: (1.0 / b) as f32,
            per_ab: (1.0 / (a + b)) as f32,
            ln_p: ln(p) as f32,
            ln_left: ln(1.0 - p) as f32,
            apart: apart(1.0, 1.0, phi, a + b) as f32,
            of_hit: lanes(|r, over| ln(r / over)),
            of_miss: lanes(|_, over| -ln(over)),
        }
    }
}

impl Live {
    /// What evidence may be multiplied by before a pane of so many events.
    pub(super) fn handed_out(&self, direction: Direction, events: f64, injection: f64) -> f64 {
        let stakes: [f64; ARMS] = self.evidence.at_stake(0, &WEIGHTS, injection);
        if !overshoot::worth_asking(stakes.iter().sum(), events, f64::from(self.bets.a + self.bets.b)) {
            return 1.0;
        }
        let tilts = if direction == Direction::Up { LN_ODDS } else { LN_ODDS.map(|tilt| -tilt) };
        let [known @ .., anything] = stakes;
        overshoot::Family { tilts: &tilts, stakes: &known, others: anything }.lift_of_counts(events, f64::from(self.bets.p))
    }

    /// Gives back to the bets what the cap takes from them in panes of so many events, spread over these: of a larger pane it takes more.
    pub(super) fn give_back(&mut self, direction: Direction, events: f64) {
        let bets = &mut self.bets;
        let dispersion = (1.0 + (events - 1.0).max(0.0) * f64::from(bets.rho)) * f64::from(bets.phi);
        let (n, p, cap) = ((events / dispersion).floor(), f64::from(bets.p), nats_per_pane_max(dispersion));
        if !(1.0..=overshoot::GIVEN_BACK_EVENTS_MAX).contains(&n) {
            return;
        }
        bets.given_back_from = events as f32;
        let known = &mut self.given_back;
        if n as f32 != known.events || cap as f32 != known.cap || (bets.p / known.p - 1.0).abs() > SAME_EDGE {
            let nats = ODDS.map(|r| {
                let r = if direction == Direction::Up { r } else { 1.0 / r };
                overshoot::given_back(n as u32, p, p * r / (1.0 - p + p * r), cap) as f32
            });
            *known = GivenBack { events: n as f32, p: bets.p, cap: cap as f32, nats };
        }
        for ((nats, of_hit), of_miss) in known.nats.iter().zip(&mut bets.of_hit).zip(&mut bets.of_miss) {
            *of_hit += nats / known.events;
            *of_miss += nats / known.events;
        }
    }
}

// === impl Bets ===

impl Bets {
    /// Log-likelihood ratios of all alternatives against the predictive at the edge of tolerance. They are told beside the likelihood of the
    /// edge itself, so that numbers are of the size of the evidence.
    #[inline]
    pub(super) fn likelihoods(&self, direction: Direction, pane: CountPane, per: f64) -> [f32; LANES] {
        let (e, v) = (pane.hits * per, pane.total * per);
        let misses = v - e;
        let (a, b) = (f64::from(self.a), f64::from(self.b));
        let of_hits = if a < 1.0 { excess_rising(a, ln(a), e) } else { excess_near(a, f64::from(self.per_a), e) };
        let excess =
            of_hits + excess_near(b, f64::from(self.per_b), misses) - excess_near(a + b, f64::from(self.per_ab), v) + f64::from(self.apart) * v;
        let (hits, left, beside) = (e as f32, misses as f32, excess as f32);
        let mut l = [0.0; LANES];
        for ((l, of_hit), of_miss) in l.iter_mut().zip(&self.of_hit).zip(&self.of_miss) {
            *l = (hits * of_hit + left * of_miss) - beside;
        }
        // Beta(1/2, 1/2) reaches everything; on the wrong side it only loses.
        let beyond = match direction {
            Direction::Up => e > f64::from(self.p) * v,
            Direction::Down => e < f64::from(self.p) * v,
        };
        let predictive = e * f64::from(self.ln_p) + misses * f64::from(self.ln_left) + excess;
        let anything = if e <= 0.0 && !beyond {
            // G(v + 1/2) / (G(1/2) G(v + 1)) is at least 1 / sqrt(pi (v + 1/2)).
            -0.5 * ln_near(std::f64::consts::PI * (v + 0.5)) - predictive
        } else {
            // G(e + 1/2) / G(1/2) and G(v - e + 1/2) / G(v + 1), over G(1/2).
            let misses = misses.max(0.0) + 0.5;
            ln_rising_of_half(e) - ln_rising(misses, ln(misses), e + 0.5) - 0.5 * LN_PI - predictive
        };
        l[ODDS.len()] = if beyond { anything } else { anything.min(-0.5) } as f32;
        l[ARMS..].fill(f32::NEG_INFINITY);
        l
    }
}

/// ln (Gamma(x + d) / Gamma(x)) less d ln x, with 1 / x at hand. Where d is little of a large x: Bernoulli's polynomials in 1/x (DLMF 5.11.8), of which the first term
/// left out is below 1e-9.
#[inline]
fn excess_near(x: f64, per_x: f64, d: f64) -> f64 {
    if x < 8.0 || d * per_x >= 1.0 / 32.0 {
        let ln_x = ln(x);
        return ln_rising(x, ln_x, d) - d * ln_x;
    }
    let (w, h) = (d * (d - 1.0), d - 0.5);
    let far = h * (w - 1.0 / 3.0) * (-1.0 / 20.0) + per_x * (w * (w - 0.5) * (1.0 / 30.0));
    w * per_x * (0.5 + per_x * (h * (-1.0 / 6.0) + per_x * (w * (1.0 / 12.0) + per_x * far)))
}
