//! The data users touch: [`Message`], [`MessageExt`], [`MessageQueue`].
//!
//! Plain values without I/O, clock or lock. A received message's body and properties are slices of the reply they came
//! in: a message that is kept for long keeps that reply. Its ids are derived in `wire/message_id.rs`, which knows their
//! layout.

#[cfg(feature = "mini-broker")]
pub(crate) mod builder;
pub(crate) mod properties;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::message::properties::{Properties, PropertyViolation, name};

/// A queue of a topic on one broker.
///
/// Ordered by topic, broker name and queue id, as the Java client sorts them before it shares queues out.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageQueue {
    // In this order, which is that of the derived comparison.
    pub(crate) topic: Arc<str>,
    pub(crate) broker_name: Arc<str>,
    pub(crate) queue_id: i32,
}

impl MessageQueue {
    /// The queue `queue_id` of `topic` on `broker_name`.
    pub fn new(topic: impl Into<Arc<str>>, broker_name: impl Into<Arc<str>>, queue_id: i32) -> Self {
        Self { topic: topic.into(), broker_name: broker_name.into(), queue_id }
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The name of the broker that holds the queue; the topic's route has its address.
    #[must_use]
    pub fn broker_name(&self) -> &str {
        &self.broker_name
    }

    /// The number of the queue on its broker, from 0.
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

/// A message to send, or the part of a received one that its sender wrote.
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
    /// The first property that a setter had to refuse; sending tells it.
    violation: Option<Box<PropertyViolation>>,
}

impl Message {
    /// A message for `topic` with this body. Nothing is checked here: `send` refuses what cannot be sent.
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>, body: impl Into<Bytes>) -> Self {
        Self::from_parts(topic.into(), body.into(), 0, Properties::new())
    }

    /// The tag that consumers can select by. A message has one; a second call replaces the first.
    ///
    /// One that no consumer can select is refused by `send`: with a blank at an end, with `||` in it, or `*`.
    #[must_use]
    pub fn with_tag(mut self, tag: impl AsRef<str>) -> Self {
        match PropertyViolation::of_tag(tag.as_ref()) {
            Some(violation) => self.refuse(violation),
            None => self.properties.set(name::TAGS, tag.as_ref()),
        }
        self
    }

    /// One more key under which the broker's index finds the message, such as an order number.
    ///
    /// Keys are joined by a blank on the wire, so that none may contain one.
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

    /// Several more keys; see [`with_key`](Self::with_key).
    #[must_use]
    pub fn with_keys<K: AsRef<str>>(self, keys: impl IntoIterator<Item = K>) -> Self {
        keys.into_iter().fold(self, Self::with_key)
    }

    /// A number of the application's own that travels with the message. Default: 0.
    #[must_use]
    pub fn with_flag(mut self, flag: i32) -> Self {
        self.flag = flag;
        self
    }

    /// Whether the broker's answer waits until the message is flushed or replicated, where the broker does that
    /// synchronously. Default: true (`Message.setWaitStoreMsgOK` of the Java client).
    #[must_use]
    pub fn with_wait_store(self, wait: bool) -> Self {
        self.with_checked(name::WAIT, if wait { "true" } else { "false" })
    }

    /// A property of the application's own; a second call with the same name replaces the first.
    ///
    /// Neither part may be blank or contain U+0001 or U+0002, and names that the system uses (`TAGS`, `KEYS`,
    /// `UNIQ_KEY` ...) are refused: `send` returns the error, nothing is dropped in silence.
    #[must_use]
    pub fn with_property(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let (name, value) = (name.as_ref(), value.as_ref());
        match PropertyViolation::of_user_property(name, value) {
            Some(violation) => self.refuse(violation),
            None => self.properties.set(name, value),
        }
        self
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The application's own number.
    #[must_use]
    pub fn flag(&self) -> i32 {
        self.flag
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.property(name::TAGS)
    }

    /// The keys, joined by blanks.
    #[must_use]
    pub fn keys(&self) -> Option<&str> {
        self.property(name::KEYS)
    }

    /// The value of a property, of the application or of the system.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name)
    }

    /// All properties, those of the system among them.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// A message made of what is known to be right.
    pub(crate) fn from_parts(topic: Arc<str>, body: Bytes, flag: i32, properties: Properties) -> Self {
        Self { topic, body, flag, properties, violation: None }
    }

