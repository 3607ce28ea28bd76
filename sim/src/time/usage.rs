//! What resources report, and the laws that the reports must obey.

use super::Ps;

/// The integral of a number over time: exact, in picoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Integral {
    level: u64,
    since: Ps,
    area: u128,
    most: u64,
}

impl Integral {
    /// The level changes by `by` at `now`.
    #[inline]
    pub fn add(&mut self, now: Ps, by: i64) {
        self.settle(now);
        self.level = self.level.wrapping_add_signed(by);
        self.most = self.most.max(self.level);
    }

    /// Takes the time until `now` into account.
    #[inline]
    pub fn settle(&mut self, now: Ps) {
        self.area += self.level as u128 * now.since(self.since).0 as u128;
        self.since = self.since.max(now);
    }

    /// Level now.
    pub fn level(&self) -> u64 {
        self.level
    }

    /// Highest level.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Level times time, in picoseconds.
    pub fn area(&self) -> u128 {
        self.area
    }

    /// Forgets the past; the level stays.
    pub fn restart(&mut self, now: Ps) {
        self.since = now;
        self.area = 0;
        self.most = self.level;
    }
}

/// Use of a resource with `servers` servers and a queue.
///
/// Two books are kept: integrals over time (numbers in queue and in service),
/// and sums over the jobs (time waited, time served). Little's law says that
/// they agree; [`Usage::littles_residual`] is their difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Jobs in service, over time.
    pub busy: Integral,
    /// Jobs waiting, over time.
    pub queue: Integral,
    /// Jobs that came.
    pub arrivals: u64,
    /// Jobs that left after service.
    pub departures: u64,
    /// Jobs turned away because the queue was full.
    pub refused: u64,
    /// Jobs that had to wait.
    pub waited: u64,
    /// Sum over jobs of (time of departure - time of arrival); arrivals are
    /// subtracted when they come, departures added, so jobs inside count as
    /// -arrival until they leave.
    sojourn: i128,
    inside: u64,
    start: Ps,
}

impl Usage {
    /// A job came at `now`.
    #[inline]
    pub fn arrive(&mut self, now: Ps) {
        self.arrivals += 1;
        self.inside += 1;
        self.sojourn -= now.0 as i128;
    }

    /// A job left at `now`.
    #[inline]
    pub fn leave(&mut self, now: Ps) {
        self.departures += 1;
        self.inside -= 1;
        self.sojourn += now.0 as i128;
    }

    /// A job came at `from`, was served at once and left at `until`, before
    /// others that are in the books already or after them. Of one that came
    /// before the start, only the time since then counts.
    #[inline]
    pub fn served(&mut self, from: Ps, until: Ps) {
        let inside = until.since(from.max(self.start)).0;
        self.arrivals += u64::from(from >= self.start);
        self.departures += u64::from(until >= self.start);
        self.busy.area += u128::from(inside);
        self.sojourn += i128::from(inside);
    }

    /// Jobs that came and have not left.
    pub fn inside(&self) -> u64 {
        self.inside
    }

    /// Settles both books at `now`, the end of the run.
    pub fn settle(&mut self, now: Ps) {
        self.busy.settle(now);
        self.queue.settle(now);
    }

    /// Starts measuring: what was counted before `now` is forgotten, jobs
    /// inside stay and count from now on.
    pub fn restart(&mut self, now: Ps) {
        self.busy.restart(now);
        self.queue.restart(now);
        self.arrivals = 0;
        self.departures = 0;
        self.refused = 0;
        self.waited = 0;
        self.start = now;
        self.sojourn = -(self.inside as i128 * now.0 as i128);
    }

    /// Time that jobs spent inside until `now`, summed over jobs.
    pub fn sojourn(&self, now: Ps) -> u128 {
        (self.sojourn + self.inside as i128 * now.0 as i128) as u128
    }

    /// Little's law, L = lambda W, with both sides times the elapsed time:
    /// the difference between the integral of the number inside and the sum of
    /// the times inside. Zero, exactly, after [`Usage::settle`] at `now`.
    pub fn littles_residual(&self, now: Ps) -> i128 {
        (self.busy.area() + self.queue.area()) as i128 - self.sojourn(now) as i128
    }

    /// Part of the servers' time that they were busy; `None` before any time.
    pub fn utilisation(&self, now: Ps, servers: u64) -> Option<f64> {
        let elapsed = now.since(self.start).0 as u128 * servers as u128;
        (elapsed > 0).then(|| self.busy.area() as f64 / elapsed as f64)
    }

    /// Mean number waiting; `None` before any time.
    pub fn mean_queue(&self, now: Ps) -> Option<f64> {
        let elapsed = now.since(self.start).0;
        (elapsed > 0).then(|| self.queue.area() as f64 / elapsed as f64)
    }

    /// Mean wait before service of those that came, in picoseconds.
    pub fn mean_wait(&self) -> Option<f64> {
        (self.arrivals > 0).then(|| self.queue.area() as f64 / self.arrivals as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Jobs booked as wholes, in any order, give what their comings and
        /// goings give, with a restart among them.
        #[test]
        fn jobs_served_are_jobs_that_came_and_left(
            jobs in prop::collection::vec((0u64..100, 1u64..50), 0..30),
            restart in 0u64..150,
        ) {
            let (start, end) = (Ps(restart), Ps(200));
            let mut steps: Vec<(u64, bool)> = jobs
                .iter()
                .flat_map(|&(from, long)| [(from, true), (from + long, false)])
                .collect();
            steps.sort_unstable();
            let (mut stepped, mut whole) = (Usage::default(), Usage::default());
            let earlier = steps.partition_point(|s| s.0 < restart);
            let step = |usage: &mut Usage, steps: &[(u64, bool)]| {
                for &(at, comes) in steps {
                    if comes { usage.arrive(Ps(at)) } else { usage.leave(Ps(at)) }
                    usage.busy.add(Ps(at), if comes { 1 } else { -1 });
                }
            };
            step(&mut stepped, &steps[..earlier]);
            stepped.restart(start);
            step(&mut stepped, &steps[earlier..]);
            whole.restart(start);
            for &(from, long) in jobs.iter().filter(|j| j.0 + j.1 >= restart) {
                whole.served(Ps(from), Ps(from + long));
            }
            stepped.settle(end);
            whole.settle(end);
            let books = |u: &Usage| (u.arrivals, u.departures, u.busy.area(), u.sojourn(end));
            prop_assert_eq!(books(&whole), books(&stepped));
            prop_assert_eq!((whole.littles_residual(end), stepped.littles_residual(end)), (0, 0));
        }
    }
}
