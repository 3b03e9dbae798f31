//! Methods of a running mini broker for tests: commands and queries.
//!
//! Each method sends a job to the broker's thread and waits until it is done. An unknown name or number is a mistake in
//! the test, and panics on the test's own thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crossbeam_channel::bounded;

use super::MiniBroker;
use super::broker::{Broker, Group};
use super::exchange::{Condition, Node};
use super::fault::{Fault, FaultId};
use super::journal::RequestRecord;
use super::server::{BrokerJob, Server};
use super::state::BrokerState;
use super::store::{Draft, StoredQueue, TopicSettings};
use crate::error::{Error, Result};
use crate::message::{Message, MessageExt, MessageQueue, at_millis};
use crate::wire::body::permission;
use crate::wire::{RemotingCommand, RequestCode};

/// # Addresses
impl MiniBroker {
    /// Addresses of the name servers, in the form of a client's configuration.
    #[must_use]
    pub fn name_servers(&self) -> Vec<String> {
        self.name_servers.iter().map(ToString::to_string).collect()
    }

    /// Names of the brokers.
    #[must_use]
    pub fn broker_names(&self) -> Vec<&str> {
        self.brokers.iter().map(|(name, _)| &**name).collect()
    }

    /// Address of a broker; it stays the same when the broker is stopped and started.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    #[must_use]
    pub fn broker_address(&self, broker: &str) -> SocketAddr {
        self.broker_at(broker).1
    }
}

/// # Topics and messages
impl MiniBroker {
    /// Creates a topic for reading and writing with this many queues on each broker, or updates it.
    pub fn create_topic(&self, topic: &str, queues: u16) {
        for (name, _) in &self.brokers {
            self.create_topic_on(name, topic, queues, queues, permission::READ | permission::WRITE);
        }
    }

    /// Creates or updates a topic on one broker: the number of queues for readers and for writers, and the bits of
    /// [`permission`].
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    pub fn create_topic_on(&self, broker: &str, topic: &str, read_queues: u16, write_queues: u16, perm: i32) {
        let topic = topic.to_owned();
        let config = TopicSettings { read_queues: read_queues.into(), write_queues: write_queues.into(), perm };
        self.with_broker(broker, move |broker, _| broker.store.set_topic(&topic, config));
    }

    /// Deletes a topic from a broker. Returns true if it existed.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    pub fn delete_topic_on(&self, broker: &str, topic: &str) -> bool {
        let topic = topic.to_owned();
        self.with_broker(broker, move |broker, _| broker.store.remove_topic(&topic))
    }

    /// Names of all topics of a broker, including those created by clients and by the broker itself.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    #[must_use]
    pub fn topics(&self, broker: &str) -> Vec<String> {
        self.with_broker(broker, |broker, _| broker.store.topics().map(|(name, _)| name.to_string()).collect())
    }

    /// Stores a message in a queue of an existing topic, as if it had been sent, and returns its offset. A delay level
    /// among its properties takes effect.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker or topic, or if the message is too large.
    pub fn store(&self, queue: &MessageQueue, message: &Message) -> i64 {
        let mut message = message.clone();
        message.topic = Arc::clone(&queue.topic);
        let (queue_id, address) = (queue.queue_id, self.broker_address(&queue.broker_name));
        let stored = self.with_broker(&queue.broker_name, move |broker, now| {
            let draft =
                Draft { message, queue_id, sys_flag: 0, born_timestamp: now, born_host: address, reconsume_times: 0 };
            broker.put(draft, now)
        });
        match stored {
            Ok(place) => place.queue_offset,
            Err(refusal) => panic!("store in {queue} failed: {}", refusal.remark.unwrap_or_default()),
        }
    }

    /// All messages of a topic that are not expired: broker by broker, queue by queue, oldest first. Bodies are
    /// returned as stored, which may be compressed.
    #[must_use]
    pub fn messages(&self, topic: &str) -> Vec<MessageExt> {
        let topic = topic.to_owned();
        self.ask(move |server| {
            let stores = server.state.brokers.iter().map(|broker| &broker.store);
            let queues = |store| {
                let store: &super::store::Store = store;
                let topic = topic.as_str();
                store.queue_ids(topic).into_iter().flat_map(move |queue_id| store.messages(topic, queue_id))
            };
            stores.flat_map(queues).collect()
        })
    }

    /// Offset of the next message of the queue.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    #[must_use]
    pub fn max_offset(&self, queue: &MessageQueue) -> i64 {
        self.with_queue(queue, |queue| queue.map_or(0, StoredQueue::end))
    }

    /// Offset of the oldest message of the queue that is not expired.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    #[must_use]
    pub fn min_offset(&self, queue: &MessageQueue) -> i64 {
        self.with_queue(queue, |queue| queue.map_or(0, StoredQueue::first))
    }

    /// Expires all messages of the queue before `offset`, as the deletion of old files does. An offset after the last
    /// message empties the queue, and the next message gets that offset.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    pub fn set_min_offset(&self, queue: &MessageQueue, offset: i64) {
        let (topic, queue_id) = (Arc::clone(&queue.topic), queue.queue_id);
        self.with_broker(&queue.broker_name, move |broker, _| broker.store.set_first(&topic, queue_id, offset));
    }

    /// Changes the delay of each level, beginning with level 1. Messages that are already delayed keep their time.
    pub fn set_delay_levels(&self, levels: impl IntoIterator<Item = Duration>) {
        let levels: Vec<_> = levels.into_iter().collect();
        self.ask(move |server| server.state.change_settings(|settings| settings.delay_levels = levels));
    }
}

