"""How long does an arch take on a device? The sum of its blocks, from a measured table or a fitted cost model."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import scipy
from numpy.typing import NDArray

from hwnas.arguments import checked_arguments
from hwnas.errors import MissingBlockError, TableError, UnreadableError, shown
from hwnas.export.graph import Graph, trace
from hwnas.export.op import Op
from hwnas.files import csv_text, write_text
from hwnas.latency.cost_model import kind_of
from hwnas.latency.device import PROFILE_FILE, DeviceProfile, device_folder, load_profile, write_profile
from hwnas.reading import checked_sums, made_of, read_text, sha256_of, unquoted
from hwnas.space import Arch
from hwnas.supernet import BlockSpec, Layout
from hwnas.supernet.layout import PRECISION
from hwnas.supernet.slot_sum import SlotSum

SumT = TypeVar("SumT", bound=SlotSum)

TABLE_FILE = "blocks.csv"
NETWORKS_FILE = "networks.csv"
"""Whole networks that a table was fitted to and judged by."""
SUMS_FILE = "SHA256SUMS"
"""Digests of the other files, written last."""
VALUE_COLUMNS = ("n", "median_ms", "iqr_ms", "origin")


@dataclass(frozen=True)
class Row:
    """One block's time."""

    median_ms: float
    iqr_ms: float
    n: int
    origin: str
    """``measured``, ``interpolated`` between measured sizes, or ``imported``."""


@dataclass(frozen=True)
class Device:
    """A device profile with its block table: what a search asks for latencies."""

    profile: DeviceProfile
    rows: Mapping[str, Row] = field(default_factory=dict)
    """Time by `BlockSpec.signature`."""
    in_8_bits: Device | None = None
    """The same device computing in 8 bits, where a search chooses the precision of every arch."""

    @property
    def name(self) -> str:
        """Name of the device."""
        return self.profile.name

    def block_ms(self, block: BlockSpec) -> float:
        """Return what ``block`` adds to a network, in milliseconds: its row, corrected, or the cost model's value.

        The correction takes the cost of a call out of every row; what is left of a tiny block can be just below 0.
        A block that runs no operator (an identity) takes no time.

        Raises:
            MissingBlockError: there is no row and no cost model.
        """
        row = self.rows.get(block.signature)
        if row is not None:
            c = self.profile.correction
            return row.median_ms if c is None else c.block_ms(row.median_ms, *block_melements(block))
        ops = block_ops(block)
        if not ops:
            return 0.0
        if self.profile.cost_model is not None:
            return float(self.profile.cost_model.ops_ms(ops).sum())
        known = f"its table has {len(self.rows)} blocks" if self.rows else "it has no table yet"
        raise MissingBlockError(
            f"device {self.name!r} has no time for block [{block.signature}]: {known} and no cost model; "
            "measure the blocks of this recipe with `hwnas tables build`"
        )

    @property
    def constant_ms(self) -> float:
        """What every network pays once, in milliseconds."""
        if self.profile.correction is not None:
            return self.profile.correction.constant_ms
        if self.profile.cost_model is not None and not self.rows:
            return self.profile.cost_model.network_overhead_ms
        return 0.0

    def fallback_layers(self, block: BlockSpec) -> dict[str, int]:
        """Return how many operators of ``block`` the device runs elsewhere or not at all, by their kind."""
        found: dict[str, int] = {}
        for op in block_ops(block):
            for kind in dict.fromkeys((kind_of(op), op.type)):
                if kind in self.profile.falls_back or kind in self.profile.unsupported:
                    found[kind] = found.get(kind, 0) + 1
                    break
        return found

    def fallbacks(self, arch: Arch) -> dict[str, int]:
        """Return how many operators of an arch the device runs elsewhere or not at all, by their kind.

        Empty where the profile knows of none; `DeviceProfile.falls_back` and ``unsupported`` say where and why.

        Raises:
            TableError: the arch is of a space without networks.
        """
        if arch.space is None or arch.space.blocks is None:
            raise TableError(f"arch {arch.key} is of a space without blocks; take it from a supernet's space")
        found: dict[str, int] = {}
        for _, block in arch.space.blocks(arch):
            for kind, n in self.computing(arch).fallback_layers(block).items():
                found[kind] = found.get(kind, 0) + n
        return found

    def compile(self, layout: Layout) -> SlotSum:
        """Return the latencies of a whole space as look-ups, for estimating many genomes at once.

        Raises:
            MissingBlockError: a block of the space has no time.
        """
        return self.in_each_precision(layout, lambda one: SlotSum.of(layout, one.block_ms, one.constant_ms))

    def computing(self, arch: Arch) -> Device:
        """Return the device as it computes an arch: in 8 bits where the arch says so and the device can choose."""
        return self.in_8_bits if self.in_8_bits is not None and arch.get(PRECISION) == "int8" else self

    def in_each_precision(self, layout: Layout, values_of: Callable[[Device], SumT]) -> SumT:
        """Return look-ups of a whole space that follow from the device, as it computes each arch.

        Args:
            layout: the space.
            values_of: look-ups for a device that computes everything in one precision.
        """
        if self.in_8_bits is None or PRECISION not in layout.space:
            return values_of(self)
        alone = replace(self, in_8_bits=None)
        made = {"fp32": values_of(alone), "int8": values_of(self.in_8_bits)}
        return type(made["fp32"]).by_option(PRECISION, [made[str(o)] for o in layout.space[PRECISION].options])

    def estimate_ms(self, arch: Arch) -> float:
        """Return the latency of one arch of a supernet's space, in milliseconds for a batch of 1.

        Raises:
            TableError: the arch is of a space without networks (``SearchSpace.of_choices``).
            MissingBlockError: one of its blocks has no time.
        """
        if arch.space is None or arch.space.blocks is None:
            raise TableError(f"arch {arch.key} is of a space without blocks; take it from a supernet's space")
        device = self.computing(arch)
        return device.constant_ms + sum(device.block_ms(block) for _, block in arch.space.blocks(arch))


