//! Layer 4, sending: [`Producer`], its options, and the three ways to send.
//!
//! All of them prepare a message on the caller's thread and share the decisions of `sender.rs` and `attempts.rs`.

pub(crate) mod send;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use crate::producer::send::completions::{Completed, Completions};
pub use crate::producer::send::result::{SendResult, SendStatus};
pub use crate::producer::send::selector::by_hash;

use crate::client::callbacks::Job;
use crate::client::config::{ClientConfig, client_options, invalid};
use crate::client::ending::Ending;
use crate::client::member::{Member, MemberId, MemberKey};
use crate::client::{Client, ClientChoice, Core};
use crate::deadline::deadline_after;
use crate::error::{Error, ErrorKind, Result};
use crate::logging::info;
use crate::message::{Message, MessageQueue};
pub(crate) use crate::producer::send::attempts::RetryCodes;
use crate::producer::send::prepare::{BodyRules, Prepared};
use crate::producer::send::window::{NoPermit, Permit, Window};
use crate::producer::send::{AsyncSend, Done, Sender, Target};
use crate::wire::ResponseCode;
use crate::wire::body::{HeartbeatData, ProducerData};
use crate::wire::name::{DEFAULT_PRODUCER_GROUP, check_group};
use crate::wire::stored::compression::{Codec, DEFAULT_LEVEL};
use crate::worker::{check_may_wait, is_service_thread};

/// How long a producer that is dropped without `shutdown` waits for what is in flight.
const DROP_GRACE: Duration = Duration::from_secs(1);

/// Sends messages.
///
/// A producer may be used by any number of threads at once. It is running when it is made, and accepts messages until
/// [`shutdown`](Self::shutdown); topics, name servers and brokers that cannot be reached now are found when they can.
///
/// ```no_run
/// use rocketmq_sync::{Message, Producer};
///
/// # fn main() -> rocketmq_sync::Result<()> {
/// let producer = Producer::builder("orders").name_servers(["127.0.0.1:9876"]).start()?;
/// let receipt = producer.send(&Message::new("TopicTest", "hello").with_tag("A").with_key("42"))?;
/// println!("stored in {} at {}", receipt.queue, receipt.queue_offset);
/// # Ok(())
/// # }
/// ```
pub struct Producer {
    client: Client,
    sender: Arc<Sender>,
    member: Arc<ProducerMember>,
    ending: Ending<ProducerReport>,
    options: Options,
    window: Arc<Window>,
    /// Sends whose callers wait on their own threads; without limits, counted for the shutdown.
    calls: Arc<Window>,
}

#[derive(Clone, Debug)]
struct Options {
    send_timeout: Duration,
    retries: u32,
    retry_codes: RetryCodes,
    body: BodyRules,
    max_in_flight: usize,
    max_in_flight_bytes: usize,
    fail_when_full: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            send_timeout: Duration::from_secs(3),
            retries: 2,
            retry_codes: RetryCodes::default(),
            body: BodyRules {
                max_message_size: 4 * 1024 * 1024,
                compress_threshold: 4096,
                codec: Codec::Zlib.is_built().then_some(Codec::Zlib),
                compression_level: DEFAULT_LEVEL,
            },
            max_in_flight: 10_000,
            max_in_flight_bytes: 64 * 1024 * 1024,
            fail_when_full: false,
        }
    }
}

/// Outcome of [`Producer::shutdown`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerReport {
    /// Sends that had no outcome at the deadline. Asynchronous ones get theirs all the same, at the latest when their
    /// own deadline passes or the client ends.
    pub unresolved: usize,
    /// Sends whose outcome stands in [`Completions`] and was not taken when the producer ended; it can be taken later.
    pub untaken: usize,
    /// Brokers that did not confirm by the deadline that this producer is gone; they forget it within two minutes.
    pub brokers_not_told: Vec<String>,
    /// The call came from a callback, which cannot wait for itself: no message is accepted any more, and the end has only
    /// begun. Another call, or the drop of the producer, completes it. Also set when another thread's call is not done by
    /// the deadline.
    pub only_begun: bool,
    /// The process is a child of the one that made the producer: nothing was done.
    pub forked: bool,
    /// Why the client is broken, if one of its threads has died: see [`ErrorKind::Internal`].
    pub broken: Option<String>,
}

