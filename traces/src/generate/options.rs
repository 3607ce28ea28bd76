//! Parameters of parent-change workloads, their defaults and where those come
//! from (R read in the source named, A assumption).

use std::collections::BTreeMap;

use super::error::{OptionError, limit};

/// Who changes the parent, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// virtio-balloon inflates to a target and deflates again, page by page.
    Balloon,
    /// virtio-mem unplugs blocks from the top and plugs them again.
    VirtioMem,
    /// A DIMM is removed as a whole and comes back.
    HotUnplug,
    /// Pages move in host memory under an unchanged GPA (compaction, NUMA
    /// balancing): unmap, and map to another HPA.
    PageMigration,
    /// Pre-copy live migration tracks dirty pages by write protection.
    WriteProtect,
    /// Post-copy live migration: memory is absent and comes on demand and in
    /// the background.
    PostCopy,
}

impl Workload {
    /// All, in the order of the documentation.
    pub const ALL: [Workload; 6] = [
        Workload::Balloon,
        Workload::VirtioMem,
        Workload::HotUnplug,
        Workload::PageMigration,
        Workload::WriteProtect,
        Workload::PostCopy,
    ];

    /// Name used in options, files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Balloon => "balloon",
            Workload::VirtioMem => "virtio-mem",
            Workload::HotUnplug => "hot-unplug",
            Workload::PageMigration => "page-migration",
            Workload::WriteProtect => "write-protect",
            Workload::PostCopy => "post-copy",
        }
    }

    /// True if it takes memory away and gives it back.
    pub fn removes(self) -> bool {
        matches!(self, Workload::Balloon | Workload::VirtioMem | Workload::HotUnplug)
    }

    /// Bytes of one unit of change unless `--size` is given.
    ///
    /// balloon 4 KiB: the virtio-balloon device knows 4 KiB pages only (R:
    /// virtio specification 5.5.6, `VIRTIO_BALLOON_PFN_SHIFT`); virtio-mem
    /// 2 MiB: QEMU's default block size on x86-64, the size of a transparent
    /// huge page (R: qemu-devel 2020-11, "virtio-mem: Probe THP size to
    /// determine default block size"); hot-unplug 128 MiB: Linux x86-64's
    /// smallest memory block (R: `MIN_MEMORY_BLOCK_SIZE`); the rest 4 KiB,
    /// what page migration, KVM's dirty log and userfaultfd work on.
    pub fn default_size(self) -> u64 {
        match self {
            Workload::VirtioMem => 2 << 20,
            Workload::HotUnplug => 128 << 20,
            _ => 4096,
        }
    }

    /// Units of one operation unless `--batch` is given.
    ///
    /// balloon 256: Linux's driver reports that many page numbers at once (R:
    /// `VIRTIO_BALLOON_ARRAY_PFNS_MAX`); page-migration 32: compaction
    /// isolates and migrates that many (R: `COMPACT_CLUSTER_MAX`); post-copy
    /// 64 pages of the background stream (A); the rest 1.
    pub fn default_batch(self) -> u64 {
        match self {
            Workload::Balloon => 256,
            Workload::PageMigration => 32,
            Workload::PostCopy => 64,
            _ => 1,
        }
    }

    /// How units are chosen unless `--distribution` is given.
    ///
    /// balloon and page-migration `hot` (A: the interplay is the point);
    /// virtio-mem and hot-unplug `sequential` from the highest address down,
    /// the order in which Linux's virtio-mem driver unplugs (R:
    /// `virtio_mem_unplug_request` walks memory blocks in reverse).
    pub fn default_distribution(self) -> Distribution {
        match self {
            Workload::Balloon | Workload::PageMigration => Distribution::Hot,
            _ => Distribution::Sequential,
        }
    }
}

/// How units of guest memory are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// GPAs that the trace's DMA uses, each as often as it uses them.
    Hot,
    /// Every unit of guest memory alike.
    Uniform,
    /// Rank r with probability proportional to 1 / r^s; ranks are scattered
    /// over guest memory.
    Zipf,
    /// One after the other, from the highest address down, and again.
    Sequential,
}

