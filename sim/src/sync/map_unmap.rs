//! Every call captured: map/unmap on both levels.

use super::{Range, SyncPolicy};
use crate::events::Perm;
use crate::shadow::{Shadow, SyncContext};

/// The child is host-managed: each guest map and unmap is a call to the VMM,
/// which changes the shadow at once (virtio-iommu). Nothing is walked, and
/// invalidations have nothing to add.
#[derive(Clone, Copy, Debug, Default)]
pub struct MapUnmap;

impl SyncPolicy for MapUnmap {
    type Config = ();

    fn new(_: &()) -> Self {
        MapUnmap
    }

    fn map_call(
        &self,
        shadow: &mut Shadow,
        cx: &mut SyncContext<'_>,
        range: Range,
        gpa: u64,
        perm: Perm,
    ) -> bool {
        cx.counters.syncs += 1;
        shadow.map_call(cx, range.start, gpa, range.end - range.start, perm);
        true
    }

    fn unmap_call(&self, shadow: &mut Shadow, cx: &mut SyncContext<'_>, range: Range) -> bool {
        cx.counters.syncs += 1;
        shadow.unmap_call(cx, range.start, range.end - range.start);
        true
    }

    fn wants_invalidations(&self) -> bool {
        false
    }
}
