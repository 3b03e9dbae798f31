//! What one message costs from end to end, next to a floor of the same shape.
//!
//! `cargo bench --bench end_to_end [-- --quick] [-- --pin] [-- --only NAME]` runs each figure as two processes of this
//! binary, the candidate and its floor, that take turns in short rounds, each against a peer in a process of its own
//! that answers at once. Printed are the medians of the rounds.
//!
//! Without `--bench` among the arguments, as under `cargo test --benches`, it checks itself with rounds too short to
//! mean anything.

#[cfg(target_os = "linux")]
#[path = "end_to_end/mod.rs"]
mod end_to_end;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    end_to_end::main()
}

/// CPU time, context switches and memory are read from Linux's `/proc`.
#[cfg(not(target_os = "linux"))]
fn main() {}
