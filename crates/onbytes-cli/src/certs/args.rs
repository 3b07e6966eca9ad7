//! What can be asked of `onbytes certs`.

use std::path::PathBuf;

use clap::Args;

use super::host::{self, Host};
use super::issue::{KeyType, MOST_DAYS};
use crate::password::Password;
use crate::values::{count, refused};

/// Make certificates for trying TLS
///
/// They are for trying, for tests and for private networks, and do not replace those of a public
/// CA: nobody trusts them who was not given the file to trust.
///
/// Without --ca it makes one certificate for a server, signed by itself, which clients are told to
/// trust. With --ca it makes a small CA, and a certificate for a server and one for a client that
/// the CA has signed: enough for a server that asks its clients for certificates (mutual TLS).
///
/// At the end it prints what it has made, the server certificate's SHA-256 fingerprint, when it
/// expires, and the commands to type next.
#[derive(Debug, Args)]
#[command(after_help = "\
Files without --ca:
  cert.pem        the server's certificate; also what its clients are to trust
  key.pem         its private key (PKCS#8)
  keystore.p12    both, for a server in Java and others (PKCS#12)
  truststore.p12  the certificate as a trusted one, for a client in Java

Files with --ca:
  ca.pem          the CA's certificate: what servers and clients are to trust
  ca-key.pem      its private key; nothing but signing more certificates needs it
  cert.pem, key.pem, keystore.p12              the server's
  client.pem, client-key.pem, client.p12       the client's
  truststore.p12  the CA's certificate as a trusted one

  Keys, key stores included, are readable by their owner alone (mode 0600). Each file appears in
  full or not at all. If any is there already, nothing is written, unless --force is given.
  In the stores the names (aliases) are server, client and ca.

Password of the .p12 files:
  That of --store-password or --store-password-file, or else that of the environment variable
  ONBYTES_STORE_PASSWORD, or else `changeit`, as is the custom in Java. Others can see what is
  typed at the command line in the list of processes, but neither files nor variables.
  It has at least 6 characters, printable and of ASCII: Java takes no others.

Examples:
  onbytes certs --out certs
      then: onbytes serve echo --cert-file certs/cert.pem --key-file certs/key.pem
      and in another terminal: onbytes connect localhost 3000 --tls --cert certs/cert.pem
  onbytes certs --out certs --ca --host example.org --host 192.0.2.1
      then: onbytes serve echo --cert-file certs/cert.pem --key-file certs/key.pem \\
              --client-ca certs/ca.pem
      and: onbytes connect localhost 3000 --tls --cert certs/ca.pem \\
              --client-cert certs/client.pem --client-key certs/client-key.pem
  onbytes certs --out certs --days 30 --force
      new ones in the place of the old; clients that trusted those have to be given the new file
      (cert.pem, or with --ca ca.pem: a new CA is made). Without --ca, files of an earlier --ca stay

Exit status: 0 when all files are written, 1 if one is there already or cannot be written, or if
the password's file cannot be read, 2 if the command line, the environment variable or the password
is wrong.")]
pub(crate) struct CertsArgs {
    /// The folder to write to; it is made where it is missing
    #[arg(long, value_name = "DIR", value_parser = folder)]
    pub(crate) out: PathBuf,

    /// A name or an address that the server has, such as example.org, *.example.org or 192.0.2.1;
    /// may be given many times. localhost, 127.0.0.1 and ::1 are always among them
    #[arg(long = "host", value_name = "NAME_OR_ADDRESS", value_parser = host::parse)]
    pub(crate) hosts: Vec<Host>,

    /// Make a CA, and have it sign a certificate for the server and one for a client
    #[arg(long)]
    pub(crate) ca: bool,

    /// How many days certificates are valid, 1 to 366. They begin an hour before now, for clocks
    /// that are behind
    #[arg(
        long, value_name = "N", default_value = "365",
        value_parser = days, allow_negative_numbers = true
    )]
    pub(crate) days: u16,

    /// What kind of keys to make
    #[arg(long, value_name = "TYPE", default_value = "p256")]
    pub(crate) key_type: KeyType,

    /// Replace files that are there already, each at once, so that no server reads half of one
    #[arg(long)]
    pub(crate) force: bool,

    /// The password of the .p12 files [default: changeit]
    // Whatever follows is taken for the password, so that no message about it can show it.
    #[arg(long, value_name = "PASSWORD", allow_hyphen_values = true)]
    pub(crate) store_password: Option<Password>,

    /// A file whose first line is the password of the .p12 files
    #[arg(long, value_name = "FILE")]
    pub(crate) store_password_file: Option<PathBuf>,
}

fn folder(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return refused(text, "a folder, such as certs");
    }
    Ok(text.into())
}

fn days(text: &str) -> Result<u16, String> {
    let days = count(1..=usize::from(MOST_DAYS))(text)?;
    Ok(u16::try_from(days).unwrap_or(MOST_DAYS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_1_to_366() {
        assert_eq!((days("1"), days("366")), (Ok(1), Ok(366)));
        for text in ["0", "367", "65537", "-1", "1.5", ""] {
            assert!(days(text).unwrap_err().contains("from 1 to 366"), "{text}");
        }
    }
}
