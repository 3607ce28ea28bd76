//! The records that importers look ahead on: a bounded part of a log, and the
//! part of the guest's ftrace that belongs to it.

mod chains;
mod ft;
mod log;

pub(crate) use ft::{FtKind, FtRec, FtWindow};
pub(crate) use log::LogWindow;

use super::desc::Descriptor;

/// "No record" in links and matches.
pub(crate) const NONE: u64 = u64::MAX;
/// "No record" in a chain.
const END: u32 = u32::MAX;
/// What a [`LogRec`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogKind {
    /// Nothing (moved elsewhere).
    Void,
    /// A device's access: `a` = IOVA, `b` = output of the access's page or
    /// larger page with the offset, `c` = page mask.
    Dma,
    /// An invalidation of IOTLB or context cache: `a` = qw1, `b` = qw0.
    Inv,
    /// A descriptor that is only good for joining: as `Inv`.
    Token,
    /// Caches emptied by the IOMMU; `c` = 1 if translation is on afterwards,
    /// 0 if off, 2 if the line does not tell.
    Reset,
    /// `vtd_switch_address_space`: `c` = enabled.
    Switch,
    /// `vtd_page_walk_one`: `a` = IOVA, `b` = GPA, `c` = mask, flags = perm.
    Walk,
    /// RAM added to the device's container: `a` = start, `b` = end, `c` = the VMM's address.
    RegionRam,
    /// The guest's IOMMU region added: `a` = start, `b` = end.
    RegionIommu,
    /// A region removed: `a` = start, `b` = end.
    RegionDel,
}

/// Bits of [`LogRec::flags`].
pub(crate) mod log_flags {
    /// The mapping allows reads (bits 0 and 1 are those of a VT-d PTE).
    pub(crate) const READ: u8 = 1;
    /// The mapping allows writes.
    pub(crate) const WRITE: u8 = 2;
    /// Recorded as an IOTLB hit.
    pub(crate) const HIT: u8 = 4;
    /// Hit or miss is recorded.
    pub(crate) const LABEL: u8 = 8;
    /// The output is recorded.
    pub(crate) const OUT: u8 = 16;
    /// Ended in a fault; WRITE tells the direction.
    pub(crate) const FAULT: u8 = 32;
    /// Passed through untranslated.
    pub(crate) const PASS: u8 = 64;
}

/// One record of a log. What `a`, `b` and `c` are depends on `kind`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogRec {
    /// ns since the log's first line, never decreasing.
    pub(crate) time: i64,
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) c: u64,
    /// Record of the joined stream that is the same descriptor, or [`NONE`].
    pub(crate) peer: u64,
    pub(crate) domain: u32,
    pub(crate) sid: u32,
    pub(crate) tid: u32,
    /// Next access with the same page and output, relative to the base of
    /// all indexes; [`END`] if none.
    next: u32,
    next_region: u32,
    pub(crate) kind: LogKind,
    pub(crate) flags: u8,
    /// Reads of page tables that a logged walk made, 0 if they are not logged.
    pub(crate) reads: u8,
    /// The first one of a recording that starts over.
    pub(crate) seam: bool,
}

impl LogRec {
    pub(crate) fn new(kind: LogKind, time: i64, tid: u32) -> LogRec {
        LogRec {
            time,
            a: 0,
            b: 0,
            c: 0,
            peer: NONE,
            domain: u32::MAX,
            sid: u32::MAX,
            tid,
            next: END,
            next_region: END,
            kind,
            flags: 0,
            reads: 0,
            seam: false,
        }
    }

    /// True if it proves a mapping: an access that is no hit and has an output.
    pub(crate) fn proves(&self) -> bool {
        const MASK: u8 = log_flags::HIT | log_flags::FAULT | log_flags::PASS | log_flags::OUT;
        self.kind == LogKind::Dma && self.flags & MASK == log_flags::OUT
    }

    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor { qw0: self.b, qw1: self.a }
    }
}
