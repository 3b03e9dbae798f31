//! Command line of every example: an in-process mini broker, or the user's cluster. Prints a failure's error and its
//! remedy.
#![allow(dead_code, reason = "each example uses its part of this")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rocketmq_sync::mini_broker::MiniBroker;
use rocketmq_sync::{ConsumerReport, Error, ErrorKind, ProducerReport};

/// Time that an example waits for an expected event.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Result of an example.
pub(crate) type Outcome = Result<(), Failure>;

const USAGE: &str = "usage: cargo run --example NAME -- [--name-server HOST:PORT[;HOST:PORT]] [--topic TOPIC]";

/// Servers and topic that an example uses.
pub(crate) struct Target {
    pub(crate) name_servers: Vec<String>,
    pub(crate) topic: String,
    /// Mini broker that runs as long as the example, if no cluster is named.
    pub(crate) mini_broker: Option<MiniBroker>,
}

/// Reason why an example failed.
pub(crate) enum Failure {
    /// Error of the library.
    Error(Error),
    /// Expected event that did not happen.
    Missing(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Runs an example, and prints a remedy if it fails.
pub(crate) fn run(example: fn(&Target) -> Outcome) -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    let outcome = Target::from_arguments(std::env::args().skip(1))
        .and_then(|target| example(&target).map_err(|failure| failure.in_words(&target)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("\nfailed: {words}");
            ExitCode::FAILURE
        }
    }
}

/// Returns a name unique to this run, which distinguishes its messages from those of earlier runs in the topic of a
/// real cluster.
pub(crate) fn of_this_run(name: &str) -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{name}-{}", since_1970.as_millis())
}

/// Prints the shutdown report of a producer.
pub(crate) fn tell_end_of_producer(report: &ProducerReport) {
    tell_end("producer", report.is_clean(), report);
}

/// Prints the shutdown report of a consumer.
pub(crate) fn tell_end_of_consumer(report: &ConsumerReport) {
    tell_end("consumer", report.is_clean(), report);
}

fn tell_end(what: &str, is_clean: bool, report: &dyn std::fmt::Debug) {
    let summary = if is_clean { "everything is done" } else { "something was left undone" };
    println!("  {what}  {summary}: {report:?}");
}

impl Target {
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut name_server = None;
        let mut topic = "TopicTest".to_owned();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value\n\n{USAGE}"));
            match argument.as_str() {
                "--name-server" => name_server = Some(value()?),
                "--topic" => topic = value()?,
                _ => return Err(format!("unknown argument {argument}\n\n{USAGE}")),
            }
        }
        match name_server {
            Some(name_server) => {
                println!("name server   {name_server}");
                println!("topic         {topic}\n");
                Ok(Self { name_servers: vec![name_server], topic, mini_broker: None })
            }
            None => {
                let mini_broker = MiniBroker::start().map_err(|error| error.to_string())?;
                println!("No --name-server is given: an in-process mini broker serves this run.\n");
                Ok(Self { name_servers: mini_broker.name_servers(), topic, mini_broker: Some(mini_broker) })
            }
        }
    }
}

impl Failure {
    fn in_words(&self, target: &Target) -> String {
        match self {
            Self::Error(error) => format!("{error:#}\n\n{}", advice(error, target)),
            Self::Missing(what) => format!(
                "{what}\n\nRun again with RUST_LOG=rocketmq_sync=debug to see what the client does, and look into the \
                 broker's log."
            ),
        }
    }
}

/// Returns a remedy for an error.
fn advice(error: &Error, target: &Target) -> String {
    let name_servers = target.name_servers.join(";");
    // Some examples use several topics whose names begin alike: the error names the affected one.
    let mut words = error.detail().split_whitespace();
    let topic = words.find(|word| word.starts_with(&target.topic)).unwrap_or(&target.topic);
    match error.kind() {
        ErrorKind::InvalidConfig => format!("Correct what it names. {USAGE}"),
        ErrorKind::InvalidMessage => {
            "Correct what it names: a topic has letters, digits, '_', '-', '%' and '|', at most 127 of them.".to_owned()
        }
        ErrorKind::NameServer => format!(
            "Is {name_servers} the address of a *name server* (usually port 9876; not of a broker, 10911, nor of a \
             proxy, 8081), is it running, and does `nc -vz {}` reach it from this machine?",
            name_servers.split(';').next().unwrap_or_default().replace(':', " ")
        ),
        ErrorKind::NoRoute => format!(
            "Topic {topic} does not exist, and no broker that creates topics is registered at {name_servers}. Has the broker \
             just started? It registers within some seconds. Else create the topic:\n  \
             mqadmin updateTopic -n '{name_servers}' -c DefaultCluster -t {topic}"
        ),
        ErrorKind::NoBroker => format!(
            "Topic {topic} exists, but no queue of it can be used: is a broker of it up, and may it be written? See:\n  \
             mqadmin topicRoute -n '{name_servers}' -t {topic}"
        ),
        ErrorKind::Permission => format!(
            "Either the broker or the topic may not be written or read (perm in `mqadmin topicRoute -n \
             '{name_servers}' -t {topic}`), or the cluster asks for credentials (ACL), which this version of the library \
             does not support."
        ),
        _ => match error.address() {
            Some(address) if !target.name_servers.iter().any(|server| server == address) => format!(
                "The name server told the address {address}, and no broker answers this machine there. A broker behind NAT \
                 or in a container must hand out an address that clients reach (brokerIP1 in its configuration), or the \
                 client must be told how to get there (address_map)."
            ),
            _ => format!(
                "{}\n\nRun again with RUST_LOG=rocketmq_sync=debug to see what the client does.",
                error.kind().remedy()
            ),
        },
    }
}
