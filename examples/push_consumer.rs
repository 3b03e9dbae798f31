//! Consumes two topics: one by tags, with a message that fails at first and is retried; one in batches, whose listener
//! chooses the retry delay. Prints the state of each queue, and ends by itself.
//!
//! ```text
//! cargo run --example push_consumer
//! cargo run --example push_consumer -- --name-server 127.0.0.1:9876 --topic TopicTest
//! ```
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::process::ExitCode;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rocketmq_sync::unversioned::wire::RequestCode;
use rocketmq_sync::{
    ConsumeContext, ConsumeFromWhere, ConsumeStatus, FilterExpression, Message, MessageExt, Producer, PushConsumer,
    RetryDelay,
};

mod common;
use common::{Failure, Outcome, PATIENCE, Target};

fn main() -> ExitCode {
    common::run(push_consumer)
}

fn push_consumer(target: &Target) -> Outcome {
    let orders = target.topic.clone();
    let samples = format!("{}-samples", target.topic);
    // Earlier runs may have left messages in the topics of a real cluster; messages of this run contain its name.
    let run = common::of_this_run("run");

    let producer = Producer::builder("push_consumer").name_servers(&target.name_servers).start()?;
    println!("sending");
    let mut sent = Vec::new();
    for (topic, tag, body) in [
        (&orders, "placed", "order 1 is placed"),
        (&orders, "placed", "order 2 is placed"),
        (&orders, "viewed", "order 1 was looked at"),
        (&orders, "paid", "order 1 is paid"),
        (&samples, "", "21 degrees"),
        (&samples, "", "22 degrees"),
        (&samples, "", "-300 degrees"),
        (&samples, "", "23 degrees"),
    ] {
        let message = Message::new(topic.as_str(), body).with_property("run", &run);
        let receipt = match tag {
            // All in one queue, so that they arrive in one batch.
            "" => producer.by_key("thermometer 1").send(&message)?,
            _ => producer.send(&message.with_tag(tag))?,
        };
        println!("  {tag:<6}  {body:<22} {}", receipt.queue);
        sent.push(body);
    }

    let (told, tell) = unbounded();
    let order_consumer = consume_orders(&producer, &orders, &run, told.clone())?;
    let sample_consumer = consume_samples(&producer, &samples, &run, told)?;
    for consumer in [&order_consumer, &sample_consumer] {
        consumer.wait_ready(PATIENCE)?;
    }
    print_status(&order_consumer)?;

    println!("\nconsuming");
    // All except the order that was only viewed, to which no consumer subscribes.
    await_consumed(sent.len() - 1, &tell, target)?;

    println!("\nshutting down");
    // Waits for running listeners, sends failed messages back, and commits the offsets: no signal handler, no
    // leftovers.
    common::tell_end_of_consumer(&order_consumer.shutdown(PATIENCE));
    common::tell_end_of_consumer(&sample_consumer.shutdown(PATIENCE));
    common::tell_end_of_producer(&producer.shutdown(PATIENCE));
    Ok(())
}

/// Starts the usual consumer: one message at a time, and an error is a retry.
fn consume_orders(
    producer: &Producer,
    topic: &str,
    run: &str,
    told: Sender<Consumed>,
) -> rocketmq_sync::Result<PushConsumer> {
    let run = run.to_owned();
    PushConsumer::builder(common::of_this_run("billing"))
        .client(producer.client()) // the same threads and connections as the producer
        .subscribe(topic, FilterExpression::tags(["placed", "paid"]))
        .consume_from(ConsumeFromWhere::First)
        .consume_threads(4)
        .max_reconsume_times(3) // then it goes to the dead-letter queue %DLQ%<group>
        .each(move |message| {
            if message.property("run") != Some(&run) {
                return Ok(());
            }
            // Only the first delivery fails here. A panic would have the same effect as an `Err`.
            if message.tag() == Some("paid") && message.reconsume_times() == 0 {
                let _ = told.send(Consumed::failed(message, "the bank does not answer; again after 10 s"));
                return Err("the bank does not answer".into());
            }
            let _ = told.send(Consumed::well(message));
            Ok(())
        })
        .start()
}

/// Starts a consumer of batches, whose listener may specify the fate of failed messages.
fn consume_samples(
    producer: &Producer,
    topic: &str,
    run: &str,
    told: Sender<Consumed>,
) -> rocketmq_sync::Result<PushConsumer> {
    let run = run.to_owned();
    PushConsumer::builder(common::of_this_run("statistics"))
        .client(producer.client())
        .subscribe(topic, FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .consume_batch(8)
        .concurrently(move |messages: &[MessageExt], context: &mut ConsumeContext| {
            for (index, message) in messages.iter().enumerate() {
                if message.property("run") != Some(&run) {
                    continue;
                }
                if message.body().starts_with(b"-300") && message.reconsume_times() == 0 {
                    let _ = told.send(Consumed::failed(message, "colder than it can be; again after 1 s"));
                    // Messages before it are consumed; it and the messages after it are redelivered after level 1 of
                    // the broker.
                    context.acknowledge_first(index);
                    context.set_retry_delay(RetryDelay::Level(1));
                    break;
                }
                let _ = told.send(Consumed::well(message));
            }
            ConsumeStatus::Success
        })
        .start()
}

/// Result of a listener call.
struct Consumed {
    words: String,
    well: bool,
}

impl Consumed {
    fn well(message: &MessageExt) -> Self {
        Self { words: in_words(message), well: true }
    }

    fn failed(message: &MessageExt, why: &str) -> Self {
        Self { words: format!("{}, and fails: {why}", in_words(message)), well: false }
    }
}

fn in_words(message: &MessageExt) -> String {
    let body = String::from_utf8_lossy(message.body());
    match message.reconsume_times() {
        0 => format!("{body:<22} {}", message.message_queue()),
        times => format!("{body:<22} retry {times}"),
    }
}

/// Answers the question "why is this queue not consumed?": each queue is in a state with a reason.
fn print_status(consumer: &PushConsumer) -> rocketmq_sync::Result<()> {
    println!("\nstatus of the queues");
    for queue in consumer.queues() {
        // None if the queue has just moved to another member of the group.
        if let Some(status) = consumer.status(&queue)? {
            println!("  {status}");
        }
    }
    Ok(())
}

/// Prints the results of listeners until `expected` messages are consumed.
fn await_consumed(expected: usize, tell: &Receiver<Consumed>, target: &Target) -> Outcome {
    let (mut consumed, mut failed) = (0, 0);
    while consumed < expected {
        let Ok(Consumed { words, well }) = tell.recv_timeout(PATIENCE) else {
            return Err(Failure::Missing(format!("{} messages did not come", expected - consumed)));
        };
        println!("  {words}");
        consumed += usize::from(well);
        failed += usize::from(!well);
        let Some(mini_broker) = target.mini_broker.as_ref().filter(|_| !well) else { continue };
        // No need to wait for the mini broker's time: as soon as it has the failed messages, its clock jumps ahead.
        if mini_broker.wait_for_requests(RequestCode::CONSUMER_SEND_MSG_BACK, failed, PATIENCE) {
            mini_broker.advance(Duration::from_secs(10));
        }
    }
    Ok(())
}
