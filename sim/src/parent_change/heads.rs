//! Numbers for pages of the level below: each page that some entry leads to
//! gets a 32-bit head, in blocks of 512 by page size.

use rustc_hash::FxHashMap;

use crate::events::PageSize;
use crate::table::{FANOUT, entry_span};

#[derive(Clone, Debug)]
struct Block {
    size: PageSize,
    /// First GPA.
    base: u64,
}

/// Heads of a block that have entries, in one line: a 2 MiB change looks at
/// it and not at 512 heads.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Used([u64; FANOUT / 64]);

impl Used {
    fn any(&self) -> bool {
        self.0.iter().any(|word| *word != 0)
    }
}

const NONE: u32 = u32::MAX;
/// Keys of the first 256 GiB of 4 KiB pages: at most 2 MiB of array.
const NEAR: u64 = key(PageSize::Size4K, 1 << 38);

/// The blocks of all pages.
#[derive(Clone, Debug, Default)]
pub(super) struct Heads {
    blocks: Vec<Block>,
    used: Vec<Used>,
    free: Vec<u32>,
    /// Blocks that may be freed.
    emptied: Vec<u32>,
    /// Blocks by key, for keys below [`NEAR`]: an array beside the parent.
    near: Vec<u32>,
    by_key: FxHashMap<u64, u32>,
    last: Option<(u64, u32)>,
    /// Blocks by page size.
    counts: [u32; 3],
}

#[inline]
const fn span(size: PageSize) -> u64 {
    entry_span(size as u32) * FANOUT as u64
}

#[inline]
const fn key(size: PageSize, gpa: u64) -> u64 {
    ((gpa / span(size)) << 2) | size as u64
}

impl Heads {
    /// The head of the page of `size` at `gpa`, whose block is created if
    /// need be.
    #[inline]
    pub fn head(&mut self, size: PageSize, gpa: u64) -> u32 {
        let key = key(size, gpa);
        let block = match self.last {
            Some((last, block)) if last == key => block,
            _ => self.block(key, size, gpa),
        };
        self.last = Some((key, block));
        block * FANOUT as u32 + ((gpa >> size.shift()) as u32 & (FANOUT as u32 - 1))
    }

    #[inline]
    fn block(&mut self, key: u64, size: PageSize, gpa: u64) -> u32 {
        match self.near.get(key as usize) {
            Some(block) if *block != NONE => *block,
            _ => self.block_by_key(key, size, gpa),
        }
    }

    fn block_by_key(&mut self, key: u64, size: PageSize, gpa: u64) -> u32 {
        if let Some(block) = self.by_key.get(&key) {
            return *block;
        }
        let new = Block { size, base: gpa & !(span(size) - 1) };
        let block = match self.free.pop() {
            Some(block) => {
                self.blocks[block as usize] = new;
                block
            }
            None => {
                self.blocks.push(new);
                self.used.push(Used::default());
                self.blocks.len() as u32 - 1
            }
        };
        self.counts[size as usize] += 1;
        self.by_key.insert(key, block);
        if key < NEAR {
            let len = self.near.len().max(key as usize + 1);
            self.near.resize(len, NONE);
            self.near[key as usize] = block;
        }
        block
    }

    /// Reads what [`Heads::used`] will write; see [`super::lists::Lists::touch`].
    #[inline]
    pub fn touch(&self, head: u32) -> u32 {
        self.used[head as usize / FANOUT].0[head as usize % FANOUT / 64] as u32
    }

    /// A head got its first entry.
    #[inline]
    pub fn used(&mut self, head: u32) {
        let i = head as usize % FANOUT;
        self.used[head as usize / FANOUT].0[i / 64] |= 1 << (i % 64);
    }

    /// A head lost its last entry; its block goes with its last head, at the
    /// next [`Heads::sweep`].
    #[inline]
    pub fn unused(&mut self, head: u32) {
        let number = head as usize / FANOUT;
        let i = head as usize % FANOUT;
        self.used[number].0[i / 64] &= !(1 << (i % 64));
        if !self.used[number].any() {
            self.emptied.push(number as u32);
        }
    }

    /// Frees the blocks whose last head went; until then their numbers stay.
    #[inline]
    pub fn sweep(&mut self) {
        while let Some(number) = self.emptied.pop() {
            if !self.used[number as usize].any() {
                self.free_block(number as usize);
            }
        }
    }

    fn free_block(&mut self, number: usize) {
        let block = &self.blocks[number];
        let key = key(block.size, block.base);
        if self.by_key.remove(&key).is_some() {
            self.counts[block.size as usize] -= 1;
            if let Some(near) = self.near.get_mut(key as usize) {
                *near = NONE;
            }
            self.free.push(number as u32);
            self.last = None;
        }
    }

    /// Calls `f(head, gpa, size)` for every used head whose page overlaps
    /// `[start, end)`; adds the lines touched to `lines`.
    pub fn visit(
        &self,
        start: u64,
        end: u64,
        lines: &mut u64,
        mut f: impl FnMut(u32, u64, PageSize, &mut u64),
    ) {
        if start >= end {
            return;
        }
        for size in PageSize::ALL {
            if self.counts[size as usize] == 0 {
                continue;
            }
            let (first, last) = (start / span(size), (end - 1) / span(size));
            if last - first >= self.counts[size as usize] as u64 {
                // More spans than blocks: look at the blocks.
                for (number, block) in self.blocks.iter().enumerate() {
                    *lines += 1;
                    let inside = block.base < end && start < block.base + span(size);
                    if self.used[number].any() && block.size == size && inside {
                        self.visit_block(number as u32, start, end, lines, &mut f);
                    }
                }
                continue;
            }
            for at in first..=last {
                *lines += 1;
                if let Some(number) = self.by_key.get(&((at << 2) | size as u64)) {
                    self.visit_block(*number, start, end, lines, &mut f);
                }
            }
        }
    }

    fn visit_block(
        &self,
        number: u32,
        start: u64,
        end: u64,
        lines: &mut u64,
        f: &mut impl FnMut(u32, u64, PageSize, &mut u64),
    ) {
        let block = &self.blocks[number as usize];
        *lines += 2; // the block: its fields and its bits
        let shift = block.size.shift();
        let first = (start.max(block.base) - block.base) >> shift;
        let last = (end.min(block.base + span(block.size)) - 1 - block.base) >> shift;
        for word in first / 64..=last / 64 {
            let mut bits = self.used[number as usize].0[word as usize];
            if word == first / 64 {
                bits &= u64::MAX << (first % 64);
            }
            if word == last / 64 {
                bits &= u64::MAX >> (63 - last % 64);
            }
            while bits != 0 {
                let i = word * 64 + bits.trailing_zeros() as u64;
                bits &= bits - 1;
                let head = number * FANOUT as u32 + i as u32;
                f(head, block.base + (i << shift), block.size, lines);
            }
        }
    }

    /// Heads that exist, used or not.
    pub fn len(&self) -> usize {
        self.blocks.len() * FANOUT
    }

    /// Bytes of the bookkeeping, without what is kept per head.
    pub fn memory_bytes(&self) -> u64 {
        let map = self.by_key.capacity() * (size_of::<(u64, u32)>() + 1);
        (self.blocks.capacity() * size_of::<Block>()
            + (self.free.capacity() + self.near.capacity()) * 4
            + map) as u64
    }
}
