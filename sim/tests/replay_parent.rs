//! Parent-change policies in whole replays: all give the same translations,
//! faults and shadows as `flush-all`, and cost what they say.

#[path = "common/world.rs"]
mod world;

use std::collections::BTreeMap;

use ioasim_sim::config::{Config, Nesting};
use ioasim_sim::events::{DomainId, Event, Flags, Kind, PAGE_SIZE, Perm, Requester, Scope};
use ioasim_sim::parent_change::Kind as ChangePolicy;
use ioasim_sim::replay::Replay;
use ioasim_sim::results::{ParentCounters, RunResult};
use proptest::collection::vec;
use proptest::prelude::*;
use world::{
    Invalidations, Step, Trace, World, cases, chunks, complete, config, replay, step, trace,
    verified,
};

const SOFTWARE: [&str; 5] = [
    "sw-nested-map",
    "sw-nested-invalidate",
    "sw-nested-flush",
    "sw-nested-write-protect",
    "sw-nested-demand",
];

fn with_policy(preset: &str, policy: ChangePolicy, settings: &[&str]) -> Config {
    let change = format!("parent.change={}", policy.name());
    let all: Vec<&str> = settings.iter().copied().chain([change.as_str()]).collect();
    config(preset, &all)
}

/// By space and page: host page and rights.
type Resident = BTreeMap<(u32, u64), (u64, Perm)>;

/// The result, and what shadows hold at the end.
fn run(config: &Config, trace: &Trace) -> (RunResult, Resident) {
    let mut replay = Replay::new(config, &trace.info, true);
    for chunk in chunks(&trace.events, usize::MAX) {
        replay.run(&chunk).unwrap();
    }
    replay.settle();
    let mut resident = Resident::new();
    replay.for_each_shadow_leaf(&mut |space, iova, leaf| {
        for at in (0..leaf.size.bytes()).step_by(PAGE_SIZE as usize) {
            let page = ((leaf.out + at) / PAGE_SIZE, leaf.perm);
            let old = resident.insert((space, (iova + at) / PAGE_SIZE), page);
            assert!(old.is_none(), "leaves overlap");
        }
    });
    (replay.finish().unwrap(), resident)
}

/// Small caches and lazy steps, so that evictions and half-built shadows occur.
const SMALL: [&str; 4] =
    ["iotlb.entries=12", "iotlb.ways=4", "parent.epoch.fill=4k", "parent.epoch.step_entries=1"];

proptest! {
    #![proptest_config(cases(60))]

    /// With complete invalidations the recorded outputs are the only legal
    /// ones, so equal counts of them mean equal translations.
    #[test]
    fn every_policy_is_as_good_as_a_flush(
        steps in vec(step(true), 1..150),
        invalidations in complete(),
    ) {
        let trace = trace(&steps, invalidations, true);
        for preset in SOFTWARE {
            let demand = preset == "sw-nested-demand";
            let (_, flushed) = run(&with_policy(preset, ChangePolicy::FlushAll, &SMALL), &trace);
            let mut kept: Option<Resident> = None;
            for policy in ChangePolicy::ALL {
                let name = format!("{preset} {}", policy.name());
                let (result, resident) = run(&with_policy(preset, policy, &SMALL), &trace);
                let verify = result.verify.unwrap();
                prop_assert!(verify.passed(), "{}: {:#?}", name, verify);
                prop_assert_eq!(verify.stale_legal, 0, "{}", name);
                prop_assert_eq!(verify.translations, trace.dma - trace.faults, "{}", name);
                let c = &result.counters;
                prop_assert_eq!(c.dma.faults, trace.faults, "{}", name);
                prop_assert_eq!(c.diagnostics.fault_differences, 0, "{}", name);
                if !demand {
                    prop_assert_eq!(&resident, &flushed, "{}", name);
                } else if policy != ChangePolicy::FlushAll {
                    // A flush forgets what devices asked for before it.
                    let missing = flushed.iter().find(|(at, page)| resident.get(at) != Some(page));
                    prop_assert!(missing.is_none(), "{}: {:?}", name, missing);
                    let kept = kept.get_or_insert_with(|| resident.clone());
                    prop_assert_eq!(&resident, &*kept, "{}", name);
                }
            }
        }
    }

    /// Old or new is legal where an invalidation is missing, and how long the
    /// old is reachable does not depend on who follows the parent (other than
    /// by a flush, which looks at the guest's table).
    #[test]
    fn without_invalidations(steps in vec(step(true), 1..150)) {
        let trace = trace(&steps, Invalidations::Missing, true);
        for preset in SOFTWARE {
            let mut first = None;
            for policy in ChangePolicy::ALL {
                let name = format!("{preset} {}", policy.name());
                let settings = ["report.exposure=true", "parent.epoch.step_entries=2"];
                let (result, verify) = verified(&with_policy(preset, policy, &settings), &trace);
                prop_assert!(verify.passed(), "{}: {:#?}", name, verify);
                if policy != ChangePolicy::FlushAll {
                    let found = result.exposure.unwrap();
                    let first = first.get_or_insert_with(|| found.clone());
                    prop_assert_eq!(&found, &*first, "{}", name);
                }
            }
        }
    }
}

