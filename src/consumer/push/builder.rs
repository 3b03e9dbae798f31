//! Options of a push consumer, their checks, and its start.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::client::config::{ClientConfig, client_options, invalid};
use crate::client::ending::Ending;
use crate::client::identity::wall_clock_millis;
use crate::client::{Client, ClientChoice};
use crate::error::Result;
use crate::message::MessageExt;
use crate::wire::body::SUBSCRIBE_ALL;
use crate::wire::name::{DEFAULT_CONSUMER_GROUP, check_consumer_group, check_topic, is_system_group, retry_topic};

use crate::consumer::assign::allocate::AllocateStrategy;
use crate::consumer::assign::service::{RebalanceEvent, RebalanceThread};
use crate::consumer::deliver::Delivery;
use crate::consumer::deliver::concurrent::{ConcurrentDelivery, ConcurrentOptions};
use crate::consumer::deliver::listener::{ConcurrentListener, Listener, each};
use crate::consumer::deliver::pool::Pool;
use crate::consumer::deliver::retry::RetryLimit;
use crate::consumer::group::{ConsumerGroup, GroupOptions};
use crate::consumer::member::ConsumerMember;
use crate::consumer::pull::flow::FlowLimits;
use crate::consumer::pull::pull_event::PullEvent;
use crate::consumer::pull::service::PullThread;
use crate::consumer::push::{ConsumerThreads, PushConsumer};
use crate::consumer::start::ConsumeFromWhere;
use crate::consumer::subscription::{FilterExpression, Subscription, subscription};

/// Inflated bodies may not be larger than this.
const MAX_BODY: usize = 64 * 1024 * 1024;

#[derive(Clone, Debug)]
struct PushOptions {
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

impl Default for PushOptions {
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
    settings: PushOptions,
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
    pub(super) fn new(group: String) -> Self {
        Self {
            group,
            client: ClientChoice::default(),
            subscriptions: BTreeMap::new(),
            listener: None,
            listeners: 0,
            threads: 20,
            settings: PushOptions::default(),
        }
    }

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

    /// Sets the listener for the usual case: one message at a time, whatever [`consume_batch`](Self::consume_batch) says.
    /// An error, of any type, is logged and makes the message a retry.
    pub fn each<F>(mut self, listener: F) -> Self
    where
        F: Fn(&MessageExt) -> std::result::Result<(), Box<dyn Error + Send + Sync>> + Send + Sync + 'static,
    {
        self.settings.each_alone = true;
        self.concurrently(each(listener))
    }

    /// Sets the start in queues for which the group has no offset yet. Default: at the end, [`ConsumeFromWhere::Last`].
    /// (Java: `consumeFromWhere`, `consumeTimestamp`)
    pub fn consume_from(mut self, start: ConsumeFromWhere) -> Self {
        self.settings.consume_from = start;
        self
    }

    /// Sets the rule by which the members of the group share the queues; all must use the same. Default: in equal parts of neighbouring
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

    /// Sets the number of deliveries after the first before a message goes to the dead-letter queue. Default 16. (Java:
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
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) names the option that is missing or wrong, [`ErrorKind::DuplicateGroup`](crate::ErrorKind::DuplicateGroup) says that
    /// the client has a consumer of this group already, [`ErrorKind::Resource`](crate::ErrorKind::Resource) that the system refuses a thread.
    /// Nothing is left behind then.
    pub fn start(self) -> Result<PushConsumer> {
        let (subscriptions, listener) = self.check()?;
        let client = self.client.take()?;
        let core = Arc::clone(client.core());
        let threads = core.consumer_threads(|| {
            let pull = PullThread::start(&core.threads)?;
            let rebalance = RebalanceThread::start(&core.threads, pull.events().clone())?;
            Ok(Arc::new(ConsumerThreads { rebalance, pull }))
        })?;
        let pool = Pool::start(&core.threads, self.threads)?;
        let group = ConsumerGroup::new(&core, &self.group, subscriptions, self.settings.group_options());
        let (pull, rebalance) = (threads.pull.events(), threads.rebalance.events());
        let delivery =
            ConcurrentDelivery::new(&group, listener, self.settings.concurrent_options(), pool, pull.clone());
        let shared: Arc<dyn Delivery> = Arc::clone(&delivery) as _;
        // From here on the group is taken; a consumer that cannot have it has left no trace.
        core.join(ConsumerMember::new(Arc::clone(&group), Arc::clone(&shared), rebalance.clone()))?;
        // The services take up the new consumer, and its routes are looked up.
        let _ = pull.send(PullEvent::Begin { group: Arc::clone(&group), delivery: shared });
        let _ = rebalance.send(RebalanceEvent::Begin(Arc::clone(&group)));
        for topic in group.topics() {
            core.refresh_route(&topic);
        }
        Ok(PushConsumer { group, delivery, ending: Ending::new(), threads, client })
    }

