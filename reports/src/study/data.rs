//! What the parent-change study found: counts that are the same everywhere,
//! and times that are of one machine.

use serde::{Deserialize, Serialize};

use crate::document::Version;

/// Schema name of `study.json`.
pub const STUDY_SCHEMA: &str = "ioasim.study/1";
/// Schema name of `times.json`.
pub const TIMES_SCHEMA: &str = "ioasim.study-times/1";

/// What is varied while the rest stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    /// Shadow entries of all children together.
    Entries,
    /// Children of the level.
    Children,
    /// Bytes of an unmap.
    Unmap,
    /// Share of each child's pages that all children map.
    Overlap,
}

impl Axis {
    /// Name in files.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Entries => "entries",
            Axis::Children => "children",
            Axis::Unmap => "unmap",
            Axis::Overlap => "overlap",
        }
    }
}

/// A forest of shadows and the unmaps made under it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// What this point varies.
    pub axis: Axis,
    /// Children of the level.
    pub children: u64,
    /// Shadow entries of 4 KiB of all children together.
    pub entries: u64,
    /// Share of each child's pages that all children map, in per cent.
    pub overlap_percent: u64,
    /// Consecutive IOVAs that lead to consecutive GPAs, in pages.
    pub run_pages: u64,
    /// Bytes of one unmap.
    pub unmap_bytes: u64,
}

impl Setup {
    /// The value that this point varies.
    pub fn x(&self) -> f64 {
        match self.axis {
            Axis::Entries => self.entries as f64,
            Axis::Children => self.children as f64,
            Axis::Unmap => self.unmap_bytes as f64,
            Axis::Overlap => self.overlap_percent as f64,
        }
    }
}

/// Primitives of unmaps under one policy, and the time that they took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The forest.
    #[serde(flatten)]
    pub setup: Setup,
    /// Parent-change policy.
    pub policy: String,
    /// Unmaps made; the counts below are of all of them.
    pub unmaps: u64,
    /// Records, links, heads and log records looked at.
    pub entries_examined: u64,
    /// Shadow entries removed because what they were composed from went.
    pub entries_changed: u64,
    /// Entries that went with whole shadows.
    pub entries_dropped: u64,
    /// Entries written by rebuilding at once.
    pub entries_rebuilt: u64,
    /// 64-byte lines touched to find what is affected.
    pub lines: u64,
    /// Bytes of the policy's own data when all entries are mapped.
    pub policy_bytes: u64,
    /// CPU time per unmap in ns; not part of `study.json`.
    #[serde(skip)]
    pub ns: f64,
    /// CPU time put off, per unmap in ns; not part of `study.json`.
    #[serde(skip)]
    pub later_ns: f64,
}

/// CPU time per page of the child's map path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapTime {
    /// Parent-change policy.
    pub policy: String,
    /// Sync policy of the children.
    pub sync: String,
    /// Share of each child's pages that all children map, in per cent.
    pub overlap_percent: u64,
    /// Consecutive pages per guest operation.
    pub batch_pages: u64,
    /// Map, without a policy, ns per page.
    pub map_ns: f64,
    /// Map, with the policy, ns per page; without what it puts off.
    pub map_with_ns: f64,
    /// What the policy puts off at a map and a worker does, ns per page.
    pub map_later_ns: f64,
    /// Unmap, without a policy, ns per page.
    pub unmap_ns: f64,
    /// Unmap, with the policy, ns per page; without what it puts off.
    pub unmap_with_ns: f64,
    /// What the policy puts off at an unmap, ns per page.
    pub unmap_later_ns: f64,
}

impl MapTime {
    /// What the policy adds to a map, in per cent.
    pub fn added(&self) -> f64 {
        (self.map_with_ns / self.map_ns - 1.0) * 100.0
    }
}

/// A replay of an overlaid trace under one policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayRow {
    /// The recorded trace.
    pub trace: String,
    /// The overlay.
    pub workload: String,
    /// Parent-change policy, or `hardware` for hardware nesting.
    pub policy: String,
    /// Parent changes that shadows or hardware were told of.
    pub changes: u64,
    /// Records, links and heads looked at.
    pub entries_examined: u64,
    /// Shadow entries changed because their source changed.
    pub entries_changed: u64,
    /// Entries written by rebuilding.
    pub entries_rebuilt: u64,
    /// Shadow entries written or removed in all.
    pub host_pte_writes: u64,
    /// Most shadow entries present.
    pub resident_entries_peak: u64,
    /// Most bytes of the policy's own data.
    pub policy_bytes_peak: u64,
    /// Invalidation commands to the IOMMU.
    pub hardware_invalidations: u64,
    /// IOTLB look-ups.
    pub iotlb_lookups: u64,
    /// IOTLB hits.
    pub iotlb_hits: u64,
    /// DMA faults.
    pub faults: u64,
    /// Faults that the policy answered by building.
    pub lazy_fills: u64,
    /// CPU time of the whole replay in ns; not part of `study.json`.
    #[serde(skip)]
    pub ns: f64,
}

/// The machine that times are of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processor.
    pub cpu: String,
    /// Operating system and architecture.
    pub system: String,
}

/// The study.
#[derive(Clone, Debug, Default)]
pub struct Study {
    /// ioasim's version.
    pub version: Version,
    /// The short form.
    pub quick: bool,
    /// Unmaps on forests.
    pub points: Vec<Point>,
    /// Map path.
    pub maps: Vec<MapTime>,
    /// Overlaid traces.
    pub replays: Vec<ReplayRow>,
    /// What was left out, and why.
    pub omitted: Vec<String>,
    /// Where it ran.
    pub machine: Machine,
}
