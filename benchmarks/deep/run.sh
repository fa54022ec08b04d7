#!/usr/bin/env bash
# Deep programs at 128-bit security: 200 multiplications one after another, and a logistic regression trained on
# encrypted examples (the examples `deep_iteration` and `logistic_regression` of crates/cerium).
#
#   benchmarks/deep/run.sh [THREADS [PARAMS]]
#
# THREADS is 0 (one for each core) unless told otherwise, PARAMS is boot-40. Writes
# benchmarks/runs/<date>-<machine>/deep.json and prints it. The examples fail where an error exceeds its promise.
set -euo pipefail
threads=${1:-0}
params=${2:-boot-40}
cd "$(dirname "$0")/../.."
cargo build --release --package cerium --examples
examples="${CARGO_TARGET_DIR:-target}/release/examples"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for example in deep_iteration logistic_regression; do
    "$examples/$example" --params "$params" --threads "$threads" --json > "$work/$example.json"
done
machine=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
slug=$(printf '%s' "$machine $(nproc) cores" | tr -cs 'A-Za-z0-9' '-' | sed 's/^-//; s/-$//' | tr '[:upper:]' '[:lower:]')
out="benchmarks/runs/$(date +%F)-$slug"
mkdir -p "$out"
{
    printf '{"benchmark": "deep", "commit": "%s", "machine": "%s, %s cores", "load_average_at_end": "%s",\n"deep_iteration": ' \
        "$(git describe --always --dirty)" "$machine" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
    cat "$work/deep_iteration.json"
    printf ',\n"logistic_regression": '
    cat "$work/logistic_regression.json"
    printf '}\n'
} > "$out/deep.json.tmp"
mv "$out/deep.json.tmp" "$out/deep.json"
cat "$out/deep.json"
