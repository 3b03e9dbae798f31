//! Checks this crate's code against the values in other clients' tests: `tests/data/vectors.json`.
//!
//! Every known vector is either in that file and tested, or in `later.json` with the capability that will use it, or in
//! `not-ours.json` with the reason. Vectors of the wire layer are tested here, others next to the code under test.
//! Tests only: this file contains no algorithm, and each value comes from the crate.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::message::properties::Properties;
use crate::message::{Message, MessageExt, MessageQueue};
use crate::wire::body::{
    self, BrokerData, ConsumeFromWhere, ConsumeStatus, ConsumeType, ConsumerData, ConsumerList, ConsumerRunningInfo,
    HeartbeatData, MASTER_ID, MessageModel, ProcessQueueInfo, ProducerData, QueueData, ResetOffsetBody,
    SubscriptionData, TopicRouteData,
};
use crate::wire::header::{
    ConsumerSendMsgBackRequest, CreateTopicRequest, EndTransactionRequest, GetConsumerRunningInfoRequest,
    InheritedFields, OffsetResponse, QueueRequest, ResetOffsetRequest, SendMessageRequest, SendMessageRequestV2,
    SendMessageResponse,
};
use crate::wire::pop::recall::RecallHandle;
use crate::wire::pop::{
    PopQueue, PopTopic, REVIVE_QUEUE_OF_ORDER, Receipt, message_offsets, order_counts, start_offsets,
};
use crate::wire::stored::batch::{BatchMessage, messages_of_batch};
use crate::wire::stored::compression::{Codec, DEFAULT_LEVEL, compress};
use crate::wire::stored::message;
use crate::wire::stored::message_id::{OffsetMessageId, UniqueId};
use crate::wire::{
    Error, ExtFields, FieldSink, FrameDecoder, HeaderEncoding, HeaderFields, LanguageCode, RemotingCommand,
    RequestCode, ResponseCode, java_hash, name, sys_flag,
};

macro_rules! areas {
    ($($area:literal $test:ident $check:ident;)+) => {
        /// Areas that are tested here.
        const AREAS: &[&str] = &[$($area),+];

        $(
            #[test]
            fn $test() {
                for_each($area, $check);
            }
        )+
    };
}

areas! {
    "ACL" requests_are_signed_as_java_does acl;
    "BATCH" wire_02_batches_are_taken_apart_as_they_were_written batch;
    "BODY" wire_03_wire_05_nsp_07_bodies_are_read_and_written_as_java_does body_json;
    "CODE" codes_have_their_numbers codes;
    "CRC32" wire_02_bodies_have_the_checksum_that_brokers_store crc32;
    "FILTER" filt_10_tag_expressions_are_split_as_java_does filter;
    "FRAME" wire_01_frames_are_read_and_written_as_java_does frame;
    "GROUP" groups_are_checked_as_java_does group;
    "HASH" texts_have_the_hash_of_java hash;
    "HEADER" wire_04_headers_have_their_names header;
    "JSONSER" wire_01_texts_in_json_are_written_as_java_does json_text;
    "LANG" languages_have_their_numbers language;
    "MIXALL" topics_are_derived_from_groups derived_topic;
    "MQ" queues_are_sorted_as_java_does queue_order;
    "MSG" messages_refuse_what_java_refuses user_message;
    "MSGEXT" wire_02_stored_messages_are_read_and_written_as_brokers_do stored_message;
    "MSGID" offset_ids_are_read_and_written_as_brokers_do offset_id;
    "POP" texts_of_pop_are_read_and_written_as_java_does pop;
    "PROP" wire_02_properties_are_read_and_written_as_java_does properties;
    "PULLFLAG" pull_flags_have_their_bits pull_flag;
    "RECALL" recall_handles_are_read_and_written_as_java_does recall_handle;
    "RMQSER" wire_01_binary_headers_are_read_and_written_as_java_does binary_header;
    "SYSFLAG" message_flags_have_their_bits message_flag;
    "TOPIC" topics_are_checked_as_java_does topic;
    "UNIQID" unique_ids_have_their_parts unique_id;
    "UTIL" numbers_are_read_strictly number;
}

#[test]
fn every_vector_is_tested_or_has_its_reason() {
    let tested: Vec<String> = all().into_iter().map(|vector| vector.id).collect();
    let reasons = |file: &str| -> Map<String, Value> { serde_json::from_str(file).unwrap() };
    let later = reasons(include_str!("../../tests/data/later.json"));
    let not_ours = reasons(include_str!("../../tests/data/not-ours.json"));
    let all: AllVectors = serde_json::from_str(include_str!("../../tests/data/all-vectors.json")).unwrap();

    let sorted: Vec<&String> = tested.iter().chain(later.keys()).chain(not_ours.keys()).collect();
    let distinct: BTreeSet<&String> = sorted.iter().copied().collect();
    assert_eq!(sorted.len(), distinct.len(), "a vector is in two of the files");
    assert_eq!(distinct, all.ids.iter().collect(), "a vector is in none of the files, or unknown");
    assert_eq!(all.ids.len(), all.total);
    assert!(later.values().chain(not_ours.values()).all(|reason| reason.as_str().is_some_and(|text| !text.is_empty())));
}

/// Files that load [`vectors`] themselves.
const BESIDE_THE_CODE: [&str; 10] = [
    include_str!("../consumer/assign/allocate.rs"),
    include_str!("../consumer/offset/store.rs"),
    include_str!("../consumer/pull/process_queue.rs"),
    include_str!("../consumer/push/builder.rs"),
    include_str!("../consumer/pull/event.rs"),
    include_str!("../consumer/pull/table.rs"),
    include_str!("../consumer/assign/rebalance.rs"),
    include_str!("../consumer/deliver/retry.rs"),
    include_str!("../mini_broker/builder.rs"),
    include_str!("../producer/tests.rs"),
];

