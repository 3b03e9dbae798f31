//! Messages of one broker: a commit log of encoded messages, and per queue the order of consumption.
//!
//! A pure value of the broker's thread. Memory only; no message is ever deleted, only a queue's begin moves. Reads
//! return slices of the log, encoded once with their final offsets, as on a real broker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::message::{Message, MessageExt};
use crate::wire::Error;
use crate::wire::java_hash::tags_code;
use crate::wire::stored::message::{body_crc, encode_stored, stored_messages, stored_size};

/// Configuration of a topic's queues on one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TopicSettings {
    pub(super) read_queues: i32,
    pub(super) write_queues: i32,
    pub(super) perm: i32,
}

/// Message to be stored: everything that does not depend on its position in the store.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) message: Message,
    pub(super) queue_id: i32,
    pub(super) sys_flag: i32,
    pub(super) born_timestamp: i64,
    pub(super) born_host: SocketAddr,
    pub(super) reconsume_times: i32,
}

/// Position of a stored message.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredPlace {
    pub(super) queue_offset: i64,
    pub(super) log_offset: i64,
    pub(super) tags_code: i64,
}

#[derive(Debug)]
pub(super) struct Store {
    broker_name: Arc<str>,
    host: SocketAddr,
    topics: BTreeMap<Arc<str>, Topic>,
    /// Messages by offset in the commit log.
    log: BTreeMap<i64, Bytes>,
    log_end: i64,
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) config: TopicSettings,
    /// Queues that have a message or were used. Fewer queues in the configuration leave the others unchanged.
    queues: BTreeMap<i32, StoredQueue>,
}

#[derive(Debug, Default)]
pub(super) struct StoredQueue {
    /// Offset of the first element of `entries`.
    base: i64,
    /// Oldest offset that is not expired; never below `base`.
    first: i64,
    entries: Vec<StoredEntry>,
}

/// Message in its queue.
#[derive(Debug)]
pub(super) struct StoredEntry {
    pub(super) bytes: Bytes,
    pub(super) tags_code: i64,
    pub(super) stored_at: i64,
}

impl Store {
    pub(super) fn new(broker_name: Arc<str>, host: SocketAddr) -> Self {
        Self { broker_name, host, topics: BTreeMap::new(), log: BTreeMap::new(), log_end: 0 }
    }

    pub(super) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = (&Arc<str>, &Topic)> {
        self.topics.iter()
    }

    /// Creates a topic, or changes its configuration.
    pub(super) fn set_topic(&mut self, name: &str, config: TopicSettings) {
        match self.topics.get_mut(name) {
            Some(topic) => topic.config = config,
            None => {
                self.topics.insert(name.into(), Topic { config, queues: BTreeMap::new() });
            }
        }
    }

    /// Removes a topic and its queues; its messages are still found by their offset in the log.
    pub(super) fn remove_topic(&mut self, name: &str) -> bool {
        self.topics.remove(name).is_some()
    }

    pub(super) fn queue(&self, topic: &str, queue_id: i32) -> Option<&StoredQueue> {
        self.topics.get(topic)?.queues.get(&queue_id)
    }

    /// Moves the begin of a queue, as the deletion of old files does.
    pub(super) fn set_first(&mut self, topic: &str, queue_id: i32, first: i64) {
        if let Some(topic) = self.topics.get_mut(topic) {
            topic.queues.entry(queue_id).or_default().set_first(first);
        }
    }

    /// Appends a message to a queue of its topic, which must exist.
    ///
    /// # Errors
    ///
    /// Returns an error if a part of the message is too long for the stored layout, or its topic is unknown.
    pub(super) fn append(&mut self, draft: Draft, now: i64) -> Result<StoredPlace, Error> {
        let topic = self.topics.get_mut(&draft.message.topic).ok_or(Error::MissingField { field: "topic" })?;
        let queue = topic.queues.entry(draft.queue_id).or_default();
        let place = StoredPlace {
            queue_offset: queue.end(),
            log_offset: self.log_end,
            tags_code: tags_code(draft.message.tag()),
        };
        let mut message = MessageExt {
            broker_name: Arc::clone(&self.broker_name),
            queue_id: draft.queue_id,
            queue_offset: place.queue_offset,
            commit_log_offset: place.log_offset,
            born_timestamp: draft.born_timestamp,
            born_host: draft.born_host,
            store_timestamp: now,
            store_host: self.host,
            reconsume_times: draft.reconsume_times,
            sys_flag: draft.sys_flag,
            body_crc: body_crc(draft.message.body()),
            store_size: 0,
            prepared_transaction_offset: 0,
            defect: None,
            message: draft.message,
        };
        let size = stored_size(&message);
        message.store_size = u32::try_from(size).unwrap_or(u32::MAX);
        let mut bytes = BytesMut::with_capacity(size);
        encode_stored(&message, &mut bytes)?;
        let bytes = bytes.freeze();
        queue.entries.push(StoredEntry { bytes: bytes.clone(), tags_code: place.tags_code, stored_at: now });
        self.log.insert(place.log_offset, bytes);
        self.log_end = self.log_end.saturating_add(i64::try_from(size).unwrap_or(i64::MAX));
        Ok(place)
    }

