//! Java client in its own process, controlled line by line (`client/JavaClient.java`).
//!
//! A thread reads the output of the process: answers go to the caller, messages to a shared list. The process ends with
//! the value.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use rocketmq_sync::{Codec, Message, MessageQueue};

use crate::cluster::new_home;
use crate::jvm;
use crate::scenarios::Cluster;

/// Maximum time of one answer on a machine under heavy load.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct JavaClient {
    child: Child,
    home: PathBuf,
    commands: ChildStdin,
    answers: Receiver<Answer>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

/// First word of a line, and the texts after it.
type Answer = (String, Vec<Option<String>>);

/// Message at a listener of the Java client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The name of the consumer.
    pub(crate) to: String,
    pub(crate) id: String,
    pub(crate) broker: String,
    pub(crate) queue: i32,
    pub(crate) offset: i64,
    pub(crate) tag: Option<String>,
    pub(crate) keys: Option<String>,
    pub(crate) flag: i32,
    pub(crate) body: String,
    pub(crate) properties: BTreeMap<String, String>,
}

/// Receipt of a message sent by the Java client.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) id: String,
    pub(crate) queue: MessageQueue,
    pub(crate) offset: i64,
}

impl JavaClient {
    /// Starts a client of the cluster's own version.
    pub(crate) fn start(cluster: &dyn Cluster) -> Self {
        let home = new_home("client").expect("a folder");
        let errors = jvm::prepare(&home, &home.join("client.out")).expect("a file");
        let mut command = jvm::command(cluster.server(), &home).expect("run tests/run, which sets Java up");
        let mut child = command
            .arg("JavaClient")
            .arg(cluster.name_server_list())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("java starts");
        let (tell, answers) = unbounded();
        let arrivals = Arc::default();
        let (commands, output) = child.stdin.take().zip(child.stdout.take()).expect("both are piped");
        let seen = Arc::clone(&arrivals);
        std::thread::Builder::new().spawn(move || listen(output, &tell, &seen)).expect("a thread");
        Self { child, home, commands, answers, arrivals }
    }

    pub(crate) fn send(&mut self, message: &Message, codec: Option<Codec>) -> Sent {
        let codec = codec.map(|codec| format!("{codec:?}").to_uppercase());
        let body = String::from_utf8_lossy(message.body());
        let flag = message.flag().to_string();
        let mut texts =
            vec![codec.as_deref(), Some(message.topic()), message.tag(), message.keys(), Some(&flag), Some(&body)];
        let properties = message.properties();
        let own = properties.iter().filter(|(name, _)| !["TAGS", "KEYS", "WAIT"].contains(name));
        texts.extend(own.flat_map(|(name, value)| [Some(name), Some(value)]));
        let answer = self.command("send", &texts, "sent");
        let [id, broker, queue, offset] = answer.as_slice() else { panic!("{answer:?}") };
        let queue = MessageQueue::new(message.topic(), text(broker), number(queue));
        Sent { id: text(id), queue, offset: number(offset) }
    }

    /// Starts a consumer, from the first message on.
    pub(crate) fn consume(&mut self, name: &str, group: &str, topic: &str, expression: &str) {
        self.command("consume", &[Some(name), Some(group), Some(topic), Some(expression)], "consuming");
    }

    /// Queues currently assigned to a consumer.
    pub(crate) fn queues(&mut self, name: &str, topic: &str) -> Vec<MessageQueue> {
        let answer = self.command("queues", &[Some(name), Some(topic)], "queues");
        let queues = answer[1..].chunks_exact(2);
        queues.map(|queue| MessageQueue::new(topic, text(&queue[0]), number(&queue[1]))).collect()
    }

    /// Shuts a consumer down.
    pub(crate) fn end(&mut self, name: &str) {
        self.command("end", &[Some(name)], "ended");
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().clone()
    }

    fn command(&mut self, command: &str, texts: &[Option<&str>], expected: &str) -> Vec<Option<String>> {
        let words = texts.iter().map(|text| text.map_or_else(|| "-".to_owned(), hexadecimal));
        let line = std::iter::once(command.to_owned()).chain(words).collect::<Vec<_>>().join(" ");
        writeln!(self.commands, "{line}").expect("the Java client lives");
        match self.answers.recv_timeout(PATIENCE) {
            Ok((answer, texts)) if answer == expected => texts,
            answer => panic!("{command} {texts:?}: {answer:?}"),
        }
    }
}

impl Drop for JavaClient {
    fn drop(&mut self) {
        // A process that has ended needs no kill; files that cannot be removed now are removed at the next start.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

fn listen(output: ChildStdout, answers: &Sender<Answer>, arrivals: &Mutex<Vec<Arrival>>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let mut words = line.split(' ');
        let what = words.next().unwrap_or_default().to_owned();
        let texts: Vec<_> = words.map(|word| (word != "-").then(|| from_hexadecimal(word))).collect();
        if what == "message" {
            arrivals.lock().push(Arrival::read(&texts));
        } else if answers.send((what, texts)).is_err() {
            return;
        }
    }
}

impl Arrival {
    fn read(texts: &[Option<String>]) -> Self {
        let (fixed, properties) = texts.split_at(9);
        Self {
            to: text(&fixed[0]),
            id: text(&fixed[1]),
            broker: text(&fixed[2]),
            queue: number(&fixed[3]),
            offset: number(&fixed[4]),
            tag: fixed[5].clone(),
            keys: fixed[6].clone(),
            flag: number(&fixed[7]),
            body: text(&fixed[8]),
            properties: properties.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
        }
    }
}

fn text(word: &Option<String>) -> String {
    word.clone().expect("a text")
}

fn number<N: std::str::FromStr>(word: &Option<String>) -> N {
    text(word).parse().ok().expect("a number")
}

fn hexadecimal(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hexadecimal(word: &str) -> String {
    let bytes = (0..word.len()).step_by(2).map(|at| u8::from_str_radix(&word[at..at + 2], 16).expect("a byte"));
    String::from_utf8(bytes.collect()).expect("UTF-8")
}
