//! Options of a client: addresses, timeouts, limits; checked in one place.

use std::fmt;
use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::remoting::{AddressMap, Resolve, SystemResolver};
use crate::wire::{HeaderEncoding, MAX_FRAME_LENGTH};
use crate::worker::ThreadStarter;

/// From room for any route and header up to what a frame's length can say.
const FRAME_LENGTHS: RangeInclusive<usize> = 16 * 1024..=1024 * 1024 * 1024;

/// Environment variable with the name servers of a program that configures none, as for the clients of other languages.
const NAME_SERVERS_VARIABLE: &str = "NAMESRV_ADDR";

/// Options of a [`Client`](crate::Client).
#[derive(Clone)]
pub(crate) struct ClientConfig {
    pub(crate) name_servers: Vec<Arc<str>>,
    pub(crate) client_id: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) silence_limit: Duration,
    pub(crate) max_frame_length: usize,
    pub(crate) route_interval: Duration,
    pub(crate) heartbeat_interval: Duration,
    pub(crate) rebalance_interval: Duration,
    pub(crate) offset_interval: Duration,
    pub(crate) outbox_limit: usize,
    pub(crate) callback_threads: usize,
    pub(crate) header_encoding: HeaderEncoding,
    pub(crate) address_map: Option<Arc<AddressMap>>,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) thread_starter: Option<Arc<dyn ThreadStarter>>,
    pub(crate) stack_size: Option<usize>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            name_servers: Vec::new(),
            client_id: None,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(3),
            silence_limit: Duration::from_secs(10),
            max_frame_length: MAX_FRAME_LENGTH,
            route_interval: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(30),
            rebalance_interval: Duration::from_secs(20),
            offset_interval: Duration::from_secs(5),
            outbox_limit: 2 * 1024 * 1024,
            callback_threads: 1,
            header_encoding: HeaderEncoding::Json,
            address_map: None,
            resolver: Arc::new(SystemResolver),
            thread_starter: None,
            stack_size: None,
        }
    }
}

impl ClientConfig {
    /// Adds name servers: each item is one `host:port`, or several with `;` between them as the Java client takes them.
    pub(crate) fn add_name_servers<A: AsRef<str>>(&mut self, addresses: impl IntoIterator<Item = A>) {
        for list in addresses {
            let addresses = list.as_ref().split(';').map(str::trim).filter(|address| !address.is_empty());
            self.name_servers.extend(addresses.map(Arc::from));
        }
    }

    /// Takes the name servers of the environment when none is given.
    pub(crate) fn complete(&mut self, environment: impl FnOnce(&str) -> Option<String>) {
        if self.name_servers.is_empty()
            && let Some(list) = environment(NAME_SERVERS_VARIABLE)
        {
            self.add_name_servers([list]);
        }
    }

    /// Checks every option.
    pub(crate) fn check(&self) -> Result<()> {
        if self.name_servers.is_empty() {
            return Err(invalid(format!(
                "no name server is configured: give at least one with name_servers([\"host:port\"]), or in the environment \
                 variable {NAME_SERVERS_VARIABLE}"
            )));
        }
        for address in &self.name_servers {
            check_address(address)
                .map_err(|why| invalid(format!("name server {address:?} is not a valid host:port address: {why}")))?;
        }
        if self.client_id.as_ref().is_some_and(|client_id| client_id.trim().is_empty()) {
            return Err(invalid("invalid client_id: blank; give a unique name, or leave the option out"));
        }
        for (name, value) in [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("silence_limit", self.silence_limit),
            ("route_interval", self.route_interval),
            ("heartbeat_interval", self.heartbeat_interval),
            ("rebalance_interval", self.rebalance_interval),
            ("offset_interval", self.offset_interval),
        ] {
            // The upper bound keeps every sum with a moment in time representable.
            if value < Duration::from_millis(10) || value > Duration::from_secs(24 * 60 * 60) {
                return Err(invalid(format!("invalid {name} {value:?}: must be between 10 ms and 24 h")));
            }
        }
        if !FRAME_LENGTHS.contains(&self.max_frame_length) {
            let (least, most) = (FRAME_LENGTHS.start(), FRAME_LENGTHS.end());
            let length = self.max_frame_length;
            return Err(invalid(format!("invalid max_frame_length {length}: must be in {least}..={most} bytes")));
        }
        if !(1..=64).contains(&self.callback_threads) {
            return Err(invalid(format!("invalid callback_threads {}: must be in 1..=64", self.callback_threads)));
        }
        Ok(())
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("name_servers", &self.name_servers)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

pub(crate) fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidConfig, detail)
}