/// # Consumer groups
impl MiniBroker {
    /// Offset that a group will consume next, as committed to the broker.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    #[must_use]
    pub fn committed_offset(&self, group: &str, queue: &MessageQueue) -> Option<i64> {
        let (group, topic, queue_id) = (group.to_owned(), Arc::clone(&queue.topic), queue.queue_id);
        self.with_broker(&queue.broker_name, move |broker, _| broker.offsets.find(&group, &topic, queue_id))
    }

    /// Changes the committed offset of a group; `None` removes it.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    pub fn set_committed_offset(&self, group: &str, queue: &MessageQueue, offset: Option<i64>) {
        let (group, topic, queue_id) = (group.to_owned(), Arc::clone(&queue.topic), queue.queue_id);
        self.with_broker(&queue.broker_name, move |broker, now| match offset {
            Some(offset) => broker.offsets.commit(&group, &topic, queue_id, offset, now),
            None => broker.offsets.forget(&group, &topic, queue_id),
        });
    }

    /// Client ids of a group's members at a broker, in the order of joining.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    #[must_use]
    pub fn members(&self, broker: &str, group: &str) -> Vec<String> {
        let group = group.to_owned();
        self.with_broker(broker, move |broker, _| {
            let members = broker.groups.get(&group).map(|group| group.members.iter());
            members.into_iter().flatten().map(|member| member.client_id.clone()).collect()
        })
    }

    /// Makes all brokers return this list as a group's members: without the requesting client, with it twice, or empty.
    /// `None` restores the real list.
    pub fn set_member_list(&self, group: &str, told: Option<Vec<String>>) {
        let group = group.to_owned();
        self.ask(move |server| {
            for broker in &mut server.state.brokers {
                broker.groups.entry(group.clone()).or_default().told_members.clone_from(&told);
            }
        });
    }

    /// Makes all brokers notify a group's members of a change, without any change.
    pub fn notify_members(&self, group: &str) {
        let group = group.to_owned();
        self.ask(move |server| {
            for index in 0..server.state.brokers.len() {
                server.state.brokers.get_mut(index).into_iter().for_each(|broker| broker.notify_members(&group));
                server.state.collect_from(index);
            }
        });
    }
}

