//! Numbers for entries: each entry of each child gets a 32-bit slot, in
//! blocks of 512 that correspond to the nodes of the child's shadow.

use rustc_hash::FxHashMap;

use super::ChildId;
use crate::events::PageSize;
use crate::table::{FANOUT, entry_span};

/// One block: the entries of one size in the span of one table node.
#[derive(Clone, Copy, Debug)]
struct Block {
    child: ChildId,
    size: PageSize,
    /// Entries in use; 0 = the block is free.
    live: u16,
    /// IOVA of the first entry.
    base: u64,
}

/// The blocks of all children.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    blocks: Vec<Block>,
    free: Vec<u32>,
    /// Blocks that may be freed.
    emptied: Vec<u32>,
    by_key: FxHashMap<(ChildId, u64), u32>,
    /// The block used last: runs stay inside one.
    last: Option<((ChildId, u64), u32)>,
    /// Entries in use larger than 4 KiB.
    pub large: u64,
}

#[inline]
fn key(child: ChildId, size: PageSize, iova: u64) -> (ChildId, u64) {
    let block = iova / (entry_span(size as u32) * FANOUT as u64);
    (child, (block << 2) | size as u64)
}

#[inline]
fn offset(size: PageSize, iova: u64) -> u32 {
    (iova >> size.shift()) as u32 & (FANOUT as u32 - 1)
}

impl Slots {
    /// The slot of an entry, whose block is created if need be.
    #[inline]
    pub fn slot(&mut self, child: ChildId, size: PageSize, iova: u64) -> u32 {
        let key = key(child, size, iova);
        let block = match self.last {
            Some((last, block)) if last == key => block,
            _ => self.block(key, child, size, iova),
        };
        self.last = Some((key, block));
        block * FANOUT as u32 + offset(size, iova)
    }

    fn block(&mut self, key: (ChildId, u64), child: ChildId, size: PageSize, iova: u64) -> u32 {
        if let Some(block) = self.by_key.get(&key) {
            return *block;
        }
        let base = iova & !(entry_span(size as u32) * FANOUT as u64 - 1);
        let new = Block { child, size, live: 0, base };
        let block = match self.free.pop() {
            Some(block) => {
                self.blocks[block as usize] = new;
                block
            }
            None => {
                self.blocks.push(new);
                self.blocks.len() as u32 - 1
            }
        };
        self.by_key.insert(key, block);
        block
    }

    /// The slot of an entry, if its block exists.
    #[inline]
    pub fn find(&self, child: ChildId, size: PageSize, iova: u64) -> Option<u32> {
        let key = key(child, size, iova);
        let block = match self.last {
            Some((last, block)) if last == key => block,
            _ => *self.by_key.get(&key)?,
        };
        Some(block * FANOUT as u32 + offset(size, iova))
    }

    /// An entry came into use.
    #[inline]
    pub fn used(&mut self, slot: u32) {
        let block = &mut self.blocks[slot as usize / FANOUT];
        block.live += 1;
        self.large += (block.size != PageSize::Size4K) as u64;
    }

    /// An entry went out of use; its block goes with its last entry, at the
    /// next [`Slots::sweep`].
    #[inline]
    pub fn unused(&mut self, slot: u32) {
        let number = slot as usize / FANOUT;
        let block = &mut self.blocks[number];
        block.live -= 1;
        self.large -= (block.size != PageSize::Size4K) as u64;
        if block.live == 0 {
            self.emptied.push(number as u32);
        }
    }

    /// Frees the blocks whose last entry went; until then their numbers stay.
    #[inline]
    pub fn sweep(&mut self) {
        while let Some(number) = self.emptied.pop() {
            if self.blocks[number as usize].live == 0 {
                self.free_block(number as usize);
            }
        }
    }

    fn free_block(&mut self, number: usize) {
        let block = &self.blocks[number];
        if self.by_key.remove(&key(block.child, block.size, block.base)).is_some() {
            self.free.push(number as u32);
            self.last = None;
        }
    }

    /// Child, IOVA and size of an entry.
    #[inline]
    pub fn place(&self, slot: u32) -> (ChildId, u64, PageSize) {
        let block = &self.blocks[slot as usize / FANOUT];
        let offset = (slot as u64 % FANOUT as u64) << block.size.shift();
        (block.child, block.base + offset, block.size)
    }

    /// Calls `f(first slot)` for every block of a child.
    pub fn blocks_of(&self, child: ChildId, mut f: impl FnMut(u32)) {
        for (i, block) in self.blocks.iter().enumerate() {
            if block.live > 0 && block.child == child {
                f((i * FANOUT) as u32);
            }
        }
    }

    /// Blocks in use.
    pub fn live_blocks(&self) -> usize {
        self.by_key.len()
    }

    /// Slots that exist, used or not.
    pub fn len(&self) -> usize {
        self.blocks.len() * FANOUT
    }

    /// Bytes of the bookkeeping, without what is kept per slot.
    pub fn memory_bytes(&self) -> u64 {
        // hashbrown: one control byte per bucket.
        let map = self.by_key.capacity() * (size_of::<((ChildId, u64), u32)>() + 1);
        (self.blocks.capacity() * size_of::<Block>() + self.free.capacity() * 4 + map) as u64
    }
}
