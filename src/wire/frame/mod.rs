//! Frames: one command each, with a header in one of two encodings and the ext fields in it.

pub mod codec;
pub mod command;

pub(crate) mod binary_header;
pub(crate) mod ext_fields;
pub(crate) mod json_header;

pub use codec::{Frame, FrameDecoder};
pub use command::{FrameHead, HeaderEncoding, RemotingCommand};
pub use ext_fields::{ExtFields, FieldSink, HeaderFields};
