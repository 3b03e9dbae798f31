//! One connection to one address: its phase, its outbox and its pending requests behind a single short lock.
//!
//! Entering the pending table and appending the frame's bytes is one step under that lock, so the order of bytes, the
//! positions in the stream and the table never disagree. A caller may write to the socket itself when the connection
//! is plain, idle and almost nothing is in flight (the lone caller saves a hand-over); otherwise bytes are appended and
//! the selector writes them, all that have gathered in one call. Runs on callers' threads and on `rmq-remoting`.

use std::collections::VecDeque;
use std::io::{ErrorKind as IoErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};

use mio::Token;
use mio::net::TcpStream;
use parking_lot::Mutex;

use super::outbox::{Batch, Frame, LARGE_BODY, Outbox};
use super::pending::{CallError, Entry, Pending, Waiter};
use super::transport::Transport;
use crate::error::{Certainty, Error, ErrorKind, Phase, Source};
use crate::wire::RemotingCommand;
use crate::worker::contain;

/// A caller writes itself only when at most this many requests, its own included, are in flight.
const DIRECT_IN_FLIGHT: usize = 2;
/// Completions may be this late, so that many deadlines share one look through the table.
const DEADLINE_GRAIN: Duration = Duration::from_millis(10);

/// What bounds one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes that may wait for the socket; one frame fits into an empty outbox whatever its size.
    pub(super) outbox: usize,
    /// The same for requests whose completion nobody waits for here: where they come from bounds them already, and a
    /// refusal would be a failure.
    pub(super) outbox_of_completions: usize,
    /// How long a connection that owes a reply may bring no whole frame.
    pub(super) silence: Duration,
}

/// Reason for the end of a connection, and for the failure of everything that was pending on it.
#[derive(Clone, Debug)]
pub(super) struct CloseReason {
    pub(super) kind: ErrorKind,
    pub(super) detail: Arc<str>,
    pub(super) source: Option<Source>,
}

impl CloseReason {
    pub(super) fn new(kind: ErrorKind, detail: impl Into<Arc<str>>) -> Self {
        Self { kind, detail: detail.into(), source: None }
    }

    /// Creates the reason for a failed call of the system, the transport or the decoder; `operation` names it.
    pub(super) fn of_failed(
        kind: ErrorKind,
        operation: &str,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let detail = Arc::from(format!("{operation} failed: {error}"));
        Self { kind, detail, source: Some(Arc::new(error)) }
    }
}

impl From<Error> for CloseReason {
    fn from(error: Error) -> Self {
        Self { kind: error.kind(), detail: Arc::from(error.detail()), source: error.shared_source().cloned() }
    }
}

/// A connection, from the first request for its address to its end; a later one to the same address is another value.
#[derive(Debug)]
pub(crate) struct Connection {
    address: Arc<str>,
    token: Token,
    /// Number of the peer's requests whose responders live.
    unanswered: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    phase: ConnectionPhase,
    pending: Pending,
    outbox: Outbox,
    /// Where in the stream the bytes begin of which none was given away, to the operating system or the transport.
    /// While the selector writes that is the end of what it took: nobody else knows how far it has come.
    claimed: u64,
    /// The selector comes back to the outbox by itself: it dials, writes, or waits for the socket to take more. Others
    /// append and need not announce it.
    selector_writes: bool,
    /// The selector has been told, and has not looked yet, that there is something to do.
    announced: bool,
    /// When the selector looks without being told.
    next_look: Option<Instant>,
    /// Since when the peer has owed a reply and sent no whole frame. An abandoned request still counts: whether its
    /// caller waits makes no difference to whether the peer lives.
    owed_since: Option<Instant>,
    /// Callers that wait for the dial or for room in the outbox, each once.
    waiting: Vec<Thread>,
}

