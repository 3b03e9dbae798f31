//! Identity of a client: the id that brokers list, and the ids of its messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::config::ClientConfig;
use crate::error::{Error, Result};
use crate::wire::stored::message_id::UniqueId;

const MILLIS_PER_DAY: i64 = 24 * 60 * 60 * 1000;
/// The time by which the last zone's month begins after that of UTC.
const WESTERNMOST_MILLIS: i64 = MILLIS_PER_DAY / 2;
/// A clock that is set back by this at most is waited for: until then ids bear the time they had reached.
const SMALL_STEP_BACK_MILLIS: u64 = 1000;
/// Of the number in [`Identity::last`].
const COUNTER_BITS: u32 = 16;

/// A client's id and the source of unique message ids.
///
/// Both hold random bytes, so that containers with equal address and process id, restarts, and several clients of one
/// process do not repeat them; a forked child cannot use its parent's client at all.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) client_id: String,
    /// Set by a fork handler: a call for the process id costs more than all other system calls of a send.
    fork: forkguard::Guard,
    address: IpAddr,
    /// Stands where the Java client has its process id.
    random: u16,
    /// Stands where the Java client has the hash of its class loader. Another one when the clock was set back, since ids
    /// of the time that comes again could be the same.
    discriminator: AtomicU32,
    /// Time, in milliseconds since 1970, and number of the last id.
    last: AtomicU64,
    /// When the month began of which the last id was made.
    month_start: AtomicI64,
}

impl Identity {
    pub(crate) fn new(config: &ClientConfig) -> Result<Self> {
        let mut random = [0; 14];
        getrandom::fill(&mut random).map_err(|error| Error::of_system("reading random bytes", error))?;
        let [a, b, c, d, e, f, instance @ ..] = random;
        let fork = forkguard::Guard::try_new().map_err(|error| Error::of_system("registering for forks", error))?;
        let process = process::id();
        let address = local_address(&config.name_servers);
        let made_up = || format!("{address}@{process}#{:016x}", u64::from_be_bytes(instance));
        Ok(Self {
            client_id: config.client_id.clone().unwrap_or_else(made_up),
            fork,
            address,
            random: u16::from_be_bytes([a, b]),
            discriminator: AtomicU32::new(u32::from_be_bytes([c, d, e, f])),
            last: AtomicU64::new(0),
            month_start: AtomicI64::new(0),
        })
    }

    /// True in a child of the process that made the client.
    pub(crate) fn is_forked(&self) -> bool {
        self.fork.clone().detected_fork()
    }

    /// Start of a round over queues, random so that clients do not all start at the same queue.
    pub(crate) fn random_start(&self) -> usize {
        usize::from(self.random)
    }

    /// A new message id for a message made at `now`, in milliseconds since 1970.
    pub(crate) fn next_unique_id(&self, now: i64) -> UniqueId {
        let (millis, counter) = self.next_moment(now);
        UniqueId {
            ip: self.address,
            process_id: self.random,
            // Read after the time: a reader that sees a repeated time also sees the new discriminator.
            discriminator: self.discriminator.load(Ordering::Acquire),
            millis_of_month: self.millis_of_month(millis),
            counter,
        }
    }

