//! The loop over events.

use std::ops::Range;

use super::encode::{Changes, Doorbell};
use super::exposure::Exposure;
use super::inject::PendingNotify;
use super::outcomes::{Miss, Outcomes};
use super::parents::Follower;
use super::prefetch::Fetcher;
use super::series::SeriesBuilder;
use super::spaces::{PARENT_SPACE, Route, SpaceId, Spaces};
use super::warm::GROUP;
use super::{ReplayError, Run};
use crate::cache::{Cached, Filled, Iotlb, Key, Store, Tag};
use crate::config::{Config, InvalidationEncoding, Nesting};
use crate::events::{
    Chunk, DomainId, Flags, Kind, OutputSpace, PAGE_SHIFT, PageSize, Pasid, Perm, Requester,
    TraceInfo,
};
use crate::parent::Parent;
use crate::parent_change::Kind as ChangeKind;
use crate::prefetch::Prefetcher;
use crate::results::{Counters, DeviceCounters, PrefetchCounters, RunProvenance, RunResult};
use crate::shadow::ShadowOp;
use crate::sync;
use crate::table::{Leaf, PteWrites, RadixTable};
use crate::verify::{Answer, Request, Verifier};
use crate::walk::{Reads, Stages, WalkCaches};

/// Misses whose causes are found together: their history is seldom in the
/// processor's caches, and reads in a row overlap.
const FILLED: usize = 256;

/// Makes the host's layout differ from the parent's.
const HOST_SEED: u64 = 0x6c30;

/// One replay with an IOTLB of a known type.
pub(super) struct Engine<S: Store> {
    pub(super) config: Config,
    pub(super) info: TraceInfo,
    pub(super) parent: Parent,
    pub(super) spaces: Spaces,
    pub(super) iotlb: Iotlb<S>,
    pub(super) caches: WalkCaches,
    pub(super) policy: sync::Policy,
    /// Follows the parent's changes; taken out while it works.
    pub(super) follower: Option<Box<Follower>>,
    /// The follower wants to hear of every operation on a shadow.
    pub(super) followed: bool,
    /// Shadows are completed on faults and in the background after a change
    /// of the parent.
    pub(super) lazy: bool,
    /// Device faults may fill shadows.
    faults_fill: bool,
    pub(super) counters: Counters,
    pub(super) provenance: RunProvenance,
    pub(super) pending: PendingNotify,
    pub(super) changes: Changes<SpaceId>,
    pub(super) doorbell: Doorbell,
    pub(super) ops: Vec<ShadowOp>,
    /// Stores of the map or unmap that is being applied.
    pub(super) writes: PteWrites,
    pub(super) verifier: Option<Box<Verifier>>,
    /// The recording's own invalidations of the physical IOMMU drive the
    /// IOTLB (a configuration that claims to be the recording machine).
    pub(super) host_invalidations: bool,
    /// Misses whose causes are not counted yet, at most [`FILLED`]. Counted
    /// before anything but a request happens.
    filled: Vec<Filled>,
    pub(super) largest_page: PageSize,
    /// Requests are looked at before they are replayed.
    reads_ahead: bool,
    /// Requests and misses before the last chunk.
    seen: (u64, u64),
    /// Measures exposure, if asked for.
    pub(super) exposure: Option<Box<Exposure>>,
    /// Some unmap is open.
    pub(super) exposed: bool,
    devices: Vec<DeviceCounters>,
    /// Fetches translations in advance; taken out while it works.
    pub(super) fetcher: Option<Box<Fetcher>>,
    series: SeriesBuilder,
    /// Records for the timed layer, if there is one.
    pub(super) outcomes: Option<Box<Outcomes>>,
}

