//! The only thread of the mini broker: sockets, frames, time, and the jobs of tests.
//!
//! It only handles frames and time; `state`, a pure value owned by this thread, handles the requests. No socket is ever
//! waited for: data that a client does not read stays in the connection's buffer, and a connection whose buffer exceeds
//! its limit is closed. The thread ends when the senders of the job channel are dropped.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Weak;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use super::clock::Timekeeper;
use super::exchange::{Node, Output};
use super::state::BrokerState;
use crate::wire::{self, FrameDecoder, MAX_FRAME_LENGTH, RemotingCommand};

const WAKER: Token = Token(0);

/// Maximum number of bytes that wait for a client to read them.
const OUTGOING_LIMIT: usize = 8 * MAX_FRAME_LENGTH;

/// Number of bytes read from one connection before the others have their turn.
const READ_BUDGET: usize = 1024 * 1024;

const READ_CHUNK: usize = 64 * 1024;

/// Job of a test, run on the broker's thread.
pub(super) type BrokerJob = Box<dyn FnOnce(&mut Server) + Send>;

/// Condition that a test waits for.
struct Watch {
    holds: Box<dyn FnMut(&BrokerState) -> bool + Send>,
    tell: Sender<()>,
    /// Dropped when the test has given up.
    wanted: Weak<()>,
}

/// State owned by the thread.
pub(super) struct Server {
    poll: Poll,
    jobs: Receiver<BrokerJob>,
    pub(super) state: BrokerState,
    clock: Timekeeper,
    listeners: HashMap<Token, (Node, TcpListener)>,
    connections: HashMap<Token, ServerConnection>,
    /// Connections that had bytes left to read when their budget was used up.
    unfinished: Vec<Token>,
    last_token: usize,
    watches: Vec<Watch>,
    scratch: Vec<u8>,
}

struct ServerConnection {
    node: Node,
    stream: TcpStream,
    decoder: FrameDecoder,
    outgoing: BytesMut,
}

