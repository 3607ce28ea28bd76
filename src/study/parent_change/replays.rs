//! Replays of overlaid traces under every policy.

use std::path::PathBuf;

use anyhow::Result;
use ioasim_reports::study::{ReplayRow, Study};
use ioasim_sim::config::{Config, Layer, resolve};
use ioasim_sim::parent_change::Kind;
use ioasim_sim::replay::Replay;
use ioasim_traces::file::TraceReader;
use ioasim_traces::generate::{Control, Options as Overlay, Rate, Workload, overlay_to_file};

use super::Options;
use super::measure::cpu_ns;
use crate::progress::{interrupt_flag, interrupted};
use crate::{Interrupted, drive};

/// Accesses after which a parent change happens (A: often enough to matter).
const EVERY: u64 = 200;
/// Parent events of one overlay: bounds the time of policies that rebuild all.
const MOST_CHANGES: u64 = 2_000;
const SOFTWARE: &str = "sw-nested-invalidate";

/// Traces, overlays and configurations.
pub struct Plan {
    traces: Vec<(String, TraceReader)>,
    workloads: Vec<Workload>,
    configs: Vec<(String, Config)>,
    omitted: Vec<String>,
}

/// The name of a trace without its folder.
fn name(path: Option<&PathBuf>) -> String {
    let file = path.and_then(|p| p.file_stem());
    file.map_or("embedded sample".into(), |n| n.to_string_lossy().into_owned())
}

/// What will be replayed.
///
/// # Errors
/// A trace that cannot be opened.
pub fn plan(options: &Options) -> Result<Plan> {
    let mut traces = vec![(name(None), drive::open(None)?)];
    for path in &options.traces {
        traces.push((name(Some(path)), drive::open(Some(path))?));
    }
    let workloads = match options.quick {
        true => vec![Workload::Balloon, Workload::PageMigration],
        false => Workload::ALL.to_vec(),
    };
    let (mut configs, mut omitted) = (Vec::new(), Vec::new());
    for kind in Kind::ALL {
        let setting = format!("parent.change={}", kind.name());
        match resolve(&Layer::Preset(SOFTWARE.into()), &[setting]) {
            Ok(config) => configs.push((kind.name().to_string(), config)),
            Err(e) => omitted.push(format!("Replays under {}: {e}", kind.name())),
        }
    }
    configs.push(("hardware".into(), resolve(&Layer::Preset("hw-nested".into()), &[])?));
    Ok(Plan { traces, workloads, configs, omitted })
}

impl Plan {
    /// Events that will be replayed, about.
    pub fn work(&self) -> u64 {
        let events: u64 = self.traces.iter().map(|(_, t)| t.info().events).sum();
        events * (self.workloads.len() * self.configs.len()) as u64
    }

    /// Overlays and replays.
    ///
    /// # Errors
    /// A damaged trace, a full disk, Ctrl-C.
    pub fn run(self, study: &mut Study, done: &mut dyn FnMut(u64)) -> Result<()> {
        study.omitted.extend(self.omitted.iter().cloned());
        let folder = tempfile::tempdir()?;
        for (trace, reader) in &self.traces {
            for workload in &self.workloads {
                let overlay = Overlay {
                    rate: Rate::EveryDma(EVERY),
                    max_changes: MOST_CHANGES,
                    in_use: true,
                    ..Overlay::new(*workload)
                };
                let path = folder.path().join("overlay.parquet");
                let mut control = Control { progress: None, cancel: Some(interrupt_flag()) };
                if let Err(e) = overlay_to_file(reader, &path, &overlay, &mut control) {
                    if interrupted() {
                        return Err(Interrupted.into());
                    }
                    study.omitted.push(format!("{} over {trace}: {e}", workload.name()));
                    continue;
                }
                let overlaid = TraceReader::open(&path)?;
                for (policy, config) in &self.configs {
                    let row = replay(&overlaid, config)?;
                    let (trace, workload) = (trace.clone(), workload.name().into());
                    study.replays.push(ReplayRow {
                        trace,
                        workload,
                        policy: policy.clone(),
                        ..row
                    });
                    done(reader.info().events);
                }
            }
        }
        Ok(())
    }
}

fn replay(reader: &TraceReader, config: &Config) -> Result<ReplayRow> {
    let mut replay = Replay::new(config, &reader.info(), false);
    let mut ns = 0.0;
    for chunk in reader.chunks() {
        if interrupted() {
            return Err(Interrupted.into());
        }
        let chunk = chunk?;
        let start = cpu_ns();
        replay.run(&chunk)?;
        ns += cpu_ns() - start;
    }
    let counters = replay.finish()?.counters;
    let p = &counters.parent;
    Ok(ReplayRow {
        trace: String::new(),
        workload: String::new(),
        policy: String::new(),
        changes: p.changes,
        entries_examined: p.entries_examined,
        entries_changed: p.entries_changed,
        entries_rebuilt: p.entries_rebuilt,
        host_pte_writes: p.host_pte_writes,
        resident_entries_peak: counters.shadow.resident_entries_peak,
        policy_bytes_peak: p.policy_bytes_peak,
        hardware_invalidations: p.hardware_invalidations,
        iotlb_lookups: counters.iotlb.lookups,
        iotlb_hits: counters.iotlb.hits,
        faults: counters.dma.faults,
        lazy_fills: p.lazy_fills,
        ns,
    })
}
