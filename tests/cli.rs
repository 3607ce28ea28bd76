//! The command line as its users meet it: results, exit codes, bad input.

mod common;

use common::{Scratch, dma, fails, ioasim, json, map, succeeds, unmap, write_trace};
use ioasim_sim::events::{DomainId, Event, Flags, Kind, Requester};

#[test]
fn the_sample_compares_on_a_bare_clone() {
    let dir = Scratch::new();
    let out = succeeds(ioasim().args(["compare", "-o"]).arg(dir.path("report")));
    for preset in
        ["passthrough", "hw-nested", "sw-nested-map", "sw-nested-invalidate", "sw-nested-flush"]
    {
        assert!(out.contains(preset), "{preset} is missing in\n{out}");
    }
    assert!(out.lines().all(|l| l.chars().count() <= 80), "wider than 80 columns:\n{out}");
    let result = json(&dir.read("report/result.json"));
    assert_eq!(result["schema"], "ioasim.result/1");
    assert_eq!(result["runs"].as_array().unwrap().len(), 5);
    assert_eq!(dir.read("report/runs.csv").lines().count(), 6);
    let schema = json(ioasim_reports::RESULT_SCHEMA);
    let errors: Vec<String> = jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(&result)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn studies_are_listed_and_unknown_ones_are_usage_errors() {
    let out = succeeds(ioasim().args(["study", "list"]));
    assert!(out.starts_with("parent-change "), "{out}");
    let (code, _, message) = fails(ioasim().args(["study", "no-such-study"]));
    assert_eq!(code, 2, "{message}");
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let dir = Scratch::new();
    for threads in ["1", "2", "8"] {
        let out = dir.path(threads);
        succeeds(ioasim().args(["compare", "--verify", "-j", threads, "-o"]).arg(out));
    }
    for file in ["result.json", "index.html", "runs.csv"] {
        let one = dir.read(&format!("1/{file}"));
        assert_eq!(one, dir.read(&format!("2/{file}")));
        assert_eq!(one, dir.read(&format!("8/{file}")));
    }
}

/// False for presets that claim to be a machine that did not make the sample.
fn not_of_another_machine(preset: &&str) -> bool {
    !["qemu-amdvi-7.2", "qemu-smmuv3-7.2"].contains(preset)
}

#[test]
fn the_sample_verifies_under_every_preset() {
    // The sample's labels are those of QEMU's VT-d.
    for preset in ioasim_sim::config::preset_names().filter(not_of_another_machine) {
        let out =
            succeeds(ioasim().args(["replay", "sample", "-c", preset, "--verify", "--json", "-"]));
        let run = &json(&out)["runs"][0];
        let verify = &run["verify"];
        assert_eq!(verify["target_mismatches"], 0, "{preset}: {verify}");
        assert_eq!(verify["reference_mismatches"], 0, "{preset}: {verify}");
        assert_eq!(verify["invariant_violations"], 0, "{preset}: {verify}");
        assert_eq!(verify["hit_label_mismatches"], 0, "{preset}: {verify}");
        assert_eq!(verify["translations"], run["counters"]["dma"]["requests"], "{preset}");
        if preset == "qemu-vtd-7.2" {
            assert_eq!(verify["hit_labels"], run["counters"]["dma"]["requests"]);
        }
    }
}

#[test]
fn a_failing_verification_fails_the_run_and_shows_event_numbers() {
    let mut command = ioasim();
    // Half of QEMU's entries: the labels cannot all be met.
    command.args(["replay", "sample", "-c", "qemu-vtd-7.2", "--verify"]);
    command.args(["--set", "iotlb.entries=16", "--set", "iotlb.ways=16"]);
    let (code, out, err) = fails(&mut command);
    assert_eq!(code, 1);
    assert!(err.contains("verification found differences"), "{err}");
    assert!(out.contains("event"), "{out}");
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    for (args, near) in [
        (vec!["-c", "hw-nestd"], "hw-nested"),
        (vec!["-c", "hw-nested", "--set", "iotlb.entrys=4"], "iotlb.entries"),
        (vec!["-c", "hw-nested", "--set", "entries=4"], "iotlb.entries"),
        (vec!["-c", "hw-nested", "--set", "pwc.stage1.2m.way=4"], "pwc.stage1.2m.ways"),
    ] {
        let (code, _, err) = fails(ioasim().args(["replay", "sample"]).args(&args));
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(&format!("`{near}`")), "{args:?}: {err}");
    }
}

