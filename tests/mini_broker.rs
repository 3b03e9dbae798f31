//! The mini broker alone: requests over bare sockets, without the client.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rocketmq_sync::mini_broker::{Clock, Fault, MiniBroker, Release};
use rocketmq_sync::unversioned::wire::body::{
    self, ClusterInfo, ConsumeFromWhere, ConsumeType, ConsumerData, ConsumerList, HeartbeatData, MessageModel,
    SubscriptionData, TopicRouteData,
};
use rocketmq_sync::unversioned::wire::frame::command::FrameHead;
use rocketmq_sync::unversioned::wire::header::*;
use rocketmq_sync::unversioned::wire::stored::message::stored_messages;
use rocketmq_sync::unversioned::wire::sys_flag::pull::{COMMIT_OFFSET, SUBSCRIPTION, SUSPEND};
use rocketmq_sync::unversioned::wire::{
    FrameDecoder, HeaderEncoding, HeaderFields, RemotingCommand, RequestCode, ResponseCode,
};
use rocketmq_sync::{Message, MessageExt, MessageQueue};

/// Time that only a broken mini broker or a suspended machine takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Client with one connection.
struct Client {
    stream: TcpStream,
    decoder: FrameDecoder,
    encoding: HeaderEncoding,
    version: i32,
    opaque: i32,
}

impl Client {
    fn of(broker: &MiniBroker) -> Self {
        Self::to(broker.broker_address("broker-a"))
    }

