//! Calls: responses, failures with their certainty, deadlines.

use super::*;

#[test]
fn a_reply_comes_back_to_its_caller() {
    let (remoting, _thread) = start(config());
    let body = Bytes::from_static(b"hello");
    assert_eq!(remoting.invoke(&echo_peer(), request(&body), soon()).unwrap().body, body);
}

#[test]
fn many_threads_and_sizes_share_one_connection() {
    let told = Arc::new(Told::default());
    let (remoting, _thread) = start_with(config(), Arc::clone(&told) as _);
    let address = echo_peer();
    thread::scope(|scope| {
        for thread in 0_u8..8 {
            let (remoting, address) = (remoting.clone(), Arc::clone(&address));
            thread::Builder::new()
                .spawn_scoped(scope, move || {
                    for round in 0_usize..200 {
                        let size = if round % 50 == 7 { 200_000 } else { round * 7 };
                        let body = Bytes::from(vec![thread; size]);
                        assert_eq!(remoting.invoke(&address, request(&body), soon()).unwrap().body, body);
                    }
                })
                .unwrap();
        }
    });
    assert_eq!(told.connected.load(Ordering::SeqCst), 1);
}

#[test]
fn every_asynchronous_request_is_completed_once() {
    let (remoting, _thread) = start(config());
    let address = echo_peer();
    let (sender, outcomes) = unbounded();
    let body = Bytes::from_static(b"hello");
    for number in 0..5000 {
        remoting.invoke_async(&address, request(&body), soon(), report(&sender, number));
    }
    drop(sender);
    let mut seen: Vec<_> = outcomes.iter().map(|(number, outcome)| (number, outcome.is_ok())).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..5000).map(|number| (number, true)).collect::<Vec<_>>());
}

#[test]
fn a_refused_dial_fails_the_call_at_once_and_names_the_address() {
    let (remoting, _thread) = start(config());
    let dead = dead_address();
    let error = ping(&remoting, &dead, soon()).unwrap_err();
    assert_eq!((error.kind, error.phase, error.certainty), (ErrorKind::Connect, Phase::Connect, Certainty::NotSent));
    assert!(error.detail.contains(&*dead), "{}", error.detail);
    assert!(!remoting.is_reachable(&dead));
}

#[test]
fn life_12_a_oneway_request_to_a_dead_address_fails_and_names_the_address() {
    let (remoting, _thread) = start(config());
    let dead = dead_address();
    let error = remoting.invoke_oneway(&dead, request(&Bytes::new()), soon()).unwrap_err();
    assert_eq!((error.kind, error.certainty), (ErrorKind::Connect, Certainty::NotSent));
    assert!(error.detail.contains(&*dead), "{}", error.detail);
}

#[test]
fn a_oneway_request_that_may_not_wait_is_queued_while_its_connection_is_dialled() {
    let (remoting, _thread) = start(config());
    let (sender, seen) = unbounded();
    let address = peer(move |_, mut wire| sender.send(wire.next()).unwrap());
    remoting.invoke_oneway(&address, request(&Bytes::from_static(b"now")), Instant::now()).unwrap();
    let request = seen.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!((request.is_oneway(), &*request.body), (true, &b"now"[..]));
}

#[test]
fn life_16_a_call_without_a_reply_ends_at_its_deadline_and_leaves_the_table() {
    let (remoting, _thread) = start(config());
    let silent = silent_peer();
    let error = ping(&remoting, &silent, within(50)).unwrap_err();
    assert_eq!((error.kind, error.phase, error.certainty), (ErrorKind::Timeout, Phase::Reply, Certainty::Unknown));
    let (sender, outcomes) = unbounded();
    remoting.invoke_async(&silent, request(&Bytes::new()), within(50), report(&sender, ()));
    let error = outcomes.recv_timeout(PATIENCE).unwrap().1.unwrap_err();
    assert_eq!((error.kind, error.phase, error.certainty), (ErrorKind::Timeout, Phase::Reply, Certainty::Unknown));
    assert!(current(&remoting, &silent).unwrap().is_drained());
}

