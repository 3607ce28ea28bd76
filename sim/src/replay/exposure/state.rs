//! What is open, and who can still translate into it.

use std::collections::BTreeMap;

use crate::cache::Key;
use crate::replay::spaces::SpaceId;
use crate::results::ExposureResult;

/// A removed translation: `[iova, iova + len)` led to `out`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) iova: u64,
    pub(super) out: u64,
    pub(super) len: u64,
}

impl Piece {
    pub(super) fn end(&self) -> u64 {
        self.iova + self.len
    }

    /// The part of `[start, start + len)`, which leads to `out`, that this
    /// piece has too.
    pub(super) fn shared(&self, start: u64, len: u64, out: u64) -> Option<Piece> {
        let (from, to) = (self.iova.max(start), self.end().min(start + len));
        let same = from < to && out + (from - start) == self.out + (from - self.iova);
        same.then(|| Piece { iova: from, out: out + (from - start), len: to - from })
    }

    pub(super) fn holds(&self, iova: u64, out: u64) -> bool {
        iova.wrapping_sub(self.iova) < self.len && out == self.out + (iova - self.iova)
    }
}

/// An entry that still gives a removed translation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Witness {
    /// Index of the open unmap.
    pub(super) unmap: u32,
    pub(super) space: SpaceId,
    pub(super) piece: Piece,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Open {
    pub(super) event: u64,
    pub(super) time_ns: u64,
    /// Witnesses left; 0 = a free place.
    pub(super) left: u64,
}

/// State of the measurement.
#[derive(Default)]
pub(in crate::replay) struct Exposure {
    pub(super) open: Vec<Open>,
    pub(super) free: Vec<u32>,
    pub(super) cached: Vec<(Key, Witness)>,
    /// By space, IOVA and unmap: an entry is stale by one unmap of its child
    /// at most, but the parent may give up the memory behind it too.
    pub(super) shadowed: BTreeMap<(u32, u64, u32), Witness>,
    /// No witness in a shadow is longer.
    pub(super) longest: u64,
    /// GPA ranges of nested-cache entries.
    pub(super) nested: Vec<Witness>,
    /// What the unmap that is being applied removes.
    pub(super) removed: Vec<Piece>,
    /// Ranges of shadows that changed since the last look.
    pub(in crate::replay) touched: Vec<(SpaceId, u64, u64)>,
    /// Evictions and invalidations of the IOTLB at the last look.
    pub(super) seen: u64,
    pub(super) closed_events: u128,
    pub(super) closed_ns: u128,
    pub(super) result: ExposureResult,
}

impl Exposure {
    pub(super) fn open(&mut self, event: u64, time_ns: u64) -> u32 {
        let open = Open { event, time_ns, left: 0 };
        match self.free.pop() {
            Some(at) => {
                self.open[at as usize] = open;
                at
            }
            None => {
                self.open.push(open);
                self.open.len() as u32 - 1
            }
        }
    }

    pub(super) fn add_cached(&mut self, key: Key, w: Witness) {
        self.open[w.unmap as usize].left += 1;
        self.cached.push((key, w));
    }

    pub(super) fn add_shadowed(&mut self, w: Witness) {
        self.open[w.unmap as usize].left += 1;
        self.longest = self.longest.max(w.piece.len);
        let old = self.shadowed.insert((w.space.0, w.piece.iova, w.unmap), w);
        debug_assert!(old.is_none(), "an entry gives a translation once");
    }

    /// Witnesses in a shadow that may overlap `[start, end)`.
    pub(super) fn near(
        &self,
        space: SpaceId,
        start: u64,
        end: u64,
    ) -> impl DoubleEndedIterator<Item = (&(u32, u64, u32), &Witness)> {
        let first = start.saturating_sub(self.longest);
        self.shadowed.range((space.0, first, 0)..(space.0, end, 0))
    }

    /// One witness of an unmap is gone.
    pub(super) fn gone(&mut self, unmap: u32, event: u64, time_ns: u64) {
        let open = &mut self.open[unmap as usize];
        open.left -= 1;
        if open.left == 0 {
            let open = *open;
            self.free.push(unmap);
            self.closed(event - open.event, time_ns.saturating_sub(open.time_ns));
        }
    }

    pub(super) fn closed(&mut self, events: u64, ns: u64) {
        let r = &mut self.result;
        match events {
            0 => r.closed_at_once += 1,
            _ => r.closed_later += 1,
        }
        r.events_max = r.events_max.max(events);
        r.ns_max = r.ns_max.max(ns);
        self.closed_events += events as u128;
        self.closed_ns += ns as u128;
        let bucket = (u64::BITS - events.leading_zeros()) as usize;
        if r.events_histogram.len() <= bucket {
            r.events_histogram.resize(bucket + 1, 0);
        }
        r.events_histogram[bucket] += 1;
    }

    pub(super) fn any_open(&self) -> bool {
        self.open.len() > self.free.len()
    }

    /// Ends the measurement after `events` events.
    pub(in crate::replay) fn finish(mut self, events: u64) -> ExposureResult {
        for open in self.open.iter().filter(|o| o.left > 0) {
            self.result.open_at_end += 1;
            let so_far = events.saturating_sub(open.event);
            self.result.open_events_max = self.result.open_events_max.max(so_far);
        }
        let closed = self.result.closed_at_once + self.result.closed_later;
        if closed > 0 {
            self.result.events_mean = self.closed_events as f64 / closed as f64;
            self.result.ns_mean = self.closed_ns as f64 / closed as f64;
        }
        self.result
    }
}

impl Witness {
    /// True if the piece's output holds `out` (nested entries: by host address).
    pub(super) fn piece_leads_to(&self, out: u64) -> bool {
        out.wrapping_sub(self.piece.out) < self.piece.len
    }
}
