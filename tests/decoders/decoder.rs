//! Decoders under test: their calls, their memory limits, and valid inputs to begin with.

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rocketmq_sync::unversioned::wire::body::{self, *};
use rocketmq_sync::unversioned::wire::header::*;
use rocketmq_sync::unversioned::wire::pop::recall::RecallHandle;
use rocketmq_sync::unversioned::wire::pop::{Receipt, message_offsets, order_counts, start_offsets};
use rocketmq_sync::unversioned::wire::stored::batch::messages_of_batch;
use rocketmq_sync::unversioned::wire::stored::compression::{Codec, DEFAULT_LEVEL, compress, decompress};
use rocketmq_sync::unversioned::wire::stored::message::{defect_of, encode_stored, stored_messages};
use rocketmq_sync::unversioned::wire::stored::message_id::{OffsetMessageId, UniqueId};
use rocketmq_sync::unversioned::wire::sys_flag::message::{INNER_BATCH, NEED_UNWRAP};
use rocketmq_sync::unversioned::wire::{
    Error, ExtFields, FieldSink, FrameDecoder, HeaderEncoding, HeaderFields, RemotingCommand, RequestCode, ResponseCode,
};
use rocketmq_sync::{Message, MessageExt, MessageExtBuilder};

use crate::corpus::{hostile, java_bodies};

/// Outcome of an input.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Values, with a description.
    Value(String),
    /// Neither value nor error.
    Nothing,
    /// Error; the text is that of the last one.
    Error(String),
}

impl Outcome {
    /// Outcome without its numbers, by which a hunt recognises a new kind.
    pub(crate) fn kind(&self) -> String {
        let (kind, text) = match self {
            Self::Value(text) => ("value", text.as_str()),
            Self::Nothing => ("nothing", ""),
            Self::Error(text) => ("error", text.as_str()),
        };
        format!("{kind} {text}").chars().filter(|letter| !letter.is_ascii_digit()).collect()
    }
}

pub(crate) struct Decoder {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]) -> Outcome,
    /// Maximum memory for an input of this length, including the results.
    pub(crate) allowance: fn(usize) -> usize,
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

impl Decoder {
    pub(crate) fn named(name: &str) -> &'static Self {
        ALL.iter().find(|decoder| decoder.name == name).expect("a decoder")
    }
}

const KIB: usize = 1024;
/// Limit of restored bodies in these tests.
const BODY_LIMIT: usize = 256 * KIB;

pub(crate) const ALL: &[Decoder] = &[
    Decoder { name: "frames", run: frames, allowance: |length| 64 * KIB + 16 * length, seeds: some_frames },
    Decoder { name: "headers", run: headers, allowance: |length| 64 * KIB + 16 * length, seeds: some_headers },
    Decoder { name: "stored messages", run: stored, allowance: |length| 64 * KIB + 32 * length, seeds: some_stored },
    Decoder { name: "batches", run: batches, allowance: |length| 64 * KIB + 16 * length, seeds: some_batches },
    Decoder { name: "json bodies", run: json_bodies, allowance: |length| 64 * KIB + 32 * length, seeds: java_bodies },
    Decoder { name: "texts", run: texts, allowance: |length| 64 * KIB + 32 * length, seeds: some_texts },
    Decoder { name: "tags", run: tags, allowance: |length| 64 * KIB + 64 * length, seeds: some_tags },
    Decoder {
        name: "zlib",
        run: |input| restored(Codec::Zlib, input),
        allowance: |length| 3 * BODY_LIMIT + 256 * KIB + 4 * length,
        seeds: || some_compressed(Codec::Zlib),
    },
    Decoder {
        name: "lz4",
        run: |input| restored(Codec::Lz4, input),
        // Blocks of 4 MiB, compressed and uncompressed, regardless of the limit.
        allowance: |length| 3 * BODY_LIMIT + 12 * 1024 * KIB + 4 * length,
        seeds: || some_compressed(Codec::Lz4),
    },
    Decoder {
        name: "zstd",
        run: |input| restored(Codec::Zstd, input),
        // A window of 8 MiB, regardless of the limit.
        allowance: |length| 3 * BODY_LIMIT + 24 * 1024 * KIB + 4 * length,
        seeds: || some_compressed(Codec::Zstd),
    },
];

