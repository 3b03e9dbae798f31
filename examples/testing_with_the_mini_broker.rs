//! Shows how to test a service that sends and consumes against a mini broker: it starts in a millisecond, produces
//! scripted faults, lets hours pass in an instant, and records its requests.
//!
//! ```text
//! cargo run --example testing_with_the_mini_broker
//! cargo run --example testing_with_the_mini_broker -- --name-server 127.0.0.1:9876 --topic Orders
//! ```
//!
//! The first line runs the tests of the service, the second the service itself on a real cluster. In your own project
//! the tests have `#[test]` above them, and `Cargo.toml` has
//!
//! ```toml
//! [dev-dependencies]
//! rocketmq-sync = { version = "0.1", features = ["mini-broker"] }
//! ```
#![allow(clippy::print_stdout, reason = "an example talks to its user")]
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rocketmq_sync::mini_broker::{Fault, MiniBroker};
use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use rocketmq_sync::{
    ConsumeFromWhere, ConsumerReport, Error, FilterExpression, Message, MessageExt, MessageQueue, Producer,
    PushConsumer,
};

mod common;
use common::{Failure, Outcome, PATIENCE, Target};

/// Service under test: for each order it sends an invoice. It does not depend on tests; it gets the brokers' addresses
/// at its start.
struct Billing {
    producer: Arc<Producer>,
    consumer: PushConsumer,
}

impl Billing {
    fn start(name_servers: &[String], group: &str, orders: &str) -> Result<Self, Error> {
        let producer = Arc::new(Producer::builder(group).name_servers(name_servers).start()?);
        let (sender, invoices) = (Arc::clone(&producer), invoices_of(orders));
        let consumer = PushConsumer::builder(group)
            .client(producer.client())
            .subscribe(orders, FilterExpression::tags(["order"]))
            .consume_from(ConsumeFromWhere::First)
            .max_reconsume_times(3)
            .each(move |order| {
                let amount = read_amount(order)?;
                let invoice = Message::new(invoices.as_str(), format!("please pay {amount} EUR"));
                sender.send(&invoice)?;
                Ok(())
            })
            .start()?;
        Ok(Self { producer, consumer })
    }

    fn shutdown(self) -> ConsumerReport {
        let report = self.consumer.shutdown(PATIENCE);
        self.producer.shutdown(PATIENCE);
        report
    }
}

fn read_amount(order: &MessageExt) -> Result<u32, String> {
    let text = String::from_utf8_lossy(order.body());
    text.parse().map_err(|_| format!("{text:?} is no amount"))
}

fn invoices_of(orders: &str) -> String {
    format!("{orders}-invoices")
}

fn order(topic: &str, amount: &str) -> Message {
    Message::new(topic, amount.to_owned()).with_tag("order")
}

fn main() -> ExitCode {
    common::run(|target| match &target.mini_broker {
        Some(_) => run_tests(),
        None => run_service(target),
    })
}

fn run_tests() -> Outcome {
    println!("testing the service, each test with a mini broker of its own");
    for (name, test) in [
        ("an order becomes an invoice", an_order_becomes_an_invoice as fn()),
        ("a busy broker is asked again", a_busy_broker_is_asked_again),
        ("an order whose invoice fails comes again after 10 s", an_order_whose_invoice_fails_comes_again),
        ("an order that cannot be read ends as a dead letter", an_order_that_cannot_be_read_ends_as_a_dead_letter),
        ("a dead broker is done without", a_dead_broker_is_done_without),
    ] {
        let begun = Instant::now();
        test();
        println!("  ok  {name} ({} ms)", begun.elapsed().as_millis());
    }
    Ok(())
}

const ORDERS: &str = "Orders";
const INVOICES: &str = "Orders-invoices";
const GROUP: &str = "billing";

/// Usual path: input, output, acknowledgement.
fn an_order_becomes_an_invoice() {
    let (broker, billing) = with_brokers(1);
    broker.store(&order_queue(), &order(ORDERS, "42"));
    assert!(broker.wait_for_messages(INVOICES, 1, PATIENCE));
    assert_eq!(&broker.messages(INVOICES)[0].body()[..], b"please pay 42 EUR");
    let report = billing.shutdown();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(broker.committed_offset(GROUP, &order_queue()), Some(1));
}

