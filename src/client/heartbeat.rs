//! Heartbeats: what tells brokers which groups this client has. Sent to every broker in parallel, at once when a broker
//! is learned or a connection made, and every heartbeat interval.
//!
//! Nothing here blocks. A broker knows a member by its *connection*: after a new one it has to be told again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use log::{info, warn};
use parking_lot::Mutex;

use super::Core;
use super::member::MemberKey;
use super::route::TopicRoute;
use crate::error::{Error, ErrorKind};
use crate::name_map::NameMap;
use crate::remoting::Request;
use crate::wire::RequestCode;
use crate::wire::body::{self, HeartbeatData};

/// A broker that did not take a heartbeat is told again after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(3);
/// A heartbeat sent within this long before a connection was made, with none lost in between, is the one that made it.
const SAME_CONNECTION: Duration = Duration::from_secs(1);

/// What each broker has been told.
#[derive(Debug, Default)]
pub(crate) struct Heartbeats {
    brokers: Mutex<NameMap<Told>>,
}

#[derive(Debug)]
struct Told {
    sent: Instant,
    /// A connection was lost since: what was sent before may have been told on that one, and is forgotten with it.
    lost: bool,
    /// It has answered on its present connection.
    heard: bool,
    /// The last heartbeat failed, which has been logged.
    failing: bool,
}

impl Heartbeats {
    /// The brokers that know this client.
    pub(crate) fn told(&self) -> Vec<Arc<str>> {
        let brokers = self.brokers.lock();
        brokers.iter().filter(|(_, told)| told.heard).map(|(address, _)| Arc::clone(address)).collect()
    }
}

impl Core {
    /// Tells every broker of every known route.
    pub(crate) fn heartbeat_to_all(self: &Arc<Self>) {
        let Some((body, with_slaves)) = self.heartbeat_body() else { return };
        let addresses = self.routes.broker_addresses(with_slaves);
        self.heartbeats.brokers.lock().retain(|address, _| addresses.contains(address));
        for address in addresses {
            self.send_heartbeat(&address, &body);
        }
    }

    /// Tells the brokers of a route that have not been told of us yet.
    pub(crate) fn heartbeat_to_new(self: &Arc<Self>, route: &TopicRoute) {
        let Some((body, with_slaves)) = self.heartbeat_body() else { return };
        for broker in &route.brokers {
            for (_, address) in broker.addresses.iter().filter(|(id, _)| with_slaves || *id == body::MASTER_ID) {
                if !self.heartbeats.brokers.lock().contains_key(address) {
                    self.send_heartbeat(address, &body);
                }
            }
        }
    }

    /// Tells a broker again, since its connection is a new one.
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

    /// The connection to a broker is lost: it no longer knows us.
    pub(crate) fn forget_heartbeat(&self, address: &str) {
        if let Some(told) = self.heartbeats.brokers.lock().get_mut(address) {
            told.heard = false;
            told.lost = true;
        }
    }

    /// Whether the broker at `address` knows the groups of this client.
    pub(crate) fn is_heard(&self, address: &str) -> bool {
        self.heartbeats.brokers.lock().get(address).is_some_and(|told| told.heard)
    }

    fn heartbeat_to(self: &Arc<Self>, address: &Arc<str>) {
        if let Some((body, _)) = self.heartbeat_body() {
            self.send_heartbeat(address, &body);
        }
    }

    /// The body for the present members, and whether slaves need it too: those who only produce have no use for them.
    /// `None` without a member: a broker refuses an empty heartbeat.
    fn heartbeat_body(&self) -> Option<(Bytes, bool)> {
        let members = self.members();
        if members.is_empty() {
            return None;
        }
        let mut data = HeartbeatData { client_id: self.identity.client_id.clone(), ..HeartbeatData::default() };
        for member in &members {
            member.describe(&mut data);
        }
        let with_slaves = members.iter().any(|member| matches!(member.key(), MemberKey::Consumer(_)));
        match body::encode("heartbeat", &data) {
            Ok(encoded) => Some((Bytes::from(encoded), with_slaves)),
            Err(error) => {
                warn!("a heartbeat cannot be written: {error}");
                None
            }
        }
    }

    fn send_heartbeat(self: &Arc<Self>, address: &Arc<str>, body: &Bytes) {
        {
            let mut brokers = self.heartbeats.brokers.lock();
            let sent = Instant::now();
            let new = Told { sent, lost: false, heard: false, failing: false };
            let told = brokers.entry(Arc::clone(address)).or_insert(new);
            (told.sent, told.lost) = (sent, false);
        }
        let core = Arc::downgrade(self);
        let broker = Arc::clone(address);
        let request = Request::new(RequestCode::HEART_BEAT, &()).with_body(body);
        self.call(address, request, self.request_deadline(), move |answer| {
            let Some(core) = core.upgrade() else { return };
            match answer {
                Ok(_) => core.heartbeat_taken(&broker),
                Err(error) => core.heartbeat_failed(&broker, &error),
            }
        });
    }

    fn heartbeat_taken(&self, address: &Arc<str>) {
        let first = match self.heartbeats.brokers.lock().get_mut(address) {
            Some(told) => {
                told.failing = false;
                !std::mem::replace(&mut told.heard, true)
            }
            None => false,
        };
        if first {
            info!("broker {address} knows this client");
            for member in self.members() {
                member.heartbeat_heard(address);
            }
            self.changed();
        }
    }

    fn heartbeat_failed(self: &Arc<Self>, address: &Arc<str>, error: &Error) {
        if error.kind() == ErrorKind::NotRunning {
            return;
        }
        let first = match self.heartbeats.brokers.lock().get_mut(address) {
            Some(told) => !std::mem::replace(&mut told.failing, true),
            None => return,
        };
        if first {
            warn!("broker {address} did not take a heartbeat: {error}");
        }
        let core = Arc::downgrade(self);
        let address = Arc::clone(address);
        self.timer.after(AGAIN_AFTER, move || {
            if let Some(core) = core.upgrade()
                && core.routes.broker_addresses(true).contains(&address)
            {
                core.heartbeat_to(&address);
            }
        });
    }
}
