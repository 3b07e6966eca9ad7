//! The files that the records name: their bytes, and the sentences about them.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::endpoint::shown;
use crate::{Error, ErrorKind, Result};

/// No key, store or list of honest size comes near it.
const MOST: u64 = 16 * 1024 * 1024;

/// A file, and the field that names it. It begins every message about the file.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    field: &'static str,
    path: &'a Path,
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} \"{}\"", self.field, shown(&self.path.to_string_lossy()))
    }
}

impl<'a> Source<'a> {
    pub(super) fn new(field: &'static str, path: &'a Path) -> Self {
        Self { field, path }
    }

    pub(super) fn key_store(path: &'a Path) -> Self {
        Self::new("key store", path)
    }

    pub(super) fn trust_store(path: &'a Path) -> Self {
        Self::new("trust store", path)
    }

    pub(super) fn is_trust_store(&self) -> bool {
        self.field == "trust store"
    }

    /// What to do with a store that was given for a file of certificates.
    pub(super) fn store_instead(&self) -> &'static str {
        if self.field == "cert" { "give it as a trust store" } else { "give it as a key store" }
    }

    /// An error about this file: its name, then what it is or has.
    pub(super) fn is(&self, what: impl fmt::Display) -> Error {
        self.error(format!("{self} {what}"))
    }

    /// An error about something in this file.
    pub(super) fn fails(&self, why: impl fmt::Display) -> Error {
        self.error(format!("{self}: {why}"))
    }

    /// An error in words that name the file themselves.
    pub(super) fn error(&self, message: impl fmt::Display) -> Error {
        Error::configuration(self.introduced(message))
    }

    /// The bytes of the file, which has to be a regular one of sensible size: a pipe would make us
    /// wait for ever, and a device has no end.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        let file = open(self.path).map_err(|error| self.unreadable(error))?;
        let metadata = file.metadata().map_err(|error| self.unreadable(error))?;
        if metadata.is_dir() {
            return Err(self.is("is a directory, not a file"));
        }
        if !metadata.is_file() {
            return Err(self.is("is not a regular file"));
        }
        let mut data = Vec::new();
        // The size may be another by now, and in /proc it is none at all: what is read counts.
        file.take(MOST + 1).read_to_end(&mut data).map_err(|error| self.unreadable(error))?;
        match data.len() as u64 {
            0 => Err(self.is("is empty")),
            1..=MOST => Ok(data),
            _ => Err(self.is("is larger than 16 MiB, which no such file is")),
        }
    }

    fn unreadable(&self, error: io::Error) -> Error {
        let what = match error.kind() {
            io::ErrorKind::NotFound => "does not exist",
            io::ErrorKind::PermissionDenied => "may not be read by this user",
            _ => "cannot be read",
        };
        let message = self.introduced(format_args!("{self} {what}"));
        Error::caused(ErrorKind::Configuration, message, error)
    }

    /// The connector's users know failures of stores by these words.
    fn introduced(&self, message: impl fmt::Display) -> String {
        if self.field.ends_with(" store") {
            return format!("failed to initialize the TLS context: {message}");
        }
        message.to_string()
    }
}

/// Opened without waiting: a pipe that nobody writes to would hold up an ordinary `open`.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}
