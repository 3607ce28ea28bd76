//! A kernel's trace alone: of ftrace, trace-cmd and perf, with and without
//! descriptors and `dma:*` events. Fixtures are recordings made with
//! `traces/record/record.sh` (Linux 6.12 and 6.1 on QEMU's VT-d).

mod import_common;

use std::collections::{BTreeMap, BTreeSet};

use import_common::fixture;
use import_common::texts::{lines_with, without};
use ioasim_events::{Event, Flags, Kind};
use ioasim_traces::import::{
    ImportReport, Inputs, MemoryLines, MemorySink, Options, import_to_file, kernel_trace, qemu_log,
};
use proptest::prelude::*;

fn import(text: &[u8]) -> (ImportReport, MemorySink) {
    let mut sink = MemorySink::default();
    let open = || Ok(MemoryLines::new("kernel", text));
    let (report, _) = kernel_trace(open, &mut sink, &mut Options::default()).unwrap();
    (report, sink)
}

fn of(sink: &MemorySink, kind: Kind) -> Vec<&Event> {
    sink.events.iter().filter(|e| e.kind == kind).collect()
}

/// Address, size, output and domain of each map, in order.
fn maps(sink: &MemorySink) -> Vec<(u64, u64, u64, u32)> {
    of(sink, Kind::Map).iter().map(|e| (e.addr, e.size, e.out, e.domain.0)).collect()
}

/// Unmaps find what was mapped: a slow table, page by page.
fn consistent(sink: &MemorySink) -> u64 {
    let mut table = BTreeSet::new();
    let mut strangers = 0;
    for e in &sink.events {
        let pages = (e.addr >> 12..(e.addr + e.size).div_ceil(4096)).map(|p| (e.domain, p));
        match e.kind {
            Kind::Map => strangers += pages.filter(|p| !table.insert(*p)).count() as u64,
            Kind::Unmap => strangers += pages.filter(|p| !table.remove(p)).count() as u64,
            _ => {}
        }
    }
    strangers
}

/// The descriptors in a kernel's trace are its log: joined with a log that says the same, as QEMU
/// prints it, the trace is the same.
#[test]
fn descriptors_are_the_log() {
    for name in ["linux-6.12-dma.ftrace.txt", "trace-cmd-report.txt", "nic-rx-strict.ftrace.txt"] {
        let text = fixture(name);
        let lines = std::str::from_utf8(&text).unwrap().lines();
        let log: String = lines
            .filter_map(|l| {
                let (head, tail) = l.split_once("qi_submit: ")?;
                let mut words = tail.trim_start().split(": ").nth(1)?.split(' ');
                let (low, high) = (words.next()?, words.next()?);
                let time = head.trim_end().trim_end_matches(':').rsplit(' ').next()?;
                Some(format!(
                    "1@{time}:vtd_inv_desc invalidate desc type x high {high} low {low}\n"
                ))
            })
            .collect();
        let (log, guest) = (MemoryLines::new("l", log.as_bytes()), MemoryLines::new("g", &text));
        let mut joined = MemorySink::default();
        let (report, ..) =
            qemu_log(log, Some(guest), &mut joined, &mut Options::default()).unwrap();
        let (own_report, own) = import(&text);
        assert!(report.count("descriptors_joined") > 0, "{name}");
        assert_eq!(own.events, joined.events, "{name}");
        assert_eq!(own.markers, joined.markers, "{name}");
        for (count, n) in &own_report.counts {
            assert_eq!(*n, report.count(count), "{name}: {count}");
        }
    }
}

#[test]
fn descriptors_tell_domains() {
    let text = fixture("linux-6.12-dma.ftrace.txt");
    let (report, sink) = import(&text);
    assert_eq!(report.importer, "linux-ftrace");
    assert_eq!(report.count("maps"), lines_with(&text, " map: "));
    assert_eq!(report.count("unmaps"), lines_with(&text, " unmap: "));
    assert_eq!(report.count("descriptors_only_in_log"), 0);
    assert_eq!(report.count("descriptors_only_in_ftrace"), 0);
    assert_eq!(report.count("table_changes_without_domain"), 0);
    assert_eq!(report.count("dma"), 0);
    let iotlb = lines_with(&text, "qi_submit: iotlb_inv");
    assert_eq!(of(&sink, Kind::Invalidate).len() as u64, iotlb);
    assert!(sink.events.windows(2).all(|e| e[0].time_ns <= e[1].time_ns));
}

