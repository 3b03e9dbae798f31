//! Replies to pulls: decoded, filtered, put into their windows. Runs on `rmq-pull`.

use std::sync::Arc;
use std::time::Instant;

use crate::logging::warn;
use crate::message::properties::name;
use crate::message::{MessageExt, MessageQueue};
use crate::wire::header::PullMessageResponse;
use crate::wire::stored::message::stored_messages;
use crate::wire::{self, RemotingCommand, ResponseCode};

use crate::consumer::group::ConsumerGroup;
use crate::consumer::pull::event::{PullStatus, Pulled, RequestAnswer, RequestFailure};
use crate::consumer::pull::pull_event::SentPull;
use crate::consumer::pull::puller::Puller;
use crate::consumer::pull::stray;

/// Messages that are at most this part of their reply are copied out of it.
const SMALL_PART: usize = 4;

impl Puller {
    /// Puts what a pull brought into its window, and hands it to the delivery. Returns the answer for the table.
    pub(super) fn read_reply(&self, pull: &SentPull, response: &RemotingCommand) -> RequestAnswer {
        self.try_read_reply(pull, response).unwrap_or_else(|error| {
            RequestAnswer::Failed(RequestFailure::new(
                None,
                format!("reading the reply from offset {} failed: {error}", pull.offset),
            ))
        })
    }

    fn try_read_reply(&self, pull: &SentPull, response: &RemotingCommand) -> Result<RequestAnswer, wire::Error> {
        let group = &self.group;
        let code = response.response_code();
        let reset = response.remark.as_deref() == Some("OFFSET_RESET");
        let status = match code {
            ResponseCode::SUCCESS => PullStatus::Found,
            ResponseCode::PULL_NOT_FOUND => PullStatus::NoNewMessage,
            ResponseCode::PULL_RETRY_IMMEDIATELY => PullStatus::NoMatchedMessage,
            ResponseCode::PULL_OFFSET_MOVED => PullStatus::OffsetIllegal { reset },
            code => {
                let remark = response.remark.as_deref().unwrap_or_default();
                let first_line = remark.lines().next().unwrap_or_default();
                let text = match code {
                    ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST => group.missing_at(&pull.window.queue),
                    code => format!("{code}: {first_line}"),
                };
                return Ok(RequestAnswer::Failed(RequestFailure::new(Some(code), text)));
            }
        };
        let header = PullMessageResponse::from_fields(&response.ext_fields)?;
        if let Some(offset) = pull.committed {
            group.offsets.rode(&pull.window, offset);
        }
        let next = match status {
            PullStatus::Found => self.put(pull, response, &header)?,
            PullStatus::NoNewMessage | PullStatus::NoMatchedMessage => {
                let next = credible_next(pull, &header, None);
                pull.window.messages.lock().advance(next);
                next
            }
            PullStatus::OffsetIllegal { .. } => header.next_begin_offset,
        };
        Ok(RequestAnswer::Pulled(Pulled {
            status,
            next_begin_offset: next,
            suggested_broker_id: header.suggest_which_broker_id,
            from_master: pull.from_master,
        }))
    }

    /// Puts the messages of a reply into the window. Returns where the queue goes on behind them.
    fn put(
        &self,
        pull: &SentPull,
        response: &RemotingCommand,
        header: &PullMessageResponse,
    ) -> Result<i64, wire::Error> {
        let (mut messages, next) = read_messages(&self.group, pull, response, header)?;
        pull.window.grow_batch(self.group.options.pull_batch, messages.len());
        let held = let_go_of_reply(&mut messages, response.body.len());
        let request = pull.window.messages.lock().put_reply(messages, held, next, Instant::now());
        if let Some(request) = request {
            Arc::clone(&self.delivery).deliver(&pull.window, request);
        }
        Ok(next)
    }
}

/// Copies messages that are a small part of their reply, most of which the filter left out: else each would keep all of
/// it. Returns the bytes of the reply that the messages still keep.
fn let_go_of_reply(messages: &mut [MessageExt], reply_bytes: usize) -> usize {
    let mut wanted = 0;
    let is_large_part = |message: &MessageExt| {
        wanted += message.held_bytes();
        wanted > reply_bytes / SMALL_PART
    };
    // Nearly always: the first messages decide.
    if messages.iter().any(is_large_part) {
        return reply_bytes;
    }
    messages.iter_mut().for_each(MessageExt::detach);
    0
}

/// The offset at which the queue goes on after a reply. A next offset beyond the end of the queue that the same reply claims, and beyond
/// its last message, contradicts itself: to go on there would pass over what comes until the queue has got so far.
fn credible_next(pull: &SentPull, header: &PullMessageResponse, last: Option<i64>) -> i64 {
    let behind_last = last.map_or(pull.offset, |last| last.saturating_add(1));
    let end = header.max_offset.max(pull.offset).max(behind_last);
    if header.next_begin_offset > end {
        let next = header.next_begin_offset;
        warn!(
            "pull {} from offset {}: the reply's next offset {next} is beyond its end {end}",
            pull.window.queue, pull.offset
        );
    }
    header.next_begin_offset.min(end)
}

/// The messages of a reply that the subscription wants, since brokers compare hashes of tags only; and the offset behind
/// them.
fn read_messages(
    group: &ConsumerGroup,
    pull: &SentPull,
    response: &RemotingCommand,
    header: &PullMessageResponse,
) -> Result<(Vec<MessageExt>, i64), wire::Error> {
    let MessageQueue { topic, broker_name, queue_id } = &pull.window.queue;
    let Some(subscription) = group.subscription(topic) else { return Ok((Vec::new(), pull.offset)) };
    if response.body.is_empty() {
        return Err(wire::Error::UnexpectedEnd { what: "body of a reply with messages" });
    }
    let mut messages = Vec::with_capacity(group.options.pull_batch);
    for message in stored_messages(&response.body, topic, broker_name) {
        let mut message = message?;
        message.queue_id = *queue_id;
        message.queue_offset = message.queue_offset.saturating_add(header.offset_delta.unwrap_or(0));
        messages.push(message);
    }
    let next = credible_next(pull, header, messages.last().map(|message| message.queue_offset));
    let asked = pull.offset..next;
    if !messages.is_empty() && asked.is_empty() {
        return Err(wire::Error::UnknownValue { what: "nextBeginOffset of a reply with messages", value: asked.end });
    }
    if let Some(strays) = stray::settle(&mut messages, asked) {
        warn!("pull {} from offset {}: {strays}", pull.window.queue, pull.offset);
    }
    messages.retain_mut(|message| {
        // The tag of a message that could not be decoded may be missing here.
        let is_wanted = message.defect.is_some() || subscription.data.wants(message.tag());
        if is_wanted && *topic == group.retry_topic {
            restore_topic(message);
        }
        is_wanted
    });
    Ok((messages, next))
}

/// A message that comes again is shown under the topic it was sent to.
fn restore_topic(message: &mut MessageExt) {
    if let Some(topic) = message.property(name::RETRY_TOPIC).map(Arc::from) {
        message.message.topic = topic;
    }
}
