//! The model of a broker: queues with their bounds, one group's offsets, retries with a delay, parked pulls, the list of
//! members. Its answers are correct; the world falsifies and loses them.

use std::collections::BTreeMap;

use crate::consumer::pull::event::PullStatus;
use crate::consumer::start::Bound;
use crate::message::MessageQueue;

/// The most messages that a pull brings.
const PULL_BATCH: usize = 4;

/// A failed message is delivered so often again before it becomes a dead letter.
const MAX_RECONSUME_TIMES: i32 = 4;

/// One message in a queue.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// The same for all copies of a message.
    pub(super) id: usize,
    pub(super) reconsume_times: i32,
    /// True if the subscription wants it.
    pub(super) wanted: bool,
    /// True if the group needs it no more from *this* place: consumed, handed on, or excused.
    pub(super) resolved: bool,
}

#[derive(Debug, Default)]
pub(super) struct BrokerQueue {
    pub(super) log: Vec<Stored>,
    pub(super) least: i64,
    /// The group's offset.
    pub(super) committed: Option<i64>,
    /// An administrator's reset that no pull has fetched yet; commits are ignored until one has.
    pub(super) reset: Option<i64>,
    /// Nothing is appended any more: its end was lost.
    pub(super) truncated: bool,
}

impl BrokerQueue {
    pub(super) fn greatest(&self) -> i64 {
        i64::try_from(self.log.len()).unwrap()
    }

    pub(super) fn at(&mut self, offset: i64) -> Option<&mut Stored> {
        self.log.get_mut(usize::try_from(offset).ok()?)
    }

    /// The first offset whose message the group still needs here.
    pub(super) fn first_unresolved(&self) -> i64 {
        let start = usize::try_from(self.least).unwrap().min(self.log.len());
        let needed = |stored: &Stored| stored.wanted && !stored.resolved;
        let found = self.log[start..].iter().position(needed);
        found.map_or(i64::MAX, |found| i64::try_from(start + found).unwrap())
    }
}

/// Result of a pull.
#[derive(Debug)]
pub(super) enum PullResult {
    RequestAnswer {
        status: PullStatus,
        next: i64,
        messages: Vec<(i64, Stored)>,
    },
    /// There is nothing at that offset yet.
    Hold,
}

/// A pull that waits for a message.
#[derive(Debug)]
pub(super) struct Parked<C> {
    pub(super) call: C,
    pub(super) queue: MessageQueue,
    pub(super) offset: i64,
}

/// `C` names a call in the network.
#[derive(Debug)]
pub(super) struct Broker<C> {
    pub(super) queues: BTreeMap<MessageQueue, BrokerQueue>,
    pub(super) parked: Vec<Parked<C>>,
    pub(super) members: Vec<String>,
    /// Says 0 instead of "not found" for a group without an offset, as real ones often do.
    pub(super) says_zero: bool,
}

/// Fate of a message that was given back.
pub(super) enum GivenBack {
    Retry(Stored),
    DeadLetter(usize),
}

impl<C> Broker<C> {
    pub(super) fn stored_offset(&self, queue: &MessageQueue) -> Option<i64> {
        self.queues[queue].committed.or_else(|| self.says_zero.then_some(0))
    }

    pub(super) fn bound(&self, queue: &MessageQueue, bound: Bound) -> i64 {
        let queue = &self.queues[queue];
        match bound {
            Bound::Least | Bound::AtTime(_) => queue.least,
            Bound::Greatest => queue.greatest(),
        }
    }

    pub(super) fn pull(&mut self, queue: &MessageQueue, offset: i64) -> PullResult {
        let queue = self.queues.get_mut(queue).unwrap();
        if let Some(next) = queue.reset.take() {
            let status = PullStatus::OffsetIllegal { reset: true };
            return PullResult::RequestAnswer { status, next, messages: Vec::new() };
        }
        let (least, greatest) = (queue.least, queue.greatest());
        if offset == greatest {
            return PullResult::Hold;
        }
        if offset < least || offset > greatest {
            let status = PullStatus::OffsetIllegal { reset: false };
            return PullResult::RequestAnswer { status, next: offset.clamp(least, greatest), messages: Vec::new() };
        }
        let start = usize::try_from(offset).unwrap();
        let end = (start + PULL_BATCH).min(queue.log.len());
        let found = (offset..).zip(&queue.log[start..end]);
        let messages: Vec<_> =
            found.filter(|(_, stored)| stored.wanted).map(|(offset, stored)| (offset, stored.clone())).collect();
        let status = if messages.is_empty() { PullStatus::NoMatchedMessage } else { PullStatus::Found };
        PullResult::RequestAnswer { status, next: i64::try_from(end).unwrap(), messages }
    }

    /// Stores the group's offset, unless a reset waits.
    pub(super) fn commit(&mut self, queue: &MessageQueue, offset: i64) {
        let queue = self.queues.get_mut(queue).unwrap();
        if queue.reset.is_none() {
            queue.committed = Some(offset);
        }
    }

    /// The message may leave the place it was given back from; where it goes now.
    pub(super) fn give_back(&mut self, from: &MessageQueue, offset: i64, id: usize, times: i32) -> GivenBack {
        let queue = self.queues.get_mut(from).unwrap();
        if let Some(stored) = queue.at(offset).filter(|stored| stored.id == id) {
            stored.resolved = true;
        }
        if times >= MAX_RECONSUME_TIMES {
            return GivenBack::DeadLetter(id);
        }
        GivenBack::Retry(Stored { id, reconsume_times: times + 1, wanted: true, resolved: false })
    }

    /// Appends a message, and takes out the parked pulls that it wakes.
    pub(super) fn append(&mut self, queue: &MessageQueue, stored: Stored) -> Vec<Parked<C>> {
        self.queues.get_mut(queue).unwrap().log.push(stored);
        let (woken, parked) = std::mem::take(&mut self.parked).into_iter().partition(|pull| pull.queue == *queue);
        self.parked = parked;
        woken
    }
}
