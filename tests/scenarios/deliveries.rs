//! Records of the messages delivered to listeners, by consumer and count.
//!
//! Filled on consume threads, read by the scenario's own thread. A consumer created here commits often, and its other
//! timers do not fire, so that scenarios wait for events and not for timers.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rocketmq_sync::{
    ConsumeFromWhere, FilterExpression, Message, MessageExt, MessageQueue, Producer, PushConsumer, PushConsumerBuilder,
    SendResult,
};

use super::{Cluster, eventually, unique};

/// Maximum duration of a shutdown.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Messages delivered to listeners, in the order of their arrival.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deliveries(Arc<Mutex<Vec<Delivery>>>);

/// Message at one listener.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Name of the consumer.
    pub(crate) to: &'static str,
    pub(crate) message: MessageExt,
}

impl Deliveries {
    pub(crate) fn add(&self, to: &'static str, message: &MessageExt) {
        self.0.lock().push(Delivery { to, message: message.clone() });
    }

    /// Creates a listener that accepts every message.
    pub(crate) fn taker(
        &self,
        to: &'static str,
    ) -> impl Fn(&MessageExt) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync + 'static {
        let deliveries = self.clone();
        move |message| {
            deliveries.add(to, message);
            Ok(())
        }
    }

    pub(crate) fn all(&self) -> Vec<Delivery> {
        self.0.lock().clone()
    }

    /// Deliveries of the message with this body, in order.
    pub(crate) fn of(&self, body: &str) -> Vec<MessageExt> {
        let all = self.0.lock();
        all.iter().filter(|delivery| text(&delivery.message) == body).map(|delivery| delivery.message.clone()).collect()
    }

    /// Bodies delivered to `to`.
    pub(crate) fn bodies_at(&self, to: &str) -> BTreeSet<String> {
        self.0.lock().iter().filter(|delivery| delivery.to == to).map(|delivery| text(&delivery.message)).collect()
    }

    /// Bodies delivered to any consumer.
    pub(crate) fn bodies(&self) -> BTreeSet<String> {
        self.0.lock().iter().map(|delivery| text(&delivery.message)).collect()
    }

    /// Messages delivered to a consumer more than once, with their queue.
    pub(crate) fn repeated(&self) -> Vec<String> {
        let all = self.all();
        let times = |body: &str| all.iter().filter(|delivery| text(&delivery.message) == body).count();
        let repeated = all.iter().filter(|delivery| times(&text(&delivery.message)) > 1);
        repeated
            .map(|Delivery { to, message }| {
                let (body, queue, offset) = (text(message), message.message_queue(), message.queue_offset());
                format!("{body} to {to} from {queue} at {offset}, delivered {} times before", message.reconsume_times())
            })
            .collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Waits until each of these bodies has been delivered to a consumer.
    pub(crate) fn await_bodies(&self, sent: &BTreeSet<String>) {
        eventually("everything that was sent is delivered", || sent.is_subset(&self.bodies()));
    }

    /// Waits until the message with this body has been delivered `times` times; returns these deliveries.
    pub(crate) fn await_times(&self, body: &str, times: usize) -> Vec<MessageExt> {
        eventually(&format!("{body} is delivered {times} times"), || self.of(body).len() >= times);
        self.of(body)
    }

    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }
}

pub(crate) fn text(message: &MessageExt) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

pub(crate) fn producer(cluster: &dyn Cluster) -> Producer {
    let builder = Producer::builder(unique("P")).name_servers([cluster.name_server_list()]);
    builder.send_timeout(PATIENCE).start().expect("a producer")
}

/// Builds a member of `group` with its own client and client id.
pub(crate) fn member(cluster: &dyn Cluster, group: &str) -> PushConsumerBuilder {
    PushConsumer::builder(group)
        .name_servers([cluster.name_server_list()])
        .offset_interval(Duration::from_millis(200))
        .consume_from(ConsumeFromWhere::First)
        .consume_threads(4)
}

/// Starts a member that accepts all of `topic`, and waits for its share of the queues.
pub(crate) fn taking_member(
    cluster: &dyn Cluster,
    group: &str,
    topic: &str,
    deliveries: &Deliveries,
    name: &'static str,
) -> PushConsumer {
    let consumer = member(cluster, group)
        .subscribe(topic, FilterExpression::all())
        .each(deliveries.taker(name))
        .start()
        .expect("a consumer");
    consumer.wait_ready(PATIENCE * 2).expect("a share of the queues");
    consumer
}

/// Sends one message for each body, round-robin over all queues; returns the bodies.
pub(crate) fn send_all(producer: &Producer, topic: &str, bodies: impl Iterator<Item = String>) -> BTreeSet<String> {
    bodies
        .inspect(|body| {
            send(producer, &Message::new(topic, body.clone()));
        })
        .collect()
}

pub(crate) fn send(producer: &Producer, message: &Message) -> SendResult {
    producer.send(message).expect("stored")
}

/// Queues of `topic` that a consumer pulls from.
pub(crate) fn queues_of(consumer: &PushConsumer, topic: &str) -> Vec<MessageQueue> {
    let mut queues = consumer.queues();
    queues.retain(|queue| *queue.topic() == *topic);
    queues
}

/// Waits until the members share all queues of the topic, each queue once, with shares that differ by at most one.
pub(crate) fn await_balance(consumers: &[&PushConsumer], topic: &str, queues: usize) {
    eventually("the queues are shared out evenly", || {
        let shares: Vec<Vec<MessageQueue>> = consumers.iter().map(|consumer| queues_of(consumer, topic)).collect();
        let (least, most) = (shares.iter().map(Vec::len).min(), shares.iter().map(Vec::len).max());
        let distinct: BTreeSet<_> = shares.iter().flatten().collect();
        let pulled: usize = shares.iter().map(Vec::len).sum();
        distinct.len() == queues && pulled == queues && most.zip(least).is_some_and(|(most, least)| most - least <= 1)
    });
}

/// Shuts consumers down and expects clean reports.
pub(crate) fn end(consumers: impl IntoIterator<Item = PushConsumer>) {
    for consumer in consumers {
        let report = consumer.shutdown(PATIENCE);
        assert!(report.is_clean(), "{report:?}");
    }
}

pub(crate) fn set(bodies: &[&str]) -> BTreeSet<String> {
    bodies.iter().map(|body| (*body).to_owned()).collect()
}
