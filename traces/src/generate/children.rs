//! What the trace's guest has mapped for DMA at an instant.

use ioasim_events::{DomainId, Event, Flags, Kind, OutputSpace, PAGE_MASK, Pasid};
use rustc_hash::FxHashMap;

use super::range_map::RangeMap;

/// Addresses beyond this are cut off, so that sums never wrap.
pub(super) const TOP: u64 = 1 << 62;

/// `[addr, addr + size)` rounded outwards to 4 KiB pages, as the model rounds
/// maps.
pub(super) fn pages(addr: u64, size: u64) -> (u64, u64) {
    let end = addr.saturating_add(size).min(TOP);
    (addr.min(TOP) & !PAGE_MASK, (end + PAGE_MASK) & !PAGE_MASK)
}

/// The children's tables, devices' attachments, and how far the recorded
/// shadows (if any) are in line with the tables.
#[derive(Debug)]
pub(super) struct Children {
    output_space: OutputSpace,
    /// Recorded shadow operations are compared with the tables.
    follow_shadows: bool,
    /// IOVA to GPA, by domain.
    tables: FxHashMap<DomainId, RangeMap<u64>>,
    /// IOVA to GPA as the recorded VMM had shadowed it.
    shadows: FxHashMap<DomainId, RangeMap<u64>>,
    attached: FxHashMap<(u32, Pasid), DomainId>,
    /// How many mappings lead to a GPA.
    mapped: RangeMap<u32>,
    /// Bytes of IOVA where a table and its recorded shadow differ.
    unsettled: u64,
}

impl Children {
    pub fn new(output_space: OutputSpace, follow_shadows: bool) -> Children {
        Children {
            output_space,
            follow_shadows,
            tables: FxHashMap::default(),
            shadows: FxHashMap::default(),
            attached: FxHashMap::default(),
            mapped: RangeMap::default(),
            unsettled: 0,
        }
    }

    /// True if every table change has reached the recorded shadow.
    pub fn settled(&self) -> bool {
        self.unsettled == 0
    }

    /// True if a mapping leads into the GPA range.
    pub fn maps_into(&self, start: u64, end: u64) -> bool {
        self.mapped.any_within(start, end)
    }

    /// Follows an event.
    pub fn apply(&mut self, e: &Event) {
        match e.kind {
            Kind::Map | Kind::Unmap | Kind::ShadowMap | Kind::ShadowUnmap => {
                if e.domain == DomainId::NONE || e.domain == DomainId::PARENT || e.size == 0 {
                    return;
                }
                let (start, end) = pages(e.addr, e.size);
                let before = self.differing(e.domain, start, end);
                match e.kind {
                    Kind::Map => {
                        self.uncount(e.domain, start, end);
                        let gpa = e.out.min(TOP) & !PAGE_MASK;
                        self.mapped.count(gpa, gpa + (end - start), 1);
                        self.tables.entry(e.domain).or_default().set(start, end, gpa);
                    }
                    Kind::Unmap => {
                        self.uncount(e.domain, start, end);
                        if let Some(table) = self.tables.get_mut(&e.domain) {
                            table.remove(start, end);
                        }
                    }
                    _ if !self.follow_shadows => {}
                    Kind::ShadowMap => {
                        let gpa = e.out.min(TOP) & !PAGE_MASK;
                        self.shadows.entry(e.domain).or_default().set(start, end, gpa);
                    }
                    _ => {
                        if let Some(shadow) = self.shadows.get_mut(&e.domain) {
                            shadow.remove(start, end);
                        }
                    }
                }
                let after = self.differing(e.domain, start, end);
                self.unsettled = self.unsettled + after - before;
            }
            Kind::Attach => {
                self.attached.insert((e.requester.0, e.pasid), e.domain);
            }
            Kind::Detach => {
                self.attached.remove(&(e.requester.0, e.pasid));
            }
            _ => {}
        }
    }

    fn uncount(&mut self, domain: DomainId, start: u64, end: u64) {
        let Some(table) = self.tables.get(&domain) else { return };
        for (s, e, gpa) in table.within(start, end) {
            self.mapped.count(gpa, gpa + (e - s), -1);
        }
    }

    /// Bytes of `[start, end)` where table and recorded shadow differ.
    fn differing(&self, domain: DomainId, start: u64, end: u64) -> u64 {
        if !self.follow_shadows {
            return 0;
        }
        let shadow = self.shadows.get(&domain);
        let within = |map: Option<&RangeMap<u64>>| {
            map.map_or(0, |m| m.within(start, end).map(|(s, e, _)| e - s).sum::<u64>())
        };
        let table = self.tables.get(&domain);
        let (mut both, mut same) = (0, 0);
        if let (Some(table), Some(shadow)) = (table, shadow) {
            for (s, e, gpa) in table.within(start, end) {
                for (from, to, seen) in shadow.within(s, e) {
                    both += to - from;
                    if seen == gpa + (from - s) {
                        same += to - from;
                    }
                }
            }
        }
        within(table) + within(shadow) - both - same
    }

    /// Adds the GPA ranges that an access reads or writes to `out`: what its
    /// mapping says, and what the recording says it reached.
    pub fn reached_by(&self, e: &Event, out: &mut Vec<(u64, u64)>) {
        let (start, end) = pages(e.addr, e.size.max(1));
        let domain = match e.domain {
            DomainId::NONE => {
                let exact = self.attached.get(&(e.requester.0, e.pasid));
                exact.or_else(|| self.attached.get(&(e.requester.0, Pasid::NONE))).copied()
            }
            known => Some(known),
        };
        match domain {
            Some(DomainId::PARENT) => out.push((start, end)),
            Some(domain) => {
                if let Some(table) = self.tables.get(&domain) {
                    let ranges = table.within(start, end);
                    out.extend(ranges.map(|(s, e, gpa)| (gpa, gpa + (e - s))));
                }
            }
            None => {}
        }
        if self.output_space == OutputSpace::Gpa && e.flags.has(Flags::OUT_KNOWN) {
            let reached = pages(e.out, e.size.max(1));
            if !out.contains(&reached) {
                out.push(reached);
            }
        }
    }
}
