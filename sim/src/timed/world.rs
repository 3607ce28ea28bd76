//! Devices, vCPUs and shared resources, and the events between them.

use rustc_hash::FxHashMap;

use super::common::Common;
use super::costs::Costs;
use super::cpus::Cpu;
use super::device::DeviceCosts;
use super::devices::{Device, DmaTimes, Fetching};
use super::memory::Memory;
use super::observe::{Observer, WalkDone};
use super::ops::Ops;
use super::pages::Pages;
use super::series::{Areas, QueueSeries};
use super::stats::{DmaStats, HitRun};
use super::walkers::{WalkId, Walked, Walkers};
use crate::config::{Config, LoopMode, Nesting, TimeConfig};
use crate::time::{Admission, EventQueue, Latencies, Ps, Station, Usage};

/// What the event queue holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Happens {
    /// A request reaches the walkers.
    Request(u32),
    /// A page request is answered.
    Answered(u32),
    /// A walk's read of memory ends (only with a limit on reads).
    ReadDone(WalkId),
    /// A walk ends.
    WalkDone(WalkId),
    /// A vCPU wants the invalidation queue's lock.
    WantsLock(u32),
    /// A vCPU that was woken has the lock.
    HasLock(u32),
    /// A vCPU's exit reaches the VMM.
    AtVmm(u32),
    /// The VMM's work for a vCPU ends.
    VmmDone(u32),
    /// A vCPU's operation ends.
    CpuDone(u32),
}

impl Happens {
    /// Events of these kinds are many, and mostly come in order: devices issue
    /// in order, a single walker ends its walks in order.
    #[inline(always)]
    const fn lane(self) -> Option<usize> {
        match self {
            Happens::Request(_) => Some(0),
            Happens::WalkDone(_) | Happens::ReadDone(_) => Some(1),
            _ => None,
        }
    }
}

/// Who may go on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Actor {
    Device(u32),
    Cpu(u32),
}

/// Everything that has a time.
pub(crate) struct World<O> {
    pub(super) observer: O,
    pub(super) config: TimeConfig,
    pub(super) open_loop: bool,
    /// There is a vIOMMU: maps, unmaps and invalidations mean something.
    pub(super) translated: bool,
    pub(super) queue: EventQueue<Happens>,
    pub(super) ops: Ops,
    pub(super) pages: Pages,
    pub(super) costs: Costs,
    pub(super) device_costs: DeviceCosts,
    pub(super) times: DmaTimes,
    pub(super) devices: Vec<Device>,
    pub(super) cpus: Vec<Cpu>,
    /// What the usual operations of vCPUs need.
    pub(super) common: Common,
    pub(super) walkers: Walkers,
    pub(super) memory: Memory,
    /// Reads left, by walk (only with a limit on reads).
    pub(super) reads_left: Vec<u32>,
    /// The invalidation queues' locks.
    pub(super) lock: Station<u32>,
    pub(super) vmm: Station<u32>,
    /// Who comes to the VMM holds an invalidation queue, as with hardware
    /// nesting only commands need it, and there are no more queues than locks.
    pub(super) vmm_never_waits: bool,
    /// Misses issued and not yet walked, by a hash of the page: 0 = a hit
    /// need not look for a pending walk.
    pub(super) pending: Box<[u16; PENDING]>,
    /// What is fetched after misses that have not reached the walkers, by the
    /// place of the miss.
    pub(super) fetches: FxHashMap<u32, Vec<Fetching>>,
    /// Pages that are being fetched (page requests), and for how many.
    pub(super) paging: FxHashMap<u64, u32>,
    /// Requests that wait for such a page.
    pub(super) parked: Vec<u32>,
    pub(super) freed: Vec<u32>,
    pub(super) ready: Vec<Actor>,
    walked: Vec<Walked>,
    starts: Vec<WalkId>,
    /// Statistics count.
    pub(super) measuring: bool,
    pub(super) measured_from: Ps,
    /// Latest completion of anything.
    pub(super) end: Ps,
    pub(super) dma: DmaStats,
    /// The latest hits, not yet in `dma`.
    pub(super) hits: HitRun,
    /// Lengths of the queues over time.
    pub(super) queues: QueueSeries,
    pub(super) walk_latency: Latencies,
    /// By [`Action`](super::costs::Action).
    pub(super) action_latency: [Latencies; 5],
    pub(super) requests_in: u64,
    pub(super) requests_done: u64,
    pub(super) cpu_ops_in: u64,
    pub(super) cpu_ops_done: u64,
    pub(super) stuck: u64,
}

