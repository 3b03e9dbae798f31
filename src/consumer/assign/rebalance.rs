//! Rebalance: the owned queues of each topic, decided from its queues and the members of the group.
//!
//! `rmq-rebalance` looks routes and member lists up, hands them in as one round, and carries the difference to the
//! queue table. What was not learnt for sure changes nothing: a queue pulled by two members for some seconds repeats
//! messages, a queue pulled by none keeps them waiting. Pure: no I/O, clock, lock or thread.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::message::MessageQueue;

use crate::consumer::assign::allocate::AllocateStrategy;

/// Between two rounds without an occasion, unless configured otherwise.
const ROUND: Duration = Duration::from_secs(20);

/// After a round that could not decide something; doubled by each further one in a row, up to [`ROUND`].
const ROUND_AFTER_TROUBLE: Duration = Duration::from_secs(1);

/// For so long a topic that was never shared out is waited for without a word.
const START_GRACE: Duration = Duration::from_secs(5);

/// Between the beginnings of two rounds, however many members come and go.
const LEAST_DISTANCE: Duration = Duration::from_millis(200);

/// The same after a round that could not decide something: what it lacked has come, and queues wait for it. So a
/// consumer that starts has its share as soon as route and heartbeat are answered.
const LEAST_DISTANCE_AFTER_TROUBLE: Duration = Duration::from_millis(10);

/// Route and members of one subscribed topic, as a round found them.
#[derive(Clone, Debug)]
pub(crate) struct TopicView {
    /// The topic.
    pub(crate) topic: Arc<str>,
    /// Its readable queues by its route; `None` when the route is not known.
    pub(crate) queues: Option<Vec<MessageQueue>>,
    /// The members of the group, as one broker of the topic lists them.
    pub(crate) members: MemberList,
}

/// A broker's answer to GET_CONSUMER_LIST_BY_GROUP.
#[derive(Clone, Debug)]
pub(crate) enum MemberList {
    /// The client ids.
    Listed(Vec<String>),
    /// No usable answer, with the reason for the log.
    Failed(String),
}

/// Difference between the queues that we own and those that we should.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ShareChanges {
    /// Queues that are ours from now on.
    pub(crate) assigned: Vec<MessageQueue>,
    /// Queues that are ours no longer.
    pub(crate) revoked: Vec<MessageQueue>,
    /// Notices for the log.
    pub(crate) notices: Vec<Notice>,
}

/// Notice for the log; each comes when it begins, not at every round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The share of a topic could not be decided; its queues stay as they are.
    Undecided { topic: Arc<str>, trouble: Trouble },
    /// It can be decided again.
    Decided { topic: Arc<str> },
    /// The broker lists our client id more than once: after a lost connection for up to two minutes, else because
    /// another client uses the same id.
    ListedTwice { topic: Arc<str> },
}

/// Why a topic's queues cannot be shared out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No name server has returned the topic's route yet.
    RouteUnknown,
    /// The route has no queue that may be read.
    NoQueues,
    /// The member list could not be learnt.
    MembersUnknown(String),
    /// The member list is empty: the broker has seen no heartbeat of the group.
    NoMembers,
    /// The member list lacks us: the broker has not seen our heartbeat.
    NotAMember,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RouteUnknown => f.write_str("its route is not known"),
            Self::NoQueues => f.write_str("its route has no readable queue"),
            Self::MembersUnknown(words) => write!(f, "the members of the group are not known: {words}"),
            Self::NoMembers => f.write_str("the broker lists no member of the group"),
            Self::NotAMember => f.write_str("the broker does not list this consumer as a member of the group"),
        }
    }
}

/// Why the share of a topic is undecided.
#[derive(Debug)]
struct Troubled {
    trouble: Trouble,
    /// When this or other trouble began.
    since: Instant,
    is_told: bool,
}

