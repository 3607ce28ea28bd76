//! The recorded trace into that of a guest with another unmap policy.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::flush_queue::FlushQueue;
use super::names::Names;
use crate::config::{FlushQueueConfig, FlushRings, InvalidationEncoding, UnmapPolicy};
use crate::events::{Chunk, DomainId, Event, Flags, Kind, Pasid, Requester, Scope};
use crate::replay::encode::{Changes, Command, encode};
use crate::results::FlushQueueCounters;

/// Least bits of addresses in front of the arena for IOVAs that are not the
/// recording's.
const ARENA_BITS: u32 = 32;

/// What is known of one domain.
struct Domain {
    queue: FlushQueue,
    names: Names,
}

/// Rewrites a trace for an unmap policy, chunk by chunk.
pub(super) struct Rewriter {
    policy: UnmapPolicy,
    queue: FlushQueueConfig,
    arena: Range<u64>,
    domains: FxHashMap<DomainId, Domain>,
    /// Unmapped in the recording, and not yet invalidated there.
    unannounced: Changes<DomainId>,
    attached: FxHashMap<(Requester, Pasid), DomainId>,
    /// No timer fires before.
    next_due_ns: u64,
    out: Chunk,
    commands: Vec<Command>,
    pub counters: FlushQueueCounters,
    /// Recorded invalidations that were dropped.
    pub replaced: u64,
}

impl Rewriter {
    /// `iova_bits` are the recording's, `width` the bits of addresses that the
    /// guest's tables hold: without room for an arena behind the recording's
    /// addresses, none has other IOVAs.
    pub fn new(
        policy: UnmapPolicy,
        queue: FlushQueueConfig,
        iova_bits: u32,
        width: u32,
    ) -> Rewriter {
        let bits = iova_bits.max(ARENA_BITS);
        let bit = |n: u32| 1u64.checked_shl(n).unwrap_or(u64::MAX);
        let end = if bits < width { bits + 1 } else { bits };
        Rewriter {
            policy,
            queue,
            arena: bit(bits)..bit(end),
            domains: FxHashMap::default(),
            unannounced: Changes::default(),
            attached: FxHashMap::default(),
            next_due_ns: u64::MAX,
            out: Chunk::default(),
            commands: Vec::new(),
            counters: FlushQueueCounters::default(),
            replaced: 0,
        }
    }

    /// The events that take the place of the next chunk's.
    pub fn rewrite(&mut self, chunk: &Chunk) -> &Chunk {
        self.out.first += self.out.len() as u64;
        self.out.clear();
        for at in 0..chunk.len() {
            let e = chunk.event(at);
            if e.time_ns >= self.next_due_ns {
                self.fire_timers(e.time_ns);
            }
            self.event(e);
        }
        &self.out
    }

    fn event(&mut self, e: Event) {
        match e.kind {
            Kind::Dma => self.dma(e),
            Kind::Map => self.map(e),
            Kind::Unmap => self.unmap(e),
            Kind::Invalidate => self.invalidate(e),
            // Recorded truths of the recorded guest's invalidations.
            Kind::ShadowMap | Kind::ShadowUnmap | Kind::HostInvalidate => {}
            Kind::Attach => {
                self.attached.insert((e.requester, e.pasid), e.domain);
                self.out.push(&e);
            }
            Kind::Detach => {
                self.attached.remove(&(e.requester, e.pasid));
                self.out.push(&e);
            }
            Kind::ParentMap | Kind::ParentUnmap | Kind::Marker => self.out.push(&e),
        }
    }

    fn dma(&mut self, e: Event) {
        let domain = match e.domain {
            DomainId::NONE => {
                let of = |pasid| self.attached.get(&(e.requester, pasid)).copied();
                of(e.pasid).or_else(|| of(Pasid::NONE)).unwrap_or(e.domain)
            }
            domain => domain,
        };
        let domain = self.domains.get(&domain).filter(|d| !d.names.are_recorded());
        let addr = domain.map_or(e.addr, |d| d.names.of(e.addr));
        self.out.push(&Event { addr, ..e });
    }

