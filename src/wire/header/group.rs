//! Headers of group membership, and of the requests of brokers and admin tools to members.

use super::*;

headers! {
    GROUP;

    /// Response header of `HEART_BEAT` since 5.1.3; its version field is the broker's.
    HeartbeatResponse {
        is_heartbeat_v2_supported: Option<bool> = "IS_SUPPORT_HEART_BEAT_V2",
        is_subscription_changed: Option<bool> = "IS_SUB_CHANGE",
    }

    /// Header of `UNREGISTER_CLIENT`, one group per call.
    UnregisterClientRequest<'a> {
        client_id: &'a str = "clientID",
        producer_group: Option<&'a str> = "producerGroup",
        consumer_group: Option<&'a str> = "consumerGroup",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `GET_CONSUMER_LIST_BY_GROUP`, answered by a [`ConsumerList`](crate::wire::body::ConsumerList).
    GetConsumerListByGroupRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `NOTIFY_CONSUMER_IDS_CHANGED`, from the broker to its clients.
    NotifyConsumerIdsChangedRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
    }

    /// Header of `RESET_CONSUMER_CLIENT_OFFSET`, from the broker to its clients, with a
    /// [`ResetOffsetBody`](crate::wire::body::ResetOffsetBody); and of `INVOKE_BROKER_TO_RESET_OFFSET`, from a tool to
    /// the broker, answered by such a body.
    ResetOffsetRequest<'a> {
        topic: &'a str = "topic",
        group: &'a str = "group",
        /// Timestamp to reset to, in milliseconds since 1970; -1 for the end.
        timestamp: i64 = "timestamp",
        /// True to reset even if the offset moves forward.
        is_force: bool = "isForce",
        /// Number of the queue; -1 for all (5.x).
        queue_id: Option<i32> = "queueId",
        /// Offset to reset to, instead of a timestamp (5.x).
        offset: Option<i64> = "offset",
    }

    /// Header of `GET_CONSUMER_STATUS_FROM_CLIENT`, from the broker to its clients, and of
    /// `INVOKE_BROKER_TO_GET_CONSUMER_STATUS`, from a tool to the broker; answered by a
    /// [`ConsumerStatusBody`](crate::wire::body::ConsumerStatusBody).
    GetConsumerStatusRequest<'a> {
        topic: &'a str = "topic",
        group: &'a str = "group",
        client_address: Option<&'a str> = "clientAddr",
    }

    /// Header of `GET_CONSUMER_RUNNING_INFO`, answered by a
    /// [`ConsumerRunningInfo`](crate::wire::body::ConsumerRunningInfo).
    GetConsumerRunningInfoRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        client_id: &'a str = "clientId",
        /// True to request the stacks of all threads too.
        jstack_enable: Option<bool> = "jstackEnable",
    }

    /// Header of `CONSUME_MESSAGE_DIRECTLY`, with a stored message, answered by a
    /// [`ConsumeMessageDirectlyResult`](crate::wire::body::ConsumeMessageDirectlyResult).
    ConsumeMessageDirectlyRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        client_id: Option<&'a str> = "clientId",
        msg_id: Option<&'a str> = "msgId",
        broker_name: Option<&'a str> = "brokerName",
        topic: Option<&'a str> = "topic",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        group_sys_flag: Option<i32> = "groupSysFlag",
    }
}
