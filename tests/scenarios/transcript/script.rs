//! Requests of the script. Names are fixed: a script runs once on a new cluster.

use std::time::Duration;

use rocketmq_sync::unversioned::wire::{HeaderEncoding, RemotingCommand, RequestCode, ResponseCode};

use super::super::raw::{fields, topic_settings};
use super::super::{Cluster, eventually};
use super::Peer::{Broker, NameServer};
use super::Recorder;

const TOPIC: &str = "TranscriptTopic";
const GROUP: &str = "TranscriptGroup";
const MEMBER: &str = "127.0.0.1@transcript";
/// Two queues, so that one stays empty.
const QUEUES: u32 = 2;

pub(super) fn strict(recorder: &mut Recorder, cluster: &dyn Cluster) {
    topics(recorder, cluster);
    routes(recorder);
    sends(recorder, cluster);
    batches(recorder);
    refused_sends(recorder);
    queue_offsets(recorder);
    pulls(recorder);
    refused_pulls(recorder);
    long_polls(recorder);
    consumer_offsets(recorder);
    views(recorder);
    members(recorder);
    send_backs(recorder, cluster);
    retry_sends(recorder, cluster);
    unregistration(recorder);
    wrong_requests(recorder);
}

pub(super) fn auto_create(recorder: &mut Recorder) {
    let topic = "TranscriptAutoCreated";
    recorder.ask("route of the topic that new ones are made from", NameServer, route("TBW102", true));
    recorder.ask("send to a new topic", Broker, send_with(topic, 0, "hello", &[("d", "3")]));
    recorder.ask("queue beyond those asked for", Broker, send(topic, 3, "hello"));
    eventually("the new topic has a route", || {
        recorder.ask_unlisted(NameServer, route(topic, true)).response_code() == ResponseCode::SUCCESS
    });
    recorder.ask("route of the new topic", NameServer, route(topic, true));
    recorder.ask("new topic from an unknown one", Broker, send_with("TranscriptNoDefault", 0, "x", &[("c", "Nope")]));
    recorder.ask("new topic from an ordinary one", Broker, send_with("TranscriptFromOther", 0, "x", &[("c", topic)]));
}

fn topics(recorder: &mut Recorder, cluster: &dyn Cluster) {
    let create = |topic: &str, queues: u32, permission: u32| {
        let settings = topic_settings(topic, queues, queues, permission, false);
        RemotingCommand::request(RequestCode::UPDATE_AND_CREATE_TOPIC, &settings)
    };
    recorder.ask("create a topic", Broker, create(TOPIC, 1, 6));
    recorder.ask("change a topic", Broker, create(TOPIC, QUEUES, 6));
    recorder.ask("create a topic for reading only", Broker, create("TranscriptReadOnly", 1, 4));
    recorder.ask("create a topic for writing only", Broker, create("TranscriptWriteOnly", 1, 2));
    recorder.ask("create a topic with one queue", Broker, create("TranscriptOneQueue", 1, 6));
    recorder.ask("create a topic for batches", Broker, create("TranscriptBatches", 1, 6));
    recorder.ask("create a topic with a bad name", Broker, create("Bad name!", 1, 6));
    recorder.ask("create a topic with the longest name", Broker, create(&"L".repeat(127), 1, 6));
    recorder.ask("create a topic with too long a name", Broker, create(&"L".repeat(128), 1, 6));
    recorder.ask("create a topic of the system", Broker, create("SCHEDULE_TOPIC_XXXX", 1, 6));
    cluster.create_topic(TOPIC, QUEUES);
}

fn routes(recorder: &mut Recorder) {
    recorder.ask("route of an unknown topic", NameServer, route("TranscriptUnknown", true));
    recorder.ask("route in standard JSON", NameServer, route(TOPIC, true));
    recorder.ask("route in fastjson's JSON", NameServer, route(TOPIC, false));
    recorder.ask("route, binary header", NameServer, binary(route(TOPIC, true)));
    recorder.ask("cluster", NameServer, request(RequestCode::GET_BROKER_CLUSTER_INFO, &[]));
    recorder.ask("cluster, asked of a broker", Broker, request(RequestCode::GET_BROKER_CLUSTER_INFO, &[]));
    recorder.ask("route, asked of a broker", Broker, route(TOPIC, true));
}