impl ProducerReport {
    /// True if every send has its outcome and every broker was told.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self { untaken: self.untaken, ..Self::default() }
    }
}

/// A message that was not accepted, given back with the reason. Nothing of it was sent, and nothing will be called.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rejected {
    /// Why.
    pub error: Error,
    /// The message.
    pub message: Message,
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        rejected.error
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not accepted: {}", self.error)
    }
}

impl std::error::Error for Rejected {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl Producer {
    /// A producer of this group, to be configured. The group names what sends, for operators and for transactions:
    /// letters, digits, `%`, `|`, `-` and `_`.
    pub fn builder(group: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder { group: group.into(), client: ClientChoice::default(), options: Options::default() }
    }

    /// Sends a message and waits until a broker has stored it, or the send timeout has passed.
    ///
    /// # Errors
    ///
    /// What failed, what was tried, and whether the message may be stored all the same: see [`Error::certainty`].
    pub fn send(&self, message: &Message) -> Result<SendResult> {
        self.send_within(message, self.options.send_timeout)
    }

    /// [`send`](Self::send) with a timeout of its own for everything: route, connections and all attempts.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_within(&self, message: &Message, timeout: Duration) -> Result<SendResult> {
        self.send_to_target(message, Target::InTurn, deadline_after(timeout))
    }

    /// Sends to one queue: there is no attempt on another broker, and none at all once the message may be stored, so
    /// that messages keep their order. Where the queue's number is negative, the broker chooses one of its queues; the
    /// result tells which.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`ErrorKind::NoBroker`] when the queue cannot be written.
    pub fn send_to(&self, message: &Message, queue: &MessageQueue) -> Result<SendResult> {
        check_topic_of(message, queue)?;
        self.send_to_target(message, Target::Queue(queue.clone()), self.deadline())
    }

    /// Sends to the queue whose index `select` returns, of those that can be written now; see [`by_hash`] for messages
    /// that belong together. Otherwise as [`send_to`](Self::send_to).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`ErrorKind::BadSelection`] when the index is none of a queue, or `select` panics.
    pub fn send_with<S>(&self, message: &Message, select: S) -> Result<SendResult>
    where
        S: FnOnce(&[MessageQueue], &Message) -> usize,
    {
        let deadline = self.deadline();
        let _call = self.enter_call()?;
        let queue = self.sender.select_queue(message, deadline, select)?;
        self.send_to_target(message, Target::Queue(queue), deadline)
    }

    /// Sends without waiting for the broker; `callback` gets the result, exactly once, on a thread `rmq-callback-N`.
    ///
    /// When the in-flight window is full the call waits for room until the send timeout, or fails at once with
    /// [`ProducerBuilder::fail_when_full`]. The first such call of a client starts its callback threads.
    ///
    /// # Errors
    ///
    /// When the message is not accepted: it comes back, and `callback` is not called.
    pub fn send_async<F>(&self, message: Message, callback: F) -> std::result::Result<(), Rejected>
    where
        F: FnOnce(Result<SendResult>) + Send + 'static,
    {
        self.begin_with_callback(message, Target::InTurn, callback)
    }

    /// [`send_async`](Self::send_async) to one queue; see [`send_to`](Self::send_to).
    ///
    /// Asynchronous sends to one queue are stored and completed in the order of the calls: each is begun when the one
    /// before it is over, with all its attempts. That costs a round trip a message: where order does not matter,
    /// [`send_async`](Self::send_async) has many under way at once, and several queues have as many lanes.
    ///
    /// # Errors
    ///
    /// As [`send_async`](Self::send_async).
    pub fn send_async_to<F>(
        &self,
        message: Message,
        queue: &MessageQueue,
        callback: F,
    ) -> std::result::Result<(), Rejected>
    where
        F: FnOnce(Result<SendResult>) + Send + 'static,
    {
        if let Err(error) = check_topic_of(&message, queue) {
            return Err(Rejected { error, message });
        }
        self.begin_with_callback(message, Target::Queue(queue.clone()), callback)
    }

