//! Remoting against peers made of plain sockets: what arrives, what is completed, and how often.
//!
//! This file holds the peers and the ways to wait; the tests stand in the modules by what goes wrong in them.

mod addresses;
mod calls;
mod deaths;
mod faults;
mod hostile;
mod requests;
mod seam;
mod shutdown;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::transport::Plain;
use super::*;
use crate::error::Certainty;
use crate::wire::{
    ExtFields, FieldSink, FrameDecoder, HeaderEncoding, LanguageCode, MAX_FRAME_LENGTH, RequestCode, ResponseCode,
};

/// Limit for anything, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn within(milliseconds: u64) -> Instant {
    Instant::now() + Duration::from_millis(milliseconds)
}

/// Lets time pass, where time is what is tested.
fn wait(duration: Duration) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        thread::park_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// Waits for what other threads bring about.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = soon();
    while !holds() {
        assert!(Instant::now() < end, "never happened: {what}");
        wait(Duration::from_millis(2));
    }
}

fn spawn(body: impl FnOnce() + Send + 'static) -> thread::JoinHandle<()> {
    thread::Builder::new().spawn(body).unwrap()
}

// --- The side that is tested ---

fn config() -> RemotingConfig {
    RemotingConfig {
        connect_timeout: Duration::from_secs(10),
        silence_limit: Duration::from_secs(30),
        max_frame_length: MAX_FRAME_LENGTH,
        outbox_limit: 32 * 1024 * 1024,
        completions_outbox_limit: 32 * 1024 * 1024,
        encoding: HeaderEncoding::Json,
        resolve: Arc::new(SystemResolver),
        address_map: None,
        unmapped: Vec::new(),
        transport: Arc::new(|_| Ok(Box::new(Plain))),
    }
}

fn start(config: RemotingConfig) -> (Remoting, RemotingThread) {
    start_with(config, Arc::new(Told::default()))
}

fn start_with(config: RemotingConfig, events: Arc<dyn RemotingEvents>) -> (Remoting, RemotingThread) {
    let threads = Threads::new(None, None);
    Remoting::start(config, &threads, events).unwrap()
}

/// Counts events, and answers requests of peers with their own body.
#[derive(Default)]
struct Told {
    connected: AtomicUsize,
    disconnected: AtomicUsize,
    requested: Mutex<Vec<RemotingCommand>>,
}

impl RemotingEvents for Told {
    fn requested(&self, request: RemotingCommand, responder: Responder) {
        let body = request.body.clone();
        self.requested.lock().push(request);
        responder.respond(ResponseCode::SUCCESS, None, body);
    }
    fn connected(&self, _address: &Arc<str>) {
        self.connected.fetch_add(1, Ordering::SeqCst);
    }
    fn disconnected(&self, _address: &Arc<str>) {
        self.disconnected.fetch_add(1, Ordering::SeqCst);
    }
}

fn with_outbox(bytes: usize) -> RemotingConfig {
    RemotingConfig { outbox_limit: bytes, completions_outbox_limit: bytes, ..config() }
}

fn request(body: &Bytes) -> Request<'_> {
    Request::new(RequestCode::SEND_MESSAGE_V2, &()).with_body(body)
}

fn ping(remoting: &Remoting, address: &Arc<str>, deadline: Instant) -> Outcome {
    let body = Bytes::from_static(b"ping");
    remoting.invoke(address, request(&body), deadline)
}

/// A completion that sends its outcome, with a number, through a channel.
fn report<T: Send + 'static>(to: &Sender<(T, Outcome)>, number: T) -> Completion {
    let to = to.clone();
    Completion::new(move |outcome| {
        let _ = to.send((number, outcome));
    })
}

fn current(remoting: &Remoting, address: &str) -> Option<Arc<Connection>> {
    remoting.shared.peers.lock().by_address.get(address)?.connection.clone()
}

/// Hands over one-way requests until the peer's socket and the outbox are full; returns how many.
fn fill(remoting: &Remoting, address: &Arc<str>, body: &Bytes) -> usize {
    let mut accepted = 0;
    let unsent = || current(remoting, address).map_or(0, |connection| connection.unsent());
    loop {
        let before = unsent();
        if remoting.invoke_oneway(address, request(body), within(200)).is_ok() {
            accepted += 1;
            assert!(accepted < 1000, "no end of memory");
        } else if accepted > 0 && unsent() == before {
            // The socket took nothing all the time, so it will take nothing more.
            return accepted;
        }
    }
}

// --- Peers ---

/// A peer's end of one connection.
struct Wire {
    socket: TcpStream,
    decoder: FrameDecoder,
}

impl Wire {
    /// The next request, or `None` at the end of the stream.
    fn next(&mut self) -> Option<RemotingCommand> {
        let mut buffer = [0; 65536];
        loop {
            if let Some(command) = self.decoder.next_command().unwrap() {
                return Some(command);
            }
            match self.socket.read(&mut buffer) {
                Ok(count @ 1..) => self.decoder.push(&buffer[..count]),
                _ => return None,
            }
        }
    }

    /// True if it could be sent.
    fn send(&mut self, command: &RemotingCommand) -> bool {
        let mut bytes = Vec::new();
        command.encode(&mut bytes).unwrap();
        self.send_bytes(&bytes)
    }

    fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// Answers every request with its own body until the connection ends.
    fn echo(&mut self) {
        while let Some(request) = self.next() {
            if !self.send(&echo_of(&request)) {
                return;
            }
        }
    }

    /// Takes everything and says nothing, until the connection ends.
    fn swallow(&mut self) -> Vec<RemotingCommand> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

fn echo_of(request: &RemotingCommand) -> RemotingCommand {
    RemotingCommand::response_to(request, ResponseCode::SUCCESS, None).with_body(request.body.clone())
}

fn encoded(command: &RemotingCommand) -> Vec<u8> {
    let mut bytes = Vec::new();
    command.encode(&mut bytes).unwrap();
    bytes
}

/// A peer that plays `script` on each connection; its first argument counts the connections from zero.
fn peer(script: impl Fn(usize, Wire) + Send + Sync + 'static) -> Arc<str> {
    let (listener, address) = listener();
    play(listener, script);
    address.to_string().into()
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn play(listener: TcpListener, script: impl Fn(usize, Wire) + Send + Sync + 'static) {
    let script = Arc::new(script);
    spawn(move || {
        for (number, socket) in listener.incoming().enumerate() {
            let Ok(socket) = socket else { return };
            let script = Arc::clone(&script);
            spawn(move || script(number, Wire { socket, decoder: FrameDecoder::new() }));
        }
    });
}

/// A peer that answers each request with its own body.
fn echo_peer() -> Arc<str> {
    peer(|_, mut wire| wire.echo())
}

/// A peer that reads and never answers.
fn silent_peer() -> Arc<str> {
    peer(|_, mut wire| drop(wire.swallow()))
}

/// An address without a listener.
fn dead_address() -> Arc<str> {
    listener().1.to_string().into()
}

/// A small generator, so that a failing seed can be played again (splitmix64).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}
