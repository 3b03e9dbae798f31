//! Reads: pulls with long polling, and single messages by their position in the commit log.
//!
//! Not modelled: slaves (`suggestWhichBrokerId` is always 0), filtering by SQL92, groups that may not consume, reads
//! from disk with their smaller batches. A long poll ends exactly at its time; real brokers check every 5 s.

use std::net::SocketAddr;

use bytes::BytesMut;

use super::Handled;
use crate::mini_broker::broker::{Broker, Group};
use crate::mini_broker::exchange::{Answer, BrokerRequest, Reply};
use crate::mini_broker::parked::{Filter, ParkedPull, Wanted};
use crate::mini_broker::store::StoredQueue;
use crate::wire::ResponseCode;
use crate::wire::body::{EXPRESSION_TYPE_TAG, SubscriptionData, permission};
use crate::wire::header::{PullMessageRequest, PullMessageResponse, ViewMessageRequest};
use crate::wire::sys_flag::pull::{COMMIT_OFFSET, SUBSCRIPTION, SUSPEND};

/// Maximum number of messages in one response.
const MAX_MESSAGES: usize = 32;
/// Maximum number of bytes in one response, unless its first message is longer.
const MAX_BYTES: usize = 256 * 1024;
/// Maximum number of messages scanned for one response.
const MAX_SCANNED: usize = 800;

/// Number that a 5.x broker returns for the missing permission.
const FORBIDDEN_TOPIC: &str = "3";

pub(super) fn pull(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let header = PullMessageRequest::from_fields(&request.command.ext_fields)?;
    broker.group(header.consumer_group)?;
    check_queue(broker, header.topic, header.queue_id, request.peer)?;
    let filter = filter_of(broker, &header)?;
    let wanted = Wanted {
        topic: header.topic.to_owned(),
        queue_id: header.queue_id,
        offset: header.queue_offset,
        max_messages: usize::try_from(header.max_msg_nums).unwrap_or_default().min(MAX_MESSAGES),
        filter,
    };
    if header.sys_flag & COMMIT_OFFSET != 0 {
        let PullMessageRequest { consumer_group, topic, queue_id, commit_offset, .. } = header;
        broker.offsets.commit(consumer_group, topic, queue_id, commit_offset, request.now);
    }
    let found = read(broker, &wanted);
    if found.status.code() == ResponseCode::PULL_NOT_FOUND && header.sys_flag & SUSPEND != 0 {
        let deadline = request.now.saturating_add(header.suspend_timeout_millis);
        broker.parked.park(ParkedPull { return_to: request.return_to.clone(), deadline, peer: request.peer, wanted });
        return Ok(Reply::Later);
    }
    Ok(answer_of(broker, found).into())
}

pub(super) fn view_message(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let header = ViewMessageRequest::from_fields(&request.command.ext_fields)?;
    match broker.store.bytes_at(header.offset) {
        Some(bytes) => Ok(Answer::success().with_body(bytes.clone()).into()),
        None => {
            let remark = format!("can not find message by the offset, {}", header.offset);
            Err(Answer::refusal(ResponseCode::SYSTEM_ERROR, remark))
        }
    }
}

/// Answers the pulls whose wait has ended, with or without messages.
pub(in crate::mini_broker) fn answer_ended_pulls(broker: &mut Broker) {
    for (pull, now) in broker.parked.take_ended() {
        answer_ended(broker, pull, now);
    }
}

fn answer_ended(broker: &mut Broker, pull: ParkedPull, now: i64) {
    let ParkedPull { return_to, wanted, peer, .. } = pull;
    let answer = match check_queue(broker, &wanted.topic, wanted.queue_id, peer) {
        Ok(()) => answer_of(broker, read(broker, &wanted)),
        Err(refusal) => refusal,
    };
    broker.answer_late(return_to, answer, now);
}

fn check_queue(broker: &Broker, topic: &str, queue_id: i32, peer: SocketAddr) -> Result<(), Answer> {
    let release = broker.settings.release;
    let Some(known) = broker.store.topic(topic) else {
        let remark = format!("topic[{topic}] not exist, apply first please! {}", release.see_also());
        return Err(Answer::refusal(ResponseCode::TOPIC_NOT_EXIST, remark));
    };
    if known.config.perm & permission::READ == 0 {
        let remark = format!("the topic[{topic}] pulling message is forbidden");
        let refusal = Answer::refusal(ResponseCode::NO_PERMISSION, remark);
        return Err(if release.is_v5() { refusal.with_field("forbiddenType", FORBIDDEN_TOPIC) } else { refusal });
    }
    let queues = known.config.read_queues;
    if !(0..queues).contains(&queue_id) {
        let remark = format!(
            "queueId[{queue_id}] is illegal, topic:[{topic}] topicConfig.readQueueNums:[{queues}] consumer:[/{peer}]"
        );
        return Err(Answer::refusal(release.invalid_parameter(), remark));
    }
    Ok(())
}

