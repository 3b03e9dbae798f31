//! Heartbeats, which register the groups of this client with the brokers. Sent to every broker in parallel, at once
//! after a new broker or connection, and every heartbeat interval.
//!
//! Nothing here blocks. A broker registers a member by its *connection*: each new connection needs a heartbeat.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::Sender;
use parking_lot::Mutex;

use super::Core;
use super::member::{MemberId, MemberKey};
use super::route::TopicRoute;
use crate::error::{Certainty, Error, ErrorKind};
use crate::logging::{debug, info, warn};
use crate::name_map::NameMap;
use crate::remoting::Request;
use crate::wire::RequestCode;
use crate::wire::body::{self, HeartbeatData};
use crate::wire::version::release_name;

/// Delay of the next heartbeat to a broker that did not accept one.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
/// A heartbeat sent within this long before a connection was made, with none lost in between, is the one that made it.
const SAME_CONNECTION: Duration = Duration::from_secs(1);

/// Heartbeats and farewells by broker.
#[derive(Debug, Default)]
pub(crate) struct Heartbeats {
    brokers: Mutex<NameMap<BrokerRecord>>,
}

#[derive(Debug)]
struct BrokerRecord {
    sent: Instant,
    /// A connection was lost since the heartbeat under way was sent: it may have used that connection, and counts for
    /// nothing.
    lost: bool,
    /// True once the broker has answered on its present connection.
    heard: bool,
    /// The last heartbeat failed, which has been logged.
    failing: bool,
    /// Version in the broker's last answer.
    version: Option<i32>,
    /// Time of the planned repetition: one only, however many heartbeats fail until then.
    again: Option<Instant>,
    /// Heartbeats without an outcome.
    underway: usize,
    /// Members that a heartbeat on the present connection has named, answered or not: the broker may list them.
    named: BTreeSet<MemberId>,
    /// Farewells that wait for the heartbeats under way.
    farewells: Vec<Farewell>,
}

/// The end of a member, for one broker: an UNREGISTER_CLIENT to send.
#[derive(Debug)]
pub(crate) struct Farewell {
    pub(super) id: MemberId,
    pub(super) key: MemberKey,
    /// Deadline of the request.
    pub(super) answer_by: Instant,
    /// Receives the broker's address once the broker no longer lists the member. `None` without a waiting caller.
    pub(super) confirm: Option<Sender<Arc<str>>>,
}

/// One heartbeat's body, with the members that it names.
#[derive(Clone)]
struct Beat {
    body: Bytes,
    named: Arc<[(MemberId, MemberKey)]>,
    with_slaves: bool,
}

/// Consequence of a heartbeat that was not accepted.
#[derive(Debug, PartialEq, Eq)]
struct Failed {
    /// To be logged.
    is_news: bool,
    /// To be planned.
    again: Option<Instant>,
}

impl BrokerRecord {
    fn new(now: Instant) -> Self {
        Self {
            sent: now,
            lost: false,
            heard: false,
            failing: false,
            version: None,
            again: None,
            underway: 0,
            named: BTreeSet::new(),
            farewells: Vec::new(),
        }
    }
}

impl Heartbeats {
    /// The brokers that may list a member.
    pub(super) fn naming(&self, id: MemberId) -> Vec<Arc<str>> {
        let brokers = self.brokers.lock();
        let naming = brokers.iter().filter(|(_, told)| told.named.contains(&id));
        naming.map(|(address, _)| Arc::clone(address)).collect()
    }

    /// Forgets all brokers but these, and those that may list a member of ours.
    pub(super) fn retain(&self, addresses: &BTreeSet<Arc<str>>) {
        self.brokers.lock().retain(|address, told| addresses.contains(address) || !told.named.is_empty());
    }

    /// A heartbeat that names `members` goes out.
    fn sent(&self, address: &Arc<str>, now: Instant, members: impl IntoIterator<Item = MemberId>) {
        let mut brokers = self.brokers.lock();
        let told = brokers.entry(Arc::clone(address)).or_insert_with(|| BrokerRecord::new(now));
        (told.sent, told.lost) = (now, false);
        told.underway += 1;
        told.named.extend(members);
    }

    /// Keeps a farewell while heartbeats are under way; returns it if it may be sent now. A broker handles requests of
    /// one connection in parallel, and an UNREGISTER_CLIENT that overtakes a heartbeat is undone by it.
    fn postpone(&self, address: &str, farewell: Farewell) -> Option<Farewell> {
        let mut brokers = self.brokers.lock();
        match brokers.get_mut(address) {
            Some(told) if told.underway > 0 => {
                told.farewells.push(farewell);
                None
            }
            _ => Some(farewell),
        }
    }

