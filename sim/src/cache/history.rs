//! What has been referenced before: tells cold misses and misses caused by
//! invalidations apart from the rest.

use super::{Key, Sizes, Tag};
use crate::events::Perm;

/// Pages per block of history.
const BLOCK: usize = 512;
const SEEN: u8 = 1;
/// An infinitely large cache under the same invalidations holds the page.
const HELD: u8 = 2;
/// Where the rights begin that it holds the page with.
const RIGHTS_SHIFT: u32 = 2;

/// No block.
const NONE: u32 = u32::MAX;

/// One block's place in the hash chains.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// `key / 512`.
    number: u64,
    /// Next block of the same bucket.
    next: u32,
    /// The tag's epoch at which `HELD` bits are valid.
    epoch: u32,
}

/// Blocks by number; chained, at most one block per bucket on average.
#[derive(Clone, Debug, Default)]
struct Blocks {
    heads: Vec<u32>,
    all: Vec<Block>,
}

impl Blocks {
    /// Fibonacci hashing; `heads` is a power of two and not empty.
    #[inline(always)]
    fn bucket(&self, number: u64) -> usize {
        let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> (u64::BITS - self.heads.len().trailing_zeros())) as usize
    }

    #[inline(always)]
    fn get(&self, number: u64) -> Option<u32> {
        if self.heads.is_empty() {
            return None;
        }
        let mut at = self.heads[self.bucket(number)];
        while at != NONE {
            let block = &self.all[at as usize];
            if block.number == number {
                return Some(at);
            }
            at = block.next;
        }
        None
    }

    /// Adds a block that is not present.
    #[cold]
    fn add(&mut self, number: u64, epoch: u32) -> u32 {
        if self.all.len() * 2 >= self.heads.len() {
            self.heads = vec![NONE; (self.heads.len() * 2).max(64)];
            for at in 0..self.all.len() {
                let bucket = self.bucket(self.all[at].number);
                self.all[at].next = std::mem::replace(&mut self.heads[bucket], at as u32);
            }
        }
        let at = self.all.len() as u32;
        let bucket = self.bucket(number);
        let next = std::mem::replace(&mut self.heads[bucket], at);
        self.all.push(Block { number, next, epoch });
        at
    }
}

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
/// neighbouring pages share a block (one hash look-up among few blocks).
#[derive(Clone, Debug, Default)]
pub struct History {
    blocks: Blocks,
    /// 512 bytes per block.
    state: Vec<u8>,
    /// Per tag: number of invalidations of the whole tag.
    tag_epoch: Vec<u32>,
    /// Sizes of the pages referenced so far: invalidations skip the others.
    sizes: Sizes,
}

impl History {
    #[inline(always)]
    fn tag_epoch(&mut self, tag: Tag) -> u32 {
        let at = tag.0 as usize;
        if at >= self.tag_epoch.len() {
            self.tag_epoch.resize(at + 1, 0);
        }
        self.tag_epoch[at]
    }

    /// Place of the state of `key`, which gets one if it has none. Places
    /// stay, so the states of many keys can be looked up at the same time.
    #[inline(always)]
    pub fn place(&mut self, key: Key) -> usize {
        let epoch = self.tag_epoch(key.tag());
        let number = key.bits() / BLOCK as u64;
        let block = match self.blocks.get(number) {
            Some(block) => block,
            None => {
                self.state.resize(self.state.len() + BLOCK, 0);
                self.sizes = self.sizes.with(key.size());
                self.blocks.add(number, epoch)
            }
        };
        self.refresh(block, epoch);
        block as usize * BLOCK + key.bits() as usize % BLOCK
    }

    /// The bits at a place.
    #[inline(always)]
    pub fn bits(&self, place: usize) -> u8 {
        self.state[place]
    }

    /// Records a reference to the key at `place` that needs `needed` and whose
    /// walk grants `rights`; returns what was known before.
    #[inline(always)]
    pub fn reference(&mut self, place: usize, needed: Perm, rights: Perm) -> Seen {
        let state = &mut self.state[place];
        let before = seen(*state, needed);
        *state = SEEN | HELD | rights.0 << RIGHTS_SHIFT;
        before
    }

    /// What is known of `key`, without a reference (for requests that fault).
    pub fn peek(&mut self, key: Key, needed: Perm) -> Seen {
        let epoch = self.tag_epoch(key.tag());
        let Some(block) = self.blocks.get(key.bits() / BLOCK as u64) else {
            return Seen::Never;
        };
        self.refresh(block, epoch);
        seen(self.state[block as usize * BLOCK + key.bits() as usize % BLOCK], needed)
    }

    #[inline]
    fn refresh(&mut self, block: u32, epoch: u32) {
        let at = block as usize;
        if self.blocks.all[at].epoch != epoch {
            self.blocks.all[at].epoch = epoch;
            for s in &mut self.state[at * BLOCK..(at + 1) * BLOCK] {
                *s &= SEEN;
            }
        }
    }

    /// An invalidation covers the bytes of `tag` from `start` to `last`.
    pub fn invalidate_range(&mut self, tag: Tag, start: u64, last: u64) {
        for size in self.sizes {
            self.invalidate(Key::new(tag, size, start), Key::new(tag, size, last));
        }
    }

    /// An invalidation covers the pages of one size and tag from `first` to
    /// `last`.
    pub fn invalidate(&mut self, first: Key, last: Key) {
        let (first, last) = (first.bits(), last.bits());
        let (low, high) = (first / BLOCK as u64, last / BLOCK as u64);
        if high - low >= self.blocks.all.len() as u64 {
            for (at, block) in self.blocks.all.iter().enumerate() {
                if (low..=high).contains(&block.number) {
                    clear(&mut self.state, at as u32, block.number, first, last);
                }
            }
            return;
        }
        for number in low..=high {
            if let Some(block) = self.blocks.get(number) {
                clear(&mut self.state, block, number, first, last);
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
