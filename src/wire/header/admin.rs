//! Headers of routes and of what tools ask of name servers and brokers.

use super::*;

headers! {
    ADMIN;

    /// `GET_ROUTEINFO_BY_TOPIC`; answered by a [`TopicRouteData`](crate::wire::body::TopicRouteData).
    GetRouteInfoRequest<'a> {
        topic: &'a str = "topic",
        /// Asks name servers since 4.9.4 for JSON that keeps to the standard.
        accept_standard_json_only: Option<bool> = "acceptStandardJsonOnly",
    }

    /// `GET_TOPICS_BY_CLUSTER`; answered by a [`TopicList`](crate::wire::body::TopicList).
    GetTopicsByClusterRequest<'a> {
        cluster: &'a str = "cluster",
    }

    /// `GET_KV_CONFIG` and `DELETE_KV_CONFIG`.
    KvConfigRequest<'a> {
        namespace: &'a str = "namespace",
        key: &'a str = "key",
    }

    /// The answer to `GET_KV_CONFIG`.
    KvConfigResponse<'a> {
        value: Option<&'a str> = "value",
    }

    /// `PUT_KV_CONFIG`, to every name server.
    PutKvConfigRequest<'a> {
        namespace: &'a str = "namespace",
        key: &'a str = "key",
        value: &'a str = "value",
    }

    /// `GET_KVLIST_BY_NAMESPACE`; answered by a [`KvTable`](crate::wire::body::KvTable).
    KvListRequest<'a> {
        namespace: &'a str = "namespace",
    }

    /// `WIPE_WRITE_PERM_OF_BROKER` and `ADD_WRITE_PERM_OF_BROKER`, to every name server.
    WritePermissionRequest<'a> {
        broker_name: &'a str = "brokerName",
    }

    /// The answer to `WIPE_WRITE_PERM_OF_BROKER`.
    WipeWritePermissionResponse {
        topics: i32 = "wipeTopicCount",
    }

    /// The answer to `ADD_WRITE_PERM_OF_BROKER`.
    AddWritePermissionResponse {
        topics: i32 = "addTopicCount",
    }

    /// `UPDATE_AND_CREATE_TOPIC`.
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

    /// `DELETE_TOPIC_IN_BROKER`; `GET_TOPIC_STATS_INFO`, answered by a
    /// [`TopicStatsTable`](crate::wire::body::TopicStatsTable); `QUERY_TOPIC_CONSUME_BY_WHO`, answered by a
    /// [`GroupList`](crate::wire::body::GroupList); `GET_TOPIC_CONFIG`, answered by a
    /// [`TopicConfig`](crate::wire::body::TopicConfig).
    TopicRequest<'a> {
        topic: &'a str = "topic",
        broker_name: Option<&'a str> = "bname",
    }

    /// `DELETE_TOPIC_IN_NAMESRV`, to every name server.
    DeleteTopicInNameServerRequest<'a> {
        topic: &'a str = "topic",
        cluster_name: Option<&'a str> = "clusterName",
    }

    /// `DELETE_SUBSCRIPTIONGROUP`. The two versions call the same switch by different names.
    DeleteSubscriptionGroupRequest<'a> {
        group_name: &'a str = "groupName",
        /// What 4.9 reads.
        remove_offset: Option<bool> = "removeOffset",
        /// What 5.x reads.
        clean_offset: Option<bool> = "cleanOffset",
        broker_name: Option<&'a str> = "bname",
    }

    /// `GET_SUBSCRIPTIONGROUP_CONFIG` (5.x); answered by a
    /// [`SubscriptionGroupConfig`](crate::wire::body::SubscriptionGroupConfig).
    GetSubscriptionGroupConfigRequest<'a> {
        group: &'a str = "group",
        broker_name: Option<&'a str> = "bname",
    }

    /// `GET_CONSUME_STATS`; answered by [`ConsumeStats`](crate::wire::body::ConsumeStats).
    GetConsumeStatsRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        topic: Option<&'a str> = "topic",
        broker_name: Option<&'a str> = "bname",
    }

    /// `GET_CONSUMER_CONNECTION_LIST`; answered by a [`ConsumerConnection`](crate::wire::body::ConsumerConnection).
    GetConsumerConnectionListRequest<'a> {
        consumer_group: &'a str = "consumerGroup",
        broker_name: Option<&'a str> = "bname",
    }

    /// `GET_PRODUCER_CONNECTION_LIST`; answered by a [`ProducerConnection`](crate::wire::body::ProducerConnection).
    GetProducerConnectionListRequest<'a> {
        producer_group: &'a str = "producerGroup",
        broker_name: Option<&'a str> = "bname",
    }

    /// The header of the answer to `GET_BROKER_CONFIG`, whose body is `name=value` lines.
    GetBrokerConfigResponse<'a> {
        /// A [`DataVersion`](crate::wire::body::DataVersion) in JSON.
        version: &'a str = "version",
    }
}
