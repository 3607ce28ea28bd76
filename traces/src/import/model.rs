//! Which emulated IOMMU wrote a log, and what differs between them.

/// An IOMMU that QEMU emulates and whose log can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// Intel VT-d (`-device intel-iommu`, `vtd_*`).
    VtD,
    /// AMD-Vi (`-device amd-iommu`, `amdvi_*`).
    AmdVi,
    /// Arm SMMUv3 (`-machine iommu=smmuv3`, `smmuv3_*` and `smmu_*`).
    SmmuV3,
}

/// What a command for some pages removes from QEMU's IOTLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageRule {
    /// Entries of the domain that agree in the low 8 bits of the page number
    /// (VT-d, `vtd_hash_remove_by_page`).
    Low8,
    /// Entries of the domain that overlap the range (SMMUv3,
    /// `smmu_iotlb_inv_iova`).
    Exact,
}

/// QEMU's IOTLB of one model (7.2). All of them are emptied by the insertion
/// that finds them full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IotlbRules {
    /// Entries that it holds before it is emptied.
    pub(crate) entries: usize,
    /// Devices of one domain share entries.
    pub(crate) shared: bool,
    pub(crate) pages: PageRule,
}

impl Model {
    pub(crate) const ALL: [Model; 3] = [Model::VtD, Model::AmdVi, Model::SmmuV3];

    /// Name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Model::VtD => "VT-d",
            Model::AmdVi => "AMD-Vi",
            Model::SmmuV3 => "SMMUv3",
        }
    }

    /// Name in a trace's metadata.
    pub(crate) fn importer(self) -> &'static str {
        match self {
            Model::VtD => "qemu-vtd",
            Model::AmdVi => "qemu-amdvi",
            Model::SmmuV3 => "qemu-smmuv3",
        }
    }

    /// Prefixes of the names of its events.
    pub(crate) fn prefixes(self) -> &'static [&'static [u8]] {
        match self {
            Model::VtD => &[b"vtd_"],
            Model::AmdVi => &[b"amdvi_"],
            Model::SmmuV3 => &[b"smmuv3_", b"smmu_"],
        }
    }

    /// The model that events of this name belong to.
    pub(crate) fn of_event(name: &[u8]) -> Option<Model> {
        Model::ALL.into_iter().find(|m| m.prefixes().iter().any(|p| name.starts_with(p)))
    }

    /// Rules of QEMU 7.2's IOTLB (`hw/i386/intel_iommu.c`,
    /// `hw/i386/amd_iommu.c`, `hw/arm/smmu-common.c`).
    pub(crate) fn iotlb(self) -> IotlbRules {
        match self {
            Model::VtD => IotlbRules { entries: 1024, shared: false, pages: PageRule::Low8 },
            // Commands for pages drop the domain and are imported as such.
            Model::AmdVi => IotlbRules { entries: 1024, shared: false, pages: PageRule::Exact },
            Model::SmmuV3 => IotlbRules { entries: 256, shared: true, pages: PageRule::Exact },
        }
    }
}
