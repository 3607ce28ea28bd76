//! What importers do with damaged, foreign and hostile input.

mod import_common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use import_common::*;
use ioasim_events::{DomainId, Flags, Kind, OutputSpace, Requester, Scope};
use ioasim_traces::file::TraceReader;
use ioasim_traces::import::{
    self, BundleInputs, Inputs, MemoryLines, MemorySink, Options, TextKind, import_to_file, sniff,
};

const HIT: &str =
    "vtd_iotlb_page_hit IOTLB page hit sid 0x8 iova 0x1010 slpte 0x501003 domain 0x5\n";
const MISS: &str =
    "vtd_iotlb_page_update IOTLB page update sid 0x8 iova 0x1010 slpte 0x501003 domain 0x5\n";
const TRANSLATE: &str = "vtd_dmar_translate dev 00:01.00 iova 0x1000 -> gpa 0x501000 mask 0xfff\n";

fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("import_damage-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir.join(name)
}

fn error(log: &[u8], ftrace: Option<&[u8]>) -> String {
    import(log, ftrace).unwrap_err().to_string()
}

#[test]
fn damaged_lines_are_counted_and_the_first_kept() {
    let mut log = String::new();
    for i in 0..50 {
        log += &format!("{MISS}{TRANSLATE}");
        if i % 5 == 0 {
            log += "vtd_iotlb_page_hit IOTLB page hit sid 0x8 iova 0x10\n";
        }
    }
    let (report, sink) = import(log.as_bytes(), None).unwrap();
    assert_eq!(report.count("lines_damaged"), 10);
    assert_eq!(report.damaged.len(), 5);
    assert_eq!(
        report.damaged[1].to_string(),
        "qemu.log:14: arguments of a known event cannot be read"
    );
    assert_eq!(sink.events.iter().filter(|e| e.kind == Kind::Dma).count(), 50);
}

#[test]
fn too_many_damaged_lines_end_the_import() {
    let damaged = "vtd_dmar_translate dev 00:\n".repeat(101);
    let text = error(format!("{MISS}{TRANSLATE}{damaged}").as_bytes(), None);
    assert!(text.contains("more than 100 damaged lines by line 103"), "{text}");
    assert!(text.contains("qemu.log:3: arguments of a known event cannot be read"), "{text}");
    assert!(text.contains("--max-errors"), "{text}");
    let mut sink = MemorySink::default();
    let mut options = Options { max_errors: 3, ..Options::default() };
    let text = "vtd_dmar_enable 1\n".repeat(4);
    let lines = MemoryLines::new("x", text.as_bytes());
    assert!(import::qemu_log(lines, None::<MemoryLines>, &mut sink, &mut options).is_err());
}

#[test]
fn a_log_without_vtd_events_is_refused() {
    let text = error(b"qemu-system-x86_64: warning: x\nnvme_irq_msix y\n", None);
    assert!(
        text.contains("no VT-d event in 2 lines") && text.contains("vtd_iotlb_page_hit"),
        "{text}"
    );
    let text = error(b"", None);
    assert!(text.contains("it is empty"), "{text}");
    let other = "1@2.000000:riscv_iommu_flt 00:01.0: fault\n";
    let text = error(other.as_bytes(), None);
    assert!(text.contains("RISC-V") && text.contains("intel-iommu"), "{text}");
}

/// A stamp of QEMU's log, in us.
fn stamped(us: u64, event: &str) -> String {
    format!("7@{}.{:06}:{event}", us / 1_000_000, us % 1_000_000)
}

