//! Checks of name servers, the topic's route, and its brokers.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rocketmq_sync::unversioned::wire::body::{self, ClusterInfo, QueueData, TopicRouteData, permission};
use rocketmq_sync::unversioned::wire::header::GetRouteInfoRequest;
use rocketmq_sync::unversioned::wire::name::CREATE_TOPIC_KEY;
use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode, ResponseCode};
use rocketmq_sync::{Message, MessageQueue, Producer};
use serde::Deserialize;

use crate::network::{Network, Role};
use crate::options::Options;
use crate::report::Report;

const MASTER: i64 = 0;
/// Largest accepted difference between clocks, which affect delays, the age of messages and signatures.
const LARGEST_CLOCK_DIFFERENCE_SECONDS: i64 = 10;

/// Name servers that answer, and the brokers they list.
pub(crate) struct Overview {
    answers: Vec<(String, ClusterInfo)>,
}

/// Broker to be checked.
pub(crate) struct Broker {
    name: String,
    /// Addresses by broker id.
    addresses: BTreeMap<i64, String>,
    /// Queues of the topic on the broker, from the route.
    queues: Option<QueueData>,
}

/// Master that answers.
pub(crate) struct Reached {
    pub(crate) name: String,
    pub(crate) address: String,
}

/// Checks every name server, also after a failed one: a client needs each when the others are down.
pub(crate) fn check_name_servers(report: &mut Report, network: &Network, options: &Options) -> Option<Overview> {
    let mut answers = Vec::new();
    for server in &options.name_servers {
        report.at(format!("name server {server}"));
        let question = RequestCode::GET_BROKER_CLUSTER_INFO;
        let Some(answer) = network.reach(report, Role::NameServer, server, question) else { continue };
        match answer.response_code() {
            ResponseCode::SUCCESS => {}
            ResponseCode::REQUEST_CODE_NOT_SUPPORTED => {
                report.fail(
                    "answer",
                    "it answers, but is not a name server",
                    "A broker listens there. Use the name server's address, usually port 9876.",
                );
                continue;
            }
            code => {
                report.fail("answer", refusal(code, &answer), "Look into the name server's log.");
                continue;
            }
        }
        match body::decode::<ClusterInfo>("clusters", &answer.body) {
            Ok(info) if info.broker_addr_table.is_empty() => report.fail(
                "answer",
                "it answers, but lists no broker",
                "Start the brokers, with this name server in their namesrvAddr. Each registers within 30 seconds.",
            ),
            Ok(info) => {
                report.ok("answer", format!("lists {}", listed(info.broker_addr_table.keys())));
                answers.push((server.clone(), info));
            }
            Err(error) => {
                report.fail("answer", error.to_string(), "Is a RocketMQ name server listening there?");
            }
        }
    }
    (!answers.is_empty()).then_some(Overview { answers })
}

/// Checks the topic's route. Returns its brokers; without a topic or a route, all brokers.
pub(crate) fn check_route(
    report: &mut Report,
    network: &Network,
    options: &Options,
    overview: &Overview,
) -> Vec<Broker> {
    let Some(topic) = &options.topic else { return overview.brokers() };
    report.at(format!("topic {topic}"));
    let mut routes: Vec<(&str, TopicRouteData)> = Vec::new();
    let mut without = Vec::new();
    for (server, _) in &overview.answers {
        match route(network, server, topic) {
            Ok(Some(route)) => routes.push((server, route)),
            Ok(None) => without.push(server.as_str()),
            Err(words) => report.fail("route", format!("{server}: {words}"), "Look into the name server's log."),
        }
    }
    let Some((server, route)) = routes.first() else {
        return no_route(report, network, topic, overview);
    };
    let differs = |other: &&(&str, TopicRouteData)| sorted(&other.1) != sorted(route);
    without.extend(routes.iter().filter(differs).map(|(server, _)| *server));
    let queues = |of: fn(&QueueData) -> i32| route.queue_datas.iter().map(of).sum::<i32>();
    let (write, read) = (queues(|queues| queues.write_queue_nums), queues(|queues| queues.read_queue_nums));
    let brokers = brokers_of(route);
    let names = listed(brokers.iter().map(|broker| &broker.name));
    report.ok("route", format!("{write} queues to write and {read} to read, on {names}"));
    if !without.is_empty() {
        report.warn(
            "route",
            format!("{} returns another route than {server}", listed(&without)),
            "Every broker needs every name server in its namesrvAddr. After a change the name servers agree within 30 seconds.",
        );
    }
    brokers
}

