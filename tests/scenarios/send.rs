//! Synchronous and one-way sends: valid messages, and their content on arrival.

use std::collections::BTreeSet;
use std::thread;

use rocketmq_sync::unversioned::wire::{HeaderEncoding, RemotingCommand, RequestCode, ResponseCode};
use rocketmq_sync::{Certainty, Codec, ErrorKind, Message, MessageQueue, SendStatus};

use super::inbox::{Inbox, bodies, numbered, producer};
use super::raw::{self, fields};
use super::{Cluster, Server, eventually, unique};

/// SEND-07: plain, to a queue, through a selector: each of 20 one-way messages arrives at its destination.
pub(crate) fn send_07_oneway_messages_arrive_in_every_way_of_sending(cluster: &dyn Cluster) {
    let producer = producer(cluster).start().expect("a producer");
    for way in ["plain", "queue", "selector"] {
        let topic = unique("Oneway");
        cluster.create_topic(&topic, 8);
        // One connection carries them in order, so that waiting for the last of a queue waits for all.
        let inbox = Inbox::open(producer.client(), &topic);
        let chosen = MessageQueue::new(topic.as_str(), cluster.brokers()[0].name.as_str(), 5);
        let messages = numbered(&topic, 20);
        for message in &messages {
            let sent = match way {
                "plain" => producer.send_oneway(message),
                "queue" => producer.to_queue(&chosen).send_oneway(message),
                _ => producer.by(|queues, _| index_of(queues, &chosen)).send_oneway(message),
            };
            sent.expect("handed to a connection");
        }
        let received = inbox.await_all(&bodies(&messages));
        if way != "plain" {
            assert!(received.values().all(|message| message.message_queue() == chosen), "{way}");
        }
    }
}

/// SEND-08: a panicking selector, one that chooses no queue, and a queue of another topic fail their own call.
pub(crate) fn send_08_wrong_oneway_calls_are_told_to_their_caller(cluster: &dyn Cluster) {
    let topic = unique("Oneway");
    cluster.create_topic(&topic, 1);
    let producer = producer(cluster).start().expect("a producer");
    let message = Message::new(topic.as_str(), "wrong");
    let broker = cluster.brokers()[0].name.as_str();
    for (kind, call) in [
        (ErrorKind::BadSelection, producer.by(|_, _| panic!("a user's mistake")).send_oneway(&message)),
        (ErrorKind::BadSelection, producer.by(|queues, _| queues.len()).send_oneway(&message)),
        (
            ErrorKind::InvalidMessage,
            producer.to_queue(&MessageQueue::new(unique("Other"), broker, 0)).send_oneway(&message),
        ),
        (ErrorKind::NoBroker, producer.to_queue(&MessageQueue::new(topic.as_str(), broker, 100)).send_oneway(&message)),
    ] {
        let error = call.expect_err("it is wrong");
        assert_eq!((error.kind(), error.certainty()), (kind, Certainty::NotSent), "{error}");
    }
    let right = Message::new(topic.as_str(), "right");
    producer.send_oneway(&right).expect("handed to a connection");
    Inbox::open(producer.client(), &topic).await_all(&bodies([&right]));
}

/// SEND-09: a message that cannot be stored is refused before anything is sent; large bodies and properties arrive
/// unchanged.
pub(crate) fn send_09_wrong_messages_are_refused_and_large_ones_arrive(cluster: &dyn Cluster) {
    let topic = unique("Sizes");
    cluster.create_topic(&topic, 1);
    let producer = producer(cluster).compression(None).start().expect("a producer");
    for wrong in [
        Message::new(topic.as_str(), ""),
        Message::new(topic.as_str(), vec![b'x'; 4 * 1024 * 1024 + 1]),
        Message::new("", "body"),
        Message::new(" ", "body"),
    ] {
        let error = producer.send(&wrong).expect_err("nothing can store it");
        assert_eq!((error.kind(), error.certainty()), (ErrorKind::InvalidMessage, Certainty::NotSent), "{wrong:?}");
        assert!(error.attempts().is_empty());
    }
    let han = "汉".repeat(10 * 1024);
    let messages = [
        Message::new(topic.as_str(), vec![b'x'; 128 * 1024]),
        Message::new(topic.as_str(), vec![b'y'; 4 * 1024 * 1024]),
        Message::new(topic.as_str(), "with a property").with_property("han", &han),
    ];
    for message in &messages {
        assert_eq!(producer.send(message).expect("stored").status, SendStatus::Ok);
    }
    let received = Inbox::open(producer.client(), &topic).await_all(&bodies(&messages));
    assert_eq!(received[&b"with a property"[..]].property("han"), Some(han.as_str()));
}

