//! Arguments of made-up devices.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ioasim_traces::generate::{
    DeviceKind, DeviceTrace, DmaOptions, Kernel, MapOnceOptions, Member, MixOptions, NicOptions,
    NvmeOptions, RingSetting, SvaOptions, Unmap, VfioBootOptions,
};

use super::parent_change::bytes;

/// Whose IOVA caches.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KernelArg {
    /// Linux 6.0 to 6.5: magazines of 128, a depot of 32 magazines.
    #[value(name = "6.0")]
    V6_0,
    /// Linux 6.6 and later: magazines of 127, a depot that grows and is trimmed.
    #[value(name = "6.12")]
    V6_12,
}

/// When unmaps are invalidated.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum UnmapArg {
    /// At once, page-selective.
    Strict,
    /// Flush queue, one per CPU.
    Lazy,
    /// Flush queue, one for all CPUs.
    LazySingle,
}

/// Options of every made-up device.
#[derive(Debug, Args)]
pub struct Common {
    /// The trace to write.
    #[arg(short, long, value_name = "OUT.parquet")]
    pub output: PathBuf,
    /// Events after which the trace ends, besides the maps with which it begins.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Seed; the same seed gives the same trace.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// CPUs of the guest.
    #[arg(long, default_value_t = DmaOptions::default().cpus)]
    cpus: usize,
    /// Whose IOVA allocator.
    #[arg(long, default_value = "6.12")]
    kernel: KernelArg,
    /// When unmaps are invalidated.
    #[arg(long, default_value = "strict")]
    unmap: UnmapArg,
    /// Entries of a flush queue [default: 256, lazy-single 32768].
    #[arg(long, value_name = "ENTRIES")]
    queue_entries: Option<usize>,
    /// Timeout of a flush queue in ns [default: 10 ms, lazy-single 1 s].
    #[arg(long, value_name = "NS")]
    queue_timeout_ns: Option<u64>,
    /// The guest announces maps, too (VT-d CM=1).
    #[arg(long)]
    caching_mode: bool,
    /// Address bits of the device.
    #[arg(long, value_name = "BITS", default_value_t = DmaOptions::default().bits)]
    address_bits: u32,
}

impl Common {
    /// As the library has it; not checked yet.
    fn trace(&self, device: DeviceKind) -> DeviceTrace {
        let lazy = |single, entries, timeout_ns| Unmap::Lazy {
            entries: self.queue_entries.unwrap_or(entries),
            timeout_ns: self.queue_timeout_ns.unwrap_or(timeout_ns),
            single,
        };
        let dma = DmaOptions {
            kernel: match self.kernel {
                KernelArg::V6_0 => Kernel::V6_0,
                KernelArg::V6_12 => Kernel::V6_12,
            },
            cpus: self.cpus,
            unmap: match self.unmap {
                UnmapArg::Strict => Unmap::Strict,
                UnmapArg::Lazy => lazy(false, 256, 10_000_000),
                UnmapArg::LazySingle => lazy(true, 32_768, 1_000_000_000),
            },
            caching_mode: self.caching_mode,
            bits: self.address_bits,
        };
        DeviceTrace { device, dma, events: self.events, seed: self.seed }
    }
}

/// `ioasim trace generate nic-mlx5` and `nic-recycle`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ioasim trace generate nic-mlx5 -o rx.parquet
  ioasim trace generate nic-mlx5 --kernel 6.0 --cpus 64 --channels 60 \\
      --flows 40 --acks 0.12 --gbps 30.9 --page-cache 255 --read-ns 2300000 \\
      -o rx40.parquet