#[derive(Debug)]
enum ConnectionPhase {
    /// Being dialled: frames gather in the outbox.
    Dialing,
    /// In use; with the socket when callers may write to it themselves.
    Open {
        direct: Option<Arc<TcpStream>>,
    },
    /// The peer said GO_AWAY: what is pending may still be answered, new requests go elsewhere.
    Leaving,
    Closed(CloseReason),
}

/// What became of a frame that was handed to [`Connection::submit`].
#[derive(Debug)]
pub(super) enum Submitted {
    /// It is on its way; `announce` means that the selector must be told.
    Accepted { announce: bool },
    /// The connection is closed, or about to be: nothing happened, another connection can be tried.
    Closed(Option<Waiter>),
    /// There is no room in the outbox: nothing happened. A calling thread that can wait is unparked when there is some.
    Full(Option<Waiter>),
    /// A one-way request has nobody to tell that the dial failed, so it is not accepted before the dial succeeded:
    /// nothing happened, the calling thread is unparked when the dial ends.
    NotYet,
}

/// Result of [`Connection::append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// The frame is in the outbox. The selector must be notified if `announce` is true.
    Accepted { announce: bool },
    /// The outbox has no room.
    Full,
    /// The connection is closed.
    Closed,
}

impl Connection {
    pub(super) fn new(address: Arc<str>, token: Token, limits: Limits) -> Self {
        let state = State {
            limits,
            phase: ConnectionPhase::Dialing,
            pending: Pending::default(),
            outbox: Outbox::default(),
            claimed: 0,
            selector_writes: true,
            announced: false,
            next_look: None,
            owed_since: None,
            waiting: Vec::new(),
        };
        Self { address, token, unanswered: AtomicUsize::new(0), state: Mutex::new(state) }
    }

    pub(super) fn address(&self) -> &Arc<str> {
        &self.address
    }

    pub(super) fn token(&self) -> Token {
        self.token
    }

    // --- Callers ---

    /// Accepts a frame, and with it the promise to complete `waiter` exactly once; or gives the waiter back. A frame
    /// without a waiter is a one-way request.
    pub(super) fn submit(
        &self,
        frame: &Frame<'_>,
        opaque: i32,
        waiter: Option<Waiter>,
        deadline: Instant,
        now: Instant,
    ) -> Submitted {
        let mut state = self.state.lock();
        match state.phase {
            ConnectionPhase::Leaving | ConnectionPhase::Closed(_) => return Submitted::Closed(waiter),
            ConnectionPhase::Dialing if waiter.is_none() && now < deadline => {
                state.let_wait(thread::current());
                return Submitted::NotYet;
            }
            _ => {}
        }
        let can_wait = !waiter.as_ref().is_some_and(Waiter::is_completion);
        let limit = if can_wait { state.limits.outbox } else { state.limits.outbox_of_completions };
        if !state.has_room(frame, limit) {
            if can_wait {
                state.let_wait(thread::current());
            }
            return Submitted::Full(waiter);
        }
        let direct = matches!(waiter, Some(Waiter::Parked(_)));
        let must_look_by = waiter.map(|waiter| state.expect_reply(frame, opaque, waiter, deadline, now));
        let must_write = match direct.then(|| state.direct_socket()).flatten() {
            Some(socket) => {
                let written = write_until_full(&socket, frame);
                state.claimed = state.outbox.end() + written as u64;
                // The selector finds a broken socket when it tries the rest.
                state.outbox.append(frame, written);
                written < frame.len()
            }
            None => {
                state.outbox.append(frame, 0);
                true
            }
        };
        let looks_too_late = must_look_by.is_some_and(|by| state.next_look.is_none_or(|next| next > by));
        let must_look = looks_too_late || (must_write && !state.selector_writes);
        Submitted::Accepted { announce: must_look && state.announces() }
    }

    /// The caller gives up before its frame could be accepted.
    pub(super) fn stop_waiting(&self, caller: ThreadId) {
        self.state.lock().waiting.retain(|waiting| waiting.id() != caller);
    }

