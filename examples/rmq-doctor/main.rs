//! Diagnoses why a program on this machine cannot send or consume. Checks every hop from here to the brokers, prints
//! the first one that fails, and its remedy.
//!
//! ```text
//! cargo run --example rmq-doctor                    # on an in-process mini broker, to see what it looks like
//! cargo run --example rmq-doctor -- --name-server 127.0.0.1:9876 --topic TopicTest --group billing --send
//! ```
//!
//! Name servers: the name resolves, the port accepts, the server answers. The topic: it has a route, and the name
//! servers agree. Each broker of the route: the same hops as for name servers, its clock, the permission to write and
//! read, and with `--send` a stored message. The group: every broker lists the members, their ids are unique, and their
//! subscriptions are equal. Nothing is changed, except for the message of `--send`. The exit code is 0 if no hop fails,
//! 1 if one does, and 2 if the checks could not begin.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks to its user")]

mod cluster;
mod group;
mod network;
mod options;
mod report;

use std::process::ExitCode;
use std::time::Duration;

use rocketmq_sync::mini_broker::MiniBroker;
use rocketmq_sync::{Client, Error, FilterExpression, PushConsumer};

use network::Network;
use options::Options;
use report::Report;

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("off")).init();
    let arguments = std::env::args().skip(1);
    match Options::from_arguments(arguments).and_then(|options| examine(options).map_err(|error| error.to_string())) {
        Ok(report) if report.is_healthy() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(words) => {
            eprintln!("{words}");
            ExitCode::from(2)
        }
    }
}

fn examine(mut options: Options) -> Result<Report, Error> {
    let _patient = if options.name_servers.is_empty() { Some(Patient::admit(&mut options)?) } else { None };
    let client = Client::builder()
        .name_servers(&options.name_servers)
        .connect_timeout(options.timeout)
        .request_timeout(options.timeout)
        .start()?;
    let network = Network::new(client, options.timeout);
    let mut report = Report::default();
    let overview = cluster::check_name_servers(&mut report, &network, &options);
    let brokers = overview.map(|overview| cluster::check_route(&mut report, &network, &options, &overview));
    let brokers = cluster::check_brokers(&mut report, &network, &options, &brokers.unwrap_or_default());
    if let Some(group) = &options.group {
        group::check(&mut report, &network, group, options.topic.as_deref(), &brokers);
    }
    report.tell_diagnosis();
    Ok(report)
}

/// Healthy cluster that is checked if none is named.
struct Patient {
    _mini_broker: MiniBroker,
    _consumer: PushConsumer,
}

impl Patient {
    fn admit(options: &mut Options) -> Result<Self, Error> {
        println!("No --name-server is given: an in-process mini broker and a consumer are examined.\n");
        let mini_broker = MiniBroker::start()?;
        let topic = options.topic.get_or_insert_with(|| "TopicTest".to_owned());
        let group = options.group.get_or_insert_with(|| "billing".to_owned());
        mini_broker.create_topic(topic, 4);
        options.name_servers = mini_broker.name_servers();
        options.send = true;
        let consumer = PushConsumer::builder(group.as_str())
            .name_servers(&options.name_servers)
            .subscribe(topic.as_str(), FilterExpression::all())
            .each(|_| Ok(()))
            .start()?;
        consumer.wait_ready(Duration::from_secs(10))?;
        Ok(Self { _mini_broker: mini_broker, _consumer: consumer })
    }
}
