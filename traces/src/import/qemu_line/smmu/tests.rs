use super::super::{Line, parse};
use super::*;

fn read(text: &str) -> Line<'_> {
    parse(text.as_bytes()).1
}

fn reads_as(text: &str, expected: Smmu) {
    assert_eq!(read(text), Line::Event(Event::Smmu(expected)), "{text}");
}

const S1: Tag = Tag { asid: 1, vmid: -1 };

#[test]
fn recorded_lines() {
    reads_as(
        "29414@1.060765:smmuv3_config_cache_miss Config cache MISS for sid=0x10 (hits=0, misses=1, hit rate=0)",
        Smmu::Config { sid: 0x10 },
    );
    reads_as(
        "1@2.000003:smmu_iotlb_lookup_miss IOTLB cache MISS asid=1 addr=0xffffd000 hit=0 miss=1 hit rate=0",
        Smmu::Lookup { hit: false, tag: S1, addr: 0xffff_d000 },
    );
    reads_as(
        "1@2.000003:smmu_get_pte baseaddr=0x439c0000 index=0x0, pteaddr=0x439c0000, pte=0x481ba003",
        Smmu::GetPte,
    );
    reads_as(
        "1@2.000003:smmu_iotlb_insert IOTLB ++ asid=1 addr=0xfffbf000 tg=1 level=3",
        Smmu::Insert { granule: 12, level: 3 },
    );
    reads_as(
        "1@2.000003:smmuv3_translate_success smmuv3-iommu-memory-region-8-1 sid=0x8 iova=0xffffb010 translated=0x48012010 perm=0x3",
        Smmu::Success { sid: 8, iova: 0xffff_b010, out: 0x4801_2010, perm: 3 },
    );
    let tag = Tag { asid: 1, vmid: 0 };
    reads_as(
        "1@2.000003:smmuv3_s1_range_inval vmid=0 asid=1 addr=0xfffbf000 tg=1 num_pages=0x1 ttl=3 leaf=1",
        Smmu::Range { tag, addr: 0xfffb_f000, am: 0, leaf: true, stage: 1 },
    );
    reads_as("smmu_iotlb_inv_asid IOTLB invalidate asid=1", Smmu::InvAsid { tag: S1 });
    reads_as("smmu_iotlb_inv_all IOTLB invalidate all", Smmu::InvAll);
    reads_as("smmuv3_cmdq_cfgi_ste streamid= 0x8", Smmu::ConfigInv { sid: 8 });
    reads_as("smmuv3_cmdq_cfgi_ste_range start=0x0 - end=0xffffffff", Smmu::ConfigInvAll);
}

/// Lines in the formats of QEMU 10.2 and of very old versions, after their
/// `hw/arm/trace-events`.
#[test]
fn other_versions() {
    let tag = Tag { asid: 3, vmid: 2 };
    reads_as(
        "smmu_iotlb_lookup_hit IOTLB cache HIT asid=3 vmid=2 addr=0x1000 hit=5 miss=1 hit rate=83",
        Smmu::Lookup { hit: true, tag, addr: 0x1000 },
    );
    reads_as(
        "smmu_iotlb_insert IOTLB ++ asid=3 vmid=-1 addr=0x200000 tg=1 level=2",
        Smmu::Insert { granule: 12, level: 2 },
    );
    reads_as(
        "smmuv3_range_inval vmid=0 asid=-1 addr=0x10000 tg=3 num_pages=0x2 ttl=0 leaf=0 stage=2",
        Smmu::Range {
            tag: Tag { asid: -1, vmid: 0 },
            addr: 0x1_0000,
            am: 5,
            leaf: false,
            stage: 2,
        },
    );
    reads_as(
        "smmuv3_translate_success smmuv3-iommu-memory-region-0-1 sid=0x8 iova=0x1234 translated=0x5234 perm=0x1 stage=3",
        Smmu::Success { sid: 8, iova: 0x1234, out: 0x5234, perm: 1 },
    );
    reads_as("smmu_iotlb_inv_asid_vmid IOTLB invalidate asid=3 vmid=2", Smmu::InvAsid { tag });
    reads_as("smmu_iotlb_inv_vmid_s1 IOTLB invalidate vmid=2", Smmu::InvVmid { vmid: 2 });
    reads_as("smmuv3_cmdq_cfgi_cd sid=0x8", Smmu::ConfigInv { sid: 8 });
    reads_as("smmuv3_cmdq_cfgi_ste streamid =16", Smmu::ConfigInv { sid: 16 });
    reads_as(
        "smmuv3_config_cache_hit Config cache HIT for sid 16 (hits=1, misses=1, hit rate=50)",
        Smmu::Config { sid: 16 },
    );
    reads_as(
        "smmuv3_translate_bypass smmuv3-iommu-memory-region-0-1 sid=0x8 STE bypass iova:0x1000 is_write=1",
        Smmu::Bypass { sid: 8, iova: 0x1000 },
    );
    reads_as(
        "smmuv3_translate_abort smmuv3-iommu-memory-region-0-1 sid=0x8 abort on iova:0x1000 is_write=1",
        Smmu::Abort { sid: 8, iova: 0x1000 },
    );
    reads_as("smmuv3_record_event SMMU_EVT_F_TRANSLATION sid=0x8", Smmu::Fault { sid: 8 });
}

