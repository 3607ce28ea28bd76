//! `trace overlay` and `trace generate` as their users meet them.

mod common;

use common::{Scratch, fails, ioasim, json, succeeds};
use ioasim_traces::file::TraceReader;

const WORKLOADS: [&str; 6] =
    ["balloon", "virtio-mem", "hot-unplug", "page-migration", "write-protect", "post-copy"];

/// Verifies under hardware nesting and every software-nested preset, and
/// returns one result.
fn verify(path: &std::path::Path) -> serde_json::Value {
    let mut last = serde_json::Value::Null;
    for preset in ioasim_sim::config::preset_names().filter(|p| p.contains("-nested")) {
        let mut command = ioasim();
        command.arg("replay").arg(path).args(["-c", preset, "--verify", "--json", "-"]);
        last = json(&succeeds(&mut command))["runs"][0].clone();
        assert_eq!(last["counters"]["dma"]["faults"], 0, "{preset}");
    }
    last
}

#[test]
fn the_sample_verifies_under_every_workload() {
    let dir = Scratch::new();
    let out = dir.path("o.parquet");
    let before = {
        let mut command = ioasim();
        command.args(["replay", "sample", "-c", "hw-nested", "--json", "-"]);
        json(&succeeds(&mut command))["runs"][0]["counters"].clone()
    };
    for workload in WORKLOADS {
        let mut command = ioasim();
        command.args(["trace", "overlay", "sample", "-w", workload, "--every", "2000", "-o"]);
        let said = succeeds(command.arg(&out));
        assert!(said.contains("overlay_operations"), "{said}");
        let run = verify(&out);
        assert_eq!(run["counters"]["dma"]["requests"], before["dma"]["requests"], "{workload}");
        assert_eq!(run["provenance"]["parent_recorded"], false);
        let layout = run["provenance"]["parent_layout"].as_str().unwrap();
        assert!(layout.contains(workload) && layout.starts_with("2m"), "{layout}");
        let changes = &run["counters"]["parent"];
        assert!(changes["maps"].as_u64().unwrap() > 0, "{workload}: {changes}");
        // Where it came from.
        let reader = TraceReader::open(&out).unwrap();
        let source = reader.meta().sources.last().unwrap();
        assert_eq!(source.role, "trace");
        assert_eq!(source.bytes, ioasim_traces::sample().len() as u64);
        let info = succeeds(ioasim().args(["trace", "info"]).arg(&out));
        assert!(info.contains("OVERLAID") && info.contains(&source.sha256), "{info}");
    }
}

#[test]
fn an_overlay_can_be_laid_on_an_overlay() {
    let dir = Scratch::new();
    let (one, two) = (dir.path("1.parquet"), dir.path("2.parquet"));
    let overlay = |from: &str, workload: &str, to: &std::path::Path| {
        let args = ["trace", "overlay", from, "-w", workload, "--every", "5000", "-o"];
        succeeds(ioasim().args(args).arg(to))
    };
    overlay("sample", "balloon", &one);
    overlay(one.to_str().unwrap(), "page-migration", &two);
    let run = verify(&two);
    let layout = run["provenance"]["parent_layout"].as_str().unwrap();
    assert_eq!(layout, "2m, changed by workload balloon, page-migration");
}

#[test]
fn made_up_guests_verify_and_do_not_claim_to_be_recorded() {
    let dir = Scratch::new();
    for (workload, more) in [
        ("balloon", vec!["--overlap", "0.5", "--distribution", "zipf", "--zipf", "1.2"]),
        ("virtio-mem", vec!["--in-use", "--parent-page", "4k"]),
        ("page-migration", vec!["--size", "2M", "--batch", "2", "--parent-page", "1g"]),
        ("write-protect", vec!["--passes", "2", "--writes", "0.1"]),
        ("post-copy", vec!["--per-second", "1000", "--churn", "1"]),
    ] {
        let out = dir.path("g.parquet");
        let mut command = ioasim();
        command.args(["trace", "generate", "parent-change", "-w", workload, "--accesses", "4000"]);
        command.args(["--entries", "200"]).args(more);
        if workload != "post-copy" {
            command.args(["--every", "100"]);
        }
        succeeds(command.arg("-o").arg(&out));
        verify(&out);
        let info = succeeds(ioasim().args(["trace", "info"]).arg(&out));
        assert!(info.contains("nothing was recorded"), "{info}");
    }
}

