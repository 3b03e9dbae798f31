//! Free TCP ports for servers that cannot choose one themselves.

use std::net::{Ipv6Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// First port, below the range from which Linux takes the ports of outgoing connections (32768 and up), so that none of
/// those can use a port between its choice and its use.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;
/// Number of ports per broker: its port, that minus 2 and, by the tests' configuration, that plus 1.
const BLOCK: u16 = 4;

/// Returns a port `p` such that `p - 2 ..= p + 1` are free now and are returned once in this process.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % u32::from(COUNT / BLOCK)).expect("less than 65536") * BLOCK;
    for _ in 0..COUNT / BLOCK {
        let step = NEXT.fetch_add(BLOCK, Ordering::Relaxed);
        let block = FIRST + (start + step % COUNT) % COUNT;
        if (block..block + BLOCK).all(is_free) {
            return block + 2;
        }
    }
    panic!("no four free ports in a row between {FIRST} and {}", FIRST + COUNT);
}

/// Java listens on all addresses of both kinds.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok() || TcpListener::bind(("0.0.0.0", port)).is_ok()
}
