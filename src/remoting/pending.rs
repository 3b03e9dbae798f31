//! Requests without an outcome, and the delivery of outcomes to their callers.
//!
//! The invariant of the whole layer: every accepted request is completed exactly once, by its response, its deadline,
//! the loss of its connection, or shutdown. The mechanism: *taking the entry out of the table is the right to complete
//! it*, and the table is only touched under its connection's lock. Runs on callers' threads and on `rmq-remoting`;
//! never completes anything while the lock is held.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::Instant;

use parking_lot::Mutex;

use crate::error::{Certainty, Error, ErrorKind, Phase, Source};
use crate::wire::RemotingCommand;
use crate::worker::contain;

/// Failure of a request: the reason why it got no response.
#[derive(Clone, Debug)]
pub(crate) struct CallError {
    pub(crate) kind: ErrorKind,
    pub(crate) phase: Phase,
    pub(crate) certainty: Certainty,
    pub(crate) address: Arc<str>,
    pub(crate) detail: Arc<str>,
    /// Error of the operating system, the transport or the decoder that caused it.
    pub(crate) source: Option<Source>,
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        Self::new(error.kind, &*error.detail)
            .with_certainty(error.certainty)
            .with_address(&error.address)
            .with_shared_source(error.source)
    }
}

/// Single outcome of a request: the peer's response, whatever its code, or the reason why there is none.
pub(crate) type Outcome = Result<RemotingCommand, CallError>;

/// Function of an asynchronous request that runs exactly once, with the outcome.
///
/// It runs on `rmq-remoting`, or on the caller's thread if the request is refused, and must not block. Dropped without
/// an outcome it completes with an error: no path can lose it.
pub(crate) struct Completion(Option<Box<dyn Complete>>);

/// Receiver of an outcome: a closure, or a boxed state that goes on without another allocation.
pub(crate) trait Complete: Send {
    /// Called exactly once.
    fn complete(self: Box<Self>, outcome: Outcome);
}

impl<F: FnOnce(Outcome) + Send> Complete for F {
    fn complete(self: Box<Self>, outcome: Outcome) {
        self(outcome);
    }
}

impl Completion {
    pub(crate) fn new(complete: impl FnOnce(Outcome) + Send + 'static) -> Self {
        Self::of(Box::new(complete))
    }

    pub(crate) fn of(complete: Box<dyn Complete>) -> Self {
        Self(Some(complete))
    }

    pub(crate) fn complete(mut self, outcome: Outcome) {
        if let Some(complete) = self.0.take() {
            complete.complete(outcome);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(complete) = self.0.take() {
            contain("a completion", || complete.complete(Err(dropped())));
        }
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completion")
    }
}

/// Outcome of a request that is dropped without one, as if the thread that delivers it unwinds.
fn dropped() -> CallError {
    CallError {
        kind: ErrorKind::Internal,
        phase: Phase::Reply,
        certainty: Certainty::Unknown,
        address: Arc::from(""),
        detail: Arc::from("the request was dropped without an outcome"),
        source: None,
    }
}

/// Place of a synchronous caller's outcome.
#[derive(Debug)]
pub(super) struct Slot {
    caller: Thread,
    outcome: Mutex<Option<Outcome>>,
}

impl Slot {
    pub(super) fn of_this_thread() -> Arc<Self> {
        Arc::new(Self { caller: thread::current(), outcome: Mutex::new(None) })
    }

    fn complete(&self, outcome: Outcome) {
        *self.outcome.lock() = Some(outcome);
        self.caller.unpark();
    }

    /// Waits for the outcome; `None` if there is none by `deadline`. Only the thread that made the slot may wait.
    pub(super) fn wait_until(&self, deadline: Instant) -> Option<Outcome> {
        loop {
            if let Some(outcome) = self.outcome.lock().take() {
                return Some(outcome);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    }
}

/// Right to complete a slot. Dropped without an outcome on another thread than the caller's, it completes with an
/// error: no path can leave a caller parked.
#[derive(Debug)]
pub(super) struct Parked(Option<Arc<Slot>>);

impl Parked {
    pub(super) fn new(slot: &Arc<Slot>) -> Self {
        Self(Some(Arc::clone(slot)))
    }

    fn complete(mut self, outcome: Outcome) {
        if let Some(slot) = self.0.take() {
            slot.complete(outcome);
        }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        // A caller that gives up its request drops this itself, and no longer waits.
        if let Some(slot) = self.0.take().filter(|slot| slot.caller.id() != thread::current().id()) {
            slot.complete(Err(dropped()));
        }
    }
}

/// Receiver of the outcome of one request.
#[derive(Debug)]
pub(super) enum Waiter {
    /// A parked thread, which watches its deadline itself.
    Parked(Parked),
    /// A completion, whose deadline the selector watches.
    Completion(Completion),
}

impl Waiter {
    /// True if no thread waits for the outcome.
    pub(super) fn is_completion(&self) -> bool {
        matches!(self, Self::Completion(_))
    }

    /// Delivers the outcome. Not to be called under a lock.
    pub(super) fn complete(self, outcome: Outcome) {
        match self {
            Self::Parked(parked) => parked.complete(outcome),
            Self::Completion(completion) => completion.complete(outcome),
        }
    }
}

/// One request without an outcome.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) waiter: Waiter,
    pub(super) deadline: Instant,
    /// Position of its frame in the connection's stream of bytes. A byte of it has left only if more than its start was
    /// given away.
    pub(super) frame: Range<u64>,
}

/// Pending table of one connection, by opaque.
#[derive(Debug, Default)]
pub(super) struct Pending {
    entries: HashMap<i32, Entry, BuildHasherDefault<OpaqueHasher>>,
    /// Lower bound of the completions' deadlines.
    earliest: Option<Instant>,
}

impl Pending {
    pub(super) fn insert(&mut self, opaque: i32, entry: Entry) {
        if entry.waiter.is_completion() {
            self.earliest = Some(self.earliest.map_or(entry.deadline, |earliest| earliest.min(entry.deadline)));
        }
        self.entries.insert(opaque, entry);
    }

