//! Exactly one outcome for every request, whatever happens; and nothing left behind.

use super::*;

#[test]
fn stopping_completes_everything_pending_and_refuses_the_rest() {
    let (remoting, mut thread) = start(config());
    let silent = silent_peer();
    let (sender, outcomes) = unbounded();
    remoting.invoke_async(&silent, request(&Bytes::new()), soon(), report(&sender, ()));
    assert_eq!(thread.stop(soon()), Vec::<String>::new());
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap().1.unwrap_err().kind, ErrorKind::NotRunning);
    for _ in 0..2 {
        let error = ping(&remoting, &silent, soon()).unwrap_err();
        assert_eq!((error.kind, error.certainty), (ErrorKind::NotRunning, Certainty::NotSent));
        assert_eq!(thread.stop(soon()), Vec::<String>::new());
    }
}

#[test]
fn callers_that_wait_are_released_by_a_stop() {
    let (remoting, mut thread) = start(with_outbox(1000));
    let stalled = peer(|_, wire| {
        wait(PATIENCE);
        drop(wire);
    });
    let body = Bytes::from(vec![0; 500_000]);
    fill(&remoting, &stalled, &body);
    let (sender, outcomes) = unbounded();
    for kind in 0..4 {
        let (remoting, stalled, sender, body) = (remoting.clone(), Arc::clone(&stalled), sender.clone(), body.clone());
        spawn(move || {
            let outcome = match kind % 2 {
                0 => remoting.invoke(&stalled, request(&body), soon()).map(drop),
                _ => remoting.invoke_oneway(&stalled, request(&body), soon()),
            };
            sender.send(outcome.unwrap_err().kind).unwrap();
        });
    }
    assert!(outcomes.recv_timeout(Duration::from_millis(50)).is_err(), "there was room");
    thread.stop(soon());
    for _ in 0..4 {
        assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap(), ErrorKind::NotRunning);
    }
}

#[test]
fn a_completion_may_send_again_and_may_stop_everything() {
    let (remoting, thread) = start(config());
    let address = echo_peer();
    let (sender, outcomes) = unbounded();
    let (again, to) = (remoting.clone(), Arc::clone(&address));
    let thread = Arc::new(Mutex::new(thread));
    let stops = Arc::clone(&thread);
    let first = Completion::new(move |outcome| {
        outcome.unwrap();
        let second = Completion::new(move |outcome| {
            outcome.unwrap();
            assert_eq!(stops.lock().stop(soon()), Vec::<String>::new());
            sender.send(()).unwrap();
        });
        again.invoke_async(&to, request(&Bytes::new()), soon(), second);
    });
    remoting.invoke_async(&address, request(&Bytes::new()), soon(), first);
    outcomes.recv_timeout(PATIENCE).unwrap();
    eventually("it has stopped", || {
        ping(&remoting, &address, soon()).is_err_and(|error| error.kind == ErrorKind::NotRunning)
    });
}

/// A peer that does with each request whatever its dice say.
fn moody_peer(seed: u64) -> Arc<str> {
    peer(move |number, mut wire| {
        let mut random = Random(seed.wrapping_add(number as u64));
        while let Some(request) = wire.next() {
            if request.is_oneway() {
                continue;
            }
            let reply = encoded(&echo_of(&request));
            let goes_on = match random.below(100) {
                0..80 => wire.send_bytes(&reply),
                80..85 => wire.send_bytes(&reply) && wire.send_bytes(&reply),
                85..92 => true,
                92..94 => wire.send(&RemotingCommand::response_to(&request, ResponseCode::GO_AWAY, None)),
                94 => wire.send_bytes(b"garbage, and more of it"),
                95 => {
                    wire.send_bytes(&reply[..random.below(reply.len())]);
                    false
                }
                96 => {
                    wait(Duration::from_millis(random.next() % 5));
                    wire.send_bytes(&reply)
                }
                _ => false,
            };
            if !goes_on {
                return;
            }
        }
    })
}

/// Outcomes of a storm of calls.
#[derive(Default)]
struct Tally {
    accepted: AtomicUsize,
    completed: AtomicUsize,
    answered: AtomicUsize,
    failed: AtomicUsize,
}

impl Tally {
    fn count(&self, outcome: &Outcome) {
        self.completed.fetch_add(1, Ordering::SeqCst);
        let by_outcome = if outcome.is_ok() { &self.answered } else { &self.failed };
        by_outcome.fetch_add(1, Ordering::SeqCst);
    }
}

/// Calls of all kinds from one thread, until `goes_on` says no.
fn storm(remoting: &Remoting, addresses: &[Arc<str>], tally: &Arc<Tally>, seed: u64, goes_on: impl Fn(usize) -> bool) {
    let mut random = Random(seed);
    for round in 0.. {
        if !goes_on(round) {
            return;
        }
        let address = &addresses[random.below(addresses.len())];
        let body = Bytes::from(vec![1; [10, 2000, 50_000][random.below(3)]]);
        let deadline = within(1 + random.next() % 40);
        match random.below(3) {
            0 => {
                tally.accepted.fetch_add(1, Ordering::SeqCst);
                tally.count(&remoting.invoke(address, request(&body), deadline));
            }
            1 => drop(remoting.invoke_oneway(address, request(&body), deadline)),
            _ => {
                tally.accepted.fetch_add(1, Ordering::SeqCst);
                let tally = Arc::clone(tally);
                let completion = Completion::new(move |outcome| tally.count(&outcome));
                remoting.invoke_async(address, request(&body), deadline, completion);
            }
        }
    }
}

