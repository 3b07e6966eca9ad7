//! `cargo run --example syslog_tls -- CERT.pem KEY.pem`: prints what syslog senders send over TLS
//! (RFC 5425), on port 6514; with `PORT CERT.pem KEY.pem` on another, with `PORT` alone over plain TCP.
//!
//! `onbytes certs --out certs` makes a certificate and a key. Without TLS
//! `logger --tcp --server 127.0.0.1 --port PORT hello` is a sender. Each message is one line:
//! facility, severity, host, message. It may be written as in RFC 5424 or in RFC 3164.

use std::io::Write;

use onbytes::{
    Bytes, Caller, CertKey, ConnectionService, Event, FrameMark, Framing, Listener,
    ListenerConfiguration, ListenerSecureSocket, Oversize, Result, Service,
};

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];
const SEVERITIES: [&str; 8] =
    ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// The priority of a message that has none: user.notice (RFC 3164, 4.3.3).
const NO_PRIORITY: usize = 13;

/// Facility and severity in one number, and what is behind it.
fn priority(text: &str) -> Option<(usize, &str)> {
    let (digits, rest) = text.strip_prefix('<')?.split_once('>')?;
    let is_number = digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|number| *number < 8 * FACILITIES.len())?;
    is_number.then_some((number, rest))
}

/// Host and message of RFC 5424: `1 TIME HOST APPLICATION PROCESS ID DATA MESSAGE`.
fn modern(text: &str) -> Option<(&str, &str)> {
    let mut words = text.strip_prefix("1 ")?.splitn(6, ' ');
    let host = words.nth(1)?;
    Some((host, behind_data(words.nth(3)?)?.trim_start_matches('\u{feff}')))
}

/// What is behind structured data: `-`, or `[…][…]` with quoted values, which may hold anything.
fn behind_data(text: &str) -> Option<&str> {
    let (mut is_inside, mut is_quoted, mut is_escaped) = (false, false, false);
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = is_inside && !is_quoted,
            b'[' | b']' if !is_quoted => is_inside = byte == b'[',
            b' ' if !is_inside => return Some(&text[place + 1..]),
            _ => {}
        }
    }
    (!is_inside).then_some("")
}

/// Host and message of RFC 3164: `Mmm dd hh:mm:ss HOST MESSAGE`.
fn traditional(text: &str) -> Option<(&str, &str)> {
    let (time, rest) = text.split_at_checked(16)?;
    let at = |place: usize| time.as_bytes()[place];
    let is_time = [at(3), at(6), at(9), at(12), at(15)] == *b"  :: ";
    rest.split_once(' ').filter(|_| is_time)
}

/// One line for a message. The host is the sender where the message names none.
fn line(message: &[u8], sender: &str) -> String {
    let text = String::from_utf8_lossy(message);
    let (number, rest) = priority(&text).unwrap_or((NO_PRIORITY, &text));
    let (host, said) = modern(rest).or_else(|| traditional(rest)).unwrap_or((sender, rest));
    let (facility, severity) = (FACILITIES[number / 8], SEVERITIES[number % 8]);
    // What a stranger sends must not steer the terminal, or look like two messages.
    let printable = |text: &str| text.trim_end().replace(char::is_control, " ");
    format!("{facility}.{severity} {} {}", printable(host), printable(said))
}

struct Sink;

impl Service for Sink {
    type Connection = Self;

    async fn on_connect(&self, _: &Caller) -> Result<Self> {
        Ok(Self)
    }
}

impl ConnectionService for Sink {
    async fn on_bytes(&mut self, message: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        let mut line = line(&message, &caller.remote_host());
        if let FrameMark::Truncated(len) = caller.frame_mark() {
            line.push_str(&format!(" [cut: it had {len} bytes]"));
        }
        writeln!(std::io::stdout(), "{line}")?;
        Ok(None)
    }
}

/// The port, and the certificate if there is one.
fn arguments() -> Result<(u16, Option<CertKey>)> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (port, secured) = match &args[..] {
        [port] => (port.as_str(), None),
        [cert, key] => ("6514", Some(CertKey::new(cert, key))),
        [port, cert, key] => (port.as_str(), Some(CertKey::new(cert, key))),
        _ => return Err("give the files of a certificate and its key, or a port, or all".into()),
    };
    Ok((port.parse().map_err(|_| "the port is a number from 0 to 65535")?, secured))
}

#[tokio::main]
async fn main() -> Result<()> {
    let (port, secured) = arguments()?;
    // RFC 5424 wants the beginning of what is too long rather than nothing.
    let framing = Framing::syslog().max_frame(8192).oversize(Oversize::Truncate);
    let config = ListenerConfiguration::new()
        .framing(framing)
        .secure_socket(secured.map(ListenerSecureSocket::new));
    let listener = Listener::new(("127.0.0.1", port), config)?;
    listener.on_event(|event| {
        if let Event::Listening { local_addr, .. } = event {
            println!("listening on {local_addr}");
        }
    });
    listener.serve(Sink).await?;
    Ok(())
}