#[test]
fn damage() {
    for text in [
        "smmu_iotlb_lookup_miss IOTLB cache HIT asid=1 addr=0xffffd000 hit=0 miss=1 hit rate=0",
        "smmu_iotlb_lookup_miss IOTLB cache MISS asid=1 addr=ffffd000",
        "smmu_iotlb_insert IOTLB ++ asid=1 addr=0xfffbf000 tg=7 level=3",
        "smmuv3_s1_range_inval vmid=0 asid=1 addr=0xfffbf000 tg=1 num_pages=0x3 ttl=3 leaf=1",
        "smmuv3_s1_range_inval vmid=0 asid=1 addr=0x0 tg=1 num_pages=0x10000000000000 ttl=3 leaf=1",
        "smmuv3_translate_success x sid=0x8 iova=0xffffb010 translated=0x48012000 perm=0x3",
        "smmu_get_pte baseaddr=0x439c0000 index=0x0, pteaddr=0x439c0000, pte=",
    ] {
        assert!(matches!(read(text), Line::Damaged(_)), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn printed_events_read_back(
        asid in 0..0x1_0000i32, vmid in -1..0x1_0000i32, sid in 0..0x1_0000u32,
        iova: u64, page in 0..u64::MAX >> 12, tg in 1..4u32, am in 0..30u32, perm in 0..4u8,
        old: bool, leaf: bool, kind in 0..6,
    ) {
        let tag = Tag { asid, vmid: if old { -1 } else { vmid } };
        let both = if old { format!("asid={asid}") } else { format!("asid={asid} vmid={vmid}") };
        let out = page << 12 | iova & 0xfff;
        let (text, event) = match kind {
            0 | 1 => {
                let (low, high) = if kind == 0 { ("hit", "HIT") } else { ("miss", "MISS") };
                (
                    format!("smmu_iotlb_lookup_{low} IOTLB cache {high} {both} addr=0x{iova:x} hit=1 miss=2 hit rate=33"),
                    Smmu::Lookup { hit: kind == 0, tag, addr: iova },
                )
            }
            2 => (
                format!("smmu_iotlb_insert IOTLB ++ {both} addr=0x{iova:x} tg={tg} level={perm}"),
                Smmu::Insert { granule: tg * 2 + 10, level: u32::from(perm) },
            ),
            3 => (
                format!("smmuv3_translate_success mr-0-1 sid=0x{sid:x} iova=0x{iova:x} translated=0x{out:x} perm=0x{perm:x}"),
                Smmu::Success { sid, iova, out, perm },
            ),
            4 => (
                format!(
                    "smmuv3_s1_range_inval vmid={vmid} asid={asid} addr=0x{iova:x} tg={tg} num_pages=0x{:x} ttl=0 leaf={}",
                    1u64 << am, u8::from(leaf),
                ),
                Smmu::Range { tag: Tag { asid, vmid }, addr: iova, am: am + tg * 2 - 2, leaf, stage: 1 },
            ),
            _ => (format!("smmu_iotlb_inv_asid_vmid IOTLB invalidate {both}"), Smmu::InvAsid { tag }),
        };
        let text = format!("77@1795407630.210947:{text}");
        proptest::prop_assert_eq!(read(&text), Line::Event(Event::Smmu(event)));
    }

    #[test]
    fn any_bytes_can_be_parsed(bytes: Vec<u8>, at in 0..4usize) {
        let names: [&[u8]; 4] = [
            b"smmuv3_s1_range_inval vmid=", b"smmu_iotlb_insert IOTLB ++ asid=",
            b"smmuv3_translate_success x sid=0x", b"amdvi_cache_update  update iotlb domid 0x",
        ];
        let _ = parse(&[names[at], &bytes[..]].concat());
    }
}
