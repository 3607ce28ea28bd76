//! Addresses, page sizes and permissions.

/// log2 of the base page size in bytes (4 KiB).
pub const PAGE_SHIFT: u32 = 12;
/// Base page size in bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// Mask of the offset bits inside a base page.
pub const PAGE_MASK: u64 = PAGE_SIZE - 1;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number of the 4 KiB page that holds this address.
            #[inline]
            pub fn page(self) -> u64 {
                self.0 >> PAGE_SHIFT
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// I/O virtual address: what a device emits; input of the child (stage 1).
    Iova
}
address! {
    /// Guest-physical address: output of the child, input of the parent (stage 2).
    Gpa
}
address! {
    /// Host-physical address: output of the parent.
    Hpa
}

/// Leaf sizes of a 9-bits-per-level radix table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PageSize {
    /// 4 KiB (level 0 leaf).
    Size4K = 0,
    /// 2 MiB (level 1 leaf).
    Size2M = 1,
    /// 1 GiB (level 2 leaf).
    Size1G = 2,
}

impl PageSize {
    /// All sizes, smallest first.
    pub const ALL: [PageSize; 3] = [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G];

    /// log2 of the size in bytes: 12, 21 or 30.
    #[inline]
    pub const fn shift(self) -> u32 {
        PAGE_SHIFT + 9 * self as u32
    }

    /// Size in bytes.
    #[inline]
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// The size whose leaves live at `level` (0 = 4 KiB), if there is one.
    #[inline]
    pub const fn from_level(level: u32) -> Option<PageSize> {
        match level {
            0 => Some(PageSize::Size4K),
            1 => Some(PageSize::Size2M),
            2 => Some(PageSize::Size1G),
            _ => None,
        }
    }
}

/// Access rights of a mapping, or the right that an access needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Perm(pub u8);

impl Perm {
    /// No access.
    pub const NONE: Perm = Perm(0);
    /// Read by the device.
    pub const READ: Perm = Perm(1);
    /// Write by the device.
    pub const WRITE: Perm = Perm(2);
    /// Both.
    pub const RW: Perm = Perm(3);

    /// True if every right in `needed` is present.
    #[inline]
    pub const fn allows(self, needed: Perm) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// The rights present in both (levels of a walk are ANDed).
    #[inline]
    pub const fn and(self, other: Perm) -> Perm {
        Perm(self.0 & other.0)
    }
}
