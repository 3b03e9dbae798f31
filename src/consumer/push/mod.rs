//! [`PushConsumer`]: the running consumer as its user holds it.

mod builder;
mod shutdown;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::client::ending::Ending;
use crate::client::{Client, Core};
use crate::deadline::deadline_after;
use crate::error::{Error, ErrorKind, Result};
use crate::message::MessageQueue;
use crate::wire::version::release_name;
use crate::worker::check_may_wait;

use crate::consumer::assign::service::RebalanceThread;
use crate::consumer::deliver::concurrent::ConcurrentDelivery;
use crate::consumer::group::ConsumerGroup;
use crate::consumer::pull::pull_event::PullEvent;
use crate::consumer::pull::service::PullThread;
use crate::consumer::pull::status::QueueStatus;

pub use builder::PushConsumerBuilder;
pub use shutdown::ConsumerReport;

/// Time that `rmq-pull` has to answer for a status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// Gets messages of subscribed topics from the brokers and hands them to a listener, on threads of its own.
///
/// The members of a group share the queues of each topic. A message counts as consumed when the listener returns
/// success; otherwise it is delivered again later, on whichever member, until the group's maximum is reached, and then
/// goes to the dead-letter queue `%DLQ%<group>`. Each message is delivered at least once: after a crash, or when queues
/// change hands, some come twice.
///
/// ```no_run
/// use std::time::Duration;
/// use rocketmq_sync::{FilterExpression, PushConsumer};
///
/// # fn main() -> rocketmq_sync::Result<()> {
/// let consumer = PushConsumer::builder("billing")
///     .name_servers(["127.0.0.1:9876"])
///     .subscribe("TopicTest", FilterExpression::tags(["A", "B"]))
///     .each(|message| {
///         println!("{} {}", message.msg_id(), std::str::from_utf8(message.body())?);
///         Ok(())
///     })
///     .start()?;
/// // ...
/// let report = consumer.shutdown(Duration::from_secs(10));
/// assert!(report.is_clean(), "{report:?}");
/// # Ok(())
/// # }
/// ```
pub struct PushConsumer {
    group: Arc<ConsumerGroup>,
    delivery: Arc<ConcurrentDelivery>,
    ending: Ending<ConsumerReport>,
    threads: Arc<ConsumerThreads>,
    client: Client,
}

/// Service threads that the consumers of one client share; they end with the last of them.
struct ConsumerThreads {
    rebalance: RebalanceThread,
    pull: PullThread,
}

impl PushConsumer {
    /// Returns the builder of a consumer of this group. All members of a group must subscribe to the same topics.
    pub fn builder(group: impl Into<String>) -> PushConsumerBuilder {
        PushConsumerBuilder::new(group.into())
    }

    /// Waits until this consumer has its share of the queues of every topic it subscribes to.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] with what is still missing at the deadline, for each topic; [`ErrorKind::Internal`] when a thread
    /// of the client has died.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        self.core().check_usable()?;
        check_may_wait("wait_ready")?;
        let deadline = deadline_after(timeout);
        if self.core().wait_for(deadline, || self.group.undecided().is_empty()) {
            return Ok(());
        }
        self.core().check_usable()?;
        Err(Error::new(
            ErrorKind::Timeout,
            format!("wait_ready {} failed: {}", self.group.name, self.group.undecided().join("; ")),
        ))
    }

    /// The queues that this consumer pulls from now; none in a forked child.
    #[must_use]
    pub fn queues(&self) -> Vec<MessageQueue> {
        self.core().check_process().map_or_else(|_| Vec::new(), |()| self.group.offsets.queues())
    }

    /// Status of a queue at this moment: what happens to it, since when, and why. `None` for a queue that is not this
    /// consumer's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Forked`] in a forked child, [`ErrorKind::Internal`] when a thread of the client has died,
    /// [`ErrorKind::Timeout`] when `rmq-pull` does not answer within a second.
    pub fn status(&self, queue: &MessageQueue) -> Result<Option<QueueStatus>> {
        self.core().check_usable()?;
        check_may_wait("status")?;
        let (answer, answered) = bounded(1);
        let _ = self.threads.pull.events().send(PullEvent::Status {
            consumer: self.group.id,
            queue: queue.clone(),
            answer,
        });
        let Ok(status) = answered.recv_timeout(STATUS_TIMEOUT) else {
            self.core().check_usable()?;
            let text = format!("status of {queue} failed: rmq-pull did not answer within {STATUS_TIMEOUT:?}");
            return Err(Error::new(ErrorKind::Timeout, text));
        };
        let release = || {
            let master = self.core().routes.master_of(queue)?;
            self.core().heartbeats.version(&master).map(release_name)
        };
        Ok(status.map(|status| status.with_broker_release(release())))
    }

    /// Lets the thread `rmq-pull` panic.
    #[cfg(test)]
    pub(crate) fn fault_pull(&self) {
        self.tell_table(PullEvent::Fault);
    }

    /// Lets the thread `rmq-rebalance` panic.
    #[cfg(test)]
    pub(crate) fn fault_rebalance(&self) {
        let fault = crate::consumer::assign::service::RebalanceEvent::Fault;
        let _ = self.threads.rebalance.events().send(fault);
    }

    /// Pulls nothing more until [`resume`](Self::resume). The queues stay this consumer's, and what was pulled already is
    /// still consumed. (Java: `suspend`)
    pub fn pause(&self) {
        self.tell_table(PullEvent::Pause(self.group.id));
    }

    /// Pulls again after a [`pause`](Self::pause).
    pub fn resume(&self) {
        self.tell_table(PullEvent::Resume(self.group.id));
    }

    /// In a forked child the channel may be locked for ever by a thread that only the parent has.
    fn tell_table(&self, event: PullEvent) {
        if self.core().check_process().is_ok() {
            let _ = self.threads.pull.events().send(event);
        }
    }

    /// The client that this consumer uses.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn core(&self) -> &Arc<Core> {
        self.client.core()
    }
}

impl fmt::Debug for PushConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushConsumer")
            .field("group", &self.group.name)
            .field("client", &self.client)
            .field("queues", &self.queues().len())
            .finish_non_exhaustive()
    }
}
