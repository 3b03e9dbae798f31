//! A proxy between a client and the servers of a cluster, which damages what passes through it.
//!
//! Each server has a link of its own: a client gets the links' addresses as name servers and an address map for brokers
//! ([`Proxy::addresses`], [`Proxy::address_map`]), so that what servers say of themselves passes unchanged. One thread
//! carries everything, ended and waited for when the proxy is dropped. Every kind of damage counts what it did: a
//! scenario asserts that its fault has happened.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;
use rocketmq_sync::wire::{FrameDecoder, RemotingCommand, RequestCode, ResponseCode};

use super::{Cluster, eventually};

/// How often a slow link lets something through.
const TICK: Duration = Duration::from_millis(10);
/// Above what any scenario opens.
const MOST_LINKS: usize = 1000;
const WAKE: Token = Token(usize::MAX);

/// Links to all servers of a cluster.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    links: Vec<Link>,
    name_servers: usize,
    thread: Option<JoinHandle<()>>,
}

/// The way to one server.
pub(crate) struct Link {
    /// A broker's name, a name server's address.
    server: String,
    upstream: SocketAddr,
    address: SocketAddr,
    number: usize,
    shared: Arc<Shared>,
}

/// What a link does with everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Pass,
    /// Nobody listens, and open connections are reset.
    Refuse,
    /// What the client sends is read and thrown away: a peer that never answers.
    BlackHole,
    /// What the client sends arrives, and what the server sends is thrown away.
    Mute,
    /// What the client sends is not read.
    Deaf,
    /// Of what the server sends, so many bytes pass every 10 ms.
    Drip(usize),
}

/// What becomes of a request that meets a fault, or of its reply.
#[allow(clippy::type_complexity, reason = "one function of two commands")]
pub(crate) enum Effect {
    /// It does not reach the server, and is answered with this code and remark.
    Refuse(ResponseCode, &'static str),
    /// It does not reach the server, and is not answered.
    Swallow,
    /// The first half of it reaches the server, then both connections are closed.
    Cut,
    SwallowReply,
    DelayReply(Duration),
    DuplicateReply,
    /// The first half of the reply reaches the client, then the connection is closed.
    CutReply,
    /// The connection is reset in place of the reply.
    ResetForReply,
    /// Bytes of the reply's header are other ones.
    CorruptReply,
    /// The reply says what this makes of it; the request comes first.
    Rewrite(Box<dyn Fn(&RemotingCommand, &mut RemotingCommand) + Send + Sync>),
}

/// Chooses the requests that meet a fault.
#[must_use]
pub(crate) struct Requests<'a> {
    proxy: &'a Proxy,
    codes: Vec<RequestCode>,
    fields: Vec<(&'static str, String)>,
    server: Option<usize>,
    every: usize,
    times: usize,
}

/// A fault, which ends when this is dropped.
pub(crate) struct Fault {
    rule: Arc<Rule>,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Stands before all servers of a cluster, and lets everything pass.
    pub(crate) fn before(cluster: &dyn Cluster) -> Self {
        let name_servers = cluster.name_servers().iter().map(|address| (address.to_string(), *address));
        let brokers = cluster.brokers().iter().map(|broker| (broker.name.clone(), broker.address));
        let servers: Vec<_> = name_servers.chain(brokers).collect();
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), WAKE).expect("a waker");
        let boards = servers.iter().map(|(_, upstream)| LinkBoard { upstream: *upstream, ..LinkBoard::default() });
        let board = Board { links: boards.collect(), ..Board::default() };
        let shared = Arc::new(Shared { board: Mutex::new(board), waker });
        let mut carrier =
            Carrier { poll, shared: Arc::clone(&shared), doors: Vec::new(), pairs: HashMap::new(), next: 0 };
        let mut links = Vec::new();
        for (number, (server, upstream)) in servers.into_iter().enumerate() {
            let door = carrier.listen(number, (Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
            links.push(Link { server, upstream, address: door.address, number, shared: Arc::clone(&shared) });
            carrier.doors.push(door);
        }
        carrier.next = MOST_LINKS;
        #[allow(clippy::disallowed_methods, reason = "a thread of the tests' own")]
        let thread = std::thread::Builder::new().name("fault-proxy".into()).spawn(move || carrier.run());
        Self { shared, links, name_servers: cluster.name_servers().len(), thread: Some(thread.expect("a thread")) }
    }

    /// The links to the name servers, as a client is told of name servers.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.name_servers().iter().map(|link| link.address.to_string()).collect()
    }

