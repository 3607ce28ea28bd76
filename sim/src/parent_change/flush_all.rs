//! Empty every shadow and build it anew.

use super::{Change, ChildId, ParentChange, Shadows, Work};

/// Nothing is kept: each change of the level rebuilds all shadows over it, as
/// QEMU does when a memory listener fires under `vtd_address_space_refresh_all`
/// (`hw/i386/intel_iommu.c`).
#[derive(Clone, Copy, Debug, Default)]
pub struct FlushAll;

impl ParentChange for FlushAll {
    type Config = ();

    fn new(_: &()) -> Self {
        FlushAll
    }

    fn mapped(&mut self, _: ChildId, _: u64, _: u64, _: u64) {}

    fn unmapped(&mut self, _: ChildId, _: u64, _: u64) {}

    fn cleared(&mut self, _: ChildId) {}

    fn changed(&mut self, _: Change, shadows: &mut dyn Shadows, work: &mut Work) {
        let mut children = Vec::new();
        shadows.children(&mut |child| children.push(child));
        for child in children {
            shadows.rebuild(child, work);
        }
    }

    fn memory_bytes(&self) -> u64 {
        0
    }
}
