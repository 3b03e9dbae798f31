//! The path from a user's program to a broker and back.

use std::time::Duration;

use rocketmq_sync::{ConsumeFromWhere, FilterExpression, Message, MessageExt, Producer, PushConsumer};

use super::{Cluster, unique};

const PATIENCE: Duration = Duration::from_secs(60);

/// SEND-13: what is sent is consumed, each message once.
pub(crate) fn send_13_ten_messages_are_sent_and_consumed(cluster: &dyn Cluster) {
    let topic = unique("T");
    cluster.create_topic(&topic, 4);
    let producer =
        Producer::builder(unique("P")).name_servers([cluster.name_server_list()]).start().expect("a producer");
    let (consumed, arrivals) = crossbeam_channel::unbounded();
    let consumer = PushConsumer::builder(unique("G"))
        .client(producer.client())
        .subscribe(topic.as_str(), FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .each(move |message: &MessageExt| consumed.send(message.clone()))
        .start()
        .expect("a consumer");
    for number in 0..10 {
        producer.send(&Message::new(topic.as_str(), format!("body {number}"))).expect("stored");
    }
    let mut bodies: Vec<String> = (0..10)
        .map(|_| arrivals.recv_timeout(PATIENCE).expect("a message"))
        .map(|message| String::from_utf8_lossy(message.body()).into_owned())
        .collect();
    bodies.sort();
    assert_eq!(bodies, (0..10).map(|number| format!("body {number}")).collect::<Vec<_>>());
    let report = consumer.shutdown(PATIENCE);
    assert!(report.is_clean(), "{report:?}");
    assert!(arrivals.try_recv().is_err());
    assert!(producer.shutdown(PATIENCE).is_clean());
}
