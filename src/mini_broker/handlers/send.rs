//! Writes: sends, send-back of messages by consumers, and topics.
//!
//! Not modelled: transactions, the timer messages of 5.x, replies to requests. They are refused or, where 4.x ignores
//! the property, stored like any message. Topic attributes and orders have no effect.

use bytes::Bytes;

use super::Handled;
use crate::message::Message;
use crate::message::properties::{Properties, name as property};
use crate::mini_broker::broker::{Broker, set_property};
use crate::mini_broker::exchange::{Answer, BrokerRequest};
use crate::mini_broker::settings::Release;
use crate::mini_broker::store::{Draft, StoredPlace, TopicSettings};
use crate::wire::body::permission;
use crate::wire::header::{
    ConsumerSendMsgBackRequest, CreateTopicRequest, SendMessageRequest, SendMessageRequestV2, SendMessageResponse,
};
use crate::wire::name::NameError;
use crate::wire::stored::batch::{BatchMessage, messages_of_batch};
use crate::wire::stored::message_id::{OffsetMessageId, UniqueId};
use crate::wire::sys_flag::message::{TRANSACTION_MASK, TRANSACTION_NOT};
use crate::wire::{RequestCode, ResponseCode, name};

const REGION: &str = "DefaultRegion";

/// Default maximum number of redeliveries before a message goes to the dead-letter topic; a consumer can specify
/// another.
const RETRY_MAX_TIMES: i32 = 16;
/// Delay level of the redelivery after the first failure.
const FIRST_RETRY_LEVEL: i32 = 3;
/// Protocol version from which a client's own maximum applies: `V3_4_9`.
const OWN_MAXIMUM_SINCE: i32 = 121;

pub(super) fn send(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let fields = &request.command.ext_fields;
    let header = match request.command.request_code() {
        RequestCode::SEND_MESSAGE => SendMessageRequest::from_fields(fields)?.into(),
        _ => SendMessageRequestV2::from_fields(fields)?,
    };
    let answer = store_sent(broker, request, &header).unwrap_or_else(|refusal| refusal);
    Ok(answer.with_field("MSG_REGION", REGION).with_field("TRACE_ON", "true").into())
}

pub(super) fn send_back(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let header = ConsumerSendMsgBackRequest::from_fields(&request.command.ext_fields)?;
    broker.group(header.group)?;
    let Some(stored) = broker.store.message_at(header.offset) else {
        let remark = format!("look message by offset failed, {}", header.offset);
        return Err(Answer::refusal(ResponseCode::SYSTEM_ERROR, remark));
    };
    let own_maximum = header.max_reconsume_times.filter(|_| request.command.version >= OWN_MAXIMUM_SINCE);
    let maximum = own_maximum.filter(|maximum| *maximum >= 0).unwrap_or(RETRY_MAX_TIMES);
    let is_dead = header.delay_level < 0 || stored.reconsume_times >= maximum;
    let level = match header.delay_level {
        _ if is_dead => 0,
        0 => FIRST_RETRY_LEVEL + stored.reconsume_times,
        level => level,
    };
    let topic = if is_dead { name::dead_letter_topic(header.group) } else { name::retry_topic(header.group) };
    broker.ensure_group_topic(&topic);

    let origin = stored.property(property::ORIGIN_MESSAGE_ID).map_or_else(|| stored.offset_msg_id(), str::to_owned);
    let mut message = stored.message.clone();
    if message.property(property::RETRY_TOPIC).is_none() {
        set_property(&mut message, property::RETRY_TOPIC, stored.topic());
    }
    set_property(&mut message, property::ORIGIN_MESSAGE_ID, &origin);
    set_property(&mut message, property::WAIT, "false");
    set_property(&mut message, property::DELAY, &level.to_string());
    message.topic = topic.into();
    let draft = Draft {
        message,
        queue_id: 0,
        sys_flag: stored.sys_flag,
        born_timestamp: stored.born_timestamp,
        born_host: stored.born_host,
        reconsume_times: stored.reconsume_times.saturating_add(1),
    };
    broker.put(draft, request.now)?;
    Ok(Answer::success().into())
}