    /// Turns brokers' addresses into those of their links.
    pub(crate) fn address_map(&self) -> impl Fn(&str) -> String + Send + Sync + 'static {
        let links: HashMap<_, _> =
            self.brokers().iter().map(|link| (link.upstream.to_string(), link.address.to_string())).collect();
        move |address| links.get(address).cloned().unwrap_or_else(|| address.to_owned())
    }

    /// To all servers.
    pub(crate) fn links(&self) -> &[Link] {
        &self.links
    }

    pub(crate) fn name_servers(&self) -> &[Link] {
        &self.links[..self.name_servers]
    }

    pub(crate) fn brokers(&self) -> &[Link] {
        &self.links[self.name_servers..]
    }

    pub(crate) fn broker(&self, name: &str) -> &Link {
        self.brokers().iter().find(|link| link.server == name).expect("a broker of the cluster")
    }

    /// Requests with one of these codes; with none, all.
    pub(crate) fn on(&self, codes: &[RequestCode]) -> Requests<'_> {
        Requests { proxy: self, codes: codes.to_vec(), fields: Vec::new(), server: None, every: 1, times: usize::MAX }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.tell(|board| board.ended = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Link {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on; waits until it is so.
    pub(crate) fn set(&self, mode: Mode) {
        self.shared.tell(|board| board.links[self.number].wanted = mode);
        eventually("the link is as it shall be", || {
            // Its port may be in use for a moment.
            self.shared.tell(|_| ());
            self.look(|link| link.mode) == mode
        });
    }

    /// Resets all connections; returns how many there were.
    pub(crate) fn reset(&self) -> usize {
        self.shared.act(self.number, Act::Reset)
    }

    /// Leaves all connections open without carrying anything more, as when the way between the ends is gone. Returns
    /// how many there were. New ones pass.
    pub(crate) fn abandon(&self) -> usize {
        self.shared.act(self.number, Act::Abandon)
    }

    /// Connections that are open and carry something.
    pub(crate) fn connections(&self) -> usize {
        self.look(|link| link.connections)
    }

    /// Connections that were ever accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.look(|link| link.accepted)
    }

    /// Bytes that were thrown away by the link's mode, or on connections that are abandoned.
    pub(crate) fn swallowed(&self) -> usize {
        self.look(|link| link.swallowed)
    }

    fn look<T>(&self, at: impl FnOnce(&LinkBoard) -> T) -> T {
        at(&self.shared.board.lock().links[self.number])
    }
}

impl Requests<'_> {
    /// Only those with this value of a header field.
    pub(crate) fn with(mut self, field: &'static str, value: &str) -> Self {
        self.fields.push((field, value.to_owned()));
        self
    }

    /// Only those to this server.
    pub(crate) fn at(mut self, link: &Link) -> Self {
        self.server = Some(link.number);
        self
    }

    /// Only every so many-th.
    pub(crate) fn every(mut self, requests: usize) -> Self {
        self.every = requests;
        self
    }

    /// Only so often.
    pub(crate) fn times(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Begins the fault.
    #[must_use]
    pub(crate) fn meet(self, effect: Effect) -> Fault {
        let Self { proxy, codes, fields, server, every, times } = self;
        let (seen, chosen, hits) = Default::default();
        let rule = Arc::new(Rule { codes, fields, server, every, times, effect, seen, chosen, hits });
        proxy.shared.board.lock().rules.push(Arc::clone(&rule));
        Fault { rule, shared: Arc::clone(&proxy.shared) }
    }
}

impl Fault {
    /// How often it has happened.
    pub(crate) fn hits(&self) -> usize {
        self.rule.hits.load(Ordering::SeqCst)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.shared.board.lock().rules.retain(|rule| !Arc::ptr_eq(rule, &self.rule));
    }
}

