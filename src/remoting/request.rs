//! Requests before they are bound to a connection, and their encoding.
//!
//! [`Shared::write_head`] is the one place where a request becomes bytes: calls, one-way requests and probes go through
//! it. A signature covers the fields and the body that are written there. Runs on callers' threads and on
//! `rmq-remoting`.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::connection::Connection;
use super::outbox::OutgoingFrame;
use super::pending::CallError;
use super::{Remoting, Shared, refused};
use crate::error::ErrorKind;
use crate::logging::debug;
use crate::wire::frame::command::FrameHead;
use crate::wire::{self, ExtFields, FieldSink, HeaderEncoding, HeaderFields, RequestCode};

/// An encoding buffer larger than this is not kept by its thread.
const KEPT_SCRATCH: usize = 64 * 1024;

/// Request before it is bound to a connection. Its header is written straight into the bytes to send.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) code: RequestCode,
    pub(crate) header: &'a dyn HeaderFields,
    pub(crate) body: &'a Bytes,
}

impl<'a> Request<'a> {
    /// Creates a request without a body.
    pub(crate) fn new(code: RequestCode, header: &'a dyn HeaderFields) -> Self {
        static NO_BODY: Bytes = Bytes::new();
        Self { code, header, body: &NO_BODY }
    }

    pub(crate) fn with_body(self, body: &'a Bytes) -> Self {
        Self { body, ..self }
    }
}

/// Request as bytes, with the connection that it was encoded for. It keeps its opaque if it moves to another one.
pub(crate) struct EncodedRequest {
    pub(super) connection: Arc<Connection>,
    pub(super) head: Scratch,
    pub(super) body: Bytes,
    pub(super) opaque: i32,
}

impl Remoting {
    /// Encodes a request for the connection to `address`, which is created if there is none. Nothing that the request
    /// was made of is needed afterwards.
    pub(crate) fn encode(
        &self,
        address: &Arc<str>,
        request: Request<'_>,
        oneway: bool,
    ) -> Result<EncodedRequest, CallError> {
        let mut head = Scratch::of_this_thread();
        let encoding = self.shared.encoding_for(request.code);
        let opaque = self.shared.write_head(&request, encoding, oneway, &mut head.0).map_err(|error| {
            let detail = format!("encoding a request to {address} failed: {error}");
            CallError { source: Some(Arc::new(error)), ..refused(address, ErrorKind::InvalidMessage, &detail) }
        })?;
        let connection = self.shared.connection_to(address)?;
        Ok(EncodedRequest { connection, head, body: request.body.clone(), opaque })
    }
}

impl Shared {
    /// Appends the frame of a request, up to its body, to `out`. Returns the request's opaque, which is a new one.
    pub(super) fn write_head(
        &self,
        request: &Request<'_>,
        encoding: HeaderEncoding,
        oneway: bool,
        out: &mut Vec<u8>,
    ) -> Result<i32, wire::Error> {
        // Unique among this client's requests before 2³² more.
        let opaque = self.next_opaque.fetch_add(1, Ordering::Relaxed);
        let head = FrameHead::request(encoding, request.code, opaque, oneway);
        head.encode(request.header, request.body.len(), out)?;
        Ok(opaque)
    }

    /// Asks the peer for the route of a topic that always exists: name servers respond with it, brokers refuse, both at
    /// once. No caller waits for the response: any whole frame is a sign of life. Returns the opaque of the probe.
    ///
    /// Called on `rmq-remoting`, which looks at the connection afterwards.
    pub(super) fn probe(&self, connection: &Connection) -> Option<i32> {
        debug!("probe of {}", connection.address());
        let mut fields = ExtFields::new();
        fields.text("topic", "TBW102");
        let request = Request::new(RequestCode::GET_ROUTEINFO_BY_TOPIC, &fields);
        let mut frame = Vec::new();
        // In JSON, where `Liveness` finds the opaque of the response in a frame of wrong length.
        let opaque = self.write_head(&request, HeaderEncoding::Json, false, &mut frame).ok()?;
        connection.append(&OutgoingFrame::encoded(&frame));
        Some(opaque)
    }

    /// Returns the configured encoding if it can carry `code`: a binary header has no room for the codes of 5.x that
    /// are larger than an `i16`.
    fn encoding_for(&self, code: RequestCode) -> HeaderEncoding {
        if i16::try_from(code.0).is_ok() { self.config.encoding } else { HeaderEncoding::Json }
    }
}

/// Encoding buffer, reused by a thread for one request after the other.
pub(super) struct Scratch(pub(super) Vec<u8>);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Scratch {
    fn of_this_thread() -> Self {
        // A thread-local that sends while its thread ends may find that this one has been dropped before it.
        let mut bytes = SCRATCH.try_with(RefCell::take).unwrap_or_default();
        bytes.clear();
        Self(bytes)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.0.capacity() <= KEPT_SCRATCH {
            // An ending thread has no place for it any more.
            let _ = SCRATCH.try_with(|scratch| scratch.replace(std::mem::take(&mut self.0)));
        }
    }
}
