//! `ioasim study`, as a user runs it.

mod common;

use common::{Scratch, fails, ioasim, json, succeeds};
use serde_json::Value;

/// The aims of the study hold in its counts, which are the same on every
/// machine, and its files are whole. Times are not looked at.
#[test]
fn parent_change_study_of_a_trace() {
    let dir = Scratch::new();
    let (trace, out) = (dir.path("t.parquet"), dir.path("study"));
    let make = ["trace", "generate", "nvme", "--events", "20000", "-o"];
    succeeds(ioasim().args(make).arg(&trace));
    let study = ["study", "parent-change", "--quick", "--trace"];
    succeeds(ioasim().args(study).arg(&trace).arg("-o").arg(&out));
    let study = json(&dir.read("study/study.json"));
    let points = study["points"].as_array().unwrap();
    let best: Vec<&Value> = points.iter().filter(|p| p["policy"] == "rmap-linked").collect();
    assert!(best.len() > 5);
    let number = |p: &Value, key: &str| p[key].as_u64().unwrap();
    for p in best.iter().filter(|p| p["unmap_bytes"] == 4096) {
        let (examined, changed) = (number(p, "entries_examined"), number(p, "entries_changed"));
        assert!(changed > 0 && examined <= 10 * changed, "{p}");
        assert!(number(p, "policy_bytes") <= 32 * number(p, "entries"), "{p}");
        let scan = points.iter().find(|q| {
            q["policy"] == "scan"
                && ["axis", "entries", "children", "overlap_percent", "unmap_bytes"]
                    .iter()
                    .all(|key| q[*key] == p[*key])
        });
        // A search examines everything; each child has equally many.
        let scan = scan.unwrap();
        let all = number(p, "entries") / number(p, "children") * number(p, "children");
        assert_eq!(number(scan, "entries_examined"), all * number(scan, "unmaps"));
    }
    let replays = study["replays"].as_array().unwrap();
    assert!(replays.iter().any(|r| r["trace"] != "embedded sample"), "{replays:?}");
    assert!(dir.read("study/index.html").contains("rmap-linked"));
    assert!(dir.read("study/times.csv").starts_with("what,policy,case,"));
}

#[test]
fn a_missing_trace_is_named_before_anything_is_measured() {
    let dir = Scratch::new();
    let out = dir.path("study");
    let study = ["study", "parent-change", "--quick", "--trace", "no-such.parquet", "-o"];
    let (code, _, errors) = fails(ioasim().args(study).arg(&out));
    assert!(code != 0 && errors.contains("no-such.parquet"), "{errors}");
    assert!(!errors.contains("entries/s"), "{errors}");
    assert!(!out.exists(), "nothing half-written");
}

#[test]
fn studies_are_listed() {
    assert!(succeeds(ioasim().args(["study", "list"])).contains("parent-change"));
}
