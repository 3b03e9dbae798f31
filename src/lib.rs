//! A synchronous, thread-based Apache RocketMQ client without an async runtime.

#![forbid(unsafe_code)]

pub mod wire;

mod client;
mod error;
mod message;
mod producer;
mod properties;
mod remoting;
mod worker;

pub use client::{Client, ClientBuilder};
pub use error::{Attempt, Certainty, Error, ErrorKind, Phase, Result};
pub use message::{Message, MessageExt, MessageQueue};
pub use producer::{
    Completed, Completions, Producer, ProducerBuilder, ProducerReport, Rejected, SendResult, SendStatus, by_hash,
};
pub use properties::Properties;
pub use remoting::{Resolve, SystemResolver};
pub use wire::compression::Codec;
pub use worker::{StdThreads, ThreadBody, ThreadJoin, ThreadSpec, ThreadStarter};
