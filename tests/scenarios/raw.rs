//! Requests over a blocking socket, for what a test does beside the client under test.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rocketmq_sync::wire::{ExtFields, FieldSink, FrameDecoder, RemotingCommand};

/// A server that says nothing for so long will not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A header made of `(name, value)` pairs.
pub(crate) fn fields(pairs: &[(&str, &str)]) -> ExtFields {
    let mut fields = ExtFields::new();
    for (name, value) in pairs {
        fields.text(name, value);
    }
    fields
}

/// Sends one request on a connection of its own and reads its answer.
pub(crate) fn request(address: SocketAddr, command: RemotingCommand) -> io::Result<RemotingCommand> {
    Connection::open(address)?.request(command, ANSWER_WITHIN)
}

/// A connection with one request at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    decoder: FrameDecoder,
    last_opaque: i32,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, decoder: FrameDecoder::new(), last_opaque: 0 })
    }

    /// Sends `command` and waits for its answer; what the server asks meanwhile is ignored. `TimedOut` when the server
    /// stays silent.
    pub(crate) fn request(&mut self, mut command: RemotingCommand, within: Duration) -> io::Result<RemotingCommand> {
        let deadline = Instant::now() + within;
        self.last_opaque += 1;
        command.opaque = self.last_opaque;
        let mut bytes = BytesMut::new();
        command.encode(&mut bytes).map_err(io::Error::other)?;
        self.stream.write_all(&bytes)?;
        loop {
            let answer = self.next_command(deadline)?;
            if answer.is_response() && answer.opaque == command.opaque {
                return Ok(answer);
            }
        }
    }

    fn next_command(&mut self, deadline: Instant) -> io::Result<RemotingCommand> {
        loop {
            if let Some(command) = self.decoder.next_command().map_err(io::Error::other)? {
                return Ok(command);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.decoder.push(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
