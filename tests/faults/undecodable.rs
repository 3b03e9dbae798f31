//! Invalid stored messages: each occupies its place, and its neighbours are delivered.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use rocketmq_sync::mini_broker::{Fault, MiniBroker};
use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use rocketmq_sync::{
    Client, ConsumeFromWhere, FilterExpression, Message, MessageExt, MessageQueue, Producer, PushConsumer,
};

use crate::{PATIENCE, TOPIC, eventually, mini};

const GROUP: &str = "readers";
const SEND_BACK: RequestCode = RequestCode::CONSUMER_SEND_MSG_BACK;

/// Longer than the first retry delay by a broker's default levels.
const UNTIL_DUE: Duration = Duration::from_secs(20);

/// Positions in the layout of stored messages with IPv4 addresses.
const MAGIC: usize = 4;
const QUEUE_OFFSET: usize = 20;
const BORN_PORT: usize = 52;
const BODY: usize = 84;

fn queue() -> MessageQueue {
    MessageQueue::new(TOPIC, "broker-a", 0)
}

fn store(mini: &MiniBroker, bodies: &[&str]) {
    for body in bodies {
        let message = Message::new(TOPIC, (*body).to_owned()).with_tag("A").with_property("colour", "blue");
        mini.store(&queue(), &message);
    }
}

/// Rewrites bytes of the message with this body, counted from its beginning, in replies to pulls.
fn damage(body: &'static str, place: usize, bytes: Vec<u8>) -> Fault {
    Fault::alter(move |mut frame| {
        let text = frame.windows(body.len()).position(|window| window == body.as_bytes());
        if let Some(start) = text.map(|text| text - BODY - 4) {
            frame[start + place..start + place + bytes.len()].copy_from_slice(&bytes);
        }
        frame
    })
}

fn consumer(mini: &MiniBroker, expression: FilterExpression, retries: u32) -> (PushConsumer, Receiver<MessageExt>) {
    let (delivered, deliveries) = unbounded();
    let consumer = PushConsumer::builder(GROUP)
        .name_servers(mini.name_servers())
        .subscribe(TOPIC, expression)
        .consume_from(ConsumeFromWhere::First)
        .consume_batch(8)
        .max_reconsume_times(retries)
        .offset_interval(Duration::from_millis(100))
        .each(move |message: &MessageExt| delivered.send(message.clone()).map_err(|_| "the test is over".into()))
        .start()
        .unwrap();
    (consumer, deliveries)
}

fn bodies(deliveries: &Receiver<MessageExt>, count: usize) -> Vec<String> {
    let next = |_| deliveries.recv_timeout(PATIENCE).expect("a delivery");
    let mut bodies: Vec<_> =
        (0..count).map(next).map(|message| String::from_utf8(message.body().to_vec()).unwrap()).collect();
    bodies.sort();
    bodies
}

