//! Headers of sending: messages, messages handed back, transactions, replies and the recall of delayed messages.

use super::*;

headers! {
    SEND;

    /// `SEND_MESSAGE` and `SEND_REPLY_MESSAGE`: the long names.
    SendMessageRequest<'a> {
        producer_group: &'a str = "producerGroup",
        topic: &'a str = "topic",
        default_topic: &'a str = "defaultTopic",
        default_topic_queue_nums: i32 = "defaultTopicQueueNums",
        queue_id: i32 = "queueId",
        sys_flag: i32 = "sysFlag",
        born_timestamp: i64 = "bornTimestamp",
        flag: i32 = "flag",
        properties: Option<&'a str> = "properties",
        reconsume_times: Option<i32> = "reconsumeTimes",
        unit_mode: Option<bool> = "unitMode",
        batch: Option<bool> = "batch",
        max_reconsume_times: Option<i32> = "maxReconsumeTimes",
        broker_name: Option<&'a str> = "bname",
    }

    /// `SEND_MESSAGE_V2`, `SEND_BATCH_MESSAGE` and `SEND_REPLY_MESSAGE_V2`: the same in one letter each.
    SendMessageRequestV2<'a> {
        producer_group: &'a str = "a",
        topic: &'a str = "b",
        /// The topic whose settings an automatically created one takes over, usually `TBW102`.
        default_topic: &'a str = "c",
        /// How many queues an automatically created topic gets at most.
        default_topic_queue_nums: i32 = "d",
        /// A negative number lets the broker choose.
        queue_id: i32 = "e",
        /// Bits of [`sys_flag::message`](crate::wire::sys_flag::message).
        sys_flag: i32 = "f",
        /// Milliseconds since 1970.
        born_timestamp: i64 = "g",
        flag: i32 = "h",
        /// The properties as they are stored.
        properties: Option<&'a str> = "i",
        /// Only for messages to a retry topic.
        reconsume_times: Option<i32> = "j",
        unit_mode: Option<bool> = "k",
        /// Only for messages to a retry topic.
        max_reconsume_times: Option<i32> = "l",
        /// The body is a batch.
        batch: Option<bool> = "m",
        /// What the 5.x proxy routes by.
        broker_name: Option<&'a str> = "n",
    }

    /// The answer to a send that was stored.
    SendMessageResponse<'a> {
        /// The [offset message id](crate::wire::stored::message_id::OffsetMessageId); of a batch several, joined by commas.
        msg_id: &'a str = "msgId",
        queue_id: i32 = "queueId",
        queue_offset: i64 = "queueOffset",
        transaction_id: Option<&'a str> = "transactionId",
        /// The id of the whole batch when it is stored as one message (5.x).
        batch_unique_id: Option<&'a str> = "batchUniqId",
        /// What takes a delayed message back (5.3.2): a [`RecallHandle`](crate::wire::pop::recall::RecallHandle).
        recall_handle: Option<&'a str> = "recallHandle",
        region_id: Option<&'a str> = "MSG_REGION",
        trace_on: Option<bool> = "TRACE_ON",
    }

    /// `CONSUMER_SEND_MSG_BACK`: hands a message that could not be consumed back for a later delivery.
    ConsumerSendMsgBackRequest<'a> {
        /// The position in the commit log.
        offset: i64 = "offset",
        group: &'a str = "group",
        /// 0 lets the broker choose by the number of deliveries; negative sends to the dead-letter queue.
        delay_level: i32 = "delayLevel",
        origin_msg_id: Option<&'a str> = "originMsgId",
        origin_topic: Option<&'a str> = "originTopic",
        unit_mode: Option<bool> = "unitMode",
        max_reconsume_times: Option<i32> = "maxReconsumeTimes",
        broker_name: Option<&'a str> = "bname",
    }

    /// `END_TRANSACTION`.
    EndTransactionRequest<'a> {
        producer_group: &'a str = "producerGroup",
        /// The half message's queue offset.
        tran_state_table_offset: i64 = "tranStateTableOffset",
        /// The half message's position in the commit log.
        commit_log_offset: i64 = "commitLogOffset",
        /// The state as it stands in a message's sysFlag; 0 when it is not known.
        commit_or_rollback: i32 = "commitOrRollback",
        /// Whether the broker asked.
        from_transaction_check: Option<bool> = "fromTransactionCheck",
        msg_id: &'a str = "msgId",
        transaction_id: Option<&'a str> = "transactionId",
        /// The topic the message is for (5.x).
        topic: Option<&'a str> = "topic",
        broker_name: Option<&'a str> = "bname",
    }

    /// `CHECK_TRANSACTION_STATE`, from the broker to a producer of the group; its body is the half message.
    CheckTransactionStateRequest<'a> {
        tran_state_table_offset: i64 = "tranStateTableOffset",
        commit_log_offset: i64 = "commitLogOffset",
        msg_id: Option<&'a str> = "msgId",
        transaction_id: Option<&'a str> = "transactionId",
        offset_msg_id: Option<&'a str> = "offsetMsgId",
        /// The topic of half messages (5.x).
        topic: Option<&'a str> = "topic",
        broker_name: Option<&'a str> = "bname",
    }

    /// `PUSH_REPLY_MESSAGE_TO_CLIENT`, from the broker to the client that asked; its body is the reply's.
    PushReplyMessageRequest<'a> {
        producer_group: &'a str = "producerGroup",
        topic: &'a str = "topic",
        default_topic: &'a str = "defaultTopic",
        default_topic_queue_nums: i32 = "defaultTopicQueueNums",
        queue_id: i32 = "queueId",
        sys_flag: i32 = "sysFlag",
        born_timestamp: i64 = "bornTimestamp",
        flag: i32 = "flag",
        properties: Option<&'a str> = "properties",
        reconsume_times: Option<i32> = "reconsumeTimes",
        unit_mode: Option<bool> = "unitMode",
        /// `address:port`.
        born_host: &'a str = "bornHost",
        /// `address:port`.
        store_host: &'a str = "storeHost",
        store_timestamp: i64 = "storeTimestamp",
    }

    /// `RECALL_MESSAGE`: takes a delayed message back (5.3.2).
    RecallMessageRequest<'a> {
        producer_group: Option<&'a str> = "producerGroup",
        topic: &'a str = "topic",
        /// As the answer to the send told it.
        recall_handle: &'a str = "recallHandle",
        broker_name: Option<&'a str> = "bname",
    }

    /// The answer to `RECALL_MESSAGE`.
    RecallMessageResponse<'a> {
        /// The id of the message that will not come.
        msg_id: &'a str = "msgId",
    }
}

impl<'a> From<SendMessageRequest<'a>> for SendMessageRequestV2<'a> {
    fn from(long: SendMessageRequest<'a>) -> Self {
        Self {
            producer_group: long.producer_group,
            topic: long.topic,
            default_topic: long.default_topic,
            default_topic_queue_nums: long.default_topic_queue_nums,
            queue_id: long.queue_id,
            sys_flag: long.sys_flag,
            born_timestamp: long.born_timestamp,
            flag: long.flag,
            properties: long.properties,
            reconsume_times: long.reconsume_times,
            unit_mode: long.unit_mode,
            max_reconsume_times: long.max_reconsume_times,
            batch: long.batch,
            broker_name: long.broker_name,
        }
    }
}
