//! The parent: guest-physical memory and where it lies in the host.

use serde::{Deserialize, Serialize};

use crate::events::{PageSize, Perm};
use crate::table::{Leaf, Prune, RadixTable, TableError};

/// Where guest-physical memory lies if the recording has no parent table.
/// All but `identity` place each page by a seeded permutation, so no two
/// guest pages share a host page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Stage 2 is bare: HPA = GPA, no table, no reads.
    Identity,
    /// 2 MiB pages.
    #[serde(rename = "2m")]
    Pages2M,
    /// 1 GiB pages.
    #[serde(rename = "1g")]
    Pages1G,
    /// 4 KiB pages.
    #[serde(rename = "4k-scattered")]
    Scattered4K,
}

impl Layout {
    /// Name as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Identity => "identity",
            Layout::Pages2M => "2m",
            Layout::Pages1G => "1g",
            Layout::Scattered4K => "4k-scattered",
        }
    }

    fn page(self) -> Option<PageSize> {
        match self {
            Layout::Identity => None,
            Layout::Pages2M => Some(PageSize::Size2M),
            Layout::Pages1G => Some(PageSize::Size1G),
            Layout::Scattered4K => Some(PageSize::Size4K),
        }
    }
}

/// The level below a child: what translates the child's outputs.
///
/// The parent of a two-level replay, or the effective table of any node of a
/// tree ([`crate::tree`]), itself possibly a shadow.
pub trait Below {
    /// The leaf that translates `gpa`, if any.
    fn lookup(&self, gpa: u64) -> Option<Leaf>;
}

impl Below for Parent {
    #[inline]
    fn lookup(&self, gpa: u64) -> Option<Leaf> {
        Parent::lookup(self, gpa)
    }
}

impl Below for RadixTable {
    #[inline]
    fn lookup(&self, gpa: u64) -> Option<Leaf> {
        RadixTable::lookup(self, gpa)
    }
}

/// Bits of guest-physical addresses that layouts permute; higher bits stay.
const PERMUTED_BITS: u32 = 48;
/// Where table pages go if the recording has no parent table (assumed: a
/// guest allocates them early, near each other).
const TABLE_PAGES_AT: u64 = 0x1000_0000;

/// The parent's table, recorded or made up page by page on first use.
#[derive(Clone, Debug)]
pub struct Parent {
    /// `None` = bare.
    table: Option<RadixTable>,
    /// `Some` = made up on first use.
    layout: Option<PageSize>,
    seed: u64,
    next_table_page: u64,
    /// Host pages for the parent's own table.
    next_host_page: u64,
    /// Pages made up.
    pub synthesized: u64,
}

impl Parent {
    /// A parent that recorded events fill.
    pub fn recorded(levels: u32) -> Parent {
        let mut parent = Parent::bare();
        parent.table = Some(parent.empty_table(levels));
        parent
    }

    /// A parent laid out by configuration.
    pub fn with_layout(layout: Layout, levels: u32, seed: u64) -> Parent {
        let mut parent = Parent { seed, layout: layout.page(), ..Parent::bare() };
        if parent.layout.is_some() {
            parent.table = Some(parent.empty_table(levels));
        }
        parent
    }

    fn bare() -> Parent {
        Parent {
            table: None,
            layout: None,
            seed: 0,
            next_table_page: TABLE_PAGES_AT,
            next_host_page: 1 << 45,
            synthesized: 0,
        }
    }

    fn empty_table(&mut self, levels: u32) -> RadixTable {
        let next = &mut self.next_host_page;
        RadixTable::new(levels, Prune::Covered, &mut |_, _| take_page(next))
    }

    /// The table; `None` if bare.
    #[inline]
    pub fn table(&self) -> Option<&RadixTable> {
        self.table.as_ref()
    }

    /// The leaf that translates `gpa`. A bare parent is the identity.
    #[inline]
    pub fn lookup(&self, gpa: u64) -> Option<Leaf> {
        match &self.table {
            Some(table) => table.lookup(gpa),
            None => {
                let size = PageSize::Size1G;
                Some(Leaf { out: gpa & !(size.bytes() - 1), size, perm: Perm::RW })
            }
        }
    }

    /// Makes sure that `[gpa, gpa + len)` exists in a made-up layout.
    #[inline]
    pub fn ensure(&mut self, gpa: u64, len: u64) {
        if self.layout.is_some() {
            self.make_up(gpa, len);
        }
    }

