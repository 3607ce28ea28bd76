//! Paging-structure caches per stage and level, and the nested (GPA) cache.

use serde::{Deserialize, Serialize};

use crate::cache::replacement::Lru;
use crate::cache::{Cached, Key, LruSets, SetAssoc, Tag};
use crate::events::PageSize;
use crate::table::{Leaf, NodeId, NodeRef, RadixTable, entry_span};

/// Size of one cache; 0 entries = absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalkCacheConfig {
    /// Entries.
    pub entries: u64,
    /// Entries per set.
    pub ways: u64,
}

impl WalkCacheConfig {
    /// No cache.
    pub const NONE: WalkCacheConfig = WalkCacheConfig { entries: 0, ways: 1 };

    fn build<V: Copy + Default>(&self) -> Option<WalkCache<V>> {
        let (entries, ways) = (self.entries as usize, self.ways as usize);
        (entries > 0).then(|| {
            if ways <= FEW_WAYS {
                WalkCache::Few(LruSets::new(entries, ways))
            } else {
                WalkCache::Many(SetAssoc::new(entries, ways, &(), 0))
            }
        })
    }
}

/// Up to this many ways a set is kept in order of references.
const FEW_WAYS: usize = 16;

/// One LRU cache, in the form that suits its associativity.
#[derive(Clone, Debug)]
enum WalkCache<V> {
    Few(LruSets<V>),
    Many(SetAssoc<Lru, V>),
}

impl<V: Copy + Default> WalkCache<V> {
    #[inline]
    fn holds(&self, size: PageSize) -> bool {
        match self {
            WalkCache::Few(c) => c.holds(size),
            WalkCache::Many(c) => c.holds(size),
        }
    }

    #[inline]
    fn get(&mut self, key: Key) -> Option<V> {
        match self {
            WalkCache::Few(c) => c.get(key),
            WalkCache::Many(c) => c.get(key),
        }
    }

    #[inline]
    fn insert(&mut self, key: Key, value: V) {
        match self {
            WalkCache::Few(c) => _ = c.insert(key, value),
            WalkCache::Many(c) => _ = c.insert(key, value),
        }
    }

    fn remove_range(&mut self, tag: Tag, start: u64, end: u64) {
        match self {
            WalkCache::Few(c) => c.remove_range(tag, start, end),
            WalkCache::Many(c) => c.remove_range(tag, start, end),
        };
    }

    fn remove_if(&mut self, f: impl Fn(Key) -> bool) {
        match self {
            WalkCache::Few(c) => c.remove_if(f),
            WalkCache::Many(c) => c.remove_if(f),
        };
    }

    fn for_each(&self, f: impl FnMut(Key, V)) {
        match self {
            WalkCache::Few(c) => c.for_each(f),
            WalkCache::Many(c) => c.for_each(f),
        }
    }
}

/// Levels of pointers: entries at levels 1 to 4 point to nodes.
const LEVELS: usize = 4;
/// Stage 2 is one table.
const PARENT: Tag = Tag(0);

type PointerCache = Option<WalkCache<NodeRef>>;

/// All caches that shorten walks. LRU, as no vendor discloses the policy.
#[derive(Clone, Debug)]
pub struct WalkCaches {
    /// By level of the entry, 1 to 4 at index 0 to 3.
    stage1: [PointerCache; LEVELS],
    stage2: [PointerCache; LEVELS],
    nested: Option<WalkCache<Cached>>,
    /// No cache at all: walks skip the look-ups.
    any: bool,
}

#[inline]
fn pointer_key(tag: Tag, level: u32, addr: u64) -> Key {
    // The part of the address that chooses the entry, as a page number.
    Key::new(tag, PageSize::Size4K, (addr / entry_span(level)) << 12)
}

impl WalkCaches {
    /// Caches of these sizes; `stage1[0]` and `stage2[0]` cache the entries
    /// that cover 2 MiB, then 1 GiB, 512 GiB, 256 TiB.
    pub fn new(
        stage1: [WalkCacheConfig; LEVELS],
        stage2: [WalkCacheConfig; LEVELS],
        nested: WalkCacheConfig,
    ) -> WalkCaches {
        let any = stage1.iter().chain(&stage2).chain([&nested]).any(|c| c.entries > 0);
        WalkCaches {
            stage1: stage1.map(|c| c.build()),
            stage2: stage2.map(|c| c.build()),
            nested: nested.build(),
            any,
        }
    }