/// Damages that keep the size of a message valid and hide a part of it.
fn undecodable() -> [(&'static str, usize, Vec<u8>); 3] {
    [
        ("magic", MAGIC, vec![1; 4]),
        ("port", BORN_PORT, 70_000_i32.to_be_bytes().to_vec()),
        ("body length", BODY, 70_000_i32.to_be_bytes().to_vec()),
    ]
}

#[test]
fn a_message_that_cannot_be_decoded_goes_back_to_its_broker_and_its_neighbours_are_consumed() {
    for (what, place, bytes) in undecodable() {
        let mini = mini(1);
        store(&mini, &["one", "two!", "zzz"]);
        let damaged = mini.fail(RequestCode::PULL_MESSAGE, damage("two!", place, bytes).topic(TOPIC));
        let (consumer, deliveries) = consumer(&mini, FilterExpression::tags(["A"]), 5);
        assert_eq!(bodies(&deliveries, 2), ["one", "zzz"], "{what}");
        assert!(mini.wait_for_requests(SEND_BACK, 1, PATIENCE), "{what}");
        assert!(mini.fault_hits(damaged) > 0, "{what}");
        let second = mini.messages(TOPIC).remove(1).commit_log_offset().to_string();
        assert_eq!(mini.requests_of(SEND_BACK)[0].fields.get("offset"), Some(&*second), "{what}");
        assert!(mini.wait_for_committed_offset(GROUP, &queue(), 3, PATIENCE), "{what}");
        // The broker's own copy is valid.
        mini.advance(UNTIL_DUE);
        assert_eq!(bodies(&deliveries, 1), ["two!"], "{what}");
        assert!(consumer.shutdown(PATIENCE).is_clean(), "{what}");
    }
}

#[test]
fn a_message_that_cannot_be_decoded_and_is_not_taken_back_is_a_dead_letter_that_no_listener_sees() {
    for (what, place, bytes) in undecodable() {
        let mini = mini(1);
        store(&mini, &["one", "two!", "zzz"]);
        mini.fail(RequestCode::PULL_MESSAGE, damage("two!", place, bytes).topic(TOPIC));
        let refused = mini.fail(SEND_BACK, Fault::error(ResponseCode::SYSTEM_ERROR, "look message by offset failed"));
        let (consumer, deliveries) = consumer(&mini, FilterExpression::all(), 5);
        assert_eq!(bodies(&deliveries, 2), ["one", "zzz"], "{what}");
        assert!(mini.wait_for_fault(refused, 1, PATIENCE), "{what}");
        assert!(mini.wait_for_messages("%DLQ%readers", 1, PATIENCE), "{what}");
        assert!(mini.wait_for_committed_offset(GROUP, &queue(), 3, PATIENCE), "{what}");
        let dead = mini.messages("%DLQ%readers").remove(0);
        assert!(dead.body().windows(4).any(|bytes| bytes == b"two!"), "{what}");
        assert_eq!(
            (dead.body().len() > 4, dead.property("RETRY_TOPIC")),
            (what == "body length", Some(TOPIC)),
            "{what}"
        );
        mini.advance(UNTIL_DUE);
        assert!(consumer.shutdown(PATIENCE).is_clean(), "{what}");
        assert!(deliveries.is_empty(), "{what}");
    }
}

#[test]
fn a_message_with_foreign_text_or_a_negative_length_is_consumed_as_java_shows_it() {
    // After the body: the topic with its length, the properties' length, "TAGS".
    let properties = BODY + 4 + "two!".len() + 1 + TOPIC.len();
    for (what, place, bytes, tag) in [
        ("a tag", properties + 2 + 5, vec![0xFF], Some("\u{FFFD}")),
        ("properties", properties, (-32_000_i16).to_be_bytes().to_vec(), None),
        ("a topic", properties - 1, vec![0xFF], Some("A")),
    ] {
        let mini = mini(1);
        store(&mini, &["one", "two!", "zzz"]);
        mini.fail(RequestCode::PULL_MESSAGE, damage("two!", place, bytes).topic(TOPIC));
        let (consumer, deliveries) = consumer(&mini, FilterExpression::all(), 5);
        let mut received: Vec<_> = (0..3).map(|_| deliveries.recv_timeout(PATIENCE).expect(what)).collect();
        received.sort_by_key(|message| message.queue_offset());
        assert_eq!((&received[1].body()[..], received[1].tag()), (&b"two!"[..], tag), "{what}");
        assert!(mini.wait_for_committed_offset(GROUP, &queue(), 3, PATIENCE), "{what}");
        assert!(consumer.shutdown(PATIENCE).is_clean(), "{what}");
        assert_eq!(mini.request_count(SEND_BACK), 0, "{what}");
    }
}

#[test]
fn a_message_with_an_offset_that_was_not_asked_for_is_consumed_once() {
    for offset in [i64::MIN, -1, 0, 2, 500, i64::MAX] {
        let mini = mini(1);
        store(&mini, &["one", "two!", "zzz"]);
        mini.fail(RequestCode::PULL_MESSAGE, damage("two!", QUEUE_OFFSET, offset.to_be_bytes().to_vec()).topic(TOPIC));
        let (consumer, deliveries) = consumer(&mini, FilterExpression::all(), 5);
        assert_eq!(bodies(&deliveries, 3), ["one", "two!", "zzz"], "{offset}");
        assert!(mini.wait_for_committed_offset(GROUP, &queue(), 3, PATIENCE), "{offset}");
        assert!(consumer.shutdown(PATIENCE).is_clean(), "{offset}");
        assert!(deliveries.is_empty(), "{offset}");
    }
}

/// After the wrong length every later reply is read as the rest of a body, and bytes keep arriving.
#[test]
fn a_frame_length_that_lies_delays_what_follows_by_little_more_than_the_silence_limit() {
    let mini = mini(1);
    store(&mini, &["one"]);
    // The third byte of four.
    let lie = Fault::alter(|mut frame| {
        frame[1] |= 0x40;
        frame
    });
    let lied = mini.fail(RequestCode::PULL_MESSAGE, lie.topic(TOPIC).times(1));
    let client =
        Client::builder().name_servers(mini.name_servers()).silence_limit(Duration::from_secs(1)).start().unwrap();
    let producer = Producer::builder("senders").client(&client).start().unwrap();
    let (delivered, deliveries) = unbounded();
    let begun = Instant::now();
    let consumer = PushConsumer::builder(GROUP)
        .client(&client)
        .subscribe(TOPIC, FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .each(move |message: &MessageExt| delivered.send(message.clone()).map_err(|_| "the test is over".into()))
        .start()
        .unwrap();
    assert!(mini.wait_for_fault(lied, 1, PATIENCE));
    let first = loop {
        let _ = producer.send_oneway(&Message::new(TOPIC, "more"));
        let _ = producer.send_async(Message::new(TOPIC, "more"), |_| {});
        if let Ok(first) = deliveries.recv_timeout(Duration::from_millis(20)) {
            break first;
        }
        assert!(begun.elapsed() < PATIENCE);
    };
    // A single pull has half a minute.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    eventually("the message after the wrong length is consumed", || {
        first.body() == "one" || deliveries.try_iter().any(|message| message.body() == "one")
    });
    let _ = consumer.shutdown(PATIENCE);
}

