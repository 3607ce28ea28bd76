//! Requests of devices, from the slot to the last byte.

use super::device::Slots;
use super::observe::{DmaDone, Observer};
use super::ops::{Body, Dma, NONE};
use super::pages::Dep;
use super::stats::{Class, Split};
use super::walkers::{Requested, Walked};
use super::world::{Happens, World};
use crate::config::TimeConfig;
use crate::events::Requester;
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
    lookup: Ps,
    pub pwc_lookup: Ps,
    /// Look-up in the device TLB; zero without ATS.
    device_lookup: Ps,
    /// Translation request and completion; zero without ATS.
    ats: Ps,
    page_request: Ps,
}

impl DmaTimes {
    pub fn new(t: &TimeConfig) -> DmaTimes {
        let ats = t.ats.entries > 0;
        let ps = |ns: f64, there: bool| if there { Ps::from_ns_f64(ns) } else { Ps::ZERO };
        DmaTimes {
            lookup: ps(t.iommu.lookup_ns, true),
            pwc_lookup: ps(t.iommu.pwc_lookup_ns, true),
            device_lookup: ps(t.ats.lookup_ns, ats),
            ats: ps(t.ats.round_trip_ns, ats),
            page_request: ps(t.ats.page_request_ns, true),
        }
    }
}

impl<O: Observer> World<O> {
    /// A request as the trace has it; `space` and `addr` name its page.
    #[inline]
    pub(super) fn feed_dma(&mut self, mut dma: Dma, space: u32, addr: u64) {
        self.requests_in += 1;
        let page = self.translated.then(|| self.pages.locate(space, addr));
        let ready = page.map_or(Dep::DONE, |at| self.pages.page(at).ready);
        let device = &self.devices[dma.device as usize];
        if dma.walks == 0
            && device.first == NONE
            && (dma.device_hit || self.pending[Self::pending_of(dma.page)] == 0)
            && let Ok(ready) = self.ops.resolve(ready)
            && let Ok(slot) = self.ops.resolve(device.slots.before())
        {
            // Nothing of it is shared: no event.
            let ready = ready.max(dma.arrival).max(self.queue.now());
            self.issue(&mut dma, ready, slot);
            let done = self.hit_done(NONE, &dma, self.measuring);
            self.devices[dma.device as usize].slots.take(Dep::at(done));
            if let Some(page) = page {
                self.pages.page(page).access = Dep::at(done);
            }
            return;
        }
        self.make_room();
        let device = dma.device;
        let at = self.ops.push(self.queue.now(), self.measuring, Body::Dma(dma));
        self.observer.pushed(at);
        self.ops.wait_for(at, ready);
        if let Some(page) = page {
            self.pages.page(page).access = Dep::op(self.ops.get(at).seq);
        }
        let d = &mut self.devices[device as usize];
        if d.first == NONE {
            d.first = at;
        } else {
            self.ops.get_mut(d.last).next = at;
        }
        d.last = at;
        self.run_device(device);
        self.go_on();
    }

    /// Puts a request on the link; it is ready at `ready`, its slot is free at
    /// `slot`.
    #[inline]
    fn issue(&mut self, dma: &mut Dma, ready: Ps, slot: Ps) {
        let device = &mut self.devices[dma.device as usize];
        if device.latest.0 != dma.bytes {
            device.latest = (dma.bytes, self.device_costs.occupancy(u64::from(dma.bytes)));
        }
        let able = device.slots.link_free().max(slot);
        device.starved += ready.since(able);
        // In a closed loop a device has always something more to do: a request
        // is made when there is a slot and the link for it.
        dma.start = if self.open_loop { ready } else { ready.max(able) };
        let sent = device.slots.issue(ready.max(slot), device.latest.1);
        dma.queued = sent.since(dma.start);
        let t = &self.times;
        dma.looked_up = match dma.device_hit {
            true => sent + t.device_lookup,
            // The request travels half of PCIe's (or ATS's) round trip.
            false => sent + t.device_lookup + t.lookup + self.to_iommu(dma.write),
        };
    }

    /// Way from the device to the IOMMU.
    #[inline]
    fn to_iommu(&self, write: bool) -> Ps {
        match self.times.ats {
            Ps::ZERO if write => self.device_costs.transfer(true),
            Ps::ZERO => Ps(self.device_costs.transfer(false).0 / 2),
            ats => Ps(ats.0 / 2),
        }
    }

    /// A request (at `at`, if it has a place) that needs no walk; returns when
    /// it is done.
    #[inline]
    fn hit_done(&mut self, at: u32, dma: &Dma, measured: bool) -> Ps {
        let class = if dma.device_hit { Class::DeviceTlbHit } else { Class::Hit };
        self.dma_done(at, dma, class, measured)
    }