#[test]
fn one_absurd_time_does_not_raise_those_behind_it() {
    let start = 1_669_723_456_000_000u64;
    let log = |absurd: u64| {
        let line = |i: u64, us: u64| {
            let page = 0x1000 * i;
            let miss = format!(
                "vtd_iotlb_page_update IOTLB page update sid 0x8 iova 0x{page:x} slpte 0x501003 domain 0x5\n"
            );
            let translate = format!(
                "vtd_dmar_translate dev 00:01.00 iova 0x{page:x} -> gpa 0x501000 mask 0xfff\n"
            );
            stamped(us, &miss) + &stamped(start + i * 10, &translate)
        };
        (0..9).map(|i| line(i, if i == 4 { absurd } else { start + i * 10 })).collect::<String>()
    };
    let (usual, good) = import(log(start + 40).as_bytes(), None).unwrap();
    assert_eq!(usual.count("times_outlying"), 0);
    assert!(!usual.counts.contains_key("times_outlying"));
    for far in [start + 80_080_068_000_000, start - 600_000_000_000_000, start + (1 << 50)] {
        let (report, sink) = import(log(far).as_bytes(), None).unwrap();
        assert_eq!((report.count("times_outlying"), report.count("log_seams")), (1, 0));
        // Its own time is that of the line before; no other moves.
        let times = |events: &[ioasim_events::Event]| {
            events
                .iter()
                .map(|e| e.time_ns)
                .filter(|t| *t != 30_000 && *t != 40_000)
                .collect::<Vec<_>>()
        };
        assert_eq!(times(&sink.events), times(&good.events));
        assert!(sink.events.iter().all(|e| e.time_ns <= 80_000));
    }
    // The same in a guest's trace alone, with a marker whose text must survive.
    let line = |s: u64, text: &str| format!("  fio-7 [000] ..... {s}.000001: {text}\n");
    let mut ftrace = line(100, "map: IOMMU: iova=0x1000 - 0x2000 paddr=0x5000 size=4096");
    ftrace += &line(90_000_000, "tracing_mark_write: work begin");
    ftrace += &line(101, "unmap: IOMMU: iova=0x1000 - 0x2000 size=4096 unmapped_size=4096");
    let submit = line(102, "qi_submit: iotlb_inv dmar0: 0x300f2 0x1000 0x0 0x0");
    for more in ["", &submit] {
        let mut sink = MemorySink::default();
        let text = ftrace.clone() + more;
        let lines = || Ok(MemoryLines::new("ftrace", text.as_bytes()));
        let (report, _) = import::kernel_trace(lines, &mut sink, &mut Options::default()).unwrap();
        assert_eq!(report.count("times_outlying"), 1);
        assert_eq!(sink.markers[0].1, "work begin");
        assert!(sink.events.iter().all(|e| e.time_ns <= 2_000_000_000), "{:?}", sink.events);
    }
}

#[test]
fn a_bundle_with_a_log_that_ends_early_says_so() {
    let names = ["host.qemu.log", "guest.ftrace.txt", "vmm.qemu.log", "hypervisor.ftrace.txt"];
    let mut texts = names.map(|n| fixture(&format!("shadow-nvme-a.{n}")));
    let incomplete = |texts: &Texts| {
        let (report, _) = import_bundle(texts).unwrap();
        let notes = report.notes.iter().filter(|n| n.starts_with("INCOMPLETE")).cloned();
        (report.count("guest_descriptors_not_joined"), notes.collect::<Vec<_>>())
    };
    assert_eq!(incomplete(&texts), (0, Vec::new()));
    let lines: Vec<&[u8]> = texts[2].split_inclusive(|b| *b == b'\n').collect();
    texts[2] = lines[..lines.len() * 3 / 4].concat();
    let (without, notes) = incomplete(&texts);
    assert!(without > 0);
    let note = notes.iter().find(|n| n.contains("guest's ftrace")).expect("a note");
    assert!(note.contains(&without.to_string()) && note.contains("VMM's log"), "{note}");
}

#[test]
fn what_is_no_log_is_told_what_was_looked_for() {
    let refused = |name: &str, text: &str, ftrace: bool| {
        let (log, guest) = (scratch(name), scratch("guest.ftrace"));
        std::fs::write(&log, text).unwrap();
        std::fs::write(&guest, "# tracer: nop\n").unwrap();
        let inputs = Inputs::Log { log, guest_ftrace: ftrace.then_some(guest) };
        let out = scratch("refused.parquet");
        let why = import_to_file(&inputs, &out, &mut Options::default()).unwrap_err().to_string();
        assert!(!out.exists());
        why
    };
    let why = refused("no-addr.csv", "time,size\n1,2\n", false);
    assert!(why.contains("looks like a CSV") && why.contains("addr, address or iova"), "{why}");
    let why = refused("empty", "", false);
    assert!(why.contains("it is empty") && !why.contains("-trace"), "{why}");
    let why = refused("words", "one\ntwo\n", false);
    assert!(why.contains("JSON lines") && why.contains("CSV"), "{why}");
    let why = refused("join.csv", "time,addr\n1,4096\n", true);
    assert!(why.contains("csv") && why.contains("a join needs a QEMU log"), "{why}");
}

