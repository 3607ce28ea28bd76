//! Seeded random numbers for distributions of latencies.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

/// A stream of random numbers; the same seed gives the same stream on every
/// machine. Results are derived by integer arithmetic only.
#[derive(Clone, Debug)]
pub struct Uniform(Pcg64);

impl Uniform {
    /// The stream of a seed. `stream` tells users of the same seed apart.
    pub fn new(seed: u64, stream: u64) -> Uniform {
        Uniform(Pcg64::seed_from_u64(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Uniform over all of 64 bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// True in `ppm` of a million draws.
    #[inline]
    pub fn chance_ppm(&mut self, ppm: u32) -> bool {
        // The high half of a 128-bit product is uniform in 0..1e6.
        ((self.bits() as u128 * 1_000_000) >> 64) < ppm as u128
    }

    /// Uniform in `0..=most`.
    #[inline]
    pub fn up_to(&mut self, most: u64) -> u64 {
        ((self.bits() as u128 * (most as u128 + 1)) >> 64) as u64
    }

    /// Exponentially distributed with this mean: gaps of a Poisson stream.
    /// Not for replays (it uses the platform's logarithm), but for tests and
    /// synthetic load.
    pub fn exponential(&mut self, mean: super::Ps) -> super::Ps {
        // (0, 1]: never the logarithm of 0.
        let u = ((self.bits() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        super::Ps((-u.ln() * mean.0 as f64).round() as u64)
    }
}
