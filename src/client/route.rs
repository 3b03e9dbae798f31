//! Topic routes: which brokers and queues a topic has, asked of the name servers in turn, kept and refreshed.
//!
//! A look-up is asynchronous and shared: whoever asks for the same topic meanwhile waits for the same answer. It runs on
//! `rmq-remoting` (its replies) and on whichever thread began it; nothing here blocks but [`Routes::wait`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use log::{debug, info, warn};
use parking_lot::{Mutex, RwLock};

use super::config::AddressMap;
use crate::error::{Error, ErrorKind, Result};
use crate::message::MessageQueue;
use crate::name_map::NameMap;
use crate::remoting::{Completion, Outcome, Remoting, Request};
use crate::wire::body::{BrokerData, MASTER_ID, TopicRouteData};
use crate::wire::header::GetRouteInfoRequest;
use crate::wire::name::CREATE_TOPIC_KEY;
use crate::wire::{RequestCode, ResponseCode};

/// Queues that a topic gets that is created so. (Java: `defaultTopicQueueNums`)
pub(crate) const AUTO_CREATE_QUEUES: i32 = 4;

/// One name server gets this share of what is left of a look-up's time while there are others to ask.
const SHARE_OF_TIME: u32 = 3;
const SHORTEST_SHARE: Duration = Duration::from_millis(200);

/// Where a topic's queues are, made for looking things up; never changed, only replaced.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TopicRoute {
    pub(crate) topic: Arc<str>,
    /// Queues that can be written, with their masters' addresses.
    pub(crate) publish: Vec<PublishQueue>,
    /// Queues that can be read.
    pub(crate) subscribe: Vec<MessageQueue>,
    pub(crate) brokers: Vec<Broker>,
    /// The topic does not exist yet; these are the queues it would get.
    pub(crate) to_be_created: bool,
}

/// A queue to write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishQueue {
    pub(crate) queue: MessageQueue,
    pub(crate) address: Arc<str>,
}

/// A broker and its copies: 0 is the master, greater numbers are slaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broker {
    pub(crate) name: Arc<str>,
    pub(crate) addresses: Vec<(i64, Arc<str>)>,
}

impl Broker {
    pub(crate) fn master(&self) -> Option<&Arc<str>> {
        self.addresses.iter().find(|(id, _)| *id == MASTER_ID).map(|(_, address)| address)
    }

    /// The copy `id`, else the next slave, else any: what the Java client's `findBrokerAddressInSubscribe` does.
    pub(crate) fn copy(&self, id: i64) -> Option<&Arc<str>> {
        let exact = |wanted| self.addresses.iter().find(|(id, _)| *id == wanted);
        let slave = || if id == MASTER_ID { None } else { exact(id + 1) };
        exact(id).or_else(slave).or_else(|| self.addresses.first()).map(|(_, address)| address)
    }
}

impl TopicRoute {
    fn new(topic: &Arc<str>, data: &TopicRouteData, map: Option<&AddressMap>) -> Self {
        let brokers = brokers_of(data, map);
        let master = |queue: &MessageQueue| brokers.iter().find(|broker| broker.name == queue.broker_name)?.master();
        let publish = data.write_queues(topic).into_iter().filter_map(|queue| {
            let address = Arc::clone(master(&queue)?);
            Some(PublishQueue { queue, address })
        });
        let publish = publish.collect();
        Self { topic: Arc::clone(topic), publish, subscribe: data.read_queues(topic), brokers, to_be_created: false }
    }

    /// The queues that `topic` would get where the route of [`CREATE_TOPIC_KEY`] leads.
    fn to_be_created(topic: &Arc<str>, mut data: TopicRouteData, map: Option<&AddressMap>) -> Self {
        for queue_data in &mut data.queue_datas {
            let queues = queue_data.read_queue_nums.min(AUTO_CREATE_QUEUES);
            queue_data.read_queue_nums = queues;
            queue_data.write_queue_nums = queues;
        }
        Self { to_be_created: true, ..Self::new(topic, &data, map) }
    }

    pub(crate) fn broker(&self, name: &str) -> Option<&Broker> {
        self.brokers.iter().find(|broker| *broker.name == *name)
    }
}

