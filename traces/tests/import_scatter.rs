//! Scatter lists, cache tags, and trace-cmd's own files. Fixtures: one guest (Linux 6.12 on QEMU's
//! VT-d, an NVMe and an AHCI disk, fio with blocks of 4 KiB to 1 MiB), recorded three times: with ftrace,
//! trace-cmd 3.1.6 and perf 6.1, `iommu`, `intel_iommu` and `dma` events.

mod import_common;

use std::path::Path;
use std::process::Command;

use import_common::fixture;
use import_common::texts::{lines_with, without};
use ioasim_events::{Event, Kind};
use ioasim_traces::import::{
    ImportReport, Inputs, MemoryLines, MemorySink, Options, import_to_file, kernel_trace,
};

fn import(text: &[u8]) -> (ImportReport, MemorySink) {
    let mut sink = MemorySink::default();
    let open = || Ok(MemoryLines::new("kernel", text));
    let (report, _) = kernel_trace(open, &mut sink, &mut Options::default()).unwrap();
    assert_eq!(report.count("lines_damaged"), 0, "{:?}", report.damaged);
    (report, sink)
}

/// Domain, page and output of each mapped page, in order.
fn pages(sink: &MemorySink) -> Vec<(u32, u64, u64)> {
    let maps = sink.events.iter().filter(|e| e.kind == Kind::Map);
    maps.flat_map(|e| {
        (0..e.size >> 12).map(|i| (e.domain.0, (e.addr >> 12) + i, (e.out >> 12) + i))
    })
    .collect()
}

const CHANGES: [&str; 2] = [" map: ", " unmap: "];

/// Buffers alone give the pages that the IOMMU's own events give.
#[test]
fn scatter_lists_alone() {
    let text = fixture("linux-6.12-sg.ftrace.txt");
    let (report, whole) = import(&without(&text, &["qi_submit", "cache_tag"]));
    assert_eq!(report.count("table_changes_by_adjacency"), 0, "every change has its device");
    let (report, buffers) =
        import(&without(&text, &["qi_submit", "cache_tag", CHANGES[0], CHANGES[1]]));
    assert_eq!(report.count("scatter_lists_cut"), 0);
    assert_eq!(report.count("scatter_unmaps_without_map"), 0);
    assert_eq!(report.count("unmaps_inferred"), 0);
    assert_eq!(report.count("unmaps_of_unknown_pages"), 0);
    let known = |p: &&(u32, u64, u64)| p.2 < 1 << 34;
    let (whole, all) = (pages(&whole), pages(&buffers));
    let told: Vec<_> = all.iter().filter(known).collect();
    // Addresses of coherent memory are not traced; lists whose entries have several pages have
    // outputs that cannot be told apart.
    assert!(told.len() > 1000 && told.len() * 3 > whole.len(), "{} of {}", told.len(), whole.len());
    let mut rest = whole.iter();
    assert!(told.iter().all(|t| rest.any(|w| (w.1, w.2) == (t.1, t.2))), "in the same order");
    let unmaps = |s: &MemorySink| -> u64 {
        s.events.iter().filter(|e| e.kind == Kind::Unmap).map(|e| e.size >> 12).sum()
    };
    let recorded = lines_with(&text, "dma_unmap_");
    assert!(unmaps(&buffers) > recorded, "lists unmap more than a page");
    assert_eq!(all.len(), whole.len(), "the same pages are mapped");
}

/// Cache tags tell the domains and invalidations that descriptors tell.
#[test]
fn cache_tags_stand_for_descriptors() {
    let text = fixture("linux-6.12-sg.ftrace.txt");
    let (expected, by_descriptor) = import(&text);
    let (report, by_tag) = import(&without(&text, &["qi_submit"]));
    assert!(report.notes.iter().any(|n| n.contains("cache_tag_flush_range")));
    for name in ["table_changes_by_invalidation", "table_changes_without_domain", "unmaps_inferred"]
    {
        assert_eq!(report.count(name), expected.count(name), "{name}");
    }
    let invalidations = |s: &MemorySink| -> Vec<(u32, u64, u64)> {
        let all = s.events.iter().filter(|e| e.kind == Kind::Invalidate && e.size > 0);
        all.map(|e: &Event| (e.domain.0, e.addr, e.size)).collect()
    };
    assert_eq!(invalidations(&by_tag).len() as u64, lines_with(&text, "cache_tag_flush_range:"));
    assert_eq!(invalidations(&by_tag), invalidations(&by_descriptor));
    assert_eq!(pages(&by_tag), pages(&by_descriptor));
}

