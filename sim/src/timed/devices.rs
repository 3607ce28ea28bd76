//! Requests of devices, from the slot to the last byte.

use super::device::{DeviceCosts, Slots};
use super::observe::{DmaDone, Observer};
use super::ops::{NONE, Op, Walking, Walks, What};
use super::pages::Dep;
use super::stats::{Class, Hit, Split};
use super::walkers::{Requested, Walked};
use super::world::{Happens, World};
use crate::cache::{Key, Tag};
use crate::config::TimeConfig;
use crate::events::{PageSize, Requester};
use crate::replay::outcomes::{Fetch, Miss};
use crate::time::Ps;

/// A device.
pub(super) struct Device {
    /// Its requester id; [`Requester::NONE`] if it stands for all.
    pub id: Requester,
    slots: Slots<Dep>,
    first: u32,
    last: u32,
    /// Payload and its time on the link, of the latest request.
    latest: (u32, Ps),
    /// Requests done that count.
    pub requests: u64,
    /// Sum of their latencies.
    pub latency: u128,
    /// Time in which it could have issued, but its next request waited for a
    /// map (or, in an open loop, for its recorded time).
    pub starved: Ps,
    /// Time that the link was taken before the warm-up ended.
    warm: Ps,
}

impl Device {
    pub fn new(id: Requester, outstanding: u64) -> Device {
        Device {
            id,
            slots: Slots::new(outstanding, Dep::DONE),
            first: NONE,
            last: NONE,
            latest: (u32::MAX, Ps::ZERO),
            requests: 0,
            latency: 0,
            starved: Ps::ZERO,
            warm: Ps::ZERO,
        }
    }

    /// Forgets what was counted.
    pub fn restart(&mut self) {
        self.requests = 0;
        self.latency = 0;
        self.starved = Ps::ZERO;
        self.warm = self.slots.link_busy;
    }

    /// Time that the link was taken.
    pub fn link_busy(&self) -> Ps {
        self.slots.link_busy.since(self.warm)
    }
}

/// Constant parts of a request's latency.
#[derive(Clone, Copy, Debug)]
pub(super) struct DmaTimes {
    pub pwc_lookup: Ps,
    page_request: Ps,
    /// Look-ups: in the IOMMU, and if the device TLB has the page.
    lookups: [Ps; 2],
    /// PCIe and memory, by write and by device-TLB hit.
    pcie: [[Ps; 2]; 2],
    /// From the link to the IOMMU's answer, likewise.
    until_answer: [[Ps; 2]; 2],
}

impl DmaTimes {
    pub fn new(t: &TimeConfig) -> DmaTimes {
        let there = t.ats.entries > 0;
        let ps = |ns: f64, there: bool| if there { Ps::from_ns_f64(ns) } else { Ps::ZERO };
        let lookup = ps(t.iommu.lookup_ns, true);
        let device_lookup = ps(t.ats.lookup_ns, there);
        // Translation request and completion.
        let ats = ps(t.ats.round_trip_ns, there);
        let costs = DeviceCosts::new(&t.device);
        // Way from the device to the IOMMU: half of PCIe's (or ATS's) round
        // trip.
        let to_iommu = |write: bool| match ats {
            Ps::ZERO if write => costs.transfer(true),
            Ps::ZERO => Ps(costs.transfer(false).0 / 2),
            ats => Ps(ats.0 / 2),
        };
        let both = [false, true];
        DmaTimes {
            pwc_lookup: ps(t.iommu.pwc_lookup_ns, true),
            page_request: ps(t.ats.page_request_ns, true),
            lookups: [device_lookup + lookup, device_lookup],
            pcie: both.map(|write| [costs.transfer(write) + ats, costs.transfer(write)]),
            until_answer: both
                .map(|write| [device_lookup + lookup + to_iommu(write), device_lookup]),
        }
    }

    /// Look-ups of a request.
    #[inline]
    pub fn lookups(&self, device_hit: bool) -> Ps {
        self.lookups[usize::from(device_hit)]
    }

    /// PCIe and memory, ATS included.
    #[inline]
    pub fn pcie(&self, write: bool, device_hit: bool) -> Ps {
        self.pcie[usize::from(write)][usize::from(device_hit)]
    }

    /// What a hit takes that waits for nothing, from the link on.
    #[inline]
    fn hit(&self, write: bool, device_hit: bool) -> Ps {
        self.lookups(device_hit) + self.pcie(write, device_hit)
    }

    /// PCIe and memory after the translation.
    #[inline]
    fn after(&self, write: bool, device_hit: bool) -> Ps {
        let before = self.until_answer(write, device_hit).since(self.lookups(device_hit));
        self.pcie(write, device_hit).since(before)
    }