fn sends(recorder: &mut Recorder, cluster: &dyn Cluster) {
    let tagged =
        [("i", "UNIQ_KEY\u{1}7F00000100010000000000000001\u{2}TAGS\u{1}A\u{2}KEYS\u{1}k1 k2\u{2}WAIT\u{1}true")];
    recorder.ask("send", Broker, send_with(TOPIC, 0, "first", &tagged));
    recorder.ask("send, binary header", Broker, binary(send_with(TOPIC, 0, "second", &[("i", "TAGS\u{1}B\u{2}")])));
    recorder.ask("send, long header", Broker, send_in_v1(TOPIC, 0, "third"));
    recorder.ask(
        "send with a flag and a broker name",
        Broker,
        send_with(TOPIC, 0, "fourth", &[("h", "7"), ("n", "broker-a")]),
    );
    recorder.ask("send without properties", Broker, send_with(TOPIC, 0, "fifth", &[("i", "")]));
    recorder.ask("send to any queue", Broker, send("TranscriptOneQueue", -1, "any"));
    recorder.ask("send to a topic for reading only", Broker, send("TranscriptReadOnly", 0, "read only"));
    recorder.ask("send to a topic for writing only", Broker, send("TranscriptWriteOnly", 0, "write only"));
    recorder.ask("send with the largest body", Broker, send(TOPIC, 1, "x".repeat(64 * 1024)));
    recorder.send(Broker, send("TranscriptOneQueue", 0, "one-way").oneway());
    for (topic, queue, offset) in
        [(TOPIC, 0, 5), (TOPIC, 1, 1), ("TranscriptReadOnly", 0, 1), ("TranscriptOneQueue", 0, 2)]
    {
        await_offset(cluster, topic, queue, offset);
    }
    recorder.ask(
        "max offset after a one-way send",
        Broker,
        queue(RequestCode::GET_MAX_OFFSET, "TranscriptOneQueue", 0),
    );
}

/// Uses its own topic: a server may not support batches.
fn batches(recorder: &mut Recorder) {
    let batch = stored_form(&[("b1", "TAGS\u{1}A\u{2}"), ("b2", "")]);
    let batch = send_with("TranscriptBatches", 0, batch, &[("m", "true")]);
    let batch = RemotingCommand { code: RequestCode::SEND_BATCH_MESSAGE.0, ..batch };
    let sent = recorder.ask("send a batch", Broker, batch);
    if sent.response_code() == ResponseCode::SUCCESS {
        let mut all = || recorder.ask_unlisted(Broker, queue(RequestCode::GET_MAX_OFFSET, "TranscriptBatches", 0));
        eventually("the batch is counted", || all().ext_fields.get("offset") == Some("2"));
    }
    recorder.ask("pull a batch", Broker, pull("TranscriptBatches", 0, &[("queueOffset", "0")]));
}

fn refused_sends(recorder: &mut Recorder) {
    recorder.ask("send to an unknown topic", Broker, send("TranscriptUnknown", 0, "x"));
    recorder.ask("send to an unknown queue", Broker, send(TOPIC, 99, "x"));
    recorder.ask("send to the queue after the last", Broker, send(TOPIC, 2, "x"));
    recorder.ask("send to a bad topic name", Broker, send("Bad name!", 0, "x"));
    recorder.ask("send to too long a topic name", Broker, send(&"L".repeat(128), 0, "x"));
    recorder.ask("send too large a body", Broker, send(TOPIC, 0, "x".repeat(64 * 1024 + 1)));
    recorder.ask("send to a topic of the system", Broker, send("SCHEDULE_TOPIC_XXXX", 0, "x"));
    recorder.ask(
        "send without a topic",
        Broker,
        request(RequestCode::SEND_MESSAGE_V2, &[("a", "p"), ("e", "0")]).with_body("x"),
    );
    recorder.ask("send to an unknown topic, binary header", Broker, binary(send("TranscriptUnknown", 0, "x")));
}

