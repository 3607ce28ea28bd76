//! Replays of three levels: the guest's table over the parent over a made-up
//! host, in every legal placement of hardware and software.

#[path = "common/world.rs"]
mod world;

use ioasim_sim::config::Config;
use ioasim_sim::parent_change::Kind as ChangePolicy;
use proptest::collection::vec;
use proptest::prelude::*;
use world::{Invalidations, cases, complete, config, step, trace, verified};

/// Placements in hardware of two stages, with what merges the upper two.
const HARDWARE: &str = "stages=[['l2'],['l1','l0']]";
const UPPER: &str = "stages=[['l2','l1'],['l0']]";
const ALL: &str = "stages=[['l2','l1','l0']]";

const SOFTWARE: [&str; 5] = [
    "sw-nested-map",
    "sw-nested-invalidate",
    "sw-nested-flush",
    "sw-nested-write-protect",
    "sw-nested-demand",
];

fn configs(layout: &str, policy: usize, tiny: bool) -> Vec<Config> {
    let layout = format!("host.layout={layout}");
    let change = format!("parent.change={}", ChangePolicy::ALL[policy].name());
    let mut all = Vec::new();
    let presets = SOFTWARE.iter().flat_map(|p| [(*p, UPPER), (*p, ALL)]);
    for (preset, stages) in presets.chain([("hw-nested", HARDWARE)]) {
        let mut settings = vec![stages, &layout, &change, "parent.epoch.step_entries=1"];
        if tiny {
            settings.extend(["iotlb.entries=6", "iotlb.ways=3", "nested_cache.entries=4"]);
            settings.extend(["pwc.stage1.2m={entries=2,ways=1}", "parent.layout=4k-scattered"]);
        }
        all.push(config(preset, &settings));
    }
    all
}

proptest! {
    #![proptest_config(cases(40))]

    /// The recorded outputs are the parent's; what the host makes of them is
    /// the only legal answer, and the same in every placement.
    #[test]
    fn placements_translate_alike(
        steps in vec(step(true), 1..120),
        invalidations in complete(),
        parent: bool,
        layout in proptest::sample::select(vec!["2m", "1g", "4k-scattered"]),
        policy in 0..ChangePolicy::ALL.len(),
        tiny: bool,
    ) {
        let only = |s: &&world::Step| {
            let of_parent = matches!(s, world::Step::ParentMap { .. } | world::Step::ParentUnmap { .. });
            parent || !of_parent
        };
        let steps: Vec<_> = steps.iter().filter(only).cloned().collect();
        let trace = trace(&steps, invalidations, parent);
        let mut first: Option<String> = None;
        for config in configs(layout, policy, tiny) {
            let name = format!("{} {:?} {layout} {policy}", config.name, config.stages);
            let (result, verify) = verified(&config, &trace);
            prop_assert!(verify.passed(), "{}: {:#?}", name, verify);
            prop_assert_eq!(result.counters.dma.faults, trace.faults, "{}", name);
            prop_assert_eq!(verify.translations, trace.dma - trace.faults, "{}", name);
            prop_assert_eq!(verify.stale_legal, 0, "{}", name);
            let first = first.get_or_insert_with(|| verify.outputs_fingerprint.clone());
            prop_assert_eq!(&verify.outputs_fingerprint, &*first, "{}", name);
        }
        // The host's level is really there: two levels give other addresses.
        let (_, two) = verified(&config("hw-nested", &[]), &trace);
        if trace.dma > trace.faults && !tiny {
            prop_assert_ne!(Some(two.outputs_fingerprint), first);
        }
    }

    /// Old or new is legal where invalidations are missing.
    #[test]
    fn without_invalidations(steps in vec(step(true), 1..100), policy in 0..ChangePolicy::ALL.len()) {
        let trace = trace(&steps, Invalidations::Missing, true);
        for config in configs("2m", policy, true) {
            let (_, verify) = verified(&config, &trace);
            prop_assert!(verify.passed(), "{} {:?}: {:#?}", config.name, config.stages, verify);
        }
    }
}
