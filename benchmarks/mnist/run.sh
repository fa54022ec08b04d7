#!/usr/bin/env bash
# Encrypted accuracy of the demo network beside the clear one, and latency by stage.
#
#   benchmarks/mnist/run.sh DATA [COUNT [THREADS]]
#
# DATA is a folder with MNIST test files in IDX format (t10k or a part of it). Writes
# benchmarks/runs/<date>-<machine>/mnist.json and prints it.
set -euo pipefail
if [ $# -lt 1 ]; then
    sed -n '2,7p' "$0" >&2
    exit 2
fi
data=$(realpath "$1")
count=${2:-1000}
threads=${3:-0}
cd "$(dirname "$0")/../.."
cargo build --release
cerium="${CARGO_TARGET_DIR:-target}/release/cerium"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$cerium" compile models/mnist/mnist.onnx --calibrate models/mnist/calibration -o "$work/mnist.cerium"
"$cerium" eval "$work/mnist.cerium" --data "$data" --count "$count" --threads "$threads" --json > "$work/eval.json"
machine=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
slug=$(printf '%s' "$machine $(nproc) cores" | tr -cs 'A-Za-z0-9' '-' | sed 's/^-//; s/-$//' | tr '[:upper:]' '[:lower:]')
out="benchmarks/runs/$(date +%F)-$slug"
mkdir -p "$out"
dirty=$(git status --porcelain -- crates Cargo.toml Cargo.lock | head -n 1)
{
    printf '{\n"benchmark": "mnist",\n"commit": "%s",\n' "$(git rev-parse HEAD)"
    printf '"changes_not_committed": %s,\n' "$([ -n "$dirty" ] && echo true || echo false)"
    printf '"machine": {"cpu": "%s", "cores": %s, "load_average_at_end": "%s"},\n' \
        "$machine" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
    printf '"threads": %s,\n"eval": ' "$threads"
    cat "$work/eval.json"
    printf '}\n'
} > "$out/mnist.json.tmp"
mv "$out/mnist.json.tmp" "$out/mnist.json"
cat "$out/mnist.json"
