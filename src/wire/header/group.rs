//! Headers of membership in groups, and of what brokers and their tools ask of members.

use super::*;

headers! {
    GROUP;

    /// What the answer to `HEART_BEAT` carries since 5.1.3; its version field is the broker's.
    HeartbeatResponse {
        is_heartbeat_v2_supported: Option<bool> = "IS_SUPPORT_HEART_BEAT_V2",
        is_subscription_changed: Option<bool> = "IS_SUB_CHANGE",
    }

    /// `UNREGISTER_CLIENT`, one group a call.
    UnregisterClientRequest<'a> {
        client_id: &'a str = "clientID",
        producer_group: Option<&'a str> = "producerGroup",
        consumer_group: Option<&'a str> = "consumerGroup",
        broker_name: Option<&'a str> = "bname",
    }

    /// `GET_CONSUMER_LIST_BY_GROUP`; answered by a [`ConsumerList`](crate::wire::body::ConsumerList).
    GetConsumerListByGroupRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        broker_name: Option<&'a str> = "bname",
    }

    /// `NOTIFY_CONSUMER_IDS_CHANGED`, from the broker to its clients.
    NotifyConsumerIdsChangedRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
    }

    /// `RESET_CONSUMER_CLIENT_OFFSET`, from the broker to its clients, with a
    /// [`ResetOffsetBody`](crate::wire::body::ResetOffsetBody); and `INVOKE_BROKER_TO_RESET_OFFSET`, from a tool to the
    /// broker, answered by such a body.
    ResetOffsetRequest<'a> {
        topic: &'a str = "topic",
        group: &'a str = "group",
        /// Milliseconds since 1970; -1 for the end.
        timestamp: i64 = "timestamp",
        /// Also where that moves forward.
        is_force: bool = "isForce",
        /// -1 for all (5.x).
        queue_id: Option<i32> = "queueId",
        /// Instead of a time (5.x).
        offset: Option<i64> = "offset",
    }

    /// `GET_CONSUMER_STATUS_FROM_CLIENT`, from the broker to its clients, and `INVOKE_BROKER_TO_GET_CONSUMER_STATUS`, from
    /// a tool to the broker; answered by a [`ConsumerStatusBody`](crate::wire::body::ConsumerStatusBody).
    GetConsumerStatusRequest<'a> {
        topic: &'a str = "topic",
        group: &'a str = "group",
        client_address: Option<&'a str> = "clientAddr",
    }

    /// `GET_CONSUMER_RUNNING_INFO`; answered by a [`ConsumerRunningInfo`](crate::wire::body::ConsumerRunningInfo).
    GetConsumerRunningInfoRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        client_id: &'a str = "clientId",
        /// Whether the stacks of all threads are wanted too.
        jstack_enable: Option<bool> = "jstackEnable",
    }

    /// `CONSUME_MESSAGE_DIRECTLY`, with a stored message; answered by a
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
