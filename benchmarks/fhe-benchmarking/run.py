#!/usr/bin/env python3
"""Plays the fhe-benchmarking ML-inference harness: its directories, its stages as fresh processes, its checks, and more.

    benchmarks/fhe-benchmarking/run.py mnist|cifar10 [--size 0..3] [--count N] [--seed S] [--data DIR] [--work DIR]
                                       [-- COMPILE OPTIONS]

Server stages run while the secret key, the pictures and the client's other files are elsewhere. Predictions are held
against the labels and against the network in the clear. Writes benchmarks/runs/<date>-<machine>/arena-<data>-<size>.json
(with -batch-<B> where a ciphertext holds B pictures) and prints it. It fails where a stage fails, and where more answers than one in twenty (or than --differ D) are not those of the
network in the clear, whose activations are not polynomials.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
INSTANCES = ["single", "small", "medium", "large"]
BATCHES = [1, 100, 1000, 10000]
# Of CIFAR-10's pictures, the first ones calibrate the network (build_task.sh).
CALIBRATING = {"mnist": 0, "cifar10": 200}


def pictures_of(name, data):
    """Pixels (bytes, channel by channel) and labels of a test set."""
    if name == "mnist":
        folder = data / "mnist"
        pixels = (folder / "t5k-images-idx3-ubyte").read_bytes()[16:]
        labels = (folder / "t5k-labels-idx1-ubyte").read_bytes()[8:]
        return [(pixels[784 * i : 784 * (i + 1)], label) for i, label in enumerate(labels)]
    batch = (data / "cifar10" / "test_first1000.bin").read_bytes()
    record = 1 + 3 * 32 * 32
    records = (batch[i : i + record] for i in range(0, len(batch), record))
    return [(entry[1:], entry[0]) for entry in records]


class Harness:
    """A checkout of the harness, as far as stages see of it."""

    def __init__(self, root, name, size):
        self.root, self.size = root, size
        self.io = root / "io" / INSTANCES[size]
        self.dataset = root / "datasets" / INSTANCES[size] / "intermediate"
        self.submission = root / "submissions" / name
        self.stages = []

    def start(self):
        shutil.rmtree(self.root / "io", ignore_errors=True)
        self.io.mkdir(parents=True)
        self.dataset.mkdir(parents=True, exist_ok=True)

    def write_pictures(self, pictures):
        with open(self.dataset / "test_pixels.txt", "w") as pixels, open(self.dataset / "test_labels.txt", "w") as labels:
            for picture, label in pictures:
                pixels.write(" ".join(f"{pixel / 255:.6f}" for pixel in picture) + "\n")
                labels.write(f"{label}\n")

    def run(self, stage, *arguments):
        """Runs a stage; takes its time and its largest resident memory (which counts this script's, 24 MB, as the least)."""
        command = [self.submission / "build" / stage, *map(str, arguments)]
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=self.root)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"error: {stage} {' '.join(map(str, arguments))} failed ({process.returncode})")
        measured = {"stage": stage, "seconds": round(seconds, 3), "peak_memory_bytes": usage.ru_maxrss * 1024}
        self.stages.append(measured)
        print(f"{stage:28} {seconds:9.2f} s {usage.ru_maxrss / 1e6:8.2f} GB", flush=True)

    def run_server(self, stage, *arguments):
        """Runs a stage without anything that only the client may have."""
        private = [self.root / "datasets", self.io / "secret_key", self.io / "intermediate"]
        with tempfile.TemporaryDirectory(prefix="client-", dir=self.root.parent) as elsewhere:
            moved = [(path, Path(elsewhere) / str(i)) for i, path in enumerate(private) if path.exists()]
            for path, place in moved:
                path.rename(place)
            if left := list(self.root.rglob("secret.key")):
                sys.exit(f"error: the secret key is within reach of the server: {left}")
            try:
                self.run(stage, *arguments)
                self.stages[-1]["without"] = [str(path.relative_to(self.root)) for path, _ in moved]
            finally:
                for path, place in moved:
                    place.rename(path)

    def bytes_in(self, folder):
        return sum(path.stat().st_size for path in (self.io / folder).rglob("*") if path.is_file())

    def numbers(self, path):
        return [[float(field) for field in line.split()] for line in path.read_text().splitlines()]

    def classes(self, path):
        return [int(line) for line in path.read_text().split()]


def machine():
    """Name of this machine's processor, and the folder of its runs."""
    name = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    name = name.group(1) if name else "unknown"
    slug = re.sub("[^A-Za-z0-9]+", "-", f"{name} {os.cpu_count()} cores").strip("-").lower()
    return name, REPOSITORY / "benchmarks" / "runs" / f"{date.today()}-{slug}"


