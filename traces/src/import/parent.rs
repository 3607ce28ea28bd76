//! The parent's table as VFIO's memory listener tells it: which guest-physical
//! ranges are RAM, and where in the VMM's own address space they are.
//!
//! Every container of VFIO has its own listener, so a log may tell each range
//! several times; one table is kept and its users are counted. When a device
//! moves behind the emulated IOMMU its container loses all RAM and gets the
//! IOMMU's region in the same update; the guest's memory stays what it was, so
//! nothing is written then. Removals are held back until it is known which of
//! the two they are.

use std::collections::BTreeMap;

use ioasim_events::{Event, Flags, Kind};
use rustc_hash::FxHashMap;

/// Ranges kept at most; a machine has some dozens.
const MAX_RANGES: usize = 1 << 16;
/// Removals held back at most.
const MAX_HELD: usize = 1 << 12;

/// A range of RAM.
#[derive(Clone, Copy, Debug)]
struct Ram {
    last: u64,
    vaddr: u64,
    users: u32,
}

/// What the listener's events were, by number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ParentCounts {
    /// Additions and removals written.
    pub(crate) maps: u64,
    pub(crate) unmaps: u64,
    /// Additions of what was there already, in another container.
    pub(crate) repeated: u64,
    /// Removals because a device moved behind the emulated IOMMU.
    pub(crate) at_switch: u64,
    /// Removals of ranges that were not known.
    pub(crate) unknown: u64,
    /// Ranges that are not of whole pages.
    pub(crate) not_of_pages: u64,
    /// Ranges dropped because there were too many.
    pub(crate) forgotten: u64,
}

