//! The page-table walker: one or two stages, with paging-structure caches per
//! stage and level and a nested (GPA) cache.

mod caches;
mod shortcuts;

pub use caches::{WalkCacheConfig, WalkCaches};
pub use shortcuts::{Lookup, NoCaches, Shortcuts};

use caches::each;

use crate::cache::Tag;
use crate::events::{PageSize, Perm};
use crate::table::{Leaf, RadixTable};

/// The tables of one translation. `None` is a bare stage: identity, all
/// rights, no reads, any size.
#[derive(Clone, Copy)]
pub struct Stages<'a> {
    /// Stage 1: IOVA to GPA (or the shadow: IOVA to HPA over a bare stage 2).
    pub child: Option<&'a RadixTable>,
    /// Stage 2: GPA to HPA.
    pub parent: Option<&'a RadixTable>,
    /// Tags what the caches keep of stage 1.
    pub child_tag: Tag,
}

/// A finished translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Output address, offset included.
    pub out: u64,
    /// Smallest page of both stages (1 GiB if both are bare).
    pub size: PageSize,
    /// Rights that both stages grant.
    pub perm: Perm,
}

/// Why a request has no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Stage 1 has no leaf, or not the right.
    Child,
    /// Stage 2 has no leaf for a child's table page that the walk must read.
    ParentImplicit {
        /// Base of that table page (GPA).
        gpa: u64,
    },
    /// Stage 2 has no leaf for the final GPA, or not the right.
    Parent {
        /// The GPA, offset included.
        gpa: u64,
    },
}

/// Told of every table entry that a walk reads, in order.
pub trait Observer {
    /// An entry of the child's table was read.
    fn child_read(&mut self);
    /// An entry of the parent's table was read.
    fn parent_read(&mut self);
    /// The parent translated one address (with the reads reported before).
    fn parent_done(&mut self) {}
    /// A cache saved reads: paging-structure cache of stage 1 or 2, or the
    /// nested cache.
    fn saved(&mut self, _by: SavedBy) {}
}

/// Which cache saved reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedBy {
    /// Paging-structure cache of stage 1.
    Stage1,
    /// Paging-structure cache of stage 2.
    Stage2,
    /// Nested (GPA) cache.
    Nested,
}

/// A bare stage: identity in the largest size.
const BARE: Leaf = Leaf { out: 0, size: PageSize::Size1G, perm: Perm::RW };

