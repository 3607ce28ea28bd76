//! Arguments of commands that make traces from traces.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ioasim_traces::events::{DomainId, Requester};
use ioasim_traces::exchange::{Foreign, Format, ImportOptions, Selection};

/// Format to export to.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FormatArg {
    /// JSON, an object per line (.jsonl).
    JsonLines,
    /// Comma-separated values (.csv).
    Csv,
    /// libCacheSim's oracleGeneral (.oracleGeneral).
    OracleGeneral,
    /// Perfetto's timeline (.pftrace).
    Perfetto,
}

impl From<FormatArg> for Format {
    fn from(arg: FormatArg) -> Format {
        match arg {
            FormatArg::JsonLines => Format::JsonLines,
            FormatArg::Csv => Format::Csv,
            FormatArg::OracleGeneral => Format::OracleGeneral,
            FormatArg::Perfetto => Format::Perfetto,
        }
    }
}

/// Format to import from.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ForeignArg {
    /// JSON lines with the trace file's columns.
    JsonLines,
    /// CSV with named columns.
    Csv,
    /// libCacheSim's oracleGeneral.
    OracleGeneral,
    /// HyperSIO's text log.
    HypersioText,
    /// HyperSIO's binary trace of 48-byte records.
    HypersioBinary,
}

/// `ioasim trace import` of formats that are no logs.
#[derive(Debug, Args)]
pub struct ForeignArgs {
    /// Format of a file that is no log; told from its content if absent.
    #[arg(long, value_enum, conflicts_with = "host")]
    pub format: Option<ForeignArg>,
    /// oracleGeneral: object ids are hashes; number objects by first use.
    #[arg(long)]
    dense_ids: bool,
    /// Accesses alone: do not add the maps that a replay needs.
    #[arg(long)]
    no_maps: bool,
}

impl ForeignArgs {
    /// As the library has it.
    pub fn options(&self, max_errors: u64) -> ImportOptions {
        let format = self.format.map(|f| match f {
            ForeignArg::JsonLines => Foreign::JsonLines,
            ForeignArg::Csv => Foreign::Csv,
            ForeignArg::OracleGeneral => Foreign::OracleGeneral,
            ForeignArg::HypersioText => Foreign::HypersioText,
            ForeignArg::HypersioBinary => Foreign::HypersioBinary,
        });
        ImportOptions { format, max_errors, dense_ids: self.dense_ids, maps: !self.no_maps }
    }
}

/// `ioasim trace export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ioasim trace export t.parquet -o t.jsonl
  ioasim trace export t.parquet -o nic.oracleGeneral --device 00:03.0
  ioasim trace export t.parquet -o t.pftrace        open it at ui.perfetto.dev
  ioasim trace export t.parquet --sql | duckdb

The format is told by the file's name, or by --format. docs/user-guide.md
describes each.")]
pub struct Export {
    /// Trace; `sample` = the embedded sample.
    pub trace: PathBuf,
    /// The file to write.
    #[arg(short, long, required_unless_present = "sql", conflicts_with = "sql")]
    pub output: Option<PathBuf>,
    /// The format.
    #[arg(long, short, value_enum)]
    pub format: Option<FormatArg>,
    /// Print DuckDB queries on the trace's file instead.
    #[arg(long)]
    pub sql: bool,
    /// Accesses of this device only, BB:DD.F or a number.
    #[arg(long, value_parser = device)]
    device: Option<Requester>,
    /// Events of this domain only.
    #[arg(long)]
    domain: Option<u32>,
}

impl Export {
    /// As the library has it.
    pub fn selection(&self) -> Selection {
        Selection { device: self.device, domain: self.domain.map(DomainId) }
    }
}

/// `ioasim trace slice`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ioasim trace slice t.parquet --after-marker 'work begin' \\
      --before-marker 'work end' -o w.parquet
  ioasim trace slice t.parquet --device 00:03.0 --from-ns 1000000 \\
      --to-ns 2000000 -o nic.parquet

