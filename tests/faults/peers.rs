//! Generator of peers with wrong replies: one field of one reply is made wrong, between correct ones.
//!
//! Replies are those of the mini broker in the forms of both releases, or were recorded from Apache RocketMQ
//! (`tests/data/transcript-*.json`). A case has a few such faults in one world of a producer and a consumer. Afterwards
//! every stored message must be consumed, within little more than a broker holds a pull. Memory must not grow, and the
//! log must have named the peer or the queue.
//!
//! `PEER_SEEDS=17..18 cargo test --test faults peers` runs the seed 17 alone, `PEER_SEEDS=1000` the first thousand. A
//! failure prints its seed and the shortest part of the case that also fails.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use log::LevelFilter;
use parking_lot::Mutex;
use rocketmq_sync::mini_broker::{Fault, MiniBroker, Release};
use rocketmq_sync::unversioned::wire::{FrameDecoder, RemotingCommand, RequestCode};
use rocketmq_sync::{
    Client, ConsumeFromWhere, FilterExpression, Message, MessageExt, MessageQueue, Producer, PushConsumer,
};

use crate::alone::{alone, hear_log};

const SEEDS: u64 = 150;
/// A broker holds a pull for 15 s; a machine under load is slow.
const NO_STALL: Duration = Duration::from_secs(40);
/// Memory for a world itself; frames of a claimed length would take many times more.
const MEMORY: u64 = 192 * 1024;
const TOPIC: &str = "Peers";
const GROUP: &str = "readers";
/// Number of concurrent worlds: each mostly waits.
const SIDE_BY_SIDE: usize = 4;

/// Positions and lengths of the fields of a stored message with IPv4 addresses.
const STORED: [(&str, usize, usize); 14] = [
    ("size", 0, 4),
    ("magic", 4, 4),
    ("CRC", 8, 4),
    ("queue id", 12, 4),
    ("flag", 16, 4),
    ("queue offset", 20, 8),
    ("commit log offset", 28, 8),
    ("sysFlag", 36, 4),
    ("born timestamp", 40, 8),
    ("born port", 52, 4),
    ("store port", 68, 4),
    ("reconsume times", 72, 4),
    ("transaction offset", 76, 8),
    ("body length", 84, 4),
];

/// Fault: the replies to one code, and their change.
#[derive(Clone, Debug)]
struct Wrong {
    code: RequestCode,
    place: Place,
    how: How,
    /// Selects fields, messages and values.
    choice: u64,
    /// Number of replies that are skipped first.
    skip: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    FrameLength,
    HeaderLength,
    Encoding,
    Member,
    ExtField,
    Body,
    /// Field of a stored message, in every reply that contains the message.
    Stored,
    /// The reply is replaced by one recorded from a real server for the same code.
    Recorded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    LessByOne,
    MoreByOne,
    Negative,
    Huge,
    Zero,
    Missing,
    Twice,
    OtherType,
    Foreign,
    Unknown,
    Truncated,
}

const PLACES: [Place; 8] = [
    Place::FrameLength,
    Place::HeaderLength,
    Place::Encoding,
    Place::Member,
    Place::ExtField,
    Place::Body,
    Place::Stored,
    Place::Recorded,
];
const HOWS: [How; 11] = [
    How::LessByOne,
    How::MoreByOne,
    How::Negative,
    How::Huge,
    How::Zero,
    How::Missing,
    How::Twice,
    How::OtherType,
    How::Foreign,
    How::Unknown,
    How::Truncated,
];

/// Every code that a producer and a consumer use.
const CODES: [RequestCode; 10] = [
    RequestCode::PULL_MESSAGE,
    RequestCode::SEND_MESSAGE_V2,
    RequestCode::GET_ROUTEINFO_BY_TOPIC,
    RequestCode::HEART_BEAT,
    RequestCode::GET_CONSUMER_LIST_BY_GROUP,
    RequestCode::QUERY_CONSUMER_OFFSET,
    RequestCode::UPDATE_CONSUMER_OFFSET,
    RequestCode::GET_MIN_OFFSET,
    RequestCode::CONSUMER_SEND_MSG_BACK,
    RequestCode::UNREGISTER_CLIENT,
];

/// splitmix64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.next() % from.len() as u64).unwrap()].clone()
    }
}

