//! Lanes for what overlaps in time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ioasim_sim::time::Ps;

/// Gives each interval `(start, end)` the lowest lane that is free at its
/// start. Intervals are in order of their starts; the number of lanes is the
/// most that overlap at one time, which is the least possible.
pub fn lanes(intervals: impl Iterator<Item = (Ps, Ps)>) -> (Vec<u32>, u32) {
    let mut busy: BinaryHeap<Reverse<(Ps, u32)>> = BinaryHeap::new();
    let mut free: BinaryHeap<Reverse<u32>> = BinaryHeap::new();
    let mut used = 0;
    let lanes = intervals.map(|(start, end)| {
        while let Some(Reverse((_, lane))) = busy.peek().filter(|b| b.0.0 <= start).copied() {
            busy.pop();
            free.push(Reverse(lane));
        }
        let lane = free.pop().map_or_else(
            || {
                used += 1;
                used - 1
            },
            |Reverse(lane)| lane,
        );
        busy.push(Reverse((end, lane)));
        lane
    });
    let lanes = lanes.collect();
    (lanes, used)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(intervals: &[(u64, u64)]) -> (Vec<u32>, u32) {
        lanes(intervals.iter().map(|(a, b)| (Ps(*a), Ps(*b))))
    }

    #[test]
    fn the_lowest_free_lane_is_taken() {
        assert_eq!(of(&[]), (vec![], 0));
        assert_eq!(of(&[(0, 5), (5, 9), (9, 9), (9, 12)]), (vec![0, 0, 0, 0], 1));
        assert_eq!(of(&[(0, 9), (1, 3), (2, 4), (3, 5), (9, 10)]), (vec![0, 1, 2, 1, 0], 3));
    }

    /// Intervals of a lane never overlap, and there are as many lanes as
    /// intervals overlap at one time.
    #[test]
    fn as_few_lanes_as_can_be() {
        let mut x = 1u64;
        let mut random = |n: u64| {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (x >> 33) % n
        };
        for _ in 0..200 {
            let mut intervals: Vec<(u64, u64)> =
                (0..random(40)).map(|_| (random(50), 1 + random(12))).collect();
            intervals.iter_mut().for_each(|i| i.1 += i.0);
            intervals.sort_unstable();
            let (lanes, used) = of(&intervals);
            for (i, a) in intervals.iter().enumerate() {
                for (j, b) in intervals.iter().enumerate().skip(i + 1) {
                    assert!(lanes[i] != lanes[j] || a.1 <= b.0, "{a:?} {b:?}");
                }
            }
            let inside = |t| intervals.iter().filter(|i| i.0 <= t && t < i.1).count();
            assert_eq!(used as usize, (0..70).map(inside).max().unwrap_or(0));
        }
    }
}
