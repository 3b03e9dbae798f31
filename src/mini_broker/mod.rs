//! In-process name server and brokers on real TCP, for tests and local development (feature `mini-broker`).
//!
//! A [`MiniBroker`] provides the parts of RocketMQ that a test needs. It starts in a millisecond on free ports, keeps
//! everything in memory, and serves any Remoting client. It records the received requests and stored messages, produces
//! scripted faults, and can advance its time by hours in an instant. It runs on one thread, `mini-broker`; dropping it
//! leaves no thread, socket or file behind.
//!
//! ```
//! use rocketmq_sync::mini_broker::{Fault, MiniBroker};
//! use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
//!
//! let broker = MiniBroker::start()?;
//! broker.create_topic("Orders", 4);
//! // A client would now be given broker.name_servers(). Its next two sends are refused:
//! let busy = Fault::error(ResponseCode::SYSTEM_BUSY, "[REJECTREQUEST] try later").times(2);
//! let busy = broker.fail(RequestCode::SEND_MESSAGE_V2, busy);
//! assert_eq!(broker.fault_hits(busy), 0);
//! # Ok::<(), rocketmq_sync::Error>(())
//! ```
//!
//! # Supported requests
//!
//! Name server: `GET_ROUTEINFO_BY_TOPIC`, `GET_BROKER_CLUSTER_INFO`. Broker: `SEND_MESSAGE`, `SEND_MESSAGE_V2`,
//! `PULL_MESSAGE`, `QUERY_CONSUMER_OFFSET`, `UPDATE_CONSUMER_OFFSET`, `UPDATE_AND_CREATE_TOPIC`,
//! `SEARCH_OFFSET_BY_TIMESTAMP`, `GET_MAX_OFFSET`, `GET_MIN_OFFSET`, `GET_EARLIEST_MSG_STORETIME`,
//! `VIEW_MESSAGE_BY_ID`, `HEART_BEAT`, `UNREGISTER_CLIENT`, `CONSUMER_SEND_MSG_BACK`, `GET_CONSUMER_LIST_BY_GROUP`,
//! `SEND_BATCH_MESSAGE`, `UPDATE_AND_CREATE_SUBSCRIPTIONGROUP`; to its clients, `NOTIFY_CONSUMER_IDS_CHANGED`. The
//! first send to a topic creates it, as on a real broker. Retries and delays use delay levels; dead letters end in
//! `%DLQ%` topics. Where releases differ, it follows its [`Release`].
//!
//! # Not modelled
//!
//! * **Transactions, orderly consuming (queue locks), request and reply, POP, SQL92 filters, timer messages, static
//!   topics, compaction, lite topics**: the client does not have these capabilities yet. Their requests are refused as
//!   unknown, or with an explaining remark. No request is silently treated as another one, except where a 4.x broker
//!   itself ignores the difference.
//! * **Slaves, replication, acting masters**: every broker is a master; `suggestWhichBrokerId` is 0.
//! * **Disks**: no flush and no expiry by age (use [`MiniBroker::set_min_offset`]). A stopped broker loses nothing: its
//!   messages *and* offsets are there when it starts again. A real broker that is killed loses the offsets of the last
//!   five seconds; [`MiniBrokerBuilder::offset_write_interval`] simulates that.
//! * **Heartbeat expiry and idle connections**: a real broker removes a member after 120 s of silence. Here time can
//!   jump, and all members would expire at once; so a member is removed when its connection is closed.
//! * **TLS, ACL, VIP ports, the HAProxy header**: they will come with the client's support for them.
//! * **Admin requests** other than creating topics: queries and changes are methods of [`MiniBroker`].
//! * **Independent name servers**: all of them return the same data; [`Fault::answer`] makes one return something else.
//!
//! A test that passes here proves nothing about Apache RocketMQ; run it there too.

mod broker;
mod builder;
mod clock;
mod control;
mod exchange;
mod fault;
mod handlers;
mod journal;
mod parked;
mod server;
mod settings;
mod state;
mod store;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mio::Waker;

pub use builder::MiniBrokerBuilder;
pub use clock::Clock;
pub use fault::{Fault, FaultId};
pub use journal::RequestRecord;
pub use settings::Release;

use crate::worker::Worker;
use server::BrokerJob;

/// Time within which a dropped mini broker must end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Running mini broker; see the [module](self).
///
/// It may be used from several threads at once; each call runs on the broker's thread, between two requests.
pub struct MiniBroker {
    name_servers: Vec<SocketAddr>,
    brokers: Vec<(Arc<str>, SocketAddr)>,
    /// Sender of jobs; the thread ends when all senders are dropped.
    jobs: Option<Sender<BrokerJob>>,
    /// Joined when the mini broker is dropped, before the waker: a wake-up that was not seen yet is lost with the
    /// waker.
    worker: Worker,
    waker: Waker,
}

impl MiniBroker {
    /// Starts one name server and one broker, `broker-a`, on free ports of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// Returns an error if the system refuses a socket or a thread.
    pub fn start() -> crate::error::Result<Self> {
        Self::builder().start()
    }

    /// Returns a builder for several brokers or name servers, another release, or another clock.
    pub fn builder() -> MiniBrokerBuilder {
        MiniBrokerBuilder::new()
    }
}

impl Drop for MiniBroker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Err(error) = self.waker.wake() {
            // Without a wake-up the thread ends at its next request or deadline.
            log::warn!(
                "mini broker: waking thread {} failed: {error}; it ends at its next request",
                self.worker.name()
            );
        }
        // Longer than the drop of the worker would wait: the next test may count threads and ports.
        self.worker.join_until(Instant::now() + END_LIMIT);
    }
}

impl fmt::Debug for MiniBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MiniBroker")
            .field("name_servers", &self.name_servers)
            .field("brokers", &self.brokers)
            .finish_non_exhaustive()
    }
}
