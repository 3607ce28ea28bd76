//! The result document of a run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result};
use ioasim_reports::{Document, Marker, Source, TraceSection, Version};
use ioasim_sim::results::RunResult;
use ioasim_traces::file::TraceReader;
use sha2::{Digest, Sha256};

/// ioasim's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A trace's name, and the checksum of its bytes, which another thread works
/// out while the trace is replayed.
pub struct Checksum {
    /// `None` is the embedded sample.
    path: Option<PathBuf>,
    hash: JoinHandle<Result<String>>,
    /// Set once somebody waits for it.
    wanted: Arc<AtomicBool>,
}

impl Checksum {
    /// Starts on the trace that [`drive::open`](crate::drive::open) opens.
    pub fn start(trace: Option<&Path>) -> Checksum {
        let is_file = |path: &&Path| *path != Path::new("sample") || path.exists();
        let path = trace.filter(is_file).map(PathBuf::from);
        let file = path.clone();
        let wanted = Arc::new(AtomicBool::new(false));
        let hurry = Arc::clone(&wanted);
        let hash = std::thread::spawn(move || match file {
            Some(file) => hash(&file, &hurry),
            None => Ok(hex(Sha256::digest(ioasim_traces::sample()).as_slice())),
        });
        Checksum { path, hash, wanted }
    }

    /// The trace's name and checksum.
    fn finish(self) -> Result<(String, String)> {
        self.wanted.store(true, Ordering::Relaxed);
        let name = self.path.map_or("embedded sample".into(), |p| p.display().to_string());
        match self.hash.join() {
            Ok(sha256) => Ok((name, sha256?)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Puts runs and facts about their trace together.
///
/// # Errors
/// The trace file cannot be read again for its checksum.
pub fn assemble(
    reader: &TraceReader,
    checksum: Checksum,
    runs: Vec<RunResult>,
) -> Result<Document> {
    Ok(Document::new(version(), trace_section(reader, checksum)?, runs))
}

/// This program.
pub fn version() -> Version {
    Version { ioasim: VERSION.into(), git: option_env!("IOASIM_GIT").map(Into::into) }
}

/// Facts about a trace.
///
/// # Errors
/// The trace file cannot be read again for its checksum.
pub fn trace_section(reader: &TraceReader, checksum: Checksum) -> Result<TraceSection> {
    let meta = reader.meta();
    let totals = &meta.totals;
    let json = serde_json::to_value(meta)?;
    let word = |key: &str| json[key].as_str().unwrap_or_default().to_string();
    let pick = |names: &[(&str, &str)]| -> BTreeMap<String, u64> {
        let found = |(from, to): &(&str, &str)| {
            let n = meta.import_counts.get(*from)?;
            Some((to.to_string(), *n))
        };
        names.iter().filter_map(found).collect()
    };
    let mut recorded = pick(&[("labels", "labels"), ("outputs", "outputs")]);
    let shadow_ops = ["shadow_map", "shadow_unmap"].iter().filter_map(|k| totals.kinds.get(*k));
    let shadow_ops: u64 = shadow_ops.sum();
    if shadow_ops > 0 {
        recorded.insert("shadow_ops".into(), shadow_ops);
    }
    let (path, sha256) = checksum.finish()?;
    Ok(TraceSection {
        path,
        sha256,
        events: totals.events,
        end_ns: totals.end_ns,
        counts: totals.kinds.clone(),
        output_space: word("output_space"),
        caching_mode: word("caching_mode"),
        sources: meta
            .sources
            .iter()
            .map(|s| Source {
                role: s.role.clone(),
                path: s.path.clone(),
                bytes: s.bytes,
                sha256: s.sha256.clone(),
            })
            .collect(),
        importer: meta.importer.clone(),
        importer_counts: meta.import_counts.clone(),
        notes: meta.notes.clone(),
        markers: totals
            .markers
            .iter()
            .map(|m| Marker { time_ns: m.time_ns, text: m.text.clone() })
            .collect(),
        recorded,
        inferred: pick(&[
            ("maps_inferred", "maps"),
            ("unmaps_inferred", "unmaps"),
            ("attaches", "attachments"),
            ("table_changes_by_adjacency", "domains of maps and unmaps, by adjacency"),
        ]),
    })
}

/// A file's checksum. It is not wanted before the replay ends, which takes
/// longer: until then most of the core is left to the decoder and the replays.
fn hash(path: &Path, wanted: &AtomicBool) -> Result<String> {
    const SHARE: u32 = 4;
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let mut sha = Sha256::new();
    let mut block = vec![0; 256 << 10];
    loop {
        let start = Instant::now();
        let n = file.read(&mut block).with_context(|| path.display().to_string())?;
        if n == 0 {
            return Ok(hex(sha.finalize().as_slice()));
        }
        sha.update(&block[..n]);
        if !wanted.load(Ordering::Relaxed) {
            std::thread::sleep(start.elapsed() * (SHARE - 1));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
