//! Headers of pulling, of offsets, and of looking up single messages.

use super::*;

headers! {
    PULL;

    /// `PULL_MESSAGE` and `LITE_PULL_MESSAGE`.
    PullMessageRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// The first offset wanted.
        queue_offset: i64 = "queueOffset",
        max_msg_nums: i32 = "maxMsgNums",
        /// Bits of [`sys_flag::pull`](crate::wire::sys_flag::pull).
        sys_flag: i32 = "sysFlag",
        commit_offset: i64 = "commitOffset",
        suspend_timeout_millis: i64 = "suspendTimeoutMillis",
        subscription: Option<&'a str> = "subscription",
        sub_version: i64 = "subVersion",
        expression_type: Option<&'a str> = "expressionType",
        /// A limit that no broker keeps so far (5.x).
        max_msg_bytes: Option<i32> = "maxMsgBytes",
        /// -1 for a client; proxies have other numbers (5.x).
        request_source: Option<i32> = "requestSource",
        /// The client a proxy asks for (5.x); spelled like this.
        proxy_forward_client_id: Option<&'a str> = "proxyFrowardClientId",
        /// What the 5.x proxy routes by.
        broker_name: Option<&'a str> = "bname",
    }

    /// The answer to a pull, found or not; errors carry none of it. The remark tells the store's status.
    PullMessageResponse {
        /// 0 is the master.
        suggest_which_broker_id: i64 = "suggestWhichBrokerId",
        next_begin_offset: i64 = "nextBeginOffset",
        min_offset: i64 = "minOffset",
        max_offset: i64 = "maxOffset",
        /// To be added to the queue offset of each message (5.x).
        offset_delta: Option<i64> = "offsetDelta",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        group_sys_flag: Option<i32> = "groupSysFlag",
        /// What forbids the pull: 1 broker, 2 group, 3 topic, 4 broadcasting, 5 subscription (5.x).
        forbidden_type: Option<i32> = "forbiddenType",
    }

    /// `QUERY_CONSUMER_OFFSET`; answered by an [`OffsetResponse`].
    QueryConsumerOffsetRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// `false` makes a 5.x broker say clearly that there is none.
        set_zero_if_not_found: Option<bool> = "setZeroIfNotFound",
        broker_name: Option<&'a str> = "bname",
    }

    /// `UPDATE_CONSUMER_OFFSET`.
    UpdateConsumerOffsetRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        commit_offset: i64 = "commitOffset",
        broker_name: Option<&'a str> = "bname",
    }

    /// `GET_MAX_OFFSET` and `GET_MIN_OFFSET`, answered by an [`OffsetResponse`]; `GET_EARLIEST_MSG_STORETIME`, answered
    /// by an [`EarliestStoreTimeResponse`].
    QueueRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        broker_name: Option<&'a str> = "bname",
    }

    /// `GET_MAX_OFFSET` of a 5.x broker, which can tell what is stored from what is committed.
    MaxOffsetRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        committed: Option<bool> = "committed",
        broker_name: Option<&'a str> = "bname",
    }

    /// `SEARCH_OFFSET_BY_TIMESTAMP`; answered by an [`OffsetResponse`].
    SearchOffsetRequest<'a> {
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// Milliseconds since 1970.
        timestamp: i64 = "timestamp",
        /// `LOWER` or `UPPER` (5.1).
        boundary_type: Option<&'a str> = "boundaryType",
        broker_name: Option<&'a str> = "bname",
    }

    /// The answer to what asks for one offset.
    OffsetResponse {
        offset: i64 = "offset",
    }

    /// The answer to `GET_EARLIEST_MSG_STORETIME`.
    EarliestStoreTimeResponse {
        /// Milliseconds since 1970.
        timestamp: i64 = "timestamp",
    }

    /// `VIEW_MESSAGE_BY_ID`; answered by one stored message.
    ViewMessageRequest<'a> {
        /// The position in the commit log.
        offset: i64 = "offset",
        /// Needed by the 5.x proxy.
        topic: Option<&'a str> = "topic",
        broker_name: Option<&'a str> = "bname",
    }

    /// `QUERY_MESSAGE`; answered by stored messages and a [`QueryMessageResponse`]. The broker looks up hashes: the
    /// receiver compares the keys again.
    QueryMessageRequest<'a> {
        topic: &'a str = "topic",
        key: &'a str = "key",
        max_num: i32 = "maxNum",
        /// Milliseconds since 1970.
        begin_timestamp: i64 = "beginTimestamp",
        /// Milliseconds since 1970.
        end_timestamp: i64 = "endTimestamp",
        /// Whether the key is a message's unique id. Not a part of what is [signed](crate::wire::acl).
        unique_key: Option<bool> = "_UNIQUE_KEY_QUERY",
        broker_name: Option<&'a str> = "bname",
    }

    /// The header of the answer to `QUERY_MESSAGE`.
    QueryMessageResponse {
        /// Milliseconds since 1970.
        index_last_update_timestamp: i64 = "indexLastUpdateTimestamp",
        /// A position in the commit log.
        index_last_update_offset: i64 = "indexLastUpdatePhyoffset",
    }
}
