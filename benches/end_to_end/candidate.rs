//! The library itself, through its public API and with its defaults except for the in-flight window.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use rocketmq_sync::{
    Completions, ConsumeContext, ConsumeFromWhere, ConsumeStatus, FilterExpression, Message, MessageExt, Producer,
    PushConsumer, SendResult, SendStatus,
};

use super::control::Control;
use super::figure::{Results, Work};
use super::histogram::Histogram;
use super::peer::Addresses;
use super::side::{Callers, Side, TIMED_ONE_IN, take_time};
use super::{BODY_SIZE, CONSUME_THREADS, GROUP, IN_FLIGHT, MESSAGES_PER_PULL, Result, TOPIC};

/// Time after which a start, a round or an end counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// Number of slots for the start times of timed sends: far more than can be in flight, in any order of completion.
const TIMED_SLOTS: usize = 4 * IN_FLIGHT;

/// Starts the library on `work` against `peer`.
pub(crate) fn start(work: Work, peer: Addresses) -> Result<Box<dyn Side>> {
    Ok(match work {
        Work::Sync { callers } => Box::new(SyncSends::start(peer.name_server, callers)?),
        Work::Async(Results::Callback) => Box::new(CallbackSends::start(peer.name_server)?),
        Work::Async(Results::Completions) => Box::new(TrackedSends::start(peer.name_server)?),
        Work::Oneway => Box::new(OnewaySends::start(peer)?),
        Work::Consume { batch, listener } => Box::new(Consumption::start(peer, batch, listener)?),
    })
}

fn start_producer(name_server: SocketAddr) -> Result<Producer> {
    let producer = Producer::builder(GROUP).name_servers([name_server.to_string()]).max_in_flight(IN_FLIGHT).start()?;
    producer.wait_ready(&[TOPIC], PATIENCE)?;
    Ok(producer)
}

fn end_producer(producer: &Producer) -> Result<()> {
    let report = producer.shutdown(PATIENCE);
    if report.is_clean() { Ok(()) } else { Err(format!("{report:?}").into()) }
}

fn message() -> Message {
    Message::new(TOPIC, Bytes::from(vec![b'x'; BODY_SIZE]))
}

