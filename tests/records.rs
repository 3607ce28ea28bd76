//! Histograms and timelines on the command line, read back by other means.

mod common;
#[path = "common/perfetto.rs"]
mod perfetto;

use std::collections::{BTreeMap, HashMap};
use std::process::Command;

use common::{Scratch, fails, ioasim, json, succeeds};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;

const KINDS: [(&str, &str); 6] = [
    ("dma", "dma"),
    ("walk", "walk"),
    ("invalidation", "invalidation"),
    ("map-invalidation", "map_invalidation"),
    ("map", "map"),
    ("unmap", "unmap"),
];

/// Histograms by tag.
type ByTag = BTreeMap<String, Histogram<u64>>;

/// The log's histograms, summed, and its entries' `(start, length)`.
fn read_log(text: &str) -> (ByTag, Vec<(f64, f64)>) {
    let (mut sums, mut times) = (BTreeMap::new(), Vec::new());
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        let entry = match entry.unwrap_or_else(|e| panic!("{e:?} in\n{text}")) {
            LogEntry::Interval(entry) => entry,
            LogEntry::StartTime(_) | LogEntry::BaseTime(_) => continue,
        };
        let bytes = base64(entry.encoded_histogram());
        let h: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        assert_eq!(entry.max(), h.max() as f64);
        times.push((entry.start_timestamp().as_secs_f64(), entry.duration().as_secs_f64()));
        let tag = entry.tag().expect("tagged").as_str().to_owned();
        let sum = sums.entry(tag).or_insert_with(|| Histogram::new(3).unwrap());
        sum.add(&h).unwrap();
    }
    (sums, times)
}

fn base64(text: &str) -> Vec<u8> {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut out, mut bits, mut n) = (Vec::new(), 0u32, 0);
    for c in text.bytes().filter(|c| *c != b'=') {
        bits = bits << 6 | digits.iter().position(|d| *d == c).expect("base64") as u32;
        n += 6;
        if n >= 8 {
            n -= 8;
            out.push((bits >> n) as u8);
        }
    }
    out
}

/// `(value, quantile, count)` per line, from the text alone.
fn read_hgrm(text: &str) -> Vec<(f64, f64, u64)> {
    let numbers = |l: &str| -> Vec<f64> {
        l.split_whitespace().map(|w| w.parse().unwrap_or_else(|_| panic!("{l}"))).collect()
    };
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    lines.skip(1).map(numbers).map(|n| (n[0], n[1], n[2] as u64)).collect()
}

#[test]
fn histograms_read_back_with_the_counts_and_percentiles_of_the_result() {
    let dir = Scratch::new();
    succeeds(
        ioasim()
            .args(["compare", "sample", "--set", "time.enabled=true", "--warm-up", "3000", "-o"])
            .arg(dir.path("report"))
            .arg("--histograms")
            .arg(dir.path("h")),
    );
    let result = json(&dir.read("report/result.json"));
    let mut compared = 0;
    for run in result["runs"].as_array().unwrap() {
        let name = run["config"]["name"].as_str().unwrap();
        let log = dir.read(&format!("h/{name}/latency.hlog"));
        assert!(log.contains("ns") && log.contains("not recorded"), "units and origin\n{log}");
        let (sums, times) = read_log(&log);
        assert!(times.is_sorted_by(|a, b| a.0 <= b.0), "{times:?}");
        let elapsed = run["timing"]["elapsed_ns"].as_f64().unwrap() * 1e-9;
        let (start, last) = (times[0].0, times.last().unwrap());
        assert!(last.0 - start <= elapsed, "{last:?} of {elapsed}");
        for (kind, key) in KINDS {
            let expected = &run["timing"]["latency"][key];
            let count = expected["count"].as_u64().unwrap();
            let path = format!("h/{name}/{kind}.hgrm");
            if count == 0 {
                assert!(!sums.contains_key(kind) && !dir.path(&path).exists());
                continue;
            }
            compared += 1;
            let h = &sums[kind];
            let max = expected["max_ns"].as_u64().unwrap();
            assert_eq!(h.len(), count, "{name} {kind}");
            let text = dir.read(&path);
            assert!(text.contains("values in ns") && text.contains("not recorded"));
            let lines = read_hgrm(&text);
            assert_eq!(lines.last().unwrap().2, count, "{name} {kind}");
            for (p, q) in
                [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999), ("p99_99", 0.9999)]
            {
                let expected = expected[format!("{p}_ns")].as_u64().unwrap();
                assert_eq!(h.value_at_quantile(q).min(max), expected, "{name} {kind} {p}");
                // The text's lines enclose it: the first line that counts as many.
                let at = (q * count as f64).ceil() as u64;
                let line = lines.iter().find(|l| l.2 >= at).unwrap();
                assert!(line.0 + 0.5 >= expected as f64, "{name} {kind} {p}: {line:?}");
                let before = lines.iter().rev().find(|l| l.2 < at);
                assert!(before.is_none_or(|l| l.0 < expected as f64 * 1.001), "{before:?}");
            }
        }
    }
    assert!(compared >= 15, "only {compared} distributions were compared");
}

