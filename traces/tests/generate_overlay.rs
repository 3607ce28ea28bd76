//! Parent-change overlays against a model of pages: the recorded events stay,
//! and every change is one that a careful VMM could make.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use ioasim_events::{DomainId, Event, Flags, Kind, OutputSpace, Requester, Scope};
use ioasim_traces::file::{Meta, TraceReader, TraceWriter};
use ioasim_traces::generate::{
    Control, Distribution, Options, Rate, SyntheticGuest, Workload, generate_to_file,
    overlay_to_file,
};
use proptest::prelude::*;

/// First GPA of the made-up recordings, and pages that they use.
const GPA: u64 = 0x4000_0000;
const PAGES: u64 = 48;
/// Where the recorded parent puts it.
const HPA: u64 = 0x1_2340_0000;
const MEMORY: u64 = 64 << 20;

fn domain(d: u64) -> DomainId {
    DomainId(1 + d as u32)
}

fn dma(d: u64, iova: u64, flags: Flags, out: u64) -> Event {
    Event {
        domain: domain(d),
        requester: Requester(8 * (1 + d as u32)),
        addr: iova | 0x40,
        size: 64,
        flags,
        out,
        ..Event::new(Kind::Dma)
    }
}

/// A recording from arbitrary steps: maps, unmaps with their invalidations,
/// accesses to what is mapped, markers. With `shadows` the parent, outputs in
/// host addresses and shadow operations are recorded, too.
fn recording(steps: &[(u8, u64, u64, u64)], shadows: bool) -> Vec<Event> {
    let mut events = Vec::new();
    let mut table: HashMap<(u64, u64), u64> = HashMap::new();
    let hpa = |gpa: u64| gpa - GPA + HPA;
    if shadows {
        let flags = Flags::READ.with(Flags::WRITE);
        let (addr, size) = (GPA, MEMORY);
        events.push(Event { addr, size, out: HPA, flags, ..Event::new(Kind::ParentMap) });
    }
    let invalidate = |d, addr| Event {
        domain: domain(d),
        addr,
        size: 4096,
        out: addr,
        flags: Flags::with_scope(Scope::Page),
        ..Event::new(Kind::Invalidate)
    };
    for &(what, d, slot, page) in steps {
        let (d, iova) = (d % 2, 0xffff_0000 - (slot % 12) * 4096);
        let gpa = GPA + page % PAGES * 4096;
        let at = |kind| Event { domain: domain(d), addr: iova, size: 4096, ..Event::new(kind) };
        match (what % 8, table.get(&(d, iova)).copied()) {
            (0 | 1, None) => {
                let flags = Flags::READ.with(Flags::WRITE);
                events.push(Event { out: gpa, flags, ..at(Kind::Map) });
                table.insert((d, iova), gpa);
                if shadows {
                    events.push(invalidate(d, iova));
                    let aux = hpa(gpa);
                    events.push(Event { out: gpa, aux, flags, ..at(Kind::ShadowMap) });
                }
            }
            (2, Some(_)) => {
                events.push(at(Kind::Unmap));
                table.remove(&(d, iova));
                events.push(invalidate(d, iova));
                if shadows {
                    events.push(at(Kind::ShadowUnmap));
                }
            }
            (3, _) if page == 0 => events.push(Event::new(Kind::Marker)),
            (_, Some(gpa)) => {
                let direction = [Flags::READ, Flags::WRITE, Flags::default()][(page % 3) as usize];
                let out = if shadows { hpa(gpa) } else { gpa };
                let flags = Flags::OUT_KNOWN.with(Flags::LABEL_KNOWN).with(direction);
                events.push(dma(d, iova, flags, out | 0x40));
            }
            _ => {}
        }
    }
    for (i, e) in events.iter_mut().enumerate() {
        e.time_ns = i as u64 * 700;
    }
    events
}

fn write(path: &Path, events: &[Event], shadows: bool) {
    let mut writer = TraceWriter::create(path).unwrap();
    for e in events {
        match e.kind {
            Kind::Marker => writer.push_marker(e, &format!("at {}", e.time_ns)).unwrap(),
            _ => writer.push(e).unwrap(),
        }
    }
    let output_space = if shadows { OutputSpace::Hpa } else { OutputSpace::Gpa };
    writer.finish(Meta { output_space, ..Meta::default() }).unwrap();
}

