//! Sends 10 messages and consumes them: on an in-process mini broker, or on a real cluster.
//!
//! ```text
//! cargo run --release --example quickstart
//! cargo run --release --example quickstart -- --name-server 127.0.0.1:9876 --topic TopicTest
//! ```
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rocketmq_sync::{ConsumeFromWhere, Error, FilterExpression, Message, MessageExt, Producer, PushConsumer};

mod common;
use common::Target;

const MESSAGES: usize = 10;
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    common::run(quickstart)
}

fn quickstart(target: &Target) -> Result<(), Error> {
    // A run of its own: what earlier runs left in the topic of a real cluster is told apart by this tag.
    let run = format!("run-{}", now_millis());
    let group = format!("quickstart-{run}");
    let (consumed, arrivals) = crossbeam_channel::unbounded();

    println!("name servers  {}", target.name_servers.join(";"));
    let producer = Producer::builder("quickstart").name_servers(&target.name_servers).start()?;
    println!("\nsending {MESSAGES} messages to {}", target.topic);
    for number in 1..=MESSAGES {
        let body = format!("hello {number} at {}", now_millis());
        let receipt = producer.send(&Message::new(target.topic.as_str(), body).with_tag(&run))?;
        println!("  {:>2}  {}  offset {}", number, receipt.queue, receipt.queue_offset);
    }

    println!("\nconsuming as {group}");
    let consumer = PushConsumer::builder(group)
        .client(producer.client())
        .subscribe(target.topic.as_str(), FilterExpression::tags([&run]))
        .consume_from(ConsumeFromWhere::First)
        .each(move |message: &MessageExt| -> Result<(), Infallible> {
            let _ = consumed.send(message.clone());
            Ok(())
        })
        .start()?;
    consumer.wait_ready(PATIENCE)?;
    for number in 1..=MESSAGES {
        let message = arrivals.recv_timeout(PATIENCE).map_err(|_| common::failed("a message did not come"))?;
        let latency = now_millis().saturating_sub(u64::try_from(message.born_timestamp).unwrap_or(0));
        println!(
            "  {:>2}  {}/{}  offset {}  {} ms after it was made: {}",
            number,
            message.broker_name,
            message.queue_id,
            message.queue_offset,
            latency,
            String::from_utf8_lossy(message.body())
        );
    }

    println!("\nshutting down");
    println!("  consumer  {:?}", consumer.shutdown(Duration::from_secs(10)));
    println!("  producer  {:?}", producer.shutdown(Duration::from_secs(10)));
    Ok(())
}

fn now_millis() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
