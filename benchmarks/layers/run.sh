#!/usr/bin/env bash
# Linear layers of transformers over 128 encrypted tokens at 128-bit security (the example `token_linear` of crates/cerium):
# 768 x 3072 with all weights encoded once and with few encoded at a time, and 4096 x 4096.
#
#   benchmarks/layers/run.sh [THREADS [PARAMS]]
#
# THREADS is 0 (one for each core) unless told otherwise, PARAMS is leveled-16. Writes
# benchmarks/runs/<date>-<machine>/layers.json and prints it. The example fails where an error exceeds its promise.
set -euo pipefail
threads=${1:-0}
params=${2:-leveled-16}
cd "$(dirname "$0")/../.."
cargo build --release --package cerium --example token_linear
example="${CARGO_TARGET_DIR:-target}/release/examples/token_linear"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run() {
    name=$1
    shift
    "$example" --params "$params" --threads "$threads" --json "$@" > "$work/$name.json"
}
run resident
run encoded_when_needed --plaintext-megabytes 7
run llama --inputs 4096 --outputs 4096
machine=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
slug=$(printf '%s' "$machine $(nproc) cores" | tr -cs 'A-Za-z0-9' '-' | sed 's/^-//; s/-$//' | tr '[:upper:]' '[:lower:]')
out="benchmarks/runs/$(date +%F)-$slug"
mkdir -p "$out"
{
    printf '{"benchmark": "layers", "commit": "%s", "machine": "%s, %s cores", "load_average_at_end": "%s"' \
        "$(git describe --always --dirty)" "$machine" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
    for name in resident encoded_when_needed llama; do
        printf ',\n"%s": ' "$name"
        cat "$work/$name.json"
    done
    printf '}\n'
} > "$out/layers.json.tmp"
mv "$out/layers.json.tmp" "$out/layers.json"
cat "$out/layers.json"