impl Server {
    pub(super) fn new(state: BrokerState, clock: Timekeeper, jobs: Receiver<BrokerJob>) -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let server = Self {
            poll,
            jobs,
            state,
            clock,
            listeners: HashMap::new(),
            connections: HashMap::new(),
            unfinished: Vec::new(),
            last_token: WAKER.0,
            watches: Vec::new(),
            scratch: vec![0; READ_CHUNK],
        };
        Ok((server, waker))
    }

    /// Runs the thread.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        loop {
            match self.poll.poll(&mut events, self.sleep_limit()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::error!("mini broker: poll failed: {error}; the thread ends");
                    return;
                }
            }
            for token in std::mem::take(&mut self.unfinished) {
                self.read_from(token);
            }
            for event in &events {
                self.on_event(event);
            }
            if self.run_jobs().is_err() {
                return;
            }
            self.state.run_until(self.clock.now());
            self.settle();
        }
    }

    /// Opens the listener of a server, and returns its address. With port 0 the system chooses.
    pub(super) fn listen(&mut self, node: Node, address: SocketAddr) -> io::Result<SocketAddr> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        let mut listener = TcpListener::from_std(listener);
        let token = self.next_token();
        self.poll.registry().register(&mut listener, token, Interest::READABLE)?;
        self.listeners.insert(token, (node, listener));
        Ok(bound)
    }

    /// Closes the listener of a server and its connections.
    pub(super) fn stop_listening(&mut self, node: Node) {
        self.listeners.retain(|_, (other, _)| *other != node);
        self.cut_connections(node);
    }

    /// Closes all connections of a server; returns their number.
    pub(super) fn cut_connections(&mut self, node: Node) -> usize {
        let tokens: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.node == node)
            .map(|(token, _)| *token)
            .collect();
        for token in &tokens {
            self.close(*token);
        }
        tokens.len()
    }

    pub(super) fn connection_count(&self, node: Node) -> usize {
        self.connections.values().filter(|connection| connection.node == node).count()
    }

    pub(super) fn now(&self) -> i64 {
        self.clock.now()
    }

    /// Advances the time; everything that becomes due happens in order, each at its own time.
    pub(super) fn advance(&mut self, by: Duration) {
        self.clock.advance(by);
        self.state.run_until(self.clock.now());
    }

    /// Notifies `tell` as soon as the condition is true, unless the waiting test has given up.
    pub(super) fn watch(
        &mut self,
        holds: impl FnMut(&BrokerState) -> bool + Send + 'static,
        tell: Sender<()>,
        wanted: Weak<()>,
    ) {
        self.watches.push(Watch { holds: Box::new(holds), tell, wanted });
    }

    fn sleep_limit(&self) -> Option<Duration> {
        if !self.unfinished.is_empty() {
            return Some(Duration::ZERO);
        }
        // A poll rounds down to whole milliseconds; the slack keeps it from waking too early and spinning.
        let slack = Duration::from_micros(500);
        self.state.next_due().and_then(|due| self.clock.wait_until(due)).map(|wait| wait + slack)
    }

    fn on_event(&mut self, event: &Event) {
        let token = event.token();
        if token == WAKER {
            return;
        }
        if self.listeners.contains_key(&token) {
            self.accept(token);
            return;
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read_from(token);
        }
        if event.is_writable() {
            self.flush(token);
        }
    }

    fn accept(&mut self, listener: Token) {
        while let Some((node, socket)) = self.listeners.get(&listener) {
            let node = *node;
            match socket.accept() {
                Ok((stream, peer)) => {
                    if let Err(error) = self.welcome(node, stream, peer) {
                        log::warn!("mini broker: registering a connection failed: {error}");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    log::warn!("mini broker: accept failed: {error}");
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, node: Node, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let token = self.next_token();
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.state.connected(connection_number(token), node, peer);
        self.connections
            .insert(token, ServerConnection { node, stream, decoder: FrameDecoder::new(), outgoing: BytesMut::new() });
        Ok(())
    }

    fn read_from(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let read = connection.read(&mut self.scratch);
        let now = self.clock.now();
        let framed = loop {
            match connection.decoder.next_command() {
                Ok(Some(command)) => self.state.receive(connection_number(token), command, now),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = &framed {
            log::warn!("mini broker: connection closed: {error}");
        }
        match read {
            Ok(ReadEnd::Drained) if framed.is_ok() => {}
            Ok(ReadEnd::BudgetSpent) if framed.is_ok() => self.unfinished.push(token),
            _ => self.close(token),
        }
    }

    fn close(&mut self, token: Token) {
        if self.connections.remove(&token).is_some() {
            self.state.disconnected(connection_number(token));
        }
    }

    /// Runs the jobs of tests; an error if all senders of jobs are dropped.
    fn run_jobs(&mut self) -> Result<(), ()> {
        loop {
            match self.jobs.try_recv() {
                Ok(job) => {
                    self.state.run_until(self.clock.now());
                    job(self);
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(()),
            }
        }
    }

    /// Writes the output of this turn. A closed connection may produce more: its group's members are notified.
    fn settle(&mut self) {
        let mut written = Vec::new();
        loop {
            let outputs = self.state.take_output();
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                self.apply(output, &mut written);
            }
        }
        for token in written {
            self.flush(token);
        }
        let state = &self.state;
        self.watches.retain_mut(|watch| {
            if watch.wanted.strong_count() > 0 && (watch.holds)(state) {
                // Full only if notified before; disconnected if the test has given up.
                let _ = watch.tell.try_send(());
                return false;
            }
            watch.wanted.strong_count() > 0
        });
    }

    fn apply(&mut self, output: Output, written: &mut Vec<Token>) {
        let token = connection_token(output.connection());
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let appended = match output {
            Output::Command(_, command) => connection.queue(&command).map_err(|error| error.to_string()),
            Output::Bytes(_, bytes) => {
                connection.outgoing.extend_from_slice(&bytes);
                Ok(())
            }
            Output::Close(_) => Err("requested by a fault".to_owned()),
        };
        if let Err(reason) = appended {
            log::debug!("mini broker: connection closed: {reason}");
            // Earlier responses are still being written.
            self.flush(token);
            self.close(token);
        } else {
            written.push(token);
        }
    }

    fn flush(&mut self, token: Token) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if let Err(error) = connection.flush() {
            log::debug!("mini broker: connection lost: {error}");
            self.close(token);
        }
    }

    fn next_token(&mut self) -> Token {
        self.last_token += 1;
        Token(self.last_token)
    }
}

/// Number that `state` uses for a connection.
fn connection_number(token: Token) -> u64 {
    token.0 as u64
}

fn connection_token(number: u64) -> Token {
    Token(usize::try_from(number).unwrap_or(usize::MAX))
}

enum ReadEnd {
    Drained,
    BudgetSpent,
}

impl ServerConnection {
    fn read(&mut self, scratch: &mut [u8]) -> io::Result<ReadEnd> {
        let mut read = 0;
        while read < READ_BUDGET {
            match self.stream.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    self.decoder.push(scratch.get(..length).unwrap_or_default());
                    read += length;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(ReadEnd::Drained),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ReadEnd::BudgetSpent)
    }

    fn queue(&mut self, command: &RemotingCommand) -> Result<(), wire::Error> {
        let mut bytes = Vec::new();
        command.encode(&mut bytes)?;
        self.outgoing.extend_from_slice(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => self.outgoing.advance(length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.outgoing.len() > OUTGOING_LIMIT {
            return Err(io::Error::other("the client does not read"));
        }
        Ok(())
    }
}