    /// The first property that a setter had to refuse: the message cannot be sent.
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

/// A received message: the sender's part, and where and when the broker stored it.
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
    /// Reason why the stored bytes could not be decoded. Such a message holds what could be read; it takes its place in
    /// its queue and never reaches a listener.
    pub(crate) defect: Option<Arc<str>>,
}

impl MessageExt {
    /// The topic; for a retried message that of its first sending.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.message.topic()
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        self.message.body()
    }

    /// The sender's part. Its clone keeps id and delay: to send the message on, use [`to_message`](Self::to_message).
    #[must_use]
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The application's own number.
    #[must_use]
    pub fn flag(&self) -> i32 {
        self.message.flag()
    }

    /// The name of the broker that delivered it.
    #[must_use]
    pub fn broker_name(&self) -> &str {
        &self.broker_name
    }

    /// The number of the queue that it was read from, on its broker.
    #[must_use]
    pub fn queue_id(&self) -> i32 {
        self.queue_id
    }

    /// Position in its queue (`queueOffset`).
    #[must_use]
    pub fn queue_offset(&self) -> i64 {
        self.queue_offset
    }

    /// Position in the broker's commit log, in bytes (`commitLogOffset`).
    #[must_use]
    pub fn commit_log_offset(&self) -> i64 {
        self.commit_log_offset
    }

    /// Time of its making, by the sender's clock (`bornTimestamp`).
    #[must_use]
    pub fn born_at(&self) -> SystemTime {
        at_millis(self.born_timestamp)
    }

    /// Address of the sender, as the broker saw it.
    #[must_use]
    pub fn born_host(&self) -> SocketAddr {
        self.born_host
    }

    /// Time of its storing, by the broker's clock (`storeTimestamp`).
    #[must_use]
    pub fn stored_at(&self) -> SystemTime {
        at_millis(self.store_timestamp)
    }

    /// Address of the broker that stored it.
    #[must_use]
    pub fn store_host(&self) -> SocketAddr {
        self.store_host
    }

    /// Number of earlier deliveries that failed (`reconsumeTimes`).
    #[must_use]
    pub fn reconsume_times(&self) -> i32 {
        self.reconsume_times
    }

    /// Bits of the wire for compression, transactions and address kinds (`sysFlag`).
    #[must_use]
    pub fn sys_flag(&self) -> i32 {
        self.sys_flag
    }

    /// CRC-32 of the stored body, without its top bit (`bodyCRC`).
    #[must_use]
    pub fn body_crc(&self) -> u32 {
        self.body_crc
    }

    /// Bytes that it takes in the commit log (`storeSize`).
    #[must_use]
    pub fn store_size(&self) -> u32 {
        self.store_size
    }

    /// Commit log offset of the half message, for a committed transaction.
    #[must_use]
    pub fn prepared_transaction_offset(&self) -> i64 {
        self.prepared_transaction_offset
    }

    /// Bytes of body and properties.
    pub(crate) fn held_bytes(&self) -> usize {
        self.body().len() + self.message.properties.encoded().len()
    }

    /// Copies body and properties, so that the reply they are slices of is not kept for them.
    pub(crate) fn detach(&mut self) {
        self.message.body = Bytes::copy_from_slice(&self.message.body);
        self.message.properties.detach();
    }

    /// The sender's tag.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.message.tag()
    }

    /// The sender's keys, joined by blanks.
    #[must_use]
    pub fn keys(&self) -> Option<&str> {
        self.message.keys()
    }

    /// The value of a property, of the application or of the system.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.message.property(name)
    }

    /// All properties, those of the system among them.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        self.message.properties()
    }

    /// A new message for `topic` with the body, flag, tag, keys and the application's own properties of this one.
    ///
    /// Left behind is what belongs to the former delivery: the id, delay and timer, retries, transaction, request and
    /// reply, tracing, and all else that clients and brokers write for each other. A clone of
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

    /// The queue it was read from.
    #[must_use]
    pub fn message_queue(&self) -> MessageQueue {
        MessageQueue {
            topic: Arc::clone(&self.message.topic),
            broker_name: Arc::clone(&self.broker_name),
            queue_id: self.queue_id,
        }
    }
}

/// A time on the wire. Times before 1970 and beyond what a [`SystemTime`] holds become 1970.
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
