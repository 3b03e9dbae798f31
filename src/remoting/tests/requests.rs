//! Requests of peers, and their responses.

use super::super::connection::{Appended, Limits};
use super::super::outbox::OutgoingFrame;
use super::super::responder::MOST_UNANSWERED;
use super::*;

#[test]
fn requests_of_the_peer_are_answered_in_their_own_encoding() {
    let told = Arc::new(Told::default());
    let (remoting, _thread) = start_with(config(), Arc::clone(&told) as _);
    let (sender, replies) = unbounded();
    let address = peer(move |_, mut wire| {
        let ping = wire.next().unwrap();
        for (opaque, encoding) in [(71, HeaderEncoding::Json), (72, HeaderEncoding::RocketMq)] {
            let mut asked = RemotingCommand::request(RequestCode::GET_CONSUMER_RUNNING_INFO, &()).with_body("two-way");
            (asked.opaque, asked.encoding) = (opaque, encoding);
            wire.send(&asked.clone().oneway().with_body("one-way"));
            wire.send(&asked);
            sender.send(wire.next().unwrap()).unwrap();
        }
        wire.send(&echo_of(&ping));
        wire.swallow();
    });
    ping(&remoting, &address, soon()).unwrap();
    for (opaque, encoding) in [(71, HeaderEncoding::Json), (72, HeaderEncoding::RocketMq)] {
        let reply = replies.recv_timeout(PATIENCE).unwrap();
        assert!(reply.is_response());
        assert_eq!((reply.opaque, reply.encoding, &*reply.body), (opaque, encoding, &b"two-way"[..]));
    }
    let bodies: Vec<_> = told.requested.lock().iter().map(|request| request.body.clone()).collect();
    assert_eq!(bodies, ["one-way", "two-way", "one-way", "two-way"]);
}

/// Hands each request's responder to the test.
struct HandsOver(Sender<Responder>);

impl RemotingEvents for HandsOver {
    fn requested(&self, _: RemotingCommand, responder: Responder) {
        let _ = self.0.send(responder);
    }
    fn connected(&self, _: &Arc<str>) {}
    fn disconnected(&self, _: &Arc<str>) {}
}

/// Remoting whose responders come through the channel.
fn start_handing_over(config: RemotingConfig) -> (Remoting, RemotingThread, Receiver<Responder>) {
    let (sender, responders) = unbounded();
    let (remoting, thread) = start_with(config, Arc::new(HandsOver(sender)));
    (remoting, thread, responders)
}

/// A peer that waits for one request, sends `count` of its own with opaques from 0 on, and reports each response.
fn asking_peer(count: usize) -> (Arc<str>, Receiver<RemotingCommand>) {
    let (sender, responses) = unbounded();
    let address = peer(move |_, mut wire| {
        wire.next().unwrap();
        for opaque in 0..i32::try_from(count).unwrap() {
            let mut asked = RemotingCommand::request(RequestCode::GET_CONSUMER_RUNNING_INFO, &());
            asked.opaque = opaque;
            wire.send(&asked);
        }
        while let Some(response) = wire.next() {
            sender.send(response).unwrap();
        }
    });
    (address, responses)
}

fn body_of(response: &RemotingCommand) -> String {
    String::from_utf8(response.body.to_vec()).unwrap()
}

#[test]
fn any_thread_may_respond_in_any_order_and_a_dropped_request_is_refused() {
    let (remoting, _thread, responders) = start_handing_over(config());
    let (address, responses) = asking_peer(3);
    remoting.invoke_oneway(&address, request(&Bytes::new()), soon()).unwrap();
    let mut held: Vec<_> = (0..3).map(|_| responders.recv_timeout(PATIENCE).unwrap()).collect();
    assert!(held.iter().all(|responder| responder.address() == &address));
    let connection = current(&remoting, &address).unwrap();
    assert_eq!(connection.unanswered(), 3);
    wait(Duration::from_millis(20));
    assert!(responses.is_empty(), "nobody has responded");

    let last = held.pop().unwrap();
    spawn(move || last.respond(ResponseCode::SUCCESS, None, Bytes::from_static(b"last")));
    let response = responses.recv_timeout(PATIENCE).unwrap();
    assert_eq!((response.opaque, response.is_response(), body_of(&response)), (2, true, "last".to_owned()));
    drop(held.pop());
    let response = responses.recv_timeout(PATIENCE).unwrap();
    assert_eq!((response.opaque, response.response_code()), (1, ResponseCode::SYSTEM_ERROR));
    held.pop().unwrap().respond(ResponseCode::SUCCESS, None, Bytes::from_static(b"first"));
    let response = responses.recv_timeout(PATIENCE).unwrap();
    assert_eq!((response.opaque, body_of(&response)), (0, "first".to_owned()));
    eventually("the last responder is dropped", || connection.unanswered() == 0);
    wait(Duration::from_millis(20));
    assert!(responses.is_empty(), "each request has one response");
}

