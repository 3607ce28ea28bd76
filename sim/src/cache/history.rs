//! What has been referenced before: tells cold misses and misses caused by
//! invalidations apart from the rest.

use rustc_hash::FxHashMap;

use super::{Key, Tag};
use crate::events::Perm;

/// Pages per block of history.
const BLOCK: usize = 512;
const SEEN: u8 = 1;
/// An infinitely large cache under the same invalidations holds the page.
const HELD: u8 = 2;
/// Where the rights begin that it holds the page with.
const RIGHTS_SHIFT: u32 = 2;

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// Never referenced.
    Never,
    /// Referenced, but an invalidation has covered it since, or the rights
    /// that it was cached with do not suffice.
    Invalidated,
    /// Referenced, and not invalidated since.
    Held,
}

/// An infinitely large cache in one byte per page: exact, and cheap because
/// neighbouring pages share a block (one hash look-up per 512 pages' block).
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Block number by `key / 512`.
    blocks: FxHashMap<u64, u32>,
    /// 512 bytes per block.
    state: Vec<u8>,
    /// Per block: the tag's epoch at which `HELD` bits are valid.
    epoch: Vec<u32>,
    /// Per tag: number of invalidations of the whole tag.
    tag_epoch: Vec<u32>,
}

impl History {
    fn tag_epoch(&mut self, tag: Tag) -> u32 {
        let at = tag.0 as usize;
        if at >= self.tag_epoch.len() {
            self.tag_epoch.resize(at + 1, 0);
        }
        self.tag_epoch[at]
    }

    /// Records a reference to `key` that needs `needed` and whose walk grants
    /// `rights`; returns what was known before.
    #[inline]
    pub fn reference(&mut self, key: Key, needed: Perm, rights: Perm) -> Seen {
        let epoch = self.tag_epoch(key.tag());
        let next = self.epoch.len() as u32;
        let block = *self.blocks.entry(key.bits() / BLOCK as u64).or_insert(next);
        if block == next {
            self.epoch.push(epoch);
            self.state.resize(self.state.len() + BLOCK, 0);
        }
        self.refresh(block, epoch);
        let state = &mut self.state[block as usize * BLOCK + key.bits() as usize % BLOCK];
        let before = seen(*state, needed);
        *state = SEEN | HELD | rights.0 << RIGHTS_SHIFT;
        before
    }

    /// Where the state of `key` is, if it has one.
    #[inline]
    pub fn place(&self, key: Key) -> Option<usize> {
        let block = *self.blocks.get(&(key.bits() / BLOCK as u64))?;
        Some(block as usize * BLOCK + key.bits() as usize % BLOCK)
    }

    /// The state at a place; 0 beyond the end.
    #[inline]
    pub fn at(&self, place: usize) -> u8 {
        self.state.get(place).copied().unwrap_or(0)
    }

    /// What is known of `key`, without a reference (for requests that fault).
    pub fn peek(&mut self, key: Key, needed: Perm) -> Seen {
        let epoch = self.tag_epoch(key.tag());
        let Some(block) = self.blocks.get(&(key.bits() / BLOCK as u64)).copied() else {
            return Seen::Never;
        };
        self.refresh(block, epoch);
        seen(self.state[block as usize * BLOCK + key.bits() as usize % BLOCK], needed)
    }

    #[inline]
    fn refresh(&mut self, block: u32, epoch: u32) {
        let at = block as usize;
        if self.epoch[at] != epoch {
            self.epoch[at] = epoch;
            for s in &mut self.state[at * BLOCK..(at + 1) * BLOCK] {
                *s &= SEEN;
            }
        }
    }

    /// An invalidation covers the pages of `size` of `tag` from page number
    /// `first` to `last`.
    pub fn invalidate(&mut self, first: Key, last: Key) {
        let (first, last) = (first.bits(), last.bits());
        let (low, high) = (first / BLOCK as u64, last / BLOCK as u64);
        if high - low >= self.blocks.len() as u64 {
            let History { blocks, state, .. } = self;
            for (number, block) in blocks.iter().filter(|(n, _)| (low..=high).contains(n)) {
                clear(state, *block, *number, first, last);
            }
            return;
        }
        for number in low..=high {
            if let Some(block) = self.blocks.get(&number) {
                clear(&mut self.state, *block, number, first, last);
            }
        }
    }

    /// An invalidation covers everything of `tag`.
    pub fn invalidate_tag(&mut self, tag: Tag) {
        self.tag_epoch(tag);
        let epoch = &mut self.tag_epoch[tag.0 as usize];
        *epoch = epoch.wrapping_add(1);
    }
}

#[inline]
fn seen(state: u8, needed: Perm) -> Seen {
    if state == 0 {
        Seen::Never
    } else if state & HELD != 0 && Perm(state >> RIGHTS_SHIFT).allows(needed) {
        Seen::Held
    } else {
        Seen::Invalidated
    }
}

fn clear(state: &mut [u8], block: u32, number: u64, first: u64, last: u64) {
    let base = number * BLOCK as u64;
    let from = first.max(base) - base;
    let to = last.min(base + BLOCK as u64 - 1) - base;
    let at = block as usize * BLOCK;
    for s in &mut state[at + from as usize..=at + to as usize] {
        *s &= SEEN;
    }
}
