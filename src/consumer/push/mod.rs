//! [`PushConsumer`]: its options, its start and its end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;

use crate::client::config::{ClientConfig, client_options, invalid};
use crate::client::ending::Ending;
use crate::client::identity::wall_clock_millis;
use crate::client::{Client, ClientChoice, Core};
use crate::deadline::deadline_after;
use crate::error::{Error, ErrorKind, Result};
use crate::logging::info;
use crate::message::properties::PropertyViolation;
use crate::message::{MessageExt, MessageQueue};
use crate::producer::send::Sender;
use crate::repeats::Repeats;
use crate::wire::body::{SUBSCRIBE_ALL, SubscriptionData};
use crate::wire::name::{
    DEFAULT_CONSUMER_GROUP, INNER_PRODUCER_GROUP, check_consumer_group, check_topic, is_system_group, retry_topic,
};
use crate::wire::version::release_name;
use crate::worker::{check_may_wait, is_service_thread};

use super::member::{Consumer, ConsumerMember, Options, Subscription};
use crate::consumer::assign::allocate::AllocateStrategy;
use crate::consumer::assign::service::{RebalanceEvent, RebalanceThread};
use crate::consumer::deliver::listener::{ConcurrentListener, Listener, each};
use crate::consumer::deliver::pool::Pool;
use crate::consumer::deliver::retry::RetryLimit;
use crate::consumer::offset::driver::{OffsetDriver, Window};
use crate::consumer::pull::flow::FlowLimits;
use crate::consumer::pull::process_queue::WindowSummary;
use crate::consumer::pull::service::{PullEvent, PullThread};
use crate::consumer::start::ConsumeFromWhere;

/// How long a consumer that is dropped without `shutdown` waits for its listeners.
const DROP_GRACE: Duration = Duration::from_secs(1);
/// Inflated bodies may not be larger than this.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Which messages of a topic a consumer wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterExpression {
    wanted: Wanted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// In the form of the wire.
    Expression(String),
    Tags(Vec<String>),
}

impl FilterExpression {
    /// All of them.
    #[must_use]
    pub fn all() -> Self {
        Self::expression(SUBSCRIBE_ALL)
    }

    /// Those with one of these tags, of which there must be one at least. The broker compares hashes of tags, this library
    /// the tags themselves.
    #[must_use]
    pub fn tags<T: AsRef<str>>(tags: impl IntoIterator<Item = T>) -> Self {
        Self { wanted: Wanted::Tags(tags.into_iter().map(|tag| tag.as_ref().to_owned()).collect()) }
    }

    /// The Java client's form of the same: `A || B`, and `*` or nothing for all. What looks like a condition on properties
    /// is refused at start.
    #[must_use]
    pub fn expression(expression: impl Into<String>) -> Self {
        Self { wanted: Wanted::Expression(expression.into()) }
    }

    /// In the form of the wire.
    ///
    /// # Errors
    ///
    /// Why it cannot mean what it says, and what to write instead.
    fn checked(&self) -> std::result::Result<String, String> {
        match &self.wanted {
            Wanted::Tags(tags) if tags.is_empty() => {
                Err("the list of tags is empty: name one, or subscribe to FilterExpression::all()".to_owned())
            }
            Wanted::Tags(tags) => match tags.iter().find(|tag| PropertyViolation::of_tag(tag).is_some()) {
                Some(tag) => Err(format!(
                    "no message can have the tag {tag:?}: leave out blanks at its ends and \"||\"; FilterExpression::all() is \
                     for all messages"
                )),
                None => Ok(tags.join(" || ")),
            },
            Wanted::Expression(expression) if is_a_condition(expression) => Err(format!(
                "{expression:?} looks like a condition, and only tags are compared: write them as in \"A || B\", or give tags \
                 with such characters to FilterExpression::tags([..])"
            )),
            Wanted::Expression(expression) => Ok(expression.clone()),
        }
    }
}

