//! What the walker's caches do for a walk.

use super::WalkCacheConfig;
use super::caches::LEVELS;
use crate::cache::{Cache, Cached, Key, Tag};
use crate::events::PageSize;
use crate::table::{Leaf, NodeId, NodeRef, RadixTable, entry_span};

/// Stage 2 is one table.
const PARENT: Tag = Tag(0);

/// What a walk asks its caches.
pub trait Lookup {
    /// Deepest cached stage-1 pointer for `addr`: the node below it and the
    /// level of the entry that it came from.
    fn stage1(&mut self, table: &RadixTable, tag: Tag, addr: u64) -> Option<(NodeId, u32)>;
    /// The same of stage 2.
    fn stage2(&mut self, table: &RadixTable, gpa: u64) -> Option<(NodeId, u32)>;
    /// A stage-1 entry at `level` for `addr` points to `node`.
    fn fill_stage1(&mut self, table: &RadixTable, tag: Tag, addr: u64, level: u32, node: NodeId);
    /// A stage-2 entry at `level` for `gpa` points to `node`.
    fn fill_stage2(&mut self, table: &RadixTable, gpa: u64, level: u32, node: NodeId);
    /// The parent's leaf for `gpa`, if cached.
    fn nested(&mut self, gpa: u64) -> Option<Leaf>;
    /// The parent's leaf for `gpa`.
    fn fill_nested(&mut self, gpa: u64, leaf: Leaf);
    /// Drops stage-1 pointers for `[start, end)` (not empty) of one child.
    fn invalidate_stage1(&mut self, tag: Tag, start: u64, end: u64);
    /// Drops all stage-1 pointers of one child.
    fn invalidate_stage1_tag(&mut self, tag: Tag);
    /// Drops all that came from the parent.
    fn invalidate_parent(&mut self);
    /// Drops stage-2 pointers and the parent's leaves.
    fn invalidate_stage2(&mut self);
}

/// No caches.
#[derive(Clone, Copy, Debug)]
pub struct NoCaches;

impl Lookup for NoCaches {
    #[inline(always)]
    fn stage1(&mut self, _: &RadixTable, _: Tag, _: u64) -> Option<(NodeId, u32)> {
        None
    }
    #[inline(always)]
    fn stage2(&mut self, _: &RadixTable, _: u64) -> Option<(NodeId, u32)> {
        None
    }
    #[inline(always)]
    fn fill_stage1(&mut self, _: &RadixTable, _: Tag, _: u64, _: u32, _: NodeId) {}
    #[inline(always)]
    fn fill_stage2(&mut self, _: &RadixTable, _: u64, _: u32, _: NodeId) {}
    #[inline(always)]
    fn nested(&mut self, _: u64) -> Option<Leaf> {
        None
    }
    #[inline(always)]
    fn fill_nested(&mut self, _: u64, _: Leaf) {}
    fn invalidate_stage1(&mut self, _: Tag, _: u64, _: u64) {}
    fn invalidate_stage1_tag(&mut self, _: Tag) {}
    fn invalidate_parent(&mut self) {}
    fn invalidate_stage2(&mut self) {}
}

/// Caches of pointers `N` by stage and level, and of the parent's leaves `L`.
#[derive(Clone, Debug)]
pub struct Shortcuts<N, L> {
    /// By level of the entry, 1 to 4 at index 0 to 3.
    stage1: [Option<N>; LEVELS],
    stage2: [Option<N>; LEVELS],
    nested: Option<L>,
}

#[inline(always)]
fn pointer_key(tag: Tag, level: u32, addr: u64) -> Key {
    // The part of the address that chooses the entry, as a page number.
    Key::new(tag, PageSize::Size4K, (addr / entry_span(level)) << 12)
}

#[inline(always)]
fn deepest<N: Cache<NodeRef>>(
    caches: &mut [Option<N>; LEVELS],
    table: &RadixTable,
    tag: Tag,
    addr: u64,
) -> Option<(NodeId, u32)> {
    for level in 1..table.levels() {
        if let Some(cache) = &mut caches[level as usize - 1]
            && cache.holds(PageSize::Size4K)
            && let Some(pointer) = cache.get(pointer_key(tag, level, addr))
            && let Some(node) = table.resolve(pointer)
        {
            return Some((node, level));
        }
    }
    None
}

