//! What the parent-change workloads have in common.

use rand_pcg::Pcg64;

use super::balloon::Balloon;
use super::children::Children;
use super::choose::Chooser;
use super::host::Host;
use super::hot_unplug::HotUnplug;
use super::options::{Options, Workload};
use super::page_migration::PageMigration;
use super::post_copy::PostCopy;
use super::virtio_mem::VirtioMem;
use super::write_protect::WriteProtect;

/// The state that a workload reads and changes.
#[derive(Debug)]
pub(super) struct Guest {
    /// Guest memory.
    pub host: Host,
    /// What is mapped for DMA.
    pub children: Children,
    /// Draws units.
    pub chooser: Chooser,
    /// Source of all that is random.
    pub rng: Pcg64,
    /// Also pages that are mapped for DMA are taken.
    pub in_use: bool,
    /// Candidates found unfit (mapped for DMA, away already, page tables).
    pub refused: u64,
}

impl Guest {
    /// A unit that is there, and not mapped for DMA unless those are allowed.
    pub fn choose(&mut self, in_use: bool) -> Option<u64> {
        for _ in 0..self.chooser.tries() {
            let at = self.chooser.pick(&mut self.rng)?;
            let end = at + self.host.unit;
            if self.host.changeable(at, end) && (in_use || !self.children.maps_into(at, end)) {
                return Some(at);
            }
            self.refused += 1;
        }
        None
    }
}

/// A workload: a state machine that is told when an operation is due.
///
/// What is away comes back without its help before the trace needs it; what is
/// write-protected becomes writable before an access that may write.
pub(super) trait Work: std::fmt::Debug {
    /// Operations begin.
    fn begin(&mut self, _guest: &mut Guest) {}
    /// One operation.
    fn step(&mut self, guest: &mut Guest);
    /// `[start, end)` was away and came back because the trace needs it.
    fn asked_for(&mut self, _start: u64, _end: u64) {}
    /// `[start, end)` was write-protected and an access is about to write.
    fn written(&mut self, _start: u64, _end: u64) {}
    /// A map into a page that is away brings it back (it is pinned then), not
    /// only an access to it.
    fn back_at_map(&self, guest: &Guest) -> bool {
        !guest.in_use
    }
}

/// The workload that the options ask for.
pub(super) fn of(options: &Options, memory: u64) -> Box<dyn Work> {
    let batch = options.batch();
    let target = memory / 100 * options.target_percent.unwrap_or(25);
    match options.workload {
        Workload::Balloon => Box::new(Balloon(Removal::new(batch, target))),
        Workload::VirtioMem => Box::new(VirtioMem(Removal::new(batch, target))),
        Workload::HotUnplug => Box::new(HotUnplug(Removal::new(batch, target))),
        Workload::PageMigration => Box::new(PageMigration { batch }),
        Workload::WriteProtect => Box::new(WriteProtect::new(options.passes.unwrap_or(4))),
        Workload::PostCopy => Box::new(PostCopy::new(batch)),
    }
}

/// Takes units up to a target, gives them back in reverse order, and again.
#[derive(Debug)]
pub(super) struct Removal {
    batch: u64,
    /// Bytes away at which it turns round; one unit at least goes.
    target: u64,
    giving_back: bool,
    /// First bytes of the units taken, the last on top. Some may be back
    /// already, because the trace needed them.
    taken: Vec<u64>,
}

impl Removal {
    pub fn new(batch: u64, target: u64) -> Removal {
        Removal { batch, target, giving_back: false, taken: Vec::new() }
    }

    /// One operation: `batch` units go or come.
    pub fn step(&mut self, guest: &mut Guest) {
        let unit = guest.host.unit;
        for _ in 0..self.batch {
            if self.giving_back {
                let back = |at: &u64| guest.host.is_absent(*at, at + unit);
                while self.taken.last().is_some_and(|at| !back(at)) {
                    self.taken.pop();
                }
                let Some(at) = self.taken.pop() else {
                    self.giving_back = false;
                    return;
                };
                guest.host.give_back(at, at + unit);
            } else {
                let full = guest.host.absent() + unit > self.target && guest.host.absent() > 0;
                match if full { None } else { guest.choose(guest.in_use) } {
                    Some(at) => {
                        guest.host.take(at, at + unit);
                        self.taken.push(at);
                    }
                    None => {
                        self.giving_back = true;
                        return;
                    }
                }
            }
        }
    }
}
