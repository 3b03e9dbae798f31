//! The thread `rmq-remoting`: polls the sockets, writes what has gathered, reads, matches responses to requests.
//!
//! It owns the sockets, transports and decoders. It never resolves a name, decodes a body, runs user code or waits for
//! room in a channel. Other threads reach it by a [`Command`] through its mailbox.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind as IoErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::connection::{CloseReason, Connection};
use super::dial::{Dial, DialFailure, Progress, parse_ip_address};
use super::link::{Link, OpenLink, Stage, Written};
use super::liveness::{Liveness, Verdict};
use super::mailbox::{Command, Inbox, WAKER};
use super::pending::Waiter;
use super::resolver::{Question, ResolvedName, Resolver};
use super::responder::{MOST_UNANSWERED, Responder};
use super::transport::Transport;
use super::{RemotingConfig, RemotingEvents, Shared};
use crate::error::{ErrorKind, Result};
use crate::logging::{debug, info};
use crate::wire::{Frame, FrameDecoder, RemotingCommand, ResponseCode};
use crate::worker::{Threads, Worker, contain, words_of};

const EVENTS_PER_POLL: usize = 256;
/// Bytes read by one call, into a buffer that all connections share.
const READ_BUFFER: usize = 128 * 1024;
/// Reads of one connection before the others get their turn.
const READS_PER_TURN: usize = 16;
/// Responses that are decoded before their requests are completed: so few that each reuses the memory of those before
/// it, and enough to share one acquisition of the connection's lock.
const REPLIES_AT_ONCE: usize = 6;
/// Time after GO_AWAY for which a connection is kept for the responses that its peer owes.
const GO_AWAY_GRACE: Duration = Duration::from_secs(30);
/// Failures of the poll in a row after which the selector ends.
const POLL_FAILURES: u32 = 8;
/// Time for a resolver call, which cannot be cancelled, at the end of the selector; then its thread is left behind.
const RESOLVER_GRACE: Duration = Duration::from_millis(100);

pub(super) fn start(
    shared: Arc<Shared>,
    inbox: Inbox,
    threads: &Threads,
    events: Arc<dyn RemotingEvents>,
) -> Result<Worker> {
    let RemotingConfig { resolve, address_map, .. } = &shared.config;
    let resolver = Resolver::new(Arc::clone(resolve), address_map.clone(), threads)?;
    let selector = Selector {
        shared,
        poll: inbox.poll,
        commands: inbox.commands,
        events,
        resolver,
        links: HashMap::new(),
        unfinished: Vec::new(),
        read_buffer: vec![0; READ_BUFFER].into_boxed_slice(),
        responses: Vec::new(),
        answered: VecDeque::new(),
    };
    threads.start_service("rmq-remoting", move || selector.run())
}

struct Selector {
    shared: Arc<Shared>,
    poll: Poll,
    commands: Receiver<Command>,
    events: Arc<dyn RemotingEvents>,
    resolver: Resolver,
    links: HashMap<Token, Link>,
    /// Connections of the next turn, which comes without sleep: those with more to read than one turn allows, for which
    /// no further event comes, and those that were written to.
    unfinished: Vec<(Token, Readable)>,
    read_buffer: Box<[u8]>,
    responses: Vec<RemotingCommand>,
    /// Responses not yet delivered. They outlive a completion that unwinds.
    answered: VecDeque<(Waiter, RemotingCommand)>,
}

