//! What a change of the second stage drops from hardware that walks both
//! stages, by family.
//!
//! An IOTLB entry of a nested translation holds the composition: it knows its
//! IOVA, not the GPA between. A change of the parent names a GPA range, so
//! most families cannot select the entries concerned.

use serde::{Deserialize, Serialize};

use crate::cache::{Iotlb, PageRange, Store, Tag};
use crate::walk::WalkCaches;

/// How a family of IOMMUs is told of a change of the parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Intel VT-d: one page-selective-within-domain IOTLB invalidation of the
    /// GPA range for each domain id that nests on the parent (Linux
    /// `cache_tag_flush_range`, `CACHE_TAG_NESTING_IOTLB`). The address selects
    /// only among entries without a first stage; of nested entries all of the
    /// domain go. Device TLBs of nested domains are emptied: "no easy way to
    /// identify the exact set of nested translations affected by a change in
    /// S2" (`drivers/iommu/intel/cache.c`, `CACHE_TAG_NESTING_DEVTLB`).
    #[default]
    IntelVtd,
    /// Arm SMMUv3: `TLBI_S2_IPA` for the range, then `TLBI_NH_ALL` for the
    /// VMID ("all the nested S1 ASIDs have to be flushed", Linux
    /// `arm_smmu_tlb_inv_range_domain`), and the ATC entirely.
    #[serde(rename = "arm-smmuv3")]
    ArmSmmuV3,
    /// RISC-V: `IOTINVAL.GVMA` with the GPA; entries derived from matching
    /// second-stage leaves go, whatever their IOVA (RISC-V IOMMU
    /// specification 1.0, page-table cache invalidation commands). The model
    /// finds them by the host addresses that the range led to. Devices' ATCs
    /// are emptied, as they know no GPA either.
    RiscvIommu,
}

/// Counts of what was sent and what it dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlushCounters {
    /// Invalidation commands to the IOMMU.
    pub commands: u64,
    /// Device TLBs emptied.
    pub device_tlb_flushes: u64,
    /// IOTLB entries dropped.
    pub entries_dropped: u64,
}

/// A change of a parent that hardware walks as its second stage.
#[derive(Clone, Copy, Debug)]
pub struct ParentRange<'a> {
    /// First GPA.
    pub start: u64,
    /// GPA after the last.
    pub end: u64,
    /// Host ranges `[start, end)` that the range led to before the change.
    pub hosts: &'a [(u64, u64)],
    /// Tag of devices attached to the parent itself, if any.
    pub own: Option<Tag>,
    /// Tags of all children that nest on it.
    pub children: &'a [Tag],
    /// Domain ids of these children; a domain may have several tags.
    pub domains: u64,
    /// Devices in these domains.
    pub devices: u64,
}

/// Drops what `family` drops. When it returns, no entry leads into `hosts`
/// through the changed range (I6).
pub fn parent_changed<S: Store>(
    family: Family,
    range: &ParentRange<'_>,
    iotlb: &mut Iotlb<S>,
    caches: &mut WalkCaches,
    counters: &mut FlushCounters,
) {
    if let Some(own) = range.own {
        counters.commands += 1;
        let pages = PageRange::new(range.start, range.end);
        counters.entries_dropped += iotlb.invalidate(own, pages) as u64;
        caches.invalidate_stage1(own, range.start, range.end);
    }
    // The model's paging-structure and nested caches go whole for each family:
    // they keep no GPA that could be matched in stage 1.
    caches.invalidate_parent();
    match family {
        Family::IntelVtd | Family::ArmSmmuV3 => {
            counters.commands += match family {
                // One descriptor per domain id.
                Family::IntelVtd => range.domains,
                // S2_IPA and NH_ALL, once for the VMID.
                _ => 2,
            };
            counters.device_tlb_flushes += range.devices;
            for tag in range.children {
                counters.entries_dropped += iotlb.invalidate_tag(*tag) as u64;
            }
        }
        Family::RiscvIommu => {
            counters.commands += 1;
            let mut gone = Vec::new();
            iotlb.for_each(|key, value| {
                let (from, to) = (value.out(), value.out() + key.size().bytes());
                let leads_in = range.hosts.iter().any(|(a, b)| from < *b && *a < to);
                if leads_in && range.children.contains(&key.tag()) {
                    gone.push(key);
                }
            });
            for key in gone {
                let page = PageRange::new(key.base(), key.base() + key.size().bytes());
                counters.entries_dropped += iotlb.invalidate(key.tag(), page) as u64;
            }
            counters.device_tlb_flushes += range.devices;
        }
    }
}
