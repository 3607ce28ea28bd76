//! Write-protect sweeps of pre-copy live migration.
//!
//! When dirty logging begins, all memory becomes read-only; a write makes its
//! page writable and dirty; each further pass protects the dirty pages again
//! (KVM: commit 2a31b9db1535, "kvm: introduce manual dirty log reprotect";
//! huge pages are split to 4 KiB by it, commit cb00a70bd4b7). QEMU clears the
//! log in chunks of 1 GiB (`CLEAR_BITMAP_SHIFT_DEFAULT`, 2^18 pages). When
//! migration ends without success, all memory becomes writable again.
//!
//! KVM does this to the CPU's second stage. Parents do without today: VFIO
//! type 1 reports every pinned page as dirty (`include/uapi/linux/vfio.h`,
//! commit b704fd14a06f), iommufd reads dirty bits
//! (`IOMMU_HWPT_SET_DIRTY_TRACKING`, commit e2a4b2947849). A parent that
//! shares the CPU's table, or an IOMMU without dirty bits, sees these changes.
//! A write to a protected page is an I/O page fault; the overlay makes the
//! page writable right before the access. Recordings without directions give
//! every access as a possible write.

use ioasim_events::Perm;

use super::range_map::RangeMap;
use super::workload::{Guest, Work};

/// Bytes whose log is cleared with one call.
const CHUNK: u64 = 1 << 30;

/// Sweeps.
#[derive(Debug)]
pub(super) struct WriteProtect {
    /// Passes before dirty logging ends.
    passes: u64,
    /// Passes done since it began.
    done: u64,
    /// Written since the last pass.
    dirty: RangeMap<()>,
}

impl WriteProtect {
    pub fn new(passes: u64) -> WriteProtect {
        WriteProtect { passes, done: 0, dirty: RangeMap::default() }
    }
}

impl Work for WriteProtect {
    fn step(&mut self, guest: &mut Guest) {
        let host = &mut guest.host;
        if self.done == self.passes {
            for (start, end) in host.regions.clone() {
                host.protect(start, end, None);
            }
            (self.done, self.dirty) = (0, RangeMap::default());
            return;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let ranges: Vec<(u64, u64)> = match self.done {
            0 => host.regions.clone(),
            _ => dirty.iter().map(|(s, e, ())| (s, e)).collect(),
        };
        for (start, end) in ranges {
            let mut at = start;
            while at < end {
                let next = ((at / CHUNK + 1) * CHUNK).min(end);
                host.protect(at, next, Some(Perm::READ));
                at = next;
            }
        }
        self.done += 1;
    }

    fn written(&mut self, start: u64, end: u64) {
        self.dirty.set(start, end, ());
    }
}
