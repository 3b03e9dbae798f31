//! Thread of the proxy: accepts, reads, damages and writes. It alone owns sockets.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rocketmq_sync::unversioned::wire::{FrameDecoder, RemotingCommand};

use super::{Act, Effect, Mode, Rule, Shared, WAKE};

/// Interval at which a slow link passes bytes.
const TICK: Duration = Duration::from_millis(10);
/// More than any scenario opens; connections have the tokens from here on.
const MOST_LINKS: usize = 1000;

/// State of the thread: owns all sockets.
pub(super) struct Carrier {
    poll: Poll,
    shared: Arc<Shared>,
    doors: Vec<Door>,
    pairs: HashMap<usize, Pair>,
    /// Next token; a pair has two consecutive ones, the first even.
    next: usize,
}

#[cfg(target_os = "linux")]
type Reserved = std::os::fd::OwnedFd;
#[cfg(not(target_os = "linux"))]
type Reserved = std::convert::Infallible;

/// Listening address of a link.
struct Door {
    address: SocketAddr,
    /// `None` while the link refuses connections.
    listener: Option<TcpListener>,
    /// Reserves the port in the meantime; otherwise another socket could get it and be connected instead of the server.
    _reserved: Option<Reserved>,
}

/// Connection of a client, and the one to its server.
struct Pair {
    link: usize,
    client: Side,
    server: Side,
    /// True if nothing is carried any more.
    is_abandoned: bool,
    /// True if it is to be closed after its output is written.
    is_ending: bool,
    pending: HashMap<i32, (RemotingCommand, Option<Arc<Rule>>)>,
    delayed: Vec<(Instant, BytesMut)>,
    dripped: Instant,
}

struct Side {
    stream: TcpStream,
    unread: BytesMut,
    unwritten: BytesMut,
    has_ended: bool,
}

impl Carrier {
    pub(super) fn new(poll: Poll, shared: Arc<Shared>) -> Self {
        Self { poll, shared, doors: Vec::new(), pairs: HashMap::new(), next: MOST_LINKS }
    }

    /// Opens the listener of the next link; returns its address.
    pub(super) fn open(&mut self, number: usize) -> io::Result<SocketAddr> {
        let door = self.listen(number, (Ipv4Addr::LOCALHOST, 0).into())?;
        let address = door.address;
        self.doors.push(door);
        Ok(address)
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        loop {
            let pause = self.pairs.values().filter_map(|pair| pair.pause(self.mode_of(pair.link))).min();
            if let Err(error) = self.poll.poll(&mut events, pause) {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
            }
            let mut due: Vec<usize> =
                events.iter().map(|event| event.token().0).filter(|token| *token != WAKE.0).collect();
            if due.len() < events.iter().count() || pause.is_some() {
                due.extend(self.pairs.keys());
            }
            if self.shared.board.lock().ended {
                return;
            }
            self.follow_orders();
            for number in 0..self.doors.len() {
                self.accept(number);
            }
            due.iter_mut().for_each(|token| *token &= !1);
            due.sort_unstable();
            due.dedup();
            for token in due {
                self.carry(token);
            }
        }
    }

    fn mode_of(&self, link: usize) -> Mode {
        self.shared.board.lock().links[link].mode
    }

    fn listen(&mut self, number: usize, address: SocketAddr) -> io::Result<Door> {
        let mut listener = TcpListener::bind(address)?;
        self.poll.registry().register(&mut listener, Token(number * 2), Interest::READABLE)?;
        Ok(Door { address: listener.local_addr()?, listener: Some(listener), _reserved: None })
    }

    fn follow_orders(&mut self) {
        for number in 0..self.doors.len() {
            let (wanted, mode, acts) = {
                let link = &mut self.shared.board.lock().links[number];
                (link.wanted, link.mode, std::mem::take(&mut link.acts))
            };
            if wanted != mode && self.change(number, wanted) {
                self.shared.board.lock().links[number].mode = wanted;
            }
            for (act, done) in acts {
                let _ = done.send(self.perform(number, act));
            }
        }
    }

    fn change(&mut self, number: usize, wanted: Mode) -> bool {
        if wanted == Mode::Refuse {
            self.perform(number, Act::Reset);
            let address = self.doors[number].address;
            self.doors[number].listener = None;
            self.doors[number]._reserved = reserved(address);
            return true;
        }
        if self.doors[number].listener.is_none() {
            self.doors[number]._reserved = None;
            let Ok(door) = self.listen(number, self.doors[number].address) else { return false };
            self.doors[number] = door;
        }
        true
    }

