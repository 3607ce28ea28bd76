//! Trap on every guest write to a page table.

use super::SyncPolicy;
use crate::shadow::{Shadow, SyncContext};
use crate::table::{FANOUT, PteWrite, PteWriteKind};

/// The child is user-managed, and the guest pages that hold its table are
/// write-protected as soon as they are linked into it: each store to an entry
/// traps, and the VMM reads the entry and brings the shadow in line before the
/// guest goes on. Invalidations still trap (the guest knows nothing of all
/// this), but find nothing to do.
///
/// This is what KVM does for CPU page tables (`kvm_mmu_track_write` and
/// `account_shadowed` in `arch/x86/kvm/mmu`), without its way out, "unsync"
/// pages: those stay writable until the next TLB flush, and rely on page
/// faults for what became present in between, which a device without page
/// requests cannot take. A table page that is linked is read as a whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteProtect;

impl SyncPolicy for WriteProtect {
    type Config = ();

    fn new(_: &()) -> Self {
        WriteProtect
    }

    fn pte_write(&self, shadow: &mut Shadow, cx: &mut SyncContext<'_>, write: PteWrite) {
        cx.counters.syncs += write.entries;
        if write.kind == PteWriteKind::LinkEmpty {
            // The pointer, and a page of entries that are not present.
            let entries = FANOUT as u64;
            cx.counters.pte_reads += 1 + entries;
            cx.counters.entries_examined += entries;
            cx.counters.skipped += entries;
            return;
        }
        shadow.sync_entries(cx, write.level, write.iova, write.entries);
    }

    fn wants_pte_writes(&self) -> bool {
        true
    }
}
