//! Layer 3: connections, routes, heartbeats and timers that producers and consumers share.
//!
//! [`Client`] is a handle, cheap to clone; its members hold clones too. When the last one is gone the client's threads
//! end. There is no registry and no static: two clients never meet, whatever their clusters, groups and credentials.

pub(crate) mod callbacks;
mod choice;
pub(crate) mod config;
mod core;
pub(crate) mod ending;
pub(crate) mod heartbeat;
pub(crate) mod identity;
pub(crate) mod inbound;
pub(crate) mod member;
pub(crate) mod route;
pub(crate) mod rpc;
pub(crate) mod timer;

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub(crate) use self::choice::ClientChoice;
use self::config::{ClientConfig, client_options};
pub(crate) use self::core::Core;
use self::ending::Ending;
use self::identity::Identity;
use self::inbound::Inbound;
use self::timer::{Timer, TimerThread};
use crate::deadline::deadline_after;
use crate::error::{Error, Result};
use crate::logging::{info, warn};
use crate::remoting::transport::Plain;
use crate::remoting::{Remoting, RemotingConfig, RemotingThread, Request};
use crate::wire::RemotingCommand;
use crate::worker::{Threads, is_service_thread};

/// More than the in-flight windows of a few producers with the default settings. The net below them.
const COMPLETIONS_OUTBOX: usize = 256 * 1024 * 1024;
/// Time that the drop of the last handle may take to end the threads.
const DROP_GRACE: Duration = Duration::from_secs(1);

/// Connections, routes, heartbeats and timers for any number of producers and consumers.
///
/// Most programs never name it: a producer or consumer makes its own. Share one when a process has several members on
/// the same cluster, since each client costs two threads and a connection to every broker.
///
/// ```
/// # use rocketmq_sync::{Client, Producer};
/// # fn main() -> rocketmq_sync::Result<()> {
/// let client = Client::builder().name_servers(["127.0.0.1:9876"]).start()?;
/// let orders = Producer::builder("orders").client(&client).start()?;
/// let audit = Producer::builder("audit").client(&client).start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    owner: Arc<Owner>,
}

impl Client {
    /// Returns a builder of a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder { config: ClientConfig::default() }
    }

    /// Id under which brokers list this client (Java: `clientId`).
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.core().identity.client_id
    }

    /// Versions of the brokers that this client sends heartbeats to, from their last answers: by broker name and
    /// address, as numbers of the Java client's `MQVersion`. [`release_name`](crate::wire::version::release_name) gives
    /// the release. A broker that has not answered yet is missing; in a forked child the map is empty.
    #[must_use]
    pub fn broker_versions(&self) -> BTreeMap<String, BTreeMap<String, i32>> {
        if self.core().check_process().is_err() {
            return BTreeMap::new();
        }
        let version = |address: &Arc<str>| Some((address.to_string(), self.core().heartbeats.version(address)?));
        let brokers = self.core().routes.addresses_by_name().into_iter();
        let told = brokers.map(|(name, addresses)| (name.to_string(), addresses.iter().filter_map(version).collect()));
        told.filter(|(_, versions): &(_, BTreeMap<_, _>)| !versions.is_empty()).collect()
    }

    /// Sends any request to a name server or broker and waits for its response, for operations that this library has no
    /// call for. A refusal is a response too. The address of a broker is the one in its routes (an address map applies);
    /// the connection is shared with this client's members.
    ///
    /// Its types are those of [`unversioned`](crate::unversioned): they may change in a minor release.
    ///
    /// ```no_run
    /// # use rocketmq_sync::{Client, ResponseCode, unversioned::wire::{RemotingCommand, RequestCode}};
    /// # use std::time::Duration;
    /// # fn main() -> rocketmq_sync::Result<()> {
    /// let client = Client::builder().name_servers(["127.0.0.1:9876"]).start()?;
    /// let question = RemotingCommand::request(RequestCode::GET_BROKER_RUNTIME_INFO, &());
    /// let answer = client.request("127.0.0.1:10911", &question, Duration::from_secs(3))?;
    /// assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Without a response: [`Resolve`](crate::ErrorKind::Resolve), [`Connect`](crate::ErrorKind::Connect),
    /// [`ConnectionLost`](crate::ErrorKind::ConnectionLost), [`Timeout`](crate::ErrorKind::Timeout) or
    /// [`Protocol`](crate::ErrorKind::Protocol). [`InvalidMessage`](crate::ErrorKind::InvalidMessage) if the request is larger
    /// than a frame can be. [`Forked`](crate::ErrorKind::Forked) in a child of the process that made the client.
    /// [`Internal`](crate::ErrorKind::Internal) and [`WrongThread`](crate::ErrorKind::WrongThread) as documented there.
    pub fn request(&self, address: &str, request: &RemotingCommand, timeout: Duration) -> Result<RemotingCommand> {
        let core = self.core();
        core.check_usable()?;
        let asked = Request::new(request.request_code(), &request.ext_fields).with_body(&request.body);
        core.remoting.invoke(&Arc::from(address), asked, deadline_after(timeout)).map_err(Error::from)
    }

    /// Ends the client's threads and connections. Its producers and consumers are shut down before: while one of them
    /// lives nothing ends, and the report names it.
    ///
    /// Afterwards every handle of this client fails with [`ErrorKind::NotRunning`](crate::ErrorKind::NotRunning), and no
    /// member can be started on it. May be called from any thread and any number of times: the call that ends the client
    /// leaves its report for later ones. Without a call, the drop of the last handle does the same with a grace of one
    /// second; members hold a handle each.
    pub fn shutdown(&self, timeout: Duration) -> ClientReport {
        let core = self.core();
        if core.check_process().is_err() {
            return ClientReport { forked: true, ..ClientReport::default() };
        }
        let only_begun = || ClientReport { only_begun: true, ..ClientReport::default() };
        let members_alive = core.close_to_members();
        if !members_alive.is_empty() {
            return ClientReport { members_alive, ..ClientReport::default() };
        }
        if core.callbacks.is_current() || is_service_thread() {
            core.remoting.close();
            return only_begun();
        }
        let deadline = deadline_after(timeout);
        let end = || {
            let report = ClientReport { threads_left: self.owner.end(deadline), ..ClientReport::default() };
            info!("shutdown of client {} ended: {report:?}", core.identity.client_id);
            report
        };
        self.owner.ending.run(deadline, end).unwrap_or_else(only_begun)
    }

    pub(crate) fn start(mut config: ClientConfig) -> Result<Self> {
        config.complete(|name| env::var(name).ok());
        config.check()?;
        let identity = Identity::new(&config)?;
        let threads = Threads::new(config.thread_starter.clone(), config.stack_size);
        let remoting_config = RemotingConfig {
            connect_timeout: config.connect_timeout,
            silence_limit: config.silence_limit,
            max_frame_length: config.max_frame_length,
            outbox_limit: config.outbox_limit,
            completions_outbox_limit: config.outbox_limit.max(COMPLETIONS_OUTBOX),
            encoding: config.header_encoding,
            resolve: Arc::clone(&config.resolver),
            address_map: config.address_map.clone(),
            unmapped: config.name_servers.clone(),
            transport: Arc::new(|_| Ok(Box::new(Plain))),
        };
        let inbound = Arc::new(Inbound::default());
        let (remoting, remoting_thread) = Remoting::start(remoting_config, &threads, Arc::clone(&inbound) as _)?;
        let (timer, timer_thread) = Timer::start(&threads)?;
        let core = Core::new(config, identity, threads, remoting, timer);
        inbound.attach(&core);
        let running = Running { timer_thread, remoting_thread };
        Ok(Self { owner: Arc::new(Owner { core, ending: Ending::new(), running: Mutex::new(Some(running)) }) })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.owner.core
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("client_id", &self.client_id()).finish_non_exhaustive()
    }
}