    fn perform(&mut self, number: usize, act: Act) -> usize {
        let tokens: Vec<_> =
            self.pairs.iter().filter(|(_, pair)| pair.link == number).map(|(token, _)| *token).collect();
        let mut performed = 0;
        for token in tokens {
            let Some(pair) = self.pairs.get_mut(&token) else { continue };
            performed += usize::from(!pair.is_abandoned);
            if act == Act::Abandon {
                self.shared.board.lock().links[number].connections -= usize::from(!pair.is_abandoned);
                pair.is_abandoned = true;
            } else {
                pair.client.reset_when_closed();
                pair.server.reset_when_closed();
                self.close(token);
            }
        }
        performed
    }

    fn close(&mut self, token: usize) {
        if let Some(mut pair) = self.pairs.remove(&token) {
            let _ = self.poll.registry().deregister(&mut pair.client.stream);
            let _ = self.poll.registry().deregister(&mut pair.server.stream);
            self.shared.board.lock().links[pair.link].connections -= usize::from(!pair.is_abandoned);
        }
    }

    fn accept(&mut self, number: usize) {
        while let Some((client, _)) = self.doors[number].listener.as_ref().and_then(|listener| listener.accept().ok()) {
            let upstream = self.shared.board.lock().links[number].upstream;
            let Ok(server) = TcpStream::connect(upstream) else { continue };
            let mut pair = Pair::new(number, client, server);
            let token = self.next;
            self.next += 2;
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut pair.client.stream, Token(token), both).expect("a socket");
            self.poll.registry().register(&mut pair.server.stream, Token(token + 1), both).expect("a socket");
            self.pairs.insert(token, pair);
            let link = &mut self.shared.board.lock().links[number];
            link.accepted += 1;
            link.connections += 1;
        }
    }

    fn carry(&mut self, token: usize) {
        let Some(pair) = self.pairs.get_mut(&token) else { return };
        let mut board = self.shared.board.lock();
        let mode = board.links[pair.link].mode;
        let swallowed = pair.carry(mode, &board.rules);
        board.links[pair.link].swallowed += swallowed;
        drop(board);
        if pair.is_over() {
            self.close(token);
        }
    }
}

impl Pair {
    fn new(link: usize, client: TcpStream, server: TcpStream) -> Self {
        Self {
            link,
            client: Side::new(client),
            server: Side::new(server),
            is_abandoned: false,
            is_ending: false,
            pending: HashMap::new(),
            delayed: Vec::new(),
            dripped: Instant::now(),
        }
    }

    /// Reads, damages and writes the available bytes. Returns the number of discarded bytes.
    fn carry(&mut self, mode: Mode, rules: &[Arc<Rule>]) -> usize {
        let now = Instant::now();
        let mut swallowed = 0;
        if mode != Mode::Deaf {
            self.client.read();
        }
        self.server.read();
        if self.is_abandoned || mode == Mode::BlackHole {
            swallowed += std::mem::take(&mut self.client.unread).len();
        }
        if self.is_abandoned || mode == Mode::Mute {
            swallowed += std::mem::take(&mut self.server.unread).len();
        }
        while let Some(frame) = self.client.next_frame().filter(|_| !self.is_ending) {
            self.pass_up(&frame, rules);
        }
        while let Some(frame) = self.server.next_frame().filter(|_| !self.is_ending) {
            self.pass_down(frame, now);
        }
        let mut later = Vec::new();
        for (due, frame) in std::mem::take(&mut self.delayed) {
            if due <= now { self.client.unwritten.extend_from_slice(&frame) } else { later.push((due, frame)) }
        }
        self.delayed = later;
        if self.is_abandoned {
            return swallowed;
        }
        self.server.write(usize::MAX);
        match mode {
            Mode::Drip(bytes) if now.duration_since(self.dripped) >= TICK => {
                self.dripped = now;
                self.client.write(bytes);
            }
            Mode::Drip(_) => {}
            _ => self.client.write(usize::MAX),
        }
        swallowed
    }

    /// Passes a frame from the client to its server.
    fn pass_up(&mut self, frame: &[u8], rules: &[Arc<Rule>]) {
        let command = decoded(frame);
        if command.is_response() {
            return self.server.unwritten.extend_from_slice(frame);
        }
        let rule = rules.iter().find(|rule| rule.chooses(self.link, &command)).cloned();
        match rule.as_deref().map(|rule| &rule.effect) {
            Some(Effect::Refuse(code, remark)) => {
                let reply = RemotingCommand::response_to(&command, *code, Some((*remark).to_owned()));
                self.client.unwritten.extend_from_slice(&encoded(&reply));
            }
            Some(Effect::Swallow) => {}
            Some(Effect::Cut) => {
                self.server.unwritten.extend_from_slice(&frame[..frame.len() / 2]);
                self.is_ending = true;
            }
            _ => {
                self.server.unwritten.extend_from_slice(frame);
                if !command.is_oneway() {
                    self.pending.insert(command.opaque, (command, rule));
                }
                return;
            }
        }
        rule.inspect(|rule| rule.hit());
    }

