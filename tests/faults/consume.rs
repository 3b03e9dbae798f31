//! Distribution of pulled messages among a consumer's workers, and the end of a consumer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded, unbounded};
use parking_lot::{Condvar, Mutex};
use rocketmq_sync::mini_broker::{Fault, MiniBroker, RequestRecord};
use rocketmq_sync::unversioned::wire::{RequestCode, ResponseCode};
use rocketmq_sync::{
    ConsumeContext, ConsumeFromWhere, ConsumeStatus, FilterExpression, Message, MessageExt, MessageQueue, PushConsumer,
};

use crate::{PATIENCE, TOPIC, eventually, message, mini, producer, soon};

/// Long enough for a worker to look for helpers afterwards.
const SLOW: Duration = Duration::from_millis(5);

#[test]
fn a_worker_that_becomes_idle_joins_one_that_works_on_a_long_pull() {
    let mini = mini(1);
    let queue = |id| MessageQueue::new(TOPIC, "broker-a", id);
    let producer = producer(&mini).start().unwrap();
    let (release, released) = bounded::<()>(0);
    let (begun, begins) = unbounded();
    let side_by_side = Arc::new(SideBySide::default());
    let met = Arc::clone(&side_by_side);
    let consumer = PushConsumer::builder("workers")
        .name_servers(mini.name_servers())
        .subscribe(TOPIC, FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .consume_threads(2)
        .each(move |message: &MessageExt| {
            begun.send(message.queue_id()).map_err(|_| "the test is over")?;
            if message.queue_id() == 0 {
                let _ = released.recv();
                return Ok(());
            }
            met.run();
            Ok(())
        })
        .start()
        .unwrap();
    producer.to_queue(&queue(0)).send(&message()).unwrap();
    assert_eq!(begins.recv_timeout(PATIENCE).unwrap(), 0);
    // The waiting pull brings the first of these, the next one all others.
    consumer.pause();
    for _ in 0..30 {
        producer.to_queue(&queue(1)).send(&message()).unwrap();
    }
    consumer.resume();
    // One worker is busy, so no other can help when it begins with them.
    for _ in 0..2 {
        assert_eq!(begins.recv_timeout(PATIENCE).unwrap(), 1);
    }
    drop(release);
    assert!(side_by_side.wait(), "the long pull was left to one worker");
    drop(begins);
    consumer.shutdown(PATIENCE);
}

#[test]
fn a_group_that_does_not_exist_and_is_not_created_is_named_with_its_broker() {
    let mini = MiniBroker::builder().auto_create_groups(false).start().unwrap();
    mini.create_topic(TOPIC, 1);
    let consumer = PushConsumer::builder("strangers")
        .name_servers(mini.name_servers())
        .subscribe(TOPIC, FilterExpression::all())
        .each(|_| Ok(()))
        .start()
        .unwrap();
    let words = "group strangers does not exist on broker broker-a and is not created";
    let tells = || consumer.wait_ready(Duration::from_millis(100)).unwrap_err().to_string().contains(words);
    eventually("it is told", tells);
    consumer.shutdown(PATIENCE);
}

#[test]
fn an_offset_that_another_member_stored_late_does_not_stay_where_nothing_is_consumed() {
    let mini = mini(1);
    let queue = MessageQueue::new(TOPIC, "broker-a", 0);
    let consumer = PushConsumer::builder("workers")
        .name_servers(mini.name_servers())
        .subscribe(TOPIC, FilterExpression::all())
        .each(|_| Ok(()))
        .start()
        .unwrap();
    consumer.wait_ready(PATIENCE).unwrap();
    assert!(mini.wait_for_committed_offset("workers", &queue, 0, PATIENCE));
    mini.set_committed_offset("workers", &queue, Some(5));
    // The waiting pull ends without a message; the next one carries the offset.
    let pulls = mini.request_count(RequestCode::PULL_MESSAGE);
    mini.advance(Duration::from_secs(20));
    assert!(mini.wait_for_requests(RequestCode::PULL_MESSAGE, pulls + 1, PATIENCE));
    eventually("the offset is what was consumed", || mini.committed_offset("workers", &queue) == Some(0));
    consumer.shutdown(PATIENCE);
}

/// The broker dies before it has persisted the offsets that it confirmed.
#[test]
fn offsets_that_a_broker_forgets_when_it_dies_are_sent_once_more() {
    let mini = MiniBroker::builder().offset_write_interval(Duration::from_secs(60 * 60)).start().unwrap();
    mini.create_topic(TOPIC, 1);
    let queue = MessageQueue::new(TOPIC, "broker-a", 0);
    let member = |delivered: Sender<i64>| {
        let builder = PushConsumer::builder("workers")
            .name_servers(mini.name_servers())
            .consume_from(ConsumeFromWhere::First)
            .offset_interval(Duration::from_millis(50))
            .subscribe(TOPIC, FilterExpression::all());
        builder.each(move |message| Ok(delivered.send(message.queue_offset())?)).start().unwrap()
    };
    let (delivered, deliveries) = unbounded();
    let consumer = member(delivered);
    for offset in 0..10 {
        assert_eq!(mini.store(&queue, &message()), offset);
    }
    assert!(mini.wait_for_committed_offset("workers", &queue, 10, PATIENCE));
    mini.stop_broker("broker-a");
    assert_eq!(mini.committed_offset("workers", &queue), None, "the broker has forgotten nothing");
    mini.start_broker("broker-a").unwrap();
    assert!(mini.wait_for_committed_offset("workers", &queue, 10, PATIENCE), "nothing new is consumed");
    assert!(consumer.shutdown(PATIENCE).is_clean());
    drop(consumer);
    // The threads of the pool take the messages of a queue in any order.
    let mut delivered: Vec<_> = deliveries.iter().collect();
    delivered.sort_unstable();
    assert_eq!(delivered, (0..10).collect::<Vec<_>>());

    let (delivered, deliveries) = unbounded();
    let next = member(delivered);
    mini.store(&queue, &message());
    assert_eq!(deliveries.recv_timeout(PATIENCE), Ok(10), "what was consumed comes again");
    assert!(next.shutdown(PATIENCE).is_clean());
}

/// A crash repeats the uncommitted messages. Here the waiting pull was sent while the previous message was in progress:
/// it carried no offset, and the next round is an hour away.
#[test]
fn progress_is_committed_soon_without_a_pull_or_a_round() {
    let mini = mini(1);
    let queue = MessageQueue::new(TOPIC, "broker-a", 0);
    let consumer = PushConsumer::builder("workers")
        .name_servers(mini.name_servers())
        .consume_from(ConsumeFromWhere::First)
        .offset_interval(Duration::from_secs(60 * 60))
        .subscribe(TOPIC, FilterExpression::all())
        .each(|_| Ok(()))
        .start()
        .unwrap();
    consumer.wait_ready(PATIENCE).unwrap();
    for offset in 1..=10 {
        mini.store(&queue, &message());
        assert!(mini.wait_for_committed_offset("workers", &queue, offset, PATIENCE), "{offset}");
        let is_committed = |request: &RequestRecord| request.fields.get("commitOffset") == Some(&*offset.to_string());
        eventually("a commit of its own", || {
            mini.requests_of(RequestCode::UPDATE_CONSUMER_OFFSET).iter().any(is_committed)
        });
    }
    assert!(consumer.shutdown(PATIENCE).is_clean());
}

/// With the broker its queues leave the route, and so the consumer. Offsets that it had confirmed and not persisted are
/// missing after its return.
#[test]
fn offsets_outlive_queues_that_vanish_with_their_broker() {
    let mini = MiniBroker::builder().brokers(2).offset_write_interval(Duration::from_secs(60 * 60)).start().unwrap();
    mini.create_topic(TOPIC, 1);
    let queue = MessageQueue::new(TOPIC, "broker-b", 0);
    let (delivered, deliveries) = unbounded();
    let consumer = PushConsumer::builder("workers")
        .name_servers(mini.name_servers())
        .consume_from(ConsumeFromWhere::First)
        .route_interval(Duration::from_millis(50))
        .rebalance_interval(Duration::from_millis(50))
        .subscribe(TOPIC, FilterExpression::all())
        .each(move |message| Ok(delivered.send(message.queue_offset())?))
        .start()
        .unwrap();
    mini.set_committed_offset("workers", &queue, Some(0));
    for _ in 0..10 {
        mini.store(&queue, &message());
    }
    assert!(mini.wait_for_committed_offset("workers", &queue, 10, PATIENCE));
    mini.stop_broker("broker-b");
    eventually("the queue is gone", || !consumer.queues().contains(&queue));
    mini.set_committed_offset("workers", &queue, Some(3));
    mini.start_broker("broker-b").unwrap();
    mini.store(&queue, &message());
    assert!(mini.wait_for_committed_offset("workers", &queue, 11, PATIENCE));
    assert!(consumer.shutdown(PATIENCE).is_clean());
    drop(consumer);
    let mut delivered: Vec<_> = deliveries.iter().collect();
    delivered.sort_unstable();
    assert_eq!(delivered, (0..=10).collect::<Vec<_>>(), "what was confirmed came again");
}

#[test]
fn a_shutdown_that_runs_out_of_time_tells_the_brokers_all_the_same() {
    let mini = mini(1);
    mini.fail(RequestCode::UPDATE_CONSUMER_OFFSET, Fault::error(ResponseCode::SYSTEM_ERROR, "no"));
    let (told, consumed) = unbounded();
    let consumer = PushConsumer::builder("receivers")
        .name_servers(mini.name_servers())
        .subscribe(TOPIC, FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .each(move |_| Ok(told.send(())?))
        .start()
        .unwrap();
    producer(&mini).start().unwrap().send(&message()).unwrap();
    consumed.recv_timeout(PATIENCE).unwrap();
    let report = consumer.shutdown(Duration::from_millis(300));
    assert!(!report.offsets_not_stored().is_empty(), "{report:?}");
    assert!(mini.wait_for_requests(RequestCode::UNREGISTER_CLIENT, 1, PATIENCE), "the broker still lists the member");
}

#[test]
fn two_threads_that_shut_down_both_wait_for_the_listener() {
    let mini = mini(1);
    let (release, released) = bounded::<()>(0);
    let (begun, begins) = unbounded();
    let consumer = PushConsumer::builder("receivers")
        .name_servers(mini.name_servers())
        .subscribe(TOPIC, FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .each(move |_: &MessageExt| {
            let _ = begun.send(());
            let _ = released.recv();
            Ok(())
        })
        .start()
        .unwrap();
    producer(&mini).start().unwrap().send(&message()).unwrap();
    begins.recv_timeout(PATIENCE).unwrap();
    let (returned, returns) = unbounded();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (consumer, returned) = (&consumer, returned.clone());
            scope.spawn(move || returned.send(consumer.shutdown(PATIENCE)).unwrap());
        }
        assert!(returns.recv_timeout(Duration::from_millis(300)).is_err(), "a shutdown did not wait");
        drop(release);
        for _ in 0..2 {
            let report = returns.recv_timeout(PATIENCE).unwrap();
            assert_eq!((report.is_clean(), report.messages_left()), (true, 0), "{report:?}");
        }
    });
}

