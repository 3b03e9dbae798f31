//! Sends 10 messages and consumes them: on an in-process mini broker, or on a real cluster.
//!
//! ```text
//! cargo run --release --example quickstart
//! cargo run --release --example quickstart -- --name-server 127.0.0.1:9876 --topic TopicTest
//! ```
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::process::ExitCode;
use std::time::SystemTime;

use rocketmq_sync::{ConsumeFromWhere, FilterExpression, Message, Producer, PushConsumer};

mod common;
use common::{Failure, Outcome, PATIENCE, Target};

const MESSAGES: usize = 10;

fn main() -> ExitCode {
    common::run(quickstart)
}

fn quickstart(target: &Target) -> Outcome {
    // Only messages of this run have this tag: earlier runs may have left messages in the topic of a real cluster.
    let tag = common::of_this_run("run");
    let group = common::of_this_run("quickstart");
    let (consumed, arrivals) = crossbeam_channel::unbounded();

    println!("sending {MESSAGES} messages to {}", target.topic);
    let producer = Producer::builder("quickstart").name_servers(&target.name_servers).start()?;
    for number in 1..=MESSAGES {
        let message = Message::new(target.topic.as_str(), format!("hello {number}")).with_tag(&tag);
        let receipt = producer.send(&message)?;
        println!("  {number:>2}  stored in {} at offset {}", receipt.queue, receipt.queue_offset);
    }

    println!("\nconsuming them as {group}");
    let consumer = PushConsumer::builder(group)
        .client(producer.client())
        .subscribe(target.topic.as_str(), FilterExpression::tags([&tag]))
        .consume_from(ConsumeFromWhere::First)
        .each(move |message| {
            // The example prints on its own thread; it may have ended already.
            let _ = consumed.send((message.clone(), SystemTime::now()));
            Ok(())
        })
        .start()?;
    consumer.wait_ready(PATIENCE)?;
    for number in 1..=MESSAGES {
        let (message, now) = arrivals
            .recv_timeout(PATIENCE)
            .map_err(|_| Failure::Missing(format!("message {number} did not come within {PATIENCE:?}")))?;
        println!(
            "  {number:>2}  {:?} from {} at offset {}, {:?} after it was sent",
            String::from_utf8_lossy(message.body()),
            message.message_queue(),
            message.queue_offset(),
            now.duration_since(message.born_at()).unwrap_or_default(),
        );
    }

    println!("\nshutting down");
    common::tell_end_of_consumer(&consumer.shutdown(PATIENCE));
    common::tell_end_of_producer(&producer.shutdown(PATIENCE));
    Ok(())
}
