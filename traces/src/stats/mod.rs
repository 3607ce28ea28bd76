//! Statistics of a trace: what `ioasim trace info` prints.
//!
//! One pass over the chunks; memory grows with the number of distinct pages,
//! not with the number of events. All times are of the recorded clock, which
//! runs slow when the guest was emulated: order is real, gaps are not.

mod build;
mod extents;
mod locality;
mod plots;
mod render;
mod table;
mod values;

use std::collections::BTreeMap;

use serde::Serialize;

pub use build::StatsBuilder;
pub use locality::{Interval, Locality};
pub use values::{Class, Spread};

use crate::Result;
use crate::file::{Meta, TraceReader};
use crate::generate::Control;

/// Statistics of a whole trace. Serialise it for JSON: integers, with units
/// in the names; a page is 4 KiB.
#[derive(Clone, Debug, Serialize)]
pub struct TraceStats {
    /// The file, unless the statistics are of loose chunks.
    pub file: Option<FileStats>,
    /// Number of events.
    pub events: u64,
    /// Time of the last event in ns of the recorded clock.
    pub end_ns: u64,
    /// Events of each kind that occurs.
    pub events_by_kind: BTreeMap<&'static str, u64>,
    /// What the recording tells about accesses.
    pub recorded: Recorded,
    /// What had to be concluded, and what could not be.
    pub inferred: Inferred,
    /// Guest's invalidations by reach.
    pub invalidations: Invalidations,
    /// Child's maps.
    pub maps: MapStats,
    /// How often pages are used again.
    pub reuse: Reuse,
    /// How accesses lie together.
    pub locality: Locality,
    /// Distinct pages.
    pub pages: Pages,
    /// Parent's maps.
    pub parent: ParentStats,
    /// By device, ascending requester id.
    pub devices: Vec<DeviceStats>,
    /// By domain, ascending domain id.
    pub domains: Vec<DomainStats>,
    /// Provenance, as stored in the file.
    pub provenance: Meta,
}

/// The file that holds the trace.
#[derive(Clone, Debug, Serialize)]
pub struct FileStats {
    /// Name as given.
    pub path: String,
    /// Size in bytes.
    pub file_bytes: u64,
    /// Number of row groups.
    pub row_groups: u64,
}

/// What the recording tells about accesses (`dma` events).
#[derive(Clone, Debug, Default, Serialize)]
pub struct Recorded {
    /// Accesses.
    pub dma: u64,
    /// Bytes of accesses whose length is known.
    pub dma_bytes: u64,
    /// Accesses whose length is known.
    pub dma_with_length: u64,
    /// Accesses whose direction is known.
    pub dma_with_direction: u64,
    /// Accesses with a recorded output address.
    pub dma_with_output: u64,
    /// Accesses with a recorded IOTLB outcome (label).
    pub dma_with_label: u64,
    /// Labels that are hits.
    pub label_hits: u64,
    /// `label_hits / dma_with_label`, `None` without labels.
    pub label_hit_share: Option<f64>,
    /// Accesses that ended in a translation fault.
    pub dma_faults: u64,
}

/// What is not in the recording itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Inferred {
    /// Maps learned from their effects.
    pub maps_inferred: u64,
    /// Unmaps learned from their effects.
    pub unmaps_inferred: u64,
    /// Other events learned from their effects.
    pub others_inferred: u64,
    /// Recorded events whose domain was concluded by adjacency.
    pub domains_inferred: u64,
    /// Maps that the guest follows with an invalidation (caching mode).
    pub maps_notified: u64,
    /// Invalidations sent only because of not-present to present.
    pub invalidations_map_notify: u64,
    /// Maps and unmaps without a domain.
    pub maps_unattributed: u64,
    /// Accesses without a domain.
    pub dma_unattributed: u64,
    /// Page- and domain-selective invalidations without a domain.
    pub invalidations_unattributed: u64,
    /// Accesses outside every known map of their domain (a domain with no
    /// maps at all does not count).
    pub dma_outside_maps: u64,
    /// Bytes that unmaps cover although nothing is known to be mapped there.
    pub unmapped_bytes_unknown: u64,
}

/// Guest's invalidations by reach.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Invalidations {
    /// Page-selective.
    pub page: u64,
    /// Domain-selective.
    pub domain: u64,
    /// Global.
    pub global: u64,
    /// Context cache.
    pub context: u64,
    /// Caches emptied by the IOMMU itself.
    pub reset: u64,
    /// Without a known reach.
    pub unknown: u64,
    /// With the leaf-only hint.
    pub leaf_only: u64,
    /// Pages that page-selective ones cover, as sizes of the descriptors.
    pub page_covered_pages: u64,
    /// Of the physical IOMMU (`host_invalidate` events).
    pub host: u64,
}

