//! One struct for each request and response header <-> the flat fields of a command.
//!
//! A header reads as its field table: Rust name, type, name on the wire. Texts are borrowed in both directions, so that
//! a header is written without an allocation. `Option` marks fields that may be absent. A number that does not parse is
//! an error, never a default.

use super::Error;
use super::ext_fields::{ExtFields, FieldSink, HeaderFields};

macro_rules! headers {
    ($(
        $(#[$doc:meta])*
        $name:ident $(<$life:lifetime>)? {
            $( $(#[$field_doc:meta])* $field:ident: $type:ty = $key:literal, )+
        }
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name $(<$life>)? {
            $( $(#[$field_doc])* #[doc = concat!("`", $key, "` on the wire.")] pub $field: $type, )+
        }

        impl $(<$life>)? HeaderFields for $name $(<$life>)? {
            fn write_to(&self, sink: &mut dyn FieldSink) {
                $( Field::write(&self.$field, $key, sink); )+
            }
        }

        impl $(<$life>)? $name $(<$life>)? {
            /// Reads the header from a command's fields.
            ///
            /// # Errors
            ///
            /// When a required field is missing, or a number or truth value does not parse.
            pub fn from_fields(fields: &$($life)? ExtFields) -> Result<Self, Error> {
                $( let mut $field: Option<$type> = None; )+
                for (key, text) in fields.iter() {
                    match key {
                        $( $key => $field = Some(Field::read($key, text)?), )+
                        _ => {}
                    }
                }
                Ok(Self { $( $field: $field.map_or_else(|| Field::absent($key), Ok)?, )+ })
            }
        }
    )+};
}

headers! {
    /// `GET_ROUTEINFO_BY_TOPIC`; answered by a [`TopicRouteData`](super::body::TopicRouteData).
    GetRouteInfoRequest<'a> {
        topic: &'a str = "topic",
        /// Asks name servers since 4.9.4 for JSON that keeps to the standard.
        accept_standard_json_only: Option<bool> = "acceptStandardJsonOnly",
    }

    /// `SEND_MESSAGE`: the long names.
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

    /// `SEND_MESSAGE_V2` and `SEND_BATCH_MESSAGE`: the same in one letter each.
    SendMessageRequestV2<'a> {
        producer_group: &'a str = "a",
        topic: &'a str = "b",
        /// The topic whose settings an automatically created one takes over, usually `TBW102`.
        default_topic: &'a str = "c",
        /// How many queues an automatically created topic gets at most.
        default_topic_queue_nums: i32 = "d",
        /// A negative number lets the broker choose.
        queue_id: i32 = "e",
        /// Bits of [`sys_flag::message`](super::sys_flag::message).
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
        /// The [offset message id](super::message_id::OffsetMessageId); of a batch several, joined by commas.
        msg_id: &'a str = "msgId",
        queue_id: i32 = "queueId",
        queue_offset: i64 = "queueOffset",
        transaction_id: Option<&'a str> = "transactionId",
        /// The id of the whole batch when it is stored as one message (5.x).
        batch_unique_id: Option<&'a str> = "batchUniqId",
        /// What takes a delayed message back (5.3.2).
        recall_handle: Option<&'a str> = "recallHandle",
        region_id: Option<&'a str> = "MSG_REGION",
        trace_on: Option<bool> = "TRACE_ON",
    }

    /// `PULL_MESSAGE`.
    PullMessageRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: &'a str = "topic",
        queue_id: i32 = "queueId",
        /// The first offset wanted.
        queue_offset: i64 = "queueOffset",
        max_msg_nums: i32 = "maxMsgNums",
        /// Bits of [`sys_flag::pull`](super::sys_flag::pull).
        sys_flag: i32 = "sysFlag",
        commit_offset: i64 = "commitOffset",
        suspend_timeout_millis: i64 = "suspendTimeoutMillis",
        subscription: Option<&'a str> = "subscription",
        sub_version: i64 = "subVersion",
        expression_type: Option<&'a str> = "expressionType",
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

    /// `UNREGISTER_CLIENT`, one group a call.
    UnregisterClientRequest<'a> {
        client_id: &'a str = "clientID",
        producer_group: Option<&'a str> = "producerGroup",
        consumer_group: Option<&'a str> = "consumerGroup",
        broker_name: Option<&'a str> = "bname",
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

    /// `GET_CONSUMER_LIST_BY_GROUP`; answered by a [`ConsumerList`](super::body::ConsumerList).
    GetConsumerListByGroupRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        broker_name: Option<&'a str> = "bname",
    }

    /// `NOTIFY_CONSUMER_IDS_CHANGED`, from the broker to its clients.
    NotifyConsumerIdsChangedRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
    }

    /// `UPDATE_AND_CREATE_TOPIC`.
    CreateTopicRequest<'a> {
        topic: &'a str = "topic",
        default_topic: &'a str = "defaultTopic",
        read_queue_nums: i32 = "readQueueNums",
        write_queue_nums: i32 = "writeQueueNums",
        /// Bits of [`permission`](super::body::permission).
        perm: i32 = "perm",
        /// `SINGLE_TAG` or `MULTI_TAG`.
        topic_filter_type: &'a str = "topicFilterType",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        order: Option<bool> = "order",
        /// `+name=value` joined by commas (5.x).
        attributes: Option<&'a str> = "attributes",
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

/// A field of a header, present or possibly absent.
trait Field<'a>: Sized {
    fn write(&self, key: &str, sink: &mut dyn FieldSink);
    fn read(key: &'static str, text: &'a str) -> Result<Self, Error>;
    fn absent(key: &'static str) -> Result<Self, Error>;
}

impl<'a, T: Value<'a>> Field<'a> for T {
    fn write(&self, key: &str, sink: &mut dyn FieldSink) {
        self.put(key, sink);
    }

    fn read(key: &'static str, text: &'a str) -> Result<Self, Error> {
        T::parse(key, text)
    }

    fn absent(key: &'static str) -> Result<Self, Error> {
        Err(Error::MissingField { field: key })
    }
}

impl<'a, T: Value<'a>> Field<'a> for Option<T> {
    fn write(&self, key: &str, sink: &mut dyn FieldSink) {
        if let Some(value) = self {
            value.put(key, sink);
        }
    }

    fn read(key: &'static str, text: &'a str) -> Result<Self, Error> {
        T::parse(key, text).map(Some)
    }

    fn absent(_key: &'static str) -> Result<Self, Error> {
        Ok(None)
    }
}

