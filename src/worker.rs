//! Threads with a name, an owner and an end: the only place of the library that starts one.
//!
//! All signals are blocked in our threads, so that handlers of the host program run on its own. An embedding host may
//! replace how threads are made through [`ThreadStarter`].

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::error::{Error, ErrorKind, Result};

/// How a thread is wanted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ThreadSpec {
    /// Its name, at most 15 bytes, which is what Linux keeps.
    pub name: String,
    /// Its stack in bytes; `None` for the platform's choice.
    pub stack_size: Option<usize>,
}

/// The work of a thread. It never panics: panics of user code are caught where that code is called.
pub type ThreadBody = Box<dyn FnOnce() + Send>;

/// Waits until a thread is gone.
pub type ThreadJoin = Box<dyn FnOnce() + Send + Sync>;

/// Makes threads; a host that must know or control its threads (a plugin, an interpreter) brings its own.
pub trait ThreadStarter: Send + Sync {
    /// Runs `body` on a new thread, with all signals blocked if the platform has signals.
    ///
    /// # Errors
    ///
    /// When no thread can be made.
    fn start(&self, spec: &ThreadSpec, body: ThreadBody) -> io::Result<ThreadJoin>;
}

/// Threads of the standard library: what is used unless a host brings its own starter.
#[derive(Clone, Copy, Debug, Default)]
pub struct StdThreads;

impl ThreadStarter for StdThreads {
    fn start(&self, spec: &ThreadSpec, body: ThreadBody) -> io::Result<ThreadJoin> {
        let mut builder = thread::Builder::new().name(spec.name.clone());
        if let Some(stack_size) = spec.stack_size {
            builder = builder.stack_size(stack_size);
        }
        let handle = with_signals_blocked(|| builder.spawn(body))?;
        Ok(Box::new(move || {
            // A body that panicked has unwound already; its end is all that matters here.
            let _ = handle.join();
        }))
    }
}

/// A new thread inherits the mask of its maker: blocking around the start leaves no moment in which a signal could
/// reach the new thread.
#[cfg(unix)]
fn with_signals_blocked<T>(start: impl FnOnce() -> T) -> T {
    use nix::sys::signal::{SigSet, SigmaskHow};
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let started = start();
    if let Ok(before) = before {
        let _ = before.thread_set_mask();
    }
    started
}

#[cfg(not(unix))]
fn with_signals_blocked<T>(start: impl FnOnce() -> T) -> T {
    start()
}

/// What the threads of one client have in common.
#[derive(Clone)]
pub(crate) struct Threads {
    starter: Arc<dyn ThreadStarter>,
    stack_size: Option<usize>,
}

impl Threads {
    pub(crate) fn new(starter: Arc<dyn ThreadStarter>, stack_size: Option<usize>) -> Self {
        Self { starter, stack_size }
    }

    /// Runs `body` on a thread that the returned [`Worker`] owns.
    pub(crate) fn start(&self, name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> Result<Worker> {
        let spec = ThreadSpec { name: name.into(), stack_size: self.stack_size };
        let (alive, ended) = bounded(0);
        let (tell_id, id) = bounded(1);
        let body: ThreadBody = Box::new(move || {
            let _alive: Sender<()> = alive;
            let _ = tell_id.send(thread::current().id());
            body();
        });
        let join = self.starter.start(&spec, body).map_err(|error| {
            Error::new(ErrorKind::Resource, format!("thread {} cannot be started: {error}", spec.name))
        })?;
        let id = id
            .recv()
            .map_err(|_| Error::new(ErrorKind::Resource, format!("thread {} ended before it began", spec.name)))?;
        Ok(Worker { name: spec.name, id, ended, join: Some(join) })
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("stack_size", &self.stack_size).finish_non_exhaustive()
    }
}

/// The owner of one thread. Dropping it waits for the thread, except on the thread itself; so the owner first does
/// what makes the thread end (drops the channel it waits on).
pub(crate) struct Worker {
    name: String,
    id: thread::ThreadId,
    ended: Receiver<()>,
    join: Option<ThreadJoin>,
}

impl Worker {
    /// The thread's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the caller runs on this thread.
    pub(crate) fn is_current(&self) -> bool {
        thread::current().id() == self.id
    }

    /// Waits until the thread has ended; `false` when it has not by `deadline`, or cannot since it is the caller.
    pub(crate) fn join_until(&mut self, deadline: Instant) -> bool {
        if self.join.is_none() {
            return true;
        }
        if self.is_current() {
            return false;
        }
        match self.ended.recv_deadline(deadline) {
            Err(RecvTimeoutError::Disconnected) => {
                if let Some(join) = self.join.take() {
                    join();
                }
                true
            }
            _ => false,
        }
    }

    /// Gives the thread up: it ends by itself, and nobody waits for it. For what cannot be cancelled (a listener or a
    /// resolver call beyond the deadline of a shutdown), which the shutdown's report names.
    pub(crate) fn detach(mut self) {
        self.join = None;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.is_current()
            && let Some(join) = self.join.take()
        {
            join();
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn threads() -> Threads {
        Threads::new(Arc::new(StdThreads), None)
    }

    #[test]
    fn a_thread_that_outlives_the_deadline_is_told_from_one_that_ended() {
        let (release, wait) = bounded::<()>(0);
        let mut worker = threads().start("rmq-test", move || assert!(wait.recv().is_err())).unwrap();
        assert!(!worker.join_until(Instant::now() + Duration::from_millis(20)));
        drop(release);
        assert!(worker.join_until(Instant::now() + Duration::from_secs(10)));
    }

    #[test]
    fn a_thread_cannot_wait_for_itself() {
        let (hand_over, own) = bounded::<Worker>(1);
        let (report, reported) = bounded(1);
        let worker = threads()
            .start("rmq-test", move || {
                let mut own = own.recv().unwrap();
                let _ = report.send(own.join_until(Instant::now() + Duration::from_secs(10)));
            })
            .unwrap();
        hand_over.send(worker).unwrap();
        assert!(!reported.recv_timeout(Duration::from_secs(10)).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn signals_are_blocked_in_our_threads_and_not_in_the_callers() {
        use nix::sys::signal::{SigSet, Signal};
        let (tell, told) = bounded(1);
        let worker = threads()
            .start("rmq-test", move || {
                let _ = tell.send(SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
            })
            .unwrap();
        assert!(told.recv_timeout(Duration::from_secs(10)).unwrap());
        drop(worker);
        assert!(!SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
    }
}
