//! Pinning of host memory under shadows.

use serde::{Deserialize, Serialize};

/// Who pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pinning {
    /// A page is pinned once, when the parent maps it; shadows refer to the
    /// parent's pages. iommufd does so for areas made by `IOMMU_IOAS_COPY`:
    /// all share one `iopt_pages`, in which a page "is pinned exactly once"
    /// (`drivers/iommu/iommufd/pages.c`).
    #[default]
    PinOnce,
    /// Each shadow entry pins the pages that it maps, as VFIO type 1 does
    /// when a VMM maps the merged translation as if it were memory.
    PinPerEntry,
}

/// Counts of pins. Pages are 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PinCounters {
    /// Pages pinned, in total.
    pub pins: u64,
    /// Pages unpinned, in total.
    pub unpins: u64,
    /// Most pins held at one time.
    pub held_peak: u64,
}

impl PinCounters {
    /// Pins held now.
    pub fn held(&self) -> u64 {
        self.pins - self.unpins
    }

    fn count(&mut self, pins: u64, unpins: u64) {
        self.unpins += unpins;
        self.pins += pins;
        self.held_peak = self.held_peak.max(self.held());
    }
}

/// The account of one level.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    policy: Pinning,
    counters: PinCounters,
    /// What of the shadows' traffic is counted.
    seen: (u64, u64),
}

impl Account {
    /// An account under a policy.
    pub fn new(policy: Pinning) -> Account {
        Account { policy, ..Account::default() }
    }

    /// The parent mapped `mapped` and unmapped `unmapped` pages.
    pub fn parent(&mut self, mapped: u64, unmapped: u64) {
        if self.policy == Pinning::PinOnce {
            self.counters.count(mapped, unmapped);
        }
    }

    /// All shadows' leaves have mapped and unmapped this many pages so far
    /// (sums of [`crate::shadow::Shadow::page_traffic`]).
    pub fn shadows(&mut self, traffic: (u64, u64)) {
        if self.policy == Pinning::PinPerEntry {
            self.counters.count(traffic.0 - self.seen.0, traffic.1 - self.seen.1);
            self.seen = traffic;
        }
    }

    /// The counts.
    pub fn counters(&self) -> PinCounters {
        self.counters
    }
}
