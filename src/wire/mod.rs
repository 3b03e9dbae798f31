//! Layer 1: bytes <-> values of the Remoting protocol.
//!
//! No I/O, no clock, no thread, no lock, no log: whoever needs a time passes it in. Every length that a peer claims is
//! checked against what is there *and* against a limit before it is used to allocate or slice; a wrong frame or message
//! is an [`Error`], never a default and never a panic.
//!
//! Public as `unversioned::wire`, for tools, benches and test peers.

#![warn(clippy::indexing_slicing)]

#[cfg(feature = "acl")]
pub mod acl;
pub mod body;
pub mod code;
pub mod frame;
pub mod header;
pub mod java_hash;
pub mod name;
pub mod pop;
pub mod stored;
pub mod sys_flag;
pub mod version;

#[cfg(test)]
mod hostile;

use std::fmt;

pub use code::{LanguageCode, RequestCode, ResponseCode};
pub use frame::{ExtFields, FieldSink, Frame, FrameDecoder, HeaderEncoding, HeaderFields, RemotingCommand};

/// The largest frame that is sent, and accepted unless another limit is set, with its four bytes of length: 16 MiB, as in
/// the Java client (`com.rocketmq.remoting.frameMaxLength`).
pub const MAX_FRAME_LENGTH: usize = 16 * 1024 * 1024;

/// What was wrong with bytes from a peer, or with a value that does not fit into the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A value ended before its claimed or required length.
    UnexpectedEnd {
        /// What was being read.
        what: &'static str,
    },
    /// A length is negative, beyond its limit, or contradicts another one.
    BadLength {
        /// What the length belongs to.
        what: &'static str,
        /// The length that was claimed.
        claimed: i64,
        /// The largest length allowed here.
        limit: u64,
    },
    /// A value that must be one of a known set is not.
    UnknownValue {
        /// What was being read.
        what: &'static str,
        /// The number found.
        value: i64,
    },
    /// Text that is not UTF-8, or a number that does not parse.
    BadText {
        /// What was being read.
        what: &'static str,
    },
    /// JSON that neither standard nor fastjson's dialect allows.
    BadJson {
        /// What was being read.
        what: &'static str,
        /// The parser's words.
        detail: String,
    },
    /// A field that the protocol requires is not there.
    MissingField {
        /// The field's name on the wire.
        field: &'static str,
    },
    /// A stored message that could not be decoded, though its size is sound.
    Undecodable {
        /// What was wrong with it.
        detail: String,
    },
    /// A compressed body that cannot be restored.
    BadCompression {
        /// The codec.
        codec: &'static str,
        /// What it said.
        detail: String,
    },
    /// A codec that this build was made without (see the crate's features).
    CodecNotBuilt {
        /// The codec.
        codec: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedEnd { what } => write!(f, "{what} ends too early"),
            Self::BadLength { what, claimed, limit } => {
                write!(f, "{what} claims {claimed} bytes, the limit is {limit}")
            }
            Self::UnknownValue { what, value } => write!(f, "{what} has the unknown value {value}"),
            Self::BadText { what } => write!(f, "{what} is not readable text"),
            Self::BadJson { what, detail } => write!(f, "{what} is not JSON: {detail}"),
            Self::MissingField { field } => write!(f, "field {field} is missing"),
            Self::Undecodable { detail } => write!(f, "stored message cannot be decoded: {detail}"),
            Self::BadCompression { codec, detail } => write!(f, "{codec} body cannot be decompressed: {detail}"),
            Self::CodecNotBuilt { codec } => write!(f, "body is compressed with {codec}, which this build lacks"),
        }
    }
}

impl std::error::Error for Error {}

fn bad_length(what: &'static str, claimed: usize, limit: usize) -> Error {
    Error::BadLength { what, claimed: i64::try_from(claimed).unwrap_or(i64::MAX), limit: limit as u64 }
}