/// Whether a tag expression was rather meant as one on properties, or has another operator than `||`.
fn is_a_condition(expression: &str) -> bool {
    const MARKS: [&str; 9] = ["'", "\"", "=", "<", ">", "(", ")", "&&", "|"];
    const WORDS: [&str; 8] = ["AND", "OR", "NOT", "IN", "IS", "LIKE", "BETWEEN", "CONTAINS"];
    expression.split("||").map(str::trim).any(|tag| {
        let has_word = |word: &str| WORDS.iter().any(|known| known.eq_ignore_ascii_case(word));
        // A tag may be called so, but hardly be one of several words.
        let is_sentence = tag.contains(char::is_whitespace) && tag.split_whitespace().any(has_word);
        is_sentence || tag.starts_with('!') || MARKS.iter().any(|mark| tag.contains(mark))
    })
}

impl From<&str> for FilterExpression {
    fn from(expression: &str) -> Self {
        Self::expression(expression)
    }
}

/// Gets messages of subscribed topics from the brokers and hands them to a listener, on threads of its own.
///
/// The members of a group share the queues of each topic. A message counts as consumed when the listener returns
/// success; otherwise it is delivered again later, on whichever member, until the group's maximum is reached, and then
/// goes to the dead-letter queue `%DLQ%<group>`. Each message is delivered at least once: after a crash, or when queues
/// change hands, some come twice.
///
/// ```no_run
/// use std::time::Duration;
/// use rocketmq_sync::{FilterExpression, MessageExt, PushConsumer};
///
/// # fn main() -> rocketmq_sync::Result<()> {
/// let consumer = PushConsumer::builder("billing")
///     .name_servers(["127.0.0.1:9876"])
///     .subscribe("TopicTest", FilterExpression::tags(["A", "B"]))
///     .each(|message: &MessageExt| -> Result<(), std::convert::Infallible> {
///         println!("{} {:?}", message.msg_id(), message.body());
///         Ok(())
///     })
///     .start()?;
/// // ...
/// let report = consumer.shutdown(Duration::from_secs(10));
/// assert!(report.is_clean(), "{report:?}");
/// # Ok(())
/// # }
/// ```
pub struct PushConsumer {
    consumer: Arc<Consumer>,
    ending: Ending<ConsumerReport>,
    threads: Arc<ConsumerThreads>,
    client: Client,
}

/// What the consumers of one client share; ends with the last of them.
struct ConsumerThreads {
    rebalance: RebalanceThread,
    pull: PullThread,
}

/// Outcome of [`PushConsumer::shutdown`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerReport {
    /// Listeners that were still running at the deadline. Their threads are left behind, and what they return is
    /// ignored: their messages are delivered again.
    pub listeners_running: usize,
    /// Messages that were pulled and are not acknowledged: not begun, still running, or failed and not handed back. The
    /// brokers deliver them again.
    pub messages_left: usize,
    /// Those of them that failed and that no broker took back by the deadline: they are delivered again, and their failure
    /// is not counted.
    pub failed_not_handed_back: usize,
    /// Offsets of which no broker has confirmed that it stored them: what was consumed there may be delivered again.
    pub offsets_not_stored: Vec<MessageQueue>,
    /// Brokers that did not confirm by the deadline that this consumer is gone; they forget it within two minutes.
    pub brokers_not_told: Vec<String>,
    /// The call came from one of the consumer's own threads, which cannot wait for itself: the end has only begun.
    /// Another call, or the drop of the consumer, completes it. Also set when another thread's call is not done by the
    /// deadline.
    pub only_begun: bool,
    /// The process is a child of the one that made the consumer: nothing was done.
    pub forked: bool,
    /// Why the client is broken, if one of its threads has died: see [`ErrorKind::Internal`].
    pub broken: Option<String>,
}

impl ConsumerReport {
    /// True if every message that was begun is acknowledged or handed back, and everything else was done as well.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self { messages_left: self.messages_left, ..Self::default() }
    }
}

impl PushConsumer {
    /// A consumer of this group, to be configured. All members of a group must subscribe to the same topics.
    pub fn builder(group: impl Into<String>) -> PushConsumerBuilder {
        PushConsumerBuilder {
            group: group.into(),
            client: ClientChoice::default(),
            subscriptions: BTreeMap::new(),
            listener: None,
            listeners: 0,
            threads: 20,
            settings: Settings::default(),
        }
    }

