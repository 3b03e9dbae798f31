//! Messages that other clients write and this one never does: invalid text, raw DEFLATE, and replies that are too long.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rocketmq_sync::unversioned::wire::{ExtFields, RemotingCommand, RequestCode, ResponseCode};
use rocketmq_sync::{Client, FilterExpression, Message, MessageExt, MessageQueue, PushConsumer};

use super::deliveries::{Deliveries, end, member, set};
use super::inbox;
use super::raw::{self, fields};
use super::{Cluster, eventually, unique};

/// Encodes a message of a batch as its sender does.
fn batched(body: &str, properties: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    let size = 22 + body.len() + properties.len();
    message.extend(u32::try_from(size).expect("a small message").to_be_bytes());
    // Magic, CRC, flag.
    message.extend([0; 12]);
    message.extend(u32::try_from(body.len()).expect("a small body").to_be_bytes());
    message.extend(body.as_bytes());
    message.extend(u16::try_from(properties.len()).expect("properties").to_be_bytes());
    message.extend(properties);
    message
}

/// Header of a send to queue 0, in its short form.
fn header(topic: &str, sys_flag: &str, properties: &str, batch: bool) -> ExtFields {
    fields(&[
        ("a", "raw-producer"),
        ("b", topic),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "0"),
        ("f", sys_flag),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", properties),
        ("j", "0"),
        ("k", "false"),
        ("m", if batch { "true" } else { "false" }),
    ])
}

fn send_batch(cluster: &dyn Cluster, topic: &str, properties: &str, messages: &[Vec<u8>]) -> RemotingCommand {
    let header = header(topic, "0", properties, true);
    let request = RemotingCommand::request(RequestCode::SEND_BATCH_MESSAGE, &header).with_body(messages.concat());
    raw::request(cluster.brokers()[0].address, request).expect("an answer")
}

fn await_committed(cluster: &dyn Cluster, group: &str, topic: &str, offset: i64) {
    eventually("the whole queue is behind the group", || {
        cluster.committed_offset(&cluster.brokers()[0].name, group, topic, 0) == Some(offset)
    });
}

/// Brokers keep the properties of a batch byte for byte.
pub(crate) fn a_batch_with_foreign_text_is_shown_with_replacement_characters(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let messages = [
        batched("before", b"colour\x01red\x02"),
        batched("foreign", b"colour\x01\xC7\xE0\x02size\x01large\x02"),
        batched("after", b"colour\x01green\x02"),
    ];
    let answer = send_batch(cluster, &topic, "WAIT\u{1}true", &messages);
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
    let consumer = member(cluster, &group)
        .subscribe(&topic, FilterExpression::all())
        .each(deliveries.taker("consumer"))
        .start()
        .expect("a consumer");
    deliveries.await_bodies(&set(&["before", "foreign", "after"]));
    await_committed(cluster, &group, &topic, 3);
    end([consumer]);
    let foreign = deliveries.await_times("foreign", 1).remove(0);
    assert_eq!((foreign.property("colour"), foreign.property("size")), (Some("\u{FFFD}\u{FFFD}"), Some("large")));
    assert_eq!(deliveries.count(), 3);
}

/// The body is "hello deflate" in one stored block of DEFLATE, without the header and checksum of zlib.
pub(crate) fn a_body_in_raw_deflate_is_restored(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let body = "hello deflate";
    let length = u16::try_from(body.len()).expect("a small body");
    let raw = [&[1][..], &length.to_le_bytes(), &(!length).to_le_bytes(), body.as_bytes()].concat();
    let request =
        RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, &header(&topic, "1", "", false)).with_body(raw);
    let answer = raw::request(cluster.brokers()[0].address, request).expect("an answer");
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
    let consumer = member(cluster, &group)
        .subscribe(&topic, FilterExpression::all())
        .each(deliveries.taker("consumer"))
        .start()
        .expect("a consumer");
    deliveries.await_bodies(&set(&[body]));
    await_committed(cluster, &group, &topic, 1);
    end([consumer]);
}

