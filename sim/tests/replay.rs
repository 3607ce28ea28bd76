//! Whole replays of random traces: invariants, agreement of all policies, and
//! data that no real trace should hold.

#[path = "common/world.rs"]
mod world;

use ioasim_sim::config::{Config, Nesting, preset_names};
use ioasim_sim::events::{
    DomainId, Event, Flags, Kind, OutputSpace, PAGE_SIZE, Pasid, Perm, Requester, Scope, TraceInfo,
};
use ioasim_sim::parent_change::Kind as ChangePolicy;
use ioasim_sim::sync::Kind as Sync;
use proptest::collection::vec;
use proptest::prelude::*;
use world::{
    FRAME, Invalidations, Step, Trace, World, cases, complete, config, replay, step, trace,
    verified,
};

/// Small and odd caches: evictions and conflicts everywhere.
const TINY: [&str; 11] = [
    "iotlb.entries=6",
    "iotlb.ways=3",
    "iotlb.replacement=plru",
    "pwc.stage1.2m={entries=2,ways=1}",
    "pwc.stage1.1g={entries=3,ways=3}",
    "pwc.stage2.2m={entries=1,ways=1}",
    "pwc.stage2.1g={entries=0,ways=1}",
    "nested_cache.entries=3",
    "nested_cache.ways=3",
    "child.levels=4",
    "parent.levels=5",
];

/// Every nesting preset, QEMU's, and odd caches over each nesting.
fn configs() -> Vec<Config> {
    let mut all: Vec<Config> = preset_names().map(|name| config(name, &[])).collect();
    for preset in [
        "hw-nested",
        "sw-nested-map",
        "sw-nested-invalidate",
        "sw-nested-flush",
        "sw-nested-write-protect",
        "sw-nested-demand",
    ] {
        all.push(config(preset, &TINY));
        all.push(config(
            preset,
            &[
                "iotlb.entries=5",
                "iotlb.ways=1",
                "iotlb.tag=requester-pasid",
                "parent.layout=4k-scattered",
            ],
        ));
        all.push(config(
            preset,
            &[
                "iotlb.entries=40",
                "iotlb.ways=20",
                "iotlb.replacement=random",
                "iotlb.tag=requester",
                "parent.layout=1g",
            ],
        ));
    }
    // Ranges encoded by the simulated guest, and exposure measured beside it.
    for (preset, encoding) in [
        ("hw-nested", "page"),
        ("hw-nested", "range-cover"),
        ("hw-nested", "domain"),
        ("sw-nested-invalidate", "range-split"),
        ("sw-nested-invalidate", "domain"),
        ("sw-nested-demand", "range-cover"),
        ("sw-nested-flush", "page"),
    ] {
        let encoding = format!("guest.invalidation={encoding}");
        all.push(config(
            preset,
            &[&encoding, "guest.commands_per_trap=4", "report.exposure=true", "iotlb.ways=4"],
        ));
    }
    let tags = ["report.exposure=true", "iotlb.tag=requester", "iotlb.entries=12", "iotlb.ways=4"];
    for preset in ["passthrough", "sw-nested-map", "sw-nested-write-protect", "sw-nested-demand"] {
        all.push(config(preset, &tags));
    }
    all.push(config("hw-nested", &["parent.layout=identity", "iotlb.replacement=clock"]));
    // Every way to follow the parent, with every way to follow the child.
    for kind in ChangePolicy::ALL.into_iter().filter(|k| *k != ChangePolicy::FlushAll) {
        let change = format!("parent.change={}", kind.name());
        for preset in [
            "sw-nested-map",
            "sw-nested-invalidate",
            "sw-nested-flush",
            "sw-nested-write-protect",
            "sw-nested-demand",
        ] {
            all.push(config(
                preset,
                &[
                    &change,
                    "report.exposure=true",
                    "iotlb.entries=12",
                    "iotlb.ways=4",
                    "parent.pinning=pin-per-entry",
                    "parent.epoch.fill=4k",
                    "parent.epoch.step_entries=3",
                ],
            ));
        }
    }
    for family in ["arm-smmuv3", "riscv-iommu"] {
        let family = format!("parent.hardware_flush={family}");
        all.push(config("hw-nested", &[&family, "report.exposure=true"]));
    }
    all.push(config("hw-nested", &["iotlb.replacement=fifo", "iotlb.tag=pasid"]));
    for (replacement, ways) in [("lfu", "4"), ("srrip", "6"), ("s3fifo", "12")] {
        let replacement = format!("iotlb.replacement={replacement}");
        let ways = format!("iotlb.ways={ways}");
        for preset in ["hw-nested", "sw-nested-invalidate"] {
            all.push(config(preset, &[&replacement, &ways, "iotlb.entries=12"]));
        }
    }
    // Translations that nobody asked for, in caches that they fill quickly.
    for policy in ["sequential", "ring-aware"] {
        let policy = format!("iotlb.prefetch.policy={policy}");
        for preset in [
            "passthrough",
            "hw-nested",
            "sw-nested-map",
            "sw-nested-invalidate",
            "sw-nested-demand",
        ] {
            for shape in [
                ["iotlb.entries=12", "iotlb.ways=2", "iotlb.partitions=3", "iotlb.tag=domain"],
                ["iotlb.entries=7", "iotlb.ways=7", "iotlb.partitions=1", "iotlb.tag=requester"],
            ] {
                let mut settings = vec![policy.as_str(), "iotlb.prefetch.pages=6"];
                settings.extend(["parent.layout=4k-scattered", "report.exposure=true"]);
                settings.extend(shape);
                all.push(config(preset, &settings));
            }
            if preset.starts_with("sw") {
                all.push(config(preset, &[&policy, "parent.change=epoch", "parent.epoch.fill=4k"]));
            }
        }
    }
    all
}

