//! Cost of one message from end to end, compared to a floor of the same shape.
//!
//! `cargo bench --bench end_to_end [-- --quick] [-- --pin] [-- --only NAME]` runs each figure as two processes of this
//! binary, the candidate and its floor. They alternate in short rounds, each against a peer in its own process that
//! answers at once. The output are the medians of the rounds.
//!
//! Without `--bench` among the arguments, as under `cargo test --benches`, it checks itself with rounds too short for a
//! result.

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