fn brokers_of(data: &TopicRouteData, map: Option<&AddressMap>) -> Vec<Broker> {
    let brokers = data.broker_datas.iter().map(|broker| {
        let mut addresses: Vec<(i64, Arc<str>)> = broker
            .broker_addrs
            .iter()
            .map(|(id, address)| (*id, map.map_or_else(|| Arc::from(&**address), |map| Arc::from(map(address)))))
            .collect();
        addresses.sort();
        Broker { name: Arc::from(&*broker.broker_name), addresses }
    });
    brokers.collect()
}

/// What is told about changes. Called on `rmq-remoting` and callers' threads: must not block.
pub(crate) trait RouteWatcher: Send + Sync {
    /// The route of a topic is known for the first time, or differs from what was known.
    fn route_changed(&self, route: &Arc<TopicRoute>);
}

/// Runs with a look-up's answer.
type RouteWaiter = Box<dyn FnOnce(Result<Arc<TopicRoute>>) + Send>;

/// The routes that one client knows, and the way to more.
pub(crate) struct Routes {
    remoting: Remoting,
    name_servers: Vec<Arc<str>>,
    /// The name server that answered last.
    current: AtomicUsize,
    address_map: Option<Arc<AddressMap>>,
    known: RwLock<NameMap<Arc<TopicRoute>>>,
    looked_up: Mutex<NameMap<Vec<RouteWaiter>>>,
    watcher: Box<dyn RouteWatcher>,
}

impl Routes {
    pub(crate) fn new(
        remoting: Remoting,
        name_servers: Vec<Arc<str>>,
        address_map: Option<Arc<AddressMap>>,
        watcher: Box<dyn RouteWatcher>,
    ) -> Self {
        Self {
            remoting,
            name_servers,
            current: AtomicUsize::new(0),
            address_map,
            known: RwLock::default(),
            looked_up: Mutex::default(),
            watcher,
        }
    }

    /// The route that is known; may be out of date by the route interval.
    pub(crate) fn known(&self, topic: &str) -> Option<Arc<TopicRoute>> {
        self.known.read().get(topic).cloned()
    }

    /// The addresses of all brokers in known routes, masters only or slaves too.
    pub(crate) fn broker_addresses(&self, with_slaves: bool) -> BTreeSet<Arc<str>> {
        let known = self.known.read();
        let addresses = known.values().flat_map(|route| &route.brokers).flat_map(|broker| &broker.addresses);
        addresses.filter(|(id, _)| with_slaves || *id == MASTER_ID).map(|(_, address)| Arc::clone(address)).collect()
    }

