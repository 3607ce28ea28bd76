//! What a run can be watched with, at no cost when it is not.
//!
//! The world tells an [`Observer`] what happens. [`Unobserved`] has empty
//! functions and no size, so that a run without records is compiled as if this
//! module did not exist; [`Recorder`](super::record::Recorder) keeps records.
//!
//! Operations are named by their place in the window ([`Ops`](super::ops::Ops)),
//! which is theirs from [`Observer::pushed`] until they are done.

use super::ops::CpuOp;
use super::stats::{Class, Split};
use super::walkers::Walked;
use crate::events::Chunk;
use crate::time::Ps;

/// A request that is done.
pub(crate) struct DmaDone<'a> {
    /// Its place; [`NONE`](super::ops::NONE) if it never needed one (a hit that
    /// waits for nothing).
    pub at: u32,
    /// Device.
    pub device: u32,
    /// Payload.
    pub bytes: u32,
    /// Posted.
    pub write: bool,
    /// It asked for walks of its own.
    pub walks: bool,
    /// From here its latency counts.
    pub start: Ps,
    /// At the IOMMU (or in the device TLB), look-up done.
    pub looked_up: Ps,
    /// What became of it.
    pub class: Class,
    /// Where its time went.
    pub split: &'a Split,
    /// Look-up in the device TLB, part of `split.lookup`.
    pub device_lookup: Ps,
    /// PCIe and memory after the translation, part of `split.pcie`.
    pub after: Ps,
    /// When it was done.
    pub done: Ps,
    /// It counts in statistics.
    pub measured: bool,
}

/// An operation of a vCPU that is done.
pub(crate) struct OpDone<'a> {
    /// Its place.
    pub at: u32,
    /// Number of its vCPU.
    pub cpu: u32,
    /// The operation.
    pub op: &'a CpuOp,
    /// From here its latency counts.
    pub start: Ps,
    /// When it was done.
    pub done: Ps,
    /// It counts in statistics.
    pub measured: bool,
}

/// A walk that ends.
pub(crate) struct WalkDone {
    /// When a walker took it.
    pub started: Ps,
    /// Entries that it read.
    pub reads: u32,
    /// It counts in statistics.
    pub measured: bool,
}

/// A resource that a vCPU waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// The invalidation queue's lock (awake, if it slept).
    Lock,
    /// The VMM.
    Vmm,
}

/// Is told what happens, in the order in which the engine learns of it.
pub(crate) trait Observer: Send {
    /// Event `i` of the chunk is read from the trace; what is pushed from now
    /// on belongs to it.
    #[inline(always)]
    fn reads(&mut self, _chunk: &Chunk, _i: usize) {}
    /// An operation has the place `at`.
    #[inline(always)]
    fn pushed(&mut self, _at: u32) {}
    /// vCPUs are numbered in the order of these calls; `number` is the trace's,
    /// `None` for the VMM's own thread.
    #[inline(always)]
    fn new_cpu(&mut self, _number: Option<i32>) {}
    /// The warm-up is over.
    #[inline(always)]
    fn measures(&mut self, _now: Ps) {}
    /// A request is done; `done.done` may lie ahead of the engine's time.
    #[inline(always)]
    fn dma_done(&mut self, _done: &DmaDone<'_>) {}
    /// A walk ended. The requests that it served follow.
    #[inline(always)]
    fn walk_done(&mut self, _walk: &WalkDone, _now: Ps) {}
    /// The walk that ended last served a request.
    #[inline(always)]
    fn walk_served(&mut self, _served: &Walked, _now: Ps) {}
    /// The operation at `at` has what it waited for.
    #[inline(always)]
    fn cpu_got(&mut self, _at: u32, _what: Got, _now: Ps) {}
    /// An operation of a vCPU is done.
    #[inline(always)]
    fn op_done(&mut self, _done: &OpDone<'_>) {}
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unobserved;

impl Observer for Unobserved {}