fn queue_offsets(recorder: &mut Recorder) {
    for (code, name) in [
        (RequestCode::GET_MAX_OFFSET, "max offset"),
        (RequestCode::GET_MIN_OFFSET, "min offset"),
        (RequestCode::GET_EARLIEST_MSG_STORETIME, "earliest store time"),
    ] {
        recorder.ask(name, Broker, queue(code, TOPIC, 0));
        recorder.ask(&format!("{name} of an empty queue"), Broker, queue(code, "TranscriptEmpty", 0));
        recorder.ask(&format!("{name} of an unknown queue"), Broker, queue(code, TOPIC, 99));
        recorder.ask(&format!("{name} of an unknown topic"), Broker, queue(code, "TranscriptUnknown", 0));
        recorder.ask(&format!("{name}, binary header"), Broker, binary(queue(code, TOPIC, 0)));
    }
    let search = |topic: &str, queue: &str, timestamp: &str| {
        let header = [("topic", topic), ("queueId", queue), ("timestamp", timestamp)];
        request(RequestCode::SEARCH_OFFSET_BY_TIMESTAMP, &header)
    };
    recorder.ask("offset by time, before all", Broker, search(TOPIC, "0", "0"));
    recorder.ask("offset by time, after all", Broker, search(TOPIC, "0", "9999999999999"));
    recorder.ask("offset by time, unknown queue", Broker, search(TOPIC, "99", "0"));
    recorder.ask("offset by time, unknown topic", Broker, search("TranscriptUnknown", "0", "0"));
}

fn pulls(recorder: &mut Recorder) {
    let mut ask = |step: &str, fields: &[(&str, &str)]| {
        recorder.ask(step, Broker, pull(TOPIC, 0, fields));
    };
    ask("pull all", &[("queueOffset", "0")]);
    ask("pull two", &[("queueOffset", "1"), ("maxMsgNums", "2")]);
    ask("pull one tag", &[("queueOffset", "0"), ("subscription", "B")]);
    ask("pull two tags", &[("queueOffset", "0"), ("subscription", "A || B")]);
    ask("pull one tag behind its last message", &[("queueOffset", "2"), ("subscription", "B")]);
    ask("pull an unknown tag", &[("queueOffset", "0"), ("subscription", "C")]);
    ask("pull a broken expression", &[("queueOffset", "0"), ("subscription", "||")]);
    ask("pull at the end", &[("queueOffset", "5")]);
    ask("pull behind the end", &[("queueOffset", "6")]);
    ask("pull before the begin", &[("queueOffset", "-1")]);
    recorder.ask("pull, binary header", Broker, binary(pull(TOPIC, 0, &[("queueOffset", "4")])));
    recorder.ask("pull the largest message", Broker, pull(TOPIC, 1, &[("queueOffset", "1")]));
    recorder.ask("pull from a topic for reading only", Broker, pull("TranscriptReadOnly", 0, &[("queueOffset", "0")]));
    recorder.ask("pull from an empty queue", Broker, pull(&"L".repeat(127), 0, &[("queueOffset", "0")]));
    recorder.ask("pull behind the end of an empty queue", Broker, pull(&"L".repeat(127), 0, &[("queueOffset", "3")]));
}

