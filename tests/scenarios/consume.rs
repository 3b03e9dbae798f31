//! Groups that share queues while members join and leave, several topics, redelivery.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rocketmq_sync::{ConsumeContext, ConsumeStatus, FilterExpression, Message, MessageExt, PushConsumer};

use super::deliveries::{
    Deliveries, PATIENCE, await_balance, end, member, producer, send, send_all, set, taking_member,
};
use super::{Cluster, eventually, unique};

const QUEUES_PER_BROKER: u32 = 6;

/// CC-01, first half: two members receive equal parts of 400 messages, and each message is delivered once.
pub(crate) fn cc_01_two_members_share_400_messages_evenly(cluster: &dyn Cluster) {
    members_share_evenly(cluster, &["one", "two"], 400);
}

/// CC-01, second half.
pub(crate) fn cc_01_four_members_share_600_messages_evenly(cluster: &dyn Cluster) {
    members_share_evenly(cluster, &["one", "two", "three", "four"], 600);
}

/// CC-02.
pub(crate) fn cc_02_the_queues_of_a_member_that_leaves_go_to_the_others(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    let queues = create(cluster, &topic);
    let mut members: Vec<_> =
        ["one", "two", "three"].map(|name| taking_member(cluster, &group, &topic, &deliveries, name)).into();
    await_balance(&members.iter().collect::<Vec<_>>(), &topic, queues);
    let producer = producer(cluster);
    let first = send_all(&producer, &topic, (0..400).map(|number| format!("first {number}")));
    deliveries.await_bodies(&first);

    end(members.pop());
    await_balance(&members.iter().collect::<Vec<_>>(), &topic, queues);
    deliveries.clear();
    let second = send_all(&producer, &topic, (0..400).map(|number| format!("second {number}")));
    deliveries.await_bodies(&second);
    for name in ["one", "two"] {
        let share = deliveries.bodies_at(name).intersection(&second).count();
        assert!((180..=220).contains(&share), "{name} got {share} of 400");
    }
    end(members);
}

/// CC-03: members join while messages flow.
pub(crate) fn cc_03_nothing_is_lost_while_members_join(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    let queues = create(cluster, &topic);
    let first = taking_member(cluster, &group, &topic, &deliveries, "first");
    let (sent, members) = while_messages_flow(cluster, &topic, || {
        let second = taking_member(cluster, &group, &topic, &deliveries, "second");
        await_balance(&[&first, &second], &topic, queues);
        let third = taking_member(cluster, &group, &topic, &deliveries, "third");
        await_balance(&[&first, &second, &third], &topic, queues);
        [second, third]
    });
    deliveries.await_bodies(&sent);
    end(members.into_iter().chain([first]));
    assert_eq!(deliveries.bodies(), sent);
}

/// CC-04: two of three members end without a hand-over while messages flow.
pub(crate) fn cc_04_nothing_is_lost_while_members_crash(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    let queues = create(cluster, &topic);
    let [first, second, third] =
        ["first", "second", "third"].map(|name| taking_member(cluster, &group, &topic, &deliveries, name));
    await_balance(&[&first, &second, &third], &topic, queues);
    let (sent, ()) = while_messages_flow(cluster, &topic, || {
        crash(second);
        await_balance(&[&first, &third], &topic, queues);
        crash(first);
        await_balance(&[&third], &topic, queues);
    });
    deliveries.await_bodies(&sent);
    end([third]);
    assert_eq!(deliveries.bodies(), sent);
}

/// CC-05: a member joins and another one ends without a hand-over, while messages flow.
pub(crate) fn cc_05_nothing_is_lost_while_members_join_and_crash(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    let queues = create(cluster, &topic);
    let first = taking_member(cluster, &group, &topic, &deliveries, "first");
    let (sent, members) = while_messages_flow(cluster, &topic, || {
        let second = taking_member(cluster, &group, &topic, &deliveries, "second");
        await_balance(&[&first, &second], &topic, queues);
        crash(first);
        await_balance(&[&second], &topic, queues);
        let third = taking_member(cluster, &group, &topic, &deliveries, "third");
        await_balance(&[&second, &third], &topic, queues);
        [second, third]
    });
    deliveries.await_bodies(&sent);
    end(members);
    assert_eq!(deliveries.bodies(), sent);
}

