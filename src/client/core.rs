//! The parts of a client, shared by its members and its own threads, and its periodic duties.
//!
//! Members and threads hold it; the handle [`Client`](crate::Client) alone keeps the threads running.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use parking_lot::{Condvar, Mutex, RwLock};

use super::callbacks::Callbacks;
use super::config::ClientConfig;
use super::heartbeat::{Farewell, Heartbeats};
use super::identity::Identity;
use super::member::{Member, MemberId, MemberKey};
use super::route::{RouteWatcher, Routes, TopicRoute};
use super::timer::Timer;
use crate::error::{Error, ErrorKind, Result};
use crate::name_map::NameMap;
use crate::remoting::Remoting;
use crate::worker::{Threads, patience};

/// A route that seems wrong is asked for at most this often.
const SUSPICION_INTERVAL: Duration = Duration::from_millis(500);
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
    members: RwLock<LivingMembers>,
    last_member: AtomicU64,
    changes: Changes,
    /// The threads that the consumers of this client share, while there is a consumer.
    consumer_threads: Mutex<Option<Weak<dyn Any + Send + Sync>>>,
    /// When routes were last asked for because something about them seemed wrong.
    suspected: Mutex<NameMap<Instant>>,
}

/// The members of a client that live.
#[derive(Default)]
struct LivingMembers {
    by_id: BTreeMap<MemberId, Arc<dyn Member>>,
    /// The client has been shut down: no member joins any more.
    closed: bool,
}

impl Core {
    /// Makes the parts of a client and begins its duties.
    pub(super) fn new(
        config: ClientConfig,
        identity: Identity,
        threads: Threads,
        remoting: Remoting,
        timer: Timer,
    ) -> Arc<Self> {
        let core = Arc::new_cyclic(|core: &Weak<Self>| Self {
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
        let broken = Arc::downgrade(&core);
        core.threads.health().watch(move || {
            if let Some(core) = broken.upgrade() {
                core.end_broken();
            }
        });
        core.begin_duties();
        core
    }

    /// An identity for a member to be; no other member of this client ever has it.
    pub(crate) fn new_member_id(&self) -> MemberId {
        MemberId(self.last_member.fetch_add(1, Ordering::Relaxed))
    }

    /// Adds a member: brokers hear of it with the next heartbeat, which is sent at once.
    pub(crate) fn join(self: &Arc<Self>, member: Arc<dyn Member>) -> Result<()> {
        {
            let mut members = self.members.write();
            if members.closed {
                return Err(Error::new(ErrorKind::NotRunning, "the client has been shut down"));
            }
            let key = member.key();
            if members.by_id.values().any(|other| other.key() == key) {
                let detail = format!("the client has {key} already: use another client or group");
                return Err(Error::new(ErrorKind::DuplicateGroup, detail));
            }
            members.by_id.insert(member.id(), member);
        }
        self.heartbeat_to_all();
        Ok(())
    }

    /// Removes a member and sends UNREGISTER_CLIENT to every broker that may list it: one that got a heartbeat with it,
    /// answered or not. Returns those that have not confirmed by `deadline`; the request goes to them also when no time
    /// is left to wait for its answer: a member that is listed and gone leaves its queues unread for up to two minutes.
    pub(crate) fn part(self: &Arc<Self>, id: MemberId, deadline: Instant) -> Vec<String> {
        let Some(member) = self.members.write().by_id.remove(&id) else { return Vec::new() };
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

    /// Lets no member join any more, unless one lives; returns those that live, by kind and group.
    pub(super) fn close_to_members(&self) -> Vec<String> {
        let mut members = self.members.write();
        members.closed |= members.by_id.is_empty();
        members.by_id.values().map(|member| member.key().to_string()).collect()
    }

    pub(crate) fn members(&self) -> Vec<Arc<dyn Member>> {
        self.members.read().by_id.values().cloned().collect()
    }

    /// The living member that brokers list under `key`.
    pub(crate) fn member(&self, key: &MemberKey) -> Option<Arc<dyn Member>> {
        self.members.read().by_id.values().find(|member| member.key() == *key).cloned()
    }

    pub(crate) fn is_member(&self, id: MemberId) -> bool {
        self.members.read().by_id.contains_key(&id)
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

    /// Wakes the waiters in [`Core::wait_for`].
    pub(crate) fn changed(&self) {
        self.changes.tell();
    }

    /// Waits until `ready` says so, looking after each change; `false` at the deadline, on a service thread
    /// at once, and when the client breaks.
    pub(crate) fn wait_for(&self, deadline: Instant, mut ready: impl FnMut() -> bool) -> bool {
        let is_broken = || self.threads.health().cause().is_some();
        self.changes.wait_for(patience(deadline), || is_broken() || ready()) && !is_broken()
    }

    /// Threads that all consumers of this client share; the first consumer makes them.
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
                    // A change in the last moment counts.
                    return ready();
                }
            }
        }
    }
}
