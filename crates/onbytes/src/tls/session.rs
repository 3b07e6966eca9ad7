//! One connection's TLS: wire bytes in, plain bytes out, and the other way round. It knows no
//! socket; whoever has one moves the bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::UnixTime;
use rustls::server::UnbufferedServerConnection;
use rustls::server::danger::ClientCertVerifier;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CommonState, Error as TlsError, HandshakeKind};

use super::failure;
use super::hello::{self, Answers};
use super::info::TlsInfo;
use super::trust::ClientTrust;
use crate::{Error, ErrorKind};

mod record;

use record::{Record, make_unfinished};

/// The most that a peer can make us keep of handshake messages that are not complete. rustls itself
/// refuses a message of more than 64 KiB; small fragments have headers beside.
const MOST_PENDING: usize = 160 * 1024;

/// The most steps that it takes to collect what the peer is to be told of a failure: two for each
/// message.
const LAST_STEPS: usize = 16;

/// A TLS connection's state.
pub(crate) struct Session {
    side: Side,
    /// Wire bytes that make no whole record, or no whole handshake message, yet. rustls remembers
    /// places in them, so it has to be shown all of them at every call.
    pending: Vec<u8>,
    /// How much of these are records that rustls was shown already: parts of a handshake message.
    shown: usize,
    /// Plain bytes that came along with the end of the handshake.
    early: BytesMut,
    /// Wire bytes for the peer that the kernel has not taken yet.
    outgoing: BytesMut,
    /// How many bytes of the write queue `outgoing` stands for. They are done when it is empty.
    sealed: usize,
    /// The peer has said (close_notify) that it sends no more.
    peer_ended: bool,
    /// The peer has ended the TCP connection's direction to us.
    fin_seen: bool,
    /// Wire bytes that came, and that the kernel has taken.
    heard: u64,
    taken: u64,
    /// We have said (close_notify), or cannot say any more, that we send no more.
    ended: bool,
    /// Who decides again whether a client is let in that resumes a session, until the handshake is
    /// complete.
    client_trust: Option<Arc<ClientTrust>>,
    /// The server name that the client asked for, until the handshake is complete.
    server_name: Option<String>,
    /// What is wrong with what came, told after the plain bytes before it were delivered.
    failed: Option<Error>,
}

enum Side {
    /// A server's, before its client says anything: nothing is kept for one that never does.
    Unheard(Arc<Answers>),
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl From<Arc<Answers>> for Session {
    fn from(answers: Arc<Answers>) -> Self {
        Self::new(Side::Unheard(answers))
    }
}

impl From<UnbufferedClientConnection> for Session {
    fn from(connection: UnbufferedClientConnection) -> Self {
        Self::new(Side::Client(connection))
    }
}

/// What is to be done after one step of the protocol.
enum Step {
    /// Another one: there may be more to do.
    Again,
    /// Nothing, before more comes from the peer.
    Rest,
    /// Another one; the peer sends no more.
    PeerEnded,
}

impl Session {
    /// The memory that a session takes beside [`held`](Self::held), in bytes; measured (BENCHMARKS.md).
    pub(crate) const WEIGHT_AT_REST: u64 = 4 * 1024;
    /// The same until its handshake is complete.
    pub(crate) const WEIGHT_IN_HANDSHAKE: u64 = 6 * 1024;

    fn new(side: Side) -> Self {
        Self {
            side,
            pending: Vec::new(),
            shown: 0,
            early: BytesMut::new(),
            outgoing: BytesMut::new(),
            sealed: 0,
            peer_ended: false,
            fin_seen: false,
            heard: 0,
            taken: 0,
            ended: false,
            client_trust: None,
            server_name: None,
            failed: None,
        }
    }

    /// What rustls knows of the connection, from its first byte on.
    pub(super) fn common(&self) -> Option<&CommonState> {
        match &self.side {
            Side::Unheard(_) => None,
            Side::Server(connection) => Some(connection),
            Side::Client(connection) => Some(connection),
        }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.common().is_none_or(CommonState::is_handshaking)
    }

    /// The session asks for this server name.
    pub(super) fn with_server_name(mut self, name: Option<String>) -> Self {
        self.server_name = name;
        self
    }

    // ---- The handshake ----

    /// Takes in wire bytes of a handshake; none at its beginning, where a client speaks first. What
    /// the peer says beyond the handshake is kept for later.
    pub(crate) fn shake_hands(&mut self, wire: &mut [u8]) {
        // One that was left behind is not this client's.
        let _ = hello::take_server_name();
        self.hear(wire);
        let mut plain = std::mem::take(&mut self.early);
        self.take_in(wire, &mut plain);
        self.early = plain;
        if let Some(asked) = hello::take_server_name() {
            self.server_name = Some(asked);
        }
    }