fn read(path: &Path) -> Vec<Event> {
    let reader = TraceReader::open(path).unwrap();
    let mut events = Vec::new();
    for chunk in reader.chunks() {
        let chunk = chunk.unwrap();
        events.extend((0..chunk.len()).map(|i| chunk.event(i)));
    }
    events
}

/// The parent, page by page.
#[derive(Default)]
struct Parent {
    /// GPA to HPA and rights.
    pages: HashMap<u64, (u64, u32)>,
    /// Host pages in use.
    hosts: HashSet<u64>,
}

impl Parent {
    fn get(&self, gpa: &u64) -> Option<(u64, u32)> {
        self.pages.get(gpa).copied()
    }

    fn remove(&mut self, gpa: &u64) -> bool {
        let old = self.pages.remove(gpa);
        old.is_some_and(|(hpa, _)| self.hosts.remove(&hpa))
    }

    /// Maps; no host page may back two guest pages.
    fn add(&mut self, e: &Event) {
        for (k, page) in pages(e).enumerate() {
            let hpa = e.out + k as u64 * 4096;
            self.remove(&page);
            assert!(self.hosts.insert(hpa), "host page {hpa:#x} is used twice: {e:?}");
            self.pages.insert(page, (hpa, e.flags.0 & 3));
        }
    }
}

fn pages(e: &Event) -> impl Iterator<Item = u64> + use<> {
    (e.addr / 4096..(e.addr + e.size).div_ceil(4096)).map(|p| p * 4096)
}

/// Replays an overlaid trace against pages; panics where a rule is broken.
fn check(recorded: &[Event], overlaid: &[Event], options: &Options, shadows: bool) {
    let mut parent = Parent::default();
    let mut table: HashMap<(u32, u64), u64> = HashMap::new();
    let mut shadow: HashMap<(u32, u64), u64> = HashMap::new();
    let mut next = recorded.iter().peekable();
    let mut last = 0;
    for (i, e) in overlaid.iter().enumerate() {
        assert!(e.time_ns >= last);
        last = e.time_ns;
        let is_recorded = next.peek().is_some_and(|r| {
            let mut same = *e;
            if shadows && r.kind == Kind::Dma && !e.flags.has(Flags::OUT_KNOWN) {
                (same.flags, same.out) = (r.flags, r.out);
            }
            if shadows && r.kind == Kind::ShadowMap && e.aux == 0 {
                same.aux = r.aux;
            }
            same == **r
        });
        if is_recorded {
            let r = next.next().unwrap();
            match e.kind {
                Kind::Map => {
                    table.insert((e.domain.0, e.addr), e.out);
                    if !options.in_use {
                        assert!(parent.get(&e.out).is_some(), "event {i}: map of absent memory");
                    }
                }
                Kind::Unmap => drop(table.remove(&(e.domain.0, e.addr))),
                Kind::ShadowMap => {
                    shadow.insert((e.domain.0, e.addr), e.out);
                    let now = parent.get(&e.out).map(|p| p.0);
                    assert_eq!(e.aux == 0, now != Some(r.aux), "event {i}: HPA cleared or not");
                }
                Kind::ShadowUnmap => drop(shadow.remove(&(e.domain.0, e.addr))),
                Kind::ParentMap => parent.add(e),
                Kind::Dma => {
                    let gpa = table[&(e.domain.0, e.addr & !0xfff)];
                    let Some((hpa, rights)) = parent.get(&gpa) else {
                        panic!("event {i}: access to absent memory {gpa:#x}");
                    };
                    if !r.flags.has(Flags::READ) {
                        assert_eq!(rights & 2, 2, "event {i}: write to protected {gpa:#x}");
                    }
                    if shadows {
                        let true_now = hpa == r.out & !0xfff;
                        assert_eq!(e.flags.has(Flags::OUT_KNOWN), true_now, "event {i}");
                    }
                }
                _ => {}
            }
            continue;
        }
        if shadows {
            assert_eq!(table, shadow, "event {i}: parent change while a shadow is behind");
        }
        match e.kind {
            Kind::ParentMap => parent.add(e),
            Kind::ParentUnmap => {
                let mapped: HashSet<u64> = table.values().copied().collect();
                for page in pages(e) {
                    if options.workload.removes() && !options.in_use {
                        assert!(!mapped.contains(&page), "event {i}: {page:#x} is in use");
                    }
                    assert!(parent.remove(&page), "event {i}: {page:#x} taken twice");
                }
            }
            _ => panic!("event {i} is neither recorded nor a parent change: {e:?}"),
        }
    }
    assert_eq!(next.next(), None, "recorded events are missing");
}

