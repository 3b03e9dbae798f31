//! One connection to one address: its phase, its outbox and its pending requests behind a single short lock.
//!
//! Entering the pending table and appending the frame's bytes is one step under that lock, so the order of bytes, the
//! positions in the stream and the table never disagree. A caller may write to the socket itself when the connection
//! is plain, idle and almost nothing is in flight (the lone caller saves a hand-over); otherwise bytes are appended and
//! the selector writes them, all that have gathered in one call. Runs on callers' threads and on `rmq-remoting`.

use std::collections::VecDeque;
use std::io::{self, ErrorKind as IoErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::Thread;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use mio::Token;
use mio::net::TcpStream;
use parking_lot::Mutex;

use super::pending::{CallError, Entry, Outcome, Pending, Waiter};
use super::transport::Transport;
use crate::error::{Certainty, ErrorKind, Phase};

/// Bodies from this size on are queued as they are; smaller ones are copied behind their header, which costs less than
/// another write.
const LARGE_BODY: usize = 32 * 1024;
/// A caller writes itself only when at most this many requests, its own included, are in flight.
const DIRECT_IN_FLIGHT: usize = 2;
/// A spare buffer larger than this is not kept.
const KEPT_BUFFER: usize = 256 * 1024;

/// Why a connection is closed; told to everything that was pending on it.
#[derive(Clone, Debug)]
pub(super) struct CloseReason {
    pub(super) kind: ErrorKind,
    pub(super) detail: Arc<str>,
}

impl CloseReason {
    pub(super) fn new(kind: ErrorKind, detail: impl Into<Arc<str>>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

/// A connection, from the first request for its address to its end; a later one to the same address is another value.
#[derive(Debug)]
pub(crate) struct Connection {
    address: Arc<str>,
    token: Token,
    next_opaque: AtomicI32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: ConnectionPhase,
    pending: Pending,
    outbox: Outbox,
    /// Bytes given to the outbox, and those of them given to the operating system or the transport.
    appended: u64,
    written: u64,
    /// The selector holds bytes taken from the outbox: whoever has more must append.
    selector_writes: bool,
    /// The selector has been told, and has not looked yet, that there is something to do.
    announced: bool,
    /// One-way callers that wait for room in the outbox.
    room_waiters: Vec<Thread>,
}

#[derive(Debug)]
enum ConnectionPhase {
    /// Being dialled: frames gather in the outbox.
    Dialing,
    /// In use; with the socket when callers may write to it themselves.
    Open {
        direct: Option<Arc<TcpStream>>,
    },
    Closed(CloseReason),
}

/// What became of a frame that was handed to [`Connection::submit`].
#[derive(Debug)]
pub(super) enum Submitted {
    /// It is on its way; `announce` means that the selector must be told.
    Accepted { announce: bool },
    /// The connection is closed: nothing happened, another connection can be tried.
    Closed(Option<Waiter>),
    /// There is no room in the outbox: nothing happened.
    Full(Option<Waiter>),
}

/// A frame ready to be sent: the bytes encoded for it, a small body included, and a large body apart.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    encoded: &'a [u8],
    large_body: &'a Bytes,
}

impl<'a> Frame<'a> {
    /// Puts `body` behind the encoded head, or beside it when it is large.
    pub(super) fn new(encoded_head: &'a mut BytesMut, body: &'a Bytes) -> Self {
        static NO_BODY: Bytes = Bytes::new();
        if body.len() < LARGE_BODY {
            encoded_head.extend_from_slice(body);
            return Self { encoded: encoded_head, large_body: &NO_BODY };
        }
        Self { encoded: encoded_head, large_body: body }
    }

    fn len(&self) -> usize {
        self.encoded.len() + self.large_body.len()
    }
}

impl Connection {
    pub(super) fn new(address: Arc<str>, token: Token) -> Self {
        Self {
            address,
            token,
            next_opaque: AtomicI32::new(0),
            state: Mutex::new(State {
                phase: ConnectionPhase::Dialing,
                pending: Pending::default(),
                outbox: Outbox::default(),
                appended: 0,
                written: 0,
                selector_writes: false,
                announced: false,
                room_waiters: Vec::new(),
            }),
        }
    }

    pub(super) fn address(&self) -> &Arc<str> {
        &self.address
    }

    pub(super) fn token(&self) -> Token {
        self.token
    }

    /// A number that no other request on this connection has had (before 2³² more).
    pub(super) fn next_opaque(&self) -> i32 {
        self.next_opaque.fetch_add(1, Ordering::Relaxed)
    }

    /// Accepts a frame, and with it the promise to complete `waiter` exactly once; or gives the waiter back.
    ///
    /// `outbox_limit` bounds the bytes that wait for the socket.
    pub(super) fn submit(
        &self,
        frame: &Frame<'_>,
        opaque: i32,
        waiter: Option<Waiter>,
        deadline: Instant,
        outbox_limit: usize,
    ) -> Submitted {
        let mut state = self.state.lock();
        if matches!(state.phase, ConnectionPhase::Closed(_)) {
            return Submitted::Closed(waiter);
        }
        if state.outbox.len() + frame.len() > outbox_limit && !state.outbox.is_empty() {
            return Submitted::Full(waiter);
        }
        let parked = matches!(waiter, Some(Waiter::Parked(_)));
        let position = state.appended;
        state.appended += frame.len() as u64;
        if let Some(waiter) = waiter {
            state.pending.insert(opaque, Entry { waiter, deadline, position });
        }
        let announce = match parked.then(|| state.direct_socket()).flatten() {
            Some(socket) => state.write_directly(&socket, frame),
            None => {
                state.outbox.append(frame, 0);
                true
            }
        };
        Submitted::Accepted { announce: announce && !std::mem::replace(&mut state.announced, true) }
    }

    /// Gives up a request whose caller no longer waits; `None` when its outcome is being delivered already.
    pub(super) fn abandon(&self, opaque: i32) -> Option<(Phase, Certainty)> {
        let mut state = self.state.lock();
        let entry = state.pending.take(opaque)?;
        Some(state.progress_of(&entry))
    }

    /// Lets `caller` be unparked when there is room in the outbox, or the connection is closed.
    pub(super) fn wait_for_room(&self, caller: Thread) {
        self.state.lock().room_waiters.push(caller);
    }

    /// The dialled socket is ready.
    pub(super) fn open(&self, socket: &Arc<TcpStream>, transport: &dyn Transport) {
        let direct = transport.is_plain().then(|| Arc::clone(socket));
        let mut state = self.state.lock();
        if matches!(state.phase, ConnectionPhase::Dialing) {
            state.phase = ConnectionPhase::Open { direct };
        }
    }

    /// Takes the entries of the given responses; each comes back with its response, the rest (late, double or
    /// unknown ones) are dropped.
    pub(super) fn take_answered(
        &self,
        responses: &mut Vec<crate::wire::RemotingCommand>,
        answered: &mut Vec<(Waiter, crate::wire::RemotingCommand)>,
    ) {
        let mut state = self.state.lock();
        for response in responses.drain(..) {
            if let Some(entry) = state.pending.take(response.opaque) {
                answered.push((entry.waiter, response));
            }
        }
    }

    /// Ends the requests whose deadline has come.
    pub(super) fn expire(&self, now: Instant) -> usize {
        let expired: Vec<_> = {
            let mut state = self.state.lock();
            let entries = state.pending.take_expired(now);
            entries.into_iter().map(|entry| (state.progress_of(&entry), entry.waiter)).collect()
        };
        let count = expired.len();
        for ((phase, certainty), waiter) in expired {
            waiter.complete(Err(self.timed_out(phase, certainty)));
        }
        count
    }

    /// What a caller is told whose deadline passed.
    pub(super) fn timed_out(&self, phase: Phase, certainty: Certainty) -> CallError {
        let detail = match phase {
            Phase::Connect => "the deadline passed before a connection was made",
            Phase::Queue => "the deadline passed before the request could be written",
            _ => "the deadline passed before the reply came",
        };
        CallError {
            kind: ErrorKind::Timeout,
            phase,
            certainty,
            address: Arc::clone(&self.address),
            detail: Arc::from(detail),
        }
    }

    /// The next moment at which a completion's deadline may have come, and whether anything is pending at all. Clears
    /// the announcement: what is appended from here on is announced anew.
    pub(super) fn look(&self) -> (Option<Instant>, bool) {
        let mut state = self.state.lock();
        state.announced = false;
        (state.pending.earliest(), !state.pending.is_empty())
    }

    /// Hands the gathered bytes to the selector, which is the only writer until [`Connection::wrote`] says that it has
    /// none left. `None` when there is nothing.
    pub(super) fn take_outbox(&self) -> Option<VecDeque<Segment>> {
        let mut state = self.state.lock();
        state.announced = false;
        if state.outbox.is_empty() {
            state.selector_writes = false;
            return None;
        }
        state.selector_writes = true;
        Some(state.outbox.take())
    }

    /// The selector wrote `bytes` of what it took; empty buffers come back in `spare` for the next frames.
    pub(super) fn wrote(&self, bytes: usize, spare: Option<BytesMut>) {
        let mut state = self.state.lock();
        state.written += bytes as u64;
        if let Some(spare) = spare {
            state.outbox.reuse(spare);
        }
        for caller in state.room_waiters.drain(..) {
            caller.unpark();
        }
    }

    /// Closes the connection and completes everything that was pending on it. Only the first reason counts.
    pub(super) fn close(&self, reason: &CloseReason) {
        let orphans: Vec<_> = {
            let mut state = self.state.lock();
            if matches!(state.phase, ConnectionPhase::Closed(_)) {
                return;
            }
            let entries = state.pending.take_all();
            let orphans = entries.into_iter().map(|entry| (state.progress_of(&entry), entry.waiter)).collect();
            state.phase = ConnectionPhase::Closed(reason.clone());
            state.outbox = Outbox::default();
            for caller in state.room_waiters.drain(..) {
                caller.unpark();
            }
            orphans
        };
        for ((phase, certainty), waiter) in orphans {
            waiter.complete(self.lost(reason, phase, certainty));
        }
    }

    fn lost(&self, reason: &CloseReason, phase: Phase, certainty: Certainty) -> Outcome {
        Err(CallError {
            kind: reason.kind,
            phase,
            certainty,
            address: Arc::clone(&self.address),
            detail: Arc::clone(&reason.detail),
        })
    }

    /// Whether anything waits for a reply.
    pub(super) fn has_pending(&self) -> bool {
        !self.state.lock().pending.is_empty()
    }
}

impl State {
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

    /// Writes as much of the frame as the socket takes; the rest goes the way through the selector. Returns whether
    /// the selector must look.
    fn write_directly(&mut self, mut socket: &TcpStream, frame: &Frame<'_>) -> bool {
        let mut written = write_until_full(&mut socket, frame.encoded);
        if written == frame.encoded.len() && !frame.large_body.is_empty() {
            written += write_until_full(&mut socket, frame.large_body);
        }
        self.written += written as u64;
        if written == frame.len() {
            return false;
        }
        // A broken socket is found by the selector when it tries the rest.
        self.outbox.append(frame, written);
        true
    }

    /// How far a request has come, by what was written of the stream.
    fn progress_of(&self, entry: &Entry) -> (Phase, Certainty) {
        match self.phase {
            ConnectionPhase::Dialing => (Phase::Connect, Certainty::NotSent),
            _ if entry.position >= self.written => (Phase::Queue, Certainty::NotSent),
            _ => (Phase::Reply, Certainty::Unknown),
        }
    }
}

/// Writes until everything is written or the socket takes no more; returns how much it took.
fn write_until_full(socket: &mut &TcpStream, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match socket.write(rest) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == IoErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    written
}

/// A run of bytes that wait for the socket.
#[derive(Debug)]
pub(super) enum Segment {
    /// Frames one behind the other.
    Gathered(BytesMut),
    /// A large body, as it came from its message.
    Large(Bytes),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Gathered(bytes) => bytes,
            Self::Large(bytes) => bytes,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Gathered(bytes) => bytes.advance(count),
            Self::Large(bytes) => bytes.advance(count),
        }
    }
}

