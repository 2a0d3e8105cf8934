"""How long do models take on a target? They are timed in turns, in fresh sessions, until the answer is certain enough.

What comes back is a `hwnas.latency.measurement.Measurement`: a latency with its uncertainty and its conditions.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import torch
from pydantic import BaseModel, ConfigDict, Field

from hwnas.errors import HostError, HwnasError, MeasurementError
from hwnas.export.graph import trace
from hwnas.export.onnx_facts import Model, precision_of
from hwnas.export.onnx_nodes import build_onnx
from hwnas.latency.conditions import Conditions
from hwnas.latency.measurement import Measurement, summarise
from hwnas.latency.target import Target, ThisMachine
from hwnas.latency.time_onnx import REFERENCE, Burst, BurstConfig, Facts
from hwnas.progress import Progress, silent
from hwnas.supernet.blocks.mbconv import MBConvSpec


class MeasureConfig(BaseModel):
    """How models are timed, and when a measurement may stop."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    threads: int = Field(default=1, ge=1, le=4096)
    """Intra-op threads of the runtime."""
    batch_size: int = Field(default=1, ge=1, le=65_536)
    sessions: int = Field(default=3, ge=1, le=10_000)
    """Fresh sessions: memory layout differs from session to session, and so does the time."""
    bursts: int = Field(default=1, ge=1, le=100_000)
    """Bursts of runs in each session; between them a reference model says how fast the machine is running."""
    burst_s: float = Field(default=0.1, gt=0, le=3600)
    """Time of one burst ..."""
    min_runs: int = Field(default=5, ge=3, le=1_000_000)
    """... and the runs it has at least."""
    warmup_runs: int = Field(default=10, ge=3, le=1_000_000)
    """Runs of a fresh session that are not counted."""
    ci_percent: float = Field(default=2.0, gt=0, le=1e6)
    """Further sessions are added while the 95 % confidence interval of a median is wider than this share of it ..."""
    time_limit_s: float = Field(default=0.0, ge=0, le=31 * 86400)
    """... until this much time is spent; 0: none are added."""
    cores: tuple[int, ...] | None = None
    """Cores that the process may use; None: as it is."""
    count_copies: bool = False
    """Count copies to and from the memory of a GPU too."""
    input_shape: tuple[int, ...] | None = None
    """For models whose axes are open: the whole input, or what is behind its batch axis."""
    limit_s: float = Field(default=0.0, ge=0)
    """A model that takes longer to load, or for its first run, is given up; 0: no limit. Only targets that time models
    in a process of their own can give up."""


def measure(
    models: Sequence[Model], config: MeasureConfig | None = None, provider: str | None = None,
    target: Target | None = None, task: str = "time models", progress: Progress = silent,
) -> list[Measurement]:  # fmt: skip
    """Time ONNX models, in several fresh sessions each, one after the other in every round.

    A shared machine runs at different speeds for seconds at a time. A small fixed model is timed between the others,
    and what all timings around a moment have in common is taken out (`hwnas.latency.machine_speed`).

    Args:
        models: files or models with one input ``(batch, C, H, W)``, the batch axis dynamic or ``batch_size``.
        config: how, and when to stop; default: `MeasureConfig()`.
        provider: execution provider; default: the target's own. One that is not really active is an error.
        target: what times them; default: ONNX Runtime on this machine.
        task: what ``progress`` is told.
        progress: told after every session.

    Raises:
        MeasurementError: a model does not load, its shape is open, or the provider is not active.
        HostError: the target was lost before every model was timed; lost later, that is a warning.
    """
    config, target = config or MeasureConfig(), target or ThisMachine()
    timed: list[Burst] = []
    done: set[tuple[int, int]] = set()
    precisions = [precision_of(m) for m in models]
    conditions = conditions_of(target.facts(), config, provider)
    started = time.monotonic()
    rounds, scheduled, unsettled = 0, 0, set(range(len(models)))
    while True:
        more = config.sessions if rounds == 0 else 1
        schedule = [
            (int(m), r) for r in range(rounds, rounds + more) for m in np.random.default_rng(r).permutation(len(models))
            if int(m) in unsettled
        ]  # fmt: skip
        rounds, scheduled = rounds + more, scheduled + len(schedule)
        lost = None
        try:
            for burst in time_models(models, config, conditions.provider, schedule, target):
                timed.append(burst)
                if burst.model != REFERENCE and (burst.model, burst.session) not in done:
                    done.add((burst.model, burst.session))
                    progress(task, len(done), scheduled)
        except HostError as error:
            if {b.model for b in timed} - {REFERENCE} != set(range(len(models))):
                raise
            lost = str(error)  # every model was timed, if not as often as asked
        found = summarise(timed, conditions, precisions, config.ci_percent)
        if lost is not None:
            return [replace(m, warnings=(*m.warnings, lost)) for m in found]
        unsettled = {i for i, m in enumerate(found) if m.ci_percent > config.ci_percent}
        if not unsettled or time.monotonic() - started >= config.time_limit_s:
            return found