    pub(super) fn take(&mut self, opaque: i32) -> Option<Entry> {
        self.entries.remove(&opaque)
    }

    /// Takes all entries, in the order of their frames.
    pub(super) fn take_all(&mut self) -> Vec<Entry> {
        self.earliest = None;
        let mut entries: Vec<_> = self.entries.drain().map(|(_, entry)| entry).collect();
        entries.sort_unstable_by_key(|entry| entry.frame.start);
        entries
    }

    /// Takes the completions whose deadline has come, in the order of their frames.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Entry> {
        if self.earliest.is_none_or(|earliest| now < earliest) {
            return Vec::new();
        }
        let mut expired: Vec<_> = self
            .entries
            .extract_if(|_, entry| entry.waiter.is_completion() && entry.deadline <= now)
            .map(|(_, entry)| entry)
            .collect();
        expired.sort_unstable_by_key(|entry| entry.frame.start);
        self.earliest =
            self.entries.values().filter(|entry| entry.waiter.is_completion()).map(|entry| entry.deadline).min();
        expired
    }

    pub(super) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Hasher of opaques. This client counts them up, so that no peer can choose them: one multiplication spreads them over
/// the table.
#[derive(Default)]
pub(super) struct OpaqueHasher(u64);

impl Hasher for OpaqueHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 << 8) | u64::from(byte);
        }
    }

    fn write_i32(&mut self, opaque: i32) {
        self.0 = u64::from(opaque.cast_unsigned()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use crossbeam_channel::{Sender, unbounded};

    use super::*;

    fn completion(outcomes: &Sender<Outcome>) -> Completion {
        let outcomes = outcomes.clone();
        Completion::new(move |outcome| {
            let _ = outcomes.send(outcome);
        })
    }

    fn entry(outcomes: &Sender<Outcome>, deadline: Instant) -> Entry {
        Entry { waiter: Waiter::Completion(completion(outcomes)), deadline, frame: 0..1 }
    }

    #[test]
    fn a_completion_dropped_without_a_verdict_completes_with_an_error() {
        let (sender, outcomes) = unbounded();
        drop(completion(&sender));
        drop(sender);
        let errors: Vec<_> = outcomes.iter().map(|outcome| outcome.unwrap_err().kind).collect();
        assert_eq!(errors, [ErrorKind::Internal]);
    }

    #[test]
    fn a_parked_caller_whose_waiter_is_dropped_elsewhere_gets_an_error_and_does_not_wait_on() {
        let slot = Slot::of_this_thread();
        let waiter = Waiter::Parked(Parked::new(&slot));
        thread::scope(|scope| {
            thread::Builder::new().spawn_scoped(scope, || drop(waiter)).unwrap();
        });
        let outcome = slot.wait_until(Instant::now() + Duration::from_secs(30)).expect("an outcome");
        assert_eq!(outcome.unwrap_err().kind, ErrorKind::Internal);
        // One that the caller itself gives up leaves no wake-up behind, which would disturb whatever waits next.
        drop(Waiter::Parked(Parked::new(&slot)));
        assert!(slot.outcome.lock().is_none());
    }

    #[test]
    fn only_what_is_overdue_expires_and_the_next_deadline_is_known() {
        let (sender, _outcomes) = unbounded();
        let now = Instant::now();
        let mut pending = Pending::default();
        for (opaque, milliseconds) in [(1, 10), (2, 20), (3, 30)] {
            pending.insert(opaque, entry(&sender, now + Duration::from_millis(milliseconds)));
        }
        assert_eq!(pending.take_expired(now).len(), 0);
        assert_eq!(pending.take_expired(now + Duration::from_millis(10)).len(), 1, "at its deadline");
        assert_eq!(pending.take_expired(now + Duration::from_millis(25)).len(), 1);
        assert_eq!(pending.earliest(), Some(now + Duration::from_millis(30)));
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn those_that_a_lost_connection_leaves_come_in_the_order_of_their_frames() {
        let (sender, _outcomes) = unbounded();
        let (mut pending, now) = (Pending::default(), Instant::now());
        for opaque in 0..200 {
            let start = u64::try_from(opaque).unwrap() * 10;
            pending.insert(opaque, Entry { frame: start..start + 10, ..entry(&sender, now) });
        }
        let starts: Vec<_> = pending.take_all().into_iter().map(|entry| entry.frame.start).collect();
        assert_eq!(starts.len(), 200);
        assert!(starts.is_sorted(), "{starts:?}");
    }

    #[test]
    fn a_parked_caller_watches_its_deadline_itself() {
        let mut pending = Pending::default();
        let now = Instant::now();
        let waiter = Waiter::Parked(Parked::new(&Slot::of_this_thread()));
        pending.insert(1, Entry { waiter, deadline: now, frame: 0..1 });
        assert_eq!(pending.earliest(), None);
        assert!(pending.take_expired(now + Duration::from_secs(1)).is_empty());
    }

    /// Else every look-up would walk through all that is pending.
    #[test]
    fn opaques_that_follow_each_other_have_hashes_of_their_own() {
        let hash = |opaque: i32| {
            let mut hasher = OpaqueHasher::default();
            hasher.write_i32(opaque);
            hasher.finish()
        };
        let hashes: BTreeSet<u64> = (0..1000).map(hash).collect();
        assert_eq!(hashes.len(), 1000);
        let tops: BTreeSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
        assert_eq!(tops.len(), 128, "the table tells entries of a place apart by their top bits");
    }
}
