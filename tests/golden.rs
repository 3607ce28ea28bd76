//! Results are the same bytes in every build: debug and release, any number
//! of threads.

mod common;

use common::{Scratch, ioasim, json, succeeds};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What the runs below gave when this file was last changed on purpose. A
/// change of the model changes it too: look at what differs in the result, say
/// so in the changelog, and take the new one from the failure's message.
const FINGERPRINT: &str = "28217f37fa8613218846eeb6b0382bddf6208450589d4a66f45b0f969099c550";

/// Every nesting preset under simulated time, with random latencies, a device
/// TLB and prefetching, over the embedded sample.
const SETTINGS: [&str; 8] = [
    "time.enabled=true",
    "time.memory.spread_ns=50",
    "time.memory.llc_hit_rate=0.3",
    "time.ats.entries=8",
    "time.ats.ways=2",
    "time.iommu.walkers=3",
    "time.memory.outstanding=2",
    "iotlb.prefetch.policy=ring-aware",
];

/// The part of a result that is computed: no version, no paths.
fn fingerprint(result: &Value) -> String {
    let runs = result["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 5);
    let texts = runs.iter().map(|run| {
        let parts = ["counters", "devices", "series", "timing"];
        assert!(parts.iter().all(|part| !run[part].is_null()), "{run}");
        parts.map(|part| run[part].to_string()).concat()
    });
    let digest = Sha256::digest(texts.collect::<String>());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn debug_and_release_builds_agree_on_any_number_of_threads() {
    let dir = Scratch::new();
    for threads in ["1", "2", "8"] {
        let mut command = ioasim();
        command.args(["compare", "sample", "-j", threads, "-o"]).arg(dir.path(threads));
        SETTINGS.iter().for_each(|s| {
            command.args(["--set", s]);
        });
        succeeds(&mut command);
        let found = fingerprint(&json(&dir.read(&format!("{threads}/result.json"))));
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        assert_eq!(found, FINGERPRINT, "{build} build, {threads} threads");
    }
}