def block_ops(block: BlockSpec) -> list[Op]:
    """Return the operators that a runtime executes for ``block``."""
    return block_graph(block).ops(block.in_channels, block.in_size_px)


def block_graph(block: BlockSpec) -> Graph:
    """Return the traced network of ``block``, for inputs of any size."""
    return _trace_any_size(replace(block, in_size_px=0))


def block_melements(block: BlockSpec) -> tuple[float, float]:
    """Return millions of elements of a block's input and output together, and of its weights."""
    ops = block_ops(block)
    if not ops:
        return 0.0, 0.0
    border = block.in_channels * block.in_size_px**2 + ops[-1].out_elements
    return border / 1e6, sum(op.weights for op in ops) / 1e6


@lru_cache(maxsize=100_000)
def _trace_any_size(block: BlockSpec) -> Graph:
    import torch

    with torch.device("meta"):
        module = block.build()
    return trace(module)


@checked_arguments
def load_device(name_or_folder: str | Path) -> Device:
    """Return a device by the name of a shipped profile, or by the folder of one's own.

    Raises:
        DeviceError: unknown, or a damaged ``profile.yaml``.
        TableError: a damaged ``blocks.csv``.
    """
    folder = device_folder(name_or_folder)
    check_sums(folder)
    profile = load_profile(folder)
    path = folder / TABLE_FILE
    return Device(profile, read_rows(path) if path.exists() else {})


def save_device(device: Device, folder: Path, blocks: Sequence[BlockSpec]) -> None:
    """Write ``blocks.csv``, then ``profile.yaml``, whose presence says that the folder is complete.

    Args:
        device: profile and rows.
        folder: of the profile.
        blocks: the specs behind the rows, whose columns are written.
    """
    columns: dict[str, None] = {"kind": None}
    for block in blocks:
        columns |= dict.fromkeys(block.columns)
    heading = [*columns, *VALUE_COLUMNS]
    rows: list[list[object]] = [list(heading)]
    for block in sorted(blocks, key=lambda b: b.signature):
        row = device.rows[block.signature]
        values = {"n": row.n, "median_ms": f"{row.median_ms:.6g}", "iqr_ms": f"{row.iqr_ms:.3g}", "origin": row.origin}
        cells = {"kind": block.kind, **block.columns, **values}
        rows.append([cells.get(name, "") for name in heading])
    (folder / SUMS_FILE).unlink(missing_ok=True)  # the old ones are not of what is written now
    write_text(folder / TABLE_FILE, csv_text(rows))
    write_profile(device.profile, folder)
    write_sums(folder)


def write_sums(folder: Path) -> None:
    """Write the digests of a table's files, in the form of ``sha256sum``, so that damage is recognised."""
    names = [name for name in (TABLE_FILE, PROFILE_FILE, NETWORKS_FILE) if (folder / name).is_file()]
    write_text(folder / SUMS_FILE, "".join(f"{sha256_of(folder / name)}  {name}\n" for name in names))


