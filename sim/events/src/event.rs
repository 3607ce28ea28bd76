//! One event of a trace, and what its columns mean for each kind.

use crate::addr::Perm;

/// Identifier of an I/O address space as the guest names it (VT-d domain id,
/// SMMU ASID). Local to a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u32);

impl DomainId {
    /// Not known.
    pub const NONE: DomainId = DomainId(u32::MAX);
    /// The parent's address space itself (IOVA = GPA): a device that is not
    /// behind a child, for example before the guest enables its IOMMU.
    pub const PARENT: DomainId = DomainId(u32::MAX - 1);
}

/// PCI requester id (bus 15:8, device 7:3, function 2:0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requester(pub u32);

impl Requester {
    /// Not known, or not caused by a device.
    pub const NONE: Requester = Requester(u32::MAX);
}

impl std::fmt::Display for Requester {
    /// `BB:DD.F`, or `-` when unknown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Requester::NONE {
            return f.write_str("-");
        }
        write!(f, "{:02x}:{:02x}.{:x}", self.0 >> 8, (self.0 >> 3) & 0x1f, self.0 & 7)
    }
}

/// Process address space id (20 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pasid(pub u32);

impl Pasid {
    /// A request without PASID.
    pub const NONE: Pasid = Pasid(u32::MAX);
}

/// What happened. The numbers are stored in trace files: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A device's access. `requester`, `pasid`, `domain`, `addr` = IOVA with
    /// offset, `size` = bytes (0 where the recording has no length), `out` =
    /// recorded output address with offset if [`Flags::OUT_KNOWN`], `aux` =
    /// page-table reads of the recorded walk (0 if not recorded, or none).
    Dma = 0,
    /// The guest maps `[addr, addr+size)` (IOVA) to `out` (GPA) in `domain`.
    Map = 1,
    /// The guest unmaps `[addr, addr+size)` in `domain`.
    Unmap = 2,
    /// The guest's IOMMU driver invalidates; reach in [`Flags::scope`].
    /// Page scope: `[addr, addr+size)`, the range the descriptor covers.
    Invalidate = 3,
    /// The VMM maps `[addr, addr+size)` (GPA) to `out` (HPA) in the parent.
    ParentMap = 4,
    /// The VMM unmaps `[addr, addr+size)` (GPA) from the parent.
    ParentUnmap = 5,
    /// `requester` (and `pasid`) is attached to `domain`.
    Attach = 6,
    /// `requester` (and `pasid`) is detached from `domain`.
    Detach = 7,
    /// A named point of the recording; the name is the row's text.
    Marker = 8,
    /// **Recorded truth**, not an input: the VMM mapped `[addr, addr+size)`
    /// in the shadow; `out` = GPA the VMM saw, `aux` = HPA that the
    /// hypervisor installed (0 if not recorded).
    ShadowMap = 9,
    /// **Recorded truth**: the VMM unmapped `[addr, addr+size)` in the shadow.
    ShadowUnmap = 10,
    /// **Recorded truth**: an invalidation of the *physical* IOMMU issued by
    /// the hypervisor (bundles only); columns as for `Invalidate`, `domain`
    /// already translated to the guest's domain.
    HostInvalidate = 11,
}

impl Kind {
    /// All kinds in the order of their codes.
    pub const ALL: [Kind; 12] = [
        Kind::Dma,
        Kind::Map,
        Kind::Unmap,
        Kind::Invalidate,
        Kind::ParentMap,
        Kind::ParentUnmap,
        Kind::Attach,
        Kind::Detach,
        Kind::Marker,
        Kind::ShadowMap,
        Kind::ShadowUnmap,
        Kind::HostInvalidate,
    ];

    /// The kind with this code, if there is one.
    #[inline]
    pub fn from_code(code: i32) -> Option<Kind> {
        usize::try_from(code).ok().and_then(|i| Kind::ALL.get(i)).copied()
    }

    /// Name used in files, options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Dma => "dma",
            Kind::Map => "map",
            Kind::Unmap => "unmap",
            Kind::Invalidate => "invalidate",
            Kind::ParentMap => "parent_map",
            Kind::ParentUnmap => "parent_unmap",
            Kind::Attach => "attach",
            Kind::Detach => "detach",
            Kind::Marker => "marker",
            Kind::ShadowMap => "shadow_map",
            Kind::ShadowUnmap => "shadow_unmap",
            Kind::HostInvalidate => "host_invalidate",
        }
    }
}

