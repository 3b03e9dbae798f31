//! A broker is killed under load and restarted: every acknowledged message is there, and no message that was reported
//! as not sent.
//!
//! Each scenario asserts that the kill had an effect: attempts failed, or messages were still to be consumed.

use std::sync::Arc;

use rocketmq_sync::{Certainty, Client, Message, MessageQueue, Producer, ProducerBuilder, PushConsumer};

use super::deliveries::{self, send_all};
use super::scene::{Dice, VICTIM, is_soak};
use super::storm::{
    Consumed, PATIENCE, QUEUES, direct_client, end_at_the_end, settle, sixteen_threads_while, start_consumer,
    storm_while, unread, unread_of,
};
use super::{Cluster, eventually, unique};

/// A storm of sends of all kinds continues while a broker is killed and restarted; a consumer receives them.
pub(crate) fn a_broker_killed_in_a_send_storm_costs_no_acknowledged_message(cluster: &dyn Cluster) {
    let reader = Reader::start(cluster, new_topic(cluster, "Storm"), Consumed::default());
    let producer = reader.producer().start().expect("a producer");
    let victims_queue = MessageQueue::new(reader.topic.as_str(), VICTIM, 0);
    let outcomes = storm_while(&producer, &reader.topic, Some(victims_queue), |outcomes| {
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
    let report = producer.shutdown(PATIENCE);
    assert!(report.is_clean(), "{report:?}");
    settle(cluster, &reader.topic, &outcomes, &reader.consumed);
    println!("{}", outcomes.summary());
    reader.end();
}

/// Each of three masters in turn is killed at a random moment, and restarted after a while.
pub(crate) fn three_masters_killed_in_turn_cost_sixteen_threads_hardly_a_send(cluster: &dyn Cluster) {
    let (kills, sends) = if is_soak() { (6, 100_000) } else { (2, 2_000) };
    let reader = Reader::start(cluster, new_topic(cluster, "Kills"), Consumed::default());
    let producer = reader.producer().send_timeout(PATIENCE).start().expect("a producer");
    let mut dice = Dice::cast();
    let outcomes = sixteen_threads_while(&producer, &reader.topic, |outcomes| {
        for kill in 0..kills {
            let victim = &cluster.brokers()[kill % cluster.brokers().len()].name;
            let before = outcomes.stored_on(victim);
            let more = 100 + usize::try_from(dice.below(200)).expect("few");
            eventually("the storm is at the victim", || outcomes.stored_on(victim) >= before + more);
            cluster.kill_broker(victim);
            let before = outcomes.stored();
            eventually("the storm goes on at the others", || outcomes.stored() >= before + sends / kills / 2);
            let before = outcomes.stored_on(victim);
            cluster.restart_broker(victim);
            eventually("the storm is back at the victim", || outcomes.stored_on(victim) >= before + 100);
        }
        eventually("there were enough sends", || outcomes.stored() >= sends);
    });
    assert!(producer.shutdown(PATIENCE).is_clean());
    let failed = outcomes.failed(Certainty::NotSent) + outcomes.failed(Certainty::Unknown);
    assert!(failed * 10_000 <= outcomes.stored(), "{}", outcomes.summary());
    settle(cluster, &reader.topic, &outcomes, &reader.consumed);
    println!("{kills} kills; {}", outcomes.summary());
    reader.end();
}

/// A broker is killed while most of its messages are still to be pulled and a listener is busy.
pub(crate) fn a_broker_killed_in_the_midst_of_consumption_costs_no_message(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, "Backlog");
    let bodies = (0..2000).map(|number| format!("message {number}"));
    let sent = send_all(&deliveries::producer(cluster), &topic, bodies);
    let reader = Reader::start(cluster, topic, Consumed::gated_after(200));
    let Reader { topic, consumed, .. } = &reader;
    eventually("200 messages are consumed", || consumed.handled() >= 200);
    cluster.kill_broker(VICTIM);
    assert!(!consumed.covers(&sent), "the kill came too late");
    consumed.open_gate();
    eventually("the other broker's messages are consumed", || {
        unread_of(cluster, "broker-b", topic, consumed).is_empty()
    });
    assert!(consumed.count(|place| place.broker == VICTIM) < sent.len() / 2, "nothing was left at the victim");
    cluster.restart_broker(VICTIM);
    eventually("every message is consumed", || consumed.covers(&sent));
    eventually("everything stored is consumed", || unread(cluster, topic, consumed).is_empty());
    assert_eq!(consumed.bodies(), sent);
    reader.end();
}

/// A broker is killed right after it has confirmed offsets, which it persists every few seconds only. Its queues leave
/// the route and return with it. Messages with confirmed offsets are not redelivered, and the offsets are confirmed
/// again.
pub(crate) fn offsets_that_a_killed_broker_forgot_are_there_again_when_it_is_back(cluster: &dyn Cluster) {
    let reader = Reader::start(cluster, new_topic(cluster, "Forgotten"), Consumed::default());
    let Reader { topic, group, consumer, consumed, .. } = &reader;
    let producer = reader.producer().start().expect("a producer");
    let queue = MessageQueue::new(topic.as_str(), VICTIM, 0);
    let owns = || consumer.queues().contains(&queue);
    let send = |number: usize| {
        let message = Message::new(topic.as_str(), format!("body {number}"));
        eventually("the message is stored", || producer.to_queue(&queue).send(&message).is_ok());
    };
    let is_committed = |end: i64| cluster.committed_offset(VICTIM, group, topic, 0) == Some(end);
    eventually("the queue is owned", owns);
    for number in 0..50 {
        send(number);
    }
    eventually("the offset is confirmed", || is_committed(50));
    cluster.kill_broker(VICTIM);
    eventually("the queue is gone", || !owns());
    cluster.restart_broker(VICTIM);
    eventually("the queue is back", owns);
    eventually("the offset is confirmed again", || is_committed(50));
    send(50);
    eventually("the next message is consumed", || consumed.has("body 50"));
    assert_eq!(consumed.deliveries(|place| place.offset < 50), 50, "what was confirmed came again");
    assert!(producer.shutdown(PATIENCE).is_clean());
    reader.end();
}

fn new_topic(cluster: &dyn Cluster, prefix: &str) -> String {
    let topic = unique(prefix);
    cluster.create_topic(&topic, QUEUES);
    topic
}

/// Client with a consumer of a topic.
struct Reader<'a> {
    cluster: &'a dyn Cluster,
    client: Client,
    topic: String,
    group: String,
    consumer: PushConsumer,
    consumed: Arc<Consumed>,
}

impl<'a> Reader<'a> {
    fn start(cluster: &'a dyn Cluster, topic: String, consumed: Consumed) -> Self {
        let (client, group, consumed) = (direct_client(cluster), unique("G"), Arc::new(consumed));
        cluster.create_group(&group);
        let consumer = start_consumer(&client, &group, &topic, Arc::clone(&consumed));
        Self { cluster, client, topic, group, consumer, consumed }
    }

    fn producer(&self) -> ProducerBuilder {
        Producer::builder(unique("P")).client(&self.client)
    }

    /// Checks that every message is consumed and committed.
    fn end(self) {
        end_at_the_end(self.cluster, &self.consumer, &self.group, &self.topic);
        println!("{}", self.consumed.summary());
    }
}
