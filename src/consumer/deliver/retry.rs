//! The way of one failed message back to the broker.
//!
//! First CONSUMER_SEND_MSG_BACK; when that is refused, unanswered or lost, an ordinary send to the group's retry topic;
//! when that fails too, the message stays in its window and is consumed here again. The steps are values that are used
//! up by their answer, so that a message can have only one outcome. Pure; the completions of the requests drive it.

use std::borrow::Cow;
use std::time::Duration;

use crate::message::MessageExt;
use crate::message::properties::name;

/// The level at which a message goes back that no worker had time for, as in the Java client: 10 s with the broker's
/// default levels.
pub(crate) const EXPIRED_DELAY_LEVEL: i32 = 3;

/// Deliveries after the first when the consumer sets no maximum: as the Java client sends it to the broker for
/// concurrent consumption.
const DEFAULT_MAX_RECONSUME_TIMES: i32 = 16;

/// The highest of the broker's delay levels (2 h by default).
const HIGHEST_DELAY_LEVEL: i32 = 18;

/// The first wait before a message that the broker could not be given is consumed here again, and the longest.
const CONSUME_AGAIN_FIRST: Duration = Duration::from_secs(5);
const CONSUME_AGAIN_LONGEST: Duration = Duration::from_secs(60);

/// Delay before a failed message is delivered again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetryDelay {
    /// After a time that grows with each failure: 10 s, 30 s, 1 min, ... with the broker's default levels.
    #[default]
    Growing,
    /// After the time of this level of the broker: from 1, which is 1 s by default, to 18, which is 2 h by default. The
    /// broker takes its highest level for those beyond. There is no level 0: it is logged, and means `Growing`.
    Level(u8),
    /// Never: the message goes to the dead-letter queue.
    DeadLetter,
}

impl RetryDelay {
    /// The number in CONSUMER_SEND_MSG_BACK.
    fn level(self) -> i32 {
        match self {
            Self::Growing => 0,
            Self::Level(level) => i32::from(level),
            Self::DeadLetter => -1,
        }
    }
}

/// Configured maximum of retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryLimit(i32);

impl RetryLimit {
    /// At most `times` deliveries after the first; `None` for the usual 16.
    pub(crate) fn new(times: Option<u32>) -> Self {
        Self(times.map_or(DEFAULT_MAX_RECONSUME_TIMES, |times| i32::try_from(times).unwrap_or(i32::MAX)))
    }

    /// The number in headers and properties.
    pub(crate) fn times(self) -> i32 {
        self.0
    }
}

/// A failed message whose CONSUMER_SEND_MSG_BACK has no answer yet.
#[derive(Debug)]
#[must_use = "a failed message needs an outcome"]
pub(crate) struct SendingBack {
    delay: RetryDelay,
    limit: RetryLimit,
}

/// The fields of CONSUMER_SEND_MSG_BACK that are decided here; the others stand in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SendBack {
    /// `delayLevel`: -1 for the dead-letter queue, 0 for the broker's choice, else the level.
    pub(crate) delay_level: i32,
    /// `maxReconsumeTimes`: from so many on, the broker moves the message to the dead-letter queue.
    pub(crate) max_reconsume_times: i32,
}

/// Begins the way of a failed message.
pub(crate) fn send_back(delay: RetryDelay, limit: RetryLimit) -> (SendingBack, SendBack) {
    let request = SendBack { delay_level: delay.level(), max_reconsume_times: limit.times() };
    (SendingBack { delay, limit }, request)
}

impl SendingBack {
    /// The broker has answered with success: the message is its own again.
    pub(crate) fn acknowledged(self) -> Resolved {
        Resolved::SentBack
    }

    /// The broker refused, or no answer came in time, or the connection was lost: the message is to be published to the
    /// retry topic. The broker may have taken it none the less; then it is delivered twice.
    ///
    /// The copy of a message that could not be decoded is incomplete and looks sound: it goes to the dead-letter
    /// queue at once, since no listener may take it for the message.
    pub(crate) fn failed(self, message: &MessageExt) -> (Publishing, RetryMessage) {
        let delay = if message.defect.is_none() { self.delay } else { RetryDelay::DeadLetter };
        (Publishing(()), RetryMessage::of(message, delay, self.limit))
    }
}

