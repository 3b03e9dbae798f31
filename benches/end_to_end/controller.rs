//! Starts the processes of a figure, alternates candidate and floor, and computes the medians.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};

use super::child::{FINISH, Measured, Reply};
use super::control::Control;
use super::figure::{Figure, Work};
use super::peer::Addresses;
use super::{CANDIDATE, FLOOR, MESSAGES_PER_PULL, Options, QUEUES, Result};

/// Time of silence after which a process counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// Result of one figure.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) figure: Figure,
    pub(crate) candidate: Medians,
    pub(crate) floor: Medians,
    /// Median, smallest and largest rate of the candidate, relative to the floor's in the same turn.
    pub(crate) ratio: [f64; 3],
    /// Threads of the candidate at the end of a round.
    pub(crate) threads: BTreeMap<String, usize>,
    /// CPU time of other processes and the hypervisor in the meantime, as a share of the machine.
    pub(crate) disturbance: f64,
}

/// Medians over the rounds of one side; all except rate, latencies and memory are per message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Medians {
    pub(crate) rate: f64,
    pub(crate) cpu_micros: f64,
    pub(crate) writes: f64,
    pub(crate) reads: f64,
    pub(crate) context_switches: f64,
    pub(crate) latencies: Option<[f64; 3]>,
    /// Largest memory of any of its processes, in bytes.
    pub(crate) peak_memory: u64,
}

/// Measures one figure; a lost, duplicated or sent-back message is an error.
pub(crate) fn measure(figure: Figure, options: &Options) -> Result<Row> {
    let (mut candidate, mut floor) = (Outcome::default(), Outcome::default());
    let mut disturbances = Vec::new();
    for _ in 0..options.trials {
        disturbances.push(run_trial(figure, options, &mut candidate, &mut floor)?);
    }
    Ok(Row {
        figure,
        ratio: ratios(&candidate.rounds, &floor.rounds)?,
        threads: candidate.rounds.last().map(|round| round.threads.clone()).unwrap_or_default(),
        candidate: candidate.medians()?,
        floor: floor.medians()?,
        disturbance: disturbances.iter().sum::<f64>() / disturbances.len() as f64,
    })
}

/// Runs some rounds with four new processes: their placement by the scheduler matters more than the differences between
/// rounds. Returns the share of the machine used by others.
fn run_trial(figure: Figure, options: &Options, candidate: &mut Outcome, floor: &mut Outcome) -> Result<f64> {
    let peers = [Process::start_peer(options)?, Process::start_peer(options)?];
    let addresses = [peers[0].addresses()?, peers[1].addresses()?];
    let (candidate_role, floor_addresses) =
        if options.self_check { (FLOOR, vec![addresses[1]]) } else { (CANDIDATE, vec![addresses[1], addresses[0]]) };
    let mut candidate_side = Side::start(candidate_role, figure, &addresses[..1], options)?;
    let mut floor_side = Side::start(FLOOR, figure, &floor_addresses, options)?;
    let load = Load::now([&peers[0], &peers[1], &candidate_side.process, &floor_side.process])?;
    for round in 0..options.rounds {
        if round % 2 == 0 {
            candidate.rounds.push(candidate_side.round()?);
            floor.rounds.push(floor_side.round()?);
        } else {
            floor.rounds.push(floor_side.round()?);
            candidate.rounds.push(candidate_side.round()?);
        }
    }
    let disturbance = load.others_since([&peers[0], &peers[1], &candidate_side.process, &floor_side.process])?;
    let messages = candidate_side.messages;
    candidate.finished(candidate_side.finish()?);
    floor.finished(floor_side.finish()?);
    check(figure, messages, addresses[0], options)?;
    Ok(disturbance)
}

fn ratios(candidate: &[Measured], floor: &[Measured]) -> Result<[f64; 3]> {
    let ratios: Vec<f64> =
        candidate.iter().zip(floor).map(|(candidate, floor)| rate(candidate) / rate(floor)).collect();
    let smallest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = ratios.iter().copied().fold(0.0, f64::max);
    Ok([median(ratios).ok_or("no round")?, smallest, largest])
}

/// Compares the candidate's counts with those of its peer.
fn check(figure: Figure, messages: u64, peer: Addresses, options: &Options) -> Result<()> {
    let tally = Control::connect(peer.broker)?.report()?;
    let came = match figure.work {
        Work::Sync { .. } | Work::Async(_) => tally.sends,
        Work::Oneway => tally.oneways,
        Work::Consume { .. } => tally.pulls * MESSAGES_PER_PULL as u64,
    };
    let committed = if figure.consumes() && !options.self_check { messages } else { tally.committed };
    if (came, tally.committed, tally.send_backs, tally.misplaced_pulls) == (messages, committed, 0, 0) {
        Ok(())
    } else {
        Err(format!("{messages} messages were moved, but the peer saw {tally:?}").into())
    }
}

/// Rounds of one side.
#[derive(Default)]
struct Outcome {
    rounds: Vec<Measured>,
    peak_memory: u64,
}

impl Outcome {
    fn finished(&mut self, peak_memory: u64) {
        self.peak_memory = self.peak_memory.max(peak_memory);
    }