impl<S: Store> Engine<S> {
    pub fn new(store: S, config: &Config, info: &TraceInfo, verify: bool) -> Engine<S> {
        let parent = if info.has_parent {
            Parent::recorded(config.parent.levels)
        } else {
            Parent::with_layout(config.parent.layout, config.parent.levels, config.seed)
        };
        let parent = match config.three_levels() {
            Some(placement) => {
                let (layout, levels) = (config.host.layout, config.host.levels);
                let host = Parent::with_layout(layout, levels, config.seed ^ HOST_SEED);
                parent.over(host, placement.merged(1))
            }
            None => parent,
        };
        let software = config.nesting == Nesting::Software;
        let provenance = RunProvenance {
            parent_layout: if info.has_parent {
                "recorded".into()
            } else {
                config.parent.layout.name().into()
            },
            parent_recorded: info.has_parent,
            host_layout: match config.three_levels() {
                Some(_) => config.host.layout.name().into(),
                None => String::new(),
            },
            invalidations: String::new(),
            invalidations_added: 0,
            invalidations_left_out: 0,
            invalidation_encoding: config.guest.invalidation.name().into(),
            invalidations_reencoded: 0,
            unmap: config.guest.unmap.name().into(),
            invalidations_replaced: 0,
        };
        let mut iotlb = Iotlb::new(store);
        let prefetch = config.iotlb.prefetch;
        let fetcher = Prefetcher::of_kind(prefetch.policy);
        let fetcher = fetcher.map(|p| Box::new(Fetcher::new(p, prefetch.pages as usize)));
        if fetcher.is_some() {
            iotlb.expect_prefetches();
        }
        Engine {
            spaces: Spaces::new(config.child.levels, info, software, config.iotlb.tag),
            iotlb,
            caches: WalkCaches::new(
                config.pwc.stage1.by_level(),
                config.pwc.stage2.by_level(),
                config.nested_cache,
            ),
            policy: sync::Policy::of_kind(config.sync.policy),
            followed: Follower::listens(config),
            lazy: software && config.parent.change == ChangeKind::Epoch,
            faults_fill: software
                && (config.sync.policy == sync::Kind::Demand
                    || config.parent.change == ChangeKind::Epoch),
            follower: Some(Box::new(Follower::new(config))),
            counters: Counters::default(),
            provenance,
            pending: PendingNotify::default(),
            changes: Changes::default(),
            doorbell: Doorbell::default(),
            ops: Vec::new(),
            writes: PteWrites::default(),
            verifier: verify.then(|| Box::new(Verifier::new(config))),
            host_invalidations: config.verify.labels && info.output_space == OutputSpace::Hpa,
            filled: Vec::with_capacity(FILLED),
            largest_page: config.iotlb.largest_page.size(),
            reads_ahead: false,
            seen: (0, 0),
            exposure: config.report.exposure.then(Box::default),
            exposed: false,
            devices: Vec::new(),
            fetcher,
            series: SeriesBuilder::new(info.end_ns, config.report.intervals),
            outcomes: None,
            config: config.clone(),
            info: *info,
            parent,
        }
    }

    /// Closes the intervals of the series that end before `time`.
    #[inline(always)]
    fn roll_series(&mut self, time: u64) {
        if time >= self.series.next_ns() {
            self.counters.iotlb.lookups = self.counters.iotlb.hits + self.counters.iotlb.misses;
            self.series.roll(time, &self.counters);
        }
    }

