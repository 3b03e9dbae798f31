//! Connections that break, stall or fall silent, and the outcomes of the requests on them.

use super::*;

/// Far beyond any patience: what ends by it has hung.
const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn life_13_a_closed_connection_fails_everything_pending_at_once() {
    let (remoting, _thread) = start(config());
    let address = peer(|_, mut wire| {
        for _ in 0..108 {
            wire.next().unwrap();
        }
    });
    let (sender, outcomes) = unbounded();
    let far = Instant::now() + NEVER;
    for number in 0..100 {
        remoting.invoke_async(&address, request(&Bytes::new()), far, report(&sender, number));
    }
    for number in 100..108 {
        let (remoting, address, sender) = (remoting.clone(), Arc::clone(&address), sender.clone());
        spawn(move || sender.send((number, ping(&remoting, &address, far))).unwrap());
    }
    let mut seen = Vec::new();
    for _ in 0..108 {
        let (number, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
        let error = outcome.unwrap_err();
        assert_eq!((error.kind, error.phase), (ErrorKind::ConnectionLost, Phase::Reply));
        assert_eq!(error.certainty, Certainty::Unknown);
        assert!(error.detail.contains(&*address), "{}", error.detail);
        seen.push(number);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..108).collect::<Vec<_>>());
}

#[test]
fn a_connection_reset_in_the_middle_of_a_request_leaves_it_unknown() {
    let (remoting, _thread) = start(config());
    let address = peer(|_, mut wire| {
        // Dropped with unread bytes: the peer's system sends a reset.
        let mut some = [0; 100_000];
        wire.socket.read_exact(&mut some).unwrap();
    });
    let body = Bytes::from(vec![7; 12_000_000]);
    let error = remoting.invoke(&address, request(&body), soon()).unwrap_err();
    assert_eq!((error.kind, error.certainty), (ErrorKind::ConnectionLost, Certainty::Unknown));
}

/// A peer that reads nothing until a signal; then it reports every body and answers the request "last".
fn stalled_peer() -> (Arc<str>, Sender<()>, Receiver<Bytes>) {
    let (release, released) = unbounded::<()>();
    let (bodies, arrived) = unbounded();
    let address = peer(move |_, mut wire| {
        let _ = released.recv();
        while let Some(request) = wire.next() {
            let _ = bodies.send(request.body.clone());
            if &*request.body == b"last" {
                wire.send(&echo_of(&request));
            }
        }
    });
    (address, release, arrived)
}

fn numbered(number: u32, size: usize) -> Bytes {
    let mut body = vec![0; size.max(4)];
    body[..4].copy_from_slice(&number.to_be_bytes());
    body.into()
}

fn number_of(body: &Bytes) -> u32 {
    u32::from_be_bytes(body[..4].try_into().unwrap())
}

#[test]
fn what_was_told_as_not_sent_never_arrives_and_the_rest_does() {
    let (remoting, _thread) = start(with_outbox(256 * 1024 * 1024));
    let (address, release, arrived) = stalled_peer();
    let (sender, outcomes) = unbounded();
    let mut random = Random(7);
    // More than the buffers of two sockets can hold.
    for number in 0..900 {
        let size = [10, 1000, 40_000, 150_000][random.below(4)];
        let deadline = within(200 + random.next() % 400);
        if random.chance(10) {
            let (remoting, address, sender) = (remoting.clone(), Arc::clone(&address), sender.clone());
            spawn(move || {
                let body = numbered(number, size);
                sender.send((number, remoting.invoke(&address, request(&body), deadline))).unwrap();
            });
        } else {
            remoting.invoke_async(&address, request(&numbered(number, size)), deadline, report(&sender, number));
        }
    }
    let (mut not_sent, mut unknown) = (Vec::new(), Vec::new());
    for _ in 0..900 {
        let (number, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout);
        match error.certainty {
            Certainty::NotSent => not_sent.push(number),
            _ => unknown.push(number),
        }
    }
    assert!(!not_sent.is_empty() && !unknown.is_empty(), "{} and {}", not_sent.len(), unknown.len());
    release.send(()).unwrap();
    let last = Bytes::from_static(b"last");
    remoting.invoke(&address, request(&last), soon()).unwrap();
    let mut arrived: Vec<_> = arrived.try_iter().filter(|body| *body != last).map(|body| number_of(&body)).collect();
    arrived.sort_unstable();
    unknown.sort_unstable();
    assert_eq!(arrived, unknown);
}

