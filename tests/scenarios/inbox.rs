//! Producer and consumer for scenarios, and the messages that the consumer receives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use rocketmq_sync::{
    Client, ConsumeFromWhere, FilterExpression, Message, MessageExt, Producer, ProducerBuilder, PushConsumer,
};

use super::{Cluster, unique};

/// Maximum time of one response on a machine under heavy load.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Builds a producer of its own group, with enough time for any machine.
pub(crate) fn producer(cluster: &dyn Cluster) -> ProducerBuilder {
    Producer::builder(unique("P")).name_servers([cluster.name_server_list()]).send_timeout(PATIENCE)
}

/// Creates messages to `topic` with different bodies.
pub(crate) fn numbered(topic: &str, count: usize) -> Vec<Message> {
    (0..count).map(|number| Message::new(topic, format!("{topic} {number}"))).collect()
}

/// Bodies of messages, sorted.
pub(crate) fn bodies<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Vec<Vec<u8>> {
    let mut bodies: Vec<_> = messages.into_iter().map(|message| message.body().to_vec()).collect();
    bodies.sort();
    bodies
}

/// Consumer of a new group that acknowledges every message of one topic, from the first message on.
pub(crate) struct Inbox {
    pub(crate) group: String,
    consumer: PushConsumer,
    arrivals: Receiver<MessageExt>,
}

impl Inbox {
    pub(crate) fn open(client: &Client, topic: &str) -> Self {
        let group = unique("G");
        let (arrived, arrivals) = unbounded();
        let consumer = PushConsumer::builder(group.as_str())
            .client(client)
            .subscribe(topic, FilterExpression::all())
            .consume_from(ConsumeFromWhere::First)
            .each(move |message: &MessageExt| arrived.send(message.clone()).map_err(|_| "nobody takes it".into()))
            .start()
            .expect("a consumer");
        Self { group, consumer, arrivals }
    }

    /// Waits until a message with each of these bodies has arrived, closes the inbox, and returns one message for each
    /// body. An unexpected message is a failure; a duplicate is only printed.
    pub(crate) fn await_all(self, expected: &[Vec<u8>]) -> BTreeMap<Vec<u8>, MessageExt> {
        let deadline = Instant::now() + PATIENCE;
        let mut received = BTreeMap::new();
        let mut doubles = 0;
        while received.len() < expected.len() {
            let Ok(message) = self.arrivals.recv_deadline(deadline) else {
                panic!("only {} of {} messages came: {:?}", received.len(), expected.len(), self.consumer);
            };
            doubles += usize::from(received.insert(message.body().to_vec(), message).is_some());
        }
        let report = self.consumer.shutdown(PATIENCE);
        assert!(report.is_clean(), "{report:?}");
        for message in self.arrivals.try_iter() {
            doubles += usize::from(received.insert(message.body().to_vec(), message).is_some());
        }
        if doubles > 0 {
            println!("{doubles} of {} messages came more than once", expected.len());
        }
        let mut expected = expected.to_vec();
        expected.sort();
        assert_eq!(received.keys().cloned().collect::<Vec<_>>(), expected);
        received
    }

    /// Waits until a message with each of these bodies has arrived, among any others, and closes the inbox.
    pub(crate) fn await_at_least(self, expected: &BTreeSet<Vec<u8>>) -> BTreeMap<Vec<u8>, MessageExt> {
        let deadline = Instant::now() + PATIENCE;
        let mut received = BTreeMap::new();
        while !expected.iter().all(|body| received.contains_key(body)) {
            let message = self.arrivals.recv_deadline(deadline).expect("another message");
            received.insert(message.body().to_vec(), message);
        }
        assert!(self.consumer.shutdown(PATIENCE).is_clean());
        received
    }
}
