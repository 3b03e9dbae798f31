//! Bodies of POP and of assignment by the broker (5.x).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;

/// Body of `QUERY_ASSIGNMENT`, answered by a [`QueryAssignmentResponse`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryAssignmentRequest {
    /// Name of the topic.
    pub topic: String,
    /// Name of the group.
    pub consumer_group: String,
    /// Id of the requesting client.
    pub client_id: String,
    /// Allocation strategy, `AVG` or `AVG_BY_CIRCLE`.
    pub strategy_name: String,
    /// Distribution of messages among the members.
    pub message_model: MessageModel,
}

/// Response body of `QUERY_ASSIGNMENT`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentResponse {
    /// Queues assigned to the requesting client.
    #[serde(deserialize_with = "null_as_default")]
    pub message_queue_assignments: Vec<QueueAssignment>,
}

/// Queue assigned to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueAssignment {
    /// Queue to read; number -1 means all queues of the broker, for POP.
    #[serde(with = "by_queue::one")]
    pub message_queue: MessageQueue,
    /// Mode of reading the queue.
    #[serde(default)]
    pub mode: MessageRequestMode,
    /// Additional properties.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<BTreeMap<String, String>>,
}

/// Mode of reading queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum MessageRequestMode {
    /// Queue by queue, each read by one client.
    #[default]
    Pull,
    /// Message by message.
    Pop,
}

/// Body of `SET_MESSAGE_REQUEST_MODE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetMessageRequestMode {
    /// Name of the topic.
    pub topic: String,
    /// Name of the group.
    pub consumer_group: String,
    /// New mode of reading the topic.
    pub mode: MessageRequestMode,
    /// Number of clients that share a queue; 0 for all.
    #[serde(default)]
    pub pop_share_queue_num: i32,
}

/// Body of `BATCH_ACK_MESSAGE`: acknowledges messages of several pops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchAckRequest {
    /// Name of the broker that delivered the messages.
    pub broker_name: String,
    /// Acknowledgements, one for each pop and queue.
    #[serde(default, deserialize_with = "null_as_default")]
    pub acks: Vec<BatchAck>,
}

/// Acknowledges messages of one pop of one queue; holds the parts of a [`Receipt`](crate::wire::pop::Receipt).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAck {
    /// Name of the group.
    #[serde(rename = "c")]
    pub consumer_group: String,
    /// Name of the requested topic.
    #[serde(rename = "t")]
    pub topic: String,
    /// Topic of the group that the messages came from: a [`PopTopic`](crate::wire::pop::PopTopic) as text.
    #[serde(rename = "r")]
    pub retry: String,
    /// Offset of the first bit.
    #[serde(rename = "so")]
    pub start_offset: i64,
    /// Number of the queue.
    #[serde(rename = "q")]
    pub queue_id: i32,
    /// Number of the revive queue, in which the broker keeps its records.
    #[serde(rename = "rq")]
    pub revive_queue_id: i32,
    /// Time of the pop, in milliseconds since 1970.
    #[serde(rename = "pt")]
    pub pop_time: i64,
    /// Invisible time in milliseconds.
    #[serde(rename = "it")]
    pub invisible_time: i64,
    /// Acknowledged offsets, relative to the first one.
    #[serde(rename = "b")]
    pub acked: BitSet,
}

/// Set of small numbers: `java.util.BitSet`; in JSON, Base64 of its bytes, the lowest bit first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BitSet(Vec<u8>);

impl BitSet {
    /// True if the set contains `number`.
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
