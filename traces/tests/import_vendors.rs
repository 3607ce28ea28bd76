//! Logs of QEMU's AMD-Vi and SMMUv3: every recorded label and output, alone
//! and joined with the guest's ftrace, which has no descriptors; damage.

mod import_common;

use import_common::*;
use ioasim_events::{CachingMode, DomainId, Event, Flags, Kind, Requester, Scope};
use ioasim_traces::import::{self, MemoryLines, MemorySink, Options};

const MACHINES: [(&str, Machine); 2] =
    [("amd-nvme-randread4k-strict", Machine::AmdVi), ("smmu-nvme-strict", Machine::SmmuV3)];

fn check(name: &str, machine: Machine, log: &[u8], ftrace: Option<&[u8]>) {
    let (report, sink) = import(log, ftrace).unwrap();
    let (faults, seen) = replay_on(machine, &sink.events);
    assert_eq!(faults, Faults::default(), "{name}: {report:#?}");
    assert_eq!((seen.dma, seen.labelled), (report.count("dma"), report.count("labels")));
    assert_eq!(report.count("labels_unlike_qemu_iotlb"), 0, "{name}");
    assert_eq!(report.count("stale_hits"), 0, "{name}");
    if machine == Machine::SmmuV3 {
        // Four levels: four reads for each miss, and no others.
        assert_eq!(report.child_levels, 4);
        assert_eq!(report.caching_mode, CachingMode::Off);
        assert_eq!(seen.walk_reads, 4 * report.count("misses_with_page_table_reads"));
        let miss = |e: &&Event| {
            e.kind == Kind::Dma && !e.flags.has(Flags::HIT) && e.flags.has(Flags::OUT_KNOWN)
        };
        let misses = sink.events.iter().filter(miss).count() as u64;
        assert_eq!(report.count("misses_with_page_table_reads"), misses);
    }
    if ftrace.is_none() {
        assert!(seen.inferred > 0);
        return;
    }
    let recorded = report.count("ftrace_maps") + report.count("ftrace_unmaps");
    assert_eq!(report.count("table_changes"), recorded, "{name}: every change is written");
    assert_eq!(report.count("table_changes_contradicted"), 0);
    let (evident, known) = report.attributed_percent().unwrap();
    assert!(known >= 99.9, "{name}: {known}");
    let inferred = report.count("maps_inferred_within_ftrace");
    assert!(inferred * 50 <= report.count("maps"), "{name}: {inferred} maps inferred");
    println!(
        "{name}: {} events, {evident:.2} % evident, {} of {} maps joined, within the ftrace {inferred} maps and {} unmaps inferred",
        sink.events.len(),
        report.count("maps_joined"),
        report.count("ftrace_maps"),
        report.count("unmaps_inferred_within_ftrace"),
    );
}

#[test]
fn fixtures() {
    for (name, machine) in MACHINES {
        let log = fixture(&format!("{name}.qemu.log"));
        check(name, machine, &log, None);
        check(name, machine, &log, Some(&fixture(&format!("{name}.ftrace.txt"))));
    }
}

#[test]
fn recordings_joined_and_alone() {
    let Some(dir) = recordings() else { return };
    for (name, machine) in MACHINES {
        let read = |kind: &str| {
            let path = dir.join(format!("{name}.{kind}.zst"));
            zstd::decode_all(std::fs::File::open(path).unwrap()).unwrap()
        };
        let log = read("qemu.log");
        check(name, machine, &log, None);
        check(name, machine, &log, Some(&read("ftrace.txt")));
    }
}

