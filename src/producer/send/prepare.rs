//! From a user's message to what is sent: validation, compression, the message's id.
//!
//! Runs on the caller's thread, before anything is accepted: what is wrong with a message is told at once.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::client::identity::{Identity, wall_clock_millis};
use crate::error::{Error, ErrorKind, Result};
use crate::logging::debug;
use crate::message::Message;
use crate::message::properties::{Properties, name, place_in};
use crate::wire::name::{check_topic, may_send_to};
use crate::wire::stored::compression::{self, Codec};
use crate::wire::stored::message::MAX_PROPERTIES_LENGTH;
use crate::wire::sys_flag::message as bits;

/// Room that brokers need for the properties they add: what has none left is stored, but can never be retried.
///
/// Measured as the largest properties that still arrive, with a topic of 127 bytes, a group of 120 and the default names
/// of cluster and region, on 4.9.7 and 5.5.0: a send takes 23 and 62 bytes (`CLUSTER`; `MSG_REGION`, `TRACE_ON`); each
/// retry and a dead letter take 383 and 422 (also `RETRY_TOPIC`, `REAL_TOPIC`, `REAL_QID`, `ORIGIN_MESSAGE_ID`, `WAIT`,
/// `DELAY`). The rest is for the counts of a retry that is published, ids with IPv6 addresses, and longer names.
const PROPERTIES_HEADROOM: usize = 768;

/// Properties of more bytes do not live on for the id in them.
const KEPT_PROPERTIES: usize = 256;

/// What the producer's options say of bodies.
#[derive(Clone, Debug)]
pub(crate) struct BodyRules {
    pub(crate) max_message_size: usize,
    /// Bodies of this size and more are compressed.
    pub(crate) compress_threshold: usize,
    pub(crate) codec: Option<Codec>,
    pub(crate) compression_level: u32,
}

/// A message in the form in which each of its attempts sends it.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) topic: Arc<str>,
    pub(crate) body: Bytes,
    pub(crate) flag: i32,
    pub(crate) sys_flag: i32,
    /// In the form of the wire. With an id under which the receipt names it; the same in all attempts, so that doubles
    /// can be told.
    pub(crate) properties: String,
    /// Where that id lies in the properties.
    message_id: Range<usize>,
    pub(crate) born_timestamp: i64,
    /// How often a message to a retry topic was delivered before, and how often it may be.
    pub(crate) reconsume_times: i32,
    pub(crate) max_reconsume_times: Option<i32>,
}

impl Prepared {
    /// Checks and encodes a message; the message itself is not touched.
    pub(crate) fn new(message: &Message, rules: &BodyRules, identity: &Identity) -> Result<Self> {
        check(message, rules)?;
        let born_timestamp = wall_clock_millis();
        let (properties, message_id) = with_id(&message.properties, identity, born_timestamp);
        check_properties(&properties)?;
        let (body, sys_flag) = compressed(&message.body, rules);
        Ok(Self {
            topic: Arc::clone(&message.topic),
            body,
            flag: message.flag,
            sys_flag,
            properties,
            message_id,
            born_timestamp,
            reconsume_times: 0,
            max_reconsume_times: None,
        })
    }

    /// A message that was received before, as it came.
    pub(crate) fn again(
        message: &Message,
        sys_flag: i32,
        (reconsume_times, max_reconsume_times): (Option<i32>, i32),
        identity: &Identity,
    ) -> Self {
        let born_timestamp = wall_clock_millis();
        let (properties, message_id) = with_id(&message.properties, identity, born_timestamp);
        Self {
            topic: Arc::clone(&message.topic),
            body: message.body.clone(),
            flag: message.flag,
            sys_flag: sys_flag & (bits::COMPRESSED | bits::COMPRESSION_MASK),
            properties,
            message_id,
            born_timestamp,
            reconsume_times: reconsume_times.unwrap_or(0),
            max_reconsume_times: Some(max_reconsume_times),
        }
    }

    /// What the receipt names it by: its topic and its id. The id lies in the properties' own memory, unless that is too
    /// large to be kept.
    pub(crate) fn into_topic_and_id(self) -> (Arc<str>, String) {
        let Self { topic, mut properties, message_id, .. } = self;
        if properties.capacity() > KEPT_PROPERTIES {
            return (topic, properties.get(message_id).unwrap_or_default().to_owned());
        }
        properties.truncate(message_id.end);
        properties.drain(..message_id.start);
        (topic, properties)
    }

    /// Bytes that it holds until it is resolved.
    pub(crate) fn size(&self) -> usize {
        self.body.len() + self.properties.len()
    }
}

/// The properties to send, with an id of ours unless there is one already; and where the id lies.
fn with_id(properties: &Properties, identity: &Identity, now: i64) -> (String, Range<usize>) {
    match place_in(properties.encoded(), name::UNIQ_KEY) {
        Some(place) => (properties.as_text().to_owned(), place),
        None => properties.to_text_with(name::UNIQ_KEY, |text| identity.next_unique_id(now).write_to(text)),
    }
}