    /// Waits until this consumer has its share of the queues of every topic it subscribes to.
    ///
    /// # Errors
    ///
    /// What is still missing at the deadline, for each topic; [`ErrorKind::Internal`] when a thread of the client has died.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        self.core().check_usable()?;
        check_may_wait("wait_ready")?;
        let deadline = deadline_after(timeout);
        if self.core().wait_for(deadline, || self.missing().is_empty()) {
            return Ok(());
        }
        self.core().check_usable()?;
        Err(Error::new(ErrorKind::Timeout, format!("{} is not ready: {}", self.group(), self.missing().join("; "))))
    }

    /// The topics whose queues have not been shared out yet, each with the reason. The group's retry topic is not
    /// among them: it is empty until something fails.
    fn missing(&self) -> Vec<String> {
        let decided = self.consumer.decided.lock();
        let subscribed =
            self.consumer.subscriptions.iter().filter(|subscription| subscription.topic != self.consumer.retry_topic);
        subscribed
            .filter_map(|Subscription { topic, .. }| match decided.get(topic) {
                Some(Ok(_)) => None,
                Some(Err(trouble)) => Some(format!("{topic}: {trouble}")),
                None => Some(format!("{topic}: not looked up yet")),
            })
            .collect()
    }

    /// The queues that this consumer pulls from now; none in a forked child.
    #[must_use]
    pub fn queues(&self) -> Vec<MessageQueue> {
        self.core().check_process().map_or_else(|_| Vec::new(), |()| self.consumer.offsets.queues())
    }

    /// Why a queue is, or is not, consumed at this moment, and which release its broker runs: a sentence for people.
    /// `None` for a queue that is not this consumer's.
    #[must_use]
    pub fn explain(&self, queue: &MessageQueue) -> Option<String> {
        if let Err(forked) = self.core().check_process() {
            return Some(forked.to_string());
        }
        let (words, said) = bounded(1);
        let (consumer, asked) = (self.consumer.id, queue.clone());
        self.consumer.pull.send(PullEvent::Explain { consumer, queue: asked, words }).ok()?;
        let text = said.recv_timeout(Duration::from_secs(1)).ok().flatten()?;
        let master = self.core().routes.master_of(queue);
        Some(match master.and_then(|master| self.core().heartbeats.version(&master)) {
            Some(version) => format!("{text}; {} runs {}", queue.broker_name, release_name(version)),
            None => text,
        })
    }

    /// Pulls nothing more until [`resume`](Self::resume). The queues stay this consumer's, and what was pulled already is
    /// still consumed. (Java: `suspend`)
    pub fn pause(&self) {
        self.tell_table(PullEvent::Pause(self.consumer.id));
    }

    /// Pulls again after a [`pause`](Self::pause).
    pub fn resume(&self) {
        self.tell_table(PullEvent::Resume(self.consumer.id));
    }

    /// In a forked child the channel may be locked for ever by a thread that only the parent has.
    fn tell_table(&self, event: PullEvent) {
        if self.core().check_process().is_ok() {
            let _ = self.consumer.pull.send(event);
        }
    }

    /// The client that this consumer uses.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Ends the consumer: pulls no more, begins no more messages, waits until running listeners have finished and what
    /// failed is handed back, stores the offsets and waits for the brokers' word on that, and tells the brokers.
    ///
    /// May be called from any thread and any number of times: the first call ends the consumer, and every later one returns
    /// its report. From a listener or a callback it only begins the end, and says so.
    pub fn shutdown(&self, timeout: Duration) -> ConsumerReport {
        if self.core().check_process().is_err() {
            return ConsumerReport { forked: true, ..ConsumerReport::default() };
        }
        let deadline = deadline_after(timeout);
        let only_begun = || ConsumerReport { only_begun: true, ..ConsumerReport::default() };
        if let Some(report) = self.ending.report() {
            return report;
        }
        if self.is_own_thread() {
            self.begin_end();
            return only_begun();
        }
        self.ending.run(deadline, || self.end(deadline)).unwrap_or_else(only_begun)
    }

    /// True on threads that an end would wait for.
    fn is_own_thread(&self) -> bool {
        self.consumer.pool.is_current() || self.core().callbacks.is_current() || is_service_thread()
    }

    /// Begins the end; what is returned ends when both services have let go of the consumer. Any number of times.
    fn begin_end(&self) -> Receiver<()> {
        self.consumer.stopping.store(true, Ordering::Release);
        let done = self.stop_pulling();
        self.drain_windows();
        self.consumer.pool.close();
        done
    }

    fn end(&self, deadline: Instant) -> ConsumerReport {
        let done = self.begin_end();
        // Both threads drop their end when they no longer know the consumer; no window is opened after that.
        let _ = done.recv_deadline(deadline);
        let windows = self.drain_windows();
        let listeners_running = self.consumer.pool.join(deadline).max(self.consumer.pool.running());
        self.core()
            .wait_for(deadline, || windows.iter().all(|window| window.messages.lock().summary().sending_back == 0));
        let offsets_not_stored = self.consumer.offsets.store_until(deadline);
        let left: Vec<_> = windows.iter().map(|window| window.messages.lock().summary()).collect();
        let brokers_not_told = self.core().part(self.consumer.id, deadline);
        self.consumer.offsets.close_all();
        let report = ConsumerReport {
            listeners_running,
            messages_left: left.iter().map(|summary| summary.unresolved).sum(),
            failed_not_handed_back: left.iter().map(WindowSummary::failed).sum(),
            offsets_not_stored,
            brokers_not_told,
            broken: self.core().broken(),
            ..ConsumerReport::default()
        };
        info!("consumer {} has ended: {report:?}", self.group());
        report
    }

    /// Lets nothing more begin in the windows there are.
    fn drain_windows(&self) -> Vec<Arc<Window>> {
        let windows = self.consumer.offsets.all_windows();
        for window in &windows {
            window.messages.lock().drain();
        }
        windows
    }

    /// Takes the consumer out of both services; what is returned ends when both have let go of it.
    fn stop_pulling(&self) -> Receiver<()> {
        let (done, ended) = bounded(0);
        let consumer = self.consumer.id;
        let _ = self.consumer.rebalance.send(RebalanceEvent::End { consumer, done: done.clone() });
        let _ = self.consumer.pull.send(PullEvent::End { consumer, done });
        ended
    }

    fn core(&self) -> &Arc<Core> {
        self.client.core()
    }

    fn group(&self) -> &str {
        &self.consumer.group
    }
}

