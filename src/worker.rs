//! Threads with a name, an owner, a panic boundary and a deadline for joining: the only place of the library that
//! starts one.
//!
//! All signals are blocked in the library's threads, so handlers of the host program run on its own threads. An
//! embedding host may replace the creation of threads through [`ThreadStarter`]. A thread that unwinds breaks its
//! client: [`Health`].

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::logging::{error, warn};

/// Time within which a new thread must run.
const START_LIMIT: Duration = Duration::from_secs(5);
/// Time for which the drop of a thread's owner waits for the thread.
const DROP_GRACE: Duration = Duration::from_secs(1);

/// Parameters of a thread to start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ThreadSpec {
    /// Name of the thread, at most 15 bytes, the limit of Linux.
    pub name: String,
    /// Stack size in bytes; `None` for the default of the platform.
    pub stack_size: Option<usize>,
}

/// Work of a thread. It never panics: a panic within it is caught, logged, and breaks the client.
pub type ThreadBody = Box<dyn FnOnce() + Send>;

/// Waits until a thread has ended. Called on a thread that ends the client, after the body has returned.
pub type ThreadJoin = Box<dyn FnOnce() + Send + Sync>;

/// Creates threads, for a host that must control its threads (a plugin, an interpreter).
///
/// Called on the threads that start clients and consumers, and on the thread that sends asynchronously with a callback
/// for the first time. A starter that blocks delays only that call. After it returns, the body must be running within 5
/// s. Otherwise the call fails with [`ErrorKind::Resource`], and the body does nothing when it runs later.
pub trait ThreadStarter: Send + Sync {
    /// Runs `body` on a new thread, with all signals blocked if the platform has signals.
    ///
    /// # Errors
    ///
    /// Returns an error if no thread can be created.
    fn start(&self, spec: &ThreadSpec, body: ThreadBody) -> io::Result<ThreadJoin>;
}

/// Starter that uses threads of the standard library: the default.
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
            // A body that panicked has unwound already; only its end matters here.
            let _ = handle.join();
        }))
    }
}

/// Blocks all signals while `start` runs. A new thread inherits the signal mask of its creator, so no signal can reach
/// the new thread at any moment.
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

thread_local! {
    /// True on service threads, on which others wait: a blocking call there could wait for itself.
    static IS_SERVICE: Cell<bool> = const { Cell::new(false) };
    /// The [`Handover`] that gave this thread its body; null on a thread that the library did not start.
    static CURRENT: Cell<*const ()> = const { Cell::new(ptr::null()) };
}

/// True on a service thread of any client, which runs neither callbacks nor listeners.
pub(crate) fn is_service_thread() -> bool {
    IS_SERVICE.get()
}

/// Returns an error where a blocking call could wait for itself: in a logger, an address map or a resolver that calls
/// back.
pub(crate) fn check_may_wait(call: &str) -> Result<()> {
    if !is_service_thread() {
        return Ok(());
    }
    let name = thread::current().name().unwrap_or("of the library").to_owned();
    let detail = format!(
        "{call} refused on thread {name}: the call blocks and could wait for this thread; call it on another thread"
    );
    Err(Error::new(ErrorKind::WrongThread, detail))
}

/// Returns the deadline of a wait that reports its progress; on a service thread it has passed already.
pub(crate) fn patience(deadline: Instant) -> Instant {
    if is_service_thread() { deadline.min(Instant::now()) } else { deadline }
}

/// Returns the message of a panic.
pub(crate) fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Runs `body`; catches a panic and logs it as a panic in `what`.
pub(crate) fn contain<T>(what: &str, body: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => Some(value),
        Err(panic) => {
            error!("panic in {what}: {}", words_of(&*panic));
            None
        }
    }
}

