//! Consume requests, from which workers claim messages without a lock. Pure.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::message::MessageExt;

/// A share in one pull's messages: as many workers as like take from it, each message once.
///
/// Taking a message from the cursor *is* the right to run it, or to send it back for having waited too long, or to
/// leave it to the broker; no one else can have it then. The cursor orders nothing but itself: the messages are
/// immutable and reach other threads with the request, and each outcome is reported under the window's lock.
pub(crate) struct ConsumeRequest {
    messages: Arc<Vec<MessageExt>>,
    /// The window's slot that the messages stand in.
    slot: u64,
    /// The first message of this request that is not claimed; `end` when all are.
    cursor: AtomicU32,
    end: u32,
    pub(super) handed_out: Instant,
    /// When each message from `first` on was claimed: milliseconds after `handed_out`, plus one; 0 while it waits.
    claimed: Box<[AtomicU32]>,
    first: u32,
}

impl ConsumeRequest {
    pub(super) fn new(messages: &Arc<Vec<MessageExt>>, slot: u64, range: Range<u32>, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            messages: Arc::clone(messages),
            slot,
            cursor: AtomicU32::new(range.start),
            end: range.end,
            handed_out: now,
            claimed: range.clone().map(|_| AtomicU32::new(0)).collect(),
            first: range.start,
        })
    }

    /// Takes up to `at_most` messages to run; `None` when none is left.
    pub(crate) fn claim(&self, at_most: usize, now: Instant) -> Option<Claim> {
        let range = self.take(u32::try_from(at_most).unwrap_or(u32::MAX))?;
        let elapsed = now.saturating_duration_since(self.handed_out).as_millis();
        let stamp = u32::try_from(elapsed).unwrap_or(u32::MAX).saturating_add(1);
        for index in range.clone() {
            if let Some(claimed) = self.stamp(index) {
                claimed.store(stamp, Relaxed);
            }
        }
        Some(Claim { slot: self.slot, range })
    }

    /// The messages of a claim on this request, in order of offsets.
    pub(crate) fn messages(&self, claim: &Claim) -> &[MessageExt] {
        let range = usize::try_from(claim.range.start).ok().zip(usize::try_from(claim.range.end).ok());
        range.and_then(|(start, end)| self.messages.get(start..end)).unwrap_or_default()
    }

    /// The messages of the request by their places in the slot.
    pub(super) fn range(&self) -> Range<u32> {
        self.first..self.end
    }

    /// The messages that no one has claimed yet.
    pub(crate) fn unclaimed(&self) -> Range<u32> {
        self.cursor.load(Relaxed)..self.end
    }

    pub(super) fn take(&self, at_most: u32) -> Option<Range<u32>> {
        let end_of = |start: u32| start.saturating_add(at_most).min(self.end);
        let moved = |start| Some(end_of(start)).filter(|end| *end != start);
        let start = self.cursor.fetch_update(Relaxed, Relaxed, moved).ok()?;
        Some(start..end_of(start))
    }

    fn stamp(&self, index: u32) -> Option<&AtomicU32> {
        self.claimed.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    pub(super) fn running_since(&self, index: u32) -> Option<Instant> {
        let stamp = self.stamp(index)?.load(Relaxed);
        self.handed_out.checked_add(Duration::from_millis(u64::from(stamp.checked_sub(1)?)))
    }
}

impl fmt::Debug for ConsumeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumeRequest")
            .field("slot", &self.slot)
            .field("unclaimed", &self.unclaimed())
            .field("handed_out", &self.handed_out)
            .finish_non_exhaustive()
    }
}

/// Messages that one worker has taken to run: the right, and the duty, to report their outcome to the window that the
/// request is from.
#[derive(Debug)]
#[must_use = "a claim that is dropped leaves its messages running for ever"]
pub(crate) struct Claim {
    pub(super) slot: u64,
    pub(super) range: Range<u32>,
}

impl Claim {
    /// Joins the claim that follows this one in the same request, so that a worker whose listener is quick reports many
    /// messages at once. Gives back one that does not follow.
    pub(crate) fn join(&mut self, next: Self) -> Result<(), Self> {
        if self.slot != next.slot || self.range.end != next.range.start {
            return Err(next);
        }
        self.range.end = next.range.end;
        Ok(())
    }

    /// Takes the first `count` messages out, or as many as there are, as a claim of their own.
    pub(crate) fn split_to(&mut self, count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let split = self.range.start.saturating_add(count).min(self.range.end);
        let first = Self { slot: self.slot, range: self.range.start..split };
        self.range.start = split;
        first
    }

    /// True if nothing is left of it; then nothing is to be reported.
    pub(crate) fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::fixtures::received;
    use crate::message::MessageQueue;

    /// A request for the messages from offset 0 on.
    fn request(count: u32, now: Instant) -> Arc<ConsumeRequest> {
        let queue = MessageQueue::new("T", "b", 0);
        let messages = (0..count).map(|offset| received(&queue, i64::from(offset), b"body")).collect();
        ConsumeRequest::new(&Arc::new(messages), 0, 0..count, now)
    }

    fn offsets(request: &ConsumeRequest, claim: &Claim) -> Vec<i64> {
        request.messages(claim).iter().map(MessageExt::queue_offset).collect()
    }

    fn claim(request: &ConsumeRequest, at_most: usize) -> Vec<i64> {
        offsets(request, &request.claim(at_most, Instant::now()).unwrap())
    }

    #[test]
    fn each_message_of_a_request_is_claimed_once() {
        let now = Instant::now();
        let request = request(5, now);
        assert_eq!(claim(&request, 2), [0, 1]);
        assert_eq!(claim(&request, 2), [2, 3]);
        assert_eq!(claim(&request, 2), [4]);
        assert!(request.claim(2, now).is_none());
        assert!(request.claim(0, now).is_none());
    }

    #[test]
    fn workers_on_several_threads_never_claim_the_same_message() {
        let now = Instant::now();
        let request = request(500, now);
        let claimed = parking_lot::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(claim) = request.claim(3, now) {
                        claimed.lock().extend(offsets(&request, &claim));
                    }
                });
            }
        });
        let mut claimed = claimed.into_inner();
        claimed.sort_unstable();
        assert_eq!(claimed, (0..500).collect::<Vec<i64>>());
    }
}
