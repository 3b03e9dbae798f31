//! Fixed script of requests whose responses are compared with those of Apache RocketMQ 4.9.7 and 5.5.0.
//!
//! The Apache binary compares the live servers with `tests/data/transcript-*.json` (and writes them if
//! `RECORD_TRANSCRIPT` is set); the mini broker is compared with the same files. Nothing here uses the client or its
//! decoders of bodies, since a mistake made on both sides would stay undetected. Values that differ from run to run are
//! written as `<name>`.

mod script;
mod stored_message;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rocketmq_sync::unversioned::wire::{HeaderEncoding, RemotingCommand};
use serde_json::{Map, Value, json};

use super::raw::Connection;
use super::{Cluster, Server};

/// Length above which a body is written as its length.
const LONGEST_BODY: usize = 300;

/// Prefix of the unique ids that the script gives its messages; a 5.x broker makes others.
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

/// Responses of the real server of this version to the part of the script named `part`.
pub(crate) fn stored(server: Server, part: &str) -> Vec<Value> {
    let file = file(server, part);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).expect("a transcript is a list")
}

/// Path of this version's transcript.
pub(crate) fn file(server: Server, part: &str) -> PathBuf {
    let version = match server {
        Server::Apache4 => "4.9.7",
        Server::Apache5 => "5.5.0",
        Server::Mini => panic!("the mini broker is compared with the real ones"),
    };
    [env!("CARGO_MANIFEST_DIR"), "tests", "data", &format!("transcript-{part}-{version}.json")].iter().collect()
}

/// Returns the differing parts of the responses, one line each; empty if all are equal.
pub(crate) fn differences(stored: &[Value], live: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for (stored, live) in stored.iter().zip(live) {
        compare(stored["step"].as_str().unwrap_or_default(), stored, live, &mut found);
    }
    if stored.len() != live.len() {
        found.push(format!("{} steps are stored, {} were played", stored.len(), live.len()));
    }
    found
}

fn compare(path: &str, stored: &Value, live: &Value, found: &mut Vec<String>) {
    match (stored, live) {
        (Value::Object(stored), Value::Object(live)) => {
            let names: BTreeSet<_> = stored.keys().chain(live.keys()).collect();
            for name in names {
                let part = |object: &Map<String, Value>| object.get(name).cloned().unwrap_or_default();
                compare(&format!("{path} / {name}"), &part(stored), &part(live), found);
            }
        }
        (Value::Array(stored), Value::Array(live)) if stored.len() == live.len() => {
            for (index, (stored, live)) in stored.iter().zip(live).enumerate() {
                compare(&format!("{path} / {index}"), stored, live, found);
            }
        }
        _ if stored == live || is_exception(stored) => {}
        _ => found.push(format!("{path}:\n  stored {stored}\n  live   {live}")),
    }
}

/// A server that is not written in Java fails with other texts.
fn is_exception(remark: &Value) -> bool {
    remark.as_str().is_some_and(|remark| remark.starts_with("java."))
}

/// Destination of a request of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    NameServer,
    Broker,
}

/// Sends the requests of the script, each kind of server on one connection, and records the responses.
pub(crate) struct Recorder {
    name_server: Connection,
    broker: Connection,
    /// Addresses of the cluster and their placeholders.
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

    /// Sends a request and waits for its response.
    #[expect(clippy::needless_pass_by_value, reason = "the script needs no borrow at every step")]
    pub(crate) fn ask(&mut self, step: &str, peer: Peer, request: RemotingCommand) -> RemotingCommand {
        let opaque = self.send(peer, request.clone());
        self.note_answer(step, peer, &request, opaque, Duration::from_secs(30)).expect("an answer")
    }

    /// Sends a request whose response is not recorded, or only in another form.
    pub(crate) fn ask_unlisted(&mut self, peer: Peer, request: RemotingCommand) -> RemotingCommand {
        self.connection(peer).request(request, Duration::from_secs(30)).expect("an answer")
    }

    /// Sends a request whose response is awaited later.
    pub(crate) fn send(&mut self, peer: Peer, request: RemotingCommand) -> i32 {
        self.connection(peer).send(request).expect("an open connection")
    }

    /// Awaits and records the response to an earlier request.
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

    /// Records a request and its response.
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

    /// Describes a remark. Its lines after the first are an address of documents; of an uncaught exception only the
    /// class is kept.
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

    /// Describes a field. Ids and times made by the server have a fixed length, and differ in every run.
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
        let Ok(mut value) = serde_json::from_str::<Value>(&text) else {
            let fastjson: Value = serde_json::from_str(&with_quoted_keys(&text)).ok()?;
            return Some(json!({ "with bare keys": fastjson }));
        };
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

/// fastjson writes whole numbers as keys without quotes.
fn with_quoted_keys(text: &str) -> String {
    let mut quoted = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', ',']) {
        let (head, tail) = rest.split_at(at + 1);
        quoted.push_str(head);
        let digits = tail.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = tail.split_at(digits);
        let is_key = digits > 0 && tail.starts_with(':');
        quoted.push_str(&if is_key { format!("\"{number}\"") } else { number.to_owned() });
        rest = tail;
    }
    quoted + rest
}

/// Returns the bytes as text, or their number if there are many.
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
