//! The operation that sends a message: one set of decisions, driven by callers' threads for synchronous sends and by
//! completions for asynchronous ones.
//!
//! Used by producers, and by consumers for messages that a broker does not take back.

pub(crate) mod attempts;
pub(crate) mod completions;
pub(crate) mod lanes;
pub(crate) mod outgoing;
pub(crate) mod result;
pub(crate) mod selector;
pub(crate) mod window;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use crate::client::Core;
use crate::client::route::{PublishQueue, TopicRoute};
use crate::client::rpc::unreadable;
use crate::error::{Certainty, Error, ErrorKind, Phase, Result};
use crate::message::{Message, MessageQueue};
use crate::name_map::NameMap;
use crate::producer::send::attempts::{Attempts, Failure, Next, RetryCodes};
use crate::producer::send::lanes::{Entered, Lanes};
use crate::producer::send::outgoing::Outgoing;
use crate::producer::send::result::{SendReceipt, SendResult, SendStatus};
use crate::remoting::{Complete, Completion, Outcome};
use crate::wire::header::SendMessageRequestV2;
use crate::wire::{RemotingCommand, ResponseCode};

/// Refreshes of routes after which an unused topic is forgotten: by default ten minutes, in which a broker still lists
/// the producer.
const FORGOTTEN_AFTER: u32 = 20;

/// Sends messages in the name of one producer group.
pub(crate) struct MessageSender {
    pub(crate) core: Arc<Core>,
    group: Arc<str>,
    pub(crate) retries: u32,
    retry_codes: RetryCodes,
    /// Round-robin counter per topic in use.
    turns: RwLock<NameMap<Turn>>,
    /// The asynchronous sends to given queues.
    lanes: Mutex<Lanes<Box<dyn InLane>>>,
}

/// The round robin over the queues of one topic.
#[derive(Debug)]
struct Turn {
    /// Counts up for each send to no given queue.
    next: AtomicUsize,
    /// Something was sent since idle topics were last looked for.
    is_used: AtomicBool,
    /// Refreshes in a row without a send.
    idle_rounds: u32,
}

/// Destination of a message.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// To all queues of the topic in turn.
    InTurn,
    /// To this queue and no other.
    Queue(MessageQueue),
}

impl Target {
    /// The queue whose sends keep their order. Where the broker chooses the queue there is none to keep.
    fn lane(&self) -> Option<&MessageQueue> {
        match self {
            Self::Queue(queue) if queue.queue_id >= 0 => Some(queue),
            Self::InTurn | Self::Queue(_) => None,
        }
    }
}

/// One message on its way.
#[derive(Debug)]
pub(crate) struct SendOperation {
    outgoing: Outgoing,
    target: Target,
    attempts: Attempts,
    route: Option<Arc<TopicRoute>>,
    current: Option<Current>,
    /// Receipt of an attempt that was stored with a degraded status, with its broker; the result if no later attempt
    /// does better.
    stored: Option<Box<(SendReceipt, Arc<str>)>>,
}

/// The attempt under way.
#[derive(Clone, Copy, Debug)]
struct Current {
    /// Of the queue in the route.
    index: usize,
    begun: Instant,
    /// The topic does not exist yet. The route says so too, but is not looked at when all went well.
    creates_topic: bool,
}

/// Next wait of a send.
enum Step {
    Route,
    Answer { limit: Instant },
    Pause { until: Instant },
    Over,
}