impl fmt::Debug for PushConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushConsumer")
            .field("group", &self.consumer.group)
            .field("client", &self.client)
            .field("queues", &self.queues().len())
            .finish_non_exhaustive()
    }
}

impl Drop for PushConsumer {
    fn drop(&mut self) {
        if self.core().check_process().is_err() {
            // A child of the process: the threads and their channels are the parent's.
            std::mem::forget(Arc::clone(&self.threads));
            return;
        }
        // A thread of the consumer's own cannot wait for itself: what can be begun is.
        let grace = if self.is_own_thread() { Duration::ZERO } else { DROP_GRACE };
        let deadline = Instant::now() + grace;
        self.ending.run(deadline, || self.end(deadline));
    }
}

#[derive(Clone, Debug)]
struct Settings {
    consume_from: ConsumeFromWhere,
    strategy: AllocateStrategy,
    pull_batch: usize,
    consume_batch: usize,
    /// The listener is one of single messages: each has its own verdict, and no other waits for it.
    each_alone: bool,
    flow: FlowLimits,
    max_reconsume_times: Option<u32>,
    consume_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            consume_from: ConsumeFromWhere::Last,
            strategy: AllocateStrategy::default(),
            pull_batch: 32,
            consume_batch: 1,
            each_alone: false,
            flow: FlowLimits::default(),
            max_reconsume_times: None,
            consume_timeout: Duration::from_secs(15 * 60),
        }
    }
}

/// Options of a [`PushConsumer`], checked by [`PushConsumerBuilder::start`].
#[must_use]
pub struct PushConsumerBuilder {
    group: String,
    client: ClientChoice,
    subscriptions: BTreeMap<String, FilterExpression>,
    listener: Option<Listener>,
    listeners: usize,
    threads: usize,
    settings: Settings,
}