pub(super) fn create_topic(broker: &mut Broker, request: &BrokerRequest) -> Handled {
    let header = CreateTopicRequest::from_fields(&request.command.ext_fields)?;
    let release = broker.settings.release;
    let refuse = |remark: String| Answer::refusal(release.invalid_parameter(), remark);
    name::check_topic(header.topic).map_err(|error| refuse(describe(release, header.topic, error)))?;
    if name::is_system_topic(header.topic) {
        return Err(refuse(format!("The topic[{}] is conflict with system topic.", header.topic)));
    }
    let config =
        TopicSettings { read_queues: header.read_queue_nums, write_queues: header.write_queue_nums, perm: header.perm };
    broker.store.set_topic(header.topic, config);
    // Java's code never sets another remark on this path.
    Ok(Answer { remark: Some("not set any response code".to_owned()), ..Answer::success() }.into())
}

/// Returns the error text of the release's broker.
fn describe(release: Release, topic: &str, error: NameError) -> String {
    let (named, is_v5) = (format!(": {topic},"), release.is_v5());
    let named = if is_v5 { named.as_str() } else { "" };
    match error {
        NameError::Blank => "The specified topic is blank.".to_owned(),
        NameError::TooLong { limit } if is_v5 => {
            format!("The specified topic{named} is longer than topic max length: {limit}")
        }
        NameError::TooLong { .. } => "The specified topic is longer than topic max length.".to_owned(),
        _ => format!("The specified topic{named} contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"),
    }
}

fn store_sent(
    broker: &mut Broker,
    request: &BrokerRequest,
    header: &SendMessageRequestV2<'_>,
) -> Result<Answer, Answer> {
    if header.sys_flag & TRANSACTION_MASK != TRANSACTION_NOT {
        let remark = "the mini broker does not support transactions";
        return Err(Answer::refusal(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, remark));
    }
    check_topic(broker, request, header)?;
    let mut draft = draft_of(broker, request, header)?;
    move_exhausted_retry(broker, request, header, &mut draft)?;
    let (queue_id, unique_id) = (draft.queue_id, draft.message.property(property::UNIQ_KEY).map(str::to_owned));
    let places = if header.batch == Some(true) {
        put_batch(broker, &draft, request.now)?
    } else {
        vec![broker.put(draft, request.now)?]
    };
    Ok(stored_answer(broker, queue_id, &places, unique_id.as_deref()))
}

/// Stores the messages of a batch one by one. 4.x brokers give each the properties of the whole batch, 5.x brokers do
/// not.
fn put_batch(broker: &mut Broker, whole: &Draft, now: i64) -> Result<Vec<StoredPlace>, Answer> {
    broker.check_size(&whole.message)?;
    let messages = messages_of_batch(whole.message.body())?;
    let is_v5 = broker.settings.release.is_v5();
    let draft_of_one = |one: BatchMessage| {
        let mut draft = whole.clone();
        draft.message.body = one.body;
        draft.message.flag = one.flag;
        let of_whole = std::mem::replace(&mut draft.message.properties, one.properties);
        for (name, value) in of_whole.iter().filter(|_| !is_v5) {
            set_property(&mut draft.message, name, value);
        }
        draft
    };
    messages.into_iter().map(|one| broker.put(draft_of_one(one), now)).collect()
}

fn check_topic(broker: &mut Broker, request: &BrokerRequest, header: &SendMessageRequestV2<'_>) -> Result<(), Answer> {
    let release = broker.settings.release;
    let topic = header.topic;
    let refuse = |error| Answer::refusal(release.invalid_parameter(), describe(release, topic, error));
    name::check_topic(topic).map_err(refuse)?;
    if !name::may_send_to(topic) {
        let remark = format!("Sending message to topic[{topic}] is forbidden.");
        return Err(Answer::refusal(ResponseCode::NO_PERMISSION, remark));
    }
    let Some(config) = broker.topic_to_write(topic, header.default_topic, header.default_topic_queue_nums) else {
        let remark = format!("topic[{topic}] not exist, apply first please!{}", release.see_also());
        return Err(Answer::refusal(ResponseCode::TOPIC_NOT_EXIST, remark));
    };
    if header.queue_id >= config.read_queues.max(config.write_queues) {
        let remark = format!(
            "request queueId[{}] is illegal, {} Producer: {}",
            header.queue_id,
            describe_config(release, topic, config),
            request.peer
        );
        return Err(Answer::refusal(release.invalid_parameter(), remark));
    }
    Ok(())
}

/// Formats as `TopicConfig.toString` of Java.
fn describe_config(release: Release, topic: &str, config: TopicSettings) -> String {
    let letter = |bit: i32, letter: char| if config.perm & bit != 0 { letter } else { '-' };
    format!(
        "TopicConfig [topicName={topic}, readQueueNums={}, writeQueueNums={}, perm={}{}{}, topicFilterType=SINGLE_TAG, \
         topicSysFlag=0, order=false{}]",
        config.read_queues,
        config.write_queues,
        letter(permission::READ, 'R'),
        letter(permission::WRITE, 'W'),
        letter(permission::INHERIT, 'X'),
        if release.is_v5() { ", attributes={}" } else { "" },
    )
}