    /// A heartbeat has its outcome. Returns the farewells that waited for it.
    fn settled(&self, address: &str, certainty: Option<Certainty>) -> Vec<Farewell> {
        let mut brokers = self.brokers.lock();
        let Some(told) = brokers.get_mut(address) else { return Vec::new() };
        told.underway = told.underway.saturating_sub(1);
        if told.underway > 0 {
            return Vec::new();
        }
        if certainty == Some(Certainty::NotSent) && !told.heard {
            told.named.clear();
        }
        std::mem::take(&mut told.farewells)
    }

    /// True if the broker may list the member; from now on it does not.
    fn forget_named(&self, address: &str, id: MemberId) -> bool {
        self.brokers.lock().get_mut(address).is_some_and(|told| told.named.remove(&id))
    }

    /// Version in a broker's last answer.
    pub(crate) fn version(&self, address: &str) -> Option<i32> {
        self.brokers.lock().get(address)?.version
    }

    /// A heartbeat was taken; whether this is the first on its connection.
    fn taken(&self, address: &str, version: i32) -> bool {
        let mut brokers = self.brokers.lock();
        let Some(told) = brokers.get_mut(address) else { return false };
        (told.failing, told.again, told.version) = (false, None, Some(version));
        !std::mem::replace(&mut told.heard, true)
    }

    /// A heartbeat was not taken. `None` for a broker that is of no interest any more.
    fn failed(&self, address: &str, now: Instant) -> Option<Failed> {
        let mut brokers = self.brokers.lock();
        let told = brokers.get_mut(address)?;
        let is_news = !std::mem::replace(&mut told.failing, true);
        let again = told.again.is_none().then_some(now + AGAIN_AFTER);
        told.again = told.again.or(again);
        Some(Failed { is_news, again })
    }

    /// True if the repetition that was planned for `due` is still wanted.
    fn is_due(&self, address: &str, due: Instant) -> bool {
        let mut brokers = self.brokers.lock();
        brokers.get_mut(address).and_then(|told| told.again.take_if(|again| *again == due)).is_some()
    }
}

impl Core {
    /// Sends a heartbeat to every broker of every known route.
    pub(crate) fn heartbeat_to_all(self: &Arc<Self>) {
        let Some(beat) = self.heartbeat() else { return };
        let addresses = self.routes.broker_addresses(beat.with_slaves);
        self.heartbeats.retain(&addresses);
        for address in addresses {
            self.send_heartbeat(&address, &beat);
        }
    }

    /// Sends a heartbeat to each broker of a route that got none yet.
    pub(crate) fn heartbeat_to_new(self: &Arc<Self>, route: &TopicRoute) {
        let Some(beat) = self.heartbeat() else { return };
        for broker in &route.brokers {
            for (_, address) in broker.addresses.iter().filter(|(id, _)| beat.with_slaves || *id == body::MASTER_ID) {
                if !self.heartbeats.brokers.lock().contains_key(address) {
                    self.send_heartbeat(address, &beat);
                }
            }
        }
    }

    /// Sends a heartbeat to a broker again, since its connection is new.
    pub(crate) fn heartbeat_to_reconnected(self: &Arc<Self>, address: &Arc<str>) {
        let now = Instant::now();
        let due = match self.heartbeats.brokers.lock().get_mut(address) {
            Some(told) => told.lost || now.duration_since(told.sent) > SAME_CONNECTION,
            None => false,
        };
        if due {
            self.heartbeat_to(address);
        }
    }

    /// The connection to a broker is lost, and its registration of this client with it.
    pub(crate) fn forget_heartbeat(&self, address: &str) {
        if let Some(told) = self.heartbeats.brokers.lock().get_mut(address) {
            told.heard = false;
            told.lost = true;
            told.named.clear();
        }
    }

    /// True if the broker at `address` has answered a heartbeat on its present connection.
    pub(crate) fn is_heard(&self, address: &str) -> bool {
        self.heartbeats.brokers.lock().get(address).is_some_and(|told| told.heard)
    }

    fn heartbeat_to(self: &Arc<Self>, address: &Arc<str>) {
        if let Some(beat) = self.heartbeat() {
            self.send_heartbeat(address, &beat);
        }
    }