/// Counters of pending misses.
const PENDING: usize = 4096;

impl<O: Observer> World<O> {
    pub fn new(config: &Config, observer: O) -> World<O> {
        let t = &config.time;
        World {
            observer,
            open_loop: t.mode == LoopMode::OpenLoop,
            translated: config.nesting != Nesting::None,
            queue: EventQueue::default(),
            ops: Ops::default(),
            pages: Pages::default(),
            costs: Costs::new(config),
            device_costs: DeviceCosts::new(&t.device),
            times: DmaTimes::new(t),
            devices: Vec::new(),
            cpus: Vec::new(),
            common: Common::default(),
            walkers: Walkers::new(t.iommu.walkers, t.iommu.pending, t.iommu.coalescing),
            memory: Memory::new(&t.memory, t.iommu.walkers, config.seed),
            reads_left: Vec::new(),
            lock: Station::new(t.invalidation.queues, None),
            vmm: Station::new(t.vmm.locks, None),
            vmm_never_waits: config.nesting == Nesting::Hardware
                && (t.vmm.locks == 0 || (1..=t.vmm.locks).contains(&t.invalidation.queues)),
            pending: Box::new([0; PENDING]),
            fetches: FxHashMap::default(),
            paging: FxHashMap::default(),
            parked: Vec::new(),
            freed: Vec::new(),
            ready: Vec::new(),
            walked: Vec::new(),
            starts: Vec::new(),
            measuring: t.warm_up_events == 0,
            measured_from: Ps::ZERO,
            end: Ps::ZERO,
            dma: DmaStats::default(),
            hits: HitRun::default(),
            queues: QueueSeries::starting(Ps::ZERO),
            walk_latency: Latencies::default(),
            action_latency: Default::default(),
            requests_in: 0,
            requests_done: 0,
            cpu_ops_in: 0,
            cpu_ops_done: 0,
            stuck: 0,
            config: t.clone(),
        }
    }

