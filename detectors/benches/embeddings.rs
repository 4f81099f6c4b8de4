//! Which evidence serves embeddings better: quantile bins of random projections, or waves of a kernel with a learned direction?
//! `cargo bench -p bellwether-detectors --bench embeddings`; `SERIES`, `RUNS`, `SEED` in the environment; `KEPT`: how many of a pane's
//! vectors the kernel is shown, as where only a sample of each pane is carried.
//!
//! Vectors are made up: ten topics of unequal weight in `DIMENSIONS` dimensions, a common centre, and noise of effective dimension
//! 20 around each topic; panes of 100 vectors.

mod noise;

use bellwether_detectors::Call;
use bellwether_detectors::evidence::bins::{BinsBank, BinsSettings};
use bellwether_detectors::evidence::embedding::{EmbeddingBank, EmbeddingSettings};
use bellwether_detectors::sketch::log_linear::bin_of;
use noise::{Noise, quantile, setting};

const DIMENSIONS: usize = 128;
const RANK: usize = 20;
const TOPICS: usize = 10;
const PANE_MS: i64 = 10_000;
const EVENTS: usize = 100;
const PROJECTIONS: usize = 8;

struct World {
    centre: Vec<f32>,
    topics: Vec<Vec<f32>>,
    loadings: Vec<Vec<f32>>,
    strange: Vec<f32>,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// This part of the vectors belongs to a topic never seen.
    NewTopic(f64),
    /// The two largest topics lose this part of their weight to the smallest.
    Weights(f64),
    /// Everything moves by this part of the noise's length, in a direction of its own.
    Shift(f32),
    /// The noise around topics is multiplied.
    Spread(f32),
    /// A model was exchanged: other coordinates.
    Rotated,
}

impl World {
    fn new(noise: &mut Noise) -> World {
        let mut normals = |n: usize, s: f64| -> Vec<f32> { (0..n).map(|_| (s * noise.normal()) as f32).collect() };
        let d = (DIMENSIONS as f64).sqrt();
        World {
            centre: normals(DIMENSIONS, 1.0 / d),
            topics: (0..TOPICS).map(|_| normals(DIMENSIONS, 0.6 / d)).collect(),
            loadings: (0..RANK).map(|_| normals(DIMENSIONS, 1.0 / d)).collect(),
            strange: normals(DIMENSIONS, 0.6 / d),
        }
    }

    fn vector(&self, noise: &mut Noise, fault: Fault, out: &mut [f32]) {
        let mut topic = 0;
        let mut u = noise.unit() * 1.0;
        let weights = [0.25, 0.2, 0.15, 0.1, 0.08, 0.07, 0.05, 0.04, 0.04, 0.02];
        while topic < TOPICS - 1 && u > weights[topic] {
            u -= weights[topic];
            topic += 1;
        }
        let mut spread = 1.0;
        let mut from = &self.topics[topic];
        match fault {
            Fault::NewTopic(part) if noise.unit() < part => from = &self.strange,
            Fault::Weights(part) if topic < 2 && noise.unit() < part => from = &self.topics[TOPICS - 1],
            Fault::Spread(factor) => spread = factor,
            _ => {}
        }
        for ((x, c), t) in out.iter_mut().zip(&self.centre).zip(from) {
            *x = c + t + 0.03 * noise.normal() as f32;
        }
        for row in &self.loadings {
            let z = spread * (0.1 * noise.normal()) as f32;
            out.iter_mut().zip(row).for_each(|(x, l)| *x += z * l);
        }
        match fault {
            Fault::Shift(size) => out.iter_mut().zip(&self.strange).for_each(|(x, s)| *x += size * s),
            Fault::Rotated => out.rotate_left(1),
            _ => {}
        }
    }
}

/// The rival: bins of unit projections, each with an eighth of the injection.
struct Projections {
    rows: Vec<Vec<f32>>,
    banks: Vec<BinsBank>,
    open: Vec<Vec<u16>>,
}

impl Projections {
    fn new(noise: &mut Noise) -> Projections {
        Projections {
            rows: (0..PROJECTIONS).map(|_| (0..DIMENSIONS).map(|_| noise.normal() as f32).collect()).collect(),
            banks: (0..PROJECTIONS).map(|_| BinsBank::new(BinsSettings { tolerance_sigma: 0.1 })).collect(),
            open: vec![Vec::new(); PROJECTIONS],
        }
    }

    fn observe(&mut self, vector: &[f32]) {
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        for (row, open) in self.rows.iter().zip(&mut self.open) {
            open.push(bin_of(f64::from(row.iter().zip(vector).map(|(a, b)| a * b).sum::<f32>() / length)));
        }
    }

    fn judge(&mut self, at_ms: i64, injection: f64) -> bool {
        let mut page = false;
        for (bank, open) in self.banks.iter_mut().zip(&mut self.open) {
            open.sort_unstable();
            let mut pane: Vec<(u16, u32)> = Vec::new();
            for bin in open.drain(..) {
                match pane.last_mut() {
                    Some(last) if last.0 == bin => last.1 += 1,
                    _ => pane.push((bin, 1)),
                }
            }
            page |= matches!(bank.judge(&pane, at_ms, PANE_MS, injection / PROJECTIONS as f64).call, Call::Alarm { .. });
        }
        page
    }
}

