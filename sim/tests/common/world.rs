//! Random guests and the traces that they leave.
#![allow(dead_code)]

use std::collections::BTreeMap;

use ioasim_sim::config::{Config, Layer, resolve};
use ioasim_sim::events::{
    Chunk, DomainId, Event, Flags, Kind, OutputSpace, PAGE_SIZE, Perm, Requester, Scope, TraceInfo,
};
use ioasim_sim::replay::Replay;
use ioasim_sim::results::{RunResult, Verify};
use proptest::prelude::*;

/// Fixed number of cases, no files written; a failure prints its input.
pub fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

pub fn config(preset: &str, settings: &[&str]) -> Config {
    let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
    resolve(&Layer::Preset(preset.into()), &settings).unwrap()
}

/// One step of a guest.
#[derive(Clone, Debug)]
pub enum Step {
    Map {
        domain: u32,
        page: u64,
        gpa_page: u64,
        pages: u64,
        perm: Perm,
    },
    Unmap {
        domain: u32,
        page: u64,
        pages: u64,
    },
    Dma {
        device: u32,
        page: u64,
        needed: Perm,
    },
    /// Guest pages, to a part of host memory.
    ParentMap {
        page: u64,
        pages: u64,
        host: u64,
        perm: Perm,
    },
    ParentUnmap {
        page: u64,
        pages: u64,
    },
    Invalidate {
        domain: u32,
        scope: Scope,
    },
    Marker,
    Reset,
}

pub const DOMAINS: u32 = 3;
/// The first domain is shared by two devices.
pub const DEVICES: u32 = 4;
/// Guest-physical memory in 2 MiB frames; the last holds the guest's tables.
pub const FRAMES: u64 = 6;

pub fn domain_of(device: u32) -> u32 {
    device % DOMAINS
}

pub fn page() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0..12u64,
        3 => 508..516u64,
        2 => Just(512u64),
        1 => Just(1024u64),
        1 => (1u64 << 18) - 2..(1 << 18) + 2,
    ]
}

pub fn pages() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 1..5u64, 2 => Just(512u64), 1 => Just(515u64), 1 => Just(1024u64)]
}

pub fn perm() -> impl Strategy<Value = Perm> {
    proptest::sample::select(vec![Perm::READ, Perm::WRITE, Perm::RW, Perm::RW, Perm::RW])
}

/// Directions of accesses; unknown ones need presence only.
pub const NEEDED: [Perm; 5] = [Perm::READ, Perm::READ, Perm::WRITE, Perm::WRITE, Perm::NONE];

pub fn step(parent: bool) -> impl Strategy<Value = Step> {
    let gpa = prop_oneof![
        3 => 0..(FRAMES - 1) * 512,
        2 => (0..FRAMES - 1).prop_map(|f| f * 512),
    ];
    let scope =
        proptest::sample::select(vec![Scope::Page, Scope::Domain, Scope::Global, Scope::Context]);
    let parent_weight = if parent { 3 } else { 0 };
    // Whole frames, and pages where mappings begin.
    let change = || {
        prop_oneof![
            3 => (0..FRAMES - 1, 1..3u64).prop_map(|(f, n)| (f * 512, n * 512)),
            2 => (0..FRAMES - 1, 0..6u64, 1..4u64).prop_map(|(f, p, n)| (f * 512 + p, n)),
            1 => (0..(FRAMES - 1) * 512, 1..4u64),
        ]
    };
    prop_oneof![
        8 => (0..DOMAINS, page(), gpa, pages(), perm()).prop_map(
            |(domain, page, gpa_page, pages, perm)| {
                let gpa_page = gpa_page.min((FRAMES - 1) * 512 - pages);
                Step::Map { domain, page, gpa_page, pages, perm }
            }
        ),
        5 => (0..DOMAINS, page(), pages())
            .prop_map(|(domain, page, pages)| Step::Unmap { domain, page, pages }),
        20 => (0..DEVICES, page(), proptest::sample::select(NEEDED.to_vec()))
            .prop_map(|(device, page, needed)| Step::Dma { device, page, needed }),
        1 => (0..DOMAINS, scope).prop_map(|(domain, scope)| Step::Invalidate { domain, scope }),
        1 => Just(Step::Marker),
        1 => Just(Step::Reset),
        parent_weight => (change(), 0..8u64, perm()).prop_map(
            |((page, pages), host, perm)| Step::ParentMap { page, pages, host, perm }
        ),
        parent_weight => change().prop_map(|(page, pages)| Step::ParentUnmap { page, pages }),
    ]
}

