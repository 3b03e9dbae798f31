//! A synchronous, thread-based Apache RocketMQ client without an async runtime.

#![forbid(unsafe_code)]

mod client;
mod consumer;
mod error;
#[cfg(test)]
mod layers;
mod message;
#[cfg(feature = "mini-broker")]
pub mod mini_broker;
mod producer;
mod properties;
mod remoting;
#[cfg(test)]
mod vectors;
pub mod wire;
mod worker;

pub use client::{Client, ClientBuilder};
pub use consumer::{
    AllocateStrategy, ConcurrentListener, ConsumeContext, ConsumeFromWhere, ConsumeStatus, ConsumerReport,
    FilterExpression, PushConsumer, PushConsumerBuilder, RetryDelay,
};
pub use error::{Attempt, Certainty, Error, ErrorKind, Phase, Result};
pub use message::{Message, MessageExt, MessageQueue};
pub use producer::{
    Completed, Completions, Producer, ProducerBuilder, ProducerReport, Rejected, SendResult, SendStatus, by_hash,
};
pub use properties::Properties;
pub use remoting::{Resolve, SystemResolver};
pub use wire::compression::Codec;
pub use worker::{StdThreads, ThreadBody, ThreadJoin, ThreadSpec, ThreadStarter};