/// Without its descriptors a VT-d recording is joined in the same way.
#[test]
fn vtd_without_descriptors() {
    for name in ["nic-rx-strict", "mixed-strict-cm"] {
        let log = fixture(&format!("{name}.qemu.log"));
        let ftrace = fixture(&format!("{name}.ftrace.txt"));
        let hidden: Vec<u8> = ftrace
            .split_inclusive(|b| *b == b'\n')
            .filter(|l| memchr::memmem::find(l, b"qi_submit").is_none())
            .flatten()
            .copied()
            .collect();
        let (report, sink) = import(&log, Some(&hidden)).unwrap();
        assert_eq!(replay(&sink.events).0, Faults::default(), "{name}: {report:#?}");
        let unmaps = report.count("ftrace_unmaps");
        assert!(report.count("unmaps_joined") * 10 > unmaps * 9, "{name}: {report:#?}");
        println!(
            "{name} without descriptors: {} maps and {} of {unmaps} unmaps joined, {:?} % evident, known; {} inferred",
            report.count("maps_joined"),
            report.count("unmaps_joined"),
            report.attributed_percent(),
            report.count("maps_inferred_within_ftrace"),
        );
    }
}

#[test]
fn an_ftrace_of_another_run_is_refused() {
    let refused = |log: &str, ftrace: &str| {
        let (log, ftrace) = (fixture(log), fixture(ftrace));
        import(&log, Some(&ftrace)).unwrap_err().to_string()
    };
    for (log, ftrace) in [
        ("amd-nvme-randread4k-strict", "smmu-nvme-strict"),
        ("smmu-nvme-strict", "amd-nvme-randread4k-strict"),
        ("smmu-nvme-strict", "nic-rx-strict"),
    ] {
        let text = refused(&format!("{log}.qemu.log"), &format!("{ftrace}.ftrace.txt"));
        assert!(text.starts_with("guest.ftrace: it does not belong to the log"), "{text}");
    }
}

#[test]
fn a_log_without_stamps_is_not_joined() {
    let log = fixture("amd-nvme-randread4k-strict.qemu.log");
    let bare: Vec<u8> = log
        .split_inclusive(|b| *b == b'\n')
        .flat_map(|l| &l[memchr::memchr(b':', l).unwrap() + 1..])
        .copied()
        .collect();
    let (_, sink) = import(&bare, None).unwrap();
    assert_eq!(replay_on(Machine::AmdVi, &sink.events).0, Faults::default());
    let text = import(&bare, Some(&fixture("amd-nvme-randread4k-strict.ftrace.txt")))
        .unwrap_err()
        .to_string();
    assert!(text.contains("no time stamps"), "{text}");
}

#[test]
fn one_log_is_of_one_iommu() {
    let text = import(
        b"amdvi_all_inval Invalidation of all AMD-Vi cache requested \nvtd_context_cache_reset \n",
        None,
    )
    .unwrap_err()
    .to_string();
    assert!(text.contains("VT-d at line 2 behind events of AMD-Vi"), "{text}");
}

#[test]
fn cut_anywhere() {
    for (name, machine) in MACHINES {
        let log = fixture(&format!("{name}.qemu.log"));
        let ftrace = fixture(&format!("{name}.ftrace.txt"));
        for cut in [1, 100, 5_000, 77_777, 300_001, log.len() - 3] {
            match import(&log[..cut], None) {
                Ok((_, sink)) => {
                    assert_eq!(replay_on(machine, &sink.events).0, Faults::default(), "{cut}");
                }
                Err(e) => assert!(cut < 100, "{cut}: {e}"),
            }
        }
        for cut in [ftrace.len() / 2 + 7, ftrace.len() - 3] {
            let (report, sink) = import(&log, Some(&ftrace[..cut])).unwrap();
            assert_eq!(replay_on(machine, &sink.events).0, Faults::default(), "{report:#?}");
            assert!(report.count("lines_damaged") <= 1);
        }
        let (report, sink) = import(&log[..log.len() * 3 / 4], Some(&ftrace)).unwrap();
        assert_eq!(replay_on(machine, &sink.events).0, Faults::default(), "{report:#?}");
        assert_eq!(
            report.count("table_changes") + report.count("ftrace_events_not_joined"),
            report.count("ftrace_maps") + report.count("ftrace_unmaps")
        );
    }
}

