//! The fixed pool `rmq-consume-N`: runs the listener on shares of what was pulled.
//!
//! A [`ConsumeRequest`] is a share in one pull's messages: it travels through the channel once, and idle workers join
//! it, so that a batch size of 1 costs no channel message for each message. User code runs under a panic boundary; the
//! workers never wait for the network.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;

use crate::error::Result;
use crate::logging::{error, warn};
use crate::message::MessageExt;
use crate::wire;
use crate::worker::{Threads, Worker, contain, words_of};

use crate::consumer::deliver::listener::{ConsumeContext, ConsumeStatus};
use crate::consumer::deliver::retry::RetryDelay;
use crate::consumer::member::Consumer;
use crate::consumer::offset::driver::Window;
use crate::consumer::pull::request::{Claim, ConsumeRequest};

/// Bodies are restored for one call of the listener until they have this many bytes together; the batch goes on with the
/// next call. Compressed they may have been a thousandth of it.
const INFLATED_AT_ONCE: usize = 16 * 1024 * 1024;
/// Between two batches a worker reports what was consumed, and calls for help, when it last did so this long ago: quick
/// listeners rarely, slow ones each time.
const LOOK_AFTER: Duration = Duration::from_millis(2);

/// The threads that run one consumer's listener.
#[derive(Debug)]
pub(crate) struct Pool {
    state: Mutex<State>,
    shared: Arc<Shared>,
    /// Disconnected when the last worker has ended.
    all_ended: Receiver<()>,
}

#[derive(Debug)]
struct State {
    work: Option<Sender<Work>>,
    workers: Vec<Worker>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Workers that wait for work.
    idle: AtomicUsize,
    /// Workers that are in the listener.
    running: AtomicUsize,
}

struct Work {
    consumer: Arc<Consumer>,
    window: Arc<Window>,
    request: Arc<ConsumeRequest>,
}

impl Pool {
    /// Starts `size` threads. They wait until the first message comes.
    pub(crate) fn start(threads: &Threads, size: usize) -> Result<Self> {
        // Dropped last: when one thread cannot be had, the others end with the channel before they are waited for.
        let mut workers = Vec::new();
        let (work, inbox) = unbounded::<Work>();
        let (alive, all_ended) = bounded(0);
        let shared = Arc::new(Shared::default());
        for number in 0..size {
            let (inbox, shared, alive) = (inbox.clone(), Arc::clone(&shared), alive.clone());
            let body = move || {
                let _alive: Sender<()> = alive;
                run(&inbox, &shared);
            };
            workers.push(threads.start(format!("rmq-consume-{number}"), body)?);
        }
        Ok(Self { state: Mutex::new(State { work: Some(work), workers }), shared, all_ended })
    }

    /// Hands a request to the workers. One that comes after the end is left to the broker.
    pub(crate) fn submit(&self, consumer: &Arc<Consumer>, window: &Arc<Window>, request: Arc<ConsumeRequest>) {
        let work = self.state.lock().work.clone();
        if let Some(work) = work {
            let _ = work.send(Work { consumer: Arc::clone(consumer), window: Arc::clone(window), request });
        }
    }

    /// Takes no more work; what has not begun is not begun.
    pub(crate) fn close(&self) {
        self.state.lock().work = None;
    }

    /// Whether the caller runs on one of these threads.
    pub(crate) fn is_current(&self) -> bool {
        self.state.lock().workers.iter().any(Worker::is_current)
    }

    /// Waits for the workers after [`Pool::close`]. Returns how many are still in the listener at `deadline`; these are
    /// left behind. Several callers wait for the same workers, each until its own deadline.
    pub(crate) fn join(&self, deadline: Instant) -> usize {
        let _ = self.all_ended.recv_deadline(deadline);
        let workers = std::mem::take(&mut self.state.lock().workers);
        let mut running = 0;
        for mut worker in workers {
            if !worker.join_until(deadline) {
                warn!("{} is still in the listener", worker.name());
                running += 1;
                worker.detach();
            }
        }
        running
    }

    /// Workers that are in the listener now.
    pub(crate) fn running(&self) -> usize {
        self.shared.running.load(Ordering::Relaxed)
    }
}

fn run(inbox: &Receiver<Work>, shared: &Shared) {
    loop {
        shared.idle.fetch_add(1, Ordering::Relaxed);
        let received = inbox.recv();
        shared.idle.fetch_sub(1, Ordering::Relaxed);
        let Ok(work) = received else { return };
        let Work { consumer, window, request } = work;
        // Beyond the listener's own boundary: whatever unwinds here costs its messages a retry, and no thread.
        contain("consuming messages", || {
            Share { consumer: &consumer, window: &window, request: &request, shared }.consume();
        });
    }
}

/// One worker's part in one request.
struct Share<'a> {
    consumer: &'a Arc<Consumer>,
    window: &'a Arc<Window>,
    request: &'a Arc<ConsumeRequest>,
    shared: &'a Shared,
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
            let Some(claim) = self.request.claim(self.consumer.options.consume_batch, now) else { break };
            self.consume_batch(Unreported::failed(self, claim), &mut consumed);
        }
    }

    /// Lets an idle worker join when there is more in the request than one batch; that worker calls the next.
    fn call_for_help(&self) {
        let more = self.request.unclaimed().len() > self.consumer.options.consume_batch;
        if more && self.shared.idle.load(Ordering::Relaxed) > 0 {
            self.consumer.pool.submit(self.consumer, self.window, Arc::clone(self.request));
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
                if let Some(times) = self.consumer.repeats.note("unreadable", Instant::now()) {
                    let offset = bad.messages().first().map_or(0, |message| message.queue_offset);
                    warn!(
                        "reading message {offset} of {} failed ({times} so far): {error}; it takes the retry path without its \
                         listener",
                        self.window.queue
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
        let finished = self.window.messages.lock().finish(claim, consumed);
        self.consumer.offsets.progressed();
        if finished.drained {
            self.consumer.has_room(self.window);
        }
        if !finished.failed.is_empty() {
            self.consumer.send_back(self.window, finished.failed, delay);
        }
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
            match restored.decompress_body(self.consumer.options.max_body) {
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
        self.shared.running.fetch_add(1, Ordering::Relaxed);
        let status = catch_unwind(AssertUnwindSafe(|| self.consumer.listener.consume(messages, &mut context)));
        self.shared.running.fetch_sub(1, Ordering::Relaxed);
        let status = status.unwrap_or_else(|panic| {
            if let Some(times) = self.consumer.repeats.note("panic", Instant::now()) {
                error!(
                    "the listener of {} panicked at message {} of {}, which will be retried ({times} panics so far): {}",
                    self.consumer.group,
                    messages.first().map(|message| message.msg_id()).unwrap_or_default(),
                    self.window.queue,
                    words_of(&*panic)
                );
            }
            ConsumeStatus::RetryLater
        });
        (context.consumed(status, messages.len()), context.retry_delay)
    }
}
