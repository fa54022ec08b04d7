#!/usr/bin/env bash
# Builds what a machine with an NVIDIA GPU needs to compare it with its CPU and to measure it: one file, no Rust there.
#
#   benchmarks/gpu/bundle.sh [FILE]
#
# FILE is target/cerium-gpu.tar.xz unless told otherwise. In it: the binary, the program of the demo network with its sample
# digits, the kernels of everything that run.sh runs (as text, and compiled for A100, H100, H200 and B200), the parameters, and
# run.sh. Kernels are compiled by NVRTC of CUDA 12, which drivers of CUDA 12 and 13 take; pip brings it.
set -euo pipefail
nvrtc_version=12.9.86
seed=1
levels=3,10,17,25
most_bytes=60000000
newest_glibc=2.34

cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
file=${1:-$target/cerium-gpu.tar.xz}
nvrtc=$target/nvrtc-$nvrtc_version
[ -d "$nvrtc/nvidia" ] ||
    python3 -m pip install --quiet --no-deps --target "$nvrtc" "nvidia-cuda-nvrtc-cu12==$nvrtc_version"
cargo build --release --locked -p cerium

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bundle=$folder/cerium-gpu
mkdir "$bundle"
strip -o "$bundle/cerium" "$target/release/cerium"
needs=$(objdump -T "$bundle/cerium" | sed -n 's/.*(\(GLIBC_\)\([0-9.]*\)).*/\2/p' | sort -uV | tail -n 1)
if [ "$(printf '%s\n' "$needs" "$newest_glibc" | sort -V | tail -n 1)" != "$newest_glibc" ]; then
    echo "the binary needs glibc $needs, machines with GPUs may have $newest_glibc; objdump -T says what needs it" >&2
    exit 1
fi
cerium=$bundle/cerium
"$cerium" compile models/mnist/mnist.onnx --calibrate models/mnist/calibration -o "$bundle/mnist.cerium"
cp models/mnist/sample-images-idx3-ubyte models/mnist/sample-labels-idx1-ubyte "$bundle"
"$cerium" params boot-40 --json > "$bundle/boot-40.json"
"$cerium" bench kernels "$bundle/mnist.cerium" --suite "$seed" --params boot-40 --levels "$levels" \
    --cuda 12 --nvrtc "$nvrtc" --cubins "$bundle/cubins" --texts "$bundle/texts" --save "$bundle/kernels.json" | tail -n 1
cp benchmarks/gpu/run.sh "$bundle"
cat > "$bundle/about" <<EOF
commit=$(git rev-parse HEAD)$(git diff --quiet HEAD || echo -dirty)
seed=$seed
levels=$levels
EOF
tar -C "$folder" -c cerium-gpu | xz -T0 -6 > "$file.tmp"
mv "$file.tmp" "$file"
bytes=$(stat -c %s "$file")
echo "$file: $bytes bytes, glibc $needs"
[ "$bytes" -le "$most_bytes" ] || { echo "more than $most_bytes bytes" >&2; exit 1; }
