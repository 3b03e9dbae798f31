//! Routes that change under load: a broker joins, disappears without notice, and returns.

use std::sync::Arc;

use rocketmq_sync::{Certainty, Message, MessageQueue, Producer, PushConsumer};

use super::deliveries::{await_balance, end};
use super::scene::{is_soak, members};
use super::storm::{
    Consumed, Outcomes, PATIENCE, QUEUES, direct_client, end_at_the_end, settle, start_consumer, storm_while,
};
use super::{Cluster, eventually, unique};

const FIRST: &str = "broker-a";
const SECOND: &str = "broker-b";

/// Producers send and two members consume while a new broker gets the topic, is killed until they have removed it, and
/// returns.
pub(crate) fn a_broker_that_is_added_removed_and_back_costs_no_message(cluster: &dyn Cluster) {
    let (topic, group) = (unique("Route"), unique("G"));
    cluster.create_topic_on(FIRST, &topic, (QUEUES, QUEUES), 6);
    eventually("the topic has a route", || cluster.route(&topic).is_some());
    cluster.create_group(&group);
    let clients = [(); 2].map(|()| direct_client(cluster));
    let consumed = Arc::new(Consumed::default());
    let consumers = clients.each_ref().map(|client| start_consumer(client, &group, &topic, Arc::clone(&consumed)));
    let producer = Producer::builder(unique("P")).client(&clients[0]).send_timeout(PATIENCE).start();
    let load = Load { producer: producer.expect("a producer"), consumers, topic, consumed };

    load.await_shares_on(1);
    assert!(members(cluster, SECOND, &group).is_empty(), "nobody knows of the second broker yet");
    let outcomes = storm_while(&load.producer, &load.topic, None, |outcomes| {
        load.goes_on_at(FIRST, outcomes);
        load.is_not_at_second();
        cluster.create_topic_on(SECOND, &load.topic, (QUEUES, QUEUES), 6);
        load.has_taken_second(outcomes);
        for _ in 0..if is_soak() { 10 } else { 1 } {
            cluster.kill_broker(SECOND);
            load.await_shares_on(1);
            load.goes_on_at(FIRST, outcomes);
            load.is_not_at_second();
            cluster.restart_broker(SECOND);
            load.has_taken_second(outcomes);
        }
    });
    let failed = outcomes.failed(Certainty::NotSent) + outcomes.failed(Certainty::Unknown);
    assert_eq!(failed, 0, "there was always a broker that works: {}", outcomes.summary());
    assert!(load.producer.shutdown(PATIENCE).is_clean());
    settle(cluster, &load.topic, &outcomes, &load.consumed);
    let [stays, leaves] = load.consumers;
    end([leaves]);
    end_at_the_end(cluster, &stays, &group, &load.topic);
    println!("{}; {}", outcomes.summary(), load.consumed.summary());
}

/// One producer and two consumers; the first broker always works.
struct Load {
    producer: Producer,
    consumers: [PushConsumer; 2],
    topic: String,
    consumed: Arc<Consumed>,
}

impl Load {
    /// Waits until the members share the queues of this many brokers, and of no other.
    fn await_shares_on(&self, brokers: usize) {
        await_balance(&self.consumers.each_ref(), &self.topic, brokers * QUEUES as usize);
    }

    fn goes_on_at(&self, broker: &str, outcomes: &Outcomes) {
        let stored = outcomes.stored_on(broker);
        eventually("sends succeed there", || outcomes.stored_on(broker) >= stored + 100);
        let consumed = self.consumed_at(broker);
        eventually("messages are consumed there", || self.consumed_at(broker) >= consumed + 50);
    }

    /// Checks that all of its queues have a reader, and messages are sent and consumed.
    fn has_taken_second(&self, outcomes: &Outcomes) {
        self.await_shares_on(2);
        self.goes_on_at(SECOND, outcomes);
    }

    /// Checks that the producer has no route to it, and reports that with certainty.
    fn is_not_at_second(&self) {
        eventually("the producer's route leaves it out", || {
            let queues = self.producer.queues(&self.topic).expect("a route");
            queues.iter().all(|queue| *queue.broker_name() == *FIRST)
        });
        let queue = MessageQueue::new(self.topic.as_str(), SECOND, 0);
        let error = self.producer.to_queue(&queue).send(&Message::new(self.topic.as_str(), "gone"));
        let error = error.expect_err("nobody is there");
        assert_eq!(error.certainty(), Certainty::NotSent, "{error}");
    }

    fn consumed_at(&self, broker: &str) -> usize {
        self.consumed.count(|place| place.broker == broker)
    }
}
