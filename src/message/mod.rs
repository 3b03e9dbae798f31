//! Data types of users: [`Message`], [`MessageExt`], [`MessageQueue`].
//!
//! Plain values without I/O, clock or lock. A received message's body and properties are slices of the reply they came
//! in, so a message that is kept keeps that reply in memory. `wire/stored/message_id.rs` derives the ids of a message.

#[cfg(feature = "mini-broker")]
pub(crate) mod builder;
pub(crate) mod properties;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::message::properties::{Properties, PropertyViolation, name};

/// Queue of a topic on one broker.
///
/// Ordered by topic, broker name and queue id, as the Java client sorts queues before allocation.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageQueue {
    // Order of the fields is that of the derived comparison.
    pub(crate) topic: Arc<str>,
    pub(crate) broker_name: Arc<str>,
    pub(crate) queue_id: i32,
}

impl MessageQueue {
    /// Creates the queue `queue_id` of `topic` on `broker_name`.
    pub fn new(topic: impl Into<Arc<str>>, broker_name: impl Into<Arc<str>>, queue_id: i32) -> Self {
        Self { topic: topic.into(), broker_name: broker_name.into(), queue_id }
    }

    /// Name of the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Name of the broker that holds the queue; the topic's route has its address.
    #[must_use]
    pub fn broker_name(&self) -> &str {
        &self.broker_name
    }

    /// Number of the queue on its broker, from 0.
    #[must_use]
    pub fn queue_id(&self) -> i32 {
        self.queue_id
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

/// Message to send, or the sender's part of a received one.
///
/// Cheap to clone: topic, body and properties are shared.
///
/// ```
/// use rocketmq_sync::Message;
///
/// let message = Message::new("TopicTest", "hello").with_tag("A").with_key("42").with_property("colour", "blue");
/// assert_eq!(message.tag(), Some("A"));
/// assert_eq!(message.property("colour"), Some("blue"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub(crate) topic: Arc<str>,
    pub(crate) body: Bytes,
    pub(crate) flag: i32,
    pub(crate) properties: Properties,
    /// First property that a setter refused; sending returns it as an error.
    violation: Option<Box<PropertyViolation>>,
}

impl Message {
    /// Creates a message for `topic` with this body. The arguments are not checked here: `send` returns an error if
    /// they are invalid.
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>, body: impl Into<Bytes>) -> Self {
        Self::from_parts(topic.into(), body.into(), 0, Properties::new())
    }

    /// Sets the tag, by which consumers can filter. A message has one tag; a second call replaces the first.
    ///
    /// `send` refuses a tag that no expression can match: one with leading or trailing blanks, with `||` in it, or `*`.
    #[must_use]
    pub fn with_tag(mut self, tag: impl AsRef<str>) -> Self {
        match PropertyViolation::of_tag(tag.as_ref()) {
            Some(violation) => self.refuse(violation),
            None => self.properties.set(name::TAGS, tag.as_ref()),
        }
        self
    }

    /// Adds a key under which the broker's index finds the message, such as an order number.
    ///
    /// Keys are joined by a blank on the wire, so a key must not contain one.
    #[must_use]
    pub fn with_key(mut self, key: impl AsRef<str>) -> Self {
        let key = key.as_ref();
        match PropertyViolation::of_key(key) {
            Some(violation) => self.refuse(violation),
            None => match self.keys() {
                Some(keys) => {
                    let joined = format!("{keys} {key}");
                    self.properties.set(name::KEYS, &joined);
                }
                None => self.properties.append(name::KEYS, key),
            },
        }
        self
    }

    /// Adds several keys; see [`with_key`](Self::with_key).
    #[must_use]
    pub fn with_keys<K: AsRef<str>>(self, keys: impl IntoIterator<Item = K>) -> Self {
        keys.into_iter().fold(self, Self::with_key)
    }

    /// Sets a number for the application's own use that is sent with the message. Default: 0.
    #[must_use]
    pub fn with_flag(mut self, flag: i32) -> Self {
        self.flag = flag;
        self
    }

    /// Makes the broker respond only after the message is flushed or replicated, where the broker does that
    /// synchronously. Default: true (`Message.setWaitStoreMsgOK` of the Java client).
    #[must_use]
    pub fn with_wait_store(self, wait: bool) -> Self {
        self.with_checked(name::WAIT, if wait { "true" } else { "false" })
    }

