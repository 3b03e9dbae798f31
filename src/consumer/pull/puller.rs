//! Carries out what the queue table of one consumer asks for: questions, pulls, windows, and the log. Runs on `rmq-pull`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::error::{Error, ErrorKind, Result};
use crate::logging::{info, warn};
use crate::message::MessageQueue;
use crate::remoting::{Completion, Request};
use crate::wire::header::PullMessageRequest;
use crate::wire::sys_flag::pull as pull_flag;
use crate::wire::{RequestCode, ResponseCode};

use crate::consumer::deliver::Delivery;
use crate::consumer::group::ConsumerGroup;
use crate::consumer::pull::event::{Action, Epoch, Event, Report, RequestAnswer, RequestFailure, RequestTicket};
use crate::consumer::pull::pull_event::{PullEvent, SentPull};
use crate::consumer::start::{Bound, StartDecision};
use crate::consumer::subscription::Subscription;

/// Time for which a broker may hold a pull that finds nothing. (Java: `brokerSuspendMaxTimeMillis` of the push consumer)
const BROKER_HOLDS: Duration = Duration::from_secs(15);
/// Deadline of a pull: a broker looks every 5 s for held pulls whose time is up, and the answer has to travel. A reply
/// that has not come by then is lost, and its queue would not be read until this is noticed. (Java:
/// `consumerTimeoutMillisWhenSuspend`, 30 s)
pub(crate) const PULL_TIMEOUT: Duration = Duration::from_secs(15 + 5 + 1);

/// One consumer as `rmq-pull` serves it.
pub(super) struct Puller {
    pub(super) group: Arc<ConsumerGroup>,
    pub(super) delivery: Arc<dyn Delivery>,
    /// The thread's own channel, for answers.
    pub(super) answers: Sender<PullEvent>,
}

impl Puller {
    /// Carries out one action. Returns an event to which it led at once.
    pub(super) fn carry_out(&self, action: Action) -> Option<Event> {
        let offsets = &self.group.offsets;
        match action {
            Action::QueryStoredOffset { queue, ticket } => self.ask_for_stored_offset(&queue, ticket),
            Action::QueryBound { queue, ticket, bound } => self.ask_for_bound(&queue, ticket, bound),
            Action::Pull { queue, ticket, epoch, offset, broker_id } => {
                return self.pull(queue, ticket, epoch, offset, broker_id);
            }
            Action::OpenWindow { queue, epoch, offset, decision } => {
                offsets.open(queue, epoch, offset, decision == StartDecision::Stored);
            }
            Action::MoveWindow { queue, epoch, offset } => offsets.skip_to(&queue, epoch, offset),
            Action::ReplaceWindow { queue, epoch, offset } => offsets.replace(queue, epoch, offset),
            Action::CloseWindow { queue, .. } => offsets.close(&queue),
            Action::Report(report) => self.log(&report),
        }
        None
    }

