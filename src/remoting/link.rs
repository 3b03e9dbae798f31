//! The selector's side of a connection: its socket, transport and decoder, and how far it has come.

use std::io::{self, ErrorKind as IoErrorKind};
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;

use super::connection::Connection;
use super::dial::Dial;
use super::outbox::Batch;
use super::transport::Transport;
use crate::wire::FrameDecoder;

/// Batches written to one connection before the others get their turn.
const BATCHES_PER_TURN: usize = 4;

pub(super) struct Link {
    pub(super) connection: Arc<Connection>,
    pub(super) stage: Stage,
    /// When something must be done without an event.
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
    /// The peer has sent a whole frame: the address is no longer in back-off.
    pub(super) heard: bool,
    /// By when a peer that was asked for a sign of life must give one.
    pub(super) probe_ends: Option<Instant>,
    /// Closed as soon as nothing is pending any more, and at this moment at the latest.
    pub(super) leaving_by: Option<Instant>,
}

/// What a turn of writing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// All of it, or as much as the socket takes now: an event tells when it takes more.
    AllItCan,
    /// Others append as fast as we write: the rest waits for the next turn.
    MoreIsThere,
}

impl Link {
    /// Writes what has gathered.
    pub(super) fn write(&mut self) -> io::Result<Written> {
        let Stage::Open(open) = &mut self.stage else { return Ok(Written::AllItCan) };
        let mut batch = Batch::default();
        for _ in 0..BATCHES_PER_TURN {
            match self.connection.next_batch(batch) {
                Some(next) => batch = next,
                None => return open.flush().map(|()| Written::AllItCan),
            }
            if let Err(error) = batch.write(&mut *open.transport, &open.socket) {
                self.connection.put_back(batch);
                return if is_full(&error) { Ok(Written::AllItCan) } else { Err(error) };
            }
        }
        self.connection.put_back(batch);
        Ok(Written::MoreIsThere)
    }

    /// Whether the peer asked us to go away and everything that was begun is done.
    pub(super) fn has_left(&self) -> bool {
        matches!(&self.stage, Stage::Open(open) if open.leaving_by.is_some()) && self.connection.is_drained()
    }

    /// The connection is about to be closed.
    pub(super) fn say_goodbye(&mut self) {
        if let Stage::Open(open) = &mut self.stage {
            open.transport.close(&open.socket);
        }
    }

    /// Learns when to look again without an event: at a dial's step, at a deadline, at the end of a silence.
    pub(super) fn plan(&mut self) {
        let (own, silence_counts) = match &self.stage {
            Stage::Dialing(dial) => (Some(dial.deadline()), false),
            Stage::Open(open) => (open.probe_ends.into_iter().chain(open.leaving_by).min(), open.probe_ends.is_none()),
            Stage::Moving => (None, false),
        };
        self.due = self.connection.plan(own, silence_counts);
    }
}

impl OpenLink {
    fn flush(&mut self) -> io::Result<()> {
        match self.transport.flush(&self.socket) {
            Err(error) if is_full(&error) => Ok(()),
            other => other,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == IoErrorKind::WouldBlock
}
