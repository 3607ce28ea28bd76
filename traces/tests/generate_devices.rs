//! Made-up devices against a simple model of what a kernel and a device may do.

use std::collections::{BTreeMap, HashMap, HashSet};

use ioasim_events::{Event, Flags, Kind, Scope};
use ioasim_traces::generate::{
    DeviceKind, DeviceTrace, DmaOptions, Kernel, MapOnceOptions, Member, MixOptions, NicOptions,
    NvmeOptions, RingSetting, SvaOptions, Unmap, VfioBootOptions,
};
use proptest::prelude::*;

/// What a domain's table holds, page by page, and what was unmapped and not
/// invalidated yet.
#[derive(Default)]
struct Domain {
    pages: HashMap<u64, u64>,
    stale: HashSet<u64>,
}

/// Checks every event against the rules and returns the number of each kind.
fn check(trace: &DeviceTrace) -> BTreeMap<&'static str, u64> {
    let strict = trace.dma.unmap == Unmap::Strict || matches!(trace.device, DeviceKind::Sva(_));
    let mut domains: HashMap<u32, Domain> = HashMap::new();
    let mut kinds = BTreeMap::new();
    let (mut last, mut attached) = (0, HashSet::new());
    trace
        .visit(&mut |e| {
            *kinds.entry(e.kind.name()).or_default() += 1;
            assert!(e.time_ns >= last, "time goes back");
            last = e.time_ns;
            let d = domains.entry(e.domain.0).or_default();
            let pages = e.addr >> 12..(e.addr + e.size).div_ceil(4096);
            match e.kind {
                Kind::Attach => {
                    assert!(attached.insert((e.requester, e.pasid)), "attached twice");
                }
                Kind::Map => {
                    assert!(e.addr % 4096 == 0 && e.size % 4096 == 0 && e.out % 4096 == 0);
                    for (i, page) in pages.enumerate() {
                        let to = e.out + 4096 * i as u64;
                        assert_eq!(d.pages.insert(page, to), None, "mapped twice: {page:#x}");
                        assert!(!d.stale.contains(&page), "used again before its invalidation");
                    }
                    assert_eq!(
                        e.flags.has(Flags::NOTIFIED),
                        trace.dma.caching_mode && !boot(trace)
                    );
                }
                Kind::Unmap => {
                    for page in pages {
                        assert!(d.pages.remove(&page).is_some(), "was not mapped: {page:#x}");
                        d.stale.insert(page);
                    }
                }
                Kind::Invalidate => match e.flags.scope() {
                    Some(Scope::Page) => {
                        assert!(e.size.is_power_of_two() && e.addr % e.size == 0);
                        pages.for_each(|p| {
                            d.stale.remove(&p);
                        });
                    }
                    Some(Scope::Domain) => d.stale.clear(),
                    other => panic!("{other:?}"),
                },
                Kind::Dma => {
                    assert!(attached.contains(&(e.requester, e.pasid)), "not attached");
                    assert!(e.size > 0 && e.flags.perm().0.count_ones() == 1);
                    for (i, page) in pages.enumerate() {
                        let to = (e.out & !0xfff) + 4096 * i as u64;
                        assert_eq!(d.pages.get(&page), Some(&to), "{e:?}");
                    }
                    if strict {
                        assert!(d.stale.is_empty(), "strict unmaps are invalidated at once");
                    }
                }
                other => panic!("a device makes no {other:?}"),
            }
            Ok(())
        })
        .unwrap();
    kinds
}

fn boot(trace: &DeviceTrace) -> bool {
    matches!(trace.device, DeviceKind::VfioBoot(_))
}

fn trace(device: DeviceKind, dma: DmaOptions) -> DeviceTrace {
    DeviceTrace { device, dma, events: 30_000, seed: 7 }
}

fn lazy() -> Unmap {
    Unmap::Lazy { entries: 256, timeout_ns: 10_000_000, single: false }
}

/// A NIC with little history, so that tests are quick.
fn nic() -> NicOptions {
    NicOptions {
        cores: 2,
        history: vec![RingSetting { mtu: 4000, packets: 256, flows: 0 }],
        warm_up: 2000,
        ..NicOptions::default()
    }
}

