//! One consumer of a group, as all its threads share it.
//!
//! The threads that drive it each have a file of their own: `pull_service`, `rebalance_service`, `consume_service`. What
//! stands here is what more than one of them needs; every lock is short and a leaf.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender as ChannelSender;
use parking_lot::Mutex;

use crate::client::Core;
use crate::client::config::ClientConfig;
use crate::client::member::{Member, MemberId, MemberKey};
use crate::client::route::TopicRoute;
use crate::logging::debug;
use crate::name_map::NameMap;
use crate::producer::send::Sender;
use crate::repeats::Repeats;
use crate::wire::body::{self, ConsumeType, ConsumerData, HeartbeatData, MessageModel};

use crate::consumer::assign::allocate::AllocateStrategy;
use crate::consumer::assign::service::RebalanceEvent;
use crate::consumer::deliver::listener::Listener;
use crate::consumer::deliver::pool::Pool;
use crate::consumer::deliver::retry::RetryLimit;
use crate::consumer::offset::driver::{OffsetDriver, Window};
use crate::consumer::pull::flow::FlowLimits;
use crate::consumer::pull::service::PullEvent;
use crate::consumer::start::ConsumeFromWhere;
use crate::consumer::subscription::Subscription;

/// What a push consumer was configured with.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) consume_from: ConsumeFromWhere,
    pub(crate) strategy: AllocateStrategy,
    pub(crate) pull_batch: usize,
    pub(crate) consume_batch: usize,
    pub(crate) flow: FlowLimits,
    pub(crate) retry_limit: RetryLimit,
    pub(crate) consume_timeout: Duration,
    pub(crate) max_body: usize,
}

/// One consumer, shared by its threads.
pub(crate) struct Consumer {
    pub(crate) id: MemberId,
    pub(crate) core: Arc<Core>,
    pub(crate) group: Arc<str>,
    pub(crate) retry_topic: Arc<str>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) options: Options,
    pub(crate) listener: Listener,
    pub(crate) pool: Pool,
    /// Publishes to the retry topic what a broker would not take back.
    pub(crate) publisher: Arc<Sender>,
    pub(crate) pull: ChannelSender<PullEvent>,
    pub(crate) rebalance: ChannelSender<RebalanceEvent>,
    pub(crate) offsets: Arc<OffsetDriver>,
    /// Which topics' queues have been shared out at least once.
    pub(crate) decided: Mutex<NameMap<Result<usize, String>>>,
    pub(crate) retry_search: Mutex<Search>,
    /// What is logged of failures that many messages or queues share.
    pub(crate) repeats: Repeats,
    pub(crate) stopping: AtomicBool,
}

