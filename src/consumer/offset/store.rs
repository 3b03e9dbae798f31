//! The offsets a group has consumed up to, and which of them its brokers are known to have.
//!
//! The driver (`driver.rs`) reports the progress of each window; the store answers which offsets are to be sent to the
//! brokers now, and takes in their answers. A value counts only for the window that it was read from, named by its
//! [`Epoch`]. An offset only grows, unless it is overruled; of a queue at most one commit is under way, so that an
//! older one cannot overtake a newer one. Pure: no I/O, clock, lock or thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::message::MessageQueue;

use crate::consumer::pull::event::Epoch;

/// Offsets in queues of a broker that vanished are remembered for this long.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);
/// An answer to a commit that has not come after this time will not be waited for: longer than the request's deadline.
const ANSWER_OVERDUE: Duration = Duration::from_secs(10);

/// The offsets of one group's owned queues.
#[derive(Debug)]
pub(crate) struct OffsetStore {
    rows: BTreeMap<MessageQueue, OffsetRow>,
    /// Offsets in queues that vanished from their topic's route while they were ours.
    departed: BTreeMap<MessageQueue, Departed>,
    last_ticket: u64,
}

#[derive(Clone, Copy, Debug)]
struct Departed {
    offset: i64,
    until: Instant,
}

/// An offset to send to the broker of its queue, with UPDATE_CONSUMER_OFFSET. Its answer, or that there is none, is to be
/// reported by [`OffsetStore::answered`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// The queue.
    pub(crate) queue: MessageQueue,
    /// The offset of the next message the group is to consume.
    pub(crate) offset: i64,
    /// Names the commit in its answer.
    pub(crate) ticket: CommitTicket,
}

/// Names one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommitTicket(u64);

/// An offset of which no broker is known to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unconfirmed {
    /// The queue.
    pub(crate) queue: MessageQueue,
    /// Up to here the group has consumed.
    pub(crate) consumed: i64,
    /// The last offset the broker is known to have.
    pub(crate) confirmed: Option<i64>,
}

impl OffsetStore {
    /// A store of no queue.
    pub(crate) fn new() -> Self {
        Self { rows: BTreeMap::new(), departed: BTreeMap::new(), last_ticket: 0 }
    }

    /// The group's offset in a queue that becomes ours, of which its broker has `stored` or nothing: that, or the greater
    /// one that we had when the broker vanished with the queue. A broker that is killed forgets what it had confirmed and
    /// not yet written.
    pub(crate) fn resumed(&mut self, queue: &MessageQueue, stored: Option<i64>, now: Instant) -> Option<i64> {
        self.departed.retain(|_, departed| now < departed.until);
        stored.max(self.departed.get(queue).map(|departed| departed.offset))
    }

    /// The queue is ours from now on: its window of `epoch` begins at `offset`, which the broker has `stored` or which was
    /// chosen. One that the broker does not have is sent soon: asked again before it is stored, the end of a queue is
    /// another.
    ///
    /// Nothing else is kept of an earlier time when we owned the queue: another member may have been further since then.
    pub(crate) fn begin(&mut self, queue: &MessageQueue, epoch: Epoch, offset: i64, stored: bool) {
        let is_ours_alone = self.departed.remove(queue).is_some_and(|departed| departed.offset == offset);
        let confirmed = (stored && !is_ours_alone).then_some(offset);
        self.rows.insert(
            queue.clone(),
            OffsetRow {
                epoch,
                consumed: offset,
                confirmed,
                in_flight: None,
                failures: 0,
                doubted: false,
                urgent: confirmed.is_none(),
                leaving: false,
            },
        );
    }

    /// The window of `epoch` may commit `offset` now. A smaller one than before is ignored, and so are a window that is no
    /// longer the current one and a queue that is not ours.
    pub(crate) fn update(&mut self, queue: &MessageQueue, epoch: Epoch, offset: i64) {
        if let Some(row) = self.rows.get_mut(queue).filter(|row| !row.leaving && row.epoch == epoch) {
            row.consumed = row.consumed.max(offset);
        }
    }

    /// Goes to `offset`, even if this is back, with a new window of `epoch`, and sends it soon: a correction or a reset.
    pub(crate) fn overrule(&mut self, queue: &MessageQueue, epoch: Epoch, offset: i64) {
        if let Some(row) = self.rows.get_mut(queue).filter(|row| !row.leaving) {
            row.epoch = epoch;
            row.consumed = offset;
            row.confirmed = None;
            row.urgent = true;
        }
    }