fn frames(input: &[u8]) -> Outcome {
    let mut decoder = FrameDecoder::new();
    decoder.push(input);
    let mut last = Outcome::Nothing;
    loop {
        match decoder.next_command() {
            Ok(Some(command)) => {
                let shape = (command.encoding, command.flag & 3, command.remark.is_some(), command.body.is_empty());
                last = Outcome::Value(format!("{shape:?} {}", command.ext_fields.is_empty()));
            }
            Ok(None) => return last,
            Err(error) => return failed(&error),
        }
    }
}

macro_rules! read_all {
    ($fields:ident: $($header:ident)+) => {
        [$($header::from_fields(&$fields).map(|header| header.write_to(&mut ExtFields::new()))),+]
    };
}

/// Lines of `name=value`.
fn headers(input: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(input);
    let mut fields = ExtFields::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        fields.text(name, value);
    }
    let results: [Result<(), Error>; HEADERS] = read_all! { fields:
        SendMessageRequest SendMessageRequestV2 SendMessageResponse ConsumerSendMsgBackRequest
        EndTransactionRequest CheckTransactionStateRequest PushReplyMessageRequest RecallMessageRequest
        RecallMessageResponse PullMessageRequest PullMessageResponse QueryConsumerOffsetRequest
        UpdateConsumerOffsetRequest QueueRequest MaxOffsetRequest SearchOffsetRequest OffsetResponse
        EarliestStoreTimeResponse ViewMessageRequest QueryMessageRequest QueryMessageResponse PopMessageRequest
        PopMessageResponse AckMessageRequest ChangeInvisibleTimeRequest ChangeInvisibleTimeResponse
        PeekMessageRequest NotificationRequest NotificationResponse PollingInfoRequest PollingInfoResponse
        HeartbeatResponse UnregisterClientRequest GetConsumerListByGroupRequest NotifyConsumerIdsChangedRequest
        ResetOffsetRequest GetConsumerStatusRequest GetConsumerRunningInfoRequest ConsumeMessageDirectlyRequest
        GetRouteInfoRequest GetTopicsByClusterRequest KvConfigRequest KvConfigResponse PutKvConfigRequest
        KvListRequest WritePermissionRequest WipeWritePermissionResponse AddWritePermissionResponse
        CreateTopicRequest TopicRequest DeleteTopicInNameServerRequest DeleteSubscriptionGroupRequest
        GetSubscriptionGroupConfigRequest GetConsumeStatsRequest GetConsumerConnectionListRequest
        GetProducerConnectionListRequest GetBrokerConfigResponse InheritedFields AclFields
    };
    let read = results.iter().filter(|result| result.is_ok()).count();
    let errors: Vec<String> = results.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    Outcome::Value(format!("{} {}", "+".repeat(read), errors.last().cloned().unwrap_or_default()))
}

const HEADERS: usize = 59;

fn stored(input: &[u8]) -> Outcome {
    let bytes = Bytes::copy_from_slice(input);
    let (topic, broker): (Arc<str>, Arc<str>) = ("TopicTest".into(), "broker-a".into());
    let mut last = Outcome::Nothing;
    for message in stored_messages(&bytes, &topic, &broker) {
        match message {
            Ok(message) => {
                let properties = message.properties().iter().count().min(3);
                let ids = message.msg_id().len() + message.offset_msg_id().len();
                if let Some(defect) = defect_of(&message) {
                    last = Outcome::Error(defect.to_owned());
                    continue;
                }
                last =
                    Outcome::Value(format!("{} {ids}", ".".repeat(properties) + message.tag().map_or("", |_| "tag")));
            }
            Err(error) => last = failed(&error),
        }
    }
    last
}

fn batches(input: &[u8]) -> Outcome {
    match messages_of_batch(&Bytes::copy_from_slice(input)) {
        Ok(messages) if messages.is_empty() => Outcome::Nothing,
        Ok(messages) => {
            let mut rewritten = BytesMut::new();
            messages.iter().for_each(|message| message.encode(&mut rewritten).expect("what was read can be written"));
            Outcome::Value("+".repeat(messages.len().min(8)))
        }
        Err(error) => failed(&error),
    }
}