    /// The addresses of all brokers in known routes, by their names.
    pub(crate) fn addresses_by_name(&self) -> BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
        let known = self.known.read();
        let mut by_name: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for broker in known.values().flat_map(|route| &route.brokers) {
            let addresses = broker.addresses.iter().map(|(_, address)| Arc::clone(address));
            by_name.entry(Arc::clone(&broker.name)).or_default().extend(addresses);
        }
        by_name
    }

    /// The master of a broker by its name, from any topic's route.
    pub(crate) fn master_of(&self, broker_name: &str) -> Option<Arc<str>> {
        let known = self.known.read();
        known.values().find_map(|route| route.broker(broker_name)?.master().cloned())
    }

    /// The names of the brokers whose master is at `address`, by any topic's route.
    pub(crate) fn brokers_at(&self, address: &str) -> BTreeSet<Arc<str>> {
        let known = self.known.read();
        let brokers = known.values().flat_map(|route| &route.brokers);
        let here = brokers.filter(|broker| broker.master().is_some_and(|master| **master == *address));
        here.map(|broker| Arc::clone(&broker.name)).collect()
    }

    /// A known route to publish to, else the answer of the name servers, waited for until `deadline`. A topic that does
    /// not exist has the queues that it would be created with, where brokers create topics.
    pub(crate) fn wait(self: &Arc<Self>, topic: &Arc<str>, deadline: Instant) -> Result<Arc<TopicRoute>> {
        if let Some(route) = self.known(topic).filter(|route| !route.publish.is_empty()) {
            return Ok(route);
        }
        let (answer, answered) = bounded(1);
        self.look_up_to_publish(topic, deadline, Box::new(move |route| drop(answer.send(route))));
        answered.recv_deadline(deadline).unwrap_or_else(|_| Err(self.unheard(topic)))
    }

    /// What a caller is told whose deadline passes before the look-up ends, which may be that of another caller.
    fn unheard(&self, topic: &str) -> Error {
        let servers = self.name_servers.join(";");
        let detail = format!("the deadline passed before a name server of {servers} told the route of topic {topic}");
        Error::new(ErrorKind::NameServer, detail)
    }

    /// Asks for a route to publish to.
    pub(crate) fn look_up_to_publish(self: &Arc<Self>, topic: &Arc<str>, deadline: Instant, waiter: RouteWaiter) {
        let routes = Arc::clone(self);
        let wanted = Arc::clone(topic);
        self.look_up(
            topic,
            deadline,
            Box::new(move |route| match route {
                Err(error) if error.kind() == ErrorKind::NoRoute => {
                    routes.look_up_to_create(&wanted, deadline, error, waiter)
                }
                route => waiter(route),
            }),
        );
    }

    /// Asks the name servers for the route of `topic`, or joins the others who wait for it already.
    pub(crate) fn look_up(self: &Arc<Self>, topic: &Arc<str>, deadline: Instant, waiter: RouteWaiter) {
        {
            let mut looked_up = self.looked_up.lock();
            let waiters = looked_up.entry(Arc::clone(topic)).or_default();
            waiters.push(waiter);
            if waiters.len() > 1 {
                return;
            }
        }
        let routes = Arc::clone(self);
        let answered = Box::new(move |lookup: &Lookup, data| routes.answered(lookup, data));
        Lookup::new(self, topic, deadline, answered).ask();
    }

    fn answered(&self, lookup: &Lookup, data: Result<TopicRouteData>) {
        let topic = &lookup.topic;
        let result = data.map(|data| self.keep(TopicRoute::new(topic, &data, self.address_map.as_deref())));
        let waiters = self.looked_up.lock().remove(topic).unwrap_or_default();
        for waiter in waiters {
            waiter(result.clone());
        }
    }

    fn look_up_to_create(self: &Arc<Self>, topic: &Arc<str>, deadline: Instant, unknown: Error, waiter: RouteWaiter) {
        let routes = Arc::clone(self);
        let wanted = Arc::clone(topic);
        let answered = Box::new(move |_: &Lookup, data: Result<TopicRouteData>| {
            waiter(match data {
                Ok(data) => {
                    debug!("topic {wanted} does not exist yet; the first message will create it");
                    let route = TopicRoute::to_be_created(&wanted, data, routes.address_map.as_deref());
                    Ok(routes.keep(route))
                }
                // Nobody creates topics: what was wrong is still that the topic does not exist.
                Err(error) if error.kind() == ErrorKind::NoRoute => Err(unknown),
                Err(error) => Err(error),
            });
        });
        Lookup::new(self, &Arc::from(CREATE_TOPIC_KEY), deadline, answered).ask();
    }

    /// Keeps a route that is new or has changed; a route is only ever replaced by another one, never by a failure.
    fn keep(&self, route: TopicRoute) -> Arc<TopicRoute> {
        let route = Arc::new(route);
        {
            let mut known = self.known.write();
            match known.get(&route.topic) {
                Some(old) if *old == route => return Arc::clone(old),
                // A topic that exists is not forgotten because a name server has not heard of it yet.
                Some(old) if route.to_be_created && !old.to_be_created => return Arc::clone(old),
                _ => known.insert(Arc::clone(&route.topic), Arc::clone(&route)),
            };
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
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("name_servers", &self.name_servers).finish_non_exhaustive()
    }
}

type Answered = Box<dyn FnOnce(&Lookup, Result<TopicRouteData>) + Send>;

/// One question to the name servers, in turn until one knows.
///
/// A server that does not answer costs at most a share of the time; that a topic does not exist counts only when every
/// server that answers says so.
struct Lookup {
    remoting: Remoting,
    name_servers: Vec<Arc<str>>,
    routes: Arc<Routes>,
    topic: Arc<str>,
    deadline: Instant,
    first: usize,
    asked: usize,
    unknown: Option<Error>,
    failed: Option<Error>,
    answered: Option<Answered>,
}

impl Lookup {
    fn new(routes: &Arc<Routes>, topic: &Arc<str>, deadline: Instant, answered: Answered) -> Box<Self> {
        Box::new(Self {
            remoting: routes.remoting.clone(),
            name_servers: routes.name_servers.clone(),
            routes: Arc::clone(routes),
            topic: Arc::clone(topic),
            deadline,
            first: routes.current.load(Ordering::Relaxed),
            asked: 0,
            unknown: None,
            failed: None,
            answered: Some(answered),
        })
    }

