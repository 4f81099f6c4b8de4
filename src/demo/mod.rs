//! Everything in one process, to be tried in a minute.
