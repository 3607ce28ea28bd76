//! Arguments.

pub mod device;
mod parent_change;
mod records;
mod study;
pub mod tools;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub use parent_change::{Overlay, ParentChange};
pub use records::{Histograms, TimelineArgs, WHOLE};
pub use study::{ParentChangeStudy, Study};

/// Replays guests' DMA map / unmap / invalidate / access traces through
/// hardware-nested and software-nested (shadow page table) IOMMU
/// configurations, and reports what each costs.
///
/// Results go to stdout or files, progress to stderr. Exit codes: 0 done,
/// 1 failed (a verification that finds differences fails), 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "ioasim", version = crate::document::VERSION, max_term_width = 80)]
#[command(after_help = "\
Examples:
  ioasim compare                           the embedded sample, five presets
  ioasim trace import qemu.log.zst --guest-ftrace trace.txt -o t.parquet
  ioasim compare t.parquet -c hw-nested -c my.toml -o report
  ioasim replay t.parquet -c qemu-vtd-7.2 --verify
  ioasim preset show hw-nested > my.toml   start of an own configuration")]
pub struct Cli {
    /// No progress on stderr.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Replay a trace under several configurations; table, HTML report, JSON and CSV.
    Compare(Compare),
    /// Replay a trace under one configuration; all counters.
    Replay(Replay),
    /// Import, inspect, overlay and make up traces.
    #[command(subcommand)]
    Trace(Trace),
    /// Make the report again from one or several result.json.
    Report(Report),
    /// Run a study that ships with ioasim: many runs and the report that explains them.
    #[command(subcommand)]
    Study(Study),
    /// List and show configurations that ship with ioasim.
    #[command(subcommand)]
    Preset(Preset),
    /// Print a shell's completion script.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// `ioasim compare`.
#[derive(Debug, Args)]
pub struct Compare {
    /// Trace (Parquet, from `ioasim trace import`); default: the embedded sample.
    pub trace: Option<PathBuf>,
    /// Preset or TOML file, repeatable; default: the five nesting presets.
    #[arg(short, long = "config", value_name = "CONFIG")]
    pub configs: Vec<String>,
    /// Override a key in every configuration, for example iotlb.entries=1024.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Events at the start that statistics of simulated time leave out
    /// (time.warm_up_events).
    #[arg(long, value_name = "EVENTS")]
    pub warm_up: Option<u64>,
    /// Folder for index.html, result.json and runs.csv.
    #[arg(short, long, value_name = "DIR", default_value = "ioasim-report")]
    pub output: PathBuf,
    /// Records of simulated time.
    #[command(flatten)]
    pub histograms: Histograms,
    /// Check every translation against the recording and the reference model (slower).
    #[arg(long)]
    pub verify: bool,
    /// How many threads.
    #[command(flatten)]
    pub threads: Threads,
}

/// How many threads work.
#[derive(Debug, Args)]
pub struct Threads {
    /// Threads in all, decoding included; 0 = one per core. Results do not depend on it.
    #[arg(long, short = 'j', default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub threads: u16,
}

/// `ioasim replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// Trace (Parquet, from `ioasim trace import`); `sample` = the embedded sample.
    pub trace: PathBuf,
    /// Preset or TOML file.
    #[arg(short, long = "config", value_name = "CONFIG")]
    pub config: String,
    /// Override a key, for example iotlb.entries=1024; repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Events at the start that statistics of simulated time leave out
    /// (time.warm_up_events).
    #[arg(long, value_name = "EVENTS")]
    pub warm_up: Option<u64>,
    /// Check translations, labels, shadow operations and invariants; fail on differences.
    #[arg(long)]
    pub verify: bool,
    /// Write the result as JSON to a file, or to stdout with `-`.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Records of simulated time.
    #[command(flatten)]
    pub histograms: Histograms,
    /// Likewise.
    #[command(flatten)]
    pub timeline: TimelineArgs,
    /// How many threads.
    #[command(flatten)]
    pub threads: Threads,
}

