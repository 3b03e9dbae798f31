//! Requests created by the caller.

use rocketmq_sync::mini_broker::Fault;
use rocketmq_sync::unversioned::wire::header::GetRouteInfoRequest;
use rocketmq_sync::unversioned::wire::{RemotingCommand, RequestCode, ResponseCode};
use rocketmq_sync::{Client, ErrorKind};

use crate::{PATIENCE, TOPIC, mini};

#[test]
fn a_request_of_ones_own_is_answered_even_by_a_refusal() {
    let mini = mini(1);
    let name_server = mini.name_servers().remove(0);
    let client = Client::builder().name_servers([&name_server]).start().unwrap();
    let route_of = |topic| {
        let header = GetRouteInfoRequest { topic, accept_standard_json_only: Some(true) };
        let request = RemotingCommand::request(RequestCode::GET_ROUTEINFO_BY_TOPIC, &header);
        client.request(&name_server, &request, PATIENCE)
    };
    let answer = route_of(TOPIC).unwrap();
    assert_eq!(answer.response_code(), ResponseCode::SUCCESS);
    assert!(String::from_utf8_lossy(&answer.body).contains("broker-a"));
    assert_eq!(route_of("Nowhere").unwrap().response_code(), ResponseCode::TOPIC_NOT_EXIST);
}

#[test]
fn a_request_of_ones_own_carries_its_body_and_fails_as_others_do() {
    let mini = mini(1);
    let broker = mini.broker_address("broker-a").to_string();
    let client = Client::builder().name_servers(mini.name_servers()).start().unwrap();
    let request = RemotingCommand::request(RequestCode::HEART_BEAT, &()).with_body("no heartbeat");
    let answer = client.request(&broker, &request, PATIENCE).unwrap();
    assert_ne!(answer.response_code(), ResponseCode::SUCCESS, "the body did not arrive");

    mini.fail(RequestCode::HEART_BEAT, Fault::close());
    assert_eq!(client.request(&broker, &request, PATIENCE).unwrap_err().kind(), ErrorKind::ConnectionLost);
    let error = client.request("127.0.0.1:1", &request, PATIENCE).unwrap_err();
    assert_eq!((error.kind(), error.address()), (ErrorKind::Connect, Some("127.0.0.1:1")));
}
