"""How is a profile made of a new device from a few whole networks timed on it? The model that predicts best is kept."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from hwnas.arguments import checked_arguments
from hwnas.errors import SpaceError, TableError
from hwnas.export.onnx_file import to_onnx
from hwnas.export.op import Op
from hwnas.files import make_folder, write_text
from hwnas.latency.cost_model import OP_TYPES, CostModel, OpCost, op_features
from hwnas.latency.device import (
    DeviceProfile,
    ProfileError,
    check_profile,
    device_name_of,
    load_profile,
    shipped_devices,
    write_profile,
)
from hwnas.latency.plan import network_sample
from hwnas.latency.spreadsheet import read_table
from hwnas.latency.table import block_ops, relative_errors
from hwnas.space import Arch
from hwnas.space.dialects.once_for_all import parse_ofa
from hwnas.supernet import Layout

MIN_NETWORKS = 5
MEASUREMENTS_FILE = "measurements.csv"

DENSE = ("conv", "linear")
WINDOWED = ("depthwise_conv", "max_pool", "avg_pool")
FUSED = ("relu",)

TERMS: tuple[tuple[str, ...], ...] = (
    ("network", "macs"),
    ("network", "dense_macs", "windowed_macs"),
    ("network", "macs", "elements"),
    ("network", "dense_macs", "windowed_macs", "elements"),
    ("network", "operators", "dense_macs", "windowed_macs", "elements"),
)
"""Sets of terms that are tried, from few constants to many."""


@dataclass(frozen=True)
class Candidate:
    """One model that was tried."""

    name: str
    columns: NDArray[np.float64]
    """``(n, k)`` features of the networks, one for each constant."""

    def fit(self, measured_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``(k,)`` constants, not negative, that fit relative errors best."""
        scale = self.columns.max(axis=0)
        return np.asarray(
            scipy.optimize.nnls(self.columns / scale / measured_ms[:, None], np.ones(len(measured_ms)))[0] / scale
        )

    def left_out(self, measured_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``(n,)`` predictions, each by constants fitted to the other networks."""
        out = np.empty(len(measured_ms))
        for i in range(len(out)):
            rest = np.arange(len(out)) != i
            out[i] = self.columns[i] @ Candidate(self.name, self.columns[rest]).fit(measured_ms[rest])
        return out


@checked_arguments
def sample_networks(layout: Layout, out: str | Path, networks: int = 16, seed: int = 0) -> Path:
    """Write networks of random weights as ONNX files, and a CSV file that asks for their latencies.

    Args:
        layout: the space.
        out: folder that receives ``KEY.onnx`` and ``measurements.csv``.
        networks: how many; the smallest and the largest are among them.
        seed: of the networks.

    Returns:
        The CSV file; its column ``latency_ms`` is empty.
    """
    folder = Path(out)
    make_folder(folder)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "latency_ms", "arch"])
    for arch in network_sample(layout.space, networks, seed):
        channels, resolution, _ = layout.input_shape(arch)
        to_onnx(layout.build_subnet(arch).eval(), channels, resolution, folder / f"{arch.key}.onnx")
        writer.writerow([f"{arch.key}.onnx", "", json.dumps(arch.as_dict())])
    path = folder / MEASUREMENTS_FILE
    write_text(path, text.getvalue())
    return path


def read_measurements(path: Path, layout: Layout) -> tuple[list[Arch], NDArray[np.float64]]:
    """Read archs and latencies; ``arch`` holds JSON, as `sample_networks` or once-for-all (``ks, e, d, r``) write it.

    Raises:
        TableError: a missing column, a latency that is not a positive number, an arch that is not of the space, or an
            arch that stands twice with different latencies.
    """
    space, found = layout.space, dict[Arch, float]()
    table = read_table(path, ("arch", "latency_ms"))
    for line, latency_ms in zip(table.lines, table.numbers("latency_ms", "milliseconds"), strict=True):
        try:
            values = json.loads(line.cells["arch"])
            arch = parse_ofa(values, space) if "ks" in values else space.arch(values)
        except (SpaceError, ValueError, TypeError, RecursionError) as error:
            raise TableError(f"{line.where}: arch is none of this recipe: {error}") from None
        if found.setdefault(arch, latency_ms) != latency_ms:
            raise TableError(f"{line.where}: arch {arch.key} stands twice with different latencies")
    if len(found) < MIN_NETWORKS:
        raise TableError(f"{path} has {len(found)} networks; time at least {MIN_NETWORKS}, better 10 to 20")
    return list(found), np.array(list(found.values()))


@checked_arguments
def fit_profile(
    layout: Layout, measurements: str | Path, source: str, licence: str, out: str | Path, name: str | None = None,
    kind: str = "npu", runtime: str = "not stated", precision: str = "not stated", title: str | None = None,
) -> DeviceProfile:  # fmt: skip
    """Make a device profile from 10 to 20 whole networks that were timed on the device, and write it.

    Args:
        layout: the space of the networks.
        measurements: CSV file with columns ``arch`` and ``latency_ms``; `sample_networks` writes one to fill in.
        source: who measured, and how.
        licence: of the measurements.
        out: folder that receives ``profile.yaml``.
        name: of the device; default: that of the folder.
        kind: ``cpu``, ``gpu``, ``dsp``, ``vpu``, ``npu`` or ``fpga``.
        runtime: what executed the networks, with its version.
        precision: number format, such as ``int8``.
        title: the device in a few words; default: its name.

    Returns:
        The profile; see `fit_networks` for how it is fitted and what its error is.

    Raises:
        TableError: see `read_measurements`.
        DeviceError: the name or the kind cannot be one of a device.
    """
    name = device_name_of(out, name)
    archs, latency_ms = read_measurements(Path(measurements), layout)
    return fit_networks(layout, archs, latency_ms, name, kind, runtime, precision, source, licence, Path(out), title)


def fit_networks(
    layout: Layout, archs: Sequence[Arch], latency_ms: NDArray[np.float64], name: str, kind: str, runtime: str,
    precision: str, source: str, licence: str, folder: Path, title: str | None = None,
) -> DeviceProfile:  # fmt: skip
    """Fit cost models to whole networks, keep the one that predicts left-out networks best, and write its profile.

    Tried are a few sets of terms (constant, operators, multiply-adds, elements), and every shipped cost model, scaled,
    with a constant of its own: devices of one kind rank operators alike. The published error is that of networks left
    out one at a time.

    Args:
        layout: the space of the networks.
        archs: ``n`` networks.
        latency_ms: ``(n,)`` of them.
        name: of the device.
        kind: see `fit_profile`, as are those that follow.
        runtime: what executed the networks.
        precision: number format.
        source: who measured.
        licence: of the measurements.
        folder: receives ``profile.yaml``.
        title: the device in a few words; default: its name.
    """
    ops = [[op for _, b in layout.blocks(arch) for op in block_ops(b)] for arch in archs]
    candidates = [Candidate(" + ".join(t), np.stack([_terms(o)[list(_index(t))] for o in ops])) for t in TERMS]
    bases: dict[str, CostModel] = {}
    for shipped in shipped_devices():
        model = load_profile(shipped).cost_model
        if model is not None:
            bases[f"{shipped}, scaled"] = model
            sums = [[1.0, float(model.ops_ms(o).sum())] for o in ops]
            candidates.append(Candidate(f"{shipped}, scaled", np.array(sums)))
    predictions = [c.left_out(latency_ms) for c in candidates]
    errors = [float(np.abs(p / latency_ms - 1).mean()) for p in predictions]
    best = int(np.argmin(errors))
    chosen = candidates[best]
    constants = chosen.fit(latency_ms)
    text = f"fitted to {len(archs)} whole networks timed on the device"
    if chosen.name in bases:
        cost_model = _scaled(bases[chosen.name], float(constants[0]), float(constants[1]), text)
    else:
        cost_model = _of_terms(dict(zip(TERMS[best], constants.tolist(), strict=True)), text)
    error = ProfileError.model_validate({
        "networks": "the networks of the fit, each left out once", "n_held_out": len(archs), "seed": 0,
        **relative_errors(predictions[best], latency_ms),
    })  # fmt: skip
    far = far_measurements(predictions[best], latency_ms)
    best_3 = sorted(zip(errors, (c.name for c in candidates), strict=True))[:3]
    profile = check_profile({
        "format": 1, "name": name, "title": title or name, "kind": kind, "runtime": runtime, "precision": precision,
        "provider": None, "threads": None, "batch_size": 1, "origin": "modelled", "source": source,
        "licence": licence, "error": error, "cost_model": cost_model,
        "notes": (
            f"Cost model: {chosen.name}, {text}.",
            "Best tried, by error on left-out networks: " + ", ".join(f"{n} {100 * e:.1f} %" for e, n in best_3),
            "Holds for networks like those of the fit; time your own before you promise a latency.",
            *(
                f"{archs[i].key} {FAR}: {latency_ms[i]:.4g} ms, by the others {predictions[best][i]:.4g} ms."
                for i in far
            ),
        ),
    }, f"profile of {name!r}")  # fmt: skip
    make_folder(folder)
    write_profile(profile, folder)
    return load_profile(folder)


FAR = "was measured far from what the other networks say, time it again"
"""Stands in the notes of a profile."""

FAR_RATIO = 1.5
"""A measurement is far from the others where it is this many times off what they say ..."""

FAR_SPREADS = 6.0
"""... and further off than this many times the usual error (median of the absolute errors of logarithms)."""


def far_measurements(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> list[int]:
    """Return which of ``(n,)`` measurements are far from what the others say, furthest first."""
    off = np.log(measured) - np.log(np.maximum(predicted, 1e-12))
    off = np.abs(off - np.median(off))
    far = off > max(np.log(FAR_RATIO), FAR_SPREADS * float(np.median(off)))
    return sorted(np.flatnonzero(far).tolist(), key=lambda i: -off[i])


NAMES = ("network", "operators", "macs", "dense_macs", "windowed_macs", "elements")


def _index(terms: Sequence[str]) -> list[int]:
    return [NAMES.index(t) for t in terms]


def _terms(ops: Sequence[Op]) -> NDArray[np.float64]:
    """Sums over a network, in the order of `NAMES`; counts in millions."""
    types, sizes = op_features(ops)
    timed = ~np.isin(types, [OP_TYPES.index(t) for t in FUSED])
    dense = np.isin(types, [OP_TYPES.index(t) for t in DENSE])
    windowed = np.isin(types, [OP_TYPES.index(t) for t in WINDOWED])
    dense_macs, windowed_macs = sizes[dense, 1].sum(), sizes[windowed, 1].sum()
    return np.array([1.0, timed.sum(), dense_macs + windowed_macs, dense_macs, windowed_macs, sizes[timed, 2].sum()])


def _of_terms(constants: dict[str, float], source: str) -> CostModel:
    per_mac = constants.get("macs", 0.0)
    overhead, per_element = constants.get("operators", 0.0), constants.get("elements", 0.0)
    ops: dict[str, Any] = {}
    for op_type in OP_TYPES:
        if op_type in FUSED:
            ops[op_type] = OpCost(fused=True, source="assumed: executed inside the operator before it")
            continue
        rate = per_mac
        if op_type in DENSE:
            rate = constants.get("dense_macs", per_mac)
        elif op_type in WINDOWED:
            rate = constants.get("windowed_macs", per_mac)
        has_macs = op_type in DENSE + WINDOWED
        ops[op_type] = OpCost(
            overhead_ms=overhead, gmacs_per_s=1 / rate if has_macs and rate > 0 else None,
            gelements_per_s=1 / per_element if per_element > 0 else None, source=source,
        )  # fmt: skip
    return CostModel.model_validate({"network_overhead_ms": constants["network"], "ops": ops})


def _scaled(base: CostModel, network_ms: float, factor: float, source: str) -> CostModel:
    """A cost model that takes ``factor`` times as long for every operator."""

    def scale(cost: OpCost) -> OpCost:
        if cost.overhead_ms is None or factor <= 0:
            return cost
        return OpCost(
            overhead_ms=cost.overhead_ms * factor,
            gmacs_per_s=cost.gmacs_per_s / factor if cost.gmacs_per_s else None,
            gelements_per_s=cost.gelements_per_s / factor if cost.gelements_per_s else None,
            source=f"{source}; proportions: {cost.source}",
        )

    return CostModel(network_overhead_ms=network_ms, ops={t: scale(c) for t, c in base.ops.items()})
