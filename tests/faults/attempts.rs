//! A producer's reactions to a broker's responses, and to missing ones.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use rocketmq_sync::mini_broker::Fault;
use rocketmq_sync::unversioned::wire::header::SendMessageResponse;
use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode, ResponseCode};
use rocketmq_sync::{
    Certainty, Completions, ErrorKind, Message, MessageQueue, Phase, Producer, Resolve, RetryCodes, SendStatus,
};

use crate::{PATIENCE, TOPIC, begin, message, mini, outcome, producer};

const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;

#[test]
fn send_22_a_large_body_goes_compressed_over_the_wire_and_the_message_stays_as_it_was() {
    let mini = mini(1);
    let producer = producer(&mini).start().unwrap();
    let message = Message::new(TOPIC, vec![b'a'; 5000]);
    let before = message.clone();
    let receipt = producer.send(&message).unwrap();
    assert_eq!(message, before);
    let [request] = &mini.requests_of(SEND)[..] else { panic!("one request") };
    assert!(request.body_length < 5000);
    assert_eq!(request.fields.get("f"), Some("769"), "bit 0 says compressed, bits 8 to 10 say by zlib");
    let [stored] = &mini.messages(TOPIC)[..] else { panic!("one message") };
    assert_eq!((&receipt.queue, receipt.queue_offset), (&stored.message_queue(), stored.queue_offset()));
    assert_eq!((receipt.status, &*receipt.msg_id), (SendStatus::Ok, &*stored.msg_id()));
}

#[test]
fn send_25_three_attempts_visit_three_brokers() {
    let mini = mini(3);
    let busy = mini.fail(SEND, Fault::error(ResponseCode::SYSTEM_BUSY, "busy"));
    let producer = producer(&mini).start().unwrap();
    for error in [producer.send(&message()).unwrap_err(), outcome(&begin(&producer)).unwrap_err()] {
        assert_eq!((error.kind(), error.certainty()), (ErrorKind::Broker, Certainty::NotSent));
        let visited: BTreeSet<_> = error.attempts().iter().map(|attempt| attempt.broker.as_str()).collect();
        assert_eq!(visited, BTreeSet::from(["broker-a", "broker-b", "broker-c"]));
        assert!(error.attempts().iter().all(|attempt| attempt.phase == Phase::Answered));
    }
    assert_eq!(mini.fault_hits(busy), 6);
}

#[test]
fn send_25_with_two_brokers_the_one_that_just_failed_is_not_asked_again() {
    let mini = mini(2);
    mini.fail(SEND, Fault::error(ResponseCode::SYSTEM_BUSY, "busy"));
    let producer = producer(&mini).start().unwrap();
    let error = producer.send(&message()).unwrap_err();
    let visited: Vec<_> = error.attempts().iter().map(|attempt| &attempt.broker).collect();
    assert_eq!(visited.len(), 3);
    assert!(visited.windows(2).all(|pair| pair[0] != pair[1]), "{visited:?}");
}

#[test]
fn send_25_a_send_goes_on_at_a_broker_that_works() {
    let mini = mini(3);
    let busy = mini.fail(SEND, Fault::error(ResponseCode::SYSTEM_BUSY, "busy").at("broker-a"));
    let dead = mini.fail(SEND, Fault::close().at("broker-b"));
    let producer = producer(&mini).start().unwrap();
    for _ in 0..12 {
        assert_eq!(producer.send(&message()).unwrap().queue.broker_name(), "broker-c");
        assert_eq!(outcome(&begin(&producer)).unwrap().queue.broker_name(), "broker-c");
    }
    assert!(mini.fault_hits(busy) > 0 && mini.fault_hits(dead) > 0);
}

#[test]
fn send_26_a_message_that_is_stored_less_safely_is_stored() {
    let mini = mini(1);
    let producer = producer(&mini).start().unwrap();
    for (code, status) in [
        (ResponseCode::FLUSH_DISK_TIMEOUT, SendStatus::FlushDiskTimeout),
        (ResponseCode::SLAVE_NOT_AVAILABLE, SendStatus::SlaveNotAvailable),
        (ResponseCode::FLUSH_SLAVE_TIMEOUT, SendStatus::FlushSlaveTimeout),
    ] {
        let fault = mini.fail(SEND, Fault::answer(move |request| stored_with(request, code)));
        let receipt = producer.send(&message()).unwrap();
        assert_eq!((receipt.status, receipt.queue.queue_id(), receipt.queue_offset), (status, 3, 41));
        assert_eq!(outcome(&begin(&producer)).unwrap().status, status);
        assert_eq!(mini.fault_hits(fault), 2, "what is stored is not sent again");
        mini.clear_faults();
    }
}

