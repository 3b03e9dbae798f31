//! Ends of members: each ends once, is identified by its id and not by its group's name, and has a correct report.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded};
use parking_lot::Mutex;
use rocketmq_sync::mini_broker::{Fault, MiniBroker};
use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use rocketmq_sync::{
    Client, Completions, ConsumeFromWhere, FilterExpression, MessageExt, MessageQueue, Producer, PushConsumer,
    PushConsumerBuilder,
};

use crate::{PATIENCE, TOPIC, eventually, message, mini, producer};

const GROUP: &str = "receivers";

fn client(mini: &MiniBroker) -> Client {
    Client::builder()
        .name_servers(mini.name_servers())
        .heartbeat_interval(Duration::from_millis(50))
        .route_interval(Duration::from_millis(50))
        .start()
        .unwrap()
}

fn consumer() -> PushConsumerBuilder {
    PushConsumer::builder(GROUP).subscribe(TOPIC, FilterExpression::all()).consume_from(ConsumeFromWhere::First)
}

fn ignoring(client: &Client) -> PushConsumer {
    consumer().client(client).each(|_| Ok(())).start().unwrap()
}

/// The usual restart, `self.consumer = PushConsumer::builder(..).start()?`: the old value is dropped after the new one
/// has started.
#[test]
fn a_consumer_that_takes_the_place_of_the_one_before_is_served() {
    let mini = mini(1);
    let client = client(&mini);
    let mut current = ignoring(&client);
    current.wait_ready(PATIENCE).unwrap();
    assert!(current.shutdown(PATIENCE).is_clean());
    let (taken, messages) = unbounded();
    let successor = consumer().client(&client).each(move |message| Ok(taken.send(message.queue_offset())?));
    let old = std::mem::replace(&mut current, successor.start().unwrap());
    old.shutdown(PATIENCE);
    drop(old);
    current.wait_ready(PATIENCE).unwrap();
    let producer = producer(&mini).start().unwrap();
    for _ in 0..10 {
        producer.send(&message()).unwrap();
    }
    for _ in 0..10 {
        messages.recv_timeout(PATIENCE).expect("the successor consumes");
    }
    let queues = current.queues();
    assert_eq!(queues.len(), 5, "{queues:?}");
    assert!(queues.iter().all(|queue| current.status(queue).unwrap().is_some()));
    assert_eq!(mini.members("broker-a", GROUP).len(), 1);
    let heartbeats = mini.request_count(RequestCode::HEART_BEAT);
    assert!(mini.wait_for_requests(RequestCode::HEART_BEAT, heartbeats + 2, PATIENCE));
    assert!(current.shutdown(PATIENCE).is_clean());
}

#[test]
fn a_producer_that_takes_the_place_of_the_one_before_is_served() {
    let mini = mini(1);
    let client = client(&mini);
    let start = || Producer::builder("senders").client(&client).send_timeout(PATIENCE).start().unwrap();
    let old = start();
    old.send(&message()).unwrap();
    assert!(old.shutdown(PATIENCE).is_clean());
    let successor = start();
    old.shutdown(PATIENCE);
    drop(old);
    successor.send(&message()).unwrap();
    for code in [RequestCode::HEART_BEAT, RequestCode::GET_ROUTEINFO_BY_TOPIC] {
        let before = mini.request_count(code);
        assert!(mini.wait_for_requests(code, before + 2, PATIENCE), "{code} goes on");
    }
    assert_eq!(mini.request_count(RequestCode::UNREGISTER_CLIENT), 1);
    assert!(successor.shutdown(PATIENCE).is_clean());
}

#[test]
fn the_first_shutdown_leaves_its_report_and_later_ones_do_nothing_else() {
    let mini = mini(2);
    mini.fail(RequestCode::UNREGISTER_CLIENT, Fault::error(ResponseCode::SYSTEM_ERROR, "no").at("broker-b"));
    let client = client(&mini);
    let consumer = ignoring(&client);
    let producer = Producer::builder("senders").client(&client).start().unwrap();
    producer.wait_ready(&[TOPIC], PATIENCE).unwrap();
    eventually("both brokers list the consumer", || {
        ["broker-a", "broker-b"].iter().all(|broker| !mini.members(broker, GROUP).is_empty())
    });
    let reports = (consumer.shutdown(PATIENCE), producer.shutdown(PATIENCE));
    assert_eq!(reports.0.brokers_not_told().len(), 1, "{reports:?}");
    assert_eq!(reports.1.brokers_not_told.len(), 1, "{reports:?}");
    let asked = mini.requests().len();
    let farewells = mini.request_count(RequestCode::UNREGISTER_CLIENT);
    for timeout in [PATIENCE, Duration::ZERO] {
        assert_eq!((consumer.shutdown(timeout), producer.shutdown(timeout)), reports);
    }
    drop((consumer, producer));
    assert_eq!(mini.request_count(RequestCode::UNREGISTER_CLIENT), farewells);
    assert!(mini.requests().len() <= asked + 2, "nothing but look-ups that were under way");
}

