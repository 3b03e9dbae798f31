//! What a producer or consumer is to its client: a member that heartbeats name, whose topics are kept fresh, and that
//! hears of changes.

use std::sync::Arc;
use std::time::Instant;

use super::route::TopicRoute;
use crate::wire::body::HeartbeatData;

/// A running producer or consumer. All calls come from the client's threads and must not block.
pub(crate) trait Member: Send + Sync {
    /// Its kind and group, unique within a client.
    fn key(&self) -> MemberKey;

    /// Adds itself to what brokers are told of this client.
    fn describe(&self, heartbeat: &mut HeartbeatData);

    /// Topics whose routes are kept fresh for it.
    fn topics(&self) -> Vec<Arc<str>>;

    /// Comes before each refresh of routes: topics that it has not used for long need not be kept fresh any more.
    fn forget_idle_topics(&self) {}

    /// The route of some topic is new or has changed.
    fn route_changed(&self, _route: &Arc<TopicRoute>) {}

    /// A broker has heard of this client for the first time on its present connection.
    fn heartbeat_heard(&self, _address: &Arc<str>) {}

    /// Brokers say that the members of this group have changed.
    fn members_changed(&self) {}

    /// Comes every offset interval.
    fn offsets_due(&self, _now: Instant) {}
}

/// Tells members of one client apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MemberKey {
    /// A producer of this group.
    Producer(Arc<str>),
    /// A consumer of this group.
    Consumer(Arc<str>),
}
