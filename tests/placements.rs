//! Three levels as users meet them: `stages` in `replay` and `compare`.

mod common;

use std::path::{Path, PathBuf};

use common::{Scratch, fails, ioasim, json, succeeds};

/// The recorded bundle where it is present, else a made-up guest; both with
/// changes of the parent.
fn traces(dir: &Scratch) -> Vec<PathBuf> {
    let made = dir.path("made.parquet");
    let mut generate = ioasim();
    generate.args([
        "trace",
        "generate",
        "parent-change",
        "-w",
        "page-migration",
        "--children",
        "3",
    ]);
    generate.args(["--entries", "64", "--accesses", "4000", "--every", "100", "-o"]).arg(&made);
    succeeds(&mut generate);
    let mut all = vec![made];
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/traces/shadow-nvme-a");
    if bundle.is_dir() {
        let (plain, over) = (dir.path("bundle.parquet"), dir.path("over.parquet"));
        let mut import = ioasim();
        import.args(["trace", "import"]).arg("-o").arg(&plain);
        for (option, log) in [
            ("--host", "host.qemu.log.zst"),
            ("--guest-ftrace", "guest.ftrace.txt.zst"),
            ("--vmm", "vmm.qemu.log.zst"),
            ("--hypervisor-ftrace", "hypervisor.ftrace.txt.zst"),
        ] {
            import.arg(option).arg(bundle.join(log));
        }
        succeeds(&mut import);
        let mut overlay = ioasim();
        overlay.args(["trace", "overlay", "-w", "balloon", "--every", "200", "-o"]);
        succeeds(overlay.arg(&over).arg(&plain));
        all.extend([plain, over]);
    }
    all
}

#[test]
fn every_placement_translates_alike() {
    let dir = Scratch::new();
    for trace in traces(&dir) {
        let mut prints = Vec::new();
        for (preset, stages) in [
            ("hw-nested", "stages=[['l2'],['l1','l0']]"),
            ("sw-nested-invalidate", "stages=[['l2','l1'],['l0']]"),
            ("sw-nested-invalidate", "stages=[['l2','l1','l0']]"),
            ("sw-nested-map", "stages=[['l2','l1'],['l0']]"),
            ("sw-nested-write-protect", "stages=[['l2','l1','l0']]"),
            ("sw-nested-demand", "stages=[['l2','l1'],['l0']]"),
        ] {
            for change in ["flush-all", "rmap-linked", "epoch"] {
                let mut replay = ioasim();
                replay.args(["replay", "-c", preset, "--set", stages, "--verify", "--json", "-"]);
                replay.arg("--set").arg(format!("parent.change={change}")).arg(&trace);
                let result = json(&succeeds(&mut replay));
                let run = &result["runs"][0];
                assert_eq!(run["provenance"]["host_layout"], "2m");
                assert_eq!(run["counters"]["dma"]["faults"], 0, "{preset} {stages}");
                prints.push(run["verify"]["outputs_fingerprint"].clone());
            }
        }
        assert!(prints.iter().all(|p| *p == prints[0]), "{}: {prints:?}", trace.display());
    }
}

#[test]
fn hardware_that_cannot_is_named() {
    let mut compare = ioasim();
    compare.args(["compare", "sample", "-c", "hw-nested", "-o", "/nonexistent"]);
    let (_, _, error) = fails(compare.args(["--set", "stages=[['l2'],['l1'],['l0']]"]));
    assert!(error.contains("needs 3 hardware stages"), "{error}");
}
