//! The window of one owned queue: messages that were pulled and are not resolved yet.
//!
//! `rmq-pull` puts each pull's messages in and hands them to the pool as a [`ConsumeRequest`]. The workers take messages
//! from it without a lock and report their outcomes. The offset driver asks for [`ProcessQueue::committable`], which never
//! passes an unresolved message. The window is shared behind one short lock that its users bring: nothing in here blocks,
//! reads a clock or does I/O, and sizes and progress are computed from its content alone.
//!
//! The life of a message: *waiting* in a consume request, *running* once a worker has claimed it, then resolved, or
//! *sending back* until the broker has taken it over, or, when that failed, *waiting to be consumed again* here.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::message::MessageExt;

use crate::consumer::pull::flow::{FlowControl, FlowLimits};
use crate::consumer::pull::request::{Claim, ConsumeRequest};
use crate::consumer::pull::slot::{FailedMessage, Load, MessageState, Position, PullSlot, SlowMessage};

/// The messages of one owned queue between pull and resolution.
#[derive(Debug)]
pub(crate) struct ProcessQueue {
    /// One slot for each pull with unresolved messages, in order of offsets and of slot numbers.
    slots: VecDeque<PullSlot>,
    /// The offset up to which the queue was pulled: where the next pull begins.
    next_offset: i64,
    next_slot: u64,
    /// Unresolved messages and their bytes: the sums over all slots, changed by `put` and `PullSlot::move_to` alone.
    load: Load,
    /// Bytes that the slots hold, what is resolved included: one message keeps the reply that it came in.
    held: usize,
    phase: WindowPhase,
    /// The limits a pull was refused for; the first result that brings the window below them says so, once.
    refused: Option<FlowLimits>,
}

impl ProcessQueue {
    /// An empty window of a queue that is pulled from `offset` on.
    pub(crate) fn new(offset: i64) -> Self {
        Self {
            slots: VecDeque::new(),
            next_offset: offset,
            next_slot: 0,
            load: Load::default(),
            held: 0,
            phase: WindowPhase::Open,
            refused: None,
        }
    }

    /// Takes in what one pull brought, in order of offsets, and moves on to `next_offset`, where the broker says the next
    /// pull begins. The answer is for the pool; `None` when nothing is left to consume.
    ///
    /// Messages outside of what was asked for are ignored: those before the offset pulled from, which are here or
    /// resolved already, and those from `next_offset` on, which the next pull brings again.
    ///
    /// The messages keep `reply_bytes` in memory, of the reply that they are slices of; at least their own bytes.
    pub(crate) fn put_reply(
        &mut self,
        mut messages: Vec<MessageExt>,
        reply_bytes: usize,
        next_offset: i64,
        now: Instant,
    ) -> Option<Arc<ConsumeRequest>> {
        if self.phase != WindowPhase::Open {
            return None;
        }
        let mut expected = self.next_offset;
        messages.retain(|message| {
            let fits = (expected..next_offset).contains(&message.queue_offset);
            if fits {
                expected = message.queue_offset + 1;
            }
            fits
        });
        self.advance(next_offset);
        let slot = PullSlot::new(self.next_slot, messages, reply_bytes)?;
        self.next_slot += 1;
        self.load += slot.load;
        self.held += slot.held;
        let all = slot.range();
        self.slots.push_back(slot);
        self.hand_out(self.slots.len() - 1, all, now)
    }

    /// Hands messages of a slot to the workers. Every message passes here, at first and when it is consumed again; so this
    /// is the place that decides what may run beside what. Consumption is concurrent: everything may.
    fn hand_out(&mut self, slot: usize, range: Range<u32>, now: Instant) -> Option<Arc<ConsumeRequest>> {
        self.slots.get_mut(slot).map(|slot| slot.hand_out(range, now))
    }

    /// [`Self::put_reply`] for messages that stand alone.
    #[cfg(test)]
    pub(crate) fn put(
        &mut self,
        messages: Vec<MessageExt>,
        next_offset: i64,
        now: Instant,
    ) -> Option<Arc<ConsumeRequest>> {
        self.put_reply(messages, 0, next_offset, now)
    }

    /// Moves on to `next_offset` after a pull that brought nothing, or past messages the broker no longer has. Never back.
    pub(crate) fn advance(&mut self, next_offset: i64) {
        if self.phase == WindowPhase::Open {
            self.next_offset = self.next_offset.max(next_offset);
        }
    }

