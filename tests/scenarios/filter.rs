//! Subscriptions by tags: matching messages are delivered, and no others.

use std::collections::BTreeSet;

use rocketmq_sync::{ErrorKind, FilterExpression, Message, MessageQueue, Producer};

use super::deliveries::{Deliveries, await_balance, end, member, producer, send, set};
use super::{Cluster, eventually, unique};

/// FILT-01: one tag; all messages, in each form of the expression; two of three tags; a message without a tag.
pub(crate) fn filt_01_each_expression_selects_exactly_its_messages(cluster: &dyn Cluster) {
    let all = ["A", "B", "C", "untagged"];
    exactly_these_come(
        cluster,
        &[("A", "A"), ("B", "B"), ("C", "C"), ("untagged", "")],
        &[
            ("one tag", "A", &["A"]),
            ("one tag with blanks", "  B ", &["B"]),
            ("two of three", "A||C", &["A", "C"]),
            ("two of three with blanks", "A || C", &["A", "C"]),
            ("all tags", "A||B||C", &["A", "B", "C"]),
            ("star", "*", &all),
            ("nothing said", "", &all),
        ],
    );
}

/// FILT-02: groups with different tags, each on the same messages.
pub(crate) fn filt_02_each_group_gets_exactly_its_own_tags(cluster: &dyn Cluster) {
    exactly_these_come(
        cluster,
        &[("A 1", "A"), ("B 1", "B"), ("A 2", "A"), ("C 1", "C"), ("none", ""), ("B 2", "B")],
        &[
            ("group of A", "A", &["A 1", "A 2"]),
            ("group of B", "B", &["B 1", "B 2"]),
            ("group of A and C", "A||C", &["A 1", "A 2", "C 1"]),
            ("group of all", "*", &["A 1", "B 1", "A 2", "C 1", "none", "B 2"]),
        ],
    );
}

/// FILT-03: two members with the same tag, one of which ends and returns while messages flow.
pub(crate) fn filt_03_members_of_one_group_share_one_tag_across_a_restart(cluster: &dyn Cluster) {
    let (topic, group, deliveries) = (unique("T"), unique("G"), Deliveries::default());
    cluster.create_topic(&topic, 2);
    let queues = cluster.brokers().len() * 2;
    let start = |name| {
        let builder = member(cluster, &group).subscribe(&topic, FilterExpression::tags(["A"]));
        builder.each(deliveries.taker(name)).start().expect("a consumer")
    };
    let producer = producer(cluster);
    let send_round = |round: &str| -> BTreeSet<String> {
        let both = (0..40).flat_map(|number| ["A", "B"].map(|tag| (format!("{tag} {round} {number}"), tag)));
        both.filter_map(|(body, tag)| {
            send(&producer, &Message::new(&*topic, body.clone()).with_tag(tag));
            (tag == "A").then_some(body)
        })
        .collect()
    };
    let (stays, restarts) = (start("stays"), start("restarts"));
    await_balance(&[&stays, &restarts], &topic, queues);
    let mut wanted = send_round("with both");
    deliveries.await_bodies(&wanted);
    end([restarts]);
    wanted.append(&mut send_round("with one"));
    let restarted = start("restarted");
    await_balance(&[&stays, &restarted], &topic, queues);
    wanted.append(&mut send_round("with both again"));
    deliveries.await_bodies(&wanted);
    end([stays, restarted]);
    assert_eq!(deliveries.bodies(), wanted);
}

/// FILT-04: several tags, and one that no message has.
pub(crate) fn filt_04_several_tags_and_one_that_nobody_has(cluster: &dyn Cluster) {
    exactly_these_come(
        cluster,
        &["A", "B", "C"].map(|tag| (tag, tag)),
        &[
            ("two", "A||B", &["A", "B"]),
            ("three", "A||B||C", &["A", "B", "C"]),
            ("twice the same", "A||A", &["A"]),
            ("one present", "A||nobody", &["A"]),
            ("none present", "nobody||has this", &[]),
        ],
    );
}

/// FILT-05: tags are compared exactly; of tags with the same hash only the matching one is delivered.
pub(crate) fn filt_05_tags_are_compared_by_their_text(cluster: &dyn Cluster) {
    let long = "t".repeat(1000);
    exactly_these_come(
        cluster,
        &[
            ("chinese", "标签"),
            ("long", &long),
            ("blank inside", "two words"),
            ("lower case", "tag"),
            ("upper case", "TAG"),
            ("hash 1", "AaAa"),
            ("hash 2", "BBBB"),
        ],
        &[
            ("chinese", "标签", &["chinese"]),
            ("long", &long, &["long"]),
            ("blank inside", "two words", &["blank inside"]),
            ("case", "tag", &["lower case"]),
            ("same hash", "AaAa", &["hash 1"]),
            ("same hash too", "nobody || BBBB", &["hash 2"]),
        ],
    );
    // No expression could select these.
    let producer = producer(cluster);
    for tag in ["*", " A", "A ", "A||B"] {
        let error = producer.send(&Message::new("T", "x").with_tag(tag)).expect_err(tag);
        assert_eq!(error.kind(), ErrorKind::InvalidMessage, "{error}");
    }
}

/// Sends one message for each `(body, tag)` and expects each `(name, expression)` to select exactly its bodies.
///
/// A missing message is detected after the group has passed the end of the queue.
fn exactly_these_come(cluster: &dyn Cluster, tagged: &[(&str, &str)], cases: &[(&'static str, &str, &[&str])]) {
    let (topic, deliveries) = (unique("T"), Deliveries::default());
    cluster.create_topic(&topic, 1);
    let producer = producer(cluster);
    let queue = MessageQueue::new(&*topic, &*cluster.brokers()[0].name, 0);
    for (body, tag) in tagged {
        send_tagged(&producer, &queue, body, tag);
    }
    let consumers: Vec<_> = cases
        .iter()
        .map(|(name, expression, _)| {
            let group = unique("G");
            let builder = member(cluster, &group).subscribe(&topic, FilterExpression::tag_expression(*expression));
            (group, builder.each(deliveries.taker(name)).start().expect("a consumer"))
        })
        .collect();
    let end_of_queue = i64::try_from(tagged.len()).expect("a number of messages");
    for (group, consumer) in consumers {
        eventually("the group is at the end of the queue", || {
            cluster.committed_offset(queue.broker_name(), &group, &topic, 0) == Some(end_of_queue)
        });
        end([consumer]);
    }
    for (name, expression, wanted) in cases {
        assert_eq!(deliveries.bodies_at(name), set(wanted), "{name}: {expression}");
    }
    let wanted: usize = cases.iter().map(|(_, _, wanted)| wanted.len()).sum();
    assert_eq!(deliveries.count(), wanted, "each message comes once");
}

fn send_tagged(producer: &Producer, queue: &MessageQueue, body: &str, tag: &str) {
    let message = Message::new(queue.topic(), body.to_owned());
    let message = if tag.is_empty() { message } else { message.with_tag(tag) };
    producer.to_queue(queue).send(&message).expect("stored");
}