def git(*arguments):
    return subprocess.run(["git", "-C", REPOSITORY, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description="Plays the fhe-benchmarking ML-inference harness.")
    parser.add_argument("name", choices=["mnist", "cifar10"], help="data set and network")
    parser.add_argument("--size", type=int, choices=range(4), default=0, help="0 single, 1 small, 2 medium, 3 large")
    parser.add_argument("--count", type=int, help="pictures; without it 1, 100, 1,000 or 10,000, as the size says")
    parser.add_argument("--seed", type=int, help="of the choice of pictures; without it a fresh one")
    parser.add_argument("--differ", type=int, help="answers that may differ from the network in the clear; count/20")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data", help="folder of test data")
    parser.add_argument("--work", type=Path, help="folder to work in, which is kept")
    parser.epilog = "Options after -- are for `cerium compile`."
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    arguments, compile_options = parser.parse_args(words[:split]), words[split + 1 :]

    name, size, data = arguments.name, arguments.size, arguments.data.resolve()
    try:
        pictures = pictures_of(name, data)[CALIBRATING[name] :]
    except FileNotFoundError as missing:
        print(f"skipped: there is no {missing.filename}; name the folder of test data with --data")
        return
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 31)
    print(f"seed {seed}")
    count = min(arguments.count or BATCHES[size], len(pictures))
    pictures = random.Random(seed).sample(pictures, count)

    temporary = None if arguments.work else tempfile.TemporaryDirectory(prefix="arena-")
    root = (arguments.work or Path(temporary.name)).resolve() / "harness"
    harness = Harness(root, name, size)
    build = REPOSITORY / "benchmarks" / "fhe-benchmarking" / "build_task.sh"
    subprocess.run([build, harness.submission, data, *compile_options], check=True)

    harness.start()
    harness.run("client_key_generation", size)
    harness.run_server("server_preprocess_model")
    harness.write_pictures(pictures)
    harness.run("client_preprocess_input", size)
    harness.run("client_encode_encrypt_input", size)
    harness.run_server("server_encrypted_compute", size)
    harness.run("client_decrypt_decode", size)
    harness.run("client_postprocess", size)

    executable = (harness.submission / "build" / "server_preprocess_model").resolve()
    clear = [harness.io / "harness_model_predictions.txt", harness.io / "harness_model_scores.txt"]
    pixels = harness.dataset / "test_pixels.txt"
    network = harness.submission / "build"
    subprocess.run([executable, "cleartext_impl", "--submission", network, pixels, *clear], check=True)
    labels = harness.classes(harness.dataset / "test_labels.txt")
    encrypted_classes = harness.classes(harness.io / "encrypted_model_predictions.txt")
    clear_classes = harness.classes(clear[0])
    if not len(labels) == len(encrypted_classes) == len(clear_classes):
        sys.exit(f"error: {len(encrypted_classes)} predictions were made for {len(labels)} pictures")
    scores = harness.numbers(harness.io / "intermediate" / "model_scores.txt"), harness.numbers(clear[1])
    differences = [abs(a - b) for rows in zip(*scores) for a, b in zip(*rows)]

    def equal(left, right):
        return sum(a == b for a, b in zip(left, right))

    cerium = executable.with_name("cerium")
    explained = subprocess.run(
        [cerium, "explain", network / "network.cerium", "--json"], check=True, capture_output=True, text=True
    )
    program = json.loads(explained.stdout)
    processor, runs = machine()
    stages = {stage["stage"]: stage["seconds"] for stage in harness.stages}
    report = {
        "benchmark": f"fhe-benchmarking ml-inference, {name}, size {size} ({INSTANCES[size]})",
        "commit": git("rev-parse", "HEAD"),
        "changes_not_committed": git("status", "--porcelain", "--", "crates", "benchmarks/fhe-benchmarking", "Cargo.lock") != "",
        "machine": {"cpu": processor, "cores": os.cpu_count(), "load_average_at_end": list(os.getloadavg())},
        "pictures": count,
        "seed": seed,
        "compile_options": compile_options,
        "program": {key: program[key] for key in ["name", "params", "security_bits", "bootstraps"]},
        "pictures_in_a_ciphertext": program["inputs"][0]["batch"],
        "stages": harness.stages,
        "total_seconds": round(sum(stages.values()), 3),
        "encrypted_computation_seconds_per_picture": stages["server_encrypted_compute"] / count,
        "server_reported_steps": json.loads((harness.io / "server_reported_steps.json").read_text()),
        "public_and_evaluation_key_bytes": harness.bytes_in("public_keys"),
        "encrypted_input_bytes": harness.bytes_in("ciphertexts_upload"),
        "encrypted_result_bytes": harness.bytes_in("ciphertexts_download"),
        "encrypted_right": equal(encrypted_classes, labels),
        "clear_right": equal(clear_classes, labels),
        "equal_answers": equal(encrypted_classes, clear_classes),
        "largest_score_difference": max(differences),
        "largest_score": max(abs(score) for row in scores[1] for score in row),
    }
    runs.mkdir(parents=True, exist_ok=True)
    batch = report["pictures_in_a_ciphertext"]
    path = runs / f"arena-{name}-{INSTANCES[size]}{'' if batch == 1 else f'-batch-{batch}'}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    allowed = arguments.differ if arguments.differ is not None else count // 20
    if count - report["equal_answers"] > allowed:
        sys.exit(f"error: {count - report['equal_answers']} of {count} answers are not those of the network in the clear")


if __name__ == "__main__":
    main()