    /// [`send_async`](Self::send_async) to the queue that `select` chooses; see [`send_with`](Self::send_with), and for the
    /// order and its price [`send_async_to`](Self::send_async_to). While the topic's route is not known yet, the call waits
    /// for it.
    ///
    /// # Errors
    ///
    /// As [`send_async`](Self::send_async).
    pub fn send_async_with<S, F>(&self, message: Message, select: S, callback: F) -> std::result::Result<(), Rejected>
    where
        S: FnOnce(&[MessageQueue], &Message) -> usize,
        F: FnOnce(Result<SendResult>) + Send + 'static,
    {
        let selected = self.enter_call().and_then(|_call| self.sender.select_queue(&message, self.deadline(), select));
        match selected {
            Ok(queue) => self.begin_with_callback(message, Target::Queue(queue), callback),
            Err(error) => Err(Rejected { error, message }),
        }
    }

    /// Sends without waiting for the broker; the result goes to `completions` under `token`.
    ///
    /// # Errors
    ///
    /// When the message is not accepted: it comes back, and nothing goes to `completions`.
    pub fn send_tracked(
        &self,
        message: Message,
        token: u64,
        completions: &Completions,
    ) -> std::result::Result<(), Rejected> {
        self.begin_async(message, Target::InTurn, |permit| completions.place(token, permit))
    }

    /// Hands a message to the connection of a broker. There is no answer: whether it arrived is not known. For what may
    /// be lost, such as samples of a measurement.
    ///
    /// # Errors
    ///
    /// When the message is wrong, no broker of the topic is known, or the connection takes no more bytes.
    pub fn send_oneway(&self, message: &Message) -> Result<()> {
        self.send_oneway_to_target(message, Target::InTurn)
    }

    /// [`send_oneway`](Self::send_oneway) to one queue.
    ///
    /// # Errors
    ///
    /// As [`send_oneway`](Self::send_oneway).
    pub fn send_oneway_to(&self, message: &Message, queue: &MessageQueue) -> Result<()> {
        check_topic_of(message, queue)?;
        self.send_oneway_to_target(message, Target::Queue(queue.clone()))
    }

    /// [`send_oneway`](Self::send_oneway) to the queue that `select` chooses.
    ///
    /// # Errors
    ///
    /// As [`send_oneway`](Self::send_oneway), and for the choice as [`send_with`](Self::send_with).
    pub fn send_oneway_with<S>(&self, message: &Message, select: S) -> Result<()>
    where
        S: FnOnce(&[MessageQueue], &Message) -> usize,
    {
        let _call = self.enter_call()?;
        let queue = self.sender.select_queue(message, self.deadline(), select)?;
        self.send_oneway_to_target(message, Target::Queue(queue))
    }

    /// The queues of a topic that can be written now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoRoute`] when the topic does not exist and would not be created, [`ErrorKind::NameServer`] when
    /// nobody could tell.
    pub fn queues(&self, topic: &str) -> Result<Vec<MessageQueue>> {
        let _call = self.enter_call()?;
        let route = self.core().routes.wait(&Arc::from(topic), self.deadline())?;
        Ok(route.publish.iter().map(|publish| publish.queue.clone()).collect())
    }

    /// Waits until messages to these topics could be sent at once: their routes are known, and each broker of them has
    /// answered.
    ///
    /// # Errors
    ///
    /// What is still missing at the deadline.
    pub fn wait_ready(&self, topics: &[&str], timeout: Duration) -> Result<()> {
        let deadline = deadline_after(timeout);
        check_may_wait("wait_ready")?;
        for topic in topics {
            let _call = self.enter_call()?;
            let route = self.core().routes.wait(&Arc::from(*topic), deadline)?;
            let is_heard = |address: &str| {
                // Used at each look, or its broker would be forgotten while it is waited for.
                self.sender.note_use(&route.topic);
                self.core().is_heard(address)
            };
            for queue in &route.publish {
                if !self.core().wait_for(deadline, || is_heard(&queue.address)) {
                    self.core().check_usable()?;
                    let detail = format!("broker {} has not answered yet", queue.queue.broker_name);
                    return Err(Error::new(ErrorKind::Timeout, detail).with_address(&queue.address));
                }
            }
        }
        Ok(())
    }

