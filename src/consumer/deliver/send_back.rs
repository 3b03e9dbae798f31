//! Carries out the way of a failed message: back to the broker, else into the retry topic, else here again.
//!
//! Everything is asynchronous; a message that is on this way is in a state of its own, and no offset passes it. Runs on
//! workers, on `rmq-timer`, and on `rmq-remoting`, where it must not block.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::logging::{debug, info, warn};
use crate::message::properties::{Properties, name};
use crate::message::{Message, MessageExt};
use crate::producer::send::{AsyncSend, Done};
use crate::wire::header::ConsumerSendMsgBackRequest;

use crate::consumer::deliver::retry::{self, EXPIRED_DELAY_LEVEL, Publishing, RetryDelay, RetryMessage};
use crate::consumer::member::Consumer;
use crate::consumer::offset::driver::Window;
use crate::consumer::pull::slot::{FailedMessage, Position};

/// How long a broker has to take a message back. (Java: the same 5 s)
const SEND_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the publication instead may take, all attempts together.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

impl Consumer {
    /// Gives failed messages back, each to end in exactly one report to its window.
    pub(crate) fn send_back(self: &Arc<Self>, window: &Arc<Window>, failed: Vec<FailedMessage>, delay: RetryDelay) {
        if delay == RetryDelay::Level(0)
            && let Some(times) = self.repeats.note("level 0", Instant::now())
        {
            let group = &self.group;
            warn!(
                "{group}: there is no delay level 0 ({times} so far): levels begin at 1, and retries are delayed as usual"
            );
        }
        for failed in failed {
            self.send_one_back(window, failed, delay);
        }
    }

    fn send_one_back(self: &Arc<Self>, window: &Arc<Window>, failed: FailedMessage, delay: RetryDelay) {
        let FailedMessage { position, message } = failed;
        let (sending_back, request) = retry::send_back(delay, self.options.retry_limit);
        let consumer = Arc::clone(self);
        let window = Arc::clone(window);
        let Some(master) = self.core.routes.master_of(&window.queue) else {
            debug!("no master of {} is known: message {} is published instead", message.broker_name, message.msg_id());
            let (publishing, changes) = sending_back.failed(&message);
            return self.publish(window, position, &message, publishing, &changes);
        };
        let origin = message.msg_id().into_owned();
        let broker_name = Arc::clone(&message.broker_name);
        let topic = Arc::clone(&message.message.topic);
        let header = ConsumerSendMsgBackRequest {
            offset: message.commit_log_offset,
            group: &self.group,
            delay_level: request.delay_level,
            origin_msg_id: Some(&origin),
            origin_topic: Some(&topic),
            unit_mode: Some(false),
            max_reconsume_times: Some(request.max_reconsume_times),
            broker_name: Some(&broker_name),
        };
        self.core.send_message_back(&master, &header, Instant::now() + SEND_BACK_TIMEOUT, move |answer| match answer {
            Ok(()) => {
                let _resolved = sending_back.acknowledged();
                consumer.resolved(&window, position);
            }
            Err(error) => {
                let broker = &message.broker_name;
                if let Some(times) = consumer.repeats.note(&format!("send-back {broker}"), Instant::now()) {
                    warn!("broker {broker} did not take message {} back ({times} so far): {error}", message.msg_id());
                }
                let (publishing, changes) = sending_back.failed(&message);
                consumer.publish(window, position, &message, publishing, &changes);
            }
        });
    }

    fn publish(
        self: &Arc<Self>,
        window: Arc<Window>,
        position: Position,
        message: &MessageExt,
        publishing: Publishing,
        changes: &RetryMessage,
    ) {
        let copy = self.retry_copy(message, changes);
        let reconsume_times = copy.property(name::RECONSUME_TIME).and_then(|times| times.parse().ok());
        let published = Published { consumer: Arc::clone(self), window, position, publishing };
        let deadline = Instant::now() + PUBLISH_TIMEOUT;
        let limit = self.options.retry_limit.times();
        let reconsume = (reconsume_times, limit);
        self.publisher.publish_again(&copy, message.sys_flag, reconsume, &message.broker_name, deadline, published);
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
            Arc::clone(&self.retry_topic),
            message.message.body.clone(),
            message.message.flag,
            properties,
        )
    }

    fn resolved(self: &Arc<Self>, window: &Arc<Window>, position: Position) {
        let drained = window.messages.lock().resolve(position);
        if drained {
            self.has_room(window);
        }
        self.offsets.progressed();
        self.core.changed();
    }

    fn not_given_back(self: &Arc<Self>, window: &Arc<Window>, position: Position, error: &Error) {
        let now = Instant::now();
        let again = window.messages.lock().send_back_failed(position, now);
        self.core.changed();
        let Some(due) = again else { return };
        if let Some(times) = self.repeats.note("not given back", now) {
            warn!(
                "a message of {} can neither be sent back nor published and will be consumed here again ({times} so far): \
                 {error}",
                window.queue
            );
        }
        self.consume_again_at(window, due);
    }

    fn consume_again_at(self: &Arc<Self>, window: &Arc<Window>, due: Instant) {
        let (consumer, window) = (Arc::downgrade(self), Arc::downgrade(window));
        self.core.timer.at(due, move || {
            let Some((consumer, window)) = consumer.upgrade().zip(window.upgrade()) else { return };
            let requests = window.messages.lock().consume_again(Instant::now());
            for request in requests {
                consumer.pool.submit(&consumer, &window, request);
            }
        });
    }

    /// Sends back what has waited too long without being begun, and tells of listeners that take long.
    pub(crate) fn look_after_waiting(self: &Arc<Self>, now: Instant) {
        let limit = self.options.consume_timeout;
        for window in self.offsets.all_windows() {
            let (expired, slow, repetition) = {
                let mut messages = window.messages.lock();
                (messages.expire(limit, now), messages.slow(limit, now), messages.next_repetition())
            };
            if !expired.is_empty() {
                info!("{} messages of {} waited longer than {limit:?} and go back", expired.len(), window.queue);
                let level = u8::try_from(EXPIRED_DELAY_LEVEL).unwrap_or(u8::MAX);
                self.send_back(&window, expired, RetryDelay::Level(level));
            }
            for message in slow {
                warn!(
                    "the listener of {} has been busy with offset {} of {} for {:?}",
                    self.group, message.offset, window.queue, message.running_for
                );
            }
            // The net below the timer's job for each of them.
            if let Some(due) = repetition.filter(|due| *due <= now) {
                self.consume_again_at(&window, due);
            }
        }
    }
}

/// Waits for the publication of a failed message.
struct Published {
    consumer: Arc<Consumer>,
    window: Arc<Window>,
    position: Position,
    publishing: Publishing,
}

impl Done for Published {
    fn done(send: Box<AsyncSend<Self>>) {
        let (Self { consumer, window, position, publishing }, result) = send.into_result();
        match result {
            Ok(_) => {
                let _resolved = publishing.stored();
                consumer.resolved(&window, position);
            }
            Err(error) => {
                let _unresolved = publishing.failed();
                consumer.not_given_back(&window, position, &error);
            }
        }
    }
}