/// A retry adds properties: the copy has none of them, and is delivered under its own id.
pub(crate) fn a_received_message_is_sent_on_as_a_new_one(cluster: &dyn Cluster) {
    let (topic, archive, group) = (unique("T"), unique("Archive"), unique("G"));
    cluster.create_topic(&topic, 1);
    cluster.create_topic(&archive, 1);
    let deliveries = Deliveries::default();
    let producer = Arc::new(inbox::producer(cluster).start().expect("a producer"));
    let message = Message::new(&*topic, "x".repeat(10_000)).with_tag("A").with_keys(["k1", "k2"]).with_flag(7);
    let sent = producer.send(&message.with_property("colour", "blue")).expect("a receipt");
    let (forwarder, to) = (Arc::clone(&producer), archive.clone());
    let forward = member(cluster, &group).subscribe(&topic, FilterExpression::all());
    let forward = forward.each(move |message: &MessageExt| {
        if message.reconsume_times() == 0 {
            return Err("not yet".into());
        }
        forwarder.send(&message.to_message(to.as_str()))?;
        Ok(())
    });
    let forward = forward.start().expect("a consumer");
    let reader = member(cluster, &unique("G")).subscribe(&archive, FilterExpression::tags(["A"]));
    let reader = reader.each(deliveries.taker("reader")).start().expect("a consumer");
    let body = "x".repeat(10_000);
    let copy = deliveries.await_times(&body, 1).remove(0);
    end([forward, reader]);
    assert_eq!(
        (copy.topic(), copy.tag(), copy.keys(), copy.message().flag()),
        (&*archive, Some("A"), Some("k1 k2"), 7)
    );
    assert_eq!((copy.property("colour"), copy.reconsume_times()), (Some("blue"), 0));
    assert_ne!(copy.msg_id(), sent.msg_id.as_str());
    for left_behind in
        ["RETRY_TOPIC", "ORIGIN_MESSAGE_ID", "RECONSUME_TIME", "MAX_RECONSUME_TIMES", "DELAY", "REAL_TOPIC"]
    {
        assert_eq!(copy.property(left_behind), None, "{left_behind}");
    }
}

/// The queue of a message that is too long waits; the other queues of its broker are consumed on the same connection.
/// Raising the limit is sufficient.
pub(crate) fn a_message_beyond_the_frame_limit_holds_up_its_own_queue_alone(cluster: &dyn Cluster) {
    const LIMIT: usize = 64 * 1024;
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 2);
    let broker = cluster.brokers()[0].name.clone();
    let (blocked, free) = (MessageQueue::new(&*topic, &*broker, 0), MessageQueue::new(&*topic, &*broker, 1));
    let producer = inbox::producer(cluster).compression(None).start().expect("a producer");
    let mut small = BTreeSet::new();
    let mut send = |queue: &MessageQueue, body: String| {
        producer.to_queue(queue).send(&Message::new(&*topic, body.clone())).expect("a receipt");
        small.insert(body);
    };
    // Together beyond the limit, each alone within it.
    (0..10).for_each(|number| send(&blocked, format!("{number}{}", "x".repeat(10_000))));
    (0..10).for_each(|number| send(&free, format!("{number}{}", "y".repeat(10_000))));
    let large = "z".repeat(2 * LIMIT);
    producer.to_queue(&blocked).send(&Message::new(&*topic, large.clone())).expect("a receipt");
    send(&blocked, "behind it".to_owned());
    small.remove("behind it");
    let client = |limit| {
        let builder =
            Client::builder().name_servers([cluster.name_server_list()]).offset_interval(Duration::from_millis(200));
        builder.max_frame_length(limit).start().expect("a client")
    };
    let start = |client: &Client, name: &'static str| -> PushConsumer {
        PushConsumer::builder(&*group)
            .client(client)
            .consume_from(rocketmq_sync::ConsumeFromWhere::First)
            .subscribe(&topic, FilterExpression::all())
            .each(deliveries.taker(name))
            .start()
            .expect("a consumer")
    };
    let short = client(LIMIT);
    let consumer = start(&short, "short");
    deliveries.await_bodies(&small);
    eventually("the queue is known to wait for a message that is too long", || {
        consumer.status(&blocked).unwrap().map(|status| status.to_string()).is_some_and(|words| {
            words.contains("from offset 10") && words.contains(&format!("exceeds max_frame_length {LIMIT}"))
        })
    });
    // The broker's other queue continues in the meantime.
    let more = "more of the free queue".to_owned();
    producer.to_queue(&free).send(&Message::new(&*topic, more.clone())).expect("a receipt");
    small.insert(more);
    deliveries.await_bodies(&small);
    end([consumer]);
    drop(short);
    let long = client(16 * 1024 * 1024);
    let consumer = start(&long, "long");
    small.extend([large, "behind it".to_owned()]);
    deliveries.await_bodies(&small);
    end([consumer]);
}
