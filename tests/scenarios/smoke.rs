//! Path from a user's program to a broker and back.

use std::time::Duration;

use rocketmq_sync::{ConsumeFromWhere, FilterExpression, Message, Producer, PushConsumer};

use super::{Cluster, unique};

const PATIENCE: Duration = Duration::from_secs(60);

/// SEND-13: messages sent in each of the three ways are consumed, each once.
pub(crate) fn send_13_ten_messages_of_each_way_are_sent_and_consumed(cluster: &dyn Cluster) {
    let topic = unique("T");
    cluster.create_topic(&topic, 4);
    let producer =
        Producer::builder(unique("P")).name_servers([cluster.name_server_list()]).start().expect("a producer");
    let (consumed, arrivals) = crossbeam_channel::unbounded();
    let consumer = PushConsumer::builder(unique("G"))
        .client(producer.client())
        .subscribe(topic.as_str(), FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .each(move |message| {
            let _ = consumed.send(message.clone());
            Ok(())
        })
        .start()
        .expect("a consumer");
    let mut sent: Vec<String> = Vec::new();
    for way in ["sync", "async", "one-way"] {
        for number in 0..10 {
            let body = format!("{way} {number}");
            let message = Message::new(topic.as_str(), body.clone());
            match way {
                "sync" => drop(producer.send(&message).expect("stored")),
                "async" => producer.send_async(message, |result| drop(result.expect("stored"))).expect("accepted"),
                _ => producer.send_oneway(&message).expect("handed over"),
            }
            sent.push(body);
        }
    }
    let mut bodies: Vec<String> = sent
        .iter()
        .map(|_| arrivals.recv_timeout(PATIENCE).expect("a message"))
        .map(|message| String::from_utf8_lossy(message.body()).into_owned())
        .collect();
    bodies.sort();
    sent.sort();
    assert_eq!(bodies, sent);
    let report = consumer.shutdown(PATIENCE);
    assert!(report.is_clean(), "{report:?}");
    assert!(arrivals.try_recv().is_err());
    assert!(producer.shutdown(PATIENCE).is_clean());
}