#[test]
fn every_request_has_one_outcome_under_random_faults() {
    // Nearly all of it is waiting.
    thread::scope(|scope| {
        for first in 0..3 {
            let some_seeds = move || (first..12).step_by(3).for_each(random_faults);
            thread::Builder::new().spawn_scoped(scope, some_seeds).unwrap();
        }
    });
}

fn random_faults(seed: u64) {
    let (remoting, _thread) = start(RemotingConfig { silence_limit: Duration::from_millis(100), ..config() });
    let addresses = [moody_peer(seed), moody_peer(seed + 100), silent_peer(), dead_address()];
    let tally = Arc::new(Tally::default());
    thread::scope(|scope| {
        for thread in 0..4 {
            let (remoting, addresses, tally) = (&remoting, &addresses, &tally);
            let calls = move || storm(remoting, addresses, tally, seed * 10 + thread, |round| round < 60);
            thread::Builder::new().spawn_scoped(scope, calls).unwrap();
        }
    });
    let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    eventually("all are completed", || count(&tally.completed) >= count(&tally.accepted));
    for address in &addresses {
        eventually("the tables are empty", || {
            current(&remoting, address).is_none_or(|connection| connection.is_drained())
        });
    }
    assert_eq!(count(&tally.completed), count(&tally.accepted), "seed {seed}");
    assert!(count(&tally.answered) > 0 && count(&tally.failed) > 0, "seed {seed}");
}

#[test]
fn every_request_has_one_outcome_when_everything_is_stopped_at_any_moment() {
    let addresses = [echo_peer(), moody_peer(5), silent_peer(), dead_address()];
    for seed in 0..40 {
        let (remoting, mut thread) = start(config());
        let tally = Arc::new(Tally::default());
        let stopped = Arc::new(AtomicUsize::new(0));
        thread::scope(|scope| {
            for thread in 0..4 {
                let (remoting, addresses, tally, stopped) = (&remoting, &addresses, &tally, &stopped);
                let goes_on = move |_| stopped.load(Ordering::SeqCst) == 0;
                let calls = move || storm(remoting, addresses, tally, seed * 10 + thread, goes_on);
                thread::Builder::new().spawn_scoped(scope, calls).unwrap();
            }
            wait(Duration::from_micros(Random(seed).next() % 20_000));
            assert_eq!(thread.stop(soon()), Vec::<String>::new());
            stopped.store(1, Ordering::SeqCst);
        });
        // Nothing needs to be waited for: the selector has ended, and with it the last completion ran.
        let (accepted, completed) = (&tally.accepted, &tally.completed);
        assert_eq!(completed.load(Ordering::SeqCst), accepted.load(Ordering::SeqCst), "seed {seed}");
    }
}

/// Runs a test's body in a process of its own, for what is counted per process.
pub(super) fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "ROCKETMQ_SYNC_TEST_ALONE";
    let test = format!("remoting::tests::{test}");
    if std::env::var(ALONE).is_ok_and(|alone| alone == test) {
        return body();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([&test, "--exact", "--nocapture"])
        .env(ALONE, &test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(target_os = "linux")]
#[test]
fn two_hundred_starts_and_stops_leave_no_thread_and_no_descriptor() {
    alone("shutdown::two_hundred_starts_and_stops_leave_no_thread_and_no_descriptor", || {
        let entries = |directory: &str| std::fs::read_dir(directory).unwrap().count();
        let ours = || {
            let names = std::fs::read_dir("/proc/self/task")
                .unwrap()
                .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
            names.filter(|name| name.starts_with("rmq-")).count()
        };
        // A listener whose connections are handled by no thread and closed by this test alone.
        let (listener, address) = listener();
        let address: Arc<str> = address.to_string().into();
        let name: Arc<str> = format!("localhost:{}", address.rsplit_once(':').unwrap().1).into();
        let before = entries("/proc/self/fd");
        let mut handles = Vec::new();
        for round in 0..200 {
            let (remoting, mut thread) = start(config());
            remoting.invoke_oneway(&address, request(&Bytes::new()), soon()).unwrap();
            let _accepted = listener.accept().unwrap();
            if round % 10 == 0 {
                assert!(ping(&remoting, &name, within(20)).is_err());
            }
            // A thread that was waited for may be listed for a moment yet: the kernel wakes its waiter first.
            eventually("only this round's threads are there", || ours() == 1 + usize::from(round % 10 == 0));
            assert_eq!(thread.stop(soon()), Vec::<String>::new());
            // Handles that outlive the stop keep nothing open.
            handles.push(remoting);
        }
        eventually("no thread is left", || ours() == 0);
        assert_eq!(entries("/proc/self/fd"), before);
    });
}
