//! The engine over a fleet with known truth: no broker, no clock, no disk.

use std::collections::BTreeMap;

use bellwether::decode::{self, Decoder};
use bellwether::domain::Time;
use bellwether::engine::{Control, Engine, Entry, ModelSettings, Outcome, Route, Settings};
use bellwether::fleet::{Fault, Fleet, Made, Plan};
use bellwether::{judge, pane};

/// Monday, 09:00 UTC.
pub const START: Time = Time(1_795_424_400_000);

pub fn settings(pane_ms: i64, lateness_ms: i64, dimensions: &[&str]) -> Settings {
    Settings {
        pane: pane::Settings {
            pane_ms,
            lateness_ms,
            dimensions: dimensions.iter().map(|d| (*d).to_owned()).collect(),
            currency: "USD".to_owned(),
            exemplar_allow: vec![],
            limits: pane::Limits::default(),
            scan: None,
        },
        judge: judge::Settings { pane_ms, false_pages: 2.0, signals: BTreeMap::new(), models: BTreeMap::new(), silence_armed_after_ms: 20 * 60_000 },
        models: BTreeMap::from([("loan-scorer".to_owned(), ModelSettings::default())]),
        routes: vec![Route { to: vec!["oncall".to_owned()], ..Route::default() }],
    }
}

/// Drives an engine by a fleet, one partition per model.
pub struct Driver {
    pub engine: Engine,
    pub fleet: Fleet,
    decoder: Decoder,
    positions: BTreeMap<String, (u32, i64)>,
    made: Vec<Made>,
    pub outcome: Outcome,
    seq: u64,
}

impl Driver {
    pub fn new(settings: Settings, plan: Plan, seed: u64) -> Driver {
        let mut engine = Engine::new(settings);
        for p in 0..3 {
            engine.declare(p);
        }
        let decoder = Decoder::canonical(decode::Settings::new([0; 16]));
        Driver {
            engine,
            fleet: Fleet::new(plan, seed, START),
            decoder,
            positions: BTreeMap::new(),
            made: vec![],
            outcome: Outcome::default(),
            seq: 0,
        }
    }

    pub fn run_until(&mut self, until: Time) {
        let mut at = self.fleet.frontier();
        while at < until {
            at = at.plus_ms(1_000).min(until);
            self.made.clear();
            self.fleet.next_before(at, &mut self.made);
            for m in &self.made {
                let model = serde_json::from_slice::<serde_json::Value>(&m.json).ok().and_then(|v| v["model"].as_str().map(str::to_owned));
                let count = self.positions.len() as u32;
                let (partition, position) = self.positions.entry(model.unwrap_or_default()).or_insert((count % 3, 0));
                let _ = position;
                let partition = *partition;
                let next = self.engine.next_position(partition).unwrap_or(0) + 1;
                self.engine.record(partition, next, m.arrival, &m.json, &self.decoder, None).expect("valid");
            }
            self.engine.advance(&mut self.outcome);
        }
    }

    pub fn live(&mut self) {
        self.seq += 1;
        let at = self.engine.horizon();
        self.engine.enter(Entry { seq: self.seq, at, control: Control::Live });
    }
}

#[test]
fn explore() {
    let minutes = |m: i64| START.plus_ms(m * 60_000);
    let which = std::env::var("FAULT").unwrap_or("error_spike".into());
    let t0 = std::time::Instant::now();
    let mut d = Driver::new(settings(2_000, 2_000, &["region", "tier"]), Plan::demo(), 7);
    d.run_until(minutes(40));
    d.live();
    println!("history {:?} {:?}", t0.elapsed(), d.engine.view().series);
    d.run_until(minutes(45));
    println!("quiet: {:?} {:?}", d.outcome.happened, d.engine.view().series);
    let mut seen = 0;
    for name in which.split(',') {
        let fault: Fault = name.parse().expect("known");
        let on = d.fleet.frontier();
        d.fleet.switch(fault, true, on);
        println!("--- {name} on {:?}", d.fleet.target(fault));
        d.run_until(on.plus_ms(70_000));
        let off = d.fleet.frontier();
        d.fleet.switch(fault, false, off);
        d.run_until(off.plus_ms(300_000));
        for t in &d.outcome.timeline[seen..] {
            let since = if t.at > off { format!("off+{}", t.at.since_ms(off) / 1000) } else { format!("on+{}", t.at.since_ms(on) / 1000) };
            println!("{since}s {} {} {}", t.incident_id, t.what, t.why);
        }
        seen = d.outcome.timeline.len();
        for i in d.engine.incidents() {
            println!(
                "  {} {} sev {} {:?} cause {:?} findings {:?}",
                i.id,
                i.state,
                i.severity,
                i.key.category,
                i.cause.as_ref().map(|c| c.best),
                i.findings
                    .iter()
                    .map(|f| format!("{}/{} {:?}", f.series.group.words(), f.series.signal, f.recovered_at.is_some()))
                    .collect::<Vec<_>>()
            );
        }
    }
    println!("{:?} events {}", t0.elapsed(), d.engine.view().events);
}
