//! The threads `rmq-callback-N`: users' callbacks, away from the selector.
//!
//! They are started when the first job comes, and run every job that was accepted, also those still queued at the end.
//! A panic of user code is logged and costs nothing else.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use log::{error, warn};
use parking_lot::RwLock;

use crate::worker::{Threads, Worker};

/// Something that ends in user code. One box carries the state and the code to run.
pub(crate) trait Job: Send {
    /// Runs once, on a callback thread.
    fn run(self: Box<Self>);
}

/// Runs jobs on a few threads of its own.
pub(crate) struct Callbacks {
    threads: Threads,
    wanted: usize,
    state: RwLock<State>,
}

enum State {
    /// No job has come yet.
    Idle,
    Running {
        // Above the workers: dropped first, which ends them.
        jobs: Sender<Box<dyn Job>>,
        workers: Vec<Worker>,
    },
    Ended,
}

impl Callbacks {
    pub(crate) fn new(threads: Threads, wanted: usize) -> Self {
        Self { threads, wanted, state: RwLock::new(State::Idle) }
    }

    /// Lets `job` run soon. When there is no thread for it any more, or none can be made, it runs here and now: a job
    /// that was accepted is never lost.
    pub(crate) fn submit(&self, job: Box<dyn Job>) {
        let unsent = match &*self.state.read() {
            State::Running { jobs, .. } => match jobs.send(job) {
                Ok(()) => return,
                Err(returned) => returned.0,
            },
            State::Idle | State::Ended => job,
        };
        match self.running() {
            Some(jobs) => drop(jobs.send(unsent)),
            None => run_guarded(unsent),
        }
    }

    /// The way to the threads, which are started now if they were not yet.
    fn running(&self) -> Option<Sender<Box<dyn Job>>> {
        let mut state = self.state.write();
        match &*state {
            State::Running { jobs, .. } => return Some(jobs.clone()),
            State::Ended => return None,
            State::Idle => {}
        }
        let (jobs, inbox) = unbounded();
        let mut workers = Vec::new();
        for number in 0..self.wanted {
            let inbox = inbox.clone();
            match self.threads.start(format!("rmq-callback-{number}"), move || run_all(&inbox)) {
                Ok(worker) => workers.push(worker),
                Err(error) => warn!("{error}"),
            }
        }
        if workers.is_empty() {
            return None;
        }
        *state = State::Running { jobs: jobs.clone(), workers };
        Some(jobs)
    }

    /// Whether the caller runs on one of these threads.
    pub(crate) fn is_current(&self) -> bool {
        match &*self.state.read() {
            State::Running { workers, .. } => workers.iter().any(Worker::is_current),
            State::Idle | State::Ended => false,
        }
    }

    /// Takes no more jobs and waits for those accepted. Returns the names of threads still in user code at `deadline`.
    pub(crate) fn stop(&self, deadline: Instant) -> Vec<String> {
        let ended = std::mem::replace(&mut *self.state.write(), State::Ended);
        let State::Running { jobs, workers } = ended else { return Vec::new() };
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
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

fn run_all(inbox: &Receiver<Box<dyn Job>>) {
    for job in inbox {
        run_guarded(job);
    }
}

fn run_guarded(job: Box<dyn Job>) {
    if catch_unwind(AssertUnwindSafe(|| job.run())).is_err() {
        error!("a callback panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::worker::StdThreads;

    struct Run<F>(F);

    impl<F: FnOnce() + Send> Job for Run<F> {
        fn run(self: Box<Self>) {
            (self.0)();
        }
    }

    fn callbacks() -> Callbacks {
        Callbacks::new(Threads::new(Arc::new(StdThreads), None), 1)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_panicking_callback_does_not_keep_the_next_from_running() {
        let (sender, ran) = unbounded();
        let callbacks = callbacks();
        callbacks.submit(Box::new(Run(|| panic!("a user's mistake"))));
        callbacks.submit(Box::new(Run(move || sender.send(()).unwrap())));
        assert!(ran.recv_deadline(soon()).is_ok());
        assert!(callbacks.stop(soon()).is_empty());
    }

    #[test]
    fn what_was_accepted_runs_before_the_end_and_what_comes_later_runs_at_once() {
        let (sender, ran) = unbounded();
        let callbacks = callbacks();
        for number in 0..100 {
            let sender = sender.clone();
            callbacks.submit(Box::new(Run(move || sender.send(number).unwrap())));
        }
        assert!(callbacks.stop(soon()).is_empty());
        callbacks.submit(Box::new(Run(move || sender.send(100).unwrap())));
        assert_eq!(ran.iter().collect::<Vec<_>>(), (0..=100).collect::<Vec<_>>());
    }
}
