//! Fields that any request may carry in addition to those of its own header: see
//! [`RemotingCommand::with_fields`](crate::wire::RemotingCommand::with_fields).

use super::*;

headers! {
    INHERITED;

    /// Fields that the Java client's headers inherit or its hooks add. The broker's name is a field of the headers
    /// themselves.
    InheritedFields<'a> {
        /// Namespace of the second version, sent as a field instead of a part of names (5.2).
        namespace: Option<&'a str> = "ns",
        is_namespaced: Option<bool> = "nsd",
        oneway: Option<bool> = "oway",
        /// True if the queue is a logical queue of a static topic (5.x).
        logical_queue: Option<bool> = "lo",
        /// Type of the request; `0` for a stream.
        request_type: Option<&'a str> = "ReqT",
        zone_name: Option<&'a str> = "__ZONE_NAME",
        zone_mode: Option<&'a str> = "__ZONE_MODE",
    }

    /// Access key of the sender, and the [signature](crate::wire::acl) over everything else.
    AclFields<'a> {
        access_key: &'a str = "AccessKey",
        security_token: Option<&'a str> = "SecurityToken",
        signature: Option<&'a str> = "Signature",
    }
}
