//! Walk the whole child at each invalidation.

use super::{Range, SyncPolicy};
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

    fn invalidate(&self, shadow: &mut Shadow, cx: &mut SyncContext<'_>, _: Option<Range>) {
        cx.counters.syncs += 1;
        let end = 1 << cx.child.width();
        shadow.sync(cx, 0, end);
    }
}