/// When the guest invalidates after it has changed its table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Invalidations {
    /// After every change of something present, as strict mode does.
    Complete(Scope),
    /// Never.
    Missing,
}

pub fn complete() -> impl Strategy<Value = Invalidations> {
    proptest::sample::select(vec![
        Invalidations::Complete(Scope::Page),
        Invalidations::Complete(Scope::Page),
        Invalidations::Complete(Scope::Domain),
        Invalidations::Complete(Scope::Global),
    ])
}

#[derive(Default)]
pub struct Trace {
    pub events: Vec<Event>,
    pub info: TraceInfo,
    pub dma: u64,
    pub faults: u64,
}

/// The guest and its parent, page by page.
pub struct World {
    pub trace: Trace,
    pub invalidations: Invalidations,
    /// (domain, page) -> (GPA page, rights)
    pub child: BTreeMap<(u32, u64), (u64, Perm)>,
    /// Guest page -> (host page, rights); `None` = not recorded.
    pub parent: Option<BTreeMap<u64, (u64, Perm)>>,
}

pub const FRAME: u64 = 1 << 21;

impl World {
    pub fn push(&mut self, e: Event) {
        let time_ns = self.trace.events.len() as u64 * 100;
        self.trace.events.push(Event { time_ns, ..e });
    }

    pub fn event(kind: Kind, domain: u32, page: u64, pages: u64) -> Event {
        let (addr, size) = (page * PAGE_SIZE, pages * PAGE_SIZE);
        Event { domain: DomainId(domain), addr, size, ..Event::new(kind) }
    }

    /// What the guest sends for a change of `[page, page + pages)`: one
    /// aligned power of two that covers it.
    pub fn invalidate(&mut self, domain: u32, page: u64, pages: u64, scope: Scope) {
        let am = (0..).find(|am| page >> am == (page + pages - 1) >> am).unwrap();
        let flags = Flags::with_scope(scope);
        let e = match scope {
            Scope::Page => {
                let e = World::event(Kind::Invalidate, domain, page >> am << am, 1 << am);
                Event { flags, out: page * PAGE_SIZE, ..e }
            }
            Scope::Domain => Event { flags, ..World::event(Kind::Invalidate, domain, 0, 0) },
            _ => Event { flags, ..Event::new(Kind::Invalidate) },
        };
        self.push(e);
    }

    pub fn changed(&mut self, domain: u32, page: u64, pages: u64) {
        if let Invalidations::Complete(scope) = self.invalidations {
            self.invalidate(domain, page, pages, scope);
        }
    }

    pub fn step(&mut self, step: &Step) {
        match *step {
            Step::Map { domain, page, gpa_page, pages, perm } => {
                let e = World::event(Kind::Map, domain, page, pages);
                self.push(Event { out: gpa_page * PAGE_SIZE, flags: Flags(perm.0 as u32), ..e });
                let mut replaced = false;
                for i in 0..pages {
                    let old = self.child.insert((domain, page + i), (gpa_page + i, perm));
                    replaced |= old.is_some();
                }
                if replaced {
                    self.changed(domain, page, pages);
                }
            }
            Step::Unmap { domain, page, pages } => {
                self.push(World::event(Kind::Unmap, domain, page, pages));
                self.child.retain(|(d, p), _| *d != domain || !(page..page + pages).contains(p));
                self.changed(domain, page, pages);
            }
            Step::Dma { device, page, needed } => self.dma(device, page, needed),
            Step::ParentMap { page, pages, host, perm } => {
                let pages = pages.min((FRAMES - 1) * 512 - page);
                let hpa = ((host + 1) << 32) | (page * PAGE_SIZE);
                let e = World::event(Kind::ParentMap, 0, page, pages);
                self.push(Event { out: hpa, flags: Flags(perm.0 as u32), ..e });
                let parent = self.parent.as_mut().unwrap();
                for i in 0..pages {
                    parent.insert(page + i, (hpa / PAGE_SIZE + i, perm));
                }
            }
            Step::ParentUnmap { page, pages } => {
                let pages = pages.min((FRAMES - 1) * 512 - page);
                self.push(World::event(Kind::ParentUnmap, 0, page, pages));
                let parent = self.parent.as_mut().unwrap();
                (page..page + pages).for_each(|p| _ = parent.remove(&p));
            }
            Step::Invalidate { domain, scope } => self.invalidate(domain, 0, 1024, scope),
            Step::Marker => self.push(Event::new(Kind::Marker)),
            Step::Reset => {
                let flags = Flags::with_scope(Scope::Reset);
                self.push(Event { flags, ..Event::new(Kind::Invalidate) });
            }
        }
    }

