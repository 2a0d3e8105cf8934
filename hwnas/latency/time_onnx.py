"""How long do ONNX models take in ONNX Runtime, on the machine that runs this file?

The file needs numpy and onnxruntime only, nothing of hwnas. hwnas calls `bursts` to time models on its own machine; for
another machine it copies this file there and runs ``python time_onnx.py JOB.json``, which prints one JSON value a line.
So what is timed, and how, is the same in both places.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

CPU = "CPUExecutionProvider"
DEVICE_MEMORY = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
"""Providers whose tensors lie in memory of their own, with ONNX Runtime's name for it."""
EXACT_8_BITS = ("session.x64quantprecision", "1")
"""As in `hwnas.export.onnx_check`: what is timed adds products of 8 bits as it does where its answers are looked at."""
REFERENCE = -1
"""In place of a model's number: the reference model."""
REFERENCE_EVERY_S = 0.1
"""The reference model is timed again when this much time has passed."""
REFERENCE_BURST_S = 0.003
REFERENCE_RUNS = 10
MIN_WARMUP_RUNS = 3
OWN_SHARE = 0.95
"""A burst with less processor time than this share of the time that passed is taken again ..."""
TRIES = 3
"""... this often at most."""


class TimingError(Exception):
    """A model that cannot be timed, in one line."""


@dataclass(frozen=True)
class Facts:
    """What a target is: latencies of targets that differ in one of these are not compared."""

    device: str
    """Such as processor model and number of cores."""
    runtime: str
    """What executes the models, with its version, such as ``onnxruntime-1.31.1``."""
    provider: str = ""
    """Execution provider that is used where none is asked for; empty: the target has no providers to choose from."""
    cores: str = ""
    """Cores that the process may use, such as ``0,1``; empty where that is not known. They may differ."""


@dataclass(frozen=True)
class BurstConfig:
    """How a target times models."""

    provider: str
    """Execution provider; empty for a target without providers."""
    burst_s: tuple[float, ...]
    """Seconds of one burst, for each model."""
    threads: int = 1
    batch_size: int = 1
    bursts: int = 1
    """Bursts of runs in each session."""
    min_runs: int = 5
    """Runs that a burst has at least."""
    warmup_runs: int = 10
    """Runs of a fresh session that are not counted."""
    cores: tuple[int, ...] | None = None
    """Cores that the process may use; None: as it is."""
    count_copies: bool = False
    """Count copies to and from the memory of a GPU too."""
    input_shape: tuple[int, ...] | None = None
    """For models whose axes are open: the whole input, or what is behind its batch axis."""
    limit_s: float = 0.0
    """A model that takes longer to load, or for its first run, is given up; 0: no limit. Only a process of its own can
    give up (`main`)."""


@dataclass(frozen=True)
class Burst:
    """Runs of one model in a row, in one session."""

    model: int
    """Number of the model; `REFERENCE` for the reference model."""
    session: int
    """Which fresh session of the model."""
    values_ms: tuple[float, ...]
    cpu_share: float
    """Processor time of this process, of the time that passed; below 1, somebody else was running and the burst counts
    less. 1 from a target whose timings do not depend on a core of the host."""
    input_shape: tuple[int, ...] = ()
    """Without the batch: channels, height, width, or in the order of the model."""
    peak_memory_mb: float | None = None
    """What the session added to the process' memory at most; None where the system does not say."""


@dataclass(frozen=True)
class Runner:
    """A session that is ready to run."""

    run: Callable[[], object]
    input_shape: tuple[int, ...]
    end_profiling: Callable[[], str] = str
    """Writes the profile of the runs so far, where one was asked for, and returns its file; else empty."""


@dataclass(frozen=True)
class Clock:
    """What is read to time something; tests put other clocks here."""

    wall_ns: Callable[[], int] = time.perf_counter_ns
    cpu_ns: Callable[[], int] = time.process_time_ns


def facts() -> Facts:
    """Return processor, runtime and usable cores of this machine."""
    import onnxruntime

    return Facts(device_name(), f"onnxruntime-{onnxruntime.__version__}", CPU, usable_cores())


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


def usable_cores() -> str:
    """Return the cores that this process may use, such as ``0,1``; empty where the system does not say."""
    return ",".join(map(str, sorted(os.sched_getaffinity(0)))) if hasattr(os, "sched_getaffinity") else ""


