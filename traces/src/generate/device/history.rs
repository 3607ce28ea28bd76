//! What happened to a NIC's receive rings before the trace begins.
//!
//! Which IOVAs a ring uses is decided by its past: the rings of all channels
//! are filled at the same time, so their pages lie interleaved, and each change
//! of MTU or ring size fills new rings before it gives the old ones back
//! (R: `mlx5e_safe_switch_params`), so that the space grows beyond what is in
//! use at any one time.

use rand_pcg::Pcg64;

use super::chance;
use super::ring::Ring;
use crate::generate::linux::{Dma, Frames};

/// Pages of a receive descriptor (R: `MLX5_MPWRQ_PAGES_PER_WQE`, 256 KiB).
pub(super) const DESCRIPTOR_PAGES: u64 = 64;
/// Bytes of a stride (R: `MLX5_MPWRQ_MIN_LOG_STRIDE_SZ` = 6).
const STRIDE: u64 = 64;
/// Bytes of a completion (R: `struct mlx5_cqe64`).
pub(super) const COMPLETION: u64 = 64;
/// Descriptors that a ring has at least (R: `MLX5E_PARAMS_MINIMUM_LOG_RQ_SIZE_MPW` = 2).
const LEAST_DESCRIPTORS: u64 = 4;
/// Bytes before and behind a packet's data in a page if it is not copied:
/// headroom and `skb_shared_info` (R, x86-64: `NET_SKB_PAD` 64, and 320).
const AROUND: u64 = 384;

/// MTU and ring size (`ethtool -G rx`) of a NIC at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSetting {
    /// Bytes of a packet without its Ethernet header.
    pub mtu: u64,
    /// Packets of a channel's ring.
    pub packets: u64,
}

impl RingSetting {
    /// Descriptors of a channel's ring: the driver counts a packet with the
    /// power of two that holds it and all around it (R:
    /// `mlx5e_mpwqe_get_log_rq_size`), which is why a ring for 4,000-byte
    /// packets has pages for twice as many.
    pub fn descriptors(self) -> u64 {
        let packet = (self.mtu + 22 + AROUND).next_power_of_two();
        (self.packets * packet / (DESCRIPTOR_PAGES << 12)).max(LEAST_DESCRIPTORS)
    }

    /// Bytes that a packet takes in a descriptor: a power of two if it fits a
    /// page, else whole strides.
    pub fn slot(self) -> u64 {
        let packet = (self.mtu + 22 + AROUND).next_power_of_two();
        if packet <= 4096 { packet } else { (self.mtu + 14).next_multiple_of(STRIDE) }
    }

    /// Completions that a channel's queue has room for: one per stride; a
    /// stride holds a packet if that fits a page (R:
    /// `mlx5e_mpwqe_get_log_stride_size`).
    pub fn completions(self) -> u64 {
        let packet = (self.mtu + 22 + AROUND).next_power_of_two();
        let stride = if packet <= 4096 { packet } else { STRIDE };
        self.descriptors() * (DESCRIPTOR_PAGES << 12) / stride
    }
}

/// Rings of all channels.
#[derive(Debug)]
pub(super) struct Rings {
    /// For each channel its pages' IOVAs, in the order of the ring.
    pub pages: Vec<Vec<u64>>,
    /// For each channel its completion queue.
    pub completions: Vec<Ring>,
}

/// Opens a NIC with the first setting and changes it to each further one.
/// `channels` CPUs fill their own rings; CPU 0 runs the administrator's command,
/// which closes the old rings while the new ones fill, `close_rate` pages while
/// each other CPU takes one.
pub(super) fn open(
    dma: &mut Dma,
    frames: &mut Frames,
    rng: &mut Pcg64,
    channels: usize,
    settings: &[RingSetting],
    close_rate: f64,
) -> Rings {
    let mut now: Option<Rings> = None;
    for &setting in settings {
        let completions = (0..channels)
            .map(|_| Ring::new(dma, frames, 0, setting.completions(), COMPLETION))
            .collect();
        let mut closing = now.take().map(close).unwrap_or_default().into_iter();
        let mut pages = vec![Vec::new(); channels];
        let full = (setting.descriptors() * DESCRIPTOR_PAGES) as usize;
        let mut due = 0.0;
        while pages.iter().any(|p| p.len() < full) {
            for (cpu, pages) in pages.iter_mut().enumerate() {
                // CPUs are not in step (A).
                if pages.len() < full && chance(rng, 0.8) {
                    pages.push(dma.iova(cpu, 4096));
                }
            }
            due += close_rate;
            while due >= 1.0 {
                due -= 1.0;
                closing.next().into_iter().for_each(|i| dma.allocator().free(0, i >> 12, 1));
            }
        }
        closing.for_each(|iova| dma.allocator().free(0, iova >> 12, 1));
        now = Some(Rings { pages, completions });
    }
    now.expect("a NIC has at least one setting")
}

/// Everything of old rings, in the order in which it is given back.
fn close(rings: Rings) -> Vec<u64> {
    let pages = rings.pages.into_iter().flatten();
    pages.chain(rings.completions.iter().flat_map(Ring::iovas)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_have_the_sizes_of_mlx5() {
        let at = |mtu, packets| RingSetting { mtu, packets };
        // Standard MTU: 128 packets of 2 KiB to a descriptor.
        assert_eq!((at(1500, 1024).descriptors(), at(1500, 1024).completions()), (8, 1024));
        // 4,000 bytes: pages for twice the packets (Fast & Safe, footnote 2).
        assert_eq!(at(4000, 256).descriptors() * DESCRIPTOR_PAGES, 512);
        assert_eq!(at(4000, 2048).descriptors() * DESCRIPTOR_PAGES, 4096);
        assert_eq!(at(4000, 256).completions(), 32_768);
        assert_eq!(at(1500, 64).descriptors(), 4);
    }
}
