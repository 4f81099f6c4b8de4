//! The run-time counters and gauges that Prometheus scrapes: every name, help and label in one place.
//!
//! Labels come from closed sets and from the configuration (names of sources, topics and receivers), never from users' data: a
//! model or a segment is no label, because a fleet would then decide how much memory its own watcher needs. What is known at the
//! start is there at the start, with 0, so that a rate over it never begins with a hole.
//!
//! `process_*` are read from `/proc` by hand, under the names that Prometheus' own clients use.

use prometheus::core::Collector;
use prometheus::{
    Counter, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::domain::incident::Incident;
use crate::domain::{Category, Decision, DetectorState, IncidentState, Severity, Time};
use crate::engine::view::SeriesStates;

/// Content type of [`Metrics::text`]. Prometheus 3 refuses an answer without one.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// From 5 ms to a minute and more, doubling: how long a request or a pane takes.
const LATENCY_SECONDS: [f64; 15] = [0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 60.0];
/// From a second to a day: how long until a failure is found, acknowledged, mitigated; how late an event arrives.
const LIFE_SECONDS: [f64; 14] = [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 43_200.0, 86_400.0];

/// Where nobody is left.
const NOBODY: &str = "none";
const OUTCOMES: [&str; 5] = ["accepted", "refused", "retry", "uncertain", "untrusted"];
const DEAD_LETTERS: [&str; 3] = ["topic", "file", "lost"];

/// All metrics of one process, in a registry of their own.
pub struct Metrics {
    registry: Registry,
    events: IntCounterVec,
    rejected: IntCounterVec,
    late: IntCounterVec,
    duplicate: IntCounterVec,
    delay: HistogramVec,
    lag_records: IntGaugeVec,
    lag_seconds: GaugeVec,
    watermark: GaugeVec,
    panes_closed: IntCounter,
    pane_close: Histogram,
    series: IntGaugeVec,
    series_dropped: IntCounterVec,
    alarms: IntCounterVec,
    budget_spent: Gauge,
    incidents: IntGaugeVec,
    transitions: IntCounterVec,
    to_detect: HistogramVec,
    to_acknowledge: HistogramVec,
    to_mitigate: HistogramVec,
    notifications: IntCounterVec,
    notification_duration: HistogramVec,
    handed_on: IntCounterVec,
    outbox_pending: IntGaugeVec,
    outbox_oldest: GaugeVec,
    reload_ok: IntGauge,
    reload_at: Gauge,
    store_errors: IntCounter,
    reviews_overdue: IntGauge,
    dead_letters: IntCounterVec,
    bounds: IntCounterVec,
    source_errors: IntCounterVec,
    process: Process,
}

/// The process as the kernel sees it.
struct Process {
    cpu: Counter,
    resident: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    started: Gauge,
}

// === impl Metrics ===

impl Metrics {
    /// Metrics at zero. `version` and `revision` say which build this is.
    pub fn new(version: &str, revision: &str) -> Metrics {
        let registry = Registry::new();
        let r = &registry;
        let build = int_gauges(r, "bellwether_build_info", "Always 1; the labels say which build this is.", &["version", "revision", "rustversion"]);
        build.with_label_values(&[version, revision, RUST_VERSION]).set(1);
        let metrics = Metrics {
            events: counters(r, "bellwether_events_total", "Events accepted, each once.", &["source", "kind", "format"]),
            rejected: counters(r, "bellwether_events_rejected_total", "Events that could not be used, by reason.", &["source", "reason"]),
            late: counters(r, "bellwether_events_late_total", "Events that came after their pane had closed.", &["source"]),
            duplicate: counters(r, "bellwether_events_duplicate_total", "Events seen before and dropped.", &["source"]),
            delay: histograms(r, "bellwether_event_delay_seconds", "Time between an event and its arrival.", &["source"], &LIFE_SECONDS),
            lag_records: int_gauges(r, "bellwether_kafka_lag_records", "Records not yet read.", &["topic", "partition"]),
            lag_seconds: gauges(r, "bellwether_kafka_lag_seconds", "Age of the oldest record not yet read.", &["topic", "partition"]),
            watermark: gauges(r, "bellwether_watermark_timestamp_seconds", "Event time up to which everything has been judged.", &["source"]),
            panes_closed: counter(r, "bellwether_panes_closed_total", "Panes closed and judged."),
            pane_close: histogram(r, "bellwether_pane_close_duration_seconds", "Time it takes to close and judge one pane.", &LATENCY_SECONDS),
            series: int_gauges(r, "bellwether_series", "Series by what their detector is able to say.", &["state"]),
            series_dropped: counters(r, "bellwether_series_dropped_total", "Series not watched, by reason.", &["reason"]),
            alarms: counters(r, "bellwether_alarms_total", "Readings over their threshold, raised or held.", &["category", "decision"]),
            budget_spent: gauge(r, "bellwether_page_budget_spent_ratio", "Share of the accepted false pages spent in this window."),
            incidents: int_gauges(r, "bellwether_incidents", "Incidents by severity, state and category.", &["severity", "state", "category"]),
            transitions: counters(r, "bellwether_incident_transitions_total", "Changes of an incident's state.", &["to"]),
            to_detect: histograms(r, "bellwether_time_to_detect_seconds", "Time from onset to opening.", &["severity"], &LIFE_SECONDS),
            to_acknowledge: histograms(
                r,
                "bellwether_time_to_acknowledge_seconds",
                "Time from opening to acknowledgement.",
                &["severity"],
                &LIFE_SECONDS,
            ),
            to_mitigate: histograms(r, "bellwether_time_to_mitigate_seconds", "Time from opening to mitigation.", &["severity"], &LIFE_SECONDS),
            notifications: counters(r, "bellwether_notifications_total", "Attempts to tell a receiver, by outcome.", &["receiver", "outcome"]),
            notification_duration: histograms(
                r,
                "bellwether_notification_duration_seconds",
                "Time one attempt takes.",
                &["receiver", "outcome"],
                &LATENCY_SECONDS,
            ),
            handed_on: counters(
                r,
                "bellwether_notification_fallbacks_total",
                "Messages that a receiver did not take and another was given; to none if nobody was left.",
                &["receiver", "to"],
            ),
            outbox_pending: int_gauges(r, "bellwether_outbox_pending", "Messages not yet accepted or refused.", &["receiver"]),
            outbox_oldest: gauges(
                r,
                "bellwether_outbox_oldest_timestamp_seconds",
                "When the oldest pending message was written; 0 if none is.",
                &["receiver"],
            ),
            reload_ok: int_gauge(r, "bellwether_config_last_reload_successful", "Whether the last reading of the configuration succeeded."),
            reload_at: gauge(r, "bellwether_config_last_reload_success_timestamp_seconds", "When the configuration was last read with success."),
            store_errors: counter(r, "bellwether_store_errors_total", "Failed reads and writes of the store."),
            reviews_overdue: int_gauge(r, "bellwether_reviews_overdue", "Reviews whose date has passed."),
            dead_letters: counters(r, "bellwether_dead_letters_total", "Rejected events kept aside, by where they went.", &["to"]),
            bounds: counters(r, "bellwether_bounds_met_total", "How often a named bound was met.", &["bound"]),
            source_errors: counters(r, "bellwether_source_errors_total", "Errors of a source that is being retried.", &["source"]),
            process: Process {
                cpu: registered(r, Counter::new("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")),
                resident: gauge(r, "process_resident_memory_bytes", "Resident memory size in bytes."),
                open_fds: gauge(r, "process_open_fds", "Number of open file descriptors."),
                max_fds: gauge(r, "process_max_fds", "Maximum number of open file descriptors."),
                started: gauge(r, "process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
            },
            registry,
        };
        metrics.begin_at_zero();
        metrics
    }

    /// Every label combination that is known before anything happens.
    fn begin_at_zero(&self) {
        for category in Category::NAMES {
            for decision in Decision::NAMES {
                self.alarms.with_label_values(&[category, decision]);
            }
        }
        self.incidents(&[]);
        self.series(&SeriesStates::default());
        for to in IncidentState::NAMES {
            self.transitions.with_label_values(&[to]);
        }
        for severity in ["1", "2", "3"] {
            self.to_detect.with_label_values(&[severity]);
            self.to_acknowledge.with_label_values(&[severity]);
            self.to_mitigate.with_label_values(&[severity]);
        }
        self.series_dropped.with_label_values(&["budget"]);
        for to in DEAD_LETTERS {
            self.dead_letters.with_label_values(&[to]);
        }
    }

    /// Makes a source known: its counters begin at 0. `reasons` are all for which it may reject.
    pub fn add_source(&self, source: &str, reasons: &[&str]) {
        for reason in reasons {
            self.rejected.with_label_values(&[source, reason]);
        }
        self.late.with_label_values(&[source]);
        self.duplicate.with_label_values(&[source]);
        self.delay.with_label_values(&[source]);
        self.source_errors.with_label_values(&[source]);
    }

    /// Makes a receiver known: its counters begin at 0.
    pub fn add_receiver(&self, receiver: &str) {
        for outcome in OUTCOMES {
            self.notifications.with_label_values(&[receiver, outcome]);
        }
        self.handed_on.with_label_values(&[receiver, NOBODY]);
        self.outbox(receiver, 0, None);
    }

    // --- events ---

    pub fn events(&self, source: &str, kind: &str, format: &str, n: u64) {
        self.events.with_label_values(&[source, kind, format]).inc_by(n);
    }

    pub fn rejected(&self, source: &str, reason: &str, n: u64) {
        self.rejected.with_label_values(&[source, reason]).inc_by(n);
    }

    pub fn late(&self, source: &str, n: u64) {
        self.late.with_label_values(&[source]).inc_by(n);
    }

    pub fn duplicate(&self, source: &str, n: u64) {
        self.duplicate.with_label_values(&[source]).inc_by(n);
    }

    /// How long after it happened an event arrived. A clock ahead of ours counts as no delay.
    pub fn delay(&self, source: &str, seconds: f64) {
        self.delay.with_label_values(&[source]).observe(seconds.max(0.0));
    }

    pub fn lag(&self, topic: &str, partition: i32, records: i64, seconds: f64) {
        let partition = partition.to_string();
        self.lag_records.with_label_values(&[topic, &partition]).set(records);
        self.lag_seconds.with_label_values(&[topic, &partition]).set(seconds);
    }

    /// A partition that went to somebody else has no lag of ours.
    pub fn forget_partition(&self, topic: &str, partition: i32) {
        let partition = partition.to_string();
        // Absent already is what was wanted.
        let _ = self.lag_records.remove_label_values(&[topic, &partition]);
        let _ = self.lag_seconds.remove_label_values(&[topic, &partition]);
    }

    pub fn watermark(&self, source: &str, at: Time) {
        self.watermark.with_label_values(&[source]).set(seconds(at));
    }

    pub fn source_error(&self, source: &str) {
        self.source_errors.with_label_values(&[source]).inc();
    }

    /// A rejected event was kept aside: in the dead-letter `topic`, in a `file`, or it is `lost`.
    pub fn dead_letter(&self, to: &str, n: u64) {
        self.dead_letters.with_label_values(&[to]).inc_by(n);
    }

    // --- judging ---

    /// `n` panes were closed together in `seconds`; each takes its share.
    pub fn pane_closed(&self, n: u64, seconds: f64) {
        self.panes_closed.inc_by(n);
        if n > 0 {
            self.pane_close.observe(seconds / n as f64);
        }
    }

    pub fn series(&self, states: &SeriesStates) {
        for state in DetectorState::ALL {
            let n = match state {
                DetectorState::Warming => states.warming,
                DetectorState::Armed => states.armed,
                DetectorState::Starved => states.starved,
                DetectorState::Frozen => states.frozen,
                DetectorState::Off => states.off,
            };
            self.series.with_label_values(&[state.as_str()]).set(i64::try_from(n).unwrap_or(i64::MAX));
        }
    }

    pub fn series_dropped(&self, reason: &str, n: u64) {
        self.series_dropped.with_label_values(&[reason]).inc_by(n);
    }

    pub fn alarm(&self, category: Category, decision: Decision) {
        self.alarms.with_label_values(&[category.as_str(), decision.as_str()]).inc();
    }

    /// Share of the accepted false pages spent so far: 1 is all of them.
    pub fn budget_spent(&self, ratio: f64) {
        self.budget_spent.set(ratio);
    }

    /// Bounds with their totals so far, as the engine counts them.
    pub fn bounds(&self, totals: &[(String, u64)]) {
        for (bound, total) in totals {
            let counter = self.bounds.with_label_values(&[bound]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    // --- incidents ---

    /// The incidents there are: live ones always have their cells, others only while there are any.
    pub fn incidents(&self, incidents: &[Incident]) {
        // Counted first and set once, so that a scrape in between sees no dip.
        let mut counts = std::collections::BTreeMap::new();
        for severity in ["1", "2", "3"] {
            for state in IncidentState::ALL {
                for category in Category::NAMES {
                    counts.insert((severity, state.as_str(), *category), 0i64);
                }
            }
        }
        for incident in incidents {
            let severity = severity_label(incident.severity);
            *counts.entry((severity, incident.state.as_str(), incident.key.category.as_str())).or_default() += 1;
        }
        for ((severity, state, category), n) in counts {
            let is_live = state.parse::<IncidentState>().is_ok_and(IncidentState::is_live);
            if n > 0 || is_live {
                self.incidents.with_label_values(&[severity, state, category]).set(n);
            } else {
                let _ = self.incidents.remove_label_values(&[severity, state, category]);
            }
        }
    }

    pub fn transition(&self, to: IncidentState) {
        self.transitions.with_label_values(&[to.as_str()]).inc();
    }

    pub fn time_to_detect(&self, severity: Severity, seconds: f64) {
        self.to_detect.with_label_values(&[severity_label(severity)]).observe(seconds.max(0.0));
    }

    pub fn time_to_acknowledge(&self, severity: Severity, seconds: f64) {
        self.to_acknowledge.with_label_values(&[severity_label(severity)]).observe(seconds.max(0.0));
    }

    pub fn time_to_mitigate(&self, severity: Severity, seconds: f64) {
        self.to_mitigate.with_label_values(&[severity_label(severity)]).observe(seconds.max(0.0));
    }

    pub fn reviews_overdue(&self, n: i64) {
        self.reviews_overdue.set(n);
    }

    // --- telling people ---

    /// One attempt; `outcome` as of `Outcome::as_str`.
    pub fn notification(&self, receiver: &str, outcome: &str, seconds: f64) {
        self.notifications.with_label_values(&[receiver, outcome]).inc();
        self.notification_duration.with_label_values(&[receiver, outcome]).observe(seconds.max(0.0));
    }

    /// What `receiver` did not take was given to `to`, or nobody was left.
    pub fn handed_on(&self, receiver: &str, to: Option<&str>) {
        self.handed_on.with_label_values(&[receiver, to.unwrap_or(NOBODY)]).inc();
    }

    pub fn outbox(&self, receiver: &str, pending: u64, oldest: Option<Time>) {
        self.outbox_pending.with_label_values(&[receiver]).set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.outbox_oldest.with_label_values(&[receiver]).set(oldest.map_or(0.0, seconds));
    }

    // --- ourselves ---

    /// The configuration was read: with success at `at`, or not.
    pub fn reload(&self, ok: bool, at: Time) {
        self.reload_ok.set(i64::from(ok));
        if ok {
            self.reload_at.set(seconds(at));
        }
    }

    pub fn store_error(&self) {
        self.store_errors.inc();
    }

    /// Everything in Prometheus' text format 0.0.4. Takes no lock that counting waits for, and touches no store.
    pub fn text(&self) -> String {
        self.process.look();
        let mut out = Vec::with_capacity(64 * 1024);
        match TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            Ok(()) => String::from_utf8(out).unwrap_or_default(),
            // Cannot happen with names that were registered; if it does, the scrape says so and the process goes on.
            Err(e) => format!("# {e}\n"),
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn seconds(at: Time) -> f64 {
    at.0 as f64 / 1_000.0
}

fn severity_label(severity: Severity) -> &'static str {
    match severity.level() {
        1 => "1",
        2 => "2",
        _ => "3",
    }
}

// === impl Process ===

impl Process {
    /// Reads `/proc/self` anew. Where there is none, the values stay at 0.
    fn look(&self) {
        // Ticks are a hundredth of a second in everything that the Linux kernel shows to programs, whatever its own clock does.
        const TICKS_PER_SECOND: f64 = 100.0;
        if let Ok(stat) = std::fs::read_to_string("/proc/self/stat") {
            // The name, in parentheses, may hold anything; fields are counted behind it, and the first of them is the third.
            let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
            let ticks = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<f64>().ok());
            if let (Some(user), Some(system)) = (ticks(14), ticks(15)) {
                self.cpu.inc_by(((user + system) / TICKS_PER_SECOND - self.cpu.get()).max(0.0));
            }
            if let (Some(after_boot), Some(boot)) = (ticks(22), boot_seconds()) {
                self.started.set(boot + after_boot / TICKS_PER_SECOND);
            }
        }
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
            self.resident.set(kib.unwrap_or(0.0) * 1_024.0);
        }
        if let Ok(fds) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the listing itself.
            self.open_fds.set(fds.count().saturating_sub(1) as f64);
        }
        if let Ok(limits) = std::fs::read_to_string("/proc/self/limits") {
            let soft = limits.lines().find_map(|l| l.strip_prefix("Max open files")?.split_ascii_whitespace().next()?.parse::<f64>().ok());
            self.max_fds.set(soft.unwrap_or(f64::INFINITY));
        }
    }
}

fn boot_seconds() -> Option<f64> {
    std::fs::read_to_string("/proc/stat").ok()?.lines().find_map(|l| l.strip_prefix("btime ")?.trim().parse().ok())
}

// --- making and registering ---

/// The compiler's version, as far as the build says it.
const RUST_VERSION: &str = match option_env!("BELLWETHER_RUSTC_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_RUST_VERSION"),
};

fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("names, labels and buckets are written above and are valid");
    registry.register(Box::new(collector.clone())).expect("every name stands above once");
    collector
}

fn counter(r: &Registry, name: &str, help: &str) -> IntCounter {
    registered(r, IntCounter::new(name, help))
}
fn counters(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(r, IntCounterVec::new(Opts::new(name, help), labels))
}
fn gauge(r: &Registry, name: &str, help: &str) -> Gauge {
    registered(r, Gauge::new(name, help))
}
fn gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    registered(r, GaugeVec::new(Opts::new(name, help), labels))
}
fn int_gauge(r: &Registry, name: &str, help: &str) -> IntGauge {
    registered(r, IntGauge::new(name, help))
}
fn int_gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    registered(r, IntGaugeVec::new(Opts::new(name, help), labels))
}
fn histogram(r: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    registered(r, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}
fn histograms(r: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    registered(r, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_begins_at_zero() {
        let metrics = Metrics::new("0.0.0", "abc");
        metrics.add_source("kafka", &["not_json"]);
        metrics.add_receiver("oncall");
        let text = metrics.text();
        for line in [
            "bellwether_events_rejected_total{reason=\"not_json\",source=\"kafka\"} 0",
            "bellwether_alarms_total{category=\"bias\",decision=\"held\"} 0",
            "bellwether_incidents{category=\"cost_anomaly\",severity=\"1\",state=\"open\"} 0",
            "bellwether_series{state=\"starved\"} 0",
            "bellwether_notifications_total{outcome=\"uncertain\",receiver=\"oncall\"} 0",
            "bellwether_time_to_mitigate_seconds_count{severity=\"3\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_process_is_read_from_the_kernel() {
        let text = Metrics::new("0.0.0", "abc").text();
        let value = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap_or(-1.0);
        assert!(value("process_resident_memory_bytes ") > 1e6, "{text}");
        assert!(value("process_start_time_seconds ") > 1.6e9);
        assert!(value("process_open_fds ") > 2.0);
        assert!(value("process_max_fds ") > 2.0);
    }

    #[test]
    fn totals_of_bounds_only_grow() {
        let metrics = Metrics::new("0.0.0", "abc");
        for total in [3, 7, 5] {
            metrics.bounds(&[("fields_invalid".into(), total)]);
        }
        assert!(metrics.text().contains("bellwether_bounds_met_total{bound=\"fields_invalid\"} 7"));
    }
}
