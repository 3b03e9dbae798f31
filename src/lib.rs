//! A synchronous, thread-based Apache RocketMQ client without an async runtime.

#![forbid(unsafe_code)]

mod message;
mod properties;
pub mod wire;

pub use message::{Message, MessageExt, MessageQueue};
pub use properties::Properties;
