//! Load of the fault scenarios: senders of all kinds, with the outcome of each send and of each message.
//!
//! [`storm_while`] sends as long as an action runs; [`settle`] compares outcomes with the consumed messages. Each send
//! has one outcome. Every acknowledged and every stored message is consumed. No message that was reported as not sent
//! is there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rocketmq_sync::{
    Certainty, Client, ClientBuilder, Completions, ConsumeFromWhere, Error, ErrorKind, FilterExpression, Message,
    MessageExt, MessageQueue, Producer, PushConsumer, SendResult,
};

use super::{Cluster, eventually};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Number of queues of the topics of these scenarios, on each broker.
pub(crate) const QUEUES: u32 = 4;

/// Sends in every way, also to `queue` alone, as long as `change` runs. Afterwards every send has an outcome.
pub(crate) fn storm_while(
    producer: &Producer,
    topic: &str,
    queue: Option<MessageQueue>,
    change: impl FnOnce(&Outcomes),
) -> Outcomes {
    heavy_storm_while(producer, topic, queue, 0, change)
}

/// Runs a storm with messages that are larger by `padding` bytes, at most 30,000.
pub(crate) fn heavy_storm_while(
    producer: &Producer,
    topic: &str,
    queue: Option<MessageQueue>,
    padding: usize,
    change: impl FnOnce(&Outcomes),
) -> Outcomes {
    let waiting = std::iter::repeat_n(Way::Waiting, 8);
    let ways = waiting.chain(queue.map(Way::ToQueue)).chain([Way::WithCallbacks, Way::Tracked]);
    storm(producer, topic, padding, ways, change)
}

/// Runs sixteen threads that send and wait.
pub(crate) fn sixteen_threads_while(producer: &Producer, topic: &str, change: impl FnOnce(&Outcomes)) -> Outcomes {
    storm(producer, topic, 0, std::iter::repeat_n(Way::Waiting, 16), change)
}

/// Runs a sending thread for each of these ways until `change` has ended.
fn storm(
    producer: &Producer,
    topic: &str,
    padding: usize,
    ways: impl Iterator<Item = Way>,
    change: impl FnOnce(&Outcomes),
) -> Outcomes {
    let outcomes = Outcomes::default();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let storm = Storm { producer, topic, outcomes: &outcomes, over: &over, padding };
        for way in ways {
            scope.spawn(move || storm.send(way));
        }
        let _stop = StopAtEnd(&over);
        change(&outcomes);
    });
    assert_eq!(outcomes.open(), 0, "sends without an outcome");
    outcomes
}

/// Waits until every stored message is consumed, and compares with the outcomes.
pub(crate) fn settle(cluster: &dyn Cluster, topic: &str, outcomes: &Outcomes, consumed: &Consumed) {
    let stored = outcomes.bodies(Verdict::Stored);
    eventually("every acknowledged message is consumed", || consumed.covers(&stored));
    eventually("everything stored is consumed", || unread(cluster, topic, consumed).is_empty());
    let not_sent = outcomes.bodies(Verdict::Failed(Certainty::NotSent));
    let ghosts: Vec<_> = not_sent.iter().filter(|body| consumed.has(body)).collect();
    assert!(ghosts.is_empty(), "reported as not sent, and stored: {ghosts:?}");
    let strangers = consumed.bodies().into_iter().filter(|body| !outcomes.knows(body)).count();
    assert_eq!(strangers, 0);
}

/// Builds a client that connects to the servers directly.
pub(crate) fn direct_client(cluster: &dyn Cluster) -> Client {
    client(cluster.name_servers().iter().map(ToString::to_string)).start().expect("a client")
}

/// Builds a client with intervals short enough that a test need not wait for the next refresh of routes.
pub(crate) fn client(name_servers: impl IntoIterator<Item = String>) -> ClientBuilder {
    Client::builder()
        .name_servers(name_servers)
        .route_interval(Duration::from_secs(1))
        .rebalance_interval(Duration::from_secs(1))
        .heartbeat_interval(Duration::from_secs(1))
        .offset_interval(Duration::from_secs(1))
}