const DEVICE: Requester = Requester(8);

/// 64 pages in one domain, each used once, under a parent of 4 KiB pages; then
/// `changes`, then every page again.
fn before_and_after(changes: &[Event]) -> Trace {
    let steps: Vec<Step> = (0..64)
        .map(|page| Step::Map { domain: 0, page, gpa_page: 2 * page, pages: 1, perm: Perm::RW })
        .collect();
    let mut trace = trace(&steps, Invalidations::Complete(Scope::Page), true);
    let dma = |page: u64| Event {
        domain: DomainId(0),
        requester: DEVICE,
        addr: page * PAGE_SIZE,
        flags: Flags::READ,
        ..Event::new(Kind::Dma)
    };
    trace.events.extend((0..64).map(dma));
    trace.events.extend(changes);
    trace.events.extend((0..64).map(dma));
    trace.info.events = trace.events.len() as u64;
    trace
}

fn parent(kind: Kind, page: u64, pages: u64) -> Event {
    Event { out: 1 << 40, ..World::event(kind, 0, page, pages) }
}

/// One guest page moves: unmap, map elsewhere.
fn migration() -> Trace {
    before_and_after(&[parent(Kind::ParentUnmap, 20, 1), parent(Kind::ParentMap, 20, 1)])
}

fn counters(preset: &str, settings: &[&str], trace: &Trace) -> (RunResult, ParentCounters) {
    let config = config(preset, settings);
    let (result, verify) = verified(&config, trace);
    assert!(verify.passed(), "{preset} {settings:?}: {verify:#?}");
    assert_eq!(result.counters.dma.faults, 0, "{preset} {settings:?}");
    let counters = result.counters.parent;
    (result, counters)
}

#[test]
fn what_each_policy_costs() {
    let trace = migration();
    for policy in ChangePolicy::ALL {
        let change = format!("parent.change={}", policy.name());
        let settings = [change.as_str(), "parent.epoch.step_entries=0"];
        let (result, c) = counters("sw-nested-map", &settings, &trace);
        let misses = result.counters.iotlb.misses;
        // Frames at the start, then an unmap and a map.
        assert_eq!((c.changes, c.maps, c.unmaps), (8, 7, 1), "{policy:?}");
        match policy {
            ChangePolicy::FlushAll => {
                assert_eq!((c.shadows_dropped, c.entries_rebuilt), (2, 63 + 64));
                assert_eq!(c.shadow_entries_dropped, 64 + 63);
                assert_eq!(c.host_pte_writes, 2 * (63 + 64));
                assert_eq!((misses, c.policy_bytes_peak), (128, 0));
            }
            ChangePolicy::Scan
            | ChangePolicy::Rmap
            | ChangePolicy::RmapInterval
            | ChangePolicy::RmapLinked => {
                assert_eq!((c.mends, c.entries_changed, c.shadow_entries_dropped), (2, 2, 1));
                assert_eq!((c.host_unmap_calls, c.host_map_calls), (1, 1), "{policy:?}");
                // The page alone is walked again.
                assert_eq!((misses, c.cached_entries_dropped), (65, 1), "{policy:?}");
                assert_eq!(c.hardware_invalidations, 1, "{policy:?}");
                if policy == ChangePolicy::Scan {
                    assert_eq!(c.entries_examined, 128);
                } else {
                    // Replays have no worker: a change carries out the log.
                    let log = if policy == ChangePolicy::RmapLinked { 64 } else { 0 };
                    assert!(c.entries_examined <= log + 4, "{policy:?}: {c:?}");
                    assert!(c.policy_bytes_peak >= 64 * 8, "{policy:?}: {c:?}");
                }
            }
            ChangePolicy::Epoch => {
                assert_eq!((c.shadows_dropped, c.shadow_entries_dropped), (1, 64));
                assert_eq!((misses, c.entries_rebuilt), (128, 64));
                assert_eq!(c.lazy_fills, 1, "one region of 2 MiB");
            }
        }
    }
}

