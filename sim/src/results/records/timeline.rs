//! What happened in a window.

use crate::events::{DomainId, Pasid, Requester};
use crate::time::Ps;

/// Which operations a timeline shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// What overlaps `[from, to)`.
    Time {
        /// Simulated time.
        from: Ps,
        /// Simulated time.
        to: Ps,
    },
    /// What the trace's events `[from, to)` caused.
    Events {
        /// Event number.
        from: u64,
        /// Event number.
        to: u64,
    },
}

impl Window {
    /// True if an operation is in it.
    #[inline]
    pub fn holds(&self, event: u64, start: Ps, end: Ps) -> bool {
        match *self {
            Window::Time { from, to } => start < to && end >= from,
            Window::Events { from, to } => (from..to).contains(&event),
        }
    }
}

/// The event of the trace that caused an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Its number.
    pub event: u64,
    /// First address (IOVA; GPA for changes of the parent).
    pub addr: u64,
    /// Bytes, as recorded (0 = unknown).
    pub size: u64,
    /// Domain.
    pub domain: DomainId,
    /// Requester.
    pub requester: Requester,
    /// PASID.
    pub pasid: Pasid,
}

/// A walk that a request waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// The walk's number.
    pub walk: u64,
    /// When the request came to the walkers.
    pub came: Ps,
    /// When the walk started, or `came` if it had started before.
    pub started: Ps,
    /// When it ended.
    pub ended: Ps,
}

/// A part of a request's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DmaStage {
    /// Waits for a slot or the link, and its time on the link.
    Queue,
    /// Look-up in the device TLB.
    DeviceLookup,
    /// On its way to the IOMMU (PCIe, or an ATS request).
    ToIommu,
    /// Look-up in the IOTLB.
    Lookup,
    /// Waits for a walker.
    WalkQueue,
    /// Its page-table walk.
    Walk,
    /// Its page is being fetched.
    PageRequest,
    /// PCIe and memory.
    Transfer,
}

/// A request of a device.
#[derive(Clone, Copy, Debug)]
pub struct DmaSpan {
    /// The access.
    pub cause: Cause,
    /// Index of the device in [`Timeline::devices`].
    pub device: u32,
    /// As in `classes` of a result: `hit`, `miss`, ...
    pub class: &'static str,
    /// IOTLB or device TLB had the translation.
    pub hit: bool,
    /// Payload.
    pub bytes: u32,
    /// Posted write.
    pub write: bool,
    /// From here its latency counts.
    pub start: Ps,
    /// Its last byte is on the link.
    pub sent: Ps,
    /// The device TLB was looked up.
    pub device_looked_up: Ps,
    /// At the IOMMU.
    pub arrived: Ps,
    /// The IOTLB was looked up.
    pub looked_up: Ps,
    /// Walks that it waited for.
    pub served: [Option<Served>; 2],
    /// It has its translation, or knows that there is none.
    pub translated: Ps,
    /// Done.
    pub done: Ps,
}

impl DmaSpan {
    /// Its parts, one after the other from `start` to `done`; those of no
    /// length are left out.
    pub fn stages(&self, mut f: impl FnMut(DmaStage, Ps, Ps)) {
        let mut at = self.start;
        let mut until = |stage, end: Ps| {
            if end > at {
                f(stage, at, end);
                at = end;
            }
        };
        until(DmaStage::Queue, self.sent);
        until(DmaStage::DeviceLookup, self.device_looked_up);
        until(DmaStage::ToIommu, self.arrived);
        until(DmaStage::Lookup, self.looked_up);
        for s in self.served.iter().flatten() {
            until(DmaStage::PageRequest, s.came);
            until(DmaStage::WalkQueue, s.started);
            until(DmaStage::Walk, s.ended);
        }
        until(DmaStage::PageRequest, self.translated);
        until(DmaStage::Transfer, self.done);
    }
}

