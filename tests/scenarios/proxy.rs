//! Proxy between a client and the servers of a cluster, which damages traffic.
//!
//! Each server has its own link. A client gets the links' addresses as name servers and an address map for brokers
//! ([`Proxy::addresses`], [`Proxy::address_map`]), so that the servers' own addresses pass unchanged. One thread
//! carries everything; it is ended and joined when the proxy is dropped. Every kind of damage counts its effects: a
//! scenario asserts that its fault has happened.

mod carrier;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::{Poll, Token, Waker};
use parking_lot::Mutex;
use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode, ResponseCode};

use self::carrier::Carrier;
use super::scene::Dice;
use super::{Cluster, eventually};

const WAKE: Token = Token(usize::MAX);

/// Links to all servers of a cluster.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    links: Vec<Link>,
    name_servers: usize,
    thread: Option<JoinHandle<()>>,
}

/// Link to one server.
pub(crate) struct Link {
    /// Name of a broker, or address of a name server.
    server: String,
    upstream: SocketAddr,
    address: SocketAddr,
    number: usize,
    shared: Arc<Shared>,
}

/// Treatment of all traffic of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// The port has no listener, and open connections are reset.
    Refuse,
    /// Requests are read and discarded: a peer that never answers.
    BlackHole,
    /// Requests arrive, and responses are discarded.
    Mute,
    /// Requests are not read.
    Deaf,
    /// This many bytes of the responses pass every 10 ms.
    Drip(usize),
}

/// Treatment of a request that hits a fault, or of its reply.
#[allow(clippy::type_complexity, reason = "one function of two commands")]
pub(crate) enum Effect {
    /// The request does not reach the server, and is answered with this code and remark.
    Refuse(ResponseCode, &'static str),
    /// The request does not reach the server, and is not answered.
    Swallow,
    /// The first half of the request reaches the server, then both connections are closed.
    Cut,
    SwallowReply,
    DelayReply(Duration),
    DuplicateReply,
    /// The first half of the reply reaches the client, then the connection is closed.
    CutReply,
    /// The connection is reset instead of the reply.
    ResetForReply,
    /// Bytes of the reply's header are changed.
    CorruptReply,
    /// The function changes the reply; its first argument is the request.
    Rewrite(Box<dyn Fn(&RemotingCommand, &mut RemotingCommand) + Send + Sync>),
}

/// Selects the requests that hit a fault.
#[must_use]
pub(crate) struct Requests<'a> {
    proxy: &'a Proxy,
    codes: Vec<RequestCode>,
    fields: Vec<(&'static str, String)>,
    server: Option<usize>,
    every: usize,
    seed: Option<u64>,
}

/// Fault that ends when the value is dropped.
pub(crate) struct Fault {
    rule: Arc<Rule>,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts a proxy for all servers of a cluster that passes everything.
    pub(crate) fn before(cluster: &dyn Cluster) -> Self {
        let name_servers = cluster.name_servers().iter().map(|address| (address.to_string(), *address));
        let brokers = cluster.brokers().iter().map(|broker| (broker.name.clone(), broker.address));
        let servers: Vec<_> = name_servers.chain(brokers).collect();
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), WAKE).expect("a waker");
        let boards = servers.iter().map(|(_, upstream)| LinkBoard::to(*upstream));
        let board = Board { links: boards.collect(), ..Board::default() };
        let shared = Arc::new(Shared { board: Mutex::new(board), waker });
        let mut carrier = Carrier::new(poll, Arc::clone(&shared));
        let mut links = Vec::new();
        for (number, (server, upstream)) in servers.into_iter().enumerate() {
            let address = carrier.open(number).expect("a free port");
            links.push(Link { server, upstream, address, number, shared: Arc::clone(&shared) });
        }
        #[allow(clippy::disallowed_methods, reason = "a thread of the tests' own")]
        let thread = std::thread::Builder::new().name("fault-proxy".into()).spawn(move || carrier.run());
        Self { shared, links, name_servers: cluster.name_servers().len(), thread: Some(thread.expect("a thread")) }
    }

    /// Addresses of the links to the name servers, for a client's configuration.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.name_servers().iter().map(|link| link.address.to_string()).collect()
    }

    /// Returns a map of brokers' addresses to those of their links.
    pub(crate) fn address_map(&self) -> impl Fn(&str) -> String + Send + Sync + 'static {
        let links: HashMap<_, _> =
            self.brokers().iter().map(|link| (link.upstream.to_string(), link.address.to_string())).collect();
        move |address| links.get(address).cloned().unwrap_or_else(|| address.to_owned())
    }

    /// Links to all servers.
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

    /// Selects requests with one of these codes; with none, all.
    pub(crate) fn on(&self, codes: &[RequestCode]) -> Requests<'_> {
        Requests { proxy: self, codes: codes.to_vec(), fields: Vec::new(), server: None, every: 1, seed: None }
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

    /// Address of the server itself.
    pub(crate) fn server(&self) -> SocketAddr {
        self.upstream
    }

    /// Sets the mode, and waits until it applies.
    pub(crate) fn set(&self, mode: Mode) {
        self.shared.tell(|board| board.links[self.number].wanted = mode);
        eventually("the link has its mode", || {
            // Its port may be in use for a moment.
            self.shared.tell(|_| ());
            self.look(|link| link.mode) == mode
        });
    }

    /// Resets all connections; returns their number.
    pub(crate) fn reset(&self) -> usize {
        self.shared.act(self.number, Act::Reset)
    }

    /// Abandons all connections: they stay open and carry nothing more, like a lost path between the ends. Returns
    /// their number. New connections work.
    pub(crate) fn abandon(&self) -> usize {
        self.shared.act(self.number, Act::Abandon)
    }

    /// Number of open connections that carry traffic.
    pub(crate) fn connections(&self) -> usize {
        self.look(|link| link.connections)
    }

    /// Number of connections accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.look(|link| link.accepted)
    }

    /// Number of bytes discarded by the link's mode, or on abandoned connections.
    pub(crate) fn swallowed(&self) -> usize {
        self.look(|link| link.swallowed)
    }

    fn look<T>(&self, at: impl FnOnce(&LinkBoard) -> T) -> T {
        at(&self.shared.board.lock().links[self.number])
    }
}