/// Checks each address of each broker, as a client uses it. Returns the masters that answer.
pub(crate) fn check_brokers(
    report: &mut Report,
    network: &Network,
    options: &Options,
    brokers: &[Broker],
) -> Vec<Reached> {
    let mut reached = Vec::new();
    let anywhere = |bit: i32| brokers.iter().any(|broker| broker.allows(bit));
    let (written, read) = (anywhere(permission::WRITE), anywhere(permission::READ));
    for broker in brokers {
        for (id, address) in &broker.addresses {
            let role = if *id == MASTER { "master".to_owned() } else { format!("slave {id}") };
            report.at(format!("broker {}, {role}, {address}", broker.name));
            let question = RequestCode::GET_BROKER_RUNTIME_INFO;
            let Some(answer) = network.reach(report, Role::Broker, address, question) else { continue };
            tell_runtime(report, &answer);
            if *id == MASTER {
                check_permission(report, broker, written, read);
                if let Some(topic) =
                    options.topic.as_deref().filter(|_| options.send && broker.allows(permission::WRITE))
                {
                    send_probe(report, network, options, topic, &broker.name);
                }
                reached.push(Reached { name: broker.name.clone(), address: address.clone() });
            }
        }
        if !broker.addresses.contains_key(&MASTER) {
            report.at(format!("broker {}", broker.name));
            report.fail(
                "master",
                "no master is registered",
                "Start the broker whose brokerId is 0: only a master accepts messages.",
            );
        }
    }
    reached
}

/// Queries the route; `None` if the name server has none.
fn route(network: &Network, server: &str, topic: &str) -> Result<Option<TopicRouteData>, String> {
    let header = GetRouteInfoRequest { topic, accept_standard_json_only: Some(true) };
    let answer =
        network.ask(server, RequestCode::GET_ROUTEINFO_BY_TOPIC, &header).map_err(|error| error.to_string())?;
    match answer.response_code() {
        ResponseCode::SUCCESS => {
            let route = TopicRouteData::decode(&answer.body).map_err(|error| error.to_string())?;
            Ok(Some(route).filter(|route| !route.broker_datas.is_empty()))
        }
        ResponseCode::TOPIC_NOT_EXIST => Ok(None),
        code => Err(refusal(code, &answer)),
    }
}

fn no_route(report: &mut Report, network: &Network, topic: &str, overview: &Overview) -> Vec<Broker> {
    let servers = overview.answers.iter().map(|(server, _)| server.as_str());
    let created_by = servers.clone().find_map(|server| route(network, server, CREATE_TOPIC_KEY).ok().flatten());
    let remedy = format!(
        "Check the name, and that this is the right cluster; else create the topic: mqadmin updateTopic -n '{}' -c {} -t {topic}",
        servers.collect::<Vec<_>>().join(";"),
        overview.cluster().unwrap_or("CLUSTER"),
    );
    match created_by {
        Some(route) => {
            report.warn("route", "it does not exist yet, and the first message will create it", remedy);
            brokers_of(&route)
        }
        None => {
            report.fail("route", "no name server has a route for it, and no broker creates topics", remedy);
            overview.brokers()
        }
    }
}

fn check_permission(report: &mut Report, broker: &Broker, written: bool, read: bool) {
    let Some(queues) = &broker.queues else { return };
    let mut may = Vec::new();
    for (bit, verb, elsewhere) in [(permission::WRITE, "written", written), (permission::READ, "read", read)] {
        if broker.allows(bit) {
            may.push(verb);
            continue;
        }
        let what = format!("the topic may not be {verb} there (perm {})", queues.perm);
        let remedy = "Was that meant? Else: mqadmin updateTopicPerm ... -p 6, or, after wipeWritePerm of the broker, \
                      mqadmin addWritePerm.";
        if elsewhere {
            report.warn("permission", format!("{what}, only on other brokers"), remedy);
        } else {
            report.fail("permission", what, remedy);
        }
    }
    if !may.is_empty() {
        report.ok("permission", format!("the topic may be {}", may.join(" and ")));
    }
}

fn send_probe(report: &mut Report, network: &Network, options: &Options, topic: &str, broker: &str) {
    let begun = Instant::now();
    let probe = Message::new(topic, "a probe of rmq-doctor").with_tag("rmq-doctor");
    let producer =
        Producer::builder("rmq-doctor").client(&network.client).send_timeout(options.timeout).retries(0).start();
    // The broker chooses the queue.
    match producer.and_then(|producer| producer.to_queue(&MessageQueue::new(topic, broker, -1)).send(&probe)) {
        Ok(receipt) => {
            let place = format!("{} at offset {}", receipt.queue, receipt.queue_offset);
            report.ok("send", format!("stored in {place}, after {:.1?}", begun.elapsed()));
        }
        Err(error) => report.fail("send", error.detail(), error.kind().remedy()),
    }
}

