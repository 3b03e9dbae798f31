//! Sends messages one by one and waits for each: round-robin over all queues, to one queue, to the queue of a key.
//! Shows how to handle a failed send.
//!
//! ```text
//! cargo run --example producer_sync
//! cargo run --example producer_sync -- --name-server 127.0.0.1:9876 --topic TopicTest
//! ```
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::process::ExitCode;
use std::time::Duration;

use rocketmq_sync::{Certainty, Error, Message, Producer};

mod common;
use common::{Outcome, PATIENCE, Target};

fn main() -> ExitCode {
    common::run(producer_sync)
}

fn producer_sync(target: &Target) -> Outcome {
    let producer = Producer::builder("producer_sync")
        .name_servers(&target.name_servers)
        .send_timeout(Duration::from_secs(3)) // for the whole call: route, connections, all attempts
        .retries(2) // on another broker, when there is one
        .start()?;
    // One producer serves all threads of a program: every method takes &self.
    in_turn(&producer, &target.topic)?;
    to_one_queue(&producer, &target.topic)?;
    by_key(&producer, &target.topic)?;
    refused(&producer, &target.topic);

    println!("\nshutting down");
    common::tell_end_of_producer(&producer.shutdown(PATIENCE));
    Ok(())
}

/// Sends in the usual way: round-robin over the queues of all brokers.
fn in_turn(producer: &Producer, topic: &str) -> Outcome {
    println!("in turn to all queues");
    for number in 1..=4 {
        let message = Message::new(topic, format!("order {number} is paid"))
            .with_tag("paid") // consumers select by it
            .with_key(format!("order-{number}")) // the broker's index finds it by this
            .with_property("currency", "EUR"); // whatever else belongs to it
        let receipt = producer.send(&message)?;
        println!("  {} at offset {}, id {}", receipt.queue, receipt.queue_offset, receipt.msg_id);
    }
    Ok(())
}

/// Sends to a given queue.
fn to_one_queue(producer: &Producer, topic: &str) -> Outcome {
    let queues = producer.queues(topic)?;
    println!("\nto one of {} queues", queues.len());
    if let Some(queue) = queues.last() {
        let receipt = producer.to_queue(queue).send(&Message::new(topic, "to the last queue"))?;
        println!("  {} at offset {}", receipt.queue, receipt.queue_offset);
    }
    Ok(())
}

/// Sends all messages of a key to one queue, where they keep their order.
fn by_key(producer: &Producer, topic: &str) -> Outcome {
    println!("\nby key: all messages of an order are in one queue");
    for (order, event) in [("A-17", "placed"), ("B-42", "placed"), ("A-17", "paid"), ("A-17", "shipped")] {
        let message = Message::new(topic, format!("{order} is {event}"));
        let receipt = producer.by_key(order).send(&message)?;
        println!("  {order} {event:<8} {} at offset {}", receipt.queue, receipt.queue_offset);
    }
    Ok(())
}

/// Shows the error of a failed send, and if the message may be stored nevertheless.
fn refused(producer: &Producer, topic: &str) {
    println!("\na message without a body cannot be sent");
    if let Err(error) = producer.send(&Message::new(topic, "")) {
        println!("  {:?}: {error:#}", error.kind());
        println!("  so {}", what_to_do(&error));
    }
}

fn what_to_do(error: &Error) -> &'static str {
    match error.certainty() {
        Certainty::NotSent if error.is_retryable() => "send it again later: it is not stored",
        Certainty::NotSent => "correct it: it is not stored, and would not be next time",
        Certainty::Unknown => "send it again if its consumers can bear it twice: it may be stored",
        Certainty::Stored => "do not send it again: it is stored",
    }
}
