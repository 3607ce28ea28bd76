//! Memory of `replicate` grows with the tenants, by little, and not with the
//! trace. One test in a process of its own, since it looks at the process's
//! peak.

use std::path::Path;

use ioasim_traces::file::TraceReader;
use ioasim_traces::generate::{Control, Options, SyntheticGuest, Workload, generate_to_file};
use ioasim_traces::tools::replicate::{Replicate, replicate};

/// Peak resident memory of this process in KiB, where the system tells.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or("0 0");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn replicated(input: &Path, tenants: u64, max_events: u64) -> u64 {
    let reader = TraceReader::open(input).unwrap();
    let output = input.with_file_name("many.parquet");
    let how = Replicate {
        tenants,
        spread_ns: None,
        share_memory: false,
        max_events: Some(max_events),
        seed: 1,
    };
    let summary = replicate(&reader, &output, &how, &mut Control::default()).unwrap();
    assert_eq!(summary.events, max_events);
    peak_kib()
}

#[test]
fn memory_per_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("one.parquet");
    let options = Options::new(Workload::Balloon);
    let guest = SyntheticGuest { accesses: 50_000, ..SyntheticGuest::default() };
    generate_to_file(&guest, &input, &options, &mut Control::default()).unwrap();
    let few = replicated(&input, 64, 1_000_000);
    let longer = replicated(&input, 64, 5_000_000);
    let many = replicated(&input, 1024, 2_000_000);
    // 64 events of each tenant are in memory, 88 bytes each, and its names.
    assert!(many - longer <= 960 * 32, "{longer} KiB for 64 tenants, {many} KiB for 1024");
    // Row groups differ in size by some MB; eight bytes kept of each event would be 32 MB more.
    assert!(longer - few <= 12 << 10, "{few} KiB for 1 M events, {longer} KiB for 5 M");
    assert!(many < 128 << 10, "{many} KiB");
}