impl fmt::Debug for PushConsumerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushConsumerBuilder")
            .field("group", &self.group)
            .field("subscriptions", &self.subscriptions)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl PushConsumerBuilder {
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

    /// Adds a topic; a second call for the same topic replaces the first. At least one is needed.
    pub fn subscribe(mut self, topic: impl Into<String>, filter: impl Into<FilterExpression>) -> Self {
        self.subscriptions.insert(topic.into(), filter.into());
        self
    }

    /// The listener: called with batches of messages of one queue, on several threads at once.
    pub fn concurrently(mut self, listener: impl ConcurrentListener) -> Self {
        self.listener = Some(Arc::new(listener));
        self.listeners += 1;
        self
    }

    /// The listener for the usual case: one message at a time, whatever [`consume_batch`](Self::consume_batch) says; an
    /// error is the reason of a retry of that message, and is logged.
    pub fn each<F, E>(mut self, listener: F) -> Self
    where
        F: Fn(&MessageExt) -> std::result::Result<(), E> + Send + Sync + 'static,
        E: fmt::Display + 'static,
    {
        self.settings.each_alone = true;
        self.concurrently(each(listener))
    }

    /// Where the group begins in queues for which it has no offset yet. Default: at the end, [`ConsumeFromWhere::Last`].
    /// (Java: `consumeFromWhere`, `consumeTimestamp`)
    pub fn consume_from(mut self, start: ConsumeFromWhere) -> Self {
        self.settings.consume_from = start;
        self
    }

    /// How the members of the group share the queues; all must use the same way. Default: in equal parts of neighbouring
    /// queues. (Java: `allocateMessageQueueStrategy`)
    pub fn allocate_strategy(mut self, strategy: AllocateStrategy) -> Self {
        self.settings.strategy = strategy;
        self
    }

    /// Threads that run the listener, from 1 to 1000. Default 20. (Java: `consumeThreadMin`, `consumeThreadMax`)
    pub fn consume_threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// The most messages a listener of batches gets at once, from 1 to 1024. Default 1. (Java:
    /// `consumeMessageBatchMaxSize`)
    pub fn consume_batch(mut self, messages: usize) -> Self {
        self.settings.consume_batch = messages;
        self
    }

    /// The most messages asked for in one pull, from 1 to 1024; brokers give 32 by default. Default 32. (Java:
    /// `pullBatchSize`)
    pub fn pull_batch(mut self, messages: usize) -> Self {
        self.settings.pull_batch = messages;
        self
    }

    /// Unresolved messages of one queue above which it is not pulled, from 1 to 65535. Default 1000. (Java:
    /// `pullThresholdForQueue`)
    pub fn max_cached_messages(mut self, messages: usize) -> Self {
        self.settings.flow.messages = messages;
        self
    }

    /// Bytes that the messages of one queue hold in memory above which it is not pulled: bodies and properties as they came,
    /// those of a reply together until its last message is resolved. Default 100 MiB. (Java:
    /// `pullThresholdSizeForQueue`, of bodies alone)
    pub fn max_cached_bytes(mut self, bytes: usize) -> Self {
        self.settings.flow.bytes = bytes;
        self
    }

    /// Offsets between the first and the last unresolved message of a queue above which it is not pulled, from 1 to
    /// 65535. Default 2000. (Java: `consumeConcurrentlyMaxSpan`)
    pub fn max_span(mut self, offsets: u16) -> Self {
        self.settings.flow.span = i64::from(offsets);
        self
    }

    /// How often a message is delivered again before it goes to the dead-letter queue. Default 16. (Java:
    /// `maxReconsumeTimes`)
    pub fn max_reconsume_times(mut self, times: u32) -> Self {
        self.settings.max_reconsume_times = Some(times);
        self
    }

    /// A message that waits this long for a thread goes back to the broker; a listener that takes this long is named in
    /// the log, and its message stays. Default 15 minutes. (Java: `consumeTimeout`, which sends running ones back too)
    pub fn consume_timeout(mut self, timeout: Duration) -> Self {
        self.settings.consume_timeout = timeout;
        self
    }

    /// Starts the consumer. Topics, name servers and brokers that cannot be reached now are found when they can; see
    /// [`PushConsumer::wait_ready`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] names the option that is missing or wrong, [`ErrorKind::DuplicateGroup`] says that
    /// the client has a consumer of this group already, [`ErrorKind::Resource`] that the system refuses a thread.
    /// Nothing is left behind then.
    pub fn start(self) -> Result<PushConsumer> {
        let (subscriptions, listener) = self.check()?;
        let client = self.client.take()?;
        let core = Arc::clone(client.core());
        let threads = core.consumer_threads(|| {
            let pull = PullThread::start(&core.threads)?;
            let rebalance = RebalanceThread::start(&core.threads)?;
            Ok(Arc::new(ConsumerThreads { rebalance, pull }))
        })?;
        let group: Arc<str> = Arc::from(&*self.group);
        let consumer = Arc::new(Consumer {
            id: core.new_member_id(),
            pool: Pool::start(&core.threads, self.threads)?,
            publisher: Arc::new(Sender::new(
                Arc::clone(&core),
                Arc::from(INNER_PRODUCER_GROUP),
                2,
                crate::producer::RetryCodes::default(),
            )),
            pull: threads.pull.events().clone(),
            rebalance: threads.rebalance.events().clone(),
            retry_topic: Arc::from(retry_topic(&self.group)),
            group: Arc::clone(&group),
            subscriptions,
            options: self.settings.options(),
            listener,
            offsets: OffsetDriver::new(Arc::clone(&core), group),
            decided: Mutex::default(),
            retry_search: Mutex::default(),
            repeats: Repeats::default(),
            stopping: AtomicBool::new(false),
            core,
        });
        // From here on the group is taken; a consumer that cannot have it has told nobody of itself.
        client.core().join(Arc::new(ConsumerMember(Arc::clone(&consumer))))?;
        let started = PushConsumer { consumer, ending: Ending::new(), threads, client };
        started.begin();
        Ok(started)
    }

    fn check(&self) -> Result<(Vec<Subscription>, Listener)> {
        check_consumer_group(&self.group)
            .map_err(|error| invalid(format!("group {:?} cannot be: {error}", self.group)))?;
        if self.group == DEFAULT_CONSUMER_GROUP {
            return Err(invalid(format!(
                "group {DEFAULT_CONSUMER_GROUP} is everybody's default: choose one of your own"
            )));
        }
        if is_system_group(&self.group) {
            return Err(invalid(format!("group {} is named as those that brokers use for themselves", self.group)));
        }
        if self.subscriptions.is_empty() {
            return Err(invalid("no subscription: name at least one topic with subscribe(topic, filter)"));
        }
        let listener = match (&self.listener, self.listeners) {
            (None, _) => return Err(invalid("no listener: give one with each(...) or concurrently(...)")),
            (Some(listener), 1) => Arc::clone(listener),
            (Some(_), more) => return Err(invalid(format!("{more} listeners are given: exactly one is needed"))),
        };
        check_range("consume_threads", self.threads, 1..=1000)?;
        self.settings.check()?;
        let version = wall_clock_millis();
        let mut subscriptions = Vec::new();
        for (topic, filter) in &self.subscriptions {
            check_topic(topic).map_err(|error| invalid(format!("topic {topic:?} cannot be: {error}")))?;
            let expression = filter.checked().map_err(|why| invalid(format!("filter of topic {topic}: {why}")))?;
            subscriptions.push(subscription(topic, &expression, version)?);
        }
        let own = retry_topic(&self.group);
        subscriptions.retain(|subscription| *subscription.topic != *own);
        subscriptions.push(subscription(&own, SUBSCRIBE_ALL, version)?);
        Ok((subscriptions, listener))
    }
}