    /// Sets a property of the application; a second call with the same name replaces the first.
    ///
    /// Name and value must not be blank or contain U+0001 or U+0002. Names that the system uses (`TAGS`, `KEYS`,
    /// `UNIQ_KEY` ...) are refused. `send` returns the error; nothing is dropped silently.
    #[must_use]
    pub fn with_property(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let (name, value) = (name.as_ref(), value.as_ref());
        match PropertyViolation::of_user_property(name, value) {
            Some(violation) => self.refuse(violation),
            None => self.properties.set(name, value),
        }
        self
    }

    /// Name of the topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Body of the message.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Number for the application's own use.
    #[must_use]
    pub fn flag(&self) -> i32 {
        self.flag
    }

    /// Tag of the message.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.property(name::TAGS)
    }

    /// Keys of the message, joined by blanks.
    #[must_use]
    pub fn keys(&self) -> Option<&str> {
        self.property(name::KEYS)
    }

    /// Returns the value of a property, of the application or of the system.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name)
    }

    /// All properties, including those of the system.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// Creates a message from parts that are already checked.
    pub(crate) fn from_parts(topic: Arc<str>, body: Bytes, flag: i32, properties: Properties) -> Self {
        Self { topic, body, flag, properties, violation: None }
    }

    /// First property that a setter refused; the message cannot be sent.
    pub(crate) fn violation(&self) -> Option<&PropertyViolation> {
        self.violation.as_deref()
    }

    fn with_checked(mut self, name: &str, value: &str) -> Self {
        match PropertyViolation::of_value(name, value) {
            Some(violation) => self.refuse(violation),
            None => self.properties.set(name, value),
        }
        self
    }

    fn refuse(&mut self, violation: PropertyViolation) {
        self.violation.get_or_insert_with(|| Box::new(violation));
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("body_length", &self.body.len())
            .field("flag", &self.flag)
            .field("properties", &self.properties)
            .finish()
    }
}

/// Received message: the sender's part, and the place and time at which the broker stored it.
#[derive(Clone, PartialEq, Eq)]
pub struct MessageExt {
    pub(crate) message: Message,
    pub(crate) broker_name: Arc<str>,
    pub(crate) queue_id: i32,
    pub(crate) queue_offset: i64,
    pub(crate) commit_log_offset: i64,
    /// Milliseconds since 1970, as on the wire.
    pub(crate) born_timestamp: i64,
    pub(crate) born_host: SocketAddr,
    /// Milliseconds since 1970, as on the wire.
    pub(crate) store_timestamp: i64,
    pub(crate) store_host: SocketAddr,
    pub(crate) reconsume_times: i32,
    pub(crate) sys_flag: i32,
    pub(crate) body_crc: u32,
    pub(crate) store_size: u32,
    pub(crate) prepared_transaction_offset: i64,
    /// Reason why the stored bytes could not be decoded. Such a message holds the fields that could be read. It
    /// occupies its position in the queue and is never delivered to a listener.
    pub(crate) defect: Option<Arc<str>>,
}