#[test]
fn a_connection_lost_while_it_stalls_tells_what_left_from_what_did_not() {
    let (remoting, _thread) = start(with_outbox(256 * 1024 * 1024));
    let (release, released) = unbounded::<()>();
    let address = peer(move |_, wire| {
        let _ = released.recv();
        drop(wire);
    });
    let (sender, outcomes) = unbounded();
    for number in 0..600 {
        remoting.invoke_async(&address, request(&numbered(number, 100_000)), soon(), report(&sender, number));
    }
    let connection = current(&remoting, &address).unwrap();
    let mut before = usize::MAX;
    eventually("the socket is full", || {
        wait(Duration::from_millis(20));
        let unsent = connection.unsent();
        std::mem::replace(&mut before, unsent) == unsent
    });
    assert!(before > 0);
    release.send(()).unwrap();
    let mut certainties = vec![None; 600];
    for _ in 0..600 {
        let (number, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ConnectionLost);
        let expected = if error.certainty == Certainty::NotSent { Phase::Queue } else { Phase::Reply };
        assert_eq!(error.phase, expected);
        certainties[number as usize] = Some(error.certainty);
    }
    // What left is what was handed over first.
    let left = certainties.iter().filter(|certainty| **certainty == Some(Certainty::Unknown)).count();
    assert!((1..600).contains(&left));
    assert!(certainties[..left].iter().all(|certainty| *certainty == Some(Certainty::Unknown)));
}

#[test]
fn a_full_outbox_refuses_asynchronous_calls_and_lets_others_wait_until_the_peer_reads() {
    let (remoting, _thread) = start(with_outbox(1024 * 1024));
    let (address, release, arrived) = stalled_peer();
    let body = numbered(1, 100_000);
    let (sender, outcomes) = unbounded();
    let mut accepted = 0;
    let refused = loop {
        remoting.invoke_async(&address, request(&body), soon(), report(&sender, ()));
        match outcomes.recv_timeout(Duration::from_millis(5)) {
            Ok((_, outcome)) => break outcome.unwrap_err(),
            Err(_) => accepted += 1,
        }
        assert!(accepted < 1000, "no end of memory");
    };
    assert_eq!((refused.kind, refused.certainty), (ErrorKind::WindowFull, Certainty::NotSent));
    assert!(current(&remoting, &address).unwrap().unsent() <= 1024 * 1024);
    let oneway = |remoting: &Remoting, deadline| remoting.invoke_oneway(&address, request(&body), deadline);
    assert_eq!(oneway(&remoting, within(30)).unwrap_err().kind, ErrorKind::WindowFull);
    // No other call is held up.
    ping(&remoting, &echo_peer(), soon()).unwrap();
    let (done, waited) = unbounded();
    for _ in 0..4 {
        let (remoting, address, done, body) = (remoting.clone(), Arc::clone(&address), done.clone(), body.clone());
        spawn(move || done.send(remoting.invoke_oneway(&address, request(&body), soon()).is_ok()).unwrap());
    }
    let last = Arc::clone(&address);
    let last_call = thread::Builder::new()
        .spawn(move || remoting.invoke(&last, request(&Bytes::from_static(b"last")), soon()).unwrap())
        .unwrap();
    assert!(waited.recv_timeout(Duration::from_millis(50)).is_err(), "there was room");
    release.send(()).unwrap();
    for _ in 0..4 {
        assert!(waited.recv_timeout(PATIENCE).unwrap());
    }
    last_call.join().unwrap();
    eventually("all that was accepted arrives", || arrived.len() >= accepted + 4);
}

#[test]
fn asynchronous_requests_are_accepted_where_callers_have_to_wait() {
    let (remoting, _thread) = start(RemotingConfig { outbox_limit: 1024 * 1024, ..config() });
    let (release, released) = unbounded::<()>();
    let address = peer(move |_, mut wire| {
        let _ = released.recv();
        wire.echo();
    });
    let body = numbered(1, 200_000);
    fill(&remoting, &address, &body);
    let (sender, outcomes) = unbounded();
    for number in 0..20 {
        remoting.invoke_async(&address, request(&body), soon(), report(&sender, number));
    }
    assert!(current(&remoting, &address).unwrap().unsent() > 4_000_000);
    release.send(()).unwrap();
    for _ in 0..20 {
        outcomes.recv_timeout(PATIENCE).unwrap().1.unwrap();
    }
}

