//! Errors that a new user meets: the kind of each failure, the certainty about the message, and a text that names the
//! cause.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use rocketmq_sync::mini_broker::{Fault, MiniBroker};
use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use rocketmq_sync::{Certainty, Error, ErrorKind, Phase, Producer, ProducerBuilder, Resolve};

use crate::{TOPIC, message, mini};

/// Address without a listener.
const DEAD_ADDRESS: &str = "127.0.0.1:1";

fn brief(name_server: &str) -> ProducerBuilder {
    Producer::builder("newcomer").name_servers([name_server]).send_timeout(Duration::from_secs(2))
}

/// Returns the error of a send, which must be of this kind, have the certainty `NotSent`, and contain these words.
fn failed_send(producer: ProducerBuilder, kind: ErrorKind, words: &[&str]) -> Error {
    let error = producer.start().unwrap().send(&message()).unwrap_err();
    assert_eq!((error.kind(), error.certainty()), (kind, Certainty::NotSent), "{error:?}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    error
}

#[test]
fn an_address_without_a_port_is_told_at_start() {
    let error = brief("localhost").start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("\"localhost\" is not a valid host:port address"), "{error}");
}

#[test]
fn a_name_server_that_refuses_is_named() {
    failed_send(brief(DEAD_ADDRESS), ErrorKind::NameServer, &[DEAD_ADDRESS, "refused"]);
}

#[test]
fn a_name_server_whose_name_does_not_resolve_is_named() {
    struct NoName;
    impl Resolve for NoName {
        fn resolve(&self, _: &str) -> io::Result<Vec<SocketAddr>> {
            Err(io::Error::other("no such host"))
        }
    }
    let producer = brief("nameserver.invalid:9876").resolver(NoName);
    failed_send(producer, ErrorKind::NameServer, &["nameserver.invalid:9876", "no such host"]);
}

#[test]
fn a_name_server_that_says_nothing_is_named() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    failed_send(brief(&address), ErrorKind::NameServer, &[&address, "deadline"]);
}

#[test]
fn a_topic_that_nobody_creates_is_named() {
    let mini = MiniBroker::builder().auto_create_topics(false).start().unwrap();
    let name_server = mini.name_servers().remove(0);
    let error = failed_send(brief(&name_server), ErrorKind::NoRoute, &[TOPIC, "no route"]);
    assert!(error.is_retryable(), "somebody may create it");
}

#[test]
fn a_broker_address_that_cannot_be_reached_from_here_is_named() {
    let mini = mini(1);
    let name_server = mini.name_servers().remove(0);
    let producer = brief(&name_server).address_map(|_| DEAD_ADDRESS.to_owned());
    let error = failed_send(producer, ErrorKind::Connect, &[DEAD_ADDRESS, "refused", "broker-a"]);
    // Both addresses are named: that of the route, and the one connected to instead.
    let address = mini.broker_address("broker-a").to_string();
    assert_eq!(error.address(), Some(&*address));
    assert!(error.to_string().contains(&format!("{address} (mapped to {DEAD_ADDRESS})")), "{error}");
    assert!(error.attempts().iter().all(|attempt| attempt.phase == Phase::Connect), "{error:?}");
}

#[test]
fn a_refusal_for_lack_of_permission_is_told_with_the_broker_s_words() {
    let mini = mini(1);
    let name_server = mini.name_servers().remove(0);
    let words = "the broker[127.0.0.1] sending message is forbidden";
    mini.fail(RequestCode::SEND_MESSAGE_V2, Fault::error(ResponseCode::NO_PERMISSION, words));
    let address = mini.broker_address("broker-a").to_string();
    let error = failed_send(brief(&name_server), ErrorKind::Permission, &[words, &address]);
    assert_eq!(error.broker_code(), Some(ResponseCode::NO_PERMISSION));
}

#[test]
fn a_topic_that_may_only_be_read_has_no_queue_for_a_send() {
    let mini = MiniBroker::start().unwrap();
    mini.create_topic_on("broker-a", TOPIC, 4, 4, 4);
    let name_server = mini.name_servers().remove(0);
    failed_send(brief(&name_server), ErrorKind::NoBroker, &[TOPIC, "written"]);
}

#[test]
fn wait_ready_tells_what_is_missing() {
    let producer = brief(DEAD_ADDRESS).start().unwrap();
    let error = producer.wait_ready(&[TOPIC], Duration::from_secs(2)).unwrap_err();
    assert!(error.to_string().contains(DEAD_ADDRESS), "{error}");
    let mini = mini(1);
    let name_server = mini.name_servers().remove(0);
    let unreachable = brief(&name_server).address_map(|_| DEAD_ADDRESS.to_owned()).start().unwrap();
    let error = unreachable.wait_ready(&[TOPIC], Duration::from_millis(300)).unwrap_err();
    let address = mini.broker_address("broker-a").to_string();
    assert_eq!((error.kind(), error.address()), (ErrorKind::Timeout, Some(&*address)));
    assert!(error.to_string().contains("broker-a"), "{error}");
}
