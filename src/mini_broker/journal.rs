//! The record of the requests that reached a mini broker.
//!
//! Owned by the broker's thread; tests get copies. It is bounded: the oldest records make room, the counts stay exact.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::wire::{ExtFields, RemotingCommand, RequestCode};

/// Records kept before the oldest one goes.
const LIMIT: usize = 100_000;

/// A request as it reached the mini broker, before any fault.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RequestRecord {
    /// What it asked for.
    pub code: RequestCode,
    /// The broker's name, or the name server's address.
    pub server: Arc<str>,
    /// Its header fields.
    pub fields: ExtFields,
    /// The length of its body in bytes, as it came over the wire.
    pub body_length: usize,
    /// Whether its sender expects no answer.
    pub oneway: bool,
    /// When it arrived, by the broker's clock, in milliseconds since 1970.
    pub received_at: i64,
    /// The connection it came over; no two connections of one mini broker have the same number.
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

    /// The producer or consumer group in whose name it came, under whichever field its header has for it.
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

    /// The topic it is about, under whichever field its header has for it.
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

/// What was asked of one mini broker.
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
