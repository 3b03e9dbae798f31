//! [`Completions`]: the results of asynchronous sends, fetched in batches by a thread of the user's own.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::result::SendResult;
use super::sender::{AsyncSend, Done};
use super::window::Permit;
use crate::error::Result;

/// A queue of finished sends, each under the token it was sent with.
///
/// Cheaper than callbacks: results are handed over in batches, on a thread that the user chooses, and no thread of the
/// library's own is needed. Clones are handles to the same queue; several producers may share one.
///
/// A message counts towards its producer's in-flight window until its result is taken from here: a program that sends
/// and never takes stops at the window, not at the end of memory.
/// So take on another thread than the one that sends, or let the sends
/// [`fail_when_full`](super::ProducerBuilder::fail_when_full) and take then: a call that waits for room on the only thread
/// that takes waits in vain.
///
/// ```
/// # use rocketmq_sync::{Completions, Message, Producer};
/// # use std::time::{Duration, Instant};
/// # fn send(producer: &Producer) -> rocketmq_sync::Result<()> {
/// let completions = Completions::new();
/// for number in 0..100 {
///     producer.send_tracked(Message::new("TopicTest", format!("message {number}")), number, &completions)?;
/// }
/// let mut finished = Vec::new();
/// while finished.len() < 100 {
///     completions.take(&mut finished, Instant::now() + Duration::from_secs(5));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Completions {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Boxes as they come: what is moved is a pointer.
    #[allow(clippy::vec_box, reason = "a send is boxed long before it comes here, and is large")]
    finished: Vec<Box<AsyncSend<Place>>>,
    waiting: usize,
}

/// A send that is over.
#[derive(Debug)]
#[non_exhaustive]
pub struct Completed {
    /// What the send was given to be known by.
    pub token: u64,
    /// How it ended.
    pub result: Result<SendResult>,
}

impl Completions {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves everything that has finished behind what is in `into`; waits until `deadline` when there is nothing yet.
    /// Returns how many there were: 0 at the deadline.
    pub fn take(&self, into: &mut Vec<Completed>, deadline: Instant) -> usize {
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
            let (Place { token, .. }, result) = send.into_result();
            Completed { token, result }
        }));
        count
    }

    pub(super) fn place(&self, token: u64, permit: Permit) -> Place {
        Place { shared: Arc::clone(&self.shared), token, _permit: permit }
    }
}

impl fmt::Debug for Completions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completions").field("finished", &self.shared.queue.lock().finished.len()).finish()
    }
}

/// Where one send's result will stand.
pub(super) struct Place {
    shared: Arc<Shared>,
    token: u64,
    /// Until the result is taken.
    _permit: Permit,
}

impl Done for Place {
    fn done(send: Box<AsyncSend<Self>>) {
        let shared = Arc::clone(&send.done().shared);
        let somebody_waits = {
            let mut queue = shared.queue.lock();
            queue.finished.push(send);
            // Whoever waits wakes for the first; what comes until then it takes along.
            queue.waiting > 0 && queue.finished.len() == 1
        };
        if somebody_waits {
            shared.filled.notify_one();
        }
    }
}
