//! Guest memory that drivers take pages from.

/// First byte of guest memory that is handed out: above the hole below 4 GiB
/// in which PCI devices lie.
const FIRST: u64 = 1 << 32;

/// Page frames: what was given back last is taken first, as the kernel's
/// per-CPU page lists do (R: mm/page_alloc.c); frames never used before are
/// scattered over guest memory (A).
#[derive(Clone, Debug)]
pub(crate) struct Frames {
    free: Vec<u32>,
    used: u64,
    /// log2 of the number of frames.
    bits: u32,
}

impl Frames {
    /// Frames of a guest with `2^bits` pages of 4 KiB.
    pub fn new(bits: u32) -> Frames {
        Frames { free: Vec::new(), used: 0, bits }
    }

    /// Takes one frame; its address. A guest that has none left uses frames
    /// twice, which no translation cache can tell.
    #[inline]
    pub fn take(&mut self) -> u64 {
        let frame = self.free.pop().map_or_else(
            || {
                self.used += 1;
                // An odd factor permutes the numbers below a power of two.
                self.used.wrapping_mul(0x9e37_79b1) & ((1 << self.bits) - 1)
            },
            u64::from,
        );
        FIRST + (frame << 12)
    }

    /// Gives a frame back.
    #[inline]
    pub fn give(&mut self, address: u64) {
        self.free.push(((address - FIRST) >> 12) as u32);
    }

    /// Memory of `bytes` in one piece, aligned to its size; never given back.
    pub fn huge(&self, number: u64, bytes: u64) -> u64 {
        let size = bytes.next_power_of_two();
        let places = ((1u64 << (self.bits + 12)) / size).max(1);
        // Odd again, so that neighbours in IOVA are not neighbours in memory.
        FIRST.next_multiple_of(size) + (number.wrapping_mul(0x9e37_79b1) % places) * size
    }
}