    /// The first bytes of a client decide what it is answered with.
    fn hear(&mut self, wire: &[u8]) {
        let Side::Unheard(answers) = &self.side else { return };
        if wire.is_empty() {
            return;
        }
        match answers.to(wire) {
            Ok(connection) => {
                self.client_trust.clone_from(&answers.client_trust);
                self.side = Side::Server(connection);
            }
            Err(error) => self.failed = Some(failure::of_peer(error)),
        }
    }

    /// What was agreed on, once, when the handshake is complete.
    ///
    /// A session that is resumed brings the client's certificate of an earlier handshake along, which
    /// may have expired or been revoked since. rustls does not look at it again.
    pub(crate) fn complete(&mut self) -> Result<Option<TlsInfo>, Error> {
        let trust = self.client_trust.take();
        let Some(common) = self.common() else { return Ok(None) };
        let certificates = common.peer_certificates().unwrap_or_default();
        if let (Some(trust), [own, others @ ..], Some(HandshakeKind::Resumed)) =
            (trust, certificates, common.handshake_kind())
            && let Err(error) = trust.verify_client_cert(own, others, UnixTime::now())
        {
            // No goodbye: a client should not take this for an answer.
            self.ended = true;
            return Err(failure::of_peer(error));
        }
        let server_name = self.server_name.take();
        Ok(TlsInfo::of(self, server_name))
    }

    // ---- From the peer ----

    /// Puts what earlier wire bytes left over before those that come next, and makes room for these.
    pub(crate) fn lay_out_pending(&mut self, wire: &mut BytesMut, room: usize) {
        wire.reserve(self.pending.len() + room);
        wire.extend_from_slice(&self.pending);
    }