pub(crate) fn start_consumer(client: &Client, group: &str, topic: &str, consumed: Arc<Consumed>) -> PushConsumer {
    PushConsumer::builder(group)
        .client(client)
        .subscribe(topic, FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .max_cached_messages(64)
        .each(move |message: &MessageExt| consumed.take(message))
        .start()
        .expect("a consumer")
}

/// Shuts the consumer down after it has handled everything, and expects all its queues at their end.
pub(crate) fn end_at_the_end(cluster: &dyn Cluster, consumer: &PushConsumer, group: &str, topic: &str) {
    await_all_queues(cluster, consumer, topic);
    shut_down(consumer);
    assert_offsets_end(cluster, group, topic);
}

fn shut_down(consumer: &PushConsumer) {
    let report = consumer.shutdown(PATIENCE);
    assert!(report.is_clean() && report.messages_left() == 0, "{report:?}");
}

/// Checks that the group is at the end of every queue after a clean shutdown.
fn assert_offsets_end(cluster: &dyn Cluster, group: &str, topic: &str) {
    for (broker, queue) in queues_of(cluster) {
        let end = cluster.max_offset(&broker, topic, queue);
        let committed = cluster.committed_offset(&broker, group, topic, queue).unwrap_or(0);
        assert_eq!(committed, end, "{topic}/{broker}/{queue}");
    }
}

/// Waits until the consumer has every queue of the topic.
pub(crate) fn await_all_queues(cluster: &dyn Cluster, consumer: &PushConsumer, topic: &str) {
    eventually("the consumer has all its queues", || {
        consumer.queues().iter().filter(|queue| *queue.topic() == *topic).count() == queues_of(cluster).len()
    });
}

/// Queues that contain messages the consumer has not handled.
pub(crate) fn unread(cluster: &dyn Cluster, topic: &str, consumed: &Consumed) -> Vec<String> {
    let brokers = cluster.brokers().iter();
    brokers.flat_map(|broker| unread_of(cluster, &broker.name, topic, consumed)).collect()
}

pub(crate) fn unread_of(cluster: &dyn Cluster, broker: &str, topic: &str, consumed: &Consumed) -> Vec<String> {
    let handled = consumed.offsets();
    let is_unread = |queue: &i32| {
        let end = cluster.max_offset(broker, topic, *queue);
        let place = (broker.to_owned(), *queue);
        let offsets = handled.get(&place);
        (0..end).any(|offset| !offsets.is_some_and(|offsets| offsets.contains(&offset)))
    };
    (0..QUEUES.cast_signed()).filter(is_unread).map(|queue| format!("{broker}/{queue}")).collect()
}

fn queues_of(cluster: &dyn Cluster) -> Vec<(String, i32)> {
    let brokers = cluster.brokers().iter();
    brokers.flat_map(|broker| (0..QUEUES.cast_signed()).map(|queue| (broker.name.clone(), queue))).collect()
}

/// Way of sending of one thread of a storm.
#[derive(Clone)]
enum Way {
    Waiting,
    ToQueue(MessageQueue),
    WithCallbacks,
    Tracked,
}

/// Senders of a storm.
#[derive(Clone, Copy)]
struct Storm<'a> {
    producer: &'a Producer,
    topic: &'a str,
    outcomes: &'a Outcomes,
    over: &'a AtomicBool,
    padding: usize,
}

