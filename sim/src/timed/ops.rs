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

/// Walks of a request, known before it is issued.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walks {
    /// Entries that they read: the first, and the second after a page request.
    pub reads: [u32; 2],
    /// How many: 0 = a hit.
    pub count: u8,
    /// The last finds nothing.
    pub fault: bool,
}

impl Walks {
    /// Marks a number that is a walk itself, and no place of [`Walks`].
    const ONE: u32 = 1 << 31;
    const FAULT: u32 = 1 << 30;
    const MOST_READS: u32 = 1 << 29;

    /// One walk of `reads` entries, if there is no other, as a number: nearly
    /// all misses. It is not [`NONE`].
    #[inline]
    pub fn one(reads: u32, fault: bool) -> Option<u32> {
        let fault = if fault { Walks::FAULT } else { 0 };
        (reads < Walks::MOST_READS).then_some(Walks::ONE | fault | reads)
    }

    /// The walks that a number stands for.
    #[inline]
    fn of_one(number: u32) -> Option<Walks> {
        (number & Walks::ONE != 0).then_some(Walks {
            reads: [number % Walks::MOST_READS, 0],
            count: 1,
            fault: number & Walks::FAULT != 0,
        })
    }
}

/// What a request that walks needs beside its [`Op`] once it is issued, or one
/// that waits for another's walk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walking {
    /// What it has to walk.
    pub walks: Walks,
    /// Walks done.
    pub walked: u8,
    /// Another's walk served it.
    pub coalesced: bool,
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
}

/// What an operation of a vCPU needs beside its [`Op`].
#[derive(Clone, Copy, Debug)]
pub struct CpuOp {
    /// What it does.
    pub action: Action,
    /// Others use it, too: it is never released.
    pub shared: bool,
    /// Its parts.
    pub parts: Parts,
}

/// What an operation is, in the bits of one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct What(u8);

impl What {
    /// An operation of a vCPU.
    pub const CPU: What = What(0);
    const DMA: u8 = 1;
    const WRITE: u8 = 2;
    const DEVICE_HIT: u8 = 4;

    /// A request of a device; `write`: posted, `device_hit`: found in the
    /// device TLB.
    #[inline]
    pub fn dma(write: bool, device_hit: bool) -> What {
        let posted = u8::from(write) * What::WRITE;
        What(What::DMA | posted | (u8::from(device_hit) * What::DEVICE_HIT))
    }

    /// A request of a device.
    #[inline]
    pub fn is_dma(self) -> bool {
        self.0 & What::DMA != 0
    }

    /// A posted request.
    #[inline]
    pub fn is_write(self) -> bool {
        self.0 & What::WRITE != 0
    }

    /// A request that the device TLB answered.
    #[inline]
    pub fn is_device_hit(self) -> bool {
        self.0 & What::DEVICE_HIT != 0
    }
}

/// An operation that waits for something: what all have, in few bytes, since
/// the window of them is to stay in a processor's second-level cache.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// The latest of what it waited for; when it was done, once it is.
    when: Ps,
    /// Page and space of a request, as the walkers know it.
    pub page: u64,
    /// Payload of a request.
    pub bytes: u32,
    /// Device or vCPU.
    pub who: u32,
    /// Number or place of its [`Walks`], then, once it is issued, of its [`Walking`]; or
    /// of its [`CpuOp`]; [`NONE`] without.
    pub more: u32,
    /// Operations that it waits for.
    pub waiting: u32,
    /// List of those that wait for it.
    waiters: u32,
    /// Next operation of the same device or vCPU.
    pub next: u32,
    done: bool,
    /// Counts in statistics.
    pub measured: bool,
    /// What it is.
    pub what: What,
}

impl Op {
    const NOTHING: Op = Op {
        when: Ps::ZERO,
        page: 0,
        bytes: 0,
        who: 0,
        more: NONE,
        waiting: 0,
        waiters: NONE,
        next: NONE,
        done: true,
        measured: false,
        what: What::CPU,
    };

    /// Latest of what it waited for; it must not be done.
    #[inline]
    pub fn not_before(&self) -> Ps {
        debug_assert!(!self.done, "the time is that of the end");
        self.when
    }
}

/// Things with a place that is used again: nothing is allocated in the steady
/// state.
#[derive(Debug)]
pub struct Places<T> {
    things: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Places { things: Vec::new(), free: Vec::new() }
    }
}

impl<T> Places<T> {
    /// Puts a thing somewhere.
    #[inline]
    pub fn put(&mut self, thing: T) -> u32 {
        match self.free.pop() {
            Some(at) => {
                self.things[at as usize] = thing;
                at
            }
            None => {
                self.things.push(thing);
                self.things.len() as u32 - 1
            }
        }
    }

