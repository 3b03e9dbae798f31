//! Frames at the least possible cost: cut out of a large read, read in two places, written by patching a pattern.
//!
//! The floors and the peer use this instead of the library's decoder, so that their cost is small compared to the
//! measured one. Only frames of this library and of the bench's peer arrive here: both write JSON keys in one order.

use std::io::{self, Read};

use rocketmq_sync::unversioned::wire::{ExtFields, FieldSink, FrameDecoder, HeaderEncoding, RemotingCommand};

use super::Result;

/// Number of bytes before the header: length, encoding and header length.
const PREFIX: usize = 8;
/// First patterned opaque; all have ten digits, so that they fit when patched.
const FIRST_OPAQUE: u32 = 1_000_000_000;
/// Width of a patterned queue offset.
const OFFSET_DIGITS: usize = 16;

/// Bytes of one connection's incoming frames.
pub(crate) struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl FrameBuffer {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; 256 * 1024], start: 0, end: 0 }
    }

    /// Waits for more bytes; the end of the stream is an error.
    pub(crate) fn fill(&mut self, source: &mut impl Read) -> io::Result<()> {
        self.make_room();
        match source.read(&mut self.bytes[self.end..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }

    /// Returns the next complete frame.
    pub(crate) fn next_frame(&mut self) -> Option<&[u8]> {
        let rest = &self.bytes[self.start..self.end];
        let length = 4 + usize::try_from(be_u32(rest, 0)?).ok()?;
        if rest.len() < length {
            return None;
        }
        let start = self.start;
        self.start += length;
        self.bytes.get(start..start + length)
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.bytes.len() - self.end < self.bytes.len() / 4 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end > self.bytes.len() / 2 {
                self.bytes.resize(2 * self.bytes.len(), 0);
            }
        }
    }
}

/// Parts of a frame that are needed to answer or to match it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) code: i32,
    pub(crate) opaque: i32,
    pub(crate) oneway: bool,
    pub(crate) encoding: HeaderEncoding,
}

impl Head {
    /// Reads only these parts; `None` for a frame with another order of keys.
    pub(crate) fn scan(frame: &[u8]) -> Option<Self> {
        let marked = be_u32(frame, 4)?;
        let header = frame.get(PREFIX..PREFIX + usize::try_from(marked & 0x00FF_FFFF).ok()?)?;
        if marked >> 24 == 0 { Self::scan_json(header) } else { Self::scan_binary(header) }
    }

    /// Neither key can occur within a text, where its quotes would be escaped, and both come after the fields.
    fn scan_json(header: &[u8]) -> Option<Self> {
        let code = decimal(header.strip_prefix(b"{\"code\":")?)?;
        let opaque_key = find_last(header, b"\"opaque\":")?;
        let opaque = decimal(&header[opaque_key + b"\"opaque\":".len()..])?;
        let flag_key = find_last(&header[..opaque_key], b"\"flag\":")?;
        let flag = decimal(&header[flag_key + b"\"flag\":".len()..])?;
        Some(Self { code, opaque, oneway: flag & 2 != 0, encoding: HeaderEncoding::Json })
    }

    fn scan_binary(header: &[u8]) -> Option<Self> {
        let code = i16::from_be_bytes(header.get(..2)?.try_into().ok()?);
        let opaque = be_u32(header, 5)?.cast_signed();
        let flag = be_u32(header, 9)?;
        Some(Self { code: code.into(), opaque, oneway: flag & 2 != 0, encoding: HeaderEncoding::RocketMq })
    }
}

/// Returns the number that [`Pattern::append`] put into a request, from the opaque of its reply.
pub(crate) fn number_of(opaque: i32) -> Option<u32> {
    u32::try_from(opaque).ok()?.checked_sub(FIRST_OPAQUE)
}

/// Request encoded by the library, repeated with other opaques and offsets.
#[derive(Clone)]
pub(crate) struct Pattern {
    bytes: Vec<u8>,
    opaque_at: usize,
    offset_at: Option<usize>,
    encoding: HeaderEncoding,
}

