//! The document: one trace and the results of its runs.

use std::collections::BTreeMap;

use ioasim_sim::results::RunResult;
use serde::{Deserialize, Serialize};

/// Value of a document's `schema` key.
pub const SCHEMA: &str = "ioasim.result/1";

/// One trace and everything that was measured with it: a `result.json`.
///
/// It holds no dates and no host names, so that the same input gives the same
/// bytes. Within one schema version keys are added, never renamed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// Always [`SCHEMA`] in documents that this version writes.
    pub schema: String,
    /// The program that wrote it.
    pub version: Version,
    /// The trace that was replayed.
    pub trace: TraceSection,
    /// One result per configuration, in the order given by the user.
    pub runs: Vec<RunResult>,
}

impl Document {
    /// A document of this version's schema.
    pub fn new(version: Version, trace: TraceSection, runs: Vec<RunResult>) -> Document {
        Document { schema: SCHEMA.to_owned(), version, trace, runs }
    }
}

/// The program's version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Version of ioasim, for example `0.1.0`.
    pub ioasim: String,
    /// Git revision that it was built from, if known at build time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<String>,
}

/// Facts about the trace, and where it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSection {
    /// Path as the user gave it.
    pub path: String,
    /// SHA-256 of the trace file, lower-case hexadecimal.
    pub sha256: String,
    /// Number of events.
    pub events: u64,
    /// Time of the last event in ns (the first is at 0).
    pub end_ns: u64,
    /// Events of each kind that occurs, by the kind's name (`dma`, `map`, ...).
    pub counts: BTreeMap<String, u64>,
    /// Address space of the recorded outputs: `gpa` or `hpa`.
    pub output_space: String,
    /// Caching mode of the recorded guest: `on`, `off` or `unknown`.
    pub caching_mode: String,
    /// The files that the trace was made from.
    pub sources: Vec<Source>,
    /// Name of the importer or generator.
    pub importer: String,
    /// What the importer counted, units in the names.
    pub importer_counts: BTreeMap<String, u64>,
    /// Remarks for people, one sentence each.
    pub notes: Vec<String>,
    /// Named points of the recording.
    pub markers: Vec<Marker>,
    /// Events that carry recorded truth beyond their addresses, by what it is:
    /// `outputs` (DMA with its recorded output address), `labels` (DMA with
    /// its recorded IOTLB hit or miss), `shadow_ops` (recorded shadow maps and
    /// unmaps), ...
    #[serde(default)]
    pub recorded: BTreeMap<String, u64>,
    /// Events that stand in no recording and were inferred by the importer, by
    /// kind: `maps` (from DMA outputs), `unmaps`, `attachments`, ...
    #[serde(default)]
    pub inferred: BTreeMap<String, u64>,
    /// What of the trace was made up; nothing if only recordings made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_up: Option<MadeUp>,
}

impl TraceSection {
    /// Nothing of it was recorded.
    pub fn all_made_up(&self) -> bool {
        self.made_up.as_ref().is_some_and(|m| m.all)
    }
}

/// What of a trace a generator or an overlay made up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeUp {
    /// The workloads that did it, in their order: `nvme`, `balloon`, ...
    pub workloads: Vec<String>,
    /// Nothing of the trace was recorded.
    pub all: bool,
    /// Events that were made up, by the kind's name, as far as the trace tells.
    pub events: BTreeMap<String, u64>,
}

/// A file that a trace was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// What the file is: `qemu-log`, `guest-ftrace`, ...
    pub role: String,
    /// Its name as it was given.
    pub path: String,
    /// Size of the file as stored (compressed) in bytes.
    pub bytes: u64,
    /// SHA-256 of the file as stored, lower-case hexadecimal.
    pub sha256: String,
}

/// A named point of the recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// Time in ns since the first event.
    pub time_ns: u64,
    /// Its text.
    pub text: String,
}
