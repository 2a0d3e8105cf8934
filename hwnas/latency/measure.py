"""How long does a model take on this machine? A measurement is a record of samples and conditions, not a float."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import t as student_t

from hwnas.errors import HostError, MeasurementError, TableMismatchError
from hwnas.export.graph import trace
from hwnas.export.onnx_file import build_onnx
from hwnas.latency import agent
from hwnas.latency.agent import CPU, REFERENCE, AgentError, Burst, device_name
from hwnas.latency.speed import SAME_SPEED, separate_speed
from hwnas.progress import Progress, silent
from hwnas.supernet.blocks import MBConvSpec

__all__ = ["Conditions", "MeasureConfig", "Measurement", "device_name", "measure", "profile", "summarise"]

Model: TypeAlias = "Path | onnx.ModelProto | bytes"

DRIFT_PERCENT = 5.0
"""A model that became this much slower or faster while it was timed is not stable."""
SPEED_CHANGE_PERCENT = 20.0
"""So is any model, where the machine's speed changed by this much."""
CPU_SHARE = 0.9
"""Below this share of a core, another process was running on it."""
OUTLIER_RATIO = 1.5
OUTLIERS_PERCENT = 5.0


class MeasureConfig(BaseModel):
    """How models are timed, and when a measurement may stop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threads: int = Field(default=1, ge=1)
    """Intra-op threads of the runtime."""
    batch_size: int = Field(default=1, ge=1)
    sessions: int = Field(default=3, ge=1)
    """Fresh sessions: memory layout differs from session to session, and so does the time."""
    bursts: int = Field(default=1, ge=1)
    """Bursts of runs in each session; between them a reference model says how fast the machine is running."""
    burst_s: float = Field(default=0.1, gt=0)
    """Time of one burst ..."""
    min_runs: int = Field(default=5, ge=3)
    """... and the runs it has at least."""
    warmup_runs: int = Field(default=10, ge=3)
    """Runs of a fresh session that are not counted."""
    ci_percent: float = Field(default=2.0, gt=0)
    """Further sessions are added while the 95 % confidence interval of a median is wider than this share of it ..."""
    time_limit_s: float = Field(default=0.0, ge=0)
    """... until this much time is spent; 0: none are added."""
    cores: tuple[int, ...] | None = None
    """Cores that the process may use; None: as it is."""
    count_copies: bool = False
    """Count copies to and from the memory of a GPU too."""
    input_shape: tuple[int, ...] | None = None
    """Channels, height, width, for models whose axes are open."""


@dataclass(frozen=True)
class Conditions:
    """Under which conditions a latency holds; numbers of different conditions never mix silently."""

    device: str
    """Processor model and cores."""
    runtime: str
    """Such as ``onnxruntime-1.31.1``."""
    provider: str
    precision: str
    threads: int
    batch_size: int
    input_shape: tuple[int, ...]
    """Channels, height, width; empty for a table of many shapes."""
    warmup_runs: int
    date: str
    """ISO 8601, UTC."""
    reference_ms: float = 0.0
    """What a fixed block took here and then, as a measure of how fast the machine was running; 0: not taken."""
    cores: str = ""
    """Cores that the process might use, such as ``0,1``."""
    copies: bool = False
    """Whether copies to and from the memory of a GPU count."""

    def require_same(self, other: Conditions, what: str) -> None:
        """Raise where ``other`` was taken under conditions that make its latency another quantity.

        Raises:
            TableMismatchError: naming the field and both values.
        """
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if f.name in SAME_QUANTITY and mine != theirs:
                raise TableMismatchError(
                    f"{what}: {f.name} is {mine!r} here and {theirs!r} there; measure both under the same conditions"
                )


SAME_QUANTITY = ("device", "runtime", "provider", "precision", "threads", "batch_size", "copies")
"""Fields of `Conditions` that must agree."""


@dataclass(frozen=True)
class Measurement:
    """Latency of one model under stated conditions, milliseconds a batch."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    p99_ms: float
    iqr_ms: float
    n: int
    """Timed runs, all sessions together."""
    ci_percent: float
    """Width of the 95 % confidence interval of the median, of the median."""
    conditions: Conditions
    sessions: int = 1
    """Fresh sessions that were timed."""
    drift_percent: float = 0.0
    """How much slower the model was at the end of a session than at its start (the session where it was worst)."""
    speed_change_percent: float = 0.0
    """How much the machine's speed changed meanwhile; it is taken out of the other values."""
    cpu_share_percent: float = 100.0
    """Share of the time in which the process was running; below 100, others ran on its core."""
    outliers_percent: float = 0.0
    """Runs that took over 1.5 times the median."""
    peak_memory_mb: float | None = None
    """What the session added to the memory of the process at most; None: not known."""
    warnings: tuple[str, ...] = ()
    """Why the measurement is not stable, in words."""

    @property
    def stable(self) -> bool:
        """Whether nothing speaks against the numbers."""
        return not self.warnings

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "stable": self.stable}


