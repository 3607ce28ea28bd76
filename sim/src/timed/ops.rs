//! Operations whose completion is not known when they are read from the trace,
//! and who waits for them.

use super::costs::{Action, Parts};
use super::pages::Dep;
use crate::time::Ps;

/// No place.
pub const NONE: u32 = u32::MAX;

/// Operations looked ahead: the distance between the oldest that is not done
/// and the newest. A guest or a device that is more than this ahead of another
/// waits, in simulated time, for it.
pub const WINDOW: usize = 1 << 12;

/// A request of a device that waits for something.
#[derive(Clone, Copy, Debug)]
pub struct Dma {
    /// Device.
    pub device: u32,
    /// Page and space, as the walkers know it.
    pub page: u64,
    /// Payload.
    pub bytes: u32,
    /// Posted.
    pub write: bool,
    /// Recorded time; zero in a closed loop.
    pub arrival: Ps,
    /// Entries that its walks read: the first, and the second after a page
    /// request.
    pub reads: [u32; 2],
    /// Walks that it needs: 0 = a hit.
    pub walks: u8,
    /// Walks done.
    pub walked: u8,
    /// The last walk finds nothing.
    pub fault: bool,
    /// Found in the device TLB.
    pub device_hit: bool,
    /// From here its latency counts.
    pub start: Ps,
    /// At the IOMMU, look-up done.
    pub looked_up: Ps,
    /// Waited for a walker.
    pub waited: Ps,
    /// Walked.
    pub walk: Ps,
    /// Page request.
    pub paged: Ps,
    /// Waited on the link or for a slot.
    pub queued: Ps,
    /// Another's walk served it.
    pub coalesced: bool,
}

/// An operation of a vCPU.
#[derive(Clone, Copy, Debug)]
pub struct CpuOp {
    /// vCPU.
    pub cpu: u32,
    /// What it does.
    pub action: Action,
    /// Its parts.
    pub parts: Parts,
    /// Recorded time; zero in a closed loop.
    pub arrival: Ps,
    /// Start of what its latency counts.
    pub start: Ps,
}

/// What an operation is.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// A request.
    Dma(Dma),
    /// A vCPU's.
    Cpu(CpuOp),
}

/// An operation.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// Its number.
    pub seq: u64,
    /// When it was done; [`Ps::NEVER`] before.
    pub done: Ps,
    /// Latest of what it waited for.
    pub not_before: Ps,
    /// Operations that it waits for.
    pub waiting: u32,
    /// List of those that wait for it.
    waiters: u32,
    /// Next operation of the same device or vCPU.
    pub next: u32,
    /// Counts in statistics.
    pub measured: bool,
    /// What it is.
    pub body: Body,
}

/// A ring of operations in trace order, which is a legal order of causes.
#[derive(Default)]
pub struct Ops {
    ring: Vec<Op>,
    next: u64,
    oldest: u64,
    links: Vec<(u32, u32)>,
    free_links: Vec<u32>,
}

impl Ops {
    /// Place of an operation.
    #[inline]
    pub fn place(seq: u64) -> u32 {
        (seq % WINDOW as u64) as u32
    }

    /// True if there is room for one more.
    #[inline]
    pub fn has_room(&mut self) -> bool {
        while self.oldest < self.next && self.get(Self::place(self.oldest)).done != Ps::NEVER {
            self.oldest += 1;
        }
        self.next - self.oldest < WINDOW as u64
    }

    /// Operations that are not done, if any; the oldest.
    pub fn oldest(&mut self) -> Option<u32> {
        self.has_room();
        (self.oldest < self.next).then(|| Self::place(self.oldest))
    }

    /// Adds an operation; there must be room. Returns its place.
    #[inline]
    pub fn push(&mut self, not_before: Ps, measured: bool, body: Body) -> u32 {
        let seq = self.next;
        self.next += 1;
        let op = Op {
            seq,
            done: Ps::NEVER,
            not_before,
            waiting: 0,
            waiters: NONE,
            next: NONE,
            measured,
            body,
        };
        let at = Self::place(seq);
        match self.ring.get_mut(at as usize) {
            Some(place) => *place = op,
            None => self.ring.push(op),
        }
        at
    }

    /// The operation at a place.
    #[inline]
    pub fn get(&self, at: u32) -> &Op {
        &self.ring[at as usize]
    }

    /// The operation at a place.
    #[inline]
    pub fn get_mut(&mut self, at: u32) -> &mut Op {
        &mut self.ring[at as usize]
    }

    /// The request at a place.
    ///
    /// # Panics
    /// If it is none.
    #[inline]
    pub fn dma(&mut self, at: u32) -> &mut Dma {
        match &mut self.ring[at as usize].body {
            Body::Dma(dma) => dma,
            Body::Cpu(_) => unreachable!("places of requests are handed to devices only"),
        }
    }

    /// The vCPU's operation at a place.
    ///
    /// # Panics
    /// If it is none.
    #[inline]
    pub fn cpu(&mut self, at: u32) -> &mut CpuOp {
        match &mut self.ring[at as usize].body {
            Body::Cpu(op) => op,
            Body::Dma(_) => unreachable!("places of vCPU operations are handed to vCPUs only"),
        }
    }

    /// When `dep` was done, or the place of the operation that is not. What
    /// is older than the window was done long ago.
    #[inline]
    pub fn resolve(&self, dep: Dep) -> Result<Ps, u32> {
        match dep.get() {
            Ok(at) => Ok(at),
            Err(seq) => {
                let at = Self::place(seq);
                let op = self.get(at);
                match (op.seq == seq, op.done) {
                    (true, Ps::NEVER) => Err(at),
                    (true, done) => Ok(done),
                    (false, _) => Ok(Ps::ZERO),
                }
            }
        }
    }

    /// The operation at `at` waits for `dep`; true if that is not done.
    #[inline]
    pub fn wait_for(&mut self, at: u32, dep: Dep) -> bool {
        match self.resolve(dep) {
            Ok(done) => {
                let op = self.get_mut(at);
                op.not_before = op.not_before.max(done);
                false
            }
            Err(on) => {
                let link = (at, self.get(on).waiters);
                let place = match self.free_links.pop() {
                    Some(place) => {
                        self.links[place as usize] = link;
                        place
                    }
                    None => {
                        self.links.push(link);
                        self.links.len() as u32 - 1
                    }
                };
                self.get_mut(on).waiters = place;
                self.get_mut(at).waiting += 1;
                true
            }
        }
    }

    /// The operation at `at` is done at `time`; `freed` receives those that
    /// wait for nothing more.
    #[inline]
    pub fn complete(&mut self, at: u32, time: Ps, freed: &mut Vec<u32>) {
        let op = self.get_mut(at);
        // "Never" means not done.
        op.done = time.min(Ps(Ps::NEVER.0 - 1));
        let mut link = std::mem::replace(&mut op.waiters, NONE);
        while link != NONE {
            let (waiter, next) = self.links[link as usize];
            self.free_links.push(link);
            let op = self.get_mut(waiter);
            op.not_before = op.not_before.max(time);
            op.waiting -= 1;
            if op.waiting == 0 {
                freed.push(waiter);
            }
            link = next;
        }
    }
}
