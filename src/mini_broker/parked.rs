//! Pulls that wait for a message, and the filter that decides which messages end the wait.
//!
//! Pure values of the broker's thread.

use std::net::SocketAddr;

use super::exchange::ReturnAddress;
use crate::wire::body::{SUBSCRIBE_ALL, SubscriptionData};

/// Delay after which a waiting pull is read again if a message arrived that its filter refused.
const HOLD_CHECK_MILLIS: i64 = 5_000;

/// Pull that waits for a message.
#[derive(Debug)]
pub(super) struct ParkedPull {
    pub(super) return_to: ReturnAddress,
    pub(super) deadline: i64,
    pub(super) peer: SocketAddr,
    pub(super) wanted: Wanted,
}

/// Messages requested by a pull.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) topic: String,
    pub(super) queue_id: i32,
    pub(super) offset: i64,
    pub(super) max_messages: usize,
    pub(super) filter: Filter,
}

/// Filter by tags, as far as a broker can evaluate it.
#[derive(Clone, Debug)]
pub(super) enum Filter {
    All,
    TagHashes(Vec<i32>),
}

impl Filter {
    pub(super) fn of(subscription: &SubscriptionData) -> Self {
        if subscription.sub_string == SUBSCRIBE_ALL {
            return Self::All;
        }
        Self::TagHashes(subscription.code_set.clone())
    }

    pub(super) fn passes(&self, tags_code: i64) -> bool {
        match self {
            Self::All => true,
            Self::TagHashes(hashes) => hashes.iter().any(|&hash| i64::from(hash) == tags_code),
        }
    }
}

/// Waiting pulls of one broker.
#[derive(Debug, Default)]
pub(super) struct ParkedPulls {
    waiting: Vec<ParkedPull>,
    /// Pulls whose wait has ended, each with the time of its end; not answered yet.
    ended: Vec<(ParkedPull, i64)>,
}

impl ParkedPulls {
    pub(super) fn park(&mut self, pull: ParkedPull) {
        self.waiting.push(pull);
    }

    /// Ends the wait of the pulls that match a message with this tag hash.
    pub(super) fn arrived(&mut self, topic: &str, queue_id: i32, tags_code: i64, now: i64) {
        let is_meant = |pull: &mut ParkedPull| pull.wanted.queue_id == queue_id && pull.wanted.topic == topic;
        let meant: Vec<_> = self.waiting.extract_if(.., is_meant).collect();
        for mut pull in meant {
            if pull.wanted.filter.passes(tags_code) {
                self.ended.push((pull, now));
            } else {
                pull.deadline = pull.deadline.min(now.saturating_add(HOLD_CHECK_MILLIS));
                self.waiting.push(pull);
            }
        }
    }

    /// Ends the wait of the pulls whose deadline has passed.
    pub(super) fn lapse(&mut self, now: i64) {
        let lapsed = self.waiting.extract_if(.., |pull| pull.deadline <= now);
        self.ended.extend(lapsed.map(|pull| (pull, now)));
    }

    pub(super) fn take_ended(&mut self) -> Vec<(ParkedPull, i64)> {
        std::mem::take(&mut self.ended)
    }

    pub(super) fn forget_connection(&mut self, connection: u64) {
        self.waiting.retain(|pull| pull.return_to.connection != connection);
    }

    pub(super) fn next_deadline(&self) -> Option<i64> {
        self.waiting.iter().map(|pull| pull.deadline).min()
    }
}
