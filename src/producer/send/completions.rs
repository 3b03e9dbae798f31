//! [`Completions`]: the results of asynchronous sends, fetched in batches by a thread of the user's own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::deadline::deadline_after;
use crate::error::{Error, ErrorKind, Result};
use crate::producer::send::result::SendResult;
use crate::producer::send::window::Permit;
use crate::producer::send::{AsyncSend, Done};
use crate::worker::check_may_wait;

/// A queue of finished sends, each under the token it was sent with.
///
/// Cheaper than callbacks: results are handed over in batches, on a thread that the user chooses, and no thread of the
/// library's own is needed. Clones are handles to the same queue; several producers may share one.
///
/// A message counts towards its producer's in-flight window until its result is taken from here: a program that sends
/// and never takes stops at the window, not at the end of memory.
/// So take on another thread than the one that sends, or let the sends
/// [`fail_when_full`](crate::producer::ProducerBuilder::fail_when_full) and take then: a call that waits for room on the only thread
/// that takes waits in vain.
///
/// ```
/// # use rocketmq_sync::{Completions, Message, Producer};
/// # use std::time::Duration;
/// # fn send(producer: &Producer) -> rocketmq_sync::Result<()> {
/// let completions = Completions::new();
/// for number in 0..100 {
///     producer.send_tracked(Message::new("TopicTest", format!("message {number}")), number, &completions)?;
/// }
/// let mut finished = Vec::new();
/// while finished.len() < 100 {
///     completions.take(&mut finished, Duration::from_secs(5))?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Completions {
    shared: Arc<SharedResults>,
}

struct SharedResults {
    queue: Mutex<ResultQueue>,
    filled: Condvar,
    /// `None` where the system cannot notify of forks; then no client can be made either.
    fork: Option<forkguard::Guard>,
}

impl Default for SharedResults {
    fn default() -> Self {
        Self { queue: Mutex::default(), filled: Condvar::new(), fork: forkguard::Guard::try_new().ok() }
    }
}

impl SharedResults {
    /// In a child of the process that made the queue its lock may be held by a thread that only the parent has.
    fn is_forked(&self) -> bool {
        self.fork.clone().is_some_and(|mut fork| fork.detected_fork())
    }
}

#[derive(Default)]
struct ResultQueue {
    /// Boxes as they come: what is moved is a pointer.
    #[allow(clippy::vec_box, reason = "a send is boxed long before it comes here, and is large")]
    finished: Vec<Box<AsyncSend<ReservedSlot>>>,
    waiting: usize,
}

/// A send that is over.
#[derive(Debug)]
#[non_exhaustive]
pub struct Completed {
    /// Token that the send was given.
    pub token: u64,
    /// Outcome of the send.
    pub result: Result<SendResult>,
}

impl Completions {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves everything that has finished behind what is in `into`; waits for `timeout` when there is nothing yet. Returns
    /// the number of results: 0 when none came in time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`] in a child of the process that made the queue; [`ErrorKind::WrongThread`] on a service thread
    /// of the library, if it may wait.
    pub fn take(&self, into: &mut Vec<Completed>, timeout: Duration) -> Result<usize> {
        if self.shared.is_forked() {
            let detail = "the process was forked after these completions were made: make new ones in the child";
            return Err(Error::new(ErrorKind::Forked, detail));
        }
        if !timeout.is_zero() {
            check_may_wait("Completions::take")?;
        }
        let deadline = deadline_after(timeout);
        let entries = {
            let mut queue = self.shared.queue.lock();
            while queue.finished.is_empty() {
                queue.waiting += 1;
                let late = self.shared.filled.wait_until(&mut queue, deadline).timed_out();
                queue.waiting -= 1;
                if late {
                    break;
                }
            }
            let capacity = queue.finished.len();
            std::mem::replace(&mut queue.finished, Vec::with_capacity(capacity))
        };
        let count = entries.len();
        into.extend(entries.into_iter().map(|send| {
            let (ReservedSlot { token, .. }, result) = send.into_result();
            Completed { token, result }
        }));
        Ok(count)
    }

    pub(crate) fn place(&self, token: u64, permit: Permit) -> ReservedSlot {
        ReservedSlot { shared: Some(Arc::clone(&self.shared)), token, permit }
    }
}