    fn map(&mut self, e: Event) {
        if self.policy != UnmapPolicy::Lazy || !is_child(e.domain) {
            return self.out.push(&e);
        }
        let range = span(&e);
        let domain = self.domain(e.domain);
        let waits = domain.queue.waits(range.clone());
        let mut replaced = Vec::new();
        let place = domain.names.map(range.clone(), waits, |old| replaced.push(old));
        let addr = match place {
            Some(addr) => {
                self.counters.renamed_maps += waits as u64;
                addr
            }
            // No other IOVA is left: this one has to become free.
            None => {
                self.counters.reuse += 1;
                self.flush(e.domain, e.time_ns, e.cpu);
                let names = &mut self.domain(e.domain).names;
                names.map(range, false, |old| replaced.push(old)).unwrap_or(e.addr)
            }
        };
        // Maps over mappings are contradictory data, and replace them.
        for old in replaced {
            self.unmap_piece(&Event { kind: Kind::Unmap, out: 0, ..e }, old);
        }
        self.out.push(&Event { addr, ..e });
    }

    fn unmap(&mut self, e: Event) {
        if !is_child(e.domain) || e.size == 0 {
            return self.out.push(&e);
        }
        let range = span(&e);
        self.unannounced.add(e.domain, range.start, range.end);
        match self.policy {
            UnmapPolicy::AsRecorded => self.out.push(&e),
            UnmapPolicy::Strict => {
                self.out.push(&e);
                // As Linux's VT-d driver: one command that covers the range.
                let cover = InvalidationEncoding::RangeCover;
                encode(cover, &[(range.start, range.end)], &mut self.commands);
                for command in self.commands.drain(..) {
                    let (scope, addr, size) = match command {
                        Command::Pages((start, end)) => (Scope::Page, start, end - start),
                        Command::Domain => (Scope::Domain, 0, 0),
                    };
                    self.out.push(&Event { addr, size, ..invalidation(&e, scope) });
                }
            }
            UnmapPolicy::Lazy => self.unmap_lazily(&e, range),
        }
    }

    fn unmap_lazily(&mut self, e: &Event, range: Range<u64>) {
        let mut pieces = Vec::new();
        let names = &mut self.domain(e.domain).names;
        // Contradictory data: what was unmapped twice waits already.
        names.pieces(range.clone(), |piece, live| pieces.extend(live.then_some(piece)));
        names.unmap(range);
        pieces.into_iter().for_each(|piece| self.unmap_piece(e, piece));
    }

    /// Unmaps a range at its present IOVAs, which wait from now on.
    fn unmap_piece(&mut self, e: &Event, piece: Range<u64>) {
        let ring = match self.queue.rings {
            FlushRings::PerCpu => usize::try_from(e.cpu).unwrap_or(0),
            FlushRings::Single => 0,
        };
        let (addr, size) = (piece.start, piece.end - piece.start);
        self.out.push(&Event { addr, size, ..*e });
        if self.domain(e.domain).queue.is_full(ring) {
            self.counters.full += 1;
            self.flush(e.domain, e.time_ns, e.cpu);
        }
        let queue = &mut self.domain(e.domain).queue;
        queue.push(ring, piece, e.time_ns, e.cpu);
        let due_ns = queue.timer().map_or(u64::MAX, |(due_ns, _)| due_ns);
        self.next_due_ns = self.next_due_ns.min(due_ns);
    }

    fn invalidate(&mut self, e: Event) {
        let scope = e.flags.scope().unwrap_or(Scope::Global);
        match scope {
            Scope::Page if !e.flags.has(Flags::MAP_NOTIFY) => {
                let range = span(&e);
                if !self.unannounced.take_known(e.domain, range.start, range.end).is_empty() {
                    self.replaced += 1;
                    return;
                }
                self.renamed(e, range);
            }
            Scope::Page => self.renamed(e, span(&e)),
            Scope::Domain if self.unannounced.clear(e.domain) => self.replaced += 1,
            Scope::Domain => {
                self.drained(e.domain);
                self.out.push(&e);
            }
            Scope::Global | Scope::Reset => {
                self.unannounced = Changes::default();
                let domains: Vec<DomainId> = self.domains.keys().copied().collect();
                domains.into_iter().for_each(|domain| self.drained(domain));
                self.out.push(&e);
            }
            Scope::Context => self.out.push(&e),
        }
    }