    /// Hands the answer to the table that asked.
    fn answer_to(&self, queue: &MessageQueue, ticket: RequestTicket) -> impl FnOnce(RequestAnswer) + Send + 'static {
        let (consumer, queue, answers) = (self.group.id, queue.clone(), self.answers.clone());
        move |answer| {
            let _ = answers.send(PullEvent::Answered { consumer, queue, ticket, answer });
        }
    }

    fn ask_for_stored_offset(&self, queue: &MessageQueue, ticket: RequestTicket) {
        let answer = self.answer_to(queue, ticket);
        let (group, asked) = (Arc::clone(&self.group), queue.clone());
        self.group.offsets.read(queue, move |result| {
            answer(match result {
                Ok(Some(offset)) => RequestAnswer::to_offset_query(Ok(offset)),
                Ok(None) => RequestAnswer::NotStored,
                Err(error) => RequestAnswer::Failed(failure(&group, &asked, &error, error.to_string())),
            });
        });
    }

    fn ask_for_bound(&self, queue: &MessageQueue, ticket: RequestTicket, bound: Bound) {
        let answer = self.answer_to(queue, ticket);
        let core = &self.group.core;
        let Some(address) = core.routes.master_of(queue) else {
            core.refresh_suspected_route(&queue.topic);
            let text = format!("no master of broker {} is known", queue.broker_name);
            return answer(RequestAnswer::Failed(RequestFailure::outage(text)));
        };
        let (group, asked) = (Arc::clone(&self.group), queue.clone());
        let then = move |result: Result<i64>| {
            answer(RequestAnswer::to_bound_query(
                result.map_err(|error| failure(&group, &asked, &error, error.to_string())),
            ));
        };
        match bound {
            Bound::Least => core.min_offset(&address, queue, then),
            Bound::Greatest => core.max_offset(&address, queue, then),
            Bound::AtTime(timestamp) => core.search_offset(&address, queue, timestamp, then),
        }
    }

    fn pull(
        &self,
        queue: MessageQueue,
        ticket: RequestTicket,
        epoch: Epoch,
        offset: i64,
        broker_id: i64,
    ) -> Option<Event> {
        let group = &self.group;
        let failed = |queue: MessageQueue, text: String| {
            Some(Event::Answered { queue, ticket, answer: RequestAnswer::Failed(RequestFailure::new(None, text)) })
        };
        let window = group.offsets.window(&queue).filter(|window| window.epoch == epoch);
        let (Some(window), Some(subscription)) = (window, group.subscription(&queue.topic)) else {
            let text = format!("{queue} has no window");
            return failed(queue, text);
        };
        let refused = window.messages.lock().flow_control(&group.options.flow);
        if let Some(reason) = refused {
            return Some(Event::WindowFull { queue, ticket, reason });
        }
        let route = group.core.routes.known(&queue.topic);
        let broker = route.as_ref().and_then(|route| route.broker(&queue.broker_name));
        let Some(address) = broker.and_then(|broker| broker.copy(broker_id)) else {
            group.core.refresh_suspected_route(&queue.topic);
            let text = format!("no address of broker {} is known", queue.broker_name);
            return failed(queue, text);
        };
        let from_master = broker.and_then(|broker| broker.master()) == Some(address);
        let committed = if from_master { group.offsets.ride(&window, offset) } else { None };
        self.send(address, &subscription, SentPull { window, ticket, offset, from_master, committed });
        None
    }

    fn send(&self, address: &Arc<str>, subscription: &Subscription, pull: SentPull) {
        let commit_flag = if pull.committed.is_some() { pull_flag::COMMIT_OFFSET } else { 0 };
        let batch = pull.window.batch(self.group.options.pull_batch);
        let queue = pull.window.queue.clone();
        let header = PullMessageRequest {
            consumer_group: &self.group.name,
            topic: &queue.topic,
            queue_id: queue.queue_id,
            queue_offset: pull.offset,
            max_msg_nums: i32::try_from(batch).unwrap_or(i32::MAX),
            // The subscription travels along: what this member wants does not depend on which member's heartbeat the
            // broker has heard last.
            sys_flag: commit_flag | pull_flag::SUSPEND | pull_flag::SUBSCRIPTION,
            commit_offset: pull.committed.unwrap_or(0),
            suspend_timeout_millis: i64::try_from(BROKER_HOLDS.as_millis()).unwrap_or(i64::MAX),
            subscription: Some(&subscription.data.sub_string),
            sub_version: subscription.data.sub_version,
            expression_type: subscription.data.expression_type.as_deref(),
            broker_name: Some(&queue.broker_name),
            ..PullMessageRequest::default()
        };
        let request = Request::new(RequestCode::PULL_MESSAGE, &header);
        let (consumer, answers) = (self.group.id, self.answers.clone());
        let completion = Completion::new(move |outcome| {
            let _ = answers.send(PullEvent::PullReply { consumer, pull, outcome });
        });
        self.group.core.remoting.invoke_async(address, request, Instant::now() + PULL_TIMEOUT, completion);
    }

    /// The failure of a pull. After a reply that was too long the next pull asks for fewer messages.
    pub(super) fn pull_failure(&self, pull: &SentPull, error: &Error) -> RequestFailure {
        if error.kind() == ErrorKind::FrameTooLong {
            pull.window.shrink_batch(self.group.options.pull_batch);
        }
        failure(&self.group, &pull.window.queue, error, format!("from offset {}: {error}", pull.offset))
    }

    fn log(&self, report: &Report) {
        let Self { group, .. } = self;
        let name = &group.name;
        match report {
            Report::Started { queue, offset, decision } => {
                info!("pull {name}: started {queue} at offset {offset}: {decision}");
                group.core.changed();
            }
            Report::Failing { queue, doing, failures, failure } => {
                if self.is_news(queue, failure) {
                    warn!("pull {name}: {doing} {queue} failed ({failures} in a row): {}; tried again", failure.text);
                }
            }
            Report::Recovered { queue, failures } => {
                info!("pull {name}: recovered {queue} after {failures} failures");
            }
            Report::OffsetCorrected { queue, from, to, least, greatest } => {
                warn!("pull {name}: offset {from} of {queue} is outside of {least}..={greatest}; continues at {to}");
            }
            Report::Overdue { queue, doing } => {
                let cause = format!("overdue {}", queue.broker_name);
                if let Some(times) = group.repeats.note(&cause, Instant::now()) {
                    warn!("pull {name}: {doing} {queue} got no answer ({times} times at this broker); sent again");
                }
            }
        }
    }

    /// Counts a failure with those of the broker's other queues that have the same cause. True if it is to be logged.
    fn is_news(&self, queue: &MessageQueue, failure: &RequestFailure) -> bool {
        let (now, broker, repeats) = (Instant::now(), &queue.broker_name, &self.group.repeats);
        let noted = match failure.code {
            _ if failure.is_outage => repeats.note_outage(&format!("pull {broker}"), now),
            Some(code) => repeats.note(&format!("pull {broker} {code}"), now),
            None => repeats.note(&format!("pull {queue}"), now),
        };
        noted.is_some()
    }
}

fn failure(group: &ConsumerGroup, queue: &MessageQueue, error: &Error, text: String) -> RequestFailure {
    match error.kind() {
        ErrorKind::Connect | ErrorKind::Resolve | ErrorKind::ConnectionLost | ErrorKind::Timeout => {
            RequestFailure::outage(text)
        }
        _ if error.broker_code() == Some(ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST) => {
            RequestFailure::new(error.broker_code(), group.missing_at(queue))
        }
        _ => RequestFailure::new(error.broker_code(), text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::pull::table::Patience;

    #[test]
    fn a_lost_pull_reply_is_noticed_soon_after_the_time_that_a_broker_holds_pulls() {
        let broker_looks_every = Duration::from_secs(5);
        assert!(
            BROKER_HOLDS + broker_looks_every < PULL_TIMEOUT,
            "an answer that is held as long as may be is no failure"
        );
        assert!(PULL_TIMEOUT <= BROKER_HOLDS * 3 / 2);
        assert!(PULL_TIMEOUT < Patience::default().pull, "the net is below the deadline");
    }
}
