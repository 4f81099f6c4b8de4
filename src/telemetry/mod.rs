//! The run-time counters and gauges that Prometheus scrapes.
