//! From a window to the listener and back: delivery, the pool of workers, listeners, retries, send-back.

use std::sync::Arc;
use std::time::Instant;

use crate::consumer::pull::request::ConsumeRequest;
use crate::consumer::pull::window::PullWindow;

pub(crate) mod concurrent;
pub(crate) mod listener;
pub(crate) mod pool;
pub(crate) mod retry;
mod send_back;
mod settle;

/// Delivery of pulled messages to the user: the one thing in which consumers differ for the threads that serve them.
///
/// Called on service threads: nothing here may block.
pub(crate) trait Delivery: Send + Sync {
    /// Takes messages that were put into a window. One that comes after [`Self::close`] is left to the broker.
    fn deliver(self: Arc<Self>, window: &Arc<PullWindow>, request: Arc<ConsumeRequest>);

    /// Looks after messages that wait or run for long. Comes every offset interval.
    fn look_after(self: Arc<Self>, now: Instant);

    /// Begins nothing more.
    fn close(&self);
}