    fn of_name_server(broker: &MiniBroker) -> Self {
        Self::to(broker.name_servers()[0].parse().unwrap())
    }

    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, decoder: FrameDecoder::new(), encoding: HeaderEncoding::Json, version: 399, opaque: 0 }
    }

    /// Writes a request and does not wait; returns its opaque.
    fn write(&mut self, code: RequestCode, header: &dyn HeaderFields, body: impl Into<Bytes>) -> i32 {
        self.opaque += 1;
        let mut command = RemotingCommand::request(code, header).with_body(body);
        command.opaque = self.opaque;
        command.encoding = self.encoding;
        command.version = self.version;
        let mut bytes = Vec::new();
        command.encode(&mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
        self.opaque
    }

    fn ask(&mut self, code: RequestCode, header: &dyn HeaderFields) -> RemotingCommand {
        self.ask_with(code, header, Bytes::new())
    }

    fn ask_with(&mut self, code: RequestCode, header: &dyn HeaderFields, body: impl Into<Bytes>) -> RemotingCommand {
        let opaque = self.write(code, header, body);
        loop {
            let command = self.read();
            if command.is_response() && command.opaque == opaque {
                return command;
            }
        }
    }

    /// Reads the next command.
    fn read(&mut self) -> RemotingCommand {
        self.read_within(PATIENCE).expect("a command")
    }

    /// Reads the next command, or `None` after the time. To show that no command comes, the time is short and proves
    /// little; the tests that use it also send another request on the same connection.
    fn read_within(&mut self, within: Duration) -> Option<RemotingCommand> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(command) = self.decoder.next_command().unwrap() {
                return Some(command);
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => panic!("the connection was closed"),
                Ok(length) => self.decoder.push(&chunk[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn is_closed(&mut self) -> bool {
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(self.stream.read(&mut [0; 1024]), Ok(0))
            || matches!(self.stream.read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
    }

    fn send(&mut self, topic: &str, queue_id: i32, body: &'static str, properties: &str) -> RemotingCommand {
        self.ask_with(RequestCode::SEND_MESSAGE_V2, &send_header(topic, queue_id, properties), body)
    }

    fn pull(&mut self, offset: i64) -> RemotingCommand {
        self.ask(RequestCode::PULL_MESSAGE, &pull_header(offset, "*"))
    }

    fn heartbeat(&mut self, client_id: &str, group: &str, tags: &str, version: i64) -> RemotingCommand {
        let heartbeat = HeartbeatData {
            client_id: client_id.to_owned(),
            producer_data_set: Vec::new(),
            consumer_data_set: vec![ConsumerData {
                group_name: group.to_owned(),
                consume_type: ConsumeType::Passively,
                message_model: MessageModel::Clustering,
                consume_from_where: ConsumeFromWhere::FirstOffset,
                subscription_data_set: vec![SubscriptionData::of_tags("T", tags, version).unwrap()],
                unit_mode: false,
            }],
        };
        self.ask_with(RequestCode::HEART_BEAT, &(), body::encode("heartbeat", &heartbeat).unwrap())
    }

    fn members(&mut self, group: &str) -> Vec<String> {
        let header = GetConsumerListByGroupRequest { consumer_group: group, broker_name: None };
        let answer = self.ask(RequestCode::GET_CONSUMER_LIST_BY_GROUP, &header);
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
        body::decode::<ConsumerList>("members", &answer.body).unwrap().consumer_id_list
    }

    fn offset(&mut self, code: RequestCode, queue_id: i32) -> i64 {
        let answer = self.ask(code, &QueueRequest { topic: "T", queue_id, broker_name: None });
        OffsetResponse::from_fields(&answer.ext_fields).unwrap().offset
    }
}

fn send_header<'a>(topic: &'a str, queue_id: i32, properties: &'a str) -> SendMessageRequestV2<'a> {
    SendMessageRequestV2 {
        producer_group: "PG",
        topic,
        default_topic: "TBW102",
        default_topic_queue_nums: 4,
        queue_id,
        born_timestamp: 1_700_000_000_000,
        flag: 7,
        properties: Some(properties).filter(|text| !text.is_empty()),
        ..SendMessageRequestV2::default()
    }
}

/// Header of a pull of queue 0 of `T` that contains its subscription and does not wait.
fn pull_header(offset: i64, tags: &str) -> PullMessageRequest<'_> {
    PullMessageRequest {
        consumer_group: "CG",
        topic: "T",
        queue_id: 0,
        queue_offset: offset,
        max_msg_nums: 32,
        sys_flag: SUBSCRIPTION,
        suspend_timeout_millis: 15_000,
        subscription: Some(tags),
        ..PullMessageRequest::default()
    }
}

fn queue(queue_id: i32) -> MessageQueue {
    MessageQueue::new("T", "broker-a", queue_id)
}

fn messages(answer: &RemotingCommand) -> Vec<MessageExt> {
    stored_messages(&answer.body, &"T".into(), &"broker-a".into()).collect::<Result<_, _>>().unwrap()
}

fn bodies(answer: &RemotingCommand) -> Vec<String> {
    messages(answer).iter().map(|message| String::from_utf8(message.body().to_vec()).unwrap()).collect()
}

fn found(answer: &RemotingCommand) -> PullMessageResponse {
    PullMessageResponse::from_fields(&answer.ext_fields).unwrap()
}

fn stored(answer: &RemotingCommand) -> SendMessageResponse<'_> {
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
    SendMessageResponse::from_fields(&answer.ext_fields).unwrap()
}

fn with_topic() -> MiniBroker {
    let broker = MiniBroker::start().unwrap();
    broker.create_topic("T", 4);
    broker
}

// Name server

#[test]
fn a_route_names_every_broker_that_runs() {
    let broker = MiniBroker::builder().brokers(2).start().unwrap();
    broker.create_topic("T", 3);
    let mut client = Client::of_name_server(&broker);
    let header = GetRouteInfoRequest { topic: "T", accept_standard_json_only: Some(true) };
    let answer = client.ask(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header);
    let route = TopicRouteData::decode(&answer.body).unwrap();
    assert_eq!(route.write_queues(&"T".into()).len(), 6);
    assert_eq!(route.broker_datas[1].broker_addrs[&0], broker.broker_address("broker-b").to_string());

    broker.stop_broker("broker-b");
    let answer = client.ask(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header);
    assert_eq!(TopicRouteData::decode(&answer.body).unwrap().broker_datas.len(), 1);
}

#[test]
fn a_route_comes_in_fastjson_dialect_unless_standard_json_is_asked_for() {
    let broker = with_topic();
    let mut client = Client::of_name_server(&broker);
    let mut route = |accept_standard_json_only| {
        let header = GetRouteInfoRequest { topic: "T", accept_standard_json_only };
        client.ask(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header).body
    };
    let (raw, standard) = (route(None), route(Some(true)));
    assert!(serde_json::from_slice::<serde_json::Value>(&raw).is_err());
    assert!(serde_json::from_slice::<serde_json::Value>(&standard).is_ok());
    assert_eq!(TopicRouteData::decode(&raw), TopicRouteData::decode(&standard));
}

#[test]
fn an_unknown_topic_has_no_route() {
    let broker = MiniBroker::start().unwrap();
    let header = GetRouteInfoRequest { topic: "Nope", accept_standard_json_only: None };
    let answer = Client::of_name_server(&broker).ask(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header);
    assert_eq!(answer.response_code(), ResponseCode::TOPIC_NOT_EXIST);
}

#[test]
fn the_cluster_lists_its_brokers() {
    let broker = MiniBroker::builder().brokers(3).cluster("Mine").start().unwrap();
    let answer = Client::of_name_server(&broker).ask(RequestCode::GET_BROKER_CLUSTER_INFO, &());
    let info: ClusterInfo = body::decode("cluster", &answer.body).unwrap();
    assert_eq!(info.cluster_addr_table["Mine"], broker.broker_names());
    assert_eq!(info.broker_addr_table["broker-c"].broker_addrs[&0], broker.broker_address("broker-c").to_string());
}

#[test]
fn a_stopped_name_server_refuses_connections_until_it_is_started() {
    let broker = MiniBroker::builder().name_servers(2).start().unwrap();
    let second: SocketAddr = broker.name_servers()[1].parse().unwrap();
    broker.stop_name_server(1);
    assert_eq!(TcpStream::connect(second).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    broker.start_name_server(1).unwrap();
    assert_eq!(
        Client::to(second).ask(RequestCode::GET_BROKER_CLUSTER_INFO, &()).response_code(),
        ResponseCode::SUCCESS
    );
}

// Sending

#[test]
fn a_sent_message_is_stored_with_what_it_came_with() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    let answer = client.send("T", 2, "hello", "TAGS\u{1}A\u{2}UNIQ_KEY\u{1}ID1");
    let receipt = stored(&answer);
    assert_eq!((receipt.queue_id, receipt.queue_offset), (2, 0));
    assert_eq!((receipt.transaction_id, receipt.region_id), (Some("ID1"), Some("DefaultRegion")));

    let messages = broker.messages("T");
    let [message] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(message.offset_msg_id(), receipt.msg_id);
    assert_eq!((message.body().as_ref(), message.tag(), message.queue_id()), (&b"hello"[..], Some("A"), 2));
    assert_eq!(
        (message.message().flag(), message.born_at()),
        (7, UNIX_EPOCH + Duration::from_millis(1_700_000_000_000))
    );
    assert_eq!(message.property("CLUSTER"), Some("DefaultCluster"));
    assert_eq!(message.born_host(), client.stream.local_addr().unwrap());
}

#[test]
fn both_send_codes_and_both_header_encodings_are_understood() {
    let broker = MiniBroker::builder().release(Release::V4_9_7).start().unwrap();
    broker.create_topic("T", 4);
    let mut client = Client::of(&broker);
    for encoding in [HeaderEncoding::Json, HeaderEncoding::RocketMq] {
        client.encoding = encoding;
        assert_eq!(client.send("T", 0, "short", "").encoding, encoding);
        let long = SendMessageRequest {
            producer_group: "PG",
            topic: "T",
            default_topic: "TBW102",
            default_topic_queue_nums: 4,
            ..SendMessageRequest::default()
        };
        let answer = client.ask_with(RequestCode::SEND_MESSAGE, &long, "long");
        assert_eq!((answer.encoding, stored(&answer).transaction_id), (encoding, None));
    }
    assert_eq!(broker.max_offset(&queue(0)), 4);
}

#[test]
fn a_release_5_broker_answers_in_json_whatever_it_is_asked_in() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    client.encoding = HeaderEncoding::RocketMq;
    assert_eq!(client.send("T", 0, "hello", "").encoding, HeaderEncoding::Json);
}

#[test]
fn the_first_send_makes_a_topic_unless_that_is_off() {
    let broker = MiniBroker::start().unwrap();
    assert_eq!(stored(&Client::of(&broker).send("New", 3, "hello", "")).queue_id, 3);
    assert!(broker.topics("broker-a").contains(&"New".to_owned()));

    let strict = MiniBroker::builder().auto_create_topics(false).start().unwrap();
    let answer = Client::of(&strict).send("New", 3, "hello", "");
    assert_eq!(answer.response_code(), ResponseCode::TOPIC_NOT_EXIST);
    assert_eq!(answer.ext_fields.get("TRACE_ON"), Some("true"));
}

#[test]
fn a_negative_queue_lets_the_broker_choose() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    let queues: HashSet<i32> = (0..8).map(|_| stored(&client.send("T", -1, "hello", "")).queue_id).collect();
    assert!(queues.len() > 1, "{queues:?}");
    assert_eq!(queues.iter().map(|id| broker.max_offset(&queue(*id))).sum::<i64>(), 8);
}