fn case(seed: u64) -> Vec<Wrong> {
    let mut random = Random(seed);
    let faults = 1 + random.next() % 3;
    (0..faults)
        .map(|_| {
            let place = random.pick(&PLACES);
            // Pulls carry most of the fields, and only they carry stored messages.
            let is_pull = place == Place::Stored || random.next().is_multiple_of(3);
            let code = if is_pull { RequestCode::PULL_MESSAGE } else { random.pick(&CODES) };
            let skip = usize::try_from(random.next() % 3).unwrap();
            Wrong { code, place, how: random.pick(&HOWS), choice: random.next(), skip }
        })
        .collect()
}

impl Wrong {
    /// Returns the fault, and the number of frames that it changed.
    fn fault(&self) -> (Fault, Arc<AtomicUsize>) {
        let (wrong, made) = (self.clone(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&made);
        let fault = Fault::alter(move |frame| {
            let Some(wrong) = wrong.made(&frame) else { return frame };
            count.fetch_add(1, Relaxed);
            wrong
        });
        let is_lasting = self.place == Place::Stored && !self.is_about_size();
        let fault = if is_lasting { fault } else { fault.skip(self.skip).times(2) };
        // The copies in the retry topic are correct.
        (if self.place == Place::Stored { fault.topic(TOPIC) } else { fault }, made)
    }

    fn field(&self) -> (&'static str, usize, usize) {
        STORED[self.chosen(STORED.len())]
    }

    fn is_about_size(&self) -> bool {
        self.field().0 == "size" || self.how == How::Truncated
    }

    fn chosen(&self, among: usize) -> usize {
        usize::try_from(self.choice % among.max(1) as u64).unwrap()
    }

    /// Returns the wrong frame; `None` if the reply has nothing to change in this way.
    fn made(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut decoder = FrameDecoder::new();
        decoder.push(frame);
        let reply = decoder.next_command().ok()??;
        match self.place {
            Place::FrameLength => Some(with_number(frame, 0, 4, self.how)),
            Place::HeaderLength => Some(with_number(frame, 5, 3, self.how)),
            Place::Encoding => Some(with_number(frame, 4, 1, How::Unknown)),
            Place::Member => Some(self.wrong_member(&reply)),
            Place::ExtField => self.wrong_ext_field(&reply),
            Place::Body => self.wrong_body(&reply),
            Place::Stored => self.wrong_message(&reply),
            Place::Recorded => self.recorded(&reply),
        }
    }

    fn wrong_member(&self, reply: &RemotingCommand) -> Vec<u8> {
        let mut members = members(reply);
        let at = self.chosen(members.len());
        change(&mut members, at, self.how);
        framed(&members, &reply.body)
    }

    fn wrong_ext_field(&self, reply: &RemotingCommand) -> Option<Vec<u8>> {
        let mut fields: Vec<(String, Vec<u8>)> =
            reply.ext_fields.iter().map(|(name, value)| (name.to_owned(), json_text(value))).collect();
        if fields.is_empty() {
            return None;
        }
        let at = self.chosen(fields.len());
        // A wrong number that a reader cannot distinguish from a correct one is not a fault.
        let is_offset = reply.ext_fields.get("offset").is_some();
        if is_offset && matches!(self.how, How::LessByOne | How::MoreByOne | How::Negative | How::Huge | How::Zero) {
            return None;
        }
        change(&mut fields, at, self.how);
        let mut members = members(reply);
        let ext_fields = members.iter_mut().find(|(name, _)| name == "extFields")?;
        ext_fields.1 = object(&fields);
        Some(framed(&members, &reply.body))
    }

    /// Changes one member of a JSON body, or the end of any other body.
    fn wrong_body(&self, reply: &RemotingCommand) -> Option<Vec<u8>> {
        if reply.body.is_empty() {
            return None;
        }
        let mut body = reply.body.to_vec();
        if let Ok(serde_json::Value::Object(map)) = serde_json::from_slice(&body) {
            if self.choice % 2 == 1 && self.how != How::Truncated {
                return Some(framed(&members(reply), &with_wrong_number(&body, self.chosen(1_000), self.how)));
            }
            if self.how != How::Truncated {
                let mut fields: Vec<(String, Vec<u8>)> =
                    map.into_iter().map(|(name, value)| (name, value.to_string().into_bytes())).collect();
                let at = self.chosen(fields.len());
                change(&mut fields, at, self.how);
                body = object(&fields);
                return Some(framed(&members(reply), &body));
            }
        }
        body.truncate(body.len() - 1 - self.chosen(body.len()));
        Some(framed(&members(reply), &body))
    }

    /// Changes always the same message of a queue.
    fn wrong_message(&self, reply: &RemotingCommand) -> Option<Vec<u8>> {
        let mut body = reply.body.to_vec();
        let marked = b"wrong";
        let text = body.windows(marked.len()).position(|window| window == marked)?;
        let start = text - 88;
        if self.how == How::Truncated {
            body.truncate(text);
        } else if self.how == How::Foreign || self.how == How::OtherType {
            // The tag, which is the first property.
            let tag = body[text..].windows(5).position(|window| window == b"TAGS\x01")?;
            body[text + tag + 5] = 0xFF;
        } else {
            let (_, at, length) = self.field();
            body = with_number(&body, start + at, length, self.how);
        }
        Some(framed(&members(reply), &body))
    }

    /// Returns a reply of a real server, with any content, under the opaque of this one.
    fn recorded(&self, reply: &RemotingCommand) -> Option<Vec<u8>> {
        let of_code: Vec<_> = recorded().iter().filter(|(code, _)| *code == self.code.0).collect();
        let (_, response) = of_code.get(self.chosen(of_code.len()))?;
        let text = |member: &str| response[member].as_str().map(str::to_owned);
        let code = text("code")?.split(['(', ')']).nth(1)?.parse().ok()?;
        let fields = response["fields"].as_object().cloned().unwrap_or_default();
        let fields: Vec<(String, Vec<u8>)> =
            fields.into_iter().map(|(name, value)| (name, value.to_string().into_bytes())).collect();
        // A recorded refusal is one here. A reply that contains a next offset would be correct in itself, but wrong
        // here.
        let leads_on = fields.iter().any(|(name, _)| name == "nextBeginOffset");
        if leads_on || code == 0 && self.code != RequestCode::HEART_BEAT {
            return None;
        }
        let mut members = members(&RemotingCommand { code, ..reply.clone() });
        let at = members.iter().position(|(name, _)| name == "extFields")?;
        members[at].1 = object(&fields);
        Some(framed(&members, b""))
    }
}

fn recorded() -> &'static [(i32, serde_json::Value)] {
    static RECORDED: OnceLock<Vec<(i32, serde_json::Value)>> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let files = [
            include_str!("../data/transcript-auto-create-4.9.7.json"),
            include_str!("../data/transcript-auto-create-5.5.0.json"),
            include_str!("../data/transcript-strict-4.9.7.json"),
            include_str!("../data/transcript-strict-5.5.0.json"),
        ];
        let steps = files.iter().flat_map(|file| serde_json::from_str::<Vec<serde_json::Value>>(file).unwrap());
        steps
            .filter_map(|step| {
                let code = step["request"]["code"].as_str()?.split(['(', ')']).nth(1)?.parse().ok()?;
                Some((code, step["response"].clone()))
            })
            .collect()
    })
}