/// A page-table walk.
#[derive(Clone, Copy, Debug)]
pub struct WalkSpan {
    /// Its number, in order of ends.
    pub number: u64,
    /// The request that asked for it.
    pub cause: Cause,
    /// Entries read.
    pub reads: u32,
    /// Start.
    pub started: Ps,
    /// End.
    pub ended: Ps,
}

/// What a vCPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// A map call.
    Map,
    /// An unmap call.
    Unmap,
    /// An invalidation after an unmap.
    Invalidation,
    /// An invalidation after a map (caching mode).
    MapInvalidation,
    /// The VMM changes the parent.
    ParentChange,
}

/// A part of the time of a vCPU's operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpStage {
    /// Nobody else is needed.
    Own,
    /// Waits for the invalidation queue's lock.
    LockQueue,
    /// Writes descriptors, lock held.
    Enqueue,
    /// Exit to the VMM and back.
    Trap,
    /// Waits for the VMM's lock.
    VmmQueue,
    /// The VMM's work.
    Vmm,
    /// Hardware's completion.
    Hardware,
}

/// An operation of a vCPU, or of the VMM's own thread.
#[derive(Clone, Debug)]
pub struct OpSpan {
    /// The event.
    pub cause: Cause,
    /// Index of the vCPU in [`Timeline::cpus`].
    pub cpu: u32,
    /// What it does.
    pub kind: OpKind,
    /// Start, other work of the vCPU left out.
    pub start: Ps,
    /// Its own part ends.
    pub prepared: Ps,
    /// Has the queue's lock; `None` if it needs none. It holds it until `done`.
    pub locked: Option<Ps>,
    /// Descriptors are written.
    pub enqueued: Ps,
    /// In the VMM.
    pub trapped: Ps,
    /// The VMM's work: start and end.
    pub vmm: Option<(Ps, Ps)>,
    /// Done.
    pub done: Ps,
    /// Events of the unmaps that this invalidation completes.
    pub unmaps: Vec<u64>,
}

impl OpSpan {
    /// Its parts, one after the other from `start` to `done`; those of no
    /// length are left out.
    pub fn stages(&self, mut f: impl FnMut(OpStage, Ps, Ps)) {
        let mut at = self.start;
        let mut until = |stage, end: Ps| {
            if end > at {
                f(stage, at, end);
                at = end;
            }
        };
        until(OpStage::Own, self.prepared);
        if let Some(locked) = self.locked {
            until(OpStage::LockQueue, locked);
        }
        until(OpStage::Enqueue, self.enqueued);
        until(OpStage::Trap, self.trapped);
        if let Some((start, end)) = self.vmm {
            until(OpStage::VmmQueue, start);
            until(OpStage::Vmm, end);
        }
        until(OpStage::Hardware, self.done);
    }
}

/// Operations in a window, in the order in which they ended. Those that
/// overlap a window of time are there as a whole.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// What was asked for.
    pub window: Window,
    /// Requester ids; [`Requester::NONE`] = one device that stands for all.
    pub devices: Vec<Requester>,
    /// The trace's numbers of vCPUs; `None` = the VMM's own thread.
    pub cpus: Vec<Option<i32>>,
    /// Requests.
    pub dmas: Vec<DmaSpan>,
    /// Walks.
    pub walks: Vec<WalkSpan>,
    /// Operations of vCPUs.
    pub ops: Vec<OpSpan>,
    /// Spans that did not fit ([`Timeline::MOST_SPANS`]).
    pub left_out: u64,
}

impl Timeline {
    /// Most spans kept.
    pub const MOST_SPANS: usize = 200_000;

    /// Number of spans.
    pub fn spans(&self) -> usize {
        self.dmas.len() + self.walks.len() + self.ops.len()
    }

    /// First start and last end; `None` if it is empty.
    pub fn extent(&self) -> Option<(Ps, Ps)> {
        let dmas = self.dmas.iter().map(|d| (d.start, d.done));
        let walks = self.walks.iter().map(|w| (w.started, w.ended));
        let ops = self.ops.iter().map(|o| (o.start, o.done));
        dmas.chain(walks).chain(ops).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }
}