docs/generating.md explains the driver's behaviour, every default and its
source.")]
pub struct Nic {
    #[command(flatten)]
    common: Common,
    /// Cores that receive.
    #[arg(long, default_value_t = NicOptions::default().cores)]
    cores: usize,
    /// Channels whose rings are filled [default: one per CPU].
    #[arg(long)]
    channels: Option<usize>,
    /// Flows, evenly on the cores.
    #[arg(long, default_value_t = NicOptions::default().flows)]
    flows: usize,
    /// MTU and ring size in packets, from the driver's start to now; with flows, a run between.
    #[arg(long, value_name = "MTU:PACKETS[:FLOWS],...", value_delimiter = ',', value_parser = setting)]
    #[arg(default_value = "1500:1024,4000:1024,4000:256")]
    history: Vec<RingSetting>,
    /// Pages of old rings given back while a CPU takes one for the new ring [default: all before].
    #[arg(long, value_name = "PAGES", allow_negative_numbers = true)]
    close_rate: Option<f64>,
    /// Pages of each ring that stay mapped until they can be posted again; 0 unmaps all.
    #[arg(long, value_name = "PAGES", default_value_t = NicOptions::default().page_cache)]
    page_cache: u64,
    /// Mean ns until the application has read what it received.
    #[arg(long, value_name = "NS", default_value_t = NicOptions::default().read_ns)]
    read_ns: u64,
    /// A queue that the flow's hash chooses sends acknowledgements, not the receiving core's own.
    #[arg(long)]
    send_by_hash: bool,
    /// Flows arrive at the channel that their hash chooses (RSS), not at their core's (aRFS).
    #[arg(long)]
    receive_by_hash: bool,
    /// Descriptors that must be missing before new ones are posted.
    #[arg(long, value_name = "DESCRIPTORS", default_value_t = NicOptions::default().refill)]
    refill: usize,
    /// Rate at which packets arrive, Gb/s.
    #[arg(long, value_name = "GBPS", default_value_t = NicOptions::default().gbps)]
    #[arg(allow_negative_numbers = true)]
    gbps: f64,
    /// Acknowledgements per 4 KiB received.
    #[arg(long, value_name = "RATIO", default_value_t = NicOptions::default().acks)]
    #[arg(allow_negative_numbers = true)]
    acks: f64,
    /// Bytes of one flow that arrive in a row [default: 64K].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    burst: Option<u64>,
    /// Packets that raise an interrupt.
    #[arg(long, value_name = "PACKETS", default_value_t = NicOptions::default().moderation)]
    moderation: u64,
    /// Pages received per core before the trace begins.
    #[arg(long, value_name = "PAGES", default_value_t = NicOptions::default().warm_up)]
    warm_up: u64,
    /// Share of pages that stay mapped and are posted again [default: nic-mlx5 0, nic-recycle 0.95].
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    recycle: Option<f64>,
    /// ns to unmap and invalidate a page.
    #[arg(long, value_name = "NS", default_value_t = NicOptions::default().unmap_ns)]
    unmap_ns: u64,
    /// ns to map a page.
    #[arg(long, value_name = "NS", default_value_t = NicOptions::default().map_ns)]
    map_ns: u64,
    /// ns to handle a packet.
    #[arg(long, value_name = "NS", default_value_t = NicOptions::default().packet_ns)]
    packet_ns: u64,
    /// ns from an acknowledgement's map to its completion.
    #[arg(long, value_name = "NS", default_value_t = NicOptions::default().send_ns)]
    send_ns: u64,
}

impl Nic {
    /// `recycle`: the kind's default.
    pub fn trace(&self, recycle: f64) -> (DeviceTrace, &PathBuf) {
        let options = NicOptions {
            cores: self.cores,
            channels: self.channels,
            flows: self.flows,
            history: self.history.clone(),
            close_rate: self.close_rate,
            page_cache: self.page_cache,
            read_ns: self.read_ns,
            send_by_flow: self.send_by_hash,
            receive_by_flow: self.receive_by_hash,
            refill: self.refill,
            gbps: self.gbps,
            acks: self.acks,
            burst: self.burst.unwrap_or(NicOptions::default().burst),
            moderation: self.moderation,
            warm_up: self.warm_up,
            recycle: self.recycle.unwrap_or(recycle),
            unmap_ns: self.unmap_ns,
            map_ns: self.map_ns,
            packet_ns: self.packet_ns,
            send_ns: self.send_ns,
        };
        (self.common.trace(DeviceKind::Nic(options)), &self.common.output)
    }
}

/// `ioasim trace generate nvme`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ioasim trace generate nvme -o n.parquet
  ioasim trace generate nvme --block 128K --depth 8 --unmap lazy -o seq.parquet")]
pub struct Nvme {
    #[command(flatten)]
    common: Common,
    /// Queue pairs [default: one per CPU].
    #[arg(long)]
    queues: Option<usize>,
    /// Commands under way in each queue.
    #[arg(long, default_value_t = NvmeOptions::default().depth)]
    depth: usize,
    /// Bytes of a command's data [default: 4K].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    block: Option<u64>,
    /// Share of commands that read the disk.
    #[arg(long, value_name = "SHARE", default_value_t = NvmeOptions::default().reads)]
    #[arg(allow_negative_numbers = true)]
    reads: f64,
    /// Pages of a buffer that lie in one piece.
    #[arg(long, value_name = "PAGES", default_value_t = NvmeOptions::default().contiguous)]
    contiguous: u64,
    /// Commands per second, all queues.
    #[arg(long, value_name = "RATE", default_value_t = NvmeOptions::default().iops)]
    #[arg(allow_negative_numbers = true)]
    iops: f64,
}

