//! Scripted faults: the requests they apply to, and their effects.
//!
//! Pure bookkeeping, owned by the broker's thread. A fault counts the requests that match it. A request is hit by the
//! first fault, in the order of creation, that is due for it; the hit counts of the other faults do not change.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::journal::RequestRecord;
use crate::wire::{RemotingCommand, RequestCode, ResponseCode};

/// Fault that the mini broker produces on purpose: effect, frequency, and the requests it applies to.
///
/// Unless restricted, it applies to every request of its code, on every server.
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
    /// Refuses the request unprocessed with this code and remark.
    pub fn error(code: ResponseCode, remark: impl Into<String>) -> Self {
        Self::new(Effect::Error(code, remark.into()))
    }

    /// Processes the request at once, and sends the response with this delay.
    pub fn delay(by: Duration) -> Self {
        Self::new(Effect::Delay(by))
    }

    /// Neither processes nor answers the request.
    pub fn no_reply() -> Self {
        Self::new(Effect::Ignore)
    }

    /// Processes the request, and drops its response.
    pub fn swallow_reply() -> Self {
        Self::new(Effect::SwallowReply)
    }

    /// Closes the connection without processing the request.
    pub fn close() -> Self {
        Self::new(Effect::Close)
    }

    /// Processes the request, and closes the connection instead of responding.
    pub fn close_after() -> Self {
        Self::new(Effect::CloseInsteadOfReply)
    }

    /// Processes the request, and writes these bytes instead of the response.
    pub fn wrong_bytes(bytes: impl Into<Bytes>) -> Self {
        Self::new(Effect::Bytes(bytes.into()))
    }

    /// Processes the request and sends the response twice.
    pub fn duplicate_reply() -> Self {
        Self::new(Effect::DuplicateReply)
    }

    /// Answers the request with the result of `answer`, without processing it; for wrong responses. The broker sets
    /// opaque, response flag and encoding. `answer` runs on the broker's thread: it must not block nor use the broker.
    pub fn answer(answer: impl FnMut(&RemotingCommand) -> RemotingCommand + Send + 'static) -> Self {
        Self::new(Effect::Answer(Box::new(answer)))
    }

    /// Processes the request, and writes the response's frame as `alter` returns it; for responses with one wrong
    /// field. `alter` runs on the broker's thread: it must not block nor use the broker.
    pub fn alter(alter: impl FnMut(Vec<u8>) -> Vec<u8> + Send + 'static) -> Self {
        Self::new(Effect::Alter(Alter(Arc::new(Mutex::new(alter)))))
    }

    fn new(effect: Effect) -> Self {
        Self { effect, skip: 0, every: 1, times: None, server: None, group: None, topic: None }
    }

    /// Skips the first `requests` matching requests. Default: 0.
    pub fn skip(mut self, requests: usize) -> Self {
        self.skip = requests;
        self
    }

    /// Applies to one in `requests` matching requests. Default: 1.
    pub fn every(mut self, requests: usize) -> Self {
        self.every = requests.max(1);
        self
    }

    /// Applies this many times. Default: without limit.
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// Applies only at this broker, by its name, or at this name server, by its address. Default: everywhere.
    pub fn at(mut self, server: impl Into<String>) -> Self {
        self.server = Some(server.into());
        self
    }

    /// Applies only to requests of this producer or consumer group. Default: any.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Applies only to requests about this topic. Default: any.
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

/// Id of an added fault, for its count and its removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultId(u64);

type ScriptedAnswer = Box<dyn FnMut(&RemotingCommand) -> RemotingCommand + Send>;

enum Effect {
    Error(ResponseCode, String),
    Delay(Duration),
    Ignore,
    SwallowReply,
    Close,
    CloseInsteadOfReply,
    Bytes(Bytes),
    DuplicateReply,
    Answer(ScriptedAnswer),
    Alter(Alter),
}

/// Function that rewrites frames of responses. Several responses may be pending at once, each with a reference to it.
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

/// Decision about one request.
#[derive(Debug)]
pub(super) enum FaultVerdict {
    /// The request is handled, and its response is treated as given.
    Process(ReplyFate),
    /// The request is answered with this response, unprocessed.
    Answer(RemotingCommand),
    /// The request is ignored.
    Ignore,
    /// The connection of the request is closed.
    Close,
}

/// Treatment of a request's response, at once or when its long poll ends.
#[derive(Clone, Debug, Default)]
pub(super) enum ReplyFate {
    /// The response is sent.
    #[default]
    Sent,
    /// The response is sent later.
    Delayed(Duration),
    /// The response is dropped.
    Lost,
    /// The response is sent twice.
    Doubled,
    /// These bytes are sent instead of the response.
    Replaced(Bytes),
    /// The response's frame is rewritten.
    Altered(Alter),
    /// The connection is closed instead of responding.
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
    /// Request code the fault applies to; `None` for any.
    code: Option<RequestCode>,
    fault: Fault,
    /// Number of requests that matched.
    seen: usize,
    /// Number of requests that were hit.
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

    /// Decides about a request.
    pub(super) fn verdict(&mut self, record: &RequestRecord, request: &RemotingCommand) -> FaultVerdict {
        for rule in &mut self.rules {
            if rule.wants(record) {
                return rule.fault.effect.verdict(request);
            }
        }
        FaultVerdict::Process(ReplyFate::Sent)
    }
}

impl Rule {
    /// Counts a matching request. Returns true if the fault hits it.
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
    fn verdict(&mut self, request: &RemotingCommand) -> FaultVerdict {
        match self {
            Self::Error(code, remark) => {
                FaultVerdict::Answer(RemotingCommand::response_to(request, *code, Some(remark.clone())))
            }
            Self::Answer(answer) => FaultVerdict::Answer(answer(request)),
            Self::Ignore => FaultVerdict::Ignore,
            Self::Close => FaultVerdict::Close,
            Self::Delay(by) => FaultVerdict::Process(ReplyFate::Delayed(*by)),
            Self::SwallowReply => FaultVerdict::Process(ReplyFate::Lost),
            Self::CloseInsteadOfReply => FaultVerdict::Process(ReplyFate::ConnectionClosed),
            Self::Bytes(bytes) => FaultVerdict::Process(ReplyFate::Replaced(bytes.clone())),
            Self::DuplicateReply => FaultVerdict::Process(ReplyFate::Doubled),
            Self::Alter(alter) => FaultVerdict::Process(ReplyFate::Altered(alter.clone())),
        }
    }
}
