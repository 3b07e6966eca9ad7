//! A password: where it may come from, and that it shows nowhere.

use std::env::{self, VarError};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::failure::{Failure, shown};

/// The most bytes of a file that are taken for a password: whatever is longer is another file.
const LONGEST: u64 = 1024;

/// A password. It shows neither in errors nor in the log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

impl Password {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// So that it can be the value of a flag.
impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The places that a password may come from.
pub(crate) struct Sources<'a> {
    /// The name of the flag that takes the password itself, and what was given to it.
    pub(crate) flag: (&'static str, Option<&'a Password>),
    /// The name of the flag that takes a file, and what was given to it.
    pub(crate) file: (&'static str, Option<&'a Path>),
    /// The environment variable that counts where neither flag is given.
    pub(crate) variable: &'static str,
}

/// The password, and the name of the flag or variable that it comes from; `None` where nothing
/// tells one.
pub(crate) fn resolve(sources: &Sources<'_>) -> Result<Option<(Password, &'static str)>, Failure> {
    match (sources.flag, sources.file) {
        ((flag, Some(_)), (file_flag, Some(_))) => {
            Err(Failure::usage(format!("{flag} and {file_flag} are both given; give one")))
        }
        ((flag, Some(password)), _) => Ok(Some((password.clone(), flag))),
        (_, (flag, Some(path))) => match first_line(path) {
            Ok(line) => Ok(Some((Password(line), flag))),
            Err(problem) => {
                let path = shown(&path.to_string_lossy());
                let line = format!("{flag}: cannot take a password from '{path}': {problem}");
                Err(Failure::outside(line).hint("give a file whose first line is the password"))
            }
        },
        _ => from_environment(sources.variable, env::var(sources.variable)),
    }
}

/// An empty variable is rather a secret that was not there when it was set than the wish to have
/// no password, so it is refused.
fn from_environment(
    name: &'static str,
    value: Result<String, VarError>,
) -> Result<Option<(Password, &'static str)>, Failure> {
    let problem = match value {
        Ok(value) if !value.is_empty() => return Ok(Some((Password(value), name))),
        Err(VarError::NotPresent) => return Ok(None),
        Ok(_) => "is empty",
        Err(VarError::NotUnicode(_)) => "is not UTF-8",
    };
    let line = format!("the environment variable {name} {problem}");
    Err(Failure::usage(line).hint("set it to the password, or unset it"))
}

/// The first line of a file, without its line end. What is wrong with it never quotes it.
fn first_line(path: &Path) -> io::Result<String> {
    // One byte more than is taken tells whether the line is too long.
    let mut file = BufReader::new(File::open(path)?.take(LONGEST + 1));
    let mut line = Vec::new();
    file.read_until(b'\n', &mut line)?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(io::Error::other("its first line is empty"));
    }
    if line.len() as u64 > LONGEST {
        return Err(io::Error::other(format!("its first line has more than {LONGEST} bytes")));
    }
    String::from_utf8(line.to_vec())
        .map_err(|_| io::Error::other("its first line is not UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn in_file(content: &[u8]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, content).unwrap();
        first_line(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn it_does_not_show_when_it_is_debugged() {
        assert_eq!(format!("{:?}", Password("secret".into())), "Password(…)");
    }

    #[test]
    fn a_file_tells_its_first_line_without_the_line_end() {
        for content in ["se cret", "se cret\n", "se cret\r\n", "se cret\nmore\n"] {
            assert_eq!(in_file(content.as_bytes()).as_deref(), Ok("se cret"), "{content:?}");
        }
        let longest = "a".repeat(1024);
        assert_eq!(in_file(longest.as_bytes()), Ok(longest.clone()));
        assert_eq!(in_file(format!("{longest}\n").as_bytes()), Ok(longest));
    }

    #[test]
    fn a_first_line_that_is_empty_too_long_or_no_text_is_refused() {
        for (content, problem) in [
            (&b""[..], "empty"),
            (b"\nsecret", "empty"),
            (b"\r\n", "empty"),
            (&[b'a'; 1025], "more than 1024 bytes"),
            (&[b'a'; 100_000], "more than 1024 bytes"),
            (b"\xff\xfe\n", "not UTF-8"),
        ] {
            let error = in_file(content).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn the_flag_goes_before_the_environment_and_excludes_the_file() {
        let password = Password("secret".into());
        let mut sources = Sources {
            flag: ("--word", Some(&password)),
            file: ("--word-file", None),
            variable: "PATH",
        };
        assert_eq!(resolve(&sources).unwrap(), Some((password.clone(), "--word")));
        sources.file.1 = Some(Path::new("some-file"));
        let failure = format!("{:?}", resolve(&sources).unwrap_err());
        assert!(failure.contains("--word and --word-file are both given"), "{failure}");
        assert!(!failure.contains("secret"), "{failure}");
    }

    #[test]
    fn a_variable_counts_unless_it_is_empty_or_no_text() {
        let from = |value| from_environment("WORD", value);
        assert_eq!(from(Err(VarError::NotPresent)).unwrap(), None);
        let found = from(Ok("secret".into())).unwrap();
        assert_eq!(found, Some((Password("secret".into()), "WORD")));
        assert!(format!("{:?}", from(Ok(String::new()))).contains("WORD is empty"));
        let raw = OsString::from_vec(b"secret\xff".to_vec());
        let failure = format!("{:?}", from(Err(VarError::NotUnicode(raw))));
        assert!(failure.contains("WORD is not UTF-8") && !failure.contains("secret"), "{failure}");
    }
}
