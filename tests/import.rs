//! `ioasim trace import` as its users meet it.

mod common;

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Scratch, fails, ioasim, json, succeeds};

/// A log in QEMU's format: two pages mapped, used, invalidated, used again.
const LOG: &str = "\
14372@1795403830.414859:vtd_context_cache_reset 
14372@1795403830.500000:vtd_dmar_enable enable 1
14372@1795403831.000001:vtd_iotlb_cc_update IOTLB context update bus 0x0 devfn 0x8 high 0x301 low 0x1011ab001 gen 0 -> gen 1
14372@1795403831.000002:vtd_iotlb_page_update IOTLB page update sid 0x8 iova 0xffffe010 slpte 0x113ec8003 domain 0x3
14372@1795403831.000003:vtd_dmar_translate dev 00:01.00 iova 0xffffe000 -> gpa 0x113ec8000 mask 0xfff
14372@1795403831.000004:vtd_iotlb_page_hit IOTLB page hit sid 0x8 iova 0xffffe020 slpte 0x113ec8003 domain 0x3
14372@1795403831.000005:vtd_dmar_translate dev 00:01.00 iova 0xffffe000 -> gpa 0x113ec8000 mask 0xfff
14374@1795403831.000006:vtd_inv_desc invalidate desc type iotlb high 0xffffe000 low 0x300f2
14374@1795403831.000007:vtd_inv_desc_iotlb_pages iotlb invalidate domain 0x3 addr 0xffffe000 mask 0x0
14372@1795403831.000008:vtd_iotlb_page_update IOTLB page update sid 0x8 iova 0xffffe000 slpte 0x113ec9003 domain 0x3
14372@1795403831.000009:vtd_dmar_translate dev 00:01.00 iova 0xffffe000 -> gpa 0x113ec9000 mask 0xfff
";

fn import(dir: &Scratch, log: &str) -> std::process::Command {
    let mut command = ioasim();
    command.args(["trace", "import"]).arg(dir.path(log)).arg("-o").arg(dir.path("t.parquet"));
    command
}

#[test]
fn a_log_becomes_a_trace_that_verifies() {
    let dir = Scratch::new();
    dir.write("qemu.log", LOG);
    succeeds(&mut import(&dir, "qemu.log"));
    let trace = dir.path("t.parquet");
    let mut replay = ioasim();
    replay.args(["replay", "-c", "qemu-vtd-7.2", "--verify", "--json", "-"]).arg(&trace);
    let result = json(&succeeds(&mut replay));
    let verify = &result["runs"][0]["verify"];
    assert_eq!(verify["hit_labels"], 3);
    assert_eq!(verify["translations"], 3);
    assert_eq!(verify["hit_label_mismatches"], 0);
    assert_eq!(result["trace"]["sources"][0]["bytes"], LOG.len());
    let info = json(&succeeds(ioasim().args(["trace", "info", "--json"]).arg(&trace)));
    assert!(info.to_string().contains("qemu.log"));
}

#[test]
fn compression_is_transparent() {
    let dir = Scratch::new();
    dir.write_bytes("plain", LOG.as_bytes());
    dir.write_bytes("log.zst", &zstd::encode_all(LOG.as_bytes(), 3).unwrap());
    let run = |name: &str| {
        succeeds(&mut import(&dir, name));
        let info = succeeds(ioasim().args(["trace", "info", "--json"]).arg(dir.path("t.parquet")));
        json(&info)["events"].clone()
    };
    assert_eq!(run("plain"), run("log.zst"));
    let whole = zstd::encode_all(LOG.repeat(1000).as_bytes(), 3).unwrap();
    dir.write_bytes("cut.zst", &whole[..whole.len() - 10]);
    std::fs::remove_file(dir.path("t.parquet")).unwrap();
    let (code, _, err) = fails(&mut import(&dir, "cut.zst"));
    assert_eq!(code, 1);
    assert!(err.contains("cut.zst"), "{err}");
    assert!(!dir.path("t.parquet").exists());
}

#[test]
fn damaged_lines_are_counted_shown_and_limited() {
    let dir = Scratch::new();
    let bad = "14372@1795403831.000010:vtd_iotlb_page_hit IOTLB page hit sid 0xzz iova\n";
    dir.write("few.log", &format!("{LOG}{}", bad.repeat(3)));
    let mut command = import(&dir, "few.log");
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    assert!(text.contains("few.log:12") || text.contains("line 12"), "{text}");
    std::fs::remove_file(dir.path("t.parquet")).unwrap();
    dir.write("many.log", &format!("{LOG}{}", bad.repeat(101)));
    let (code, _, err) = fails(&mut import(&dir, "many.log"));
    assert_eq!(code, 1);
    assert!(err.contains("100") && err.contains("max-errors"), "{err}");
    assert!(!dir.path("t.parquet").exists(), "nothing half-written");
    succeeds(import(&dir, "many.log").args(["--max-errors", "101"]));
}

