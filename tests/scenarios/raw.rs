//! Requests over a blocking socket, for a test's actions besides the client under test.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rocketmq_sync::unversioned::wire::{ExtFields, FieldSink, FrameDecoder, RemotingCommand};

/// Time of silence after which a server will not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Creates a header from `(name, value)` pairs.
pub(crate) fn fields(pairs: &[(&str, &str)]) -> ExtFields {
    let mut fields = ExtFields::new();
    for (name, value) in pairs {
        fields.text(name, value);
    }
    fields
}

/// Header that creates or changes a topic, with numbers of queues to read and to write. The order flag matters only to
/// clients that request it.
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

/// Sends one request on its own connection and reads its response.
pub(crate) fn request(address: SocketAddr, command: RemotingCommand) -> io::Result<RemotingCommand> {
    Connection::open(address)?.request(command, ANSWER_WITHIN)
}

/// Connection whose responses are read on request.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    decoder: FrameDecoder,
    last_opaque: i32,
    /// Responses that arrived before they were requested.
    early: Vec<RemotingCommand>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, decoder: FrameDecoder::new(), last_opaque: 0, early: Vec::new() })
    }

    /// Local address of the connection.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().expect("the address of a connected socket")
    }

    /// Sends `command` and waits for its response. `TimedOut` if the server stays silent.
    pub(crate) fn request(&mut self, command: RemotingCommand, within: Duration) -> io::Result<RemotingCommand> {
        let opaque = self.send(command)?;
        self.answer(opaque, within)
    }

    /// Sends `command` under its own opaque, which is returned.
    pub(crate) fn send(&mut self, mut command: RemotingCommand) -> io::Result<i32> {
        self.last_opaque += 1;
        command.opaque = self.last_opaque;
        let mut bytes = Vec::new();
        command.encode(&mut bytes).map_err(io::Error::other)?;
        self.stream.write_all(&bytes)?;
        Ok(command.opaque)
    }

    /// Returns the response to an earlier request; requests of the server in the meantime are ignored.
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
