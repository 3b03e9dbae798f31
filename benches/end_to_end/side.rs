//! Common parts of the candidate and its floor: rounds of messages, and the calling threads.

use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::Result;
use super::histogram::Histogram;

/// Sampling interval of timed pipelined messages: reading the clock more often would affect the CPU time of the
/// cheapest ones.
pub(crate) const TIMED_ONE_IN: u64 = 16;

/// Side of a figure, connected and ready.
pub(crate) trait Side {
    /// Processes this many messages to their end, and returns the latencies.
    fn round(&mut self, messages: u64) -> Result<Histogram>;

    /// Shuts down. A lost or remaining message is an error.
    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Threads that make one call after the other; they outlive the rounds.
pub(crate) struct Callers {
    orders: Vec<Sender<u64>>,
    reports: Receiver<Result<Histogram>>,
    threads: Vec<JoinHandle<()>>,
}

impl Callers {
    /// Starts one thread for each of `calls`.
    pub(crate) fn start<C>(calls: Vec<C>) -> Result<Self>
    where
        C: FnMut() -> Result<()> + Send + 'static,
    {
        let (reporter, reports) = bounded(calls.len());
        let (mut orders, mut threads) = (Vec::new(), Vec::new());
        for mut call in calls {
            let (order, ordered) = bounded(1);
            let reporter = reporter.clone();
            let run = move || {
                for count in ordered {
                    // A receiver that is gone has failed already.
                    let _ = reporter.send(timed(&mut call, count));
                }
            };
            threads.push(thread::Builder::new().name("bench-caller".into()).spawn(run)?);
            orders.push(order);
        }
        Ok(Self { orders, reports, threads })
    }

    /// Distributes `calls`, and waits for all of them.
    pub(crate) fn round(&self, calls: u64) -> Result<Histogram> {
        let callers = self.orders.len() as u64;
        for (order, number) in self.orders.iter().zip(0..) {
            order.send(calls / callers + u64::from(number < calls % callers))?;
        }
        let mut all = Histogram::new();
        for _ in &self.orders {
            all.merge(&self.reports.recv()??);
        }
        Ok(all)
    }

    pub(crate) fn finish(self) -> Result<()> {
        drop(self.orders);
        self.threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a caller panicked".into()))
    }
}

fn timed(call: &mut impl FnMut() -> Result<()>, count: u64) -> Result<Histogram> {
    let mut histogram = Histogram::new();
    let mut before = Instant::now();
    for _ in 0..count {
        call()?;
        let after = Instant::now();
        histogram.record(after - before);
        before = after;
    }
    Ok(histogram)
}

/// Simulates the duration of a listener.
#[expect(clippy::disallowed_methods, reason = "a listener that sleeps is what is measured")]
pub(crate) fn take_time(work: Option<Duration>) {
    if let Some(work) = work {
        thread::sleep(work);
    }
}

/// Connects a blocking socket.
pub(crate) fn connect(peer: std::net::SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(peer)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