impl<N: Cache<NodeRef>, L: Cache<Cached>> Shortcuts<N, L> {
    /// Caches of these sizes, each made by `pointers` or `leaves` if it has any
    /// entries.
    pub(super) fn new(
        stage1: [WalkCacheConfig; LEVELS],
        stage2: [WalkCacheConfig; LEVELS],
        nested: WalkCacheConfig,
        pointers: impl Fn(WalkCacheConfig) -> N,
        leaves: impl Fn(WalkCacheConfig) -> L,
    ) -> Self {
        let pointers = |c: WalkCacheConfig| (c.entries > 0).then(|| pointers(c));
        Shortcuts {
            stage1: stage1.map(pointers),
            stage2: stage2.map(pointers),
            nested: (nested.entries > 0).then(|| leaves(nested)),
        }
    }

    /// Calls `f(gpa, leaf)` for every entry of the nested cache.
    pub(super) fn for_each_nested(&self, mut f: impl FnMut(u64, Leaf)) {
        if let Some(nested) = &self.nested {
            nested.for_each(|k, v| {
                f(k.base(), Leaf { out: v.out(), size: k.size(), perm: v.perm() });
            });
        }
    }
}

impl<N: Cache<NodeRef>, L: Cache<Cached>> Lookup for Shortcuts<N, L> {
    #[inline(always)]
    fn stage1(&mut self, table: &RadixTable, tag: Tag, addr: u64) -> Option<(NodeId, u32)> {
        deepest(&mut self.stage1, table, tag, addr)
    }

    #[inline(always)]
    fn stage2(&mut self, table: &RadixTable, gpa: u64) -> Option<(NodeId, u32)> {
        deepest(&mut self.stage2, table, PARENT, gpa)
    }

    #[inline(always)]
    fn fill_stage1(&mut self, table: &RadixTable, tag: Tag, addr: u64, level: u32, node: NodeId) {
        if let Some(cache) = &mut self.stage1[level as usize - 1] {
            cache.insert(pointer_key(tag, level, addr), table.reference(node));
        }
    }

    #[inline(always)]
    fn fill_stage2(&mut self, table: &RadixTable, gpa: u64, level: u32, node: NodeId) {
        if let Some(cache) = &mut self.stage2[level as usize - 1] {
            cache.insert(pointer_key(PARENT, level, gpa), table.reference(node));
        }
    }

    #[inline(always)]
    fn nested(&mut self, gpa: u64) -> Option<Leaf> {
        let cache = self.nested.as_mut()?;
        for size in cache.sizes() {
            if let Some(entry) = cache.get(Key::new(PARENT, size, gpa)) {
                return Some(Leaf { out: entry.out(), size, perm: entry.perm() });
            }
        }
        None
    }

    #[inline(always)]
    fn fill_nested(&mut self, gpa: u64, leaf: Leaf) {
        if let Some(cache) = &mut self.nested {
            cache.insert(Key::new(PARENT, leaf.size, gpa), Cached::new(leaf.out, leaf.perm));
        }
    }

    fn invalidate_stage1(&mut self, tag: Tag, start: u64, end: u64) {
        for (cache, level) in self.stage1.iter_mut().zip(1..) {
            if let Some(cache) = cache {
                let shift = entry_span(level).trailing_zeros();
                let pages = (start >> shift) << 12..(((end - 1) >> shift) + 1) << 12;
                cache.remove_range(tag, pages.start, pages.end);
            }
        }
    }

    fn invalidate_stage1_tag(&mut self, tag: Tag) {
        for cache in self.stage1.iter_mut().flatten() {
            cache.remove_if(|k| k.tag() == tag);
        }
    }

    fn invalidate_parent(&mut self) {
        for cache in self.stage1.iter_mut().flatten() {
            cache.remove_if(|_| true);
        }
        self.invalidate_stage2();
    }

    fn invalidate_stage2(&mut self) {
        for cache in self.stage2.iter_mut().flatten() {
            cache.remove_if(|_| true);
        }
        if let Some(nested) = &mut self.nested {
            nested.remove_if(|_| true);
        }
    }
}
