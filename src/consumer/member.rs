//! A consumer as its client sees it: heartbeats, topics, and the work that comes at intervals.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use crate::client::config::ClientConfig;
use crate::client::member::{Member, MemberId, MemberKey};
use crate::client::route::TopicRoute;
use crate::logging::debug;
use crate::wire::body::{self, ConsumeType, ConsumerData, HeartbeatData, MessageModel};

use crate::consumer::assign::service::RebalanceEvent;
use crate::consumer::deliver::Delivery;
use crate::consumer::group::ConsumerGroup;
use crate::consumer::start::ConsumeFromWhere;

/// Member of a client. All calls come from the client's threads.
pub(crate) struct ConsumerMember {
    group: Arc<ConsumerGroup>,
    delivery: Arc<dyn Delivery>,
    rebalance: Sender<RebalanceEvent>,
    retry_search: Mutex<RetryQueueSearch>,
}

impl ConsumerMember {
    pub(crate) fn new(
        group: Arc<ConsumerGroup>,
        delivery: Arc<dyn Delivery>,
        rebalance: Sender<RebalanceEvent>,
    ) -> Arc<Self> {
        Arc::new(Self { group, delivery, rebalance, retry_search: Mutex::default() })
    }

    /// Each broker that we consume from gives failed messages back through a queue of its own. It makes that queue when
    /// it hears of the group, and registers it at the name servers later: a look at that moment may come too early.
    fn look_for_retry_queues(&self, now: Instant) {
        let core = &self.group.core;
        let route = core.routes.known(&self.group.retry_topic);
        let is_known = |broker: &str| route.as_ref().is_some_and(|route| route.broker(broker).is_some());
        if self.group.offsets.all_windows().iter().all(|window| is_known(&window.queue.broker_name)) {
            return self.retry_search.lock().begin_anew();
        }
        if self.retry_search.lock().is_due(now, &core.config) {
            core.refresh_suspected_route(&self.group.retry_topic);
        }
    }
}

impl Member for ConsumerMember {
    fn id(&self) -> MemberId {
        self.group.id
    }

    fn key(&self) -> MemberKey {
        MemberKey::Consumer(Arc::clone(&self.group.name))
    }

    fn describe(&self, heartbeat: &mut HeartbeatData) {
        heartbeat.consumer_data_set.push(ConsumerData {
            group_name: self.group.name.to_string(),
            consume_type: ConsumeType::Passively,
            message_model: MessageModel::Clustering,
            consume_from_where: match self.group.options.consume_from {
                ConsumeFromWhere::Last => body::ConsumeFromWhere::LastOffset,
                ConsumeFromWhere::First => body::ConsumeFromWhere::FirstOffset,
                ConsumeFromWhere::Timestamp(_) => body::ConsumeFromWhere::Timestamp,
            },
            subscription_data_set: self.group.subscription_data(),
            unit_mode: false,
        });
    }

    fn topics(&self) -> Vec<Arc<str>> {
        self.group.topics()
    }

    fn route_changed(&self, route: &Arc<TopicRoute>) {
        if self.group.subscription(&route.topic).is_some() {
            self.members_changed();
        }
    }

    /// The heartbeat creates the retry topic of a new group: without this look the first retry would come half a minute
    /// late, with the next refresh of routes.
    ///
    /// A broker that was lost and is back may have died: it forgets what it had confirmed and not yet written.
    fn heartbeat_heard(&self, address: &Arc<str>) {
        let core = &self.group.core;
        let brokers = core.routes.brokers_at(address, &self.group.topics());
        self.group.offsets.doubt(&brokers);
        debug!("route: looking for {}", self.group.retry_topic);
        self.retry_search.lock().begin_anew();
        core.refresh_route(&self.group.retry_topic);
        self.members_changed();
    }

    fn members_changed(&self) {
        let _ = self.rebalance.send(RebalanceEvent::Notified(self.group.id));
    }

    /// Leaves what has not begun to the broker, which gives the queues to another member.
    fn client_broke(&self) {
        for window in self.group.offsets.all_windows() {
            window.messages.lock().drain();
        }
        self.delivery.close();
    }

    fn offsets_due(&self, now: Instant) {
        if self.group.is_stopping() {
            return;
        }
        self.group.offsets.send_all();
        Arc::clone(&self.delivery).look_after(now);
        self.look_for_retry_queues(now);
    }
}

/// The search for retry queues that are missing: ever more rarely, since a broker may never have one, and not at all once
/// the regular refresh of routes is as frequent.
#[derive(Debug, Default)]
struct RetryQueueSearch {
    wait: Duration,
    next: Option<Instant>,
}

impl RetryQueueSearch {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a broker that never has a retry queue would cost a look-up every 5 s for ever.
    #[test]
    fn a_retry_queue_that_never_comes_is_looked_for_a_few_times_until_something_happens() {
        let (mut search, start, config) = (RetryQueueSearch::default(), Instant::now(), ClientConfig::default());
        let looks = |search: &mut RetryQueueSearch, rounds: u32| -> Vec<u64> {
            let times = (0..rounds).map(|round| start + config.offset_interval * round);
            times.filter(|now| search.is_due(*now, &config)).map(|now| (now - start).as_secs()).collect()
        };
        assert_eq!(looks(&mut search, 720), [0, 5, 15, 35], "an hour");
        search.begin_anew();
        assert_eq!(looks(&mut search, 2), [0, 5]);
    }
}