    /// Replays consecutive requests of one source inside one interval of the
    /// series: what they share is done once.
    ///
    /// `WATCHED`: a verifier or an open unmap looks at every translation.
    #[inline(always)]
    fn requests<const WATCHED: bool>(
        &mut self,
        chunk: &Chunk,
        range: Range<usize>,
    ) -> Result<(), ReplayError> {
        let event = chunk.first + range.start as u64;
        let count = range.len() as u64;
        let dma = &mut self.counters.dma;
        dma.requests += count;
        for size in &chunk.size[range.clone()] {
            dma.bytes = dma.bytes.saturating_add(*size as u64);
        }
        let route = self
            .spaces
            .route(
                Requester(chunk.requester[range.start] as u32),
                Pasid(chunk.pasid[range.start] as u32),
                DomainId(chunk.domain[range.start] as u32),
                &mut self.parent,
            )
            .map_err(|_| ReplayError::TooManyTags { event, limit: Tag::LIMIT })?;
        let Some(route) = route else {
            self.counters.diagnostics.unattributed += count;
            self.counters.dma.faults += count;
            return Ok(());
        };
        if route.device as usize >= self.devices.len() {
            self.devices.resize_with(route.device as usize + 1, DeviceCounters::default);
        }
        self.devices[route.device as usize].requests += count;
        // Without a vIOMMU the device is given GPAs.
        let passed = self.config.nesting == Nesting::None && route.space != PARENT_SPACE;
        let columns = chunk.addr[range.clone()].iter().zip(&chunk.flags[range.clone()]);
        let mut hits = 0;
        // Page and flags of the latest request, if it hit and nothing looks at
        // hits one by one: again, it would hit again and change nothing.
        let skips = !S::COUNTS_HITS && !WATCHED && !passed && self.fetcher.is_none();
        let mut latest = (u64::MAX, 0);
        for (i, (iova, flags)) in range.zip(columns) {
            if (*iova as u64 >> PAGE_SHIFT, *flags) == latest {
                hits += 1;
                self.counters.diagnostics.fault_differences +=
                    u64::from(Flags(*flags as u32).has(Flags::FAULT));
                continue;
            }
            latest.0 = u64::MAX;
            let (iova, flags) = (*iova as u64, Flags(*flags as u32));
            let addr = if passed { self.passed_gpa(chunk, i, route) } else { Some(iova) };
            let Some(addr) = addr else {
                // The guest would not have made this request.
                self.counters.dma.faults += 1;
                self.devices[route.device as usize].faults += 1;
                continue;
            };
            let needed = flags.perm();
            let reads_before = if WATCHED { self.counters.walk.memory_reads } else { 0 };
            let (out, hit) = match self.iotlb.lookup(route.tag, addr, needed) {
                Some(out) => {
                    hits += 1;
                    if skips {
                        latest = (iova >> PAGE_SHIFT, flags.0 as i32);
                    }
                    if self.fetcher.is_some()
                        && let Some(used) = self.iotlb.first_use(Filled::NO_MISS)
                    {
                        self.note_filled(used);
                    }
                    (Some(out), true)
                }
                None => (self.miss(route, addr, needed, chunk.first + i as u64), false),
            };
            if WATCHED && self.exposed {
                let (event, time_ns) = (chunk.first + i as u64, chunk.time_ns[i] as u64);
                self.exposed_dma((route, route.tag, addr), (out, hit), event, time_ns);
            }
            let recorded = if out.is_none() { Flags::OUT_KNOWN } else { Flags::FAULT };
            if flags.has(recorded) {
                self.counters.diagnostics.fault_differences += 1;
            }
            if WATCHED && let Some(verifier) = &mut self.verifier {
                let request = Request {
                    event: chunk.first + i as u64,
                    space: route.space,
                    iova,
                    needed,
                    flags,
                    recorded_out: chunk.out[i] as u64,
                    recorded_reads: chunk.aux[i] as u64,
                };
                let reads = self.counters.walk.memory_reads - reads_before;
                let answer = Answer { out, hit, reads };
                verifier.translation(&request, &answer, &self.info, &self.parent);
            }
        }
        self.counters.iotlb.hits += hits;
        self.devices[route.device as usize].hits += hits;
        Ok(())
    }

    /// Counts why the latest misses missed.
    #[inline]
    pub(super) fn add_causes(&mut self) {
        if !self.filled.is_empty() {
            self.add_causes_of_some();
        }
    }

    #[inline(never)]
    fn add_causes_of_some(&mut self) {
        let (devices, total) = (&mut self.devices, &mut self.counters.iotlb.miss_causes);
        self.iotlb.causes(&mut self.filled, |filled, cause| {
            // The first use of a prefetched page is no miss.
            if let Some(device) = devices.get_mut(filled.device as usize) {
                device.miss_causes.add(cause);
                total.add(cause);
            }
        });
        self.filled.clear();
    }

    /// The recording shows the GPA of such a request.
    #[inline(always)]
    pub(super) fn gpa_known(&self, flags: Flags) -> bool {
        flags.has(Flags::OUT_KNOWN) && self.info.output_space == OutputSpace::Gpa
    }

    /// GPA of a request without a vIOMMU: the one that the recording shows, or
    /// the one that the guest's table gives.
    #[inline(always)]
    fn passed_gpa(&self, chunk: &Chunk, i: usize, route: Route) -> Option<u64> {
        if self.gpa_known(Flags(chunk.flags[i] as u32)) {
            return Some(chunk.out[i] as u64);
        }
        let iova = chunk.addr[i] as u64;
        let child = self.spaces.get(route.space).child.as_ref()?;
        Some(child.lookup(iova)?.translate(iova))
    }

