//! WIRE-06: a hostile peer costs only its own connection.

use super::*;

/// Bytes that are no frame, with their descriptions.
fn wrong_frames() -> Vec<(&'static str, Vec<u8>)> {
    let frame =
        |length: u32, marked: u32, rest: &[u8]| [&length.to_be_bytes()[..], &marked.to_be_bytes(), rest].concat();
    vec![
        ("length zero", frame(0, 0, b"")),
        ("negative length", frame(u32::MAX, 0, b"")),
        ("a length beyond 16 MiB, and a header that is none", frame(16 * 1024 * 1024 + 1, 10, b"{\"code\":0}")),
        ("a length beyond all bounds", frame(0x7FFF_FFFF, 10, b"{}")),
        ("a header longer than its frame", frame(14, 4096, b"{\"code\":0}")),
        ("garbage JSON", frame(14, 10, b"{\"code\":,,")),
        ("JSON that is no command", frame(14, 10, b"[1,2,3,4] ")),
        ("a binary header that ends too early", frame(14, 0x0100_000A, b"0123456789")),
        ("an unknown encoding", frame(14, 0x0700_000A, b"{\"code\":0}")),
        ("another protocol", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
    ]
}

#[test]
fn wire_06_a_wrong_frame_closes_its_connection_and_no_other() {
    let (remoting, _thread) = start(config());
    let healthy = echo_peer();
    ping(&remoting, &healthy, soon()).unwrap();
    let healthy_connection = current(&remoting, &healthy).unwrap();
    for (what, bytes) in wrong_frames() {
        let (sender, closed) = unbounded();
        let hostile = peer(move |number, mut wire| {
            if number > 0 {
                return wire.echo();
            }
            wire.next().unwrap();
            wire.send_bytes(&bytes);
            sender.send(wire.next().is_none()).unwrap();
        });
        let error = ping(&remoting, &hostile, soon()).expect_err(what);
        assert_eq!((error.kind, error.certainty), (ErrorKind::Protocol, Certainty::Unknown), "{what}");
        assert!(closed.recv_timeout(PATIENCE).unwrap(), "{what}");
        // The peer is not shunned for ever.
        ping(&remoting, &hostile, soon()).expect(what);
        ping(&remoting, &healthy, soon()).expect(what);
    }
    assert!(Arc::ptr_eq(&healthy_connection, &current(&remoting, &healthy).unwrap()));
}

#[test]
fn wire_06_a_peer_that_sends_garbage_at_once_is_dialled_less_and_less() {
    let (dials, dialled) = unbounded();
    let (remoting, _thread) = start(config());
    let hostile = peer(move |number, mut wire| {
        wire.send_bytes(b"220 mail.example ESMTP\r\n");
        let _ = dials.send(number);
        wire.swallow();
    });
    let begun = Instant::now();
    let mut failures = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        let error = ping(&remoting, &hostile, soon()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Protocol);
        failures += 1;
    }
    // A connection that is lost before its request was handed to it is dialled without a failure.
    eventually("every dial of a failure is told", || dialled.len() >= failures);
    let dials = dialled.len();
    // 25 to 50 ms, then 50 to 100, then 100 to 200 ... On a machine that is busy the loop may end late.
    let most = 8 * begun.elapsed().as_secs();
    assert!((2..=most).contains(&(dials as u64)), "{dials} of {most}");
}

#[test]
fn wire_06_replies_that_nobody_waits_for_are_ignored() {
    let (remoting, _thread) = start(config());
    let address = peer(|number, mut wire| {
        assert_eq!(number, 0);
        while let Some(request) = wire.next() {
            let mut unknown = echo_of(&request);
            unknown.opaque = request.opaque.wrapping_add(1_000_000);
            wire.send(&unknown);
            wire.send(&echo_of(&request));
            wire.send(&echo_of(&request).with_body("a second reply"));
        }
    });
    for _ in 0..20 {
        assert_eq!(&*ping(&remoting, &address, soon()).unwrap().body, b"ping");
    }
}

#[test]
fn wire_06_half_a_frame_and_then_the_end_fails_what_is_pending_at_once() {
    for cut in [1, 3, 4, 7, 8, 20] {
        let (remoting, _thread) = start(config());
        let address = peer(move |_, mut wire| {
            let reply = encoded(&echo_of(&wire.next().unwrap()));
            // Both at once: the end must be seen behind the bytes.
            wire.send_bytes(&reply[..cut]);
        });
        let error = ping(&remoting, &address, soon()).unwrap_err();
        assert_eq!((error.kind, error.certainty), (ErrorKind::ConnectionLost, Certainty::Unknown), "{cut}");
    }
}

#[test]
fn a_reply_that_is_followed_by_the_end_is_delivered() {
    let (remoting, _thread) = start(config());
    let address = peer(|_, mut wire| {
        let request = wire.next().unwrap();
        wire.send(&echo_of(&request));
    });
    for _ in 0..50 {
        ping(&remoting, &address, soon()).unwrap();
        // The end is noticed without another request.
        eventually("the closed connection is given up", || current(&remoting, &address).is_none());
    }
}

#[test]
fn a_peer_that_asks_and_never_reads_cannot_fill_the_memory() {
    let (remoting, _thread) = start(with_outbox(256 * 1024));
    let told = Arc::new(Told::default());
    let (other, _other_thread) = start_with(with_outbox(256 * 1024), Arc::clone(&told) as _);
    let address = peer(|_, mut wire| {
        wire.next().unwrap();
        let asked = RemotingCommand::request(RequestCode::GET_CONSUMER_RUNNING_INFO, &()).with_body(vec![0; 60_000]);
        let bytes = encoded(&asked);
        for _ in 0..400 {
            if !wire.send_bytes(&bytes) {
                return;
            }
        }
        wire.swallow();
    });
    let healthy = echo_peer();
    other.invoke_oneway(&address, request(&Bytes::new()), soon()).unwrap();
    eventually("all was asked", || told.requested.lock().len() == 400);
    assert!(current(&other, &address).unwrap().unsent() <= 256 * 1024);
    ping(&remoting, &healthy, soon()).unwrap();
    ping(&other, &healthy, soon()).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn wire_06_a_claimed_length_allocates_nothing() {
    shutdown::alone("hostile::wire_06_a_claimed_length_allocates_nothing", || {
        let claim = |_: usize, mut wire: Wire| {
            wire.next().unwrap();
            wire.send_bytes(&(16 * 1024 * 1024 - 4_u32).to_be_bytes());
            wire.swallow();
        };
        let (remoting, _thread) = start(config());
        let (sender, outcomes) = unbounded();
        let before = memory_peak();
        for number in 0..64 {
            remoting.invoke_async(&peer(claim), request(&Bytes::new()), within(1000), report(&sender, number));
        }
        drop(sender);
        assert_eq!(outcomes.iter().filter(|(_, outcome)| outcome.is_err()).count(), 64);
        // Of the gigabyte that was claimed; the threads of 64 peers are in it.
        let grown = memory_peak() - before;
        assert!(grown < 64 * 1024, "{grown} KiB");
    });
}

/// In KiB.
#[cfg(target_os = "linux")]
fn memory_peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
