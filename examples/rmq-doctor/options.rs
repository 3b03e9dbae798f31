//! Options of the command line.

use std::time::Duration;

const USAGE: &str = "\
usage: rmq-doctor [--name-server HOST:PORT[;HOST:PORT]] [--topic TOPIC] [--group GROUP] [--send] [--timeout SECONDS]

  --name-server  the name servers, as the program is configured; without it a mini broker is examined
  --topic        also the topic's route and permissions, and only the brokers of that route
  --group        also the members of this consumer group
  --send         also store a message in the topic, on each of its brokers
  --timeout      how long each hop may take, 3 seconds unless told otherwise";

pub(crate) struct Options {
    pub(crate) name_servers: Vec<String>,
    pub(crate) topic: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) send: bool,
    pub(crate) timeout: Duration,
}

impl Options {
    pub(crate) fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options =
            Self { name_servers: Vec::new(), topic: None, group: None, send: false, timeout: Duration::from_secs(3) };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value\n\n{USAGE}"));
            match argument.as_str() {
                "--name-server" => {
                    let list = value()?;
                    let addresses = list.split([';', ',']).map(str::trim).filter(|address| !address.is_empty());
                    options.name_servers.extend(addresses.map(str::to_owned));
                }
                "--topic" => options.topic = Some(value()?),
                "--group" => options.group = Some(value()?),
                "--send" => options.send = true,
                "--timeout" => {
                    let seconds = value()?.parse().ok().filter(|seconds| (1..=600).contains(seconds));
                    options.timeout = seconds
                        .map(Duration::from_secs)
                        .ok_or_else(|| format!("--timeout takes seconds, 1 to 600\n\n{USAGE}"))?;
                }
                _ => return Err(format!("unknown argument {argument}\n\n{USAGE}")),
            }
        }
        if options.send && options.topic.is_none() && !options.name_servers.is_empty() {
            return Err(format!("--send needs a --topic to send to\n\n{USAGE}"));
        }
        Ok(options)
    }
}
