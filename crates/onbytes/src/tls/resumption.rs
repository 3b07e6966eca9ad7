//! Sessions that are resumed, for exactly as long as `session_timeout` says.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::server::{ProducesTickets, StoresServerSessions};

use super::provider::primitives::aead::{
    AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use super::provider::primitives::rand::{SecureRandom, SystemRandom};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks leaves a value half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// ---- Tickets: the server keeps nothing, the client brings its session along ----

/// Makes tickets and opens them again until their time is over.
///
/// A ticket is a key's name, a nonce, and the sealed moment of its end with the session behind it,
/// so its time is kept to the millisecond. A key seals for as long as its tickets live, and opens
/// for as long again; then it is forgotten, which limits what a stolen one tells.
pub(super) struct Tickets {
    lifetime: Duration,
    random: SystemRandom,
    keys: Mutex<Keys>,
}

struct Keys {
    current: Arc<TicketKey>,
    previous: Option<Arc<TicketKey>>,
    changed: Instant,
}

const NAME_LEN: usize = 16;
const END_LEN: usize = 8;

struct TicketKey {
    name: [u8; NAME_LEN],
    aead: LessSafeKey,
}

impl TicketKey {
    fn new(random: &SystemRandom) -> Option<Self> {
        let (mut name, mut secret) = ([0; NAME_LEN], [0; 32]);
        random.fill(&mut name).ok()?;
        random.fill(&mut secret).ok()?;
        let aead = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &secret).ok()?);
        Some(Self { name, aead })
    }
}

impl Tickets {
    /// `None` where the system has no random numbers.
    pub(super) fn new(lifetime: Duration) -> Option<Self> {
        let random = SystemRandom::new();
        let current = Arc::new(TicketKey::new(&random)?);
        let keys = Keys { current, previous: None, changed: Instant::now() };
        Some(Self { lifetime, random, keys: Mutex::new(keys) })
    }

    fn sealing_key(&self) -> Arc<TicketKey> {
        let mut keys = lock(&self.keys);
        let age = keys.changed.elapsed();
        if age >= self.lifetime
            && let Some(new) = TicketKey::new(&self.random)
        {
            let replaced = std::mem::replace(&mut keys.current, Arc::new(new));
            // After twice its lifetime no ticket of the replaced one is good any more either.
            keys.previous = (age < self.lifetime * 2).then_some(replaced);
            keys.changed = Instant::now();
        }
        Arc::clone(&keys.current)
    }

    fn opening_key(&self, name: &[u8]) -> Option<Arc<TicketKey>> {
        let mut keys = lock(&self.keys);
        if keys.changed.elapsed() >= self.lifetime {
            // Its last ticket was sealed when the present key came.
            keys.previous = None;
        }
        let known = [Some(&keys.current), keys.previous.as_ref()];
        known.into_iter().flatten().find(|key| key.name == name).cloned()
    }

    fn seal(&self, session: &[u8], end: Duration) -> Option<Vec<u8>> {
        let key = self.sealing_key();
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut sealed = u64::try_from(end.as_millis()).ok()?.to_be_bytes().to_vec();
        sealed.extend_from_slice(session);
        let nonce_of_key = Nonce::assume_unique_for_key(nonce);
        key.aead.seal_in_place_append_tag(nonce_of_key, Aad::from(key.name), &mut sealed).ok()?;
        Some([&key.name, &nonce[..], &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: Duration) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_LEN)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let key = self.opening_key(name)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = key.aead.open_in_place(nonce, Aad::from(key.name), &mut sealed).ok()?;
        let (end, session) = opened.split_at_checked(END_LEN)?;
        let end = Duration::from_millis(u64::from_be_bytes(end.try_into().ok()?));
        (now < end).then(|| session.to_vec())
    }
}

/// The time since the process first asked: a clock that nobody sets back. Tickets do not outlive the
/// process.
fn now() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.seal(session, now() + self.lifetime)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, now())
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

// ---- Session ids: the server keeps the session of a TLS 1.2 client that knows no tickets ----

/// Sessions by their ids, at most so many, each until its time is over.
pub(super) struct SessionIds {
    lifetime: Duration,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    by_id: HashMap<Vec<u8>, (Vec<u8>, Instant)>,
    /// The ids in the order in which they came, some of them gone already.
    order: VecDeque<(Vec<u8>, Instant)>,
}

impl SessionIds {
    /// The most that are kept, some 200 bytes each.
    const MOST: usize = 4096;

    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, sessions: Mutex::default() }
    }

    fn put_at(&self, id: Vec<u8>, session: Vec<u8>, now: Instant) {
        let mut sessions = lock(&self.sessions);
        let Sessions { by_id, order } = &mut *sessions;
        while let Some((oldest, made)) = order.front() {
            let is_over = now.duration_since(*made) >= self.lifetime;
            if !is_over && order.len() < Self::MOST {
                break;
            }
            // A later session of the same id stays.
            if by_id.get(oldest).is_some_and(|(_, of)| of == made) {
                by_id.remove(oldest);
            }
            order.pop_front();
        }
        order.push_back((id.clone(), now));
        by_id.insert(id, (session, now));
    }

    fn get_at(&self, id: &[u8], now: Instant) -> Option<Vec<u8>> {
        let sessions = lock(&self.sessions);
        let (session, made) = sessions.by_id.get(id)?;
        (now.duration_since(*made) < self.lifetime).then(|| session.clone())
    }
}