/// CC-06: four members, then two, then four again; 240 messages each time, in equal parts.
pub(crate) fn cc_06_shares_are_even_after_every_change(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    let queues = create(cluster, &topic);
    let start = |name| taking_member(cluster, &group, &topic, &deliveries, name);
    let producer = producer(cluster);
    let share_out = |members: &[PushConsumer], names: &[&str], round: &str| {
        await_balance(&members.iter().collect::<Vec<_>>(), &topic, queues);
        let sent = send_all(&producer, &topic, (0..240).map(|number| format!("{round} {number}")));
        deliveries.await_bodies(&sent);
        for name in names {
            let share = deliveries.bodies_at(name).intersection(&sent).count();
            assert!(
                (share * names.len()).abs_diff(240) <= 24,
                "{name} got {share} of 240 among {} {round}",
                names.len()
            );
        }
    };
    let mut members: Vec<_> = ["one", "two", "three", "four"].map(start).into();
    share_out(&members, &["one", "two", "three", "four"], "at first");
    end(members.drain(2..));
    share_out(&members, &["one", "two"], "with two");
    members.extend(["five", "six"].map(start));
    share_out(&members, &["one", "two", "five", "six"], "with four again");
    end(members);
}

/// CC-07, the clustering half: three members together receive all messages.
pub(crate) fn cc_07_three_members_together_get_everything(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    let queues = create(cluster, &topic);
    let members = ["one", "two", "three"].map(|name| taking_member(cluster, &group, &topic, &deliveries, name));
    await_balance(&members.iter().collect::<Vec<_>>(), &topic, queues);
    let sent = send_all(&producer(cluster), &topic, (0..100).map(|number| format!("body {number}")));
    deliveries.await_bodies(&sent);
    eventually("everything is committed", || committed(cluster, &group, &topic) == 100);
    end(members);
    assert_eq!(deliveries.bodies(), sent);
    assert_eq!(deliveries.repeated(), [""; 0], "a group gets each message once");
    assert!(["one", "two", "three"].iter().all(|name| !deliveries.bodies_at(name).is_empty()), "{deliveries:?}");
}

/// CC-08: all of two topics, by tags of both, and mixed.
pub(crate) fn cc_08_one_consumer_takes_what_it_wants_of_two_topics(cluster: &dyn Cluster) {
    let topics = [unique("T1"), unique("T2")];
    for topic in &topics {
        cluster.create_topic(topic, 2);
    }
    let deliveries = Deliveries::default();
    let filters = [
        ("all", FilterExpression::all(), FilterExpression::all()),
        ("tags", FilterExpression::tags(["A"]), FilterExpression::tags(["B"])),
        ("mixed", FilterExpression::all(), FilterExpression::tags(["A"])),
    ];
    let consumers = filters.map(|(name, first, second)| {
        let builder = member(cluster, &unique(name)).subscribe(&topics[0], first).subscribe(&topics[1], second);
        builder.each(deliveries.taker(name)).start().expect("a consumer")
    });
    let sent = send_tagged(cluster, &topics);
    deliveries.await_bodies(&sent);
    for (name, wanted) in
        [("all", &["1 A", "1 B", "2 A", "2 B"][..]), ("tags", &["1 A", "2 B"]), ("mixed", &["1 A", "1 B", "2 A"])]
    {
        eventually(name, || set(wanted).is_subset(&deliveries.bodies_at(name)));
    }
    end(consumers);
    assert_eq!(deliveries.bodies_at("all"), sent);
    assert_eq!(deliveries.bodies_at("tags"), set(&["1 A", "2 B"]));
    assert_eq!(deliveries.bodies_at("mixed"), set(&["1 A", "1 B", "2 A"]));
}

/// CC-09: two members of one group, two topics; everything, and one tag of each.
pub(crate) fn cc_09_two_members_share_two_topics(cluster: &dyn Cluster) {
    let topics = [unique("T1"), unique("T2")];
    for topic in &topics {
        cluster.create_topic(topic, 2);
    }
    let deliveries = Deliveries::default();
    let mut consumers = Vec::new();
    for (name, filter) in [("all", FilterExpression::all()), ("tagged", FilterExpression::tags(["A"]))] {
        let group = unique(name);
        let mut members = Vec::new();
        for _ in 0..2 {
            let builder = member(cluster, &group).subscribe(&topics[0], filter.clone());
            let builder = builder.subscribe(&topics[1], filter.clone());
            members.push(builder.each(deliveries.taker(name)).start().expect("a consumer"));
        }
        for topic in &topics {
            await_balance(&members.iter().collect::<Vec<_>>(), topic, cluster.brokers().len() * 2);
        }
        consumers.append(&mut members);
    }
    let sent = send_tagged(cluster, &topics);
    let tagged = set(&["1 A", "2 A"]);
    eventually("all of both topics", || deliveries.bodies_at("all") == sent);
    eventually("one tag of both topics", || tagged.is_subset(&deliveries.bodies_at("tagged")));
    end(consumers);
    assert_eq!(deliveries.bodies_at("tagged"), tagged);
}

