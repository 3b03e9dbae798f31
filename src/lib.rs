//! A synchronous, thread-based Apache RocketMQ client without an async runtime.

#![forbid(unsafe_code)]

pub mod wire;
