//! Random changes of inputs: bits, bytes, lengths, digits, parts removed, duplicated or taken from another input.

/// Bytes at which code often branches.
const BYTES: [u8; 12] = [0, 1, 0x7F, 0x80, 0xFF, b'"', b'{', b'}', b'[', b',', b'\\', b' '];
/// Lengths at which code often branches.
const LENGTHS: [i32; 10] = [0, 1, -1, i32::MAX, i32::MIN, 0x7FFF, 0x8000, 0x00FF_FFFF, 0x0100_0000, 91];

/// Source of changes; the same seed gives the same ones.
pub(crate) struct Mutator {
    state: u64,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Returns one of the inputs, changed in up to eight ways and truncated to `longest` bytes.
    pub(crate) fn mutated(&mut self, inputs: &[Vec<u8>], longest: usize) -> Vec<u8> {
        let mut bytes = inputs[self.below(inputs.len())].clone();
        for _ in 0..1 + self.below(8) {
            self.change(&mut bytes, &inputs[self.peek_below(inputs.len())]);
        }
        bytes.truncate(longest);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        if bytes.is_empty() {
            bytes.push(self.byte());
            return;
        }
        let at = self.below(bytes.len());
        match self.below(10) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.byte(),
            2 => bytes[at] = BYTES[self.below(BYTES.len())],
            3 => {
                let near = i32::try_from(bytes.len()).unwrap_or(i32::MAX).wrapping_sub(2).wrapping_add(self.small());
                let length = if self.below(2) == 0 { LENGTHS[self.below(LENGTHS.len())] } else { near };
                let length = length.to_be_bytes();
                let wide = [4, 2, 1][self.below(3)];
                bytes.splice(at..(at + wide).min(bytes.len()), length[4 - wide..].iter().copied());
            }
            4 => {
                bytes.drain(at..(at + 1 + self.below(16)).min(bytes.len()));
            }
            5 => {
                let part = bytes[at..(at + 1 + self.below(32)).min(bytes.len())].to_vec();
                let part = part.repeat(1 + self.below(8));
                bytes.splice(at..at, part);
            }
            6 if !other.is_empty() => {
                let from = self.below(other.len());
                let part = &other[from..(from + 1 + self.below(64)).min(other.len())];
                bytes.splice(at..(at + self.below(64)).min(bytes.len()), part.iter().copied());
            }
            7 => bytes.truncate(at),
            8 => {
                let digits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
                if !digits.is_empty() {
                    let at = digits[self.below(digits.len())];
                    let numbers: [&[u8]; 6] = [b"-1", b"0", b"2147483648", b"9223372036854775808", b"1e999", b"9"];
                    bytes.splice(at..=at, numbers[self.below(6)].iter().copied());
                }
            }
            _ => {
                let random: Vec<u8> = (0..1 + self.below(8)).map(|_| self.byte()).collect();
                bytes.splice(at..at, random);
            }
        }
    }

    fn small(&mut self) -> i32 {
        i32::try_from(self.below(5)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn below(&mut self, end: usize) -> usize {
        self.next();
        self.peek_below(end)
    }

    /// Uses the last number, without drawing a new one.
    fn peek_below(&self, end: usize) -> usize {
        usize::try_from(mixed(self.state) % u64::try_from(end.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed(self.state)
    }
}

/// SplitMix64.
fn mixed(state: u64) -> u64 {
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
