//! Options of the layer, fixed when a client starts. A value: no thread, no I/O.

use std::sync::Arc;
use std::time::Duration;

use super::resolver::{AddressMap, Resolve};
use super::transport::MakeTransport;
use crate::wire::HeaderEncoding;

/// Options of a [`Remoting`](super::Remoting), chosen by the layer above.
#[derive(Clone)]
pub(crate) struct RemotingConfig {
    /// Limit of a dial: of resolving, and of connecting with the transport's handshake.
    pub(crate) connect_timeout: Duration,
    /// Time without a whole frame after which a peer that owes a response is probed. After half of it without a frame
    /// the connection is closed (`liveness.rs`).
    pub(crate) silence_limit: Duration,
    /// Longest frame that is read, including its four bytes of length.
    pub(crate) max_frame_length: usize,
    /// Bytes that may wait for one socket before callers wait too.
    pub(crate) outbox_limit: usize,
    /// Bytes that may wait for one socket before asynchronous requests are refused.
    pub(crate) completions_outbox_limit: usize,
    pub(crate) encoding: HeaderEncoding,
    pub(crate) resolve: Arc<dyn Resolve>,
    /// Called on the resolver's threads, at each dial.
    pub(crate) address_map: Option<Arc<AddressMap>>,
    /// Addresses that the map does not apply to.
    pub(crate) unmapped: Vec<Arc<str>>,
    pub(crate) transport: Arc<MakeTransport>,
}

impl RemotingConfig {
    /// True if the address to dial for `address` comes from the address map.
    pub(super) fn maps(&self, address: &str) -> bool {
        self.address_map.is_some() && !self.unmapped.iter().any(|unmapped| **unmapped == *address)
    }
}
