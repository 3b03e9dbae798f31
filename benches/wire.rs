//! Cost of the wire layer on the paths of a sent and of a consumed message; no I/O.
//!
//! `cargo bench --bench wire`, or with a part of a name after `--`.

#![allow(clippy::expect_used, reason = "a bench ends at once where something is not as it should be")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rocketmq_sync::Message;
use rocketmq_sync::unversioned::wire::body::TopicRouteData;
use rocketmq_sync::unversioned::wire::frame::command::FrameHead;
use rocketmq_sync::unversioned::wire::header::{PullMessageResponse, SendMessageRequestV2, SendMessageResponse};
use rocketmq_sync::unversioned::wire::stored::compression::{Codec, DEFAULT_LEVEL, compress, decompress};
use rocketmq_sync::unversioned::wire::stored::message::stored_messages;
use rocketmq_sync::unversioned::wire::stored::message_id::UniqueId;
use rocketmq_sync::unversioned::wire::{
    FrameDecoder, HeaderEncoding, HeaderFields, LanguageCode, RemotingCommand, RequestCode, ResponseCode,
};

const ENCODINGS: [(HeaderEncoding, &str); 2] = [(HeaderEncoding::Json, "json"), (HeaderEncoding::RocketMq, "binary")];
const PROPERTIES: &str =
    "KEYS\u{1}order-123456\u{2}UNIQ_KEY\u{1}C0A8010A12342A139A554A3E5900002A\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA\u{2}";
const BODY_LENGTH: usize = 1024;
const MESSAGES_PER_PULL: usize = 32;

fn sending(c: &mut Criterion) {
    let mut group = c.benchmark_group("send");
    let body = Bytes::from(vec![b'x'; BODY_LENGTH]);
    group.bench_function("make a message", |b| {
        let topic: Arc<str> = "TopicTest".into();
        b.iter(|| Message::new(Arc::clone(&topic), body.clone()).with_tag("TagA").with_key("order-123456"));
    });
    group.bench_function("write a unique id", |b| {
        let id: UniqueId = "C0A8010A12342A139A554A3E5900002A".parse().expect("an id");
        let mut text = String::with_capacity(64);
        b.iter(|| {
            text.clear();
            black_box(&id).write_to(&mut text);
            text.len()
        });
    });
    for (encoding, name) in ENCODINGS {
        let head = FrameHead::request(encoding, RequestCode::SEND_MESSAGE_V2, 123_456, false);
        let mut out = Vec::with_capacity(64 * 1024);
        group.bench_function(format!("encode the request, {name}"), |b| {
            b.iter(|| {
                out.clear();
                head.encode(black_box(&send_request()), body.len(), &mut out).expect("a frame");
                out.extend_from_slice(&body);
                out.len()
            });
        });
        let response = frame(encoding, &send_response(), Bytes::new());
        group.bench_function(format!("decode the response, {name}"), |b| {
            let mut decoder = FrameDecoder::new();
            b.iter(|| {
                decoder.push(black_box(&response));
                let command = decoder.next_command().expect("a frame").expect("a whole frame");
                SendMessageResponse::from_fields(&command.ext_fields).expect("a header").queue_offset
            });
        });
    }
    group.finish();
}

fn consuming(c: &mut Criterion) {
    let mut group = c.benchmark_group("pull");
    let topic: Arc<str> = "TopicTest".into();
    let broker_name: Arc<str> = "broker-a".into();
    let stored: Bytes = (0..MESSAGES_PER_PULL).flat_map(|_| stored_message()).collect();
    group.throughput(Throughput::Elements(MESSAGES_PER_PULL as u64));
    for (encoding, name) in ENCODINGS {
        let reply = frame(encoding, &PullMessageResponse::default(), stored.clone());
        group.bench_function(format!("decode the reply's frame, {name}"), |b| {
            // Copying into the decoder's buffer replaces the read from the socket.
            let pushed = || {
                let mut decoder = FrameDecoder::new();
                decoder.push(&reply);
                decoder
            };
            let read = |mut decoder: FrameDecoder| {
                let command = decoder.next_command().expect("a frame").expect("a whole frame");
                let header = PullMessageResponse::from_fields(&command.ext_fields).expect("a header");
                (header, command.body)
            };
            b.iter_batched(pushed, read, BatchSize::LargeInput);
        });
    }
    group.bench_function("decode its messages", |b| {
        b.iter(|| {
            stored_messages(black_box(&stored), &topic, &broker_name)
                .map(|message| message.expect("a message").queue_offset())
                .sum::<i64>()
        });
    });
    group.bench_function("decode its messages and look at their tags", |b| {
        b.iter(|| {
            stored_messages(black_box(&stored), &topic, &broker_name)
                .filter(|message| message.as_ref().is_ok_and(|message| message.tag() == Some("TagA")))
                .count()
        });
    });
    group.finish();

    let mut group = c.benchmark_group("properties");
    let message = stored_messages(&stored, &topic, &broker_name).next().expect("one").expect("a message");
    group.bench_function("find the last", |b| b.iter(|| black_box(&message).tag()));
    group.bench_function("find none", |b| b.iter(|| black_box(&message).property("RETRY_TOPIC")));
    group.finish();
}

