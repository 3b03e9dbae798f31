//! The thread `rmq-remoting`: polls the sockets, writes what has gathered, reads, matches responses to requests.
//!
//! It owns the sockets, transports and decoders. It never resolves a name, decodes a message body, runs user code or
//! waits for room in a channel. What others want of it comes as a [`Command`] through its [`Mailbox`].

use std::collections::HashMap;
use std::io::{self, ErrorKind as IoErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use log::{debug, info, warn};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;

use super::connection::{CloseReason, Connection, Frame, Submitted, Unwritten};
use super::dial::{Dial, Progress, Resolver, parse_ip_address};
use super::pending::{Completion, Waiter};
use super::transport::Transport;
use super::{RemotingEvents, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::command::FrameHead;
use crate::wire::{ExtFields, FieldSink, FrameDecoder, HeaderEncoding, RemotingCommand, RequestCode, ResponseCode};
use crate::worker::{Threads, Worker};

const WAKER: Token = Token(0);
const EVENTS_PER_POLL: usize = 256;
/// Bytes read by one call, into a buffer that all connections share.
const READ_BUFFER: usize = 128 * 1024;
/// Reads of one connection before the others get their turn.
const READS_PER_TURN: usize = 16;
/// How long a connection whose peer said GO_AWAY is kept for the replies it still owes.
const GO_AWAY_GRACE: Duration = Duration::from_secs(30);
/// A resolver call cannot be cancelled: at the end the thread is given this long before it is left behind.
const RESOLVER_GRACE: Duration = Duration::from_millis(100);

/// What the selector is told by other threads.
#[derive(Debug)]
pub(super) enum Command {
    /// A new connection wants its socket.
    Dial(Arc<Connection>),
    /// There are bytes to write, or a deadline to watch.
    Look(Arc<Connection>),
    /// The resolver has an answer.
    Resolved(Token, io::Result<Vec<std::net::SocketAddr>>),
}

/// The way to the selector: a channel, and a wake-up that is only paid for when the selector sleeps.
#[derive(Debug)]
pub(super) struct Mailbox {
    commands: Sender<Command>,
    waker: Waker,
    /// Set by the selector before it looks at the channel for the last time and sleeps. Partner of the swap in
    /// [`Mailbox::wake`]: whoever sends after that look finds it set and wakes; both are sequentially consistent, so
    /// one of the two sees the other.
    asleep: AtomicBool,
    stopping: AtomicBool,
    left_behind: Mutex<Vec<String>>,
}

/// The selector's end of the mailbox.
pub(super) struct Inbox {
    poll: Poll,
    commands: Receiver<Command>,
}

impl Mailbox {
    pub(super) fn new() -> Result<(Self, Inbox)> {
        let no_poll = |error: io::Error| Error::new(ErrorKind::Resource, format!("no selector can be made: {error}"));
        let poll = Poll::new().map_err(no_poll)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(no_poll)?;
        let (commands, receiver) = unbounded();
        let mailbox = Self {
            commands,
            waker,
            asleep: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            left_behind: Mutex::default(),
        };
        Ok((mailbox, Inbox { poll, commands: receiver }))
    }

    pub(super) fn send(&self, command: Command) {
        // The receiver ends only after the last connection was closed; nobody needs this command then.
        let _ = self.commands.send(command);
        self.wake();
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(super) fn take_left_behind(&self) -> Vec<String> {
        std::mem::take(&mut self.left_behind.lock())
    }

    fn wake(&self) {
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            warn!("the selector cannot be woken: {error}");
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }
}

pub(super) fn start(
    shared: Arc<Shared>,
    inbox: Inbox,
    threads: &Threads,
    events: Arc<dyn RemotingEvents>,
) -> Result<Worker> {
    let resolver = Resolver::new(Arc::clone(&shared.config.resolve), threads.clone());
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
        answered: Vec::new(),
    };
    threads.start("rmq-remoting", move || selector.run())
}

struct Selector {
    shared: Arc<Shared>,
    poll: Poll,
    commands: Receiver<Command>,
    events: Arc<dyn RemotingEvents>,
    resolver: Resolver,
    links: HashMap<Token, Link>,
    /// Connections that had more to read than one turn allows: no event will tell of it again.
    unfinished: Vec<Token>,
    read_buffer: Box<[u8]>,
    responses: Vec<RemotingCommand>,
    answered: Vec<(Waiter, RemotingCommand)>,
}

/// The selector's side of a connection.
struct Link {
    connection: Arc<Connection>,
    stage: Stage,
    /// When something must be done without an event.
    due: Option<Instant>,
}

enum Stage {
    Dialing(Dial),
    Open(Box<OpenLink>),
    /// Between two stages, within one function.
    Moving,
}

struct OpenLink {
    socket: Arc<TcpStream>,
    transport: Box<dyn Transport>,
    decoder: FrameDecoder,
    unwritten: Unwritten,
    last_received: Instant,
    /// The peer has said something: the address is no longer in back-off.
    heard: bool,
    probed: bool,
    /// Closed as soon as nothing is pending any more, and at this moment at the latest.
    leaving_by: Option<Instant>,
}

impl Selector {
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        while !self.shared.mailbox.is_stopping() {
            self.wait(&mut events);
            let now = Instant::now();
            for event in &events {
                if event.token() != WAKER {
                    self.ready(event.token(), event.is_readable() || event.is_read_closed() || event.is_error(), now);
                }
            }
            for token in std::mem::take(&mut self.unfinished) {
                self.ready(token, true, now);
            }
            while let Ok(command) = self.commands.try_recv() {
                self.obey(command, now);
            }
            self.watch_deadlines(now);
        }
        self.end();
    }

    fn wait(&mut self, events: &mut Events) {
        let mailbox = &self.shared.mailbox;
        mailbox.asleep.store(true, Ordering::SeqCst);
        let has_work = !self.commands.is_empty() || !self.unfinished.is_empty() || mailbox.is_stopping();
        let timeout = if has_work { Some(Duration::ZERO) } else { self.time_to_next_due() };
        if let Err(error) = self.poll.poll(events, timeout)
            && error.kind() != IoErrorKind::Interrupted
        {
            warn!("polling failed: {error}");
        }
        mailbox.asleep.store(false, Ordering::SeqCst);
    }

    fn time_to_next_due(&self) -> Option<Duration> {
        let next = self.links.values().filter_map(|link| link.due).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::Dial(connection) => self.begin_dial(connection, now),
            Command::Look(connection) => self.look(connection.token(), now),
            Command::Resolved(token, addresses) => self.resolved(token, addresses, now),
        }
    }

    // --- Dialling ---

    fn begin_dial(&mut self, connection: Arc<Connection>, now: Instant) {
        let token = connection.token();
        let until = {
            let peers = self.shared.peers.lock();
            peers.by_address.get(connection.address()).and_then(|peer| peer.backoff.until(now))
        };
        match until {
            Some(until) => {
                let stage = Stage::Dialing(Dial::BackingOff { until });
                self.links.insert(token, Link { connection, stage, due: Some(until) });
            }
            None => {
                self.links.insert(token, Link { connection, stage: Stage::Moving, due: None });
                self.dial(token, now);
            }
        }
    }

    fn dial(&mut self, token: Token, now: Instant) {
        let Some(link) = self.links.get_mut(&token) else { return };
        let address = Arc::clone(link.connection.address());
        let timeout = self.shared.config.connect_timeout;
        if let Some(ip_address) = parse_ip_address(&address) {
            return self.dialled(token, Dial::begin(vec![ip_address], timeout, now), now);
        }
        link.stage = Stage::Dialing(Dial::Resolving { until: now + timeout });
        link.refresh_due();
        let shared = Arc::clone(&self.shared);
        let tell = Box::new(move |addresses| shared.mailbox.send(Command::Resolved(token, addresses)));
        if let Err(error) = self.resolver.resolve(address, tell) {
            self.lose(token, CloseReason::new(ErrorKind::Resource, error.to_string()), now);
        }
    }

    fn resolved(&mut self, token: Token, addresses: io::Result<Vec<std::net::SocketAddr>>, now: Instant) {
        match self.links.get(&token) {
            Some(Link { stage: Stage::Dialing(Dial::Resolving { .. }), .. }) => {}
            // The dial was given up while the resolver worked.
            _ => return,
        }
        match addresses {
            Ok(addresses) => {
                let progress = Dial::begin(addresses, self.shared.config.connect_timeout, now);
                self.dialled(token, progress, now);
            }
            Err(error) => self.lose(token, self.unresolved(token, &error.to_string()), now),
        }
    }

    fn unresolved(&self, token: Token, why: &str) -> CloseReason {
        let address = self.links.get(&token).map_or("", |link| link.connection.address());
        CloseReason::new(ErrorKind::Resolve, format!("{address} cannot be resolved: {why}"))
    }

    fn dialled(&mut self, token: Token, progress: Progress, now: Instant) {
        let Some(link) = self.links.get_mut(&token) else { return };
        match progress {
            Progress::Waiting(mut dial) => {
                if let Dial::Trying { socket, .. } = &mut dial
                    && let Err(error) = register(&self.poll, socket, token)
                {
                    return self.lose(token, CloseReason::new(ErrorKind::Resource, error.to_string()), now);
                }
                link.stage = Stage::Dialing(dial);
                link.refresh_due();
            }
            Progress::Connected(socket) => self.connected(token, socket, now),
            Progress::Failed(error) => {
                let detail = format!("{} cannot be reached: {error}", link.connection.address());
                self.lose(token, CloseReason::new(ErrorKind::Connect, detail), now);
            }
        }
    }

    fn connected(&mut self, token: Token, socket: TcpStream, now: Instant) {
        let Some(link) = self.links.get_mut(&token) else { return };
        let address = Arc::clone(link.connection.address());
        let transport = match socket.set_nodelay(true).and_then(|()| (self.shared.config.transport)(&address)) {
            Ok(transport) => transport,
            Err(error) => return self.lose(token, CloseReason::new(ErrorKind::Connect, error.to_string()), now),
        };
        debug!("connected to {address}");
        let socket = Arc::new(socket);
        link.connection.open(&socket, &*transport);
        link.stage = Stage::Open(Box::new(OpenLink {
            socket,
            transport,
            decoder: FrameDecoder::new(),
            unwritten: Unwritten::default(),
            last_received: now,
            heard: false,
            probed: false,
            leaving_by: None,
        }));
        self.events.connected(&address);
        self.look(token, now);
    }

    // --- Traffic ---

    fn ready(&mut self, token: Token, readable: bool, now: Instant) {
        let Some(link) = self.links.get_mut(&token) else { return };
        match std::mem::replace(&mut link.stage, Stage::Moving) {
            Stage::Dialing(dial) => self.dialled(token, dial.look(now), now),
            stage => {
                link.stage = stage;
                if readable {
                    self.read(token, now);
                }
                self.look(token, now);
            }
        }
    }

    /// Writes what has gathered, and learns the next deadline.
    fn look(&mut self, token: Token, now: Instant) {
        let Some(link) = self.links.get_mut(&token) else { return };
        if let Err(error) = link.write() {
            let detail = format!("writing to {} failed: {error}", link.connection.address());
            return self.lose(token, CloseReason::new(ErrorKind::ConnectionLost, detail), now);
        }
        link.learn_due(self.shared.config.silence_limit);
    }

    fn read(&mut self, token: Token, now: Instant) {
        for _ in 0..READS_PER_TURN {
            let Some(Link { stage: Stage::Open(open), connection, .. }) = self.links.get_mut(&token) else { return };
            let count = match open.transport.read(&open.socket, &mut self.read_buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == IoErrorKind::WouldBlock => return,
                Err(error) if error.kind() == IoErrorKind::Interrupted => continue,
                Err(error) => {
                    let detail = format!("reading from {} failed: {error}", connection.address());
                    return self.lose(token, CloseReason::new(ErrorKind::ConnectionLost, detail), now);
                }
            };
            if count == 0 {
                let detail = format!("{} closed the connection", connection.address());
                return self.lose(token, CloseReason::new(ErrorKind::ConnectionLost, detail), now);
            }
            open.last_received = now;
            open.probed = false;
            open.decoder.push(self.read_buffer.get(..count).unwrap_or_default());
            // A stream socket that filled less than it was offered is drained: a further read would only say so. On
            // platforms other than unix that further read is what arms the next event.
            let drained = cfg!(unix) && open.transport.is_plain() && count < READ_BUFFER;
            if !self.receive(token, now) || drained {
                return;
            }
        }
        self.unfinished.push(token);
    }

    /// Takes the whole frames that were read. `false` when the connection is lost.
    fn receive(&mut self, token: Token, now: Instant) -> bool {
        loop {
            let Some(Link { stage: Stage::Open(open), connection, .. }) = self.links.get_mut(&token) else {
                return false;
            };
            match open.decoder.next_command() {
                Ok(Some(command)) if command.is_response() => {
                    if command.response_code() == ResponseCode::GO_AWAY {
                        info!("{} asks us to go away: new requests take a new connection", connection.address());
                        open.leaving_by.get_or_insert(now + GO_AWAY_GRACE);
                        self.shared.retire(connection);
                    }
                    self.responses.push(command);
                }
                Ok(Some(request)) => {
                    let connection = Arc::clone(connection);
                    self.serve(&connection, request, now);
                }
                Ok(None) => break,
                Err(error) => {
                    let detail = format!("{} sent what is no frame: {error}", connection.address());
                    warn!("{detail}");
                    self.complete_answered(token, now);
                    self.lose(token, CloseReason::new(ErrorKind::Protocol, detail), now);
                    return false;
                }
            }
        }
        self.complete_answered(token, now);
        true
    }

    fn complete_answered(&mut self, token: Token, now: Instant) {
        let Some(Link { stage: Stage::Open(open), connection, .. }) = self.links.get_mut(&token) else { return };
        if !std::mem::replace(&mut open.heard, true) {
            let failures = {
                let mut peers = self.shared.peers.lock();
                peers.by_address.get_mut(connection.address()).map_or(0, |peer| peer.backoff.succeeded())
            };
            if failures > 0 {
                info!("{} is back after {failures} failures", connection.address());
            }
        }
        connection.take_answered(&mut self.responses, &mut self.answered);
        for (waiter, response) in self.answered.drain(..) {
            waiter.complete(Ok(response));
        }
        let left = open.leaving_by.is_some() && !connection.has_pending();
        if left {
            let detail = format!("{} asked us to go away", connection.address());
            self.lose(token, CloseReason::new(ErrorKind::ConnectionLost, detail), now);
        }
    }

    /// A request from the peer.
    fn serve(&self, connection: &Arc<Connection>, request: RemotingCommand, now: Instant) {
        let (opaque, oneway) = (request.opaque, request.is_oneway());
        let Some(response) = self.events.requested(connection.address(), request) else { return };
        if oneway {
            return;
        }
        let response = RemotingCommand { opaque, ..response };
        let mut encoded = bytes::BytesMut::new();
        if let Err(error) = response.encode(&mut encoded) {
            return warn!("a response to {} cannot be encoded: {error}", connection.address());
        }
        let body = Bytes::new();
        let frame = Frame::new(&mut encoded, &body);
        // Announced or not: the selector looks at every connection it has read from.
        let _ = connection.submit(&frame, opaque, None, now, self.shared.config.outbox_limit);
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
                self.lose(token, self.unresolved(token, "the resolver does not answer"), now);
            }
            Stage::Dialing(dial) => self.dialled(token, dial.look(now), now),
            Stage::Open(open) => {
                link.stage = Stage::Open(open);
                self.watch_silence(token, now);
                self.look(token, now);
            }
            Stage::Moving => {}
        }
    }

    /// A connection that owes replies and says nothing is probed, and closed when it says nothing to that either: a
    /// peer that vanished without a word (a pulled cable, a firewall) is not noticed by the system for many minutes.
    fn watch_silence(&mut self, token: Token, now: Instant) {
        let limit = self.shared.config.silence_limit;
        let Some(Link { stage: Stage::Open(open), connection, .. }) = self.links.get_mut(&token) else { return };
        if open.leaving_by.is_some_and(|by| by <= now) {
            let detail = format!("{} asked us to go away", connection.address());
            return self.lose(token, CloseReason::new(ErrorKind::ConnectionLost, detail), now);
        }
        let silence = now.saturating_duration_since(open.last_received);
        if silence < limit || !connection.has_pending() {
            return;
        }
        if !open.probed {
            open.probed = true;
            let connection = Arc::clone(connection);
            self.probe(&connection, now);
        } else if silence >= limit + limit / 2 {
            let detail = format!("{} has been silent for {silence:?} and did not answer a probe", connection.address());
            self.lose(token, CloseReason::new(ErrorKind::ConnectionLost, detail), now);
        }
    }

    /// Asks for the route of a topic that always exists: name servers answer it, brokers refuse it, both at once.
    fn probe(&self, connection: &Arc<Connection>, now: Instant) {
        debug!("probing {}", connection.address());
        let mut fields = ExtFields::new();
        fields.text("topic", "TBW102");
        let opaque = connection.next_opaque();
        let head = FrameHead::request(HeaderEncoding::Json, RequestCode::GET_ROUTEINFO_BY_TOPIC, opaque, false);
        let mut encoded = bytes::BytesMut::new();
        if head.encode(&fields, 0, &mut encoded).is_err() {
            return;
        }
        let body = Bytes::new();
        let frame = Frame::new(&mut encoded, &body);
        let unheeded = Waiter::Completion(Completion::new(drop));
        let deadline = now + self.shared.config.silence_limit;
        let submitted = connection.submit(&frame, opaque, Some(unheeded), deadline, usize::MAX);
        debug_assert!(!matches!(submitted, Submitted::Full(_)));
    }

    // --- The end of a connection, and of the thread ---

    /// Closes a connection: everything pending on it is completed now, not at its deadline.
    fn lose(&mut self, token: Token, reason: CloseReason, now: Instant) {
        let Some(link) = self.links.remove(&token) else { return };
        self.shared.retire(&link.connection);
        let heard = match &link.stage {
            Stage::Open(open) => open.heard,
            _ => false,
        };
        let address = Arc::clone(link.connection.address());
        if heard {
            info!("connection closed: {}", reason.detail);
        } else {
            self.note_failure(&address, &reason, now);
        }
        self.events.disconnected(&address);
        link.connection.close(&reason);
    }

    fn note_failure(&self, address: &Arc<str>, reason: &CloseReason, now: Instant) {
        let failures = {
            let mut peers = self.shared.peers.lock();
            let random = self.shared.random();
            peers.by_address.entry(Arc::clone(address)).or_default().backoff.failed(now, random)
        };
        // At 1, 2, 4, 8 ... failures: an outage of minutes is a few lines, not one per dial.
        if failures.is_power_of_two() {
            warn!("{} ({failures} in a row)", reason.detail);
        }
    }

    fn end(mut self) {
        let reason = CloseReason::new(ErrorKind::NotRunning, "the client has been shut down");
        let tokens: Vec<Token> = self.links.keys().copied().collect();
        for token in tokens {
            if let Some(link) = self.links.remove(&token) {
                link.connection.close(&reason);
            }
        }
        // Connections whose `Dial` was not obeyed any more have no link yet.
        let peers = std::mem::take(&mut self.shared.peers.lock().by_address);
        for connection in peers.into_values().filter_map(|peer| peer.connection) {
            connection.close(&reason);
        }
        if let Some(name) = self.resolver.stop(Instant::now() + RESOLVER_GRACE) {
            self.shared.mailbox.left_behind.lock().push(name);
        }
    }
}