fn check_stored(result: rocketmq_sync::Result<SendResult>) -> Result<()> {
    match result?.status {
        SendStatus::Ok => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

struct SyncSends {
    producer: Arc<Producer>,
    callers: Callers,
}

impl SyncSends {
    fn start(name_server: SocketAddr, callers: usize) -> Result<Self> {
        let producer = Arc::new(start_producer(name_server)?);
        let calls = (0..callers)
            .map(|_| {
                let (producer, message) = (Arc::clone(&producer), message());
                move || check_stored(producer.send(&message))
            })
            .collect();
        Ok(Self { producer, callers: Callers::start(calls)? })
    }
}

impl Side for SyncSends {
    fn round(&mut self, messages: u64) -> Result<Histogram> {
        self.callers.round(messages)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.callers.finish()?;
        end_producer(&self.producer)
    }
}

struct CallbackSends {
    producer: Producer,
    message: Message,
}

/// Round with pending callbacks.
struct Round {
    left: AtomicU64,
    failures: Mutex<Vec<String>>,
    latencies: Mutex<Histogram>,
    over: Sender<()>,
}

impl CallbackSends {
    fn start(name_server: SocketAddr) -> Result<Self> {
        Ok(Self { producer: start_producer(name_server)?, message: message() })
    }
}

impl Round {
    fn new(messages: u64) -> (Arc<Self>, Receiver<()>) {
        let (over, ended) = bounded(1);
        let round = Self {
            left: AtomicU64::new(messages),
            failures: Mutex::default(),
            latencies: Mutex::new(Histogram::new()),
            over,
        };
        (Arc::new(round), ended)
    }

    fn called_back(&self, result: rocketmq_sync::Result<SendResult>, sent_at: Option<Instant>) {
        if let Err(error) = check_stored(result) {
            self.failures.lock().push(error.to_string());
        }
        if let Some(sent_at) = sent_at {
            self.latencies.lock().record(sent_at.elapsed());
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            // An abandoned round has no receiver.
            let _ = self.over.send(());
        }
    }
}

impl Side for CallbackSends {
    fn round(&mut self, messages: u64) -> Result<Histogram> {
        let (round, ended) = Round::new(messages);
        for number in 0..messages {
            let sent_at = (number % TIMED_ONE_IN == 0).then(Instant::now);
            let round = Arc::clone(&round);
            self.producer.send_async(self.message.clone(), move |result| round.called_back(result, sent_at))?;
        }
        ended.recv_timeout(PATIENCE)?;
        match round.failures.lock().first() {
            Some(failure) => Err(failure.as_str().into()),
            None => Ok(round.latencies.lock().clone()),
        }
    }

    fn finish(self: Box<Self>) -> Result<()> {
        end_producer(&self.producer)
    }
}

struct TrackedSends {
    producer: Producer,
    completions: Completions,
    message: Message,
}

impl TrackedSends {
    fn start(name_server: SocketAddr) -> Result<Self> {
        Ok(Self { producer: start_producer(name_server)?, completions: Completions::new(), message: message() })
    }
}

impl Side for TrackedSends {
    fn round(&mut self, messages: u64) -> Result<Histogram> {
        let mut latencies = Histogram::new();
        let mut sent_at = [Instant::now(); TIMED_SLOTS];
        let slot = |token: u64| (token / TIMED_ONE_IN) as usize % TIMED_SLOTS;
        let mut finished = Vec::with_capacity(IN_FLIGHT);
        let (mut sent, mut done) = (0, 0);
        while done < messages {
            while sent < messages && sent - done < IN_FLIGHT as u64 {
                if sent % TIMED_ONE_IN == 0 {
                    sent_at[slot(sent)] = Instant::now();
                }
                self.producer.send_tracked(self.message.clone(), sent, &self.completions)?;
                sent += 1;
            }
            let count = self.completions.take(&mut finished, PATIENCE)?;
            if count == 0 {
                return Err(format!("{} sends did not end", sent - done).into());
            }
            for completed in finished.drain(..) {
                check_stored(completed.result)?;
                if completed.token % TIMED_ONE_IN == 0 {
                    latencies.record(sent_at[slot(completed.token)].elapsed());
                }
            }
            done += count as u64;
        }
        Ok(latencies)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        end_producer(&self.producer)
    }
}

struct OnewaySends {
    producer: Producer,
    control: Control,
    message: Message,
    sent: u64,
}

impl OnewaySends {
    fn start(peer: Addresses) -> Result<Self> {
        let (producer, control) = (start_producer(peer.name_server)?, Control::connect(peer.broker)?);
        Ok(Self { producer, control, message: message(), sent: 0 })
    }
}

impl Side for OnewaySends {
    fn round(&mut self, messages: u64) -> Result<Histogram> {
        for _ in 0..messages {
            self.producer.send_oneway(&self.message)?;
        }
        self.sent += messages;
        self.control.await_oneways(self.sent)?;
        Ok(Histogram::new())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        end_producer(&self.producer)
    }
}

struct Consumption {
    consumer: PushConsumer,
    control: Control,
    expected: Arc<Expected>,
    over: Receiver<()>,
}

/// Messages that the listeners still expect in this round.
struct Expected {
    messages: AtomicU64,
    over: Sender<()>,
}

impl Expected {
    fn came(&self, messages: usize) {
        if self.messages.fetch_sub(messages as u64, Ordering::AcqRel) == messages as u64 {
            // An abandoned round has no receiver.
            let _ = self.over.send(());
        }
    }
}

impl Consumption {
    fn start(peer: Addresses, batch: usize, listener: Option<Duration>) -> Result<Self> {
        let (sender, over) = bounded(1);
        let expected = Arc::new(Expected { messages: AtomicU64::new(0), over: sender });
        let listened = Arc::clone(&expected);
        let consumer = PushConsumer::builder(GROUP)
            .name_servers([peer.name_server.to_string()])
            .subscribe(TOPIC, FilterExpression::all())
            .consume_from(ConsumeFromWhere::First)
            .consume_threads(CONSUME_THREADS)
            .consume_batch(batch)
            .concurrently(move |messages: &[MessageExt], _: &mut ConsumeContext| {
                take_time(listener);
                listened.came(messages.len());
                ConsumeStatus::Success
            })
            .start()?;
        consumer.wait_ready(PATIENCE)?;
        Ok(Self { consumer, control: Control::connect(peer.broker)?, expected, over })
    }
}

impl Side for Consumption {
    fn round(&mut self, messages: u64) -> Result<Histogram> {
        self.expected.messages.store(messages, Ordering::Release);
        self.control.grant(messages / MESSAGES_PER_PULL as u64)?;
        self.over.recv_timeout(PATIENCE).map_err(|_| {
            let left = self.expected.messages.load(Ordering::Acquire);
            let queues = self.consumer.queues();
            let reasons: Vec<_> = queues
                .iter()
                .filter_map(|queue| self.consumer.status(queue).ok()?)
                .map(|status| status.to_string())
                .collect();
            format!("{left} of {messages} messages did not come: {}", reasons.join("; "))
        })?;
        Ok(Histogram::new())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        match self.consumer.shutdown(PATIENCE) {
            report if report.is_clean() && report.messages_left() == 0 => Ok(()),
            report => Err(format!("{report:?}").into()),
        }
    }
}