/// Outcome of [`Client::shutdown`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientReport {
    /// Producers and consumers that are not shut down yet, by kind and group. The client is still running.
    pub members_alive: Vec<String>,
    /// Threads that still ran at the deadline, by name: a callback that blocks, a name that is being resolved.
    pub threads_left: Vec<String>,
    /// True if the call came from a callback or a service thread, which cannot wait for itself, or another thread's call
    /// had not finished by the deadline. Connections are closed; the drop of the last handle ends the threads.
    pub only_begun: bool,
    /// True in a child of the process that made the client. Nothing was done.
    pub forked: bool,
}

impl ClientReport {
    /// True if the client has ended and no thread of it is left.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// Options of a [`Client`], checked by [`ClientBuilder::start`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    config: ClientConfig,
}

impl ClientBuilder {
    client_options!(config);

    fn config(&mut self) -> &mut ClientConfig {
        &mut self.config
    }

    /// Starts the client's threads. Nothing is dialled yet; servers that cannot be reached now are found later.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig) with the name of the option that is wrong,
    /// [`Resource`](crate::ErrorKind::Resource) if the system refuses a thread. Nothing is left behind then.
    pub fn start(self) -> Result<Client> {
        Client::start(self.config)
    }
}

/// Owner of the client's threads. It ends them at [`Client::shutdown`], or when the last handle is dropped.
struct Owner {
    core: Arc<Core>,
    ending: Ending<ClientReport>,
    running: Mutex<Option<Running>>,
}

// In this order: no duty begins any more, then every request is completed, then callbacks run the jobs that they have.
struct Running {
    timer_thread: TimerThread,
    remoting_thread: RemotingThread,
}

impl Owner {
    /// Ends the threads. Returns the names of those that still run at the deadline.
    fn end(&self, deadline: Instant) -> Vec<String> {
        let Some(mut running) = self.running.lock().take() else { return Vec::new() };
        let timer_left = running.timer_thread.stop(deadline);
        let mut left_behind = running.remoting_thread.stop(deadline);
        // Threads that may still bring jobs for callbacks.
        let may_submit = timer_left.is_some() || !running.remoting_thread.has_ended();
        left_behind.extend(timer_left);
        match may_submit {
            true => self.core.callbacks.leave(),
            false => left_behind.extend(self.core.callbacks.stop(deadline)),
        }
        left_behind
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.core.identity.is_forked() {
            // The threads are the parent's; so are the sockets and the poll set, which must not be touched from here.
            std::mem::forget(self.running.lock().take());
            return;
        }
        let left = self.end(Instant::now() + DROP_GRACE);
        if !left.is_empty() {
            warn!("shutdown of client {} incomplete: {} still running", self.core.identity.client_id, left.join(", "));
        }
    }
}