#[test]
fn results_tell_what_was_made_up() {
    let dir = Scratch::new();
    let (made, over, both) = (dir.path("n.parquet"), dir.path("o.parquet"), dir.path("b.parquet"));
    succeeds(ioasim().args(["trace", "generate", "nvme", "--events", "2000", "-o"]).arg(&made));
    let overlay = ["trace", "overlay", "sample", "-w", "balloon", "--every", "2000", "-o"];
    succeeds(ioasim().args(overlay).arg(&over));
    let replay = |path: &std::path::Path| {
        let mut command = ioasim();
        json(&succeeds(command.arg("replay").arg(path).args(["-c", "hw-nested", "--json", "-"])))
    };
    // Nothing of it was recorded, and its parent is the configuration's.
    let result = replay(&made);
    let all = &result["trace"]["made_up"];
    assert_eq!((&all["all"], &all["workloads"][0]), (&true.into(), &"nvme".into()));
    assert_eq!(all["events"], result["trace"]["counts"]);
    assert_eq!(result["runs"][0]["provenance"]["parent_layout"], "2m");
    let text = succeeds(ioasim().arg("compare").arg(&made).arg("-o").arg(dir.path("r")));
    assert!(text.lines().next().unwrap().ends_with(" made up"), "{text}");
    let info = succeeds(ioasim().args(["trace", "info"]).arg(&made));
    assert!(info.contains("made up") && !info.contains("recorded clock, not real"), "{info}");
    // What was laid over a recording is counted apart from it.
    let result = replay(&over);
    let added = &result["trace"]["made_up"];
    assert_eq!(added["all"], false);
    for kind in ["parent_map", "parent_unmap"] {
        assert!(added["events"][kind].as_u64().unwrap() > 0);
        assert_eq!(added["events"][kind], result["trace"]["counts"][kind]);
    }
    assert!(replay(std::path::Path::new("sample"))["trace"].get("made_up").is_none());
    // Of a merge with a recording it is not true that nothing was recorded.
    let mut command = ioasim();
    command.args(["trace", "merge"]).args([&made, &over]).arg("-o").arg(&both);
    succeeds(&mut command);
    let merged = &replay(&both)["trace"]["made_up"];
    assert_eq!((&merged["all"], &merged["workloads"][0]), (&false.into(), &"nvme".into()));
}

