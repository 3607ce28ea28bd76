//! Maps and unmaps of one device's domain, as events.

use ioasim_events::{DomainId, Event, Flags, Kind, Pasid, Requester, Scope};

use super::flush_queue::FlushQueue;
use super::iova::{IovaDomain, Kernel};

/// When an unmap is followed by its invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmap {
    /// At once, page-selective (`iommu.strict=1`).
    Strict,
    /// By a flush queue: entries of a ring, its timeout in ns, and whether
    /// every CPU has one.
    Lazy {
        /// Entries of a ring (R: `IOVA_DEFAULT_FQ_SIZE` = 256,
        /// `IOVA_SINGLE_FQ_SIZE` = 32,768).
        entries: usize,
        /// Time after which the queue is flushed (R: 10 ms, 1 s for single).
        timeout_ns: u64,
        /// One ring for all CPUs (R: `IOMMU_DMA_OPTS_SINGLE_QUEUE`).
        single: bool,
    },
}

/// How a guest's kernel maps for DMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaOptions {
    /// Whose IOVA caches.
    pub kernel: Kernel,
    /// CPUs of the guest.
    pub cpus: usize,
    /// Strict or lazy.
    pub unmap: Unmap,
    /// Maps are announced, too (VT-d CM=1).
    pub caching_mode: bool,
    /// Address bits of the device.
    pub bits: u32,
}

/// Events of one step, in order, with times.
#[derive(Debug, Default)]
pub(crate) struct Out {
    /// The events.
    pub events: Vec<Event>,
}

/// Who a device's events are from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    /// Its domain.
    pub domain: DomainId,
    /// Its requester id.
    pub requester: Requester,
    /// Its PASID.
    pub pasid: Pasid,
}

impl Side {
    /// An event of this device.
    #[inline]
    pub fn event(self, kind: Kind, time_ns: u64) -> Event {
        Event { time_ns, domain: self.domain, pasid: self.pasid, ..Event::new(kind) }
    }

    /// An access that the device makes.
    #[inline]
    pub fn dma(self, time_ns: u64, right: Flags, addr: u64, size: u64, out: u64) -> Event {
        Event {
            requester: self.requester,
            flags: right.with(Flags::OUT_KNOWN),
            addr,
            size,
            out,
            ..self.event(Kind::Dma, time_ns)
        }
    }
}

/// The DMA API for one device.
#[derive(Debug)]
pub(crate) struct Dma {
    /// Whose events.
    pub side: Side,
    iova: IovaDomain,
    caching_mode: bool,
    queue: Option<FlushQueue>,
}

impl Dma {
    /// A device behind its own domain.
    pub fn new(options: &DmaOptions, side: Side) -> Dma {
        let queue = match options.unmap {
            Unmap::Strict => None,
            Unmap::Lazy { entries, timeout_ns, single } => {
                let rings = if single { 1 } else { options.cpus };
                Some(FlushQueue::new(rings, entries, timeout_ns))
            }
        };
        let iova = IovaDomain::new(options.kernel, options.cpus, options.bits);
        Dma { side, iova, caching_mode: options.caching_mode, queue }
    }

    /// The allocator alone, for what happened before the trace begins.
    pub fn allocator(&mut self) -> &mut IovaDomain {
        &mut self.iova
    }

    /// The clock begins anew: what is queued is free.
    pub fn restart(&mut self) {
        let iova = &mut self.iova;
        if let Some(queue) = &mut self.queue {
            queue.expire(&mut |page, pages| iova.free(0, page, pages));
        }
        iova.restart();
    }

    /// The device is attached to its domain.
    pub fn attach(&self, out: &mut Out, now: u64) {
        let attach = self.side.event(Kind::Attach, now);
        out.events.push(Event { requester: self.side.requester, ..attach });
    }

    /// An IOVA range for `bytes`, nothing mapped yet.
    ///
    /// # Panics
    /// If the space is full: workloads map far less than 2^48 bytes at once.
    #[inline]
    pub fn iova(&mut self, cpu: usize, bytes: u64) -> u64 {
        let page = self.iova.alloc(cpu, bytes.div_ceil(4096));
        page.expect("the address space of a device is larger than what is mapped at once") << 12
    }

    /// The map of one piece of a range.
    #[inline]
    pub fn map_at(&self, out: &mut Out, now: u64, cpu: usize, at: u64, to: u64, bytes: u64) {
        let notified = if self.caching_mode { Flags::NOTIFIED } else { Flags::default() };
        out.events.push(Event {
            cpu: cpu as i32,
            flags: Flags::READ.with(Flags::WRITE).with(notified),
            addr: at,
            size: bytes,
            out: to,
            ..self.side.event(Kind::Map, now)
        });
    }

    /// The end of a map call (`iotlb_sync_map`): under caching mode one
    /// invalidation for all of its pieces.
    #[inline]
    pub fn sync_map(&self, out: &mut Out, now: u64, cpu: usize, at: u64, bytes: u64) {
        if self.caching_mode {
            self.invalidate(out, now, cpu, at, bytes, Flags::MAP_NOTIFY);
        }
    }

    /// `dma_map_page` and its like: a range in one piece; its IOVA.
    #[inline]
    pub fn map(&mut self, out: &mut Out, now: u64, cpu: usize, to: u64, bytes: u64) -> u64 {
        let at = self.iova(cpu, bytes);
        self.map_at(out, now, cpu, at, to, bytes);
        self.sync_map(out, now, cpu, at, bytes);
        at
    }

    /// Unmaps a whole range, and invalidates it now or later.
    #[inline]
    pub fn unmap(&mut self, out: &mut Out, now: u64, cpu: usize, at: u64, bytes: u64) {
        let event =
            Event { cpu: cpu as i32, addr: at, size: bytes, ..self.side.event(Kind::Unmap, now) };
        out.events.push(event);
        self.iova.tick(now);
        let (page, pages) = (at >> 12, bytes.div_ceil(4096));
        let Some(queue) = &mut self.queue else {
            self.invalidate(out, now, cpu, at, bytes, Flags::default());
            return self.iova.free(cpu, page, pages);
        };
        let iova = &mut self.iova;
        let mut free = |page, pages| iova.free(cpu, page, pages);
        let expired = queue.due_ns().is_some_and(|due| due <= now);
        if expired {
            queue.expire(&mut free);
        }
        let full = queue.push(now, cpu, page, pages, &mut free);
        if full || expired {
            // The flush stands before the reuse of what it frees.
            let flags = Flags::with_scope(Scope::Domain);
            let cpu = cpu as i32;
            out.events.push(Event { cpu, flags, ..self.side.event(Kind::Invalidate, now) });
        }
    }

    /// A page-selective invalidation: the power of two that covers the range
    /// (R: `calculate_psi_aligned_address`). No hint: `iommu_flush_iotlb_psi`
    /// is told whether page tables stay, but the bit was lost on its way into
    /// the descriptor until Linux 6.19 (R: upstream commit 6b38a108eeb3).
    #[inline]
    fn invalidate(&self, out: &mut Out, now: u64, cpu: usize, at: u64, bytes: u64, more: Flags) {
        let (first, last) = (at >> 12, (at + bytes - 1) >> 12);
        let bits = u64::BITS - (first ^ last).leading_zeros();
        let start = first >> bits << bits;
        out.events.push(Event {
            cpu: cpu as i32,
            flags: Flags::with_scope(Scope::Page).with(more),
            addr: start << 12,
            size: 4096 << bits,
            out: start << 12,
            ..self.side.event(Kind::Invalidate, now)
        });
    }
}
