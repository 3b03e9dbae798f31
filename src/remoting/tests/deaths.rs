//! The death of the selector: everything pending has its outcome, and later calls fail.

use super::*;

/// Panics at the first request of a peer, as a fault of the library would.
struct Faulty;

impl RemotingEvents for Faulty {
    fn requested(&self, _: RemotingCommand, _: Responder) {
        panic!("a fault");
    }
    fn connected(&self, _: &Arc<str>) {}
    fn disconnected(&self, _: &Arc<str>) {}
}

/// Parked and asynchronous requests at a silent peer; each reports the kind of its error.
fn pending(remoting: &Remoting) -> Receiver<ErrorKind> {
    let (tell, told) = unbounded();
    let silent = silent_peer();
    for _ in 0..3 {
        let (remoting, silent, tell) = (remoting.clone(), Arc::clone(&silent), tell.clone());
        spawn(move || tell.send(ping(&remoting, &silent, soon()).unwrap_err().kind).unwrap());
    }
    for _ in 0..3 {
        let tell = tell.clone();
        let completion = Completion::new(move |outcome: Outcome| tell.send(outcome.unwrap_err().kind).unwrap());
        remoting.invoke_async(&silent, request(&Bytes::new()), soon(), completion);
    }
    // Open as well: a dial that a broken poll set ends fails with an error of its own.
    let is_ready = |connection: Arc<Connection>| connection.is_open() && connection.pending() == 6;
    eventually("all are pending", || current(remoting, &silent).is_some_and(is_ready));
    told
}

fn assert_all_are_told(remoting: &Remoting, told: &Receiver<ErrorKind>, words: &str) {
    let kinds: Vec<_> = (0..6).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(kinds, [ErrorKind::Internal; 6]);
    assert!(told.recv_timeout(Duration::from_millis(20)).is_err(), "a second outcome");
    let error = ping(remoting, &echo_peer(), soon()).unwrap_err();
    assert_eq!((error.kind, error.certainty), (ErrorKind::Internal, Certainty::NotSent));
    assert!(error.detail.contains("rmq-remoting") && error.detail.contains(words), "{}", error.detail);
}

#[test]
fn a_selector_that_panics_completes_everything_and_later_calls_are_refused() {
    let (remoting, mut thread) = start_with(config(), Arc::new(Faulty));
    let told = pending(&remoting);
    let asking = peer(|_, mut wire| {
        wire.send(&RemotingCommand::request(RequestCode::HEART_BEAT, &()));
        drop(wire.swallow());
    });
    let error = ping(&remoting, &asking, soon()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    assert_all_are_told(&remoting, &told, "a fault");
    assert_eq!(thread.stop(soon()), Vec::<String>::new());
}

/// Three responses come together; the first completion panics, and the others still get theirs.
#[test]
fn a_completion_that_panics_costs_no_other_its_response() {
    let (remoting, _thread) = start(config());
    let address = peer(|_, mut wire| {
        let requests: Vec<_> = (0..3).map(|_| wire.next().unwrap()).collect();
        let replies: Vec<u8> = requests.iter().flat_map(|request| encoded(&echo_of(request))).collect();
        wire.send_bytes(&replies);
        drop(wire.swallow());
    });
    let (sender, outcomes) = unbounded();
    let faulty = Completion::new(|_: Outcome| panic!("a fault"));
    remoting.invoke_async(&address, request(&Bytes::new()), soon(), faulty);
    for number in 0..2 {
        remoting.invoke_async(&address, request(&Bytes::new()), soon(), report(&sender, number));
    }
    for expected in 0..2 {
        let (number, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
        assert_eq!((number, outcome.map(|_| ()).map_err(|error| error.kind)), (expected, Ok(())));
    }
    eventually("the death is noticed", || ping(&remoting, &address, soon()).unwrap_err().kind == ErrorKind::Internal);
}

/// As when the host closes a descriptor of ours twice, and the number is another file's by then.
#[cfg(target_os = "linux")]
#[test]
fn a_poll_set_that_is_taken_away_ends_the_selector_as_a_panic_does() {
    shutdown::alone("deaths::a_poll_set_that_is_taken_away_ends_the_selector_as_a_panic_does", || {
        let (remoting, mut thread) = start(config());
        let told = pending(&remoting);
        let poll_set = std::fs::read_dir("/proc/self/fd").unwrap().find_map(|entry| {
            let entry = entry.unwrap();
            let target = std::fs::read_link(entry.path()).ok()?;
            let number = entry.file_name().to_string_lossy().parse::<i32>().ok()?;
            target.to_string_lossy().contains("eventpoll").then_some(number)
        });
        nix::unistd::close(poll_set.expect("a poll set")).unwrap();
        // Takes the number, which is the lowest free one.
        std::mem::forget(std::fs::File::open("/dev/null").unwrap());
        // Wakes the poll that waits at this moment on the set that was.
        remoting.invoke_async(&echo_peer(), request(&Bytes::new()), soon(), Completion::new(drop));
        assert_all_are_told(&remoting, &told, "polling failed");
        assert_eq!(thread.stop(soon()), Vec::<String>::new());
    });
}