    /// From the link to the end of the look-up.
    #[inline]
    fn until_answer(&self, write: bool, device_hit: bool) -> Ps {
        self.until_answer[usize::from(write)][usize::from(device_hit)]
    }
}

/// A request as the trace has it.
pub(super) struct Request {
    /// Device.
    pub device: u32,
    /// Space and address.
    pub space: u32,
    pub addr: u64,
    /// Page and space, as the walkers know it.
    pub page: u64,
    /// Payload.
    pub bytes: u32,
    /// Posted.
    pub write: bool,
    /// Recorded time; zero in a closed loop.
    pub arrival: Ps,
    /// Found in the device TLB.
    pub device_hit: bool,
}

/// A page that is fetched after a miss, and the entries that its walk reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetching {
    page: u64,
    reads: u32,
}

/// How a request got onto the link.
#[derive(Clone, Copy)]
struct Issued {
    /// From here its latency counts.
    start: Ps,
    /// Waited for a slot or the link, and was on it.
    queued: Ps,
    /// Its last byte is on the link.
    sent: Ps,
}

impl<O: Observer> World<O> {
    /// A request as the trace has it, and its walks.
    #[inline]
    pub(super) fn feed_dma(&mut self, r: &Request, walks: &[Miss], fetches: &[Fetch]) {
        self.requests_in += 1;
        // It will have the next number, unless it is done at once.
        let mut ready = Dep::DONE;
        let number = self.ops.coming();
        let place = self.translated.then(|| self.pages.locate(r.space, r.addr));
        if let Some(place) = place {
            let page = self.pages.page(place);
            ready = page.ready;
            page.access = number;
        }
        let device = &self.devices[r.device as usize];
        if walks.is_empty()
            && device.first == NONE
            && let Ok(ready) = self.ops.resolve(ready)
            && let Ok(slot) = self.ops.resolve(device.slots.before())
            && (r.device_hit || !self.may_be_pending(r.page))
        {
            // Nothing of it is shared: no event.
            let ready = ready.max(r.arrival).max(self.queue.now());
            let issued = self.issue(r.device, r.bytes, ready, slot);
            let hit = Hit {
                device: r.device,
                bytes: r.bytes,
                write: r.write,
                device_hit: r.device_hit,
                queueing: issued.queued,
            };
            let done = self.hit_done(NONE, hit, self.measuring, issued);
            self.devices[r.device as usize].slots.take(Dep::at(done));
            if let Some(place) = place {
                self.pages.page(place).access = Dep::at(done);
            }
            return;
        }
        self.make_room();
        let what = What::dma(r.write, r.device_hit);
        let at = self.ops.push(what, r.device, self.queue.now().max(r.arrival), self.measuring);
        let more = self.put_walks(walks);
        let op = self.ops.get_mut(at);
        (op.page, op.bytes, op.more) = (r.page, r.bytes, more);
        if !fetches.is_empty() {
            let page = |f: &Fetch| Key::new(Tag(r.space % Tag::LIMIT), PageSize::Size4K, f.addr);
            let fetch = |f: &Fetch| Fetching { page: page(f).bits(), reads: f.reads };
            self.fetches.insert(at, fetches.iter().map(fetch).collect());
        }
        self.observer.pushed(at);
        self.ops.wait_for(at, ready);
        let d = &mut self.devices[r.device as usize];
        let last = std::mem::replace(&mut d.last, at);
        if d.first != NONE {
            // The device was given all the time that it could use.
            self.ops.get_mut(last).next = at;
            return;
        }
        d.first = at;
        self.run_device(r.device);
        self.go_on();
    }

    /// Puts down the walks that a request needs, if any.
    #[inline]
    fn put_walks(&mut self, walks: &[Miss]) -> u32 {
        let Some(last) = walks.last() else { return NONE };
        if let [one] = walks
            && let Some(number) = Walks::one(one.reads, one.fault)
        {
            return number;
        }
        let mut put =
            Walks { count: walks.len().min(2) as u8, fault: last.fault, ..Walks::default() };
        put.reads.iter_mut().zip(walks).for_each(|(r, w)| *r = w.reads);
        self.ops.put_walks(put)
    }

    /// False if no walk of the page was issued that has not ended.
    #[inline]
    fn may_be_pending(&self, page: u64) -> bool {
        self.pending[Self::pending_of(page)] != 0
    }