/// State of a client's threads: healthy, or broken by the first thread that died.
#[derive(Default)]
pub(crate) struct Health {
    cause: OnceLock<Arc<str>>,
    watcher: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Health {
    /// Reason why the client is broken; `None` while all its threads are alive.
    pub(crate) fn cause(&self) -> Option<&Arc<str>> {
        self.cause.get()
    }

    /// Returns an error if a thread has died.
    pub(crate) fn check(&self) -> Result<()> {
        match self.cause() {
            None => Ok(()),
            Some(cause) => Err(Error::new(ErrorKind::Internal, &**cause)),
        }
    }

    /// Registers `watcher` to run when a thread dies: on that thread, without a lock.
    pub(crate) fn watch(&self, watcher: impl Fn() + Send + Sync + 'static) {
        let _ = self.watcher.set(Box::new(watcher));
    }

    /// Records the death of a thread. The first one breaks the client.
    pub(crate) fn died(&self, thread: &str, how: &str) {
        let cause = format!("thread {thread} died: {how}; its client is broken, start a new one");
        let is_first = self.cause.set(Arc::from(&*cause)).is_ok();
        error!("{cause}");
        if is_first && let Some(watcher) = self.watcher.get() {
            contain("shutdown of a broken client", watcher);
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("cause", &self.cause).finish_non_exhaustive()
    }
}

/// Settings shared by the threads of one client.
#[derive(Clone)]
pub(crate) struct Threads {
    /// Starter of the host, which is user code; `None` for [`StdThreads`].
    hosts: Option<Arc<dyn ThreadStarter>>,
    stack_size: Option<usize>,
    health: Arc<Health>,
}

/// Body of a thread that is being started. The one that takes it may run or drop it.
#[derive(Clone)]
struct Handover(Arc<Mutex<Option<ThreadBody>>>);

impl Handover {
    fn take(&self) -> Option<ThreadBody> {
        self.0.lock().take()
    }

    /// Returns a token that identifies this thread for as long as it or its owner lives.
    fn token(&self) -> *const () {
        Arc::as_ptr(&self.0).cast()
    }
}

impl Threads {
    pub(crate) fn new(hosts: Option<Arc<dyn ThreadStarter>>, stack_size: Option<usize>) -> Self {
        Self { hosts, stack_size, health: Arc::default() }
    }

    pub(crate) fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// True if starting a thread runs code of the host, which a service thread must not do.
    pub(crate) fn are_the_hosts(&self) -> bool {
        self.hosts.is_some()
    }

    /// Runs `body` on a service thread, owned by the returned [`Worker`].
    pub(crate) fn start_service(
        &self,
        name: impl Into<String>,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<Worker> {
        self.start(name, move || {
            IS_SERVICE.set(true);
            body();
        })
    }

    /// Runs `body` on a thread that the returned [`Worker`] owns.
    pub(crate) fn start(&self, name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> Result<Worker> {
        let name = name.into();
        let handover = Handover(Arc::new(Mutex::new(Some(Box::new(body)))));
        let (alive, ended) = bounded(0);
        let (begin, begun) = bounded(1);
        let spec = ThreadSpec { name: name.clone(), stack_size: self.stack_size };
        let started = self.ask_starter(&spec, self.runner(&name, &handover, alive, begin)).and_then(|join| {
            // The library's own starter has created a thread, which will run: a service thread need not wait for it.
            if self.are_the_hosts() {
                wait_for_begin(&handover, &begun, &name)?;
            }
            Ok(join)
        });
        match started {
            Ok(join) => Ok(Worker { name, handover, ended, join: Some(join) }),
            Err(error) => {
                // A starter that kept the body may still run it: the body is gone, and the run has no effect.
                drop(handover.take());
                Err(error)
            }
        }
    }

    /// Creates the body for the starter.
    fn runner(&self, name: &str, handover: &Handover, alive: Sender<()>, begin: Sender<()>) -> ThreadBody {
        let (name, health, handover) = (name.to_owned(), Arc::clone(&self.health), handover.clone());
        let starting = thread::current().id();
        Box::new(move || {
            let _alive = alive;
            // A starter that runs the body on its own thread would never return.
            if thread::current().id() == starting {
                return;
            }
            let Some(body) = handover.take() else { return };
            CURRENT.set(handover.token());
            let _ = begin.send(());
            if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
                health.died(&name, &format!("panicked: {}", words_of(&*panic)));
            }
            // The host may reuse the thread for something else.
            CURRENT.set(ptr::null());
            IS_SERVICE.set(false);
        })
    }

    fn ask_starter(&self, spec: &ThreadSpec, body: ThreadBody) -> Result<ThreadJoin> {
        let starter = self.hosts.as_deref().unwrap_or(&StdThreads);
        match catch_unwind(AssertUnwindSafe(|| starter.start(spec, body))) {
            Ok(Ok(join)) => Ok(join),
            Ok(Err(error)) => Err(not_started(&spec.name, &error)),
            Err(panic) => {
                Err(not_started(&spec.name, &format_args!("the thread starter panicked: {}", words_of(&*panic))))
            }
        }
    }
}

fn not_started(name: &str, why: &dyn fmt::Display) -> Error {
    Error::new(ErrorKind::Resource, format!("starting thread {name} failed: {why}"))
}

/// Waits until the thread runs: a starter may have queued the body behind others that never end.
fn wait_for_begin(handover: &Handover, begun: &Receiver<()>, name: &str) -> Result<()> {
    match begun.recv_timeout(START_LIMIT) {
        Ok(()) => Ok(()),
        Err(RecvTimeoutError::Disconnected) => Err(not_started(name, &"ended before it began")),
        // The body is gone: the thread has taken it at this moment.
        Err(RecvTimeoutError::Timeout) if handover.take().is_none() => Ok(()),
        Err(RecvTimeoutError::Timeout) => Err(not_started(name, &format_args!("did not run within {START_LIMIT:?}"))),
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("stack_size", &self.stack_size).finish_non_exhaustive()
    }
}

/// Owner of one thread. Dropping it waits for the thread, for at most a second, and never on the thread itself. The
/// owner must first cause the thread to end (by dropping the channel that it reads).
pub(crate) struct Worker {
    name: String,
    handover: Handover,
    ended: Receiver<()>,
    join: Option<ThreadJoin>,
}

impl Worker {
    /// Name of the thread.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// True if the caller runs on this thread.
    pub(crate) fn is_current(&self) -> bool {
        CURRENT.get() == self.handover.token()
    }

    /// Waits until the thread has ended. Returns false if it has not ended by `deadline`, or if it is the caller.
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
                    contain("joining a thread", join);
                }
                true
            }
            _ => false,
        }
    }

    /// Detaches the thread: it ends by itself, without a join. For work that cannot be cancelled (a listener or a
    /// resolver call beyond the deadline of a shutdown); the shutdown's report contains it.
    pub(crate) fn detach(mut self) {
        self.join = None;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.is_current() && !self.join_until(Instant::now() + DROP_GRACE) {
            warn!("shutdown: thread {} did not end within {DROP_GRACE:?}; detached", self.name);
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
        Threads::new(None, None)
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

    /// Starter that handles each body as the test specifies.
    struct Host<F>(F);

    impl<F: Fn(ThreadBody) -> io::Result<ThreadJoin> + Send + Sync> ThreadStarter for Host<F> {
        fn start(&self, _: &ThreadSpec, body: ThreadBody) -> io::Result<ThreadJoin> {
            (self.0)(body)
        }
    }

    fn hosted(start: impl Fn(ThreadBody) -> io::Result<ThreadJoin> + Send + Sync + 'static) -> Threads {
        Threads::new(Some(Arc::new(Host(start))), None)
    }

    fn refusal(threads: &Threads) -> String {
        let error = threads.start("rmq-test", || panic!("it ran")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Resource);
        error.to_string()
    }

    #[test]
    fn a_starter_that_queues_the_body_fails_the_start_and_runs_nothing_later() {
        let queued = Arc::new(Mutex::new(Vec::new()));
        let queue = Arc::clone(&queued);
        let threads = hosted(move |body| {
            queue.lock().push(body);
            Ok(Box::new(|| panic!("a thread that never began is not joined")))
        });
        let held = Arc::new(());
        let kept = Arc::clone(&held);
        let error = threads.start("rmq-test", move || panic!("it ran with {kept:?}")).unwrap_err();
        assert_eq!(
            (error.kind(), error.detail()),
            (ErrorKind::Resource, "starting thread rmq-test failed: did not run within 5s")
        );
        assert_eq!(Arc::strong_count(&held), 1, "the values owned by the body are kept");
        let body = queued.lock().pop().unwrap();
        thread::Builder::new().spawn(body).unwrap().join().unwrap();
        assert!(threads.health().check().is_ok());
    }

    #[test]
    fn a_starter_that_panics_refuses_or_runs_the_body_itself_fails_the_start() {
        assert!(refusal(&hosted(|_| panic!("a bad host"))).contains("a bad host"));
        assert!(refusal(&hosted(|_| Err(io::Error::other("no more threads")))).contains("no more threads"));
        let here = hosted(|body| {
            body();
            Ok(Box::new(|| ()))
        });
        assert!(refusal(&here).contains("ended before it began"));
    }

    #[test]
    fn a_thread_that_panics_breaks_its_client_and_is_named() {
        let threads = threads();
        let (tell, told) = bounded(1);
        let watched = Arc::downgrade(threads.health());
        threads.health().watch(move || {
            let _ = tell.send(watched.upgrade().is_some_and(|health| health.check().is_err()));
        });
        let mut worker = threads.start_service("rmq-test", || panic!("a fault")).unwrap();
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(true));
        assert!(worker.join_until(Instant::now() + Duration::from_secs(10)));
        let error = threads.health().check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.detail().contains("rmq-test") && error.detail().contains("a fault"), "{error}");
    }

    #[test]
    fn calls_that_wait_are_refused_on_service_threads_and_nowhere_else() {
        let (tell, told) = bounded(2);
        let tell_too = tell.clone();
        let _service = threads().start_service("rmq-test", move || {
            let _ = tell.send(check_may_wait("this").map_err(|error| error.kind()));
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(Err(ErrorKind::WrongThread)));
        let _other = threads().start("rmq-test", move || {
            let _ = tell_too.send(check_may_wait("this").map_err(|error| error.kind()));
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(Ok(())));
        assert!(check_may_wait("this").is_ok());
    }

    #[test]
    fn an_owner_that_is_dropped_leaves_a_thread_behind_that_does_not_end() {
        let (release, wait) = bounded::<()>(0);
        let worker = threads().start("rmq-test", move || assert!(wait.recv().is_err())).unwrap();
        let before = Instant::now();
        drop(worker);
        assert!(before.elapsed() >= DROP_GRACE, "the drop did not wait");
        drop(release);
    }
}