#[test]
fn nics_unmap_what_they_receive_unless_it_can_be_used_again() {
    let kinds = check(&trace(DeviceKind::Nic(nic()), DmaOptions::default()));
    assert!(kinds["unmap"] > 4000, "{kinds:?}");
    let recycling = NicOptions { recycle: 0.95, ..nic() };
    let fewer = check(&trace(DeviceKind::Nic(recycling), DmaOptions::default()));
    assert!(fewer["unmap"] * 4 < kinds["unmap"], "{fewer:?}");
    let caching = |read_ns| {
        let nic = NicOptions { page_cache: 255, read_ns, gbps: 20.0, ..nic() };
        check(&trace(DeviceKind::Nic(nic), DmaOptions::default()))["unmap"]
    };
    // The cache helps as long as applications read in time.
    assert!(caching(10_000) * 4 < kinds["unmap"] && caching(10_000_000) > kinds["unmap"] / 2);
    let lazily = DmaOptions { unmap: lazy(), kernel: Kernel::V6_0, ..DmaOptions::default() };
    let kinds = check(&trace(DeviceKind::Nic(nic()), lazily));
    assert!(kinds["invalidate"] * 50 < kinds["unmap"], "{kinds:?}");
}

#[test]
fn nvme_maps_lists_and_announces_them_once() {
    let options = NvmeOptions { block: 128 << 10, ..NvmeOptions::default() };
    let dma = DmaOptions { caching_mode: true, cpus: 4, ..DmaOptions::default() };
    let kinds = check(&trace(DeviceKind::Nvme(options), dma));
    // 32 pieces: a map call each, one unmap, two invalidations.
    assert!(kinds["map"] > 25 * kinds["unmap"], "{kinds:?}");
    assert!(kinds["invalidate"] < 4 * kinds["unmap"] + 200, "{kinds:?}");
}

#[test]
fn memory_mapped_once_stays_mapped() {
    for page in [4096, 2 << 20, 1 << 30] {
        let options = MapOnceOptions {
            regions: 2,
            region: 1 << 30,
            page,
            zipf: 0.9,
            ..MapOnceOptions::default()
        };
        let t = trace(DeviceKind::MapOnce(options), DmaOptions::default());
        let kinds = check_large(&t);
        assert_eq!(kinds[&Kind::Map], 2 * (1 << 30) / page);
        assert!(!kinds.contains_key(&Kind::Unmap) && kinds[&Kind::Dma] >= 30_000);
    }
}

/// As [`check`] by ranges: huge pages are too many pages for it.
fn check_large(trace: &DeviceTrace) -> BTreeMap<Kind, u64> {
    let mut maps: BTreeMap<u64, Event> = BTreeMap::new();
    let mut kinds = BTreeMap::new();
    trace
        .visit(&mut |e| {
            *kinds.entry(e.kind).or_default() += 1;
            match e.kind {
                Kind::Map => {
                    assert_eq!((e.addr % e.size, e.out % e.size), (0, 0), "aligned to its size");
                    let before = maps.range(..e.addr + e.size).next_back();
                    assert!(before.is_none_or(|m| m.1.addr + m.1.size <= e.addr));
                    maps.insert(e.addr, *e);
                }
                Kind::Dma => {
                    let map = maps.range(..=e.addr).next_back().unwrap().1;
                    assert!(e.addr + e.size <= map.addr + map.size);
                    assert_eq!(e.out, map.out + (e.addr - map.addr));
                }
                _ => {}
            }
            Ok(())
        })
        .unwrap();
    kinds
}

#[test]
fn a_guest_boots_and_runs() {
    let options = VfioBootOptions { memory: 256 << 20, huge: 0.5, ..VfioBootOptions::default() };
    let kinds = check(&trace(DeviceKind::VfioBoot(options), DmaOptions::default()));
    assert_eq!((kinds["unmap"], kinds["invalidate"]), (32, 32));
    assert!(kinds["map"] > 128 && kinds["dma"] > 10_000, "{kinds:?}");
}

#[test]
fn processes_have_pasids_and_domains() {
    let mut seen = HashSet::new();
    let t = trace(DeviceKind::Sva(SvaOptions::default()), DmaOptions::default());
    t.visit(&mut |e| {
        seen.insert((e.domain, e.pasid));
        Ok(())
    })
    .unwrap();
    assert_eq!(seen.len(), 8);
    let kinds = check(&t);
    assert!(kinds["unmap"] > 100 && kinds["invalidate"] > 10, "{kinds:?}");
}