impl Selector {
    /// Works until the stop. Completes everything pending at the end, also if the work unwinds or the poll fails.
    fn run(mut self) {
        let died = match catch_unwind(AssertUnwindSafe(|| self.work())) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("polling failed {POLL_FAILURES} times in a row: {error}")),
            Err(panic) => Some(format!("it panicked: {}", words_of(&*panic))),
        };
        if let Some(how) = died {
            // First: a caller that is completed below, and calls again, is refused for this reason.
            self.shared.health.died("rmq-remoting", &how);
            for (waiter, response) in std::mem::take(&mut self.answered) {
                contain("a completion", || waiter.complete(Ok(response)));
            }
        }
        self.end();
    }

    /// Takes turns until the stop.
    fn work(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        let mut turns = Vec::new();
        let mut failures = 0;
        while !self.shared.mailbox.is_stopping() {
            match self.wait(&mut events) {
                Ok(()) => failures = 0,
                // A host that closes a descriptor of ours closes the poll set.
                Err(error) => {
                    failures += 1;
                    if failures == POLL_FAILURES {
                        return Err(error);
                    }
                }
            }
            let now = Instant::now();
            std::mem::swap(&mut turns, &mut self.unfinished);
            add_events(&mut turns, &events);
            for (token, readable) in turns.drain(..) {
                self.ready(token, readable, now);
            }
            // Later commands wait for the next turn: a thread that sends without end must not keep us from reading.
            for _ in 0..self.commands.len() {
                let Ok(command) = self.commands.try_recv() else { break };
                self.handle(command, now);
            }
            self.watch_deadlines(now);
        }
        Ok(())
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let mailbox = &self.shared.mailbox;
        mailbox.set_asleep(true);
        let has_work = !self.commands.is_empty() || !self.unfinished.is_empty() || mailbox.is_stopping();
        let timeout = if has_work { Some(Duration::ZERO) } else { self.time_to_next_due() };
        let mut polled = self.poll.poll(events, timeout);
        if polled.as_ref().is_err_and(|error| error.kind() == IoErrorKind::Interrupted) {
            // The process may have been stopped for long: what has arrived is read before deadlines are watched.
            polled = self.poll.poll(events, Some(Duration::ZERO));
        }
        mailbox.set_asleep(false);
        match polled {
            Err(error) if error.kind() != IoErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    fn time_to_next_due(&self) -> Option<Duration> {
        let next = self.links.values().filter_map(|link| link.due).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn handle(&mut self, command: Command, now: Instant) {
        match command {
            Command::Dial(connection) => self.begin_dial(connection, now),
            Command::Look(token) => self.look(token, now),
            Command::Resolved(token, answer) => self.resolved(token, answer, now),
        }
    }

    // --- Dialling ---

    fn begin_dial(&mut self, connection: Arc<Connection>, now: Instant) {
        let token = connection.token();
        let until = {
            let peers = self.shared.peers.lock();
            peers.by_address.get(connection.address()).and_then(|peer| peer.backoff.until(now))
        };
        let stage = until.map_or(Stage::Moving, |until| Stage::Dialing(Dial::BackingOff { until }));
        let mut link = Link { connection, stage, mapped_to: None, due: None };
        link.plan();
        self.links.insert(token, link);
        if until.is_none() {
            self.dial(token, now);
        }
    }

    fn dial(&mut self, token: Token, now: Instant) {
        let Some(link) = self.links.get_mut(&token) else { return };
        let address = Arc::clone(link.connection.address());
        let timeout = self.shared.config.connect_timeout;
        let is_mapped = self.shared.config.maps(&address);
        if let Some(ip_address) = parse_ip_address(&address).filter(|_| !is_mapped) {
            return self.dialled(token, Dial::begin(vec![ip_address], timeout, now), now);
        }
        let until = now + timeout;
        link.stage = Stage::Dialing(Dial::Resolving { until });
        link.plan();
        let shared = Arc::clone(&self.shared);
        let answer = Box::new(move |answer| shared.mailbox.send(Command::Resolved(token, answer)));
        self.resolver.ask(Question { address, is_mapped, until, answer });
    }

    fn resolved(&mut self, token: Token, answer: Result<ResolvedName>, now: Instant) {
        let link = match self.links.get_mut(&token) {
            Some(link) if matches!(link.stage, Stage::Dialing(Dial::Resolving { .. })) => link,
            // The dial was given up while the resolver worked.
            _ => return,
        };
        match answer {
            Ok(ResolvedName { target, socket_addresses }) => {
                link.mapped_to = Some(target);
                let progress = Dial::begin(socket_addresses, self.shared.config.connect_timeout, now);
                self.dialled(token, progress, now);
            }
            Err(error) => self.lose(token, &CloseReason::from(error), now),
        }
    }

    fn unresolved(&self, token: Token) -> CloseReason {
        let address = self.links.get(&token).map_or("", |link| link.connection.address());
        let called = if self.shared.config.maps(address) { "the address map or the resolver" } else { "the resolver" };
        CloseReason::new(ErrorKind::Resolve, format!("resolving {address} failed: {called} did not return in time"))
    }

    fn continue_dial(&mut self, token: Token, dial: Dial, now: Instant) {
        let Some(link) = self.links.get(&token) else { return };
        let progress = dial.look(|| (self.shared.config.transport)(link.connection.address()), now);
        self.dialled(token, progress, now);
    }

    fn dialled(&mut self, token: Token, progress: Progress, now: Instant) {
        let Some(link) = self.links.get_mut(&token) else { return };
        match progress {
            Progress::Waiting(mut dial) => {
                // A socket in its handshake was registered when it began to connect.
                if let Dial::Connecting(socket, _) = &mut dial
                    && let Err(error) = register(&self.poll, socket, token)
                {
                    let reason = CloseReason::of_failed(ErrorKind::Resource, "registering a socket", error);
                    return self.lose(token, &reason, now);
                }
                link.stage = Stage::Dialing(dial);
                link.plan();
            }
            Progress::Connected(socket, transport) => self.connected(token, socket, transport, now),
            Progress::Failed(DialFailure { operation, error }) => {
                let operation = format!("{operation} {}", link.label());
                self.lose(token, &CloseReason::of_failed(ErrorKind::Connect, &operation, error), now);
            }
        }
    }

    fn connected(&mut self, token: Token, socket: TcpStream, transport: Box<dyn Transport>, now: Instant) {
        let Some(link) = self.links.get_mut(&token) else { return };
        let address = Arc::clone(link.connection.address());
        debug!("connection made: {address}");
        let socket = Arc::new(socket);
        link.connection.open(&socket, &*transport, now);
        link.stage = Stage::Open(Box::new(OpenLink {
            socket,
            transport,
            decoder: FrameDecoder::with_limit(self.shared.config.max_frame_length),
            heard: false,
            liveness: Liveness::new(self.shared.config.silence_limit),
            leaving_by: None,
        }));
        self.events.connected(&address);
        // The event of the connection may have been that of its first bytes, or of its end, as well.
        self.ready(token, Readable::ToTheEnd, now);
    }

    // --- Traffic ---

    fn ready(&mut self, token: Token, readable: Readable, now: Instant) {
        let Some(link) = self.links.get_mut(&token) else { return };
        match std::mem::replace(&mut link.stage, Stage::Moving) {
            Stage::Dialing(dial) => self.continue_dial(token, dial, now),
            stage => {
                link.stage = stage;
                self.read(token, readable, now);
                self.look(token, now);
            }
        }
    }

    /// Writes the bytes that have gathered, and sets the time of the next look.
    fn look(&mut self, token: Token, now: Instant) {
        let Some(link) = self.links.get_mut(&token) else { return };
        match link.write() {
            Ok(Written::AllItCan) => {}
            // The next turn comes without sleep: responses and further requests are often there by then, and a wake-up
            // costs more than a look.
            Ok(Written::ABatch) => self.unfinished.push((token, Readable::ToTheEnd)),
            Err(error) => {
                let operation = format!("writing to {}", link.connection.address());
                // A peer that answers and closes has broken the socket for writing, but its answers can be read.
                self.read(token, Readable::ToTheEnd, now);
                let reason = CloseReason::of_failed(ErrorKind::ConnectionLost, &operation, error);
                return self.lose(token, &reason, now);
            }
        }
        link.plan();
        if link.has_left() {
            self.lose_departed(token, now);
        }
    }

    fn read(&mut self, token: Token, readable: Readable, now: Instant) {
        if readable == Readable::Not {
            return;
        }
        for _ in 0..READS_PER_TURN {
            let Some(Link { stage: Stage::Open(open), connection, .. }) = self.links.get_mut(&token) else { return };
            let count = match open.transport.read(&open.socket, &mut self.read_buffer) {
                Ok(0) => {
                    let detail = format!("{} closed the connection", connection.address());
                    return self.lose(token, &CloseReason::new(ErrorKind::ConnectionLost, detail), now);
                }
                Ok(count) => count,
                Err(error) if error.kind() == IoErrorKind::WouldBlock => return,
                Err(error) if error.kind() == IoErrorKind::Interrupted => continue,
                Err(error) => {
                    let operation = format!("reading from {}", connection.address());
                    let reason = CloseReason::of_failed(ErrorKind::ConnectionLost, &operation, error);
                    return self.lose(token, &reason, now);
                }
            };
            let bytes = self.read_buffer.get(..count).unwrap_or_default();
            let swallowed = open.liveness.bytes(bytes, now);
            open.decoder.push(bytes);
            // A stream socket that filled less than the buffer is drained: a further read would only return
            // `WouldBlock`. Not if the peer has closed, as no other event comes for that. On platforms other than unix
            // that further read is what arms the next event.
            let drained =
                cfg!(unix) && readable == Readable::Some && open.transport.is_plain() && count < self.read_buffer.len();
            match self.receive(token, now) {
                Received::Lost => return,
                Received::Nothing if swallowed => return self.lose_misframed(token, now),
                _ if drained => return,
                _ => {}
            }
        }
        self.unfinished.push((token, Readable::ToTheEnd));
    }

    /// Handles the whole frames that were read.
    fn receive(&mut self, token: Token, now: Instant) -> Received {
        let mut received = Received::Nothing;
        loop {
            let Some(Link { stage: Stage::Open(open), connection, .. }) = self.links.get_mut(&token) else {
                return Received::Lost;
            };
            let command = match open.decoder.next_frame() {
                Ok(Some(Frame::Whole(command))) => command,
                Ok(Some(Frame::TooLong { head, length })) => {
                    open.liveness.frame();
                    received = Received::Frames;
                    self.refuse_too_long(token, &head, length);
                    continue;
                }
                Ok(None) => break,
                Err(error) => {
                    let operation = format!("decoding a frame from {}", connection.address());
                    self.complete_answered(token, now);
                    self.lose(token, &CloseReason::of_failed(ErrorKind::Protocol, &operation, error), now);
                    return Received::Lost;
                }
            };
            open.liveness.frame();
            received = Received::Frames;
            if !std::mem::replace(&mut open.heard, true) {
                self.shared.note_success(connection.address());
            }
            if !command.is_response() {
                let connection = Arc::clone(connection);
                self.serve(&connection, command);
                continue;
            }
            if command.response_code() == ResponseCode::GO_AWAY && open.leaving_by.is_none() {
                info!("connection to {}: the peer sent GO_AWAY; new requests use a new one", connection.address());
                open.leaving_by = Some(now + GO_AWAY_GRACE);
                self.shared.retire(connection, now);
                connection.leave();
            }
            self.responses.push(command);
            if self.responses.len() == REPLIES_AT_ONCE {
                self.complete_answered(token, now);
            }
        }
        if received == Received::Frames {
            self.complete_answered(token, now);
        }
        received
    }

    /// Fails the request whose response is beyond the limit. All other traffic of the connection goes on.
    fn refuse_too_long(&self, token: Token, head: &RemotingCommand, length: usize) {
        let Some(link) = self.links.get(&token) else { return };
        let limit = self.shared.config.max_frame_length;
        let address = link.connection.address();
        let detail = format!("a frame of {length} bytes from {address} exceeds max_frame_length {limit}");
        debug!("response skipped: {detail}");
        if head.is_response() {
            link.connection.refuse(head.opaque, &CloseReason::new(ErrorKind::FrameTooLong, detail));
        }
    }

    fn lose_misframed(&mut self, token: Token, now: Instant) {
        let Some(link) = self.links.get(&token) else { return };
        let address = link.connection.address();
        let detail = format!("a frame from {address} contains the response to a later request: its length is wrong");
        self.lose(token, &CloseReason::new(ErrorKind::Protocol, detail), now);
    }

    fn complete_answered(&mut self, token: Token, now: Instant) {
        let Some(link) = self.links.get(&token) else { return };
        link.connection.heard(&mut self.responses, &mut self.answered, now);
        while let Some((waiter, response)) = self.answered.pop_front() {
            waiter.complete(Ok(response));
        }
    }

    /// Hands a request of the peer to the layer above, unless too many of them are unanswered.
    fn serve(&self, connection: &Arc<Connection>, request: RemotingCommand) {
        let responder = Responder::new(&self.shared, connection, &request);
        if responder.is_one_too_many() {
            let (code, address) = (request.request_code(), connection.address());
            debug!("request {code} of {address} failed: {MOST_UNANSWERED} are unanswered; refused as busy");
            let remark = "[OVERLOAD]the client has too many unanswered requests of this broker".to_owned();
            return responder.respond(ResponseCode::SYSTEM_BUSY, Some(remark), Bytes::new());
        }
        self.events.requested(request, responder);
    }

    // --- Deadlines ---

    fn watch_deadlines(&mut self, now: Instant) {
        let due: Vec<Token> = self
            .links
            .iter()
            .filter(|(_, link)| link.due.is_some_and(|due| due <= now))
            .map(|(token, _)| *token)
            .collect();
        for token in due {
            self.fall_due(token, now);
        }
    }

    fn fall_due(&mut self, token: Token, now: Instant) {
        let Some(link) = self.links.get_mut(&token) else { return };
        link.connection.expire(now);
        match std::mem::replace(&mut link.stage, Stage::Moving) {
            Stage::Dialing(Dial::BackingOff { until }) if until <= now => self.dial(token, now),
            Stage::Dialing(Dial::Resolving { until }) if until <= now => {
                self.lose(token, &self.unresolved(token), now);
            }
            Stage::Dialing(dial) => self.continue_dial(token, dial, now),
            stage => {
                link.stage = stage;
                self.watch_silence(token, now);
                self.look(token, now);
            }
        }
    }

    /// Probes a peer that owes responses and sends no whole frame, and closes the connection if it sends none then
    /// either. The system takes many minutes to notice a peer that vanished silently, by a pulled cable or a firewall.
    fn watch_silence(&mut self, token: Token, now: Instant) {
        let Some(Link { stage: Stage::Open(open), connection, .. }) = self.links.get_mut(&token) else { return };
        if open.leaving_by.is_some_and(|by| by <= now) {
            return self.lose_departed(token, now);
        }
        match open.liveness.verdict(now) {
            Verdict::Gone => {
                let detail = format!("{} is silent and did not respond to a probe", connection.address());
                return self.lose(token, &CloseReason::new(ErrorKind::ConnectionLost, detail), now);
            }
            Verdict::Arrives => {}
            Verdict::Waits if open.liveness.probe_ends().is_none() && connection.is_too_silent(now) => {}
            Verdict::Waits => return,
        }
        if let Some(opaque) = self.shared.probe(connection) {
            open.liveness.probed(opaque, now);
        }
    }

    // --- The end of a connection, and of the thread ---

    fn lose_departed(&mut self, token: Token, now: Instant) {
        let Some(link) = self.links.get(&token) else { return };
        let detail = format!("{} sent GO_AWAY", link.connection.address());
        self.lose(token, &CloseReason::new(ErrorKind::ConnectionLost, detail), now);
    }

    /// Closes a connection. Everything pending on it completes now, not at its deadline.
    fn lose(&mut self, token: Token, reason: &CloseReason, now: Instant) {
        let Some(mut link) = self.links.remove(&token) else { return };
        link.say_goodbye();
        let address = link.connection.address();
        self.shared.retire(&link.connection, now);
        let was_sound = matches!(&link.stage, Stage::Open(open) if open.heard) && reason.kind != ErrorKind::Protocol;
        if was_sound {
            info!("connection closed: {}", reason.detail);
        } else {
            self.shared.note_failure(address, reason, now);
        }
        self.events.disconnected(address);
        link.connection.close(reason);
    }

    fn end(mut self) {
        // No connection is created from here on.
        let peers = {
            let mut peers = self.shared.peers.lock();
            peers.closed = true;
            std::mem::take(&mut peers.by_address)
        };
        let reason = self.shared.why_ended();
        for mut link in std::mem::take(&mut self.links).into_values() {
            contain("the end of a connection", || link.say_goodbye());
            link.connection.close(&reason);
        }
        // Connections whose `Dial` was not handled have no link.
        for connection in peers.into_values().filter_map(|peer| peer.connection) {
            connection.close(&reason);
        }
        let left_behind = self.resolver.stop(Instant::now() + RESOLVER_GRACE);
        self.shared.mailbox.close(left_behind);
    }
}

/// Outcome of a look at what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Received {
    /// No frame is whole yet.
    Nothing,
    /// Whole frames.
    Frames,
    /// The connection is lost.
    Lost,
}

/// Meaning of an event for reading, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Readable {
    Not,
    /// There are bytes. A later event announces more.
    Some,
    /// There may be an end or an error behind the bytes, which no later event announces.
    ToTheEnd,
}

impl Readable {
    fn of(event: &Event) -> Self {
        if event.is_read_closed() || event.is_write_closed() || event.is_error() {
            return Self::ToTheEnd;
        }
        if event.is_readable() { Self::Some } else { Self::Not }
    }
}

/// Merges events into the connections of a turn, one entry per connection.
fn add_events(turns: &mut Vec<(Token, Readable)>, events: &Events) {
    for event in events.iter().filter(|event| event.token() != WAKER) {
        let (token, readable) = (event.token(), Readable::of(event));
        match turns.iter_mut().find(|turn| turn.0 == token) {
            Some(turn) => turn.1 = turn.1.max(readable),
            None => turns.push((token, readable)),
        }
    }
}

fn register(poll: &Poll, socket: &mut TcpStream, token: Token) -> io::Result<()> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    match poll.registry().register(socket, token, interest) {
        // The dial has looked at the same socket again.
        Err(error) if error.kind() == IoErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
