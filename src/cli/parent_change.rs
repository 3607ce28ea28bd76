//! Arguments of parent-change workloads.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ioasim_traces::generate::{Distribution, Options, ParentPage, Rate, SyntheticGuest, Workload};

/// Who changes the parent.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum WorkloadArg {
    /// virtio-balloon: inflate to a target, deflate, again.
    Balloon,
    /// virtio-mem: unplug blocks from the top, plug them again.
    VirtioMem,
    /// Remove a DIMM, plug it again.
    HotUnplug,
    /// Move pages in the host (compaction): unmap, map elsewhere.
    PageMigration,
    /// Pre-copy dirty logging: protect, dirty pages again, finally unprotect.
    WriteProtect,
    /// Post-copy: memory is absent, comes on demand and in the background.
    PostCopy,
}

/// How units are chosen.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DistributionArg {
    /// GPAs that DMA uses, as often as it does.
    Hot,
    /// Every unit alike.
    Uniform,
    /// Rank r with weight 1 / r^s.
    Zipf,
    /// From the highest address down.
    Sequential,
}

/// Largest leaf of a made-up parent.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ParentPageArg {
    /// 4 KiB.
    #[value(name = "4k")]
    Size4K,
    /// 2 MiB.
    #[value(name = "2m")]
    Size2M,
    /// 1 GiB.
    #[value(name = "1g")]
    Size1G,
}

/// Options of every parent-change workload.
#[derive(Debug, Args)]
pub struct Changes {
    /// Who changes the parent.
    #[arg(long, short)]
    workload: WorkloadArg,
    /// Accesses (dma events) per operation [default: 1000].
    #[arg(long, value_name = "ACCESSES", conflicts_with = "per_second")]
    every: Option<u64>,
    /// Operations per second of the trace's time, instead of --every.
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    per_second: Option<f64>,
    /// Bytes of a unit, a power of two, for example 4K or 2M
    /// [default: virtio-mem 2M, hot-unplug 128M, others 4K].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    size: Option<u64>,
    /// Units per operation [default: balloon 256, page-migration 32, post-copy 64, others 1].
    #[arg(long, value_name = "UNITS")]
    batch: Option<u64>,
    /// How units are chosen [default: balloon and page-migration hot, others sequential].
    #[arg(long, short)]
    distribution: Option<DistributionArg>,
    /// Exponent s of --distribution zipf [default: 1].
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    zipf: Option<f64>,
    /// Percent of guest memory at which memory is given back [default: 25].
    #[arg(long, value_name = "PERCENT")]
    target: Option<u64>,
    /// Passes of write protection before logging ends [default: 4].
    #[arg(long)]
    passes: Option<u64>,
    /// Also take pages that are mapped for DMA; they come back right before an access.
    #[arg(long)]
    in_use: bool,
    /// Largest leaf of the parent table if the trace has none.
    #[arg(long, value_name = "SIZE", default_value = "2m")]
    parent_page: ParentPageArg,
    /// Accesses before the first operation.
    #[arg(long, value_name = "ACCESSES", default_value_t = 0)]
    after_dma: u64,
    /// Parent events after which no operation begins any more.
    #[arg(long, value_name = "EVENTS", default_value_t = 1_000_000)]
    max_changes: u64,
    /// Seed; the same seed gives the same trace.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl Changes {
    /// As the library has them; not checked yet.
    pub fn options(&self) -> Options {
        let workload = match self.workload {
            WorkloadArg::Balloon => Workload::Balloon,
            WorkloadArg::VirtioMem => Workload::VirtioMem,
            WorkloadArg::HotUnplug => Workload::HotUnplug,
            WorkloadArg::PageMigration => Workload::PageMigration,
            WorkloadArg::WriteProtect => Workload::WriteProtect,
            WorkloadArg::PostCopy => Workload::PostCopy,
        };
        let defaults = Options::new(workload);
        Options {
            rate: match (self.every, self.per_second) {
                (_, Some(rate)) => Rate::PerSecond(rate),
                (Some(n), None) => Rate::EveryDma(n),
                (None, None) => defaults.rate,
            },
            size: self.size,
            batch: self.batch,
            distribution: self.distribution.map(|d| match d {
                DistributionArg::Hot => Distribution::Hot,
                DistributionArg::Uniform => Distribution::Uniform,
                DistributionArg::Zipf => Distribution::Zipf,
                DistributionArg::Sequential => Distribution::Sequential,
            }),
            zipf: self.zipf,
            target_percent: self.target,
            passes: self.passes,
            in_use: self.in_use,
            parent_page: match self.parent_page {
                ParentPageArg::Size4K => ParentPage::Size4K,
                ParentPageArg::Size2M => ParentPage::Size2M,
                ParentPageArg::Size1G => ParentPage::Size1G,
            },
            after_dma: self.after_dma,
            max_changes: self.max_changes,
            seed: self.seed,
            ..defaults
        }
    }
}

