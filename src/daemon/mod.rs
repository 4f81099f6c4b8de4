//! The daemon: source, engine, store, dispatch and pages, joined.
//!
//! One straight line from settings to running. Who waits for whom: the source fills a bounded channel and pauses itself when it
//! is full; the keeper's thread empties it, owns the engine and is the only one that writes incidents; the dispatcher works the
//! outbox; pages ask the keeper and read the store. Shutdown goes the other way round.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use secrecy::SecretString;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::dispatch::{Dispatcher, Tuning, heartbeat};
use crate::domain::Time;
use crate::engine::Engine;
use crate::notify;
use crate::serve;
use crate::settings::{self, Loaded, Settings};
use crate::source::dead_letters::DeadLetters;
use crate::source::file::{FileSource, Pace};
use crate::source::kafka::{KafkaSettings, KafkaSource};
use crate::source::{self};
use crate::store::Store;
use crate::telemetry::Metrics;

pub mod build;
pub mod errands;
mod front;
mod keeper;
mod outbox;

pub use front::Faults;
use front::Front;
pub use keeper::chain;
use keeper::{Ask, Keeper, Status, Steering, lock};
use outbox::StoreOutbox;

/// Batches between the source and the keeper. Each holds at most a thousand records.
const BATCHES_WAITING_MAX: usize = 16;
/// How often state is written.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(60);
/// How often the outside is told that all is well.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(30);
/// For errands that are under way when it stops; what has no answer by then is unknown.
const ERRANDS_END: Duration = Duration::from_secs(5);
/// Everything must have stopped within this, or it is left behind.
const SHUTDOWN: Duration = Duration::from_secs(25);

/// What a run is made from.
pub struct Options {
    pub loaded: Loaded,
    /// Where the configuration was read from, for reloading; `None` where there is no file (the demo).
    pub config_path: Option<PathBuf>,
    /// What goes before the environment's variables, by their names: the command line's flags. Asked again at every reload.
    pub over: Over,
    /// A store in memory dies with the process.
    pub in_memory: bool,
    pub snapshot_every: Option<Duration>,
    /// Taught to the engine before the first record, on a store that holds nothing yet.
    pub lesson: Option<Box<dyn FnOnce(&mut Engine) + Send>>,
    pub faults: Option<Arc<dyn Faults>>,
    /// Told once what pages from now on.
    pub on_live: Option<Box<dyn FnOnce() + Send>>,
    /// Told of everything that was written, after it was.
    pub on_outcome: Option<Box<dyn FnMut(&crate::engine::Outcome) + Send>>,
    /// Changes to the engine's settings that no file can say.
    pub tune: Option<Box<dyn Fn(&mut crate::engine::Settings) + Send + Sync>>,
    /// Ends the run, beside signals.
    pub stop: Option<oneshot::Receiver<()>>,
    /// Told where the pages are.
    pub on_listen: Option<Box<dyn FnOnce(SocketAddr) + Send>>,
}

