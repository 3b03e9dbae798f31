//! State of one broker: its messages, groups, members and offsets, its waiting pulls and delayed messages.
//!
//! A pure value of the broker's thread. Messages that the broker sends by itself, to a waiting client or to the members
//! of a group, are collected until [`Broker::take_output`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::clock::millis;
use super::exchange::{Answer, Condition, ReturnAddress};
use super::parked::ParkedPulls;
use super::settings::Settings;
use super::store::{Draft, Store, StoredPlace, TopicSettings};
use crate::message::Message;
use crate::message::properties::{Properties, name};
use crate::wire::body::{SubscriptionData, permission};
use crate::wire::header::NotifyConsumerIdsChangedRequest;
use crate::wire::limits::MAX_PROPERTIES_LENGTH;
use crate::wire::name::{CREATE_TOPIC_KEY, check_topic, is_retry_topic};
use crate::wire::{LanguageCode, RemotingCommand, RequestCode, ResponseCode};

/// Topic that holds delayed messages, one queue per level.
const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";

const READ_WRITE: i32 = permission::READ | permission::WRITE;

/// Consumer group at one broker.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) members: Vec<GroupMember>,
    pub(super) subscriptions: BTreeMap<String, SubscriptionData>,
    pub(super) broadcasting: bool,
    /// Member list set by a test, returned instead of the real one.
    pub(super) told_members: Option<Vec<String>>,
}

/// Connection over which a consumer of a group has sent heartbeats.
#[derive(Debug)]
pub(super) struct GroupMember {
    pub(super) connection: u64,
    pub(super) client_id: String,
    pub(super) address: SocketAddr,
    pub(super) language: LanguageCode,
    pub(super) version: i32,
}

/// Response to an earlier request, and its time.
type LateAnswer = (ReturnAddress, Answer, i64);

#[derive(Debug)]
pub(super) struct Broker {
    pub(super) name: Arc<str>,
    pub(super) address: SocketAddr,
    pub(super) condition: Condition,
    pub(super) settings: Arc<Settings>,
    pub(super) store: Store,
    /// Consumer groups that the broker has seen.
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) offsets: Offsets,
    pub(super) parked: ParkedPulls,
    /// Log offsets of delayed messages, by their due time and sequence number.
    delayed: BTreeMap<(i64, u64), i64>,
    /// Last sequence number; numbers delayed messages, queue choices of the broker, and ids made by it.
    turns: u64,
    answers: Vec<LateAnswer>,
    pushes: Vec<(u64, RemotingCommand)>,
}

impl Broker {
    pub(super) fn new(name: Arc<str>, address: SocketAddr, settings: Arc<Settings>) -> Self {
        let mut store = Store::new(Arc::clone(&name), address);
        if settings.auto_create_topics {
            let queues = settings.default_queues;
            let perm = READ_WRITE | permission::INHERIT;
            store.set_topic(CREATE_TOPIC_KEY, TopicSettings { read_queues: queues, write_queues: queues, perm });
        }
        Self {
            name,
            address,
            condition: Condition::Up,
            offsets: Offsets::written_every(settings.offset_write_interval.map(millis)),
            settings,
            store,
            groups: BTreeMap::new(),
            parked: ParkedPulls::default(),
            delayed: BTreeMap::new(),
            turns: 0,
            answers: Vec::new(),
            pushes: Vec::new(),
        }
    }

    /// Stores a message in its queue, or delays it as its delay level specifies; waiting pulls are notified.
    pub(super) fn put(&mut self, mut draft: Draft, now: i64) -> Result<StoredPlace, Answer> {
        self.check_size(&draft.message)?;
        let level = draft.message.property(name::DELAY).and_then(|level| level.parse::<usize>().ok()).unwrap_or(0);
        let delay = level.checked_sub(1).and_then(|level| {
            let last = self.settings.delay_levels.len().checked_sub(1)?;
            let level = level.min(last);
            Some((level, millis(*self.settings.delay_levels.get(level)?)))
        });
        let Some((level, delay)) = delay else { return self.append(draft, now) };
        let levels = i32::try_from(self.settings.delay_levels.len()).unwrap_or(i32::MAX);
        let config = TopicSettings { read_queues: levels, write_queues: levels, perm: READ_WRITE };
        self.store.set_topic(SCHEDULE_TOPIC, config);
        let topic = Arc::clone(&draft.message.topic);
        set_property(&mut draft.message, name::REAL_TOPIC, &topic);
        set_property(&mut draft.message, name::REAL_QUEUE_ID, &draft.queue_id.to_string());
        draft.message.topic = SCHEDULE_TOPIC.into();
        draft.queue_id = i32::try_from(level).unwrap_or_default();
        let place = self.append(draft, now)?;
        let turn = self.next_turn();
        self.delayed.insert((now.saturating_add(delay), turn), place.log_offset);
        Ok(place)
    }