impl PushConsumer {
    /// Hands the new consumer to the services, and asks for its routes.
    fn begin(&self) {
        let consumer = &self.consumer;
        let _ = consumer.pull.send(PullEvent::Begin(Arc::clone(consumer)));
        let _ = consumer.rebalance.send(RebalanceEvent::Begin(Arc::clone(consumer)));
        for subscription in &consumer.subscriptions {
            self.core().refresh_route(&subscription.topic);
        }
    }
}

impl Settings {
    fn check(&self) -> Result<()> {
        check_range("consume_batch", self.consume_batch, 1..=1024)?;
        check_range("pull_batch", self.pull_batch, 1..=1024)?;
        check_range("max_cached_messages", self.flow.messages, 1..=65535)?;
        check_range("max_cached_bytes", self.flow.bytes, 1..=1024 * 1024 * 1024)?;
        check_range("max_span", usize::try_from(self.flow.span).unwrap_or(0), 1..=65535)?;
        if self.consume_timeout < Duration::from_secs(1) {
            return Err(invalid(format!("consume_timeout is {:?}, it must be 1 s or longer", self.consume_timeout)));
        }
        Ok(())
    }

    fn options(self) -> Options {
        Options {
            consume_from: self.consume_from,
            strategy: self.strategy,
            pull_batch: self.pull_batch,
            consume_batch: if self.each_alone { 1 } else { self.consume_batch },
            flow: self.flow,
            retry_limit: RetryLimit::new(self.max_reconsume_times),
            consume_timeout: self.consume_timeout,
            max_body: MAX_BODY,
        }
    }
}

