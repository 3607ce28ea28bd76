//! Configurations: TOML over presets, every key known and checked.

mod check;
mod layers;
mod origins;
mod show;
mod time;

pub use check::limits;
pub use layers::{Layer, preset_names, preset_text, resolve};
pub use origins::{Origin, origins};
pub use show::annotated;
pub use time::{
    AtsTime, DeviceTime, Direction, GuestTime, InvalidationPath, InvalidationTime, IommuTime,
    LoopMode, MemoryTime, Sharing, TimeConfig, VmmTime,
};

use serde::de::{Error, IntoDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

pub use crate::cache::PageMatch;
use crate::events::PageSize;
use crate::parent::Layout;
use crate::parent_change::hardware::Family;
use crate::parent_change::pinning::Pinning;
use crate::parent_change::{self, EpochConfig};
use crate::prefetch::PrefetchConfig;
use crate::sync;
use crate::walk::WalkCacheConfig;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No preset of this name.
    #[error("there is no preset `{name}`; {hint}")]
    UnknownPreset {
        /// As given.
        name: String,
        /// The nearest name, or where to find the list.
        hint: String,
    },
    /// A key that no configuration has.
    #[error("{origin}: unknown key `{key}`{hint}")]
    UnknownKey {
        /// File, preset or `--set`.
        origin: String,
        /// Dotted path.
        key: String,
        /// The nearest known key.
        hint: String,
    },
    /// Not TOML, or a value of the wrong type.
    #[error("{origin}: {message}")]
    Syntax {
        /// File, preset or `--set`.
        origin: String,
        /// What the parser found, with its place.
        message: String,
    },
    /// A value outside its limits, or one that contradicts another.
    #[error("configuration `{name}`: {key} = {value} is refused: {limit}")]
    Refused {
        /// The configuration.
        name: String,
        /// Dotted path of the key.
        key: String,
        /// Its value.
        value: String,
        /// The limit and the remedy.
        limit: String,
    },
}

/// A value that is refused: key, value, and the limit with its remedy.
struct Refusal {
    key: String,
    value: String,
    limit: String,
}

/// A resolved configuration. Field names are the keys of the TOML file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name in tables and results.
    pub name: String,
    /// One line for `preset list`.
    pub description: String,
    /// How child and parent are nested.
    pub nesting: Nesting,
    /// Which levels of the tree the hardware walks as one stage, deepest
    /// first; empty = two levels, as `nesting` says.
    pub stages: Vec<Vec<String>>,
    /// Stages that the hardware can walk.
    pub hardware_stages: u64,
    /// Seed of everything random.
    pub seed: u64,
    /// Stage 1.
    pub child: ChildConfig,
    /// Stage 2.
    pub parent: ParentConfig,
    /// The lowest of three levels.
    pub host: HostConfig,
    /// Shadow synchronisation (software nesting).
    pub sync: SyncConfig,
    /// The guest's driver.
    pub guest: GuestConfig,
    /// The IOTLB.
    pub iotlb: IotlbConfig,
    /// Paging-structure caches.
    pub pwc: PwcConfig,
    /// The nested (GPA) cache: translations of GPAs, for table pages and data.
    pub nested_cache: WalkCacheConfig,
    /// Verification.
    pub verify: VerifyConfig,
    /// Reporting.
    pub report: ReportConfig,
    /// Simulated time.
    pub time: TimeConfig,
}

/// How child and parent are nested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Nesting {
    /// The device uses the parent's addresses (no vIOMMU).
    None,
    /// The IOMMU walks both tables.
    Hardware,
    /// The VMM merges both into a shadow table that the IOMMU walks.
    Software,
}

/// Who changes an I/O address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ownership {
    /// Changed by map and unmap calls, which the owner sees.
    HostManaged,
    /// The user writes the table and announces changes by invalidations.
    UserManaged,
}

/// Largest page that an IOTLB entry covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LargestPage {
    /// 4 KiB.
    #[serde(rename = "4k")]
    Size4K,
    /// 2 MiB.
    #[serde(rename = "2m")]
    Size2M,
    /// 1 GiB: every leaf is one entry.
    #[serde(rename = "1g")]
    Size1G,
}