    /// The host level backs the table pages that a walk will read.
    #[cold]
    pub(super) fn back_walked_pages(&mut self, id: SpaceId, addr: u64) {
        let space = self.spaces.get(id);
        let table = match &space.shadow {
            Some(shadow) => Some(shadow.table()),
            None => self.parent.table(),
        };
        let Some(table) = table.filter(|t| t.covers(addr)) else { return };
        let (mut pages, mut next) = ([0; 5], Some(RadixTable::ROOT));
        for level in (0..table.levels()).rev() {
            let Some(node) = next else { break };
            pages[level as usize] = table.node_addr(node);
            next = table.read(node, level, addr).node();
        }
        pages.into_iter().filter(|p| *p != 0).for_each(|p| self.parent.ensure_host(p));
    }

    /// The device asks again after its page request.
    #[cold]
    fn ask_again(&mut self, route: Route, addr: u64, needed: Perm, event: u64) -> Option<u64> {
        self.miss(route, addr, needed, event)
    }

    /// The history learns of a reference, soon.
    #[inline(always)]
    fn note_filled(&mut self, filled: Filled) {
        self.filled.push(filled);
        if self.filled.len() == FILLED {
            self.add_causes();
        }
    }

    #[inline(always)]
    fn miss(&mut self, route: Route, addr: u64, needed: Perm, event: u64) -> Option<u64> {
        let tag = route.tag;
        if self.config.nesting == Nesting::None || route.space == PARENT_SPACE {
            // The layout is made up on first use.
            self.parent.ensure(addr & !0xfff, 4096);
        }
        if self.parent.is_over_walked_host() {
            self.back_walked_pages(route.space, addr);
        }
        let stages = self.config.nesting.stages(&self.spaces, &self.parent, route.space);
        let mut reads = Reads::default();
        let walked = stages.walk(addr, needed, &mut self.caches, &mut reads);
        if let Some(verifier) = &mut self.verifier {
            verifier.walk(&stages, addr, needed, &reads);
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
        if let Some(outcomes) = &mut self.outcomes {
            let reads = reads.total() as u32;
            outcomes.misses.push(Miss { event, reads, fault: walked.is_err() });
        }
        if walked.is_err()
            && self.faults_fill
            && (self.lazy_fill(route.space, addr)
                || self.policy.fills_on_fault()
                    && self.page_request(route.space, addr, needed, event))
        {
            return self.ask_again(route, addr, needed, event);
        }
        let device = &mut self.devices[route.device as usize];
        device.misses += 1;
        self.counters.iotlb.misses += 1;
        match walked {
            Ok(t) => {
                let size = t.size.min(self.largest_page);
                let base = t.out & !(size.bytes() - 1);
                let value = Cached::new(base, t.perm);
                let filled = self.iotlb.fill(Key::new(tag, size, addr), value, route.device);
                self.note_filled(filled);
                if self.fetcher.is_some() {
                    self.fetch_ahead(route, addr, size, event);
                }
                Some(t.out)
            }
            Err(_) => {
                device.faults += 1;
                self.counters.dma.faults += 1;
                self.add_causes();
                let cause = self.iotlb.fault(tag, addr);
                self.devices[route.device as usize].miss_causes.add(cause);
                self.counters.iotlb.miss_causes.add(cause);
                None
            }
        }
    }
}

impl<S: Store> Run for Engine<S> {
    fn run(&mut self, chunk: &Chunk) -> Result<(), ReplayError> {
        // Reading ahead pays where many requests miss, or all need the table.
        let (requests, misses) = (self.counters.dma.requests, self.counters.iotlb.misses);
        let (new_requests, new_misses) = (requests - self.seen.0, misses - self.seen.1);
        self.seen = (requests, misses);
        let useful = self.config.nesting == Nesting::None || new_misses * 4 >= new_requests;
        self.reads_ahead = useful && self.has_large_tables();
        let (mut at, mut read) = (0, 0);
        while at < chunk.len() {
            if at >= read && self.reads_ahead {
                read = chunk.len().min(at + GROUP);
                self.read_ahead(chunk, at..read);
            }
            let time = chunk.time_ns[at] as u64;
            if chunk.kind[at] != Kind::Dma as i32 {
                self.add_causes();
                self.roll_series(time);
                let event = chunk.first + at as u64;
                self.mark();
                self.apply(&chunk.event(at), event)?;
                self.note_work(event, false);
                at += 1;
                continue;
            }
            self.roll_series(time);
            if !self.pending.is_empty() {
                self.add_causes();
                let event = chunk.first + at as u64;
                self.mark();
                self.flush_pending(event);
                self.note_work(event, true);
                if self.exposed {
                    self.look_at_exposure(event, time, false);
                }
            }
            let limit = chunk.len().min(at + GROUP);
            let end = alike(chunk, at..limit, self.series.next_ns());
            match self.exposed || self.verifier.is_some() {
                true => self.requests::<true>(chunk, at..end)?,
                false => self.requests::<false>(chunk, at..end)?,
            }
            at = end;
        }
        // A trace that is rewritten on its way does not know its length.
        self.info.events = self.info.events.max(chunk.first + chunk.len() as u64);
        Ok(())
    }

