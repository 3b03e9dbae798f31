//! A dial, from an address to a connected socket with its transport: the addresses of a name in turn, the transport's
//! handshake, and back-off between dials.
//!
//! Runs on `rmq-remoting` and never blocks: an IP address needs no resolver, and a host *name* is handed to the
//! resolver's thread at each dial, so that a broker that moved is found.

use std::collections::VecDeque;
use std::io::{self, ErrorKind as IoErrorKind};
use std::net::{SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::transport::Transport;

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// Time without a dial after which failures are forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Least time for one of several addresses, which share the connect timeout.
const SHORTEST_TRY: Duration = Duration::from_millis(250);

/// Reads an IP address with a port: `1.2.3.4:5`, `[::1]:5`, and the bare `::1:5`, whose port follows the last colon. An
/// address of a link has a zone, by number or by name, as in `[fe80::1%2]:5` and `fe80::1%eth0:5`: brokers that take
/// their address from an interface register it so.
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

/// Index of an interface, by its name.
#[cfg(unix)]
fn interface_index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

#[cfg(not(unix))]
fn interface_index(_name: &str) -> Option<u32> {
    None
}

/// Wait before an address is dialled again. Grows with each failure up to a limit, with jitter so that many clients do
/// not come back in step.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// Notes a failed dial, or a connection that broke before its peer's first frame. Returns the failures in a row.
    pub(super) fn failed(&mut self, now: Instant, random: u64) -> u32 {
        let longest = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(10)).min(LONGEST_BACKOFF);
        // Between half of the delay and all of it.
        let share = u32::try_from(random % 512).unwrap_or(0) + 512;
        self.until = Some(now + longest * share / 1024);
        self.failures = self.failures.saturating_add(1);
        self.failures
    }

    /// Notes a frame of the peer. Returns the number of failures before it.
    pub(super) fn succeeded(&mut self) -> u32 {
        self.until = None;
        std::mem::take(&mut self.failures)
    }

    /// Time from which the address may be dialled; `None` for now.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|&until| until > now)
    }

    /// True if the last dial failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// True if it can be dropped.
    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until + FORGOTTEN_AFTER < now)
    }
}

/// A dial in progress.
#[derive(Debug)]
pub(super) enum Dial {
    /// Waiting for the end of the address's back-off.
    BackingOff { until: Instant },
    /// Waiting for the resolver. Its call cannot be cancelled, but the wait can.
    Resolving { until: Instant },
    /// Connecting to one address.
    Connecting(TcpStream, Try),
    /// Connected to one address; the transport exchanges its own bytes with the peer.
    Handshaking(TcpStream, Box<dyn Transport>, Try),
}

/// The try of one address, with the addresses that are left.
#[derive(Debug)]
pub(super) struct Try {
    address: SocketAddr,
    /// Limit of connecting and handshake.
    until: Instant,
    left: VecDeque<SocketAddr>,
    /// Time of each try.
    share: Duration,
}

/// Result of a step of a dial.
#[derive(Debug)]
pub(super) enum Progress {
    /// Not finished: look again after an event, and by the dial's deadline.
    Waiting(Dial),
    /// Connected, and the handshake is done.
    Connected(TcpStream, Box<dyn Transport>),
    Failed(DialFailure),
}

/// Failure of the last address that was tried.
#[derive(Debug)]
pub(super) struct DialFailure {
    /// Failed operation, to be followed by the peer's address.
    pub(super) operation: &'static str,
    pub(super) error: io::Error,
}

impl DialFailure {
    fn connecting(error: io::Error) -> Self {
        Self { operation: "connecting to", error }
    }

    fn handshaking(error: io::Error) -> Self {
        Self { operation: "handshake with", error }
    }
}

impl Dial {
    /// Tries the addresses in their order, all of them together within about `timeout`.
    pub(super) fn begin(addresses: Vec<SocketAddr>, timeout: Duration, now: Instant) -> Progress {
        let share = match u32::try_from(addresses.len()) {
            Ok(count @ 2..) => (timeout / count).max(SHORTEST_TRY),
            _ => timeout,
        };
        let none = io::Error::new(IoErrorKind::NotFound, "the name has no address");
        Self::try_next(addresses.into(), share, now, DialFailure::connecting(none))
    }