    /// The offset that may be stored for the group: of the first unresolved message, or where the next pull begins when
    /// there is none. Every message before it is resolved, was filtered out, or no longer exists.
    pub(crate) fn committable(&self) -> i64 {
        self.slots.front().and_then(PullSlot::first_unresolved).unwrap_or(self.next_offset)
    }

    /// The reason why the window is too full for another pull, if it is. After a `Some`, the result that makes room says so by
    /// [`Finished::drained`] or the answer of [`Self::resolve`].
    pub(crate) fn flow_control(&mut self, limits: &FlowLimits) -> Option<FlowControl> {
        debug_assert_eq!(self.load, self.recount(), "the sums have drifted from the window");
        let reason = self.exceeded(limits);
        self.refused = reason.is_some().then_some(*limits);
        reason
    }

    /// Ends a claim: its first `consumed` messages are resolved, the others failed and are to be sent back; each of
    /// these must be reported once more, by [`Self::resolve`] or [`Self::send_back_failed`].
    pub(crate) fn finish(&mut self, claim: Claim, consumed: usize) -> Finished {
        let Claim { slot, range } = claim;
        let Some(slot) = self.slot_index(slot) else { return Finished::default() };
        let split = u32::try_from(consumed).map_or(range.end, |consumed| range.start.saturating_add(consumed));
        let split = split.min(range.end);
        self.move_messages(slot, range.start..split, MessageState::Resolved);
        let failed = self.move_messages(slot, split..range.end, MessageState::SendingBack);
        self.drop_resolved(slot);
        Finished { failed, drained: self.drained() }
    }

    /// A message that failed is the broker's from here on. True if this made room for a pull that was refused.
    pub(crate) fn resolve(&mut self, position: Position) -> bool {
        if let Some(slot) = self.slot_index(position.slot)
            && self.state(slot, position.index) == Some(MessageState::SendingBack)
        {
            self.move_messages(slot, position.index..position.index + 1, MessageState::Resolved);
            self.drop_resolved(slot);
        }
        self.drained()
    }

    /// The broker could not be given a failed message in any way: it stays here and is consumed again later. Returns
    /// when; `None` for a message that is not being sent back, and in a window that hands out nothing more.
    pub(crate) fn send_back_failed(&mut self, position: Position, now: Instant) -> Option<Instant> {
        let slot = self.slot_index(position.slot)?;
        if self.state(slot, position.index)? != MessageState::SendingBack {
            return None;
        }
        let next =
            if self.phase == WindowPhase::Open { MessageState::WaitingAgain } else { MessageState::NotHandedBack };
        self.move_messages(slot, position.index..position.index + 1, next);
        let slot = self.slots.get_mut(slot).filter(|_| next == MessageState::WaitingAgain)?;
        Some(slot.consume_again_later(position.index, now))
    }

    /// When [`Self::consume_again`] has something to hand out; `None` while nothing waits for it.
    pub(crate) fn next_repetition(&self) -> Option<Instant> {
        self.slots.iter().flat_map(|slot| &slot.repetitions).filter_map(|repetition| repetition.due).min()
    }

    /// The messages whose time has come to be consumed again, each in a request of its own for the pool.
    pub(crate) fn consume_again(&mut self, now: Instant) -> Vec<Arc<ConsumeRequest>> {
        if self.phase != WindowPhase::Open {
            return Vec::new();
        }
        let due =
            (0..).zip(&mut self.slots).flat_map(|(at, slot)| slot.take_due(now).into_iter().map(move |i| (at, i)));
        let due: Vec<(usize, u32)> = due.collect();
        due.into_iter().filter_map(|(slot, index)| self.hand_out(slot, index..index + 1, now)).collect()
    }

    /// Takes back the messages that have waited for a worker for `limit` or longer: they are to be sent back. A message
    /// that a worker has claimed is never among them.
    pub(crate) fn expire(&mut self, limit: Duration, now: Instant) -> Vec<FailedMessage> {
        let mut expired = Vec::new();
        for slot in 0..self.slots.len() {
            for range in self.slots.get(slot).map_or_else(Vec::new, |slot| slot.take_unclaimed(limit, now)) {
                expired.append(&mut self.move_messages(slot, range, MessageState::SendingBack));
            }
        }
        expired
    }

