//! Headers of route requests and of the requests of admin tools to name servers and brokers.

use super::*;

headers! {
    ADMIN;

    /// Header of `GET_ROUTEINFO_BY_TOPIC`, answered by a [`TopicRouteData`](crate::wire::body::TopicRouteData).
    GetRouteInfoRequest<'a> {
        topic: &'a str = "topic",
        /// Requests JSON that conforms to the standard from name servers since 4.9.4.
        accept_standard_json_only: Option<bool> = "acceptStandardJsonOnly",
    }

    /// Header of `GET_TOPICS_BY_CLUSTER`, answered by a [`TopicList`](crate::wire::body::TopicList).
    GetTopicsByClusterRequest<'a> {
        cluster: &'a str = "cluster",
    }

    /// Header of `GET_KV_CONFIG` and `DELETE_KV_CONFIG`.
    KvConfigRequest<'a> {
        namespace: &'a str = "namespace",
        key: &'a str = "key",
    }

    /// Response header of `GET_KV_CONFIG`.
    KvConfigResponse<'a> {
        value: Option<&'a str> = "value",
    }

    /// Header of `PUT_KV_CONFIG`, to every name server.
    PutKvConfigRequest<'a> {
        namespace: &'a str = "namespace",
        key: &'a str = "key",
        value: &'a str = "value",
    }

    /// Header of `GET_KVLIST_BY_NAMESPACE`, answered by a [`KvTable`](crate::wire::body::KvTable).
    KvListRequest<'a> {
        namespace: &'a str = "namespace",
    }

    /// Header of `WIPE_WRITE_PERM_OF_BROKER` and `ADD_WRITE_PERM_OF_BROKER`, to every name server.
    WritePermissionRequest<'a> {
        broker_name: &'a str = "brokerName",
    }

    /// Response header of `WIPE_WRITE_PERM_OF_BROKER`.
    WipeWritePermissionResponse {
        topics: i32 = "wipeTopicCount",
    }

    /// Response header of `ADD_WRITE_PERM_OF_BROKER`.
    AddWritePermissionResponse {
        topics: i32 = "addTopicCount",
    }

    /// Header of `UPDATE_AND_CREATE_TOPIC`.
    CreateTopicRequest<'a> {
        topic: &'a str = "topic",
        default_topic: &'a str = "defaultTopic",
        read_queue_nums: i32 = "readQueueNums",
        write_queue_nums: i32 = "writeQueueNums",
        /// Bits of [`permission`](crate::wire::body::permission).
        perm: i32 = "perm",
        /// `SINGLE_TAG` or `MULTI_TAG`.
        topic_filter_type: &'a str = "topicFilterType",
        topic_sys_flag: Option<i32> = "topicSysFlag",
        order: Option<bool> = "order",
        /// `+name=value` or `-name`, joined by commas (5.x).
        attributes: Option<&'a str> = "attributes",
        force: Option<bool> = "force",
    }

    /// Header of `DELETE_TOPIC_IN_BROKER`; of `GET_TOPIC_STATS_INFO`, answered by a
    /// [`TopicStatsTable`](crate::wire::body::TopicStatsTable); of `QUERY_TOPIC_CONSUME_BY_WHO`, answered by a
    /// [`GroupList`](crate::wire::body::GroupList); of `GET_TOPIC_CONFIG`, answered by a
    /// [`TopicConfig`](crate::wire::body::TopicConfig).
    TopicRequest<'a> {
        topic: &'a str = "topic",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `DELETE_TOPIC_IN_NAMESRV`, to every name server.
    DeleteTopicInNameServerRequest<'a> {
        topic: &'a str = "topic",
        cluster_name: Option<&'a str> = "clusterName",
    }

    /// Header of `DELETE_SUBSCRIPTIONGROUP`. The two versions use different names for the same switch.
    DeleteSubscriptionGroupRequest<'a> {
        group_name: &'a str = "groupName",
        /// Switch read by 4.9.
        remove_offset: Option<bool> = "removeOffset",
        /// Switch read by 5.x.
        clean_offset: Option<bool> = "cleanOffset",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `GET_SUBSCRIPTIONGROUP_CONFIG` (5.x), answered by a
    /// [`SubscriptionGroupConfig`](crate::wire::body::SubscriptionGroupConfig).
    GetSubscriptionGroupConfigRequest<'a> {
        group: &'a str = "group",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `GET_CONSUME_STATS`, answered by [`ConsumeStats`](crate::wire::body::ConsumeStats).
    GetConsumeStatsRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: Option<&'a str> = "topic",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `GET_CONSUMER_CONNECTION_LIST`, answered by a
    /// [`ConsumerConnection`](crate::wire::body::ConsumerConnection).
    GetConsumerConnectionListRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        broker_name: Option<&'a str> = "bname",
    }

    /// Header of `GET_PRODUCER_CONNECTION_LIST`, answered by a
    /// [`ProducerConnection`](crate::wire::body::ProducerConnection).
    GetProducerConnectionListRequest<'a> {
        producer_group: &'a str = "producerGroup",
        broker_name: Option<&'a str> = "bname",
    }

    /// Response header of `GET_BROKER_CONFIG`, whose body is `name=value` lines.
    GetBrokerConfigResponse<'a> {
        /// A [`DataVersion`](crate::wire::body::DataVersion) in JSON.
        version: &'a str = "version",
    }
}
