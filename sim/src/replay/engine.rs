//! The loop over events.

use super::encode::{Changes, Doorbell};
use super::exposure::Exposure;
use super::inject::PendingNotify;
use super::series::SeriesBuilder;
use super::spaces::{PARENT_SPACE, Route, Spaces};
use super::warm::GROUP;
use super::{ReplayError, Run};
use crate::cache::{Cached, Iotlb, MissCause, Store, Tag};
use crate::config::{Config, InvalidationEncoding, Nesting};
use crate::events::{Chunk, DomainId, Flags, Kind, OutputSpace, Pasid, Requester, TraceInfo};
use crate::parent::Parent;
use crate::results::{Counters, DeviceCounters, RunProvenance, RunResult};
use crate::shadow::ShadowOp;
use crate::sync;
use crate::table::PteWrites;
use crate::verify::{Answer, Request, Verifier};
use crate::walk::{Reads, Stages, WalkCaches};

/// One replay with an IOTLB of a known type.
pub(super) struct Engine<S> {
    pub(super) config: Config,
    pub(super) info: TraceInfo,
    pub(super) parent: Parent,
    pub(super) spaces: Spaces,
    pub(super) iotlb: Iotlb<S>,
    pub(super) caches: WalkCaches,
    pub(super) policy: sync::Policy,
    pub(super) counters: Counters,
    pub(super) provenance: RunProvenance,
    pub(super) pending: PendingNotify,
    pub(super) changes: Changes,
    pub(super) doorbell: Doorbell,
    pub(super) ops: Vec<ShadowOp>,
    /// Stores of the map or unmap that is being applied.
    pub(super) writes: PteWrites,
    pub(super) verifier: Option<Box<Verifier>>,
    /// The recording's own invalidations of the physical IOMMU drive the
    /// IOTLB (a configuration that claims to be the recording machine).
    pub(super) host_invalidations: bool,
    /// Measures exposure, if asked for.
    pub(super) exposure: Option<Box<Exposure>>,
    /// Some unmap is open.
    pub(super) exposed: bool,
    devices: Vec<DeviceCounters>,
    series: SeriesBuilder,
}

impl<S: Store> Engine<S> {
    pub fn new(store: S, config: &Config, info: &TraceInfo, verify: bool) -> Engine<S> {
        let parent = if info.has_parent {
            Parent::recorded(config.parent.levels)
        } else {
            Parent::with_layout(config.parent.layout, config.parent.levels, config.seed)
        };
        let software = config.nesting == Nesting::Software;
        let provenance = RunProvenance {
            parent_layout: if info.has_parent {
                "recorded".into()
            } else {
                config.parent.layout.name().into()
            },
            parent_recorded: info.has_parent,
            invalidations: String::new(),
            invalidations_added: 0,
            invalidations_left_out: 0,
            invalidation_encoding: config.guest.invalidation.name().into(),
            invalidations_reencoded: 0,
        };
        Engine {
            spaces: Spaces::new(config.child.levels, info, software, config.iotlb.tag),
            iotlb: Iotlb::new(store),
            caches: WalkCaches::new(
                config.pwc.stage1.by_level(),
                config.pwc.stage2.by_level(),
                config.nested_cache,
            ),
            policy: sync::Policy::of_kind(config.sync.policy),
            counters: Counters::default(),
            provenance,
            pending: PendingNotify::default(),
            changes: Changes::default(),
            doorbell: Doorbell::default(),
            ops: Vec::new(),
            writes: PteWrites::default(),
            verifier: verify.then(|| Box::new(Verifier::new(config))),
            host_invalidations: config.verify.labels && info.output_space == OutputSpace::Hpa,
            exposure: config.report.exposure.then(Box::default),
            exposed: false,
            devices: Vec::new(),
            series: SeriesBuilder::new(info.end_ns, config.report.intervals),
            config: config.clone(),
            info: *info,
            parent,
        }
    }

    /// Closes the intervals of the series that end before `time`.
    #[inline]
    fn roll_series(&mut self, time: u64) {
        if time >= self.series.next_ns() {
            self.counters.iotlb.lookups = self.counters.iotlb.hits + self.counters.iotlb.misses;
            self.series.roll(time, &self.counters);
        }
    }

