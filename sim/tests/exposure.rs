//! Exposure against a reference that looks at every open unmap after every
//! event, on caches simple enough to be simulated in a few lines.

use std::collections::BTreeMap;

use ioasim_sim::config::{Config, Layer, resolve};
use ioasim_sim::events::{
    Chunk, DomainId, Event, Flags, Kind, OutputSpace, PAGE_SIZE, Requester, Scope, TraceInfo,
};
use ioasim_sim::replay::Replay;
use ioasim_sim::results::ExposureResult;
use proptest::collection::vec;
use proptest::prelude::*;

/// Entries of the fully associative LRU IOTLB.
const ENTRIES: usize = 3;
const DOMAINS: u32 = 2;
const PAGES: u64 = 6;

#[derive(Clone, Debug)]
enum Step {
    Map { domain: u32, page: u64, gpa: u64 },
    Unmap { domain: u32, page: u64, pages: u64 },
    Dma { domain: u32, page: u64 },
    Invalidate { domain: u32, page: u64, am: u32 },
    InvalidateDomain { domain: u32 },
    Marker,
}

fn step() -> impl Strategy<Value = Step> {
    let domain = || 0..DOMAINS;
    let page = || 0..PAGES;
    prop_oneof![
        // Few frames: the same translation is often made again.
        6 => (domain(), page(), 0..3u64).prop_map(|(domain, page, gpa)| {
            // Never adjacent, so that no two pages make a larger one.
            Step::Map { domain, page, gpa: 100 + 2 * PAGES * gpa + 7 * page % 5 }
        }),
        5 => (domain(), page(), 1..3u64)
            .prop_map(|(domain, page, pages)| Step::Unmap { domain, page, pages }),
        12 => (domain(), page()).prop_map(|(domain, page)| Step::Dma { domain, page }),
        3 => (domain(), page(), 0..3u32).prop_map(|(domain, page, am)| {
            Step::Invalidate { domain, page: page >> am << am, am }
        }),
        1 => domain().prop_map(|domain| Step::InvalidateDomain { domain }),
        1 => Just(Step::Marker),
    ]
}

fn event(kind: Kind, domain: u32, page: u64, pages: u64) -> Event {
    let (addr, size) = (page * PAGE_SIZE, pages * PAGE_SIZE);
    let (domain, requester) = (DomainId(domain + 1), Requester(8 * domain));
    Event { domain, requester, addr, size, ..Event::new(kind) }
}

fn events(steps: &[Step]) -> Vec<Event> {
    let of = |s: &Step| match *s {
        Step::Map { domain, page, gpa } => {
            let flags = Flags::READ.with(Flags::WRITE);
            Event { out: gpa * PAGE_SIZE, flags, ..event(Kind::Map, domain, page, 1) }
        }
        Step::Unmap { domain, page, pages } => event(Kind::Unmap, domain, page, pages),
        Step::Dma { domain, page } => {
            Event { flags: Flags::READ, ..event(Kind::Dma, domain, page, 0) }
        }
        Step::Invalidate { domain, page, am } => {
            let flags = Flags::with_scope(Scope::Page);
            let e = event(Kind::Invalidate, domain, page, 1 << am);
            Event { flags, out: e.addr, ..e }
        }
        Step::InvalidateDomain { domain } => {
            let flags = Flags::with_scope(Scope::Domain);
            Event { flags, ..event(Kind::Invalidate, domain, 0, 0) }
        }
        Step::Marker => Event::new(Kind::Marker),
    };
    let timed = |(i, e): (usize, Event)| Event { time_ns: 10 * i as u64, ..e };
    steps.iter().map(of).enumerate().map(timed).collect()
}

type Page = (u32, u64);

/// Pages of an unmap that are still reachable.
struct Open {
    event: u64,
    pages: BTreeMap<Page, u64>,
}

/// What keeps a shadow: nothing (the walk is live), or a policy.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shadow {
    None,
    MapUnmap,
    Range,
    Demand,
    WriteProtect,
}

