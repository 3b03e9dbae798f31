//! Names of topics and groups: validation, names reserved by the system, and derived names. Pure functions.

use std::fmt;

/// Topic whose settings a topic inherits that is created by a send.
pub const CREATE_TOPIC_KEY: &str = "TBW102";
/// Prefix of the retry topic of a group.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// Prefix of the dead-letter topic of a group.
pub const DEAD_LETTER_PREFIX: &str = "%DLQ%";
/// Producer group of the messages that a client sends itself, such as retries.
pub const INNER_PRODUCER_GROUP: &str = "CLIENT_INNER_PRODUCER";
/// Producer group of the Java client's default configuration; shared by unrelated applications.
pub const DEFAULT_PRODUCER_GROUP: &str = "DEFAULT_PRODUCER";
/// Consumer group of the Java client's default configuration; shared by unrelated applications.
pub const DEFAULT_CONSUMER_GROUP: &str = "DEFAULT_CONSUMER";

/// Separator that is not allowed in the names of topics and groups.
const POP_RETRY_SEPARATOR: &str = "+";
const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";
const MAX_TOPIC_LENGTH: usize = 127;
/// Maximum length of retry and dead-letter topics; they contain a group's name, which may be longer than a topic's.
const MAX_DERIVED_TOPIC_LENGTH: usize = 255;
const MAX_GROUP_LENGTH: usize = 255;
/// Maximum length of a consumer group's name, derived from its retry topic: brokers must be able to create that topic.
const MAX_CONSUMER_GROUP_LENGTH: usize = MAX_TOPIC_LENGTH - RETRY_PREFIX.len();

/// Topics that a client must not send to; brokers refuse such sends too.
const NOT_FOR_SENDING: [&str; 6] = [
    "SCHEDULE_TOPIC_XXXX",
    "RMQ_SYS_TRANS_HALF_TOPIC",
    "RMQ_SYS_TRANS_OP_HALF_TOPIC",
    "TRANS_CHECK_MAX_TIME_TOPIC",
    "SELF_TEST_TOPIC",
    "OFFSET_MOVED_EVENT",
];

const OTHER_SYSTEM_TOPICS: [&str; 4] = [CREATE_TOPIC_KEY, "BenchmarkTest", "RMQ_SYS_TRACE_TOPIC", "CHECKPOINT_TOPIC"];

/// Reason why a name is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty, or consists of blanks.
    Blank,
    /// The name has too many bytes.
    TooLong {
        /// Maximum number of bytes.
        limit: usize,
    },
    /// The name contains a character other than a letter, a digit, `%`, `|`, `-` or `_`.
    BadCharacter(char),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("is blank"),
            Self::TooLong { limit } => write!(f, "is longer than {limit} bytes"),
            Self::BadCharacter(character) => {
                write!(f, "contains {character:?}; allowed are letters, digits, '%', '|', '-' and '_'")
            }
        }
    }
}

impl std::error::Error for NameError {}

/// Checks the name of a topic.
///
/// # Errors
///
/// Returns the reason why the name is not allowed.
pub fn check_topic(topic: &str) -> Result<(), NameError> {
    let is_derived = topic.starts_with(RETRY_PREFIX) || topic.starts_with(DEAD_LETTER_PREFIX);
    check(topic, if is_derived { MAX_DERIVED_TOPIC_LENGTH } else { MAX_TOPIC_LENGTH })
}

/// Checks the name of a producer or consumer group. Brokers later than 5.3.3 accept at most 120 bytes.
///
/// # Errors
///
/// Returns the reason why the name is not allowed.
pub fn check_group(group: &str) -> Result<(), NameError> {
    check(group, MAX_GROUP_LENGTH)
}

/// Checks the name of a consumer group. Neither version creates a retry topic with a name of more than 127 bytes: 5.5.0
/// delivers no messages to a group with a longer name, and 4.9.7 does not accept its failed messages.
///
/// # Errors
///
/// Returns the reason why the name is not allowed.
pub fn check_consumer_group(group: &str) -> Result<(), NameError> {
    check(group, MAX_CONSUMER_GROUP_LENGTH)
}

/// True if the consumer group is reserved by the system: its members are not listed, its offsets not shown.
#[must_use]
pub fn is_system_group(group: &str) -> bool {
    group.starts_with(SYSTEM_GROUP_PREFIX)
}

/// True if the topic is reserved by the system.
#[must_use]
pub fn is_system_topic(topic: &str) -> bool {
    NOT_FOR_SENDING.contains(&topic) || OTHER_SYSTEM_TOPICS.contains(&topic) || topic.starts_with(SYSTEM_TOPIC_PREFIX)
}

/// True if a client may send to the topic.
#[must_use]
pub fn may_send_to(topic: &str) -> bool {
    !NOT_FOR_SENDING.contains(&topic)
}

/// Returns the topic from which a consumer group receives its failed messages again.
#[must_use]
pub fn retry_topic(group: &str) -> String {
    [RETRY_PREFIX, group].concat()
}

/// Returns the topic of a consumer group's dead letters: messages that exceeded the maximum of redeliveries.
#[must_use]
pub fn dead_letter_topic(group: &str) -> String {
    [DEAD_LETTER_PREFIX, group].concat()
}

/// True if the topic is a group's retry topic.
#[must_use]
pub fn is_retry_topic(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX)
}

/// Returns the topic from which POP redelivers a group's messages of a topic; first version of the name.
#[must_use]
pub fn pop_retry_topic_v1(topic: &str, group: &str) -> String {
    [RETRY_PREFIX, group, "_", topic].concat()
}

/// Returns the same topic in the second version of the name, which 5.2 and later use if so configured. The separator of
/// group and topic occurs in neither.
#[must_use]
pub fn pop_retry_topic_v2(topic: &str, group: &str) -> String {
    [RETRY_PREFIX, group, POP_RETRY_SEPARATOR, topic].concat()
}

/// Splits a [retry topic of POP](pop_retry_topic_v2) into group and topic. The first version of the name cannot be
/// split.
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