macro_rules! decode_all {
    ($input:ident: $($body:ident)+) => {
        [$(body::decode::<$body>("body", $input).and_then(|read| body::encode("body", &read))),+]
    };
}

/// An input that no body can be read from must be an error.
fn json_bodies(input: &[u8]) -> Outcome {
    let route = TopicRouteData::decode(input).map(|route| {
        let topic: Arc<str> = "T".into();
        let few = route.queue_datas.len() < 10;
        if few { route.read_queues(&topic).len().min(1) + route.write_queues(&topic).len().min(1) } else { 3 }
    });
    let results: [Result<Vec<u8>, Error>; 27] = decode_all! { input:
        BatchAckRequest CheckClientRequest ClusterInfo ConsumeMessageDirectlyResult ConsumeStats
        ConsumerConnection ConsumerList ConsumerOffsets ConsumerRunningInfo ConsumerStatusBody DataVersion
        GroupList HeartbeatData KvTable LockRequest LockResponse ProducerConnection QueryAssignmentRequest
        QueryAssignmentResponse ResetOffsetBody SetMessageRequestMode SubscriptionGroupConfig
        SubscriptionGroupTable TopicConfig TopicConfigTable TopicList TopicStatsTable
    };
    let read: String = results.iter().map(|result| if result.is_ok() { '+' } else { '-' }).collect();
    if read.contains('+') || route.is_ok() {
        return Outcome::Value(format!("{read} {:?}", route.ok()));
    }
    let error = results.into_iter().find_map(Result::err).expect("an error");
    Outcome::Error(error.to_string().chars().take(60).collect())
}

fn texts(input: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(input);
    let results = [
        rewritten::<OffsetMessageId>(&text),
        rewritten::<UniqueId>(&text),
        rewritten::<RecallHandle>(&text),
        rewritten::<Receipt>(&text),
        start_offsets(&text).map(drop),
        message_offsets(&text).map(drop),
        order_counts(&text).map(drop),
    ];
    let read: String = results.iter().map(|result| if result.is_ok() { '+' } else { '-' }).collect();
    if read.contains('+') { Outcome::Value(read) } else { Outcome::Error(format!("{results:?}")) }
}

/// Checks that a value is unchanged after writing and reading it again.
fn rewritten<T: FromStr<Err = Error> + ToString + PartialEq + Debug>(text: &str) -> Result<(), Error> {
    let value: T = text.parse()?;
    assert_eq!(value.to_string().parse().as_ref(), Ok(&value));
    Ok(())
}

fn tags(input: &[u8]) -> Outcome {
    let expression = String::from_utf8_lossy(input);
    match SubscriptionData::of_tags("T", &expression, 1) {
        Ok(subscription) => {
            assert!(subscription.tags_set.iter().all(|tag| subscription.wants(Some(tag))));
            Outcome::Value("+".repeat(subscription.tags_set.len().min(8)))
        }
        Err(error) => failed(&error),
    }
}

fn restored(codec: Codec, input: &[u8]) -> Outcome {
    match decompress(codec, input, BODY_LIMIT) {
        Ok(body) => {
            assert!(body.len() <= BODY_LIMIT);
            Outcome::Value(format!("{}", body.is_empty()))
        }
        Err(error) => failed(&error),
    }
}

fn failed(error: &Error) -> Outcome {
    Outcome::Error(error.to_string())
}

fn some_frames() -> Vec<Vec<u8>> {
    let send = SendMessageRequestV2 {
        producer_group: "PG",
        topic: "TopicTest",
        default_topic: "TBW102",
        properties: Some("TAGS\u{1}TagA\u{2}"),
        ..SendMessageRequestV2::default()
    };
    let pulled = PullMessageResponse { next_begin_offset: 7, max_offset: 9, ..PullMessageResponse::default() };
    let request = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, &send).with_body("hello");
    let mut commands = vec![
        RemotingCommand::response_to(&request, ResponseCode::SUCCESS, Some("FOUND \"标签\"".to_owned()))
            .with_fields(&pulled)
            .with_body(vec![b'x'; 300]),
        RemotingCommand::response_to(&request, ResponseCode::SYSTEM_ERROR, None),
        RemotingCommand::request(RequestCode::HEART_BEAT, &()).oneway(),
        request,
    ];
    let mut all = Vec::new();
    for encoding in [HeaderEncoding::Json, HeaderEncoding::RocketMq] {
        for command in &mut commands {
            command.encoding = encoding;
            let mut frame = Vec::new();
            command.encode(&mut frame).expect("a frame");
            all.push(frame);
        }
    }
    all.push(all.concat());
    all
}

