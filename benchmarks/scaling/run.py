#!/usr/bin/env python3
"""How programs scale over devices: predicted on GPUs, predicted and measured on ranks of this machine.

    benchmarks/scaling/run.py [--ranks 1,2,4] [--sets insecure-boot-40,boot-40] [--runs N]

Predicted: a bootstrap of all slots of boot-40 on 1 to 16 GPUs of every kind, and the linear layers of BERT-Base (768 x 768 and
768 x 3072 over 128 tokens, at leveled-16) on 1 to 8. Measured: bootstraps on CPU ranks with a thread each, N runs after one that
does not count, beside what `explain` predicts for as many from kernels that it measures. More ranks than cores share these, and
are as many times slower. Without ranks (`--ranks ""`) nothing is measured. Bootstraps of boot-40 need 10 GB of memory. Writes
benchmarks/runs/<date>-<machine>/scaling.json and prints tables.
"""

import argparse, datetime, json, os, pathlib, re, subprocess, sys, tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
# Inputs and outputs of a token, and devices of a node.
LAYERS = [(768, 768), (768, 3072)]
DEVICES = [1, 2, 4, 8]


def output(*command):
    """What a command printed."""
    print("  " + " ".join(map(str, command[1:])), file=sys.stderr)
    return subprocess.check_output([str(part) for part in command], text=True)


def layer(cerium, example, folder, inputs, outputs):
    """Predicted times of a layer on all GPUs, with NVLink and with PCIe."""
    points = []
    for link in ["nvlink", "pcie"]:
        files = []
        for devices in DEVICES:
            files.append(folder / f"{inputs}x{outputs}-{devices}-{link}.cerium")
            shape = ["--inputs", inputs, "--outputs", outputs, "--params", "leveled-16"]
            output(example, *shape, "--compile", files[-1], "--devices", devices, "--link", link)
        arguments = [files[0], "--link", link, "--json", "--scaling", *files[1:]]
        table = json.loads(output(cerium, "explain", *arguments))["points"]
        # One device has no link.
        points += [point for point in table if link == "nvlink" or point["devices"] > 1]
    return {"inputs": inputs, "outputs": outputs, "tokens": 128, "params": "leveled-16", "points": points}


def measured(cerium, params, ranks, runs):
    """A bootstrap on as many ranks, measured and predicted."""
    arguments = ["--devices", ranks, "--threads", ranks, "--json"]
    bench = json.loads(output(cerium, "bench", "bootstrap", "--params", params, "--runs", runs, *arguments))
    explained = json.loads(output(cerium, "explain", params, *arguments))
    seconds, predicted = bench["median_s"], explained["predicted_seconds"]
    each = (explained["devices"] or {"each": []})["each"]
    return {
        "params": params,
        "ranks": ranks,
        "measured_seconds": seconds,
        "spread_seconds": bench["spread_s"],
        "fastest_seconds": min(bench["samples_s"]),
        # Of all ranks together: less than ranks times seconds where they waited, for each other or for a core.
        "processor_seconds": bench["cpu_s"],
        "predicted_seconds": predicted,
        "measured_over_predicted": seconds / predicted,
        "bytes_sent": [rank["bytes_sent"] for rank in each],
        "predicted_waiting_seconds": [
            sum(rank[f"waiting_seconds_{what}"] for what in ["link", "latency", "late_devices"]) for rank in each
        ],
        "measured_ranks": bench["ranks"],
    }


def show(title, points):
    print(f"\n{title}")
    for point in points:
        print(
            f"  {point['gpu']:5} {point['devices']:3} {point['link']:40} {1e3 * point['predicted_seconds']:9.3f} ms "
            f"x{point['speedup']:.2f}  {point['limited_by']}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed = lambda kind: lambda text: [kind(part) for part in text.split(",") if part]
    parser.add_argument("--ranks", type=listed(int), default=[1, 2, 4])
    parser.add_argument("--sets", type=listed(str), default=["insecure-boot-40", "boot-40"])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    git = lambda *words: subprocess.check_output(["git", "-C", REPOSITORY, *words], text=True).strip()
    commit, dirty = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", "crates", "Cargo.toml", "Cargo.lock")
    for target in [["--bin", "cerium"], ["--example", "token_linear"]]:
        subprocess.check_call(["cargo", "build", "--release", "--locked", "--package", "cerium", *target], cwd=REPOSITORY)
    built = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")) / "release"
    cerium, example = built / "cerium", built / "examples" / "token_linear"

    bootstrap = json.loads(output(cerium, "explain", "boot-40", "--scaling", "--json"))["points"]
    with tempfile.TemporaryDirectory() as folder:
        layers = [layer(cerium, example, pathlib.Path(folder), *shape) for shape in LAYERS]
    runs = [measured(cerium, params, ranks, options.runs) for params in options.sets for ranks in options.ranks]

    cpu = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M)[1]
    machine = f"{cpu} {os.cpu_count()} cores"
    report = {
        "benchmark": "scaling",
        "commit": commit,
        "changes_not_committed": bool(dirty),
        "machine": {"cpu": cpu, "cores": os.cpu_count(), "load_average_at_end": os.getloadavg()},
        "predicted_bootstrap": {"params": "boot-40", "points": bootstrap},
        "predicted_layers": layers,
        "ranks": {"threads_of_a_rank": 1, "runs": options.runs, "results": runs},
    }
    slug = re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
    out = REPOSITORY / "benchmarks" / "runs" / f"{datetime.date.today()}-{slug}"
    out.mkdir(parents=True, exist_ok=True)
    unfinished = out / "scaling.json.tmp"
    unfinished.write_text(json.dumps(report, indent=1) + "\n")
    unfinished.rename(out / "scaling.json")
    show("bootstrap of boot-40", bootstrap)
    for of in layers:
        show(f"{of['inputs']} x {of['outputs']} over {of['tokens']} tokens", of["points"])
    print("\nranks of one thread")
    for run in runs:
        print(
            f"  {run['params']:18} {run['ranks']} ranks: measured {run['measured_seconds']:8.3f} s, predicted "
            f"{run['predicted_seconds']:8.3f} s, ratio {run['measured_over_predicted']:.2f}"
        )


if __name__ == "__main__":
    main()