impl Pattern {
    /// Creates the pattern of a send, two-way or one-way.
    pub(crate) fn of_send(captured: &[u8]) -> Result<Self> {
        Self::of_command(decode(captured)?)
    }

    /// Creates the pattern of a pull from `queue`.
    pub(crate) fn of_pull(captured: &[u8], queue: usize) -> Result<Self> {
        let mut command = decode(captured)?;
        let mut fields = ExtFields::new();
        for (key, value) in command.ext_fields.iter() {
            match key {
                "queueId" => fields.text(key, &queue.to_string()),
                "queueOffset" => fields.text(key, &"0".repeat(OFFSET_DIGITS)),
                _ => fields.text(key, value),
            }
        }
        command.ext_fields = fields;
        Self::of_command(command)
    }

    fn of_command(mut command: RemotingCommand) -> Result<Self> {
        command.opaque = FIRST_OPAQUE.cast_signed();
        let mut bytes = Vec::new();
        command.encode(&mut bytes)?;
        let header = PREFIX + usize::try_from(be_u32(&bytes, 4).ok_or("no header")? & 0x00FF_FFFF)?;
        let (opaque_at, offset_key) = match command.encoding {
            HeaderEncoding::Json => {
                let key = find_last(&bytes[..header], b"\"opaque\":").ok_or("no opaque")?;
                (key + b"\"opaque\":".len(), &b"\"queueOffset\":\""[..])
            }
            HeaderEncoding::RocketMq => (PREFIX + 5, &b"queueOffset\0\0\0\x10"[..]),
        };
        let offset_at = find_last(&bytes[..header], offset_key).map(|at| at + offset_key.len());
        Ok(Self { bytes: bytes.to_vec(), opaque_at, offset_at, encoding: command.encoding })
    }

    /// Writes the frame with an opaque for `number`.
    pub(crate) fn append(&self, number: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let opaque = FIRST_OPAQUE + number;
        let at = start + self.opaque_at;
        match self.encoding {
            HeaderEncoding::Json => put_digits(&mut out[at..at + 10], opaque.into()),
            HeaderEncoding::RocketMq => out[at..at + 4].copy_from_slice(&opaque.to_be_bytes()),
        }
    }

    /// Writes the frame of a pull from `offset`.
    pub(crate) fn append_pull(&self, number: u32, offset: u64, out: &mut Vec<u8>) {
        let start = out.len();
        self.append(number, out);
        if let Some(at) = self.offset_at {
            put_digits(&mut out[start + at..start + at + OFFSET_DIGITS], offset);
        }
    }
}

/// Body of a frame.
pub(crate) fn body(frame: &[u8]) -> &[u8] {
    let header = be_u32(frame, 4).map_or(0, |marked| marked & 0x00FF_FFFF);
    usize::try_from(header).ok().and_then(|header| frame.get(PREFIX + header..)).unwrap_or_default()
}

/// Number of stored messages in the body of a pull's reply.
pub(crate) fn count_messages(mut body: &[u8]) -> u64 {
    let mut count = 0;
    while let Some(size) = be_u32(body, 0).and_then(|size| usize::try_from(size).ok()).filter(|&size| size > 0) {
        let Some(rest) = body.get(size..) else { break };
        body = rest;
        count += 1;
    }
    count
}

/// Decodes a whole frame with the library, for rare cases.
pub(crate) fn decode(frame: &[u8]) -> Result<RemotingCommand> {
    let mut decoder = FrameDecoder::new();
    decoder.push(frame);
    decoder.next_command()?.ok_or_else(|| "half a frame".into())
}

fn put_digits(slot: &mut [u8], mut value: u64) {
    for digit in slot.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn find_last(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).rposition(|window| window == needle)
}

fn decimal(bytes: &[u8]) -> Option<i32> {
    let (negative, digits) = match bytes.split_first()? {
        (b'-', rest) => (true, rest),
        _ => (false, bytes),
    };
    let mut value: i32 = 0;
    let mut seen = false;
    for &byte in digits.iter().take_while(|byte| byte.is_ascii_digit()) {
        value = value.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
        seen = true;
    }
    seen.then_some(if negative { value.wrapping_neg() } else { value })
}
