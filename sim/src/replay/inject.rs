//! Invalidations that a guest under caching mode would have sent.

use super::spaces::SpaceId;

/// Collects adjacent maps, because Linux sends one invalidation for a whole
/// scatter list (`iommu_map_sg`, then one `iotlb_sync_map`).
#[derive(Default)]
pub(super) struct PendingNotify {
    range: Option<(SpaceId, u64, u64)>,
}

impl PendingNotify {
    /// True if nothing is pending.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.range.is_none()
    }

    /// Adds `[start, end)`; returns what must be sent first because it is not
    /// adjacent.
    pub fn add(&mut self, space: SpaceId, start: u64, end: u64) -> Option<(SpaceId, u64, u64)> {
        match &mut self.range {
            Some((s, _, e)) if *s == space && *e == start => {
                *e = end;
                None
            }
            other => other.replace((space, start, end)),
        }
    }

    /// Takes what is pending.
    pub fn take(&mut self) -> Option<(SpaceId, u64, u64)> {
        self.range.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_maps_share_one_notification() {
        let (a, b) = (SpaceId(1), SpaceId(2));
        let mut p = PendingNotify::default();
        assert_eq!(p.add(a, 0x1000, 0x2000), None);
        assert_eq!(p.add(a, 0x2000, 0x3000), None);
        assert_eq!(p.add(b, 0x3000, 0x4000), Some((a, 0x1000, 0x3000)));
        assert_eq!(p.add(b, 0x8000, 0x9000), Some((b, 0x3000, 0x4000)));
        assert_eq!(p.take(), Some((b, 0x8000, 0x9000)));
        assert!(p.is_empty());
    }
}
