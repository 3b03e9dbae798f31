//! Bodies about offsets and locks of queues.

use std::collections::BTreeMap;

use super::*;

/// Offsets by queue: what `RESET_CONSUMER_CLIENT_OFFSET` sets, what `INVOKE_BROKER_TO_RESET_OFFSET` is answered by, and
/// what the Java client keeps in its file of a broadcasting group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetOffsetBody {
    /// Where each queue goes on.
    pub offset_table: ByQueue<i64>,
}

/// How far a consumer is: the answer to `GET_CONSUMER_STATUS_FROM_CLIENT`, and collected by the broker that to
/// `INVOKE_BROKER_TO_GET_CONSUMER_STATUS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerStatusBody {
    /// The offsets of the one that was asked.
    pub message_queue_table: ByQueue<i64>,
    /// Offsets by client id.
    #[serde(deserialize_with = "null_as_default")]
    pub consumer_table: BTreeMap<String, ByQueue<i64>>,
}

/// The body of `LOCK_BATCH_MQ`, answered by a [`LockResponse`], and of `UNLOCK_BATCH_MQ`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockRequest {
    /// The group.
    pub consumer_group: String,
    /// Who wants the locks.
    pub client_id: String,
    /// For which queues.
    #[serde(with = "by_queue::list")]
    pub mq_set: Vec<MessageQueue>,
    /// Not to ask the broker's replicas too (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_this_broker: Option<bool>,
}

/// The answer to `LOCK_BATCH_MQ`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockResponse {
    /// The queues that are locked now for the one who asked.
    #[serde(rename = "lockOKMQSet", with = "by_queue::list")]
    pub locked: Vec<MessageQueue>,
}

/// The offsets of all groups: the answer to `GET_ALL_CONSUMER_OFFSET`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerOffsets {
    /// Offset by queue number, by `topic@group`.
    #[serde(deserialize_with = "null_as_default")]
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
    /// The state of the table (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_version: Option<DataVersion>,
}

/// How much is in a topic's queues on one broker: the answer to `GET_TOPIC_STATS_INFO`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicStatsTable {
    /// By queue.
    pub offset_table: ByQueue<TopicOffset>,
    /// Messages a second (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_put_tps: Option<f64>,
}

/// How much is in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicOffset {
    /// The first offset.
    pub min_offset: i64,
    /// The offset behind the last.
    pub max_offset: i64,
    /// Milliseconds since 1970.
    pub last_update_timestamp: i64,
}

/// How far a group is on one broker: the answer to `GET_CONSUME_STATS`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeStats {
    /// By queue.
    pub offset_table: ByQueue<ConsumeOffset>,
    /// Messages a second.
    pub consume_tps: f64,
}

/// How far a group is in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeOffset {
    /// The offset behind the last message.
    pub broker_offset: i64,
    /// The next one to be consumed.
    pub consumer_offset: i64,
    /// The next one to be pulled (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_offset: Option<i64>,
    /// When the last consumed message was stored, in milliseconds since 1970.
    pub last_timestamp: i64,
}
