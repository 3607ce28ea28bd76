//! Coherent memory that a device reads and writes in a circle.

use ioasim_events::Flags;

use crate::generate::linux::{Dma, Frames, Out};

/// A queue in coherent memory: mapped once, in pages of its own (mlx5 allocates
/// its queues page by page, R: `mlx5_frag_buf_alloc_node`).
#[derive(Clone, Debug)]
pub(super) struct Ring {
    /// IOVA and GPA of each page.
    pages: Vec<(u64, u64)>,
    /// Bytes of an entry; a page holds a whole number of them.
    entry: u64,
    at: u64,
}

impl Ring {
    /// A ring of `entries`, allocated on `cpu` before the trace begins.
    pub fn new(dma: &mut Dma, frames: &mut Frames, cpu: usize, entries: u64, entry: u64) -> Ring {
        let pages = (entries * entry).div_ceil(4096).max(1);
        let pages = (0..pages).map(|_| (dma.iova(cpu, 4096), frames.take())).collect();
        Ring { pages, entry, at: 0 }
    }

    /// The maps of all its pages.
    pub fn map(&self, dma: &Dma, out: &mut Out, now: u64, cpu: usize) {
        for &(iova, gpa) in &self.pages {
            dma.map_at(out, now, cpu, iova, gpa, 4096);
            dma.sync_map(out, now, cpu, iova, 4096);
        }
    }

    /// The device reads or writes the next entry.
    #[inline]
    pub fn access(&mut self, dma: &Dma, out: &mut Out, now: u64, right: Flags) {
        let byte = self.at;
        self.at += self.entry;
        if self.at >= (self.pages.len() as u64) << 12 {
            self.at = 0;
        }
        let (iova, gpa) = self.pages[(byte >> 12) as usize];
        let offset = byte & 0xfff;
        out.events.push(dma.side.dma(now, right, iova + offset, self.entry, gpa + offset));
    }

    /// IOVA and GPA of its pages.
    pub fn pages(&self) -> &[(u64, u64)] {
        &self.pages
    }
}