#[test]
fn what_cannot_be_stored_is_refused_with_the_code_of_its_release() {
    for (release, invalid) in
        [(Release::V4_9_7, ResponseCode::SYSTEM_ERROR), (Release::V5_5_0, ResponseCode::INVALID_PARAMETER)]
    {
        let broker = MiniBroker::builder().release(release).max_message_size(10).start().unwrap();
        broker.create_topic("T", 4);
        let mut client = Client::of(&broker);
        let mut code = |topic: &str, queue_id: i32, body: &'static str, properties: &str| {
            client.send(topic, queue_id, body, properties).response_code()
        };
        assert_eq!(code("T", 4, "x", ""), invalid);
        assert_eq!(code("a.b", 0, "x", ""), invalid);
        assert_eq!(code(&"t".repeat(128), 0, "x", ""), invalid);
        assert_eq!(code("T", 0, "eleven byte", ""), ResponseCode::MESSAGE_ILLEGAL);
        assert_eq!(code("T", 0, "x", &format!("a\u{1}{}", "b".repeat(32_768))), ResponseCode::MESSAGE_ILLEGAL);
        assert_eq!(code("SELF_TEST_TOPIC", 0, "x", ""), ResponseCode::NO_PERMISSION);
        assert_eq!(broker.max_offset(&queue(0)), 0);
    }
}

#[test]
fn what_is_not_modelled_is_refused_and_not_stored() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    let half = SendMessageRequestV2 { sys_flag: 0x4, ..send_header("T", 0, "") };
    let answer = client.ask_with(RequestCode::SEND_MESSAGE_V2, &half, "x");
    assert_eq!(answer.response_code(), ResponseCode::REQUEST_CODE_NOT_SUPPORTED);
    assert_eq!(client.ask(RequestCode::LOCK_BATCH_MQ, &()).response_code(), ResponseCode::REQUEST_CODE_NOT_SUPPORTED);
    assert!(broker.messages("T").is_empty());
}

#[test]
fn the_messages_of_a_batch_are_stored_one_by_one() {
    let broker = with_topic();
    let mut batch = Vec::new();
    for (body, properties) in [("one", "TAGS\u{1}A\u{2}"), ("two", "")] {
        let lengths = [body.len(), properties.len()].map(|length| u8::try_from(length).unwrap());
        batch.extend([0, 0, 0, 22 + lengths[0] + lengths[1], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, lengths[0]]);
        batch.extend_from_slice(body.as_bytes());
        batch.extend([0, lengths[1]]);
        batch.extend_from_slice(properties.as_bytes());
    }
    let mut client = Client::of(&broker);
    let header = SendMessageRequestV2 { batch: Some(true), ..send_header("T", 0, "") };
    let answer = client.ask_with(RequestCode::SEND_BATCH_MESSAGE, &header, batch);
    let messages = broker.messages("T");
    let ids: Vec<String> = messages.iter().map(MessageExt::offset_msg_id).collect();
    assert_eq!((stored(&answer).msg_id, stored(&answer).queue_offset), (ids.join(",").as_str(), 0));
    assert_eq!(
        (messages[0].body().as_ref(), messages[0].tag(), messages[0].message().flag()),
        (&b"one"[..], Some("A"), 9)
    );
    assert_eq!((messages[1].body().as_ref(), messages[1].tag()), (&b"two"[..], None));

    let broken = client.ask_with(RequestCode::SEND_BATCH_MESSAGE, &header, "no batch");
    assert_eq!(broken.response_code(), ResponseCode::SYSTEM_ERROR);
    assert_eq!(broker.max_offset(&queue(0)), 2);
}

#[test]
fn a_oneway_send_is_stored_and_not_answered() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    let mut bytes = Vec::new();
    let head = FrameHead::request(HeaderEncoding::Json, RequestCode::SEND_MESSAGE_V2, 77, true);
    head.encode(&send_header("T", 0, ""), 5, &mut bytes).unwrap();
    bytes.extend_from_slice(b"hello");
    client.stream.write_all(&bytes).unwrap();
    // The first response belongs to the second request: the first one got none.
    let opaque = client.write(RequestCode::GET_MAX_OFFSET, &QueueRequest { topic: "T", ..Default::default() }, "");
    let answer = client.read();
    assert_eq!((answer.opaque, answer.ext_fields.get("offset")), (opaque, Some("1")));
}

// Pulling

#[test]
fn a_pull_gets_messages_from_its_offset_on() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    for body in ["a", "b", "c"] {
        client.send("T", 0, body, "");
    }
    let answer = client.pull(1);
    assert_eq!((answer.response_code(), answer.remark.as_deref()), (ResponseCode::SUCCESS, Some("FOUND")));
    assert_eq!(bodies(&answer), ["b", "c"]);
    let PullMessageResponse { next_begin_offset, min_offset, max_offset, .. } = found(&answer);
    assert_eq!((next_begin_offset, min_offset, max_offset), (3, 0, 3));
}

#[test]
fn a_pull_is_limited_by_messages_and_by_bytes() {
    let broker = with_topic();
    for _ in 0..40 {
        broker.store(&queue(0), &Message::new("T", "small"));
    }
    for _ in 0..4 {
        broker.store(&queue(1), &Message::new("T", vec![7; 100 * 1024]));
    }
    let mut client = Client::of(&broker);
    let five = PullMessageRequest { max_msg_nums: 5, ..pull_header(0, "*") };
    assert_eq!(messages(&client.ask(RequestCode::PULL_MESSAGE, &five)).len(), 5);
    let many = PullMessageRequest { max_msg_nums: 1000, ..pull_header(0, "*") };
    assert_eq!(messages(&client.ask(RequestCode::PULL_MESSAGE, &many)).len(), 32);
    let large = PullMessageRequest { queue_id: 1, ..pull_header(0, "*") };
    assert_eq!(messages(&client.ask(RequestCode::PULL_MESSAGE, &large)).len(), 2);
}

