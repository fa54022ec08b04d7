#!/usr/bin/env bash
# Single operations at N = 2^16 on one thread and on two.
#
#   benchmarks/ops/run.sh
#
# Writes benchmarks/runs/<date>-<machine>/ops.json (one row an operation and number of threads) and prints it.
set -euo pipefail
cd "$(dirname "$0")/../.."
cargo build --release
cerium="${CARGO_TARGET_DIR:-target}/release/cerium"
rows=$(for threads in 1 2; do "$cerium" bench ops --threads "$threads" --json; done | paste -sd, -)
machine=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
slug=$(printf '%s' "$machine $(nproc) cores" | tr -cs 'A-Za-z0-9' '-' | sed 's/^-//; s/-$//' | tr '[:upper:]' '[:lower:]')
out="benchmarks/runs/$(date +%F)-$slug"
mkdir -p "$out"
printf '{"benchmark": "ops", "commit": "%s", "machine": "%s, %s cores", "load_average_at_end": "%s",\n"rows": [%s]}\n' \
    "$(git rev-parse HEAD)" "$machine" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)" "$rows" > "$out/ops.json.tmp"
mv "$out/ops.json.tmp" "$out/ops.json"
cat "$out/ops.json"