/// SEND-10: 10 Ki Chinese characters, 30 KiB as UTF-8, are read back unchanged.
pub(crate) fn send_10_a_property_of_ten_thousand_chinese_characters_arrives(cluster: &dyn Cluster) {
    let topic = unique("Han");
    cluster.create_topic(&topic, 1);
    let producer = producer(cluster).start().expect("a producer");
    let han: String = "属性汉字".chars().cycle().take(10 * 1024).collect();
    let message = Message::new(topic.as_str(), "body").with_property("汉", &han);
    producer.send(&message).expect("stored");
    let received = Inbox::open(producer.client(), &topic).await_all(&bodies([&message]));
    assert!(received[&b"body"[..]].property("汉") == Some(&han), "another value");
}

/// SEND-11: properties that a broker cannot store are refused before anything is sent. A broker that gets them
/// nevertheless refuses them too, and stores nothing.
pub(crate) fn send_11_properties_that_are_too_long_are_refused_here_and_there(cluster: &dyn Cluster) {
    let topic = unique("Han");
    cluster.create_topic(&topic, 1);
    let han = "汉".repeat(32 * 1024 + 1);
    let message = Message::new(topic.as_str(), "body").with_property("han", &han);
    let error = producer(cluster).start().expect("a producer").send(&message).expect_err("too long");
    assert_eq!((error.kind(), error.certainty()), (ErrorKind::InvalidMessage, Certainty::NotSent));
    assert!(error.to_string().contains("properties") && error.attempts().is_empty(), "{error}");

    let broker = cluster.brokers()[0].name.as_str();
    let properties = format!("han\u{1}{han}\u{2}");
    let response = send_raw(cluster, &[("b", &topic), ("i", &properties)], "body");
    assert_eq!(response.response_code(), ResponseCode::MESSAGE_ILLEGAL, "{response:?}");
    assert_eq!(cluster.max_offset(broker, &topic, 0), 0);
}

/// SEND-12: properties, tag, keys and flag arrive unchanged.
pub(crate) fn send_12_properties_arrive_as_they_were_sent(cluster: &dyn Cluster) {
    let topic = unique("Properties");
    cluster.create_topic(&topic, 2);
    let producer = producer(cluster).start().expect("a producer");
    let message = Message::new(topic.as_str(), "body")
        .with_tag("标签")
        .with_keys(["first", "第二"])
        .with_flag(-7)
        .with_property("colour", "blue and  green")
        .with_property("颜色", "蓝色 😀");
    let receipt = producer.send(&message).expect("stored");
    let received = Inbox::open(producer.client(), &topic).await_all(&bodies([&message]));
    let arrived = &received[&b"body"[..]];
    for (name, value) in message.properties().iter() {
        assert_eq!(arrived.property(name), Some(value), "{name}");
    }
    assert_eq!((arrived.tag(), arrived.keys()), (Some("标签"), Some("first 第二")));
    assert_eq!(arrived.message().flag(), -7);
    assert_eq!(arrived.msg_id(), receipt.msg_id);
    assert_eq!((arrived.message_queue(), arrived.queue_offset()), (receipt.queue, receipt.queue_offset));
}

/// SEND-14: bodies are bytes.
pub(crate) fn send_14_bodies_of_every_kind_arrive_unharmed(cluster: &dyn Cluster) {
    let topic = unique("Bodies");
    cluster.create_topic(&topic, 2);
    let producer = producer(cluster).start().expect("a producer");
    let all_pairs_of_bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_be_bytes).collect();
    let messages = [
        Message::new(topic.as_str(), " "),
        Message::new(topic.as_str(), "消息中间件"),
        Message::new(topic.as_str(), "😀🚀\u{200d}🏳️"),
        Message::new(topic.as_str(), vec![0]),
        Message::new(topic.as_str(), all_pairs_of_bytes),
    ];
    for message in &messages {
        producer.send(message).expect("stored");
    }
    Inbox::open(producer.client(), &topic).await_all(&bodies(&messages));
}