impl MessageSender {
    pub(crate) fn new(core: Arc<Core>, group: Arc<str>, retries: u32, retry_codes: RetryCodes) -> Self {
        Self { core, group, retries, retry_codes, turns: RwLock::default(), lanes: Mutex::default() }
    }

    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group
    }

    /// A send that has `deadline` for everything: route, connections and all attempts.
    pub(crate) fn begin(&self, outgoing: Outgoing, target: Target, deadline: Instant) -> SendOperation {
        let pinned = matches!(target, Target::Queue(_));
        let attempts = Attempts::new(self.retries, pinned, deadline);
        SendOperation { outgoing, target, attempts, route: None, current: None, stored: None }
    }

    /// Sends on the caller's thread, and returns when the message is stored or the send is over.
    pub(crate) fn send(&self, mut send: SendOperation) -> Result<SendResult> {
        loop {
            let limit = match self.await_attempt(&mut send) {
                Ok(limit) => limit,
                Err(error) => return send.end(Err(error)),
            };
            let Some(queue) = send.queue() else { continue };
            let header = send.header(&self.group, queue);
            let outcome = self.core.remoting.invoke(&queue.address, send.outgoing.request(&header), limit);
            if let Some(verdict) = self.verdict(&mut send, outcome) {
                return send.end(verdict);
            }
        }
    }

    /// Waits on the caller's thread until there is something to try. Returns how long that may take.
    fn await_attempt(&self, send: &mut SendOperation) -> Result<Instant> {
        loop {
            match self.step(send) {
                Step::Route => {
                    let route = self.core.routes.wait(&send.outgoing.topic, send.attempts.deadline());
                    send.route = Some(route.map_err(|error| send.attempts.qualified(error))?);
                }
                Step::Answer { limit } => return Ok(limit),
                Step::Pause { until } => park_until(until),
                Step::Over => return Err(send.take_error()),
            }
        }
    }

    /// Sends without waiting; `done` receives the send at its end.
    pub(crate) fn send_async<D: Done>(self: &Arc<Self>, send: SendOperation, done: D) {
        let lane = send.target.lane().cloned();
        let send = Box::new(AsyncSend { sender: Arc::clone(self), send, done, end: End::Open, place: None });
        match lane {
            Some(queue) => self.enter_lane(&queue, send),
            None => send.go_on(self),
        }
    }

    /// Begins the send when those before it to the same queue are over.
    fn enter_lane<D: Done>(self: &Arc<Self>, queue: &MessageQueue, send: Box<AsyncSend<D>>) {
        let entered = self.lanes.lock().enter(queue, send.send.attempts.deadline(), send);
        match entered {
            Entered::Begins(send) => self.begin_in_lane(queue, send),
            Entered::Waits => {}
            Entered::WaitsUntil(deadline) => {
                let (sender, queue) = (Arc::downgrade(self), queue.clone());
                self.core.timer.at(deadline, move || {
                    let Some(sender) = sender.upgrade() else { return };
                    let late = sender.lanes.lock().give_up(&queue, Instant::now());
                    late.into_iter().for_each(InLane::give_up);
                });
            }
        }
    }

    /// Begins a send whose turn it is, and those behind it as long as each ends while it is begun.
    fn begin_in_lane(self: &Arc<Self>, queue: &MessageQueue, send: Box<dyn InLane>) {
        let mut next = Some(send);
        while let Some(send) = next {
            send.begin(LanePlace { sender: Arc::clone(self), queue: queue.clone() });
            next = self.lanes.lock().begun(queue);
        }
    }

    /// Sends a message that was received before and could not be consumed. If possible not through `broker`, which did not
    /// take it back.
    pub(crate) fn publish_again<D: Done>(
        self: &Arc<Self>,
        outgoing: Outgoing,
        broker: &Arc<str>,
        deadline: Instant,
        done: D,
    ) {
        let mut send = self.begin(outgoing, Target::InTurn, deadline);
        send.attempts.avoid(broker);
        self.send_async(send, done);
    }

    /// Hands the message to the connection of a broker that can be reached; there is no answer, and so no attempt after
    /// one that was accepted.
    pub(crate) fn send_oneway(&self, mut send: SendOperation) -> Result<()> {
        loop {
            let limit = self.await_attempt(&mut send)?;
            let Some(queue) = send.queue() else { continue };
            let header = send.header(&self.group, queue);
            let accepted = self.core.remoting.invoke_oneway(&queue.address, send.outgoing.request(&header), limit);
            let Err(error) = accepted else { return Ok(()) };
            if let Some(verdict) = self.failed(&mut send, error.phase, error.into(), None) {
                return verdict.map(drop);
            }
        }
    }

    /// Lets `select` choose one of the topic's queues.
    pub(crate) fn select_queue<S>(&self, message: &Message, deadline: Instant, select: S) -> Result<MessageQueue>
    where
        S: FnOnce(&[MessageQueue], &Message) -> usize,
    {
        let route = self.core.routes.wait(&message.topic, deadline)?;
        let queues: Vec<_> = route.publish.iter().map(|publish| publish.queue.clone()).collect();
        let bad = |detail: String| Error::new(ErrorKind::BadSelection, detail);
        let index = catch_unwind(AssertUnwindSafe(|| select(&queues, message)))
            .map_err(|_| bad(format!("the queue selector panicked for a message to {}", message.topic)))?;
        queues.get(index).cloned().ok_or_else(|| {
            bad(format!("the queue selector chose number {index} of the {} queues of {}", queues.len(), message.topic))
        })
    }

    fn step(&self, send: &mut SendOperation) -> Step {
        if send.route.is_none() {
            match self.core.routes.known(&send.outgoing.topic) {
                Some(route) if !route.publish.is_empty() => send.route = Some(route),
                _ if Instant::now() < send.attempts.deadline() => return Step::Route,
                _ => return Step::Over,
            }
        }
        let Some(route) = &send.route else { return Step::Route };
        let choice = match &send.target {
            Target::InTurn => 0..route.publish.len(),
            Target::Queue(queue) => {
                let index = route.publish.iter().position(|publish| leads_to(&publish.queue, queue));
                index.map_or(0..0, |index| index..index + 1)
            }
        };
        let queues = route.publish.get(choice.clone()).unwrap_or_default();
        let now = Instant::now();
        let reachable = |queue: &PublishQueue| self.core.remoting.is_reachable(&queue.address);
        let turn = || match &send.target {
            Target::InTurn => self.turn(&route.topic),
            Target::Queue(_) => self.note_use(&route.topic),
        };
        match send.attempts.next(now, queues, turn, reachable) {
            Next::Try { index, limit } => {
                let creates_topic = route.to_be_created;
                send.current = Some(Current { index: choice.start + index, begun: now, creates_topic });
                Step::Answer { limit }
            }
            Next::Pause { until } => {
                // Every broker of this route has failed: what a name server says now counts behind the pause, however
                // little the time since the route was last doubted.
                self.core.refresh_route(&send.outgoing.topic);
                send.route = None;
                Step::Pause { until }
            }
            Next::GiveUp => Step::Over,
        }
    }

    /// The topics that were sent to.
    pub(crate) fn topics(&self) -> Vec<Arc<str>> {
        self.turns.read().keys().cloned().collect()
    }

    /// Forgets topics that were not sent to for long.
    pub(crate) fn forget_idle_topics(&self) {
        self.turns.write().retain(|_, turn| {
            let is_used = std::mem::take(turn.is_used.get_mut());
            turn.idle_rounds = if is_used { 0 } else { turn.idle_rounds + 1 };
            turn.idle_rounds < FORGOTTEN_AFTER
        });
    }

    /// Counts up for each send to a topic that may go to any queue.
    fn turn(&self, topic: &Arc<str>) -> usize {
        self.with_turn(topic, |turn| turn.next.fetch_add(1, Ordering::Relaxed))
    }

    /// The topic is in use. A send to a given queue takes no turn: where every second send is one, the others would go to
    /// every second queue only.
    pub(crate) fn note_use(&self, topic: &Arc<str>) -> usize {
        self.with_turn(topic, |_| 0)
    }

    fn with_turn(&self, topic: &Arc<str>, take: impl Fn(&Turn) -> usize) -> usize {
        let take = |turn: &Turn| {
            // Nearly always noted already: a look disturbs no other thread's cache.
            if !turn.is_used.load(Ordering::Relaxed) {
                turn.is_used.store(true, Ordering::Relaxed);
            }
            take(turn)
        };
        if let Some(turn) = self.turns.read().get(topic) {
            return take(turn);
        }
        let next = || AtomicUsize::new(self.core.identity.random_start());
        let turn = || Turn { next: next(), is_used: AtomicBool::new(true), idle_rounds: 0 };
        take(self.turns.write().entry(Arc::clone(topic)).or_insert_with(turn))
    }

    /// Result of an attempt: the end of the send, or `None` when it continues.
    fn verdict(&self, send: &mut SendOperation, outcome: Outcome) -> Option<Result<SendReceipt>> {
        match outcome {
            // Nearly every outcome. It leaves the route alone, whose counter is busy with the sends that begin meanwhile.
            Ok(response) if response.response_code() == ResponseCode::SUCCESS => {
                Some(self.stored(send, SendStatus::Ok, &response))
            }
            Ok(response) => self.answered(send, &response),
            Err(error) => self.failed(send, error.phase, error.into(), None),
        }
    }

    /// The broker did not store the message, or less safely than it should.
    fn answered(&self, send: &mut SendOperation, response: &RemotingCommand) -> Option<Result<SendReceipt>> {
        let code = response.response_code();
        let refused = |send: &SendOperation| Error::refused(code, response.remark.as_deref(), send.address());
        let Some(status) = SendStatus::of(code) else {
            let error = refused(send);
            return self.failed(send, Phase::Answered, error, None);
        };
        match self.stored(send, status, response) {
            Ok(receipt) if self.retry_codes.contains(code) => {
                let error = refused(send).with_certainty(Certainty::Stored);
                self.failed(send, Phase::Answered, error, Some(receipt))
            }
            verdict => Some(verdict),
        }
    }

    /// Reads what the broker says of a message that it stored. A topic that the message created has a route of its own
    /// from now on.
    fn stored(&self, send: &SendOperation, status: SendStatus, response: &RemotingCommand) -> Result<SendReceipt> {
        if send.current.is_some_and(|current| current.creates_topic) {
            self.core.refresh_suspected_route(&send.outgoing.topic);
        }
        SendReceipt::read(status, response)
            .map_err(|error| unreadable(send.address(), &error).with_certainty(Certainty::Stored))
    }

    /// Notes the failure. The next step decides about another attempt, unless the client has ended.
    fn failed(
        &self,
        send: &mut SendOperation,
        phase: Phase,
        error: Error,
        stored: Option<SendReceipt>,
    ) -> Option<Result<SendReceipt>> {
        if error.is_of_an_ended_client() {
            return Some(Err(send.attempts.qualified(error)));
        }
        let broker = Arc::clone(&send.queue()?.queue.broker_name);
        let begun = send.current.take()?.begun;
        // The route may be what is wrong: a broker that moved, a topic that was deleted there.
        self.core.refresh_suspected_route(&send.outgoing.topic);
        send.route = None;
        if let Some(receipt) = stored {
            send.stored = Some(Box::new((receipt, Arc::clone(&broker))));
        }
        let failure = Failure { broker, begun, phase, error };
        send.attempts.failed(Instant::now(), failure, &self.retry_codes);
        None
    }
}