@contextmanager
def pinned(cores: Sequence[int] | None) -> Iterator[None]:
    """Let this process use only ``cores`` for a while; None: leave it as it is.

    Raises:
        TimingError: there are no such cores, or the system cannot pin.
    """
    if not cores:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise TimingError("this system cannot pin a process to cores; leave cores out")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except OSError:
        raise TimingError(f"cannot use cores {list(cores)}; usable are {sorted(before)}") from None
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def open_session(source: str | bytes, name: str, config: BurstConfig, profile_prefix: str = "") -> Runner:
    """Return a session of a model on random input.

    Args:
        source: file or serialised model, with one input ``(batch, ...)``.
        name: of the model, for messages.
        config: how.
        profile_prefix: path and first letters of a file that receives ONNX Runtime's own profile of the runs; empty:
            none is made.

    Raises:
        TimingError: it does not load, its shape is open, or the provider is not really active.
    """
    import onnxruntime

    provider = config.provider
    if provider not in onnxruntime.get_available_providers():
        raise TimingError(
            f"provider {provider!r} is not in this onnxruntime; it has {onnxruntime.get_available_providers()}; "
            "install the package that brings it (hwnas[gpu], hwnas[openvino], hwnas[qnn])"
        )
    session = _session(source, name, config, profile_prefix)
    if session.get_providers()[0] != provider:
        raise TimingError(
            f"provider {provider!r} was asked for, but {session.get_providers()[0]!r} is active; "
            "check its driver with `hwnas doctor`"
        )
    if len(session.get_inputs()) != 1:
        raise TimingError(f"{name} has {len(session.get_inputs())} inputs; models with one are timed")
    first = session.get_inputs()[0]
    shape, n_batch_axes = _shape(first.shape, name, config)
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
             "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}  # fmt: skip
    if first.type not in types:
        raise TimingError(f"{name} takes {first.type}; known are {', '.join(types)}")
    try:
        noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        values = noise.astype(types[first.type])
    except (MemoryError, ValueError):
        raise TimingError(
            f"an input of {_text(shape)} for {name} does not fit into memory; give a smaller one"
        ) from None
    outputs = [o.name for o in session.get_outputs()]
    inputs = {first.name: values}

    def run() -> object:
        return session.run(outputs, inputs)

    if provider in DEVICE_MEMORY and not config.count_copies:
        # The input lies on the device and the outputs stay there; a run ends when the device is done.
        binding = session.io_binding()
        binding.bind_ortvalue_input(
            first.name, onnxruntime.OrtValue.ortvalue_from_numpy(values, DEVICE_MEMORY[provider], 0)
        )
        for output in outputs:
            binding.bind_output(output, DEVICE_MEMORY[provider])

        def run() -> object:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return None

    failure = _failure(run)
    if failure is not None and provider == CPU:
        # On x86 without VNNI, ONNX Runtime 1.32 cannot add exactly where weights have scales but no zero points.
        session = _session(source, name, config, profile_prefix, exact=False)
        failure = _failure(run)
    if failure is not None:
        hint = "; was it exported for another batch? Try --batch-size 1" if config.batch_size > 1 else ""
        raise TimingError(f"{name} does not run with input {_text(shape)}: {_reason(failure)}{hint}") from failure
    return Runner(run, tuple(shape[n_batch_axes:]), session.end_profiling)


