//! The live connections of a run.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::link::Link;

/// The live connections of a run, in shards so that workers seldom meet.
pub(crate) struct Registry {
    shards: [Mutex<Shard>; Registry::SHARDS],
}

type Shard = HashMap<u64, Arc<Link>, BuildHasherDefault<NumberHasher>>;

/// Spreads the numbers of connections. We give them one after the other, so no peer can choose them, and
/// nothing dearer is needed.
#[derive(Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio of 2^64: neighbours end up far apart, in the upper bits too.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Registry {
    const SHARDS: usize = 16;

    /// Room in each shard that is not given back.
    const KEPT: usize = 64;

    fn shard(&self, number: u64) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[(number % Self::SHARDS as u64) as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, link: &Arc<Link>) {
        self.shard(link.number).insert(link.number, Arc::clone(link));
    }

    pub(super) fn remove(&self, number: u64) {
        let mut shard = self.shard(number);
        shard.remove(&number);
        // After a crowd has left, its memory is given back; a little is kept for those who come and go.
        if shard.capacity() > Self::KEPT && shard.len() * 4 < shard.capacity() {
            let keep = shard.len() * 2;
            shard.shrink_to(keep);
        }
    }

    pub(crate) fn find(&self, number: u64) -> Option<Arc<Link>> {
        self.shard(number).get(&number).cloned()
    }

    pub(crate) fn each(&self, mut visit: impl FnMut(&Arc<Link>)) {
        for shard in 0..Self::SHARDS as u64 {
            // Collected first: a visit may wake tasks, which must not happen under the lock.
            let links: Vec<_> = self.shard(shard).values().cloned().collect();
            links.iter().for_each(&mut visit);
        }
    }
}
