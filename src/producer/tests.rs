//! Values that other clients' tests pin for producers: defaults, choices of queues, errors at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::checks::vectors::vectors;
use crate::client::route::{AUTO_CREATE_QUEUES, PublishQueue};
use crate::error::{Certainty, Phase};
use crate::message::{Message, MessageQueue};
use crate::producer::send::attempts::{Attempts, Failure, Next};
use crate::producer::send::selector::index_of_hash;
use crate::wire::ResponseCode;
use crate::wire::java_hash::java_string_hash;
use crate::wire::name::CREATE_TOPIC_KEY;

const SEND_TIMEOUT: Duration = Duration::from_secs(3);

fn queues(brokers: &[&str], queues_each: i32) -> Vec<PublishQueue> {
    let queue = |broker: &&str, id| PublishQueue {
        queue: MessageQueue::new("T", *broker, id),
        address: Arc::from(format!("{broker}:10911")),
    };
    brokers.iter().flat_map(|broker| (0..queues_each).map(move |id| queue(broker, id))).collect()
}

fn number(value: &Value) -> i32 {
    i32::try_from(value.as_i64().unwrap()).unwrap()
}

/// A send whose one attempt, at broker `last` when its turn was `turn`, failed with `error`.
fn failed_at(last: &str, error: Error, turn: usize, now: Instant) -> Attempts {
    let mut attempts = Attempts::new(2, false, now + SEND_TIMEOUT);
    attempts.next(now, &queues(&[last], 1), || turn, |_| true);
    let failure = Failure { broker: last.into(), begun: now, phase: Phase::Reply, error };
    attempts.failed(now, failure, &RetryCodes::default());
    attempts
}

/// The broker that a send tries next.
fn next_broker(attempts: &mut Attempts, queues: &[PublishQueue], now: Instant) -> Option<String> {
    match attempts.next(now, queues, || 0, |_| true) {
        Next::Try { index, .. } => Some(queues[index].queue.broker_name.to_string()),
        Next::Pause { .. } | Next::GiveUp => None,
    }
}

#[test]
fn keys_choose_queues_by_their_hash_as_in_java() {
    for id in ["SELECT-001", "SELECT-002", "SELECT-003", "SELECT-006", "SELECT-007", "SELECT-008"] {
        let vector = vectors(id).remove(0);
        let chosen = chosen_by(vector["input"]["arg"].as_str().unwrap(), &vector["input"]["queueCount"]);
        assert_eq!(vector["expected"], chosen, "{id}");
    }
    let vector = vectors("SELECT-011").remove(0);
    let count = &vector["input"]["queueCount"];
    let chosen = [0, 1].map(|arg| chosen_by(vector["input"]["args"][arg].as_str().unwrap(), count));
    assert_eq!(vector["expected"]["sameQueue"], chosen[0] == chosen[1]);
    let vector = vectors("SELECT-012").remove(0);
    let count = usize::try_from(number(&vector["input"]["queueCount"])).unwrap();
    assert_eq!(vector["expected"], index_of_hash(number(&vector["input"]["arg_integer"]), count));
}

fn chosen_by(key: &str, queue_count: &Value) -> usize {
    index_of_hash(java_string_hash(key), usize::try_from(number(queue_count)).unwrap())
}