    /// Puts a request on the link; it is ready at `ready`, its slot is free at
    /// `slot`.
    #[inline]
    fn issue(&mut self, device: u32, bytes: u32, ready: Ps, slot: Ps) -> Issued {
        let device = &mut self.devices[device as usize];
        if device.latest.0 != bytes {
            device.latest = (bytes, self.device_costs.occupancy(u64::from(bytes)));
        }
        let able = device.slots.link_free().max(slot);
        device.starved += ready.since(able);
        // In a closed loop a device has always something more to do: a request
        // is made when there is a slot and the link for it.
        let start = if self.open_loop { ready } else { ready.max(able) };
        let sent = device.slots.issue(ready.max(slot), device.latest.1);
        Issued { start, queued: sent.since(start), sent }
    }

    /// Books a request that needs no walk; returns when it is done.
    #[inline(always)]
    fn hit_done(&mut self, at: u32, hit: Hit, measured: bool, issued: Issued) -> Ps {
        let Hit { device, bytes, write, device_hit, queueing } = hit;
        let after_link = self.times.hit(write, device_hit);
        let done = issued.sent + after_link;
        self.end = self.end.max(done);
        self.requests_done += 1;
        self.observer.dma_done(&DmaDone {
            at,
            device,
            bytes,
            write,
            walks: false,
            start: issued.start,
            looked_up: issued.sent + self.times.until_answer(write, device_hit),
            class: if device_hit { Class::DeviceTlbHit } else { Class::Hit },
            split: &Split {
                queueing,
                lookup: self.times.lookups(device_hit),
                pcie: self.times.pcie(write, device_hit),
                ..Split::default()
            },
            device_lookup: self.times.lookups(true),
            after: self.times.after(write, device_hit),
            done,
            measured,
        });
        if measured && !self.hits.takes(&hit, done) {
            self.book_hits();
            self.hits = self.dma.run_of(hit, queueing + after_link, done);
        }
        done
    }

    /// Books the hits that were counted together.
    pub(super) fn book_hits(&mut self) {
        let run = std::mem::take(&mut self.hits);
        if run.count > 0 {
            self.dma.record_hits(&run);
            let device = &mut self.devices[run.hit().device as usize];
            device.requests += run.count;
            device.latency += run.total.0 as u128 * run.count as u128;
        }
    }

    /// Books a request whose translation is known.
    fn dma_done(&mut self, at: u32, class: Class) -> Ps {
        let op = *self.ops.get(at);
        let (write, device_hit) = (op.what.is_write(), op.what.is_device_hit());
        let walking = *self.ops.walking(at);
        let split = Split {
            queueing: walking.queued,
            lookup: self.times.lookups(device_hit),
            walk_queueing: walking.waited,
            walk: walking.walk,
            page_request: walking.paged,
            pcie: self.times.pcie(write, device_hit),
        };
        let total = split.total();
        let done = walking.start + total;
        self.end = self.end.max(done);
        self.requests_done += 1;
        self.observer.dma_done(&DmaDone {
            at,
            device: op.who,
            bytes: op.bytes,
            write,
            walks: walking.walks.count > 0,
            start: walking.start,
            looked_up: walking.looked_up,
            class,
            split: &split,
            device_lookup: self.times.lookups(true),
            after: self.times.after(write, device_hit),
            done,
            measured: op.measured,
        });
        if op.measured {
            self.dma.record(class, &split, op.bytes, done);
            let device = &mut self.devices[op.who as usize];
            device.requests += 1;
            device.latency += total.0 as u128;
        }
        done
    }

    /// Issues what a device can issue.
    pub(super) fn run_device(&mut self, device: u32) {
        loop {
            let d = &self.devices[device as usize];
            let at = d.first;
            if at == NONE {
                return;
            }
            let op = self.ops.get(at);
            if op.waiting > 0 {
                return;
            }
            let slot = match self.ops.resolve(d.slots.before()) {
                Ok(slot) => slot,
                Err(on) => return self.ops.wait_on(at, on),
            };
            let Op { what, page, bytes, more, measured, next, .. } = *op;
            let issued = self.issue(device, bytes, op.not_before(), slot);
            let (write, device_hit) = (what.is_write(), what.is_device_hit());
            if more == NONE && (device_hit || !self.may_be_pending(page)) {
                let hit = Hit { device, bytes, write, device_hit, queueing: issued.queued };
                let done = self.hit_done(at, hit, measured, issued);
                let d = &mut self.devices[device as usize];
                d.first = next;
                d.slots.take(Dep::at(done));
                self.ops.complete(at, done, &mut self.freed);
                continue;
            }
            let dep = self.ops.dep(at);
            let d = &mut self.devices[device as usize];
            d.first = next;
            d.slots.take(dep);
            let walks = match more {
                // A hit on a page whose walk may be pending.
                NONE => Walks::default(),
                more => {
                    self.will_walk(Self::pending_of(page), at);
                    self.ops.take_walks(more)
                }
            };
            let looked_up = issued.sent + self.times.until_answer(write, device_hit);
            let more = self.ops.walking.put(Walking {
                walks,
                start: issued.start,
                queued: issued.queued,
                looked_up,
                ..Walking::default()
            });
            self.ops.get_mut(at).more = more;
            self.post(looked_up, Happens::Request(at));
        }
    }

