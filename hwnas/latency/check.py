"""How far are a table's estimates from fresh networks?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hwnas.latency.agent import CPU
from hwnas.latency.measure import MeasureConfig
from hwnas.latency.networks import known_networks, measure_beside, network_onnx
from hwnas.latency.plan import TableConfig, network_sample
from hwnas.latency.table import (
    Device,
    relative_errors,
)
from hwnas.latency.target import Target
from hwnas.progress import Progress, silent
from hwnas.supernet import Layout


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
    models = [network_onnx(layout, a, settings.batch_size) for a in archs]
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