    /// The messages whose listener has been running for `limit` or longer, each returned once.
    pub(crate) fn slow(&mut self, limit: Duration, now: Instant) -> Vec<SlowMessage> {
        self.slots.iter_mut().flat_map(|slot| slot.newly_slow(limit, now)).collect()
    }

    /// Hands out nothing more: what no worker has claimed is left to the broker. Results still count, so that at a
    /// shutdown the listeners that run may end and their messages be committed.
    pub(crate) fn drain(&mut self) {
        if self.phase == WindowPhase::Open {
            self.phase = WindowPhase::Draining;
            self.take_back_unclaimed();
        }
    }

    /// Gives the queue up: as [`Self::drain`], and results that arrive later are ignored, because another member may
    /// own the queue by then. Returns the offset to store at last.
    pub(crate) fn close(&mut self) -> i64 {
        let committable = self.committable();
        self.take_back_unclaimed();
        self.next_offset = committable;
        self.phase = WindowPhase::Closed;
        self.slots.clear();
        self.load = Load::default();
        self.held = 0;
        self.refused = None;
        committable
    }

    /// Snapshot of the window's counters, for reports.
    pub(crate) fn summary(&self) -> WindowSummary {
        let mut summary = WindowSummary {
            unresolved: self.load.messages,
            bytes: self.load.bytes,
            committable: self.committable(),
            next_offset: self.next_offset,
            ..WindowSummary::default()
        };
        for slot in &self.slots {
            let unclaimed: usize = slot.requests.iter().map(|request| request.unclaimed().len()).sum();
            let handed_out = slot.states.iter().filter(|state| state.is_handed_out()).count();
            summary.waiting += unclaimed;
            summary.running += handed_out.saturating_sub(unclaimed);
            summary.sending_back += slot.count(MessageState::SendingBack);
            summary.waiting_again += slot.count(MessageState::WaitingAgain);
            summary.left += slot.count(MessageState::Left);
            summary.not_handed_back += slot.count(MessageState::NotHandedBack);
        }
        summary
    }

    fn exceeded(&self, limits: &FlowLimits) -> Option<FlowControl> {
        if self.load.messages > limits.messages {
            return Some(FlowControl::Messages { cached: self.load.messages, limit: limits.messages });
        }
        if self.held > limits.bytes {
            return Some(FlowControl::Bytes { cached: self.held, limit: limits.bytes });
        }
        let span = self.span();
        (span > limits.span).then_some(FlowControl::Span { span, limit: limits.span })
    }

    /// From the first to the last unresolved message.
    fn span(&self) -> i64 {
        let first = self.slots.front().and_then(PullSlot::first_unresolved);
        let last = self.slots.back().and_then(PullSlot::last_unresolved);
        first.zip(last).map_or(0, |(first, last)| last.saturating_sub(first))
    }

    /// True if a refused pull may go now; once for each refusal.
    fn drained(&mut self) -> bool {
        let has_room = self.refused.is_some_and(|limits| self.exceeded(&limits).is_none());
        if has_room {
            self.refused = None;
        }
        has_room
    }

    /// Slots are numbered in the order of the queue, with gaps where whole slots are resolved.
    fn slot_index(&self, number: u64) -> Option<usize> {
        let first = self.slots.front()?.number;
        let guess = usize::try_from(number.checked_sub(first)?).ok()?;
        if self.slots.get(guess).is_some_and(|slot| slot.number == number) {
            return Some(guess);
        }
        self.slots.binary_search_by_key(&number, |slot| slot.number).ok()
    }

    fn state(&self, slot: usize, index: u32) -> Option<MessageState> {
        self.slots.get(slot)?.states.get(usize::try_from(index).ok()?).copied()
    }

    /// Moves messages to `state`, keeps the sums, and returns the messages when `state` means that they failed.
    fn move_messages(&mut self, slot: usize, range: Range<u32>, state: MessageState) -> Vec<FailedMessage> {
        let Some(slot) = self.slots.get_mut(slot) else { return Vec::new() };
        let before = slot.load;
        let failed = slot.move_to(range, state);
        self.load -= before - slot.load;
        failed
    }

    fn drop_resolved(&mut self, slot: usize) {
        if self.slots.get(slot).is_some_and(|slot| slot.load.messages == 0)
            && let Some(resolved) = self.slots.remove(slot)
        {
            self.held = self.held.saturating_sub(resolved.held);
        }
    }

