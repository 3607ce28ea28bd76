#!/bin/sh
# What a second configuration costs when there is a second core: wall time of
# two configurations that differ in the size of their IOTLB, on two threads,
# over that of one. Whole processes, decoding and reports included, interleaved.
# Usage: two_configs.sh IOASIM TRACE [RUNS]
set -eu
ioasim=$1 trace=$2 runs=${3:-15}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# Nanoseconds of a comparison.
wall() {
    start=$(date +%s%N)
    "$ioasim" -q compare "$trace" -o "$dir/report" "$@" >"$dir/log"
    end=$(date +%s%N)
    echo $((end - start))
}

for preset in hw-nested sw-nested-map sw-nested-invalidate; do
    printf 'preset = "%s"\n[iotlb]\nentries = 2048\n' $preset >"$dir/second.toml"
    i=0
    while [ "$i" -lt "$runs" ]; do
        echo "$(wall -c $preset -j 1) $(wall -c $preset -j 2) $(wall -c $preset -c "$dir/second.toml" -j 2)"
        i=$((i + 1))
    done | awk -v preset=$preset '
        function median(v, n, i, j, t) {
            for (i = 2; i <= n; i++) {
                t = v[i]
                for (j = i - 1; j > 0 && v[j] > t; j--) v[j + 1] = v[j]
                v[j + 1] = t
            }
            return v[int((n + 1) / 2)]
        }
        { one[NR] = $1; both[NR] = $2; two[NR] = $3 }
        END {
            o = median(one, NR); b = median(both, NR); t = median(two, NR)
            printf "%s: one configuration on one thread %.0f ms, on two %.0f ms; two on two threads %.0f ms: %.2f and %.2f times (medians)\n",
                preset, o / 1e6, b / 1e6, t / 1e6, t / o, t / b
        }'
done
