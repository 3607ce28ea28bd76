//! Devices and their drivers, made up from how real ones behave.
//!
//! Each is a state machine that makes a few events per step and never looks
//! back, so that a trace of any length needs the memory of its live mappings
//! only.

mod history;
mod map_once;
mod mix;
mod nic;
mod nic_options;
mod nvme;
mod ring;
mod sva;
mod vfio_boot;

pub use history::RingSetting;
pub use map_once::MapOnceOptions;
pub use mix::{Member, MixOptions};
pub use nic_options::NicOptions;
pub use nvme::NvmeOptions;
pub use sva::SvaOptions;
pub use vfio_boot::VfioBootOptions;

use rand_pcg::Pcg64;

use super::choose::below;
use super::error::OptionError;
use super::linux::{DmaOptions, Out, Side};

/// log2 of the pages of a guest whose driver needs few: 4 GiB (A).
const FRAME_BITS: u32 = 20;

/// A device at work.
pub(crate) trait Device: std::fmt::Debug {
    /// What happened before the trace, as far as the trace needs it: attaches
    /// and maps. Called once.
    fn begin(&mut self, out: &mut Out);

    /// Time of the next step in ns; never decreases.
    fn now(&self) -> u64;

    /// Appends the events of one step, in order, none before
    /// [`now`](Device::now).
    fn step(&mut self, out: &mut Out);

    /// Takes steps until there are so many events or nothing more is to come;
    /// one call for many steps, which are then known to the compiler.
    fn fill(&mut self, out: &mut Out, events: usize) {
        while out.events.len() < events && !self.ended() {
            self.step(out);
        }
    }

    /// True if there is nothing more to come.
    fn ended(&self) -> bool {
        false
    }
}

/// What a workload is and does. Every parameter's default, its source and its
/// meaning stand at the field and in `docs/generating.md`.
#[derive(Clone, Debug)]
pub enum DeviceKind {
    /// A NIC's receive side, with or without recycled pages.
    Nic(NicOptions),
    /// An NVMe disk.
    Nvme(NvmeOptions),
    /// A GPU or RDMA card that maps its memory once.
    MapOnce(MapOnceOptions),
    /// A VMM that assigns a device and boots a guest.
    VfioBoot(VfioBootOptions),
    /// Processes that share their address space with a device.
    Sva(SvaOptions),
    /// Several tenants with one of these each.
    Mix(MixOptions),
}

impl DeviceKind {
    /// Its name on the command line and in files.
    pub fn name(&self) -> &'static str {
        match self {
            DeviceKind::Nic(o) if o.recycle > 0.0 => "nic-recycle",
            DeviceKind::Nic(_) => "nic-mlx5",
            DeviceKind::Nvme(_) => "nvme",
            DeviceKind::MapOnce(_) => "map-once",
            DeviceKind::VfioBoot(_) => "vfio-boot",
            DeviceKind::Sva(_) => "sva",
            DeviceKind::Mix(_) => "mix",
        }
    }

    /// Bytes of guest addresses that it uses at most, a power of two.
    fn memory(&self) -> u64 {
        let bits = match self {
            DeviceKind::Nic(_) | DeviceKind::Nvme(_) | DeviceKind::Mix(_) => FRAME_BITS,
            DeviceKind::MapOnce(o) => o.frame_bits(),
            DeviceKind::VfioBoot(o) => o.frame_bits(),
            DeviceKind::Sva(o) => o.frame_bits(),
        };
        // Frames begin at 4 GiB.
        ((1u64 << 32) + (4096 << bits)).next_power_of_two()
    }

    /// Checks limits.
    ///
    /// # Errors
    /// [`OptionError`], one sentence that names the option and its limit.
    pub fn check(&self, dma: &DmaOptions) -> Result<(), OptionError> {
        match self {
            DeviceKind::Nic(o) => o.check(dma),
            DeviceKind::Nvme(o) => o.check(dma),
            DeviceKind::MapOnce(o) => o.check(),
            DeviceKind::VfioBoot(o) => o.check(),
            DeviceKind::Sva(o) => o.check(),
            DeviceKind::Mix(o) => o.check(dma),
        }
    }

    /// All parameters by name, with units in the names.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        match self {
            DeviceKind::Nic(o) => o.parameters(),
            DeviceKind::Nvme(o) => o.parameters(),
            DeviceKind::MapOnce(o) => o.parameters(),
            DeviceKind::VfioBoot(o) => o.parameters(),
            DeviceKind::Sva(o) => o.parameters(),
            DeviceKind::Mix(o) => o.parameters(),
        }
    }

    /// The device, ready to begin.
    pub(crate) fn build(&self, dma: &DmaOptions, side: Side, seed: u64) -> Box<dyn Device> {
        match self {
            DeviceKind::Nic(o) => Box::new(nic::Nic::new(o.clone(), dma, side, seed)),
            DeviceKind::Nvme(o) => Box::new(nvme::Nvme::new(o.clone(), dma, side, seed)),
            DeviceKind::MapOnce(o) => Box::new(map_once::MapOnce::new(o.clone(), dma, side, seed)),
            DeviceKind::VfioBoot(o) => Box::new(vfio_boot::VfioBoot::new(o.clone(), side, seed)),
            DeviceKind::Sva(o) => Box::new(sva::Sva::new(o.clone(), dma, side, seed)),
            DeviceKind::Mix(o) => Box::new(mix::Mix::new(o, dma, side, seed)),
        }
    }
}

/// True with probability `share`.
#[inline]
fn chance(rng: &mut Pcg64, share: f64) -> bool {
    (below(rng, 1 << 32) as f64) < share * 4_294_967_296.0
}

/// A time with an exponential distribution.
fn exponential(rng: &mut Pcg64, mean: u64) -> u64 {
    let share = below(rng, 1 << 32) as f64 / 4_294_967_296.0;
    (-(1.0 - share).ln() * mean as f64) as u64
}
