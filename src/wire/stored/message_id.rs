//! Layouts of the two kinds of message ids: bytes <-> text, no clock and no counter. The broker makes the *offset
//! message id*, which contains the location of the stored message. The sender makes the *unique id* (property
//! `UNIQ_KEY`).

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use byteorder::{BigEndian, ByteOrder};

use crate::message::MessageExt;
use crate::message::properties::name;
use crate::wire::Error;

const LONGEST: usize = 28;

impl MessageExt {
    /// Returns the id given by the sender; without one, its [offset message id](Self::offset_msg_id).
    ///
    /// A retried message keeps the id of its first sending.
    #[must_use]
    pub fn msg_id(&self) -> Cow<'_, str> {
        self.property(name::UNIQ_KEY).map_or_else(|| Cow::Owned(self.offset_msg_id()), Cow::Borrowed)
    }

    /// Returns the id given by the broker: the broker's address and the message's position in the commit log, in
    /// hexadecimal.
    #[must_use]
    pub fn offset_msg_id(&self) -> String {
        OffsetMessageId { store_host: self.store_host, commit_log_offset: self.commit_log_offset }.to_string()
    }
}

/// Location of a stored message; as text 32 hexadecimal digits, or 56 with an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OffsetMessageId {
    /// Address under which the broker stores; it may not be reachable from here.
    pub store_host: SocketAddr,
    /// Position in the broker's commit log.
    pub commit_log_offset: i64,
}

impl fmt::Display for OffsetMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = IdBytes::of_address(self.store_host.ip());
        bytes.put(&u32::from(self.store_host.port()).to_be_bytes());
        bytes.put(&self.commit_log_offset.to_be_bytes());
        f.write_str(bytes.to_hex(&mut [0; 2 * LONGEST]))
    }
}

impl FromStr for OffsetMessageId {
    type Err = Error;

    /// Accepts digits of either case.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = IdBytes::from_hex("offset message id", text)?;
        let (ip, rest) = bytes.split_address().ok_or(Error::BadText { what: "offset message id" })?;
        let port = BigEndian::read_u32(&rest[..4]);
        let port = u16::try_from(port).map_err(|_| Error::UnknownValue { what: "port", value: port.into() })?;
        Ok(Self { store_host: SocketAddr::new(ip, port), commit_log_offset: BigEndian::read_i64(&rest[4..]) })
    }
}

/// Parts of a sender's message id; as text 32 hexadecimal digits, or 56 with an IPv6 address.
///
/// Other clients use the parts for other data, so ids are compared as text, unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UniqueId {
    /// Address of the sender's host.
    pub ip: IpAddr,
    /// Low half of the sender's process id.
    pub process_id: u16,
    /// Number that distinguishes processes with the same address and process id; a class loader's hash in Java.
    pub discriminator: u32,
    /// Milliseconds since the month began, in the sender's time zone.
    pub millis_of_month: u32,
    /// Number of the id within the process.
    pub counter: u16,
}

impl UniqueId {
    /// Appends the id's text to `out`.
    pub fn write_to(&self, out: &mut String) {
        out.push_str(self.bytes().to_hex(&mut [0; 2 * LONGEST]));
    }

    fn bytes(&self) -> IdBytes {
        let mut bytes = IdBytes::of_address(self.ip);
        bytes.put(&self.process_id.to_be_bytes());
        bytes.put(&self.discriminator.to_be_bytes());
        bytes.put(&self.millis_of_month.to_be_bytes());
        bytes.put(&self.counter.to_be_bytes());
        bytes
    }
}

impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.bytes().to_hex(&mut [0; 2 * LONGEST]))
    }
}

impl FromStr for UniqueId {
    type Err = Error;

    /// Accepts digits of either case: the Go client writes some in lower case.
    fn from_str(text: &str) -> Result<Self, Error> {
        const WHAT: &str = "unique message id";
        let bytes = IdBytes::from_hex(WHAT, text)?;
        let (ip, rest) = bytes.split_address().ok_or(Error::BadText { what: WHAT })?;
        Ok(Self {
            ip,
            process_id: BigEndian::read_u16(&rest[..2]),
            discriminator: BigEndian::read_u32(&rest[2..6]),
            millis_of_month: BigEndian::read_u32(&rest[6..10]),
            counter: BigEndian::read_u16(&rest[10..]),
        })
    }
}

