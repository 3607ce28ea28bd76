//! A slow, obvious model: maps of pages and every state since the last
//! completed invalidation.

use std::collections::{BTreeMap, HashMap};

use crate::events::{PAGE_SIZE, Perm};
use crate::parent::Parent;
use crate::replay::spaces::SpaceId;
use crate::sync::Range;
use crate::table::Leaf;

/// A page's translation in the child: GPA of the page, rights.
type State = Option<(u64, Perm)>;

/// One page of one child.
#[derive(Default)]
struct Page {
    now: State,
    /// What else held since the last completed invalidation.
    past: Vec<State>,
    /// Number of whole-space invalidations when `past` was written.
    epoch: u64,
}

#[derive(Default)]
struct Child {
    pages: HashMap<u64, Page>,
    /// Whole-space invalidations so far.
    epoch: u64,
}

/// The reference model.
#[derive(Default)]
pub(super) struct Reference {
    children: HashMap<SpaceId, Child>,
    /// Recorded parent: GPA start -> (GPA end, HPA start).
    parent: BTreeMap<u64, (u64, u64)>,
}

impl Child {
    fn change(&mut self, page: u64, to: State) {
        let epoch = self.epoch;
        let p = self.pages.entry(page).or_default();
        if p.epoch != epoch {
            p.past.clear();
            p.epoch = epoch;
        }
        if p.now != to {
            if !p.past.contains(&p.now) {
                p.past.push(p.now);
            }
            p.now = to;
        }
    }
}

fn pages(start: u64, len: u64) -> std::ops::Range<u64> {
    start / PAGE_SIZE..start.saturating_add(len).div_ceil(PAGE_SIZE)
}

impl Reference {
    pub fn map(&mut self, space: SpaceId, iova: u64, gpa: u64, len: u64, perm: Perm) {
        let child = self.children.entry(space).or_default();
        for (i, page) in pages(iova, len).enumerate() {
            child.change(page, Some((gpa + i as u64 * PAGE_SIZE, perm)));
        }
    }

    pub fn unmap(&mut self, space: SpaceId, iova: u64, len: u64) {
        let child = self.children.entry(space).or_default();
        let range = pages(iova, len);
        if range.end - range.start > child.pages.len() as u64 {
            let known: Vec<u64> =
                child.pages.keys().copied().filter(|p| range.contains(p)).collect();
            known.into_iter().for_each(|p| child.change(p, None));
        } else {
            range.for_each(|p| child.change(p, None));
        }
    }

    pub fn completed(&mut self, space: SpaceId, range: Option<Range>) {
        let child = self.children.entry(space).or_default();
        let Some(range) = range else {
            child.epoch += 1;
            return;
        };
        let range = pages(range.start, range.end - range.start);
        if range.end - range.start > child.pages.len() as u64 {
            for (page, p) in &mut child.pages {
                if range.contains(page) {
                    p.past.clear();
                }
            }
        } else {
            for page in range {
                if let Some(p) = child.pages.get_mut(&page) {
                    p.past.clear();
                }
            }
        }
    }

    fn compose(state: State, iova: u64, needed: Perm, parent: &Parent) -> Option<u64> {
        let (leaf, gpa, _) = Self::granted(state, iova, needed, |gpa| parent.final_leaf(gpa))?;
        Some(leaf.translate(gpa))
    }

    /// Leaf below the child, GPA, and rights of both.
    fn granted(
        state: State,
        iova: u64,
        needed: Perm,
        below: impl Fn(u64) -> Option<Leaf>,
    ) -> Option<(Leaf, u64, Perm)> {
        let (gpa, perm) = state?;
        if !perm.allows(needed) {
            return None;
        }
        let gpa = gpa | (iova & (PAGE_SIZE - 1));
        let leaf = below(gpa)?;
        let rights = leaf.perm.and(perm);
        let granted = leaf.perm.allows(needed) && rights != Perm::NONE;
        granted.then_some((leaf, gpa, rights))
    }

    /// The result of a fresh walk of all levels.
    pub fn now(&self, space: SpaceId, iova: u64, needed: Perm, parent: &Parent) -> Option<u64> {
        let state = self.page(space, iova).and_then(|p| p.now);
        Self::compose(state, iova, needed, parent)
    }

    fn page(&self, space: SpaceId, iova: u64) -> Option<&Page> {
        self.children.get(&space)?.pages.get(&(iova / PAGE_SIZE))
    }

    /// True if `out` was valid at some instant since the last completed
    /// invalidation that covers `iova` (I1; I2 where there was one state only).
    pub fn allows(
        &self,
        space: SpaceId,
        iova: u64,
        needed: Perm,
        out: Option<u64>,
        parent: &Parent,
    ) -> bool {
        if self.now(space, iova, needed, parent) == out {
            return true;
        }
        let Some(child) = self.children.get(&space) else { return out.is_none() };
        let Some(page) = child.pages.get(&(iova / PAGE_SIZE)) else { return out.is_none() };
        page.epoch == child.epoch
            && page.past.iter().any(|s| Self::compose(*s, iova, needed, parent) == out)
    }

    /// Calls `f(iova, composition)`, an address and its rights, for every page of a child whose last
    /// change has been followed by a completed invalidation.
    pub fn for_each_settled(
        &self,
        space: SpaceId,
        parent: &Parent,
        mut f: impl FnMut(u64, Option<(u64, Perm)>),
    ) {
        let Some(child) = self.children.get(&space) else { return };
        for (page, p) in &child.pages {
            if p.past.is_empty() || p.epoch != child.epoch {
                let iova = page * PAGE_SIZE;
                let found = Self::granted(p.now, iova, Perm::NONE, |gpa| parent.lookup(gpa));
                f(iova, found.map(|(leaf, gpa, rights)| (leaf.translate(gpa), rights)));
            }
        }
    }

    pub fn parent_map(&mut self, gpa: u64, hpa: u64, len: u64) {
        self.parent_unmap(gpa, len);
        self.parent.insert(gpa, (gpa + len, hpa));
    }

    /// Removes a range; returns the host ranges that it led to.
    pub fn parent_unmap(&mut self, gpa: u64, len: u64) -> Vec<(u64, u64)> {
        let end = gpa.saturating_add(len);
        let touched: Vec<(u64, (u64, u64))> = self
            .parent
            .range(..end)
            .filter(|(_, (e, _))| *e > gpa)
            .map(|(s, v)| (*s, *v))
            .collect();
        let mut hosts = Vec::new();
        for (s, (e, host)) in touched {
            self.parent.remove(&s);
            let (from, to) = (s.max(gpa), e.min(end));
            hosts.push((host + (from - s), host + (to - s)));
            if s < from {
                self.parent.insert(s, (from, host));
            }
            if to < e {
                self.parent.insert(to, (e, host + (to - s)));
            }
        }
        hosts
    }

    /// True if some GPA still leads into the host range.
    pub fn host_in_use(&self, (start, end): (u64, u64)) -> bool {
        self.parent.iter().any(|(s, (e, host))| *host < end && start < host + (e - s))
    }
}