/// Following the broker there would skip messages stored in the meantime.
#[test]
fn a_next_offset_beyond_the_end_that_its_reply_tells_is_not_followed() {
    let mini = mini(1);
    store(&mini, &["one"]);
    let beyond = |mut frame: Vec<u8>| {
        let place = frame.windows(19).position(|window| window == b"\"nextBeginOffset\":\"").expect("a field");
        frame[place + 19] = b'9';
        frame
    };
    let lied = mini.fail(RequestCode::PULL_MESSAGE, Fault::alter(beyond).topic(TOPIC).times(1));
    let (consumer, deliveries) = consumer(&mini, FilterExpression::all(), 5);
    assert_eq!(bodies(&deliveries, 1), ["one"]);
    store(&mini, &["two", "three"]);
    assert_eq!(bodies(&deliveries, 2), ["three", "two"]);
    assert_eq!(mini.fault_hits(lied), 1);
    assert!(consumer.shutdown(PATIENCE).is_clean());
}

#[test]
fn a_wrong_size_fails_the_pull_alone_and_the_queue_goes_on_with_the_next() {
    for size in [i32::MIN, -1, 0, 90, 1_000_000, i32::MAX] {
        let mini = mini(1);
        store(&mini, &["one", "two!", "zzz"]);
        let damage = damage("two!", 0, size.to_be_bytes().to_vec());
        let damaged = mini.fail(RequestCode::PULL_MESSAGE, damage.topic(TOPIC).times(2));
        let (consumer, deliveries) = consumer(&mini, FilterExpression::all(), 5);
        assert_eq!(bodies(&deliveries, 3), ["one", "two!", "zzz"], "{size}");
        eventually("the wrong size was seen", || mini.fault_hits(damaged) == 2);
        assert!(consumer.shutdown(PATIENCE).is_clean(), "{size}");
    }
}
