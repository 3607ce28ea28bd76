//! Walk the whole child at each invalidation.

use super::{Range, SyncPolicy};
use crate::events::Perm;
use crate::shadow::{Shadow, SyncContext};

/// The child is user-managed and invalidations carry no range: each one means
/// "the page table has changed", and all of it is compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct InvalidateFull;

impl SyncPolicy for InvalidateFull {
    type Config = ();

    fn new(_: &()) -> Self {
        InvalidateFull
    }

    fn map_call(&self, _: &mut Shadow, _: &mut SyncContext<'_>, _: Range, _: u64, _: Perm) -> bool {
        false
    }

    fn unmap_call(&self, _: &mut Shadow, _: &mut SyncContext<'_>, _: Range) -> bool {
        false
    }

    fn invalidate(&self, shadow: &mut Shadow, cx: &mut SyncContext<'_>, _: Option<Range>) -> bool {
        cx.counters.syncs += 1;
        let end = 1 << cx.child.width();
        shadow.sync(cx, 0, end);
        true
    }
}