    /// Caches that hold nothing.
    pub fn none() -> WalkCaches {
        let none = [WalkCacheConfig::NONE; LEVELS];
        WalkCaches::new(none, none, WalkCacheConfig::NONE)
    }

    #[inline]
    fn deepest(
        caches: &mut [PointerCache; LEVELS],
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

    /// Deepest cached stage-1 pointer for `addr`: the node below it and the
    /// level of the entry that it came from.
    #[inline]
    pub(super) fn stage1(
        &mut self,
        table: &RadixTable,
        tag: Tag,
        addr: u64,
    ) -> Option<(NodeId, u32)> {
        if !self.any {
            return None;
        }
        Self::deepest(&mut self.stage1, table, tag, addr)
    }

    #[inline]
    pub(super) fn stage2(&mut self, table: &RadixTable, gpa: u64) -> Option<(NodeId, u32)> {
        if !self.any {
            return None;
        }
        Self::deepest(&mut self.stage2, table, PARENT, gpa)
    }

    #[inline]
    pub(super) fn fill_stage1(
        &mut self,
        table: &RadixTable,
        tag: Tag,
        addr: u64,
        level: u32,
        node: NodeId,
    ) {
        if let Some(cache) = &mut self.stage1[level as usize - 1] {
            cache.insert(pointer_key(tag, level, addr), table.reference(node));
        }
    }

    #[inline]
    pub(super) fn fill_stage2(&mut self, table: &RadixTable, gpa: u64, level: u32, node: NodeId) {
        if let Some(cache) = &mut self.stage2[level as usize - 1] {
            cache.insert(pointer_key(PARENT, level, gpa), table.reference(node));
        }
    }

    #[inline]
    pub(super) fn nested(&mut self, gpa: u64) -> Option<Leaf> {
        let cache = self.nested.as_mut()?;
        for size in PageSize::ALL {
            if cache.holds(size)
                && let Some(entry) = cache.get(Key::new(PARENT, size, gpa))
            {
                return Some(Leaf { out: entry.out(), size, perm: entry.perm() });
            }
        }
        None
    }

    #[inline]
    pub(super) fn fill_nested(&mut self, gpa: u64, leaf: Leaf) {
        if let Some(cache) = &mut self.nested {
            cache.insert(Key::new(PARENT, leaf.size, gpa), Cached::new(leaf.out, leaf.perm));
        }
    }

    /// Drops stage-1 pointers for `[start, end)` of one child.
    pub fn invalidate_stage1(&mut self, tag: Tag, start: u64, end: u64) {
        for (cache, level) in self.stage1.iter_mut().zip(1..) {
            if let Some(cache) = cache
                && start < end
            {
                let shift = entry_span(level).trailing_zeros();
                let pages = (start >> shift) << 12..(((end - 1) >> shift) + 1) << 12;
                cache.remove_range(tag, pages.start, pages.end);
            }
        }
    }

    /// Drops all stage-1 pointers of one child.
    pub fn invalidate_stage1_tag(&mut self, tag: Tag) {
        for cache in self.stage1.iter_mut().flatten() {
            cache.remove_if(|k| k.tag() == tag);
        }
    }

    /// Drops all that came from the parent: stage-2 pointers, the nested
    /// cache, and stage-1 pointers, whose targets are host addresses.
    pub fn invalidate_parent(&mut self) {
        for cache in self.stage2.iter_mut().chain(&mut self.stage1).flatten() {
            cache.remove_if(|_| true);
        }
        if let Some(nested) = &mut self.nested {
            nested.remove_if(|_| true);
        }
    }

    /// Calls `f(gpa, leaf)` for every entry of the nested cache.
    pub fn for_each_nested(&self, mut f: impl FnMut(u64, Leaf)) {
        if let Some(nested) = &self.nested {
            nested.for_each(|k, v| {
                f(k.base(), Leaf { out: v.out(), size: k.size(), perm: v.perm() });
            });
        }
    }
}