class Target(Protocol):
    """A machine that times models: this one, or one behind SSH."""

    host: str | None
    """Its name as ssh takes it; None: this machine."""

    def facts(self, threads: int) -> dict[str, Any]:
        """See `hwnas.latency.agent.facts`."""

    def bursts(
        self, models: Sequence[str | bytes], names: Sequence[str], reference: bytes, config: dict[str, Any],
        schedule: Sequence[tuple[int, int]],
    ) -> Iterator[Burst]:  # fmt: skip
        """See `hwnas.latency.agent.bursts`."""


class Here:
    """This machine."""

    host: str | None = None

    def facts(self, threads: int) -> dict[str, Any]:
        """See `hwnas.latency.agent.facts`."""
        return agent.facts(threads)

    def bursts(
        self, models: Sequence[str | bytes], names: Sequence[str], reference: bytes, config: dict[str, Any],
        schedule: Sequence[tuple[int, int]],
    ) -> Iterator[Burst]:  # fmt: skip
        """See `hwnas.latency.agent.bursts`."""
        return agent.bursts(models, names, reference, config, schedule)


def measure(
    models: Sequence[Model], config: MeasureConfig | None = None, provider: str = CPU, target: Target | None = None,
    task: str = "time models", progress: Progress = silent,
) -> list[Measurement]:  # fmt: skip
    """Time ONNX models, in several fresh sessions each, one after the other in every round.

    A shared machine runs at different speeds for seconds at a time. A small fixed model is timed between the others,
    and what all timings around a moment have in common is taken out (`hwnas.latency.speed`).

    Args:
        models: files or models with one input ``(batch, C, H, W)``, the batch axis dynamic or ``batch_size``.
        config: how, and when to stop; default: `MeasureConfig()`.
        provider: execution provider; if the runtime does not really activate it, that is an error.
        target: which machine; default: this one.
        task: what ``progress`` is told.
        progress: told after every session.

    Raises:
        MeasurementError: a model does not load, its shape is open, or the provider is not active.
        HostError: another machine was lost before every model was timed; lost later, that is a warning.
    """
    config, target = config or MeasureConfig(), target or Here()
    taken: list[Burst] = []
    done: set[tuple[int, int]] = set()
    precisions = [precision_of(m) for m in models]
    conditions = conditions_of(target, config, provider)
    started = time.monotonic()
    rounds = 0
    while True:
        more = config.sessions if rounds == 0 else 1
        schedule = [
            (int(m), r) for r in range(rounds, rounds + more) for m in np.random.default_rng(r).permutation(len(models))
        ]
        rounds += more
        lost = None
        try:
            for burst in take(models, config, provider, schedule, target):
                taken.append(burst)
                if burst.model != REFERENCE and (burst.model, burst.session) not in done:
                    done.add((burst.model, burst.session))
                    progress(task, len(done), len(models) * rounds)
        except HostError as error:
            if {b.model for b in taken} != {REFERENCE, *range(len(models))}:
                raise
            lost = str(error)  # every model was timed, if not as often as asked
        found = summarise(taken, conditions, precisions, config.ci_percent)
        if lost is not None:
            return [replace(m, warnings=(*m.warnings, lost)) for m in found]
        settled = all(m.ci_percent <= config.ci_percent for m in found)
        if settled or time.monotonic() - started >= config.time_limit_s:
            return found


