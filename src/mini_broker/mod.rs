//! An in-process name server and brokers on real TCP, for tests and local development (feature `mini-broker`).
//!
//! A [`MiniBroker`] is what a test needs of RocketMQ: it starts in a millisecond on free ports, keeps everything in
//! memory, serves any Remoting client, tells what it was asked and what it stores, fails as it is told to, and lets hours
//! pass in an instant. It runs on one thread, `mini-broker`; dropping it leaves no thread, socket or file behind.
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
//! # What it serves
//!
//! Name server: `GET_ROUTEINFO_BY_TOPIC`, `GET_BROKER_CLUSTER_INFO`. Broker: `SEND_MESSAGE`, `SEND_MESSAGE_V2`,
//! `PULL_MESSAGE`, `QUERY_CONSUMER_OFFSET`, `UPDATE_CONSUMER_OFFSET`, `UPDATE_AND_CREATE_TOPIC`,
//! `SEARCH_OFFSET_BY_TIMESTAMP`, `GET_MAX_OFFSET`, `GET_MIN_OFFSET`, `GET_EARLIEST_MSG_STORETIME`,
//! `VIEW_MESSAGE_BY_ID`, `HEART_BEAT`, `UNREGISTER_CLIENT`, `CONSUMER_SEND_MSG_BACK`, `GET_CONSUMER_LIST_BY_GROUP`,
//! `SEND_BATCH_MESSAGE`, `UPDATE_AND_CREATE_SUBSCRIPTIONGROUP`;
//! to its clients, `NOTIFY_CONSUMER_IDS_CHANGED`. Topics come by a first send as on a real broker; retries and delays
//! go by delay levels; dead letters end in `%DLQ%` topics. Where releases differ it does as its [`Release`] does.
//!
//! # What it does not model
//!
//! * **Transactions, orderly consuming (queue locks), request and reply, POP, SQL92 filters, timer messages,
//!   static topics, compaction, lite topics**: capabilities that the client does not have yet. Their requests are
//!   refused as unknown, or with a remark that says so; nothing is silently taken for something else, except what a 4.x
//!   broker itself passes over.
//! * **Slaves, replication, acting masters**: every broker is a master; `suggestWhichBrokerId` is 0.
//! * **Disks**: no flush, no expiry by age ([`MiniBroker::set_min_offset`] stands in), no loss when a broker stops: its
//!   messages *and* offsets are there when it starts again, while a real broker that is killed forgets the offsets of
//!   the last five seconds ([`MiniBrokerBuilder::offset_write_interval`] makes it so).
//! * **Heartbeat expiry and idle connections**: a real broker forgets a member after 120 s of silence. Here time can
//!   jump, and would make everybody silent at once; a member goes when its connection does.
//! * **TLS, ACL, VIP ports, the HAProxy header**: they come with the client's side of them.
//! * **Admin requests** beyond making topics: look-ups and changes are methods of [`MiniBroker`].
//! * **Name servers of their own minds**: all of them know the same; a lie is told with [`Fault::answer`].
//!
//! It proves nothing about Apache RocketMQ: what passes here is to be tried there too.

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
use server::Job;

/// How long a mini broker that is dropped may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// A running mini broker. See the [module](self) for what it is.
///
/// It may be used from several threads at once; each call is done on the broker's thread, between two requests.
pub struct MiniBroker {
    name_servers: Vec<SocketAddr>,
    brokers: Vec<(Arc<str>, SocketAddr)>,
    /// The thread ends when nobody can hand it a job any more.
    jobs: Option<Sender<Job>>,
    /// Joined when it is dropped: before the waker, which takes a wake-up with it that was not seen yet.
    worker: Worker,
    waker: Waker,
}

impl MiniBroker {
    /// One name server and one broker, `broker-a`, on free ports of 127.0.0.1.
    ///
    /// # Errors
    ///
    /// When the system gives no socket or no thread.
    pub fn start() -> crate::error::Result<Self> {
        Self::builder().start()
    }

    /// For several brokers or name servers, another release, other times.
    pub fn builder() -> MiniBrokerBuilder {
        MiniBrokerBuilder::new()
    }
}

impl Drop for MiniBroker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Err(error) = self.waker.wake() {
            // Without a wake-up the thread sees its end when the next request or deadline wakes it.
            log::warn!("{} cannot be woken to end: {error}", self.worker.name());
        }
        // Longer than the drop of the worker would wait: what comes next may count threads and ports.
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
