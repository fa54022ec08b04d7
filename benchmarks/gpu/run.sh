#!/usr/bin/env bash
# Compares the GPU of this machine with its CPU, bit for bit, then measures it. Stands in the bundle that bundle.sh builds, and
# needs a driver for CUDA 12 or 13 and nothing else.
#
#   ./run.sh [DEVICE [FILE]]
#
# DEVICE is cuda unless told otherwise (cuda:1 is the second GPU, cpu measures the CPU with the same programs). Prints tables;
# FILE (gpu.json unless told otherwise) gets everything as one JSON object. Nothing is measured on a device that computes wrong.
set -euo pipefail
device=${1:-cuda}
file=$(realpath -m "${2:-gpu.json}")
cd "$(dirname "$0")"
. ./about # commit, seed, levels
parts=$(mktemp -d)
trap 'rm -rf "$parts"' EXIT
on=(--device "$device" --cubins "$PWD/cubins")

echo "== the same words as the CPU"
./cerium bench device "${on[@]}" --seed "$seed" --save "$parts/suite"
echo "== operations"
./cerium bench ops "${on[@]}" --params boot-40 --levels "$levels" --threads 0 --save "$parts/operations"
echo "== bootstrap"
./cerium bench bootstrap "${on[@]}" --params boot-40 --threads 0 --runs 20 --save "$parts/bootstrap"
echo "== the demo network"
./cerium eval mnist.cerium --data sample --count 20 "${on[@]}" --save "$parts/network"

gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit \
    --format=csv,noheader 2> /dev/null | paste -sd ';' || true)
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
{
    printf '{"benchmark": "gpu", "commit": "%s", "date": "%s",\n' "$commit" "$(date -u +%FT%TZ)"
    printf '"gpu": "%s", "processor": "%s, %s cores"' "$gpu" "$processor" "$(nproc)"
    for part in suite operations bootstrap network; do
        printf ',\n"%s": ' "$part"
        cat "$parts/$part"
    done
    printf '}\n'
} > "$file.tmp"
mv "$file.tmp" "$file"
echo "written: $file"
