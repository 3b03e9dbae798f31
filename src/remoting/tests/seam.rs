//! The byte-stream seam: a stand-in for TLS between connection and socket.

use std::io::{self, ErrorKind as IoErrorKind};

use super::super::transport::Transport;
use super::*;

/// One direction of a stream whose every byte is changed by a key that runs with it.
#[derive(Debug)]
struct Cipher(Random);

impl Cipher {
    fn apply(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte ^= self.0.next().to_be_bytes()[0];
        }
    }
}

const TO_PEER: u64 = 1;
const FROM_PEER: u64 = 2;

/// Transforms both ways, takes a few bytes at a time, holds them back until it is flushed, and blocks or is interrupted
/// when it likes. Its handshake is to send [`HELLO`] and to read it.
#[derive(Debug)]
struct Scrambled {
    hello_sent: usize,
    hello_read: usize,
    outgoing: Cipher,
    incoming: Cipher,
    held: Vec<u8>,
    random: Random,
    /// In percent of the calls.
    blocks: usize,
}

const MOST_HELD: usize = 20_000;
/// Bytes of both sides before the first frame.
const HELLO: &[u8] = b"hello";
/// Last byte of both sides; it is the beginning of no frame.
const GOODBYE: &[u8] = &[0xFF];

impl Scrambled {
    fn blocks_now(&mut self) -> io::Result<()> {
        if self.random.chance(self.blocks) { Err(IoErrorKind::WouldBlock.into()) } else { Ok(()) }
    }