    /// The heartbeat of the present members. Slaves need it too, but for those who only produce. `None` without a
    /// member: a broker refuses an empty heartbeat.
    fn heartbeat(&self) -> Option<Beat> {
        let members = self.members();
        if members.is_empty() {
            return None;
        }
        let mut data = HeartbeatData { client_id: self.identity.client_id.clone(), ..HeartbeatData::default() };
        for member in &members {
            member.describe(&mut data);
        }
        let named: Arc<[_]> = members.iter().map(|member| (member.id(), member.key())).collect();
        let with_slaves = named.iter().any(|(_, key)| matches!(key, MemberKey::Consumer(_)));
        match body::encode("heartbeat", &data) {
            Ok(encoded) => Some(Beat { body: Bytes::from(encoded), named, with_slaves }),
            Err(error) => {
                warn!("heartbeat failed: encoding the body: {error}");
                None
            }
        }
    }

    fn send_heartbeat(self: &Arc<Self>, address: &Arc<str>, beat: &Beat) {
        self.heartbeats.sent(address, Instant::now(), beat.named.iter().map(|(id, _)| *id));
        let core = Arc::downgrade(self);
        let broker = Arc::clone(address);
        let named = Arc::clone(&beat.named);
        let request = Request::new(RequestCode::HEART_BEAT, &()).with_body(&beat.body);
        self.call(address, request, self.request_deadline(), move |answer| {
            let Some(core) = core.upgrade() else { return };
            match &answer {
                Ok(answer) => core.heartbeat_taken(&broker, answer.version),
                Err(error) => core.heartbeat_failed(&broker, error),
            }
            core.after_heartbeat(&broker, &named, answer.err().map(|error| error.certainty()));
        });
    }

    /// Sends the farewells of members that ended while a heartbeat was under way: those that waited for it, and those
    /// that the heartbeat named though they had ended before it was sent.
    fn after_heartbeat(
        self: &Arc<Self>,
        address: &Arc<str>,
        named: &[(MemberId, MemberKey)],
        failed: Option<Certainty>,
    ) {
        for farewell in self.heartbeats.settled(address, failed) {
            self.say_farewell(address, farewell);
        }
        for (id, key) in named.iter().filter(|(id, _)| !self.is_member(*id)) {
            let farewell = Farewell { id: *id, key: key.clone(), answer_by: self.request_deadline(), confirm: None };
            self.begin_farewell(address, farewell);
        }
    }

    /// Unregisters an ended member at a broker, after the heartbeats under way.
    pub(super) fn begin_farewell(self: &Arc<Self>, address: &Arc<str>, farewell: Farewell) {
        if let Some(farewell) = self.heartbeats.postpone(address, farewell) {
            self.say_farewell(address, farewell);
        }
    }

    fn say_farewell(self: &Arc<Self>, address: &Arc<str>, farewell: Farewell) {
        let Farewell { id, key, answer_by, confirm } = farewell;
        let confirm = move |address: Arc<str>| drop(confirm.map(|confirm| confirm.send(address)));
        // The broker lists the successor under the same name, or no member: the heartbeat was not sent, or the
        // connection was lost.
        if !self.heartbeats.forget_named(address, id) || self.member(&key).is_some() {
            return confirm(Arc::clone(address));
        }
        let core = Arc::downgrade(self);
        let broker = Arc::clone(address);
        let asked = key.clone();
        self.unregister(address, &asked, answer_by, move |answer| {
            // A successor that joined meanwhile was unregistered with it.
            if let Some(core) = core.upgrade().filter(|core| core.member(&key).is_some()) {
                core.heartbeat_to(&broker);
            }
            match answer {
                Ok(()) => confirm(broker),
                Err(error) => debug!("unregister {key:?} at broker {broker} failed: {error}"),
            }
        });
    }

    fn heartbeat_taken(&self, address: &Arc<str>, version: i32) {
        let first = self.heartbeats.taken(address, version);
        if first {
            info!("heartbeat: registered with broker {address} ({})", release_name(version));
            for member in self.members() {
                member.heartbeat_heard(address);
            }
            self.changed();
        }
    }