struct Reference {
    shadowing: Shadow,
    child: BTreeMap<Page, u64>,
    shadow: BTreeMap<Page, u64>,
    /// Least recently used first.
    iotlb: Vec<(Page, u64)>,
    open: Vec<Open>,
    result: ExposureResult,
    distances: Vec<u64>,
}

impl Reference {
    fn drop_cached(&mut self, domain: u32, pages: std::ops::Range<u64>) {
        self.iotlb.retain(|((d, p), _)| *d != domain || !pages.contains(p));
    }

    /// The host unmaps a page: entry and cached copies go.
    fn unshadow(&mut self, at: Page) {
        if self.shadow.remove(&at).is_some() {
            self.drop_cached(at.0, at.1..at.1 + 1);
        }
    }

    fn follow(&mut self, at: Page) {
        let now = self.child.get(&at).copied();
        if self.shadow.get(&at).copied() != now {
            self.unshadow(at);
            self.shadow.extend(now.map(|out| (at, out)));
        }
    }

    fn invalidate(&mut self, domain: u32, pages: std::ops::Range<u64>) {
        match self.shadowing {
            Shadow::None => self.drop_cached(domain, pages),
            Shadow::MapUnmap | Shadow::WriteProtect => {}
            Shadow::Range => pages.for_each(|p| self.follow((domain, p))),
            Shadow::Demand => pages.for_each(|p| self.unshadow((domain, p))),
        }
    }

    fn dma(&mut self, at: Page, event: u64) {
        let cached = self.iotlb.iter().position(|(page, _)| *page == at);
        let out = match cached {
            Some(i) => Some(self.iotlb.remove(i).1),
            None => match self.shadowing {
                Shadow::None => self.child.get(&at).copied(),
                Shadow::Demand if !self.shadow.contains_key(&at) => {
                    self.follow(at);
                    self.shadow.get(&at).copied()
                }
                _ => self.shadow.get(&at).copied(),
            },
        };
        let Some(out) = out else { return };
        if self.iotlb.len() == ENTRIES {
            self.iotlb.remove(0);
        }
        self.iotlb.push((at, out));
        if self.child.get(&at) != Some(&out) {
            let unmapped = self.open.iter().find(|o| o.pages.get(&at) == Some(&out));
            if let Some(unmapped) = unmapped {
                self.result.stale_dma += 1;
                let first = &self.result.first_stale_dma;
                if let Some(listed) = first.iter().find(|s| s.event == event) {
                    assert_eq!(listed.unmap_event, unmapped.event);
                }
            }
        }
    }

    fn look(&mut self, event: u64) {
        let (child, shadow, iotlb) = (&self.child, &self.shadow, &self.iotlb);
        let (result, distances) = (&mut self.result, &mut self.distances);
        self.open.retain_mut(|open| {
            open.pages.retain(|at, out| {
                let reachable = shadow.get(at) == Some(out)
                    || iotlb.iter().any(|(page, o)| page == at && o == out);
                reachable && child.get(at) != Some(out)
            });
            if open.pages.is_empty() {
                match event - open.event {
                    0 => result.closed_at_once += 1,
                    _ => result.closed_later += 1,
                }
                distances.push(event - open.event);
            }
            !open.pages.is_empty()
        });
    }

