"""How long does an ONNX file take? Of one, or of several timed in turns; the settings are those of `hwnas profile`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwnas.arguments import checked_arguments
from hwnas.errors import MeasurementError, UnreadableError
from hwnas.export.bundle import Bundle
from hwnas.latency.device import TargetOption
from hwnas.latency.measure import MeasureConfig, measure
from hwnas.latency.measurement import Measurement
from hwnas.latency.target import Target, make_target
from hwnas.progress import Progress, silent
from hwnas.reading import made_of


@checked_arguments
def profile(
    model: str | Path, threads: int = 1, batch_size: int = 1, provider: str | None = None, sessions: int = 3,
    session_s: float = 2.5, ci_percent: float = 2.0, time_limit_s: float = 20.0,
    cores: Sequence[int] | None = None, input_shape: Sequence[int] | None = None, count_copies: bool = False,
    target: str | Target = "process", target_options: Mapping[str, TargetOption] | None = None,
    progress: Progress = silent,
) -> Measurement:  # fmt: skip
    """Time an ONNX file, over several fresh sessions; see `profile_all`."""
    return profile_all(
        [model], threads, batch_size, provider, sessions, session_s, ci_percent, time_limit_s, cores, input_shape,
        count_copies, target, target_options, progress,
    )[0]  # fmt: skip


@checked_arguments
def profile_all(
    models: Sequence[str | Path], threads: int = 1, batch_size: int = 1, provider: str | None = None, sessions: int = 3,
    session_s: float = 2.5, ci_percent: float = 2.0, time_limit_s: float = 20.0,
    cores: Sequence[int] | None = None, input_shape: Sequence[int] | None = None, count_copies: bool = False,
    target: str | Target = "process", target_options: Mapping[str, TargetOption] | None = None,
    progress: Progress = silent,
) -> list[Measurement]:  # fmt: skip
    """Time ONNX files one beside the other, over several fresh sessions each.

    Args:
        models: files, or folders of bundles.
        threads: intra-op threads of the runtime.
        batch_size: images in one inference.
        provider: execution provider; default: the target's own.
        sessions: fresh sessions at least; memory layout, and with it the time, differs between them.
        session_s: time in each session; long enough to see a processor that throttles.
        ci_percent: more sessions are added while the confidence interval of the median is wider than this ...
        time_limit_s: ... and less time than this is spent. A model that takes as long for one run is given up (without
            a limit: after a minute).
        cores: pin the process to these cores.
        input_shape: for models whose axes are open: the whole input, or what is behind its batch axis.
        count_copies: count copies to and from a GPU too.
        target: what times them, by name (see `hwnas.latency.target`) or itself; default: ONNX Runtime on this machine,
            in a process of its own.
        target_options: what a named target is made with, such as ``{"host": "user@board"}`` for ``ssh``.
        progress: told after every session.

    Raises:
        MeasurementError: no such file, or it cannot be timed; `HostError` where the target was lost.
        CheckpointError: a bundle is damaged.
        PluginError: there is no such target, or it does not take the options.
    """
    paths = [_model_file(Path(model)) for model in models]
    try:
        with made_of("settings of the measurement"):
            bursts = max(1, round(session_s / BURST_S))
            config = MeasureConfig(
                threads=threads, batch_size=batch_size, sessions=sessions, bursts=bursts, burst_s=session_s / bursts,
                ci_percent=ci_percent, time_limit_s=time_limit_s, cores=None if cores is None else tuple(cores),
                input_shape=None if input_shape is None else tuple(input_shape), count_copies=count_copies,
                limit_s=time_limit_s or RUN_LIMIT_S,
            )  # fmt: skip
    except UnreadableError as error:
        raise MeasurementError(f"{error}; give other numbers") from None
    timer = make_target(target, target_options) if isinstance(target, str) else target
    return measure(paths, config, provider, timer, f"time {paths[0].name}", progress)


BURST_S = 0.1
"""Of `profile`: the reference is timed this often."""

RUN_LIMIT_S = 60.0
"""Of `profile` without a time limit: a model that takes longer to load, or for one run, is given up."""


def _model_file(path: Path) -> Path:
    if os.path.isfile(path / "arch.json"):
        Bundle(path).check()
    path = path / "model.onnx" if os.path.isdir(path) else path
    if not os.path.isfile(path):
        raise MeasurementError(f"{path} does not exist; give an .onnx file or a model folder of a run")
    return path
