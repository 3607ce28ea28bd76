#!/usr/bin/env python3
"""Imports every recording of a folder and verifies it under all presets.

    python3 tests/recordings.py target/release/ioasim ../shared/traces

A recording is a pair NAME.qemu.log[.zst] and NAME.ftrace.txt[.zst], imported
alone and joined, or a folder with a bundle (guest, vmm, hypervisor, host). Its
own machine's preset must reproduce every label and output; the five nesting
presets must verify, functionally and with simulated time, with equal counters.
Exits 1 if anything differs.
"""

import concurrent.futures
import json
import pathlib
import subprocess
import sys
import tempfile

NESTING = ["passthrough", "hw-nested", "sw-nested-map", "sw-nested-invalidate", "sw-nested-flush"]
POLICIES = ["flush-all", "scan", "rmap", "rmap-interval", "rmap-linked", "epoch"]
MISMATCHES = ["target_mismatches", "reference_mismatches", "hit_label_mismatches",
              "shadow_op_mismatches", "walk_read_mismatches", "invariant_violations"]

ioasim, folder = sys.argv[1], pathlib.Path(sys.argv[2])
failures = []


def run(*args):
    done = subprocess.run([ioasim, "-q", *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        failures.append(" ".join(map(str, args)))
        print("FAILED", *args, done.stderr, sep=" ", flush=True)
    return done.stdout


def replay(trace, preset, *settings):
    args = ["replay", trace, "-c", preset, "--verify", "--json", "-"]
    for setting in settings:
        args += ["--set", setting]
    out = run(*args)
    return json.loads(out)["runs"][0] if out else None


def check(name, trace, preset, *settings):
    """Functional and timed; counters must be equal."""
    plain = replay(trace, preset, *settings)
    timed = replay(trace, preset, "time.enabled=true", *settings)
    if not plain or not timed:
        return None
    verify = plain["verify"]
    bad = [m for m in MISMATCHES for r in (plain, timed) if r["verify"].get(m)]
    if plain["counters"] != timed["counters"]:
        bad.append("counters of the timed run")
    if bad:
        failures.append(f"{name} {preset} {settings}: {bad}")
        print("FAILED", failures[-1], flush=True)
    return verify


def machine(log):
    for preset, word in [("qemu-amdvi-7.2", "amd"), ("qemu-smmuv3-7.2", "smmu")]:
        if log.name.startswith(word):
            return preset
    return "qemu-vtd-7.2"


def one(name, sources, preset, trace):
    run("trace", "import", *sources, "-o", trace)
    events = json.loads(run("trace", "info", trace, "--json"))
    verify = check(name, trace, preset)
    for other in NESTING:
        check(name, trace, other)
    if not verify:
        return
    kinds = events["events_by_kind"]
    without = events["inferred"]["maps_unattributed"]
    if verify["hit_labels"] != kinds["dma"]:
        failures.append(f"{name}: {verify['hit_labels']} labels of {kinds['dma']} accesses")
    print(f"{name}: {verify['hit_labels']} labels, {verify['hit_label_mismatches']} wrong; "
          f"{verify['translations']} outputs, {verify['target_mismatches']} wrong; "
          f"{verify['walk_reads']} reads of walks, {verify['walk_read_mismatches']} wrong; "
          f"{without} of {kinds['map'] + kinds['unmap']} maps and unmaps without a domain",
          flush=True)


with tempfile.TemporaryDirectory() as scratch:
    work = []
    for log in sorted(folder.glob("*.qemu.log*")):
        name = log.name.split(".")[0]
        ftrace = next(folder.glob(f"{name}.ftrace.txt*"), None)
        work.append((name + ", alone", [log], machine(log), f"{scratch}/{name}.alone.parquet"))
        if ftrace:
            sources = [log, "--guest-ftrace", ftrace]
            work.append((name + ", joined", sources, machine(log), f"{scratch}/{name}.parquet"))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda w: one(*w), work))
    for bundle in sorted(p for p in folder.iterdir() if p.is_dir()):
        file = lambda word: next(bundle.glob(word + ".*"))
        trace = f"{scratch}/{bundle.name}.parquet"
        run("trace", "import", "--host", file("host"), "--guest-ftrace", file("guest"),
            "--vmm", file("vmm"), "--hypervisor-ftrace", file("hypervisor"), "-o", trace)
        for preset in ["qemu-vtd-7.2", *NESTING]:
            verify = check(bundle.name, trace, preset)
            print(f"{bundle.name} {preset}: {verify['target_mismatches']} of "
                  f"{verify['translations']} outputs wrong, {verify['shadow_op_mismatches']} of "
                  f"{verify['shadow_ops']} shadow operations, {verify['hit_labels']} labels",
                  flush=True)
        for policy in POLICIES:
            verify = check(bundle.name, trace, "sw-nested-invalidate", f"parent.change={policy}")
            print(f"{bundle.name} {policy}: {verify['shadow_op_mismatches']} of "
                  f"{verify['shadow_ops']} shadow operations wrong", flush=True)

print(f"{len(failures)} failures")
sys.exit(bool(failures))
