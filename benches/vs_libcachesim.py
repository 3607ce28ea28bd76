#!/usr/bin/env python3
"""Speed of ioasim and libCacheSim on the same requests, in turns.

    /tmp/venv-lcs/bin/python benches/vs_libcachesim.py [--rounds N] [--binary PATH]

LRU, 4,096 entries, the 10 M requests of `libcachesim_counts.py`. libCacheSim
runs its fastest path: `process_trace` in C over a memory-mapped oracleGeneral
file, with the hash table size that suits 4,096 objects (`hashpower=13`; the
default of 24 is shown as well). Ours is the cache as a data structure, then
the whole replay: without a walk (`passthrough`, which is what a cache
simulator does, plus rights, causes of misses, counters by device), with one
walk of the table per miss, and with all of `hw-nested`. Times are the thread's seconds on a CPU.
Every run must give the same number of misses.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import libcachesim as lcs

from libcachesim_counts import REQUESTS, misses, open_trace, write_oracle_general, zipf_pages

ENTRIES = 4096
ROOT = pathlib.Path(__file__).resolve().parent.parent
ALONE = ["parent.layout=identity", "iotlb.largest_page=4k"]
PLAIN = ["parent.layout=identity", "nested_cache.entries=0"] + [
    f"pwc.{stage}.{span}.entries=0" for stage in ("stage1", "stage2") for span in ("2m", "1g", "512g")
]


def build():
    """Path of the replay_speed binary."""
    command = ["cargo", "bench", "--bench", "replay_speed", "--no-run", "--message-format=json"]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    artifacts = (json.loads(line) for line in out.splitlines() if line.startswith("{"))
    paths = [a["executable"] for a in artifacts if a.get("target", {}).get("name") == "replay_speed"]
    return next(p for p in paths if p)


def ours(binary, *args):
    words = subprocess.run([binary, *args], check=True, capture_output=True, text=True).stdout.split()
    return float(words[1]), int(words[3])


def theirs(trace, hashpower):
    reader = open_trace(trace)
    cache = lcs.LRU(cache_size=ENTRIES, hashpower=hashpower)
    start = time.thread_time()
    count = misses(cache, reader)
    return time.thread_time() - start, count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--binary", help="replay_speed, if it is built already")
    args = parser.parse_args()
    binary = args.binary or build()
    trace = os.path.join(tempfile.mkdtemp(), "zipf.oracleGeneral.bin")
    write_oracle_general(zipf_pages(), trace)
    engine = ("engine", str(ENTRIES), str(ENTRIES))
    runs = {
        "libCacheSim LRU, hashpower 13": lambda: theirs(trace, 13),
        "libCacheSim LRU, default": lambda: theirs(trace, 24),
        "ioasim cache": lambda: ours(binary, "cache", str(ENTRIES)),
        "ioasim replay, IOTLB alone": lambda: ours(binary, *engine, "passthrough", *ALONE),
        "ioasim replay, one walk of 3 reads": lambda: ours(binary, *engine, "hw-nested", *PLAIN),
        "ioasim replay, two stages, all caches": lambda: ours(binary, *engine, "hw-nested"),
    }
    seconds = {name: [] for name in runs}
    expected = None
    for _ in range(args.rounds):
        for name, run in runs.items():
            spent, count = run()
            expected = expected or count
            if count != expected:
                sys.exit(f"{name}: {count} misses, not {expected}")
            seconds[name].append(spent)
    os.remove(trace)
    base = seconds["libCacheSim LRU, hashpower 13"]
    print(f"LRU {ENTRIES}, {REQUESTS} requests, {expected} misses, {args.rounds} rounds in turns")
    print(f"{'':40}{'M/s median':>12}{'best':>8}{'ratio':>8}")
    for name, all_seconds in seconds.items():
        speed = REQUESTS / statistics.median(all_seconds) / 1e6
        best = REQUESTS / min(all_seconds) / 1e6
        ratio = statistics.median(b / s for b, s in zip(base, all_seconds))
        print(f"{name:40}{speed:12.1f}{best:8.1f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
