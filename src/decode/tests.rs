//! Tests of the decode room.
