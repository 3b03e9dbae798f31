//! Layer 3: what producers and consumers share: one set of connections, routes, heartbeats and timers.
//!
//! [`Client`] is a handle, cheap to clone; its members hold clones too. When the last one is gone the client's threads
//! end. There is no registry and no static: two clients never meet, whatever their clusters, groups and credentials.

pub(crate) mod callbacks;
pub(crate) mod config;
pub(crate) mod ending;
pub(crate) mod heartbeat;
pub(crate) mod identity;
pub(crate) mod inbound;
pub(crate) mod member;
pub(crate) mod route;
pub(crate) mod rpc;
pub(crate) mod timer;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use parking_lot::{Condvar, Mutex, RwLock};

use self::callbacks::Callbacks;
use self::config::{ClientConfig, client_options, invalid};
use self::heartbeat::{Farewell, Heartbeats};
use self::identity::Identity;
use self::inbound::Inbound;
use self::member::{Member, MemberId, MemberKey};
use self::route::{RouteWatcher, Routes, TopicRoute};
use self::timer::{Timer, TimerThread};
use crate::deadline::deadline_after;
use crate::error::{Error, ErrorKind, Result};
use crate::name_map::NameMap;
use crate::remoting::transport::Plain;
use crate::remoting::{Remoting, RemotingConfig, RemotingThread, Request};
use crate::wire::RemotingCommand;
use crate::worker::{Threads, patience};

/// A route that seems wrong is asked for at most this often.
const SUSPICION_INTERVAL: Duration = Duration::from_millis(500);
/// More than the in-flight windows of a few producers with the default settings. The net below them.
const COMPLETIONS_OUTBOX: usize = 256 * 1024 * 1024;
/// How long a client whose last handle is dropped may take to end its threads.
const DROP_GRACE: Duration = Duration::from_secs(1);

/// Connections, routes, heartbeats and timers for any number of producers and consumers.
///
/// Most programs never name it: a producer or consumer makes its own. Share one when a process has several members on
/// the same cluster, since each client costs two threads and a connection to every broker.
///
/// ```
/// # use rocketmq_sync::{Client, Producer};
/// # fn main() -> rocketmq_sync::Result<()> {
/// let client = Client::builder().name_servers(["127.0.0.1:9876"]).start()?;
/// let orders = Producer::builder("orders").client(&client).start()?;
/// let audit = Producer::builder("audit").client(&client).start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    owner: Arc<Owner>,
}

impl Client {
    /// A client to be configured.
    pub fn builder() -> ClientBuilder {
        ClientBuilder { config: ClientConfig::default() }
    }

