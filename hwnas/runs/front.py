"""What does a run give for one device? Its front: the models that no other model of the run beats."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import ExportError, OutputError, ResumeError, SearchError, SpaceError, UnreadableError
from hwnas.export.bundle import Bundle, check_replaceable
from hwnas.files import csv_text, make_folder, write_text
from hwnas.latency.device import beyond_measured
from hwnas.latency.table import Device
from hwnas.objectives import Objective, as_losses
from hwnas.pareto import choose_subset, non_dominated
from hwnas.reading import csv_rows, made_of, read_text, sha256_of, unquoted
from hwnas.runs.history import DeviceSearch
from hwnas.runs.select import Measures, Selection, selected, within
from hwnas.search.limits import Limit
from hwnas.space import Arch, check_key
from hwnas.task import Score

MEASURED = "measured_latency_ms"
"""Column of latencies that were measured on exported models; it ranks a front where it is known."""


@dataclass(frozen=True)
class FrontModel:
    """One model of a front."""

    device: str
    key: str
    values: dict[str, float]
    """By name, in own units; scores are those on validation images."""
    folder: Path
    """Of its bundle; exists once the run has exported it."""
    weights_version: str = ""
    """Of the supernet, where the front does not consist of the trained weights alone."""

    @property
    def latency_ms(self) -> float:
        """Measured latency of the exported model where it is known, else the estimate that was searched with."""
        return self.values.get(MEASURED, self.values["latency_ms"])

    def value(self, name: str) -> float:
        """Return a value by name; ``latency_ms`` is the measured latency where it is known.

        Raises:
            SearchError: the model has no such value.
        """
        if name == "latency_ms":
            return self.latency_ms
        if name not in self.values:
            raise SearchError(f"models of {self.device} have no value {name!r}; they have {', '.join(self.values)}")
        return self.values[name]

    def export(self, out: str | Path) -> Bundle:
        """Copy the bundle to ``out/<device>/<key>`` and return it.

        Raises:
            ExportError: the run has not exported it yet.
            CheckpointError: the bundle is damaged.
            OutputError: ``out`` cannot be written, or holds another bundle of this name, which stays.
        """
        if not self.folder.is_dir():
            raise ExportError(f"model {self.key} has no bundle at {self.folder}; run `hwnas export` first")
        Bundle(self.folder).check()
        return copy_bundle(self.folder, Path(out) / self.device / self.key)


@dataclass(frozen=True)
class Front(Sequence[FrontModel]):
    """The models of one device, by ascending latency."""

    device: str
    models: tuple[FrontModel, ...]
    score: Score
    """Of the task; names the value by which models are compared with their latency."""
    directions: Mapping[str, Literal["min", "max"]] = field(default_factory=dict)
    """Of the values that its search looked at: whether less or more is better."""

    def __getitem__(self, index: Any) -> Any:
        return self.models[index]

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[FrontModel]:
        return iter(self.models)

    def select(self, *selections: str) -> Front:
        """Return the models that any of some selections means, such as ``best:latency_ms<=1`` or ``knee``.

        A selection is a rule, with limits behind it where wanted: ``best``, ``fastest``, ``knee``, ``all``,
        ``least:params``, ``most:introspectability``, ``weights:top1_percent=2,latency_ms=1`` (the model whose place
        between best and worst fits these weights), ``different:4`` (the four most different), or the first digits of a
        key. One whose limits name another device, as ``best:edge-tpu:latency_ms<=1``, means no model of this front.

        Raises:
            SearchError: another form, a value that the models do not have, or limits that none of them keeps.
        """
        parsed = [Selection.parse(text) for text in selections]
        meant = {m.key for one in parsed for m in selected(self.models, one, self.device, self.measures)}
        return Front(self.device, tuple(m for m in self.models if m.key in meant), self.score, self.directions)

    @property
    def measures(self) -> Measures:
        """By what its models are compared."""
        return Measures(self.score.name, {**self.directions, self.score.name: self.score.direction})

    def knee(self) -> FrontModel:
        """Return the model nearest to the best score and latency at once, both scaled to the front's range."""
        return self._one("knee")

    def fastest(self) -> FrontModel:
        """Return the model of least latency; after `within`, the fastest that keeps the limits."""
        return self._one("fastest")

    def best(self) -> FrontModel:
        """Return the model of the best score; of equal ones the fastest."""
        return self._one("best")

    def within(self, *limits: str) -> Front:
        """Return the models that keep limits such as ``top1_percent>=98`` or ``edge-tpu:latency_ms<=3``.

        ``latency_ms`` is the measured latency where it is known.

        Raises:
            SearchError: a limit of another form, on a value that the models do not have, or that none of them keeps
                (it says how near they come).
        """
        kept = within(self.models, tuple(map(Limit.parse, limits)), self.device)
        return Front(self.device, tuple(kept), self.score, self.directions)

    def _one(self, rule: str) -> FrontModel:
        (model,) = selected(self.models, Selection.parse(rule), self.device, self.measures)
        return model


