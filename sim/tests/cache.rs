//! Caches against slow, obvious models.

#[path = "common/models.rs"]
mod models;

use std::collections::HashMap;

use ioasim_sim::cache::replacement::{
    Clock, Fifo, Lfu, Lru, Plru, Random, Replacement, S3Fifo, Srrip,
};
use ioasim_sim::cache::{Associative, Cache, FlushWhenFull, FullLru, Key, LruSets, SetAssoc, Tag};
use ioasim_sim::events::PageSize;
use models::{Model, Policy, QemuModel};
use proptest::collection::vec;
use proptest::prelude::*;
use rand_pcg::Pcg64;

#[derive(Clone, Debug)]
enum Op {
    Get(Key),
    Insert(Key, u64),
    Remove(Key),
    RemoveRange(Tag, u64, u64),
    RemoveTag(Tag),
}

fn tag() -> impl Strategy<Value = Tag> {
    (0..3u32).prop_map(Tag)
}

fn page(number: u64) -> Key {
    Key::new(Tag(0), PageSize::Size4K, number << 12)
}

/// Few pages of each size, overlapping each other; some far away.
fn key() -> impl Strategy<Value = Key> {
    let page = prop_oneof![
        6 => (Just(PageSize::Size4K), 0..48u64),
        1 => (Just(PageSize::Size4K), 500..530u64),
        1 => (Just(PageSize::Size4K), (1 << 45) - 3..(1u64 << 45)),
        2 => (Just(PageSize::Size2M), 0..6u64),
        1 => (Just(PageSize::Size1G), 0..3u64),
    ];
    (tag(), page).prop_map(|(tag, (size, number))| Key::new(tag, size, number << size.shift()))
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![
        6 => (0..48u64, 1..9u64).prop_map(|(p, n)| (p << 12, (p + n) << 12)),
        2 => (0..600u64, 1..600u64).prop_map(|(p, n)| (p << 12, (p + n) << 12)),
        1 => (0..8u64, 1..4u64).prop_map(|(p, n)| (p << 21, (p + n) << 21)),
        1 => (0..1u64 << 32, 1..1u64 << 24).prop_map(|(a, n)| (a, a + n)),
        1 => Just((0, 1 << 57)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => key().prop_map(Op::Get),
        14 => (key(), any::<u64>()).prop_map(|(k, v)| Op::Insert(k, v)),
        2 => key().prop_map(Op::Remove),
        2 => (tag(), range()).prop_map(|(t, (s, e))| Op::RemoveRange(t, s, e)),
        1 => tag().prop_map(Op::RemoveTag),
    ]
}

/// (sets, ways): one way, non-powers of two, both sides of the hashed path
/// (more than 16 ways), fully associative.
fn shape() -> impl Strategy<Value = (usize, usize)> {
    proptest::sample::select(vec![
        (1, 1),
        (8, 1),
        (7, 1),
        (1, 2),
        (4, 2),
        (3, 3),
        (2, 5),
        (5, 8),
        (1, 16),
        (2, 16),
        (1, 17),
        (3, 17),
        (1, 24),
        (2, 32),
        (1, 64),
        (1, 100),
    ])
}

fn check<P: Replacement<Config = ()>>(
    policy: Policy,
    (sets, ways): (usize, usize),
    seed: u64,
    ops: &[Op],
) -> Result<(), TestCaseError> {
    let cache = SetAssoc::<P, u64>::new(sets * ways, ways, &(), seed);
    match cache.full() {
        Some(full) => check_cache(full, policy, (1, sets * ways), seed, ops)?,
        None => prop_assert_eq!(sets, 1),
    }
    check_cache(cache, policy, (sets, ways), seed, ops)
}

/// Drives `cache` and a model of this shape.
fn check_cache(
    mut cache: impl Cache<u64>,
    policy: Policy,
    (sets, ways): (usize, usize),
    seed: u64,
    ops: &[Op],
) -> Result<(), TestCaseError> {
    let mut model = Model::new(policy, sets * ways, ways, seed);
    for (i, op) in ops.iter().enumerate() {
        match *op {
            Op::Get(key) => prop_assert_eq!(cache.get(key), model.get(key), "{} {:?}", i, op),
            Op::Insert(key, value) => {
                let victim = cache.insert(key, value);
                prop_assert_eq!(victim, model.insert(key, value), "{} {:?}", i, op);
            }
            Op::Remove(key) => prop_assert_eq!(cache.remove(key), model.remove(key)),
            Op::RemoveRange(tag, start, end) => {
                let removed = cache.remove_range(tag, start, end);
                prop_assert_eq!(removed, model.remove_range(tag, start, end), "{} {:?}", i, op);
            }
            Op::RemoveTag(tag) => {
                let removed = cache.remove_if(|k| k.tag() == tag);
                prop_assert_eq!(removed, model.remove_if(|k| k.tag() == tag));
            }
        }
        prop_assert_eq!(cache.len(), model.len());
        prop_assert_eq!(cache.is_empty(), model.len() == 0);
        for size in PageSize::ALL {
            let holds = model.keys().iter().any(|k| k.size() == size);
            prop_assert_eq!(cache.holds(size), holds);
        }
    }
    let mut contents = HashMap::new();
    cache.for_each(|k, v| {
        contents.insert(k, v);
    });
    prop_assert_eq!(&contents, &model.contents());
    for key in contents.keys() {
        prop_assert_eq!(cache.peek(*key), contents.get(key).copied());
    }
    Ok(())
}

/// Fixed number of cases, no files written; a failure prints its input.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn lru(shape in shape(), seed: u64, ops in vec(op(), 1..400)) {
        check::<Lru>(Policy::Lru, shape, seed, &ops)?;
    }

    #[test]
    fn lru_sets((sets, _) in shape(), ops in vec(op(), 1..400)) {
        check_cache(LruSets::<_, 1>::new(sets), Policy::Lru, (sets, 1), 0, &ops)?;
        check_cache(LruSets::<_, 2>::new(sets * 2), Policy::Lru, (sets, 2), 0, &ops)?;
        check_cache(LruSets::<_, 4>::new(sets * 4), Policy::Lru, (sets, 4), 0, &ops)?;
        check_cache(LruSets::<_, 16>::new(sets * 16), Policy::Lru, (sets, 16), 0, &ops)?;
    }

    #[test]
    fn full_lru(entries in 1..80usize, ops in vec(op(), 1..400)) {
        check_cache(FullLru::new(entries), Policy::Lru, (1, entries), 0, &ops)?;
    }

    #[test]
    fn plru(shape in shape(), seed: u64, ops in vec(op(), 1..400)) {
        check::<Plru>(Policy::Plru, shape, seed, &ops)?;
    }

    #[test]
    fn fifo(shape in shape(), seed: u64, ops in vec(op(), 1..400)) {
        check::<Fifo>(Policy::Fifo, shape, seed, &ops)?;
    }

    #[test]
    fn clock(shape in shape(), seed: u64, ops in vec(op(), 1..400)) {
        check::<Clock>(Policy::Clock, shape, seed, &ops)?;
    }

    #[test]
    fn random(shape in shape(), seed: u64, ops in vec(op(), 1..400)) {
        check::<Random>(Policy::Random, shape, seed, &ops)?;
    }

    #[test]
    fn lfu(shape in shape(), seed: u64, ops in vec(op(), 1..400)) {
        check::<Lfu>(Policy::Lfu, shape, seed, &ops)?;
    }

    /// Bursts on few pages, so that counts differ by more than they are told apart.
    #[test]
    fn hits_in_a_row(
        ways in 1..9usize,
        bursts in vec((0..14u64, 0..7usize), 1..200),
    ) {
        let burst = |(number, hits): &(u64, usize)| {
            let key = page(*number);
            std::iter::once(Op::Insert(key, *number)).chain(vec![Op::Get(key); *hits])
        };
        let ops: Vec<Op> = bursts.iter().flat_map(burst).collect();
        check::<Lfu>(Policy::Lfu, (1, ways), 0, &ops)?;
        check::<Srrip>(Policy::Srrip, (1, ways), 0, &ops)?;
        check::<S3Fifo>(Policy::S3Fifo, (1, ways), 0, &ops)?;
    }

    #[test]
    fn srrip(shape in shape(), seed: u64, ops in vec(op(), 1..400)) {
        check::<Srrip>(Policy::Srrip, shape, seed, &ops)?;
    }

    #[test]
    fn s3fifo(shape in shape(), seed: u64, ops in vec(op(), 1..400)) {
        check::<S3Fifo>(Policy::S3Fifo, shape, seed, &ops)?;
    }
}

