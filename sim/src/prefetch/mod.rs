//! Translations that are fetched into the IOTLB before a device asks for them.
//!
//! A policy is told of every miss, and names pages that it expects to be asked
//! for next. The walker fetches those that are not there: a walk like any
//! other, from the tables as they are at that moment, so that what it finds is
//! as good as what a miss at that moment finds. Invalidations remove it as they
//! remove all entries. A page without a translation is left alone: nothing that
//! is not there is ever remembered, and no device learns of a fault that it did
//! not cause.

mod ring_aware;
mod sequential;

pub use ring_aware::RingAware;
pub use sequential::Sequential;

use serde::{Deserialize, Serialize};

use crate::events::PageSize;

/// Policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing is fetched in advance.
    None,
    /// The pages behind the one that missed.
    Sequential,
    /// The pages that were mapped after the one that missed.
    RingAware,
}

impl Kind {
    /// Name as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Kind::None => "none",
            Kind::Sequential => "sequential",
            Kind::RingAware => "ring-aware",
        }
    }
}

/// Settings of prefetching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefetchConfig {
    /// What to fetch.
    pub policy: Kind,
    /// Most pages fetched after one miss.
    pub pages: u64,
}

/// Says what to fetch. Spaces are dense numbers.
pub trait Policy {
    /// A miss of `addr` found a page of `size`: adds at most `pages` addresses
    /// to `wanted`, likeliest first, one per page. The caller skips those that
    /// are cached.
    fn missed(
        &mut self,
        space: u32,
        addr: u64,
        size: PageSize,
        pages: usize,
        wanted: &mut Vec<u64>,
    );

    /// The guest mapped `[start, end)`.
    fn mapped(&mut self, space: u32, start: u64, end: u64) {
        let _ = (space, start, end);
    }

    /// The guest unmapped `[start, end)`.
    fn unmapped(&mut self, space: u32, start: u64, end: u64) {
        let _ = (space, start, end);
    }
}

/// The configured policy.
#[derive(Debug)]
pub enum Prefetcher {
    /// [`Kind::Sequential`].
    Sequential(Sequential),
    /// [`Kind::RingAware`].
    RingAware(RingAware),
}

impl Prefetcher {
    /// The policy of a kind; `None` if nothing is fetched in advance.
    pub fn of_kind(kind: Kind) -> Option<Prefetcher> {
        match kind {
            Kind::None => None,
            Kind::Sequential => Some(Prefetcher::Sequential(Sequential)),
            Kind::RingAware => Some(Prefetcher::RingAware(RingAware::default())),
        }
    }
}

impl Policy for Prefetcher {
    fn missed(
        &mut self,
        space: u32,
        addr: u64,
        size: PageSize,
        pages: usize,
        wanted: &mut Vec<u64>,
    ) {
        match self {
            Prefetcher::Sequential(p) => p.missed(space, addr, size, pages, wanted),
            Prefetcher::RingAware(p) => p.missed(space, addr, size, pages, wanted),
        }
    }

    fn mapped(&mut self, space: u32, start: u64, end: u64) {
        match self {
            Prefetcher::Sequential(p) => p.mapped(space, start, end),
            Prefetcher::RingAware(p) => p.mapped(space, start, end),
        }
    }

    fn unmapped(&mut self, space: u32, start: u64, end: u64) {
        match self {
            Prefetcher::Sequential(p) => p.unmapped(space, start, end),
            Prefetcher::RingAware(p) => p.unmapped(space, start, end),
        }
    }
}
