//! Headers of sending: messages, send-back, transactions, replies and the recall of delayed messages.

use super::*;

headers! {
    SEND;

    /// Header of `SEND_MESSAGE` and `SEND_REPLY_MESSAGE`, with the long names.
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

    /// Header of `SEND_MESSAGE_V2`, `SEND_BATCH_MESSAGE` and `SEND_REPLY_MESSAGE_V2`: the same fields with names of one
    /// letter.
    SendMessageRequestV2<'a> {
        producer_group: &'a str = "a",
        topic: &'a str = "b",
        /// Topic whose settings an automatically created topic inherits, usually `TBW102`.
        default_topic: &'a str = "c",
        /// Maximum number of queues of an automatically created topic.
        default_topic_queue_nums: i32 = "d",
        /// Number of the queue; with a negative number the broker chooses.
        queue_id: i32 = "e",
        /// Bits of [`sys_flag::message`](crate::wire::sys_flag::message).
        sys_flag: i32 = "f",
        /// Time of the message's creation, in milliseconds since 1970.
        born_timestamp: i64 = "g",
        flag: i32 = "h",
        /// Properties in the stored form.
        properties: Option<&'a str> = "i",
        /// Number of redeliveries; only for messages to a retry topic.
        reconsume_times: Option<i32> = "j",
        unit_mode: Option<bool> = "k",
        /// Maximum number of redeliveries; only for messages to a retry topic.
        max_reconsume_times: Option<i32> = "l",
        /// True if the body is a batch.
        batch: Option<bool> = "m",
        /// Name of the broker, by which the 5.x proxy routes.
        broker_name: Option<&'a str> = "n",
    }

    /// Response header of a send that was stored.
    SendMessageResponse<'a> {
        /// [Offset message id](crate::wire::stored::message_id::OffsetMessageId); of a batch several, joined by commas.
        msg_id: &'a str = "msgId",
        queue_id: i32 = "queueId",
        queue_offset: i64 = "queueOffset",
        transaction_id: Option<&'a str> = "transactionId",
        /// Id of the whole batch if it is stored as one message (5.x).
        batch_unique_id: Option<&'a str> = "batchUniqId",
        /// Handle to recall a delayed message (5.3.2): a [`RecallHandle`](crate::wire::pop::recall::RecallHandle).
        recall_handle: Option<&'a str> = "recallHandle",
        region_id: Option<&'a str> = "MSG_REGION",
        trace_on: Option<bool> = "TRACE_ON",
    }

    /// Header of `CONSUMER_SEND_MSG_BACK`, which returns a message that could not be consumed, for redelivery.
    ConsumerSendMsgBackRequest<'a> {
        /// Position in the commit log.
        offset: i64 = "offset",
        group: &'a str = "group",
        /// Delay level. With 0 the broker chooses by the number of deliveries; a negative level sends to the
        /// dead-letter queue.
        delay_level: i32 = "delayLevel",
        origin_msg_id: Option<&'a str> = "originMsgId",
        origin_topic: Option<&'a str> = "originTopic",
        unit_mode: Option<bool> = "unitMode",
        max_reconsume_times: Option<i32> = "maxReconsumeTimes",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `END_TRANSACTION`.
    EndTransactionRequest<'a> {
        producer_group: &'a str = "producerGroup",
        /// Queue offset of the half message.
        tran_state_table_offset: i64 = "tranStateTableOffset",
        /// Position of the half message in the commit log.
        commit_log_offset: i64 = "commitLogOffset",
        /// Transaction state, with the bits of a message's sysFlag; 0 if it is unknown.
        commit_or_rollback: i32 = "commitOrRollback",
        /// True if the broker asked for the state.
        from_transaction_check: Option<bool> = "fromTransactionCheck",
        msg_id: &'a str = "msgId",
        transaction_id: Option<&'a str> = "transactionId",
        /// Topic of the message (5.x).
        topic: Option<&'a str> = "topic",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `CHECK_TRANSACTION_STATE`, from the broker to a producer of the group; its body is the half message.
    CheckTransactionStateRequest<'a> {
        tran_state_table_offset: i64 = "tranStateTableOffset",
        commit_log_offset: i64 = "commitLogOffset",
        msg_id: Option<&'a str> = "msgId",
        transaction_id: Option<&'a str> = "transactionId",
        offset_msg_id: Option<&'a str> = "offsetMsgId",
        /// Topic of half messages (5.x).
        topic: Option<&'a str> = "topic",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `PUSH_REPLY_MESSAGE_TO_CLIENT`, from the broker to the requesting client; its body is the reply's.
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
        /// Address of the sender, `address:port`.
        born_host: &'a str = "bornHost",
        /// Address of the broker, `address:port`.
        store_host: &'a str = "storeHost",
        store_timestamp: i64 = "storeTimestamp",
    }

    /// Header of `RECALL_MESSAGE`, which recalls a delayed message (5.3.2).
    RecallMessageRequest<'a> {
        producer_group: Option<&'a str> = "producerGroup",
        topic: &'a str = "topic",
        /// Recall handle from the response to the send.
        recall_handle: &'a str = "recallHandle",
        broker_name: Option<&'a str> = "bname",
    }

    /// Response header of `RECALL_MESSAGE`.
    RecallMessageResponse<'a> {
        /// Id of the recalled message.
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
