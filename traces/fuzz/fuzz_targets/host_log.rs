//! QEMU's log of VFIO and iommufd.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = ioasim_traces_fuzz::host(data);
});