    /// Takes a thing away.
    #[inline]
    pub fn take(&mut self, at: u32) -> T
    where
        T: Copy,
    {
        self.release(at);
        self.things[at as usize]
    }

    /// Nobody needs the thing there any more.
    #[inline]
    pub fn release(&mut self, at: u32) {
        self.free.push(at);
    }
}

impl<T> std::ops::Index<u32> for Places<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: u32) -> &T {
        &self.things[at as usize]
    }
}

impl<T> std::ops::IndexMut<u32> for Places<T> {
    #[inline]
    fn index_mut(&mut self, at: u32) -> &mut T {
        &mut self.things[at as usize]
    }
}

/// A ring of operations in trace order, which is a legal order of causes.
pub struct Ops {
    ring: Box<[Op; WINDOW]>,
    next: u64,
    oldest: u64,
    /// There is room for operations below this number.
    room: u64,
    /// `oldest` is done, so there may be more room than that.
    oldest_done: bool,
    links: Places<(u32, u32)>,
    /// Of requests that will walk more than once.
    walks: Places<Walks>,
    /// Of requests that walk.
    pub walking: Places<Walking>,
    /// Of operations of vCPUs.
    pub cpu: Places<CpuOp>,
}

impl Default for Ops {
    fn default() -> Self {
        let ring = vec![Op::NOTHING; WINDOW].into_boxed_slice();
        Ops {
            ring: ring.try_into().expect("the ring has the window's length"),
            next: 0,
            oldest: 0,
            room: WINDOW as u64,
            oldest_done: false,
            links: Places::default(),
            walks: Places::default(),
            walking: Places::default(),
            cpu: Places::default(),
        }
    }
}

impl Ops {
    /// Place of an operation.
    #[inline]
    pub fn place(seq: u64) -> u32 {
        (seq % WINDOW as u64) as u32
    }

    /// True if there is room for one more.
    #[inline(always)]
    pub fn has_room(&mut self) -> bool {
        self.next < self.room || (self.oldest_done && self.find_room())
    }

    /// Looks which operations are done.
    #[inline(never)]
    fn find_room(&mut self) -> bool {
        while self.oldest < self.next && self.get(Self::place(self.oldest)).done {
            self.oldest += 1;
        }
        self.oldest_done = false;
        self.room = self.oldest + WINDOW as u64;
        self.next < self.room
    }

    /// Operations that are not done, if any; the oldest.
    pub fn oldest(&mut self) -> Option<u32> {
        self.find_room();
        (self.oldest < self.next).then(|| Self::place(self.oldest))
    }

    /// Requests that are not done.
    pub fn requests_in_flight(&self) -> u64 {
        let window = self.next.saturating_sub(WINDOW as u64)..self.next;
        let open = window.map(|seq| self.get(Self::place(seq)));
        open.filter(|op| !op.done && op.what.is_dma()).count() as u64
    }

    /// Adds an operation that waits for nothing yet, and not before `when`;
    /// there must be room. Returns its place. Page, payload and `more` are the
    /// caller's to set.
    #[inline]
    pub fn push(&mut self, what: What, who: u32, when: Ps, measured: bool) -> u32 {
        let at = Self::place(self.next);
        self.next += 1;
        let op = self.get_mut(at);
        op.when = when;
        op.who = who;
        (op.more, op.next, op.waiters, op.waiting) = (NONE, NONE, NONE, 0);
        (op.what, op.measured, op.done) = (what, measured, false);
        at
    }

    /// The operation that will be added next, as others depend on it.
    #[inline]
    pub fn coming(&self) -> Dep {
        Dep::op(self.next)
    }

    /// The operation added last, as others depend on it.
    #[inline]
    pub fn latest(&self) -> Dep {
        Dep::op(self.next - 1)
    }

    /// The operation at a place, which is in the window, as others depend on
    /// it.
    #[inline]
    pub fn dep(&self, at: u32) -> Dep {
        let back = u64::from(Self::place(self.next - 1).wrapping_sub(at)) % WINDOW as u64;
        Dep::op(self.next - 1 - back)
    }

    /// The operation at a place.
    #[inline]
    pub fn get(&self, at: u32) -> &Op {
        &self.ring[at as usize % WINDOW]
    }

    /// The operation at a place.
    #[inline]
    pub fn get_mut(&mut self, at: u32) -> &mut Op {
        &mut self.ring[at as usize % WINDOW]
    }

    /// Puts down the walks of a request, which are not one ([`Walks::one`]).
    pub fn put_walks(&mut self, walks: Walks) -> u32 {
        self.walks.put(walks)
    }