#[test]
fn random_damage_never_panics() {
    for (name, machine) in MACHINES {
        let log = fixture(&format!("{name}.qemu.log"));
        let ftrace = fixture(&format!("{name}.ftrace.txt"));
        let mut x = 7u64;
        let mut next = || {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 33) as usize
        };
        for round in 0..6 {
            let (mut l, mut f) = (log.clone(), ftrace.clone());
            // First one byte, then many.
            for _ in 0..if round == 0 { 1 } else { 200 } {
                let i = next() % l.len();
                l[i] = b"0123456789abcdefx @:\n\x00\xff"[next() % 22];
                let i = next() % f.len();
                f[i] = b"0123456789abcdefx []:\n\x00\xff"[next() % 23];
            }
            let mut sink = MemorySink::default();
            let mut options = Options { max_errors: u64::MAX, ..Options::default() };
            let lines = (MemoryLines::new("l", &l), MemoryLines::new("f", &f));
            if let Err(e) = import::qemu_log(lines.0, Some(lines.1), &mut sink, &mut options) {
                // Damaged time stamps can tear the two apart.
                assert!(round > 0 && e.to_string().contains("does not belong"), "{name}: {e}");
                continue;
            }
            let (faults, _) = replay_on(machine, &sink.events);
            assert_eq!((faults.times, faults.overlapping_maps), (0, 0), "{name} round {round}");
        }
    }
}

#[test]
fn concatenated() {
    for (name, machine) in MACHINES {
        let log = fixture(&format!("{name}.qemu.log"));
        let ftrace = fixture(&format!("{name}.ftrace.txt"));
        let (once, _) = import(&log, Some(&ftrace)).unwrap();
        let (report, sink) = import(&log.repeat(2), Some(&ftrace.repeat(2))).unwrap();
        let (faults, _) = replay_on(machine, &sink.events);
        assert_eq!((faults.targets, faults.times), (0, 0), "{name}: {report:#?}");
        assert_eq!((report.count("log_seams"), report.count("ftrace_seams")), (1, 1), "{name}");
        assert!(report.count("maps_joined") * 10 > once.count("maps_joined") * 18, "{name}");
    }
}

fn one(log: &str) -> (import::ImportReport, Vec<Event>) {
    let (report, sink) = import(log.as_bytes(), None).unwrap();
    (report, sink.events)
}

#[test]
fn odd_amdvi_logs() {
    // A fill that finds the IOTLB full logs the reset behind its own line;
    // the command for everything logs it before.
    let (report, events) = one(
        "amdvi_cache_update  update iotlb domid 0x3 devid: 00:03.0 gpa 0xffffe010 hpa 0x101b0d000\n\
         amdvi_iotlb_reset IOTLB exceed size limit - reset \n\
         amdvi_translation_result devid: 00:03.0 gpa 0xffffe010 hpa 0x101b0d000\n\
         amdvi_iotlb_reset IOTLB exceed size limit - reset \n\
         amdvi_all_inval Invalidation of all AMD-Vi cache requested \n\
         amdvi_devtab_inval device table entry for devid: 00:03.0 invalidated\n\
         amdvi_translation_result devid: 00:03.0 gpa 0x1000 hpa 0x0\n\
         amdvi_translation_result devid: 00:04.0 gpa 0x1234 hpa 0x1000\n\
         amdvi_iotlb_reset IOTLB exceed size limit - reset \n",
    );
    assert_eq!(report.count("iotlb_overflows"), 1);
    let scopes: Vec<_> = events.iter().filter_map(|e| e.flags.scope()).collect();
    assert_eq!(scopes, [Scope::Global, Scope::Context, Scope::Reset]);
    let dma: Vec<_> = events.iter().filter(|e| e.kind == Kind::Dma).collect();
    assert_eq!((dma[0].out, dma[0].domain), (0x1_01b0_d010, DomainId(3)));
    assert!(dma[1].flags.has(Flags::FAULT) && !dma[1].flags.has(Flags::OUT_KNOWN));
    assert_eq!((dma[2].domain, dma[2].out), (DomainId::PARENT, 0x1234));
    assert_eq!(report.count("dma_faults"), 1);
}

