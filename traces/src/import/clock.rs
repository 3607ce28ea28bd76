//! Time stamps of one input, made usable: never decreasing, and going on
//! where a concatenated input starts over.

/// Steps back up to this are the jitter of threads that took their stamps
/// before they got at the file; larger ones are a new recording, 200 ms.
const JITTER_NS: i64 = 200_000_000;
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
    /// True if any stamp was seen.
    pub(crate) fn timed(&self) -> bool {
        self.shift.is_some()
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
        } else if self.last - time <= JITTER_NS {
            self.clamped += 1;
        } else {
            self.shift = Some(self.last.wrapping_sub(stamp));
            self.seams += 1;
            seam = true;
        }
        Tick { time: self.last, seam }
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
    fn without_stamps() {
        let mut c = Clock::default();
        assert_eq!(c.tick(None).time, 1000);
        assert_eq!(c.tick(None).time, 2000);
        assert!(!c.timed());
        assert_eq!(c.tick(Some(77)).time, 2000);
    }
}
