//! The binary: everything is in the library's room `cli`.

use std::process::ExitCode;

/// The system's allocator takes more time where a hundred thousand series live (`benches/results/throughput.md`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bellwether::cli::main(std::env::args_os())
}