impl StoresServerSessions for SessionIds {
    fn put(&self, id: Vec<u8>, session: Vec<u8>) -> bool {
        self.put_at(id, session, Instant::now());
        true
    }

    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.get_at(id, Instant::now())
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        let (session, made) = lock(&self.sessions).by_id.remove(id)?;
        (made.elapsed() < self.lifetime).then_some(session)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for SessionIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionIds").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

// ---- A client's sessions ----

/// What a client remembers of the servers it has spoken to.
pub(super) struct ClientSessions {
    lifetime: Duration,
    servers: Mutex<Servers>,
}

#[derive(Default)]
struct Servers {
    by_name: HashMap<ServerName<'static>, Remembered>,
    /// The names in the order in which they came.
    order: VecDeque<ServerName<'static>>,
}

#[derive(Default)]
struct Remembered {
    group: Option<NamedGroup>,
    tls12: Option<(Tls12ClientSessionValue, Instant)>,
    /// Each is good for one connection (RFC 8446, section C.4).
    tls13: VecDeque<(Tls13ClientSessionValue, Instant)>,
}

impl ClientSessions {
    const MOST_SERVERS: usize = 256;
    /// As many as connections may begin at a time, each of which takes one and brings two.
    const MOST_TICKETS: usize = 64;

    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, servers: Mutex::default() }
    }

    fn is_good(&self, made: Instant) -> bool {
        made.elapsed() < self.lifetime
    }

    fn change(&self, name: ServerName<'static>, change: impl FnOnce(&mut Remembered)) {
        let mut servers = lock(&self.servers);
        if !servers.by_name.contains_key(&name) {
            if servers.order.len() == Self::MOST_SERVERS
                && let Some(oldest) = servers.order.pop_front()
            {
                servers.by_name.remove(&oldest);
            }
            servers.order.push_back(name.clone());
        }
        change(servers.by_name.entry(name).or_default());
    }
}

impl ClientSessionStore for ClientSessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.change(name, |server| server.group = Some(group));
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        lock(&self.servers).by_name.get(&name.to_owned())?.group
    }

    fn set_tls12_session(&self, name: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.change(name, |server| server.tls12 = Some((session, Instant::now())));
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let servers = lock(&self.servers);
        let (session, made) = servers.by_name.get(&name.to_owned())?.tls12.as_ref()?;
        self.is_good(*made).then(|| session.clone())
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        if let Some(server) = lock(&self.servers).by_name.get_mut(name) {
            server.tls12 = None;
        }
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.change(name, |server| {
            if server.tls13.len() == Self::MOST_TICKETS {
                server.tls13.pop_front();
            }
            server.tls13.push_back((ticket, Instant::now()));
        });
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut servers = lock(&self.servers);
        let (ticket, made) = servers.by_name.get_mut(name)?.tls13.pop_back()?;
        self.is_good(made).then_some(ticket)
    }
}

impl fmt::Debug for ClientSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSessions").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(60);

    #[test]
    fn a_ticket_opens_until_its_time_is_over() {
        let tickets = Tickets::new(LIFETIME).unwrap();
        let end = Duration::from_secs(1_000_000);
        let ticket = tickets.seal(b"a session", end).unwrap();
        let just_before = end - Duration::from_millis(1);
        assert_eq!(tickets.open(&ticket, just_before).as_deref(), Some(&b"a session"[..]));
        assert_eq!(tickets.open(&ticket, end), None);
    }

    #[test]
    fn a_ticket_that_was_changed_or_is_of_another_listener_does_not_open() {
        let tickets = Tickets::new(LIFETIME).unwrap();
        let ticket = tickets.encrypt(b"a session").unwrap();
        assert!(tickets.decrypt(&ticket).is_some());
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut at {at}");
        }
        assert_eq!(Tickets::new(LIFETIME).unwrap().decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_outlives_the_change_of_keys_but_not_two() {
        let tickets = Tickets::new(LIFETIME).unwrap();
        let ticket = tickets.encrypt(b"a session").unwrap();
        let age = |by: Duration| {
            let mut keys = lock(&tickets.keys);
            keys.changed = keys.changed.checked_sub(by).unwrap();
        };
        age(LIFETIME);
        let later = tickets.encrypt(b"another").unwrap();
        assert_ne!(ticket[..NAME_LEN], later[..NAME_LEN]);
        assert!(tickets.decrypt(&ticket).is_some() && tickets.decrypt(&later).is_some());
        age(LIFETIME);
        tickets.encrypt(b"a third").unwrap();
        assert!(tickets.decrypt(&ticket).is_none() && tickets.decrypt(&later).is_some());
    }

    #[test]
    fn session_ids_are_kept_for_their_time_and_bounded() {
        let ids = SessionIds::new(LIFETIME);
        let start = Instant::now();
        ids.put_at(b"one".to_vec(), b"first".to_vec(), start);
        ids.put_at(b"one".to_vec(), b"second".to_vec(), start + LIFETIME / 2);
        let at = |after| ids.get_at(b"one", start + after);
        assert_eq!(at(LIFETIME).as_deref(), Some(&b"second"[..]));
        assert_eq!(at(LIFETIME * 3 / 2), None);
        // What is over is forgotten, and a crowd is bounded.
        let later = start + LIFETIME * 2;
        for number in 0..2 * SessionIds::MOST as u32 {
            ids.put_at(number.to_be_bytes().to_vec(), vec![], later);
        }
        let sessions = lock(&ids.sessions);
        assert!(sessions.by_id.len() <= SessionIds::MOST);
        assert!(
            sessions.order.len() <= SessionIds::MOST && !sessions.by_id.contains_key(&b"one"[..])
        );
    }
}
