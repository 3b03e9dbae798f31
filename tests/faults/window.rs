//! In-flight window and `Completions`: its limits, and the delivery of results.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, unbounded};
use rocketmq_sync::mini_broker::{Fault, MiniBroker};
use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use rocketmq_sync::{Certainty, Completions, ErrorKind, Message, Producer};

use crate::{PATIENCE, TOPIC, begin, message, mini, outcome, producer};

const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;

/// Pauses a broker, which then accepts requests and answers none until it is resumed.
fn paused(producer: &Producer, mini: &MiniBroker) {
    producer.wait_ready(&[TOPIC], PATIENCE).unwrap();
    mini.pause_broker("broker-a");
}

#[test]
fn a_full_window_fails_at_once_and_gives_the_message_back() {
    let mini = mini(1);
    let producer = producer(&mini).max_in_flight(2).fail_when_full(true).start().unwrap();
    paused(&producer, &mini);
    let accepted = [begin(&producer), begin(&producer)];
    let refused = producer.send_async(message().with_key("third"), |_| panic!("it was not accepted")).unwrap_err();
    assert_eq!((refused.error.kind(), refused.error.certainty()), (ErrorKind::WindowFull, Certainty::NotSent));
    assert!(refused.error.is_retryable());
    assert_eq!(refused.message.keys(), Some("third"));
    mini.resume_broker("broker-a");
    for accepted in &accepted {
        outcome(accepted).unwrap();
    }
    producer.send_async(refused.message, |_| {}).unwrap();
    assert!(producer.shutdown(PATIENCE).is_clean());
    assert_eq!(mini.messages(TOPIC).len(), 3);
}

#[test]
fn a_full_window_by_bytes_fails_and_one_large_message_goes_alone() {
    let mini = mini(1);
    let limited = producer(&mini).max_in_flight_bytes(10_000).fail_when_full(true).compression(None).start().unwrap();
    paused(&limited, &mini);
    limited.send_async(Message::new(TOPIC, vec![1; 50_000]), |_| {}).unwrap();
    let refused = limited.send_async(message(), |_| panic!("it was not accepted")).unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::WindowFull);
    mini.resume_broker("broker-a");
    assert!(limited.shutdown(PATIENCE).is_clean());
}

#[test]
fn a_full_window_is_waited_for_until_there_is_room_or_the_deadline_passes() {
    let mini = mini(1);
    let waiting = producer(&mini).max_in_flight(1).start().unwrap();
    paused(&waiting, &mini);
    let first = begin(&waiting);
    thread::scope(|scope| {
        let second = scope.spawn(|| begin(&waiting));
        // Accepted only after the first has ended: at most one is in flight.
        assert_eq!(waiting.in_flight(), 1);
        mini.resume_broker("broker-a");
        outcome(&first).unwrap();
        outcome(&second.join().unwrap()).unwrap();
    });
    let brief = Producer::builder("brief").name_servers(mini.name_servers()).send_timeout(Duration::from_millis(300));
    let brief = brief.max_in_flight(1).retries(0).start().unwrap();
    paused(&brief, &mini);
    // Its place is kept until it is taken, which does not happen here.
    brief.send_tracked(message(), 1, &Completions::new()).unwrap();
    let refused = brief.send_async(message(), |_| panic!("it was not accepted")).unwrap_err();
    assert_eq!(refused.error.kind(), ErrorKind::WindowFull);
}

#[test]
fn those_who_wait_for_room_are_told_of_the_end() {
    let mini = mini(1);
    let producer = producer(&mini).max_in_flight(1).start().unwrap();
    paused(&producer, &mini);
    let first = begin(&producer);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| producer.send_async(message(), |_| panic!("it was not accepted")).unwrap_err());
        assert_eq!(producer.shutdown(Duration::from_millis(100)).unresolved, 1);
        assert_eq!(waiting.join().unwrap().error.kind(), ErrorKind::NotRunning);
    });
    mini.resume_broker("broker-a");
    outcome(&first).unwrap();
}

#[test]
fn a_callback_finds_room_for_the_next_message() {
    let mini = mini(1);
    let producer = producer(&mini).max_in_flight(1).fail_when_full(true).start().unwrap();
    let (done, is_done) = bounded(1);
    send_next(&Arc::new(producer), 100, done);
    is_done.recv_timeout(PATIENCE).expect("a hundred sends, each from the callback of the one before");
    assert_eq!(mini.messages(TOPIC).len(), 100);
}