/// Scripted fault: the first two requests of this kind are refused. A test of a fault asserts that it happened.
fn a_busy_broker_is_asked_again() {
    let (broker, _billing) = with_brokers(1);
    let busy = Fault::error(ResponseCode::SYSTEM_BUSY, "too busy").times(2).topic(INVOICES);
    let busy = broker.fail(RequestCode::SEND_MESSAGE_V2, busy);
    broker.store(&order_queue(), &order(ORDERS, "42"));
    assert!(broker.wait_for_messages(INVOICES, 1, PATIENCE));
    assert_eq!(broker.fault_hits(busy), 2);
}

/// Injected time: the retry is due after 10 s of the broker's time, which pass at once.
fn an_order_whose_invoice_fails_comes_again() {
    let (broker, _billing) = with_brokers(1);
    let refused = Fault::error(ResponseCode::NO_PERMISSION, "not now").times(1).topic(INVOICES);
    let refused = broker.fail(RequestCode::SEND_MESSAGE_V2, refused);
    broker.store(&order_queue(), &order(ORDERS, "42"));
    assert!(broker.wait_for_fault(refused, 1, PATIENCE));
    assert!(broker.wait_for_requests(RequestCode::CONSUMER_SEND_MSG_BACK, 1, PATIENCE));
    assert!(broker.messages(INVOICES).is_empty());
    broker.advance(Duration::from_secs(10));
    assert!(broker.wait_for_messages(INVOICES, 1, PATIENCE));
}

/// Record of requests: three retries, then the dead-letter queue, and no invoice was sent.
fn an_order_that_cannot_be_read_ends_as_a_dead_letter() {
    let (broker, _billing) = with_brokers(1);
    broker.store(&order_queue(), &order(ORDERS, "a lot"));
    for failures in 1..=4 {
        assert!(broker.wait_for_requests(RequestCode::CONSUMER_SEND_MSG_BACK, failures, PATIENCE));
        broker.advance(Duration::from_secs(2 * 60 * 60));
    }
    assert!(broker.wait_for_messages(&format!("%DLQ%{GROUP}"), 1, PATIENCE));
    assert_eq!(broker.requests_of(RequestCode::SEND_MESSAGE_V2).len(), 0);
}

/// Stopped servers: orders are on the first broker, so the second one is stopped.
fn a_dead_broker_is_done_without() {
    let (broker, _billing) = with_brokers(2);
    broker.stop_broker("broker-b");
    for amount in ["1", "2", "3", "4"] {
        broker.store(&order_queue(), &order(ORDERS, amount));
    }
    assert!(broker.wait_for_messages(INVOICES, 4, PATIENCE));
    assert!(broker.messages(INVOICES).iter().all(|invoice| invoice.broker_name() == "broker-a"));
}

/// Starts brokers with both topics, and the service on them.
fn with_brokers(brokers: usize) -> (MiniBroker, Billing) {
    let broker = MiniBroker::builder().brokers(brokers).start().expect("a mini broker");
    broker.create_topic(ORDERS, 1);
    broker.create_topic(INVOICES, 1);
    let billing = Billing::start(&broker.name_servers(), GROUP, ORDERS).expect("the service starts");
    billing.consumer.wait_ready(PATIENCE).expect("its share of the queues");
    (broker, billing)
}

fn order_queue() -> MessageQueue {
    MessageQueue::new(ORDERS, "broker-a", 0)
}

/// Runs the same service on a real cluster.
fn run_service(target: &Target) -> Outcome {
    let producer = Producer::builder("orders").name_servers(&target.name_servers).start()?;
    println!("sending orders to {}", target.topic);
    for amount in ["12", "17", "99"] {
        let receipt = producer.send(&order(&target.topic, amount))?;
        println!("  {amount} EUR  {}", receipt.queue);
    }

    let (told, invoices) = crossbeam_channel::unbounded();
    let billing = Billing::start(&target.name_servers, &common::of_this_run(GROUP), &target.topic)?;
    let reader = PushConsumer::builder(common::of_this_run("invoice-reader"))
        .client(producer.client())
        .subscribe(invoices_of(&target.topic), FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .each(move |invoice| told.send(invoice.clone()).map_err(|_| "the example has ended".into()))
        .start()?;
    println!("\nthe service at work on {}", invoices_of(&target.topic));
    for _ in 0..3 {
        let invoice = invoices
            .recv_timeout(PATIENCE)
            .map_err(|_| Failure::Missing(format!("no invoice came within {PATIENCE:?}")))?;
        println!("  {}", String::from_utf8_lossy(invoice.body()));
    }

    println!("\nshutting down");
    common::tell_end_of_consumer(&reader.shutdown(PATIENCE));
    common::tell_end_of_consumer(&billing.shutdown());
    common::tell_end_of_producer(&producer.shutdown(PATIENCE));
    Ok(())
}
