//! Every decoder on hostile bytes: a corpus of inputs, and random mutations of valid ones. The outcome is a value or an
//! error, within the memory limit of the decoder; never a panic.
//!
//! Mutated inputs come from a fixed seed and are few here. A real hunt runs separately, for any length of time:
//!
//! ```sh
//! FUZZ_SECONDS=60 cargo test --release --test decoders wire_07 -- --nocapture --test-threads 1
//! FUZZ_SEED=7 FUZZ_SECONDS=600 cargo test --release --test decoders wire_07_json -- --nocapture
//! ```
//!
//! It prints the number of inputs, their rate, and the number of kinds of outcome. An input with a new kind of outcome
//! is kept and mutated further. A harmful one is printed in hexadecimal.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a hunt tells what it found")]

mod corpus;
mod decoder;
mod mutator;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;

use corpus::{Expected, hostile};
use decoder::{Decoder, Outcome};
use mutator::Mutator;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory is counted for the whole process, so one test runs at a time.
static MEASURING: Mutex<()> = Mutex::new(());

/// Number of mutated inputs for each decoder if no time is given.
const FEW: u64 = 2_000;
const LONGEST_MUTATED: usize = 8 * 1024;
const MOST_KEPT: usize = 1_000;

#[test]
fn wire_07_hostile_bytes_give_what_they_should_within_their_memory() {
    let _one_at_a_time = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut seen = BTreeSet::new();
    for item in hostile() {
        let decoder = Decoder::named(&item.decoder);
        let bytes = item.bytes.expand();
        let (outcome, memory) = measured(decoder, &bytes);
        let name = format!("{}: {}", item.decoder, item.name);
        println!("{name}: {} bytes, {memory} bytes of memory, {outcome:?}", bytes.len());
        let allowed = (decoder.allowance)(bytes.len());
        assert!(memory <= allowed, "{name} takes {memory} bytes of memory, allowed are {allowed}");
        match item.expect {
            Expected::Error => assert!(matches!(outcome, Outcome::Error(_)), "{name}: {outcome:?}"),
            Expected::Nothing => assert!(matches!(outcome, Outcome::Nothing), "{name}: {outcome:?}"),
            Expected::Value => assert!(matches!(outcome, Outcome::Value(_)), "{name}: {outcome:?}"),
            Expected::ValueOrError => {}
        }
        seen.insert(item.decoder);
    }
    let without: Vec<_> = decoder::ALL.iter().filter(|decoder| !seen.contains(decoder.name)).collect();
    assert!(matches!(without[..], [Decoder { name: "headers", .. }, Decoder { name: "tags", .. }]));
}

macro_rules! hunts {
    ($($test:ident: $name:literal;)+) => {
        $(
            #[test]
            fn $test() {
                hunt(Decoder::named($name));
            }
        )+

        #[test]
        fn every_decoder_is_hunted() {
            let hunted = BTreeSet::from([$($name),+]);
            assert_eq!(hunted, decoder::ALL.iter().map(|decoder| decoder.name).collect());
        }
    };
}

hunts! {
    wire_07_mutated_frames: "frames";
    wire_07_mutated_headers: "headers";
    wire_07_mutated_stored_messages: "stored messages";
    wire_07_mutated_batches: "batches";
    wire_07_mutated_json_bodies: "json bodies";
    wire_07_mutated_texts: "texts";
    wire_07_mutated_tags: "tags";
    wire_07_mutated_zlib: "zlib";
    wire_07_mutated_lz4: "lz4";
    wire_07_mutated_zstd: "zstd";
}

/// Runs mutated inputs through a decoder until the time or the number is used up.
fn hunt(decoder: &Decoder) {
    let _one_at_a_time = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seed = number("FUZZ_SEED").unwrap_or(1);
    let time = number("FUZZ_SECONDS").map(Duration::from_secs);
    let mut mutator = Mutator::new(seed);
    let mut kept = (decoder.seeds)();
    kept.extend(hostile().into_iter().filter(|item| item.decoder == decoder.name).map(|item| item.bytes.expand()));
    kept.retain(|input| input.len() <= LONGEST_MUTATED);
    let mut kinds: BTreeSet<String> = kept.iter().map(|input| (decoder.run)(input).kind()).collect();
    let (mut runs, mut most_memory, start) = (0_u64, 0, Instant::now());
    while time.map_or(runs < FEW, |time| start.elapsed() < time) {
        let input = mutator.mutated(&kept, LONGEST_MUTATED);
        let (outcome, memory) = catch_unwind(AssertUnwindSafe(|| measured(decoder, &input)))
            .unwrap_or_else(|_| panic!("{} panics at {} (seed {seed}, run {runs})", decoder.name, hex(&input)));
        let allowed = (decoder.allowance)(input.len());
        assert!(memory <= allowed, "{} takes {memory} > {allowed} bytes for {}", decoder.name, hex(&input));
        most_memory = most_memory.max(memory);
        if kinds.insert(outcome.kind()) && kept.len() < MOST_KEPT {
            kept.push(input);
        }
        runs += 1;
    }
    let elapsed = start.elapsed();
    let a_second = u128::from(runs) * 1_000_000 / elapsed.as_micros().max(1);
    println!(
        "{}: {runs} runs in {} s, {a_second} a second, {} kinds of outcome, at most {most_memory} bytes of memory",
        decoder.name,
        elapsed.as_secs(),
        kinds.len()
    );
}

/// Returns the outcome of the input, and the peak memory in use.
fn measured(decoder: &Decoder, input: &[u8]) -> (Outcome, usize) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let outcome = (decoder.run)(input);
    (outcome, MEMORY.peak_usage().saturating_sub(before))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
