//! The one driver of a consumer's windows and offsets: each step that opens, moves, replaces or closes a window takes its
//! row in the offset store along, and every commit leaves from here.
//!
//! Runs on `rmq-pull` (windows), `rmq-timer` (rounds), workers (progress) and the thread of a shutdown; blocks on none
//! but the last. Each lock is a leaf. Between the look into a window and the update of the store another thread may
//! replace the window: the timer reads 1000 from the old one, `rmq-pull` closes it and overrules the offset with 50, and
//! the late 1000 would undo that. So a value bears the epoch of its window, and the store takes no other than the
//! current one's.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use crate::client::Core;
use crate::error::{Error, Result};
use crate::logging::warn;
use crate::message::MessageQueue;
use crate::repeats::Repeats;

use crate::consumer::offset::broker::BrokerOffsets;
use crate::consumer::offset::store::{Commit, OffsetStore};
use crate::consumer::pull::event::Epoch;
use crate::consumer::pull::window::PullWindow;

/// Progress is sent after this long, so that what a crash repeats is little; with more than [`QUEUES_AT_PACE`] queues in
/// proportion later, so that the brokers of many queues get no more than about 160 commits a second.
const PACE: Duration = Duration::from_millis(100);
const QUEUES_AT_PACE: usize = 16;

/// Windows and offsets of one consumer.
pub(crate) struct OffsetDriver {
    core: Arc<Core>,
    group: Arc<str>,
    /// The back end that keeps the offsets.
    kept: BrokerOffsets,
    windows: RwLock<HashMap<MessageQueue, Arc<PullWindow>>>,
    store: Mutex<OffsetStore>,
    /// A commit of progress is planned.
    is_planned: AtomicBool,
    /// Commits that failed, by broker and code.
    repeats: Repeats,
}

impl OffsetDriver {
    pub(crate) fn new(core: Arc<Core>, group: Arc<str>) -> Arc<Self> {
        let kept = BrokerOffsets::new(Arc::clone(&core), Arc::clone(&group));
        Arc::new(Self {
            core,
            group,
            kept,
            windows: RwLock::default(),
            store: Mutex::new(OffsetStore::new()),
            is_planned: AtomicBool::new(false),
            repeats: Repeats::default(),
        })
    }

    // --- Windows ---

    pub(crate) fn window(&self, queue: &MessageQueue) -> Option<Arc<PullWindow>> {
        self.windows.read().get(queue).cloned()
    }

    pub(crate) fn all_windows(&self) -> Vec<Arc<PullWindow>> {
        self.windows.read().values().cloned().collect()
    }

    /// The queues that have a window, in their order.
    pub(crate) fn queues(&self) -> Vec<MessageQueue> {
        let mut queues: Vec<_> = self.windows.read().keys().cloned().collect();
        queues.sort();
        queues
    }

    /// Reads the group's offset in a queue that becomes ours; `None` if it has none.
    pub(crate) fn read(
        self: &Arc<Self>,
        queue: &MessageQueue,
        then: impl FnOnce(Result<Option<i64>>) + Send + 'static,
    ) {
        let (driver, asked) = (Arc::clone(self), queue.clone());
        self.kept.read(queue, move |stored| {
            then(stored.map(|stored| driver.store.lock().resumed(&asked, stored, Instant::now())));
        });
    }

    /// A queue is ours and is consumed from `offset`, which the broker has `stored` or which was chosen.
    pub(crate) fn open(self: &Arc<Self>, queue: MessageQueue, epoch: Epoch, offset: i64, stored: bool) {
        self.store.lock().begin(&queue, epoch, offset, stored);
        self.windows.write().insert(queue.clone(), PullWindow::new(queue, epoch, offset));
        self.send_hurried();
    }

    /// The broker has no messages before `offset` any more: the window passes over them.
    pub(crate) fn skip_to(self: &Arc<Self>, queue: &MessageQueue, epoch: Epoch, offset: i64) {
        let Some(window) = self.window(queue).filter(|window| window.epoch == epoch) else { return };
        window.messages.lock().advance(offset);
        self.note(&window);
        self.store.lock().hurry(queue);
        self.send_hurried();
    }

    /// The queue goes on at `offset` in a new window, although the group may have been further already.
    pub(crate) fn replace(self: &Arc<Self>, queue: MessageQueue, epoch: Epoch, offset: i64) {
        if let Some(window) = self.windows.write().remove(&queue) {
            window.messages.lock().close();
        }
        self.store.lock().overrule(&queue, epoch, offset);
        self.windows.write().insert(queue.clone(), PullWindow::new(queue, epoch, offset));
        self.send_hurried();
    }

    /// The queue is given up.
    pub(crate) fn close(self: &Arc<Self>, queue: &MessageQueue) {
        let Some(window) = self.windows.write().remove(queue) else { return };
        let offset = window.messages.lock().close();
        let vanished = self.kept.has_lost(queue);
        {
            let mut store = self.store.lock();
            store.update(queue, window.epoch, offset);
            if vanished {
                store.remember(queue, Instant::now());
            }
            store.leave(queue, window.epoch, offset);
        }
        self.send_hurried();
    }