#[test]
fn odd_smmu_logs() {
    let miss = "smmuv3_config_cache_hit Config cache HIT for sid=0x8 (hits=1, misses=1, hit rate=50)\n\
                smmu_iotlb_lookup_miss IOTLB cache MISS asid=1 addr=0x200000 hit=0 miss=1 hit rate=0\n\
                smmu_get_pte baseaddr=0x1000 index=0x0, pteaddr=0x1000, pte=0x2003\n\
                smmu_get_pte baseaddr=0x2000 index=0x0, pteaddr=0x2000, pte=0x3003\n";
    // A block of 2 MiB, found in a full IOTLB; then every kind of command.
    let (report, events) = one(&format!(
        "{miss}smmu_get_pte baseaddr=0x3000 index=0x1, pteaddr=0x3008, pte=0x40000741\n\
         smmu_iotlb_inv_all IOTLB invalidate all\n\
         smmu_iotlb_insert IOTLB ++ asid=1 addr=0x200000 tg=1 level=2\n\
         smmuv3_translate_success m sid=0x8 iova=0x201234 translated=0x40001234 perm=0x3\n\
         smmu_iotlb_inv_all IOTLB invalidate all\n\
         smmuv3_s1_range_inval vmid=0 asid=1 addr=0x200000 tg=1 num_pages=0x200 ttl=0 leaf=1\n\
         smmuv3_s1_range_inval vmid=0 asid=-1 addr=0x400000 tg=0 num_pages=0x1 ttl=0 leaf=0\n\
         smmu_iotlb_inv_asid IOTLB invalidate asid=7\n"
    ));
    assert_eq!((report.count("iotlb_overflows"), report.child_levels), (1, 4));
    let map = events.iter().find(|e| e.kind == Kind::Map).unwrap();
    assert_eq!((map.addr, map.size, map.out), (0x20_0000, 0x20_0000, 0x4000_0000));
    let dma = events.iter().find(|e| e.kind == Kind::Dma).unwrap();
    assert_eq!((dma.requester, dma.out, dma.aux), (Requester(8), 0x4000_1234, 3));
    let inv: Vec<_> = events
        .iter()
        .filter(|e| e.kind == Kind::Invalidate)
        .map(|e| (e.flags.scope().unwrap(), e.domain.0, e.addr, e.size))
        .collect();
    assert_eq!(inv[0].0, Scope::Global);
    assert_eq!(inv[1], (Scope::Page, 1, 0x20_0000, 0x20_0000));
    assert_eq!(inv[2], (Scope::Page, 1, 0x40_0000, 0x1000));
    assert_eq!((inv[3].0, inv[3].1), (Scope::Domain, 7));

    // A fault has its label and no output; what bypasses is in the parent.
    let (report, events) = one(&format!(
        "{miss}smmuv3_record_event SMMU_EVT_F_TRANSLATION sid=0x8\n\
         smmuv3_translate_bypass m sid=0x10 STE bypass iova:0x5000 is_write=1\n\
         smmuv3_translate_abort m sid=0x8 abort on iova:0x6000 is_write=1\n"
    ));
    assert_eq!(report.count("dma_faults"), 2);
    let dma: Vec<_> = events.iter().filter(|e| e.kind == Kind::Dma).collect();
    let miss = Flags::FAULT.with(Flags::LABEL_KNOWN);
    assert!(dma[0].flags.has(miss) && !dma[0].flags.has(Flags::HIT));
    assert_eq!((dma[1].domain, dma[1].requester), (DomainId::PARENT, Requester(0x10)));
    assert!(dma[2].flags.has(Flags::FAULT) && !dma[2].flags.has(Flags::LABEL_KNOWN));
}