#[test]
fn an_offset_outside_of_the_queue_is_told_where_to_go_on() {
    let broker = with_topic();
    for _ in 0..10 {
        broker.store(&queue(0), &Message::new("T", "x"));
    }
    broker.set_min_offset(&queue(0), 4);
    let mut client = Client::of(&broker);
    let mut pull = |offset| {
        let answer = client.pull(offset);
        let remark = answer.remark.clone().unwrap();
        (answer.response_code(), remark, found(&answer).next_begin_offset)
    };
    let moved = ResponseCode::PULL_OFFSET_MOVED;
    assert_eq!(pull(3), (moved, "OFFSET_TOO_SMALL".to_owned(), 4));
    assert_eq!(pull(10), (ResponseCode::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE".to_owned(), 10));
    assert_eq!(pull(11), (moved, "OFFSET_OVERFLOW_BADLY".to_owned(), 10));
}

#[test]
fn an_empty_queue_begins_at_0() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    assert_eq!(client.pull(0).response_code(), ResponseCode::PULL_NOT_FOUND);
    let beyond = client.pull(5);
    assert_eq!((beyond.response_code(), found(&beyond).next_begin_offset), (ResponseCode::PULL_OFFSET_MOVED, 0));
}

#[test]
fn tags_are_filtered_by_their_hash() {
    let broker = with_topic();
    for tag in ["AaAa", "BBBB", "Other"] {
        broker.store(&queue(0), &Message::new("T", tag).with_tag(tag));
    }
    broker.store(&queue(0), &Message::new("T", "untagged"));
    let mut client = Client::of(&broker);
    let answer = client.ask(RequestCode::PULL_MESSAGE, &pull_header(0, "AaAa"));
    assert_eq!((bodies(&answer), found(&answer).next_begin_offset), (vec!["AaAa".to_owned(), "BBBB".to_owned()], 4));
    let nothing = client.ask(RequestCode::PULL_MESSAGE, &pull_header(0, "None || Such"));
    assert_eq!(nothing.response_code(), ResponseCode::PULL_RETRY_IMMEDIATELY);
    assert_eq!(found(&nothing).next_begin_offset, 4);
}

#[test]
fn a_subscription_comes_from_the_heartbeat_unless_the_pull_brings_one() {
    let broker = with_topic();
    broker.store(&queue(0), &Message::new("T", "a").with_tag("A"));
    broker.store(&queue(0), &Message::new("T", "b").with_tag("B"));
    let mut client = Client::of(&broker);
    let plain = PullMessageRequest { sys_flag: 0, subscription: None, sub_version: 5, ..pull_header(0, "") };
    assert_eq!(client.ask(RequestCode::PULL_MESSAGE, &plain).response_code(), ResponseCode::SUBSCRIPTION_NOT_EXIST);
    client.heartbeat("me", "CG", "A", 4);
    assert_eq!(client.ask(RequestCode::PULL_MESSAGE, &plain).response_code(), ResponseCode::SUBSCRIPTION_NOT_LATEST);
    client.heartbeat("me", "CG", "B", 5);
    assert_eq!(bodies(&client.ask(RequestCode::PULL_MESSAGE, &plain)), ["b"]);
}

#[test]
fn a_pull_that_cannot_be_served_is_refused() {
    let broker = MiniBroker::builder().auto_create_groups(false).start().unwrap();
    broker.create_topic("T", 4);
    let mut client = Client::of(&broker);
    assert_eq!(client.pull(0).response_code(), ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST);

    let broker = with_topic();
    broker.create_topic_on("broker-a", "WriteOnly", 4, 4, 2);
    let mut client = Client::of(&broker);
    let mut code = |header: PullMessageRequest<'_>| client.ask(RequestCode::PULL_MESSAGE, &header).response_code();
    assert_eq!(code(PullMessageRequest { topic: "Nope", ..pull_header(0, "*") }), ResponseCode::TOPIC_NOT_EXIST);
    assert_eq!(code(PullMessageRequest { topic: "WriteOnly", ..pull_header(0, "*") }), ResponseCode::NO_PERMISSION);
    assert_eq!(code(PullMessageRequest { queue_id: 4, ..pull_header(0, "*") }), ResponseCode::INVALID_PARAMETER);
    assert_eq!(code(pull_header(0, "||")), ResponseCode::SUBSCRIPTION_PARSE_FAILED);
}

#[test]
fn a_long_poll_ends_with_the_message_it_waits_for() {
    let broker = with_topic();
    let mut waiting = Client::of(&broker);
    let header = PullMessageRequest { sys_flag: SUSPEND | SUBSCRIPTION, ..pull_header(0, "A") };
    let opaque = waiting.write(RequestCode::PULL_MESSAGE, &header, "");
    assert!(broker.wait_for_requests(RequestCode::PULL_MESSAGE, 1, PATIENCE));
    assert!(waiting.read_within(Duration::from_millis(50)).is_none());
    Client::of(&broker).send("T", 0, "wanted", "TAGS\u{1}A\u{2}");
    let answer = waiting.read();
    assert_eq!((answer.opaque, bodies(&answer)), (opaque, vec!["wanted".to_owned()]));
}

#[test]
fn a_long_poll_without_a_message_ends_at_its_time() {
    let broker = MiniBroker::builder().clock(Clock::Manual).start().unwrap();
    broker.create_topic("T", 1);
    let mut client = Client::of(&broker);
    let header = PullMessageRequest { sys_flag: SUSPEND | SUBSCRIPTION, ..pull_header(0, "*") };
    let opaque = client.write(RequestCode::PULL_MESSAGE, &header, "");
    assert!(broker.wait_for_requests(RequestCode::PULL_MESSAGE, 1, PATIENCE));
    broker.advance(Duration::from_millis(14_999));
    assert_eq!(client.offset(RequestCode::GET_MAX_OFFSET, 0), 0);
    broker.advance(Duration::from_millis(1));
    let answer = client.read();
    assert_eq!((answer.opaque, answer.response_code()), (opaque, ResponseCode::PULL_NOT_FOUND));
}

#[test]
fn a_long_poll_is_told_to_pass_over_messages_that_it_does_not_want() {
    let broker = MiniBroker::builder().clock(Clock::Manual).start().unwrap();
    broker.create_topic("T", 1);
    let mut client = Client::of(&broker);
    let header = PullMessageRequest { sys_flag: SUSPEND | SUBSCRIPTION, ..pull_header(0, "A") };
    client.write(RequestCode::PULL_MESSAGE, &header, "");
    assert!(broker.wait_for_requests(RequestCode::PULL_MESSAGE, 1, PATIENCE));
    broker.store(&queue(0), &Message::new("T", "other").with_tag("B"));
    broker.advance(Duration::from_secs(5));
    let answer = client.read();
    assert_eq!((answer.response_code(), found(&answer).next_begin_offset), (ResponseCode::PULL_RETRY_IMMEDIATELY, 1));
}

#[test]
fn an_offset_rides_on_a_pull() {
    let broker = with_topic();
    let header = PullMessageRequest { sys_flag: COMMIT_OFFSET | SUBSCRIPTION, commit_offset: 3, ..pull_header(0, "*") };
    Client::of(&broker).ask(RequestCode::PULL_MESSAGE, &header);
    assert_eq!(broker.committed_offset("CG", &queue(0)), Some(3));
}

#[test]
fn a_message_is_found_by_its_place_in_the_log() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    client.send("T", 0, "first", "");
    client.send("T", 1, "second", "");
    let offset = broker.messages("T")[1].commit_log_offset();
    let answer = client.ask(RequestCode::VIEW_MESSAGE_BY_ID, &ViewMessageRequest { offset, ..Default::default() });
    assert_eq!(bodies(&answer), ["second"]);
    let header = ViewMessageRequest { offset: offset + 1, ..Default::default() };
    assert_eq!(client.ask(RequestCode::VIEW_MESSAGE_BY_ID, &header).response_code(), ResponseCode::SYSTEM_ERROR);
}