    fn check(&self) -> Result<(Vec<Subscription>, Listener)> {
        check_consumer_group(&self.group)
            .map_err(|error| invalid(format!("invalid consumer group {:?}: {error}", self.group)))?;
        if self.group == DEFAULT_CONSUMER_GROUP {
            return Err(invalid(format!(
                "group {DEFAULT_CONSUMER_GROUP} is reserved (the Java client's default); use your own name"
            )));
        }
        if is_system_group(&self.group) {
            return Err(invalid(format!(
                "group {} has the prefix of the groups that brokers use for themselves",
                self.group
            )));
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
            check_topic(topic).map_err(|error| invalid(format!("invalid topic name {topic:?}: {error}")))?;
            let expression = filter.checked().map_err(|why| invalid(format!("filter of topic {topic}: {why}")))?;
            subscriptions.push(subscription(topic, &expression, version)?);
        }
        let own = retry_topic(&self.group);
        subscriptions.retain(|subscription| *subscription.topic != *own);
        subscriptions.push(subscription(&own, SUBSCRIBE_ALL, version)?);
        Ok((subscriptions, listener))
    }
}

impl PushOptions {
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

    fn group_options(&self) -> GroupOptions {
        GroupOptions {
            consume_from: self.consume_from,
            strategy: self.strategy.clone(),
            pull_batch: self.pull_batch,
            flow: self.flow,
        }
    }

    fn concurrent_options(&self) -> ConcurrentOptions {
        ConcurrentOptions {
            consume_batch: if self.each_alone { 1 } else { self.consume_batch },
            consume_timeout: self.consume_timeout,
            retry_limit: RetryLimit::new(self.max_reconsume_times),
            max_body: MAX_BODY,
        }
    }
}

fn check_range(name: &str, value: usize, range: std::ops::RangeInclusive<usize>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(invalid(format!("{name} is {value}, it must be in {range:?}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::checks::vectors::vectors;
    use crate::consumer::deliver::listener::{ConsumeContext, ConsumeStatus};

    /// A consumer that lacks nothing but a name server, which is the last thing that `start` looks for.
    fn complete() -> PushConsumerBuilder {
        PushConsumer::builder("G").subscribe("T", "*").each(|_| Ok(()))
    }

    fn complaint(builder: PushConsumerBuilder) -> String {
        builder.start().unwrap_err().to_string()
    }

    /// True if `start` refuses this value of the option.
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
            let words = told(FilterExpression::tag_expression(condition));
            assert!(words.contains("looks like a condition") && words.contains("A || B"), "{condition}: {words}");
        }
        for tags in ["A", "A || B", "A||B", "*", "", "OR", "has this", "标签", "a-b_c.d%"] {
            let words = told(FilterExpression::tag_expression(tags));
            assert!(words.contains("name server"), "{tags}: {words}");
        }
        let words = told(FilterExpression::tags(["a > 5", "made in china"]));
        assert!(words.contains("name server"), "a tag in a list is what it is: {words}");
        assert!(told(FilterExpression::tag_expression("||")).contains("names no tag"));
    }

    #[test]
    fn a_group_whose_retry_topic_no_broker_makes_is_refused() {
        let start = |group: String| complaint(PushConsumer::builder(group).subscribe("T", "*").each(|_| Ok(())));
        assert!(start("g".repeat(121)).contains("longer than 120 bytes"));
        assert!(start("g".repeat(120)).contains("name server"));
    }

    #[test]
    fn a_listener_of_single_messages_gets_them_alone() {
        assert_eq!(complete().consume_batch(8).settings.concurrent_options().consume_batch, 1);
        let batches = |_: &[MessageExt], _: &mut ConsumeContext| ConsumeStatus::Success;
        let builder = PushConsumer::builder("G").consume_batch(8).concurrently(batches);
        assert_eq!(builder.settings.concurrent_options().consume_batch, 8);
    }
}
