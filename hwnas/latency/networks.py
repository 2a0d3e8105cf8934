"""Which whole networks was a table made with, and how fast does the machine run now?"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwnas.errors import SpaceError, TableError
from hwnas.export.graph import trace
from hwnas.export.onnx_file import build_onnx
from hwnas.files import write_text
from hwnas.latency.measure import MeasureConfig, measure
from hwnas.latency.measurement import Measurement
from hwnas.latency.plan import Plan
from hwnas.latency.target import Target
from hwnas.progress import Progress, silent
from hwnas.space import Arch, SearchSpace
from hwnas.supernet import BlockSpec, Layout

NETWORKS_FILE = "networks.csv"
"""Whole networks that a table was fitted to and judged by."""

N_ANCHORS = 16
"""Networks of the table that are timed again to see how fast the machine runs now."""


@dataclass(frozen=True)
class KnownNetwork:
    """A whole network that was timed when a table was made."""

    arch: Arch
    fitted: bool
    """Whether the correction was fitted to it; otherwise it was held out."""
    measured_ms: float


def save_networks(folder: Path, plan: Plan, measured_ms: Sequence[float]) -> None:
    """Write which networks a table was fitted to and judged by, with their times; `known_networks` reads them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["key", "fitted", "measured_ms", "arch"])
    for number, (arch, ms) in enumerate(zip(plan.archs, measured_ms, strict=True)):
        writer.writerow([arch.key, int(number < len(plan.fitted)), f"{ms:.6g}", json.dumps(arch.as_dict())])
    write_text(folder / NETWORKS_FILE, text.getvalue())


def known_networks(folder: Path, space: SearchSpace) -> list[KnownNetwork]:
    """Return the networks that the table in ``folder`` was made with; none where it does not say.

    Raises:
        TableError: the file is damaged.
        SpaceError: the table is of another space.
    """
    path = folder / NETWORKS_FILE
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                KnownNetwork(space.arch(json.loads(row["arch"])), row["fitted"] == "1", float(row["measured_ms"]))
                for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        if isinstance(error, SpaceError):
            raise
        raise TableError(f"{path} is damaged: {error}; build the table again") from None


def choose_anchors(known: Sequence[KnownNetwork]) -> list[KnownNetwork]:
    """Return a few networks of a table, spread over their latencies."""
    ordered = sorted(known, key=lambda k: k.measured_ms)
    if len(ordered) <= N_ANCHORS:
        return ordered
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, N_ANCHORS).round().astype(int)]


def measure_beside(
    layout: Layout, models: Sequence[Path | bytes], known: Sequence[KnownNetwork], config: MeasureConfig,
    provider: str, progress: Progress = silent, target: Target | None = None,
) -> tuple[list[Measurement], float]:  # fmt: skip
    """Time models, and in the same passes a few networks of a table, which say how fast the machine runs now.

    A fixed block alone would not do: at another speed of the processor a large network changes by another factor.

    Args:
        layout: the space.
        models: files or serialised models.
        known: networks of the table; see `known_networks`.
        config: how.
        provider: execution provider.
        progress: told after every timing.
        target: the machine; default: this one.

    Returns:
        The models' measurements, and how many times longer networks take now than when the table was made.
    """
    anchors = choose_anchors(known)
    extra = [network_onnx(layout, k.arch, config.batch_size) for k in anchors]
    found = measure([*models, *extra], config, provider, target, "time networks", progress)
    ratios = [m.median_ms / k.measured_ms for m, k in zip(found[len(models) :], anchors, strict=True)]
    return found[: len(models)], float(np.exp(np.median(np.log(ratios)))) if ratios else 1.0


def block_onnx(block: BlockSpec, batch_size: int) -> bytes:
    """Return one block of random weights as a serialised ONNX model."""
    return bytes(build_onnx(trace(block.build()), block.in_channels, block.in_size_px, batch_size).SerializeToString())


def network_onnx(layout: Layout, arch: Arch, batch_size: int) -> bytes:
    """A whole network of random weights, exactly as it would be exported."""
    channels, resolution, _ = layout.input_shape(arch)
    graph = trace(layout.build_subnet(arch))
    return bytes(build_onnx(graph, channels, resolution, batch_size).SerializeToString())