#[test]
fn what_is_no_vtd_log_is_refused() {
    let dir = Scratch::new();
    // A kernel's trace, but nothing about DMA in it.
    let ftrace = "  kworker/u4:2-32 [000] d..2.    12.700956: sched_wakeup: comm=fio pid=77 prio=120 \
                  target_cpu=001\n";
    dir.write("empty.log", "");
    dir.write("prose.log", "It was a dark and stormy night.\n");
    dir.write("ftrace.txt", ftrace);
    dir.write_bytes(
        "noise.log",
        &(0..100_000u32).map(|i| i.wrapping_mul(2_654_435_761) as u8).collect::<Vec<_>>(),
    );
    dir.write_bytes("sample.parquet", ioasim_traces::sample());
    for file in
        ["empty.log", "prose.log", "ftrace.txt", "noise.log", "sample.parquet", "absent.log"]
    {
        let (code, _, err) = fails(&mut import(&dir, file));
        assert_eq!(code, 1, "{file}: {err}");
        assert!(err.contains(file), "{file}: {err}");
        assert!(!err.contains("panicked"), "{file}: {err}");
        assert!(!dir.path("t.parquet").exists(), "{file}");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let dir = Scratch::new();
    dir.write("qemu.log", LOG);
    let mut command = ioasim();
    command.args(["trace", "import"]).arg(dir.path("qemu.log"));
    let (code, _, err) = fails(command.arg("-o").arg(dir.path("no/such/t.parquet")));
    assert_eq!(code, 1);
    assert!(err.contains("no/such"), "{err}");
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let dir = Scratch::new();
    // Some gigabytes of log in a small file: far more than is read before the signal.
    let mut log =
        zstd::Encoder::new(std::fs::File::create(dir.path("long.zst")).unwrap(), 1).unwrap();
    let block = LOG.repeat(1000);
    for _ in 0..3000 {
        log.write_all(block.as_bytes()).unwrap();
    }
    log.finish().unwrap();
    let mut child =
        import(&dir, "long.zst").stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    // The writer's temporary file shows that the import is under way.
    while dir.names().len() < 2 && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert_eq!(dir.names(), ["long.zst"], "a temporary file was left");
}

/// The recordings of the other vendors' IOMMUs verify under their presets,
/// alone and joined with the guest's ftrace.
#[test]
fn amdvi_and_smmuv3_logs_verify() {
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/tests/fixtures");
    for (name, preset) in
        [("amd-nvme-randread4k-strict", "qemu-amdvi-7.2"), ("smmu-nvme-strict", "qemu-smmuv3-7.2")]
    {
        for joined in [false, true] {
            let dir = Scratch::new();
            let trace = dir.path("t.parquet");
            let mut command = ioasim();
            command.args(["trace", "import", "-o"]).arg(&trace);
            command.arg(fixtures.join(format!("{name}.qemu.log.zst")));
            if joined {
                command.arg("--guest-ftrace").arg(fixtures.join(format!("{name}.ftrace.txt.zst")));
            }
            succeeds(&mut command);
            let mut replay = ioasim();
            replay.args(["replay", "-c", preset, "--verify", "--json", "-"]).arg(&trace);
            let result = json(&succeeds(&mut replay));
            let run = &result["runs"][0];
            let verify = &run["verify"];
            assert_eq!(verify["hit_labels"], run["counters"]["dma"]["requests"], "{name}");
            assert_eq!(verify["hit_label_mismatches"], 0, "{name} {verify}");
            assert_eq!(verify["target_mismatches"], 0, "{name} {verify}");
            assert_eq!(verify["stale_legal"], 0, "{name} {verify}");
            let misses = &run["counters"]["iotlb"]["misses"];
            if preset == "qemu-smmuv3-7.2" {
                // The log ends within its last request.
                let open = misses.as_u64().unwrap() - verify["walk_reads"].as_u64().unwrap();
                assert!(open <= 1, "{verify}");
            }
            assert_eq!(verify["walk_read_mismatches"], 0, "{name} {verify}");
        }
    }
}