/// # Faults
impl MiniBroker {
    /// Adds a fault for requests of this code, until it is used up or removed.
    pub fn fail(&self, code: RequestCode, fault: Fault) -> FaultId {
        self.ask(move |server| server.state.faults.add(Some(code), fault))
    }

    /// Adds a fault for requests of every code, until it is used up or removed.
    pub fn fail_all(&self, fault: Fault) -> FaultId {
        self.ask(move |server| server.state.faults.add(None, fault))
    }

    /// Number of requests that hit a fault, until it is removed. A test of a fault asserts that it happened.
    #[must_use]
    pub fn fault_hits(&self, fault: FaultId) -> usize {
        self.ask(move |server| server.state.faults.hits(fault))
    }

    /// Removes a fault.
    pub fn clear_fault(&self, fault: FaultId) {
        self.ask(move |server| server.state.faults.remove(fault));
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.ask(|server| server.state.faults.clear());
    }

    /// Stops a broker: its connections are closed, new ones are refused, and routes no longer contain it. Stored data
    /// stays, except offsets with an [interval of writing](super::MiniBrokerBuilder::offset_write_interval).
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    pub fn stop_broker(&self, broker: &str) {
        let (node, _) = self.broker_at(broker);
        self.ask(move |server| stop(server, node));
    }

    /// Starts a stopped broker on its old address; no effect on a running one.
    ///
    /// # Errors
    ///
    /// Returns an error if the address is in use.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    pub fn start_broker(&self, broker: &str) -> Result<()> {
        let (node, address) = self.broker_at(broker);
        self.ask(move |server| start(server, node, address))
    }

    /// Stops a name server, by its index in [`name_servers`](Self::name_servers).
    ///
    /// # Panics
    ///
    /// Panics if there is no such name server.
    pub fn stop_name_server(&self, index: usize) {
        let (node, _) = self.name_server_at(index);
        self.ask(move |server| stop(server, node));
    }

    /// Starts a stopped name server on its old address; no effect on a running one.
    ///
    /// # Errors
    ///
    /// Returns an error if the address is in use.
    ///
    /// # Panics
    ///
    /// Panics if there is no such name server.
    pub fn start_name_server(&self, index: usize) -> Result<()> {
        let (node, address) = self.name_server_at(index);
        self.ask(move |server| start(server, node, address))
    }

    /// Pauses a broker: it accepts connections and requests and does nothing, like a process stopped by SIGSTOP.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    pub fn pause_broker(&self, broker: &str) {
        let (node, _) = self.broker_at(broker);
        self.ask(move |server| pause(server, node));
    }

    /// Resumes a paused broker, which then handles the requests received in the meantime; no effect on another one.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    pub fn resume_broker(&self, broker: &str) {
        let (node, _) = self.broker_at(broker);
        self.ask(move |server| resume(server, node));
    }

    /// Pauses a name server, by its index in [`name_servers`](Self::name_servers).
    ///
    /// # Panics
    ///
    /// Panics if there is no such name server.
    pub fn pause_name_server(&self, index: usize) {
        let (node, _) = self.name_server_at(index);
        self.ask(move |server| pause(server, node));
    }

    /// Resumes a paused name server, which then handles the requests received in the meantime; no effect on another
    /// one.
    ///
    /// # Panics
    ///
    /// Panics if there is no such name server.
    pub fn resume_name_server(&self, index: usize) {
        let (node, _) = self.name_server_at(index);
        self.ask(move |server| resume(server, node));
    }

    /// Closes all connections to a broker, which keeps running. Returns their number.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    pub fn cut_connections(&self, broker: &str) -> usize {
        let (node, _) = self.broker_at(broker);
        self.ask(move |server| server.cut_connections(node))
    }

    /// Number of connections to a broker.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    #[must_use]
    pub fn connection_count(&self, broker: &str) -> usize {
        let (node, _) = self.broker_at(broker);
        self.ask(move |server| server.connection_count(node))
    }

    /// Sends a request of the broker to all connected clients; opaque and version are set here. Responses to two-way
    /// requests are added to [`replies`](Self::replies).
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    pub fn push(&self, broker: &str, request: RemotingCommand) {
        let (node, _) = self.broker_at(broker);
        self.ask(move |server| {
            for connection in server.state.connections_of(node) {
                server.state.push(connection, request.clone());
            }
        });
    }
}

