//! Configures and starts a mini broker.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::unbounded;

use super::MiniBroker;
use super::broker::Broker;
use super::clock::{Clock, Timekeeper};
use super::exchange::{Condition, Node};
use super::server::Server;
use super::settings::{Release, Settings};
use super::state::{BrokerState, NameServer};
use crate::error::{Error, ErrorKind, Result};
use crate::worker::Threads;

/// Name of the thread.
const THREAD: &str = "mini-broker";

/// Maximum number of brokers, equal to the number of letters that name them.
const MAX_BROKERS: usize = 26;

/// Default delay levels of a broker (`messageDelayLevel`), in seconds.
const DELAY_LEVELS: [u64; 18] = [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];

/// Builder of a [`MiniBroker`].
#[derive(Clone, Debug)]
#[must_use]
pub struct MiniBrokerBuilder {
    brokers: usize,
    name_servers: usize,
    bind: SocketAddr,
    clock: Clock,
    settings: Settings,
}

impl MiniBrokerBuilder {
    pub(super) fn new() -> Self {
        Self {
            brokers: 1,
            name_servers: 1,
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clock: Clock::default(),
            settings: Settings {
                release: Release::default(),
                cluster: "DefaultCluster".to_owned(),
                auto_create_topics: true,
                auto_create_groups: true,
                default_queues: 8,
                max_message_size: 4 * 1024 * 1024,
                raw_route_json: false,
                delay_levels: DELAY_LEVELS.map(Duration::from_secs).to_vec(),
                offset_write_interval: None,
            },
        }
    }

    /// Number of brokers, each a master: `broker-a`, `broker-b` and so on; at most 26. Default: 1.
    pub fn brokers(mut self, brokers: usize) -> Self {
        self.brokers = brokers;
        self
    }

    /// Number of name servers. Default: 1.
    pub fn name_servers(mut self, name_servers: usize) -> Self {
        self.name_servers = name_servers;
        self
    }

    /// Maximum number of queues per broker of an automatically created topic; a client requests 4 by default. Default:
    /// 8 (`defaultTopicQueueNums` of a Java broker).
    pub fn queues(mut self, queues: u16) -> Self {
        self.settings.default_queues = queues.into();
        self
    }

    /// Address of the first name server. All other servers use free ports of the same IP address. Routes contain that
    /// IP address, so clients must be able to reach it. Default: 127.0.0.1 and a free port.
    pub fn bind(mut self, address: impl Into<SocketAddr>) -> Self {
        self.bind = address.into();
        self
    }

    /// Clock of the mini broker. Default: [`Clock::Running`].
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Release whose behaviour the mini broker imitates. Default: [`Release::V5_5_0`].
    pub fn release(mut self, release: Release) -> Self {
        self.settings.release = release;
        self
    }

    /// Name of the cluster. Default: `DefaultCluster`.
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.settings.cluster = name.into();
        self
    }

    /// True if the first send to an unknown topic creates it. Default: true (`autoCreateTopicEnable`).
    pub fn auto_create_topics(mut self, enabled: bool) -> Self {
        self.settings.auto_create_topics = enabled;
        self
    }

    /// True if the first use of an unknown consumer group creates it. Default: true (`autoCreateSubscriptionGroup`).
    pub fn auto_create_groups(mut self, enabled: bool) -> Self {
        self.settings.auto_create_groups = enabled;
        self
    }

    /// Size of the largest body that is stored, in bytes. Default: 4 MiB (`maxMessageSize`).
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.settings.max_message_size = bytes;
        self
    }

    /// Delay of each level, beginning with level 1. Default: 1 s to 2 h in 18 levels (`messageDelayLevel`).
    pub fn delay_levels(mut self, levels: impl IntoIterator<Item = Duration>) -> Self {
        self.settings.delay_levels = levels.into_iter().collect();
        self
    }

    /// Interval at which a broker persists the consumed offsets of groups (`flushConsumerOffsetInterval`). A stopped
    /// broker loses the offsets confirmed since the last write, like a real broker that is killed. By default nothing
    /// is lost.
    pub fn offset_write_interval(mut self, interval: Duration) -> Self {
        self.settings.offset_write_interval = Some(interval);
        self
    }

    /// True if routes are encoded in fastjson's own dialect even for clients that request standard JSON, as name
    /// servers before 4.9.4 do. Default: false.
    pub fn raw_route_json(mut self, enabled: bool) -> Self {
        self.settings.raw_route_json = enabled;
        self
    }

    /// Starts the mini broker.
    ///
    /// # Errors
    ///
    /// Returns an error if there are no servers or too many, or if the system refuses a socket or a thread.
    pub fn start(self) -> Result<MiniBroker> {
        if self.name_servers == 0 || !(1..=MAX_BROKERS).contains(&self.brokers) {
            let detail =
                format!("invalid number of servers: a mini broker needs a name server and 1 to {MAX_BROKERS} brokers");
            return Err(Error::new(ErrorKind::InvalidConfig, detail));
        }
        let (jobs, inbox) = unbounded();
        let state = BrokerState::new(self.settings);
        let (mut server, waker) = Server::new(state, Timekeeper::new(self.clock), inbox)
            .map_err(|error| Error::of_system("starting the mini broker", error))?;
        let mut name_servers = Vec::new();
        for index in 0..self.name_servers {
            let bind = if index == 0 { self.bind } else { SocketAddr::new(self.bind.ip(), 0) };
            name_servers.push(add_name_server(&mut server, index, bind)?);
        }
        let mut brokers = Vec::new();
        for (index, letter) in ('a'..='z').take(self.brokers).enumerate() {
            let name: Arc<str> = format!("broker-{letter}").into();
            let address = add_broker(&mut server, index, &name, SocketAddr::new(self.bind.ip(), 0))?;
            brokers.push((name, address));
        }
        let worker = Threads::new(None, None).start(THREAD, move || server.run())?;
        Ok(MiniBroker { name_servers, brokers, jobs: Some(jobs), worker, waker })
    }
}

fn add_name_server(server: &mut Server, index: usize, bind: SocketAddr) -> Result<SocketAddr> {
    let address = listen(server, Node::NameServer(index), bind)?;
    server.state.name_servers.push(NameServer { address: address.to_string().into(), condition: Condition::Up });
    Ok(address)
}

fn add_broker(server: &mut Server, index: usize, name: &Arc<str>, bind: SocketAddr) -> Result<SocketAddr> {
    let address = listen(server, Node::Broker(index), bind)?;
    let settings = Arc::clone(&server.state.settings);
    server.state.brokers.push(Broker::new(Arc::clone(name), address, settings));
    Ok(address)
}

fn listen(server: &mut Server, node: Node, address: SocketAddr) -> Result<SocketAddr> {
    server.listen(node, address).map_err(|error| Error::of_system(&format!("listening on {address}"), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::vectors::vectors;

    #[test]
    fn delay_levels_are_those_of_real_brokers() {
        let expected = vectors("DELAY-001").remove(0)["expected"].clone();
        let ours = MiniBrokerBuilder::new().settings.delay_levels;
        assert_eq!(expected.as_object().unwrap().len(), ours.len());
        for (level, delay) in (1..).zip(ours) {
            assert_eq!(expected[format!("{level}")].as_u64().map(Duration::from_millis), Some(delay), "{level}");
        }
    }
}
