//! The mapped parts of one address space.

use std::collections::BTreeMap;

/// One map, or what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Last byte, inclusive: a map may end at the top of the address space.
    pub last: u64,
    /// When it was mapped, ns.
    pub since_ns: u64,
    /// Accesses since.
    pub accesses: u64,
}

/// Mapped extents by first byte; they do not overlap.
#[derive(Debug, Default)]
pub struct Extents {
    by_start: BTreeMap<u64, Extent>,
    /// Bytes in all extents.
    bytes: u128,
}

impl Extents {
    /// Bytes mapped.
    pub fn bytes(&self) -> u128 {
        self.bytes
    }

    /// Number of extents.
    pub fn len(&self) -> usize {
        self.by_start.len()
    }

    /// The extent that holds `addr`. O(log n).
    pub fn find(&mut self, addr: u64) -> Option<&mut Extent> {
        self.by_start.range_mut(..=addr).next_back().map(|(_, e)| e).filter(|e| e.last >= addr)
    }

    /// Adds `[first, last]`, where nothing may be mapped (see `remove`).
    pub fn insert(&mut self, first: u64, last: u64, since_ns: u64) {
        self.by_start.insert(first, Extent { last, since_ns, accesses: 0 });
        self.bytes += u128::from(last - first) + 1;
    }

    /// Removes `[first, last]`, splitting extents that reach out of it, and
    /// calls `removed` with what was there. Returns the bytes removed.
    /// O((1 + removed) log n).
    pub fn remove(&mut self, first: u64, last: u64, mut removed: impl FnMut(&Extent)) -> u128 {
        let before = self.bytes;
        // From the last one on, so that its key can be read while removing.
        while let Some((&start, &extent)) = self.by_start.range(..=last).next_back() {
            if extent.last < first {
                break;
            }
            self.by_start.remove(&start);
            removed(&extent);
            let (from, to) = (start.max(first), extent.last.min(last));
            self.bytes -= u128::from(to - from) + 1;
            if extent.last > last {
                self.by_start.insert(last + 1, extent);
            }
            if start < first {
                self.by_start.insert(start, Extent { last: first - 1, ..extent });
                break;
            }
        }
        before - self.bytes
    }
}

/// First and last byte of `[addr, addr + size)`, cut at the top of the
/// address space; `None` if it is empty.
pub fn span(addr: u64, size: u64) -> Option<(u64, u64)> {
    (size > 0).then(|| (addr, addr.saturating_add(size - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against one flag per byte.
        #[test]
        fn agrees_with_a_byte_map(
            steps in proptest::collection::vec((any::<bool>(), 0u64..64, 1u64..20), 1..40)
        ) {
            let mut extents = Extents::default();
            let mut bytes = [false; 96];
            for (map, addr, size) in steps {
                let (first, last) = span(addr, size).unwrap();
                let range = &mut bytes[first as usize..=last as usize];
                let there = range.iter().filter(|b| **b).count() as u128;
                range.fill(map);
                prop_assert_eq!(extents.remove(first, last, |_| {}), there);
                if map {
                    extents.insert(first, last, 0);
                }
                prop_assert_eq!(extents.bytes(), bytes.iter().filter(|b| **b).count() as u128);
                for (at, &mapped) in bytes.iter().enumerate() {
                    prop_assert_eq!(extents.find(at as u64).is_some(), mapped, "byte {}", at);
                }
            }
        }
    }

    #[test]
    fn spans_reach_the_top_of_the_address_space() {
        assert_eq!(span(5, 0), None);
        assert_eq!(span(u64::MAX - 1, 100), Some((u64::MAX - 1, u64::MAX)));
        let mut extents = Extents::default();
        extents.insert(u64::MAX - 1, u64::MAX, 0);
        assert_eq!(extents.remove(0, u64::MAX, |_| {}), 2);
        assert_eq!(extents.len(), 0);
    }
}
