//! Client with a dead thread: its members and later calls fail at once with the reason. Tests only.

use std::net::TcpListener;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};

use crate::client::Client;
use crate::consumer::{FilterExpression, PushConsumer};
use crate::error::{Error, ErrorKind};
use crate::message::Message;
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

fn assert_internal(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
    assert!(error.detail().contains("rmq-timer") && error.detail().contains("a fault"), "{error}");
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
