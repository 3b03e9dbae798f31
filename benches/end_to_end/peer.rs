//! Peer of the bench: name server and broker in one process, which answers at once and counts its requests.
//!
//! A thread for each connection reads large blocks, answers every complete request of one read with one write, and
//! reads only two places of a send. Rare requests go through the library's decoder. Pulls get messages only as far as
//! the bench has granted them. The others wait as at a broker without messages, so that a consumer rests between
//! rounds.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rocketmq_sync::unversioned::wire::{ExtFields, FieldSink, RemotingCommand, RequestCode, ResponseCode};

use super::answers::Answers;
use super::control::{self, Tally};
use super::frames::{self, FrameBuffer, Head};
use super::{BROKER_NAME, MESSAGES_PER_PULL, QUEUES, Result, TOPIC};

/// Time after which a pull without messages is answered; brokers use the client's value, 15 s.
const PULL_PATIENCE: Duration = Duration::from_secs(15);
/// Time that the bench waits for one-way sends to arrive.
const ONEWAY_PATIENCE: Duration = Duration::from_secs(20);
/// End offset of every queue, for queries; it is never reached.
const MAX_OFFSET: i64 = 1 << 40;

/// Addresses of a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) name_server: SocketAddr,
    pub(crate) broker: SocketAddr,
}

/// Serves until standard input ends; its two addresses are first written to standard output.
pub(crate) fn main() -> Result<()> {
    let name_server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let broker = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{} {}", name_server.local_addr()?, broker.local_addr()?);
    let peer = Arc::new(Peer {
        broker: broker.local_addr()?,
        answers: Answers::new()?,
        state: Mutex::default(),
        oneways_came: Condvar::new(),
    });
    for listener in [name_server, broker] {
        let peer = Arc::clone(&peer);
        start("accept", move || peer.accept(&listener))?;
    }
    start("patience", move || peer.end_long_waits())?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

struct Peer {
    broker: SocketAddr,
    answers: Answers,
    state: Mutex<State>,
    oneways_came: Condvar,
}

#[derive(Default)]
struct State {
    tally: Tally,
    /// Number of pulls that may still get messages.
    granted: u64,
    waiting: Vec<WaitingPull>,
    /// Expected offset of the next pull of each queue.
    next_offsets: HashMap<usize, i64>,
    committed: HashMap<usize, i64>,
    consumers: HashSet<String>,
    /// Recent frame by request code.
    captured: HashMap<i32, Vec<u8>>,
}

struct WaitingPull {
    pull: Pull,
    connection: Arc<Connection>,
    since: Instant,
}

struct Pull {
    head: Head,
    /// Number of the queue; `None` for a queue that never has messages.
    queue: Option<usize>,
    offset: i64,
}

/// Write side of a connection: used by the connection's own thread, and by a thread that grants pulls.
struct Connection {
    stream: Mutex<TcpStream>,
}

impl Connection {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.stream.lock().write_all(bytes)
    }
}

impl Peer {
    fn accept(self: &Arc<Self>, listener: &TcpListener) -> Result<()> {
        loop {
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            let peer = Arc::clone(self);
            start("connection", move || peer.serve(stream))?;
        }
    }

