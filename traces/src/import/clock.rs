//! Time stamps of one input, made usable: never decreasing, and going on
//! where a concatenated input starts over.

use std::collections::VecDeque;

/// Steps back up to this are the jitter of threads that took their stamps
/// before they got at the file; larger ones are a new recording, 200 ms.
const JITTER_NS: i64 = 200_000_000;
/// Steps beyond this, forwards or back, are believed only if the next line does
/// not go on where the clock was: one hour.
pub const OUTLYING_NS: i64 = 3_600_000_000_000;
/// Distance of records without time stamps, 1 us.
const UNTIMED_NS: i64 = 1_000;

/// Turns stamps into ns since the first one.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// Added to a stamp.
    shift: Option<i64>,
    last: i64,
    /// Steps back that were taken for a new recording.
    pub(crate) seams: u64,
    /// Stamps that were moved up to their predecessor.
    pub(crate) clamped: u64,
    /// Stamps far from both neighbours, which were not believed.
    pub(crate) outlying: u64,
}

/// A reading of [`Clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick {
    /// ns since the first stamp.
    pub(crate) time: i64,
    /// True if a new recording begins here.
    pub(crate) seam: bool,
}

impl Clock {
    /// A clock whose readings are times already.
    pub(crate) fn of_times() -> Clock {
        Clock { shift: Some(0), ..Clock::default() }
    }

    /// True if any stamp was seen.
    pub(crate) fn timed(&self) -> bool {
        self.shift.is_some()
    }

    /// True if a stamp is so far from the one before that the next line's should
    /// be asked as well ([`Clock::tick_beside`]).
    #[inline]
    pub(crate) fn doubts(&self, stamp: Option<i64>) -> bool {
        let (Some(stamp), Some(shift)) = (stamp, self.shift) else { return false };
        stamp.wrapping_add(shift).abs_diff(self.last) > OUTLYING_NS.unsigned_abs()
    }

    /// The time of a doubtful record; `next` is the stamp of the line behind
    /// it. If that one goes on where the clock was, this one is a mistake (a
    /// flipped bit): the record gets the time of the one before.
    #[cold]
    pub(crate) fn tick_beside(&mut self, stamp: Option<i64>, next: Option<i64>) -> Tick {
        let goes_on = next.zip(self.shift).is_some_and(|(next, shift)| {
            let step = i128::from(next) + i128::from(shift) - i128::from(self.last);
            (-i128::from(JITTER_NS)..=i128::from(OUTLYING_NS)).contains(&step)
        });
        if !goes_on {
            return self.tick(stamp);
        }
        self.outlying += 1;
        Tick { time: self.last, seam: false }
    }

    /// The time of a record with this stamp.
    pub(crate) fn tick(&mut self, stamp: Option<i64>) -> Tick {
        let Some(stamp) = stamp else {
            // No stamps at all: count; a single line without one: same time.
            if self.shift.is_none() {
                self.last = self.last.saturating_add(UNTIMED_NS);
            }
            return Tick { time: self.last, seam: false };
        };
        let shift = *self.shift.get_or_insert(self.last.wrapping_sub(stamp));
        let time = stamp.wrapping_add(shift);
        let mut seam = false;
        if time >= self.last {
            self.last = time;
        } else if self.last.saturating_sub(time) <= JITTER_NS {
            self.clamped += 1;
        } else {
            self.shift = Some(self.last.wrapping_sub(stamp));
            self.seams += 1;
            seam = true;
        }
        Tick { time: self.last, seam }
    }
}

/// Where the clock of one input stands against another's, by record: a new
/// segment begins where one of them starts over or was joined anew.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    list: VecDeque<Segment>,
    /// Records where the input starts over and that no segment begins with.
    seams: VecDeque<u64>,
    epoch: u64,
    last_pair: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    /// First record that it holds for.
    from: u64,
    /// The input starts over there.
    seam: bool,
    /// Other clock minus this one, ns.
    offset: i64,
}

impl Segments {
    /// Segments remembered at most.
    const MAX: usize = 1024;

    /// The input starts over at record `index`.
    pub(crate) fn seam(&mut self, index: u64) {
        if self.seams.len() == Self::MAX {
            self.seams.pop_front();
        }
        self.seams.push_back(index);
    }

    /// Record `index` was found in the other input. If a clock stepped
    /// somewhere behind the pair before it: the records among which the new
    /// segment begins, for [`Segments::begin`].
    pub(crate) fn pair(&mut self, index: u64, epoch: u64, offset: i64) -> Option<(u64, u64)> {
        let before = self.last_pair.replace(index);
        match self.list.back_mut().filter(|_| self.epoch == epoch) {
            Some(segment) => segment.offset = offset,
            None => {
                self.epoch = epoch;
                let mut from = before.map_or(0, |i| i + 1);
                let mut seam = false;
                while let Some(&at) = self.seams.front().filter(|s| **s <= index) {
                    self.seams.pop_front();
                    from = from.max(at);
                    seam = true;
                }
                if self.list.len() == Self::MAX {
                    self.list.pop_front();
                }
                self.list.push_back(Segment { from, seam, offset });
                return before.filter(|_| !seam).map(|i| (i, index));
            }
        }
        None
    }

