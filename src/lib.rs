//! A synchronous, thread-based [Apache RocketMQ](https://rocketmq.apache.org) client without an async runtime.
//!
//! It speaks the Remoting protocol to name servers and brokers of 4.9 and 5.x, with plain threads, blocking calls, and
//! callbacks where they are wanted. Two types do the work: a [`Producer`] sends, a [`PushConsumer`] consumes.
//!
//! # Send
//!
//! ```no_run
//! use rocketmq_sync::{Message, Producer};
//!
//! fn main() -> rocketmq_sync::Result<()> {
//!     let producer = Producer::builder("orders").name_servers(["127.0.0.1:9876"]).start()?;
//!     let message = Message::new("TopicTest", "hello").with_tag("A").with_key("42");
//!     let receipt = producer.send(&message)?;
//!     println!("stored in {} at offset {}", receipt.queue, receipt.queue_offset);
//!     Ok(())
//! }
//! ```
//!
//! Other verbs: with a callback ([`send_async`](Producer::send_async)), with results in batches
//! ([`send_tracked`](Producer::send_tracked) and [`Completions`]), without an answer
//! ([`send_oneway`](Producer::send_oneway)). Options of one call come before the verb, the same for all verbs: to a queue
//! ([`to_queue`](Producer::to_queue)), to the queue of a key ([`by_key`](Producer::by_key)), to a selected one
//! ([`by`](Producer::by)), with a timeout of its own ([`timeout`](Producer::timeout)).
//!
//! # Consume
//!
//! ```no_run
//! use rocketmq_sync::{FilterExpression, MessageExt, PushConsumer};
//! use std::{str::Utf8Error, thread, time::Duration};
//!
//! fn main() -> rocketmq_sync::Result<()> {
//!     let consumer = PushConsumer::builder("billing")
//!         .name_servers(["127.0.0.1:9876"])
//!         .subscribe("TopicTest", FilterExpression::tags(["A", "B"]))
//!         .each(|message: &MessageExt| -> Result<(), Utf8Error> {
//!             println!("{}", std::str::from_utf8(message.body())?);
//!             Ok(())
//!         })
//!         .start()?;
//!     thread::sleep(Duration::from_secs(60));
//!     println!("{:?}", consumer.shutdown(Duration::from_secs(10)));
//!     Ok(())
//! }
//! ```
//!
//! The listener runs on several threads at once. An `Err` or a panic makes the message come again after a while, and at
//! last go to the group's dead-letter queue; for batches and a chosen delay see
//! [`concurrently`](PushConsumerBuilder::concurrently). Delivery is at least once: a message may be delivered twice, but
//! is not lost.
//!
//! # What can be relied on
//!
//! * **Each call has one outcome, by its deadline.** The timeout of a send holds for all of it: route, connection and every
//!   attempt. After `Ok(())` of an asynchronous send its callback runs exactly once, whatever happens to brokers,
//!   connections and the producer.
//! * **An error says what it means for the message.** [`Error::certainty`] is [`Certainty::NotSent`] only when no broker can
//!   have it, [`Certainty::Unknown`] when it left and no answer came; [`Error::attempts`] tells what was tried where,
//!   [`Error::kind`] what went wrong, [`Error::is_retryable`] whether the same call may succeed later.
//! * **No offset passes a message that is not resolved:** consumed, or stored by a broker again for a later delivery.
//! * **Nothing waits for ever.** A start dials nothing; servers that are gone are found again when they return. Each queue of
//!   a consumer is in a state with a deadline, and [`PushConsumer::explain`] tells which.
//! * **An end is an end.** [`Producer::shutdown`] and [`PushConsumer::shutdown`] wait for what is under way, up to a deadline,
//!   and report what was left undone; dropping does the same with a grace of one second. When the last handle of a client is
//!   dropped (its members hold one each), no thread, connection or descriptor of it is left, but for listeners that still
//!   run, which the report counts.
//!
//! Each of these, and more, stands in [`guarantees`] with the tests that show it.
//!
//! # Threads
//!
//! | threads | of |
//! |---|---|
//! | `rmq-remoting`, `rmq-timer` | each [`Client`], which producers and consumers make for themselves or share |
//! | `rmq-pull`, `rmq-rebalance` | each client with consumers |
//! | `rmq-consume-N` | each consumer: the listener runs there, on 20 threads unless told otherwise |
//! | `rmq-callback-N` | each client whose producers were given callbacks: one unless told otherwise |
//! | `rmq-resolve-N` | each client while it maps addresses and resolves host names: up to four |
//! | `rmq-starter` | each client whose host brings a [`ThreadStarter`] |
//!
//! Producers, consumers and clients may be used from any number of threads at once: every call takes `&self`. Signals are
//! blocked in the library's threads; a host that must make threads itself gives a [`ThreadStarter`]. There is no global
//! state but a counter of the process's forks. In a forked child the parent's clients fail with [`ErrorKind::Forked`]; new
//! ones work.
//!
//! # Features
//!
//! * `zlib`, `lz4`, `zstd` (default): body compression, each in pure Rust. A consumer needs those that its senders use.
//! * `mini-broker`: the module `mini_broker`, an in-process name server and broker for tests, with scripted faults and
//!   injected time.
//!
//! # Logs
//!
//! The library logs through the crate [`log`]: warnings for what failed and is tried again, an info line for the end of a
//! producer or consumer, debug lines for connections, routes and rebalancing. A message's body is never logged.
//!
//! # Where to go next
//!
//! [`ProducerBuilder`] and [`PushConsumerBuilder`] list the options, each with its default and its name in the Java client;
//! [`ErrorKind`] lists the failures, each with its meaning and remedy. The folder `examples` of the source has a file for
//! each capability that runs without any server (`cargo run --example quickstart`) and, with `--name-server HOST:PORT`, on
//! yours; `rmq-doctor` among them finds out why a program cannot reach its cluster. How the library is built, and why so,
//! stands in `ARCHITECTURE.md` there.

#![forbid(unsafe_code)]

#[cfg(test)]
mod checks;
mod client;
mod consumer;
mod deadline;
mod error;
#[doc = include_str!("guarantees.md")]
pub mod guarantees {}
mod foreign_text;
mod logging;
mod message;
#[cfg(feature = "mini-broker")]
pub mod mini_broker;
mod name_map;
mod producer;
mod remoting;
mod repeats;
mod worker;

pub mod unversioned;
use unversioned::wire;

/// The programs in the README are compiled as those in the documentation are.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// Reference-counted bytes of the crate `bytes`, the type of bodies.
pub use bytes::Bytes;
pub use client::{Client, ClientBuilder};
pub use consumer::{
    AllocateStrategy, ConcurrentListener, ConsumeContext, ConsumeFromWhere, ConsumeStatus, ConsumerReport,
    FilterExpression, PushConsumer, PushConsumerBuilder, RetryDelay,
};
pub use error::{Attempt, Certainty, Error, ErrorKind, Phase, Result};
#[cfg(feature = "mini-broker")]
pub use message::builder::MessageExtBuilder;
pub use message::properties::Properties;
pub use message::{Message, MessageExt, MessageQueue};
pub use producer::{
    Completed, Completions, Producer, ProducerBuilder, ProducerReport, Rejected, RetryCodes, SendCall, SendResult,
    SendStatus,
};
pub use remoting::{Resolve, SystemResolver};
pub use wire::stored::compression::Codec;
pub use wire::{HeaderEncoding, ResponseCode};
pub use worker::{StdThreads, ThreadBody, ThreadJoin, ThreadSpec, ThreadStarter};
