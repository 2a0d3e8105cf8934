"""How long does a model take on this machine? A measurement is a record of samples and conditions, not a float."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from pydantic import BaseModel, ConfigDict, Field

from hwnas.errors import MeasurementError, TableMismatchError
from hwnas.export.graph import trace
from hwnas.export.onnx_file import build_onnx
from hwnas.progress import Progress, silent
from hwnas.supernet.blocks import MBConvSpec

WARMUP_RUNS = 10
QUIET = 1.05
"""Passes whose reference is this close to the fastest are equally quiet; of them the shortest time counts."""


class MeasureConfig(BaseModel):
    """When a measurement may stop."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threads: int = Field(default=1, ge=1)
    """Intra-op threads of the runtime."""
    batch_size: int = Field(default=1, ge=1)
    ci_percent: float = Field(default=2.0, gt=0)
    """Stop when the 95 % confidence interval of the median is narrower than this share of it ..."""
    time_limit_s: float = Field(default=2.0, gt=0)
    """... or when this much time is spent in each session."""
    min_runs: int = Field(default=20, ge=3)
    sessions: int = Field(default=1, ge=1)
    """Fresh sessions: memory layout differs from session to session, and so does the time."""


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

    def require_same(self, other: Conditions, what: str) -> None:
        """Raise where ``other`` was taken under conditions that make its latency another quantity.

        Raises:
            TableMismatchError: naming the field and both values.
        """
        for f in fields(self):
            mine, theirs = getattr(self, f.name), getattr(other, f.name)
            if f.name not in ("date", "input_shape", "warmup_runs", "reference_ms") and mine != theirs:
                raise TableMismatchError(
                    f"{what}: {f.name} is {mine!r} here and {theirs!r} there; measure both under the same conditions"
                )


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

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def measure_onnx(
    model: Path | onnx.ModelProto, config: MeasureConfig | None = None, provider: str = "CPUExecutionProvider"
) -> Measurement:
    """Time an ONNX model in ONNX Runtime on this machine.

    Args:
        model: file or model; its input must be ``(batch, C, H, W)``, the batch axis dynamic or ``batch_size``.
        config: when to stop; default: `MeasureConfig()`.
        provider: execution provider; if the runtime does not really activate it, that is an error.

    Raises:
        MeasurementError: the model does not load, its shape is open, or the provider is not active.
    """
    config = config or MeasureConfig()
    samples: list[np.ndarray] = []
    shape: tuple[int, ...] = ()
    for _ in range(config.sessions):
        run, shape = _runner(model, config, provider)
        samples.append(_sample(run, config))
    return summarise(np.concatenate(samples), conditions_of(model, config, provider, shape))


def conditions_of(
    model: Path | onnx.ModelProto,
    config: MeasureConfig,
    provider: str,
    input_shape: tuple[int, ...],
    reference_ms: float = 0.0,
) -> Conditions:
    """Return the conditions under which this machine times ``model`` now."""
    return Conditions(
        device=device_name(),
        runtime=runtime_name(),
        provider=provider,
        precision="int8" if _is_quantised(model) else "fp32",
        threads=config.threads,
        batch_size=config.batch_size,
        input_shape=input_shape,
        warmup_runs=WARMUP_RUNS,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        reference_ms=reference_ms,
    )


def summarise(values_ms: np.ndarray, conditions: Conditions) -> Measurement:
    """Return the statistics of ``(n,)`` timings in milliseconds."""
    p10, q1, median, q3, p90, p99 = np.percentile(values_ms, [10, 25, 50, 75, 90, 99])
    return Measurement(
        float(median), float(p10), float(p90), float(p99), float(q3 - q1), len(values_ms),
        median_ci_percent(values_ms), conditions,
    )  # fmt: skip


def median_ci_percent(values: np.ndarray) -> float:
    """Return the width of the 95 % confidence interval of the median, in percent of the median.

    Distribution-free, from order statistics (binomial, normal approximation).
    """
    ordered, n = np.sort(values), len(values)
    reach = 1.96 * n**0.5 / 2
    low, high = max(0, int(n / 2 - reach)), min(n - 1, int(n / 2 + reach))
    return float(100.0 * (ordered[high] - ordered[low]) / np.median(values))


def _sample(run: Callable[[], object], config: MeasureConfig) -> np.ndarray:
    """Time single runs until the median is known well enough; milliseconds."""
    for _ in range(WARMUP_RUNS):
        run()
    values_ns: list[int] = []
    clock = time.perf_counter_ns
    deadline = clock() + int(config.time_limit_s * 1e9)
    next_look = config.min_runs
    while True:
        start = clock()
        run()
        end = clock()
        values_ns.append(end - start)
        if end > deadline and len(values_ns) >= 3:
            break
        if len(values_ns) >= next_look:
            if median_ci_percent(np.array(values_ns)) <= config.ci_percent:
                break
            next_look *= 2
    return np.array(values_ns) / 1e6


