//! A member through ten minutes without any server, and through a suspend of five: what it asks for meanwhile, what it
//! says, and how soon it is back. In virtual time, one member, no dice but those of its listeners.

use std::time::{Duration, Instant};

use crate::consumer::assign::rebalance::{MemberList, TopicView};
use crate::consumer::pull::event::PullStatus;
use crate::consumer::pull::puller::PULL_TIMEOUT;
use crate::consumer::start::ConsumeFromWhere;
use crate::message::MessageQueue;
use crate::wire::ResponseCode;

use super::broker::Stored;
use super::member::{Call, Effects, Member, Reply, Request};
use super::random::Random;
use super::world::{RETRY_TOPIC, TOPIC};

const QUEUES: usize = 9;
const MINUTE: Duration = Duration::from_secs(60);
/// Time for which a broker holds a pull.
const HOLD: Duration = Duration::from_secs(15);
/// Stored in each queue before the member comes.
const MESSAGES: i64 = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Servers {
    Up,
    /// All goes well but that commits are refused.
    RefusingOffsets,
    /// Each request fails at once.
    Refusing,
    /// No request is answered.
    Silent,
}

enum Due {
    Reply(Box<(Call, Reply)>),
    ListenerEnds(usize),
    Drive,
}

/// Requests of the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    LookUp,
    Pull,
    Commit,
    Other,
}

struct Scene {
    servers: Servers,
    member: Member,
    now: Instant,
    random: Random,
    due: Vec<(Instant, Due)>,
    asked: Vec<(Instant, Kind)>,
}

impl Scene {
    /// A member that has consumed everything and whose offsets are not stored yet.
    fn new() -> Self {
        let (now, mut random) = (Instant::now(), Random::new(1));
        let member = Member::new("client".into(), ConsumeFromWhere::First, now, &mut random);
        let mut scene =
            Self { servers: Servers::RefusingOffsets, member, now, random, due: Vec::new(), asked: Vec::new() };
        scene.run(Duration::from_secs(4));
        assert_eq!(scene.member.committable().filter(|(_, offset)| *offset == MESSAGES).count(), QUEUES);
        assert_eq!(scene.member.unconfirmed(), QUEUES, "no offset is stored");
        scene
    }

