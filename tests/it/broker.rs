//! A real Apache Kafka for the tests: one KRaft node on loopback, its jars fetched once by Maven into `target/`.
//!
//! The Java process hangs on a shell that waits for the end of its input: whichever way the test process ends, the pipe
//! closes, and the broker is killed with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bellwether::source::embedded::{Outgoing, Producer};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

const VERSION: &str = "4.1.0";
const START_WAIT: Duration = Duration::from_secs(90);

pub struct Broker {
    /// `host:port` for clients.
    pub bootstrap: String,
    folder: tempfile::TempDir,
    java: PathBuf,
    libs: PathBuf,
    /// The shell and the Java process it started; None: killed.
    running: Option<(Child, u32)>,
}

impl Broker {
    /// The one broker of this test binary; None where it is not to be had, which was then said.
    pub fn shared() -> Option<&'static Broker> {
        static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
        SHARED.get_or_init(|| crate::parts::real("Apache Kafka", Broker::start())).as_ref()
    }

    /// A broker of one's own, to be killed.
    pub fn own() -> Option<Broker> {
        crate::parts::real("Apache Kafka", Broker::start())
    }

    fn start() -> Result<Broker, String> {
        let java = java()?;
        let libs = libs()?.clone();
        let folder = tempfile::tempdir().map_err(|why| why.to_string())?;
        let (port, controller) = (free_port()?, free_port()?);
        let data = folder.path().join("data");
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
             log.dirs={}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\nmin.insync.replicas=1\ndefault.replication.factor=1\n\
             group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\nnum.network.threads=2\nnum.io.threads=2\n\
             log.retention.check.interval.ms=5000\n",
            data.display()
        );
        std::fs::write(folder.path().join("server.properties"), properties).map_err(|why| why.to_string())?;
        let mut broker = Broker { bootstrap: format!("127.0.0.1:{port}"), folder, java, libs, running: None };
        let format = broker.java(&["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", "server.properties"]);
        let format = Command::new("sh").arg("-c").arg(format).current_dir(broker.folder.path()).output().map_err(|why| why.to_string())?;
        if !format.status.success() {
            return Err(format!("formatting: {}", String::from_utf8_lossy(&format.stderr)));
        }
        broker.run()?;
        Ok(broker)
    }

    fn java(&self, arguments: &[&str]) -> String {
        let options = "-Xmx768m -XX:+UseSerialGC -XX:TieredStopAtLevel=1";
        format!("'{}' {options} -cp '{}/*' {}", self.java.display(), self.libs.display(), arguments.join(" "))
    }

    /// Starts the process and waits until it answers.
    fn run(&mut self) -> Result<(), String> {
        let java = self.java(&["kafka.Kafka", "server.properties"]);
        let script = format!("{java} >>log 2>&1 & echo $!; cat >/dev/null; kill -9 $!");
        let mut shell = Command::new("sh")
            .args(["-c", &script])
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|why| why.to_string())?;
        let mut pid = String::new();
        let out = shell.stdout.take().ok_or("no output")?;
        BufReader::new(out).read_line(&mut pid).map_err(|why| why.to_string())?;
        let pid = pid.trim().parse().map_err(|_| format!("no process id: {pid:?}"))?;
        self.running = Some((shell, pid));
        let client: BaseConsumer = config(&self.bootstrap).create().map_err(|why| why.to_string())?;
        let until = Instant::now() + START_WAIT;
        while client.fetch_metadata(None, Duration::from_secs(2)).is_err() {
            if Instant::now() > until {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(format!("it did not start: {log}"));
            }
        }
        Ok(())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some((mut shell, pid)) = self.running.take() {
            Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill");
            drop(shell.stdin.take());
            shell.wait().expect("the shell");
        }
    }

    /// `STOP` makes it hang, `CONT` lets it go on.
    pub fn signal(&self, name: &str) {
        let (_, pid) = self.running.as_ref().expect("a broker");
        Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().expect("kill");
    }

    /// On the same ports, with the same data.
    pub fn restart(&mut self) {
        self.run().expect("the broker starts again");
    }

    pub fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        topic.config = config.to_vec();
        let made = block_on(self.admin().create_topics([&topic], &AdminOptions::new())).expect("an answer");
        made.into_iter().for_each(|one| drop(one.expect("a topic")));
    }

    pub fn add_partitions(&self, name: &str, count: usize) {
        let made = block_on(self.admin().create_partitions([&NewPartitions::new(name, count)], &AdminOptions::new())).expect("an answer");
        made.into_iter().for_each(|one| drop(one.expect("partitions")));
    }

    pub fn delete_topic(&self, name: &str) {
        let gone = block_on(self.admin().delete_topics(&[name], &AdminOptions::new())).expect("an answer");
        gone.into_iter().for_each(|one| drop(one.expect("deleted")));
    }

    /// Deletes what lies before the offset.
    pub fn delete_records(&self, name: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(name, partition, Offset::Offset(before)).expect("an offset");
        block_on(self.admin().delete_records(&list, &AdminOptions::new())).expect("an answer");
    }

    /// `count` records to each of the partitions `0..partitions`, with the offset they should get in key and value.
    pub fn produce(&self, topic: &str, partitions: i32, first: i64, count: i64) {
        let producer = Producer::start(&self.bootstrap, &BTreeMap::new()).expect("a producer");
        for offset in first..first + count {
            for partition in 0..partitions {
                let (key, value) = (format!("{offset}"), format!("{{\"partition\":{partition},\"offset\":{offset}}}"));
                let out =
                    Outgoing { topic, partition: Some(partition), key: Some(key.as_bytes()), value: Some(value.as_bytes()), ..Outgoing::default() };
                producer.send(out).expect("sent");
            }
        }
        producer.flush(Duration::from_secs(60)).expect("all written");
    }

    /// What the group has confirmed.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let client: BaseConsumer = config(&self.bootstrap).set("group.id", group).create().expect("a client");
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let list = client.committed_offsets(list, Duration::from_secs(10)).expect("an answer");
        list.elements().first().and_then(|e| e.offset().to_raw()).filter(|offset| *offset >= 0)
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        config(&self.bootstrap).create().expect("a client")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("reconnect.backoff.max.ms", "500").set("log_level", "0");
    config
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|why| why.to_string())?;
    listener.local_addr().map(|a| a.port()).map_err(|why| why.to_string())
}

