//! Send-back of failed messages to their broker, and the fallbacks when a broker does not accept them.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, unbounded};
use rocketmq_sync::mini_broker::{Fault, MiniBroker, RequestRecord};
use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode, ResponseCode};
use rocketmq_sync::{
    ConsumeFromWhere, FilterExpression, Message, MessageExt, MessageQueue, Producer, PushConsumer, PushConsumerBuilder,
};

use crate::{PATIENCE, TOPIC, eventually, mini, producer};

const GROUP: &str = "receivers";
const RETRY_TOPIC: &str = "%RETRY%receivers";
const SEND_BACK: RequestCode = RequestCode::CONSUMER_SEND_MSG_BACK;
/// Longer than any test: timers with this interval do not fire in one.
const NEVER: Duration = Duration::from_secs(60 * 60);
const SEND: RequestCode = RequestCode::SEND_MESSAGE_V2;

/// Longer than the first two retry delays by a broker's default levels, 10 s and 30 s.
const UNTIL_DUE: Duration = Duration::from_secs(40);

#[test]
fn retry_06_a_failed_message_goes_back_by_one_request() {
    let mini = mini(1);
    let (consumer, deliveries) = failing(&mini, 1, |builder| builder);
    let sent = send(&producer(&mini).start().unwrap(), &message());
    let first = next(&deliveries);
    assert!(mini.wait_for_requests(SEND_BACK, 1, PATIENCE));
    mini.advance(UNTIL_DUE);
    assert_eq!(next(&deliveries).reconsume_times(), 1);
    let [request] = &mini.requests_of(SEND_BACK)[..] else { panic!("one request") };
    for (field, value) in [
        ("group", GROUP),
        ("offset", &*first.commit_log_offset().to_string()),
        ("delayLevel", "0"),
        ("originMsgId", &*first.msg_id()),
        ("originTopic", TOPIC),
        ("maxReconsumeTimes", "16"),
    ] {
        assert_eq!(request.fields.get(field), Some(value), "{field}");
    }
    assert!(published(&mini).is_empty());
    assert!(consumer.shutdown(PATIENCE).is_clean());
    assert_eq!(mini.committed_offset(GROUP, &sent), Some(1));
}

#[test]
fn retry_06_the_retry_queue_of_a_broker_that_tells_its_name_server_late_is_found() {
    let mini = mini(2);
    let address = mini.broker_address("broker-a");
    let of_broker_a_only = format!(
        "{{\"brokerDatas\":[{{\"brokerAddrs\":{{\"0\":\"{address}\"}},\"brokerName\":\"broker-a\",\"cluster\":\"C\"}}],\
         \"queueDatas\":[{{\"brokerName\":\"broker-a\",\"perm\":6,\"readQueueNums\":1,\"writeQueueNums\":1}}]}}"
    );
    let early = Fault::answer(move |request| {
        RemotingCommand::response_to(request, ResponseCode::SUCCESS, None).with_body(of_broker_a_only.clone())
    });
    mini.fail(RequestCode::GET_ROUTEINFO_BY_TOPIC, early.topic(RETRY_TOPIC));
    let (consumer, deliveries) = failing(&mini, 1, |builder| {
        let quiet = builder.route_interval(NEVER).heartbeat_interval(NEVER).rebalance_interval(NEVER);
        quiet.offset_interval(Duration::from_millis(100))
    });
    let retry_queue = |broker: &str| MessageQueue::new(RETRY_TOPIC, broker, 0);
    eventually("the queue that is told is taken", || consumer.queues().contains(&retry_queue("broker-a")));
    assert!(!consumer.queues().contains(&retry_queue("broker-b")));
    mini.clear_faults();
    let queue = MessageQueue::new(TOPIC, "broker-b", 0);
    producer(&mini).start().unwrap().to_queue(&queue).send(&message()).unwrap();
    next(&deliveries);
    assert!(mini.wait_for_requests(SEND_BACK, 1, PATIENCE));
    eventually("the other queue is taken", || consumer.queues().contains(&retry_queue("broker-b")));
    mini.advance(UNTIL_DUE);
    assert_eq!(next(&deliveries).reconsume_times(), 1);
}