    /// Why the connection was closed, as a failure of a request of which nothing was accepted.
    pub(super) fn closed(&self) -> Option<CallError> {
        let reason = match &self.state.lock().phase {
            ConnectionPhase::Closed(reason) => reason.clone(),
            _ => return None,
        };
        Some(self.failed(&reason, Phase::Connect, Certainty::NotSent))
    }

    /// Gives up a request whose caller no longer waits; `None` when its outcome is being delivered already.
    pub(super) fn abandon(&self, opaque: i32) -> Option<CallError> {
        let (phase, certainty) = {
            let mut state = self.state.lock();
            let entry = state.pending.take(opaque)?;
            state.withdraw(&entry)
        };
        Some(self.timed_out(phase, certainty))
    }

    /// What a caller is told whose deadline passed.
    pub(super) fn timed_out(&self, phase: Phase, certainty: Certainty) -> CallError {
        let detail = match phase {
            Phase::Connect => "the deadline passed before a connection was made",
            Phase::Queue => "the deadline passed before the request could be written",
            _ => "the deadline passed before the reply came",
        };
        self.failed(&CloseReason::new(ErrorKind::Timeout, detail), phase, certainty)
    }

    fn failed(&self, reason: &CloseReason, phase: Phase, certainty: Certainty) -> CallError {
        CallError {
            kind: reason.kind,
            phase,
            certainty,
            address: Arc::clone(&self.address),
            detail: Arc::clone(&reason.detail),
            source: reason.source.clone(),
        }
    }

    // --- The selector ---

    /// The dialled socket is ready. The selector looks right after this.
    pub(super) fn open(&self, socket: &Arc<TcpStream>, transport: &dyn Transport, now: Instant) {
        let mut state = self.state.lock();
        if matches!(state.phase, ConnectionPhase::Dialing) {
            let direct = transport.is_plain().then(|| Arc::clone(socket));
            state.phase = ConnectionPhase::Open { direct };
            // The peer could not say anything before.
            state.owed_since = state.owed_since.map(|_| now);
            state.tell_of_room();
        }
    }

    /// Appends a frame without a waiter and without waiting: a response to the peer, or a probe. Called on any thread,
    /// at any time.
    pub(super) fn append(&self, frame: &Frame<'_>) -> Appended {
        let mut state = self.state.lock();
        if matches!(state.phase, ConnectionPhase::Closed(_)) {
            return Appended::Closed;
        }
        if !state.has_room(frame, state.limits.outbox) {
            return Appended::Full;
        }
        state.outbox.append(frame, 0);
        let must_look = !state.selector_writes;
        Appended::Accepted { announce: must_look && state.announces() }
    }