impl Nvme {
    /// As the library has it.
    pub fn trace(&self) -> (DeviceTrace, &PathBuf) {
        let options = NvmeOptions {
            queues: self.queues,
            depth: self.depth,
            block: self.block.unwrap_or(NvmeOptions::default().block),
            reads: self.reads,
            contiguous: self.contiguous,
            iops: self.iops,
        };
        (self.common.trace(DeviceKind::Nvme(options)), &self.common.output)
    }
}

/// `ioasim trace generate map-once`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  a GPU:     ioasim trace generate map-once --regions 4 --region 4G \\
                 --request 64K -o gpu.parquet
  RDMA:      ioasim trace generate map-once --page 4K --region 16M \\
                 --zipf 0.9 -o rdma.parquet")]
pub struct MapOnce {
    #[command(flatten)]
    common: Common,
    /// Regions.
    #[arg(long, default_value_t = MapOnceOptions::default().regions)]
    regions: u64,
    /// Bytes of a region [default: 256M].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    region: Option<u64>,
    /// Bytes of memory in one piece: 4K, 2M or 1G [default: 2M].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    page: Option<u64>,
    /// Bytes of a transfer [default: 64K].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    transfer: Option<u64>,
    /// Bytes of a request [default: 4K].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    request: Option<u64>,
    /// Exponent of the Zipf distribution over places; 0: all alike.
    #[arg(long, value_name = "S", default_value_t = MapOnceOptions::default().zipf)]
    #[arg(allow_negative_numbers = true)]
    zipf: f64,
    /// Share of transfers that write.
    #[arg(long, value_name = "SHARE", default_value_t = MapOnceOptions::default().writes)]
    #[arg(allow_negative_numbers = true)]
    writes: f64,
    /// Bytes per ns that the device moves.
    #[arg(long, value_name = "RATE", default_value_t = MapOnceOptions::default().bytes_per_ns)]
    #[arg(allow_negative_numbers = true)]
    bytes_per_ns: f64,
}

impl MapOnce {
    /// As the library has it.
    pub fn trace(&self) -> (DeviceTrace, &PathBuf) {
        let d = MapOnceOptions::default();
        let options = MapOnceOptions {
            regions: self.regions,
            region: self.region.unwrap_or(d.region),
            page: self.page.unwrap_or(d.page),
            transfer: self.transfer.unwrap_or(d.transfer),
            request: self.request.unwrap_or(d.request),
            zipf: self.zipf,
            writes: self.writes,
            bytes_per_ns: self.bytes_per_ns,
        };
        (self.common.trace(DeviceKind::MapOnce(options)), &self.common.output)
    }
}

/// `ioasim trace generate vfio-boot`.
#[derive(Debug, Args)]
pub struct VfioBoot {
    #[command(flatten)]
    common: Common,
    /// Guest memory [default: 4G].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,
    /// Share of memory in huge pages of the host.
    #[arg(long, value_name = "SHARE", default_value_t = VfioBootOptions::default().huge)]
    #[arg(allow_negative_numbers = true)]
    huge: f64,
    /// Changes of the firmware's shadow area.
    #[arg(long, default_value_t = VfioBootOptions::default().remaps)]
    remaps: u64,
    /// Accesses per second once the guest runs.
    #[arg(long, default_value_t = VfioBootOptions::default().rate)]
    #[arg(allow_negative_numbers = true)]
    rate: f64,
    /// Bytes of guest memory that the device uses [default: 64M].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    working_set: Option<u64>,
}

impl VfioBoot {
    /// As the library has it.
    pub fn trace(&self) -> (DeviceTrace, &PathBuf) {
        let d = VfioBootOptions::default();
        let options = VfioBootOptions {
            memory: self.memory.unwrap_or(d.memory),
            huge: self.huge,
            remaps: self.remaps,
            rate: self.rate,
            working_set: self.working_set.unwrap_or(d.working_set),
        };
        (self.common.trace(DeviceKind::VfioBoot(options)), &self.common.output)
    }
}

