//! Send-back of a message that could not be consumed.

use std::sync::Arc;
use std::time::Instant;

use crate::client::Core;
use crate::error::Result;
use crate::remoting::Request;
use crate::wire::RequestCode;
use crate::wire::header::ConsumerSendMsgBackRequest;

impl Core {
    /// Hands a message back to the broker for a later delivery.
    pub(crate) fn send_message_back(
        &self,
        address: &Arc<str>,
        header: &ConsumerSendMsgBackRequest<'_>,
        deadline: Instant,
        then: impl FnOnce(Result<()>) + Send + 'static,
    ) {
        let request = Request::new(RequestCode::CONSUMER_SEND_MSG_BACK, header);
        self.call(address, request, deadline, move |answer| then(answer.map(drop)));
    }
}
