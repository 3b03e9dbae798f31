//! A fixed script of requests whose answers are compared with those of Apache RocketMQ 4.9.7 and 5.5.0.
//!
//! The Apache binary holds the live servers against `tests/data/transcript-*.json` (and writes them when
//! `RECORD_TRANSCRIPT` is set); the mini broker is held against the same files. Nothing here uses the client or its
//! decoders of bodies: a mistake made on both sides would stay unseen. What differs from run to run stands as `<name>`.

mod script;
mod stored_message;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rocketmq_sync::wire::{HeaderEncoding, RemotingCommand};
use serde_json::{Map, Value, json};

use super::raw::Connection;
use super::{Cluster, Server};

/// Bodies longer than this are told by their length.
const LONGEST_BODY: usize = 300;

/// The unique ids that the script gives its messages begin like this; a 5.x broker makes others.
const OWN_IDS: &str = "7F0000010001";

/// Plays the script on a cluster of [`Profile::STRICT`](super::Profile::STRICT); one entry per request.
pub(crate) fn record_strict(cluster: &dyn Cluster) -> Vec<Value> {
    let mut recorder = Recorder::open(cluster);
    script::strict(&mut recorder, cluster);
    recorder.entries
}

/// Plays the part of the script that needs topics created by sends, on [`Profile::STANDARD`](super::Profile::STANDARD).
pub(crate) fn record_auto_create(cluster: &dyn Cluster) -> Vec<Value> {
    let mut recorder = Recorder::open(cluster);
    script::auto_create(&mut recorder);
    recorder.entries
}

/// What the real server of this version answered to the part of the script named `part`.
pub(crate) fn stored(server: Server, part: &str) -> Vec<Value> {
    let file = file(server, part);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).expect("a transcript is a list")
}

/// Where the transcript of this version lies.
pub(crate) fn file(server: Server, part: &str) -> PathBuf {
    let version = match server {
        Server::Apache4 => "4.9.7",
        Server::Apache5 => "5.5.0",
        Server::Mini => panic!("the mini broker is compared with the real ones"),
    };
    [env!("CARGO_MANIFEST_DIR"), "tests", "data", &format!("transcript-{part}-{version}.json")].iter().collect()
}

/// The steps that were answered otherwise, in words; empty when all is the same.
pub(crate) fn differences(stored: &[Value], live: &[Value]) -> Vec<String> {
    let name = |entry: &Value| entry["step"].as_str().unwrap_or_default().to_owned();
    let mut found: Vec<_> = stored
        .iter()
        .zip(live)
        .filter(|(stored, live)| stored != live)
        .map(|(stored, live)| {
            let (stored_answer, live_answer) = (&stored["response"], &live["response"]);
            format!("{}:\n  stored {stored_answer}\n  live   {live_answer}", name(stored))
        })
        .collect();
    if stored.len() != live.len() {
        found.push(format!("{} steps are stored, {} were played", stored.len(), live.len()));
    }
    found
}

/// To whom a request of the script goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    NameServer,
    Broker,
}

/// Sends the requests of the script, each kind of server on one connection, and writes down what came back.
pub(crate) struct Recorder {
    name_server: Connection,
    broker: Connection,
    /// Addresses of the cluster and what stands for them.
    placeholders: Vec<(String, String)>,
    entries: Vec<Value>,
}

impl Recorder {
    fn open(cluster: &dyn Cluster) -> Self {
        let name_server = *cluster.name_servers().first().expect("a name server");
        let broker = cluster.brokers().first().expect("a broker").address;
        let open = |address: SocketAddr| Connection::open(address).expect("a connection");
        let named = cluster.brokers().iter().map(|broker| (broker.address.to_string(), format!("<{}>", broker.name)));
        let broker = open(broker);
        let client = (broker.local_address().to_string(), "<client>".to_owned());
        let host = ("127.0.0.1".to_owned(), "<host>".to_owned());
        Self {
            name_server: open(name_server),
            broker,
            placeholders: named.chain([client, host]).collect(),
            entries: Vec::new(),
        }
    }

    /// Sends a request and waits for its answer.
    #[expect(clippy::needless_pass_by_value, reason = "the script needs no borrow at every step")]
    pub(crate) fn ask(&mut self, step: &str, peer: Peer, request: RemotingCommand) -> RemotingCommand {
        let opaque = self.send(peer, request.clone());
        self.note_answer(step, peer, &request, opaque, Duration::from_secs(30)).expect("an answer")
    }

    /// Asks what is not to be written down, or only in another form.
    pub(crate) fn ask_unlisted(&mut self, peer: Peer, request: RemotingCommand) -> RemotingCommand {
        self.connection(peer).request(request, Duration::from_secs(30)).expect("an answer")
    }

    /// Sends a request whose answer is awaited later.
    pub(crate) fn send(&mut self, peer: Peer, request: RemotingCommand) -> i32 {
        self.connection(peer).send(request).expect("an open connection")
    }