/// CC-17.
pub(crate) fn cc_17_a_message_for_later_comes_again_with_a_higher_count(cluster: &dyn Cluster) {
    let (topic, deliveries) = (unique("T"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let seen = deliveries.clone();
    let consumer = member(cluster, &unique("G"))
        .subscribe(&topic, FilterExpression::all())
        .concurrently(move |messages: &[MessageExt], _: &mut ConsumeContext| {
            messages.iter().for_each(|message| seen.add("consumer", message));
            let is_first = messages.iter().any(|message| message.reconsume_times() == 0);
            if is_first { ConsumeStatus::RetryLater } else { ConsumeStatus::Success }
        })
        .start()
        .expect("a consumer");
    send(&producer(cluster), &Message::new(&*topic, "again"));
    let times: Vec<_> = deliveries.await_times("again", 2).iter().map(|message| message.reconsume_times()).collect();
    assert_eq!(times, [0, 1]);
    end([consumer]);
}

/// Ends a member without time for listeners and offsets: like a crash, except that the member unregisters.
fn crash(member: PushConsumer) {
    member.shutdown(Duration::ZERO);
    drop(member);
}

fn members_share_evenly(cluster: &dyn Cluster, names: &[&'static str], count: usize) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    let queues = create(cluster, &topic);
    let members: Vec<PushConsumer> =
        names.iter().map(|name| taking_member(cluster, &group, &topic, &deliveries, name)).collect();
    await_balance(&members.iter().collect::<Vec<_>>(), &topic, queues);
    let sent = send_all(&producer(cluster), &topic, (0..count).map(|number| format!("body {number}")));
    deliveries.await_bodies(&sent);
    // When members leave one after the other, queues move among the remaining ones; messages not committed by then may
    // be redelivered.
    eventually("everything is committed", || committed(cluster, &group, &topic) == count);
    end(members);
    assert_eq!(deliveries.repeated(), [""; 0], "each message comes once");
    let fair = count / names.len();
    for name in names {
        let share = deliveries.bodies_at(name).len();
        assert!(share.abs_diff(fair) * 10 <= fair, "{name} got {share}, a fair share is {fair}");
    }
}

/// Number of messages of a new topic that the group has consumed, by the brokers' offsets.
fn committed(cluster: &dyn Cluster, group: &str, topic: &str) -> usize {
    let queues = cluster.brokers().iter().flat_map(|broker| (0..QUEUES_PER_BROKER).map(move |queue| (broker, queue)));
    let offsets = queues.filter_map(|(broker, queue)| {
        let queue = i32::try_from(queue).expect("a queue number");
        cluster.committed_offset(&broker.name, group, topic, queue)
    });
    usize::try_from(offsets.sum::<i64>()).expect("offsets of a queue")
}

/// Creates a topic whose queues can be divided evenly by two, three and four; returns their number.
fn create(cluster: &dyn Cluster, topic: &str) -> usize {
    cluster.create_topic(topic, QUEUES_PER_BROKER);
    cluster.brokers().len() * QUEUES_PER_BROKER as usize
}

/// Sends a message every few milliseconds while `change` runs, and some more after it; returns the bodies.
fn while_messages_flow<T>(
    cluster: &dyn Cluster,
    topic: &str,
    change: impl FnOnce() -> T,
) -> (std::collections::BTreeSet<String>, T) {
    let producer = producer(cluster);
    let changed = AtomicBool::new(false);
    thread::scope(|scope| {
        let flow = scope.spawn(|| {
            let mut last = usize::MAX;
            let paced = (0..).take_while(|number| {
                thread::park_timeout(Duration::from_millis(10));
                if last == usize::MAX && changed.load(Ordering::Relaxed) {
                    last = (*number + 20).max(150);
                }
                *number < last
            });
            send_all(&producer, topic, paced.map(|number| format!("body {number}")))
        });
        let outcome = change();
        changed.store(true, Ordering::Relaxed);
        (flow.join().expect("the flow"), outcome)
    })
}

/// Sends one message of each tag to each topic; its body contains both.
fn send_tagged(cluster: &dyn Cluster, topics: &[String; 2]) -> std::collections::BTreeSet<String> {
    let producer = producer(cluster);
    let mut sent = std::collections::BTreeSet::new();
    for (number, topic) in (1..).zip(topics) {
        for tag in ["A", "B"] {
            let body = format!("{number} {tag}");
            send(&producer, &Message::new(topic.as_str(), body.clone()).with_tag(tag));
            sent.insert(body);
        }
    }
    assert!(producer.shutdown(PATIENCE).is_clean());
    sent
}
