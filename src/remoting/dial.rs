//! From an address to a connected socket: the addresses of a name in turn, and back-off between dials.
//!
//! Runs on `rmq-remoting` and never blocks: an IP address needs no resolver, and a host *name* is handed to the
//! resolver's thread, anew at each dial, so that a broker that moved is found.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use mio::net::TcpStream;

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// After this long without a dial, failures are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// One of several addresses gets its share of the connect timeout, but not less than this.
const SHORTEST_TRY: Duration = Duration::from_millis(250);

/// Reads an IP address with a port: `1.2.3.4:5`, `[::1]:5`, and the bare `::1:5`, whose port follows the last colon. An
/// address of a link has a zone, by number or by name, as in `[fe80::1%2]:5` and `fe80::1%eth0:5`: so brokers register
/// that take their address from an interface.
pub(super) fn parse_ip_address(address: &str) -> Option<SocketAddr> {
    if let Ok(address) = address.parse() {
        return Some(address);
    }
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match host.split_once('%') {
        None => Some(SocketAddr::new(host.parse().ok()?, port)),
        Some((host, zone)) => {
            let scope = zone.parse().ok().or_else(|| interface_index(zone))?;
            Some(SocketAddrV6::new(host.parse().ok()?, port, 0, scope).into())
        }
    }
}

/// The number by which the system knows an interface.
#[cfg(unix)]
fn interface_index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

#[cfg(not(unix))]
fn interface_index(_name: &str) -> Option<u32> {
    None
}

/// How long to wait before an address is dialled again. Grows with each failure, with jitter so that many clients do
/// not come back in step; never ends.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// A dial failed, or a connection broke before its peer said anything. Returns how often in a row.
    pub(super) fn failed(&mut self, now: Instant, random: u64) -> u32 {
        let longest = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(10)).min(LONGEST_BACKOFF);
        // Between half of the delay and all of it.
        let share = u32::try_from(random % 512).unwrap_or(0) + 512;
        self.until = Some(now + longest * share / 1024);
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// The peer spoke. Returns how many failures came before.
    pub(super) fn succeeded(&mut self) -> u32 {
        self.until = None;
        std::mem::take(&mut self.failures)
    }

    /// When the address may be dialled, if not now.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|&until| until > now)
    }

    /// Whether the peer has failed and not spoken since.
    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Whether nothing is lost when this is dropped.
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until + FORGOTTEN_AFTER < now)
    }
}

/// A dial under way.
#[derive(Debug)]
pub(super) enum Dial {
    /// The back-off of the address has not passed.
    BackingOff { until: Instant },
    /// The resolver works; a call of it cannot be cancelled, but waiting for it can.
    Resolving { until: Instant },
    /// One address is being tried, others are left.
    Trying { socket: TcpStream, address: SocketAddr, until: Instant, left: VecDeque<SocketAddr>, share: Duration },
}

/// What a try at an address has come to.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing new; look again by the dial's deadline.
    Waiting(Dial),
    Connected(TcpStream),
    Failed(io::Error),
}

