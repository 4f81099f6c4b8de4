//! Pages, API, metrics and management over HTTP. Knows nobody but the trait through which it asks.

mod backend;

pub use backend::{Backend, CommandError, DeliveryRow, FaultButton, IncidentFilter, IncidentPage, PersonCommand, Readiness};