/// # Time
impl MiniBroker {
    /// Time of the broker, with a resolution of milliseconds.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        at_millis(self.ask(|server| server.now()))
    }

    /// Advances the time. Everything that becomes due (delayed messages, ends of long polls, delayed responses) happens
    /// before this returns, in order and each at its own time.
    pub fn advance(&self, by: Duration) {
        self.ask(move |server| server.advance(by));
    }
}

/// # Requests seen
impl MiniBroker {
    /// Received requests, oldest first; at most the last 100,000.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.ask(|server| server.state.journal.records().cloned().collect())
    }

    /// Received requests of one code, oldest first.
    #[must_use]
    pub fn requests_of(&self, code: RequestCode) -> Vec<RequestRecord> {
        self.ask(move |server| server.state.journal.records().filter(|record| record.code == code).cloned().collect())
    }

    /// Number of received requests of this code.
    #[must_use]
    pub fn request_count(&self, code: RequestCode) -> usize {
        self.ask(move |server| server.state.journal.count(code))
    }

    /// Clears the received requests and their counts.
    pub fn clear_requests(&self) {
        self.ask(|server| server.state.journal.clear());
    }

    /// Responses of clients to requests of the brokers, oldest first; at most the last 1,000.
    #[must_use]
    pub fn replies(&self) -> Vec<RemotingCommand> {
        self.ask(|server| server.state.replies.iter().cloned().collect())
    }
}

/// # Waiting
///
/// Each method waits until its condition is true, or until `timeout` has passed by the system's clock. It returns true
/// if the condition is true.
impl MiniBroker {
    /// Waits until at least this many requests of the code were received since the start or the last
    /// [`clear_requests`](Self::clear_requests).
    #[must_use]
    pub fn wait_for_requests(&self, code: RequestCode, count: usize, timeout: Duration) -> bool {
        self.wait(timeout, move |state| state.journal.count(code) >= count)
    }

    /// Waits until a fault was hit at least this often.
    #[must_use]
    pub fn wait_for_fault(&self, fault: FaultId, hits: usize, timeout: Duration) -> bool {
        self.wait(timeout, move |state| state.faults.hits(fault) >= hits)
    }

    /// Waits until a group has this many members at every running broker.
    #[must_use]
    pub fn wait_for_members(&self, group: &str, count: usize, timeout: Duration) -> bool {
        let group = group.to_owned();
        self.wait(timeout, move |state| {
            let members = |group: Option<&Group>| group.map_or(0, |group| group.members.len());
            let mut running = state.brokers.iter().filter(|broker| broker.condition == Condition::Up);
            running.all(|broker| members(broker.groups.get(&group)) == count)
        })
    }

    /// Waits until a group has committed `offset` or a later one.
    ///
    /// # Panics
    ///
    /// Panics if there is no such broker.
    #[must_use]
    pub fn wait_for_committed_offset(&self, group: &str, queue: &MessageQueue, offset: i64, timeout: Duration) -> bool {
        let (Node::Broker(index) | Node::NameServer(index), _) = self.broker_at(&queue.broker_name);
        let (group, topic, queue_id) = (group.to_owned(), Arc::clone(&queue.topic), queue.queue_id);
        self.wait(timeout, move |state| {
            let broker = state.brokers.get(index);
            let committed = broker.and_then(|broker| broker.offsets.find(&group, &topic, queue_id));
            committed.is_some_and(|committed| committed >= offset)
        })
    }

