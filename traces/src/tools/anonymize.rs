//! A trace whose addresses tell nothing and whose structure is kept.
//!
//! Addresses move in blocks of 2 MiB, the span of a last-level page table, so
//! that offsets, order and neighbourhood inside a block stay. Blocks that one
//! range crosses stay together, and a range that is aligned to its size (a huge
//! page, a covering invalidation) stays aligned. Each address space of each
//! domain, guest memory and host memory are permuted by themselves.
//!
//! The trace is read twice; memory grows with the blocks in use.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ioasim_events::{DomainId, Event, Flags, Kind, OutputSpace};
use rand::SeedableRng;
use rand_pcg::Pcg64;
use rustc_hash::FxHashMap;

use super::{derived, refuse};
use crate::Result;
use crate::file::{Summary, TraceReader, TraceWriter};
use crate::generate::{Control, below};

/// log2 of the bytes of a block.
const BLOCK: u32 = 21;
/// Ranges of so many bytes stay as they are: "everything".
const EVERYTHING: u64 = 1 << 39;

/// Which addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Space {
    /// IOVAs of a domain.
    Child(u32),
    /// Guest memory.
    Guest,
    /// Host memory.
    Host,
}

/// A space's blocks in the first pass.
#[derive(Debug, Default)]
struct Blocks {
    used: BTreeSet<u64>,
    /// Blocks that must stay before the one behind them.
    joined: BTreeSet<u64>,
    /// log2 of the blocks that a range at this block is aligned to.
    aligned: BTreeMap<u64, u32>,
}

impl Blocks {
    fn add(&mut self, addr: u64, size: u64) {
        if size >= EVERYTHING {
            return;
        }
        let last = addr.saturating_add(size.max(1) - 1) >> BLOCK;
        for block in addr >> BLOCK..=last {
            self.used.insert(block);
            if block < last {
                self.joined.insert(block);
            }
        }
        if size > 1 << BLOCK {
            let order = size.trailing_zeros().min(addr.trailing_zeros());
            // Aligned to the largest page size that it can hold.
            let order = if order >= 30 { order } else { order.min(BLOCK) };
            let entry = self.aligned.entry(addr >> BLOCK).or_default();
            *entry = (*entry).max(order - BLOCK.min(order));
        }
    }

    /// New places: groups of joined blocks, shuffled and laid out again.
    fn permute(&self, rng: &mut Pcg64) -> FxHashMap<u64, u64> {
        // First block, number of blocks, alignment.
        let mut groups: Vec<(u64, u64, u32)> = Vec::new();
        let mut previous = None;
        for &block in &self.used {
            let order = self.aligned.get(&block).copied().unwrap_or(0);
            let joins = previous.is_some_and(|p: u64| p + 1 == block && self.joined.contains(&p));
            match groups.last_mut() {
                Some(group) if joins => {
                    group.1 += 1;
                    group.2 = group.2.max(order);
                }
                _ => groups.push((block, 1, order)),
            }
            previous = Some(block);
        }
        for i in (1..groups.len()).rev() {
            groups.swap(i, below(rng, i as u64 + 1) as usize);
        }
        let mut places = FxHashMap::default();
        // Block 0 is not used: address 0 has a meaning to many.
        let mut at = 1;
        for (first, blocks, order) in groups {
            let step = 1u64 << order;
            // The next place with the group's offset from its alignment.
            let start = at + (first % step + step - at % step) % step;
            for i in 0..blocks {
                places.insert(first + i, start + i);
            }
            at = start + blocks;
        }
        places
    }
}