    /// An event for each present place of its range.
    fn renamed(&mut self, e: Event, range: Range<u64>) {
        match self.domains.get(&e.domain).filter(|d| !d.names.are_recorded()) {
            Some(domain) => domain.names.pieces(range, |piece, _| {
                let (addr, size) = (piece.start, piece.end - piece.start);
                self.out.push(&Event { addr, size, ..e });
            }),
            None => self.out.push(&e),
        }
    }

    fn domain(&mut self, id: DomainId) -> &mut Domain {
        let (queue, arena) = (self.queue, &self.arena);
        self.domains.entry(id).or_insert_with(|| Domain {
            queue: FlushQueue::new(queue.entries as usize, queue.timeout_us.saturating_mul(1000)),
            names: Names::new(arena.clone()),
        })
    }

    /// Sends a domain's flush.
    fn flush(&mut self, id: DomainId, time_ns: u64, cpu: i32) {
        let unmap = Event { time_ns, cpu, domain: id, ..Event::new(Kind::Unmap) };
        self.out.push(&invalidation(&unmap, Scope::Domain));
        self.drained(id);
    }

    /// All of a domain was invalidated.
    fn drained(&mut self, id: DomainId) {
        let Some(domain) = self.domains.get_mut(&id) else { return };
        domain.names.release(self.arena.start, domain.queue.drain());
    }

    /// Flushes whose time has come by `now_ns`, in their order.
    #[cold]
    fn fire_timers(&mut self, now_ns: u64) {
        let timers = self.domains.iter().filter_map(|(id, d)| {
            let (due_ns, cpu) = d.queue.timer()?;
            Some((due_ns, *id, cpu))
        });
        let (mut due, later): (Vec<_>, Vec<_>) = timers.partition(|(at, ..)| *at <= now_ns);
        due.sort_unstable();
        for (due_ns, id, cpu) in due {
            self.counters.timeout += 1;
            self.flush(id, due_ns, cpu);
        }
        self.next_due_ns = later.into_iter().map(|(at, ..)| at).min().unwrap_or(u64::MAX);
    }
}

/// Bytes of a map, unmap or invalidation.
fn span(e: &Event) -> Range<u64> {
    e.addr..e.addr.saturating_add(e.size)
}

/// True for an address space of the guest's.
fn is_child(domain: DomainId) -> bool {
    domain != DomainId::NONE && domain != DomainId::PARENT
}

