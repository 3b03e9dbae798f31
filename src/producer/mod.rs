//! Layer 4, sending: [`Producer`], the handle of one producer group on one client.
//!
//! `call.rs` has the verbs, `builder.rs` the options, `send/` the operation that every verb and every consumer's retry
//! share.

mod builder;
mod call;
mod member;
pub(crate) mod send;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::builder::Options;
pub use self::builder::ProducerBuilder;
pub use self::call::{Rejected, SendCall};
use self::member::ProducerMember;
use self::send::MessageSender;
pub use self::send::attempts::RetryCodes;
pub use self::send::completions::{Completed, Completions};
pub use self::send::result::{SendResult, SendStatus};
use self::send::window::SendWindow;
use crate::client::ending::Ending;
use crate::client::{Client, ClientChoice, Core};
use crate::deadline::deadline_after;
use crate::error::{Error, ErrorKind, Result};
use crate::logging::info;
use crate::message::MessageQueue;
use crate::worker::{check_may_wait, is_service_thread};

/// Time that a producer dropped without `shutdown` waits for sends in flight.
const DROP_GRACE: Duration = Duration::from_secs(1);

/// Sends messages.
///
/// Any number of threads may use a producer at once; share it by `Arc`. It is not `Clone`, so that it ends in one place:
/// its drop is its end. It accepts messages from its start until [`shutdown`](Self::shutdown); topics, name servers and
/// brokers that cannot be reached at first are found later.
///
/// ```no_run
/// use rocketmq_sync::{Message, Producer};
///
/// # fn main() -> rocketmq_sync::Result<()> {
/// let producer = Producer::builder("orders").name_servers(["127.0.0.1:9876"]).start()?;
/// let receipt = producer.send(&Message::new("TopicTest", "hello").with_tag("A").with_key("42"))?;
/// println!("stored in {} at {}", receipt.queue, receipt.queue_offset);
/// # Ok(())
/// # }
/// ```
pub struct Producer {
    client: Client,
    sender: Arc<MessageSender>,
    member: Arc<ProducerMember>,
    ending: Ending<ProducerReport>,
    options: Options,
    window: Arc<SendWindow>,
    /// Sends whose callers wait on their own threads. Without limits; counted for the shutdown.
    calls: Arc<SendWindow>,
}

/// Outcome of [`Producer::shutdown`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerReport {
    /// Sends that had no outcome at the deadline. Asynchronous ones get theirs all the same, at the latest when their
    /// own deadline passes or the client ends.
    pub unresolved: usize,
    /// Sends whose outcome stands in [`Completions`] and was not taken when the producer ended; it can be taken later.
    pub untaken: usize,
    /// Brokers that did not confirm by the deadline that this producer is gone; they forget it within two minutes.
    pub brokers_not_told: Vec<String>,
    /// The call came from a callback, which cannot wait for itself: no message is accepted any more, and the end has only
    /// begun. Another call, or the drop of the producer, completes it. Also set when another thread's call is not done by
    /// the deadline.
    pub only_begun: bool,
    /// The process is a child of the one that made the producer: nothing was done.
    pub forked: bool,
    /// Why the client is broken, if one of its threads has died: see [`ErrorKind::Internal`].
    pub broken: Option<String>,
}

impl ProducerReport {
    /// True if every send has its outcome and every broker confirmed the end.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self { untaken: self.untaken, ..Self::default() }
    }
}

impl Producer {
    /// Returns a builder of a producer of this group. The group names the sending program, for operators and for
    /// transactions: letters, digits, `%`, `|`, `-` and `_`.
    pub fn builder(group: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder { group: group.into(), client: ClientChoice::default(), options: Options::default() }
    }

    /// Returns the queues of a topic that can be written now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoRoute`] when the topic does not exist and would not be created, [`ErrorKind::NameServer`] when
    /// no name server answered.
    pub fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>> {
        let _call = self.enter_call()?;
        let route = self.core().routes.wait(&Arc::from(topic), deadline_after(self.options.send_timeout))?;
        Ok(route.publish.iter().map(|publish| publish.queue.clone()).collect())
    }

    /// Waits until messages to these topics could be sent at once: their routes are known, and each broker of them has
    /// answered.
    ///
    /// # Errors
    ///
    /// What is still missing at the deadline.
    pub fn wait_ready(&self, topics: &[&str], timeout: Duration) -> Result<()> {
        let deadline = deadline_after(timeout);
        check_may_wait("wait_ready")?;
        for topic in topics {
            let _call = self.enter_call()?;
            let route = self.core().routes.wait(&Arc::from(*topic), deadline)?;
            let is_heard = |address: &str| {
                // Used at each look, or its broker would be forgotten while it is waited for.
                self.sender.note_use(&route.topic);
                self.core().is_heard(address)
            };
            for queue in &route.publish {
                if !self.core().wait_for(deadline, || is_heard(&queue.address)) {
                    self.core().check_usable()?;
                    let detail = format!("broker {} has not answered yet", queue.queue.broker_name);
                    return Err(Error::new(ErrorKind::Timeout, detail).with_address(&queue.address));
                }
            }
        }
        Ok(())
    }

    /// Messages that were accepted by an asynchronous send and have no outcome yet; none in a forked child.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.core().check_process().map_or(0, |()| self.window.unsettled())
    }

    /// Results of this producer's sends that stand in [`Completions`]: they keep their room in the in-flight window until
    /// they are taken. None in a forked child.
    #[must_use]
    pub fn untaken(&self) -> usize {
        self.core().check_process().map_or(0, |()| self.window.settled())
    }

    /// The client that this producer uses: for other members on the same connections.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Accepts no more messages, waits until those in flight have their outcome, and unregisters at the brokers.
    ///
    /// May be called from any thread and any number of times: the first call ends the producer, and every later one
    /// returns its report. From a callback it only begins the end, and reports so. Untaken results in [`Completions`]
    /// cost no waiting.
    pub fn shutdown(&self, timeout: Duration) -> ProducerReport {
        if self.core().check_process().is_err() {
            return ProducerReport { forked: true, ..ProducerReport::default() };
        }
        let deadline = deadline_after(timeout);
        let only_begun = || ProducerReport { only_begun: true, ..ProducerReport::default() };
        if let Some(report) = self.ending.report() {
            return report;
        }
        if self.is_own_thread() {
            self.refuse_sends();
            return only_begun();
        }
        self.ending.run(deadline, || self.end(deadline)).unwrap_or_else(only_begun)
    }

    /// True on threads that an end would wait for.
    fn is_own_thread(&self) -> bool {
        self.core().callbacks.is_current() || is_service_thread()
    }

    fn refuse_sends(&self) {
        self.window.close();
        self.calls.close();
    }

    fn end(&self, deadline: Instant) -> ProducerReport {
        self.refuse_sends();
        let unresolved = self.window.drain(deadline) + self.calls.drain(deadline);
        let brokers_not_told = self.core().part(self.member.id, deadline);
        let report = ProducerReport {
            unresolved,
            untaken: self.untaken(),
            brokers_not_told,
            broken: self.core().broken(),
            ..ProducerReport::default()
        };
        info!("shutdown of producer {} ended: {report:?}", self.sender.group());
        report
    }

    fn core(&self) -> &Arc<Core> {
        self.client.core()
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("group", self.sender.group())
            .field("client", &self.client)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if self.core().check_process().is_err() {
            return;
        }
        // A callback cannot wait for itself: what can be begun is.
        let grace = if self.is_own_thread() { Duration::ZERO } else { DROP_GRACE };
        let deadline = Instant::now() + grace;
        self.ending.run(deadline, || self.end(deadline));
    }
}
