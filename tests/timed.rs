//! Simulated time on the command line.

mod common;

use common::{Scratch, ioasim, json, succeeds};
use serde_json::Value;

fn timed(command: &mut std::process::Command) -> &mut std::process::Command {
    command.args(["--set", "time.enabled=true"])
}

#[test]
fn results_are_byte_identical_on_any_number_of_threads_and_follow_the_schema() {
    let dir = Scratch::new();
    for threads in ["1", "2", "8"] {
        let out = dir.path(threads);
        let random = ["--set", "time.memory.spread_ns=50", "--set", "time.memory.llc_hit_rate=0.3"];
        let mut command = ioasim();
        command.args(["compare", "sample", "-j", threads, "-o"]).arg(out).args(random);
        let text = succeeds(timed(&mut command));
        assert!(text.lines().all(|l| l.chars().count() <= 80), "wider than 80 columns:\n{text}");
        assert!(text.contains("no time here was recorded"), "{text}");
    }
    for file in ["result.json", "index.html"] {
        let one = dir.read(&format!("1/{file}"));
        assert_eq!(one, dir.read(&format!("2/{file}")), "{file}");
        assert_eq!(one, dir.read(&format!("8/{file}")), "{file}");
    }
    let result = json(&dir.read("1/result.json"));
    let schema = json(ioasim_reports::RESULT_SCHEMA);
    let errors: Vec<String> = jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(&result)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    for run in result["runs"].as_array().unwrap() {
        keys_are_in_the_schema(&schema, &schema["$defs"]["timing"], &run["timing"]);
    }
}

fn keys_are_in_the_schema(root: &Value, schema: &Value, value: &Value) {
    let schema = match schema.get("$ref").and_then(Value::as_str) {
        Some(name) => root.pointer(name.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    match value {
        Value::Object(map) => {
            let known = schema["properties"].as_object().unwrap();
            assert_eq!(map.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
            for (key, value) in map {
                keys_are_in_the_schema(root, &known[key], value);
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|v| keys_are_in_the_schema(root, &schema["items"], v));
        }
        _ => {}
    }
}

/// What happens is decided by the functional replay; time changes nothing.
#[test]
fn time_changes_no_counter_and_verification_stays_clean() {
    // The sample's labels are those of QEMU's VT-d.
    let others = ["qemu-amdvi-7.2", "qemu-smmuv3-7.2"];
    for preset in ioasim_sim::config::preset_names().filter(|p| !others.contains(p)) {
        let run = |time: &str| {
            let mut command = ioasim();
            command.args(["replay", "sample", "-c", preset, "--verify", "--json", "-"]);
            json(&succeeds(command.args(["--set", time])))["runs"][0].clone()
        };
        let (with, without) = (run("time.enabled=true"), run("time.enabled=false"));
        for part in ["counters", "devices", "series", "verify"] {
            assert_eq!(with[part], without[part], "{preset}: {part}");
        }
        let checks = &with["timing"]["checks"];
        assert_eq!(checks["requests_in"], with["counters"]["dma"]["requests"], "{preset}");
        assert_eq!(checks["requests_done"], checks["requests_in"], "{preset}");
        assert_eq!(checks["cpu_ops_done"], checks["cpu_ops_in"], "{preset}");
        for zero in ["littles_law_residual_ps", "overbusy_resources", "stuck"] {
            assert_eq!(checks[zero], 0, "{preset}: {checks}");
        }
        assert!(without["timing"].is_null());
    }
}

#[test]
fn presets_show_where_each_constant_comes_from() {
    for (preset, line) in [
        ("intel-vtd", "read_ns = 197.0 # by the page walker (R: Fast & Safe"),
        ("arm-smmuv3", "hardware_ns = 230.0 # CMD_SYNC, empty queue, 190-270 (R: iommu list"),
        ("amd-vi", "read_ns = 150.0 # inside 50-200, no AMD measurement (A)"),
        ("riscv-iommu", "walkers = 4 # (A)"),
    ] {
        let shown = succeeds(ioasim().args(["preset", "show", preset]));
        let plain: Vec<String> =
            shown.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert!(plain.iter().any(|l| l.starts_with(line)), "{preset}: {line}\n{shown}");
        // Every constant of time has a tag or is a choice.
        let time = plain.iter().skip_while(|l| *l != "[time.device]");
        for l in time.filter(|l| l.split(" # ").next().unwrap().contains("_ns =")) {
            let tagged = ["(R", "(S", "(A", "(D"].iter().any(|tag| l.contains(tag));
            assert!(tagged, "{preset}: no tag: {l}");
        }
    }
}

#[test]
fn the_warm_up_is_left_out() {
    let run = |more: &[&str]| {
        let mut command = ioasim();
        command.args(["replay", "sample", "-c", "intel-vtd", "--json", "-"]).args(more);
        json(&succeeds(&mut command))["runs"][0]["timing"].clone()
    };
    let (all, part) = (run(&[]), run(&["--warm-up", "5000"]));
    let count = |t: &Value| t["latency"]["dma"]["count"].as_u64().unwrap();
    assert!(count(&part) < count(&all));
    assert!(part["elapsed_ns"].as_u64() < all["elapsed_ns"].as_u64());
    assert_eq!(part["checks"]["littles_law_residual_ps"], 0);
    assert_eq!(part["checks"]["requests_in"], all["checks"]["requests_in"]);
}

#[test]
fn a_warm_up_longer_than_the_trace_is_refused() {
    let mut command = ioasim();
    command.args(["replay", "sample", "-c", "intel-vtd", "--warm-up", "121836"]);
    let (code, _, err) = common::fails(&mut command);
    assert_eq!(code, 1);
    assert!(err.contains("121836") && err.contains("--warm-up"), "{err}");
}

#[test]
fn values_out_of_their_limits_are_refused_by_name() {
    for (set, key) in [
        ("time.device.outstanding=0", "time.device.outstanding"),
        ("time.memory.spread_ns=1e6", "time.memory.spread_ns"),
        ("time.memory.read_ns=nan", "time.memory.read_ns"),
        ("time.scale=-1.0", "time.scale"),
        ("time.iommu.walker=3", "time.iommu.walkers"),
    ] {
        let command = &mut ioasim();
        let (code, _, err) =
            common::fails(command.args(["replay", "sample", "-c", "hw-nested", "--set", set]));
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(key), "{set}: {err}");
    }
}