fn refused_pulls(recorder: &mut Recorder) {
    let at_begin = [("queueOffset", "0")];
    recorder.ask("pull from an unknown queue", Broker, pull(TOPIC, 99, &at_begin));
    recorder.ask("pull from an unknown topic", Broker, pull("TranscriptUnknown", 0, &at_begin));
    recorder.ask("pull from a topic for writing only", Broker, pull("TranscriptWriteOnly", 0, &at_begin));
    let unsubscribed = [("queueOffset", "0"), ("sysFlag", "0"), ("consumerGroup", "TranscriptAbsent")];
    recorder.ask("pull of a group without members", Broker, pull(TOPIC, 0, &unsubscribed));
    let sql = [("queueOffset", "0"), ("expressionType", "SQL92"), ("subscription", "a > 1")];
    recorder.ask("pull by SQL where it is off", Broker, pull(TOPIC, 0, &sql));
}

fn long_polls(recorder: &mut Recorder) {
    // Bits 1 and 2: may be held, contains its subscription.
    let held = [("queueOffset", "5"), ("sysFlag", "6"), ("suspendTimeoutMillis", "20000")];
    let request = pull(TOPIC, 0, &held);
    let opaque = recorder.send(Broker, request.clone());
    recorder.ask("send into a held pull", Broker, send(TOPIC, 0, "sixth"));
    let answer = recorder.note_answer("held pull, a message comes", Broker, &request, opaque, Duration::from_secs(30));
    assert!(answer.is_some(), "a held pull gets an answer");
    let brief = [("queueOffset", "6"), ("sysFlag", "6"), ("suspendTimeoutMillis", "1000")];
    recorder.ask("held pull, no message comes", Broker, pull(TOPIC, 0, &brief));
}

fn consumer_offsets(recorder: &mut Recorder) {
    let query = |group: &str, topic: &str, more: &[(&str, &str)]| {
        let header = [("consumerGroup", group), ("topic", topic), ("queueId", "0")];
        request(RequestCode::QUERY_CONSUMER_OFFSET, &header).with_fields(&fields(more))
    };
    let update = |group: &str, topic: &str, offset: &str| {
        let header = [("consumerGroup", group), ("topic", topic), ("queueId", "0"), ("commitOffset", offset)];
        request(RequestCode::UPDATE_CONSUMER_OFFSET, &header)
    };
    let no_zero = [("setZeroIfNotFound", "false")];
    recorder.ask("offset of an unknown group", Broker, query("TranscriptNew", TOPIC, &[]));
    recorder.ask("offset of an unknown group, not zero", Broker, query("TranscriptNew", TOPIC, &no_zero));
    recorder.ask("offset in an unknown topic", Broker, query("TranscriptNew", "TranscriptUnknown", &[]));
    recorder.ask("offset in an unknown topic, not zero", Broker, query("TranscriptNew", "TranscriptUnknown", &no_zero));
    recorder.ask("offset in an empty queue", Broker, query("TranscriptNew", &"L".repeat(127), &[]));
    recorder.ask("commit for an unknown group", Broker, update("TranscriptNew", TOPIC, "1"));
    recorder.ask("create a group", Broker, create_group(GROUP));
    recorder.ask("offset of a new group", Broker, query(GROUP, TOPIC, &no_zero));
    recorder.ask("commit", Broker, update(GROUP, TOPIC, "3"));
    recorder.ask("offset after a commit", Broker, query(GROUP, TOPIC, &[]));
    recorder.ask("offset after a commit, not zero", Broker, binary(query(GROUP, TOPIC, &no_zero)));
    recorder.ask("commit a smaller offset", Broker, update(GROUP, TOPIC, "2"));
    recorder.ask("offset after a smaller commit", Broker, query(GROUP, TOPIC, &[]));
    recorder.ask("commit in an unknown topic", Broker, update(GROUP, "TranscriptUnknown", "1"));
    let riding = [("queueOffset", "4"), ("sysFlag", "5"), ("commitOffset", "4")];
    recorder.ask("pull that commits", Broker, pull(TOPIC, 0, &riding));
    recorder.ask("offset after a pull that commits", Broker, query(GROUP, TOPIC, &[]));
}