/// With complete invalidations every policy gives what a fresh walk gives.
fn all_agree(trace: &Trace) -> Result<(), TestCaseError> {
    for config in configs() {
        // Driven by recorded invalidations of the physical IOMMU.
        if trace.info.has_parent && config.verify.labels {
            continue;
        }
        let name = format!("{} {:?}", config.name, config.iotlb);
        let (result, verify) = verified(&config, trace);
        prop_assert!(verify.passed(), "{}: {:#?}", name, verify);
        prop_assert_eq!(result.counters.dma.requests, trace.dma);
        let c = &result.counters;
        if config.name == "passthrough" {
            continue;
        }
        prop_assert_eq!(c.diagnostics.fault_differences, 0, "{}", name);
        prop_assert_eq!(c.dma.faults, trace.faults, "{}", name);
        prop_assert_eq!(verify.translations, trace.dma - trace.faults, "{}", name);
        prop_assert_eq!(verify.stale_legal, 0, "{}: the present state only", name);
        prop_assert_eq!(verify.reference_checks, trace.dma);
        if let Some(e) = &result.exposure {
            let closed = e.closed_at_once + e.closed_later;
            prop_assert_eq!(e.unmaps, closed + e.open_at_end, "{}", name);
            prop_assert_eq!(e.stale_dma, 0, "{}: each unmap is announced at once", name);
            prop_assert_eq!(e.events_histogram.iter().sum::<u64>(), closed);
            let each = matches!(config.sync.policy, Sync::MapUnmap | Sync::WriteProtect);
            if config.nesting == Nesting::Software && each {
                prop_assert_eq!(e.closed_at_once, e.unmaps, "{}", name);
            }
        }
        let p = c.iotlb.prefetch;
        let ends = p.useful + p.evicted_unused + p.invalidated_unused + p.resident_unused;
        prop_assert_eq!(p.issued, ends, "{}", name);
        let m = c.iotlb.miss_causes;
        prop_assert_eq!(c.iotlb.hits + c.iotlb.misses, trace.dma);
        prop_assert_eq!(m.cold + m.capacity + m.conflict + m.invalidation, c.iotlb.misses);
        prop_assert_eq!(c.walk.memory_reads, c.walk.child_reads + c.walk.parent_reads);
        let devices = result.devices.iter();
        prop_assert_eq!(devices.map(|d| d.hits + d.misses).sum::<u64>(), trace.dma);
        prop_assert_eq!(result.series.requests.iter().sum::<u64>(), trace.dma);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(40))]

    /// I1, I2, I3, I5, I7 and agreement.
    #[test]
    fn complete_invalidations(
        steps in vec(step(false), 1..120),
        invalidations in complete(),
    ) {
        all_agree(&trace(&steps, invalidations, false))?;
    }

    /// The same with a parent that changes (I6).
    #[test]
    fn parent_changes(steps in vec(step(true), 1..120), invalidations in complete()) {
        all_agree(&trace(&steps, invalidations, true))?;
    }

    /// Old or new is legal without the invalidation, and nothing else.
    #[test]
    fn missing_invalidations(steps in vec(step(true), 1..120), parent: bool) {
        let only = |s: &&Step| {
            parent || !matches!(s, Step::ParentMap { .. } | Step::ParentUnmap { .. })
        };
        let steps: Vec<Step> = steps.iter().filter(only).cloned().collect();
        let trace = trace(&steps, Invalidations::Missing, parent);
        for config in configs() {
            if trace.info.has_parent && config.verify.labels {
                continue;
            }
            let (_, verify) = verified(&config, &trace);
            prop_assert!(verify.passed(), "{} {:?}: {:#?}", config.name, config.iotlb, verify);
        }
    }

    /// The result does not depend on how the trace is cut into chunks.
    #[test]
    fn chunks_do_not_matter(steps in vec(step(true), 1..80), invalidations in complete()) {
        let trace = trace(&steps, invalidations, true);
        for config in configs() {
            let of = |chunk| {
                serde_json::to_string(&replay(&config, &trace, true, chunk)).unwrap()
            };
            let whole = of(usize::MAX);
            prop_assert_eq!(&of(1), &whole);
            prop_assert_eq!(&of(7), &whole);
        }
    }
}

