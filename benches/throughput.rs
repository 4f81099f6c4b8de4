//! How much of a core does watching cost, beside the least that reading costs?
//!
//! The same topic of a real broker is read by two processes in turn, each bound to one core: `bellwether run`, from the first
//! record to "caught up" (client, decoding, panes, judging, state), and a bare consumer that only decodes each record into a
//! typed structure by serde and throws it away. What counts is the CPU time of the process per event, for wall time is the
//! broker's too. Records are keyed by model, so that each model's series fill in one partition, or by user, so that every series
//! fills in all twelve. `cargo bench --bench throughput [-- RUNS [MODELS]]`; results with their conditions lie in
//! `benches/results/throughput.md`.
//!
//! A virtual machine's free memory may lie with its host, and the first touch of a page then costs thirty times what it costs elsewhere (6.6 against
//! 0.2 us for 4 KiB were measured in one). With `KEEP_MIB=N` so much memory is touched first and kept, so that the processes measured share
//! the little that is left, most of which the host has handed out already: leave 3,500 MiB of what is available.
//!
//! `UNDER="perf record -g -o FILE"` runs the daemon under a profiler; its figures mean nothing then.
//!
//! The bare consumer polls: the library's batch call, which is 10 to 18 % cheaper, needs unsafe code, and so neither side uses it.

#[path = "../tests/it/broker.rs"]
#[allow(dead_code)]
mod broker;
#[path = "../tests/it/parts.rs"]
mod parts;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bellwether::domain::Time;
use bellwether::fleet::{Fleet, Plan};
use bellwether::source::embedded::{Outgoing, Producer};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::Deserialize;
use serde_json::value::RawValue;

const PARTITIONS: i32 = 12;
const RECORDS: u64 = 1_000_000;
const CORE: &str = "1";
/// Ticks of the kernel's clock in a second, on every Linux that matters.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the natural first program would decode into; values of features stay as they are.
#[derive(Deserialize)]
#[allow(dead_code)]
struct Event<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    prediction_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(borrow)]
    version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    environment: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Option<Cow<'a, str>>,
    latency_ms: Option<f64>,
    first_token_ms: Option<f64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cost_usd: Option<f64>,
    score: Option<f64>,
    #[serde(borrow)]
    output: Option<Cow<'a, str>>,
    #[serde(borrow)]
    label: Option<&'a RawValue>,
    #[serde(borrow)]
    segments: Option<HashMap<Cow<'a, str>, Cow<'a, str>>>,
    #[serde(borrow)]
    features: Option<HashMap<Cow<'a, str>, &'a RawValue>>,
    #[serde(borrow)]
    flags: Option<HashMap<Cow<'a, str>, &'a RawValue>>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == "--bare") {
        return bare(&arguments[at + 1], &arguments[at + 2]);
    }
    if !arguments.iter().any(|a| a == "--bench") {
        return; // `cargo test --benches` only asks whether it builds.
    }
    let mut numbers = arguments.iter().filter_map(|a| a.parse::<usize>().ok());
    let (runs, only) = (numbers.next().unwrap_or(5).max(1), numbers.next());
    let Some(broker) = broker::Broker::shared() else { return };
    let mut kept = vec![0u8; std::env::var("KEEP_MIB").ok().and_then(|mib| mib.parse::<usize>().ok()).unwrap_or(0) << 20];
    kept.iter_mut().step_by(4_096).for_each(|byte| *byte = 1);
    println!(
        "| series | keyed by | bare, us CPU per event | run, us CPU per event | run / bare | events per CPU second | peak RSS, MiB |\n| --- | --- | --- | --- | --- | --- | --- |"
    );
    let rows = [(21, 3, 50.0, "user"), (1_010, 10, 1.2, "model"), (1_010, 10, 1.2, "user")];
    for (models, segments, per_second, keyed_by) in rows.into_iter().filter(|row| only.is_none_or(|m| m == row.0)) {
        let topic = broker::unique("throughput");
        broker.create_topic(&topic, PARTITIONS, &[("retention.ms", "-1")]);
        let sent = fill(&broker.bootstrap, &topic, Plan::large(models, segments, per_second), keyed_by == "model");
        let (mut bares, mut watched, mut series, mut memory) = (Vec::new(), Vec::new(), 0, 0);
        for _ in 0..runs {
            bares.push(measure_bare(&broker.bootstrap, &topic, sent));
            let run = measure_run(&broker.bootstrap, &topic, sent);
            watched.push(run.cpu_us);
            series = run.series;
            memory = memory.max(run.peak_mib);
        }
        let (bare, run) = (median(&mut bares), median(&mut watched));
        println!(
            "| {series} | {keyed_by} | {bare:.2} ({:.2} to {:.2}) | {run:.2} ({:.2} to {:.2}) | {:.2} | {:.0} | {memory} |",
            bares[0],
            bares[runs - 1],
            watched[0],
            watched[runs - 1],
            run / bare,
            1e6 / run
        );
    }
    drop(std::hint::black_box(kept));
}