#[test]
fn tenants_of_a_mix_are_apart() {
    let member = |tenants, device| Member { tenants, device };
    let members = vec![
        member(2, DeviceKind::Nic(NicOptions { cores: 1, ..nic() })),
        member(3, DeviceKind::Nvme(NvmeOptions { queues: Some(1), ..NvmeOptions::default() })),
        member(1, DeviceKind::Sva(SvaOptions::default())),
    ];
    let t = trace(DeviceKind::Mix(MixOptions { members }), DmaOptions::default());
    let mut devices = HashSet::new();
    let mut domains = HashSet::new();
    t.visit(&mut |e| {
        if e.kind == Kind::Dma {
            devices.insert(e.requester);
            domains.insert(e.domain);
        }
        Ok(())
    })
    .unwrap();
    assert_eq!((devices.len(), domains.len()), (6, 13));
    check(&t);
}

#[test]
fn options_out_of_their_limits_name_the_option() {
    let check = |device, dma: DmaOptions| trace(device, dma).check().unwrap_err().to_string();
    let dma = DmaOptions::default();
    assert!(check(DeviceKind::Nic(NicOptions { cores: 9, ..nic() }), dma).starts_with("--cores"));
    assert!(check(DeviceKind::Nic(NicOptions { acks: f64::NAN, ..nic() }), dma).contains("--acks"));
    assert!(
        check(DeviceKind::Nvme(NvmeOptions { depth: 0, ..Default::default() }), dma)
            .contains("--depth is 0")
    );
    assert!(
        check(DeviceKind::Nic(nic()), DmaOptions { bits: 60, ..dma }).contains("--address-bits")
    );
    let unmap = Unmap::Lazy { entries: 1, timeout_ns: 1, single: true };
    assert!(check(DeviceKind::Nic(nic()), DmaOptions { unmap, ..dma }).contains("--queue-entries"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_nic_and_disk_obeys_the_rules_and_repeats(
        seed in any::<u64>(),
        cpus in 1..6usize,
        mtu in 64..9979u64,
        packets in 64..600u64,
        gbps in 1.0..400.0f64,
        acks in 0.0..1.0f64,
        recycle in prop_oneof![2 => Just(0.0), 1 => 0.0..1.0f64],
        page_cache in 0..300u64,
        read_ns in 0..3_000_000u64,
        close_rate in proptest::option::of(0.0..10.0f64),
        send_by_flow in any::<bool>(),
        receive_by_flow in any::<bool>(),
        refill in 1..5usize,
        block in (1..600u64).prop_map(|b| b * 512),
        depth in 1..80usize,
        new in any::<bool>(),
        caching_mode in any::<bool>(),
        unmap in prop_oneof![
            Just(Unmap::Strict),
            (2..600usize, 1000..20_000_000u64, any::<bool>()).prop_map(
                |(entries, timeout_ns, single)| Unmap::Lazy { entries, timeout_ns, single }),
        ],
    ) {
        let kernel = if new { Kernel::V6_12 } else { Kernel::V6_0 };
        let dma = DmaOptions { kernel, cpus, unmap, caching_mode, bits: 48 };
        let history = vec![
            RingSetting { mtu: 1500, packets: 128, flows: 3 },
            RingSetting { mtu, packets, flows: 0 },
        ];
        let nic = NicOptions {
            cores: cpus,
            flows: 7,
            history,
            gbps,
            acks,
            recycle,
            page_cache,
            read_ns,
            close_rate,
            send_by_flow,
            receive_by_flow,
            refill,
            warm_up: 500,
            ..NicOptions::default()
        };
        let nvme = NvmeOptions { block, depth, contiguous: 1 + seed % 9, ..NvmeOptions::default() };
        for device in [DeviceKind::Nic(nic), DeviceKind::Nvme(nvme)] {
            let t = DeviceTrace { device, dma, events: 8000, seed };
            prop_assert!(t.check().is_ok());
            let kinds = check(&t);
            prop_assert!(kinds.get("dma").copied().unwrap_or(0) > 0, "{kinds:?}");
            let all = |t: &DeviceTrace| {
                let mut events = Vec::new();
                t.visit(&mut |e| { events.push(*e); Ok(()) }).unwrap();
                events
            };
            prop_assert!(all(&t) == all(&t));
        }
    }
}
