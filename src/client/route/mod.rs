//! Topic routes: brokers and queues of each topic, cached and refreshed while the topic is in use.
//!
//! A look-up is asynchronous and shared (`lookup.rs`). It continues on `rmq-remoting` and `rmq-timer`, and begins on
//! any thread; nothing here blocks but [`Routes::wait`].

mod lookup;
mod topic;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::bounded;
use parking_lot::{Mutex, RwLock};

use self::topic::BrokerAddresses;
pub(crate) use self::topic::{AUTO_CREATE_QUEUES, PublishQueue, TopicRoute};
use super::timer::Timer;
use crate::client::route::lookup::{Joined, LookUps, RouteQuestion};
use crate::error::{Error, ErrorKind, Result};
use crate::logging::{debug, info};
use crate::message::MessageQueue;
use crate::name_map::NameMap;
use crate::remoting::Remoting;
use crate::wire::body::{MASTER_ID, TopicRouteData};
use crate::wire::name::CREATE_TOPIC_KEY;
use crate::worker::check_may_wait;

/// Brokers that a topic has left are remembered, so that offsets of its queues there can still be stored; so many of them.
const FORMER_BROKERS: usize = 16;

/// Receiver of route changes. Called on `rmq-remoting` and callers' threads: must not block.
pub(crate) trait RouteWatcher: Send + Sync {
    /// The route of a topic is known for the first time, or differs from what was known.
    fn route_changed(&self, route: &Arc<TopicRoute>);
}

/// Runs with a look-up's answer.
pub(crate) type RouteWaiter = Box<dyn FnOnce(Result<Arc<TopicRoute>>) + Send>;

/// Cache of the routes of one client, with the look-ups that fill it.
pub(crate) struct Routes {
    remoting: Remoting,
    timer: Timer,
    name_servers: Vec<Arc<str>>,
    /// The name server that answered last.
    current: AtomicUsize,
    /// One has answered since routes were last forgotten.
    is_answered: AtomicBool,
    known: RwLock<NameMap<KnownRoute>>,
    looked_up: Mutex<LookUps>,
    /// Topics that do not exist and have waiting senders, while the name servers are asked for the queues of new
    /// topics. Each with the error for the case that topics are not created.
    creating: Mutex<Vec<(Arc<str>, Error)>>,
    watcher: Box<dyn RouteWatcher>,
}

/// A route, and what it was before.
struct KnownRoute {
    route: Arc<TopicRoute>,
    /// Brokers that an earlier route named and this one does not.
    former: Vec<BrokerAddresses>,
    /// A caller has asked for it since routes were last forgotten.
    is_asked_for: AtomicBool,
}

impl KnownRoute {
    fn note_use(&self) {
        // Nearly always noted already: a look disturbs no other thread's cache.
        if !self.is_asked_for.load(Ordering::Relaxed) {
            self.is_asked_for.store(true, Ordering::Relaxed);
        }
    }

    /// The topic's brokers of this name, the present one first.
    fn brokers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a BrokerAddresses> {
        self.route.brokers.iter().chain(&self.former).filter(move |broker| *broker.name == *name)
    }

    fn replaced_by(&self, route: &TopicRoute) -> Vec<BrokerAddresses> {
        let before = self.route.brokers.iter().chain(&self.former);
        before.filter(|broker| route.broker(&broker.name).is_none()).take(FORMER_BROKERS).cloned().collect()
    }
}

impl Routes {
    pub(crate) fn new(
        remoting: Remoting,
        timer: Timer,
        name_servers: Vec<Arc<str>>,
        watcher: Box<dyn RouteWatcher>,
    ) -> Self {
        Self {
            remoting,
            timer,
            name_servers,
            current: AtomicUsize::new(0),
            is_answered: AtomicBool::new(false),
            known: RwLock::default(),
            looked_up: Mutex::default(),
            creating: Mutex::default(),
            watcher,
        }
    }

    /// The route that is known; may be out of date by the route interval.
    pub(crate) fn known(&self, topic: &str) -> Option<Arc<TopicRoute>> {
        self.known.read().get(topic).map(|known| Arc::clone(&known.route))
    }

    /// The addresses of all brokers in known routes, masters only or slaves too.
    pub(crate) fn broker_addresses(&self, with_slaves: bool) -> BTreeSet<Arc<str>> {
        let known = self.known.read();
        let brokers = known.values().flat_map(|known| &known.route.brokers);
        let addresses = brokers.flat_map(|broker| &broker.addresses);
        addresses.filter(|(id, _)| with_slaves || *id == MASTER_ID).map(|(_, address)| Arc::clone(address)).collect()
    }

