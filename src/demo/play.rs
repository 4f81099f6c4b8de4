//! The demo's main loop: an embedded broker, a fleet that writes to it, the daemon that reads it, and a pager that prints.
//!
//! Nothing in it is a stand-in for the product: the daemon is the one that `bellwether run` starts, with the Kafka consumer that
//! it always has. What is embedded is the broker and the other side of the pager's wire.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::keys::{self, Key, Keys};
use super::pager::{Effect, Heard, Pager, Print};
use super::screen::{self, Style};
use super::script::Script;
use crate::backtest::Line;
use crate::daemon::{self, now};
use crate::decode::{self, Decoder};
use crate::domain::time::MINUTE_MS;
use crate::engine::{Engine, Outcome};
use crate::fleet::{Fault, Fleet, Plan};
use crate::serve::{self, FaultButton};
use crate::source::embedded::{Embedded, Outgoing, Producer};
use crate::{notify, settings};

/// History at the live rate that the engine reads before it goes live.
const HISTORY_MS: i64 = 30 * MINUTE_MS;
const TOPIC: &str = "model-events";
const PARTITIONS: i32 = 3;
/// The partition under which the engine knows what it read before the topic; the store counts from 1.
const HISTORY_PARTITION: u32 = 0;
/// How often the fleet writes.
const BEAT: Duration = Duration::from_millis(50);
const ROUTING_KEY: &str = "demo0000000000000000000000000000";
/// Arrivals are learned for this long before silence may page: history is half an hour.
const SILENCE_ARMED_AFTER_MS: i64 = 15 * MINUTE_MS;