#[test]
fn bad_options_are_usage_errors_of_one_sentence() {
    let dir = Scratch::new();
    let out = dir.path("o.parquet");
    for (workload, options, says) in [
        ("balloon", "--size 3000", "power of two"),
        ("balloon", "--size 2G", "4K to 1G"),
        ("virtio-mem", "--size 4K", "1M to 64G"),
        ("hot-unplug", "--size 128G", "2M to 64G"),
        ("balloon", "--batch 0", "1 to 1000000"),
        ("balloon", "--batch 99999999999", "1 to 1000000"),
        ("balloon", "--every 0", "at least 1"),
        ("balloon", "--per-second 0", "above 0"),
        ("balloon", "--per-second -1", "above 0"),
        ("balloon", "--per-second nan", "above 0"),
        ("balloon", "--per-second inf", "at most 1e9"),
        ("balloon", "--zipf 1", "--distribution zipf"),
        ("balloon", "--distribution zipf --zipf 0", "above 0"),
        ("balloon", "--distribution zipf --zipf nan", "above 0"),
        ("balloon", "--target 0", "1 to 95"),
        ("balloon", "--target 100", "1 to 95"),
        ("balloon", "--passes 3", "write-protect"),
        ("page-migration", "--target 10", "keeps no memory away"),
        ("page-migration", "--in-use", "in use anyway"),
        ("write-protect", "--distribution hot", "dirty pages"),
        ("write-protect", "--batch 4", "one pass"),
        ("post-copy", "--distribution hot", "asked for"),
        ("post-copy", "--max-changes 0", "1 to 100000000"),
    ] {
        let mut command = ioasim();
        command.args(["trace", "overlay", "sample", "-w", workload, "-o"]).arg(&out);
        let (code, _, err) = fails(command.args(options.split(' ')));
        assert_eq!(code, 2, "{options}: {err}");
        assert!(err.contains(says), "{options}: {err}");
        assert_eq!(err.trim().lines().count(), 1, "{options}: {err}");
        assert!(!out.exists());
    }
    for (options, says) in [
        ("--children 0", "1 to 4096"),
        ("--children 5000", "1 to 4096"),
        ("--entries 0", "at least 1"),
        ("--entries 18446744073709551615", "16777216"),
        ("--children 4096 --entries 5000", "16777216"),
        ("--accesses 18446744073709551615", "1e11"),
        ("--memory 4K", "1M to"),
        ("--memory 1M --children 1000", "page for each child"),
        ("--overlap 1.5", "0 to 1"),
        ("--churn -0.1", "0 to 1"),
        ("--writes nan", "0 to 1"),
    ] {
        let mut command = ioasim();
        command.args(["trace", "generate", "parent-change", "-w", "balloon", "-o"]).arg(&out);
        let (code, _, err) = fails(command.args(options.split(' ')));
        assert_eq!(code, 2, "{options}: {err}");
        assert!(err.contains(says), "{options}: {err}");
        assert!(!out.exists());
    }
    // What clap itself refuses.
    for options in ["--every 5 --per-second 5", "--size 4X", "--distribution best", "--seed -1"] {
        let mut command = ioasim();
        command.args(["trace", "overlay", "sample", "-w", "balloon", "-o"]).arg(&out);
        assert_eq!(fails(command.args(options.split(' '))).0, 2, "{options}");
    }
    let (code, _, _) = fails(ioasim().args(["trace", "overlay", "sample", "-o"]).arg(&out));
    assert_eq!(code, 2, "no workload");
}

#[test]
fn outputs_appear_complete_or_not_at_all() {
    let dir = Scratch::new();
    let trace = dir.path("t.parquet");
    std::fs::write(&trace, ioasim_traces::sample()).unwrap();
    let overlay = |from: &std::path::Path, to: &std::path::Path| {
        let mut command = ioasim();
        command.args(["trace", "overlay", "-w", "balloon"]).arg(from).arg("-o").arg(to);
        command
    };
    let (code, _, err) = fails(&mut overlay(&trace, &trace));
    assert_eq!(code, 2);
    assert!(err.contains("t.parquet") && err.contains("another name"), "{err}");
    assert_eq!(std::fs::read(&trace).unwrap(), ioasim_traces::sample());
    let (code, _, err) = fails(&mut overlay(&trace, &dir.path("no/o.parquet")));
    assert_eq!(code, 1);
    assert!(err.contains("no/o.parquet"), "{err}");
    // Damaged in the middle: the footer is read, the events are not.
    let mut bytes = ioasim_traces::sample().to_vec();
    let middle = bytes.len() / 3;
    bytes[middle..middle + 64].iter_mut().for_each(|b| *b ^= 0x5a);
    dir.write_bytes("bad.parquet", &bytes);
    let (code, _, err) = fails(&mut overlay(&dir.path("bad.parquet"), &dir.path("o.parquet")));
    assert_eq!(code, 1);
    assert!(err.contains("bad.parquet"), "{err}");
    let mut names = dir.names();
    names.sort();
    assert_eq!(names, ["bad.parquet", "t.parquet"], "nothing is left behind");
}

#[test]
fn help_names_units_and_defaults() {
    let help = succeeds(ioasim().args(["trace", "overlay", "--help"]));
    for word in ["Bytes of a unit", "default: 1000", "virtio-mem 2M", "per second", "seed"] {
        assert!(help.to_lowercase().contains(&word.to_lowercase()), "{word} is missing in {help}");
    }
    let help = succeeds(ioasim().args(["trace", "generate", "parent-change", "--help"]));
    assert!(help.contains("--children") && help.contains("[default: 4]"), "{help}");
}
