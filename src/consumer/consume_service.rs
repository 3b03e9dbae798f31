//! The fixed pool `rmq-consume-N`: runs the listener on shares of what was pulled.
//!
//! A [`ConsumeRequest`] is a share in one pull's messages: it travels through the channel once, and idle workers join
//! it, so that a batch size of 1 costs no channel message for each message. User code runs under a panic boundary; the
//! workers never wait for the network.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use log::{error, warn};
use parking_lot::Mutex;

use crate::error::Result;
use crate::message::MessageExt;
use crate::wire;
use crate::worker::{Threads, Worker};

use super::listener::{ConsumeContext, ConsumeStatus};
use super::member::Consumer;
use super::offset_driver::Window;
use super::process_queue::{Claim, ConsumeRequest};
use super::retry::RetryDelay;

/// Between two batches a worker reports what was consumed, and calls for help, when it last did so this long ago: quick
/// listeners rarely, slow ones each time.
const LOOK_AFTER: Duration = Duration::from_millis(2);

/// The threads that run one consumer's listener.
#[derive(Debug)]
pub(super) struct Pool {
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
    pub(super) fn start(threads: &Threads, size: usize) -> Result<Self> {
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
    pub(super) fn submit(&self, consumer: &Arc<Consumer>, window: &Arc<Window>, request: Arc<ConsumeRequest>) {
        let work = self.state.lock().work.clone();
        if let Some(work) = work {
            let _ = work.send(Work { consumer: Arc::clone(consumer), window: Arc::clone(window), request });
        }
    }

    /// Takes no more work; what has not begun is not begun.
    pub(super) fn close(&self) {
        self.state.lock().work = None;
    }

    /// Whether the caller runs on one of these threads.
    pub(super) fn is_current(&self) -> bool {
        self.state.lock().workers.iter().any(Worker::is_current)
    }

    /// Waits for the workers after [`Pool::close`]. Returns how many are still in the listener at `deadline`; these are
    /// left behind. Several callers wait for the same workers, each until its own deadline.
    pub(super) fn join(&self, deadline: Instant) -> usize {
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
    pub(super) fn running(&self) -> usize {
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
        Share { consumer: &consumer, window: &window, request: &request, shared }.consume();
    }
}

/// One worker's part in one request.
struct Share<'a> {
    consumer: &'a Arc<Consumer>,
    window: &'a Arc<Window>,
    request: &'a Arc<ConsumeRequest>,
    shared: &'a Shared,
}

impl Share<'_> {
    /// Claims batches until none is left. Batches that were consumed one behind the other are reported together.
    fn consume(&self) {
        self.call_for_help();
        let mut consumed = None;
        let mut looked = Instant::now();
        loop {
            let now = Instant::now();
            if now - looked > LOOK_AFTER {
                looked = now;
                self.report_consumed(consumed.take());
                self.call_for_help();
            }
            let Some(claim) = self.request.claim(self.consumer.options.consume_batch, now) else { break };
            self.consume_batch(claim, &mut consumed);
        }
        self.report_consumed(consumed);
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
    fn consume_batch(&self, mut claim: Claim, consumed: &mut Option<Claim>) {
        let messages = self.request.messages(&claim);
        if messages.iter().all(MessageExt::is_restored) {
            let (done, delay) = self.call(messages);
            return self.settle(claim, done, delay, consumed);
        }
        while !claim.is_empty() {
            let (readable, trouble) = self.decompressed(self.request.messages(&claim));
            let batch = claim.split_to(readable.len());
            if !readable.is_empty() {
                let (done, delay) = self.call(&readable);
                self.settle(batch, done, delay, consumed);
            }
            if let Some(error) = trouble {
                let bad = claim.split_to(1);
                let offset = self.request.messages(&bad).first().map_or(0, |message| message.queue_offset);
                warn!(
                    "reading message {offset} of {} failed: {error}; it takes the retry path without its listener",
                    self.window.queue
                );
                self.report(bad, 0, RetryDelay::Growing);
            }
        }
    }

    /// Reports what the listener has done, or keeps it for later when all is consumed.
    fn settle(&self, claim: Claim, done: usize, delay: RetryDelay, consumed: &mut Option<Claim>) {
        if done < self.request.messages(&claim).len() {
            self.report_consumed(consumed.take());
            return self.report(claim, done, delay);
        }
        *consumed = match consumed.take() {
            None => Some(claim),
            Some(mut before) => match before.join(claim) {
                Ok(()) => Some(before),
                Err(claim) => {
                    self.report_consumed(Some(before));
                    Some(claim)
                }
            },
        };
    }

    fn report_consumed(&self, consumed: Option<Claim>) {
        if let Some(claim) = consumed {
            self.report(claim, usize::MAX, RetryDelay::Growing);
        }
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

    /// The messages up to the first whose body cannot be read, and why that one cannot.
    fn decompressed(&self, messages: &[MessageExt]) -> (Vec<MessageExt>, Option<wire::Error>) {
        let mut readable = Vec::with_capacity(messages.len());
        for message in messages {
            let mut message = message.clone();
            match message.decompress_body(self.consumer.options.max_body) {
                Ok(()) => readable.push(message),
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
            error!(
                "the listener of {} panicked at message {} of {}, which will be retried: {}",
                self.consumer.group,
                messages.first().map(|message| message.msg_id()).unwrap_or_default(),
                self.window.queue,
                words_of(&*panic)
            );
            ConsumeStatus::RetryLater
        });
        (context.consumed(status, messages.len()), context.retry_delay)
    }
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no words")
}
