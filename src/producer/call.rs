//! The verbs of a producer: [`Producer::send`] and its siblings, and [`SendCall`], which adds options of one call.
//!
//! Runs on the caller's thread. Everything that can be wrong with a message is an error here, before anything is accepted.

use std::fmt;
use std::time::{Duration, Instant};

use crate::client::callbacks::CallbackJob;
use crate::deadline::deadline_after;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Message, MessageQueue};
use crate::producer::Producer;
use crate::producer::send::completions::Completions;
use crate::producer::send::outgoing::Outgoing;
use crate::producer::send::result::SendResult;
use crate::producer::send::selector::index_of_hash;
use crate::producer::send::window::{NoPermit, Permit};
use crate::producer::send::{AsyncSend, Done, SendOperation, Target};
use crate::wire::java_hash::java_string_hash;
use crate::worker::{check_may_wait, is_service_thread};

/// A message that was not accepted, given back with the reason. Nothing of it was sent, and no callback runs.
#[derive(Debug)]
#[non_exhaustive]
pub struct Rejected {
    /// The reason.
    pub error: Error,
    /// The message.
    pub message: Message,
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        rejected.error
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "send rejected: {}", self.error)
    }
}

impl std::error::Error for Rejected {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

type Accepted = std::result::Result<(), Rejected>;

/// # Sending
///
/// Each verb also exists on [`SendCall`], which carries the options of a call: `producer.to_queue(&queue)`,
/// `producer.by_key("order-42")`, `producer.timeout(limit)`, and their combinations.
impl Producer {
    /// Sends a message and waits until a broker has stored it, or the send timeout has passed.
    ///
    /// # Errors
    ///
    /// The failure, its attempts, and the certainty that the message is not stored: see [`Error::certainty`].
    pub fn send(&self, message: &Message) -> Result<SendResult> {
        let (_call, operation) = self.begin(message, &CallOptions::default())?;
        self.sender.send(operation)
    }

    /// Sends without waiting for the broker; `callback` gets the result, exactly once, on a thread `rmq-callback-N`.
    ///
    /// When the in-flight window is full the call waits for room until the send timeout, or fails at once with
    /// [`fail_when_full`](crate::ProducerBuilder::fail_when_full). The first such call of a client starts its callback
    /// threads.
    ///
    /// # Errors
    ///
    /// The reason why the message was not accepted. The message comes back, and `callback` does not run.
    pub fn send_async<F>(&self, message: Message, callback: F) -> Accepted
    where
        F: FnOnce(Result<SendResult>) + Send + 'static,
    {
        self.begin_with_callback(message, &CallOptions::default(), callback)
    }

    /// Sends without waiting for the broker; the result goes to `completions` under `token`.
    ///
    /// # Errors
    ///
    /// The reason why the message was not accepted. The message comes back, and nothing goes to `completions`.
    pub fn send_tracked(&self, message: Message, token: u64, completions: &Completions) -> Accepted {
        self.begin_async(message, &CallOptions::default(), |permit| completions.place(token, permit))
    }

    /// Hands a message to the connection of a broker. There is no answer: its arrival stays unknown. For messages that
    /// may be lost, such as samples of a measurement.
    ///
    /// # Errors
    ///
    /// An invalid message, no known broker of the topic, or a connection that takes no more bytes.
    pub fn send_oneway(&self, message: &Message) -> Result<()> {
        let (_call, operation) = self.begin(message, &CallOptions::default())?;
        self.sender.send_oneway(operation)
    }

    /// Sends of the returned call go to `queue` and no other, so that messages keep their order.
    ///
    /// There is no attempt on another broker, and none at all once the message may be stored. A negative number lets the
    /// broker choose one of its queues; the result names it. Asynchronous sends to one queue are stored and completed in
    /// the order of the calls: each begins when the one before it has ended, with all its attempts. That costs a round
    /// trip a message; several queues have as many at once.
    ///
    /// The verbs fail with [`ErrorKind::NoBroker`] when the queue cannot be written, and with
    /// [`ErrorKind::InvalidMessage`] when it is another topic's.
    ///
    /// ```no_run
    /// # use rocketmq_sync::{Message, MessageQueue, Producer};
    /// # fn send(producer: &Producer) -> rocketmq_sync::Result<()> {
    /// let queue = MessageQueue::new("Orders", "broker-a", 0);
    /// producer.to_queue(&queue).send(&Message::new("Orders", "paid"))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn to_queue<'a>(&'a self, queue: &'a MessageQueue) -> SendCall<'a> {
        self.call().to_queue(queue)
    }