impl Distribution {
    /// Name used in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Distribution::Hot => "hot",
            Distribution::Uniform => "uniform",
            Distribution::Zipf => "zipf",
            Distribution::Sequential => "sequential",
        }
    }
}

/// When operations happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// One operation after this many accesses (dma events).
    EveryDma(u64),
    /// Operations per second of the trace's time. Clocks of recordings made
    /// under emulation run slow: rates per access say more there.
    PerSecond(f64),
}

/// Largest leaf of the parent's table that is laid out where the recording
/// has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentPage {
    /// 4 KiB.
    Size4K,
    /// 2 MiB.
    Size2M,
    /// 1 GiB.
    Size1G,
}

impl ParentPage {
    /// Bytes.
    pub fn bytes(self) -> u64 {
        match self {
            ParentPage::Size4K => 4096,
            ParentPage::Size2M => 2 << 20,
            ParentPage::Size1G => 1 << 30,
        }
    }
}

/// Parameters of an overlay. [`Options::new`] gives the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Who changes the parent.
    pub workload: Workload,
    /// When. Default: one operation per 1,000 accesses (A).
    pub rate: Rate,
    /// Bytes of a unit; `None` = [`Workload::default_size`].
    pub size: Option<u64>,
    /// Units per operation; `None` = [`Workload::default_batch`].
    pub batch: Option<u64>,
    /// `None` = [`Workload::default_distribution`].
    pub distribution: Option<Distribution>,
    /// Exponent s of [`Distribution::Zipf`]; `None` = 1.0 (A).
    pub zipf: Option<f64>,
    /// Percent of guest memory at which a workload that removes memory turns
    /// round and gives it back; `None` = 25 (A).
    pub target_percent: Option<u64>,
    /// Passes of write protection before dirty logging ends; `None` = 4 (A).
    pub passes: Option<u64>,
    /// Also takes pages that are mapped for DMA; they come back right before
    /// an access to them, as an I/O page fault handler would bring them.
    pub in_use: bool,
    /// Largest leaf of the parent where the recording has none. Default 2 MiB,
    /// the layout that the presets assume.
    pub parent_page: ParentPage,
    /// Accesses before the first operation. Default 0.
    pub after_dma: u64,
    /// Parent events after which no operation begins any more; what is absent
    /// still comes back when it is used. Default 1,000,000 (A). It bounds the
    /// overlay's memory, about 150 bytes per page changed.
    pub max_changes: u64,
    /// Seed of all that is random (PCG-64). Default 1.
    pub seed: u64,
}

impl Options {
    /// The defaults of a workload.
    pub fn new(workload: Workload) -> Options {
        Options {
            workload,
            rate: Rate::EveryDma(1000),
            size: None,
            batch: None,
            distribution: None,
            zipf: None,
            target_percent: None,
            passes: None,
            in_use: false,
            parent_page: ParentPage::Size2M,
            after_dma: 0,
            max_changes: 1_000_000,
            seed: 1,
        }
    }

    /// Bytes of a unit.
    pub fn size(&self) -> u64 {
        self.size.unwrap_or(self.workload.default_size())
    }

    /// Units per operation.
    pub fn batch(&self) -> u64 {
        self.batch.unwrap_or(self.workload.default_batch())
    }

    /// How units are chosen.
    pub fn distribution(&self) -> Distribution {
        self.distribution.unwrap_or(self.workload.default_distribution())
    }