/// A failed message whose sending to the retry topic has no result yet.
#[derive(Debug)]
#[must_use = "a failed message needs an outcome"]
pub(crate) struct Publishing(());

impl Publishing {
    /// The broker has stored it.
    pub(crate) fn stored(self) -> Resolved {
        Resolved::Published
    }

    /// Neither way is open: the message stays in its window.
    pub(crate) fn failed(self) -> Unresolved {
        Unresolved
    }
}

/// The broker has the failed message again; it may leave its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// By CONSUMER_SEND_MSG_BACK.
    SentBack,
    /// By a send to the retry topic.
    Published,
}

/// The broker could not be given the failed message; it must not leave its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unresolved;

/// Changes to a failed message when it is published to the retry topic of its group: body, flag and all properties
/// that are not named here stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RetryMessage {
    /// Properties to set.
    pub(crate) set: Vec<(&'static str, String)>,
    /// Properties to take out.
    pub(crate) remove: &'static [&'static str],
}

impl RetryMessage {
    fn of(message: &MessageExt, delay: RetryDelay, limit: RetryLimit) -> Self {
        // A copy that was retried before names its first topic and id; they must survive every further retry.
        let first_topic = message.property(name::RETRY_TOPIC).unwrap_or_else(|| message.topic());
        let first_id = message.property(name::ORIGIN_MESSAGE_ID).map_or_else(|| message.msg_id(), Cow::Borrowed);
        let reconsume_times = match delay {
            // A 4.9 broker takes what has reached the maximum to the dead-letter queue, a 5.x broker what has passed it.
            RetryDelay::DeadLetter => limit.times().saturating_add(1),
            RetryDelay::Growing | RetryDelay::Level(_) => message.reconsume_times.saturating_add(1),
        };
        let set = vec![
            (name::RETRY_TOPIC, first_topic.to_owned()),
            (name::ORIGIN_MESSAGE_ID, first_id.into_owned()),
            (name::RECONSUME_TIME, reconsume_times.to_string()),
            (name::MAX_RECONSUME_TIMES, limit.times().to_string()),
            (name::DELAY, delay_level(delay, message.reconsume_times).to_string()),
        ];
        Self { set, remove: &[name::TRANSACTION_PREPARED] }
    }
}

/// The level a broker gives a message that was sent back after `reconsume_times` failed deliveries before this one; a
/// message that is published must bring it along.
fn delay_level(delay: RetryDelay, reconsume_times: i32) -> i32 {
    match delay {
        RetryDelay::Level(1..) => delay.level(),
        RetryDelay::Level(0) | RetryDelay::Growing | RetryDelay::DeadLetter => {
            reconsume_times.max(0).saturating_add(EXPIRED_DELAY_LEVEL).min(HIGHEST_DELAY_LEVEL)
        }
    }
}

