//! Guest memory as the VMM backs it, and the parent events that change it.

use ioasim_events::{Event, Flags, Kind, Perm};

use super::range_map::{RangeMap, Span};

/// No address.
const NONE: u64 = u64::MAX;

/// First host page that is handed out where the recording has no parent: the
/// addresses below 4 GiB are the host's own (A).
const FIRST_HPA: u64 = 1 << 32;
/// Operations end when this much host memory was handed out; a bound that
/// only absurd sizes reach.
const LAST_HPA: u64 = 1 << 56;

/// Contiguous memory that is given back in more units than this is given back
/// in one piece: a request for a large range is answered with one call.
const UNITS_AT_ONCE: u64 = 512;

/// What backs a range of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Backing {
    /// HPA without the overlay.
    base: u64,
    /// HPA now, [`NONE`] if taken away.
    now: u64,
    /// Rights without the overlay.
    rights: Perm,
    /// Rights now.
    granted: Perm,
}

impl Span for Backing {
    fn moved(self, by: u64) -> Backing {
        let to = |hpa: u64| if hpa == NONE { NONE } else { hpa + by };
        Backing { base: to(self.base), now: to(self.now), ..self }
    }
}

/// Guest memory and where it lies in the host.
#[derive(Debug, Default)]
pub(super) struct Host {
    backing: RangeMap<Backing>,
    /// HPAs of the recording that no longer back what they backed.
    displaced: RangeMap<()>,
    /// Bytes taken away.
    absent: u64,
    /// Guest memory that operations may change, ascending.
    pub regions: Vec<(u64, u64)>,
    /// GPAs of the guest's own page tables: never changed. A guest does not
    /// give its page tables away, and the recording does not show them.
    pub page_tables: (u64, u64),
    /// Bytes of a unit.
    pub unit: u64,
    next_hpa: u64,
    /// Time of the events that changes make.
    pub now_ns: u64,
    /// Events made and not yet written, in order.
    pub made: Vec<Event>,
    /// Parent maps made.
    pub maps: u64,
    /// Parent unmaps made.
    pub unmaps: u64,
}

impl Host {
    /// `highest_hpa`: end of the host memory that the recording uses.
    pub fn new(unit: u64, highest_hpa: u64) -> Host {
        Host { unit, next_hpa: highest_hpa.clamp(FIRST_HPA, LAST_HPA), ..Host::default() }
    }

    /// Bytes that are away.
    pub fn absent(&self) -> u64 {
        self.absent
    }

    /// Bytes that operations may change.
    pub fn memory(&self) -> u64 {
        self.regions.iter().map(|(s, e)| e - s).sum()
    }

    /// True when no more host memory is handed out to operations.
    pub fn exhausted(&self) -> bool {
        self.next_hpa >= LAST_HPA
    }

    /// Lays a region out: leaves of at most `leaf` bytes.
    pub fn lay_out(&mut self, start: u64, end: u64, leaf: u64) {
        // The difference of GPA and HPA is a multiple of the leaf's size and
        // of no larger one, so that one map makes leaves of this size only.
        let larger = (leaf << 9).min(1 << 30);
        let odd = if larger > leaf { leaf } else { 0 };
        let hpa = self.next_hpa.next_multiple_of(larger) + start % larger + odd;
        self.next_hpa = hpa + (end - start);
        let rights = Perm::RW;
        self.set(start, end, Backing { base: hpa, now: hpa, rights, granted: rights });
        self.emit_map(start, hpa, end - start, rights);
    }

    /// A parent map of the recording: it is the truth for its range again.
    pub fn recorded_map(&mut self, start: u64, end: u64, hpa: u64, perm: Perm) {
        let rights = if perm == Perm::NONE { Perm::RW } else { perm };
        self.set(start, end, Backing { base: hpa, now: hpa, rights, granted: rights });
    }

    /// A parent unmap of the recording.
    pub fn recorded_unmap(&mut self, start: u64, end: u64) {
        self.forget(start, end);
        self.backing.remove(start, end);
    }

    fn set(&mut self, start: u64, end: u64, b: Backing) {
        self.forget(start, end);
        if b.now == NONE {
            self.absent += end - start;
        }
        if b.base != b.now {
            self.displaced.set(b.base, b.base + (end - start), ());
        }
        self.backing.set(start, end, b);
    }

    fn forget(&mut self, start: u64, end: u64) {
        for (s, e, b) in self.backing.within(start, end) {
            if b.now == NONE {
                self.absent -= e - s;
            }
            if b.base != b.now {
                self.displaced.remove(b.base, b.base + (e - s));
            }
        }
    }

    /// True if a recorded HPA range backs something else, or nothing, now.
    pub fn is_displaced(&self, hpa: u64, size: u64) -> bool {
        self.displaced.any_within(hpa & !0xfff, hpa.saturating_add(size.max(1)))
    }

    /// True if all of `[start, end)` is memory that is there and that
    /// operations may change.
    pub fn changeable(&self, start: u64, end: u64) -> bool {
        let (from, to) = self.page_tables;
        if start < to && from < end {
            return false;
        }
        let mut at = start;
        for (s, e, b) in self.backing.within(start, end) {
            if s != at || b.now == NONE {
                return false;
            }
            at = e;
        }
        at == end
    }