def _session(source: str | bytes, name: str, config: BurstConfig, profile_prefix: str, exact: bool = True) -> Any:
    """An ONNX Runtime session; ``exact``: with `EXACT_8_BITS`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry(*EXACT_8_BITS)
    if profile_prefix:
        options.enable_profiling = True
        options.profile_file_prefix = profile_prefix
    try:
        return onnxruntime.InferenceSession(source, options, providers=[config.provider])
    except Exception as error:
        raise TimingError(f"{name} does not load in ONNX Runtime: {_reason(error)}") from error


def _failure(run: Callable[[], object]) -> Exception | None:
    """What goes wrong in one run; ONNX Runtime raises classes of its own, which share no public base."""
    try:
        run()
    except Exception as error:  # noqa: BLE001
        return error
    return None


def _shape(declared: Sequence[Any] | None, name: str, config: BurstConfig) -> tuple[list[int], int]:
    """The input shape to run with, and how many batch axes it has, 0 or 1.

    It is the model's, with the batch and the asked shape in place of open axes, which models declare as a name, as 0,
    as -1 or not at all. Whole shapes and those behind the batch axis are told apart by their number of axes.
    """
    axes = [d if isinstance(d, int) and d > 0 else None for d in declared or ()]
    asked, batch = config.input_shape, config.batch_size
    if asked is not None and min(asked, default=0) < 1:
        raise TimingError(f"--shape {_text(asked)}: an axis has at least 1 entry")
    if not axes:
        if asked is None:
            raise TimingError(f"{name} does not say how many axes its input has; give it whole: --shape 1x3x224x224")
        axes = [None] * len(asked)
        batched = len(asked) not in UNBATCHED
    else:
        batched = axes[0] is None or len(axes) not in UNBATCHED
    shown = _text([d if mine is None else mine for d, mine in zip(declared or axes, axes, strict=True)])
    if asked is None:
        wanted = [batch if batched else axes[0], *axes[1:]]
    elif len(asked) == len(axes):
        wanted = list(asked)
        if batched and asked[0] != batch:
            raise TimingError(
                f"--shape {_text(asked)} has a batch of {asked[0]}, asked was a batch of {batch}; "
                f"give --batch-size {asked[0]}, or --shape {_text(asked[1:])}"
            )
    elif batched and len(asked) == len(axes) - 1:
        wanted = [batch, *asked]
    else:
        raise TimingError(
            f"{name} has an input of {len(axes)} axes, {shown}; --shape {_text(asked)} has {len(asked)}; "
            f"give --shape {_example(axes)}"
        )
    if None in wanted:
        raise TimingError(
            f"{name} has input shape {shown} with open axes besides the batch; say how large they are, such as "
            f"--shape {_example(axes[1:] if batched else axes)}"
        )
    if batch != 1 and not batched:
        raise TimingError(f"{name} takes {shown}, one image a call: it has no batch axis; leave --batch-size out")
    for axis, (mine, its) in enumerate(zip(wanted, axes, strict=True)):
        if its is None or mine == its:
            continue
        if axis == 0 and batched:
            raise TimingError(f"{name} has a fixed batch of {its}, asked was {mine}; give --batch-size {its}")
        raise TimingError(
            f"{name} has {its} in axis {axis} of its input {shown}, asked was {_text(wanted)}; "
            f"give --shape {_example(axes[1:] if batched else axes)}"
        )
    return [int(d) for d in wanted if d is not None], int(batched)


UNBATCHED = (1, 3)
"""An input with so many axes has no batch axis, unless its first axis is open: one image, or one row of values."""


def _example(axes: Sequence[int | None]) -> str:
    """A shape to give for these axes: 224 pixels, or a batch of 1, where they are open."""
    return _text([(1 if i == 0 and len(axes) > 3 else 224) if d is None else d for i, d in enumerate(axes)])


def _text(shape: Sequence[Any]) -> str:
    return "x".join("?" if d is None else str(d) for d in shape)


def _reason(error: Exception) -> str:
    """What ONNX Runtime says, in one line, without where in its source it stands."""
    text = " ".join(str(error).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"\S+\.(?:h|cc|cpp)(?::\d+)? [\w:~<>]+(?:\([^()]*\))?(?: const)? ?", "", text)
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."


MAX_REASON = 300
"""Characters of a runtime's message that are passed on."""


