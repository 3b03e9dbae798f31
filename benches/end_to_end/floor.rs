//! Least possible cost of a client on this machine, in the same shape as the candidate: bare blocking sockets, the same
//! bytes, no decoding except to match replies, no deadline, no failure handling.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use rocketmq_sync::unversioned::wire::RequestCode;

use super::control::Control;
use super::figure::Work;
use super::frames::{self, FrameBuffer, Head, Pattern, number_of};
use super::histogram::Histogram;
use super::peer::Addresses;
use super::side::{Callers, Side, TIMED_ONE_IN, connect, take_time};
use super::{CONSUME_THREADS, IN_FLIGHT, MESSAGES_PER_PULL, QUEUES, Result, requests};

/// Number of one-way sends per write.
const ONEWAYS_PER_WRITE: u64 = 64;
/// Number of opaques before they repeat.
const NUMBERS: u64 = 1 << 20;

/// Connects the floor of `work` to `peer`. Its requests are those received by the candidate's peer; without a candidate
/// it encodes its own.
pub(crate) fn start(work: Work, peer: Addresses, candidates_peer: Option<Addresses>) -> Result<Box<dyn Side>> {
    let request = match candidates_peer {
        Some(candidates_peer) => Control::connect(candidates_peer.broker)?.captured(code_of(work))?,
        None => requests::of(work)?,
    };
    Ok(match work {
        Work::Sync { callers: 1 } => Box::new(PingPong::start(peer, Pattern::of_send(&request)?)?),
        Work::Sync { callers } => Box::new(HandOff::start(peer, &Pattern::of_send(&request)?, callers)?),
        Work::Async(_) => Box::new(Pipeline::start(peer, Pattern::of_send(&request)?)?),
        Work::Oneway => Box::new(Oneway::start(peer, Pattern::of_send(&request)?)?),
        Work::Consume { listener, .. } => Box::new(Pulls::start(peer, &request, listener)?),
    })
}

fn code_of(work: Work) -> RequestCode {
    match work {
        Work::Consume { .. } => RequestCode::PULL_MESSAGE,
        Work::Sync { .. } | Work::Async(_) | Work::Oneway => RequestCode::SEND_MESSAGE_V2,
    }
}

/// One thread: write, read, write, read.
struct PingPong {
    callers: Callers,
}

impl PingPong {
    fn start(peer: Addresses, send: Pattern) -> Result<Self> {
        let mut stream = connect(peer.broker)?;
        let mut buffer = FrameBuffer::new();
        let mut out = Vec::new();
        let mut number = 0;
        let call = move || -> Result<()> {
            number = (number + 1) % NUMBERS as u32;
            out.clear();
            send.append(number, &mut out);
            stream.write_all(&out)?;
            loop {
                if let Some(frame) = buffer.next_frame() {
                    return if answered(frame)? == number { Ok(()) } else { Err("an answer to nothing".into()) };
                }
                buffer.fill(&mut stream)?;
            }
        };
        Ok(Self { callers: Callers::start(vec![call])? })
    }
}

impl Side for PingPong {
    fn round(&mut self, messages: u64) -> Result<Histogram> {
        self.callers.round(messages)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.callers.finish()
    }
}

/// Many threads: each hands its request to the writing thread, and is woken by the reading thread.
struct HandOff {
    callers: Callers,
    stream: TcpStream,
}

struct Exchange {
    outbox: Mutex<Vec<u8>>,
    writer: OnceLock<Thread>,
    callers: Vec<Waiting>,
}

#[derive(Default)]
struct Waiting {
    thread: OnceLock<Thread>,
    answered: AtomicBool,
}