def check_sums(folder: Path) -> None:
    """Compare a table's files with what `write_sums` wrote, where it did.

    Raises:
        TableError: one is missing, or not as it was written.
    """
    path = folder / SUMS_FILE
    if not path.exists():
        return
    try:
        lines = [line.split("  ") for line in read_text(path, SUMS_BYTES).splitlines()]
        if any(len(line) != 2 for line in lines):
            raise UnreadableError(str(path), "it has lines of another form than `sha256sum` writes")
        wrong = checked_sums(folder, {name: digest for digest, name in lines})
    except UnreadableError as error:
        raise TableError(f"{path} is damaged: {error.reason}; {RESTORE}") from None
    if wrong:
        raise TableError(f"{folder / wrong[0]} is not as it was written ({SUMS_FILE} differs); {RESTORE}")


SUMS_BYTES = 4096
"""Of the file of digests, which has three lines."""

RESTORE = f"restore it or build the table again; if you changed it yourself, remove {SUMS_FILE}"


def read_rows(path: Path) -> dict[str, Row]:
    """Read a ``blocks.csv``.

    Raises:
        TableError: a missing column, a value that is not a positive number, or two rows of one block that disagree.
    """
    rows: dict[str, Row] = {}
    try:
        with made_of(path):
            reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
            if missing := {"kind", *VALUE_COLUMNS} - set(reader.fieldnames or ()):
                raise TableError(f"{path} lacks columns {sorted(missing)}; latency_tables/README.md has the schema")
            for line, values in enumerate(reader, 2):
                signature, row = _row(values, f"{path}, line {line}")
                if signature in rows and rows[signature] != row:
                    raise TableError(f"{path}, line {line}: block [{signature}] stands twice with different times")
                rows[signature] = row
    except csv.Error as error:
        raise TableError(f"{path} cannot be read: {error}") from None
    except UnreadableError as error:
        raise TableError(f"{path} cannot be read: {error.reason}") from None
    return rows


def _row(values: Mapping[str, str], where: str) -> tuple[str, Row]:
    if None in values:
        raise TableError(f"{where}: has more cells than columns")
    if None in values.values():
        raise TableError(f"{where}: has fewer cells than columns")
    try:
        row = Row(float(values["median_ms"]), float(values["iqr_ms"]), int(values["n"]), values["origin"])
    except (TypeError, ValueError) as error:
        raise TableError(f"{where}: {error}") from None
    if not 0 < row.median_ms < math.inf:
        raise TableError(f"{where}: median_ms is {row.median_ms}; times must be positive numbers")
    if not (0 <= row.iqr_ms < math.inf and 0 <= row.n < 2**53):
        raise TableError(f"{where}: iqr_ms is {row.iqr_ms} and n is {shown(row.n, 40)}; they must be 0 or more")
    return signature_of(values), row


def signature_of(cells: Mapping[str, str]) -> str:
    """Return the signature of the block that a row describes: its kind and its filled columns."""
    plain = {k: unquoted(v) for k, v in cells.items()}
    columns = [f"{k}={v}" for k, v in plain.items() if k != "kind" and k not in VALUE_COLUMNS and v != ""]
    return " ".join([plain["kind"], *sorted(columns)])


def measured_range(measured: NDArray[np.float64]) -> dict[str, float]:
    """Return ``fastest_ms`` and ``slowest_ms`` of ``(n,)`` measured latencies, in four digits."""
    return {"fastest_ms": float(f"{measured.min():.4g}"), "slowest_ms": float(f"{measured.max():.4g}")}


def relative_errors(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> dict[str, float]:
    """Return ``mape_percent``, ``within_5_percent``, ``within_10_percent``, ``r2``, ``spearman`` of ``(n,)`` pairs."""
    error = np.abs(predicted / measured - 1.0)
    varied = len(measured) > 2 and np.ptp(measured) > 0 and np.ptp(predicted) > 0
    spread = float(((measured - measured.mean()) ** 2).sum())
    return {
        "mape_percent": round(100 * float(error.mean()), 3),
        "within_5_percent": round(100 * float((error <= 0.05).mean()), 1),
        "within_10_percent": round(100 * float((error <= 0.10).mean()), 1),
        "r2": round(1 - float(((predicted - measured) ** 2).sum()) / spread, 4) if spread else 0.0,
        "spearman": round(float(scipy.stats.spearmanr(predicted, measured).statistic), 4) if varied else 0.0,
    }