/// SEND-19: an invalid topic is refused before anything is sent.
pub(crate) fn send_19_topics_that_cannot_be_are_refused(cluster: &dyn Cluster) {
    let producer = producer(cluster).start().expect("a producer");
    for topic in ["", "\t", "a b", "with/slash", "with#hash", "主题", &"t".repeat(128), "SCHEDULE_TOPIC_XXXX"] {
        let error = producer.send(&Message::new(topic, "body")).expect_err(topic);
        assert_eq!((error.kind(), error.certainty()), (ErrorKind::InvalidMessage, Certainty::NotSent), "{topic}");
        assert!(error.to_string().contains("topic"), "{error}");
    }
}

/// SEND-20: where brokers create no topics, an unknown one is reported as such, by every way of sending.
pub(crate) fn send_20_a_topic_without_a_route_is_told(cluster: &dyn Cluster) {
    let topic = unique("Nowhere");
    let producer = producer(cluster).start().expect("a producer");
    let message = Message::new(topic.as_str(), "body");
    let (told, outcome) = crossbeam_channel::bounded(1);
    producer.send_async(message.clone(), move |result| drop(told.send(result))).expect("accepted");
    for result in [
        producer.send(&message).map(drop),
        producer.send_oneway(&message),
        producer.by(|_, _| 0).send(&message).map(drop),
        outcome.recv_timeout(super::inbox::PATIENCE).expect("an outcome").map(drop),
        producer.queues(&topic).map(drop),
    ] {
        let error = result.expect_err("there is no such topic");
        assert_eq!((error.kind(), error.certainty()), (ErrorKind::NoRoute, Certainty::NotSent));
        assert!(error.to_string().contains(&topic), "{error}");
    }
    assert_eq!(cluster.route(&topic), None);
}

/// SEND-22: the receipt contains the location of the message, under both of its ids; the caller's message is unchanged.
pub(crate) fn send_22_a_receipt_tells_where_the_message_is(cluster: &dyn Cluster) {
    let topic = unique("Receipts");
    cluster.create_topic(&topic, 1);
    let producer = producer(cluster).start().expect("a producer");
    let message = Message::new(topic.as_str(), "compressible ".repeat(1000)).with_tag("A");
    let before = message.clone();
    for offset in 0..3 {
        let broker = cluster.brokers()[0].name.as_str();
        let queue = MessageQueue::new(topic.as_str(), broker, 0);
        let receipt = producer.to_queue(&queue).send(&message).expect("stored");
        assert_eq!((receipt.status, receipt.queue_offset), (SendStatus::Ok, offset));
        assert_eq!(receipt.queue, queue);
        assert_eq!(receipt.msg_id.len(), 32, "{receipt:?}");
        let port = format!("{:08X}", cluster.broker_address(broker).port());
        assert!(receipt.offset_msg_id.starts_with(&format!("7F000001{port}")), "{receipt:?}");
        eventually("the message is counted", || cluster.max_offset(broker, &topic, 0) == offset + 1);
    }
    assert_eq!(message, before);
}

/// SEND-29: one thread, then five at once, each waiting, one-way, and with a sharding key; messages of a key keep their
/// order.
pub(crate) fn send_29_five_threads_share_a_producer_and_keys_keep_their_order(cluster: &dyn Cluster) {
    let topic = unique("Threads");
    cluster.create_topic(&topic, 4);
    let producer = producer(cluster).start().expect("a producer");
    let messages = numbered(&topic, 550);
    let queues = producer.queues(&topic).expect("queues");
    let send = |message: &Message| {
        let receipt = producer.send(message).expect("stored");
        assert!(receipt.status == SendStatus::Ok && !receipt.msg_id.is_empty(), "{receipt:?}");
    };
    let (alone, together) = messages.split_at(50);
    alone.iter().for_each(send);
    thread::scope(|scope| {
        for (thread, part) in together.chunks(100).enumerate() {
            let (producer, queues) = (&producer, &queues);
            scope.spawn(move || {
                let (part, keyed) = part.split_at(50);
                for pair in part.chunks(2) {
                    send(&pair[0]);
                    producer.send_oneway(&pair[1]).expect("handed over");
                }
                let key = format!("order {thread}");
                let mut last = None;
                for message in keyed {
                    let receipt = producer.by_key(&key).send(message).expect("stored");
                    assert!(!receipt.msg_id.is_empty() && queues.contains(&receipt.queue));
                    let place = (receipt.queue, receipt.queue_offset);
                    if let Some((queue, offset)) = last.replace(place.clone()) {
                        assert!(queue == place.0 && offset < place.1, "{queue} {offset}, then {place:?}");
                    }
                }
            });
        }
    });
    let received = Inbox::open(producer.client(), &topic).await_all(&bodies(&messages));
    let ids: BTreeSet<_> = received.values().map(|message| message.msg_id().into_owned()).collect();
    assert_eq!(ids.len(), messages.len());
}

