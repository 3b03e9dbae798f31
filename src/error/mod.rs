//! The one error type of the library: what failed, whether the message may be stored, and what was tried.

mod kind;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::kind::ErrorKind;
use crate::wire::ResponseCode;

/// What most calls of this library return.
pub type Result<T> = std::result::Result<T, Error>;

/// What is known of a message whose send failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Certainty {
    /// No broker stored it: no byte of it left, or the broker refused it.
    NotSent,
    /// It may be stored: it left, and no reply came.
    Unknown,
    /// A broker stored it.
    Stored,
}

/// How far an attempt had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Looking for the topic's route or the broker's address.
    Route,
    /// Resolving and dialling.
    Connect,
    /// In the connection's outbox: no byte of it was given to the operating system.
    Queue,
    /// Some of it was given to the operating system: waiting for the reply.
    Reply,
    /// The broker replied.
    Answered,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Route => "looking for the route",
            Self::Connect => "connecting",
            Self::Queue => "waiting to be written",
            Self::Reply => "waiting for the reply",
            Self::Answered => "answered",
        })
    }
}

/// One attempt of a send: where it went, how far it came, how long it took, and how it ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// The broker's name, or its address where no name is known.
    pub broker: String,
    /// How far it came.
    pub phase: Phase,
    /// How long it took.
    pub elapsed: Duration,
    /// Its failure.
    pub kind: ErrorKind,
    /// The broker's response code, when there was a reply.
    pub broker_code: Option<ResponseCode>,
    /// What is known of the message after this attempt.
    pub certainty: Certainty,
    /// The failure in words.
    pub detail: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {:?}, {}: {}", self.broker, self.elapsed, self.phase, self.detail)
    }
}

/// Why a call failed; one pointer wide.
#[derive(Clone)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    certainty: Certainty,
    detail: String,
    address: Option<String>,
    broker_code: Option<ResponseCode>,
    remark: Option<String>,
    attempts: Vec<Attempt>,
    /// The failure of the operating system or of the decoder that led to this one.
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of which nothing reached a broker, until [`Error::with_certainty`] says otherwise.
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner {
                kind,
                certainty: Certainty::NotSent,
                detail: detail.into(),
                address: None,
                broker_code: None,
                remark: None,
                attempts: Vec::new(),
                source: None,
            }),
        }
    }

    /// A refusal of the operating system; `operation` names what it refused.
    pub(crate) fn of_system(operation: &str, error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::new(ErrorKind::Resource, format!("{operation} failed: {error}")).with_source(error)
    }

    /// A broker's or name server's refusal.
    pub(crate) fn refused(code: ResponseCode, remark: Option<&str>, address: &str) -> Self {
        let first_line = remark.unwrap_or_default().lines().next().unwrap_or_default();
        let kind = refusal_kind(code, first_line);
        let mut error = Self::new(kind, format!("{code}: {first_line}"));
        if code == ResponseCode::SYSTEM_ERROR && kind == ErrorKind::Broker {
            // Brokers say this for whatever went wrong inside them, after storing too.
            error.inner.certainty = Certainty::Unknown;
        }
        error.inner.broker_code = Some(code);
        error.inner.remark = remark.map(str::to_owned);
        error.inner.address = Some(address.to_owned());
        error
    }

    pub(crate) fn with_certainty(mut self, certainty: Certainty) -> Self {
        self.inner.certainty = certainty;
        self
    }

    pub(crate) fn with_address(mut self, address: &str) -> Self {
        self.inner.address = Some(address.to_owned());
        self
    }

    pub(crate) fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.inner.source = Some(Arc::new(source));
        self
    }

    pub(crate) fn with_attempts(mut self, attempts: Vec<Attempt>) -> Self {
        self.inner.attempts = attempts;
        self
    }

    /// The same failure, told as what it means for the caller.
    pub(crate) fn in_context(mut self, detail: String) -> Self {
        self.inner.detail = detail;
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether the message, if the call was to send one, may be stored.
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        self.inner.certainty
    }

    /// Whether the same call may succeed later, without any change to it.
    ///
    /// A repeated send of a message whose certainty is [`Certainty::Unknown`] may store it twice.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.kind() {
            ErrorKind::Resolve
            | ErrorKind::Connect
            | ErrorKind::ConnectionLost
            | ErrorKind::Timeout
            | ErrorKind::WindowFull
            | ErrorKind::NoRoute
            | ErrorKind::NameServer
            | ErrorKind::NoBroker
            | ErrorKind::Resource => true,
            ErrorKind::Broker => self.inner.broker_code.is_some_and(is_passing),
            _ => false,
        }
    }

    /// True if the client itself is over: nothing else need be tried.
    pub(crate) fn is_of_an_ended_client(&self) -> bool {
        matches!(self.kind(), ErrorKind::NotRunning | ErrorKind::Internal)
    }

    /// The code with which a broker or name server refused.
    #[must_use]
    pub fn broker_code(&self) -> Option<ResponseCode> {
        self.inner.broker_code
    }

    /// The words with which a broker or name server refused, all lines of them.
    #[must_use]
    pub fn remark(&self) -> Option<&str> {
        self.inner.remark.as_deref()
    }

    /// The address that the failure has to do with.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.inner.address.as_deref()
    }

    /// What a send tried, in its order; empty for other calls and for sends that failed before the first attempt.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.inner.attempts
    }

    /// The failure in words, without attempts and certainty.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.inner.detail
    }
}

