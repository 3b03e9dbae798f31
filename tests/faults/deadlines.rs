//! Timeouts given by users: each call keeps its own, and an unlimited one is not a special case.

use std::thread;
use std::time::Duration;

use crossbeam_channel::unbounded;
use rocketmq_sync::mini_broker::Fault;
use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode, ResponseCode};
use rocketmq_sync::{Client, Completions, ErrorKind, FilterExpression, Message, MessageQueue, Producer, PushConsumer};

use crate::{PATIENCE, TOPIC, message, mini, outcome};

const ROUTE: RequestCode = RequestCode::GET_ROUTEINFO_BY_TOPIC;

#[test]
fn a_send_that_joins_the_look_up_of_an_impatient_one_keeps_its_own_deadline() {
    let mini = mini(1);
    let late = mini.fail(ROUTE, Fault::delay(Duration::from_millis(1500)));
    let producer = crate::producer(&mini).start().unwrap();
    thread::scope(|scope| {
        let impatient = || producer.timeout(Duration::from_secs(1)).send(&message());
        let impatient = thread::Builder::new().spawn_scoped(scope, impatient).unwrap();
        assert!(mini.wait_for_requests(ROUTE, 1, PATIENCE));
        producer.send(&message()).unwrap();
        assert_eq!(impatient.join().unwrap().unwrap_err().kind(), ErrorKind::NameServer);
    });
    assert!(mini.fault_hits(late) >= 2, "it was asked once more for the one that had time left");
}

#[test]
fn a_send_that_joins_the_look_up_of_a_patient_one_is_told_at_its_own_deadline() {
    let mini = mini(1);
    let silent = mini.fail(ROUTE, Fault::no_reply());
    let client = Client::builder().name_servers(mini.name_servers()).start().unwrap();
    let with = |group: &str, timeout| Producer::builder(group).client(&client).send_timeout(timeout).start().unwrap();
    let (patient, impatient) = (with("patient", Duration::MAX), with("impatient", Duration::from_millis(100)));
    let first = crate::begin(&patient);
    assert!(mini.wait_for_fault(silent, 1, PATIENCE));
    let error = outcome_of_one(&impatient);
    assert_eq!(error.kind(), ErrorKind::NameServer);
    assert!(first.try_recv().is_err(), "the patient one waits");
    mini.clear_faults();
    outcome(&first).unwrap();
}

/// Returns the error of an asynchronous send.
fn outcome_of_one(producer: &Producer) -> rocketmq_sync::Error {
    let (told, failure) = unbounded();
    producer.send_async(message(), move |result| drop(told.send(result))).unwrap();
    failure.recv_timeout(PATIENCE).unwrap().unwrap_err()
}

/// [`Duration::MAX`] means no limit wherever a timeout can be given.
#[test]
fn a_timeout_without_an_end_is_possible_everywhere() {
    let mini = mini(1);
    let producer = crate::producer(&mini).send_timeout(Duration::MAX).start().unwrap();
    producer.wait_ready(&[TOPIC], Duration::MAX).unwrap();
    producer.timeout(Duration::MAX).send(&message()).unwrap();
    producer.send(&message()).unwrap();
    producer.send_oneway(&message()).unwrap();
    producer.by(|_, _| 0).send(&message()).unwrap();
    producer.to_queue(&MessageQueue::new(TOPIC, "broker-a", 0)).send(&message()).unwrap();
    outcome(&crate::begin(&producer)).unwrap();
    let (completions, mut taken) = (Completions::new(), Vec::new());
    producer.send_tracked(message(), 1, &completions).unwrap();
    assert_eq!(completions.take(&mut taken, Duration::MAX).unwrap(), 1);
    assert!(!producer.queues("unknown").unwrap().is_empty());

    let question = RemotingCommand::request(RequestCode::GET_BROKER_CLUSTER_INFO, &());
    let [server] = &mini.name_servers()[..] else { panic!("one name server") };
    let answer = producer.client().request(server, &question, Duration::MAX).unwrap();
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS);

    let consumer = PushConsumer::builder("group")
        .client(producer.client())
        .subscribe(TOPIC, FilterExpression::all())
        .consume_timeout(Duration::MAX)
        .each(|_| Ok(()))
        .start()
        .unwrap();
    consumer.wait_ready(Duration::MAX).unwrap();
    assert!(mini.wait_for_members("group", 1, Duration::MAX));
    producer.send(&Message::new(TOPIC, "x")).unwrap();
    assert!(consumer.shutdown(Duration::MAX).is_clean());
    assert!(producer.shutdown(Duration::MAX).is_clean());
}
