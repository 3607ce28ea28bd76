//! What a trace file says about itself.

use std::collections::BTreeMap;

use ioasim_events::{CachingMode, OutputSpace, TraceInfo};
use serde::{Deserialize, Serialize};

/// One input file that a trace was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// What the file is: "qemu-log", "guest-ftrace", "vmm-log", ...
    pub role: String,
    /// Its name as it was given.
    pub path: String,
    /// Size of the file as stored (compressed) in bytes.
    pub bytes: u64,
    /// SHA-256 of the file as stored, lower-case hexadecimal.
    pub sha256: String,
}

/// A marker's place and text, as listed in [`Totals::markers`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// 0-based number of the event.
    pub event: u64,
    /// Its time in ns.
    pub time_ns: u64,
    /// The text.
    pub text: String,
}

/// What [`TraceWriter`](super::TraceWriter) counts while it writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Number of events.
    pub events: u64,
    /// Time of the last event in ns.
    pub end_ns: u64,
    /// True if there are parent maps.
    pub has_parent: bool,
    /// Bits needed for the last byte of the highest IOVA range (dma, map,
    /// unmap and shadow events).
    pub iova_bits: u32,
    /// Events of each kind that occurs, by the kind's name.
    pub kinds: BTreeMap<String, u64>,
    /// Requester ids of the devices, `BB:DD.F`, ascending.
    pub devices: Vec<String>,
    /// The first [`Totals::MAX_MARKERS`] markers.
    pub markers: Vec<Marker>,
}

impl Totals {
    /// Markers listed in the metadata; the rest are in the file's `text`
    /// column only ([`TraceReader::markers`](super::TraceReader::markers)).
    pub const MAX_MARKERS: usize = 256;
}

/// Provenance and facts of a trace; stored as JSON in the file's key-value
/// metadata.
///
/// It holds no time stamps and no machine names: the same input gives the
/// same bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// Program and version, for example "ioasim 0.1.0".
    pub tool: String,
    /// Kind of command that made the file, for example "trace import".
    pub created_by: String,
    /// Name of the importer or generator.
    pub importer: String,
    /// Input files in the order given.
    pub sources: Vec<Source>,
    /// What the importer counted, with units in the names.
    pub import_counts: BTreeMap<String, u64>,
    /// Remarks for people, one sentence each.
    pub notes: Vec<String>,
    /// Address space of recorded outputs ("gpa" or "hpa").
    #[serde(with = "output_space")]
    pub output_space: OutputSpace,
    /// Recorded caching mode ("on", "off" or "unknown").
    #[serde(with = "caching_mode")]
    pub caching_mode: CachingMode,
    /// Levels of the guest's table, 0 if not recorded.
    pub child_levels: u32,
    /// What was made up and added after recording, in the order in which it
    /// was added; empty for a trace that only recordings made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub synthetic: Vec<Synthetic>,
    /// Counted by the writer; what a caller puts here is replaced.
    pub totals: Totals,
}

impl Meta {
    /// What a simulation needs to know before it starts.
    pub fn trace_info(&self) -> TraceInfo {
        TraceInfo {
            events: self.totals.events,
            end_ns: self.totals.end_ns,
            output_space: self.output_space,
            has_parent: self.totals.has_parent,
            caching_mode: self.caching_mode,
            child_levels: self.child_levels,
            iova_bits: self.totals.iova_bits,
        }
    }
}

/// Events of a trace that were made up: a parent-change workload
/// ([`generate`](crate::generate)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Synthetic {
    /// Name of the workload ("balloon", ...).
    pub workload: String,
    /// Seed of all that is random.
    pub seed: u64,
    /// The guest is made up, too: nothing in the trace was recorded.
    pub guest: bool,
    /// Leaf size of the parent table ("4k", "2m", "1g") if it was made up with
    /// the workload; nothing if the trace had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_layout: Option<String>,
    /// All parameters, defaults included, with units in the names.
    pub parameters: BTreeMap<String, String>,
}

/// A file as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Number of events.
    pub events: u64,
    /// Size of the file in bytes.
    pub file_bytes: u64,
    /// Number of row groups.
    pub row_groups: u64,
    /// Its metadata, totals filled in.
    pub meta: Meta,
}

/// Names of [`OutputSpace`] in files.
mod output_space {
    use super::OutputSpace;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(v: &OutputSpace, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(match v {
            OutputSpace::Gpa => "gpa",
            OutputSpace::Hpa => "hpa",
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<OutputSpace, D::Error> {
        match &*String::deserialize(d)? {
            "gpa" => Ok(OutputSpace::Gpa),
            "hpa" => Ok(OutputSpace::Hpa),
            other => Err(D::Error::unknown_variant(other, &["gpa", "hpa"])),
        }
    }
}

/// Names of [`CachingMode`] in files.
mod caching_mode {
    use super::CachingMode;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(v: &CachingMode, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(match v {
            CachingMode::On => "on",
            CachingMode::Off => "off",
            CachingMode::Unknown => "unknown",
        })
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<CachingMode, D::Error> {
        match &*String::deserialize(d)? {
            "on" => Ok(CachingMode::On),
            "off" => Ok(CachingMode::Off),
            "unknown" => Ok(CachingMode::Unknown),
            other => Err(D::Error::unknown_variant(other, &["on", "off", "unknown"])),
        }
    }
}
