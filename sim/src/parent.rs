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
    /// What lies below, in a tree of three levels.
    host: Option<Host>,
}

/// The level below the parent, made up: the parent's output is its input.
#[derive(Clone, Debug)]
struct Host {
    level: Box<Parent>,
    /// The parent's own table, if `table` is its composition with the host's;
    /// `None` = the two are not merged.
    own: Option<RadixTable>,
}

impl Parent {
    /// Lays this (still empty) parent over a made-up level. `merged`: what
    /// children see as the parent's table is the composition of both;
    /// otherwise the hardware walks the host's table as a stage of its own.
    pub fn over(mut self, level: Parent, merged: bool) -> Parent {
        let own = self.table.as_ref().filter(|_| merged).map(|t| t.levels());
        let own = own.map(|n| RadixTable::new(n, Prune::Covered, &mut |_: u32, _: u64| 0));
        self.host = Some(Host { level: Box::new(level), own });
        self
    }

    /// The host's table, if the hardware walks it as a stage of its own.
    #[inline]
    pub fn walked_host(&self) -> Option<&RadixTable> {
        self.host.as_ref().filter(|h| h.own.is_none())?.level.table()
    }

    /// True if the hardware walks a made-up host level as a stage of its own.
    #[inline]
    pub fn is_over_walked_host(&self) -> bool {
        self.host.as_ref().is_some_and(|h| h.own.is_none())
    }

    /// Makes sure that the host backs a page of the parent's output.
    pub fn ensure_host(&mut self, out: u64) {
        if let Some(host) = &mut self.host {
            host.level.ensure(out & !0xfff, 4096);
        }
    }

    /// Where an output of the parent's own table lies in the host at last.
    pub fn to_host(&self, out: u64) -> Option<u64> {
        match &self.host {
            None => Some(out),
            Some(host) => host.level.lookup(out).map(|l| l.translate(out)),
        }
    }

    /// The parts of a range of the parent's own output, as they lie in the
    /// host at last.
    pub fn ranges_to_host(&self, (start, end): (u64, u64)) -> Vec<(u64, u64)> {
        let Some(host) = &self.host else { return vec![(start, end)] };
        let mut found = Vec::new();
        let mut at = start;
        while at < end {
            let Some(leaf) = host.level.lookup(at) else {
                at = (at | 0xfff).saturating_add(1);
                continue;
            };
            let out = leaf.translate(at);
            let len = (leaf.size.bytes() - (at & (leaf.size.bytes() - 1))).min(end - at);
            found.push((out, out + len));
            at += len;
        }
        found
    }

    /// An output of the parent's own table, as shadows and the walked table
    /// hold it.
    pub fn to_effective(&self, out: u64) -> Option<u64> {
        match &self.host {
            Some(Host { own: Some(_), .. }) => self.to_host(out),
            _ => Some(out),
        }
    }

    /// What all levels below a child make of `gpa`: [`Parent::lookup`] and, if
    /// the host's level is not part of that, the host.
    pub fn final_leaf(&self, gpa: u64) -> Option<Leaf> {
        let leaf = self.lookup(gpa)?;
        match &self.host {
            Some(Host { own: None, level }) => {
                let host = level.lookup(leaf.translate(gpa))?;
                let out = host.translate(leaf.translate(gpa)) & !0xfff;
                Some(Leaf { out, size: PageSize::Size4K, perm: leaf.perm.and(host.perm) })
            }
            _ => Some(leaf),
        }
    }

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
            host: None,
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
        let Some(size) = self.layout else { return };
        let mut at = gpa & !(size.bytes() - 1);
        let end = gpa.saturating_add(len);
        while at < end && self.table.as_ref().is_some_and(|t| t.covers(at)) {
            if self.lookup(at).is_none() {
                let out = place(at >> size.shift(), size, self.seed) << size.shift();
                let mapped = self.put(at, out, size.bytes(), Perm::RW, size);
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
        self.put(gpa, hpa, len, perm, PageSize::Size1G)
    }

    fn put(
        &mut self,
        gpa: u64,
        out: u64,
        len: u64,
        perm: Perm,
        largest: PageSize,
    ) -> Result<(), TableError> {
        let Some(table) = &mut self.table else { return Ok(()) };
        let next = &mut self.next_host_page;
        let mut place = |_: u32, _: u64| take_page(next);
        if let Some(host) = &mut self.host {
            host.level.ensure(out, len);
            if let Some(own) = &mut host.own {
                own.map(gpa, out, len, perm, largest, &mut |_: u32, _: u64| 0)?;
                // What was there goes, also where the host has nothing.
                table.unmap(gpa, len, &mut place);
                let mut done = 0;
                while done < len {
                    let Some(leaf) = host.level.lookup(out + done) else {
                        done += 4096;
                        continue;
                    };
                    let to = leaf.translate(out + done);
                    let piece =
                        (leaf.size.bytes() - (to & (leaf.size.bytes() - 1))).min(len - done);
                    table.map(gpa + done, to, piece, perm, largest, &mut place)?;
                    done += piece;
                }
                return Ok(());
            }
        }
        table.map(gpa, out, len, perm, largest, &mut place).map(|_| ())
    }

    /// A recorded parent unmap; returns the bytes that were mapped.
    pub fn unmap(&mut self, gpa: u64, len: u64) -> u64 {
        let Some(table) = &mut self.table else { return 0 };
        if let Some(Host { own: Some(own), .. }) = &mut self.host {
            own.unmap(gpa, len, &mut |_: u32, _: u64| 0);
        }
        let next = &mut self.next_host_page;
        table.unmap(gpa, len, &mut |_, _| take_page(next))
    }

    /// A guest page for a page table of the child. Recordings do not show
    /// where the guest keeps them: in a made-up layout they are consecutive,
    /// in a recorded parent they lie in what is mapped, from the top.
    pub fn take_table_page(&mut self) -> u64 {
        let own = self.host.as_ref().and_then(|h| h.own.as_ref());
        if self.layout.is_none()
            && let Some(table) = own.or(self.table.as_ref())
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
    // An even number, for two halves; outputs stay inside PERMUTED_BITS.
    let bits = (PERMUTED_BITS - size.shift()) & !1;
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

    #[test]
    fn table_pages_of_a_merged_parent_are_mapped_though_the_host_is_scattered() {
        let host = Parent::with_layout(Layout::Scattered4K, 4, 1);
        let mut parent = Parent::recorded(4).over(host, true);
        parent.map(0, 0x4000_0000, 8 << 20, Perm::RW).unwrap();
        parent.unmap(6 << 20, 2 << 20);
        let page = parent.take_table_page();
        assert_eq!(page, (6 << 20) - 4096);
        let host = parent.lookup(page).map(|l| l.translate(page));
        assert_eq!(host, parent.to_host(0x4000_0000 + page), "through both levels");
    }
}
