//! Slots of a window: the messages of one pull, and the state of each. Pure; the process queue drives it.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::message::MessageExt;

use crate::consumer::deliver::retry;
use crate::consumer::pull::request::ConsumeRequest;

/// Names a failed message in its window until its outcome is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(super) slot: u64,
    pub(super) index: u32,
}

/// A message to be sent back to the broker.
#[derive(Clone, Debug)]
pub(crate) struct FailedMessage {
    /// Its place in the window.
    pub(crate) position: Position,
    /// The message; its body is still a slice of the reply it came in.
    pub(crate) message: MessageExt,
}

/// A message whose listener has been running for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlowMessage {
    /// Its offset in the queue.
    pub(crate) offset: i64,
    /// Time since its listener began.
    pub(crate) running_for: Duration,
}

/// The messages of one pull, as long as one of them is unresolved.
#[derive(Debug)]
pub(super) struct PullSlot {
    pub(super) number: u64,
    pub(super) messages: Arc<Vec<MessageExt>>,
    pub(super) states: Vec<MessageState>,
    /// Totals of the unresolved messages.
    pub(super) load: Load,
    /// Bytes that all of its messages hold, for as long as one is unresolved.
    pub(super) held: usize,
    /// The pull's own request first, then those by which single messages are consumed again.
    pub(super) requests: Vec<Arc<ConsumeRequest>>,
    pub(super) repetitions: Vec<Repetition>,
}

impl PullSlot {
    /// `None` for no messages, and for more than a request can count.
    pub(super) fn new(number: u64, messages: Vec<MessageExt>, reply_bytes: usize) -> Option<Self> {
        u32::try_from(messages.len()).ok().filter(|length| *length > 0)?;
        let states = vec![MessageState::HandedOut; messages.len()];
        let mut load = Load::default();
        let mut held = 0;
        for message in &messages {
            load += Load::of(message);
            held += message.held_bytes();
        }
        let held = held.max(reply_bytes);
        let messages = Arc::new(messages);
        Some(Self { number, messages, states, load, held, requests: Vec::new(), repetitions: Vec::new() })
    }

    /// All messages by their places.
    pub(super) fn range(&self) -> Range<u32> {
        0..u32::try_from(self.messages.len()).unwrap_or(0)
    }

    pub(super) fn first_unresolved(&self) -> Option<i64> {
        let index = self.states.iter().position(|state| *state != MessageState::Resolved)?;
        self.messages.get(index).map(|message| message.queue_offset)
    }

    pub(super) fn last_unresolved(&self) -> Option<i64> {
        let index = self.states.iter().rposition(|state| *state != MessageState::Resolved)?;
        self.messages.get(index).map(|message| message.queue_offset)
    }

    pub(super) fn count(&self, state: MessageState) -> usize {
        self.states.iter().filter(|other| **other == state).count()
    }

    /// The one place where a message's state changes. A resolved message stays resolved.
    pub(super) fn move_to(&mut self, range: Range<u32>, state: MessageState) -> Vec<FailedMessage> {
        let mut failed = Vec::new();
        for index in range {
            let Some(at) = usize::try_from(index).ok() else { break };
            let Some((entry, message)) = self.states.get_mut(at).zip(self.messages.get(at)) else { break };
            if *entry == MessageState::Resolved {
                continue;
            }
            *entry = state;
            match state {
                MessageState::Resolved => self.load -= Load::of(message),
                MessageState::SendingBack => {
                    let position = Position { slot: self.number, index };
                    failed.push(FailedMessage { position, message: message.clone() });
                }
                MessageState::HandedOut
                | MessageState::Slow
                | MessageState::WaitingAgain
                | MessageState::Left
                | MessageState::NotHandedBack => {}
            }
        }
        failed
    }

    pub(super) fn take_unclaimed(&self, limit: Duration, now: Instant) -> Vec<Range<u32>> {
        let waited = |request: &&Arc<ConsumeRequest>| now.saturating_duration_since(request.handed_out) >= limit;
        self.requests.iter().filter(waited).filter_map(|request| request.take(u32::MAX)).collect()
    }

    pub(super) fn take_unclaimed_now(&self) -> Vec<Range<u32>> {
        self.requests.iter().filter_map(|request| request.take(u32::MAX)).collect()
    }

    pub(super) fn newly_slow(&mut self, limit: Duration, now: Instant) -> Vec<SlowMessage> {
        let mut slow = Vec::new();
        for (index, (state, message)) in self.states.iter_mut().zip(self.messages.iter()).enumerate() {
            let Ok(index) = u32::try_from(index) else { break };
            if *state != MessageState::HandedOut {
                continue;
            }
            // Of the requests that hold the message the last counts: in the others it has an outcome already.
            let request = self.requests.iter().rev().find(|request| request.range().contains(&index));
            let since = request.and_then(|request| request.running_since(index));
            let running_for = since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            if running_for >= limit && since.is_some() {
                *state = MessageState::Slow;
                slow.push(SlowMessage { offset: message.queue_offset, running_for });
            }
        }
        slow
    }

    pub(super) fn consume_again_later(&mut self, index: u32, now: Instant) -> Instant {
        let known = self.repetitions.iter_mut().position(|repetition| repetition.index == index);
        let attempts = known.and_then(|at| self.repetitions.get(at)).map_or(0, |repetition| repetition.attempts);
        let due = now + retry::consume_again_after(attempts);
        let repetition = Repetition { index, attempts: attempts.saturating_add(1), due: Some(due) };
        match known.and_then(|at| self.repetitions.get_mut(at)) {
            Some(entry) => *entry = repetition,
            None => self.repetitions.push(repetition),
        }
        due
    }

    /// The messages whose time has come to be consumed again.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<u32> {
        let is_due = |repetition: &&mut Repetition| repetition.due.is_some_and(|due| due <= now);
        let due = self.repetitions.iter_mut().filter(is_due);
        due.map(|repetition| {
            repetition.due = None;
            repetition.index
        })
        .collect()
    }

    /// Hands messages out in a request of their own.
    pub(super) fn hand_out(&mut self, range: Range<u32>, now: Instant) -> Arc<ConsumeRequest> {
        self.move_to(range.clone(), MessageState::HandedOut);
        // The request by which these messages were consumed the last time, if it held nothing else.
        self.requests.retain(|request| request.range() != range);
        let request = ConsumeRequest::new(&self.messages, self.number, range, now);
        self.requests.push(Arc::clone(&request));
        request
    }
}

/// A message that the broker could not be given.
#[derive(Debug)]
pub(super) struct Repetition {
    index: u32,
    attempts: u32,
    /// `None` while it is handed out again.
    pub(super) due: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageState {
    /// In a consume request: waiting there, or running when the request's cursor has passed it.
    HandedOut,
    /// Running, and reported to be slow.
    Slow,
    /// Failed, on its way to the broker.
    SendingBack,
    /// To be consumed here again.
    WaitingAgain,
    /// Taken back when the window was drained.
    Left,
    /// Failed in a window that was drained, and not given to the broker.
    NotHandedBack,
    /// Consumed, or the broker's again.
    Resolved,
}

impl MessageState {
    pub(super) fn is_handed_out(self) -> bool {
        matches!(self, Self::HandedOut | Self::Slow)
    }
}

/// Message and byte totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Load {
    pub(super) fn of(message: &MessageExt) -> Self {
        Self { messages: 1, bytes: message.body().len() }
    }
}

impl std::ops::AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

impl std::ops::Sub for Load {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { messages: self.messages.saturating_sub(other.messages), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

impl std::ops::SubAssign for Load {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}
