"""What does a report show? Plain values, gathered by the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Column:
    """A value of models, and how it is called where people read it."""

    name: str
    """Key in the models' values."""
    title: str
    unit: str
    """Such as ``%`` or ``ms``; empty: none."""
    origin: str = ""
    """Where such numbers come from, in one sentence."""

    @property
    def heading(self) -> str:
        """Title and unit."""
        return f"{self.title} {self.unit}".strip()

    @property
    def axis(self) -> str:
        """The same on the axis of a plot."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


@dataclass(frozen=True)
class LatencyCheck:
    """Estimated and measured latency of the exported models."""

    keys: Sequence[str]
    predicted_ms: Sequence[float]
    measured_ms: Sequence[float]
    """As timed; see `at_table_speed_ms`."""
    mape_percent: float
    """At the speed that the machine had when the table was made."""
    within_10_percent: float
    spearman: float
    machine_slowdown: float
    """How much longer networks of the table took at the check than when it was made."""
    mape_percent_refitted: float | None = None
    """Of estimates whose correction was fitted again with these models, each left out in turn; None: not refitted."""

    @property
    def at_table_speed_ms(self) -> list[float]:
        """What was measured, at the speed that the machine had when the table was made; this is what is shown."""
        return [ms / self.machine_slowdown for ms in self.measured_ms]


@dataclass(frozen=True)
class Bands:
    """What several runs reached on one device, such as runs that differ in their seeds."""

    runs: Sequence[str]
    """Names of their folders."""
    best: Sequence[tuple[float, float]]
    """Latency in ms and validation score that at least one run reached, by ascending latency."""
    median: Sequence[tuple[float, float]]
    """That half of the runs reached."""
    worst: Sequence[tuple[float, float]]
    """That every run reached."""


@dataclass(frozen=True)
class Curve:
    """Hypervolume of score and latency over evaluations, as a share of the box that holds every evaluated arch."""

    name: str
    evaluations: Sequence[int]
    share: Sequence[float]
    """0 to 1."""
    low: Sequence[float] = ()
    """Where several repetitions were made: what nine of ten of them reached, and one of ten; else empty."""
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Removed:
    """What specialising the space to a device left out of one choice, before anything was evaluated."""

    choice: str
    kept: str
    """Options, in words."""
    removed: str


@dataclass(frozen=True)
class Pieces:
    """A network as its blocks, from input to output."""

    blocks: Sequence[tuple[str, int]]
    """Name of the slot, and the block's number in `RunReport.blocks`."""
    by_layer: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Values that are known for each slot or layer, such as introspectability: by their name, then by slot or layer,
    input to output."""
    in_8_bits: bool = False
    """Whether the search chose 8 bits for it, on devices that compute in both precisions."""


@dataclass(frozen=True)
class Stage:
    """What one model was at one step on its way into a file."""

    name: str
    """Such as ``as the supernet gave it``, ``trained to its end``, ``INT8``."""
    score: float | None = None
    """On validation images."""
    test_score: float | None = None
    latency_ms: float | None = None
    size_mb: float | None = None
    note: str = ""
    score_stderr: float | None = None
    test_stderr: float | None = None
    latency_stderr_ms: float | None = None


@dataclass(frozen=True)
class Gain:
    """What a device gets from one source of models: its own front, that of another device, or a fleet for all."""

    source: str
    limit_ms: float
    """Latency that the model keeps: that of the knee of the own front."""
    key: str = ""
    """Of the best model that keeps it; empty: the source has none, and what follows is not known."""
    latency_ms: float | None = None
    """Estimate on this device."""
    latency_error_ms: float | None = None
    """How far such estimates are off on average, by what the profile publishes."""
    measured_ms: float | None = None
    score: float | None = None
    """On validation images, in the device's precision."""
    score_stderr: float | None = None
    difference: float | None = None
    """How much better it is than the own front's; below 0: how much worse."""
    difference_stderr: float | None = None
    mean_difference: float | None = None
    """The same on average over the latencies of the own front's models, of those that the source can keep."""
    mean_stderr: float | None = None
    served_share: float = 0.0
    """Share (0 to 1) of these latencies that the source can keep."""


@dataclass(frozen=True)
class Overlay:
    """Front of another run on the same device."""

    run: str
    models: Sequence[Mapping[str, Any]]
    """Values by name, and ``key``."""