impl std::fmt::Debug for MessageSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageSender").field("group", &self.group).finish_non_exhaustive()
    }
}

impl SendOperation {
    /// Bytes it holds.
    pub(crate) fn size(&self) -> usize {
        self.outgoing.size()
    }

    /// Queue of the attempt under way.
    fn queue(&self) -> Option<&PublishQueue> {
        self.route.as_ref()?.publish.get(self.current?.index)
    }

    /// The header of an attempt at `queue`.
    fn header<'a>(&'a self, group: &'a str, queue: &'a PublishQueue) -> SendMessageRequestV2<'a> {
        let queue_id = match &self.target {
            Target::Queue(wanted) => wanted.queue_id,
            Target::InTurn => queue.queue.queue_id,
        };
        self.outgoing.header(group, &queue.queue.broker_name, queue_id)
    }

    /// The address of the broker that it goes to.
    fn address(&self) -> &str {
        self.queue().map_or("", |target| &target.address)
    }

    /// Result for the caller. The failure of a later attempt to store a message better does not change that it is
    /// stored.
    fn end(mut self, verdict: Result<SendReceipt>) -> Result<SendResult> {
        let broker_name = self.queue().map(|target| Arc::clone(&target.queue.broker_name));
        let stored = match (verdict, broker_name) {
            (Ok(receipt), Some(name)) => Ok((receipt, name)),
            (Err(error), _) => self.stored.take().map(|stored| *stored).ok_or(error),
            (Ok(_), None) => Err(self.take_error()),
        };
        let (receipt, broker_name) = stored?;
        let (topic, msg_id) = self.outgoing.into_topic_and_id();
        Ok(receipt.into_result(msg_id, topic, broker_name))
    }

    /// The error for all failed attempts.
    fn take_error(&mut self) -> Error {
        let topic = &self.outgoing.topic;
        let no_queue = match &self.target {
            Target::Queue(queue) => format!("queue {queue} is not among those that can be written"),
            Target::InTurn => format!("topic {topic} has no queue that can be written"),
        };
        self.attempts.take_error(Instant::now(), topic, &no_queue)
    }
}