impl Requests<'_> {
    /// Restricts to requests with this value of a header field.
    pub(crate) fn with(mut self, field: &'static str, value: &str) -> Self {
        self.fields.push((field, value.to_owned()));
        self
    }

    /// Restricts to requests to this server.
    pub(crate) fn at(mut self, link: &Link) -> Self {
        self.server = Some(link.number);
        self
    }

    /// Restricts to one in this many requests, at equal intervals.
    pub(crate) fn every(mut self, requests: usize) -> Self {
        self.every = requests;
        self
    }

    /// Restricts to one in this many requests, at random by this seed.
    pub(crate) fn one_in(mut self, requests: usize, seed: u64) -> Self {
        self.seed = Some(seed);
        self.every(requests)
    }

    /// Begins the fault.
    #[must_use]
    pub(crate) fn meet(self, effect: Effect) -> Fault {
        let Self { proxy, codes, fields, server, every, seed } = self;
        let (seen, hits) = Default::default();
        let rule = Arc::new(Rule { codes, fields, server, every, seed, effect, seen, hits });
        proxy.shared.board.lock().rules.push(Arc::clone(&rule));
        Fault { rule, shared: Arc::clone(&proxy.shared) }
    }
}

impl Fault {
    /// Number of times it has happened.
    pub(crate) fn hits(&self) -> usize {
        self.rule.hits.load(Ordering::SeqCst)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.shared.board.lock().rules.retain(|rule| !Arc::ptr_eq(rule, &self.rule));
    }
}

/// State shared by users of the proxy and its thread.
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

impl LinkBoard {
    fn to(upstream: SocketAddr) -> Self {
        let (wanted, mode) = (Mode::Pass, Mode::Pass);
        Self { upstream, wanted, mode, acts: Vec::new(), connections: 0, accepted: 0, swallowed: 0 }
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
    seed: Option<u64>,
    effect: Effect,
    /// Number of matching requests.
    seen: AtomicUsize,
    /// Number of requests that hit the fault.
    hits: AtomicUsize,
}

impl Rule {
    fn chooses(&self, link: usize, request: &RemotingCommand) -> bool {
        let fits = (self.codes.is_empty() || self.codes.contains(&request.request_code()))
            && self.server.is_none_or(|server| server == link)
            && self.fields.iter().all(|(name, value)| request.ext_fields.get(name) == Some(value.as_str()));
        fits && self.falls(self.seen.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn falls(&self, number: usize) -> bool {
        match self.seed {
            None => number.is_multiple_of(self.every),
            Some(seed) => Dice::of(seed.wrapping_add(number as u64)).below(self.every as u64) == 0,
        }
    }

    fn hit(&self) {
        self.hits.fetch_add(1, Ordering::SeqCst);
    }
}
