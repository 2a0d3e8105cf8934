"""How differently do devices rank the archs of a space? Who searches two that rank them alike searches one twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from hwnas.arguments import checked_arguments
from hwnas.errors import DeviceError, MissingBlockError
from hwnas.latency.device import shipped_devices
from hwnas.latency.table import Device, load_device
from hwnas.supernet import Layout

ALIKE = 0.95
"""Kendall's tau from which two devices count as one for a space: of 40 pairs of archs they disagree on one."""


@dataclass(frozen=True)
class DeviceRanks:
    """How alike devices rank archs."""

    devices: tuple[str, ...]
    tau: NDArray[np.float64]
    """``(n, n)`` Kendall's tau of the latencies of the same archs; 1 on the diagonal."""
    n_archs: int
    not_ranked: dict[str, str]
    """Devices that have no latencies for the space, and why."""

    @property
    def alike(self) -> list[tuple[str, str, float]]:
        """Pairs of devices with a tau of at least `ALIKE`, most alike first."""
        pairs = [
            (a, b, float(self.tau[i, j]))
            for i, a in enumerate(self.devices)
            for j, b in enumerate(self.devices)
            if i < j and self.tau[i, j] >= ALIKE
        ]
        return sorted(pairs, key=lambda pair: -pair[2])

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "devices": list(self.devices), "tau": self.tau.round(4).tolist(), "n_archs": self.n_archs,
            "alike": [{"devices": [a, b], "tau": round(tau, 4)} for a, b, tau in self.alike],
            "not_ranked": self.not_ranked,
        }  # fmt: skip


@checked_arguments
def rank_devices(
    layout: Layout, devices: Sequence[str | Path] | None = None, archs: int = 1000, seed: int = 0
) -> DeviceRanks:
    """Compare how devices rank random archs of a space, by Kendall's tau of their latencies.

    Args:
        layout: the space.
        devices: names of shipped devices, or folders of profiles; default: every shipped device that has latencies.
        archs: how many are drawn, at least 10; the same for all devices.
        seed: of the archs.

    Raises:
        DeviceError: a device is unknown, stands twice, or fewer than two devices have latencies for the space; the
            message says why.
    """
    if archs < 10:
        raise DeviceError(f"{archs} archs are too few to rank; give at least 10")
    found: dict[str, NDArray[np.float64]] = {}
    not_ranked: dict[str, str] = {}
    sample = layout.space.sample(np.random.default_rng(seed), archs)
    for given in shipped_devices() if devices is None else devices:
        device: Device = load_device(given)
        if device.name in found or device.name in not_ranked:
            raise DeviceError(f"device {device.name!r} stands twice; give every device once")
        try:
            found[device.name] = device.compile(layout).of_archs(sample)
        except MissingBlockError as error:
            not_ranked[device.name] = str(error)
    if len(found) < 2:
        why = "; ".join(not_ranked.values()) or "give a second one"
        raise DeviceError(f"fewer than two devices have latencies for this space: {why}")
    if len(set(sample)) < 2:
        raise DeviceError("the space has one arch; there is nothing to rank")
    names = tuple(found)
    tau = np.eye(len(names))
    for i, a in enumerate(names):
        for j in range(i):
            tau[i, j] = tau[j, i] = _tau(found[a], found[names[j]])
    return DeviceRanks(names, tau, len(sample), not_ranked)


def _tau(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Kendall's tau; 0 where one of the two takes equally long for every arch, which ranks nothing."""
    value = float(scipy.stats.kendalltau(a, b).statistic)
    return value if np.isfinite(value) else 0.0
