//! The member that a client holds of a producer.

use std::sync::Arc;

use crate::client::member::{Member, MemberId, MemberKey};
use crate::producer::send::MessageSender;
use crate::wire::body::{HeartbeatData, ProducerData};

/// Group and topics of one producer, for heartbeats and refreshes of routes.
#[derive(Debug)]
pub(super) struct ProducerMember {
    pub(super) id: MemberId,
    pub(super) group: Arc<str>,
    pub(super) sender: Arc<MessageSender>,
}

impl Member for ProducerMember {
    fn id(&self) -> MemberId {
        self.id
    }

    fn key(&self) -> MemberKey {
        MemberKey::Producer(Arc::clone(&self.group))
    }

    fn describe(&self, heartbeat: &mut HeartbeatData) {
        heartbeat.producer_data_set.push(ProducerData { group_name: self.group.to_string() });
    }

    fn topics(&self) -> Vec<Arc<str>> {
        self.sender.topics()
    }

    fn forget_idle_topics(&self) {
        self.sender.forget_idle_topics();
    }
}
