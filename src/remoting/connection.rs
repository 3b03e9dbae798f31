//! One connection to one address: its phase, its outbox and its pending requests behind a single short lock.
//!
//! Entering the pending table and appending the frame's bytes is one step under that lock, so the order of bytes, the
//! positions in the stream and the table always agree. A caller writes to the socket itself if the connection is plain,
//! idle and almost nothing is in flight: the lone caller saves a hand-over. Otherwise bytes are appended, and the
//! selector writes all that have gathered in one call. Runs on callers' threads and on `rmq-remoting`.

use std::collections::VecDeque;
use std::io::{ErrorKind as IoErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread, ThreadId};
use std::time::{Duration, Instant};

use mio::Token;
use mio::net::TcpStream;
use parking_lot::Mutex;

use super::outbox::{Batch, LARGE_BODY, Outbox, OutgoingFrame};
use super::pending::{CallError, Entry, Pending, Waiter};
use super::transport::Transport;
use crate::error::{Certainty, Error, ErrorKind, Phase, Source};
use crate::wire::RemotingCommand;
use crate::worker::contain;

/// Most requests in flight, including its own, with which a caller writes itself.
const DIRECT_IN_FLIGHT: usize = 2;
/// Most that a completion is late, so that many deadlines share one look through the table.
const DEADLINE_GRAIN: Duration = Duration::from_millis(10);

/// Limits of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes that may wait for the socket. One frame fits into an empty outbox whatever its size.
    pub(super) outbox: usize,
    /// The same for requests with a completion. Their senders bound them already, and a refusal would be a failure.
    pub(super) outbox_of_completions: usize,
    /// Longest time without a whole frame, for a peer that owes a response.
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
    state: Mutex<ConnectionState>,
}

#[derive(Debug)]
struct ConnectionState {
    limits: Limits,
    phase: ConnectionPhase,
    pending: Pending,
    outbox: Outbox,
    /// Position in the stream of the first byte that was not given to the operating system or the transport. While the
    /// selector writes it is the end of the batch: the progress within the batch is not known here.
    claimed: u64,
    /// True if the selector looks at the outbox without an announcement: it dials, writes, or waits for the socket to
    /// take more.
    selector_writes: bool,
    /// True between an announcement to the selector and its look.
    announced: bool,
    /// Time of the selector's next look without an announcement.
    next_look: Option<Instant>,
    /// Time since which the peer has owed a response and sent no whole frame. An abandoned request counts too: it says
    /// as much about the peer.
    owed_since: Option<Instant>,
    /// Callers that wait for the dial or for room in the outbox; each is listed once.
    waiting: Vec<Thread>,
}

#[derive(Debug)]
enum ConnectionPhase {
    /// Being dialled, including the transport's handshake: frames gather in the outbox.
    Dialing,
    /// In use. Has the socket if callers may write to it themselves.
    Open {
        direct: Option<Arc<TcpStream>>,
    },
    /// The peer sent GO_AWAY: pending requests may still be answered, new ones go to another connection.
    Leaving,
    Closed(CloseReason),
}

