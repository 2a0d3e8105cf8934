"""How do block times add up to a network? The correction of a device says; here it is fitted to whole networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from hwnas.latency.device import Correction
from hwnas.latency.table import Device, block_melements, block_ops
from hwnas.space import Arch
from hwnas.supernet import BlockSpec, Layout

OUTLIER = 0.02
"""Relative error from which a network counts less in the fit."""

NETWORKS_PER_CONSTANT = 4
"""With fewer networks than this for each constant, the correction has fewer constants."""


def correction_features(layout: Layout, archs: Sequence[Arch], device: Device) -> NDArray[np.float64]:
    """Return what the constants of a `Correction` multiply.

    Args:
        layout: the space.
        archs: ``n`` networks.
        device: with block times, and without a correction.

    Returns:
        ``(n, 5)``: sum of block times in milliseconds, blocks that run anything, 1, millions of elements at the borders
        of blocks, millions of weights.
    """
    known: dict[BlockSpec, NDArray[np.float64]] = {}

    def of(block: BlockSpec) -> NDArray[np.float64]:
        if block not in known:
            alone = device.block_ms(block) if block_ops(block) else 0.0
            known[block] = np.array([alone, float(bool(block_ops(block))), 0.0, *block_melements(block)])
        return known[block]

    sums = [np.sum([of(b) for _, b in layout.blocks(a)], axis=0) for a in archs]
    return np.asarray(np.array(sums) + np.array([0.0, 0.0, 1.0, 0.0, 0.0]))


def fit_correction(features: NDArray[np.float64], measured_ms: NDArray[np.float64]) -> Correction:
    """Fit the constants to relative errors, large ones counting less (soft L1).

    A network that was disturbed while it was timed counts less, so that the others keep their estimates. With few
    networks, borders and weights are left out.

    Args:
        features: ``(n, 5)`` of `correction_features`.
        measured_ms: ``(n,)`` whole networks.
    """
    n_constants = 5 if len(measured_ms) >= 5 * NETWORKS_PER_CONSTANT else 3
    weighted = features[:, :n_constants] / measured_ms[:, None]
    low, high = [1e-3, -np.inf, -np.inf, -np.inf, 0.0], [np.inf, np.inf, np.inf, 0.0, np.inf]
    bounds = (low[:n_constants], high[:n_constants])
    start = scipy.optimize.lsq_linear(weighted, np.ones(len(measured_ms)), bounds).x
    fitted = scipy.optimize.least_squares(
        lambda x: weighted @ x - 1.0, start, bounds=bounds, x_scale="jac", loss="soft_l1", f_scale=OUTLIER
    )
    scale, per_block, constant, border, weight = [*fitted.x, 0.0, 0.0][:5]
    return Correction(
        scale=float(scale), per_block_ms=float(per_block), constant_ms=float(constant),
        border_ms_per_melement=min(0.0, float(border)), weight_ms_per_melement=max(0.0, float(weight)),
        n_networks=len(measured_ms),
    )  # fmt: skip
