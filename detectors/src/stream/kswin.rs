//! KSWIN: the newest values against a draw from the older ones, by Kolmogorov and Smirnov.
//!
//! **Idea.** Of a window of 100 values the newest 30 are compared with 30 drawn from the older 70. **Formula.** D the largest
//! distance of the two empirical distribution functions; drift when its exact two-sample p-value is at most `alpha` and D > 0.1.
//! Both samples have the same size, so the p-value is a function of D alone and becomes one limit, found when the test is built.
//! **Sees** any change of the distribution, also of spread, that shows within 30 values; nothing slower than its window.
//! **False alarms**: each value is a test at level alpha, so a quiet stream alarms every few hundred values at the default.
//! **Source**: Raab, Heusinger and Schleif 2020; defaults as in River. Its draws are repeated here number by number (Mersenne
//! Twister of Matsumoto and Nishimura 1998, seeded and sampled as Python's `random` does), so alarms are equal for equal seeds;
//! `reset` seeds anew, as River does. frouros draws with another generator and omits D > 0.1.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Stream, Takes, Verdict};
use crate::population::ks::exact_equal_sizes;

pub const KIND: Kind = Kind {
    name: "kswin",
    about: "newest values against a draw from the window, by Kolmogorov-Smirnov; any change of distribution",
    takes: Takes::Values,
    knobs: &[
        Knob::real("alpha", 0.005, 0.0, 1.0, "p-value at which it alarms"),
        Knob::whole("window", 100.0, 2.0, 10_000.0, "values kept"),
        Knob::whole("newest", 30.0, 1.0, 5_000.0, "values of the window that are judged; as many are drawn from the rest"),
        Knob::whole("seed", 1.0, 0.0, 4_294_967_295.0, "seed of the draws"),
    ],
    build,
};

/// The paper's least distance: smaller ones are no drift, however sure.
const DISTANCE_MIN: f64 = 0.1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kswin {
    newest: usize,
    seed: u32,
    /// Least distance, in steps of 1 / newest, that alarms.
    steps: usize,
    /// The window as a ring; `at` is where the next value goes, which is where the oldest one stands once it is full.
    ring: Vec<f64>,
    at: usize,
    filled: usize,
    twister: Twister,
    /// Places for the work of one update.
    places: Vec<u32>,
    drawn: Vec<f64>,
    recent: Vec<f64>,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    let (window, newest) = (k.count("window"), k.count("newest"));
    if 2 * newest > window {
        return Err(Refusal::Conflict { name: "newest", why: "must not be more than half of window" });
    }
    let alpha = k.get("alpha");
    let alarms = |h: usize| exact_equal_sizes(newest, h) <= alpha && h as f64 / newest as f64 > DISTANCE_MIN;
    let seed = k.get("seed") as u32;
    Ok(Detector::Kswin(Kswin {
        newest,
        seed,
        steps: (1..=newest).find(|h| alarms(*h)).unwrap_or(usize::MAX),
        ring: vec![0.0; window],
        at: 0,
        filled: 0,
        twister: Twister::new(seed),
        places: vec![0; window - newest],
        drawn: vec![0.0; newest],
        recent: vec![0.0; newest],
    }))
}

// === impl Kswin ===

impl Kswin {
    /// Places drawn without replacement from the older part, counted from the oldest value, in the order Python draws them.
    fn draw(&mut self) {
        let older = self.ring.len() - self.newest;
        let oldest = self.at;
        let window = self.ring.len();
        // Python keeps a set of taken places when that is smaller than a list of free ones.
        let mut set_size = 21.0;
        if self.newest > 5 {
            set_size += 4f64.powf((self.newest as f64 * 3.0).log(4.0).ceil());
        }
        if older as f64 <= set_size {
            for (place, i) in self.places.iter_mut().zip(0u32..) {
                *place = i;
            }
            for i in 0..self.newest {
                let j = self.twister.below((older - i) as u32) as usize;
                self.drawn[i] = self.ring[(oldest + self.places[j] as usize) % window];
                self.places[j] = self.places[older - i - 1];
            }
        } else {
            for i in 0..self.newest {
                let mut j = self.twister.below(older as u32);
                while self.places[..i].contains(&j) {
                    j = self.twister.below(older as u32);
                }
                self.places[i] = j;
                self.drawn[i] = self.ring[(oldest + j as usize) % window];
            }
        }
    }

    /// Largest distance of the two distribution functions in steps of 1 / newest.
    fn distance(&mut self) -> usize {
        self.drawn.sort_unstable_by(f64::total_cmp);
        self.recent.sort_unstable_by(f64::total_cmp);
        let (mut i, mut j, mut largest) = (0, 0, 0);
        while i < self.newest && j < self.newest {
            let x = self.drawn[i].min(self.recent[j]);
            while i < self.newest && self.drawn[i] <= x {
                i += 1;
            }
            while j < self.newest && self.recent[j] <= x {
                j += 1;
            }
            largest = largest.max(i.abs_diff(j));
        }
        largest
    }
}

impl Stream for Kswin {
    fn update(&mut self, x: f64) -> Verdict {
        let window = self.ring.len();
        self.ring[self.at] = x;
        self.at = (self.at + 1) % window;
        self.filled = (self.filled + 1).min(window);
        if self.filled < window {
            return Verdict::SILENT;
        }
        self.draw();
        for i in 0..self.newest {
            self.recent[i] = self.ring[(self.at + window - self.newest + i) % window];
        }
        let steps = self.distance();
        let scale = 1.0 / self.newest as f64;
        let limit = if self.steps > self.newest { f64::INFINITY } else { self.steps as f64 * scale };
        Verdict::drift_if(steps >= self.steps, steps as f64 * scale, limit)
    }

    fn reset(&mut self) {
        self.ring.fill(0.0);
        self.places.fill(0);
        self.drawn.fill(0.0);
        self.recent.fill(0.0);
        (self.at, self.filled) = (0, 0);
        self.twister = Twister::new(self.seed);
    }
}

/// MT19937.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Twister {
    state: Vec<u32>,
    at: usize,
}

const WORDS: usize = 624;

impl Twister {
    /// Seeded by an array of one word, as Python seeds with a whole number below 2^32.
    fn new(seed: u32) -> Twister {
        let mut s = vec![0u32; WORDS];
        s[0] = 19_650_218;
        let mix = |before: u32| before ^ (before >> 30);
        for i in 1..WORDS {
            s[i] = mix(s[i - 1]).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        let mut i = 1;
        for _ in 0..WORDS {
            s[i] = (s[i] ^ mix(s[i - 1]).wrapping_mul(1_664_525)).wrapping_add(seed);
            i += 1;
            if i == WORDS {
                s[0] = s[WORDS - 1];
                i = 1;
            }
        }
        for _ in 1..WORDS {
            s[i] = (s[i] ^ mix(s[i - 1]).wrapping_mul(1_566_083_941)).wrapping_sub(i as u32);
            i += 1;
            if i == WORDS {
                s[0] = s[WORDS - 1];
                i = 1;
            }
        }
        s[0] = 0x8000_0000;
        Twister { state: s, at: WORDS }
    }

    fn word(&mut self) -> u32 {
        if self.at == WORDS {
            for i in 0..WORDS {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % WORDS] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % WORDS] ^ (y >> 1) ^ twist;
            }
            self.at = 0;
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A whole number below n > 0, by drawing as many bits as n has until they fit.
    fn below(&mut self, n: u32) -> u32 {
        let bits = u32::BITS - n.leading_zeros();
        loop {
            let r = self.word() >> (32 - bits);
            if r < n {
                return r;
            }
        }
    }
}
