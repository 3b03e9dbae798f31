//! Flow control: the limits of a window, and the reasons why it takes no further messages. Pure.

use std::fmt;

/// Limits of a window above which pulling pauses: each may be reached, not passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowLimits {
    /// Unresolved messages (`pullThresholdForQueue`).
    pub(crate) messages: usize,
    /// Bytes that they hold in memory, as they came (`pullThresholdSizeForQueue`): a reply counts as a whole until all of
    /// its messages are resolved.
    pub(crate) bytes: usize,
    /// Offsets from the first to the last unresolved message (`consumeConcurrentlyMaxSpan`).
    pub(crate) span: i64,
}

impl Default for FlowLimits {
    /// The Java client's: 1000 messages, 100 MiB, 2000 offsets.
    fn default() -> Self {
        Self { messages: 1000, bytes: 100 * 1024 * 1024, span: 2000 }
    }
}

/// Why a window takes no further messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FlowControl {
    /// Too many messages.
    Messages {
        /// Unresolved messages.
        cached: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many bytes.
    Bytes {
        /// Bytes that the unresolved messages hold.
        cached: usize,
        /// The limit.
        limit: usize,
    },
    /// An old message is unresolved while many later ones came.
    Span {
        /// Offsets from the first to the last unresolved message.
        span: i64,
        /// The limit.
        limit: i64,
    },
}

impl fmt::Display for FlowControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages { cached, limit } => write!(f, "{cached} messages are unresolved, more than {limit}"),
            Self::Bytes { cached, limit } => {
                write!(f, "unresolved messages hold {cached} bytes of replies, more than {limit}")
            }
            Self::Span { span, limit } => {
                write!(f, "the first and the last unresolved message are {span} offsets apart, more than {limit}")
            }
        }
    }
}