def measure_onnx(model: Model, config: MeasureConfig | None = None, provider: str | None = None) -> Measurement:
    """Time one ONNX model on this machine; see `measure`."""
    return measure([model], config, provider)[0]


def time_models(
    models: Sequence[Model], config: MeasureConfig, provider: str, schedule: Sequence[tuple[int, int]],
    target: Target, burst_s: Sequence[float] | None = None, names: Sequence[str] | None = None,
) -> Iterator[Burst]:  # fmt: skip
    """Let a target time models as a schedule says, and yield its bursts one by one.

    Args:
        models: files, models or serialised models.
        config: how.
        provider: execution provider; empty for a target without providers.
        schedule: (number of the model, number of its session), in order.
        target: what times them.
        burst_s: time of a burst for each model; default: that of ``config``.
        names: of the models, for messages.

    Raises:
        MeasurementError: a model cannot be timed.
        HostError: the target was lost; what was yielded before is good.
    """
    sources = [_source(m) for m in models]
    names = names or [str(m) if isinstance(m, Path) else f"model {i}" for i, m in enumerate(models)]
    how = BurstConfig(
        provider, tuple(burst_s or [config.burst_s] * len(models)), config.threads, config.batch_size, config.bursts,
        config.min_runs, config.warmup_runs, config.cores, config.count_copies, config.input_shape, config.limit_s,
    )  # fmt: skip
    try:
        yield from target.bursts(sources, names, reference_model(config.batch_size).SerializeToString(), how, schedule)
    except HwnasError:
        raise
    except Exception as error:  # a target of somebody's own may fail in any way
        raise MeasurementError(f"target {type(target).__name__} failed: {type(error).__name__}: {error}") from error


def _source(model: Model) -> str | bytes:
    if isinstance(model, bytes):
        return model
    return str(model) if isinstance(model, Path) else bytes(model.SerializeToString())


def conditions_of(facts: Facts, config: MeasureConfig, provider: str | None) -> Conditions:
    """Return the conditions under which a target times models now; shape and precision of models are put in later.

    Args:
        facts: what the target says it is.
        config: how models are timed.
        provider: execution provider that is asked for; default: the target's own.

    Raises:
        MeasurementError: a provider is asked of a target without providers.
    """
    if provider and not facts.provider:
        raise MeasurementError(
            f"provider {provider!r} was asked for, but {facts.runtime} has no execution providers; leave it out "
            "(provider: null in profile.yaml)"
        )
    return Conditions(
        device=facts.device, runtime=facts.runtime, provider=provider or facts.provider, precision="fp32",
        threads=config.threads, batch_size=config.batch_size, input_shape=(), warmup_runs=config.warmup_runs,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cores=",".join(map(str, config.cores)) if config.cores else facts.cores, copies=config.count_copies,
    )  # fmt: skip


@lru_cache(maxsize=8)
def reference_model(batch_size: int) -> onnx.ModelProto:
    """Return a typical small block, the same in every version: it says how fast the machine runs."""
    spec = MBConvSpec(24, 24, 14, 96, True, 5, 1, True, "hswish", True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_onnx(trace(spec.build()), spec.in_channels, spec.in_size_px, batch_size)
