//! Routes: the number of queries, handling of wrong ones, and removal of unused ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::unbounded;
use rocketmq_sync::mini_broker::{Fault, MiniBroker};
use rocketmq_sync::unversioned::wire::header::GetRouteInfoRequest;
use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode, ResponseCode};
use rocketmq_sync::{Client, ConsumeFromWhere, FilterExpression, Message, MessageQueue, PushConsumer};

use crate::{PATIENCE, TOPIC, eventually, message, mini, producer};

const ROUTE: RequestCode = RequestCode::GET_ROUTEINFO_BY_TOPIC;
/// Topics without a route are queried under this name too.
const TEMPLATE: &str = "TBW102";
/// A client with this refresh interval removes an unused topic after a second.
const OFTEN: Duration = Duration::from_millis(50);

fn look_ups(mini: &MiniBroker, topic: &str) -> usize {
    mini.requests_of(ROUTE).iter().filter(|request| request.topic() == Some(topic)).count()
}

#[test]
fn thousands_of_sends_to_new_topics_share_one_look_up_of_each_and_one_of_their_template() {
    let mini = mini(1);
    let slow = mini.fail(ROUTE, Fault::delay(Duration::from_millis(500)));
    let producer = producer(&mini).start().unwrap();
    let (told, outcomes) = unbounded();
    for number in 0..5000 {
        let told = told.clone();
        let topic = format!("new-{}", number % 2);
        producer.send_async(Message::new(topic, "x"), move |result| drop(told.send(result))).unwrap();
    }
    for _ in 0..5000 {
        outcomes.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    assert!(mini.fault_hits(slow) > 0);
    assert_eq!(look_ups(&mini, TEMPLATE), 1);
    // One before the first message, and one after it, which has created the topic.
    assert!(look_ups(&mini, "new-0") <= 2, "{}", look_ups(&mini, "new-0"));
}

/// The route of a topic that does not exist yet is that of the template, and must not outlive it.
#[test]
fn a_broker_that_moves_before_the_first_message_to_a_topic_is_found() {
    let mini = mini(1);
    let has_moved = Arc::new(AtomicBool::new(false));
    let moved = Arc::clone(&has_moved);
    let dead = "127.0.0.1:1";
    let map = move |address: &str| if moved.load(Ordering::SeqCst) { address.to_owned() } else { dead.to_owned() };
    let producer = producer(&mini).address_map(map).route_interval(OFTEN).start().unwrap();
    let error = producer.send(&Message::new("new", "x")).unwrap_err();
    assert!(error.to_string().contains(dead), "{error}");
    assert_eq!(look_ups(&mini, "new"), look_ups(&mini, TEMPLATE).max(1), "it is asked for as one that does not exist");
    has_moved.store(true, Ordering::SeqCst);
    let asked = look_ups(&mini, TEMPLATE);
    eventually("the route is guessed anew", || look_ups(&mini, TEMPLATE) > asked + 1);
    producer.send(&Message::new("new", "x")).unwrap();
}

#[test]
fn a_guessed_route_is_dropped_when_nobody_would_create_the_topic_any_more() {
    let mini = mini(1);
    let producer = producer(&mini).address_map(|_| "127.0.0.1:1".to_owned()).route_interval(OFTEN).start().unwrap();
    producer.send(&Message::new("new", "x")).unwrap_err();
    let gone = mini.fail(ROUTE, Fault::error(ResponseCode::TOPIC_NOT_EXIST, "no topic").topic(TEMPLATE));
    let is_unknown = || producer.send(&Message::new("new", "x")).unwrap_err().to_string().contains("no route");
    eventually("the topic has no route", is_unknown);
    assert!(mini.fault_hits(gone) > 0);
}

#[test]
fn topics_that_are_sent_to_no_more_are_not_asked_for_any_more_and_their_brokers_hear_nothing() {
    let mini = mini(2);
    mini.create_topic_on("broker-a", "used", 1, 1, 6);
    for number in 0..20 {
        mini.create_topic_on("broker-b", &format!("once-{number}"), 1, 1, 6);
    }
    let client = Client::builder().name_servers(mini.name_servers()).route_interval(OFTEN).heartbeat_interval(OFTEN);
    // A heartbeat that waits for a connection is abandoned before ten refreshes have passed.
    let client = client.request_timeout(OFTEN * 6).start().unwrap();
    let producer = rocketmq_sync::Producer::builder("senders").client(&client).start().unwrap();
    for number in 0..20 {
        producer.send(&Message::new(format!("once-{number}"), "x")).unwrap();
    }
    assert!(client.broker_versions().contains_key("broker-b") || mini.request_count(RequestCode::HEART_BEAT) > 0);
    let heartbeats = |broker: &str| {
        mini.requests_of(RequestCode::HEART_BEAT).iter().filter(|request| &*request.server == broker).count()
    };
    let look_ups_of_others = || (0..20).map(|number| look_ups(&mini, &format!("once-{number}"))).sum::<usize>();
    // Heartbeats to a stopped broker are repeated, with connects for them, as long as a used topic has that broker.
    mini.stop_broker("broker-b");
    eventually("nobody asks for the other topics, nor tells their broker", || {
        producer.send(&Message::new("used", "x")).unwrap();
        mini.clear_requests();
        eventually("ten refreshes", || look_ups(&mini, "used") >= 10);
        heartbeats("broker-a") > 0 && look_ups_of_others() == 0
    });
    assert!(!client.broker_versions().contains_key("broker-b"));
    // After its return, heartbeats do not find it either.
    mini.start_broker("broker-b").unwrap();
    mini.clear_requests();
    producer.send(&Message::new("used", "x")).unwrap();
    eventually("ten heartbeats", || heartbeats("broker-a") >= 10);
    assert_eq!(heartbeats("broker-b"), 0);
    // A send makes the topic used again.
    producer.send(&Message::new("once-7", "x")).unwrap();
    eventually("its broker is told", || heartbeats("broker-b") > 0);
}

#[test]
fn a_topic_whose_member_has_ended_is_not_asked_for_any_more() {
    let mini = mini(1);
    let client = Client::builder().name_servers(mini.name_servers()).route_interval(OFTEN).start().unwrap();
    let producer = rocketmq_sync::Producer::builder("senders").client(&client).start().unwrap();
    let consumer = PushConsumer::builder("group")
        .client(&client)
        .subscribe(TOPIC, FilterExpression::all())
        .each(|_| Ok(()))
        .start()
        .unwrap();
    consumer.wait_ready(PATIENCE).unwrap();
    consumer.shutdown(PATIENCE);
    producer.send(&Message::new("other", "x")).unwrap();
    mini.clear_requests();
    eventually("ten refreshes", || look_ups(&mini, "other") >= 10);
    mini.clear_requests();
    eventually("ten more", || look_ups(&mini, "other") >= 10);
    assert_eq!(look_ups(&mini, TOPIC), 0);
    assert_eq!(look_ups(&mini, "%RETRY%group"), 0);
}

/// Two clusters with the same broker name behind one name server: the topic determines which broker is meant.
#[test]
fn the_address_of_a_broker_is_that_of_the_topic_in_question() {
    let (here, there) = (mini(1), mini(1));
    there.create_topic("Elsewhere", 1);
    let route = route_of(&there, "Elsewhere");
    let lie = move |request: &RemotingCommand| RemotingCommand {
        body: route.clone(),
        ..RemotingCommand::response_to(request, ResponseCode::SUCCESS, None)
    };
    let lie = here.fail(ROUTE, Fault::answer(lie).topic("Elsewhere"));
    let consumer = PushConsumer::builder("group")
        .name_servers(here.name_servers())
        .subscribe(TOPIC, FilterExpression::all())
        .subscribe("Elsewhere", FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .each(|_| Ok(()))
        .start()
        .unwrap();
    let [queue, elsewhere] = [TOPIC, "Elsewhere"].map(|topic| MessageQueue::new(topic, "broker-a", 0));
    here.store(&queue, &message());
    there.store(&elsewhere, &Message::new("Elsewhere", "x"));
    assert!(here.wait_for_committed_offset("group", &queue, 1, PATIENCE));
    assert!(there.wait_for_committed_offset("group", &elsewhere, 1, PATIENCE));
    assert!(here.fault_hits(lie) > 0);
    assert!(consumer.shutdown(PATIENCE).is_clean());
}

/// Body of a name server's response.
fn route_of(mini: &MiniBroker, topic: &str) -> Bytes {
    let client = Client::builder().name_servers(mini.name_servers()).start().unwrap();
    let header = GetRouteInfoRequest { topic, accept_standard_json_only: Some(true) };
    let [server] = &mini.name_servers()[..] else { panic!("one name server") };
    client.request(server, &RemotingCommand::request(ROUTE, &header), PATIENCE).unwrap().body
}

/// The route was suspected a moment ago, by the previous send, and is not queried again for that. After all its brokers
/// have failed, it is queried during the pause.
#[test]
fn a_send_whose_known_brokers_have_all_failed_finds_the_one_that_is_back() {
    let mini = mini(2);
    mini.stop_broker("broker-a");
    let producer = producer(&mini).route_interval(Duration::from_secs(60 * 60)).start().unwrap();
    producer.send(&message()).unwrap();
    mini.stop_broker("broker-b");
    producer.send(&message()).expect_err("no broker is there");
    mini.start_broker("broker-a").unwrap();
    let receipt = producer.send(&message()).unwrap();
    assert_eq!(receipt.queue.broker_name(), "broker-a");
}
