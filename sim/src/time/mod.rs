//! The discrete-event engine: time, the event queue, stations.
//!
//! Nothing here knows what an IOMMU is. Time is counted in integer
//! picoseconds, so that sums are exact and runs are reproducible; equal times
//! happen in the order in which they were scheduled.

mod histogram;
mod queue;
mod random;
mod station;
mod usage;

pub use histogram::{LONGEST_NS, Latencies, empty_latencies};
pub use queue::{EventId, EventQueue, LANES};
pub use random::Uniform;
pub use station::{Admission, Station};
pub use usage::{Integral, Usage};

/// A point or length of simulated time in picoseconds.
///
/// 64 bits hold 213 days; additions saturate, so that a time beyond them is
/// "never" and no run wraps around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Ps(pub u64);

impl Ps {
    /// The start of the run; a length of nothing.
    pub const ZERO: Ps = Ps(0);
    /// Later than everything.
    pub const NEVER: Ps = Ps(u64::MAX);

    /// From nanoseconds.
    #[inline]
    pub const fn from_ns(ns: u64) -> Ps {
        Ps(ns.saturating_mul(1000))
    }

    /// From nanoseconds with a fraction, as constants are written; rounded to
    /// picoseconds. Negative values and NaN give zero.
    pub fn from_ns_f64(ns: f64) -> Ps {
        Ps((ns * 1000.0).round() as u64)
    }

    /// In nanoseconds, rounded down.
    #[inline]
    pub const fn ns(self) -> u64 {
        self.0 / 1000
    }

    /// In seconds.
    pub fn seconds(self) -> f64 {
        self.0 as f64 * 1e-12
    }

    /// Time from `earlier` to this; zero if it is not earlier.
    #[inline]
    pub const fn since(self, earlier: Ps) -> Ps {
        Ps(self.0.saturating_sub(earlier.0))
    }

    /// `n` times this length.
    #[inline]
    pub const fn times(self, n: u64) -> Ps {
        Ps(self.0.saturating_mul(n))
    }
}

impl std::ops::Add for Ps {
    type Output = Ps;

    #[inline]
    fn add(self, other: Ps) -> Ps {
        Ps(self.0.saturating_add(other.0))
    }
}

impl std::ops::AddAssign for Ps {
    #[inline]
    fn add_assign(&mut self, other: Ps) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Ps {
    fn sum<I: Iterator<Item = Ps>>(iter: I) -> Ps {
        iter.fold(Ps::ZERO, |a, b| a + b)
    }
}