    /// Closes what is left at the consumer's end; nothing more is stored.
    pub(crate) fn close_all(&self) {
        let windows = std::mem::take(&mut *self.windows.write());
        for window in windows.into_values() {
            window.messages.lock().close();
        }
    }

    // --- Offsets ---

    /// The offset that rides on a pull from `offset` on: only where nothing of the window is under way. An offset that
    /// rides while messages are being consumed may be stored after the commit that follows them, when the broker is slow
    /// to look at this pull. Also 0, unlike in the Java client: what another member stored there late would stay for as
    /// long as nothing is consumed.
    pub(crate) fn ride(&self, window: &PullWindow, offset: i64) -> Option<i64> {
        let committable = self.note(window);
        (committable == offset).then_some(committable)
    }

    /// A master has answered a pull of a window on which `offset` rode.
    pub(crate) fn rode(&self, window: &PullWindow, offset: i64) {
        self.store.lock().rode(&window.queue, window.epoch, offset);
    }

    /// Messages were resolved: the offsets are sent soon.
    pub(crate) fn progressed(self: &Arc<Self>) {
        // Partner of the store in `send_progress`, which comes before the windows are looked at: progress that finds a
        // commit planned is seen by that look.
        if self.is_planned.load(Ordering::Relaxed) || self.is_planned.swap(true, Ordering::AcqRel) {
            return;
        }
        let busy = self.store.lock().len().div_ceil(QUEUES_AT_PACE).max(1);
        let pace = PACE.saturating_mul(u32::try_from(busy).unwrap_or(u32::MAX));
        let driver = Arc::downgrade(self);
        self.core.timer.after(pace, move || {
            if let Some(driver) = driver.upgrade() {
                driver.send_progress();
            }
        });
    }

    fn send_progress(self: &Arc<Self>) {
        self.is_planned.store(false, Ordering::SeqCst);
        self.collect();
        let commits = self.store.lock().progress(Instant::now());
        self.send(commits);
    }

    /// Sends the offsets of all queues that have got on.
    pub(crate) fn send_all(self: &Arc<Self>) {
        self.collect();
        let commits = self.store.lock().flush(Instant::now());
        self.send(commits);
    }

    /// These brokers may have lost what they had confirmed.
    pub(crate) fn doubt(&self, brokers: &BTreeSet<Arc<str>>) {
        self.store.lock().doubt(brokers);
    }

    /// Sends the offsets of all windows until the brokers have confirmed each. Returns the queues of which they have not
    /// by `deadline`.
    pub(crate) fn store_until(self: &Arc<Self>, deadline: Instant) -> Vec<MessageQueue> {
        self.collect();
        loop {
            // Before they are sent: answers may be here before this thread looks again.
            let before = self.store.lock().unconfirmed().len();
            let commits = self.store.lock().flush(Instant::now());
            let sent = !commits.is_empty();
            self.send(commits);
            if before == 0 || Instant::now() >= deadline || self.core.broken().is_some() {
                break;
            }
            let pause = deadline.min(Instant::now() + Duration::from_millis(if sent { 500 } else { 50 }));
            self.core.wait_for(pause, || self.store.lock().unconfirmed().len() < before);
        }
        self.store.lock().unconfirmed().into_iter().map(|offset| offset.queue).collect()
    }

    /// Takes the progress of each window into the store.
    fn collect(&self) {
        for window in self.all_windows() {
            self.note(&window);
        }
    }

    /// Takes the progress of a window into the store. Two locks, one after the other: see the head of this file.
    fn note(&self, window: &PullWindow) -> i64 {
        let offset = window.messages.lock().committable();
        self.store.lock().update(&window.queue, window.epoch, offset);
        offset
    }

    /// Sends the offsets that must not wait for the next round.
    fn send_hurried(self: &Arc<Self>) {
        let commits = self.store.lock().hurried(Instant::now());
        self.send(commits);
    }

    /// Logs a commit that failed, together with those of the broker's other queues.
    fn log_failure(&self, queue: &MessageQueue, offset: i64, error: &Error) {
        let cause = format!("commit {} {:?}", queue.broker_name, error.broker_code());
        let told = match error.broker_code() {
            Some(_) => self.repeats.note(&cause, Instant::now()),
            None => self.repeats.note_outage(&cause, Instant::now()),
        };
        if let Some(times) = told {
            let group = &self.group;
            warn!(
                "commit {group}: offset {offset} of {queue} failed ({times} times at this broker): {error}; sent again"
            );
        }
    }

    /// Commits offsets. The one place from which they go out, but for those that ride on pulls ([`Self::ride`]).
    fn send(self: &Arc<Self>, commits: Vec<Commit>) {
        for Commit { queue, offset, ticket } in commits {
            let (driver, committed) = (Arc::clone(self), queue.clone());
            self.kept.commit(&queue, offset, move |answer| {
                let failures = driver.store.lock().answered(&committed, ticket, answer.is_ok());
                if let Err(error) = &answer {
                    driver.log_failure(&committed, offset, error);
                }
                driver.send_hurried();
                if failures == 0 && driver.store.lock().is_dirty(&committed) {
                    driver.progressed();
                }
                driver.core.changed();
            });
        }
    }
}

impl fmt::Debug for OffsetDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OffsetDriver").field("group", &self.group).finish_non_exhaustive()
    }
}