fn check_range(name: &str, value: usize, range: std::ops::RangeInclusive<usize>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(invalid(format!("{name} is {value}, it must lie in {range:?}")))
}

fn subscription(topic: &str, expression: &str, version: i64) -> Result<Subscription> {
    let data = SubscriptionData::of_tags(topic, expression, version)
        .map_err(|_| invalid(format!("the filter {expression:?} of topic {topic} names no tag")))?;
    Ok(Subscription { topic: Arc::from(topic), data })
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::checks::vectors::vectors;
    use crate::consumer::deliver::listener::{ConsumeContext, ConsumeStatus};

    /// A consumer that lacks nothing but a name server, which is the last thing that `start` looks for.
    fn complete() -> PushConsumerBuilder {
        PushConsumer::builder("G")
            .subscribe("T", "*")
            .each(|_: &MessageExt| -> std::result::Result<(), &str> { Ok(()) })
    }

    fn complaint(builder: PushConsumerBuilder) -> String {
        builder.start().unwrap_err().to_string()
    }

    /// Whether `start` complains of this option when it has this value.
    fn is_refused(option: &str, value: usize) -> bool {
        let builder = complete();
        let (name, builder) = match option {
            "consumeThreadMin" | "consumeThreadMax" => ("consume_threads", builder.consume_threads(value)),
            "consumeConcurrentlyMaxSpan" => match u16::try_from(value) {
                Ok(span) => ("max_span", builder.max_span(span)),
                // No such value can be given.
                Err(_) => return true,
            },
            "pullThresholdForQueue" => ("max_cached_messages", builder.max_cached_messages(value)),
            "pullThresholdSizeForQueue" => ("max_cached_bytes", builder.max_cached_bytes(value * 1024 * 1024)),
            "consumeMessageBatchMaxSize" => ("consume_batch", builder.consume_batch(value)),
            "pullBatchSize" => ("pull_batch", builder.pull_batch(value)),
            other => panic!("no option is {other}"),
        };
        let words = complaint(builder);
        assert!(words.contains(name) || words.contains("name server"), "{words}");
        words.contains(name)
    }

    #[test]
    fn life_09_options_have_the_ranges_of_the_java_client() {
        // Of options that are not there yet: limits of a whole topic, and a pause between pulls.
        let not_ours = ["pullThresholdForTopic", "pullThresholdSizeForTopic", "pullInterval"];
        let mut ranges = vectors("FLOW-003").remove(0)["expected"].as_object().unwrap().clone();
        assert!(not_ours.iter().all(|name| ranges.remove(*name).is_some()));
        for (option, range) in ranges {
            let bound = |end: usize| usize::try_from(range[end].as_u64().unwrap()).unwrap();
            let (least, most) = (bound(0), bound(1));
            let refused = [least - 1, least, most, most + 1].map(|value| is_refused(&option, value));
            assert_eq!(refused, [true, false, false, true], "{option}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_java_client() {
        let expected = vectors("DEFAULT-002").remove(0)["expected"].clone();
        let builder = complete();
        let settings = &builder.settings;
        let ours = json!({
            "consumeThreadMin": builder.threads,
            "consumeThreadMax": builder.threads,
            "consumeConcurrentlyMaxSpan": settings.flow.span,
            "pullThresholdForQueue": settings.flow.messages,
            "pullThresholdSizeForQueue": settings.flow.bytes / (1024 * 1024),
            "consumeMessageBatchMaxSize": settings.consume_batch,
            "pullBatchSize": settings.pull_batch,
            "consumeTimeoutMinutes": settings.consume_timeout.as_secs() / 60,
            "maxReconsumeTimes": settings.max_reconsume_times.map_or(-1, i64::from),
            "consumeFromWhere": match settings.consume_from {
                ConsumeFromWhere::Last => "CONSUME_FROM_LAST_OFFSET",
                _ => "another",
            },
        });
        for (name, value) in ours.as_object().unwrap() {
            assert_eq!(expected[name], *value, "{name}");
        }
        let rest: Map<String, Value> =
            expected.as_object().unwrap().clone().into_iter().filter(|(name, _)| ours.get(name).is_none()).collect();
        // Of options that are not there yet; without them it is as these say, and a time must be given.
        let not_ours = json!({
            "messageModel": "CLUSTERING",
            "pullThresholdForTopic": -1,
            "pullThresholdSizeForTopic": -1,
            "pullInterval": 0,
            "suspendCurrentQueueTimeMillis": 1000,
            "consumeTimestamp": "30 minutes before start",
        });
        assert_eq!(Value::from(rest), not_ours);
    }

    #[test]
    fn filters_that_cannot_mean_what_they_say_are_refused_with_what_to_write() {
        let told = |filter: FilterExpression| complaint(complete().subscribe("T", filter));
        let words = told(FilterExpression::tags(Vec::<String>::new()));
        assert!(words.contains("list of tags is empty") && words.contains("all()"), "{words}");
        for tag in ["", " ", "A ", "A||B", "*"] {
            let words = told(FilterExpression::tags(["B", tag]));
            assert!(words.contains(&format!("{tag:?}")) && words.contains("topic T"), "{words}");
        }
        for condition in [
            "a > 5",
            "colour = 'blue'",
            "\"A\"",
            "(A)",
            "A && B",
            "A | B",
            "A|||B",
            "!A",
            "A OR B",
            "a is not null",
            "a between 1 and 5",
            "A || b in x",
        ] {
            let words = told(FilterExpression::expression(condition));
            assert!(words.contains("looks like a condition") && words.contains("A || B"), "{condition}: {words}");
        }
        for tags in ["A", "A || B", "A||B", "*", "", "OR", "has this", "标签", "a-b_c.d%"] {
            let words = told(FilterExpression::expression(tags));
            assert!(words.contains("name server"), "{tags}: {words}");
        }
        let words = told(FilterExpression::tags(["a > 5", "made in china"]));
        assert!(words.contains("name server"), "a tag in a list is what it is: {words}");
        assert!(told(FilterExpression::expression("||")).contains("names no tag"));
    }

    #[test]
    fn a_group_whose_retry_topic_no_broker_makes_is_refused() {
        let start = |group: String| {
            complaint(PushConsumer::builder(group).subscribe("T", "*").each(|_: &MessageExt| Ok::<(), &str>(())))
        };
        assert!(start("g".repeat(121)).contains("longer than 120 bytes"));
        assert!(start("g".repeat(120)).contains("name server"));
    }

    #[test]
    fn a_listener_of_single_messages_gets_them_alone() {
        assert_eq!(complete().consume_batch(8).settings.options().consume_batch, 1);
        let batches = |_: &[MessageExt], _: &mut ConsumeContext| ConsumeStatus::Success;
        let builder = PushConsumer::builder("G").consume_batch(8).concurrently(batches);
        assert_eq!(builder.settings.options().consume_batch, 8);
    }
}
