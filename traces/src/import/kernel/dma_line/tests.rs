use super::*;

fn read(text: &str) -> Option<Dma> {
    let (name, rest) = text.split_once(": ").unwrap();
    parse(name.as_bytes(), &mut Cursor::new(rest.as_bytes()))
}

fn list(pieces: &[(u64, u64)], phys: &[u64], cut: bool, by_phys: bool) -> Dma {
    let (pieces, phys) = (pieces.to_vec(), phys.to_vec());
    Dma::MapList(List { device: 8, rights: 1, pieces, phys, cut, by_phys })
}

/// Recorded with Linux 6.12 (ftrace, trace-cmd) or, where it says so, as the format strings of
/// `include/trace/events/dma.h` print.
#[test]
fn lines() {
    let map = |addr, size, phys| Dma::Map { device: 8, rights: 2, addr, size, phys };
    let both = |addr, size, phys| Dma::Map { device: 8, rights: 3, addr, size, phys };
    for (text, expected) in [
        (
            "dma_map_page: 0000:00:01.0 dir=FROM_DEVICE dma_addr=ffffd000 size=4096 phys_addr=2587000 attrs=",
            map(0xffff_d000, 4096, Some(0x258_7000)),
        ),
        (
            "dma_alloc: 0000:00:01.0 dir=BIDIRECTIONAL dma_addr=fffff000 size=512 virt_addr=00000000dda65984 flags=GFP_KERNEL attrs=",
            both(0xffff_f000, 512, None),
        ),
        (
            "dma_map_sg: [FAILED TO PARSE] device=0000:00:01.0 full_nents=2 full_ents=1 truncated=0 phys_addrs=ARRAY[00, 90, e8, 07, 00, 00, 00, 00, 00, 00, a0, 11, 00, 00, 00, 00] dma_addrs=ARRAY[00, 00, f0, ff, 00, 00, 00, 00] lengths=ARRAY[00, 00, 02, 00] dir=1 attrs=0x100",
            list(&[(0xfff0_0000, 0x2_0000)], &[0x7e8_9000, 0x11a0_0000], false, true),
        ),
        (
            "dma_unmap_sg: [FAILED TO PARSE] device=0000:00:01.0 addrs=ARRAY[00, e0, a6, 11, 00, 00, 00, 00] dir=2 attrs=0x0",
            Dma::UnmapList { device: 8, phys: vec![0x11a6_e000], cut: false },
        ),
        // 6.12's first releases.
        (
            "dma_alloc: 0000:00:01.0 dma_addr=fffff000 size=512 phys_addr=2587000 flags=GFP_KERNEL attrs=",
            both(0xffff_f000, 512, Some(0x258_7000)),
        ),
        (
            "dma_alloc: 0000:00:01.0 dma_addr=fffff000 size=512 virt_addr=00000000dda65984 flags=GFP_KERNEL attrs=",
            both(0xffff_f000, 512, None),
        ),
        (
            "dma_free: 0000:00:01.0 dma_addr=fffff000 size=512 phys_addr=2587000 attrs=",
            Dma::Unmap { device: 8, addr: 0xffff_f000, size: 512 },
        ),
        // Failed.
        (
            "dma_alloc: 0000:00:01.0 dir=BIDIRECTIONAL dma_addr=0 size=512 virt_addr=0000000000000000 flags=GFP_KERNEL attrs=",
            Dma::Nothing,
        ),
        (
            "dma_map_page: 0000:00:01.0 dir=FROM_DEVICE dma_addr=ffffffffffffffff size=4096 phys_addr=2587000 attrs=",
            Dma::Nothing,
        ),
        // 6.18 and later.
        (
            "dma_unmap_phys: 0000:00:01.0 dir=TO_DEVICE dma_addr=ffffb000 size=8 attrs=",
            Dma::Unmap { device: 8, addr: 0xffff_b000, size: 8 },
        ),
        // 6.13 and later.
        (
            "dma_alloc_sgt: 0000:00:01.0 dir=TO_DEVICE dma_addr=ffffb000 size=8192 phys_addrs={0x1000,0x5000} flags=GFP_KERNEL attrs=",
            list(&[(0xffff_b000, 8192)], &[0x1000, 0x5000], false, false),
        ),
        (
            "dma_free_sgt: 0000:00:01.0 dir=TO_DEVICE dma_addr=ffffb000 size=8192 phys_addrs={0x1000,0x5000}",
            Dma::Unmap { device: 8, addr: 0xffff_b000, size: 8192 },
        ),
        ("dma_alloc_sgt_err: 0000:00:01.0 dir=TO_DEVICE", Dma::Nothing),
        // Both forms of scatter lists.
        (
            "dma_map_sg: 0000:00:01.0 dir=TO_DEVICE dma_addrs={0xfff00000,0x0} sizes={0x2000,0x0} phys_addrs={0x1000,0x2000} attrs=",
            list(&[(0xfff0_0000, 8192)], &[0x1000, 0x2000], false, true),
        ),
        (
            "dma_map_sg: 0000:00:01.0 dir=TO_DEVICE nents=128/200 ents=1/1 [TRUNCATED] dma_addrs={0xfff00000} sizes={0x2000} phys_addrs={0x1000,0x2000} attrs=WEAK_ORDERING",
            list(&[(0xfff0_0000, 8192)], &[0x1000, 0x2000], true, true),
        ),
        // Other separators, decimal.
        (
            "dma_map_sg: 0000:00:01.0 dir=TO_DEVICE nents=1/1 ents=1/1 dma_addrs={ 4293918720 } sizes={ 8192} phys_addrs={4096, 8192} attrs=",
            list(&[(0xfff0_0000, 8192)], &[0x1000, 0x2000], false, true),
        ),
        (
            "dma_unmap_sg: 0000:00:01.0 dir=TO_DEVICE phys_addrs={0x1000,0x2000} attrs=",
            Dma::UnmapList { device: 8, phys: vec![0x1000, 0x2000], cut: false },
        ),
        (
            "dma_map_sg_err: 0000:00:01.0 dir=TO_DEVICE dma_addrs={0x1000} err=-12 attrs=",
            Dma::Nothing,
        ),
        (
            "dma_sync_single_for_cpu: 0000:00:01.0 dir=FROM_DEVICE dma_addr=ffffb000 size=8",
            Dma::Nothing,
        ),
        // Linux 5.4 to 5.11, include/trace/events/intel_iommu.h.
        (
            "map_single: dev=0000:00:01.0 dev_addr=0xffffb000 phys_addr=0x1234 size=8",
            both(0xffff_b000, 8, Some(0x1234)),
        ),
        (
            "map_sg: dev=0000:00:01.0 [1/2] dev_addr=0xffffb000 phys_addr=0x1000 size=4096",
            both(0xffff_b000, 4096, Some(0x1000)),
        ),
        (
            "bounce_map_single: dev=0000:00:01.0 dev_addr=0xffffb000 phys_addr=0x1234 size=8",
            both(0xffff_b000, 8, None),
        ),
        (
            "bounce_unmap_single: dev=0000:00:01.0 dev_addr=0xffffb000 size=8",
            Dma::Unmap { device: 8, addr: 0xffff_b000, size: 8 },
        ),
    ] {
        assert!(is_dma(text.split(':').next().unwrap().as_bytes()), "{text}");
        assert_eq!(read(text), Some(expected), "{text}");
    }
    for damaged in [
        "dma_map_page: 0000:00:01.0 dir=SIDEWAYS dma_addr=1000 size=4096 phys_addr=0 attrs=",
        "dma_map_page: 0000:00:01.0 dir=TO_DEVICE dma_addr=1000 size=4096",
        "dma_map_sg: 0000:00:01.0 dir=TO_DEVICE dma_addrs={0x1000,0x2000} sizes={0x1} phys_addrs={0x0} attrs=",
        "dma_map_sg: [FAILED TO PARSE] device=0000:00:01.0 phys_addrs=ARRAY[00, 10] dma_addrs=ARRAY[] lengths=ARRAY[] dir=1",
        "dma_map_sg: [FAILED TO PARSE] phys_addrs=ARRAY[] dma_addrs=ARRAY[] lengths=ARRAY[] dir=1",
        "dma_unmap_page: 0000:00:01.0 dir=TO_DEVICE dma_addr=fffffffffffffff0 size=32 attrs=",
        "map_single: dev=0000:00:01.0 dev_addr=0xffffb000 size=8",
    ] {
        assert_eq!(read(damaged), None, "{damaged}");
    }
}