#[test]
fn binary_garbage_is_refused() {
    let mut x = 1u64;
    let garbage: Vec<u8> = (0..200_000)
        .map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (x >> 56) as u8
        })
        .collect();
    let text = error(&garbage, None);
    assert!(text.contains("damaged lines") || text.contains("no VT-d event"), "{text}");
    let log = format!("{MISS}{TRANSLATE}");
    let text = error(log.as_bytes(), Some(&garbage));
    assert!(text.contains("damaged lines") || text.contains("no ftrace event"), "{text}");
}

#[test]
fn every_prefix_of_a_log_can_be_imported() {
    let log = fixture("nic-rx-strict.qemu.log");
    let ftrace = fixture("nic-rx-strict.ftrace.txt");
    for cut in [1, 100, 5_000, 77_777, 300_001, log.len() - 3] {
        match import(&log[..cut], None) {
            Ok((_, sink)) => assert_eq!(replay(&sink.events).0, Faults::default(), "{cut}"),
            Err(e) => assert!(cut < 100, "{cut}: {e}"),
        }
    }
    for cut in [ftrace.len() / 2 + 7, ftrace.len() - 3] {
        let (report, sink) = import(&log, Some(&ftrace[..cut])).unwrap();
        assert_eq!(replay(&sink.events).0, Faults::default(), "{cut}: {report:#?}");
        assert!(report.count("lines_damaged") <= 1);
    }
    // The log ends long before the ftrace.
    let (report, sink) = import(&log[..log.len() * 3 / 4], Some(&ftrace)).unwrap();
    assert_eq!(replay(&sink.events).0, Faults::default(), "{report:#?}");
    assert_eq!(
        report.count("table_changes") + report.count("ftrace_events_not_joined"),
        report.count("ftrace_maps") + report.count("ftrace_unmaps")
    );
}

#[test]
fn random_damage_never_panics() {
    let log = fixture("mixed-strict-cm.qemu.log");
    let ftrace = fixture("mixed-strict-cm.ftrace.txt");
    let mut x = 7u64;
    let mut next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x >> 33) as usize
    };
    for round in 0..12 {
        let (mut l, mut f) = (log[..400_000].to_vec(), ftrace.clone());
        for _ in 0..200 {
            let i = next() % l.len();
            l[i] = b"0123456789abcdefx @:\n\x00\xff"[next() % 22];
            let i = next() % f.len();
            f[i] = b"0123456789abcdefx []:\n\x00\xff"[next() % 23];
        }
        let mut sink = MemorySink::default();
        let mut options = Options { max_errors: u64::MAX, ..Options::default() };
        let lines = (MemoryLines::new("l", &l), MemoryLines::new("f", &f));
        import::qemu_log(lines.0, Some(lines.1), &mut sink, &mut options).unwrap();
        let (faults, _) = replay(&sink.events);
        assert_eq!((faults.times, faults.overlapping_maps), (0, 0), "round {round}");
    }
}

#[test]
fn an_ftrace_of_another_run_is_refused() {
    let text =
        error(&fixture("nic-rx-strict.qemu.log"), Some(&fixture("mixed-strict-cm.ftrace.txt")));
    assert!(text.starts_with("guest.ftrace: it does not belong to the log"), "{text}");
}

