use proptest::prelude::*;

use super::*;

fn event(text: &str) -> Event {
    match parse(text.as_bytes()).1 {
        Line::Event(e) => e,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn stamps() {
    let args = "vtd_context_cache_reset ";
    for (prefix, time, tid) in [
        ("19823@1795404603.327398:", Some(1_795_404_603_327_398_000), 19823),
        ("2026-11-23T04:33:23.327398Z ", Some(1_795_408_403_327_398_000), 0),
        ("", None, 0),
    ] {
        let text = format!("{prefix}{args}");
        assert_eq!(
            parse(text.as_bytes()),
            (Stamp { time, tid }, Line::Event(Event::CacheReset)),
            "{text}"
        );
    }
    for bad in [
        "19823@1795404603:x",
        "19823@",
        "2026-11-23 vtd_context_cache_reset",
        "19823@1.119823@1.2:a",
    ] {
        assert!(matches!(parse(bad.as_bytes()).1, Line::Damaged(_)), "{bad}");
    }
}

#[test]
fn every_event_used() {
    use Event::*;
    for (text, expected) in [
        (
            "vtd_iotlb_page_hit IOTLB page hit sid 0x8 iova 0xfffff040 slpte 0x113f79003 domain 0x3",
            IotlbPage { hit: true, sid: 8, iova: 0xffff_f040, slpte: 0x1_13f7_9003, domain: 3 },
        ),
        (
            "vtd_iotlb_page_update IOTLB page update sid 0x28 iova 0x1010 slpte 0x501003 domain 0x5",
            IotlbPage { hit: false, sid: 0x28, iova: 0x1010, slpte: 0x50_1003, domain: 5 },
        ),
        (
            "vtd_dmar_translate dev 00:05.00 iova 0x1000 -> gpa 0x501000 mask 0xfff",
            Translate { sid: 0x28, iova: 0x1000, gpa: 0x50_1000, mask: 0xfff },
        ),
        (
            "vtd_inv_desc invalidate desc type context-cache high 0x0 low 0x11",
            InvDesc { qw0: 0x11, qw1: 0 },
        ),
        (
            "vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x5 addr 0xffe8a000 mask 0x1",
            InvPages { domain: 5, addr: 0xffe8_a000, am: 1 },
        ),
        ("vtd_inv_desc_iotlb_domain iotlb invalidate whole domain 0x7", InvDomain { domain: 7 }),
        ("vtd_inv_desc_iotlb_global iotlb invalidate global", InvGlobal),
        ("vtd_inv_desc_cc_global context invalidate globally", CcGlobal),
        ("vtd_inv_desc_cc_domain context invalidate domain 0x2", CcDomain { domain: 2 }),
        (
            "vtd_inv_desc_cc_devices context invalidate devices sid 0xf8 fmask 0x3",
            CcDevices { sid: 0xf8, fmask: 3 },
        ),
        (
            "vtd_inv_desc_iec granularity 0x1 index 0x8 mask 0x0",
            Iec { granularity: 1, index: 8, mask: 0 },
        ),
        ("vtd_dmar_enable enable 1", DmarEnable { on: true }),
        (
            "vtd_iotlb_cc_update IOTLB context update bus 0x0 devfn 0x10 high 0x401 low 0x100bfb001 gen 0 -> gen 1",
            Context { sid: 0x10, high: 0x401 },
        ),
        (
            "vtd_iotlb_cc_hit IOTLB context hit bus 0x1 devfn 0x8 high 0x302 low 0x100bf8001 gen 1",
            Context { sid: 0x108, high: 0x302 },
        ),
        (
            "vtd_dmar_fault sid 0x28 fault 5 addr 0x2000 write 1",
            Fault { sid: 0x28, addr: 0x2000, write: true },
        ),
        ("vtd_translate_pt source id 0x18, iova 0x1234", PassThrough { sid: 0x18, iova: 0x1234 }),
        (
            "vtd_switch_address_space Device 00:1f.3 switching address space (iommu enabled=1)",
            Switch { sid: 0xfb, on: true },
        ),
        (
            "vtd_as_unmap_whole Device 00:01.0 start 0xfef00000 size 0x7f01100000",
            UnmapWhole { sid: 8, start: 0xfef0_0000, size: 0x7f_0110_0000 },
        ),
        (
            "vtd_replay_ce_valid legacy mode: replay valid context device 00:01.00 domain 0x3 hi 0x301 lo 0x2173001",
            ReplayContext { sid: 8, high: 0x301 },
        ),
        (
            "vtd_page_walk_one domain 0x3 iova 0xfffb8000 -> gpa 0x1f15b000 mask 0xfff perm 1",
            WalkOne { domain: 3, iova: 0xfffb_8000, gpa: 0x1f15_b000, mask: 0xfff, perm: 1 },
        ),
        (
            "vfio_iommu_map_notify iommu UNMAP @ 0x0 - 0x7fffffff",
            VfioNotify { map: false, start: 0, end: 0x7fff_ffff },
        ),
        (
            "vfio_listener_region_add_ram region_add [ram] 0x0 - 0x1fffffff [0x7f05b1a00000]",
            RegionAddRam { start: 0, end: 0x1fff_ffff, vaddr: 0x7f05_b1a0_0000 },
        ),
        (
            "vfio_listener_region_add_iommu region_add [iommu] 0xfef00000 - 0xffffffffffffffff",
            RegionAddIommu { start: 0xfef0_0000, end: u64::MAX },
        ),
        (
            "vfio_listener_region_add_iommu region_add [iommu] intel_iommu 0x0 - 0xfedfffff",
            RegionAddIommu { start: 0, end: 0xfedf_ffff },
        ),
        (
            "vfio_listener_region_del region_del 0xc0000 - 0xdffff",
            RegionDel { start: 0xc_0000, end: 0xd_ffff },
        ),
    ] {
        assert_eq!(event(text), expected, "{text}");
    }
}

#[test]
fn others_and_damage() {
    let line = |text: &'static str| parse(text.as_bytes()).1;
    assert_eq!(line(""), Line::Blank);
    assert_eq!(
        line("19823@1.5:vtd_iotlb_reset IOTLB reset (reason: x)"),
        Line::Other(b"vtd_iotlb_reset")
    );
    assert_eq!(line("nvme_irq_msix raising"), Line::Other(b"nvme_irq_msix"));
    assert_eq!(line("qemu-system-x86_64: warning: x"), Line::Other(b"(other text)"));
    for bad in [
        "vtd_iotlb_page_hit IOTLB page hit sid 0x8 iova 0x",
        "vtd_iotlb_page_hit IOTLB page hit sid 0x12345 iova 0x1 slpte 0x3 domain 0x1",
        "vtd_dmar_translate dev 00:05.00 iova 0x1000 -> gpa 0x501000 mask 0xffe",
        "vtd_dmar_translate dev 00:25.00 iova 0x1000 -> gpa 0x501000 mask 0xfff",
        "vtd_inv_desc_iotlb_pages iotlb invalidate domain 0xffffffff addr 0x0 mask 0x1",
        "vtd_dmar_enable",
        "\u{1}\u{2}\u{3}",
        "123",
    ] {
        assert!(matches!(line(bad), Line::Damaged(_)), "{bad}");
    }
}

/// An event as QEMU prints it.
fn print(e: &Event) -> String {
    let dev = |sid: u32| format!("{:02x}:{:02x}.{:02x}", sid >> 8, sid >> 3 & 0x1f, sid & 7);
    match *e {
        Event::IotlbPage { hit, sid, iova, slpte, domain } => {
            let word = if hit { "hit" } else { "update" };
            format!(
                "vtd_iotlb_page_{word} IOTLB page {word} sid {sid:#x} iova {iova:#x} slpte {slpte:#x} domain {domain:#x}"
            )
        }
        Event::Translate { sid, iova, gpa, mask } => {
            format!(
                "vtd_dmar_translate dev {} iova {iova:#x} -> gpa {gpa:#x} mask {mask:#x}",
                dev(sid)
            )
        }
        Event::InvDesc { qw0, qw1 } => {
            format!("vtd_inv_desc invalidate desc type iotlb high {qw1:#x} low {qw0:#x}")
        }
        Event::InvPages { domain, addr, am } => {
            format!(
                "vtd_inv_desc_iotlb_pages iotlb invalidate domain {domain:#x} addr {addr:#x} mask {am:#x}"
            )
        }
        Event::WalkOne { domain, iova, gpa, mask, perm } => format!(
            "vtd_page_walk_one domain {domain:#x} iova {iova:#x} -> gpa {gpa:#x} mask {mask:#x} perm {perm}"
        ),
        Event::VfioNotify { map, start, end } => {
            let word = if map { "MAP" } else { "UNMAP" };
            format!("vfio_iommu_map_notify iommu {word} @ {start:#x} - {end:#x}")
        }
        Event::RegionAddRam { start, end, vaddr } => {
            format!(
                "vfio_listener_region_add_ram region_add [ram] {start:#x} - {end:#x} [{vaddr:#x}]"
            )
        }
        Event::RegionAddIommu { start, end } => format!(
            "vfio_listener_region_add_iommu region_add [iommu] vtd-00.0-dmar {start:#x} - {end:#x}"
        ),
        Event::RegionDel { start, end } => {
            format!("vfio_listener_region_del region_del {start:#x} - {end:#x}")
        }
        ref other => panic!("{other:?}"),
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let (sid, domain) = (0..0x1_0000u32, 0..0x1_0000u32);
    let mask = prop_oneof![Just(0xfffu64), Just(0x1f_ffff), Just(0x3fff_ffff)];
    prop_oneof![
        (any::<bool>(), sid.clone(), any::<u64>(), any::<u64>(), domain.clone()).prop_map(
            |(hit, sid, iova, slpte, domain)| Event::IotlbPage { hit, sid, iova, slpte, domain }
        ),
        (sid, any::<u64>(), any::<u64>(), mask.clone())
            .prop_map(|(sid, iova, gpa, mask)| Event::Translate { sid, iova, gpa, mask }),
        (any::<u64>(), any::<u64>()).prop_map(|(qw0, qw1)| Event::InvDesc { qw0, qw1 }),
        (domain.clone(), any::<u64>(), 0..64u32).prop_map(|(domain, addr, am)| Event::InvPages {
            domain,
            addr,
            am
        }),
        (domain, any::<u64>(), any::<u64>(), mask, 0..4u32).prop_map(
            |(domain, iova, gpa, mask, perm)| Event::WalkOne { domain, iova, gpa, mask, perm }
        ),
        (any::<bool>(), any::<u64>(), any::<u64>()).prop_map(|(map, a, b)| Event::VfioNotify {
            map,
            start: a.min(b),
            end: a.max(b)
        }),
        (0..3, any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(kind, a, b, vaddr)| {
            let (start, end) = (a.min(b), a.max(b));
            match kind {
                0 => Event::RegionAddRam { start, end, vaddr },
                1 => Event::RegionAddIommu { start, end },
                _ => Event::RegionDel { start, end },
            }
        }),
    ]
}

proptest! {
    #[test]
    fn printed_events_read_back(e in any_event(), tid: u32, sec in 0..4_000_000_000u64, us in 0..1_000_000u64) {
        let text = print(&e);
        prop_assert_eq!(parse(text.as_bytes()), (Stamp::default(), Line::Event(e)));
        let stamped = format!("{tid}@{sec}.{us:06}:{text}");
        let time = Some((sec * 1_000_000_000 + us * 1000) as i64);
        prop_assert_eq!(parse(stamped.as_bytes()), (Stamp { time, tid }, Line::Event(e)));
    }

    #[test]
    fn cut_events_are_damaged_or_shorter(e in any_event(), at: prop::sample::Index) {
        // Never a panic; a line cut inside its last number still reads.
        let text = print(&e);
        let _ = parse(&text.as_bytes()[..at.index(text.len())]);
    }

    #[test]
    fn any_bytes_can_be_parsed(bytes: Vec<u8>, name in "(vtd|vfio)_[a-z_]{0,24} ?") {
        let _ = parse(&bytes);
        let _ = parse(&[name.as_bytes(), &bytes].concat());
    }
}
