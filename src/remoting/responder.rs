//! Responses to requests of brokers, from any thread.
//!
//! A broker's request reaches the layer above together with its [`Responder`]. Responding consumes it, so that a
//! request is answered at most once. Dropped without a response, as by a handler that unwinds, it responds with an
//! error: the broker does not wait for its own timeout. It never blocks: a response that finds no room in the outbox is
//! dropped.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::Shared;
use super::connection::{Appended, Connection};
use super::mailbox::Command;
use super::outbox::OutgoingFrame;
use crate::logging::{debug, warn};
use crate::wire::{ExtFields, RemotingCommand, ResponseCode};

/// Limit of a peer's requests that wait for their responses. They wait on other threads: a peer that asks faster than
/// these respond must not fill the memory.
pub(super) const MOST_UNANSWERED: usize = 1024;

/// Right to respond to one request of a peer.
pub(crate) struct Responder {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    /// Request without its fields and body.
    request: RemotingCommand,
    /// False for a one-way request, and after the response.
    expects_response: bool,
}

impl Responder {
    /// Called on `rmq-remoting`.
    pub(super) fn new(shared: &Arc<Shared>, connection: &Arc<Connection>, request: &RemotingCommand) -> Self {
        connection.request_began();
        Self {
            shared: Arc::clone(shared),
            connection: Arc::clone(connection),
            request: RemotingCommand { remark: None, ext_fields: ExtFields::new(), body: Bytes::new(), ..*request },
            expects_response: !request.is_oneway(),
        }
    }

    /// True if the peer has more unanswered requests than it may have.
    pub(super) fn is_one_too_many(&self) -> bool {
        self.connection.unanswered() > MOST_UNANSWERED
    }

    /// Address of the peer, as in the routes.
    pub(crate) fn address(&self) -> &Arc<str> {
        self.connection.address()
    }

    /// Responds on the connection of the request, in the encoding of the request. Has no effect for a one-way request,
    /// or if the connection has ended: the peer has forgotten the request.
    pub(crate) fn respond(mut self, code: ResponseCode, remark: Option<String>, body: Bytes) {
        self.send(code, remark, body);
    }

    fn send(&mut self, code: ResponseCode, remark: Option<String>, body: Bytes) {
        if !std::mem::take(&mut self.expects_response) {
            return;
        }
        let response = RemotingCommand::response_to(&self.request, code, remark).with_body(body);
        let (code, address) = (self.request.request_code(), self.connection.address());
        let mut frame = Vec::new();
        if let Err(error) = response.encode(&mut frame) {
            return warn!("response to {code} of {address} failed: {error}; the broker gets none");
        }
        match self.connection.append(&OutgoingFrame::encoded(&frame)) {
            Appended::Accepted { announce: true } => self.shared.mailbox.send(Command::Look(self.connection.token())),
            Appended::Accepted { announce: false } => {}
            Appended::Full => debug!("response to {code} of {address} dropped: the outbox is full"),
            Appended::Closed => debug!("response to {code} of {address} dropped: the connection is closed"),
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.expects_response {
            let remark = format!("the client dropped the request {}", self.request.request_code());
            self.send(ResponseCode::SYSTEM_ERROR, Some(remark), Bytes::new());
        }
        self.connection.request_ended();
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("address", self.address())
            .field("code", &self.request.request_code())
            .finish_non_exhaustive()
    }
}
