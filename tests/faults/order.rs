//! Asynchronous sends to one queue: stored and completed in the order of the calls, with any failures between them.

use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use rocketmq_sync::mini_broker::{Fault, MiniBroker};
use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use rocketmq_sync::{Certainty, ErrorKind, Message, MessageQueue, Producer, Result, SendResult};

use crate::{PATIENCE, TOPIC, eventually, mini, producer};

const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;

fn queue() -> MessageQueue {
    MessageQueue::new(TOPIC, "broker-a", 0)
}

/// Results under the numbers of their messages, in the order of arrival.
type Outcomes = Receiver<(usize, Result<SendResult>)>;

fn send_numbered(producer: &Producer, messages: usize) -> Outcomes {
    let (told, outcomes) = unbounded();
    for number in 0..messages {
        let told = told.clone();
        let message = Message::new(TOPIC, number.to_string());
        producer.to_queue(&queue()).send_async(message, move |result| drop(told.send((number, result)))).unwrap();
    }
    outcomes
}

/// Returns all results; fails unless each arrives once, and in order.
fn in_order(outcomes: &Outcomes, messages: usize) -> Vec<Result<SendResult>> {
    let results = (0..messages).map(|number| {
        let (of, result) = outcomes.recv_timeout(PATIENCE).expect("an outcome");
        assert_eq!(of, number, "out of order");
        result
    });
    let results = results.collect();
    assert!(outcomes.recv_timeout(PATIENCE).is_err(), "a second outcome");
    results
}

fn stored(mini: &MiniBroker) -> Vec<usize> {
    let mut messages = mini.messages(TOPIC);
    messages.sort_by_key(|message| message.queue_offset());
    messages.iter().map(|message| std::str::from_utf8(message.body()).unwrap().parse().unwrap()).collect()
}

#[test]
fn a_message_that_is_refused_for_a_while_is_not_overtaken_on_its_way_to_its_queue() {
    let mini = mini(1);
    let busy = mini.fail(SEND, Fault::error(ResponseCode::SYSTEM_BUSY, "busy").times(2));
    let away = mini.fail(SEND, Fault::error(ResponseCode::GO_AWAY, "going").skip(50).times(1));
    let producer = producer(&mini).start().unwrap();
    let outcomes = send_numbered(&producer, 100);
    assert!(in_order(&outcomes, 100).iter().all(Result::is_ok));
    assert_eq!((mini.fault_hits(busy), mini.fault_hits(away)), (2, 1));
    assert_eq!(stored(&mini), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_broker_that_is_away_for_a_while_gets_the_messages_of_a_queue_in_their_order() {
    const MESSAGES: usize = 4000;
    let mini = mini(1);
    let producer = producer(&mini).retries(100).start().unwrap();
    let outcomes = send_numbered(&producer, MESSAGES);
    eventually("it is under way", || mini.max_offset(&queue()) > 100);
    mini.stop_broker("broker-a");
    let before = stored(&mini);
    assert!(before.len() < MESSAGES, "it is over too soon");
    mini.start_broker("broker-a").unwrap();
    let results = in_order(&outcomes, MESSAGES);
    // At most the message that was in flight is uncertain.
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(failed.len() <= 1 && failed.iter().all(|error| error.certainty() == Certainty::Unknown), "{failed:?}");
    let stored = stored(&mini);
    assert!(stored.len() >= MESSAGES - 1, "{}", stored.len());
    assert!(stored.is_sorted() && stored.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn sends_that_a_lost_connection_leaves_are_completed_in_their_order() {
    const SENDS: usize = 200;
    let mini = mini(1);
    let hang = mini.fail(SEND, Fault::no_reply());
    let producer = producer(&mini).retries(0).start().unwrap();
    producer.wait_ready(&[TOPIC], PATIENCE).unwrap();
    let (told, outcomes) = unbounded();
    for number in 0..SENDS {
        let told = told.clone();
        producer.send_async(Message::new(TOPIC, "x"), move |result| drop(told.send((number, result)))).unwrap();
    }
    drop(told);
    assert!(mini.wait_for_fault(hang, SENDS, PATIENCE));
    assert!(mini.cut_connections("broker-a") > 0);
    assert!(
        in_order(&outcomes, SENDS)
            .iter()
            .all(|result| result.as_ref().unwrap_err().kind() == ErrorKind::ConnectionLost)
    );
}

#[test]
fn sends_that_wait_for_one_without_an_answer_end_in_order_at_their_deadline() {
    const SENDS: usize = 50;
    let mini = mini(1);
    let silent = mini.fail(SEND, Fault::no_reply());
    let patience = Duration::from_millis(500);
    let producer = producer(&mini).send_timeout(patience).start().unwrap();
    producer.wait_ready(&[TOPIC], PATIENCE).unwrap();
    let outcomes = send_numbered(&producer, SENDS);
    let errors: Vec<_> = in_order(&outcomes, SENDS).into_iter().map(Result::unwrap_err).collect();
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::Timeout), "{errors:?}");
    assert_eq!(errors[0].certainty(), Certainty::Unknown);
    let unknown = errors.iter().filter(|error| error.certainty() == Certainty::Unknown).count();
    assert_eq!(unknown, mini.fault_hits(silent), "the others were not sent");
    assert!(unknown < SENDS / 2);
    assert_eq!(producer.in_flight(), 0);
}

#[test]
fn sends_that_wait_for_their_turn_are_called_back_when_their_client_ends() {
    const SENDS: usize = 5000;
    let mini = mini(1);
    mini.fail(SEND, Fault::no_reply());
    let producer = producer(&mini).start().unwrap();
    producer.wait_ready(&[TOPIC], PATIENCE).unwrap();
    let outcomes = send_numbered(&producer, SENDS);
    assert_eq!(producer.shutdown(Duration::ZERO).unresolved, SENDS);
    drop(producer);
    let errors: Vec<_> = in_order(&outcomes, SENDS).into_iter().map(Result::unwrap_err).collect();
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::NotRunning), "{:?}", errors.last());
}