    /// Messages that were accepted by an asynchronous send and have no outcome yet; none in a forked child.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.core().check_process().map_or(0, |()| self.window.unsettled())
    }

    /// Results of this producer's sends that stand in [`Completions`]: they keep their room in the in-flight window until
    /// they are taken. None in a forked child.
    #[must_use]
    pub fn untaken(&self) -> usize {
        self.core().check_process().map_or(0, |()| self.window.settled())
    }

    /// The client that this producer uses: for other members on the same connections.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Accepts no more messages, waits until those in flight have their outcome, and tells the brokers.
    ///
    /// May be called from any thread and any number of times: the first call ends the producer, and every later one returns
    /// its report. From a callback it only begins the end, and says so. Results that stand in [`Completions`] cost no
    /// waiting.
    pub fn shutdown(&self, timeout: Duration) -> ProducerReport {
        if self.core().check_process().is_err() {
            return ProducerReport { forked: true, ..ProducerReport::default() };
        }
        let deadline = deadline_after(timeout);
        let only_begun = || ProducerReport { only_begun: true, ..ProducerReport::default() };
        if let Some(report) = self.ending.report() {
            return report;
        }
        if self.is_own_thread() {
            self.refuse_sends();
            return only_begun();
        }
        self.ending.run(deadline, || self.end(deadline)).unwrap_or_else(only_begun)
    }

    /// True on threads that an end would wait for.
    fn is_own_thread(&self) -> bool {
        self.core().callbacks.is_current() || is_service_thread()
    }

    fn refuse_sends(&self) {
        self.window.close();
        self.calls.close();
    }

    fn end(&self, deadline: Instant) -> ProducerReport {
        self.refuse_sends();
        let unresolved = self.window.drain(deadline) + self.calls.drain(deadline);
        let brokers_not_told = self.core().part(self.member.id, deadline);
        let report = ProducerReport {
            unresolved,
            untaken: self.untaken(),
            brokers_not_told,
            broken: self.core().broken(),
            ..ProducerReport::default()
        };
        info!("producer {} has ended: {report:?}", self.sender.group());
        report
    }

    fn core(&self) -> &Arc<Core> {
        self.client.core()
    }

    fn deadline(&self) -> Instant {
        deadline_after(self.options.send_timeout)
    }

    fn send_to_target(&self, message: &Message, target: Target, deadline: Instant) -> Result<SendResult> {
        check_may_wait("a synchronous send")?;
        let _call = self.enter_call()?;
        let prepared = self.prepare(message)?;
        self.sender.send(self.sender.begin(prepared, target, deadline))
    }

    fn send_oneway_to_target(&self, message: &Message, target: Target) -> Result<()> {
        check_may_wait("a one-way send")?;
        let _call = self.enter_call()?;
        let prepared = self.prepare(message)?;
        self.sender.send_oneway(self.sender.begin(prepared, target, self.deadline()))
    }

    fn begin_with_callback<F>(&self, message: Message, target: Target, callback: F) -> std::result::Result<(), Rejected>
    where
        F: FnOnce(Result<SendResult>) + Send + 'static,
    {
        let ready = self.core().check_usable().and_then(|()| self.core().callbacks.start(self.deadline()));
        match ready {
            Ok(()) => self.begin_async(message, target, |permit| Callback { callback, permit }),
            Err(error) => Err(Rejected { error, message }),
        }
    }

    fn begin_async<D: Done>(
        &self,
        message: Message,
        target: Target,
        done: impl FnOnce(Permit) -> D,
    ) -> std::result::Result<(), Rejected> {
        let deadline = self.deadline();
        let accepted = self.core().check_usable().and_then(|()| {
            let send = self.sender.begin(self.prepare(&message)?, target, deadline);
            let permit = self.enter_window(send.size(), deadline)?;
            Ok((send, permit))
        });
        match accepted {
            Ok((send, permit)) => {
                self.sender.send_async(send, done(permit));
                Ok(())
            }
            Err(error) => Err(Rejected { error, message }),
        }
    }

    fn prepare(&self, message: &Message) -> Result<Prepared> {
        Prepared::new(message, &self.options.body, &self.core().identity)
    }

    fn enter_call(&self) -> Result<Permit> {
        self.core().check_usable()?;
        self.calls.enter(0, None).map_err(|_| self.not_running())
    }

    fn enter_window(&self, bytes: usize, deadline: Instant) -> Result<Permit> {
        let patience = (!self.options.fail_when_full && !is_service_thread()).then_some(deadline);
        self.window.enter(bytes, patience).map_err(|none| match none {
            NoPermit::Closed => self.not_running(),
            NoPermit::Full => Error::new(
                ErrorKind::WindowFull,
                format!(
                    "{} messages or {} bytes are in flight already; results in Completions count until they are taken",
                    self.options.max_in_flight, self.options.max_in_flight_bytes
                ),
            ),
        })
    }

    fn not_running(&self) -> Error {
        Error::new(ErrorKind::NotRunning, format!("producer {} has been shut down", self.sender.group()))
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("group", self.sender.group())
            .field("client", &self.client)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if self.core().check_process().is_err() {
            return;
        }
        // A callback cannot wait for itself: what can be begun is.
        let grace = if self.is_own_thread() { Duration::ZERO } else { DROP_GRACE };
        let deadline = Instant::now() + grace;
        self.ending.run(deadline, || self.end(deadline));
    }
}

