//! The study's files, from made-up numbers.

use ioasim_reports::study::{
    Axis, Machine, MapTime, Point, ReplayRow, Setup, Study, render_findings, write,
};

const POLICIES: [&str; 3] = ["scan", "rmap-linked", "epoch"];

fn study() -> Study {
    let setups = [10_000u64, 1_000_000]
        .map(|entries| (Axis::Entries, entries, 0))
        .into_iter()
        .chain([0, 100].map(|overlap| (Axis::Overlap, 1_000_000, overlap)));
    let points = setups.flat_map(|(axis, entries, overlap_percent)| {
        let setup =
            Setup { axis, children: 16, entries, overlap_percent, run_pages: 1, unmap_bytes: 4096 };
        POLICIES.map(|policy| Point {
            setup,
            policy: policy.into(),
            unmaps: 10,
            entries_examined: if policy == "scan" { entries * 10 } else { 20 },
            entries_changed: 10,
            entries_dropped: 0,
            entries_rebuilt: 0,
            lines: 60,
            policy_bytes: entries * 12,
            ns: if policy == "scan" { entries as f64 * 5.0 } else { 400.0 },
            later_ns: 0.0,
        })
    });
    let map = |batch_pages| MapTime {
        policy: "rmap-linked".into(),
        sync: "invalidate-range".into(),
        overlap_percent: 0,
        batch_pages,
        map_ns: 200.0,
        map_with_ns: 250.0,
        map_later_ns: 40.0,
        unmap_ns: 100.0,
        unmap_with_ns: 120.0,
        unmap_later_ns: 30.0,
    };
    let replay = ReplayRow {
        trace: "<script>alert(1)</script>".into(),
        workload: "balloon".into(),
        policy: "rmap-linked".into(),
        changes: 0,
        entries_examined: 0,
        entries_changed: 0,
        entries_rebuilt: 0,
        host_pte_writes: 0,
        resident_entries_peak: 0,
        policy_bytes_peak: 0,
        hardware_invalidations: 0,
        iotlb_lookups: 0,
        iotlb_hits: 0,
        faults: 0,
        lazy_fills: 0,
        ns: 0.0,
    };
    Study {
        points: points.collect(),
        maps: vec![map(1), map(512)],
        replays: vec![replay],
        machine: Machine { cpu: "A & B".into(), system: "x".into() },
        ..Study::default()
    }
}

#[test]
fn counts_and_times_are_in_separate_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut study = study();
    let written = write(folder.path(), &study).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let (json, csv) = (read("study.json"), read("study.csv"));
    assert!(!json.contains("\"ns") && !json.contains("A & B"), "{json}");
    assert!(read("times.json").contains("A & B"));
    assert_eq!(csv.lines().count(), 1 + study.points.len());
    assert!(render_findings(&study, &written).contains("12,500 times faster"));
    // Other times, the same counts: the same bytes.
    study.points.iter_mut().for_each(|p| p.ns *= 1.7);
    study.machine.cpu = "another".into();
    write(folder.path(), &study).unwrap();
    assert_eq!((json, csv), (read("study.json"), read("study.csv")));
}

#[test]
fn the_page_is_whole_and_escapes_names() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &study()).unwrap();
    let page = std::fs::read_to_string(folder.path().join("index.html")).unwrap();
    let page = page.split("<script>'use strict'").next().unwrap(); // without the page's own
    assert!(page.contains("&lt;script&gt;alert"), "escaped");
    assert!(!page.contains("<script>alert") && !page.contains(">NaN") && !page.contains(">inf"));
    assert_eq!(page.matches("<figure").count(), 5, "entries twice, overlap, map path, memory");
    assert!(
        !page.contains("http://")
            || page.matches("http://").count()
                == page.matches("http://www.w3.org/2000/svg").count()
    );
    let svg = std::fs::read_to_string(folder.path().join("time-entries.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("<style>") && svg.contains("xmlns="));
}

#[test]
fn nothing_measured_is_a_page_too() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &Study::default()).unwrap();
    assert!(folder.path().join("index.html").is_file());
}