def measure_onnx(model: Model, config: MeasureConfig | None = None, provider: str = CPU) -> Measurement:
    """Time one ONNX model on this machine; see `measure`."""
    return measure([model], config, provider)[0]


def take(
    models: Sequence[Model], config: MeasureConfig, provider: str, schedule: Sequence[tuple[int, int]],
    target: Target, burst_s: Sequence[float] | None = None, names: Sequence[str] | None = None,
) -> Iterator[Burst]:  # fmt: skip
    """Time models as a schedule says; see `hwnas.latency.agent.bursts`.

    Args:
        models: files, models or serialised models.
        config: how.
        provider: execution provider.
        schedule: (number of the model, number of its session), in order.
        target: which machine.
        burst_s: time of a burst for each model; default: that of ``config``.
        names: of the models, for messages.
    """
    sources = [_source(m) for m in models]
    names = names or [str(m) if isinstance(m, Path) else f"model {i}" for i, m in enumerate(models)]
    values = config.model_dump(exclude={"sessions", "ci_percent", "time_limit_s"})
    values |= {"provider": provider, "burst_s": list(burst_s or [config.burst_s] * len(models))}
    reference = reference_model(config.batch_size).SerializeToString()
    try:
        yield from target.bursts(sources, names, reference, values, schedule)
    except AgentError as error:
        raise MeasurementError(str(error)) from error


def _source(model: Model) -> str | bytes:
    if isinstance(model, bytes):
        return model
    return str(model) if isinstance(model, Path) else bytes(model.SerializeToString())


def conditions_of(target: Target, config: MeasureConfig, provider: str) -> Conditions:
    """Return the conditions under which ``target`` times models now; shape, precision and reference are open."""
    facts = target.facts(config.threads)
    return Conditions(
        device=facts["device"], runtime=facts["runtime"], provider=provider, precision="fp32",
        threads=config.threads, batch_size=config.batch_size, input_shape=(), warmup_runs=config.warmup_runs,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cores=",".join(map(str, config.cores)) if config.cores else facts["cores"], copies=config.count_copies,
    )  # fmt: skip


def summarise(
    taken: Sequence[Burst], conditions: Conditions, precisions: Sequence[str], ci_percent: float = 100.0
) -> list[Measurement]:
    """Return the statistics of every model that was timed, the machine's speed taken out.

    Args:
        taken: in the order of time, the reference model among them.
        conditions: of all; shape, precision and reference time are put in.
        precisions: of the models, ``fp32`` or ``int8``.
        ci_percent: a wider confidence interval is a warning.

    Returns:
        One measurement a model, all at the machine's most common speed meanwhile.
    """
    n_models = len(precisions)
    which = np.array([n_models if b.model == REFERENCE else b.model for b in taken], dtype=np.int64)
    known, index = np.unique(which, return_inverse=True)
    if missing := set(range(n_models)) - set(known.tolist()):
        raise MeasurementError(f"{len(missing)} of {n_models} models were not timed; time them again")
    log_ms = np.log([np.median(b.values_ms) for b in taken])
    own_core = conditions.provider == CPU
    trust = np.array([min(1.0, b.cpu_share) ** 20 if own_core else 1.0 for b in taken])
    times, slowness = separate_speed(log_ms, index, trust)
    reference_ms = float(np.exp(times[n_models])) if len(known) > n_models else 0.0
    low, high = np.percentile(slowness, [5, 95])
    change = 100 * float(np.expm1(high - low))
    out = []
    for model in range(n_models):
        own = np.flatnonzero(which == model)
        made = _statistics([taken[int(i)] for i in own], slowness[own], float(times[model]))
        changed = {
            **asdict(conditions), "input_shape": tuple(taken[int(own[0])].input_shape), "precision": precisions[model],
            "reference_ms": reference_ms,
        }  # fmt: skip
        warnings = _warnings(made, change, ci_percent, conditions.provider)
        out.append(
            Measurement(
                **made, conditions=Conditions(**changed), speed_change_percent=round(change, 2), warnings=warnings
            )
        )
    return out


