//! Events for the thread `rmq-pull`.

use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::client::member::MemberId;
use crate::message::MessageQueue;
use crate::remoting::Outcome;

use crate::consumer::deliver::Delivery;
use crate::consumer::group::ConsumerGroup;
use crate::consumer::pull::event::{Epoch, RequestAnswer, RequestTicket};
use crate::consumer::pull::status::QueueStatus;
use crate::consumer::pull::window::PullWindow;

/// Event for the thread. Consumers are named by their ids: one that is late for a consumer that has ended finds no table,
/// whatever the next consumer of the group is.
pub(crate) enum PullEvent {
    /// The consumer begins, with an empty table.
    Begin {
        group: Arc<ConsumerGroup>,
        delivery: Arc<dyn Delivery>,
    },
    /// The rebalance gave or took queues.
    Assigned {
        consumer: MemberId,
        queues: Vec<MessageQueue>,
    },
    Revoked {
        consumer: MemberId,
        queues: Vec<MessageQueue>,
    },
    /// A window has room, or something else makes a look worth while.
    Hint {
        consumer: MemberId,
        queue: MessageQueue,
        epoch: Epoch,
    },
    /// A question of a table has its answer.
    Answered {
        consumer: MemberId,
        queue: MessageQueue,
        ticket: RequestTicket,
        answer: RequestAnswer,
    },
    /// A pull came back.
    PullReply {
        consumer: MemberId,
        pull: SentPull,
        outcome: Outcome,
    },
    /// Pull nothing for the consumer, or pull again.
    Pause(MemberId),
    Resume(MemberId),
    /// Answer with the status of a queue.
    Status {
        consumer: MemberId,
        queue: MessageQueue,
        answer: Sender<Option<QueueStatus>>,
    },
    /// The consumer pulls no more; `done` is dropped when that is so.
    End {
        consumer: MemberId,
        done: Sender<()>,
    },
    /// The thread panics.
    #[cfg(test)]
    Fault,
}

/// A pull that was sent.
pub(crate) struct SentPull {
    pub(super) window: Arc<PullWindow>,
    pub(super) ticket: RequestTicket,
    /// The first offset that it asks for.
    pub(super) offset: i64,
    pub(super) from_master: bool,
    /// The offset that rode on it.
    pub(super) committed: Option<i64>,
}