    /// Refuses a message whose body or properties exceed the broker's limits.
    pub(super) fn check_size(&self, message: &Message) -> Result<(), Answer> {
        let properties = message.properties.encoded().len();
        if message.body().len() > self.settings.max_message_size || properties > MAX_PROPERTIES_LENGTH {
            return Err(self.illegal_message());
        }
        Ok(())
    }

    /// Performs everything due at `now`.
    pub(super) fn tick(&mut self, now: i64) {
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= now
        {
            let log_offset = entry.remove();
            if let Err(answer) = self.deliver(log_offset, now) {
                log::warn!(
                    "mini broker: {} delivery of a delayed message failed: {:?}; message lost",
                    self.name,
                    answer.remark
                );
            }
        }
        self.parked.lapse(now);
    }

    pub(super) fn next_due(&self) -> Option<i64> {
        let delayed = self.delayed.keys().next().map(|(due, _)| *due);
        self.parked.next_deadline().into_iter().chain(delayed).min()
    }

    /// Handles a closed connection: removes its pulls and its members.
    pub(super) fn disconnected(&mut self, connection: u64) {
        self.parked.forget_connection(connection);
        let left: Vec<String> = self
            .groups
            .iter_mut()
            .filter_map(|(name, group)| {
                let before = group.members.len();
                group.members.retain(|member| member.connection != connection);
                (group.members.len() < before).then(|| name.clone())
            })
            .collect();
        for group in left {
            self.notify_members(&group);
        }
    }

    /// Notifies all members of a group that the membership has changed.
    pub(super) fn notify_members(&mut self, group: &str) {
        let Some(members) = self.groups.get(group).map(|group| &group.members) else { return };
        for member in members {
            let header = NotifyConsumerIdsChangedRequest { consumer_group: group };
            let command = RemotingCommand::request(RequestCode::NOTIFY_CONSUMER_IDS_CHANGED, &header).oneway();
            self.pushes.push((member.connection, command));
        }
    }

    /// Adds a late response to a request that had to wait.
    pub(super) fn answer_late(&mut self, return_to: ReturnAddress, answer: Answer, now: i64) {
        self.answers.push((return_to, answer, now));
    }

    /// Takes the output since the last call: late responses, and requests of the broker.
    pub(super) fn take_output(&mut self) -> (Vec<LateAnswer>, Vec<(u64, RemotingCommand)>) {
        (std::mem::take(&mut self.answers), std::mem::take(&mut self.pushes))
    }