/// Owned queues of one consumer, and the time of the next round.
#[derive(Debug)]
pub(crate) struct Rebalance {
    own_id: Arc<str>,
    strategy: AllocateStrategy,
    owned: BTreeMap<Arc<str>, BTreeSet<MessageQueue>>,
    troubles: BTreeMap<Arc<str>, Troubled>,
    listed_twice: BTreeSet<Arc<str>>,
    /// Between two rounds without an occasion.
    interval: Duration,
    next_round: Instant,
    last_round: Option<Instant>,
    troubled_rounds: u32,
}

impl Rebalance {
    /// Owns nothing; the first round is due at once.
    pub(crate) fn new(own_id: Arc<str>, strategy: AllocateStrategy, now: Instant) -> Self {
        Self {
            own_id,
            strategy,
            owned: BTreeMap::new(),
            troubles: BTreeMap::new(),
            listed_twice: BTreeSet::new(),
            interval: ROUND,
            next_round: now,
            last_round: None,
            troubled_rounds: 0,
        }
    }

    /// The same with another time between two rounds without an occasion.
    pub(crate) fn with_interval(self, interval: Duration) -> Self {
        Self { interval, ..self }
    }

    /// Number of owned queues of a topic, or the reason why that could not be decided.
    pub(crate) fn share_of(&self, topic: &str) -> Result<usize, String> {
        match self.troubles.get(topic) {
            Some(Troubled { trouble, .. }) => Err(trouble.to_string()),
            None => Ok(self.owned.get(topic).map_or(0, BTreeSet::len)),
        }
    }

    /// When the next round is due.
    pub(crate) fn next_round(&self) -> Instant {
        self.next_round
    }

    /// Plans a round soon, since something has changed: a broker said that members came or went, a topic was subscribed, a route is new.
    pub(crate) fn notified(&mut self, now: Instant) {
        let distance = if self.troubled_rounds > 0 { LEAST_DISTANCE_AFTER_TROUBLE } else { LEAST_DISTANCE };
        let earliest = self.last_round.map_or(now, |last| now.max(last + distance));
        self.next_round = self.next_round.min(earliest);
    }

    /// The look-ups of a round begin. What is notified from here on leads to another round.
    pub(crate) fn begin_round(&mut self, now: Instant) {
        self.last_round = Some(now);
        self.next_round = now + self.interval;
    }

    /// The look-ups of a round are done. `topics` are all that are subscribed: what is owned of others is given up.
    pub(crate) fn end_round(&mut self, topics: Vec<TopicView>, now: Instant) -> ShareChanges {
        let mut changes = ShareChanges::default();
        let subscribed: BTreeSet<Arc<str>> = topics.iter().map(|view| Arc::clone(&view.topic)).collect();
        self.give_up_all_but(&subscribed, &mut changes);
        let mut undecided = false;
        for view in topics {
            match self.decide(&view) {
                Ok(share) => self.own(&view.topic, share, &mut changes),
                Err(trouble) => {
                    undecided = true;
                    self.keep(&view.topic, trouble, now, &mut changes);
                }
            }
            self.look_for_a_twin(&view, &mut changes);
        }
        self.plan_next_round(undecided, now);
        changes
    }

    /// True if a queue is ours by the last round that could decide.
    #[cfg(test)]
    pub(crate) fn owns(&self, queue: &MessageQueue) -> bool {
        self.owned.get(&queue.topic).is_some_and(|queues| queues.contains(queue))
    }

    fn decide(&self, view: &TopicView) -> Result<Vec<MessageQueue>, Trouble> {
        let queues = view.queues.as_ref().ok_or(Trouble::RouteUnknown)?;
        if queues.is_empty() {
            return Err(Trouble::NoQueues);
        }
        let members = match &view.members {
            MemberList::Listed(members) if members.is_empty() => return Err(Trouble::NoMembers),
            MemberList::Listed(members) => members,
            MemberList::Failed(words) => return Err(Trouble::MembersUnknown(words.clone())),
        };
        let members: Vec<&str> = members.iter().map(String::as_str).collect();
        self.strategy.allocate(queues, &members, &self.own_id).ok_or(Trouble::NotAMember)
    }

