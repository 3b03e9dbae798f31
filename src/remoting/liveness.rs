//! The signs of life of one connection's peer. Owned by `rmq-remoting`; a value that reads no clock.
//!
//! Whole frames count, bytes do not: behind a frame of wrong length every later response is taken for the rest of its
//! body, and bytes go on arriving without any response. The rule:
//!
//! 1. A peer that owes a reply and has sent no whole frame for the silence limit is probed.
//! 2. A whole frame, whatever it is, ends the probe.
//! 3. The answer to a probe that was sent in the midst of a frame comes behind that frame. Found within it, it proves
//!    that the frame's length is wrong: the connection is closed.
//! 4. Half a silence limit after the probe the connection is closed, unless bytes of an unfinished frame have arrived
//!    since, and so many on the whole that it may be a large frame on a slow line; then it is probed again.

use std::time::{Duration, Instant};

/// Time that a frame has whatever its speed.
const SLOW_FRAME: Duration = Duration::from_secs(60);
/// The least speed of a frame that takes longer than that, in bytes a second.
const SLOWEST_FRAME: u64 = 16 * 1024;

/// The signs of life of one peer.
#[derive(Debug)]
pub(super) struct Liveness {
    silence_limit: Duration,
    /// The first bytes since the last whole frame.
    frame_begun: Option<Instant>,
    /// Bytes since the last whole frame.
    arrived: u64,
    probe: Option<Probe>,
}

#[derive(Debug)]
struct Probe {
    ends: Instant,
    /// Bytes since the last whole frame when the probe was sent.
    arrived_before: u64,
    /// The last bytes that arrived: the answer may come in two reads.
    tail: Vec<u8>,
    answer: Vec<u8>,
}

/// Decision when a probe had no answer in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its time is not over.
    Waits,
    /// A frame is arriving: the peer is to be probed again.
    Arrives,
    /// The peer is gone, or its stream is of no use.
    Gone,
}

impl Liveness {
    pub(super) fn new(silence_limit: Duration) -> Self {
        Self { silence_limit, frame_begun: None, arrived: 0, probe: None }
    }

    /// Time at which the peer must have answered the probe that is under way.
    pub(super) fn probe_ends(&self) -> Option<Instant> {
        self.probe.as_ref().map(|probe| probe.ends)
    }

    /// Counts bytes. True if the answer to the probe is among them, which is taken for a part of a frame.
    pub(super) fn bytes(&mut self, bytes: &[u8], now: Instant) -> bool {
        self.frame_begun.get_or_insert(now);
        self.arrived += bytes.len() as u64;
        self.probe.as_mut().is_some_and(|probe| probe.arrived_before > 0 && probe.is_answered_in(bytes))
    }

    /// Notes a whole frame.
    pub(super) fn frame(&mut self) {
        (self.frame_begun, self.arrived, self.probe) = (None, 0, None);
    }

    /// Notes a probe with this opaque.
    pub(super) fn probed(&mut self, opaque: i32, now: Instant) {
        self.probe = Some(Probe {
            ends: now + self.silence_limit / 2,
            arrived_before: self.arrived,
            tail: Vec::new(),
            answer: format!("\"opaque\":{opaque},").into_bytes(),
        });
    }

    /// Decides about a peer that was probed.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        match &self.probe {
            Some(probe) if probe.ends <= now => {
                let arrives = self.arrived > probe.arrived_before && self.is_fast_enough(now);
                if arrives { Verdict::Arrives } else { Verdict::Gone }
            }
            _ => Verdict::Waits,
        }
    }

    fn is_fast_enough(&self, now: Instant) -> bool {
        let lasting = self.frame_begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        lasting <= SLOW_FRAME + Duration::from_secs(self.arrived / SLOWEST_FRAME)
    }
}

impl Probe {
    fn is_answered_in(&mut self, bytes: &[u8]) -> bool {
        self.tail.extend_from_slice(bytes);
        let is_answered = self.tail.windows(self.answer.len()).any(|window| window == self.answer);
        let kept = self.tail.len().min(self.answer.len() - 1);
        self.tail.drain(..self.tail.len() - kept);
        is_answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_probe_without_an_answer_ends_after_half_a_silence() {
        let (mut peer, start) = (Liveness::new(LIMIT), Instant::now());
        assert_eq!((peer.verdict(start), peer.probe_ends()), (Verdict::Waits, None));
        peer.probed(7, start);
        assert_eq!((peer.verdict(start + seconds(4)), peer.probe_ends()), (Verdict::Waits, Some(start + seconds(5))));
        assert_eq!(peer.verdict(start + seconds(5)), Verdict::Gone);
        peer.frame();
        assert_eq!((peer.verdict(start + seconds(5)), peer.probe_ends()), (Verdict::Waits, None));
    }

    #[test]
    fn the_answer_to_a_probe_within_a_frame_is_noticed_however_it_is_cut() {
        let answer = b"{\"code\":3,\"flag\":1,\"language\":\"JAVA\",\"opaque\":-77,\"version\":1}";
        for cut in 0..answer.len() {
            let (mut peer, now) = (Liveness::new(LIMIT), Instant::now());
            assert!(!peer.bytes(b"the beginning of a frame", now));
            peer.probed(-77, now);
            assert!(!peer.bytes(b"\"opaque\":-7,", now), "the answer to another request");
            let seen = [peer.bytes(&answer[..cut], now), peer.bytes(&answer[cut..], now)];
            assert!(seen.contains(&true), "{cut}");
        }
    }

    #[test]
    fn an_answer_that_begins_behind_the_probe_is_a_frame_of_its_own() {
        let (mut peer, now) = (Liveness::new(LIMIT), Instant::now());
        peer.probed(-77, now);
        assert!(!peer.bytes(b"\"opaque\":-77,", now));
    }

    #[test]
    fn a_large_frame_may_take_as_long_as_it_keeps_a_least_speed() {
        for (bytes_a_second, lasts) in [(20 * 1024, true), (8 * 1024, false)] {
            let (mut peer, start) = (Liveness::new(LIMIT), Instant::now());
            let mut verdict = Verdict::Waits;
            for second in 0..800 {
                let now = start + seconds(second);
                peer.bytes(&vec![0; bytes_a_second], now);
                if second == 10 {
                    peer.probed(1, now);
                }
                verdict = peer.verdict(now);
                match verdict {
                    Verdict::Waits => {}
                    Verdict::Arrives => peer.probed(1, now),
                    Verdict::Gone => break,
                }
            }
            assert_eq!(verdict != Verdict::Gone, lasts, "{bytes_a_second}");
        }
    }

    #[test]
    fn a_frame_of_which_nothing_arrives_any_more_is_given_up() {
        let (mut peer, start) = (Liveness::new(LIMIT), Instant::now());
        peer.bytes(&[0; 1024 * 1024], start);
        peer.probed(1, start + seconds(10));
        assert_eq!(peer.verdict(start + seconds(15)), Verdict::Gone);
    }
}
