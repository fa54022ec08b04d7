#!/usr/bin/env bash
# Builds the stage programs and compiles the network of a submission; the harness calls it as scripts/build_task.sh.
#
#   benchmarks/fhe-benchmarking/build_task.sh SUBMISSION [DATA [COMPILE OPTIONS]]
#
# SUBMISSION is the folder submissions/mnist or submissions/cifar10 of the harness (or mlp, resnet20, the names of models);
# its subfolder `build` gets the stages and network.cerium. DATA is a folder with resnet20-cifar10/ and cifar10/, and is
# ../shared/data of this repository unless told otherwise; MNIST's network and calibration digits are in the repository. The
# network is compiled again when the model or the compiler is newer, or the options for `cerium compile` are others.
set -euo pipefail
if [ $# -lt 1 ]; then
    sed -n '2,9p' "$0" >&2
    exit 2
fi
submission=$(realpath -m "$1")
repository=$(realpath "$(dirname "$(realpath "$0")")/../..")
data=$(realpath -m "${2:-$repository/../shared/data}")
shift $(($# < 2 ? $# : 2))

normalisation=
case $(basename "$submission") in
mnist | mlp)
    model=$repository/models/mnist/mnist.onnx
    calibration=(--calibrate "$repository/models/mnist/calibration")
    ;;
cifar10 | resnet20)
    model=$data/resnet20-cifar10/resnet20_cifar10_pre.onnx
    # The first 200 pictures set the ranges of activations; accuracy is taken on others.
    calibration=(--calibrate "$data/cifar10/test_first1000.bin" --samples 200)
    # Without a bound the keys of this network take 16 GB of the server's memory.
    [ $# -gt 0 ] || set -- --key-memory 8GB
    # With these the network was trained (see its origin), by channel: red, green, blue.
    normalisation='{"mean": [0.4914, 0.4822, 0.4465], "deviation": [0.2470, 0.2435, 0.2616]}'
    ;;
*)
    echo "error: there is no network for $(basename "$submission"); there is one for mnist and one for cifar10" >&2
    exit 2
    ;;
esac
if [ ! -e "$model" ]; then
    echo "error: there is no model at $model; name the folder of data" >&2
    exit 2
fi

cd "$repository"
cargo build --release --locked --package cerium --package cerium-fhe-benchmarking
release=$(realpath "${CARGO_TARGET_DIR:-target}/release")
build=$submission/build
mkdir -p "$build"
for stage in client_key_generation server_preprocess_model client_preprocess_input client_encode_encrypt_input \
    server_encrypted_compute client_decrypt_decode client_postprocess; do
    ln -sf "$release/fhe-benchmarking" "$build/$stage"
done
network=$build/network.cerium
options=$build/network.options
if [ "$*" != "$(cat "$options" 2>/dev/null)" ] || [ ! "$network" -nt "$model" ] || [ ! "$network" -nt "$release/cerium" ]; then
    rm -f "$options"
    "$release/cerium" compile "$model" "${calibration[@]}" "$@" -o "$network"
    printf '%s' "$*" > "$options"
fi
if [ -n "$normalisation" ]; then
    printf '%s\n' "$normalisation" > "$build/normalisation.json"
fi
