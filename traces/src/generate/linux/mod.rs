//! The Linux DMA API as far as an IOMMU sees it: which IOVAs are handed out,
//! and which unmaps and invalidations follow.
//!
//! Facts from drivers/iommu/iova.c, dma-iommu.c and intel/iommu.c of Linux 6.0
//! and 6.12 (R); `docs/generating.md` lists them with their limits.

mod dma;
mod flush_queue;
mod frames;
mod iova;
#[cfg(test)]
mod model;
mod tree;

pub(super) use dma::{Dma, Out, Side};
pub use dma::{DmaOptions, Unmap};
pub(super) use frames::Frames;
pub use iova::{IovaDomain, Kernel};
