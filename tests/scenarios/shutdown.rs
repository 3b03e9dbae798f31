//! The end of a client at any moment of its life, from any thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rocketmq_sync::{ConsumerReport, FilterExpression, Message, MessageExt, MessageQueue, Producer, PushConsumer};

use super::deliveries::{self, PATIENCE, member, send_all};
use super::life::CountedThreads;
use super::scene::{Dice, is_soak};
use super::{Cluster, Server, eventually, unique};

/// Lives of random length, ended in one of the ways there are.
pub(crate) fn a_shutdown_at_any_moment_from_any_thread_ends_everything(cluster: &dyn Cluster) {
    let topic = unique("Ends");
    cluster.create_topic(&topic, 2);
    send_all(&deliveries::producer(cluster), &topic, (0..40).map(|number| format!("body {number}")));
    let lives = if is_soak() { 50 } else { 10 };
    thread::scope(|scope| {
        for _ in 0..4 {
            let topic = &topic;
            scope.spawn(move || {
                let mut dice = Dice::cast();
                for life in 0..lives {
                    live(cluster, topic, &mut dice, Way::ALL[life % Way::ALL.len()]);
                }
            });
        }
    });
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

fn live(cluster: &dyn Cluster, topic: &str, dice: &mut Dice, way: Way) {
    let threads = CountedThreads::default();
    let life = Arc::new(Life { group: unique("G"), ends_in_listener: way == Way::FromAListener, ..Life::default() });
    let listener = Arc::clone(&life);
    let consumer = member(cluster, &life.group)
        .thread_starter(threads.clone())
        .subscribe(topic, FilterExpression::all())
        .each(move |message: &MessageExt| listener.take(message))
        .start()
        .expect("a consumer");
    let consumer = Arc::new(consumer);
    life.consumer.set(Arc::downgrade(&consumer)).expect("once");
    let producer = Producer::builder(unique("P")).client(consumer.client()).start().expect("a producer");
    let sends = Sends::default();
    sends.begin(&producer, topic, dice.below(20));
    thread::park_timeout(Duration::from_millis(dice.below(300)));
    sends.begin(&producer, topic, dice.below(20));

    let is_confirmed = !matches!(way, Way::ByDrop | Way::WithoutTime);
    match way {
        Way::Twice => {
            let report = life.end(&consumer, PATIENCE);
            assert!(report.is_clean(), "{report:?}");
            let report = life.end(&consumer, PATIENCE);
            assert!(report.is_clean(), "{report:?}");
            assert!(producer.shutdown(PATIENCE).is_clean() && producer.shutdown(PATIENCE).is_clean());
        }
        Way::FromTwoThreads => thread::scope(|scope| {
            let both = [(); 2]
                .map(|()| scope.spawn(|| (life.end(&consumer, PATIENCE), producer.shutdown(PATIENCE).is_clean())));
            for one in both {
                let (report, is_clean) = one.join().expect("no panic");
                assert!(report.is_clean() && is_clean, "{report:?}");
            }
        }),
        Way::FromAListener => {
            eventually("a listener ends it", || life.ended_in_listener.load(Ordering::SeqCst));
            let report = life.end(&consumer, PATIENCE);
            assert!(report.is_clean(), "{report:?}");
        }
        Way::ByDrop => {}
        Way::WithoutTime => {
            consumer.shutdown(Duration::ZERO);
            producer.shutdown(Duration::ZERO);
        }
    }
    drop((consumer, producer));
    eventually("no thread is left", || threads.running() == 0);
    assert_eq!(sends.without_one_outcome(), 0, "{way:?}");
    assert_eq!(life.late.load(Ordering::SeqCst), 0, "messages begun after the end, {way:?}");
    for broker in cluster.brokers() {
        for queue in 0..2 {
            let committed = cluster.committed_offset(&broker.name, &life.group, topic, queue).unwrap_or(0);
            let queue = MessageQueue::new(topic, broker.name.as_str(), queue);
            let handled = life.handled.lock().get(&queue).cloned().unwrap_or_default();
            // Behind the first message that was not begun, others may have been handled.
            let prefix = (0..).take_while(|offset| handled.contains(offset)).count();
            let prefix = i64::try_from(prefix).expect("few");
            assert!(committed <= prefix, "{way:?}: {committed} of {queue} is committed, {prefix} messages are handled");
            // A real broker may take the older offset that rode on a pull after the last one.
            let is_exact = is_confirmed && cluster.server() == Server::Mini;
            assert!(committed == prefix || !is_exact, "{way:?}: only {committed} of {prefix} of {queue}");
        }
    }
}

/// What one consumer did.
#[derive(Default)]
struct Life {
    group: String,
    ends_in_listener: bool,
    consumer: OnceLock<Weak<PushConsumer>>,
    ended_in_listener: AtomicBool,
    has_ended: AtomicBool,
    /// Listeners that began after the end.
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
        if self.ends_in_listener && message.queue_offset >= 3 {
            let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) else { return Err("not yet") };
            if !consumer.shutdown(PATIENCE).only_begun {
                return Err("a listener cannot wait for itself");
            }
            self.ended_in_listener.store(true, Ordering::SeqCst);
        }
        thread::park_timeout(Duration::from_millis(1));
        self.handled.lock().entry(message.message_queue()).or_default().insert(message.queue_offset);
        Ok(())
    }
}

/// Outcomes of asynchronous sends that were accepted.
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
