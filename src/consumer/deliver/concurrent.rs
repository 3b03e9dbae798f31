//! Concurrent delivery: a pool of workers that run the listener on batches in no order.
//!
//! User code runs under a panic boundary.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::logging::{error, info, warn};
use crate::message::MessageExt;
use crate::wire;
use crate::worker::{contain, words_of};

use crate::consumer::deliver::Delivery;
use crate::consumer::deliver::listener::{ConsumeContext, ConsumeStatus, Listener};
use crate::consumer::deliver::pool::{Pool, Work, Workers};
use crate::consumer::deliver::retry::{EXPIRED_DELAY_LEVEL, RetryDelay, RetryLimit};
use crate::consumer::deliver::settle::Settlement;
use crate::consumer::group::ConsumerGroup;
use crate::consumer::pull::pull_event::PullEvent;
use crate::consumer::pull::request::{Claim, ConsumeRequest};
use crate::consumer::pull::window::PullWindow;

/// Bodies are restored for one call of the listener until they have this many bytes together; the batch goes on with the
/// next call. Compressed they may have been a thousandth of it.
const INFLATED_AT_ONCE: usize = 16 * 1024 * 1024;
/// Between two batches a worker reports what was consumed, and calls for help, when it last did so this long ago: quick
/// listeners rarely, slow ones each time.
const LOOK_AFTER: Duration = Duration::from_millis(2);

/// Options of concurrent delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConcurrentOptions {
    pub(crate) consume_batch: usize,
    pub(crate) consume_timeout: Duration,
    pub(crate) retry_limit: RetryLimit,
    pub(crate) max_body: usize,
}

/// Delivery to a listener on several threads at once.
pub(crate) struct ConcurrentDelivery {
    group: Arc<ConsumerGroup>,
    listener: Listener,
    options: ConcurrentOptions,
    pool: Pool,
    settlement: Arc<Settlement>,
}

impl ConcurrentDelivery {
    pub(crate) fn new(
        group: &Arc<ConsumerGroup>,
        listener: Listener,
        options: ConcurrentOptions,
        pool: Pool,
        pull: Sender<PullEvent>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|own: &Weak<Self>| {
            let again: Weak<dyn Delivery> = own.clone();
            let settlement = Settlement::new(Arc::clone(group), pull, options.retry_limit, again);
            Self { group: Arc::clone(group), listener, options, pool, settlement }
        })
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }
}

impl Delivery for ConcurrentDelivery {
    fn deliver(self: Arc<Self>, window: &Arc<PullWindow>, request: Arc<ConsumeRequest>) {
        let work: Arc<dyn Work> = Arc::clone(&self) as _;
        self.pool.submit(work, window, request);
    }

    /// Sends back what has waited too long without being begun, and logs listeners that take long.
    fn look_after(self: Arc<Self>, now: Instant) {
        let limit = self.options.consume_timeout;
        let name = &self.group.name;
        for window in self.group.offsets.all_windows() {
            let (expired, slow, repetition) = {
                let mut messages = window.messages.lock();
                (messages.expire(limit, now), messages.slow(limit, now), messages.next_repetition())
            };
            let queue = &window.queue;
            if !expired.is_empty() {
                info!("consume {name}: {} messages of {queue} waited longer than {limit:?}; sent back", expired.len());
                let level = u8::try_from(EXPIRED_DELAY_LEVEL).unwrap_or(u8::MAX);
                self.settlement.send_back(&window, expired, RetryDelay::Level(level));
            }
            for message in slow {
                let (offset, running_for) = (message.offset, message.running_for);
                warn!("consume {name}: the listener has been busy with offset {offset} of {queue} for {running_for:?}");
            }
            // The net below the timer's job for each of them.
            if let Some(due) = repetition.filter(|due| *due <= now) {
                self.settlement.consume_again_at(&window, due);
            }
        }
    }

    fn close(&self) {
        self.pool.close();
    }
}

impl Work for ConcurrentDelivery {
    fn work(self: Arc<Self>, window: &Arc<PullWindow>, request: &Arc<ConsumeRequest>, workers: &Workers) {
        Share { delivery: &self, window, request, workers }.consume();
    }
}

/// One worker's part in one request.
struct Share<'a> {
    delivery: &'a Arc<ConcurrentDelivery>,
    window: &'a Arc<PullWindow>,
    request: &'a Arc<ConsumeRequest>,
    workers: &'a Workers,
}

/// A claim that is not reported yet. Dropped so, since something unwound, it reports that its messages failed, or that
/// they are consumed if they are.
struct Unreported<'a> {
    share: &'a Share<'a>,
    claim: Option<Claim>,
    is_consumed: bool,
}

impl<'a> Unreported<'a> {
    fn failed(share: &'a Share<'a>, claim: Claim) -> Self {
        Self { share, claim: Some(claim), is_consumed: false }
    }

    fn consumed(share: &'a Share<'a>) -> Self {
        Self { share, claim: None, is_consumed: true }
    }

