//! What the VMM did before the hypervisor. Both run on one machine, so their
//! own clocks and causes tell that, wherever the records stand on the host's
//! clock: the machine may be paused while the host's clock goes on, and its
//! clock may stand still for a while afterwards.

use super::{Bundle, Lane, PULL_NS};
use crate::Result;
use crate::import::lines::{EventSink, LineSource};
use crate::import::window::{FtRec, LogKind, NONE};

/// Records of the VMM looked through for the cause of a map or unmap; a
/// machine's regions are a few dozen.
const MAX_LOOK: u64 = 256;

impl<H: LineSource, G: LineSource, V: LineSource, K: LineSource, S: EventSink>
    Bundle<H, G, V, K, S>
{
    /// The hypervisor's time of a time of the VMM.
    pub(super) fn hypervisor_time_of_vmm(&self, time: i64) -> i64 {
        let offset = self.vmm_clock.near_offset(self.vmm_window.head()).unwrap_or(self.vmm_offset);
        time.saturating_add(offset)
    }

    /// True if the VMM's head comes behind the hypervisor's on their machine's
    /// clock, and that one waits for the host.
    pub(super) fn vmm_waits_for_host(&self) -> bool {
        let heads = (self.vmm_window.front(), self.hypervisor.window.front());
        let (Some(vmm), Some(hypervisor)) = heads else { return false };
        !self.ready(Lane::Hypervisor) && self.hypervisor_time_of_vmm(vmm.time) > hypervisor.time
    }

    /// Writes what the VMM did before `rec`, the hypervisor's head.
    pub(super) fn write_vmm_before(&mut self, rec: &FtRec) -> Result<()> {
        loop {
            self.decide_heads();
            let before = |r: &_| self.hypervisor_time_of_vmm(*r) <= rec.time;
            if !self.ready(Lane::Vmm) || !self.vmm_window.front().is_some_and(|r| before(&r.time)) {
                break;
            }
            self.write_vmm()?;
        }
        let Some(region) = self.region_behind(rec) else { return Ok(()) };
        self.state.counts.regions_pulled += 1;
        while self.vmm_window.head() <= region && self.vmm_window.len() > 0 {
            self.write_vmm()?;
        }
        Ok(())
    }

    /// The VMM's record that adds or removes the region whose first map or
    /// unmap `rec`, the hypervisor's head, is, if it is not written yet.
    fn region_behind(&self, rec: &FtRec) -> Option<u64> {
        let kind = self.state.awaited_region(rec, self.hypervisor.told_domain(rec))?;
        let limit = rec.time.saturating_add(PULL_NS);
        let head = self.vmm_window.head();
        for at in head..head + MAX_LOOK {
            let r = self.vmm_window.get(at)?;
            let waits = r.kind == LogKind::Walk
                && r.peer != NONE
                && r.peer >= self.hypervisor.window.head();
            if waits || self.hypervisor_time_of_vmm(r.time) > limit {
                return None;
            }
            if r.kind == kind && r.a == rec.a && self.head_changes_all(rec, r.b) {
                return Some(at);
            }
        }
        None
    }

    /// True if `rec`, the hypervisor's head, and those behind it are one run
    /// of maps or of unmaps up to address `last`.
    fn head_changes_all(&self, rec: &FtRec, last: u64) -> bool {
        let mut next = rec.a;
        for (_, r) in self.hypervisor.window.from(self.hypervisor.window.head()) {
            if !r.changes_table() {
                continue;
            }
            if r.kind != rec.kind || r.a != next {
                return false;
            }
            next = r.a.wrapping_add(r.size);
            if next.wrapping_sub(1) >= last {
                return true;
            }
        }
        false
    }
}