    fn take_back_unclaimed(&mut self) {
        for slot in &mut self.slots {
            for range in slot.take_unclaimed_now() {
                slot.move_to(range, MessageState::Left);
            }
        }
    }

    fn recount(&self) -> Load {
        let mut load = Load::default();
        for slot in &self.slots {
            for (message, state) in slot.messages.iter().zip(&slot.states) {
                if *state != MessageState::Resolved {
                    load += Load::of(message);
                }
            }
        }
        load
    }
}

/// Consequences of the end of a claim.
#[derive(Debug, Default)]
#[must_use = "failed messages must be sent back"]
pub(crate) struct Finished {
    /// The messages to send back.
    pub(crate) failed: Vec<FailedMessage>,
    /// True if there is room now for a pull that was refused.
    pub(crate) drained: bool,
}

/// The numbers of a window at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WindowSummary {
    /// Messages without an outcome; the sum of the six below.
    pub(crate) unresolved: usize,
    /// No worker has claimed them.
    pub(crate) waiting: usize,
    /// A listener has them.
    pub(crate) running: usize,
    /// Failed; the broker has not taken them over yet.
    pub(crate) sending_back: usize,
    /// The broker could not be given them; they will be consumed again.
    pub(crate) waiting_again: usize,
    /// Not begun when the window was drained; the broker delivers them again.
    pub(crate) left: usize,
    /// Failed, and the broker could not be given them when the window was drained already.
    pub(crate) not_handed_back: usize,
    /// Bytes of the bodies without an outcome.
    pub(crate) bytes: usize,
    /// The offset that may be stored.
    pub(crate) committable: i64,
    /// Offset at which the next pull begins.
    pub(crate) next_offset: i64,
}