/// What users of the proxy and its thread share.
struct Shared {
    board: Mutex<Board>,
    waker: Waker,
}

#[derive(Default)]
struct Board {
    links: Vec<LinkBoard>,
    rules: Vec<Arc<Rule>>,
    ended: bool,
}

struct LinkBoard {
    upstream: SocketAddr,
    wanted: Mode,
    mode: Mode,
    acts: Vec<(Act, crossbeam_channel::Sender<usize>)>,
    connections: usize,
    accepted: usize,
    swallowed: usize,
}

impl Default for LinkBoard {
    fn default() -> Self {
        Self {
            upstream: (Ipv4Addr::LOCALHOST, 0).into(),
            wanted: Mode::Pass,
            mode: Mode::Pass,
            acts: Vec::new(),
            connections: 0,
            accepted: 0,
            swallowed: 0,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Reset,
    Abandon,
}

impl Shared {
    fn tell(&self, what: impl FnOnce(&mut Board)) {
        what(&mut self.board.lock());
        self.waker.wake().expect("the proxy's thread");
    }

    fn act(&self, link: usize, act: Act) -> usize {
        let (done, number) = crossbeam_channel::bounded(1);
        self.tell(|board| board.links[link].acts.push((act, done)));
        number.recv().expect("the proxy's thread")
    }
}

struct Rule {
    codes: Vec<RequestCode>,
    fields: Vec<(&'static str, String)>,
    server: Option<usize>,
    every: usize,
    times: usize,
    effect: Effect,
    /// Requests that fit.
    seen: AtomicUsize,
    /// Requests that are to meet it.
    chosen: AtomicUsize,
    /// Requests that have met it.
    hits: AtomicUsize,
}

impl Rule {
    fn chooses(&self, link: usize, request: &RemotingCommand) -> bool {
        let fits = (self.codes.is_empty() || self.codes.contains(&request.request_code()))
            && self.server.is_none_or(|server| server == link)
            && self.fields.iter().all(|(name, value)| request.ext_fields.get(name) == Some(value.as_str()));
        if !fits || (self.seen.fetch_add(1, Ordering::SeqCst) + 1) % self.every != 0 {
            return false;
        }
        let is_left = self.chosen.load(Ordering::SeqCst) < self.times;
        self.chosen.fetch_add(usize::from(is_left), Ordering::SeqCst);
        is_left
    }

    fn hit(&self) {
        self.hits.fetch_add(1, Ordering::SeqCst);
    }
}

/// The thread: owns all sockets.
struct Carrier {
    poll: Poll,
    shared: Arc<Shared>,
    doors: Vec<Door>,
    pairs: HashMap<usize, Pair>,
    /// Of tokens; a pair has two in a row, the first even.
    next: usize,
}

/// Where a link is to be reached; nobody listens there while it refuses.
struct Door {
    address: SocketAddr,
    listener: Option<TcpListener>,
}

/// A client's connection and the one to its server.
struct Pair {
    link: usize,
    client: Side,
    server: Side,
    /// Nothing is carried any more.
    is_abandoned: bool,
    /// To be closed once what is written is out.
    is_ending: bool,
    pending: HashMap<i32, (RemotingCommand, Option<Arc<Rule>>)>,
    delayed: Vec<(Instant, Vec<u8>)>,
    dripped: Instant,
}

struct Side {
    stream: TcpStream,
    unread: Vec<u8>,
    unwritten: Vec<u8>,
    has_ended: bool,
}

impl Carrier {
    fn run(mut self) {
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
        Ok(Door { address: listener.local_addr()?, listener: Some(listener) })
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
            self.doors[number].listener = None;
            return true;
        }
        if self.doors[number].listener.is_none() {
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

    /// Reads, damages and writes what there is. Returns how many bytes were thrown away.
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
            self.pass_up(frame, rules);
        }
        while let Some(frame) = self.server.next_frame().filter(|_| !self.is_ending) {
            self.pass_down(frame, now);
        }
        let mut later = Vec::new();
        for (due, frame) in std::mem::take(&mut self.delayed) {
            if due <= now { self.client.unwritten.extend(frame) } else { later.push((due, frame)) }
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

    /// From the client to its server.
    fn pass_up(&mut self, frame: Vec<u8>, rules: &[Arc<Rule>]) {
        let command = decoded(&frame);
        if command.is_response() {
            return self.server.unwritten.extend(frame);
        }
        let rule = rules.iter().find(|rule| rule.chooses(self.link, &command)).cloned();
        match rule.as_deref().map(|rule| &rule.effect) {
            Some(Effect::Refuse(code, remark)) => {
                let reply = RemotingCommand::response_to(&command, *code, Some((*remark).to_owned()));
                self.client.unwritten.extend(encoded(&reply));
            }
            Some(Effect::Swallow) => {}
            Some(Effect::Cut) => {
                self.server.unwritten.extend(&frame[..frame.len() / 2]);
                self.is_ending = true;
            }
            _ => {
                self.server.unwritten.extend(frame);
                if !command.is_oneway() {
                    self.pending.insert(command.opaque, (command, rule));
                }
                return;
            }
        }
        rule.inspect(|rule| rule.hit());
    }

    /// From the server to the client.
    fn pass_down(&mut self, mut frame: Vec<u8>, now: Instant) {
        let mut command = decoded(&frame);
        let pending = if command.is_response() { self.pending.remove(&command.opaque) } else { None };
        let Some((request, Some(rule))) = pending else { return self.client.unwritten.extend(frame) };
        rule.hit();
        match &rule.effect {
            Effect::SwallowReply => return,
            Effect::DelayReply(by) => return self.delayed.push((now + *by, frame)),
            Effect::DuplicateReply => self.client.unwritten.extend(&frame),
            Effect::CutReply => {
                frame.truncate(frame.len() / 2);
                self.is_ending = true;
            }
            Effect::ResetForReply => {
                self.client.reset_when_closed();
                self.is_ending = true;
                return;
            }
            // Behind the two lengths: `{"code"` of a JSON header, code and language of a binary one.
            Effect::CorruptReply => frame[8..12].iter_mut().for_each(|byte| *byte ^= 0xff),
            Effect::Rewrite(rewrite) => {
                rewrite(&request, &mut command);
                frame = encoded(&command);
            }
            Effect::Refuse(..) | Effect::Swallow | Effect::Cut => unreachable!("done on the way up"),
        }
        self.client.unwritten.extend(frame);
    }

    /// How long nothing needs to be done without an event.
    fn pause(&self, mode: Mode) -> Option<Duration> {
        let dripping = matches!(mode, Mode::Drip(_)) && !self.client.unwritten.is_empty();
        let due = self.delayed.iter().map(|(due, _)| due.saturating_duration_since(Instant::now())).min();
        due.into_iter().chain(dripping.then_some(TICK)).min()
    }

    fn is_over(&self) -> bool {
        let is_out = self.client.unwritten.is_empty() && self.server.unwritten.is_empty();
        // Both ends of an abandoned connection may go, and neither hears of the other.
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
        Self { stream, unread: Vec::new(), unwritten: Vec::new(), has_ended: false }
    }

    fn read(&mut self) {
        let mut chunk = [0; 64 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break self.has_ended = true,
                Ok(length) => self.unread.extend(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Not connected yet, or nothing there.
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
        self.unwritten.drain(..written);
    }

    /// One frame with its length, once all of it is there.
    fn next_frame(&mut self) -> Option<Vec<u8>> {
        let length = u32::from_be_bytes(self.unread.get(..4)?.try_into().ok()?);
        let end = 4 + usize::try_from(length).ok()?;
        (self.unread.len() >= end).then(|| self.unread.drain(..end).collect())
    }

    /// Makes the end of this connection a reset, where the system can be asked for that.
    fn reset_when_closed(&self) {
        #[cfg(unix)]
        {
            let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            let _ = nix::sys::socket::setsockopt(&self.stream, nix::sys::socket::sockopt::Linger, &at_once);
        }
    }
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
