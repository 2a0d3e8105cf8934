"""What is known about a target device, and where does that knowledge come from?"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from hwnas.errors import DeviceError, UnreadableError, did_you_mean, shown
from hwnas.files import shipped_folder, write_text
from hwnas.latency.cost_model import CostModel, OpKind
from hwnas.reading import read_yaml

PROFILE_FILE = "profile.yaml"

NAME_PATTERN = r"^[a-z0-9]+(-[a-z0-9]+)*$"

TargetOption = str | int | float | bool
"""Value of one option of a target."""

_Count = Annotated[int, Field(ge=1, le=2**31)]
"""Threads, images, networks: a larger count is a slip."""
_Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
_Ms = Annotated[float, Field(ge=-1e9, le=1e9)]
"""Milliseconds: at most twelve days."""
_Text = Annotated[str, Field(min_length=1, max_length=4000)]
"""A few sentences: what is said of a device is printed."""
_Size = Annotated[float, Field(gt=0, le=2**40, allow_inf_nan=False)]
"""KiB of a memory: at most a petabyte."""


BEYOND = 1.5
"""A latency that many times below the fastest or above the slowest measured network is not like any of them."""


class ProfileError(BaseModel):
    """How far the profile is from measured latencies, on named networks that no constant was fitted to."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, str_max_length=10_000)

    networks: _Text
    """Which networks, in words."""
    n_held_out: _Count
    """Networks (or blocks) held out."""
    seed: int
    """Seed of the split."""
    mape_percent: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Mean absolute relative error, percent."""
    within_5_percent: _Percent
    """Share of networks predicted within 5 % of the measurement, percent."""
    within_10_percent: _Percent
    """Share of networks predicted within 10 % of the measurement, percent."""
    r2: Annotated[float, Field(le=1, allow_inf_nan=False)]
    """Coefficient of determination; 1 is exact, at most 0 is no better than the mean."""
    spearman: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
    """Rank correlation of predicted and measured latency."""
    kendall: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None
    """Kendall's tau of the two, where it was computed."""
    mape_percent_by_family: (
        Annotated[dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(max_length=200)] | None
    ) = None
    """Mean absolute relative error of each family of networks, percent, where families are known."""
    fastest_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Measured latency of the fastest of the networks, where it is known."""
    slowest_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Of the slowest of them."""

    def covers(self, latency_ms: float) -> bool:
        """Say whether networks that take about so long are among those of the error; without a known range: yes."""
        fastest, slowest = self.fastest_ms or 0.0, self.slowest_ms or math.inf
        return fastest / BEYOND <= latency_ms <= slowest * BEYOND

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in dump(self).items() if v is not None}


def beyond_measured(error: ProfileError | None, latencies_ms: Sequence[float]) -> str:
    """Say which of the latencies that a profile estimates are unlike those of all networks that it was judged by.

    Args:
        error: of the profile; None: nothing is published.
        latencies_ms: of models.

    Returns:
        A sentence or two; empty where there is nothing to say.
    """
    outside = [ms for ms in latencies_ms if error is not None and not error.covers(ms)]
    if error is None or not outside:
        return ""
    span = f"{min(outside):.3g}" if min(outside) == max(outside) else f"{min(outside):.3g} to {max(outside):.3g}"
    return (
        f"{len(outside)} of {len(latencies_ms)} latencies are estimated at {span} ms, but the networks that the "
        f"profile was judged by take {error.fastest_ms:.3g} to {error.slowest_ms:.3g} ms: how far off such estimates "
        "are is not known; time an exported model on the device"
    )