/// A field's value <-> its text.
trait Value<'a>: Sized {
    fn put(&self, key: &str, sink: &mut dyn FieldSink);
    fn parse(key: &'static str, text: &'a str) -> Result<Self, Error>;
}

impl<'a> Value<'a> for &'a str {
    fn put(&self, key: &str, sink: &mut dyn FieldSink) {
        sink.text(key, self);
    }

    fn parse(_key: &'static str, text: &'a str) -> Result<Self, Error> {
        Ok(text)
    }
}

impl Value<'_> for i32 {
    fn put(&self, key: &str, sink: &mut dyn FieldSink) {
        sink.number(key, (*self).into());
    }

    fn parse(key: &'static str, text: &str) -> Result<Self, Error> {
        text.parse().map_err(|_| Error::BadText { what: key })
    }
}

impl Value<'_> for i64 {
    fn put(&self, key: &str, sink: &mut dyn FieldSink) {
        sink.number(key, *self);
    }

    fn parse(key: &'static str, text: &str) -> Result<Self, Error> {
        text.parse().map_err(|_| Error::BadText { what: key })
    }
}

impl Value<'_> for bool {
    fn put(&self, key: &str, sink: &mut dyn FieldSink) {
        sink.boolean(key, *self);
    }

    /// In any case of letters, as Java reads it.
    fn parse(key: &'static str, text: &str) -> Result<Self, Error> {
        if text.eq_ignore_ascii_case("true") {
            Ok(true)
        } else if text.eq_ignore_ascii_case("false") {
            Ok(false)
        } else {
            Err(Error::BadText { what: key })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(header: &dyn HeaderFields) -> ExtFields {
        let mut fields = ExtFields::new();
        header.write_to(&mut fields);
        fields
    }

    #[test]
    fn an_absent_optional_field_is_not_written() {
        let written = fields(&QueueRequest { topic: "T", queue_id: -1, broker_name: None });
        assert_eq!(written.iter().collect::<Vec<_>>(), [("topic", "T"), ("queueId", "-1")]);
    }

    #[test]
    fn a_missing_required_field_is_told_by_its_name() {
        let written = fields(&OffsetResponse { offset: 1 });
        assert_eq!(QueueRequest::from_fields(&written), Err(Error::MissingField { field: "topic" }));
    }

    #[test]
    fn a_number_that_does_not_parse_is_an_error_also_where_it_is_optional() {
        for wrong in ["", "one", "1.0", " 1", "9223372036854775808"] {
            let mut written = ExtFields::new();
            written.text("offset", wrong);
            assert_eq!(OffsetResponse::from_fields(&written), Err(Error::BadText { what: "offset" }));
        }
        let mut written = fields(&PullMessageResponse::default());
        written.text("offsetDelta", "x");
        assert_eq!(PullMessageResponse::from_fields(&written), Err(Error::BadText { what: "offsetDelta" }));
    }

    #[test]
    fn a_truth_value_is_read_in_any_case_of_letters_and_nothing_else_is() {
        let read = |text: &str| {
            let mut written = fields(&GetRouteInfoRequest { topic: "T", accept_standard_json_only: None });
            written.text("acceptStandardJsonOnly", text);
            GetRouteInfoRequest::from_fields(&written).map(|header| header.accept_standard_json_only)
        };
        assert_eq!(read("TRUE"), Ok(Some(true)));
        assert_eq!(read("False"), Ok(Some(false)));
        assert!(read("yes").is_err());
    }

    #[test]
    fn a_send_header_says_the_same_in_both_forms() {
        let long = SendMessageRequest {
            producer_group: "PG",
            topic: "T",
            default_topic: "TBW102",
            default_topic_queue_nums: 4,
            queue_id: 1,
            sys_flag: 2,
            born_timestamp: 3,
            flag: 5,
            properties: Some("a\u{1}1\u{2}"),
            reconsume_times: Some(6),
            unit_mode: Some(true),
            batch: Some(false),
            max_reconsume_times: Some(7),
            broker_name: Some("broker-a"),
        };
        let short = SendMessageRequestV2::from(long);
        assert_eq!(SendMessageRequest::from_fields(&fields(&long)), Ok(long));
        assert_eq!(SendMessageRequestV2::from_fields(&fields(&short)), Ok(short));
        let names: String = fields(&short).iter().map(|(name, _)| name).collect();
        assert_eq!(names, "abcdefghijklmn");
    }
}