    fn ask(self: Box<Self>) {
        let now = Instant::now();
        if self.asked == self.name_servers.len() || now >= self.deadline {
            return self.give_up();
        }
        let Some(server) = self.name_servers.get(self.current()).cloned() else {
            return self.give_up();
        };
        let left = self.deadline - now;
        // Time is kept for whoever comes next: another server, or the look-up of what an unknown topic would get.
        let others = self.asked + 1 < self.name_servers.len() || self.unknown.is_some();
        let limit = if others { now + (left / SHARE_OF_TIME).max(SHORTEST_SHARE).min(left) } else { self.deadline };
        let remoting = self.remoting.clone();
        let topic = Arc::clone(&self.topic);
        let header = GetRouteInfoRequest { topic: &topic, accept_standard_json_only: Some(true) };
        let request = Request::new(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header);
        let completion = Completion::new({
            let server = Arc::clone(&server);
            move |outcome| self.heard(&server, outcome)
        });
        remoting.invoke_async(&server, request, limit, completion);
    }

    fn heard(mut self: Box<Self>, server: &Arc<str>, outcome: Outcome) {
        match read_answer(server, outcome) {
            Ok(data) => {
                self.prefer_current();
                return self.finish(Ok(data));
            }
            Err(error) if error.kind() == ErrorKind::NoRoute => {
                // It answers, which those before it did not.
                if self.unknown.is_none() {
                    self.prefer_current();
                }
                self.unknown = Some(error);
            }
            // The client was shut down: nobody else needs to be asked.
            Err(error) if error.kind() == ErrorKind::NotRunning => return self.finish(Err(error)),
            Err(error) => self.failed = Some(error),
        }
        self.asked += 1;
        self.ask();
    }

    /// The index of the server that is being asked.
    fn current(&self) -> usize {
        (self.first + self.asked) % self.name_servers.len().max(1)
    }

    /// Later look-ups begin with the server that is being asked.
    fn prefer_current(&self) {
        self.routes.current.store(self.current(), Ordering::Relaxed);
    }

    fn give_up(mut self: Box<Self>) {
        let error = match (self.unknown.take(), self.failed.take()) {
            (Some(unknown), _) => {
                Error::new(ErrorKind::NoRoute, format!("topic {} has no route: {}", self.topic, unknown.detail()))
            }
            (None, Some(failed)) => Error::new(
                ErrorKind::NameServer,
                format!("no name server of {} answered; the last: {failed}", self.name_servers.join(";")),
            ),
            (None, None) => self.routes.unheard(&self.topic),
        };
        self.finish(Err(error));
    }

    fn finish(mut self: Box<Self>, result: Result<TopicRouteData>) {
        if let Some(answered) = self.answered.take() {
            answered(&self, result);
        }
    }
}

/// A name server's answer: a route that has brokers, or why there is none.
fn read_answer(server: &Arc<str>, outcome: Outcome) -> Result<TopicRouteData> {
    let response = outcome.map_err(Error::from)?;
    match response.response_code() {
        ResponseCode::SUCCESS => {}
        code @ ResponseCode::TOPIC_NOT_EXIST => {
            let refusal = Error::refused(code, response.remark.as_deref(), server);
            return Err(Error::new(ErrorKind::NoRoute, refusal.detail()).with_address(server));
        }
        code => return Err(Error::refused(code, response.remark.as_deref(), server)),
    }
    let data = TopicRouteData::decode(&response.body).map_err(|error| {
        warn!("name server {server} sent a route that cannot be read: {error}");
        Error::new(ErrorKind::Protocol, format!("the route cannot be read: {error}")).with_address(server)
    })?;
    if !leads_somewhere(&data) {
        return Err(Error::new(ErrorKind::NoRoute, "the route has no broker").with_address(server));
    }
    Ok(data)
}

/// Whether there is a queue on a broker that has an address. Anything else is not believed, and so replaces no route.
fn leads_somewhere(data: &TopicRouteData) -> bool {
    data.queue_datas.iter().any(|queues| {
        let is_its_broker = |broker: &&BrokerData| broker.broker_name == queues.broker_name;
        data.broker_datas.iter().find(is_its_broker).is_some_and(|broker| !broker.broker_addrs.is_empty())
    })
}
