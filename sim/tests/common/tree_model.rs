//! A deliberately simple model of a tree: maps of 4 KiB pages and every state
//! of a page since the last completed invalidation, composed anew at each
//! request.
#![allow(dead_code)]

use std::collections::{BTreeMap, BTreeSet};

use ioasim_sim::events::Perm;

/// A page's translation in one node: page of the parent's space, rights.
pub type State = Option<(u64, Perm)>;

#[derive(Default)]
pub struct ModelNode {
    pub parent: Option<usize>,
    pub user: bool,
    /// Every change is complete when the call or store is over.
    pub captured: bool,
    pub bound: bool,
    pub nest: bool,
    pub alive: bool,
    pub depth: usize,
    pub children: usize,
    pub now: BTreeMap<u64, (u64, Perm)>,
    pub past: BTreeMap<u64, Vec<State>>,
    /// Start and pages, of host-managed nodes.
    pub areas: BTreeMap<u64, u64>,
}

#[derive(Default)]
pub struct Model {
    pub nodes: Vec<ModelNode>,
}

impl Model {
    pub fn set(&mut self, node: usize, page: u64, to: State) {
        let n = &mut self.nodes[node];
        let old = match to {
            Some(entry) => n.now.insert(page, entry),
            None => n.now.remove(&page),
        };
        if !n.captured && old != to {
            n.past.entry(page).or_default().push(old);
        }
    }

    pub fn completed(&mut self, node: usize, range: Option<(u64, u64)>) {
        let past = &mut self.nodes[node].past;
        match range {
            None => past.clear(),
            Some((start, end)) => past.retain(|page, _| !(start..end).contains(page)),
        }
    }

    /// Every result that is legal for an access: pages of host memory, `None`
    /// for a fault.
    pub fn legal(&self, node: usize, page: u64, needed: Perm) -> BTreeSet<Option<u64>> {
        let n = &self.nodes[node];
        let mut states = n.past.get(&page).cloned().unwrap_or_default();
        states.push(n.now.get(&page).copied());
        let mut results = BTreeSet::new();
        for state in states {
            match state.filter(|(_, perm)| perm.allows(needed)) {
                None => _ = results.insert(None),
                Some((out, _)) => match n.parent {
                    None => _ = results.insert(Some(out)),
                    Some(parent) => results.extend(self.legal(parent, out, needed)),
                },
            }
        }
        results
    }

    pub fn overlaps(&self, node: usize, start: u64, pages: u64) -> bool {
        let before = self.nodes[node].areas.range(..start + pages).next_back();
        before.is_some_and(|(s, n)| s + n > start)
    }

    /// Areas that an unmap removes; `None` if it is refused.
    pub fn whole_areas(&self, node: usize, start: u64, pages: u64) -> Option<Vec<(u64, u64)>> {
        let areas = self.nodes[node].areas.iter().map(|(s, n)| (*s, *n));
        let hit: Vec<(u64, u64)> =
            areas.filter(|(s, n)| s + n > start && *s < start + pages).collect();
        let whole = hit.iter().all(|(s, n)| start <= *s && s + n <= start + pages);
        (whole && !hit.is_empty()).then_some(hit)
    }

    /// Output pages of a node in a range.
    pub fn outs(&self, node: usize, start: u64, pages: u64) -> BTreeSet<u64> {
        self.nodes[node].now.range(start..start + pages).map(|(_, (out, _))| *out).collect()
    }

    /// All output pages of a node.
    pub fn in_use(&self, node: usize) -> BTreeSet<u64> {
        self.nodes[node].now.values().map(|(out, _)| *out).collect()
    }

    pub fn pages(&self, node: usize) -> Vec<u64> {
        self.nodes[node].now.keys().copied().collect()
    }
}
