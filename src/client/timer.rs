//! The thread `rmq-timer`, the scheduled delay thread: runs jobs when they are due, periodic duties among them.
//!
//! Jobs are our own code and must not block: what takes time is sent asynchronously or handed to another thread.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use crate::error::Result;
use crate::worker::{Threads, Worker, words_of};

type TimerJob = Box<dyn FnOnce() + Send>;

/// Hands jobs to the timer's thread. Jobs that are not due when the timer ends are dropped.
#[derive(Clone)]
pub(crate) struct Timer {
    jobs: Sender<Scheduled>,
}

impl Timer {
    /// The timer and the owner of its thread.
    pub(crate) fn start(threads: &Threads) -> Result<(Self, TimerThread)> {
        let (jobs, inbox) = unbounded();
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let health = Arc::clone(threads.health());
        let worker = threads.start_service("rmq-timer", move || {
            let mut waiting = BinaryHeap::new();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&mut waiting, &inbox, &stopped))) {
                // Before the waiting jobs are dropped: their owners get this reason.
                health.died("rmq-timer", &format!("it panicked: {}", words_of(&*panic)));
            }
        })?;
        Ok((Self { jobs }, TimerThread { stop, worker }))
    }

    /// Runs `job` at `due`, or as soon as possible when that has passed.
    pub(crate) fn at(&self, due: Instant, job: impl FnOnce() + Send + 'static) {
        // A timer that has ended drops its jobs: its client is gone.
        let _ = self.jobs.send(Scheduled { due, job: Box::new(job) });
    }

    /// Runs `job` after `delay`.
    pub(crate) fn after(&self, delay: Duration, job: impl FnOnce() + Send + 'static) {
        self.at(Instant::now() + delay, job);
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Timer")
    }
}

/// The owner of `rmq-timer`: dropping it ends the thread and waits for that.
#[derive(Debug)]
pub(crate) struct TimerThread {
    // Above the worker: what is dropped first ends the thread that the other waits for.
    stop: Sender<()>,
    worker: Worker,
}

impl TimerThread {
    /// Ends the thread. Returns its name when a job is still running at `deadline`.
    pub(crate) fn stop(self, deadline: Instant) -> Option<String> {
        let Self { stop, mut worker } = self;
        drop(stop);
        if worker.join_until(deadline) {
            return None;
        }
        let name = worker.name().to_owned();
        worker.detach();
        Some(name)
    }
}

struct Scheduled {
    due: Instant,
    job: TimerJob,
}

/// The earliest job is the greatest, since the heap gives the greatest first.
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due)
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

fn run(waiting: &mut BinaryHeap<Scheduled>, inbox: &Receiver<Scheduled>, stopped: &Receiver<()>) {
    loop {
        let received = match waiting.peek() {
            Some(Scheduled { due, .. }) => {
                crossbeam_channel::select! {
                    recv(stopped) -> _ => return,
                    recv(inbox) -> scheduled => scheduled.map_err(|_| RecvTimeoutError::Disconnected),
                    default(due.saturating_duration_since(Instant::now())) => Err(RecvTimeoutError::Timeout),
                }
            }
            None => crossbeam_channel::select! {
                recv(stopped) -> _ => return,
                recv(inbox) -> scheduled => scheduled.map_err(|_| RecvTimeoutError::Disconnected),
            },
        };
        match received {
            // All that have come: after a pause several may be due, and the last to come may be the first to run.
            Ok(scheduled) => waiting.extend(std::iter::once(scheduled).chain(inbox.try_iter().take(inbox.len()))),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        while waiting.peek().is_some_and(|scheduled: &Scheduled| scheduled.due <= now) {
            if let Some(Scheduled { job, .. }) = waiting.pop() {
                job();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;
    use crate::worker::Health;

    fn start() -> (Timer, TimerThread) {
        Timer::start(&Threads::new(None, None)).unwrap()
    }

    #[test]
    fn jobs_run_in_the_order_in_which_they_fall_due() {
        let (timer, _thread) = start();
        let (sender, done) = unbounded();
        let now = Instant::now();
        // The thread is busy until all are planned.
        let (planned, wait) = unbounded::<()>();
        timer.at(now, move || assert!(wait.recv().is_err()));
        for milliseconds in [30, 10, 20] {
            let sender = sender.clone();
            timer.at(now + Duration::from_millis(milliseconds), move || sender.send(milliseconds).unwrap());
        }
        drop((sender, planned));
        assert_eq!(done.iter().collect::<Vec<_>>(), [10, 20, 30]);
    }

    /// Plan of a periodic duty: the next run is an interval after the last one.
    fn every(timer: &Timer, interval: Duration, runs: Arc<AtomicUsize>) {
        let again = timer.clone();
        timer.after(interval, move || {
            runs.fetch_add(1, SeqCst);
            every(&again, interval, runs);
        });
    }

    /// Runs `last` when so many jobs have been planned and run one after the other.
    fn after_hops(timer: &Timer, hops: usize, last: impl FnOnce() + Send + 'static) {
        let next = timer.clone();
        timer.after(Duration::ZERO, move || if hops == 0 { last() } else { after_hops(&next, hops - 1, last) });
    }

    /// The thread stands still for ten intervals, as in a suspend of the process.
    #[test]
    fn a_duty_whose_time_has_passed_many_times_does_not_make_up_for_that() {
        let (timer, _thread) = start();
        let runs = Arc::new(AtomicUsize::new(0));
        let interval = Duration::from_millis(100);
        every(&timer, interval, Arc::clone(&runs));
        let (sender, done) = unbounded();
        let again = timer.clone();
        timer.after(Duration::ZERO, move || {
            let (before, end) = (runs.load(SeqCst), Instant::now() + interval * 10);
            while Instant::now() < end {
                std::thread::park_timeout(interval);
            }
            after_hops(&again, 30, move || sender.send(runs.load(SeqCst) - before).unwrap());
        });
        let runs = done.recv().unwrap();
        assert!((1..5).contains(&runs), "{runs} runs");
    }

    /// A send that waits here for its next attempt says why it ends.
    #[test]
    fn jobs_of_a_timer_that_dies_are_dropped_when_the_reason_is_known() {
        struct Told(Sender<bool>, Arc<Health>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.send(self.1.check().is_err());
            }
        }
        let threads = Threads::new(None, None);
        let (timer, _thread) = Timer::start(&threads).unwrap();
        let (sender, dropped) = unbounded();
        for _ in 0..2 {
            let told = Told(sender.clone(), Arc::clone(threads.health()));
            timer.after(Duration::from_secs(3600), move || drop(told));
        }
        timer.after(Duration::ZERO, || panic!("a fault"));
        assert_eq!(dropped.recv_timeout(Duration::from_secs(20)), Ok(true));
        assert_eq!(dropped.recv_timeout(Duration::from_secs(20)), Ok(true));
        assert!(threads.health().check().unwrap_err().detail().contains("rmq-timer"));
    }

    #[test]
    fn the_end_drops_what_is_not_due() {
        let (timer, thread) = start();
        let (sender, done) = unbounded::<()>();
        timer.after(Duration::from_secs(3600), move || drop(sender));
        drop(thread);
        drop(timer);
        assert!(done.recv().is_err());
    }
}