#[test]
fn a_message_that_is_stored_less_safely_is_sent_to_another_broker_where_that_is_wanted() {
    let mini = mini(2);
    let less_safely = ResponseCode::FLUSH_DISK_TIMEOUT;
    let producer = producer(&mini).retry_codes(RetryCodes::none().with(less_safely)).start().unwrap();
    let first = mini.fail(SEND, Fault::answer(move |request| stored_with(request, less_safely)).times(1));
    assert_eq!(producer.send(&message()).unwrap().status, SendStatus::Ok);
    assert_eq!((mini.fault_hits(first), mini.messages(TOPIC).len()), (1, 1));
    // No attempt does better: the degraded receipt is returned, not the failure of a better one.
    let every = mini.fail(SEND, Fault::answer(move |request| stored_with(request, less_safely)));
    for receipt in [producer.send(&message()).unwrap(), outcome(&begin(&producer)).unwrap()] {
        assert_eq!((receipt.status, receipt.queue_offset), (SendStatus::FlushDiskTimeout, 41));
    }
    assert_eq!(mini.fault_hits(every), 6);
    mini.clear_faults();
    // The failure of the second attempt does not hide that the first one stored the message.
    let stored = mini.fail(SEND, Fault::answer(move |request| stored_with(request, less_safely)).times(1));
    let refused = mini.fail(SEND, Fault::error(ResponseCode::NO_PERMISSION, "no"));
    assert_eq!(producer.send(&message()).unwrap().status, SendStatus::FlushDiskTimeout);
    assert_eq!((mini.fault_hits(stored), mini.fault_hits(refused)), (1, 1));
}

#[test]
fn a_receipt_tells_the_region_and_whether_to_trace() {
    let mini = mini(1);
    let producer = producer(&mini).start().unwrap();
    let receipt = producer.send(&message()).unwrap();
    assert_eq!((&*receipt.region_id, receipt.trace_on), ("DefaultRegion", true));
    let elsewhere = |request: &RemotingCommand| {
        let fields = SendMessageResponse { region_id: Some("north"), trace_on: Some(false), ..stored_fields() };
        RemotingCommand::response_to(request, ResponseCode::SUCCESS, None).with_fields(&fields)
    };
    mini.fail(SEND, Fault::answer(elsewhere));
    let receipt = producer.send(&message()).unwrap();
    assert_eq!((&*receipt.region_id, receipt.trace_on), ("north", false));
}

#[test]
fn send_26_every_other_code_is_an_error_with_code_and_remark() {
    let mini = mini(2);
    let producer = producer(&mini).start().unwrap();
    for (code, kind, attempts) in [
        (ResponseCode::MESSAGE_ILLEGAL, ErrorKind::Broker, 1),
        (ResponseCode::NO_PERMISSION, ErrorKind::Permission, 1),
        (ResponseCode::SYSTEM_ERROR, ErrorKind::Broker, 3),
        (ResponseCode::SERVICE_NOT_AVAILABLE, ErrorKind::Broker, 3),
        (ResponseCode(4711), ErrorKind::Broker, 1),
    ] {
        let fault = mini.fail(SEND, Fault::error(code, "the reason"));
        for error in [producer.send(&message()).unwrap_err(), outcome(&begin(&producer)).unwrap_err()] {
            assert_eq!((error.kind(), error.broker_code(), error.remark()), (kind, Some(code), Some("the reason")));
            assert_eq!(error.attempts().len(), attempts, "{error}");
            assert!(error.to_string().contains("the reason"), "{error}");
        }
        assert_eq!(mini.fault_hits(fault), 2 * attempts);
        mini.clear_faults();
    }
    assert!(mini.messages(TOPIC).is_empty());
}

#[test]
fn retry_codes_can_be_chosen() {
    let mini = mini(2);
    mini.fail(SEND, Fault::error(ResponseCode(4711), "ours").times(1));
    let chosen = producer(&mini).retry_codes(RetryCodes::none().with(ResponseCode(4711))).start().unwrap();
    chosen.send(&message()).unwrap();
    mini.fail(SEND, Fault::error(ResponseCode::SYSTEM_BUSY, "busy").times(1));
    assert_eq!(chosen.send(&message()).unwrap_err().attempts().len(), 1);
}

