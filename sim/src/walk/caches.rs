//! Paging-structure caches per stage and level, and the nested (GPA) cache.

use serde::{Deserialize, Serialize};

use super::shortcuts::{Lookup, NoCaches, Shortcuts};
use crate::cache::replacement::Lru;
use crate::cache::{Cached, LruSets, SetAssoc, Tag};
use crate::table::{Leaf, NodeRef};

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
}

/// Levels of pointers: entries at levels 1 to 4 point to nodes.
pub(super) const LEVELS: usize = 4;

/// All caches that shorten walks. LRU, as no vendor discloses the policy.
///
/// The walk is compiled for each kind, so that it asks once per walk, and not
/// at every look-up, what it has.
#[derive(Clone, Debug)]
pub enum WalkCaches {
    /// No cache.
    None(NoCaches),
    /// All caches that exist have four ways, the usual number.
    FourWays(Box<Shortcuts<LruSets<NodeRef, 4>, LruSets<Cached, 4>>>),
    /// Any shape.
    Any(Box<Shortcuts<SetAssoc<Lru, NodeRef>, SetAssoc<Lru, Cached>>>),
}

/// Does the same with each kind of caches.
macro_rules! each {
    ($caches:expr, $c:ident => $e:expr) => {
        match $caches {
            $crate::walk::WalkCaches::None($c) => $e,
            $crate::walk::WalkCaches::FourWays($c) => {
                let $c = &mut **$c;
                $e
            }
            $crate::walk::WalkCaches::Any($c) => {
                let $c = &mut **$c;
                $e
            }
        }
    };
}
pub(super) use each;

impl WalkCaches {
    /// Caches of these sizes; `stage1[0]` and `stage2[0]` cache the entries
    /// that cover 2 MiB, then 1 GiB, 512 GiB, 256 TiB.
    pub fn new(
        stage1: [WalkCacheConfig; LEVELS],
        stage2: [WalkCacheConfig; LEVELS],
        nested: WalkCacheConfig,
    ) -> WalkCaches {
        let mut present =
            stage1.iter().chain(&stage2).chain([&nested]).filter(|c| c.entries > 0).peekable();
        if present.peek().is_none() {
            WalkCaches::none()
        } else if present.all(|c| c.ways == 4) {
            WalkCaches::FourWays(Box::new(Shortcuts::new(stage1, stage2, nested)))
        } else {
            WalkCaches::Any(Box::new(Shortcuts::new(stage1, stage2, nested)))
        }
    }

    /// No caches.
    pub fn none() -> WalkCaches {
        WalkCaches::None(NoCaches)
    }

    /// Drops stage-1 pointers for `[start, end)` of one child.
    pub fn invalidate_stage1(&mut self, tag: Tag, start: u64, end: u64) {
        if start < end {
            each!(self, c => c.invalidate_stage1(tag, start, end));
        }
    }

    /// Drops all stage-1 pointers of one child.
    pub fn invalidate_stage1_tag(&mut self, tag: Tag) {
        each!(self, c => c.invalidate_stage1_tag(tag));
    }

    /// Drops all that came from the parent: stage-2 pointers, the nested
    /// cache, and stage-1 pointers, whose targets are host addresses.
    pub fn invalidate_parent(&mut self) {
        each!(self, c => c.invalidate_parent());
    }

    /// Drops stage-2 pointers and the nested cache. Stage-1 pointers stay:
    /// those of a shadow are host addresses of the host's own memory, which
    /// no change of the parent moves.
    pub fn invalidate_stage2(&mut self) {
        each!(self, c => c.invalidate_stage2());
    }

    /// Calls `f(gpa, leaf)` for every entry of the nested cache.
    pub fn for_each_nested(&self, f: impl FnMut(u64, Leaf)) {
        match self {
            WalkCaches::None(_) => {}
            WalkCaches::FourWays(c) => c.for_each_nested(f),
            WalkCaches::Any(c) => c.for_each_nested(f),
        }
    }
}
