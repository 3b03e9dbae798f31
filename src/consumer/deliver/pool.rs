//! The fixed pool `rmq-consume-N`: threads that run listeners.
//!
//! A [`ConsumeRequest`] is a share in one pull's messages: it travels through the channel once, and idle workers join
//! it, so that a batch size of 1 costs no channel message for each message. The workers never wait for the network.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;

use crate::error::Result;
use crate::logging::warn;
use crate::worker::{Threads, Worker, contain};

use crate::consumer::pull::request::ConsumeRequest;
use crate::consumer::pull::window::PullWindow;

/// Threads that run listeners.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<PoolState>,
    counts: Arc<Workers>,
    /// Disconnected when the last worker has ended.
    all_ended: Receiver<()>,
}

#[derive(Debug)]
struct PoolState {
    jobs: Option<Sender<ConsumeJob>>,
    workers: Vec<Worker>,
}

/// Numbers of workers by what they do.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    /// Workers that wait for work.
    idle: AtomicUsize,
    /// Workers that are in the listener.
    running: AtomicUsize,
}

impl Workers {
    /// True if a worker waits for work.
    pub(super) fn has_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed) > 0
    }

    /// Counts the caller as running for one call of the listener, which must not unwind.
    pub(super) fn while_running<T>(&self, call: impl FnOnce() -> T) -> T {
        self.running.fetch_add(1, Ordering::Relaxed);
        let result = call();
        self.running.fetch_sub(1, Ordering::Relaxed);
        result
    }
}

/// Consumer of requests on the pool's threads.
pub(crate) trait Work: Send + Sync {
    /// Consumes messages of a request until none is left to claim.
    fn work(self: Arc<Self>, window: &Arc<PullWindow>, request: &Arc<ConsumeRequest>, workers: &Workers);
}

/// A request on its way to a worker.
struct ConsumeJob {
    work: Arc<dyn Work>,
    window: Arc<PullWindow>,
    request: Arc<ConsumeRequest>,
}

impl Pool {
    /// Starts `size` threads. They wait until the first message comes.
    pub(crate) fn start(threads: &Threads, size: usize) -> Result<Self> {
        // Dropped last: when one thread cannot be had, the others end with the channel before they are waited for.
        let mut workers = Vec::new();
        let (jobs, inbox) = unbounded::<ConsumeJob>();
        let (alive, all_ended) = bounded(0);
        let counts = Arc::new(Workers::default());
        for number in 0..size {
            let (inbox, counts, alive) = (inbox.clone(), Arc::clone(&counts), alive.clone());
            let body = move || {
                let _alive: Sender<()> = alive;
                run(&inbox, &counts);
            };
            workers.push(threads.start(format!("rmq-consume-{number}"), body)?);
        }
        Ok(Self { state: Mutex::new(PoolState { jobs: Some(jobs), workers }), counts, all_ended })
    }

    /// Hands a request to the workers. One that comes after the end is left to the broker.
    pub(crate) fn submit(&self, work: Arc<dyn Work>, window: &Arc<PullWindow>, request: Arc<ConsumeRequest>) {
        let jobs = self.state.lock().jobs.clone();
        if let Some(jobs) = jobs {
            let _ = jobs.send(ConsumeJob { work, window: Arc::clone(window), request });
        }
    }

    /// Takes no more work; what has not begun is not begun.
    pub(crate) fn close(&self) {
        self.state.lock().jobs = None;
    }

    /// True if the caller runs on one of these threads.
    pub(crate) fn is_current(&self) -> bool {
        self.state.lock().workers.iter().any(Worker::is_current)
    }

    /// Waits for the workers after [`Pool::close`]. Returns how many are still in the listener at `deadline`; these are
    /// left behind. Several callers wait for the same workers, each until its own deadline.
    pub(crate) fn join(&self, deadline: Instant) -> usize {
        let _ = self.all_ended.recv_deadline(deadline);
        let workers = std::mem::take(&mut self.state.lock().workers);
        let mut running = 0;
        for mut worker in workers {
            if !worker.join_until(deadline) {
                warn!("shutdown: {} is still in its listener at the deadline; left behind", worker.name());
                running += 1;
                worker.detach();
            }
        }
        running
    }

    /// Workers that are in the listener now.
    pub(crate) fn running(&self) -> usize {
        self.counts.running.load(Ordering::Relaxed)
    }
}

fn run(inbox: &Receiver<ConsumeJob>, counts: &Workers) {
    loop {
        counts.idle.fetch_add(1, Ordering::Relaxed);
        let received = inbox.recv();
        counts.idle.fetch_sub(1, Ordering::Relaxed);
        let Ok(ConsumeJob { work, window, request }) = received else { return };
        // Beyond the listener's own boundary: whatever unwinds here costs its messages a retry, and no thread.
        contain("consuming messages", || work.work(&window, &request, counts));
    }
}