/// The addresses of an event: space, address, size, and where it stands.
fn addresses(e: &Event, outputs: OutputSpace) -> impl Iterator<Item = (Column, Space, u64, u64)> {
    let child = match e.domain {
        DomainId::PARENT => Space::Guest,
        DomainId(d) => Space::Child(d),
    };
    let target = if outputs == OutputSpace::Hpa { Space::Host } else { Space::Guest };
    let page = e.flags.scope() == Some(ioasim_events::Scope::Page);
    let all = match e.kind {
        Kind::Dma => {
            let out = e.flags.has(Flags::OUT_KNOWN).then_some((Column::Out, target));
            [Some((Column::Addr, child)), out, None]
        }
        Kind::Map => [Some((Column::Addr, child)), Some((Column::Out, Space::Guest)), None],
        Kind::Unmap | Kind::ShadowUnmap => [Some((Column::Addr, child)), None, None],
        Kind::Invalidate | Kind::HostInvalidate if page => {
            [Some((Column::Addr, child)), Some((Column::Out, child)), None]
        }
        Kind::ParentMap => {
            [Some((Column::Addr, Space::Guest)), Some((Column::Out, Space::Host)), None]
        }
        Kind::ParentUnmap => [Some((Column::Addr, Space::Guest)), None, None],
        Kind::ShadowMap => [
            Some((Column::Addr, child)),
            Some((Column::Out, Space::Guest)),
            (e.aux != 0).then_some((Column::Aux, Space::Host)),
        ],
        _ => [None, None, None],
    };
    let e = *e;
    all.into_iter().flatten().map(move |(column, space)| {
        // The descriptor's own address is a point inside its range.
        let point =
            matches!(e.kind, Kind::Invalidate | Kind::HostInvalidate) && column == Column::Out;
        (column, space, column.of(&e), if point { 1 } else { e.size })
    })
}

/// A column that holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Addr,
    Out,
    Aux,
}

impl Column {
    fn of(self, e: &Event) -> u64 {
        match self {
            Column::Addr => e.addr,
            Column::Out => e.out,
            Column::Aux => e.aux,
        }
    }

    fn set(self, e: &mut Event, value: u64) {
        match self {
            Column::Addr => e.addr = value,
            Column::Out => e.out = value,
            Column::Aux => e.aux = value,
        }
    }
}

/// How a trace is anonymized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anonymize {
    /// Seed of the permutation: who knows it can undo it.
    pub seed: u64,
    /// Markers keep their texts.
    pub keep_markers: bool,
}

/// Writes the trace with other addresses to `output`. Names and checksums of
/// sources, notes and counts are left out, too.
///
/// # Errors
/// The reader's and the writer's; [`Error::Import`](crate::Error::Import) if
/// interrupted.
pub fn anonymize(
    reader: &TraceReader,
    output: &Path,
    how: &Anonymize,
    control: &mut Control<'_>,
) -> Result<Summary> {
    let (space, total) = (reader.meta().output_space, 2 * reader.meta().totals.events);
    let mut done = 0;
    let mut tick = |control: &mut Control<'_>| -> Result<()> {
        done += 1;
        if done % 65_536 == 0 { control.tick(output, done, total) } else { Ok(()) }
    };
    let mut spaces: BTreeMap<Space, Blocks> = BTreeMap::new();
    reader.visit(&mut |e, _| {
        for (_, at, addr, size) in addresses(e, space) {
            spaces.entry(at).or_default().add(addr, size);
        }
        tick(control)
    })?;
    let mut rng = Pcg64::seed_from_u64(how.seed);
    let places: FxHashMap<Space, FxHashMap<u64, u64>> =
        spaces.iter().map(|(space, blocks)| (*space, blocks.permute(&mut rng))).collect();
    drop(spaces);
    let mut writer = TraceWriter::create(output)?;
    let mut markers = 0;
    reader.visit(&mut |e, text| {
        tick(control)?;
        let mut new = *e;
        for (column, at, addr, size) in addresses(e, space) {
            if size >= EVERYTHING {
                continue;
            }
            let block = places.get(&at).and_then(|p| p.get(&(addr >> BLOCK)));
            let Some(block) = block else {
                return Err(refuse(reader.path(), "it changed while it was read"));
            };
            column.set(&mut new, block << BLOCK | addr & ((1 << BLOCK) - 1));
        }
        match text {
            Some(text) if how.keep_markers => writer.push_marker(&new, text),
            Some(_) => {
                markers += 1;
                writer.push_marker(&new, &format!("marker {markers}"))
            }
            None => writer.push(&new),
        }
    })?;
    let note = "Anonymized: addresses are permuted in blocks of 2 MiB; ids, sizes, times and order are \
                those of the original.";
    let mut meta = derived(reader, "anonymize", note.into())?;
    meta.sources.clear();
    meta.import_counts.clear();
    meta.notes = vec![note.into()];
    // That something is made up must not be forgotten; parameters may be told.
    if !meta.synthetic.is_empty() {
        meta.notes.push("The original is made up or overlaid, at least in part.".into());
    }
    writer.finish(meta)
}
