//! Allocation strategies: the shares of a topic's queues among the members of a consumer group.
//!
//! Every member computes its own share from the same two lists, and nothing checks that they agree: order and
//! arithmetic must be those of the Java client to the last code unit, or a mixed group leaves queues unread. Pure
//! functions, called by the rebalance core.

use std::cmp::Ordering;

use crate::message::MessageQueue;

/// Rule by which a member finds its share; all members of a group must use the same one.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum AllocateStrategy {
    /// Neighbouring queues in equal parts, the first members taking one more (`AllocateMessageQueueAveragely`).
    #[default]
    Averagely,
}

impl AllocateStrategy {
    /// Name of the rule in the Java client.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Averagely => "AVG",
        }
    }

    /// The share of `own_id` in `queues`, in order; `None` when `own_id` is not among the `members`.
    ///
    /// Neither list needs to be sorted or free of repetitions.
    pub(crate) fn allocate(
        &self,
        queues: &[MessageQueue],
        members: &[&str],
        own_id: &str,
    ) -> Option<Vec<MessageQueue>> {
        let mut queues = queues.to_vec();
        queues.sort_by(compare_queues);
        queues.dedup();
        self.share(&queues, &in_order(members), own_id)
    }

    /// The share in lists whose order counts.
    fn share(&self, queues: &[MessageQueue], members: &[&str], own_id: &str) -> Option<Vec<MessageQueue>> {
        let own_index = members.iter().position(|member| *member == own_id)?;
        let share = match self {
            Self::Averagely => average_share(queues.len(), members.len(), own_index),
        };
        queues.get(share).map(<[_]>::to_vec)
    }
}

/// The members as every client sees them: in Java's order, each once.
///
/// After a half-open connection the broker lists one id for each of its two connections, for up to two minutes. Counted
/// twice, a member would leave half of its queues to a twin that does not exist.
fn in_order<'a>(members: &[&'a str]) -> Vec<&'a str> {
    let mut members = members.to_vec();
    members.sort_by(|a, b| compare_texts(a, b));
    members.dedup();
    members
}

/// Share of member `index` of `members` among `queues` queues; never beyond them.
fn average_share(queues: usize, members: usize, index: usize) -> std::ops::Range<usize> {
    let (each, larger_shares) = match members {
        0 => (0, 0),
        _ => (queues / members, queues % members),
    };
    let start = (index * each + index.min(larger_shares)).min(queues);
    let length = each + usize::from(index < larger_shares);
    start..(start + length).min(queues)
}

/// The order in which the Java client sorts queues: topic, broker name, queue id.
fn compare_queues(a: &MessageQueue, b: &MessageQueue) -> Ordering {
    compare_texts(&a.topic, &b.topic)
        .then_with(|| compare_texts(&a.broker_name, &b.broker_name))
        .then_with(|| a.queue_id.cmp(&b.queue_id))
}

/// The order of Java's `String.compareTo`: by UTF-16 code units, where a character beyond the basic plane stands before
/// U+E000 and not, as in UTF-8, after it.
fn compare_texts(a: &str, b: &str) -> Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::checks::vectors::vectors;

    fn queues_of(value: &Value) -> Vec<MessageQueue> {
        let queue = |value: &Value| {
            let text = |name: &str| value[name].as_str().unwrap().to_owned();
            MessageQueue::new(text("topic"), text("brokerName"), value["queueId"].as_i64().unwrap().try_into().unwrap())
        };
        value.as_array().unwrap().iter().map(queue).collect()
    }

    #[test]
    fn average_shares_are_those_of_the_vectors() {
        let mut tested = 0;
        for vector in vectors("ALLOC-AVG-") {
            let queues = queues_of(&vector["input"]["queues"]);
            let members: Vec<&str> =
                vector["input"]["clientIds"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
            for (member, expected) in vector["expected"].as_object().unwrap() {
                let share = AllocateStrategy::Averagely.share(&queues, &members, member).unwrap();
                let share: Vec<Value> =
                    share.iter().map(|queue| serde_json::json!([&*queue.broker_name, queue.queue_id])).collect();
                assert_eq!(&Value::Array(share), expected, "{} {member}", vector["id"]);
                tested += 1;
            }
        }
        assert!(tested > 50, "only {tested} shares were compared");
    }

    #[test]
    fn a_member_that_is_not_listed_gets_no_answer() {
        let vector = vectors("ALLOC-ARGS-002").remove(0);
        let members: Vec<&str> =
            vector["input"]["clientIds"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        let own_id = vector["input"]["currentId"].as_str().unwrap();
        let queues: Vec<_> = (0..6).map(|id| MessageQueue::new("T", "b", id)).collect();
        assert_eq!(AllocateStrategy::Averagely.allocate(&queues, &members, own_id), None);
        assert_eq!(AllocateStrategy::Averagely.allocate(&queues, &[], own_id), None);
    }

    #[test]
    fn the_strategy_has_the_name_of_the_java_client() {
        let vector = vectors("ALLOC-NAME-001").remove(0);
        assert_eq!(vector["expected"]["average"], AllocateStrategy::Averagely.name());
    }

    #[test]
    fn cc_16_members_are_sorted_before_they_are_counted() {
        for vector in vectors("REBALANCE-") {
            let members: Vec<&str> = vector["input"]["consumerIdListFromBroker"]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_str().unwrap())
                .collect();
            assert_eq!(serde_json::json!(in_order(&members)), vector["expected"]["idsGivenToStrategy"]);
        }
    }

    #[test]
    fn a_member_listed_twice_counts_once() {
        let queues: Vec<_> = (0..8).map(|id| MessageQueue::new("T", "b", id)).collect();
        let share = |members: &[&str]| AllocateStrategy::Averagely.allocate(&queues, members, "a").unwrap();
        assert_eq!(share(&["a", "b", "a"]), share(&["a", "b"]));
        assert_eq!(share(&["a", "a"]).len(), 8);
    }

    #[test]
    fn every_queue_has_exactly_one_owner_whatever_the_numbers() {
        for queue_count in 0..20 {
            let queues: Vec<_> = (0..queue_count).rev().map(|id| MessageQueue::new("T", "b", id)).collect();
            for member_count in 1..20 {
                let names: Vec<String> = (0..member_count).map(|n| format!("member-{n}")).collect();
                let members: Vec<&str> = names.iter().map(String::as_str).collect();
                let mut owned: Vec<_> = members
                    .iter()
                    .flat_map(|own| AllocateStrategy::Averagely.allocate(&queues, &members, own).unwrap())
                    .collect();
                owned.sort();
                let mut all = queues.clone();
                all.sort();
                assert_eq!(owned, all, "{queue_count} queues, {member_count} members");
            }
        }
    }

    #[test]
    fn texts_are_ordered_by_utf_16_code_units() {
        let beyond_basic_plane = "\u{1F600}";
        let private_use = "\u{E000}";
        assert!(beyond_basic_plane > private_use, "UTF-8 orders by code point");
        assert_eq!(compare_texts(beyond_basic_plane, private_use), Ordering::Less);
        assert_eq!(compare_texts("C1@x", "c10@x"), Ordering::Less);
        assert_eq!(compare_texts("c10@x", "c2@x"), Ordering::Less);
    }
}
