//! The first pass over a trace: which guest memory it uses.

use ioasim_events::{DomainId, Event, Flags, Kind, OutputSpace, PAGE_MASK};
use rand::SeedableRng;
use rand_pcg::Pcg64;
use rustc_hash::FxHashMap;

use super::children::{Children, pages};
use super::choose::below;
use super::range_map::RangeMap;

/// Guest memory that the recording does not show is assumed in pieces of this
/// size around what it uses: Linux x86-64's memory block.
pub(super) const BLOCK: u64 = 128 << 20;
/// Blocks that an overlay can lay out: 8 TiB.
const MOST_BLOCKS: u64 = 65_536;
/// Pages of DMA that are remembered, drawn evenly from all accesses.
const HOT_PAGES: usize = 65_536;
/// Table pages that can be reserved (64 GiB).
const MOST_TABLE_PAGES: u64 = 1 << 24;
/// Highest GPA that a four-level parent translates.
const WIDTH: u64 = 1 << 48;
/// Runs of a recorded parent that are memory; smaller ones may be devices or
/// firmware (the rule by which the replay places page tables).
const MEMORY_RUN: u64 = 2 << 20;

/// What the first pass found.
#[derive(Debug)]
pub(super) struct Survey {
    /// Guest memory, ascending.
    pub regions: Vec<(u64, u64)>,
    /// Range of GPAs for the guest's page tables.
    pub page_tables: (u64, u64),
    /// GPA pages that DMA uses.
    pub hot: Vec<u64>,
    /// End of the recorded host memory.
    pub highest_hpa: u64,
    /// The trace has a parent of its own.
    pub has_parent: bool,
    /// The trace has recorded shadow operations.
    pub has_shadow: bool,
}

/// Collects while events pass by.
#[derive(Debug)]
pub(super) struct Surveyor {
    children: Children,
    touched: RangeMap<()>,
    /// Recorded parent, 2 MiB runs and larger: now, and ever.
    runs: RangeMap<()>,
    runs_ever: RangeMap<()>,
    /// End of the recorded memory when the first page table is placed.
    top: Option<u64>,
    hot: Vec<u64>,
    accesses: u64,
    rng: Pcg64,
    highest_hpa: u64,
    has_parent: bool,
    has_shadow: bool,
    /// Nodes of each child's table that exist, by level: 2M, 1G, 512G.
    nodes: [FxHashMap<DomainId, RangeMap<()>>; 3],
    table_pages: u64,
    scratch: Vec<(u64, u64)>,
}

impl Surveyor {
    pub fn new(output_space: OutputSpace, seed: u64) -> Surveyor {
        Surveyor {
            children: Children::new(output_space, false),
            touched: RangeMap::default(),
            runs: RangeMap::default(),
            runs_ever: RangeMap::default(),
            top: None,
            hot: Vec::new(),
            accesses: 0,
            // Another stream than the workload's.
            rng: Pcg64::seed_from_u64(seed ^ 0x5afe_5eed),
            highest_hpa: 0,
            has_parent: false,
            has_shadow: false,
            nodes: Default::default(),
            table_pages: 0,
            scratch: Vec::new(),
        }
    }

    /// Looks at one event.
    pub fn event(&mut self, e: &Event) {
        match e.kind {
            Kind::Dma => self.access(e),
            Kind::Map => {
                let (start, end) = pages(e.addr, e.size);
                let gpa = e.out & !PAGE_MASK;
                self.touch(gpa, gpa.saturating_add(end - start));
                self.count_nodes(e, start, end, gpa);
                self.first_table();
            }
            Kind::Unmap => {
                let (start, end) = pages(e.addr, e.size);
                for (level, nodes) in self.nodes.iter_mut().enumerate() {
                    let span = 1u64 << (21 + 9 * level);
                    if let Some(nodes) = nodes.get_mut(&e.domain) {
                        nodes.remove(start.next_multiple_of(span), end & !(span - 1));
                    }
                }
            }
            Kind::ParentMap => {
                self.has_parent = true;
                let (start, end) = pages(e.addr, e.size);
                self.highest_hpa = self.highest_hpa.max(e.out.saturating_add(end - start));
                self.runs.remove(start, end);
                if end - start >= MEMORY_RUN {
                    self.runs.set(start, end, ());
                    self.runs_ever.set(start, end, ());
                }
            }
            Kind::ParentUnmap => {
                let (start, end) = pages(e.addr, e.size);
                self.runs.remove(start, end);
            }
            Kind::Attach if e.domain != DomainId::PARENT => self.first_table(),
            Kind::ShadowMap => self.has_shadow = true,
            _ => {}
        }
        self.children.apply(e);
    }

    /// The replay places the first child's table at the end of what the
    /// parent maps then.
    fn first_table(&mut self) {
        if self.top.is_none() {
            self.top = self.runs.iter().next_back().map(|(_, end, ())| end);
        }
    }