    /// These brokers may have lost what they had confirmed: it is sent once more.
    pub(crate) fn doubt(&mut self, brokers: &BTreeSet<Arc<str>>) {
        for (_, row) in self.rows.iter_mut().filter(|(queue, _)| brokers.contains(&queue.broker_name)) {
            row.doubted = row.confirmed.is_some();
        }
    }

    /// Sends the offset of this queue soon instead of with the next round.
    pub(crate) fn hurry(&mut self, queue: &MessageQueue) {
        if let Some(row) = self.rows.get_mut(queue) {
            row.urgent = row.is_dirty();
        }
    }

    /// The queue is given up; its window's last word is `offset`. The offset is sent once more at most, since the next
    /// owner may be further soon.
    pub(crate) fn leave(&mut self, queue: &MessageQueue, epoch: Epoch, offset: i64) {
        self.update(queue, epoch, offset);
        let Some(row) = self.rows.get_mut(queue) else { return };
        row.leaving = true;
        row.urgent = true;
        if !row.is_dirty() && row.in_flight.is_none() {
            self.rows.remove(queue);
        }
    }

    /// A queue that is being given up is no longer in its topic's route: no other member can own it. Its offset counts when it
    /// is back.
    pub(crate) fn remember(&mut self, queue: &MessageQueue, now: Instant) {
        if let Some(row) = self.rows.get(queue) {
            self.departed.insert(queue.clone(), Departed { offset: row.consumed, until: now + REMEMBERED });
        }
    }

    /// Queues that have a row.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if the queue has an offset that its broker is not known to have.
    pub(crate) fn is_dirty(&self, queue: &MessageQueue) -> bool {
        self.rows.get(queue).is_some_and(OffsetRow::is_dirty)
    }

    /// The commits of queues that have got on, but for those whose last commit failed: these wait for the next round.
    pub(crate) fn progress(&mut self, now: Instant) -> Vec<Commit> {
        self.take(now, |row| row.failures == 0)
    }

    /// The commits of all queues that have something new: every few seconds, and before the consumer ends.
    pub(crate) fn flush(&mut self, now: Instant) -> Vec<Commit> {
        self.take(now, |_| true)
    }

    /// The commits that must not wait for the next round: of starts that were chosen, of offsets that were overruled, of
    /// queues that were given up. To be asked for after each of these, and after each answer, which may have been in
    /// their way.
    pub(crate) fn hurried(&mut self, now: Instant) -> Vec<Commit> {
        self.take(now, |row| row.urgent)
    }

    /// The broker has stored a commit, or not: refused, unanswered, or never sent. Then the next round tries again.
    /// Returns how many commits of the queue have failed in a row.
    pub(crate) fn answered(&mut self, queue: &MessageQueue, ticket: CommitTicket, stored: bool) -> u32 {
        let Some(row) = self.rows.get_mut(queue) else { return u32::from(!stored) };
        let Some(commit) = row.in_flight.take_if(|commit| commit.ticket == ticket) else { return 0 };
        // Where this is in vain, the broker is away again, and there will be another doubt when it is back.
        row.doubted = false;
        if stored {
            row.confirmed = Some(commit.offset);
        }
        row.failures = if stored { 0 } else { row.failures.saturating_add(1) };
        let failures = row.failures;
        if row.leaving && (!row.is_dirty() || commit.offset == row.consumed) {
            self.rows.remove(queue);
        }
        failures
    }

    /// A master has answered a pull on which `offset` rode: it has stored it when it received the pull.
    pub(crate) fn rode(&mut self, queue: &MessageQueue, epoch: Epoch, offset: i64) {
        let Some(row) = self.rows.get_mut(queue).filter(|row| row.epoch == epoch) else { return };
        // A greater offset than ours was overruled meanwhile; a smaller one than confirmed was sent before it.
        if offset <= row.consumed {
            row.confirmed = row.confirmed.max(Some(offset));
        }
    }

    /// The offsets of which no broker is known to have them.
    pub(crate) fn unconfirmed(&self) -> Vec<Unconfirmed> {
        let dirty = self.rows.iter().filter(|(_, row)| row.is_dirty());
        dirty
            .map(|(queue, row)| Unconfirmed { queue: queue.clone(), consumed: row.consumed, confirmed: row.confirmed })
            .collect()
    }

    /// The offset that would be sent for each queue.
    #[cfg(test)]
    pub(crate) fn consumed(&self) -> impl Iterator<Item = (&MessageQueue, Epoch, i64)> {
        let rows = self.rows.iter().filter(|(_, row)| !row.leaving);
        rows.map(|(queue, row)| (queue, row.epoch, row.consumed))
    }