impl Dial {
    /// Tries the addresses in their order.
    pub(super) fn begin(addresses: Vec<SocketAddr>, timeout: Duration, now: Instant) -> Progress {
        let share = match u32::try_from(addresses.len()) {
            Ok(count @ 2..) => (timeout / count).max(SHORTEST_TRY),
            _ => timeout,
        };
        Self::try_next(addresses.into(), share, now, io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
    }

    fn try_next(mut left: VecDeque<SocketAddr>, share: Duration, now: Instant, mut last: io::Error) -> Progress {
        while let Some(address) = left.pop_front() {
            match TcpStream::connect(address) {
                Ok(socket) => {
                    return Progress::Waiting(Self::Trying { socket, address, until: now + share, left, share });
                }
                Err(error) => last = error,
            }
        }
        Progress::Failed(last)
    }

    /// When to look again without an event.
    pub(super) fn deadline(&self) -> Instant {
        match self {
            Self::BackingOff { until } | Self::Resolving { until } | Self::Trying { until, .. } => *until,
        }
    }

    /// Looks at the socket after an event or at the deadline.
    pub(super) fn look(self, now: Instant) -> Progress {
        let Self::Trying { socket, address, until, left, share } = self else { return Progress::Waiting(self) };
        match connect_result(&socket) {
            Ok(true) => Progress::Connected(socket),
            Ok(false) if now < until => Progress::Waiting(Self::Trying { socket, address, until, left, share }),
            Ok(false) => {
                let late = io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer in time"));
                Self::try_next(left, share, now, late)
            }
            Err(error) => Self::try_next(left, share, now, error),
        }
    }
}

/// Whether a non-blocking connect has succeeded, by the steps that mio's `TcpStream::connect` gives.
fn connect_result(socket: &TcpStream) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        // A dial of a loopback port that nobody listens on can meet itself, when the system picks the same port for
        // our side: the handshake succeeds, and every request would be answered by its own echo.
        Ok(peer) if socket.local_addr()? == peer => Err(io::ErrorKind::ConnectionRefused.into()),
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotConnected | io::ErrorKind::WouldBlock) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repeats::is_news_of_outage;

    #[test]
    fn ip_addresses_are_read_with_and_without_brackets() {
        for (text, expected) in [
            ("127.0.0.1:9876", Some("127.0.0.1:9876")),
            ("[::1]:9876", Some("[::1]:9876")),
            ("::1:9876", Some("[::1]:9876")),
            ("broker.example:9876", None),
            ("127.0.0.1", None),
            ("", None),
        ] {
            assert_eq!(parse_ip_address(text), expected.map(|text| text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn zones_of_ipv6_addresses_are_read_by_number_and_by_name() {
        let expected = |scope| Some(SocketAddrV6::new("fe80::1".parse().unwrap(), 9876, 0, scope).into());
        for text in ["[fe80::1%2]:9876", "fe80::1%2:9876", "[fe80:0:0:0:0:0:0:1%2]:9876"] {
            assert_eq!(parse_ip_address(text), expected(2), "{text}");
        }
        for text in ["[fe80::1%no-such-interface]:9876", "[fe80::1%]:9876", "1.2.3.4%2:9876", "name%2:9876"] {
            assert_eq!(parse_ip_address(text), None, "{text}");
        }
        if cfg!(target_os = "linux") {
            for text in ["[fe80::1%lo]:9876", "fe80::1%lo:9876"] {
                assert_eq!(parse_ip_address(text), expected(1), "{text}");
            }
        }
    }

    #[test]
    fn an_ipv6_address_with_a_zone_is_dialled() {
        // A machine may have no such addresses at all.
        let Ok(listener) = std::net::TcpListener::bind("[::1]:0") else { return };
        let port = listener.local_addr().unwrap().port();
        let loopback = if cfg!(target_os = "linux") { "lo" } else { "lo0" };
        let address = parse_ip_address(&format!("[::1%{loopback}]:{port}")).unwrap();
        let limit = Instant::now() + Duration::from_secs(10);
        let mut progress = Dial::begin(vec![address], Duration::from_secs(3), Instant::now());
        while let Progress::Waiting(dial) = progress {
            assert!(Instant::now() < limit);
            std::thread::yield_now();
            progress = dial.look(Instant::now());
        }
        assert!(matches!(progress, Progress::Connected(_)), "{progress:?}");
    }

    #[test]
    fn back_off_grows_to_its_limit_and_forgets_after_success() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        assert_eq!(backoff.until(now), None);
        let mut waits = Vec::new();
        for _ in 0..12 {
            backoff.failed(now, u64::MAX);
            waits.push(backoff.until(now).unwrap() - now);
        }
        assert!(waits.is_sorted());
        assert!(waits.first() >= Some(&(FIRST_BACKOFF / 2)));
        assert!(waits.iter().all(|wait| *wait <= LONGEST_BACKOFF));
        assert_eq!(backoff.succeeded(), 12);
        assert_eq!(backoff.until(now), None);
    }

    #[test]
    fn ten_minutes_of_failures_cost_a_dial_a_second_and_the_last_wait_is_short() {
        let start = Instant::now();
        let (mut now, mut backoff, mut lines) = (start, Backoff::default(), 0);
        let mut minutes = [0_u32; 10];
        while let Some(minute) = minutes.get_mut(usize::try_from((now - start).as_secs() / 60).unwrap()) {
            *minute += 1;
            let failures = backoff.failed(now, u64::from(*minute) * 151);
            lines += usize::from(is_news_of_outage(failures));
            let until = backoff.until(now).unwrap();
            assert!(until - now <= LONGEST_BACKOFF);
            now = until;
        }
        assert!(minutes.iter().skip(1).all(|dials| (30..=60).contains(dials)), "{minutes:?}");
        assert!((2..=4).contains(&lines), "{lines} lines");
        assert!(!backoff.is_forgotten(now));
    }

    #[test]
    fn the_next_address_is_tried_when_one_refuses() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let alive = listener.local_addr().unwrap();
        let limit = Instant::now() + Duration::from_secs(10);
        let mut progress = Dial::begin(vec![dead, alive], Duration::from_secs(3), Instant::now());
        while let Progress::Waiting(dial) = progress {
            assert!(Instant::now() < limit);
            std::thread::yield_now();
            progress = dial.look(Instant::now());
        }
        let Progress::Connected(socket) = progress else { panic!("{progress:?}") };
        assert_eq!(socket.peer_addr().unwrap(), alive);
    }
}