impl Storm<'_> {
    fn send(self, way: Way) {
        match way {
            Way::Waiting => self.send_and_wait(),
            Way::ToQueue(queue) => self.send_to(&queue),
            Way::WithCallbacks => self.send_with_callbacks(),
            Way::Tracked => self.send_tracked(),
        }
    }

    fn send_and_wait(self) {
        while self.goes_on() {
            let (number, message) = self.next();
            self.outcomes.record(number, self.producer.send(&message));
        }
    }

    /// Sends to one queue, without another broker to use: while its broker is down each of these sends fails.
    fn send_to(self, queue: &MessageQueue) {
        while self.goes_on() {
            let (number, message) = self.next();
            self.outcomes.record(number, self.producer.to_queue(queue).send(&message));
        }
    }

    fn send_with_callbacks(self) {
        while self.goes_on() {
            let (number, message) = self.next();
            let outcomes = self.outcomes.clone();
            let accepted = self.producer.send_async(message, move |result| outcomes.record(number, result));
            if let Err(rejected) = accepted {
                self.outcomes.record(number, Err(rejected.error));
            }
        }
        // Pending callbacks.
        eventually("all callbacks have run", || self.producer.in_flight() == 0);
    }

    fn send_tracked(self) {
        let completions = Completions::new();
        let mut open = 0;
        let mut finished = Vec::new();
        while self.goes_on() || open > 0 {
            if !self.over.load(Ordering::Relaxed) {
                let (number, message) = self.next();
                match self.producer.send_tracked(message, number, &completions) {
                    Ok(()) => open += 1,
                    Err(rejected) => self.outcomes.record(number, Err(rejected.error)),
                }
            }
            open -= completions.take(&mut finished, Duration::from_millis(20)).expect("results");
            finished.drain(..).for_each(|completed| self.outcomes.record(completed.token, completed.result));
        }
    }

    /// Paces the storm, whose length depends on the time a broker takes to return. A machine that cannot keep up would
    /// answer everything too late, so heavy messages are sent less often.
    fn goes_on(self) -> bool {
        thread::park_timeout(Duration::from_millis(if self.padding > 0 { 150 } else { 5 }));
        !self.over.load(Ordering::Relaxed)
    }

    fn next(self) -> (u64, Message) {
        let number = self.outcomes.begin();
        let message = Message::new(self.topic, body_of(number));
        let is_heavy = self.padding > 0;
        (number, if is_heavy { message.with_property("padding", "p".repeat(self.padding)) } else { message })
    }
}

/// Ends the storm even if the test fails during it.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn body_of(number: u64) -> String {
    format!("message {number}")
}

/// Outcome of each send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Open,
    Stored,
    Failed(Certainty),
}

#[derive(Clone, Default)]
pub(crate) struct Outcomes {
    sends: Arc<Mutex<Vec<Send>>>,
}

struct Send {
    verdict: Verdict,
    broker: Option<Arc<str>>,
}

impl Outcomes {
    fn begin(&self) -> u64 {
        let mut sends = self.sends.lock().unwrap();
        sends.push(Send { verdict: Verdict::Open, broker: None });
        u64::try_from(sends.len()).unwrap() - 1
    }

    /// Records the outcome of a send; each send has one.
    fn record(&self, number: u64, result: Result<SendResult, Error>) {
        let mut sends = self.sends.lock().unwrap();
        let send = sends.get_mut(usize::try_from(number).unwrap()).expect("a send that was begun");
        assert_eq!(send.verdict, Verdict::Open, "message {number} has two outcomes");
        match result {
            Ok(stored) => *send = Send { verdict: Verdict::Stored, broker: Some(stored.queue.broker_name().into()) },
            Err(error) => {
                // A peer may return invalid data.
                assert!(error.is_retryable() || error.kind() == ErrorKind::Protocol, "{error}");
                send.verdict = Verdict::Failed(error.certainty());
            }
        }
    }

    fn count(&self, counts: impl Fn(&Send) -> bool) -> usize {
        self.sends.lock().unwrap().iter().filter(|send| counts(send)).count()
    }

    pub(crate) fn open(&self) -> usize {
        self.count(|send| send.verdict == Verdict::Open)
    }

    pub(crate) fn stored(&self) -> usize {
        self.count(|send| send.verdict == Verdict::Stored)
    }

    pub(crate) fn stored_on(&self, broker: &str) -> usize {
        self.count(|send| send.broker.as_deref() == Some(broker))
    }

    pub(crate) fn failed(&self, certainty: Certainty) -> usize {
        self.count(|send| send.verdict == Verdict::Failed(certainty))
    }

    pub(crate) fn bodies(&self, verdict: Verdict) -> BTreeSet<String> {
        let sends = self.sends.lock().unwrap();
        (0..).zip(sends.iter()).filter(|(_, send)| send.verdict == verdict).map(|(number, _)| body_of(number)).collect()
    }