@dataclass(frozen=True)
class DeviceReport:
    """One device: what its numbers rest on, and what was found."""

    name: str
    title: str
    kind: str
    origin: str
    source: str
    licence: str
    runtime: str
    precision: str
    notes: Sequence[str]
    error: Mapping[str, Any] | None
    """Published error of the profile."""
    models: Sequence[Mapping[str, Any]]
    """Members of the front by ascending latency: values by name, ``key``, and ``shape`` (the arch in short)."""
    evaluated_scores: Sequence[float]
    """Of every arch from which the front was chosen."""
    evaluated_ms: Sequence[float]
    """Latencies of the same archs."""
    message: str
    """How the last search ended."""
    warnings: Sequence[str] = ()
    """Sentences without their full stop: `hwnas.runs.front.SearchedDevice.warnings`."""
    limits: Sequence[str] = ()
    """That the models keep."""
    check: LatencyCheck | None = None
    weights_version: str = ""
    """Of the supernet that the last search adapted to this device; empty: the trained one."""
    predictor: Mapping[str, str] = field(default_factory=dict)
    """How well the search could predict, in words, by objective."""
    by_hand: Sequence[tuple[float, float]] = ()
    """Latency in ms and validation score of networks scaled by hand and trained alone, where they were."""
    bands: Bands | None = None
    """Over this run and others; None: the report is of one run."""
    overlays: Sequence[Overlay] = ()
    """Fronts of other runs on this device."""
    evaluated: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Further values of the same archs as `evaluated_ms`, by name."""
    block_ms: Sequence[float] = ()
    """What each of `RunReport.blocks` adds to a network on this device; empty: not known."""
    constant_ms: float = 0.0
    """What every network pays once."""
    block_ms_in_8_bits: Sequence[float] = ()
    """The same of models in 8 bits, where the search chose the precision; empty: all models have that of the device."""
    constant_ms_in_8_bits: float = 0.0
    unfitted: Sequence[float] = ()
    """For each model, the share (0 to 1) of its latency that rests on constants which were not fitted to measurements
    of such operators, or on sizes that were interpolated."""
    curves: Sequence[Curve] = ()
    removed: Sequence[Removed] = ()
    removed_note: str = ""
    """How much smaller the space became."""
    stages: Mapping[str, Sequence[Stage]] = field(default_factory=dict)
    """By the key of a model."""
    commands: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    """By the key of a model: what a command does, and the command, with ``{run}`` for the folder of the page."""
    gains: Sequence[Gain] = ()
    """What the device gets from its own front and from elsewhere; empty: there is no other source."""


@dataclass(frozen=True)
class Decision:
    """Something that whoever wrote the recipe, or used the run, decided."""

    what: str
    """Name of the setting or of the act."""
    value: str
    default: str
    """What holds where nobody decides; empty: there is no default."""
    is_setting: bool = True
    """Of the recipe; else something that was started or added by hand."""


@dataclass(frozen=True)
class RunReport:
    """Everything in one report."""

    name: str
    description: str
    objectives: Sequence[str]
    columns: Sequence[Column]
    """Of the tables of models."""
    score: Column
    """What models are compared by, beside their latency."""
    space_size: int
    n_evaluated: int
    images: Mapping[str, int]
    """Images by split."""
    devices: Sequence[DeviceReport]
    shared: Mapping[str, int]
    """Models that fronts have in common, by ``device & device``."""
    training: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    """``phase``, ``step``, ``loss`` of every step."""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    score_stderr: str = ""
    """Key of the score's standard error in the models' values; empty: there is none."""
    score_direction: str = "max"
    """Whether a larger score is better, or a smaller one (``min``)."""
    blocks: Sequence[Mapping[str, Any]] = ()
    """Every different block of the models, its ``kind`` and its columns."""
    pieces: Mapping[str, Pieces] = field(default_factory=dict)
    """By the key of a model."""
    decisions: Sequence[Decision] = ()
    differences: Sequence[tuple[str, Sequence[str]]] = ()
    """Settings in which this run and the others differ: name, and the value in each run, this one's first."""
    runs: Sequence[str] = ()
    """Names of this run and of the others; empty: the report is of one run."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Of the ``weights``, of what they ``start`` with, and of the ``data``."""
