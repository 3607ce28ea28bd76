//! QEMU's log of a virtio-iommu.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = ioasim_traces_fuzz::virtio(data);
});
