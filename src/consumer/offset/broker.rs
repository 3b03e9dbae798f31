//! Offsets as the brokers keep them: the back end of a clustered group, behind [`OffsetDriver`].
//!
//! Asynchronous; answers come on `rmq-remoting`, or at once on the caller's thread if no master is known.
//!
//! [`OffsetDriver`]: crate::consumer::offset::driver::OffsetDriver

use std::sync::Arc;

use crate::client::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::message::MessageQueue;

/// Offsets of one group at the masters of its queues.
pub(super) struct BrokerOffsets {
    core: Arc<Core>,
    group: Arc<str>,
}

impl BrokerOffsets {
    pub(super) fn new(core: Arc<Core>, group: Arc<str>) -> Self {
        Self { core, group }
    }

    /// Reads the group's offset with QUERY_CONSUMER_OFFSET; `None` only if the broker says that there is none.
    pub(super) fn read(&self, queue: &MessageQueue, then: impl FnOnce(Result<Option<i64>>) + Send + 'static) {
        match self.master(queue) {
            Ok(master) => self.core.query_consumer_offset(&master, &self.group, queue, then),
            Err(error) => {
                self.core.refresh_suspected_route(&queue.topic);
                then(Err(error));
            }
        }
    }

    /// Stores an offset with UPDATE_CONSUMER_OFFSET, and waits for the answer.
    pub(super) fn commit(&self, queue: &MessageQueue, offset: i64, then: impl FnOnce(Result<()>) + Send + 'static) {
        match self.master(queue) {
            Ok(master) => self.core.update_consumer_offset(&master, &self.group, queue, offset, then),
            Err(error) => then(Err(error)),
        }
    }

    /// True if the queue is no longer in its topic's route, and its offset may be lost with its broker.
    pub(super) fn has_lost(&self, queue: &MessageQueue) -> bool {
        let route = self.core.routes.known(&queue.topic);
        route.is_none_or(|route| !route.subscribe.contains(queue))
    }

    fn master(&self, queue: &MessageQueue) -> Result<Arc<str>> {
        let unknown = || Error::new(ErrorKind::Connect, format!("no master of broker {} is known", queue.broker_name));
        self.core.routes.master_of(queue).ok_or_else(unknown)
    }
}