/// I4: a shadow that follows invalidations only never learns of new mappings
/// when the guest does not announce them.
#[test]
fn a_shadow_without_caching_mode_misses_pages() {
    let steps: Vec<Step> = (0..20)
        .flat_map(|page| {
            let map =
                Step::Map { domain: 0, page, gpa_page: 40 + 3 * page, pages: 1, perm: Perm::RW };
            [map, Step::Dma { device: 0, page, needed: Perm::WRITE }]
        })
        .collect();
    let trace = trace(&steps, Invalidations::Complete(Scope::Page), false);
    let faults = |preset, mode: &str| {
        let setting = format!("guest.caching_mode={mode}");
        let (result, verify) = verified(&config(preset, &[&setting]), &trace);
        (result.counters.dma.faults, verify.passed())
    };
    assert_eq!(faults("hw-nested", "as-recorded"), (0, true));
    for preset in ["sw-nested-invalidate", "sw-nested-flush"] {
        assert_eq!(faults(preset, "on"), (0, true));
        for mode in ["as-recorded", "off"] {
            // Faults, though legal ones: without the invalidation the old
            // state (not present) may be used.
            assert_eq!(faults(preset, mode), (20, true), "{preset} {mode}");
        }
    }
    // Every call or store captured, or filled when it is missed: no
    // invalidation needed.
    for preset in ["sw-nested-map", "sw-nested-write-protect", "sw-nested-demand"] {
        assert_eq!(faults(preset, "off"), (0, true), "{preset}");
    }
}

/// At a marker nothing may be pending under the policies that hear of every
/// change: with no invalidation at all the shadow is the composition there,
/// and one that is filled on demand is a part of it.
#[test]
fn shadows_are_in_line_at_every_marker() {
    let mut steps = Vec::new();
    for i in 0..60u64 {
        let (page, domain) = (i * 5 % 12, (i % 3) as u32);
        steps.push(Step::Map { domain, page, gpa_page: 3 * i, pages: 1 + i % 3, perm: Perm::RW });
        steps.push(Step::Dma { device: domain, page, needed: Perm::WRITE });
        if i % 2 == 0 {
            steps.push(Step::Unmap { domain, page: page + 1, pages: 2 });
        }
        steps.push(Step::Marker);
    }
    for (preset, invalidations) in [
        ("sw-nested-map", Invalidations::Missing),
        ("sw-nested-write-protect", Invalidations::Missing),
        ("sw-nested-demand", Invalidations::Complete(Scope::Page)),
    ] {
        let trace = trace(&steps, invalidations, false);
        let (result, verify) = verified(&config(preset, &[]), &trace);
        assert!(verify.passed(), "{preset}: {verify:#?}");
        // Every page ever mapped, at each of the 60 markers.
        assert!(verify.invariant_checks > 60 * 20, "{preset}: {}", verify.invariant_checks);
        assert_eq!(result.counters.diagnostics.fault_differences, 0, "{preset}");
    }
}