    /// Counts a request of the peer until [`Connection::request_ended`].
    pub(super) fn request_began(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn request_ended(&self) {
        self.unanswered.fetch_sub(1, Ordering::Relaxed);
    }

    /// Number of the peer's requests whose responders live.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Takes what has gathered. From then on the selector is the only writer, and looks again without being told, until
    /// it finds nothing here.
    pub(super) fn next_batch(&self) -> Option<Batch> {
        let mut state = self.state.lock();
        state.tell_of_room();
        state.selector_writes = !state.outbox.is_empty();
        // From here on appended bytes need an announcement of their own. Were this left to `plan`, then: A announces its
        // deadline alone; the selector finds no bytes here; B appends, finds that A has announced, and does not; the
        // selector plans, and sleeps over the bytes of B.
        state.announced = false;
        if !state.selector_writes {
            return None;
        }
        state.claimed = state.outbox.end();
        Some(state.outbox.take())
    }

    /// Takes back what of a batch could not be written now.
    pub(super) fn put_back(&self, left: Batch) {
        let mut state = self.state.lock();
        if let Some(unwritten) = state.outbox.put_back(left) {
            state.claimed = unwritten;
        }
        state.tell_of_room();
    }

    /// The peer sent whole frames, maybe these responses. Those that are waited for come back with their waiter; the rest
    /// (late, double or unknown ones) are dropped.
    pub(super) fn heard(
        &self,
        responses: &mut Vec<RemotingCommand>,
        answered: &mut VecDeque<(Waiter, RemotingCommand)>,
        now: Instant,
    ) {
        let mut state = self.state.lock();
        for response in responses.drain(..) {
            if let Some(entry) = state.pending.take(response.opaque) {
                answered.push_back((entry.waiter, response));
            }
        }
        state.owed_since = (!state.pending.is_empty()).then_some(now);
    }

    /// Ends a request whose response came and cannot be used.
    pub(super) fn refuse(&self, opaque: i32, reason: &CloseReason) {
        let entry = self.state.lock().pending.take(opaque);
        if let Some(entry) = entry {
            entry.waiter.complete(Err(self.failed(reason, Phase::Reply, Certainty::Unknown)));
        }
    }

    /// Ends the requests whose deadline has come.
    pub(super) fn expire(&self, now: Instant) {
        let expired: Vec<_> = {
            let mut state = self.state.lock();
            let entries = state.pending.take_expired(now);
            entries.into_iter().map(|entry| (state.withdraw(&entry), entry.waiter)).collect()
        };
        for ((phase, certainty), waiter) in expired {
            waiter.complete(Err(self.timed_out(phase, certainty)));
        }
    }

    /// Whether the peer has owed a reply, and sent no whole frame, for as long as it may.
    pub(super) fn is_too_silent(&self, now: Instant) -> bool {
        self.state.lock().silence_ends().is_some_and(|end| end <= now)
    }

    /// Settles when the selector looks next without being told: at `own`, at the next deadline of a completion, and,
    /// if `silence_counts`, when the peer has sent no whole frame for too long.
    pub(super) fn plan(&self, own: Option<Instant>, silence_counts: bool) -> Option<Instant> {
        let mut state = self.state.lock();
        let deadline = state.pending.earliest().map(|deadline| deadline + DEADLINE_GRAIN);
        let silence_ends = state.silence_ends().filter(|_| silence_counts);
        state.announced = false;
        state.next_look = [own, deadline, silence_ends].into_iter().flatten().min();
        state.next_look
    }

    /// New requests are no longer accepted here; what is pending stays.
    pub(super) fn leave(&self) {
        let mut state = self.state.lock();
        if !matches!(state.phase, ConnectionPhase::Closed(_)) {
            state.phase = ConnectionPhase::Leaving;
        }
    }

    /// True from the end of the dial to the end of the connection, or to the peer's GO_AWAY.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state.lock().phase, ConnectionPhase::Open { .. })
    }

    /// Bytes that wait for the socket.
    #[cfg(test)]
    pub(super) fn unsent(&self) -> usize {
        self.state.lock().outbox.unsent()
    }

    /// Requests without an outcome.
    #[cfg(test)]
    pub(super) fn pending(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// Whether nothing is left to write or to wait for.
    pub(super) fn is_drained(&self) -> bool {
        let state = self.state.lock();
        state.pending.is_empty() && state.outbox.is_empty()
    }

    /// Closes the connection and completes everything that was pending on it. Only the first reason counts.
    pub(super) fn close(&self, reason: &CloseReason) {
        let orphans: Vec<_> = {
            let mut state = self.state.lock();
            let entries = state.pending.take_all();
            let orphans = entries.into_iter().map(|entry| (state.progress_of(&entry), entry.waiter)).collect();
            state.phase = ConnectionPhase::Closed(reason.clone());
            state.outbox = Outbox::default();
            state.tell_of_room();
            orphans
        };
        for ((phase, certainty), waiter) in orphans {
            // The others get their outcome whatever one of them does with its own.
            contain("a completion", || waiter.complete(Err(self.failed(reason, phase, certainty))));
        }
    }
}

impl State {
    /// True for the first caller that needs the selector's look; those after it, up to that look, share it. The selector
    /// clears the flag under the lock under which it takes the bytes (`next_batch`) or reads the deadlines (`plan`).
    fn announces(&mut self) -> bool {
        !std::mem::replace(&mut self.announced, true)
    }