    #[inline]
    fn dma(&mut self, chunk: &Chunk, i: usize) -> Result<(), ReplayError> {
        let event = chunk.first + i as u64;
        let flags = Flags(chunk.flags[i] as u32);
        let iova = chunk.addr[i] as u64;
        let needed = flags.perm();
        self.counters.dma.requests += 1;
        let bytes = &mut self.counters.dma.bytes;
        *bytes = bytes.saturating_add(chunk.size[i] as u64);
        let route = self
            .spaces
            .route(
                Requester(chunk.requester[i] as u32),
                Pasid(chunk.pasid[i] as u32),
                DomainId(chunk.domain[i] as u32),
                &mut self.parent,
            )
            .map_err(|_| ReplayError::TooManyTags { event, limit: Tag::LIMIT })?;
        let Some(route) = route else {
            self.counters.diagnostics.unattributed += 1;
            self.counters.dma.faults += 1;
            return Ok(());
        };
        if route.device as usize >= self.devices.len() {
            self.devices.resize_with(route.device as usize + 1, DeviceCounters::default);
        }
        self.devices[route.device as usize].requests += 1;
        let Some((addr, tag)) = self.input_address(chunk, i, route, flags) else {
            // Without a vIOMMU the guest would not have made this request.
            self.counters.dma.faults += 1;
            self.devices[route.device as usize].faults += 1;
            return Ok(());
        };
        let (out, hit) = match self.iotlb.lookup(tag, addr, needed) {
            Some(out) => {
                self.counters.iotlb.hits += 1;
                self.devices[route.device as usize].hits += 1;
                (Some(out), true)
            }
            None => (self.miss(route, tag, addr, flags, event), false),
        };
        if self.exposed {
            let time_ns = chunk.time_ns[i] as u64;
            self.exposed_dma((route, tag, addr), (out, hit), event, time_ns);
        }
        let recorded = if out.is_none() { Flags::OUT_KNOWN } else { Flags::FAULT };
        if flags.has(recorded) {
            self.counters.diagnostics.fault_differences += 1;
        }
        if let Some(verifier) = &mut self.verifier {
            let request = Request {
                event,
                space: route.space,
                iova,
                needed,
                flags,
                recorded_out: chunk.out[i] as u64,
            };
            let answer = Answer { out, hit };
            verifier.translation(&request, &answer, &self.info, &self.parent);
        }
        Ok(())
    }

    /// The address that reaches the IOMMU, and the tag of its translations.
    #[inline]
    fn input_address(
        &self,
        chunk: &Chunk,
        i: usize,
        route: Route,
        flags: Flags,
    ) -> Option<(u64, Tag)> {
        let iova = chunk.addr[i] as u64;
        if self.config.nesting != Nesting::None || route.space == PARENT_SPACE {
            return Some((iova, route.tag));
        }
        // Without a vIOMMU the guest hands out GPAs: the one that the
        // recording shows, or the one that its table gives.
        let known = flags.has(Flags::OUT_KNOWN) && self.info.output_space == OutputSpace::Gpa;
        let gpa = if known {
            chunk.out[i] as u64
        } else {
            let child = self.spaces.get(route.space).child.as_ref()?;
            child.lookup(iova)?.translate(iova)
        };
        Some((gpa, route.tag))
    }