#[test]
fn every_vector_in_the_file_has_a_test() {
    for Vector { id, area, .. } in all() {
        let here = AREAS.contains(&area.as_str());
        let named = |end: usize| BESIDE_THE_CODE.iter().any(|file| file.contains(&format!("\"{}\"", &id[..end])));
        let beside = (area.len() + 1..=id.len()).any(named);
        assert!(here != beside, "{id} is tested {}", if here { "twice" } else { "nowhere" });
    }
}

/// Returns the vectors whose id begins with `prefix`, for tests next to the code; panics if there is none.
pub(crate) fn vectors(prefix: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("../../tests/data/vectors.json")).unwrap();
    let has_prefix = |vector: &&Value| vector["id"].as_str().is_some_and(|id| id.starts_with(prefix));
    let found: Vec<Value> = file["vectors"].as_array().unwrap().iter().filter(has_prefix).cloned().collect();
    assert!(!found.is_empty(), "no vector {prefix}");
    found
}

#[derive(Deserialize)]
struct AllVectors {
    total: usize,
    ids: Vec<String>,
}

#[derive(Deserialize)]
struct VectorFile {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    id: String,
    area: String,
    applies_to: Vec<String>,
    input: Value,
    expected: Value,
}

impl Vector {
    fn text(&self, key: &str) -> Option<&str> {
        self.input[key].as_str()
    }
}

fn all() -> Vec<Vector> {
    let file: VectorFile = serde_json::from_str(include_str!("../../tests/data/vectors.json")).unwrap();
    file.vectors
}

/// Runs `check` on each vector of an area; the id of a failed one is in the test's output.
fn for_each(area: &str, check: impl Fn(&Vector)) {
    for vector in all().iter().filter(|vector| vector.area == area) {
        println!("{}", vector.id);
        check(vector);
    }
}

fn unknown(vector: &Vector) -> ! {
    panic!("{} needs a test that is missing here: {}", vector.id, vector.input)
}

fn hash(vector: &Vector) {
    assert_eq!(java_hash::java_string_hash(vector.text("s").unwrap()), vector.expected);
}

fn queue_order(vector: &Vector) {
    type Parts = (String, String, i32);
    let mut queues: Vec<MessageQueue> = serde_json::from_value::<Vec<Parts>>(vector.input["queues"].clone())
        .unwrap()
        .into_iter()
        .map(|(topic, broker, id)| MessageQueue::new(topic, broker, id))
        .collect();
    queues.sort();
    let sorted: Vec<Value> = queues.iter().map(|q| json!([&*q.topic, &*q.broker_name, q.queue_id])).collect();
    assert_eq!(Value::from(sorted), vector.expected);
}

fn offset_id(vector: &Vector) {
    let expected = &vector.expected;
    if let Some(text) = vector.text("decode") {
        let id: OffsetMessageId = text.parse().unwrap();
        assert_eq!(id.store_host.ip().to_string(), expected["host"]);
        assert_eq!(id.store_host.port(), expected["port"]);
        assert_eq!(id.commit_log_offset, expected["offset"]);
    } else {
        let ip: IpAddr = vector.text("host").unwrap().parse().unwrap();
        let port = u16::try_from(vector.input["port"].as_u64().unwrap()).unwrap();
        let commit_log_offset = vector.input["commitLogOffset"].as_i64().unwrap();
        assert_eq!(OffsetMessageId { store_host: (ip, port).into(), commit_log_offset }.to_string(), *expected);
    }
}

fn unique_id(vector: &Vector) {
    let text = vector.text("uniqKey").unwrap();
    let id: UniqueId = text.parse().unwrap();
    assert_eq!(id.to_string(), text);
    for (part, expected) in vector.expected.as_object().unwrap() {
        match part.as_str() {
            "ip" => assert_eq!(id.ip, expected.as_str().unwrap().parse::<IpAddr>().unwrap()),
            "pid" => assert_eq!(id.process_id, *expected),
            "loaderHash" => assert_eq!(format!("{:08X}", id.discriminator), *expected),
            "millisSinceMonthStart" => assert_eq!(id.millis_of_month, *expected),
            "counter" => assert_eq!(id.counter, *expected),
            "length" => assert_eq!(id.to_string().len(), *expected),
            _ => unknown(vector),
        }
    }
}

fn properties(vector: &Vector) {
    let read = |text: &str| {
        let properties = Properties::from_encoded(Bytes::copy_from_slice(text.as_bytes()));
        properties.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect::<Map<_, _>>()
    };
    if let Some(text) = vector.text("decode") {
        assert_eq!(Value::from(read(text)), vector.expected);
    } else if let Some(entries) = vector.input["encode"].as_array() {
        let mut properties = Properties::new();
        for entry in entries {
            properties.append(entry[0].as_str().unwrap(), entry[1].as_str().unwrap());
        }
        let expected = vector.expected.as_str().unwrap();
        assert_eq!(read(expected), read(properties.as_text()));
        // 4.9 omits the last separator, 5.x writes it, and so does this crate.
        if vector.applies_to.iter().any(|version| version == "5.x") {
            assert_eq!(properties.as_text(), expected);
        }
    } else {
        let mut properties = Properties::new();
        properties.append("n", "v");
        assert_eq!(&properties.encoded()[..], b"n\x01v\x02");
        assert_eq!(
            (vector.input["NAME_VALUE_SEPARATOR"].as_u64(), vector.input["PROPERTY_SEPARATOR"].as_u64()),
            (Some(1), Some(2))
        );
        assert_eq!(crate::wire::limits::MAX_PROPERTIES_LENGTH, vector.input["maxEncodedLength"]);
    }
}

