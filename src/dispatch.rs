//! The outbox is worked here: one lane per incident and receiver.
