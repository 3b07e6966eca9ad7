//! The bytes the load generator sends, and expects back.
//!
//! A connection's stream is one long run through a table of pseudo-random bytes, from a starting
//! point of its own. A reply of another connection, or one shifted, repeated or cut, therefore
//! does not compare equal. Runs are slices of the table: neither sending nor checking copies.

use crate::frames::Frames;

/// Length after which a stream repeats. Prime, so that no usual message size divides it and a
/// whole lost message shows up too.
const PERIOD: usize = 65_521;

/// The longest run [`Pattern::run`] returns.
pub const LONGEST: usize = 256 * 1024;

/// Distance between the starting points of connections with neighbouring numbers, in bytes or frames.
const STRIDE: usize = 7_919;

/// Fewer different frames than this would not tell connections apart.
const FEWEST_FRAMES: usize = 17;

/// The table of pseudo-random bytes.
pub struct Pattern {
    bytes: Box<[u8]>,
    /// Length after which a stream repeats.
    period: usize,
    /// Distance between the starting points of connections with neighbouring numbers.
    stride: usize,
}

impl Pattern {
    /// Makes the table. It is the same in every run.
    #[must_use]
    pub fn new() -> Self {
        let mut period = Vec::with_capacity(PERIOD);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..PERIOD {
            // Marsaglia's xorshift: random enough to tell streams apart.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            period.push((state >> 32) as u8);
        }
        Self::of(&period, STRIDE)
    }

    /// Makes a table of frames of `size` bytes each, which are text. A stream is made of whole frames,
    /// no two of which are alike until it repeats.
    #[must_use]
    pub fn framed(frames: Frames, size: usize) -> Self {
        let bytes = Self::new();
        let wire_len = frames.wire_len(size);
        let count = (PERIOD / wire_len).max(FEWEST_FRAMES);
        let mut period = Vec::with_capacity(count * wire_len);
        for number in 0..count {
            let position = (number * size) as u64;
            let message: Vec<u8> = bytes.run(0, position, size).iter().map(as_text).collect();
            frames.write(&message, &mut period);
        }
        Self::of(&period, wire_len * (STRIDE % count))
    }

    fn of(period: &[u8], stride: usize) -> Self {
        // Continued beyond one period so that a run from any start is contiguous.
        let bytes = period.iter().copied().cycle().take(period.len() + LONGEST).collect();
        Self { bytes, period: period.len(), stride }
    }

    /// Up to `most` bytes of `connection`'s stream from `position` on, at most [`LONGEST`].
    #[must_use]
    pub fn run(&self, connection: usize, position: u64, most: usize) -> &[u8] {
        let offset = (position % self.period as u64) as usize;
        let start = (connection % PERIOD * self.stride + offset) % self.period;
        &self.bytes[start..start + most.min(LONGEST)]
    }

    /// Whether `received` is what `connection`'s stream has at `position`.
    #[must_use]
    pub fn matches(&self, connection: usize, position: u64, received: &[u8]) -> bool {
        let mut position = position;
        received.chunks(LONGEST).all(|chunk| {
            let expected = self.run(connection, position, chunk.len());
            position += chunk.len() as u64;
            expected == chunk
        })
    }
}

/// A printable character for any byte.
fn as_text(byte: &u8) -> u8 {
    b' ' + byte % 95
}

impl Default for Pattern {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let pattern = Pattern::new();
        let whole = pattern.run(3, 65_000, 4_000).to_vec();
        let mut pieces = pattern.run(3, 65_000, 700).to_vec();
        pieces.extend_from_slice(pattern.run(3, 65_700, 3_300));
        assert_eq!(whole, pieces);
        assert!(pattern.matches(3, 65_000, &whole));
    }

    #[test]
    fn runs_are_bounded_and_longer_replies_are_checked_in_parts() {
        let pattern = Pattern::new();
        assert_eq!(pattern.run(0, u64::MAX, usize::MAX).len(), LONGEST);
        let mut long = pattern.run(1, 10, LONGEST).to_vec();
        long.extend_from_slice(pattern.run(1, 10 + LONGEST as u64, 100));
        assert!(pattern.matches(1, 10, &long));
        *long.last_mut().unwrap() ^= 1;
        assert!(!pattern.matches(1, 10, &long));
    }

    #[test]
    fn connections_and_positions_differ() {
        let pattern = Pattern::new();
        let message = pattern.run(5, 640, 64);
        assert!(!pattern.matches(6, 640, message));
        assert!(!pattern.matches(5, 641, message));
        assert!(!pattern.matches(5, 704, message));
        assert!(!pattern.matches(5, 640 + 1024 * 1024, message));
    }

    #[test]
    fn a_framed_stream_is_made_of_whole_frames_that_differ() {
        for frames in Frames::ALL {
            let pattern = Pattern::framed(frames, 64);
            let mut wire = pattern.run(7, 0, 70_000);
            let mut seen = std::collections::HashSet::new();
            while let Some((message, taken)) = frames.first(wire) {
                assert_eq!(message.len(), 64);
                assert!(message.is_ascii());
                seen.insert(message);
                wire = &wire[taken..];
            }
            assert!(wire.len() < frames.wire_len(64));
            assert!(seen.len() > 900, "{}", seen.len());
            assert_ne!(pattern.run(0, 0, 66), pattern.run(1, 0, 66));
        }
    }
}
