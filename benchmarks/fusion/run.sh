#!/usr/bin/env bash
# A bootstrap on the CPU before and after kernels were fused and ordered: two commits, built here and measured in turns in one run.
#
#   benchmarks/fusion/run.sh [THREADS [BEFORE]]
#
# THREADS is 1 unless told otherwise; BEFORE is the commit to compare with, by default the last one whose kernels were single
# operations on limbs and chains of elementwise ones. Writes benchmarks/runs/<date>-<machine>/fusion-<threads>.json and prints it:
# times of full-slot boot-40 bootstraps, and how many times faster the present commit is. Needs 8 GB of memory.
set -euo pipefail
threads=${1:-1}
before=${2:-9b89cc9}
rounds=5
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cargo build --release --locked --package cerium
work=$(mktemp -d)
trap 'git worktree remove --force "$work/before" 2> /dev/null || true; rm -rf "$work"' EXIT
git worktree add --quiet --detach "$work/before" "$before"
(cd "$work/before" && CARGO_TARGET_DIR="$target/before-fusion" cargo build --release --locked --package cerium)
for round in $(seq "$rounds"); do
    for side in before after; do
        case $side in
            before) binary="$target/before-fusion/release/cerium" ;;
            after) binary="$target/release/cerium" ;;
        esac
        echo "round $round of $rounds: $side" >&2
        "$binary" bench bootstrap --params boot-40 --threads "$threads" --runs 3 --json > "$work/$side-$round.json" 2> /dev/null
    done
done
machine=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
slug=$(printf '%s' "$machine $(nproc) cores" | tr -cs 'A-Za-z0-9' '-' | sed 's/^-//; s/-$//' | tr '[:upper:]' '[:lower:]')
out="benchmarks/runs/$(date +%F)-$slug"
mkdir -p "$out"
python3 - "$work" "$rounds" "$threads" "$before" "$(git describe --always --dirty)" "$machine, $(nproc) cores" \
    > "$out/fusion-$threads.json.tmp" <<'PYTHON'
import json, pathlib, statistics, sys

work, rounds, threads, before, after, machine = sys.argv[1:]
load = open("/proc/loadavg").read().split()[:3]


def side(name, commit):
    runs = [json.loads(pathlib.Path(work, f"{name}-{i}.json").read_text()) for i in range(1, int(rounds) + 1)]
    samples = [sample for run in runs for sample in run["samples_s"]]
    cpu = [sample for run in runs for sample in run["samples_cpu_s"]]
    return {
        "commit": commit,
        "median_s": statistics.median(samples),
        "cpu_s": statistics.median(cpu),
        "samples_s": samples,
        "samples_cpu_s": cpu,
        "mean_precision_bits": statistics.mean(run["mean_precision_bits"] for run in runs),
        "pool_bytes": runs[0]["pool_bytes"],
        "key_bytes": runs[0]["key_bytes"],
        "peak_rss_bytes": max(run["peak_rss_bytes"] for run in runs),
    }


sides = {"before": side("before", before), "after": side("after", after)}
print(json.dumps({
    "benchmark": "fusion",
    "params": "boot-40",
    "threads": int(threads),
    "machine": machine,
    "load_average_at_end": " ".join(load),
    **sides,
    "times_faster": sides["before"]["median_s"] / sides["after"]["median_s"],
    "times_less_cpu": sides["before"]["cpu_s"] / sides["after"]["cpu_s"],
}, indent=2))
PYTHON
mv "$out/fusion-$threads.json.tmp" "$out/fusion-$threads.json"
cat "$out/fusion-$threads.json"
