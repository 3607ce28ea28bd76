//! QEMU's log of VT-d with the guest's ftrace.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = ioasim_traces_fuzz::joined(data);
});