/// `ioasim trace generate sva`.
#[derive(Debug, Args)]
pub struct Sva {
    #[command(flatten)]
    common: Common,
    /// Processes, a PASID each.
    #[arg(long, default_value_t = SvaOptions::default().processes)]
    processes: u64,
    /// Pages that a process works on.
    #[arg(long, default_value_t = SvaOptions::default().pages)]
    pages: u64,
    /// Exponent of the Zipf distribution over them; 0: all alike.
    #[arg(long, value_name = "S", default_value_t = SvaOptions::default().zipf)]
    #[arg(allow_negative_numbers = true)]
    zipf: f64,
    /// Bytes of a transfer [default: 16K].
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    transfer: Option<u64>,
    /// Share of transfers after which the process unmaps a piece of memory.
    #[arg(long, value_name = "SHARE", default_value_t = SvaOptions::default().unmaps)]
    #[arg(allow_negative_numbers = true)]
    unmaps: f64,
    /// Pages of that piece.
    #[arg(long, value_name = "PAGES", default_value_t = SvaOptions::default().unmap_pages)]
    unmap_pages: u64,
    /// Transfers per second, all processes.
    #[arg(long, default_value_t = SvaOptions::default().rate)]
    #[arg(allow_negative_numbers = true)]
    rate: f64,
}

impl Sva {
    /// As the library has it.
    pub fn trace(&self) -> (DeviceTrace, &PathBuf) {
        let options = SvaOptions {
            processes: self.processes,
            pages: self.pages,
            zipf: self.zipf,
            transfer: self.transfer.unwrap_or(SvaOptions::default().transfer),
            unmaps: self.unmaps,
            unmap_pages: self.unmap_pages,
            rate: self.rate,
        };
        (self.common.trace(DeviceKind::Sva(options)), &self.common.output)
    }
}

/// `ioasim trace generate mix`.
#[derive(Debug, Args)]
#[command(override_usage = "ioasim trace generate mix [OPTIONS] --tenants <KIND=N,...> -o <OUT>")]
#[command(after_help = "\
Example:
  ioasim trace generate mix --tenants nic-mlx5=2,nvme=4,sva=1 -o mix.parquet

Every tenant has the defaults of its kind, a device and a domain of its own.")]
pub struct Mix {
    #[command(flatten)]
    common: Common,
    /// Kinds and numbers of tenants.
    #[arg(long, value_name = "KIND=N,...", value_delimiter = ',', value_parser = member)]
    #[arg(required = true)]
    tenants: Vec<Member>,
}

impl Mix {
    /// As the library has it.
    pub fn trace(&self) -> (DeviceTrace, &PathBuf) {
        let options = MixOptions { members: self.tenants.clone() };
        (self.common.trace(DeviceKind::Mix(options)), &self.common.output)
    }
}

/// `KIND=N`.
fn member(text: &str) -> Result<Member, String> {
    let (kind, n) = text.split_once('=').ok_or("write it as KIND=N, for example nvme=4")?;
    // A NIC of a mix has as many cores as every guest has CPUs at least.
    let nic = |recycle| NicOptions { cores: 1, recycle, ..NicOptions::default() };
    let device = match kind {
        "nic-mlx5" => DeviceKind::Nic(nic(0.0)),
        "nic-recycle" => DeviceKind::Nic(nic(0.95)),
        "nvme" => DeviceKind::Nvme(NvmeOptions::default()),
        "map-once" => DeviceKind::MapOnce(MapOnceOptions::default()),
        "vfio-boot" => DeviceKind::VfioBoot(VfioBootOptions::default()),
        "sva" => DeviceKind::Sva(SvaOptions::default()),
        other => {
            let kinds = "nic-mlx5, nic-recycle, nvme, map-once, vfio-boot, sva";
            return Err(format!("unknown kind `{other}`; kinds are {kinds}"));
        }
    };
    let tenants = n.parse().map_err(|_| format!("`{n}` is not a number of tenants"))?;
    Ok(Member { tenants, device })
}

/// `MTU:PACKETS[:FLOWS]`.
fn setting(text: &str) -> Result<RingSetting, String> {
    let numbers: Option<Vec<u64>> = text.split(':').map(|n| n.parse().ok()).collect();
    match numbers.as_deref() {
        Some([mtu, packets]) => Ok(RingSetting { mtu: *mtu, packets: *packets, flows: 0 }),
        Some([mtu, packets, flows]) => {
            Ok(RingSetting { mtu: *mtu, packets: *packets, flows: *flows as usize })
        }
        _ => Err("write it as MTU:PACKETS or MTU:PACKETS:FLOWS, for example 4000:256".into()),
    }
}