fn filter_of(broker: &Broker, header: &PullMessageRequest<'_>) -> Result<Filter, Answer> {
    if header.expression_type.is_some_and(|kind| kind != EXPRESSION_TYPE_TAG) {
        let remark = "The broker does not support consumer to filter message by SQL92";
        return Err(Answer::refusal(ResponseCode::SYSTEM_ERROR, remark));
    }
    if header.sys_flag & SUBSCRIPTION != 0 {
        let expression = header.subscription.unwrap_or_default();
        let parsed = SubscriptionData::of_tags(header.topic, expression, header.sub_version);
        let failed = |_| {
            let remark = "parse the consumer's subscription failed";
            Answer::refusal(ResponseCode::SUBSCRIPTION_PARSE_FAILED, remark)
        };
        return parsed.map(|subscription| Filter::of(&subscription)).map_err(failed);
    }
    let see_also = broker.settings.release.see_also();
    let not_there = |what: &str| {
        Answer::refusal(ResponseCode::SUBSCRIPTION_NOT_EXIST, format!("the consumer's {what} not exist{see_also}"))
    };
    let is_online = |group: &&Group| !group.members.is_empty();
    let group = broker.groups.get(header.consumer_group).filter(is_online).ok_or_else(|| not_there("group info"))?;
    let subscription = group.subscriptions.get(header.topic).ok_or_else(|| not_there("subscription"))?;
    if subscription.sub_version < header.sub_version {
        let remark = "the consumer's subscription not latest";
        return Err(Answer::refusal(ResponseCode::SUBSCRIPTION_NOT_LATEST, remark));
    }
    Ok(Filter::of(subscription))
}

/// Result of a read; its name is the remark of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Found,
    NoMatchedMessage,
    OffsetTooSmall,
    OffsetOverflowOne,
    OffsetOverflowBadly,
    NoMessageInQueue { offset_is_zero: bool },
}

impl Status {
    fn code(self) -> ResponseCode {
        match self {
            Self::Found => ResponseCode::SUCCESS,
            Self::NoMatchedMessage => ResponseCode::PULL_RETRY_IMMEDIATELY,
            Self::OffsetOverflowOne | Self::NoMessageInQueue { offset_is_zero: true } => ResponseCode::PULL_NOT_FOUND,
            Self::OffsetTooSmall | Self::OffsetOverflowBadly | Self::NoMessageInQueue { offset_is_zero: false } => {
                ResponseCode::PULL_OFFSET_MOVED
            }
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Found => "FOUND",
            Self::NoMatchedMessage => "NO_MATCHED_MESSAGE",
            Self::OffsetTooSmall => "OFFSET_TOO_SMALL",
            Self::OffsetOverflowOne => "OFFSET_OVERFLOW_ONE",
            Self::OffsetOverflowBadly => "OFFSET_OVERFLOW_BADLY",
            Self::NoMessageInQueue { .. } => "NO_MESSAGE_IN_QUEUE",
        }
    }
}

/// Messages read for a pull, and the bounds of their queue.
#[derive(Debug)]
struct Found {
    status: Status,
    next: i64,
    min: i64,
    max: i64,
    body: BytesMut,
}

fn answer_of(broker: &Broker, found: Found) -> Answer {
    let header = PullMessageResponse {
        suggest_which_broker_id: 0,
        next_begin_offset: found.next,
        min_offset: found.min,
        max_offset: found.max,
        ..PullMessageResponse::default()
    };
    let mut answer = Answer::success().with_fields(&header).with_body(found.body.freeze());
    answer.code = found.status.code().0;
    answer.remark = Some(found.status.name().to_owned());
    if broker.settings.release.is_v5() {
        return answer.with_field("topicSysFlag", "0").with_field("groupSysFlag", "0");
    }
    answer
}

fn read(broker: &Broker, wanted: &Wanted) -> Found {
    let queue = broker.store.queue(&wanted.topic, wanted.queue_id);
    let (min, max) = queue.map_or((0, 0), |queue| (queue.first(), queue.end()));
    let offset = wanted.offset;
    let nothing = |status, next| Found { status, next, min, max, body: BytesMut::new() };
    match queue {
        None => nothing(Status::NoMessageInQueue { offset_is_zero: offset == 0 }, 0),
        Some(_) if max == 0 => nothing(Status::NoMessageInQueue { offset_is_zero: offset == 0 }, 0),
        Some(_) if offset < min => nothing(Status::OffsetTooSmall, min),
        Some(_) if offset == max => nothing(Status::OffsetOverflowOne, offset),
        Some(_) if offset > max => nothing(Status::OffsetOverflowBadly, max),
        Some(queue) => collect(queue, wanted),
    }
}

/// Collects messages from the requested offset on; there is at least one.
fn collect(queue: &StoredQueue, wanted: &Wanted) -> Found {
    let mut found = Found {
        status: Status::NoMatchedMessage,
        next: wanted.offset,
        min: queue.first(),
        max: queue.end(),
        body: BytesMut::new(),
    };
    let mut messages = 0;
    for entry in queue.from(wanted.offset).iter().take(MAX_SCANNED) {
        if wanted.filter.passes(entry.tags_code) {
            let is_full = found.body.len() + entry.bytes.len() > MAX_BYTES || messages >= wanted.max_messages;
            if messages > 0 && is_full {
                break;
            }
            found.body.extend_from_slice(&entry.bytes);
            found.status = Status::Found;
            messages += 1;
        }
        found.next += 1;
    }
    found
}
