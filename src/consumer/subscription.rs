//! Subscriptions: filters and their checks.

use std::sync::Arc;

use crate::client::config::invalid;
use crate::error::Result;
use crate::message::properties::PropertyViolation;
use crate::wire::body::{SUBSCRIBE_ALL, SubscriptionData};

/// One subscribed topic.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) topic: Arc<str>,
    pub(crate) data: SubscriptionData,
}

/// Filter of a subscription, evaluated by the broker and checked again by the consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterExpression {
    wanted: FilterKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum FilterKind {
    /// In the form of the wire.
    Expression(String),
    Tags(Vec<String>),
}

impl FilterExpression {
    /// Matches every message.
    #[must_use]
    pub fn all() -> Self {
        Self::tag_expression(SUBSCRIBE_ALL)
    }

    /// Matches messages with one of these tags, of which there must be one at least. The broker compares hashes of tags,
    /// this library the tags themselves.
    #[must_use]
    pub fn tags<T: AsRef<str>>(tags: impl IntoIterator<Item = T>) -> Self {
        Self { wanted: FilterKind::Tags(tags.into_iter().map(|tag| tag.as_ref().to_owned()).collect()) }
    }

    /// Matches tags in the Java client's form: `A || B`, and `*` or nothing for all. An expression that looks like a
    /// condition on properties is refused at start.
    #[must_use]
    pub fn tag_expression(expression: impl Into<String>) -> Self {
        Self { wanted: FilterKind::Expression(expression.into()) }
    }

    /// In the form of the wire.
    ///
    /// # Errors
    ///
    /// The reason why the filter cannot mean what it says, with what to write instead.
    pub(crate) fn checked(&self) -> std::result::Result<String, String> {
        match &self.wanted {
            FilterKind::Tags(tags) if tags.is_empty() => {
                Err("the list of tags is empty: name one, or subscribe to FilterExpression::all()".to_owned())
            }
            FilterKind::Tags(tags) => match tags.iter().find(|tag| PropertyViolation::of_tag(tag).is_some()) {
                Some(tag) => Err(format!(
                    "no message can have the tag {tag:?}: leave out blanks at its ends and \"||\"; FilterExpression::all() is \
                     for all messages"
                )),
                None => Ok(tags.join(" || ")),
            },
            FilterKind::Expression(expression) if is_a_condition(expression) => Err(format!(
                "{expression:?} looks like a condition, and only tags are compared: write them as in \"A || B\", or give tags \
                 with such characters to FilterExpression::tags([..])"
            )),
            FilterKind::Expression(expression) => Ok(expression.clone()),
        }
    }
}

/// True if a tag expression was probably meant as a condition on properties, or has another operator than `||`.
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

/// The same as [`FilterExpression::tag_expression`], for `subscribe("TopicTest", "*")` and `"A || B"`.
impl From<&str> for FilterExpression {
    fn from(expression: &str) -> Self {
        Self::tag_expression(expression)
    }
}

pub(crate) fn subscription(topic: &str, expression: &str, version: i64) -> Result<Subscription> {
    let data = SubscriptionData::of_tags(topic, expression, version)
        .map_err(|_| invalid(format!("the filter {expression:?} of topic {topic} names no tag")))?;
    Ok(Subscription { topic: Arc::from(topic), data })
}
