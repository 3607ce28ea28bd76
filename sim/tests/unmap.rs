//! `guest.unmap`: replays of a guest that unmaps strictly or lazily, whatever
//! the recorded one did.

#[path = "common/world.rs"]
mod world;

use ioasim_sim::events::{Perm, Scope};
use proptest::prelude::*;
use world::{Invalidations, Step, Trace, cases, config, replay, step, trace, verified};

const PRESETS: [&str; 6] = [
    "hw-nested",
    "sw-nested-map",
    "sw-nested-invalidate",
    "sw-nested-flush",
    "sw-nested-write-protect",
    "sw-nested-demand",
];

proptest! {
    #![proptest_config(cases(60))]

    /// Nothing that the recording reaches is out of reach, every answer is one
    /// that a late invalidation allows, and time changes no counter.
    #[test]
    fn other_unmaps_reach_the_same_memory(
        steps in prop::collection::vec(step(false), 1..80),
        scope in prop::sample::select(vec![Scope::Page, Scope::Domain]),
        policy in prop::sample::select(vec!["strict", "lazy"]),
        entries in 1..6u64,
        chunk in 1..50usize,
    ) {
        let trace = trace(&steps, Invalidations::Complete(scope), false);
        let (policy, entries) =
            (format!("guest.unmap={policy}"), format!("guest.flush_queue.entries={entries}"));
        for preset in PRESETS {
            let settings = [policy.as_str(), &entries, "guest.flush_queue.timeout_us=3"];
            let (run, verify) = verified(&config(preset, &settings), &trace);
            prop_assert!(verify.passed(), "{preset} {policy}: {verify:?}");
            prop_assert_eq!(run.counters.dma.requests, trace.dma);
            // Stale translations may answer what would be a fault.
            prop_assert!(run.counters.dma.faults <= trace.faults, "{preset} {policy}");
            let pieces = replay(&config(preset, &settings), &trace, false, chunk);
            prop_assert_eq!(&pieces.counters, &run.counters);
            let timed = [settings[0], settings[1], settings[2], "time.enabled=true"];
            let timed = replay(&config(preset, &timed), &trace, false, chunk);
            prop_assert_eq!(&timed.counters, &run.counters);
        }
    }
}

/// `maps` times: map a page, use it, unmap it; always the same IOVA.
fn ring(maps: u64) -> Trace {
    let one = |n: u64| {
        let map = Step::Map { domain: 0, page: 5, gpa_page: n % 64, pages: 1, perm: Perm::RW };
        let dma = Step::Dma { device: 0, page: 5, needed: Perm::READ };
        [map, dma, Step::Unmap { domain: 0, page: 5, pages: 1 }]
    };
    let steps: Vec<Step> = (0..maps).flat_map(one).collect();
    trace(&steps, Invalidations::Complete(Scope::Page), false)
}

#[test]
fn a_lazy_guest_sends_one_flush_per_full_ring() {
    let trace = ring(1000);
    let never = "guest.flush_queue.timeout_us=1000000000";
    let run = |preset, settings: &[&str]| {
        let (run, verify) = verified(&config(preset, settings), &trace);
        assert!(verify.passed(), "{verify:?}");
        run
    };
    let strict = run("hw-nested", &["guest.unmap=strict"]);
    let recorded = run("hw-nested", &[]);
    assert_eq!(strict.counters, recorded.counters, "strict it was");
    assert_eq!(strict.counters.guest.traps, 1000);
    assert_eq!(strict.provenance.invalidations_replaced, 1000);
    let lazy = run("hw-nested", &["guest.unmap=lazy", never]);
    let guest = lazy.counters.guest;
    // 255 wait; unmaps 256, 511 and 766 find the ring full.
    assert_eq!((guest.flush_queue.full, guest.flush_queue.timeout), (3, 0));
    assert_eq!((guest.invalidations.page, guest.invalidations.domain, guest.traps), (0, 3, 3));
    // Unmap n waits when map n + 1 comes; the recorded IOVA is free for maps
    // 1, 257, 512 and 767.
    assert_eq!(guest.flush_queue.renamed_maps, 1000 - 4);
    assert_eq!(lazy.provenance.unmap, "lazy");
    // A flush makes a shadow's VMM read the whole table instead of a page.
    let range = run("sw-nested-invalidate", &["guest.unmap=strict"]).counters.shadow;
    let flush = run("sw-nested-invalidate", &["guest.unmap=lazy", never]).counters.shadow;
    assert!(flush.syncs < range.syncs && flush.mapped == range.mapped);
    // Half of the rings' time: the timer does it.
    let timer = run("hw-nested", &["guest.unmap=lazy", "guest.flush_queue.timeout_us=50"]);
    let queue = timer.counters.guest.flush_queue;
    assert!(queue.full == 0 && queue.timeout > 3, "{queue:?}");
}

#[test]
fn a_flush_queue_opens_a_window() {
    let trace = ring(300);
    let window = |unmap: &str| {
        let settings = [
            &format!("guest.unmap={unmap}"),
            "guest.flush_queue.entries=9",
            "report.exposure=true",
        ];
        let run = replay(&config("hw-nested", &settings), &trace, false, usize::MAX);
        run.exposure.expect("asked for")
    };
    let (strict, lazy) = (window("strict"), window("lazy"));
    // Three events a round: the invalidation follows its unmap at once.
    assert_eq!((strict.unmaps, strict.events_max, strict.open_at_end), (300, 1, 0));
    // Unmaps 10, 19, ... 298 find the ring full, and are flushed with the nine
    // that wait: the first of them for nine rounds.
    assert_eq!((lazy.unmaps, lazy.events_max, lazy.open_at_end), (300, 9 * 3 + 1, 2));
}

/// Tables without room behind the recording's addresses: maps wait for a flush
/// instead, and nothing faults.
#[test]
fn tables_get_no_levels_for_other_iovas() {
    let mut trace = ring(20);
    let lazy = config("hw-nested", &["guest.unmap=lazy", "child.levels=3"]);
    for (bits, renamed, reuse) in [(32, 19, 0), (38, 19, 0), (39, 0, 19)] {
        trace.info.iova_bits = bits;
        let (run, verify) = verified(&lazy, &trace);
        assert!(verify.passed(), "{verify:?}");
        let c = run.counters;
        assert_eq!((c.dma.faults, c.diagnostics.beyond_width), (0, 0), "{bits}");
        let queue = c.guest.flush_queue;
        assert_eq!((queue.renamed_maps, queue.reuse), (renamed, reuse), "{bits}");
    }
}