fn views(recorder: &mut Recorder) {
    let sent = recorder.ask("send to view", Broker, send("TranscriptOneQueue", 0, "viewed"));
    let view =
        |offset: &str| request(RequestCode::VIEW_MESSAGE_BY_ID, &[("offset", offset), ("topic", "TranscriptOneQueue")]);
    let answer = recorder.ask_unlisted(Broker, view(&commit_log_offset(&sent)));
    recorder.note("view", Broker, &view("<its offset>"), &answer);
    recorder.ask("view at an unknown offset", Broker, view("999999999"));
}

fn members(recorder: &mut Recorder) {
    let list = |group: &str| request(RequestCode::GET_CONSUMER_LIST_BY_GROUP, &[("consumerGroup", group)]);
    recorder.ask("members before a heartbeat", Broker, list(GROUP));
    recorder.ask("members of an unknown group", Broker, list("TranscriptUnknown"));
    recorder.ask(
        "heartbeat of a producer",
        Broker,
        heartbeat(r#""producerDataSet":[{"groupName":"TranscriptProducer"}]"#),
    );
    let consumer = format!(
        r#""consumerDataSet":[{{"groupName":"{GROUP}","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","unitMode":false,"subscriptionDataSet":[{{"topic":"{TOPIC}","subString":"A","tagsSet":["A"],"codeSet":[65],"subVersion":10,"expressionType":"TAG","classFilterMode":false}}]}}]"#
    );
    recorder.ask("heartbeat of a consumer", Broker, heartbeat(&consumer));
    recorder.ask("members", Broker, list(GROUP));
    recorder.ask("members, binary header", Broker, binary(list(GROUP)));
    let subscribed = [("queueOffset", "0"), ("sysFlag", "0"), ("subVersion", "10")];
    recorder.ask("pull by the heartbeat's subscription", Broker, pull(TOPIC, 0, &subscribed));
    let newer = [("queueOffset", "0"), ("sysFlag", "0"), ("subVersion", "11")];
    recorder.ask("pull by a newer subscription", Broker, pull(TOPIC, 0, &newer));
    recorder.ask("pull from a topic not subscribed", Broker, pull("TranscriptOneQueue", 0, &subscribed));
    recorder.ask("pull with an expression beside the subscription", Broker, pull(TOPIC, 0, &[("queueOffset", "0")]));
}

fn send_backs(recorder: &mut Recorder, cluster: &dyn Cluster) {
    let sent = recorder.ask("send to send back", Broker, send(TOPIC, 0, "sent back"));
    let offset = commit_log_offset(&sent);
    let send_back = |offset: &str, group: &str, level: &str, most: &str| {
        let header = [
            ("offset", offset),
            ("group", group),
            ("delayLevel", level),
            ("originMsgId", "7F00000100010000000000000002"),
            ("originTopic", TOPIC),
            ("unitMode", "false"),
            ("maxReconsumeTimes", most),
        ];
        request(RequestCode::CONSUMER_SEND_MSG_BACK, &header)
    };
    let retry = format!("%RETRY%{GROUP}");
    let dead = format!("%DLQ%{GROUP}");
    let mut ask = |step: &str, group: &str, level: &str, most: &str| {
        let answer = recorder.ask_unlisted(Broker, send_back(&offset, group, level, most));
        recorder.note(step, Broker, &send_back("<its offset>", group, level, most), &answer);
    };
    ask("send back", GROUP, "0", "16");
    ask("send back as often as allowed", GROUP, "0", "0");
    ask("send back to the dead letters", GROUP, "-1", "16");
    ask("send back in an unknown group", "TranscriptNobody", "0", "16");
    recorder.ask("send back an unknown message", Broker, send_back("999999999", GROUP, "0", "16"));
    await_offset(cluster, &retry, 0, 1);
    await_offset(cluster, &dead, 0, 2);
    recorder.ask("pull what came back", Broker, pull(&retry, 0, &[("queueOffset", "0")]));
    recorder.ask("pull the dead letters", Broker, pull(&dead, 0, &[("queueOffset", "0")]));
    recorder.ask("send back, binary header", Broker, binary(send_back("999999999", GROUP, "0", "16")));
}

fn retry_sends(recorder: &mut Recorder, cluster: &dyn Cluster) {
    let retry = format!("%RETRY%{GROUP}");
    let dead = format!("%DLQ%{GROUP}");
    let again = |times: &str, most: &str| {
        let properties = format!("RETRY_TOPIC\u{1}{TOPIC}\u{2}ORIGIN_MESSAGE_ID\u{1}7F00000100010000000000000003\u{2}");
        send_with(&retry, 0, "again", &[("i", &properties), ("j", times), ("l", most)])
    };
    recorder.ask("send to the retry topic", Broker, again("1", "16"));
    await_offset(cluster, &retry, 0, 2);
    recorder.ask("pull what was sent to the retry topic", Broker, pull(&retry, 0, &[("queueOffset", "1")]));
    recorder.ask("send to the retry topic, once more than allowed", Broker, again("3", "2"));
    await_offset(cluster, &dead, 0, 3);
    recorder.ask("pull what was sent once too often", Broker, pull(&dead, 0, &[("queueOffset", "2")]));
    recorder.ask("send to the retry topic of an unknown group", Broker, send("%RETRY%TranscriptNone", 0, "x"));
}

fn unregistration(recorder: &mut Recorder) {
    let header = [("clientID", MEMBER), ("consumerGroup", GROUP)];
    recorder.ask("unregister", Broker, request(RequestCode::UNREGISTER_CLIENT, &header));
    recorder.ask("unregister again", Broker, request(RequestCode::UNREGISTER_CLIENT, &header));
    let list = request(RequestCode::GET_CONSUMER_LIST_BY_GROUP, &[("consumerGroup", GROUP)]);
    recorder.ask("members after the last has left", Broker, list);
}

fn wrong_requests(recorder: &mut Recorder) {
    let unknown = request(RequestCode(9999), &[]);
    recorder.ask("unknown code", Broker, unknown.clone());
    recorder.ask("unknown code, binary header", Broker, binary(unknown.clone()));
    recorder.ask("missing field", Broker, request(RequestCode::GET_MAX_OFFSET, &[("topic", TOPIC)]));
    recorder.ask(
        "field that is no number",
        Broker,
        request(RequestCode::GET_MAX_OFFSET, &[("topic", TOPIC), ("queueId", "x")]),
    );
    recorder.ask("heartbeat without a body", Broker, request(RequestCode::HEART_BEAT, &[]));
    recorder.ask("route without a topic", NameServer, request(RequestCode::GET_ROUTEINFO_BY_TOPIC, &[]));
    // The last of all: a 4.9 name server does not answer it.
    let opaque = recorder.send(NameServer, unknown.clone());
    recorder.note_answer("unknown code at a name server", NameServer, &unknown, opaque, Duration::from_secs(3));
}

/// A broker answers a send before the message is in its queue.
fn await_offset(cluster: &dyn Cluster, topic: &str, queue: i32, offset: i64) {
    let broker = &cluster.brokers()[0].name;
    eventually(&format!("{topic}/{queue} reaches {offset}"), || cluster.max_offset(broker, topic, queue) == offset);
}

fn request(code: RequestCode, header: &[(&str, &str)]) -> RemotingCommand {
    RemotingCommand::request(code, &fields(header))
}

fn binary(request: RemotingCommand) -> RemotingCommand {
    RemotingCommand { encoding: HeaderEncoding::RocketMq, ..request }
}

fn route(topic: &str, standard: bool) -> RemotingCommand {
    let all = [("topic", topic), ("acceptStandardJsonOnly", "true")];
    request(RequestCode::GET_ROUTEINFO_BY_TOPIC, if standard { &all } else { &all[..1] })
}

fn queue(code: RequestCode, topic: &str, queue: i32) -> RemotingCommand {
    request(code, &[("topic", topic), ("queueId", &queue.to_string())])
}

fn send(topic: &str, queue: i32, body: impl Into<bytes::Bytes>) -> RemotingCommand {
    send_with(topic, queue, body, &[])
}

/// Send with the short header, some of its fields replaced or added.
fn send_with(topic: &str, queue: i32, body: impl Into<bytes::Bytes>, other: &[(&str, &str)]) -> RemotingCommand {
    let queue = queue.to_string();
    let header = [
        ("a", "TranscriptProducer"),
        ("b", topic),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", &queue),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("i", "UNIQ_KEY\u{1}7F00000100010000000000000002\u{2}"),
        ("j", "0"),
        ("k", "false"),
        ("m", "false"),
    ];
    request(RequestCode::SEND_MESSAGE_V2, &replaced(&header, other)).with_body(body)
}

fn send_in_v1(topic: &str, queue: i32, body: &'static str) -> RemotingCommand {
    let header = [
        ("producerGroup", "TranscriptProducer"),
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("defaultTopicQueueNums", "4"),
        ("queueId", &queue.to_string()),
        ("sysFlag", "0"),
        ("bornTimestamp", "1700000000000"),
        ("flag", "0"),
        ("properties", "TAGS\u{1}A\u{2}"),
        ("reconsumeTimes", "0"),
    ];
    request(RequestCode::SEND_MESSAGE, &header).with_body(body)
}

/// Pull that contains its subscription and is not held, some of its fields replaced.
fn pull(topic: &str, queue: i32, other: &[(&str, &str)]) -> RemotingCommand {
    let queue = queue.to_string();
    let header = [
        ("consumerGroup", GROUP),
        ("topic", topic),
        ("queueId", &queue),
        ("queueOffset", "0"),
        ("maxMsgNums", "32"),
        ("sysFlag", "4"),
        ("commitOffset", "0"),
        ("suspendTimeoutMillis", "0"),
        ("subscription", "*"),
        ("subVersion", "0"),
        ("expressionType", "TAG"),
    ];
    request(RequestCode::PULL_MESSAGE, &replaced(&header, other))
}

fn replaced<'a>(header: &[(&'a str, &'a str)], other: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = header.iter().filter(|(name, _)| other.iter().all(|(replaced, _)| replaced != name));
    kept.chain(other).copied().collect()
}

