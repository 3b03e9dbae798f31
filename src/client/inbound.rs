//! Events from connections and requests from brokers: connections made and lost, changed groups.
//!
//! Runs on `rmq-remoting`: it must not block.

use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;

use super::Core;
use super::member::MemberKey;
use crate::logging::warn;
use crate::remoting::{RemotingEvents, Responder};
use crate::wire::header::NotifyConsumerIdsChangedRequest;
use crate::wire::{RemotingCommand, RequestCode, ResponseCode};

/// Hands events of the connections to the client, once there is one.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    core: OnceLock<Weak<Core>>,
}

impl Inbound {
    pub(super) fn attach(&self, core: &Arc<Core>) {
        let _ = self.core.set(Arc::downgrade(core));
    }

    fn core(&self) -> Option<Arc<Core>> {
        self.core.get()?.upgrade()
    }
}

impl RemotingEvents for Inbound {
    fn requested(&self, request: RemotingCommand, responder: Responder) {
        match request.request_code() {
            RequestCode::NOTIFY_CONSUMER_IDS_CHANGED => {
                match NotifyConsumerIdsChangedRequest::from_fields(&request.ext_fields) {
                    Ok(header) => {
                        self.members_changed(header.consumer_group);
                        responder.respond(ResponseCode::SUCCESS, None, Bytes::new());
                    }
                    Err(error) => warn!("request of broker {} invalid: {error}", responder.address()),
                }
            }
            code => {
                let remark = format!(" request type {} not supported", code.0);
                responder.respond(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, Some(remark), Bytes::new());
            }
        }
    }

    fn connected(&self, address: &Arc<str>) {
        if let Some(core) = self.core() {
            core.heartbeat_to_reconnected(address);
        }
    }

    fn disconnected(&self, address: &Arc<str>) {
        if let Some(core) = self.core() {
            core.forget_heartbeat(address);
        }
    }
}

impl Inbound {
    fn members_changed(&self, group: &str) {
        let Some(core) = self.core() else { return };
        if let Some(member) = core.member(&MemberKey::Consumer(Arc::from(group))) {
            member.members_changed();
        }
    }
}
