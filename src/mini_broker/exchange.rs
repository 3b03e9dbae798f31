//! Values exchanged between sockets, dispatcher, brokers and handlers: requests, responses, and their destinations.

use std::net::SocketAddr;

use bytes::Bytes;

use super::fault::ReplyFate;
use crate::wire::{ExtFields, FieldSink, HeaderFields, RemotingCommand, ResponseCode};

/// One of the servers, by its index among its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Node {
    NameServer(usize),
    Broker(usize),
}

/// Work for the thread that owns the sockets, on one connection.
#[derive(Debug)]
pub(super) enum Output {
    Command(u64, RemotingCommand),
    Bytes(u64, Bytes),
    Close(u64),
}

impl Output {
    pub(super) fn connection(&self) -> u64 {
        match self {
            Self::Command(connection, _) | Self::Bytes(connection, _) | Self::Close(connection) => *connection,
        }
    }
}

/// Request as received by a server.
#[derive(Debug)]
pub(super) struct BrokerRequest {
    pub(super) command: RemotingCommand,
    pub(super) peer: SocketAddr,
    pub(super) now: i64,
    pub(super) return_to: ReturnAddress,
}

/// Destination of a request's response, and the fault that applies to the response.
#[derive(Clone, Debug)]
pub(super) struct ReturnAddress {
    pub(super) connection: u64,
    pub(super) oneway: bool,
    pub(super) fate: ReplyFate,
    /// Response with everything but its content.
    pub(super) blank: RemotingCommand,
}

/// Content of a response.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) code: i32,
    pub(super) remark: Option<String>,
    pub(super) fields: ExtFields,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn success() -> Self {
        Self::default()
    }

    pub(super) fn refusal(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self { code: code.0, remark: Some(remark.into()), ..Self::default() }
    }

    pub(super) fn with_fields(mut self, fields: &dyn HeaderFields) -> Self {
        fields.write_to(&mut self.fields);
        self
    }

    pub(super) fn with_field(mut self, key: &str, value: &str) -> Self {
        self.fields.text(key, value);
        self
    }

    pub(super) fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// Outcome of a handler.
#[derive(Debug)]
pub(super) enum Reply {
    Now(Answer),
    /// The request waits for a message and is answered later.
    Later,
    /// The request is never answered.
    Never,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Now(answer)
    }
}

/// Condition of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Condition {
    #[default]
    Up,
    /// The server accepts connections and reads, but does nothing: like a process stopped with SIGSTOP.
    Paused,
    Down,
}
