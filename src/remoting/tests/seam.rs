//! The byte-stream seam: a stand-in for TLS between connection and socket.

use std::io::{self, ErrorKind as IoErrorKind};

use super::super::transport::Transport;
use super::*;

/// One direction of a stream whose every byte is changed by a key that runs with it.
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
/// when it likes.
struct Scrambled {
    outgoing: Cipher,
    incoming: Cipher,
    held: Vec<u8>,
    random: Random,
    /// In percent of the calls.
    blocks: usize,
}

const MOST_HELD: usize = 20_000;
/// What it says at the end; it is the beginning of no frame.
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

/// The peer's end: answers what it reads, and says something every now and then, which wakes up whoever chose to block.
fn scrambled_peer(oneway: Sender<Bytes>, chatters: bool) -> Arc<str> {
    peer(move |_, mut wire| {
        // Else its words are held back until ours acknowledge the ones before, 40 ms each time.
        wire.socket.set_nodelay(true).unwrap();
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
