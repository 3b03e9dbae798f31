//! Members of one client: shared parts, and leftovers after the last of them has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode};
use rocketmq_sync::{
    Client, ErrorKind, FilterExpression, Producer, PushConsumer, StdThreads, ThreadBody, ThreadJoin, ThreadSpec,
    ThreadStarter,
};

use crate::{PATIENCE, TOPIC, eventually, message, mini};

/// LIFE-10.
#[test]
fn life_10_a_group_is_taken_once_and_free_again_and_nothing_is_left_of_the_last_member() {
    let mini = mini(1);
    let threads = CountedThreads::default();
    let builder = Client::builder().name_servers(mini.name_servers()).thread_starter(threads.clone());
    let client = builder.start().unwrap();
    let producer = || Producer::builder("group").client(&client).start();
    let consumer = || {
        let builder = PushConsumer::builder("group").client(&client).subscribe(TOPIC, FilterExpression::all());
        builder.each(|_| Ok(())).start()
    };
    // Producers and consumers do not occupy each other's groups.
    let (first_producer, first_consumer) = (producer().unwrap(), consumer().unwrap());
    assert_eq!(producer().unwrap_err().kind(), ErrorKind::DuplicateGroup);
    assert_eq!(consumer().unwrap_err().kind(), ErrorKind::DuplicateGroup);
    assert!(mini.wait_for_members("group", 1, PATIENCE));

    assert!(first_producer.shutdown(PATIENCE).is_clean());
    assert!(first_consumer.shutdown(PATIENCE).is_clean());
    assert!(mini.members("broker-a", "group").is_empty(), "the broker was not told");
    let (second_producer, second_consumer) = (producer().unwrap(), consumer().unwrap());
    assert!(mini.wait_for_members("group", 1, PATIENCE));
    assert!(threads.living() > 0);

    drop((first_producer, first_consumer, second_producer, second_consumer, client));
    assert_eq!(threads.living(), 0);
    eventually("no connection is left", || mini.connection_count("broker-a") == 0);
    assert!(mini.members("broker-a", "group").is_empty());
}

/// The client ends by one call, but not before its members; then each handle of it says so.
#[test]
fn a_client_that_is_shut_down_names_the_members_that_live_and_then_ends() {
    let mini = mini(1);
    let threads = CountedThreads::default();
    let builder = Client::builder().name_servers(mini.name_servers()).thread_starter(threads.clone());
    let client = builder.start().unwrap();
    let producer = Producer::builder("orders").client(&client).start().unwrap();

    let report = client.shutdown(PATIENCE);
    assert_eq!(report.members_alive, ["producer orders"]);
    assert!(!report.is_clean());
    producer.send(&message()).expect("a client whose member lives goes on");

    assert!(producer.shutdown(PATIENCE).is_clean());
    assert!(client.shutdown(PATIENCE).is_clean());
    assert_eq!(threads.living(), 0);
    assert!(client.shutdown(PATIENCE).is_clean(), "the first report stays");
    let error = Producer::builder("late").client(&client).start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning, "{error}");
    let question = RemotingCommand::request(RequestCode::GET_BROKER_CLUSTER_INFO, &());
    let error = client.request(&mini.name_servers()[0], &question, PATIENCE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning, "{error}");
    eventually("no connection is left", || mini.connection_count("broker-a") == 0);
}

/// A callback cannot wait for its own thread.
#[test]
fn a_client_that_is_shut_down_from_a_callback_only_begins_to_end() {
    let mini = mini(1);
    let client = Client::builder().name_servers(mini.name_servers()).start().unwrap();
    let producer = Producer::builder("orders").client(&client).start().unwrap();
    let (tell, told) = crossbeam_channel::bounded(1);
    let (go_on, wait) = crossbeam_channel::bounded::<()>(0);
    let own = client.clone();
    producer
        .send_async(message(), move |_| {
            // The member is shut down by then.
            let _ = wait.recv_timeout(PATIENCE);
            tell.send(own.shutdown(PATIENCE)).unwrap();
        })
        .unwrap();
    assert!(producer.shutdown(PATIENCE).is_clean());
    drop(go_on);
    let report = told.recv_timeout(PATIENCE).unwrap();
    assert!(report.only_begun, "{report:?}");
    assert!(client.shutdown(PATIENCE).is_clean());
}

/// Counts the live threads of a client.
#[derive(Clone, Default)]
struct CountedThreads(Arc<AtomicUsize>);

impl CountedThreads {
    fn living(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl ThreadStarter for CountedThreads {
    fn start(&self, spec: &ThreadSpec, body: ThreadBody) -> std::io::Result<ThreadJoin> {
        let living = Arc::clone(&self.0);
        living.fetch_add(1, Ordering::SeqCst);
        StdThreads.start(
            spec,
            Box::new(move || {
                body();
                living.fetch_sub(1, Ordering::SeqCst);
            }),
        )
    }
}