fn bytes(values: impl Iterator<Item = u64>, width: usize) -> String {
    let all: Vec<String> = values
        .flat_map(|v| v.to_le_bytes()[..width].to_vec())
        .map(|b| format!("{b:02x}"))
        .collect();
    all.join(", ")
}

proptest::proptest! {
    #[test]
    fn printed_buffers_read_back(
        bdf in 0..0x1_0000u32,
        dir in 0..4u8,
        addr in 0..u64::MAX / 2,
        size in 0..1u64 << 40,
        phys: u64,
        all in proptest::collection::vec((0..u64::MAX / 2, 1..1u64 << 32, 0..u64::MAX), 1..MAX_PIECES),
        (counted, cut) in (0..2u8, proptest::bool::ANY),
    ) {
        let name = ["NONE", "TO_DEVICE", "FROM_DEVICE", "BIDIRECTIONAL"][usize::from(dir)];
        let device = format!("0000:{:02x}:{:02x}.{}", bdf >> 8, bdf >> 3 & 31, bdf & 7);
        let map = |rights, phys| Dma::Map { device: bdf, rights, addr, size, phys };
        let unmap = Dma::Unmap { device: bdf, addr, size };
        for event in ["page", "resource", "phys"] {
            let text = format!("dma_map_{event}: {device} dir={name} dma_addr={addr:x} size={size} phys_addr={phys:x} attrs=SKIP_CPU_SYNC");
            proptest::prop_assert_eq!(read(&text), Some(map(dir, Some(phys))));
            let text = format!("dma_unmap_{event}: {device} dir={name} dma_addr={addr:x} size={size} attrs=");
            proptest::prop_assert_eq!(read(&text), Some(unmap.clone()));
        }
        let virt = phys | 1;
        for (form, rights, out) in [
            (format!("dma_addr={addr:x} size={size} phys_addr={phys:x}"), 3, Some(phys)),
            (format!("dma_addr={addr:x} size={size} virt_addr={virt:016x}"), 3, None),
            (format!("dir={name} dma_addr={addr:x} size={size} virt_addr={virt:016x}"), dir, None),
        ] {
            for event in ["dma_alloc", "dma_alloc_pages"] {
                let text = format!("{event}: {device} {form} flags=GFP_KERNEL|__GFP_ZERO attrs=");
                proptest::prop_assert_eq!(read(&text), Some(map(rights, out)));
            }
            for event in ["dma_free", "dma_free_pages"] {
                let text = format!("{event}: {device} {form} attrs=");
                proptest::prop_assert_eq!(read(&text), Some(unmap.clone()));
            }
        }
        for event in ["map_single", "map_sg"] {
            let text = format!("{event}: dev={device} dev_addr={addr:#x} phys_addr={phys:#x} size={size}");
            proptest::prop_assert_eq!(read(&text), Some(map(3, Some(phys))));
        }
        for event in ["unmap_single", "unmap_sg", "bounce_unmap_single"] {
            let text = format!("{event}: dev={device} dev_addr={addr:#x} size={size}");
            proptest::prop_assert_eq!(read(&text), Some(unmap.clone()));
        }
        // Scatter lists: the early form, with counts, and trace-cmd's fields.
        let join = |f: &dyn Fn(&(u64, u64, u64)) -> u64| all.iter().map(|p| format!("{:#x}", f(p))).collect::<Vec<_>>().join(",");
        let phys: Vec<u64> = all.iter().map(|p| p.2).collect();
        let pieces: Vec<(u64, u64)> = all.iter().map(|p| (p.0, p.1)).collect();
        let n = all.len();
        let counts = match (counted, cut) {
            (0, _) => String::new(),
            (_, false) => format!(" nents={n}/{n} ents={n}/{n}"),
            (_, true) => format!(" nents={n}/{0} ents={n}/{0} [TRUNCATED]", n + 1),
        };
        let cut = counted == 1 && cut;
        let list = |cut| Dma::MapList(List { device: bdf, rights: dir, pieces: pieces.clone(), phys: phys.clone(), cut, by_phys: true });
        let text = format!(
            "dma_map_sg: {device} dir={name}{counts} dma_addrs={{{}}} sizes={{{}}} phys_addrs={{{}}} attrs=",
            join(&|p| p.0), join(&|p| p.1), join(&|p| p.2),
        );
        proptest::prop_assert_eq!(read(&text), Some(list(cut)));
        let code = [3, 1, 2, 0][usize::from(dir)];
        let text = format!(
            "dma_map_sg: [FAILED TO PARSE] device={device} full_nents={n} full_ents={n} truncated={} phys_addrs=ARRAY[{}] dma_addrs=ARRAY[{}] lengths=ARRAY[{}] dir={code} attrs=0x0",
            u8::from(cut), bytes(all.iter().map(|p| p.2), 8), bytes(all.iter().map(|p| p.0), 8), bytes(all.iter().map(|p| p.1), 4),
        );
        proptest::prop_assert_eq!(read(&text), Some(list(cut)));
        let unmap = Dma::UnmapList { device: bdf, phys: phys.clone(), cut: false };
        let text = format!("dma_unmap_sg: {device} dir={name} phys_addrs={{{}}} attrs=", join(&|p| p.2));
        proptest::prop_assert_eq!(read(&text), Some(unmap.clone()));
        let text = format!("dma_unmap_sg: [FAILED TO PARSE] device={device} addrs=ARRAY[{}] dir={code} attrs=0x0", bytes(all.iter().map(|p| p.2), 8));
        proptest::prop_assert_eq!(read(&text), Some(unmap));
    }

    #[test]
    fn any_bytes_can_be_parsed(bytes: Vec<u8>) {
        for name in [&b"dma_map_sg"[..], b"dma_unmap_sg", b"dma_map_page", b"dma_alloc_sgt", b"map_sg"] {
            for before in [&b""[..], b"a dir=NONE ", b"[FAILED TO PARSE] ", b"dev=a dev_addr=0x"] {
                let _ = parse(name, &mut Cursor::new(&[before, &bytes[..]].concat()));
            }
        }
    }
}