fn user_message(vector: &Vector) {
    let message = Message::new("T", "body");
    match vector.text("putUserProperty") {
        Some("reserved name (e.g. TRACE_ON)") => {
            assert!(message.with_property("TRACE_ON", "true").violation().is_some());
        }
        Some("blank value") => assert!(message.with_property("name", " ").violation().is_some()),
        Some(_) => unknown(vector),
        None => {
            let keys = vector.input["setKeys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap());
            assert_eq!(message.with_keys(keys).keys().unwrap(), vector.expected);
        }
    }
}

fn stored_message(vector: &Vector) {
    let expected = &vector.expected;
    if let Some(hex) = vector.text("wireHex") {
        let wire = from_hex(hex);
        let message = read_stored(&wire);
        assert_stored(&message, expected);
        assert_eq!(written(&message), wire);
    } else if vector.input.get("magicV1").is_some() {
        assert_magic("T", &expected["hexV1"]);
        assert_magic(&"t".repeat(128), &expected["hexV2"]);
        let mut blank = BytesMut::from(&written(&read_stored(&any_stored()))[..]);
        blank[4..8].copy_from_slice(&from_hex(expected["hexBlank"].as_str().unwrap()));
        let read = message::stored_messages(&blank.freeze(), &"T".into(), &"b".into()).next().unwrap().unwrap();
        let defect = format!("message magic has the unknown value {}", vector.input["magicBlank"]);
        assert_eq!(read.defect.as_deref(), Some(defect.as_str()));
    } else {
        assert!(expected["roundtrip"].is_array());
        for host in ["10.0.0.9:10911", "[2001:db8::2]:10911"] {
            for codec in [Codec::Zlib, Codec::Lz4, Codec::Zstd].into_iter().filter(|codec| codec.is_built()) {
                assert_stored_survives(host, codec);
            }
        }
    }
}

fn any_stored() -> Bytes {
    let known = all().into_iter().find(|vector| vector.id == "MSGEXT-001").unwrap();
    from_hex(known.text("wireHex").unwrap())
}

fn read_stored(wire: &Bytes) -> MessageExt {
    let read: Vec<_> = message::stored_messages(wire, &"TopicTest".into(), &"broker-a".into()).collect();
    let [message] = <[_; 1]>::try_from(read).unwrap();
    message.unwrap()
}

fn written(message: &MessageExt) -> Bytes {
    let mut out = BytesMut::new();
    message::encode_stored(message, &mut out).unwrap();
    out.freeze()
}

fn assert_magic(topic: &str, expected: &Value) {
    let mut message = read_stored(&any_stored());
    message.message = Message::new(topic, "body");
    assert_eq!(written(&message)[4..8], from_hex(expected.as_str().unwrap()));
}

fn assert_stored_survives(host: &str, codec: Codec) {
    let mut message = read_stored(&any_stored());
    let body = message.body().clone();
    let compressed = compress(codec, DEFAULT_LEVEL, &body).unwrap();
    message.message.body = compressed.into();
    message.body_crc = message::body_crc(message.body());
    message.sys_flag = codec.sys_flag();
    message.store_host = host.parse().unwrap();
    let mut read = read_stored(&written(&message));
    read.decompress_body(body.len()).unwrap();
    assert_eq!(read.body(), &body);
    assert_eq!(read.properties_of_message(), message.properties_of_message());
    assert_eq!((read.store_host, read.body_crc), (message.store_host, message.body_crc));
}

fn assert_stored(message: &MessageExt, expected: &Value) {
    let properties = &expected["properties"];
    assert_eq!(message.topic(), expected["topic"]);
    assert_eq!(message.body(), expected["body"].as_str().unwrap());
    assert_eq!(message.message.flag(), expected["flag"]);
    assert_eq!(Value::from(message.properties_of_message()), *properties);
    assert_eq!(message.queue_id, expected["queueId"]);
    assert_eq!(message.queue_offset, expected["queueOffset"]);
    assert_eq!(message.commit_log_offset, expected["commitLogOffset"]);
    assert_eq!(message.born_timestamp, expected["bornTimestamp"]);
    assert_eq!(message.store_timestamp, expected["storeTimestamp"]);
    assert_eq!(plain(message.born_host), expected["bornHost"]);
    assert_eq!(plain(message.store_host), expected["storeHost"]);
    assert_eq!(message.reconsume_times, expected["reconsumeTimes"]);
    assert_eq!(message.prepared_transaction_offset, expected["preparedTransactionOffset"]);
    assert_eq!(message.store_size, expected["storeSize"]);
    assert_eq!(message.body_crc, expected["bodyCRC"]);
    assert_eq!(message.sys_flag, expected["sysFlagOnWire"]);
    assert_eq!(message.msg_id(), expected["msgId"].as_str().unwrap());
    assert_eq!(message.offset_msg_id(), expected["offsetMsgId"]);
    assert_eq!(message::body_crc(message.body()), message.body_crc);
}

/// Removes the brackets of an IPv6 address, as the file writes it.
fn plain(host: std::net::SocketAddr) -> String {
    format!("{}:{}", host.ip(), host.port())
}

impl MessageExt {
    fn properties_of_message(&self) -> Map<String, Value> {
        self.message.properties().iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }
}

fn batch(vector: &Vector) {
    if let Some(length) = vector.expected["encodedLength"].as_u64() {
        return assert_batched_length(vector, length);
    }
    let written = from_hex(vector.expected.as_str().unwrap());
    let [message] = <[_; 1]>::try_from(messages_of_batch(&written).unwrap()).unwrap();
    assert_eq!(message.flag, vector.input["flag"]);
    assert_eq!(message.body, from_hex(vector.text("bodyHex").unwrap()));
    let properties: Vec<_> = message.properties.iter().collect();
    assert_eq!(json!(properties), vector.input["properties"]);
    let mut rewritten = BytesMut::new();
    message.encode(&mut rewritten).unwrap();
    assert_eq!(rewritten, written);
}

fn assert_batched_length(vector: &Vector, length: u64) {
    let body = vector.text("body").or_else(|| vector.input["messages"][0].as_str()).unwrap().to_owned();
    let mut properties = Properties::new();
    for entry in texts(&vector.input["properties"]) {
        let (name, value) = entry.split_once('=').unwrap();
        let id = UniqueId::from_str("C0A8010A12342A139A554A3E5900002A").unwrap().to_string();
        properties.append(name, if value == "<32 digits>" { &id } else { value });
    }
    let mut written = BytesMut::new();
    BatchMessage { flag: 0, body: body.into(), properties }.encode(&mut written).unwrap();
    // The C++ client, the source of these vectors, ends properties with a separator, as this crate does.
    assert_eq!(written.len() as u64, length);
}

#[cfg(feature = "acl")]
fn acl(vector: &Vector) {
    use crate::wire::acl::signature;

    let (input, expected) = (&vector.input, &vector.expected);
    let secret = vector.text("secretKey").unwrap_or("12345678");
    if let Some(content) = vector.text("content") {
        let signed = signature(secret, &ExtFields::new(), content.as_bytes());
        assert_eq!(signed.unwrap_or_else(|_| "error".to_owned()), *expected);
    } else if input.get("extFields").is_some() {
        let body = from_hex(vector.text("bodyHex").unwrap());
        let signed = signature(secret, &fields(&input["extFields"]), &body).unwrap();
        assert_eq!(signed, expected["Signature"]);
        let content = from_hex(expected["signedContentHex"].as_str().unwrap());
        assert_eq!(signed, signature(secret, &ExtFields::new(), &content).unwrap());
    } else if vector.text("request") == Some("PULL header of vector ACL-003 + ReqT stream") {
        let pull = all().into_iter().find(|vector| vector.id == "ACL-003").unwrap();
        let mut written = fields(&pull.input["extFields"]);
        let plain = signature(secret, &written, b"").unwrap();
        let stream = InheritedFields { request_type: Some("0"), ..InheritedFields::default() };
        assert_eq!(field_map(&stream), *expected);
        stream.write_to(&mut written);
        assert_ne!(signature(secret, &written, b"").unwrap(), plain);
    } else {
        unknown(vector);
    }
}

#[cfg(not(feature = "acl"))]
fn acl(_vector: &Vector) {}

fn recall_handle(vector: &Vector) {
    if let Some(text) = vector.text("decode") {
        assert_eq!(text.parse::<RecallHandle>().map_or("error", |_| "a handle"), vector.expected);
        return;
    }
    let handle = RecallHandle {
        topic: vector.text("topic").unwrap().to_owned(),
        broker_name: vector.text("brokerName").unwrap().to_owned(),
        deliver_timestamp: vector.text("timestamp").unwrap().parse().unwrap(),
        message_id: vector.text("messageId").unwrap().to_owned(),
    };
    assert_eq!(handle.to_string(), vector.expected);
    assert_eq!(handle.to_string().parse(), Ok(handle));
}

fn pop(vector: &Vector) {
    let (input, expected) = (&vector.input, &vector.expected);
    let place = |queue: PopQueue| format!("{}@{}", queue.topic, queue.queue_id);
    if let Some([topic, group]) = input["popRetryV1"]
        .as_array()
        .or_else(|| input["popRetryV2"].as_array())
        .map(|names| [names[0].as_str().unwrap(), names[1].as_str().unwrap()])
    {
        let retry_topic =
            if input.get("popRetryV1").is_some() { name::pop_retry_topic_v1 } else { name::pop_retry_topic_v2 };
        assert_eq!(retry_topic(topic, group), *expected);
    } else if let Some(retry_topic) = vector.text("parseNormalTopic") {
        let (group, topic) = name::split_pop_retry_topic(retry_topic).unwrap();
        assert_eq!((group, topic), (vector.text("group").unwrap(), expected.as_str().unwrap()));
    } else if let Some(retry_topic) = vector.text("parseGroup") {
        assert_eq!(name::split_pop_retry_topic(retry_topic).unwrap().0, expected);
    } else if let Some(retry_topic) = vector.text("isPopRetryTopicV2") {
        assert_eq!(name::split_pop_retry_topic(retry_topic).is_some(), *expected);
    } else if let Some(text) = vector.text("startOffsetInfo") {
        let read = start_offsets(text).unwrap().into_iter().map(|(queue, offset)| (place(queue), json!(offset)));
        assert_eq!(Value::from(read.collect::<Map<_, _>>()), *expected);
    } else if let Some(text) = vector.text("msgOffsetInfo") {
        let read = message_offsets(text).unwrap().into_iter().map(|(queue, offsets)| (place(queue), json!(offsets)));
        assert_eq!(Value::from(read.collect::<Map<_, _>>()), *expected);
    } else if let Some(text) = vector.text("orderCountInfo") {
        let key = |queue: PopQueue, offset: Option<i64>| match offset {
            Some(offset) => format!("{}@qo{}%{offset}", queue.topic, queue.queue_id),
            None => place(queue),
        };
        let read =
            order_counts(text).unwrap().into_iter().map(|(queue, offset, count)| (key(queue, offset), json!(count)));
        assert_eq!(Value::from(read.collect::<Map<_, _>>()), *expected);
    } else if let Some(text) = vector.text("decode") {
        assert_eq!(text.parse::<Receipt>().map_or("error", |_| "a receipt"), *expected);
    } else {
        let number = |name: &str| input[name].as_i64().unwrap();
        let receipt = Receipt {
            start_offset: number("ckQueueOffset"),
            pop_time: number("popTime"),
            invisible_time: number("invisibleTime"),
            revive_queue_id: i32::try_from(number("reviveQueueId")).unwrap(),
            topic: PopTopic::Normal,
            broker_name: vector.text("brokerName").unwrap().to_owned(),
            queue_id: i32::try_from(number("queueId")).unwrap(),
            queue_offset: number("msgQueueOffset"),
            commit_log_offset: None,
        };
        assert_eq!(receipt.to_string(), expected["POP_CK"]);
        assert_eq!(receipt.revive_queue_id == REVIVE_QUEUE_OF_ORDER, expected["order"]);
        assert_eq!(receipt.to_string().parse(), Ok(receipt));
    }
}

fn crc32(vector: &Vector) {
    assert_eq!(message::body_crc(&from_hex(vector.text("bytesHex").unwrap())), vector.expected);
}

fn frame(vector: &Vector) {
    let (input, expected) = (&vector.input, &vector.expected);
    if input.get("markProtocolType").is_some() {
        let marked = from_hex(expected.as_str().unwrap());
        let length = usize::try_from(input["markProtocolType"]["length"].as_u64().unwrap()).unwrap();
        assert_marked(&input["markProtocolType"]["type"], length, &marked);
    } else if let Some(types) = input["type"].as_object() {
        for (kind, number) in types {
            assert_eq!(encoded(&command(encoding(kind)))[4], *number);
        }
    } else if let Some(header) = vector.text("headerText") {
        let wire = from_hex(expected.as_str().unwrap());
        assert_eq!(wire[8..], *header.as_bytes());
        let command = decoded(&wire);
        assert_eq!(command.request_code(), RequestCode::GET_ROUTEINFO_BY_TOPIC);
        assert_eq!(command.ext_fields.get("topic"), Some("TopicTest"));
        assert_eq!((command.version, command.opaque, command.language), (401, 1, LanguageCode::JAVA));
        assert_eq!(decoded(&encoded(&command)), command);
    } else if let Some(header) = vector.text("decodeJsonHeader") {
        assert_command(&decoded(&framed(0, header.as_bytes())), expected);
    } else if let Some(flag) = input["flag"].as_i64() {
        let command = RemotingCommand { flag: i32::try_from(flag).unwrap(), ..command(HeaderEncoding::Json) };
        assert_eq!(command.is_response(), expected["isResponse"]);
        assert_eq!(command.is_oneway(), expected["isOneway"]);
    } else if input["missingNonNullField"] == true {
        assert_eq!(OffsetResponse::from_fields(&ExtFields::new()), Err(Error::MissingField { field: "offset" }));
    } else {
        unknown(vector);
    }
}

/// Checks the word of encoding and header length. The largest header length exceeds the frame limit, so it is checked
/// by reading the word.
fn assert_marked(kind: &Value, length: usize, marked: &Bytes) {
    if kind == "JSON" {
        let mut command = command(HeaderEncoding::Json);
        command.remark = Some(String::new());
        let shortest = encoded(&command).len() - 8;
        command.remark = Some("r".repeat(length - shortest));
        assert_eq!(encoded(&command)[4..8], marked[..]);
    } else {
        let mut decoder = FrameDecoder::new();
        decoder.push(&[&[0, 0, 0, 4], &marked[..]].concat());
        let claimed = i64::try_from(length).unwrap();
        assert_eq!(decoder.next_command(), Err(Error::BadLength { what: "header", claimed, limit: 0 }));
    }
}

fn binary_header(vector: &Vector) {
    if let Some(hex) = vector.text("decodeHex") {
        let header = from_hex(hex);
        let command = decoded(&framed(1, &header));
        assert_eq!(command.encoding, HeaderEncoding::RocketMq);
        assert_command(&command, &vector.expected);
        return;
    }
    let number = |key: &str| i32::try_from(vector.input[key].as_i64().unwrap()).unwrap();
    let mut command = command(HeaderEncoding::RocketMq);
    command.code = number("code");
    command.version = number("ver");
    command.opaque = number("opaque");
    command.flag = number("flag");
    command.language = LanguageCode(u8::try_from(number("lang")).unwrap());
    command.remark = vector.text("remark").map(str::to_owned);
    command.ext_fields = fields(&vector.input["ext"]);
    let header = encoded(&command).slice(8..);
    let expected = &vector.expected;
    assert_eq!(header, from_hex(expected["hex"].as_str().unwrap()));
    assert_eq!(header.len(), expected["length"]);
    assert_eq!(decoded(&encoded(&command)), command);
}

fn assert_command(command: &RemotingCommand, expected: &Value) {
    for (part, expected) in expected.as_object().unwrap() {
        match part.as_str() {
            "code" => assert_eq!(command.code, *expected),
            "flag" => assert_eq!(command.flag, *expected),
            "opaque" => assert_eq!(command.opaque, *expected),
            "version" | "ver" => assert_eq!(command.version, *expected),
            "lang" => assert_eq!(command.language.0, *expected),
            "language" | "languageName" => assert_eq!(command.language.name().unwrap(), *expected),
            "remark" => assert_eq!(command.remark.as_deref(), expected.as_str()),
            "isResponse" => assert_eq!(command.is_response(), *expected),
            // An empty value and an absent one are equal in a binary header.
            "ext" | "extFields" => {
                let mut filled =
                    fields(expected).iter().filter(|(_, value)| !value.is_empty()).map(owned).collect::<Vec<_>>();
                let mut read = command.ext_fields.iter().map(owned).collect::<Vec<_>>();
                filled.sort();
                read.sort();
                assert_eq!(read, filled);
            }
            other => panic!("no test compares {other}"),
        }
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn json_text(vector: &Vector) {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct StringList {
        string_list: Vec<String>,
    }

    let string_list = serde_json::from_value(vector.input["stringList"].clone()).unwrap();
    let written = body::encode("list", &StringList { string_list }).unwrap();
    assert_eq!(written, vector.expected.as_str().unwrap().as_bytes());
}

fn language(vector: &Vector) {
    for (name, number) in vector.expected.as_object().unwrap() {
        let language = LanguageCode::from_name(name).unwrap();
        assert_eq!(language.0, *number);
        assert_eq!(language.name(), Some(name.as_str()));
    }
}

fn codes(vector: &Vector) {
    for (name, number) in vector.expected.as_object().unwrap() {
        let code = match vector.text("kind").unwrap() {
            "request" => RequestCode::from_name(name).unwrap().0,
            _ => ResponseCode::from_name(name).unwrap().0,
        };
        assert_eq!(code, *number, "{name}");
    }
}

fn topic(vector: &Vector) {
    if let Some(set) = vector.text("set") {
        let topics = vector.expected.as_array().unwrap().iter().map(|topic| topic.as_str().unwrap());
        for topic in topics {
            assert!(name::is_system_topic(topic), "{topic}");
            assert!(set == "system topics" || !name::may_send_to(topic), "{topic}");
        }
    } else if let Some(topic) = vector.text("topic") {
        assert_eq!(name::is_system_topic(topic), vector.expected["isSystem"]);
        assert_eq!(!name::may_send_to(topic), vector.expected["sendDenied"]);
    } else {
        assert_eq!(name::check_topic(vector.text("value").unwrap()).is_ok(), vector.expected);
    }
}

fn group(vector: &Vector) {
    let described = vector.text("validateGroup").unwrap();
    let group = match described.split_once('*') {
        Some((_, times)) => "0".repeat(times.parse().unwrap()),
        None => described.to_owned(),
    };
    assert_eq!(group.len(), vector.input["length"]);
    assert_eq!(name::check_group(&group).is_ok(), vector.expected);
}

fn derived_topic(vector: &Vector) {
    if let Some(group) = vector.text("retryTopicOf") {
        assert_eq!(name::retry_topic(group), vector.expected);
    } else {
        let topics = vector.input["isRetry"].as_array().unwrap().iter().map(|topic| topic.as_str().unwrap());
        assert_eq!(topics.map(name::is_retry_topic).collect::<Value>(), vector.expected);
    }
}

fn pull_flag(vector: &Vector) {
    let bit = |name: &str| match name {
        "commitOffset" => sys_flag::pull::COMMIT_OFFSET,
        "suspend" => sys_flag::pull::SUSPEND,
        "subscription" => sys_flag::pull::SUBSCRIPTION,
        "classFilter" => sys_flag::pull::CLASS_FILTER,
        "litePull" => sys_flag::pull::LITE_PULL,
        _ => 0,
    };
    if let Some(cleared) = vector.text("clear") {
        let flag = i32::try_from(vector.input["flag"].as_i64().unwrap()).unwrap();
        assert_eq!(flag & !bit(cleared), vector.expected);
    } else {
        let set = vector.input.as_object().unwrap().iter().filter(|(_, set)| **set == json!(true));
        assert_eq!(set.map(|(name, _)| bit(name)).sum::<i32>(), vector.expected);
    }
}

fn message_flag(vector: &Vector) {
    use sys_flag::message::*;

    if let Some(flag) = vector.input["compressionTypeOf"].as_i64() {
        let codec = Codec::of_sys_flag(i32::try_from(flag).unwrap());
        let named = codec.map(|codec| format!("{:?}", codec.unwrap()).to_uppercase());
        assert_eq!(named.unwrap_or_else(|_| "error".to_owned()), vector.expected);
        return;
    }
    let bits = [
        ("COMPRESSED", COMPRESSED),
        ("MULTI_TAGS", MULTI_TAGS),
        ("TRANSACTION_NOT", TRANSACTION_NOT),
        ("TRANSACTION_PREPARED", TRANSACTION_PREPARED),
        ("TRANSACTION_COMMIT", TRANSACTION_COMMIT),
        ("TRANSACTION_ROLLBACK", TRANSACTION_ROLLBACK),
        ("BORNHOST_V6", BORN_HOST_V6),
        ("STOREHOST_V6", STORE_HOST_V6),
        ("NEED_UNWRAP", NEED_UNWRAP),
        ("INNER_BATCH", INNER_BATCH),
        ("COMPRESSION_LZ4", COMPRESSION_LZ4),
        ("COMPRESSION_ZSTD", COMPRESSION_ZSTD),
        ("COMPRESSION_ZLIB", COMPRESSION_ZLIB),
        ("COMPRESSION_MASK", COMPRESSION_MASK),
    ];
    let named: Map<String, Value> = bits.into_iter().map(|(name, bit)| (name.to_owned(), bit.into())).collect();
    assert_eq!(Value::from(named), vector.expected);
}

fn filter(vector: &Vector) {
    let expected = &vector.expected;
    if let Some(expression) = vector.input.get("expression") {
        let subscription = SubscriptionData::of_tags("T", expression.as_str().unwrap_or_default(), 1).unwrap();
        assert_eq!(subscription.sub_string, expected["subString"]);
        assert_eq!(json!(subscription.tags_set), expected["tags"]);
        assert_eq!(json!(subscription.code_set), expected["codes"]);
    } else if vector.input.get("defaultExpressionType").is_some() {
        let subscription = SubscriptionData::of_tags("T", "A", 1).unwrap();
        assert_eq!(subscription.expression_type.as_deref(), expected.as_str());
    } else if vector.input.get("jsonMembers").is_some() {
        let subscription = SubscriptionData::of_tags("T", "A", 1).unwrap();
        assert_eq!(members(&subscription), texts(expected));
    } else {
        unknown(vector);
    }
}

fn header(vector: &Vector) {
    let (input, expected) = (&vector.input, &vector.expected);
    match vector.text("header").or_else(|| vector.text("decode")) {
        Some("SendMessage V1->V2 names") => {
            for (long, short) in expected.as_object().unwrap() {
                assert_eq!(short_name(long), *short, "{long}");
            }
        }
        Some("SendMessageV2") => {
            assert_header(expected, |fields| {
                SendMessageRequestV2::from_fields(fields).map(|header| field_map(&header))
            });
            let input = fields(input);
            let long = SendMessageRequest::from_fields(&input).unwrap();
            assert_eq!(field_map(&SendMessageRequestV2::from(long)), *expected);
        }
        Some("SendMessage") => {
            assert_header(expected, |fields| SendMessageRequest::from_fields(fields).map(|header| field_map(&header)))
        }
        Some("SendMessageResponse") => {
            let read = fields(&input["extFields"]);
            let response = SendMessageResponse::from_fields(&read).unwrap();
            assert_eq!(response.msg_id, expected["msgId"]);
            assert_eq!(response.queue_id, expected["queueId"]);
            assert_eq!(response.queue_offset, expected["queueOffset"]);
            assert_eq!(response.transaction_id, expected["transactionId"].as_str());
            assert_eq!(response.region_id, expected["regionId"].as_str());
        }
        Some("ConsumerSendMsgBack") => {
            assert_header(expected, |fields| {
                ConsumerSendMsgBackRequest::from_fields(fields).map(|header| field_map(&header))
            });
        }
        Some("EndTransaction") => {
            assert_header(expected, |fields| {
                EndTransactionRequest::from_fields(fields).map(|header| field_map(&header))
            });
        }
        Some("GetConsumerRunningInfo") => {
            assert_header(expected, |fields| {
                GetConsumerRunningInfoRequest::from_fields(fields).map(|header| field_map(&header))
            });
        }
        Some("ResetOffset") => {
            let read = fields(&input["extFields"]);
            let request = ResetOffsetRequest::from_fields(&read).unwrap();
            assert_eq!((request.topic, request.group), (text(expected, "topic"), text(expected, "group")));
            assert_eq!(request.timestamp, expected["timestamp"]);
            assert_eq!(request.is_force, expected["isForce"]);
        }
        Some("CreateTopic") => {
            assert_header(expected, |fields| CreateTopicRequest::from_fields(fields).map(|header| field_map(&header)))
        }
        _ => unknown(vector),
    }
}

/// Returns the additional field of a short-form header for the additional field `long` of the long form.
fn short_name(long: &str) -> String {
    let mut written = ExtFields::new();
    let known = SendMessageRequest { producer_group: "a", topic: "b", default_topic: "c", ..Default::default() };
    known.write_to(&mut written);
    let is_text = ["producerGroup", "topic", "defaultTopic", "properties"].contains(&long);
    let is_truth = ["unitMode", "batch"].contains(&long);
    let value = if is_text {
        "mark"
    } else if is_truth {
        "true"
    } else {
        "77"
    };
    written.text(long, value);
    let short = SendMessageRequestV2::from(SendMessageRequest::from_fields(&written).unwrap());
    let mut renamed = ExtFields::new();
    short.write_to(&mut renamed);
    let marked: Vec<&str> = renamed.iter().filter(|(_, written)| *written == value).map(|(name, _)| name).collect();
    assert_eq!(marked.len(), 1, "{long}");
    marked[0].to_owned()
}

/// Checks a header; `rewritten` reads it from its fields and writes it again.
fn assert_header(expected: &Value, rewritten: impl FnOnce(&ExtFields) -> Result<Value, Error>) {
    assert_eq!(rewritten(&fields(expected)).as_ref(), Ok(expected));
}

fn field_map(header: &dyn HeaderFields) -> Value {
    let mut fields = ExtFields::new();
    header.write_to(&mut fields);
    fields.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect::<Map<_, _>>().into()
}

fn body_json(vector: &Vector) {
    let (input, expected) = (&vector.input, &vector.expected);
    if let Some(json) = vector.text("resetOffset") {
        return assert_reset_offsets(json, expected);
    }
    if input.get("consumerRunningInfo").is_some() {
        return assert_running_info(expected);
    }
    if let Some(text) = vector.text("routeText") {
        let route = TopicRouteData::decode(text.as_bytes()).unwrap();
        let addresses = &route.broker_datas[0].broker_addrs;
        assert_eq!(addresses[&MASTER_ID], expected["master"]);
        assert_eq!(addresses[&1], expected["slave"]);
        assert_eq!(route.write_queues(&"T".into()).len(), expected["writeQueues"]);
    } else if let Some(route) = input.get("routeJson") {
        let route = TopicRouteData::decode(route.to_string().as_bytes()).unwrap();
        assert_eq!(route.broker_datas[0].broker_addrs[&MASTER_ID], expected["masterAddress"]);
        assert_eq!(route.queue_datas[0].write_queue_nums, expected["queues"]);
        assert_eq!(route.read_queues(&"T".into()).len(), expected["queues"]);
    } else if let Some(queues) = input.get("topicRoute") {
        let broker = BrokerData {
            broker_name: "b".to_owned(),
            broker_addrs: [(MASTER_ID, "127.0.0.1:10911".to_owned())].into(),
            ..BrokerData::default()
        };
        let mut queues = queues.clone();
        queues["brokerName"] = "b".into();
        let queues: QueueData = serde_json::from_value(queues).unwrap();
        let route = TopicRouteData { broker_datas: vec![broker], queue_datas: vec![queues], ..Default::default() };
        let topic: Arc<str> = "T".into();
        assert_eq!(route.write_queues(&topic).len(), expected["publishQueues"]);
        assert_eq!(route.read_queues(&topic).len(), expected["subscribeQueues"]);
    } else if let Some(list) = vector.text("getConsumerListResponse") {
        let list: ConsumerList = body::decode("list", list.as_bytes()).unwrap();
        assert_eq!(list.consumer_id_list, texts(expected));
    } else if input["heartbeat"] == true {
        let heartbeat = heartbeat();
        let is_member = |names: &Value, members: &[String]| texts(names).iter().all(|name| members.contains(name));
        assert!(is_member(&expected["members"], &members(&heartbeat)));
        assert!(is_member(&expected["consumer"], &members(&heartbeat.consumer_data_set[0])));
    } else {
        unknown(vector);
    }
}

fn assert_reset_offsets(json: &str, expected: &Value) {
    let body: ResetOffsetBody = body::decode("offsets", json.as_bytes()).unwrap();
    let offsets = &body.offset_table.0;
    assert_eq!(offsets.len(), expected["entries"]);
    if let Some(first) = expected["first"].as_object() {
        let queue_id = i32::try_from(first["queueId"].as_i64().unwrap()).unwrap();
        let queue =
            MessageQueue::new(text(&expected["first"], "topic"), text(&expected["first"], "brokerName"), queue_id);
        assert_eq!(offsets[&queue], first["offset"]);
    } else {
        assert_eq!(json!(offsets.values().collect::<Vec<_>>()), expected["offsets"]);
    }
}

/// Where the vectors list two spellings, the second one is Java's.
fn assert_running_info(expected: &Value) {
    let subscription = SubscriptionData::of_tags("T", "A", 1).unwrap();
    let info = ConsumerRunningInfo {
        subscription_set: vec![subscription],
        mq_table: [(MessageQueue::new("T", "b", 0), ProcessQueueInfo::default())].into_iter().collect(),
        status_table: [("T".to_owned(), ConsumeStatus::default())].into(),
        ..ConsumerRunningInfo::default()
    };
    let written = body::encode("info", &info).unwrap();
    assert!(std::str::from_utf8(&written).unwrap().contains("\"mqTable\":{{\"brokerName\""));
    let written: Value = body::decode("info", &written).unwrap();
    let (key, queue) = written["mqTable"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(expected["mqTableKeyForm"], "JSON object as key");
    assert_eq!(serde_json::from_str::<Value>(key).unwrap(), json!({"brokerName": "b", "queueId": 0, "topic": "T"}));
    for (names, written) in [
        ("members", &written),
        ("subscriptionMembers", &written["subscriptionSet"][0]),
        ("mqTableValueMembers", queue),
        ("statusMembers", &written["statusTable"]["T"]),
    ] {
        let mut java: Vec<String> = texts(&expected[names]);
        java.iter_mut().for_each(|name| *name = name.rsplit('|').next().unwrap().to_owned());
        java.sort();
        assert_eq!(members(written), java, "{names}");
    }
}

fn heartbeat() -> HeartbeatData {
    HeartbeatData {
        client_id: "id".to_owned(),
        producer_data_set: vec![ProducerData { group_name: "PG".to_owned() }],
        consumer_data_set: vec![ConsumerData {
            group_name: "CG".to_owned(),
            consume_type: ConsumeType::Passively,
            message_model: MessageModel::Clustering,
            consume_from_where: ConsumeFromWhere::LastOffset,
            subscription_data_set: Vec::new(),
            unit_mode: false,
        }],
    }
}

fn number(vector: &Vector) {
    let texts = texts(&vector.input["toInt32"]);
    let read = texts.iter().map(|text| {
        let fields = fields(&json!({"topic": "T", "queueId": text}));
        QueueRequest::from_fields(&fields).map(|header| header.queue_id).ok()
    });
    assert_eq!(json!(read.collect::<Vec<_>>()), vector.expected);
}

fn command(encoding: HeaderEncoding) -> RemotingCommand {
    RemotingCommand { encoding, ..RemotingCommand::request(RequestCode::HEART_BEAT, &()) }
}

fn encoding(name: &str) -> HeaderEncoding {
    if name == "JSON" { HeaderEncoding::Json } else { HeaderEncoding::RocketMq }
}

fn encoded(command: &RemotingCommand) -> Bytes {
    let mut out = Vec::new();
    command.encode(&mut out).unwrap();
    out.into()
}

fn decoded(frame: &[u8]) -> RemotingCommand {
    let mut decoder = FrameDecoder::new();
    decoder.push(frame);
    decoder.next_command().unwrap().unwrap()
}

fn framed(kind: u8, header: &[u8]) -> Vec<u8> {
    let length = u32::try_from(header.len()).unwrap();
    [&(length + 4).to_be_bytes()[..], &(u32::from(kind) << 24 | length).to_be_bytes(), header].concat()
}

/// Returns the fields of a JSON object, each as text.
fn fields(object: &Value) -> ExtFields {
    let mut fields = ExtFields::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        fields.text(name, &value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    fields
}

fn members(body: &impl Serialize) -> Vec<String> {
    let written: Value = serde_json::from_slice(&body::encode("body", body).unwrap()).unwrap();
    let mut members: Vec<String> = written.as_object().unwrap().keys().cloned().collect();
    members.sort();
    members
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap()
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn from_hex(hex: &str) -> Bytes {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
