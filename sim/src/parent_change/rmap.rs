//! A reverse map in the form of KVM's.

use super::lists::{Lists, grow_to};
use super::reverse_map::ReverseMap;
use super::{Change, ChildId, ParentChange, Shadows, Work};

const NONE: u32 = u32::MAX;
/// The head names a descriptor, not a slot.
const MANY: u32 = 1 << 31;
/// Slots in a descriptor: one 64-byte line with its count and link. KVM's
/// `struct pte_list_desc` holds 14 pointers (`PTE_LIST_EXT`, x86 `mmu.c`).
const SLOTS: usize = 14;

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    slots: [u32; SLOTS],
    count: u32,
    next: u32,
}

/// Per page nothing, one slot, or a chain of descriptors of which only the
/// first may have free places.
#[derive(Clone, Debug, Default)]
struct Chains {
    heads: Vec<u32>,
    /// Head of each slot, as KVM finds the page from the shadow page's own
    /// record (`kvm_mmu_page_get_gfn`).
    of_slot: Vec<u32>,
    descriptors: Vec<Descriptor>,
    free: Vec<u32>,
}

impl Chains {
    fn take(&mut self, new: Descriptor) -> u32 {
        match self.free.pop() {
            Some(i) => {
                self.descriptors[i as usize] = new;
                i
            }
            None => {
                self.descriptors.push(new);
                self.descriptors.len() as u32 - 1
            }
        }
    }
}

impl Lists for Chains {
    const LOG: usize = 0;

    #[inline]
    fn grow(&mut self, slots: usize, heads: usize) {
        debug_assert!(slots < MANY as usize);
        grow_to(&mut self.of_slot, slots, NONE);
        grow_to(&mut self.heads, heads, NONE);
    }

    #[inline]
    fn holds(&self, slot: u32) -> bool {
        self.of_slot[slot as usize] != NONE
    }

    #[inline]
    fn add(&mut self, slot: u32, head: u32) -> bool {
        self.of_slot[slot as usize] = head;
        let old = self.heads[head as usize];
        if old == NONE {
            self.heads[head as usize] = slot;
            return true;
        }
        if old & MANY == 0 {
            let mut slots = [NONE; SLOTS];
            (slots[0], slots[1]) = (old, slot);
            let new = self.take(Descriptor { slots, count: 2, next: NONE });
            self.heads[head as usize] = new | MANY;
            return false;
        }
        let first = &mut self.descriptors[(old & !MANY) as usize];
        if (first.count as usize) < SLOTS {
            first.slots[first.count as usize] = slot;
            first.count += 1;
        } else {
            let mut slots = [NONE; SLOTS];
            slots[0] = slot;
            let new = self.take(Descriptor { slots, count: 1, next: old & !MANY });
            self.heads[head as usize] = new | MANY;
        }
        false
    }

    fn remove(&mut self, slot: u32) -> Option<u32> {
        let head = std::mem::replace(&mut self.of_slot[slot as usize], NONE);
        let old = self.heads[head as usize];
        if old & MANY == 0 {
            debug_assert_eq!(old, slot);
            self.heads[head as usize] = NONE;
            return Some(head);
        }
        // Search the chain; the last slot of its first descriptor takes the
        // place of the one removed.
        let first = old & !MANY;
        let mut at = first;
        let place = loop {
            let d = &self.descriptors[at as usize];
            match d.slots[..d.count as usize].iter().position(|s| *s == slot) {
                Some(i) => break i,
                None => at = d.next,
            }
        };
        let d = &mut self.descriptors[first as usize];
        d.count -= 1;
        let (last, count, next) = (d.slots[d.count as usize], d.count, d.next);
        self.descriptors[at as usize].slots[place] = last;
        if count == 0 {
            self.free.push(first);
            self.heads[head as usize] = if next == NONE { NONE } else { next | MANY };
            return (next == NONE).then_some(head);
        }
        if count == 1 && next == NONE {
            self.heads[head as usize] = self.descriptors[first as usize].slots[0];
            self.free.push(first);
        }
        None
    }

    fn visit(&self, head: u32, lines: &mut u64, mut f: impl FnMut(u32)) {
        *lines += 1;
        let first = self.heads[head as usize];
        if first == NONE {
            return;
        }
        if first & MANY == 0 {
            return f(first);
        }
        let mut at = first & !MANY;
        while at != NONE {
            *lines += 1;
            let d = &self.descriptors[at as usize];
            d.slots[..d.count as usize].iter().for_each(|slot| f(*slot));
            at = d.next;
        }
    }

    fn memory_bytes(&self) -> u64 {
        let words = self.heads.capacity() + self.of_slot.capacity() + self.free.capacity();
        (words * 4 + self.descriptors.capacity() * size_of::<Descriptor>()) as u64
    }
}

/// Reverse map from pages of the level below to shadow entries, in the form
/// of KVM's (`struct kvm_rmap_head`, `pte_list_add`, `pte_list_remove`), with
/// 32-bit numbers instead of pointers.
#[derive(Clone, Debug, Default)]
pub struct Rmap {
    map: ReverseMap<Chains>,
}

impl ParentChange for Rmap {
    type Config = ();

    fn new(_: &()) -> Self {
        Rmap::default()
    }

    fn mapped(&mut self, child: ChildId, iova: u64, gpa: u64, len: u64) {
        self.map.mapped(child, iova, gpa, len);
    }

    fn unmapped(&mut self, child: ChildId, iova: u64, len: u64) {
        self.map.unmapped(child, iova, len);
    }

    fn cleared(&mut self, child: ChildId) {
        self.map.cleared(child);
    }

    fn changed(&mut self, change: Change, shadows: &mut dyn Shadows, work: &mut Work) {
        self.map.changed(change, shadows, work);
    }

    fn memory_bytes(&self) -> u64 {
        self.map.memory_bytes()
    }
}
