//! Latencies for the HdrHistogram tools.
//!
//! Per configuration a folder with
//!
//! * `NAME.hgrm` per kind of latency: percentiles as text, as the HdrHistogram
//!   plotters read them;
//! * `latency.hlog`: an interval log (format 1.3, V2 compressed histograms) of
//!   simulated time, one tag per kind, as HistogramLogProcessor and the
//!   `hdrhistogram` crate read it.
//!
//! Values are nanoseconds, timestamps seconds of simulated time; the files say
//! so.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};
use ioasim_sim::results::records::{LATENCY_KINDS, LatencyLog};

use crate::error::{Error, Result};
use crate::format::clean;
use crate::write::write_texts;

/// Lines per halving of the distance to 100 %, as the Java tools have them.
const TICKS: u32 = 5;

/// Writes the histograms of runs, by name of their configuration; returns the
/// files. Each configuration's files appear together or not at all.
///
/// # Errors
///
/// The folder cannot be made or written to, or the disk is full.
pub fn write_histograms(dir: &Path, runs: &[(&str, &LatencyLog)]) -> Result<Vec<PathBuf>> {
    let mut texts = Vec::new();
    for (folder, (name, log)) in folders(runs.iter().map(|r| r.0)).into_iter().zip(runs) {
        let name = clean(name);
        let mut of_run = vec![("latency.hlog".to_owned(), interval_log(&name, log)?)];
        for (i, kind) in LATENCY_KINDS.iter().enumerate() {
            let total = log.total(i);
            if !total.is_empty() {
                let title = format!("{} under {name}", kind.meaning);
                of_run.push((format!("{}.hgrm", kind.name), percentiles(&title, &total)));
            }
        }
        texts.push((folder, of_run));
    }
    let mut files = Vec::new();
    for (folder, of_run) in &texts {
        files.extend(write_texts(&dir.join(folder), of_run)?.files);
    }
    Ok(files)
}

/// Names of folders: what cannot stand in one is replaced, and names that are
/// then equal are numbered.
fn folders<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for name in names {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let mut folder: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
        if folder.trim_matches('.').is_empty() {
            folder = "run".into();
        }
        let mut unique = folder.clone();
        for n in 2.. {
            if !out.contains(&unique) {
                break;
            }
            unique = format!("{folder}-{n}");
        }
        out.push(unique);
    }
    out
}

const SIMULATED: &str = "simulated from the constants of time.*, not recorded";

/// The percentile text of a histogram.
fn percentiles(title: &str, h: &Histogram<u64>) -> String {
    let mut text = format!("# {title}; values in ns, {SIMULATED}\n");
    text.push_str("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut count = 0;
    for step in h.iter_quantiles(TICKS) {
        count += step.count_since_last_iteration();
        let (value, at) = (step.value_iterated_to(), step.quantile_iterated_to());
        let _ = write!(text, "{:12.3} {at:14.12} {count:10}", value as f64);
        // The last line has no inverse: it would be infinite.
        if at < 1.0 {
            let _ = write!(text, " {:14.2}", 1.0 / (1.0 - at));
        }
        text.push('\n');
    }
    let _ = write!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
         #[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]\n",
        h.mean(),
        h.stdev(),
        h.max() as f64,
        h.len(),
        h.buckets(),
        2048,
    );
    text
}

/// The interval log of a run.
///
/// The `hdrhistogram` crate's own writer rounds timestamps to milliseconds,
/// and a whole simulated run may be shorter than that, so the lines are made
/// here; readers take any number of decimals.
fn interval_log(name: &str, log: &LatencyLog) -> Result<String> {
    let mut text = format!(
        "#[Latencies under {name}, {SIMULATED}]\n\
         #[Histogram log format version 1.3]\n\
         #[Values and Interval_Max: ns. Timestamps: seconds of simulated time]\n\
         #[StartTime: {:.9} (seconds since epoch), the start of the simulated run]\n\
         #[BaseTime: 0.000 (seconds since epoch)]\n\
         \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
        log.start.seconds(),
    );
    let intervals = log.kinds.iter().map(Vec::len).max().unwrap_or(0);
    let (mut serializer, mut bytes) = (V2DeflateSerializer::new(), Vec::new());
    for i in 0..intervals {
        for (kind, histograms) in LATENCY_KINDS.iter().zip(&log.kinds) {
            let Some(Some(h)) = histograms.get(i) else { continue };
            bytes.clear();
            serializer.serialize(h, &mut bytes).map_err(|e| Error::Histogram(e.to_string()))?;
            let start = log.start + log.interval.times(i as u64);
            let _ = writeln!(
                text,
                "Tag={},{:.9},{:.9},{:.3},{}",
                kind.name,
                start.seconds(),
                log.interval.seconds(),
                h.max() as f64,
                STANDARD.encode(&bytes),
            );
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_safe_and_distinct() {
        let names = ["hw-nested", "a/b", "a_b", "..", "", "a b", "ü"];
        let expected = ["hw-nested", "a_b", "a_b-2", "run", "run-2", "a_b-3", "_"];
        assert_eq!(folders(names.into_iter()), expected);
    }

    #[test]
    fn percentile_lines_reach_all_values() {
        let mut h = Histogram::new(3).unwrap();
        for v in 1..=1000u64 {
            h.record(v).unwrap();
        }
        let text = percentiles("t", &h);
        let lines: Vec<Vec<f64>> = text
            .lines()
            .skip(3)
            .filter(|l| !l.starts_with('#'))
            .map(|l| l.split_whitespace().map(|w| w.parse().unwrap()).collect())
            .collect();
        assert_eq!(lines[0][..3], [1.0, 0.0, 1.0]);
        assert_eq!(lines.last().unwrap()[..], [1000.0, 1.0, 1000.0]);
        for pair in lines.windows(2) {
            assert!(pair[0][1] <= pair[1][1] && pair[0][2] <= pair[1][2]);
        }
        for l in &lines {
            // So many are at or below the value.
            assert_eq!(l[2], l[0], "{l:?}");
            assert!(l[2] >= (1000.0 * l[1]).floor(), "{l:?}");
        }
        assert!(
            text.contains("#[Max     =     1000.000, Total count    =         1000]"),
            "{text}"
        );
    }
}
