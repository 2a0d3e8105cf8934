"""How is a latency table built? Every block and some whole networks are timed, and the error on others is published."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.arguments import checked_arguments
from hwnas.errors import TableError
from hwnas.files import make_folder, write_text
from hwnas.latency.correction import correction_features, fit_correction
from hwnas.latency.device import (
    PROFILE_FILE,
    DeviceProfile,
    ProfileError,
    TargetOption,
    device_name_of,
    load_profile,
)
from hwnas.latency.interpolate import interpolate_rows
from hwnas.latency.journal import TIMINGS_FILE, Journal
from hwnas.latency.measure import MeasureConfig, conditions_of, time_models
from hwnas.latency.measurement import Measurement, summarise
from hwnas.latency.number_format import Precision, check_written, evaluated_precision
from hwnas.latency.onnx_models import block_onnx, network_onnx
from hwnas.latency.plan import Plan, TableConfig, plan_build
from hwnas.latency.table import Device, Row, load_device, relative_errors, save_device
from hwnas.latency.table_networks import save_networks
from hwnas.latency.target import Target, on_another_machine, resolve_target
from hwnas.latency.time_onnx import Facts
from hwnas.progress import Progress, silent
from hwnas.supernet import Layout
from hwnas.supernet.layout import of_networks

RECIPE_FILE = "recipe.yaml"
"""Beside a table: the recipe whose blocks it was built for."""


@checked_arguments
def build_table(
    layout: Layout, out: str | Path, device: str | Path | DeviceProfile = "local-cpu", name: str | None = None,
    target: str | Target | None = None, target_options: Mapping[str, TargetOption] | None = None,
    config: TableConfig | None = None, recipe_yaml: str | None = None, progress: Progress = silent,
) -> Device:  # fmt: skip
    """Measure the blocks of a space on a target and write the device folder.

    Every block is built from the same trace as an exported model. Blocks and whole networks are timed in the same
    passes, every time in a fresh session; a few constants are fitted to the networks by least squares on relative
    error, and the error on further networks is written into the profile. An interrupted build continues.

    Args:
        layout: the space whose blocks are needed.
        out: folder of the table; it becomes a device profile.
        device: profile whose kind, threads, provider and target are used.
        name: of the new device; default: that of the folder.
        target: what times the models, by name (see `hwnas.latency.target`) or itself; default: that of the profile.
        target_options: what a named target is made with, such as ``{"host": "user@board"}`` for ``ssh``.
        config: how much to measure; default: `TableConfig()`.
        recipe_yaml: the recipe that the space is of; kept beside the table, so that a check finds its space.
        progress: told the planned time first, then after every timing.

    Raises:
        DeviceError: the device is unknown, or the name cannot be one of a device.
        TableError: the folder holds a finished table, nothing is said to time the device, or it computes in a precision
            in which no models are written.
        PluginError: there is no such target, or it does not take the options.
        MeasurementError: the target cannot time a model, or is lost; the same call continues later.
    """
    folder, config, layout = Path(out), config or TableConfig(), of_networks(layout)
    started = time.monotonic()
    given = device if isinstance(device, DeviceProfile) else load_profile(device)
    if given.origin != "measured" and given.provider is None and target is None:
        raise TableError(
            f"device {given.name!r} is not timed by ONNX Runtime, so its table cannot be measured; take local-cpu, "
            "a folder whose profile.yaml names a target or provider, or say what times it with --target"
        )
    name = device_name_of(out, name)
    if (folder / PROFILE_FILE).exists():
        raise TableError(
            f"{folder} holds a finished table; check it with `hwnas tables check {folder}`, or choose another --out"
        )
    profile, timer = resolve_target(given, target, target_options)
    plan = plan_build(layout, config)
    facts = timer.facts()
    profile = _profile_of_table(profile, name, facts, chosen=target is not None)
    settings = MeasureConfig(threads=profile.threads or 1, batch_size=profile.batch_size)
    conditions = conditions_of(facts, settings, profile.provider)
    precision = evaluated_precision(profile.precision)
    check_written(profile.precision, given.name)
    make_folder(folder)
    if recipe_yaml is not None:
        write_text(folder / RECIPE_FILE, recipe_yaml)
    n_models = len(plan.measured) + len(plan.archs)
    schedule = [
        (int(m), r) for r in range(config.rounds) for m in np.random.default_rng(r).permutation(n_models)
    ]  # fmt: skip
    identity = {k: v for k, v in asdict(conditions).items() if k not in ("date", "cores")}
    identity |= {"target": profile.target, "target_options": profile.target_options}
    identity |= {} if precision == "fp32" else {"precision": precision}
    journal = Journal(folder / TIMINGS_FILE, {"plan": _digest(plan, config), "conditions": identity})
    timed = journal.bursts
    done = {(b.model, b.session) for b in timed if b.model >= 0}
    left = [pair for pair in schedule if pair not in done]
    times_s = _times_s(plan, config)
    planned_s = _planned_s(plan, left, times_s, settings, conditions.provider, timer, precision) if left else 0.0
    progress(
        "plan the table", 1, 1,
        f"about {planned_s / 60:.1f} min: {len(plan.measured)} blocks and {len(plan.archs)} networks, "
        f"{config.rounds} times each",
    )  # fmt: skip
    with journal:
        if left:
            names = [_name_of(plan, i) for i in range(n_models)]
            making = _with_progress(
                _models(plan, settings.batch_size, precision), n_models, "build blocks and networks", progress
            )
            for burst in time_models(list(making), settings, conditions.provider, left, timer, times_s, names):
                journal.add(burst)
                if burst.model >= 0:
                    done.add((burst.model, burst.session))
                    progress("time blocks and networks", len(done), len(schedule))
    took_s = time.monotonic() - started
    found = summarise(timed, conditions, [precision] * n_models)
    extra: dict[str, Any] = {"planned_s": round(planned_s, 1), "took_s": round(took_s, 1)}
    if timer.host is not None:
        extra["host"] = timer.host
    made = _device(plan, profile, config, found, extra)
    save_networks(folder, plan, [m.median_ms for m in found[len(plan.measured) :]])
    save_device(made, folder, plan.blocks)
    journal.remove()
    return load_device(folder)  # times as the file rounds them, so that a second start computes with the same


def _profile_of_table(profile: DeviceProfile, name: str, facts: Facts, chosen: bool) -> DeviceProfile:
    """The profile of the table: with its own name and title, and the runtime of a target that was chosen for it."""
    update: dict[str, Any] = {"name": name}
    if name != profile.name:
        update["title"] = f"{facts.device}, {facts.runtime}, {profile.threads or 1} thread(s), measured by hwnas"
        update["in_8_bits"] = None  # that of the profile is of its own name, perhaps on another machine
    if chosen:
        update["runtime"] = facts.runtime
        if not facts.provider:
            update["provider"] = None  # that of the profile is another target's
    return profile.model_copy(update=update)


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
    features = correction_features(plan.layout, plan.fitted, plain)
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


def _error(
    networks: str, estimates: NDArray[np.float64], measured_ms: NDArray[np.float64], seed: int
) -> ProfileError | None:
    """The published error; None where the space has so few networks that none was left to judge by."""
    if not len(measured_ms):
        return None
    errors = relative_errors(estimates, measured_ms)
    return ProfileError.model_validate({"networks": networks, "n_held_out": len(measured_ms), "seed": seed, **errors})


def needs_table(device: Device) -> bool:
    """Say whether a run builds the table of a device by itself: it is measured, and has no table yet.

    A machine that is contacted only when a user asks for it, such as by ssh, is not; `build_table` is asking.
    """
    profile = device.profile
    missing = profile.origin == "measured" and not device.rows and profile.cost_model is None
    if missing and not on_another_machine(profile):
        return True
    return device.in_8_bits is not None and needs_table(device.in_8_bits)


def build_missing_tables(
    layout: Layout, folder_of: Callable[[str], Path], device: Device, config: TableConfig, progress: Progress = silent
) -> Device:  # fmt: skip
    """Measure the tables that a device lacks, its own and that of the same device in 8 bits, and return it with them.

    Args:
        layout: the space whose blocks are needed.
        folder_of: the folder of a table, by the name of its device.
        device: see `needs_table`.
        config: how much to measure.
        progress: see `build_table`.
    """
    in_8_bits, alone = device.in_8_bits, replace(device, in_8_bits=None)
    if needs_table(alone):
        alone = build_table(
            layout, folder_of(device.name), device.profile, device.name, config=config, progress=progress
        )
    if in_8_bits is None:
        return alone
    return replace(alone, in_8_bits=build_missing_tables(layout, folder_of, in_8_bits, config, progress))


def seconds_of_tables(layout: Layout, device: Device, config: TableConfig) -> float:
    """Return about how long `build_missing_tables` takes, from a few blocks and networks that are built and timed.

    Args:
        layout: the space whose blocks are needed.
        device: see `needs_table`; 0 where it needs none.
        config: how much is measured.

    Raises:
        MeasurementError: the device cannot be timed here.
    """
    in_8_bits, alone = device.in_8_bits, replace(device, in_8_bits=None)
    others_s = 0.0 if in_8_bits is None else seconds_of_tables(layout, in_8_bits, config)
    if not needs_table(alone):
        return others_s
    plan = plan_build(of_networks(layout), config)
    profile, timer = resolve_target(device.profile, None, None)
    settings = MeasureConfig(threads=profile.threads or 1, batch_size=profile.batch_size)
    provider = conditions_of(timer.facts(), settings, profile.provider).provider
    times_s = _times_s(plan, config)
    whole = [(model, number) for number in range(config.rounds) for model in range(len(times_s))]
    precision = evaluated_precision(profile.precision)
    return others_s + _planned_s(plan, whole, times_s, settings, provider, timer, precision)


# -- inside a build --------------------------------------------------------------------------------------


def _models(plan: Plan, batch_size: int, precision: Precision) -> Iterator[bytes]:
    for block in plan.measured:
        yield block_onnx(block, batch_size, precision)
    for arch in plan.archs:
        yield network_onnx(plan.layout, arch, batch_size, precision)


def _times_s(plan: Plan, config: TableConfig) -> list[float]:
    """Time for each block, then each network, in one pass."""
    return [config.block_time_s] * len(plan.measured) + [config.network_time_s] * len(plan.archs)


def _name_of(plan: Plan, model: int) -> str:
    n_blocks = len(plan.measured)
    if model < n_blocks:
        return f"block [{plan.measured[model].signature}]"
    return f"network {plan.archs[model - n_blocks].key}"


def _planned_s(
    plan: Plan, left: Sequence[tuple[int, int]], times_s: Sequence[float], settings: MeasureConfig, provider: str,
    target: Target, precision: Precision,
) -> float:  # fmt: skip
    """Time that the build will take, from a few blocks and networks built and timed once."""
    rng = np.random.default_rng(0)
    n_blocks = len(plan.measured)
    block_onnx(plan.measured[0], settings.batch_size, precision)  # the first trace takes longer than the others
    total = 0.0
    for group, n_tried in ((range(n_blocks), 8), (range(n_blocks, n_blocks + len(plan.archs)), 4)):
        tried = rng.choice(group, min(n_tried, len(group)), replace=False)
        start = time.monotonic()
        models = [
            block_onnx(plan.measured[i], settings.batch_size, precision) if i < n_blocks
            else network_onnx(plan.layout, plan.archs[i - n_blocks], settings.batch_size, precision) for i in tried
        ]  # fmt: skip
        total += (time.monotonic() - start) / len(tried) * len(group)
        schedule = [(k, 0) for k in range(len(models))]
        names = [_name_of(plan, i) for i in tried]
        passes = []
        for _ in range(2):  # another program may disturb one of them
            start = time.monotonic()
            for _ in time_models(models, settings, provider, schedule, target, [times_s[i] for i in tried], names):
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