Attaches and maps that were in force before the part stand in front of it,
marked as inferred. `ioasim trace info` lists devices, domains and markers.")]
pub struct Slice {
    /// Trace; `sample` = the embedded sample.
    pub trace: PathBuf,
    /// The trace to write.
    #[arg(short, long, value_name = "OUT.parquet")]
    pub output: PathBuf,
    /// First time.
    #[arg(long, value_name = "NS")]
    pub from_ns: Option<u64>,
    /// Time at which it ends, exclusive.
    #[arg(long, value_name = "NS")]
    pub to_ns: Option<u64>,
    /// Begin behind the first marker whose text begins so.
    #[arg(long, value_name = "TEXT")]
    pub after_marker: Option<String>,
    /// End before the next marker whose text begins so.
    #[arg(long, value_name = "TEXT")]
    pub before_marker: Option<String>,
    /// This device and the domains that it uses; repeatable.
    #[arg(long = "device", value_parser = device)]
    pub devices: Vec<Requester>,
    /// This domain; repeatable.
    #[arg(long = "domain")]
    pub domains: Vec<u32>,
    /// Leave out what was mapped before.
    #[arg(long)]
    pub without_state: bool,
}

/// `ioasim trace merge`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ioasim trace merge a.parquet b.parquet --shift-ns 0,250000 -o both.parquet

Every input gets devices and domains of its own unless --keep-ids is given.")]
pub struct Merge {
    /// Traces.
    #[arg(required = true, num_args = 2..)]
    pub traces: Vec<PathBuf>,
    /// The trace to write.
    #[arg(short, long, value_name = "OUT.parquet")]
    pub output: PathBuf,
    /// Added to each input's times, in their order.
    #[arg(long, value_name = "NS,...", value_delimiter = ',')]
    pub shift_ns: Vec<u64>,
    /// The same requester or domain id is the same device or domain.
    #[arg(long)]
    pub keep_ids: bool,
}

/// `ioasim trace replicate`.
#[derive(Debug, Args)]
#[command(
    override_usage = "ioasim trace replicate [OPTIONS] --tenants <N> -o <OUT.parquet> <TRACE>"
)]
#[command(after_help = "\
Example:
  ioasim trace replicate t.parquet --tenants 1024 -o many.parquet

Every tenant runs the trace with devices, domains and memory of its own and
begins at a time of its own. Beyond 65,536 devices, requester ids are shared and
PASIDs tell them apart.")]
pub struct Replicate {
    /// Trace; `sample` = the embedded sample.
    pub trace: PathBuf,
    /// The trace to write.
    #[arg(short, long, value_name = "OUT.parquet")]
    pub output: PathBuf,
    /// Tenants.
    #[arg(long, value_name = "N")]
    pub tenants: u64,
    /// Tenants begin within so many ns [default: the trace's length].
    #[arg(long, value_name = "NS")]
    pub spread_ns: Option<u64>,
    /// Tenants have the same guest memory.
    #[arg(long)]
    pub share_memory: bool,
    /// Events after which the trace ends.
    #[arg(long, value_name = "EVENTS")]
    pub max_events: Option<u64>,
    /// Seed of the tenants' times.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// `ioasim trace anonymize`.
#[derive(Debug, Args)]
#[command(
    override_usage = "ioasim trace anonymize [OPTIONS] --seed <SEED> -o <OUT.parquet> <TRACE>"
)]
#[command(after_help = "\
Addresses move in blocks of 2 MiB; blocks that a range crosses stay together,
aligned ranges stay aligned. Ids, sizes, times and order stay. Names of sources,
notes and counts are left out.")]
pub struct Anonymize {
    /// Trace; `sample` = the embedded sample.
    pub trace: PathBuf,
    /// The trace to write.
    #[arg(short, long, value_name = "OUT.parquet")]
    pub output: PathBuf,
    /// Seed of the permutation; who knows it can undo it.
    #[arg(long)]
    pub seed: u64,
    /// Markers keep their texts.
    #[arg(long)]
    pub keep_markers: bool,
}

/// `ioasim trace diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0 if the traces are the same, 1 if they differ. Provenance is not
compared.")]
pub struct Diff {
    /// First trace.
    pub left: PathBuf,
    /// Second trace.
    pub right: PathBuf,
    /// Differences to describe.
    #[arg(long, default_value_t = 10)]
    pub most: usize,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// A requester id.
fn device(text: &str) -> Result<Requester, String> {
    ioasim_traces::exchange::csv::requester(text).map(Requester)
}