    fn take(&mut self, now: Instant, wanted: impl Fn(&OffsetRow) -> bool) -> Vec<Commit> {
        let mut commits = Vec::new();
        for (queue, row) in &mut self.rows {
            row.in_flight.take_if(|commit| commit.overdue <= now);
            if row.in_flight.is_some() || !row.is_dirty() || !wanted(row) {
                continue;
            }
            self.last_ticket += 1;
            let ticket = CommitTicket(self.last_ticket);
            row.urgent = false;
            row.in_flight = Some(InFlight { ticket, offset: row.consumed, overdue: now + ANSWER_OVERDUE });
            commits.push(Commit { queue: queue.clone(), offset: row.consumed, ticket });
        }
        commits
    }
}

#[derive(Debug)]
struct OffsetRow {
    /// Of the current window.
    epoch: Epoch,
    /// The next offset the group is to consume.
    consumed: i64,
    /// The last offset that the broker has confirmed.
    confirmed: Option<i64>,
    in_flight: Option<InFlight>,
    /// Commits in a row that were not stored.
    failures: u32,
    /// True if the broker may have lost what it confirmed.
    doubted: bool,
    /// Not to wait for the next round.
    urgent: bool,
    /// Given up; the row ends with its last commit.
    leaving: bool,
}

#[derive(Debug)]
struct InFlight {
    ticket: CommitTicket,
    offset: i64,
    overdue: Instant,
}

