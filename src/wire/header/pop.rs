//! Headers of POP, where a 5.x broker hands out single messages. Their codes need [JSON headers](crate::wire::HeaderEncoding).
//! What stands inside of their longer texts is told by [`crate::wire::pop`].

use super::*;

headers! {
    POP;

    /// `POP_MESSAGE`; answered by stored messages and a [`PopMessageResponse`].
    PopMessageRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        /// -1 for any of the broker's.
        queue_id: i32 = "queueId",
        /// At most 32.
        max_msg_nums: i32 = "maxMsgNums",
        /// Milliseconds.
        invisible_time: i64 = "invisibleTime",
        /// How long the broker may hold the request, in milliseconds.
        poll_time: i64 = "pollTime",
        /// When the request was made, in milliseconds since 1970.
        born_time: i64 = "bornTime",
        /// Where a new group begins: 0 at the first message, 1 behind the last.
        init_mode: i32 = "initMode",
        expression_type: Option<&'a str> = "expType",
        expression: Option<&'a str> = "exp",
        order: Option<bool> = "order",
        attempt_id: Option<&'a str> = "attemptId",
        broker_name: Option<&'a str> = "bname",
    }

    /// The answer to `POP_MESSAGE`.
    PopMessageResponse<'a> {
        /// Milliseconds since 1970.
        pop_time: i64 = "popTime",
        /// Milliseconds.
        invisible_time: i64 = "invisibleTime",
        revive_queue_id: i32 = "reviveQid",
        rest_num: i64 = "restNum",
        start_offset_info: Option<&'a str> = "startOffsetInfo",
        msg_offset_info: Option<&'a str> = "msgOffsetInfo",
        order_count_info: Option<&'a str> = "orderCountInfo",
    }

    /// `ACK_MESSAGE`. `BATCH_ACK_MESSAGE` has a [body](crate::wire::body::BatchAckRequest) instead.
    AckMessageRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        /// The topic the message really came from, which may be a retry topic.
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// The message's [receipt](crate::wire::pop::Receipt).
        extra_info: &'a str = "extraInfo",
        offset: i64 = "offset",
        broker_name: Option<&'a str> = "bname",
    }

    /// `CHANGE_MESSAGE_INVISIBLETIME`.
    ChangeInvisibleTimeRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// The message's [receipt](crate::wire::pop::Receipt).
        extra_info: &'a str = "extraInfo",
        offset: i64 = "offset",
        /// Milliseconds from now on.
        invisible_time: i64 = "invisibleTime",
        broker_name: Option<&'a str> = "bname",
    }

    /// The answer to `CHANGE_MESSAGE_INVISIBLETIME`: parts of the new receipt.
    ChangeInvisibleTimeResponse {
        pop_time: i64 = "popTime",
        invisible_time: i64 = "invisibleTime",
        revive_queue_id: i32 = "reviveQid",
    }

    /// `PEEK_MESSAGE`.
    PeekMessageRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        max_msg_nums: i32 = "maxMsgNums",
        broker_name: Option<&'a str> = "bname",
    }

    /// `NOTIFICATION`: asks to be told when there is something.
    NotificationRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// Milliseconds.
        poll_time: i64 = "pollTime",
        /// Milliseconds since 1970.
        born_time: i64 = "bornTime",
        order: Option<bool> = "order",
        attempt_id: Option<&'a str> = "attemptId",
        /// Since 5.4.
        expression_type: Option<&'a str> = "expType",
        expression: Option<&'a str> = "exp",
        broker_name: Option<&'a str> = "bname",
    }

    /// The answer to `NOTIFICATION`.
    NotificationResponse {
        has_msg: bool = "hasMsg",
        polling_full: Option<bool> = "pollingFull",
    }

    /// `POLLING_INFO`.
    PollingInfoRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        broker_name: Option<&'a str> = "bname",
    }

    /// The answer to `POLLING_INFO`.
    PollingInfoResponse {
        /// Requests that the broker holds.
        polling_num: i32 = "pollingNum",
    }
}