fn bodies(c: &mut Criterion) {
    let mut group = c.benchmark_group("body");
    let text: Vec<u8> = (0..400).flat_map(|i| format!("order {i} of customer {}\n", i * 7919).into_bytes()).collect();
    group.throughput(Throughput::Bytes(text.len() as u64));
    for codec in [Codec::Zlib, Codec::Lz4, Codec::Zstd].into_iter().filter(|codec| codec.is_built()) {
        let compressed = compress(codec, DEFAULT_LEVEL, &text).expect("a built codec");
        group.bench_function(format!("compress 10 KiB, {}", codec.name()), |b| {
            b.iter(|| compress(codec, DEFAULT_LEVEL, black_box(&text)));
        });
        group.bench_function(format!("decompress 10 KiB, {}", codec.name()), |b| {
            b.iter(|| decompress(codec, black_box(&compressed), 4 * 1024 * 1024));
        });
    }
    group.finish();

    let mut group = c.benchmark_group("route");
    let route = br#"{"brokerDatas":[{"brokerAddrs":{0:"10.0.0.1:10911",1:"10.0.0.2:10911"},"brokerName":"broker-a",
        "cluster":"c"}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":8,
        "topicSysFlag":0,"writeQueueNums":8}]}"#;
    group.bench_function("decode fastjson", |b| b.iter(|| TopicRouteData::decode(black_box(route))));
    group.finish();
}

fn send_request() -> SendMessageRequestV2<'static> {
    SendMessageRequestV2 {
        producer_group: "orders",
        topic: "TopicTest",
        default_topic: "TBW102",
        default_topic_queue_nums: 4,
        queue_id: 3,
        sys_flag: 0,
        born_timestamp: 1_757_930_400_000,
        flag: 0,
        properties: Some(PROPERTIES),
        reconsume_times: Some(0),
        unit_mode: Some(false),
        max_reconsume_times: None,
        batch: Some(false),
        broker_name: Some("broker-a"),
    }
}

fn send_response() -> SendMessageResponse<'static> {
    SendMessageResponse {
        msg_id: "C0A8010A00002A9F0000000000100000",
        queue_id: 3,
        queue_offset: 1_234_567,
        transaction_id: Some("C0A8010A12342A139A554A3E5900002A"),
        region_id: Some("DefaultRegion"),
        trace_on: Some(true),
        ..SendMessageResponse::default()
    }
}

fn frame(encoding: HeaderEncoding, header: &dyn HeaderFields, body: Bytes) -> Bytes {
    let mut request = RemotingCommand::request(RequestCode::PULL_MESSAGE, &());
    request.encoding = encoding;
    let mut response = RemotingCommand::response_to(&request, ResponseCode::SUCCESS, None).with_fields(header);
    response.language = LanguageCode::JAVA;
    let mut out = Vec::new();
    response.with_body(body).encode(&mut out).expect("a frame");
    out.into()
}

/// Encodes a message as a broker stores it, between two IPv4 addresses.
fn stored_message() -> Vec<u8> {
    let topic = "TopicTest";
    let mut rest = Vec::new();
    rest.put_u32(0xDAA3_20A7);
    rest.put_bytes(0, 3 * 4);
    rest.put_i64(5);
    rest.put_i64(1_048_576);
    rest.put_i32(0);
    rest.put_i64(1_757_930_400_000);
    rest.put_slice(&[192, 168, 1, 20, 0, 0, 200, 34]);
    rest.put_i64(1_757_930_400_005);
    rest.put_slice(&[192, 168, 1, 10, 0, 0, 42, 159]);
    rest.put_bytes(0, 4 + 8);
    rest.put_u32(u32::try_from(BODY_LENGTH).expect("a body"));
    rest.put_bytes(b'x', BODY_LENGTH);
    rest.put_u8(u8::try_from(topic.len()).expect("a topic"));
    rest.put_slice(topic.as_bytes());
    rest.put_u16(u16::try_from(PROPERTIES.len()).expect("properties"));
    rest.put_slice(PROPERTIES.as_bytes());
    let size = u32::try_from(rest.len() + 4).expect("a message");
    [&size.to_be_bytes(), &rest[..]].concat()
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = sending, consuming, bodies
}
criterion_main!(benches);