/// Members of a header, each with its JSON.
fn members(reply: &RemotingCommand) -> Vec<(String, Vec<u8>)> {
    let fields: Vec<(String, Vec<u8>)> =
        reply.ext_fields.iter().map(|(name, value)| (name.to_owned(), json_text(value))).collect();
    let number = |number: i32| number.to_string().into_bytes();
    [
        ("code", number(reply.code)),
        ("extFields", object(&fields)),
        ("flag", number(reply.flag)),
        ("language", b"\"JAVA\"".to_vec()),
        ("opaque", number(reply.opaque)),
        ("remark", json_text(reply.remark.as_deref().unwrap_or("none"))),
        ("serializeTypeCurrentRPC", b"\"JSON\"".to_vec()),
        ("version", number(reply.version)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

fn json_text(text: &str) -> Vec<u8> {
    serde_json::Value::from(text).to_string().into_bytes()
}

fn object(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut json = b"{".to_vec();
    for (index, (name, value)) in members.iter().enumerate() {
        json.extend_from_slice(if index == 0 { b"" } else { b"," });
        json.extend(json_text(name));
        json.push(b':');
        json.extend(value);
    }
    json.push(b'}');
    json
}

fn framed(members: &[(String, Vec<u8>)], body: &[u8]) -> Vec<u8> {
    let header = object(members);
    let length = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
    [&length(4 + header.len() + body.len())[..], &length(header.len()), &header, body].concat()
}

/// Changes one member.
fn change(members: &mut Vec<(String, Vec<u8>)>, at: usize, how: How) {
    let (name, value) = members[at].clone();
    let text = String::from_utf8_lossy(&value).trim_matches('"').to_owned();
    let number: i128 = text.parse().unwrap_or(1);
    let quoted = |number: i128| {
        if value.starts_with(b"\"") { json_text(&number.to_string()) } else { number.to_string().into() }
    };
    members[at].1 = match how {
        How::LessByOne => quoted(number - 1),
        How::MoreByOne => quoted(number + 1),
        How::Negative => quoted(-number - 1),
        How::Huge => quoted(i128::from(i64::MAX) + 1),
        How::Zero => quoted(0),
        How::Missing => {
            members.remove(at);
            return;
        }
        How::Twice => {
            members.insert(at, (name, b"[null]".to_vec()));
            return;
        }
        How::OtherType if value.starts_with(b"\"") => {
            text.parse::<i64>().map_or_else(|_| b"{}".to_vec(), |_| text.into_bytes())
        }
        How::OtherType => json_text(&text),
        How::Foreign => [&b"\""[..], b"\xC7\xE0\xFF", b"\""].concat(),
        How::Unknown => json_text("UNKNOWN_VALUE"),
        How::Truncated => value[..value.len() / 2].to_vec(),
    };
}

/// Returns JSON with one of its numbers changed, at any depth.
fn with_wrong_number(json: &[u8], which: usize, how: How) -> Vec<u8> {
    let is_start = |at: &usize| json[*at].is_ascii_digit() && (*at == 0 || !json[at - 1].is_ascii_alphanumeric());
    let starts: Vec<usize> = (0..json.len()).filter(is_start).collect();
    let Some(&start) = starts.get(which % starts.len().max(1)) else { return json.to_vec() };
    let length = json[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut member = vec![(String::new(), json[start..start + length].to_vec())];
    change(&mut member, 0, how);
    let wrong = member.pop().map_or_else(|| b"null".to_vec(), |(_, wrong)| wrong);
    [&json[..start], &wrong, &json[start + length..]].concat()
}

/// Replaces a number of this many bytes.
fn with_number(bytes: &[u8], at: usize, length: usize, how: How) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let old = bytes[at..at + length].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let new = match how {
        How::LessByOne => old.wrapping_sub(1),
        How::MoreByOne => old.wrapping_add(1),
        How::Negative | How::Twice => u64::MAX - 30_000,
        How::Huge | How::OtherType => u64::MAX >> (64 - 8 * length + 1),
        How::Zero | How::Missing => 0,
        How::Foreign => 70_000,
        How::Unknown => 0x0707_0707_0707_0707,
        How::Truncated => old / 2,
    };
    bytes[at..at + length].copy_from_slice(&new.to_be_bytes()[8 - length..]);
    bytes
}

/// Runs a mini broker with a producer and a consumer whose replies have the faults.
fn run(case: &[Wrong], release: Release) -> Result<(), String> {
    let mini = MiniBroker::builder().release(release).start().map_err(|error| error.to_string())?;
    mini.create_topic(TOPIC, 2);
    mini.set_delay_levels([Duration::from_millis(20); 18]);
    let stored = |round: usize| {
        for (number, body) in ["good", "wrong", "good"].into_iter().enumerate() {
            let message = Message::new(TOPIC, format!("{body} {round} {number}")).with_tag("A");
            mini.store(&MessageQueue::new(TOPIC, "broker-a", 0), &message);
        }
    };
    stored(0);
    let inject = |wrong: &Wrong| {
        let (fault, made) = wrong.fault();
        mini.fail(wrong.code, fault);
        made
    };
    let made: Vec<_> = case.iter().map(inject).collect();
    let client = Client::builder()
        .name_servers(mini.name_servers())
        .silence_limit(Duration::from_millis(500))
        .request_timeout(Duration::from_millis(500))
        .route_interval(Duration::from_millis(500))
        .heartbeat_interval(Duration::from_millis(500))
        .rebalance_interval(Duration::from_millis(500))
        .offset_interval(Duration::from_millis(100))
        .start()
        .map_err(|error| error.to_string())?;
    let consumed = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = Arc::clone(&consumed);
    let consumer = PushConsumer::builder(GROUP)
        .client(&client)
        .subscribe(TOPIC, FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .each(move |message: &MessageExt| {
            let text = String::from_utf8_lossy(message.body()).into_owned();
            // An occasional failure makes the client send messages back.
            let fails = text.starts_with("fails") && message.reconsume_times() == 0;
            seen.lock().insert(text);
            if fails { Err("as the case wants it".into()) } else { Ok(()) }
        })
        .start()
        .map_err(|error| error.to_string())?;
    let producer = Producer::builder("senders").client(&client).send_timeout(Duration::from_secs(3)).start();
    let producer = producer.map_err(|error| error.to_string())?;
    for round in 1..=4 {
        stored(round);
        // A send may fail because of the fault; stored messages must be consumed.
        let _ = producer.send(&Message::new(TOPIC, format!("sent {round}")));
        let _ = producer.send(&Message::new(TOPIC, format!("fails {round}")));
    }
    let deadline = Instant::now() + NO_STALL;
    loop {
        let wanted: BTreeSet<String> =
            mini.messages(TOPIC).iter().map(|message| String::from_utf8_lossy(message.body()).into_owned()).collect();
        let missing: Vec<String> = wanted.difference(&consumed.lock()).cloned().collect();
        if missing.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            let queues: Vec<_> = consumer.queues().iter().map(|queue| consumer.status(queue)).collect();
            return Err(format!("not consumed after {NO_STALL:?}: {missing:?}; {queues:?}"));
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    await_warnings(case, &made, &mini)?;
    mini.clear_faults();
    consumer.shutdown(Duration::from_secs(10));
    producer.shutdown(Duration::from_secs(10));
    drop(client);
    if cfg!(target_os = "linux") && memory() > MEMORY {
        return Err(format!("{} KiB of memory", memory()));
    }
    *MET.lock() += made.iter().map(|made| made.load(Relaxed)).sum::<usize>();
    Ok(())
}

/// Number of wrong frames of all cases.
static MET: Mutex<usize> = Mutex::new(0);

/// Warnings of all worlds, which are distinguished by their addresses.
static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// An invalid frame is named, with its sender.
fn await_warnings(case: &[Wrong], made: &[Arc<AtomicUsize>], mini: &MiniBroker) -> Result<(), String> {
    let places = [Place::FrameLength, Place::HeaderLength, Place::Encoding];
    let is_named = |wrong: &Wrong| places.contains(&wrong.place);
    if !case.iter().zip(made).any(|(wrong, made)| is_named(wrong) && made.load(Relaxed) > 0) {
        return Ok(());
    }
    let mut servers = mini.name_servers();
    servers.push(mini.broker_address("broker-a").to_string());
    let deadline = Instant::now() + NO_STALL;
    while !WARNINGS.lock().iter().any(|line| servers.iter().any(|server| line.contains(server.as_str()))) {
        if Instant::now() > deadline {
            return Err("no warning names the peer".to_owned());
        }
        thread::park_timeout(Duration::from_millis(5));
    }
    Ok(())
}

/// Memory of this process, in KiB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// Returns the shortest part of a failing case that also fails.
fn shortest(case: &[Wrong], release: Release, error: String) -> (Vec<Wrong>, String) {
    if case.len() > 1 {
        for wrong in case {
            let alone = vec![wrong.clone()];
            if let Err(error) = run(&alone, release) {
                return (alone, error);
            }
        }
    }
    (case.to_vec(), error)
}

fn seeds() -> (u64, u64) {
    let Ok(text) = std::env::var("PEER_SEEDS") else { return (0, SEEDS) };
    let number = |text: &str| text.trim().parse().expect("PEER_SEEDS is a count or a range first..end");
    text.split_once("..").map_or_else(|| (0, number(&text)), |(first, end)| (number(first), number(end)))
}

fn release_of(seed: u64) -> Release {
    if seed.is_multiple_of(2) { Release::V5_5_0 } else { Release::V4_9_7 }
}

#[test]
fn one_wrong_field_in_a_reply_costs_no_good_message_and_stalls_nothing() {
    alone("peers::one_wrong_field_in_a_reply_costs_no_good_message_and_stalls_nothing", || {
        hear_log(LevelFilter::Warn, |record| WARNINGS.lock().push(record.args().to_string()));
        let (first, end) = seeds();
        let failures = failures_of(first, end);
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        let met = *MET.lock();
        assert!(met as u64 >= (end - first) / 2, "only {met} frames were wrong");
    });
}

/// Runs cases in parallel until one fails.
fn failures_of(first: u64, end: u64) -> Vec<String> {
    let (next, failures) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= end || !failures.lock().is_empty() {
                return;
            }
            let case = case(seed);
            if let Err(error) = run(&case, release_of(seed)) {
                let (case, error) = shortest(&case, release_of(seed), error);
                failures.lock().push(format!("PEER_SEEDS={seed}..{}: {case:?}: {error}", seed + 1));
            }
        }
    };
    thread::scope(|scope| (0..SIDE_BY_SIDE).for_each(|_| drop(scope.spawn(work))));
    failures.into_inner()
}
