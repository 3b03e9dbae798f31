//! Status of an owned queue, for users and operators. Pure; filled by the row of the queue table.

use std::fmt;
use std::time::Instant;

use crate::message::MessageQueue;

use crate::consumer::start::StartDecision;

/// State of a queue that a consumer owns. Each state ends by itself, at a deadline at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueueState {
    /// The offset at which to pull is being asked for, at the start or after the broker refused one.
    QueryingOffset,
    /// A pull is at the broker, which holds it until there is a message.
    Pulling,
    /// Not pulled, because too many messages are not consumed yet.
    FlowControlled,
    /// Not pulled, because the consumer is paused.
    Paused,
    /// Not pulled for a while after a failure.
    BackingOff,
}

/// Answer to "why is this queue not consumed?": what happens to an owned queue, since when, and why.
///
/// `Display` gives one sentence for people; its wording may change.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueueStatus {
    pub(super) queue: MessageQueue,
    pub(super) state: QueueState,
    pub(super) since: Instant,
    pub(super) asked_at: Instant,
    pub(super) reason: Option<String>,
    pub(super) next_step: Option<&'static str>,
    pub(super) deadline: Instant,
    pub(super) next_offset: Option<i64>,
    pub(super) failures: u32,
    pub(super) unanswered: u32,
    pub(super) start: Option<StartDecision>,
    pub(super) broker_release: Option<String>,
}

impl QueueStatus {
    pub(crate) fn with_broker_release(self, broker_release: Option<String>) -> Self {
        Self { broker_release, ..self }
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &MessageQueue {
        &self.queue
    }

    /// Its state.
    #[must_use]
    pub fn state(&self) -> QueueState {
        self.state
    }

    /// Beginning of the state.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Latest end of the state: the next try after a failure, or the time at which a lost answer is noticed.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Reason why the queue is not being pulled, in words; `None` while it is, and while the consumer is paused.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Offset of the next pull; `None` before the start is known.
    #[must_use]
    pub fn next_offset(&self) -> Option<i64> {
        self.next_offset
    }

    /// Requests for the queue that failed in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Requests for the queue that had no answer in time, since it is owned.
    #[must_use]
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Release of the broker, such as `V5_5_0`; `None` before its first heartbeat answer.
    #[must_use]
    pub fn broker_release(&self) -> Option<&str> {
        self.broker_release.as_deref()
    }
}

impl fmt::Display for QueueStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, .. } = self;
        let lasting = self.asked_at.saturating_duration_since(self.since);
        let left = self.deadline.saturating_duration_since(self.asked_at);
        let reason = self.reason.as_deref().unwrap_or_default();
        match self.state {
            QueueState::QueryingOffset => write!(f, "{queue} is not pulled yet: {reason} for {lasting:.1?}")?,
            QueueState::Pulling => {
                let offset = self.next_offset.unwrap_or_default();
                write!(f, "{queue} is being pulled from offset {offset} for {lasting:.1?}")?;
            }
            QueueState::FlowControlled => {
                write!(f, "{queue} is not pulled for {lasting:.1?}, because its listeners are behind: {reason}")?;
            }
            QueueState::Paused => write!(f, "{queue} is not pulled, because the consumer is paused")?,
            QueueState::BackingOff => {
                let next_step = self.next_step.unwrap_or_default();
                write!(f, "{queue} is not pulled: {reason}; {next_step} again in {left:.1?}")?;
            }
        }
        if self.failures > 1 {
            write!(f, "; {} failures in a row", self.failures)?;
        }
        if self.unanswered > 0 {
            write!(f, "; {} requests got no answer in time", self.unanswered)?;
        }
        if let Some(start) = self.start {
            write!(f, "; where it began: {start}")?;
        }
        if let Some(release) = &self.broker_release {
            write!(f, "; {} runs {release}", queue.broker_name())?;
        }
        Ok(())
    }
}