impl LargestPage {
    /// As a page size.
    pub fn size(self) -> PageSize {
        match self {
            LargestPage::Size4K => PageSize::Size4K,
            LargestPage::Size2M => PageSize::Size2M,
            LargestPage::Size1G => PageSize::Size1G,
        }
    }
}

/// Levels of a table: a number, or what the recording shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Levels {
    /// 3 (39 bits), 4 (48 bits) or 5 (57 bits).
    Fixed(u32),
    /// `"recorded"`: the recording's, or the fewest that hold its addresses.
    Recorded(RecordedWord),
}

/// The word `recorded`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordedWord {
    /// As the recording shows.
    Recorded,
}

/// Stage 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChildConfig {
    /// Who changes it.
    pub ownership: Ownership,
    /// Levels of its table.
    pub levels: Levels,
}

/// Stage 2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParentConfig {
    /// Who changes it.
    pub ownership: Ownership,
    /// Levels of its table: 3, 4 or 5.
    pub levels: u32,
    /// Where guest-physical memory lies if the recording has no parent table.
    pub layout: Layout,
    /// How shadows over it follow its changes (software nesting).
    pub change: parent_change::Kind,
    /// What the IOMMU drops when it changes under hardware nesting.
    pub hardware_flush: Family,
    /// Who pins host memory.
    pub pinning: Pinning,
    /// Settings of `change = "epoch"`.
    pub epoch: EpochKeys,
}

/// The level below the parent, made up, if `stages` has three levels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Where the parent's output lies.
    pub layout: Layout,
    /// Levels of its table: 4 or 5.
    pub levels: u32,
}

/// Settings of the parent-change policy `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochKeys {
    /// What one fault rebuilds.
    pub fill: LargestPage,
    /// Entries rebuilt, and pages of obsolete tables freed, in the background
    /// per event other than an access; 0 = none.
    pub step_entries: u64,
}

impl EpochKeys {
    /// As the policy's settings.
    pub fn policy(&self) -> EpochConfig {
        EpochConfig { fill_shift: self.fill.size().shift() }
    }
}

/// Shadow synchronisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncConfig {
    /// When and how the shadow follows the child.
    pub policy: sync::Kind,
}

/// The guest's driver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestConfig {
    /// Invalidations for not-present to present.
    pub caching_mode: CachingModeConfig,
    /// How it puts a changed range into page-selective invalidations.
    pub invalidation: InvalidationEncoding,
    /// Commands (invalidations, or map and unmap calls) that it queues before
    /// it tells the VMM, which is one trap.
    pub commands_per_trap: u64,
    /// When it invalidates what it unmapped.
    pub unmap: UnmapPolicy,
    /// Settings of `unmap = "lazy"`.
    pub flush_queue: FlushQueueConfig,
}

/// When the simulated guest invalidates what it unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnmapPolicy {
    /// When the recording's guest did.
    AsRecorded,
    /// At once, before the IOVA is used again (`iommu.strict=1`).
    Strict,
    /// By a domain-selective flush, when a flush queue is full or its timer
    /// fires (`iommu.strict=0`).
    Lazy,
}

impl UnmapPolicy {
    /// Name as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            UnmapPolicy::AsRecorded => "as-recorded",
            UnmapPolicy::Strict => "strict",
            UnmapPolicy::Lazy => "lazy",
        }
    }
}

/// The flush queue of a domain (`unmap = "lazy"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushQueueConfig {
    /// Ranges that wait in a ring before a flush makes room.
    pub entries: u64,
    /// Time from the first range that waits to the flush, in microseconds of
    /// the trace's clock.
    pub timeout_us: u64,
    /// Who shares a ring.
    pub rings: FlushRings,
}

/// Rings of a flush queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlushRings {
    /// Each CPU has its own.
    PerCpu,
    /// All CPUs share one.
    Single,
}

/// How the simulated guest puts a changed range into invalidation commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InvalidationEncoding {
    /// The recording's commands, unchanged; those that caching mode adds as
    /// under `range-cover`.
    AsRecorded,
    /// One command per 4 KiB page.
    Page,
    /// One command for the smallest aligned power of two of pages around all
    /// of it (Linux's VT-d driver).
    RangeCover,
    /// Naturally aligned powers of two, nothing beyond the range (Linux's AMD
    /// driver under NpCache).
    RangeSplit,
    /// One domain-selective command.
    Domain,
}

