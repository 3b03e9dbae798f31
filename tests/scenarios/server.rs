//! Basis of every other scenario: routes, stored messages, a broker that dies and returns. Without the client.

use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode, ResponseCode};

use super::raw::{self, fields};
use super::{Cluster, Server, eventually, unique};

pub(crate) fn a_created_topic_has_a_route_on_every_name_server(cluster: &dyn Cluster) {
    let topic = unique("Created");
    assert_eq!(cluster.route(&topic), None);
    cluster.create_topic(&topic, 3);
    let route = cluster.route(&topic).expect("a route");
    let queues: Vec<_> = route["queueDatas"].as_array().expect("queues").iter().collect();
    assert_eq!(queues.len(), cluster.brokers().len());
    for queue in queues {
        assert_eq!((&queue["perm"], &queue["readQueueNums"]), (&6.into(), &3.into()), "{route}");
    }
}

pub(crate) fn a_stored_message_is_counted_in_its_queue(cluster: &dyn Cluster) {
    let topic = unique("Counted");
    cluster.create_topic(&topic, 2);
    for broker in cluster.brokers() {
        let response = send(cluster, &broker.name, &topic, 1, "counted");
        assert_eq!(response.response_code(), ResponseCode::SUCCESS, "{response:?}");
        eventually("the message is counted", || cluster.max_offset(&broker.name, &topic, 1) == 1);
        assert_eq!(cluster.min_offset(&broker.name, &topic, 1), 0);
        assert_eq!(cluster.max_offset(&broker.name, &topic, 0), 0);
    }
}

pub(crate) fn a_committed_offset_is_told_again(cluster: &dyn Cluster) {
    let (topic, group) = (unique("Committed"), unique("group"));
    cluster.create_topic(&topic, 1);
    let broker = &cluster.brokers()[0].name;
    cluster.create_group(&group);
    let of_new_group = (cluster.server() == Server::Apache4).then_some(0);
    assert_eq!(cluster.committed_offset(broker, &group, &topic, 0), of_new_group);
    let header = [("consumerGroup", &*group), ("topic", &*topic), ("queueId", "0"), ("commitOffset", "7")];
    let response = cluster.ask_broker(broker, RequestCode::UPDATE_CONSUMER_OFFSET, &header);
    assert_eq!(response.response_code(), ResponseCode::SUCCESS, "{response:?}");
    assert_eq!(cluster.committed_offset(broker, &group, &topic, 0), Some(7));
}

pub(crate) fn a_killed_broker_comes_back_with_its_messages(cluster: &dyn Cluster) {
    let topic = unique("Survives");
    cluster.create_topic(&topic, 1);
    let killed = &cluster.brokers()[0].name;
    for _ in 0..10 {
        assert_eq!(send(cluster, killed, &topic, 0, "kept").response_code(), ResponseCode::SUCCESS);
    }
    cluster.kill_broker(killed);
    assert!(raw::Connection::open(cluster.broker_address(killed)).is_err(), "{killed} still accepts connections");
    eventually("the dead broker leaves the route", || {
        let route = cluster.route(&topic).expect("a route to the other broker");
        route["brokerDatas"].as_array().expect("brokers").iter().all(|broker| broker["brokerName"] != **killed)
    });
    cluster.restart_broker(killed);
    assert_eq!(cluster.max_offset(killed, &topic, 0), 10);
    assert_eq!(send(cluster, killed, &topic, 0, "new").response_code(), ResponseCode::SUCCESS);
    eventually("the new message is behind them", || cluster.max_offset(killed, &topic, 0) == 11);
}

fn send(cluster: &dyn Cluster, broker: &str, topic: &str, queue: i32, body: &'static str) -> RemotingCommand {
    let header = fields(&[
        ("a", "raw-producer"),
        ("b", topic),
        ("c", "TBW102"),
        ("d", "4"),
        ("e", &queue.to_string()),
        ("f", "0"),
        ("g", "1700000000000"),
        ("h", "0"),
        ("j", "0"),
        ("k", "false"),
    ]);
    let request = RemotingCommand::request(RequestCode::SEND_MESSAGE_V2, &header).with_body(body);
    raw::request(cluster.broker_address(broker), request).expect("an answer to a send")
}