#[test]
fn retry_06_a_message_that_is_not_taken_back_is_published_to_the_retry_topic() {
    for fault in [Fault::error(ResponseCode::SYSTEM_ERROR, "no"), Fault::close(), Fault::no_reply()] {
        let mini = mini(1);
        let name = format!("{fault:?}");
        let refused = mini.fail(SEND_BACK, fault);
        let (consumer, deliveries) = failing(&mini, 2, |builder| builder.max_reconsume_times(5));
        let sent = send(&producer(&mini).start().unwrap(), &message());
        let first = next(&deliveries);
        for times in 1..=2 {
            assert!(mini.wait_for_fault(refused, times, PATIENCE), "{name}");
            await_published(&mini, times);
            mini.advance(UNTIL_DUE);
            let again = next(&deliveries);
            assert_eq!(again.reconsume_times(), i32::try_from(times).unwrap(), "{name}");
            assert_eq!((again.topic(), again.body(), again.msg_id()), (TOPIC, first.body(), first.msg_id()), "{name}");
            assert_eq!((again.tag(), again.keys(), again.property("colour")), (Some("A"), Some("42"), Some("blue")));
        }
        for (times, request) in (1_u32..).zip(published(&mini)) {
            assert_eq!(request.fields.get("j"), Some(&*times.to_string()), "reconsumeTimes, {name}");
            assert_eq!(request.fields.get("l"), Some("5"), "maxReconsumeTimes, {name}");
            for (property, value) in [
                ("RETRY_TOPIC", TOPIC),
                ("ORIGIN_MESSAGE_ID", &*first.msg_id()),
                ("RECONSUME_TIME", &*times.to_string()),
                ("MAX_RECONSUME_TIMES", "5"),
                ("DELAY", &*(2 + times).to_string()),
            ] {
                assert_eq!(property_of(&request, property).as_deref(), Some(value), "{property}, {name}");
            }
        }
        assert!(consumer.shutdown(PATIENCE).is_clean(), "{name}");
        assert_eq!(mini.committed_offset(GROUP, &sent), Some(1), "{name}");
    }
}

#[test]
fn retry_06_a_message_of_a_broker_that_is_gone_is_published_on_another() {
    let mini = mini(2);
    let (begun, has_begun) = unbounded();
    let (release, released) = bounded::<()>(0);
    let (delivered, deliveries) = unbounded();
    let _consumer = builder(&mini)
        .each(move |message: &MessageExt| {
            if message.reconsume_times() == 0 {
                let _ = begun.send(());
                let _ = released.recv();
                return Err("its broker is gone meanwhile".into());
            }
            let _ = delivered.send(message.clone());
            Ok(())
        })
        .start()
        .unwrap();
    send(&producer(&mini).start().unwrap(), &message());
    has_begun.recv_timeout(PATIENCE).expect("the listener runs");
    mini.stop_broker("broker-a");
    drop(release);
    await_published(&mini, 1);
    mini.advance(UNTIL_DUE);
    let again = next(&deliveries);
    assert_eq!((again.broker_name(), again.reconsume_times()), ("broker-b", 1));
    assert_eq!(mini.request_count(SEND_BACK), 0);
}

