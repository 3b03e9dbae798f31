//! Listeners of users, and the context in which they are called.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use crate::logging::warn;
use crate::message::{MessageExt, MessageQueue};
use crate::repeats::Repeats;

use crate::consumer::deliver::retry::RetryDelay;

/// Verdict of a listener on the messages that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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

/// Context of one call of a listener: the queue of the batch, and the orders for the part of it that fails.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConsumeContext {
    queue: MessageQueue,
    retry_delay: RetryDelay,
    acknowledged: Option<usize>,
}

impl ConsumeContext {
    pub(crate) fn new(queue: MessageQueue) -> Self {
        Self { queue, retry_delay: RetryDelay::Growing, acknowledged: None }
    }

    /// Context for a unit test that calls a listener itself. (Feature `mini-broker`)
    ///
    /// # Examples
    ///
    /// ```
    /// use rocketmq_sync::{ConcurrentListener, ConsumeContext, ConsumeStatus, MessageExt, MessageQueue, RetryDelay};
    ///
    /// let listener = |_: &[MessageExt], context: &mut ConsumeContext| {
    ///     context.set_retry_delay(RetryDelay::Level(1));
    ///     ConsumeStatus::RetryLater
    /// };
    /// let mut context = ConsumeContext::for_test(MessageQueue::new("TopicTest", "broker-a", 0));
    /// assert_eq!(listener.consume(&[], &mut context), ConsumeStatus::RetryLater);
    /// assert_eq!(context.retry_delay(), RetryDelay::Level(1));
    /// ```
    #[cfg(feature = "mini-broker")]
    #[must_use]
    pub fn for_test(queue: MessageQueue) -> Self {
        Self::new(queue)
    }

    /// The queue that the messages were pulled from; for a message that was delivered before, one of the group's retry
    /// topic.
    #[must_use]
    pub fn queue(&self) -> &MessageQueue {
        &self.queue
    }

    /// Delay before messages that fail are delivered again.
    #[must_use]
    pub fn retry_delay(&self) -> RetryDelay {
        self.retry_delay
    }

    /// Sets the delay before messages that fail are delivered again. Default: it grows with each failure. (Java:
    /// `delayLevelWhenNextConsume`)
    pub fn set_retry_delay(&mut self, delay: RetryDelay) {
        self.retry_delay = delay;
    }

    /// Of a batch that returns [`ConsumeStatus::Success`], only the first `count` messages are consumed; the others are
    /// delivered again. (Java: `ackIndex`, which is one less)
    pub fn acknowledge_first(&mut self, count: usize) {
        self.acknowledged = Some(count);
    }

    /// Number that was given to [`acknowledge_first`](Self::acknowledge_first).
    #[must_use]
    pub fn acknowledged(&self) -> Option<usize> {
        self.acknowledged
    }

    /// Number of consumed messages, from the first on.
    pub(crate) fn consumed(&self, status: ConsumeStatus, messages: usize) -> usize {
        match status {
            ConsumeStatus::Success => self.acknowledged.map_or(messages, |count| count.min(messages)),
            ConsumeStatus::RetryLater => 0,
        }
    }
}

/// Makes a listener of a function for one message, whose error is the reason of a retry. Its batches must be of one
/// message: they have one verdict.
pub(crate) fn each(
    consume: impl Fn(&MessageExt) -> Result<(), Box<dyn Error + Send + Sync>> + Send + Sync + 'static,
) -> impl ConcurrentListener {
    let failures = Repeats::default();
    move |messages: &[MessageExt], context: &mut ConsumeContext| {
        for message in messages {
            if let Err(error) = consume(message) {
                if let Some(times) = failures.note("listener", Instant::now()) {
                    let (id, queue) = (message.msg_id(), &context.queue);
                    warn!("consume: message {id} of {queue} failed ({times} failures so far): {error}; retried");
                }
                return ConsumeStatus::RetryLater;
            }
        }
        ConsumeStatus::Success
    }
}

/// Listener of a consumer.
pub(crate) type Listener = Arc<dyn ConcurrentListener>;
