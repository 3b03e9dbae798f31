//! The threads `rmq-resolve-N`: started for host *names* to dial, ended when idle, since nobody can cancel `getaddrinfo`.
//!
//! [`Resolver`] belongs to `rmq-remoting`, which never waits for an answer: it gives up at its own deadline, and a
//! question that nobody waits for any more is not asked. A name that hangs holds up one thread, and no other name as
//! long as fewer than [`MOST_THREADS`] hang.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::worker::{Threads, Worker};

/// A thread ends after this long without work.
const IDLE: Duration = Duration::from_secs(30);

/// Threads of one client.
pub(super) const MOST_THREADS: usize = 4;

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

/// Owner of the threads.
pub(super) struct Resolver {
    threads: Threads,
    desk: Arc<Desk>,
    workers: Vec<Worker>,
    started: usize,
}

/// What the threads work with.
struct Desk {
    resolve: Arc<dyn Resolve>,
    state: Mutex<State>,
    asked: Condvar,
}

#[derive(Default)]
struct State {
    questions: VecDeque<Question>,
    /// Names that a thread is asking for. Nobody else asks for them meanwhile: where one call hangs, so would the next.
    in_call: HashSet<Arc<str>>,
    threads: usize,
    ended: bool,
}

impl Resolver {
    pub(super) fn new(resolve: Arc<dyn Resolve>, threads: Threads) -> Self {
        let desk = Arc::new(Desk { resolve, state: Mutex::default(), asked: Condvar::new() });
        Self { threads, desk, workers: Vec::new(), started: 0 }
    }

    /// Has a question answered on one of the resolver's threads. Without any thread, the question is dropped.
    pub(super) fn ask(&mut self, question: Question) -> Result<()> {
        if !self.desk.take(question) {
            return Ok(());
        }
        // Those that were idle for too long.
        let now = Instant::now();
        self.workers.retain_mut(|worker| !worker.join_until(now));
        let desk = Arc::clone(&self.desk);
        match self.threads.start(format!("rmq-resolve-{}", self.started), move || desk.work()) {
            Ok(worker) => {
                self.started += 1;
                self.workers.push(worker);
                Ok(())
            }
            Err(error) => {
                let mut state = self.desk.state.lock();
                state.threads -= 1;
                if state.threads > 0 {
                    return Ok(());
                }
                state.questions.clear();
                Err(error)
            }
        }
    }

    /// Ends the threads. Returns the names of those that are stuck in a call beyond `deadline` and had to be left
    /// behind.
    pub(super) fn stop(&mut self, deadline: Instant) -> Vec<String> {
        let unanswered = {
            let mut state = self.desk.state.lock();
            state.ended = true;
            std::mem::take(&mut state.questions)
        };
        drop(unanswered);
        self.desk.asked.notify_all();
        let mut left_behind = Vec::new();
        for mut worker in self.workers.drain(..) {
            if !worker.join_until(deadline) {
                left_behind.push(worker.name().to_owned());
                worker.detach();
            }
        }
        left_behind
    }
}

impl Desk {
    /// Takes a question; `true` when another thread is needed for it, which counts from now on.
    fn take(&self, question: Question) -> bool {
        let mut state = self.state.lock();
        state.questions.push_back(question);
        let idle = state.threads - state.in_call.len();
        let is_needed = state.open_questions() > idle && state.threads < MOST_THREADS;
        state.threads += usize::from(is_needed);
        drop(state);
        self.asked.notify_one();
        is_needed
    }

    fn work(&self) {
        while let Some(question) = self.next() {
            let name = Arc::clone(&question.host_and_port);
            self.answer(question);
            self.state.lock().in_call.remove(&name);
        }
    }

    /// The next question whose name nobody is asking for; `None` when the thread is to end.
    fn next(&self) -> Option<Question> {
        let mut state = self.state.lock();
        let mut was_idle = false;
        while !state.ended {
            if let Some(question) = state.take_question() {
                return Some(question);
            }
            if was_idle {
                break;
            }
            was_idle = self.asked.wait_for(&mut state, IDLE).timed_out();
        }
        state.threads -= 1;
        None
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

impl State {
    fn open_questions(&self) -> usize {
        self.questions.iter().filter(|question| !self.in_call.contains(&question.host_and_port)).count()
    }

    fn take_question(&mut self) -> Option<Question> {
        let is_open = |question: &Question| !self.in_call.contains(&question.host_and_port);
        let question = self.questions.remove(self.questions.iter().position(is_open)?)?;
        self.in_call.insert(Arc::clone(&question.host_and_port));
        Some(question)
    }
}
