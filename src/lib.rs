//! A synchronous, thread-based [Apache RocketMQ](https://rocketmq.apache.org) client without an async runtime.
//!
//! It uses the Remoting protocol to name servers and brokers of 4.9 and 5.x, with plain threads, blocking calls, and
//! optional callbacks. A [`Producer`] sends, a [`PushConsumer`] consumes.
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
//! Other ways to send: with a callback ([`send_async`](Producer::send_async)), with results in batches
//! ([`send_tracked`](Producer::send_tracked) and [`Completions`]), without a response
//! ([`send_oneway`](Producer::send_oneway)). Options of one call come before the verb and are the same for all verbs: to a
//! queue ([`to_queue`](Producer::to_queue)), to the queue of a key ([`by_key`](Producer::by_key)), to a selected queue
//! ([`by`](Producer::by)), with its own timeout ([`timeout`](Producer::timeout)).
//!
//! # Consume
//!
//! ```no_run
//! use rocketmq_sync::{FilterExpression, PushConsumer};
//! use std::{thread, time::Duration};
//!
//! fn main() -> rocketmq_sync::Result<()> {
//!     let consumer = PushConsumer::builder("billing")
//!         .name_servers(["127.0.0.1:9876"])
//!         .subscribe("TopicTest", FilterExpression::tags(["A", "B"]))
//!         .each(|message| {
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
//! The listener runs on several threads at once. After an `Err` or a panic the message is redelivered with a delay. After
//! the maximum of redeliveries it goes to the group's dead-letter queue. For batches and a chosen delay see
//! [`concurrently`](PushConsumerBuilder::concurrently). Delivery is at least once: a message may be delivered twice, but
//! is not lost.
//!
//! # Guarantees
//!
//! * **Each call has one outcome, by its deadline.** The timeout of a send covers route, connection and every attempt. After
//!   `Ok(())` of an asynchronous send, its callback runs exactly once, regardless of failures of brokers and connections
//!   and of the producer's shutdown.
//! * **An error states the fate of the message.** [`Error::certainty`] is [`Certainty::NotSent`] only if no broker can have
//!   the message, and [`Certainty::Unknown`] if it was sent and no response arrived. [`Error::attempts`] lists the attempts,
//!   [`Error::kind`] is the kind of failure, and [`Error::is_retryable`] is true if the same call may succeed later.
//! * **No offset passes an unresolved message.** A resolved message is consumed, or stored by a broker again for
//!   redelivery.
//! * **Every wait has a deadline.** A start makes no connection; servers that are down are found when they return. Each queue
//!   of a consumer is in a state with a deadline, and [`PushConsumer::status`] returns it with its reason.
//! * **Shutdown is complete.** [`Producer::shutdown`] and [`PushConsumer::shutdown`] wait for work in progress, up to a
//!   deadline, and report unfinished work. Dropping does the same with a grace of one second. After the last handle of a
//!   client is dropped (its members hold one each), no thread, connection or descriptor of it is left. The only exception
//!   are listeners that still run; the report counts them.
//!
//! [`guarantees`] lists these and more, with the tests that show them.
//!
//! # Threads
//!
//! | threads | owner |
//! |---|---|
//! | `rmq-remoting`, `rmq-timer` | each [`Client`], which producers and consumers make for themselves or share |
//! | `rmq-pull`, `rmq-rebalance` | each client with consumers |
//! | `rmq-consume-N` | each consumer, for its listener; 20 threads by default |
//! | `rmq-callback-N` | each client with asynchronous sends that have a callback; 1 thread by default |
//! | `rmq-resolve-N` | each client while it maps addresses and resolves host names; up to 4 threads |
//! | `rmq-starter` | each client of a host with its own [`ThreadStarter`] |
//!
//! Producers, consumers and clients may be used from any number of threads at once: every call takes `&self`. Signals are
//! blocked in the library's threads. A host that must create threads itself provides a [`ThreadStarter`]. The only global
//! state is a counter of the process's forks. In a forked child the parent's clients fail with [`ErrorKind::Forked`]; new
//! ones work.
//!
//! # Features
//!
//! * `zlib`, `lz4`, `zstd` (default): body compression, each in pure Rust. A consumer needs the codecs of its senders.
//! * `mini-broker`: the module `mini_broker`, an in-process name server and broker for tests, with scripted faults and
//!   injected time.
//!
//! # Logs
//!
//! The library logs through the crate [`log`]: warnings for failures that are retried, info lines for changes such as the
//! shutdown of a producer or consumer, debug lines for details of connections, routes and rebalancing. Message bodies are
//! never logged.
//!
//! # Where to go next
//!
//! [`ProducerBuilder`] and [`PushConsumerBuilder`] list the options, each with its default and its name in the Java client;
//! [`ErrorKind`] lists the failures, each with its meaning and remedy. The folder `examples` of the source has an example
//! for each capability. Each runs without any server (`cargo run --example quickstart`) or, with `--name-server HOST:PORT`,
//! on your cluster. The example `rmq-doctor` diagnoses why a program cannot reach its cluster. `ARCHITECTURE.md` there
//! describes the design of the library and its reasons.

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

/// Compiles the programs in the README like those in the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

/// Reference-counted bytes of the crate `bytes`, the type of message bodies.
pub use bytes::Bytes;
pub use client::{Client, ClientBuilder, ClientReport};
pub use consumer::{
    AllocateStrategy, ConcurrentListener, ConsumeContext, ConsumeFromWhere, ConsumeStatus, ConsumerReport,
    FilterExpression, PushConsumer, PushConsumerBuilder, QueueState, QueueStatus, RetryDelay,
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
