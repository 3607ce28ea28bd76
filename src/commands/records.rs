//! Records of simulated time: histograms and timelines.

use anyhow::Result;
use ioasim_sim::config::{Config, LoopMode, Nesting};
use ioasim_sim::results::records::{Records, Timeline, Watch};

use crate::cli::{Histograms, TimelineArgs, WHOLE};
use crate::{Usage, configs, timeline};

/// What the replays are to keep.
///
/// # Errors
/// [`Usage`] if records of time are asked for and no time is simulated.
pub fn watch(
    configs: &[Config],
    histograms: &Histograms,
    timeline: Option<&TimelineArgs>,
) -> Result<Watch> {
    let timeline = timeline.filter(|t| t.timeline.is_some());
    let watch = Watch {
        latencies: histograms.histograms.is_some(),
        timeline: timeline.map(|t| t.window.unwrap_or(WHOLE)),
    };
    if watch.wants_something()
        && let Some(config) = configs.iter().find(|c| !c.time.enabled)
    {
        let option = if watch.latencies { "--histograms" } else { "--timeline" };
        return Err(configs::needs_time(option, config));
    }
    Ok(watch)
}

/// Writes the histograms that were asked for; returns what to say about it.
///
/// # Errors
/// The folder cannot be written to.
pub fn write_histograms(
    args: &Histograms,
    configs: &[Config],
    kept: &[Option<Records>],
) -> Result<String> {
    let Some(dir) = &args.histograms else { return Ok(String::new()) };
    let logs = configs.iter().zip(kept).filter_map(|(config, records)| {
        Some((config.name.as_str(), records.as_ref()?.latencies.as_ref()?))
    });
    let logs: Vec<_> = logs.collect();
    let files = ioasim_reports::write_histograms(dir, &logs)?;
    Ok(format!("\nHistograms: {} files in {}\n", files.len(), dir.display()))
}

/// Writes the timeline that was asked for; returns what to say about it.
///
/// # Errors
/// [`Usage`] if there is too much or nothing to show; the file cannot be
/// written.
pub fn write_timeline(
    args: &TimelineArgs,
    config: &Config,
    kept: Vec<Option<Records>>,
) -> Result<String> {
    let Some(path) = &args.timeline else { return Ok(String::new()) };
    let kept = kept.into_iter().flatten().find_map(|r| r.timeline);
    let Some(kept) = kept else { return Ok(String::new()) };
    let Some((from, to)) = kept.extent() else {
        let what = "nothing happens in the timeline's --window; choose another";
        return Err(Usage(what.into()).into());
    };
    if kept.left_out > 0 {
        let what = format!(
            "{} operations are too many for a timeline (at most {}); choose a part of the run, \
             for example --window {}us..{}us",
            kept.spans() as u64 + kept.left_out,
            Timeline::MOST_SPANS,
            from.ns() / 1000,
            // What was kept ended first; what overlaps its last part is not all there.
            (from.0 + to.since(from).0 / 4 * 3) / 1_000_000,
        );
        return Err(Usage(what).into());
    }
    let mode = match config.time.mode {
        LoopMode::OpenLoop => "open loop",
        LoopMode::ClosedLoop => "closed loop",
    };
    let untranslated = if config.nesting == Nesting::None { ", no vIOMMU" } else { "" };
    let what = format!("simulated, not recorded ({}{untranslated}, {mode})", config.name);
    let bytes = timeline::write(path, &kept, &what)?;
    Ok(format!(
        "\nTimeline: {} operations, {:.3} to {:.3} us of simulated time; {} ({} KiB, open it at \
         ui.perfetto.dev)\n",
        kept.spans(),
        from.0 as f64 / 1e6,
        to.0 as f64 / 1e6,
        path.display(),
        bytes.div_ceil(1024),
    ))
}
