//! Seeded simulations of the consumer's cores: two members of a group, a model of a broker, and a network that loses,
//! delays and repeats, all in virtual time and on one thread. Test code only.
//!
//! A seed decides everything that happens, so that a failing one, which is printed, fails again:
//! `SIMULATION_SEEDS=17..18 cargo test --lib simulation` runs the seed 17 alone, `SIMULATION_SEEDS=1000000` the first
//! million.
//!
//! For a while everything goes wrong: requests and answers get lost, members crash, listeners fail, brokers lie. Then the
//! faults end. At each step the rules of [`world`] are checked, and in the end every message must have been consumed
//! and every queue's offset stored.

mod broker;
mod member;
mod outage;
mod random;
mod world;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use self::world::{Seen, World};

/// Prints the seed of a simulation that panics.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the simulation failed; again with SIMULATION_SEEDS={}..{}", self.0, self.0 + 1);
        }
    }
}

fn run(seed: u64) -> Seen {
    let announce = Announce(seed);
    let seen = World::new(seed).run();
    drop(announce);
    seen
}

/// `SIMULATION_SEEDS` as a count or as `first..end`; 10,000 without it.
fn seeds() -> (u64, u64) {
    let Ok(text) = std::env::var("SIMULATION_SEEDS") else { return (0, 10_000) };
    let number = |text: &str| text.trim().parse().expect("SIMULATION_SEEDS is a count or a range first..end");
    match text.split_once("..") {
        Some((first, end)) => (number(first), number(end)),
        None => (0, number(&text)),
    }
}

#[test]
fn no_message_is_lost_and_no_queue_stalls_whatever_fails() {
    let (first, end) = seeds();
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut seen = Seen::default();
    std::thread::scope(|scope| {
        let worker = || {
            let mut seen = Seen::default();
            loop {
                let seed = next.fetch_add(1, Relaxed);
                if seed >= end {
                    return seen;
                }
                seen.add(&run(seed));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            seen.add(&worker.join().expect("a seed failed, see above"));
        }
    });
    println!("{seen:#?}");
    if end - first >= 10_000 {
        seen.assert_everything_happened();
    }
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

/// Seeds of a case that only one in many thousands meets.
#[test]
fn an_offset_that_another_member_stored_late_does_not_stay_where_nothing_is_consumed() {
    for seed in [18_972, 24_973] {
        run(seed);
    }
}
