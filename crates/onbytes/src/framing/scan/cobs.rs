//! Consistent Overhead Byte Stuffing.
//!
//! A frame is a row of groups. Each begins with a code: how far it is to where the next code, and before
//! it a zero, stands. A code of 255 stands for 254 bytes and no zero. A zero ends the frame.

use super::{Step, Wrong};
use crate::framing::deframer::Content;

/// A group of this code has no zero behind it.
const FULL: u8 = 0xFF;

/// A frame under way.
#[derive(Debug, Default)]
pub(in crate::framing) struct Cobs {
    has_begun: bool,
    /// Bytes of the group that are to come.
    left: usize,
    /// A zero stands behind the group, if another follows.
    owes_zero: bool,
    /// It is none; its end is looked for.
    is_bad: bool,
}

impl Cobs {
    pub(super) fn step(&mut self, fresh: &[u8], content: &mut Content) -> Result<Step, Wrong> {
        if self.is_bad {
            return Ok(self.recover(fresh));
        }
        if self.left > 0 {
            return self.group(0, fresh);
        }
        match fresh[0] {
            0 if !self.has_begun => Ok(Step::outside(1)),
            0 => {
                *self = Self::default();
                Ok(Step::after(1).ends())
            }
            code => {
                if self.owes_zero {
                    content.push(&[0]);
                }
                *self = Self {
                    has_begun: true,
                    left: usize::from(code) - 1,
                    owes_zero: code != FULL,
                    is_bad: false,
                };
                self.group(1, &fresh[1..])
            }
        }
    }

    /// Takes what is there of a group, behind `before` bytes, and the end of the frame if it follows.
    fn group(&mut self, before: usize, fresh: &[u8]) -> Result<Step, Wrong> {
        let taken = self.left.min(fresh.len());
        if let Some(place) = memchr::memchr(0, &fresh[..taken]) {
            if before + place > 0 {
                // Up to it first, so that what is wrong is at the front.
                self.left -= place;
                return Ok(Step { before, ..Step::content(place) });
            }
            self.is_bad = true;
            return Err("a zero within a COBS group".into());
        }
        self.left -= taken;
        let step = Step { before, ..Step::content(taken) };
        if self.left == 0 && fresh.get(taken) == Some(&0) {
            *self = Self::default();
            return Ok(Step { after: 1, ..step }.ends());
        }
        Ok(step)
    }

    fn recover(&mut self, fresh: &[u8]) -> Step {
        match memchr::memchr(0, fresh) {
            Some(place) => {
                *self = Self::default();
                Step::after(place + 1).ends()
            }
            None => Step::after(fresh.len()),
        }
    }
}
