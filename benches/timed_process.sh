#!/bin/sh
# Speed of simulated time, whole process (docs/timing.md, "Speed").
# Usage: timed_process.sh IOASIM [RUNS [TRACE]]
set -eu
ioasim=$1 runs=${2:-15} trace=${3:-}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# One tenant: three translations (descriptor, data, completion) per packet. A
# packet of 1,542 B takes 61.68 ns at 200 Gb/s; a tenant has every 1,024th.
{
    echo time_ns,kind,requester,domain,addr,size,out,flags
    echo 0,map,8,1,4294967296,12288,536875008,
    awk 'BEGIN {
        for (n = 0; n < 1000; n++) {
            t = 2000000 + int(n * 63160.32)
            printf "%d,dma,8,1,4294967296,16,,1\n", t
            printf "%d,dma,8,1,4294971392,1460,,2\n", t
            printf "%d,dma,8,1,4294975488,16,,2\n", t
        }
    }'
} >"$dir/one.csv"
"$ioasim" -q trace import "$dir/one.csv" -o "$dir/one.parquet" >"$dir/log"
"$ioasim" -q trace replicate "$dir/one.parquet" --tenants 1024 --spread-ns 63160 -o "$dir/many.parquet" >>"$dir/log"

# Best and median wall time of a replay, and requests per second.
measure() {
    name=$1
    shift
    "$ioasim" -q replay "$@" --json "$dir/result.json" >>"$dir/log"
    requests=$(sed -n 's/.*"requests": *\([0-9][0-9]*\).*/\1/p' "$dir/result.json" | head -n 1)
    i=0
    while [ "$i" -lt "$runs" ]; do
        start=$(date +%s%N)
        "$ioasim" -q replay "$@" >>"$dir/log"
        end=$(date +%s%N)
        echo $((end - start))
        i=$((i + 1))
    done | sort -n | awk -v name="$name" -v requests="$requests" '
        { ns[NR] = $1 }
        END {
            median = ns[int((NR + 1) / 2)]
            printf "%s: %d requests; best %.3f s, %.2f M/s; median %.3f s, %.2f M/s\n",
                name, requests, ns[1] / 1e9, requests * 1e3 / ns[1], median / 1e9, requests * 1e3 / median
        }'
}

# One thread in all, then decoding beside the replay.
for threads in 1 2; do
    measure "1,024 tenants, -j $threads" "$dir/many.parquet" -j $threads -c intel-vtd --set time.mode=open-loop \
        --set time.device.sharing=all --set time.device.link_gbps=200 --set time.ats.entries=64 --set time.ats.ways=64 \
        --set time.device.outstanding=256
    [ -z "$trace" ] || measure "$trace, -j $threads" "$trace" -j $threads -c intel-vtd
done
