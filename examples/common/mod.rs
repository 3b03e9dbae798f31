//! What every example does with its command line: a mini broker of its own, or a cluster that the user names.
#![allow(dead_code, reason = "each example uses its part of this")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

use std::process::ExitCode;

use rocketmq_sync::mini_broker::MiniBroker;
use rocketmq_sync::{Error, ErrorKind};

/// Where an example works.
pub(crate) struct Target {
    pub(crate) name_servers: Vec<String>,
    pub(crate) topic: String,
    /// Runs as long as the example when no cluster was named.
    pub(crate) mini_broker: Option<MiniBroker>,
}

/// Runs an example, and tells what to do when it fails.
pub(crate) fn run(example: fn(&Target) -> Result<(), Error>) -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    let outcome = Target::from_arguments()
        .and_then(|target| example(&target).map_err(|error| format!("{error}\n\n{}", advice(&error, &target))));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("\nfailed: {words}");
            ExitCode::FAILURE
        }
    }
}

impl Target {
    fn from_arguments() -> Result<Self, String> {
        let mut name_server = None;
        let mut topic = "TopicTest".to_owned();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--name-server" => name_server = Some(value()?),
                "--topic" => topic = value()?,
                _ => {
                    return Err(format!(
                        "unknown argument {argument}\n\nusage: [--name-server HOST:PORT] [--topic TOPIC]"
                    ));
                }
            }
        }
        match name_server {
            Some(name_server) => Ok(Self { name_servers: vec![name_server], topic, mini_broker: None }),
            None => {
                let mini_broker = MiniBroker::start().map_err(|error| error.to_string())?;
                println!("no --name-server is given: an in-process mini broker serves this run\n");
                Ok(Self { name_servers: mini_broker.name_servers(), topic, mini_broker: Some(mini_broker) })
            }
        }
    }
}

/// What a user can do about an error.
fn advice(error: &Error, target: &Target) -> String {
    match error.kind() {
        ErrorKind::NameServer => format!(
            "Is {} the address of a *name server* (usually port 9876), is it running, and can this machine reach it?",
            target.name_servers.join(";")
        ),
        ErrorKind::NoRoute => format!(
            "Topic {0} does not exist and brokers do not create topics here. Create it: \
             mqadmin updateTopic -n {1} -c DefaultCluster -t {0}",
            target.topic,
            target.name_servers.join(";")
        ),
        ErrorKind::Connect | ErrorKind::Resolve | ErrorKind::ConnectionLost | ErrorKind::Timeout => format!(
            "The name server told the address of the broker ({}), which cannot be reached from here. A broker behind \
             NAT or in a container must be told the address to hand out (brokerIP1 in its configuration), or the \
             client how to reach it (address_map).",
            error.address().unwrap_or("see above")
        ),
        ErrorKind::Permission => {
            "The cluster asks for credentials or permissions that this client does not have.".to_owned()
        }
        _ => "Run again with RUST_LOG=debug to see what the client does.".to_owned(),
    }
}

/// An error of the example's own.
pub(crate) fn failed(words: &str) -> Error {
    Error::from(std::io::Error::other(words.to_owned()))
}