    fn access(&mut self, e: &Event) {
        let mut reached = std::mem::take(&mut self.scratch);
        reached.clear();
        self.children.reached_by(e, &mut reached);
        for (start, end) in &reached {
            self.touch(*start, *end);
        }
        if let Some((page, _)) = reached.first() {
            // Reservoir sampling: each access is kept with equal probability.
            self.accesses += 1;
            if self.hot.len() < HOT_PAGES {
                self.hot.push(*page);
            } else {
                let at = below(&mut self.rng, self.accesses);
                if let Some(place) = self.hot.get_mut(at as usize) {
                    *place = *page;
                }
            }
        }
        self.scratch = reached;
        if e.domain != DomainId::PARENT {
            self.first_table();
        }
    }

    fn touch(&mut self, start: u64, end: u64) {
        let (from, to) = (start & !(BLOCK - 1), end.min(1 << 62).next_multiple_of(BLOCK));
        let known = self.touched.within(from, to).next();
        if known.is_none_or(|(s, e, ())| (s, e) != (from, to)) {
            self.touched.set(from, to, ());
        }
    }

    /// Table pages that the replay's children will take: an upper bound.
    fn count_nodes(&mut self, e: &Event, start: u64, end: u64, gpa: u64) {
        for (level, by_domain) in self.nodes.iter_mut().enumerate() {
            let span = 1u64 << (21 + 9 * level);
            let nodes = by_domain.entry(e.domain).or_insert_with(|| {
                self.table_pages += 1;
                RangeMap::default()
            });
            let (from, to) = (start & !(span - 1), end.next_multiple_of(span));
            let (inner, outer) = (start.next_multiple_of(span), end & !(span - 1));
            // Aligned blocks of 2 MiB and 1 GiB are leaves and need no node;
            // the two ends may.
            let leaves = level < 2 && (start ^ gpa) & (span - 1) == 0 && inner < outer;
            let needed = if leaves { [(from, inner), (outer, to)] } else { [(from, to), (to, to)] };
            for (from, to) in needed {
                let new = missing(nodes, from, to);
                if new > 0 {
                    self.table_pages = self.table_pages.saturating_add(new / span);
                    nodes.set(from, to, ());
                }
            }
        }
    }

    /// Ends the pass; `granule` = what guest memory is rounded out to.
    ///
    /// # Errors
    /// A sentence, if the trace uses too much or too high guest memory.
    pub fn finish(self, granule: u64) -> Result<Survey, String> {
        let reserve = (self.table_pages.saturating_mul(4096)).next_multiple_of(2 << 20);
        let reserve = reserve.saturating_add(4 << 20);
        if self.table_pages > MOST_TABLE_PAGES {
            return Err(format!(
                "its children need about {} pages of page tables, more than the {MOST_TABLE_PAGES} \
                 that an overlay reserves; slice the trace",
                self.table_pages
            ));
        }
        let (regions, page_tables) = if self.has_parent {
            let regions: Vec<_> = self.runs_ever.iter().map(|(s, e, ())| (s, e)).collect();
            let top = self.top.or(regions.last().map(|r| r.1)).unwrap_or(0);
            (regions, (top.saturating_sub(reserve), top))
        } else {
            let granule = granule.max(BLOCK);
            let mut memory = RangeMap::default();
            for (start, end, ()) in self.touched.iter() {
                memory.set(start & !(granule - 1), end.next_multiple_of(granule), ());
            }
            let regions: Vec<_> = memory.iter().map(|(s, e, ())| (s, e)).collect();
            let bytes: u64 = regions.iter().map(|(s, e)| e - s).sum();
            if bytes / BLOCK > MOST_BLOCKS {
                return Err(format!(
                    "it uses {} GiB of guest memory, more than the {} GiB that an overlay lays out; \
                     slice the trace",
                    bytes >> 30,
                    (MOST_BLOCKS * BLOCK) >> 30
                ));
            }
            let top = regions.last().map_or(0, |r| r.1).next_multiple_of(1 << 30);
            if top + reserve > WIDTH {
                return Err(format!(
                    "it uses guest memory up to {top:#x}; an overlay needs room for page tables \
                     below {WIDTH:#x}"
                ));
            }
            (regions, (top, top + reserve))
        };
        Ok(Survey {
            regions,
            page_tables,
            hot: self.hot,
            highest_hpa: self.highest_hpa,
            has_parent: self.has_parent,
            has_shadow: self.has_shadow,
        })
    }
}

fn missing(map: &RangeMap<()>, start: u64, end: u64) -> u64 {
    end - start - map.within(start, end).map(|(s, e, ())| e - s).sum::<u64>()
}

/// True if an access may write: it says so, or does not say.
pub(super) fn may_write(flags: Flags) -> bool {
    flags.has(Flags::WRITE) || !flags.has(Flags::READ)
}
