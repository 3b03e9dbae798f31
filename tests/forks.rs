//! A process that forks: its child cannot use the parent's clients and is told so, and makes clients of its own.
//!
//! One test alone in its process: of all threads only the one that forks lives on in the child.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rocketmq_sync::mini_broker::MiniBroker;
use rocketmq_sync::{Completions, ErrorKind, Message, Producer};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_forked_child_is_told_that_the_client_is_its_parents_and_has_ids_of_its_own() {
    let mini = MiniBroker::start().unwrap();
    mini.create_topic("T", 1);
    let parents = Producer::builder("P").name_servers(mini.name_servers()).start().unwrap();
    parents.send(&Message::new("T", "before")).unwrap();
    // SAFETY: the child calls the library and ends with `exit`; it touches nothing that another thread of the parent
    // may have locked: the mini broker's threads idle, and the client's own answer with an error before they lock.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => process::exit(i32::from(!in_the_child(&mini.name_servers(), &parents))),
        ForkResult::Parent { child } => assert_eq!(ended(child), WaitStatus::Exited(child, 0)),
    }
    parents.send(&Message::new("T", "after")).unwrap();
    let messages = mini.messages("T");
    let bodies: Vec<_> = messages.iter().map(|message| String::from_utf8_lossy(message.body()).into_owned()).collect();
    assert_eq!(bodies, ["before", "child", "after"]);
    let ids: BTreeSet<_> = messages.iter().map(|message| message.msg_id().into_owned()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(parents.shutdown(PATIENCE).is_clean());
}

/// Whether all is as it should be there.
fn in_the_child(name_servers: &[String], parents: &Producer) -> bool {
    let refused = |kind| kind == ErrorKind::Forked;
    let message = || Message::new("T", "never");
    let completions = Completions::new();
    refused(parents.send(&message()).unwrap_err().kind())
        && refused(parents.send_oneway(&message()).unwrap_err().kind())
        && refused(parents.send_tracked(message(), 0, &completions).unwrap_err().error.kind())
        && {
            let own = Producer::builder("P").name_servers(name_servers).start().unwrap();
            own.send(&Message::new("T", "child")).is_ok() && own.shutdown(PATIENCE).is_clean()
        }
}

/// How the child ended; a child that hangs is killed.
fn ended(child: Pid) -> WaitStatus {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive => thread::park_timeout(Duration::from_millis(10)),
            status => return status,
        }
    }
    kill(child, Signal::SIGKILL).unwrap();
    waitpid(child, None).unwrap()
}