#[test]
fn life_15_every_kind_of_call_has_its_reply_and_each_failure_its_kind() {
    let (remoting, _thread) = start(config());
    let (sender, seen) = unbounded();
    let address = peer(move |_, mut wire| {
        while let Some(request) = wire.next() {
            let count = request.ext_fields.get("count").map(str::to_owned);
            sender.send((count, request.is_oneway())).unwrap();
            let mut reply = echo_of(&request).with_fields(&request.ext_fields);
            reply.language = LanguageCode::JAVA;
            match &*request.body {
                b"lose" => return,
                b"silence" => {}
                _ if request.is_oneway() => {}
                _ => drop(wire.send(&reply)),
            }
        }
    });
    let mut header = ExtFields::new();
    header.text("count", "2");
    header.text("messageTitle", "Welcome");
    let call = |body: &'static [u8], limit| {
        let body = Bytes::from_static(body);
        let request = || Request::new(RequestCode::SEND_MESSAGE_V2, &header).with_body(&body);
        let (sender, outcomes) = unbounded();
        remoting.invoke_async(&address, request(), limit, report(&sender, ()));
        drop(sender);
        let mut asynchronous: Vec<Outcome> = outcomes.iter().map(|(_, outcome)| outcome).collect();
        assert_eq!(asynchronous.len(), 1, "one completion");
        [remoting.invoke(&address, request(), limit), asynchronous.remove(0)]
    };
    for reply in call(b"hello", soon()) {
        let reply = reply.unwrap();
        assert_eq!((reply.language, reply.code, &*reply.body), (LanguageCode::JAVA, 0, &b"hello"[..]));
        assert_eq!(reply.ext_fields.get("count"), Some("2"));
        assert_eq!(reply.ext_fields.get("messageTitle"), Some("Welcome"));
    }
    let body = Bytes::from_static(b"one-way");
    let oneway = Request::new(RequestCode::SEND_MESSAGE_V2, &header).with_body(&body);
    remoting.invoke_oneway(&address, oneway, soon()).unwrap();
    let asked: Vec<_> = (0..3).map(|_| seen.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(asked, [false, false, true].map(|oneway| (Some("2".to_owned()), oneway)));

    let kinds = |outcomes: [Outcome; 2]| outcomes.map(|outcome| outcome.unwrap_err().kind);
    assert_eq!(kinds(call(b"silence", within(50))), [ErrorKind::Timeout; 2]);
    assert_eq!(kinds(call(b"lose", soon())), [ErrorKind::ConnectionLost; 2]);
    let dead = ping(&remoting, &dead_address(), soon()).unwrap_err();
    assert_eq!((dead.kind, dead.certainty), (ErrorKind::Connect, Certainty::NotSent));
}

#[test]
fn life_16_the_body_comes_back_to_every_kind_of_call_and_nothing_stays_pending() {
    let (remoting, _thread) = start(config());
    let (sender, seen) = unbounded();
    let address = peer(move |_, mut wire| {
        while let Some(request) = wire.next() {
            sender.send(request.body.clone()).unwrap();
            if !request.is_oneway() {
                wire.send(&echo_of(&request));
            }
        }
    });
    let body = Bytes::from_static(b"hello RocketMQ");
    assert_eq!(remoting.invoke(&address, request(&body), soon()).unwrap().body, body);
    let (sender, outcomes) = unbounded();
    remoting.invoke_async(&address, request(&body), soon(), report(&sender, ()));
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap().1.unwrap().body, body);
    remoting.invoke_oneway(&address, request(&body), soon()).unwrap();
    for _ in 0..3 {
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), body);
    }
    assert!(current(&remoting, &address).unwrap().is_drained());
}

#[test]
fn a_deadline_that_has_passed_sends_nothing() {
    let (remoting, _thread) = start(config());
    let (sender, seen) = unbounded();
    let address = peer(move |_, mut wire| sender.send(wire.next()).unwrap());
    let error = ping(&remoting, &address, Instant::now()).unwrap_err();
    assert_eq!((error.kind, error.certainty), (ErrorKind::Timeout, Certainty::NotSent));
    remoting.invoke_oneway(&address, request(&Bytes::from_static(b"first")), soon()).unwrap();
    assert_eq!(&*seen.recv_timeout(PATIENCE).unwrap().unwrap().body, b"first");
}

#[test]
fn a_reply_after_the_deadline_is_dropped() {
    let (remoting, _thread) = start(config());
    let (release, released) = unbounded::<()>();
    let address = peer(move |_, mut wire| {
        let late = wire.next().unwrap();
        let _ = released.recv();
        wire.send(&echo_of(&late));
        wire.echo();
    });
    let (sender, outcomes) = unbounded();
    let late = Bytes::from_static(b"late");
    remoting.invoke_async(&address, request(&late), within(30), report(&sender, "late"));
    let (_, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
    assert_eq!(outcome.unwrap_err().kind, ErrorKind::Timeout);
    release.send(()).unwrap();
    // The late reply comes before this one on the same connection.
    assert_eq!(&*ping(&remoting, &address, soon()).unwrap().body, b"ping");
    drop(sender);
    assert!(outcomes.recv().is_err(), "completed twice");
}

#[test]
fn codes_that_a_binary_header_cannot_carry_go_in_json() {
    let (remoting, _thread) = start(RemotingConfig { encoding: HeaderEncoding::RocketMq, ..config() });
    let (sender, encodings) = unbounded();
    let address = peer(move |_, mut wire| {
        while let Some(request) = wire.next() {
            sender.send((request.code, request.encoding)).unwrap();
            wire.send(&echo_of(&request));
        }
    });
    for code in [RequestCode::SEND_MESSAGE_V2, RequestCode::POP_MESSAGE] {
        remoting.invoke(&address, Request::new(code, &()), soon()).unwrap();
    }
    let seen: Vec<_> = encodings.try_iter().collect();
    assert_eq!(
        seen,
        [
            (RequestCode::SEND_MESSAGE_V2.0, HeaderEncoding::RocketMq),
            (RequestCode::POP_MESSAGE.0, HeaderEncoding::Json)
        ]
    );
}
