//! The secrets of connections, written to a file for tools that are to read the traffic.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustls::KeyLog;

use crate::{Error, ErrorKind, Result};

/// A file in the format of `SSLKEYLOGFILE`.
pub(super) struct KeyLogFile {
    file: Mutex<File>,
}

impl KeyLogFile {
    /// Opens the file to append to it; where it is new, nobody but its owner can read it. Returns a
    /// warning, too: nobody should forget that it is there.
    pub(super) fn open(path: &Path) -> Result<(Self, String)> {
        let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let file = opened.map_err(|error| {
            let message = format!("cannot write to key_log_file {path:?}");
            Error::caused(ErrorKind::Configuration, message, error)
        })?;
        let others_may_read = file.metadata().is_ok_and(|is| is.permissions().mode() & 0o077 != 0);
        let warning = format!(
            "the secrets of connections are written to key_log_file {path:?}: whoever reads it can \
             read the traffic{}",
            if others_may_read { ", and others than its owner may read it" } else { "" }
        );
        Ok((Self { file: Mutex::new(file) }, warning))
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", hex(client_random), hex(secret));
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that cannot be written is no reason to end a connection.
        let _ = file.write_all(line.as_bytes());
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLogFile")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