    #[inline]
    pub(super) fn pending_of(page: u64) -> usize {
        (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize
    }

    /// The warm-up is over. What was read in it ends first: its requests are
    /// not counted, so neither may be the time and the resources that they
    /// take.
    pub(super) fn measure(&mut self) {
        self.run_out();
        self.measuring = true;
        self.book_hits();
        let now = self.end.max(self.queue.now());
        self.queue.advance(now);
        self.measured_from = now;
        self.observer.measures(now);
        self.dma.restart(now);
        self.queues = QueueSeries::starting(now);
        self.walk_latency.clear();
        self.action_latency.iter_mut().for_each(Latencies::clear);
        self.walkers.station_mut().usage.restart(now);
        self.lock.usage.restart(now);
        self.vmm.usage.restart(now);
        if let Some(limit) = &mut self.memory.limit {
            limit.usage.restart(now);
        }
        self.devices.iter_mut().for_each(Device::restart);
        self.cpus.iter_mut().for_each(Cpu::restart);
    }

    /// Lets happen what happens before `time`.
    pub(super) fn run_until(&mut self, time: Ps) {
        while self.queue.peek().is_some_and(|at| at < time) {
            self.step();
        }
        self.queue.advance(time);
    }

    /// Makes room for one more operation.
    #[inline]
    pub(super) fn make_room(&mut self) {
        while !self.ops.has_room() {
            if !self.step() {
                self.unstick();
            }
        }
    }

    /// Everything that was read happens.
    pub(super) fn run_out(&mut self) {
        loop {
            while self.step() {}
            if self.ops.oldest().is_none() {
                return;
            }
            self.unstick();
        }
    }

    /// Operations wait, and nothing will happen: a defect of this model, as
    /// all wait for older ones only. The run ends nevertheless, and says so.
    #[cold]
    fn unstick(&mut self) {
        if let Some(at) = self.ops.oldest() {
            self.stuck += 1;
            let now = self.queue.now();
            self.ops.complete(at, now, &mut self.freed);
            self.go_on();
        }
    }

    /// Schedules what will happen for certain.
    #[inline(always)]
    pub(super) fn post(&mut self, at: Ps, event: Happens) {
        match event.lane() {
            Some(lane) => self.queue.post_in(lane, at, event),
            None => self.queue.post(at, event),
        }
    }

    /// The next event; false if there is none.
    pub(super) fn step(&mut self) -> bool {
        let Some((now, event)) = self.queue.pop() else { return false };
        if now >= self.queues.until() {
            self.close_intervals(now);
        }
        self.end = self.end.max(now);
        match event {
            Happens::Request(at) => self.request(at, now),
            Happens::Answered(at) => self.request(at, now),
            Happens::ReadDone(walk) => self.read_done(walk, now),
            Happens::WalkDone(walk) => self.walk_done(walk, now),
            Happens::WantsLock(cpu) => self.wants_lock(cpu, now),
            Happens::HasLock(cpu) => self.has_lock(cpu, now),
            Happens::AtVmm(cpu) => self.at_vmm(cpu, now),
            Happens::VmmDone(cpu) => self.vmm_done(cpu, now),
            Happens::CpuDone(cpu) => self.cpu_done(cpu, now),
        }
        self.go_on();
        true
    }

    /// Closes the intervals of the series that end by `now`.
    #[cold]
    fn close_intervals(&mut self, now: Ps) {
        while self.queues.until() <= now {
            let areas = self.queue_areas(self.queues.until());
            self.queues.close(areas);
        }
    }

    /// Areas under the lengths of the queues until `at`, before which nothing
    /// changes any more.
    pub(super) fn queue_areas(&mut self, at: Ps) -> Areas {
        let area = |usage: &mut Usage| {
            usage.queue.settle(at);
            usage.queue.area()
        };
        let walkers = &mut self.walkers.station_mut().usage;
        [area(walkers), area(&mut self.lock.usage), area(&mut self.vmm.usage)]
    }

    /// Whoever was freed goes on.
    #[inline(always)]
    pub(super) fn go_on(&mut self) {
        if !self.freed.is_empty() {
            self.let_go_on();
        }
    }

    fn let_go_on(&mut self) {
        loop {
            // One is freed, mostly, and goes on without a place in the list.
            let next = match self.freed.pop() {
                None => self.ready.pop(),
                Some(at) if self.freed.is_empty() => Some(self.actor(at)),
                Some(at) => {
                    let actor = self.actor(at);
                    self.ready.push(actor);
                    continue;
                }
            };
            match next {
                Some(Actor::Device(device)) => self.run_device(device),
                Some(Actor::Cpu(cpu)) => self.run_cpu(cpu),
                None => return,
            }
        }
    }

    /// Whose an operation is.
    #[inline]
    fn actor(&self, at: u32) -> Actor {
        let op = self.ops.get(at);
        if op.what.is_dma() { Actor::Device(op.who) } else { Actor::Cpu(op.who) }
    }

    /// A walk starts.
    pub(super) fn start_walk(&mut self, walk: WalkId, now: Ps) {
        let reads = self.walkers.reads(walk);
        let looked_up = now + self.times.pwc_lookup;
        if self.memory.limit.is_none() || reads == 0 {
            let end = looked_up + self.memory.read_all(reads);
            self.post(end, Happens::WalkDone(walk));
            return;
        }
        if self.reads_left.len() <= walk as usize {
            self.reads_left.resize(walk as usize + 1, 0);
        }
        self.reads_left[walk as usize] = reads + 1;
        // The look-up is a step of the same kind, without memory.
        self.post(looked_up, Happens::ReadDone(walk));
    }

    /// A read of a walk ended (or its look-up): the next one, or the end.
    fn read_done(&mut self, walk: WalkId, now: Ps) {
        let first = self.reads_left[walk as usize] == self.walkers.reads(walk) + 1;
        self.reads_left[walk as usize] -= 1;
        let Some(limit) = &mut self.memory.limit else { return };
        if !first && let Some(next) = limit.depart(now) {
            let end = now + self.memory.read();
            self.post(end, Happens::ReadDone(next));
        }
        if self.reads_left[walk as usize] == 0 {
            return self.walk_done(walk, now);
        }
        let Some(limit) = &mut self.memory.limit else { return };
        if let Admission::Started(walk) = limit.arrive(now, walk) {
            let end = now + self.memory.read();
            self.post(end, Happens::ReadDone(walk));
        }
    }

    fn walk_done(&mut self, walk: WalkId, now: Ps) {
        let started = self.walkers.started(walk);
        if self.measuring {
            self.walk_latency.record(now.since(started));
        }
        let reads = self.walkers.reads(walk);
        self.observer.walk_done(&WalkDone { started, reads, measured: self.measuring }, now);
        self.walkers.finish(now, walk, &mut self.walked, &mut self.starts);
        for i in 0..self.walked.len() {
            let served = self.walked[i];
            self.observer.walk_served(&served, now);
            self.was_walked(served, now);
        }
        for i in 0..self.starts.len() {
            self.start_walk(self.starts[i], now);
        }
        self.walked.clear();
        self.starts.clear();
    }
}