#[test]
fn impossible_sizes_are_refused_with_their_limit() {
    for (setting, limit) in [
        ("iotlb.ways=0", "1 to 256 ways"),
        ("iotlb.entries=1000000000000", "16777216"),
        ("iotlb.entries=0", "1 to"),
        ("iotlb.ways=7", "divide"),
        ("nested_cache.ways=0", "ways"),
        ("pwc.stage2.1g.entries=1000000000000", "16777216"),
        ("parent.levels=9", "3, 4 or 5"),
        ("child.levels=2", "3, 4 or 5"),
        ("report.intervals=0", "intervals"),
        ("seed=-1", "seed"),
        ("iotlb.replacement=mru", "lru"),
        ("child.ownership=host-managed", "user-managed"),
        ("iotlb.page_match=low8", "exact"),
        ("nonsense", "KEY=VALUE"),
    ] {
        let args = ["replay", "sample", "-c", "hw-nested", "--set", setting];
        let (code, _, err) = fails(ioasim().args(args));
        assert_eq!(code, 2, "{setting}: {err}");
        assert!(err.contains(limit), "{setting}: {err}");
        assert_eq!(err.trim().lines().count(), 1, "one sentence, please: {err}");
    }
}

#[test]
fn mistakes_in_configurations_are_wrong_usage_and_say_what_is_wrong() {
    let dir = Scratch::new();
    let absent = dir.path("nosuch.toml");
    let (code, _, err) = fails(ioasim().args(["replay", "sample", "-c"]).arg(&absent));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("nosuch.toml") && err.contains("preset list"), "{err}");
    for (setting, said) in [
        ("preset=hw-nested", "choose it with -c"),
        (
            "iotlb.entries=18446744073709551616",
            "out of range; a number is at most 9223372036854775807",
        ),
        ("iotlb.entries=many", "invalid type: string \"many\""),
    ] {
        let args = ["replay", "sample", "-c", "hw-nested", "--set", setting];
        let (code, _, err) = fails(ioasim().args(args));
        assert_eq!(code, 2, "{setting}: {err}");
        assert!(err.contains(said) && !err.contains("did you mean"), "{setting}: {err}");
    }
    for (text, said) in [
        ("name = \"x\"\n\n[iotlb\n", "bad.toml: line 3: "),
        ("seed = 1\nseed = 2\n", "bad.toml: line 2: "),
        (
            "[iotlb]\nentries = 99999999999999999999\n",
            "line 2: 99999999999999999999 is out of range",
        ),
    ] {
        dir.write("bad.toml", text);
        let bad = dir.path("bad.toml");
        let (code, _, err) = fails(ioasim().args(["replay", "sample", "-c"]).arg(&bad));
        assert_eq!(code, 2, "{text}: {err}");
        assert!(err.contains(said), "{text}: {err}");
    }
}

#[test]
fn a_warm_up_without_simulated_time_is_not_ignored() {
    let dir = Scratch::new();
    let replay = vec!["replay", "sample", "-c", "hw-nested"];
    let out = dir.path("report");
    for command in [replay.clone(), vec!["compare", "-o", out.to_str().unwrap()]] {
        let (code, _, err) = fails(ioasim().args(command).args(["--warm-up", "100"]));
        assert_eq!(code, 2, "{err}");
        assert!(err.contains("--warm-up") && err.contains("--set time.enabled=true"), "{err}");
    }
    assert!(!out.exists());
    succeeds(ioasim().args(replay).args(["--warm-up", "100", "--set", "time.enabled=true"]));
}

