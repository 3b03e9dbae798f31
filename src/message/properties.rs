//! [`Properties`]: named texts of a message, and the rules for those that a user may write.
//!
//! Stored in the form of the wire, `name \u{1} value \u{2}` for each. A lookup costs a scan, not a map, and a received
//! message's properties are a slice of the reply it came in. Plain values, without I/O, clock or lock.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use crate::foreign_text::lossy;

const NAME_END: u8 = 1;
const VALUE_END: u8 = 2;

/// Initial capacity for a tag, a key and a unique id, so that the properties of a usual message are allocated once.
const USUAL_LENGTH: usize = 96;

/// Property names that clients and brokers use among themselves.
pub(crate) mod name {
    pub(crate) const KEYS: &str = "KEYS";
    pub(crate) const TAGS: &str = "TAGS";
    pub(crate) const WAIT: &str = "WAIT";
    pub(crate) const DELAY: &str = "DELAY";
    pub(crate) const RETRY_TOPIC: &str = "RETRY_TOPIC";
    pub(crate) const REAL_TOPIC: &str = "REAL_TOPIC";
    pub(crate) const REAL_QUEUE_ID: &str = "REAL_QID";
    pub(crate) const TRANSACTION_PREPARED: &str = "TRAN_MSG";
    pub(crate) const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    pub(crate) const RECONSUME_TIME: &str = "RECONSUME_TIME";
    pub(crate) const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    pub(crate) const MSG_REGION: &str = "MSG_REGION";
    pub(crate) const TRACE_ON: &str = "TRACE_ON";
    pub(crate) const UNIQ_KEY: &str = "UNIQ_KEY";
    pub(crate) const CLUSTER: &str = "CLUSTER";
    pub(crate) const MIN_OFFSET: &str = "MIN_OFFSET";
    pub(crate) const MAX_OFFSET: &str = "MAX_OFFSET";
}

/// Names that the Java client's `putUserProperty` refuses (`MessageConst.STRING_HASH_SET`).
const RESERVED: [&str; 51] = [
    "1ST_POP_TIME",
    "ARRIVE_TIME",
    "BORN_TIMESTAMP",
    "BUYER_ID",
    name::CLUSTER,
    "CONSUME_START_TIME",
    "CORRECTION_FLAG",
    "CORRELATION_ID",
    name::DELAY,
    "DLQ_ORIGIN_MESSAGE_ID",
    "DLQ_ORIGIN_TOPIC",
    "DUP_INFO",
    "EXTEND_UNIQ_INFO",
    "INNER_MULTI_QUEUE_OFFSET",
    "INSTANCE_ID",
    name::KEYS,
    name::MAX_OFFSET,
    name::MAX_RECONSUME_TIMES,
    name::MIN_OFFSET,
    "MQ2_FLAG",
    name::MSG_REGION,
    "MSG_TYPE",
    name::ORIGIN_MESSAGE_ID,
    "PGROUP",
    "POP_CK",
    "POP_CK_OFFSET",
    "PUSH_REPLY_TIME",
    name::REAL_QUEUE_ID,
    name::REAL_TOPIC,
    name::RECONSUME_TIME,
    "REPLY_TO_CLIENT",
    name::RETRY_TOPIC,
    name::TAGS,
    "TIMER_DELAY_LEVEL",
    "TIMER_DELAY_MS",
    "TIMER_DELAY_SEC",
    "TIMER_DELIVER_MS",
    "TIMER_DEL_UNIQKEY",
    "TIMER_DEQUEUE_MS",
    "TIMER_ENQUEUE_MS",
    "TIMER_OUT_MS",
    "TIMER_ROLL_TIMES",
    name::TRACE_ON,
    name::TRANSACTION_PREPARED,
    "TRANSFER_FLAG",
    "TRAN_PREPARED_QUEUE_OFFSET",
    "TTL",
    name::UNIQ_KEY,
    name::WAIT,
    "__BORNHOST",
    "__CRC32#",
];

/// Names used by clients and brokers among themselves that a user may write nevertheless (`MessageConst`).
const UNRESERVED: [&str; 10] = [
    "CHECK_IMMUNITY_TIME_IN_SECONDS",
    "INNER_BASE",
    "INNER_MULTI_DISPATCH",
    "INNER_NUM",
    "PROPERTY_FORWARD_QUEUE_ID",
    "REDIRECT",
    "TRACE_CONTEXT",
    "TRANSACTION_CHECK_TIMES",
    "__STARTDELIVERTIME",
    "__transactionId__",
];