@dataclass(frozen=True)
class SearchedDevice:
    """A device with what was searched for it and what was found."""

    device: Device
    settings: DeviceSearch
    front: Front
    not_learnt: str = ""
    """That the supernet has learnt too little for its networks to be ranked; empty: that was not found."""

    @property
    def name(self) -> str:
        """Name of the device."""
        return self.device.name

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to tell whoever looks at the front, such as of latencies that the profile was never judged by."""
        beyond = beyond_measured(self.device.profile.error, [m.latency_ms for m in self.front])
        return tuple(text for text in (self.not_learnt, beyond) if text)


def copy_bundle(source: Path, target: Path) -> Bundle:
    """Copy a bundle; one of the same weights that is there is brought up to date, any other stays.

    Raises:
        OutputError: the target cannot be written, or holds something else or another model.
    """
    if target.resolve() == source.resolve():
        return Bundle(source)
    check_replaceable(target)
    make_folder(target.parent)
    there, new = _digests(target), _digests(source)
    if there and there.get(WEIGHTS) != new.get(WEIGHTS):
        raise OutputError(
            f"{target} holds a model of this key with other weights, which is not overwritten; remove it, or choose "
            "another --out"
        )
    if set(there) - set(new):
        return Bundle(target)  # it has files that this one lacks, such as an INT8 version
    try:
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(source, target, copy_function=shutil.copyfile)  # modes are the user's, not the run's
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error}; choose another --out") from None
    return Bundle(target)


WEIGHTS = "weights.safetensors"


def _digests(bundle: Path) -> dict[str, str]:
    """Digests of the models of a bundle by file; empty where there is none."""
    return {p.name: sha256_of(p) for p in sorted(bundle.glob("*")) if p.name == WEIGHTS or p.suffix == ".onnx"}


def choose_front(
    values: NDArray[np.float64], objectives: Sequence[Objective], feasible: NDArray[np.bool_], size: int
) -> NDArray[np.int64]:
    """Choose at most ``size`` mutually non-dominated rows.

    The front of the first two objectives comes first (thinned if it is larger), then rows of the front of all
    objectives, each the one that adds most hypervolume.

    Args:
        values: ``(n, m)`` in own units.
        objectives: of the columns.
        feasible: ``(n,)`` rows within every limit.
        size: how many.

    Returns:
        Row numbers, ascending; of rows with equal values only the first.
    """
    losses = as_losses(values, objectives)
    rows = np.flatnonzero(feasible & non_dominated(np.where(feasible[:, None], losses, np.nan)))
    rows = rows[np.sort(np.unique(losses[rows], axis=0, return_index=True)[1])]
    first = rows[non_dominated(losses[rows][:, :2])]
    first = first[choose_subset(losses[first][:, :2], size)]
    start = np.flatnonzero(np.isin(rows, first))
    return rows[choose_subset(losses[rows], size, start)]


def write_front(
    path: Path, archs: Sequence[Arch], columns: Mapping[str, NDArray[np.float64]], score: Score,
    weights: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Write ``front.csv``: one row a model, ascending by latency (measured, where it is known).

    Scores and other evaluated values are those of the validation images.

    Args:
        path: the file.
        archs: the models.
        columns: ``(n,)`` values by name, in the order of the file's columns.
        score: of the task; of equally fast models the better one comes first.
        weights: version of each model's weights; a column ``weights_version`` says it, unless this is None.
    """
    losses = -score.sign * columns[score.name]
    order = np.lexsort((losses, columns.get(MEASURED, columns["latency_ms"])))
    rows: list[list[object]] = [["key", *columns, *([] if weights is None else ["weights_version"])]]
    for i in order:
        cells = [_cell(name, column[i]) for name, column in columns.items()]
        rows.append([archs[i].key, *cells, *([] if weights is None else [weights[i]])])
    write_text(path, csv_text(rows))


def _cell(name: str, value: float) -> str:
    return str(int(value)) if name in ("params", "macs") else f"{value:.6g}"


def read_front(
    path: Path,
    device: str,
    score: Score,
    sha256: str = "",
    directions: Mapping[str, Literal["min", "max"]] | None = None,
) -> Front:
    """Read what `write_front` wrote; bundles are expected in ``models/`` beside it.

    Args:
        path: the file.
        device: whose front it is.
        score: of the task.
        sha256: of the file as it was written; empty: not known.
        directions: see `Front.directions`.

    Raises:
        ResumeError: the file is damaged.
    """
    try:
        if sha256 and sha256_of(path) != sha256:
            raise UnreadableError(str(path), "it is not as it was written (sha256 differs)")
        with made_of(path):
            models = [
                FrontModel(
                    device, check_key(r["key"]),
                    {unquoted(k): float(v) for k, v in r.items() if k not in ("key", "weights_version")},
                    path.parent / "models" / r["key"], r.get("weights_version", ""),
                )
                for r in csv_rows(read_text(path), str(path))
            ]  # fmt: skip
            if missing := [n for n in (score.name, "latency_ms") if any(n not in m.values for m in models)]:
                raise UnreadableError(str(path), f"it has no column {missing[0]}")
    except (UnreadableError, SpaceError) as error:
        reason = error.reason if isinstance(error, UnreadableError) else str(error)
        raise ResumeError(
            f"{path} is damaged: {reason}; remove it and run `hwnas search` (the archive answers)"
        ) from None
    return Front(device, tuple(models), score, directions or {})
