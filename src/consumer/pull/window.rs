//! Pull windows: the process queue of one owned queue as its threads share it.
//!
//! Shared by `rmq-pull`, workers, the timer and completions; the lock is short and a leaf.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::message::MessageQueue;

use crate::consumer::pull::event::Epoch;
use crate::consumer::pull::process_queue::ProcessQueue;

/// Messages of one queue that were pulled and are not resolved.
#[derive(Debug)]
pub(crate) struct PullWindow {
    pub(crate) queue: MessageQueue,
    pub(crate) epoch: Epoch,
    pub(crate) messages: Mutex<ProcessQueue>,
    /// Messages that the next pull may ask for: fewer after a reply that was too long.
    batch_limit: AtomicUsize,
}

impl PullWindow {
    pub(crate) fn new(queue: MessageQueue, epoch: Epoch, offset: i64) -> Arc<Self> {
        let messages = Mutex::new(ProcessQueue::new(offset));
        Arc::new(Self { queue, epoch, messages, batch_limit: AtomicUsize::new(usize::MAX) })
    }

    /// Messages to ask for with one pull, `most` at most.
    pub(super) fn batch(&self, most: usize) -> usize {
        self.batch_limit.load(Ordering::Relaxed).min(most)
    }

    /// Shrinks the batch after a reply that was too long.
    pub(super) fn shrink_batch(&self, most: usize) {
        self.batch_limit.store((self.batch(most) / 8).max(1), Ordering::Relaxed);
    }

    /// Grows a batch that was shrunk by one, if `pulled` messages filled it.
    pub(super) fn grow_batch(&self, most: usize, pulled: usize) {
        let batch = self.batch(most);
        if batch < most && pulled >= batch {
            self.batch_limit.store(batch + 1, Ordering::Relaxed);
        }
    }
}