#[test]
fn life_07_nothing_is_sent_after_shutdown_and_no_callback_runs() {
    let mini = mini(1);
    let producer = producer(&mini).start().unwrap();
    producer.send(&message()).unwrap();
    assert!(producer.shutdown(PATIENCE).is_clean());
    let called = Arc::new(AtomicUsize::new(0));
    let count = || {
        let called = Arc::clone(&called);
        move |_| {
            called.fetch_add(1, Ordering::SeqCst);
        }
    };
    let queue = MessageQueue::new(TOPIC, "broker-a", 0);
    let completions = Completions::new();
    for error in [
        producer.send(&message()).unwrap_err(),
        producer.to_queue(&queue).send(&message()).unwrap_err(),
        producer.by(|_, _| 0).send(&message()).unwrap_err(),
        producer.send_oneway(&message()).unwrap_err(),
        producer.to_queue(&queue).send_oneway(&message()).unwrap_err(),
        producer.by(|_, _| 0).send_oneway(&message()).unwrap_err(),
        producer.send_async(message(), count()).unwrap_err().into(),
        producer.to_queue(&queue).send_async(message(), count()).unwrap_err().into(),
        producer.by(|_, _| 0).send_async(message(), count()).unwrap_err().into(),
        producer.send_tracked(message(), 1, &completions).unwrap_err().into(),
        producer.queues(TOPIC).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.certainty()), (ErrorKind::NotRunning, Certainty::NotSent), "{error}");
    }
    // Ends the callback threads, after they have run the submitted callbacks.
    drop(producer);
    assert_eq!(called.load(Ordering::SeqCst), 0);
    assert_eq!((mini.messages(TOPIC).len(), mini.request_count(SEND)), (1, 1));
}

#[test]
fn life_12_a_oneway_message_for_a_dead_broker_fails_and_names_its_address() {
    let mini = mini(1);
    let producer = producer(&mini).retries(0).start().unwrap();
    producer.wait_ready(&[TOPIC], PATIENCE).unwrap();
    let address = mini.broker_address("broker-a").to_string();
    mini.stop_broker("broker-a");
    // Until the loss of the connection is noticed, a one-way message may still be handed to it.
    let error = loop {
        if let Err(error) = producer.send_oneway(&message()) {
            break error;
        }
    };
    assert!(matches!(error.kind(), ErrorKind::Connect | ErrorKind::ConnectionLost), "{error:?}");
    assert!(error.to_string().contains(&address), "{error}");
}

#[test]
fn life_13_a_lost_connection_fails_what_is_pending_long_before_its_deadline() {
    let mini = mini(1);
    let hang = mini.fail(SEND, Fault::no_reply());
    let patient = producer(&mini).retries(0).send_timeout(Duration::from_secs(24 * 60 * 60)).start().unwrap();
    let outcomes: Vec<_> = (0..20).map(|_| begin(&patient)).collect();
    assert!(mini.wait_for_fault(hang, 20, PATIENCE));
    assert_eq!(patient.in_flight(), 20);
    assert!(mini.cut_connections("broker-a") > 0);
    for pending in &outcomes {
        let error = outcome(pending).unwrap_err();
        assert_eq!((error.kind(), error.certainty()), (ErrorKind::ConnectionLost, Certainty::Unknown));
    }
    assert_eq!(patient.in_flight(), 0);
}

#[test]
fn life_13_every_way_to_end_gives_the_place_in_the_window_back() {
    let mini = mini(1);
    let producer =
        producer(&mini).retries(0).send_timeout(Duration::from_millis(500)).max_in_flight(1).start().unwrap();
    producer.wait_ready(&[TOPIC], PATIENCE).unwrap();
    for (fault, stored) in [
        (None, true),
        (Some(Fault::error(ResponseCode::SYSTEM_BUSY, "busy")), false),
        (Some(Fault::swallow_reply()), false),
        (Some(Fault::close()), false),
        (Some(Fault::wrong_bytes(&b"garbage!"[..])), false),
        (Some(Fault::duplicate_reply()), true),
    ] {
        let name = format!("{fault:?}");
        let fault = fault.map(|fault| mini.fail(SEND, fault.times(1)));
        let result = outcome(&begin(&producer));
        assert_eq!(result.is_ok(), stored, "{name}: {result:?}");
        assert!(fault.is_none_or(|fault| mini.fault_hits(fault) == 1), "{name}");
        assert_eq!(producer.in_flight(), 0, "{name}");
        mini.clear_faults();
        // The mini broker's name server and the client's routes are unchanged: the next send succeeds.
        producer.timeout(PATIENCE).send(&message()).unwrap_or_else(|error| panic!("after {name}: {error}"));
    }
}

#[test]
fn life_14_a_send_follows_go_away_to_a_fresh_connection() {
    let mini = mini(1);
    let producer = producer(&mini).retries(0).start().unwrap();
    producer.send(&message()).unwrap();
    mini.fail(SEND, Fault::error(ResponseCode::GO_AWAY, "the broker is going").times(1));
    producer.send(&message()).unwrap();
    mini.fail(SEND, Fault::error(ResponseCode::GO_AWAY, "the broker is going").times(1));
    outcome(&begin(&producer)).unwrap();
    let connections: Vec<_> = mini.requests_of(SEND).iter().map(|request| request.connection).collect();
    let [first, refused, second, refused_again, third] = connections[..] else { panic!("{connections:?}") };
    assert_eq!((first, second), (refused, refused_again));
    assert!(first != second && second != third);
    assert_eq!(mini.messages(TOPIC).len(), 3);
}