/// Prefix of transient properties, which 5.x brokers add temporarily.
const TRANSIENT: &str = "__RMQ.TRANSIENT.";

/// True if a property belongs to one delivery of a message. Tag, keys and the application's properties belong to the
/// message itself.
fn is_of_delivery(name: &str) -> bool {
    let is_own = matches!(name, name::TAGS | name::KEYS);
    !is_own && (is_reserved(name) || UNRESERVED.contains(&name) || name.starts_with(TRANSIENT))
}

/// Named texts of a message.
///
/// Names and values are not empty. Of two entries with the same name the later one counts, as in the Java client.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// Invariant: UTF-8. The separators are ASCII, so every name and value is valid UTF-8 by itself.
    encoded: Bytes,
}

impl Properties {
    /// Creates an empty set of properties.
    #[must_use]
    pub const fn new() -> Self {
        Self { encoded: Bytes::new() }
    }

    /// Returns the value under `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        value_in(&self.encoded, name)
    }

    /// Iterates over all entries in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        // The first separator splits: a value may contain another one.
        let records = self.as_text().split(char::from(VALUE_END));
        let entries = records.filter_map(|record| record.split_once(char::from(NAME_END)));
        entries.filter(|(name, value)| !name.is_empty() && !value.is_empty())
    }

    /// Number of entries, including entries with the same name.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// True if there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Creates properties from the form of the wire, with or without a separator at the end. Records without a name or
    /// a value are skipped when reading. Bytes that are not UTF-8 become U+FFFD, as in the Java client.
    pub(crate) fn from_encoded(encoded: Bytes) -> Self {
        match lossy(&encoded) {
            Cow::Borrowed(_) => Self { encoded },
            Cow::Owned(text) => Self { encoded: text.into() },
        }
    }

    /// Properties in the form of the wire.
    pub(crate) fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// Properties in the form of the wire, as text.
    pub(crate) fn as_text(&self) -> &str {
        std::str::from_utf8(&self.encoded).unwrap_or_default()
    }

    /// Returns the form of the wire with one more entry, whose value `write` appends, and the position of that value.
    /// The new entry overrides older ones with its name.
    pub(crate) fn to_text_with(&self, name: &str, write: impl FnOnce(&mut String)) -> (String, Range<usize>) {
        let text = self.as_text();
        let mut longer = String::with_capacity(text.len() + USUAL_LENGTH);
        longer.push_str(text);
        if !text.is_empty() && !text.ends_with(char::from(VALUE_END)) {
            longer.push(char::from(VALUE_END));
        }
        longer.push_str(name);
        longer.push(char::from(NAME_END));
        let start = longer.len();
        write(&mut longer);
        let place = start..longer.len();
        longer.push(char::from(VALUE_END));
        (longer, place)
    }

    /// Appends an entry without searching for an older one, which it overrides.
    ///
    /// Neither part may be empty or contain a separator: the caller has checked values that come from a user.
    pub(crate) fn append(&mut self, name: &str, value: &str) {
        debug_assert!(refusal_of_name(name).is_none() && refusal_of_value(value).is_none(), "unchecked entry {name}");
        let mut bytes = std::mem::take(&mut self.encoded).try_into_mut().unwrap_or_else(|shared| {
            let mut own = BytesMut::with_capacity(shared.len() + USUAL_LENGTH);
            own.put_slice(&shared);
            own
        });
        if bytes.last().is_some_and(|last| *last != VALUE_END) {
            bytes.put_u8(VALUE_END);
        }
        put_entry(&mut bytes, name, value);
        self.encoded = bytes.freeze();
    }

    /// Sets an entry and removes all older ones with its name.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.append(name, value);
    }

    /// Copies the text, so that it no longer keeps the whole reply in memory.
    pub(crate) fn detach(&mut self) {
        self.encoded = Bytes::copy_from_slice(&self.encoded);
    }

    /// Removes all entries with this name.
    pub(crate) fn remove(&mut self, name: &str) {
        if self.get(name).is_some() {
            *self = self.without(|other| other == name);
        }
    }

    /// Returns the entries that stay with the message when it is sent again.
    pub(crate) fn without_those_of_delivery(&self) -> Self {
        self.without(is_of_delivery)
    }

    fn without(&self, is_left_out: impl Fn(&str) -> bool) -> Self {
        let mut left = BytesMut::with_capacity(self.encoded.len() + USUAL_LENGTH);
        for (name, value) in self.iter().filter(|(name, _)| !is_left_out(name)) {
            put_entry(&mut left, name, value);
        }
        Self { encoded: left.freeze() }
    }
}

