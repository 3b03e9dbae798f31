//! Layer 2: requests and responses over sockets, one connection per address, made on demand.
//!
//! [`Remoting`] is the handle that every thread uses; the thread `rmq-remoting` (`selector.rs`) owns the sockets. Every
//! accepted request is completed exactly once: by its response, its deadline, the loss of its connection, or shutdown.
//! A response is an outcome whatever its code: the layer above interprets codes.

mod config;
mod connection;
mod dial;
mod link;
mod liveness;
mod mailbox;
mod outbox;
mod pending;
mod request;
mod resolver;
mod responder;
mod selector;
#[cfg(test)]
mod tests;
pub(crate) mod transport;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::Token;
use parking_lot::Mutex;

pub(crate) use config::RemotingConfig;
pub(crate) use pending::{CallError, Complete, Completion, Outcome};
pub(crate) use request::{EncodedRequest, Request};
pub(crate) use resolver::AddressMap;
pub use resolver::{Resolve, SystemResolver};
pub(crate) use responder::Responder;

use self::connection::{CloseReason, Connection, Limits, Submitted};
use self::dial::Backoff;
use self::mailbox::{Command, Mailbox};
use self::outbox::OutgoingFrame;
use self::pending::{Parked, Slot, Waiter};
use crate::error::{Certainty, Error, ErrorKind, Phase, Result};
use crate::logging::{info, warn};
use crate::name_map::NameMap;
use crate::repeats::is_news_of_outage;
use crate::wire::RemotingCommand;
use crate::worker::{Health, Threads, Worker, check_may_wait};

/// Most connections that one request is handed to, if each closes at that moment.
const HAND_OVERS: usize = 3;
/// Time past its deadline that a caller waits for an outcome that is being delivered to it.
const DELIVERY_GRACE: Duration = Duration::from_millis(100);

/// Receiver of the layer's events. Called on `rmq-remoting`: must not block.
pub(crate) trait RemotingEvents: Send + Sync {
    /// Receives a request of a peer. Any thread may respond.
    fn requested(&self, request: RemotingCommand, responder: Responder);

    /// A connection was made.
    fn connected(&self, address: &Arc<str>);

    /// A connection was lost, or could not be made.
    fn disconnected(&self, address: &Arc<str>);
}

/// Sends requests to addresses. Cheap to clone; the owner of [`RemotingThread`] ends it for all.
#[derive(Clone)]
pub(crate) struct Remoting {
    shared: Arc<Shared>,
}

/// State that handles and the selector share.
struct Shared {
    config: RemotingConfig,
    peers: Mutex<Peers>,
    /// True if a peer has failed and not succeeded since. Written under the lock of `peers`. A read without the lock
    /// may be a moment late, as may one with it.
    any_failed: AtomicBool,
    next_token: AtomicUsize,
    next_opaque: AtomicI32,
    mailbox: Mailbox,
    random: AtomicU64,
    health: Arc<Health>,
}

#[derive(Default)]
struct Peers {
    by_address: NameMap<Peer>,
    closed: bool,
}

#[derive(Default)]
struct Peer {
    connection: Option<Arc<Connection>>,
    backoff: Backoff,
}

impl Peers {
    /// Forgets addresses without a connection and without recent failures: brokers come and go under new addresses.
    fn forget_unused(&mut self, now: Instant) {
        self.by_address.retain(|_, peer| peer.connection.is_some() || !peer.backoff.is_forgotten(now));
    }
}

impl Remoting {
    /// Starts the selector. It ends when the returned owner is stopped or dropped.
    pub(crate) fn start(
        config: RemotingConfig,
        threads: &Threads,
        events: Arc<dyn RemotingEvents>,
    ) -> Result<(Self, RemotingThread)> {
        let (mailbox, inbox) = Mailbox::new()?;
        let shared = Arc::new(Shared {
            config,
            peers: Mutex::default(),
            any_failed: AtomicBool::new(false),
            next_token: AtomicUsize::new(1),
            next_opaque: AtomicI32::new(0),
            mailbox,
            random: AtomicU64::new(RandomState::new().build_hasher().finish()),
            health: Arc::clone(threads.health()),
        });
        let worker = selector::start(Arc::clone(&shared), inbox, threads, events)?;
        let remoting = Self { shared };
        Ok((remoting.clone(), RemotingThread { remoting, worker: Some(worker), has_ended: false }))
    }

    /// Sends a request and waits for its response, at most until `deadline`.
    pub(crate) fn invoke(&self, address: &Arc<str>, request: Request<'_>, deadline: Instant) -> Outcome {
        check_may_wait("a synchronous request").map_err(|error| refused(address, error.kind(), error.detail()))?;
        let slot = Slot::of_this_thread();
        let request = self.encode(address, request, false)?;
        let opaque = request.opaque;
        let waiter = Waiter::Parked(Parked::new(&slot));
        let connection = self.accept(request, Some(waiter), deadline, Instant::now()).map_err(|(error, _)| error)?;
        if let Some(outcome) = slot.wait_until(deadline) {
            return outcome;
        }
        if let Some(error) = connection.abandon(opaque) {
            return Err(error);
        }
        // The entry was taken just now, and with it the duty to complete: the outcome arrives soon, unless a logger
        // blocks the thread that took it.
        let outcome = slot.wait_until(Instant::now() + DELIVERY_GRACE);
        outcome.unwrap_or_else(|| Err(connection.timed_out(Phase::Reply, Certainty::Unknown)))
    }