fn check_topic_of(message: &Message, queue: &MessageQueue) -> Result<()> {
    if message.topic() == &*queue.topic {
        return Ok(());
    }
    let detail = format!("a message to {} cannot be sent to queue {queue}", message.topic());
    Err(Error::new(ErrorKind::InvalidMessage, detail))
}

/// A user's callback, which waits for its send.
struct Callback<F> {
    callback: F,
    permit: Permit,
}

impl<F: FnOnce(Result<SendResult>) + Send + 'static> Done for Callback<F> {
    fn done(send: Box<AsyncSend<Self>>) {
        let core = Arc::clone(send.core());
        core.callbacks.submit(send);
    }
}

impl<F: FnOnce(Result<SendResult>) + Send + 'static> Job for AsyncSend<Callback<F>> {
    fn run(self: Box<Self>) {
        let (Callback { callback, permit }, result) = self.into_result();
        // Before the callback: it may send the next message, and must find room for it.
        drop(permit);
        callback(result);
    }
}

/// The producer as its client sees it.
#[derive(Debug)]
struct ProducerMember {
    id: MemberId,
    group: Arc<str>,
    sender: Arc<Sender>,
}

impl Member for ProducerMember {
    fn id(&self) -> MemberId {
        self.id
    }

    fn key(&self) -> MemberKey {
        MemberKey::Producer(Arc::clone(&self.group))
    }

    fn describe(&self, heartbeat: &mut HeartbeatData) {
        heartbeat.producer_data_set.push(ProducerData { group_name: self.group.to_string() });
    }

    fn topics(&self) -> Vec<Arc<str>> {
        self.sender.topics()
    }

    fn forget_idle_topics(&self) {
        self.sender.forget_idle_topics();
    }
}

/// Options of a [`Producer`], checked by [`ProducerBuilder::start`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ProducerBuilder {
    group: String,
    client: ClientChoice,
    options: Options,
}

impl ProducerBuilder {
    client_options!(client_config);

    fn client_config(&mut self) -> &mut ClientConfig {
        self.client.own()
    }

    /// Uses a client that exists, and its connections, instead of one of its own. Not together with options of a
    /// client.
    pub fn client(mut self, client: &Client) -> Self {
        self.client.give(client);
        self
    }

    /// How long a send may take as a whole: route, connections and all attempts. Default 3 s. (Java: `sendMsgTimeout`)
    pub fn send_timeout(mut self, timeout: Duration) -> Self {
        self.options.send_timeout = timeout;
        self
    }

    /// How often a send is tried again after its first attempt, on another broker if there is one. Default 2. (Java:
    /// `retryTimesWhenSendFailed`, `retryTimesWhenSendAsyncFailed`)
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// The broker codes after which a send is tried again. Default: `SYSTEM_ERROR`, `SYSTEM_BUSY`,
    /// `SERVICE_NOT_AVAILABLE`, `TOPIC_NOT_EXIST`, `NO_BUYER_ID` and `NOT_IN_CURRENT_UNIT`. (Java:
    /// `retryResponseCodes`, which has `NO_PERMISSION` too)
    ///
    /// With `FLUSH_DISK_TIMEOUT`, `FLUSH_SLAVE_TIMEOUT` or `SLAVE_NOT_AVAILABLE` among them, a message that is stored less
    /// safely than wanted is sent again too, under the same id, and is then stored twice; when no attempt does better, the
    /// send still ends with a result that says how it is stored. (Java: `retryAnotherBrokerWhenNotStoreOK`)
    pub fn retry_codes(mut self, codes: impl IntoIterator<Item = ResponseCode>) -> Self {
        self.options.retry_codes = RetryCodes::of(codes);
        self
    }

