//! Interface between scenarios and the servers they run on.
//!
//! An implementation names its addresses and can stop and restart a broker. Everything else uses raw requests
//! ([`super::raw`]), so that it is the same on every server and independent of the client under test.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rocketmq_sync::unversioned::wire::{ExtFields, RemotingCommand, RequestCode, ResponseCode};
use serde_json::Value;

use super::raw::{self, fields};

/// Time that a scenario waits for an expected event. Only broken programs, and machines under heavy load, need so long.
const PATIENCE: Duration = Duration::from_secs(120);

/// Running name servers and brokers.
pub(crate) trait Cluster: Sync {
    /// Kind of the servers, for the few responses that differ.
    fn server(&self) -> Server;

    /// Addresses of the name servers.
    fn name_servers(&self) -> &[SocketAddr];

    /// Masters, in the order of their names.
    fn brokers(&self) -> &[Broker];

    /// Kills a broker without a shutdown. Only for clusters with an isolated [`Profile`].
    fn kill_broker(&self, name: &str);

    /// Makes the name servers list one more broker with a queue of `topic`, at an address given by the scenario, until
    /// the returned value is dropped. Only for clusters with an isolated [`Profile`].
    fn tell_of_broker(&self, name: &str, address: SocketAddr, topic: &str) -> Box<dyn Any>;

    /// Starts a killed broker on the same address and store, and waits until the name servers list it.
    fn restart_broker(&self, name: &str);
}

/// Broker of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
}

/// Software of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "no binary runs all of them")]
pub(crate) enum Server {
    /// The crate's mini broker.
    Mini,
    /// Apache RocketMQ 4.9.7.
    Apache4,
    /// Apache RocketMQ 5.5.0.
    Apache5,
}

/// Properties of a cluster that a scenario needs.
#[derive(Debug)]
pub(crate) struct Profile {
    /// Name of the profile.
    #[allow(dead_code, reason = "only clusters that are shared look at it")]
    pub(crate) name: &'static str,
    pub(crate) name_servers: usize,
    /// Number of masters, named `broker-a`, `broker-b` and so on.
    pub(crate) brokers: usize,
    /// True if a send to an unknown topic creates it.
    pub(crate) auto_create_topics: bool,
    /// Size of the largest body that a broker accepts, in bytes.
    pub(crate) max_message_size: usize,
    /// Value of the broker setting `messageDelayLevel`.
    pub(crate) delay_levels: &'static str,
    /// True if the scenario needs its own cluster, to kill brokers.
    #[allow(dead_code, reason = "only clusters that are shared look at it")]
    pub(crate) isolated: bool,
}

impl Profile {
    /// Profile shared by all scenarios without side effects on others. The first two retries wait for levels 3 and 4,
    /// here 1 s and 3 s: a tenth of the default's 10 s and 30 s.
    pub(crate) const STANDARD: Self = Self {
        name: "standard",
        name_servers: 2,
        brokers: 2,
        auto_create_topics: true,
        max_message_size: 4 * 1024 * 1024,
        delay_levels: "1s 1s 1s 3s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s 1s",
        isolated: false,
    };

    /// Profile for scenarios that kill and restart brokers.
    pub(crate) const ISOLATED: Self = Self { name: "isolated", name_servers: 1, isolated: true, ..Self::STANDARD };

    /// Isolated profile with three masters.
    pub(crate) const TRIPLE: Self = Self { name: "triple", brokers: 3, ..Self::ISOLATED };

    /// Profile of one broker that creates no topic and accepts 64 KiB.
    pub(crate) const STRICT: Self = Self {
        name: "strict",
        name_servers: 1,
        brokers: 1,
        auto_create_topics: false,
        max_message_size: 64 * 1024,
        ..Self::STANDARD
    };
}