    /// Runs until the connection ends.
    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        let connection = Arc::new(Connection { stream: Mutex::new(stream.try_clone()?) });
        let mut buffer = FrameBuffer::new();
        let mut out = Vec::new();
        let mut sends: u64 = 0;
        while buffer.fill(&mut stream).is_ok() {
            let (mut two_way, mut oneway) = (0, 0);
            while let Some(frame) = buffer.next_frame() {
                let Some(head) = Head::scan(frame) else { return Err("a frame in an unknown order".into()) };
                if !is_send(head.code) {
                    self.answer(head, frame, &connection, &mut out)?;
                    continue;
                }
                sends += 1;
                if sends.is_power_of_two() {
                    self.state.lock().captured.insert(head.code, frame.to_vec());
                }
                if head.oneway {
                    oneway += 1;
                } else {
                    two_way += 1;
                    self.answers.send_stored(head, &mut out);
                }
            }
            self.count(two_way, oneway);
            if !out.is_empty() {
                connection.write(&out)?;
                out.clear();
            }
        }
        Ok(())
    }

    fn count(&self, two_way: u64, oneway: u64) {
        if two_way + oneway == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.tally.sends += two_way;
        state.tally.oneways += oneway;
        drop(state);
        if oneway > 0 {
            self.oneways_came.notify_all();
        }
    }

    fn answer(&self, head: Head, frame: &[u8], connection: &Arc<Connection>, out: &mut Vec<u8>) -> Result<()> {
        let request = frames::decode(frame)?;
        let reply = match request.request_code() {
            RequestCode::PULL_MESSAGE => return self.pull(head, &request, frame, connection, out),
            control::GRANT => {
                self.grant(control::number(&request.ext_fields, control::COUNT)?)?;
                success(&request)
            }
            control::AWAIT_ONEWAYS => self.await_oneways(&request)?,
            _ => self.state.lock().reply(&request, self.broker)?,
        };
        if !request.is_oneway() {
            append(&reply, out)?;
        }
        Ok(())
    }

    /// Answers a pull, or lets it wait for a grant.
    fn pull(
        &self,
        head: Head,
        request: &RemotingCommand,
        frame: &[u8],
        connection: &Arc<Connection>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let pull = Pull::from_request(head, request)?;
        let mut state = self.state.lock();
        state.captured.insert(head.code, frame.to_vec());
        state.commit(&request.ext_fields, "commitOffset", commits(&request.ext_fields))?;
        match pull.queue {
            Some(queue) if state.granted > 0 => {
                state.serve(queue, pull.offset);
                drop(state);
                self.answers.messages(head, queue, pull.offset, out)
            }
            _ => {
                let connection = Arc::clone(connection);
                state.waiting.push(WaitingPull { pull, connection, since: Instant::now() });
                Ok(())
            }
        }
    }

    fn grant(&self, pulls: u64) -> Result<()> {
        let served = {
            let mut state = self.state.lock();
            state.granted += pulls;
            state.serve_waiting()
        };
        for WaitingPull { pull, connection, .. } in served {
            let mut out = Vec::new();
            self.answers.messages(pull.head, pull.queue.unwrap_or_default(), pull.offset, &mut out)?;
            // A client that has disconnected does not affect the others.
            let _ = connection.write(&out);
        }
        Ok(())
    }

    fn await_oneways(&self, request: &RemotingCommand) -> Result<RemotingCommand> {
        let count = control::number(&request.ext_fields, control::COUNT)?;
        let mut state = self.state.lock();
        let waited = self.oneways_came.wait_while_for(&mut state, |state| state.tally.oneways < count, ONEWAY_PATIENCE);
        if !waited.timed_out() {
            return Ok(success(request));
        }
        let remark = format!("{} of {count} one-way sends came in", state.tally.oneways);
        Ok(RemotingCommand::response_to(request, ResponseCode::SYSTEM_ERROR, Some(remark)))
    }

    /// Answers the pulls that have waited long enough, without messages.
    fn end_long_waits(&self) -> Result<()> {
        loop {
            thread::park_timeout(Duration::from_secs(1));
            let ended: Vec<_> =
                self.state.lock().waiting.extract_if(.., |waiting| waiting.since.elapsed() > PULL_PATIENCE).collect();
            for WaitingPull { pull, connection, .. } in ended {
                let mut out = Vec::new();
                append(&pull.nothing_new(), &mut out)?;
                // See `grant`.
                let _ = connection.write(&out);
            }
        }
    }
}

impl State {
    /// Replies to requests that are not on the hot path.
    fn reply(&mut self, request: &RemotingCommand, broker: SocketAddr) -> Result<RemotingCommand> {
        let fields = &request.ext_fields;
        Ok(match request.request_code() {
            RequestCode::GET_ROUTEINFO_BY_TOPIC => success(request).with_body(route(fields, broker)?),
            RequestCode::HEART_BEAT => {
                self.heartbeat(&request.body)?;
                success(request)
            }
            RequestCode::GET_CONSUMER_LIST_BY_GROUP => {
                success(request).with_body(serde_json::json!({ "consumerIdList": self.consumers }).to_string())
            }
            RequestCode::UNREGISTER_CLIENT => {
                self.consumers.remove(fields.get("clientID").unwrap_or_default());
                success(request)
            }
            RequestCode::QUERY_CONSUMER_OFFSET => match queue_of(fields)? {
                Some(queue) => offset(request, self.committed.get(&queue).copied().unwrap_or(0)),
                None => offset(request, 0),
            },
            RequestCode::UPDATE_CONSUMER_OFFSET => {
                self.commit(fields, "commitOffset", true)?;
                success(request)
            }
            RequestCode::GET_MAX_OFFSET => offset(request, MAX_OFFSET),
            RequestCode::GET_MIN_OFFSET | RequestCode::SEARCH_OFFSET_BY_TIMESTAMP => offset(request, 0),
            RequestCode::CONSUMER_SEND_MSG_BACK => {
                self.tally.send_backs += 1;
                success(request)
            }
            control::REPORT => success(request).with_body(serde_json::to_vec(&self.report()?)?),
            control::CAPTURED => {
                let code = i32::try_from(control::number(fields, control::CODE)?)?;
                let frame = self.captured.get(&code).ok_or("no such request came in")?;
                success(request).with_body(frame.clone())
            }
            _ => {
                self.tally.unknown += 1;
                RemotingCommand::response_to(request, ResponseCode::REQUEST_CODE_NOT_SUPPORTED, None)
            }
        })
    }