impl ParentCounts {
    /// Names and numbers, those of logs with such events.
    pub(crate) fn add_to(&self, add: &mut impl FnMut(&str, u64)) {
        for (name, n) in [
            ("parent_maps", self.maps),
            ("parent_unmaps", self.unmaps),
            ("parent_maps_repeated", self.repeated),
            ("parent_unmaps_at_switch", self.at_switch),
            ("parent_unmaps_of_unknown", self.unknown),
            ("parent_ranges_not_of_pages", self.not_of_pages),
            ("parent_ranges_forgotten", self.forgotten),
        ] {
            if n > 0 {
                add(name, n);
            }
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Parent {
    /// By first address.
    ram: BTreeMap<u64, Ram>,
    /// First guest-physical address by the VMM's address.
    by_vaddr: BTreeMap<u64, u64>,
    held: Vec<(u64, u64)>,
    /// Regions of the emulated IOMMU in containers.
    iommu: FxHashMap<(u64, u64), u32>,
    pub(crate) counts: ParentCounts,
    /// Events to be written, without times.
    out: Vec<Event>,
}

impl Parent {
    /// Takes the events to be written.
    pub(crate) fn drain(&mut self) -> std::vec::Drain<'_, Event> {
        self.out.drain(..)
    }

    /// RAM from `start` to `last` (inclusive) was added.
    pub(crate) fn add(&mut self, start: u64, last: u64, vaddr: u64) {
        self.settle();
        if start & 0xfff != 0 || last & 0xfff != 0xfff || last < start {
            self.counts.not_of_pages += 1;
            return;
        }
        if let Some(ram) = self.ram.get_mut(&start).filter(|r| r.last == last && r.vaddr == vaddr) {
            ram.users += 1;
            self.counts.repeated += 1;
            return;
        }
        // The removal was not recorded.
        let first = self.of(start).map_or(start, |(s, _)| s);
        let old: Vec<u64> = self.ram.range(first..=last).map(|(s, _)| *s).collect();
        for start in old {
            self.remove(start, Flags::INFERRED);
        }
        if self.ram.len() == MAX_RANGES {
            self.ram.clear();
            self.by_vaddr.clear();
            self.counts.forgotten += MAX_RANGES as u64;
        }
        self.ram.insert(start, Ram { last, vaddr, users: 1 });
        self.by_vaddr.insert(vaddr, start);
        self.counts.maps += 1;
        let mut e = Event::new(Kind::ParentMap);
        e.flags = Flags::READ.with(Flags::WRITE);
        (e.addr, e.size, e.out) = (start, size(start, last), vaddr);
        self.out.push(e);
    }

    /// A range was removed from a container; true if it was the emulated
    /// IOMMU's, not RAM.
    pub(crate) fn remove_later(&mut self, start: u64, last: u64) -> bool {
        if let Some(containers) = self.iommu.get_mut(&(start, last)) {
            *containers -= 1;
            if *containers == 0 {
                self.iommu.remove(&(start, last));
            }
            return true;
        }
        if self.held.len() == MAX_HELD {
            self.settle();
        }
        self.held.push((start, last));
        false
    }

    /// The emulated IOMMU's region was added: what was removed last left that
    /// container, not the machine.
    pub(crate) fn switched(&mut self, start: u64, last: u64) {
        if self.iommu.len() < MAX_HELD {
            *self.iommu.entry((start, last)).or_default() += 1;
        }
        for (start, last) in std::mem::take(&mut self.held) {
            if let Some(ram) = self.ram.get_mut(&start).filter(|r| r.last == last) {
                ram.users = ram.users.saturating_sub(1);
                self.counts.at_switch += 1;
            }
        }
    }

    /// What was removed last is gone.
    pub(crate) fn settle(&mut self) {
        for (start, last) in std::mem::take(&mut self.held) {
            let Some(ram) = self.ram.get_mut(&start).filter(|r| r.last == last) else {
                self.counts.unknown += 1;
                continue;
            };
            ram.users = ram.users.saturating_sub(1);
            if ram.users == 0 {
                self.remove(start, Flags::default());
            }
        }
    }

    /// Guest-physical address of the VMM's address, if `size` bytes of RAM
    /// begin there.
    pub(crate) fn gpa_of(&self, vaddr: u64, size: u64) -> Option<u64> {
        let (&base, &start) = self.by_vaddr.range(..=vaddr).next_back()?;
        let ram = self.ram.get(&start)?;
        let gpa = start.checked_add(vaddr - base)?;
        (gpa.checked_add(size - 1)? <= ram.last).then_some(gpa)
    }

    fn of(&self, addr: u64) -> Option<(u64, Ram)> {
        let (start, ram) = self.ram.range(..=addr).next_back()?;
        (ram.last >= addr).then_some((*start, *ram))
    }

    fn remove(&mut self, start: u64, flags: Flags) {
        let Some(ram) = self.ram.remove(&start) else { return };
        if self.by_vaddr.get(&ram.vaddr) == Some(&start) {
            self.by_vaddr.remove(&ram.vaddr);
        }
        self.counts.unmaps += 1;
        let mut e = Event::new(Kind::ParentUnmap);
        (e.addr, e.size, e.flags) = (start, size(start, ram.last), flags);
        self.out.push(e);
    }
}

/// Bytes of an inclusive range of pages, all but one page for the whole space.
fn size(start: u64, last: u64) -> u64 {
    (last - start).checked_add(1).unwrap_or(!0xfff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(p: &mut Parent) -> Vec<(Kind, u64, u64, u64)> {
        p.drain().map(|e| (e.kind, e.addr, e.size, e.out)).collect()
    }

    #[test]
    fn changes_of_memory() {
        let mut p = Parent::default();
        p.add(0, 0xf_ffff, 0x7f00_0000_0000);
        p.add(0x10_0000, 0x1f_ffff, 0x7f10_0000_0000);
        assert_eq!(kinds(&mut p).len(), 2);
        assert_eq!(p.gpa_of(0x7f10_0000_5000, 0x1000), Some(0x10_5000));
        assert_eq!(p.gpa_of(0x7f10_000f_f000, 0x2000), None, "runs over the end");
        assert_eq!(p.gpa_of(0x7e00_0000_0000, 1), None);
        // The firmware splits a range.
        p.remove_later(0, 0xf_ffff);
        assert_eq!(kinds(&mut p), []);
        p.add(0, 0xb_ffff, 0x7f00_0000_0000);
        assert_eq!(
            kinds(&mut p),
            [
                (Kind::ParentUnmap, 0, 0x10_0000, 0),
                (Kind::ParentMap, 0, 0xc_0000, 0x7f00_0000_0000)
            ]
        );
        // A removal that was not recorded.
        p.add(0xb_0000, 0xc_ffff, 0x7f20_0000_0000);
        assert_eq!(kinds(&mut p).len(), 2);
        assert_eq!(p.gpa_of(0x7f00_0000_0000, 1), None);
    }

    #[test]
    fn containers_and_switches() {
        let mut p = Parent::default();
        for _ in 0..2 {
            p.add(0, 0xf_ffff, 0x7f00_0000_0000);
        }
        assert_eq!((kinds(&mut p).len(), p.counts.repeated), (1, 1));
        // One device moves behind the IOMMU and back.
        p.remove_later(0, 0xf_ffff);
        p.switched(0, 0xfedf_ffff);
        assert!(p.remove_later(0, 0xfedf_ffff) && !p.remove_later(0, 0xfedf_ffff));
        p.held.clear();
        p.add(0, 0xf_ffff, 0x7f00_0000_0000);
        assert_eq!((kinds(&mut p), p.counts.at_switch), (vec![], 1));
        // Gone from one container, then from the other.
        for expected in [0, 1] {
            p.remove_later(0, 0xf_ffff);
            p.settle();
            assert_eq!(kinds(&mut p).len(), expected);
        }
        p.remove_later(0x5000, 0x5fff);
        p.settle();
        p.add(0x1234, 0x5fff, 1);
        assert_eq!((p.counts.unknown, p.counts.not_of_pages), (1, 1));
    }

    #[test]
    fn bounded() {
        let mut p = Parent::default();
        for i in 0..3 * MAX_RANGES as u64 {
            p.add(i << 13, (i << 13) + 0xfff, i << 20);
            p.drain();
        }
        assert!(p.ram.len() <= MAX_RANGES && p.by_vaddr.len() <= MAX_RANGES);
        assert!(p.counts.forgotten > 0);
        for i in 0..2 * MAX_HELD as u64 {
            p.remove_later(i << 13, (i << 13) + 0xfff);
        }
        assert!(p.held.len() <= MAX_HELD);
    }
}