#[test]
fn files_in_the_wrong_role_are_named() {
    let (log, ftrace) = (scratch("a.log"), scratch("a.ftrace"));
    std::fs::write(&log, format!("{MISS}{TRANSLATE}")).unwrap();
    std::fs::write(&ftrace, fixture("nic-rx-strict.ftrace.txt")).unwrap();
    assert_eq!(sniff(&log).unwrap(), TextKind::QemuLog);
    assert_eq!(sniff(&ftrace).unwrap(), TextKind::Ftrace);
    let out = scratch("wrong.parquet");
    let run =
        |inputs| import_to_file(&inputs, &out, &mut Options::default()).unwrap_err().to_string();
    let text = run(Inputs::Log { log: ftrace.clone(), guest_ftrace: Some(ftrace.clone()) });
    assert!(text.contains("this is an ftrace text"), "{text}");
    let text = run(Inputs::Log { log: log.clone(), guest_ftrace: Some(log.clone()) });
    assert!(text.contains("this is a QEMU log, but it was given as --guest-ftrace"), "{text}");
    let text = run(Inputs::Bundle(BundleInputs {
        host: log.clone(),
        guest_ftrace: ftrace.clone(),
        vmm: log.clone(),
        hypervisor_ftrace: ftrace.clone(),
    }));
    assert!(text.contains("vtd_page_walk_one"), "{text}");
    assert!(!out.exists());
}

#[test]
fn a_file_has_provenance_and_counts() {
    let (log, ftrace, out) = (scratch("p.log.zst"), scratch("p.ftrace"), scratch("p.parquet"));
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::fs::copy(fixtures.join("mixed-strict-cm.qemu.log.zst"), &log).unwrap();
    std::fs::write(&ftrace, fixture("mixed-strict-cm.ftrace.txt")).unwrap();
    let inputs = Inputs::Log { log, guest_ftrace: Some(ftrace) };
    let mut calls = 0;
    let mut progress = |done: u64, total: u64| {
        assert!(done <= total && total > 0);
        calls += 1;
    };
    let mut options = Options { progress: Some(&mut progress), ..Options::default() };
    let (report, summary) = import_to_file(&inputs, &out, &mut options).unwrap();
    let meta = TraceReader::open(&out).unwrap().meta().clone();
    assert_eq!(meta, summary.meta);
    assert_eq!(meta.import_counts, report.counts);
    assert_eq!(
        meta.sources.iter().map(|s| &*s.role).collect::<Vec<_>>(),
        ["qemu-log", "guest-ftrace"]
    );
    assert!(meta.sources.iter().all(|s| s.sha256.len() == 64 && s.bytes > 0));
    assert_eq!((meta.child_levels, meta.output_space), (3, OutputSpace::Gpa));
    assert_eq!(meta.totals.events, report.count("events"));
    assert!(meta.notes.iter().any(|n| n.contains("inferred")), "{:?}", meta.notes);
    let _ = calls;
}

#[test]
fn cancelling_leaves_no_file() {
    let (log, out) = (scratch("c.log"), scratch("c.parquet"));
    std::fs::write(&log, format!("{MISS}{TRANSLATE}").repeat(50_000)).unwrap();
    let cancel = AtomicBool::new(false);
    cancel.store(true, Ordering::Relaxed);
    let mut options = Options { cancel: Some(&cancel), ..Options::default() };
    let e =
        import_to_file(&Inputs::Log { log, guest_ftrace: None }, &out, &mut options).unwrap_err();
    assert!(e.to_string().contains("interrupted"), "{e}");
    assert!(!out.exists());
}

