//! Remoting against peers made of plain sockets: what arrives, what is completed, and how often.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use crossbeam_channel::unbounded;

use super::transport::Plain;
use super::*;
use crate::wire::{ExtFields, FrameDecoder, ResponseCode};
use crate::worker::{StdThreads, Threads};

const PATIENCE: Duration = Duration::from_secs(20);

struct NoEvents;

impl RemotingEvents for NoEvents {
    fn requested(&self, _address: &Arc<str>, _request: RemotingCommand) -> Option<RemotingCommand> {
        None
    }
    fn connected(&self, _address: &Arc<str>) {}
    fn disconnected(&self, _address: &Arc<str>) {}
}

fn config() -> RemotingConfig {
    RemotingConfig {
        connect_timeout: Duration::from_secs(3),
        silence_limit: Duration::from_secs(10),
        outbox_limit: 32 * 1024 * 1024,
        encoding: HeaderEncoding::Json,
        resolve: Arc::new(SystemResolver),
        transport: Arc::new(|_| Ok(Box::new(Plain))),
    }
}

fn start(config: RemotingConfig) -> (Remoting, RemotingThread) {
    let threads = Threads::new(Arc::new(StdThreads), None);
    Remoting::start(config, &threads, Arc::new(NoEvents)).unwrap()
}

/// A peer that answers each request with its own body, on as many connections as come.
fn echo_peer() -> Arc<str> {
    peer(|request| Some(RemotingCommand::response_to(&request, ResponseCode::SUCCESS, None).with_body(request.body)))
}

fn peer(answer: impl Fn(RemotingCommand) -> Option<RemotingCommand> + Send + Sync + 'static) -> Arc<str> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    thread::Builder::new()
        .spawn(move || {
            for socket in listener.incoming() {
                let answer = Arc::clone(&answer);
                thread::Builder::new().spawn(move || serve(socket.unwrap(), &*answer)).unwrap();
            }
        })
        .unwrap();
    address.into()
}

fn serve(mut socket: TcpStream, answer: &dyn Fn(RemotingCommand) -> Option<RemotingCommand>) {
    let mut decoder = FrameDecoder::new();
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        decoder.push(&buffer[..count]);
        let mut out = BytesMut::new();
        while let Ok(Some(request)) = decoder.next_command() {
            if let Some(response) = answer(request) {
                response.encode(&mut out).unwrap();
            }
        }
        if socket.write_all(&out).is_err() {
            return;
        }
    }
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

#[test]
fn a_reply_comes_back_to_its_caller() {
    let (remoting, _thread) = start(config());
    let address = echo_peer();
    let body = Bytes::from_static(b"hello");
    let fields = ExtFields::new();
    let reply = remoting
        .invoke(&address, Request::new(RequestCode::SEND_MESSAGE_V2, &fields).with_body(&body), soon())
        .unwrap();
    assert_eq!(reply.body, body);
}

#[test]
fn many_threads_and_sizes_share_one_connection() {
    let (remoting, _thread) = start(config());
    let address = echo_peer();
    thread::scope(|scope| {
        for thread in 0_u8..8 {
            let (remoting, address) = (remoting.clone(), Arc::clone(&address));
            thread::Builder::new()
                .spawn_scoped(scope, move || {
                    for round in 0_usize..200 {
                        let size = if round % 50 == 7 { 200_000 } else { round * 7 };
                        let body = Bytes::from(vec![thread; size]);
                        let request = Request::new(RequestCode::SEND_MESSAGE_V2, &()).with_body(&body);
                        assert_eq!(remoting.invoke(&address, request, soon()).unwrap().body, body);
                    }
                })
                .unwrap();
        }
    });
}

#[test]
fn every_asynchronous_request_is_completed_once() {
    let (remoting, _thread) = start(config());
    let address = echo_peer();
    let (sender, outcomes) = unbounded();
    let body = Bytes::from_static(b"hello");
    for number in 0..5000 {
        let sender = sender.clone();
        let completion = Completion::new(move |outcome| sender.send((number, outcome.is_ok())).unwrap());
        let request = Request::new(RequestCode::SEND_MESSAGE_V2, &()).with_body(&body);
        remoting.invoke_async(&address, request, soon(), completion);
    }
    drop(sender);
    let mut seen: Vec<_> = outcomes.iter().collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..5000).map(|number| (number, true)).collect::<Vec<_>>());
}

#[test]
fn a_refused_dial_fails_the_call_at_once_and_names_the_address() {
    let (remoting, _thread) = start(config());
    let dead: Arc<str> = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string().into();
    let error = remoting.invoke(&dead, Request::new(RequestCode::HEART_BEAT, &()), soon()).unwrap_err();
    assert_eq!((error.kind, error.certainty), (ErrorKind::Connect, Certainty::NotSent));
    assert!(error.detail.contains(&*dead), "{}", error.detail);
    assert!(!remoting.is_reachable(&dead));
}

#[test]
fn a_call_without_a_reply_ends_at_its_deadline_as_unknown() {
    let (remoting, _thread) = start(config());
    let silent = peer(|_| None);
    let deadline = Instant::now() + Duration::from_millis(50);
    let error = remoting.invoke(&silent, Request::new(RequestCode::HEART_BEAT, &()), deadline).unwrap_err();
    assert_eq!((error.kind, error.certainty), (ErrorKind::Timeout, Certainty::Unknown));
    let (sender, outcomes) = unbounded();
    let completion = Completion::new(move |outcome| sender.send(outcome).unwrap());
    let deadline = Instant::now() + Duration::from_millis(50);
    remoting.invoke_async(&silent, Request::new(RequestCode::HEART_BEAT, &()), deadline, completion);
    let error = outcomes.recv_timeout(PATIENCE).unwrap().unwrap_err();
    assert_eq!((error.kind, error.phase), (ErrorKind::Timeout, Phase::Reply));
}

#[test]
fn stopping_completes_everything_pending_and_refuses_the_rest() {
    let (remoting, mut thread) = start(config());
    let silent = peer(|_| None);
    let (sender, outcomes) = unbounded();
    let completion = Completion::new(move |outcome| sender.send(outcome).unwrap());
    remoting.invoke_async(&silent, Request::new(RequestCode::HEART_BEAT, &()), soon(), completion);
    assert_eq!(thread.stop(soon()), Vec::<String>::new());
    assert_eq!(outcomes.recv_timeout(PATIENCE).unwrap().unwrap_err().kind, ErrorKind::NotRunning);
    let error = remoting.invoke(&silent, Request::new(RequestCode::HEART_BEAT, &()), soon()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotRunning);
}
