//! A synchronous, thread-based Apache RocketMQ client without an async runtime.

#![forbid(unsafe_code)]

mod message;
mod properties;
pub mod wire;

#[cfg(test)]
mod vectors;

pub use message::{Message, MessageExt, MessageQueue};
pub use properties::Properties;