    fn has_room(&self, frame: &Frame<'_>, limit: usize) -> bool {
        self.outbox.unsent() == 0 || self.outbox.unsent() + frame.len() <= limit
    }

    fn let_wait(&mut self, caller: Thread) {
        if !self.waiting.iter().any(|waiting| waiting.id() == caller.id()) {
            self.waiting.push(caller);
        }
    }

    /// Not before half of the outbox is free: else many callers would wake up for the room of one.
    fn tell_of_room(&mut self) {
        if self.outbox.unsent() <= self.limits.outbox / 2 {
            for caller in self.waiting.drain(..) {
                caller.unpark();
            }
        }
    }

    /// Enters the request whose frame comes next. Returns by when the selector must look.
    fn expect_reply(
        &mut self,
        frame: &Frame<'_>,
        opaque: i32,
        waiter: Waiter,
        deadline: Instant,
        now: Instant,
    ) -> Instant {
        let silence_ends = *self.owed_since.get_or_insert(now) + self.limits.silence;
        let must_look_by = match waiter {
            Waiter::Completion(_) => silence_ends.min(deadline + DEADLINE_GRAIN),
            Waiter::Parked(_) => silence_ends,
        };
        let start = self.outbox.end();
        let entry = Entry { waiter, deadline, frame: start..start + frame.len() as u64 };
        self.pending.insert(opaque, entry);
        must_look_by
    }

    fn silence_ends(&self) -> Option<Instant> {
        self.owed_since.map(|since| since + self.limits.silence)
    }

    /// The socket, when a caller may write to it itself: nobody else writes, nothing waits, and so little is in flight
    /// that gathering would not pay.
    fn direct_socket(&self) -> Option<Arc<TcpStream>> {
        match &self.phase {
            ConnectionPhase::Open { direct: Some(socket) }
                if !self.selector_writes && self.outbox.is_empty() && self.pending.len() <= DIRECT_IN_FLIGHT =>
            {
                Some(Arc::clone(socket))
            }
            _ => None,
        }
    }

    /// How far a request has come, by how much was given away of the stream.
    fn progress_of(&self, entry: &Entry) -> (Phase, Certainty) {
        match self.phase {
            ConnectionPhase::Dialing => (Phase::Connect, Certainty::NotSent),
            _ if entry.frame.start >= self.claimed => (Phase::Queue, Certainty::NotSent),
            _ => (Phase::Reply, Certainty::Unknown),
        }
    }

    /// The request is given up: what has not begun to leave must not leave any more, or "not sent" would be a lie.
    fn withdraw(&mut self, entry: &Entry) -> (Phase, Certainty) {
        let progress = self.progress_of(entry);
        if progress.1 == Certainty::NotSent {
            self.outbox.withdraw(&entry.frame);
            self.tell_of_room();
        }
        progress
    }
}

/// Writes until everything is written or the socket takes no more; returns how much it took.
///
/// Never with `write_vectored`: the standard library's `write` passes MSG_NOSIGNAL, its vectored write cannot, and a
/// peer that has reset the connection would end a host process that leaves SIGPIPE at its default.
///
/// A small body is copied behind its head first: one write costs less than two.
fn write_until_full(mut socket: &TcpStream, frame: &Frame<'_>) -> usize {
    if !frame.body.is_empty() && frame.body.len() < LARGE_BODY {
        return write_until_full(socket, &Frame::encoded(&[frame.head, frame.body].concat()));
    }
    let mut written = 0;
    while written < frame.len() {
        let (head, body) = frame.rest(written);
        match socket.write(if head.is_empty() { body } else { head }) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == IoErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    written
}
