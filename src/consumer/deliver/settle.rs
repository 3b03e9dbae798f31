//! Outcomes of messages: from the listener to the window, the offsets and, for failed ones, the way back to the broker.
//!
//! Runs on workers, on `rmq-timer`, and on `rmq-remoting`, where it must not block.

use std::sync::{Arc, Weak};
use std::time::Instant;

use crossbeam_channel::Sender as ChannelSender;

use crate::producer::RetryCodes;
use crate::producer::send::MessageSender;
use crate::wire::name::INNER_PRODUCER_GROUP;

use crate::consumer::deliver::Delivery;
use crate::consumer::deliver::retry::{RetryDelay, RetryLimit};
use crate::consumer::group::ConsumerGroup;
use crate::consumer::pull::pull_event::PullEvent;
use crate::consumer::pull::request::Claim;
use crate::consumer::pull::slot::Position;
use crate::consumer::pull::window::PullWindow;

/// Settlement of the messages of one consumer.
pub(super) struct Settlement {
    pub(super) group: Arc<ConsumerGroup>,
    pull: ChannelSender<PullEvent>,
    /// Publishes to the retry topic what a broker would not take back.
    pub(super) publisher: Arc<MessageSender>,
    pub(super) retry_limit: RetryLimit,
    /// Delivers again what no broker would take.
    delivery: Weak<dyn Delivery>,
}

impl Settlement {
    pub(super) fn new(
        group: Arc<ConsumerGroup>,
        pull: ChannelSender<PullEvent>,
        retry_limit: RetryLimit,
        delivery: Weak<dyn Delivery>,
    ) -> Arc<Self> {
        let name = Arc::from(INNER_PRODUCER_GROUP);
        let publisher = Arc::new(MessageSender::new(Arc::clone(&group.core), name, 2, RetryCodes::default()));
        Arc::new(Self { group, pull, publisher, retry_limit, delivery })
    }

    /// Ends a claim: its first `consumed` messages are consumed, the others are to be delivered again after `delay`.
    pub(super) fn finish(self: &Arc<Self>, window: &Arc<PullWindow>, claim: Claim, consumed: usize, delay: RetryDelay) {
        let finished = window.messages.lock().finish(claim, consumed);
        self.group.offsets.progressed();
        if finished.drained {
            self.has_room(window);
        }
        if !finished.failed.is_empty() {
            self.send_back(window, finished.failed, delay);
        }
    }

    /// A broker has a failed message again.
    pub(super) fn resolved(&self, window: &PullWindow, position: Position) {
        let drained = window.messages.lock().resolve(position);
        if drained {
            self.has_room(window);
        }
        self.group.offsets.progressed();
        self.group.core.changed();
    }

    /// Delivers the messages of a window again that are due by then.
    pub(super) fn consume_again_at(&self, window: &Arc<PullWindow>, due: Instant) {
        let (delivery, window) = (Weak::clone(&self.delivery), Arc::downgrade(window));
        self.group.core.timer.at(due, move || {
            let Some((delivery, window)) = delivery.upgrade().zip(window.upgrade()) else { return };
            let requests = window.messages.lock().consume_again(Instant::now());
            for request in requests {
                Arc::clone(&delivery).deliver(&window, request);
            }
        });
    }

    /// A window that was too full has room again.
    fn has_room(&self, window: &PullWindow) {
        let (queue, epoch) = (window.queue.clone(), window.epoch);
        // A pull thread that has ended needs no hints.
        let _ = self.pull.send(PullEvent::Hint { consumer: self.group.id, queue, epoch });
    }
}