/// What an IOMMU that walks both tables drops when a page of the parent moves.
#[test]
fn what_each_family_drops() {
    let trace = migration();
    for (family, dropped, commands) in
        [("intel-vtd", 64, 1), ("arm-smmuv3", 64, 2), ("riscv-iommu", 1, 1)]
    {
        let family_key = format!("parent.hardware_flush={family}");
        let (result, c) = counters("hw-nested", &[&family_key], &trace);
        assert_eq!(c.cached_entries_dropped, dropped, "{family}");
        assert_eq!(result.counters.iotlb.misses, 64 + dropped, "{family}");
        assert_eq!((c.hardware_invalidations, c.device_tlb_flushes), (commands, 1), "{family}");
    }
    // Devices that use GPAs lose the 2 MiB entry that the page lay in.
    let (_, c) = counters_of_passthrough(&trace);
    assert_eq!((c.cached_entries_dropped, c.hardware_invalidations), (1, 1));
}

fn counters_of_passthrough(trace: &Trace) -> (RunResult, ParentCounters) {
    let config = config("passthrough", &[]);
    assert_eq!(config.nesting, Nesting::None);
    let result = replay(&config, trace, false, 16);
    let counters = result.counters.parent;
    (result, counters)
}

/// Pins: once with the parent's areas, or again by each shadow entry.
#[test]
fn who_pins() {
    let trace = migration();
    for policy in ["flush-all", "rmap-linked", "epoch"] {
        let change = format!("parent.change={policy}");
        let (_, once) = counters("sw-nested-map", &[&change], &trace);
        assert_eq!((once.pins, once.unpins, once.pins_held_peak), (6 * 512 + 1, 1, 6 * 512));
        let each = ["parent.pinning=pin-per-entry", change.as_str()];
        let (_, each) = counters("sw-nested-map", &each, &trace);
        assert_eq!(each.pins_held_peak, 64, "{policy}");
        assert_eq!(each.pins - each.unpins, 64, "{policy}");
        match policy {
            "flush-all" => assert_eq!(each.pins, 64 + 63 + 64),
            "rmap-linked" => assert_eq!(each.pins, 64 + 1),
            _ => assert!(each.pins >= 64 + 64, "every page at least once more"),
        }
    }
}

/// A lazy policy keeps what the guest unmapped and has yet to invalidate
/// reachable, though its shadow is empty.
#[test]
fn an_empty_root_does_not_close_an_exposure() {
    let child = |kind, page| Event { domain: DomainId(0), ..World::event(kind, 0, page, 1) };
    let flags = Flags::with_scope(Scope::Domain);
    let trace = before_and_after(&[
        child(Kind::Unmap, 3),
        parent(Kind::ParentUnmap, 100, 1),
        parent(Kind::ParentMap, 100, 1),
        Event {
            domain: DomainId(0),
            requester: DEVICE,
            addr: 3 * PAGE_SIZE,
            flags: Flags::READ,
            ..Event::new(Kind::Dma)
        },
        Event { flags, ..child(Kind::Invalidate, 0) },
    ]);
    for policy in ["scan", "epoch"] {
        let change = format!("parent.change={policy}");
        let settings = [change.as_str(), "report.exposure=true", "parent.epoch.step_entries=0"];
        let result = replay(&config("sw-nested-invalidate", &settings), &trace, true, 7);
        let e = result.exposure.unwrap();
        assert_eq!((e.unmaps, e.closed_later, e.events_max, e.stale_dma), (2, 1, 4, 1), "{policy}");
    }
}