    /// Returns the encoded message at this offset of the log.
    pub(super) fn bytes_at(&self, log_offset: i64) -> Option<&Bytes> {
        self.log.get(&log_offset)
    }

    /// Returns the message at this offset of the log, if it can be decoded.
    pub(super) fn message_at(&self, log_offset: i64) -> Option<MessageExt> {
        self.decode(self.bytes_at(log_offset)?).filter(|message| message.defect.is_none())
    }

    /// Returns all messages of a queue that are not expired, oldest first.
    pub(super) fn messages(&self, topic: &str, queue_id: i32) -> Vec<MessageExt> {
        let Some(queue) = self.queue(topic, queue_id) else { return Vec::new() };
        queue.from(queue.first).iter().filter_map(|entry| self.decode(&entry.bytes)).collect()
    }

    /// Numbers of a topic's queues that have or had a message.
    pub(super) fn queue_ids(&self, topic: &str) -> Vec<i32> {
        self.topics.get(topic).map(|topic| topic.queues.keys().copied().collect()).unwrap_or_default()
    }

    fn decode(&self, bytes: &Bytes) -> Option<MessageExt> {
        stored_messages(bytes, &Arc::from(""), &self.broker_name).next()?.ok()
    }
}

impl StoredQueue {
    /// Offset of the oldest message that is not expired.
    pub(super) fn first(&self) -> i64 {
        self.first
    }

    /// Offset of the next message.
    pub(super) fn end(&self) -> i64 {
        self.base.saturating_add(i64::try_from(self.entries.len()).unwrap_or(i64::MAX))
    }

    /// Messages from `offset` on.
    pub(super) fn from(&self, offset: i64) -> &[StoredEntry] {
        let start = usize::try_from(offset.saturating_sub(self.base));
        start.ok().and_then(|start| self.entries.get(start..)).unwrap_or_default()
    }

    /// Messages that are not expired, each with its offset.
    pub(super) fn live(&self) -> impl Iterator<Item = (i64, &StoredEntry)> {
        (self.first..).zip(self.from(self.first))
    }

    fn set_first(&mut self, first: i64) {
        if first > self.end() {
            self.entries.clear();
            self.base = first;
        }
        self.first = first.max(self.base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        let mut store = Store::new("broker-a".into(), "127.0.0.1:10911".parse().unwrap());
        store.set_topic("T", TopicSettings { read_queues: 4, write_queues: 4, perm: 6 });
        store
    }

    fn draft(body: &'static str) -> Draft {
        Draft {
            message: Message::new("T", body).with_tag("A"),
            queue_id: 2,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: "127.0.0.1:5".parse().unwrap(),
            reconsume_times: 0,
        }
    }

    #[test]
    fn a_message_is_found_by_its_queue_offset_and_by_its_log_offset() {
        let mut store = store();
        store.append(draft("one"), 10).unwrap();
        let place = store.append(draft("two"), 20).unwrap();
        assert_eq!(place.queue_offset, 1);
        let found = store.message_at(place.log_offset).unwrap();
        assert_eq!((found.body().as_ref(), found.queue_offset, found.store_timestamp), (&b"two"[..], 1, 20));
        assert_eq!(store.messages("T", 2), [store.message_at(0).unwrap(), found]);
        assert!(store.message_at(place.log_offset + 1).is_none());
    }

    #[test]
    fn messages_before_the_beginning_of_a_queue_are_expired() {
        let mut store = store();
        store.append(draft("one"), 10).unwrap();
        store.append(draft("two"), 20).unwrap();
        store.set_first("T", 2, 1);
        assert_eq!(store.messages("T", 2).len(), 1);
        assert_eq!(store.queue("T", 2).map(StoredQueue::end), Some(2));
    }

    #[test]
    fn a_queue_may_begin_far_behind_what_was_ever_stored() {
        let mut store = store();
        store.set_first("T", 2, 1000);
        let place = store.append(draft("one"), 10).unwrap();
        let queue = store.queue("T", 2).unwrap();
        assert_eq!((queue.first(), place.queue_offset, queue.end()), (1000, 1000, 1001));
        assert_eq!(queue.from(1000).len(), 1);
        assert!(queue.from(0).is_empty());
    }
}
