//! A flush queue: lazy unmapping's list of freed IOVAs that wait for an
//! invalidation.

use std::collections::VecDeque;

use crate::time::Ps;

/// Why a flush queue was drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// It was full.
    Full,
    /// Its oldest entry's time had come.
    Timeout,
}

/// A flush queue of `entries` freed ranges with a timer, as Linux's
/// (`drivers/iommu/dma-iommu.c`: 256-entry rings, of which 250 is what the
/// calibration table has, and 10 ms): an unmap puts its range in; when it is
/// full, or when the timer that the first entry starts has run out, one
/// invalidation releases all of them.
#[derive(Clone, Debug)]
pub struct FlushQueue {
    entries: usize,
    timeout: Ps,
    waiting: VecDeque<Ps>,
    timer: Option<Ps>,
    /// Drains because it was full.
    pub full: u64,
    /// Drains by the timer.
    pub timeouts: u64,
    /// Longest time that an entry waited.
    pub longest: Ps,
}

impl FlushQueue {
    /// An empty queue; `entries` is at least 1.
    pub fn new(entries: usize, timeout: Ps) -> FlushQueue {
        FlushQueue {
            entries,
            timeout,
            waiting: VecDeque::with_capacity(entries),
            timer: None,
            full: 0,
            timeouts: 0,
            longest: Ps::ZERO,
        }
    }

    /// An unmap at `now`. If that makes the queue full, it is drained, and the
    /// caller sends one invalidation.
    pub fn push(&mut self, now: Ps) -> Option<Drain> {
        self.waiting.push_back(now);
        self.timer.get_or_insert(now + self.timeout);
        (self.waiting.len() >= self.entries).then(|| {
            self.full += 1;
            self.drain(now);
            Drain::Full
        })
    }

    /// When the timer runs out, if it runs.
    pub fn timer(&self) -> Option<Ps> {
        self.timer
    }

    /// The timer's event at `now`: drains if the time has come (a drain for
    /// want of room may have stopped the timer in the meantime).
    pub fn expire(&mut self, now: Ps) -> Option<Drain> {
        self.timer.filter(|at| *at <= now).map(|_| {
            self.timeouts += 1;
            self.drain(now);
            Drain::Timeout
        })
    }

    fn drain(&mut self, now: Ps) {
        for came in self.waiting.drain(..) {
            self.longest = self.longest.max(now.since(came));
        }
        self.timer = None;
    }

    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True if none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Ps = Ps::from_ns(10_000_000);

    #[test]
    fn it_drains_when_it_is_full() {
        let mut q = FlushQueue::new(250, TIMEOUT);
        for n in 1..=1000u64 {
            let drained = q.push(Ps::from_ns(n));
            assert_eq!(drained.is_some(), n.is_multiple_of(250), "{n}");
        }
        assert_eq!((q.full, q.timeouts, q.len()), (4, 0, 0));
        assert_eq!(q.longest, Ps::from_ns(249));
    }

    #[test]
    fn it_drains_when_the_first_entrys_time_has_come() {
        let mut q = FlushQueue::new(250, TIMEOUT);
        assert_eq!(q.timer(), None);
        q.push(Ps::from_ns(100));
        q.push(Ps::from_ns(5_000_000));
        let due = Ps::from_ns(10_000_100);
        assert_eq!(q.timer(), Some(due));
        assert_eq!(q.expire(Ps(due.0 - 1)), None);
        assert_eq!(q.len(), 2);
        assert_eq!(q.expire(due), Some(Drain::Timeout));
        assert_eq!((q.len(), q.timer(), q.longest), (0, None, TIMEOUT));
    }

    #[test]
    fn a_drain_for_want_of_room_stops_the_timer() {
        let mut q = FlushQueue::new(2, TIMEOUT);
        q.push(Ps(0));
        q.push(Ps(1));
        q.push(Ps(2));
        assert_eq!(q.expire(TIMEOUT), None, "the old timer's event finds a newer timer");
        assert_eq!(q.timer(), Some(Ps(2) + TIMEOUT));
    }
}
