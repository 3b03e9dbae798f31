//! SIGPIPE at its default, as in a C host: no write of the library may raise it, whatever a peer does.

#![cfg(unix)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::LevelFilter;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{setsockopt, sockopt};
use rocketmq_sync::unversioned::wire::{FrameDecoder, RemotingCommand, RequestCode, ResponseCode};
use rocketmq_sync::{Client, Result};

use crate::alone::{alone, hear_log};
use crate::{PATIENCE, eventually};

/// End of a connection by a peer.
#[derive(Clone, Copy, Debug)]
enum End {
    Closes,
    Resets,
    /// The first write after this raises SIGPIPE reliably, if it can.
    ClosesAndResets,
}

#[test]
fn a_peer_that_closes_resets_or_does_both_ends_no_host_with_sigpipe() {
    alone("signals::a_peer_that_closes_resets_or_does_both_ends_no_host_with_sigpipe", || {
        // SAFETY: the default action is no handler; the process is this test's own.
        unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
        // While it is set, the selector's thread blocks in the logger, and cannot notice the end of a connection before
        // callers write.
        let hold = Arc::new(AtomicBool::new(false));
        let held = Arc::new(AtomicBool::new(false));
        let (holds, is_held) = (Arc::clone(&hold), Arc::clone(&held));
        hear_log(LevelFilter::Warn, move |_| {
            let is_selector = thread::current().name() == Some("rmq-remoting");
            while is_selector && holds.load(Ordering::SeqCst) {
                is_held.store(true, Ordering::SeqCst);
                thread::park_timeout(Duration::from_millis(1));
            }
        });
        let client = Client::builder().name_servers(["127.0.0.1:1"]).start().unwrap();
        for end in [End::Closes, End::Resets, End::ClosesAndResets] {
            for size in [10, 100_000] {
                let (peer, ends) = peer(end);
                ask(&client, peer, size, PATIENCE).unwrap();
                hold.store(true, Ordering::SeqCst);
                ask(&client, dead_address(), 0, Duration::from_millis(100)).unwrap_err();
                eventually("the selector stands still", || held.load(Ordering::SeqCst));
                let (done, is_done) = bounded(1);
                ends.send(done).unwrap();
                is_done.recv_timeout(PATIENCE).unwrap();
                for _ in 0..4 {
                    ask(&client, peer, size, Duration::from_millis(20)).unwrap_err();
                }
                hold.store(false, Ordering::SeqCst);
                held.store(false, Ordering::SeqCst);
                eventually("the peer is reached again", || ask(&client, peer, size, PATIENCE).is_ok());
            }
        }
    });
}

fn ask(client: &Client, address: SocketAddr, size: usize, timeout: Duration) -> Result<RemotingCommand> {
    let request = RemotingCommand::request(RequestCode::HEART_BEAT, &()).with_body(vec![7; size]);
    client.request(&address.to_string(), &request, timeout)
}

/// Peer that answers one request and, on command, ends that connection in this way; later connections are answered
/// without end.
fn peer(end: End) -> (SocketAddr, Sender<Sender<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (ends, told) = bounded(1);
    let accept = move || {
        let (mut socket, _) = listener.accept().unwrap();
        answer(&mut socket, 1);
        end_connection(socket, end, &told);
        while let Ok((mut socket, _)) = listener.accept() {
            thread::Builder::new().spawn(move || answer(&mut socket, usize::MAX)).unwrap();
        }
    };
    thread::Builder::new().spawn(accept).unwrap();
    (address, ends)
}

fn answer(socket: &mut TcpStream, requests: usize) {
    let (mut decoder, mut buffer) = (FrameDecoder::new(), vec![0; 64 * 1024]);
    let mut answered = 0;
    while answered < requests {
        let Some(request) = decoder.next_command().unwrap() else {
            match socket.read(&mut buffer) {
                Ok(count @ 1..) => decoder.push(&buffer[..count]),
                _ => return,
            }
            continue;
        };
        let mut bytes = Vec::new();
        RemotingCommand::response_to(&request, ResponseCode::SUCCESS, None).encode(&mut bytes).unwrap();
        socket.write_all(&bytes).unwrap();
        answered += 1;
    }
}

fn end_connection(socket: TcpStream, end: End, told: &Receiver<Sender<()>>) {
    let done = told.recv().unwrap();
    if matches!(end, End::ClosesAndResets) {
        socket.shutdown(Shutdown::Write).unwrap();
    }
    if !matches!(end, End::Closes) {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&socket, sockopt::Linger, &at_once).unwrap();
    }
    drop(socket);
    done.send(()).unwrap();
}

/// Address without a listener.
fn dead_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