impl MessageExt {
    /// Name of the topic; for a retried message, the topic of its first sending.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.message.topic()
    }

    /// Body of the message.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        self.message.body()
    }

    /// Sender's part of the message. Its clone keeps id and delay; use [`to_message`](Self::to_message) to send the
    /// message to another topic.
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Number for the application's own use.
    #[must_use]
    pub fn flag(&self) -> i32 {
        self.message.flag()
    }

    /// Name of the broker that delivered the message.
    #[must_use]
    pub fn broker_name(&self) -> &str {
        &self.broker_name
    }

    /// Number of the queue on its broker.
    #[must_use]
    pub fn queue_id(&self) -> i32 {
        self.queue_id
    }

    /// Position in the queue (`queueOffset`).
    #[must_use]
    pub fn queue_offset(&self) -> i64 {
        self.queue_offset
    }

    /// Position in the broker's commit log, in bytes (`commitLogOffset`).
    #[must_use]
    pub fn commit_log_offset(&self) -> i64 {
        self.commit_log_offset
    }

    /// Time of the message's creation, by the sender's clock (`bornTimestamp`).
    #[must_use]
    pub fn born_at(&self) -> SystemTime {
        at_millis(self.born_timestamp)
    }

    /// Address of the sender, as seen by the broker.
    #[must_use]
    pub fn born_host(&self) -> SocketAddr {
        self.born_host
    }

    /// Time at which the broker stored the message, by the broker's clock (`storeTimestamp`).
    #[must_use]
    pub fn stored_at(&self) -> SystemTime {
        at_millis(self.store_timestamp)
    }

    /// Address of the broker that stored the message.
    #[must_use]
    pub fn store_host(&self) -> SocketAddr {
        self.store_host
    }

    /// Number of earlier deliveries that failed (`reconsumeTimes`).
    #[must_use]
    pub fn reconsume_times(&self) -> i32 {
        self.reconsume_times
    }

    /// Flag bits of the wire for compression, transactions and address kinds (`sysFlag`).
    #[must_use]
    pub fn sys_flag(&self) -> i32 {
        self.sys_flag
    }

    /// CRC-32 of the stored body, without its top bit (`bodyCRC`).
    #[must_use]
    pub fn body_crc(&self) -> u32 {
        self.body_crc
    }

    /// Size in the commit log, in bytes (`storeSize`).
    #[must_use]
    pub fn store_size(&self) -> u32 {
        self.store_size
    }

    /// Commit log offset of the half message, for a committed transaction.
    #[must_use]
    pub fn prepared_transaction_offset(&self) -> i64 {
        self.prepared_transaction_offset
    }

    /// Number of bytes of body and properties.
    pub(crate) fn held_bytes(&self) -> usize {
        self.body().len() + self.message.properties.encoded().len()
    }

    /// Copies body and properties, so that they no longer keep the whole reply in memory.
    pub(crate) fn detach(&mut self) {
        self.message.body = Bytes::copy_from_slice(&self.message.body);
        self.message.properties.detach();
    }

    /// Tag set by the sender.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.message.tag()
    }

    /// Keys set by the sender, joined by blanks.
    #[must_use]
    pub fn keys(&self) -> Option<&str> {
        self.message.keys()
    }

    /// Returns the value of a property, of the application or of the system.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.message.property(name)
    }

    /// All properties, including those of the system.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        self.message.properties()
    }

    /// Creates a new message for `topic` with the body, flag, tag, keys and application properties of this one.
    ///
    /// Values of the former delivery are not copied: the id, delay and timer, retries, transaction, request and reply,
    /// tracing, and everything else that clients and brokers write for each other. A clone of
    /// [`message`](Self::message) would be sent under the same id and with the same delay.
    ///
    /// ```no_run
    /// # fn forward(producer: &rocketmq_sync::Producer, received: &rocketmq_sync::MessageExt) -> rocketmq_sync::Result<()> {
    /// producer.send(&received.to_message("Archive"))?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn to_message(&self, topic: impl Into<Arc<str>>) -> Message {
        let properties = self.properties().without_those_of_delivery();
        Message::from_parts(topic.into(), self.body().clone(), self.message.flag, properties)
    }

    /// Queue that the message was read from.
    #[must_use]
    pub fn message_queue(&self) -> MessageQueue {
        MessageQueue {
            topic: Arc::clone(&self.message.topic),
            broker_name: Arc::clone(&self.broker_name),
            queue_id: self.queue_id,
        }
    }
}

/// Converts a time of the wire. Times before 1970 or outside of the range of [`SystemTime`] become 1970.
pub(crate) fn at_millis(millis: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl fmt::Debug for MessageExt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageExt")
            .field("message", &self.message)
            .field("broker_name", &self.broker_name)
            .field("queue_id", &self.queue_id)
            .field("queue_offset", &self.queue_offset)
            .field("commit_log_offset", &self.commit_log_offset)
            .field("born_timestamp", &self.born_timestamp)
            .field("born_host", &self.born_host)
            .field("store_timestamp", &self.store_timestamp)
            .field("store_host", &self.store_host)
            .field("reconsume_times", &self.reconsume_times)
            .field("sys_flag", &self.sys_flag)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_joined_by_one_blank() {
        let message = Message::new("T", "").with_key("abc").with_keys(["efg", "hij"]);
        assert_eq!(message.keys(), Some("abc efg hij"));
        assert_eq!(message.properties().len(), 1);
    }

    #[test]
    fn the_first_refused_property_is_remembered() {
        let message = Message::new("T", "").with_property("TRACE_ON", "true").with_key("two words").with_tag("A");
        assert!(message.violation().unwrap().to_string().contains("TRACE_ON"));
        assert_eq!(message.tag(), Some("A"));
    }

    #[test]
    fn a_key_with_a_blank_is_refused() {
        assert!(Message::new("T", "").with_key("two words").violation().is_some());
    }

    #[test]
    fn a_property_given_twice_has_its_last_value() {
        let message = Message::new("T", "").with_property("a", "1").with_property("b", "2").with_property("a", "3");
        assert_eq!(message.properties().iter().collect::<Vec<_>>(), [("b", "2"), ("a", "3")]);
        assert!(message.violation().is_none());
    }

    #[test]
    fn debug_shows_the_length_of_the_body_and_not_the_body() {
        let shown = format!("{:?}", Message::new("T", "secret"));
        assert!(!shown.contains("secret"));
        assert!(shown.contains("body_length: 6"));
    }
}