    /// The name under which brokers know this client.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.core().identity.client_id
    }

    /// The versions of the brokers that this client sends heartbeats to, as they told them in their last answers: by
    /// broker name and address, as numbers of the Java client's `MQVersion`.
    /// [`release_name`](crate::wire::version::release_name) tells the release. A broker that has not answered yet is
    /// not there, and in a forked child none is.
    #[must_use]
    pub fn broker_versions(&self) -> BTreeMap<String, BTreeMap<String, i32>> {
        if self.core().check_process().is_err() {
            return BTreeMap::new();
        }
        let version = |address: &Arc<str>| Some((address.to_string(), self.core().heartbeats.version(address)?));
        let brokers = self.core().routes.addresses_by_name().into_iter();
        let told = brokers.map(|(name, addresses)| (name.to_string(), addresses.iter().filter_map(version).collect()));
        told.filter(|(_, versions): &(_, BTreeMap<_, _>)| !versions.is_empty()).collect()
    }

    /// Sends a request of the caller's own making to a name server or broker and waits for its answer, for what this
    /// library has no call for. An answer that is a refusal is an answer too. A broker's address is given as routes name
    /// it (an address map applies), and the connection is the one that this client's members use as well.
    ///
    /// Its types are those of [`unversioned`](crate::unversioned): they may change in a minor release.
    ///
    /// ```no_run
    /// # use rocketmq_sync::{Client, ResponseCode, unversioned::wire::{RemotingCommand, RequestCode}};
    /// # use std::time::Duration;
    /// # fn main() -> rocketmq_sync::Result<()> {
    /// let client = Client::builder().name_servers(["127.0.0.1:9876"]).start()?;
    /// let question = RemotingCommand::request(RequestCode::GET_BROKER_RUNTIME_INFO, &());
    /// let answer = client.request("127.0.0.1:10911", &question, Duration::from_secs(3))?;
    /// assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// When no answer came: [`ErrorKind::Resolve`], [`ErrorKind::Connect`], [`ErrorKind::ConnectionLost`],
    /// [`ErrorKind::Timeout`] or [`ErrorKind::Protocol`]; [`ErrorKind::InvalidMessage`] when the request is larger than
    /// a frame can be; [`ErrorKind::Forked`] in a child of the process that made the client; [`ErrorKind::Internal`] and
    /// [`ErrorKind::WrongThread`] as their meanings say.
    pub fn request(&self, address: &str, request: &RemotingCommand, timeout: Duration) -> Result<RemotingCommand> {
        let core = self.core();
        core.check_usable()?;
        let asked = Request::new(request.request_code(), &request.ext_fields).with_body(&request.body);
        core.remoting.invoke(&Arc::from(address), asked, deadline_after(timeout)).map_err(Error::from)
    }

    pub(crate) fn start(mut config: ClientConfig) -> Result<Self> {
        config.complete(|name| env::var(name).ok());
        config.check()?;
        let identity = Identity::new(&config)?;
        let threads = Threads::new(config.thread_starter.clone(), config.stack_size);
        let remoting_config = RemotingConfig {
            connect_timeout: config.connect_timeout,
            silence_limit: config.silence_limit,
            max_frame_length: config.max_frame_length,
            outbox_limit: config.outbox_limit,
            completions_outbox_limit: config.outbox_limit.max(COMPLETIONS_OUTBOX),
            encoding: config.header_encoding,
            resolve: Arc::clone(&config.resolver),
            address_map: config.address_map.clone(),
            unmapped: config.name_servers.clone(),
            transport: Arc::new(|_| Ok(Box::new(Plain))),
        };
        let inbound = Arc::new(Inbound::default());
        let (remoting, remoting_thread) = Remoting::start(remoting_config, &threads, Arc::clone(&inbound) as _)?;
        let (timer, timer_thread) = Timer::start(&threads)?;
        let core = Arc::new_cyclic(|core: &Weak<Core>| Core {
            routes: Arc::new(Routes::new(
                remoting.clone(),
                timer.clone(),
                config.name_servers.clone(),
                Box::new(TellMembers { core: Weak::clone(core) }),
            )),
            callbacks: Callbacks::new(threads.clone(), config.callback_threads),
            heartbeats: Heartbeats::default(),
            members: RwLock::default(),
            last_member: AtomicU64::new(0),
            changes: Changes::default(),
            consumer_threads: Mutex::default(),
            suspected: Mutex::default(),
            config,
            identity,
            remoting,
            timer,
            threads,
        });
        inbound.attach(&core);
        let broken = Arc::downgrade(&core);
        core.threads.health().watch(move || {
            if let Some(core) = broken.upgrade() {
                core.end_broken();
            }
        });
        core.begin_duties();
        let running = Running { timer_thread, remoting_thread };
        Ok(Self { owner: Arc::new(Owner { core, running: Mutex::new(Some(running)) }) })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.owner.core
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("client_id", &self.client_id()).finish_non_exhaustive()
    }
}

/// Options of a [`Client`], checked by [`ClientBuilder::start`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    config: ClientConfig,
}

impl ClientBuilder {
    client_options!(config);

    fn config(&mut self) -> &mut ClientConfig {
        &mut self.config
    }

