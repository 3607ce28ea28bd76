//! The study's files: `study.json` and `study.csv` with counts, `times.json`
//! and `times.csv` with what was measured on one machine.

use serde::Serialize;
use serde_json::json;

use super::data::{MapTime, Point, STUDY_SCHEMA, Study, TIMES_SCHEMA};
use crate::error::{Error, Result};

fn text(value: &impl Serialize, what: &'static str) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(|source| Error::Serialise { what, source })? + "\n")
}

/// Counts only: the same bytes on any machine and any number of threads.
pub(super) fn study_json(s: &Study) -> Result<String> {
    let value = json!({
        "schema": STUDY_SCHEMA, "study": "parent-change", "version": s.version, "quick": s.quick,
        "points": s.points, "replays": s.replays, "omitted": s.omitted,
    });
    text(&value, "study.json")
}

/// CPU times, and where they were measured.
pub(super) fn times_json(s: &Study) -> Result<String> {
    let point = |p: &Point| {
        json!({
            "axis": p.setup.axis.name(), "x": p.setup.x(), "policy": p.policy,
            "ns_per_unmap": p.ns, "ns_later_per_unmap": p.later_ns,
        })
    };
    let replays: Vec<_> = s
        .replays
        .iter()
        .map(|r| {
            json!({ "trace": r.trace, "workload": r.workload, "policy": r.policy, "cpu_ns": r.ns })
        })
        .collect();
    let value = json!({
        "schema": TIMES_SCHEMA, "study": "parent-change",
        "measured_on": s.machine, "quick": s.quick,
        "note": "CPU times of one run on this machine; they differ elsewhere and from run to run",
        "unmaps": s.points.iter().map(point).collect::<Vec<_>>(), "maps": s.maps, "replays": replays,
    });
    text(&value, "times.json")
}

pub(super) fn study_csv(s: &Study) -> String {
    let mut out = String::from(
        "axis,policy,children,entries,overlap_percent,run_pages,unmap_bytes,unmaps,\
         entries_examined,entries_changed,entries_dropped,entries_rebuilt,lines,policy_bytes\n",
    );
    for p in &s.points {
        let u = &p.setup;
        out += &format!("{},{},", u.axis.name(), p.policy);
        let numbers = [
            u.children,
            u.entries,
            u.overlap_percent,
            u.run_pages,
            u.unmap_bytes,
            p.unmaps,
            p.entries_examined,
            p.entries_changed,
            p.entries_dropped,
            p.entries_rebuilt,
            p.lines,
            p.policy_bytes,
        ];
        out += &numbers.map(|n| n.to_string()).join(",");
        out.push('\n');
    }
    out
}

pub(super) fn times_csv(s: &Study) -> String {
    let mut out = String::from("what,policy,case,batch_pages,ns_without,ns,ns_later\n");
    for p in &s.points {
        let (axis, x) = (p.setup.axis.name(), p.setup.x());
        out += &format!("unmap,{},{axis}={x},,,{:.1},{:.1}\n", p.policy, p.ns, p.later_ns);
    }
    for m in &s.maps {
        let MapTime { policy, sync, overlap_percent, batch_pages, .. } = m;
        for (what, a, b, later) in [
            ("map", m.map_ns, m.map_with_ns, m.map_later_ns),
            ("child-unmap", m.unmap_ns, m.unmap_with_ns, m.unmap_later_ns),
        ] {
            let case = format!("{sync} overlap={overlap_percent}");
            out += &format!("{what},{policy},{case},{batch_pages},{a:.1},{b:.1},{later:.1}\n");
        }
    }
    out
}