/// Wait of a message before it is consumed here again, after `attempts` earlier failures to give it back.
pub(crate) fn consume_again_after(attempts: u32) -> Duration {
    CONSUME_AGAIN_FIRST.saturating_mul(1 << attempts.min(4)).min(CONSUME_AGAIN_LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::vectors::vectors;
    use crate::consumer::fixtures::received;
    use crate::message::MessageQueue;

    fn failed(topic: &str, reconsume_times: i32) -> MessageExt {
        let mut message = received(&MessageQueue::new(topic, "b", 0), 7, b"body");
        message.reconsume_times = reconsume_times;
        message
    }

    fn property<'a>(message: &'a RetryMessage, name: &str) -> Option<&'a str> {
        message.set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn delay_levels_are_those_of_the_vectors() {
        let mut tested = 0;
        for vector in vectors("RETRY-00") {
            if let Some(level) = vector["expected"]["delayLevel"].as_i64() {
                let times = i32::try_from(vector["input"]["reconsumeTimes"].as_i64().unwrap()).unwrap();
                assert_eq!(i64::from(delay_level(RetryDelay::Growing, times)), level, "{}", vector["id"]);
                tested += 1;
            }
        }
        assert_eq!(tested, 4);
    }

    #[test]
    fn the_broker_chooses_the_delay_unless_the_listener_does() {
        let limit = RetryLimit::new(None);
        let level = |delay| send_back(delay, limit).1.delay_level;
        assert_eq!(level(RetryDelay::Growing), 0);
        assert_eq!(level(RetryDelay::Level(5)), 5);
        assert_eq!(level(RetryDelay::Level(99)), 99, "the broker knows how many it has");
        assert_eq!(level(RetryDelay::DeadLetter), vectors("RETRY-007")[0]["input"]["delayLevelFromClient"]);
    }

    #[test]
    fn sixteen_retries_unless_the_consumer_says_otherwise() {
        let header = |times| send_back(RetryDelay::Growing, RetryLimit::new(times)).1.max_reconsume_times;
        assert_eq!(vectors("RETRY-008")[0]["expected"], header(None));
        assert_eq!(header(Some(0)), 0);
        assert_eq!(header(Some(u32::MAX)), i32::MAX);
    }

    #[test]
    fn each_way_ends_in_one_outcome() {
        let message = failed("T", 0);
        let begin = || send_back(RetryDelay::Growing, RetryLimit::new(None)).0;
        assert_eq!(begin().acknowledged(), Resolved::SentBack);
        assert_eq!(begin().failed(&message).0.stored(), Resolved::Published);
        assert_eq!(begin().failed(&message).0.failed(), Unresolved);
    }

    #[test]
    fn a_published_message_keeps_its_first_topic_and_id_and_counts_on() {
        let (_, plan) = send_back(RetryDelay::Growing, RetryLimit::new(Some(5))).0.failed(&failed("T", 2));
        assert_eq!(property(&plan, "RETRY_TOPIC"), Some("T"));
        assert_eq!(property(&plan, "RECONSUME_TIME"), Some("3"));
        assert_eq!(property(&plan, "MAX_RECONSUME_TIMES"), Some("5"));
        assert_eq!(property(&plan, "DELAY"), Some("5"));
        assert_eq!(property(&plan, "ORIGIN_MESSAGE_ID"), Some(&*failed("T", 2).msg_id()));
        assert_eq!(plan.remove, ["TRAN_MSG"]);

        let mut again = failed("%RETRY%G", 2);
        again.message.properties.set("RETRY_TOPIC", "T");
        again.message.properties.set("ORIGIN_MESSAGE_ID", "the first");
        let (_, plan) = send_back(RetryDelay::Growing, RetryLimit::new(None)).0.failed(&again);
        assert_eq!(property(&plan, "RETRY_TOPIC"), Some("T"));
        assert_eq!(property(&plan, "ORIGIN_MESSAGE_ID"), Some("the first"));
    }

    #[test]
    fn a_level_of_the_listener_survives_the_fallback() {
        let (_, plan) = send_back(RetryDelay::Level(1), RetryLimit::new(None)).0.failed(&failed("T", 9));
        assert_eq!(property(&plan, "DELAY"), Some("1"));
        let (_, plan) = send_back(RetryDelay::Level(25), RetryLimit::new(None)).0.failed(&failed("T", 9));
        assert_eq!(property(&plan, "DELAY"), Some("25"));
        let (_, plan) = send_back(RetryDelay::Level(0), RetryLimit::new(None)).0.failed(&failed("T", 0));
        assert_eq!(property(&plan, "DELAY"), Some("3"), "there is no such level");
    }

    #[test]
    fn a_message_published_for_the_dead_letter_queue_has_passed_its_maximum() {
        let (_, plan) = send_back(RetryDelay::DeadLetter, RetryLimit::new(Some(3))).0.failed(&failed("T", 0));
        assert_eq!(property(&plan, "RECONSUME_TIME"), Some("4"));
        assert_eq!(property(&plan, "MAX_RECONSUME_TIMES"), Some("3"));
    }

    #[test]
    fn waits_for_consuming_again_grow_to_a_minute() {
        let waits: Vec<u64> = (0..7).map(|attempts| consume_again_after(attempts).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60, 60]);
        assert_eq!(consume_again_after(u32::MAX).as_secs(), 60);
    }
}
