//! Bodies about running clients: the responses to brokers and tools, and a broker's view of its clients.

use std::collections::BTreeMap;

use super::*;

/// Internal state of a consumer: the response body of `GET_CONSUMER_RUNNING_INFO`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerRunningInfo {
    /// Options and figures by name; tools query those in [`running_info`].
    #[serde(deserialize_with = "null_as_default")]
    pub properties: BTreeMap<String, String>,
    /// Subscriptions of the consumer.
    #[serde(deserialize_with = "null_as_default")]
    pub subscription_set: Vec<SubscriptionData>,
    /// Assigned queues of the consumer.
    pub mq_table: ByQueue<ProcessQueueInfo>,
    /// Assigned queues of POP (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mq_pop_table: Option<ByQueue<PopProcessQueueInfo>>,
    /// Consumption statistics by topic.
    #[serde(deserialize_with = "null_as_default")]
    pub status_table: BTreeMap<String, ConsumeStatus>,
    /// Values reported by the application (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_consumer_info: Option<BTreeMap<String, String>>,
    /// Stacks of all threads, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jstack: Option<String>,
}

/// Names of properties in a [`ConsumerRunningInfo`].
pub mod running_info {
    /// Addresses of the name servers.
    pub const NAME_SERVER_ADDRESS: &str = "PROP_NAMESERVER_ADDR";
    /// Name of a [`ConsumeType`](super::ConsumeType).
    pub const CONSUME_TYPE: &str = "PROP_CONSUME_TYPE";
    /// `true` or `false`.
    pub const CONSUME_ORDERLY: &str = "PROP_CONSUMEORDERLY";
    /// Number of threads.
    pub const THREAD_POOL_CORE_SIZE: &str = "PROP_THREADPOOL_CORE_SIZE";
    /// Start time, in milliseconds since 1970.
    pub const CONSUMER_START_TIMESTAMP: &str = "PROP_CONSUMER_START_TIMESTAMP";
    /// Client version, such as `V4_9_8`.
    pub const CLIENT_VERSION: &str = "PROP_CLIENT_VERSION";
}

/// State of a consumer's queue. Offsets are the first and last of the cached messages; times are milliseconds since
/// 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the names are self-explanatory")]
pub struct ProcessQueueInfo {
    pub commit_offset: i64,
    pub cached_msg_min_offset: i64,
    pub cached_msg_max_offset: i64,
    pub cached_msg_count: i32,
    #[serde(rename = "cachedMsgSizeInMiB")]
    pub cached_msg_size_in_mib: i32,
    pub transaction_msg_min_offset: i64,
    pub transaction_msg_max_offset: i64,
    pub transaction_msg_count: i32,
    pub locked: bool,
    pub try_unlock_times: i64,
    pub last_lock_timestamp: i64,
    /// True if the queue was revoked. Spelled like this by Java; the Go client spells it correctly.
    #[serde(rename = "droped", alias = "dropped")]
    pub dropped: bool,
    pub last_pull_timestamp: i64,
    pub last_consume_timestamp: i64,
}

/// State of a queue that a consumer pops from (5.x).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PopProcessQueueInfo {
    /// Number of messages that are not acknowledged.
    pub wait_ack_count: i32,
    /// True if the queue was revoked. Spelled like this by Java.
    #[serde(rename = "droped", alias = "dropped")]
    pub dropped: bool,
    /// Time of the last pop, in milliseconds since 1970.
    pub last_pop_timestamp: i64,
}

/// Consumption statistics of a topic: times in milliseconds, rates per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names are self-explanatory")]
pub struct ConsumeStatus {
    #[serde(rename = "pullRT")]
    pub pull_rt: f64,
    #[serde(rename = "pullTPS")]
    pub pull_tps: f64,
    #[serde(rename = "consumeRT")]
    pub consume_rt: f64,
    #[serde(rename = "consumeOKTPS")]
    pub consume_ok_tps: f64,
    #[serde(rename = "consumeFailedTPS")]
    pub consume_failed_tps: f64,
    #[serde(rename = "consumeFailedMsgs")]
    pub consume_failed_msgs: i64,
}

/// Result of a message that a tool sent to a consumer directly: the response body of `CONSUME_MESSAGE_DIRECTLY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumeMessageDirectlyResult {
    /// True if the consumer consumes in order.
    #[serde(default)]
    pub order: bool,
    /// True if the consumer commits automatically.
    #[serde(default)]
    pub auto_commit: bool,
    /// Result of the listener.
    pub consume_result: DirectConsumeResult,
    /// Reason of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// Duration of the listener call, in milliseconds.
    #[serde(default)]
    pub spent_time_mills: i64,
}

/// Result of the listener for a message that a tool sent directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DirectConsumeResult {
    /// The message is consumed.
    #[serde(rename = "CR_SUCCESS")]
    Success,
    /// The message is to be redelivered.
    #[serde(rename = "CR_LATER")]
    Later,
    /// An orderly listener rolled the message back.
    #[serde(rename = "CR_ROLLBACK")]
    Rollback,
    /// An orderly listener committed the message.
    #[serde(rename = "CR_COMMIT")]
    Commit,
    /// The listener failed.
    #[serde(rename = "CR_THROW_EXCEPTION")]
    ThrowException,
    /// The listener returned nothing.
    #[serde(rename = "CR_RETURN_NULL")]
    ReturnNull,
}

/// Members of a consumer group as registered at a broker: the response body of `GET_CONSUMER_CONNECTION_LIST`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerConnection {
    /// Members of the group.
    #[serde(deserialize_with = "null_as_default")]
    pub connection_set: Vec<Connection>,
    /// Subscriptions of the group, by topic.
    #[serde(deserialize_with = "null_as_default")]
    pub subscription_table: BTreeMap<String, SubscriptionData>,
    /// Initiator of a delivery.
    pub consume_type: Option<ConsumeType>,
    /// Distribution of messages among the members.
    pub message_model: Option<MessageModel>,
    /// Start position of a group without an offset.
    pub consume_from_where: Option<ConsumeFromWhere>,
}

/// Members of a producer group as registered at a broker: the response body of `GET_PRODUCER_CONNECTION_LIST`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerConnection {
    /// Members of the group.
    #[serde(deserialize_with = "null_as_default")]
    pub connection_set: Vec<Connection>,
}

/// Client as registered at a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Id of the client.
    pub client_id: String,
    /// Address the client connects from.
    #[serde(default, deserialize_with = "null_as_default")]
    pub client_addr: String,
    /// Language of the client, by name; a server without a name for the language omits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Protocol version of the client.
    #[serde(default)]
    pub version: i32,
}
