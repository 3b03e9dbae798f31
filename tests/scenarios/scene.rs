//! Producer and consumer behind a [`Proxy`], with records of their results.

use std::sync::Arc;

use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use rocketmq_sync::{Client, ClientBuilder, MessageQueue, Producer, PushConsumer};
use serde_json::Value;

use super::proxy::{Fault, Mode, Proxy};
use super::storm::{self, Consumed, Outcomes, PATIENCE, QUEUES};
use super::{Cluster, eventually, unique};

/// Broker that most faults apply to.
pub(crate) const VICTIM: &str = "broker-a";

pub(crate) struct Scene<'a> {
    pub(crate) cluster: &'a dyn Cluster,
    pub(crate) proxy: Proxy,
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) client: Client,
    pub(crate) producer: Producer,
    pub(crate) consumer: PushConsumer,
    pub(crate) consumed: Arc<Consumed>,
}

impl<'a> Scene<'a> {
    /// Creates one client with a producer and a consumer of a new topic; the consumer has all its queues.
    pub(crate) fn new(cluster: &'a dyn Cluster, options: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Self {
        let proxy = Proxy::before(cluster);
        let client = options(storm::client(proxy.addresses()).address_map(proxy.address_map()));
        Self::with(cluster, proxy, client)
    }

    /// Creates a scene with a client that reaches the servers through this proxy.
    pub(crate) fn with(cluster: &'a dyn Cluster, proxy: Proxy, client: ClientBuilder) -> Self {
        let (topic, group) = (unique("Fault"), unique("G"));
        cluster.create_topic(&topic, QUEUES);
        cluster.create_group(&group);
        let client = client.start().expect("a client");
        let consumed = Arc::new(Consumed::default());
        let consumer = storm::start_consumer(&client, &group, &topic, Arc::clone(&consumed));
        let producer = Producer::builder(unique("P")).client(&client).start().expect("a producer");
        storm::await_all_queues(cluster, &consumer, &topic);
        Self { cluster, proxy, topic, group, client, producer, consumer, consumed }
    }

    /// First queue of the victim.
    pub(crate) fn victims_queue(&self) -> MessageQueue {
        MessageQueue::new(self.topic.as_str(), VICTIM, 0)
    }

    /// Sends until each fault has happened this often; then the faults end, and sending continues for a while.
    pub(crate) fn storm_until(&self, faults: Vec<Fault>, times: usize) -> Outcomes {
        storm::storm_while(&self.producer, &self.topic, None, |outcomes| {
            eventually("the faults happen", || faults.iter().all(|fault| fault.hits() >= times));
            drop(faults);
            self.goes_on(outcomes);
        })
    }

    /// Runs a storm in which the victim's link has this mode until `seen`, and sends to other brokers continue.
    pub(crate) fn storm_with(&self, mode: Mode, seen: impl FnOnce(&Outcomes)) -> Outcomes {
        let victim = self.proxy.broker(VICTIM);
        storm::storm_while(&self.producer, &self.topic, Some(self.victims_queue()), |outcomes| {
            self.goes_on(outcomes);
            victim.set(mode);
            seen(outcomes);
            let other = &self.cluster.brokers()[1].name;
            let before = outcomes.stored_on(other);
            eventually("the storm goes on elsewhere", || outcomes.stored_on(other) >= before + 50);
            victim.set(Mode::Pass);
            self.goes_on(outcomes);
        })
    }

    /// Waits until every broker lists the client as a member of the group.
    pub(crate) fn await_membership(&self) {
        for broker in self.cluster.brokers() {
            eventually("the broker knows the member", || {
                members(self.cluster, &broker.name, &self.group).iter().any(|id| id == self.client.client_id())
            });
        }
    }

    /// Waits until sends to every broker succeed again.
    pub(crate) fn goes_on(&self, outcomes: &Outcomes) {
        let stored = |broker: &super::Broker| outcomes.stored_on(&broker.name);
        let before: Vec<_> = self.cluster.brokers().iter().map(stored).collect();
        eventually("every broker stores more", || {
            self.cluster.brokers().iter().zip(&before).all(|(broker, before)| stored(broker) >= before + 50)
        });
    }

    /// Expects that everything is consumed, every report was correct, and the group is at the end of all its queues
    /// after a clean shutdown.
    pub(crate) fn end(self, outcomes: &Outcomes) {
        let report = self.producer.shutdown(PATIENCE);
        assert!(report.is_clean(), "{report:?}");
        storm::settle(self.cluster, &self.topic, outcomes, &self.consumed);
        storm::end_at_the_end(self.cluster, &self.consumer, &self.group, &self.topic);
        println!("{}; {}", outcomes.summary(), self.consumed.summary());
    }
}

/// Client ids that a broker lists as members of a group.
pub(crate) fn members(cluster: &dyn Cluster, broker: &str, group: &str) -> Vec<String> {
    let answer = cluster.ask_broker(broker, RequestCode::GET_CONSUMER_LIST_BY_GROUP, &[("consumerGroup", group)]);
    if answer.response_code() != ResponseCode::SUCCESS {
        return Vec::new();
    }
    let list: Value = serde_json::from_slice(&answer.body).expect("a list of members");
    let ids = list["consumerIdList"].as_array().cloned().unwrap_or_default();
    ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

/// True if the long form of a scenario is requested.
pub(crate) fn is_soak() -> bool {
    std::env::var_os("ROCKETMQ_SYNC_SOAK").is_some()
}

/// Sequence of numbers whose seed is printed in the test's output, so that a failure can be repeated.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn cast() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
        let seed = u64::from(now.subsec_nanos()) << 20 | now.as_secs() | 1;
        println!("seed {seed}");
        Self(seed)
    }

    /// Creates the sequence of a seed, which is independent of that of the next one.
    pub(crate) fn of(seed: u64) -> Self {
        // splitmix64
        let mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self(mixed ^ (mixed >> 31) | 1)
    }

    /// Returns a number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