    fn step(&mut self, step: &Step, number: u64) {
        match *step {
            Step::Map { domain, page, gpa } => {
                self.child.insert((domain, page), gpa);
                if matches!(self.shadowing, Shadow::MapUnmap | Shadow::WriteProtect) {
                    self.follow((domain, page));
                }
                // A map call over the same page unmaps it first.
                if self.shadowing == Shadow::MapUnmap {
                    self.drop_cached(domain, page..page + 1);
                }
            }
            Step::Unmap { domain, page, pages } => {
                let range = (domain, page)..(domain, page + pages);
                let gone: BTreeMap<Page, u64> =
                    self.child.range(range).map(|(at, out)| (*at, *out)).collect();
                gone.keys().for_each(|at| {
                    self.child.remove(at);
                });
                if matches!(self.shadowing, Shadow::MapUnmap | Shadow::WriteProtect) {
                    (page..page + pages).for_each(|p| self.unshadow((domain, p)));
                }
                if !gone.is_empty() {
                    self.result.unmaps += 1;
                    self.open.push(Open { event: number, pages: gone });
                }
            }
            Step::Dma { domain, page } => self.dma((domain, page), number),
            Step::Invalidate { domain, page, am } => {
                self.invalidate(domain, page..page + (1 << am));
            }
            Step::InvalidateDomain { domain } => self.invalidate(domain, 0..2 * PAGES),
            Step::Marker => {}
        }
        self.look(number);
    }
}

fn config(preset: &str) -> Config {
    let settings = [
        "report.exposure=true",
        "parent.layout=identity",
        "guest.caching_mode=as-recorded",
        &format!("iotlb.entries={ENTRIES}"),
        &format!("iotlb.ways={ENTRIES}"),
    ];
    let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
    resolve(&Layer::Preset(preset.into()), &settings).unwrap()
}

fn replay(config: &Config, events: &[Event]) -> ExposureResult {
    let info = TraceInfo { events: events.len() as u64, iova_bits: 32, ..TraceInfo::default() };
    let mut replay = Replay::new(config, &info, true);
    let chunk: Chunk = events.iter().copied().collect();
    replay.run(&chunk).unwrap();
    let result = replay.finish().unwrap();
    assert!(result.verify.unwrap().passed());
    result.exposure.expect("asked for")
}

