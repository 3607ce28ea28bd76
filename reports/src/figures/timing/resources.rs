//! How busy the shared resources are, and how many wait for them.

use ioasim_sim::results::timing::TimingResult;

use super::{Timed, rows};
use crate::error::Result;
use crate::figures::bars::{Bar, Bars, Panel};
use crate::figures::palette::Role;
use crate::figures::{DataTable, Figure, Size};
use crate::format::{percent, percent_sign, rate, short_count, thousands};

const ID: &str = "resources";

/// Use of something, for a bar.
struct Use {
    /// 0 to 1; `None` = no limit.
    busy: Option<f64>,
    /// Mean and most waiting, where there is a queue.
    queue: Option<(f64, u64)>,
}

type Pick = fn(&TimingResult) -> Option<Use>;

fn station(t: &TimingResult, name: &str) -> Option<Use> {
    let r = t.resources.iter().find(|r| r.name == name)?;
    let busy = (r.servers > 0).then_some(r.utilisation);
    Some(Use { busy, queue: Some((r.queue_mean, r.queue_max)) })
}

/// What is drawn: name in sentences, title, and its use.
const RESOURCES: [(&str, &str, Pick); 6] = [
    ("the vCPUs are", "vCPUs", |t| {
        (t.vcpus.vcpus > 0).then_some(Use { busy: Some(t.vcpus.utilisation), queue: None })
    }),
    ("the invalidation queue is", "invalidation queue", |t| station(t, "invalidation-queue")),
    ("the VMM is", "VMM", |t| station(t, "vmm")),
    ("the page-table walkers are", "page-table walkers", |t| station(t, "walkers")),
    ("memory, as the walkers see it, is", "memory for walkers", |t| station(t, "memory")),
    ("a device's link is", "busiest device link", |t| {
        let busy = t.devices.iter().map(|d| d.link_utilisation).reduce(f64::max)?;
        Some(Use { busy: Some(busy), queue: None })
    }),
];

/// The figure; `None` if nothing was used.
pub(super) fn figure(runs: &[Timed<'_>]) -> Result<Option<Figure>> {
    let used: Vec<_> =
        RESOURCES.iter().filter(|(_, _, pick)| runs.iter().any(|r| pick(r.t).is_some())).collect();
    let panels = used.iter().map(|(_, title, pick)| Panel {
        title: (*title).into(),
        bars: runs
            .iter()
            .map(|r| {
                let Some(u) = pick(r.t) else {
                    return Bar { segments: Vec::new(), end: "unused".into() };
                };
                let busy = 100.0 * u.busy.unwrap_or(0.0);
                let mut end = u.busy.map_or("no limit".into(), |b| percent(Some(b)));
                if let Some((mean, most)) = u.queue {
                    end += &format!(" · {} / {}", rate(Some(mean)), short_count(most));
                }
                Bar { segments: vec![(busy, Role::Run(r.slot))], end }
            })
            .collect(),
        max: Some(100.0),
    });
    let figure = Bars {
        figure: ID,
        rows: rows(runs),
        panels: panels.collect(),
        key: Vec::new(),
        columns: 2,
    };
    let mut table = Vec::new();
    for r in runs {
        for u in &r.t.resources {
            let limited = u.servers > 0;
            table.push(vec![
                format!("{}, {}", r.name, u.name),
                if limited { thousands(u.servers) } else { "no limit".into() },
                if limited { percent(Some(u.utilisation)) } else { "-".into() },
                rate(Some(u.busy_mean)),
                rate(Some(u.queue_mean)),
                thousands(u.queue_max),
                thousands(u.arrivals),
                thousands(u.waited),
                rate(Some(u.wait_mean_ns)),
            ]);
        }
    }
    let columns = [
        "configuration, resource",
        "servers",
        "busy, %",
        "in service",
        "waiting",
        "at most",
        "jobs",
        "of these waited",
        "mean wait, ns",
    ];
    Ok(Some(Figure {
        id: ID,
        title: "Use of resources, % of the run's time".into(),
        caption: caption(runs),
        note: "At the end of a bar: use in %, and where there is a queue the mean / the largest \
               number that wait in it: vCPUs for the invalidation queue and the VMM, accesses for \
               the walkers."
            .into(),
        wide: figure.svg(Size::Wide)?,
        narrow: figure.svg(Size::Narrow)?,
        table: DataTable { columns: columns.map(String::from).to_vec(), rows: table },
        readout: None,
    }))
}

/// What is busiest anywhere.
fn caption(runs: &[Timed<'_>]) -> String {
    let uses = runs.iter().flat_map(|r| {
        RESOURCES.iter().filter_map(move |(what, _, pick)| Some((pick(r.t)?.busy?, *what, r.name)))
    });
    match uses.reduce(|a, b| if b.0 > a.0 { b } else { a }) {
        Some((busy, what, name)) => format!(
            "Of all resources {what} busiest: {} of the time under {name}.",
            percent_sign(Some(busy))
        ),
        None => "No shared resource was used.".into(),
    }
}
