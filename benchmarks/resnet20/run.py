#!/usr/bin/env python3
"""ResNet-20 on encrypted CIFAR-10 pictures: the whole path in separate processes, then accuracy and logits.

    benchmarks/resnet20/run.py MODEL DATA [--count N] [--simulate N] [--threads N]

MODEL is an ONNX file or a network description, DATA a CIFAR-10 batch (.bin). The first picture goes through compile, keygen,
encrypt, run and decrypt, each a process of its own, with time and peak memory. Then N pictures (20) are classified under
encryption beside the network in the clear, and N (1,000) simulated on clear slots; the outputs of both must agree within the
promise. Needs 20 GB of memory and 8 GB of disk. Writes benchmarks/runs/<date>-<machine>/resnet20.json and prints a summary.
"""

import argparse, datetime, json, os, pathlib, re, subprocess, sys, tempfile, time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# What is promised is twelve standard deviations of the error (ARCHITECTURE.md, Noise).
DEVIATIONS = 12


def process(command):
    """Runs a command: what it printed, seconds, peak memory in bytes."""
    print("  " + " ".join(map(str, command[1:])), file=sys.stderr)
    start = time.monotonic()
    child = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))}: ended with status {os.waitstatus_to_exitcode(status)}")
    return output, {"seconds": time.monotonic() - start, "peak_rss_bytes": 1024 * usage.ru_maxrss}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--simulate", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    git = lambda *words: subprocess.check_output(["git", "-C", REPOSITORY, *words], text=True).strip()
    commit, dirty = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", "crates", "Cargo.toml", "Cargo.lock")
    model, data = options.model.resolve(), options.data.resolve()
    subprocess.check_call(["cargo", "build", "--release", "--locked", "--package", "cerium"], cwd=REPOSITORY)
    cerium = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "release" / "cerium"
    calibration = ["--calibrate", data, "--samples", 500, "--accuracy", 0.5]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        program, keys, threads = folder / "resnet20.cerium", folder / "keys", ["--threads", options.threads]
        stages = {}
        output, stages["compile"] = process([cerium, "compile", model, *calibration, "-o", program, "--json"])
        compiled = json.loads(output)
        del compiled["program"]  # a path
        _, stages["keygen"] = process([cerium, "keygen", program, "-o", keys])
        picture, answer, profile = folder / "in.ct", folder / "out.ct", folder / "profile.json"
        source = ["--input", f"{data}:0", "-o", picture]
        _, stages["encrypt"] = process([cerium, "encrypt", program, "--keys", keys, *source])
        # The server has the evaluation keys only.
        server = folder / "server"
        server.mkdir()
        (keys / "evaluation").rename(server / "evaluation")
        files = ["--input", picture, "-o", answer, "--profile", profile]
        _, stages["run"] = process([cerium, "run", program, "--keys", server, *files, *threads])
        (server / "evaluation").rename(keys / "evaluation")
        output, stages["decrypt"] = process([cerium, "decrypt", program, "--keys", keys, "--input", answer, "--json"])
        decrypted = json.loads(output)["outputs"][0]
        arguments = ["--data", data, "--count", options.count, "--keys", keys, "--json"]
        output, evaluating = process([cerium, "eval", program, *arguments, *threads])
        evaluation = json.loads(output)
        arguments = ["--data", data, "--count", options.simulate, "--json"]
        output, simulating = process([cerium, "simulate", model, *calibration, *arguments])
        simulation = json.loads(output)
        profile = json.loads(profile.read_text())
    pairs = list(zip(evaluation.pop("outputs"), simulation.pop("outputs")))
    difference = max(abs(a - b) for encrypted, clear in pairs for a, b in zip(encrypted, clear))
    promised = DEVIATIONS * decrypted["predicted_error"]
    cpu = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)[1]
    machine = f"{cpu} {os.cpu_count()} cores"
    report = {
        "benchmark": "resnet20",
        "commit": commit,
        "changes_not_committed": bool(dirty),
        "machine": {"cpu": cpu, "cores": os.cpu_count(), "load_average_at_end": os.getloadavg()},
        "model": model.name,
        "processes": stages,
        "first_answer": decrypted,
        "compiled": compiled,
        "profile": profile,
        "evaluation": evaluation,
        "evaluation_process": evaluating,
        "simulation": simulation,
        "simulation_process": simulating,
        "encrypted_against_simulated": {"inputs": len(pairs), "largest": difference, "promised": promised},
    }
    slug = re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
    out = REPOSITORY / "benchmarks" / "runs" / f"{datetime.date.today()}-{slug}"
    out.mkdir(parents=True, exist_ok=True)
    unfinished = out / "resnet20.json.tmp"
    unfinished.write_text(json.dumps(report, indent=1) + "\n")
    unfinished.rename(out / "resnet20.json")
    for name, stage in stages.items():
        print(f"{name:8} {stage['seconds']:8.1f} s  {stage['peak_rss_bytes'] / 1e9:5.1f} GB")
    print(f"computing one picture: {profile['seconds']:.1f} s; keys {compiled['key_bytes'] / 1e9:.2f} GB")
    print(f"{evaluation['agreements']} of {evaluation['count']} answers are those in the clear, "
          f"largest difference of an output {evaluation['max_error']:.3f}")
    print(f"encrypted against simulated: {difference:.2e}, promised {promised:.2e}")
    print(f"{simulation['count']} simulated in {simulating['seconds']:.0f} s: {simulation['simulated_accuracy']:.2%}, "
          f"in the clear {simulation['clear_accuracy']:.2%}")
    if difference > promised or evaluation["agreements"] < evaluation["count"]:
        sys.exit("the encrypted answers are not what was promised")


if __name__ == "__main__":
    main()
