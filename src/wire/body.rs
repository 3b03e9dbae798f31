//! JSON bodies of requests and responses <-> structs.
//!
//! What is written here is standard JSON, which every reader takes; what is read goes through the
//! [normaliser](super::fastjson) first, since brokers write fastjson's dialect. Unknown members are passed over, absent
//! ones have the default of the Java class, as there.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::java_hash::java_string_hash;
use super::{Error, fastjson};
use crate::message::MessageQueue;

/// What a topic's queues on a broker may be used for.
pub mod permission {
    /// Topics that are created automatically take over these settings.
    pub const INHERIT: i32 = 1;
    /// Messages may be sent to it.
    pub const WRITE: i32 = 2;
    /// Messages may be read from it.
    pub const READ: i32 = 4;
}

/// The broker id of a master.
pub const MASTER_ID: i64 = 0;

/// More queues than this of one topic on one broker are a broken route rather than a topic: without a limit a single
/// wrong number would make a client fill its memory with queues.
pub const MAX_QUEUES_PER_BROKER: i32 = 65_536;

/// Reads a body, in standard JSON or in fastjson's dialect.
///
/// # Errors
///
/// When the body is neither, or does not fit the type.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    let json = fastjson::normalise(bytes)?;
    serde_json::from_slice(&json).map_err(|error| Error::BadJson { what, detail: error.to_string() })
}

/// Writes a body as standard JSON.
///
/// # Errors
///
/// When the type cannot be told in JSON; none of this module's is such a type.
pub fn encode<T: Serialize>(what: &'static str, body: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(body).map_err(|error| Error::BadJson { what, detail: error.to_string() })
}

/// Where a topic's queues are: the answer to `GET_ROUTEINFO_BY_TOPIC`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicRouteData {
    /// The brokers and their addresses.
    #[serde(deserialize_with = "null_as_default")]
    pub broker_datas: Vec<BrokerData>,
    /// Filter servers by broker address; legacy.
    #[serde(deserialize_with = "null_as_default")]
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// `broker name:number of queues` joined by `;`, for topics with a global order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    /// How many queues each broker has.
    #[serde(deserialize_with = "null_as_default")]
    pub queue_datas: Vec<QueueData>,
}

/// A broker: a master and its slaves under one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerData {
    /// Its cluster.
    #[serde(deserialize_with = "null_as_default")]
    pub cluster: String,
    /// Its name.
    pub broker_name: String,
    /// Addresses (`host:port`) by broker id.
    #[serde(deserialize_with = "null_as_default")]
    pub broker_addrs: BTreeMap<i64, String>,
}

/// A topic's queues on one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueData {
    /// The broker's name.
    pub broker_name: String,
    /// How many queues are read.
    pub read_queue_nums: i32,
    /// How many queues are written.
    pub write_queue_nums: i32,
    /// Bits of [`permission`].
    pub perm: i32,
    /// Bits of the topic; spelled `topicSynFlag` up to 4.8.0.
    #[serde(alias = "topicSynFlag")]
    pub topic_sys_flag: i32,
}

impl TopicRouteData {
    /// Reads a route and checks its numbers.
    ///
    /// # Errors
    ///
    /// When the body is no route, or a broker claims a number of queues that cannot be.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let route: Self = decode("topic route", bytes)?;
        let numbers = route.queue_datas.iter().flat_map(|queues| [queues.read_queue_nums, queues.write_queue_nums]);
        match numbers.into_iter().find(|number| !(0..=MAX_QUEUES_PER_BROKER).contains(number)) {
            Some(value) => Err(Error::UnknownValue { what: "number of queues", value: value.into() }),
            None => Ok(route),
        }
    }

    /// The queues that messages can be sent to: the writable ones of brokers that have a master, by broker name.
    #[must_use]
    pub fn write_queues(&self, topic: &Arc<str>) -> Vec<MessageQueue> {
        let writable =
            |queues: &&QueueData| queues.perm & permission::WRITE != 0 && self.has_master(&queues.broker_name);
        self.queues(topic, writable, |queues| queues.write_queue_nums)
    }

    /// The queues that messages can be read from, by broker name; slaves serve them too.
    #[must_use]
    pub fn read_queues(&self, topic: &Arc<str>) -> Vec<MessageQueue> {
        self.queues(topic, |queues| queues.perm & permission::READ != 0, |queues| queues.read_queue_nums)
    }

    fn queues(
        &self,
        topic: &Arc<str>,
        is_wanted: impl Fn(&&QueueData) -> bool,
        count: impl Fn(&QueueData) -> i32,
    ) -> Vec<MessageQueue> {
        let mut wanted: Vec<&QueueData> = self.queue_datas.iter().filter(is_wanted).collect();
        wanted.sort_by(|a, b| a.broker_name.cmp(&b.broker_name));
        wanted.dedup_by(|a, b| a.broker_name == b.broker_name);
        let of_broker = |queues: &QueueData| {
            let broker_name: Arc<str> = Arc::from(queues.broker_name.as_str());
            let queue = move |queue_id| MessageQueue::new(Arc::clone(topic), Arc::clone(&broker_name), queue_id);
            (0..count(queues).min(MAX_QUEUES_PER_BROKER)).map(queue)
        };
        wanted.into_iter().flat_map(of_broker).collect()
    }

    fn has_master(&self, broker_name: &str) -> bool {
        let is_master =
            |data: &BrokerData| data.broker_name == broker_name && data.broker_addrs.contains_key(&MASTER_ID);
        self.broker_datas.iter().any(is_master)
    }
}