    /// The addresses of all brokers in known routes, by their names.
    pub(crate) fn addresses_by_name(&self) -> BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
        let known = self.known.read();
        let mut by_name: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for broker in known.values().flat_map(|known| &known.route.brokers) {
            let addresses = broker.addresses.iter().map(|(_, address)| Arc::clone(address));
            by_name.entry(Arc::clone(&broker.name)).or_default().extend(addresses);
        }
        by_name
    }

    /// The master of a queue's broker, by the route of the queue's topic alone: brokers of two clusters may have one name.
    pub(crate) fn master_of(&self, queue: &MessageQueue) -> Option<Arc<str>> {
        let known = self.known.read();
        known.get(&queue.topic)?.brokers(&queue.broker_name).find_map(BrokerAddresses::master).cloned()
    }

    /// The names of the brokers of these topics whose master is at `address`.
    pub(crate) fn brokers_at(&self, address: &str, topics: &[Arc<str>]) -> BTreeSet<Arc<str>> {
        let known = self.known.read();
        let of_topics = topics.iter().filter_map(|topic| known.get(topic));
        let brokers = of_topics.flat_map(|known| known.route.brokers.iter().chain(&known.former));
        let here = brokers.filter(|broker| broker.master().is_some_and(|master| **master == *address));
        here.map(|broker| Arc::clone(&broker.name)).collect()
    }

    /// Removes the routes of topics that are not `in_use` and were not looked up since the last call.
    pub(crate) fn forget_all_but(&self, in_use: &BTreeSet<Arc<str>>) {
        self.known.write().retain(|topic, known| {
            let is_asked_for = std::mem::take(known.is_asked_for.get_mut());
            is_asked_for || in_use.contains(topic)
        });
    }

    /// A known route to publish to, else the answer of the name servers, waited for until `deadline`. A topic that does
    /// not exist has the queues that it would be created with, where brokers create topics.
    pub(crate) fn wait(self: &Arc<Self>, topic: &Arc<str>, deadline: Instant) -> Result<Arc<TopicRoute>> {
        if let Some(known) = self.known.read().get(topic).filter(|known| !known.route.publish.is_empty()) {
            known.note_use();
            return Ok(Arc::clone(&known.route));
        }
        check_may_wait("waiting for a route")?;
        let (answer, answered) = bounded(1);
        self.look_up_to_publish(topic, deadline, Box::new(move |route| drop(answer.send(route))));
        answered.recv_deadline(deadline).unwrap_or_else(|_| Err(self.unheard(topic)))
    }

    /// Error of a caller whose deadline passes before the look-up ends.
    pub(crate) fn unheard(&self, topic: &str) -> Error {
        let servers = self.name_servers.join(";");
        let detail = format!("the deadline passed before a name server of {servers} told the route of topic {topic}");
        Error::new(ErrorKind::NameServer, detail)
    }

    /// Asks for a route to publish to.
    pub(crate) fn look_up_to_publish(self: &Arc<Self>, topic: &Arc<str>, deadline: Instant, waiter: RouteWaiter) {
        self.look_up(topic, true, deadline, waiter);
    }

    /// Fetches the route of a topic again. For a topic that does not exist yet but has been sent to, also the queues
    /// that it would get: the broker that was to create it may have moved.
    pub(crate) fn refresh(self: &Arc<Self>, topic: &Arc<str>, deadline: Instant, waiter: RouteWaiter) {
        let is_guessed = self.known.read().get(topic).is_some_and(|known| known.route.to_be_created);
        self.look_up(topic, is_guessed, deadline, waiter);
    }

    fn look_up(self: &Arc<Self>, topic: &Arc<str>, to_publish: bool, deadline: Instant, waiter: RouteWaiter) {
        let Joined { is_first, watch } =
            self.looked_up.lock().join(topic, to_publish, deadline, Instant::now(), waiter);
        if let Some(due) = watch {
            self.watch(topic, due);
        }
        if is_first {
            self.ask(topic, deadline);
        }
    }

    /// Ends the wait of callers whose deadline passes before the answer.
    fn watch(self: &Arc<Self>, topic: &Arc<str>, due: Instant) {
        let routes = Arc::downgrade(self);
        let topic = Arc::clone(topic);
        self.timer.at(due, move || {
            let Some(routes) = routes.upgrade() else { return };
            let (late, next) = routes.looked_up.lock().expire(&topic, due, Instant::now());
            tell(late, &Err(routes.unheard(&topic)));
            if let Some(next) = next {
                routes.watch(&topic, next);
            }
        });
    }

    fn ask(self: &Arc<Self>, topic: &Arc<str>, deadline: Instant) {
        let routes = Arc::clone(self);
        let answered = Box::new(move |question: &RouteQuestion, data| routes.answered(question, data));
        RouteQuestion::new(self, topic, deadline, answered).ask();
    }

    fn answered(self: &Arc<Self>, question: &RouteQuestion, data: Result<TopicRouteData>) {
        let topic = &question.topic;
        match data {
            Ok(data) => self.found(TopicRoute::new(topic, &data)),
            Err(error) if error.kind() == ErrorKind::NoRoute => {
                let ended = self.looked_up.lock().end_if_nobody_sends(topic);
                match ended {
                    Some(waiters) => tell(waiters, &Err(error)),
                    None => self.ask_how_it_would_be_created(question, error),
                }
            }
            Err(error) => self.failed(topic, question.deadline, &error),
        }
    }

    /// Asks for the queues that a missing topic would get. All such topics share one question.
    fn ask_how_it_would_be_created(self: &Arc<Self>, question: &RouteQuestion, unknown: Error) {
        let is_first = {
            let mut creating = self.creating.lock();
            creating.push((Arc::clone(&question.topic), unknown));
            creating.len() == 1
        };
        if is_first {
            let routes = Arc::clone(self);
            let answered = Box::new(move |question: &RouteQuestion, data| routes.would_be_created(question, &data));
            RouteQuestion::new(self, &Arc::from(CREATE_TOPIC_KEY), question.deadline, answered).ask();
        }
    }

    fn would_be_created(self: &Arc<Self>, question: &RouteQuestion, data: &Result<TopicRouteData>) {
        let creating = std::mem::take(&mut *self.creating.lock());
        for (topic, unknown) in creating {
            match data {
                Ok(data) => {
                    debug!("route of {topic}: topic does not exist yet; the first message creates it");
                    self.found(TopicRoute::to_be_created(&topic, data.clone()));
                }
                // Topics are not created: the error remains that the topic does not exist.
                Err(error) if error.kind() == ErrorKind::NoRoute => {
                    self.forget_guess(&topic);
                    let waiters = self.looked_up.lock().end(&topic);
                    tell(waiters, &Err(unknown));
                }
                Err(error) => self.failed(&topic, question.deadline, error),
            }
        }
    }

    fn found(&self, route: TopicRoute) {
        let route = self.keep(route);
        let waiters = self.looked_up.lock().end(&route.topic);
        tell(waiters, &Ok(route));
    }

    /// A question has failed. If its asker's time ran out, other waiters may have time left.
    fn failed(self: &Arc<Self>, topic: &Arc<str>, deadline: Instant, error: &Error) {
        let now = Instant::now();
        if error.kind() != ErrorKind::NameServer || now < deadline {
            let waiters = self.looked_up.lock().end(topic);
            return tell(waiters, &Err(error.clone()));
        }
        let (late, again) = self.looked_up.lock().out_of_time(topic, now);
        tell(late, &Err(error.clone()));
        if let Some(deadline) = again {
            self.ask(topic, deadline);
        }
    }

    /// Keeps a route that is new or has changed; the route of a topic that exists is only ever replaced by another one,
    /// never by a failure.
    fn keep(&self, route: TopicRoute) -> Arc<TopicRoute> {
        let route = Arc::new(route);
        {
            let mut known = self.known.write();
            let old = known.get(&route.topic);
            if let Some(old) = old
                // A topic that exists is not forgotten because a name server has not heard of it yet.
                && (*old.route == *route || (route.to_be_created && !old.route.to_be_created))
            {
                return Arc::clone(&old.route);
            }
            let former = old.map_or_else(Vec::new, |old| old.replaced_by(&route));
            let is_asked_for = AtomicBool::new(true);
            known.insert(Arc::clone(&route.topic), KnownRoute { route: Arc::clone(&route), former, is_asked_for });
        }
        info!(
            "route of {}: {} queues to write, {} to read, on {} brokers",
            route.topic,
            route.publish.len(),
            route.subscribe.len(),
            route.brokers.len()
        );
        self.watcher.route_changed(&route);
        route
    }

    /// Removes the route of a topic that would not be created any more.
    fn forget_guess(&self, topic: &str) {
        let mut known = self.known.write();
        if known.get(topic).is_some_and(|known| known.route.to_be_created) {
            known.remove(topic);
        }
    }

    pub(crate) fn remoting(&self) -> &Remoting {
        &self.remoting
    }

    pub(crate) fn name_servers(&self) -> &[Arc<str>] {
        &self.name_servers
    }

    /// The index of the name server that answered last.
    pub(crate) fn current_server(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// The name server `index` has answered.
    pub(crate) fn note_answer(&self, index: usize) {
        self.current.store(index, Ordering::Relaxed);
        self.is_answered.store(true, Ordering::Relaxed);
    }

    /// True if a name server has answered since the last call.
    pub(crate) fn take_answered(&self) -> bool {
        self.is_answered.swap(false, Ordering::Relaxed)
    }
}

/// Hands a look-up's answer to those who waited for it. Not to be called under a lock.
fn tell(waiters: Vec<RouteWaiter>, answer: &Result<Arc<TopicRoute>>) {
    for waiter in waiters {
        waiter(answer.clone());
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("name_servers", &self.name_servers).finish_non_exhaustive()
    }
}
