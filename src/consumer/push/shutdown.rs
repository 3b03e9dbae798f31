//! The end of a push consumer: its steps, and the report of what was left undone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};

use crate::deadline::deadline_after;
use crate::logging::info;
use crate::message::MessageQueue;
use crate::worker::is_service_thread;

use crate::consumer::assign::service::RebalanceEvent;
use crate::consumer::deliver::Delivery;
use crate::consumer::pull::process_queue::WindowSummary;
use crate::consumer::pull::pull_event::PullEvent;
use crate::consumer::pull::window::PullWindow;
use crate::consumer::push::PushConsumer;

/// Time for which a consumer that is dropped without `shutdown` waits for its listeners.
const DROP_GRACE: Duration = Duration::from_secs(1);

/// Outcome of [`PushConsumer::shutdown`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerReport {
    listeners_running: usize,
    messages_left: usize,
    failed_not_handed_back: usize,
    offsets_not_stored: Vec<MessageQueue>,
    brokers_not_told: Vec<String>,
    only_begun: bool,
    forked: bool,
    broken: Option<String>,
}

impl ConsumerReport {
    /// True if every message that was begun is acknowledged or handed back, and everything else was done as well.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self { messages_left: self.messages_left, ..Self::default() }
    }

    /// Listeners that were still running at the deadline. Their threads are left behind, and what they return is
    /// ignored: their messages are delivered again.
    #[must_use]
    pub fn listeners_running(&self) -> usize {
        self.listeners_running
    }

    /// Messages that were pulled and are not acknowledged: not begun, still running, or failed and not handed back. The
    /// brokers deliver them again.
    #[must_use]
    pub fn messages_left(&self) -> usize {
        self.messages_left
    }

    /// Part of [`messages_left`](Self::messages_left): messages that failed and that no broker took back by the deadline.
    /// They are delivered again, and their failure is not counted.
    #[must_use]
    pub fn failed_not_handed_back(&self) -> usize {
        self.failed_not_handed_back
    }

    /// Queues whose offset no broker has confirmed as stored: messages that were consumed there may be delivered again.
    #[must_use]
    pub fn offsets_not_stored(&self) -> &[MessageQueue] {
        &self.offsets_not_stored
    }

    /// Brokers that did not confirm by the deadline that this consumer is gone; they forget it within two minutes.
    #[must_use]
    pub fn brokers_not_told(&self) -> &[String] {
        &self.brokers_not_told
    }

    /// True if the end has only begun: the call came from one of the consumer's own threads, which cannot wait for itself,
    /// or another thread's call was not done by the deadline. Another call, or the drop of the consumer, completes it.
    #[must_use]
    pub fn only_begun(&self) -> bool {
        self.only_begun
    }

    /// True if the process is a child of the one that made the consumer: nothing was done.
    #[must_use]
    pub fn forked(&self) -> bool {
        self.forked
    }

    /// Reason why the client is broken, if one of its threads has died: see
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal).
    #[must_use]
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }
}

impl PushConsumer {
    /// Ends the consumer: pulls no more, begins no more messages, waits until running listeners have finished and what
    /// failed is handed back, stores the offsets until the brokers confirm them, and unregisters at the brokers.
    ///
    /// May be called from any thread and any number of times: the first call ends the consumer, and every later one returns
    /// its report. From a listener or a callback it only begins the end, and says so.
    pub fn shutdown(&self, timeout: Duration) -> ConsumerReport {
        if self.core().check_process().is_err() {
            return ConsumerReport { forked: true, ..ConsumerReport::default() };
        }
        let deadline = deadline_after(timeout);
        let only_begun = || ConsumerReport { only_begun: true, ..ConsumerReport::default() };
        if let Some(report) = self.ending.report() {
            return report;
        }
        if self.is_own_thread() {
            self.begin_end();
            return only_begun();
        }
        self.ending.run(deadline, || self.end(deadline)).unwrap_or_else(only_begun)
    }

    /// True on threads that an end would wait for.
    fn is_own_thread(&self) -> bool {
        self.delivery.pool().is_current() || self.core().callbacks.is_current() || is_service_thread()
    }

    /// Begins the end; what is returned ends when both services have let go of the consumer. Any number of times.
    fn begin_end(&self) -> Receiver<()> {
        self.group.stop();
        let done = self.stop_pulling();
        self.drain_windows();
        self.delivery.close();
        done
    }

    fn end(&self, deadline: Instant) -> ConsumerReport {
        let done = self.begin_end();
        // Both threads drop their end when they no longer know the consumer; no window is opened after that.
        let _ = done.recv_deadline(deadline);
        let windows = self.drain_windows();
        let listeners_running = self.delivery.pool().join(deadline).max(self.delivery.pool().running());
        self.core()
            .wait_for(deadline, || windows.iter().all(|window| window.messages.lock().summary().sending_back == 0));
        let offsets_not_stored = self.group.offsets.store_until(deadline);
        let left: Vec<_> = windows.iter().map(|window| window.messages.lock().summary()).collect();
        let brokers_not_told = self.core().part(self.group.id, deadline);
        self.group.offsets.close_all();
        let report = ConsumerReport {
            listeners_running,
            messages_left: left.iter().map(|summary| summary.unresolved).sum(),
            failed_not_handed_back: left.iter().map(WindowSummary::failed).sum(),
            offsets_not_stored,
            brokers_not_told,
            broken: self.core().broken(),
            ..ConsumerReport::default()
        };
        info!("consumer {} has ended: {report:?}", self.group.name);
        report
    }

    /// Lets nothing more begin in the windows there are.
    fn drain_windows(&self) -> Vec<Arc<PullWindow>> {
        let windows = self.group.offsets.all_windows();
        for window in &windows {
            window.messages.lock().drain();
        }
        windows
    }

    /// Takes the consumer out of both services; what is returned ends when both have let go of it.
    fn stop_pulling(&self) -> Receiver<()> {
        let (done, ended) = bounded(0);
        let consumer = self.group.id;
        let _ = self.threads.rebalance.events().send(RebalanceEvent::End { consumer, done: done.clone() });
        let _ = self.threads.pull.events().send(PullEvent::End { consumer, done });
        ended
    }
}

impl Drop for PushConsumer {
    fn drop(&mut self) {
        if self.core().check_process().is_err() {
            // A child of the process: the threads and their channels are the parent's.
            std::mem::forget(Arc::clone(&self.threads));
            return;
        }
        // A thread of the consumer's own cannot wait for itself: what can be begun is.
        let grace = if self.is_own_thread() { Duration::ZERO } else { DROP_GRACE };
        let deadline = Instant::now() + grace;
        self.ending.run(deadline, || self.end(deadline));
    }
}
