//! The life of an incident, as three pure functions: `decide` says what happens, `evolve` makes it so, `effects` says who hears.
//!
//! The everyday picture is a case file. What is put into it (events) is never changed; what it says now (the incident) is the
//! sum of what was put in; and for each sheet there is a rule about whom to tell. Keeping the three apart means that a replay
//! can rebuild the file without ringing anybody, and that every transition can be asked "why".

mod correlate;
mod life;

pub use correlate::{Verdict, correlate};
pub use life::{BRANCHES_MAX, Command, Effect, Event, Happening, Refusal, Stood, belongs, decide, effects, evolve, is_due, timeline_of};
