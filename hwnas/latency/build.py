"""How is a latency table made on this machine? Time every block, then learn from whole networks how blocks add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.optimize import least_squares, lsq_linear

from hwnas.export.graph import trace
from hwnas.export.onnx_file import build_onnx
from hwnas.latency.device import Correction, DeviceProfile, ProfileError
from hwnas.latency.measure import MeasureConfig, Measurement, measure_interleaved
from hwnas.latency.table import Device, Row, block_ops, load_device, relative_errors, save_device
from hwnas.progress import Progress, silent
from hwnas.space import Arch
from hwnas.supernet import BlockSpec, Layout
from hwnas.supernet.slot_sum import distinct_blocks

OUTLIER = 0.02
"""Relative error from which a network counts less in the fit."""


class TableConfig(BaseModel):
    """How much is measured for a table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_networks: int = Field(default=24, ge=6)
    """Whole networks that correct the sum of blocks."""
    n_held_out: int = Field(default=16, ge=4)
    """Further whole networks on which the error is published."""
    rounds: int = Field(default=8, ge=1)
    """Passes over everything; the quietest counts."""
    block_time_s: float = Field(default=0.008, gt=0)
    """Time for one block in one pass."""
    network_time_s: float = Field(default=0.02, gt=0)
    seed: int = 0
    """Of the whole networks."""


def build_table(
    layout: Layout, profile: DeviceProfile, folder: Path, config: TableConfig | None = None,
    progress: Progress = silent,
) -> Device:  # fmt: skip
    """Measure the blocks of a space in ONNX Runtime on this machine and write the device folder.

    Every block is built from the same trace as an exported model. Blocks are timed alone, in several passes; then whole
    networks are timed and three constants are fitted to them by least squares on relative error, and the error on
    further networks is written into the profile.

    Args:
        layout: the space whose blocks are needed.
        profile: name, provider, threads of the device.
        folder: where ``profile.yaml`` and ``blocks.csv`` go.
        config: how much to measure; default: `TableConfig()`.
        progress: told after every timing.
    """
    config = config or TableConfig()
    blocks = [b for b in distinct_blocks(layout) if block_ops(b)]
    provider, threads = profile.provider or "CPUExecutionProvider", profile.threads or 1
    block_models = [build_onnx(trace(b.build()), b.in_channels, b.in_size_px, profile.batch_size) for b in blocks]
    settings = MeasureConfig(
        threads=threads, batch_size=profile.batch_size, ci_percent=1.0, time_limit_s=config.block_time_s
    )
    timings = measure_interleaved(block_models, settings, config.rounds, provider, "time blocks", progress)
    rows = {b.signature: Row(t.median_ms, t.iqr_ms, t.n, "measured") for b, t in zip(blocks, timings, strict=True)}
    archs = network_sample(layout, config.n_networks + config.n_held_out, config.seed)
    settings = settings.model_copy(update={"time_limit_s": config.network_time_s})
    networks = time_networks(layout, archs, settings, config.rounds, provider, progress)
    measured = np.array([t.median_ms for t in networks])
    plain = Device(profile.model_copy(update={"cost_model": None, "correction": None}), rows)
    features = chain_features(layout, archs, plain)
    fitted = slice(0, config.n_networks)
    correction = fit_correction(features[fitted], measured[fitted])
    corrected = Device(plain.profile.model_copy(update={"correction": correction}), rows)
    held_out = slice(config.n_networks, None)
    estimates = corrected.compile(layout).of_archs(archs[held_out])
    conditions = {k: v for k, v in asdict(networks[0].conditions).items() if k != "input_shape"}
    error = ProfileError(
        networks="random subnets of the recipe, timed here", n_held_out=config.n_held_out, seed=config.seed,
        **relative_errors(estimates, measured[held_out]),
    )  # fmt: skip
    device = Device(
        corrected.profile.model_copy(update={"origin": "measured", "error": error, "conditions": conditions}), rows
    )
    save_device(device, folder, blocks)
    return load_device(folder)  # times as the file rounds them, so that a second start computes with the same


def network_sample(layout: Layout, n: int, seed: int) -> list[Arch]:
    """Return ``n`` different archs, the smallest and largest of every size among the first."""
    space = layout.space
    ends = [space.smallest(), space.largest()]
    found = dict.fromkeys(ends)
    rng = np.random.default_rng(seed)
    for arch in space.sample(rng, 20 * n):
        if len(found) == n:
            break
        found[arch] = None
    return list(found)


def time_networks(
    layout: Layout, archs: Sequence[Arch], config: MeasureConfig, rounds: int, provider: str,
    progress: Progress = silent,
) -> list[Measurement]:  # fmt: skip
    """Time whole networks of random weights, exactly as they would be exported."""
    models = []
    for arch in archs:
        channels, resolution, _ = layout.input_shape(arch)
        models.append(build_onnx(trace(layout.build_subnet(arch)), channels, resolution, config.batch_size))
    return measure_interleaved(models, config, rounds, provider, "time networks", progress)


def chain_features(layout: Layout, archs: Sequence[Arch], device: Device) -> NDArray[np.float64]:
    """Return ``(n, 3)``: sum of block times in milliseconds, number of blocks that run anything, and 1."""
    chains: list[list[BlockSpec]] = [[b for _, b in layout.chain(a) if block_ops(b)] for a in archs]
    return np.array([[sum(device.block_ms(b) for b in chain), len(chain), 1.0] for chain in chains])


def fit_correction(features: NDArray[np.float64], measured_ms: NDArray[np.float64]) -> Correction:
    """Fit scale, time per block and constant to relative errors, large ones counting less (soft L1).

    A network that was disturbed while it was timed is an outlier, and must not bend the fit.

    Args:
        features: ``(n, 3)`` of `chain_features`.
        measured_ms: ``(n,)`` whole networks.
    """
    weighted = features / measured_ms[:, None]
    bounds = ([1e-3, -np.inf, -np.inf], [np.inf, np.inf, np.inf])
    start = lsq_linear(weighted, np.ones(len(measured_ms)), bounds).x
    fitted = least_squares(
        lambda x: weighted @ x - 1.0, start, bounds=bounds, x_scale="jac", loss="soft_l1", f_scale=OUTLIER
    )
    scale, per_block, constant = fitted.x
    return Correction(
        scale=float(scale), per_block_ms=float(per_block), constant_ms=float(constant), n_networks=len(measured_ms)
    )


def needs_table(device: Device) -> bool:
    """Say whether the device is one whose table is measured on the spot and not there yet."""
    return device.profile.origin == "measured" and not device.rows and device.profile.cost_model is None