fn agrees(preset: &str, shadowing: Shadow, steps: &[Step]) -> Result<(), TestCaseError> {
    let found = replay(&config(preset), &events(steps));
    let mut r = Reference {
        shadowing,
        child: BTreeMap::new(),
        shadow: BTreeMap::new(),
        iotlb: Vec::new(),
        open: Vec::new(),
        result: ExposureResult {
            first_stale_dma: found.first_stale_dma.clone(),
            ..ExposureResult::default()
        },
        distances: Vec::new(),
    };
    for (i, step) in steps.iter().enumerate() {
        r.step(step, i as u64);
    }
    let counts = |e: &ExposureResult| (e.unmaps, e.closed_at_once, e.closed_later, e.stale_dma);
    prop_assert_eq!(counts(&found), counts(&r.result), "{}", preset);
    prop_assert_eq!(found.open_at_end, r.open.len() as u64);
    prop_assert_eq!(found.first_stale_dma.len() as u64, found.stale_dma.min(20));
    let (n, sum) = (r.distances.len() as u64, r.distances.iter().sum::<u64>());
    let max = r.distances.iter().max().copied().unwrap_or(0);
    prop_assert_eq!((found.events_max, found.ns_max), (max, 10 * max));
    prop_assert!((found.events_mean * n as f64 - sum as f64).abs() < 1e-6);
    prop_assert_eq!(found.events_histogram.iter().sum::<u64>(), n);
    for (bucket, count) in found.events_histogram.iter().enumerate() {
        let inside = r.distances.iter().filter(|d| (64 - d.leading_zeros()) as usize == bucket);
        prop_assert_eq!(*count, inside.count() as u64);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400, failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn same_as_looking_at_everything_after_every_event(steps in vec(step(), 1..80)) {
        agrees("hw-nested", Shadow::None, &steps)?;
        agrees("sw-nested-map", Shadow::MapUnmap, &steps)?;
        agrees("sw-nested-invalidate", Shadow::Range, &steps)?;
        agrees("sw-nested-demand", Shadow::Demand, &steps)?;
        agrees("sw-nested-write-protect", Shadow::WriteProtect, &steps)?;
    }
}

/// An unmap of the parent where nothing but the recording's own invalidations
/// of the physical IOMMU empties its IOTLB, and where the policy does.
#[test]
fn an_unmap_of_the_parent() {
    const HOST: u64 = 1 << 32;
    let host_flush = Event {
        kind: Kind::HostInvalidate,
        flags: Flags::with_scope(Scope::Domain),
        ..event(Kind::HostInvalidate, 0, 0, 0)
    };
    let dma = Event { flags: Flags::READ, ..event(Kind::Dma, 0, 1, 0) };
    let events = [
        Event { out: HOST, size: 4 << 20, ..Event::new(Kind::ParentMap) },
        Event { out: 5 * PAGE_SIZE, flags: Flags::READ, ..event(Kind::Map, 0, 1, 1) },
        dma,
        Event { addr: 0, size: 2 << 20, ..Event::new(Kind::ParentUnmap) },
        dma,
        Event::new(Kind::Marker),
        host_flush,
        dma,
    ];
    let run = |preset: &str, settings: &[&str]| {
        let settings: Vec<String> =
            settings.iter().chain(&["report.exposure=true"]).map(|s| s.to_string()).collect();
        let config = resolve(&Layer::Preset(preset.into()), &settings).unwrap();
        let info = TraceInfo {
            events: events.len() as u64,
            iova_bits: 32,
            has_parent: true,
            output_space: OutputSpace::Hpa,
            ..TraceInfo::default()
        };
        let mut replay = Replay::new(&config, &info, false);
        let chunk: Chunk = events.iter().copied().collect();
        replay.run(&chunk).unwrap();
        replay.finish().unwrap().exposure.unwrap()
    };
    let e = run("qemu-vtd-7.2", &[]);
    assert_eq!((e.unmaps, e.parent_unmaps, e.closed_later, e.events_max), (1, 1, 1, 3));
    assert_eq!(e.stale_dma, 1);
    let first = &e.first_stale_dma[0];
    assert_eq!((first.event, first.unmap_event), (4, 3));
    assert_eq!((first.iova, first.out), (PAGE_SIZE, HOST + 5 * PAGE_SIZE));
    for preset in ["hw-nested", "sw-nested-map", "sw-nested-demand", "sw-nested-write-protect"] {
        let e = run(preset, &["parent.change=flush-all"]);
        let found = (e.unmaps, e.parent_unmaps, e.closed_at_once, e.stale_dma);
        assert_eq!(found, (1, 1, 1, 0), "{preset}");
    }
}

/// One unmap, from the eyes of each policy.
#[test]
fn one_unmap() {
    let steps = [
        Step::Map { domain: 0, page: 1, gpa: 9 },
        Step::Invalidate { domain: 0, page: 1, am: 0 },
        Step::Dma { domain: 0, page: 1 },
        Step::Unmap { domain: 0, page: 1, pages: 1 },
        Step::Dma { domain: 0, page: 1 },
        Step::Marker,
        Step::Invalidate { domain: 0, page: 0, am: 1 },
        Step::Dma { domain: 0, page: 1 },
    ];
    for (preset, distance, stale) in [
        ("hw-nested", 3, 1),
        ("sw-nested-invalidate", 3, 1),
        ("sw-nested-flush", 3, 1),
        ("sw-nested-demand", 3, 1),
        ("sw-nested-map", 0, 0),
        ("sw-nested-write-protect", 0, 0),
    ] {
        let e = replay(&config(preset), &events(&steps));
        assert_eq!((e.unmaps, e.events_max, e.stale_dma), (1, distance, stale), "{preset}");
        if stale > 0 {
            let first = &e.first_stale_dma[0];
            assert_eq!((first.event, first.unmap_event), (4, 3));
            assert_eq!((first.iova, first.out), (0x1000, 0x9000));
        }
    }
    // Without a vIOMMU the guest's table protects nothing: nothing to measure.
    assert_eq!(replay(&config("passthrough"), &events(&steps)).unmaps, 0);
    // Never invalidated: open to the end.
    let e = replay(&config("hw-nested"), &events(&steps[..6]));
    assert_eq!((e.open_at_end, e.open_events_max, e.closed_later), (1, 3, 0));
}
