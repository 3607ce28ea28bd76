//! Miss causes against the definitions of `docs/miss-causes.md`, by brute force:
//! an infinitely large cache and a fully associative one as plain collections.

#[path = "common/models.rs"]
mod models;

use std::collections::{HashMap, HashSet};

use ioasim_sim::cache::replacement::{
    Clock, Fifo, Lfu, Lru, Plru, Random, Replacement, S3Fifo, Srrip,
};
use ioasim_sim::cache::{
    Cached, FlushWhenFullStore, Iotlb, Key, MissCause, PageMatch, PageRange, SetAssocStore, Store,
    Tag,
};
use ioasim_sim::events::{PageSize, Perm};
use ioasim_sim::results::MissCauses;
use models::{Model, Policy, QemuModel};
use proptest::collection::vec;
use proptest::prelude::*;

/// Fixed number of cases, no files written; a failure prints its input.
/// Fills and asks for the cause at once.
fn fill<S: Store>(iotlb: &mut Iotlb<S>, key: Key, value: Cached) -> MissCause {
    let mut cause = None;
    let filled = iotlb.fill(key, value, 0);
    iotlb.causes(&mut [filled], |_, c| cause = Some(c));
    cause.unwrap()
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

#[derive(Clone, Debug)]
enum Op {
    /// A request to page `page` of a tag, with the rights it needs.
    Request {
        tag: u32,
        page: u64,
        needed: Perm,
    },
    /// The table changes behind the cache: whole 2 MiB region `page / 512`
    /// becomes pages of `size` with `perm`, or absent.
    Change {
        tag: u32,
        region: u64,
        size: Option<PageSize>,
        perm: Perm,
    },
    /// Page-selective.
    Pages {
        tag: u32,
        page: u64,
        am: u32,
    },
    /// A range that no descriptor can say.
    Range {
        tag: u32,
        start: u64,
        len: u64,
    },
    Domain {
        tag: u32,
    },
    Global,
}

const TAGS: u32 = 3;

fn perm() -> impl Strategy<Value = Perm> {
    proptest::sample::select(vec![Perm::READ, Perm::RW, Perm::RW, Perm::RW])
}

fn op() -> impl Strategy<Value = Op> {
    let page = prop_oneof![
        6 => 0..24u64,
        2 => (0..24u64).prop_map(|p| p + 256),
        2 => (0..8u64, 0..16u64).prop_map(|(r, p)| r * 512 + p),
        1 => (0..4u64).prop_map(|p| (1 << 45) - 1 - p),
        // Beyond every table's width.
        1 => (0..4u64).prop_map(|p| (1 << 45) + p),
    ];
    let needed = proptest::sample::select(vec![Perm::NONE, Perm::READ, Perm::READ, Perm::WRITE]);
    let size = proptest::sample::select(vec![
        None,
        Some(PageSize::Size4K),
        Some(PageSize::Size4K),
        Some(PageSize::Size2M),
        Some(PageSize::Size1G),
    ]);
    prop_oneof![
        40 => (0..TAGS, page.clone(), needed)
            .prop_map(|(tag, page, needed)| Op::Request { tag, page, needed }),
        3 => (0..TAGS, 0..4u64, size, perm())
            .prop_map(|(tag, region, size, perm)| Op::Change { tag, region, size, perm }),
        3 => (0..TAGS, page, 0..11u32).prop_map(|(tag, page, am)| Op::Pages { tag, page, am }),
        1 => (0..TAGS, 0..1u64 << 23, 0..1u64 << 15)
            .prop_map(|(tag, start, len)| Op::Range { tag, start, len }),
        1 => (0..TAGS, prop_oneof![Just(0), Just(u64::MAX - 5)], Just(u64::MAX))
            .prop_map(|(tag, start, len)| Op::Range { tag, start, len }),
        1 => (0..TAGS).prop_map(|tag| Op::Domain { tag }),
        1 => Just(Op::Global),
    ]
}

/// The table: what a walk finds.
#[derive(Default)]
struct World(HashMap<(u32, u64), (Option<PageSize>, Perm)>);

impl World {
    fn walk(&self, tag: u32, addr: u64) -> Option<(PageSize, Perm)> {
        if addr >> 57 != 0 {
            return None;
        }
        let default = (Some(PageSize::Size4K), Perm::RW);
        let (size, perm) = self.0.get(&(tag, addr >> 21)).copied().unwrap_or(default);
        size.map(|s| (s, perm))
    }
}

/// The modelled cache, slow.
trait Slow {
    fn get(&mut self, key: Key) -> Option<Perm>;
    fn insert(&mut self, key: Key, perm: Perm);
    /// Removes what the command covers, and returns what went beyond that.
    fn invalidate(&mut self, tag: Tag, range: PageRange) -> Vec<Key>;
    fn remove_tag(&mut self, tag: Tag);
    /// An empty fully associative one, if this one is not.
    fn reference(&self) -> Option<Model<Perm>>;
}

struct SlowSets {
    cache: Model<Perm>,
    policy: Policy,
    entries: usize,
    ways: usize,
    seed: u64,
}

impl Slow for SlowSets {
    fn get(&mut self, key: Key) -> Option<Perm> {
        self.cache.get(key)
    }
    fn insert(&mut self, key: Key, perm: Perm) {
        self.cache.insert(key, perm);
    }
    fn invalidate(&mut self, tag: Tag, range: PageRange) -> Vec<Key> {
        self.cache.remove_range(tag, range.start, range.end);
        Vec::new()
    }
    fn remove_tag(&mut self, tag: Tag) {
        self.cache.remove_if(|k| k.tag() == tag);
    }
    fn reference(&self) -> Option<Model<Perm>> {
        (self.ways < self.entries)
            .then(|| Model::new(self.policy, self.entries, self.entries, self.seed))
    }
}

struct SlowQemu(QemuModel<Perm>, PageMatch);

impl Slow for SlowQemu {
    fn get(&mut self, key: Key) -> Option<Perm> {
        self.0.held.get(&key).copied()
    }
    fn insert(&mut self, key: Key, perm: Perm) {
        self.0.insert(key, perm);
    }
    fn invalidate(&mut self, tag: Tag, range: PageRange) -> Vec<Key> {
        match self.1 {
            PageMatch::Exact => {
                self.0.held.retain(|k, _| k.tag() != tag || !k.overlaps(range.start, range.end));
                return Vec::new();
            }
            PageMatch::Domain => {
                return self.0.held.extract_if(|k, _| k.tag() == tag).map(|(k, _)| k).collect();
            }
            PageMatch::Low8 => {}
        }
        // Enough address bits ignored to cover the range.
        let (first, last) = (range.start >> 12, (range.end - 1) >> 12);
        let am = (0..).find(|am| first >> am == last >> am).unwrap();
        self.0.remove_page_selective(tag, range.descriptor, am)
    }
    fn remove_tag(&mut self, tag: Tag) {
        self.0.held.retain(|k, _| k.tag() != tag);
    }
    fn reference(&self) -> Option<Model<Perm>> {
        None
    }
}

fn key(tag: Tag, size: PageSize, addr: u64) -> Key {
    Key::new(tag, size, addr)
}

fn run<S: Store>(store: S, mut slow: impl Slow, ops: &[Op]) -> Result<MissCauses, TestCaseError> {
    let mut iotlb = Iotlb::new(store);
    let mut world = World::default();
    let mut seen: HashSet<Key> = HashSet::new();
    let mut infinite: HashMap<Key, Perm> = HashMap::new();
    let mut full = slow.reference();
    let (mut causes, mut misses) = (MissCauses::default(), 0u64);
    for (i, op) in ops.iter().enumerate() {
        let mut dropped: Vec<PageRange> = Vec::new();
        match *op {
            Op::Request { tag: t, page, needed } => {
                let (tag, addr) = (Tag(t), page << 12 | 0x123);
                let sizes = PageSize::ALL.into_iter().filter(|_| addr >> 57 == 0);
                // An entry without the rights is no hit, but was referenced.
                let mut denied = false;
                let hit = sizes.map(|s| key(tag, s, addr)).find(|k| match slow.get(*k) {
                    Some(perm) if perm.allows(needed) => true,
                    found => {
                        denied |= found.is_some();
                        false
                    }
                });
                let found = iotlb.lookup(tag, addr, needed);
                prop_assert_eq!(found.is_some(), hit.is_some(), "{} {:?}", i, op);
                if let Some(key) = hit {
                    // The reference sees it too.
                    if let Some(full) = &mut full
                        && full.get(key).is_none()
                    {
                        full.insert(key, infinite[&key]);
                    }
                    prop_assert!(infinite.contains_key(&key));
                    continue;
                }
                misses += 1;
                let translated = world.walk(t, addr).filter(|(_, perm)| perm.allows(needed));
                let enough = |k: &Key| infinite.get(k).is_some_and(|p| p.allows(needed));
                let (cause, expected) = match translated {
                    Some((size, perm)) => {
                        let key = key(tag, size, addr);
                        let expected = if !seen.contains(&key) {
                            MissCause::Cold
                        } else if !enough(&key) {
                            MissCause::Invalidation
                        } else if full.as_ref().is_some_and(|f| f.peek(key).is_some()) {
                            MissCause::Conflict
                        } else {
                            MissCause::Capacity
                        };
                        seen.insert(key);
                        infinite.insert(key, perm);
                        if let Some(full) = &mut full {
                            if denied {
                                full.get(key);
                            }
                            full.insert(key, perm);
                        }
                        slow.insert(key, perm);
                        let value = Cached::new(addr & !0xfff, perm);
                        (fill(&mut iotlb, Key::new(tag, size, addr), value), expected)
                    }
                    None => {
                        let keys = PageSize::ALL.map(|s| key(tag, s, addr));
                        let expected = if addr >> 57 != 0 {
                            MissCause::Cold
                        } else if keys.iter().any(enough) {
                            MissCause::Capacity
                        } else if keys.iter().any(|k| seen.contains(k)) {
                            MissCause::Invalidation
                        } else {
                            MissCause::Cold
                        };
                        (iotlb.fault(tag, addr), expected)
                    }
                };
                prop_assert_eq!(cause, expected, "{} {:?}", i, op);
                causes.add(cause);
            }
            Op::Change { tag, region, size, perm } => {
                world.0.insert((tag, region), (size, perm));
            }
            Op::Pages { tag, page, am } if page >> 45 == 0 => {
                let (start, bytes) = ((page >> am << am) << 12, 4096u64 << am);
                let range = PageRange { start, end: start + bytes, descriptor: page << 12 };
                dropped.push(range);
                iotlb.invalidate(Tag(tag), range);
            }
            Op::Pages { .. } => {}
            Op::Range { tag, start, len } => {
                let mut range = PageRange::new(start, start.saturating_add(len));
                iotlb.invalidate(Tag(tag), range);
                range.end = range.end.min(1 << 57);
                if range.start < range.end {
                    dropped.push(range);
                }
            }
            Op::Domain { tag } => {
                iotlb.invalidate_tag(Tag(tag));
                infinite.retain(|k, _| k.tag() != Tag(tag));
                slow.remove_tag(Tag(tag));
                if let Some(full) = &mut full {
                    full.remove_if(|k| k.tag() == Tag(tag));
                }
            }
            Op::Global => {
                (0..TAGS).for_each(|t| {
                    iotlb.invalidate_tag(Tag(t));
                    slow.remove_tag(Tag(t));
                    if let Some(full) = &mut full {
                        full.remove_if(|k| k.tag() == Tag(t));
                    }
                });
                infinite.clear();
            }
        }
        if let (Op::Pages { tag, .. } | Op::Range { tag, .. }, Some(range)) = (op, dropped.first())
        {
            let tag = Tag(*tag);
            infinite.retain(|k, _| k.tag() != tag || !k.overlaps(range.start, range.end));
            for beyond in slow.invalidate(tag, *range) {
                infinite.remove(&beyond);
            }
            if let Some(full) = &mut full {
                full.remove_range(tag, range.start, range.end);
            }
        }
    }
    let MissCauses { cold, capacity, conflict, invalidation } = causes;
    prop_assert_eq!(cold + capacity + conflict + invalidation, misses);
    Ok(causes)
}

fn sets<P: Replacement<Config = ()>>(
    policy: Policy,
    (sets, ways): (usize, usize),
    seed: u64,
    ops: &[Op],
) -> Result<MissCauses, TestCaseError> {
    let entries = sets * ways;
    let cache = Model::new(policy, entries, ways, seed);
    let slow = SlowSets { cache, policy, entries, ways, seed };
    run(SetAssocStore::<P>::new(entries, ways, seed), slow, ops)
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn set_associative(
        shape in proptest::sample::select(vec![
            (1, 1), (4, 1), (3, 1), (4, 2), (2, 3), (8, 4), (1, 8), (2, 17), (1, 32),
        ]),
        seed: u64,
        ops in vec(op(), 1..500),
    ) {
        sets::<Lru>(Policy::Lru, shape, seed, &ops)?;
        sets::<Plru>(Policy::Plru, shape, seed, &ops)?;
        sets::<Fifo>(Policy::Fifo, shape, seed, &ops)?;
        sets::<Clock>(Policy::Clock, shape, seed, &ops)?;
        sets::<Random>(Policy::Random, shape, seed, &ops)?;
        sets::<Lfu>(Policy::Lfu, shape, seed, &ops)?;
        sets::<Srrip>(Policy::Srrip, shape, seed, &ops)?;
        sets::<S3Fifo>(Policy::S3Fifo, shape, seed, &ops)?;
    }

    #[test]
    fn flush_when_full(
        entries in 1..40usize,
        how in proptest::sample::select(vec![PageMatch::Exact, PageMatch::Low8, PageMatch::Domain]),
        ops in vec(op(), 1..500),
    ) {
        let store = FlushWhenFullStore::new(entries, how);
        let causes = run(store, SlowQemu(QemuModel::new(entries), how), &ops)?;
        prop_assert_eq!(causes.conflict, 0);
    }
}

/// A small IOTLB driven by hand.
struct Hand<S: Store>(Iotlb<S>);

impl<S: Store> Hand<S> {
    /// The cause of the miss, or `None` for a hit.
    fn request(&mut self, page: u64) -> Option<MissCause> {
        let addr = page << 12;
        match self.0.lookup(Tag(0), addr, Perm::READ) {
            Some(_) => None,
            None => {
                let value = Cached::new(addr, Perm::RW);
                Some(fill(&mut self.0, Key::new(Tag(0), PageSize::Size4K, addr), value))
            }
        }
    }

    fn invalidate(&mut self, page: u64) {
        self.0.invalidate(Tag(0), PageRange::new(page << 12, (page + 1) << 12));
    }
}

/// The examples of `docs/miss-causes.md`.
#[test]
fn the_documented_examples() {
    use MissCause::{Capacity, Cold, Conflict, Invalidation};
    let two_ways = || Hand(Iotlb::new(SetAssocStore::<Lru>::new(2, 2, 0)));

    let mut h = two_ways();
    assert_eq!([1, 1].map(|p| h.request(p)), [Some(Cold), None]);

    let mut h = two_ways();
    h.request(1);
    h.invalidate(1);
    assert_eq!(h.request(1), Some(Invalidation));

    // Evicted first, then invalidated: any cache would miss.
    let mut h = two_ways();
    for page in 1..4 {
        h.request(page);
    }
    h.invalidate(1);
    assert_eq!(h.request(1), Some(Invalidation));

    let mut h = two_ways();
    assert_eq!([1, 2, 3, 1].map(|p| h.request(p))[3], Some(Capacity));

    // Two sets of one way: pages 2 and 4 share a set, the other is empty.
    let mut h = Hand(Iotlb::new(SetAssocStore::<Lru>::new(2, 1, 0)));
    assert_eq!([2, 4, 2].map(|p| h.request(p)), [Some(Cold), Some(Cold), Some(Conflict)]);

    // Three pages of the same set: two entries are too few wherever they are.
    let mut h = Hand(Iotlb::new(SetAssocStore::<Lru>::new(2, 1, 0)));
    assert_eq!([2, 4, 6, 2].map(|p| h.request(p))[3], Some(Capacity));

    // QEMU drops page 0x110 when page 0x10 is invalidated.
    let mut h = Hand(Iotlb::new(FlushWhenFullStore::new(16, PageMatch::Low8)));
    h.request(0x110);
    h.invalidate(0x10);
    assert_eq!(h.request(0x110), Some(Invalidation));

    // Emptied by the insertion that finds it full.
    let mut h = Hand(Iotlb::new(FlushWhenFullStore::new(2, PageMatch::Low8)));
    assert_eq!([1, 2, 3, 2].map(|p| h.request(p))[3], Some(Capacity));

    // Right missing: the entry is there, but no cache could have answered.
    let mut h = two_ways();
    h.0.lookup(Tag(0), 0, Perm::READ);
    let key = Key::new(Tag(0), PageSize::Size4K, 0);
    fill(&mut h.0, key, Cached::new(0, Perm::READ));
    assert_eq!(h.0.lookup(Tag(0), 0, Perm::WRITE), None);
    let cause = fill(&mut h.0, key, Cached::new(0, Perm::RW));
    assert_eq!(cause, Invalidation);

    // The reference counts references as the modelled cache does: two for page
    // 0 with the wrong rights, so that 4 displaces 2 there.
    let mut h = Hand(Iotlb::new(SetAssocStore::<Lfu>::new(2, 1, 0)));
    h.0.lookup(Tag(0), 0, Perm::READ);
    assert_eq!(fill(&mut h.0, key, Cached::new(0, Perm::READ)), Cold);
    assert_eq!(h.0.lookup(Tag(0), 0, Perm::WRITE), None);
    assert_eq!(fill(&mut h.0, key, Cached::new(0, Perm::RW)), Invalidation);
    assert_eq!([2, 2, 4, 0].map(|p| h.request(p)), [Some(Cold), None, Some(Cold), Some(Conflict)]);

    // Faults: never translated, then translated and invalidated.
    let mut h = two_ways();
    assert_eq!(h.0.lookup(Tag(0), 0x5000, Perm::READ), None);
    assert_eq!(h.0.fault(Tag(0), 0x5000), Cold);
    assert_eq!(h.0.fault(Tag(0), 0x5000), Cold);
    h.request(5);
    h.invalidate(5);
    assert_eq!(h.0.lookup(Tag(0), 0x5000, Perm::READ), None);
    assert_eq!(h.0.fault(Tag(0), 0x5000), Invalidation);
}
