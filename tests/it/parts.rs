//! Where the real parts are found. `BELLWETHER_REQUIRE_REAL=1` makes a missing one a failure; without it a test says what it
//! left out and returns.

/// Unwraps a real part, or says that it is missing: a failure where real parts are required.
pub fn real<T>(what: &str, found: Result<T, String>) -> Option<T> {
    match found {
        Ok(part) => Some(part),
        Err(why) if std::env::var_os("BELLWETHER_REQUIRE_REAL").is_some() => panic!("{what} is required and was not found: {why}"),
        Err(why) => {
            eprintln!("left out: {what} was not found ({why})");
            None
        }
    }
}
