//! Process of one side of one figure: reads commands from standard input, measures itself, and replies in lines of
//! JSON.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Result;
use super::side::Side;
use super::usage::{self, Usage};

/// One round of one side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) messages: u64,
    pub(crate) seconds: f64,
    /// User and system time of this process.
    pub(crate) cpu_seconds: f64,
    pub(crate) writes: u64,
    pub(crate) reads: u64,
    pub(crate) context_switches: u64,
    /// 50 %, 99 % and 99.9 % quantiles of the latencies in microseconds, if recorded.
    pub(crate) latencies: Option<[f64; 3]>,
    pub(crate) threads: BTreeMap<String, usize>,
}

/// Reply of the process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Ready,
    Measured(Measured),
    /// All rounds have ended and the side is shut down.
    Finished {
        /// Peak memory in bytes.
        peak_memory: u64,
    },
    Failed(String),
}

/// Command that ends the process; a number starts a round of that many messages.
pub(crate) const FINISH: &str = "finish";

/// Runs the commands from standard input until it ends.
pub(crate) fn main(start: impl FnOnce() -> Result<Box<dyn Side>>) -> Result<()> {
    match obey(start) {
        Ok(()) => Ok(()),
        Err(error) => say(&Reply::Failed(error.to_string())),
    }
}

fn obey(start: impl FnOnce() -> Result<Box<dyn Side>>) -> Result<()> {
    let mut side = start()?;
    say(&Reply::Ready)?;
    for order in io::stdin().lock().lines() {
        match order?.as_str() {
            FINISH => {
                side.finish()?;
                return say(&Reply::Finished { peak_memory: usage::peak_memory()? });
            }
            messages => say(&Reply::Measured(measure(side.as_mut(), messages.parse()?)?))?,
        }
    }
    Ok(())
}

fn measure(side: &mut dyn Side, messages: u64) -> Result<Measured> {
    let before = Usage::now()?;
    let began = Instant::now();
    let latencies = side.round(messages)?;
    let seconds = began.elapsed().as_secs_f64();
    let after = Usage::now()?;
    let quantiles = [0.5, 0.99, 0.999].map(|share| latencies.quantile_micros(share));
    Ok(Measured {
        messages,
        seconds,
        cpu_seconds: (after.cpu - before.cpu).as_secs_f64(),
        writes: after.writes - before.writes,
        reads: after.reads - before.reads,
        context_switches: after.context_switches - before.context_switches,
        latencies: match quantiles {
            [Some(half), Some(most), Some(nearly_all)] => Some([half, most, nearly_all]),
            _ => None,
        },
        threads: usage::threads()?,
    })
}

fn say(reply: &Reply) -> Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    Ok(stdout.flush()?)
}