// Offsets

#[test]
fn a_group_without_an_offset_is_told_0_while_the_queue_has_its_first_message() {
    let query = |client: &mut Client, set_zero_if_not_found| {
        let header = QueryConsumerOffsetRequest {
            consumer_group: "CG",
            topic: "T",
            queue_id: 0,
            set_zero_if_not_found,
            broker_name: None,
        };
        let answer = client.ask(RequestCode::QUERY_CONSUMER_OFFSET, &header);
        (answer.response_code(), answer.ext_fields.get("offset").map(str::to_owned))
    };
    let zero = (ResponseCode::SUCCESS, Some("0".to_owned()));
    let unknown = (ResponseCode::QUERY_NOT_FOUND, None);
    for (release, of_empty, of_truth) in [(Release::V4_9_7, &zero, &zero), (Release::V5_5_0, &unknown, &unknown)] {
        let broker = MiniBroker::builder().release(release).start().unwrap();
        broker.create_topic("T", 1);
        let mut client = Client::of(&broker);
        assert_eq!(query(&mut client, None), *of_empty);
        broker.store(&queue(0), &Message::new("T", "x"));
        assert_eq!(query(&mut client, None), zero);
        assert_eq!(query(&mut client, Some(false)), *of_truth);
        broker.set_min_offset(&queue(0), 1);
        assert_eq!(query(&mut client, None), unknown);
        broker.set_committed_offset("CG", &queue(0), Some(1));
        assert_eq!(query(&mut client, Some(false)), (ResponseCode::SUCCESS, Some("1".to_owned())));
    }
}

#[test]
fn a_release_5_broker_takes_no_offset_of_a_group_or_topic_it_does_not_know() {
    let update = |client: &mut Client, topic| {
        let header = UpdateConsumerOffsetRequest {
            consumer_group: "CG",
            topic,
            queue_id: 0,
            commit_offset: 5,
            broker_name: None,
        };
        client.ask(RequestCode::UPDATE_CONSUMER_OFFSET, &header).response_code()
    };
    let broker = with_topic();
    let mut client = Client::of(&broker);
    assert_eq!(update(&mut client, "T"), ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST);
    client.heartbeat("me", "CG", "*", 1);
    assert_eq!(update(&mut client, "Nope"), ResponseCode::TOPIC_NOT_EXIST);
    assert_eq!(update(&mut client, "T"), ResponseCode::SUCCESS);
    assert!(broker.wait_for_committed_offset("CG", &queue(0), 5, PATIENCE));

    let old = MiniBroker::builder().release(Release::V4_9_7).start().unwrap();
    assert_eq!(update(&mut Client::of(&old), "Nope"), ResponseCode::SUCCESS);
}

#[test]
fn the_ends_of_a_queue_are_told() {
    let broker = MiniBroker::builder().clock(Clock::Manual).start().unwrap();
    broker.create_topic("T", 1);
    let mut client = Client::of(&broker);
    let header = QueueRequest { topic: "T", queue_id: 0, broker_name: None };
    let earliest = |client: &mut Client| {
        let answer = client.ask(RequestCode::GET_EARLIEST_MSG_STORETIME, &header);
        EarliestStoreTimeResponse::from_fields(&answer.ext_fields).unwrap().timestamp
    };
    assert_eq!(earliest(&mut client), -1);
    let stored_at = millis(broker.now());
    for _ in 0..3 {
        broker.store(&queue(0), &Message::new("T", "x"));
        broker.advance(Duration::from_secs(1));
    }
    broker.set_min_offset(&queue(0), 1);
    assert_eq!(client.offset(RequestCode::GET_MIN_OFFSET, 0), 1);
    assert_eq!(client.offset(RequestCode::GET_MAX_OFFSET, 0), 3);
    assert_eq!(earliest(&mut client), stored_at + 1_000);
}

