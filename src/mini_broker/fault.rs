//! Scripted misbehaviour: which requests meet a fault, and what becomes of them.
//!
//! Pure bookkeeping, owned by the broker's thread. A rule counts the requests that fit it; the first rule in the order
//! of their making that wants a request gets it, and no other rule's count of meetings changes by that.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::journal::RequestRecord;
use crate::wire::{RemotingCommand, RequestCode, ResponseCode};

/// A fault that the mini broker commits on purpose: what happens, how often, and to whose requests.
///
/// Unless narrowed, it happens to every request of the code it is given for, on every server.
///
/// ```
/// use rocketmq_sync::mini_broker::Fault;
/// use rocketmq_sync::unversioned::wire::ResponseCode;
///
/// // The third and the fourth request of the group are refused.
/// let busy = Fault::error(ResponseCode::SYSTEM_BUSY, "[REJECTREQUEST] try later").skip(2).times(2).group("orders");
/// ```
#[must_use]
pub struct Fault {
    effect: Effect,
    skip: usize,
    every: usize,
    times: Option<usize>,
    server: Option<String>,
    group: Option<String>,
    topic: Option<String>,
}

impl Fault {
    /// The request is refused unprocessed with this code and remark.
    pub fn error(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self::new(Effect::Error(code, remark.into()))
    }

    /// The request is processed at once, and answered this much later.
    pub fn delay(by: Duration) -> Self {
        Self::new(Effect::Delay(by))
    }

    /// The request is neither processed nor answered.
    pub fn no_reply() -> Self {
        Self::new(Effect::Ignore)
    }

    /// The request is processed, and its answer is lost.
    pub fn swallow_reply() -> Self {
        Self::new(Effect::SwallowReply)
    }

    /// The connection is closed, the request unprocessed.
    pub fn close() -> Self {
        Self::new(Effect::Close)
    }

    /// The request is processed; in place of the answer the connection is closed.
    pub fn close_after() -> Self {
        Self::new(Effect::CloseInsteadOfReply)
    }

    /// The request is processed; in place of the answer these bytes are written.
    pub fn wrong_bytes(bytes: impl Into<Bytes>) -> Self {
        Self::new(Effect::Bytes(bytes.into()))
    }

    /// The request is processed and answered twice.
    pub fn duplicate_reply() -> Self {
        Self::new(Effect::DuplicateReply)
    }

    /// The request is not processed but answered with what `answer` makes of it: the way to lie. Opaque, response flag
    /// and encoding are set by the broker. `answer` runs on the broker's thread: it must not block nor use the broker.
    pub fn answer(answer: impl FnMut(&RemotingCommand) -> RemotingCommand + Send + 'static) -> Self {
        Self::new(Effect::Answer(Box::new(answer)))
    }

    /// The request is processed, and its answer's frame is written as `alter` returns it: the way to make one field
    /// wrong. `alter` runs on the broker's thread: it must not block nor use the broker.
    pub fn alter(alter: impl FnMut(Vec<u8>) -> Vec<u8> + Send + 'static) -> Self {
        Self::new(Effect::Alter(Alter(Arc::new(Mutex::new(alter)))))
    }

    fn new(effect: Effect) -> Self {
        Self { effect, skip: 0, every: 1, times: None, server: None, group: None, topic: None }
    }

    /// Leaves the first `requests` that fit alone; default 0.
    pub fn skip(mut self, requests: usize) -> Self {
        self.skip = requests;
        self
    }

    /// Happens to one in `requests` of those that fit; default 1.
    pub fn every(mut self, requests: usize) -> Self {
        self.every = requests.max(1);
        self
    }

    /// Happens this many times; default without end.
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// Only at this broker, by its name, or at this name server, by its address; default everywhere.
    pub fn at(mut self, server: impl Into<String>) -> Self {
        self.server = Some(server.into());
        self
    }

    /// Only to requests in the name of this producer or consumer group; default any.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Only to requests about this topic; default any.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault")
            .field("effect", &self.effect)
            .field("skip", &self.skip)
            .field("every", &self.every)
            .field("times", &self.times)
            .field("server", &self.server)
            .field("group", &self.group)
            .field("topic", &self.topic)
            .finish()
    }
}

/// Names a fault that was given to a broker, to ask for its count or to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultId(u64);

type Answer = Box<dyn FnMut(&RemotingCommand) -> RemotingCommand + Send>;

enum Effect {
    Error(ResponseCode, String),
    Delay(Duration),
    Ignore,
    SwallowReply,
    Close,
    CloseInsteadOfReply,
    Bytes(Bytes),
    DuplicateReply,
    Answer(Answer),
    Alter(Alter),
}

/// Rewrites the frames of answers. Several answers may be on their way at once, each with the right to it.
#[derive(Clone)]
pub(super) struct Alter(Arc<Mutex<Rewrite>>);

type Rewrite = dyn FnMut(Vec<u8>) -> Vec<u8> + Send;

