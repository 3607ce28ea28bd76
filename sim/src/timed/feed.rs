//! From events and outcomes to requests and operations.

use rustc_hash::FxHashMap;

use super::costs::Action;
use super::cpus::Cpu;
use super::device_tlb::DeviceTlb;
use super::devices::{Device, Request};
use super::observe::Observer;
use super::pages::Dep;
use super::world::World;
use crate::cache::{Key, Tag};
use crate::config::{AtsTime, Config, Direction, Nesting, Sharing};
use crate::events::{Chunk, DomainId, Event, Flags, Kind, PAGE_MASK, PageSize, Requester, Scope};
use crate::replay::outcomes::{Fetch, Miss, Outcomes, Work, WorkOf};
use crate::replay::spaces::memo_place;
use crate::results::timing::DeviceTlbCounters;
use crate::sync;
use crate::time::Ps;

/// Who made a request, and where it goes.
#[derive(Clone, Copy, Default)]
struct Source {
    requester: i32,
    pasid: i32,
    domain: i32,
    device: u32,
    space: u32,
    /// What the walkers know pages of the space by, beside the page number.
    tag: u64,
}

impl Source {
    #[inline(always)]
    fn is(&self, requester: i32, pasid: i32, domain: i32) -> bool {
        (self.requester, self.pasid, self.domain) == (requester, pasid, domain)
    }
}

/// Sources remembered, so that a request costs one comparison.
const MEMO: usize = 2048;
/// Latest arrival: 53 days. Damaged recordings have later ones.
const LATEST: Ps = Ps(1 << 62);
/// The VMM's own thread among the vCPUs; others are not negative.
const HOST: i32 = i32::MIN;

/// Names of devices, spaces and vCPUs, and the device TLBs.
pub(super) struct Feed {
    config: FeedConfig,
    memo: Vec<Option<Source>>,
    devices: FxHashMap<i32, u32>,
    device_ids: Vec<Requester>,
    /// By domain, or by requester where no domain is known.
    spaces: FxHashMap<(i32, bool), u32>,
    attached: FxHashMap<(i32, i32), i32>,
    cpus: FxHashMap<i32, u32>,
    tlbs: Vec<DeviceTlb>,
    device_hits: Vec<bool>,
    last_map_cpu: i32,
    /// The latest vCPU and its index.
    last_cpu: (i32, u32),
    /// The latest domain and its space.
    last_domain: (i32, u32),
}

struct FeedConfig {
    ats: AtsTime,
    seed: u64,
    sharing: Sharing,
    write_if_unknown: bool,
    bytes_if_unknown: u64,
    scale: f64,
    warm_up: u64,
    outstanding: u64,
    calls: bool,
}

impl Feed {
    pub fn new(config: &Config) -> Feed {
        let t = &config.time;
        Feed {
            config: FeedConfig {
                ats: t.ats.clone(),
                seed: config.seed,
                sharing: t.device.sharing,
                write_if_unknown: t.device.direction_if_unknown == Direction::Write,
                bytes_if_unknown: t.device.bytes_if_unknown,
                scale: t.scale,
                warm_up: t.warm_up_events,
                outstanding: t.device.outstanding,
                calls: config.nesting == Nesting::Software
                    && config.sync.policy == sync::Kind::MapUnmap,
            },
            memo: vec![None; MEMO],
            devices: FxHashMap::default(),
            device_ids: Vec::new(),
            spaces: FxHashMap::default(),
            attached: FxHashMap::default(),
            cpus: FxHashMap::default(),
            tlbs: Vec::new(),
            device_hits: Vec::new(),
            last_map_cpu: 0,
            last_cpu: (HOST + 1, 0),
            last_domain: (DomainId::NONE.0 as i32, 0),
        }
    }

    pub fn has_device_tlbs(&self) -> bool {
        self.config.ats.entries > 0
    }

    fn space(&mut self, domain: i32, requester: i32) -> u32 {
        let known = domain != DomainId::NONE.0 as i32;
        if known && self.last_domain.0 == domain {
            return self.last_domain.1;
        }
        let name = if known { (domain, true) } else { (requester, false) };
        let next = self.spaces.len() as u32;
        let space = *self.spaces.entry(name).or_insert(next);
        if known {
            self.last_domain = (domain, space);
        }
        space
    }

    /// The device and space of a request.
    #[inline]
    fn source(&mut self, requester: i32, pasid: i32, domain: i32) -> Source {
        let at = memo_place(requester as u32, pasid as u32, domain as u32);
        if let Some(s) = &self.memo[at % MEMO]
            && s.is(requester, pasid, domain)
        {
            return *s;
        }
        self.find_source(requester, pasid, domain, at % MEMO)
    }