    /// Takes wire bytes apart, beginning with those of [`lay_out_pending`](Self::lay_out_pending),
    /// and appends what they say to `plain`. Answers that the protocol asks for become outgoing.
    ///
    /// rustls is shown one record more at a time. Where it finds one bad, it is asked once more, with
    /// an unfinished record in that one's place, for the alert that the peer is to be told.
    pub(crate) fn take_in(&mut self, wire: &mut [u8], plain: &mut BytesMut) {
        self.heard += (wire.len() - self.pending.len()) as u64;
        // Up to where rustls is done with the bytes, and up to where it was shown whole records.
        let mut done = 0;
        let mut shown = std::mem::take(&mut self.shown);
        // Looked up once for each record: rustls writes over headers when it joins fragments.
        let mut record = Record::at(wire, shown);
        loop {
            let end = record.end;
            let (discard, step) = self.step_unharmed(&mut wire[done..end], plain);
            done += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::PeerEnded) => self.peer_ended = true,
                Ok(Step::Rest) if end < wire.len() => {
                    shown = end;
                    record = Record::at(wire, shown);
                }
                Ok(Step::Rest) => {
                    if record.is_whole {
                        shown = end;
                    }
                    break;
                }
                Err(error) => {
                    self.failed = Some(failure::of_peer(error));
                    let start = shown.max(done);
                    if let Some(len) = make_unfinished(&mut wire[start..end]) {
                        self.collect_alerts(&mut wire[done..start + len]);
                    }
                    self.ended = true;
                    break;
                }
            }
        }
        self.keep_pending(wire, done, shown);
    }

    /// Keeps what makes nothing whole yet.
    fn keep_pending(&mut self, wire: &[u8], done: usize, shown: usize) {
        let rest = &wire[done..];
        if rest.len() > MOST_PENDING && self.failed.is_none() {
            self.failed = Some(failure::endless_handshake());
            self.ended = true;
        }
        if rest.is_empty() || self.peer_ended || self.failed.is_some() {
            // An idle connection holds no memory for what it receives. After a failure rustls is
            // asked nothing more, and after the peer's end it looks at nothing.
            self.pending = Vec::new();
            return;
        }
        self.pending.clear();
        self.pending.extend_from_slice(rest);
        self.shown = shown.saturating_sub(done);
    }

    /// One step, in which rustls may fail an assertion of its own in a debug build: it holds that
    /// nobody sends an alert twice, and counts our goodbye.
    fn step_unharmed(
        &mut self,
        wire: &mut [u8],
        plain: &mut BytesMut,
    ) -> (usize, Result<Step, TlsError>) {
        if cfg!(debug_assertions) && self.ended {
            let step = catch_unwind(AssertUnwindSafe(|| self.step(wire, plain)));
            return step.unwrap_or((0, Err(TlsError::DecryptError)));
        }
        self.step(wire, plain)
    }

    fn step(&mut self, wire: &mut [u8], plain: &mut BytesMut) -> (usize, Result<Step, TlsError>) {
        let out = &mut self.outgoing;
        match &mut self.side {
            Side::Unheard(_) => (0, Ok(Step::Rest)),
            Side::Server(connection) => carry_out(connection.process_tls_records(wire), plain, out),
            Side::Client(connection) => carry_out(connection.process_tls_records(wire), plain, out),
        }
    }

    /// After a failure: what the peer is to be told of it, behind messages that were ready before.
    fn collect_alerts(&mut self, wire: &mut [u8]) {
        if self.ended {
            return;
        }
        let mut ignored = BytesMut::new();
        for _ in 0..LAST_STEPS {
            if !matches!(self.step(wire, &mut ignored), (0, Ok(Step::Again))) {
                break;
            }
        }
    }

    /// Whether plain bytes, the peer's end or a failure are at hand without reading.
    pub(crate) fn take_at_hand(&mut self) -> Option<Result<AtHand, Error>> {
        if !self.early.is_empty() {
            return Some(Ok(AtHand::Plain(std::mem::take(&mut self.early).freeze())));
        }
        if let Some(error) = &self.failed {
            return Some(Err(error.clone()));
        }
        self.peer_ended.then_some(Ok(AtHand::End))
    }

    /// Whether [`take_at_hand`](Self::take_at_hand) has anything.
    pub(crate) fn has_at_hand(&self) -> bool {
        !self.early.is_empty() || self.failed.is_some() || self.peer_ended
    }

    /// What is wrong with what came, if anything.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// The TCP stream has ended. Whether the peer said so before is the difference between an end
    /// and a cut.
    pub(crate) fn note_fin(&mut self) {
        self.fin_seen = true;
        if !self.peer_ended && self.failed.is_none() {
            self.failed = Some(failure::truncated(self.is_handshaking()));
        }
    }

    /// The TCP stream has ended while what came was of no interest any more.
    pub(crate) fn note_discarded_fin(&mut self) {
        self.fin_seen = true;
    }

    pub(crate) fn fin_seen(&self) -> bool {
        self.fin_seen
    }

    /// Wire bytes that came so far.
    pub(crate) fn heard(&self) -> u64 {
        self.heard
    }

    // ---- To the peer ----

    /// The memory that is taken beside the session itself: parts of records, in either direction.
    pub(crate) fn held(&self) -> usize {
        self.pending.capacity() + self.early.capacity() + self.outgoing.capacity()
    }

    /// Wire bytes that wait for the kernel.
    pub(crate) fn outgoing(&self) -> &[u8] {
        &self.outgoing
    }

    /// The kernel has taken so many wire bytes. Returns how many plain bytes are done by that.
    pub(crate) fn took(&mut self, count: usize) -> usize {
        self.taken += count as u64;
        self.outgoing.advance(count);
        if !self.outgoing.is_empty() {
            return 0;
        }
        // An idle connection holds no memory for what it sends.
        self.outgoing = BytesMut::new();
        std::mem::take(&mut self.sealed)
    }

    /// Writes the wire bytes of `data` to the start of `wire`, which grows where it has to, and
    /// returns how many they are. Nothing may be outgoing.
    pub(crate) fn seal(&mut self, data: &[u8], wire: &mut Vec<u8>) -> Result<usize, Error> {
        debug_assert!(self.outgoing.is_empty(), "records leave in the order they were sealed in");
        if let Some(error) = self.cannot_write() {
            return Err(error);
        }
        self.write(wire, |traffic, out| traffic.encrypt(data, out))
    }

    /// Why nothing can be sealed any more, if so. rustls is asked nothing after a failure.
    fn cannot_write(&self) -> Option<Error> {
        match &self.failed {
            Some(error) if error.kind() != ErrorKind::Truncated => Some(error.clone()),
            _ => self.ended.then(Error::closed),
        }
    }

    /// The kernel has taken the first `taken` of wire bytes that stand for `sealed` plain ones. The
    /// others are kept; returns how many plain bytes are done.
    pub(crate) fn keep(&mut self, wire: &[u8], taken: usize, sealed: usize) -> usize {
        self.taken += taken as u64;
        if taken == wire.len() {
            return sealed;
        }
        self.outgoing.extend_from_slice(&wire[taken..]);
        self.sealed = sealed;
        0
    }

    /// Wire bytes that the kernel has taken so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Nothing can be sent any more.
    pub(crate) fn discard_outgoing(&mut self) {
        self.outgoing = BytesMut::new();
        self.sealed = 0;
        self.ended = true;
    }

    /// Says that we send no more (close_notify); tells whether that was news.
    pub(crate) fn end(&mut self) -> bool {
        if self.cannot_write().is_some() || self.is_handshaking() {
            return false;
        }
        self.ended = true;
        let mut wire = Vec::new();
        // A session that cannot even say goodbye ends without.
        let count = self.write(&mut wire, |traffic, out| traffic.end(out)).unwrap_or(0);
        self.outgoing.extend_from_slice(&wire[..count]);
        count > 0
    }

    /// Lets rustls write what is due, and then what `write` asks for.
    fn write(
        &mut self,
        wire: &mut Vec<u8>,
        write: impl Fn(&mut dyn Traffic, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<usize, Error> {
        let Self { side, pending, shown, .. } = self;
        let mut at = 0;
        loop {
            let (discard, step) = match side {
                Side::Unheard(_) => return Err(Error::closed()),
                Side::Server(connection) => {
                    write_step(connection.process_tls_records(pending), wire, &mut at, &write)
                }
                Side::Client(connection) => {
                    write_step(connection.process_tls_records(pending), wire, &mut at, &write)
                }
            };
            pending.drain(..discard);
            *shown = shown.saturating_sub(discard);
            if step?.is_done() {
                return Ok(at);
            }
        }
    }
}

/// Whether a step towards writing was the last one.
enum Written {
    Something,
    All,
}

impl Written {
    fn is_done(&self) -> bool {
        matches!(self, Self::All)
    }
}

/// What a session has for its reader without reading.
pub(crate) enum AtHand {
    Plain(Bytes),
    End,
}

/// Carries out what rustls says is next; returns how many wire bytes are done with.
fn carry_out<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &mut BytesMut,
    outgoing: &mut BytesMut,
) -> (usize, Result<Step, TlsError>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = state.and_then(|state| match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                let record = record?;
                discard += record.discard;
                plain.extend_from_slice(record.payload);
            }
            Ok(Step::Again)
        }
        ConnectionState::EncodeTlsData(mut message) => {
            encode(|out| message.encode(out), outgoing);
            Ok(Step::Again)
        }
        ConnectionState::TransmitTlsData(transmit) => {
            // It is ours to send from now on.
            transmit.done();
            Ok(Step::Again)
        }
        ConnectionState::PeerClosed => Ok(Step::PeerEnded),
        // Early data is never accepted, and whatever else a later rustls may know is waited out.
        _ => Ok(Step::Rest),
    });
    (discard, step)
}