#[test]
fn long_names_of_presets_stand_apart_from_their_descriptions() {
    let out = succeeds(ioasim().args(["preset", "list"]));
    for (name, line) in ioasim_sim::config::preset_names().zip(out.lines()) {
        assert!(line.starts_with(&format!("{name}  ")), "{line}");
    }
}

#[test]
fn a_part_that_is_not_there_is_answered_with_what_is() {
    let dir = Scratch::new();
    let out = dir.path("t.parquet");
    let slice = || {
        let mut command = ioasim();
        command.args(["trace", "slice", "sample", "-o"]).arg(&out);
        command
    };
    for (code, args, said) in [
        (2, ["--device", "foo"], "write it as BB:DD.F"),
        (1, ["--device", "ff:1f.7"], "no device ff:1f.7; its devices are 00:00.0, 00:01.0, "),
        (1, ["--domain", "77"], "no domain 77; its domains are 2, 3, "),
        (1, ["--after-marker", "no"], "\"no\"; there are \"work begin mixed\", \"work end mixed\""),
        (1, ["--before-marker", "no"], "\"no\"; there are \"work begin mixed\", "),
    ] {
        let (found, _, err) = fails(slice().args(args));
        assert_eq!(found, code, "{args:?}: {err}");
        assert!(err.contains(said), "{args:?}: {err}");
        assert!(!out.exists(), "{args:?}");
    }
    // Behind its end, the beginning is no more.
    let (_, _, err) =
        fails(slice().args(["--after-marker", "work end", "--before-marker", "work begin"]));
    assert!(err.contains("behind the start"), "{err}");
    succeeds(slice().args(["--after-marker", "work begin", "--before-marker", "work end"]));
    assert!(out.exists());
    let info = succeeds(ioasim().args(["trace", "info", "sample"]));
    assert!(info.contains("\nMarkers\n") && info.contains("  work begin mixed\n"), "{info}");
}

#[test]
fn sql_on_the_sample_needs_a_file() {
    let dir = Scratch::new();
    let (code, out, err) = fails(ioasim().args(["trace", "export", "sample", "--sql"]));
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("trace slice sample -o"), "{err}");
    let file = dir.path("sample.parquet");
    succeeds(ioasim().args(["trace", "slice", "sample", "-o"]).arg(&file));
    let sql = succeeds(ioasim().args(["trace", "export", "--sql"]).arg(&file));
    assert!(sql.contains(&format!("read_parquet('{}'", file.display())), "{sql}");
}

/// Commands below a help text's command, from its list.
fn commands_of(help: &str) -> Vec<String> {
    let list = help.split_once("Commands:\n").map_or("", |h| h.1);
    let of_list = list.lines().take_while(|line| line.starts_with("  "));
    let named = of_list.filter(|line| !line.starts_with("    "));
    let names = named.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(String::from).collect()
}

#[test]
fn no_help_is_wider_than_a_terminal() {
    let mut left = vec![Vec::<String>::new()];
    let mut seen = 0;
    while let Some(path) = left.pop() {
        seen += 1;
        for option in ["-h", "--help"] {
            let help = succeeds(ioasim().args(&path).arg(option));
            let wide = help.lines().find(|line| line.chars().count() > 80);
            assert_eq!(wide, None, "{path:?} {option}");
            if option == "-h" {
                let below = commands_of(&help).into_iter();
                left.extend(below.map(|name| [path.clone(), vec![name]].concat()));
            }
        }
    }
    assert!(seen > 25, "only {seen} commands were found");
}

