//! Asynchronous sends: every accepted message has one outcome, and arrives at its destination.

use std::collections::BTreeSet;

use crossbeam_channel::unbounded;
use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use rocketmq_sync::{Certainty, Completions, ErrorKind, Message, MessageQueue, Producer, SendResult};

use super::inbox::{Inbox, PATIENCE, bodies, numbered, producer};
use super::proxy::{Effect, Proxy};
use super::{Cluster, eventually, unique};

/// SEND-01: to a queue of one broker, then to one of the other.
pub(crate) fn send_01_async_messages_arrive_in_the_queue_they_are_sent_to(cluster: &dyn Cluster) {
    to_one_queue_of_each_broker(cluster, |producer, message, queue, done| {
        producer.to_queue(queue).send_async(message, done).expect("accepted");
    });
}

/// SEND-02: to the queue of a selector.
pub(crate) fn send_02_async_messages_arrive_in_the_queue_that_is_selected(cluster: &dyn Cluster) {
    to_one_queue_of_each_broker(cluster, |producer, message, queue, done| {
        let select =
            |queues: &[MessageQueue], _: &Message| queues.iter().position(|offered| offered == queue).expect("it");
        producer.by(select).send_async(message, done).expect("accepted");
    });
}

/// SEND-03: to any queue; by callback and through completions.
pub(crate) fn send_03_async_messages_have_one_outcome_each(cluster: &dyn Cluster) {
    let topic = unique("Async");
    cluster.create_topic(&topic, 8);
    let producer = producer(cluster).start().expect("a producer");
    let messages = numbered(&topic, 40);
    let (told, outcomes) = unbounded();
    for message in &messages[..20] {
        let told = told.clone();
        producer.send_async(message.clone(), move |result| drop(told.send(result))).expect("accepted");
    }
    drop(told);
    let completions = Completions::new();
    for (token, message) in (20..).zip(&messages[20..]) {
        producer.send_tracked(message.clone(), token, &completions).expect("accepted");
    }
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        let result = outcomes.recv_timeout(PATIENCE).expect("an outcome");
        ids.insert(result.expect("stored").msg_id);
    }
    assert!(outcomes.recv_timeout(PATIENCE).is_err(), "a callback ran twice");
    let mut finished = Vec::new();
    while finished.len() < 20 {
        assert!(completions.take(&mut finished, PATIENCE).expect("results") > 0, "{finished:?}");
    }
    let tokens: BTreeSet<_> = finished.iter().map(|completed| completed.token).collect();
    assert_eq!(tokens, (20..40).collect());
    ids.extend(finished.into_iter().map(|completed| completed.result.expect("stored").msg_id));
    assert_eq!(ids.len(), 40);
    assert_eq!(producer.in_flight(), 0);
    Inbox::open(producer.client(), &topic).await_all(&bodies(&messages));
}

/// SEND-04: a selector's error fails its own call, which returns the message; no callback runs for it, and the producer
/// continues.
pub(crate) fn send_04_a_selector_that_fails_costs_its_own_call_only(cluster: &dyn Cluster) {
    let topic = unique("Selector");
    cluster.create_topic(&topic, 2);
    let producer = producer(cluster).start().expect("a producer");
    let (told, outcomes) = unbounded();
    let done = || {
        let told = told.clone();
        move |result: rocketmq_sync::Result<SendResult>| drop(told.send(result))
    };
    let message = || Message::new(topic.as_str(), "selected");
    let rejected = [
        producer.by(|_, _| panic!("a user's mistake")).send_async(message(), done()),
        producer.by(|queues, _| queues.len()).send_async(message(), done()),
    ];
    for call in rejected {
        let rejected = call.expect_err("no queue was selected");
        assert_eq!((rejected.error.kind(), rejected.error.certainty()), (ErrorKind::BadSelection, Certainty::NotSent));
        assert_eq!(rejected.message, message());
    }
    producer.by(|_, _| 0).send_async(message(), done()).expect("accepted");
    assert!(outcomes.recv_timeout(PATIENCE).expect("an outcome").is_ok());
    assert!(producer.shutdown(PATIENCE).is_clean());
    assert!(outcomes.is_empty(), "a rejected call called back");
}