    /// Checks limits and contradictions.
    ///
    /// # Errors
    /// [`OptionError`], one sentence that names the option and its limit.
    pub fn check(&self) -> Result<(), OptionError> {
        let w = self.workload;
        let (smallest, words) = match w {
            // R: QEMU refuses smaller blocks (VIRTIO_MEM_MIN_BLOCK_SIZE).
            Workload::VirtioMem => (1 << 20, "a power of two from 1M to 64G"),
            Workload::HotUnplug => (2 << 20, "a power of two from 2M to 64G"),
            _ => (4096, "a power of two from 4K to 1G"),
        };
        let largest: u64 = if smallest == 4096 { 1 << 30 } else { 64 << 30 };
        let size = self.size();
        if !size.is_power_of_two() || !(smallest..=largest).contains(&size) {
            return Err(limit("--size", format!("{size} bytes"), words));
        }
        if !(1..=1_000_000).contains(&self.batch()) {
            return Err(limit("--batch", self.batch(), "1 to 1000000 units"));
        }
        match self.rate {
            Rate::EveryDma(0) => return Err(limit("--every", 0, "at least 1 access")),
            Rate::PerSecond(r) if !(r > 0.0 && r <= 1e9) => {
                return Err(limit("--per-second", r, "above 0 and at most 1e9 operations"));
            }
            _ => {}
        }
        if let Some(s) = self.zipf {
            if self.distribution() != Distribution::Zipf {
                let why = "it is the exponent of --distribution zipf";
                return Err(self.meaningless("--zipf", why));
            }
            if !(s > 0.0 && s <= 10.0) {
                return Err(limit("--zipf", s, "above 0 and at most 10"));
            }
        }
        if let Some(t) = self.target_percent {
            if !w.removes() {
                return Err(self.meaningless("--target", "it keeps no memory away"));
            }
            if !(1..=95).contains(&t) {
                return Err(limit("--target", t, "1 to 95 percent of guest memory"));
            }
        }
        if let Some(p) = self.passes {
            if w != Workload::WriteProtect {
                return Err(self.meaningless("--passes", "only write-protect makes passes"));
            }
            if !(1..=1_000_000).contains(&p) {
                return Err(limit("--passes", p, "1 to 1000000"));
            }
        }
        let fixed_order = matches!(w, Workload::WriteProtect | Workload::PostCopy);
        if fixed_order && self.distribution.is_some() {
            let why = "dirty pages, or the page asked for last, decide";
            return Err(self.meaningless("--distribution", why));
        }
        if w == Workload::WriteProtect && self.batch.is_some() {
            return Err(self.meaningless("--batch", "one operation is one pass over memory"));
        }
        if self.in_use && matches!(w, Workload::PageMigration | Workload::WriteProtect) {
            let why = "it changes pages in use anyway";
            return Err(self.meaningless("--in-use", why));
        }
        if self.max_changes == 0 || self.max_changes > 100_000_000 {
            return Err(limit("--max-changes", self.max_changes, "1 to 100000000 parent events"));
        }
        Ok(())
    }

    fn meaningless(&self, option: &'static str, why: &'static str) -> OptionError {
        OptionError::Meaningless { option, workload: self.workload.name(), why }
    }

    /// Names and values of all parameters, defaults resolved.
    pub fn parameters(&self) -> BTreeMap<String, String> {
        let w = self.workload;
        let mut p = BTreeMap::new();
        let mut put = |name: &str, value: String| p.insert(name.to_string(), value);
        match self.rate {
            Rate::EveryDma(n) => put("every_dma", n.to_string()),
            Rate::PerSecond(r) => put("per_second", r.to_string()),
        };
        put("size_bytes", self.size().to_string());
        if w != Workload::WriteProtect {
            put("batch", self.batch().to_string());
        }
        if !matches!(w, Workload::WriteProtect | Workload::PostCopy) {
            put("distribution", self.distribution().name().into());
            if self.distribution() == Distribution::Zipf {
                put("zipf", self.zipf.unwrap_or(1.0).to_string());
            }
        }
        if w.removes() {
            put("target_percent", self.target_percent.unwrap_or(25).to_string());
        }
        if w == Workload::WriteProtect {
            put("passes", self.passes.unwrap_or(4).to_string());
        }
        if w.removes() || w == Workload::PostCopy {
            put("in_use", self.in_use.to_string());
        }
        put("parent_page_bytes", self.parent_page.bytes().to_string());
        put("after_dma", self.after_dma.to_string());
        put("max_changes", self.max_changes.to_string());
        put("seed", self.seed.to_string());
        p
    }
}