#[test]
fn a_broker_that_departs_fails_no_send_that_its_neighbour_takes() {
    let mini = mini(2);
    let departing = mini.fail(SEND, Fault::error(ResponseCode::GO_AWAY, "the broker is going").at("broker-a"));
    let producer = producer(&mini).retries(0).start().unwrap();
    for _ in 0..8 {
        assert_eq!(producer.send(&message()).unwrap().queue.broker_name(), "broker-b");
        assert_eq!(outcome(&begin(&producer)).unwrap().queue.broker_name(), "broker-b");
    }
    assert!(mini.fault_hits(departing) >= 4);
}

/// Resolver that hangs at every name until it is released, and counts its calls.
struct Hanging {
    asked: Arc<AtomicUsize>,
    let_go: Receiver<()>,
}

impl Resolve for Hanging {
    fn resolve(&self, _: &str) -> io::Result<Vec<SocketAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let _ = self.let_go.recv();
        Err(io::ErrorKind::NotFound.into())
    }
}

#[test]
fn a_oneway_message_goes_to_another_broker_when_the_first_cannot_be_reached() {
    let mini = mini(2);
    let (hold, let_go) = bounded(0);
    let asked = Arc::new(AtomicUsize::new(0));
    let gone = mini.broker_address("broker-a").to_string();
    let map = move |address: &str| if address == gone { "gone.test:1".to_owned() } else { address.to_owned() };
    let producer = producer(&mini)
        .address_map(map)
        .resolver(Hanging { asked: Arc::clone(&asked), let_go })
        .connect_timeout(Duration::from_millis(500))
        .start()
        .unwrap();
    // One of the first five goes to the broker that is not yet known to be unreachable.
    for _ in 0..8 {
        producer.send_oneway(&message()).unwrap();
    }
    assert!(mini.wait_for_messages(TOPIC, 8, PATIENCE));
    assert!(asked.load(Ordering::SeqCst) > 0);
    drop(hold);
}

/// One thread after the other waits for its response, and each begins at its turn's broker.
#[test]
fn a_broker_that_refuses_gets_no_more_than_its_share_of_the_first_attempts() {
    const SENDERS: usize = 8;
    const SENDS: usize = 40;
    let mini = mini(2);
    let busy = mini.fail(SEND, Fault::error(ResponseCode::SYSTEM_BUSY, "busy").at("broker-a"));
    let producer = producer(&mini).start().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            let sends = || (0..SENDS).for_each(|_| drop(producer.send(&message()).unwrap()));
            std::thread::Builder::new().spawn_scoped(scope, sends).unwrap();
        }
    });
    assert_eq!(mini.fault_hits(busy), SENDERS * SENDS / 2);
}

#[test]
fn a_send_without_an_answer_may_be_stored_and_says_so() {
    let mini = mini(1);
    let lost = mini.fail(SEND, Fault::swallow_reply());
    let producer = producer(&mini).retries(0).send_timeout(Duration::from_millis(300)).start().unwrap();
    producer.wait_ready(&[TOPIC], PATIENCE).unwrap();
    let error = producer.send(&message()).unwrap_err();
    assert_eq!((error.kind(), error.certainty()), (ErrorKind::Timeout, Certainty::Unknown));
    assert_eq!(mini.fault_hits(lost), mini.messages(TOPIC).len());
    let completions = Completions::new();
    producer.send_tracked(message(), 7, &completions).unwrap();
    let mut finished = Vec::new();
    assert_eq!(completions.take(&mut finished, PATIENCE).unwrap(), 1);
    assert_eq!(finished[0].result.as_ref().unwrap_err().certainty(), Certainty::Unknown);
}

/// Response of a broker that stored a message at offset 41 of queue 3.
fn stored_with(request: &RemotingCommand, code: ResponseCode) -> RemotingCommand {
    RemotingCommand::response_to(request, code, None).with_fields(&stored_fields())
}

fn stored_fields() -> SendMessageResponse<'static> {
    let msg_id = "7F00000100002A9F0000000000000000";
    SendMessageResponse { msg_id, queue_id: 3, queue_offset: 41, ..SendMessageResponse::default() }
}

/// Only the tests of this file use it; a producer without sends shows that a start makes no connection.
#[test]
fn a_producer_starts_without_its_servers_and_finds_them_when_they_come() {
    let mini = mini(1);
    mini.stop_name_server(0);
    mini.stop_broker("broker-a");
    let producer: Producer = producer(&mini).start().unwrap();
    assert!(producer.wait_ready(&[TOPIC], Duration::from_millis(50)).is_err());
    mini.start_broker("broker-a").unwrap();
    mini.start_name_server(0).unwrap();
    producer.send(&message()).unwrap();
}
