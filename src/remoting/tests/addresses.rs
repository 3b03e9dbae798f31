//! Names with several addresses, resolvers that fail or hang, back-off and recovery.

use std::collections::VecDeque;
use std::io;

use super::resolver::MOST_THREADS;
use super::*;

/// A resolver that plays a script: what each call in turn does; the last entry stays.
struct Scripted {
    answers: Mutex<VecDeque<Answer>>,
    asked: AtomicUsize,
}

#[derive(Clone)]
enum Answer {
    Addresses(Vec<SocketAddr>),
    Fails,
    Panics,
    /// Until the sender is dropped.
    Hangs(Receiver<()>),
}

impl Resolve for Scripted {
    fn resolve(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        assert!(host_and_port.ends_with(":9876"), "{host_and_port}");
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = {
            let mut answers = self.answers.lock();
            let first = answers.front().cloned().unwrap();
            if answers.len() > 1 {
                answers.pop_front();
            }
            first
        };
        match answer {
            Answer::Addresses(addresses) => Ok(addresses),
            Answer::Fails => Err(io::Error::other("no such host")),
            Answer::Panics => panic!("a bad resolver"),
            Answer::Hangs(until) => {
                let _ = until.recv();
                Err(io::Error::other("hung"))
            }
        }
    }
}

fn resolver(answers: impl IntoIterator<Item = Answer>) -> Arc<Scripted> {
    Arc::new(Scripted { answers: Mutex::new(answers.into_iter().collect()), asked: AtomicUsize::new(0) })
}

fn with(resolve: &Arc<Scripted>) -> RemotingConfig {
    RemotingConfig { resolve: Arc::clone(resolve) as _, ..config() }
}

fn name() -> Arc<str> {
    "broker.example:9876".into()
}

fn socket_address(address: &str) -> SocketAddr {
    address.parse().unwrap()
}

#[test]
fn all_addresses_of_a_name_are_tried_in_turn() {
    let addresses = [dead_address(), dead_address(), echo_peer()].map(|address| socket_address(&address));
    let (remoting, _thread) = start(with(&resolver([Answer::Addresses(addresses.to_vec())])));
    ping(&remoting, &name(), soon()).unwrap();
}

#[test]
fn a_name_is_resolved_anew_at_each_dial() {
    let answers = (0..4).map(|_| {
        let once = peer(|_, mut wire| {
            let request = wire.next().unwrap();
            wire.send(&echo_of(&request));
        });
        Answer::Addresses(vec![socket_address(&once)])
    });
    let resolver = resolver(answers);
    let (remoting, _thread) = start(with(&resolver));
    for dials in 1..=4 {
        ping(&remoting, &name(), soon()).unwrap();
        assert_eq!(resolver.asked.load(Ordering::SeqCst), dials);
        eventually("the connection is closed", || current(&remoting, &name()).is_none());
    }
}

#[test]
fn a_name_that_cannot_be_resolved_fails_the_call_at_once() {
    for (answer, words) in
        [(Answer::Fails, "no such host"), (Answer::Panics, "panicked"), (Answer::Addresses(Vec::new()), "no address")]
    {
        let (remoting, _thread) = start(with(&resolver([answer])));
        let error = ping(&remoting, &name(), soon()).unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Resolve | ErrorKind::Connect), "{error:?}");
        assert_eq!((error.phase, error.certainty), (Phase::Connect, Certainty::NotSent));
        assert!(error.detail.contains(words) && error.detail.contains(&*name()), "{}", error.detail);
    }
}

#[test]
fn after_a_panic_of_the_resolver_the_next_dial_is_resolved() {
    let alive = Answer::Addresses(vec![socket_address(&echo_peer())]);
    let resolver = resolver([Answer::Panics, alive]);
    let (remoting, _thread) = start(with(&resolver));
    // Fails, unless the panic is so fast that the request is handed to the next dial already.
    let _ = ping(&remoting, &name(), soon());
    ping(&remoting, &name(), soon()).unwrap();
    assert_eq!(resolver.asked.load(Ordering::SeqCst), 2);
}

