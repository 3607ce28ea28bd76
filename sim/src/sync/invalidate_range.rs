//! Walk the range of each invalidation.

use super::{Range, SyncPolicy};
use crate::shadow::{Shadow, SyncContext};

/// The child is user-managed; an invalidation says which part changed, and
/// the VMM compares that part with the shadow (QEMU's VT-d with caching mode).
/// Domain-selective and global invalidations walk the whole child.
#[derive(Clone, Copy, Debug, Default)]
pub struct InvalidateRange;

impl SyncPolicy for InvalidateRange {
    type Config = ();

    fn new(_: &()) -> Self {
        InvalidateRange
    }

    fn invalidate(&self, shadow: &mut Shadow, cx: &mut SyncContext<'_>, range: Option<Range>) {
        cx.counters.syncs += 1;
        let range = range.unwrap_or(Range { start: 0, end: 1 << cx.child.width() });
        shadow.sync(cx, range.start, range.end);
    }
}
