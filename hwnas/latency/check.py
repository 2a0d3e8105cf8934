"""How far are a table's estimates from fresh networks?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.arguments import checked_arguments
from hwnas.latency.device import TargetOption
from hwnas.latency.measure import MeasureConfig
from hwnas.latency.number_format import evaluated_precision
from hwnas.latency.onnx_models import network_onnx
from hwnas.latency.plan import TableConfig, network_sample
from hwnas.latency.slowdown import measure_beside
from hwnas.latency.table import load_device, relative_errors
from hwnas.latency.table_networks import read_networks
from hwnas.latency.target import Target, resolve_target
from hwnas.latency.validity import mismatches
from hwnas.progress import Progress, silent
from hwnas.supernet import Layout
from hwnas.supernet.layout import of_networks


@checked_arguments
def check_table(
    layout: Layout, table: str | Path, networks: int = 60, seed: int = 1000, strict: bool = False,
    target: str | Target | None = None, target_options: Mapping[str, TargetOption] | None = None,
    config: TableConfig | None = None, progress: Progress = silent,
) -> dict[str, Any]:  # fmt: skip
    """Time fresh random subnets and compare them with the estimates of a measured table.

    Of a space so small that the table was made with all of them, these are timed again. They are at resolutions that
    the correction was not fitted at, as far as the space has such. The machine may run faster or slower than when the
    table was made: `measure_beside` says by how much, and estimates are compared at that speed; the error without that
    is given too.

    Args:
        layout: the space.
        table: folder of the table.
        networks: how many fresh subnets.
        seed: of the subnets.
        strict: refuse a table that was measured under other conditions than those of now.
        target: what times them, by name or itself; default: that of the table.
        target_options: what a named target is made with.
        config: rounds and time as in `build_table`; default: `TableConfig()`.
        progress: told after every timing.

    Returns:
        ``mape_percent``, ``within_5_percent``, ``within_10_percent``, ``r2``, ``spearman``, ``worst`` (arch, both
        times), ``mape_percent_as_timed``, ``machine_slowdown``, ``n_networks``, ``resolutions``, ``mismatches`` (why
        the table does not hold here, see `hwnas.latency.validity`).

    Raises:
        TableError: damaged files; `TableMismatchError` with ``strict``.
        MeasurementError: the target cannot time a model, or is lost.
    """
    config, folder, layout = config or TableConfig(), Path(table), of_networks(layout)
    device = load_device(folder)
    profile, timer = resolve_target(device.profile, target, target_options)
    device = replace(device, profile=profile)
    why_not = mismatches(device, timer, strict)
    space = layout.space
    known = read_networks(folder, space)
    used = {k.arch["resolution"] for k in known if k.fitted}
    fresh = [r for r in space["resolution"].options if r not in used] or list(space["resolution"].options)
    near = space.restrict({"resolution": fresh})
    archs = network_sample(near, networks, seed, space, [k.arch for k in known], ends=False)
    if not archs:  # the table was made with every network that there is
        archs = network_sample(near, networks, seed, space, ends=False)
    settings = MeasureConfig(
        threads=profile.threads or 1, batch_size=profile.batch_size, sessions=config.rounds,
        burst_s=config.network_time_s,
    )  # fmt: skip
    precision = evaluated_precision(profile.precision)
    models = [network_onnx(layout, a, settings.batch_size, precision) for a in archs]
    found, slowdown = measure_beside(layout, models, known, settings, profile.provider, progress, timer, precision)
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
        "speed_change_percent": found[0].speed_change_percent, "mismatches": why_not,
    }  # fmt: skip