def _statistics(bursts: Sequence[Burst], slowness: NDArray[np.float64], log_ms: float) -> dict[str, Any]:
    """Statistics of one model; ``slowness`` is that of the moments of its bursts, ``log_ms`` its time without it."""
    corrected = [np.asarray(b.values_ms) / np.exp(s) for b, s in zip(bursts, slowness, strict=True)]
    alike = np.abs(slowness) <= max(SAME_SPEED, float(np.abs(slowness).min()))
    values = np.concatenate([v for v, near in zip(corrected, alike, strict=True) if near])
    values = values * (np.exp(log_ms) / np.median(values))
    p10, q1, median, q3, p90, p99 = np.percentile(values, [10, 25, 50, 75, 90, 99])
    sessions: dict[int, list[float]] = {}
    for burst, v in zip(bursts, corrected, strict=True):
        sessions.setdefault(burst.session, []).append(float(np.log(np.median(v))))
    drifts = [_drift(s) for s in sessions.values()]
    between = between_sessions_ci_percent([float(np.median(s)) for s in sessions.values()])
    return {
        "median_ms": float(median), "p10_ms": float(p10), "p90_ms": float(p90), "p99_ms": float(p99),
        "iqr_ms": float(q3 - q1), "n": sum(len(b.values_ms) for b in bursts), "sessions": len(sessions),
        "ci_percent": max(median_ci_percent(values), between),
        "drift_percent": round(100 * float(np.expm1(max(drifts, key=abs))), 2),
        "cpu_share_percent": round(100 * float(np.median([b.cpu_share for b in bursts])), 1),
        "outliers_percent": round(100 * float((values > OUTLIER_RATIO * median).mean()), 2),
        "peak_memory_mb": max((b.peak_memory_mb for b in bursts if b.peak_memory_mb is not None), default=None),
    }  # fmt: skip


def _drift(log_ms: Sequence[float]) -> float:
    """Last third of a session over its first, as a logarithm; 0 where it has too few bursts."""
    third = len(log_ms) // 3
    return float(np.median(log_ms[-third:]) - np.median(log_ms[:third])) if third >= 2 else 0.0


def _warnings(made: dict[str, Any], change_percent: float, ci_percent: float, provider: str) -> tuple[str, ...]:
    out = []
    if made["ci_percent"] > ci_percent:
        out.append(f"the interval of the median is {made['ci_percent']:.1f} % wide, asked was {ci_percent:g} %")
    if abs(made["drift_percent"]) > DRIFT_PERCENT:
        way = "slower" if made["drift_percent"] > 0 else "faster"
        out.append(
            f"it became {abs(made['drift_percent']):.0f} % {way} while it was timed (throttling, or slow to warm up)"
        )
    if change_percent > SPEED_CHANGE_PERCENT:
        out.append(f"the machine's speed changed by {change_percent:.0f} % meanwhile; that is taken out")
    if provider == CPU and made["cpu_share_percent"] < 100 * CPU_SHARE:
        out.append(f"another process used its core: only {made['cpu_share_percent']:.0f} % of the time was its own")
    if made["outliers_percent"] > OUTLIERS_PERCENT:
        out.append(f"{made['outliers_percent']:.0f} % of the runs took over {OUTLIER_RATIO:g} times the median")
    return tuple(out)


def median_ci_percent(values: NDArray[np.float64]) -> float:
    """Return the width of the 95 % confidence interval of the median, in percent of the median.

    Distribution-free, from order statistics (binomial, normal approximation).
    """
    ordered, n = np.sort(values), len(values)
    reach = 1.96 * n**0.5 / 2
    low, high = max(0, int(n / 2 - reach)), min(n - 1, int(n / 2 + reach))
    return float(100.0 * (ordered[high] - ordered[low]) / np.median(values))