    /// Sends of the returned call go to the queue of `key`: equal keys go to the same queue while the topic's queues stay
    /// the same. Otherwise as [`to_queue`](Self::to_queue).
    ///
    /// The hash is that of the Java client (`SelectMessageQueueByHash` with a `String`), so that programs in both
    /// languages choose alike.
    ///
    /// ```no_run
    /// # use rocketmq_sync::{Message, Producer};
    /// # fn send(producer: &Producer) -> rocketmq_sync::Result<()> {
    /// producer.by_key("order-42").send(&Message::new("Orders", "paid"))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn by_key(&self, key: impl AsRef<str>) -> SendCall<'_> {
        self.call().by_key(key)
    }

    /// Sends of the returned call go to the queue whose index `select` returns, of those that can be written now
    /// (Java: `MessageQueueSelector`). Otherwise as [`to_queue`](Self::to_queue).
    ///
    /// The verbs fail with [`ErrorKind::BadSelection`] when the index is out of range or `select` panics. An asynchronous
    /// send waits for the topic's route while it is not known.
    pub fn by<'a, S>(&'a self, select: S) -> SendCall<'a>
    where
        S: Fn(&[MessageQueue], &Message) -> usize + 'a,
    {
        self.call().by(select)
    }

    /// Sends of the returned call have this timeout for everything: route, connections and all attempts.
    pub fn timeout(&self, timeout: Duration) -> SendCall<'_> {
        self.call().timeout(timeout)
    }

    fn call(&self) -> SendCall<'_> {
        SendCall { producer: self, options: CallOptions::default() }
    }
}

/// A view of a producer with options of its own, for one send or several.
///
/// Cheap to make and to keep. Options not set here are those of the producer. Of [`to_queue`](Self::to_queue),
/// [`by_key`](Self::by_key) and [`by`](Self::by) the last one counts.
///
/// ```no_run
/// # use rocketmq_sync::{Message, Producer};
/// # use std::time::Duration;
/// # fn send(producer: &Producer) -> rocketmq_sync::Result<()> {
/// let orders = producer.by_key("order-42").timeout(Duration::from_secs(1));
/// orders.send(&Message::new("Orders", "created"))?;
/// orders.send(&Message::new("Orders", "paid"))?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct SendCall<'a> {
    producer: &'a Producer,
    options: CallOptions<'a>,
}

/// Options of one call.
#[derive(Default)]
struct CallOptions<'a> {
    destination: Destination<'a>,
    /// `None` for the producer's.
    timeout: Option<Duration>,
}

/// Queue of a call, before the topic's route is known.
#[derive(Default)]
enum Destination<'a> {
    /// All queues of the topic in turn.
    #[default]
    InTurn,
    Queue(&'a MessageQueue),
    /// The hash of a key.
    Key(i32),
    Selected(Select<'a>),
}

type Select<'a> = Box<dyn Fn(&[MessageQueue], &Message) -> usize + 'a>;

impl<'a> SendCall<'a> {
    /// As [`Producer::to_queue`].
    pub fn to_queue(mut self, queue: &'a MessageQueue) -> Self {
        self.options.destination = Destination::Queue(queue);
        self
    }

    /// As [`Producer::by_key`].
    pub fn by_key(mut self, key: impl AsRef<str>) -> Self {
        self.options.destination = Destination::Key(java_string_hash(key.as_ref()));
        self
    }

    /// As [`Producer::by`].
    pub fn by(mut self, select: impl Fn(&[MessageQueue], &Message) -> usize + 'a) -> Self {
        self.options.destination = Destination::Selected(Box::new(select));
        self
    }

    /// As [`Producer::timeout`]. Default: [`send_timeout`](crate::ProducerBuilder::send_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// As [`Producer::send`].
    ///
    /// # Errors
    ///
    /// As [`Producer::send`], and those of the chosen options.
    pub fn send(&self, message: &Message) -> Result<SendResult> {
        let (_call, operation) = self.producer.begin(message, &self.options)?;
        self.producer.sender.send(operation)
    }

    /// As [`Producer::send_async`].
    ///
    /// # Errors
    ///
    /// As [`Producer::send_async`], and those of the chosen options.
    pub fn send_async<F>(&self, message: Message, callback: F) -> Accepted
    where
        F: FnOnce(Result<SendResult>) + Send + 'static,
    {
        self.producer.begin_with_callback(message, &self.options, callback)
    }

    /// As [`Producer::send_tracked`].
    ///
    /// # Errors
    ///
    /// As [`Producer::send_tracked`], and those of the chosen options.
    pub fn send_tracked(&self, message: Message, token: u64, completions: &Completions) -> Accepted {
        self.producer.begin_async(message, &self.options, |permit| completions.place(token, permit))
    }

    /// As [`Producer::send_oneway`].
    ///
    /// # Errors
    ///
    /// As [`Producer::send_oneway`], and those of the chosen options.
    pub fn send_oneway(&self, message: &Message) -> Result<()> {
        let (_call, operation) = self.producer.begin(message, &self.options)?;
        self.producer.sender.send_oneway(operation)
    }
}

impl fmt::Debug for SendCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendCall").field("timeout", &self.options.timeout).finish_non_exhaustive()
    }
}

