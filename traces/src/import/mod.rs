//! Importers: text logs to events.
//!
//! * [`qemu_log`]: a log of QEMU's emulated VT-d, AMD-Vi or SMMUv3, alone or
//!   with the guest's ftrace;
//! * [`kernel_trace`]: a kernel's ftrace, trace-cmd or perf recording alone;
//! * [`host_log`]: a log of QEMU's VFIO and iommufd alone;
//! * [`virtio_iommu`]: a log of QEMU's virtio-iommu;
//! * [`bundle`]: software nesting recorded at four levels.
//!
//! `docs/importing.md` tells users what is recorded, what is inferred and
//! what each count means.

mod alone;
mod anchors;
mod attribute;
mod bundle;
mod bundle_events;
mod bundle_scan;
pub(crate) mod bytes;
mod clock;
mod desc;
mod emit;
mod evidence;
mod ftrace;
mod ftrace_line;
mod host;
mod iotlb;
mod join;
mod joined;
mod kernel;
mod lines;
mod model;
mod nested;
mod order;
mod own;
mod pairing;
mod parent;
mod qemu;
mod qemu_line;
mod report;
mod single;
mod tables;
mod to_file;
mod virtio;
mod votes;
mod window;

pub(crate) use clock::OUTLYING_NS;
pub use host::host_log;
pub use kernel::kernel_trace;
pub use lines::{EventSink, LineSource, MemoryLines, MemorySink};
pub use nested::{BundleInputs, bundle};
pub use report::{DamagedLine, ImportReport, Options};
pub use single::qemu_log;
pub use to_file::{Inputs, TextKind, import_to_file, sniff};
pub use virtio::virtio_iommu;
