//! Queues that are not pulled: full by count, by bytes or by span, and paused.

use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use rocketmq_sync::mini_broker::MiniBroker;
use rocketmq_sync::unversioned::wire::RequestCode;
use rocketmq_sync::{
    ConsumeFromWhere, FilterExpression, Message, MessageExt, MessageQueue, PushConsumer, PushConsumerBuilder,
};

use crate::{PATIENCE, TOPIC, eventually, mini};

const GROUP: &str = "receivers";
const BODY: &str = "ten bytes.";
/// A full or paused row of the queue table is checked again after a second.
const UNTIL_LOOKED_AT_AGAIN: Duration = Duration::from_millis(1500);

#[test]
fn cc_11_a_queue_with_more_messages_than_it_may_cache_is_not_pulled() {
    a_full_queue_is_not_pulled(|builder| builder.max_cached_messages(10), "messages", [0, 1], 11);
}

#[test]
fn cc_11_a_queue_with_more_bytes_than_it_may_cache_is_not_pulled() {
    a_full_queue_is_not_pulled(|builder| builder.max_cached_bytes(10 * BODY.len()), "bytes", [0, 1], 11);
}

#[test]
fn cc_11_a_queue_whose_unresolved_messages_span_too_much_is_not_pulled() {
    a_full_queue_is_not_pulled(|builder| builder.max_span(10), "apart", [0, 11], 12);
}

#[test]
fn cc_11_a_paused_consumer_does_not_pull() {
    let mini = mini(1);
    let (delivered, deliveries) = unbounded();
    let consumer = builder(&mini)
        .each(move |message: &MessageExt| delivered.send(message.queue_offset()).map_err(|_| "the test is over".into()))
        .start()
        .unwrap();
    eventually("a pull waits at the broker", || pulls(&mini) == 1);
    consumer.pause();
    store(&mini, 1);
    assert_eq!(deliveries.recv_timeout(PATIENCE).unwrap(), 0, "what the pull under way brought");
    eventually("the queue is paused", || is_explained(&consumer, "paused"));
    store(&mini, 5);
    assert!(deliveries.recv_timeout(UNTIL_LOOKED_AT_AGAIN).is_err(), "a paused queue was pulled");
    assert_eq!(pulls(&mini), 1);
    consumer.resume();
    // The threads of the pool take the messages of a queue in any order.
    let mut resumed: Vec<_> = (0..5).map(|_| deliveries.recv_timeout(PATIENCE).unwrap()).collect();
    resumed.sort_unstable();
    assert_eq!(resumed, [1, 2, 3, 4, 5]);
    assert!(consumer.shutdown(PATIENCE).is_clean());
}

/// With one message per pull, and the two threads of the listener `held` by two messages, the queue is full for
/// `reason` after a number of pulls. No further pull is sent until the listener is released.
fn a_full_queue_is_not_pulled(
    limit: fn(PushConsumerBuilder) -> PushConsumerBuilder,
    reason: &str,
    held: [i64; 2],
    fill: usize,
) {
    let mini = mini(1);
    store(&mini, 40);
    let (holding, holds) = unbounded();
    let (release, released) = bounded::<()>(0);
    let consumer = limit(builder(&mini))
        .pull_batch(1)
        .consume_threads(2)
        .each(move |message: &MessageExt| {
            if held.contains(&message.queue_offset()) {
                let _ = holding.send(());
                let _ = released.recv();
            }
            Ok(())
        })
        .start()
        .unwrap();
    for _ in held {
        holds.recv_timeout(PATIENCE).unwrap();
    }
    eventually("the queue is full", || is_explained(&consumer, reason));
    assert_eq!(pulls(&mini), fill);
    // The listener sends nothing while it is held.
    assert!(holds.recv_timeout(UNTIL_LOOKED_AT_AGAIN).is_err());
    assert_eq!(pulls(&mini), fill, "a full queue was pulled");
    drop(release);
    assert!(mini.wait_for_committed_offset(GROUP, &queue(), 40, PATIENCE));
    assert!(consumer.shutdown(PATIENCE).is_clean());
}

fn builder(mini: &MiniBroker) -> PushConsumerBuilder {
    PushConsumer::builder(GROUP)
        .name_servers(mini.name_servers())
        .offset_interval(Duration::from_millis(50))
        .consume_from(ConsumeFromWhere::First)
        .subscribe(TOPIC, FilterExpression::all())
}

fn queue() -> MessageQueue {
    MessageQueue::new(TOPIC, "broker-a", 0)
}

fn store(mini: &MiniBroker, count: usize) {
    for _ in 0..count {
        mini.store(&queue(), &Message::new(TOPIC, BODY));
    }
}

fn is_explained(consumer: &PushConsumer, word: &str) -> bool {
    consumer.status(&queue()).unwrap().is_some_and(|status| status.to_string().contains(word))
}

/// Number of pulls of the queue so far.
fn pulls(mini: &MiniBroker) -> usize {
    let mut pulls = mini.requests_of(RequestCode::PULL_MESSAGE);
    pulls.retain(|request| request.topic() == Some(TOPIC) && request.fields.get("queueId") == Some("0"));
    pulls.len()
}
