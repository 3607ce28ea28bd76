//! One decode of a trace, many replays.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use anyhow::{Context, Result};
use ioasim_sim::config::Config;
use ioasim_sim::events::Chunk;
use ioasim_sim::replay::Replay;
use ioasim_sim::results::RunResult;
use ioasim_traces::file::TraceReader;
use rayon::prelude::*;

use crate::Interrupted;
use crate::progress::{Progress, interrupted};

/// Chunks that every replay gets at a time: enough that waiting for the
/// slowest at the end of each round costs little.
const ROUND: usize = 4;

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

/// Replays a trace under every configuration on `threads` threads (0 = one per
/// core). Results are in the order of `configs`, whatever the threads.
///
/// # Errors
/// A damaged trace, one with too many address spaces, Ctrl-C.
pub fn replay_all(
    reader: &TraceReader,
    configs: &[Config],
    verify: bool,
    threads: usize,
    quiet: bool,
) -> Result<Vec<RunResult>> {
    let info = reader.info();
    let mut replays: Vec<Replay> = configs.iter().map(|c| Replay::new(c, &info, verify)).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let mut progress = Progress::new(quiet, "replay", "events", info.events);
    std::thread::scope(|scope| -> Result<()> {
        // The trace is decoded on the reader's thread; this one only groups.
        let (send, rounds) = sync_channel::<Result<Vec<Arc<Chunk>>, _>>(1);
        scope.spawn(move || {
            let mut round = Vec::with_capacity(ROUND);
            for chunk in reader.chunks() {
                match chunk {
                    Ok(chunk) => round.push(chunk),
                    Err(e) => {
                        let _ = send.send(Err(e));
                        return;
                    }
                }
                if round.len() == ROUND
                    && send
                        .send(Ok(std::mem::replace(&mut round, Vec::with_capacity(ROUND))))
                        .is_err()
                {
                    return;
                }
            }
            let _ = send.send(Ok(round));
        });
        let mut done = 0;
        for round in rounds {
            let round = round?;
            if interrupted() {
                return Err(Interrupted.into());
            }
            pool.install(|| {
                replays
                    .par_iter_mut()
                    .with_max_len(1)
                    .try_for_each(|r| round.iter().try_for_each(|chunk| r.run(chunk)))
            })?;
            done += round.iter().map(|c| c.len() as u64).sum::<u64>();
            progress.at(done);
        }
        Ok(())
    })?;
    progress.finish();
    let mut runs: Vec<RunResult> =
        replays.into_iter().map(Replay::finish).collect::<Result<_, _>>()?;
    for run in &mut runs {
        tell_what_is_made_up(reader, run);
    }
    Ok(runs)
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