    #[cold]
    fn find_source(&mut self, requester: i32, pasid: i32, domain: i32, at: usize) -> Source {
        let name = match self.config.sharing {
            Sharing::Requester => requester,
            Sharing::All => Requester::NONE.0 as i32,
        };
        let next = self.device_ids.len() as u32;
        let device = *self.devices.entry(name).or_insert(next);
        if device == next {
            self.device_ids.push(Requester(name as u32));
            self.tlbs.extend(DeviceTlb::new(&self.config.ats, self.config.seed));
        }
        let attached = || {
            let exact = self.attached.get(&(requester, pasid));
            exact.or_else(|| self.attached.get(&(requester, -1))).copied()
        };
        let none = DomainId::NONE.0 as i32;
        let resolved = if domain == none { attached().unwrap_or(none) } else { domain };
        let space = self.space(resolved, requester);
        let tag = Key::new(Tag(space % Tag::LIMIT), PageSize::Size4K, 0).bits();
        let source = Source { requester, pasid, domain, device, space, tag };
        self.memo[at] = Some(source);
        source
    }

    fn attach(&mut self, e: &Event) {
        let who = (e.requester.0 as i32, e.pasid.0 as i32);
        match e.kind {
            Kind::Attach => self.attached.insert(who, e.domain.0 as i32),
            _ => self.attached.remove(&who),
        };
        self.memo.fill(None);
    }

    /// Sends requests through the device TLBs; true where one had the page.
    /// The answer is to be given back with [`Feed::keep`].
    pub fn filter(&mut self, chunk: &Chunk) -> Vec<bool> {
        let mut hits = std::mem::take(&mut self.device_hits);
        hits.clear();
        let warm = self.config.warm_up.checked_sub(chunk.first).filter(|n| *n > 0);
        for i in 0..chunk.len() {
            if warm == Some(i as u64) {
                self.tlbs.iter_mut().for_each(DeviceTlb::restart);
            }
            if chunk.kind[i] == Kind::Dma as i32 {
                let Source { device, space, .. } =
                    self.source(chunk.requester[i], chunk.pasid[i], chunk.domain[i]);
                let tlb = &mut self.tlbs[device as usize];
                hits.push(tlb.access(Tag(space), chunk.addr[i] as u64));
                continue;
            }
            hits.push(false);
            let e = chunk.event(i);
            match e.kind {
                Kind::Attach | Kind::Detach => self.attach(&e),
                Kind::Invalidate => match e.flags.scope() {
                    Some(Scope::Page) => {
                        self.invalidate(&e, Some((e.addr, e.addr.saturating_add(e.size))));
                    }
                    Some(Scope::Domain) => self.invalidate(&e, None),
                    Some(Scope::Context) => {}
                    _ => self.tlbs.iter_mut().for_each(DeviceTlb::clear),
                },
                Kind::Unmap if self.config.calls => {
                    self.invalidate(&e, Some((e.addr, e.addr.saturating_add(e.size))));
                }
                Kind::ParentMap | Kind::ParentUnmap => {
                    self.tlbs.iter_mut().for_each(DeviceTlb::clear);
                }
                _ => {}
            }
        }
        hits
    }

    fn invalidate(&mut self, e: &Event, range: Option<(u64, u64)>) {
        let space = Tag(self.space(e.domain.0 as i32, -1));
        self.tlbs.iter_mut().for_each(|tlb| tlb.invalidate(space, range));
    }

    /// Takes the memory of [`Feed::filter`]'s answer back.
    pub fn keep(&mut self, device_hits: Vec<bool>) {
        self.device_hits = device_hits;
    }

    pub fn device_tlb_counters(&self) -> DeviceTlbCounters {
        let mut sum = DeviceTlbCounters::default();
        for tlb in &self.tlbs {
            sum.hits += tlb.hits;
            sum.misses += tlb.misses;
            sum.invalidated += tlb.invalidated;
        }
        sum
    }