fn median(all: &mut [f64]) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// A day ago, so many records; how many there were.
fn fill(brokers: &str, topic: &str, plan: Plan, by_model: bool) -> u64 {
    let producer = Producer::start(brokers, &BTreeMap::new()).expect("a producer");
    let start = Time(bellwether::daemon::now().0 - 86_400_000).floor(3_600_000);
    let mut fleet = Fleet::new(plan, 1, start);
    let (mut sent, mut at, mut made) = (0, start, Vec::new());
    while sent < RECORDS {
        at = at.plus_ms(10_000);
        made.clear();
        fleet.next_before(at, &mut made);
        for m in &made {
            let key = if by_model { model_of(&m.json) } else { m.key.clone() };
            let out = Outgoing { topic, key: Some(key.as_bytes()), value: Some(&m.json), time: Some(m.arrival), ..Outgoing::default() };
            producer.send(out).expect("sent");
        }
        sent += made.len() as u64;
    }
    producer.flush(Duration::from_secs(60)).expect("all written");
    eprintln!("{topic}: {sent} records over {} s of event time", at.since_ms(start) / 1_000);
    sent
}

fn model_of(json: &[u8]) -> String {
    let event: Event<'_> = serde_json::from_slice(json).expect("an event");
    event.model.map(Cow::into_owned).unwrap_or_default()
}

// === the bare consumer ===

fn measure_bare(brokers: &str, topic: &str, sent: u64) -> f64 {
    let out = Command::new("taskset")
        .args(["-c", CORE])
        .arg(std::env::current_exe().expect("a path"))
        .args(["--bare", brokers, topic])
        .output()
        .expect("taskset");
    let text = String::from_utf8_lossy(&out.stdout);
    let mut words = text.split_whitespace();
    let (count, seconds): (u64, f64) =
        (words.next().and_then(|w| w.parse().ok()).expect("a count"), words.next().and_then(|w| w.parse().ok()).expect("seconds"));
    assert_eq!(count, sent, "{text}");
    seconds * 1e6 / sent as f64
}

/// Prints how many records it read and decoded, and the CPU time that it took.
fn bare(brokers: &str, topic: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "bare").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.set("fetch.queue.backoff.ms", "5").create().expect("a client");
    let mut list = TopicPartitionList::new();
    for p in 0..PARTITIONS {
        list.add_partition_offset(topic, p, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&list).expect("assigned");
    let (mut count, mut ends) = (0u64, 0);
    let mut latency = 0.0;
    while ends < PARTITIONS {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(m)) => {
                let event: Event<'_> = serde_json::from_slice(m.payload().unwrap_or_default()).expect("an event");
                latency += event.latency_ms.unwrap_or(0.0);
                count += 1;
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ends += 1,
            Some(Err(why)) => panic!("{why}"),
            None => {}
        }
    }
    println!("{count} {} {latency}", cpu_seconds(std::process::id()).expect("our own"));
}

// === the daemon ===

struct Run {
    cpu_us: f64,
    series: u64,
    peak_mib: u64,
}

fn measure_run(brokers: &str, topic: &str, sent: u64) -> Run {
    let folder = tempfile::tempdir().expect("a folder");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let yaml = format!(
        "kafka: {{brokers: [\"{brokers}\"], topics: [{topic}], group: {}, from: 30d}}\nsegments: [region]\nlisten: 127.0.0.1:{port}\n",
        broker::unique("run")
    );
    std::fs::write(folder.path().join("bellwether.yaml"), yaml).expect("written");
    let log = folder.path().join("log");
    let file = std::fs::File::create(&log).expect("a log");
    let mut child = Command::new("taskset")
        .args(["-c", CORE])
        .args(std::env::var("UNDER").unwrap_or_default().split_whitespace())
        .args([env!("CARGO_BIN_EXE_bellwether"), "run", "--log-format", "json", "--config"])
        .arg(folder.path().join("bellwether.yaml"))
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .stdout(file.try_clone().expect("a log"))
        .stderr(file)
        .stdin(Stdio::null())
        .spawn()
        .expect("taskset");
    // Asking would cost it time; its log does not.
    let until = Instant::now() + Duration::from_secs(600);
    while !read(&log).contains("caught up") {
        assert!(Instant::now() < until && child.try_wait().expect("its status").is_none(), "{}", read(&log));
        std::thread::sleep(Duration::from_millis(20));
    }
    let seconds = cpu_seconds(child.id()).expect("its time");
    let status = read(Path::new(&format!("/proc/{}/status", child.id())));
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
    let metrics = get(port, "/metrics");
    let total = |name: &str| metrics.lines().filter(|l| l.starts_with(name)).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    let read_events = total("bellwether_events_total");
    assert!(read_events <= sent as f64 && read_events > 0.99 * sent as f64, "{read_events} of {sent} events");
    let series = total("bellwether_series") as u64;
    if std::env::var_os("UNDER").is_some() {
        // A profiler writes what it has on an interrupt.
        let _ = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        let _ = child.wait();
    }
    let _ = child.kill();
    let _ = child.wait();
    Run { cpu_us: seconds * 1e6 / sent as f64, series, peak_mib: peak / 1024 }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn get(port: u16, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a door");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// User and system time of a process so far.
fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}