pub struct Options {
    /// One happening per line instead of pictures.
    pub json: bool,
    pub script: Script,
    /// Ends by itself so long after live traffic began.
    pub duration: Option<Duration>,
    pub seed: u64,
    pub listen: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the embedded broker does not start")]
    Broker(#[from] crate::source::Error),
    #[error("the demo's pager cannot listen")]
    Pager(#[source] std::io::Error),
    #[error("the demo's configuration is refused: {0}")]
    Settings(settings::Problems),
    #[error("the daemon ended")]
    Daemon(#[from] daemon::Error),
    #[error("no thread can be started")]
    Thread(#[source] std::io::Error),
}

/// What happens on the stage, shared by the fleet's thread, the keys and the page's buttons.
struct Stage {
    fleet: Mutex<Option<Fleet>>,
    /// Wall time at which live traffic began; 0 before.
    live_at: AtomicI64,
    is_over: AtomicBool,
    json: bool,
}

// === impl Stage ===

impl Stage {
    fn say(&self, line: Value) {
        if self.json {
            let mut line = line;
            if let Some(object) = line.as_object_mut() {
                object.insert("at".to_owned(), json!(now()));
            }
            let mut out = std::io::stdout().lock();
            // A reader that has gone away ends nothing but its own reading.
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        }
    }

    fn tell(&self, text: &str) {
        if !self.json {
            screen::say(text);
        }
    }

    fn is_on(&self, fault: Fault) -> bool {
        daemon_lock(&self.fleet).as_ref().is_some_and(|f| f.is_on(fault, now()))
    }

    fn switch(&self, fault: Fault, on: bool) {
        if let Some(fleet) = daemon_lock(&self.fleet).as_mut() {
            fleet.switch(fault, on, now());
        }
        self.switched(fault, on);
    }

    fn switched(&self, fault: Fault, on: bool) {
        let event = if on { "fault_on" } else { "fault_off" };
        self.say(json!({ "type": "demo", "event": event, "fault": fault.name() }));
        self.tell(&format!("fault {} is {}: {}", fault.name(), if on { "on" } else { "off" }, fault.about()));
    }
}

fn daemon_lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The fleet is whole between two calls.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl daemon::Faults for Stage {
    fn list(&self) -> Vec<FaultButton> {
        Fault::DEMO.iter().map(|f| FaultButton { name: f.name().to_owned(), about: f.about().to_owned(), on: self.is_on(*f) }).collect()
    }

    fn switch(&self, name: &str, on: bool) -> Result<(), String> {
        let fault: Fault = name.parse().map_err(|e: crate::fleet::UnknownFault| e.to_string())?;
        Stage::switch(self, fault, on);
        Ok(())
    }
}

/// Plays until the time is over, a key says so, or a signal comes.
///
/// # Errors
/// What could not be started, or why the daemon ended.
pub async fn run(options: Options) -> Result<(), Error> {
    let style = if options.json { Style::PLAIN } else { Style::of_stdout() };
    let stage = Arc::new(Stage { fleet: Mutex::new(None), live_at: AtomicI64::new(0), is_over: AtomicBool::new(false), json: options.json });
    // Asked before anything is learned: a second demo usually meets the first.
    match TcpListener::bind(options.listen) {
        Ok(free) => drop(free),
        Err(source) => return Err(daemon::Error::from(serve::Error::Listen { listen: options.listen, source }).into()),
    }
    let broker = Embedded::start()?;
    broker.create_topic(TOPIC, PARTITIONS)?;
    stage.tell(&format!("Kafka broker in this process: {}  (topic {TOPIC}; any Kafka client can join in)", broker.bootstrap()));

    let print: Print = {
        let stage = stage.clone();
        Arc::new(move |text: &str| stage.tell(text))
    };
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let (pager, heard) = Pager::start(any, style, print).await.map_err(Error::Pager)?;

    let config = format!(
        "kafka: {{brokers: [\"{}\"], topics: [{TOPIC}], group: bellwether-demo}}\nsegments: [region, tier]\npane: 2s\nlateness: 2s\nbaseline: {{learn: 10m}}\n\
         receivers: {{pager: {{type: pagerduty, routing_key: {ROUTING_KEY}, url: \"{}\"}}}}\nlisten: \"{}\"\ninstance: demo\n\
         models: {{loan-scorer: {{owner: credit-ml, exposure: [eu, legal]}}, assistant: {{owner: support, canaries: {{list: [\"{}\"]}}}}}}\n",
        broker.bootstrap(),
        pager.url(),
        options.listen,
        crate::fleet::CANARY,
    );
    let kinds: Vec<&notify::Kind> = notify::KINDS.iter().collect();
    let mut loaded = settings::parse(&config, "demo", &|_| None, &kinds).map_err(Error::Settings)?;
    if let Some(kafka) = &mut loaded.settings.kafka {
        // The embedded broker cannot be asked for offsets by time.
        kafka.from_ms = i64::MAX;
    }

    let (stop_tx, stop) = oneshot::channel();
    let (live_tx, live) = oneshot::channel();
    let mut daemon_options = daemon::Options::new(loaded, None);
    daemon_options.in_memory = true;
    daemon_options.stop = Some(stop);
    daemon_options.faults = Some(stage.clone());
    daemon_options.tune = Some(Box::new(|s| s.judge.silence_armed_after_ms = SILENCE_ARMED_AFTER_MS));
    daemon_options.lesson = Some(lesson(stage.clone(), options.seed));
    daemon_options.on_live = Some(Box::new(move || {
        let _ = live_tx.send(());
    }));
    daemon_options.on_outcome = Some(Box::new({
        let stage = stage.clone();
        move |out: &Outcome| said(&stage, out)
    }));
    daemon_options.on_listen = Some(Box::new({
        let stage = stage.clone();
        move |address| stage.tell(&format!("Pages: http://{address}/"))
    }));

    let writer = Producer::start(broker.bootstrap(), &std::collections::BTreeMap::new())?;
    let beating = {
        let stage = stage.clone();
        std::thread::Builder::new().name("fleet".to_owned()).spawn(move || beat(&stage, &writer)).map_err(Error::Thread)?
    };
    let directing = tokio::spawn(direct(stage.clone(), options, live, heard, stop_tx, style));
    let ended = daemon::run(daemon_options).await;
    stage.is_over.store(true, Ordering::SeqCst);
    directing.abort();
    let _ = directing.await;
    let _ = beating.join();
    pager.stop().await;
    stage.say(json!({ "type": "demo", "event": "end" }));
    Ok(ended?)
}

/// Half an hour of traffic goes through the engine before the topic is read: what is normal is learned from it.
fn lesson(stage: Arc<Stage>, seed: u64) -> Box<dyn FnOnce(&mut Engine) + Send> {
    Box::new(move |engine: &mut Engine| {
        let began = now();
        let start = began.plus_ms(-HISTORY_MS);
        let mut fleet = Fleet::new(Plan::demo(), seed, start);
        let levels = fleet.levels();
        for of in levels.chunk_by(|a, b| a.model == b.model) {
            let (requests, cost): (Vec<f64>, Vec<f64>) = of.iter().map(|l| (l.requests, l.cost)).unzip();
            engine.import_hours(&of[0].environment, &of[0].model, of[0].hour_start, &requests, &cost);
        }
        let decoder = Decoder::canonical(decode::Settings::new([0; 16]));
        let bar = ProgressBar::with_draw_target(Some(HISTORY_MS as u64 / 1_000), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("learning what is normal: {bar:30} {pos}/{len} s of traffic, {per_sec}") {
            bar.set_style(style);
        }
        engine.declare(HISTORY_PARTITION);
        let (mut made, mut position) = (Vec::new(), 0i64);
        let mut outcome = Outcome::default();
        let mut at = start;
        // The fleet's clock catches up with ours: each round is shorter than the one before.
        while at < now() {
            at = at.plus_ms(1_000).min(now());
            made.clear();
            fleet.next_before(at, &mut made);
            for m in &made {
                position += 1;
                // The fleet's events are valid; a refusal would be counted like any other.
                let _ = engine.record(HISTORY_PARTITION, position, m.arrival, &m.json, &decoder, None);
            }
            engine.advance(&mut outcome);
            bar.set_position((at.since_ms(start) / 1_000) as u64);
        }
        engine.finish(HISTORY_PARTITION);
        engine.advance(&mut outcome);
        bar.finish_and_clear();
        let seconds = now().since_ms(began) as f64 / 1e3;
        stage.say(json!({ "type": "demo", "event": "history", "events": position, "seconds": seconds }));
        stage.tell(&format!("Learned from {position} events and two weeks of hourly levels in {seconds:.1} s."));
        *daemon_lock(&stage.fleet) = Some(fleet);
    })
}

/// Writes the fleet's events as they arrive, once live.
fn beat(stage: &Stage, writer: &Producer) {
    let mut made = Vec::new();
    while !stage.is_over.load(Ordering::SeqCst) {
        std::thread::sleep(BEAT);
        if stage.live_at.load(Ordering::SeqCst) == 0 {
            continue;
        }
        made.clear();
        if let Some(fleet) = daemon_lock(&stage.fleet).as_mut() {
            fleet.next_before(now(), &mut made);
        }
        for m in &made {
            let out = Outgoing { topic: TOPIC, key: Some(m.key.as_bytes()), value: Some(&m.json), time: Some(m.arrival), ..Outgoing::default() };
            if let Err(e) = writer.send(out) {
                tracing::warn!(error = %e, "the embedded broker does not take events");
            }
        }
    }
    let _ = writer.flush(Duration::from_secs(1));
}

/// What the daemon wrote, as lines: alarms, and incidents at every turn that a person would hear of.
fn said(stage: &Stage, out: &Outcome) {
    let line = |line: Line| serde_json::to_value(line).unwrap_or_default();
    for (_, alarm) in &out.alarms {
        stage.say(line(Line::alarm(alarm)));
    }
    // Incidents and happenings are written in the same order.
    for ((_, what), incident) in out.happened.iter().zip(&out.incidents) {
        if !matches!(*what, "series_recovered" | "noted") {
            stage.say(line(Line::incident(incident)));
        }
    }
}

/// The script, the keys and the clock.
async fn direct(
    stage: Arc<Stage>,
    options: Options,
    live: oneshot::Receiver<()>,
    mut heard: tokio::sync::mpsc::Receiver<Heard>,
    stop: oneshot::Sender<()>,
    style: Style,
) {
    if live.await.is_err() {
        return;
    }
    let live_at = now();
    let mut script = options.script;
    if let Some(fleet) = daemon_lock(&stage.fleet).as_mut() {
        script.schedule(fleet, live_at);
    }
    stage.live_at.store(live_at.0, Ordering::SeqCst);
    stage.say(json!({ "type": "demo", "event": "live" }));
    stage.tell("Live: three models, about a thousand predictions a second. Open the pages, or break something:");
    let mut keyboard = if options.json { None } else { Keys::open() };
    let on = || Fault::DEMO.iter().copied().filter(|f| stage.is_on(*f)).collect::<Vec<_>>();
    if keyboard.is_some() {
        stage.tell(&keys::legend(&on(), style));
    } else if !options.json {
        stage.tell("(no terminal: use the buttons on the page, or --fault NAME@FROM-TO)");
    }
    let mut clock = tokio::time::interval(Duration::from_millis(100));
    loop {
        let key = async {
            match &mut keyboard {
                Some(k) => k.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = clock.tick() => {
                let after = now().since_ms(live_at);
                for moment in script.due(after).to_vec() {
                    stage.switched(moment.fault, moment.on);
                }
                if options.duration.is_some_and(|d| after >= d.as_millis() as i64) {
                    break;
                }
            }
            said = heard.recv() => match said {
                Some(Heard::Page(page)) if page.effect != Effect::Dropped => {
                    stage.say(json!({ "type": "page", "effect": format!("{:?}", page.effect).to_lowercase(), "key": page.dedup_key,
                        "summary": page.summary, "severity": page.severity, "class": page.class }));
                }
                Some(Heard::Page(_)) => {}
                Some(Heard::Refused(why)) => stage.say(json!({ "type": "page", "effect": "refused", "why": why })),
                None => break,
            },
            key = key => match key {
                Some(Key::Interrupt | Key::Escape | Key::Char('q')) | None => break,
                Some(key) => {
                    if let Some(fault) = keys::fault_of(key) {
                        let is_on = stage.is_on(fault);
                        stage.switch(fault, !is_on);
                        stage.tell(&keys::legend(&on(), style));
                    }
                }
            },
        }
    }
    drop(keyboard);
    let _ = stop.send(());
}