/// `ioasim trace overlay`.
#[derive(Debug, Args)]
#[command(override_usage = "ioasim trace overlay [OPTIONS] -w <WORKLOAD> -o <OUT.parquet> <TRACE>")]
#[command(after_help = "\
Examples:
  ioasim trace overlay t.parquet -w balloon -o b.parquet
  ioasim trace overlay t.parquet -w page-migration --every 100 -o m.parquet
  ioasim trace overlay t.parquet -w virtio-mem --size 8M --target 50 \\
      --in-use -o v.parquet

The recorded events stay as they are and in order; parent maps and unmaps are
added between them. Memory that is away comes back before the recording uses it.
docs/generating.md explains rules, defaults and their sources.")]
pub struct Overlay {
    /// Trace; `sample` = the embedded sample.
    pub trace: PathBuf,
    /// The trace to write.
    #[arg(short, long, value_name = "OUT.parquet")]
    pub output: PathBuf,
    /// The workload and its parameters.
    #[command(flatten)]
    pub changes: Changes,
}

/// `ioasim trace generate parent-change`.
#[derive(Debug, Args)]
#[command(override_usage = "ioasim trace generate parent-change [OPTIONS] -w <WORKLOAD> -o <OUT>")]
#[command(after_help = "\
Example:
  ioasim trace generate parent-change -w balloon --children 16 \\
      --entries 65536 -o g.parquet

docs/generating.md explains the made-up guest.")]
pub struct ParentChange {
    /// The trace to write.
    #[arg(short, long, value_name = "OUT.parquet")]
    pub output: PathBuf,
    /// Children (I/O address spaces), each with one device.
    #[arg(long, default_value_t = SyntheticGuest::default().children)]
    children: u64,
    /// 4 KiB pages that each child keeps mapped.
    #[arg(long, value_name = "PAGES", default_value_t = SyntheticGuest::default().entries)]
    entries: u64,
    /// Accesses in all.
    #[arg(long, default_value_t = SyntheticGuest::default().accesses)]
    accesses: u64,
    /// Guest memory, bytes [default: 1G].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,
    /// Share of mappings whose GPA any child may use, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = SyntheticGuest::default().overlap)]
    #[arg(allow_negative_numbers = true)]
    overlap: f64,
    /// Share of accesses before which their page is unmapped and mapped anew, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = SyntheticGuest::default().churn)]
    #[arg(allow_negative_numbers = true)]
    churn: f64,
    /// Share of accesses that write, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = SyntheticGuest::default().writes)]
    #[arg(allow_negative_numbers = true)]
    writes: f64,
    /// The workload and its parameters.
    #[command(flatten)]
    pub changes: Changes,
}

impl ParentChange {
    /// As the library has it; not checked yet.
    pub fn guest(&self) -> SyntheticGuest {
        SyntheticGuest {
            children: self.children,
            entries: self.entries,
            accesses: self.accesses,
            memory: self.memory.unwrap_or(SyntheticGuest::default().memory),
            overlap: self.overlap,
            churn: self.churn,
            writes: self.writes,
            seed: self.changes.seed,
        }
    }
}

/// Bytes: a number, or one with K, M or G (powers of 1,024).
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        other => return Err(format!("unknown unit `{other}`; use K, M or G (powers of 1024)")),
    };
    let number: u64 = digits.parse().map_err(|_| "not a whole number".to_string())?;
    number.checked_mul(1 << shift).ok_or_else(|| "more than 64 bits of bytes".to_string())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("4K"), Ok(4096));
        assert_eq!(bytes("2m"), Ok(2 << 20));
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        for bad in ["", "K", "-1", "4T", "1.5M", "99999999999999999999", "99999999999999G", "4é"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