/// Appends one encoded message to `outgoing`.
fn encode(
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
    outgoing: &mut BytesMut,
) {
    let start = outgoing.len();
    let mut room = 0;
    loop {
        outgoing.resize(start + room, 0);
        match encode(&mut outgoing[start..]) {
            Ok(count) => return outgoing.truncate(start + count),
            Err(EncodeError::InsufficientSize(size)) if size.required_size > room => {
                room = size.required_size;
            }
            Err(_) => return outgoing.truncate(start),
        }
    }
}

/// Sealing of one kind, whichever side we are.
trait Traffic {
    fn encrypt(&mut self, data: &[u8], out: &mut [u8]) -> Result<usize, EncryptError>;
    fn end(&mut self, out: &mut [u8]) -> Result<usize, EncryptError>;
}

impl<Data> Traffic for rustls::unbuffered::WriteTraffic<'_, Data> {
    fn encrypt(&mut self, data: &[u8], out: &mut [u8]) -> Result<usize, EncryptError> {
        rustls::unbuffered::WriteTraffic::encrypt(self, data, out)
    }

    fn end(&mut self, out: &mut [u8]) -> Result<usize, EncryptError> {
        self.queue_close_notify(out)
    }
}

/// One step towards writing, into `wire` from `at` on.
fn write_step<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    wire: &mut Vec<u8>,
    at: &mut usize,
    write: impl Fn(&mut dyn Traffic, &mut [u8]) -> Result<usize, EncryptError>,
) -> (usize, Result<Written, Error>) {
    let UnbufferedStatus { discard, state } = status;
    let step = state.map_err(failure::of_peer).and_then(|state| match state {
        ConnectionState::WriteTraffic(mut traffic) => loop {
            match write(&mut traffic, &mut wire[*at..]) {
                Ok(count) => {
                    *at += count;
                    return Ok(Written::All);
                }
                Err(EncryptError::InsufficientSize(size)) => {
                    wire.resize(*at + size.required_size, 0);
                }
                Err(EncryptError::EncryptExhausted) => return Err(failure::exhausted()),
            }
        },
        ConnectionState::EncodeTlsData(mut message) => loop {
            match message.encode(&mut wire[*at..]) {
                Ok(count) => {
                    *at += count;
                    return Ok(Written::Something);
                }
                Err(EncodeError::InsufficientSize(size)) => {
                    wire.resize(*at + size.required_size, 0);
                }
                Err(EncodeError::AlreadyEncoded) => return Ok(Written::Something),
            }
        },
        ConnectionState::TransmitTlsData(transmit) => {
            transmit.done();
            Ok(Written::Something)
        }
        ConnectionState::PeerClosed => Ok(Written::Something),
        _ => Err(Error::closed()),
    });
    (discard, step)
}