    /// Sends a request. `completion` runs exactly once, with the response or the reason why there is none by
    /// `deadline`.
    pub(crate) fn invoke_async(
        &self,
        address: &Arc<str>,
        request: Request<'_>,
        deadline: Instant,
        completion: Completion,
    ) {
        match self.encode(address, request, false) {
            Ok(request) => self.invoke_encoded(request, deadline, completion, Instant::now()),
            Err(error) => completion.complete(Err(error)),
        }
    }

    /// Sends an encoded request, as [`Remoting::invoke_async`] does: for a completion that owns the request's parts.
    pub(crate) fn invoke_encoded(
        &self,
        request: EncodedRequest,
        deadline: Instant,
        completion: Completion,
        now: Instant,
    ) {
        if let Err((error, waiter)) = self.accept(request, Some(Waiter::Completion(completion)), deadline, now)
            && let Some(waiter) = waiter
        {
            waiter.complete(Err(error));
        }
    }

    /// Sends a request that has no response. Waits until `deadline` for the connection and for room in its outbox. With
    /// a deadline that has passed it does not wait: the request is queued for a connection that is being dialled, and
    /// refused without room. An accepted request may still be lost with its connection.
    pub(crate) fn invoke_oneway(
        &self,
        address: &Arc<str>,
        request: Request<'_>,
        deadline: Instant,
    ) -> std::result::Result<(), CallError> {
        let request = self.encode(address, request, true)?;
        self.accept(request, None, deadline, Instant::now()).map(|_| ()).map_err(|(error, _)| error)
    }

    /// True if `address` is not in back-off after a failed dial.
    pub(crate) fn is_reachable(&self, address: &str) -> bool {
        if !self.shared.any_failed.load(Ordering::Relaxed) {
            return true;
        }
        let peers = self.shared.peers.lock();
        peers.by_address.get(address).is_none_or(|peer| peer.backoff.until(Instant::now()).is_none())
    }

    /// Forgets failures of addresses that have not been dialled for long.
    pub(crate) fn forget_unused(&self, now: Instant) {
        let mut peers = self.shared.peers.lock();
        peers.forget_unused(now);
        self.shared.note_failures(&peers);
    }

    /// True if there is a connection to `address` that has been made.
    pub(crate) fn is_connected(&self, address: &str) -> bool {
        let peers = self.shared.peers.lock();
        let connection = peers.by_address.get(address).and_then(|peer| peer.connection.clone());
        drop(peers);
        connection.is_some_and(|connection| connection.is_open())
    }

    /// Hands the request to its connection, or to another one if that has closed. A waiter that was not accepted comes
    /// back with the error.
    fn accept(
        &self,
        request: EncodedRequest,
        mut waiter: Option<Waiter>,
        deadline: Instant,
        mut now: Instant,
    ) -> std::result::Result<Arc<Connection>, (CallError, Option<Waiter>)> {
        let EncodedRequest { mut connection, head, body, opaque } = request;
        let frame = OutgoingFrame { head: &head.0, body: &body };
        let mut closed = 0;
        loop {
            let address = connection.address();
            if waiter.is_some() && deadline <= now {
                return Err((refused(address, ErrorKind::Timeout, "the deadline passed before it was sent"), waiter));
            }
            match connection.submit(&frame, opaque, waiter, deadline, now) {
                Submitted::Accepted { announce } => {
                    if announce {
                        self.shared.mailbox.send(Command::Look(connection.token()));
                    }
                    return Ok(connection);
                }
                Submitted::Closed(returned) => {
                    closed += 1;
                    if closed == HAND_OVERS {
                        let detail = "the connection is closed again and again";
                        return Err((refused(address, ErrorKind::ConnectionLost, detail), returned));
                    }
                    connection = match self.shared.connection_to(address) {
                        Ok(connection) => connection,
                        Err(error) => return Err((error, returned)),
                    };
                    waiter = returned;
                }
                Submitted::Full(returned) => {
                    let can_wait = !returned.as_ref().is_some_and(Waiter::is_completion);
                    if !can_wait || !park_until(deadline) {
                        connection.stop_waiting(thread::current().id());
                        return Err((refused(address, ErrorKind::WindowFull, "the peer does not keep up"), returned));
                    }
                    waiter = returned;
                }
                Submitted::NotYet => {
                    waiter = None;
                    let in_time = park_until(deadline);
                    if let Some(error) = connection.closed() {
                        return Err((error, None));
                    }
                    if !in_time {
                        connection.stop_waiting(thread::current().id());
                        return Err((connection.timed_out(Phase::Connect, Certainty::NotSent), None));
                    }
                }
            }
            now = Instant::now();
        }
    }
}

