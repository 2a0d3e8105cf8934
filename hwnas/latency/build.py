"""How is a latency table made? Time every block, then learn from whole networks how blocks add up."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import least_squares, lsq_linear

from hwnas.errors import RecipeError, SpaceError, TableError
from hwnas.export.graph import trace
from hwnas.export.onnx_file import build_onnx
from hwnas.files import make_folder, write_text
from hwnas.latency.agent import CPU, Burst
from hwnas.latency.device import Correction, DeviceProfile, ProfileError
from hwnas.latency.measure import (
    Here,
    MeasureConfig,
    Measurement,
    Target,
    conditions_of,
    measure,
    summarise,
    take,
)
from hwnas.latency.table import (
    Device,
    Row,
    block_melements,
    block_ops,
    load_device,
    relative_errors,
    save_device,
)
from hwnas.progress import Progress, silent
from hwnas.space import Arch, SearchSpace
from hwnas.supernet import BlockSpec, Layout
from hwnas.supernet.slot_sum import distinct_blocks

OUTLIER = 0.02
"""Relative error from which a network counts less in the fit."""

NETWORKS_PER_CONSTANT = 4
"""With fewer networks than this for each constant, the correction has fewer constants."""

TIMINGS_FILE = "timings.jsonl"
"""Timings of an unfinished build."""

NETWORKS_FILE = "networks.csv"
"""Whole networks that a table was fitted to and judged by."""

N_ANCHORS = 16
"""Networks of the table that are timed again to see how fast the machine runs now."""

MEASURED_RESOLUTIONS = 4
"""Of a space with more resolutions, so many are measured, and the others interpolated."""


class TableConfig(BaseModel):
    """How much is measured for a table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_networks: int = Field(default=40, ge=6)
    """Whole networks that correct the sum of blocks."""
    n_held_out: int = Field(default=20, ge=4)
    """Further whole networks on which the error is published."""
    rounds: int = Field(default=10, ge=1)
    """Passes over everything, each in fresh sessions."""
    block_time_s: float = Field(default=0.006, gt=0)
    """Time for one block in one pass."""
    network_time_s: float = Field(default=0.012, gt=0)
    resolutions: tuple[int, ...] | None = None
    """Those that are measured; blocks at others are interpolated. None: all, or 4 of them where there are more."""
    seed: int = 0
    """Of the whole networks."""


def measured_resolutions(space: SearchSpace, config: TableConfig) -> tuple[int, ...]:
    """Return the resolutions whose blocks are measured, ascending; the smallest and largest are among them.

    Raises:
        RecipeError: those asked for are not in the space, or leave out its ends.
    """
    options = sorted(int(str(r)) for r in space["resolution"].options)
    if config.resolutions is None:
        if len(options) <= MEASURED_RESOLUTIONS:
            return tuple(options)
        positions = np.linspace(0, len(options) - 1, MEASURED_RESOLUTIONS).round().astype(int)
        return tuple(options[i] for i in positions)
    asked = tuple(sorted(set(config.resolutions)))
    if not set(asked) <= set(options) or {options[0], options[-1]} - set(asked):
        raise RecipeError(
            f"tables.resolutions are {list(asked)}; take them from {options}, the smallest and largest among them"
        )
    return asked


@dataclass(frozen=True)
class Plan:
    """What a build measures."""

    layout: Layout
    blocks: tuple[BlockSpec, ...]
    """Every block of the space that runs an operator."""
    measured: tuple[BlockSpec, ...]
    fitted: tuple[Arch, ...]
    """Networks that the correction is fitted to; at measured resolutions."""
    held_out: tuple[Arch, ...]
    resolutions: tuple[int, ...]
    """Measured ones."""

    @property
    def archs(self) -> tuple[Arch, ...]:
        """All whole networks."""
        return self.fitted + self.held_out


def plan_build(layout: Layout, config: TableConfig) -> Plan:
    """Choose what is measured.

    Raises:
        RecipeError: resolutions that do not fit the space.
    """
    space = layout.space
    resolutions = measured_resolutions(space, config)
    others = [r for r in space["resolution"].options if r not in resolutions]
    near = space.restrict({"resolution": list(resolutions)})
    blocks = [b for b in distinct_blocks(layout) if block_ops(b)]
    known = set(distinct_blocks(replace(layout, space=near)))
    fitted = network_sample(near, config.n_networks, config.seed, space)
    n_far = config.n_held_out // 2 if others else 0
    held_out = network_sample(near, config.n_held_out - n_far, config.seed + 1, space, fitted)
    if n_far:
        far = space.restrict({"resolution": others})
        held_out += network_sample(far, n_far, config.seed + 1, space, fitted)
    return Plan(
        layout, tuple(blocks), tuple(b for b in blocks if b in known), tuple(fitted), tuple(held_out), resolutions
    )


