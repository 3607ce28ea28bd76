//! Memory of generators and overlays does not grow with the trace. One test in
//! a process of its own, since it looks at the process's peak.

use ioasim_traces::file::TraceReader;
use ioasim_traces::generate::{
    Control, Options, SyntheticGuest, Workload, generate_to_file, overlay_to_file,
};

/// Peak resident memory of this process in MB, where the system tells.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or("0 0");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1000
}

#[test]
fn peak_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let options = Options::new(Workload::Balloon);
    let of = |accesses, name: &str| {
        let guest = SyntheticGuest { accesses, ..SyntheticGuest::default() };
        let control = &mut Control::default();
        generate_to_file(&guest, &path(name), &options, control).unwrap();
        // Over the first overlay's parent.
        let reader = TraceReader::open(&path(name)).unwrap();
        overlay_to_file(&reader, &path("again.parquet"), &options, control).unwrap();
        peak_mb()
    };
    of(100_000, "short.parquet");
    let peak = of(1_000_000, "long.parquet");
    assert!(peak < 64, "{peak} MB");
}
