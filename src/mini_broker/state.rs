//! State of a mini broker: its name servers and brokers, their connections, and pending output.
//!
//! A pure value of the broker's thread: requests and times go in, [`Output`]s come out; no socket, no clock. Due events
//! happen in the order of their times, so a jump of hours has the same outcome as waiting for them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use super::broker::Broker;
use super::clock::millis;
use super::exchange::{Answer, BrokerRequest, Condition, Node, Output, Reply, ReturnAddress};
use super::fault::{FaultTable, FaultVerdict, ReplyFate};
use super::handlers::{self, Registry};
use super::journal::{Journal, RequestRecord};
use super::settings::Settings;
use crate::wire::{HeaderEncoding, LanguageCode, RemotingCommand, ResponseCode};

/// Maximum number of client responses kept for tests.
const REPLIES_KEPT: usize = 1000;

/// Name server: it shares the view of the mini broker's brokers, and has no data of its own.
#[derive(Debug)]
pub(super) struct NameServer {
    pub(super) address: Arc<str>,
    pub(super) condition: Condition,
}

/// Connection to one of the servers.
#[derive(Clone, Copy, Debug)]
struct ConnectedPeer {
    node: Node,
    address: SocketAddr,
}

#[derive(Debug)]
pub(super) struct BrokerState {
    pub(super) settings: Arc<Settings>,
    pub(super) name_servers: Vec<NameServer>,
    pub(super) brokers: Vec<Broker>,
    pub(super) faults: FaultTable,
    pub(super) journal: Journal,
    /// Responses of clients to requests of the brokers, newest last.
    pub(super) replies: VecDeque<RemotingCommand>,
    peers: HashMap<u64, ConnectedPeer>,
    /// Requests received by paused servers.
    backlog: VecDeque<(u64, RemotingCommand)>,
    /// Responses delayed by a fault, by their time.
    delayed: BTreeMap<(i64, u64), Output>,
    last_number: u64,
    output: Vec<Output>,
}