/// What perf and trace-cmd print of events that their library cannot put together.
#[test]
fn fields_instead_of_texts() {
    let text = fixture("perf-script-sg.txt");
    assert!(lines_with(&text, "FAILED TO PARSE") > 100);
    let (report, _) = import(&text);
    assert_eq!(report.count("table_changes_without_domain"), 0);
    let (report, _) = import(&without(&text, &["qi_submit", "cache_tag", ":map: ", ":unmap: "]));
    // The recording begins in the middle of the work.
    assert!(report.count("scatter_unmaps_without_map") < 8, "{report:#?}");
    assert!(report.count("maps") > 100);
}

fn installed(tool: &str) -> bool {
    let there = Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success());
    if !there {
        println!("skipped: {tool} is not installed");
    }
    there
}

fn import_file(dir: &Path, bytes: &[u8]) -> ioasim_traces::Result<ImportReport> {
    let file = dir.join("trace.dat");
    std::fs::write(&file, bytes).unwrap();
    let inputs = Inputs::Log { log: file, guest_ftrace: None };
    import_to_file(&inputs, &dir.join("t.parquet"), &mut Options::default()).map(|(r, _)| r)
}

/// Version 7, compressed with zstd, as recorded, and version 6, to which trace-cmd converted it.
#[test]
fn recordings_of_trace_cmd() {
    if !installed("trace-cmd") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut counts = Vec::new();
    for (name, version) in [("sg-v7.trace.dat", &b"7\0"[..]), ("sg-v6.trace.dat", b"6\0")] {
        let bytes = fixture(name);
        assert_eq!(&bytes[10..12], version);
        let report = import_file(dir.path(), &bytes).unwrap();
        // What `trace-cmd report | grep -c` counts.
        let numbers = ["maps", "unmaps", "invalidations", "lines_damaged"];
        assert_eq!(numbers.map(|n| report.count(n)), [1104, 1029, 1029, 0], "{name}");
        counts.push(report.counts);
        // Cut, trace-cmd refuses it or prints what is left.
        let _ = import_file(dir.path(), &bytes[..bytes.len() / 2]);
        assert!(import_file(dir.path(), &bytes[..40]).is_err());
    }
    assert_eq!(counts[0], counts[1]);
}

#[test]
fn a_compressed_recording_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["sg-v7.trace.dat", "vtd.perf.data"] {
        let bytes = zstd::encode_all(&fixture(name)[..], 1).unwrap();
        let error = import_file(dir.path(), &bytes).unwrap_err().to_string();
        assert!(error.contains("compressed recording") && error.contains("decompress"), "{error}");
    }
}

/// Run in a process of its own by [`a_missing_tool_is_named`].
#[test]
#[ignore = "run without a search path by the next test"]
fn without_tools() {
    let dir = tempfile::tempdir().unwrap();
    for (name, package) in
        [("sg-v7.trace.dat", "package trace-cmd"), ("vtd.perf.data", "linux-perf")]
    {
        let error = import_file(dir.path(), &fixture(name)).unwrap_err().to_string();
        assert!(error.contains("install") && error.contains(package), "{error}");
    }
}

#[test]
fn a_missing_tool_is_named() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "without_tools", "--ignored"])
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// A guest in scalable mode with first-stage tables submits other descriptors for the same changes.
#[test]
fn first_stage_descriptors_tell_domains() {
    let text = String::from_utf8(fixture("linux-6.12-sg.ftrace.txt")).unwrap();
    let (expected, legacy) = import(text.as_bytes());
    let scalable: String = text
        .lines()
        .map(|l| match l.split_once("qi_submit: iotlb_inv dmar0: 0x") {
            // Type 2 becomes 6, without the drain bits; both have granularity 3 and the domain.
            Some((head, rest)) if rest.contains("00f2 ") => {
                format!(
                    "{head}qi_submit: p_iotlb_inv dmar0: 0x{}\n",
                    rest.replacen("f2 ", "36 ", 1)
                )
            }
            _ => l.to_owned() + "\n",
        })
        .collect();
    assert!(scalable.matches("p_iotlb_inv").count() > 700);
    let (report, first_stage) = import(scalable.as_bytes());
    for name in ["invalidations", "table_changes_by_invalidation", "unmaps_inferred"] {
        assert_eq!(report.count(name), expected.count(name), "{name}");
    }
    assert_eq!(pages(&first_stage), pages(&legacy));
    let invalidations = first_stage.events.iter().filter(|e| e.kind == Kind::Invalidate);
    assert!(invalidations.filter(|e| e.pasid.0 == 0).count() > 700);
}
