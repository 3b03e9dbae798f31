//! Bodies about group members: heartbeats of clients, and subscriptions of groups.

use super::*;
use crate::wire::Error;
use crate::wire::java_hash::java_string_hash;

/// Heartbeat of a client to every broker: the body of `HEART_BEAT`.
///
/// The fingerprint of the second heartbeat version is left out on purpose. It depends on the order in which Java writes
/// its sets, so groups shared with Java clients would appear to change with every heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatData {
    /// Id of the client, unique among all clients.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Producer groups of the client.
    #[serde(deserialize_with = "null_as_default")]
    pub producer_data_set: Vec<ProducerData>,
    /// Consumer groups of the client.
    #[serde(deserialize_with = "null_as_default")]
    pub consumer_data_set: Vec<ConsumerData>,
}

/// Producer group in a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducerData {
    /// Name of the group.
    pub group_name: String,
}

/// Consumer group in a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerData {
    /// Name of the group.
    pub group_name: String,
    /// Initiator of a delivery.
    pub consume_type: ConsumeType,
    /// Distribution of messages among the members.
    pub message_model: MessageModel,
    /// Start position of a group without an offset.
    pub consume_from_where: ConsumeFromWhere,
    /// Subscriptions of the group, including its retry topic.
    #[serde(default, deserialize_with = "null_as_default")]
    pub subscription_data_set: Vec<SubscriptionData>,
    /// Unit mode; legacy.
    #[serde(default)]
    pub unit_mode: bool,
}

/// Initiator of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConsumeType {
    /// The application pulls messages.
    #[serde(rename = "CONSUME_ACTIVELY")]
    Actively,
    /// The client calls a listener.
    #[serde(rename = "CONSUME_PASSIVELY")]
    Passively,
    /// The broker hands out single messages (5.x).
    #[serde(rename = "CONSUME_POP")]
    Pop,
}

/// Distribution of a group's messages among its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MessageModel {
    /// Each member receives every message.
    #[serde(rename = "BROADCASTING")]
    Broadcasting,
    /// The members share the messages.
    #[serde(rename = "CLUSTERING")]
    Clustering,
}

/// Start position of a group without an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConsumeFromWhere {
    /// End of each queue. The deprecated names have the same meaning for brokers, which only store the word.
    #[serde(
        rename = "CONSUME_FROM_LAST_OFFSET",
        alias = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        alias = "CONSUME_FROM_MIN_OFFSET",
        alias = "CONSUME_FROM_MAX_OFFSET"
    )]
    LastOffset,
    /// Beginning of each queue.
    #[serde(rename = "CONSUME_FROM_FIRST_OFFSET")]
    FirstOffset,
    /// Position by timestamp.
    #[serde(rename = "CONSUME_FROM_TIMESTAMP")]
    Timestamp,
}

/// Expression that matches all messages of a topic.
pub const SUBSCRIBE_ALL: &str = "*";
/// Expression type of tags.
pub const EXPRESSION_TYPE_TAG: &str = "TAG";

/// Subscription of a group to one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionData {
    /// Name of the topic.
    pub topic: String,
    /// Expression as given by the application, or `*`.
    #[serde(default)]
    pub sub_string: String,
    /// Tags of the expression; empty for all messages.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tags_set: Vec<String>,
    /// Hash codes of the tags, by which the broker filters.
    #[serde(default, deserialize_with = "null_as_default")]
    pub code_set: Vec<i32>,
    /// Time of creation or last change, in milliseconds since 1970; the broker keeps the newest.
    #[serde(default)]
    pub sub_version: i64,
    /// `TAG` or `SQL92`; absent means `TAG`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression_type: Option<String>,
    /// Class filter mode; legacy.
    #[serde(default)]
    pub class_filter_mode: bool,
}

impl SubscriptionData {
    /// Creates a subscription by tags: `A
    ///
    /// B`; an empty expression or `*` for all messages.
    ///
    /// # Errors
    ///
    /// Returns an error if the expression contains no tag at all. Java's `FilterAPI` accepts blanks between the bars,
    /// for a subscription that never matches; here this is an error too.
    pub fn of_tags(topic: &str, expression: &str, version: i64) -> Result<Self, Error> {
        let is_all = expression.is_empty() || java_trim(expression) == SUBSCRIBE_ALL;
        let mut tags: Vec<String> = Vec::new();
        for tag in expression.split("||").map(java_trim).filter(|tag| !is_all && !tag.is_empty()) {
            if !tags.iter().any(|known| known == tag) {
                tags.push(tag.to_owned());
            }
        }
        if tags.is_empty() && !is_all {
            return Err(Error::BadText { what: "tag expression" });
        }
        Ok(Self {
            topic: topic.to_owned(),
            sub_string: if is_all { SUBSCRIBE_ALL } else { expression }.to_owned(),
            code_set: codes(&tags),
            tags_set: tags,
            sub_version: version,
            expression_type: Some(EXPRESSION_TYPE_TAG.to_owned()),
            class_filter_mode: false,
        })
    }

    /// True if a message with this tag matches the subscription. The broker compares hash codes, which different tags
    /// can share, so the receiver checks again.
    #[must_use]
    pub fn wants(&self, tag: Option<&str>) -> bool {
        self.tags_set.is_empty() || tag.is_some_and(|tag| self.tags_set.iter().any(|wanted| wanted == tag))
    }
}

/// Returns a set, as Java does: tags with the same hash give one code.
fn codes(tags: &[String]) -> Vec<i32> {
    let mut codes: Vec<i32> = Vec::with_capacity(tags.len());
    for code in tags.iter().map(|tag| java_string_hash(tag)) {
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    codes
}

/// Trims as Java's `String.trim`: characters up to and including U+0020 are white space, all others are not.
fn java_trim(text: &str) -> &str {
    text.trim_matches(|c| c <= ' ')
}

/// Members of a consumer group: the response body of `GET_CONSUMER_LIST_BY_GROUP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerList {
    /// Client ids, in no particular order; an id can appear twice after a reconnection.
    #[serde(deserialize_with = "null_as_default")]
    pub consumer_id_list: Vec<String>,
}

/// Body of `CHECK_CLIENT_CONFIG`, which asks a broker if it accepts a subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckClientRequest {
    /// Id of the requesting client.
    pub client_id: String,
    /// Name of the group.
    pub group: String,
    /// Subscription to check.
    #[serde(deserialize_with = "null_as_default")]
    pub subscription_data: SubscriptionData,
    /// Namespace of the group (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