fn check(message: &Message, rules: &BodyRules) -> Result<()> {
    check_topic(&message.topic).map_err(|error| invalid(format!("topic {:?} cannot be: {error}", message.topic)))?;
    if !may_send_to(&message.topic) {
        return Err(invalid(format!("topic {} belongs to the broker: nobody may send to it", message.topic)));
    }
    if let Some(violation) = message.violation() {
        return Err(invalid(violation.to_string()));
    }
    let length = message.body.len();
    if length == 0 {
        return Err(invalid("the message body length is zero: brokers do not store empty bodies"));
    }
    if length > rules.max_message_size {
        return Err(invalid(format!(
            "the message body is {length} bytes long, the limit is {} (max_message_size)",
            rules.max_message_size
        )));
    }
    Ok(())
}

fn check_properties(properties: &str) -> Result<()> {
    let length = properties.len();
    let limit = MAX_PROPERTIES_LENGTH - PROPERTIES_HEADROOM;
    if length > limit {
        return Err(invalid(format!(
            "the properties are {length} bytes long, the limit is {limit}: {MAX_PROPERTIES_LENGTH} without the room \
             that brokers need for their own"
        )));
    }
    Ok(())
}

/// The body to send and its flags: compressed when it is large enough and becomes smaller by it.
fn compressed(body: &Bytes, rules: &BodyRules) -> (Bytes, i32) {
    let Some(codec) = rules.codec.filter(|_| body.len() >= rules.compress_threshold) else {
        return (body.clone(), 0);
    };
    match compression::compress(codec, rules.compression_level, body) {
        Ok(smaller) if smaller.len() < body.len() => (smaller.into(), codec.sys_flag()),
        Ok(_) => (body.clone(), 0),
        Err(error) => {
            debug!("a body is sent as it is: {error}");
            (body.clone(), 0)
        }
    }
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidMessage, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::config::ClientConfig;

    fn rules() -> BodyRules {
        BodyRules { max_message_size: 1000, compress_threshold: 100, codec: Some(Codec::Zlib), compression_level: 5 }
    }

    fn prepare(message: &Message) -> Result<Prepared> {
        Prepared::new(message, &rules(), &Identity::new(&ClientConfig::default()).unwrap())
    }

    #[test]
    fn send_09_send_19_what_is_wrong_with_a_message_is_told_before_anything_is_sent() {
        let long_value = "v".repeat(MAX_PROPERTIES_LENGTH);
        for (message, word) in [
            (Message::new("", "x"), "topic"),
            (Message::new("  ", "x"), "topic"),
            (Message::new("a b", "x"), "topic"),
            (Message::new("t".repeat(128), "x"), "127"),
            (Message::new("SCHEDULE_TOPIC_XXXX", "x"), "SCHEDULE_TOPIC_XXXX"),
            (Message::new("T", ""), "zero"),
            (Message::new("T", vec![0; 1001]), "1001"),
            (Message::new("T", "x").with_property("a", long_value), "properties"),
            (Message::new("T", "x").with_property("a", "b\u{1}c"), "a"),
            (Message::new("T", "x").with_property("KEYS", "b"), "KEYS"),
        ] {
            let error = prepare(&message).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidMessage, "{message:?}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn send_22_a_body_is_compressed_only_when_it_becomes_smaller_and_the_message_stays_as_it_was() {
        let message = Message::new("T", vec![b'a'; 500]).with_tag("A");
        let before = message.clone();
        let prepared = prepare(&message).unwrap();
        assert!(prepared.body.len() < 500);
        assert_eq!(prepared.sys_flag & 1, 1);
        assert_eq!(message, before);
        let mut noise = 1_u32;
        let random: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.to_be_bytes()[0]
        })
        .take(500)
        .collect();
        let prepared = prepare(&Message::new("T", random.clone())).unwrap();
        assert_eq!((prepared.sys_flag, &prepared.body[..]), (0, &random[..]));
        assert_eq!(prepare(&Message::new("T", "small")).unwrap().sys_flag, 0);
    }

    #[test]
    fn every_message_gets_an_id_of_its_own_unless_it_has_one() {
        let message = Message::new("T", "x");
        let first = prepare(&message).unwrap();
        let properties = Properties::from_encoded(first.properties.clone().into());
        let again = Message::from_parts("T".into(), "x".into(), 0, properties);
        let id = first.into_topic_and_id().1;
        assert_eq!(id.len(), 32);
        assert_ne!(prepare(&message).unwrap().into_topic_and_id().1, id);
        assert_eq!(prepare(&again).unwrap().into_topic_and_id().1, id);
        let long = message.with_property("a", "v".repeat(KEPT_PROPERTIES));
        let id = prepare(&long).unwrap().into_topic_and_id().1;
        assert_eq!((id.len(), id.capacity()), (32, 32));
    }
}