#[test]
fn a_resolver_that_hangs_holds_up_nobody_else_and_no_deadline() {
    let (release, hangs) = unbounded();
    let resolver = resolver([Answer::Hangs(hangs), Answer::Addresses(vec![socket_address(&echo_peer())])]);
    let (remoting, _thread) = start(RemotingConfig { connect_timeout: Duration::from_secs(2), ..with(&resolver) });
    let error = ping(&remoting, &name(), within(50)).unwrap_err();
    assert_eq!((error.kind, error.phase), (ErrorKind::Timeout, Phase::Connect));
    assert_eq!(error.certainty, Certainty::NotSent);
    let (sender, outcomes) = unbounded();
    remoting.invoke_async(&name(), request(&Bytes::new()), within(50), report(&sender, ()));
    remoting.invoke_async(&name(), request(&Bytes::new()), soon(), report(&sender, ()));
    ping(&remoting, &echo_peer(), soon()).unwrap();
    let errors: Vec<_> = (0..2).map(|_| outcomes.recv_timeout(PATIENCE).unwrap().1.unwrap_err().kind).collect();
    assert_eq!(errors, [ErrorKind::Timeout, ErrorKind::Resolve]);
    drop(release);
    eventually("the name is resolved again", || ping(&remoting, &name(), soon()).is_ok());
}