#[test]
fn the_turn_goes_from_queue_to_queue() {
    let vector = vectors("SELECT-013").remove(0);
    let queues = queues(&["b"], number(&vector["input"]["queueCount"]));
    let now = Instant::now();
    let calls = usize::try_from(number(&vector["input"]["calls"])).unwrap();
    let chosen = (1..=calls).map(|turn| {
        match Attempts::new(2, false, now + SEND_TIMEOUT).next(now, &queues, || turn, |_| true) {
            Next::Try { index, .. } => index,
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(vector["expected"], json!(chosen.collect::<Vec<_>>()));
}

#[test]
fn after_a_failure_another_broker_has_its_turn() {
    let now = Instant::now();
    let vector = vectors("SELECT-017").remove(0);
    let input = &vector["input"];
    let brokers: Vec<&str> = input["brokers"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let two = queues(&brokers, number(&input["queuesPerBroker"]));
    for turn in 0..usize::try_from(number(&input["calls"])).unwrap() {
        let mut attempts = failed_at(input["lastBroker"].as_str().unwrap(), timeout(), turn, now);
        let next = next_broker(&mut attempts, &two, now);
        assert_eq!(next.as_deref(), vector["expected"]["alwaysBroker"].as_str());
    }

    let vector = vectors("FAULT-047").remove(0);
    assert_eq!((&vector["input"]["brokers"], &vector["input"]["lastBroker"]), (&json!(3), &json!("b0")));
    assert_eq!(vector["expected"]["nextBroker"], "not b0 as long as another exists");
    for turn in 0..12 {
        let mut attempts = failed_at("b0", timeout(), turn, now);
        let next = next_broker(&mut attempts, &queues(&["b0", "b1", "b2"], 4), now);
        assert!(next.as_deref().is_some_and(|broker| broker != "b0"), "{next:?}");
        // Without another one it is the same again, after a pause.
        let later = now + Duration::from_secs(1);
        let mut attempts = failed_at("b0", timeout(), turn, now);
        assert_eq!(next_broker(&mut attempts, &queues(&["b0"], 4), later).as_deref(), Some("b0"));
    }
}

fn timeout() -> Error {
    Error::new(ErrorKind::Timeout, "late").with_certainty(Certainty::Unknown)
}

/// The Java client also goes on after `NO_PERMISSION`, which another broker hardly cures and which hides the cause.
#[test]
fn a_send_goes_on_after_the_codes_of_the_java_client() {
    let now = Instant::now();
    for vector in [vectors("DEFAULT-007").remove(0), vectors("DEFAULT-008").remove(0)] {
        for (name, code) in vector["expected"].as_object().unwrap() {
            let error = Error::refused(ResponseCode(number(code)), Some("no"), "a:10911");
            let next = next_broker(&mut failed_at("a", error, 0, now), &queues(&["a", "b"], 1), now);
            let expected = match name.as_str() {
                "NO_PERMISSION" => None,
                _ => Some("b"),
            };
            assert_eq!(next.as_deref(), expected, "{name}");
        }
    }
}

#[test]
fn defaults_are_those_of_the_java_client() {
    let expected = vectors("DEFAULT-001").remove(0)["expected"].clone();
    let Options { send_timeout, retries, retry_codes, body, .. } = Options::default();
    let ours = json!({
        "sendMsgTimeout": u64::try_from(send_timeout.as_millis()).unwrap(),
        "compressMsgBodyOverHowmuch": body.compress_threshold,
        "retryTimesWhenSendFailed": retries,
        "retryTimesWhenSendAsyncFailed": retries,
        "maxMessageSize": body.max_message_size,
        "defaultTopicQueueNums": AUTO_CREATE_QUEUES,
        "createTopicKey": CREATE_TOPIC_KEY,
        "compressLevel": body.compression_level,
        "retryAnotherBrokerWhenNotStoreOK": retry_codes.contains(ResponseCode::FLUSH_DISK_TIMEOUT),
    });
    assert_eq!(expected, ours);
}

#[test]
fn an_empty_body_is_refused_in_the_words_of_the_java_client() {
    let producer = producer();
    let error = producer.send(&Message::new("T", "")).unwrap_err();
    let words = vectors("ERRTEXT-001").remove(0)["expected"]["contains"].as_str().unwrap().to_owned();
    assert!(error.to_string().contains(&words), "{error}");
}

#[test]
fn after_the_end_calls_are_refused_and_no_callback_runs() {
    let vector = vectors("LIFE-001").remove(0);
    assert_eq!(vector["expected"], json!({"result": "not-running error", "callbackInvoked": false}));
    let producer = producer();
    producer.shutdown(Duration::ZERO);
    let message = Message::new("T", "x");
    for call in vector["input"]["calls"].as_array().unwrap() {
        let error = match call.as_str().unwrap() {
            "send sync" => producer.send(&message).unwrap_err(),
            "send oneway" => producer.send_oneway(&message).unwrap_err(),
            "send async" => {
                let rejected = producer.send_async(message.clone(), |_| panic!("nothing was accepted")).unwrap_err();
                assert_eq!(rejected.message, message);
                rejected.error
            }
            other => panic!("{other}"),
        };
        assert_eq!((error.kind(), error.certainty()), (ErrorKind::NotRunning, Certainty::NotSent), "{call}");
    }
}

/// A producer whose name server need not be reachable.
fn producer() -> Producer {
    Producer::builder("vectors").name_servers(["127.0.0.1:1"]).start().unwrap()
}