/// Bytes of a timeline and its properties.
fn timeline(dir: &Scratch, args: &[&str]) -> (Vec<u8>, perfetto::Seen) {
    let path = dir.path("t.pftrace");
    let mut command = ioasim();
    let said = succeeds(command.args(["replay", "sample"]).args(args).arg("--timeline").arg(&path));
    assert!(said.contains("of simulated time"), "{said}");
    let bytes = std::fs::read(path).unwrap();
    let seen = perfetto::check(&bytes).unwrap_or_else(|fault| panic!("{args:?}: {fault}"));
    (bytes, seen)
}

#[test]
fn timelines_are_closed_nested_and_their_flows_resolved() {
    let dir = Scratch::new();
    let timed = ["--set", "time.enabled=true"];
    for preset in ioasim_sim::config::preset_names() {
        for window in ["0us..300us", "100us..101us", "3000..4500"] {
            let args = [&["-c", preset, "--window", window], &timed[..]].concat();
            timeline(&dir, &args);
        }
    }
}

/// Everything of a run is in its timeline: numbers of slices and their times
/// against the result's.
#[test]
fn a_timeline_of_all_has_all() {
    let dir = Scratch::new();
    for more in [
        &["-c", "intel-vtd"][..],
        &["-c", "hw-nested", "--set", "time.iommu.walkers=1", "--set", "time.ats.entries=16"],
        &["-c", "sw-nested-invalidate", "--set", "time.device.sharing=all"],
    ] {
        let args = [more, &["--set", "time.enabled=true"]].concat();
        let mut command = ioasim();
        command.args(["replay", "sample", "--json", "-"]).args(&args);
        let result = json(&succeeds(&mut command))["runs"][0]["timing"].clone();
        let (bytes, seen) = timeline(&dir, &args);
        let slices = |group: &str, name: &str| -> (u64, u64) {
            let found = seen.slices.iter().filter(|s| s.group == group && s.name == name);
            found.fold((0, 0), |(n, ns), s| (n + 1, ns + s.end_ns - s.start_ns))
        };
        let count = |key: &str| result["latency"][key]["count"].as_u64().unwrap();
        let dma = slices("devices", "DMA read").0 + slices("devices", "DMA write").0;
        assert_eq!(dma, count("dma"), "{more:?}");
        assert_eq!(slices("IOMMU", "walk").0, count("walk"));
        assert_eq!(slices("vCPUs", "map").0, count("map"));
        assert_eq!(slices("vCPUs", "unmap").0, count("unmap"));
        assert_eq!(slices("vCPUs", "invalidation (tlb_sync)").0, count("invalidation"));
        // Times: to a nanosecond per slice, which is what the file tells apart.
        let (n, walking) = slices("IOMMU", "walk");
        let walkers = resource(&result, "walkers");
        let busy = walkers["busy_mean"].as_f64().unwrap() * result["elapsed_ns"].as_f64().unwrap();
        assert!((walking as f64 - busy).abs() <= n as f64 + 1.0, "{walking} {busy}");
        if let Some(walkers) = walkers["servers"].as_u64().filter(|n| *n > 0) {
            let tracks = seen.tracks.iter().filter(|t| t.starts_with("walker "));
            assert!(tracks.count() as u64 <= walkers);
        }
        // Every request that was walked for is linked to its walk, every
        // completed unmap to its completion.
        let classes = result["classes"].as_array().unwrap();
        let walked: u64 = classes
            .iter()
            .filter(|c| c["walk_ns"].as_f64().unwrap() > 0.0)
            .map(|c| c["count"].as_u64().unwrap())
            .sum();
        let mut flows: HashMap<u64, u64> = HashMap::new();
        seen.flows.iter().for_each(|f| *flows.entry(f >> 60).or_default() += 1);
        assert!(flows.get(&1).copied().unwrap_or(0) >= walked / 2, "{flows:?} {walked}");
        if count("invalidation") > 0 {
            assert!(flows[&2] > 0, "{flows:?}");
        }
        // The same again, byte for byte.
        assert_eq!(timeline(&dir, &args).0, bytes);
    }
}