/// Completion target of an asynchronous send, owned by the operation.
pub(crate) trait Done: Sized + Send + 'static {
    /// Takes the send when it is over. Called on `rmq-remoting` or the caller's thread: must neither block nor run user
    /// code.
    fn done(send: Box<AsyncSend<Self>>);
}

/// An asynchronous send: one box passes from step to step and, in the end, to its completion target.
pub(crate) struct AsyncSend<D> {
    sender: Arc<MessageSender>,
    send: SendOperation,
    end: End,
    done: D,
    /// Of a send to a given queue, while it is under way.
    place: Option<LanePlace>,
}

/// A send that waits for those before it to the same queue.
trait InLane: Send {
    /// Its turn has come.
    fn begin(self: Box<Self>, place: LanePlace);

    /// Its deadline has come before its turn.
    fn give_up(self: Box<Self>);
}

/// The only place for a send under way to one queue. Dropped, it is the next one's.
struct LanePlace {
    sender: Arc<MessageSender>,
    queue: MessageQueue,
}

impl Drop for LanePlace {
    fn drop(&mut self) {
        let next = self.sender.lanes.lock().over(&self.queue);
        if let Some(send) = next {
            self.sender.begin_in_lane(&self.queue, send);
        }
    }
}

enum End {
    Open,
    Stored(SendReceipt),
    Failed(Error),
}

