//! Parameters of a NIC's receive side.

use super::history::RingSetting;
use crate::generate::error::{OptionError, limit};
use crate::generate::linux::DmaOptions;

/// Parameters of a NIC's receive side. Tags: R read in the source named, A
/// assumption.
#[derive(Clone, Debug, PartialEq)]
pub struct NicOptions {
    /// Cores that receive, CPUs 0 to n - 1. Default 5 (R: Fast & Safe).
    pub cores: usize,
    /// Channels, CPUs 0 to n - 1: rings that exist and are filled, most of them
    /// without traffic. Default: a channel per CPU (R: mlx5
    /// `mlx5e_build_nic_params`).
    pub channels: Option<usize>,
    /// Flows, evenly on the cores (aRFS). Default 5 (R: Fast & Safe).
    pub flows: usize,
    /// Ring size and MTU, and what they were before, with runs in between; the
    /// last is in force while the trace runs. Default 1,500/1,024 (R: the driver's), then
    /// 4,000/1,024, then 4,000/256 (R: Fast & Safe's scripts set the MTU, then
    /// the ring).
    pub history: Vec<RingSetting>,
    /// Pages of an old ring that one CPU gives back while every other takes one
    /// for the new ring. Default: none, because the driver closes old channels
    /// before new ones fill (R: `mlx5e_switch_priv_channels`); a rate is an
    /// assumption (A, see `docs/generating.md`).
    pub close_rate: Option<f64>,
    /// Pages of each ring that the driver keeps mapped once they are received,
    /// to post them again, oldest first, when the application has read them;
    /// 0: all are unmapped. Not used with [`Self::recycle`]. Default 0 (R: Fast &
    /// Safe says that all are); 255 is what Linux 6.0 keeps
    /// (R: `MLX5E_CACHE_SIZE` less the place that stays empty).
    pub page_cache: u64,
    /// Mean ns until the application has read a segment that was handed up.
    /// Default 40,000 (derived from Fast & Safe, 5 flows; see
    /// `docs/generating.md`).
    pub read_ns: u64,
    /// An acknowledgement leaves by a queue that the flow's hash chooses, and is
    /// unmapped on that queue's CPU; otherwise both are the receiving core's.
    /// Default false (R: `mlx5e_set_default_xps_cpumasks` gives each CPU the
    /// queue whose interrupt it takes).
    pub send_by_flow: bool,
    /// A flow arrives at the channel that its hash chooses (RSS), flow 0 at
    /// channel 0, and not at its core's. All channels' CPUs receive then; `cores`
    /// only says how many cores' pages a run has. Default false (R: Fast & Safe's
    /// script turns aRFS on).
    pub receive_by_flow: bool,
    /// Descriptors that must be missing before new ones are posted. Default 2 (R:
    /// `UMR_WQE_BULK`).
    pub refill: usize,
    /// Rate at which packets arrive, Gb/s. Default 100 (R: Fast & Safe).
    pub gbps: f64,
    /// Acknowledgements per 4 KiB received. Default 0.044 (R: Fast & Safe, 5
    /// flows).
    pub acks: f64,
    /// Bytes of one flow that arrive in a row. Default 65,536: a segmentation
    /// offload's largest packet (R: `GSO_MAX_SIZE`); less if the congestion
    /// window is smaller.
    pub burst: u64,
    /// Packets after which an interrupt is raised at the latest. Default 32 (A;
    /// mlx5 adapts it).
    pub moderation: u64,
    /// Pages received, per core, before the trace begins: what mixes the
    /// caches. Default 6,000,000 (A: 15 s at 13 Gb/s per core; Fast & Safe's
    /// script measures from 10 to 30 s).
    pub warm_up: u64,
    /// Share of pages that stay mapped and are posted again (page pool of later
    /// kernels). Default 0 for nic-mlx5, 0.95 for nic-recycle (A).
    pub recycle: f64,
    /// ns that a core needs to unmap and invalidate a page. Default 700 (A).
    pub unmap_ns: u64,
    /// ns to map a page. Default 350 (A).
    pub map_ns: u64,
    /// ns to handle a packet. Default 400 (A).
    pub packet_ns: u64,
    /// ns from an acknowledgement's map to the end of its moderation. Default
    /// 16,000 (R: `MLX5E_PARAMS_DEFAULT_TX_CQ_MODERATION_USEC`).
    pub send_ns: u64,
}

