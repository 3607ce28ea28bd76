//! One decode of a trace, many replays.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use ioasim_sim::config::Config;
use ioasim_sim::events::Chunk;
use ioasim_sim::replay::{Replay, ReplayError};
use ioasim_sim::results::RunResult;
use ioasim_sim::results::records::{Records, Watch};
use ioasim_traces::file::TraceReader;

use crate::Interrupted;
use crate::fan_out::FanOut;
use crate::progress::{Progress, interrupted};

/// Opens a trace; `sample` is the embedded one.
///
/// # Errors
/// The reader's.
pub fn open(path: Option<&Path>) -> Result<TraceReader> {
    match path {
        Some(path) if path != Path::new("sample") || path.exists() => Ok(TraceReader::open(path)?),
        _ => TraceReader::from_bytes(ioasim_traces::sample()).context("the embedded sample"),
    }
}

/// What a replay gives: its result, and the records that were asked for.
pub type Watched = (RunResult, Option<Records>);

/// Replays a trace under every configuration on `threads` threads (0 = one per
/// core). Results are in the order of `configs`, whatever the threads.
///
/// # Errors
/// A damaged trace, one with too many address spaces, Ctrl-C.
pub fn replay_all(
    reader: &TraceReader,
    configs: &[Config],
    verify: bool,
    watch: &Watch,
    threads: usize,
    quiet: bool,
) -> Result<Vec<Watched>> {
    let info = reader.info();
    let replays = FanOut::new(configs.iter().map(|c| Replay::watched(c, &info, verify, watch)));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { cores } else { threads }.clamp(1, configs.len().max(1));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let mut progress = Progress::new(quiet, "replay", "events", info.events);
    // The trace is decoded on the reader's thread; this one hands it out.
    pool.in_place_scope(|scope| -> Result<()> {
        for _ in 0..threads {
            scope.spawn(|_| {
                replays.work(|replay: &mut Replay, chunk: &Arc<Chunk>| replay.run(chunk))
            });
        }
        let fed = feed(reader, &replays, &mut progress);
        replays.end();
        fed
    })?;
    progress.finish();
    let replays = replays.finish()?;
    let mut runs: Vec<Watched> =
        replays.into_iter().map(Replay::finish_watched).collect::<Result<_, _>>()?;
    for (run, _) in &mut runs {
        tell_what_is_made_up(reader, run);
    }
    Ok(runs)
}

/// Hands the trace's chunks to all replays, until one fails.
fn feed(
    reader: &TraceReader,
    replays: &FanOut<Replay, Arc<Chunk>, ReplayError>,
    progress: &mut Progress,
) -> Result<()> {
    let mut done = 0;
    for chunk in reader.chunks() {
        let chunk = chunk?;
        if interrupted() {
            return Err(Interrupted.into());
        }
        done += chunk.len() as u64;
        if !replays.push(chunk) {
            break;
        }
        progress.at(done);
    }
    Ok(())
}

/// The replay takes a parent table in the trace for a recorded one; the trace
/// knows better.
fn tell_what_is_made_up(reader: &TraceReader, run: &mut RunResult) {
    let made_up = &reader.meta().synthetic;
    if made_up.is_empty() {
        return;
    }
    let layout = made_up.iter().find_map(|s| s.parent_layout.as_deref()).unwrap_or("recorded");
    let names: Vec<&str> = made_up.iter().map(|s| s.workload.as_str()).collect();
    run.provenance.parent_recorded = false;
    run.provenance.parent_layout = format!("{layout}, changed by workload {}", names.join(", "));
}
