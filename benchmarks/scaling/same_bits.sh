#!/usr/bin/env bash
# A bootstrap of all slots gives the same ciphertext, bit by bit, on 1, 2, 3, 4 and 8 CPU devices that are threads, and on 2 and 4
# processes under mpirun (the example `same_bits` of crates/cerium).
#
#   benchmarks/scaling/same_bits.sh [PARAMS [LINK]]
#
# PARAMS is boot-40 unless told otherwise, which needs 12 GB of memory and 4 GB of disk; LINK is what the programs are placed for:
# nvlink, pcie, network or memory. Writes benchmarks/runs/<date>-<machine>/same-bits.json and prints it. Fails where bits differ.
set -euo pipefail
params=${1:-boot-40}
link=${2:-nvlink}
cd "$(dirname "$0")/../.."
cargo build --release --locked --package cerium --example same_bits
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${CARGO_TARGET_DIR:-target}/release/examples/same_bits" --params "$params" --link "$link" --json > "$work/bits.json"
machine=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
slug=$(printf '%s' "$machine $(nproc) cores" | tr -cs 'A-Za-z0-9' '-' | sed 's/^-//; s/-$//' | tr '[:upper:]' '[:lower:]')
out="benchmarks/runs/$(date +%F)-$slug"
mkdir -p "$out"
{
    printf '{"benchmark": "same_bits", "commit": "%s", "machine": "%s, %s cores", "load_average_at_end": "%s",\n"result": ' \
        "$(git describe --always --dirty)" "$machine" "$(nproc)" "$(cut -d' ' -f1-3 /proc/loadavg)"
    cat "$work/bits.json"
    printf '}\n'
} > "$out/same-bits.json.tmp"
mv "$out/same-bits.json.tmp" "$out/same-bits.json"
cat "$out/same-bits.json"