/// Encodes messages as in the body of a batch.
fn stored_form(messages: &[(&str, &str)]) -> Vec<u8> {
    let mut batch = Vec::new();
    for (body, properties) in messages {
        let number = |value: usize| i32::try_from(value).expect("a small number").to_be_bytes();
        let total = 4 * 5 + body.len() + 2 + properties.len();
        for field in [number(total), number(0), number(0), number(0), number(body.len())] {
            batch.extend(field);
        }
        batch.extend(body.as_bytes());
        batch.extend(i16::try_from(properties.len()).expect("a short text").to_be_bytes());
        batch.extend(properties.as_bytes());
    }
    batch
}

fn create_group(group: &str) -> RemotingCommand {
    request(RequestCode::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[]).with_body(format!(
        r#"{{"groupName":"{group}","consumeEnable":true,"consumeFromMinEnable":true,"consumeBroadcastEnable":true,"retryQueueNums":1,"retryMaxTimes":16,"brokerId":0,"whichBrokerWhenConsumeSlowly":1}}"#
    ))
}

fn heartbeat(data: &str) -> RemotingCommand {
    request(RequestCode::HEART_BEAT, &[]).with_body(format!(r#"{{"clientID":"{MEMBER}",{data}}}"#))
}

/// Last sixteen digits of the id in the response to a send.
fn commit_log_offset(sent: &RemotingCommand) -> String {
    let id = sent.ext_fields.get("msgId").expect("a message id");
    let digits = &id[id.len() - 16..];
    i64::from_str_radix(digits, 16).expect("hexadecimal digits").to_string()
}
