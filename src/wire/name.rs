//! Names of topics and groups: which are allowed, which belong to the system, and how one is derived from another.
//! Pure functions.

use std::fmt;

/// The topic whose settings a topic takes over that is created by a send.
pub const CREATE_TOPIC_KEY: &str = "TBW102";
/// What the topic of a group's retried messages begins with.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// What the topic of a group's dead letters begins with.
pub const DEAD_LETTER_PREFIX: &str = "%DLQ%";
/// The producer group in which clients send on their own account, such as messages to be retried.
pub const INNER_PRODUCER_GROUP: &str = "CLIENT_INNER_PRODUCER";
/// The group that every Java producer has until it is given one; nothing can be told apart by it.
pub const DEFAULT_PRODUCER_GROUP: &str = "DEFAULT_PRODUCER";
/// The group that every Java consumer has until it is given one; nothing can be told apart by it.
pub const DEFAULT_CONSUMER_GROUP: &str = "DEFAULT_CONSUMER";

/// Not allowed in the names of topics and groups.
const POP_RETRY_SEPARATOR: &str = "+";
const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";
const MAX_TOPIC_LENGTH: usize = 127;
/// Topics of retries and dead letters carry a group's name, which may be longer than a topic's.
const MAX_DERIVED_TOPIC_LENGTH: usize = 255;
const MAX_GROUP_LENGTH: usize = 255;
/// The topic of a consumer group's retried messages must be one that brokers make.
const MAX_CONSUMER_GROUP_LENGTH: usize = MAX_TOPIC_LENGTH - RETRY_PREFIX.len();

/// Topics that a client must not send to; brokers refuse it too.
const NOT_FOR_SENDING: [&str; 6] = [
    "SCHEDULE_TOPIC_XXXX",
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
];

const OTHER_SYSTEM_TOPICS: [&str; 4] = [CREATE_TOPIC_KEY, "BenchmarkTest", "RMQ_SYS_TRACE_TOPIC", "CHECKPOINT_TOPIC"];

/// Why a name is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// There is nothing, or nothing but blanks.
    Blank,
    /// Too many bytes.
    TooLong {
        /// As many as there may be.
        limit: usize,
    },
    /// Something other than a letter, a digit, `%`, `|`, `-` or `_`.
    BadCharacter(char),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("it is blank"),
            Self::TooLong { limit } => write!(f, "it is longer than {limit} bytes"),
            Self::BadCharacter(character) => {
                write!(f, "it contains {character:?}; letters, digits, '%', '|', '-' and '_' are allowed")
            }
        }
    }
}

impl std::error::Error for NameError {}

/// Whether a topic may be called so.
///
/// # Errors
///
/// What is wrong with the name.
pub fn check_topic(topic: &str) -> Result<(), NameError> {
    let is_derived = topic.starts_with(RETRY_PREFIX) || topic.starts_with(DEAD_LETTER_PREFIX);
    check(topic, if is_derived { MAX_DERIVED_TOPIC_LENGTH } else { MAX_TOPIC_LENGTH })
}

/// Whether a producer or consumer group may be called so. Brokers later than 5.3.3 take at most 120 bytes.
///
/// # Errors
///
/// What is wrong with the name.
pub fn check_group(group: &str) -> Result<(), NameError> {
    check(group, MAX_GROUP_LENGTH)
}

/// Whether a consumer group may be called so: 5.5.0 hands a group with a longer name no messages, and 4.9.7 does not take
/// its failed ones back, since neither makes a retry topic with a name of more than 127 bytes.
///
/// # Errors
///
/// What is wrong with the name.
pub fn check_consumer_group(group: &str) -> Result<(), NameError> {
    check(group, MAX_CONSUMER_GROUP_LENGTH)
}

/// Whether the system uses the consumer group for itself: its members are not listed, its offsets not shown.
#[must_use]
pub fn is_system_group(group: &str) -> bool {
    group.starts_with(SYSTEM_GROUP_PREFIX)
}

/// Whether the system uses the topic for itself.
#[must_use]
pub fn is_system_topic(topic: &str) -> bool {
    NOT_FOR_SENDING.contains(&topic) || OTHER_SYSTEM_TOPICS.contains(&topic) || topic.starts_with(SYSTEM_TOPIC_PREFIX)
}

/// Whether a client may send to the topic.
#[must_use]
pub fn may_send_to(topic: &str) -> bool {
    !NOT_FOR_SENDING.contains(&topic)
}

/// The topic from which a consumer group gets its failed messages again.
#[must_use]
pub fn retry_topic(group: &str) -> String {
    [RETRY_PREFIX, group].concat()
}

/// The topic for messages that a consumer group has given up on.
#[must_use]
pub fn dead_letter_topic(group: &str) -> String {
    [DEAD_LETTER_PREFIX, group].concat()
}

/// Whether this is some group's retry topic.
#[must_use]
pub fn is_retry_topic(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX)
}

/// The topic from which POP hands out a group's messages of a topic again; the first kind of name.
#[must_use]
pub fn pop_retry_topic_v1(topic: &str, group: &str) -> String {
    [RETRY_PREFIX, group, "_", topic].concat()
}

/// The same, as 5.2 and later name it when told so: what separates group and topic occurs in neither.
#[must_use]
pub fn pop_retry_topic_v2(topic: &str, group: &str) -> String {
    [RETRY_PREFIX, group, POP_RETRY_SEPARATOR, topic].concat()
}

/// Group and topic of a [retry topic of POP](pop_retry_topic_v2). The first kind of name does not tell them apart.
#[must_use]
pub fn split_pop_retry_topic(retry_topic: &str) -> Option<(&str, &str)> {
    retry_topic.strip_prefix(RETRY_PREFIX)?.split_once(POP_RETRY_SEPARATOR)
}

fn check(name: &str, limit: usize) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Blank);
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'|' | b'-' | b'_');
    if let Some(at) = name.bytes().position(|byte| !is_allowed(byte)) {
        let bad = name.get(at..).and_then(|rest| rest.chars().next());
        return Err(NameError::BadCharacter(bad.unwrap_or_default()));
    }
    if name.len() > limit { Err(NameError::TooLong { limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_is_told_with_its_reason() {
        assert_eq!(check_topic(" "), Err(NameError::Blank));
        assert_eq!(check_topic("a.b"), Err(NameError::BadCharacter('.')));
        assert_eq!(check_topic(&"a".repeat(128)), Err(NameError::TooLong { limit: 127 }));
        assert_eq!(check_group(&"a".repeat(256)), Err(NameError::TooLong { limit: 255 }));
        assert_eq!(check_consumer_group(&"a".repeat(120)), Ok(()));
        assert_eq!(check_consumer_group(&"a".repeat(121)), Err(NameError::TooLong { limit: 120 }));
    }

    #[test]
    fn a_retry_topic_may_be_as_long_as_its_group_needs() {
        assert_eq!(check_topic(&retry_topic(&"g".repeat(248))), Ok(()));
        assert_eq!(check_topic(&dead_letter_topic(&"g".repeat(251))), Err(NameError::TooLong { limit: 255 }));
    }
}