/// Fails with what is wrong with an address, and what to write instead.
fn check_address(address: &str) -> std::result::Result<(), &'static str> {
    if address.contains(',') {
        return Err("write ';' between several addresses, or give them one by one");
    }
    if address.contains('/') {
        return Err("leave out the scheme and the path");
    }
    if address.contains(char::is_whitespace) {
        return Err("it contains a blank");
    }
    let (host, port) = address.rsplit_once(':').ok_or("the port is missing")?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || port.parse::<u16>().unwrap_or(0) == 0 {
        return Err("the port must be a number from 1 to 65535");
    }
    match (host.strip_prefix('['), host.strip_suffix(']')) {
        (Some(rest), Some(_)) => check_ipv6(rest.strip_suffix(']').unwrap_or(rest)),
        (None, None) if host.contains(':') => check_ipv6(host),
        (None, None) => check_name(host),
        _ => Err("a bracket is missing"),
    }
}

fn check_ipv6(host: &str) -> std::result::Result<(), &'static str> {
    // An address of a link has a zone, such as `%eth0`.
    let (address, zone) = host.split_once('%').unwrap_or((host, "0"));
    if zone.is_empty() || address.parse::<Ipv6Addr>().is_err() {
        return Err("what stands before the last colon is neither a name nor an IPv6 address");
    }
    Ok(())
}

fn check_name(host: &str) -> std::result::Result<(), &'static str> {
    let is_allowed = |character: char| character.is_alphanumeric() || matches!(character, '-' | '_' | '.');
    match host {
        "" => Err("the host is missing"),
        host if host.chars().all(is_allowed) => Ok(()),
        _ => Err("a host name has letters, digits, '-', '_' and '.' only"),
    }
}

