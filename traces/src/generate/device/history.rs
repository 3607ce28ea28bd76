//! What happened to a NIC's receive rings before the trace begins.
//!
//! Which IOVAs a ring uses is decided by its past: the rings of all channels
//! are filled at the same time, so their pages lie interleaved, and a change of
//! MTU or ring size moves them. How far old rings are gone when new ones fill is
//! a parameter; `docs/generating.md` tells what is known about it.

use rand_pcg::Pcg64;

use super::chance;
use super::ring::Ring;
use crate::generate::linux::{Dma, Frames};

/// Pages of a receive descriptor (R: `MLX5_MPWRQ_PAGES_PER_WQE`, 256 KiB).
pub(super) const DESCRIPTOR_PAGES: u64 = 64;
/// Bytes of a stride (R: Linux 6.0 `MLX5_MPWRQ_DEF_LOG_STRIDE_SZ`, the log2 of
/// `MLX5E_RX_MAX_HEAD` = 256).
const STRIDE: u64 = 256;
/// Bytes of a completion (R: `struct mlx5_cqe64`).
pub(super) const COMPLETION: u64 = 64;
/// Descriptors that a ring has at least (R: `MLX5E_PARAMS_MINIMUM_LOG_RQ_SIZE_MPW` = 2).
const LEAST_DESCRIPTORS: u64 = 4;
/// Entries of a send queue (R: `MLX5E_PARAMS_DEFAULT_LOG_SQ_SIZE` = 10), 64
/// bytes each.
const SEND_ENTRIES: u64 = 1024;
/// Entries of the queue of commands (A).
const POST_ENTRIES: u64 = 256;
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
    /// Flows of a run in this setting before the next one comes; 0 = none. What
    /// the trace's own run has stands in
    /// [`NicOptions::flows`](super::NicOptions::flows).
    pub flows: usize,
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
#[derive(Debug, Default)]
pub(super) struct Rings {
    /// IOVAs of each channel's receive pages, in the order of the ring; those
    /// in use by a receiving core are with that core.
    pub pages: Vec<Vec<u64>>,
    /// Each channel's queues.
    pub queues: Vec<Queues>,
}

/// The queues of a channel, in coherent memory.
#[derive(Debug)]
pub(super) struct Queues {
    /// Completions of received packets.
    pub completions: Ring,
    /// What is to be sent.
    pub sends: Ring,
    /// Completions of what was sent.
    pub send_completions: Ring,
    /// Commands that post descriptors.
    pub posts: Ring,
}

impl Queues {
    fn new(dma: &mut Dma, frames: &mut Frames, cpu: usize, setting: RingSetting) -> Queues {
        let mut ring = |entries| Ring::new(dma, frames, cpu, entries, COMPLETION);
        Queues {
            completions: ring(setting.completions()),
            sends: ring(SEND_ENTRIES),
            send_completions: ring(SEND_ENTRIES),
            posts: ring(POST_ENTRIES),
        }
    }

    fn all(&self) -> [&Ring; 4] {
        [&self.completions, &self.sends, &self.send_completions, &self.posts]
    }
}

/// Opens a NIC with a setting, or changes it to one: makes queues, fills the
/// rings of all `channels` on their CPUs and gives `old` ones back, `close_rate`
/// pages while each CPU takes one. The last channel's CPU runs the
/// administrator's command (A).
pub(super) fn change(
    dma: &mut Dma,
    frames: &mut Frames,
    rng: &mut Pcg64,
    channels: usize,
    setting: RingSetting,
    old: Rings,
    close_rate: Option<f64>,
) -> Rings {
    let admin = channels - 1;
    let queues = (0..channels).map(|_| Queues::new(dma, frames, admin, setting)).collect();
    let closed = old.queues.iter().flat_map(Queues::all).flat_map(Ring::pages);
    closed.for_each(|&(_, gpa)| frames.give(gpa));
    let give_back = |dma: &mut Dma, iova: u64| dma.allocator().free(admin, iova >> 12, 1);
    let mut closing = close(old).into_iter();
    if close_rate.is_none() {
        closing.by_ref().for_each(|iova| give_back(dma, iova));
    }
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
        due += close_rate.unwrap_or_default();
        while due >= 1.0 {
            due -= 1.0;
            closing.next().into_iter().for_each(|iova| give_back(dma, iova));
        }
    }
    closing.for_each(|iova| give_back(dma, iova));
    Rings { pages, queues }
}

/// Everything of old rings, in the order in which it is given back: channel by
/// channel, a ring's pages before its queues (R: `mlx5e_close_queues`).
fn close(rings: Rings) -> Vec<u64> {
    let mut all = Vec::new();
    for (pages, queues) in rings.pages.into_iter().zip(&rings.queues) {
        all.extend(pages);
        all.extend(queues.all().into_iter().flat_map(Ring::pages).map(|p| p.0));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_have_the_sizes_of_mlx5() {
        let at = |mtu, packets| RingSetting { mtu, packets, flows: 0 };
        // Standard MTU: 128 packets of 2 KiB to a descriptor.
        assert_eq!((at(1500, 1024).descriptors(), at(1500, 1024).completions()), (8, 1024));
        // 4,000 bytes: pages for twice the packets (Fast & Safe, footnote 2).
        assert_eq!(at(4000, 256).descriptors() * DESCRIPTOR_PAGES, 512);
        assert_eq!(at(4000, 2048).descriptors() * DESCRIPTOR_PAGES, 4096);
        assert_eq!(at(4000, 256).completions(), 8192);
        // A packet of 4,014 bytes takes 16 strides: a page.
        assert_eq!((at(4000, 256).slot(), at(1500, 1024).slot()), (4096, 2048));
        assert_eq!(at(1500, 64).descriptors(), 4);
    }
}