    fn heartbeat_failed(self: &Arc<Self>, address: &Arc<str>, error: &Error) {
        if error.is_of_an_ended_client() {
            return;
        }
        let Some(Failed { is_news, again }) = self.heartbeats.failed(address, Instant::now()) else { return };
        // That a broker cannot be reached is logged where it is dialled.
        let is_logged = matches!(error.kind(), ErrorKind::Connect | ErrorKind::Resolve | ErrorKind::ConnectionLost);
        if is_news && !is_logged {
            warn!("heartbeat to broker {address} failed: {error}");
        }
        let Some(due) = again else { return };
        let core = Arc::downgrade(self);
        let address = Arc::clone(address);
        self.timer.at(due, move || {
            if let Some(core) = core.upgrade()
                && core.heartbeats.is_due(&address, due)
                && core.routes.broker_addresses(true).contains(&address)
            {
                core.heartbeat_to(&address);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);
    const MINUTE: Duration = Duration::from_secs(60);

    /// Heartbeats within each of these minutes in which none is taken, and lines of the log.
    fn without_the_broker(heartbeats: &Heartbeats, minutes: u32, start: Instant) -> (Vec<usize>, usize) {
        let address: Arc<str> = "b".into();
        let (mut now, mut regular, mut planned) = (start, start, None);
        let (mut sent, mut lines) = (Vec::new(), 0);
        while now < start + MINUTE * minutes {
            let is_due = planned.take_if(|due| *due == now).is_some_and(|due| heartbeats.is_due(&address, due));
            if is_due || now == regular {
                heartbeats.sent(&address, now, []);
                heartbeats.settled(&address, Some(Certainty::NotSent));
                sent.push(now - start);
                let failed = heartbeats.failed(&address, now).unwrap();
                lines += usize::from(failed.is_news);
                assert!(planned.is_none() || failed.again.is_none(), "two tries are planned");
                planned = planned.or(failed.again);
            }
            regular = if now == regular { now + INTERVAL } else { regular };
            now = planned.map_or(regular, |due| due.min(regular));
        }
        let within =
            |minute: u32| sent.iter().filter(|at| (MINUTE * minute..MINUTE * (minute + 1)).contains(*at)).count();
        ((0..minutes).map(within).collect(), lines)
    }

    #[test]
    fn ten_minutes_without_a_broker_cost_each_as_few_heartbeats_as_the_first() {
        let heartbeats = Heartbeats::default();
        let (sent, lines) = without_the_broker(&heartbeats, 10, Instant::now());
        // Every 3 s, and every 30 s.
        assert!(sent.iter().all(|sent| (20..=22).contains(sent)), "{sent:?}");
        assert_eq!(lines, 1);
        assert_eq!(heartbeats.version("b"), None);
        assert!(heartbeats.taken("b", 407), "the first that is taken is news");
        assert_eq!(heartbeats.version("b"), Some(407));
    }

    fn farewell(id: MemberId) -> Farewell {
        Farewell { id, key: MemberKey::Producer("G".into()), answer_by: Instant::now(), confirm: None }
    }

    #[test]
    fn a_farewell_waits_for_the_heartbeats_under_way() {
        let (heartbeats, now, id) = (Heartbeats::default(), Instant::now(), MemberId(1));
        heartbeats.sent(&"b".into(), now, [id]);
        heartbeats.sent(&"b".into(), now, [id]);
        assert_eq!(heartbeats.naming(id).len(), 1, "it may list the member before it has answered");
        assert!(heartbeats.postpone("b", farewell(id)).is_none());
        assert!(heartbeats.settled("b", None).is_empty(), "another heartbeat is under way");
        assert_eq!(heartbeats.settled("b", Some(Certainty::Unknown)).len(), 1);
        assert!(heartbeats.forget_named("b", id));
        assert!(heartbeats.postpone("b", farewell(id)).is_some(), "nothing is under way");
    }

    #[test]
    fn a_broker_that_got_no_heartbeat_lists_nobody() {
        let (heartbeats, now, id) = (Heartbeats::default(), Instant::now(), MemberId(1));
        heartbeats.sent(&"b".into(), now, [id]);
        assert!(heartbeats.settled("b", Some(Certainty::NotSent)).is_empty());
        assert!(heartbeats.naming(id).is_empty());
    }

    #[test]
    fn a_try_that_was_planned_is_not_made_when_the_broker_has_answered_meanwhile() {
        let (heartbeats, now) = (Heartbeats::default(), Instant::now());
        heartbeats.sent(&"b".into(), now, []);
        let due = heartbeats.failed("b", now).unwrap().again.unwrap();
        assert_eq!(heartbeats.failed("b", now), Some(Failed { is_news: false, again: None }));
        assert!(heartbeats.taken("b", 407));
        assert!(!heartbeats.is_due("b", due));
        assert_eq!(heartbeats.failed("another", now), None);
    }
}
