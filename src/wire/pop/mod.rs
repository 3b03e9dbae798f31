//! Content of the longer texts of POP (5.x): receipts, and the offsets and counts that accompany popped messages. Pure
//! functions over text.

pub mod recall;

use std::fmt;
use std::str::FromStr;

use super::Error;

/// Number of the revive queue for receipts of an orderly pop.
pub const REVIVE_QUEUE_OF_ORDER: i32 = 999;

/// Topic of a group that a popped message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PopTopic {
    /// Requested topic.
    Normal,
    /// [Retry topic](super::name::pop_retry_topic_v1) with the first version of the name.
    RetryV1,
    /// [Retry topic](super::name::pop_retry_topic_v2) with the second version of the name (5.2).
    RetryV2,
}

impl PopTopic {
    const fn letter(self) -> char {
        match self {
            Self::Normal => '0',
            Self::RetryV1 => '1',
            Self::RetryV2 => '2',
        }
    }
}

impl FromStr for PopTopic {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "0" => Ok(Self::Normal),
            "1" => Ok(Self::RetryV1),
            "2" => Ok(Self::RetryV2),
            _ => Err(Error::BadText { what: "kind of popped topic" }),
        }
    }
}

impl fmt::Display for PopTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())
    }
}

/// Receipt that acknowledges one popped message: its property `POP_CK`, and `extraInfo` of the requests about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Offset of the first message of the pop.
    pub start_offset: i64,
    /// Time of the pop, in milliseconds since 1970.
    pub pop_time: i64,
    /// Invisible time in milliseconds.
    pub invisible_time: i64,
    /// Number of the revive queue, in which the broker keeps its records; [`REVIVE_QUEUE_OF_ORDER`] marks an orderly
    /// pop.
    pub revive_queue_id: i32,
    /// Topic that the message came from.
    pub topic: PopTopic,
    /// Name of the broker.
    pub broker_name: String,
    /// Number of the queue.
    pub queue_id: i32,
    /// Offset of the message in the queue.
    pub queue_offset: i64,
    /// Position in the commit log; 5.x proxies add it.
    pub commit_log_offset: Option<i64>,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start_offset, pop_time, invisible_time, revive_queue_id, topic, broker_name, queue_id, .. } = self;
        write!(f, "{start_offset} {pop_time} {invisible_time} {revive_queue_id} {topic} {broker_name} {queue_id} ")?;
        write!(f, "{}", self.queue_offset)?;
        self.commit_log_offset.map_or(Ok(()), |offset| write!(f, " {offset}"))
    }
}

impl FromStr for Receipt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        const WHAT: &str = "receipt";
        let mut words = text.split(' ');
        let receipt = Self {
            start_offset: number(WHAT, words.next())?,
            pop_time: number(WHAT, words.next())?,
            invisible_time: number(WHAT, words.next())?,
            revive_queue_id: number(WHAT, words.next())?,
            topic: words.next().ok_or(Error::UnexpectedEnd { what: WHAT })?.parse()?,
            broker_name: words.next().ok_or(Error::UnexpectedEnd { what: WHAT })?.to_owned(),
            queue_id: number(WHAT, words.next())?,
            queue_offset: number(WHAT, words.next())?,
            commit_log_offset: words.next().map(|word| number(WHAT, Some(word))).transpose()?,
        };
        if words.next().is_some() { Err(Error::BadText { what: WHAT }) } else { Ok(receipt) }
    }
}

/// Queue of a popped message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PopQueue {
    /// Topic of the queue.
    pub topic: PopTopic,
    /// Number of the queue.
    pub queue_id: i32,
}

/// Reads `startOffsetInfo`: the first offset of each queue.
///
/// # Errors
///
/// Returns an error if an entry is invalid.
pub fn start_offsets(text: &str) -> Result<Vec<(PopQueue, i64)>, Error> {
    const WHAT: &str = "start offsets";
    entries(WHAT, text, |[topic, queue, offset]| Ok((pop_queue(WHAT, topic, queue)?, number(WHAT, Some(offset))?)))
}

/// Reads `msgOffsetInfo`: the offsets of the popped messages, queue by queue.
///
/// # Errors
///
/// Returns an error if an entry is invalid.
pub fn message_offsets(text: &str) -> Result<Vec<(PopQueue, Vec<i64>)>, Error> {
    const WHAT: &str = "message offsets";
    entries(WHAT, text, |[topic, queue, offsets]| {
        let offsets: Result<Vec<i64>, Error> = offsets.split(',').map(|offset| number(WHAT, Some(offset))).collect();
        Ok((pop_queue(WHAT, topic, queue)?, offsets?))
    })
}

/// Reads `orderCountInfo`: the number of earlier deliveries, by queue or, with an offset, by message.
///
/// # Errors
///
/// Returns an error if an entry is invalid.
pub fn order_counts(text: &str) -> Result<Vec<(PopQueue, Option<i64>, i32)>, Error> {
    const WHAT: &str = "order counts";
    entries(WHAT, text, |[topic, place, count]| {
        let (queue, offset) = match place.strip_prefix("qo").and_then(|message| message.split_once('%')) {
            Some((queue, offset)) => (queue, Some(number(WHAT, Some(offset))?)),
            None => (place, None),
        };
        Ok((pop_queue(WHAT, topic, queue)?, offset, number(WHAT, Some(count))?))
    })
}

/// Reads entries of three words, separated by `;`; an empty text has no entries.
fn entries<T>(what: &'static str, text: &str, read: impl Fn([&str; 3]) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    let entry = |entry: &str| {
        let mut words = entry.split(' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(first), Some(second), Some(third), None) => read([first, second, third]),
            _ => Err(Error::BadText { what }),
        }
    };
    if text.is_empty() { Ok(Vec::new()) } else { text.split(';').map(entry).collect() }
}

fn pop_queue(what: &'static str, topic: &str, queue: &str) -> Result<PopQueue, Error> {
    Ok(PopQueue { topic: topic.parse()?, queue_id: number(what, Some(queue))? })
}

fn number<T: FromStr>(what: &'static str, word: Option<&str>) -> Result<T, Error> {
    word.ok_or(Error::UnexpectedEnd { what })?.parse().map_err(|_| Error::BadText { what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_is_read_as_it_was_written() {
        for text in ["5 1757930400000 60000 2 0 broker-a 3 7", "5 1757930400000 60000 999 2 broker-a 3 7 4096"] {
            assert_eq!(text.parse::<Receipt>().unwrap().to_string(), text);
        }
        let receipt: Receipt = "5 1757930400000 60000 2 1 broker-a 3 7".parse().unwrap();
        assert_eq!((receipt.start_offset, receipt.queue_offset, receipt.topic), (5, 7, PopTopic::RetryV1));
    }

    #[test]
    fn a_receipt_of_another_form_is_refused() {
        for text in ["", "1 2 3 4 0 b 5", "1 2 3 4 0 b 5 6 7 8", "1 2 3 4 3 b 5 6", "1 2 3 4 0 b x 6", "1  2 3 4 0 b 5"]
        {
            assert!(text.parse::<Receipt>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn nothing_is_no_entry_and_half_an_entry_an_error() {
        assert_eq!(start_offsets(""), Ok(Vec::new()));
        for text in ["0 0", "0 0 1;", "0 0 1 2", "9 0 1", "0 0 1,2", ";", "0 qo1 1"] {
            assert!(start_offsets(text).is_err() && order_counts(text).is_err(), "{text:?}");
        }
        assert!(message_offsets("0 0 1,").is_err());
        assert!(order_counts("0 qo1%x 1").is_err());
    }
}