    /// Starts the client's threads. Nothing is dialled yet: what cannot be reached now is found later.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] names the option that is wrong; [`ErrorKind::Resource`] when the system refuses a
    /// thread. Nothing is left behind then.
    pub fn start(self) -> Result<Client> {
        Client::start(self.config)
    }
}

/// Ends the threads when the last handle is gone.
struct Owner {
    core: Arc<Core>,
    running: Mutex<Option<Running>>,
}

// In this order: no duty is begun any more, then every request is completed, then callbacks run what they were given.
struct Running {
    timer_thread: TimerThread,
    remoting_thread: RemotingThread,
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.core.identity.is_forked() {
            // The threads are the parent's; so are the sockets and the poll set, which must not be touched from here.
            std::mem::forget(self.running.lock().take());
            return;
        }
        let deadline = Instant::now() + DROP_GRACE;
        let Some(mut running) = self.running.lock().take() else { return };
        let timer_left = running.timer_thread.stop(deadline);
        let mut left_behind = running.remoting_thread.stop(deadline);
        // Threads that may still bring jobs for callbacks.
        let may_submit = timer_left.is_some() || !running.remoting_thread.has_ended();
        left_behind.extend(timer_left);
        match may_submit {
            true => self.core.callbacks.leave(),
            false => left_behind.extend(self.core.callbacks.stop(deadline)),
        }
        if !left_behind.is_empty() {
            crate::logging::warn!(
                "threads are left behind by their client: {} did not end in time",
                left_behind.join(", ")
            );
        }
    }
}

/// The parts of a client, for its members and its own threads, which must not keep it alive.
pub(crate) struct Core {
    pub(crate) config: ClientConfig,
    pub(crate) identity: Identity,
    pub(crate) remoting: Remoting,
    pub(crate) routes: Arc<Routes>,
    pub(crate) timer: Timer,
    pub(crate) callbacks: Callbacks,
    pub(crate) threads: Threads,
    pub(crate) heartbeats: Heartbeats,
    members: RwLock<BTreeMap<MemberId, Arc<dyn Member>>>,
    last_member: AtomicU64,
    changes: Changes,
    /// The threads that the consumers of this client share, while there is a consumer.
    consumer_threads: Mutex<Option<Weak<dyn Any + Send + Sync>>>,
    /// When routes were last asked for because something about them seemed wrong.
    suspected: Mutex<NameMap<Instant>>,
}

impl Core {
    /// An identity for a member to be; no other member of this client ever has it.
    pub(crate) fn new_member_id(&self) -> MemberId {
        MemberId(self.last_member.fetch_add(1, Ordering::Relaxed))
    }

    /// Adds a member: brokers hear of it with the next heartbeat, which is sent at once.
    pub(crate) fn join(self: &Arc<Self>, member: Arc<dyn Member>) -> Result<()> {
        {
            let mut members = self.members.write();
            let key = member.key();
            if members.values().any(|other| other.key() == key) {
                let detail = format!("this client has a {key:?} already: use another client or group");
                return Err(Error::new(ErrorKind::DuplicateGroup, detail));
            }
            members.insert(member.id(), member);
        }
        self.heartbeat_to_all();
        Ok(())
    }

    /// Removes a member and sends UNREGISTER_CLIENT to every broker that may list it: one that got a heartbeat with it,
    /// answered or not. Returns those that have not confirmed by `deadline`; the request goes to them also when no time
    /// is left to wait for its answer: a member that is listed and gone leaves its queues unread for up to two minutes.
    pub(crate) fn part(self: &Arc<Self>, id: MemberId, deadline: Instant) -> Vec<String> {
        let Some(member) = self.members.write().remove(&id) else { return Vec::new() };
        let (confirm, confirmed) = unbounded();
        // A heartbeat that still waits for its connection has left no trace; if it leaves later, the outcome of it is
        // followed by a farewell.
        let naming = self.heartbeats.naming(id).into_iter().filter(|address| self.remoting.is_connected(address));
        let mut missing: BTreeSet<Arc<str>> = naming.collect();
        for address in &missing {
            let answer_by = deadline.max(self.request_deadline());
            let farewell = Farewell { id, key: member.key(), answer_by, confirm: Some(confirm.clone()) };
            self.begin_farewell(address, farewell);
        }
        drop(confirm);
        while let Ok(broker) = confirmed.recv_deadline(patience(deadline)) {
            missing.remove(&broker);
        }
        missing.iter().map(ToString::to_string).collect()
    }

