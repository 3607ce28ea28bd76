//! Prefetching and partitions of the IOTLB: exact counts on small rings and
//! scans, changes while a fetched translation waits, and time.

#[path = "common/world.rs"]
mod world;

use ioasim_sim::cache::replacement::{
    Clock, Fifo, Lfu, Lru, NoConfig, Plru, Replacement, S3Fifo, Srrip,
};
use ioasim_sim::cache::{Cache, Key, SetAssoc, Tag};
use ioasim_sim::config::Config;
use ioasim_sim::events::{DomainId, Event, Flags, Kind, PageSize, Requester, Scope, TraceInfo};
use ioasim_sim::results::{PrefetchCounters, RunResult};
use proptest::collection::vec;
use proptest::prelude::*;
use world::{Trace, cases, config, replay};

const BASE: u64 = 0x1_0000_0000;

fn addr(page: u64) -> u64 {
    BASE + page * 4096
}

fn map(domain: u32, page: u64, pages: u64) -> Event {
    let domain = DomainId(domain);
    // Not aligned beyond 4 KiB: leaves are pages.
    let (size, out) = (pages * 4096, 0x2000_1000 + page * 4096);
    Event { domain, addr: addr(page), size, out, ..Event::new(Kind::Map) }
}

fn unmap(domain: u32, page: u64, pages: u64) -> Event {
    let (domain, size) = (DomainId(domain), pages * 4096);
    Event { domain, addr: addr(page), size, ..Event::new(Kind::Unmap) }
}

fn dma(domain: u32, page: u64) -> Event {
    let requester = Requester(domain);
    let (domain, flags, size) = (DomainId(domain), Flags::WRITE, 64);
    Event { domain, requester, addr: addr(page), size, flags, ..Event::new(Kind::Dma) }
}

fn psi(domain: u32, page: u64, pages: u64) -> Event {
    let flags = Flags::with_scope(Scope::Page);
    let (domain, size) = (DomainId(domain), pages * 4096);
    let addr = addr(page);
    Event { domain, addr, out: addr, size, flags, ..Event::new(Kind::Invalidate) }
}

fn run(config: &Config, events: Vec<Event>) -> RunResult {
    let dma = events.iter().filter(|e| e.kind == Kind::Dma).count() as u64;
    let n = events.len() as u64;
    let info = TraceInfo { events: n, iova_bits: 39, end_ns: n, ..TraceInfo::default() };
    let result = replay(config, &Trace { events, info, dma, faults: 0 }, true, usize::MAX);
    let verify = result.verify.as_ref().unwrap();
    assert!(verify.passed(), "{verify:#?}");
    assert!(balanced(&result.counters.iotlb.prefetch));
    result
}

fn balanced(p: &PrefetchCounters) -> bool {
    p.issued == p.useful + p.evicted_unused + p.invalidated_unused + p.resident_unused
}

fn fetching(policy: &str, pages: u64, more: &[&str]) -> Config {
    let policy = format!("iotlb.prefetch.policy={policy}");
    let pages = format!("iotlb.prefetch.pages={pages}");
    let mut settings = vec![policy.as_str(), pages.as_str()];
    settings.extend(more);
    config("hw-nested", &settings)
}

#[test]
fn a_scan_upwards_misses_once_per_fetch() {
    let scan = || std::iter::once(map(1, 0, 100)).chain((0..100).map(|p| dma(1, p))).collect();
    let c = run(&fetching("sequential", 3, &[]), scan()).counters;
    // Pages 0, 4, 8, ... miss and fetch three each.
    assert_eq!((c.iotlb.misses, c.iotlb.hits), (25, 75));
    let p = c.iotlb.prefetch;
    assert_eq!((p.issued, p.useful, p.refused), (75, 75, 0));
    assert_eq!((c.iotlb.miss_causes.cold, c.walk.walks), (25, 25), "fetches are no misses");
    assert!(p.memory_reads > 0);
    let c = run(&fetching("sequential", 4, &[]), scan()).counters;
    let p = c.iotlb.prefetch;
    assert_eq!((c.iotlb.misses, p.issued, p.refused), (20, 80, 0));
    let c = run(&fetching("sequential", 64, &[]), scan()).counters;
    let p = c.iotlb.prefetch;
    assert_eq!((c.iotlb.misses, p.issued, p.refused), (2, 98, 30), "there is no page 100");
    // Without a policy nothing is counted.
    let c = run(&config("hw-nested", &[]), scan()).counters;
    assert_eq!((c.iotlb.misses, c.iotlb.prefetch), (100, PrefetchCounters::default()));
}

