//! A broker within the process, for the demo and for quick tests, and the small producer that feeds it.
//!
//! The broker is the mock cluster that comes with librdkafka: it speaks the protocol on a loopback port, keeps groups and
//! commits, and takes outside clients. It is a stand-in for one reader at a low rate (some 5,000 records a second): above that,
//! and whenever members come and go, records fall out without an error. It knows no record times when it is asked for offsets,
//! so reading begins at the beginning or at the end. History does not go through it.

use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext};

use super::Error;
use crate::domain::Time;

/// How long the embedded broker may take to do as it is told.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// The embedded broker. It is gone when this is dropped.
pub struct Embedded {
    bootstrap: String,
    /// The library's handle may not change threads, so a thread of its own keeps it and is told what to do.
    orders: Sender<(Order, Sender<Result<(), String>>)>,
}

enum Order {
    Create { topic: String, partitions: i32 },
    Down,
    Up,
}

/// Writes records: idempotent, acknowledged by all replicas, compressed with lz4.
pub struct Producer {
    producer: BaseProducer<Deliveries>,
}

/// Counts what the broker did not take.
#[derive(Default)]
struct Deliveries {
    /// How many, and why the first.
    failed: std::sync::Mutex<(u64, Option<String>)>,
}

/// One record to write; everything but the topic may be left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outgoing<'a> {
    pub topic: &'a str,
    /// None: by the key, or any.
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// The record's time; None: now.
    pub time: Option<Time>,
    pub headers: &'a [(&'a str, &'a [u8])],
}

// === impl Embedded ===

impl Embedded {
    /// Starts a broker on a free loopback port. Topics that are asked for come into being by themselves, with four partitions.
    ///
    /// # Errors
    /// The library cannot make the cluster, or no thread can be started.
    pub fn start() -> Result<Embedded, Error> {
        let (orders, todo) = channel::<(Order, Sender<Result<(), String>>)>();
        let (started, start) = channel();
        let run = move || {
            let cluster = match MockCluster::new(1) {
                Ok(cluster) => cluster,
                Err(why) => {
                    let _ = started.send(Err(why.to_string()));
                    return;
                }
            };
            let _ = started.send(Ok(cluster.bootstrap_servers()));
            for (order, answer) in todo {
                let done = match order {
                    Order::Create { topic, partitions } => cluster.create_topic(&topic, partitions, 1),
                    Order::Down => cluster.broker_down(-1),
                    Order::Up => cluster.broker_up(-1),
                };
                let _ = answer.send(done.map_err(|why| why.to_string()));
            }
        };
        std::thread::Builder::new().name("kafka-embedded".into()).spawn(run).map_err(Error::Thread)?;
        match start.recv_timeout(ANSWER_WAIT) {
            Ok(Ok(bootstrap)) => Ok(Embedded { bootstrap, orders }),
            Ok(Err(why)) => Err(Error::Embedded(why)),
            Err(_) => Err(Error::Embedded("it did not start".into())),
        }
    }

    /// `host:port` for clients.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// # Errors
    /// The topic exists, or its name is not allowed.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        self.order(Order::Create { topic: topic.to_owned(), partitions })
    }

    /// Closes all connections and takes none until [`Embedded::up`].
    ///
    /// # Errors
    /// The broker is gone.
    pub fn down(&self) -> Result<(), Error> {
        self.order(Order::Down)
    }

    /// # Errors
    /// The broker is gone.
    pub fn up(&self) -> Result<(), Error> {
        self.order(Order::Up)
    }

    fn order(&self, order: Order) -> Result<(), Error> {
        let (answer, done) = channel();
        self.orders.send((order, answer)).map_err(|_| Error::Embedded("it has stopped".into()))?;
        done.recv_timeout(ANSWER_WAIT).map_err(|_| Error::Embedded("it did not answer".into()))?.map_err(Error::Embedded)
    }
}

// === impl Producer ===

impl Producer {
    /// # Errors
    /// A property that the library does not know.
    pub fn start(brokers: &str, properties: &BTreeMap<String, String>) -> Result<Producer, Error> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("queue.buffering.max.kbytes", "65536")
            .set("reconnect.backoff.max.ms", "1000");
        for (key, value) in properties {
            config.set(key, value);
        }
        let producer = BaseProducer::from_config_and_context(&config, Deliveries::default()).map_err(Error::Client)?;
        Ok(Producer { producer })
    }

    /// Puts a record into the queue; waits while the queue is full. Whether the broker took it is known after
    /// [`Producer::flush`].
    ///
    /// # Errors
    /// The record cannot be sent at all: it is too large, or its partition does not exist.
    pub fn send(&self, out: Outgoing<'_>) -> Result<(), KafkaError> {
        let mut record = BaseRecord::<[u8], [u8]>::to(out.topic);
        record.partition = out.partition;
        record.key = out.key;
        record.payload = out.value;
        record.timestamp = out.time.map(|time| time.0);
        if !out.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(out.headers.len());
            record.headers = Some(out.headers.iter().fold(headers, |h, (key, value)| h.insert(Header { key, value: Some(*value) })));
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    self.producer.poll(Duration::ZERO);
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((why, _)) => return Err(why),
            }
        }
    }

    /// Waits until the broker has answered for everything.
    ///
    /// # Errors
    /// It did not in time, or it refused records since the last flush; how many and why.
    pub fn flush(&self, wait: Duration) -> Result<(), String> {
        let until = Instant::now() + wait;
        while self.producer.in_flight_count() > 0 && Instant::now() < until {
            // Flushing sends at once what lingers; its time-out is ours to judge.
            let _ = self.producer.flush(Duration::from_millis(100));
        }
        let waiting = self.producer.in_flight_count();
        let mut failed = self.producer.context().failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match (waiting, std::mem::take(&mut *failed)) {
            (0, (0, _)) => Ok(()),
            (n, (0, _)) => Err(format!("{n} records were not answered for")),
            (_, (n, why)) => Err(format!("{n} records were refused: {}", why.unwrap_or_default())),
        }
    }
}

impl ClientContext for Deliveries {
    fn error(&self, _: KafkaError, _: &str) {
        // What matters comes with the delivery reports.
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((why, _)) = result {
            let mut failed = self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            failed.0 += 1;
            failed.1.get_or_insert_with(|| why.to_string());
        }
    }
}
