//! What becomes of translations that were fetched before they were asked for.

use rustc_hash::FxHashSet;

use super::Key;
use crate::events::Perm;
use crate::results::PrefetchCounters;

/// Follows every prefetched entry until its first use or its end.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefetched {
    /// Entries present that nobody has asked for.
    unused: FxHashSet<Key>,
    counters: PrefetchCounters,
    /// The latest first use, until the caller takes it.
    first_use: Option<(Key, Perm)>,
}

impl Prefetched {
    /// An entry was put in.
    pub fn issued(&mut self, key: Key) {
        self.counters.issued += 1;
        self.unused.insert(key);
    }

    /// A request found an entry.
    #[inline]
    pub fn used(&mut self, key: Key, rights: Perm) {
        if !self.unused.is_empty() && self.unused.remove(&key) {
            self.counters.useful += 1;
            self.first_use = Some((key, rights));
        }
    }

    /// The first use that [`Prefetched::used`] noted.
    #[inline]
    pub fn take_first_use(&mut self) -> Option<(Key, Perm)> {
        self.first_use.take()
    }

    /// An entry, prefetched or not, had to make room, or a walk replaced it.
    pub fn displaced(&mut self, key: Key) {
        self.counters.evicted_unused += self.unused.remove(&key) as u64;
    }

    /// Entries for which `gone` holds were invalidated.
    pub fn invalidated(&mut self, gone: impl Fn(Key) -> bool) {
        let before = self.unused.len();
        self.unused.retain(|key| !gone(*key));
        self.counters.invalidated_unused += (before - self.unused.len()) as u64;
    }

    /// Counts, with what is still there.
    pub fn counters(&self) -> PrefetchCounters {
        PrefetchCounters { resident_unused: self.unused.len() as u64, ..self.counters }
    }
}