impl<D> AsyncSend<D> {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.sender.core
    }

    /// The completion target.
    pub(crate) fn done(&mut self) -> &mut D {
        &mut self.done
    }

    /// The completion target and the result.
    #[allow(clippy::boxed_local, reason = "it is opened where it is used up")]
    pub(crate) fn into_result(self: Box<Self>) -> (D, Result<SendResult>) {
        let Self { mut send, end, done, .. } = *self;
        let result = match end {
            End::Stored(receipt) => send.end(Ok(receipt)),
            End::Failed(error) => send.end(Err(error)),
            End::Open => Err(send.take_error()),
        };
        (done, result)
    }
}

impl<D: Done> AsyncSend<D> {
    /// Goes on after a wait.
    fn resume(self: Box<Self>) {
        let sender = Arc::clone(&self.sender);
        self.go_on(&sender);
    }

    /// Takes the next step. `sender` is its own, lent: the send itself moves to where the step leads.
    fn go_on(mut self: Box<Self>, sender: &MessageSender) {
        match sender.step(&mut self.send) {
            Step::Route => {
                let topic = Arc::clone(&self.send.outgoing.topic);
                let deadline = self.send.attempts.deadline();
                let waiter = Box::new(move |route| self.routed(route));
                sender.core.routes.look_up_to_publish(&topic, deadline, waiter);
            }
            Step::Answer { limit } => self.invoke(sender, limit),
            Step::Pause { until } => {
                let paused = Paused(Some(self));
                sender.core.timer.at(until, move || paused.resume());
            }
            Step::Over => {
                let error = self.send.take_error();
                self.finish(End::Failed(error));
            }
        }
    }