    fn knows(&self, body: &str) -> bool {
        let number: Option<usize> = body.strip_prefix("message ").and_then(|number| number.parse().ok());
        number.is_some_and(|number| number < self.sends.lock().unwrap().len())
    }

    pub(crate) fn summary(&self) -> String {
        let (not_sent, unknown) = (self.failed(Certainty::NotSent), self.failed(Certainty::Unknown));
        format!("{} stored, {not_sent} surely not sent, {unknown} perhaps stored", self.stored())
    }
}

/// Location at which a message was consumed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) broker: String,
    pub(crate) queue: i32,
    pub(crate) offset: i64,
}

/// Messages handled by a listener, with their counts.
#[derive(Default)]
pub(crate) struct Consumed {
    bodies: Mutex<HashMap<String, u32>>,
    places: Mutex<HashMap<Place, u32>>,
    entered: AtomicUsize,
    gate: Option<Gate>,
}

/// Passes a number of messages, and the others after it is opened.
struct Gate {
    first: usize,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Consumed {
    pub(crate) fn gated_after(first: usize) -> Self {
        let gate = Gate { first, is_open: Mutex::new(false), opened: Condvar::new() };
        Self { gate: Some(gate), ..Self::default() }
    }

    pub(crate) fn open_gate(&self) {
        let gate = self.gate.as_ref().expect("a gate");
        *gate.is_open.lock().unwrap() = true;
        gate.opened.notify_all();
    }

    pub(crate) fn take(
        &self,
        message: &MessageExt,
    ) -> Result<(), Box<dyn std::error::Error + std::marker::Send + Sync>> {
        let entered = self.entered.fetch_add(1, Ordering::Relaxed);
        if let Some(gate) = self.gate.as_ref().filter(|gate| entered >= gate.first) {
            let is_closed = |is_open: &mut bool| !*is_open;
            let _open = gate.opened.wait_timeout_while(gate.is_open.lock().unwrap(), PATIENCE, is_closed).unwrap();
        }
        let body = String::from_utf8_lossy(message.body()).into_owned();
        let place = Place {
            broker: message.broker_name().to_string(),
            queue: message.queue_id(),
            offset: message.queue_offset(),
        };
        *self.places.lock().unwrap().entry(place).or_default() += 1;
        *self.bodies.lock().unwrap().entry(body).or_default() += 1;
        Ok(())
    }

    pub(crate) fn handled(&self) -> usize {
        self.bodies.lock().unwrap().len()
    }

    pub(crate) fn has(&self, body: &str) -> bool {
        self.bodies.lock().unwrap().contains_key(body)
    }

    pub(crate) fn covers(&self, bodies: &BTreeSet<String>) -> bool {
        let handled = self.bodies.lock().unwrap();
        bodies.iter().all(|body| handled.contains_key(body))
    }

    pub(crate) fn bodies(&self) -> BTreeSet<String> {
        self.bodies.lock().unwrap().keys().cloned().collect()
    }

    pub(crate) fn count(&self, counts: impl Fn(&Place) -> bool) -> usize {
        self.places.lock().unwrap().keys().filter(|place| counts(place)).count()
    }

    /// Number of deliveries of the messages at these places.
    pub(crate) fn deliveries(&self, counts: impl Fn(&Place) -> bool) -> u32 {
        self.places.lock().unwrap().iter().filter(|(place, _)| counts(place)).map(|(_, times)| times).sum()
    }

    pub(crate) fn offsets(&self) -> BTreeMap<(String, i32), BTreeSet<i64>> {
        let mut offsets: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for place in self.places.lock().unwrap().keys() {
            offsets.entry((place.broker.clone(), place.queue)).or_default().insert(place.offset);
        }
        offsets
    }

    pub(crate) fn summary(&self) -> String {
        let places = self.places.lock().unwrap();
        let again: u32 = places.values().map(|times| times - 1).sum();
        let twice = places.len() - self.bodies.lock().unwrap().len();
        format!("{} stored messages consumed, {again} deliveries again, {twice} bodies stored twice", places.len())
    }
}
