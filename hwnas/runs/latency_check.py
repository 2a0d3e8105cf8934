"""Do exported models take as long as the search believed? They are timed, and the front learns from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.archive import Archive, Evaluation
from hwnas.errors import ResumeError
from hwnas.export.bundle import Bundle
from hwnas.export.card import FORMATS, SLOWDOWN, TIMING
from hwnas.latency.correction import correction_features, fit_correction
from hwnas.latency.measure import MeasureConfig
from hwnas.latency.measurement import Measurement
from hwnas.latency.number_format import evaluated_precision
from hwnas.latency.slowdown import measure_beside
from hwnas.latency.table import Device, block_ops, relative_errors, save_device
from hwnas.latency.table_networks import read_networks
from hwnas.latency.target import target_of
from hwnas.pareto import non_dominated
from hwnas.progress import Progress
from hwnas.report.data import LatencyCheck
from hwnas.runs.evaluations import Candidate
from hwnas.runs.folder import DeviceFolder
from hwnas.runs.front import MEASURED, FrontModel
from hwnas.runs.kept import read_kept
from hwnas.space import Arch
from hwnas.supernet import Layout
from hwnas.supernet.slot_sum import distinct_blocks

CHECK = MeasureConfig(sessions=10, burst_s=0.02)


@dataclass(frozen=True)
class Checked:
    """Exported models of one device, timed."""

    archs: tuple[Arch, ...]
    timed: tuple[Measurement, ...]
    measured_ms: NDArray[np.float64]
    """``(n,)`` at the speed that the machine had when the table was made."""
    values: dict[str, Any]
    """What ``latency_check.json`` says."""


def check_models(
    layout: Layout, device: Device, folder: DeviceFolder, models: Sequence[FrontModel], archs: Sequence[Arch],
    progress: Progress,
) -> Checked:  # fmt: skip
    """Time exported models beside their estimates, and refit the correction to what was found.

    The machine may run faster or slower now than when the table was made; networks of the table that are timed again
    say by how much, and the table is judged at its own speed. The device with the refitted correction is written to
    ``refitted/``, for the next search; its error here is that of models left out of the fit one at a time. A damaged
    bundle is an error (`Bundle.check`).

    Args:
        layout: the space.
        device: that the models were searched for; its target takes the timings.
        folder: of the device in the run.
        models: exported ones; each gets its measurement into ``metrics.json``, those of other number formats too.
        archs: of the models.
        progress: told after every timing.
    """
    config = CHECK.model_copy(update={"threads": device.profile.threads or 1})
    for model in models:
        Bundle(model.folder).check()
    further = [(m, name) for name, file in FORMATS.items() for m in models if (m.folder / file).exists()]
    files = [m.folder / "model.onnx" for m in models] + [m.folder / FORMATS[name] for m, name in further]
    known = read_networks(folder.table, layout.space)
    found, slowdown = measure_beside(
        layout, files, known, config, device.profile.provider, progress, target_of(device.profile),
        evaluated_precision(device.profile.precision),
    )  # fmt: skip
    in_format = dict(zip(((m.key, name) for m, name in further), found[len(models) :], strict=True))
    for model, t in zip(models, found, strict=False):
        timings = {TIMING: t, **{f"{TIMING}_{n}": one for (key, n), one in in_format.items() if key == model.key}}
        Bundle(model.folder).add_metrics(
            {name: {**one.as_dict(), SLOWDOWN: round(slowdown, 4)} for name, one in timings.items()}
        )
    as_timed = np.array([t.median_ms for t in found[: len(models)]])
    order = np.argsort(as_timed, kind="stable")
    models, archs, as_timed = [models[i] for i in order], [archs[i] for i in order], as_timed[order]
    predicted = np.array([m.values["latency_ms"] for m in models])
    fitted = [k for k in known if k.fitted]
    own = np.array([device.computing(arch) is device for arch in archs])  # of the table, not of that in 8 bits
    refitted, left_out = _refit(
        layout, replace(device, in_8_bits=None), [k.arch for k in fitted], np.array([k.measured_ms for k in fitted]),
        [arch for arch, is_own in zip(archs, own, strict=True) if is_own], (as_timed / slowdown)[own],
    )  # fmt: skip
    if refitted is not None:
        save_device(refitted, folder.refitted, [b for b in distinct_blocks(layout) if block_ops(b)])
    after = None
    if refitted is not None and own.any():
        after = relative_errors(left_out * slowdown, as_timed[own])["mape_percent"]
    values = {
        "keys": [m.key for m in models], "predicted_ms": predicted.tolist(), "measured_ms": as_timed.tolist(),
        SLOWDOWN: round(slowdown, 4), **relative_errors(predicted * slowdown, as_timed),
        "mape_percent_as_timed": relative_errors(predicted, as_timed)["mape_percent"],
        "mape_percent_refitted": after,
        "int8_ms": [in_format[m.key, "int8"].median_ms if (m.key, "int8") in in_format else None for m in models],
    }  # fmt: skip
    return Checked(tuple(archs), tuple(found[i] for i in order), as_timed / slowdown, values)


def _refit(
    layout: Layout, device: Device, known: Sequence[Arch], known_ms: NDArray[np.float64], archs: Sequence[Arch],
    measured_ms: NDArray[np.float64],
) -> tuple[Device | None, NDArray[np.float64]]:  # fmt: skip
    """The device with a correction fitted to the table's networks and these, and ``(n,)`` left-out estimates.

    None where the table does not say which networks it was fitted to.
    """
    if not known:
        return None, measured_ms
    plain = Device(device.profile.model_copy(update={"correction": None}), device.rows)
    features = correction_features(layout, [*known, *archs], plain)
    all_ms = np.concatenate([known_ms, measured_ms])
    left_out = np.empty(len(archs))
    for i in range(len(archs)):
        rest = np.arange(len(all_ms)) != len(known) + i
        correction = fit_correction(features[rest], all_ms[rest])
        left_out[i] = Device(
            plain.profile.model_copy(update={"correction": correction}), plain.rows
        ).estimate_ms(archs[i])  # fmt: skip
    correction = fit_correction(features, all_ms)
    return Device(plain.profile.model_copy(update={"correction": correction}), plain.rows), left_out


def keep_measured(archive: Archive, device: str, checked: Checked, models: Sequence[Candidate], seed: int) -> None:
    """Keep estimated and measured latencies in the archive.

    Args:
        archive: of the run.
        device: name of the device.
        checked: timed models.
        models: the same models, in any order, with their weights.
        seed: of the search.
    """
    predicted = dict(zip(checked.values["keys"], checked.values["predicted_ms"], strict=True))
    weights = {m.arch.key: m.weights_version for m in models}
    for arch, t, ms in zip(checked.archs, checked.timed, checked.measured_ms.tolist(), strict=True):
        values = {MEASURED: ms, "predicted_latency_ms": predicted[arch.key], "measured_as_timed_ms": t.median_ms}
        archive.add(Evaluation(arch, values, weights[arch.key], _split(device), seed, 0.0, asdict(t.conditions)))


def measured_on(archive: Archive, device: str, model: Candidate) -> dict[str, float]:
    """Return what the check of a model on a device gave, by name; empty where it was not timed there."""
    return archive.values(model.arch, model.weights_version, _split(device))


def measured_columns(
    archive: Archive, device: str, models: Sequence[Candidate], losses: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return measured latencies and who is on the front by them; nothing before all ``models`` were timed.

    Args:
        archive: of the run.
        device: name of the device.
        models: of a front.
        losses: ``(n,)`` their scores, minimised.
    """
    found = [measured_on(archive, device, m).get(MEASURED) for m in models]
    known = [v for v in found if v is not None]
    if len(known) < len(models) or not models:
        return {}
    measured = np.array(known)
    return {
        MEASURED: measured,
        "on_measured_front": non_dominated(np.stack([losses, measured], axis=1)).astype(float),
    }


def _split(device: str) -> str:
    return f"latency {device}"


def read_check(path: Path) -> LatencyCheck | None:
    """Return what ``latency_check.json`` says; None where the models were not timed.

    Raises:
        ResumeError: the file is damaged.
    """
    if not path.exists():
        return None
    found = read_kept(LatencyCheck, path, "remove it; `hwnas run` times the models again")
    if len({len(found.keys), len(found.predicted_ms), len(found.measured_ms)}) > 1:
        raise ResumeError(f"{path} is damaged: its lists differ in length; remove it and time the models again")
    if found.machine_slowdown <= 0:
        raise ResumeError(f"{path} is damaged: machine_slowdown is not above 0; remove it and time the models again")
    return found


def was_checked(path: Path, models: Sequence[FrontModel]) -> bool:
    """Say whether the check in ``path`` is of just these models, and stands in their bundles."""
    known = read_check(path)
    if known is None or set(known.keys) != {m.key for m in models}:
        return False
    bundles = [m.folder for m in models if (m.folder / "metrics.json").exists()]
    return all(
        TIMING in (metrics := Bundle(b).metrics)
        and all(f"{TIMING}_{name}" in metrics or not (b / file).exists() for name, file in FORMATS.items())
        for b in bundles
    )
