//! Turns a message into the content of a send: validation, compression, message id, header.
//!
//! Runs on the caller's thread, before anything is accepted, so that an invalid message is an error of the call.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::client::identity::{Identity, wall_clock_millis};
use crate::client::route::AUTO_CREATE_QUEUES;
use crate::error::{Error, ErrorKind, Result};
use crate::logging::debug;
use crate::message::Message;
use crate::message::properties::{Properties, name, place_in};
use crate::remoting::Request;
use crate::wire::RequestCode;
use crate::wire::header::SendMessageRequestV2;
use crate::wire::limits::MAX_PROPERTIES_LENGTH;
use crate::wire::name::{CREATE_TOPIC_KEY, check_topic, may_send_to};
use crate::wire::stored::compression::{self, Codec};
use crate::wire::sys_flag::message as bits;

/// Room that brokers need for the properties they add: what has none left is stored, but can never be retried.
///
/// Measured as the largest properties that still arrive, with a topic of 127 bytes, a group of 120 and the default names
/// of cluster and region, on 4.9.7 and 5.5.0: a send takes 23 and 62 bytes (`CLUSTER`; `MSG_REGION`, `TRACE_ON`); each
/// retry and a dead letter take 383 and 422 (also `RETRY_TOPIC`, `REAL_TOPIC`, `REAL_QID`, `ORIGIN_MESSAGE_ID`, `WAIT`,
/// `DELAY`). The rest is for the counts of a retry that is published, ids with IPv6 addresses, and longer names.
const PROPERTIES_HEADROOM: usize = 768;

/// A properties text of more bytes is not kept for the id in it.
const KEPT_PROPERTIES: usize = 256;

/// Options of a producer for bodies.
#[derive(Clone, Debug)]
pub(crate) struct BodyRules {
    pub(crate) max_message_size: usize,
    /// Bodies of this size and more are compressed.
    pub(crate) compress_threshold: usize,
    pub(crate) codec: Option<Codec>,
    pub(crate) compression_level: u32,
}

/// Content of a send, the same in each of its attempts.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) topic: Arc<str>,
    body: Bytes,
    flag: i32,
    sys_flag: i32,
    /// In the form of the wire. They contain the message id, so that the copies of several attempts are recognised.
    properties: String,
    /// Place of the message id in the properties.
    message_id: Range<usize>,
    born_timestamp: i64,
    /// Number of earlier deliveries of a message to a retry topic, and their limit.
    reconsume_times: i32,
    max_reconsume_times: Option<i32>,
}

/// Deliveries of a message that goes to a retry topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reconsume {
    pub(crate) times: i32,
    pub(crate) limit: i32,
}

impl Outgoing {
    /// Checks and encodes one message; the message itself is not touched.
    pub(crate) fn single(message: &Message, rules: &BodyRules, identity: &Identity) -> Result<Self> {
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

    /// A message that was received before, as it came, its body included, which may be compressed.
    pub(crate) fn again(message: &Message, sys_flag: i32, reconsume: Reconsume, identity: &Identity) -> Self {
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
            reconsume_times: reconsume.times,
            max_reconsume_times: Some(reconsume.limit),
        }
    }

    /// The header of an attempt at a queue.
    pub(crate) fn header<'a>(
        &'a self,
        producer_group: &'a str,
        broker_name: &'a str,
        queue_id: i32,
    ) -> SendMessageRequestV2<'a> {
        SendMessageRequestV2 {
            producer_group,
            topic: &self.topic,
            default_topic: CREATE_TOPIC_KEY,
            default_topic_queue_nums: AUTO_CREATE_QUEUES,
            queue_id,
            sys_flag: self.sys_flag,
            born_timestamp: self.born_timestamp,
            flag: self.flag,
            properties: Some(&self.properties),
            reconsume_times: Some(self.reconsume_times),
            unit_mode: Some(false),
            max_reconsume_times: self.max_reconsume_times,
            batch: Some(false),
            broker_name: Some(broker_name),
        }
    }

    /// The request of an attempt with this header.
    pub(crate) fn request<'a>(&'a self, header: &'a SendMessageRequestV2<'_>) -> Request<'a> {
        Request::new(RequestCode::SEND_MESSAGE_V2, header).with_body(&self.body)
    }

    /// Topic and message id for the receipt. The id reuses the memory of the properties, unless that is too large to be
    /// kept.
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

/// The properties to send, with a new message id unless there is one; and the place of the id.
fn with_id(properties: &Properties, identity: &Identity, now: i64) -> (String, Range<usize>) {
    match place_in(properties.encoded(), name::UNIQ_KEY) {
        Some(place) => (properties.as_text().to_owned(), place),
        None => properties.to_text_with(name::UNIQ_KEY, |text| identity.next_unique_id(now).write_to(text)),
    }
}

fn check(message: &Message, rules: &BodyRules) -> Result<()> {
    check_topic(&message.topic).map_err(|error| invalid(format!("invalid topic name {:?}: {error}", message.topic)))?;
    if !may_send_to(&message.topic) {
        return Err(invalid(format!("invalid topic {}: reserved for the broker", message.topic)));
    }
    if let Some(violation) = message.violation() {
        return Err(invalid(violation.to_string()));
    }
    let length = message.body.len();
    if length == 0 {
        return Err(invalid("invalid message: the message body length is zero, and brokers store no empty body"));
    }
    if length > rules.max_message_size {
        return Err(invalid(format!(
            "invalid message: the body has {length} bytes, the limit is {} (max_message_size)",
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
            "invalid message: the properties have {length} bytes, the limit is {limit}, which is {MAX_PROPERTIES_LENGTH} \
             without the room for those that brokers add"
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
            debug!("compression of a body failed: {error}; sent uncompressed");
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

    fn prepare(message: &Message) -> Result<Outgoing> {
        Outgoing::single(message, &rules(), &Identity::new(&ClientConfig::default()).unwrap())
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
