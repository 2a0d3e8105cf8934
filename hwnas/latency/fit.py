"""How is a profile made of a new device from a few whole networks timed on it? The model that predicts best is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from hwnas.arguments import checked_arguments
from hwnas.errors import TableError, shown, some
from hwnas.export.onnx_file import to_onnx
from hwnas.files import csv_text, make_folder, write_text
from hwnas.latency.cost_terms import kind_sums
from hwnas.latency.device import (
    DeviceProfile,
    check_profile,
    device_name_of,
    devices,
    load_profile,
    write_profile,
)
from hwnas.latency.fit_candidates import best_of, candidates
from hwnas.latency.measured_networks import (
    MeasuredNetwork,
    check_variety,
    of_archs,
    read_measured,
)
from hwnas.latency.plan import network_sample
from hwnas.latency.spreadsheet import read_table
from hwnas.latency.table import measured_range, relative_errors
from hwnas.latency.units import MS_PER_UNIT, network_unit_warning
from hwnas.space import Arch
from hwnas.supernet import Layout

MEASUREMENTS_FILE = "measurements.csv"


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
    rows: list[list[object]] = [["file", "latency_ms", "arch"]]
    for arch in network_sample(layout.space, networks, seed):
        channels, resolution, _ = layout.input_shape(arch)
        to_onnx(layout.build_subnet(arch).eval(), channels, resolution, folder / f"{arch.key}.onnx")
        rows.append([f"{arch.key}.onnx", "", json.dumps(arch.as_dict())])
    path = folder / MEASUREMENTS_FILE
    write_text(path, csv_text(rows))
    return path


@checked_arguments
def fit_profile(
    layout: Layout | None, measurements: str | Path, source: str, licence: str, out: str | Path,
    name: str | None = None, kind: str = "npu", runtime: str = "not stated", precision: str = "not stated",
    title: str | None = None,
    operators: str | Path | None = None, unit: str | None = None, bases: Sequence[str | Path] | None = None,
) -> DeviceProfile:  # fmt: skip
    """Make a device profile from 8 to 25 whole networks that were timed on the device, and write it.

    Args:
        layout: the space whose archs the file names; None: it names none.
        measurements: CSV file with ``latency_ms``, and in each row ``arch``, ``network`` or ``file``; its form is that
            of `hwnas.latency.measured_networks`. `sample_networks` writes one to fill in.
        source: who measured, and how.
        licence: of the measurements.
        out: folder that receives ``profile.yaml``.
        name: of the device; default: that of the folder.
        kind: ``cpu``, ``gpu``, ``dsp``, ``vpu``, ``npu`` or ``fpga``.
        runtime: what executed the networks, with its version.
        precision: number format, such as ``int8``.
        title: the device in a few words; default: its name.
        operators: list of the operators of networks that the file names by ``network``, see `hwnas.latency.op_lists`.
        unit: of the latencies, ``ms``, ``us`` or ``s``; default: milliseconds, refused where they do not look like it.
        bases: devices that the fit may start from, by name or folder; default: every shipped one that has a cost
            model. An empty list: from none.

    Returns:
        The profile; see `fit_measured` for how it is fitted and what its error is.

    Raises:
        TableError: see `hwnas.latency.measured_networks.read_measured`; or all networks are of one family, or the
            latencies are of another unit.
        DeviceError: the name or the kind cannot be one of a device, or a base is unknown.
    """
    name = device_name_of(out, name)
    if unit is not None and unit not in MS_PER_UNIT:
        raise TableError(f"unit {shown(unit, 40)} is unknown; use one of {sorted(MS_PER_UNIT)}")
    path = Path(measurements)
    lists = None if operators is None else Path(operators)
    networks = read_measured(path, layout, lists, MS_PER_UNIT[unit or "ms"])
    check_variety(networks, str(path))
    ops = [n.ops for n in networks]
    if unit is None and (why := network_unit_warning(ops, [n.latency_ms for n in networks], devices(), kind)):
        raise TableError(f"{path}: {why}")
    known = devices() if bases is None else [load_profile(base) for base in bases]
    return fit_measured(networks, name, kind, runtime, precision, source, licence, Path(out), title, known)


def read_measurements(path: Path, layout: Layout) -> tuple[list[Arch], NDArray[np.float64]]:
    """Read archs and latencies; ``arch`` holds JSON, as `sample_networks` or once-for-all (``ks, e, d, r``) write it.

    Raises:
        TableError: a missing column, a latency that is not a positive number, an arch that is not of the space, or an
            arch that stands twice with different latencies.
    """
    read_table(path, ("arch", "latency_ms"))
    networks = read_measured(path, layout)
    if others := [n.name for n in networks if n.arch is None]:
        raise TableError(f"{path}: {some(others)} are no archs; fill in arch")
    return [n.arch for n in networks if n.arch is not None], np.array([n.latency_ms for n in networks])


def fit_networks(
    layout: Layout, archs: Sequence[Arch], latency_ms: NDArray[np.float64], name: str, kind: str, runtime: str,
    precision: str, source: str, licence: str, folder: Path, title: str | None = None,
) -> DeviceProfile:  # fmt: skip
    """Fit a profile to archs of a recipe; see `fit_measured`.

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
    return fit_measured(
        of_archs(layout, archs, latency_ms), name, kind, runtime, precision, source, licence, folder, title, devices()
    )


