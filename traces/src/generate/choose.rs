//! Which unit of guest memory is changed next.

use rand::Rng;
use rand::distr::Distribution as _;
use rand_distr::Zipf;
use rand_pcg::Pcg64;

use super::options::Distribution;

/// A number below `n`, each alike to one part in 2^64 / n; independent of the
/// random library's version.
#[inline]
pub(crate) fn below(rng: &mut Pcg64, n: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(n)) >> 64) as u64
}

/// Draws units.
#[derive(Debug)]
pub(super) struct Chooser {
    unit: u64,
    /// First unit and number of units before it, of each region.
    regions: Vec<(u64, u64)>,
    units: u64,
    how: How,
}

#[derive(Debug)]
enum How {
    Hot(Vec<u64>),
    Uniform,
    Zipf {
        ranks: Zipf<f64>,
        factor: u64,
    },
    /// Units still to come in this round.
    Sequential(u64),
}

impl Chooser {
    /// `hot`: pages that DMA uses. Units are aligned and lie inside regions.
    pub fn new(
        distribution: Distribution,
        exponent: f64,
        unit: u64,
        regions: &[(u64, u64)],
        hot: Vec<u64>,
    ) -> Chooser {
        let mut units = 0;
        let mut starts = Vec::new();
        for (start, end) in regions {
            let first = start.next_multiple_of(unit);
            let n = end.saturating_sub(first) / unit;
            if n > 0 {
                starts.push((first, units));
                units += n;
            }
        }
        let how = match distribution {
            Distribution::Hot => How::Hot(hot),
            Distribution::Uniform => How::Uniform,
            Distribution::Zipf => match Zipf::new(units.max(1) as f64, exponent) {
                Ok(ranks) => How::Zipf { ranks, factor: scatter(units) },
                // Options::check has let only legal exponents pass.
                Err(_) => How::Uniform,
            },
            Distribution::Sequential => How::Sequential(units),
        };
        Chooser { unit, regions: starts, units, how }
    }

    /// The next candidate's first byte; `None` if there is no unit at all.
    pub fn pick(&mut self, rng: &mut Pcg64) -> Option<u64> {
        if self.units == 0 {
            return None;
        }
        let number = match &mut self.how {
            How::Hot(pages) if pages.is_empty() => return None,
            How::Hot(pages) => {
                return Some(pages[below(rng, pages.len() as u64) as usize] & !(self.unit - 1));
            }
            How::Uniform => below(rng, self.units),
            How::Zipf { ranks, factor } => {
                let rank = (ranks.sample(rng) as u64).clamp(1, self.units) - 1;
                ((u128::from(rank) * u128::from(*factor)) % u128::from(self.units)) as u64
            }
            How::Sequential(left) => {
                if *left == 0 {
                    *left = self.units;
                }
                *left -= 1;
                *left
            }
        };
        let at = self.regions.partition_point(|(_, before)| *before <= number) - 1;
        let (first, before) = self.regions[at];
        Some(first + (number - before) * self.unit)
    }

    /// Candidates that may be refused before an operation gives up: all of
    /// them in sequence, within reason, or enough draws to find one in 50.
    pub fn tries(&self) -> u64 {
        match self.how {
            How::Sequential(_) => self.units.min(4096),
            _ => 256,
        }
    }
}

/// A factor near the golden ratio of `n` and coprime to it, so that
/// neighbouring ranks are not neighbours in memory.
fn scatter(n: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let start = (n as f64 * 0.618_033_988) as u64;
    (start.max(1)..).find(|f| gcd(*f, n.max(1)) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn every_distribution_stays_in_the_regions() {
        let regions = [(0x1000, 0x40_1000), (0x80_0000, 0x100_0000)];
        for how in [Distribution::Uniform, Distribution::Zipf, Distribution::Sequential] {
            let mut rng = Pcg64::seed_from_u64(7);
            let mut chooser = Chooser::new(how, 1.0, 0x20_0000, &regions, Vec::new());
            let picked: Vec<u64> = (0..200).map(|_| chooser.pick(&mut rng).unwrap()).collect();
            for at in &picked {
                assert_eq!(at % 0x20_0000, 0);
                assert!(regions.iter().any(|(s, e)| s <= at && at + 0x20_0000 <= *e), "{at:#x}");
            }
            let mut different = picked.clone();
            different.sort_unstable();
            different.dedup();
            // 0x20_0000 alone in the first, four in the second.
            assert_eq!(different.len(), 5, "{how:?}");
        }
    }

    #[test]
    fn sequential_goes_down_and_round() {
        let mut rng = Pcg64::seed_from_u64(1);
        let mut c = Chooser::new(Distribution::Sequential, 1.0, 4096, &[(0, 0x3000)], vec![]);
        let picked: Vec<u64> = (0..4).map(|_| c.pick(&mut rng).unwrap()).collect();
        assert_eq!(picked, [0x2000, 0x1000, 0, 0x2000]);
    }

    #[test]
    fn no_memory_gives_no_candidate() {
        let mut rng = Pcg64::seed_from_u64(1);
        for how in [Distribution::Uniform, Distribution::Hot, Distribution::Zipf] {
            assert_eq!(Chooser::new(how, 1.0, 1 << 30, &[(0, 4096)], vec![]).pick(&mut rng), None);
        }
    }
}
