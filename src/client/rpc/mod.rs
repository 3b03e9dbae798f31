//! One function for each request that a client makes on its own behalf, in the file of its theme: typed values in, a
//! typed result out.
//!
//! All are asynchronous: `then` runs exactly once, on `rmq-remoting` or, when the request is refused, on the caller's
//! thread, and must not block. A response whose code is not success is an error.

mod groups;
mod offsets;
mod send_back;

use std::sync::Arc;
use std::time::Instant;

use super::Core;
use crate::error::{Certainty, Error, ErrorKind, Result};
use crate::remoting::{Completion, Request};
use crate::wire::{self, RemotingCommand, ResponseCode};

impl Core {
    /// Sends a request; a refusal is an error.
    pub(crate) fn call(
        &self,
        address: &Arc<str>,
        request: Request<'_>,
        deadline: Instant,
        then: impl FnOnce(Result<RemotingCommand>) + Send + 'static,
    ) {
        let asked = Arc::clone(address);
        let completion = Completion::new(move |outcome| {
            then(outcome.map_err(Error::from).and_then(|response| accepted(&asked, response)));
        });
        self.remoting.invoke_async(address, request, deadline, completion);
    }
}

fn accepted(address: &Arc<str>, response: RemotingCommand) -> Result<RemotingCommand> {
    match response.response_code() {
        ResponseCode::SUCCESS => Ok(response),
        code => Err(Error::refused(code, response.remark.as_deref(), address)),
    }
}

/// A peer's answer that does not follow the protocol.
pub(crate) fn unreadable(address: &str, error: &wire::Error) -> Error {
    Error::new(ErrorKind::Protocol, format!("reading the response failed: {error}"))
        .with_source(error.clone())
        .with_certainty(Certainty::Unknown)
        .with_address(address)
}
