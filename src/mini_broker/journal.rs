//! Record of the requests received by a mini broker.
//!
//! Owned by the broker's thread; tests get copies. The record is bounded: the oldest entries are dropped, the counts
//! stay exact.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::wire::{ExtFields, RemotingCommand, RequestCode};

/// Maximum number of records.
const LIMIT: usize = 100_000;

/// Request as received by the mini broker, before any fault.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestRecord {
    /// Code of the request.
    pub code: RequestCode,
    /// Name of the broker, or address of the name server.
    pub server: Arc<str>,
    /// Header fields of the request.
    pub fields: ExtFields,
    /// Length of the body in bytes, as received.
    pub body_length: usize,
    /// True if the sender expects no response.
    pub oneway: bool,
    /// Time of arrival by the broker's clock, in milliseconds since 1970.
    pub received_at: i64,
    /// Number of the connection, unique within one mini broker.
    pub connection: u64,
}

impl RequestRecord {
    pub(super) fn new(command: &RemotingCommand, server: Arc<str>, connection: u64, received_at: i64) -> Self {
        Self {
            code: command.request_code(),
            server,
            fields: command.ext_fields.clone(),
            body_length: command.body.len(),
            oneway: command.is_oneway(),
            received_at,
            connection,
        }
    }

    /// Producer or consumer group of the request, from the header field that contains it.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        let key = match self.code {
            RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE => "a",
            RequestCode::SEND_MESSAGE => "producerGroup",
            RequestCode::CONSUMER_SEND_MSG_BACK => "group",
            RequestCode::UNREGISTER_CLIENT => {
                return self.fields.get("consumerGroup").or_else(|| self.fields.get("producerGroup"));
            }
            _ => "consumerGroup",
        };
        self.fields.get(key)
    }

    /// Topic of the request, from the header field that contains it.
    #[must_use]
    pub fn topic(&self) -> Option<&str> {
        let key = match self.code {
            RequestCode::SEND_MESSAGE_V2 | RequestCode::SEND_BATCH_MESSAGE => "b",
            RequestCode::CONSUMER_SEND_MSG_BACK => "originTopic",
            _ => "topic",
        };
        self.fields.get(key)
    }
}

/// Requests received by one mini broker.
#[derive(Debug, Default)]
pub(super) struct Journal {
    records: VecDeque<RequestRecord>,
    counts: HashMap<RequestCode, usize>,
}

impl Journal {
    pub(super) fn add(&mut self, record: RequestRecord) {
        *self.counts.entry(record.code).or_default() += 1;
        if self.records.len() == LIMIT {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &RequestRecord> {
        self.records.iter()
    }

    pub(super) fn count(&self, code: RequestCode) -> usize {
        self.counts.get(&code).copied().unwrap_or_default()
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.counts.clear();
    }
}