#[test]
fn retry_06_a_message_that_no_broker_takes_is_consumed_here_again_and_no_offset_passes_it() {
    let mini = Arc::new(mini(1));
    let not_taken = mini.fail(SEND_BACK, Fault::error(ResponseCode::SYSTEM_ERROR, "no"));
    let not_stored = mini.fail(SEND, Fault::error(ResponseCode::MESSAGE_ILLEGAL, "no").topic(RETRY_TOPIC));
    let queue = MessageQueue::new(TOPIC, "broker-a", 0);
    let (delivered, deliveries) = unbounded();
    let consumer = builder(&mini)
        .each({
            let (mini, queue) = (Arc::clone(&mini), queue.clone());
            move |message: &MessageExt| {
                let _ = delivered.send((message.clone(), mini.committed_offset(GROUP, &queue)));
                let is_first = mini.fault_hits(not_stored) == 0;
                if is_first && message.queue_offset() == 0 { Err("not yet".into()) } else { Ok(()) }
            }
        })
        .start()
        .unwrap();
    let producer = producer(&mini).start().unwrap();
    send(&producer, &message());
    send(&producer, &Message::new(TOPIC, "the next one"));
    let mut of_first = Vec::new();
    while of_first.len() < 2 {
        let (message, committed) = deliveries.recv_timeout(PATIENCE).expect("a delivery");
        if message.queue_offset() == 0 {
            of_first.push((message.reconsume_times(), committed.unwrap_or(0)));
        }
    }
    assert_eq!(
        of_first,
        [(0, 0), (0, 0)],
        "reconsume times and committed offset at each delivery of the first message"
    );
    assert_eq!((mini.fault_hits(not_taken), mini.fault_hits(not_stored)), (1, 1));
    assert!(mini.wait_for_committed_offset(GROUP, &queue, 2, PATIENCE));
    assert!(consumer.shutdown(PATIENCE).is_clean());
}

/// Builds a consumer that commits often, so that a wrong commit is visible.
fn builder(mini: &MiniBroker) -> PushConsumerBuilder {
    PushConsumer::builder(GROUP)
        .name_servers(mini.name_servers())
        .offset_interval(Duration::from_millis(50))
        .consume_from(ConsumeFromWhere::First)
        .subscribe(TOPIC, FilterExpression::all())
}

/// Builds a consumer whose listener fails for the first `times` deliveries of each message.
fn failing(
    mini: &MiniBroker,
    times: i32,
    options: fn(PushConsumerBuilder) -> PushConsumerBuilder,
) -> (PushConsumer, Receiver<MessageExt>) {
    let (delivered, deliveries) = unbounded();
    let listener = move |message: &MessageExt| -> Result<(), Box<dyn Error + Send + Sync>> {
        let _ = delivered.send(message.clone());
        if message.reconsume_times() < times { Err("failed by the test".into()) } else { Ok(()) }
    };
    (options(builder(mini)).each(listener).start().unwrap(), deliveries)
}

fn message() -> Message {
    Message::new(TOPIC, "body").with_tag("A").with_key("42").with_property("colour", "blue")
}

/// Sends to the first queue of the first broker, which is returned.
fn send(producer: &Producer, message: &Message) -> MessageQueue {
    producer.to_queue(&MessageQueue::new(TOPIC, "broker-a", 0)).send(message).unwrap().queue
}

fn next(deliveries: &Receiver<MessageExt>) -> MessageExt {
    deliveries.recv_timeout(PATIENCE).expect("a delivery")
}

/// Sends to the retry topic.
fn published(mini: &MiniBroker) -> Vec<RequestRecord> {
    let mut sends = mini.requests_of(SEND);
    sends.retain(|request| request.topic() == Some(RETRY_TOPIC));
    sends
}

/// Waits for sends to the retry topic, in addition to the test's own first send.
fn await_published(mini: &MiniBroker, times: usize) {
    assert!(mini.wait_for_requests(SEND, 1 + times, PATIENCE));
    assert_eq!(published(mini).len(), times);
}

/// Property of a send request; on the wire U+0001 follows a property's name and U+0002 its value.
fn property_of(request: &RequestRecord, name: &str) -> Option<String> {
    let properties = request.fields.get("i")?.split('\u{2}').filter_map(|property| property.split_once('\u{1}'));
    properties.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
}
