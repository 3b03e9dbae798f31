//! Bodies about the members of groups: what clients tell brokers, and what groups subscribe to.

use super::*;
use crate::wire::Error;
use crate::wire::java_hash::java_string_hash;

/// What a client tells every broker: the body of `HEART_BEAT`.
///
/// The fingerprint of the second heartbeat version is left out on purpose: it depends on the order in which Java writes
/// its sets, so that groups shared with Java clients would seem to change with every beat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatData {
    /// The client's id, unique among all clients.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Its producer groups.
    #[serde(deserialize_with = "null_as_default")]
    pub producer_data_set: Vec<ProducerData>,
    /// Its consumer groups.
    #[serde(deserialize_with = "null_as_default")]
    pub consumer_data_set: Vec<ConsumerData>,
}

/// A producer group in a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducerData {
    /// The group.
    pub group_name: String,
}

/// A consumer group in a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerData {
    /// The group.
    pub group_name: String,
    /// Who starts a delivery.
    pub consume_type: ConsumeType,
    /// Who gets which message.
    pub message_model: MessageModel,
    /// Where a group without an offset begins.
    pub consume_from_where: ConsumeFromWhere,
    /// What it subscribes to, its retry topic included.
    #[serde(default, deserialize_with = "null_as_default")]
    pub subscription_data_set: Vec<SubscriptionData>,
    /// Legacy.
    #[serde(default)]
    pub unit_mode: bool,
}

/// Who starts a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConsumeType {
    /// The application pulls.
    #[serde(rename = "CONSUME_ACTIVELY")]
    Actively,
    /// A listener is called.
    #[serde(rename = "CONSUME_PASSIVELY")]
    Passively,
    /// The broker hands out single messages (5.x).
    #[serde(rename = "CONSUME_POP")]
    Pop,
}

/// Who gets which message of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MessageModel {
    /// Each member gets every message.
    #[serde(rename = "BROADCASTING")]
    Broadcasting,
    /// The members share the messages.
    #[serde(rename = "CLUSTERING")]
    Clustering,
}

/// Where a group without an offset begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConsumeFromWhere {
    /// At the end of each queue. The deprecated names mean the same to brokers, which only keep the word.
    #[serde(
        rename = "CONSUME_FROM_LAST_OFFSET",
        alias = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        alias = "CONSUME_FROM_MIN_OFFSET",
        alias = "CONSUME_FROM_MAX_OFFSET"
    )]
    LastOffset,
    /// At the beginning of each queue.
    #[serde(rename = "CONSUME_FROM_FIRST_OFFSET")]
    FirstOffset,
    /// At a time.
    #[serde(rename = "CONSUME_FROM_TIMESTAMP")]
    Timestamp,
}

/// Stands for all messages of a topic.
pub const SUBSCRIBE_ALL: &str = "*";
/// The expression type of tags.
pub const EXPRESSION_TYPE_TAG: &str = "TAG";

/// What a group wants of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionData {
    /// The topic.
    pub topic: String,
    /// The expression as it was given, or `*`.
    #[serde(default)]
    pub sub_string: String,
    /// The tags of the expression; none for all.
    #[serde(default, deserialize_with = "null_as_default")]
    pub tags_set: Vec<String>,
    /// Their hashes, by which the broker filters.
    #[serde(default, deserialize_with = "null_as_default")]
    pub code_set: Vec<i32>,
    /// When it was made or changed, in milliseconds since 1970: the broker keeps the newest.
    #[serde(default)]
    pub sub_version: i64,
    /// `TAG` or `SQL92`; absent means `TAG`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression_type: Option<String>,
    /// Legacy.
    #[serde(default)]
    pub class_filter_mode: bool,
}

impl SubscriptionData {
    /// A subscription by tags: `A || B`; nothing or `*` for all messages.
    ///
    /// # Errors
    ///
    /// When the expression names no tag at all. Java's `FilterAPI` lets blanks between the bars pass, for a
    /// subscription that never matches; here they are an error too.
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

    /// Whether a message with this tag is wanted. The broker compares hashes, which different tags can share, so that
    /// the receiver asks again.
    #[must_use]
    pub fn wants(&self, tag: Option<&str>) -> bool {
        self.tags_set.is_empty() || tag.is_some_and(|tag| self.tags_set.iter().any(|wanted| wanted == tag))
    }
}

/// A set in Java: tags with the same hash give one code.
fn codes(tags: &[String]) -> Vec<i32> {
    let mut codes: Vec<i32> = Vec::with_capacity(tags.len());
    for code in tags.iter().map(|tag| java_string_hash(tag)) {
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    codes
}

/// `String.trim` of Java: everything up to the blank is white space, nothing beyond it is.
fn java_trim(text: &str) -> &str {
    text.trim_matches(|c| c <= ' ')
}

/// The members of a consumer group: the answer to `GET_CONSUMER_LIST_BY_GROUP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerList {
    /// Client ids, in no particular order, and after a reconnection possibly twice.
    #[serde(deserialize_with = "null_as_default")]
    pub consumer_id_list: Vec<String>,
}

/// The body of `CHECK_CLIENT_CONFIG`: asks a broker whether it takes a subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CheckClientRequest {
    /// Who asks.
    pub client_id: String,
    /// Its group.
    pub group: String,
    /// The subscription.
    #[serde(deserialize_with = "null_as_default")]
    pub subscription_data: SubscriptionData,
    /// Its namespace (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
