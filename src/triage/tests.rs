//! Cases by name, and what triage says of them.