impl Consumer {
    pub(crate) fn subscription(&self, topic: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|subscription| *subscription.topic == *topic)
    }

    /// Each broker that we consume from gives failed messages back through a queue of its own. It makes that queue when
    /// it hears of the group, and tells the name servers later than us: a look at that moment may come too early.
    fn look_for_retry_queues(&self, now: Instant) {
        let route = self.core.routes.known(&self.retry_topic);
        let is_known = |broker: &str| route.as_ref().is_some_and(|route| route.broker(broker).is_some());
        if self.offsets.all_windows().iter().all(|window| is_known(&window.queue.broker_name)) {
            return self.retry_search.lock().begin_anew();
        }
        if self.retry_search.lock().is_due(now, &self.core.config) {
            self.core.refresh_suspected_route(&self.retry_topic);
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// A window that was too full has room again.
    pub(crate) fn has_room(&self, window: &Window) {
        let (queue, epoch) = (window.queue.clone(), window.epoch);
        // A pull thread that has ended needs no hints.
        let _ = self.pull.send(PullEvent::Hint { consumer: self.id, queue, epoch });
    }
}

/// The search for retry queues that are missing: ever more rarely, since a broker may never have one, and not at all once
/// the regular refresh of routes is as frequent.
#[derive(Debug, Default)]
pub(crate) struct Search {
    wait: Duration,
    next: Option<Instant>,
}

impl Search {
    fn is_due(&mut self, now: Instant, config: &ClientConfig) -> bool {
        if self.wait >= config.route_interval || self.next.is_some_and(|next| now < next) {
            return false;
        }
        self.wait = (self.wait * 2).max(config.offset_interval);
        self.next = Some(now + self.wait);
        true
    }

    fn begin_anew(&mut self) {
        *self = Self::default();
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("group", &self.group).finish_non_exhaustive()
    }
}

/// The consumer as its client sees it.
#[derive(Debug)]
pub(crate) struct ConsumerMember(pub(super) Arc<Consumer>);

impl Member for ConsumerMember {
    fn id(&self) -> MemberId {
        self.0.id
    }

    fn key(&self) -> MemberKey {
        MemberKey::Consumer(Arc::clone(&self.0.group))
    }

    fn describe(&self, heartbeat: &mut HeartbeatData) {
        let consumer = &self.0;
        heartbeat.consumer_data_set.push(ConsumerData {
            group_name: consumer.group.to_string(),
            consume_type: ConsumeType::Passively,
            message_model: MessageModel::Clustering,
            consume_from_where: match consumer.options.consume_from {
                ConsumeFromWhere::Last => body::ConsumeFromWhere::LastOffset,
                ConsumeFromWhere::First => body::ConsumeFromWhere::FirstOffset,
                ConsumeFromWhere::Timestamp(_) => body::ConsumeFromWhere::Timestamp,
            },
            subscription_data_set: consumer
                .subscriptions
                .iter()
                .map(|subscription| subscription.data.clone())
                .collect(),
            unit_mode: false,
        });
    }

    fn topics(&self) -> Vec<Arc<str>> {
        self.0.subscriptions.iter().map(|subscription| Arc::clone(&subscription.topic)).collect()
    }

    fn route_changed(&self, route: &Arc<TopicRoute>) {
        if self.0.subscription(&route.topic).is_some() {
            self.members_changed();
        }
    }

    /// The heartbeat creates the retry topic of a new group: whoever waits for the next refresh of routes gets the first
    /// retry half a minute late.
    ///
    /// And a broker that was lost and is back may have died: it forgets what it had confirmed and not yet written.
    fn heartbeat_heard(&self, address: &Arc<str>) {
        let brokers = self.0.core.routes.brokers_at(address, &self.topics());
        self.0.offsets.doubt(&brokers);
        debug!("looking for {}", self.0.retry_topic);
        self.0.retry_search.lock().begin_anew();
        self.0.core.refresh_route(&self.0.retry_topic);
        self.members_changed();
    }

    fn members_changed(&self) {
        let _ = self.0.rebalance.send(RebalanceEvent::Notified(self.0.id));
    }

    /// What has not begun is left to the broker, which gives the queues to another member.
    fn client_broke(&self) {
        for window in self.0.offsets.all_windows() {
            window.messages.lock().drain();
        }
        self.0.pool.close();
    }

    fn offsets_due(&self, now: Instant) {
        let consumer = &self.0;
        if consumer.is_stopping() {
            return;
        }
        consumer.offsets.send_all();
        consumer.look_after_waiting(now);
        consumer.look_for_retry_queues(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a broker that never has a retry queue would cost a look-up every 5 s for ever.
    #[test]
    fn a_retry_queue_that_never_comes_is_looked_for_a_few_times_until_something_happens() {
        let (mut search, start, config) = (Search::default(), Instant::now(), ClientConfig::default());
        let looks = |search: &mut Search, rounds: u32| -> Vec<u64> {
            let times = (0..rounds).map(|round| start + config.offset_interval * round);
            times.filter(|now| search.is_due(*now, &config)).map(|now| (now - start).as_secs()).collect()
        };
        assert_eq!(looks(&mut search, 720), [0, 5, 15, 35], "an hour");
        search.begin_anew();
        assert_eq!(looks(&mut search, 2), [0, 5]);
    }
}
