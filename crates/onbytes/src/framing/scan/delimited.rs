//! Frames that end with certain bytes: lines, delimiters, and blocks without an escape.

use super::{Step, Wrong};
use crate::framing::Outside;
use crate::framing::compiled::{Sequence, Went, begins};
use crate::framing::deframer::Content;

/// A line that ends with LF or CRLF.
#[derive(Debug, Default)]
pub(in crate::framing) struct Line {
    /// The last byte was a CR, which may belong to the end.
    has_cr: bool,
}

impl Line {
    pub(super) fn step(&mut self, fresh: &[u8], content: &mut Content) -> Step {
        if std::mem::take(&mut self.has_cr) {
            if fresh[0] == b'\n' {
                return Step::after(1).ends();
            }
            content.push(b"\r");
        }
        match memchr::memchr(b'\n', fresh) {
            Some(place) => {
                let cr = usize::from(fresh[..place].ends_with(b"\r"));
                Step { content: place - cr, after: cr + 1, ends: true, ..Step::default() }
            }
            None => {
                self.has_cr = fresh.ends_with(b"\r");
                let cr = usize::from(self.has_cr);
                Step { content: fresh.len() - cr, after: cr, ..Step::default() }
            }
        }
    }

    pub(super) fn give_back(&self, content: &mut Content) {
        if self.has_cr {
            content.push(b"\r");
        }
    }
}

/// A frame that ends with a sequence.
#[derive(Debug, Default)]
pub(in crate::framing) struct Delimited {
    /// How many bytes of the sequence have come.
    matched: usize,
}

impl Delimited {
    pub(super) fn step(
        &mut self,
        sequence: &Sequence,
        keep: bool,
        fresh: &[u8],
        content: &mut Content,
    ) -> Step {
        if self.matched > 0 {
            match sequence.go_on(&mut self.matched, fresh, |back| content.push(back)) {
                Went::Complete(len) => {
                    if keep {
                        content.push(&sequence.bytes);
                    }
                    return Step::after(len).ends();
                }
                Went::On(len) => return Step::after(len),
                Went::Astray(0) => {}
                Went::Astray(len) => return Step::after(len),
            }
        }
        match sequence.find(fresh) {
            Some(place) if keep => Step::content(place + sequence.len()).ends(),
            Some(place) => Step { after: sequence.len(), ..Step::content(place).ends() },
            None => {
                self.matched = sequence.begun_at_end(fresh);
                Step { after: self.matched, ..Step::content(fresh.len() - self.matched) }
            }
        }
    }

    pub(super) fn give_back(&self, sequence: &Sequence, content: &mut Content) {
        content.push(&sequence.bytes[..self.matched]);
    }
}

/// A frame between a start and an end.
#[derive(Debug, Default)]
pub(in crate::framing) struct Block {
    is_inside: bool,
    /// How many bytes of the start have come.
    start: usize,
    end: Delimited,
    /// How many bytes of the tail may still come, from its end.
    tail: usize,
}

impl Block {
    pub(super) fn step(
        &mut self,
        start: &Sequence,
        end: &Sequence,
        tail: &[u8],
        outside: Outside,
        fresh: &[u8],
        content: &mut Content,
    ) -> Result<Step, Wrong> {
        if self.is_inside {
            return Ok(self.inside(end, tail, fresh, content));
        }
        if self.start == 0 && start.begins(fresh) {
            return Ok(self.begin(start.len(), end, tail, fresh, content));
        }
        if self.tail > 0 && fresh[0] == tail[tail.len() - self.tail] {
            self.tail -= 1;
            return Ok(Step::outside(1));
        }
        self.tail = 0;
        self.outside(start, outside, fresh)
    }

    /// Looks for the start.
    fn outside(&mut self, start: &Sequence, outside: Outside, fresh: &[u8]) -> Result<Step, Wrong> {
        if self.start > 0 {
            let mut is_stray = false;
            let went = start.go_on(&mut self.start, fresh, |_| is_stray = true);
            if is_stray && outside == Outside::Malformed {
                return Err(stray(start, fresh));
            }
            return Ok(match went {
                Went::Complete(len) => {
                    self.is_inside = true;
                    Step::before(len)
                }
                Went::On(len) => Step::outside(len),
                // Looked at again, from the beginning of a start.
                Went::Astray(len) => Step::outside(len),
            });
        }
        let found = start.find(fresh);
        let begun = if found.is_none() { start.begun_at_end(fresh) } else { 0 };
        let between = found.unwrap_or(fresh.len() - begun);
        if between > 0 && outside == Outside::Malformed {
            return Err(stray(start, fresh));
        }
        self.start = begun;
        Ok(Step::outside(between + begun))
    }

    /// A start is at the front.
    fn begin(
        &mut self,
        before: usize,
        end: &Sequence,
        tail: &[u8],
        fresh: &[u8],
        content: &mut Content,
    ) -> Step {
        self.is_inside = true;
        if fresh.len() == before {
            return Step::before(before);
        }
        Step { before, ..self.inside(end, tail, &fresh[before..], content) }
    }

    fn inside(&mut self, end: &Sequence, tail: &[u8], fresh: &[u8], content: &mut Content) -> Step {
        let mut step = self.end.step(end, false, fresh, content);
        if step.ends {
            self.is_inside = false;
            self.tail = tail.len();
            // The rule, and then it costs no step of its own.
            if !tail.is_empty() && begins(&fresh[step.len()..], tail) {
                self.tail = 0;
                step.after += tail.len();
            }
        }
        step
    }

    pub(super) fn give_back(&self, end: &Sequence, content: &mut Content) {
        if self.is_inside {
            self.end.give_back(end, content);
        }
    }
}

fn stray(start: &Sequence, fresh: &[u8]) -> Wrong {
    let [first, ..] = *start.bytes else { return "a start has no bytes".into() };
    format!("0x{:02x} comes where a frame begins, with 0x{first:02x}", fresh[0]).into()
}
