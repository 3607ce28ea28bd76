//! What an importer made of a log, replayed under the preset of its IOMMU and
//! verified.
#![no_main]

use ioasim_sim::config::Config;
use libfuzzer_sys::fuzz_target;

thread_local! {
    static PRESETS: [Config; 3] = ioasim_traces_fuzz::presets();
}

fuzz_target!(|data: &[u8]| {
    let Some((report, events)) = ioasim_traces_fuzz::joined_or_alone(data) else { return };
    let preset = match report.importer {
        "qemu-amdvi" => 1,
        "qemu-smmuv3" => 2,
        _ => 0,
    };
    PRESETS.with(|p| ioasim_traces_fuzz::replay(&p[preset], &report, &events));
});