/// Otherwise the member stays listed, and gets a share of the queues for two minutes.
#[test]
fn a_member_that_ends_before_its_first_heartbeat_is_answered_is_unregistered() {
    let mini = mini(2);
    let late = mini.fail(RequestCode::HEART_BEAT, Fault::delay(Duration::from_millis(300)));
    let client = Client::builder().name_servers(mini.name_servers()).start().unwrap();
    let consumer = ignoring(&client);
    eventually("both brokers list the consumer", || {
        ["broker-a", "broker-b"].iter().all(|broker| !mini.members(broker, GROUP).is_empty())
    });
    let report = consumer.shutdown(PATIENCE);
    assert!(report.is_clean(), "{report:?}");
    assert!(mini.fault_hits(late) >= 2);
    for broker in ["broker-a", "broker-b"] {
        assert_eq!(mini.members(broker, GROUP), [""; 0], "{broker}");
    }
    // Brokers handle the requests of one connection in parallel: an unregistration must not overtake.
    let order: Vec<_> = mini
        .requests()
        .into_iter()
        .filter(|request| [RequestCode::HEART_BEAT, RequestCode::UNREGISTER_CLIENT].contains(&request.code))
        .map(|request| request.code)
        .collect();
    assert_eq!(order.last(), Some(&RequestCode::UNREGISTER_CLIENT), "{order:?}");
}

#[test]
fn a_failed_message_that_nobody_took_back_makes_the_report_unclean() {
    let mini = mini(1);
    for code in [RequestCode::CONSUMER_SEND_MSG_BACK, RequestCode::SEND_MESSAGE_V2] {
        mini.fail(code, Fault::error(ResponseCode::SYSTEM_ERROR, "no"));
    }
    let queue = MessageQueue::new(TOPIC, "broker-a", 0);
    for _ in 0..5 {
        mini.store(&queue, &message());
    }
    let (tried, tries) = unbounded();
    let failing = consumer().name_servers(mini.name_servers()).each(move |_: &MessageExt| {
        let _ = tried.send(());
        Err("as the test wants it".into())
    });
    let consumer = failing.start().unwrap();
    for _ in 0..5 {
        tries.recv_timeout(PATIENCE).unwrap();
    }
    let report = consumer.shutdown(PATIENCE);
    assert_eq!((report.failed_not_handed_back(), report.messages_left()), (5, 5), "{report:?}");
    assert!(!report.is_clean());
}

#[test]
fn results_that_were_not_taken_are_no_unresolved_sends_and_cost_no_waiting() {
    let mini = mini(1);
    let producer = producer(&mini).start().unwrap();
    let completions = Completions::new();
    for token in 0..10 {
        producer.send_tracked(message(), token, &completions).unwrap();
    }
    eventually("all are stored", || producer.untaken() == 10);
    assert_eq!(producer.in_flight(), 0);
    let report = producer.shutdown(Duration::MAX);
    assert_eq!((report.unresolved, report.untaken), (0, 10), "{report:?}");
    assert!(report.is_clean());
    drop(producer);
    let mut taken = Vec::new();
    assert_eq!(completions.take(&mut taken, Duration::ZERO).unwrap(), 10);
    assert!(taken.iter().all(|completed| completed.result.is_ok()));
}

/// The listener holds the last handle of its consumer and drops it.
#[test]
fn a_consumer_that_is_dropped_by_its_own_listener_leaves_the_group() {
    let mini = mini(1);
    let client = client(&mini);
    let handle: Arc<Mutex<Option<PushConsumer>>> = Arc::default();
    let (own, (done, dropped)) = (Arc::clone(&handle), bounded(1));
    let listener = move |_: &MessageExt| -> Result<(), Box<dyn Error + Send + Sync>> {
        let consumer = own.lock().take();
        let begun = consumer.as_ref().map(|consumer| consumer.shutdown(PATIENCE).only_begun());
        drop(consumer);
        Ok(done.send(begun)?)
    };
    let consumer = consumer().client(&client).consume_threads(2).each(listener).start().unwrap();
    consumer.wait_ready(PATIENCE).unwrap();
    *handle.lock() = Some(consumer);
    mini.store(&MessageQueue::new(TOPIC, "broker-a", 0), &message());
    assert_eq!(dropped.recv_timeout(PATIENCE), Ok(Some(true)));
    eventually("the broker lists nobody", || mini.members("broker-a", GROUP).is_empty());
    // The name is available again.
    assert!(ignoring(&client).shutdown(PATIENCE).is_clean());
}

/// The callback holds the last handle of its producer and drops it.
#[test]
fn a_producer_that_is_dropped_by_its_own_callback_ends() {
    let mini = mini(1);
    let client = client(&mini);
    let start = || Producer::builder("senders").client(&client).send_timeout(PATIENCE).start().unwrap();
    let producer = Arc::new(start());
    let (own, (done, dropped)) = (Arc::clone(&producer), bounded(1));
    let (ready, wait) = bounded::<()>(0);
    let callback = move |_| {
        assert!(wait.recv().is_err());
        let only_begun = own.shutdown(PATIENCE).only_begun;
        drop(own);
        let _ = done.send(only_begun);
    };
    producer.send_async(message(), callback).unwrap();
    drop(producer);
    drop(ready);
    assert_eq!(dropped.recv_timeout(PATIENCE), Ok(true));
    eventually("the producer is unregistered", || mini.request_count(RequestCode::UNREGISTER_CLIENT) == 1);
    assert!(start().shutdown(PATIENCE).is_clean());
}

#[test]
fn a_wait_that_ends_at_its_deadline_names_what_is_missing() {
    let mini = mini(1);
    mini.fail(RequestCode::GET_CONSUMER_LIST_BY_GROUP, Fault::error(ResponseCode::SYSTEM_ERROR, "no"));
    let consumer = ignoring(&client(&mini));
    let begun = Instant::now();
    for timeout in [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(200)] {
        let error = consumer.wait_ready(timeout).unwrap_err().to_string();
        assert!(error.contains(&format!("{TOPIC}: ")), "{error:?}");
    }
    assert!(begun.elapsed() < PATIENCE);
}
