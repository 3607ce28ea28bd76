#!/usr/bin/env python3
"""Miss counts of libCacheSim on the Zipf trace of `sim/tests/common/zipf.rs`.

Writes `sim/tests/data/zipf_hits.csv`, which `sim/tests/hit_ratio.rs` must
reproduce exactly. How and why: `docs/accuracy.md`.

    python3 -m venv /tmp/venv-lcs && /tmp/venv-lcs/bin/pip install libcachesim==0.3.5 numpy
    /tmp/venv-lcs/bin/python benches/libcachesim_counts.py [--out FILE]

The generator uses integers only, so that Rust and numpy agree bit by bit.
"""

import argparse
import os
import pathlib
import sys
import tempfile

import numpy as np

PAGES = 1_000_000
REQUESTS = 10_000_000
SEED = 0x10A51
WEIGHT = 1 << 40  # weight of rank k is floor(2^40 / k)
SCATTER = 618_033  # coprime to PAGES: neighbours in rank are not neighbours in memory
ENTRIES = (64, 1024, 4096, 65536)
# Our names and the library's, all with its defaults; S3FIFO: small queue 10 %, ghost queue 90 %, to the main queue
# from two hits on.
POLICIES = {"lru": "LRU", "fifo": "FIFO", "clock": "Clock", "lfu": "LFU", "s3fifo": "S3FIFO"}


def zipf_pages(requests=REQUESTS, seed=SEED):
    """Page numbers 0..PAGES, Zipf(1.0), as a numpy array of uint64."""
    u64 = np.uint64
    ranks = np.arange(1, PAGES + 1, dtype=u64)
    total = np.cumsum(u64(WEIGHT) // ranks, dtype=u64)
    with np.errstate(over="ignore"):
        # SplitMix64 (Steele, Lea, Flood 2014): state i is seed + (i + 1) * gamma.
        x = u64(seed) + np.arange(1, requests + 1, dtype=u64) * u64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> u64(30))) * u64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> u64(27))) * u64(0x94D049BB133111EB)
        x ^= x >> u64(31)
    rank = np.searchsorted(total, x % total[-1], side="right").astype(u64)
    return rank * u64(SCATTER) % u64(PAGES)


def checksum(pages):
    """Sum of page * (position + 1) modulo 2^64: sensitive to order."""
    with np.errstate(over="ignore"):
        position = np.arange(1, len(pages) + 1, dtype=np.uint64)
        return int(np.sum(pages * position, dtype=np.uint64))


def write_oracle_general(pages, path):
    """libCacheSim's binary format: u32 time, u64 id, u32 size, i64 next access."""
    kind = np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
    records = np.zeros(len(pages), dtype=kind)
    records["time"] = np.arange(len(pages), dtype=np.uint64) // 1000
    records["id"] = pages + np.uint64(1)
    records["size"] = 1
    records["next"] = -2  # not known; none of the policies here uses it
    records.tofile(path)


def open_trace(path):
    import libcachesim as lcs

    params = lcs.ReaderInitParam(ignore_obj_size=True)
    return lcs.TraceReader(path, lcs.TraceType.ORACLE_GENERAL_TRACE, params)


def misses(cache, reader, requests=REQUESTS):
    """Exact count from the ratio that process_trace returns.

    The ratio is a double near misses / requests, so the product is within a
    rounding error of an integer; anything else would be a wrong unit.
    """
    ratio, _ = cache.process_trace(reader)
    count = round(ratio * requests)
    if abs(ratio * requests - count) > 1e-6:
        sys.exit(f"{ratio} is no multiple of 1/{requests}")
    return count


def main():
    import libcachesim as lcs

    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=root / "sim/tests/data/zipf_hits.csv", type=pathlib.Path)
    parser.add_argument("--trace", help="keep the trace here (default: a temporary file)")
    args = parser.parse_args()
    pages = zipf_pages()
    path = args.trace or os.path.join(tempfile.mkdtemp(), "zipf.oracleGeneral.bin")
    write_oracle_general(pages, path)
    lines = [
        f"# libcachesim 0.3.5 on the Zipf(1.0) trace: {PAGES} pages, seed {SEED:#x}, checksum {checksum(pages):#x}",
        "# made by benches/libcachesim_counts.py; see docs/accuracy.md",
        "policy,entries,requests,misses",
    ]
    for name, policy in POLICIES.items():
        for entries in ENTRIES:
            reader = open_trace(path)
            # Every object has size 1: `cache_size` counts objects.
            cache = getattr(lcs, policy)(cache_size=entries)
            count = misses(cache, reader)
            if cache.get_n_obj() != entries:
                sys.exit(f"{name}: {cache.get_n_obj()} objects instead of {entries}")
            lines.append(f"{name},{entries},{REQUESTS},{count}")
            print(lines[-1], file=sys.stderr)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(lines) + "\n")
    if not args.trace:
        os.remove(path)


if __name__ == "__main__":
    main()
