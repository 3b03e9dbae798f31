//! A synchronous, thread-based Apache RocketMQ client without an async runtime.

#![forbid(unsafe_code)]

pub mod wire;

mod client;
mod error;
mod message;
mod properties;
mod remoting;
mod worker;

pub use client::{Client, ClientBuilder};
pub use error::{Attempt, Certainty, Error, ErrorKind, Phase, Result};
pub use message::{Message, MessageExt, MessageQueue};
pub use properties::Properties;
pub use remoting::{Resolve, SystemResolver};
pub use worker::{StdThreads, ThreadBody, ThreadJoin, ThreadSpec, ThreadStarter};