/// Converts a time to the wire's unit.
fn millis(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[test]
fn an_offset_is_found_by_its_time_as_each_release_finds_it() {
    for (release, before, between, behind) in [(Release::V4_9_7, 0, 1, 2), (Release::V5_5_0, 0, 2, 3)] {
        let broker = MiniBroker::builder().clock(Clock::Manual).release(release).start().unwrap();
        broker.create_topic("T", 1);
        let start = millis(broker.now());
        for _ in 0..3 {
            broker.store(&queue(0), &Message::new("T", "x"));
            broker.advance(Duration::from_secs(1));
        }
        let mut client = Client::of(&broker);
        let mut search = |timestamp| {
            let header = SearchOffsetRequest { topic: "T", queue_id: 0, timestamp, ..Default::default() };
            let answer = client.ask(RequestCode::SEARCH_OFFSET_BY_TIMESTAMP, &header);
            OffsetResponse::from_fields(&answer.ext_fields).unwrap().offset
        };
        assert_eq!(search(start - 60_000), before);
        assert_eq!(search(start + 1_100), between);
        assert_eq!(search(start + 60_000), behind);
        assert_eq!(search(start + 1_000), 1);
    }
}

// Members

#[test]
fn members_are_told_when_one_comes_and_when_one_goes() {
    let broker = with_topic();
    let mut first = Client::of(&broker);
    first.heartbeat("first", "CG", "*", 1);
    let mut second = Client::of(&broker);
    let expect_notice = |client: &mut Client| {
        let notice = client.read();
        assert_eq!(notice.request_code(), RequestCode::NOTIFY_CONSUMER_IDS_CHANGED);
        assert!(notice.is_oneway());
        assert_eq!(notice.ext_fields.get("consumerGroup"), Some("CG"));
    };
    second.heartbeat("second", "CG", "*", 1);
    // The first member was notified of its own joining before the response to its heartbeat.
    expect_notice(&mut first);
    assert_eq!(second.members("CG"), ["first", "second"]);
    assert!(broker.topics("broker-a").contains(&"%RETRY%CG".to_owned()));

    drop(second);
    assert!(broker.wait_for_members("CG", 1, PATIENCE));
    expect_notice(&mut first);
    assert_eq!(first.members("CG"), ["first"]);
}

#[test]
fn a_member_that_unregisters_is_one_no_more() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    client.heartbeat("me", "CG", "*", 1);
    let header = UnregisterClientRequest { client_id: "me", consumer_group: Some("CG"), ..Default::default() };
    assert_eq!(client.ask(RequestCode::UNREGISTER_CLIENT, &header).response_code(), ResponseCode::SUCCESS);
    let header = GetConsumerListByGroupRequest { consumer_group: "CG", broker_name: None };
    let answer = client.ask(RequestCode::GET_CONSUMER_LIST_BY_GROUP, &header);
    assert_eq!(answer.response_code(), ResponseCode::SYSTEM_ERROR);
    assert!(broker.members("broker-a", "CG").is_empty());
}

#[test]
fn a_broker_can_be_made_to_lie_about_members() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    client.heartbeat("me", "CG", "*", 1);
    broker.set_member_list("CG", Some(vec!["me".to_owned(), "me".to_owned()]));
    assert_eq!(client.members("CG"), ["me", "me"]);
    broker.set_member_list("CG", Some(Vec::new()));
    assert!(client.members("CG").is_empty());
    broker.set_member_list("CG", None);
    assert_eq!(client.members("CG"), ["me"]);
}

// Delays, retries, dead letters

#[test]
fn a_delayed_message_comes_into_its_queue_at_its_time() {
    let broker = MiniBroker::builder().clock(Clock::Manual).start().unwrap();
    broker.create_topic("T", 4);
    let start = broker.now();
    let answer = Client::of(&broker).send("T", 2, "late", "DELAY\u{1}18\u{2}");
    assert_eq!(stored(&answer).queue_id, 2);
    broker.advance(Duration::from_secs(7_199));
    assert!(broker.messages("T").is_empty());
    broker.advance(Duration::from_secs(3_600));
    let messages = broker.messages("T");
    assert_eq!((messages.len(), messages[0].queue_id()), (1, 2));
    assert_eq!(messages[0].stored_at(), start + Duration::from_secs(7_200));
    assert_eq!(messages[0].property("REAL_TOPIC"), Some("T"));
}

#[test]
fn a_delay_beyond_the_last_level_is_that_of_the_last() {
    let broker = MiniBroker::builder().clock(Clock::Manual).delay_levels([Duration::from_secs(1)]).start().unwrap();
    broker.create_topic("T", 1);
    Client::of(&broker).send("T", 0, "late", "DELAY\u{1}99\u{2}");
    broker.advance(Duration::from_secs(1));
    assert_eq!(broker.max_offset(&queue(0)), 1);
}

#[test]
fn a_message_sent_back_is_delivered_again_later_each_time_and_ends_as_a_dead_letter() {
    let broker = MiniBroker::builder().clock(Clock::Manual).start().unwrap();
    broker.create_topic("T", 1);
    let mut client = Client::of(&broker);
    client.heartbeat("me", "CG", "*", 1);
    let first_id = stored(&client.send("T", 0, "poison", "UNIQ_KEY\u{1}ID1\u{2}")).msg_id.to_owned();
    let mut offset = broker.messages("T")[0].commit_log_offset();
    for (times, delay) in [(1, 10), (2, 30)] {
        send_back(&mut client, offset, 2);
        broker.advance(Duration::from_secs(delay - 1));
        assert_eq!(broker.messages("%RETRY%CG").len(), times - 1);
        broker.advance(Duration::from_secs(1));
        let retried = broker.messages("%RETRY%CG").pop().unwrap();
        assert_eq!(retried.reconsume_times(), i32::try_from(times).unwrap());
        assert_eq!(retried.property("RETRY_TOPIC"), Some("T"));
        assert_eq!(retried.property("ORIGIN_MESSAGE_ID"), Some(first_id.as_str()));
        assert_eq!(retried.msg_id(), "ID1");
        offset = retried.commit_log_offset();
    }
    send_back(&mut client, offset, 2);
    let dead = broker.messages("%DLQ%CG");
    assert_eq!((dead.len(), dead[0].reconsume_times(), dead[0].body().as_ref()), (1, 3, &b"poison"[..]));
}

fn send_back(client: &mut Client, offset: i64, maximum: i32) {
    let header = ConsumerSendMsgBackRequest {
        offset,
        group: "CG",
        delay_level: 0,
        max_reconsume_times: Some(maximum),
        ..Default::default()
    };
    let answer = client.ask(RequestCode::CONSUMER_SEND_MSG_BACK, &header);
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
}

#[test]
fn a_message_that_is_not_there_cannot_be_sent_back() {
    let broker = with_topic();
    let header = ConsumerSendMsgBackRequest { offset: 4711, group: "CG", ..Default::default() };
    let answer = Client::of(&broker).ask(RequestCode::CONSUMER_SEND_MSG_BACK, &header);
    assert_eq!(answer.response_code(), ResponseCode::SYSTEM_ERROR);
}

