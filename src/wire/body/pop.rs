//! Bodies of POP and of assignment by the broker (5.x).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// The body of `QUERY_ASSIGNMENT`; answered by a [`QueryAssignmentResponse`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryAssignmentRequest {
    /// The topic.
    pub topic: String,
    /// The group.
    pub consumer_group: String,
    /// Who asks.
    pub client_id: String,
    /// `AVG` or `AVG_BY_CIRCLE`.
    pub strategy_name: String,
    /// Who gets which message.
    pub message_model: MessageModel,
}

/// The answer to `QUERY_ASSIGNMENT`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentResponse {
    /// The queues of the one who asked.
    #[serde(deserialize_with = "null_as_default")]
    pub message_queue_assignments: Vec<QueueAssignment>,
}

/// A queue that a client is to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueAssignment {
    /// The queue; number -1 means all of the broker's, to be popped.
    #[serde(with = "by_queue::one")]
    pub message_queue: MessageQueue,
    /// How to read it.
    #[serde(default)]
    pub mode: MessageRequestMode,
    /// Whatever else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<BTreeMap<String, String>>,
}

/// How queues are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MessageRequestMode {
    /// Queue by queue, each by one client.
    #[default]
    Pull,
    /// Message by message.
    Pop,
}

/// The body of `SET_MESSAGE_REQUEST_MODE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetMessageRequestMode {
    /// The topic.
    pub topic: String,
    /// The group.
    pub consumer_group: String,
    /// How it reads the topic from now on.
    pub mode: MessageRequestMode,
    /// How many clients share a queue; 0 for all.
    #[serde(default)]
    pub pop_share_queue_num: i32,
}

/// The body of `BATCH_ACK_MESSAGE`: acknowledges popped messages of several pops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchAckRequest {
    /// The broker they came from.
    pub broker_name: String,
    /// One for each pop and queue.
    #[serde(default, deserialize_with = "null_as_default")]
    pub acks: Vec<BatchAck>,
}

/// Acknowledges messages of one pop of one queue; the parts of a [`Receipt`](crate::wire::pop::Receipt).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAck {
    /// The group.
    #[serde(rename = "c")]
    pub consumer_group: String,
    /// The topic that was asked for.
    #[serde(rename = "t")]
    pub topic: String,
    /// Which of the group's topics they came from: a [`PopTopic`](crate::wire::pop::PopTopic) as text.
    #[serde(rename = "r")]
    pub retry: String,
    /// The offset that the first bit means.
    #[serde(rename = "so")]
    pub start_offset: i64,
    /// The queue.
    #[serde(rename = "q")]
    pub queue_id: i32,
    /// Where the broker keeps its books.
    #[serde(rename = "rq")]
    pub revive_queue_id: i32,
    /// Milliseconds since 1970.
    #[serde(rename = "pt")]
    pub pop_time: i64,
    /// Milliseconds.
    #[serde(rename = "it")]
    pub invisible_time: i64,
    /// Which offsets behind the first one are acknowledged.
    #[serde(rename = "b")]
    pub acked: BitSet,
}

/// A set of small numbers: `java.util.BitSet`, in JSON Base64 of its bytes, the lowest bit first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BitSet(Vec<u8>);

impl BitSet {
    /// Whether `number` is in it.
    #[must_use]
    pub fn contains(&self, number: u16) -> bool {
        self.0.get(usize::from(number / 8)).is_some_and(|byte| byte >> (number % 8) & 1 == 1)
    }
}

impl FromIterator<u16> for BitSet {
    fn from_iter<I: IntoIterator<Item = u16>>(numbers: I) -> Self {
        let mut bytes = Vec::new();
        for number in numbers {
            let at = usize::from(number / 8);
            if at >= bytes.len() {
                bytes.resize(at + 1, 0);
            }
            if let Some(byte) = bytes.get_mut(at) {
                *byte |= 1 << (number % 8);
            }
        }
        Self(bytes)
    }
}

impl Serialize for BitSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for BitSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_written_as_java_does() {
        let set: BitSet = [0, 2, 9].into_iter().collect();
        assert_eq!(encode("set", &set).unwrap(), b"\"BQI=\"");
        assert_eq!(decode::<BitSet>("set", b"\"BQI=\"").as_ref(), Ok(&set));
        assert_eq!((0..20).filter(|number| set.contains(*number)).collect::<Vec<_>>(), [0, 2, 9]);
        assert!(decode::<BitSet>("set", b"\"B\"").is_err());
    }
}
