//! Bodies about offsets and locks of queues.

use std::collections::BTreeMap;

use super::*;

/// Offsets by queue. `RESET_CONSUMER_CLIENT_OFFSET` sets them, `INVOKE_BROKER_TO_RESET_OFFSET` returns them, and the
/// Java client stores them in its file of a broadcasting group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetOffsetBody {
    /// Next offset of each queue.
    pub offset_table: ByQueue<i64>,
}

/// Consumption progress: the response body of `GET_CONSUMER_STATUS_FROM_CLIENT`. The broker collects such bodies into
/// the response of `INVOKE_BROKER_TO_GET_CONSUMER_STATUS`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerStatusBody {
    /// Offsets of the queried client.
    pub message_queue_table: ByQueue<i64>,
    /// Offsets by client id.
    #[serde(deserialize_with = "null_as_default")]
    pub consumer_table: BTreeMap<String, ByQueue<i64>>,
}

/// Body of `LOCK_BATCH_MQ`, answered by a [`LockResponse`], and of `UNLOCK_BATCH_MQ`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockRequest {
    /// Name of the group.
    pub consumer_group: String,
    /// Id of the client that requests the locks.
    pub client_id: String,
    /// Queues to lock or unlock.
    #[serde(with = "by_queue::list")]
    pub mq_set: Vec<MessageQueue>,
    /// True if the broker need not ask its replicas too (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_this_broker: Option<bool>,
}

/// Response body of `LOCK_BATCH_MQ`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockResponse {
    /// Queues that are now locked for the requesting client.
    #[serde(rename = "lockOKMQSet", with = "by_queue::list")]
    pub locked: Vec<MessageQueue>,
}

/// Offsets of all groups: the response body of `GET_ALL_CONSUMER_OFFSET`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerOffsets {
    /// Offsets by queue number, by `topic@group`.
    #[serde(deserialize_with = "null_as_default")]
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
    /// Version of the table (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_version: Option<DataVersion>,
}

/// Offset range of each queue of a topic on one broker: the response body of `GET_TOPIC_STATS_INFO`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicStatsTable {
    /// Offset range by queue.
    pub offset_table: ByQueue<TopicOffset>,
    /// Messages per second (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_put_tps: Option<f64>,
}

/// Offset range of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicOffset {
    /// Offset of the first message.
    pub min_offset: i64,
    /// Offset after the last message.
    pub max_offset: i64,
    /// Time of the last update, in milliseconds since 1970.
    pub last_update_timestamp: i64,
}

/// Consumption progress of a group on one broker: the response body of `GET_CONSUME_STATS`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeStats {
    /// Progress by queue.
    pub offset_table: ByQueue<ConsumeOffset>,
    /// Messages per second.
    pub consume_tps: f64,
}

/// Consumption progress of a group in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeOffset {
    /// Offset after the last message.
    pub broker_offset: i64,
    /// Offset of the next message to consume.
    pub consumer_offset: i64,
    /// Offset of the next message to pull (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_offset: Option<i64>,
    /// Store time of the last consumed message, in milliseconds since 1970.
    pub last_timestamp: i64,
}