#[test]
fn the_releases_count_differently_when_a_client_itself_sends_a_retry() {
    for (release, times_to_die) in [(Release::V4_9_7, 3), (Release::V5_5_0, 4)] {
        let broker = MiniBroker::builder().release(release).start().unwrap();
        let mut client = Client::of(&broker);
        for times in [times_to_die - 1, times_to_die] {
            let header = SendMessageRequestV2 {
                reconsume_times: Some(times),
                max_reconsume_times: Some(3),
                ..send_header("%RETRY%CG", 0, "RETRY_TOPIC\u{1}T\u{2}")
            };
            stored(&client.ask_with(RequestCode::SEND_MESSAGE_V2, &header, "again"));
        }
        assert_eq!(broker.messages("%RETRY%CG").len(), 1);
        assert_eq!(broker.messages("%DLQ%CG").len(), 1);
    }
}

// Faults

#[test]
fn a_fault_meets_the_requests_it_is_meant_for_and_ends() {
    let broker = with_topic();
    let fault = Fault::error(ResponseCode::SYSTEM_BUSY, "busy").skip(1).times(2).topic("T");
    let fault = broker.fail(RequestCode::SEND_MESSAGE_V2, fault);
    let mut client = Client::of(&broker);
    let mut code = |topic| client.send(topic, 0, "x", "").response_code().0;
    assert_eq!([code("T"), code("Else"), code("T"), code("T"), code("T")], [0, 0, 2, 2, 0]);
    assert_eq!(broker.fault_hits(fault), 2);
    assert_eq!(broker.max_offset(&queue(0)), 2);
}

#[test]
fn a_fault_may_meet_one_request_in_several_or_one_broker_or_one_group() {
    let broker = MiniBroker::builder().brokers(2).start().unwrap();
    broker.create_topic("T", 1);
    let third = broker.fail(RequestCode::PULL_MESSAGE, Fault::error(ResponseCode::FLOW_CONTROL, "slow").every(3));
    let mut client = Client::of(&broker);
    let codes: Vec<i32> = (0..6).map(|_| client.pull(0).code).collect();
    assert_eq!(codes, [215, 19, 19, 215, 19, 19]);
    broker.clear_fault(third);

    broker.fail_all(Fault::error(ResponseCode::GO_AWAY, "go").at("broker-b").group("CG"));
    assert_eq!(client.pull(0).code, 19);
    let mut other = Client::to(broker.broker_address("broker-b"));
    assert_eq!(other.pull(0).code, 1500);
    assert_eq!(other.offset(RequestCode::GET_MAX_OFFSET, 0), 0);
    broker.clear_faults();
    assert_eq!(other.pull(0).code, 19);
}

#[test]
fn an_answer_may_be_lost_after_the_request_was_processed_or_with_it() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    broker.fail(RequestCode::SEND_MESSAGE_V2, Fault::swallow_reply().times(1));
    broker.fail(RequestCode::SEND_MESSAGE_V2, Fault::no_reply().times(1));
    client.write(RequestCode::SEND_MESSAGE_V2, &send_header("T", 0, ""), "processed");
    client.write(RequestCode::SEND_MESSAGE_V2, &send_header("T", 0, ""), "lost");
    let answer = client.send("T", 0, "answered", "");
    assert_eq!(stored(&answer).queue_offset, 1);
    assert_eq!(answer.opaque, 3);
}

#[test]
fn an_answer_may_be_late_doubled_or_garbage() {
    let broker = MiniBroker::builder().clock(Clock::Manual).start().unwrap();
    let mut client = Client::of(&broker);
    let header = QueueRequest { topic: "T", queue_id: 0, broker_name: None };
    broker.fail(RequestCode::GET_MAX_OFFSET, Fault::delay(Duration::from_secs(60)).times(1));
    let late = client.write(RequestCode::GET_MAX_OFFSET, &header, "");
    let prompt = client.write(RequestCode::GET_MAX_OFFSET, &header, "");
    assert_eq!(client.read().opaque, prompt);
    broker.advance(Duration::from_secs(60));
    assert_eq!(client.read().opaque, late);

    broker.fail(RequestCode::GET_MAX_OFFSET, Fault::duplicate_reply().times(1));
    let doubled = client.write(RequestCode::GET_MAX_OFFSET, &header, "");
    assert_eq!([client.read().opaque, client.read().opaque], [doubled, doubled]);

    broker.fail(RequestCode::GET_MAX_OFFSET, Fault::wrong_bytes(&b"garbage"[..]).times(1));
    client.write(RequestCode::GET_MAX_OFFSET, &header, "");
    let mut garbage = [0; 7];
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    client.stream.read_exact(&mut garbage).unwrap();
    assert_eq!(&garbage, b"garbage");
}

#[test]
fn a_long_poll_keeps_the_fate_of_its_answer() {
    let broker = with_topic();
    let fault = broker.fail(RequestCode::PULL_MESSAGE, Fault::swallow_reply().times(1));
    let mut client = Client::of(&broker);
    let header = PullMessageRequest { sys_flag: SUSPEND | SUBSCRIPTION, ..pull_header(0, "*") };
    client.write(RequestCode::PULL_MESSAGE, &header, "");
    assert!(broker.wait_for_fault(fault, 1, PATIENCE));
    let answer = client.send("T", 0, "x", "");
    assert_eq!(stored(&answer).queue_offset, 0);
    let again = client.pull(0);
    assert_eq!(again.opaque, 3, "the first pull was answered");
}

#[test]
fn a_connection_may_be_closed_before_or_after_processing() {
    let broker = with_topic();
    broker.fail(RequestCode::SEND_MESSAGE_V2, Fault::close().times(1));
    let mut client = Client::of(&broker);
    // The second request is in the same read as the first, and must not be handled after the close.
    client.write(RequestCode::SEND_MESSAGE_V2, &send_header("T", 0, ""), "unprocessed");
    assert!(client.is_closed());
    assert_eq!(broker.max_offset(&queue(0)), 0);

    broker.fail(RequestCode::SEND_MESSAGE_V2, Fault::close_after().times(1));
    let mut client = Client::of(&broker);
    client.write(RequestCode::SEND_MESSAGE_V2, &send_header("T", 0, ""), "processed");
    assert!(client.is_closed());
    assert_eq!(broker.max_offset(&queue(0)), 1);
}