#[test]
fn what_expired_while_its_name_was_resolved_is_not_sent_later() {
    let (release, hangs) = unbounded();
    let (bodies, arrived) = unbounded();
    let alive = peer(move |_, mut wire| {
        while let Some(request) = wire.next() {
            bodies.send(request.body.clone()).unwrap();
            wire.send(&echo_of(&request));
        }
    });
    struct Slow(Receiver<()>, SocketAddr);
    impl Resolve for Slow {
        fn resolve(&self, _: &str) -> io::Result<Vec<SocketAddr>> {
            let _ = self.0.recv();
            Ok(vec![self.1])
        }
    }
    let resolve = Arc::new(Slow(hangs, socket_address(&alive)));
    let (remoting, _thread) = start(RemotingConfig { resolve, ..config() });
    let (sender, outcomes) = unbounded();
    for number in 0..20 {
        let deadline = if number % 2 == 0 { within(50) } else { soon() };
        let body = Bytes::from(vec![number; 50_000]);
        remoting.invoke_async(&name(), request(&body), deadline, report(&sender, number));
    }
    assert_eq!(ping(&remoting, &name(), within(50)).unwrap_err().certainty, Certainty::NotSent);
    for _ in 0..10 {
        let (number, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
        assert_eq!((number % 2, outcome.unwrap_err().certainty), (0, Certainty::NotSent));
    }
    drop(release);
    for _ in 0..10 {
        let (number, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
        assert_eq!((number % 2, outcome.unwrap().body[0]), (1, number));
    }
    let arrived: Vec<_> = arrived.try_iter().map(|body| body[0]).collect();
    assert_eq!(arrived, [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]);
}

#[test]
fn a_name_that_hangs_holds_up_no_other_name() {
    struct Book(Receiver<()>, SocketAddr, AtomicUsize);
    impl Resolve for Book {
        fn resolve(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
            if host_and_port.starts_with("hangs") {
                self.2.fetch_add(1, Ordering::SeqCst);
                let _ = self.0.recv();
            }
            Ok(vec![self.1])
        }
    }
    let (release, hangs) = unbounded();
    let resolve = Arc::new(Book(hangs, socket_address(&echo_peer()), AtomicUsize::new(0)));
    let config = RemotingConfig { connect_timeout: Duration::from_millis(50), ..config() };
    let (remoting, _thread) = start(RemotingConfig { resolve: Arc::clone(&resolve) as _, ..config });
    // However often it is dialled, it has one thread; so the others have theirs.
    for _ in 0..2 * MOST_THREADS {
        assert_eq!(ping(&remoting, &"hangs.example:1".into(), soon()).unwrap_err().certainty, Certainty::NotSent);
    }
    eventually("the others are resolved", || ping(&remoting, &"fine.example:1".into(), soon()).is_ok());
    assert_eq!(resolve.2.load(Ordering::SeqCst), 1);
    drop(release);
    eventually("it is resolved in the end", || ping(&remoting, &"hangs.example:1".into(), soon()).is_ok());
}

#[test]
fn stopping_names_a_resolver_that_cannot_be_ended() {
    let (release, hangs) = unbounded();
    let resolver = resolver([Answer::Hangs(hangs)]);
    let (remoting, mut thread) = start(with(&resolver));
    let (sender, outcomes) = unbounded();
    for number in 0..MOST_THREADS + 2 {
        let name = format!("broker-{number}.example:9876").into();
        remoting.invoke_async(&name, request(&Bytes::new()), soon(), report(&sender, number));
    }
    eventually("the resolver is asked", || resolver.asked.load(Ordering::SeqCst) == MOST_THREADS);
    let names: Vec<_> = (0..MOST_THREADS).map(|number| format!("rmq-resolve-{number}")).collect();
    assert_eq!(thread.stop(soon()), names);
    for _ in 0..MOST_THREADS + 2 {
        assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap().1.unwrap_err().kind, ErrorKind::NotRunning);
    }
    drop(release);
    assert_eq!(resolver.asked.load(Ordering::SeqCst), MOST_THREADS, "questions are asked that nobody waits for");
}

#[test]
fn an_outage_costs_few_dials_and_ends_with_the_first_that_succeeds() {
    let dead = Answer::Addresses(vec![socket_address(&dead_address())]);
    let resolver = resolver([dead]);
    let told = Arc::new(Told::default());
    let (remoting, _thread) = start_with(with(&resolver), Arc::clone(&told) as _);
    let begun = Instant::now();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (remoting, resolver) = (remoting.clone(), Arc::clone(&resolver));
            spawn(move || {
                // On a busy machine the second dial comes later than a second.
                let is_seen = || resolver.asked.load(Ordering::SeqCst) >= 2;
                while begun.elapsed() < Duration::from_secs(1) || (!is_seen() && begun.elapsed() < PATIENCE) {
                    assert!(ping(&remoting, &name(), soon()).is_err());
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().unwrap();
    }
    let dials = resolver.asked.load(Ordering::SeqCst);
    // On a machine that is busy the callers may end late.
    let most = 9 * begun.elapsed().as_secs();
    assert!((2..=most).contains(&(dials as u64)), "{dials} of {most} dials");
    assert_eq!(told.disconnected.load(Ordering::SeqCst), dials);
    assert!(!remoting.is_reachable(&name()));
    *resolver.answers.lock() = [Answer::Addresses(vec![socket_address(&echo_peer())])].into();
    eventually("the peer is back", || ping(&remoting, &name(), soon()).is_ok());
    assert!(remoting.is_reachable(&name()));
    assert_eq!(told.connected.load(Ordering::SeqCst), 1);
}

fn mapped_by(map: impl Fn(&str) -> String + Send + Sync + 'static) -> RemotingConfig {
    RemotingConfig { address_map: Some(Arc::new(map)), ..config() }
}

#[test]
fn a_mapped_address_is_dialled_in_the_place_of_the_one_that_is_asked_for() {
    let alive = echo_peer();
    let (to, asked) = (alive.to_string(), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&asked);
    let map = move |address: &str| {
        seen.lock().push((address.to_owned(), thread::current().name().map(str::to_owned)));
        to.clone()
    };
    let server = echo_peer();
    let config = RemotingConfig { unmapped: vec![Arc::clone(&server)], ..mapped_by(map) };
    let (remoting, _thread) = start(config);
    ping(&remoting, &"10.0.0.1:10911".into(), soon()).unwrap();
    ping(&remoting, &server, soon()).unwrap();
    let expected = [("10.0.0.1:10911".to_owned(), Some("rmq-resolve-0".to_owned()))];
    assert_eq!(*asked.lock(), expected);
}

#[test]
fn a_dial_that_fails_names_both_addresses() {
    let dead = dead_address();
    let to = dead.to_string();
    let (remoting, _thread) = start(mapped_by(move |_| to.clone()));
    let error = ping(&remoting, &"10.0.0.1:10911".into(), soon()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Connect);
    assert!(error.detail.contains(&format!("10.0.0.1:10911 (mapped to {dead})")), "{}", error.detail);
    let fails = resolver([Answer::Fails]);
    let config = RemotingConfig { resolve: fails, ..mapped_by(|_| "broker.example:9876".to_owned()) };
    let (remoting, _thread) = start(config);
    let error = ping(&remoting, &"10.0.0.1:10911".into(), soon()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Resolve);
    assert!(error.detail.contains("10.0.0.1:10911 (mapped to broker.example:9876)"), "{}", error.detail);
}

#[test]
fn an_address_map_that_panics_or_hangs_fails_its_own_dial_and_nothing_else() {
    let (release, hangs) = unbounded::<()>();
    let alive = echo_peer();
    let map = move |address: &str| match address {
        "hangs:1" => {
            let _ = hangs.recv();
            "127.0.0.1:1".to_owned()
        }
        "panics:1" => panic!("a bad map"),
        other => other.to_owned(),
    };
    let config = RemotingConfig { connect_timeout: Duration::from_millis(300), ..mapped_by(map) };
    let (remoting, _thread) = start(config);
    let (sender, outcomes) = unbounded();
    remoting.invoke_async(&"hangs:1".into(), request(&Bytes::new()), soon(), report(&sender, ()));
    let error = ping(&remoting, &"panics:1".into(), soon()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Resolve);
    assert!(error.detail.contains("a bad map") && error.detail.contains("panics:1"), "{}", error.detail);
    ping(&remoting, &alive, soon()).unwrap();
    let error = outcomes.recv_timeout(PATIENCE).unwrap().1.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Resolve);
    assert!(error.detail.contains("address map"), "{}", error.detail);
    drop(release);
}

/// A host that starts threads itself: never on the selector, which a starter that blocks would hold up.
#[test]
fn a_hosts_starter_is_called_for_resolver_threads_on_a_thread_of_its_own() {
    let callers = Arc::new(Mutex::new(Vec::new()));
    struct Host(Arc<Mutex<Vec<(String, String)>>>);
    impl crate::worker::ThreadStarter for Host {
        fn start(
            &self,
            spec: &crate::worker::ThreadSpec,
            body: crate::worker::ThreadBody,
        ) -> io::Result<crate::worker::ThreadJoin> {
            let caller = thread::current().name().unwrap_or_default().to_owned();
            self.0.lock().push((spec.name.clone(), caller));
            crate::worker::StdThreads.start(spec, body)
        }
    }
    let own = thread::current().name().unwrap_or_default().to_owned();
    let threads = Threads::new(Some(Arc::new(Host(Arc::clone(&callers)))), None);
    let resolver = resolver([Answer::Addresses(vec![socket_address(&echo_peer())])]);
    let (remoting, mut thread) = Remoting::start(with(&resolver), &threads, Arc::new(Told::default())).unwrap();
    ping(&remoting, &name(), soon()).unwrap();
    let started = |name: &str, by: &str| (name.to_owned(), by.to_owned());
    let expected =
        [started("rmq-starter", &own), started("rmq-remoting", &own), started("rmq-resolve-0", "rmq-starter")];
    assert_eq!(*callers.lock(), expected);
    assert_eq!(thread.stop(soon()), Vec::<String>::new());
}
