//! Requests over a blocking socket, for what a test does beside the client under test.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rocketmq_sync::unversioned::wire::{ExtFields, FieldSink, FrameDecoder, RemotingCommand};

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

/// The header that creates or changes a topic, with so many queues to read and to write. That it is ordered means
/// something to those only who ask for it.
pub(crate) fn topic_settings(topic: &str, read: u32, write: u32, permission: u32, ordered: bool) -> ExtFields {
    fields(&[
        ("topic", topic),
        ("defaultTopic", "TBW102"),
        ("readQueueNums", &read.to_string()),
        ("writeQueueNums", &write.to_string()),
        ("perm", &permission.to_string()),
        ("topicFilterType", "SINGLE_TAG"),
        ("topicSysFlag", "0"),
        ("order", &ordered.to_string()),
    ])
}

/// Sends one request on a connection of its own and reads its answer.
pub(crate) fn request(address: SocketAddr, command: RemotingCommand) -> io::Result<RemotingCommand> {
    Connection::open(address)?.request(command, ANSWER_WITHIN)
}

/// A connection whose answers are read when they are asked for.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    decoder: FrameDecoder,
    last_opaque: i32,
    /// Answers that came before they were asked for.
    early: Vec<RemotingCommand>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, decoder: FrameDecoder::new(), last_opaque: 0, early: Vec::new() })
    }

    /// This end's address.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().expect("the address of a connected socket")
    }

    /// Sends `command` and waits for its answer. `TimedOut` when the server stays silent.
    pub(crate) fn request(&mut self, command: RemotingCommand, within: Duration) -> io::Result<RemotingCommand> {
        let opaque = self.send(command)?;
        self.answer(opaque, within)
    }

    /// Sends `command` under an opaque of its own, which is returned.
    pub(crate) fn send(&mut self, mut command: RemotingCommand) -> io::Result<i32> {
        self.last_opaque += 1;
        command.opaque = self.last_opaque;
        let mut bytes = Vec::new();
        command.encode(&mut bytes).map_err(io::Error::other)?;
        self.stream.write_all(&bytes)?;
        Ok(command.opaque)
    }

    /// The answer to an earlier request; what the server itself asks meanwhile is ignored.
    pub(crate) fn answer(&mut self, opaque: i32, within: Duration) -> io::Result<RemotingCommand> {
        if let Some(at) = self.early.iter().position(|answer| answer.opaque == opaque) {
            return Ok(self.early.swap_remove(at));
        }
        let deadline = Instant::now() + within;
        loop {
            let command = self.next_command(deadline)?;
            match (command.is_response(), command.opaque == opaque) {
                (true, true) => return Ok(command),
                (true, false) => self.early.push(command),
                (false, _) => {}
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