fn options() -> impl Strategy<Value = Options> {
    let workload = proptest::sample::select(Workload::ALL.to_vec());
    let how = proptest::sample::select(vec![
        Distribution::Hot,
        Distribution::Uniform,
        Distribution::Zipf,
        Distribution::Sequential,
    ]);
    let rest = (1u64..6, 1u64..5, any::<bool>(), any::<u64>(), 0u64..4, any::<bool>());
    (workload, how, rest).prop_map(|(w, how, (every, batch, in_use, seed, after, timed))| {
        let ordered = matches!(w, Workload::WriteProtect | Workload::PostCopy);
        Options {
            rate: if timed { Rate::PerSecond(400_000.0) } else { Rate::EveryDma(every) },
            batch: (w != Workload::WriteProtect).then_some(batch),
            distribution: (!ordered).then_some(how),
            // Small units, so that the model of pages stays fast.
            size: match w {
                Workload::HotUnplug => Some(8 << 20),
                Workload::VirtioMem => Some(1 << 20),
                _ => None,
            },
            in_use: in_use && (w.removes() || w == Workload::PostCopy),
            after_dma: after,
            seed,
            ..Options::new(w)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn recorded_events_stay_and_changes_keep_the_rules(
        steps in proptest::collection::vec((any::<u8>(), 0u64..2, 0u64..12, 0u64..PAGES), 1..120),
        options in options(),
        shadows in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in.parquet"), dir.path().join("out.parquet"));
        let recorded = recording(&steps, shadows);
        write(&input, &recorded, shadows);
        let reader = TraceReader::open(&input).unwrap();
        overlay_to_file(&reader, &output, &options, &mut Control::default()).unwrap();
        check(&recorded, &read(&output), &options, shadows);
        // The same once more, byte by byte.
        let again = dir.path().join("again.parquet");
        overlay_to_file(&reader, &again, &options, &mut Control::default()).unwrap();
        prop_assert_eq!(std::fs::read(&output).unwrap(), std::fs::read(&again).unwrap());
        let texts = |p: &Path| -> Vec<String> {
            TraceReader::open(p).unwrap().markers().map(|m| m.unwrap().1).collect()
        };
        prop_assert_eq!(texts(&input), texts(&output));
    }
}

#[test]
fn every_workload_changes_something_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("g.parquet");
    let guest = SyntheticGuest { accesses: 2_000, entries: 64, ..SyntheticGuest::default() };
    for workload in Workload::ALL {
        // The made-up guest uses all of its memory: no DIMM is ever free.
        let in_use = workload == Workload::HotUnplug;
        let options = Options { rate: Rate::EveryDma(50), in_use, ..Options::new(workload) };
        let summary = generate_to_file(&guest, &output, &options, &mut Control::default()).unwrap();
        let counts = &summary.meta.import_counts;
        assert!(counts["overlay_operations"] >= 39, "{workload:?}: {counts:?}");
        assert!(summary.meta.totals.kinds["parent_map"] > 3, "{workload:?}: {counts:?}");
        let made_up = &summary.meta.synthetic[0];
        assert_eq!(made_up.workload, workload.name());
        assert!(made_up.guest && made_up.parent_layout.as_deref() == Some("2m"));
        assert!(summary.meta.notes.iter().any(|n| n.starts_with("OVERLAID")));
        let events = read(&output);
        let recorded: Vec<Event> = events
            .iter()
            .filter(|e| !matches!(e.kind, Kind::ParentMap | Kind::ParentUnmap))
            .copied()
            .collect();
        check(&recorded, &events, &options, false);
    }
}

#[test]
fn another_seed_gives_other_changes() {
    let dir = tempfile::tempdir().unwrap();
    let guest = SyntheticGuest { accesses: 2_000, entries: 64, ..SyntheticGuest::default() };
    let of = |seed: u64| {
        let output = dir.path().join(format!("{seed}.parquet"));
        let options =
            Options { seed, rate: Rate::EveryDma(50), ..Options::new(Workload::PageMigration) };
        generate_to_file(&guest, &output, &options, &mut Control::default()).unwrap();
        read(&output).into_iter().filter(|e| e.kind == Kind::ParentUnmap).collect::<Vec<_>>()
    };
    assert_ne!(of(1), of(2));
}

#[test]
fn the_limit_of_changes_ends_operations() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("g.parquet");
    let guest = SyntheticGuest { accesses: 5_000, ..SyntheticGuest::default() };
    let options = Options {
        rate: Rate::PerSecond(1e9),
        max_changes: 100,
        ..Options::new(Workload::PageMigration)
    };
    let summary = generate_to_file(&guest, &output, &options, &mut Control::default()).unwrap();
    assert_eq!(summary.meta.import_counts["overlay_stopped_at_max_changes"], 1);
    // One operation may pass the limit: 32 pages, two events each.
    assert!(summary.meta.totals.kinds["parent_unmap"] <= 100);
    assert!(summary.meta.notes.iter().any(|n| n.contains("100 changes allowed")));
}

#[test]
fn guest_memory_beyond_the_limits_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.parquet"), dir.path().join("out.parquet"));
    let map = |out: u64, size: u64| Event {
        domain: DomainId(1),
        addr: 0,
        size,
        out,
        flags: Flags::READ,
        ..Event::new(Kind::Map)
    };
    for (event, says) in [
        (map(0, 1 << 45), "8192 GiB"),
        (map(0x1000, u64::MAX), ""),
        (map(1 << 50, 4096), "0x1000000000000"),
    ] {
        write(&input, &[event], false);
        let reader = TraceReader::open(&input).unwrap();
        let options = Options::new(Workload::Balloon);
        let refused = overlay_to_file(&reader, &output, &options, &mut Control::default());
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("in.parquet") && message.contains(says), "{message}");
        assert!(!output.exists());
    }
}