    fn own(&mut self, topic: &Arc<str>, share: Vec<MessageQueue>, changes: &mut ShareChanges) {
        let share: BTreeSet<MessageQueue> = share.into_iter().collect();
        let before = self.owned.remove(topic).unwrap_or_default();
        changes.assigned.extend(share.difference(&before).cloned());
        changes.revoked.extend(before.difference(&share).cloned());
        self.owned.insert(Arc::clone(topic), share);
        if self.troubles.remove(topic).is_some_and(|troubled| troubled.is_told) {
            changes.notices.push(Notice::Decided { topic: Arc::clone(topic) });
        }
    }

    fn keep(&mut self, topic: &Arc<str>, trouble: Trouble, now: Instant, changes: &mut ShareChanges) {
        let before = self.troubles.remove(topic);
        let since = before.as_ref().map_or(now, |before| before.since);
        // The words of a failed look-up may differ each time.
        let is_same = |before: &Troubled| std::mem::discriminant(&before.trouble) == std::mem::discriminant(&trouble);
        let was_told = before.is_some_and(|before| before.is_told && is_same(&before));
        // That a member which begins does not know everything yet is no news.
        let is_told = was_told || self.owned.contains_key(topic) || now >= since + START_GRACE;
        if is_told && !was_told {
            changes.notices.push(Notice::Undecided { topic: Arc::clone(topic), trouble: trouble.clone() });
        }
        self.troubles.insert(Arc::clone(topic), Troubled { trouble, since, is_told });
    }

    fn look_for_a_twin(&mut self, view: &TopicView, changes: &mut ShareChanges) {
        let MemberList::Listed(members) = &view.members else { return };
        let listed = members.iter().filter(|member| **member == *self.own_id).count();
        if listed < 2 {
            self.listed_twice.remove(&view.topic);
        } else if self.listed_twice.insert(Arc::clone(&view.topic)) {
            changes.notices.push(Notice::ListedTwice { topic: Arc::clone(&view.topic) });
        }
    }

    fn give_up_all_but(&mut self, subscribed: &BTreeSet<Arc<str>>, changes: &mut ShareChanges) {
        self.owned.retain(|topic, queues| {
            let keep = subscribed.contains(topic);
            if !keep {
                changes.revoked.extend(queues.iter().cloned());
            }
            keep
        });
        self.troubles.retain(|topic, _| subscribed.contains(topic));
        self.listed_twice.retain(|topic| subscribed.contains(topic));
    }

