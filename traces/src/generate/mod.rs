//! Parent-change workloads: over a recorded trace, or over a guest made up for
//! the purpose.
//!
//! A *parent change* alters where guest memory (GPA) lies in the host (HPA),
//! whether it is there at all, or who may write it: ballooning, virtio-mem,
//! memory hot-unplug, page migration, dirty logging by write protection,
//! post-copy. [`overlay_to_file`] adds such changes to a recorded trace and
//! keeps the recorded guest's events as they are and in order;
//! [`generate_to_file`] does the same to a [`SyntheticGuest`].
//! `docs/generating.md` explains parameters, rules and limits.
//!
//! [`device_to_file`] makes up devices and their drivers ([`DeviceKind`]) on the
//! Linux DMA API.
//!
//! Overlays read their input twice, first to learn which guest memory it uses.
//! Memory use is bounded by what the guest has mapped at once and by
//! [`Options::max_changes`], not by the trace's length.

mod balloon;
mod children;
mod choose;
mod device;
mod device_file;
mod error;
mod host;
mod hot_unplug;
mod linux;
mod options;
mod overlay;
mod pace;
mod page_migration;
mod post_copy;
pub(crate) mod range_map;
mod survey;
mod synthetic;
mod to_file;
mod virtio_mem;
mod workload;
mod write_protect;

pub(crate) use choose::below;
pub use device::{
    DeviceKind, MapOnceOptions, Member, MixOptions, NicOptions, NvmeOptions, RingSetting,
    SvaOptions, VfioBootOptions,
};
pub use device_file::{DeviceTrace, device_to_file};
pub use error::OptionError;
pub use linux::{DmaOptions, IovaDomain, Kernel, Unmap};
pub use options::{Distribution, Options, ParentPage, Rate, Workload};
pub use synthetic::SyntheticGuest;
pub(crate) use to_file::source_of;
pub use to_file::{Control, generate_to_file, overlay_to_file};
