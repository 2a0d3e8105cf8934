"""What does a run give for one device? Its front: the models that no other model of the run beats."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
import numpy as np
from numpy.typing import NDArray
from hwnas.errors import ExportError, OutputError
from hwnas.export.bundle import Bundle
from hwnas.files import make_folder, write_text
from hwnas.objectives import Objective, as_losses
from hwnas.pareto import choose_subset, knee, non_dominated
from hwnas.space import Arch


FRONT_COLUMNS = ("key", "top1_percent", "latency_ms", "params", "macs", "introspectability")

FRONT_FILE = "front.csv"

MEASURED = "measured_latency_ms"
"""Column of latencies that were measured on exported models; it ranks a front where it is known."""

@dataclass(frozen=True)
class FrontModel:
    """One model of a front."""

    key: str
    values: dict[str, float]
    """By name, in own units; accuracy is validation accuracy."""
    folder: Path
    """Of its bundle; exists once the run has exported it."""
    weights_version: str = ""
    """Of the supernet, where it was adapted to the device."""

    @property
    def latency_ms(self) -> float:
        """Measured latency of the exported model where it is known, else the estimate that was searched with."""
        return self.values.get(MEASURED, self.values["latency_ms"])

    def export(self, out: str | Path) -> Bundle:
        """Copy the bundle to ``out/<key>`` and return it.

        Raises:
            ExportError: the run has not exported it yet.
            OutputError: ``out`` cannot be written.
        """
        if not self.folder.is_dir():
            raise ExportError(f"model {self.key} has no bundle at {self.folder}; run `hwnas export` first")
        target = make_folder(Path(out)) / self.key
        try:
            shutil.copytree(self.folder, target, dirs_exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error}") from None
        return Bundle(target)

@dataclass(frozen=True)
class Front(Sequence[FrontModel]):
    """The models of one device, by ascending latency."""

    device: str
    models: tuple[FrontModel, ...]

    def __getitem__(self, index: Any) -> Any:
        return self.models[index]

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[FrontModel]:
        return iter(self.models)

    def knee(self) -> FrontModel:
        """Return the model nearest to the best accuracy and latency at once, both scaled to the front's range."""
        losses = [[-m.values["top1_percent"], m.latency_ms] for m in self.models]
        return self.models[knee(np.array(losses))]

    def fastest(self, top1_percent: float) -> FrontModel:
        """Return the model of least latency that reaches an accuracy.

        Raises:
            ExportError: none does.
        """
        good = [m for m in self.models if m.values["top1_percent"] >= top1_percent]
        if not good:
            best = max(m.values["top1_percent"] for m in self.models)
            raise ExportError(f"no model of {self.device} reaches {top1_percent} % top-1; the best has {best:.2f} %")
        return min(good, key=lambda m: m.latency_ms)

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

def write_front(path: Path, archs: Sequence[Arch], columns: dict[str, NDArray[np.float64]], weights: str = "") -> None:
    """Write ``front.csv``: one row a model, ascending by latency (measured, where it is known).

    Accuracy and introspectability are those of the validation images.

    Args:
        path: the file.
        archs: the models.
        columns: ``(n,)`` values by name; `FRONT_COLUMNS` first, then others in their order.
        weights: version of the supernet; a column ``weights_version`` says it, unless it is empty.
    """
    names = [c for c in FRONT_COLUMNS if c in columns] + [c for c in columns if c not in FRONT_COLUMNS]
    order = np.lexsort((-columns["top1_percent"], columns.get(MEASURED, columns["latency_ms"])))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    last = ("weights_version", weights) if weights else ()
    writer.writerow(["key", *names, *last[:1]])
    for i in order:
        writer.writerow([archs[i].key, *(_cell(name, columns[name][i]) for name in names), *last[1:]])
    write_text(path, text.getvalue())

def _cell(name: str, value: float) -> str:
    return str(int(value)) if name in ("params", "macs") else f"{value:.6g}"

def read_front(path: Path, device: str) -> Front:
    """Read what `write_front` wrote; bundles are expected in ``models/`` beside it."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    models = [
        FrontModel(
            r["key"], {k: float(v) for k, v in r.items() if k not in ("key", "weights_version")},
            path.parent / "models" / r["key"], r.get("weights_version", ""),
        )
        for r in rows
    ]  # fmt: skip
    return Front(device, tuple(models))
