//! End of a client at any moment of its life, from any thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rocketmq_sync::unversioned::wire::RequestCode;
use rocketmq_sync::{ConsumerReport, FilterExpression, Message, MessageExt, MessageQueue, Producer, PushConsumer};

use super::deliveries::{self, PATIENCE, member, send_all};
use super::life::CountedThreads;
use super::proxy::{Effect, Proxy};
use super::scene::{Dice, is_soak};
use super::{Cluster, Server, eventually, unique};

/// Lives of random length, each ended in one of the ways.
pub(crate) fn a_shutdown_at_any_moment_from_any_thread_ends_everything(cluster: &dyn Cluster) {
    let topic = filled_topic(cluster);
    let lives = if is_soak() { 50 } else { 10 };
    thread::scope(|scope| {
        for _ in 0..4 {
            let topic = &topic;
            scope.spawn(move || {
                let mut dice = Dice::cast();
                for life in 0..lives {
                    live(cluster, None, topic, &mut dice, Way::ALL[life % Way::ALL.len()]);
                }
            });
        }
    });
}

/// Responses are late and some are missing: the report contains exactly the unfinished work.
pub(crate) fn a_shutdown_among_late_and_lost_answers_ends_everything(cluster: &dyn Cluster) {
    let topic = filled_topic(cluster);
    let lives = if is_soak() { 50 } else { 3 };
    let hits = AtomicUsize::new(0);
    thread::scope(|scope| {
        for first in 0..4 {
            let (topic, hits) = (&topic, &hits);
            scope.spawn(move || {
                let proxy = Proxy::before(cluster);
                let mut dice = Dice::cast();
                for life in 0..lives {
                    let lost =
                        proxy.on(&SMALL).one_in(some(&mut dice, 2, 8), dice.below(u64::MAX)).meet(Effect::SwallowReply);
                    let delay = Duration::from_millis(dice.below(400));
                    let late = proxy
                        .on(&[])
                        .one_in(some(&mut dice, 1, 4), dice.below(u64::MAX))
                        .meet(Effect::DelayReply(delay));
                    live(cluster, Some(&proxy), topic, &mut dice, Way::ALL[(first + life) % Way::ALL.len()]);
                    hits.fetch_add(lost.hits().min(late.hits()), Ordering::SeqCst);
                }
            });
        }
    });
    assert!(hits.into_inner() >= lives, "hardly anything was lost or late");
}

fn filled_topic(cluster: &dyn Cluster) -> String {
    let topic = unique("Ends");
    cluster.create_topic(&topic, 2);
    send_all(&deliveries::producer(cluster), &topic, (0..40).map(|number| format!("body {number}")));
    topic
}

/// All requests except pulls, whose loss would be noticed after half a minute only.
const SMALL: [RequestCode; 8] = [
    RequestCode::GET_ROUTEINFO_BY_TOPIC,
    RequestCode::HEART_BEAT,
    RequestCode::GET_CONSUMER_LIST_BY_GROUP,
    RequestCode::QUERY_CONSUMER_OFFSET,
    RequestCode::UPDATE_CONSUMER_OFFSET,
    RequestCode::CONSUMER_SEND_MSG_BACK,
    RequestCode::SEND_MESSAGE_V2,
    RequestCode::UNREGISTER_CLIENT,
];

fn some(dice: &mut Dice, least: usize, end: usize) -> usize {
    least + usize::try_from(dice.below((end - least) as u64)).expect("few")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Twice,
    FromTwoThreads,
    FromAListener,
    ByDrop,
    WithoutTime,
}

impl Way {
    const ALL: [Self; 5] = [Self::Twice, Self::FromTwoThreads, Self::FromAListener, Self::ByDrop, Self::WithoutTime];
}

