//! QEMU's log of AMD-Vi, alone or with the guest's ftrace.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = ioasim_traces_fuzz::joined_or_alone(data);
});