/// Panes until each pages, of `panes`; `learn` panes of quiet before.
fn race(seed: u64, fault: Fault, wobble: f64, learn: usize, panes: usize, injection: f64, kept: usize) -> [Option<usize>; 2] {
    let mut noise = Noise::new(seed);
    let world = World::new(&mut noise);
    let mut bins = Projections::new(&mut noise);
    let mut kernel = EmbeddingBank::new(EmbeddingSettings { seed, ..EmbeddingSettings::default() });
    let mut found = [None; 2];
    let mut vector = vec![0.0f32; DIMENSIONS];
    let mut part = 0.0f64;
    for i in 0..learn + panes {
        // A part of quiet panes leans to one topic, the more the longer it has.
        part = 0.9 * part + wobble * noise.normal();
        for e in 0..EVENTS {
            let now = if i < learn { Fault::None } else { fault };
            let now = if now == Fault::None && wobble > 0.0 { Fault::Weights(part.abs()) } else { now };
            world.vector(&mut noise, now, &mut vector);
            bins.observe(&vector);
            if e < kept {
                kernel.observe(&vector);
            }
        }
        let b = if i < learn { 0.0 } else { injection };
        let at = i as i64 * PANE_MS;
        let calls = [bins.judge(at, b), matches!(kernel.judge(at, PANE_MS, b).call, Call::Alarm { .. })];
        for (found, page) in found.iter_mut().zip(calls) {
            if page && found.is_none() && i >= learn {
                *found = Some(i - learn + 1);
            }
        }
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found
}

fn main() {
    let series = setting("SERIES", 40.0) as u64;
    let runs = setting("RUNS", 12.0) as u64;
    let seed = setting("SEED", 1.0) as u64;
    let kept = setting("KEPT", EVENTS as f64) as usize;
    let (learn, panes) = (600, setting("PANES", 1_000.0) as usize);
    println!("{DIMENSIONS} dimensions, {EVENTS} vectors a pane ({kept} shown to the kernel), {learn} panes learned, seed {seed}\n");
    println!("| quiet | series x panes | pages of 10: bins of {PROJECTIONS} projections | kernel |\n| --- | --- | --- | --- |");
    for (name, wobble) in [("independent", 0.0), ("topic weights wander between panes", 0.02)] {
        let b = 10.0 / (series as usize * panes) as f64;
        let mut pages = [0; 2];
        for i in 0..series {
            for (sum, found) in pages.iter_mut().zip(race(seed * 1_000 + i, Fault::None, wobble, learn, panes, b, kept)) {
                *sum += usize::from(found.is_some());
            }
        }
        println!("| {name} | {series} x {panes} | {} | {} |", pages[0], pages[1]);
    }
    println!("\n| fault (threshold: one page in 1e6 panes) | bins: found, median panes | kernel: found, median panes |\n| --- | --- | --- |");
    for (name, fault) in [
        ("a new topic, 2 %", Fault::NewTopic(0.02)),
        ("a new topic, 5 %", Fault::NewTopic(0.05)),
        ("a new topic, 20 %", Fault::NewTopic(0.2)),
        ("10 % of two topics go to the rarest", Fault::Weights(0.1)),
        ("30 % of two topics go to the rarest", Fault::Weights(0.3)),
        ("shift by a tenth of a topic's distance", Fault::Shift(0.1)),
        ("shift by a quarter", Fault::Shift(0.25)),
        ("noise x1.3", Fault::Spread(1.3)),
        ("noise x2", Fault::Spread(2.0)),
        ("noise x.5", Fault::Spread(0.5)),
        ("another model", Fault::Rotated),
    ] {
        let mut delays = [Vec::new(), Vec::new()];
        for i in 0..runs {
            for (delays, found) in delays.iter_mut().zip(race(seed * 77_000 + i, fault, 0.0, learn, 300, 1e-6, kept)) {
                delays.extend(found.map(|n| n as f64));
            }
        }
        let cell = |d: &Vec<f64>| format!("{:.0} %, {:.0}", 100.0 * d.len() as f64 / runs as f64, quantile(d, 0.5));
        println!("| {name} | {} | {} |", cell(&delays[0]), cell(&delays[1]));
    }
    let mut noise = Noise::new(9);
    let world = World::new(&mut noise);
    let vectors: Vec<Vec<f32>> = (0..2_000)
        .map(|_| {
            let mut v = vec![0.0; DIMENSIONS];
            world.vector(&mut noise, Fault::None, &mut v);
            v
        })
        .collect();
    let mut kernel = EmbeddingBank::new(EmbeddingSettings::default());
    let mut bins = Projections::new(&mut noise);
    let time = |f: &mut dyn FnMut(&[f32])| {
        let start = std::time::Instant::now();
        vectors.iter().for_each(|v| f(v));
        start.elapsed().as_nanos() as f64 / vectors.len() as f64
    };
    time(&mut |v| assert!(kernel.observe(v)));
    kernel.judge(0, PANE_MS, 0.0);
    let waves = time(&mut |v| assert!(kernel.observe(v)));
    let projected = time(&mut |v| bins.observe(v));
    println!("\nPer vector: projections {projected:.0} ns, kernel {waves:.0} ns.");
}
