//! Reading of command lines: the programs have too few options to need a crate for it.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

/// Takes and parses the value that follows `option`.
pub fn value<T>(option: &str, args: &mut impl Iterator<Item = String>) -> Result<T, String>
where
    T: FromStr<Err: Display>,
{
    let text = args.next().ok_or_else(|| format!("{option} needs a value"))?;
    text.parse().map_err(|error| format!("{option} {text}: {error}"))
}

/// Like [`value`], for a whole number from `1` to `most`, which keeps every run bounded.
pub fn count(
    option: &str,
    args: &mut impl Iterator<Item = String>,
    most: u64,
) -> Result<u64, String> {
    match value(option, args)? {
        number if (1..=most).contains(&number) => Ok(number),
        number => Err(format!("{option} {number}: must be 1 to {most}")),
    }
}

/// Parses a size in bytes such as `65536`, or with `K` or `M` in KiB or MiB: from 1 byte to 1 GiB.
pub fn bytes(text: &str) -> Result<usize, String> {
    let (digits, unit) = match (text.strip_suffix('K'), text.strip_suffix('M')) {
        (Some(digits), _) => (digits, 1 << 10),
        (_, Some(digits)) => (digits, 1 << 20),
        _ => (text, 1),
    };
    let number = digits.parse::<usize>().map_err(|_| format!("{text}: not a size such as 64K"))?;
    let size = number.checked_mul(unit).filter(|size| (1..=1 << 30).contains(size));
    size.ok_or_else(|| format!("{text}: must be 1 to 1024M"))
}

/// Parses `IP:PORT` and refuses every address off this machine: the benchmarks must not be able
/// to load, or open a port to, somebody else's network.
pub fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| format!("{text}: not an IP:PORT"))?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(format!("{text}: only loopback addresses are allowed"))
    }
}

/// The address an echo server listens on: its first argument, any free port by default.
pub fn listen_address() -> Result<SocketAddr, String> {
    loopback(std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:0"))
}

/// What an echo server over TLS is told: where to listen, and the files of its certificate and key.
pub fn secure_server() -> Result<(SocketAddr, PathBuf, PathBuf), String> {
    let mut args = std::env::args().skip(1);
    match (args.next(), args.next(), args.next()) {
        (Some(address), Some(certificate), Some(key)) => {
            Ok((loopback(&address)?, certificate.into(), key.into()))
        }
        _ => Err("give an address such as 127.0.0.1:0, a certificate file and a key file".into()),
    }
}

/// What an echo server of frames is told: where to listen, and the form of its frames, as a text.
pub fn framed_server<T: FromStr<Err: Display>>() -> Result<(SocketAddr, T), String> {
    let mut args = std::env::args().skip(1);
    match (args.next(), args.next()) {
        (Some(address), Some(form)) => {
            let form = form.parse().map_err(|error| format!("{form}: {error}"))?;
            Ok((loopback(&address)?, form))
        }
        _ => Err("give an address such as 127.0.0.1:0, and a form of frames such as lines".into()),
    }
}

/// Prints the line that tells the runner where the server listens.
pub fn announce(address: SocketAddr) {
    println!("listening on {address}");
}

/// Turns the outcome of a program into its exit status, with a readable message.
pub fn exit(outcome: Result<(), String>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> impl Iterator<Item = String> {
        words.iter().map(ToString::to_string).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn only_loopback_is_accepted() {
        assert!(loopback("127.0.0.1:0").is_ok());
        assert!(loopback("127.8.9.10:80").is_ok());
        assert!(loopback("[::1]:80").is_ok());
        for refused in ["0.0.0.0:80", "192.0.2.1:80", "[::]:80", "localhost:80", "127.0.0.1"] {
            assert!(loopback(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn sizes_are_in_bytes_or_have_a_unit() {
        assert_eq!(bytes("65536"), Ok(65_536));
        assert_eq!(bytes("64K"), Ok(65_536));
        assert_eq!(bytes("1024M"), Ok(1 << 30));
        for refused in ["0", "0K", "1025M", "99999999999999999999", "64k", "64KK", "K", "-1", ""] {
            assert!(bytes(refused).is_err(), "{refused}");
        }
        assert!(bytes(&format!("{}K", usize::MAX)).is_err());
    }

    #[test]
    fn values_are_parsed_and_bounded() {
        assert_eq!(value::<u8>("--x", &mut args(&["7"])), Ok(7));
        assert!(value::<u8>("--x", &mut args(&["300"])).is_err());
        assert!(value::<u8>("--x", &mut args(&[])).is_err());
        assert_eq!(count("--x", &mut args(&["10"]), 10), Ok(10));
        assert!(count("--x", &mut args(&["11"]), 10).is_err());
        assert!(count("--x", &mut args(&["0"]), 10).is_err());
    }
}
