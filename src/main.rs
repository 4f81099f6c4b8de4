//! The binary: everything is in the library's room `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    bellwether::cli::main(std::env::args_os())
}