    /// All connections break, or their other ends fall silent.
    fn lose(&mut self, servers: Servers) {
        self.servers = servers;
        let now = self.now;
        for (at, due) in &mut self.due {
            if let Due::Reply(outcome) = due {
                outcome.1 = Reply::Lost;
                *at = if servers == Servers::Refusing { now } else { *at + PULL_TIMEOUT };
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step_until(end) {}
        self.now = end;
    }

    /// One event that is due by `end`, if there is one.
    fn step_until(&mut self, end: Instant) -> bool {
        let first = (0..self.due.len()).min_by_key(|at| self.due[*at].0);
        let at = first.map(|first| self.due[first].0);
        let wake = self.member.next_wake();
        let next = at.map_or(wake, |at| at.min(wake)).max(self.now);
        if next > end {
            return false;
        }
        self.now = next;
        let mut effects = Effects::default();
        match first.filter(|_| at.is_some_and(|at| at <= next)) {
            Some(first) => match self.due.swap_remove(first).1 {
                Due::Reply(outcome) => self.member.replied(outcome.0, outcome.1, next, &mut effects),
                Due::Drive => self.member.drive_offsets(next, &mut effects),
                Due::ListenerEnds(worker) => self.member.listener_ended(worker, false, next, &mut effects),
            },
            None => self.member.wake(next, &mut effects),
        }
        self.member.start_workers(next, true, &mut self.random, &mut effects);
        self.take_in(effects);
        self.member.check(next);
        true
    }

    fn take_in(&mut self, effects: Effects) {
        if effects.driver_goes_on {
            self.due.push((self.now, Due::Drive));
        }
        for begun in effects.begun {
            self.due.push((self.now + begun.lasts, Due::ListenerEnds(begun.worker)));
        }
        for (call, request) in effects.calls {
            self.asked.push((self.now, kind(&request)));
            let (after, reply) = match self.servers {
                Servers::RefusingOffsets if matches!(request, Request::Commit { .. }) => {
                    (Duration::from_millis(1), Reply::Refused(ResponseCode::SYSTEM_BUSY))
                }
                Servers::Up | Servers::RefusingOffsets => answer(&request),
                Servers::Refusing => (Duration::ZERO, Reply::Lost),
                Servers::Silent => (request.deadline(), Reply::Lost),
            };
            self.due.push((self.now + after, Due::Reply(Box::new((call, reply)))));
        }
    }

    fn asked_since(&self, since: Instant, kind: Kind) -> usize {
        self.asked.iter().filter(|(at, asked)| *at >= since && *asked == kind).count()
    }

    /// Numbers of requests within each minute from `start` on.
    fn minutes(&self, start: Instant, minutes: u32) -> Vec<usize> {
        let within = |minute| start + MINUTE * minute..start + MINUTE * (minute + 1);
        (0..minutes).map(|minute| self.asked.iter().filter(|(at, _)| within(minute).contains(at)).count()).collect()
    }
}

fn kind(request: &Request) -> Kind {
    match request {
        Request::LookUp => Kind::LookUp,
        Request::Pull { .. } => Kind::Pull,
        Request::Commit { .. } => Kind::Commit,
        _ => Kind::Other,
    }
}

fn answer(request: &Request) -> (Duration, Reply) {
    let reply = match request {
        Request::LookUp => Reply::Views(vec![view(TOPIC, QUEUES - 1), view(RETRY_TOPIC, 1)]),
        Request::StoredOffset(_) | Request::Bound(..) => Reply::Offset(0),
        Request::Pull { offset, .. } if *offset < MESSAGES => {
            let stored = |id| Stored { id, reconsume_times: 0, wanted: true, resolved: false };
            let messages = (*offset..MESSAGES).map(|offset| (offset, stored(usize::try_from(offset).unwrap())));
            let messages = messages.collect();
            Reply::Pulled { status: PullStatus::Found, next: MESSAGES, from_master: true, messages }
        }
        Request::Pull { offset, .. } => {
            let (status, next) = (PullStatus::NoNewMessage, *offset);
            return (HOLD, Reply::Pulled { status, next, from_master: true, messages: Vec::new() });
        }
        Request::Commit { .. } | Request::SendBack { .. } | Request::Publish { .. } => Reply::Done,
    };
    (Duration::from_millis(1), reply)
}

fn view(topic: &str, queues: usize) -> TopicView {
    let queues = (0..i32::try_from(queues).unwrap()).map(|id| MessageQueue::new(topic, "b", id)).collect();
    TopicView { topic: topic.into(), queues: Some(queues), members: MemberList::Listed(vec!["client".into()]) }
}

#[test]
fn ten_minutes_without_servers_cost_no_more_than_ten_times_one_and_everything_is_back_within_seconds() {
    for servers in [Servers::Refusing, Servers::Silent] {
        let mut scene = Scene::new();
        scene.lose(servers);
        let start = scene.now;
        scene.run(MINUTE * 10);
        let minutes = scene.minutes(start, 10);
        // What comes every so many seconds falls into one minute once more than into another.
        assert!(minutes.iter().all(|asked| *asked <= minutes[0] + 2 * QUEUES), "{minutes:?}");
        // A pull and a commit of each queue every 5 s, and the members.
        assert!(minutes[1] <= QUEUES * 24 + 10, "{minutes:?}");
        // At 1, 2, 4, 8 ... failures of a queue, and once for each topic.
        assert!(scene.member.seen.failing <= QUEUES * 8, "{:?}", scene.member.seen);
        assert!(scene.member.seen.undecided <= 2, "{:?}", scene.member.seen);
        assert_eq!(scene.member.seen.revoked, 0);

        scene.servers = Servers::Up;
        let back = scene.now;
        // What is still under way when connections are made anew ends as these do.
        scene.due.iter_mut().for_each(|(at, _)| *at = back);
        // The first heartbeat that is taken.
        scene.member.notified(back);
        scene.run(Duration::from_secs(6));
        assert!(scene.asked_since(back, Kind::LookUp) >= 1);
        assert_eq!(scene.asked_since(back, Kind::Pull), QUEUES, "each queue is pulled, and held");
        assert_eq!(scene.member.unconfirmed(), 0, "every offset is stored");
        scene.run(HOLD);
        assert_eq!(scene.member.seen.recovered, QUEUES);
    }
}

#[test]
fn after_a_suspend_of_five_minutes_everything_is_done_once_and_at_once() {
    let mut scene = Scene::new();
    scene.servers = Servers::Up;
    scene.run(MINUTE);
    let quiet = scene.asked.len();
    // Nothing was read meanwhile: the connections are dead, and every deadline has passed.
    scene.servers = Servers::Up;
    scene.now += MINUTE * 5;
    let mut effects = Effects::default();
    scene.member.wake(scene.now, &mut effects);
    scene.take_in(effects);
    scene.due.retain(|(at, _)| *at >= scene.now);
    let now = scene.now;
    assert_eq!(scene.asked_since(now, Kind::LookUp), 1);
    assert_eq!(scene.asked_since(now, Kind::Pull), QUEUES, "each queue is pulled once");
    assert_eq!(scene.asked.len() - quiet, QUEUES + 1, "nothing else is made up for");
    assert_eq!(scene.member.seen.overdue, QUEUES, "each is told of once");

    scene.run(MINUTE);
    let a_minute_later = scene.asked.len() - quiet;
    let expected = QUEUES * 5 + 4;
    assert!(a_minute_later <= expected, "{a_minute_later} requests in a minute that needs {expected}");
    assert_eq!(scene.member.seen.revoked, 0);
}