    /// A request that walks was issued: hits on its page, and on those that are
    /// fetched after it, have to look for their walks.
    fn will_walk(&mut self, pending: usize, request: u32) {
        let mut add = |at: usize| self.pending[at] = self.pending[at].saturating_add(1);
        add(pending);
        if !self.fetches.is_empty()
            && let Some(fetches) = self.fetches.get(&request)
        {
            fetches.iter().for_each(|f| add(Self::pending_of(f.page)));
        }
    }

    /// A request reaches the walkers.
    pub(super) fn request(&mut self, at: u32, now: Ps) {
        let page = self.ops.get(at).page;
        let walking = *self.ops.walking(at);
        if walking.walks.count == 0 && self.is_fetched(page) {
            // The page is still being fetched for an earlier access.
            self.parked.push(at);
            return;
        }
        let reads =
            (walking.walks.count > 0).then(|| walking.walks.reads[usize::from(walking.walked)]);
        match self.walkers.request(now, page, reads, at) {
            None => self.has_translation(at),
            Some(Requested::Started(walk)) => self.start_walk(walk, now),
            Some(Requested::Waiting | Requested::Coalesced | Requested::Stalled) => {}
        }
        if walking.walks.count > 0 && !self.fetches.is_empty() {
            self.fetch_ahead(at, now);
        }
    }

    /// The walkers look for pages that are fetched after a miss.
    #[cold]
    fn fetch_ahead(&mut self, at: u32, now: Ps) {
        for Fetching { page, reads } in self.fetches.remove(&at).unwrap_or_default() {
            if let Some(Requested::Started(walk)) =
                self.walkers.request(now, page, Some(reads), NONE)
            {
                self.start_walk(walk, now);
            }
        }
    }

    /// A page request for the page is under way.
    #[inline]
    fn is_fetched(&self, page: u64) -> bool {
        !self.paging.is_empty() && self.paging.contains_key(&page)
    }

    /// A walk served a request.
    pub(super) fn was_walked(&mut self, w: Walked, now: Ps) {
        let page = w.page;
        if w.token == NONE {
            // Nobody asked for it.
            let pending = &mut self.pending[Self::pending_of(page)];
            *pending = pending.saturating_sub(1);
            return;
        }
        let walking = self.ops.walking(w.token);
        walking.waited += w.waited;
        walking.walk += w.walked;
        walking.coalesced |= w.coalesced;
        if walking.walks.count > 0 {
            walking.walked += 1;
            if walking.walked < walking.walks.count {
                let answered = now + self.times.page_request;
                walking.paged += self.times.page_request;
                *self.paging.entry(page).or_insert(0) += 1;
                self.post(answered, Happens::Answered(w.token));
                return;
            }
            let fetched = walking.walks.count > 1;
            let pending = &mut self.pending[Self::pending_of(page)];
            *pending = pending.saturating_sub(1);
            if fetched {
                self.was_fetched(page, now);
            }
        } else if self.is_fetched(page) {
            // The walk that it joined found nothing.
            self.ops.walking(w.token).looked_up = now;
            self.parked.push(w.token);
            return;
        }
        self.has_translation(w.token);
    }

    /// A page request's page is there: requests that came meanwhile go on.
    fn was_fetched(&mut self, page: u64, now: Ps) {
        if let Some(requests) = self.paging.get_mut(&page) {
            *requests -= 1;
            if *requests > 0 {
                return;
            }
            self.paging.remove(&page);
        }
        let mut parked = std::mem::take(&mut self.parked);
        parked.retain(|at| {
            if self.ops.get(*at).page != page {
                return true;
            }
            let walking = self.ops.walking(*at);
            walking.paged = now.since(walking.looked_up);
            walking.coalesced = true;
            self.has_translation(*at);
            false
        });
        self.parked = parked;
    }

    /// A request has its translation, or none.
    fn has_translation(&mut self, at: u32) {
        let walking = self.ops.walking(at);
        let class = match walking.walks.count {
            _ if walking.walks.fault => Class::Fault,
            0 if walking.coalesced => Class::Coalesced,
            0 => Class::Hit,
            1 if walking.coalesced => Class::Coalesced,
            1 => Class::Miss,
            _ => Class::PageRequest,
        };
        let done = self.dma_done(at, class);
        let more = self.ops.get(at).more;
        self.ops.walking.release(more);
        self.ops.complete(at, done, &mut self.freed);
    }
}
