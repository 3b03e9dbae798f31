//! A forking process: its child cannot use the parent's clients, gets an error, and creates its own clients.
//!
//! The only test in its process: of all threads only the forking one is alive in the child.

#![cfg(unix)]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rocketmq_sync::mini_broker::MiniBroker;
use rocketmq_sync::{Completions, ErrorKind, FilterExpression, Message, MessageQueue, Producer, PushConsumer};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_forked_child_is_told_that_the_client_is_its_parents_and_has_ids_of_its_own() {
    let mini = MiniBroker::start().unwrap();
    mini.create_topic("T", 1);
    let parents = Parents::start(&mini);
    parents.producer.send(&Message::new("T", "before")).unwrap();
    // SAFETY: the child calls the library and ends with `exit`; it touches nothing that another thread of the parent
    // may have locked: the mini broker's threads idle, and the client's own answer with an error before they lock.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let is_right = parents.are_refused() && an_own_producer_works(&mini.name_servers());
            process::exit(i32::from(!is_right))
        }
        ForkResult::Parent { child } => assert_eq!(ended(child), WaitStatus::Exited(child, 0)),
    }
    parents.producer.send(&Message::new("T", "after")).unwrap();
    let messages = mini.messages("T");
    let bodies: Vec<_> = messages.iter().map(|message| String::from_utf8_lossy(message.body()).into_owned()).collect();
    assert_eq!(bodies, ["before", "child", "after"]);
    let ids: BTreeSet<_> = messages.iter().map(|message| message.msg_id().into_owned()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    parents.fork_among_busy_threads();
    assert!(parents.consumer.shutdown(PATIENCE).is_clean());
    assert!(parents.producer.shutdown(PATIENCE).is_clean());
}

fn an_own_producer_works(name_servers: &[String]) -> bool {
    let own = Producer::builder("P").name_servers(name_servers).start().unwrap();
    own.send(&Message::new("T", "child")).is_ok() && own.shutdown(PATIENCE).is_clean()
}

/// Clients and members of the parent, which its child must not use.
struct Parents {
    producer: Producer,
    consumer: PushConsumer,
    completions: Completions,
}

impl Parents {
    fn start(mini: &MiniBroker) -> Self {
        let producer = Producer::builder("P").name_servers(mini.name_servers()).start().unwrap();
        let consumer = PushConsumer::builder("C")
            .client(producer.client())
            .subscribe("T", FilterExpression::all())
            .each(|_| Ok(()))
            .start()
            .unwrap();
        consumer.wait_ready(PATIENCE).unwrap();
        Self { producer, consumer, completions: Completions::new() }
    }

    /// Forks while threads send, take and read: each of them may hold a lock at the moment of a fork, which is never
    /// released in the child.
    fn fork_among_busy_threads(&self) {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _ = self.producer.send_tracked(Message::new("T", "busy"), 0, &self.completions);
                }
            });
            scope.spawn(|| {
                let mut taken = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    self.completions.take(&mut taken, Duration::from_millis(1)).unwrap();
                    taken.clear();
                }
            });
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _ =
                        (self.producer.in_flight(), self.consumer.queues(), self.producer.client().broker_versions());
                }
            });
            for number in 0..50 {
                // SAFETY: as above; the child ends with `_exit`, which runs nothing of the parent's.
                match unsafe { fork() }.unwrap() {
                    ForkResult::Child => {
                        let is_right = self.are_refused();
                        // SAFETY: ends the process.
                        unsafe { nix::libc::_exit(i32::from(!is_right)) }
                    }
                    ForkResult::Parent { child } => {
                        assert_eq!(ended(child), WaitStatus::Exited(child, 0), "child {number}");
                    }
                }
            }
            over.store(true, Ordering::Relaxed);
        });
    }

    /// True if every call fails in this child or reports that it did nothing, and none waits.
    fn are_refused(&self) -> bool {
        let Self { producer, consumer, completions } = self;
        let forked = |kind| kind == ErrorKind::Forked;
        let message = || Message::new("T", "never");
        let queue = MessageQueue::new("T", "broker-a", 0);
        consumer.pause();
        consumer.resume();
        let _ = format!("{producer:?} {consumer:?} {completions:?}");
        [
            forked(producer.send(&message()).unwrap_err().kind()),
            forked(producer.send_oneway(&message()).unwrap_err().kind()),
            forked(producer.send_async(message(), drop).unwrap_err().error.kind()),
            forked(producer.send_tracked(message(), 0, completions).unwrap_err().error.kind()),
            forked(producer.queues("T").unwrap_err().kind()),
            forked(producer.wait_ready(&["T"], PATIENCE).unwrap_err().kind()),
            forked(consumer.wait_ready(PATIENCE).unwrap_err().kind()),
            forked(completions.take(&mut Vec::new(), PATIENCE).unwrap_err().kind()),
            producer.shutdown(PATIENCE).forked && !producer.shutdown(PATIENCE).is_clean(),
            consumer.shutdown(PATIENCE).forked() && !consumer.shutdown(PATIENCE).is_clean(),
            producer.in_flight() == 0 && producer.untaken() == 0,
            consumer.queues().is_empty(),
            consumer.status(&queue).is_err_and(|error| forked(error.kind())),
            producer.client().broker_versions().is_empty(),
        ]
        .into_iter()
        .all(|is_right| is_right)
    }
}

/// Exit status of the child; a hanging child is killed.
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