    fn try_next(mut left: VecDeque<SocketAddr>, share: Duration, now: Instant, mut last: DialFailure) -> Progress {
        while let Some(address) = left.pop_front() {
            match TcpStream::connect(address) {
                Ok(socket) => {
                    return Progress::Waiting(Self::Connecting(
                        socket,
                        Try { address, until: now + share, left, share },
                    ));
                }
                Err(error) => last = DialFailure::connecting(error),
            }
        }
        Progress::Failed(last)
    }

    /// Time of the next look without an event.
    pub(super) fn deadline(&self) -> Instant {
        match self {
            Self::BackingOff { until } | Self::Resolving { until } => *until,
            Self::Connecting(_, attempt) | Self::Handshaking(_, _, attempt) => attempt.until,
        }
    }

    /// Looks at the socket after an event or at the deadline.
    pub(super) fn look(self, make_transport: impl Fn() -> io::Result<Box<dyn Transport>>, now: Instant) -> Progress {
        match self {
            Self::Connecting(socket, attempt) => match connect_result(&socket) {
                Ok(true) => match socket.set_nodelay(true).and_then(|()| make_transport()) {
                    Ok(transport) => attempt.shake_hands(socket, transport, now),
                    Err(error) => attempt.failed(DialFailure::connecting(error), now),
                },
                Ok(false) if now < attempt.until => Progress::Waiting(Self::Connecting(socket, attempt)),
                Ok(false) => {
                    let late = format!("{} did not answer in time", attempt.address);
                    attempt.failed(DialFailure::connecting(io::Error::new(IoErrorKind::TimedOut, late)), now)
                }
                Err(error) => attempt.failed(DialFailure::connecting(error), now),
            },
            Self::Handshaking(socket, transport, attempt) => attempt.shake_hands(socket, transport, now),
            Self::BackingOff { .. } | Self::Resolving { .. } => Progress::Waiting(self),
        }
    }
}

impl Try {
    fn shake_hands(self, socket: TcpStream, mut transport: Box<dyn Transport>, now: Instant) -> Progress {
        loop {
            match transport.handshake(&socket) {
                Ok(()) => return Progress::Connected(socket, transport),
                Err(error) if error.kind() == IoErrorKind::Interrupted => {}
                Err(error) if error.kind() != IoErrorKind::WouldBlock => {
                    return self.failed(DialFailure::handshaking(error), now);
                }
                Err(_) if now < self.until => return Progress::Waiting(Dial::Handshaking(socket, transport, self)),
                Err(_) => {
                    let late = format!("{} did not complete it in time", self.address);
                    return self.failed(DialFailure::handshaking(io::Error::new(IoErrorKind::TimedOut, late)), now);
                }
            }
        }
    }

    /// Goes on with the next address.
    fn failed(self, failure: DialFailure, now: Instant) -> Progress {
        Dial::try_next(self.left, self.share, now, failure)
    }
}

/// Result of a non-blocking connect, by the steps that mio's `TcpStream::connect` documents. `false` while it goes on.
fn connect_result(socket: &TcpStream) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        // A dial of a loopback port without a listener can meet itself, if the system picks the same port for our side:
        // TCP's handshake succeeds, and every request would be answered by its own echo.
        Ok(peer) if socket.local_addr()? == peer => Err(IoErrorKind::ConnectionRefused.into()),
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), IoErrorKind::NotConnected | IoErrorKind::WouldBlock) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::transport::Plain;
    use crate::repeats::is_news_of_outage;

    fn plain() -> io::Result<Box<dyn Transport>> {
        Ok(Box::new(Plain))
    }

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
            progress = dial.look(plain, Instant::now());
        }
        assert!(matches!(progress, Progress::Connected(..)), "{progress:?}");
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
            progress = dial.look(plain, Instant::now());
        }
        let Progress::Connected(socket, _) = progress else { panic!("{progress:?}") };
        assert_eq!(socket.peer_addr().unwrap(), alive);
    }
}