    fn settle(&mut self) {
        self.add_causes();
        self.flush_pending(self.info.events);
        self.rebuild_everything();
    }

    fn for_each_shadow_leaf(&self, f: &mut dyn FnMut(u32, u64, Leaf)) {
        for id in self.spaces.ids() {
            if let Some(shadow) = &self.spaces.get(id).shadow {
                shadow.table().visit(0, u64::MAX, &mut |iova, leaf| {
                    f(id.0, iova, leaf);
                    true
                });
            }
        }
    }

    fn finish(mut self: Box<Self>) -> Result<RunResult, ReplayError> {
        self.add_causes();
        self.flush_pending(self.info.events);
        self.end_of_changes();
        let c = &mut self.counters;
        c.iotlb.lookups = c.iotlb.hits + c.iotlb.misses;
        c.iotlb.evictions = self.iotlb.evictions;
        c.iotlb.invalidated = self.iotlb.invalidated;
        let PrefetchCounters { refused, memory_reads, .. } = c.iotlb.prefetch;
        let fetched = self.iotlb.prefetch_counters();
        c.iotlb.prefetch = PrefetchCounters { refused, memory_reads, ..fetched };
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
        if self.verifier.is_some() {
            self.settle();
            self.look_at_shadows(self.info.events);
        }
        let verify = self.verifier.take().map(|v| v.finish());
        let mut devices: Vec<_> = self.spaces.device_ids.iter().zip(self.devices).collect();
        devices.sort_by_key(|(id, _)| **id);
        let devices = devices
            .into_iter()
            .map(|(id, counters)| DeviceCounters { device: id.to_string(), ..counters })
            .collect();
        let events = self.info.events;
        Ok(RunResult {
            exposure: self.exposure.map(|e| e.finish(events)),
            config: serde_json::to_value(&self.config)?,
            counters: self.counters.clone(),
            devices,
            series: self.series.finish(&self.counters),
            provenance: self.provenance,
            timing: None,
            verify,
        })
    }

    fn observe(&mut self) {
        self.outcomes = Some(Box::default());
    }

    fn outcomes(&mut self) -> &mut Outcomes {
        self.outcomes.get_or_insert_default()
    }
}

impl Nesting {
    /// The tables that a walk for a space reads.
    #[inline(always)]
    pub(super) fn stages<'a>(
        self,
        spaces: &'a Spaces,
        parent: &'a Parent,
        id: SpaceId,
    ) -> Stages<'a> {
        let space = spaces.get(id);
        let (child, parent) = match self {
            Nesting::None => (None, parent.table()),
            Nesting::Hardware => (space.child.as_ref(), parent.table()),
            Nesting::Software => match (&space.shadow, parent.walked_host()) {
                (Some(shadow), host) => (Some(shadow.table()), host),
                (None, None) => (None, parent.table()),
                (None, host) => (parent.table(), host),
            },
        };
        Stages { child, parent, child_tag: Tag(id.0) }
    }
}

/// End of the run of requests in `range` that have the source of the first and
/// come before `until_ns`; the first is a request and does.
#[inline(always)]
fn alike(chunk: &Chunk, range: Range<usize>, until_ns: u64) -> usize {
    let first = range.start;
    let (requester, pasid, domain) =
        (chunk.requester[first], chunk.pasid[first], chunk.domain[first]);
    let kinds = chunk.kind[range.clone()].iter().zip(&chunk.time_ns[range.clone()]);
    let sources = chunk.requester[range.clone()].iter().zip(&chunk.pasid[range.clone()]);
    kinds
        .zip(sources.zip(&chunk.domain[range.clone()]))
        .position(|((kind, time), ((r, p), d))| {
            *kind != Kind::Dma as i32
                || *time as u64 >= until_ns
                || (*r, *p, *d) != (requester, pasid, domain)
        })
        .map_or(range.end, |n| first + n.max(1))
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
