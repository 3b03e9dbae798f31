//! The way to the thread `rmq-remoting`: a channel, and a wake-up that is only paid for while the selector sleeps.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::{Poll, Token, Waker};
use parking_lot::Mutex;

use super::connection::Connection;
use super::resolver::ResolvedName;
use crate::error::{Error, Result};
use crate::logging::warn;

/// The token of wake-ups; connections have others.
pub(super) const WAKER: Token = Token(0);

/// Message of another thread to the selector.
#[derive(Debug)]
pub(super) enum Command {
    /// Dial for a new connection.
    Dial(Arc<Connection>),
    /// Look at a connection: it has bytes to write, or a deadline to watch.
    Look(Token),
    /// Answer of the resolver.
    Resolved(Token, Result<ResolvedName>),
}

/// The senders' end.
#[derive(Debug)]
pub(super) struct Mailbox {
    commands: Sender<Command>,
    /// Set by the selector before it looks at the channel for the last time and sleeps. Partner of the swap in
    /// [`Mailbox::wake`]: a thread that sends after that look finds it set, and wakes the selector. Both are
    /// sequentially consistent, so that one of the two sees the other.
    asleep: AtomicBool,
    stopping: AtomicBool,
    /// `None` after the selector's end, so that handles which outlive it keep no descriptor.
    waker: Mutex<Option<Waker>>,
    left_behind: Mutex<Vec<String>>,
}

/// The selector's end.
pub(super) struct Inbox {
    pub(super) poll: Poll,
    pub(super) commands: Receiver<Command>,
}

impl Mailbox {
    pub(super) fn new() -> Result<(Self, Inbox)> {
        let no_poll = |error: io::Error| Error::of_system("creating the selector", error);
        let poll = Poll::new().map_err(no_poll)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(no_poll)?;
        let (commands, receiver) = unbounded();
        let mailbox = Self {
            commands,
            asleep: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            waker: Mutex::new(Some(waker)),
            left_behind: Mutex::default(),
        };
        Ok((mailbox, Inbox { poll, commands: receiver }))
    }

    pub(super) fn send(&self, command: Command) {
        // The receiver ends only after the last connection was closed: the command has no effect then.
        let _ = self.commands.send(command);
        self.wake();
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Notes that the selector is about to look for work and then sleep, or is awake again.
    pub(super) fn set_asleep(&self, asleep: bool) {
        self.asleep.store(asleep, Ordering::SeqCst);
    }

    fn wake(&self) {
        if !self.asleep.swap(false, Ordering::SeqCst) {
            return;
        }
        let woken = self.waker.lock().as_ref().map_or(Ok(()), Waker::wake);
        if let Err(error) = woken {
            warn!("poll: waking the selector failed: {error}; requests wait for its next event");
        }
    }

    /// Notes the selector's end, and the threads that it left behind.
    pub(super) fn close(&self, left_behind: impl IntoIterator<Item = String>) {
        self.left_behind.lock().extend(left_behind);
        *self.waker.lock() = None;
    }

    /// Takes the names of the threads that could not be ended.
    pub(super) fn take_left_behind(&self) -> Vec<String> {
        std::mem::take(&mut self.left_behind.lock())
    }
}