/// An invalidation by whom caused `e`.
fn invalidation(e: &Event, scope: Scope) -> Event {
    Event {
        time_ns: e.time_ns,
        cpu: e.cpu,
        domain: e.domain,
        flags: Flags::with_scope(scope),
        ..Event::new(Kind::Invalidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::PAGE_SIZE;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    const DOMAINS: u32 = 2;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Map(u32, u64, u64),
        Unmap(u32, u64, u64, i32),
        Dma(u32, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let domain = 0..DOMAINS;
        prop_oneof![
            3 => (domain.clone(), 0..12u64, 1..5u64).prop_map(|(d, p, n)| Step::Map(d, p, n)),
            3 => (domain.clone(), 0..12u64, 1..5u64, -1..3i32)
                .prop_map(|(d, p, n, cpu)| Step::Unmap(d, p, n, cpu)),
            4 => (domain, 0..16u64).prop_map(|(d, p)| Step::Dma(d, p)),
        ]
    }

    /// A strict guest's trace: an invalidation after each unmap.
    fn events(steps: &[Step]) -> Vec<Event> {
        let mut events = Vec::new();
        for (n, step) in steps.iter().enumerate() {
            let time_ns = n as u64 * 1000;
            let of = |kind, domain: u32, page: u64, pages: u64| Event {
                time_ns,
                domain: DomainId(domain),
                addr: page * PAGE_SIZE,
                size: pages * PAGE_SIZE,
                ..Event::new(kind)
            };
            match *step {
                Step::Map(d, page, pages) => {
                    let out = (n as u64 + 1) << 32;
                    events.push(Event { out, ..of(Kind::Map, d, page, pages) });
                }
                Step::Unmap(d, page, pages, cpu) => {
                    let e = Event { cpu, ..of(Kind::Unmap, d, page, pages) };
                    events.push(e);
                    let flags = Flags::with_scope(Scope::Page);
                    events.push(Event { kind: Kind::Invalidate, flags, ..e });
                }
                Step::Dma(d, page) => {
                    let e = of(Kind::Dma, d, page, 1);
                    events.push(Event { addr: e.addr + 5, size: 8, ..e });
                }
            }
        }
        events
    }

    fn rewritten(rewriter: &mut Rewriter, events: &[Event], chunk: usize) -> Vec<Event> {
        let mut out = Vec::new();
        for events in events.chunks(chunk) {
            let to = rewriter.rewrite(&events.iter().copied().collect());
            assert_eq!(to.first, out.len() as u64);
            out.extend((0..to.len()).map(|at| to.event(at)));
        }
        out
    }

    /// What each access finds in the tables, page by page.
    fn found(events: &[Event]) -> Vec<Option<u64>> {
        let mut tables: HashMap<(DomainId, u64), u64> = HashMap::new();
        let mut found = Vec::new();
        for e in events {
            let (first, pages) = (e.addr / PAGE_SIZE, e.size / PAGE_SIZE);
            for n in 0..pages {
                match e.kind {
                    Kind::Map => _ = tables.insert((e.domain, first + n), e.out / PAGE_SIZE + n),
                    Kind::Unmap => _ = tables.remove(&(e.domain, first + n)),
                    _ => {}
                }
            }
            if e.kind == Kind::Dma {
                assert_eq!(e.addr % PAGE_SIZE, 5);
                found.push(tables.get(&(e.domain, first)).copied());
            }
        }
        found
    }

    fn queue(entries: u64, timeout_us: u64, rings: FlushRings) -> FlushQueueConfig {
        FlushQueueConfig { entries, timeout_us, rings }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        /// Devices reach the same memory; no IOVA is used again before a flush;
        /// no ring holds more than it can, and nothing waits for too long.
        #[test]
        fn a_lazy_guest_keeps_its_promises(
            steps in prop::collection::vec(step(), 1..120),
            entries in 1..5u64,
            timeout_us in prop_oneof![Just(3u64), Just(20), Just(1_000_000)],
            single in any::<bool>(),
            chunk in 1..40usize,
            bits in prop_oneof![3 => Just(32u32), 1 => Just(56), 1 => Just(57), 1 => Just(64)],
        ) {
            let rings = if single { FlushRings::Single } else { FlushRings::PerCpu };
            let recorded = events(&steps);
            let queue = queue(entries, timeout_us, rings);
            let mut rewriter = Rewriter::new(UnmapPolicy::Lazy, queue, bits, 57);
            let out = rewritten(&mut rewriter, &recorded, chunk);
            prop_assert_eq!(found(&out), found(&recorded));
            prop_assert!(out.windows(2).all(|w| w[0].time_ns <= w[1].time_ns));
            // What was unmapped and not flushed: pages, entries by ring, and
            // the time of the first.
            let mut waiting: HashMap<DomainId, HashSet<u64>> = HashMap::new();
            let mut rings: HashMap<DomainId, HashMap<i32, u64>> = HashMap::new();
            let mut since: HashMap<DomainId, u64> = HashMap::new();
            let mut flushes = 0;
            for e in &out {
                let pages = e.addr / PAGE_SIZE..(e.addr + e.size) / PAGE_SIZE;
                match e.kind {
                    Kind::Map => {
                        let waiting = waiting.entry(e.domain).or_default();
                        prop_assert!(pages.clone().all(|p| !waiting.contains(&p)), "{:?}", e);
                    }
                    Kind::Unmap => {
                        waiting.entry(e.domain).or_default().extend(pages);
                        since.entry(e.domain).or_insert(e.time_ns);
                        let ring = if single { 0 } else { e.cpu.max(0) };
                        *rings.entry(e.domain).or_default().entry(ring).or_default() += 1;
                    }
                    Kind::Invalidate => {
                        prop_assert_eq!(e.flags.scope(), Some(Scope::Domain));
                        flushes += 1;
                        waiting.remove(&e.domain);
                        rings.remove(&e.domain);
                        since.remove(&e.domain);
                    }
                    _ => {}
                }
                // The unmap that finds its ring full stands before the flush.
                let most = rings.values().flat_map(|r| r.values()).max().copied().unwrap_or(0);
                prop_assert!(most <= entries + (e.kind == Kind::Unmap) as u64);
                for at in since.values() {
                    prop_assert!(e.time_ns < at + timeout_us * 1000 || e.time_ns == *at);
                }
            }
            let c = rewriter.counters;
            prop_assert_eq!(flushes, c.full + c.timeout + c.reuse);
            prop_assert!(bits < 57 || c.renamed_maps == 0, "no room for other IOVAs");
            prop_assert!(bits >= 57 || c.reuse == 0);
        }

        /// A strict guest's trace is the same again, invalidation by
        /// invalidation, whatever it was recorded as.
        #[test]
        fn strict_is_an_invalidation_after_each_unmap(
            steps in prop::collection::vec(step(), 1..120),
            lazy in any::<bool>(),
        ) {
            let strict = events(&steps);
            let mut recorded = strict.clone();
            if lazy {
                recorded.retain(|e| e.kind != Kind::Invalidate);
                let last = recorded.last().unwrap().time_ns;
                for domain in 0..DOMAINS {
                    let unmap = Event { time_ns: last, domain: DomainId(domain), ..Event::new(Kind::Unmap) };
                    recorded.push(invalidation(&unmap, Scope::Domain));
                }
            }
            let queue = queue(255, 10_000, FlushRings::PerCpu);
            let mut rewriter = Rewriter::new(UnmapPolicy::Strict, queue, 32, 39);
            let out = rewritten(&mut rewriter, &recorded, 7);
            let without = |events: &[Event]| -> Vec<Event> {
                events.iter().filter(|e| e.kind != Kind::Invalidate).copied().collect()
            };
            prop_assert_eq!(without(&out), without(&strict));
            let unmaps = out.iter().enumerate().filter(|(_, e)| e.kind == Kind::Unmap);
            for (at, unmap) in unmaps {
                let sent = out[at + 1];
                prop_assert_eq!((sent.kind, sent.domain), (Kind::Invalidate, unmap.domain));
                prop_assert_eq!(sent.flags.scope(), Some(Scope::Page));
                prop_assert!(sent.addr <= unmap.addr && unmap.addr + unmap.size <= sent.addr + sent.size);
                prop_assert!(sent.size < 4 * 16 * PAGE_SIZE && sent.size.is_power_of_two());
            }
        }
    }

    /// Invalidations that serve something else stay; a flush of the recorded
    /// guest's goes with what it was for.
    #[test]
    fn other_invalidations_stay() {
        let at = |kind, page: u64| Event {
            domain: DomainId(1),
            addr: page * PAGE_SIZE,
            size: PAGE_SIZE,
            ..Event::new(kind)
        };
        let notify = Flags::with_scope(Scope::Page).with(Flags::MAP_NOTIFY);
        let page = Flags::with_scope(Scope::Page);
        let domain = Flags::with_scope(Scope::Domain);
        let recorded = [
            at(Kind::Map, 3),
            Event { flags: notify, ..at(Kind::Invalidate, 3) },
            Event { flags: domain, ..at(Kind::Invalidate, 0) },
            at(Kind::Unmap, 3),
            Event { flags: page, ..at(Kind::Invalidate, 9) },
            Event { flags: page, ..at(Kind::Invalidate, 3) },
            at(Kind::Map, 3),
            Event { flags: notify, ..at(Kind::Invalidate, 3) },
            at(Kind::ShadowMap, 3),
            at(Kind::Unmap, 3),
            Event { flags: domain, ..at(Kind::Invalidate, 0) },
        ];
        let queue = queue(255, 10_000, FlushRings::PerCpu);
        let mut rewriter = Rewriter::new(UnmapPolicy::Lazy, queue, 20, 39);
        let out = rewritten(&mut rewriter, &recorded, 4);
        let moved = 1 << ARENA_BITS;
        let kinds: Vec<(Kind, u64)> = out.iter().map(|e| (e.kind, e.addr)).collect();
        let p = |page: u64| page * PAGE_SIZE;
        let expected = [
            (Kind::Map, p(3)),
            (Kind::Invalidate, p(3)),
            (Kind::Invalidate, 0),
            (Kind::Unmap, p(3)),
            (Kind::Invalidate, p(9)),
            (Kind::Map, moved),
            (Kind::Invalidate, moved),
            (Kind::Unmap, moved),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(rewriter.replaced, 2);
    }
}
