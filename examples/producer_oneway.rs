//! Sends messages without acknowledgement: the cheapest way, for messages that may be lost, such as samples of a
//! measurement.
//!
//! ```text
//! cargo run --release --example producer_oneway
//! cargo run --release --example producer_oneway -- --name-server 127.0.0.1:9876 --topic TopicTest
//! ```
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::process::ExitCode;
use std::time::Instant;

use rocketmq_sync::{Message, Producer};

mod common;
use common::{Outcome, PATIENCE, Target};

const MESSAGES: usize = 10_000;

fn main() -> ExitCode {
    common::run(producer_oneway)
}

fn producer_oneway(target: &Target) -> Outcome {
    let producer = Producer::builder("producer_oneway").name_servers(&target.name_servers).start()?;
    let sample =
        |number| Message::new(target.topic.as_str(), format!("temperature {}", number % 30)).with_tag("sample");

    // One acknowledged message first: it creates the topic on brokers that do so, and reports an unreachable cluster.
    // One-way messages would only be lost.
    producer.send(&sample(0))?;

    println!("{MESSAGES} one-way messages to {}", target.topic);
    let begun = Instant::now();
    let mut refused = 0;
    for number in 1..=MESSAGES {
        // After an error the message was certainly not sent: no broker is available, or its connection accepts no more.
        if let Err(error) = producer.send_oneway(&sample(number)) {
            refused += 1;
            if refused == 1 {
                println!("  the first that was refused: {error}");
            }
        }
    }
    println!("  {} handed to the connections, {refused} refused, within {:.0?}", MESSAGES - refused, begun.elapsed());
    match &target.mini_broker {
        Some(mini_broker) => {
            let all = mini_broker.wait_for_messages(&target.topic, 1 + MESSAGES - refused, PATIENCE);
            let stored = mini_broker.messages(&target.topic).len() - 1;
            println!("  {} stored, says the mini broker: {stored}", if all { "all are" } else { "not all are" });
        }
        None => println!("  the number of stored messages is unknown: one-way messages have no response"),
    }

    println!("\nshutting down");
    common::tell_end_of_producer(&producer.shutdown(PATIENCE));
    Ok(())
}
