//! The level of a rate by hour of the day, believed as far as the hours are seen to differ.
//!
//! **Formula.** Quiet counts (k_h, m_h) for each of 24 hours. tau2 is the variance of k_h / m_h beyond what counts of their size
//! show by chance, phi p (1 - p) / m_h; the hour's level is then k_h + kappa k / m of m_h + kappa with kappa = phi (p (1 - p) / tau2 - 1),
//! the posterior of a beta law of mean k / m and variance tau2 (empirical Bayes). Hours that do not differ give a kappa beyond m, and
//! the level is that of all hours; a young hour leans on it with the width that tau2 asks for.

use serde::{Deserialize, Serialize};

const HOURS: usize = 24;
/// Hours that must be known before they are told apart.
const KNOWN_MIN: f64 = 6.0;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hours {
    cells: [(f64, f64); HOURS],
    now: u8,
    /// Weight of the level of all hours; infinite while hours are not told apart.
    kappa: f64,
}

impl Default for Hours {
    fn default() -> Self {
        Hours { cells: [(0.0, 0.0); HOURS], now: 0, kappa: f64::INFINITY }
    }
}

impl Hours {
    /// A new hour of the day begins: older counts fade, and how much hours differ is told anew.
    pub fn turn(&mut self, hour: usize, k: f64, m: f64, phi: f64) {
        let fade = super::decay(3_600_000);
        for cell in &mut self.cells {
            cell.0 *= fade;
            cell.1 *= fade;
        }
        self.now = hour.min(HOURS - 1) as u8;
        self.kappa = f64::INFINITY;
        let p = ((k + 0.5) / (m + 1.0)).clamp(1e-9, 1.0 - 1e-9);
        let (mut n, mut sum, mut squares, mut chance) = (0.0, 0.0, 0.0, 0.0);
        for (k, m) in self.cells.iter().filter(|c| c.1 >= 1.0) {
            let rate = k / m;
            n += 1.0;
            sum += rate;
            squares += rate * rate;
            chance += phi * p * (1.0 - p) / m;
        }
        if n < KNOWN_MIN {
            return;
        }
        let variance = (squares - sum * sum / n) / (n - 1.0);
        // What chance alone may show is believed to be chance, up to one standard error.
        let tau2 = variance - chance / n * (1.0 + (2.0 / (n - 1.0)).sqrt());
        if tau2 > 0.0 {
            let kappa = phi * (p * (1.0 - p) / tau2 - 1.0).max(1.0);
            if kappa < m {
                self.kappa = kappa;
            }
        }
    }

    /// (k, m) to judge the present hour by, from those of all hours.
    pub fn level(&self, k: f64, m: f64) -> (f64, f64) {
        if !self.kappa.is_finite() || m <= 0.0 {
            return (k, m);
        }
        let (hits, total) = self.cells[usize::from(self.now)];
        (hits + self.kappa * k / m, total + self.kappa)
    }

    pub fn learn(&mut self, hits: f64, total: f64) {
        let cell = &mut self.cells[usize::from(self.now)];
        cell.0 += hits;
        cell.1 += total;
    }

    pub fn give_back(&mut self, hits: f64, total: f64) {
        let cell = &mut self.cells[usize::from(self.now)];
        cell.0 = (cell.0 - hits).max(0.0);
        cell.1 = (cell.1 - total).max(0.0);
    }

    pub fn discount(&mut self, share: f64) {
        for cell in &mut self.cells {
            cell.0 *= share;
            cell.1 *= share;
        }
    }
}
