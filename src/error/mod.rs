//! Error type of the library: kind of the failure, certainty about the message, and attempts.

mod kind;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::kind::ErrorKind;
use crate::wire::ResponseCode;

/// Result type of most calls of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// Certainty about a message whose send failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Certainty {
    /// No broker stored the message: no byte of it was sent, or the broker refused it.
    NotSent,
    /// The message may be stored: it was sent, and no response arrived.
    Unknown,
    /// A broker stored the message.
    Stored,
}

/// Progress of an attempt when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Looking up the topic's route or the broker's address.
    Route,
    /// Resolving and connecting.
    Connect,
    /// In the connection's outbox: no byte of the request was given to the operating system.
    Queue,
    /// Waiting for the response: a part of the request was given to the operating system.
    Reply,
    /// The broker responded.
    Answered,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Route => "looking up the route",
            Self::Connect => "connecting",
            Self::Queue => "waiting to be written",
            Self::Reply => "waiting for the response",
            Self::Answered => "answered",
        })
    }
}

/// Attempt of a send: broker, progress, duration and result.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// Name of the broker, or its address if the name is unknown.
    pub broker: String,
    /// Progress when the attempt failed.
    pub phase: Phase,
    /// Duration of the attempt.
    pub elapsed: Duration,
    /// Kind of the failure.
    pub kind: ErrorKind,
    /// Response code of the broker, if it responded.
    pub broker_code: Option<ResponseCode>,
    /// Certainty about the message after this attempt.
    pub certainty: Certainty,
    /// Description of the failure.
    pub detail: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {:?}, {}: {}", self.broker, self.elapsed, self.phase, self.detail)
    }
}

/// Cause of an error, shared by the errors of all calls that it ended.
pub(crate) type Source = Arc<dyn std::error::Error + Send + Sync>;

/// Failure of a call; one pointer wide.
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
    /// Error of the operating system or of the decoder that caused this one.
    source: Option<Source>,
}

impl Error {
    /// Creates an error of certainty `NotSent`; [`Error::with_certainty`] changes it.
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

    /// Creates the error for a failed system call; `operation` names it.
    pub(crate) fn of_system(operation: &str, error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::new(ErrorKind::Resource, format!("{operation} failed: {error}")).with_source(error)
    }

    /// Creates the error for a refusal by a broker or name server.
    pub(crate) fn refused(code: ResponseCode, remark: Option<&str>, address: &str) -> Self {
        let first_line = remark.unwrap_or_default().lines().next().unwrap_or_default();
        let kind = refusal_kind(code, first_line);
        let mut error = Self::new(kind, format!("{code}: {first_line}"));
        if code == ResponseCode::SYSTEM_ERROR && kind == ErrorKind::Broker {
            // Brokers return this code for any internal failure, also after storing the message.
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

    pub(crate) fn with_source(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.with_shared_source(Some(Arc::new(source)))
    }

    pub(crate) fn with_shared_source(mut self, source: Option<Source>) -> Self {
        self.inner.source = source;
        self
    }

    pub(crate) fn shared_source(&self) -> Option<&Source> {
        self.inner.source.as_ref()
    }

    pub(crate) fn with_attempts(mut self, attempts: Vec<Attempt>) -> Self {
        self.inner.attempts = attempts;
        self
    }

    /// Returns the same failure with a description from the caller's point of view.
    pub(crate) fn in_context(mut self, detail: String) -> Self {
        self.inner.detail = detail;
        self
    }

    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Returns the certainty about the message: if it may be stored, for a call that sends one.
    #[must_use]
    pub fn certainty(&self) -> Certainty {
        self.inner.certainty
    }

    /// True if the same call may succeed later, without any change to it.
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

    /// True if the client itself has ended, so that a retry is useless.
    pub(crate) fn is_of_an_ended_client(&self) -> bool {
        matches!(self.kind(), ErrorKind::NotRunning | ErrorKind::Internal)
    }

    /// Response code with which a broker or name server refused the request.
    #[must_use]
    pub fn broker_code(&self) -> Option<ResponseCode> {
        self.inner.broker_code
    }

    /// Remark with which a broker or name server refused the request, with all its lines.
    #[must_use]
    pub fn remark(&self) -> Option<&str> {
        self.inner.remark.as_deref()
    }

    /// Address that the failure relates to.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.inner.address.as_deref()
    }

    /// Attempts of a send, in order; empty for other calls and for sends that failed before the first attempt.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.inner.attempts
    }

    /// Description of the failure, without attempts and certainty.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.inner.detail
    }
}

/// Maps refused credentials of both versions: 4.x brokers respond with `SYSTEM_ERROR` and the name of their exception,
/// 5.x with `NO_PERMISSION`.
fn refusal_kind(code: ResponseCode, remark: &str) -> ErrorKind {
    match code {
        ResponseCode::NO_PERMISSION => ErrorKind::Permission,
        ResponseCode::SYSTEM_ERROR if remark.contains("AclException") => ErrorKind::Permission,
        _ => ErrorKind::Broker,
    }
}

/// True for broker codes after which a retry may succeed soon.
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