#[test]
fn a_fault_may_answer_what_it_likes() {
    let broker = with_topic();
    broker.fail(
        RequestCode::GET_ROUTEINFO_BY_TOPIC,
        Fault::answer(|request| {
            let empty = body::encode("route", &TopicRouteData::default()).unwrap();
            RemotingCommand::response_to(request, ResponseCode::SUCCESS, None).with_body(empty)
        }),
    );
    let header = GetRouteInfoRequest { topic: "T", accept_standard_json_only: None };
    let answer = Client::of_name_server(&broker).ask(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header);
    assert_eq!(TopicRouteData::decode(&answer.body), Ok(TopicRouteData::default()));
}

#[test]
fn a_stopped_broker_refuses_connections_and_keeps_its_messages() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    client.send("T", 0, "kept", "");
    broker.stop_broker("broker-a");
    assert!(client.is_closed());
    let address = broker.broker_address("broker-a");
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    broker.start_broker("broker-a").unwrap();
    broker.start_broker("broker-a").unwrap();
    assert_eq!(bodies(&Client::of(&broker).pull(0)), ["kept"]);
}

#[test]
fn a_paused_broker_answers_when_it_goes_on() {
    let broker = with_topic();
    broker.pause_broker("broker-a");
    let mut client = Client::of(&broker);
    let opaque = client.write(RequestCode::SEND_MESSAGE_V2, &send_header("T", 0, ""), "waiting");
    assert!(client.read_within(Duration::from_millis(50)).is_none());
    assert_eq!(broker.request_count(RequestCode::SEND_MESSAGE_V2), 0);
    broker.resume_broker("broker-a");
    assert_eq!(client.read().opaque, opaque);
}

#[test]
fn cut_connections_are_gone_and_new_ones_welcome() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    client.heartbeat("me", "CG", "*", 1);
    assert_eq!(broker.cut_connections("broker-a"), 1);
    assert!(broker.members("broker-a", "CG").is_empty());
    assert_eq!(broker.connection_count("broker-a"), 0);
    assert_eq!(Client::of(&broker).pull(0).response_code(), ResponseCode::PULL_NOT_FOUND);
}

// Requests seen, requests pushed

#[test]
fn requests_are_recorded_with_what_matters_of_them() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    client.send("T", 3, "hello", "");
    client.pull(0);
    let records = broker.requests();
    let [send, pull] = &records[..] else { panic!("{records:?}") };
    assert_eq!((send.code, &*send.server, send.body_length), (RequestCode::SEND_MESSAGE_V2, "broker-a", 5));
    assert_eq!((send.group(), send.topic(), send.fields.get("e")), (Some("PG"), Some("T"), Some("3")));
    assert_eq!((pull.group(), pull.connection), (Some("CG"), send.connection));
    assert_eq!(broker.requests_of(RequestCode::PULL_MESSAGE).len(), 1);
    broker.clear_requests();
    assert!(broker.requests().is_empty());
}

#[test]
fn a_pushed_request_reaches_the_client_and_its_answer_is_kept() {
    let broker = with_topic();
    let mut client = Client::of(&broker);
    client.pull(0);
    broker.push("broker-a", RemotingCommand::request(RequestCode(9999), &()));
    let pushed = client.read();
    assert_eq!(pushed.request_code(), RequestCode(9999));
    let mut bytes = Vec::new();
    let answer = RemotingCommand::response_to(&pushed, ResponseCode::REQUEST_CODE_NOT_SUPPORTED, None);
    answer.encode(&mut bytes).unwrap();
    client.stream.write_all(&bytes).unwrap();
    client.pull(0);
    assert_eq!(broker.replies()[0].opaque, pushed.opaque);
}

#[test]
fn an_unknown_code_is_answered_by_all_but_an_old_name_server() {
    let broker = MiniBroker::start().unwrap();
    for mut client in [Client::of(&broker), Client::of_name_server(&broker)] {
        let answer = client.ask(RequestCode(9999), &());
        assert_eq!(answer.response_code(), ResponseCode::REQUEST_CODE_NOT_SUPPORTED);
        assert_eq!(answer.remark.as_deref(), Some(" request type 9999 not supported"));
    }
    let old = MiniBroker::builder().release(Release::V4_9_7).start().unwrap();
    let mut client = Client::of_name_server(&old);
    client.write(RequestCode(9999), &(), "");
    let opaque = client.write(RequestCode::GET_BROKER_CLUSTER_INFO, &(), "");
    assert_eq!(client.read().opaque, opaque);
}

// Robustness

#[test]
fn a_frame_that_is_none_costs_its_own_connection_only() {
    let broker = with_topic();
    let mut good = Client::of(&broker);
    for bytes in [&[0xFF; 16][..], &[0, 0, 0, 0], &[0, 0, 0, 8, 9, 0, 0, 4, b'{', b'{', b'{', b'{']] {
        let mut bad = Client::of(&broker);
        bad.stream.write_all(bytes).unwrap();
        assert!(bad.is_closed(), "{bytes:?}");
    }
    let missing = good.ask(RequestCode::PULL_MESSAGE, &());
    assert_eq!(missing.response_code(), ResponseCode::SYSTEM_ERROR);
    assert_eq!(good.pull(0).response_code(), ResponseCode::PULL_NOT_FOUND);
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let broker = with_topic();
    for _ in 0..3 {
        broker.store(&queue(0), &Message::new("T", vec![1; 80 * 1024]));
    }
    let mut deaf = Client::of(&broker);
    for _ in 0..100 {
        deaf.write(RequestCode::PULL_MESSAGE, &pull_header(0, "*"), "");
    }
    assert!(broker.wait_for_requests(RequestCode::PULL_MESSAGE, 100, PATIENCE));
    assert_eq!(messages(&Client::of(&broker).pull(0)).len(), 3);
    assert_eq!(messages(&deaf.read()).len(), 3);
}

#[test]
fn a_mini_broker_leaves_its_addresses_free() {
    let broker = MiniBroker::builder().brokers(2).name_servers(2).start().unwrap();
    let addresses: Vec<SocketAddr> = broker.name_servers().iter().map(|address| address.parse().unwrap()).collect();
    let mut client = Client::to(addresses[0]);
    client.ask(RequestCode::GET_BROKER_CLUSTER_INFO, &());
    drop(broker);
    assert!(client.is_closed());
    for address in addresses {
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn a_setup_without_servers_is_refused() {
    assert!(MiniBroker::builder().brokers(0).start().is_err());
    assert!(MiniBroker::builder().name_servers(0).start().is_err());
}