def build_table(
    layout: Layout, profile: DeviceProfile, folder: Path, config: TableConfig | None = None,
    progress: Progress = silent, target: Target | None = None,
) -> Device:  # fmt: skip
    """Measure the blocks of a space in ONNX Runtime and write the device folder.

    Every block is built from the same trace as an exported model. Blocks and whole networks are timed in the same
    passes, every time in a fresh session; a few constants are fitted to the networks by least squares on relative
    error, and the error on further networks is written into the profile. An interrupted build continues.

    Args:
        layout: the space whose blocks are needed.
        profile: name, provider, threads of the device.
        folder: where ``profile.yaml`` and ``blocks.csv`` go.
        config: how much to measure; default: `TableConfig()`.
        progress: told the planned time first, then after every timing.
        target: the machine; default: this one.
    """
    config, target = config or TableConfig(), target or Here()
    started = time.monotonic()
    plan = plan_build(layout, config)
    settings = MeasureConfig(threads=profile.threads or 1, batch_size=profile.batch_size)
    provider = profile.provider or CPU
    conditions = conditions_of(target, settings, provider)
    n_models = len(plan.measured) + len(plan.archs)
    schedule = [
        (int(m), r) for r in range(config.rounds) for m in np.random.default_rng(r).permutation(n_models)
    ]  # fmt: skip
    identity = {k: v for k, v in asdict(conditions).items() if k not in ("date", "cores")}
    make_folder(folder)
    journal = _Journal(folder / TIMINGS_FILE, {"plan": _digest(plan, config), "conditions": identity})
    taken = journal.bursts
    done = {(b.model, b.session) for b in taken if b.model >= 0}
    left = [pair for pair in schedule if pair not in done]
    times_s = [config.block_time_s] * len(plan.measured) + [config.network_time_s] * len(plan.archs)
    planned_s = _planned_s(plan, left, times_s, settings, provider, target) if left else 0.0
    progress(
        "plan the table", 1, 1,
        f"about {planned_s / 60:.1f} min: {len(plan.measured)} blocks and {len(plan.archs)} networks, "
        f"{config.rounds} times each",
    )  # fmt: skip
    with journal:
        if left:
            names = [_name_of(plan, i) for i in range(n_models)]
            making = _with_progress(_models(plan, settings.batch_size), n_models, "build blocks and networks", progress)
            for burst in take(list(making), settings, provider, left, target, times_s, names):
                journal.add(burst)
                if burst.model >= 0:
                    done.add((burst.model, burst.session))
                    progress("time blocks and networks", len(done), len(schedule))
    took_s = time.monotonic() - started
    found = summarise(taken, conditions, ["fp32"] * n_models)
    extra: dict[str, Any] = {"planned_s": round(planned_s, 1), "took_s": round(took_s, 1)}
    if target.host is not None:
        extra["host"] = target.host
    device = _device(plan, profile, config, found, extra)
    _save_networks(folder, plan, [m.median_ms for m in found[len(plan.measured) :]])
    save_device(device, folder, plan.blocks)
    journal.remove()
    return load_device(folder)  # times as the file rounds them, so that a second start computes with the same