impl BrokerState {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            name_servers: Vec::new(),
            brokers: Vec::new(),
            faults: FaultTable::default(),
            journal: Journal::default(),
            replies: VecDeque::new(),
            peers: HashMap::new(),
            backlog: VecDeque::new(),
            delayed: BTreeMap::new(),
            last_number: 0,
            output: Vec::new(),
        }
    }

    pub(super) fn connected(&mut self, connection: u64, node: Node, address: SocketAddr) {
        self.peers.insert(connection, ConnectedPeer { node, address });
    }

    pub(super) fn disconnected(&mut self, connection: u64) {
        let Some(peer) = self.peers.remove(&connection) else { return };
        self.backlog.retain(|(other, _)| *other != connection);
        if let Node::Broker(index) = peer.node
            && let Some(broker) = self.brokers.get_mut(index)
        {
            broker.disconnected(connection);
            self.collect_from(index);
        }
    }

    /// Handles a command received over a connection.
    pub(super) fn receive(&mut self, connection: u64, command: RemotingCommand, now: i64) {
        // A fault may have closed the connection while more of its requests were in the same read.
        let Some(peer) = self.peers.get(&connection).copied() else { return };
        if self.condition(peer.node) == Condition::Paused {
            self.backlog.push_back((connection, command));
        } else if command.is_response() {
            if self.replies.len() == REPLIES_KEPT {
                self.replies.pop_front();
            }
            self.replies.push_back(command);
        } else {
            self.receive_request(connection, peer, command, now);
        }
    }

    /// Performs everything that is due by `now`, in order.
    pub(super) fn run_until(&mut self, now: i64) {
        while let Some(due) = self.next_due().filter(|due| *due <= now) {
            while let Some(entry) = self.delayed.first_entry()
                && entry.key().0 <= due
            {
                let output = entry.remove();
                self.output.push(output);
            }
            for index in 0..self.brokers.len() {
                if let Some(broker) = self.brokers.get_mut(index)
                    && broker.condition == Condition::Up
                {
                    broker.tick(due);
                    self.collect_from(index);
                }
            }
        }
    }

    /// Time of the next due event, if no request arrives.
    pub(super) fn next_due(&self) -> Option<i64> {
        let brokers = self.brokers.iter().filter(|broker| broker.condition == Condition::Up);
        let answers = self.delayed.keys().next().map(|(due, _)| *due);
        brokers.filter_map(Broker::next_due).chain(answers).min()
    }

    pub(super) fn take_output(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.output)
    }

    pub(super) fn condition(&self, node: Node) -> Condition {
        match node {
            Node::NameServer(index) => self.name_servers.get(index).map(|server| server.condition),
            Node::Broker(index) => self.brokers.get(index).map(|broker| broker.condition),
        }
        .unwrap_or(Condition::Down)
    }

    /// Changes the condition of a server. A resumed server handles the requests received while it was paused.
    pub(super) fn set_condition(&mut self, node: Node, condition: Condition, now: i64) {
        match node {
            Node::NameServer(index) => {
                self.name_servers.get_mut(index).into_iter().for_each(|server| server.condition = condition);
            }
            Node::Broker(index) => {
                if let Some(broker) = self.brokers.get_mut(index) {
                    if condition == Condition::Down {
                        broker.offsets.die(now);
                    }
                    broker.condition = condition;
                }
            }
        }
        if condition == Condition::Up {
            for (connection, command) in std::mem::take(&mut self.backlog) {
                self.receive(connection, command, now);
            }
        }
    }

    /// Changes the settings of all servers.
    pub(super) fn change_settings(&mut self, change: impl FnOnce(&mut Settings)) {
        change(Arc::make_mut(&mut self.settings));
        for broker in &mut self.brokers {
            broker.settings = Arc::clone(&self.settings);
        }
    }

    /// Sends a request of the broker to a client.
    pub(super) fn push(&mut self, connection: u64, mut command: RemotingCommand) {
        self.last_number += 1;
        command.language = LanguageCode::JAVA;
        command.version = self.settings.release.protocol_version();
        command.opaque = i32::try_from(self.last_number & 0x7FFF_FFFF).unwrap_or_default();
        self.output.push(Output::Command(connection, command));
    }

    /// Numbers of the connections to a server.
    pub(super) fn connections_of(&self, node: Node) -> Vec<u64> {
        let mut connections: Vec<_> =
            self.peers.iter().filter(|(_, peer)| peer.node == node).map(|(number, _)| *number).collect();
        connections.sort_unstable();
        connections
    }

    /// Takes the output of a broker.
    pub(super) fn collect_from(&mut self, index: usize) {
        let Some(broker) = self.brokers.get_mut(index) else { return };
        handlers::answer_ended_pulls(broker);
        let (answers, pushes) = broker.take_output();
        for (return_to, answer, now) in answers {
            self.answer(&return_to, answer, now);
        }
        for (connection, command) in pushes {
            self.push(connection, command);
        }
    }

    fn receive_request(&mut self, connection: u64, peer: ConnectedPeer, command: RemotingCommand, now: i64) {
        let record = RequestRecord::new(&command, self.server_name(peer.node), connection, now);
        let verdict = self.faults.verdict(&record, &command);
        self.journal.add(record);
        let mut return_to = self.return_address(connection, &command);
        match verdict {
            FaultVerdict::Process(fate) => {
                return_to.fate = fate;
                self.process(peer, &BrokerRequest { command, peer: peer.address, now, return_to });
            }
            FaultVerdict::Answer(told) => {
                let RemotingCommand { code, remark, ext_fields: fields, body, .. } = told;
                self.answer(&return_to, Answer { code, remark, fields, body }, now);
            }
            FaultVerdict::Ignore => {}
            FaultVerdict::Close => self.close(connection),
        }
    }

    fn registry(&self) -> Registry<'_> {
        Registry { settings: &self.settings, brokers: &self.brokers }
    }

    fn process(&mut self, peer: ConnectedPeer, request: &BrokerRequest) {
        let (return_to, now) = (request.return_to.clone(), request.now);
        let reply = match peer.node {
            Node::NameServer(_) => handlers::name_server(&self.registry(), request),
            Node::Broker(index) => match self.brokers.get_mut(index) {
                Some(broker) => handlers::broker(broker, request),
                None => Reply::Never,
            },
        };
        // Order of a real broker: the members of a group are notified of a new one before the new one has the response
        // to its heartbeat.
        if let Node::Broker(index) = peer.node {
            self.collect_from(index);
        }
        if let Reply::Now(answer) = reply {
            self.answer(&return_to, answer, now);
        }
    }

    fn return_address(&self, connection: u64, request: &RemotingCommand) -> ReturnAddress {
        let mut blank = RemotingCommand::response_to(request, ResponseCode::SUCCESS, None);
        blank.language = LanguageCode::JAVA;
        blank.version = self.settings.release.protocol_version();
        if self.settings.release.is_v5() {
            blank.encoding = HeaderEncoding::Json;
        }
        ReturnAddress { connection, oneway: request.is_oneway(), fate: ReplyFate::Sent, blank }
    }

    fn answer(&mut self, return_to: &ReturnAddress, answer: Answer, now: i64) {
        let connection = return_to.connection;
        let mut command = return_to.blank.clone();
        command.code = answer.code;
        command.remark = answer.remark;
        command.ext_fields = answer.fields;
        command.body = answer.body;
        let told = (!return_to.oneway).then_some(Output::Command(connection, command));
        match &return_to.fate {
            ReplyFate::Sent => self.output.extend(told),
            ReplyFate::Lost => {}
            ReplyFate::Doubled => {
                if let Some(Output::Command(connection, command)) = told {
                    self.output.push(Output::Command(connection, command.clone()));
                    self.output.push(Output::Command(connection, command));
                }
            }
            ReplyFate::Delayed(by) => {
                if let Some(told) = told {
                    self.last_number += 1;
                    self.delayed.insert((now.saturating_add(millis(*by)), self.last_number), told);
                }
            }
            ReplyFate::Altered(alter) => {
                if let Some(Output::Command(connection, command)) = told {
                    let mut frame = Vec::new();
                    let encoded = command.encode(&mut frame);
                    let bytes = encoded.map(|()| alter.rewrite(frame).into());
                    self.output.extend(bytes.map(|bytes| Output::Bytes(connection, bytes)));
                }
            }
            ReplyFate::Replaced(bytes) => self.output.push(Output::Bytes(connection, bytes.clone())),
            ReplyFate::ConnectionClosed => self.close(connection),
        }
    }

    fn close(&mut self, connection: u64) {
        self.output.push(Output::Close(connection));
        self.disconnected(connection);
    }

    fn server_name(&self, node: Node) -> Arc<str> {
        match node {
            Node::NameServer(index) => self.name_servers.get(index).map(|server| &server.address),
            Node::Broker(index) => self.brokers.get(index).map(|broker| &broker.name),
        }
        .map_or_else(|| Arc::from(""), Arc::clone)
    }
}