impl HandOff {
    fn start(peer: Addresses, send: &Pattern, callers: usize) -> Result<Self> {
        let stream = connect(peer.broker)?;
        let waiting = (0..callers).map(|_| Waiting::default()).collect();
        let exchange = Arc::new(Exchange { outbox: Mutex::default(), writer: OnceLock::new(), callers: waiting });
        let (to_write, to_read) = (Arc::clone(&exchange), Arc::clone(&exchange));
        let (writer, mut reader) = (stream.try_clone()?, stream.try_clone()?);
        let writer = thread::Builder::new().name("bench-writer".into()).spawn(move || to_write.write(writer))?;
        exchange.writer.get_or_init(|| writer.thread().clone());
        thread::Builder::new().name("bench-reader".into()).spawn(move || to_read.read(&mut reader))?;
        let calls = (0..callers)
            .map(|number| {
                let (exchange, send) = (Arc::clone(&exchange), send.clone());
                move || exchange.call(&send, number)
            })
            .collect();
        Ok(Self { callers: Callers::start(calls)?, stream })
    }
}

impl Exchange {
    fn call(&self, send: &Pattern, number: usize) -> Result<()> {
        let caller = &self.callers[number];
        caller.thread.get_or_init(thread::current);
        let mut outbox = self.outbox.lock();
        let first = outbox.is_empty();
        send.append(number as u32, &mut outbox);
        drop(outbox);
        if let (true, Some(writer)) = (first, self.writer.get()) {
            writer.unpark();
        }
        while !caller.answered.swap(false, Ordering::Acquire) {
            thread::park();
        }
        Ok(())
    }

    fn write(&self, mut stream: TcpStream) {
        let mut batch = Vec::new();
        loop {
            std::mem::swap(&mut *self.outbox.lock(), &mut batch);
            if batch.is_empty() {
                thread::park();
            } else if stream.write_all(&batch).is_err() {
                return;
            }
            batch.clear();
        }
    }

    fn read(&self, stream: &mut TcpStream) {
        let mut buffer = FrameBuffer::new();
        while buffer.fill(stream).is_ok() {
            while let Some(frame) = buffer.next_frame() {
                let caller = answered(frame).ok().and_then(|number| self.callers.get(number as usize));
                if let Some((caller, thread)) = caller.and_then(|caller| Some((caller, caller.thread.get()?))) {
                    // Release: with the swap in `call`.
                    caller.answered.store(true, Ordering::Release);
                    thread.unpark();
                }
            }
        }
    }
}

impl Side for HandOff {
    fn round(&mut self, messages: u64) -> Result<Histogram> {
        self.callers.round(messages)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.callers.finish()?;
        Ok(self.stream.shutdown(std::net::Shutdown::Both)?)
    }
}

/// One thread, many requests in flight: writes while there is room, reads what has arrived.
struct Pipeline {
    stream: TcpStream,
    buffer: FrameBuffer,
    send: Pattern,
}

impl Pipeline {
    fn start(peer: Addresses, send: Pattern) -> Result<Self> {
        Ok(Self { stream: connect(peer.broker)?, buffer: FrameBuffer::new(), send })
    }
}

impl Side for Pipeline {
    fn round(&mut self, messages: u64) -> Result<Histogram> {
        let mut histogram = Histogram::new();
        let mut sent_at = vec![Instant::now(); IN_FLIGHT];
        let (mut sent, mut answers) = (0_u64, 0_u64);
        let mut out = Vec::new();
        while answers < messages {
            let now = Instant::now();
            out.clear();
            while sent < messages && sent - answers < IN_FLIGHT as u64 {
                sent_at[sent as usize % IN_FLIGHT] = now;
                self.send.append((sent % NUMBERS) as u32, &mut out);
                sent += 1;
            }
            self.stream.write_all(&out)?;
            self.buffer.fill(&mut self.stream)?;
            let now = Instant::now();
            while let Some(frame) = self.buffer.next_frame() {
                let number = answered(frame)?;
                if u64::from(number) % TIMED_ONE_IN == 0 {
                    histogram.record(now - sent_at[number as usize % IN_FLIGHT]);
                }
                answers += 1;
            }
        }
        Ok(histogram)
    }
}

/// One thread, no answers: runs until the peer has received all.
struct Oneway {
    stream: TcpStream,
    control: Control,
    send: Pattern,
    sent: u64,
}

impl Oneway {
    fn start(peer: Addresses, send: Pattern) -> Result<Self> {
        Ok(Self { stream: connect(peer.broker)?, control: Control::connect(peer.broker)?, send, sent: 0 })
    }
}