impl dyn Cluster + '_ {
    /// Name servers as a user writes them.
    pub(crate) fn name_server_list(&self) -> String {
        self.name_servers().iter().map(ToString::to_string).collect::<Vec<_>>().join(";")
    }

    /// Creates a topic for reading and writing with `queues` queues on every broker, and waits for its route.
    pub(crate) fn create_topic(&self, topic: &str, queues: u32) {
        self.create_topic_with(topic, queues, 6);
    }

    /// Creates a topic with another permission: 2 is writing, 4 is reading.
    ///
    /// A change of a topic may never reach the name server of 5.5.0, whose broker ignores a request that changes
    /// nothing. Then the topic is changed again, in a setting that no scenario uses.
    pub(crate) fn create_topic_with(&self, topic: &str, queues: u32, permission: u32) {
        let set = |ordered| {
            for broker in self.brokers() {
                self.set_topic(&broker.name, topic, (queues, queues), permission, ordered);
            }
        };
        let (mut ordered, mut set_at) = (false, Instant::now());
        set(ordered);
        eventually(&format!("{topic} has a route to every broker"), || {
            if set_at.elapsed() > PATIENCE / 4 {
                (ordered, set_at) = (!ordered, Instant::now());
                set(ordered);
            }
            let is_known = |server| route(server, topic).is_some_and(|route| self.routes_to_all(&route, queues));
            self.name_servers().iter().copied().all(is_known)
        });
    }

    /// Creates or changes a topic on one broker, with numbers of queues to read and to write, without waiting for its
    /// route.
    pub(crate) fn create_topic_on(&self, broker: &str, topic: &str, queues: (u32, u32), permission: u32) {
        self.set_topic(broker, topic, queues, permission, false);
    }

    fn set_topic(&self, broker: &str, topic: &str, (read, write): (u32, u32), permission: u32, ordered: bool) {
        let settings = raw::topic_settings(topic, read, write, permission, ordered);
        let response = self.ask_broker_with(broker, RequestCode::UPDATE_AND_CREATE_TOPIC, &settings);
        assert_eq!(response.response_code(), ResponseCode::SUCCESS, "creating {topic}: {response:?}");
    }

    /// Creates a consumer group at every broker by its first pull, before its first heartbeat.
    pub(crate) fn create_group(&self, group: &str) {
        let header = [
            ("consumerGroup", group),
            ("topic", "no such topic"),
            ("queueId", "0"),
            ("queueOffset", "0"),
            ("maxMsgNums", "1"),
            ("sysFlag", "0"),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", "0"),
            ("subVersion", "0"),
        ];
        for broker in self.brokers() {
            let response = self.ask_broker(&broker.name, RequestCode::PULL_MESSAGE, &header);
            assert_eq!(response.response_code(), ResponseCode::TOPIC_NOT_EXIST, "creating {group}: {response:?}");
        }
    }

    /// Route of the topic from the first name server.
    pub(crate) fn route(&self, topic: &str) -> Option<Value> {
        route(*self.name_servers().first()?, topic)
    }

    /// Offset of the next message in this queue.
    pub(crate) fn max_offset(&self, broker: &str, topic: &str, queue: i32) -> i64 {
        self.queue_offset(RequestCode::GET_MAX_OFFSET, broker, topic, queue)
    }

    /// Offset of the oldest message in this queue.
    pub(crate) fn min_offset(&self, broker: &str, topic: &str, queue: i32) -> i64 {
        self.queue_offset(RequestCode::GET_MIN_OFFSET, broker, topic, queue)
    }

    /// Committed offset of `group`, if the broker has one. A 4.9 broker returns 0 for an unknown group, as long as the
    /// queue begins at 0.
    pub(crate) fn committed_offset(&self, broker: &str, group: &str, topic: &str, queue: i32) -> Option<i64> {
        let queue = queue.to_string();
        let header = [("consumerGroup", group), ("topic", topic), ("queueId", &queue), ("setZeroIfNotFound", "false")];
        let response = self.ask_broker(broker, RequestCode::QUERY_CONSUMER_OFFSET, &header);
        match response.response_code() {
            ResponseCode::SUCCESS => Some(offset_of(&response)),
            ResponseCode::QUERY_NOT_FOUND => None,
            _ => panic!("offset of {group} in {topic}/{broker}/{queue}: {response:?}"),
        }
    }

    /// Sends one request to a broker on its own connection; panics if no response arrives.
    pub(crate) fn ask_broker(&self, broker: &str, code: RequestCode, header: &[(&str, &str)]) -> RemotingCommand {
        self.ask_broker_with(broker, code, &fields(header))
    }

    fn ask_broker_with(&self, broker: &str, code: RequestCode, header: &ExtFields) -> RemotingCommand {
        raw::request(self.broker_address(broker), RemotingCommand::request(code, header))
            .unwrap_or_else(|error| panic!("{code} to {broker}: {error}"))
    }

    /// Address of a broker.
    pub(crate) fn broker_address(&self, name: &str) -> SocketAddr {
        self.brokers().iter().find(|broker| broker.name == name).expect("a broker of this cluster").address
    }

    fn queue_offset(&self, code: RequestCode, broker: &str, topic: &str, queue: i32) -> i64 {
        let response = self.ask_broker(broker, code, &[("topic", topic), ("queueId", &queue.to_string())]);
        assert_eq!(response.response_code(), ResponseCode::SUCCESS, "{code} of {topic}/{broker}/{queue}: {response:?}");
        offset_of(&response)
    }

    fn routes_to_all(&self, route: &Value, queues: u32) -> bool {
        self.brokers().iter().all(|broker| {
            let has = |list: &str, matches: &dyn Fn(&Value) -> bool| {
                route[list].as_array().is_some_and(|entries| {
                    entries.iter().any(|entry| entry["brokerName"] == *broker.name && matches(entry))
                })
            };
            has("brokerDatas", &|_| true) && has("queueDatas", &|entry| entry["writeQueueNums"] == queues)
        })
    }
}

/// Waits until `condition` is true; panics with `what` if it is not within two minutes.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Returns a name that no other scenario and no earlier run has used.
pub(crate) fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis();
    format!("{prefix}-{millis:x}-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

fn route(name_server: SocketAddr, topic: &str) -> Option<Value> {
    let header = fields(&[("topic", topic), ("acceptStandardJsonOnly", "true")]);
    let request = RemotingCommand::request(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header);
    let response = raw::request(name_server, request).ok()?;
    let found = response.response_code() == ResponseCode::SUCCESS;
    found.then(|| serde_json::from_slice(&response.body).expect("a route in standard JSON"))
}

fn offset_of(response: &RemotingCommand) -> i64 {
    let offset = response.ext_fields.get("offset").expect("an offset in the answer");
    offset.parse().expect("a number as offset")
}
