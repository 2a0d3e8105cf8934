"""What can a fit of latencies tell apart? Terms: sums over a network's operators, each with one constant to be fitted.

A term says how much each kind of operator counts in it, so that the same words give the columns of a fit and, with its
constants, the cost model that follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from hwnas.errors import TableError, shown
from hwnas.export.op import Op
from hwnas.latency.cost_model import OP_KINDS, CostModel, OpKind, kind_of, op_features

ONE, MACS, ELEMENTS, WEIGHTS = range(4)
"""Quantities of an operator: 1, and millions of multiply-adds, elements moved, weights."""

FUSED: tuple[OpKind, ...] = ("relu",)
"""Kinds that a runtime executes inside the operator before them."""

TIMED: tuple[OpKind, ...] = tuple(k for k in OP_KINDS if k not in FUSED)

DENSE: tuple[OpKind, ...] = ("conv", "pointwise_conv", "grouped_conv", "linear")
WINDOWED: tuple[OpKind, ...] = ("depthwise_conv", "max_pool", "avg_pool")

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Term:
    """One sum over the operators of a network."""

    name: str
    quantity: int
    """`ONE`, `MACS`, `ELEMENTS` or `WEIGHTS`."""
    counts: Mapping[OpKind, float]
    """How much the quantity counts for each kind; 0 for others."""

    @classmethod
    def of(cls, name: str, quantity: int, kinds: Sequence[OpKind]) -> Term:
        """Return a term in which some kinds count once."""
        return cls(name, quantity, dict.fromkeys(kinds, 1.0))

    def column(self, sums: FloatArray) -> FloatArray:
        """Return ``(n,)`` sums of the term over networks, from their ``(n, kinds, 4)`` `kind_sums`."""
        return np.asarray(sum(count * sums[:, OP_KINDS.index(k), self.quantity] for k, count in self.counts.items()))


def kind_sums(networks: Sequence[Sequence[Op]]) -> FloatArray:
    """Return ``(n, kinds, 4)`` sums of the four quantities over each network's operators of each of `OP_KINDS`."""
    out = np.zeros((len(networks), len(OP_KINDS), 4))
    for row, ops in zip(out, networks, strict=True):
        if ops:
            _, sizes = op_features(ops)
            kinds = [OP_KINDS.index(kind_of(op)) for op in ops]
            np.add.at(row, kinds, np.column_stack([sizes, [op.weights / 1e6 for op in ops]]))
    return out


def model_sums(model: CostModel, sums: FloatArray) -> FloatArray:
    """Return ``(n,)`` milliseconds of a cost model for networks of these `kind_sums`, without a network's constant.

    Raises:
        DeviceError: the model has no constants for a kind that occurs.
    """
    return np.asarray((coefficients_of(model, sums) * sums).sum(axis=(1, 2)))


def coefficients_of(model: CostModel, sums: FloatArray) -> FloatArray:
    """Return the ``(kinds, 4)`` constants of a cost model in milliseconds, 0 for kinds that do not occur in ``sums``.

    Raises:
        DeviceError: the model has no constants for a kind that occurs.
    """
    out = np.zeros((len(OP_KINDS), 4))
    for index in np.flatnonzero(sums[:, :, ONE].any(axis=0)):
        cost = model.cost_of(OP_KINDS[index])
        out[index] = [*cost.coefficients, cost.per_mweight_ms]
    return out


def cost_model_of(
    network_ms: float, terms: Sequence[Term], constants: Sequence[float], source: str | Mapping[OpKind, str],
    normalisation_ms: float = 0.0, digits: int = 17,
) -> CostModel:  # fmt: skip
    """Return the cost model that constants of terms make.

    Args:
        network_ms: constant of a network.
        terms: what was fitted.
        constants: of the terms, milliseconds for one of their quantity.
        source: where they come from, of all kinds or of each; kinds without one get no constants of their own.
        normalisation_ms: see `CostModel.input_normalisation_ms`.
        digits: significant digits that are kept.

    Raises:
        TableError: the constants are beyond those of any device.
    """
    sources = dict.fromkeys(OP_KINDS, source) if isinstance(source, str) else source
    ops: dict[str, Any] = {}
    for kind, said in sources.items():
        if kind in FUSED:
            ops[kind] = {"fused": True, "source": "assumed: executed inside the operator before it"}
            continue
        per = np.zeros(4)
        for term, value in zip(terms, constants, strict=True):
            per[term.quantity] += value * term.counts.get(kind, 0.0)
        ops[kind] = {"overhead_ms": _rounded(per[ONE], digits)}
        for quantity, rate in ((MACS, "gmacs_per_s"), (ELEMENTS, "gelements_per_s"), (WEIGHTS, "gweights_per_s")):
            if per[quantity] > NOTHING_MS and _has(kind, quantity):
                ops[kind][rate] = _rounded(1 / per[quantity], digits)
        ops[kind]["source"] = said
    values = {
        "network_overhead_ms": _rounded(network_ms, digits), "ops": ops,
        "input_normalisation_ms": _rounded(normalisation_ms, digits),
    }  # fmt: skip
    try:
        return CostModel.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise TableError(
            f"the latencies give constants that no device has ({'.'.join(map(str, first['loc']))}: {first['msg']}, got "
            f"{shown(first['input'], 40)}); are they milliseconds?"
        ) from None


NOTHING_MS = 1e-12
"""For a million of a quantity: what a fit gives in place of 0, and a rate that no device has."""


def _has(kind: OpKind, quantity: int) -> bool:
    """Whether operators of a kind have a quantity at all."""
    if quantity == WEIGHTS:
        return kind in DENSE or kind == "depthwise_conv"
    return True


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
