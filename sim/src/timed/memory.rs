//! Memory, as the page walker sees it.

use super::walkers::WalkId;
use crate::config::MemoryTime;
use crate::time::{Ps, Station, Uniform};

/// A memory with a latency and, if limited, a number of reads at one time.
pub struct Memory {
    read: Ps,
    spread: Ps,
    llc: Ps,
    llc_ppm: u32,
    random: Uniform,
    /// Present if the limit can bind.
    pub limit: Option<Station<WalkId>>,
    /// Reads so far.
    pub reads: u64,
}

impl Memory {
    /// `walkers` (0 = no limit) read one entry at a time each, so a limit of as
    /// many reads or more never binds.
    pub fn new(config: &MemoryTime, walkers: u64, seed: u64) -> Memory {
        let limit = config.outstanding;
        let binds = limit > 0 && (walkers == 0 || limit < walkers);
        Memory {
            read: Ps::from_ns_f64(config.read_ns),
            spread: Ps::from_ns_f64(config.spread_ns),
            llc: Ps::from_ns_f64(config.llc_ns),
            llc_ppm: (config.llc_hit_rate * 1e6).round() as u32,
            random: Uniform::new(seed, 1),
            limit: binds.then(|| Station::new(limit, None)),
            reads: 0,
        }
    }

    /// Latency of the next read.
    #[inline]
    pub fn read(&mut self) -> Ps {
        self.reads += 1;
        if self.llc_ppm > 0 && self.random.chance_ppm(self.llc_ppm) {
            return self.llc;
        }
        if self.spread == Ps::ZERO {
            return self.read;
        }
        let least = self.read.since(self.spread);
        least + Ps(self.random.up_to(2 * self.spread.0))
    }

    /// Latency of `n` reads, one after the other.
    pub fn read_all(&mut self, n: u32) -> Ps {
        if self.llc_ppm == 0 && self.spread == Ps::ZERO {
            self.reads += u64::from(n);
            return self.read.times(u64::from(n));
        }
        (0..n).map(|_| self.read()).sum()
    }
}
