"""How are models timed on devices that Qualcomm hosts? AI Hub compiles and runs them there (``hwnas[qai-hub]``).

The target ``qai-hub``; its options are ``device`` (a name of ``qai-hub list-devices``) and ``runtime``. Each model is
sent once and compiled once, and each session is a profile job of its own. The account is that of ``qai-hub configure``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx

from hwnas.errors import HostError, HwnasError, MeasurementError, PluginError, UnreadableError, one_line, shown
from hwnas.export.onnx_facts import open_onnx
from hwnas.latency.time_onnx import Burst, BurstConfig, Facts
from hwnas.reading import made_of

RUNTIMES = ("qnn_dlc", "tflite", "onnx")
MIN_RUNS = 100
"""Runs of a profile job, at least."""
US_PER_MS = 1000.0
BYTES_PER_MB = 1024.0**2


class AIHub:
    """A device that Qualcomm AI Hub hosts; a `hwnas.latency.target.Target`."""

    host = "Qualcomm AI Hub"

    def __init__(self, device: str, runtime: str = "qnn_dlc", client: Any = None) -> None:
        """Name a device; nothing is sent yet.

        Args:
            device: such as ``Samsung Galaxy S25 (Family)``.
            runtime: one of `RUNTIMES`.
            client: stands for the module ``qai_hub``; default: that module.

        Raises:
            PluginError: another runtime, or no device.
        """
        if runtime not in RUNTIMES:
            raise PluginError(f"runtime {shown(runtime, 60)} is unknown; use one of {', '.join(RUNTIMES)}")
        if not device.strip():
            raise PluginError("device is empty; give a name such as device='Samsung Galaxy S25 (Family)'")
        self.device, self.runtime = device, runtime
        self._client = client
        self.units: dict[str, dict[str, int]] = {}
        """By model: how many layers ran on which unit (``NPU``, ``GPU``, ``CPU``)."""

    def facts(self) -> Facts:
        """Return the device and the runtime; nobody is asked."""
        return Facts(self.device, f"qai-hub-{self.runtime}")

    def bursts(
        self, models: Sequence[str | bytes], names: Sequence[str], reference: bytes, config: BurstConfig,
        schedule: Sequence[tuple[int, int]],
    ) -> Iterator[Burst]:  # fmt: skip
        """Compile and time models there; the reference model is not, since hosted devices run nothing else.

        Raises:
            MeasurementError: a model does not load, is not compiled or does not run there; or cores are asked for.
            HostError: AI Hub does not answer; what was yielded before is good.
        """
        if config.cores is not None:
            raise MeasurementError(f"{self.device} cannot be pinned to cores; leave --cores out")
        compiled: dict[int, tuple[Any, tuple[int, ...]]] = {}
        for model, session in schedule:
            if model not in compiled:
                compiled[model] = self._compiled(models[model], names[model], config)
            target_model, shape = compiled[model]
            profile = self._profile(target_model, names[model], config)
            values, peak_mb = self._times(profile, names[model], config)
            for part in range(config.bursts):
                own = values[part :: config.bursts]
                yield Burst(model, session, own, 1.0, shape, peak_mb if part == 0 else None)

    # -- what AI Hub does ------------------------------------------------------------------------------------

    @property
    def _hub(self) -> Any:
        if self._client is None:
            try:
                self._client = import_module("qai_hub")
            except ImportError:
                raise PluginError("the target qai-hub needs the package qai-hub; install hwnas[qai-hub]") from None
        return self._client

    def _compiled(self, source: str | bytes, name: str, config: BurstConfig) -> tuple[Any, tuple[int, ...]]:
        """The compiled model, and the shape of its input without the batch."""
        proto = _loaded(source, name)
        first = next(v for v in proto.graph.input if v.name not in {t.name for t in proto.graph.initializer})
        shape = _shape(first, name, config)
        batch = (config.batch_size, *shape)
        model = source if isinstance(source, str) else proto
        job = self._ask(
            f"compile {name}", self._hub.submit_compile_job, model=model, device=self._hub.Device(self.device),
            input_specs={first.name: batch}, options=f"--target_runtime {self.runtime}",
        )  # fmt: skip
        made = self._ask(f"compile {name}", job.get_target_model)
        if made is None:
            raise MeasurementError(f"{name} is not compiled for {self.device}: {_why(job)}")
        return made, shape

    def _profile(self, model: Any, name: str, config: BurstConfig) -> Mapping[str, Any]:
        what, runs = f"profile {name}", max(MIN_RUNS, config.bursts * config.min_runs)
        job = self._ask(
            what, self._hub.submit_profile_job, model=model, device=self._hub.Device(self.device),
            options=f"--max_profiler_iterations {runs}",
        )  # fmt: skip
        status = self._ask(what, job.wait)
        if not getattr(status, "success", True):
            raise MeasurementError(f"{name} does not run on {self.device}: {_why(job)}")
        found = self._ask(what, job.download_profile)
        if not isinstance(found, Mapping) or not isinstance(found.get("execution_summary"), Mapping):
            raise MeasurementError(f"{name}: AI Hub gave no times; {_why(job)}")
        return found

    def _times(
        self, profile: Mapping[str, Any], name: str, config: BurstConfig
    ) -> tuple[tuple[float, ...], float | None]:  # fmt: skip
        """Milliseconds of the runs, and the peak memory in MB where it is said."""
        try:
            with made_of(name):
                times, peak_mb, self.units[name] = _read(profile)
        except UnreadableError as error:
            raise MeasurementError(
                f"{name}: AI Hub's profile cannot be read: {error.reason}; look at the job"
            ) from None
        if len(times) < config.bursts or not all(0 < t < math.inf for t in times):
            raise MeasurementError(
                f"{name}: AI Hub gave {len(times)} times, {config.bursts} positive ones are needed; look at the job"
            )
        return times, peak_mb

    def _ask(self, what: str, function: Any, **arguments: Any) -> Any:
        """Call the client; whatever it raises becomes one line."""
        try:
            return function(**arguments)
        except HwnasError:
            raise
        except Exception as error:  # the client's own errors and those of the network share no base
            said = one_line(str(error), 300) or type(error).__name__
            raise HostError(f"AI Hub could not {what}: {said}; is `qai-hub configure` done?") from error


def _read(profile: Mapping[str, Any]) -> tuple[tuple[float, ...], float | None, dict[str, int]]:
    """Milliseconds of the runs, peak memory in MB where it is said, and layers by unit."""
    summary = profile["execution_summary"]
    times = tuple(float(t) / US_PER_MS for t in summary.get("all_inference_times") or ())
    if not times and summary.get("estimated_inference_time"):
        times = (float(summary["estimated_inference_time"]) / US_PER_MS,)
    units: dict[str, int] = {}
    for layer in profile.get("execution_detail") or ():
        unit = str(layer.get("compute_unit", "not said"))
        units[unit] = units.get(unit, 0) + 1
    peak = summary.get("estimated_inference_peak_memory")
    return times, float(peak) / BYTES_PER_MB if peak else None, units


def _loaded(source: str | bytes, name: str) -> onnx.ModelProto:
    try:
        proto = open_onnx(Path(source) if isinstance(source, str) else source)
    except MeasurementError as error:
        raise MeasurementError(f"{name}: {error}") from None
    if not proto.graph.node or not proto.graph.input:
        raise MeasurementError(f"{name} does not load as ONNX: it has no operators")
    return proto


def _shape(value: onnx.ValueInfoProto, name: str, config: BurstConfig) -> tuple[int, ...]:
    """Shape without the batch: that of the model, with the asked one in place of open axes."""
    axes = [axis.dim_value for axis in value.type.tensor_type.shape.dim][1:]
    asked = config.input_shape or ()
    if len(asked) == len(axes) + 1:
        asked = asked[1:]
    if asked and len(asked) != len(axes):
        raise MeasurementError(f"{name} has an input of {len(axes)} axes behind the batch, asked were {len(asked)}")
    found = tuple(mine or (asked[i] if asked else 0) for i, mine in enumerate(axes))
    if not found or min(found) < 1:
        raise MeasurementError(f"{name} has open axes; say how large they are, such as --shape 3x224x224")
    return found


def _why(job: Any) -> str:
    """What AI Hub says of a job, and where it can be looked at."""
    try:
        said = one_line(str(getattr(job.get_status(), "message", "") or ""), 300)
    except Exception:  # noqa: BLE001 (a second failure must not hide the first)
        said = ""
    url = getattr(job, "url", "")
    return ", see ".join(filter(None, [said or "no reason given", url]))
