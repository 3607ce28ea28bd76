//! The Zipf(1.0) trace of `benches/libcachesim_counts.py`, bit by bit.
//!
//! Integers only: SplitMix64 and an inverse-CDF table of `floor(2^40 / rank)`.

/// Pages of the trace.
pub const PAGES: u64 = 1_000_000;
/// Seed of the recorded counts.
pub const SEED: u64 = 0x10a51;
/// Weight of rank k is `WEIGHT / k`.
const WEIGHT: u64 = 1 << 40;
/// Coprime to `PAGES`: neighbours in rank are not neighbours in memory.
const SCATTER: u64 = 618_033;
/// Bits of a draw that the guide table does not look at.
const GUIDE_SHIFT: u32 = 28;

/// An endless stream of page numbers below [`PAGES`].
pub struct Zipf {
    /// Sums of the weights of ranks 1 to k.
    sums: Vec<u64>,
    /// For each value of a draw's high bits, the first rank it can mean.
    guide: Vec<u32>,
    state: u64,
}

impl Zipf {
    pub fn new(seed: u64) -> Zipf {
        let mut sum = 0;
        let sums: Vec<u64> = (1..=PAGES)
            .map(|rank| {
                sum += WEIGHT / rank;
                sum
            })
            .collect();
        let guide = (0..=(sum >> GUIDE_SHIFT) + 1)
            .map(|high| sums.partition_point(|s| *s <= high << GUIDE_SHIFT) as u32)
            .collect();
        Zipf { sums, guide, state: seed }
    }
}

impl Iterator for Zipf {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = self.state;
        let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let draw = (x ^ x >> 31) % self.sums[PAGES as usize - 1];
        let high = (draw >> GUIDE_SHIFT) as usize;
        let (from, to) = (self.guide[high] as usize, self.guide[high + 1] as usize);
        let rank = from + self.sums[from..to.max(from)].partition_point(|s| *s <= draw);
        Some(rank as u64 * SCATTER % PAGES)
    }
}
