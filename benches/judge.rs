//! What does a pane of a settled fleet cost the judge?
//!
//! MODELS models (1,000) of REGIONS regions (10): a group of each model as a whole and of each of its regions, so 11,000 groups and 58,000 lines,
//! all of which have learned and are judged in every pane: every group's memory was last touched as many groups ago. No broker, no
//! decoding: closed panes in, sayings out. `cargo bench --bench judge`; PANES are timed (40) after LEARN (400), EVENTS (25) predictions
//! of a region each. Results stand in `benches/results/banks.md`.

use std::sync::Arc;

use bellwether::domain::{Segment, Time};
use bellwether::fleet::Chance;
use bellwether::judge::{Judge, Settings};
use bellwether::pane::{BoxedCell, Cell, Leaf, SlotName, slot};
use bellwether_detectors::sketch::log_linear::bin_of;

const PANE_MS: i64 = 10_000;
const START: Time = Time(1_767_225_600_000);

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Time that this process spent on a processor, seconds.
fn on_cpu_s() -> f64 {
    let told = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    told.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).map_or(f64::NAN, |ns| ns * 1e-9)
}

fn cell(events: usize, chance: &mut Chance) -> BoxedCell {
    let mut cell = Cell::default();
    cell.predictions = events as u32;
    for _ in 0..events {
        let status = if chance.unit() < 0.02 { 1 } else { 0 };
        cell.add(slot::STATUS, status);
        cell.add(slot::LATENCY, bin_of((0.5 * chance.normal()).exp() * 0.2));
        cell.add(slot::SCORE, bin_of(chance.unit()));
        cell.add(slot::LABEL, (chance.unit() * chance.unit() * 8.0) as u16);
        cell.add(slot::EMPTY, u16::from(chance.unit() < 0.01));
    }
    Box::new(cell)
}

fn main() {
    if !std::env::args().any(|a| a == "--bench") {
        return; // `cargo test --benches` only asks whether it builds.
    }
    let (models, regions) = (setting("MODELS", 1_000), setting("REGIONS", 10));
    let (learn, timed, events) = (setting("LEARN", 400), setting("PANES", 40), setting("EVENTS", 25));
    let mut judge = Judge::new(Settings {
        pane_ms: PANE_MS,
        false_pages: 10.0,
        signals: Default::default(),
        models: Default::default(),
        learn_ms: 0,
        silence_armed_after_ms: 3_600_000,
    });
    for (number, name) in SlotName::fixed().into_iter().enumerate() {
        judge.slot(number as u16, name);
    }
    let leaf = |m: usize, r: usize| Leaf {
        environment: "production".into(),
        model: format!("model-{m:04}").into(),
        version: "1".into(),
        segments: vec![Segment { dimension: "region".into(), value: format!("region-{r}").into() }],
    };
    let leaves: Vec<Arc<Leaf>> = (0..models).flat_map(|m| (0..regions).map(move |r| (m, r))).map(|(m, r)| Arc::new(leaf(m, r))).collect();
    let mut chance = Chance::keyed(1, 1);
    let (mut spare, mut said, mut spent) = (Vec::new(), Vec::new(), 0.0);
    for pane in 0..learn + timed {
        if pane == learn {
            judge.start_live(START.plus_ms(pane as i64 * PANE_MS));
        }
        let cells: Vec<_> = leaves.iter().map(|leaf| (leaf.clone(), cell(events, &mut chance))).collect();
        let began = on_cpu_s();
        let mut cells = judge.leaves.gather(cells.into_iter(), &mut spare);
        judge.pane(START.plus_ms(pane as i64 * PANE_MS), &mut cells, false, &mut said);
        if pane >= learn {
            spent += on_cpu_s() - began;
        }
        spare.clear();
    }
    let lines: usize = judge.groups().iter().map(|g| g.lines.len()).sum();
    let (groups, mean) = (judge.groups().len(), spent / timed as f64);
    println!("| groups | lines | events a pane of a region | ms a pane | ns a line | us a group |\n| --- | --- | --- | --- | --- | --- |");
    println!("| {groups} | {lines} | {events} | {:.0} | {:.0} | {:.2} |", mean * 1e3, mean * 1e9 / lines as f64, mean * 1e6 / groups as f64);
    println!("\n{} sayings", said.len());
}