#[test]
fn configuration_files_build_on_presets() {
    let dir = Scratch::new();
    let own = "preset = \"sw-nested-map\"\n[iotlb]\nentries = 64\nways = 64\n";
    dir.write("mine.toml", own);
    let run = |file: &str| {
        let out =
            succeeds(ioasim().args(["replay", "sample", "--json", "-", "-c"]).arg(dir.path(file)));
        json(&out)["runs"][0]["config"].clone()
    };
    let config = run("mine.toml");
    assert_eq!(config["name"], "mine");
    assert_eq!(config["sync"]["policy"], "map-unmap");
    assert_eq!(config["iotlb"]["entries"], 64);
    let shown = succeeds(ioasim().args(["preset", "show", "sw-nested-flush"]));
    dir.write("shown.toml", &shown);
    assert_eq!(run("shown.toml")["sync"]["policy"], "invalidate-full");
    for bad in ["name = 3", "[iotlb", "iotlb = 7", "preset = 1", "preset = \"nope\""] {
        dir.write("bad.toml", bad);
        let (code, _, err) =
            fails(ioasim().args(["replay", "sample", "-c"]).arg(dir.path("bad.toml")));
        assert_eq!(code, 2, "{bad}: {err}");
        assert!(err.contains("bad.toml") || err.contains("nope"), "{bad}: {err}");
    }
}

#[test]
fn broken_traces_are_refused() {
    let dir = Scratch::new();
    let whole = ioasim_traces::sample();
    dir.write_bytes("cut.parquet", &whole[..whole.len() / 2]);
    dir.write_bytes("short.parquet", &whole[..6]);
    dir.write_bytes("empty.parquet", b"");
    dir.write("text.parquet", "14372@1795403830.414859:vtd_context_cache_reset\n");
    let mut flipped = whole.to_vec();
    let middle = flipped.len() / 3;
    flipped[middle..middle + 64].iter_mut().for_each(|b| *b ^= 0x5a);
    dir.write_bytes("flipped.parquet", &flipped);
    for file in ["cut", "short", "empty", "text", "flipped", "absent"] {
        let path = dir.path(&format!("{file}.parquet"));
        for command in [vec!["replay", "-c", "hw-nested"], vec!["trace", "info"]] {
            let (code, _, err) = fails(ioasim().args(command).arg(&path));
            assert_eq!(code, 1, "{file}: {err}");
            assert!(err.contains(file) && !err.contains("panicked"), "{file}: {err}");
        }
        let (code, _, err) =
            fails(ioasim().arg("compare").arg(&path).arg("-o").arg(dir.path("out")));
        assert_eq!(code, 1, "{file}: {err}");
        assert!(!dir.path("out").exists(), "{file}: nothing half-written");
    }
}

#[test]
fn an_empty_trace_is_no_error_and_divides_by_nothing() {
    let dir = Scratch::new();
    write_trace(&dir.path("none.parquet"), &[]);
    let out = succeeds(
        ioasim().arg("compare").arg(dir.path("none.parquet")).arg("-o").arg(dir.path("report")),
    );
    assert!(!out.contains("NaN") && !out.contains("inf"), "{out}");
    let html = dir.read("report/index.html");
    let (page, _script) = html.rsplit_once("<script").unwrap();
    assert!(!page.contains("NaN"));
    succeeds(ioasim().args(["trace", "info"]).arg(dir.path("none.parquet")));
}

#[test]
fn contradictory_events_are_counted() {
    let dir = Scratch::new();
    let far = Event { addr: 1 << 60, ..dma(1, 0) };
    let stranger = Event { domain: DomainId::NONE, requester: Requester(0x99), ..dma(1, 0x1000) };
    let faulted = Event { flags: Flags::FAULT, ..dma(1, 0x77_0000) };
    let events = [
        map(1, 0x1000, 0x50_0000, 0x1000),
        map(1, 0x1000, 0x60_0000, 0x1000), // overlaps
        unmap(1, 0x9000, 0x1000),          // nothing there
        unmap(2, 0x9000, 0x1000),          // no such domain
        dma(1, 0x1000),
        Event { flags: Flags::OUT_KNOWN, ..dma(1, 0x5000) }, // not mapped
        far,
        stranger,
        faulted,
    ];
    write_trace(&dir.path("t.parquet"), &events);
    let out = succeeds(
        ioasim().args(["replay", "-c", "hw-nested", "--json", "-"]).arg(dir.path("t.parquet")),
    );
    let c = &json(&out)["runs"][0]["counters"];
    let d = &c["diagnostics"];
    assert_eq!(d["overlapping_maps"], 1, "{c}");
    assert_eq!(d["unmaps_of_unmapped"], 2, "{c}");
    assert_eq!(d["unattributed"], 1, "{c}");
    assert_eq!(c["dma"]["requests"], 5, "{c}");
    assert_eq!(c["dma"]["faults"], 4, "{c}");
    assert_eq!(d["fault_differences"], 1, "{c}");
}

