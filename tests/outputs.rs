//! Where output goes: links, devices and FIFOs stay, inputs stay, and Ctrl-C
//! leaves nothing half-written.
#![cfg(unix)]

mod common;

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Scratch, dma, fails, ioasim, json, map, succeeds};
use ioasim_sim::events::{Event, Requester};
use ioasim_traces::file::{Meta, TraceWriter};

/// A node like `/dev/null` (3) or `/dev/full` (7), never the system's own: a
/// program that replaces it would take it from everybody. False without root.
fn device(path: &Path, minor: &str) -> bool {
    let mut mknod = Command::new("mknod");
    mknod.arg(path).args(["c", "1", minor]).stderr(Stdio::null());
    mknod.status().is_ok_and(|s| s.success())
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// What somebody who reads `path` gets while `command` runs.
fn read_while(path: &Path, command: &mut Command) -> String {
    let from = path.to_owned();
    let reader = std::thread::spawn(move || std::fs::read_to_string(from).unwrap());
    succeeds(command);
    // The reader of a FIFO that is gone waits for ever.
    assert!(path.metadata().unwrap().file_type().is_fifo(), "it was replaced");
    reader.join().unwrap()
}

fn replay() -> Command {
    let mut command = ioasim();
    command.args(["replay", "sample", "-c", "hw-nested"]);
    command
}

#[test]
fn devices_are_written_to_not_replaced() {
    let dir = Scratch::new();
    let (null, full) = (dir.path("null"), dir.path("full"));
    if !(device(&null, "3") && device(&full, "7")) {
        return;
    }
    succeeds(replay().arg("--json").arg(&null));
    succeeds(
        replay()
            .args(["--set", "time.enabled=true", "--window", "0us..50us"])
            .arg("--timeline")
            .arg(&null),
    );
    succeeds(ioasim().args(["trace", "export", "sample", "--format", "csv", "-o"]).arg(&null));
    succeeds(ioasim().args(["trace", "info", "sample", "--html"]).arg(&null));
    let mut export = ioasim();
    export.args(["trace", "export", "sample", "--format", "csv", "-o"]);
    for command in [replay().arg("--json"), &mut export] {
        let (code, _, err) = fails(command.arg(&full));
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("full") && err.contains("No space left"), "{err}");
    }
    // The report's files, too.
    let report = dir.path("report");
    std::fs::create_dir(&report).unwrap();
    symlink(&null, report.join("index.html")).unwrap();
    succeeds(ioasim().args(["compare", "-c", "hw-nested", "-o"]).arg(&report));
    for path in [&null, &full] {
        assert!(path.metadata().unwrap().file_type().is_char_device(), "{}", path.display());
    }
    assert!(report.join("index.html").is_symlink() && report.join("result.json").is_file());
    assert_eq!(dir.names().len(), 3, "{:?}", dir.names());
}

#[test]
fn fifos_are_written_to_not_replaced() {
    let dir = Scratch::new();
    let pipe = dir.path("pipe");
    fifo(&pipe);
    let text = read_while(&pipe, replay().arg("--json").arg(&pipe));
    assert_eq!(json(&text)["schema"], "ioasim.result/1");
    let export = ["trace", "export", "sample", "--format", "csv", "-o"];
    let text = read_while(&pipe, ioasim().args(export).arg(&pipe));
    assert_eq!(text.lines().count(), 121_837);
    let text = read_while(&pipe, ioasim().args(["trace", "info", "sample", "--html"]).arg(&pipe));
    assert!(text.trim_end().ends_with("</html>"), "{} bytes", text.len());
}

#[test]
fn what_needs_a_file_says_so_and_waits_for_nobody() {
    let dir = Scratch::new();
    let pipe = dir.path("pipe");
    fifo(&pipe);
    for args in [
        vec!["slice", "sample"],
        vec!["replicate", "sample", "--tenants", "2"],
        vec!["generate", "nvme", "--events", "100"],
        vec!["export", "sample", "--format", "oracle-general"],
    ] {
        let (code, _, err) = fails(ioasim().arg("trace").args(&args).arg("-o").arg(&pipe));
        assert_eq!(code, 1, "{args:?}: {err}");
        assert!(err.contains("pipe: this format needs a file"), "{args:?}: {err}");
    }
    assert_eq!(dir.names(), ["pipe"]);
}