    fn is_interrupted_now(&mut self) -> io::Result<()> {
        if self.random.chance(self.blocks) { Err(IoErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

impl Transport for Scrambled {
    fn handshake(&mut self, mut socket: &mio::net::TcpStream) -> io::Result<()> {
        while self.hello_sent < HELLO.len() {
            self.hello_sent += socket.write(&HELLO[self.hello_sent..])?;
        }
        let mut byte = [0];
        while self.hello_read < HELLO.len() {
            match socket.read(&mut byte)? {
                1 if byte[0] == HELLO[self.hello_read] => self.hello_read += 1,
                1 => return Err(io::Error::new(IoErrorKind::InvalidData, "the peer speaks another language")),
                _ => return Err(IoErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(())
    }

    fn read(&mut self, mut socket: &mio::net::TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        self.is_interrupted_now()?;
        self.blocks_now()?;
        let most = 1 + self.random.below(buffer.len().min(40_000));
        let count = socket.read(&mut buffer[..most])?;
        self.incoming.apply(&mut buffer[..count]);
        Ok(count)
    }

    fn write(&mut self, socket: &mio::net::TcpStream, bytes: &[u8]) -> io::Result<usize> {
        self.is_interrupted_now()?;
        self.blocks_now()?;
        if self.held.len() >= MOST_HELD {
            self.flush(socket)?;
        }
        let count = 1 + self.random.below(bytes.len().min(5000));
        let start = self.held.len();
        self.held.extend_from_slice(&bytes[..count]);
        self.outgoing.apply(&mut self.held[start..]);
        Ok(count)
    }

    fn flush(&mut self, mut socket: &mio::net::TcpStream) -> io::Result<()> {
        while !self.held.is_empty() {
            self.blocks_now()?;
            let most = 1 + self.random.below(self.held.len());
            let count = socket.write(&self.held[..most])?;
            self.held.drain(..count);
        }
        Ok(())
    }

    fn close(&mut self, mut socket: &mio::net::TcpStream) {
        let mut last = GOODBYE.to_vec();
        self.outgoing.apply(&mut last);
        let _ = socket.write(&last);
    }

    fn is_plain(&self) -> bool {
        false
    }
}

/// The peer's end of the handshake.
fn greet(wire: &mut Wire) {
    assert_eq!(read_hello(wire), HELLO);
    assert!(wire.send_bytes(HELLO));
}

fn read_hello(wire: &mut Wire) -> Vec<u8> {
    let mut hello = vec![0; HELLO.len()];
    wire.socket.read_exact(&mut hello).unwrap();
    hello
}

/// The peer's end: answers what it reads, and says something every now and then, which wakes up a transport that chose
/// to block.
fn scrambled_peer(oneway: Sender<Bytes>, chatters: bool) -> Arc<str> {
    peer(move |_, mut wire| {
        // Else its words are held back until ours acknowledge the ones before, 40 ms each time.
        wire.socket.set_nodelay(true).unwrap();
        greet(&mut wire);
        let mut incoming = Cipher(Random(TO_PEER));
        let outgoing = Arc::new(Mutex::new((wire.socket.try_clone().unwrap(), Cipher(Random(FROM_PEER)))));
        let chatter = Arc::clone(&outgoing);
        if chatters {
            spawn(move || {
                let chat = encoded(&RemotingCommand::request(RequestCode::HEART_BEAT, &()).oneway());
                while send_scrambled(&chatter, chat.clone()) {
                    wait(Duration::from_millis(1));
                }
            });
        }
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = wire.socket.read(&mut buffer) {
            incoming.apply(&mut buffer[..count]);
            wire.decoder.push(&buffer[..count]);
            while let Some(request) = wire.decoder.next_command().unwrap() {
                if request.is_oneway() {
                    let _ = oneway.send(request.body);
                } else if !send_scrambled(&outgoing, encoded(&echo_of(&request))) {
                    return;
                }
            }
        }
        let _ = wire.socket.shutdown(std::net::Shutdown::Both);
    })
}

fn send_scrambled(outgoing: &Mutex<(TcpStream, Cipher)>, mut bytes: Vec<u8>) -> bool {
    let (socket, cipher) = &mut *outgoing.lock();
    cipher.apply(&mut bytes);
    socket.write_all(&bytes).is_ok()
}

fn scrambling(seed: u64, blocks: usize) -> RemotingConfig {
    let transport = move |_: &str| {
        let scrambled = Scrambled {
            hello_sent: 0,
            hello_read: 0,
            outgoing: Cipher(Random(TO_PEER)),
            incoming: Cipher(Random(FROM_PEER)),
            held: Vec::new(),
            random: Random(seed),
            blocks,
        };
        Ok(Box::new(scrambled) as Box<dyn Transport>)
    };
    RemotingConfig { transport: Arc::new(transport), ..config() }
}

#[test]
fn every_kind_of_call_goes_through_a_transport_that_transforms_holds_back_and_blocks() {
    for (seed, blocks) in [(1, 0), (2, 5), (3, 25)] {
        let (remoting, _thread) = start(scrambling(seed, blocks));
        let (sender, oneway) = unbounded();
        let address = scrambled_peer(sender, blocks > 0);
        let (sender, outcomes) = unbounded();
        let sizes = |round: u32| [3, 900, 5000, 33_000, 100_000][usize::try_from(round).unwrap() % 5];
        thread::scope(|scope| {
            for thread in 0..3_u8 {
                let (remoting, address, sender) = (remoting.clone(), Arc::clone(&address), sender.clone());
                let body = move |round| Bytes::from(vec![thread; sizes(round)]);
                let calls = move || {
                    for round in 0..10 {
                        remoting.invoke_async(&address, request(&body(round)), soon(), report(&sender, body(round)));
                        let reply = remoting.invoke(&address, request(&body(round + 1)), soon()).unwrap();
                        assert!(reply.body == body(round + 1));
                        remoting.invoke_oneway(&address, request(&body(round)), soon()).unwrap();
                    }
                };
                thread::Builder::new().spawn_scoped(scope, calls).unwrap();
            }
        });
        drop(sender);
        assert_eq!(outcomes.iter().filter(|(body, outcome)| outcome.as_ref().unwrap().body == *body).count(), 30);
        for _ in 0..30 {
            oneway.recv_timeout(PATIENCE).unwrap();
        }
    }
}

#[test]
fn behind_a_transport_that_holds_back_nothing_is_told_as_not_sent_that_may_leave() {
    let (remoting, _thread) = start(scrambling(4, 0));
    let (release, released) = unbounded::<()>();
    let (bodies, arrived) = unbounded();
    let address = peer(move |_, mut wire| {
        greet(&mut wire);
        let _ = released.recv();
        let mut incoming = Cipher(Random(TO_PEER));
        let mut buffer = [0; 65536];
        while let Ok(count @ 1..) = wire.socket.read(&mut buffer) {
            incoming.apply(&mut buffer[..count]);
            wire.decoder.push(&buffer[..count]);
            while let Some(request) = wire.decoder.next_command().unwrap() {
                bodies.send(request.body.first().copied()).unwrap();
            }
        }
    });
    let (sender, outcomes) = unbounded();
    for number in 0..200 {
        let body = Bytes::from(vec![number; 100_000]);
        remoting.invoke_async(&address, request(&body), within(300), report(&sender, number));
    }
    let mut unknown = Vec::new();
    for _ in 0..200 {
        let (number, outcome) = outcomes.recv_timeout(PATIENCE).unwrap();
        if outcome.unwrap_err().certainty == Certainty::Unknown {
            unknown.push(number);
        }
    }
    assert!((1..200).contains(&unknown.len()), "{}", unknown.len());
    remoting.invoke_oneway(&address, request(&Bytes::from_static(&[255])), soon()).unwrap();
    release.send(()).unwrap();
    let mut seen: Vec<_> =
        std::iter::from_fn(|| arrived.recv_timeout(PATIENCE).unwrap()).take_while(|number| *number != 255).collect();
    seen.sort_unstable();
    unknown.sort_unstable();
    assert_eq!(seen, unknown);
}

#[test]
fn a_transport_may_say_goodbye() {
    let (remoting, mut thread) = start(scrambling(5, 0));
    let (sender, read) = unbounded();
    let address = peer(move |_, mut wire| {
        greet(&mut wire);
        let mut bytes = Vec::new();
        wire.socket.read_to_end(&mut bytes).unwrap();
        Cipher(Random(TO_PEER)).apply(&mut bytes);
        sender.send(bytes).unwrap();
    });
    remoting.invoke_oneway(&address, request(&Bytes::new()), soon()).unwrap();
    eventually("it has left", || current(&remoting, &address).unwrap().unsent() == 0);
    thread.stop(soon());
    let read = read.recv_timeout(PATIENCE).unwrap();
    assert_eq!(read.iter().position(|byte| *byte == GOODBYE[0]), Some(read.len() - 1));
}

#[test]
fn a_transport_that_cannot_be_made_fails_the_call_as_not_sent() {
    let refuses = |_: &str| Err(io::Error::other("no certificate"));
    let (remoting, _thread) = start(RemotingConfig { transport: Arc::new(refuses), ..config() });
    let error = ping(&remoting, &echo_peer(), soon()).unwrap_err();
    assert_eq!((error.kind, error.certainty), (ErrorKind::Connect, Certainty::NotSent));
    assert!(error.detail.contains("no certificate"), "{}", error.detail);
}

/// A transport that waits for [`HELLO`] of the peer and then leaves the bytes as they are.
#[derive(Debug, Default)]
struct Greeted {
    read: usize,
}

impl Transport for Greeted {
    fn handshake(&mut self, mut socket: &mio::net::TcpStream) -> io::Result<()> {
        let mut byte = [0];
        while self.read < HELLO.len() {
            match socket.read(&mut byte)? {
                1 if byte[0] == HELLO[self.read] => self.read += 1,
                1 => return Err(io::Error::new(IoErrorKind::InvalidData, "the peer speaks another language")),
                _ => return Err(IoErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(())
    }

    fn read(&mut self, socket: &mio::net::TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        Plain.read(socket, buffer)
    }

    fn write(&mut self, socket: &mio::net::TcpStream, bytes: &[u8]) -> io::Result<usize> {
        Plain.write(socket, bytes)
    }

    fn flush(&mut self, _: &mio::net::TcpStream) -> io::Result<()> {
        Ok(())
    }

    fn close(&mut self, _: &mio::net::TcpStream) {}

    fn is_plain(&self) -> bool {
        true
    }
}

fn greeted() -> RemotingConfig {
    RemotingConfig { transport: Arc::new(|_| Ok(Box::<Greeted>::default() as Box<dyn Transport>)), ..config() }
}

#[test]
fn before_the_handshake_is_done_nothing_is_sent_and_no_oneway_request_is_accepted() {
    let told = Arc::new(Told::default());
    let (remoting, _thread) = start_with(greeted(), Arc::clone(&told) as _);
    let (greet, may_greet) = unbounded::<()>();
    let (sender, arrived) = unbounded();
    let address = peer(move |_, mut wire| {
        let _ = may_greet.recv();
        // Half of it, so that the handshake goes on with a later event.
        wire.send_bytes(&HELLO[..2]);
        wait(Duration::from_millis(20));
        wire.send_bytes(&HELLO[2..]);
        while let Some(request) = wire.next() {
            sender.send(request.body.clone()).unwrap();
            if !request.is_oneway() {
                wire.send(&echo_of(&request));
            }
        }
    });
    let not_sent = (ErrorKind::Timeout, Phase::Connect, Certainty::NotSent);
    let of = |error: CallError| (error.kind, error.phase, error.certainty);
    let body = Bytes::from_static(b"too early");
    assert_eq!(of(remoting.invoke(&address, request(&body), within(50)).unwrap_err()), not_sent);
    assert_eq!(of(remoting.invoke_oneway(&address, request(&body), within(50)).unwrap_err()), not_sent);
    let (sender, outcomes) = unbounded();
    remoting.invoke_async(&address, request(&body), within(50), report(&sender, 0));
    assert_eq!(of(outcomes.recv_timeout(PATIENCE).unwrap().1.unwrap_err()), not_sent);
    assert!(!remoting.is_connected(&address));
    assert_eq!(told.connected.load(Ordering::SeqCst), 0);

    let body = Bytes::from_static(b"waits for the handshake");
    remoting.invoke_async(&address, request(&body), soon(), report(&sender, 1));
    greet.send(()).unwrap();
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap().1.unwrap().body, body);
    assert!(remoting.is_connected(&address));
    remoting.invoke_oneway(&address, request(&Bytes::from_static(b"later")), soon()).unwrap();
    let bodies: Vec<_> = (0..2).map(|_| arrived.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(bodies, [body, Bytes::from_static(b"later")]);
    assert_eq!(told.connected.load(Ordering::SeqCst), 1);
}

#[test]
fn a_request_of_the_peer_right_behind_its_handshake_is_served() {
    let (remoting, _thread) = start(greeted());
    let (sender, responses) = unbounded();
    let address = peer(move |_, mut wire| {
        let asked = RemotingCommand::request(RequestCode::GET_CONSUMER_RUNNING_INFO, &()).with_body("asked");
        wire.send_bytes(&[HELLO, &encoded(&asked)].concat());
        // The client's own request may come first.
        sender.send(std::iter::from_fn(|| wire.next()).find(RemotingCommand::is_response).unwrap()).unwrap();
    });
    remoting.invoke_async(&address, request(&Bytes::new()), soon(), Completion::new(drop));
    assert_eq!(responses.recv_timeout(PATIENCE).unwrap().body, "asked");
}

#[test]
fn the_connect_timeout_covers_the_handshake() {
    let (remoting, _thread) = start(RemotingConfig { connect_timeout: Duration::from_millis(200), ..scrambling(6, 0) });
    let (sender, read) = unbounded();
    let address = peer(move |_, mut wire| {
        let mut bytes = Vec::new();
        let _ = wire.socket.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    let begun = Instant::now();
    let error = ping(&remoting, &address, soon()).unwrap_err();
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!((error.kind, error.phase, error.certainty), (ErrorKind::Connect, Phase::Connect, Certainty::NotSent));
    assert!(error.detail.starts_with(&format!("handshake with {address} failed: ")), "{}", error.detail);
    assert_eq!(read.recv_timeout(PATIENCE).unwrap(), HELLO, "no byte of a frame");
}

#[test]
fn a_handshake_that_fails_names_its_cause() {
    let (remoting, _thread) = start(scrambling(7, 0));
    let address = peer(|_, mut wire| {
        read_hello(&mut wire);
        wire.send_bytes(b"HTTP/1.1 400");
        wire.swallow();
    });
    let error = ping(&remoting, &address, soon()).unwrap_err();
    assert_eq!((error.kind, error.certainty), (ErrorKind::Connect, Certainty::NotSent));
    let error = Error::from(error);
    assert_eq!(error.detail(), format!("handshake with {address} failed: the peer speaks another language"));
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.kind(), IoErrorKind::InvalidData);
}

/// Else a name of two addresses would not be reached for as long as its first one accepts connections.
#[test]
fn after_a_failed_handshake_the_next_address_of_the_name_is_tried() {
    #[derive(Debug)]
    struct Two([SocketAddr; 2]);
    impl Resolve for Two {
        fn resolve(&self, _: &str) -> io::Result<Vec<SocketAddr>> {
            Ok(self.0.to_vec())
        }
    }
    let silent = silent_peer().parse().unwrap();
    let greets = peer(|_, mut wire| {
        wire.send_bytes(HELLO);
        wire.echo();
    });
    let resolve = Arc::new(Two([silent, greets.parse().unwrap()]));
    let (remoting, _thread) =
        start(RemotingConfig { resolve, connect_timeout: Duration::from_millis(600), ..greeted() });
    assert!(ping(&remoting, &Arc::from("broker.example:10911"), soon()).is_ok());
}

#[test]
fn a_connection_that_is_refused_or_lost_names_its_cause() {
    let (remoting, _thread) = start(config());
    let refused = Error::from(ping(&remoting, &dead_address(), soon()).unwrap_err());
    let cause = |error: &Error| Some(std::error::Error::source(error)?.downcast_ref::<io::Error>()?.kind());
    assert_eq!(cause(&refused), Some(IoErrorKind::ConnectionRefused));
    assert!(refused.detail().starts_with("connecting to "), "{refused}");
}