/// A variable of the environment by its name.
pub type Over = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Why a daemon does not start or ends by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the store cannot be opened")]
    Store(#[from] crate::store::Error),
    #[error("the stored state cannot be used")]
    State(#[from] keeper::Error),
    #[error("the source does not start")]
    Source(#[from] source::Error),
    #[error("the pages cannot be served")]
    Serve(#[from] serve::Error),
    #[error("{0}")]
    Settings(String),
    #[error("{0}")]
    Ended(String),
    #[error("{what}")]
    Io { what: &'static str, source: std::io::Error },
}

impl Options {
    pub fn new(loaded: Loaded, config_path: Option<PathBuf>) -> Options {
        Options {
            loaded,
            config_path,
            over: Arc::new(|_| None),
            in_memory: false,
            snapshot_every: None,
            lesson: None,
            faults: None,
            on_live: None,
            on_outcome: None,
            tune: None,
            stop: None,
            on_listen: None,
        }
    }
}

/// Wall time.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(since.as_millis() as i64)
}

/// Runs until a signal, `stop` or a failure that cannot be mended here.
///
/// # Errors
/// What kept it from starting, or why it ended.
pub async fn run(options: Options) -> Result<(), Error> {
    let Options { loaded, config_path, over, in_memory, snapshot_every, lesson, faults, on_live, on_outcome, tune, stop, on_listen } = options;
    let settings = Arc::new(loaded.settings);
    let store = if in_memory { Store::memory()? } else { Store::open(&settings.data_dir)? };
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"), option_env!("BELLWETHER_REVISION").unwrap_or("unknown")));
    metrics.reload(true, now());
    let user_key = user_key(&store)?;
    let mut engine_settings = build::engine_settings(&settings);
    if let Some(tune) = &tune {
        tune(&mut engine_settings);
    }
    let receivers = build::receivers(&settings).map_err(Error::Settings)?;
    let actors = build::actors(&settings).map_err(Error::Settings)?;
    let decoders = build::decoders(&settings, user_key).map_err(Error::Settings)?;
    let listen: SocketAddr = settings.listen.parse().map_err(|e| Error::Settings(format!("listen {:?}: {e}", settings.listen)))?;

    let restored = store.after_restart()?;
    if restored > 0 {
        warn!(deliveries = restored, "messages were on their way when the last run ended; nobody knows whether they arrived");
    }
    let (mut engine, positions, unanswered) = keeper::open_engine(&store, engine_settings)?;
    keeper::teach(&store, &mut engine, &build::references(&settings), settings.pane_ms)?;
    let origin = keeper::origin(&store)?;
    if let Some(origin) = &origin {
        for place in &origin.places {
            let id = store.partition_id(&place.source, place.partition)?;
            if !engine.knows(id) {
                engine.declare(id);
            }
        }
    }

    // The source, and where it goes on.
    let (messages, source) = sync_channel(BATCHES_WAITING_MAX);
    let (asks, asked) = std::sync::mpsc::channel();
    let topics: Vec<String> = decoders.iter().map(|d| d.name.clone()).collect();
    for topic in &topics {
        metrics.add_source(topic, &crate::decode::Reason::ALL.iter().map(|r| r.as_str()).collect::<Vec<_>>());
    }
    for name in receivers.keys() {
        metrics.add_receiver(name);
    }
    let (steering, dead_letters) = match &settings.kafka {
        Some(kafka) => {
            let mut resume: HashMap<(String, i32), i64> = HashMap::new();
            for place in origin.iter().flat_map(|o| &o.places) {
                resume.insert((place.source.clone(), place.partition), place.next);
            }
            for (id, name, partition) in store.partitions()? {
                if let Some(next) = positions.get(&id) {
                    resume.insert((name, partition), *next);
                }
            }
            let idle_ms = (3 * settings.pane_ms + settings.lateness_ms).clamp(5_000, 30_000) as u64;
            let kafka_settings = KafkaSettings {
                brokers: kafka.brokers.join(","),
                topics,
                group: kafka.group.clone(),
                client_id: String::new(),
                properties: kafka.properties.clone(),
                from_ms: kafka.from_ms,
                idle_ms,
                memory_bytes: 64 * 1024 * 1024,
                headers: false,
            };
            let letters = dead_letters(&settings, kafka)?;
            let handle = KafkaSource::start(kafka_settings, Box::new(move |t, p| resume.get(&(t.to_owned(), p)).copied()), messages)?;
            (Steering::Kafka(handle), letters)
        }
        None => {
            let paths = settings.files.iter().map(PathBuf::from).collect();
            let letters = settings.dead_letter_file.clone().map(DeadLetters::file);
            (Steering::Files(FileSource::start(paths, messages, Pace::AsFastAsTaken)?), letters)
        }
    };

    // While the source finds its broker.
    if let (Some(teach), None) = (lesson, &origin) {
        teach(&mut engine);
    }
    let status = Arc::new(Status::default());
    let wake = Arc::new(Notify::new());
    let wake_errands = Arc::new(Notify::new());
    let decoders = if decoders.is_empty() { file_decoders(&settings, user_key) } else { decoders };
    let keeper = Keeper {
        engine,
        store: store.clone(),
        metrics: metrics.clone(),
        status: status.clone(),
        wake: wake.clone(),
        wake_errands: wake_errands.clone(),
        decoders,
        dead_letters,
        steering: Some(steering),
        windows: settings.maintenance.clone(),
        snapshot_every: snapshot_every.or_else(snapshot_every_of_environment).unwrap_or(SNAPSHOT_EVERY),
        on_live,
        on_outcome,
        origin,
        state: keeper::Turning::with(unanswered),
    };
    let (ended_tx, mut ended) = oneshot::channel();
    let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(move || {
        keeper.run(&source, &asked);
        let _ = ended_tx.send(());
    });
    let thread = thread.map_err(|source| Error::Io { what: "cannot start the keeper's thread", source })?;

    // Who tells people, and who shows.
    let (shutdown_tx, shutdown) = watch::channel(false);
    let telling = Arc::new(Mutex::new(Some(tell(&store, receivers, &settings, &metrics, &wake))));
    let in_force = Arc::new(ArcSwap::from_pointee(BTreeMap::new()));
    let errands = Workshop { store: store.clone(), asks: asks.clone(), status: status.clone(), wake: wake_errands, in_force: in_force.clone() };
    let acting = Arc::new(Mutex::new(Some(errands.open(actors, true))));
    let current = Arc::new(ArcSwap::from(settings.clone()));
    let reloader = Reloader {
        path: config_path,
        over,
        current: current.clone(),
        asks: asks.clone(),
        store: store.clone(),
        metrics: metrics.clone(),
        wake: wake.clone(),
        telling: telling.clone(),
        errands,
        acting: acting.clone(),
    };
    let front = Arc::new(Front {
        store: store.clone(),
        asks: Mutex::new(asks.clone()),
        status: status.clone(),
        metrics: metrics.clone(),
        settings: current,
        reloader: reloader.clone(),
        faults,
        actors: in_force,
    });
    let served = serve::start(listen, front.clone(), shutdown.clone()).await;
    let (address, pages) = match served {
        Ok(served) => served,
        Err(e) => {
            let _ = asks.send(Ask::Stop);
            let _ = thread.join();
            return Err(e.into());
        }
    };
    info!(address = %address, version = env!("CARGO_PKG_VERSION"), "bellwether runs");
    if let Some(tell) = on_listen {
        tell(address);
    }
    if let Some(url) = &settings.heartbeat_url {
        let whole: Arc<dyn Fn() -> Result<(), String> + Send + Sync> = {
            let front = front.clone();
            Arc::new(move || is_whole(&front))
        };
        let client = notify::http::Client::new(env!("CARGO_PKG_VERSION"), false, false, Vec::new()).map_err(Error::Settings)?;
        tokio::spawn(heartbeat(client, SecretString::from(url.clone()), HEARTBEAT_EVERY, whole, Arc::new(now), shutdown.clone()));
    }

    let stopped = async move {
        match stop {
            Some(stop) => drop(stop.await),
            None => std::future::pending().await,
        }
    };
    let ended_by_itself = wait(stopped, &mut ended, &reloader).await;
    info!("stopping");
    let stopping = async {
        // Whoever is out on an errand still finds somebody to bring the answer to.
        let last = lock(&acting).take();
        if let Some(acting) = last {
            let _ = acting.stop.send(true);
            let _ = tokio::time::timeout(ERRANDS_END, acting.task).await;
        }
        let _ = asks.send(Ask::Stop);
        if !ended_by_itself {
            let _ = ended.await;
        }
        let last = lock(&telling).take();
        if let Some(telling) = last {
            let _ = telling.stop.send(true);
            let _ = telling.task.await;
        }
        let _ = shutdown_tx.send(true);
        let _ = pages.await;
    };
    tokio::select! {
        () = stopping => {}
        () = tokio::time::sleep(SHUTDOWN) => warn!("not everything stopped in time; leaving it behind"),
        () = signal() => warn!("a second signal: leaving at once"),
    }
    let died = lock(&status.died).clone();
    match died {
        Some(why) => Err(Error::Ended(why)),
        None => Ok(()),
    }
}

/// Waits for a reason to stop, and reloads on SIGHUP meanwhile. True when the keeper ended by itself.
async fn wait(stopped: impl Future<Output = ()>, ended: &mut oneshot::Receiver<()>, reloader: &Reloader) -> bool {
    tokio::pin!(stopped);
    let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
    loop {
        let hung_up = async {
            match &mut hangup {
                Some(s) => s.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = signal() => return false,
            () = &mut stopped => return false,
            _ = &mut *ended => return true,
            _ = hung_up => {
                if let Err(why) = reloader.reload().await {
                    warn!(why = %why, "the configuration was not reloaded; the old one stays in force");
                }
            }
        }
    }
}

/// SIGTERM or SIGINT.
async fn signal() {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
    let terminated = async {
        match &mut term {
            Some(s) => drop(s.recv().await),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

/// The heartbeat goes out only while the whole way works: source, engine, store, outbox.
fn is_whole(front: &Front) -> Result<(), String> {
    use serve::Backend;
    if !front.is_healthy() {
        return Err("the engine does not turn".to_owned());
    }
    let ready = front.readiness();
    if !ready.ready {
        return Err(ready.reasons.join("; "));
    }
    if let Some(why) = lock(&front.status.trouble).clone() {
        return Err(why);
    }
    let stats = front.store.outbox_stats().map_err(|e| chain(&e))?;
    match stats.iter().find(|b| b.oldest.is_some_and(|t| now().since_ms(t) > 60_000)) {
        Some(stuck) => Err(format!("{} messages wait for receiver {:?}", stuck.pending, stuck.receiver)),
        None => Ok(()),
    }
}

/// The key under which users' names are hashed: made once, kept with the state.
fn user_key(store: &Store) -> Result<[u8; 16], Error> {
    use base64::Engine as _;
    let code = base64::engine::general_purpose::STANDARD;
    if let Some(text) = store.get_meta("user_key")? {
        let bytes = code.decode(text).ok().and_then(|b| <[u8; 16]>::try_from(b).ok());
        return bytes.ok_or_else(|| Error::Settings("the stored key for users' names is damaged".to_owned()));
    }
    let mut key = [0u8; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| std::io::Read::read_exact(&mut f, &mut key));
    read.map_err(|source| Error::Io { what: "no random bytes for the key of users' names", source })?;
    store.set_meta("user_key", &code.encode(key))?;
    Ok(key)
}

/// For tests that kill: state that is written all the time is found half written.
fn snapshot_every_of_environment() -> Option<Duration> {
    std::env::var("BELLWETHER_SNAPSHOT_EVERY_MS").ok()?.parse().ok().map(Duration::from_millis)
}

fn dead_letters(settings: &Settings, kafka: &settings::Kafka) -> Result<Option<DeadLetters>, Error> {
    let file = settings.dead_letter_file.clone().unwrap_or_else(|| settings.data_dir.join("dead-letters.ndjson"));
    if !settings.dead_letter_topic {
        return Ok(Some(DeadLetters::file(file)));
    }
    Ok(Some(DeadLetters::kafka(&kafka.brokers.join(","), &kafka.properties, file)?))
}

/// Files carry canonical events.
fn file_decoders(settings: &Settings, user_key: [u8; 16]) -> Vec<build::TopicDecoder> {
    (settings.files.iter())
        .map(|name| build::TopicDecoder {
            name: name.clone(),
            format: "canonical".to_owned(),
            kind: None,
            decoder: crate::decode::Decoder::canonical(crate::decode::Settings::new(user_key)),
        })
        .collect()
}

/// What errands need beside those who do them.
#[derive(Clone)]
struct Workshop {
    store: Store,
    asks: Sender<Ask>,
    status: Arc<Status>,
    wake: Arc<Notify>,
    /// Where results are brought that are awaited.
    in_force: Arc<ArcSwap<BTreeMap<String, crate::act::Actor>>>,
}

impl Workshop {
    fn open(&self, actors: BTreeMap<String, crate::act::Actor>, is_first: bool) -> Telling {
        let (stop, shutdown) = watch::channel(false);
        let actors = Arc::new(actors);
        self.in_force.store(actors.clone());
        let errands = errands::Errands {
            store: self.store.clone(),
            asks: self.asks.clone(),
            status: self.status.clone(),
            actors,
            wake: self.wake.clone(),
            is_first,
        };
        Telling { stop, task: tokio::spawn(Arc::new(errands).run(shutdown)) }
    }
}

/// The running dispatcher.
struct Telling {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn tell(store: &Store, receivers: BTreeMap<String, notify::Receiver>, settings: &Settings, metrics: &Arc<Metrics>, wake: &Arc<Notify>) -> Telling {
    let (stop, shutdown) = watch::channel(false);
    let fallbacks = settings.fallbacks();
    let told = metrics.clone();
    let observer = Arc::new(move |receiver: &str, outcome: &crate::domain::delivery::Outcome, took: Duration| {
        told.notification(receiver, outcome.as_str(), took.as_secs_f64());
    });
    let tuning = Tuning { seed: now().0 as u64, ..Tuning::default() };
    let counted = metrics.clone();
    let handed_on = Arc::new(move |from: &str, to: Option<&str>| counted.handed_on(from, to));
    let dispatcher = Dispatcher::new(Arc::new(StoreOutbox(store.clone())), receivers, fallbacks, Arc::new(now), (observer, handed_on), tuning);
    Telling { stop, task: tokio::spawn(dispatcher.run(shutdown, wake.clone())) }
}

/// Puts a changed configuration in force, whole or not at all.
#[derive(Clone)]
pub struct Reloader {
    path: Option<PathBuf>,
    over: Over,
    current: Arc<ArcSwap<Settings>>,
    asks: Sender<Ask>,
    store: Store,
    metrics: Arc<Metrics>,
    wake: Arc<Notify>,
    telling: Arc<Mutex<Option<Telling>>>,
    errands: Workshop,
    acting: Arc<Mutex<Option<Telling>>>,
}

impl Reloader {
    /// # Errors
    /// What is wrong with the new file, or which of its changes need a restart. The old one stays in force then.
    pub async fn reload(&self) -> Result<(), String> {
        let result = self.try_reload().await;
        self.metrics.reload(result.is_ok(), now());
        result
    }

    async fn try_reload(&self) -> Result<(), String> {
        let path = self.path.as_deref().ok_or("there is no configuration file to read again")?;
        let new = load(path, &*self.over).map_err(|p| p.to_string())?.settings;
        let old = self.current.load();
        let fixed = unreloadable(&old, &new);
        if !fixed.is_empty() {
            return Err(format!("{} cannot be changed without a restart", fixed.join(", ")));
        }
        let receivers = build::receivers(&new)?;
        let actors = build::actors(&new)?;
        for name in receivers.keys() {
            self.metrics.add_receiver(name);
        }
        let engine = build::engine_settings(&new);
        let (to, done) = oneshot::channel();
        self.asks
            .send(Ask::Reroute { models: engine.models, routes: engine.routes, respond: engine.respond, windows: new.maintenance.clone(), to })
            .map_err(|_| "the engine is not running")?;
        done.await.map_err(|_| "the engine is not running")?;
        let before = lock(&self.telling).take();
        if let Some(before) = before {
            let _ = before.stop.send(true);
            let _ = before.task.await;
        }
        *lock(&self.telling) = Some(tell(&self.store, receivers, &new, &self.metrics, &self.wake));
        let before = lock(&self.acting).take();
        if let Some(before) = before {
            // What is under way ends with the actions that it began with.
            let _ = before.stop.send(true);
            let _ = tokio::time::timeout(ERRANDS_END, before.task).await;
        }
        *lock(&self.acting) = Some(self.errands.open(actors, false));
        self.current.store(Arc::new(new));
        info!("the configuration was read again");
        Ok(())
    }
}

/// Keys in which both differ and that only a restart can change.
fn unreloadable(old: &Settings, new: &Settings) -> Vec<&'static str> {
    let changed = [
        ("kafka", old.kafka != new.kafka),
        ("files", old.files != new.files),
        ("segments", old.segments != new.segments),
        ("pane", old.pane_ms != new.pane_ms),
        ("lateness", old.lateness_ms != new.lateness_ms),
        ("budget", old.budget_false_pages.to_bits() != new.budget_false_pages.to_bits()),
        ("signals", old.signals != new.signals),
        ("listen", old.listen != new.listen),
        ("instance", old.instance != new.instance),
        ("currency", old.currency != new.currency),
        ("data_dir", old.data_dir != new.data_dir),
        ("redaction", old.redaction_allow != new.redaction_allow),
        ("heartbeat", old.heartbeat_url != new.heartbeat_url),
    ];
    changed.into_iter().filter(|c| c.1).map(|c| c.0).collect()
}

/// Reads a configuration with this process's environment and receivers. `over` goes before the environment.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path, over: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, settings::Problems> {
    let kinds: Vec<&notify::Kind> = notify::KINDS.iter().collect();
    settings::load(path, &|name| over(name).or_else(|| std::env::var(name).ok()), &kinds)
}