impl Stages<'_> {
    /// Walks for an access to `addr` that needs `needed` (none: presence is
    /// enough). Order of checks, top first: the parent translates each table
    /// page that is read, child entry present, child's right, parent entry of
    /// the final GPA present, parent's right.
    ///
    /// # Errors
    /// The first check that fails.
    #[inline]
    pub fn walk(
        &self,
        addr: u64,
        needed: Perm,
        caches: &mut WalkCaches,
        seen: &mut impl Observer,
    ) -> Result<Translation, Fault> {
        if self.child.is_none() && self.parent.is_none() {
            // Both stages bare: nothing to read, nothing to refuse.
            seen.parent_done();
            let Leaf { size, perm, .. } = BARE;
            return Ok(Translation { out: addr, size, perm });
        }
        each!(caches, c => self.walk_with(addr, needed, c, seen))
    }

    fn walk_with(
        &self,
        addr: u64,
        needed: Perm,
        caches: &mut impl Lookup,
        seen: &mut impl Observer,
    ) -> Result<Translation, Fault> {
        let leaf = match self.child {
            None => None,
            Some(child) => Some(self.walk_child(child, addr, needed, caches, seen)?),
        };
        let gpa = leaf.map_or(addr, |l| l.translate(addr));
        let last = self.walk_parent(gpa, caches, seen).ok_or(Fault::Parent { gpa })?;
        let perm = leaf.map_or(last.perm, |l| l.perm.and(last.perm));
        if !last.perm.allows(needed) || perm == Perm::NONE {
            return Err(Fault::Parent { gpa });
        }
        let size = leaf.map_or(last.size, |l| l.size.min(last.size));
        Ok(Translation { out: last.translate(gpa), size, perm })
    }

    #[inline(always)]
    fn walk_child(
        &self,
        child: &RadixTable,
        addr: u64,
        needed: Perm,
        caches: &mut impl Lookup,
        seen: &mut impl Observer,
    ) -> Result<Leaf, Fault> {
        if !child.covers(addr) {
            return Err(Fault::Child);
        }
        let top = child.levels();
        let (mut node, mut level) = (RadixTable::ROOT, top);
        // The deepest cached pointer wins; it also saves the translation of
        // the table page that it points to.
        let mut translated = false;
        if let Some((below, at)) = caches.stage1(child, self.child_tag, addr) {
            (node, level, translated) = (below, at, true);
            seen.saved(SavedBy::Stage1);
        }
        loop {
            level -= 1;
            if !std::mem::take(&mut translated) {
                match self.parent {
                    // Table pages of a shadow, or over a bare stage 2.
                    None => seen.parent_done(),
                    Some(parent) => {
                        let gpa = child.node_addr(node);
                        self.translate(parent, gpa, caches, seen)
                            .ok_or(Fault::ParentImplicit { gpa })?;
                    }
                }
                if level + 1 < top {
                    // Kept only now: a cached pointer holds a host address.
                    caches.fill_stage1(child, self.child_tag, addr, level + 1, node);
                }
            }
            seen.child_read();
            let e = child.read(node, level, addr);
            if e.is_leaf() {
                let leaf = Leaf::new(e, level);
                return if leaf.perm.allows(needed) { Ok(leaf) } else { Err(Fault::Child) };
            }
            node = e.node().ok_or(Fault::Child)?;
        }
    }

    #[inline(always)]
    fn walk_parent(
        &self,
        gpa: u64,
        caches: &mut impl Lookup,
        seen: &mut impl Observer,
    ) -> Option<Leaf> {
        match self.parent {
            Some(parent) => self.translate(parent, gpa, caches, seen),
            None => {
                // A shadow, or a bare stage 2.
                seen.parent_done();
                Some(Leaf { out: gpa & !(BARE.size.bytes() - 1), ..BARE })
            }
        }
    }

    /// Translates one address by the parent's table.
    fn translate(
        &self,
        parent: &RadixTable,
        gpa: u64,
        caches: &mut impl Lookup,
        seen: &mut impl Observer,
    ) -> Option<Leaf> {
        let leaf = self.walk_parent_table(parent, gpa, caches, seen);
        seen.parent_done();
        leaf
    }

    #[inline(always)]
    fn walk_parent_table(
        &self,
        parent: &RadixTable,
        gpa: u64,
        caches: &mut impl Lookup,
        seen: &mut impl Observer,
    ) -> Option<Leaf> {
        if !parent.covers(gpa) {
            return None;
        }
        if let Some(leaf) = caches.nested(gpa) {
            seen.saved(SavedBy::Nested);
            return Some(leaf);
        }
        let (mut node, mut level) = (RadixTable::ROOT, parent.levels());
        if let Some((below, at)) = caches.stage2(parent, gpa) {
            (node, level) = (below, at);
            seen.saved(SavedBy::Stage2);
        }
        loop {
            level -= 1;
            seen.parent_read();
            let e = parent.read(node, level, gpa);
            if e.is_leaf() {
                let leaf = Leaf::new(e, level);
                caches.fill_nested(gpa, leaf);
                return Some(leaf);
            }
            node = e.node()?;
            caches.fill_stage2(parent, gpa, level, node);
        }
    }
}

/// Counts reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Entries of the child's table.
    pub child: u64,
    /// Entries of the parent's table.
    pub parent: u64,
    /// Uses of the stage-1 paging-structure caches.
    pub stage1_hits: u64,
    /// Uses of the stage-2 paging-structure caches.
    pub stage2_hits: u64,
    /// Uses of the nested cache.
    pub nested_hits: u64,
}

impl Reads {
    /// Reads of both tables.
    pub fn total(&self) -> u64 {
        self.child + self.parent
    }
}

impl Observer for Reads {
    #[inline]
    fn child_read(&mut self) {
        self.child += 1;
    }

    #[inline]
    fn parent_read(&mut self) {
        self.parent += 1;
    }

    #[inline]
    fn saved(&mut self, by: SavedBy) {
        match by {
            SavedBy::Stage1 => self.stage1_hits += 1,
            SavedBy::Stage2 => self.stage2_hits += 1,
            SavedBy::Nested => self.nested_hits += 1,
        }
    }
}