/// Bytes that wait for the selector, in the order of the stream.
#[derive(Debug, Default)]
struct Outbox {
    segments: VecDeque<Segment>,
    length: usize,
    spare: Option<BytesMut>,
}

impl Outbox {
    fn len(&self) -> usize {
        self.length
    }

    fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends a frame without its first `written` bytes.
    fn append(&mut self, frame: &Frame<'_>, written: usize) {
        let encoded = frame.encoded.get(written..).unwrap_or_default();
        let large = frame.large_body.slice(written.saturating_sub(frame.encoded.len())..);
        self.length += encoded.len() + large.len();
        self.gathered().extend_from_slice(encoded);
        if !large.is_empty() {
            self.segments.push_back(Segment::Large(large));
        }
    }

    fn gathered(&mut self) -> &mut BytesMut {
        if !matches!(self.segments.back(), Some(Segment::Gathered(_))) {
            let buffer = self.spare.take().unwrap_or_default();
            self.segments.push_back(Segment::Gathered(buffer));
        }
        match self.segments.back_mut() {
            Some(Segment::Gathered(bytes)) => bytes,
            _ => self.spare.get_or_insert_default(),
        }
    }

    fn take(&mut self) -> VecDeque<Segment> {
        self.length = 0;
        std::mem::take(&mut self.segments)
    }