    /// The walks of a request, which are not needed any more.
    #[inline]
    pub fn take_walks(&mut self, more: u32) -> Walks {
        Walks::of_one(more).unwrap_or_else(|| self.walks.take(more))
    }

    /// What a request that walks needs; it must have it.
    #[inline]
    pub fn walking(&mut self, at: u32) -> &mut Walking {
        let more = self.get(at).more;
        &mut self.walking[more]
    }

    /// What the vCPU's operation at a place needs.
    #[inline]
    pub fn cpu(&mut self, at: u32) -> &mut CpuOp {
        let more = self.get(at).more;
        &mut self.cpu[more]
    }

    /// When `dep` was done, or the place of the operation that is not. What
    /// is older than the window was done long ago.
    #[inline]
    pub fn resolve(&self, dep: Dep) -> Result<Ps, u32> {
        match dep.get() {
            Ok(at) => Ok(at),
            Err(seq) if seq + (WINDOW as u64) < self.next => Ok(Ps::ZERO),
            Err(seq) => {
                let at = Self::place(seq);
                let op = self.get(at);
                if op.done { Ok(op.when) } else { Err(at) }
            }
        }
    }

    /// The operation at `at` waits for `dep`; true if that is not done.
    #[inline]
    pub fn wait_for(&mut self, at: u32, dep: Dep) -> bool {
        match self.resolve(dep) {
            Ok(done) => {
                let op = self.get_mut(at);
                op.when = op.when.max(done);
                false
            }
            Err(on) => {
                self.wait_on(at, on);
                true
            }
        }
    }

    /// The operation at `at` waits for the one at `on`, which is not done.
    #[inline]
    pub fn wait_on(&mut self, at: u32, on: u32) {
        let link = (at, self.get(on).waiters);
        let place = self.links.put(link);
        self.get_mut(on).waiters = place;
        self.get_mut(at).waiting += 1;
    }

    /// The operation at `at` is done at `time`; `freed` receives those that
    /// wait for nothing more.
    #[inline]
    pub fn complete(&mut self, at: u32, time: Ps, freed: &mut Vec<u32>) {
        self.oldest_done |= at == Self::place(self.oldest);
        let op = self.get_mut(at);
        op.done = true;
        op.when = time;
        let link = op.waiters;
        if link != NONE {
            self.free_waiters(link, time, freed);
        }
    }

    fn free_waiters(&mut self, mut link: u32, time: Ps, freed: &mut Vec<u32>) {
        while link != NONE {
            let (waiter, next) = self.links[link];
            self.links.release(link);
            let op = self.get_mut(waiter);
            op.when = op.when.max(time);
            op.waiting -= 1;
            if op.waiting == 0 {
                freed.push(waiter);
            }
            link = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 48 B per operation: the window takes less than half of a small
    /// second-level cache.
    #[test]
    fn an_operation_is_small() {
        assert!(size_of::<Op>() <= 48);
    }

    #[test]
    fn walks_are_taken_as_they_were_put() {
        let mut ops = Ops::default();
        for (reads, fault) in [(0, false), (1, true), (24, false), ((1 << 29) - 1, true)] {
            let number = Walks::one(reads, fault).expect("few reads");
            assert_ne!(number, NONE);
            let Walks { reads: [first, second], count, fault: f } = ops.take_walks(number);
            assert_eq!((first, second, count, f), (reads, 0, 1, fault));
        }
        assert_eq!(Walks::one(1 << 29, false), None);
        for count in 1..=2 {
            let at = ops.put_walks(Walks { reads: [1 << 29, 7], count, fault: true });
            let Walks { reads, count: n, fault } = ops.take_walks(at);
            assert_eq!((reads, n, fault), ([1 << 29, 7], count, true));
        }
    }

    #[test]
    fn places_name_operations_in_the_window() {
        let mut ops = Ops::default();
        for n in 0..WINDOW as u64 * 3 / 2 {
            let at = ops.push(What::CPU, 0, Ps(n), true);
            assert_eq!((ops.dep(at), ops.latest()), (Dep::op(n), Dep::op(n)));
            assert_eq!(ops.resolve(Dep::op(n)), Err(at));
            ops.complete(at, Ps(n + 7), &mut Vec::new());
            assert_eq!(ops.resolve(Dep::op(n)), Ok(Ps(n + 7)));
            let first = n.saturating_sub(WINDOW as u64 - 1);
            assert_eq!(ops.dep(Ops::place(first)), Dep::op(first));
            assert_eq!(ops.resolve(Dep::op(first)), Ok(Ps(first + 7)));
            if first > 0 {
                assert_eq!(ops.resolve(Dep::op(first - 1)), Ok(Ps::ZERO), "long ago");
            }
        }
    }
}