/// Returns the value under `name` in properties in the form of the wire.
pub(crate) fn value_in<'a>(encoded: &'a [u8], name: &str) -> Option<&'a str> {
    std::str::from_utf8(encoded.get(place_in(encoded, name)?)?).ok()
}

/// Returns the position of the value under `name` in properties in the form of the wire.
pub(crate) fn place_in(encoded: &[u8], name: &str) -> Option<Range<usize>> {
    // A separator in the name would match across a name and its value.
    if name.is_empty() || has_separator(name) {
        return None;
    }
    let mut end = encoded.len();
    loop {
        let records = encoded.get(..end)?;
        let start = records.iter().rposition(|&byte| byte == VALUE_END).map_or(0, |separator| separator + 1);
        let value = records.get(start..)?.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(&[NAME_END]));
        match value {
            Some(value) if !value.is_empty() => return Some(end - value.len()..end),
            _ => end = start.checked_sub(1)?,
        }
    }
}

fn put_entry(bytes: &mut BytesMut, name: &str, value: &str) {
    bytes.reserve(name.len() + value.len() + 2);
    bytes.put_slice(name.as_bytes());
    bytes.put_u8(NAME_END);
    bytes.put_slice(value.as_bytes());
    bytes.put_u8(VALUE_END);
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Reason why a property of a user cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PropertyViolation {
    property: String,
    refusal: Refusal,
}

impl PropertyViolation {
    /// Checks a property of the application.
    pub(crate) fn of_user_property(name: &str, value: &str) -> Option<Self> {
        let reserved = is_reserved(name).then_some(Refusal::Reserved);
        Self::first(name, refusal_of_name(name).or(reserved).or_else(|| refusal_of_value(value)))
    }

    /// Checks the value of a system property that has its own setter.
    pub(crate) fn of_value(name: &str, value: &str) -> Option<Self> {
        Self::first(name, refusal_of_value(value))
    }

    /// Checks a tag. A tag that no expression can contain would reach only consumers that subscribe to all messages.
    pub(crate) fn of_tag(tag: &str) -> Option<Self> {
        let unselectable = tag.trim() != tag || tag.contains("||") || tag == "*";
        Self::first(name::TAGS, refusal_of_value(tag).or_else(|| unselectable.then_some(Refusal::UnselectableTag)))
    }

    /// Checks one of the keys of a message.
    pub(crate) fn of_key(key: &str) -> Option<Self> {
        let blank = key.contains(' ').then_some(Refusal::KeyWithBlank);
        Self::first(name::KEYS, refusal_of_value(key).or(blank))
    }

    fn first(property: &str, refusal: Option<Refusal>) -> Option<Self> {
        refusal.map(|refusal| Self { property: property.to_owned(), refusal })
    }
}

impl fmt::Display for PropertyViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.refusal {
            Refusal::BlankName => "the name is blank",
            Refusal::BlankValue => "the value is blank",
            Refusal::Separator => "U+0001 and U+0002 separate properties on the wire and cannot be part of one",
            Refusal::Reserved => "the name is reserved for the system",
            Refusal::UnselectableTag => {
                "no consumer can select such a tag; it must not be '*', contain '||', or begin or end with a blank"
            }
            Refusal::KeyWithBlank => "a key cannot contain a blank; add several keys one by one",
        };
        write!(f, "invalid property {:?}: {reason}", self.property)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    BlankName,
    BlankValue,
    Separator,
    Reserved,
    UnselectableTag,
    KeyWithBlank,
}

fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

fn refusal_of_name(name: &str) -> Option<Refusal> {
    if name.trim().is_empty() { Some(Refusal::BlankName) } else { has_separator(name).then_some(Refusal::Separator) }
}

fn refusal_of_value(value: &str) -> Option<Refusal> {
    if value.trim().is_empty() { Some(Refusal::BlankValue) } else { has_separator(value).then_some(Refusal::Separator) }
}

