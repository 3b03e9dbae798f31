//! A broker is killed under load and started again: nothing that was acknowledged is lost, nothing that was reported as
//! not sent is there.
//!
//! That a kill hit something is asserted: attempts failed, or messages were still to be consumed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rocketmq_sync::{
    Certainty, Client, Completions, ConsumeFromWhere, Error, FilterExpression, Message, MessageExt, MessageQueue,
    Producer, PushConsumer, SendResult,
};

use super::{Cluster, eventually, unique};

const PATIENCE: Duration = Duration::from_secs(60);
const QUEUES: i32 = 4;
const VICTIM: &str = "broker-a";

/// A storm of sends of all kinds goes on while a broker is killed and started again; a consumer reads along.
pub(crate) fn a_broker_killed_in_a_send_storm_costs_no_acknowledged_message(cluster: &dyn Cluster) {
    let topic = unique("Storm");
    cluster.create_topic(&topic, 4);
    let client = client(cluster);
    let consumed = Arc::new(Consumed::default());
    let group = unique("G");
    cluster.create_group(&group);
    let consumer = start_consumer(&client, &group, &topic, Arc::clone(&consumed));
    let producer = Producer::builder(unique("P")).client(&client).start().expect("a producer");
    let outcomes = Outcomes::default();
    let over = AtomicBool::new(false);

    thread::scope(|scope| {
        let storm = Storm { producer: &producer, topic: &topic, outcomes: &outcomes, over: &over };
        for _ in 0..8 {
            scope.spawn(move || storm.send_and_wait());
        }
        scope.spawn(move || storm.send_to_the_victim());
        scope.spawn(move || storm.send_with_callbacks());
        scope.spawn(move || storm.send_tracked());
        let _stop = StopAtEnd(&over);

        eventually("the storm reaches both brokers", || {
            cluster.brokers().iter().all(|broker| outcomes.stored_on(&broker.name) >= 100)
        });
        cluster.kill_broker(VICTIM);
        eventually("sends to the victim fail for certain", || outcomes.failed(Certainty::NotSent) >= 3);
        let before = outcomes.stored();
        eventually("the storm goes on at the other broker", || outcomes.stored() >= before + 200);
        let before = outcomes.stored_on(VICTIM);
        cluster.restart_broker(VICTIM);
        eventually("the storm is back at the victim", || outcomes.stored_on(VICTIM) >= before + 100);
    });
    assert_eq!(outcomes.open(), 0, "sends without an outcome");
    let report = producer.shutdown(PATIENCE);
    assert!(report.is_clean(), "{report:?}");

    let stored: BTreeSet<_> = outcomes.bodies(Verdict::Stored);
    eventually("every acknowledged message is consumed", || consumed.covers(&stored));
    eventually("everything stored is consumed", || unread(cluster, &topic, &consumed).is_empty());
    let not_sent = outcomes.bodies(Verdict::Failed(Certainty::NotSent));
    let ghosts: Vec<_> = not_sent.iter().filter(|body| consumed.has(body)).collect();
    assert!(ghosts.is_empty(), "reported as not sent, and stored: {ghosts:?}");
    let strangers = consumed.bodies().into_iter().filter(|body| !outcomes.knows(body)).count();
    assert_eq!(strangers, 0);
    eventually("the group has all its queues", || {
        consumer.queues().iter().filter(|queue| *queue.topic == *topic).count() == 8
    });
    shut_down(&consumer);
    assert_offsets_end(cluster, &group, &topic);
    println!("{}; {}", outcomes.summary(), consumed.summary());
}

/// A broker is killed while most of its messages are still to be pulled and a listener is at work.
pub(crate) fn a_broker_killed_in_the_midst_of_consumption_costs_no_message(cluster: &dyn Cluster) {
    let topic = unique("Backlog");
    cluster.create_topic(&topic, 4);
    let client = client(cluster);
    let producer = Producer::builder(unique("P")).client(&client).start().expect("a producer");
    let sent: BTreeSet<String> = (0..2000).map(|number| format!("message {number}")).collect();
    for body in &sent {
        producer.send(&Message::new(topic.as_str(), body.clone())).expect("stored");
    }

    let consumed = Arc::new(Consumed::gated_after(200));
    let group = unique("G");
    cluster.create_group(&group);
    let consumer = start_consumer(&client, &group, &topic, Arc::clone(&consumed));
    eventually("200 messages are consumed", || consumed.handled() >= 200);
    cluster.kill_broker(VICTIM);
    assert!(!consumed.covers(&sent), "the kill came too late");
    consumed.open_gate();
    eventually("the other broker's messages are consumed", || {
        unread_of(cluster, "broker-b", &topic, &consumed).is_empty()
    });
    assert!(consumed.count(|place| place.broker == VICTIM) < sent.len() / 2, "nothing was left at the victim");
    cluster.restart_broker(VICTIM);
    eventually("every message is consumed", || consumed.covers(&sent));
    eventually("everything stored is consumed", || unread(cluster, &topic, &consumed).is_empty());
    assert_eq!(consumed.bodies(), sent);
    eventually("the group has all its queues", || {
        consumer.queues().iter().filter(|queue| *queue.topic == *topic).count() == 8
    });
    shut_down(&consumer);
    assert_offsets_end(cluster, &group, &topic);
    println!("{}", consumed.summary());
}