/// Buffers at descending addresses, each used once in the order of its map.
#[test]
fn a_ring_of_descending_buffers_is_met_by_the_ring_aware_policy_only() {
    let ring = || {
        let mut events: Vec<Event> = (0..64).map(|n| map(1, 1000 - 3 * n, 1)).collect();
        for n in 0..64 {
            events.extend([dma(1, 1000 - 3 * n), unmap(1, 1000 - 3 * n, 1)]);
            events.push(psi(1, 1000 - 3 * n, 1));
        }
        events
    };
    let misses = |policy, pages| run(&fetching(policy, pages, &[]), ring()).counters.iotlb.misses;
    assert_eq!(misses("none", 1), 64);
    assert_eq!(misses("sequential", 7), 64);
    assert_eq!(misses("ring-aware", 1), 32);
    assert_eq!(misses("ring-aware", 7), 8);
}

#[test]
fn fetched_entries_displace_and_are_displaced() {
    let tiny = ["iotlb.entries=2", "iotlb.ways=2"];
    let events = vec![map(1, 0, 64), dma(1, 0), dma(1, 20), dma(1, 1)];
    let c = run(&fetching("sequential", 1, &tiny), events).counters.iotlb;
    // 0 fetches 1; 20 and 21 displace both; 1 misses and fetches 2.
    let p = c.prefetch;
    assert_eq!((c.misses, c.evictions), (3, 4));
    assert_eq!((p.issued, p.useful, p.evicted_unused, p.resident_unused), (3, 0, 2, 1));
    assert_eq!(c.miss_causes.cold, 3, "a page that was only fetched was never referenced");
}

/// A page is unmapped, and its invalidation is still to come, while a fetched
/// translation of it waits: old is legal until then, and gone afterwards.
#[test]
fn an_invalidation_removes_what_was_fetched() {
    let events = || vec![map(1, 0, 8), dma(1, 0), unmap(1, 1, 1)];
    let fetch = fetching("sequential", 1, &[]);
    let late = events().into_iter().chain([dma(1, 1), psi(1, 1, 1), dma(1, 1)]).collect();
    let r = run(&fetch, late);
    assert_eq!((r.counters.iotlb.prefetch.useful, r.counters.dma.faults), (1, 1));
    let before = events().into_iter().chain([psi(1, 1, 1), dma(1, 1)]).collect();
    let r = run(&fetch, before);
    let p = r.counters.iotlb.prefetch;
    assert_eq!((p.issued, p.useful, p.invalidated_unused, r.counters.dma.faults), (1, 0, 1, 1));
    // Fetched between the change and its invalidation: nothing is there.
    let between = vec![map(1, 0, 8), unmap(1, 1, 1), dma(1, 0), psi(1, 1, 1), dma(1, 1)];
    let r = run(&fetch, between);
    let p = r.counters.iotlb.prefetch;
    assert_eq!((p.issued, p.refused, r.counters.dma.faults), (0, 1, 1));
}

