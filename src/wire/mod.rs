//! Layer 1: bytes <-> values of the Remoting protocol.
//!
//! No I/O, no clock, no thread, no lock, no log: callers pass times in. Every length claimed by a peer is checked
//! against the available bytes *and* against a limit before it is used to allocate or slice. An invalid frame or
//! message is an [`Error`], never a default and never a panic.
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
pub mod limits;
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
pub use limits::MAX_FRAME_LENGTH;

/// Error in bytes from a peer, or in a value that does not fit into the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A value ended before its claimed or required length.
    UnexpectedEnd {
        /// Name of the value that was read.
        what: &'static str,
    },
    /// A length is negative, beyond its limit, or contradicts another length.
    BadLength {
        /// Name of the value that the length belongs to.
        what: &'static str,
        /// Claimed length.
        claimed: i64,
        /// Largest length allowed here.
        limit: u64,
    },
    /// A value that must be one of a known set is not.
    UnknownValue {
        /// Name of the value that was read.
        what: &'static str,
        /// Number that was found.
        value: i64,
    },
    /// Text that is not UTF-8, or a number that does not parse.
    BadText {
        /// Name of the value that was read.
        what: &'static str,
    },
    /// JSON that is valid neither in the standard nor in fastjson's dialect.
    BadJson {
        /// Name of the value that was read.
        what: &'static str,
        /// Message of the parser.
        detail: String,
    },
    /// A field required by the protocol is absent.
    MissingField {
        /// Name of the field on the wire.
        field: &'static str,
    },
    /// A stored message that could not be decoded, though its size is valid.
    Undecodable {
        /// Reason why decoding failed.
        detail: String,
    },
    /// A compressed body that cannot be decompressed.
    BadCompression {
        /// Name of the codec.
        codec: &'static str,
        /// Message of the codec.
        detail: String,
    },
    /// A codec that is not part of this build (see the crate's features).
    CodecNotBuilt {
        /// Name of the codec.
        codec: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnexpectedEnd { what } => write!(f, "{what} is truncated"),
            Self::BadLength { what, claimed, limit } => {
                write!(f, "{what} claims {claimed} bytes, the limit is {limit}")
            }
            Self::UnknownValue { what, value } => write!(f, "{what} has the unknown value {value}"),
            Self::BadText { what } => write!(f, "{what} is not valid text"),
            Self::BadJson { what, detail } => write!(f, "{what} is not JSON: {detail}"),
            Self::MissingField { field } => write!(f, "field {field} is missing"),
            Self::Undecodable { detail } => write!(f, "stored message cannot be decoded: {detail}"),
            Self::BadCompression { codec, detail } => write!(f, "{codec} body cannot be decompressed: {detail}"),
            Self::CodecNotBuilt { codec } => {
                write!(f, "body is compressed with {codec}, which is not enabled in this build")
            }
        }
    }
}

impl std::error::Error for Error {}

fn bad_length(what: &'static str, claimed: usize, limit: usize) -> Error {
    Error::BadLength { what, claimed: i64::try_from(claimed).unwrap_or(i64::MAX), limit: limit as u64 }
}