/// Intervals short enough that a test need not wait for the next look at the routes.
fn client(cluster: &dyn Cluster) -> Client {
    Client::builder()
        .name_servers([cluster.name_server_list()])
        .route_interval(Duration::from_secs(1))
        .rebalance_interval(Duration::from_secs(1))
        .heartbeat_interval(Duration::from_secs(1))
        .offset_interval(Duration::from_secs(1))
        .start()
        .expect("a client")
}

fn start_consumer(client: &Client, group: &str, topic: &str, consumed: Arc<Consumed>) -> PushConsumer {
    PushConsumer::builder(group)
        .client(client)
        .subscribe(topic, FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .max_cached_messages(64)
        .each(move |message: &MessageExt| consumed.take(message))
        .start()
        .expect("a consumer")
}

fn shut_down(consumer: &PushConsumer) {
    let report = consumer.shutdown(PATIENCE);
    assert!(report.is_clean() && report.messages_left == 0, "{report:?}");
}

/// After a clean shutdown the group is at the end of every queue, and nowhere beyond.
fn assert_offsets_end(cluster: &dyn Cluster, group: &str, topic: &str) {
    for (broker, queue) in queues_of(cluster) {
        let end = cluster.max_offset(&broker, topic, queue);
        let committed = cluster.committed_offset(&broker, group, topic, queue).unwrap_or(0);
        assert_eq!(committed, end, "{topic}/{broker}/{queue}");
    }
}

/// The queues that hold messages the consumer has not handled.
fn unread(cluster: &dyn Cluster, topic: &str, consumed: &Consumed) -> Vec<String> {
    let brokers = cluster.brokers().iter();
    brokers.flat_map(|broker| unread_of(cluster, &broker.name, topic, consumed)).collect()
}

fn unread_of(cluster: &dyn Cluster, broker: &str, topic: &str, consumed: &Consumed) -> Vec<String> {
    let handled = consumed.offsets();
    let is_unread = |queue: &i32| {
        let end = cluster.max_offset(broker, topic, *queue);
        let place = (broker.to_owned(), *queue);
        let offsets = handled.get(&place);
        (0..end).any(|offset| !offsets.is_some_and(|offsets| offsets.contains(&offset)))
    };
    (0..QUEUES).filter(is_unread).map(|queue| format!("{broker}/{queue}")).collect()
}

fn queues_of(cluster: &dyn Cluster) -> Vec<(String, i32)> {
    let brokers = cluster.brokers().iter();
    brokers.flat_map(|broker| (0..QUEUES).map(|queue| (broker.name.clone(), queue))).collect()
}

/// The senders of a storm.
#[derive(Clone, Copy)]
struct Storm<'a> {
    producer: &'a Producer,
    topic: &'a str,
    outcomes: &'a Outcomes,
    over: &'a AtomicBool,
}

impl Storm<'_> {
    fn send_and_wait(self) {
        while self.goes_on() {
            let (number, message) = self.next();
            self.outcomes.record(number, self.producer.send(&message));
        }
    }

    /// To one queue, so that there is no other broker to turn to: while the victim is down each of these fails.
    fn send_to_the_victim(self) {
        let queue = MessageQueue::new(self.topic, VICTIM, 0);
        while self.goes_on() {
            let (number, message) = self.next();
            self.outcomes.record(number, self.producer.send_to(&message, &queue));
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
        // The callbacks that are still to come.
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
            open -= completions.take(&mut finished, Instant::now() + Duration::from_millis(20));
            finished.drain(..).for_each(|completed| self.outcomes.record(completed.token, completed.result));
        }
    }

    /// Paces the storm: its length is decided by how long a broker takes to come back.
    fn goes_on(self) -> bool {
        thread::park_timeout(Duration::from_millis(5));
        !self.over.load(Ordering::Relaxed)
    }

    fn next(self) -> (u64, Message) {
        let number = self.outcomes.begin();
        (number, Message::new(self.topic, body_of(number)))
    }
}

/// Ends the storm also when the test fails in the midst of it.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn body_of(number: u64) -> String {
    format!("message {number}")
}

/// What became of each send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Open,
    Stored,
    Failed(Certainty),
}

#[derive(Clone, Default)]
struct Outcomes {
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

