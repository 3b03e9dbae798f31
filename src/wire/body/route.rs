//! Bodies about where things are: brokers, queues, topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;

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
    /// Queues of static topics by broker name (5.x).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_queue_mapping_by_broker: Option<BTreeMap<String, QueueMapping>>,
}

/// A broker: a master and its slaves under one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerData {
    /// Its cluster.
    #[serde(default, deserialize_with = "null_as_default")]
    pub cluster: String,
    /// Its name.
    pub broker_name: String,
    /// Addresses (`host:port`) by broker id.
    #[serde(default, deserialize_with = "null_as_default")]
    pub broker_addrs: BTreeMap<i64, String>,
    /// Whether a slave stands in for a lost master (5.x).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_acting_master: Option<bool>,
    /// Where it stands (5.x).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone_name: Option<String>,
}

/// A topic's queues on one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueData {
    /// The broker's name.
    pub broker_name: String,
    /// How many queues are read.
    #[serde(default)]
    pub read_queue_nums: i32,
    /// How many queues are written.
    #[serde(default)]
    pub write_queue_nums: i32,
    /// Bits of [`permission`].
    #[serde(default)]
    pub perm: i32,
    /// Bits of the topic; spelled `topicSynFlag` up to 4.8.0.
    #[serde(default, alias = "topicSynFlag")]
    pub topic_sys_flag: i32,
}

/// The queues of a static topic on one broker (5.x).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueMapping {
    /// The topic.
    pub topic: String,
    /// Where the topic's queues are numbered through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// How many queues the topic has.
    #[serde(default)]
    pub total_queues: i32,
    /// The broker's name.
    #[serde(default, deserialize_with = "null_as_default")]
    pub bname: String,
    /// Counts changes.
    #[serde(default)]
    pub epoch: i64,
    /// Not to be trusted.
    #[serde(default)]
    pub dirty: bool,
    /// The broker's queue by that of the topic.
    #[serde(default, deserialize_with = "null_as_default")]
    pub curr_id_map: BTreeMap<i32, i32>,
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

/// Topics: the answer to `GET_ALL_TOPIC_LIST_FROM_NAMESERVER`, `GET_SYSTEM_TOPIC_LIST_FROM_NS` and
/// `GET_TOPICS_BY_CLUSTER`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicList {
    /// The topics.
    #[serde(deserialize_with = "null_as_default")]
    pub topic_list: Vec<String>,
    /// A broker that has the system's topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
}

/// Texts by name: the answer to `GET_BROKER_RUNTIME_INFO` and `GET_KVLIST_BY_NAMESPACE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvTable {
    /// The texts.
    #[serde(deserialize_with = "null_as_default")]
    pub table: BTreeMap<String, String>,
}
