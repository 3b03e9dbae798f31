//! Messages whose listener fails: times of their retries, their content, and their end.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use crossbeam_channel::bounded;
use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode, ResponseCode};
use rocketmq_sync::{
    ConsumeContext, ConsumeStatus, ErrorKind, FilterExpression, Message, MessageExt, MessageQueue, PushConsumer,
    PushConsumerBuilder, RetryDelay,
};

use super::deliveries::{Deliveries, end, member, producer, send, send_all, set, text};
use super::raw::{self, fields};
use super::{Cluster, eventually, logs, unique};

/// Longer than any test: timers with this interval do not fire in one.
const NEVER: Duration = Duration::from_secs(60 * 60);

/// RETRY-01: the first retry waits for level 3 of the broker, the second for level 4. No periodic query of routes or
/// members helps: a new group's retry topic is found because its first heartbeat created it.
pub(crate) fn retry_01_the_first_two_retries_wait_for_their_levels(cluster: &dyn Cluster) {
    let (topic, deliveries) = (unique("T"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let builder = member(cluster, &unique("G")).route_interval(NEVER).rebalance_interval(NEVER);
    let consumer = failing(builder.heartbeat_interval(NEVER), &topic, &deliveries, 2);
    send(&producer(cluster), &Message::new(&*topic, "fails twice"));
    let stored: Vec<_> = deliveries.await_times("fails twice", 3).iter().map(|message| message.stored_at()).collect();
    let gap = |earlier: usize| stored[earlier + 1].duration_since(stored[earlier]).unwrap_or_default();
    // By the broker's clock; a real one checks due messages every 100 ms.
    assert!(gap(0) >= Duration::from_millis(900), "{stored:?}");
    assert!(gap(1) >= Duration::from_millis(2900), "{stored:?}");
    end([consumer]);
}

/// RETRY-02: with a maximum of 0 a failed message is a dead letter at once. A message of another group, which failed
/// later and was delivered three times since, shows that no retry was pending.
pub(crate) fn retry_02_with_no_retries_a_failed_message_is_a_dead_letter(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let consumer = failing(member(cluster, &group).max_reconsume_times(0), &topic, &deliveries, i32::MAX);
    let producer = producer(cluster);
    send(&producer, &Message::new(&*topic, "dead").with_tag("A").with_property("colour", "blue"));
    let dead = await_dead_letter(cluster, &group);
    assert_eq!((text(&dead).as_str(), dead.tag(), dead.property("colour")), ("dead", Some("A"), Some("blue")));

    let others = Deliveries::default();
    let other = failing(member(cluster, &unique("G")), &topic, &others, 2);
    others.await_times("dead", 3);
    end([consumer, other]);
    assert_eq!(deliveries.of("dead").len(), 1);
}

/// The largest properties that a producer accepts leave the brokers room for their own. The message is retried and
/// becomes a dead letter like any other, with the longest names of topic and group that every version allows.
pub(crate) fn the_largest_properties_survive_retries_and_the_dead_letter_queue(cluster: &dyn Cluster) {
    /// Size of the names, the separators and the value of `UNIQ_KEY`.
    const AROUND: usize = "filler".len() + 2 + "UNIQ_KEY".len() + 32 + 2;
    const LARGEST: usize = 32_767 - 768;
    let (topic, group) = (format!("{:x<127}", unique("T")), format!("{:x<120}", unique("G")));
    cluster.create_topic(&topic, 1);
    let producer = producer(cluster);
    let of_size = |size: usize| Message::new(&*topic, "heavy").with_property("filler", "v".repeat(size - AROUND));
    let refused = producer.send(&of_size(LARGEST + 1)).expect_err("one byte more");
    assert_eq!(refused.kind(), ErrorKind::InvalidMessage, "{refused}");
    let message = of_size(LARGEST);
    send(&producer, &message);

    let deliveries = Deliveries::default();
    let consumer = failing(member(cluster, &group).max_reconsume_times(1), &topic, &deliveries, i32::MAX);
    let mut seen = deliveries.await_times("heavy", 2);
    seen.push(await_dead_letter(cluster, &group));
    end([consumer]);
    for delivery in seen {
        assert!(delivery.property("filler") == message.property("filler"), "another filler");
    }
    assert_eq!(deliveries.count(), 2);
}

/// RETRY-03: a panic and an error are failures like any other, and the thread continues.
pub(crate) fn retry_03_a_panic_and_an_error_lead_to_a_retry(cluster: &dyn Cluster) {
    let (topic, deliveries) = (unique("T"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let seen = deliveries.clone();
    let consumer = member(cluster, &unique("G"))
        .consume_threads(1)
        .subscribe(&topic, FilterExpression::all())
        .each(move |message: &MessageExt| {
            seen.add("consumer", message);
            match (text(message).as_str(), message.reconsume_times()) {
                ("panics", 0) => panic!("panic of the scenario's listener"),
                ("errs", 0) => Err("an error".into()),
                _ => Ok(()),
            }
        })
        .start()
        .expect("a consumer");
    let producer = producer(cluster);
    for body in ["panics", "errs", "is fine"] {
        send(&producer, &Message::new(&*topic, body));
    }
    for body in ["panics", "errs"] {
        let times: Vec<_> = deliveries.await_times(body, 2).iter().map(|message| message.reconsume_times()).collect();
        assert_eq!(times, [0, 1], "{body}");
    }
    deliveries.await_bodies(&set(&["is fine"]));
    end([consumer]);
    assert_eq!(deliveries.count(), 5);
}

/// RETRY-04: every delivery shows the message as it was sent.
pub(crate) fn retry_04_a_message_succeeds_at_its_third_delivery(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let consumer = failing(member(cluster, &group), &topic, &deliveries, 2);
    let message =
        Message::new(&*topic, "third time lucky").with_tag("A").with_key("42").with_property("colour", "blue");
    let sent = send(&producer(cluster), &message);
    let seen = deliveries.await_times("third time lucky", 3);
    for (times, delivery) in (0..).zip(&seen) {
        assert_eq!(delivery.reconsume_times(), times);
        assert_eq!(delivery.topic(), topic);
        assert_eq!(delivery.msg_id(), sent.msg_id);
        assert_eq!(
            (delivery.tag(), delivery.keys(), delivery.property("colour")),
            (Some("A"), Some("42"), Some("blue"))
        );
    }
    end([consumer]);
    assert_eq!(deliveries.count(), 3);
    let retry_topic = format!("%RETRY%{group}");
    eventually("the retries are consumed", || {
        let offset = |broker: &super::Broker| cluster.committed_offset(&broker.name, &group, &retry_topic, 0);
        cluster.brokers().iter().filter_map(offset).sum::<i64>() == 2
    });
}

/// RETRY-05: a message that waits too long for a thread goes back to the broker and is redelivered. A message that a
/// listener has begun stays with it, for any duration.
pub(crate) fn retry_05_a_message_that_waits_too_long_goes_back_and_a_running_one_does_not(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let broker = cluster.brokers()[0].name.as_str();
    let queue = MessageQueue::new(topic.as_str(), broker, 0);
    let producer = producer(cluster);
    let store = |body: &'static str| producer.to_queue(&queue).send(&Message::new(&*topic, body)).expect("stored");
    let (release, released) = bounded::<()>(0);
    let seen = deliveries.clone();
    let consumer = member(cluster, &group)
        .consume_threads(1)
        .consume_timeout(Duration::from_secs(1))
        .subscribe(&topic, FilterExpression::all())
        .each(move |message: &MessageExt| {
            seen.add("consumer", message);
            if text(message) == "runs long" {
                let _ = released.recv();
            }
            Ok(())
        })
        .start()
        .expect("a consumer");
    store("runs long");
    deliveries.await_times("runs long", 1);
    store("waits");
    let retry_topic = format!("%RETRY%{group}");
    let gone_back = || {
        let brokers = cluster.brokers().iter();
        let has_retry_topic = cluster.route(&retry_topic).is_some();
        if has_retry_topic { brokers.map(|broker| cluster.max_offset(&broker.name, &retry_topic, 0)).sum() } else { 0 }
    };
    eventually("the message that waits is in the retry topic", || gone_back() == 1);
    assert_eq!(cluster.committed_offset(broker, &group, &topic, 0).unwrap_or(0), 0, "past a running message");
    drop(release);
    let times: Vec<_> = deliveries.await_times("waits", 1).iter().map(|message| message.reconsume_times()).collect();
    assert_eq!(times, [1]);
    eventually("both are committed", || cluster.committed_offset(broker, &group, &topic, 0) == Some(2));
    end([consumer]);
    assert_eq!((deliveries.of("runs long").len(), deliveries.of("waits").len(), gone_back()), (1, 1, 1));
}

/// RETRY-10: the default maximum is 16 retries; the failure after them makes one dead letter, which contains its
/// origin.
pub(crate) fn retry_10_the_seventeenth_failure_makes_one_dead_letter(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let consumer = failing(member(cluster, &group), &topic, &deliveries, i32::MAX);
    let receipt = send(&producer(cluster), &Message::new(&*topic, "hopeless").with_property("colour", "blue"));
    let said = logs::about(&receipt.msg_id);
    deliveries.await_times("hopeless", 17);
    let dead = await_dead_letter(cluster, &group);
    end([consumer]);
    let times: Vec<_> = deliveries.of("hopeless").iter().map(|message| message.reconsume_times()).collect();
    assert_eq!((text(&dead), dead.property("colour")), ("hopeless".to_owned(), Some("blue")));
    assert_eq!(dead.property("RETRY_TOPIC"), Some(&*topic));
    assert_eq!(dead.property("ORIGIN_MESSAGE_ID"), Some(&*receipt.offset_msg_id));
    if said.has("back: the deadline passed before the reply came") {
        // A broker that stalls for seconds may store a message without a response, and also the copy published instead.
        // A broker that refuses has stored nothing.
        println!("a broker stalled: {times:?}, {} dead letters", dead_letters(cluster, &group));
        assert_eq!(BTreeSet::from_iter(times), (0..=16).collect());
    } else {
        assert_eq!(times, (0..=16).collect::<Vec<_>>());
        assert_eq!((dead_letters(cluster, &group), deliveries.count()), (1, 17));
    }
}

/// A listener may choose the level itself, and send a message to the dead-letter queue.
pub(crate) fn a_listener_chooses_the_delay_or_the_dead_letter_queue(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let seen = deliveries.clone();
    let consumer = member(cluster, &group)
        .subscribe(&topic, FilterExpression::all())
        .concurrently(move |messages: &[MessageExt], context: &mut ConsumeContext| {
            messages.iter().for_each(|message| seen.add("consumer", message));
            context.set_retry_delay(match messages {
                [message] if text(message) == "hopeless" => RetryDelay::DeadLetter,
                [message] if message.reconsume_times() == 0 => RetryDelay::Level(4),
                _ => return ConsumeStatus::Success,
            });
            ConsumeStatus::RetryLater
        })
        .start()
        .expect("a consumer");
    let producer = producer(cluster);
    for body in ["hopeless", "later"] {
        send(&producer, &Message::new(&*topic, body));
    }
    assert_eq!(text(&await_dead_letter(cluster, &group)), "hopeless");
    let stored: Vec<_> = deliveries.await_times("later", 2).iter().map(|message| message.stored_at()).collect();
    let gap = stored[1].duration_since(stored[0]).unwrap_or_default();
    assert!(gap >= Duration::from_millis(2900), "{stored:?}");
    end([consumer]);
    assert_eq!(deliveries.of("hopeless").len(), 1);
}

/// Only the rest of a partly consumed batch is redelivered.
pub(crate) fn the_unacknowledged_rest_of_a_batch_comes_again(cluster: &dyn Cluster) {
    let (topic, deliveries) = (unique("T"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let bodies = send_all(&producer(cluster), &topic, (0..8).map(|number| format!("body {number}")));
    let (seen, failed) = (deliveries.clone(), Deliveries::default());
    let failing = failed.clone();
    let consumer = member(cluster, &unique("G"))
        .consume_batch(8)
        .subscribe(&topic, FilterExpression::all())
        .concurrently(move |messages: &[MessageExt], context: &mut ConsumeContext| {
            messages.iter().for_each(|message| seen.add("consumer", message));
            let is_third = |message: &MessageExt| text(message) == "body 3" && message.reconsume_times() == 0;
            if let Some(consumed) = messages.iter().position(is_third) {
                context.acknowledge_first(consumed);
                messages[consumed..].iter().for_each(|message| failing.add("consumer", message));
            }
            ConsumeStatus::Success
        })
        .start()
        .expect("a consumer");
    deliveries.await_bodies(&bodies);
    for body in failed.bodies() {
        deliveries.await_times(&body, 2);
    }
    end([consumer]);
    for body in &bodies {
        let times = if failed.bodies().contains(body) { 2 } else { 1 };
        assert_eq!(deliveries.of(body).len(), times, "{body}");
    }
}

/// A listener of single messages has a result for each: a failure does not affect the other messages of the pull.
pub(crate) fn of_what_came_together_only_the_messages_that_fail_come_again(cluster: &dyn Cluster) {
    let (topic, deliveries) = (unique("T"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let bodies = send_all(&producer(cluster), &topic, (0..8).map(|number| format!("body {number}")));
    let seen = deliveries.clone();
    let consumer = member(cluster, &unique("G"))
        .consume_threads(1)
        .consume_batch(8)
        .subscribe(&topic, FilterExpression::all())
        .each(move |message: &MessageExt| {
            seen.add("consumer", message);
            match (text(message).as_str(), message.reconsume_times()) {
                ("body 2", 0) => Err("not yet".into()),
                ("body 5", 0) => panic!("panic of the scenario's listener"),
                _ => Ok(()),
            }
        })
        .start()
        .expect("a consumer");
    let fail = set(&["body 2", "body 5"]);
    deliveries.await_bodies(&bodies);
    for body in &fail {
        deliveries.await_times(body, 2);
    }
    end([consumer]);
    for body in &bodies {
        let times: Vec<_> = deliveries.of(body).iter().map(|message| message.reconsume_times()).collect();
        assert_eq!(times, if fail.contains(body) { vec![0, 1] } else { vec![0] }, "{body}");
    }
}

/// A body that is marked as compressed and is not fails alone: the messages around it are consumed.
pub(crate) fn a_corrupt_body_is_a_dead_letter_and_its_neighbours_are_consumed(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let broker = cluster.brokers()[0].address;
    for (body, sys_flag) in [("before", "0"), ("not compressed at all", "1"), ("after", "0")] {
        let header = fields(&[
            ("a", "raw-producer"),
            ("b", &topic),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", "0"),
            ("f", sys_flag),
            ("g", "1700000000000"),
            ("h", "0"),
            ("j", "0"),
            ("k", "false"),
        ]);
        let request = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, &header).with_body(body);
        let response = raw::request(broker, request).expect("an answer");
        assert_eq!(response.response_code(), ResponseCode::SUCCESS, "{response:?}");
    }
    let seen = deliveries.clone();
    let consumer = member(cluster, &group)
        .max_reconsume_times(0)
        .consume_batch(8)
        .subscribe(&topic, FilterExpression::all())
        .concurrently(move |messages: &[MessageExt], _: &mut ConsumeContext| {
            messages.iter().for_each(|message| seen.add("consumer", message));
            ConsumeStatus::Success
        })
        .start()
        .expect("a consumer");
    deliveries.await_bodies(&set(&["before", "after"]));
    eventually("the whole queue is behind the group", || {
        cluster.committed_offset(&cluster.brokers()[0].name, &group, &topic, 0) == Some(3)
    });
    eventually("the corrupt message is a dead letter", || dead_letters(cluster, &group) == 1);
    end([consumer]);
    assert_eq!(deliveries.count(), 2);
}

/// Starts a consumer whose listener fails for each message's first `times` deliveries.
fn failing(builder: PushConsumerBuilder, topic: &str, deliveries: &Deliveries, times: i32) -> PushConsumer {
    let seen = deliveries.clone();
    let listener = move |message: &MessageExt| -> Result<(), Box<dyn Error + Send + Sync>> {
        seen.add("consumer", message);
        if message.reconsume_times() < times { Err("failed by the scenario".into()) } else { Ok(()) }
    };
    builder.subscribe(topic, FilterExpression::all()).each(listener).start().expect("a consumer")
}

/// Reads the first dead letter of a group, like any consumer.
fn await_dead_letter(cluster: &dyn Cluster, group: &str) -> MessageExt {
    eventually("there is a dead letter", || dead_letters(cluster, group) > 0);
    let deliveries = Deliveries::default();
    let reader = member(cluster, &unique("reader"))
        .subscribe(format!("%DLQ%{group}"), FilterExpression::all())
        .each(deliveries.taker("reader"))
        .start()
        .expect("a consumer");
    eventually("the dead letter is read", || deliveries.count() > 0);
    end([reader]);
    deliveries.all().remove(0).message
}

fn dead_letters(cluster: &dyn Cluster, group: &str) -> i64 {
    let topic = format!("%DLQ%{group}");
    if cluster.route(&topic).is_none() {
        return 0;
    }
    cluster.brokers().iter().map(|broker| cluster.max_offset(&broker.name, &topic, 0)).sum()
}