fn draft_of(broker: &mut Broker, request: &BrokerRequest, header: &SendMessageRequestV2<'_>) -> Result<Draft, Answer> {
    let is_v5 = broker.settings.release.is_v5();
    let body = request.command.body.clone();
    if is_v5 && body.is_empty() {
        return Err(Answer::refusal(ResponseCode::SYSTEM_ERROR, "java.lang.NullPointerException"));
    }
    let encoded = Bytes::copy_from_slice(header.properties.unwrap_or_default().as_bytes());
    let properties = Properties::from_encoded(encoded);
    let mut message = Message::from_parts(header.topic.into(), body, header.flag, properties);
    if !is_v5 {
        message.properties.remove(property::WAIT);
    }
    if is_v5 && message.property(property::UNIQ_KEY).is_none() {
        let id = unique_id(broker, request.now);
        set_property(&mut message, property::UNIQ_KEY, &id);
    }
    set_property(&mut message, property::CLUSTER, &broker.settings.cluster);
    if is_v5 {
        set_property(&mut message, property::MSG_REGION, REGION);
        set_property(&mut message, property::TRACE_ON, "true");
    }
    let queue_id = if header.queue_id < 0 { any_queue(broker, header.topic) } else { header.queue_id };
    Ok(Draft {
        message,
        queue_id,
        sys_flag: header.sys_flag,
        born_timestamp: header.born_timestamp,
        born_host: request.peer,
        reconsume_times: header.reconsume_times.unwrap_or_default(),
    })
}

/// Moves a message to the dead-letter topic that a client sent to its retry topic and that exceeded its redeliveries.
/// The releases count differently.
fn move_exhausted_retry(
    broker: &mut Broker,
    request: &BrokerRequest,
    header: &SendMessageRequestV2<'_>,
    draft: &mut Draft,
) -> Result<(), Answer> {
    let Some(group) = header.topic.strip_prefix(name::RETRY_PREFIX) else { return Ok(()) };
    broker.group(group)?;
    let own_maximum = header.max_reconsume_times.filter(|_| request.command.version >= OWN_MAXIMUM_SINCE);
    let maximum = own_maximum.unwrap_or(RETRY_MAX_TIMES);
    let is_dead = if broker.settings.release.is_v5() {
        draft.reconsume_times > maximum
    } else {
        draft.reconsume_times >= maximum
    };
    if is_dead {
        let topic = name::dead_letter_topic(group);
        broker.ensure_group_topic(&topic);
        draft.message.topic = topic.into();
        draft.queue_id = 0;
        // A 4.x broker also delays the dead letter if its sender requested a delay.
        if broker.settings.release.is_v5() {
            set_property(&mut draft.message, property::DELAY, "-1");
        }
    }
    Ok(())
}

fn stored_answer(broker: &Broker, queue_id: i32, places: &[StoredPlace], unique_id: Option<&str>) -> Answer {
    let id = |place: &StoredPlace| {
        OffsetMessageId { store_host: broker.address, commit_log_offset: place.log_offset }.to_string()
    };
    let ids: Vec<String> = places.iter().map(id).collect();
    let response = SendMessageResponse {
        msg_id: &ids.join(","),
        queue_id,
        queue_offset: places.first().map_or(0, |place| place.queue_offset),
        transaction_id: unique_id.filter(|_| broker.settings.release.is_v5()),
        ..SendMessageResponse::default()
    };
    Answer::success().with_fields(&response)
}

fn any_queue(broker: &mut Broker, topic: &str) -> i32 {
    let queues = broker.store.topic(topic).map_or(1, |topic| topic.config.write_queues.max(1));
    let turn = broker.next_turn() % u64::from(queues.unsigned_abs());
    i32::try_from(turn).unwrap_or_default()
}

/// Returns the id that a 5.x broker gives to a message without one.
fn unique_id(broker: &mut Broker, now: i64) -> String {
    let low_bits = |number: u64| u16::try_from(number & 0xFFFF).unwrap_or_default();
    let id = UniqueId {
        ip: broker.address.ip(),
        process_id: low_bits(u64::from(std::process::id())),
        discriminator: u32::from(broker.address.port()),
        millis_of_month: u32::try_from(now & 0x7FFF_FFFF).unwrap_or_default(),
        counter: low_bits(broker.next_turn()),
    };
    id.to_string()
}