/// Reports the broker's version and clock, as far as they are available.
fn tell_runtime(report: &mut Report, answer: &RemotingCommand) {
    #[derive(Deserialize)]
    struct RuntimeInfo {
        table: BTreeMap<String, String>,
    }
    if answer.response_code() != ResponseCode::SUCCESS {
        report.ok("answer", format!("runtime info unavailable: {}", refusal(answer.response_code(), answer)));
        return;
    }
    let info = body::decode::<RuntimeInfo>("runtime", &answer.body);
    let table = info.map(|info| info.table).unwrap_or_default();
    report.ok("answer", table.get("brokerVersionDesc").map_or("yes", String::as_str));
    let Some(ahead) = broker_clock(&table).map(|clock| clock - now_seconds()) else {
        return report.unknown("clock", "not reported");
    };
    // The broker reports whole seconds.
    match ahead {
        -1..=1 => report.ok("clock", "as here, to a second"),
        _ if ahead.abs() <= LARGEST_CLOCK_DIFFERENCE_SECONDS => report.ok("clock", format!("{ahead:+} s from ours")),
        _ => report.warn(
            "clock",
            format!("{ahead:+} s from ours"),
            "Let both machines follow the same time servers: delays, start times and signatures go by both clocks.",
        ),
    }
}

/// Computes the broker's time, in seconds since 1970, from its start time and its uptime.
fn broker_clock(table: &BTreeMap<String, String>) -> Option<i64> {
    let boot: i64 = table.get("bootTimestamp")?.parse().ok()?;
    // "[ 0 days, 1 hours, 2 minutes, 3 seconds ]"
    let parts: Vec<i64> = table.get("runtime")?.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [days, hours, minutes, seconds] = parts[..] else { return None };
    Some(boot / 1000 + ((days * 24 + hours) * 60 + minutes) * 60 + seconds)
}

fn now_seconds() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX)
}

impl Overview {
    fn brokers(&self) -> Vec<Broker> {
        let mut brokers = BTreeMap::new();
        for data in self.answers.iter().flat_map(|(_, info)| info.broker_addr_table.values()) {
            let broker = Broker { name: data.broker_name.clone(), addresses: data.broker_addrs.clone(), queues: None };
            brokers.entry(data.broker_name.clone()).or_insert(broker);
        }
        brokers.into_values().collect()
    }

    fn cluster(&self) -> Option<&str> {
        self.answers.iter().flat_map(|(_, info)| info.cluster_addr_table.keys()).next().map(String::as_str)
    }
}

impl Broker {
    fn allows(&self, bit: i32) -> bool {
        self.queues.as_ref().is_some_and(|queues| queues.perm & bit != 0)
    }
}

fn brokers_of(route: &TopicRouteData) -> Vec<Broker> {
    let queues_on = |name: &str| route.queue_datas.iter().find(|queues| queues.broker_name == name).cloned();
    let brokers = route.broker_datas.iter().map(|data| Broker {
        name: data.broker_name.clone(),
        addresses: data.broker_addrs.clone(),
        queues: queues_on(&data.broker_name),
    });
    let mut brokers: Vec<_> = brokers.collect();
    brokers.sort_by(|a, b| a.name.cmp(&b.name));
    brokers
}

/// Compared parts of two routes: per broker its name, its addresses, and the permission and numbers of its queues.
type Comparable<'a> = Vec<(&'a str, Vec<&'a String>, Option<(i32, i32, i32)>)>;

fn sorted(route: &TopicRouteData) -> Comparable<'_> {
    let mut brokers: Vec<_> = route
        .broker_datas
        .iter()
        .map(|data| {
            let queues = route.queue_datas.iter().find(|queues| queues.broker_name == data.broker_name);
            let queues = queues.map(|queues| (queues.perm, queues.write_queue_nums, queues.read_queue_nums));
            (data.broker_name.as_str(), data.broker_addrs.values().collect(), queues)
        })
        .collect();
    brokers.sort();
    brokers
}

pub(crate) fn refusal(code: ResponseCode, answer: &RemotingCommand) -> String {
    let remark = answer.remark.as_deref().and_then(|remark| remark.lines().next()).unwrap_or_default();
    format!("{code}: {remark}")
}

pub(crate) fn listed(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    names.into_iter().map(|name| name.as_ref().to_owned()).collect::<Vec<_>>().join(", ")
}