impl OffsetRow {
    fn is_dirty(&self) -> bool {
        self.doubted || self.confirmed != Some(self.consumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::vectors::vectors;

    const EPOCH: Epoch = Epoch(1);
    const NEXT: Epoch = Epoch(2);

    fn queue(id: i32) -> MessageQueue {
        MessageQueue::new("T", "b", id)
    }

    #[test]
    fn a_value_from_a_window_that_was_replaced_is_never_stored() {
        let now = Instant::now();
        let mut store = store();
        store.overrule(&queue(0), NEXT, 5);
        store.update(&queue(0), EPOCH, 1000);
        store.rode(&queue(0), EPOCH, 5);
        let reset = store.hurried(now).remove(0);
        assert_eq!(reset.offset, 5);
        store.answered(&queue(0), reset.ticket, true);
        store.leave(&queue(0), EPOCH, 1000);
        assert!(store.rows.is_empty());
    }

    #[test]
    fn an_offset_outlives_the_queue_that_vanishes_with_its_broker() {
        let now = Instant::now();
        let mut store = store();
        store.update(&queue(0), EPOCH, 20);
        store.remember(&queue(0), now);
        store.leave(&queue(0), EPOCH, 20);
        // The broker is back, with what it had written.
        assert_eq!(store.resumed(&queue(0), Some(12), now), Some(20));
        assert_eq!(store.resumed(&queue(0), None, now), Some(20), "it had written nothing at all");
        store.begin(&queue(0), NEXT, 20, true);
        assert_eq!(offsets(&store.hurried(now)), [20], "the broker does not have it any more");
        assert_eq!(store.resumed(&queue(0), Some(12), now), Some(12), "once");
        store.remember(&queue(0), now);
        assert_eq!(store.resumed(&queue(0), Some(30), now), Some(30), "another member was further");
        assert_eq!(store.resumed(&queue(0), None, now + REMEMBERED), None, "not for ever");
    }

    #[test]
    fn progress_is_sent_at_once_but_not_where_a_commit_failed() {
        let now = Instant::now();
        let mut store = store();
        store.update(&queue(0), EPOCH, 12);
        let commit = store.progress(now).remove(0);
        store.update(&queue(0), EPOCH, 13);
        assert!(store.progress(now).is_empty() && store.is_dirty(&queue(0)));
        store.answered(&queue(0), commit.ticket, false);
        assert!(store.progress(now).is_empty());
        assert_eq!(offsets(&store.flush(now)), [13]);
    }

    /// A store that owns queue 0 from offset 10, which the broker has.
    fn store() -> OffsetStore {
        let mut store = OffsetStore::new();
        store.begin(&queue(0), EPOCH, 10, true);
        store
    }

    #[test]
    fn what_a_broker_had_confirmed_is_sent_once_more_after_it_was_lost() {
        let now = Instant::now();
        let mut store = store();
        store.doubt(&["another".into()].into());
        assert_eq!(store.flush(now), []);
        for stored in [false, true] {
            store.doubt(&["b".into()].into());
            assert_eq!(store.unconfirmed().len(), 1);
            let commits = store.flush(now);
            assert_eq!(offsets(&commits), [10]);
            store.answered(&queue(0), commits[0].ticket, stored);
            assert_eq!((store.flush(now), store.unconfirmed()), (vec![], vec![]));
        }
    }

    fn offsets(commits: &[Commit]) -> Vec<i64> {
        commits.iter().map(|commit| commit.offset).collect()
    }

    #[test]
    fn off_03_updates_are_those_of_the_vectors() {
        for id in ["OFFSET-001", "OFFSET-012", "OFFSET-013"] {
            let vector = vectors(id).remove(0);
            let mut store = OffsetStore::new();
            store.begin(&queue(0), EPOCH, vector["input"]["start"].as_i64().unwrap_or(0), true);
            let mut values = Vec::new();
            for update in vector["input"]["updates"].as_array().unwrap() {
                let offset = update[0].as_i64().unwrap();
                match update[1].as_bool().unwrap() {
                    true => store.update(&queue(0), EPOCH, offset),
                    false => store.overrule(&queue(0), EPOCH, offset),
                }
                values.push(store.rows[&queue(0)].consumed);
            }
            assert_eq!(serde_json::json!(values), vector["expected"]["values"], "{id}");
        }
    }

    #[test]
    fn what_has_changed_is_sent_until_it_is_confirmed() {
        let now = Instant::now();
        let mut store = store();
        store.begin(&queue(1), EPOCH, 5, true);
        assert!(store.flush(now).is_empty());
        store.update(&queue(0), EPOCH, 12);
        store.update(&queue(0), EPOCH, 11);
        assert!(store.hurried(now).is_empty(), "it may wait for the next round");
        let commits = store.flush(now);
        assert_eq!(commits.iter().map(|commit| (commit.queue.queue_id, commit.offset)).collect::<Vec<_>>(), [(0, 12)]);
        store.answered(&queue(0), commits[0].ticket, true);
        assert!(store.flush(now).is_empty());
        assert!(store.unconfirmed().is_empty());
    }

    #[test]
    fn a_chosen_start_is_stored_soon_and_a_stored_one_is_not() {
        let mut store = store();
        store.begin(&queue(1), EPOCH, 70, false);
        assert_eq!(offsets(&store.hurried(Instant::now())), [70]);
    }

    #[test]
    fn a_queue_in_a_hurry_with_nothing_new_sends_nothing() {
        let mut store = store();
        store.hurry(&queue(0));
        store.update(&queue(0), EPOCH, 12);
        assert!(store.hurried(Instant::now()).is_empty());
        store.hurry(&queue(0));
        assert_eq!(offsets(&store.hurried(Instant::now())), [12]);
    }

    #[test]
    fn a_commit_is_not_overtaken_by_the_next() {
        let now = Instant::now();
        let mut store = store();
        store.update(&queue(0), EPOCH, 12);
        let first = store.flush(now).remove(0);
        store.update(&queue(0), EPOCH, 15);
        assert!(store.flush(now).is_empty(), "one is under way");
        store.answered(&queue(0), first.ticket, true);
        assert_eq!(offsets(&store.flush(now)), [15]);
    }

    #[test]
    fn commits_that_fail_in_a_row_are_counted() {
        let now = Instant::now();
        let mut store = store();
        let mut counts = Vec::new();
        for (offset, stored) in [(11, false), (12, false), (13, true), (14, false)] {
            store.update(&queue(0), EPOCH, offset);
            let commit = store.flush(now).remove(0);
            counts.push(store.answered(&queue(0), commit.ticket, stored));
        }
        assert_eq!(counts, [1, 2, 0, 1]);
    }

    #[test]
    fn off_09_a_refused_commit_is_sent_again_in_the_next_round() {
        let now = Instant::now();
        let mut store = store();
        store.update(&queue(0), EPOCH, 12);
        let first = store.flush(now).remove(0);
        store.answered(&queue(0), first.ticket, false);
        assert!(store.hurried(now).is_empty());
        assert_eq!(
            store.unconfirmed(),
            [Unconfirmed { queue: queue(0), consumed: 12, confirmed: Some(10) }],
            "it is told at shutdown"
        );
        assert_eq!(offsets(&store.flush(now)), [12]);
    }

    #[test]
    fn a_commit_without_any_answer_does_not_block_its_queue() {
        let start = Instant::now();
        let mut store = store();
        store.update(&queue(0), EPOCH, 12);
        let lost = store.flush(start).remove(0);
        assert!(store.flush(start + ANSWER_OVERDUE - Duration::from_secs(1)).is_empty());
        let again = store.flush(start + ANSWER_OVERDUE).remove(0);
        store.answered(&queue(0), lost.ticket, true);
        assert_eq!(store.unconfirmed().len(), 1, "a late answer tells nothing about the later commit");
        store.answered(&queue(0), again.ticket, true);
        assert!(store.unconfirmed().is_empty());
    }

    #[test]
    fn an_overruling_offset_goes_back_and_follows_what_is_under_way() {
        let now = Instant::now();
        let mut store = store();
        store.update(&queue(0), EPOCH, 100);
        let before = store.flush(now).remove(0);
        store.overrule(&queue(0), EPOCH, 50);
        assert!(store.hurried(now).is_empty(), "the commit of 100 may still arrive");
        store.answered(&queue(0), before.ticket, true);
        assert_eq!(offsets(&store.hurried(now)), [50]);
    }

    #[test]
    fn a_commit_that_rode_on_a_pull_counts() {
        let now = Instant::now();
        let mut store = store();
        store.update(&queue(0), EPOCH, 12);
        store.rode(&queue(0), EPOCH, 12);
        assert!(store.flush(now).is_empty());
        store.update(&queue(0), EPOCH, 14);
        store.rode(&queue(0), EPOCH, 12);
        assert_eq!(store.unconfirmed()[0].confirmed, Some(12));
        store.overrule(&queue(0), EPOCH, 5);
        store.rode(&queue(0), EPOCH, 12);
        assert_eq!(offsets(&store.flush(now)), [5], "a ride from before the reset says nothing");
    }

    #[test]
    fn a_ride_that_is_answered_late_changes_nothing() {
        let now = Instant::now();
        let mut store = store();
        store.update(&queue(0), EPOCH, 14);
        let commit = store.flush(now).remove(0);
        store.answered(&queue(0), commit.ticket, true);
        store.rode(&queue(0), EPOCH, 12);
        assert_eq!(store.flush(now), [], "14 was stored after it");
        store.overrule(&queue(0), EPOCH, 5);
        store.rode(&queue(0), EPOCH, 14);
        store.update(&queue(0), EPOCH, 14);
        assert_eq!(offsets(&store.flush(now)), [14], "the reset may have come after the ride");
    }

    #[test]
    fn a_queue_that_is_given_up_is_stored_once_more_and_forgotten() {
        let now = Instant::now();
        for stored in [true, false] {
            let mut store = store();
            store.leave(&queue(0), EPOCH, 20);
            let last = store.hurried(now).remove(0);
            assert_eq!(last.offset, 20);
            store.update(&queue(0), EPOCH, 30);
            store.overrule(&queue(0), EPOCH, 40);
            store.answered(&queue(0), last.ticket, stored);
            assert!(store.rows.is_empty() && store.flush(now).is_empty());
        }
    }

    #[test]
    fn a_queue_given_up_while_a_commit_is_under_way_still_gets_its_last_word() {
        let now = Instant::now();
        for stored in [true, false] {
            let mut store = store();
            store.update(&queue(0), EPOCH, 15);
            let earlier = store.flush(now).remove(0);
            store.leave(&queue(0), EPOCH, 20);
            store.answered(&queue(0), earlier.ticket, stored);
            let last = store.hurried(now).remove(0);
            assert_eq!(last.offset, 20);
            store.answered(&queue(0), last.ticket, true);
            assert!(store.rows.is_empty());
        }
    }

    #[test]
    fn of_a_queue_that_is_forgotten_a_failed_commit_still_counts() {
        let start = Instant::now();
        let mut store = store();
        store.leave(&queue(0), EPOCH, 20);
        let slow = store.hurried(start).remove(0);
        let again = store.flush(start + ANSWER_OVERDUE).remove(0);
        assert_eq!(store.answered(&queue(0), again.ticket, true), 0);
        assert!(store.rows.is_empty());
        assert_eq!([true, false].map(|stored| store.answered(&queue(0), slow.ticket, stored)), [0, 1]);
    }

    #[test]
    fn a_clean_queue_that_is_given_up_is_forgotten_at_once() {
        let mut store = store();
        store.leave(&queue(0), EPOCH, 10);
        assert!(store.rows.is_empty());
    }

    #[test]
    fn a_queue_that_comes_back_begins_anew() {
        let now = Instant::now();
        let mut store = store();
        store.leave(&queue(0), EPOCH, 20);
        let last = store.hurried(now).remove(0);
        store.begin(&queue(0), EPOCH, 5, true);
        store.answered(&queue(0), last.ticket, true);
        assert_eq!(store.rows[&queue(0)].consumed, 5);
        assert!(store.flush(now).is_empty(), "an offset of our earlier time is not sent");
    }
}
