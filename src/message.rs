//! The data users touch: [`Message`], [`MessageExt`], [`MessageQueue`], [`Properties`].
//!
//! Plain values without I/O. A received message's body and properties are slices of the reply they came in, and
//! properties stay in their encoded form: looking at one property costs a scan, not a map.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

/// A queue of a topic on one broker.
///
/// Ordered by topic, broker name and queue id, as the Java client sorts them before it shares queues out.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageQueue {
    /// The topic.
    pub topic: Arc<str>,
    /// The broker's name; its address is looked up in the topic's route.
    pub broker_name: Arc<str>,
    /// The number of the queue on that broker, from 0.
    pub queue_id: i32,
}

impl MessageQueue {
    /// The queue `queue_id` of `topic` on `broker_name`.
    pub fn new(topic: impl Into<Arc<str>>, broker_name: impl Into<Arc<str>>, queue_id: i32) -> Self {
        Self { topic: topic.into(), broker_name: broker_name.into(), queue_id }
    }
}

impl fmt::Display for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.broker_name, self.queue_id)
    }
}

impl fmt::Debug for MessageQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Named texts beside a message's body, kept in the form of the wire: `name \u{1} value \u{2}` for each.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties {
    encoded: Bytes,
}

/// A message to send, or the part of a received one that its sender wrote.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub(crate) topic: Arc<str>,
    pub(crate) body: Bytes,
    pub(crate) flag: i32,
    pub(crate) properties: Properties,
}

/// A received message: what its sender wrote, and what the broker knows of it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageExt {
    /// What the sender wrote.
    pub message: Message,
    /// The broker it was read from.
    pub broker_name: Arc<str>,
    /// The queue it was read from.
    pub queue_id: i32,
    /// Its position in the queue.
    pub queue_offset: i64,
    /// Its position in the broker's commit log.
    pub commit_log_offset: i64,
    /// When its sender made it, in milliseconds since 1970 by the sender's clock.
    pub born_timestamp: i64,
    /// Where it was sent from.
    pub born_host: SocketAddr,
    /// When the broker stored it, in milliseconds since 1970 by the broker's clock.
    pub store_timestamp: i64,
    /// The broker that stored it.
    pub store_host: SocketAddr,
    /// How often it was delivered before without success.
    pub reconsume_times: i32,
    /// The wire's bits for compression, transactions and address kinds.
    pub sys_flag: i32,
    /// CRC-32 of the stored body, without its top bit.
    pub body_crc: u32,
    /// Bytes it takes in the commit log.
    pub store_size: u32,
    /// Commit log offset of the half message, for a committed transaction.
    pub prepared_transaction_offset: i64,
}