    /// Where a fresh walk of all levels leads.
    pub fn translate(&self, domain: u32, page: u64, needed: Perm) -> Option<u64> {
        let (gpa_page, perm) = *self.child.get(&(domain, page))?;
        if !perm.allows(needed) {
            return None;
        }
        let Some(parent) = &self.parent else { return Some(gpa_page * PAGE_SIZE) };
        let (host, granted) = *parent.get(&gpa_page)?;
        let perm = perm.and(granted);
        (perm != Perm::NONE && perm.allows(needed)).then_some(host * PAGE_SIZE)
    }

    pub fn dma(&mut self, device: u32, page: u64, needed: Perm) {
        let direction = Flags(needed.0 as u32);
        let out = self.translate(domain_of(device), page, needed);
        self.trace.dma += 1;
        self.trace.faults += out.is_none() as u64;
        let outcome = if out.is_some() { Flags::OUT_KNOWN } else { Flags::FAULT };
        // Half of the devices are known by their domain, half by attachment.
        let domain = if device < 2 { DomainId(domain_of(device)) } else { DomainId::NONE };
        self.push(Event {
            flags: direction.with(outcome),
            requester: Requester(8 * (device + 1)),
            domain,
            addr: page * PAGE_SIZE + 0x321,
            size: 64,
            out: out.map_or(0, |out| out + 0x321),
            ..Event::new(Kind::Dma)
        });
    }
}

pub fn trace(steps: &[Step], invalidations: Invalidations, parent: bool) -> Trace {
    let mut world = World {
        trace: Trace::default(),
        invalidations,
        child: BTreeMap::new(),
        parent: parent.then(BTreeMap::new),
    };
    if parent {
        // Guest memory as at boot; the last frame is never touched again.
        for frame in 0..FRAMES {
            let out = (7u64 << 40) + frame * 3 * FRAME;
            let e = World::event(Kind::ParentMap, 0, frame * 512, 512);
            world.push(Event { out, ..e });
            let parent = world.parent.as_mut().unwrap();
            for i in 0..512 {
                parent.insert(frame * 512 + i, (out / PAGE_SIZE + i, Perm::RW));
            }
        }
    }
    for device in 0..DEVICES {
        let domain = DomainId(domain_of(device));
        let requester = Requester(8 * (device + 1));
        world.push(Event { requester, domain, ..Event::new(Kind::Attach) });
    }
    steps.iter().for_each(|s| world.step(s));
    let mut trace = world.trace;
    trace.info = TraceInfo {
        events: trace.events.len() as u64,
        end_ns: trace.events.last().map_or(0, |e| e.time_ns),
        output_space: if parent { OutputSpace::Hpa } else { OutputSpace::Gpa },
        has_parent: parent,
        iova_bits: 32,
        ..TraceInfo::default()
    };
    trace
}

pub fn chunks(events: &[Event], size: usize) -> Vec<Chunk> {
    let numbered = events.chunks(size).scan(0, |first, events| {
        let mut chunk: Chunk = events.iter().copied().collect();
        chunk.first = *first;
        *first += events.len() as u64;
        Some(chunk)
    });
    numbered.collect()
}

pub fn replay(config: &Config, trace: &Trace, verify: bool, chunk: usize) -> RunResult {
    let mut replay = Replay::new(config, &trace.info, verify);
    for chunk in chunks(&trace.events, chunk) {
        replay.run(&chunk).unwrap();
    }
    replay.finish().unwrap()
}

pub fn verified(config: &Config, trace: &Trace) -> (RunResult, Verify) {
    let result = replay(config, trace, true, usize::MAX);
    let verify = result.verify.clone().unwrap();
    (result, verify)
}