/// Runs a life. Behind a proxy some responses are missing, and an end need not be clean.
fn live(cluster: &dyn Cluster, proxy: Option<&Proxy>, topic: &str, dice: &mut Dice, way: Way) {
    let patience = if proxy.is_some() { Duration::from_secs(3) } else { PATIENCE };
    let threads = CountedThreads::default();
    let life = Arc::new(Life { group: unique("G"), ends_in_listener: way == Way::FromAListener, ..Life::default() });
    let listener = Arc::clone(&life);
    let mut builder = member(cluster, &life.group).thread_starter(threads.clone());
    if let Some(proxy) = proxy {
        let timeout = Duration::from_millis(500);
        builder = builder.name_servers(proxy.addresses()).address_map(proxy.address_map()).request_timeout(timeout);
    }
    let consumer = builder
        .subscribe(topic, FilterExpression::all())
        .each(move |message: &MessageExt| Ok(listener.take(message)?))
        .start()
        .expect("a consumer");
    let consumer = Arc::new(consumer);
    life.consumer.set(Arc::downgrade(&consumer)).expect("once");
    let producer = Producer::builder(unique("P")).client(consumer.client()).start().expect("a producer");
    let sends = Sends::default();
    sends.begin(&producer, topic, dice.below(20));
    thread::park_timeout(Duration::from_millis(dice.below(300)));
    sends.begin(&producer, topic, dice.below(20));

    let is_clean = match way {
        Way::Twice => {
            let first = life.end(&consumer, patience);
            let second = life.end(&consumer, patience);
            let producers = [(); 2].map(|()| producer.shutdown(patience).is_clean());
            first.is_clean() & second.is_clean() & producers.iter().all(|is_clean| *is_clean)
        }
        Way::FromTwoThreads => thread::scope(|scope| {
            let end = || (life.end(&consumer, patience), producer.shutdown(patience).is_clean());
            let both = [(); 2].map(|()| scope.spawn(end));
            let ends = both.map(|one| one.join().expect("no panic"));
            ends.iter().all(|(report, is_clean)| report.is_clean() && *is_clean)
        }),
        Way::FromAListener => {
            eventually("a listener ends it", || life.ended_in_listener.load(Ordering::SeqCst));
            life.end(&consumer, patience).is_clean()
        }
        Way::ByDrop => false,
        Way::WithoutTime => {
            consumer.shutdown(Duration::ZERO);
            producer.shutdown(Duration::ZERO);
            false
        }
    };
    assert!(is_clean || proxy.is_some() || matches!(way, Way::ByDrop | Way::WithoutTime), "{way:?} is not clean");
    drop((consumer, producer));
    eventually("no thread is left", || threads.running() == 0);
    assert_eq!(sends.without_one_outcome(), 0, "{way:?}");
    assert_eq!(life.late.load(Ordering::SeqCst), 0, "messages begun after the end, {way:?}");
    for broker in cluster.brokers() {
        for queue in 0..2 {
            let committed = cluster.committed_offset(&broker.name, &life.group, topic, queue).unwrap_or(0);
            let queue = MessageQueue::new(topic, broker.name.as_str(), queue);
            let handled = life.handled.lock().get(&queue).cloned().unwrap_or_default();
            // After the first message that was not begun, others may have been handled.
            let prefix = (0..).take_while(|offset| handled.contains(offset)).count();
            let prefix = i64::try_from(prefix).expect("few");
            assert!(committed <= prefix, "{way:?}: {committed} of {queue} is committed, {prefix} messages are handled");
            // A real broker may store the older offset of a pull after the last commit.
            let is_exact = is_clean && cluster.server() == Server::Mini;
            assert!(committed == prefix || !is_exact, "{way:?}: only {committed} of {prefix} of {queue}");
        }
    }
}

/// Records of one consumer.
#[derive(Default)]
struct Life {
    group: String,
    ends_in_listener: bool,
    consumer: OnceLock<Weak<PushConsumer>>,
    ended_in_listener: AtomicBool,
    has_ended: AtomicBool,
    /// Number of listener calls that began after the end.
    late: AtomicUsize,
    handled: Mutex<BTreeMap<MessageQueue, BTreeSet<i64>>>,
}

impl Life {
    fn end(&self, consumer: &PushConsumer, timeout: Duration) -> ConsumerReport {
        let report = consumer.shutdown(timeout);
        self.has_ended.store(true, Ordering::SeqCst);
        report
    }

    fn take(&self, message: &MessageExt) -> Result<(), &'static str> {
        self.late.fetch_add(usize::from(self.has_ended.load(Ordering::SeqCst)), Ordering::SeqCst);
        if self.ends_in_listener && message.queue_offset() >= 3 {
            let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) else { return Err("not yet") };
            if !consumer.shutdown(PATIENCE).only_begun() {
                return Err("a listener cannot wait for itself");
            }
            self.ended_in_listener.store(true, Ordering::SeqCst);
        }
        thread::park_timeout(Duration::from_millis(1));
        self.handled.lock().entry(message.message_queue()).or_default().insert(message.queue_offset());
        Ok(())
    }
}

/// Outcomes of accepted asynchronous sends.
#[derive(Default)]
struct Sends(Mutex<Vec<Arc<AtomicUsize>>>);

impl Sends {
    fn begin(&self, producer: &Producer, topic: &str, count: u64) {
        for number in 0..count {
            let outcomes = Arc::new(AtomicUsize::new(0));
            let outcome = Arc::clone(&outcomes);
            let message = Message::new(topic, format!("sent {number}"));
            let accepted = producer.send_async(message, move |_| {
                outcome.fetch_add(1, Ordering::SeqCst);
            });
            if accepted.is_ok() {
                self.0.lock().push(outcomes);
            }
        }
    }

    fn without_one_outcome(&self) -> usize {
        self.0.lock().iter().filter(|outcomes| outcomes.load(Ordering::SeqCst) != 1).count()
    }
}
