//! Bodies about the settings of topics and groups.

use std::collections::BTreeMap;

use super::*;

/// Settings of a topic on one broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    /// Name of the topic.
    pub topic_name: String,
    /// Number of readable queues.
    pub read_queue_nums: i32,
    /// Number of writable queues.
    pub write_queue_nums: i32,
    /// Bits of [`permission`].
    pub perm: i32,
    /// `SINGLE_TAG` or `MULTI_TAG`.
    pub topic_filter_type: String,
    /// System flag bits of the topic.
    pub topic_sys_flag: i32,
    /// True if producers follow the order configuration.
    pub order: bool,
    /// Further settings, such as `message.type` (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<BTreeMap<String, String>>,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            topic_name: String::new(),
            read_queue_nums: 16,
            write_queue_nums: 16,
            perm: permission::READ | permission::WRITE,
            topic_filter_type: "SINGLE_TAG".to_owned(),
            topic_sys_flag: 0,
            order: false,
            attributes: None,
        }
    }
}

/// All topics of a broker: the response body of `GET_ALL_TOPIC_CONFIG`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigTable {
    /// Settings by topic.
    #[serde(deserialize_with = "null_as_default")]
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    /// Version of the table.
    #[serde(deserialize_with = "null_as_default")]
    pub data_version: DataVersion,
}

/// Version of a table that brokers replicate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Number of changes.
    pub counter: i64,
    /// Number of role changes (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_version: Option<i64>,
}

/// Settings of a consumer group on one broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupConfig {
    /// Name of the group.
    pub group_name: String,
    /// True if the group may consume.
    pub consume_enable: bool,
    /// True if a group without an offset may begin at the first message.
    pub consume_from_min_enable: bool,
    /// True if the group may broadcast.
    pub consume_broadcast_enable: bool,
    /// Number of queues of its retry topic.
    pub retry_queue_nums: i32,
    /// Number of redeliveries before a message becomes a dead letter.
    pub retry_max_times: i32,
    /// Id of the broker to pull from.
    pub broker_id: i64,
    /// Id of the broker to pull from when far behind.
    pub which_broker_when_consume_slowly: i64,
    /// True if the broker notifies members when another member joins or leaves.
    pub notify_consumer_ids_changed_enable: bool,
    /// True if the group consumes in order (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consume_message_orderly: Option<bool>,
    /// System flag bits of the group (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_sys_flag: Option<i32>,
    /// Maximum duration of a listener call, in minutes (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consume_timeout_minute: Option<i32>,
    /// Delay policy for redelivering failed messages (5.x). Members other than the type belong to Java's policies and
    /// are kept unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_retry_policy: Option<serde_json::Value>,
    /// Subscriptions allowed for the group (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data_set: Option<Vec<SimpleSubscriptionData>>,
    /// Further settings (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<BTreeMap<String, String>>,
}

impl Default for SubscriptionGroupConfig {
    fn default() -> Self {
        Self {
            group_name: String::new(),
            consume_enable: true,
            consume_from_min_enable: true,
            consume_broadcast_enable: true,
            retry_queue_nums: 1,
            retry_max_times: 16,
            broker_id: MASTER_ID,
            which_broker_when_consume_slowly: 1,
            notify_consumer_ids_changed_enable: true,
            consume_message_orderly: None,
            group_sys_flag: None,
            consume_timeout_minute: None,
            group_retry_policy: None,
            subscription_data_set: None,
            attributes: None,
        }
    }
}

/// Subscription allowed for a group (5.x).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SimpleSubscriptionData {
    /// Name of the topic.
    pub topic: String,
    /// `TAG` or `SQL92`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression_type: Option<String>,
    /// Filter expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// Time of creation or last change, in milliseconds since 1970.
    #[serde(default)]
    pub version: i64,
}

/// All groups of a broker: the response body of `GET_ALL_SUBSCRIPTIONGROUP_CONFIG`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupTable {
    /// Settings by group.
    #[serde(deserialize_with = "null_as_default")]
    pub subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
    /// Forbidden operations by group and topic (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forbidden_table: Option<BTreeMap<String, BTreeMap<String, i32>>>,
    /// Version of the table.
    #[serde(deserialize_with = "null_as_default")]
    pub data_version: DataVersion,
}

/// Groups that consume a topic: the response body of `QUERY_TOPIC_CONSUME_BY_WHO`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupList {
    /// Names of the groups.
    #[serde(deserialize_with = "null_as_default")]
    pub group_list: Vec<String>,
}