#[test]
fn names_with_markup_are_escaped_in_the_report() {
    let dir = Scratch::new();
    let evil = "<script>alert(1)</script>";
    dir.write("evil.toml", &format!("name = \"{evil}\"\ndescription = \"<img src=x>\""));
    let trace = dir.path("<b>t.parquet");
    let marker = Event::new(Kind::Marker);
    let events = [map(1, 0, 0x5000, 0x1000), dma(1, 0x10), marker];
    common::write_trace_with_text(&trace, &events, "<script>mark()</script>");
    let mut command = ioasim();
    command.arg("compare").arg(&trace).arg("-c").arg(dir.path("evil.toml"));
    succeeds(command.args(["-c", "hw-nested", "-o"]).arg(dir.path("report")));
    let html = dir.read("report/index.html");
    for raw in ["<script>alert", "<script>mark", "<img src=x", "<b>t.parquet"] {
        assert!(!html.contains(raw), "{raw} is in the page");
    }
    assert!(html.contains("&lt;script&gt;alert"));
}

#[test]
fn an_output_folder_that_cannot_be_written_is_named() {
    let dir = Scratch::new();
    dir.write("file", "in the way");
    let (code, _, err) =
        fails(ioasim().args(["compare", "-c", "passthrough", "-o"]).arg(dir.path("file/report")));
    assert_eq!(code, 1);
    assert!(err.contains("file/report"), "{err}");
    let (code, _, err) = fails(
        ioasim()
            .args(["replay", "sample", "-c", "passthrough", "--json"])
            .arg(dir.path("no/r.json")),
    );
    assert_eq!(code, 1);
    assert!(err.contains("no/r.json") || err.contains("no"), "{err}");
}

#[test]
fn reports_are_made_again_from_results() {
    let dir = Scratch::new();
    let mut first = ioasim();
    succeeds(first.args(["compare", "-c", "hw-nested", "-o"]).arg(dir.path("a")));
    let result = dir.path("a/result.json");
    succeeds(ioasim().arg("report").arg(&result).arg("-o").arg(dir.path("b")));
    assert_eq!(dir.read("a/index.html"), dir.read("b/index.html"));
    succeeds(ioasim().arg("report").args([&result, &result]).arg("-o").arg(dir.path("c")));
    let text = dir.read("a/result.json");
    for (file, bad) in [
        ("schema.json", text.replace("ioasim.result/1", "ioasim.result/9")),
        ("cut.json", text[..text.len() / 2].to_string()),
        ("list.json", "[]".into()),
        ("empty.json", String::new()),
    ] {
        dir.write(file, &bad);
        let (code, _, err) =
            fails(ioasim().arg("report").arg(dir.path(file)).arg("-o").arg(dir.path("d")));
        assert_eq!(code, 1, "{file}: {err}");
        assert!(err.contains(file), "{err}");
        assert!(!dir.path("d").exists(), "{file}");
    }
}

#[test]
fn help_version_and_completions() {
    for args in [vec!["--help"], vec!["compare", "--help"], vec!["trace", "import", "--help"]] {
        let out = succeeds(ioasim().args(args));
        assert!(out.contains("Usage:"), "{out}");
    }
    assert!(succeeds(ioasim().arg("--version")).starts_with("ioasim "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(succeeds(ioasim().args(["completions", shell])).contains("ioasim"));
    }
    let (code, _, _) = fails(ioasim().arg("compar"));
    assert_eq!(code, 2);
    let (code, _, _) = fails(ioasim().args(["trace", "import", "-o", "x.parquet"]));
    assert_eq!(code, 2);
}