    /// Waits until this many messages are stored in a topic, on all brokers together.
    #[must_use]
    pub fn wait_for_messages(&self, topic: &str, count: usize, timeout: Duration) -> bool {
        let topic = topic.to_owned();
        self.wait(timeout, move |state| {
            let in_broker = |broker: &Broker| {
                let queues = broker.store.queue_ids(&topic).into_iter();
                queues.filter_map(|id| broker.store.queue(&topic, id)).map(|queue| queue.live().count()).sum::<usize>()
            };
            state.brokers.iter().map(in_broker).sum::<usize>() >= count
        })
    }

    fn wait(&self, timeout: Duration, holds: impl FnMut(&BrokerState) -> bool + Send + 'static) -> bool {
        let wanted = Arc::new(());
        let still_wanted = Arc::downgrade(&wanted);
        let (tell, told) = bounded(1);
        self.ask(move |server| server.watch(holds, tell, still_wanted));
        told.recv_timeout(timeout).is_ok()
    }
}

impl MiniBroker {
    /// Runs a job on the broker's thread and returns its result.
    fn ask<R: Send + 'static>(&self, job: impl FnOnce(&mut Server) -> R + Send + 'static) -> R {
        let (tell, told) = bounded(1);
        let job: BrokerJob = Box::new(move |server| {
            // The requesting thread waits for nothing else; it can only have panicked.
            let _ = tell.send(job(server));
        });
        let is_handed_in = self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        let is_woken = self.waker.wake().is_ok();
        match told.recv() {
            Ok(result) if is_handed_in && is_woken => result,
            _ => panic!("the mini broker's thread has ended; its panic, if any, is printed above"),
        }
    }

    fn with_broker<R: Send + 'static>(
        &self,
        broker: &str,
        job: impl FnOnce(&mut Broker, i64) -> R + Send + 'static,
    ) -> R {
        let (Node::Broker(index) | Node::NameServer(index), _) = self.broker_at(broker);
        let done = self.ask(move |server| {
            let now = server.now();
            let done = server.state.brokers.get_mut(index).map(|broker| job(broker, now));
            server.state.collect_from(index);
            done
        });
        match done {
            Some(done) => done,
            None => no_such("broker", broker),
        }
    }

    fn with_queue<R: Send + 'static>(
        &self,
        queue: &MessageQueue,
        job: impl FnOnce(Option<&StoredQueue>) -> R + Send + 'static,
    ) -> R {
        let (topic, queue_id) = (Arc::clone(&queue.topic), queue.queue_id);
        self.with_broker(&queue.broker_name, move |broker, _| job(broker.store.queue(&topic, queue_id)))
    }

    fn broker_at(&self, name: &str) -> (Node, SocketAddr) {
        let found = self.brokers.iter().enumerate().find(|(_, (known, _))| &**known == name);
        match found {
            Some((index, (_, address))) => (Node::Broker(index), *address),
            None => no_such("broker", name),
        }
    }

    fn name_server_at(&self, index: usize) -> (Node, SocketAddr) {
        match self.name_servers.get(index) {
            Some(address) => (Node::NameServer(index), *address),
            None => no_such("name server", &index.to_string()),
        }
    }
}

fn no_such(kind: &str, name: &str) -> ! {
    panic!("this mini broker has no {kind} {name}")
}

fn stop(server: &mut Server, node: Node) {
    let now = server.now();
    server.state.set_condition(node, Condition::Down, now);
    server.stop_listening(node);
}

fn start(server: &mut Server, node: Node, address: SocketAddr) -> Result<()> {
    if server.state.condition(node) != Condition::Down {
        return Ok(());
    }
    server.listen(node, address).map_err(|error| Error::of_system(&format!("listening on {address} again"), error))?;
    let now = server.now();
    server.state.set_condition(node, Condition::Up, now);
    Ok(())
}

fn pause(server: &mut Server, node: Node) {
    if server.state.condition(node) == Condition::Up {
        let now = server.now();
        server.state.set_condition(node, Condition::Paused, now);
    }
}

fn resume(server: &mut Server, node: Node) {
    if server.state.condition(node) == Condition::Paused {
        let now = server.now();
        server.state.set_condition(node, Condition::Up, now);
    }
}