    fn heartbeat(&mut self, body: &[u8]) -> Result<()> {
        self.tally.heartbeats += 1;
        let heartbeat: serde_json::Value = serde_json::from_slice(body)?;
        let consumes = heartbeat["consumerDataSet"].as_array().is_some_and(|groups| !groups.is_empty());
        if let (true, Some(client_id)) = (consumes, heartbeat["clientID"].as_str()) {
            self.consumers.insert(client_id.to_owned());
        }
        Ok(())
    }

    fn commit(&mut self, fields: &ExtFields, key: &str, really: bool) -> Result<()> {
        if let (true, Some(queue)) = (really, queue_of(fields)?) {
            self.committed.insert(queue, fields.get(key).ok_or("no offset to commit")?.parse()?);
        }
        Ok(())
    }

    fn serve(&mut self, queue: usize, offset: i64) {
        self.granted -= 1;
        self.tally.pulls += 1;
        let expected = self.next_offsets.insert(queue, offset + MESSAGES_PER_PULL as i64).unwrap_or(0);
        self.tally.misplaced_pulls += u64::from(expected != offset);
    }

    fn serve_waiting(&mut self) -> Vec<WaitingPull> {
        let mut served = Vec::new();
        while self.granted > 0 {
            let Some(at) = self.waiting.iter().position(|waiting| waiting.pull.queue.is_some()) else { break };
            let waiting = self.waiting.swap_remove(at);
            self.serve(waiting.pull.queue.unwrap_or_default(), waiting.pull.offset);
            served.push(waiting);
        }
        served
    }

    fn report(&self) -> Result<Tally> {
        let committed = u64::try_from(self.committed.values().sum::<i64>())?;
        Ok(Tally { committed, ..self.tally.clone() })
    }
}

impl Pull {
    fn from_request(head: Head, request: &RemotingCommand) -> Result<Self> {
        let offset = request.ext_fields.get("queueOffset").ok_or("a pull without offset")?.parse()?;
        Ok(Self { head, queue: queue_of(&request.ext_fields)?, offset })
    }

    fn nothing_new(&self) -> RemotingCommand {
        let mut fields = ExtFields::new();
        fields.number("maxOffset", self.offset);
        fields.number("minOffset", 0);
        fields.number("nextBeginOffset", self.offset);
        fields.number("suggestWhichBrokerId", 0);
        let mut request = RemotingCommand::request(RequestCode::PULL_MESSAGE, &());
        request.opaque = self.head.opaque;
        request.encoding = self.head.encoding;
        let code = ResponseCode::PULL_NOT_FOUND;
        RemotingCommand::response_to(&request, code, Some("OFFSET_OVERFLOW_ONE".into())).with_fields(&fields)
    }
}

fn is_send(code: i32) -> bool {
    code == RequestCode::SEND_MESSAGE_V2.0 || code == RequestCode::SEND_MESSAGE.0
}

/// Returns the queue of the topic that a request is about; `None` for another topic.
fn queue_of(fields: &ExtFields) -> Result<Option<usize>> {
    if fields.get("topic") != Some(TOPIC) {
        return Ok(None);
    }
    let queue: usize = fields.get("queueId").ok_or("no queue")?.parse()?;
    if queue < QUEUES { Ok(Some(queue)) } else { Err("no such queue".into()) }
}

/// True if a pull's system flag marks its commit offset as valid.
fn commits(fields: &ExtFields) -> bool {
    fields.get("sysFlag").and_then(|flag| flag.parse::<i32>().ok()).is_some_and(|flag| flag & 1 != 0)
}

/// Every other topic, such as that for retries, has one queue and no message.
fn route(fields: &ExtFields, broker: SocketAddr) -> Result<String> {
    let queues = if fields.get("topic").ok_or("no topic")? == TOPIC { QUEUES } else { 1 };
    let route = serde_json::json!({
        "brokerDatas": [{
            "brokerAddrs": { "0": broker.to_string() },
            "brokerName": BROKER_NAME,
            "cluster": "DefaultCluster",
        }],
        "filterServerTable": {},
        "queueDatas": [{
            "brokerName": BROKER_NAME,
            "perm": 6,
            "readQueueNums": queues,
            "topicSysFlag": 0,
            "writeQueueNums": queues,
        }],
    });
    Ok(route.to_string())
}

fn success(request: &RemotingCommand) -> RemotingCommand {
    RemotingCommand::response_to(request, ResponseCode::SUCCESS, None)
}

fn offset(request: &RemotingCommand, offset: i64) -> RemotingCommand {
    let mut fields = ExtFields::new();
    fields.number("offset", offset);
    success(request).with_fields(&fields)
}

fn append(reply: &RemotingCommand, out: &mut Vec<u8>) -> Result<()> {
    let mut bytes = Vec::new();
    reply.encode(&mut bytes)?;
    out.extend_from_slice(&bytes);
    Ok(())
}

/// Starts a thread that ends with the process; prints its errors.
fn start(name: &str, run: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let run = move || {
        if let Err(error) = run() {
            eprintln!("peer: {error}");
        }
    };
    thread::Builder::new().name(name.into()).spawn(run)?;
    Ok(())
}