    /// A time and a number that no other id has together with the discriminator. The number runs on from id to id, so
    /// that it differs also where the time of a month comes again.
    fn next_moment(&self, now: i64) -> (i64, u16) {
        let mut last = self.last.load(Ordering::Acquire);
        loop {
            let (next, set_back) = successor(last, u64::try_from(now).unwrap_or(0));
            if set_back {
                self.discriminator.fetch_add(1, Ordering::AcqRel);
            }
            match self.last.compare_exchange_weak(last, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let [.., high, low] = next.to_be_bytes();
                    return (i64::try_from(next >> COUNTER_BITS).unwrap_or(0), u16::from_be_bytes([high, low]));
                }
                Err(other) => last = other,
            }
        }
    }

    /// The time within the month, [`WESTERNMOST_MILLIS`] early.
    ///
    /// The Java client looks an id up from the time on that it finds in it, and adds it to the beginning of the month in
    /// its own time zone. West of UTC that is later: by UTC's month the search would begin behind the message. East of
    /// it, it begins a day early, which finds the message as well.
    fn millis_of_month(&self, now: i64) -> u32 {
        let now = now.saturating_sub(WESTERNMOST_MILLIS);
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

/// Successor of a time and number at `now`; true if the clock was set back.
fn successor(last: u64, now: u64) -> (u64, bool) {
    // When the numbers of a millisecond are used up, this carries into the next one.
    let next = last + 1;
    let ahead = (next >> COUNTER_BITS).checked_sub(now);
    match ahead {
        Some(0..=SMALL_STEP_BACK_MILLIS) => (next, false),
        _ => (now << COUNTER_BITS | next & ((1 << COUNTER_BITS) - 1), ahead.is_some()),
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
        // 2025-09-15 10:00:00 UTC, then the first and the last moment of a leap day, then the next month.
        for (early, millis) in [
            (1_757_930_400_000, 1_245_600_000),
            (1_709_164_800_000, 28 * MILLIS_PER_DAY),
            (1_709_251_199_999, 29 * MILLIS_PER_DAY - 1),
            (1_709_251_200_000, 0),
        ] {
            let now = early + WESTERNMOST_MILLIS;
            assert_eq!(i64::from(identity().next_unique_id(now).millis_of_month), millis);
        }
    }

    /// As `MessageClientIDSetter.getNearlyTimeFromID` of the Java client at `now`, in a zone so far east of UTC.
    fn time_for_java(id: UniqueId, now: i64, east: i64) -> i64 {
        let month = |at: i64| month_start(at + east) - east;
        let this_month = month(now);
        let span = i64::from(id.millis_of_month);
        if this_month + span >= now { month(this_month - 1) + span } else { this_month + span }
    }

    #[test]
    fn java_finds_an_id_by_its_time_from_every_zone() {
        const HOUR: i64 = MILLIS_PER_DAY / 24;
        let client = identity();
        // Over the ends of a year and of a February, in steps of 5 hours.
        for born in (0..75 * 24).step_by(5).map(|hours| 1_703_030_400_000 + hours * HOUR) {
            let id = client.next_unique_id(born);
            for zone in -12..=14 {
                for later in [0, 1, HOUR, 11 * HOUR, MILLIS_PER_DAY, 13 * MILLIS_PER_DAY, 27 * MILLIS_PER_DAY] {
                    let searched_from = time_for_java(id, born + later, zone * HOUR);
                    assert!(searched_from <= born, "born {born}, {later} ms later at UTC{zone:+}");
                }
            }
        }
    }

    #[test]
    fn ids_stay_unique_when_the_clock_is_set_back_or_ahead_and_tell_its_time() {
        const HOUR: i64 = 60 * 60 * 1000;
        let (client, start) = (identity(), 1_757_930_400_000);
        let mut ids = HashSet::new();
        let mut shift = 0;
        for step in [0, -HOUR, HOUR, -HOUR, HOUR, -100, 50] {
            // The time that was there before comes again, with thousands of ids in each millisecond.
            shift += step;
            for now in (0..20).flat_map(|millis| std::iter::repeat_n(start + shift + millis, 1_000)) {
                let id = client.next_unique_id(now);
                let early = now - WESTERNMOST_MILLIS;
                let ahead = i64::from(id.millis_of_month) - (early - month_start(early));
                assert!((0..=1000).contains(&ahead), "{ahead} ms ahead of the clock");
                assert!(ids.insert(id.to_string()), "{id} was there before");
            }
        }
    }

    #[test]
    fn ids_stay_unique_when_more_are_made_in_a_millisecond_than_it_has_numbers() {
        let (client, now) = (identity(), wall_clock_millis());
        let ids: HashSet<_> = (0..200_000).map(|_| client.next_unique_id(now).to_string()).collect();
        assert_eq!(ids.len(), 200_000);
    }

    #[test]
    fn a_given_client_id_is_taken_as_it_is() {
        let config = ClientConfig { client_id: Some("me".into()), ..ClientConfig::default() };
        assert_eq!(Identity::new(&config).unwrap().client_id, "me");
    }
}
