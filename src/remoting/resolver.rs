//! The threads `rmq-resolve-N`: they map addresses and resolve host *names*, are started on demand and end when idle.
//!
//! [`Resolver`] belongs to `rmq-remoting`, which never waits for an answer: it gives up at its own deadline, and a
//! question without a waiting dial is skipped. Address maps and resolvers are user code, and `getaddrinfo` cannot be
//! cancelled: a call that hangs holds up one thread, and no other address while fewer than [`MOST_THREADS`] hang.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};
use parking_lot::{Condvar, Mutex};

use super::dial::parse_ip_address;
use crate::error::{Error, ErrorKind, Result};
use crate::worker::{Threads, Worker, words_of};

/// Time without work after which a thread ends.
const IDLE: Duration = Duration::from_secs(30);

/// Most threads of one client.
pub(super) const MOST_THREADS: usize = 4;

/// Replaces a broker's address from a route by the one to dial.
pub(crate) type AddressMap = dyn Fn(&str) -> String + Send + Sync;

/// Resolves a host and port to socket addresses; may block. A client's own resolver must give up by itself.
pub trait Resolve: Send + Sync {
    /// Returns all addresses of `host_and_port`, which is `name:port`, in the order to try them.
    ///
    /// # Errors
    ///
    /// Returns an error if the name cannot be resolved.
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

/// An address to be resolved for one dial.
pub(super) struct Question {
    pub(super) address: Arc<str>,
    /// True if the address map is asked first.
    pub(super) is_mapped: bool,
    /// Time at which the dial gives up.
    pub(super) until: Instant,
    /// Called on `rmq-resolve-N`, or dropped if the dial no longer waits.
    pub(super) answer: Box<dyn FnOnce(Result<ResolvedName>) + Send>,
}

/// Answer to a question.
#[derive(Debug)]
pub(super) struct ResolvedName {
    /// Address from the map, or the address of the question if it is not mapped.
    pub(super) target: Arc<str>,
    pub(super) socket_addresses: Vec<SocketAddr>,
}

/// Owner of the threads.
pub(super) struct Resolver {
    desk: Arc<Desk>,
    launcher: Option<Launcher>,
}

/// Thread `rmq-starter` of a client whose host brings its own [`ThreadStarter`](crate::worker::ThreadStarter). It
/// starts the resolver's threads: that runs code of the host and may block.
struct Launcher {
    // Above the worker: its drop comes first and ends the thread that the worker's drop waits for.
    wanted: Sender<()>,
    worker: Worker,
}

/// State that the threads share.
struct Desk {
    resolve: Arc<dyn Resolve>,
    address_map: Option<Arc<AddressMap>>,
    threads: Threads,
    state: Mutex<DeskState>,
    asked: Condvar,
}

#[derive(Default)]
struct DeskState {
    questions: VecDeque<Question>,
    /// Addresses that a thread is resolving. No other thread resolves them meanwhile: where one call hangs, so would
    /// the next.
    in_call: HashSet<Arc<str>>,
    /// Threads that live or are being started.
    threads: usize,
    started: usize,
    workers: Vec<Worker>,
    ended: bool,
}

impl Resolver {
    /// Called on the thread that starts the client.
    pub(super) fn new(
        resolve: Arc<dyn Resolve>,
        address_map: Option<Arc<AddressMap>>,
        threads: &Threads,
    ) -> Result<Self> {
        let (state, asked) = (Mutex::default(), Condvar::new());
        let desk = Arc::new(Desk { resolve, address_map, threads: threads.clone(), state, asked });
        let launcher = if threads.are_the_hosts() { Some(Launcher::start(&desk)?) } else { None };
        Ok(Self { desk, launcher })
    }

    /// Passes a question to the resolver's threads.
    pub(super) fn ask(&self, question: Question) {
        if !self.desk.take(question) {
            return;
        }
        match &self.launcher {
            None => self.desk.start_thread(),
            Some(launcher) => drop(launcher.wanted.send(())),
        }
    }

