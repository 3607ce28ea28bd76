//! Records of a window linked by what they have in common.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::END;

/// Chains of records with the same key, first and last by key. Positions are
/// the low 32 bits of indexes; a window is far smaller than 2^31 records.
#[derive(Debug, Default)]
pub(super) struct Chains<K> {
    pub(super) ends: FxHashMap<K, (u32, u32)>,
}

impl<K: Hash + Eq> Chains<K> {
    /// Appends record `at`; gives the record whose link must be set to it.
    /// A record older than the chain's last is left out: it can only be one
    /// whose output became known late, and a newer one proves the same.
    pub(super) fn push(&mut self, key: K, at: u32) -> Option<u32> {
        match self.ends.entry(key) {
            std::collections::hash_map::Entry::Occupied(mut e) => {
                let last = e.get().1;
                if at.wrapping_sub(last) as i32 <= 0 {
                    return None;
                }
                e.get_mut().1 = at;
                Some(last)
            }
            std::collections::hash_map::Entry::Vacant(e) => {
                e.insert((at, at));
                None
            }
        }
    }

    /// Removes record `at`, the oldest of all, whose link is `next`.
    pub(super) fn pop(&mut self, key: K, at: u32, next: u32) {
        if let std::collections::hash_map::Entry::Occupied(mut e) = self.ends.entry(key)
            && e.get().0 == at
        {
            if next == END {
                e.remove();
            } else {
                e.get_mut().0 = next;
            }
        }
    }

    pub(super) fn first(&self, key: &K) -> u32 {
        self.ends.get(key).map_or(END, |e| e.0)
    }
}