/// A reset empties shadows, and what policies know of them goes with them.
#[test]
fn a_reset_empties_every_index() {
    let flags = Flags::with_scope(Scope::Reset);
    let reset = Event { flags, ..Event::new(Kind::Invalidate) };
    let moved = [reset, parent(Kind::ParentUnmap, 0, 64), parent(Kind::ParentMap, 0, 64)];
    let trace = before_and_after(&moved);
    for policy in ["rmap", "rmap-interval", "rmap-linked"] {
        let change = format!("parent.change={policy}");
        // Nothing is shadowed until devices ask again.
        let (_, c) = counters("sw-nested-demand", &[&change], &trace);
        assert_eq!((c.entries_examined, c.mends), (0, 0), "{policy}");
        // Everything is shadowed again at once.
        let (_, c) = counters("sw-nested-invalidate", &[&change], &trace);
        assert_eq!((c.mends, c.entries_changed), (64, 64), "{policy}");
    }
}

/// Devices that use guest addresses themselves beside nested ones.
#[test]
fn devices_of_the_parent_follow_it_too() {
    let dma = |out: u64| Event {
        domain: DomainId::PARENT,
        requester: Requester(99),
        addr: 20 * PAGE_SIZE,
        out,
        flags: Flags::READ.with(Flags::OUT_KNOWN),
        ..Event::new(Kind::Dma)
    };
    let old = (7 << 40) + 20 * PAGE_SIZE;
    let steps = [
        dma(old),
        dma(old),
        parent(Kind::ParentUnmap, 20, 1),
        parent(Kind::ParentMap, 20, 1),
        dma(1 << 40),
    ];
    let trace = before_and_after(&steps);
    for preset in ["passthrough", "hw-nested"].into_iter().chain(SOFTWARE) {
        let (result, verify) = verified(&config(preset, &["parent.change=rmap"]), &trace);
        let known = verify.translations;
        assert!(verify.passed() && known == 3, "{preset}: {known} {verify:#?}");
        assert_eq!(result.counters.dma.faults, 0, "{preset}");
    }
    for stages in ["stages=[['l2','l1'],['l0']]", "stages=[['l2','l1','l0']]"] {
        let settings = [stages, "parent.change=rmap"];
        let (_, verify) = verified(&config("sw-nested-map", &settings), &trace);
        assert!(verify.passed() && verify.translations == 3, "{stages}: {verify:#?}");
    }
}

/// What the guest has unmapped is in no index.
#[test]
fn an_unmap_of_the_child_leaves_nothing_to_mend() {
    let unmap = Event { domain: DomainId(0), ..World::event(Kind::Unmap, 0, 10, 1) };
    let trace = before_and_after(&[unmap, parent(Kind::ParentUnmap, 20, 1)]);
    for policy in ["scan", "rmap", "rmap-interval", "rmap-linked"] {
        let change = format!("parent.change={policy}");
        let (result, verify) = verified(&config("sw-nested-map", &[&change]), &trace);
        let c = result.counters.parent;
        assert!(verify.passed(), "{policy}: {verify:#?}");
        assert_eq!((c.mends, c.hardware_invalidations), (0, 0), "{policy}");
        let examined = match policy {
            "scan" => 63,
            // Replays have no worker: the change carries out the log, each of
            // the maps and the unmap once.
            "rmap-linked" => 65,
            _ => 0,
        };
        assert_eq!(c.entries_examined, examined, "{policy}");
    }
}