impl InvalidationEncoding {
    /// Name as in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            InvalidationEncoding::AsRecorded => "as-recorded",
            InvalidationEncoding::Page => "page",
            InvalidationEncoding::RangeCover => "range-cover",
            InvalidationEncoding::RangeSplit => "range-split",
            InvalidationEncoding::Domain => "domain",
        }
    }
}

/// Whether the simulated guest invalidates after not-present to present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CachingModeConfig {
    /// Yes: added where the recording has none.
    On,
    /// No: left out where the recording has them.
    Off,
    /// The recording's invalidations, no more and no less.
    AsRecorded,
}

/// Replacement policies of the IOTLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplacementKind {
    /// Least recently used.
    Lru,
    /// Tree pseudo-LRU.
    Plru,
    /// First in, first out.
    Fifo,
    /// CLOCK, one reference bit.
    Clock,
    /// Uniformly random, seeded.
    Random,
    /// Least frequently used, without aging.
    Lfu,
    /// Static re-reference interval prediction, 2 bits, hit priority.
    Srrip,
    /// S3-FIFO: small, main and ghost queues.
    S3fifo,
    /// Emptied by the insertion that finds it full (QEMU's VT-d).
    FlushWhenFull,
}

/// Reads a [`ReplacementKind`]; tells why there is no `oracle`.
fn replacement<'de, D: Deserializer<'de>>(from: D) -> Result<ReplacementKind, D::Error> {
    let name = String::deserialize(from)?;
    if name == "oracle" {
        return Err(D::Error::custom(
            "`oracle` (Belady's MIN) has to know when each page is used next, which a replay that \
             reads the trace once does not; for a bound give `ioasim trace export -o \
             NAME.oracleGeneral` to libCacheSim's Belady",
        ));
    }
    ReplacementKind::deserialize(name.into_deserializer())
}

/// What entries are tagged with beside the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TagBy {
    /// Domain: devices of one domain share entries.
    Domain,
    /// Domain and PASID.
    Pasid,
    /// Domain and requester id.
    Requester,
    /// Domain, requester id and PASID.
    RequesterPasid,
}

/// The IOTLB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IotlbConfig {
    /// Entries.
    pub entries: u64,
    /// Entries per set; equal to `entries` = fully associative.
    pub ways: u64,
    /// Replacement.
    #[serde(deserialize_with = "replacement")]
    pub replacement: ReplacementKind,
    /// Tags.
    pub tag: TagBy,
    /// Matching of page-selective invalidations.
    pub page_match: PageMatch,
    /// Largest page of an entry; larger leaves are cached in pieces of it.
    pub largest_page: LargestPage,
    /// Equal parts of the sets; domains are dealt out to them in turn.
    pub partitions: u64,
    /// Translations fetched before they are asked for.
    pub prefetch: PrefetchConfig,
}

/// Paging-structure caches, by the memory that one entry covers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PwcConfig {
    /// Stage 1.
    pub stage1: PwcStage,
    /// Stage 2.
    pub stage2: PwcStage,
}

/// Caches of one stage. An entry is a pointer to the next table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PwcStage {
    /// Entries that cover 2 MiB (Intel's "L3").
    #[serde(rename = "2m")]
    pub span_2m: WalkCacheConfig,
    /// Entries that cover 1 GiB.
    #[serde(rename = "1g")]
    pub span_1g: WalkCacheConfig,
    /// Entries that cover 512 GiB.
    #[serde(rename = "512g")]
    pub span_512g: WalkCacheConfig,
    /// Entries that cover 256 TiB.
    #[serde(rename = "256t")]
    pub span_256t: WalkCacheConfig,
}

impl PwcStage {
    /// The caches by level of the entry, lowest (2 MiB) first.
    pub fn by_level(&self) -> [WalkCacheConfig; 4] {
        [self.span_2m, self.span_1g, self.span_512g, self.span_256t]
    }
}

/// Verification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyConfig {
    /// The configuration claims to be the recording machine's IOTLB: its hits
    /// and misses are compared with the recorded labels.
    pub labels: bool,
}

/// Reporting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportConfig {
    /// Intervals of the time series.
    pub intervals: u64,
    /// Measure how long unmapped memory stays reachable.
    pub exposure: bool,
}