/// Sets so wide that the first way of many is found in three steps.
#[test]
fn thousands_of_ways() {
    let mut rng = Pcg64::new(7, 0xa02_bdbf_7bb3_c0a7);
    let mut any = || {
        // Few pages often, most seldom.
        let [a, b] = [(); 2].map(|()| rng.next_u64() >> 32);
        page((((a * b) >> 32) * 9000) >> 32)
    };
    let mut ops = Vec::new();
    for n in 0..25_000 {
        ops.push(match n % 50 {
            0 => Op::Remove(any()),
            _ if n % 3 == 0 => Op::Get(any()),
            _ => Op::Insert(any(), n),
        });
    }
    let ways = 4200;
    for policy in [Policy::Lfu, Policy::Srrip, Policy::S3Fifo] {
        let done = match policy {
            Policy::Lfu => check::<Lfu>(policy, (1, ways), 0, &ops),
            Policy::Srrip => check::<Srrip>(policy, (1, ways), 0, &ops),
            _ => check::<S3Fifo>(policy, (1, ways), 0, &ops),
        };
        done.unwrap();
    }
}

/// Operations on QEMU's IOTLB.
#[derive(Clone, Debug)]
enum QemuOp {
    Get(Key),
    Insert(Key, u64),
    /// Tag, descriptor address, address mask.
    PageSelective(Tag, u64, u32),
    Exact(Tag, u64, u64),
    Clear,
}