/// Defines the options that a client has, on [`ClientBuilder`](crate::ClientBuilder) and on the builders of producers
/// and consumers that make their own client.
macro_rules! client_options {
    ($config:ident) => {
        /// Adds name servers: each item is one `host:port`, or several with `;` between them. At least one is needed:
        /// without any, those of the environment variable `NAMESRV_ADDR` are taken. (Java: `namesrvAddr`)
        pub fn name_servers<A: AsRef<str>>(mut self, addresses: impl IntoIterator<Item = A>) -> Self {
            self.$config().add_name_servers(addresses);
            self
        }

        /// The name under which this client is known to brokers; must be unique among all clients. By default made of
        /// the local address, the process id and random digits, unique in containers too. (Java: `clientIP` and
        /// `instanceName`)
        pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
            self.$config().client_id = Some(client_id.into());
            self
        }

        /// Time limit for dialling an address. Default 3 s. (Java: `com.rocketmq.remoting.client.connect.timeout`)
        pub fn connect_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.$config().connect_timeout = timeout;
            self
        }

        /// Time limit for the client's own requests: routes, heartbeats, offsets. Default 3 s. (Java:
        /// `mqClientApiTimeout`)
        pub fn request_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.$config().request_timeout = timeout;
            self
        }

        /// Time without a whole frame after which a connection that owes a reply is probed. After half as long again it
        /// is replaced. Default 10 s. (The Java client has no such check.)
        pub fn silence_limit(mut self, limit: std::time::Duration) -> Self {
            self.$config().silence_limit = limit;
            self
        }

        /// The longest reply that is accepted, in bytes, with all that surrounds its messages. A longer one is passed
        /// over and its request alone fails, with [`ErrorKind::FrameTooLong`]($crate::ErrorKind::FrameTooLong); a
        /// consumer asks for fewer messages then. Default 16 MiB. (Java: `com.rocketmq.remoting.frameMaxLength`)
        pub fn max_frame_length(mut self, bytes: usize) -> Self {
            self.$config().max_frame_length = bytes;
            self
        }

        /// Interval at which routes are fetched; after a route error they are fetched at once. Default 30 s. (Java:
        /// `pollNameServerInterval`)
        pub fn route_interval(mut self, interval: std::time::Duration) -> Self {
            self.$config().route_interval = interval;
            self
        }

        /// Interval of heartbeats to the brokers. Default 30 s. (Java: `heartbeatBrokerInterval`)
        pub fn heartbeat_interval(mut self, interval: std::time::Duration) -> Self {
            self.$config().heartbeat_interval = interval;
            self
        }

        /// Interval of rebalances without a hint of a change. Default 20 s. (Java:
        /// `rocketmq.client.rebalance.waitInterval`)
        pub fn rebalance_interval(mut self, interval: std::time::Duration) -> Self {
            self.$config().rebalance_interval = interval;
            self
        }

        /// Interval at which consumed offsets are committed, besides those that ride on pulls. Default 5 s. (Java:
        /// `persistConsumerOffsetInterval`)
        pub fn offset_interval(mut self, interval: std::time::Duration) -> Self {
            self.$config().offset_interval = interval;
            self
        }

        /// Bytes that may wait for one connection before callers of synchronous and one-way sends wait too. Default
        /// 2 MiB. Asynchronous sends are bounded by their producer's in-flight window instead.
        pub fn outbox_limit(mut self, bytes: usize) -> Self {
            self.$config().outbox_limit = bytes;
            self
        }

        /// Threads that run the callbacks of asynchronous sends, started when the first one is due. Default 1, so that
        /// callbacks run one after the other in the order of the replies. (Java: `clientCallbackExecutorThreads`)
        pub fn callback_threads(mut self, threads: usize) -> Self {
            self.$config().callback_threads = threads;
            self
        }

        /// Encoding of request headers. Default JSON, which every server reads. (Java: `rocketmq.serialize.type`)
        pub fn header_encoding(mut self, encoding: $crate::wire::HeaderEncoding) -> Self {
            self.$config().header_encoding = encoding;
            self
        }

        /// Replaces the addresses that routes name by those to dial: for port-forwards, NAT and proxies. Asked at each
        /// dial, on a thread `rmq-resolve-N`, for every address but those of name servers; the result is resolved as any
        /// other address. A map that panics, or takes longer than [`connect_timeout`](Self::connect_timeout), fails that
        /// dial and nothing else.
        pub fn address_map(mut self, map: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
            self.$config().address_map = Some(std::sync::Arc::new(map));
            self
        }

        /// Resolves host names. Default: the operating system.
        pub fn resolver(mut self, resolver: impl $crate::remoting::Resolve + 'static) -> Self {
            self.$config().resolver = std::sync::Arc::new(resolver);
            self
        }

        /// Makes the client's threads. Default: the standard library. A client with a starter of its own has one more
        /// thread, `rmq-starter`, which calls the starter for threads that resolve names.
        pub fn thread_starter(mut self, starter: impl $crate::worker::ThreadStarter + 'static) -> Self {
            self.$config().thread_starter = Some(std::sync::Arc::new(starter));
            self
        }

        /// The stack of each thread, in bytes. Default: the platform's.
        pub fn stack_size(mut self, bytes: usize) -> Self {
            self.$config().stack_size = Some(bytes);
            self
        }
    };
}
pub(crate) use client_options;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_taken_one_by_one_and_as_a_list() {
        let mut config = ClientConfig::default();
        config.add_name_servers(["a:1; b:2;", "c:3"]);
        assert_eq!(config.name_servers, ["a:1", "b:2", "c:3"].map(Arc::from));
        assert!(config.check().is_ok());
    }

    #[test]
    fn the_environment_gives_name_servers_where_the_program_gives_none() {
        let environment = |name: &str| (name == "NAMESRV_ADDR").then(|| "a:1;b:2".to_owned());
        let mut config = ClientConfig::default();
        config.complete(environment);
        assert_eq!(config.name_servers, ["a:1", "b:2"].map(Arc::from));
        let mut config = ClientConfig::default();
        config.add_name_servers(["c:3"]);
        config.complete(environment);
        assert_eq!(config.name_servers, ["c:3"].map(Arc::from));
    }

    #[test]
    fn a_missing_or_malformed_name_server_is_named() {
        let mut config = ClientConfig::default();
        assert!(config.check().unwrap_err().to_string().contains("name_servers"));
        for (wrong, fix) in [
            ("localhost", "the port is missing"),
            (":9876", "the host is missing"),
            ("localhost:0", "1 to 65535"),
            ("localhost:+80", "1 to 65535"),
            ("localhost:port", "1 to 65535"),
            ("localhost:99999", "1 to 65535"),
            ("a:1,b:1", "';'"),
            ("http://a", "scheme"),
            ("http://a:9876", "scheme"),
            ("a:1/path", "path"),
            ("a b", "blank"),
            ("a b:1", "blank"),
            ("a:1:2", "IPv6"),
            ("[::1:1", "bracket"),
            ("::1]:1", "bracket"),
            ("[name]:1", "IPv6"),
            ("[fe80::1%]:1", "IPv6"),
            ("na%me:1", "host name"),
        ] {
            config.name_servers = vec![wrong.into()];
            let error = config.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(wrong) && error.to_string().contains(fix), "{error}");
        }
        for right in ["a:1", "a_b.c-d:9876", "10.0.0.1:9876", "[::1]:1", "::1:9876", "[fe80::1%eth0]:1", "fe80::1%2:1"]
        {
            config.name_servers = vec![right.into()];
            assert!(config.check().is_ok(), "{right}");
        }
    }

    #[test]
    fn a_blank_client_id_is_refused() {
        let mut config = ClientConfig { name_servers: vec!["a:1".into()], ..ClientConfig::default() };
        for blank in ["", " "] {
            config.client_id = Some(blank.into());
            assert!(config.check().unwrap_err().to_string().contains("invalid client_id: blank"));
        }
        config.client_id = Some("me".into());
        assert!(config.check().is_ok());
    }
}