/// All clusters with their brokers: the answer to `GET_BROKER_CLUSTER_INFO`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterInfo {
    /// Brokers by name.
    #[serde(deserialize_with = "null_as_default")]
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Broker names by cluster.
    #[serde(deserialize_with = "null_as_default")]
    pub cluster_addr_table: BTreeMap<String, Vec<String>>,
}

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
#[serde(rename_all = "camelCase", default)]
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
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionData {
    /// The topic.
    pub topic: String,
    /// The expression as it was given, or `*`.
    pub sub_string: String,
    /// The tags of the expression; none for all.
    #[serde(deserialize_with = "null_as_default")]
    pub tags_set: Vec<String>,
    /// Their hashes, by which the broker filters.
    #[serde(deserialize_with = "null_as_default")]
    pub code_set: Vec<i32>,
    /// When it was made or changed, in milliseconds since 1970: the broker keeps the newest.
    pub sub_version: i64,
    /// `TAG` or `SQL92`; absent means `TAG`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression_type: Option<String>,
    /// Legacy.
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
        }
    }
}

/// A member that is null is an absent one.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = r#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"b",
        "cluster":"c","enableActingMaster":false},{"brokerAddrs":{1:"10.0.0.3:10911"},"brokerName":"a","cluster":"c"}],
        "filterServerTable":{},"orderTopicConf":null,"queueDatas":[
        {"brokerName":"b","perm":6,"readQueueNums":3,"topicSynFlag":1,"writeQueueNums":2},
        {"brokerName":"a","perm":6,"readQueueNums":1,"writeQueueNums":1}]}"#;

    fn queues(queues: &[MessageQueue]) -> Vec<String> {
        queues.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_brokers_with_a_master_are_written_and_all_are_read() {
        let route = TopicRouteData::decode(ROUTE.as_bytes()).unwrap();
        assert_eq!(route.queue_datas[0].topic_sys_flag, 1);
        assert_eq!(queues(&route.write_queues(&"T".into())), ["T/b/0", "T/b/1"]);
        assert_eq!(queues(&route.read_queues(&"T".into())), ["T/a/0", "T/b/0", "T/b/1", "T/b/2"]);
    }

    #[test]
    fn a_route_is_written_as_standard_json_and_read_back() {
        let route = TopicRouteData::decode(ROUTE.as_bytes()).unwrap();
        let written = encode("route", &route).unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(&written).is_ok());
        assert_eq!(TopicRouteData::decode(&written), Ok(route));
    }

    #[test]
    fn a_route_with_more_queues_than_can_be_is_refused() {
        for number in ["-1", "65537", "2147483647"] {
            let route = ROUTE.replace("\"readQueueNums\":3", &format!("\"readQueueNums\":{number}"));
            assert!(matches!(TopicRouteData::decode(route.as_bytes()), Err(Error::UnknownValue { .. })), "{number}");
        }
    }

    #[test]
    fn an_expression_without_a_tag_is_an_error() {
        for expression in ["||", " || ", "  "] {
            assert!(SubscriptionData::of_tags("T", expression, 1).is_err(), "{expression:?}");
        }
    }

    #[test]
    fn tags_given_twice_count_once_and_share_a_code_when_their_hashes_do() {
        let subscription = SubscriptionData::of_tags("T", "Aa || BB||Aa", 1).unwrap();
        assert_eq!(subscription.tags_set, ["Aa", "BB"]);
        assert_eq!(subscription.code_set, [2112]);
        assert_eq!(subscription.sub_string, "Aa || BB||Aa");
    }

    #[test]
    fn a_tag_is_wanted_by_its_text_and_not_by_its_hash() {
        let subscription = SubscriptionData::of_tags("T", "Aa", 1).unwrap();
        assert!(subscription.wants(Some("Aa")));
        assert!(!subscription.wants(Some("BB")));
        assert!(!subscription.wants(None));
        assert!(SubscriptionData::of_tags("T", " * ", 1).unwrap().wants(None));
    }

    #[test]
    fn a_heartbeat_has_the_names_that_brokers_read() {
        let heartbeat = HeartbeatData {
            client_id: "id".to_owned(),
            producer_data_set: vec![ProducerData { group_name: "PG".to_owned() }],
            consumer_data_set: vec![ConsumerData {
                group_name: "CG".to_owned(),
                consume_type: ConsumeType::Passively,
                message_model: MessageModel::Clustering,
                consume_from_where: ConsumeFromWhere::LastOffset,
                subscription_data_set: vec![SubscriptionData::of_tags("T", "TagA", 1).unwrap()],
                unit_mode: false,
            }],
        };
        let written = encode("heartbeat", &heartbeat).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(json["clientID"], "id");
        assert_eq!(json["consumerDataSet"][0]["consumeType"], "CONSUME_PASSIVELY");
        assert_eq!(json["consumerDataSet"][0]["subscriptionDataSet"][0]["codeSet"][0], 2_598_919);
        assert_eq!(decode::<HeartbeatData>("heartbeat", &written), Ok(heartbeat));
    }
}