/// Pages whose numbers agree in the low 8 bits, and superpages.
fn qemu_key() -> impl Strategy<Value = Key> {
    let page = prop_oneof![
        6 => (0..12u64, 0..4u64).prop_map(|(low, high)| (PageSize::Size4K, high << 8 | low)),
        1 => (Just(PageSize::Size4K), 0..2048u64),
        2 => (Just(PageSize::Size2M), 0..6u64),
        1 => (Just(PageSize::Size1G), 0..3u64),
    ];
    (tag(), page).prop_map(|(tag, (size, number))| Key::new(tag, size, number << size.shift()))
}

fn qemu_op() -> impl Strategy<Value = QemuOp> {
    let addr = prop_oneof![
        4 => (0..12u64, 0..4u64).prop_map(|(low, high)| (high << 8 | low) << 12),
        1 => 0..1u64 << 32,
    ];
    prop_oneof![
        10 => qemu_key().prop_map(QemuOp::Get),
        14 => (qemu_key(), any::<u64>()).prop_map(|(k, v)| QemuOp::Insert(k, v)),
        3 => (tag(), addr, 0..19u32).prop_map(|(t, a, am)| QemuOp::PageSelective(t, a, am)),
        1 => (tag(), range()).prop_map(|(t, (s, e))| QemuOp::Exact(t, s, e)),
        1 => Just(QemuOp::Clear),
    ]
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn flush_when_full(
        capacity in proptest::sample::select(vec![1usize, 2, 7, 64]),
        ops in vec(qemu_op(), 1..400),
    ) {
        let mut cache = FlushWhenFull::new(capacity);
        let mut model = QemuModel::new(capacity);
        for op in &ops {
            match *op {
                QemuOp::Get(key) => {
                    prop_assert_eq!(cache.get(key), model.held.get(&key).copied());
                }
                QemuOp::Insert(key, value) => {
                    prop_assert_eq!(cache.insert(key, value), model.insert(key, value));
                }
                QemuOp::PageSelective(tag, addr, am) => {
                    let mut gone = Vec::new();
                    cache.remove_low8(addr, am, |t| t == tag, |k| gone.push(k));
                    let mut expected = model.remove_page_selective(tag, addr, am);
                    gone.sort();
                    expected.sort();
                    prop_assert_eq!(gone, expected, "{:?}", op);
                }
                QemuOp::Exact(tag, start, end) => {
                    let hit = |k: Key| k.tag() == tag && k.overlaps(start, end);
                    cache.remove_if(hit, |_| ());
                    model.held.retain(|k, _| !hit(*k));
                }
                QemuOp::Clear => {
                    prop_assert_eq!(cache.clear(), model.held.len());
                    model.held.clear();
                }
            }
            prop_assert_eq!(cache.len(), model.held.len());
            for size in PageSize::ALL {
                prop_assert_eq!(cache.holds(size), model.held.keys().any(|k| k.size() == size));
            }
        }
        let mut contents = HashMap::new();
        cache.for_each(|k, v| {
            contents.insert(k, v);
        });
        prop_assert_eq!(&contents, &model.held);
    }
}

/// The quirk in one picture: a page 256 pages away goes too.
#[test]
fn eight_bit_mask_drops_pages_far_away() {
    let key = |page: u64| Key::new(Tag(1), PageSize::Size4K, page << 12);
    let mut cache = FlushWhenFull::new(16);
    for page in [0x10, 0x110, 0x11, 0x12] {
        cache.insert(key(page), ());
    }
    let mut gone = Vec::new();
    cache.remove_low8(0x10 << 12, 1, |_| true, |k| gone.push(k.number()));
    gone.sort();
    assert_eq!(gone, [0x10, 0x11, 0x110]);
}