#[test]
fn odd_logs() {
    let one = |log: &str| import(log.as_bytes(), None).unwrap();
    // A hit at the log's beginning needs its mapping; the translation's line
    // may be missing; other threads' lines may stand between.
    let (_, sink) = one(&format!("{HIT}{HIT}{TRANSLATE}"));
    let kinds: Vec<_> = sink.events.iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [Kind::Attach, Kind::Map, Kind::Dma, Kind::Dma]);
    assert_eq!(sink.events[2].out, 0x50_1010);
    let (report, sink) =
        one(&format!("{MISS}{}", "vtd_iotlb_reset IOTLB reset (reason: x)\n".repeat(100)));
    assert_eq!(report.count("dma_without_translate_line"), 1);
    assert_eq!(sink.events.last().unwrap().out, 0x50_1010);

    // Translation off, or passed through: no lookup, IOVA = GPA.
    let (report, sink) =
        one("vtd_dmar_translate dev 00:05.00 iova 0x1000 -> gpa 0x1000 mask 0xfff\n\
         vtd_translate_pt source id 0x30, iova 0x2345\n\
         vtd_dmar_translate dev 00:06.00 iova 0x2000 -> gpa 0x2000 mask 0xfff\n");
    assert_eq!(report.count("dma_without_iotlb_line"), 1);
    let dma: Vec<_> = sink.events.iter().filter(|e| e.kind == Kind::Dma).collect();
    assert!(dma.iter().all(|e| e.domain == DomainId::PARENT && !e.flags.has(Flags::LABEL_KNOWN)));
    assert_eq!((dma[1].addr, dma[1].out, dma[1].requester), (0x2345, 0x2345, Requester(0x30)));
    assert_eq!(replay(&sink.events).0, Faults::default());

    // 2 MiB pages, a fault, 48 bits.
    let (report, sink) = one(
        "vtd_iotlb_cc_update IOTLB context update bus 0x1 devfn 0x8 high 0x702 low 0x100bf8001 gen 0 -> gen 1\n\
         vtd_iotlb_page_update IOTLB page update sid 0x108 iova 0x7f0000212345 slpte 0x11e000083 domain 0x7\n\
         vtd_dmar_translate dev 01:01.00 iova 0x7f0000200000 -> gpa 0x11e000000 mask 0x1fffff\n\
         vtd_dmar_fault sid 0x108 fault 5 addr 0x7f0000212000 write 1\n",
    );
    assert_eq!(report.child_levels, 4);
    let map = sink.events.iter().find(|e| e.kind == Kind::Map).unwrap();
    assert_eq!((map.addr, map.size, map.out), (0x7f00_0020_0000, 0x20_0000, 0x1_1e00_0000));
    let dma: Vec<_> = sink.events.iter().filter(|e| e.kind == Kind::Dma).collect();
    assert_eq!(dma[0].out, 0x1_1e01_2345);
    assert!(
        dma[1].flags.has(Flags::FAULT.with(Flags::WRITE)) && !dma[1].flags.has(Flags::OUT_KNOWN)
    );
    assert_eq!(dma[1].domain, DomainId(7));
    let before: Vec<_> = sink.events.iter().map(|e| e.kind).collect();
    assert_eq!(before[before.len() - 2..], [Kind::Unmap, Kind::Dma], "what faults is not mapped");

    // Decoded lines only, raw lines only, both: one event each.
    let decoded = "vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x5 addr 0x3000 mask 0x1\n";
    let raw = "vtd_inv_desc invalidate desc type iotlb high 0x3041 low 0x500f2\n";
    for (log, leaf) in
        [(decoded.to_string(), false), (raw.to_string(), true), (format!("{raw}{decoded}"), true)]
    {
        let (_, sink) = one(&log);
        let e = sink.events[0];
        assert_eq!(sink.events.len(), 1, "{log}");
        assert_eq!(
            (e.flags.scope(), e.domain, e.addr, e.size, e.out),
            (Some(Scope::Page), DomainId(5), 0x2000, 0x2000, 0x3000)
        );
        assert_eq!(e.flags.has(Flags::LEAF_ONLY), leaf);
    }

    // Switching translation empties the caches, once.
    let (_, sink) = one(
        "7@1.5:vtd_dmar_enable enable 1\n7@1.6:vtd_context_cache_reset \n7@1.7:vtd_context_cache_reset \n",
    );
    assert_eq!(sink.events.iter().filter(|e| e.flags.scope() == Some(Scope::Reset)).count(), 2);
}

#[test]
fn only_outputs_recorded() {
    // vtd_dmar_* alone: no labels, no domains but those of the contexts.
    let mut log = String::from(
        "vtd_iotlb_cc_update IOTLB context update bus 0x0 devfn 0x8 high 0x301 low 0x100bf8001 gen 0 -> gen 1\n",
    );
    for i in 0..100 {
        log += &format!(
            "vtd_dmar_translate dev 00:01.00 iova {:#x} -> gpa {:#x} mask 0xfff\n",
            (i % 7) << 12,
            (i << 12) + 0x8_0000
        );
    }
    let (report, sink) = import(log.as_bytes(), None).unwrap();
    assert_eq!(report.count("dma_without_iotlb_line"), 100);
    assert_eq!(replay(&sink.events).0, Faults::default());
    assert!(sink.events.iter().filter(|e| e.kind == Kind::Dma).all(|e| e.domain == DomainId(3)));
}
