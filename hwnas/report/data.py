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
    mape_percent: float
    """At the speed that the machine had when the table was made."""
    within_10_percent: float
    spearman: float
    machine_slowdown: float
    """How much longer networks of the table took at the check than when it was made."""
    mape_percent_refitted: float | None = None
    """Of estimates whose correction was fitted again with these models, each left out in turn; None: not refitted."""


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
