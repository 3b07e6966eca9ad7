//! A client's first message (RFC 8446, section 4.1.2): what it shows, and what it is answered with.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::{CipherSuite, Error, ServerConfig};

use super::trust::ClientTrust;

// ---- Answers ----

/// What clients are answered with.
pub(super) struct Answers {
    /// For those whose order of suites decides, or whoever comes where ours does.
    pub(super) usual: Arc<ServerConfig>,
    /// For those that would rather speak AES-GCM: with our order of suites, where the cheaper AES-GCM is
    /// before the dearer. `None` where somebody has said whose order it is to be.
    pub(super) aes: Option<Arc<ServerConfig>>,
    pub(super) client_trust: Option<Arc<ClientTrust>>,
}

impl Answers {
    /// Begins to answer a client whose first bytes are these.
    pub(super) fn to(&self, wire: &[u8]) -> Result<UnbufferedServerConnection, Error> {
        let config = match &self.aes {
            Some(aes) if prefers_aes(wire) => aes,
            _ => &self.usual,
        };
        UnbufferedServerConnection::new(Arc::clone(config))
    }
}

// ---- The server name ----

thread_local! {
    static SERVER_NAME: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the name that a client asks for. rustls tells it when it looks for a certificate, in the
/// middle of taking in the client's first message and on the same thread, and never again.
pub(super) fn note_server_name(name: Option<&str>) {
    SERVER_NAME.set(name.map(str::to_ascii_lowercase));
}

/// The name that was noted by this thread since it was last asked.
pub(super) fn take_server_name() -> Option<String> {
    SERVER_NAME.take()
}

// ---- The suites ----

/// The headers of the record and of the message, the version, and the random bytes.
const BEFORE_SESSION_ID: usize = 5 + 4 + 2 + 32;

/// Of a record, and of a message.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Whether the client would rather speak AES-GCM than ChaCha20-Poly1305, as those do whose processor has
/// instructions for AES. `false` for what does not show it: wrong, or not all there.
fn prefers_aes(wire: &[u8]) -> bool {
    let Some(suites) = suites(wire) else { return false };
    suites.chunks_exact(2).find_map(is_aes).unwrap_or(false)
}

/// The list of suites, or what there is of it.
fn suites(wire: &[u8]) -> Option<&[u8]> {
    let (fixed, rest) = wire.split_at_checked(BEFORE_SESSION_ID)?;
    if (fixed[0], fixed[5]) != (HANDSHAKE, CLIENT_HELLO) {
        return None;
    }
    let (session_id, rest) = rest.split_first()?;
    let rest = rest.get(usize::from(*session_id)..)?;
    let ([high, low], rest) = rest.split_first_chunk()?;
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    Some(rest.get(..len).unwrap_or(rest))
}

/// `None` for a suite that is not served.
fn is_aes(code: &[u8]) -> Option<bool> {
    let &[high, low] = code else { return None };
    match CipherSuite::from(u16::from_be_bytes([high, low])) {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS13_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(true),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AES: [u8; 2] = [0x13, 0x02];
    const CHACHA: [u8; 2] = [0x13, 0x03];
    const GREASE: [u8; 2] = [0x0a, 0x0a];
    const CBC: [u8; 2] = [0xc0, 0x13];

    fn hello(session_id: &[u8], suites: &[[u8; 2]]) -> Vec<u8> {
        let suites = suites.concat();
        let mut wire = vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
        wire.extend([7; 32]);
        wire.push(u8::try_from(session_id.len()).unwrap());
        wire.extend(session_id);
        wire.extend(u16::try_from(suites.len()).unwrap().to_be_bytes());
        wire.extend(suites);
        // The one method of compression, and what comes behind it.
        wire.extend([1, 0, 0x13, 0x01, 0x13, 0x01]);
        wire
    }

    #[test]
    fn the_first_suite_that_is_served_is_what_the_client_would_rather_speak() {
        for id in [&[][..], &[1; 32]] {
            for (suites, expected) in [
                (&[AES, CHACHA][..], true),
                (&[CHACHA, AES], false),
                (&[GREASE, CBC, AES, CHACHA], true),
                (&[GREASE, CBC, CHACHA, AES], false),
                (&[[0xc0, 0x2c]], true),
                (&[[0xcc, 0xa8]], false),
                (&[GREASE, CBC], false),
                (&[], false),
            ] {
                assert_eq!(prefers_aes(&hello(id, suites)), expected, "{suites:x?}");
            }
        }
    }

    #[test]
    fn what_is_no_whole_hello_shows_what_it_has_and_nothing_else() {
        let whole = hello(&[1; 32], &[CBC, AES, CHACHA]);
        let seen = (0..=whole.len()).find(|len| prefers_aes(&whole[..*len]));
        assert_eq!(seen, Some(BEFORE_SESSION_ID + 1 + 32 + 2 + 4));
        for (place, value) in [(0, 23), (5, 2), (BEFORE_SESSION_ID, 255)] {
            let mut other = whole.clone();
            other[place] = value;
            assert!(!prefers_aes(&other), "{place}");
        }
        assert!(!prefers_aes(b"GET / HTTP/1.1\r\n"));
    }
}