#[test]
fn a_peer_with_too_many_unanswered_requests_is_refused_until_some_are_answered() {
    let (remoting, _thread, responders) = start_handing_over(config());
    let (address, responses) = asking_peer(MOST_UNANSWERED + 10);
    remoting.invoke_oneway(&address, request(&Bytes::new()), soon()).unwrap();
    let busy: Vec<_> = (0..10).map(|_| responses.recv_timeout(PATIENCE).unwrap()).collect();
    let first = i32::try_from(MOST_UNANSWERED).unwrap();
    assert!(busy.iter().all(|response| response.response_code() == ResponseCode::SYSTEM_BUSY));
    assert_eq!(
        busy.iter().map(|response| response.opaque).collect::<Vec<_>>(),
        (first..first + 10).collect::<Vec<_>>()
    );
    assert_eq!(responders.len(), MOST_UNANSWERED);
    for responder in responders.try_iter() {
        responder.respond(ResponseCode::SUCCESS, None, Bytes::new());
    }
    for opaque in 0..first {
        let response = responses.recv_timeout(PATIENCE).unwrap();
        assert_eq!((response.opaque, response.response_code()), (opaque, ResponseCode::SUCCESS));
    }
}

#[test]
fn a_response_after_the_end_of_its_connection_goes_nowhere() {
    let (remoting, mut thread, responders) = start_handing_over(config());
    let (sender, numbers) = unbounded();
    let address = peer(move |number, mut wire| {
        wire.next().unwrap();
        sender.send(number).unwrap();
        if number == 0 {
            wire.send(&RemotingCommand::request(RequestCode::GET_CONSUMER_RUNNING_INFO, &()));
        } else {
            assert_eq!(wire.swallow().len(), 0, "the response of an earlier connection");
        }
    });
    remoting.invoke_oneway(&address, request(&Bytes::new()), soon()).unwrap();
    let late = responders.recv_timeout(PATIENCE).unwrap();
    eventually("the first connection has ended", || current(&remoting, &address).is_none());
    eventually("the peer is connected again", || {
        remoting.invoke_oneway(&address, request(&Bytes::new()), soon()).is_ok()
            && numbers.try_iter().any(|one| one == 1)
    });
    late.respond(ResponseCode::SUCCESS, None, Bytes::new());
    thread.stop(soon());
}

/// A announces its deadline; the selector finds nothing to write; B appends before the selector plans its sleep.
#[test]
fn bytes_that_come_between_the_selectors_look_and_its_sleep_are_announced() {
    let limits = Limits { outbox: 1000, outbox_of_completions: 1000, silence: PATIENCE };
    let connection = Connection::new("a".into(), Token(7), limits);
    let (listener, address) = listener();
    let socket = Arc::new(mio::net::TcpStream::connect(address).unwrap());
    let _peer = listener.accept().unwrap();
    let now = Instant::now();
    connection.open(&socket, &Plain, now);
    assert!(connection.next_batch().is_none());
    connection.plan(None, true);

    let frame = OutgoingFrame::encoded(b"a frame");
    let slot = Slot::of_this_thread();
    let waiter = Waiter::Parked(Parked::new(&slot));
    let submitted = connection.submit(&frame, 1, Some(waiter), soon(), now);
    assert!(matches!(submitted, Submitted::Accepted { announce: true }), "the deadline of A: {submitted:?}");
    assert!(connection.next_batch().is_none(), "A has written its bytes itself");
    assert_eq!(connection.append(&frame), Appended::Accepted { announce: true }, "the bytes of B");
    connection.plan(None, true);
    assert!(connection.next_batch().is_some());
}
