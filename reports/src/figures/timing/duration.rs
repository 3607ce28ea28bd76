//! How long the trace's work takes.

use super::{Timed, least, most, rows};
use crate::error::Result;
use crate::figures::bars::{Bar, Bars, Panel};
use crate::figures::palette::Role;
use crate::figures::{DataTable, Figure, Size};
use crate::format::{factor, rate};

const ID: &str = "time-duration";

pub(super) fn figure(runs: &[Timed<'_>]) -> Result<Option<Figure>> {
    let panel = |title: &str, of: &dyn Fn(&Timed<'_>) -> f64| Panel {
        title: title.into(),
        bars: runs
            .iter()
            .map(|r| Bar { segments: vec![(of(r), Role::Run(r.slot))], end: rate(Some(of(r))) })
            .collect(),
        max: None,
    };
    let figure = Bars {
        figure: ID,
        rows: rows(runs),
        panels: vec![
            panel("duration of the trace's work, ms", &|r| r.t.elapsed_ns as f64 / 1e6),
            panel("mean latency of an access, ns", &|r| r.t.latency.dma.mean_ns),
        ],
        key: Vec::new(),
        columns: 2,
    };
    let elapsed = |t: &ioasim_sim::results::timing::TimingResult| t.elapsed_ns as f64;
    let caption = match (least(runs, elapsed), most(runs, elapsed)) {
        (Some(fast), Some(slow)) if fast.t.elapsed_ns > 0 && runs.len() > 1 => format!(
            "{} takes {} ms, {} ms, {} times as long.",
            fast.name,
            rate(Some(elapsed(fast.t) / 1e6)),
            format_args!("{} {}", slow.name, rate(Some(elapsed(slow.t) / 1e6))),
            factor(elapsed(slow.t) / elapsed(fast.t)),
        ),
        (Some(one), _) => {
            format!(
                "The trace's work, without a warm-up, takes {} ms.",
                rate(Some(elapsed(one.t) / 1e6))
            )
        }
        _ => String::new(),
    };
    let open = runs.iter().any(|r| r.t.mode == "open-loop");
    let note = if open {
        "Open loop: nothing happens before its recorded time (times time.scale), so a duration is \
         at least that of the recording. Each panel has its own scale."
    } else {
        "Closed loop: every event happens as soon as what it depends on is done, so a duration is \
         the least that the mappings allow; recorded pauses are left out. Each panel has its own \
         scale."
    };
    let cells = |r: &Timed<'_>| {
        vec![
            r.name.to_owned(),
            rate(Some(elapsed(r.t) / 1e6)),
            rate(Some(r.t.requests_per_second / 1e3)),
            rate(Some(r.t.gbps)),
            rate(Some(r.t.latency.dma.mean_ns)),
        ]
    };
    Ok(Some(Figure {
        id: ID,
        title: "Simulated duration, and latency of accesses".into(),
        caption,
        note: note.into(),
        wide: figure.svg(Size::Wide)?,
        narrow: figure.svg(Size::Narrow)?,
        table: DataTable {
            columns: ["configuration", "ms", "k DMA/s", "Gb/s of payload", "mean DMA ns"]
                .map(String::from)
                .to_vec(),
            rows: runs.iter().map(cells).collect(),
        },
        readout: None,
    }))
}