impl Remoting {
    /// Refuses requests from now on. The selector closes every connection, completes everything pending, and ends.
    pub(crate) fn close(&self) {
        self.shared.peers.lock().closed = true;
        self.shared.mailbox.stop();
    }

    /// Error of a call that the end of the client has ended.
    pub(crate) fn why_ended(&self) -> Error {
        let reason = self.shared.why_ended();
        Error::new(reason.kind, &*reason.detail)
    }
}

impl fmt::Debug for Remoting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remoting").field("addresses", &self.shared.peers.lock().by_address.len()).finish()
    }
}

impl Shared {
    /// Returns the connection to `address`, and creates it if there is none.
    fn connection_to(&self, address: &Arc<str>) -> std::result::Result<Arc<Connection>, CallError> {
        let connection = {
            let mut peers = self.peers.lock();
            if peers.closed {
                let reason = self.why_ended();
                return Err(refused(address, reason.kind, &reason.detail));
            }
            if let Some(connection) = peers.by_address.get(address).and_then(|peer| peer.connection.as_ref()) {
                return Ok(Arc::clone(connection));
            }
            let token = Token(self.next_token.fetch_add(1, Ordering::Relaxed));
            let RemotingConfig { outbox_limit, completions_outbox_limit, silence_limit, .. } = self.config;
            let limits = Limits {
                outbox: outbox_limit,
                outbox_of_completions: completions_outbox_limit,
                silence: silence_limit,
            };
            let connection = Arc::new(Connection::new(Arc::clone(address), token, limits));
            peers.by_address.entry(Arc::clone(address)).or_default().connection = Some(Arc::clone(&connection));
            connection
        };
        self.mailbox.send(Command::Dial(Arc::clone(&connection)));
        Ok(connection)
    }

    /// Reason for the end of the selector.
    fn why_ended(&self) -> CloseReason {
        match self.health.cause() {
            Some(cause) => CloseReason::new(ErrorKind::Internal, Arc::clone(cause)),
            None => CloseReason::new(ErrorKind::NotRunning, "the client has been shut down"),
        }
    }

    /// Forgets the connection, so that requests from now on go to another one.
    fn retire(&self, connection: &Arc<Connection>, now: Instant) {
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.by_address.get_mut(connection.address())
            && peer.connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection))
        {
            peer.connection = None;
        }
        peers.forget_unused(now);
        self.note_failures(&peers);
    }

    fn note_failures(&self, peers: &Peers) {
        let any_failed = peers.by_address.values().any(|peer| peer.backoff.has_failed());
        self.any_failed.store(any_failed, Ordering::Relaxed);
    }

    /// Notes a peer's first frame on a connection.
    fn note_success(&self, address: &Arc<str>) {
        let failures = {
            let mut peers = self.peers.lock();
            let failures = peers.by_address.get_mut(address).map_or(0, |peer| peer.backoff.succeeded());
            self.note_failures(&peers);
            failures
        };
        if failures > 0 {
            info!("connect: {address} responds again after {failures} failures");
        }
    }

    /// Notes a failed dial, or a connection that proved useless: the next dial of the address waits.
    fn note_failure(&self, address: &Arc<str>, reason: &CloseReason, now: Instant) {
        let random = self.random();
        let failures = {
            let mut peers = self.peers.lock();
            let failures = peers.by_address.entry(Arc::clone(address)).or_default().backoff.failed(now, random);
            self.note_failures(&peers);
            failures
        };
        if is_news_of_outage(failures) {
            warn!("connect: {} ({failures} in a row); retry within 2 s", reason.detail);
        }
    }

    fn random(&self) -> u64 {
        let seed = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 27)
    }
}

fn refused(address: &Arc<str>, kind: ErrorKind, detail: &str) -> CallError {
    CallError {
        kind,
        phase: Phase::Connect,
        certainty: Certainty::NotSent,
        address: Arc::clone(address),
        detail: Arc::from(detail),
        source: None,
    }
}

/// Waits to be unparked. False once the deadline has passed.
fn park_until(deadline: Instant) -> bool {
    thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
    Instant::now() < deadline
}

/// Owner of `rmq-remoting`.
#[derive(Debug)]
pub(crate) struct RemotingThread {
    remoting: Remoting,
    /// `None` once the thread has ended or was left behind.
    worker: Option<Worker>,
    has_ended: bool,
}

impl RemotingThread {
    /// Closes every connection, completes everything pending, and ends the thread. Returns the names of the threads
    /// that did not end by `deadline` and are left behind.
    pub(crate) fn stop(&mut self, deadline: Instant) -> Vec<String> {
        self.remoting.close();
        let mut left_behind = Vec::new();
        if let Some(mut worker) = self.worker.take() {
            self.has_ended = worker.join_until(deadline);
            if !self.has_ended && !worker.is_current() {
                left_behind.push(worker.name().to_owned());
            }
            worker.detach();
        }
        left_behind.extend(self.remoting.shared.mailbox.take_left_behind());
        left_behind
    }

    /// True once the selector has ended: no completion runs any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }
}

impl Drop for RemotingThread {
    fn drop(&mut self) {
        self.remoting.close();
    }
}
