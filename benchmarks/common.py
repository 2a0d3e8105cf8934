"""What several benchmarks need: the supernet of the package `ofa`, images, a short training, fronts in one scale."""

from __future__ import annotations

import io
import json
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from hwnas.files import SEAL, write_json, write_text
from hwnas.pareto import hypervolume, normalise

SHORT = ["objectives=[top1_percent, latency_ms]", "finish.models=0"]
"""Settings of a search whose models are looked at as the supernet gives them."""
_WIDTH = "{name: width, epochs: 4, lr: 0.03, elastic: {kernel_size: all, depth: all, expand_ratio: all}, " \
    "sampling: sandwich, subnets_per_step: 2, teacher: inplace, sort_channels: true}"  # fmt: skip
SHORT_MNIST = [
    *SHORT, "data.max_images=6000", "train.batch_size=32",
    f"train.phases=[{{name: full, epochs: 3, lr: 0.05}}, {_WIDTH}]", "search.validation_images=2000",
]  # fmt: skip
"""The same after some minutes of training on MNIST."""


class Kept:
    """Results of long benchmarks by name: in a folder, and in one file that collects them over several machines."""

    def __init__(self, folder: Path, collected: Path | None) -> None:
        self.folder, self.collected = folder, collected
        self.known: dict[str, Any] = {}
        if collected is not None and collected.exists():
            self.known = json.loads(collected.read_text(encoding="utf-8"))

    def get(self, name: str, make: Callable[[], Any] | None = None) -> Any:
        """Return a result, made now where it is not there; None where it is neither there nor to be made."""
        path = self.folder / f"{name}.json"
        if name not in self.known and path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            self.known[name] = {key: value for key, value in found.items() if key != SEAL}
        if name not in self.known and make is not None:
            self.known[name] = make()
            write_json(path, self.known[name])
            print(f"{name}: done", flush=True)
        return self.known.get(name)

    def collect(self) -> None:
        """Write everything known to the one file, a line each."""
        if self.collected is not None:
            lines = [f"{json.dumps(name)}: {json.dumps(self.known[name])}" for name in sorted(self.known)]
            write_text(self.collected, "{\n" + ",\n".join(lines) + "\n}\n")


def hypervolumes(fronts: Sequence[np.ndarray]) -> list[float]:
    """Return the hypervolume of each front, ``(n, 2)`` losses, scaled by everything that is on any of them."""
    every = np.concatenate(list(fronts))
    low, high = every.min(0), every.max(0)
    return [hypervolume(normalise(rows, low, high), np.array([1.1, 1.1])) for rows in fronts]


def original_ofa(classes: int = 1000) -> Any:
    """Return the MobileNetV3 supernet of `ofa`; a stand-in satisfies its import of torchvision, which it needs not."""
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.datasets")
    modules = {name: types.ModuleType(name) for name in names}
    for name in names[1:]:
        parent, _, own = name.rpartition(".")
        setattr(modules[parent], own, modules[name])
    for name in ("RandomResizedCrop", "Compose"):
        setattr(modules["torchvision.transforms"], name, type(name, (), {}))
    sys.modules.update(modules)
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3

    torch.manual_seed(0)
    return OFAMobileNetV3(
        n_classes=classes, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
    )  # fmt: skip


def cifar10(path: Path, n: int, pixels: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the first ``n`` training images of a `jpeg` file, normalised, and their labels.

    Args:
        path: of the .npz.
        n: images.
        pixels: edge to which they are enlarged first; None: as they are.
    """
    with np.load(path) as file:
        blob, offsets = file["jpeg_train"], file["offset_train"]
        labels = torch.from_numpy(file["y_train"][:n].astype(np.int64))
        decoded = [
            np.asarray(Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]].tobytes())).convert("RGB"))
            for i in range(n)
        ]
    x = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255
    if pixels is not None:
        x = F.interpolate(x, size=(pixels, pixels), mode="bilinear", align_corners=False)
    mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    return ((x - mean) / std).contiguous(), labels