def fit_measured(
    networks: Sequence[MeasuredNetwork], name: str, kind: str, runtime: str, precision: str, source: str, licence: str,
    folder: Path, title: str | None, bases: Sequence[DeviceProfile],
) -> DeviceProfile:  # fmt: skip
    """Fit cost models to whole networks, keep one that predicts left-out networks well, and write its profile.

    Tried are a few sets of terms (constant, operators, multiply-adds, elements, weights), and every known device: its
    cost model scaled, and in parts that keep their proportions more or less firmly, with a constant of its own.
    Devices of one kind rank operators alike. Kept is the simplest that does about as well as the best. The published
    error is that of networks left out one at a time (those of the same operators together), also by family; with
    several families also that of families left out.

    Args:
        networks: what was timed.
        name: of the device.
        kind: see `fit_profile`, as are those that follow.
        runtime: what executed the networks.
        precision: number format.
        source: who measured.
        licence: of the measurements.
        folder: receives ``profile.yaml``.
        title: the device in a few words; default: its name.
        bases: profiles that the fit may start from.
    """
    latency_ms = np.array([n.latency_ms for n in networks])
    normalises = np.array([float(n.normalises_input) for n in networks])
    groups = [n.ops for n in networks]
    known = {p.name: p.cost_model for p in bases if p.cost_model is not None}
    tried = candidates(kind_sums(groups), normalises, known, len(set(groups)))
    if not tried:
        raise TableError(
            f"{len(set(groups))} different networks are fewer than the constants of any model; time at least 4 that "
            "differ, better 10 to 20, or start from a known device (bases)"
        )
    chosen, errors = best_of(tried, latency_ms, groups)
    predicted = chosen.left_out(latency_ms, groups)
    text = f"fitted to {len(networks)} whole networks timed on the device"
    families = [n.family for n in networks]
    tell = len(set(families) - {""}) > 1
    error = {
        "networks": "the networks of the fit, each left out once", "n_held_out": len(networks), "seed": 0,
        **_errors(predicted, latency_ms, families if tell else ()),
    }  # fmt: skip
    family_error = None
    if tell and len(set(families)) > 2:
        by_family = chosen.left_out(latency_ms, families)
        family_error = {
            **error, "networks": "the networks of the fit, each family left out once",
            **_errors(by_family, latency_ms, families),
        }  # fmt: skip
    best_3 = sorted(zip(errors, (c.name for c in tried), strict=True))[:3]
    notes = [
        f"Cost model: {chosen.name}, {text}.",
        "Best tried, by error on left-out networks: " + ", ".join(f"{n} {100 * e:.1f} %" for e, n in best_3),
        "Holds for networks like those of the fit; time your own before you promise a latency.",
    ]
    if normalises.all():
        notes.append("All networks normalise their image; what that takes is part of every prediction.")
    notes += [
        f"{networks[i].name} {FAR}: {latency_ms[i]:.4g} ms, by the others {predicted[i]:.4g} ms."
        for i in far_measurements(predicted, latency_ms)
    ]
    profile = check_profile({
        "format": 1, "name": name, "title": title or name, "kind": kind, "runtime": runtime, "precision": precision,
        "provider": None, "threads": None, "batch_size": 1, "origin": "modelled", "source": source,
        "licence": licence, "error": error, "family_error": family_error,
        "cost_model": chosen.made(chosen.fit(latency_ms).tolist(), text), "notes": notes,
    }, f"profile of {name!r}")  # fmt: skip
    make_folder(folder)
    write_profile(profile, folder)
    return load_profile(folder)


def _errors(
    predicted: NDArray[np.float64], measured: NDArray[np.float64], families: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    """Fields of a published error; with families also Kendall's tau and the error of each."""
    found: dict[str, Any] = {**relative_errors(predicted, measured), **measured_range(measured)}
    if families:
        off, of = 100 * np.abs(predicted / measured - 1), np.array([f or "others" for f in families])
        tau = float(scipy.stats.kendalltau(predicted, measured).statistic)
        found["kendall"] = round(tau, 4) if np.isfinite(tau) else 0.0
        found["mape_percent_by_family"] = {f: round(float(off[of == f].mean()), 1) for f in sorted(set(of.tolist()))}
    return found


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