#[test]
fn links_are_followed_not_replaced() {
    let dir = Scratch::new();
    std::fs::create_dir(dir.path("sub")).unwrap();
    dir.write("sub/old.json", "old");
    for (link, to) in [("a", "sub/old.json"), ("b", "sub/new.parquet"), ("c", "b")] {
        symlink(to, dir.path(link)).unwrap();
    }
    succeeds(replay().arg("--json").arg(dir.path("a")));
    assert_eq!(json(&dir.read("sub/old.json"))["schema"], "ioasim.result/1");
    // A link to a link to nothing yet.
    succeeds(ioasim().args(["trace", "slice", "sample", "-o"]).arg(dir.path("c")));
    succeeds(ioasim().args(["trace", "info"]).arg(dir.path("sub/new.parquet")));
    succeeds(
        ioasim().args(["trace", "export", "sample", "--format", "csv", "-o"]).arg(dir.path("c")),
    );
    assert!(dir.read("sub/new.parquet").starts_with("time_ns,"));
    for link in ["a", "b", "c"] {
        assert!(dir.path(link).is_symlink(), "{link}");
    }
    assert_eq!(dir.names().len(), 4, "{:?}", dir.names());
}

/// `--json /dev/stdout > file`: all of it, and only it. By a link of our own,
/// as a program that replaces links would replace the system's.
#[test]
fn json_on_stdout_by_name_stays_alone_there() {
    let dir = Scratch::new();
    let out = dir.path("stdout");
    symlink("/proc/self/fd/1", &out).unwrap();
    if !out.exists() {
        return;
    }
    let through_pipe = succeeds(replay().arg("--json").arg(&out));
    assert_eq!(through_pipe, succeeds(replay().args(["--json", "-"])));
    let file = File::create(dir.path("file")).unwrap();
    assert!(replay().arg("--json").arg(&out).stdout(file).status().unwrap().success());
    assert_eq!(dir.read("file"), through_pipe);
    let file = File::create(dir.path("file")).unwrap();
    let mut export = ioasim();
    export.args(["trace", "export", "sample", "--format", "csv", "-o"]).arg(&out);
    assert!(export.stdout(file).status().unwrap().success());
    assert_eq!(dir.read("file").lines().count(), 121_837);
    assert!(out.is_symlink());
}

#[test]
fn no_input_is_replaced_by_an_output() {
    let dir = Scratch::new();
    let at = |name: &str| dir.path(name).display().to_string();
    dir.write_bytes("t.parquet", ioasim_traces::sample());
    dir.write_bytes("result.json", ioasim_traces::sample());
    dir.write("x.log", "14372@1795403830.414859:vtd_context_cache_reset \n");
    dir.write("c.toml", "preset = \"intel-vtd\"\n");
    symlink("t.parquet", dir.path("link")).unwrap();
    let (trace, log, toml, link, folder) =
        (at("t.parquet"), at("x.log"), at("c.toml"), at("link"), at(""));
    let dotted = at("./t.parquet");
    let result = at("result.json");
    let bundle = ["--host", &trace, "--vmm", &log, "--hypervisor-ftrace", &toml];
    let bundle =
        |out| [&["trace", "import", "--guest-ftrace", &link], &bundle[..], &["-o", out]].concat();
    let commands: &[&[&str]] = &[
        &["trace", "import", &log, "-o", &log],
        &["trace", "import", &log, "--guest-ftrace", &toml, "-o", &toml],
        &bundle(&trace),
        &bundle(&log),
        &bundle(&toml),
        &["trace", "info", &trace, "--html", &trace],
        &["trace", "info", &trace, "--html", &link],
        &["trace", "overlay", &trace, "-w", "balloon", "-o", &dotted],
        &["trace", "slice", &link, "-o", &trace],
        &["trace", "export", &trace, "--format", "csv", "-o", &trace],
        &["replay", &trace, "-c", "hw-nested", "--json", &trace],
        &["replay", &trace, "-c", &toml, "--json", &toml],
        &["replay", &trace, "-c", &toml, "--timeline", &trace],
        &["replay", &trace, "-c", &toml, "--timeline", &toml],
        &["compare", &result, "-o", &folder],
        &[
            "study",
            "parent-change",
            "--quick",
            "--trace",
            &trace,
            "--trace",
            &at("study.json"),
            "-o",
            &folder,
        ],
    ];
    dir.write_bytes("study.json", ioasim_traces::sample());
    let before: Vec<Vec<u8>> = ["t.parquet", "result.json", "x.log", "c.toml", "study.json"]
        .map(|name| std::fs::read(dir.path(name)).unwrap())
        .into();
    let names = dir.names().len();
    for args in commands {
        let (code, _, err) = fails(ioasim().args(*args));
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(err.contains("is an input and would be replaced"), "{args:?}: {err}");
    }
    // Two outputs of one name lose one.
    let twice = at("out");
    let (code, _, err) = fails(ioasim().args([
        "replay",
        "sample",
        "-c",
        &toml,
        "--json",
        &twice,
        "--timeline",
        &twice,
    ]));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("written twice"), "{err}");
    let after: Vec<Vec<u8>> = ["t.parquet", "result.json", "x.log", "c.toml", "study.json"]
        .map(|name| std::fs::read(dir.path(name)).unwrap())
        .into();
    assert!(before == after);
    assert_eq!(dir.names().len(), names, "{:?}", dir.names());
}

