//! Fill the shadow when a device faults on it.

use super::{Range, SyncPolicy};
use crate::shadow::{Shadow, SyncContext};

/// The child is user-managed. The shadow starts empty; a device that finds
/// nothing there raises a page request (PCIe PRI; Linux's I/O page-fault path,
/// `iommu_report_device_fault`, and iommufd's fault queue), the VMM walks the
/// guest's table for that address, maps the one entry that it finds, and the
/// device asks again. The guest's invalidations drop what was filled; nothing
/// is read then. Not-present -> present needs no invalidation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand;

impl SyncPolicy for Demand {
    type Config = ();

    fn new(_: &()) -> Self {
        Demand
    }

    fn invalidate(&self, shadow: &mut Shadow, cx: &mut SyncContext<'_>, range: Option<Range>) {
        cx.counters.syncs += 1;
        let range = range.unwrap_or(Range { start: 0, end: 1 << cx.child.width() });
        shadow.forget(cx, range.start, range.end);
    }

    fn fault(&self, shadow: &mut Shadow, cx: &mut SyncContext<'_>, iova: u64) {
        cx.counters.demand_faults += 1;
        shadow.fill(cx, iova);
    }

    fn fills_on_fault(&self) -> bool {
        true
    }
}
