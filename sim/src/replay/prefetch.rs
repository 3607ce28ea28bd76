//! Fetching translations before a device asks for them.

use super::engine::Engine;
use super::outcomes::Fetch;
use super::spaces::Route;
use crate::cache::{Cached, Key, Store};
use crate::events::{PageSize, Perm};
use crate::prefetch::{Policy, Prefetcher};
use crate::walk::Reads;

/// The policy and its work space.
pub(super) struct Fetcher {
    pub policy: Prefetcher,
    pages: usize,
    wanted: Vec<u64>,
}

impl Fetcher {
    /// Fetches at most `pages` after one miss.
    pub fn new(policy: Prefetcher, pages: usize) -> Fetcher {
        Fetcher { policy, pages, wanted: Vec::new() }
    }
}

impl<S: Store> Engine<S> {
    /// A miss of `addr` found a page of `size`: fetches what the policy wants.
    #[cold]
    pub(super) fn fetch_ahead(&mut self, route: Route, addr: u64, size: PageSize, event: u64) {
        let Some(mut fetcher) = self.fetcher.take() else { return };
        let Fetcher { policy, pages, wanted } = &mut *fetcher;
        policy.missed(route.space.0, addr, size, *pages, wanted);
        for addr in wanted.drain(..) {
            self.fetch(route, addr, event);
        }
        self.fetcher = Some(fetcher);
    }

    /// Walks for a page that nobody asked for, if it is not there. What the
    /// tables refuse is left alone.
    fn fetch(&mut self, route: Route, addr: u64, event: u64) {
        if self.iotlb.covers(route.tag, addr) {
            return;
        }
        if self.parent.is_over_walked_host() {
            self.back_walked_pages(route.space, addr);
        }
        let mut reads = Reads::default();
        let stages = self.config.nesting.stages(&self.spaces, &self.parent, route.space);
        let walked = stages.walk(addr, Perm::NONE, &mut self.caches, &mut reads);
        if let Some(verifier) = &mut self.verifier {
            verifier.walk(&stages, addr, Perm::NONE, &reads);
        }
        let counters = &mut self.counters.iotlb.prefetch;
        counters.memory_reads += reads.total();
        if let Some(outcomes) = &mut self.outcomes {
            outcomes.fetches.push(Fetch { event, addr, reads: reads.total() as u32 });
        }
        let Ok(t) = walked else {
            counters.refused += 1;
            return;
        };
        let size = t.size.min(self.largest_page);
        let base = t.out & !(size.bytes() - 1);
        let key = Key::new(route.tag, size, addr);
        if !self.iotlb.holds(key) {
            self.iotlb.prefetch(key, Cached::new(base, t.perm));
        }
    }
}