fn has_separator(text: &str) -> bool {
    text.bytes().any(|byte| byte == NAME_END || byte == VALUE_END)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(encoded: &'static str) -> Properties {
        Properties::from_encoded(Bytes::from_static(encoded.as_bytes()))
    }

    #[test]
    fn the_last_of_two_values_counts() {
        let properties = read("a\u{1}1\u{2}b\u{1}2\u{2}a\u{1}3");
        assert_eq!(properties.get("a"), Some("3"));
        assert_eq!(properties.len(), 3);
    }

    #[test]
    fn a_name_is_not_found_by_its_beginning_or_inside_a_value() {
        let properties = read("ab\u{1}1\u{2}c\u{1}a\u{1}2\u{2}");
        assert_eq!(properties.get("a"), None);
        assert_eq!(properties.get("c"), Some("a\u{1}2"));
        assert_eq!(properties.get(""), None);
    }

    #[test]
    fn an_entry_replaces_all_older_ones_of_its_name() {
        let mut properties = read("a\u{1}1\u{2}b\u{1}2\u{2}a\u{1}3");
        properties.set("a", "4");
        assert_eq!(properties.iter().collect::<Vec<_>>(), [("b", "2"), ("a", "4")]);
        properties.remove("b");
        assert_eq!(properties.as_text(), "a\u{1}4\u{2}");
    }

    #[test]
    fn a_copy_is_not_touched_by_what_is_appended_to_the_original() {
        let mut properties = read("a\u{1}1");
        properties.append("b", "2");
        let copy = properties.clone();
        properties.append("c", "3");
        assert_eq!(copy.as_text(), "a\u{1}1\u{2}b\u{1}2\u{2}");
        assert_eq!(properties.as_text(), "a\u{1}1\u{2}b\u{1}2\u{2}c\u{1}3\u{2}");
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters_and_leave_their_neighbours_alone() {
        let properties = Properties::from_encoded(Bytes::from_static(b"a\x01x\xFF\xC3\x02\xE6\xA0\x01b\x02c\x013\x02"));
        let read: Vec<_> = properties.iter().collect();
        assert_eq!(read, [("a", "x\u{FFFD}\u{FFFD}"), ("\u{FFFD}", "b"), ("c", "3")]);
        assert_eq!(properties.get("c"), Some("3"));
    }

    #[test]
    fn of_a_delivery_only_tag_keys_and_the_applications_own_properties_stay() {
        let reserved = RESERVED.iter().chain(&UNRESERVED);
        let names: Vec<&str> =
            reserved.copied().chain(["colour", "__SHARDINGKEY", "__RMQ.TRANSIENT.TOPIC_SYS_FLAG"]).collect();
        let encoded: String = names.iter().map(|name| format!("{name}\u{1}v\u{1}w\u{2}")).collect();
        let left = Properties::from_encoded(encoded.into()).without_those_of_delivery();
        let left: Vec<_> = left.iter().collect();
        let value = "v\u{1}w";
        assert_eq!(left, [("KEYS", value), ("TAGS", value), ("colour", value), ("__SHARDINGKEY", value)]);
    }

    #[test]
    fn each_wrong_property_is_told_with_its_reason() {
        let told = |name, value| PropertyViolation::of_user_property(name, value).map(|v| v.to_string());
        assert_eq!(told("colour", "blue"), None);
        assert!(told("TRACE_ON", "x").unwrap().contains("reserved"));
        assert!(told("__CRC32#", "x").unwrap().contains("reserved"));
        assert!(told(" ", "x").unwrap().contains("name is blank"));
        assert!(told("x", " ").unwrap().contains("value is blank"));
        assert!(told("x", "a\u{2}b").unwrap().contains("U+0002"));
    }

    #[test]
    fn a_tag_that_no_expression_can_select_is_refused() {
        let told = |tag| PropertyViolation::of_tag(tag).map(|violation| violation.to_string());
        for tag in [" A", "A ", "A\t", "A||B", "||", "*"] {
            assert!(told(tag).unwrap().contains("no consumer can select"), "{tag:?}");
        }
        assert!(told(" ").unwrap().contains("blank"));
        for tag in ["A", "has this", "a|b", "a*", "标签", "x = 1"] {
            assert_eq!(told(tag), None, "{tag:?}");
        }
    }
}