    /// The largest body that is sent, in bytes before compression. Default 4 MiB, which is the brokers' default too.
    /// (Java: `maxMessageSize`)
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.options.body.max_message_size = bytes;
        self
    }

    /// Bodies of at least this many bytes are compressed, and sent so when they become smaller. Default 4096. (Java:
    /// `compressMsgBodyOverHowmuch`)
    pub fn compress_threshold(mut self, bytes: usize) -> Self {
        self.options.body.compress_threshold = bytes;
        self
    }

    /// How bodies are compressed; `None` for not at all. Default zlib, which consumers of every version read. (Java:
    /// `compressType`)
    pub fn compression(mut self, codec: Option<Codec>) -> Self {
        self.options.body.codec = codec;
        self
    }

    /// How hard zlib tries, from 0 to 9. Default 5. (Java: `compressLevel`)
    pub fn compression_level(mut self, level: u32) -> Self {
        self.options.body.compression_level = level;
        self
    }

    /// Messages that may be in flight by asynchronous sends. Default 10,000. (Java 5: `backPressureForAsyncSendNum`)
    pub fn max_in_flight(mut self, messages: usize) -> Self {
        self.options.max_in_flight = messages;
        self
    }

    /// Bytes of them. Default 64 MiB. (Java 5: `backPressureForAsyncSendSize`)
    pub fn max_in_flight_bytes(mut self, bytes: usize) -> Self {
        self.options.max_in_flight_bytes = bytes;
        self
    }

    /// Whether an asynchronous send fails at once when the window is full, rather than wait for room until its
    /// deadline. Default false.
    pub fn fail_when_full(mut self, fail: bool) -> Self {
        self.options.fail_when_full = fail;
        self
    }

    /// Starts the producer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] names the option that is wrong, [`ErrorKind::DuplicateGroup`] says that the client
    /// has a producer of this group already, [`ErrorKind::Resource`] that the system refuses a thread. Nothing is left
    /// behind then.
    pub fn start(self) -> Result<Producer> {
        check_group(&self.group).map_err(|error| invalid(format!("group {:?} cannot be: {error}", self.group)))?;
        if self.group == DEFAULT_PRODUCER_GROUP {
            return Err(invalid(format!(
                "group {DEFAULT_PRODUCER_GROUP} is everybody's default: choose one of your own"
            )));
        }
        self.options.check()?;
        let client = self.client.take()?;
        let options = self.options;
        let group: Arc<str> = Arc::from(self.group);
        let core = Arc::clone(client.core());
        let id = core.new_member_id();
        let sender = Sender::new(core, Arc::clone(&group), options.retries, options.retry_codes.clone());
        let sender = Arc::new(sender);
        let member = Arc::new(ProducerMember { id, group, sender: Arc::clone(&sender) });
        client.core().join(Arc::clone(&member) as _)?;
        let window = Window::new(options.max_in_flight, options.max_in_flight_bytes);
        let calls = Window::new(usize::MAX, usize::MAX);
        Ok(Producer { client, sender, member, ending: Ending::new(), options, window, calls })
    }
}

impl Options {
    fn check(&self) -> Result<()> {
        if self.send_timeout < Duration::from_millis(1) {
            return Err(invalid(format!("send_timeout is {:?}, it must be 1 ms or longer", self.send_timeout)));
        }
        if self.retries > 100 {
            return Err(invalid(format!("retries is {}, it must lie in 0..=100", self.retries)));
        }
        if self.max_in_flight == 0 || self.max_in_flight_bytes == 0 {
            return Err(invalid("max_in_flight and max_in_flight_bytes must not be 0"));
        }
        if self.body.max_message_size == 0 || self.body.max_message_size > MAX_BODY {
            let size = self.body.max_message_size;
            return Err(invalid(format!("max_message_size is {size}, it must lie in 1..={MAX_BODY}")));
        }
        if let Some(codec) = self.body.codec.filter(|codec| !codec.is_built()) {
            return Err(invalid(format!("compression with {} needs the crate's feature of that name", codec.name())));
        }
        if self.body.compression_level > 9 {
            return Err(invalid(format!("compression_level is {}, it must lie in 0..=9", self.body.compression_level)));
        }
        Ok(())
    }
}

/// A frame with its headers and properties stays below what peers accept.
const MAX_BODY: usize = crate::wire::MAX_FRAME_LENGTH - 64 * 1024;