/// The walk of a fetched page follows the miss's on the one walker, and a
/// request for the page waits for it.
#[test]
fn fetches_take_the_walkers_time() {
    let none = "{entries=0,ways=1}";
    let caches = ["stage1.2m", "stage1.1g", "stage1.512g", "stage2.2m", "stage2.1g", "stage2.512g"];
    let mut settings: Vec<String> = caches.iter().map(|c| format!("pwc.{c}={none}")).collect();
    settings.extend([format!("nested_cache={none}"), "time.enabled=true".into()]);
    settings.extend(["child.levels=4".into(), "time.iommu.walkers=1".into()]);
    // 24 entries per walk would be fewer with the parent's large pages.
    settings.push("parent.layout=4k-scattered".into());
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let walks = |policy: &str, events: Vec<Event>| {
        let t = run(&fetching(policy, 1, &settings), events).timing.unwrap();
        assert!(t.checks.passed(), "{:?}", t.checks);
        t
    };
    let events = || vec![map(1, 0, 8), dma(1, 0), dma(1, 1)];
    let t = walks("sequential", events());
    let count = |class: &str| t.classes.iter().find(|c| c.class == class).map_or(0, |c| c.count);
    assert_eq!((count("miss"), count("coalesced"), count("hit")), (1, 1, 0));
    let walk = 24 * 197 + 2;
    assert_eq!((t.latency.walk.count, t.latency.walk.mean_ns), (2, f64::from(walk)));
    let waiting = t.classes.iter().find(|c| c.class == "coalesced").unwrap();
    let waited = waiting.walk_queueing_ns + waiting.walk_ns;
    // It came while the first walk ran, and waited for the end of the second.
    assert!(waited > f64::from(walk) && waited < f64::from(2 * walk), "{waited}");
    // Without prefetching both miss: the same two walks.
    let alone = walks("none", events());
    assert_eq!(alone.elapsed_ns, t.elapsed_ns);
}

#[test]
fn a_domain_cannot_displace_another_ones_part() {
    // Domain 2 streams over 64 pages, domain 1 uses two.
    let events = || {
        let mut events = vec![map(1, 0, 2), map(2, 0, 64)];
        for n in 0..640 {
            events.extend([dma(1, n % 2), dma(2, n % 64)]);
        }
        events
    };
    let of = |partitions: &str, ways: &str| {
        let r = run(&config("hw-nested", &["iotlb.entries=8", ways, partitions]), events());
        (r.devices[0].misses, r.counters.iotlb.miss_causes)
    };
    assert_eq!(of("iotlb.partitions=2", "iotlb.ways=4").0, 2);
    assert_eq!(of("iotlb.partitions=4", "iotlb.ways=2").0, 2);
    // One set of two ways for even pages: the stream displaces 0 every 64.
    assert!(of("iotlb.partitions=1", "iotlb.ways=1").0 > 2);
}

/// A partitioned cache against as many caches as it has parts.
fn parts_are_caches<P: Replacement<Config = NoConfig>>(
    steps: &[(u32, u64, u8)],
    (parts, sets, ways): (usize, usize, usize),
) -> Result<(), TestCaseError> {
    let mut whole = SetAssoc::<P, u32>::partitioned(parts * sets * ways, ways, parts, &(), 1);
    let mut apart: Vec<_> =
        (0..parts).map(|_| SetAssoc::<P, u32>::new(sets * ways, ways, &(), 1)).collect();
    for (n, (tag, page, what)) in steps.iter().enumerate() {
        let key = Key::new(Tag(*tag), PageSize::Size4K, page << 12);
        let part = &mut apart[*tag as usize % parts];
        match what {
            0 => prop_assert_eq!(whole.remove(key), part.remove(key)),
            1 => prop_assert_eq!(whole.get(key), part.get(key)),
            _ => {
                let value = n as u32;
                prop_assert_eq!(whole.insert(key, value), part.insert(key, value));
            }
        }
    }
    prop_assert_eq!(whole.len(), apart.iter().map(|c| c.len()).sum::<usize>());
    Ok(())
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn a_part_is_a_cache_of_its_own(
        steps in vec((0u32..6, 0u64..24, 0u8..5), 1..200),
        parts in 1usize..5,
        sets in 1usize..4,
        ways in 1usize..5,
    ) {
        let shape = (parts, sets, ways);
        parts_are_caches::<Lru>(&steps, shape)?;
        parts_are_caches::<Plru>(&steps, shape)?;
        parts_are_caches::<Fifo>(&steps, shape)?;
        parts_are_caches::<Clock>(&steps, shape)?;
        parts_are_caches::<Lfu>(&steps, shape)?;
        parts_are_caches::<Srrip>(&steps, shape)?;
        parts_are_caches::<S3Fifo>(&steps, shape)?;
    }
}
