//! The live connections of a run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::link::Link;

/// The live connections of a run, in shards so that workers seldom meet.
pub(crate) struct Registry {
    shards: [Mutex<HashMap<u64, Arc<Link>>>; Registry::SHARDS],
}

impl Default for Registry {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Registry {
    const SHARDS: usize = 16;

    fn shard(&self, number: u64) -> MutexGuard<'_, HashMap<u64, Arc<Link>>> {
        let shard = &self.shards[(number % Self::SHARDS as u64) as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, link: &Arc<Link>) {
        self.shard(link.number).insert(link.number, Arc::clone(link));
    }

    pub(super) fn remove(&self, number: u64) {
        let mut shard = self.shard(number);
        shard.remove(&number);
        // After a crowd has left, its memory is given back.
        if shard.len() * 4 < shard.capacity() {
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
