//! Headers of pulling, of offsets, and of queries for single messages.

use super::*;

headers! {
    PULL;

    /// Header of `PULL_MESSAGE` and `LITE_PULL_MESSAGE`.
    PullMessageRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// Offset of the first requested message.
        queue_offset: i64 = "queueOffset",
        max_msg_nums: i32 = "maxMsgNums",
        /// Bits of [`sys_flag::pull`](crate::wire::sys_flag::pull).
        sys_flag: i32 = "sysFlag",
        commit_offset: i64 = "commitOffset",
        suspend_timeout_millis: i64 = "suspendTimeoutMillis",
        subscription: Option<&'a str> = "subscription",
        sub_version: i64 = "subVersion",
        expression_type: Option<&'a str> = "expressionType",
        /// Maximum number of bytes (5.x); no broker enforces it so far.
        max_msg_bytes: Option<i32> = "maxMsgBytes",
        /// Source of the request: -1 for a client; proxies have other numbers (5.x).
        request_source: Option<i32> = "requestSource",
        /// Id of the client that a proxy acts for (5.x); spelled like this.
        proxy_forward_client_id: Option<&'a str> = "proxyFrowardClientId",
        /// Name of the broker, by which the 5.x proxy routes.
        broker_name: Option<&'a str> = "bname",
    }

    /// Response header of a pull, found or not; errors carry none of it. The remark contains the store's status.
    PullMessageResponse {
        /// Suggested broker id for the next pull; 0 is the master.
        suggest_which_broker_id: i64 = "suggestWhichBrokerId",
        next_begin_offset: i64 = "nextBeginOffset",
        min_offset: i64 = "minOffset",
        max_offset: i64 = "maxOffset",
        /// Number to add to the queue offset of each message (5.x).
        offset_delta: Option<i64> = "offsetDelta",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        group_sys_flag: Option<i32> = "groupSysFlag",
        /// Reason why the pull is forbidden: 1 broker, 2 group, 3 topic, 4 broadcasting, 5 subscription (5.x).
        forbidden_type: Option<i32> = "forbiddenType",
    }

    /// Header of `QUERY_CONSUMER_OFFSET`, answered by an [`OffsetResponse`].
    QueryConsumerOffsetRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// With `false`, a 5.x broker reports a missing offset explicitly.
        set_zero_if_not_found: Option<bool> = "setZeroIfNotFound",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `UPDATE_CONSUMER_OFFSET`.
    UpdateConsumerOffsetRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        commit_offset: i64 = "commitOffset",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `GET_MAX_OFFSET` and `GET_MIN_OFFSET`, answered by an [`OffsetResponse`]; of
    /// `GET_EARLIEST_MSG_STORETIME`, answered by an [`EarliestStoreTimeResponse`].
    QueueRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `GET_MAX_OFFSET` for a 5.x broker, which distinguishes stored from committed messages.
    MaxOffsetRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        committed: Option<bool> = "committed",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `SEARCH_OFFSET_BY_TIMESTAMP`, answered by an [`OffsetResponse`].
    SearchOffsetRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// Timestamp to search for, in milliseconds since 1970.
        timestamp: i64 = "timestamp",
        /// `LOWER` or `UPPER` (5.1).
        boundary_type: Option<&'a str> = "boundaryType",
        broker_name: Option<&'a str> = "bname",
    }

    /// Response header of the requests for one offset.
    OffsetResponse {
        offset: i64 = "offset",
    }

    /// Response header of `GET_EARLIEST_MSG_STORETIME`.
    EarliestStoreTimeResponse {
        /// Store time of the earliest message, in milliseconds since 1970.
        timestamp: i64 = "timestamp",
    }

    /// Header of `VIEW_MESSAGE_BY_ID`, answered by one stored message.
    ViewMessageRequest<'a> {
        /// Position in the commit log.
        offset: i64 = "offset",
        /// Topic of the message, required by the 5.x proxy.
        topic: Option<&'a str> = "topic",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `QUERY_MESSAGE`, answered by stored messages and a [`QueryMessageResponse`]. The broker searches by
    /// hash codes, so the receiver compares the keys again.
    QueryMessageRequest<'a> {
        topic: &'a str = "topic",
        key: &'a str = "key",
        max_num: i32 = "maxNum",
        /// Begin of the time range, in milliseconds since 1970.
        begin_timestamp: i64 = "beginTimestamp",
        /// End of the time range, in milliseconds since 1970.
        end_timestamp: i64 = "endTimestamp",
        /// True if the key is a message's unique id. Not part of the [signed](crate::wire::acl) content.
        unique_key: Option<bool> = "_UNIQUE_KEY_QUERY",
        broker_name: Option<&'a str> = "bname",
    }

    /// Response header of `QUERY_MESSAGE`.
    QueryMessageResponse {
        /// Time of the index's last update, in milliseconds since 1970.
        index_last_update_timestamp: i64 = "indexLastUpdateTimestamp",
        /// Position in the commit log of the index's last update.
        index_last_update_offset: i64 = "indexLastUpdatePhyoffset",
    }
}
