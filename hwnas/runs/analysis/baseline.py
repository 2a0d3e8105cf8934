"""What does the same compute give by hand? The family's network scaled evenly, each size trained alone.

This is what one would do without hwnas, so it is the measure of what a run hands over.
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hwnas.errors import MissingBlockError, RecipeError
from hwnas.files import make_folder, write_json
from hwnas.finetune import FinetuneConfig, Student, train_together
from hwnas.latency.measure import MeasureConfig, measure
from hwnas.latency.onnx_models import network_onnx
from hwnas.latency.table import Device
from hwnas.latency.target import target_of
from hwnas.latency.validity import holds_now
from hwnas.objectives.exact import macs_of_space, params_of_space
from hwnas.runs.context import RunContext
from hwnas.runs.finish import SCORED_PERCENT, Epochs, augment_of, epochs_in
from hwnas.runs.kept import read_kept
from hwnas.runs.plan import RESERVE, TRAINING, read_plan
from hwnas.runs.recipe import with_values
from hwnas.supernet import fresh_subnet
from hwnas.supernet.families.scaled import scaled_by_hand

WIDTHS = tuple(float(w) for w in np.round(np.geomspace(0.1, 4.0, 48), 3))
"""Multiples of the width that are tried, 8 % apart; channels are multiples of 8 anyway."""


@dataclass(frozen=True)
class HandScaled:
    """One network scaled by hand and trained alone."""

    width: float
    """Multiple of the width of the supernet's blocks; of a family that does not scale, the share of every range."""
    latency_ms: float
    params: int
    macs: int
    score: float
    """Main score of the task on validation images."""
    test_score: float
    epochs: float


@dataclass(frozen=True)
class Baseline:
    """What `hand_scaled_baselines` found for one device."""

    device: str
    models: tuple[HandScaled, ...]
    score_title: str
    score_unit: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def hand_scaled_baselines(
    context: RunContext, wanted: Sequence[tuple[Device, Sequence[float]]], gmacs: float | None, time_s: float | None,
    lr: float | None = None, networks: int | None = None,
) -> list[Baseline]:  # fmt: skip
    """Scale the family by hand to given latencies of devices, train each network alone, and test it.

    All are trained equally long, from fresh weights, without a teacher, with the recipe's batch size and decay, on
    images that are varied as those of the run's own models (``finish.trivial_epochs``). A network that suits several
    devices is trained once. What is done is kept in the run folder, so a second start continues.

    Args:
        context: of a run.
        wanted: devices and their latencies in ms; each latency gets the widest network that is as fast. Those of a
            measured device are timed here.
        gmacs: compute of all networks together, in thousand million multiply-adds.
        time_s: time of all of them together, instead.
        lr: peak learning rate; default: that of the recipe's first phase.
        networks: at most so many are trained, each for longer: the narrowest, and of the others some that are spread
            evenly. A latency whose network is not among them gets the next narrower one. None: one for each latency.

    Returns:
        one for each device, in the order given.

    Raises:
        RecipeError: no network is as fast, or neither compute nor time is given, or fewer than one network is wanted.
        MissingBlockError: a device cannot price the networks.
    """
    if (gmacs is None) == (time_s is None):
        raise RecipeError("the baseline needs either compute or a time")
    if networks is not None and networks < 1:
        raise RecipeError(f"{networks} networks cannot be trained; give at least 1")
    ms = {device.name: _latency_of_widths(context, device) for device, _ in wanted}
    sized = {device.name: _sizes(device.name, ms[device.name], wanted_ms) for device, wanted_ms in wanted}
    widths = sorted({width for sizes in sized.values() for width in sizes})
    if networks is not None and networks < len(widths):
        widths = [widths[i] for i in np.round(np.linspace(0, len(widths) - 1, networks)).astype(int)]
    scaled = [scaled_by_hand(context.recipe.supernet, width) for width in widths]
    macs = [int(macs_of_space(layout).of_archs([arch])[0]) for layout, arch in scaled]
    params = [int(params_of_space(layout).of_archs([arch])[0]) for layout, arch in scaled]
    train, splits, finish = context.recipe.train, context.splits, context.recipe.finish
    config = FinetuneConfig.like(train, epochs=1, warmup_epochs=1, scored_percent=SCORED_PERCENT)
    config = with_values(config, {} if lr is None else {"lr": lr}, "baseline")
    students = [
        Student(f"width-{w:g}", fresh_subnet(layout, arch, config.seed), arch.int("resolution"))
        for w, (layout, arch) in zip(widths, scaled, strict=True)
    ]
    about = {
        "widths": widths, "gmacs": gmacs, "time_s": time_s, "images": splits.sha256,
        "config": config.binding(), "augment": context.recipe.data.augment.model_dump(mode="json"),
        "trivial_epochs": finish.trivial_epochs,
        "supernet": context.recipe.supernet.model_dump(mode="json"),
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]
    folder = make_folder(context.folder.baseline / digest)
    path = folder / "epochs.json"
    if not path.exists():
        if gmacs is not None:
            epochs = gmacs * 1e9 / (TRAINING * len(splits.train) * sum(macs))
        else:
            assert time_s is not None
            epochs = epochs_in(time_s, context, finish, students, config)
        write_json(path, {"epochs": max(1.0, round(epochs, 2))})
    epochs = read_kept(Epochs, path, f"remove {folder} and start again").epochs
    config = config.model_copy(update={"epochs": epochs, "warmup_epochs": min(1.0, epochs / 10)})
    augment = augment_of(context, finish, epochs)
    results = train_together(
        students, splits, config, augment, folder=folder, progress=context.told_for(", ".join(sized)), task="baseline"
    )
    tests = [
        context.test_scores(result.network, arch)[context.score.name]
        for (_, arch), result in zip(scaled, results, strict=True)
    ]
    found = []
    for name, sizes in sized.items():
        rows = dict.fromkeys(bisect.bisect_right(widths, width) - 1 for width in sizes)
        models = tuple(
            HandScaled(widths[i], ms[name][widths[i]], params[i], macs[i], results[i].score, tests[i], epochs)
            for i in rows
        )
        found.append(Baseline(name, models, context.score.title, context.score.unit))
        write_json(context.folder.device(name).baseline, found[-1].as_dict())
    return found


