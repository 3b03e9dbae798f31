//! The selector's side of a connection: its socket, transport, decoder and stage.

use std::io::{self, ErrorKind as IoErrorKind};
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;

use super::connection::Connection;
use super::dial::Dial;
use super::liveness::Liveness;
use super::resolver::both;
use super::transport::Transport;
use crate::wire::FrameDecoder;

pub(super) struct Link {
    pub(super) connection: Arc<Connection>,
    pub(super) stage: Stage,
    /// Address from the address map, which replaces the connection's own.
    pub(super) mapped_to: Option<Arc<str>>,
    /// Time of the next work without an event.
    pub(super) due: Option<Instant>,
}

pub(super) enum Stage {
    Dialing(Dial),
    Open(Box<OpenLink>),
    /// Between two stages, within one function.
    Moving,
}

pub(super) struct OpenLink {
    pub(super) socket: Arc<TcpStream>,
    pub(super) transport: Box<dyn Transport>,
    pub(super) decoder: FrameDecoder,
    /// True once the peer has sent a whole frame, which ends the back-off of its address.
    pub(super) heard: bool,
    pub(super) liveness: Liveness,
    /// Latest time of the end, after GO_AWAY; the end comes when nothing is pending.
    pub(super) leaving_by: Option<Instant>,
}

/// Result of a turn of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// No bytes had gathered, or the socket takes no more until its next event.
    AllItCan,
    /// A batch was written. More may have gathered meanwhile.
    ABatch,
}

impl Link {
    /// Address for texts, with the one that is dialled.
    pub(super) fn label(&self) -> String {
        let address = self.connection.address();
        both(address, self.mapped_to.as_ref().unwrap_or(address))
    }

    /// Writes one batch. To go on would be to chase the callers with ever smaller writes, and to let the other
    /// connections and the responses wait.
    pub(super) fn write(&mut self) -> io::Result<Written> {
        let Stage::Open(open) = &mut self.stage else { return Ok(Written::AllItCan) };
        let written = match self.connection.next_batch() {
            None => open.transport.flush(&open.socket).map(|()| Written::AllItCan),
            Some(mut batch) => {
                let written = batch.write(&mut *open.transport, &open.socket);
                let written = written.and_then(|()| open.transport.flush(&open.socket));
                self.connection.put_back(batch);
                written.map(|()| Written::ABatch)
            }
        };
        match written {
            Err(error) if error.kind() == IoErrorKind::WouldBlock => Ok(Written::AllItCan),
            other => other,
        }
    }

    /// True if the peer sent GO_AWAY and everything that was begun is done.
    pub(super) fn has_left(&self) -> bool {
        matches!(&self.stage, Stage::Open(open) if open.leaving_by.is_some()) && self.connection.is_drained()
    }

    /// Lets the transport end its protocol before the connection is closed.
    pub(super) fn say_goodbye(&mut self) {
        if let Stage::Open(open) = &mut self.stage {
            open.transport.close(&open.socket);
        }
    }

    /// Sets the time of the next look without an event: a dial's step, a deadline, the end of a silence.
    pub(super) fn plan(&mut self) {
        let (own, silence_counts) = match &self.stage {
            Stage::Dialing(dial) => (Some(dial.deadline()), false),
            Stage::Open(open) => {
                let probe_ends = open.liveness.probe_ends();
                (probe_ends.into_iter().chain(open.leaving_by).min(), probe_ends.is_none())
            }
            Stage::Moving => (None, false),
        };
        self.due = self.connection.plan(own, silence_counts);
    }
}