    /// The last segment begins at record `from`.
    pub(crate) fn begin(&mut self, from: u64) {
        if let Some(last) = self.list.back_mut() {
            last.from = from;
        }
    }

    /// The clocks' difference at record `index`, if it is known there.
    pub(crate) fn offset(&self, index: u64) -> Option<i64> {
        if let (Some(only), 1, true) = (self.list.front(), self.list.len(), self.seams.is_empty()) {
            return (only.from <= index).then_some(only.offset);
        }
        let segment = self.list.iter().rev().find(|s| s.from <= index)?;
        let joined = !self.seams.iter().any(|s| *s <= index && *s > segment.from);
        joined.then_some(segment.offset)
    }

    /// The same, or the best guess.
    pub(crate) fn near_offset(&self, index: u64) -> Option<i64> {
        self.list.iter().rev().find(|s| s.from <= index).or(self.list.front()).map(|s| s.offset)
    }

    /// True if the input starts over behind record `after`, up to `index`.
    pub(crate) fn starts_over(&self, after: u64, index: u64) -> bool {
        let between = |at: u64| at > after && at <= index;
        self.list.iter().any(|s| s.seam && between(s.from))
            || self.seams.iter().any(|s| between(*s))
    }

    /// Forgets what holds for records before `index` only.
    pub(crate) fn forget(&mut self, index: u64) {
        while self.list.get(1).is_some_and(|s| s.from <= index) {
            self.list.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seams_and_jitter() {
        let mut c = Clock::default();
        let s = 1_000_000_000;
        let mut at = |stamp: i64| {
            let t = c.tick(Some(stamp));
            (t.time, t.seam)
        };
        assert_eq!(at(5 * s), (0, false));
        assert_eq!(at(7 * s), (2 * s, false));
        assert_eq!(at(7 * s - 1000), (2 * s, false));
        assert_eq!(at(5 * s), (2 * s, true));
        assert_eq!(at(6 * s), (3 * s, false));
        assert_eq!((c.seams, c.clamped), (1, 1));
    }

    #[test]
    fn one_stamp_far_from_both_neighbours_is_not_believed() {
        let s = 1_000_000_000;
        let day = 86_400 * s;
        // What follows, ahead or behind, decides.
        for far in [80_080_068 * s, -80_080_068 * s] {
            let mut c = Clock::default();
            c.tick(Some(5 * s));
            assert!(!c.doubts(Some(5 * s + OUTLYING_NS)) && !c.doubts(None));
            assert!(c.doubts(Some(5 * s + far)));
            assert_eq!(c.tick_beside(Some(5 * s + far), Some(6 * s)).time, 0);
            assert!(!c.doubts(Some(6 * s)));
            assert_eq!(c.tick(Some(6 * s)), Tick { time: s, seam: false });
            assert_eq!((c.outlying, c.seams, c.clamped), (1, 0, 0));
        }
        // A machine that was asleep, another recording, the end of the log.
        for (stamp, next, want) in [
            (day, Some(day + 1), Tick { time: day - 5 * s, seam: false }),
            (-day, Some(-day + 1), Tick { time: 0, seam: true }),
            (day, None, Tick { time: day - 5 * s, seam: false }),
        ] {
            let mut c = Clock::default();
            c.tick(Some(5 * s));
            assert_eq!((c.tick_beside(Some(stamp), next), c.outlying), (want, 0));
        }
    }

    #[test]
    fn segments_follow_seams() {
        let mut s = Segments::default();
        assert_eq!((s.offset(5), s.near_offset(5)), (None, None));
        s.pair(10, 1, 100);
        assert_eq!((s.offset(0), s.offset(50)), (Some(100), Some(100)));
        s.seam(30);
        assert_eq!((s.offset(29), s.offset(30), s.near_offset(30)), (Some(100), None, Some(100)));
        s.pair(40, 2, 900);
        assert_eq!((s.offset(29), s.offset(30)), (Some(100), Some(900)));
        assert!(s.starts_over(29, 30) && !s.starts_over(30, 99) && !s.starts_over(10, 29));
        s.forget(30);
        assert_eq!(s.offset(29), None);
    }

    #[test]
    fn segments_follow_steps() {
        let mut s = Segments::default();
        assert_eq!(s.pair(10, 1, 100), None);
        assert_eq!(s.pair(20, 1, 90), None);
        assert_eq!(s.pair(40, 2, 900), Some((20, 40)));
        assert_eq!((s.offset(20), s.offset(21)), (Some(90), Some(900)));
        s.begin(33);
        assert_eq!((s.offset(32), s.offset(33)), (Some(90), Some(900)));
    }

    #[test]
    fn without_stamps() {
        let mut c = Clock::default();
        assert_eq!(c.tick(None).time, 1000);
        assert_eq!(c.tick(None).time, 2000);
        assert!(!c.timed());
        assert_eq!(c.tick(Some(77)).time, 2000);
    }
}
