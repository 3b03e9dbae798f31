//! Sends without waiting for each message: once with a callback for each result, once with results in batches.
//!
//! ```text
//! cargo run --release --example producer_async
//! cargo run --release --example producer_async -- --name-server 127.0.0.1:9876 --topic TopicTest
//! ```
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use rocketmq_sync::{Completions, Error, Message, Producer, Rejected};

mod common;
use common::{Failure, Outcome, PATIENCE, Target};

const MESSAGES: u64 = 10_000;

fn main() -> ExitCode {
    common::run(producer_async)
}

fn producer_async(target: &Target) -> Outcome {
    // At most this many messages are in flight; then the next call waits for room. `fail_when_full(true)` makes it fail
    // instead, and return the message.
    let producer =
        Producer::builder("producer_async").name_servers(&target.name_servers).max_in_flight(1000).start()?;
    // The first send finds the route and makes the connections: an unreachable cluster is reported at once.
    producer.send(&Message::new(target.topic.as_str(), "hello"))?;
    with_callbacks(&producer, &target.topic)?;
    with_completions(&producer, &target.topic)?;

    println!("\nshutting down");
    common::tell_end_of_producer(&producer.shutdown(PATIENCE));
    Ok(())
}

/// Sends with a closure for each result: simple, and enough for most programs.
fn with_callbacks(producer: &Producer, topic: &str) -> Outcome {
    println!("{MESSAGES} messages, a callback for each");
    let begun = Instant::now();
    let (told, results) = crossbeam_channel::unbounded();
    for number in 0..MESSAGES {
        let told = told.clone();
        let message = Message::new(topic, format!("message {number}"));
        // Runs once, on a thread `rmq-callback-1` that other callbacks share: keep it short.
        let accepted = producer.send_async(message, move |result| drop(told.send(result)));
        accepted.map_err(not_accepted)?;
    }
    drop(told);
    let mut tally = Tally::default();
    for result in results {
        tally.count(result.map(drop));
    }
    tally.tell(begun)
}

/// Sends with a queue of results under tokens of the user: no closure for each message, no thread of the library.
fn with_completions(producer: &Producer, topic: &str) -> Outcome {
    println!("\n{MESSAGES} messages, their results fetched in batches");
    let begun = Instant::now();
    let completions = Completions::new();
    let tally = thread::scope(|scope| {
        // A result that is not taken keeps its place in the window, and the sends below wait for places: so another
        // thread takes them.
        let taker = scope.spawn(|| take_all(&completions));
        for number in 0..MESSAGES {
            let message = Message::new(topic, format!("message {number}"));
            producer.send_tracked(message, number, &completions).map_err(not_accepted)?;
        }
        Ok::<_, Error>(taker.join().unwrap_or_default())
    })?;
    tally.tell(begun)
}

fn take_all(completions: &Completions) -> Tally {
    let (mut finished, mut batches, mut tally) = (Vec::new(), 0, Tally::default());
    while tally.sum() < MESSAGES && completions.take(&mut finished, PATIENCE).is_ok_and(|taken| taken > 0) {
        batches += 1;
        for completed in finished.drain(..) {
            // `completed.token` is the number that was given to the send.
            tally.count(completed.result.map(drop));
        }
    }
    println!("  {batches} batches");
    tally
}

/// Returns the error of a send that was not accepted, because the window was full until the deadline or the message is
/// invalid. Such a send has no callback.
fn not_accepted(rejected: Rejected) -> Error {
    // `rejected.message` is the unchanged message, for another attempt.
    rejected.error
}

/// Results of the sends.
#[derive(Default)]
struct Tally {
    stored: u64,
    failed: u64,
    last_error: Option<Error>,
}

impl Tally {
    fn count(&mut self, result: Result<(), Error>) {
        match result {
            Ok(()) => self.stored += 1,
            Err(error) => {
                self.failed += 1;
                self.last_error = Some(error);
            }
        }
    }

    fn sum(&self) -> u64 {
        self.stored + self.failed
    }

    fn tell(self, begun: Instant) -> Outcome {
        println!("  {} stored, {} failed, within {:.0?}", self.stored, self.failed, begun.elapsed());
        match self.last_error {
            Some(error) => Err(error.into()),
            None if self.stored == MESSAGES => Ok(()),
            None => Err(Failure::Missing(format!("{} results did not come", MESSAGES - self.stored))),
        }
    }
}