    fn medians(&self) -> Result<Medians> {
        let median_of = |value: fn(&Measured) -> f64| median(self.rounds.iter().map(value).collect()).ok_or("no round");
        let latency = |at: usize| {
            median(self.rounds.iter().filter_map(|round| round.latencies.map(|latencies| latencies[at])).collect())
        };
        let latencies = latency(0).zip(latency(1)).zip(latency(2));
        Ok(Medians {
            rate: median_of(rate)?,
            cpu_micros: median_of(|round| round.cpu_seconds * 1e6 / round.messages as f64)?,
            writes: median_of(|round| round.writes as f64 / round.messages as f64)?,
            reads: median_of(|round| round.reads as f64 / round.messages as f64)?,
            context_switches: median_of(|round| round.context_switches as f64 / round.messages as f64)?,
            latencies: latencies.map(|((half, most), nearly_all)| [half, most, nearly_all]),
            peak_memory: self.peak_memory,
        })
    }
}

/// Process of one side.
struct Side {
    process: Process,
    messages_per_round: u64,
    /// Messages of all rounds, including the warm-up.
    messages: u64,
}

impl Side {
    /// Starts the side, and determines the number of messages for a round of the requested length.
    fn start(role: &str, figure: Figure, peers: &[Addresses], options: &Options) -> Result<Self> {
        let mut arguments = vec![role.to_owned(), figure.name.to_owned()];
        arguments.extend(peers.iter().flat_map(|peer| [peer.name_server.to_string(), peer.broker.to_string()]));
        let process = Process::start(&arguments, options.client_cpu())?;
        let mut side = Self { process, messages_per_round: 0, messages: 0 };
        match side.process.reply()? {
            Reply::Ready => {}
            other => return Err(format!("unexpected {other:?}").into()),
        }
        side.settle(options.round)?;
        Ok(side)
    }

    fn settle(&mut self, round: Duration) -> Result<()> {
        let unit = (MESSAGES_PER_PULL * QUEUES) as u64;
        let mut messages = unit;
        loop {
            let measured = self.run(messages)?;
            let missing = round.as_secs_f64() / measured.seconds;
            messages = ((messages as f64 * missing.min(8.0)) as u64).div_ceil(unit) * unit;
            if missing < 2.0 {
                self.messages_per_round = messages;
                return Ok(());
            }
        }
    }

    fn round(&mut self) -> Result<Measured> {
        self.run(self.messages_per_round)
    }

    fn run(&mut self, messages: u64) -> Result<Measured> {
        self.messages += messages;
        self.process.order(&messages.to_string())?;
        match self.process.reply()? {
            Reply::Measured(measured) => Ok(measured),
            other => Err(format!("unexpected {other:?}").into()),
        }
    }

    /// Ends the side; returns its peak memory.
    fn finish(mut self) -> Result<u64> {
        self.process.order(FINISH)?;
        match self.process.reply()? {
            Reply::Finished { peak_memory } => Ok(peak_memory),
            other => Err(format!("unexpected {other:?}").into()),
        }
    }
}

/// Process of this binary that ends with its owner.
struct Process {
    child: Child,
    orders: ChildStdin,
    lines: Receiver<String>,
}

impl Process {
    fn start_peer(options: &Options) -> Result<Self> {
        Self::start(&[super::PEER.to_owned()], options.peer_cpu())
    }

    fn start(arguments: &[String], cpu: Option<usize>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env(super::CPU, cpu.map(|cpu| cpu.to_string()).unwrap_or_default());
        let mut child = command.spawn()?;
        let (orders, output) = child.stdin.take().zip(child.stdout.take()).ok_or("no pipes")?;
        let (line, lines) = unbounded();
        let read =
            move || BufReader::new(output).lines().map_while(|read| read.ok()).try_for_each(|read| line.send(read));
        thread::Builder::new().spawn(read)?;
        Ok(Self { child, orders, lines })
    }

    /// Reads the addresses on which a peer listens.
    fn addresses(&self) -> Result<Addresses> {
        let line = self.line()?;
        let (name_server, broker) = line.split_once(' ').ok_or("no addresses")?;
        Ok(Addresses { name_server: name_server.parse()?, broker: broker.parse()? })
    }

    fn order(&mut self, order: &str) -> Result<()> {
        Ok(writeln!(self.orders, "{order}")?)
    }

    fn reply(&self) -> Result<Reply> {
        match serde_json::from_str(&self.line()?)? {
            Reply::Failed(reason) => Err(reason.into()),
            reply => Ok(reply),
        }
    }

    fn line(&self) -> Result<String> {
        Ok(self.lines.recv_timeout(PATIENCE)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Clock ticks since the machine and the processes of a figure began.
struct Load {
    all: f64,
    busy: f64,
    ours: f64,
}

impl Load {
    fn now(processes: [&Process; 4]) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let ticks: Vec<f64> =
            stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
        let [_, _, _, idle, waiting, ..] = ticks[..] else { return Err("no ticks in /proc/stat".into()) };
        let all = ticks.iter().sum();
        let mut ours = cpu_ticks("/proc/self/stat")?;
        for process in processes {
            ours += cpu_ticks(&format!("/proc/{}/stat", process.child.id()))?;
        }
        Ok(Self { all, busy: all - idle - waiting, ours })
    }

    fn others_since(&self, processes: [&Process; 4]) -> Result<f64> {
        let now = Self::now(processes)?;
        Ok((now.busy - self.busy - (now.ours - self.ours)).max(0.0) / (now.all - self.all).max(1.0))
    }
}

/// User and system time of a process, found after its name, which may contain any characters.
fn cpu_ticks(stat: &str) -> Result<f64> {
    let stat = fs::read_to_string(stat)?;
    let fields = stat.rsplit_once(')').ok_or("no name in /proc")?.1;
    Ok(fields.split_whitespace().skip(11).take(2).flat_map(str::parse::<f64>).sum())
}

fn rate(round: &Measured) -> f64 {
    round.messages as f64 / round.seconds
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