    /// First absent range at or after `at`, at most one unit, and not beyond
    /// its unit's end.
    pub fn next_absent(&self, at: u64) -> Option<(u64, u64)> {
        let found = self.backing.within(at, u64::MAX).find(|(_, _, b)| b.now == NONE);
        found.map(|(s, e, _)| (s, e.min((s & !(self.unit - 1)) + self.unit)))
    }

    /// True if something in `[start, end)` is away.
    pub fn is_absent(&self, start: u64, end: u64) -> bool {
        self.absent > 0 && self.backing.within(start, end).any(|(_, _, b)| b.now == NONE)
    }

    /// True if something in `[start, end)` is write-protected.
    pub fn is_protected(&self, start: u64, end: u64) -> bool {
        self.backing.within(start, end).any(|(_, _, b)| b.now != NONE && b.granted != b.rights)
    }

    /// Takes what is there of `[start, end)` away: one parent unmap.
    pub fn take(&mut self, start: u64, end: u64) {
        let there: Vec<_> =
            self.backing.within(start, end).filter(|(_, _, b)| b.now != NONE).collect();
        let (Some(&(first, ..)), Some(&(_, last, _))) = (there.first(), there.last()) else {
            return;
        };
        for (s, e, b) in there {
            self.set(s, e, Backing { now: NONE, granted: b.rights, ..b });
        }
        self.emit_unmap(first, last - first);
    }

    /// Gives back whole units around what is away of `[start, end)`, each on
    /// fresh host memory: a discarded page is filled anew. Returns the ranges.
    pub fn give_back(&mut self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mask = self.unit - 1;
        let mut given = Vec::new();
        let asked: Vec<(u64, u64)> = self
            .backing
            .within(start, end)
            .filter(|(_, _, b)| b.now == NONE)
            .map(|(s, e, _)| (s & !mask, (e + mask) & !mask))
            .collect();
        for (from, to) in asked {
            let step = if (to - from) / self.unit > UNITS_AT_ONCE { to - from } else { self.unit };
            let mut at = from;
            while at < to {
                self.fill(at, at + step, &mut given);
                at += step;
            }
        }
        given
    }

    /// Maps what is away of `[start, end)` to one new piece of host memory.
    fn fill(&mut self, start: u64, end: u64, given: &mut Vec<(u64, u64)>) {
        let away: Vec<_> =
            self.backing.within(start, end).filter(|(_, _, b)| b.now == NONE).collect();
        if away.is_empty() {
            return;
        }
        let hpa = self.new_host_memory(end - start);
        // What was backed in several pieces comes back in one.
        let mut runs: Vec<(u64, u64, Perm)> = Vec::new();
        for (s, e, b) in away {
            self.set(s, e, Backing { now: hpa + (s - start), granted: b.rights, ..b });
            match runs.last_mut() {
                Some((_, to, rights)) if *to == s && *rights == b.rights => *to = e,
                _ => runs.push((s, e, b.rights)),
            }
        }
        for (s, e, rights) in runs {
            self.emit_map(s, hpa + (s - start), e - s, rights);
            given.push((s, e));
        }
    }

    /// Moves `[start, end)`, all of which is there, to new host memory:
    /// unmap, then map, as iommufd and VFIO do it (there is no atomic
    /// replacement in their interfaces).
    pub fn relocate(&mut self, start: u64, end: u64) {
        let hpa = self.new_host_memory(end - start);
        self.emit_unmap(start, end - start);
        let pieces: Vec<_> = self.backing.within(start, end).collect();
        for (s, e, b) in pieces {
            let now = hpa + (s - start);
            self.set(s, e, Backing { now, ..b });
            self.emit_map(s, now, e - s, b.granted);
        }
    }

    /// Sets the rights of what is there of `[start, end)`; `None` = those of
    /// the recording.
    pub fn protect(&mut self, start: u64, end: u64, to: Option<Perm>) {
        let pieces: Vec<_> =
            self.backing.within(start, end).filter(|(_, _, b)| b.now != NONE).collect();
        for (s, e, b) in pieces {
            let granted = to.map_or(b.rights, |p| b.rights.and(p));
            if granted == b.granted || granted == Perm::NONE {
                continue;
            }
            self.set(s, e, Backing { granted, ..b });
            self.emit_map(s, b.now, e - s, granted);
        }
    }

    fn new_host_memory(&mut self, len: u64) -> u64 {
        let align = len.next_power_of_two().min(1 << 30);
        let hpa = self.next_hpa.next_multiple_of(align);
        self.next_hpa = hpa + len;
        hpa
    }

    fn emit_map(&mut self, gpa: u64, hpa: u64, size: u64, perm: Perm) {
        self.maps += 1;
        self.made.push(Event {
            time_ns: self.now_ns,
            flags: Flags(u32::from(perm.0)),
            addr: gpa,
            size,
            out: hpa,
            ..Event::new(Kind::ParentMap)
        });
    }

    fn emit_unmap(&mut self, gpa: u64, size: u64) {
        self.unmaps += 1;
        let time_ns = self.now_ns;
        self.made.push(Event { time_ns, addr: gpa, size, ..Event::new(Kind::ParentUnmap) });
    }
}