/// Maps of one size class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeClass {
    /// Largest size of the class in bytes, a power of two; the class starts
    /// above the half of it.
    pub up_to_bytes: u64,
    /// Number of maps.
    pub maps: u64,
}

/// The child's maps and unmaps.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MapStats {
    /// Bytes of all map events together.
    pub mapped_bytes: u64,
    /// Bytes of all unmap events together.
    pub unmapped_bytes: u64,
    /// Sizes of map events, ascending, empty classes left out.
    pub sizes: Vec<SizeClass>,
    /// From a map to the unmap that ends it, recorded clock. A map that is
    /// unmapped in pieces counts once per piece.
    pub lifetime_ns: Spread,
    /// Maps still there at the end.
    pub alive_at_end: u64,
    /// Most pages mapped at the same time, all domains together.
    pub peak_pages: u64,
    /// Bytes mapped again while they were mapped.
    pub remapped_bytes: u64,
}

/// How often pages are used again. Accesses longer than
/// [`StatsBuilder::MAX_PAGES`] pages, and maps longer than that, count for
/// that many pages.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reuse {
    /// Accesses of each distinct (domain, page) that is accessed.
    pub accesses_per_page: Spread,
    /// Accesses during each map that has ended, or a piece of it.
    pub accesses_per_map: Spread,
    /// Number of times each distinct (domain, page) is mapped.
    pub maps_per_page: Spread,
}

/// Distinct pages.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Pages {
    /// (domain, IOVA page) pairs accessed.
    pub accessed: u64,
    /// (domain, IOVA page) pairs mapped.
    pub mapped: u64,
    /// Recorded output pages of accesses.
    pub outputs: u64,
}

/// The parent's maps.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ParentStats {
    /// Maps.
    pub maps: u64,
    /// Unmaps.
    pub unmaps: u64,
    /// Most bytes mapped at the same time.
    pub peak_bytes: u64,
}

/// One device.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceStats {
    /// Requester id, `BB:DD.F`, "-" if unknown.
    pub requester: String,
    /// Domains of its accesses.
    pub domains: Vec<u32>,
    /// Accesses.
    pub dma: u64,
    /// Bytes of accesses whose length is known.
    pub dma_bytes: u64,
    /// Accesses with a label.
    pub labels: u64,
    /// Labels that are hits.
    pub label_hits: u64,
    /// `label_hits / labels`, `None` without labels.
    pub label_hit_share: Option<f64>,
    /// Faults.
    pub faults: u64,
    /// Distinct (domain, IOVA page) pairs accessed.
    pub iova_pages: u64,
    /// Distinct PASIDs.
    pub pasids: u64,
}

/// One domain.
#[derive(Clone, Debug, Serialize)]
pub struct DomainStats {
    /// Domain id; `None` for events without one.
    pub domain: Option<u32>,
    /// True for the parent's own address space (IOVA = GPA).
    pub is_parent: bool,
    /// Accesses.
    pub dma: u64,
    /// Maps.
    pub maps: u64,
    /// Unmaps.
    pub unmaps: u64,
    /// Page-selective invalidations.
    pub invalidations_page: u64,
    /// Domain-selective invalidations.
    pub invalidations_domain: u64,
    /// Distinct IOVA pages accessed.
    pub iova_pages: u64,
    /// Distinct recorded output pages.
    pub output_pages: u64,
    /// Most pages mapped at the same time.
    pub peak_pages: u64,
}

impl TraceStats {
    /// Reads the whole trace.
    ///
    /// # Errors
    /// Those of [`ChunkStream`](crate::file::ChunkStream);
    /// [`Error::Import`](crate::Error::Import) if it is interrupted.
    pub fn collect(reader: &TraceReader, control: &mut Control<'_>) -> Result<TraceStats> {
        let mut builder = StatsBuilder::new(reader.meta());
        let total = reader.meta().totals.events;
        let mut done = 0;
        for chunk in reader.chunks() {
            let chunk = chunk?;
            builder.add(&chunk);
            done += chunk.len() as u64;
            control.tick(reader.path(), done, total)?;
        }
        let summary = reader.summary();
        let mut stats = builder.finish();
        stats.file = Some(FileStats {
            path: reader.path().display().to_string(),
            file_bytes: summary.file_bytes,
            row_groups: summary.row_groups,
        });
        Ok(stats)
    }

    /// Tables as text of at most `width` columns, at least 72.
    pub fn render_text(&self, width: usize) -> String {
        render::render(self, width.max(72))
    }

    /// Plots as text of at most `width` columns, at least 72: working set over
    /// time, reuse distances, lifetimes of maps, bursts. Empty if the trace has
    /// neither accesses nor ended maps.
    pub fn render_plots(&self, width: usize) -> String {
        plots::render(self, width.max(72))
    }
}