    fn miss(&mut self, route: Route, tag: Tag, addr: u64, flags: Flags, event: u64) -> Option<u64> {
        if self.config.nesting == Nesting::None || route.space == PARENT_SPACE {
            // The layout is made up on first use.
            self.parent.ensure(addr & !0xfff, 4096);
        }
        let space = self.spaces.get(route.space);
        let (child, parent) = match self.config.nesting {
            Nesting::None => (None, self.parent.table()),
            Nesting::Hardware => (space.child.as_ref(), self.parent.table()),
            Nesting::Software => match &space.shadow {
                Some(shadow) => (Some(shadow.table()), None),
                None => (None, self.parent.table()),
            },
        };
        let stages = Stages { child, parent, child_tag: Tag(route.space.0) };
        let mut reads = Reads::default();
        let walked = stages.walk(addr, flags.perm(), &mut self.caches, &mut reads);
        if let Some(verifier) = &mut self.verifier {
            verifier.walk(&stages, addr, flags.perm(), &reads);
        }
        let w = &mut self.counters.walk;
        w.walks += 1;
        w.memory_reads += reads.total();
        w.child_reads += reads.child;
        w.parent_reads += reads.parent;
        w.pwc_stage1_hits += reads.stage1_hits;
        w.pwc_stage2_hits += reads.stage2_hits;
        w.nested_cache_hits += reads.nested_hits;
        self.devices[route.device as usize].memory_reads += reads.total();
        if walked.is_err()
            && self.policy.fills_on_fault()
            && self.page_request(route.space, addr, flags.perm(), event)
        {
            // The device asks again.
            return self.miss(route, tag, addr, flags, event);
        }
        let device = &mut self.devices[route.device as usize];
        device.misses += 1;
        let (cause, out): (MissCause, _) = match walked {
            Ok(t) => {
                let base = t.out & !(t.size.bytes() - 1);
                let cause = self.iotlb.fill(tag, addr, t.size, Cached::new(base, t.perm));
                (cause, Some(t.out))
            }
            Err(_) => {
                self.counters.dma.faults += 1;
                device.faults += 1;
                (self.iotlb.fault(tag, addr), None)
            }
        };
        device.miss_causes.add(cause);
        self.counters.iotlb.misses += 1;
        self.counters.iotlb.miss_causes.add(cause);
        out
    }
}

impl<S: Store> Run for Engine<S> {
    fn run(&mut self, chunk: &Chunk) -> Result<(), ReplayError> {
        let warm = self.has_large_tables();
        let mut at = 0;
        while at < chunk.len() {
            let limit = chunk.len().min(at + GROUP);
            let is_dma = |kind: &i32| *kind == Kind::Dma as i32;
            let requests = chunk.kind[at..limit].iter().take_while(|k| is_dma(k)).count();
            if requests == 0 {
                self.roll_series(chunk.time_ns[at] as u64);
                self.apply(&chunk.event(at), chunk.first + at as u64)?;
                at += 1;
                continue;
            }
            if !self.pending.is_empty() {
                self.roll_series(chunk.time_ns[at] as u64);
                let event = chunk.first + at as u64;
                self.flush_pending(event);
                if self.exposed {
                    self.look_at_exposure(event, chunk.time_ns[at] as u64, false);
                }
            }
            let group = at..at + requests;
            if warm {
                self.warm_up(chunk, group.clone());
            }
            for i in group {
                self.roll_series(chunk.time_ns[i] as u64);
                self.dma(chunk, i)?;
            }
            at += requests;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<RunResult, ReplayError> {
        self.flush_pending(self.info.events);
        let c = &mut self.counters;
        c.iotlb.lookups = c.iotlb.hits + c.iotlb.misses;
        c.iotlb.evictions = self.iotlb.evictions;
        c.iotlb.invalidated = self.iotlb.invalidated;
        c.iotlb.hit_rate = ratio(c.iotlb.hits, c.iotlb.lookups);
        c.walk.reads_per_miss = ratio(c.walk.memory_reads, c.iotlb.misses);
        c.parent.synthesized_pages = self.parent.synthesized;
        let p = &mut self.provenance;
        p.invalidations = match (p.invalidations_added, p.invalidations_left_out) {
            (0, 0) => "as recorded".into(),
            (0, _) => "recorded, less those that this guest would not send".into(),
            (_, 0) => "recorded, plus those that caching mode adds".into(),
            _ => "recorded, plus those that caching mode adds, less those not sent".into(),
        };
        if self.config.guest.invalidation != InvalidationEncoding::AsRecorded {
            let encoding = &p.invalidation_encoding;
            p.invalidations += &format!("; page-selective ones re-encoded as {encoding}");
        }
        let mut devices: Vec<_> = self.spaces.device_ids.iter().zip(self.devices).collect();
        devices.sort_by_key(|(id, _)| **id);
        let devices = devices
            .into_iter()
            .map(|(id, counters)| DeviceCounters { device: id.to_string(), ..counters })
            .collect();
        let verify = match self.verifier {
            Some(mut v) => {
                v.settled(self.info.events, &self.spaces, &self.parent);
                Some(v.finish())
            }
            None => None,
        };
        let events = self.info.events;
        Ok(RunResult {
            exposure: self.exposure.map(|e| e.finish(events)),
            config: serde_json::to_value(&self.config)?,
            counters: self.counters.clone(),
            devices,
            series: self.series.finish(&self.counters),
            provenance: self.provenance,
            verify,
        })
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