    /// Ends the threads. Returns the names of those that hang in a call beyond `deadline` and are left behind.
    pub(super) fn stop(&mut self, deadline: Instant) -> Vec<String> {
        let unanswered = {
            let mut state = self.desk.state.lock();
            state.ended = true;
            std::mem::take(&mut state.questions)
        };
        drop(unanswered);
        self.desk.asked.notify_all();
        let launcher = self.launcher.take().map(|Launcher { wanted, worker }| {
            drop(wanted);
            worker
        });
        let workers = std::mem::take(&mut self.desk.state.lock().workers);
        let mut left_behind = Vec::new();
        for mut worker in workers.into_iter().chain(launcher) {
            if !worker.join_until(deadline) {
                left_behind.push(worker.name().to_owned());
                worker.detach();
            }
        }
        left_behind
    }
}

impl Launcher {
    fn start(desk: &Arc<Desk>) -> Result<Self> {
        let (wanted, inbox) = unbounded();
        let starting = Arc::clone(desk);
        let worker = desk.threads.start_service("rmq-starter", move || {
            for () in inbox {
                starting.start_thread();
            }
        })?;
        Ok(Self { wanted, worker })
    }
}

impl Desk {
    /// Takes a question. True if another thread is needed for it; that thread counts from now on.
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

    /// Starts the thread that [`Desk::take`] has counted.
    fn start_thread(self: &Arc<Self>) {
        let (number, mut workers) = {
            let mut state = self.state.lock();
            let number = state.started;
            state.started += 1;
            (number, std::mem::take(&mut state.workers))
        };
        // Joins those that were idle for too long. A host's join is user code: not under the lock.
        let now = Instant::now();
        workers.retain_mut(|worker| !worker.join_until(now));
        let desk = Arc::clone(self);
        let started = self.threads.start_service(format!("rmq-resolve-{number}"), move || desk.work());
        let refused = {
            let mut state = self.state.lock();
            state.workers.append(&mut workers);
            match started {
                Ok(worker) => {
                    state.workers.push(worker);
                    None
                }
                Err(error) => {
                    state.threads -= 1;
                    // Living threads take the questions.
                    (state.threads == 0).then(|| (std::mem::take(&mut state.questions), error))
                }
            }
        };
        if let Some((questions, error)) = refused {
            for question in questions {
                (question.answer)(Err(error.clone()));
            }
        }
    }

    fn work(&self) {
        while let Some(question) = self.next() {
            let address = Arc::clone(&question.address);
            self.answer(question);
            self.state.lock().in_call.remove(&address);
        }
    }

    /// Waits for a question whose address no thread is resolving. `None` if the thread is to end.
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
        let answer = self.look_up(&question);
        (question.answer)(answer);
    }

    fn look_up(&self, question: &Question) -> Result<ResolvedName> {
        let target = match self.address_map.as_deref().filter(|_| question.is_mapped) {
            Some(map) => map_address(map, &question.address)?,
            None => Arc::clone(&question.address),
        };
        let socket_addresses = match parse_ip_address(&target) {
            Some(socket_address) => vec![socket_address],
            None => self.resolve(&target).map_err(|error| not_resolved(&question.address, &target, error))?,
        };
        Ok(ResolvedName { target, socket_addresses })
    }

    fn resolve(&self, target: &str) -> io::Result<Vec<SocketAddr>> {
        catch_unwind(AssertUnwindSafe(|| self.resolve.resolve(target)))
            .unwrap_or_else(|panic| Err(io::Error::other(format!("the resolver panicked: {}", words_of(&*panic)))))
    }
}

fn map_address(map: &AddressMap, address: &str) -> Result<Arc<str>> {
    catch_unwind(AssertUnwindSafe(|| map(address))).map(Arc::from).map_err(|panic| {
        let detail = format!("mapping {address} failed: the address map panicked: {}", words_of(&*panic));
        Error::new(ErrorKind::Resolve, detail)
    })
}

fn not_resolved(address: &str, target: &str, error: io::Error) -> Error {
    let detail = format!("resolving {} failed: {error}", both(address, target));
    Error::new(ErrorKind::Resolve, detail).with_source(error)
}

/// Address for texts, with the one that is dialled in its place.
pub(super) fn both(address: &str, target: &str) -> String {
    if address == target { address.to_owned() } else { format!("{address} (mapped to {target})") }
}

impl DeskState {
    fn open_questions(&self) -> usize {
        self.questions.iter().filter(|question| !self.in_call.contains(&question.address)).count()
    }

    fn take_question(&mut self) -> Option<Question> {
        let is_open = |question: &Question| !self.in_call.contains(&question.address);
        let question = self.questions.remove(self.questions.iter().position(is_open)?)?;
        self.in_call.insert(Arc::clone(&question.address));
        Some(question)
    }
}