impl Alter {
    pub(super) fn rewrite(&self, frame: Vec<u8>) -> Vec<u8> {
        (self.0.lock())(frame)
    }
}

impl fmt::Debug for Alter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Alter")
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(code, remark) => f.debug_tuple("Error").field(code).field(remark).finish(),
            Self::Delay(by) => f.debug_tuple("Delay").field(by).finish(),
            Self::Ignore => f.write_str("Ignore"),
            Self::SwallowReply => f.write_str("SwallowReply"),
            Self::Close => f.write_str("Close"),
            Self::CloseInsteadOfReply => f.write_str("CloseInsteadOfReply"),
            Self::Bytes(bytes) => f.debug_tuple("Bytes").field(&bytes.len()).finish(),
            Self::DuplicateReply => f.write_str("DuplicateReply"),
            Self::Answer(_) => f.write_str("Answer"),
            Self::Alter(_) => f.write_str("Alter"),
        }
    }
}

/// What happens to one request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is handled; its answer meets the given fate.
    Process(ReplyFate),
    /// It is answered with this, unprocessed.
    Answer(RemotingCommand),
    /// It is forgotten.
    Ignore,
    /// Its connection is closed.
    Close,
}

/// What happens to the answer of a request, at once or when its long poll ends.
#[derive(Clone, Debug, Default)]
pub(super) enum ReplyFate {
    /// It is sent.
    #[default]
    Sent,
    /// It is sent later.
    Delayed(Duration),
    /// It is lost.
    Lost,
    /// It is sent twice.
    Doubled,
    /// These bytes are sent in its place.
    Replaced(Bytes),
    /// Its frame is rewritten.
    Altered(Alter),
    /// The connection is closed in its place.
    ConnectionClosed,
}

/// All faults of one mini broker.
#[derive(Debug, Default)]
pub(super) struct FaultTable {
    rules: Vec<Rule>,
    last_id: u64,
}

#[derive(Debug)]
struct Rule {
    id: FaultId,
    /// Without one, any request.
    code: Option<RequestCode>,
    fault: Fault,
    /// Requests that fitted.
    seen: usize,
    /// Requests that met the fault.
    hits: usize,
}

impl FaultTable {
    pub(super) fn add(&mut self, code: Option<RequestCode>, fault: Fault) -> FaultId {
        self.last_id += 1;
        let id = FaultId(self.last_id);
        self.rules.push(Rule { id, code, fault, seen: 0, hits: 0 });
        id
    }

    pub(super) fn remove(&mut self, id: FaultId) {
        self.rules.retain(|rule| rule.id != id);
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(super) fn hits(&self, id: FaultId) -> usize {
        self.rules.iter().find(|rule| rule.id == id).map_or(0, |rule| rule.hits)
    }

    /// Decides what becomes of a request.
    pub(super) fn verdict(&mut self, record: &RequestRecord, request: &RemotingCommand) -> Verdict {
        for rule in &mut self.rules {
            if rule.wants(record) {
                return rule.fault.effect.verdict(request);
            }
        }
        Verdict::Process(ReplyFate::Sent)
    }
}

impl Rule {
    /// Counts a request that fits, and tells whether it meets the fault.
    fn wants(&mut self, record: &RequestRecord) -> bool {
        if !self.fits(record) {
            return false;
        }
        self.seen += 1;
        let Some(beyond) = self.seen.checked_sub(self.fault.skip + 1) else { return false };
        let spent = self.fault.times.is_some_and(|times| self.hits >= times);
        let hit = !spent && beyond % self.fault.every == 0;
        self.hits += usize::from(hit);
        hit
    }

    fn fits(&self, record: &RequestRecord) -> bool {
        self.code.is_none_or(|code| code == record.code)
            && self.fault.server.as_deref().is_none_or(|server| server == &*record.server)
            && self.fault.group.as_deref().is_none_or(|group| record.group() == Some(group))
            && self.fault.topic.as_deref().is_none_or(|topic| record.topic() == Some(topic))
    }
}

impl Effect {
    fn verdict(&mut self, request: &RemotingCommand) -> Verdict {
        match self {
            Self::Error(code, remark) => {
                Verdict::Answer(RemotingCommand::response_to(request, *code, Some(remark.clone())))
            }
            Self::Answer(answer) => Verdict::Answer(answer(request)),
            Self::Ignore => Verdict::Ignore,
            Self::Close => Verdict::Close,
            Self::Delay(by) => Verdict::Process(ReplyFate::Delayed(*by)),
            Self::SwallowReply => Verdict::Process(ReplyFate::Lost),
            Self::CloseInsteadOfReply => Verdict::Process(ReplyFate::ConnectionClosed),
            Self::Bytes(bytes) => Verdict::Process(ReplyFate::Replaced(bytes.clone())),
            Self::DuplicateReply => Verdict::Process(ReplyFate::Doubled),
            Self::Alter(alter) => Verdict::Process(ReplyFate::Altered(alter.clone())),
        }
    }
}
