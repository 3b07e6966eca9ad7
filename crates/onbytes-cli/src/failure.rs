//! How the program fails: an exit code, and one line on stderr.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long a stderr that takes nothing can hold up the exit.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the program ends, as its user is told.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    line: String,
}

impl Failure {
    /// The command line is wrong: it does not parse, or a value in it is impossible.
    pub(crate) fn usage(line: impl Into<String>) -> Self {
        Self { code: 2, line: line.into() }
    }

    /// Something outside failed: a file, a port, a peer.
    pub(crate) fn outside(line: impl Into<String>) -> Self {
        Self { code: 1, line: line.into() }
    }

    /// The same failure, with what it is about before it.
    pub(crate) fn about(mut self, subject: &str) -> Self {
        self.line = format!("{subject}: {}", self.line);
        self
    }

    /// The same failure, as one of something outside: a value that is possible led to a file that
    /// is not.
    pub(crate) fn of_a_file(self) -> Self {
        Self { code: 1, ..self }
    }

    /// The same failure, with words that stand alone replaced by others, except in what is quoted:
    /// the path of a file stays as it is. Where several would do, the first of `names` wins.
    pub(crate) fn renamed(mut self, names: &[(&str, &str)]) -> Self {
        let mut line = String::with_capacity(self.line.len());
        let (mut rest, mut is_word_before) = (&self.line[..], false);
        while let Some(next) = rest.chars().next() {
            let is_it = |(name, _): &&(&str, &str)| {
                rest.strip_prefix(name).is_some_and(|after| !after.starts_with(is_of_word))
            };
            let taken = match names.iter().find(is_it) {
                Some((name, flag)) if !is_word_before => {
                    line.push_str(flag);
                    name.len()
                }
                _ => {
                    let length = if next == '"' { quoted(rest) } else { next.len_utf8() };
                    line.push_str(&rest[..length]);
                    length
                }
            };
            is_word_before = rest[..taken].ends_with(is_of_word);
            rest = &rest[taken..];
        }
        self.line = line;
        self
    }

    /// The same failure, with the way out that goes with the first of `hints` whose words it has,
    /// unless it tells one already.
    pub(crate) fn hinted(self, hints: &[(&str, &str)]) -> Self {
        match hints.iter().find(|(words, _)| self.line.contains(words)) {
            Some((_, hint)) if !self.line.contains("; ") => self.hint(hint),
            _ => self,
        }
    }

    /// The same failure, with the way out.
    pub(crate) fn hint(mut self, hint: &str) -> Self {
        self.line.push_str("; ");
        self.line.push_str(hint);
        self
    }

    /// What its user would be told.
    pub(crate) fn into_line(self) -> String {
        self.line
    }

    /// Writes the line and returns the code to exit with.
    pub(crate) fn tell(&self) -> ExitCode {
        let line = format!("onbytes: {}\n", in_one_line(&self.line));
        let (done, is_done) = mpsc::channel();
        // On a thread of its own, because a full pipe that nobody reads must not keep the process
        // alive. Where there is neither a thread nor a reader, the exit code has to do.
        let write = move || {
            let _ = io::stderr().write_all(line.as_bytes());
            let _ = done.send(());
        };
        if thread::Builder::new().spawn(write).is_ok() {
            let _ = is_done.recv_timeout(PATIENCE);
        }
        ExitCode::from(self.code)
    }
}

impl From<&onbytes::Error> for Failure {
    fn from(error: &onbytes::Error) -> Self {
        let line = with_causes(error);
        if error.is_configuration() { Self::usage(line) } else { Self::outside(line) }
    }
}

/// An error and its causes, joined with `: `.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A word of the command line as it is put into a message: cut where it is absurdly long.
pub(crate) fn shown(word: &str) -> String {
    const MOST: usize = 100;
    let length = word.chars().count();
    if length <= MOST {
        return word.to_owned();
    }
    let start: String = word.chars().take(MOST).collect();
    format!("{start}… ({length} characters)")
}

/// Whether a character is part of a word, so that `cert` is not found in `--cert-file`.
fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// The length of the quoted text that `text` begins with.
fn quoted(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !is_escaped => return at + 1,
            _ => is_escaped = c == '\\' && !is_escaped,
        }
    }
    text.len()
}

/// Words of the command line may hold line breaks and worse.
fn in_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_debug());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        assert_eq!(in_one_line("a\nb\x1b[2Jc\u{9b}"), "a\\nb\\u{1b}[2Jc\\u{9b}");
    }

    #[test]
    fn an_absurd_word_is_cut() {
        let text = shown(&"ä".repeat(5_000));
        assert!(text.ends_with("… (5000 characters)") && text.chars().count() < 130);
        assert_eq!(shown("short"), "short");
    }

    #[test]
    fn words_that_stand_alone_are_renamed_and_quoted_ones_are_not() {
        let names = [("a key store, with path", "--key-store"), ("cert", "--cert"), ("ä", "--a")];
        let renamed = |line: &str| Failure::outside(line).renamed(&names).line;
        assert_eq!(renamed("cert (cert), cert: cert"), "--cert (--cert), --cert: --cert");
        assert_eq!(renamed("it is a key store, with path."), "it is --key-store.");
        for line in [
            "certificate",
            "a-cert cert_file --cert-file ää",
            r#""my cert file" "#,
            r#""a \" cert \\" x"#,
            r#""cert"#,
            "",
        ] {
            assert_eq!(renamed(line), line);
        }
    }

    #[test]
    fn a_way_out_is_told_once() {
        let hints = [("is empty", "give another"), ("empty", "never")];
        let hinted = |line: &str| Failure::outside(line).hinted(&hints).line;
        assert_eq!(hinted("it is empty"), "it is empty; give another");
        assert_eq!(hinted("it is empty; fill it"), "it is empty; fill it");
        assert_eq!(hinted("it is full"), "it is full");
    }

    #[test]
    fn causes_are_joined() {
        let inner = onbytes::Error::new("inner");
        let outer = onbytes::Error::from(io::Error::other(io::Error::other(inner)));
        assert_eq!(with_causes(&outer).matches("inner").count(), 1, "{}", with_causes(&outer));
    }
}
