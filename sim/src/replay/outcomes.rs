//! What the functional replay tells the timed layer.
//!
//! The functional replay decides *what* happens; the timed layer
//! ([`crate::timed`]) gives it cost and contention. Only events that cost more
//! than a look-up leave a record, so that hits pay nothing.

use super::engine::Engine;
use crate::cache::Store;
use crate::results::Counters;

/// Records of one chunk, in trace order.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// Requests that missed. A request that was repeated after a page request
    /// has two records.
    pub misses: Vec<Miss>,
    /// Walks for pages that nobody asked for, after these misses.
    pub fetches: Vec<Fetch>,
    /// Events other than requests that caused work.
    pub work: Vec<WorkOf>,
    /// All work at the latest mark.
    totals: Work,
    /// Sum of its parts: unchanged if nothing was added.
    sum: u64,
}

impl Outcomes {
    /// Forgets the last chunk and keeps the memory.
    pub fn clear(&mut self) {
        self.misses.clear();
        self.fetches.clear();
        self.work.clear();
    }

    /// Equal sums mean equal parts.
    #[inline]
    fn check_sum(&self, sum: u64, counters: &Counters) {
        debug_assert!(
            sum != self.sum || self.totals == Work::until(counters),
            "a counter of work shrank"
        );
    }
}

/// A walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Miss {
    /// Event number of the request.
    pub event: u64,
    /// Table entries that the walker read.
    pub reads: u32,
    /// The walk found no translation.
    pub fault: bool,
}

/// A walk for a page that nobody asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    /// Event number of the request whose miss started it.
    pub event: u64,
    /// The page.
    pub addr: u64,
    /// Table entries that the walker read.
    pub reads: u32,
}

/// Work caused by an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkOf {
    /// Event number.
    pub event: u64,
    /// The work is an invalidation that caching mode adds for maps before this
    /// event, and the event is a request.
    pub notify: bool,
    /// How much.
    pub work: Work,
}

/// Primitives of one event; differences of counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    /// Invalidation commands.
    pub commands: u64,
    /// Exits to the VMM.
    pub traps: u64,
    /// Guest entries that the VMM read.
    pub pte_reads: u64,
    /// Shadow entries written.
    pub mapped: u64,
    /// Shadow entries removed.
    pub unmapped: u64,
    /// Host map calls.
    pub map_calls: u64,
    /// Host unmap calls.
    pub unmap_calls: u64,
}

impl Work {
    /// True if there is none.
    #[inline]
    pub fn is_nothing(&self) -> bool {
        *self == Work::default()
    }

    /// A number that is mostly another for other work, to choose a place by.
    #[inline]
    pub fn hash(&self) -> usize {
        let shadow = (self.pte_reads + self.unmapped) * 3 + (self.mapped + self.map_calls) * 5;
        (self.commands + self.traps * 7 + self.unmap_calls * 11 + shadow) as usize
    }

    /// The totals until now.
    fn until(c: &Counters) -> Work {
        let sent = &c.guest.invalidations;
        Work {
            commands: sent.page + sent.domain + sent.global + sent.context,
            traps: c.guest.traps,
            pte_reads: c.shadow.pte_reads,
            mapped: c.shadow.mapped,
            unmapped: c.shadow.unmapped + c.parent.shadow_entries_dropped,
            map_calls: c.shadow.map_calls,
            unmap_calls: c.shadow.unmap_calls,
        }
    }

    /// Sum of the parts of [`Work::until`]. None of them ever shrinks.
    #[inline]
    fn sum(c: &Counters) -> u64 {
        let (guest, sent, shadow) = (&c.guest, &c.guest.invalidations, &c.shadow);
        let commands = sent.page + sent.domain + sent.global + sent.context + guest.traps;
        let entries = shadow.mapped + shadow.unmapped + c.parent.shadow_entries_dropped;
        commands + entries + shadow.pte_reads + shadow.map_calls + shadow.unmap_calls
    }

    /// What was added since `before`.
    fn since(self, before: Work) -> Work {
        Work {
            commands: self.commands - before.commands,
            traps: self.traps - before.traps,
            pte_reads: self.pte_reads - before.pte_reads,
            mapped: self.mapped - before.mapped,
            unmapped: self.unmapped - before.unmapped,
            map_calls: self.map_calls - before.map_calls,
            unmap_calls: self.unmap_calls - before.unmap_calls,
        }
    }
}

impl<S: Store> Engine<S> {
    /// Remembers the totals, if somebody wants to know what the next event
    /// adds.
    #[inline]
    pub(super) fn mark(&mut self) {
        if let Some(outcomes) = &mut self.outcomes {
            let sum = Work::sum(&self.counters);
            outcomes.check_sum(sum, &self.counters);
            if sum != outcomes.sum {
                outcomes.totals = Work::until(&self.counters);
                outcomes.sum = sum;
            }
        }
    }

    /// Notes what `event` added since the mark.
    #[inline]
    pub(super) fn note_work(&mut self, event: u64, notify: bool) {
        if let Some(outcomes) = &mut self.outcomes {
            let sum = Work::sum(&self.counters);
            outcomes.check_sum(sum, &self.counters);
            if sum != outcomes.sum {
                let totals = Work::until(&self.counters);
                let work = totals.since(outcomes.totals);
                outcomes.work.push(WorkOf { event, notify, work });
                (outcomes.totals, outcomes.sum) = (totals, sum);
            }
        }
    }
}
