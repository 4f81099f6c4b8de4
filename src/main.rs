//! The command line. So far it says only what this build is; the rooms behind it are listed in the library's documentation.

fn main() {
    println!("bellwether {}: the daemon is not built yet; see README.md", env!("CARGO_PKG_VERSION"));
}