    fn messages(&self) -> &'a [MessageExt] {
        self.claim.as_ref().map_or(&[], |claim| self.share.request.messages(claim))
    }

    /// Takes the first `count` messages out.
    fn split_to(&mut self, count: usize) -> Self {
        let claim = self.claim.as_mut().map(|claim| claim.split_to(count));
        Self { share: self.share, claim, is_consumed: self.is_consumed }
    }

    /// Keeps what is consumed, to be reported together with what follows it.
    fn add(&mut self, consumed: Claim) {
        let next = match self.claim.as_mut() {
            None => Some(consumed),
            Some(before) => before.join(consumed).err(),
        };
        if let Some(next) = next {
            self.report();
            self.claim = Some(next);
        }
    }

    fn report(&mut self) {
        if let Some(claim) = self.claim.take().filter(|claim| !claim.is_empty()) {
            self.share.report(claim, if self.is_consumed { usize::MAX } else { 0 }, RetryDelay::Growing);
        }
    }
}

impl Drop for Unreported<'_> {
    fn drop(&mut self) {
        // Never a second panic while the first unwinds.
        contain("reporting a failed claim", || self.report());
    }
}

impl Share<'_> {
    /// Claims batches until none is left. Batches that were consumed one behind the other are reported together.
    fn consume(&self) {
        self.call_for_help();
        let mut consumed = Unreported::consumed(self);
        let mut looked = Instant::now();
        loop {
            let now = Instant::now();
            if now - looked > LOOK_AFTER {
                looked = now;
                consumed.report();
                self.call_for_help();
            }
            let Some(claim) = self.request.claim(self.delivery.options.consume_batch, now) else { break };
            self.consume_batch(Unreported::failed(self, claim), &mut consumed);
        }
    }

    /// Lets an idle worker join when there is more in the request than one batch; that worker calls the next.
    fn call_for_help(&self) {
        let more = self.request.unclaimed().len() > self.delivery.options.consume_batch;
        if more && self.workers.has_idle() {
            Arc::clone(self.delivery).deliver(self.window, Arc::clone(self.request));
        }
    }

    /// Gives a batch to the listener. A message that cannot be decoded or decompressed fails without it, and parts the
    /// batch: its neighbours would fail with it each time they come again.
    fn consume_batch<'a>(&'a self, mut batch: Unreported<'a>, consumed: &mut Unreported<'a>) {
        let messages = batch.messages();
        if messages.iter().all(MessageExt::is_restored) {
            let (done, delay) = self.call(messages);
            return self.settle(batch, done, delay, consumed);
        }
        while !batch.messages().is_empty() {
            let (readable, trouble) = self.decompressed(batch.messages());
            let share = batch.split_to(readable.len());
            if !readable.is_empty() {
                let (done, delay) = self.call(&readable);
                self.settle(share, done, delay, consumed);
            }
            if let Some(error) = trouble {
                let mut bad = batch.split_to(1);
                if let Some(times) = self.delivery.group.repeats.note("unreadable", Instant::now()) {
                    let offset = bad.messages().first().map_or(0, |message| message.queue_offset);
                    warn!(
                        "consume {}: reading message {offset} of {} failed ({times} so far): {error}; retried without the \
                         listener",
                        self.delivery.group.name, self.window.queue
                    );
                }
                bad.report();
            }
        }
    }

    /// Reports what the listener has done, or keeps it for later when all is consumed.
    fn settle<'a>(&'a self, mut batch: Unreported<'a>, done: usize, delay: RetryDelay, consumed: &mut Unreported<'a>) {
        let is_consumed = done == batch.messages().len();
        let Some(claim) = batch.claim.take() else { return };
        if is_consumed {
            return consumed.add(claim);
        }
        consumed.report();
        self.report(claim, done, delay);
    }

    fn report(&self, claim: Claim, consumed: usize, delay: RetryDelay) {
        self.delivery.settlement.finish(self.window, claim, consumed, delay);
    }

    /// The messages up to the first whose body cannot be read, and why that one cannot; or as many as may be restored at
    /// once.
    fn decompressed(&self, messages: &[MessageExt]) -> (Vec<MessageExt>, Option<wire::Error>) {
        let mut readable = Vec::with_capacity(messages.len());
        let mut inflated = 0;
        for message in messages {
            if inflated >= INFLATED_AT_ONCE {
                break;
            }
            let mut restored = message.clone();
            match restored.decompress_body(self.delivery.options.max_body) {
                Ok(()) if message.is_restored() => readable.push(restored),
                Ok(()) => {
                    inflated += restored.body().len();
                    readable.push(restored);
                }
                Err(error) => return (readable, Some(error)),
            }
        }
        (readable, None)
    }

    /// Runs the listener. Returns how many messages it consumed, and when the others are to come again.
    fn call(&self, messages: &[MessageExt]) -> (usize, RetryDelay) {
        let mut context = ConsumeContext::new(self.window.queue.clone());
        let status = self.workers.while_running(|| {
            catch_unwind(AssertUnwindSafe(|| self.delivery.listener.consume(messages, &mut context)))
        });
        let status = status.unwrap_or_else(|panic| {
            if let Some(times) = self.delivery.group.repeats.note("panic", Instant::now()) {
                error!(
                    "consume {}: the listener panicked at message {} of {} ({times} panics so far): {}; retried",
                    self.delivery.group.name,
                    messages.first().map(|message| message.msg_id()).unwrap_or_default(),
                    self.window.queue,
                    words_of(&*panic)
                );
            }
            ConsumeStatus::RetryLater
        });
        (context.consumed(status, messages.len()), context.retry_delay())
    }
}