impl fmt::Debug for Completions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let finished = (!self.shared.is_forked()).then(|| self.shared.queue.lock().finished.len());
        f.debug_struct("Completions").field("finished", &finished).finish()
    }
}

/// Reserved slot of one send's result.
pub(crate) struct ReservedSlot {
    /// `None` once the result is in the queue, so that a queue without owners is freed.
    shared: Option<Arc<SharedResults>>,
    token: u64,
    /// Room until the result is taken.
    permit: Permit,
}

impl Done for ReservedSlot {
    fn done(mut send: Box<AsyncSend<Self>>) {
        let place = send.done();
        let Some(shared) = place.shared.take() else { return };
        place.permit.settle();
        let somebody_waits = {
            let mut queue = shared.queue.lock();
            queue.finished.push(send);
            // A waiting thread wakes for the first result and takes along those that follow.
            queue.waiting > 0 && queue.finished.len() == 1
        };
        if somebody_waits {
            shared.filled.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use crossbeam_channel::bounded;

    use super::*;
    use crate::message::Message;
    use crate::producer::Producer;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A producer without a reachable name server: each send fails soon.
    fn lost() -> Producer {
        Producer::builder("G").name_servers(["127.0.0.1:1"]).send_timeout(Duration::from_millis(1)).start().unwrap()
    }

    /// Sends a message and waits until its result stands in the queue, not taken yet.
    fn finish(producer: &Producer, token: u64, completions: &Completions) {
        let finished = || completions.shared.queue.lock().finished.len();
        let before = finished();
        producer.send_tracked(Message::new("T", "x"), token, completions).unwrap();
        until(|| finished() > before);
    }

    fn until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "it never came");
            thread::yield_now();
        }
    }

    #[test]
    fn results_come_behind_those_taken_before_and_each_once() {
        let (producer, completions) = (lost(), Completions::new());
        let mut taken = Vec::new();
        assert_eq!(completions.take(&mut taken, Duration::ZERO).unwrap(), 0);
        finish(&producer, 7, &completions);
        assert_eq!(completions.take(&mut taken, PATIENCE).unwrap(), 1);
        finish(&producer, 8, &completions);
        finish(&producer, 9, &completions);
        assert_eq!(format!("{completions:?}"), "Completions { finished: Some(2) }");
        assert_eq!((producer.in_flight(), producer.untaken()), (0, 2));
        assert_eq!(completions.take(&mut taken, PATIENCE).unwrap(), 2);
        assert_eq!(completions.take(&mut taken, Duration::ZERO).unwrap(), 0);
        assert_eq!(taken.iter().map(|completed| completed.token).collect::<Vec<_>>(), [7, 8, 9]);
        assert!(taken.iter().all(|completed| completed.result.is_err()));
        assert_eq!((producer.in_flight(), producer.untaken()), (0, 0));
    }

    /// Else the results would keep the queue, and the queue the results, for ever.
    #[test]
    fn a_queue_that_nobody_has_any_more_frees_what_was_not_taken() {
        let (producer, completions) = (lost(), Completions::new());
        finish(&producer, 7, &completions);
        let taken = completions.clone();
        drop(completions);
        assert_eq!(producer.untaken(), 1);
        drop(taken);
        assert_eq!(producer.untaken(), 0);
    }

    #[test]
    fn the_first_result_wakes_whoever_waits() {
        let (producer, completions) = (lost(), Completions::new());
        let waiting = || completions.shared.queue.lock().waiting;
        for token in 0..2 {
            let (sender, woken) = bounded(1);
            let taker = completions.clone();
            let take = move || {
                let mut taken = Vec::new();
                // Much longer than this test waits: only being woken ends it in time.
                let count = taker.take(&mut taken, PATIENCE * 100).unwrap();
                let _ = sender.send((count, taken.first().map(|completed| completed.token)));
            };
            thread::Builder::new().spawn(take).unwrap();
            until(|| waiting() == 1);
            producer.send_tracked(Message::new("T", "x"), token, &completions).unwrap();
            assert_eq!(woken.recv_timeout(PATIENCE), Ok((1, Some(token))));
            assert_eq!(waiting(), 0);
        }
    }
}