#[test]
fn a_oneway_caller_that_waits_for_room_is_released_when_the_connection_is_lost() {
    let (remoting, _thread) = start(with_outbox(1024 * 1024));
    let (release, released) = unbounded::<()>();
    let address = peer(move |number, mut wire| {
        if number == 0 {
            let _ = released.recv();
        } else {
            wire.echo();
        }
    });
    let body = numbered(1, 200_000);
    fill(&remoting, &address, &body);
    let (done, waited) = unbounded();
    spawn(move || done.send(remoting.invoke_oneway(&address, request(&body), soon())).unwrap());
    assert!(waited.recv_timeout(Duration::from_millis(50)).is_err(), "there was room");
    release.send(()).unwrap();
    // It goes over the next connection.
    waited.recv_timeout(PATIENCE).unwrap().unwrap();
}

#[test]
fn bodies_up_to_the_frame_limit_and_twenty_megabytes_in_flight_come_back_unharmed() {
    let (remoting, _thread) = start(config());
    let (release, released) = unbounded::<()>();
    let address = peer(move |_, mut wire| {
        // Everything meets a full socket first, so that all of it is written in parts.
        let _ = released.recv();
        wire.echo();
    });
    let (sender, outcomes) = unbounded();
    let mut random = Random(11);
    let bodies: Vec<Bytes> = [15_000_000, 40_000, 3_000_000, 10, 2_000_000, 31_000, 32_768, 1000, 0]
        .iter()
        .map(|&size| (0..size).map(|_| random.next().to_be_bytes()[0]).collect())
        .collect();
    for (number, body) in bodies.iter().enumerate() {
        remoting.invoke_async(&address, request(body), soon(), report(&sender, number));
    }
    let connection = current(&remoting, &address).unwrap();
    eventually("the socket is full", || (1..19_000_000).contains(&connection.unsent()));
    release.send(()).unwrap();
    for _ in 0..bodies.len() {
        let (number, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
        assert!(outcome.unwrap().body == bodies[number], "{number}");
    }
}

#[test]
fn a_frame_beyond_the_limit_is_refused_before_it_is_sent() {
    let (remoting, _thread) = start(config());
    let address = echo_peer();
    let body = Bytes::from(vec![0; 16 * 1024 * 1024]);
    let error = remoting.invoke(&address, request(&body), soon()).unwrap_err();
    assert_eq!((error.kind, error.certainty), (ErrorKind::InvalidMessage, Certainty::NotSent));
    ping(&remoting, &address, soon()).unwrap();
}

/// A peer whose first connection takes requests and says nothing; the next ones answer. Reports what it swallowed.
fn half_open_peer() -> (Arc<str>, Receiver<Vec<RemotingCommand>>) {
    let (sender, swallowed) = unbounded();
    let address = peer(move |number, mut wire| {
        if number == 0 {
            sender.send(wire.swallow()).unwrap();
        } else {
            wire.echo();
        }
    });
    (address, swallowed)
}

fn impatient() -> RemotingConfig {
    RemotingConfig { silence_limit: Duration::from_millis(100), ..config() }
}

fn is_probe(request: &RemotingCommand) -> bool {
    request.request_code() == RequestCode::GET_ROUTEINFO_BY_TOPIC && request.ext_fields.get("topic") == Some("TBW102")
}

#[test]
fn a_peer_that_falls_silent_is_probed_and_then_replaced() {
    let (remoting, _thread) = start(impatient());
    let (address, swallowed) = half_open_peer();
    let (sender, outcomes) = unbounded();
    for number in 0..3 {
        remoting.invoke_async(&address, request(&Bytes::new()), Instant::now() + NEVER, report(&sender, number));
    }
    for _ in 0..3 {
        let (_, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
        let error = outcome.unwrap_err();
        assert_eq!((error.kind, error.certainty), (ErrorKind::ConnectionLost, Certainty::Unknown));
    }
    let swallowed = swallowed.recv_timeout(PATIENCE).unwrap();
    assert_eq!(swallowed.iter().filter(|request| is_probe(request)).count(), 1);
    ping(&remoting, &address, soon()).unwrap();
}

#[test]
fn synchronous_callers_that_give_up_before_the_silence_ends_do_not_hide_it() {
    let (remoting, _thread) = start(impatient());
    let (address, swallowed) = half_open_peer();
    // Each caller writes for itself and is gone long before the peer has been silent for too long.
    let mut connections = Vec::new();
    eventually("the silent connection is replaced", || {
        let _ = ping(&remoting, &address, within(5));
        connections.extend(current(&remoting, &address));
        connections.dedup_by(|later, earlier| Arc::ptr_eq(later, earlier));
        connections.len() > 1
    });
    ping(&remoting, &address, soon()).unwrap();
    let swallowed = swallowed.recv_timeout(PATIENCE).unwrap();
    assert_eq!(swallowed.iter().filter(|request| is_probe(request)).count(), 1);
}

#[test]
fn a_connection_that_was_idle_for_long_is_not_taken_for_a_silent_one() {
    let (remoting, _thread) = start(RemotingConfig { silence_limit: Duration::from_millis(600), ..config() });
    let (sender, probes) = unbounded();
    let address = peer(move |number, mut wire| {
        assert_eq!(number, 0);
        while let Some(request) = wire.next() {
            if is_probe(&request) {
                sender.send(()).unwrap();
            }
            wait(Duration::from_millis(20));
            wire.send(&echo_of(&request));
        }
    });
    for _ in 0..2 {
        ping(&remoting, &address, soon()).unwrap();
        let connection = current(&remoting, &address).unwrap();
        wait(Duration::from_millis(1000));
        let (sender, outcomes) = unbounded();
        remoting.invoke_async(&address, request(&Bytes::new()), soon(), report(&sender, ()));
        outcomes.recv_timeout(PATIENCE).unwrap().1.unwrap();
        assert!(Arc::ptr_eq(&connection, &current(&remoting, &address).unwrap()));
    }
    assert!(probes.try_recv().is_err());
}

#[test]
fn a_peer_that_answers_its_probes_may_take_its_time() {
    let (remoting, _thread) = start(impatient());
    let (sender, probes) = unbounded();
    let address = peer(move |number, mut wire| {
        assert_eq!(number, 0);
        let slow = wire.next().unwrap();
        for _ in 0..3 {
            let probe = wire.next().unwrap();
            assert!(is_probe(&probe));
            wire.send(&echo_of(&probe));
            sender.send(()).unwrap();
        }
        wire.send(&echo_of(&slow));
        wire.swallow();
    });
    ping(&remoting, &address, soon()).unwrap();
    assert_eq!(probes.len(), 3);
}

#[test]
fn a_reply_that_drips_in_slowly_is_waited_for() {
    let (remoting, _thread) = start(RemotingConfig { silence_limit: Duration::from_millis(400), ..config() });
    let address = peer(move |number, mut wire| {
        assert_eq!(number, 0);
        let reply = encoded(&echo_of(&wire.next().unwrap()));
        // Longer than a silent connection would live.
        for byte in &reply {
            wait(Duration::from_millis(5));
            wire.send_bytes(std::slice::from_ref(byte));
        }
        wire.swallow();
    });
    let body = Bytes::from(vec![1; 100]);
    assert_eq!(remoting.invoke(&address, request(&body), soon()).unwrap().body, body);
}

/// The frame of an answer whose length claims `more` bytes than there are.
fn overlong(answer: &RemotingCommand, more: u32) -> Vec<u8> {
    let mut bytes = encoded(answer);
    let length = u32::try_from(bytes.len()).unwrap() - 4 + more;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[test]
fn a_frame_whose_length_lies_is_noticed_though_bytes_go_on_arriving() {
    // The second is beyond the limit: it is passed over with all that follows it.
    for more in [1_000_000, 20_000_000] {
        let limit = Duration::from_millis(400);
        let (remoting, _thread) = start(RemotingConfig { silence_limit: limit, ..config() });
        let address = peer(move |number, mut wire| {
            if number == 0 {
                let first = wire.next().unwrap();
                wire.send_bytes(&overlong(&echo_of(&first), more));
            }
            wire.echo();
        });
        let (sender, outcomes) = unbounded();
        let begun = Instant::now();
        remoting.invoke_async(&address, request(&Bytes::new()), soon(), report(&sender, 0));
        let mut asked = 1;
        let misled = loop {
            wait(Duration::from_millis(10));
            remoting.invoke_async(&address, request(&Bytes::new()), soon(), report(&sender, asked));
            asked += 1;
            match outcomes
                .try_iter()
                .find_map(|(_, outcome)| outcome.err().filter(|e| e.kind != ErrorKind::FrameTooLong))
            {
                Some(error) => break error,
                None => assert!(begun.elapsed() < PATIENCE, "never noticed"),
            }
        };
        assert_eq!(misled.kind, ErrorKind::Protocol, "{}", misled.detail);
        assert!(misled.detail.contains("its length is wrong"), "{}", misled.detail);
        // What a machine under load adds is not the rule's.
        assert!(begun.elapsed() < limit * 8, "{:?}", begun.elapsed());
        ping(&remoting, &address, soon()).unwrap();
    }
}

#[test]
fn a_large_frame_on_a_slow_line_is_waited_for_and_the_probes_are_answered_behind_it() {
    let (remoting, _thread) = start(RemotingConfig { silence_limit: Duration::from_millis(200), ..config() });
    let (sender, probes) = unbounded();
    let address = peer(move |number, mut wire| {
        assert_eq!(number, 0);
        let reply = encoded(&echo_of(&wire.next().unwrap()).with_body(vec![1; 1024 * 1024]));
        for part in reply.chunks(32 * 1024) {
            wait(Duration::from_millis(30));
            wire.send_bytes(part);
        }
        while let Some(request) = wire.next() {
            let _ = sender.send(is_probe(&request));
            wire.send(&echo_of(&request));
        }
    });
    let first = current(&remoting, &address);
    assert!(first.is_none());
    assert_eq!(ping(&remoting, &address, soon()).unwrap().body.len(), 1024 * 1024);
    ping(&remoting, &address, soon()).unwrap();
    let probes: Vec<_> = probes.try_iter().collect();
    assert!(probes.iter().filter(|is_probe| **is_probe).count() >= 2, "{probes:?}");
}

#[test]
fn a_frame_beyond_the_limit_fails_its_own_request_and_no_other() {
    let (remoting, _thread) = start(RemotingConfig { max_frame_length: 100_000, ..config() });
    let address = echo_peer();
    ping(&remoting, &address, soon()).unwrap();
    let connection = current(&remoting, &address).unwrap();
    let (sender, outcomes) = unbounded();
    for (number, length) in [(0, 10), (1, 1_000_000), (2, 99_000), (3, 100_000), (4, 10)] {
        remoting.invoke_async(&address, request(&vec![1; length].into()), soon(), report(&sender, number));
    }
    let mut outcomes: Vec<_> = (0..5).map(|_| outcomes.recv_timeout(PATIENCE).unwrap()).collect();
    outcomes.sort_by_key(|(number, _)| *number);
    for (number, outcome) in outcomes {
        match outcome {
            Ok(reply) => assert!([0, 2, 4].contains(&number), "{number}: {} bytes", reply.body.len()),
            Err(error) => {
                assert!([1, 3].contains(&number), "{number}: {}", error.detail);
                assert_eq!((error.kind, error.certainty), (ErrorKind::FrameTooLong, Certainty::Unknown));
                assert!(error.detail.contains("exceeds max_frame_length 100000"), "{}", error.detail);
            }
        }
    }
    assert!(Arc::ptr_eq(&connection, &current(&remoting, &address).unwrap()));
}

#[test]
fn life_14_after_go_away_new_requests_take_a_new_connection_and_the_old_one_ends_when_drained() {
    let (remoting, _thread) = start(config());
    let (events, seen) = unbounded();
    let (release, released) = unbounded::<()>();
    let address = peer(move |number, mut wire| {
        if number > 0 {
            return wire.echo();
        }
        let slow = wire.next().unwrap();
        let refused = wire.next().unwrap();
        wire.send(&RemotingCommand::response_to(&refused, ResponseCode::GO_AWAY, None));
        let _ = released.recv();
        wire.send(&echo_of(&slow));
        events.send(wire.swallow().len()).unwrap();
    });
    let (sender, outcomes) = unbounded();
    remoting.invoke_async(&address, request(&Bytes::from_static(b"slow")), soon(), report(&sender, ()));
    let old = current(&remoting, &address).unwrap();
    // The reply is passed up: what it means for the request is decided above.
    assert_eq!(ping(&remoting, &address, soon()).unwrap().response_code(), ResponseCode::GO_AWAY);
    for _ in 0..10 {
        assert_eq!(ping(&remoting, &address, soon()).unwrap().response_code(), ResponseCode::SUCCESS);
    }
    assert!(!Arc::ptr_eq(&old, &current(&remoting, &address).unwrap()));
    assert!(outcomes.is_empty(), "what was pending must be waited for");
    release.send(()).unwrap();
    assert_eq!(&*outcomes.recv_timeout(PATIENCE).unwrap().1.unwrap().body, b"slow");
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), 0, "requests came after GO_AWAY");
}
