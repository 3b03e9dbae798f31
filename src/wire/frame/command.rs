//! Remoting command: a request or response as a value, and the head of its frame.
//!
//! A frame is `length (4) | encoding (1) + header length (3) | header | body`; the length does not include itself. A
//! receiver reads the encoding byte of *every* frame, since peers mix encodings on one connection.

use std::fmt;

use bytes::Bytes;

use crate::wire::Error;
use crate::wire::code::{LanguageCode, RequestCode, ResponseCode};
use crate::wire::frame::ext_fields::{ExtFields, HeaderFields};

const FLAG_RESPONSE: i32 = 1;
const FLAG_ONEWAY: i32 = 2;

/// Protocol version that this library sends in its commands: `V4_9_3` of the Java client's `MQVersion`.
///
/// The newest number for which every broker, 4.9 and 5.x alike, checks ACL signatures by the same rule.
pub const PROTOCOL_VERSION: i32 = 399;

/// Encoding of a frame's header; its number is the frame's encoding byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HeaderEncoding {
    /// JSON object; understood by all peers, and required for request codes above 32767.
    #[default]
    Json,
    /// Binary layout of RocketMQ.
    RocketMq,
}

impl HeaderEncoding {
    pub(super) const fn to_byte(self) -> u8 {
        match self {
            Self::Json => 0,
            Self::RocketMq => 1,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Result<Self, Error> {
        match byte {
            0 => Ok(Self::Json),
            1 => Ok(Self::RocketMq),
            other => Err(Error::UnknownValue { what: "header encoding", value: i64::from(other) }),
        }
    }
}

/// Request or response.
#[derive(Clone, PartialEq, Eq)]
pub struct RemotingCommand {
    /// [`RequestCode`] or [`ResponseCode`], depending on the direction.
    pub code: i32,
    /// Language of the sender.
    pub language: LanguageCode,
    /// Protocol version of the sender.
    pub version: i32,
    /// Number that matches a response to its request, per connection and direction.
    pub opaque: i32,
    /// Flag bits. Bit 0: response; bit 1: one-way.
    pub flag: i32,
    /// Free text; in a response usually the reason of a failure.
    pub remark: Option<String>,
    /// Fields of the header.
    pub ext_fields: ExtFields,
    /// Bytes after the header; absent and empty are the same.
    pub body: Bytes,
    /// Encoding in which the header was read, or is to be written.
    pub encoding: HeaderEncoding,
}

impl RemotingCommand {
    /// Creates a two-way request; its opaque is set when it is sent.
    #[must_use]
    pub fn request(code: RequestCode, header: &dyn HeaderFields) -> Self {
        let mut ext_fields = ExtFields::new();
        header.write_to(&mut ext_fields);
        Self {
            code: code.0,
            language: LanguageCode::RUST,
            version: PROTOCOL_VERSION,
            opaque: 0,
            flag: 0,
            remark: None,
            ext_fields,
            body: Bytes::new(),
            encoding: HeaderEncoding::Json,
        }
    }

    /// Creates the response to `request`, in the encoding of the request.
    #[must_use]
    pub fn response_to(request: &Self, code: ResponseCode, remark: Option<String>) -> Self {
        Self {
            code: code.0,
            opaque: request.opaque,
            flag: FLAG_RESPONSE,
            remark,
            encoding: request.encoding,
            ..Self::request(RequestCode(code.0), &())
        }
    }

    /// Returns the command with a body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Returns the command with the fields of `header` appended to its own.
    #[must_use]
    pub fn with_fields(mut self, header: &dyn HeaderFields) -> Self {
        header.write_to(&mut self.ext_fields);
        self
    }

    /// Returns the command marked so that the peer sends no response.
    #[must_use]
    pub fn oneway(mut self) -> Self {
        self.flag |= FLAG_ONEWAY;
        self
    }

    /// True if the command is a response.
    #[must_use]
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    /// True if the sender expects no response.
    #[must_use]
    pub fn is_oneway(&self) -> bool {
        self.flag & FLAG_ONEWAY != 0
    }

    /// Returns the code as a request code.
    #[must_use]
    pub fn request_code(&self) -> RequestCode {
        RequestCode(self.code)
    }

    /// Returns the code as a response code.
    #[must_use]
    pub fn response_code(&self) -> ResponseCode {
        ResponseCode(self.code)
    }
}

impl fmt::Debug for RemotingCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("RemotingCommand");
        if self.is_response() {
            out.field("code", &self.response_code());
        } else {
            out.field("code", &self.request_code());
        }
        out.field("opaque", &self.opaque)
            .field("flag", &self.flag)
            .field("language", &self.language)
            .field("version", &self.version)
            .field("remark", &self.remark)
            .field("ext_fields", &self.ext_fields)
            .field("body_length", &self.body.len())
            .finish()
    }
}

/// Parts of a frame before its body, borrowed. Used for requests on the hot path, whose header is written from its
/// struct directly into the bytes to send.
#[derive(Clone, Copy, Debug)]
pub struct FrameHead<'a> {
    /// Encoding of the header.
    pub encoding: HeaderEncoding,
    /// Request or response code.
    pub code: i32,
    /// Language of the sender.
    pub language: LanguageCode,
    /// Protocol version of the sender.
    pub version: i32,
    /// Number that matches a response to its request.
    pub opaque: i32,
    /// Response and one-way bits.
    pub flag: i32,
    /// Free text.
    pub remark: Option<&'a str>,
}

impl FrameHead<'_> {
    /// Creates the head of a request of this library.
    #[must_use]
    pub fn request(encoding: HeaderEncoding, code: RequestCode, opaque: i32, oneway: bool) -> Self {
        FrameHead {
            encoding,
            code: code.0,
            language: LanguageCode::RUST,
            version: PROTOCOL_VERSION,
            opaque,
            flag: if oneway { FLAG_ONEWAY } else { 0 },
            remark: None,
        }
    }
}