    /// Passes a frame from the server to the client.
    fn pass_down(&mut self, mut frame: BytesMut, now: Instant) {
        let mut command = decoded(&frame);
        let pending = if command.is_response() { self.pending.remove(&command.opaque) } else { None };
        let Some((request, Some(rule))) = pending else { return self.client.unwritten.extend_from_slice(&frame) };
        rule.hit();
        match &rule.effect {
            Effect::SwallowReply => return,
            Effect::DelayReply(by) => return self.delayed.push((now + *by, frame)),
            Effect::DuplicateReply => self.client.unwritten.extend_from_slice(&frame),
            Effect::CutReply => {
                frame.truncate(frame.len() / 2);
                self.is_ending = true;
            }
            Effect::ResetForReply => {
                self.client.reset_when_closed();
                self.is_ending = true;
                return;
            }
            // After the two lengths: `{"code"` of a JSON header, code and language of a binary one.
            Effect::CorruptReply => frame[8..12].iter_mut().for_each(|byte| *byte ^= 0xff),
            Effect::Rewrite(rewrite) => {
                rewrite(&request, &mut command);
                frame = encoded(&command)[..].into();
            }
            Effect::Refuse(..) | Effect::Swallow | Effect::Cut => unreachable!("done on the way up"),
        }
        self.client.unwritten.extend_from_slice(&frame);
    }

    /// Duration for which nothing is due without an event.
    fn pause(&self, mode: Mode) -> Option<Duration> {
        let dripping = matches!(mode, Mode::Drip(_)) && !self.client.unwritten.is_empty();
        let due = self.delayed.iter().map(|(due, _)| due.saturating_duration_since(Instant::now())).min();
        due.into_iter().chain(dripping.then_some(TICK)).min()
    }

    fn is_over(&self) -> bool {
        let is_out = self.client.unwritten.is_empty() && self.server.unwritten.is_empty();
        // Both ends of an abandoned connection may close, without notice to each other.
        let is_left = self.client.has_ended && self.server.has_ended;
        if self.is_abandoned {
            is_left
        } else {
            self.client.has_ended || self.server.has_ended || (self.is_ending && is_out)
        }
    }
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream, unread: BytesMut::new(), unwritten: BytesMut::new(), has_ended: false }
    }

    fn read(&mut self) {
        let mut chunk = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break self.has_ended = true,
                Ok(length) => self.unread.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Not connected yet, or no data.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(_) => break self.has_ended = true,
            }
        }
    }

    fn write(&mut self, most: usize) {
        let mut written = 0;
        let end = self.unwritten.len().min(most);
        while written < end {
            match self.stream.write(&self.unwritten[written..end]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(_) => {
                    self.has_ended = true;
                    break;
                }
            }
        }
        self.unwritten.advance(written);
    }

    /// Returns one frame with its length, after all of it has arrived.
    fn next_frame(&mut self) -> Option<BytesMut> {
        let length = u32::from_be_bytes(self.unread.get(..4)?.try_into().ok()?);
        let end = 4 + usize::try_from(length).ok()?;
        (self.unread.len() >= end).then(|| self.unread.split_to(end))
    }

    /// Makes the end of this connection a reset, if the system supports it.
    fn reset_when_closed(&self) {
        #[cfg(unix)]
        {
            let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            let _ = nix::sys::socket::setsockopt(&self.stream, nix::sys::socket::sockopt::Linger, &at_once);
        }
    }
}

/// Returns a socket that has the port and does not listen, if the system supports one that no child inherits.
#[cfg(target_os = "linux")]
fn reserved(address: SocketAddr) -> Option<Reserved> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};
    use std::os::fd::AsRawFd;

    let SocketAddr::V4(address) = address else { return None };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).ok()?;
    setsockopt(&socket, sockopt::ReuseAddr, &true).ok()?;
    bind(socket.as_raw_fd(), &SockaddrIn::from(address)).ok()?;
    Some(socket)
}

#[cfg(not(target_os = "linux"))]
fn reserved(_: SocketAddr) -> Option<Reserved> {
    None
}

fn decoded(frame: &[u8]) -> RemotingCommand {
    let mut decoder = FrameDecoder::new();
    decoder.push(frame);
    decoder.next_command().expect("a frame").expect("a whole frame")
}

fn encoded(command: &RemotingCommand) -> Vec<u8> {
    let mut bytes = Vec::new();
    command.encode(&mut bytes).expect("a frame");
    bytes
}
