//! Vocabulary of the queue table: what happened ([`Event`], [`RequestAnswer`]) and what to do ([`Action`], [`Report`]). Pure.

use std::sync::Arc;

use crate::message::MessageQueue;
use crate::wire::ResponseCode;

use crate::consumer::pull::flow::FlowControl;
use crate::consumer::start::{Bound, StartDecision};

/// Names the life of one window of a queue; no two windows of a table share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Epoch(pub(crate) u64);

/// Names one request sent for a row; no two requests of a table share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestTicket(pub(super) u64);

/// Event of the queue table.
#[derive(Debug)]
pub(crate) enum Event {
    /// The rebalance gave us these queues.
    Assigned(Vec<MessageQueue>),
    /// The rebalance took these queues from us.
    Revoked(Vec<MessageQueue>),
    /// A request that an action asked for has its answer, or has none for sure.
    Answered { queue: MessageQueue, ticket: RequestTicket, answer: RequestAnswer },
    /// A pull was not sent, because the window is full.
    WindowFull { queue: MessageQueue, ticket: RequestTicket, reason: FlowControl },
    /// The window has room again, or the row should be looked at for another reason.
    Hint { queue: MessageQueue, epoch: Epoch },
    /// Pull nothing until further notice.
    Paused,
    /// Pull again.
    Resumed,
    /// A deadline has passed, or nothing in particular.
    Tick,
}

/// The answer to a request for a row.
#[derive(Clone, Debug)]
pub(crate) enum RequestAnswer {
    /// The broker has this offset for the group.
    Stored(i64),
    /// The broker says that it has no offset for the group.
    NotStored,
    /// The least or the greatest offset of the queue, or the one for a time, as it was asked.
    Offset(i64),
    /// A pull came back.
    Pulled(Pulled),
    /// No usable answer.
    Failed(RequestFailure),
}

impl RequestAnswer {
    /// The answer to QUERY_CONSUMER_OFFSET. Only QUERY_NOT_FOUND means that there is no offset; anything else that is not
    /// an offset must not look like a group that has never been here, or a restarted broker would send it to the
    /// beginning or the end of its queues.
    pub(crate) fn to_offset_query(result: Result<i64, RequestFailure>) -> Self {
        match result {
            Ok(offset) if offset >= 0 => Self::Stored(offset),
            Ok(offset) => {
                Self::Failed(RequestFailure::new(None, format!("the broker says the group's offset is {offset}")))
            }
            Err(failure) if failure.code == Some(ResponseCode::QUERY_NOT_FOUND) => Self::NotStored,
            Err(failure) => Self::Failed(failure),
        }
    }

    /// The answer to a question about the bounds of a queue, or about an offset by time.
    pub(crate) fn to_bound_query(result: Result<i64, RequestFailure>) -> Self {
        match result {
            Ok(offset) if offset >= 0 => Self::Offset(offset),
            Ok(offset) => Self::Failed(RequestFailure::new(None, format!("the broker says an offset is {offset}"))),
            Err(failure) => Self::Failed(failure),
        }
    }
}

/// Result of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pulled {
    /// Status that the broker returned.
    pub(crate) status: PullStatus,
    /// Offset at which the next pull begins, by the broker.
    pub(crate) next_begin_offset: i64,
    /// The broker id to pull from next: 0 for the master.
    pub(crate) suggested_broker_id: i64,
    /// True if a master answered.
    pub(crate) from_master: bool,
}

/// Status of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PullStatus {
    /// Messages; they were put into the window before the table gets this, or all of them were filtered out.
    Found,
    /// Nothing after the offset, for as long as the broker held the pull.
    NoNewMessage,
    /// Messages, but none that the subscription wants.
    NoMatchedMessage,
    /// The offset is outside of the queue.
    OffsetIllegal {
        /// True if the remark is OFFSET_RESET: an administrator has set the group's offset (5.x).
        reset: bool,
    },
}

/// Failure of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestFailure {
    /// Response code, if the broker answered.
    pub(crate) code: Option<ResponseCode>,
    /// Text for the log.
    pub(crate) text: Arc<str>,
    /// The broker cannot be reached or does not answer, which is the same for all its queues.
    pub(crate) is_outage: bool,
}

impl RequestFailure {
    pub(crate) fn new(code: Option<ResponseCode>, text: impl Into<Arc<str>>) -> Self {
        Self { code, text: text.into(), is_outage: false }
    }

    pub(crate) fn outage(text: impl Into<Arc<str>>) -> Self {
        Self { code: None, text: text.into(), is_outage: true }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.code == Some(ResponseCode::FLOW_CONTROL)
    }
}

/// Action that the table asks for. Each of the first three ends in an [`Event::Answered`] with its ticket, if nothing gets lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask the queue's broker for the group's offset.
    QueryStoredOffset { queue: MessageQueue, ticket: RequestTicket },
    /// Ask the queue's *master* for a bound of the queue; never a slave, which may be behind.
    QueryBound { queue: MessageQueue, ticket: RequestTicket, bound: Bound },
    /// If the window is full, answer with [`Event::WindowFull`]; else pull, with the window's offset to commit riding on
    /// the request when a master is asked.
    Pull { queue: MessageQueue, ticket: RequestTicket, epoch: Epoch, offset: i64, broker_id: i64 },
    /// Make a window for the queue that begins at `offset`, and let the offset store begin there.
    OpenWindow { queue: MessageQueue, epoch: Epoch, offset: i64, decision: StartDecision },
    /// The broker has no messages before `offset` any more: let the window pass over them, and store its offset soon.
    MoveWindow { queue: MessageQueue, epoch: Epoch, offset: i64 },
    /// Close the window without storing its offset, make one that begins at `offset`, and store this offset although the
    /// group may have been further already.
    ReplaceWindow { queue: MessageQueue, epoch: Epoch, offset: i64 },
    /// Close the window, and store its last offset.
    CloseWindow { queue: MessageQueue, epoch: Epoch },
    /// Log something.
    Report(Report),
}

/// Report for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// A queue begins to be pulled.
    Started { queue: MessageQueue, offset: i64, decision: StartDecision },
    /// Requests for a queue fail; reported for the 1st, 2nd, 4th, 8th ... time in a row, so that logs stay short.
    Failing { queue: MessageQueue, doing: &'static str, failures: u32, failure: RequestFailure },
    /// They succeed again.
    Recovered { queue: MessageQueue, failures: u32 },
    /// The broker refused the offset `from`; the queue holds `least` to `greatest`, and pulling goes on at `to`.
    OffsetCorrected { queue: MessageQueue, from: i64, to: i64, least: i64, greatest: i64 },
    /// A request for a queue got neither an answer nor a failure in time and was sent again.
    Overdue { queue: MessageQueue, doing: &'static str },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::vectors::vectors;

    /// OFFSET-002.
    #[test]
    fn off_03_only_query_not_found_means_that_there_is_no_offset() {
        assert_eq!(vectors("OFFSET-002")[0]["expected"], -1);
        let answer = |code: i32| RequestAnswer::to_offset_query(Err(RequestFailure::new(Some(ResponseCode(code)), "")));
        for code in 0..300 {
            assert_eq!(matches!(answer(code), RequestAnswer::NotStored), code == 22, "{code}");
        }
        assert!(matches!(
            RequestAnswer::to_offset_query(Err(RequestFailure::new(None, "lost"))),
            RequestAnswer::Failed(_)
        ));
    }
}