/// SEND-05: a missing queue is reported to the callback, and nothing is stored in another one.
pub(crate) fn send_05_a_queue_that_does_not_exist_is_told_to_the_callback(cluster: &dyn Cluster) {
    let topic = unique("NoQueue");
    cluster.create_topic(&topic, 2);
    let broker = cluster.brokers()[0].name.as_str();
    let error = outcome_of_send_to(cluster, &MessageQueue::new(topic.as_str(), broker, 100)).expect_err("no queue 100");
    assert_eq!((error.kind(), error.certainty()), (ErrorKind::NoBroker, Certainty::NotSent));
    assert!(error.to_string().contains("100"), "{error}");
    for queue in 0..2 {
        assert_eq!(cluster.max_offset(broker, &topic, queue), 0);
    }
}

/// SEND-06: a queue with a negative number is any queue of its broker.
pub(crate) fn send_06_a_negative_queue_lets_the_broker_choose(cluster: &dyn Cluster) {
    let topic = unique("AnyQueue");
    cluster.create_topic(&topic, 2);
    let broker = cluster.brokers()[1].name.as_str();
    let receipt = outcome_of_send_to(cluster, &MessageQueue::new(topic.as_str(), broker, -100)).expect("stored");
    assert_eq!(receipt.queue.broker_name(), broker);
    assert!((0..2).contains(&receipt.queue.queue_id()), "{receipt:?}");
    eventually("the message is in the queue that the receipt tells", || {
        cluster.max_offset(broker, &topic, receipt.queue.queue_id()) == 1
    });
    let other = 1 - receipt.queue.queue_id();
    assert_eq!(cluster.max_offset(broker, &topic, other), 0);
}

/// SEND-23: of six calls five are wrong; each call has one completion, including an `Err` of the call itself.
pub(crate) fn send_23_wrong_async_calls_have_one_completion_each(cluster: &dyn Cluster) {
    let topic = unique("Wrong");
    cluster.create_topic(&topic, 2);
    for max_in_flight in [10_000, 1] {
        let producer = producer(cluster).max_in_flight(max_in_flight).start().expect("a producer");
        let (told, outcomes) = unbounded();
        let done = || {
            let told = told.clone();
            move |result: rocketmq_sync::Result<SendResult>| drop(told.send(result))
        };
        let message = || Message::new(topic.as_str(), "right");
        let foreign = MessageQueue::new(unique("Other"), cluster.brokers()[0].name.as_str(), 0);
        let unselected = |_: &[MessageQueue], _: &Message| usize::MAX;
        let rejected = [
            producer.send_async(Message::new(topic.as_str(), ""), done()),
            producer.to_queue(&foreign).send_async(Message::new(topic.as_str(), ""), done()),
            producer.to_queue(&foreign).send_async(message(), done()),
            producer.by(unselected).send_async(message(), done()),
            producer.by(|_, _| panic!("a user's mistake")).send_async(message(), done()),
        ];
        for call in rejected {
            let rejected = call.expect_err("it is wrong");
            let kind = rejected.error.kind();
            assert!(matches!(kind, ErrorKind::InvalidMessage | ErrorKind::BadSelection), "{rejected}");
            assert_eq!(rejected.message.topic(), topic);
        }
        producer.send_async(message(), done()).expect("accepted");
        assert!(outcomes.recv_timeout(PATIENCE).expect("an outcome").is_ok());
        assert!(producer.shutdown(PATIENCE).is_clean());
        assert!(outcomes.is_empty(), "a rejected call called back");
    }
}

type Done = Box<dyn FnOnce(rocketmq_sync::Result<SendResult>) + Send>;

