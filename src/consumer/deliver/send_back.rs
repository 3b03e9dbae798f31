//! Carries out the way of a failed message: back to the broker, else into the retry topic, else here again.
//!
//! Everything is asynchronous; a message that is on this way is in a state of its own, and no offset passes it. Runs on
//! workers, on `rmq-timer`, and on `rmq-remoting`, where it must not block.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::logging::{debug, warn};
use crate::message::properties::{Properties, name};
use crate::message::{Message, MessageExt};
use crate::producer::send::outgoing::{Outgoing, Reconsume};
use crate::producer::send::{AsyncSend, Done};
use crate::wire::header::ConsumerSendMsgBackRequest;

use crate::consumer::deliver::retry::{self, Publishing, RetryDelay, RetryMessage};
use crate::consumer::deliver::settle::Settlement;
use crate::consumer::pull::slot::{FailedMessage, Position};
use crate::consumer::pull::window::PullWindow;

/// Time that a broker has to take a message back. (Java: the same 5 s)
const SEND_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Time of the publication instead, all attempts together.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

impl Settlement {
    /// Gives failed messages back, each to end in exactly one report to its window.
    pub(crate) fn send_back(self: &Arc<Self>, window: &Arc<PullWindow>, failed: Vec<FailedMessage>, delay: RetryDelay) {
        if delay == RetryDelay::Level(0)
            && let Some(times) = self.group.repeats.note("level 0", Instant::now())
        {
            let name = &self.group.name;
            warn!("retry {name}: invalid delay level 0 ({times} so far): levels begin at 1; delayed as by default");
        }
        for failed in failed {
            self.send_one_back(window, failed, delay);
        }
    }

    fn send_one_back(self: &Arc<Self>, window: &Arc<PullWindow>, failed: FailedMessage, delay: RetryDelay) {
        let FailedMessage { position, message } = failed;
        let (sending_back, request) = retry::send_back(delay, self.retry_limit);
        let settlement = Arc::clone(self);
        let window = Arc::clone(window);
        let Some(master) = self.group.core.routes.master_of(&window.queue) else {
            let (broker, id) = (&message.broker_name, message.msg_id());
            debug!("send-back of message {id} failed: no master of {broker} is known; published to the retry topic");
            let (publishing, changes) = sending_back.failed(&message);
            return self.publish(window, position, &message, publishing, &changes);
        };
        let origin = message.msg_id().into_owned();
        let broker_name = Arc::clone(&message.broker_name);
        let topic = Arc::clone(&message.message.topic);
        let header = ConsumerSendMsgBackRequest {
            offset: message.commit_log_offset,
            group: &self.group.name,
            delay_level: request.delay_level,
            origin_msg_id: Some(&origin),
            origin_topic: Some(&topic),
            unit_mode: Some(false),
            max_reconsume_times: Some(request.max_reconsume_times),
            broker_name: Some(&broker_name),
        };
        self.group.core.send_message_back(&master, &header, Instant::now() + SEND_BACK_TIMEOUT, move |answer| match answer {
            Ok(()) => {
                let _resolved = sending_back.acknowledged();
                settlement.resolved(&window, position);
            }
            Err(error) => {
                let broker = &message.broker_name;
                if let Some(times) = settlement.group.repeats.note(&format!("send-back {broker}"), Instant::now()) {
                    let (name, id) = (&settlement.group.name, message.msg_id());
                    warn!(
                        "send-back {name}: message {id} to broker {broker} failed ({times} so far): {error}; published to the \
                         retry topic"
                    );
                }
                let (publishing, changes) = sending_back.failed(&message);
                settlement.publish(window, position, &message, publishing, &changes);
            }
        });
    }

    fn publish(
        self: &Arc<Self>,
        window: Arc<PullWindow>,
        position: Position,
        message: &MessageExt,
        publishing: Publishing,
        changes: &RetryMessage,
    ) {
        let copy = self.retry_copy(message, changes);
        let reconsume_times = copy.property(name::RECONSUME_TIME).and_then(|times| times.parse().ok());
        let published = Published { settlement: Arc::clone(self), window, position, publishing };
        let deadline = Instant::now() + PUBLISH_TIMEOUT;
        let reconsume = Reconsume { times: reconsume_times.unwrap_or(0), limit: self.retry_limit.times() };
        let outgoing = Outgoing::again(&copy, message.sys_flag, reconsume, &self.group.core.identity);
        self.publisher.publish_again(outgoing, &message.broker_name, deadline, published);
    }

    /// The message as it is published: body, flag and properties as they came, but for what says that it is a retry.
    fn retry_copy(&self, message: &MessageExt, changes: &RetryMessage) -> Message {
        let mut properties: Properties = message.message.properties.clone();
        for name in changes.remove {
            properties.remove(name);
        }
        for (name, value) in &changes.set {
            properties.set(name, value);
        }
        Message::from_parts(
            Arc::clone(&self.group.retry_topic),
            message.message.body.clone(),
            message.message.flag,
            properties,
        )
    }

    fn not_given_back(self: &Arc<Self>, window: &Arc<PullWindow>, position: Position, error: &Error) {
        let now = Instant::now();
        let again = window.messages.lock().send_back_failed(position, now);
        self.group.core.changed();
        let Some(due) = again else { return };
        if let Some(times) = self.group.repeats.note("not given back", now) {
            let (name, queue) = (&self.group.name, &window.queue);
            warn!(
                "retry {name}: a message of {queue} failed ({times} so far): neither CONSUMER_SEND_MSG_BACK nor the retry topic \
                 accepted it: {error}; redelivered locally"
            );
        }
        self.consume_again_at(window, due);
    }
}

/// Waits for the publication of a failed message.
struct Published {
    settlement: Arc<Settlement>,
    window: Arc<PullWindow>,
    position: Position,
    publishing: Publishing,
}

impl Done for Published {
    fn done(send: Box<AsyncSend<Self>>) {
        let (Self { settlement, window, position, publishing }, result) = send.into_result();
        match result {
            Ok(_) => {
                let _resolved = publishing.stored();
                settlement.resolved(&window, position);
            }
            Err(error) => {
                let _unresolved = publishing.failed();
                settlement.not_given_back(&window, position, &error);
            }
        }
    }
}
