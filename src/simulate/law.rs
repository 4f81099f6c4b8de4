//! What a simulated series draws its panes from, before and after its fault.

use std::sync::LazyLock;

use bellwether_detectors::sketch::log_linear::bin_of;
use statrs::distribution::{ContinuousCDF, Normal};

use crate::fleet::Chance;
use crate::judge::{Bank, Feed};

/// Cells of a table of quantiles, a power of two: a value is one look into it.
const CELLS: usize = 1 << 15;
/// What is forgiven: the defaults of `signals`.
pub const TOLERANCE: f64 = 0.2;
pub const TOLERANCE_SIGMA: f64 = 0.1;
/// What a hidden fault does: multiplies a rate, a count and a class, and shifts values by so many standard deviations.
pub const FAULT_TIMES: f64 = 2.0;
pub const FAULT_SIGMA: f64 = 0.25;
/// Shares of the classes of a categorical series; the last is the one that a fault multiplies.
const CLASSES: [f64; 6] = [0.35, 0.25, 0.16, 0.11, 0.08, 0.05];
/// Median and spread (of the logarithm) of numeric series.
const VALUES: [(f64, f64); 3] = [(120.0, 0.6), (0.8, 0.1), (2_000.0, 1.2)];

/// Kind of a series and its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    /// Hits of rate `p` among the events of a pane.
    Rate { p: f64 },
    /// Log-normal values, one of [`VALUES`].
    Values(usize),
    /// One of six classes.
    Classes,
    /// A Poisson count of `rate` for each event of exposure.
    Counts { rate: f64 },
}

/// How the series is now.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(usize)]
pub enum Mood {
    Usual,
    /// Changed by exactly what is forgiven.
    Edge,
    Faulty,
}

/// One pane.
#[derive(Debug, Default)]
pub struct Pane {
    hits: f64,
    grid: Vec<(u16, u32)>,
    values: Vec<u16>,
    cells: Vec<u32>,
}

impl Law {
    /// The mix of a fleet: 40 % rates from 0.1 to 5 %, 40 % values, 10 % classes, 10 % counts.
    pub fn of(series: usize) -> Law {
        match series % 10 {
            0 => Law::Rate { p: 0.001 },
            1 | 2 => Law::Rate { p: 0.01 },
            3 => Law::Rate { p: 0.05 },
            4 | 5 => Law::Values(0),
            6 => Law::Values(1),
            7 => Law::Values(2),
            8 => Law::Classes,
            _ => Law::Counts { rate: 0.005 },
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Law::Rate { p } if p < 0.005 => "rate 0.1 %",
            Law::Rate { p } if p < 0.03 => "rate 1 %",
            Law::Rate { .. } => "rate 5 %",
            Law::Values(_) => "values",
            Law::Classes => "classes",
            Law::Counts { .. } => "counts",
        }
    }

    pub fn bank(self) -> Bank {
        match self {
            Law::Rate { .. } => Bank::rate(TOLERANCE, 0.0),
            Law::Values(_) => Bank::bins(TOLERANCE_SIGMA),
            Law::Classes => Bank::classes(TOLERANCE),
            Law::Counts { .. } => Bank::counts(TOLERANCE, 0.0),
        }
    }

    /// Draws a pane of `n` events.
    pub fn draw(self, n: u32, mood: Mood, chance: &mut Chance, pane: &mut Pane) {
        let times = match mood {
            Mood::Usual => 1.0,
            Mood::Edge => 1.0 + TOLERANCE,
            Mood::Faulty => FAULT_TIMES,
        };
        match self {
            Law::Rate { p } => pane.hits = f64::from(binomial(n, (p * times).min(0.95), chance)),
            Law::Counts { rate } => pane.hits = poisson(rate * times * f64::from(n), chance),
            Law::Values(which) => {
                let bins = &BINS[which][mood as usize];
                pane.values.clear();
                pane.values.extend((0..n).map(|_| bins[(chance.bits() >> (64 - CELLS.trailing_zeros())) as usize]));
                pane.count();
            }
            Law::Classes => {
                let last = CLASSES[CLASSES.len() - 1] * times;
                let others = (1.0 - last) / (1.0 - CLASSES[CLASSES.len() - 1]);
                pane.values.clear();
                for _ in 0..n {
                    let mut u = chance.unit();
                    let mut class = CLASSES.len() - 1;
                    for (i, share) in CLASSES[..CLASSES.len() - 1].iter().enumerate() {
                        u -= share * others;
                        if u < 0.0 {
                            class = i;
                            break;
                        }
                    }
                    pane.values.push(class as u16);
                }
                pane.count();
            }
        }
    }
}

/// The bin of each quantile, by law of values and by mood: drawing takes more time than judging else.
static BINS: LazyLock<Vec<[Vec<u16>; 3]>> = LazyLock::new(|| {
    let normal = Normal::standard();
    let quantiles: Vec<f64> = (0..CELLS).map(|i| normal.inverse_cdf((i as f64 + 0.5) / CELLS as f64)).collect();
    let bins = |(median, sigma): (f64, f64), mood: Mood| {
        let shift = match mood {
            Mood::Usual => 0.0,
            Mood::Edge => TOLERANCE_SIGMA,
            Mood::Faulty => FAULT_SIGMA,
        };
        quantiles.iter().map(|z| bin_of(median * (sigma * (z + shift)).exp())).collect()
    };
    VALUES.iter().map(|law| [Mood::Usual, Mood::Edge, Mood::Faulty].map(|mood| bins(*law, mood))).collect()
});

impl Pane {
    /// By a place for every bin between the least and the greatest, which lie close together.
    fn count(&mut self) {
        let least = self.values.iter().copied().min().unwrap_or(0);
        let greatest = self.values.iter().copied().max().unwrap_or(0);
        self.cells.clear();
        self.cells.resize(usize::from(greatest - least) + 1, 0);
        for value in &self.values {
            self.cells[usize::from(value - least)] += 1;
        }
        self.grid.clear();
        self.grid.extend(self.cells.iter().zip(least..).filter(|(n, _)| **n > 0).map(|(n, bin)| (bin, *n)));
    }

    /// As the judge's lines are fed.
    pub fn feed(&self, law: Law, n: u32) -> Feed<'_> {
        match law {
            Law::Rate { .. } => Feed::Share { hits: self.hits, total: f64::from(n) },
            Law::Values(_) => Feed::Grid(&self.grid),
            Law::Classes => Feed::Classes(&self.grid),
            Law::Counts { .. } => Feed::Count { count: self.hits, exposure: f64::from(n) },
        }
    }
}

/// By geometric skips, which are cheap while hits are rare.
fn binomial(n: u32, p: f64, chance: &mut Chance) -> u32 {
    if p > 0.2 {
        return (0..n).filter(|_| chance.unit() < p).count() as u32;
    }
    let step = (1.0 - p).ln();
    let (mut hits, mut at) = (0, 0.0);
    loop {
        at += 1.0 + ((1.0 - chance.unit()).ln() / step).floor();
        if at > f64::from(n) {
            return hits;
        }
        hits += 1;
    }
}

fn poisson(mean: f64, chance: &mut Chance) -> f64 {
    let (mut count, mut left) = (0.0, mean);
    loop {
        left -= chance.exponential();
        if left < 0.0 {
            return count;
        }
        count += 1.0;
    }
}