/// Texts that the tools print of their own recordings (`record.sh --collect trace-cmd`, `perf`),
/// cut.
#[test]
fn what_the_tools_print() {
    for name in ["trace-cmd-report.txt", "perf-script.txt"] {
        let text = fixture(name);
        let (report, sink) = import(&text);
        assert_eq!(report.count("lines_damaged"), 0, "{name}");
        assert_eq!(
            report.count("maps"),
            lines_with(&text, "map: ") - lines_with(&text, "unmap: "),
            "{name}"
        );
        assert_eq!(report.count("unmaps"), lines_with(&text, "unmap: "), "{name}");
        let iotlb = lines_with(&text, " iotlb_inv dmar0: ");
        assert_eq!(of(&sink, Kind::Invalidate).len() as u64, iotlb, "{name}");
        assert_eq!(report.count("table_changes_without_domain"), 0, "{name}");
        // Nanoseconds are kept.
        assert!(sink.events.iter().any(|e| e.time_ns % 1000 != 0), "{name}");
    }
}

/// What the devices of `dma:*` events say agrees with what descriptors say.
#[test]
fn devices_and_descriptors_agree() {
    let text = fixture("linux-6.12-dma.ftrace.txt");
    let (_, by_descriptor) = import(&text);
    let (report, by_device) = import(&without(&text, &["qi_submit", "cache_tag"]));
    // The fixture is cut, between a change and the event that names its device.
    assert!(report.count("table_changes_by_adjacency") <= 1, "{report:#?}");
    let guessed: Vec<bool> =
        of(&by_device, Kind::Map).iter().map(|e| e.flags.has(Flags::DOMAIN_INFERRED)).collect();
    let (a, b) = (maps(&by_descriptor), maps(&by_device));
    assert_eq!(a.len(), b.len());
    let mut names = BTreeMap::new();
    for ((a, b), guessed) in a.iter().zip(&b).zip(guessed) {
        assert_eq!((a.0, a.1, a.2), (b.0, b.1, b.2));
        if guessed {
            continue;
        }
        assert_eq!(*names.entry(b.3).or_insert(a.3), a.3, "one domain for each device");
    }
    let distinct: BTreeSet<u32> = names.values().copied().collect();
    assert_eq!(distinct.len(), names.len());
    assert_eq!(of(&by_device, Kind::Attach).len(), names.len());
}

/// Buffers alone give the same maps, but for the outputs that are not traced.
#[test]
fn buffers_alone() {
    let text = fixture("linux-6.12-dma.ftrace.txt");
    let (_, whole) = import(&without(&text, &["qi_submit", "cache_tag"]));
    let (report, buffers) =
        import(&without(&text, &["qi_submit", "cache_tag", " map: ", " unmap: "]));
    let pages = |sink: &MemorySink| -> Vec<(u64, u64)> {
        maps(sink)
            .iter()
            .filter(|m| m.2 < 1 << 46)
            .flat_map(|m| (0..m.1 >> 12).map(|i| ((m.0 >> 12) + i, (m.2 >> 12) + i)))
            .collect()
    };
    let made_up = report.count("maps_without_output") as usize;
    assert_eq!(made_up as u64, lines_with(&text, "dma_alloc"));
    let (whole, buffers) = (pages(&whole), pages(&buffers));
    assert!(whole.len() >= buffers.len() && buffers.len() > 1000);
    // The rest are the buffers whose output is not traced.
    let mut rest = whole.iter();
    assert!(buffers.iter().all(|b| rest.any(|w| w == b)), "a subsequence of the kernel's maps");
}

/// Where nothing tells a device, domains are assumed so that nothing collides.
#[test]
fn nothing_tells_a_domain() {
    let text = without(&fixture("amd-nvme-randread4k-strict.ftrace.txt"), &["qi_submit"]);
    let (report, sink) = import(&text);
    assert_eq!(report.count("maps"), lines_with(&text, ": map: "));
    assert_eq!(report.count("unmaps_inferred"), 0);
    assert!(of(&sink, Kind::Map).iter().all(|e| e.flags.has(Flags::DOMAIN_INFERRED)));
    // Some unmaps are of maps made before the trace began, or before the part that is the fixture.
    assert!(consistent(&sink) <= report.count("unmaps_of_unknown_pages") * 512);
}