/// Sends a message, and the next one from its callback.
fn send_next(producer: &Arc<Producer>, left: usize, done: Sender<()>) {
    if left == 0 {
        return done.send(()).unwrap();
    }
    let kept = Arc::clone(producer);
    producer
        .send_async(message(), move |result| {
            result.unwrap();
            send_next(&kept, left - 1, done);
        })
        .unwrap();
}

#[test]
fn completions_tell_each_token_once_with_its_own_outcome() {
    let mini = mini(1);
    mini.fail(SEND, Fault::error(ResponseCode::MESSAGE_ILLEGAL, "no").group("refused"));
    let completions = Completions::new();
    let start = |group: &str| Producer::builder(group).name_servers(mini.name_servers()).send_timeout(PATIENCE).start();
    let (good, refused) = (start("good").unwrap(), start("refused").unwrap());
    for token in 0..100 {
        let producer = if token % 2 == 0 { &good } else { &refused };
        producer.send_tracked(message(), token, &completions).unwrap();
    }
    let mut finished = Vec::new();
    while finished.len() < 100 {
        assert!(completions.take(&mut finished, PATIENCE).unwrap() > 0);
    }
    assert_eq!(completions.take(&mut finished, Duration::ZERO).unwrap(), 0);
    for completed in &finished {
        assert_eq!(completed.result.is_ok(), completed.token % 2 == 0, "{completed:?}");
    }
    let tokens: BTreeSet<_> = finished.iter().map(|completed| completed.token).collect();
    assert_eq!(tokens.len(), 100);
    assert_eq!((good.in_flight(), refused.in_flight()), (0, 0));
}

#[test]
fn results_that_nobody_takes_keep_their_place_in_the_window() {
    let mini = mini(1);
    let producer = producer(&mini).max_in_flight(10).fail_when_full(true).start().unwrap();
    let completions = Completions::new();
    for token in 0..10 {
        producer.send_tracked(message(), token, &completions).unwrap();
    }
    assert!(mini.wait_for_messages(TOPIC, 10, PATIENCE));
    assert_eq!(producer.send_tracked(message(), 10, &completions).unwrap_err().error.kind(), ErrorKind::WindowFull);
    let mut finished = Vec::new();
    while finished.len() < 10 {
        assert!(completions.take(&mut finished, PATIENCE).unwrap() > 0);
    }
    producer.send_tracked(message(), 10, &completions).unwrap();
}

#[test]
fn shutdown_resolves_what_is_in_flight_and_a_dropped_producer_calls_back_too() {
    let mini = mini(1);
    let producer = producer(&mini).start().unwrap();
    let (told, outcomes) = unbounded();
    for _ in 0..200 {
        let told = told.clone();
        producer.send_async(message(), move |result| told.send(result.is_ok()).unwrap()).unwrap();
    }
    drop(told);
    drop(producer);
    assert_eq!(outcomes.iter().filter(|stored| *stored).count(), 200);
    assert_eq!(mini.messages(TOPIC).len(), 200);
}

/// Each waits for its next attempt when its client ends; the outcome of one earlier attempt is unknown.
#[test]
fn a_send_that_waits_for_its_next_attempt_is_called_back_when_its_client_ends() {
    let mini = mini(1);
    let producer = producer(&mini).retries(100).start().unwrap();
    producer.wait_ready(&[TOPIC], PATIENCE).unwrap();
    let lost = mini.fail(SEND, Fault::close_after().times(1));
    let busy = mini.fail(SEND, Fault::error(ResponseCode::SYSTEM_BUSY, "busy"));
    let (told, outcomes) = unbounded();
    for _ in 0..100 {
        let told = told.clone();
        producer.send_async(message(), move |result| told.send(result).unwrap()).unwrap();
    }
    drop(told);
    // By then the pauses are so long that most sends are in one.
    assert!(mini.wait_for_fault(busy, 600, PATIENCE) && mini.fault_hits(lost) == 1);
    drop(producer);
    let errors: Vec<_> = outcomes.iter().map(|result| result.unwrap_err()).collect();
    assert_eq!(errors.len(), 100);
    assert!(errors.iter().all(|error| error.kind() == ErrorKind::NotRunning), "{errors:?}");
    let unknown = errors.iter().filter(|error| error.certainty() == Certainty::Unknown).count();
    assert!(unknown >= 1, "the one that was stored says that it is not");
}
