//! One consumer of a group, as all its threads share it: subscriptions, windows, offsets.
//!
//! The threads that drive it each have a file of their own: `pull_service`, `rebalance_service`, `consume_service`. What
//! stands here is what more than one of them needs; every lock is short and a leaf.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender as ChannelSender;
use log::{debug, warn};
use parking_lot::{Mutex, RwLock};

use crate::client::Core;
use crate::client::config::ClientConfig;
use crate::client::member::{Member, MemberKey};
use crate::client::route::TopicRoute;
use crate::message::MessageQueue;
use crate::name_map::NameMap;
use crate::producer::sender::Sender;
use crate::wire::body::{self, ConsumeType, ConsumerData, HeartbeatData, MessageModel, SubscriptionData};

use super::allocate::AllocateStrategy;
use super::consume_service::Pool;
use super::listener::Listener;
use super::offset_store::{Commit, OffsetStore};
use super::process_queue::{FlowLimits, ProcessQueue};
use super::pull_service::PullEvent;
use super::queue_table::{ConsumeFromWhere, Epoch};
use super::rebalance_service::RebalanceEvent;
use super::retry::RetryLimit;

/// What a push consumer was configured with.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) consume_from: ConsumeFromWhere,
    pub(super) strategy: AllocateStrategy,
    pub(super) pull_batch: usize,
    pub(super) consume_batch: usize,
    pub(super) flow: FlowLimits,
    pub(super) retry_limit: RetryLimit,
    pub(super) consume_timeout: Duration,
    pub(super) max_body: usize,
}

/// One subscribed topic.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) topic: Arc<str>,
    pub(super) data: SubscriptionData,
}

/// The messages of one queue that were pulled and are not resolved, shared by `rmq-pull`, workers and completions.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) queue: MessageQueue,
    pub(super) epoch: Epoch,
    pub(super) messages: Mutex<ProcessQueue>,
}

/// One consumer, shared by its threads.
pub(super) struct Consumer {
    pub(super) core: Arc<Core>,
    pub(super) group: Arc<str>,
    pub(super) retry_topic: Arc<str>,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) options: Options,
    pub(super) listener: Listener,
    pub(super) pool: Pool,
    /// Publishes to the retry topic what a broker would not take back.
    pub(super) publisher: Arc<Sender>,
    pub(super) pull: ChannelSender<PullEvent>,
    pub(super) rebalance: ChannelSender<RebalanceEvent>,
    pub(super) windows: RwLock<HashMap<MessageQueue, Arc<Window>>>,
    pub(super) offsets: Mutex<OffsetStore>,
    /// Which topics' queues have been shared out at least once.
    pub(super) decided: Mutex<NameMap<Result<usize, String>>>,
    pub(super) retry_search: Mutex<Search>,
    pub(super) stopping: AtomicBool,
}

impl Consumer {
    pub(super) fn subscription(&self, topic: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|subscription| *subscription.topic == *topic)
    }

    pub(super) fn window(&self, queue: &MessageQueue) -> Option<Arc<Window>> {
        self.windows.read().get(queue).cloned()
    }

    pub(super) fn all_windows(&self) -> Vec<Arc<Window>> {
        self.windows.read().values().cloned().collect()
    }

    /// Each broker that we consume from gives failed messages back through a queue of its own. It makes that queue when
    /// it hears of the group, and tells the name servers later than us: a look at that moment may come too early.
    fn look_for_retry_queues(&self, now: Instant) {
        let route = self.core.routes.known(&self.retry_topic);
        let is_known = |broker: &str| route.as_ref().is_some_and(|route| route.broker(broker).is_some());
        if self.all_windows().iter().all(|window| is_known(&window.queue.broker_name)) {
            return self.retry_search.lock().begin_anew();
        }
        if self.retry_search.lock().is_due(now, &self.core.config) {
            self.core.refresh_suspected_route(&self.retry_topic);
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// A window that was too full has room again.
    pub(super) fn has_room(self: &Arc<Self>, window: &Window) {
        let (queue, epoch) = (window.queue.clone(), window.epoch);
        // A pull thread that has ended needs no hints.
        let _ = self.pull.send(PullEvent::Hint { consumer: Arc::clone(self), queue, epoch });
    }

    /// Sends the offsets that must not wait for the next round.
    pub(super) fn send_hurried_offsets(self: &Arc<Self>, now: Instant) {
        let commits = self.offsets.lock().hurried(now);
        self.send_offsets(commits);
    }

    /// Sends the offsets of all queues that have got on.
    fn send_all_offsets(self: &Arc<Self>, now: Instant) {
        self.collect_offsets();
        let commits = self.offsets.lock().flush(now);
        self.send_offsets(commits);
    }

    /// Lets the offset store know how far each window is.
    pub(super) fn collect_offsets(&self) {
        for window in self.all_windows() {
            let offset = window.messages.lock().committable();
            self.offsets.lock().update(&window.queue, offset);
        }
    }

    pub(super) fn send_offsets(self: &Arc<Self>, commits: Vec<Commit>) {
        for Commit { queue, offset, ticket } in commits {
            let consumer = Arc::clone(self);
            let Some(address) = self.core.routes.master_of(&queue) else {
                self.offsets.lock().answered(&queue, ticket, false);
                continue;
            };
            let asked = queue.clone();
            self.core.update_consumer_offset(&address, &self.group, &asked, offset, move |answer| {
                let failures = consumer.offsets.lock().answered(&queue, ticket, answer.is_ok());
                // A broker that is away for long is told of ever less.
                if let Err(error) = &answer
                    && failures.is_power_of_two()
                {
                    let group = &consumer.group;
                    warn!("offset {offset} of {queue} could not be stored for {group} ({failures} in a row): {error}");
                }
                consumer.send_hurried_offsets(Instant::now());
                consumer.core.changed();
            });
        }
    }
}

/// The search for retry queues that are missing: ever more rarely, since a broker may never have one, and not at all once
/// the regular refresh of routes is as frequent.
#[derive(Debug, Default)]
pub(super) struct Search {
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
pub(super) struct ConsumerMember(pub(super) Arc<Consumer>);

impl Member for ConsumerMember {
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
        self.0.offsets.lock().doubt(&brokers);
        debug!("looking for {}", self.0.retry_topic);
        self.0.retry_search.lock().begin_anew();
        self.0.core.refresh_route(&self.0.retry_topic);
        self.members_changed();
    }

    fn members_changed(&self) {
        let _ = self.0.rebalance.send(RebalanceEvent::Notified(Arc::clone(&self.0)));
    }

    fn offsets_due(&self, now: Instant) {
        let consumer = &self.0;
        if consumer.is_stopping() {
            return;
        }
        consumer.send_all_offsets(now);
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