    fn reuse(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        if self.spare.is_none() && buffer.capacity() <= KEPT_BUFFER {
            self.spare = Some(buffer);
        }
    }
}

/// What the selector took from an outbox and has not written yet.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    segments: VecDeque<Segment>,
}

impl Unwritten {
    pub(super) fn refill(&mut self, segments: VecDeque<Segment>) {
        self.segments = segments;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Writes until the transport takes no more. Returns the number of bytes it took, and the error that ended it:
    /// `WouldBlock` when the socket is full.
    pub(super) fn write(
        &mut self,
        transport: &mut dyn Transport,
        socket: &TcpStream,
        spare: &mut Option<BytesMut>,
    ) -> (usize, io::Result<()>) {
        let mut total = 0;
        while let Some(segment) = self.segments.front_mut() {
            if segment.bytes().is_empty() {
                if let Some(Segment::Gathered(buffer)) = self.segments.pop_front() {
                    *spare = Some(buffer);
                }
                continue;
            }
            match transport.write(socket, segment.bytes()) {
                Ok(0) => return (total, Err(IoErrorKind::WriteZero.into())),
                Ok(count) => {
                    segment.advance(count);
                    total += count;
                }
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) => return (total, Err(error)),
            }
        }
        (total, Ok(()))
    }
}