class Correction(BaseModel):
    """How block times add up to a whole network: fitted on whole networks timed on the device.

    ``network = constant_ms + sum over blocks (scale * block_ms + per_block_ms + border_ms_per_melement * border +
    weight_ms_per_melement * weights)``. A block that is timed alone also pays for the call and for changing the memory
    layout of its input and output (``border``, millions of elements); inside a network it does not. Its weights
    (millions) stay in the cache when it is timed alone; inside a network they have to be read again.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, str_max_length=10_000)

    scale: Annotated[float, Field(gt=0, le=1e6)]
    per_block_ms: _Ms
    constant_ms: _Ms
    border_ms_per_melement: Annotated[float, Field(ge=-1e9, le=0)] = 0.0
    weight_ms_per_melement: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    n_networks: _Count
    """Whole networks that the constants were fitted to."""

    def block_ms(self, alone_ms: float, border_melements: float, weight_melements: float) -> float:
        """Return what a block adds to a network, from its time alone and its sizes."""
        return (
            self.scale * alone_ms + self.per_block_ms
            + self.border_ms_per_melement * border_melements + self.weight_ms_per_melement * weight_melements
        )  # fmt: skip


class DeviceProfile(BaseModel):
    """One target device: conditions that its latencies hold for, their origin, and a cost model if any.

    Read from ``profile.yaml`` of a folder; ``latency_tables/README.md`` is the schema in prose.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, str_max_length=10_000)

    format: Literal[1]
    """Version of the file format."""
    name: Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)]
    """Lower case, digits and hyphens; a shipped profile's folder has this name."""
    title: _Text
    """The device in a few words."""
    kind: Literal["cpu", "gpu", "dsp", "vpu", "npu", "fpga"]
    runtime: _Text
    """What executes the network, with its version where the source states one."""
    precision: _Text
    """Number format of weights and activations, such as ``fp32`` or ``int8``."""
    provider: str | None
    """Execution provider of the target; null: what it uses by default, or a target without providers."""
    threads: Annotated[int, Field(ge=1, le=4096)] | None
    """Threads on the host; null where it does not apply or the source does not say."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)]
    """Images in one inference."""
    origin: Literal["measured", "imported", "modelled"]
    """``measured`` by hwnas, ``imported`` from others, ``modelled`` by the fitted cost model."""
    source: _Text
    """Whose measurements the numbers rest on."""
    licence: _Text
    """Licence of the source."""
    error: ProfileError | None
    """Published error; null where nothing has been published yet."""
    family_error: ProfileError | None = None
    """Error on networks of families that no constant was fitted to, each family left out once; left out of files where
    families are not known."""
    cost_model: CostModel | None
    """Fitted cost model that fills missing rows; null: every row must be measured."""
    correction: Correction | None = None
    """Of a measured table; null: block times are added as they are."""
    interpolation: ProfileError | None = None
    """Error on networks at resolutions whose blocks were interpolated; null: every block was measured."""
    conditions: Annotated[dict[str, str | int | float], Field(max_length=100)] | None = None
    """Of a measured table: processor, runtime version, threads, date, ..., as `hwnas.latency.conditions.Conditions`."""
    target: _Text = "onnxruntime"
    """What times models for this device, by its name in `hwnas.latency.target.TARGETS`; left out of files where it is
    ONNX Runtime on the machine that hwnas runs on."""
    target_options: Annotated[dict[str, TargetOption], Field(max_length=100)] = {}
    """What the target is made with, such as ``{"host": "user@board"}``; left out of files where there are none."""
    memory_kib: _Size | None = None
    """What feature maps may take; a search of the device keeps ``peak_memory_kib`` within it. Left out of files where
    it is not known or no limit, as are those that follow."""
    flash_kib: _Size | None = None
    """What weights may take; a search keeps ``model_size_kib`` within it."""
    falls_back: dict[OpKind, _Text] = {}
    """Kinds of operators that the runtime runs elsewhere than on the device, and where, with the evidence."""
    unsupported: dict[OpKind, _Text] = {}
    """Kinds of operators that the runtime does not run at all, with the evidence."""
    in_8_bits: Annotated[str, Field(pattern=NAME_PATTERN, max_length=100)] | None = None
    """The profile of the same device where it computes in 8 bits: a shipped name, or a folder beside this one. A search
    can then choose the precision of every arch (``supernet.precisions``). Left out of files where there is none."""
    device_commands: Annotated[tuple[_Text, ...], Field(strict=False, max_length=20)] = ()
    """Command lines of the vendor's tools that take an exported model on to the device, for its model card; ``{shape}``
    stands for ``1,3,32,32`` and ``{shape_x}`` for ``1x3x32x32``, the shape of the input. Left out of files where there
    are none."""
    notes: Annotated[tuple[_Text, ...], Field(strict=False, max_length=200)]
    """Assumptions and limits that a reader of the numbers must know."""

    @property
    def missing_operators(self) -> tuple[str, ...]:
        """What the runtime runs elsewhere or not at all, a sentence for each kind of operator."""
        return (
            *(f"{kind} falls back: {where}" for kind, where in self.falls_back.items()),
            *(f"{kind} is not supported: {why}" for kind, why in self.unsupported.items()),
        )

    @property
    def limits(self) -> dict[str, float]:
        """Largest values of archs that fit on the device, by the name of the value; empty where nothing is known."""
        given = {"peak_memory_kib": self.memory_kib, "model_size_kib": self.flash_kib}
        return {name: size for name, size in given.items() if size is not None}

    @model_serializer(mode="wrap")
    def _without_the_usual_target(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        if self.target == "onnxruntime":
            values.pop("target", None)
        if not self.target_options:
            values.pop("target_options", None)
        for name in (
            "family_error",
            "memory_kib",
            "flash_kib",
            "falls_back",
            "unsupported",
            "in_8_bits",
            "device_commands",
        ):
            if getattr(self, name) in (None, {}, ()):
                values.pop(name, None)
        return values

    @model_validator(mode="after")
    def _modelled_has_a_model(self) -> DeviceProfile:
        if self.origin == "modelled" and (self.cost_model is None or self.error is None):
            raise ValueError("origin is 'modelled', so cost_model and error must be given")
        return self


def check_profile(values: dict[str, Any], where: str) -> DeviceProfile:
    """Return the profile that plain values describe.

    Raises:
        DeviceError: a field is wrong; it is named.
    """
    try:
        return DeviceProfile.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "profile"
        given = "" if isinstance(first["input"], dict) else f", got {shown(first['input'])}"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise DeviceError(f"{where}: {field}: {first['msg']}{given}{more}") from None


def device_name_of(folder: str | Path, name: str | None = None) -> str:
    """Return the name of a device that is about to be written: the given one, else that of its folder.

    Raises:
        DeviceError: it has other characters than lower-case letters, digits and hyphens.
    """
    found = Path(folder).resolve().name if name is None else name
    if len(found) > 100 or not re.fullmatch(NAME_PATTERN, found):
        where = f"the folder is called {found!r}, which" if name is None else f"{found!r}"
        raise DeviceError(
            f"{where} is no name of a device: lower-case letters, digits and single hyphens are allowed; give one, "
            "such as --name my-cpu"
        )
    return found


def write_profile(profile: DeviceProfile, folder: Path) -> None:
    """Write ``profile.yaml`` of a device folder."""
    values = profile.model_dump(mode="json")
    write_text(folder / PROFILE_FILE, yaml.safe_dump(values, sort_keys=False, width=110, allow_unicode=True))


def shipped_devices() -> list[str]:
    """Return the names of the device profiles that ship with hwnas, sorted."""
    return sorted(path.parent.name for path in shipped_folder("latency_tables").glob(f"*/{PROFILE_FILE}"))


def devices() -> list[DeviceProfile]:
    """Return the device profiles that ship with hwnas, by name."""
    return [load_profile(name) for name in shipped_devices()]


def device_folder(name_or_folder: str | Path) -> Path:
    """Return the folder of a profile, given the name of a shipped device or a folder that holds a profile.

    A folder wins over a shipped device of the same name only where it is written as a path (``./edge-tpu``).

    Raises:
        DeviceError: neither a shipped name nor a folder with ``profile.yaml``.
    """
    given = str(name_or_folder)
    names = shipped_devices()
    if given in names:
        return shipped_folder("latency_tables") / given
    folder = Path(name_or_folder)
    if os.path.isfile(folder / PROFILE_FILE):  # False, too, where the name is too long
        return folder
    raise DeviceError(
        f"device {shown(given)} is unknown; shipped devices are {', '.join(names)}; "
        f"or give a folder that holds a {PROFILE_FILE} (`hwnas tables build` and `fit` make one)"
        f"{did_you_mean(given[:100], names)}"
    )


def load_profile(name_or_folder: str | Path) -> DeviceProfile:
    """Return the profile of a shipped device or of a folder.

    Args:
        name_or_folder: name of a shipped device (`shipped_devices`) or a folder with ``profile.yaml``.

    Raises:
        DeviceError: the device is unknown, or its profile is damaged (file and field are named).
    """
    path = device_folder(name_or_folder) / PROFILE_FILE
    try:
        values = read_yaml(path)
    except UnreadableError as error:
        raise DeviceError(f"{path}: cannot be read as YAML: {error.reason}; restore the file") from None
    if not isinstance(values, dict):
        raise DeviceError(f"{path}: must hold a mapping of fields, got {type(values).__name__}")
    profile = check_profile(values, str(path))
    if path.parent.parent == shipped_folder("latency_tables") and profile.name != path.parent.name:
        raise DeviceError(f"{path}: name is {profile.name!r}, but the folder is {path.parent.name!r}")
    return profile