impl WindowSummary {
    /// Messages that failed and that no broker has taken over.
    pub(crate) fn failed(&self) -> usize {
        self.sending_back + self.waiting_again + self.not_handed_back
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WindowPhase {
    Open,
    Draining,
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::vectors::vectors;
    use crate::consumer::deliver::retry;
    use crate::consumer::fixtures::received;
    use crate::message::MessageQueue;

    const BODY: &[u8] = &[7; 123];

    fn messages(offsets: impl IntoIterator<Item = i64>) -> Vec<MessageExt> {
        let queue = MessageQueue::new("T", "b", 0);
        offsets.into_iter().map(|offset| received(&queue, offset, BODY)).collect()
    }

    /// A window pulled from 0 to `count`, and its one request.
    fn window(count: i64, now: Instant) -> (ProcessQueue, Arc<ConsumeRequest>) {
        let mut window = ProcessQueue::new(0);
        let request = window.put(messages(0..count), count, now).unwrap();
        (window, request)
    }

    fn offsets(request: &ConsumeRequest, claim: &Claim) -> Vec<i64> {
        request.messages(claim).iter().map(|message| message.queue_offset).collect()
    }

    fn claim(request: &ConsumeRequest, at_most: usize) -> Vec<i64> {
        offsets(request, &request.claim(at_most, Instant::now()).unwrap())
    }

    fn consume(window: &mut ProcessQueue, request: &ConsumeRequest, count: usize, now: Instant) {
        let claim = request.claim(count, now).unwrap();
        assert!(window.finish(claim, count).failed.is_empty());
    }

    fn fail_one(window: &mut ProcessQueue, request: &ConsumeRequest, now: Instant) -> FailedMessage {
        window.finish(request.claim(1, now).unwrap(), 0).failed.remove(0)
    }

    #[test]
    fn an_empty_window_commits_where_the_next_pull_begins() {
        let now = Instant::now();
        let mut window = ProcessQueue::new(40);
        assert_eq!(window.committable(), 40);
        window.advance(45);
        assert_eq!(window.committable(), 45);
        assert!(window.put(Vec::new(), 60, now).is_none(), "all were filtered out");
        assert_eq!(window.committable(), 60);
        window.advance(50);
        assert_eq!(window.committable(), 60, "a window never moves back");
    }

    #[test]
    fn the_committed_offset_stops_at_the_first_unresolved_message() {
        let now = Instant::now();
        let mut window = ProcessQueue::new(0);
        let request = window.put(messages([3, 5, 9]), 20, now).unwrap();
        assert_eq!(window.committable(), 3);
        let (first, second) = (request.claim(1, now).unwrap(), request.claim(1, now).unwrap());
        let _ = window.finish(second, 1);
        assert_eq!(window.committable(), 3);
        let _ = window.finish(first, 1);
        assert_eq!(window.committable(), 9);
        consume(&mut window, &request, 1, now);
        assert_eq!(window.committable(), 20, "what follows the last message was filtered out");
    }

    #[test]
    fn an_advance_does_not_pass_an_unresolved_message() {
        let (mut window, request) = window(2, Instant::now());
        window.advance(100);
        assert_eq!(window.committable(), 0);
        consume(&mut window, &request, 2, Instant::now());
        assert_eq!(window.committable(), 100);
    }

    #[test]
    fn messages_that_are_there_already_or_come_again_are_ignored() {
        let now = Instant::now();
        let (mut window, first) = window(4, now);
        assert!(window.put(messages(0..4), 4, now).is_none(), "the same reply again");
        let second = window.put(messages([2, 3, 4, 4, 5, 4, 9]), 7, now).unwrap();
        assert_eq!(claim(&second, 9), [4, 5]);
        assert_eq!(claim(&first, 9), [0, 1, 2, 3]);
        assert_eq!(window.summary().unresolved, 6);
        assert_eq!(window.summary().next_offset, 7);
    }

    #[test]
    fn parts_of_a_claim_are_reported_one_by_one() {
        let now = Instant::now();
        let (mut window, request) = window(5, now);
        let mut rest = request.claim(9, now).unwrap();
        let (first, failed) = (rest.split_to(2), rest.split_to(1));
        assert!(!rest.is_empty());
        assert_eq!(offsets(&request, &failed), [2]);
        let last = rest.split_to(9);
        assert!(rest.is_empty() && rest.split_to(1).is_empty());
        assert!(window.finish(last, 2).failed.is_empty());
        assert_eq!(window.finish(failed, 0).failed[0].message.queue_offset, 2);
        assert!(window.finish(first, 2).failed.is_empty());
        assert_eq!((window.summary().unresolved, window.committable()), (1, 2));
    }

    #[test]
    fn claims_that_follow_each_other_are_reported_together() {
        let now = Instant::now();
        let (mut window, request) = window(4, now);
        let mut claim = request.claim(1, now).unwrap();
        claim.join(request.claim(1, now).unwrap()).unwrap();
        let skipped = request.claim(1, now).unwrap();
        let apart = claim.join(request.claim(1, now).unwrap()).unwrap_err();
        assert_eq!(offsets(&request, &claim), [0, 1]);
        let _ = window.finish(claim, 2);
        let _ = window.finish(apart, 1);
        assert_eq!(window.committable(), 2);
        let _ = window.finish(skipped, 1);
        assert_eq!(window.committable(), 4);
    }

    #[test]
    fn a_failed_message_holds_the_offset_until_the_broker_has_it() {
        let now = Instant::now();
        let (mut window, request) = window(3, now);
        let finished = window.finish(request.claim(3, now).unwrap(), 1);
        let failed: Vec<i64> = finished.failed.iter().map(|failed| failed.message.queue_offset).collect();
        assert_eq!(failed, [1, 2]);
        assert_eq!(window.committable(), 1);
        window.resolve(finished.failed[0].position);
        assert_eq!(window.committable(), 2);
        window.resolve(finished.failed[1].position);
        assert_eq!(window.committable(), 3);
    }

    #[test]
    fn a_message_the_broker_cannot_be_given_is_consumed_here_again_ever_later() {
        let mut now = Instant::now();
        let (mut window, request) = window(2, now);
        let mut failed = fail_one(&mut window, &request, now);
        consume(&mut window, &request, 1, now);
        let mut waits = Vec::new();
        for _ in 0..3 {
            let due = window.send_back_failed(failed.position, now).unwrap();
            assert_eq!(window.send_back_failed(failed.position, now), None, "one outcome");
            assert_eq!(window.next_repetition(), Some(due));
            assert!(window.consume_again(due - Duration::from_millis(1)).is_empty());
            waits.push((due - now).as_secs());
            now = due;
            let again = window.consume_again(now);
            assert_eq!(again.len(), 1);
            assert_eq!((window.next_repetition(), window.consume_again(now).len()), (None, 0));
            assert_eq!(window.committable(), 0);
            failed = fail_one(&mut window, &again[0], now);
            assert_eq!(failed.message.queue_offset, 0);
        }
        assert_eq!(waits, [5, 10, 20]);
        let due = window.send_back_failed(failed.position, now).unwrap();
        let again = window.consume_again(due);
        consume(&mut window, &again[0], 1, due);
        assert_eq!(window.committable(), 2);
    }

    #[test]
    fn what_waits_beside_a_message_that_is_consumed_again_still_expires() {
        let limit = Duration::from_secs(900);
        let now = Instant::now();
        let (mut window, mut request) = window(3, now);
        for _ in 0..3 {
            let failed = fail_one(&mut window, &request, now);
            let due = window.send_back_failed(failed.position, now).unwrap();
            request = window.consume_again(due).remove(0);
            assert_eq!(window.slots[0].requests.len(), 2, "one for the pull, one for what is consumed again");
        }
        let expired: Vec<i64> =
            window.expire(limit, now + limit).iter().map(|expired| expired.message.queue_offset).collect();
        assert_eq!(expired, [1, 2]);
    }

    #[test]
    fn an_outcome_for_a_message_that_is_not_being_sent_back_changes_nothing() {
        let now = Instant::now();
        let (mut window, request) = window(2, now);
        let failed = fail_one(&mut window, &request, now);
        window.resolve(failed.position);
        assert_eq!(window.committable(), 1);
        assert!(!window.resolve(failed.position));
        assert_eq!(window.send_back_failed(failed.position, now), None);
        window.resolve(Position { slot: 0, index: 1 });
        window.resolve(Position { slot: 7, index: 0 });
        assert_eq!(window.committable(), 1, "the second message only waits");
    }

    #[test]
    fn only_messages_no_worker_has_claimed_expire() {
        let limit = Duration::from_secs(900);
        let start = Instant::now();
        let (mut window, request) = window(4, start);
        let claim = request.claim(1, start).unwrap();
        assert!(window.expire(limit, start + limit - Duration::from_secs(1)).is_empty());
        let late = window.put(messages(4..5), 5, start + limit).unwrap();
        let expired: Vec<i64> =
            window.expire(limit, start + limit).iter().map(|expired| expired.message.queue_offset).collect();
        assert_eq!(expired, [1, 2, 3]);
        assert!(request.claim(1, start).is_none(), "an expired message is not run as well");
        assert!(window.expire(limit, start + limit).is_empty(), "each once");
        assert_eq!(late.unclaimed().len(), 1);
        let _ = window.finish(claim, 1);
        assert_eq!(window.committable(), 1);
    }

    #[test]
    fn a_long_running_listener_is_told_once() {
        let limit = Duration::from_secs(900);
        let start = Instant::now();
        let (mut window, request) = window(3, start);
        let claimed_at = start + Duration::from_secs(100);
        let claim = request.claim(1, claimed_at).unwrap();
        assert!(window.slow(limit, start + limit).is_empty());
        let told = window.slow(limit, claimed_at + limit);
        assert_eq!(told, [SlowMessage { offset: 0, running_for: limit }]);
        assert!(window.slow(limit, claimed_at + limit * 2).is_empty());
        let _ = window.finish(claim, 1);
        assert_eq!(window.committable(), 1);
    }

    #[test]
    fn a_message_waiting_to_be_consumed_again_does_not_count_as_running() {
        let limit = Duration::from_secs(60);
        let start = Instant::now();
        let (mut window, request) = window(2, start);
        let failed = fail_one(&mut window, &request, start);
        let due = window.send_back_failed(failed.position, start).unwrap();
        let again = window.consume_again(due);
        assert!(window.slow(limit, start + limit * 2).is_empty());
        let claim = again[0].claim(1, start + limit * 2).unwrap();
        assert_eq!(window.slow(limit, start + limit * 3).len(), 1);
        let _ = window.finish(claim, 1);
    }

    #[test]
    fn cc_11_limits_may_be_reached_but_not_passed() {
        let now = Instant::now();
        let (mut window, request) = window(3, now);
        let limits = FlowLimits { messages: 3, bytes: 3 * BODY.len(), span: 2 };
        assert_eq!(window.flow_control(&limits), None);
        let tighter = [
            FlowLimits { messages: 2, ..limits },
            FlowLimits { bytes: 3 * BODY.len() - 1, ..limits },
            FlowLimits { span: 1, ..limits },
        ];
        let reasons = tighter.map(|limits| window.flow_control(&limits).unwrap());
        assert!(matches!(reasons[0], FlowControl::Messages { cached: 3, limit: 2 }));
        assert!(matches!(reasons[1], FlowControl::Bytes { cached: 369, limit: 368 }));
        assert!(matches!(reasons[2], FlowControl::Span { span: 2, limit: 1 }));
        consume(&mut window, &request, 3, now);
        assert_eq!(window.flow_control(&FlowLimits { messages: 0, bytes: 0, span: 0 }), None);
    }

    #[test]
    fn a_reply_counts_as_a_whole_until_its_last_message_is_resolved() {
        let now = Instant::now();
        let mut window = ProcessQueue::new(0);
        let limits = FlowLimits { bytes: 5000, ..FlowLimits::default() };
        let request = window.put_reply(messages(0..3), 4000, 3, now).unwrap();
        assert_eq!(window.flow_control(&limits), None);
        let late = window.put_reply(messages(3..4), 2000, 4, now).unwrap();
        let refused = window.flow_control(&limits);
        assert!(matches!(refused, Some(FlowControl::Bytes { cached: 6000, limit: 5000 })), "{refused:?}");
        for _ in 0..2 {
            assert!(!window.finish(request.claim(1, now).unwrap(), 1).drained, "the reply is still held");
        }
        assert!(window.finish(request.claim(1, now).unwrap(), 1).drained);
        assert!(window.flow_control(&FlowLimits { bytes: 1999, ..limits }).is_some());
        consume(&mut window, &late, 1, now);
        assert_eq!(window.flow_control(&FlowLimits { bytes: 0, ..limits }), None);
    }

    #[test]
    fn properties_count_as_bodies_do() {
        let now = Instant::now();
        let mut window = ProcessQueue::new(0);
        let mut message = messages(0..1).remove(0);
        message.message.properties.append("key", &"v".repeat(30_000));
        let _request = window.put(vec![message], 1, now).unwrap();
        assert!(window.flow_control(&FlowLimits { bytes: 30_000, ..FlowLimits::default() }).is_some());
    }

    #[test]
    fn cc_11_the_result_that_makes_room_says_so_once() {
        let now = Instant::now();
        let (mut window, request) = window(4, now);
        let limits = FlowLimits { messages: 2, ..FlowLimits::default() };
        assert!(!window.finish(request.claim(1, now).unwrap(), 1).drained, "no pull was refused");
        assert!(window.flow_control(&limits).is_some());
        let finished = window.finish(request.claim(1, now).unwrap(), 0);
        assert!(!finished.drained, "a message being sent back still counts");
        assert!(window.resolve(finished.failed[0].position));
        assert!(!window.finish(request.claim(1, now).unwrap(), 1).drained);
    }

    #[test]
    fn a_drained_window_begins_nothing_and_counts_what_ends() {
        let now = Instant::now();
        let (mut window, request) = window(4, now);
        let running = request.claim(1, now).unwrap();
        let failing = fail_one(&mut window, &request, now);
        window.drain();
        assert!(request.claim(1, now).is_none());
        assert!(window.put(messages(4..6), 6, now).is_none());
        let summary = window.summary();
        assert_eq!((summary.running, summary.sending_back, summary.left, summary.waiting), (1, 1, 2, 0));
        let _ = window.finish(running, 1);
        assert_eq!(window.committable(), 1);
        assert_eq!(window.send_back_failed(failing.position, now), None);
        assert_eq!(window.next_repetition(), None);
        let summary = window.summary();
        assert_eq!((summary.left, summary.not_handed_back, summary.failed()), (2, 1, 1));
        assert_eq!((summary.unresolved, window.committable()), (3, 1));
    }

    #[test]
    fn a_summary_tells_what_becomes_of_each_message() {
        let now = Instant::now();
        let (mut window, request) = window(7, now);
        let running = request.claim(1, now).unwrap();
        for _ in 0..2 {
            let failed = fail_one(&mut window, &request, now);
            let _ = window.send_back_failed(failed.position, now).unwrap();
        }
        fail_one(&mut window, &request, now);
        let further = window.put(messages(7..9), 9, now).unwrap();
        let summary = window.summary();
        assert_eq!((summary.unresolved, summary.bytes, summary.next_offset), (9, 9 * BODY.len(), 9));
        let found = (summary.waiting, summary.running, summary.sending_back, summary.waiting_again, summary.left);
        assert_eq!(found, (5, 1, 1, 2, 0));
        assert_eq!(format!("{further:?}").find(&format!("{BODY:?}")), None, "a request shows no bodies");
        assert!(format!("{further:?}").contains("unclaimed: 0..2"));
        let _ = window.finish(running, 1);
        assert_eq!(window.summary().committable, 1);
    }

    #[test]
    fn results_for_a_closed_window_are_ignored() {
        let now = Instant::now();
        let (mut window, request) = window(4, now);
        let running = request.claim(2, now).unwrap();
        assert_eq!(window.close(), 0);
        assert!(request.claim(1, now).is_none());
        assert!(window.finish(running, 0).failed.is_empty(), "the new owner consumes them");
        window.advance(9);
        assert_eq!(window.committable(), 0);
        assert_eq!(window.summary().unresolved, 0);
    }

    #[test]
    fn slots_are_found_when_others_before_them_are_gone() {
        let now = Instant::now();
        let mut window = ProcessQueue::new(0);
        let requests: Vec<_> =
            (0..6).map(|n| window.put(messages(n * 10..n * 10 + 10), n * 10 + 10, now).unwrap()).collect();
        for n in [1, 3, 5, 0] {
            consume(&mut window, &requests[n], 10, now);
        }
        assert_eq!(window.committable(), 20);
        assert_eq!(window.summary().unresolved, 20);
        consume(&mut window, &requests[4], 10, now);
        consume(&mut window, &requests[2], 10, now);
        assert_eq!(window.committable(), 60);
    }

    #[test]
    fn cc_13_counts_and_bytes_are_those_of_the_vectors() {
        let vector = vectors("PQ-001").remove(0);
        let input = |name: &str| usize::try_from(vector["input"][name].as_u64().unwrap()).unwrap();
        assert_eq!(input("bodyBytes"), BODY.len());
        let now = Instant::now();
        let (mut window, request) = window(i64::try_from(input("messages")).unwrap(), now);
        let mut counts = vec![window.summary()];
        consume(&mut window, &request, input("take"), now);
        counts.push(window.summary());
        let rest = request.claim(input("messages") - input("take") - input("removeLast"), now).unwrap();
        consume(&mut window, &request, input("removeLast"), now);
        counts.push(window.summary());
        let seen: Vec<_> = counts.iter().map(|summary| summary.unresolved).collect();
        assert_eq!(serde_json::json!(seen), vector["expected"]["countAfter"]);
        let seen: Vec<_> = counts.iter().map(|summary| summary.bytes).collect();
        assert_eq!(serde_json::json!(seen), vector["expected"]["sizeAfter"]);
        let _ = window.finish(rest, usize::MAX);
        assert_eq!(window.summary().bytes, 0);
    }

    #[test]
    fn cc_13_the_size_of_a_large_window_is_that_of_the_vectors() {
        let vector = vectors("PQ-002").remove(0);
        let now = Instant::now();
        let (mut window, request) = window(vector["input"]["messages"].as_i64().unwrap(), now);
        let mebibytes = |window: &ProcessQueue| window.summary().bytes / (1024 * 1024);
        let mut seen = vec![mebibytes(&window)];
        for take in vector["input"]["takeAndCommit"].as_array().unwrap() {
            let take = usize::try_from(take.as_u64().unwrap()).unwrap();
            let claim = request.claim(take, now).unwrap();
            let _ = window.finish(claim, take);
            seen.push(mebibytes(&window));
        }
        assert_eq!(serde_json::json!(seen), vector["expected"]["cachedMiB"]);
    }

    /// The Java client sends back what is *running* for 15 minutes too; here only what waits does.
    #[test]
    fn cc_13_a_message_waiting_for_longer_than_the_time_of_the_vector_is_sent_back() {
        let vector = vectors("PQ-003").remove(0);
        let minutes = |name: &str| Duration::from_secs(60 * vector["input"][name].as_u64().unwrap());
        let start = Instant::now();
        let (mut window, _request) = window(1, start);
        let expired = window.expire(minutes("consumeTimeoutMinutes"), start + minutes("consumeStartAgeMinutes"));
        assert_eq!(expired.len(), 1);
        assert_eq!(vector["expected"]["delayLevel"], retry::EXPIRED_DELAY_LEVEL);
    }
}
