//! Bodies about the locations of brokers, queues and topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;

/// Permission bits of a topic's queues on a broker.
pub mod permission {
    /// Automatically created topics inherit these settings.
    pub const INHERIT: i32 = 1;
    /// Messages may be sent to the topic.
    pub const WRITE: i32 = 2;
    /// Messages may be read from the topic.
    pub const READ: i32 = 4;
}

/// Broker id of a master.
pub const MASTER_ID: i64 = 0;

/// Maximum number of queues of one topic on one broker; a route with more is invalid. Without a limit, a single wrong
/// number would make a client fill its memory with queues.
pub const MAX_QUEUES_PER_BROKER: i32 = 65_536;

/// Route of a topic: the response body of `GET_ROUTEINFO_BY_TOPIC`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicRouteData {
    /// Brokers and their addresses.
    #[serde(deserialize_with = "null_as_default")]
    pub broker_datas: Vec<BrokerData>,
    /// Filter servers by broker address; legacy.
    #[serde(deserialize_with = "null_as_default")]
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// Order configuration: `broker name:number of queues` joined by `;`, for topics with a global order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    /// Number of queues of each broker.
    #[serde(deserialize_with = "null_as_default")]
    pub queue_datas: Vec<QueueData>,
    /// Queues of static topics by broker name (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_queue_mapping_by_broker: Option<BTreeMap<String, QueueMapping>>,
}

/// Master and its slaves under one broker name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerData {
    /// Name of the cluster.
    #[serde(default, deserialize_with = "null_as_default")]
    pub cluster: String,
    /// Name of the broker.
    pub broker_name: String,
    /// Addresses (`host:port`) by broker id.
    #[serde(default, deserialize_with = "null_as_default")]
    pub broker_addrs: BTreeMap<i64, String>,
    /// True if a slave may act as a lost master (5.x).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_acting_master: Option<bool>,
    /// Name of the broker's zone (5.x).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone_name: Option<String>,
}

/// Queues of a topic on one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueData {
    /// Name of the broker.
    pub broker_name: String,
    /// Number of readable queues.
    #[serde(default)]
    pub read_queue_nums: i32,
    /// Number of writable queues.
    #[serde(default)]
    pub write_queue_nums: i32,
    /// Bits of [`permission`].
    #[serde(default)]
    pub perm: i32,
    /// System flag bits of the topic; spelled `topicSynFlag` up to 4.8.0.
    #[serde(default, alias = "topicSynFlag")]
    pub topic_sys_flag: i32,
}

/// Queues of a static topic on one broker (5.x).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueMapping {
    /// Name of the topic.
    pub topic: String,
    /// Scope of the topic's queue numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Total number of queues of the topic.
    #[serde(default)]
    pub total_queues: i32,
    /// Name of the broker.
    #[serde(default, deserialize_with = "null_as_default")]
    pub bname: String,
    /// Number of changes.
    #[serde(default)]
    pub epoch: i64,
    /// True if the mapping is not reliable.
    #[serde(default)]
    pub dirty: bool,
    /// Number of the broker's queue, by number of the topic's queue.
    #[serde(default, deserialize_with = "null_as_default")]
    pub curr_id_map: BTreeMap<i32, i32>,
}

impl TopicRouteData {
    /// Reads a route and checks its numbers.
    ///
    /// # Errors
    ///
    /// Returns an error if the body is not a route, or a broker's number of queues is out of range.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let route: Self = decode("topic route", bytes)?;
        let numbers = route.queue_datas.iter().flat_map(|queues| [queues.read_queue_nums, queues.write_queue_nums]);
        match numbers.into_iter().find(|number| !(0..=MAX_QUEUES_PER_BROKER).contains(number)) {
            Some(value) => Err(Error::UnknownValue { what: "number of queues", value: value.into() }),
            None => Ok(route),
        }
    }

    /// Returns the queues that messages can be sent to, by broker name: the writable ones of brokers that have a
    /// master.
    #[must_use]
    pub fn write_queues(&self, topic: &Arc<str>) -> Vec<MessageQueue> {
        let writable =
            |queues: &&QueueData| queues.perm & permission::WRITE != 0 && self.has_master(&queues.broker_name);
        self.queues(topic, writable, |queues| queues.write_queue_nums)
    }

    /// Returns the queues that messages can be read from, by broker name; slaves serve them too.
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

/// All clusters with their brokers: the response body of `GET_BROKER_CLUSTER_INFO`.
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

/// Names of topics: the response body of `GET_ALL_TOPIC_LIST_FROM_NAMESERVER`, `GET_SYSTEM_TOPIC_LIST_FROM_NS` and
/// `GET_TOPICS_BY_CLUSTER`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicList {
    /// Names of the topics.
    #[serde(deserialize_with = "null_as_default")]
    pub topic_list: Vec<String>,
    /// Address of a broker that has the system topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
}

/// Key-value pairs: the response body of `GET_BROKER_RUNTIME_INFO` and `GET_KVLIST_BY_NAMESPACE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvTable {
    /// Values by key.
    #[serde(deserialize_with = "null_as_default")]
    pub table: BTreeMap<String, String>,
}
