//! The route of one topic as a value: queues to write and read, brokers and their addresses.
//!
//! Pure: made from the name server's answer, never changed, only replaced.

use std::sync::Arc;

use crate::message::MessageQueue;
use crate::wire::body::{MASTER_ID, TopicRouteData};

/// Queues of a topic that its first message creates. (Java: `defaultTopicQueueNums`)
pub(crate) const AUTO_CREATE_QUEUES: i32 = 4;

/// Queues and brokers of one topic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TopicRoute {
    pub(crate) topic: Arc<str>,
    /// Queues that can be written, with their masters' addresses.
    pub(crate) publish: Vec<PublishQueue>,
    /// Queues that can be read.
    pub(crate) subscribe: Vec<MessageQueue>,
    pub(crate) brokers: Vec<BrokerAddresses>,
    /// True if the topic does not exist yet; the queues are those that it would get.
    pub(crate) to_be_created: bool,
}

/// A queue to write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublishQueue {
    pub(crate) queue: MessageQueue,
    pub(crate) address: Arc<str>,
}

/// A broker and its copies: 0 is the master, greater numbers are slaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BrokerAddresses {
    pub(crate) name: Arc<str>,
    pub(crate) addresses: Vec<(i64, Arc<str>)>,
}

impl BrokerAddresses {
    pub(crate) fn master(&self) -> Option<&Arc<str>> {
        self.addresses.iter().find(|(id, _)| *id == MASTER_ID).map(|(_, address)| address)
    }

    /// The copy `id`, else the next slave, else any (Java: `findBrokerAddressInSubscribe`).
    pub(crate) fn copy(&self, id: i64) -> Option<&Arc<str>> {
        let exact = |wanted| self.addresses.iter().find(|(id, _)| *id == wanted);
        let slave = || if id == MASTER_ID { None } else { exact(id + 1) };
        exact(id).or_else(slave).or_else(|| self.addresses.first()).map(|(_, address)| address)
    }
}

impl TopicRoute {
    pub(super) fn new(topic: &Arc<str>, data: &TopicRouteData) -> Self {
        let brokers = brokers_of(data);
        let master = |queue: &MessageQueue| brokers.iter().find(|broker| broker.name == queue.broker_name)?.master();
        let publish = data.write_queues(topic).into_iter().filter_map(|queue| {
            let address = Arc::clone(master(&queue)?);
            Some(PublishQueue { queue, address })
        });
        let publish = publish.collect();
        Self { topic: Arc::clone(topic), publish, subscribe: data.read_queues(topic), brokers, to_be_created: false }
    }

    /// The queues that `topic` would get where the route of [`CREATE_TOPIC_KEY`] leads.
    pub(super) fn to_be_created(topic: &Arc<str>, mut data: TopicRouteData) -> Self {
        for queue_data in &mut data.queue_datas {
            let queues = queue_data.read_queue_nums.min(AUTO_CREATE_QUEUES);
            queue_data.read_queue_nums = queues;
            queue_data.write_queue_nums = queues;
        }
        Self { to_be_created: true, ..Self::new(topic, &data) }
    }

    pub(crate) fn broker(&self, name: &str) -> Option<&BrokerAddresses> {
        self.brokers.iter().find(|broker| *broker.name == *name)
    }
}

fn brokers_of(data: &TopicRouteData) -> Vec<BrokerAddresses> {
    let brokers = data.broker_datas.iter().map(|broker| {
        let mut addresses: Vec<(i64, Arc<str>)> =
            broker.broker_addrs.iter().map(|(id, address)| (*id, Arc::from(&**address))).collect();
        addresses.sort();
        BrokerAddresses { name: Arc::from(&*broker.broker_name), addresses }
    });
    brokers.collect()
}