#[test]
fn addresses_that_nothing_translates_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.parquet"), dir.path().join("out.parquet"));
    let top = u64::MAX;
    let event = |kind, addr, size, out| Event {
        domain: DomainId(1),
        addr,
        size,
        out,
        aux: top,
        flags: Flags::READ.with(Flags::OUT_KNOWN),
        ..Event::new(kind)
    };
    let mut events = Vec::new();
    for kind in [Kind::Map, Kind::ShadowMap, Kind::Dma, Kind::Unmap, Kind::ShadowUnmap] {
        for (addr, size) in [(top, 1), (top, top), (top - 4096, 4096), (1 << 62, 1 << 62), (0, 0)] {
            events.push(event(kind, addr, size, top));
        }
    }
    let parents = [(1 << 40, 8 << 20, top), (0, 4 << 20, 1 << 30), (top, top, top)];
    for with_parent in [false, true] {
        let parents = parents.map(|(addr, size, out)| event(Kind::ParentMap, addr, size, out));
        let some = if with_parent { &parents[..] } else { &[] };
        let all: Vec<Event> = some.iter().chain(&events).chain(&events).copied().collect();
        write(&input, &all, with_parent);
        let reader = TraceReader::open(&input).unwrap();
        for workload in Workload::ALL {
            let options = Options { rate: Rate::EveryDma(1), ..Options::new(workload) };
            let done = overlay_to_file(&reader, &output, &options, &mut Control::default());
            let summary = done.unwrap();
            assert!(summary.events >= all.len() as u64);
        }
    }
}
