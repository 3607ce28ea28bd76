//! Distributions and text plots of small traces, against counts by hand and by
//! a slow reference.

use ioasim_events::{Chunk, DomainId, Event, Kind, Requester};
use ioasim_traces::file::Meta;
use ioasim_traces::stats::{Spread, StatsBuilder, TraceStats};
use proptest::prelude::*;

fn stats(events: &[Event]) -> TraceStats {
    let mut meta = Meta::default();
    meta.totals.events = events.len() as u64;
    let mut builder = StatsBuilder::new(&meta);
    builder.add(&events.iter().copied().collect::<Chunk>());
    builder.finish()
}

fn at(time_ns: u64, kind: Kind, page: u64) -> Event {
    let (domain, requester) = (DomainId(1), Requester(8));
    Event { time_ns, domain, requester, addr: page << 12, size: 4096, ..Event::new(kind) }
}

/// Upper ends and counts.
fn classes(spread: &Spread) -> Vec<(u64, u64)> {
    spread.classes.iter().map(|c| (c.up_to, c.count)).collect()
}

#[test]
fn a_small_trace_by_hand() {
    let mut events = vec![at(0, Kind::Map, 1), at(0, Kind::Map, 2), at(0, Kind::Map, 3)];
    // Distances: first, first, 1, first, 3, 2.
    let order = [1, 2, 2, 3, 1, 3];
    events.extend((0u64..).zip(order).map(|(i, page)| at(10 + i, Kind::Dma, page)));
    // Another device: its burst is 1, and the next one's 1.
    events.push(Event { requester: Requester(16), ..at(20, Kind::Dma, 3) });
    events.push(at(21, Kind::Dma, 3));
    // Lifetimes 100, 1,000 and 1,025 ns.
    events.extend([at(100, Kind::Unmap, 1), at(1000, Kind::Unmap, 2), at(1025, Kind::Unmap, 3)]);
    let s = stats(&events);
    let l = &s.locality;
    assert_eq!(classes(&l.reuse_distance_4k), [(1, 3), (2, 1), (4, 1)]);
    assert_eq!(l.first_accesses_4k, 3);
    // All in one 2 MiB region.
    assert_eq!(classes(&l.reuse_distance_2m), [(1, 7)]);
    assert_eq!(classes(&l.burst_accesses), [(1, 2), (8, 1)]);
    assert_eq!(classes(&s.maps.lifetime_ns), [(128, 1), (1024, 1), (2048, 1)]);
    let text = s.render_plots(80);
    // 3 of 8 accesses at distance 1, 4 at most 2, 5 at most 4; and 7 of 8.
    for line in ["1   37.5 %", "2   50.0 %", "4   62.5 %", "87.5 %", "37.5 % of 4 KiB"] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(text.contains("up to  maps    share"), "{text}");
    assert!(text.contains("128 ns     1   33.3 %"), "{text}");
}

#[test]
fn an_empty_trace_has_no_plots() {
    assert_eq!(stats(&[]).render_plots(80), "");
    assert_eq!(stats(&[at(5, Kind::Map, 1)]).render_plots(80), "");
}

proptest! {
    /// The share of accesses at distance n at most is the hit rate of an LRU
    /// cache of n entries, simulated.
    #[test]
    fn shares_are_hit_rates_of_lru_caches(
        pages in proptest::collection::vec(0u64..40, 1..400),
        log2 in 0u32..6,
    ) {
        let events: Vec<Event> =
            (0u64..).zip(&pages).map(|(i, page)| at(i, Kind::Dma, *page)).collect();
        let s = stats(&events);
        let n = 1usize << log2;
        let mut cache: Vec<u64> = Vec::new();
        let mut hits = 0;
        for page in &pages {
            if let Some(i) = cache.iter().position(|p| p == page) {
                cache.remove(i);
                hits += 1;
            }
            cache.push(*page);
            if cache.len() > n {
                cache.remove(0);
            }
        }
        let spread = &s.locality.reuse_distance_4k;
        let upto = |c: &&ioasim_traces::stats::Class| c.up_to <= n as u64;
        let found: u64 = spread.classes.iter().filter(upto).map(|c| c.count).sum();
        prop_assert_eq!(found, hits);
        prop_assert_eq!(spread.classes.iter().map(|c| c.count).sum::<u64>(), spread.count);
        prop_assert_eq!(spread.count + s.locality.first_accesses_4k, pages.len() as u64);
    }

    /// Distinct pages of each part, counted anew; nothing is wider than asked.
    #[test]
    fn working_sets_are_distinct_pages(
        pages in proptest::collection::vec(0u64..1 << 20, 1..500),
        width in 72usize..140,
    ) {
        let events: Vec<Event> =
            (0u64..).zip(&pages).map(|(i, page)| at(i, Kind::Dma, *page)).collect();
        let s = stats(&events);
        let parts = &s.locality.working_set;
        let step = pages.len().div_ceil(60);
        let naive: Vec<u64> = pages
            .chunks(step)
            .map(|c| c.iter().collect::<std::collections::HashSet<_>>().len() as u64)
            .collect();
        prop_assert_eq!(parts.iter().map(|p| p.pages).collect::<Vec<_>>(), naive);
        let text = s.render_plots(width);
        prop_assert!(text.lines().all(|l| l.chars().count() <= width), "{}", text);
        prop_assert!(text.lines().all(|l| l == l.trim_end()));
    }
}
