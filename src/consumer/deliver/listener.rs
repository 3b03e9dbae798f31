//! What users write: listeners, and the context in which they are called.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::message::{MessageExt, MessageQueue};
use crate::repeats::Repeats;

use crate::consumer::deliver::retry::RetryDelay;

/// What a listener says of the messages it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConsumeStatus {
    /// They are consumed; [`ConsumeContext::acknowledge_first`] can leave out the last ones.
    Success,
    /// They are to be delivered again later.
    RetryLater,
}

/// Consumes messages, several at a time on different threads, in no order.
///
/// Fitting closures are listeners. A listener that panics has failed: its messages are delivered again.
pub trait ConcurrentListener: Send + Sync + 'static {
    /// Consumes a batch of at most [`consume_batch`](crate::consumer::PushConsumerBuilder::consume_batch) messages of one queue.
    fn consume(&self, messages: &[MessageExt], context: &mut ConsumeContext) -> ConsumeStatus;
}

impl<F> ConcurrentListener for F
where
    F: Fn(&[MessageExt], &mut ConsumeContext) -> ConsumeStatus + Send + Sync + 'static,
{
    fn consume(&self, messages: &[MessageExt], context: &mut ConsumeContext) -> ConsumeStatus {
        self(messages, context)
    }
}

/// Where a batch comes from, and what is to become of the part of it that fails.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConsumeContext {
    /// The queue that the messages were pulled from; for a message that was delivered before, one of the group's retry
    /// topic.
    pub queue: MessageQueue,
    /// When messages that fail are delivered again. Default: after a time that grows with each failure. (Java:
    /// `delayLevelWhenNextConsume`)
    pub retry_delay: RetryDelay,
    acknowledged: usize,
}

impl ConsumeContext {
    pub(crate) fn new(queue: MessageQueue) -> Self {
        Self { queue, retry_delay: RetryDelay::Growing, acknowledged: usize::MAX }
    }

    /// Of a batch that returns [`ConsumeStatus::Success`], only the first `count` messages are consumed; the others are
    /// delivered again. (Java: `ackIndex`, which is one less)
    pub fn acknowledge_first(&mut self, count: usize) {
        self.acknowledged = count;
    }

    /// How many messages, from the first on, are consumed.
    pub(crate) fn consumed(&self, status: ConsumeStatus, messages: usize) -> usize {
        match status {
            ConsumeStatus::Success => self.acknowledged.min(messages),
            ConsumeStatus::RetryLater => 0,
        }
    }
}

/// Makes a listener of a function for one message, whose error is the reason of a retry. Its batches must be of one
/// message: they have one verdict.
pub(crate) fn each<F, E>(consume: F) -> impl ConcurrentListener
where
    F: Fn(&MessageExt) -> Result<(), E> + Send + Sync + 'static,
    E: fmt::Display,
{
    let failures = Repeats::default();
    move |messages: &[MessageExt], context: &mut ConsumeContext| {
        for message in messages {
            if let Err(error) = consume(message) {
                if let Some(times) = failures.note("listener", Instant::now()) {
                    let (id, queue) = (message.msg_id(), &context.queue);
                    crate::logging::warn!("message {id} of {queue} will be retried ({times} failures so far): {error}");
                }
                return ConsumeStatus::RetryLater;
            }
        }
        ConsumeStatus::Success
    }
}

/// The listener a consumer runs.
pub(crate) type Listener = Arc<dyn ConcurrentListener>;