    /// Each send has one outcome.
    fn record(&self, number: u64, result: Result<SendResult, Error>) {
        let mut sends = self.sends.lock().unwrap();
        let send = sends.get_mut(usize::try_from(number).unwrap()).expect("a send that was begun");
        assert_eq!(send.verdict, Verdict::Open, "message {number} has two outcomes");
        match result {
            Ok(stored) => *send = Send { verdict: Verdict::Stored, broker: Some(stored.queue.broker_name) },
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                send.verdict = Verdict::Failed(error.certainty());
            }
        }
    }

    fn count(&self, counts: impl Fn(&Send) -> bool) -> usize {
        self.sends.lock().unwrap().iter().filter(|send| counts(send)).count()
    }

    fn open(&self) -> usize {
        self.count(|send| send.verdict == Verdict::Open)
    }

    fn stored(&self) -> usize {
        self.count(|send| send.verdict == Verdict::Stored)
    }

    fn stored_on(&self, broker: &str) -> usize {
        self.count(|send| send.broker.as_deref() == Some(broker))
    }

    fn failed(&self, certainty: Certainty) -> usize {
        self.count(|send| send.verdict == Verdict::Failed(certainty))
    }

    fn bodies(&self, verdict: Verdict) -> BTreeSet<String> {
        let sends = self.sends.lock().unwrap();
        (0..).zip(sends.iter()).filter(|(_, send)| send.verdict == verdict).map(|(number, _)| body_of(number)).collect()
    }

    fn knows(&self, body: &str) -> bool {
        let number: Option<usize> = body.strip_prefix("message ").and_then(|number| number.parse().ok());
        number.is_some_and(|number| number < self.sends.lock().unwrap().len())
    }

    fn summary(&self) -> String {
        let (not_sent, unknown) = (self.failed(Certainty::NotSent), self.failed(Certainty::Unknown));
        format!("{} stored, {not_sent} surely not sent, {unknown} perhaps stored", self.stored())
    }
}

/// Where a message was consumed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    broker: String,
    queue: i32,
    offset: i64,
}

/// What a listener has handled, and how often.
#[derive(Default)]
struct Consumed {
    bodies: Mutex<HashMap<String, u32>>,
    places: Mutex<HashMap<Place, u32>>,
    entered: AtomicUsize,
    gate: Option<Gate>,
}

/// Lets a number of messages through, and the others when it is opened.
struct Gate {
    first: usize,
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Consumed {
    fn gated_after(first: usize) -> Self {
        let gate = Gate { first, is_open: Mutex::new(false), opened: Condvar::new() };
        Self { gate: Some(gate), ..Self::default() }
    }

    fn open_gate(&self) {
        let gate = self.gate.as_ref().expect("a gate");
        *gate.is_open.lock().unwrap() = true;
        gate.opened.notify_all();
    }

    fn take(&self, message: &MessageExt) -> Result<(), std::convert::Infallible> {
        let entered = self.entered.fetch_add(1, Ordering::Relaxed);
        if let Some(gate) = self.gate.as_ref().filter(|gate| entered >= gate.first) {
            let is_closed = |is_open: &mut bool| !*is_open;
            let _open = gate.opened.wait_timeout_while(gate.is_open.lock().unwrap(), PATIENCE, is_closed).unwrap();
        }
        let body = String::from_utf8_lossy(message.body()).into_owned();
        let place =
            Place { broker: message.broker_name.to_string(), queue: message.queue_id, offset: message.queue_offset };
        *self.places.lock().unwrap().entry(place).or_default() += 1;
        *self.bodies.lock().unwrap().entry(body).or_default() += 1;
        Ok(())
    }

    fn handled(&self) -> usize {
        self.bodies.lock().unwrap().len()
    }

    fn has(&self, body: &str) -> bool {
        self.bodies.lock().unwrap().contains_key(body)
    }

    fn covers(&self, bodies: &BTreeSet<String>) -> bool {
        let handled = self.bodies.lock().unwrap();
        bodies.iter().all(|body| handled.contains_key(body))
    }

    fn bodies(&self) -> BTreeSet<String> {
        self.bodies.lock().unwrap().keys().cloned().collect()
    }

    fn count(&self, counts: impl Fn(&Place) -> bool) -> usize {
        self.places.lock().unwrap().keys().filter(|place| counts(place)).count()
    }

    fn offsets(&self) -> BTreeMap<(String, i32), BTreeSet<i64>> {
        let mut offsets: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for place in self.places.lock().unwrap().keys() {
            offsets.entry((place.broker.clone(), place.queue)).or_default().insert(place.offset);
        }
        offsets
    }

    fn summary(&self) -> String {
        let places = self.places.lock().unwrap();
        let again: u32 = places.values().map(|times| times - 1).sum();
        let twice = places.len() - self.bodies.lock().unwrap().len();
        format!("{} stored messages consumed, {again} deliveries again, {twice} bodies stored twice", places.len())
    }
}