def compute_of_run(context: RunContext, share: float = 1.0) -> tuple[float | None, float | None]:
    """Return a share of what a run was planned with: compute, or the time of its budget.

    Raises:
        RecipeError: the run has no plan.
    """
    plan = read_plan(context)
    if plan is None:
        raise RecipeError(f"{context.folder.root} has no plan.json; `hwnas run` writes it, with what the run may cost")
    budget_s = plan.asked["budget_s"]
    if budget_s is not None:
        return None, budget_s * (1 - RESERVE) * share
    return (plan.train_gmacs + plan.search_gmacs + plan.finish_gmacs) * share, None


def read_baseline(context: RunContext, device: str) -> dict[str, Any] | None:
    """Return what the baseline of a device found; None where it was not run."""
    path = context.folder.device(device).baseline
    if not path.exists():
        return None
    return read_kept(Baseline, path, "remove it; `hwnas bench baseline` finds it again").as_dict()


@dataclass(frozen=True)
class _Widths:
    """What ``<device>-widths.json`` holds."""

    latency_ms: Annotated[tuple[float, ...], Field(min_length=len(WIDTHS), max_length=len(WIDTHS))]


def _latency_of_widths(context: RunContext, device: Device) -> dict[float, float]:
    """Latency in ms on a device of every width of `WIDTHS`, found once and kept."""
    path = make_folder(context.folder.baseline) / f"{device.name}-widths.json"
    if not path.exists():
        write_json(path, {"widths": list(WIDTHS), "latency_ms": _latencies_ms(context, device).tolist()})
    return dict(zip(WIDTHS, read_kept(_Widths, path, "remove it and start again").latency_ms, strict=True))


def _sizes(name: str, ms: Mapping[float, float], wanted_ms: Sequence[float]) -> list[float]:
    """Return for each wanted latency the widest network that is as fast; narrowest first, each once."""
    found = [max(fast) for wanted in sorted(wanted_ms) if (fast := [w for w in WIDTHS if ms[w] <= wanted])]
    if not found:
        raise RecipeError(
            f"no network of the family is as fast as {max(wanted_ms):g} ms on {name}; the narrowest takes "
            f"{min(ms.values()):.4g} ms; leave the device out"
        )
    return list(dict.fromkeys(found))


def _latencies_ms(context: RunContext, device: Device) -> NDArray[np.float64]:
    """Latency of every width of `WIDTHS`: timed here in one pass where the device is at hand, else its estimate."""
    networks = [scaled_by_hand(context.recipe.supernet, width) for width in WIDTHS]
    if holds_now(device):
        profile = device.profile
        config = MeasureConfig(threads=profile.threads or 1, batch_size=profile.batch_size)
        models = [network_onnx(layout, arch, profile.batch_size) for layout, arch in networks]
        timed = measure(models, config, profile.provider, target_of(profile), "time widths", context.progress)
        return np.array([t.median_ms for t in timed])
    try:
        return np.array([float(device.compile(layout).of_archs([arch])[0]) for layout, arch in networks])
    except MissingBlockError as error:
        raise MissingBlockError(
            f"{device.name} has a table of the space's blocks only, and cannot time others here; give a device with a "
            f"cost model, or one that is at hand: {error}"
        ) from None
