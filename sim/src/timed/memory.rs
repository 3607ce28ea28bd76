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

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(spread_ns: f64, llc_hit_rate: f64, outstanding: u64) -> Memory {
        let config =
            MemoryTime { read_ns: 200.0, spread_ns, llc_hit_rate, llc_ns: 20.0, outstanding };
        Memory::new(&config, 4, 1)
    }

    #[test]
    fn fixed_reads_add_up() {
        assert_eq!(memory(0.0, 0.0, 0).read_all(24), Ps::from_ns(4800));
    }

    #[test]
    fn spread_and_cache_hits_have_the_means_that_they_should() {
        const N: u32 = 100_000;
        let mean = |mut m: Memory| m.read_all(N).0 as f64 / f64::from(N) / 1000.0;
        // Uniform in 100 to 300: variance 200^2 / 12; four standard errors.
        let error = 200.0 / 12f64.sqrt() / f64::from(N).sqrt();
        assert!((mean(memory(100.0, 0.0, 0)) - 200.0).abs() < 4.0 * error);
        // 20 with p = 0.25, else 200.
        let error = 180.0 * (0.25f64 * 0.75).sqrt() / f64::from(N).sqrt();
        assert!((mean(memory(0.0, 0.25, 0)) - 155.0).abs() < 4.0 * error);
    }

    #[test]
    fn a_limit_that_cannot_bind_is_none() {
        assert!(memory(0.0, 0.0, 4).limit.is_none(), "four walkers read one entry each");
        assert!(memory(0.0, 0.0, 3).limit.is_some());
    }
}