    fn routed(mut self: Box<Self>, route: Result<Arc<TopicRoute>>) {
        match route {
            Ok(route) => {
                self.send.route = Some(route);
                self.resume();
            }
            Err(error) => {
                let error = self.send.attempts.qualified(error);
                self.finish(End::Failed(error));
            }
        }
    }

    fn invoke(self: Box<Self>, sender: &MessageSender, limit: Instant) {
        let Some((queue, Current { begun, .. })) = self.send.queue().zip(self.send.current) else {
            return self.go_on(sender);
        };
        let remoting = &sender.core.remoting;
        let header = self.send.header(&sender.group, queue);
        let encoded = remoting.encode(&queue.address, self.send.outgoing.request(&header), false);
        match encoded {
            Ok(request) => remoting.invoke_encoded(request, limit, Completion::of(self), begun),
            Err(error) => self.complete(Err(error)),
        }
    }

    fn finish(mut self: Box<Self>, end: End) {
        self.end = end;
        // The next send to the queue may be over at once: it must not be done before this one.
        let place = self.place.take();
        D::done(self);
        drop(place);
    }
}

impl<D: Done> InLane for AsyncSend<D> {
    fn begin(mut self: Box<Self>, place: LanePlace) {
        self.place = Some(place);
        self.resume();
    }

    fn give_up(mut self: Box<Self>) {
        let error = self.send.take_error();
        self.finish(End::Failed(error));
    }
}

impl<D: Done> Complete for AsyncSend<D> {
    fn complete(mut self: Box<Self>, outcome: Outcome) {
        let Self { sender, send, .. } = &mut *self;
        match sender.verdict(send, outcome) {
            Some(Ok(receipt)) => self.finish(End::Stored(receipt)),
            Some(Err(error)) => self.finish(End::Failed(error)),
            None => self.resume(),
        }
    }
}

/// A send that waits in the timer. A timer that ends drops it, which ends the send with an error.
struct Paused<D: Done>(Option<Box<AsyncSend<D>>>);

impl<D: Done> Paused<D> {
    fn resume(mut self) {
        if let Some(send) = self.0.take() {
            send.resume();
        }
    }
}

impl<D: Done> Drop for Paused<D> {
    fn drop(&mut self) {
        if let Some(send) = self.0.take() {
            let shut_down = || Error::new(ErrorKind::NotRunning, "the client was shut down between two attempts");
            let error = send.sender.core.threads.health().check().err().unwrap_or_else(shut_down);
            let error = send.send.attempts.qualified(error);
            send.finish(End::Failed(error));
        }
    }
}

/// True if a message for `wanted` may go to `queue`. A queue with a negative number stands for any of its broker, which
/// chooses one.
fn leads_to(queue: &MessageQueue, wanted: &MessageQueue) -> bool {
    match wanted.queue_id {
        ..0 => (&queue.topic, &queue.broker_name) == (&wanted.topic, &wanted.broker_name),
        _ => queue == wanted,
    }
}

fn park_until(until: Instant) {
    let left = until.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        // Waking early does no harm: the caller looks at the clock again.
        thread::park_timeout(left);
    }
}