/// What trace-cmd and perf print of one event is what ftrace prints.
fn styles(
    task: &str,
    pid: u32,
    cpu: u32,
    ns: u64,
    system: &str,
    event: &str,
    text: &str,
) -> [String; 3] {
    let (s, us, frac) = (ns / 1_000_000_000, ns / 1000 % 1_000_000, ns % 1_000_000_000);
    [
        format!("{task:>16}-{pid:<7} [{cpu:03}] d.h1. {s:>5}.{us:06}: {event}: {text}"),
        format!("{task:>16}-{pid:<5} [{cpu:03}] {s:>5}.{us:06}: {event}:{:>15}{text}", ""),
        format!("{task:>16} {pid:>7} [{cpu:03}] {s:>5}.{frac:09}: {system}:{event}: {text}"),
    ]
}

proptest! {
    #[test]
    fn printed_maps_read_back_in_every_style(
        changes in proptest::collection::vec(
            (0..64u64, 1..4u64, 0..1u64 << 40, 0..4u32, 1..1_000_000u64), 1..60),
        task in "[a-z/:]{1,12}",
    ) {
        let mut texts = [String::new(), String::new(), String::new()];
        let mut ns = 5_000_000_000;
        let mut expected = Vec::new();
        for (slot, pages, out, cpu, gap) in &changes {
            ns += gap * 1000;
            let (iova, size, out) = (slot << 16, pages << 12, out << 12);
            let range = format!("IOMMU: iova=0x{iova:016x} - 0x{:016x}", iova + size);
            let map = format!("{range} paddr=0x{out:016x} size={size}");
            let unmap = format!("{range} size={size} unmapped_size={size}");
            expected.push((iova, size, out, 1));
            for (event, text) in [("map", map), ("unmap", unmap)] {
                for (i, line) in styles(&task, 77, *cpu, ns, "iommu", event, &text).iter().enumerate() {
                    texts[i] += line;
                    texts[i] += "\n";
                }
            }
        }
        for text in &texts {
            let (report, sink) = import(text.as_bytes());
            prop_assert_eq!(report.count("lines_damaged"), 0);
            prop_assert_eq!(maps(&sink), expected.clone());
            prop_assert_eq!(of(&sink, Kind::Unmap).len(), expected.len());
            prop_assert_eq!(consistent(&sink), 0);
            let first = sink.events[0].time_ns;
            let last = sink.events.last().unwrap().time_ns;
            prop_assert_eq!(last - first, ns - 5_000_000_000 - changes[0].4 * 1000);
        }
    }
}

#[test]
fn refused_and_damaged() {
    let mut sink = MemorySink::default();
    let none = b"# tracer: nop\n  a-1 [000] ..... 1.5: sched_switch: x\n";
    let open = || Ok(MemoryLines::new("kernel", none));
    let error = kernel_trace(open, &mut sink, &mut Options::default()).unwrap_err().to_string();
    assert!(error.contains("trace-cmd record"), "{error}");
    // Cut anywhere: an error or a result, no panic.
    let text = fixture("linux-6.12-dma.ftrace.txt");
    for cut in (0..text.len()).step_by(text.len() / 23) {
        let open = || Ok(MemoryLines::new("kernel", &text[..cut]));
        let _ = kernel_trace(open, &mut MemorySink::default(), &mut Options::default());
    }
}

/// perf's own file, read through the installed perf.
#[test]
fn a_recording_of_perf() {
    let installed = std::process::Command::new("perf").arg("--version").output();
    if !installed.is_ok_and(|o| o.status.success()) {
        println!("skipped: perf is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("recording"), dir.path().join("t.parquet"));
    std::fs::write(&file, fixture("vtd.perf.data")).unwrap();
    let inputs = Inputs::Log { log: file.clone(), guest_ftrace: None };
    let (report, summary) = import_to_file(&inputs, &out, &mut Options::default()).unwrap();
    assert_eq!(report.importer, "linux-ftrace");
    // What `perf script | grep -c` counts.
    let counted = ["maps", "unmaps", "invalidations"].map(|name| report.count(name));
    assert_eq!(counted, [1133; 3]);
    assert_eq!(summary.events, 3 * 1133);
    assert_eq!(summary.meta.sources[0].bytes, std::fs::metadata(&file).unwrap().len());
    // Cut, perf refuses it, or prints what is left; nothing half-written stays.
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..64]).unwrap();
    let gone = dir.path().join("gone.parquet");
    assert!(import_to_file(&inputs, &gone, &mut Options::default()).is_err());
    assert!(!gone.exists());
}