impl Link {
    fn write(&mut self) -> io::Result<()> {
        let Stage::Open(open) = &mut self.stage else {
            return Ok(());
        };
        loop {
            if open.unwritten.is_empty() {
                match self.connection.take_outbox() {
                    Some(segments) => open.unwritten.refill(segments),
                    None => break,
                }
            }
            let mut spare = None;
            let (count, result) = open.unwritten.write(&mut *open.transport, &open.socket, &mut spare);
            self.connection.wrote(count, spare);
            match result {
                Err(error) if error.kind() == IoErrorKind::WouldBlock => return Ok(()),
                other => other?,
            }
        }
        match open.transport.flush(&open.socket) {
            Err(error) if error.kind() == IoErrorKind::WouldBlock => Ok(()),
            other => other,
        }
    }

    /// The earliest of: a dial's step, a pending deadline, the end of the silence that is allowed.
    fn learn_due(&mut self, silence_limit: Duration) {
        let (deadline, has_pending) = self.connection.look();
        let own = match &self.stage {
            Stage::Dialing(dial) => Some(dial.deadline()),
            Stage::Open(open) => {
                let allowed = if open.probed { silence_limit + silence_limit / 2 } else { silence_limit };
                let silence_ends = has_pending.then(|| open.last_received + allowed);
                silence_ends.into_iter().chain(open.leaving_by).min()
            }
            Stage::Moving => None,
        };
        self.due = deadline.into_iter().chain(own).min();
    }

    fn refresh_due(&mut self) {
        self.learn_due(Duration::ZERO);
    }
}

fn register(poll: &Poll, socket: &mut TcpStream, token: Token) -> io::Result<()> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    match poll.registry().register(socket, token, interest) {
        // The same try at the same address, looked at again.
        Err(error) if error.kind() == IoErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}
