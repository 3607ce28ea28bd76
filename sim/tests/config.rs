//! Configurations: presets, layers, limits and messages.

use ioasim_sim::config::{
    Config, ConfigError, Layer, Nesting, ReplacementKind, preset_names, preset_text, resolve,
};

fn preset(name: &str, settings: &[&str]) -> Result<Config, ConfigError> {
    let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
    resolve(&Layer::Preset(name.into()), &settings)
}

fn file(text: &str) -> Result<Config, ConfigError> {
    let layer = Layer::Text { origin: "my.toml".into(), text: text.into(), name: "my".into() };
    resolve(&layer, &[])
}

/// The message of a refusal; it must be one sentence on one line.
#[track_caller]
fn message(result: Result<Config, ConfigError>) -> String {
    let message = result.expect_err("must be refused").to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

/// A refusal that names every one of `parts`.
#[track_caller]
fn refused(result: Result<Config, ConfigError>, parts: &[&str]) {
    let message = message(result);
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing in: {message}");
    }
}

#[test]
fn every_preset_resolves_under_its_own_name() {
    let names: Vec<&str> = preset_names().collect();
    let required = [
        "passthrough",
        "hw-nested",
        "sw-nested-map",
        "sw-nested-invalidate",
        "sw-nested-flush",
        "qemu-vtd-7.2",
        "qemu-amdvi-7.2",
        "qemu-smmuv3-7.2",
    ];
    assert!(required.iter().all(|r| names.contains(r)), "{names:?}");
    for name in names {
        let config = preset(name, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(config.name, name);
        assert!(!config.description.is_empty());
        assert!(preset_text(name).is_some_and(|t| t.contains(name)));
        // What was resolved can be given as a file again.
        let text = toml::to_string(&config).unwrap();
        assert_eq!(file(&text).unwrap(), config, "{name}");
    }
}

#[test]
fn presets_differ_where_their_names_say() {
    let nesting = |name| preset(name, &[]).unwrap().nesting;
    assert_eq!(nesting("passthrough"), Nesting::None);
    assert_eq!(nesting("hw-nested"), Nesting::Hardware);
    for name in ["sw-nested-map", "sw-nested-invalidate", "sw-nested-flush"] {
        assert_eq!(nesting(name), Nesting::Software);
    }
    let qemu = preset("qemu-vtd-7.2", &[]).unwrap();
    assert_eq!(qemu.iotlb.replacement, ReplacementKind::FlushWhenFull);
    assert_eq!(qemu.iotlb.entries, 1024);
}

#[test]
fn stages_must_suit_the_hardware_and_the_nesting() {
    let three = "stages=[['l2','l1'],['l0']]";
    let placement = preset("sw-nested-map", &[three]).unwrap().three_levels().unwrap();
    assert!(placement.merged(2) && !placement.merged(1));
    let two = preset("hw-nested", &["stages=[['l1'],['l0']]"]).unwrap();
    assert!(two.three_levels().is_none());
    for (name, settings, words) in [
        ("hw-nested", &[three][..], &["stages", "merges l2 with l1", "software"][..]),
        ("sw-nested-map", &["stages=[['l2'],['l1','l0']]"], &["does not merge", "hardware"]),
        ("hw-nested", &["stages=[['l2'],['l1'],['l0']]"], &["3 hardware stages", "merge adjacent"]),
        ("sw-nested-map", &[three, "hardware_stages=1"], &["2 hardware stages", "at most 1"]),
        ("hw-nested", &["hardware_stages=1"], &["nesting", "one stage"]),
        ("hw-nested", &["hardware_stages=3"], &["hardware_stages", "1 to 2"]),
        ("sw-nested-map", &["stages=[['l2','l0'],['l1']]"], &["directly below"]),
        ("sw-nested-map", &["stages=[['l2','l1']]"], &["no stage contains", "l0"]),
        ("sw-nested-map", &["stages=[['l9','l1']]"], &["l9"]),
        ("passthrough", &["stages=[['l1'],['l0']]"], &["nesting = \"hardware\""]),
        ("sw-nested-map", &[three, "host.layout=identity"], &["host.layout", "4k-scattered"]),
        ("sw-nested-map", &[three, "host.levels=3"], &["host.levels", "4 or 5"]),
        ("sw-nested-map", &[three, "report.exposure=true"], &["report.exposure", "merge l0"]),
    ] {
        refused(preset(name, settings), words);
    }
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    refused(preset("hw-nestd", &[]), &["hw-nestd", "did you mean `hw-nested`"]);
    refused(preset("nonsense-xyzzy", &[]), &["nonsense-xyzzy", "preset list"]);
    refused(file("preset = \"sw-nested-mop\""), &["did you mean `sw-nested-map`"]);
    for (wrong, right) in [
        ("iotlb.entrys", "iotlb.entries"),
        ("iotlb.way", "iotlb.ways"),
        ("nestng", "nesting"),
        ("iotlb.replacment", "iotlb.replacement"),
        ("guest.caching-mode", "guest.caching_mode"),
        ("pwc.stage1.2M", "pwc.stage1.2m"),
        ("entries", "iotlb.entries"),
    ] {
        let hint = format!("did you mean `{right}`");
        refused(preset("hw-nested", &[&format!("{wrong}=1")]), &[wrong, &hint, "--set"]);
    }
    refused(file("[iotlb]\nentrys = 3"), &["my.toml", "iotlb.entrys", "iotlb.entries"]);
    refused(file("qqqqqqqqqqqqqq = 3"), &["qqqqqqqqqqqqqq", "preset show"]);
}

#[test]
fn sizes_out_of_their_limits_are_refused() {
    let hw = |settings: &[&str]| preset("hw-nested", settings);
    refused(hw(&["iotlb.ways=0"]), &["iotlb.ways = 0", "1 to 256 ways"]);
    refused(hw(&["iotlb.entries=0"]), &["iotlb.entries = 0", "1 to 16777216"]);
    refused(hw(&["iotlb.entries=1000000000000"]), &["1000000000000", "16777216 entries"]);
    refused(hw(&["iotlb.ways=7"]), &["iotlb.ways = 7", "divide the 256 entries"]);
    refused(hw(&["iotlb.ways=512"]), &["iotlb.ways = 512", "1 to 256 ways"]);
    refused(hw(&["nested_cache.ways=3"]), &["nested_cache.ways = 3", "128 entries"]);
    refused(hw(&["pwc.stage1.2m={entries=10,ways=4}"]), &["pwc.stage1.2m.ways = 4", "10 entries"]);
    refused(hw(&["pwc.stage2.1g.entries=99999999999"]), &["pwc.stage2.1g.entries", "16777216"]);
    refused(hw(&["parent.levels=6"]), &["parent.levels = 6", "3, 4 or 5"]);
    refused(hw(&["child.levels=2"]), &["child.levels = 2", "3, 4 or 5"]);
    refused(hw(&["report.intervals=0"]), &["report.intervals = 0", "1 to 10000"]);
    refused(hw(&["report.intervals=10001"]), &["report.intervals = 10001", "1 to 10000"]);
    refused(hw(&["guest.commands_per_trap=0"]), &["guest.commands_per_trap = 0", "1 to 32768"]);
    refused(hw(&["guest.commands_per_trap=32769"]), &["guest.commands_per_trap", "32768"]);
    refused(
        hw(&["guest.flush_queue.entries=0"]),
        &["guest.flush_queue.entries = 0", "1 to 16777216"],
    );
    refused(
        hw(&["guest.flush_queue.entries=16777217"]),
        &["guest.flush_queue.entries", "16777216"],
    );
    refused(hw(&["guest.unmap=lazily"]), &["lazily", "as-recorded", "strict", "lazy"]);
    refused(preset("qemu-vtd-7.2", &["guest.unmap=lazy"]), &["guest.unmap", "verify.labels"]);
    refused(hw(&["name="]), &["name", "1 to 100 characters"]);
    // At the limits.
    for fine in [
        "iotlb.ways=1",
        "iotlb.ways=256",
        "nested_cache.entries=0",
        "pwc.stage1.2m.entries=0",
        "parent.levels=3",
        "child.levels=5",
        "report.intervals=1",
        "report.exposure=true",
        "guest.commands_per_trap=32768",
        "guest.invalidation=range-split",
        "guest.unmap=strict",
        "guest.flush_queue.entries=16777216",
        "guest.flush_queue.timeout_us=9223372036854775807",
    ] {
        hw(&[fine]).unwrap_or_else(|e| panic!("{fine}: {e}"));
    }
    hw(&["iotlb.entries=16777216", "iotlb.ways=16777216"]).unwrap();
}

#[test]
fn values_of_the_wrong_type_are_refused() {
    for setting in ["iotlb.entries=-1", "iotlb.entries=many", "iotlb.entries=1.5", "seed=true"] {
        message(preset("hw-nested", &[setting]));
    }
    refused(preset("hw-nested", &["iotlb.replacement=mru"]), &["mru", "lru", "clock", "s3fifo"]);
    refused(
        preset("hw-nested", &["iotlb.replacement=oracle"]),
        &["iotlb.replacement=oracle", "used next", "trace export"],
    );
    refused(file("[iotlb]\nreplacement = \"oracle\""), &["my.toml", "Belady"]);
    refused(preset("hw-nested", &["guest.invalidation=split"]), &["split", "range-split"]);
    refused(preset("hw-nested", &["nesting=both"]), &["both", "hardware", "software"]);
    message(preset("hw-nested", &["iotlb=3"]));
    message(preset("hw-nested", &["iotlb.entries.x=3"]));
    refused(file("iotlb = ["), &["my.toml"]);
    refused(file("preset = 3"), &["my.toml", "preset"]);
}

#[test]
fn contradictions_are_refused() {
    let user = "child.ownership=user-managed";
    let host = "child.ownership=host-managed";
    refused(preset("sw-nested-map", &[user]), &["child.ownership", "host-managed"]);
    for name in
        ["sw-nested-invalidate", "sw-nested-flush", "sw-nested-write-protect", "sw-nested-demand"]
    {
        refused(preset(name, &[host]), &["child.ownership", "user-managed", "map-unmap"]);
    }
    refused(preset("sw-nested-invalidate", &["sync.policy=map-unmap"]), &["child.ownership"]);
    preset("sw-nested-invalidate", &["sync.policy=map-unmap", host]).unwrap();
    refused(preset("hw-nested", &[host]), &["child.ownership", "user-managed"]);
    refused(preset("hw-nested", &["parent.ownership=user-managed"]), &["parent.ownership"]);
    for how in ["low8", "domain"] {
        let set = format!("iotlb.page_match={how}");
        refused(preset("hw-nested", &[&set]), &["page_match", how, "flush-when-full"]);
    }
    refused(
        preset("qemu-vtd-7.2", &["guest.invalidation=page"]),
        &["guest.invalidation = \"page\"", "verify.labels", "as-recorded"],
    );
    preset("qemu-vtd-7.2", &["guest.invalidation=page", "verify.labels=false"]).unwrap();
    refused(preset("qemu-vtd-7.2", &["iotlb.ways=8"]), &["iotlb.ways = 8", "iotlb.entries"]);
}

#[test]
fn prefetching_and_partitions_must_suit_the_iotlb() {
    let fetch = "iotlb.prefetch.policy=sequential";
    let c = preset("hw-nested", &[fetch, "iotlb.prefetch.pages=8"]).unwrap();
    assert_eq!((c.iotlb.prefetch.policy.name(), c.iotlb.prefetch.pages), ("sequential", 8));
    refused(
        preset("qemu-vtd-7.2", &[fetch]),
        &["iotlb.prefetch.policy = \"sequential\"", "flush-when-full", "iotlb.replacement"],
    );
    refused(preset("hw-nested", &[fetch, "verify.labels=true"]), &["verify.labels", "none"]);
    refused(preset("hw-nested", &["iotlb.prefetch.pages=0"]), &["pages = 0", "1 to 64", "none"]);
    refused(preset("hw-nested", &["iotlb.prefetch.policy=next"]), &["sequential", "ring-aware"]);
    refused(preset("hw-nested", &["iotlb.prefetch.page=3"]), &["iotlb.prefetch.pages"]);
    preset("hw-nested", &["iotlb.partitions=32"]).unwrap();
    for parts in ["iotlb.partitions=0", "iotlb.partitions=3", "iotlb.partitions=64"] {
        refused(preset("hw-nested", &[parts]), &["iotlb.partitions", "32 sets", "iotlb.ways"]);
    }
    refused(
        preset("hw-nested", &["iotlb.partitions=2", "iotlb.tag=requester"]),
        &["iotlb.partitions = 2", "iotlb.tag", "domain"],
    );
}

#[test]
fn settings_have_several_forms() {
    let hw = |settings: &[&str]| preset("hw-nested", settings).unwrap();
    assert_eq!(hw(&["iotlb.entries=64"]).iotlb.entries, 64);
    assert_eq!(hw(&[" iotlb.entries = 64 "]).iotlb.entries, 64);
    assert_eq!(hw(&["iotlb.entries=1_024"]).iotlb.entries, 1024);
    // A bare word is a string; quotes work too.
    assert_eq!(hw(&["iotlb.replacement=clock"]).iotlb.replacement, ReplacementKind::Clock);
    assert_eq!(hw(&["iotlb.replacement=\"clock\""]).iotlb.replacement, ReplacementKind::Clock);
    for (name, kind) in [
        ("lfu", ReplacementKind::Lfu),
        ("srrip", ReplacementKind::Srrip),
        ("s3fifo", ReplacementKind::S3fifo),
    ] {
        assert_eq!(hw(&[&format!("iotlb.replacement={name}")]).iotlb.replacement, kind);
    }
    assert_eq!(hw(&["name=my run = 2"]).name, "my run = 2");
    // Segments may start with a digit, tables may be set whole.
    assert_eq!(hw(&["pwc.stage1.2m.entries=8"]).pwc.stage1.span_2m.entries, 8);
    let c = hw(&["pwc.stage1.2m={entries=6,ways=3}"]).pwc.stage1.span_2m;
    assert_eq!((c.entries, c.ways), (6, 3));
    // The last one wins, and checks see the end result only.
    let c = hw(&["iotlb.entries=64", "iotlb.entries=96", "iotlb.ways=3"]).iotlb;
    assert_eq!((c.entries, c.ways), (96, 3));
    refused(preset("hw-nested", &["iotlb.entries"]), &["iotlb.entries", "KEY=VALUE"]);
    message(preset("hw-nested", &["=3"]));
    message(preset("hw-nested", &["preset=sw-nested-map"]));
}

#[test]
fn files_build_on_a_preset() {
    let c = file("[iotlb]\nentries = 64").unwrap();
    assert_eq!((c.name.as_str(), c.nesting, c.iotlb.entries), ("my", Nesting::Hardware, 64));
    let c = file("preset = \"sw-nested-map\"\nname = \"other\"\n[iotlb]\nways = 4").unwrap();
    assert_eq!((c.name.as_str(), c.nesting, c.iotlb.ways), ("other", Nesting::Software, 4));
    assert_eq!(c.sync, preset("sw-nested-map", &[]).unwrap().sync);
}