def _device(
    plan: Plan, profile: DeviceProfile, config: TableConfig, found: Sequence[Measurement], extra: dict[str, Any]
) -> Device:
    """Rows, correction and published error from the measurements of blocks, then networks."""
    n_blocks = len(plan.measured)
    rows = {
        b.signature: Row(t.median_ms, t.iqr_ms, t.n, "measured")
        for b, t in zip(plan.measured, found[:n_blocks], strict=True)
    }
    rows |= interpolate_rows(plan.blocks, plan.measured, rows)
    measured_ms = np.array([t.median_ms for t in found[n_blocks:]])
    plain = Device(profile.model_copy(update={"cost_model": None, "correction": None}), rows)
    n_fitted = len(plan.fitted)
    features = chain_features(plan.layout, plan.fitted, plain)
    correction = fit_correction(features, measured_ms[:n_fitted])
    corrected = Device(plain.profile.model_copy(update={"correction": correction}), rows)
    estimates = corrected.compile(plan.layout).of_archs(plan.held_out)
    held_out_ms = measured_ms[n_fitted:]
    error = _error("random subnets of the recipe, timed with it", estimates, held_out_ms, config.seed)
    far = np.array([a.int("resolution") not in plan.resolutions for a in plan.held_out])
    interpolation = None
    if far.any():
        text = f"random subnets at other resolutions than {', '.join(map(str, plan.resolutions))}, which were measured"
        interpolation = _error(text, estimates[far], held_out_ms[far], config.seed)
    conditions = {k: v for k, v in asdict(found[0].conditions).items() if k != "input_shape"}
    conditions |= {"resolutions": ",".join(map(str, plan.resolutions)), **extra}
    update = {"origin": "measured", "error": error, "interpolation": interpolation, "conditions": conditions}
    return Device(corrected.profile.model_copy(update=update), rows)


def _error(networks: str, estimates: NDArray[np.float64], measured_ms: NDArray[np.float64], seed: int) -> ProfileError:
    return ProfileError(
        networks=networks, n_held_out=len(measured_ms), seed=seed, **relative_errors(estimates, measured_ms)
    )


def interpolate_rows(
    blocks: Sequence[BlockSpec], measured: Sequence[BlockSpec], rows: dict[str, Row]
) -> dict[str, Row]:
    """Return rows of blocks that were not measured, linear in the edge of the feature map between those that were."""
    by_kind: dict[BlockSpec, dict[int, Row]] = {}
    for block in measured:
        by_kind.setdefault(replace(block, in_size_px=0), {})[block.in_size_px] = rows[block.signature]
    out = {}
    for block in blocks:
        if block.signature in rows:
            continue
        known = by_kind[replace(block, in_size_px=0)]
        sizes = sorted(known)
        median_ms = float(np.interp(block.in_size_px, sizes, [known[s].median_ms for s in sizes]))
        iqr_ms = float(np.interp(block.in_size_px, sizes, [known[s].iqr_ms for s in sizes]))
        out[block.signature] = Row(median_ms, iqr_ms, 0, "interpolated")
    return out


@dataclass(frozen=True)
class KnownNetwork:
    """A whole network that was timed when a table was made."""

    arch: Arch
    fitted: bool
    """Whether the correction was fitted to it; otherwise it was held out."""
    measured_ms: float


def _save_networks(folder: Path, plan: Plan, measured_ms: Sequence[float]) -> None:
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
    extra = [_network(layout, k.arch, config.batch_size) for k in anchors]
    found = measure([*models, *extra], config, provider, target, "time networks", progress)
    ratios = [m.median_ms / k.measured_ms for m, k in zip(found[len(models) :], anchors, strict=True)]
    return found[: len(models)], float(np.exp(np.median(np.log(ratios)))) if ratios else 1.0