/// Java 17 or newer.
fn java() -> Result<PathBuf, String> {
    let mut places: Vec<PathBuf> = std::env::var_os("JAVA_HOME").map(PathBuf::from).into_iter().collect();
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.sort();
    places.extend(found.into_iter().filter(|p| p.to_string_lossy().contains("17")));
    let mut candidates: Vec<PathBuf> = places.into_iter().map(|home| home.join("bin/java")).collect();
    candidates.push("java".into());
    let new_enough = |java: &PathBuf| {
        let out = Command::new(java).arg("-version").output().ok()?;
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        let version = text.split('"').nth(1)?;
        version.split(['.', '-']).next()?.parse::<u32>().ok().filter(|major| *major >= 17)
    };
    candidates.into_iter().find(|java| new_enough(java).is_some()).ok_or_else(|| "no Java 17".to_owned())
}

/// The folder with Kafka's jars, fetched with the first use.
fn libs() -> Result<&'static PathBuf, String> {
    static LIBS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    LIBS.get_or_init(fetch).as_ref().map_err(Clone::clone)
}

fn fetch() -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
    let libs = target.join(format!("kafka-{VERSION}/libs"));
    if libs.is_dir() {
        return Ok(libs);
    }
    let work = target.join("kafka");
    std::fs::create_dir_all(&work).map_err(|why| why.to_string())?;
    let pom = format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
         <groupId>org.bellwether</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>\
         <dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>\
         <version>{VERSION}</version></dependency></dependencies></project>"
    );
    std::fs::write(work.join("pom.xml"), pom).map_err(|why| why.to_string())?;
    let fresh = target.join(format!("kafka-{VERSION}/fresh-{}", std::process::id()));
    let fetched = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"])
        .arg(format!("-DoutputDirectory={}", fresh.display()))
        .current_dir(&work)
        .output()
        .map_err(|why| format!("mvn: {why}"))?;
    if !fetched.status.success() {
        return Err(format!("mvn: {}", String::from_utf8_lossy(&fetched.stdout)));
    }
    // Whole or not at all; another process may have been faster.
    if std::fs::rename(&fresh, &libs).is_err() {
        let _ = std::fs::remove_dir_all(&fresh);
    }
    if libs.is_dir() { Ok(libs) } else { Err("the jars were not fetched".into()) }
}

/// A name that no other test uses.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{n}-{}", std::process::id())
}
