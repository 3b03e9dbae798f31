//! Who this client is: the id that brokers know it by, and the ids of its messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::config::ClientConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::message_id::UniqueId;

const MILLIS_PER_DAY: i64 = 24 * 60 * 60 * 1000;

/// A client's id and the source of unique message ids.
///
/// Both hold random bytes, so that containers with equal address and process id, restarts, and several clients of one
/// process do not repeat them; a forked child cannot use its parent's client at all.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) client_id: String,
    /// Told by the system of a fork: asking for the process id costs more than all else that a send asks the system for.
    fork: forkguard::Guard,
    address: IpAddr,
    /// Stand where the Java client has its process id and the hash of its class loader.
    random: (u16, u32),
    counter: AtomicU32,
    /// When the month began of which the last id was made.
    month_start: AtomicI64,
}

impl Identity {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self> {
        let mut random = [0; 14];
        getrandom::fill(&mut random)
            .map_err(|error| Error::new(ErrorKind::Resource, format!("the system gives no random bytes: {error}")))?;
        let [a, b, c, d, e, f, instance @ ..] = random;
        let fork = forkguard::Guard::try_new()
            .map_err(|error| Error::new(ErrorKind::Resource, format!("forks cannot be noticed: {error}")))?;
        let process = process::id();
        let address = local_address(&config.name_servers);
        let made_up = || format!("{address}@{process}#{:016x}", u64::from_be_bytes(instance));
        Ok(Self {
            client_id: config.client_id.clone().unwrap_or_else(made_up),
            fork,
            address,
            random: (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])),
            counter: AtomicU32::new(0),
            month_start: AtomicI64::new(0),
        })
    }

    /// Whether this process is a child of the one that made the client.
    pub(crate) fn is_forked(&self) -> bool {
        self.fork.clone().detected_fork()
    }

    /// Where a round over queues begins, so that not all clients begin at the same one.
    pub(crate) fn random_start(&self) -> usize {
        usize::from(self.random.0)
    }

    /// A new message id for a message made at `now`, in milliseconds since 1970.
    pub(crate) fn next_unique_id(&self, now: i64) -> UniqueId {
        let [_, _, high, low] = self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        UniqueId {
            ip: self.address,
            process_id: self.random.0,
            discriminator: self.random.1,
            millis_of_month: self.millis_of_month(now),
            counter: u16::from_be_bytes([high, low]),
        }
    }

    /// By UTC: the Java client counts by its own time zone, of which a reader of the id knows nothing either.
    fn millis_of_month(&self, now: i64) -> u32 {
        let known = self.month_start.load(Ordering::Relaxed);
        // 28 days after its start a month may be over.
        if let Ok(millis) = u32::try_from(now - known)
            && now - known < 28 * MILLIS_PER_DAY
        {
            return millis;
        }
        let start = month_start(now);
        self.month_start.store(start, Ordering::Relaxed);
        u32::try_from(now - start).unwrap_or(0)
    }
}

/// Milliseconds since 1970, by this machine's clock.
pub(crate) fn wall_clock_millis() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

/// When the month of `now` began, both in milliseconds since 1970 by UTC.
fn month_start(now: i64) -> i64 {
    const DAYS_PER_400_YEARS: i64 = 146_097;
    // Counted from the 1st of March of year 0, so that the leap day is the last of its year.
    let day = now.div_euclid(MILLIS_PER_DAY) + 719_468;
    let day_of_era = day.rem_euclid(DAYS_PER_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5;
    (now.div_euclid(MILLIS_PER_DAY) - day_of_month) * MILLIS_PER_DAY
}

/// The address from which this machine reaches its name server. Connecting a datagram socket sends nothing: it only
/// asks the system for a route. Host names are not resolved for this.
fn local_address(name_servers: &[std::sync::Arc<str>]) -> IpAddr {
    let own_side = |server: SocketAddr| {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(server).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    name_servers
        .iter()
        .filter_map(|server| server.parse().ok())
        .find_map(own_side)
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;

    fn identity() -> Identity {
        Identity::new(&ClientConfig { name_servers: vec!["127.0.0.1:9876".into()], ..ClientConfig::default() }).unwrap()
    }

    #[test]
    fn ids_are_unique_within_a_client_and_across_clients() {
        let clients: Vec<_> = (0..50).map(|_| Arc::new(identity())).collect();
        let now = wall_clock_millis();
        let ids: HashSet<_> =
            clients.iter().flat_map(|client| (0..1000).map(|_| client.next_unique_id(now).to_string())).collect();
        assert_eq!(ids.len(), 50_000);
        let names: HashSet<_> = clients.iter().map(|client| client.client_id.clone()).collect();
        assert_eq!(names.len(), 50);
    }

    #[test]
    fn an_id_tells_the_moment_within_the_month() {
        let client = identity();
        // 2025-09-15 10:00:00 UTC, then the first and the last moment of a leap day, then the next month.
        for (now, millis) in [
            (1_757_930_400_000, 1_245_600_000),
            (1_709_164_800_000, 28 * MILLIS_PER_DAY),
            (1_709_251_199_999, 29 * MILLIS_PER_DAY - 1),
            (1_709_251_200_000, 0),
        ] {
            assert_eq!(i64::from(client.next_unique_id(now).millis_of_month), millis);
        }
    }

    #[test]
    fn a_given_client_id_is_taken_as_it_is() {
        let config = ClientConfig { client_id: Some("me".into()), ..ClientConfig::default() };
        assert_eq!(Identity::new(&config).unwrap().client_id, "me");
    }
}
