#!/usr/bin/env bash
# Single operations at N = 2^16 on one thread and on two.
#
#   benchmarks/ops/run.sh [PARAMS [LEVELS]]
#
# PARAMS is a parameter set (leveled-16 unless told otherwise), LEVELS a list of levels or `all` (the top level). Writes
# benchmarks/runs/<date>-<machine>/ops.json (ops-PARAMS.json for another set) and prints it.
set -euo pipefail
params=${1:-leveled-16}
levels=${2:+--levels $2}
cd "$(dirname "$0")/../.."
cargo build --release
cerium="${CARGO_TARGET_DIR:-target}/release/cerium"
# shellcheck disable=SC2086  # two words or none
runs=$(for threads in 1 2; do
    "$cerium" bench ops --params "$params" $levels --threads "$threads" --json
    echo ,
done | sed '$d')
machine=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
slug=$(printf '%s' "$machine $(nproc) cores" | tr -cs 'A-Za-z0-9' '-' | sed 's/^-//; s/-$//' | tr '[:upper:]' '[:lower:]')
out="benchmarks/runs/$(date +%F)-$slug"
file="$out/ops$([ "$params" = leveled-16 ] || echo "-$params").json"
mkdir -p "$out"
printf '{"benchmark": "ops", "commit": "%s", "machine": "%s, %s cores", "load_average_at_end": "%s",\n"runs": [%s]}\n' \
    "$(git rev-parse HEAD)" "$machine" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)" "$runs" > "$file.tmp"
mv "$file.tmp" "$file"
cat "$file"
