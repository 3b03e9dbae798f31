//! The threads `rmq-callback-N`: users' callbacks, away from the selector.
//!
//! They are started by the first call that brings a callback, on that caller's thread, and run every job that was
//! accepted, also those still queued at the end. A panic of user code is logged and costs nothing else.

use std::fmt;
use std::thread::{self, ThreadId};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::error::{Error, ErrorKind, Result};
use crate::logging::warn;
use crate::worker::{Threads, Worker, check_may_wait, contain};

/// Something that ends in user code. One box carries the state and the code to run.
pub(crate) trait CallbackJob: Send {
    /// Runs once, on a callback thread.
    fn run(self: Box<Self>);
}

/// Runs jobs on a few threads of its own.
pub(crate) struct Callbacks {
    threads: Threads,
    wanted: usize,
    state: RwLock<CallbackState>,
    /// The caller that starts the threads at this moment; others wait for it.
    starting: Mutex<Option<ThreadId>>,
    started: Condvar,
}

enum CallbackState {
    /// No callback was brought yet.
    Idle,
    Running {
        // Above the workers: dropped first, which ends them.
        jobs: Sender<Box<dyn CallbackJob>>,
        workers: Vec<Worker>,
    },
    Ended,
}

impl Callbacks {
    pub(crate) fn new(threads: Threads, wanted: usize) -> Self {
        let (state, starting, started) = (RwLock::new(CallbackState::Idle), Mutex::new(None), Condvar::new());
        Self { threads, wanted, state, starting, started }
    }

    /// Makes sure that the threads run. Before a job is accepted, on its caller's thread: the host's starter is user code
    /// and may block.
    pub(crate) fn start(&self, deadline: Instant) -> Result<()> {
        if self.is_running()? {
            return Ok(());
        }
        check_may_wait("starting the callback threads")?;
        if !self.enter_start(deadline)? {
            return Ok(());
        }
        let started = self.start_threads();
        *self.starting.lock() = None;
        self.started.notify_all();
        started
    }

    fn is_running(&self) -> Result<bool> {
        match &*self.state.read() {
            CallbackState::Running { .. } => Ok(true),
            CallbackState::Idle => Ok(false),
            CallbackState::Ended => Err(Error::new(ErrorKind::NotRunning, "the client has been shut down")),
        }
    }

    /// `true` when the caller is the one that starts the threads; `false` when another one has.
    fn enter_start(&self, deadline: Instant) -> Result<bool> {
        let failed = |why| Err(Error::new(ErrorKind::Resource, format!("starting the callback threads failed: {why}")));
        let own = thread::current().id();
        let mut starting = self.starting.lock();
        loop {
            // Under the lock: the thread that started them has released it.
            if self.is_running()? {
                return Ok(false);
            }
            let Some(other) = *starting else { break };
            if other == own {
                return failed("the thread starter sends itself");
            }
            if self.started.wait_until(&mut starting, deadline).timed_out() {
                return failed("another call still starts them");
            }
        }
        *starting = Some(own);
        Ok(true)
    }

    fn start_threads(&self) -> Result<()> {
        let (jobs, inbox) = unbounded();
        let mut workers = Vec::new();
        let mut refused = None;
        for number in 0..self.wanted {
            let inbox = inbox.clone();
            match self.threads.start(format!("rmq-callback-{number}"), move || run_all(&inbox)) {
                Ok(worker) => workers.push(worker),
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused {
            if workers.is_empty() {
                return Err(error);
            }
            warn!("callback threads: {} started instead of {}: {error}", workers.len(), self.wanted);
        }
        let mut state = self.state.write();
        if matches!(*state, CallbackState::Idle) {
            *state = CallbackState::Running { jobs, workers };
            return Ok(());
        }
        drop(state);
        // The client has ended meanwhile: without jobs the threads end, and are waited for.
        drop(jobs);
        self.is_running().map(drop)
    }

    /// Lets `job` run soon.
    pub(crate) fn submit(&self, job: Box<dyn CallbackJob>) {
        let unsent = match &*self.state.read() {
            CallbackState::Running { jobs, .. } => match jobs.send(job) {
                Ok(()) => return,
                Err(returned) => returned.0,
            },
            CallbackState::Idle | CallbackState::Ended => job,
        };
        // Nothing is accepted before the threads run, and everything accepted has been submitted before they end.
        run_guarded(unsent);
    }

    /// True if the caller runs on one of these threads.
    pub(crate) fn is_current(&self) -> bool {
        match &*self.state.read() {
            CallbackState::Running { workers, .. } => workers.iter().any(Worker::is_current),
            CallbackState::Idle | CallbackState::Ended => false,
        }
    }

    /// Takes no more jobs and waits for those accepted. Returns the names of threads still in user code at `deadline`.
    pub(crate) fn stop(&self, deadline: Instant) -> Vec<String> {
        let ended = std::mem::replace(&mut *self.state.write(), CallbackState::Ended);
        let CallbackState::Running { jobs, workers } = ended else { return Vec::new() };
        drop(jobs);
        let mut left_behind = Vec::new();
        for mut worker in workers {
            if !worker.join_until(deadline) {
                left_behind.push(worker.name().to_owned());
                worker.detach();
            }
        }
        left_behind
    }

    /// Detaches the threads, for jobs that threads left behind may still submit. They end with the last possible
    /// submitter.
    pub(crate) fn leave(&self) {
        let left = match &mut *self.state.write() {
            CallbackState::Running { workers, .. } => std::mem::take(workers),
            CallbackState::Idle | CallbackState::Ended => Vec::new(),
        };
        left.into_iter().for_each(Worker::detach);
    }
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

fn run_all(inbox: &Receiver<Box<dyn CallbackJob>>) {
    for job in inbox {
        run_guarded(job);
    }
}

fn run_guarded(job: Box<dyn CallbackJob>) {
    contain("a callback", || job.run());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Run<F>(F);

    impl<F: FnOnce() + Send> CallbackJob for Run<F> {
        fn run(self: Box<Self>) {
            (self.0)();
        }
    }

    fn callbacks() -> Callbacks {
        Callbacks::new(Threads::new(None, None), 1)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn started() -> Callbacks {
        let callbacks = callbacks();
        callbacks.start(soon()).unwrap();
        callbacks
    }

    #[test]
    fn a_panicking_callback_does_not_keep_the_next_from_running() {
        let (sender, ran) = unbounded();
        let callbacks = started();
        callbacks.submit(Box::new(Run(|| panic!("a user's mistake"))));
        callbacks.submit(Box::new(Run(move || sender.send(()).unwrap())));
        assert!(ran.recv_deadline(soon()).is_ok());
        assert!(callbacks.stop(soon()).is_empty());
    }

    #[test]
    fn what_was_accepted_runs_before_the_end_and_what_comes_later_runs_at_once() {
        let (sender, ran) = unbounded();
        let callbacks = started();
        for number in 0..100 {
            let sender = sender.clone();
            callbacks.submit(Box::new(Run(move || sender.send(number).unwrap())));
        }
        assert!(callbacks.stop(soon()).is_empty());
        callbacks.submit(Box::new(Run(move || sender.send(100).unwrap())));
        assert_eq!(ran.iter().collect::<Vec<_>>(), (0..=100).collect::<Vec<_>>());
    }
}
