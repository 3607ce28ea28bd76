//! Values over address ranges.

use std::collections::BTreeMap;

/// A value that covers a range: where the range is cut, the upper part's
/// value is the lower part's [`moved`](Span::moved) by the distance.
pub(crate) trait Span: Copy + PartialEq {
    /// The value `by` bytes further on.
    fn moved(self, by: u64) -> Self;
}

impl Span for u32 {
    fn moved(self, _: u64) -> u32 {
        self
    }
}

/// An output address: it moves along with the input address.
impl Span for u64 {
    fn moved(self, by: u64) -> u64 {
        self.wrapping_add(by)
    }
}

impl Span for () {
    fn moved(self, _: u64) {}
}

/// Ranges `[start, end)` that do not overlap, each with a value. Neighbours
/// whose values continue each other are kept as one, so that the memory used
/// follows the fragmentation and not the bytes covered.
#[derive(Clone, Debug)]
pub(crate) struct RangeMap<V> {
    by_start: BTreeMap<u64, (u64, V)>,
}

impl<V> Default for RangeMap<V> {
    fn default() -> RangeMap<V> {
        RangeMap { by_start: BTreeMap::new() }
    }
}

impl<V: Span> RangeMap<V> {
    /// All ranges in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64, V)> + '_ {
        self.by_start.iter().map(|(s, (e, v))| (*s, *e, *v))
    }

    /// The parts of ranges inside `[start, end)`, ascending.
    pub fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64, V)> + '_ {
        // The range that begins before `start` may reach into it.
        let first = self.by_start.range(..=start).next_back().map_or(start, |(s, _)| *s);
        let upto = end.max(first);
        self.by_start.range(first..upto).filter_map(move |(s, (e, v))| {
            let (from, to) = ((*s).max(start), (*e).min(end));
            (from < to).then(|| (from, to, v.moved(from - s)))
        })
    }

    /// True if something lies inside `[start, end)`.
    pub fn any_within(&self, start: u64, end: u64) -> bool {
        self.within(start, end).next().is_some()
    }

    /// Removes what lies in `[start, end)`; ranges that reach out are cut.
    pub fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // From the last on: at most one range begins before `start`.
        while let Some((&s, &(e, v))) = self.by_start.range(..end).next_back() {
            if e <= start {
                break;
            }
            self.by_start.remove(&s);
            if e > end {
                self.by_start.insert(end, (e, v.moved(end - s)));
            }
            if s < start {
                self.by_start.insert(s, (start, v));
                break;
            }
        }
    }

    /// Sets `[start, end)` to `value`, the value at `start`.
    pub fn set(&mut self, start: u64, end: u64, value: V) {
        if start >= end {
            return;
        }
        self.remove(start, end);
        let (mut from, mut to, mut v) = (start, end, value);
        if let Some((&s, &(e, before))) = self.by_start.range(..start).next_back()
            && e == start
            && before.moved(start - s) == value
        {
            self.by_start.remove(&s);
            (from, v) = (s, before);
        }
        if let Some(&(e, after)) = self.by_start.get(&end)
            && v.moved(end - from) == after
        {
            self.by_start.remove(&end);
            to = e;
        }
        self.by_start.insert(from, (to, v));
    }
}

impl RangeMap<u32> {
    /// Adds `delta` to the count of every byte of `[start, end)`; a count
    /// that reaches 0 is no range.
    pub fn count(&mut self, start: u64, end: u64, delta: i32) {
        let old: Vec<(u64, u64, u32)> = self.within(start, end).collect();
        let mut at = start;
        let put = |map: &mut RangeMap<u32>, from: u64, to: u64, count: u32| {
            let count = count.saturating_add_signed(delta);
            if count == 0 {
                map.remove(from, to);
            } else {
                map.set(from, to, count);
            }
        };
        for (from, to, count) in old {
            put(self, at, from, 0);
            put(self, from, to, count);
            at = to;
        }
        put(self, at, end, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against one value per byte.
        #[test]
        fn agrees_with_a_byte_map(
            steps in proptest::collection::vec((0u8..4, 0u64..64, 0u64..20, 0u64..4), 1..60)
        ) {
            let mut outs = RangeMap::<u64>::default();
            let mut counts = RangeMap::<u32>::default();
            let mut out_bytes = [None::<u64>; 96];
            let mut count_bytes = [0u32; 96];
            for (step, start, len, value) in steps {
                let end = start + len;
                let range = start as usize..end as usize;
                match step {
                    0 => {
                        outs.set(start, end, value * 100);
                        let bytes = out_bytes[range].iter_mut().enumerate();
                        bytes.for_each(|(i, b)| *b = Some(value * 100 + i as u64));
                    }
                    1 => {
                        outs.remove(start, end);
                        out_bytes[range].fill(None);
                    }
                    2 => {
                        counts.count(start, end, 1);
                        count_bytes[range].iter_mut().for_each(|c| *c += 1);
                    }
                    _ => {
                        counts.count(start, end, -1);
                        count_bytes[range].iter_mut().for_each(|c| *c = c.saturating_sub(1));
                    }
                }
                for at in 0..96u64 {
                    let found = outs.within(at, at + 1).next().map(|(_, _, v)| v);
                    prop_assert_eq!(found, out_bytes[at as usize], "byte {}", at);
                    let found = counts.within(at, at + 1).next().map_or(0, |(_, _, v)| v);
                    prop_assert_eq!(found, count_bytes[at as usize], "count {}", at);
                }
                let all: Vec<_> = outs.iter().collect();
                for pair in all.windows(2) {
                    let ((s, e, v), (next, _, w)) = (pair[0], pair[1]);
                    prop_assert!(e <= next);
                    prop_assert!(e < next || v.moved(next - s) != w, "neighbours are merged");
                }
            }
        }
    }
}
