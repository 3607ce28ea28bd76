//! The page of `trace info --html`.

use ioasim_reports::TraceSection;
use ioasim_reports::trace_info::{
    Distribution, Part, Reuse, TraceInfo, trace_info_html, write_trace_info,
};

fn info() -> TraceInfo {
    let spread = |classes: Vec<(u64, u64)>| Distribution {
        count: classes.iter().map(|c| c.1).sum(),
        mean: 3.0,
        p50: 2,
        p90: 4,
        p99: 1024,
        max: 1024,
        classes,
    };
    let reuse = |unit: &str| Reuse {
        unit: unit.into(),
        firsts: 10,
        distances: spread(vec![(1, 50), (2, 20), (1024, 20)]),
    };
    TraceInfo {
        trace: TraceSection {
            path: "dir/<script>alert(1)</script>".into(),
            events: 100,
            end_ns: 5_000_000,
            counts: [("dma".into(), 100)].into(),
            notes: vec!["a <b>note</b>".into()],
            ..TraceSection::default()
        },
        accesses: 100,
        devices: 1,
        domains: 2,
        working_set: (0..60)
            .map(|i| Part { time_ns: i * 1000, accesses: 2, pages: i % 7 })
            .collect(),
        reuse: [reuse("4 KiB pages"), reuse("2 MiB regions")],
        lifetime_ns: spread(vec![(1 << 20, 7), (u64::MAX, 1)]),
        bursts: spread(vec![(1, 5)]),
        ..TraceInfo::default()
    }
}

#[test]
fn the_page_shows_all_figures_and_escapes_names() {
    let page = trace_info_html(&info()).unwrap();
    for part in [
        "id=\"working-set\"",
        "id=\"reuse\"",
        "id=\"lifetime\"",
        "id=\"bursts\"",
        "The working set moves between 0 and 6 pages.",
        // 70 of 100 accesses within 64, 90 within 1,024.
        "70.0\u{a0}% go to one of the 64 pages",
        "90.0\u{a0}% to one of the 1,024",
        "<b>1 device</b>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<script>alert") && !page.contains("<b>note"), "escaped");
    // Nothing comes from elsewhere.
    assert!(!page.contains("src=") && !page.contains("http-equiv=\"refresh\""));
    assert_eq!(page, trace_info_html(&info()).unwrap());
}

#[test]
fn a_trace_without_accesses_has_a_page() {
    let page = trace_info_html(&TraceInfo::default()).unwrap();
    assert!(page.contains("neither accesses nor ended maps") && !page.contains("<figure"));
}

#[test]
fn the_page_is_written_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("info.html");
    write_trace_info(&path, &info()).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), trace_info_html(&info()).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let missing = dir.path().join("missing").join("info.html");
    assert!(write_trace_info(&missing, &info()).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