    fn plan_next_round(&mut self, undecided: bool, now: Instant) {
        if undecided {
            let wait = ROUND_AFTER_TROUBLE.saturating_mul(1 << self.troubled_rounds.min(5)).min(ROUND);
            self.next_round = self.next_round.min(now + wait);
            self.troubled_rounds = self.troubled_rounds.saturating_add(1);
        } else {
            self.troubled_rounds = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::vectors::vectors;

    fn rebalance(now: Instant) -> Rebalance {
        Rebalance::new("me".into(), AllocateStrategy::Averagely, now)
    }

    fn queues(topic: &str, ids: std::ops::Range<i32>) -> Vec<MessageQueue> {
        ids.map(|id| MessageQueue::new(topic, "b", id)).collect()
    }

    fn view(topic: &str, queue_count: i32, members: &[&str]) -> TopicView {
        TopicView {
            topic: topic.into(),
            queues: Some(queues(topic, 0..queue_count)),
            members: MemberList::Listed(members.iter().map(|member| (*member).to_owned()).collect()),
        }
    }

    fn failed(topic: &str) -> TopicView {
        TopicView { members: MemberList::Failed("timed out".into()), ..view(topic, 4, &[]) }
    }

    #[test]
    fn the_difference_to_what_is_owned_is_told() {
        let now = Instant::now();
        let mut rebalance = rebalance(now);
        let changes = rebalance.end_round(vec![view("T", 4, &["me"])], now);
        assert_eq!((changes.assigned, changes.revoked), (queues("T", 0..4), vec![]));
        let changes = rebalance.end_round(vec![view("T", 4, &["me", "you"])], now);
        assert_eq!((changes.assigned, changes.revoked), (vec![], queues("T", 2..4)));
        let changes = rebalance.end_round(vec![view("T", 8, &["a", "me"])], now);
        assert_eq!((changes.assigned, changes.revoked), (queues("T", 4..8), queues("T", 0..2)));
        assert!(rebalance.owns(&queues("T", 4..5)[0]) && !rebalance.owns(&queues("T", 0..1)[0]));
    }

    #[test]
    fn what_is_not_known_for_sure_changes_nothing() {
        let now = Instant::now();
        let unclear = [
            (failed("T"), Trouble::MembersUnknown("timed out".into())),
            (view("T", 4, &[]), Trouble::NoMembers),
            (view("T", 4, &["you"]), Trouble::NotAMember),
            (view("T", 0, &["me"]), Trouble::NoQueues),
            (TopicView { queues: None, ..view("T", 0, &["me"]) }, Trouble::RouteUnknown),
        ];
        for (view_of_t, trouble) in unclear {
            let mut rebalance = rebalance(now);
            rebalance.end_round(vec![view("T", 4, &["me"]), view("U", 2, &["me"])], now);
            let changes = rebalance.end_round(vec![view_of_t, view("U", 3, &["me"])], now);
            assert_eq!(changes.notices, [Notice::Undecided { topic: "T".into(), trouble }]);
            assert_eq!((changes.assigned, changes.revoked), (queues("U", 2..3), vec![]), "other topics go on");
            assert_eq!((rebalance.owned["T"].len(), rebalance.owned["U"].len()), (4, 3));
        }
    }

    #[test]
    fn trouble_is_told_when_it_begins_and_when_it_ends() {
        let now = Instant::now();
        let mut rebalance = rebalance(now);
        rebalance.end_round(vec![view("T", 4, &["me"])], now);
        assert_eq!(rebalance.end_round(vec![failed("T")], now).notices.len(), 1);
        assert_eq!(rebalance.end_round(vec![failed("T")], now).notices.len(), 0);
        assert_eq!(rebalance.end_round(vec![view("T", 4, &[])], now).notices.len(), 1);
        let notices = rebalance.end_round(vec![view("T", 4, &["me"])], now).notices;
        assert_eq!(notices, [Notice::Decided { topic: "T".into() }]);
    }

    /// A usual start has no route at first, and then no membership; that is no news unless it stays so.
    #[test]
    fn what_a_member_lacks_when_it_begins_is_told_only_if_it_stays_so() {
        let now = Instant::now();
        let mut rebalance = rebalance(now);
        let unknown = || TopicView { queues: None, ..view("T", 0, &["me"]) };
        assert_eq!(rebalance.end_round(vec![unknown()], now).notices, []);
        assert_eq!(rebalance.end_round(vec![failed("T")], now + START_GRACE / 2).notices, []);
        assert_eq!(rebalance.end_round(vec![unknown()], now + START_GRACE).notices.len(), 1);
        assert_eq!(rebalance.end_round(vec![unknown()], now + START_GRACE).notices, []);
        assert_eq!(
            rebalance.end_round(vec![view("T", 4, &["me"])], now + START_GRACE).notices.len(),
            1,
            "it is decided"
        );

        let mut rebalance = self::rebalance(now);
        rebalance.end_round(vec![unknown()], now);
        assert_eq!(rebalance.end_round(vec![view("T", 4, &["me"])], now).notices, [], "and a usual start says nothing");
    }

    #[test]
    fn being_listed_twice_is_told_and_costs_no_queue() {
        let now = Instant::now();
        let mut rebalance = rebalance(now);
        let changes = rebalance.end_round(vec![view("T", 4, &["me", "me"])], now);
        assert_eq!(changes.assigned.len(), 4);
        assert_eq!(changes.notices, [Notice::ListedTwice { topic: "T".into() }]);
        assert_eq!(rebalance.end_round(vec![view("T", 4, &["me", "me"])], now), ShareChanges::default());
    }

    /// The Java client's strategies throw, and so does its round; here the reason is reported and nothing changes.
    #[test]
    fn without_queues_members_or_us_among_them_nothing_is_shared_out() {
        let vector = vectors("ALLOC-ARGS-001").remove(0);
        assert_eq!(vector["expected"], "illegal-argument error");
        let now = Instant::now();
        for case in vector["input"]["cases"].as_array().unwrap() {
            let mut rebalance = rebalance(now);
            rebalance.end_round(vec![view("T", 4, &["me"])], now);
            let (view, trouble) = match case.as_str().unwrap() {
                "empty current id" => (view("T", 4, &["you"]), Trouble::NotAMember),
                "empty/null queues" => (view("T", 0, &["me"]), Trouble::NoQueues),
                "empty/null ids" => (view("T", 4, &[]), Trouble::NoMembers),
                other => panic!("{other}"),
            };
            let changes = rebalance.end_round(vec![view], now);
            let notices = vec![Notice::Undecided { topic: "T".into(), trouble }];
            assert_eq!(changes, ShareChanges { notices, ..ShareChanges::default() }, "{case}");
        }
    }

    #[test]
    fn queues_of_a_topic_that_is_no_longer_subscribed_are_given_up() {
        let now = Instant::now();
        let mut rebalance = rebalance(now);
        rebalance.end_round(vec![view("T", 2, &["me"]), view("U", 2, &["me"])], now);
        assert_eq!(rebalance.end_round(vec![view("U", 2, &["me"])], now).revoked, queues("T", 0..2));
    }

    #[test]
    fn rounds_come_every_20_seconds_and_at_once_when_members_change() {
        let start = Instant::now();
        let mut rebalance = rebalance(start);
        assert_eq!(rebalance.next_round(), start);
        rebalance.begin_round(start);
        rebalance.end_round(vec![view("T", 2, &["me"])], start);
        assert_eq!(rebalance.next_round(), start + ROUND);
        let later = start + Duration::from_secs(3);
        rebalance.notified(later);
        assert_eq!(rebalance.next_round(), later);
    }

    #[test]
    fn a_notification_during_a_round_is_not_lost_with_its_end() {
        let start = Instant::now();
        let mut rebalance = rebalance(start);
        rebalance.begin_round(start);
        rebalance.notified(start + Duration::from_millis(1));
        rebalance.end_round(vec![view("T", 2, &["me"])], start + Duration::from_millis(2));
        assert_eq!(rebalance.next_round(), start + LEAST_DISTANCE);
    }

    #[test]
    fn what_a_round_lacked_is_not_waited_for_once_it_has_come() {
        let start = Instant::now();
        let mut rebalance = rebalance(start);
        rebalance.begin_round(start);
        rebalance.end_round(vec![failed("T")], start);
        rebalance.notified(start + Duration::from_millis(1));
        assert_eq!(rebalance.next_round(), start + LEAST_DISTANCE_AFTER_TROUBLE);
    }

    #[test]
    fn rounds_that_fail_come_sooner_but_ever_less_so() {
        let mut now = Instant::now();
        let mut rebalance = rebalance(now);
        let mut waits = Vec::new();
        for _ in 0..7 {
            rebalance.begin_round(now);
            rebalance.end_round(vec![failed("T")], now);
            waits.push((rebalance.next_round() - now).as_secs());
            now = rebalance.next_round();
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 20, 20]);
        rebalance.begin_round(now);
        rebalance.end_round(vec![view("T", 2, &["me"])], now);
        rebalance.begin_round(now);
        rebalance.end_round(vec![failed("T")], now);
        assert_eq!(rebalance.next_round(), now + ROUND_AFTER_TROUBLE);
    }
}
