//! Offsets: those consumed by groups, and the bounds of queues.
//!
//! Not modelled: offsets that a broker loses when it is killed, resets ordered by an administrator on a 5.x broker, and
//! logical offsets of static topics.

use super::Handled;
use crate::mini_broker::broker::Broker;
use crate::mini_broker::exchange::{Answer, BrokerRequest};
use crate::mini_broker::store::StoredQueue;
use crate::wire::ResponseCode;
use crate::wire::header::{
    EarliestStoreTimeResponse, OffsetResponse, QueryConsumerOffsetRequest, QueueRequest, SearchOffsetRequest,
    UpdateConsumerOffsetRequest,
};

/// Returns the committed offset. For a group without an offset, the response is 0 as long as the queue still has its
/// first message: then consuming from the end means from the beginning. Only 5.x brokers can report the missing offset.
pub(super) fn query(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let header = QueryConsumerOffsetRequest::from_fields(&request.command.ext_fields)?;
    if let Some(offset) = broker.offsets.find(header.consumer_group, header.topic, header.queue_id) {
        return offset_answer(offset);
    }
    let is_v5 = broker.settings.release.is_v5();
    let wants_truth = is_v5 && header.set_zero_if_not_found == Some(false);
    let queue = broker.store.queue(header.topic, header.queue_id);
    let begins_at_zero = queue.map_or(0, StoredQueue::first) <= 0;
    let has_messages = queue.is_some_and(|queue| queue.end() > 0);
    if !wants_truth && begins_at_zero && (has_messages || !is_v5) {
        return offset_answer(0);
    }
    let remark = if wants_truth {
        "Not found, do not set to zero, maybe this group boot first"
    } else {
        "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first"
    };
    Err(Answer::refusal(ResponseCode::QUERY_NOT_FOUND, remark))
}

pub(super) fn update(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let header = UpdateConsumerOffsetRequest::from_fields(&request.command.ext_fields)?;
    let (group, topic) = (header.consumer_group, header.topic);
    if broker.settings.release.is_v5() {
        if !broker.groups.contains_key(group) {
            let remark = format!("Group {group} not exist!");
            return Err(Answer::refusal(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
        }
        if broker.store.topic(topic).is_none() {
            return Err(Answer::refusal(ResponseCode::TOPIC_NOT_EXIST, format!("Topic {topic} not exist!")));
        }
    }
    broker.offsets.commit(group, topic, header.queue_id, header.commit_offset, request.now);
    Ok(Answer::success().into())
}

/// Returns the offset of the next message of the queue.
pub(super) fn max(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let header = QueueRequest::from_fields(&request.command.ext_fields)?;
    offset_answer(broker.store.queue(header.topic, header.queue_id).map_or(0, StoredQueue::end))
}

/// Returns the offset of the oldest message of the queue.
pub(super) fn min(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let header = QueueRequest::from_fields(&request.command.ext_fields)?;
    offset_answer(broker.store.queue(header.topic, header.queue_id).map_or(0, StoredQueue::first))
}

pub(super) fn search(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let header = SearchOffsetRequest::from_fields(&request.command.ext_fields)?;
    let wants_upper = header.boundary_type.is_some_and(|boundary| boundary.eq_ignore_ascii_case("upper"));
    let offset = match broker.store.queue(header.topic, header.queue_id) {
        None => 0,
        Some(queue) if !broker.settings.release.is_v5() => nearest(queue, header.timestamp),
        Some(queue) if wants_upper => upper_boundary(queue, header.timestamp),
        Some(queue) => lower_boundary(queue, header.timestamp),
    };
    offset_answer(offset)
}

pub(super) fn earliest_store_time(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let header = QueueRequest::from_fields(&request.command.ext_fields)?;
    let queue = broker.store.queue(header.topic, header.queue_id);
    let timestamp = queue.and_then(|queue| queue.live().next()).map_or(-1, |(_, entry)| entry.stored_at);
    Ok(Answer::success().with_fields(&EarliestStoreTimeResponse { timestamp }).into())
}

fn offset_answer(offset: i64) -> Handled {
    Ok(Answer::success().with_fields(&OffsetResponse { offset }).into())
}

/// Searches as 4.x: the message stored nearest to the time, the first one of several; the last one if the time is after
/// all.
fn nearest(queue: &StoredQueue, timestamp: i64) -> i64 {
    if queue.live().all(|(_, entry)| entry.stored_at < timestamp) {
        return (queue.end() - 1).max(queue.first());
    }
    let distance = |stored_at: i64| stored_at.abs_diff(timestamp);
    queue.live().min_by_key(|(offset, entry)| (distance(entry.stored_at), *offset)).map_or(0, |(offset, _)| offset)
}

/// Searches as 5.x: the first message stored at the time or later; after the last one if there is none.
fn lower_boundary(queue: &StoredQueue, timestamp: i64) -> i64 {
    queue.live().find(|(_, entry)| entry.stored_at >= timestamp).map_or_else(|| queue.end(), |(offset, _)| offset)
}

/// Searches as 5.x with the upper boundary: the last message stored at the time or earlier; the first one if there is
/// none.
fn upper_boundary(queue: &StoredQueue, timestamp: i64) -> i64 {
    queue
        .live()
        .take_while(|(_, entry)| entry.stored_at <= timestamp)
        .last()
        .map_or_else(|| queue.first(), |(offset, _)| offset)
}
