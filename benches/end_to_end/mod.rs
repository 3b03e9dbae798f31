//! Roles of the bench's processes, and the user's options.
//!
//! One process controls; it starts the others from the same binary: peers, candidates and floors.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its figures")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of the bench itself, far from any limit"
)]

mod answers;
mod candidate;
mod child;
mod control;
mod controller;
mod figure;
mod floor;
mod frames;
mod histogram;
mod peer;
mod report;
mod requests;
mod side;
mod usage;

use std::process::ExitCode;
use std::time::Duration;

use figure::{FIGURES, Figure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use peer::Addresses;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const TOPIC: &str = "BenchTopic";
const GROUP: &str = "bench-group";
const BROKER_NAME: &str = "broker-a";
const QUEUES: usize = 8;
const BODY_SIZE: usize = 1024;
const MESSAGES_PER_PULL: usize = 32;
/// Maximum number of asynchronous sends in flight.
const IN_FLIGHT: usize = 256;
/// Number of threads that run a listener.
const CONSUME_THREADS: usize = 20;

/// First arguments of the processes that the controller starts.
const PEER: &str = "--as-peer";
const CANDIDATE: &str = "--as-candidate";
const FLOOR: &str = "--as-floor";
/// Environment variable with the CPU that a process must use.
const CPU: &str = "END_TO_END_BENCH_CPU";

const USAGE: &str = "options: --only NAME (part of a figure's name), --quick, --trials N, --rounds N, --pin (client and peer on a \
    CPU each), --self-check (a second floor in the candidate's place: what it then shows is noise)";

/// Options of the user.
#[derive(Clone, Debug)]
struct Options {
    only: Option<String>,
    /// Number of starts of new processes.
    trials: usize,
    /// Number of turns of the two sides in each trial.
    rounds: usize,
    round: Duration,
    pin: bool,
    self_check: bool,
}

pub(crate) fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> Result<ExitCode> {
    match arguments.first().map(String::as_str) {
        Some(PEER) => {
            keep_to_cpu()?;
            peer::main()?;
        }
        Some(role @ (CANDIDATE | FLOOR)) => {
            keep_to_cpu()?;
            run_side(role, &arguments[1..])?;
        }
        _ => return Options::parse(arguments).and_then(|options| control(&options)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the figures one after the other, so that no figure disturbs another.
fn control(options: &Options) -> Result<ExitCode> {
    let wanted = |figure: &Figure| options.only.as_deref().is_none_or(|part| figure.name.contains(part));
    let (mut rows, mut failed) = (Vec::new(), false);
    for figure in FIGURES.into_iter().filter(wanted) {
        eprintln!("{} …", figure.name);
        match controller::measure(figure, options) {
            Ok(row) => rows.push(row),
            Err(error) => {
                eprintln!("{}: FAILED: {error}", figure.name);
                failed = true;
            }
        }
    }
    println!("{}", report::render(&rows));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs one side. `arguments`: a figure's name, then name server and broker of the side's own peer, then, for a floor
/// that repeats the candidate's requests, those of the candidate's.
fn run_side(role: &str, arguments: &[String]) -> Result<()> {
    let [name, addresses @ ..] = arguments else { return Err("no figure".into()) };
    let work = Figure::named(name).ok_or("no such figure")?.work;
    let mut peers = addresses
        .chunks_exact(2)
        .map(|pair| -> Result<Addresses> { Ok(Addresses { name_server: pair[0].parse()?, broker: pair[1].parse()? }) });
    let peer = peers.next().ok_or("no peer")??;
    let candidates_peer = peers.next().transpose()?;
    child::main(|| match role {
        CANDIDATE => candidate::start(work, peer),
        _ => floor::start(work, peer, candidates_peer),
    })
}

/// Pins the process to its CPU before any other thread starts, so that all threads inherit it.
fn keep_to_cpu() -> Result<()> {
    if let Some(cpu) = std::env::var(CPU).ok().filter(|cpu| !cpu.is_empty()) {
        let mut cpus = CpuSet::new();
        cpus.set(cpu.parse()?)?;
        sched_setaffinity(Pid::from_raw(0), &cpus)?;
    }
    Ok(())
}

impl Options {
    fn parse(arguments: Vec<String>) -> Result<Self> {
        let mut options = Self::for_a_check();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value; {USAGE}"));
            match argument.as_str() {
                "--bench" => (options.trials, options.rounds, options.round) = (4, 4, Duration::from_millis(300)),
                "--quick" => (options.trials, options.rounds, options.round) = (3, 1, Duration::from_millis(150)),
                "--only" => options.only = Some(value()?),
                "--trials" => options.trials = value()?.parse()?,
                "--rounds" => options.rounds = value()?.parse()?,
                "--pin" => options.pin = true,
                "--self-check" => options.self_check = true,
                _ => return Err(format!("unknown option {argument}; {USAGE}").into()),
            }
        }
        Ok(options)
    }

    /// Shortest possible options: `cargo bench` passes `--bench`, `cargo test` does not.
    fn for_a_check() -> Self {
        Self { only: None, trials: 1, rounds: 1, round: Duration::from_millis(10), pin: false, self_check: false }
    }

    fn client_cpu(&self) -> Option<usize> {
        self.pin.then_some(0)
    }

    fn peer_cpu(&self) -> Option<usize> {
        self.pin.then_some(1)
    }
}