    fn make_up(&mut self, gpa: u64, len: u64) {
        let (Some(size), Some(table)) = (self.layout, &mut self.table) else { return };
        let mut at = gpa & !(size.bytes() - 1);
        let end = gpa.saturating_add(len);
        while at < end && table.covers(at) {
            if table.lookup(at).is_none() {
                let out = place(at >> size.shift(), size, self.seed) << size.shift();
                let next = &mut self.next_host_page;
                let mapped =
                    table.map(at, out, size.bytes(), Perm::RW, size, &mut |_, _| take_page(next));
                debug_assert!(mapped.is_ok(), "covered");
                self.synthesized += 1;
            }
            at += size.bytes();
        }
    }

    /// Bytes of the pages made up.
    pub fn synthesized_bytes(&self) -> u64 {
        self.layout.map_or(0, |size| self.synthesized * size.bytes())
    }

    /// A recorded parent map.
    ///
    /// # Errors
    /// Beyond the table's width.
    pub fn map(&mut self, gpa: u64, hpa: u64, len: u64, perm: Perm) -> Result<(), TableError> {
        let Some(table) = &mut self.table else { return Ok(()) };
        let next = &mut self.next_host_page;
        table.map(gpa, hpa, len, perm, PageSize::Size1G, &mut |_, _| take_page(next)).map(|_| ())
    }

    /// A recorded parent unmap; returns the bytes that were mapped.
    pub fn unmap(&mut self, gpa: u64, len: u64) -> u64 {
        let Some(table) = &mut self.table else { return 0 };
        let next = &mut self.next_host_page;
        table.unmap(gpa, len, &mut |_, _| take_page(next))
    }

    /// A guest page for a page table of the child. Recordings do not show
    /// where the guest keeps them: in a made-up layout they are consecutive,
    /// in a recorded parent they lie in what is mapped, from the top.
    pub fn take_table_page(&mut self) -> u64 {
        if self.layout.is_none()
            && let Some(table) = &self.table
        {
            // A mapped page: the last one below the previous.
            let limit = if self.next_table_page == TABLE_PAGES_AT {
                1 << table.width()
            } else {
                self.next_table_page
            };
            let mut last = None;
            table.visit(0, limit, &mut |base, leaf| {
                // Runs of 2 MiB and more are memory; small ones may be devices.
                if leaf.size > PageSize::Size4K {
                    last = Some((base + leaf.size.bytes()).min(limit) - 4096);
                }
                true
            });
            if let Some(page) = last {
                self.next_table_page = page;
                return page;
            }
        }
        let page = take_page(&mut self.next_table_page);
        self.ensure(page, 4096);
        page
    }
}

fn take_page(next: &mut u64) -> u64 {
    let page = *next;
    *next += 4096;
    page
}

/// Permutes a frame number: a seeded four-round Feistel network over the low
/// bits, which is a bijection whatever the round function does.
fn place(frame: u64, size: PageSize, seed: u64) -> u64 {
    let bits = (PERMUTED_BITS - size.shift()).next_multiple_of(2);
    let half = bits / 2;
    let mask = (1u64 << half) - 1;
    let (mut left, mut right) = (frame >> half & mask, frame & mask);
    for round in 0..4 {
        let mixed = mix(right ^ mix(seed.wrapping_add(round)));
        (left, right) = (right, left ^ (mixed & mask));
    }
    frame >> bits << bits | left << half | right
}

/// The finaliser of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placement_is_injective_and_depends_on_the_seed() {
        for size in PageSize::ALL {
            let frames = 1u64 << 14;
            let mut out: Vec<u64> = (0..frames).map(|f| place(f, size, 7)).collect();
            out.sort_unstable();
            out.dedup();
            assert_eq!(out.len() as u64, frames);
            assert!((0..64).any(|f| place(f, size, 7) != place(f, size, 8)));
        }
    }

    #[test]
    fn table_pages_of_a_recorded_parent_are_mapped() {
        let mut parent = Parent::recorded(4);
        parent.map(0, 0x4000_0000, 8 << 20, Perm::RW).unwrap();
        parent.map(0xfffc_0000, 0x7000_0000, 0x1000, Perm::RW).unwrap();
        let pages: Vec<u64> = (0..3).map(|_| parent.take_table_page()).collect();
        assert_eq!(pages, [0x7f_f000, 0x7f_e000, 0x7f_d000]);
        assert!(pages.iter().all(|p| parent.lookup(*p).is_some()));
    }
}
