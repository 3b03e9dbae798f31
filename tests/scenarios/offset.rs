//! Start positions of groups, their commits, and queues that no longer have their offset.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, SystemTime};

use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use rocketmq_sync::{ConsumeFromWhere, FilterExpression, Message, MessageQueue, Producer, PushConsumer};

use super::deliveries::{Deliveries, PATIENCE, end, member, producer};
use super::{Cluster, Server, eventually, unique};

/// OFF-01.
pub(crate) fn off_01_from_the_first_offset_a_new_group_gets_the_old_messages(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster);
    let old = scene.send("old", 10);
    let (consumer, deliveries) = scene.start(ConsumeFromWhere::First);
    deliveries.await_bodies(&old);
    end([consumer]);
    assert_eq!((deliveries.bodies(), deliveries.count()), (old, 10));
    assert_eq!(scene.committed(), Some(10));
}

/// OFF-02: a 4.9 broker returns offset 0 of a young queue for a new group, so that "the last offset" is the first one.
/// A 5.x broker reports the missing offset.
pub(crate) fn off_02_from_the_last_offset_a_young_queue_of_a_4_9_broker_comes_whole(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster);
    let old = scene.send("old", 100);
    let (consumer, deliveries) = scene.start(ConsumeFromWhere::Last);
    eventually("the consumer has its queue", || consumer.queues().contains(&scene.queue));
    let new = scene.send("new", 10);
    let expected = if scene.is_young_queue_begun(cluster) { &old | &new } else { new };
    deliveries.await_bodies(&expected);
    end([consumer]);
    assert_eq!(deliveries.bodies(), expected);
}

/// OFF-03, for a time between two messages.
pub(crate) fn off_03_from_a_time_a_new_group_gets_what_was_stored_since(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster);
    let old = scene.send("old", 5);
    // The broker's clock is this machine's; it must advance on both sides of the time.
    let pause = || thread::park_timeout(Duration::from_millis(50));
    pause();
    let between = SystemTime::now();
    pause();
    let new = scene.send("new", 5);
    let (consumer, deliveries) = scene.start(ConsumeFromWhere::Timestamp(between));
    let expected = if scene.is_young_queue_begun(cluster) { &old | &new } else { new };
    deliveries.await_bodies(&expected);
    end([consumer]);
    let mut got = deliveries.bodies();
    if cluster.server() == Server::Apache4 {
        // A 4.9 broker finds the message nearest to the time, which may be the one before.
        got.remove("old 4");
    }
    let mut expected = expected;
    expected.retain(|body| got.contains(body) || body != "old 4");
    assert_eq!(got, expected);
}

/// A group with an offset continues there, regardless of its start policy.
pub(crate) fn a_known_group_goes_on_where_it_ended(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster);
    let first = scene.send("first", 10);
    let (consumer, deliveries) = scene.start(ConsumeFromWhere::First);
    deliveries.await_bodies(&first);
    end([consumer]);
    assert_eq!(scene.committed(), Some(10), "confirmed at shutdown");
    for (policy, prefix) in [(ConsumeFromWhere::Last, "second"), (ConsumeFromWhere::First, "third")] {
        let next = scene.send(prefix, 10);
        let (consumer, deliveries) = scene.start(policy);
        deliveries.await_bodies(&next);
        end([consumer]);
        assert_eq!(deliveries.bodies(), next, "{policy:?}");
    }
}

/// The group's offset belongs to a deleted topic. The messages of the recreated topic are new, as a queue that still
/// begins at 0 shows. Brokers suggest the same, and the Java client follows.
pub(crate) fn an_offset_beyond_the_end_of_a_topic_made_anew_skips_nothing(cluster: &dyn Cluster) {
    let scene = Scene::new(cluster);
    let mut sent = scene.send("new", 10);
    scene.commit(1000);
    let (consumer, deliveries) = scene.start(ConsumeFromWhere::First);
    deliveries.await_bodies(&sent);
    eventually("the corrected offset is stored", || scene.committed() == Some(10));
    sent.append(&mut scene.send("newer", 5));
    deliveries.await_bodies(&sent);
    eventually("the newer messages are committed", || scene.committed() == Some(15));
    end([consumer]);
    assert_eq!((deliveries.bodies(), deliveries.count()), (sent, 15));
}

/// One queue, one group.
struct Scene<'a> {
    cluster: &'a dyn Cluster,
    producer: Producer,
    queue: MessageQueue,
    group: String,
}

impl<'a> Scene<'a> {
    fn new(cluster: &'a dyn Cluster) -> Self {
        let topic = unique("T");
        cluster.create_topic(&topic, 1);
        let queue = MessageQueue::new(topic, &*cluster.brokers()[0].name, 0);
        Self { cluster, producer: producer(cluster), queue, group: unique("G") }
    }

    fn send(&self, prefix: &str, count: usize) -> BTreeSet<String> {
        let bodies: BTreeSet<_> = (0..count).map(|number| format!("{prefix} {number}")).collect();
        for number in 0..count {
            let message = Message::new(self.queue.topic(), format!("{prefix} {number}"));
            self.producer.to_queue(&self.queue).send(&message).expect("stored");
        }
        bodies
    }

    /// Starts a consumer that accepts everything.
    fn start(&self, from: ConsumeFromWhere) -> (PushConsumer, Deliveries) {
        let deliveries = Deliveries::default();
        let consumer = member(self.cluster, &self.group)
            .consume_from(from)
            .subscribe(self.queue.topic(), FilterExpression::all())
            .each(deliveries.taker("consumer"))
            .start()
            .expect("a consumer");
        consumer.wait_ready(PATIENCE).expect("a share of the queues");
        (consumer, deliveries)
    }

    fn committed(&self) -> Option<i64> {
        let queue = &self.queue;
        self.cluster.committed_offset(queue.broker_name(), &self.group, queue.topic(), queue.queue_id())
    }

    fn commit(&self, offset: i64) {
        self.cluster.create_group(&self.group);
        let header = [
            ("consumerGroup", &*self.group),
            ("topic", self.queue.topic()),
            ("queueId", "0"),
            ("commitOffset", &offset.to_string()),
        ];
        let response = self.cluster.ask_broker(self.queue.broker_name(), RequestCode::UPDATE_CONSUMER_OFFSET, &header);
        assert_eq!(response.response_code(), ResponseCode::SUCCESS, "{response:?}");
    }

    /// True if the broker treats a group without an offset in a young queue as one at its beginning.
    fn is_young_queue_begun(&self, cluster: &dyn Cluster) -> bool {
        let topic = self.queue.topic();
        cluster.committed_offset(self.queue.broker_name(), &unique("nobody"), topic, 0) == Some(0)
    }
}