/// `ioasim trace`.
#[derive(Debug, Subcommand)]
pub enum Trace {
    /// Make a trace from recorded logs (.zst, .gz, .xz or plain).
    Import(Import),
    /// Say what is in a trace, what was recorded and what inferred.
    Info(Info),
    /// Add parent changes (ballooning, hot-unplug, migration, ...) to a recorded trace.
    Overlay(Overlay),
    /// Make up a trace.
    #[command(subcommand)]
    Generate(Generate),
    /// Write a trace in another program's format, or print SQL queries on it.
    Export(tools::Export),
    /// Cut a part out of a trace: time, devices, domains, markers.
    Slice(tools::Slice),
    /// Merge traces by time.
    Merge(tools::Merge),
    /// Make a trace of many tenants from one.
    Replicate(tools::Replicate),
    /// Permute addresses and drop names, keep structure.
    Anonymize(tools::Anonymize),
    /// Tell where two traces differ.
    Diff(tools::Diff),
}

/// `ioasim trace generate`.
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// A made-up guest with mappings, DMA and parent changes.
    ParentChange(Box<ParentChange>),
    /// A NIC that receives: 64-page descriptors, every page mapped by itself (mlx5).
    NicMlx5(Box<device::Nic>),
    /// The same with recycled pages (page pool).
    NicRecycle(Box<device::Nic>),
    /// An NVMe disk: scatter lists, PRP lists, queue pairs.
    Nvme(Box<device::Nvme>),
    /// A GPU or RDMA card that maps memory once, in huge pages.
    MapOnce(Box<device::MapOnce>),
    /// A VMM that assigns a device and boots a guest.
    VfioBoot(Box<device::VfioBoot>),
    /// Processes that share their address space with a device, a PASID each.
    Sva(Box<device::Sva>),
    /// Several tenants with one of these each.
    Mix(Box<device::Mix>),
}

/// `ioasim trace import`.
#[derive(Debug, Args)]
#[command(after_help = "\
One level:   ioasim trace import QEMU.log [--guest-ftrace TRACE] -o T.parquet
All levels:  ioasim trace import --host H --guest-ftrace G --vmm V \\
                 --hypervisor-ftrace K -o T.parquet

Joining the guest's ftrace adds its map and unmap calls; without it mappings are
learned from DMA outputs and invalidations. docs/importing.md explains both.")]
pub struct Import {
    /// QEMU `log` backend output (vtd_*, amdvi_*, smmu*, virtio_iommu_*); a kernel's trace alone (ftrace,
    /// trace-cmd, perf); or JSON lines, CSV, oracleGeneral, HyperSIO.
    #[arg(required_unless_present = "host", conflicts_with = "host")]
    pub log: Option<PathBuf>,
    /// The guest's ftrace (text, trace.dat, perf.data): iommu:map, iommu:unmap, intel_iommu:qi_submit.
    #[arg(long, value_name = "FILE")]
    pub guest_ftrace: Option<PathBuf>,
    /// Bundle: log of the QEMU that emulates the physical IOMMU.
    #[arg(long, value_name = "FILE", requires_all = ["guest_ftrace", "vmm", "hypervisor_ftrace"])]
    pub host: Option<PathBuf>,
    /// Bundle: log of the VMM that shadows the guest's table.
    #[arg(long, value_name = "FILE", requires = "host")]
    pub vmm: Option<PathBuf>,
    /// Bundle: the hypervisor's ftrace text.
    #[arg(long, value_name = "FILE", requires = "host")]
    pub hypervisor_ftrace: Option<PathBuf>,
    /// The trace to write.
    #[arg(short, long, value_name = "T.parquet")]
    pub output: PathBuf,
    /// Damaged lines that end the import.
    #[arg(long, default_value_t = 100)]
    pub max_errors: u64,
    /// Formats that are no logs.
    #[command(flatten)]
    pub foreign: tools::ForeignArgs,
}

/// `ioasim trace info`.
#[derive(Debug, Args)]
pub struct Info {
    /// Trace; `sample` = the embedded sample.
    pub trace: PathBuf,
    /// As JSON.
    #[arg(long, conflicts_with = "plots")]
    pub json: bool,
    /// Also plot, as text: working set, reuse distances, lifetimes of maps, bursts.
    #[arg(long)]
    pub plots: bool,
    /// Write the plots and numbers as one self-contained page.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// `ioasim report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Results to show together.
    #[arg(required = true, value_name = "RESULT.json")]
    pub results: Vec<PathBuf>,
    /// Folder to write to.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

/// `ioasim preset`.
#[derive(Debug, Subcommand)]
pub enum Preset {
    /// One line per preset.
    List,
    /// Print a preset's TOML, and every resolved key.
    Show {
        /// Name.
        name: String,
    },
}