def check_table(
    layout: Layout, device: Device, folder: Path, n_networks: int, seed: int = 1000,
    config: TableConfig | None = None, progress: Progress = silent, target: Target | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Time fresh random subnets and compare them with the device's estimates.

    They are at resolutions that the correction was not fitted at, as far as the space has such. The machine may run
    faster or slower than when the table was made: `measure_beside` says by how much, and estimates are compared at
    that speed; the error without that is given too.

    Args:
        layout: the space.
        device: a measured table of this machine.
        folder: of the table.
        n_networks: how many subnets.
        seed: of the subnets.
        config: rounds and time as in `build_table`; default: `TableConfig()`.
        progress: told after every timing.
        target: the machine; default: this one.

    Returns:
        ``mape_percent``, ``within_5_percent``, ``within_10_percent``, ``r2``, ``spearman``, ``worst`` (arch, both
        times), ``mape_percent_as_timed``, ``machine_slowdown``, ``n_networks``, ``resolutions``.
    """
    config = config or TableConfig()
    space, profile = layout.space, device.profile
    known = known_networks(folder, space)
    used = {k.arch["resolution"] for k in known if k.fitted}
    fresh = [r for r in space["resolution"].options if r not in used] or list(space["resolution"].options)
    near = space.restrict({"resolution": fresh})
    archs = network_sample(near, n_networks, seed, space, [k.arch for k in known], ends=False)
    settings = MeasureConfig(
        threads=profile.threads or 1, batch_size=profile.batch_size, sessions=config.rounds,
        burst_s=config.network_time_s,
    )  # fmt: skip
    models = [_network(layout, a, settings.batch_size) for a in archs]
    found, slowdown = measure_beside(layout, models, known, settings, profile.provider or CPU, progress, target)
    measured = np.array([m.median_ms for m in found])
    estimates = device.compile(layout).of_archs(archs)
    errors = np.abs(estimates * slowdown / measured - 1)
    worst = int(errors.argmax())
    return {
        "n_networks": len(archs), "resolutions": sorted({a.int("resolution") for a in archs}),
        **relative_errors(estimates * slowdown, measured),
        "worst": {
            "arch": archs[worst].key, "predicted_ms": round(float(estimates[worst] * slowdown), 5),
            "measured_ms": round(float(measured[worst]), 5), "error_percent": round(100 * float(errors[worst]), 2),
        },
        "mape_percent_as_timed": relative_errors(estimates, measured)["mape_percent"],
        "machine_slowdown": round(slowdown, 4),
        "speed_change_percent": found[0].speed_change_percent,
    }  # fmt: skip


def network_sample(
    space: SearchSpace, n: int, seed: int, full: SearchSpace | None = None, without: Sequence[Arch] = (),
    ends: bool = True,
) -> list[Arch]:  # fmt: skip
    """Return at most ``n`` different archs, the smallest and largest first.

    Args:
        space: where they are taken from.
        n: how many.
        seed: of the sample.
        full: the space that they shall belong to, where ``space`` is a part of it.
        without: archs (of the full space) that are left out.
        ends: whether the smallest and the largest come first.
    """
    full = full or space
    found: dict[Arch, None] = {}
    candidates = [space.smallest(), space.largest()] if ends else []
    candidates += space.sample(np.random.default_rng(seed), 20 * n)
    left_out = set(without)
    for arch in candidates:
        if len(found) == n:
            break
        own = arch if full is space else full.arch(dict(arch.items))
        if own not in left_out:
            found[own] = None
    return list(found)


def chain_features(layout: Layout, archs: Sequence[Arch], device: Device) -> NDArray[np.float64]:
    """Return ``(n, 5)``: what the constants of a `Correction` multiply.

    Columns: sum of block times in milliseconds, blocks that run anything, 1, millions of elements at the borders of
    blocks, millions of weights.
    """
    known: dict[BlockSpec, NDArray[np.float64]] = {}

    def of(block: BlockSpec) -> NDArray[np.float64]:
        if block not in known:
            alone = device.block_ms(block) if block_ops(block) else 0.0
            known[block] = np.array([alone, float(bool(block_ops(block))), 0.0, *block_melements(block)])
        return known[block]

    sums = [np.sum([of(b) for _, b in layout.chain(a)], axis=0) for a in archs]
    return np.asarray(np.array(sums) + np.array([0.0, 0.0, 1.0, 0.0, 0.0]))


def fit_correction(features: NDArray[np.float64], measured_ms: NDArray[np.float64]) -> Correction:
    """Fit the constants to relative errors, large ones counting less (soft L1).

    A network that was disturbed while it was timed is an outlier, and must not bend the fit. With few networks,
    borders and weights are left out.

    Args:
        features: ``(n, 5)`` of `chain_features`.
        measured_ms: ``(n,)`` whole networks.
    """
    n_constants = 5 if len(measured_ms) >= 5 * NETWORKS_PER_CONSTANT else 3
    weighted = features[:, :n_constants] / measured_ms[:, None]
    low, high = [1e-3, -np.inf, -np.inf, -np.inf, 0.0], [np.inf, np.inf, np.inf, 0.0, np.inf]
    bounds = (low[:n_constants], high[:n_constants])
    start = lsq_linear(weighted, np.ones(len(measured_ms)), bounds).x
    fitted = least_squares(
        lambda x: weighted @ x - 1.0, start, bounds=bounds, x_scale="jac", loss="soft_l1", f_scale=OUTLIER
    )
    scale, per_block, constant, border, weight = [*fitted.x, 0.0, 0.0][:5]
    return Correction(
        scale=float(scale), per_block_ms=float(per_block), constant_ms=float(constant),
        border_ms_per_melement=min(0.0, float(border)), weight_ms_per_melement=max(0.0, float(weight)),
        n_networks=len(measured_ms),
    )  # fmt: skip


def needs_table(device: Device) -> bool:
    """Say whether the device is one whose table is measured on the spot and not there yet."""
    return device.profile.origin == "measured" and not device.rows and device.profile.cost_model is None


# -- inside a build --------------------------------------------------------------------------------------


def _models(plan: Plan, batch_size: int) -> Iterator[bytes]:
    for block in plan.measured:
        yield _block(block, batch_size)
    for arch in plan.archs:
        yield _network(plan.layout, arch, batch_size)


def _name_of(plan: Plan, model: int) -> str:
    n_blocks = len(plan.measured)
    if model < n_blocks:
        return f"block [{plan.measured[model].signature}]"
    return f"network {plan.archs[model - n_blocks].key}"


def _block(block: BlockSpec, batch_size: int) -> bytes:
    return bytes(build_onnx(trace(block.build()), block.in_channels, block.in_size_px, batch_size).SerializeToString())


def _network(layout: Layout, arch: Arch, batch_size: int) -> bytes:
    """A whole network of random weights, exactly as it would be exported."""
    channels, resolution, _ = layout.input_shape(arch)
    graph = trace(layout.build_subnet(arch))
    return bytes(build_onnx(graph, channels, resolution, batch_size).SerializeToString())


def _planned_s(
    plan: Plan, left: Sequence[tuple[int, int]], times_s: Sequence[float], settings: MeasureConfig, provider: str,
    target: Target,
) -> float:  # fmt: skip
    """Time that the build will take, from a few blocks and networks built and timed once."""
    rng = np.random.default_rng(0)
    n_blocks = len(plan.measured)
    _block(plan.measured[0], settings.batch_size)  # the first trace takes longer than the others
    total = 0.0
    for group, n_tried in ((range(n_blocks), 8), (range(n_blocks, n_blocks + len(plan.archs)), 4)):
        tried = rng.choice(group, min(n_tried, len(group)), replace=False)
        start = time.monotonic()
        models = [
            _block(plan.measured[i], settings.batch_size) if i < n_blocks
            else _network(plan.layout, plan.archs[i - n_blocks], settings.batch_size) for i in tried
        ]  # fmt: skip
        total += (time.monotonic() - start) / len(tried) * len(group)
        schedule = [(k, 0) for k in range(len(models))]
        names = [_name_of(plan, i) for i in tried]
        passes = []
        for _ in range(2):  # another program may disturb one of them
            start = time.monotonic()
            for _ in take(models, settings, provider, schedule, target, [times_s[i] for i in tried], names):
                pass
            passes.append(time.monotonic() - start)
        total += min(passes) / len(tried) * sum(1 for m, _ in left if m in group)
    return total


def _with_progress(models: Iterable[bytes], total: int, task: str, progress: Progress) -> Iterator[bytes]:
    for number, model in enumerate(models, 1):
        yield model
        progress(task, number, total)


def _digest(plan: Plan, config: TableConfig) -> str:
    """What tells one build from another: blocks and networks in their order, and how they are timed."""
    text = json.dumps([
        [b.signature for b in plan.measured], [a.key for a in plan.archs], config.model_dump(mode="json")
    ])  # fmt: skip
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Journal:
    """Timings of a build, one JSON line each, written as they are taken; those of another build are dropped."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self.bursts: list[Burst] = []
        identity = json.loads(json.dumps(identity))
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        values = [v for v in map(_json_or_none, lines) if v is not None]
        if values and values[0] == {"build": identity}:
            self.bursts = [
                Burst(**{**v, "values_ms": tuple(v["values_ms"]), "input_shape": tuple(v["input_shape"])})
                for v in values[1:]
            ]
        self._identity = identity
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        self._file = self.path.open("w", encoding="utf-8")
        self._write({"build": self._identity})
        for burst in self.bursts:
            self._write(asdict(burst))

    def __exit__(self, *error: object) -> None:
        assert self._file is not None
        self._file.close()

    def _write(self, value: dict[str, Any]) -> None:
        assert self._file is not None, "entered"
        self._file.write(json.dumps(value) + "\n")
        self._file.flush()

    def add(self, burst: Burst) -> None:
        rounded = replace(burst, values_ms=tuple(float(f"{v:.5g}") for v in burst.values_ms))
        self.bursts.append(rounded)
        self._write(asdict(rounded))

    def remove(self) -> None:
        os.unlink(self.path)


def _json_or_none(line: str) -> dict[str, Any] | None:
    """A line that a killed process left unfinished is None."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
