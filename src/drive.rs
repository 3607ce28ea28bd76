//! One decode of a trace, many replays.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ioasim_sim::config::Config;
use ioasim_sim::events::Chunk;
use ioasim_sim::replay::Replay;
use ioasim_sim::results::RunResult;
use ioasim_sim::results::records::{Records, Watch};
use ioasim_traces::file::{ChunkDecoder, TraceReader};

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

/// Threads that have something to do: `threads` (0 = one per core), at most one
/// for each configuration and one that decodes.
pub fn threads_for(configs: usize, threads: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if threads == 0 { cores } else { threads };
    threads.min(configs + 1)
}

/// Replays a trace under every configuration, and decodes it, on
/// [`threads_for`] threads. Results are in the order of `configs`, whatever the
/// threads; beside them is the file's SHA-256.
///
/// # Errors
/// A damaged trace, one with too many address spaces, a warm-up as long as the
/// trace, Ctrl-C.
pub fn replay_all(
    reader: &TraceReader,
    configs: &[Config],
    verify: bool,
    watch: &Watch,
    threads: usize,
    quiet: bool,
) -> Result<(Vec<Watched>, String)> {
    let info = reader.info();
    for config in configs.iter().filter(|c| c.time.enabled) {
        let warm_up = config.time.warm_up_events;
        ensure!(
            warm_up == 0 || warm_up < info.events,
            "configuration `{}`: a warm-up of {warm_up} events leaves nothing of a trace of {}; \
             choose a smaller --warm-up (time.warm_up_events)",
            config.name,
            info.events
        );
    }
    let progress = Progress::new(quiet, "replay", "events", info.events);
    let feed = Feed { decoder: reader.decoder().summing(), done: 0, progress };
    let replays = configs.iter().map(|c| Replay::watched(c, &info, verify, watch));
    let all = FanOut::new(feed, replays);
    let threads = threads_for(configs.len(), threads);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    pool.broadcast(|_| {
        all.work(threads, Feed::next, |replay: &mut Replay, chunk: &Arc<Chunk>| {
            replay.run(chunk).map_err(Into::into)
        });
    });
    let (feed, replays) = all.finish()?;
    feed.progress.finish();
    let mut runs: Vec<Watched> =
        replays.into_iter().map(Replay::finish_watched).collect::<Result<_, _>>()?;
    for (run, _) in &mut runs {
        tell_what_is_made_up(reader, run);
    }
    Ok((runs, feed.decoder.sha256()?))
}

/// The trace's chunks, until Ctrl-C.
struct Feed {
    decoder: ChunkDecoder,
    done: u64,
    progress: Progress,
}

impl Feed {
    fn next(&mut self) -> Result<Option<Arc<Chunk>>> {
        if interrupted() {
            return Err(Interrupted.into());
        }
        let chunk = self.decoder.next().transpose()?;
        if let Some(chunk) = &chunk {
            self.done += chunk.len() as u64;
            self.progress.at(self.done);
        }
        Ok(chunk)
    }
}

/// The replay takes a parent table in the trace for a recorded one; the trace
/// knows better.
fn tell_what_is_made_up(reader: &TraceReader, run: &mut RunResult) {
    let made_up = &reader.meta().synthetic;
    // Without a parent in the trace the configuration's layout is what it is.
    if made_up.is_empty() || !run.provenance.parent_recorded {
        return;
    }
    let names: Vec<&str> = made_up.iter().map(|s| s.workload.as_str()).collect();
    let names = names.join(", ");
    let layout = made_up.iter().find_map(|s| s.parent_layout.as_deref());
    run.provenance.parent_recorded = false;
    run.provenance.parent_layout = match layout {
        Some(layout) => format!("{layout}, changed by workload {names}"),
        None if made_up.iter().any(|s| s.guest) => format!("made up by workload {names}"),
        None => format!("recorded, changed by workload {names}"),
    };
}