def between_sessions_ci_percent(log_medians: Sequence[float]) -> float:
    """Return the width of the 95 % confidence interval of the mean of sessions' medians, in percent; 0 for one session.

    Runs of one session share its memory layout, so many runs in few sessions say less than their number.
    Student's t over sessions.
    """
    k = len(log_medians)
    if k < 2:
        return 0.0
    reach = float(student_t.ppf(0.975, k - 1)) * float(np.std(log_medians, ddof=1)) / float(k) ** 0.5
    return float(200.0 * reach)


def precision_of(model: Model) -> str:
    """Return ``int8`` where a model has quantised tensors, else ``fp32``."""
    try:
        if isinstance(model, Path):
            proto = onnx.load(str(model), load_external_data=False)
        else:
            proto = onnx.load_from_string(model) if isinstance(model, bytes) else model
    except Exception as error:  # protobuf's own classes share no public base
        name = model if isinstance(model, Path) else "the model"
        raise MeasurementError(f"{name} does not load as ONNX: {error}") from error
    return "int8" if any(n.op_type == "DequantizeLinear" for n in proto.graph.node) else "fp32"


@lru_cache(maxsize=8)
def reference_model(batch_size: int) -> onnx.ModelProto:
    """Return a typical small block, the same in every version: it says how fast the machine runs."""
    spec = MBConvSpec(24, 24, 14, 96, True, 5, 1, True, "hswish", True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_onnx(trace(spec.build()), spec.in_channels, spec.in_size_px, batch_size)


def profile(
    model: str | Path, threads: int = 1, batch_size: int = 1, provider: str = CPU, sessions: int = 3,
    session_s: float = 2.5, ci_percent: float = 2.0, time_limit_s: float = 20.0,
    cores: Sequence[int] | None = None, input_shape: Sequence[int] | None = None, count_copies: bool = False,
    target: Target | None = None, progress: Progress = silent,
) -> Measurement:  # fmt: skip
    """Time an ONNX file, over several fresh sessions; see `profile_all`."""
    return profile_all(
        [model], threads, batch_size, provider, sessions, session_s, ci_percent, time_limit_s, cores, input_shape,
        count_copies, target, progress,
    )[0]  # fmt: skip


def profile_all(
    models: Sequence[str | Path], threads: int = 1, batch_size: int = 1, provider: str = CPU, sessions: int = 3,
    session_s: float = 2.5, ci_percent: float = 2.0, time_limit_s: float = 20.0,
    cores: Sequence[int] | None = None, input_shape: Sequence[int] | None = None, count_copies: bool = False,
    target: Target | None = None, progress: Progress = silent,
) -> list[Measurement]:  # fmt: skip
    """Time ONNX files one beside the other, over several fresh sessions each.

    Args:
        models: files, or folders of bundles.
        threads: intra-op threads of ONNX Runtime.
        batch_size: images in one inference.
        provider: execution provider.
        sessions: fresh sessions at least; memory layout, and with it the time, differs between them.
        session_s: time in each session; long enough to see a processor that throttles.
        ci_percent: more sessions are added while the confidence interval of the median is wider than this ...
        time_limit_s: ... and less time than this is spent.
        cores: pin the process to these cores.
        input_shape: channels, height, width, for models whose axes are open.
        count_copies: count copies to and from a GPU too.
        target: another machine (`hwnas.latency.remote.RemoteHost`); default: this one.
        progress: told after every session.

    Raises:
        MeasurementError: no such file, or it cannot be timed.
    """
    paths = [_model_file(Path(model)) for model in models]
    bursts = max(1, round(session_s / BURST_S))
    config = MeasureConfig(
        threads=threads, batch_size=batch_size, sessions=sessions, bursts=bursts, burst_s=session_s / bursts,
        ci_percent=ci_percent, time_limit_s=time_limit_s, cores=None if cores is None else tuple(cores),
        input_shape=None if input_shape is None else tuple(input_shape), count_copies=count_copies,
    )  # fmt: skip
    return measure(paths, config, provider, target, f"time {paths[0].name}", progress)


BURST_S = 0.1
"""Of `profile`: the reference is timed this often."""


def _model_file(path: Path) -> Path:
    path = path / "model.onnx" if path.is_dir() else path
    if not path.is_file():
        raise MeasurementError(f"{path} does not exist; give an .onnx file or a model folder of a run")
    return path