    /// Feeds a chunk that the functional replay has replayed.
    pub fn chunk<O: Observer>(
        &mut self,
        chunk: &Chunk,
        device_hits: Option<&[bool]>,
        outcomes: &Outcomes,
        world: &mut World<O>,
    ) {
        let mut misses = outcomes.misses.as_slice();
        let mut fetches = outcomes.fetches.as_slice();
        let mut work = outcomes.work.as_slice();
        // The replay's number of the event: it has not seen device-TLB hits.
        let mut number = chunk.first;
        // Columns of equal length.
        let n = chunk.len();
        let (kind, time_ns, flags) = (&chunk.kind[..n], &chunk.time_ns[..n], &chunk.flags[..n]);
        let (addr, size, domain) = (&chunk.addr[..n], &chunk.size[..n], &chunk.domain[..n]);
        let (requester, pasid) = (&chunk.requester[..n], &chunk.pasid[..n]);
        let device_hits = device_hits.map(|hits| &hits[..n]);
        // The latest request's, unless an attach came after it.
        let (mut from, mut from_is_known) = (Source::default(), false);
        // The latest recorded time and its arrival: many events share one.
        let mut latest = (0, Ps::ZERO);
        let mut special = next_special(misses, fetches, work);
        for i in 0..n {
            if !world.measuring && chunk.first + i as u64 >= self.config.warm_up {
                world.measure();
            }
            let mut arrival = Ps::ZERO;
            if world.open_loop {
                if time_ns[i] != latest.0 {
                    let ps = time_ns[i] as u64 as f64 * 1000.0 * self.config.scale;
                    latest = (time_ns[i], Ps(ps as u64).min(LATEST));
                }
                arrival = latest.1;
                world.run_until(arrival);
            }
            world.observer.reads(chunk, i);
            if kind[i] != Kind::Dma as i32 {
                let mine = of_event(&mut work, number, |w| w.event);
                let found = mine.first().map_or(Work::default(), |w| w.work);
                self.other(chunk, i, &found, arrival, world);
                special = next_special(misses, fetches, work);
                number += 1;
                from_is_known = false;
                continue;
            }
            let device_hit = device_hits.is_some_and(|hits| hits[i]);
            let (mut walks, mut fetched): (&[Miss], &[Fetch]) = (&[], &[]);
            if number == special {
                if let Some((first, rest)) = work.split_first()
                    && first.event == number
                    && first.notify
                {
                    work = rest;
                    let cpu = self.cpu(self.last_map_cpu, world);
                    self.cpu_op(world, cpu, Action::MapSync, &first.work, arrival);
                }
                if !device_hit {
                    walks = of_event(&mut misses, number, |m| m.event);
                    fetched = of_event(&mut fetches, number, |f| f.event);
                }
                special = next_special(misses, fetches, work);
            }
            number += !device_hit as u64;
            if !from_is_known || !from.is(requester[i], pasid[i], domain[i]) {
                from = self.new_source(requester[i], pasid[i], domain[i], world);
                from_is_known = true;
            }
            let (addr, flags) = (addr[i] as u64, Flags(flags[i] as u32));
            if !walks.is_empty() {
                self.walked(&from, addr, walks);
            }
            let write = match (flags.has(Flags::READ), flags.has(Flags::WRITE)) {
                (false, false) => self.config.write_if_unknown,
                (_, write) => write,
            };
            let bytes = match size[i] as u64 {
                0 => self.config.bytes_if_unknown,
                bytes => bytes,
            };
            // Accesses are shorter than 4 GiB.
            let bytes = bytes.min(u64::from(u32::MAX)) as u32;
            let Source { device, space, tag, .. } = from;
            let page = tag | Key::number_of(PageSize::Size4K, addr);
            let request = Request { device, space, addr, page, bytes, write, arrival, device_hit };
            world.feed_dma(&request, walks, fetched);
        }
    }

    /// The source of a request that is not the one before; its device is known
    /// to the world from now on.
    #[inline]
    fn new_source<O: Observer>(
        &mut self,
        requester: i32,
        pasid: i32,
        domain: i32,
        world: &mut World<O>,
    ) -> Source {
        let source = self.source(requester, pasid, domain);
        while world.devices.len() < self.device_ids.len() {
            let id = self.device_ids[world.devices.len()];
            world.devices.push(Device::new(id, self.config.outstanding));
        }
        source
    }

    /// A device TLB keeps no faults.
    #[inline]
    fn walked(&mut self, source: &Source, addr: u64, walks: &[Miss]) {
        if walks.last().is_some_and(|w| w.fault)
            && let Some(tlb) = self.tlbs.get_mut(source.device as usize)
        {
            tlb.forget(Tag(source.space), addr);
        }
    }

    #[inline]
    fn cpu<O: Observer>(&mut self, cpu: i32, world: &mut World<O>) -> u32 {
        if self.last_cpu.0 == cpu {
            return self.last_cpu.1;
        }
        let index = self.find_cpu(cpu, world);
        self.last_cpu = (cpu, index);
        index
    }