    /// Awaits and writes down the answer to an earlier request.
    pub(crate) fn note_answer(
        &mut self,
        step: &str,
        peer: Peer,
        request: &RemotingCommand,
        opaque: i32,
        within: Duration,
    ) -> Option<RemotingCommand> {
        let answer = match self.connection(peer).answer(opaque, within) {
            Ok(answer) => Some(answer),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => None,
            Err(error) => panic!("{step}: {error}"),
        };
        self.note_outcome(step, peer, request, answer.as_ref());
        answer
    }

    /// Writes down a request and its answer.
    pub(crate) fn note(&mut self, step: &str, peer: Peer, request: &RemotingCommand, answer: &RemotingCommand) {
        self.note_outcome(step, peer, request, Some(answer));
    }

    fn note_outcome(&mut self, step: &str, peer: Peer, request: &RemotingCommand, answer: Option<&RemotingCommand>) {
        self.entries.push(json!({
            "step": step,
            "to": if peer == Peer::Broker { "broker" } else { "name server" },
            "request": self.describe_request(request),
            "response": answer.map_or_else(|| json!("none"), |answer| self.describe_response(request, answer)),
        }));
    }

    fn connection(&mut self, peer: Peer) -> &mut Connection {
        match peer {
            Peer::NameServer => &mut self.name_server,
            Peer::Broker => &mut self.broker,
        }
    }

    fn describe_request(&self, request: &RemotingCommand) -> Value {
        let mut description = self.describe(request);
        description.insert("code".into(), request.request_code().to_string().into());
        description.insert("body".into(), self.text(&request.body));
        drop_empty(description)
    }

    fn describe_response(&self, request: &RemotingCommand, response: &RemotingCommand) -> Value {
        let mut description = self.describe(response);
        description.insert("code".into(), response.response_code().to_string().into());
        description
            .insert("remark".into(), self.describe_remark(response.remark.as_deref().unwrap_or_default()).into());
        description.insert("body".into(), self.describe_body(request, &response.body));
        drop_empty(description)
    }

    /// The lines behind the first are an address of documents; of an uncaught exception all but its class is words.
    fn describe_remark(&self, remark: &str) -> String {
        let first_line = remark.lines().next().unwrap_or_default();
        match first_line.split_once(": ") {
            Some((class, _)) if class.starts_with("java.") => class.to_owned(),
            _ => self.without_addresses(first_line),
        }
    }

    fn describe(&self, command: &RemotingCommand) -> Map<String, Value> {
        let fields: Map<String, Value> = command
            .ext_fields
            .iter()
            .map(|(name, value)| (name.to_owned(), self.describe_field(name, value).into()))
            .collect();
        let encoding = match command.encoding {
            HeaderEncoding::Json => "JSON",
            HeaderEncoding::RocketMq => "ROCKETMQ",
        };
        Map::from_iter([("encoding".into(), encoding.into()), ("fields".into(), drop_empty(fields))])
    }

    /// Ids and times of the server's making are as long as they are, but otherwise new in every run.
    fn describe_field(&self, name: &str, value: &str) -> String {
        match name {
            "msgId" => {
                let ids: Vec<_> = value.split(',').map(|id| format!("<offset id of {} digits>", id.len())).collect();
                ids.join(",")
            }
            "transactionId" if !value.starts_with(OWN_IDS) => "<unique id>".to_owned(),
            "offset" | "timestamp" if value.len() == "1700000000000".len() => "<time>".to_owned(),
            _ => self.without_addresses(value),
        }
    }

    fn describe_body(&self, request: &RemotingCommand, body: &[u8]) -> Value {
        match stored_message::decode_all(request.request_code(), body) {
            Some(messages) => messages.into_iter().map(|message| message.describe()).collect(),
            None => self.json(body).unwrap_or_else(|| self.text(body)),
        }
    }

    fn json(&self, body: &[u8]) -> Option<Value> {
        let text = self.without_addresses(std::str::from_utf8(body).ok()?);
        let mut value: Value = serde_json::from_str(&text).ok()?;
        // Servers list the parts of a route in the order of a hash map.
        for list in ["brokerDatas", "queueDatas"] {
            if let Some(parts) = value.get_mut(list).and_then(Value::as_array_mut) {
                parts.sort_unstable_by_key(|part| part["brokerName"].to_string());
            }
        }
        Some(value)
    }

    fn text(&self, body: &[u8]) -> Value {
        self.without_addresses(&short_text(body)).into()
    }

    fn without_addresses(&self, text: &str) -> String {
        self.placeholders
            .iter()
            .fold(text.to_owned(), |text, (address, placeholder)| text.replace(address, placeholder))
    }
}

/// The bytes as text, or their number when they are many.
fn short_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= LONGEST_BODY => text.to_owned(),
        _ => format!("<{} bytes>", bytes.len()),
    }
}

/// Absent and empty are the same on the wire.
fn drop_empty(mut map: Map<String, Value>) -> Value {
    map.retain(|_, value| *value != json!("") && *value != json!({}));
    map.into()
}