def bursts(
    models: Sequence[str | bytes], names: Sequence[str], reference: str | bytes, config: BurstConfig,
    schedule: Sequence[tuple[int, int]], clock: Clock | None = None,
) -> Iterator[Burst]:  # fmt: skip
    """Time models as the schedule says, with the reference model between them.

    A burst in which another process used the core is taken again, at most twice.

    Args:
        models: files or serialised models.
        names: of the models, for messages.
        reference: a small fixed model that says how fast the machine is running.
        config: how.
        schedule: (number of the model, number of its session), in order; each is one fresh session.
        clock: default: the machine's.

    Raises:
        TimingError: see `open_session`.
    """
    clock = clock or Clock()
    gc.collect()  # once: in a process with many objects it takes as long as timing dozens of small models
    with pinned(config.cores):
        speed = open_session(reference, "the reference model", replace(config, input_shape=None))
        yield _burst(speed, REFERENCE, 0, REFERENCE_BURST_S, REFERENCE_RUNS, config.warmup_runs, clock)
        last_ns = clock.wall_ns()
        for model, number in schedule:
            memory = _PeakMemory()
            with _ended_after(config.limit_s, names[model]):
                opened = open_session(models[model], names[model], config)
            for part in range(config.bursts):
                if clock.wall_ns() - last_ns > REFERENCE_EVERY_S * 1e9:
                    yield _burst(speed, REFERENCE, 0, REFERENCE_BURST_S, REFERENCE_RUNS, MIN_WARMUP_RUNS, clock)
                    last_ns = clock.wall_ns()
                warmup = config.warmup_runs if part == 0 else MIN_WARMUP_RUNS
                for _ in range(TRIES):
                    made = _burst(opened, model, number, config.burst_s[model], config.min_runs, warmup, clock)
                    if config.provider != CPU or made.cpu_share >= OWN_SHARE:
                        break
                    warmup = MIN_WARMUP_RUNS  # somebody else was running; perhaps not for long
                yield replace(made, peak_memory_mb=memory.peak_mb()) if part == 0 else made
            del opened  # what it took must not count as there before the next one
        yield _burst(speed, REFERENCE, 0, REFERENCE_BURST_S, REFERENCE_RUNS, MIN_WARMUP_RUNS, clock)


def _burst(
    runner: Runner, model: int, session: int, burst_s: float, min_runs: int, warmup_runs: int, clock: Clock
) -> Burst:
    """Warm up, then time single runs for ``burst_s`` and at least ``min_runs``.

    A warm-up of a slow model ends when it has taken as long as the burst.
    """
    wall, run = clock.wall_ns, runner.run
    deadline = wall() + int(burst_s * 1e9)
    for done in range(warmup_runs):
        run()
        if done + 1 >= MIN_WARMUP_RUNS and wall() > deadline:
            break
    values_ns: list[int] = []
    cpu_before, before = clock.cpu_ns(), wall()
    deadline = before + int(burst_s * 1e9)
    while True:
        start = wall()
        run()
        end = wall()
        values_ns.append(end - start)
        if end >= deadline and len(values_ns) >= min_runs:
            break
    share = (clock.cpu_ns() - cpu_before) / max(1, wall() - before)
    return Burst(model, session, tuple(v / 1e6 for v in values_ns), round(share, 4), runner.input_shape)


class _PeakMemory:
    """Memory that a process takes at most from here on (Linux; elsewhere it is not known)."""

    def __init__(self) -> None:
        self.before_kb = None
        _give_back()
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak so far
            self.before_kb = self._kb("VmRSS")
        except OSError:
            pass

    def peak_mb(self) -> float | None:
        """Return the peak since the object was made, above what there was then."""
        return None if self.before_kb is None else round(max(0, self._kb("VmHWM") - self.before_kb) / 1024, 1)

    @staticmethod
    def _kb(field: str) -> int:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(field):
                return int(line.split()[1])
        return 0


def _give_back() -> None:
    """Give memory that was freed back to the system: the next model would take it, and seem to need none (glibc)."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def _ended_after(limit_s: float, name: str) -> Iterator[None]:
    """End this process where what is done inside takes longer: nothing else stops a runtime that does not return."""
    if not limit_s:
        yield
        return

    def end() -> None:
        tell(
            error=f"{name} took longer than {limit_s:g} s to load, or for one run; raise --time-limit if it is so slow"
        )
        os._exit(2)

    tell(opens=name)
    timer = threading.Timer(limit_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def tell(**values: Any) -> None:
    """Print one JSON value; the process that started this one reads it."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def main(path: str) -> int:
    """Do the job of a JSON file; every line printed is one JSON value, the last says whether all is done."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    here = Path(path).parent

    try:
        tell(facts=asdict(facts()))
        if "schedule" not in job:
            return 0
        models = [str(here / name) for name in job["models"]]
        schedule = [(int(m), int(s)) for m, s in job["schedule"]]
        values = job["config"]
        as_tuples = {
            k: tuple(values[k]) if values[k] is not None else None for k in ("burst_s", "cores", "input_shape")
        }
        config = BurstConfig(**{**values, **as_tuples})
        for burst in bursts(models, job["names"], str(here / job["reference"]), config, schedule):
            tell(burst=asdict(burst))
    except TimingError as error:
        tell(error=" ".join(str(error).split()))
        return 2
    except ImportError as error:
        tell(error=f"{platform.node()} lacks a package: {error}; install numpy and onnxruntime there")
        return 2
    tell(done=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
