//! Control requests of the bench to its peer, besides the protocol: separate request codes on a separate connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rocketmq_sync::unversioned::wire::{ExtFields, FieldSink, FrameDecoder, RemotingCommand, RequestCode};
use serde::{Deserialize, Serialize};

use super::Result;

/// Returns a [`Tally`].
pub(crate) const REPORT: RequestCode = RequestCode(990_001);
/// Grants messages to this many more pulls (field [`COUNT`]); until then they wait.
pub(crate) const GRANT: RequestCode = RequestCode(990_002);
/// Replies as soon as this many one-way sends have arrived in total (field [`COUNT`]).
pub(crate) const AWAIT_ONEWAYS: RequestCode = RequestCode(990_003);
/// Returns a received frame of the request code (field [`CODE`]), for one-way or two-way sends.
pub(crate) const CAPTURED: RequestCode = RequestCode(990_004);

pub(crate) const COUNT: &str = "count";
pub(crate) const CODE: &str = "code";

/// Totals of the peer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Number of two-way sends.
    pub(crate) sends: u64,
    pub(crate) oneways: u64,
    /// Number of pulls answered with messages.
    pub(crate) pulls: u64,
    /// Number of pulls that did not continue at the end of the previous one on the same queue.
    pub(crate) misplaced_pulls: u64,
    pub(crate) send_backs: u64,
    /// Sum of the committed offsets of all queues of the topic.
    pub(crate) committed: u64,
    pub(crate) heartbeats: u64,
    /// Number of requests with an unknown code.
    pub(crate) unknown: u64,
}

/// Blocking connection to the peer.
pub(crate) struct Control {
    stream: TcpStream,
    decoder: FrameDecoder,
}

impl Control {
    pub(crate) fn connect(peer: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(peer)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, decoder: FrameDecoder::new() })
    }

    pub(crate) fn report(&mut self) -> Result<Tally> {
        Ok(serde_json::from_slice(&self.call(REPORT, &())?.body)?)
    }

    pub(crate) fn grant(&mut self, pulls: u64) -> Result<()> {
        self.call(GRANT, &Number(COUNT, pulls.try_into()?)).map(drop)
    }

    pub(crate) fn await_oneways(&mut self, count: u64) -> Result<()> {
        self.call(AWAIT_ONEWAYS, &Number(COUNT, count.try_into()?)).map(drop)
    }

    pub(crate) fn captured(&mut self, code: RequestCode) -> Result<Vec<u8>> {
        Ok(self.call(CAPTURED, &Number(CODE, code.0.into()))?.body.to_vec())
    }

    fn call(
        &mut self,
        code: RequestCode,
        fields: &dyn rocketmq_sync::unversioned::wire::HeaderFields,
    ) -> Result<RemotingCommand> {
        let mut bytes = Vec::new();
        RemotingCommand::request(code, fields).encode(&mut bytes)?;
        self.stream.write_all(&bytes)?;
        let mut chunk = [0; 4096];
        loop {
            if let Some(reply) = self.decoder.next_command()? {
                return if reply.code == 0 { Ok(reply) } else { Err(reply.remark.unwrap_or_default().into()) };
            }
            match self.stream.read(&mut chunk)? {
                0 => return Err("the peer is gone".into()),
                count => self.decoder.push(&chunk[..count]),
            }
        }
    }
}

struct Number(&'static str, i64);

impl rocketmq_sync::unversioned::wire::HeaderFields for Number {
    fn write_to(&self, sink: &mut dyn FieldSink) {
        sink.number(self.0, self.1);
    }
}

/// Returns the number in a field of a request.
pub(crate) fn number(fields: &ExtFields, key: &str) -> Result<u64> {
    Ok(fields.get(key).ok_or_else(|| format!("field {key} is missing"))?.parse()?)
}
