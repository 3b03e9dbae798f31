//! Start of a queue: the policy for a queue of which its broker has no offset of the group, and the reason of each start.
//!
//! Pure; the queue table asks.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::message::MessageQueue;

/// Start of a group in a queue for which the broker has no offset of it.
///
/// A group that has an offset continues there, whatever is configured here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumeFromWhere {
    /// At the end: what was sent before the group's first start is not consumed. Queues that the topic gets later are
    /// read from what was stored since the start, by the clocks of this machine and of the broker. A broker may have
    /// another view: for a queue that is young, many say the group's offset is 0 where there is none.
    #[default]
    Last,
    /// At the oldest message that is left.
    First,
    /// At the first message stored at or after this time.
    Timestamp(SystemTime),
}

/// Questions asked within this time after a consumer's beginning belong to it.
pub(crate) const FIRST_MOMENTS: Duration = Duration::from_secs(1);

/// An offset of a queue for which its broker must be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Of the oldest message.
    Least,
    /// After the newest message.
    Greatest,
    /// Of the first message stored at or after this time, in milliseconds since 1970.
    AtTime(i64),
}

/// Reason for the start offset of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartDecision {
    /// The broker had this offset for the group.
    Stored,
    /// There was none; the policy, or the nature of a retry topic, asked for this bound.
    Chosen(Bound),
    /// It was corrected, or set by an administrator.
    Corrected,
}

impl fmt::Display for StartDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stored => "the broker has this offset for the group",
            Self::Chosen(Bound::Least) => "the group has no offset: begins with the oldest message",
            Self::Chosen(Bound::Greatest) => "the group has no offset: begins after the newest message",
            Self::Chosen(Bound::AtTime(_)) => "the group has no offset: begins with what was stored since a time",
            Self::Corrected => "the offset before was outside of the queue, or was reset",
        })
    }
}

#[derive(Debug)]
pub(crate) struct StartPolicy {
    retry_topic: Arc<str>,
    consume_from: ConsumeFromWhere,
    began: Option<Beginning>,
}

/// When a consumer began, by both clocks.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    at: Instant,
    millis_since_1970: i64,
}

impl StartPolicy {
    /// Policy of a consumer. `retry_topic` is the group's own, which always begins with its oldest message.
    pub(crate) fn new(retry_topic: Arc<str>, consume_from: ConsumeFromWhere) -> Self {
        Self { retry_topic, consume_from, began: None }
    }

    /// The same for a consumer that begins `now`, which other machines call `millis_since_1970`.
    pub(crate) fn beginning(mut self, now: Instant, millis_since_1970: i64) -> Self {
        self.began = Some(Beginning { at: now, millis_since_1970 });
        self
    }

    /// The bound at which to begin without an offset of the group. A retry topic holds nothing but the group's own messages, so none of
    /// them may be skipped, whatever the policy says.
    ///
    /// "The last offset" is that of the consumer's beginning. In a queue that comes later (the topic has got more of them,
    /// or was created) messages wait that were sent since, and no other member will read them.
    pub(crate) fn bound(&self, queue: &MessageQueue, now: Instant) -> Bound {
        if queue.topic == self.retry_topic {
            return Bound::Least;
        }
        match self.consume_from {
            ConsumeFromWhere::First => Bound::Least,
            ConsumeFromWhere::Last => match self.began.filter(|began| now > began.at + FIRST_MOMENTS) {
                Some(began) => Bound::AtTime(began.millis_since_1970),
                None => Bound::Greatest,
            },
            ConsumeFromWhere::Timestamp(time) => {
                let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                Bound::AtTime(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
        }
    }
}
