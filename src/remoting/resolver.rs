//! The thread `rmq-resolve`: started for the first host *name* to dial, ended when idle, since nobody can cancel
//! `getaddrinfo`.
//!
//! [`Resolver`] belongs to `rmq-remoting`, which never waits for an answer: it gives up at its own deadline, and a
//! question that nobody waits for any more is not asked.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use parking_lot::Mutex;

use crate::error::Result;
use crate::worker::{Threads, Worker};

/// The thread ends after this long without work.
const IDLE: Duration = Duration::from_secs(30);

/// Turns a host and port into socket addresses; may block. A client can be given its own, which must give up by itself.
pub trait Resolve: Send + Sync {
    /// All addresses of `host_and_port`, which is `name:port`, in the order to try them.
    ///
    /// # Errors
    ///
    /// When the name cannot be resolved.
    fn resolve(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>>;
}

/// The operating system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        host_and_port.to_socket_addrs().map(Iterator::collect)
    }
}

/// A name to be resolved for one dial.
pub(super) struct Question {
    pub(super) host_and_port: Arc<str>,
    /// When the dial gives up.
    pub(super) until: Instant,
    /// Called on `rmq-resolve`, or dropped when nobody waits any more.
    pub(super) answer: Box<dyn FnOnce(io::Result<Vec<SocketAddr>>) + Send>,
}

/// Owner of the thread.
pub(super) struct Resolver {
    threads: Threads,
    desk: Desk,
    questions: Option<Sender<Question>>,
    worker: Option<Worker>,
}

/// What the thread works with.
#[derive(Clone)]
struct Desk {
    resolve: Arc<dyn Resolve>,
    inbox: Receiver<Question>,
    /// Whether the thread takes questions. Held while one is asked and while the thread decides to end, so that none
    /// is left to a thread that is about to.
    staffed: Arc<Mutex<bool>>,
}

impl Resolver {
    pub(super) fn new(resolve: Arc<dyn Resolve>, threads: Threads) -> Self {
        let (questions, inbox) = unbounded();
        let desk = Desk { resolve, inbox, staffed: Arc::default() };
        Self { threads, desk, questions: Some(questions), worker: None }
    }

    /// Has a question answered on the resolver's thread.
    pub(super) fn ask(&mut self, question: Question) -> Result<()> {
        let Some(questions) = &self.questions else { return Ok(()) };
        let was_staffed = {
            let mut staffed = self.desk.staffed.lock();
            // The receiver is ours: it is there.
            let _ = questions.send(question);
            std::mem::replace(&mut *staffed, true)
        };
        if !was_staffed {
            let desk = self.desk.clone();
            let started = self.threads.start("rmq-resolve", move || desk.work());
            *self.desk.staffed.lock() = started.is_ok();
            self.worker = Some(started?);
        }
        Ok(())
    }

    /// Ends the thread. Returns its name when it is stuck in a call beyond `deadline` and had to be left behind.
    pub(super) fn stop(&mut self, deadline: Instant) -> Option<String> {
        self.questions = None;
        while self.desk.inbox.try_recv().is_ok() {}
        let mut worker = self.worker.take()?;
        if worker.join_until(deadline) {
            return None;
        }
        let name = worker.name().to_owned();
        worker.detach();
        Some(name)
    }
}

impl Desk {
    fn work(&self) {
        loop {
            match self.inbox.recv_timeout(IDLE) {
                Ok(question) => self.answer(question),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let mut staffed = self.staffed.lock();
                    if self.inbox.is_empty() {
                        *staffed = false;
                        return;
                    }
                }
            }
        }
    }

    fn answer(&self, question: Question) {
        if Instant::now() >= question.until {
            return;
        }
        // A resolver may be the user's own.
        let resolved = catch_unwind(AssertUnwindSafe(|| self.resolve.resolve(&question.host_and_port)));
        (question.answer)(resolved.unwrap_or_else(|_| Err(io::Error::other("the resolver panicked"))));
    }
}