/// Hits in a row on one page count with the policies that count hits, watched
/// or not.
#[test]
fn each_hit_in_a_row_counts() {
    let of = |replacement: &str, pages: &[u64]| {
        let maps = (0..4).map(|page| {
            let gpa_page = 40 + 3 * page;
            Step::Map { domain: 0, page, gpa_page, pages: 1, perm: Perm::RW }
        });
        let dmas =
            pages.iter().map(|page| Step::Dma { device: 0, page: *page, needed: Perm::READ });
        let steps: Vec<Step> = maps.chain(dmas).collect();
        let trace = trace(&steps, Invalidations::Complete(Scope::Page), false);
        let replacement = format!("iotlb.replacement={replacement}");
        // Requests of different intervals of the series are not in a row.
        let shape = ["iotlb.entries=2", "iotlb.ways=2", "report.intervals=1", &replacement];
        let config = config("hw-nested", &shape);
        let (watched, verify) = verified(&config, &trace);
        assert!(verify.passed());
        let alone = replay(&config, &trace, false, usize::MAX);
        assert_eq!(alone.counters.iotlb.hits, watched.counters.iotlb.hits);
        alone.counters.iotlb.hits
    };
    // Page 2 displaces page 1, which had fewer references than page 0.
    assert_eq!(of("lfu", &[0, 0, 0, 1, 1, 2, 0]), 4);
    assert_eq!(of("lru", &[0, 0, 0, 1, 1, 2, 0]), 3);
    // Two hits take page 0 from the small queue to the main queue, behind
    // page 1; one does not.
    assert_eq!(of("s3fifo", &[0, 0, 0, 1, 2, 0]), 3);
    assert_eq!(of("s3fifo", &[0, 0, 1, 2, 0]), 1);
}

/// One unmap of three pages out of eight, in each encoding.
#[test]
fn encodings_cost_what_they_say() {
    let mut steps: Vec<Step> = (0..8)
        .flat_map(|page| {
            let map =
                Step::Map { domain: 0, page, gpa_page: 40 + 3 * page, pages: 1, perm: Perm::RW };
            [map, Step::Dma { device: 0, page, needed: Perm::READ }]
        })
        .collect();
    steps.push(Step::Unmap { domain: 0, page: 3, pages: 3 });
    let trace = trace(&steps, Invalidations::Complete(Scope::Page), false);
    for (encoding, batch, page, domain, traps, beyond) in [
        ("as-recorded", 1, 1, 0, 1, 0),
        ("page", 1, 3, 0, 3, 0),
        ("page", 2, 3, 0, 2, 0),
        ("page", 16, 3, 0, 1, 0),
        ("range-cover", 1, 1, 0, 1, 5),
        ("range-split", 1, 2, 0, 2, 0),
        ("domain", 1, 0, 1, 1, 5),
    ] {
        let settings =
            [format!("guest.invalidation={encoding}"), format!("guest.commands_per_trap={batch}")];
        let settings = settings.each_ref().map(String::as_str);
        let (hw, verify) = verified(&config("hw-nested", &settings), &trace);
        assert!(verify.passed());
        let c = &hw.counters;
        let sent = (c.guest.invalidations.page, c.guest.invalidations.domain, c.guest.traps);
        assert_eq!(sent, (page, domain, traps), "{encoding} {batch}");
        assert_eq!(c.iotlb.over_invalidated, beyond, "{encoding}");
        let dropped = if encoding == "as-recorded" { 8 } else { 3 + beyond };
        assert_eq!(c.iotlb.invalidated, dropped, "{encoding}");
        assert_eq!(hw.provenance.invalidation_encoding, encoding);
        assert_eq!(hw.provenance.invalidations_reencoded, (encoding != "as-recorded") as u64);
        let (demand, verify) = verified(&config("sw-nested-demand", &settings), &trace);
        assert!(verify.passed());
        let c = &demand.counters;
        assert_eq!((c.shadow.over_invalidated, c.shadow.unmapped), (beyond, dropped), "{encoding}");
    }
}

/// Addresses and sizes at their limits.
fn wild_number() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => (0..64u64).prop_map(|p| p << 12),
        2 => Just(0u64),
        2 => proptest::sample::select(vec![
            1, 0xfff, 0x1001, 1 << 21, 1 << 30, (1 << 39) - 1, 1 << 39, 1 << 47, 1 << 48,
            (1 << 57) - 4096, 1 << 57, (1 << 57) + 4096, 1 << 62, u64::MAX / 2, u64::MAX - 4096, u64::MAX,
        ]),
        1 => (0..64u32).prop_map(|s| 1 << s),
        1 => any::<u64>(),
    ]
}