impl Producer {
    /// Makes the operation of a send that the caller waits for. The permit counts it for the shutdown until it is
    /// dropped.
    fn begin(&self, message: &Message, options: &CallOptions<'_>) -> Result<(Permit, SendOperation)> {
        check_may_wait("send")?;
        let call = self.enter_call()?;
        let deadline = self.deadline(options);
        let target = self.target(message, &options.destination, deadline)?;
        Ok((call, self.sender.begin(self.prepare(message)?, target, deadline)))
    }

    fn begin_with_callback<F>(&self, message: Message, options: &CallOptions<'_>, callback: F) -> Accepted
    where
        F: FnOnce(Result<SendResult>) + Send + 'static,
    {
        let callbacks = &self.core().callbacks;
        match self.core().check_usable().and_then(|()| callbacks.start(self.deadline(options))) {
            Ok(()) => self.begin_async(message, options, |permit| Callback { callback, permit }),
            Err(error) => Err(Rejected { error, message }),
        }
    }

    fn begin_async<D: Done>(
        &self,
        message: Message,
        options: &CallOptions<'_>,
        done: impl FnOnce(Permit) -> D,
    ) -> Accepted {
        match self.accept_async(&message, options) {
            Ok((operation, permit)) => {
                self.sender.send_async(operation, done(permit));
                Ok(())
            }
            Err(error) => Err(Rejected { error, message }),
        }
    }

    fn accept_async(&self, message: &Message, options: &CallOptions<'_>) -> Result<(SendOperation, Permit)> {
        self.core().check_usable()?;
        let deadline = self.deadline(options);
        let target = match &options.destination {
            plain @ (Destination::InTurn | Destination::Queue(_)) => self.target(message, plain, deadline)?,
            // Waits for the route while it is not known: counted for the shutdown until then.
            selected @ (Destination::Key(_) | Destination::Selected(_)) => {
                let _call = self.enter_call()?;
                self.target(message, selected, deadline)?
            }
        };
        let operation = self.sender.begin(self.prepare(message)?, target, deadline);
        let permit = self.enter_window(operation.size(), deadline)?;
        Ok((operation, permit))
    }

    fn target(&self, message: &Message, destination: &Destination<'_>, deadline: Instant) -> Result<Target> {
        match destination {
            Destination::InTurn => Ok(Target::InTurn),
            Destination::Queue(queue) => {
                check_topic_of(message, queue)?;
                Ok(Target::Queue((*queue).clone()))
            }
            Destination::Key(hash) => {
                let by_hash = |queues: &[MessageQueue], _: &Message| index_of_hash(*hash, queues.len());
                self.sender.select_queue(message, deadline, by_hash).map(Target::Queue)
            }
            Destination::Selected(select) => self.sender.select_queue(message, deadline, select).map(Target::Queue),
        }
    }

    fn deadline(&self, options: &CallOptions<'_>) -> Instant {
        deadline_after(options.timeout.unwrap_or(self.options.send_timeout))
    }

    fn prepare(&self, message: &Message) -> Result<Outgoing> {
        Outgoing::single(message, &self.options.body, &self.core().identity)
    }

    pub(super) fn enter_call(&self) -> Result<Permit> {
        self.core().check_usable()?;
        self.calls.enter(0, None).map_err(|_| self.not_running())
    }

    fn enter_window(&self, bytes: usize, deadline: Instant) -> Result<Permit> {
        let patience = (!self.options.fail_when_full && !is_service_thread()).then_some(deadline);
        self.window.enter(bytes, patience).map_err(|none| match none {
            NoPermit::Closed => self.not_running(),
            NoPermit::Full => Error::new(
                ErrorKind::WindowFull,
                format!(
                    "in-flight window full: the limits are {} messages and {} bytes; results in Completions count until \
                     they are taken",
                    self.options.max_in_flight, self.options.max_in_flight_bytes
                ),
            ),
        })
    }

    fn not_running(&self) -> Error {
        Error::new(ErrorKind::NotRunning, format!("producer {} has been shut down", self.sender.group()))
    }
}

fn check_topic_of(message: &Message, queue: &MessageQueue) -> Result<()> {
    if message.topic() == &*queue.topic {
        return Ok(());
    }
    let detail = format!("invalid queue {queue}: the topic of the message is {}", message.topic());
    Err(Error::new(ErrorKind::InvalidMessage, detail))
}

/// A user's callback, with the permit of its send.
struct Callback<F> {
    callback: F,
    permit: Permit,
}

impl<F: FnOnce(Result<SendResult>) + Send + 'static> Done for Callback<F> {
    fn done(send: Box<AsyncSend<Self>>) {
        let core = std::sync::Arc::clone(send.core());
        core.callbacks.submit(send);
    }
}

impl<F: FnOnce(Result<SendResult>) + Send + 'static> CallbackJob for AsyncSend<Callback<F>> {
    fn run(self: Box<Self>) {
        let (Callback { callback, permit }, result) = self.into_result();
        // Before the callback, which may send the next message and must find room for it.
        drop(permit);
        callback(result);
    }
}