/// 4.x brokers refuse credentials with `SYSTEM_ERROR` and the name of their exception, 5.x with `NO_PERMISSION`.
fn refusal_kind(code: ResponseCode, remark: &str) -> ErrorKind {
    match code {
        ResponseCode::NO_PERMISSION => ErrorKind::Permission,
        ResponseCode::SYSTEM_ERROR if remark.contains("AclException") => ErrorKind::Permission,
        _ => ErrorKind::Broker,
    }
}

/// Codes of a broker that may answer otherwise in a moment.
fn is_passing(code: ResponseCode) -> bool {
    matches!(
        code,
        ResponseCode::SYSTEM_ERROR
            | ResponseCode::SYSTEM_BUSY
            | ResponseCode::SERVICE_NOT_AVAILABLE
            | ResponseCode::TOPIC_NOT_EXIST
            | ResponseCode::FLOW_CONTROL
            | ResponseCode::GO_AWAY
    )
}

/// One line. The alternate form, `{:#}`, adds the attempts of a send, on the same line.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { detail, address, attempts, .. } = &*self.inner;
        f.write_str(detail)?;
        if let Some(address) = address.as_deref().filter(|address| !detail.contains(address)) {
            write!(f, " ({address})")?;
        }
        if f.alternate() {
            for (index, attempt) in attempts.iter().enumerate() {
                write!(f, "; attempt {}: {attempt}", index + 1)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("certainty", &self.inner.certainty)
            .field("detail", &self.inner.detail)
            .field("address", &self.inner.address)
            .field("broker_code", &self.inner.broker_code)
            .field("attempts", &self.inner.attempts)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_pointer_wide() {
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn an_error_is_one_line_and_its_alternate_form_adds_the_attempts() {
        let attempt = Attempt {
            broker: "broker-a".into(),
            phase: Phase::Connect,
            elapsed: Duration::from_millis(3),
            kind: ErrorKind::Connect,
            broker_code: None,
            certainty: Certainty::NotSent,
            detail: "connection refused".into(),
        };
        let error = Error::new(ErrorKind::Connect, "send to T failed").with_attempts(vec![attempt.clone(), attempt]);
        assert_eq!(error.to_string(), "send to T failed");
        assert_eq!(
            format!("{error:#}"),
            "send to T failed; attempt 1: broker-a after 3ms, connecting: connection refused; \
             attempt 2: broker-a after 3ms, connecting: connection refused"
        );
    }

    #[test]
    fn the_refusal_of_the_system_is_the_source() {
        let refusal = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        let error = Error::of_system("creating the selector", refusal);
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
        assert_eq!(source.map(std::io::Error::kind), Some(std::io::ErrorKind::OutOfMemory));
        assert_eq!(error.kind(), ErrorKind::Resource);
    }

    #[test]
    fn wrong_credentials_are_told_from_other_refusals_on_both_versions() {
        let old = "org.apache.rocketmq.acl.common.AclException: No acl config for KEY, org.apache…";
        let refused = |code, remark| Error::refused(code, Some(remark), "127.0.0.1:10911").kind();
        assert_eq!(refused(ResponseCode::SYSTEM_ERROR, old), ErrorKind::Permission);
        assert_eq!(refused(ResponseCode::NO_PERMISSION, "check signature failed."), ErrorKind::Permission);
        assert_eq!(refused(ResponseCode::SYSTEM_ERROR, "java.lang.NullPointerException"), ErrorKind::Broker);
    }

    #[test]
    fn only_the_first_line_of_a_remark_is_shown_and_all_of_it_is_kept() {
        let error = Error::refused(ResponseCode::TOPIC_NOT_EXIST, Some("topic[T] not exist\nSee http://…"), "b:1");
        assert_eq!(error.to_string(), "TOPIC_NOT_EXIST (17): topic[T] not exist (b:1)");
        assert!(error.remark().unwrap().contains("See"));
    }
}