fn wild_event() -> impl Strategy<Value = Event> {
    let id = || prop_oneof![0..4u32, Just(u32::MAX), Just(u32::MAX - 1), Just(77u32)];
    let flags = prop_oneof![
        4 => proptest::sample::select(vec![0, 1, 2, 3, 3, 3]),
        3 => (0..8u32, 0..4u32).prop_map(|(scope, low)| scope << 12 | low),
        1 => any::<u32>(),
    ];
    // Sizes are small more often: a map of half the address space leaves little to try.
    let size = prop_oneof![4 => (0..20u64).prop_map(|p| p * 2048), 2 => wild_number()];
    let kind = proptest::sample::select(Kind::ALL.to_vec());
    let addresses = (wild_number(), size, wild_number(), wild_number());
    let time = prop_oneof![8 => 0..1000u64, 1 => wild_number()];
    (kind, flags, id(), id(), id(), addresses, time).prop_map(
        |(kind, flags, domain, requester, pasid, (addr, size, out, aux), time_ns)| Event {
            time_ns,
            kind,
            flags: Flags(flags),
            cpu: -1,
            domain: DomainId(domain),
            requester: Requester(requester),
            pasid: Pasid(pasid),
            // Half a terabyte of 4 KiB pages is legal, but takes its time.
            size: if matches!(kind, Kind::Map | Kind::ParentMap)
                && addr.checked_add(size).is_some_and(|e| e <= 1 << 57)
            {
                size.min(1 << 24)
            } else {
                size
            },
            addr,
            out,
            aux,
        },
    )
}

proptest! {
    #![proptest_config(cases(150))]

    /// Nothing that a trace can say stops a replay, and every event counts.
    #[test]
    fn wild_events(
        events in vec(wild_event(), 1..60),
        has_parent: bool,
        hpa: bool,
        levels in 0..7u32,
    ) {
        let info = TraceInfo {
            events: events.len() as u64,
            end_ns: 500,
            output_space: if hpa { OutputSpace::Hpa } else { OutputSpace::Gpa },
            has_parent,
            child_levels: levels,
            ..TraceInfo::default()
        };
        let count = |kind| events.iter().filter(|e| e.kind == kind).count() as u64;
        let (maps, unmaps, dma) = (count(Kind::Map), count(Kind::Unmap), count(Kind::Dma));
        let trace = Trace { events, info, ..Trace::default() };
        for config in configs() {
            for verify in [false, true] {
                let result = replay(&config, &trace, verify, 16);
                let c = &result.counters;
                prop_assert_eq!((c.guest.maps, c.guest.unmaps, c.dma.requests), (maps, unmaps, dma));
                prop_assert!(result.series.requests.len() as u64 <= config.report.intervals + 1);
                prop_assert_eq!(result.series.requests.iter().sum::<u64>(), dma);
            }
        }
    }
}

fn one(e: Event) -> Trace {
    let info = TraceInfo { events: 1, iova_bits: 48, ..TraceInfo::default() };
    Trace { events: vec![e], info, ..Trace::default() }
}

/// What is wrong with data is counted, under its name.
#[test]
fn contradictions_are_counted() {
    let hw = config("hw-nested", &[]);
    let map = |addr, size, out| {
        let domain = DomainId(1);
        Event { domain, addr, size, out, ..Event::new(Kind::Map) }
    };
    let count = |events: &[Event]| {
        let trace = Trace { events: events.to_vec(), ..one(map(0, 0, 0)) };
        replay(&hw, &trace, false, 4).counters.diagnostics
    };
    let unmap = |addr, size| Event { kind: Kind::Unmap, ..map(addr, size, 0) };
    let dma = Event { requester: Requester(99), ..Event::new(Kind::Dma) };
    assert_eq!(count(&[map(0, 4096, 0), map(0, 4096, 0)]).overlapping_maps, 0, "the same again");
    assert_eq!(count(&[map(0, 8192, 0), map(4096, 4096, 0)]).overlapping_maps, 1);
    assert_eq!(count(&[unmap(0, 4096)]).unmaps_of_unmapped, 1, "unknown domain");
    assert_eq!(count(&[map(0, 4096, 0), unmap(4096, 4096)]).unmaps_of_unmapped, 1);
    assert_eq!(count(&[map(0, 4096, 0), unmap(0, 0)]).unmaps_of_unmapped, 1, "nothing at all");
    assert_eq!(count(&[dma]).unattributed, 1, "unknown device");
    assert_eq!(count(&[Event { domain: DomainId::NONE, ..map(0, 4096, 0) }]).unattributed, 1);
    assert_eq!(count(&[map(1 << 48, 4096, 0)]).beyond_width, 1);
    assert_eq!(count(&[map((1 << 48) - 4096, 8192, 0)]).beyond_width, 1);
    assert_eq!(count(&[map(4096, u64::MAX / 2, 0)]).beyond_width, 1);
    assert_eq!(count(&[map(u64::MAX - 4095, 4096, 0)]).beyond_width, 1);
    assert_eq!(count(&[map(0, 8192, u64::MAX - 4095)]).beyond_width, 1, "GPA wraps");
}