/// Number of bytes after the address; both kinds are an address of 4 or 16 bytes and these.
const BEHIND_ADDRESS: usize = 12;

struct IdBytes {
    bytes: [u8; LONGEST],
    length: usize,
}

impl IdBytes {
    fn of_address(ip: IpAddr) -> Self {
        let mut id = Self { bytes: [0; LONGEST], length: 0 };
        match ip {
            IpAddr::V4(ip) => id.put(&ip.octets()),
            IpAddr::V6(ip) => id.put(&ip.octets()),
        }
        id
    }

    fn put(&mut self, part: &[u8]) {
        let end = self.length + part.len();
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(part);
            self.length = end;
        }
    }

    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn to_hex<'a>(&self, room: &'a mut [u8; 2 * LONGEST]) -> &'a str {
        let (groups, _) = room.as_chunks_mut::<8>();
        for (group, &bytes) in groups.iter_mut().zip(self.bytes.as_chunks::<4>().0) {
            *group = hex_of(u32::from_be_bytes(bytes)).to_be_bytes();
        }
        let written = room.get(..2 * self.length).unwrap_or_default();
        std::str::from_utf8(written).unwrap_or_default()
    }

    fn from_hex(what: &'static str, text: &str) -> Result<Self, Error> {
        let mut id = Self { bytes: [0; LONGEST], length: 0 };
        let (pairs, odd) = text.as_bytes().as_chunks::<2>();
        if !odd.is_empty() || pairs.len() > LONGEST {
            return Err(Error::BadText { what });
        }
        for &[high, low] in pairs {
            let byte = hex_value(high).zip(hex_value(low)).map(|(high, low)| high << 4 | low);
            id.put(&[byte.ok_or(Error::BadText { what })?]);
        }
        Ok(id)
    }

    fn split_address(&self) -> Option<(IpAddr, &[u8; BEHIND_ADDRESS])> {
        let (address, rest) = self.as_slice().split_last_chunk::<BEHIND_ADDRESS>()?;
        let ip = if let Ok(v4) = <[u8; 4]>::try_from(address) {
            IpAddr::from(v4)
        } else {
            IpAddr::from(<[u8; 16]>::try_from(address).ok()?)
        };
        Some((ip, rest))
    }
}

/// Converts eight digits at once, each in its own byte.
fn hex_of(word: u32) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // Each step halves the groups and doubles the space between them, until there is a byte for each four bits.
    let mut nibbles = u64::from(word);
    nibbles = (nibbles | nibbles << 16) & 0x0000_FFFF_0000_FFFF;
    nibbles = (nibbles | nibbles << 8) & 0x00FF_00FF_00FF_00FF;
    nibbles = (nibbles | nibbles << 4) & 0x0F0F_0F0F_0F0F_0F0F;
    // Digits above nine carry into the upper half of their byte when six are added.
    let letters = ((nibbles + 6 * ONES) >> 4) & ONES;
    nibbles + ONES * u64::from(b'0') + letters * u64::from(b'A' - b'0' - 10)
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_id_tells_where_the_message_is_stored() {
        let text = "C0A8010A00002A9F0000000000100000";
        let id: OffsetMessageId = text.parse().unwrap();
        assert_eq!(id.store_host, "192.168.1.10:10911".parse().unwrap());
        assert_eq!(id.commit_log_offset, 1_048_576);
        assert_eq!(id.to_string(), text);
    }

    #[test]
    fn a_unique_id_in_lower_case_is_read_too() {
        let id: UniqueId = "c0a8010a12342a139a554a3e5900002a".parse().unwrap();
        assert_eq!(id.process_id, 0x1234);
        assert_eq!(id.millis_of_month, 1_245_600_000);
        assert_eq!(id.counter, 42);
        assert_eq!(id.to_string(), "C0A8010A12342A139A554A3E5900002A");
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        let long = "0".repeat(58);
        for text in ["", "0", "0AAF0895", "zz", "C0A8010A00002A9F00000000001000", long.as_str(), "标签"] {
            assert!(text.parse::<OffsetMessageId>().is_err(), "{text}");
            assert!(text.parse::<UniqueId>().is_err(), "{text}");
        }
        assert!("C0A8010AFFFFFFFF0000000000100000".parse::<OffsetMessageId>().is_err());
    }
}