/// Reach of an invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Scope {
    /// Page-selective (PSI): the event's domain and address range.
    Page = 1,
    /// Domain-selective (DSI).
    Domain = 2,
    /// Everything in the IOTLB.
    Global = 3,
    /// Context cache only: `requester` if known, else all devices. IOTLB
    /// entries survive (VT-d 6.5.3.1 asks for a separate IOTLB invalidation).
    Context = 4,
    /// Caches emptied by the IOMMU itself (reset, translation switched on or
    /// off): context cache, IOTLB and paging-structure caches.
    Reset = 5,
}

/// Properties of an event; a bit set stored as one integer column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u32);

impl Flags {
    /// Mapping allows reads / the access was a read.
    pub const READ: Flags = Flags(1 << 0);
    /// Mapping allows writes / the access was a write. An access with neither
    /// bit has an unknown direction (QEMU's log does not tell).
    pub const WRITE: Flags = Flags(1 << 1);
    /// The recorded IOTLB outcome of this access is known.
    pub const LABEL_KNOWN: Flags = Flags(1 << 2);
    /// Recorded outcome: hit (only with `LABEL_KNOWN`).
    pub const HIT: Flags = Flags(1 << 3);
    /// `out` holds the recorded output address.
    pub const OUT_KNOWN: Flags = Flags(1 << 4);
    /// The recorded access ended in a translation fault.
    pub const FAULT: Flags = Flags(1 << 5);
    /// The event is not in the recording; it was learned from its effects
    /// (a DMA output, an invalidation).
    pub const INFERRED: Flags = Flags(1 << 6);
    /// Recorded event whose domain was inferred by adjacency, not by evidence.
    pub const DOMAIN_INFERRED: Flags = Flags(1 << 7);
    /// Invalidation hint: leaf entries only (VT-d IH=1), paging-structure
    /// caches keep theirs.
    pub const LEAF_ONLY: Flags = Flags(1 << 8);
    /// Map: a recorded invalidation for not-present to present follows
    /// (the guest runs under caching mode).
    pub const NOTIFIED: Flags = Flags(1 << 9);
    /// Invalidation: issued only because of not-present to present (caching
    /// mode); a guest without caching mode would not send it.
    pub const MAP_NOTIFY: Flags = Flags(1 << 10);

    const SCOPE_SHIFT: u32 = 12;
    const SCOPE_MASK: u32 = 7 << Self::SCOPE_SHIFT;

    /// Flags of an invalidation with this reach.
    #[inline]
    pub const fn with_scope(scope: Scope) -> Flags {
        Flags((scope as u32) << Self::SCOPE_SHIFT)
    }

    /// Reach of an invalidation, `None` on other events.
    #[inline]
    pub const fn scope(self) -> Option<Scope> {
        match (self.0 & Self::SCOPE_MASK) >> Self::SCOPE_SHIFT {
            1 => Some(Scope::Page),
            2 => Some(Scope::Domain),
            3 => Some(Scope::Global),
            4 => Some(Scope::Context),
            5 => Some(Scope::Reset),
            _ => None,
        }
    }

    /// True if all bits of `other` are set.
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The union.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Rights of a mapping, or direction of an access.
    #[inline]
    pub const fn perm(self) -> Perm {
        Perm((self.0 & 3) as u8)
    }
}

/// One event. `addr`, `size`, `out` and `aux` are explained at [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since the trace's first event.
    pub time_ns: u64,
    /// What happened.
    pub kind: Kind,
    /// Properties.
    pub flags: Flags,
    /// Issuing CPU of the guest, -1 if unknown or not issued by a CPU.
    pub cpu: i32,
    /// Address space, [`DomainId::NONE`] if unknown.
    pub domain: DomainId,
    /// Device, [`Requester::NONE`] if none.
    pub requester: Requester,
    /// PASID, [`Pasid::NONE`] if none.
    pub pasid: Pasid,
    /// Input address in bytes.
    pub addr: u64,
    /// Length in bytes.
    pub size: u64,
    /// Output address in bytes.
    pub out: u64,
    /// Second output address of [`Kind::ShadowMap`]; reads of [`Kind::Dma`].
    pub aux: u64,
}

impl Event {
    /// An event of `kind` with every other column empty.
    pub fn new(kind: Kind) -> Event {
        Event {
            time_ns: 0,
            kind,
            flags: Flags::default(),
            cpu: -1,
            domain: DomainId::NONE,
            requester: Requester::NONE,
            pasid: Pasid::NONE,
            addr: 0,
            size: 0,
            out: 0,
            aux: 0,
        }
    }
}