def _runner(
    model: Path | onnx.ModelProto, config: MeasureConfig, provider: str
) -> tuple[Callable[[], object], tuple[int, ...]]:
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise MeasurementError(
            f"provider {provider!r} is not in this onnxruntime; it has {onnxruntime.get_available_providers()}; "
            "install the package that brings it (hwnas[gpu], hwnas[openvino], hwnas[qnn])"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source: str | bytes = str(model) if isinstance(model, Path) else model.SerializeToString()
    try:
        session = onnxruntime.InferenceSession(source, options, providers=[provider])
    except Exception as error:  # ONNX Runtime raises its own classes, which share no public base
        raise MeasurementError(f"{_name(model)} does not load in ONNX Runtime: {error}") from error
    if session.get_providers()[0] != provider:
        raise MeasurementError(
            f"provider {provider!r} was asked for, but {session.get_providers()[0]!r} is active; "
            "check its driver with `hwnas doctor`"
        )
    if len(session.get_inputs()) != 1:
        raise MeasurementError(f"{_name(model)} has {len(session.get_inputs())} inputs; models with one are timed")
    first = session.get_inputs()[0]
    shape = [config.batch_size if i == 0 and not isinstance(d, int) else d for i, d in enumerate(first.shape)]
    if not all(isinstance(d, int) for d in shape):
        raise MeasurementError(
            f"{_name(model)} has input shape {first.shape} with open axes besides the batch; fix them before timing"
        )
    if shape[0] != config.batch_size:
        raise MeasurementError(f"{_name(model)} has a fixed batch of {shape[0]}, asked was {config.batch_size}")
    inputs = {first.name: np.random.default_rng(0).standard_normal(shape, dtype=np.float32)}
    outputs = [session.get_outputs()[0].name]
    return lambda: session.run(outputs, inputs), tuple(shape[1:])


def _name(model: Path | onnx.ModelProto) -> str:
    return str(model) if isinstance(model, Path) else f"model {model.graph.name!r}"


def _is_quantised(model: Path | onnx.ModelProto) -> bool:
    proto = onnx.load(str(model), load_external_data=False) if isinstance(model, Path) else model
    return any(n.op_type == "DequantizeLinear" for n in proto.graph.node)


@lru_cache(maxsize=1)
def device_name() -> str:
    """Return processor model and number of cores of this machine."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                model = line.split(":", 1)[1].strip()
                break
    return f"{model}, {os.cpu_count()} cores"


@lru_cache(maxsize=1)
def runtime_name() -> str:
    """Return ``onnxruntime-<version>``."""
    import onnxruntime

    return f"onnxruntime-{onnxruntime.__version__}"


def measure_interleaved(
    models: Sequence[Path | onnx.ModelProto], config: MeasureConfig, rounds: int,
    provider: str = "CPUExecutionProvider", task: str = "time models", progress: Progress = silent,
) -> list[Measurement]:  # fmt: skip
    """Time many models in several passes, and keep for each the pass in which the machine was quietest.

    A shared machine runs at different speeds for seconds at a time. A fixed reference block is timed before and after
    every model: the pass with the fastest reference counts, and what the reference still was slower than its best is
    taken out. The best reference time is part of the conditions, so that times of another hour can be compared.

    Args:
        models: files or models.
        config: of one model in one pass.
        rounds: passes.
        provider: as in `measure_onnx`.
        task: what ``progress`` is told.
        progress: told after every timing.
    """
    reference, _ = _runner(reference_model(config.batch_size), config, provider)
    prepared = [_runner(model, config, provider) for model in models]
    samples: list[list[np.ndarray]] = [[] for _ in models]
    references_ms: list[list[float]] = [[] for _ in models]
    before = _reference_ms(reference)
    for number in range(rounds):
        for i, (run, _) in enumerate(prepared):
            samples[i].append(_sample(run, config))
            after = _reference_ms(reference)
            references_ms[i].append(max(before, after))
            before = after
            progress(task, number * len(models) + i + 1, rounds * len(models))
    best_ms = min((min(r) for r in references_ms), default=0.0)
    out = []
    for model, (_, shape), passes, taken in zip(models, prepared, samples, references_ms, strict=True):
        quiet = [i for i, ms in enumerate(taken) if ms <= QUIET * min(taken)]
        chosen = min(quiet, key=lambda i: float(np.median(passes[i])) / taken[i])
        conditions = conditions_of(model, config, provider, shape, best_ms)
        out.append(summarise(passes[chosen] * (best_ms / taken[chosen]), conditions))
    return out


def _reference_ms(run: Callable[[], object], n: int = 15) -> float:
    """Median of a few runs of the reference block, milliseconds."""
    clock = time.perf_counter_ns
    values = []
    for _ in range(n):
        start = clock()
        run()
        values.append(clock() - start)
    return float(np.median(values[2:])) / 1e6


def reference_model(batch_size: int) -> onnx.ModelProto:
    """Return a typical small block, the same in every version: it says how fast the machine runs."""
    spec = MBConvSpec(24, 24, 14, 96, True, 5, 1, True, "hswish", True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_onnx(trace(spec.build()), spec.in_channels, spec.in_size_px, batch_size)


def profile(
    model: str | Path, threads: int = 1, batch_size: int = 1, provider: str = "CPUExecutionProvider",
    sessions: int = 3, time_limit_s: float = 2.0,
) -> Measurement:  # fmt: skip
    """Time an ONNX file on this machine, over several fresh sessions.

    Args:
        model: the file, or a bundle's folder.
        threads: intra-op threads of ONNX Runtime.
        batch_size: images in one inference.
        provider: execution provider.
        sessions: fresh sessions; memory layout, and with it the time, differs between them.
        time_limit_s: at most this long in each session.

    Raises:
        MeasurementError: no such file, or it cannot be timed.
    """
    path = Path(model)
    path = path / "model.onnx" if path.is_dir() else path
    if not path.is_file():
        raise MeasurementError(f"{path} does not exist; give an .onnx file or a model folder of a run")
    config = MeasureConfig(threads=threads, batch_size=batch_size, sessions=sessions, time_limit_s=time_limit_s)
    return measure_onnx(path, config, provider)