    /// Books a request whose translation is known.
    #[inline]
    fn dma_done(&mut self, at: u32, dma: &Dma, class: Class, measured: bool) -> Ps {
        let t = &self.times;
        let (lookup, ats) = match dma.device_hit {
            true => (t.device_lookup, Ps::ZERO),
            false => (t.device_lookup + t.lookup, t.ats),
        };
        let split = Split {
            queueing: dma.queued,
            lookup,
            walk_queueing: dma.waited,
            walk: dma.walk,
            page_request: dma.paged,
            pcie: self.device_costs.transfer(dma.write) + ats,
        };
        let total = split.total();
        let done = dma.start + total;
        self.end = self.end.max(done);
        self.requests_done += 1;
        let travelled = if dma.device_hit { Ps::ZERO } else { self.to_iommu(dma.write) };
        self.observer.dma_done(&DmaDone {
            at,
            dma,
            class,
            split: &split,
            device_lookup: t.device_lookup,
            after: split.pcie.since(travelled),
            done,
            measured,
        });
        if measured {
            self.dma.record(class, &split, u64::from(dma.bytes), done);
            let device = &mut self.devices[dma.device as usize];
            device.requests += 1;
            device.latency += total.0 as u128;
        }
        done
    }

    /// Issues what a device can issue.
    pub(super) fn run_device(&mut self, device: u32) {
        loop {
            let d = &self.devices[device as usize];
            let (at, before) = (d.first, d.slots.before());
            if at == NONE || self.ops.get(at).waiting > 0 {
                return;
            }
            let Ok(slot) = self.ops.resolve(before) else {
                self.ops.wait_for(at, before);
                return;
            };
            let op = self.ops.get(at);
            let (seq, next, not_before, measured) = (op.seq, op.next, op.not_before, op.measured);
            let mut dma = *self.ops.dma(at);
            let ready = not_before.max(dma.arrival);
            self.issue(&mut dma, ready, slot);
            let d = &mut self.devices[device as usize];
            d.slots.take(Dep::op(seq));
            d.first = next;
            let pending = Self::pending_of(dma.page);
            if dma.walks == 0 && (dma.device_hit || self.pending[pending] == 0) {
                let done = self.hit_done(at, &dma, measured);
                self.ops.complete(at, done, &mut self.freed);
                continue;
            }
            if dma.walks > 0 {
                self.pending[pending] = self.pending[pending].saturating_add(1);
            }
            *self.ops.dma(at) = dma;
            self.queue.schedule(dma.looked_up, Happens::Request(at));
        }
    }

    /// A request reaches the walkers.
    pub(super) fn request(&mut self, at: u32, now: Ps) {
        let dma = *self.ops.dma(at);
        if dma.walks == 0 && self.paging.contains_key(&dma.page) {
            // The page is still being fetched for an earlier access.
            self.parked.push(at);
            return;
        }
        let reads = (dma.walks > 0).then(|| dma.reads[usize::from(dma.walked)]);
        match self.walkers.request(now, dma.page, reads, at) {
            None => self.has_translation(at),
            Some(Requested::Started(walk)) => self.start_walk(walk, now),
            Some(Requested::Waiting | Requested::Coalesced | Requested::Stalled) => {}
        }
    }

    /// A walk served a request.
    pub(super) fn was_walked(&mut self, w: Walked, now: Ps) {
        let dma = self.ops.dma(w.token);
        dma.waited += w.waited;
        dma.walk += w.walked;
        dma.coalesced |= w.coalesced;
        if dma.walks > 0 {
            dma.walked += 1;
            if dma.walked < dma.walks {
                let answered = now + self.times.page_request;
                dma.paged += self.times.page_request;
                *self.paging.entry(dma.page).or_insert(0) += 1;
                self.queue.schedule(answered, Happens::Answered(w.token));
                return;
            }
            let (page, fetched) = (dma.page, dma.walks > 1);
            let pending = &mut self.pending[Self::pending_of(page)];
            *pending = pending.saturating_sub(1);
            if fetched {
                self.was_fetched(page, now);
            }
        } else if self.paging.contains_key(&dma.page) {
            // The walk that it joined found nothing.
            dma.looked_up = now;
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
            let dma = self.ops.dma(*at);
            if dma.page != page {
                return true;
            }
            dma.paged = now.since(dma.looked_up);
            dma.coalesced = true;
            self.has_translation(*at);
            false
        });
        self.parked = parked;
    }

    /// A request has its translation, or none.
    fn has_translation(&mut self, at: u32) {
        let (dma, measured) = (*self.ops.dma(at), self.ops.get(at).measured);
        let class = match dma.walks {
            _ if dma.fault => Class::Fault,
            0 if dma.coalesced => Class::Coalesced,
            0 => Class::Hit,
            1 if dma.coalesced => Class::Coalesced,
            1 => Class::Miss,
            _ => Class::PageRequest,
        };
        let done = self.dma_done(at, &dma, class, measured);
        self.ops.complete(at, done, &mut self.freed);
    }
}
