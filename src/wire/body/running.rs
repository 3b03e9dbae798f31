//! Bodies about clients as they run: what brokers and tools ask of them, and how a broker knows them.

use std::collections::BTreeMap;

use super::*;

/// The inside of a consumer: the answer to `GET_CONSUMER_RUNNING_INFO`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerRunningInfo {
    /// Options and facts by name; tools ask for those in [`running_info`].
    #[serde(deserialize_with = "null_as_default")]
    pub properties: BTreeMap<String, String>,
    /// What it subscribes to.
    #[serde(deserialize_with = "null_as_default")]
    pub subscription_set: Vec<SubscriptionData>,
    /// Its queues.
    pub mq_table: ByQueue<ProcessQueueInfo>,
    /// Its queues of POP (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mq_pop_table: Option<ByQueue<PopProcessQueueInfo>>,
    /// How it does, by topic.
    #[serde(deserialize_with = "null_as_default")]
    pub status_table: BTreeMap<String, ConsumeStatus>,
    /// Whatever the application tells of itself (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_consumer_info: Option<BTreeMap<String, String>>,
    /// The stacks of all threads, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jstack: Option<String>,
}

/// Names of properties in a [`ConsumerRunningInfo`].
pub mod running_info {
    /// The name servers.
    pub const NAME_SERVER_ADDRESS: &str = "PROP_NAMESERVER_ADDR";
    /// A [`ConsumeType`](super::ConsumeType) by its name.
    pub const CONSUME_TYPE: &str = "PROP_CONSUME_TYPE";
    /// `true` or `false`.
    pub const CONSUME_ORDERLY: &str = "PROP_CONSUMEORDERLY";
    /// The number of threads.
    pub const THREAD_POOL_CORE_SIZE: &str = "PROP_THREADPOOL_CORE_SIZE";
    /// Milliseconds since 1970.
    pub const CONSUMER_START_TIMESTAMP: &str = "PROP_CONSUMER_START_TIMESTAMP";
    /// Such as `V4_9_8`.
    pub const CLIENT_VERSION: &str = "PROP_CLIENT_VERSION";
}

/// A queue of a consumer. Offsets are the first and last of what is cached; times are milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "the names say what there is to say")]
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
    /// Spelled like this by Java; the Go client spells it right.
    #[serde(rename = "droped", alias = "dropped")]
    pub dropped: bool,
    pub last_pull_timestamp: i64,
    pub last_consume_timestamp: i64,
}

/// A queue that a consumer pops from (5.x).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PopProcessQueueInfo {
    /// Messages that are not acknowledged.
    pub wait_ack_count: i32,
    /// Spelled like this by Java.
    #[serde(rename = "droped", alias = "dropped")]
    pub dropped: bool,
    /// Milliseconds since 1970.
    pub last_pop_timestamp: i64,
}

/// How consumption of a topic goes: times in milliseconds, rates per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the names say what there is to say")]
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

/// What became of a message that was handed to a consumer by hand: the answer to `CONSUME_MESSAGE_DIRECTLY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumeMessageDirectlyResult {
    /// Whether the consumer keeps the order.
    #[serde(default)]
    pub order: bool,
    /// Whether it commits by itself.
    #[serde(default)]
    pub auto_commit: bool,
    /// What the listener said.
    pub consume_result: DirectConsumeResult,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub spent_time_mills: i64,
}

/// What a listener said of a message that was handed to it by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DirectConsumeResult {
    /// It is consumed.
    #[serde(rename = "CR_SUCCESS")]
    Success,
    /// It is to come again.
    #[serde(rename = "CR_LATER")]
    Later,
    /// An orderly listener took it back.
    #[serde(rename = "CR_ROLLBACK")]
    Rollback,
    /// An orderly listener committed it.
    #[serde(rename = "CR_COMMIT")]
    Commit,
    /// It failed.
    #[serde(rename = "CR_THROW_EXCEPTION")]
    ThrowException,
    /// It said nothing.
    #[serde(rename = "CR_RETURN_NULL")]
    ReturnNull,
}

/// The members of a consumer group as a broker knows them: the answer to `GET_CONSUMER_CONNECTION_LIST`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerConnection {
    /// The members.
    #[serde(deserialize_with = "null_as_default")]
    pub connection_set: Vec<Connection>,
    /// What the group subscribes to, by topic.
    #[serde(deserialize_with = "null_as_default")]
    pub subscription_table: BTreeMap<String, SubscriptionData>,
    /// Who starts a delivery.
    pub consume_type: Option<ConsumeType>,
    /// Who gets which message.
    pub message_model: Option<MessageModel>,
    /// Where a group without an offset begins.
    pub consume_from_where: Option<ConsumeFromWhere>,
}

/// The members of a producer group as a broker knows them: the answer to `GET_PRODUCER_CONNECTION_LIST`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProducerConnection {
    /// The members.
    #[serde(deserialize_with = "null_as_default")]
    pub connection_set: Vec<Connection>,
}

/// A client as a broker knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Its id.
    pub client_id: String,
    /// Where it connects from.
    #[serde(default, deserialize_with = "null_as_default")]
    pub client_addr: String,
    /// What it is written in, by name; a server that does not know the language leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Its protocol version.
    #[serde(default)]
    pub version: i32,
}
