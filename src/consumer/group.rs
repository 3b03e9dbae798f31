//! The group of one consumer: everything that consumers of every kind have, shared by their threads.
//!
//! Each lock is short and a leaf. How messages are delivered is not known here: see [`Delivery`].
//!
//! [`Delivery`]: crate::consumer::deliver::Delivery

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::client::Core;
use crate::client::member::MemberId;
use crate::message::MessageQueue;
use crate::name_map::NameMap;
use crate::repeats::Repeats;
use crate::wire::body::SubscriptionData;
use crate::wire::name::retry_topic;

use crate::consumer::assign::allocate::AllocateStrategy;
use crate::consumer::offset::driver::OffsetDriver;
use crate::consumer::pull::flow::FlowLimits;
use crate::consumer::start::ConsumeFromWhere;
use crate::consumer::subscription::Subscription;

/// Options of a consumer of any kind.
#[derive(Clone, Debug)]
pub(crate) struct GroupOptions {
    pub(crate) consume_from: ConsumeFromWhere,
    pub(crate) strategy: AllocateStrategy,
    pub(crate) pull_batch: usize,
    pub(crate) flow: FlowLimits,
}

/// One consumer of a group.
pub(crate) struct ConsumerGroup {
    pub(crate) id: MemberId,
    pub(crate) core: Arc<Core>,
    /// Name of the group.
    pub(crate) name: Arc<str>,
    pub(crate) retry_topic: Arc<str>,
    pub(crate) options: GroupOptions,
    /// Windows and offsets of the owned queues.
    pub(crate) offsets: Arc<OffsetDriver>,
    /// Failures that many messages or queues share, for the log.
    pub(crate) repeats: Repeats,
    subscriptions: Vec<Arc<Subscription>>,
    /// Number of own queues of each topic that was shared out, or the reason why it was not.
    decided: Mutex<NameMap<Result<usize, String>>>,
    stopping: AtomicBool,
}

impl ConsumerGroup {
    pub(crate) fn new(
        core: &Arc<Core>,
        name: &str,
        subscriptions: impl IntoIterator<Item = Subscription>,
        options: GroupOptions,
    ) -> Arc<Self> {
        let group: Arc<str> = Arc::from(name);
        Arc::new(Self {
            id: core.new_member_id(),
            core: Arc::clone(core),
            retry_topic: Arc::from(retry_topic(name)),
            options,
            offsets: OffsetDriver::new(Arc::clone(core), Arc::clone(&group)),
            repeats: Repeats::default(),
            subscriptions: subscriptions.into_iter().map(Arc::new).collect(),
            decided: Mutex::default(),
            stopping: AtomicBool::new(false),
            name: group,
        })
    }

    /// The subscription of a topic.
    pub(crate) fn subscription(&self, topic: &str) -> Option<Arc<Subscription>> {
        self.subscriptions.iter().find(|subscription| *subscription.topic == *topic).cloned()
    }

    /// All subscriptions as heartbeats list them.
    pub(crate) fn subscription_data(&self) -> Vec<SubscriptionData> {
        self.subscriptions.iter().map(|subscription| subscription.data.clone()).collect()
    }

    /// The subscribed topics, the retry topic included.
    pub(crate) fn topics(&self) -> Vec<Arc<str>> {
        self.subscriptions.iter().map(|subscription| Arc::clone(&subscription.topic)).collect()
    }

    /// Takes in how many queues of a topic are owned, or why that could not be decided.
    pub(crate) fn note_share(&self, topic: &Arc<str>, owned: Result<usize, String>) {
        self.decided.lock().insert(Arc::clone(topic), owned);
    }

    /// The topics whose queues have not been shared out yet, each with the reason. The group's retry topic is not
    /// among them: it is empty until something fails.
    pub(crate) fn undecided(&self) -> Vec<String> {
        let decided = self.decided.lock();
        let topics = self.subscriptions.iter().map(|subscription| &subscription.topic);
        topics
            .filter(|topic| **topic != self.retry_topic)
            .filter_map(|topic| match decided.get(topic) {
                Some(Ok(_)) => None,
                Some(Err(trouble)) => Some(format!("{topic}: {trouble}")),
                None => Some(format!("{topic}: not looked up yet")),
            })
            .collect()
    }

    /// Begins the end: nothing is done at intervals any more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The error text for a broker that does not know the group, with the remedy.
    pub(crate) fn missing_at(&self, queue: &MessageQueue) -> String {
        format!(
            "group {} does not exist on broker {} and is not created: create it there, or set \
             autoCreateSubscriptionGroup of the broker",
            self.name, queue.broker_name
        )
    }
}

impl fmt::Debug for ConsumerGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerGroup").field("name", &self.name).finish_non_exhaustive()
    }
}