    pub(crate) fn members(&self) -> Vec<Arc<dyn Member>> {
        self.members.read().values().cloned().collect()
    }

    /// The living member that brokers know by `key`.
    pub(crate) fn member(&self, key: &MemberKey) -> Option<Arc<dyn Member>> {
        self.members.read().values().find(|member| member.key() == *key).cloned()
    }

    pub(crate) fn is_member(&self, id: MemberId) -> bool {
        self.members.read().contains_key(&id)
    }

    /// Fails in a child of the process that made the client.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.identity.is_forked() {
            return Err(Error::new(
                ErrorKind::Forked,
                "the process was forked after this client was made: make a new one in the child",
            ));
        }
        Ok(())
    }

    /// Fails also once a thread of the client has died.
    pub(crate) fn check_usable(&self) -> Result<()> {
        self.check_process()?;
        self.threads.health().check()
    }

    /// Why the client is broken, for reports.
    pub(crate) fn broken(&self) -> Option<String> {
        self.threads.health().cause().map(ToString::to_string)
    }

    /// Ends what a client can no longer do after the death of one of its threads: everything pending is completed, the
    /// connections are closed, so that brokers give its queues to other members, and its members begin nothing more.
    /// Runs on the thread that died.
    fn end_broken(&self) {
        self.remoting.close();
        for member in self.members() {
            member.client_broke();
        }
        self.changed();
    }

    /// The deadline of a request of the client's own.
    pub(crate) fn request_deadline(&self) -> Instant {
        Instant::now() + self.config.request_timeout
    }

    /// Tells those who wait in [`Core::wait_for`] to look again.
    pub(crate) fn changed(&self) {
        self.changes.tell();
    }

    /// Waits until `ready` says so, looking after each change; `false` at the deadline, on a service thread
    /// at once, and when the client breaks.
    pub(crate) fn wait_for(&self, deadline: Instant, mut ready: impl FnMut() -> bool) -> bool {
        let is_broken = || self.threads.health().cause().is_some();
        self.changes.wait_for(patience(deadline), || is_broken() || ready()) && !is_broken()
    }

    /// What all consumers of this client share; made by the first of them.
    pub(crate) fn consumer_threads<T: Any + Send + Sync>(
        &self,
        make: impl FnOnce() -> Result<Arc<T>>,
    ) -> Result<Arc<T>> {
        let mut slot = self.consumer_threads.lock();
        if let Some(threads) = slot.as_ref().and_then(Weak::upgrade).and_then(|threads| threads.downcast().ok()) {
            return Ok(threads);
        }
        let threads = make()?;
        let shared: Arc<dyn Any + Send + Sync> = Arc::clone(&threads) as _;
        *slot = Some(Arc::downgrade(&shared));
        Ok(threads)
    }

    fn begin_duties(self: &Arc<Self>) {
        self.every(self.config.route_interval, Self::refresh_routes);
        self.every(self.config.heartbeat_interval, Self::heartbeat_to_all);
        self.every(self.config.offset_interval, |core| {
            let now = Instant::now();
            for member in core.members() {
                member.offsets_due(now);
            }
        });
    }

    /// Runs `duty` on the timer again and again while the client lives.
    fn every(self: &Arc<Self>, interval: Duration, duty: fn(&Arc<Self>)) {
        let core = Arc::downgrade(self);
        self.timer.after(interval, move || {
            if let Some(core) = core.upgrade() {
                duty(&core);
                core.every(interval, duty);
            }
        });
    }

    /// Asks anew for the routes of all topics in use, and forgets what belonged to others.
    fn refresh_routes(self: &Arc<Self>) {
        // While the name servers are gone nothing is forgotten: it could not be looked up again.
        if self.routes.take_answered() || self.topics().is_empty() {
            for member in self.members() {
                member.forget_idle_topics();
            }
            self.forget_all_but(&self.topics());
        }
        for topic in &self.topics() {
            self.refresh_route(topic);
        }
    }

    /// The topics that members use.
    fn topics(&self) -> BTreeSet<Arc<str>> {
        self.members().iter().flat_map(|member| member.topics()).collect()
    }

    /// Forgets routes of topics that no member uses any more, and brokers that only they named: those get no heartbeats
    /// and are not dialled again.
    fn forget_all_but(&self, topics: &BTreeSet<Arc<str>>) {
        let now = Instant::now();
        self.routes.forget_all_but(topics);
        self.heartbeats.retain(&self.routes.broker_addresses(true));
        self.suspected.lock().retain(|_, last| now.duration_since(*last) < SUSPICION_INTERVAL);
        self.remoting.forget_unused(now);
    }

    /// Asks anew for a route that may be what made a request fail; not more often than makes sense.
    pub(crate) fn refresh_suspected_route(self: &Arc<Self>, topic: &Arc<str>) {
        let now = Instant::now();
        {
            let mut suspected = self.suspected.lock();
            match suspected.get(topic) {
                Some(last) if now.duration_since(*last) < SUSPICION_INTERVAL => return,
                _ => suspected.insert(Arc::clone(topic), now),
            };
        }
        self.refresh_route(topic);
    }

    /// Asks anew for one route, in the background.
    pub(crate) fn refresh_route(self: &Arc<Self>, topic: &Arc<str>) {
        let core = Arc::downgrade(self);
        self.routes.refresh(
            topic,
            self.request_deadline(),
            Box::new(move |_| {
                if let Some(core) = core.upgrade() {
                    core.changed();
                }
            }),
        );
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Hands changes of routes to heartbeats and members.
struct TellMembers {
    core: Weak<Core>,
}

impl RouteWatcher for TellMembers {
    fn route_changed(&self, route: &Arc<TopicRoute>) {
        let Some(core) = self.core.upgrade() else { return };
        core.heartbeat_to_new(route);
        for member in core.members() {
            member.route_changed(route);
        }
        core.changed();
    }
}

/// Lets callers wait for "something has changed" without polling.
#[derive(Debug, Default)]
struct Changes {
    count: Mutex<u64>,
    more: Condvar,
}

impl Changes {
    fn tell(&self) {
        *self.count.lock() += 1;
        self.more.notify_all();
    }

    fn wait_for(&self, deadline: Instant, mut ready: impl FnMut() -> bool) -> bool {
        loop {
            let seen = *self.count.lock();
            // Looked at without the lock: a change that comes meanwhile has raised the count.
            if ready() {
                return true;
            }
            let mut count = self.count.lock();
            while *count == seen {
                if self.more.wait_until(&mut count, deadline).timed_out() {
                    drop(count);
                    // What came in the last moment counts.
                    return ready();
                }
            }
        }
    }
}

/// Either a client given from outside or the options of one to be made: what builders of members hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientChoice {
    given: Option<Client>,
    own: Option<Box<ClientConfig>>,
}

impl ClientChoice {
    pub(crate) fn give(&mut self, client: &Client) {
        self.given = Some(client.clone());
    }

    pub(crate) fn own(&mut self) -> &mut ClientConfig {
        self.own.get_or_insert_default()
    }

    /// The client to use.
    pub(crate) fn take(self) -> Result<Client> {
        match (self.given, self.own) {
            (Some(_), Some(_)) => Err(invalid(
                "client() is given together with options of a client (name_servers and others): set those on the client",
            )),
            (Some(client), None) => {
                client.core().check_usable()?;
                Ok(client)
            }
            (None, own) => Client::start(own.map_or_else(ClientConfig::default, |config| *config)),
        }
    }
}
