//! What the guest's vCPUs spend their time on.

use ioasim_sim::results::timing::{TimingResult, VcpuTime};

use super::{Timed, most, rows};
use crate::error::Result;
use crate::figures::bars::{Bar, Bars, Panel};
use crate::figures::palette::Role;
use crate::figures::{DataTable, Figure, Size};
use crate::format::{percent, percent_sign, rate};
use crate::measure::ratio;

const ID: &str = "vcpu-time";

/// Groups of causes as they are drawn.
const KEY: [(&str, Role); 7] = [
    ("other work", Role::Part(0)),
    ("map and unmap calls", Role::Part(5)),
    ("preparing and writing invalidations", Role::Part(1)),
    ("waiting for locks", Role::Part(2)),
    ("exits to the VMM", Role::Part(4)),
    ("the VMM's work", Role::Part(3)),
    ("waiting for hardware", Role::Part(6)),
];

/// Times in the order of [`KEY`], in ns.
fn groups(v: &VcpuTime) -> [u64; 7] {
    [
        v.think_ns,
        v.map_ns.saturating_add(v.unmap_ns),
        v.prepare_ns.saturating_add(v.enqueue_ns),
        v.lock_ns.saturating_add(v.vmm_lock_ns),
        v.trap_ns,
        v.vmm_ns,
        v.hardware_ns,
    ]
}

fn total(t: &TimingResult) -> f64 {
    groups(&t.vcpus).iter().map(|n| *n as f64).sum()
}

/// The figure; `None` if no vCPU did anything.
pub(super) fn figure(runs: &[Timed<'_>]) -> Result<Option<Figure>> {
    let Some(worst) = most(runs, total).filter(|r| total(r.t) > 0.0) else { return Ok(None) };
    let panel = |title: &str, scale: &dyn Fn(&TimingResult) -> f64, max, unit: &str| Panel {
        title: title.into(),
        bars: runs
            .iter()
            .map(|r| {
                let by = scale(r.t);
                let parts = groups(&r.t.vcpus);
                let segments = parts.iter().zip(KEY).map(|(n, (_, role))| (*n as f64 * by, role));
                let all = total(r.t);
                let end = match unit {
                    "" => rate(Some(all * by)),
                    _ if all > 0.0 => String::new(),
                    _ => "none".into(),
                };
                Bar { segments: segments.collect(), end }
            })
            .collect(),
        max,
    };
    let share = |t: &TimingResult| if total(t) > 0.0 { 100.0 / total(t) } else { 0.0 };
    let used = |i: usize| runs.iter().any(|r| groups(&r.t.vcpus)[i] > 0);
    let figure = Bars {
        figure: ID,
        rows: rows(runs),
        panels: vec![
            panel("ms, all vCPUs together", &|_| 1e-6, None, ""),
            panel("share, %", &share, Some(100.0), "%"),
        ],
        key: (0..KEY.len()).filter(|i| used(*i)).map(|i| KEY[i]).collect(),
        columns: 2,
    };
    let groups_of = groups(&worst.t.vcpus);
    let largest = (0..KEY.len()).max_by_key(|i| groups_of[*i]).unwrap_or(0);
    let caption = format!(
        "{} costs the vCPUs {}{} ms; the largest part of that is {} ({}).",
        worst.name,
        if runs.len() > 1 { "most, " } else { "" },
        rate(Some(total(worst.t) / 1e6)),
        KEY[largest].0,
        percent_sign(Some(groups_of[largest] as f64 / total(worst.t))),
    );
    let columns = ["configuration", "vCPUs", "busy %", "ms"].map(String::from).into_iter();
    let columns = columns.chain(KEY.iter().map(|k| format!("{}, ms", k.0))).collect();
    let row = |r: &Timed<'_>| {
        let v = &r.t.vcpus;
        let start = [
            r.name.to_owned(),
            v.vcpus.to_string(),
            percent(Some(v.utilisation)),
            rate(Some(total(r.t) / 1e6)),
        ];
        start.into_iter().chain(groups(v).map(|n| rate(Some(n as f64 / 1e6)))).collect()
    };
    let waits = ratio(groups_of[3], total(worst.t) as u64);
    let mut note = String::from(
        "Time in which a vCPU maps, unmaps or invalidates, or waits for that to be done: it can \
         do nothing else then.",
    );
    if waits.is_some_and(|w| w > 0.1) {
        note.push_str(" Locks: that of the invalidation queue, and the VMM's own.");
    }
    Ok(Some(Figure {
        id: ID,
        title: "vCPU time by cause".into(),
        caption,
        note,
        wide: figure.svg(Size::Wide)?,
        narrow: figure.svg(Size::Narrow)?,
        table: DataTable { columns, rows: runs.iter().map(row).collect() },
        readout: None,
    }))
}
