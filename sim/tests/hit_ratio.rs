//! Miss counts on a Zipf(1.0) trace equal libCacheSim's, exactly.
//!
//! `data/zipf_hits.csv` holds what `benches/libcachesim_counts.py` recorded;
//! `docs/accuracy.md` tells how.

#[path = "common/zipf.rs"]
mod zipf;

use ioasim_sim::cache::replacement::{Clock, Fifo, Lfu, Lru, Replacement, S3Fifo};
use ioasim_sim::cache::{Cache, FullLru, Key, SetAssoc, Tag};
use ioasim_sim::events::PageSize;
use zipf::{SEED, Zipf};

const RECORDED: &str = include_str!("data/zipf_hits.csv");

/// A fully associative cache that counts its misses.
struct Counted {
    policy: String,
    entries: usize,
    recorded: u64,
    misses: u64,
    request: Box<dyn FnMut(u64) -> bool>,
}

fn cache(mut cache: impl Cache<u64> + 'static) -> Box<dyn FnMut(u64) -> bool> {
    Box::new(move |page| {
        let key = Key::new(Tag(0), PageSize::Size4K, page << 12);
        let hit = cache.get(key).is_some();
        if !hit {
            cache.insert(key, page);
        }
        hit
    })
}

fn one_set<P: Replacement<Config = ()>>(entries: usize) -> SetAssoc<P, u64> {
    SetAssoc::new(entries, entries, &(), 0)
}

/// The rows of the file, those of LRU for both of its structures.
fn rows() -> Vec<String> {
    let rows = RECORDED.lines().filter(|l| !l.starts_with('#')).skip(1);
    let again = |row: &str| row.strip_prefix("lru,").map(|r| format!("lru-one-set,{r}"));
    rows.flat_map(|row| [Some(row.to_string()), again(row)]).flatten().collect()
}

#[test]
fn misses_equal_libcachesims() {
    let mut requests = 0;
    let mut caches: Vec<Counted> = rows()
        .iter()
        .map(|row| {
            let [policy, entries, count, misses] = row.split(',').collect::<Vec<_>>()[..] else {
                panic!("{row}")
            };
            requests = count.parse().unwrap();
            let entries = entries.parse().unwrap();
            let request = match policy {
                "lru" => cache(FullLru::new(entries)),
                "lru-one-set" => cache(one_set::<Lru>(entries)),
                "fifo" => cache(one_set::<Fifo>(entries)),
                "clock" => cache(one_set::<Clock>(entries)),
                "lfu" => cache(one_set::<Lfu>(entries)),
                "s3fifo" => cache(one_set::<S3Fifo>(entries)),
                other => panic!("{other}"),
            };
            let (policy, recorded) = (policy.into(), misses.parse().unwrap());
            Counted { policy, entries, recorded, misses: 0, request }
        })
        .collect();
    assert_eq!(caches.len(), 20 + 4);
    let mut checksum = 0u64;
    let mut zipf = Zipf::new(SEED);
    // In blocks, so that each cache stays in the processor's caches a while.
    let mut block = Vec::with_capacity(1 << 16);
    let mut done = 0u64;
    while done < requests {
        block.clear();
        block.extend(zipf.by_ref().take((requests - done).min(1 << 16) as usize));
        for (i, page) in block.iter().enumerate() {
            checksum = checksum.wrapping_add(page.wrapping_mul(done + i as u64 + 1));
        }
        for c in &mut caches {
            c.misses += block.iter().filter(|page| !(c.request)(**page)).count() as u64;
        }
        done += block.len() as u64;
    }
    let trace = format!("checksum {checksum:#x}");
    assert!(RECORDED.lines().next().unwrap().ends_with(&trace), "another trace: {trace}");
    for c in &caches {
        assert_eq!(c.misses, c.recorded, "{} {}", c.policy, c.entries);
    }
}