impl Side for Oneway {
    fn round(&mut self, messages: u64) -> Result<Histogram> {
        let end = self.sent + messages;
        let mut out = Vec::new();
        while self.sent < end {
            out.clear();
            for _ in 0..ONEWAYS_PER_WRITE.min(end - self.sent) {
                self.send.append((self.sent % NUMBERS) as u32, &mut out);
                self.sent += 1;
            }
            self.stream.write_all(&out)?;
        }
        self.control.await_oneways(end)?;
        Ok(Histogram::new())
    }
}

/// One pull in flight for each queue; the next one is sent after its reply was scanned.
struct Pulls {
    stream: TcpStream,
    buffer: FrameBuffer,
    control: Control,
    pulls: Vec<Pattern>,
    offsets: Vec<u64>,
    listeners: Option<Listeners>,
}

/// Threads that spend a listener's time on each message.
struct Listeners {
    messages: Sender<()>,
    done: Receiver<()>,
}

impl Pulls {
    fn start(peer: Addresses, captured: &[u8], listener: Option<Duration>) -> Result<Self> {
        let pulls: Vec<Pattern> = (0..QUEUES).map(|queue| Pattern::of_pull(captured, queue)).collect::<Result<_>>()?;
        let mut stream = connect(peer.broker)?;
        let mut out = Vec::new();
        for (pull, number) in pulls.iter().zip(0..) {
            pull.append_pull(number, 0, &mut out);
        }
        stream.write_all(&out)?;
        Ok(Self {
            stream,
            buffer: FrameBuffer::new(),
            control: Control::connect(peer.broker)?,
            pulls,
            offsets: vec![0; QUEUES],
            listeners: listener.map(Listeners::start).transpose()?,
        })
    }

    /// Reads once; returns the number of messages.
    fn turn(&mut self, out: &mut Vec<u8>) -> Result<u64> {
        let mut messages = 0;
        self.buffer.fill(&mut self.stream)?;
        out.clear();
        while let Some(frame) = self.buffer.next_frame() {
            let number = answered(frame)?;
            let queue = number as usize;
            let (pull, offset) = self.pulls.get(queue).zip(self.offsets.get_mut(queue)).ok_or("no such queue")?;
            let came = frames::count_messages(frames::body(frame));
            messages += came;
            *offset += came;
            pull.append_pull(number, *offset, out);
        }
        self.stream.write_all(out)?;
        Ok(messages)
    }
}

impl Side for Pulls {
    fn round(&mut self, messages: u64) -> Result<Histogram> {
        self.control.grant(messages / MESSAGES_PER_PULL as u64)?;
        let mut out = Vec::new();
        let mut came = 0;
        while came < messages {
            let new = self.turn(&mut out)?;
            came += new;
            if let Some(listeners) = &self.listeners {
                (0..new).try_for_each(|_| listeners.messages.send(()))?;
            }
        }
        if let Some(listeners) = &self.listeners {
            (0..messages).try_for_each(|_| listeners.done.recv())?;
        }
        Ok(Histogram::new())
    }
}

impl Listeners {
    fn start(work: Duration) -> Result<Self> {
        let (messages, incoming) = unbounded();
        let (finished, done) = unbounded();
        for _ in 0..CONSUME_THREADS {
            let (incoming, finished) = (incoming.clone(), finished.clone());
            let run = move || {
                for () in incoming {
                    take_time(Some(work));
                    // The receiver is gone when the process ends.
                    let _ = finished.send(());
                }
            };
            thread::Builder::new().name("bench-listener".into()).spawn(run)?;
        }
        Ok(Self { messages, done })
    }
}

/// Returns the number of the request that a frame answers with success.
fn answered(frame: &[u8]) -> Result<u32> {
    let head = Head::scan(frame).ok_or("a frame in an unknown order")?;
    if head.code != 0 {
        return Err(format!("the peer answered with code {}", head.code).into());
    }
    number_of(head.opaque).ok_or_else(|| "an answer to nothing".into())
}