    /// Returns the group. An unknown group is created if automatic creation is enabled.
    pub(super) fn group(&mut self, name: &str) -> Result<&mut Group, Answer> {
        if !self.settings.auto_create_groups && !self.groups.contains_key(name) {
            let remark = format!("subscription group [{name}] does not exist, {}", self.settings.release.see_also());
            return Err(Answer::refusal(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
        }
        Ok(self.groups.entry(name.to_owned()).or_default())
    }

    /// Returns the settings of the topic that a message is sent to. An unknown topic is created with the settings of
    /// `default_topic`.
    pub(super) fn topic_to_write(&mut self, topic: &str, default_topic: &str, queues: i32) -> Option<TopicSettings> {
        if let Some(known) = self.store.topic(topic) {
            return Some(known.config);
        }
        let config = if is_retry_topic(topic) {
            TopicSettings { read_queues: 1, write_queues: 1, perm: READ_WRITE }
        } else {
            let pattern = self.store.topic(default_topic)?.config;
            if pattern.perm & permission::INHERIT == 0 {
                return None;
            }
            let queues = queues.min(pattern.write_queues).max(0);
            TopicSettings { read_queues: queues, write_queues: queues, perm: pattern.perm & !permission::INHERIT }
        };
        self.store.set_topic(topic, config);
        Some(config)
    }

    /// Creates the retry or dead-letter topic of a group, with one queue, if it does not exist.
    pub(super) fn ensure_group_topic(&mut self, topic: &str) {
        if self.store.topic(topic).is_none() && check_topic(topic).is_ok() {
            self.store.set_topic(topic, TopicSettings { read_queues: 1, write_queues: 1, perm: READ_WRITE });
        }
    }

    /// Returns the next sequence number.
    pub(super) fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn append(&mut self, mut draft: Draft, now: i64) -> Result<StoredPlace, Answer> {
        if !self.settings.release.is_v5() {
            draft.message.properties = without_last_separator(&draft.message.properties);
        }
        let (topic, queue_id) = (Arc::clone(&draft.message.topic), draft.queue_id);
        let place = self.store.append(draft, now).map_err(|error| {
            log::debug!("mini broker: {} store failed: {error}", self.name);
            self.illegal_message()
        })?;
        self.parked.arrived(&topic, queue_id, place.tags_code, now);
        Ok(place)
    }

    /// Moves a delayed message to its target queue. The message keeps the properties of its delay.
    fn deliver(&mut self, log_offset: i64, now: i64) -> Result<(), Answer> {
        let Some(stored) = self.store.message_at(log_offset) else { return Ok(()) };
        let mut message = stored.message;
        let topic = message.property(name::REAL_TOPIC).unwrap_or_default().to_owned();
        let queue_id = message.property(name::REAL_QUEUE_ID).and_then(|id| id.parse().ok()).unwrap_or_default();
        message.topic = topic.into();
        let draft = Draft {
            message,
            queue_id,
            sys_flag: stored.sys_flag,
            born_timestamp: stored.born_timestamp,
            born_host: stored.born_host,
            reconsume_times: stored.reconsume_times,
        };
        self.append(draft, now).map(drop)
    }

    fn illegal_message(&self) -> Answer {
        let remark = format!(
            "the message is illegal, maybe msg body or properties length not matched. msg body length limit {}B, \
             msg properties length limit 32KB.",
            self.settings.max_message_size
        );
        Answer::refusal(ResponseCode::MESSAGE_ILLEGAL, remark)
    }
}

/// Sets a property written by the broker. A value that contains a separator cannot be encoded and is omitted.
pub(super) fn set_property(message: &mut Message, name: &str, value: &str) {
    if !value.is_empty() && !value.contains(['\u{1}', '\u{2}']) {
        message.properties.set(name, value);
    }
}

/// Removes the last separator: 4.x brokers end the last property without one.
fn without_last_separator(properties: &Properties) -> Properties {
    let encoded = properties.encoded();
    let kept = encoded.strip_suffix(b"\x02").map_or(encoded.len(), <[u8]>::len);
    Properties::from_encoded(encoded.slice(..kept))
}

type ByGroup = BTreeMap<String, BTreeMap<String, BTreeMap<i32, i64>>>;

/// Consumed offsets by group, topic and queue, and their persisted copies.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    by_group: ByGroup,
    /// Interval in milliseconds; without it no offset is ever lost.
    write_interval: Option<i64>,
    written: ByGroup,
    next_write: i64,
}

impl Offsets {
    /// Creates offsets that are persisted at this interval, in milliseconds.
    fn written_every(write_interval: Option<i64>) -> Self {
        Self { write_interval, ..Self::default() }
    }

    pub(super) fn find(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        self.by_group.get(group)?.get(topic)?.get(&queue_id).copied()
    }

    pub(super) fn commit(&mut self, group: &str, topic: &str, queue_id: i32, offset: i64, now: i64) {
        self.write_what_is_due(now);
        let topics = self.by_group.entry(group.to_owned()).or_default();
        topics.entry(topic.to_owned()).or_default().insert(queue_id, offset);
    }

    pub(super) fn forget(&mut self, group: &str, topic: &str, queue_id: i32) {
        if let Some(queues) = self.by_group.get_mut(group).and_then(|topics| topics.get_mut(topic)) {
            queues.remove(&queue_id);
        }
    }

    /// Simulates the broker's death: offsets that are not persisted are lost.
    pub(super) fn die(&mut self, now: i64) {
        if self.write_interval.is_some() {
            self.write_what_is_due(now);
            self.by_group.clone_from(&self.written);
        }
    }

    /// Persists the offsets if due. No offset changes between two calls, so a write that was due earlier would have
    /// stored the same values.
    fn write_what_is_due(&mut self, now: i64) {
        let Some(interval) = self.write_interval else { return };
        if self.next_write == 0 {
            self.next_write = now.saturating_add(interval);
        } else if self.next_write <= now {
            self.written.clone_from(&self.by_group);
            let late = now.saturating_sub(self.next_write).checked_rem(interval).unwrap_or(0);
            self.next_write = now.saturating_sub(late).saturating_add(interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_dies_has_the_offsets_that_it_had_written() {
        let mut offsets = Offsets::written_every(Some(500));
        for (offset, now) in [(1, 1000), (2, 1499), (3, 1501)] {
            offsets.commit("g", "t", 0, offset, now);
        }
        offsets.die(1999);
        assert_eq!(offsets.find("g", "t", 0), Some(2), "written at 1500");
        offsets.commit("g", "t", 0, 4, 1999);
        offsets.die(2000);
        assert_eq!(offsets.find("g", "t", 0), Some(4), "written at 2000");
        let mut kept = Offsets::written_every(None);
        kept.commit("g", "t", 0, 1, 1000);
        kept.die(1000);
        assert_eq!(kept.find("g", "t", 0), Some(1));
    }
}