fn resource<'a>(timing: &'a Value, name: &str) -> &'a Value {
    timing["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap()
}

/// The checker finds what it is there to find.
#[test]
fn damaged_timelines_are_found() {
    let dir = Scratch::new();
    let (bytes, _) = timeline(&dir, &["-c", "intel-vtd", "--window", "0us..100us"]);
    let packets = perfetto::packets(&bytes);
    // Without one packet, and without two neighbours: a slice with its end.
    let without = |i: usize, n: usize| {
        let rest = [&packets[..i], &packets[(i + n).min(packets.len())..]].concat();
        perfetto::check(&rest.concat()).err()
    };
    let faults: Vec<String> =
        (0..packets.len()).flat_map(|i| [without(i, 1), without(i, 2)]).flatten().collect();
    for what in ["undescribed track", "stays open", "never began", "one end"] {
        assert!(faults.iter().any(|f| f.contains(what)), "no fault {what:?} was found");
    }
}

/// With Perfetto's own definitions, where the PyPI package is installed.
#[test]
fn perfettos_own_definitions_agree() {
    let there = Command::new("python3")
        .args(["-c", "from perfetto.protos.perfetto.trace import perfetto_trace_pb2"])
        .output();
    if !there.is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: python3 with the package `perfetto` is not there");
        return;
    }
    let dir = Scratch::new();
    for preset in ["intel-vtd", "sw-nested-invalidate"] {
        timeline(&dir, &["-c", preset, "--set", "time.enabled=true"]);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/perfetto_check.py");
        let said = succeeds(Command::new("python3").arg(script).arg(dir.path("t.pftrace")));
        assert!(said.contains("slices"), "{said}");
    }
}

#[test]
fn what_cannot_be_kept_is_refused_by_name() {
    let dir = Scratch::new();
    let out = dir.path("t.pftrace");
    let out = out.to_str().unwrap();
    let folder = dir.path("h");
    let folder = folder.to_str().unwrap();
    for (args, said) in [
        (&["-c", "hw-nested", "--timeline", out][..], "time.enabled=true"),
        (&["-c", "hw-nested", "--histograms", folder], "time.enabled=true"),
        (&["-c", "intel-vtd", "--timeline", out, "--window", "5..5"], "empty"),
        (&["-c", "intel-vtd", "--timeline", out, "--window", "1ms..x"], "START..END"),
        (&["-c", "intel-vtd", "--timeline", out, "--window", "1000s..1001s"], "another"),
        (&["-c", "intel-vtd", "--window", "1..5"], "--timeline"),
    ] {
        let (code, _, err) = fails(ioasim().args(["replay", "sample"]).args(args));
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(err.contains(said), "{args:?}: {err}");
    }
    assert!(dir.names().is_empty(), "{:?}", dir.names());
}