    fn find_cpu<O: Observer>(&mut self, cpu: i32, world: &mut World<O>) -> u32 {
        let next = self.cpus.len() as u32;
        let index = *self.cpus.entry(cpu).or_insert(next);
        if index == next {
            world.cpus.push(Cpu::new(cpu == HOST));
            world.observer.new_cpu((cpu != HOST).then_some(cpu));
        }
        index
    }

    /// Event `i`, which is not a request.
    fn other<O: Observer>(
        &mut self,
        chunk: &Chunk,
        i: usize,
        work: &Work,
        arrival: Ps,
        world: &mut World<O>,
    ) {
        let action = match chunk.kind(i) {
            Kind::Map => Action::Map,
            Kind::Unmap => Action::Unmap,
            Kind::Invalidate if Flags(chunk.flags[i] as u32).has(Flags::MAP_NOTIFY) => {
                Action::MapSync
            }
            // The IOMMU empties its caches itself: no command, no CPU.
            Kind::Invalidate if Flags(chunk.flags[i] as u32).scope() == Some(Scope::Reset) => {
                return;
            }
            Kind::Invalidate => Action::Sync,
            Kind::ParentMap | Kind::ParentUnmap => Action::Parent,
            Kind::Attach | Kind::Detach => return self.attach(&chunk.event(i)),
            _ => return,
        };
        if !world.translated {
            return;
        }
        if work.is_nothing() && !matches!(action, Action::Map | Action::Unmap) {
            // This configuration's guest does not send it.
            return;
        }
        // What no CPU is known for runs on the first.
        let number = chunk.cpu[i].max(0);
        let cpu = self.cpu(if action == Action::Parent { HOST } else { number }, world);
        let space = self.space(chunk.domain[i], -1);
        let addr = chunk.addr[i] as u64;
        let (start, end) = (addr & !PAGE_MASK, addr.saturating_add(chunk.size[i] as u64));
        let at = world.push_cpu(cpu, action, work, arrival);
        let done = world.ops.latest();
        match action {
            Action::Map => {
                self.last_map_cpu = number;
                world.pages.mapped(space, start, end, done);
                world.cpus[cpu as usize].note_map(space, start, end);
            }
            Action::Unmap => {
                let World { pages, ops, .. } = world;
                pages.accesses(space, start, end, |access| {
                    ops.wait_for(at, access);
                });
                // What caching mode adds for maps is sent before this.
                match work.commands {
                    0 => world.cpus[cpu as usize].mapped.clear(),
                    _ => self.complete_maps(world, cpu, done),
                }
            }
            Action::MapSync => self.complete_maps(world, cpu, done),
            Action::Sync => world.cpus[cpu as usize].mapped.clear(),
            Action::Parent => {}
        }
        world.feed_cpu(at);
    }

    /// An operation that waits for nothing but its vCPU.
    fn cpu_op<O: Observer>(
        &mut self,
        world: &mut World<O>,
        cpu: u32,
        action: Action,
        work: &Work,
        arrival: Ps,
    ) {
        let at = world.push_cpu(cpu, action, work, arrival);
        let done = world.ops.latest();
        self.complete_maps(world, cpu, done);
        world.feed_cpu(at);
    }

    /// The recent maps of a vCPU are usable when `done` is.
    fn complete_maps<O: Observer>(&self, world: &mut World<O>, cpu: u32, done: Dep) {
        let World { cpus, pages, .. } = world;
        for (space, start, end) in cpus[cpu as usize].mapped.drain(..) {
            pages.mapped(space, start, end, done);
        }
    }
}

/// Number of the next event that has a record.
#[inline(always)]
fn next_special(misses: &[Miss], fetches: &[Fetch], work: &[WorkOf]) -> u64 {
    let miss = misses.first().map_or(u64::MAX, |m| m.event);
    let fetch = fetches.first().map_or(u64::MAX, |f| f.event);
    let work = work.first().map_or(u64::MAX, |w| w.event);
    miss.min(fetch).min(work)
}

/// Takes the records at the front that belong to an event.
#[inline(always)]
fn of_event<'a, T>(records: &mut &'a [T], event: u64, number: impl Fn(&T) -> u64) -> &'a [T] {
    match records.first() {
        Some(first) if number(first) == event => {
            let mine = records.iter().take_while(|r| number(r) == event).count();
            let (mine, rest) = records.split_at(mine);
            *records = rest;
            mine
        }
        _ => &[],
    }
}