/// Sends to one queue, through a proxy that refuses some messages and cuts some connections: stored messages are in the
/// order of the calls, which is also that of the callbacks.
pub(crate) fn async_messages_to_one_queue_keep_their_order_across_refusals_and_lost_connections(cluster: &dyn Cluster) {
    const MESSAGES: usize = 600;
    let topic = unique("Order");
    cluster.create_topic(&topic, 1);
    let proxy = Proxy::before(cluster);
    let sends = || proxy.on(&[RequestCode::SEND_MESSAGE_V2]);
    let faults = [
        sends().every(20).meet(Effect::Refuse(ResponseCode::SYSTEM_BUSY, "failed by the scenario")),
        sends().every(101).meet(Effect::Cut),
        sends().every(103).meet(Effect::CutReply),
    ];
    let producer = Producer::builder(unique("P"))
        .name_servers(proxy.addresses())
        .address_map(proxy.address_map())
        .send_timeout(PATIENCE)
        .retries(10)
        .start()
        .expect("a producer");
    let inbox = Inbox::open(producer.client(), &topic);
    let queue = MessageQueue::new(topic.as_str(), cluster.brokers()[0].name.as_str(), 0);
    let (told, outcomes) = unbounded();
    for number in 0..MESSAGES {
        let (told, message) = (told.clone(), Message::new(topic.as_str(), format!("{number:04}")));
        producer
            .to_queue(&queue)
            .send_async(message, move |result| drop(told.send((number, result))))
            .expect("accepted");
    }
    let mut acknowledged = BTreeSet::new();
    for number in 0..MESSAGES {
        let (of, result) = outcomes.recv_timeout(PATIENCE).expect("an outcome");
        assert_eq!(of, number, "called back out of order");
        match result {
            Ok(_) => drop(acknowledged.insert(format!("{number:04}").into_bytes())),
            Err(error) => assert_eq!(error.certainty(), Certainty::Unknown, "{error}"),
        }
    }
    let hits = faults.iter().map(|fault| fault.hits());
    assert!(hits.clone().all(|hits| hits > 0), "{:?}", hits.collect::<Vec<_>>());
    let received = inbox.await_at_least(&acknowledged);
    let mut stored: Vec<_> = received.values().collect();
    stored.sort_by_key(|message| message.queue_offset());
    let bodies: Vec<_> = stored.iter().map(|message| message.body()).collect();
    assert!(bodies.is_sorted(), "stored out of order");
    println!("{} of {MESSAGES} acknowledged, {} stored, in order", acknowledged.len(), bodies.len());
}

/// Returns the result that the callback of an asynchronous send gets.
fn outcome_of_send_to(cluster: &dyn Cluster, queue: &MessageQueue) -> rocketmq_sync::Result<SendResult> {
    let producer = producer(cluster).start().expect("a producer");
    let (told, outcome) = unbounded();
    let message = Message::new(queue.topic(), "body");
    producer.to_queue(queue).send_async(message, move |result| drop(told.send(result))).expect("accepted");
    outcome.recv_timeout(PATIENCE).expect("an outcome")
}

fn to_one_queue_of_each_broker(cluster: &dyn Cluster, send: impl Fn(&Producer, Message, &MessageQueue, Done)) {
    let topic = unique("Queues");
    cluster.create_topic(&topic, 8);
    let producer = producer(cluster).start().expect("a producer");
    let inbox = Inbox::open(producer.client(), &topic);
    let messages = numbered(&topic, 20 * cluster.brokers().len());
    let (told, outcomes) = unbounded();
    for (broker, part) in cluster.brokers().iter().zip(messages.chunks(20)) {
        let queue = MessageQueue::new(topic.as_str(), broker.name.as_str(), 0);
        for message in part {
            let told = told.clone();
            send(&producer, message.clone(), &queue, Box::new(move |result| drop(told.send(result))));
        }
        for _ in part {
            let receipt = outcomes.recv_timeout(PATIENCE).expect("an outcome").expect("stored");
            assert_eq!(receipt.queue, queue);
        }
    }
    let received = inbox.await_all(&bodies(&messages));
    for (broker, part) in cluster.brokers().iter().zip(messages.chunks(20)) {
        for message in part {
            let arrived = &received[&message.body()[..]];
            assert_eq!((arrived.broker_name(), arrived.queue_id()), (broker.name.as_str(), 0));
        }
    }
}
