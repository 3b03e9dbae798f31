//! Headers of POP, in which a 5.x broker hands out single messages. Their codes need [JSON
//! headers](crate::wire::HeaderEncoding). [`crate::wire::pop`] defines the content of their longer texts.

use super::*;

headers! {
    POP;

    /// Header of `POP_MESSAGE`, answered by stored messages and a [`PopMessageResponse`].
    PopMessageRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        /// Number of the queue; -1 for any queue of the broker.
        queue_id: i32 = "queueId",
        /// Maximum number of messages, at most 32.
        max_msg_nums: i32 = "maxMsgNums",
        /// Invisible time in milliseconds.
        invisible_time: i64 = "invisibleTime",
        /// Time for which the broker may hold the request, in milliseconds.
        poll_time: i64 = "pollTime",
        /// Time of the request, in milliseconds since 1970.
        born_time: i64 = "bornTime",
        /// Start position of a new group: 0 at the first message, 1 after the last.
        init_mode: i32 = "initMode",
        expression_type: Option<&'a str> = "expType",
        expression: Option<&'a str> = "exp",
        order: Option<bool> = "order",
        attempt_id: Option<&'a str> = "attemptId",
        broker_name: Option<&'a str> = "bname",
    }

    /// Response header of `POP_MESSAGE`.
    PopMessageResponse<'a> {
        /// Time of the pop, in milliseconds since 1970.
        pop_time: i64 = "popTime",
        /// Invisible time in milliseconds.
        invisible_time: i64 = "invisibleTime",
        revive_queue_id: i32 = "reviveQid",
        rest_num: i64 = "restNum",
        start_offset_info: Option<&'a str> = "startOffsetInfo",
        msg_offset_info: Option<&'a str> = "msgOffsetInfo",
        order_count_info: Option<&'a str> = "orderCountInfo",
    }

    /// Header of `ACK_MESSAGE`. `BATCH_ACK_MESSAGE` has a [body](crate::wire::body::BatchAckRequest) instead.
    AckMessageRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        /// Topic that the message came from, which may be a retry topic.
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// [Receipt](crate::wire::pop::Receipt) of the message.
        extra_info: &'a str = "extraInfo",
        offset: i64 = "offset",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `CHANGE_MESSAGE_INVISIBLETIME`.
    ChangeInvisibleTimeRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// [Receipt](crate::wire::pop::Receipt) of the message.
        extra_info: &'a str = "extraInfo",
        offset: i64 = "offset",
        /// Invisible time in milliseconds, from now on.
        invisible_time: i64 = "invisibleTime",
        broker_name: Option<&'a str> = "bname",
    }

    /// Response header of `CHANGE_MESSAGE_INVISIBLETIME`: parts of the new receipt.
    ChangeInvisibleTimeResponse {
        pop_time: i64 = "popTime",
        invisible_time: i64 = "invisibleTime",
        revive_queue_id: i32 = "reviveQid",
    }

    /// Header of `PEEK_MESSAGE`.
    PeekMessageRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        max_msg_nums: i32 = "maxMsgNums",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `NOTIFICATION`, which waits until a message is available.
    NotificationRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// Time for which the broker may hold the request, in milliseconds.
        poll_time: i64 = "pollTime",
        /// Time of the request, in milliseconds since 1970.
        born_time: i64 = "bornTime",
        order: Option<bool> = "order",
        attempt_id: Option<&'a str> = "attemptId",
        /// Expression type; since 5.4.
        expression_type: Option<&'a str> = "expType",
        expression: Option<&'a str> = "exp",
        broker_name: Option<&'a str> = "bname",
    }

    /// Response header of `NOTIFICATION`.
    NotificationResponse {
        has_msg: bool = "hasMsg",
        polling_full: Option<bool> = "pollingFull",
    }

    /// Header of `POLLING_INFO`.
    PollingInfoRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        broker_name: Option<&'a str> = "bname",
    }

    /// Response header of `POLLING_INFO`.
    PollingInfoResponse {
        /// Number of requests that the broker holds.
        polling_num: i32 = "pollingNum",
    }
}