fn some_headers() -> Vec<Vec<u8>> {
    let mut names: Vec<String> = Vec::new();
    let known: serde_json::Value = serde_json::from_str(include_str!("../data/header-fields.json")).expect("JSON");
    for header in known.as_object().expect("headers").values() {
        let fields = header["fields"].as_object().expect("fields").iter();
        let value = |kind: &str| if kind.starts_with("truth") { "true" } else { "7" };
        names.push(fields.map(|(name, kind)| format!("{name}={}\n", value(kind.as_str().expect("a kind")))).collect());
    }
    names.into_iter().map(String::into_bytes).collect()
}

/// Sequences of stored messages; the corpus contains single valid messages.
fn some_stored() -> Vec<Vec<u8>> {
    let known = hostile().into_iter().find(|item| item.name == "a message as it should be").expect("a message");
    let bytes = Bytes::from(known.bytes.expand());
    let (topic, broker): (Arc<str>, Arc<str>) = ("TopicTest".into(), "broker-a".into());
    let message = stored_messages(&bytes, &topic, &broker).next().expect("a message").expect("a good one");
    let mut row = BytesMut::new();
    for host in ["10.0.0.1:10911", "[2001:db8::1]:10911"] {
        let message =
            rebuilt(message.message().clone(), &message).store_host(host.parse().expect("an address")).build();
        encode_stored(&message, &mut row).expect("a message");
    }
    let wrapping = Message::new("TopicTest", some_batches().remove(0));
    let message = rebuilt(wrapping, &message).sys_flag(NEED_UNWRAP | INNER_BATCH).build();
    let mut wrapped = BytesMut::new();
    encode_stored(&message, &mut wrapped).expect("a message");
    vec![row.to_vec(), wrapped.to_vec(), bytes.to_vec()]
}

/// The position, times and hosts of `message` around another sender's part.
fn rebuilt(sent: Message, message: &MessageExt) -> MessageExtBuilder {
    MessageExt::builder(sent)
        .queue(message.broker_name(), message.queue_id())
        .queue_offset(message.queue_offset())
        .commit_log_offset(message.commit_log_offset())
        .born_at(message.born_at())
        .born_host(message.born_host())
        .stored_at(message.stored_at())
        .store_host(message.store_host())
        .reconsume_times(message.reconsume_times())
        .sys_flag(message.sys_flag())
}

fn some_batches() -> Vec<Vec<u8>> {
    let known = hostile().into_iter().find(|item| item.name == "two as they should be").expect("a batch");
    vec![known.bytes.expand()]
}

fn some_texts() -> Vec<Vec<u8>> {
    const TEXTS: [&str; 8] = [
        "C0A8010A00002A9F0000000000100000",
        "20010DB800000000000000000000000112342A139A554A3E5900002A",
        "djEgVG9waWNUZXN0IGJyb2tlci1hIDE3NTc5MzQwMDAwMDAgQzBBODAxMEExMjM0MkExMzlBNTU0QTNFNTkwMDAwMkE=",
        "5 1757930400000 60000 2 0 broker-a 3 7",
        "5 1757930400000 60000 999 2 broker-a 3 7 4096",
        "0 0 100;0 1 250;1 0 7",
        "0 0 100,101,103;1 0 7",
        "0 0 1;0 qo0%1234 2",
    ];
    TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn some_tags() -> Vec<Vec<u8>> {
    ["TagA", "TagA || TagB||标签", "*", "", "Aa||BB"].iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn some_compressed(codec: Codec) -> Vec<Vec<u8>> {
    let text: Vec<u8> = (0..200_u32).flat_map(|i| format!("line {i} of {}\n", i * 7919).into_bytes()).collect();
    let bodies = [Vec::new(), b"hello".to_vec(), vec![b'x'; 100_000], text];
    bodies.iter().filter_map(|body| compress(codec, DEFAULT_LEVEL, body).ok()).collect()
}
