//! Client with a dead thread: its members and later calls fail at once with the reason. Tests only.

use std::net::TcpListener;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};

use crate::client::Client;
use crate::consumer::{ConsumeFromWhere, FilterExpression, PushConsumer};
use crate::error::{Error, ErrorKind};
use crate::message::{Message, MessageExt, MessageQueue};
use crate::mini_broker::MiniBroker;
use crate::producer::{Completions, Producer};
use crate::wire::{RemotingCommand, RequestCode};

/// Timeout much longer than any step of this test, since every call fails at once.
const PATIENCE: Duration = Duration::from_secs(120);

fn message() -> Message {
    Message::new("T", "body")
}

/// Makes a call on its own thread, and sends its error to `tell`.
fn tell_from<'s>(scope: &'s Scope<'s, '_>, tell: &Sender<Error>, call: impl FnOnce() -> Error + Send + 's) {
    let tell = tell.clone();
    thread::Builder::new().spawn_scoped(scope, move || drop(tell.send(call()))).unwrap();
}

fn assert_names(error: &Error, thread: &str) {
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    assert!(error.detail().contains(thread) && error.detail().contains("a fault"), "{error}");
}

fn assert_internal(error: &Error) {
    assert_names(error, "rmq-timer");
}

#[test]
fn a_timer_that_dies_fails_every_call_at_once_and_says_why() {
    // Accepts connections and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let client = Client::builder().name_servers([&address]).request_timeout(PATIENCE).start().unwrap();
    let producer = Producer::builder("P").client(&client).send_timeout(PATIENCE).start().unwrap();
    let consumer = PushConsumer::builder("G")
        .client(&client)
        .subscribe("T", FilterExpression::all())
        .consume_threads(1)
        .each(|_| Ok(()))
        .start()
        .unwrap();
    let begun = Instant::now();
    let (tell, outcomes) = unbounded();
    let tell_too = tell.clone();
    producer.send_async(message(), move |result| drop(tell_too.send(result.unwrap_err()))).unwrap();
    thread::scope(|scope| {
        let (client, producer, consumer, address) = (&client, &producer, &consumer, &address);
        tell_from(scope, &tell, || producer.send(&message()).unwrap_err());
        tell_from(scope, &tell, || consumer.wait_ready(PATIENCE).unwrap_err());
        tell_from(scope, &tell, || {
            let request = RemotingCommand::request(RequestCode::HEART_BEAT, &());
            client.request(address, &request, PATIENCE).unwrap_err()
        });
        let connected = silent.accept().unwrap();
        client.core().timer.after(Duration::from_millis(50), || panic!("a fault"));
        for _ in 0..4 {
            assert_internal(&outcomes.recv_timeout(PATIENCE).expect("an outcome"));
        }
        drop(connected);
    });
    assert_internal(&producer.send(&message()).unwrap_err());
    assert_internal(&producer.send_oneway(&message()).unwrap_err());
    assert_internal(&producer.send_async(message(), |_| panic!("it was not accepted")).unwrap_err().error);
    assert_internal(&producer.send_tracked(message(), 1, &Completions::new()).unwrap_err().error);
    assert_internal(&producer.wait_ready(&["T"], PATIENCE).unwrap_err());
    assert_internal(&consumer.wait_ready(PATIENCE).unwrap_err());
    assert_internal(&Producer::builder("P2").client(&client).start().unwrap_err());
    let (sent, consumed) = (producer.shutdown(PATIENCE), consumer.shutdown(PATIENCE));
    assert!(!sent.is_clean() && sent.broken.is_some(), "{sent:?}");
    assert!(!consumed.is_clean() && consumed.broken().is_some(), "{consumed:?}");
    drop((producer, consumer, client));
    assert!(begun.elapsed() < PATIENCE / 2, "a call waited for its deadline");
}

/// Starts a consumer that has consumed a message, lets `kill` end a thread of its client, and asserts that every call
/// returns an error with the name of the thread.
fn assert_broken_by(thread: &str, kill: impl FnOnce(&PushConsumer)) {
    let mini = MiniBroker::start().unwrap();
    mini.create_topic("T", 1);
    let queue = MessageQueue::new("T", "broker-a", 0);
    mini.store(&queue, &message());
    let client = Client::builder().name_servers(mini.name_servers()).request_timeout(PATIENCE).start().unwrap();
    let producer = Producer::builder("P").client(&client).send_timeout(PATIENCE).start().unwrap();
    let builder = |group: &str| {
        let builder = PushConsumer::builder(group).client(&client).consume_from(ConsumeFromWhere::First);
        // Without its second topic the consumer is never ready.
        builder.subscribe("T", FilterExpression::all()).subscribe("Absent", FilterExpression::all())
    };
    let (deliver, delivered) = unbounded();
    let listener = move |message: &MessageExt| Ok(deliver.send(message.queue_offset())?);
    let consumer = builder("G").each(listener).start().unwrap();
    assert_eq!(delivered.recv_timeout(PATIENCE), Ok(0));
    let begun = Instant::now();
    let (tell, outcomes) = unbounded();
    thread::scope(|scope| {
        tell_from(scope, &tell, || consumer.wait_ready(PATIENCE).unwrap_err());
        kill(&consumer);
        assert_names(&outcomes.recv_timeout(PATIENCE).expect("an outcome"), thread);
    });
    assert_names(&consumer.wait_ready(PATIENCE).unwrap_err(), thread);
    assert_names(&consumer.status(&queue).unwrap_err(), thread);
    assert_names(&producer.send(&message()).unwrap_err(), thread);
    assert_names(&builder("G2").each(|_| Ok(())).start().unwrap_err(), thread);
    let (consumed, sent) = (consumer.shutdown(PATIENCE), producer.shutdown(PATIENCE));
    assert!(!consumed.is_clean() && consumed.broken().is_some_and(|cause| cause.contains(thread)), "{consumed:?}");
    assert!(!sent.is_clean() && sent.broken.as_ref().is_some_and(|cause| cause.contains(thread)), "{sent:?}");
    drop((consumer, producer, client));
    assert!(begun.elapsed() < PATIENCE / 2, "a call waited for its deadline");
}

#[test]
fn a_pull_thread_that_dies_fails_every_call_at_once_and_says_why() {
    assert_broken_by("rmq-pull", PushConsumer::fault_pull);
}

#[test]
fn a_rebalance_thread_that_dies_fails_every_call_at_once_and_says_why() {
    assert_broken_by("rmq-rebalance", PushConsumer::fault_rebalance);
}