/// Every codec and both header encodings: messages are consumed as they were sent.
pub(crate) fn compressed_bodies_and_both_header_encodings_arrive(cluster: &dyn Cluster) {
    let topic = unique("Encodings");
    cluster.create_topic(&topic, 2);
    let mut sent = Vec::new();
    for encoding in [HeaderEncoding::Json, HeaderEncoding::RocketMq] {
        for codec in [None, Some(Codec::Zlib), Some(Codec::Lz4), Some(Codec::Zstd)] {
            let producer = producer(cluster).header_encoding(encoding).compression(codec).start().expect("a producer");
            let body = format!("{encoding:?} {codec:?} ").repeat(4096);
            let message =
                Message::new(topic.as_str(), body).with_tag("标签").with_property("codec", format!("{codec:?}"));
            producer.send(&message).expect("stored");
            producer
                .send_oneway(&Message::new(topic.as_str(), format!("small {encoding:?} {codec:?}")))
                .expect("handed over");
            sent.push(message);
            sent.push(Message::new(topic.as_str(), format!("small {encoding:?} {codec:?}")));
        }
    }
    for encoding in [HeaderEncoding::Json, HeaderEncoding::RocketMq] {
        let reader = producer(cluster).header_encoding(encoding).start().expect("a producer");
        let received = Inbox::open(reader.client(), &topic).await_all(&bodies(&sent));
        for message in &sent {
            let arrived = &received[&message.body()[..]];
            assert_eq!((arrived.tag(), arrived.property("codec")), (message.tag(), message.property("codec")));
        }
    }
}

/// The first message to an unknown topic creates it, by every way of sending.
pub(crate) fn the_first_message_creates_its_topic(cluster: &dyn Cluster) {
    let producer = producer(cluster).start().expect("a producer");
    for way in ["sync", "async", "selector", "tracked"] {
        let topic = unique("Created");
        let message = Message::new(topic.as_str(), "first");
        let receipt = match way {
            "sync" => producer.send(&message),
            "selector" => producer.by(|queues, _| queues.len() - 1).send(&message),
            "async" => {
                let (told, outcome) = crossbeam_channel::bounded(1);
                producer.send_async(message, move |result| drop(told.send(result))).expect("accepted");
                outcome.recv_timeout(super::inbox::PATIENCE).expect("an outcome")
            }
            _ => {
                let completions = rocketmq_sync::Completions::new();
                producer.send_tracked(message, 1, &completions).expect("accepted");
                let mut finished = Vec::new();
                completions.take(&mut finished, super::inbox::PATIENCE).expect("results");
                finished.pop().expect("an outcome").result
            }
        };
        let receipt = receipt.expect("stored");
        assert_eq!(*receipt.queue.topic(), *topic);
        // Brokers register a created topic at the name servers.
        eventually("the new topic has a route", || cluster.route(&topic).is_some());
        if cluster.server() == Server::Mini {
            assert_eq!(cluster.max_offset(receipt.queue.broker_name(), &topic, receipt.queue.queue_id()), 1);
        }
        Inbox::open(producer.client(), &topic).await_all(&[b"first".to_vec()]);
    }
}

/// Sends to the first queue of the first broker without the client; `fields` are the relevant ones.
fn send_raw(cluster: &dyn Cluster, header: &[(&str, &str)], body: &'static str) -> RemotingCommand {
    let usual = [
        ("a", "raw-producer"),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", "0"),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
    ];
    let header = fields(&[header, &usual, &[("j", "0"), ("k", "false")]].concat());
    let request = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, &header).with_body(body);
    raw::request(cluster.brokers()[0].address, request).expect("an answer to a send")
}

fn index_of(queues: &[MessageQueue], wanted: &MessageQueue) -> usize {
    queues.iter().position(|queue| queue == wanted).expect("the queue is offered")
}
