//! A producer or consumer as its client holds it: named in heartbeats, with topics to refresh, and notified of changes.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::route::TopicRoute;
use crate::wire::body::HeartbeatData;

/// A running producer or consumer. All calls come from the client's threads and must not block.
pub(crate) trait Member: Send + Sync {
    /// Identity within the client, from [`Core::new_member_id`](super::Core::new_member_id).
    fn id(&self) -> MemberId;

    /// Kind and group, which brokers list. Unique among the members of a client that have not ended.
    fn key(&self) -> MemberKey;

    /// Adds itself to a heartbeat.
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

    /// A thread of the client has died: nothing can be received, stored or confirmed any more. Called on that thread.
    fn client_broke(&self) {}

    /// Comes every offset interval.
    fn offsets_due(&self, _now: Instant) {}
}

/// Identity of one life of a member. A group's name is not enough: the next member of the group has the same one, and late
/// events of the member that ended must not reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId(pub(super) u64);

/// The name under which brokers list a member.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MemberKey {
    /// A producer of this group.
    Producer(Arc<str>),
    /// A consumer of this group.
    Consumer(Arc<str>),
}

impl fmt::Display for MemberKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Producer(group) => write!(f, "producer {group}"),
            Self::Consumer(group) => write!(f, "consumer {group}"),
        }
    }
}