impl Default for NicOptions {
    fn default() -> NicOptions {
        let at = |mtu, packets| RingSetting { mtu, packets, flows: 0 };
        NicOptions {
            cores: 5,
            channels: None,
            flows: 5,
            history: vec![at(1500, 1024), at(4000, 1024), at(4000, 256)],
            close_rate: None,
            page_cache: 0,
            read_ns: 40_000,
            send_by_flow: false,
            receive_by_flow: false,
            refill: 2,
            gbps: 100.0,
            acks: 0.044,
            burst: 65_536,
            moderation: 32,
            warm_up: 6_000_000,
            recycle: 0.0,
            unmap_ns: 700,
            map_ns: 350,
            packet_ns: 400,
            send_ns: 16_000,
        }
    }
}

impl NicOptions {
    pub(super) fn check(&self, dma: &DmaOptions) -> Result<(), OptionError> {
        if !(1..=dma.cpus).contains(&self.cores) {
            return Err(limit("--cores", self.cores, "at least 1 and at most --cpus"));
        }
        let channels = self.channels.unwrap_or(dma.cpus);
        if !(self.cores..=dma.cpus).contains(&channels) {
            return Err(limit("--channels", channels, "at least --cores and at most --cpus"));
        }
        if !(1..=1 << 20).contains(&self.flows) {
            return Err(limit("--flows", self.flows, "1 to 1048576"));
        }
        if self.history.is_empty() || self.history.len() > 64 {
            return Err(limit("--history", self.history.len(), "1 to 64 settings"));
        }
        for s in &self.history {
            if !(64..=9978).contains(&s.mtu) {
                return Err(limit("--mtu", s.mtu, "64 to 9978 bytes"));
            }
            if !(64..=8192).contains(&s.packets) {
                return Err(limit("--ring", s.packets, "64 to 8192 packets"));
            }
            if s.flows > 1 << 20 {
                return Err(limit("--history", s.flows, "at most 1048576 flows"));
            }
        }
        let least = self.history.iter().map(|s| s.descriptors()).min().unwrap_or(0);
        if !(1..=least as usize).contains(&self.refill) {
            return Err(limit("--refill", self.refill, "1 to the descriptors of a ring"));
        }
        if let Some(rate) = self.close_rate
            && !(0.0..=1000.0).contains(&rate)
        {
            return Err(limit("--close-rate", rate, "from 0 to 1000"));
        }
        if self.page_cache > 1 << 20 {
            return Err(limit("--page-cache", self.page_cache, "at most 1048576 pages"));
        }
        if !(self.gbps > 0.0 && self.gbps <= 10_000.0) {
            return Err(limit("--gbps", self.gbps, "above 0 and at most 10000 Gb/s"));
        }
        for (option, share) in [("--acks", self.acks), ("--recycle", self.recycle)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(limit(option, share, "from 0 to 1"));
            }
        }
        if !(1..=1 << 30).contains(&self.burst) {
            return Err(limit("--burst", self.burst, "1 byte to 1G"));
        }
        if self.warm_up > 1 << 32 {
            return Err(limit("--warm-up", self.warm_up, "at most 4294967296 pages"));
        }
        Ok(())
    }

    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        let history: Vec<String> =
            self.history.iter().map(|s| format!("{}:{}:{}", s.mtu, s.packets, s.flows)).collect();
        vec![
            ("cores", self.cores.to_string()),
            ("channels", self.channels.map_or("cpus".into(), |c| c.to_string())),
            ("flows", self.flows.to_string()),
            ("history_mtu_bytes_ring_packets_flows", history.join(" ")),
            ("close_rate", self.close_rate.map_or("before".into(), |r| r.to_string())),
            ("page_cache_pages", self.page_cache.to_string()),
            ("read_ns", self.read_ns.to_string()),
            ("send_by_flow", self.send_by_flow.to_string()),
            ("receive_by_flow", self.receive_by_flow.to_string()),
            ("refill_descriptors", self.refill.to_string()),
            ("rate_gbps", self.gbps.to_string()),
            ("acks_per_page", self.acks.to_string()),
            ("burst_bytes", self.burst.to_string()),
            ("moderation_packets", self.moderation.to_string()),
            ("warm_up_pages_per_core", self.warm_up.to_string()),
            ("recycled_share", self.recycle.to_string()),
            ("unmap_ns", self.unmap_ns.to_string()),
            ("map_ns", self.map_ns.to_string()),
            ("packet_ns", self.packet_ns.to_string()),
            ("send_ns", self.send_ns.to_string()),
        ]
    }
}