/// Records if two listeners have run at the same time.
#[derive(Default)]
struct SideBySide {
    running: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl SideBySide {
    fn run(&self) {
        let mut state = self.running.lock();
        state.0 += 1;
        state.1 |= state.0 > 1;
        self.changed.notify_all();
        self.changed.wait_until(&mut state, Instant::now() + SLOW);
        state.0 -= 1;
    }

    fn wait(&self) -> bool {
        let mut state = self.running.lock();
        while !state.1 {
            if self.changed.wait_until(&mut state, soon()).timed_out() {
                return false;
            }
        }
        true
    }
}

/// Messages are small on the wire and large when decompressed: the batch may contain all of them, memory may not.
#[test]
fn what_a_batch_inflates_to_is_bounded_and_parts_it() {
    const SIZE: usize = 4 * 1024 * 1024;
    let mini = mini(1);
    let producer = producer(&mini).start().unwrap();
    let queue = MessageQueue::new(TOPIC, "broker-a", 0);
    for _ in 0..12 {
        producer.to_queue(&queue).send(&Message::new(TOPIC, vec![0; SIZE])).unwrap();
    }
    let (told, calls) = unbounded();
    let listener = move |messages: &[MessageExt], _: &mut ConsumeContext| {
        let sizes: Vec<_> = messages.iter().map(|message| message.body().len()).collect();
        told.send(sizes).unwrap();
        ConsumeStatus::Success
    };
    let builder = PushConsumer::builder("G").name_servers(mini.name_servers()).consume_threads(1).consume_batch(1024);
    let builder = builder.subscribe(TOPIC, FilterExpression::all()).consume_from(ConsumeFromWhere::First);
    let consumer = builder.concurrently(listener).start().unwrap();
    let mut calls_seen = Vec::new();
    while calls_seen.iter().map(Vec::len).sum::<usize>() < 12 {
        calls_seen.push(calls.recv_timeout(PATIENCE).expect("all are consumed"));
    }
    assert!(calls_seen.iter().all(|sizes| sizes.iter().sum::<usize>() <= 4 * SIZE), "{calls_seen:?}");
    assert!(calls_seen.iter().any(|sizes| sizes.len() > 1), "none of them came as a batch: {calls_seen:?}");
    assert!(consumer.shutdown(PATIENCE).is_clean());
}

/// One small message of each reply is still with its listener, and the large ones beside it are done.
#[test]
fn small_messages_of_a_large_reply_that_wait_for_long_hold_a_pull_back() {
    let mini = mini(1);
    let producer = producer(&mini).compression(None).start().unwrap();
    let queue = MessageQueue::new(TOPIC, "broker-a", 0);
    for number in 0..40 {
        let body = if number % 4 == 0 { vec![1; 10] } else { vec![2; 100_000] };
        producer.to_queue(&queue).send(&Message::new(TOPIC, body)).unwrap();
    }
    let (release, released) = bounded::<()>(0);
    let (told, consumed) = unbounded();
    let (begins, begun) = unbounded();
    let consumer = PushConsumer::builder("G")
        .name_servers(mini.name_servers())
        .subscribe(TOPIC, FilterExpression::all())
        .consume_from(ConsumeFromWhere::First)
        .consume_threads(20)
        .pull_batch(4)
        .max_cached_bytes(500_000)
        .each(move |message: &MessageExt| {
            begins.send(()).map_err(|_| "nobody listens")?;
            if message.body().len() == 10 {
                let _ = released.recv();
            }
            Ok(told.send(()).map_err(|_| "nobody listens")?)
        })
        .start()
        .unwrap();
    let is_full = || consumer.status(&queue).unwrap().is_some_and(|status| status.to_string().contains("hold"));
    eventually("the window is full", is_full);
    // Two replies of 300 kB exceed the limit; counting only the waiting bodies, it would have pulled all ten.
    assert!(begun.len() <= 12, "{} messages were pulled", begun.len());
    drop(release);
    for _ in 0..40 {
        consumed.recv_timeout(PATIENCE).expect("all are consumed in the end");
    }
    assert!(consumer.shutdown(PATIENCE).is_clean());
}