/// An address beyond 57 bits is not taken for the page whose low bits it has.
#[test]
fn addresses_beyond_every_table_fault() {
    let map = Event {
        domain: DomainId(1),
        addr: 0x1000,
        size: 4096,
        out: 0x5000,
        ..Event::new(Kind::Map)
    };
    let dma =
        |addr| Event { kind: Kind::Dma, requester: Requester(8), flags: Flags::READ, addr, ..map };
    let events = vec![map, dma(0x1000), dma((1 << 57) + 0x1000), dma(1 << 63 | 0x1000)];
    let trace = Trace { events, ..one(map) };
    for preset in ["hw-nested", "sw-nested-map", "sw-nested-invalidate", "qemu-vtd-7.2"] {
        let (result, verify) = verified(&config(preset, &[]), &trace);
        assert_eq!(result.counters.dma.faults, 2, "{preset}");
        assert!(verify.passed(), "{preset}: {verify:#?}");
    }
}

/// Tables larger than the processor's caches are read ahead of the requests;
/// that changes nothing, whatever the addresses.
#[test]
fn large_tables_change_nothing() {
    let region = |i: u64| i * FRAME + (i % 512) * PAGE_SIZE;
    let mut events = Vec::new();
    for i in 0..400 {
        let out = i * 3 * PAGE_SIZE;
        let e = World::event(Kind::Map, 1 + (i % 2) as u32, 0, 1);
        events.push(Event { addr: region(i), out, ..e });
    }
    let mut faults = 0;
    for i in 0..4000u64 {
        // Half of the requests go to regions that the domain does not have.
        let (at, domain) = (i * 7 % 400, 1 + (i / 5 % 2) as u32);
        let wild = i % 97 == 0;
        let mapped = at % 2 + 1 == domain as u64 && !wild && !(i > 2000 && at < 100);
        faults += !mapped as u64;
        let out = if mapped { at * 3 * PAGE_SIZE + 5 } else { 0 };
        events.push(Event {
            domain: DomainId(domain),
            requester: Requester(domain),
            addr: if wild { u64::MAX << (i % 60) } else { region(at) + 5 },
            flags: Flags::READ.with(if mapped { Flags::OUT_KNOWN } else { Flags::FAULT }),
            out,
            ..Event::new(Kind::Dma)
        });
        if i == 2000 {
            for domain in 1..3 {
                events.push(World::event(Kind::Unmap, domain, 0, 100 * 512));
                let flags = Flags::with_scope(Scope::Domain);
                events.push(Event { flags, ..World::event(Kind::Invalidate, domain, 0, 0) });
            }
        }
    }
    let info = TraceInfo { iova_bits: 39, ..TraceInfo::default() };
    let trace = Trace { events, info, ..Trace::default() };
    for config in configs().iter().filter(|c| c.nesting != Nesting::None) {
        let result = replay(config, &trace, true, usize::MAX);
        let verify = result.verify.as_ref().unwrap();
        assert!(verify.passed(), "{}: {verify:#?}", config.name);
        assert_eq!(result.counters.dma.faults, faults, "{}", config.name);
        assert_eq!(result.counters.diagnostics.fault_differences, 0, "{}", config.name);
        let cut = replay(config, &trace, true, 33);
        assert_eq!(cut.counters, result.counters, "{}", config.name);
    }
}