#[test]
fn a_report_into_its_own_folder_loses_no_result() {
    let dir = Scratch::new();
    let out = dir.path("a");
    for config in ["hw-nested", "passthrough"] {
        succeeds(ioasim().args(["compare", "-c", config, "-o"]).arg(dir.path(config)));
    }
    let (one, two) = (dir.path("hw-nested/result.json"), dir.path("passthrough/result.json"));
    succeeds(ioasim().arg("report").args([&one, &two]).arg("-o").arg(&out));
    let [first, second] = [out.join("result-1.json"), out.join("result-2.json")];
    // As they are, and not in each other's place.
    succeeds(ioasim().arg("report").args([&first, &second]).arg("-o").arg(&out));
    let (code, _, err) = fails(ioasim().arg("report").args([&second, &first]).arg("-o").arg(&out));
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("would be replaced"), "{err}");
    assert_eq!(std::fs::read(&first).unwrap(), std::fs::read(&one).unwrap());
    // A key of a later version is not lost either.
    let later = dir.read("a/result-1.json").replacen('{', "{\n  \"later\": 1,", 1);
    dir.write("hw-nested/result.json", &later);
    let (code, _, err) =
        fails(ioasim().arg("report").arg(&one).arg("-o").arg(dir.path("hw-nested")));
    assert_eq!(code, 2, "{err}");
    assert_eq!(dir.read("hw-nested/result.json"), later);
}

/// The signals that a process catches, as `/proc` has them.
fn catches_interrupts(id: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    // SIGINT is number 2, bit 1.
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).is_some_and(|m| m & 2 != 0)
}

#[test]
fn ctrl_c_ends_what_only_reads() {
    if !catches_interrupts_is_known() {
        return;
    }
    let dir = Scratch::new();
    let trace = dir.path("t.parquet");
    let mut writer = TraceWriter::create(&trace).unwrap();
    writer.push(&map(1, 0, 0, 1 << 40)).unwrap();
    // Seconds of work: far more than is done before the signal.
    let events: u64 = if cfg!(debug_assertions) { 3_000_000 } else { 20_000_000 };
    for i in 0..events {
        let page = i.wrapping_mul(0x9e37_79b9) & 0xf_ffff;
        let e =
            Event { time_ns: i, requester: Requester(8 + (i & 7) as u32), ..dma(1, page << 12) };
        writer.push(&e).unwrap();
    }
    writer.finish(Meta::default()).unwrap();
    let page = dir.path("page.html").display().to_string();
    let path = trace.display().to_string();
    let commands: &[&[&str]] =
        &[&["info", &path], &["info", &path, "--html", &page], &["diff", &path, &path]];
    for args in commands {
        let mut command = ioasim();
        command.arg("trace").args(*args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        while !catches_interrupts(child.id()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(130), "{args:?}");
        assert!(out.stdout.is_empty(), "{args:?}");
        assert_eq!(dir.names(), ["t.parquet"], "{args:?}");
    }
}

/// False where there is no Linux `/proc`.
fn catches_interrupts_is_known() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|s| s.contains("SigCgt:"))
}