/// Result of [`Connection::submit`].
#[derive(Debug)]
pub(super) enum Submitted {
    /// The frame is accepted. The selector must be notified if `announce` is true.
    Accepted { announce: bool },
    /// Not accepted: the connection is closed, or about to be. Another one can be tried.
    Closed(Option<Waiter>),
    /// Not accepted: the outbox has no room. A calling thread that can wait is unparked when there is some.
    Full(Option<Waiter>),
    /// Not accepted: a one-way request has no waiter that could learn of a failed dial, so that the dial must succeed
    /// first. The calling thread is unparked at the end of the dial.
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
        let state = ConnectionState {
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

    /// Accepts a frame, and completes its waiter exactly once; or gives the waiter back. A frame without a waiter is a
    /// one-way request.
    pub(super) fn submit(
        &self,
        frame: &OutgoingFrame<'_>,
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

    /// Removes a caller that gives up before its frame was accepted.
    pub(super) fn stop_waiting(&self, caller: ThreadId) {
        self.state.lock().waiting.retain(|waiting| waiting.id() != caller);
    }

    /// Error of a request that the closed connection did not accept; `None` if it is not closed.
    pub(super) fn closed(&self) -> Option<CallError> {
        let reason = match &self.state.lock().phase {
            ConnectionPhase::Closed(reason) => reason.clone(),
            _ => return None,
        };
        Some(self.failed(&reason, Phase::Connect, Certainty::NotSent))
    }

    /// Gives up a request whose caller no longer waits. `None` if its outcome is already being delivered.
    pub(super) fn abandon(&self, opaque: i32) -> Option<CallError> {
        let (phase, certainty) = {
            let mut state = self.state.lock();
            let entry = state.pending.take(opaque)?;
            state.withdraw(&entry)
        };
        Some(self.timed_out(phase, certainty))
    }

    /// Error for an expired deadline.
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

    /// Opens the connection on a socket whose handshake is done. The selector looks right after this.
    pub(super) fn open(&self, socket: &Arc<TcpStream>, transport: &dyn Transport, now: Instant) {
        let mut state = self.state.lock();
        if matches!(state.phase, ConnectionPhase::Dialing) {
            let direct = transport.is_plain().then(|| Arc::clone(socket));
            state.phase = ConnectionPhase::Open { direct };
            // The peer could not respond before.
            state.owed_since = state.owed_since.map(|_| now);
            state.wake_waiting();
        }
    }

    /// Appends a frame without a waiter and without waiting: a response to the peer, or a probe. Called on any thread,
    /// at any time.
    pub(super) fn append(&self, frame: &OutgoingFrame<'_>) -> Appended {
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

    /// Takes the bytes that have gathered. From then on the selector is the only writer, and looks again without an
    /// announcement, until it finds none.
    pub(super) fn next_batch(&self) -> Option<Batch> {
        let mut state = self.state.lock();
        state.wake_waiting();
        state.selector_writes = !state.outbox.is_empty();
        // From here on appended bytes need an announcement of their own. Were this left to `plan`, then: A announces
        // its deadline alone; the selector finds no bytes here; B appends, finds that A has announced, and does not;
        // the selector plans, and sleeps over the bytes of B.
        state.announced = false;
        if !state.selector_writes {
            return None;
        }
        state.claimed = state.outbox.end();
        Some(state.outbox.take())
    }

    /// Takes back the part of a batch that could not be written now.
    pub(super) fn put_back(&self, left: Batch) {
        let mut state = self.state.lock();
        if let Some(unwritten) = state.outbox.put_back(left) {
            state.claimed = unwritten;
        }
        state.wake_waiting();
    }

    /// Notes that the peer sent whole frames. Moves the responses of pending requests to `answered`, with their
    /// waiters; late, double or unknown ones are dropped.
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

    /// Fails a request whose response cannot be used.
    pub(super) fn refuse(&self, opaque: i32, reason: &CloseReason) {
        let entry = self.state.lock().pending.take(opaque);
        if let Some(entry) = entry {
            entry.waiter.complete(Err(self.failed(reason, Phase::Reply, Certainty::Unknown)));
        }
    }

    /// Fails the completions whose deadline has come.
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

    /// True if the peer has owed a response, without a whole frame, for the silence limit.
    pub(super) fn is_too_silent(&self, now: Instant) -> bool {
        self.state.lock().silence_ends().is_some_and(|end| end <= now)
    }

    /// Returns the time of the selector's next look without an announcement: `own`, the next deadline of a completion,
    /// or, if `silence_counts`, the end of the peer's silence.
    pub(super) fn plan(&self, own: Option<Instant>, silence_counts: bool) -> Option<Instant> {
        let mut state = self.state.lock();
        let deadline = state.pending.earliest().map(|deadline| deadline + DEADLINE_GRAIN);
        let silence_ends = state.silence_ends().filter(|_| silence_counts);
        state.announced = false;
        state.next_look = [own, deadline, silence_ends].into_iter().flatten().min();
        state.next_look
    }

    /// Refuses new requests; pending ones stay.
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

    /// True if nothing is left to write or to wait for.
    pub(super) fn is_drained(&self) -> bool {
        let state = self.state.lock();
        state.pending.is_empty() && state.outbox.is_empty()
    }

    /// Closes the connection and fails everything that is pending on it.
    pub(super) fn close(&self, reason: &CloseReason) {
        let orphans: Vec<_> = {
            let mut state = self.state.lock();
            let entries = state.pending.take_all();
            let orphans = entries.into_iter().map(|entry| (state.progress_of(&entry), entry.waiter)).collect();
            state.phase = ConnectionPhase::Closed(reason.clone());
            state.outbox = Outbox::default();
            state.wake_waiting();
            orphans
        };
        for ((phase, certainty), waiter) in orphans {
            // Each gets its outcome, also if the completion of another panics.
            contain("a completion", || waiter.complete(Err(self.failed(reason, phase, certainty))));
        }
    }
}

impl ConnectionState {
    /// True for the first caller that needs the selector's look; those after it, up to that look, share it. The
    /// selector clears the flag under the lock under which it takes the bytes (`next_batch`) or reads the deadlines
    /// (`plan`).
    fn announces(&mut self) -> bool {
        !std::mem::replace(&mut self.announced, true)
    }

    fn has_room(&self, frame: &OutgoingFrame<'_>, limit: usize) -> bool {
        self.outbox.unsent() == 0 || self.outbox.unsent() + frame.len() <= limit
    }

    fn let_wait(&mut self, caller: Thread) {
        if !self.waiting.iter().any(|waiting| waiting.id() == caller.id()) {
            self.waiting.push(caller);
        }
    }

    /// Unparks waiting callers once half of the outbox is free: earlier, many would wake up for the room of one.
    fn wake_waiting(&mut self) {
        if self.outbox.unsent() <= self.limits.outbox / 2 {
            for caller in self.waiting.drain(..) {
                caller.unpark();
            }
        }
    }

    /// Enters the request whose frame comes next. Returns the latest time of the selector's next look.
    fn expect_reply(
        &mut self,
        frame: &OutgoingFrame<'_>,
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

    /// Socket to which a caller may write itself: there is no other writer, no byte waits, and so little is in flight
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

    /// Progress of a request, by the position of its frame in the stream.
    fn progress_of(&self, entry: &Entry) -> (Phase, Certainty) {
        match self.phase {
            ConnectionPhase::Dialing => (Phase::Connect, Certainty::NotSent),
            _ if entry.frame.start >= self.claimed => (Phase::Queue, Certainty::NotSent),
            _ => (Phase::Reply, Certainty::Unknown),
        }
    }

    /// Withdraws the bytes of a given-up request, unless they have begun to leave: what is reported as "not sent" must
    /// not leave later.
    fn withdraw(&mut self, entry: &Entry) -> (Phase, Certainty) {
        let progress = self.progress_of(entry);
        if progress.1 == Certainty::NotSent {
            self.outbox.withdraw(&entry.frame);
            self.wake_waiting();
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
fn write_until_full(mut socket: &TcpStream, frame: &OutgoingFrame<'_>) -> usize {
    if !frame.body.is_empty() && frame.body.len() < LARGE_BODY {
        return write_until_full(socket, &OutgoingFrame::encoded(&[frame.head, frame.body].concat()));
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
