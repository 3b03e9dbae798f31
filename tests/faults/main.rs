//! The client against scripted faults of the mini broker that cannot be produced on a real one.
//!
//! Tests that a real broker can run too are in `tests/scenarios/`. Each test has its own mini broker; names begin with
//! the row of the conformance list.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod alone;
mod attempts;
mod consume;
mod deadlines;
mod ends;
mod errors;
mod flow;
mod heartbeat;
mod life;
mod order;
mod peers;
mod requests;
mod retry;
mod routes;
mod signals;
mod undecodable;
mod user_code;
mod window;

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use rocketmq_sync::mini_broker::MiniBroker;
use rocketmq_sync::{Message, Producer, ProducerBuilder, Result, SendResult};

/// Maximum time of one response on a machine under heavy load.
const PATIENCE: Duration = Duration::from_secs(60);

/// Topic of every mini broker here.
const TOPIC: &str = "Orders";

/// Starts a mini broker with this many brokers and a topic of four queues on each.
fn mini(brokers: usize) -> MiniBroker {
    let mini = MiniBroker::builder().brokers(brokers).start().unwrap();
    mini.create_topic(TOPIC, 4);
    mini
}

fn producer(mini: &MiniBroker) -> ProducerBuilder {
    Producer::builder("senders").name_servers(mini.name_servers()).send_timeout(PATIENCE)
}

fn message() -> Message {
    Message::new(TOPIC, "body")
}

/// Begins an asynchronous send; the returned channel delivers its outcome.
fn begin(producer: &Producer) -> Receiver<Result<SendResult>> {
    let (told, outcome) = unbounded();
    producer.send_async(message(), move |result| drop(told.send(result))).unwrap();
    outcome
}

fn outcome(of: &Receiver<Result<SendResult>>) -> Result<SendResult> {
    let result = of.recv_timeout(PATIENCE).expect("an outcome");
    assert!(of.recv_timeout(PATIENCE).is_err(), "a second outcome");
    result
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = soon();
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}
