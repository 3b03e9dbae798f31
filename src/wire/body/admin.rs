//! Bodies about the settings of topics and groups.

use std::collections::BTreeMap;

use super::*;

/// A topic's settings on one broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    /// The topic.
    pub topic_name: String,
    /// How many queues are read.
    pub read_queue_nums: i32,
    /// How many queues are written.
    pub write_queue_nums: i32,
    /// Bits of [`permission`].
    pub perm: i32,
    /// `SINGLE_TAG` or `MULTI_TAG`.
    pub topic_filter_type: String,
    /// Bits of the topic.
    pub topic_sys_flag: i32,
    /// Whether producers keep to the order configuration.
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

/// All topics of a broker: the answer to `GET_ALL_TOPIC_CONFIG`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigTable {
    /// Settings by topic.
    #[serde(deserialize_with = "null_as_default")]
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    /// The state of the table.
    #[serde(deserialize_with = "null_as_default")]
    pub data_version: DataVersion,
}

/// The state of a table that brokers copy from each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Counts changes.
    pub counter: i64,
    /// Counts changes of roles (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_version: Option<i64>,
}

/// A consumer group's settings on one broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupConfig {
    /// The group.
    pub group_name: String,
    /// Whether it may consume.
    pub consume_enable: bool,
    /// Whether a group without an offset may begin at the first message.
    pub consume_from_min_enable: bool,
    /// Whether it may broadcast.
    pub consume_broadcast_enable: bool,
    /// Queues of its retry topic.
    pub retry_queue_nums: i32,
    /// Deliveries before a message becomes a dead letter.
    pub retry_max_times: i32,
    /// The broker to pull from.
    pub broker_id: i64,
    /// The broker to pull from when far behind.
    pub which_broker_when_consume_slowly: i64,
    /// Whether members are told of each other's coming and going.
    pub notify_consumer_ids_changed_enable: bool,
    /// Whether it keeps the order (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consume_message_orderly: Option<bool>,
    /// Bits of the group (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_sys_flag: Option<i32>,
    /// Minutes that a listener may take (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consume_timeout_minute: Option<i32>,
    /// When a failed message comes again (5.x); its other members are those of Java's policies and kept as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_retry_policy: Option<serde_json::Value>,
    /// What it may subscribe to (5.x).
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

/// What a group may subscribe to (5.x).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SimpleSubscriptionData {
    /// The topic.
    pub topic: String,
    /// `TAG` or `SQL92`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression_type: Option<String>,
    /// The expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// When it was made or changed, in milliseconds since 1970.
    #[serde(default)]
    pub version: i64,
}

/// All groups of a broker: the answer to `GET_ALL_SUBSCRIPTIONGROUP_CONFIG`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupTable {
    /// Settings by group.
    #[serde(deserialize_with = "null_as_default")]
    pub subscription_group_table: BTreeMap<String, SubscriptionGroupConfig>,
    /// What groups may not do, by group and topic (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forbidden_table: Option<BTreeMap<String, BTreeMap<String, i32>>>,
    /// The state of the table.
    #[serde(deserialize_with = "null_as_default")]
    pub data_version: DataVersion,
}

/// The groups that consume a topic: the answer to `QUERY_TOPIC_CONSUME_BY_WHO`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupList {
    /// The groups.
    #[serde(deserialize_with = "null_as_default")]
    pub group_list: Vec<String>,
}
