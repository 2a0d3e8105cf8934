"""What does a report show? Plain values, gathered by the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


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
    """Latency in ms and validation top-1 in percent that at least one run reached, by ascending latency."""
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
    evaluated: Mapping[str, Sequence[float]]
    """``top1_percent`` and ``latency_ms`` of every arch from which the front was chosen."""
    message: str
    """How the search ended."""
    check: LatencyCheck | None = None
    weights_version: str = ""
    """Of the supernet, where the search adapted it to this device."""
    predictor: Mapping[str, str] = field(default_factory=dict)
    """How well the search could predict, in words, by objective."""
    bands: Bands | None = None
    """Over this run and others; None: the report is of one run."""


@dataclass(frozen=True)
class RunReport:
    """Everything in one report."""

    name: str
    description: str
    objectives: Sequence[str]
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
