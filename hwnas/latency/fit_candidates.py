"""Which cost models are tried for a device that a few networks were timed on? Few terms, and known devices, adapted.

A candidate is a matrix: one column for each constant. Those of a warm start have the times of a known device as
columns, whole or in parts, so that few networks say how much faster the new device is at each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from hwnas.errors import DeviceError
from hwnas.latency.cost_model import OP_KINDS, CostModel, OpCost, OpKind
from hwnas.latency.cost_terms import (
    DENSE,
    ELEMENTS,
    MACS,
    ONE,
    TIMED,
    WEIGHTS,
    WINDOWED,
    Term,
    cost_model_of,
    model_sums,
)

FloatArray = NDArray[np.float64]

OPERATORS = Term.of("operators", ONE, TIMED)
DENSE_MACS = Term.of("dense_macs", MACS, DENSE)
WINDOWED_MACS = Term.of("windowed_macs", MACS, WINDOWED)
ELEMENTS_MOVED = Term.of("elements", ELEMENTS, TIMED)
DEPTHWISE_MACS = Term.of("depthwise multiply-adds", MACS, ("depthwise_conv",))
PRODUCTS = Term.of("elements of channel-wise products", ELEMENTS, ("mul",))
WEIGHTS_READ = Term.of("weights", WEIGHTS, (*DENSE, "depthwise_conv"))

NPU_FLOAT = (OPERATORS, DENSE_MACS, DEPTHWISE_MACS, PRODUCTS)
"""What the times of NPUs in float are made of (``benchmarks/fit_npu.py``)."""

NPU_INT8 = (
    OPERATORS,
    Term(
        "multiply-adds", MACS,
        {"pointwise_conv": 1.0, "grouped_conv": 1.0, "linear": 1.0, "conv": 0.25, "depthwise_conv": 4.0},
    ),
    Term.of("further multiply-adds of larger convolutions", MACS, ("conv",)),
    Term.of("further multiply-adds of depthwise convolutions", MACS, ("depthwise_conv",)),
    WEIGHTS_READ, ELEMENTS_MOVED,
)  # fmt: skip
"""In int8 weights take most of the time. Measurements at one resolution alone would give larger and depthwise
convolutions no time for their multiply-adds, and a search would find them free at any resolution. So these take at
least a quarter of, and four times, the time of multiply-adds of 1x1 convolutions. In float, where measurements tell
them apart, it is 1 and 16 to 20 times."""

TERMS: tuple[tuple[Term, ...], ...] = (
    (Term.of("macs", MACS, (*DENSE, *WINDOWED)),),
    (DENSE_MACS, WINDOWED_MACS),
    (Term.of("macs", MACS, (*DENSE, *WINDOWED)), ELEMENTS_MOVED),
    (DENSE_MACS, WINDOWED_MACS, ELEMENTS_MOVED),
    (OPERATORS, DENSE_MACS, WINDOWED_MACS, ELEMENTS_MOVED),
    NPU_FLOAT,
    NPU_INT8,
)
"""Sets of terms that are tried besides the constant of a network, from few constants to many."""

SPARE = 2
"""Networks that there must be beyond the constants of a candidate."""

HOLDS = (0.3, 0.1)
"""How firmly parts of a known device keep their proportions in a warm start: relative deviations that count as much as
an error of the same size for one network, times this."""

WINDOW_KINDS: tuple[OpKind, ...] = WINDOWED


@dataclass(frozen=True)
class Candidate:
    """One model that is tried."""

    name: str
    columns: FloatArray
    """``(n, k)`` features of the networks, one for each constant."""
    made: Callable[[Sequence[float], str], CostModel]
    """The cost model that constants, and where they come from, make."""
    hold: float = 0.0
    """How firmly the constants after the first keep their common proportion; 0: they are free."""

    @property
    def freedom(self) -> float:
        """About how many constants the fit is free to choose; those that are held count less."""
        return 3.0 - self.hold if self.hold else float(self.columns.shape[1])

    def fit(self, measured_ms: FloatArray, rows: NDArray[np.bool_] | None = None) -> FloatArray:
        """Return ``(k,)`` constants, not negative, that fit relative errors best.

        Args:
            measured_ms: ``(n,)`` of all networks.
            rows: which of them count; default: all.
        """
        x, y = (self.columns, measured_ms) if rows is None else (self.columns[rows], measured_ms[rows])
        if not self.hold:
            return _nnls(x, y)
        common = _nnls(np.column_stack([x[:, 0], x[:, 1:].sum(axis=1)]), y)[1]
        if common <= 0:
            return _nnls(x, y)
        held = np.zeros((x.shape[1] - 1, x.shape[1]))
        held[:, 1:] = np.eye(x.shape[1] - 1) * self.hold / common
        wanted = np.concatenate([np.ones(len(y)), np.full(len(held), self.hold)])
        return np.asarray(scipy.optimize.nnls(np.concatenate([x / y[:, None], held]), wanted)[0])

    def left_out(self, measured_ms: FloatArray, groups: Sequence[object]) -> FloatArray:
        """Return ``(n,)`` predictions, each by constants fitted to the networks of other groups."""
        number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        of = np.array([number[group] for group in groups])
        out = np.empty(len(of))
        for i in range(len(number)):
            out[of == i] = self.columns[of == i] @ self.fit(measured_ms, of != i)
        return out


def _nnls(x: FloatArray, y: FloatArray) -> FloatArray:
    top = x.max(axis=0)
    scale = np.where(top > 0, top, 1.0)
    return np.asarray(scipy.optimize.nnls(x / scale / y[:, None], np.ones(len(y)))[0] / scale)


def candidates(
    sums: FloatArray, normalises: FloatArray, bases: Mapping[str, CostModel], distinct: int
) -> list[Candidate]:  # fmt: skip
    """Return what is tried for networks.

    Args:
        sums: ``(n, kinds, 4)`` `kind_sums` of the networks.
        normalises: ``(n,)`` 1 for those that normalise their image themselves.
        bases: cost models of known devices, by name.
        distinct: different networks that there are; what has too many constants for them is not tried.
    """
    ones = np.ones(len(sums))
    mixed = 0 < normalises.sum() < len(sums)
    found = []
    for terms in TERMS:
        columns = [ones, *(t.column(sums) for t in terms), *([normalises] if mixed else [])]
        if len(columns) + SPARE <= distinct:
            name = " + ".join(["network", *(t.name for t in terms)])
            found.append(Candidate(name, np.column_stack(columns), _of_terms(terms)))
    for base, model in bases.items():
        try:
            whole = model_sums(model, sums) + model.input_normalisation_ms * normalises
        except DeviceError:  # a device of somebody's own may lack operators of these networks
            continue
        found.append(Candidate(f"{base}, scaled", np.column_stack([ones, whole]), _of_parts(model, (_ALL,))))
        parts = [p for p in PARTS if _part(model, p, sums).any()]
        split = [_part(model, p, sums) for p in parts]
        if normalises.any() and model.input_normalisation_ms:
            parts.append(_NORMALISATION)
            split.append(model.input_normalisation_ms * normalises)
        if distinct >= 2 + SPARE:
            found += [
                Candidate(
                    f"{base}, in parts ({hold:g})", np.column_stack([ones, *split]), _of_parts(model, parts), hold
                )
                for hold in HOLDS
            ]
    return found


def best_of(
    tried: Sequence[Candidate], measured_ms: FloatArray, groups: Sequence[object]
) -> tuple[Candidate, list[float]]:  # fmt: skip
    """Return the simplest candidate that predicts left-out networks about as well as the best, and the error of each.

    About as well: within one standard error of the best, since with so many candidates and so few networks the smallest
    error is partly luck (the one-standard-error rule of Breiman et al., 1984, Classification and Regression Trees).

    Args:
        tried: at least one.
        measured_ms: ``(n,)`` of the networks.
        groups: ``n`` labels; networks of one label are left out together.
    """
    off = [np.abs(c.left_out(measured_ms, groups) / measured_ms - 1) for c in tried]
    errors = [float(o.mean()) for o in off]
    best = int(np.argmin(errors))
    enough = errors[best] + float(off[best].std()) / len(measured_ms) ** 0.5 + 1e-6
    good = [i for i in range(len(tried)) if errors[i] <= enough]
    return tried[min(good, key=lambda i: (tried[i].freedom, errors[i]))], errors


# -- parts of a known device -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Constants of a cost model that are scaled together."""

    quantities: tuple[int, ...]
    windowed: bool | None = None
    """Only of kinds that slide a window over each channel, only of others, or of all."""
    normalisation: bool = False

    def factor_of(self, kind: OpKind, quantity: int) -> bool:
        """Whether a constant belongs to the part."""
        return quantity in self.quantities and self.windowed in (None, kind in WINDOW_KINDS)


_ALL = Part((ONE, MACS, ELEMENTS, WEIGHTS), normalisation=True)
_NORMALISATION = Part((), normalisation=True)
PARTS = (Part((ONE,)), Part((MACS,), windowed=False), Part((MACS,), windowed=True), Part((ELEMENTS,)), Part((WEIGHTS,)))


def _part(model: CostModel, part: Part, sums: FloatArray) -> FloatArray:
    """``(n,)`` milliseconds that the constants of a part make of networks."""
    total = np.zeros(len(sums))
    for index in np.flatnonzero(sums[:, :, ONE].any(axis=0)):
        cost, owner = _owner(model, OP_KINDS[index])
        values = (*cost.coefficients, cost.per_mweight_ms)
        for quantity, value in enumerate(values):
            if part.factor_of(owner, quantity):
                total += value * sums[:, index, quantity]
    return total


def _owner(model: CostModel, kind: OpKind) -> tuple[OpCost, OpKind]:
    """The constants that a kind is costed with, and the kind that they belong to."""
    cost = model.cost_of(kind)
    return cost, next((k for k, c in model.ops.items() if c is cost), kind)


def _of_terms(terms: Sequence[Term]) -> Callable[[Sequence[float], str], CostModel]:
    def made(constants: Sequence[float], source: str) -> CostModel:
        n = len(terms)
        split = any(k in t.counts and t.counts.get("conv") != t.counts[k] for t in terms for k in _CONV_KINDS)
        kinds = [k for k in OP_KINDS if split or k not in _CONV_KINDS]
        normalisation_ms = constants[n + 1] if len(constants) > n + 1 else 0.0
        return cost_model_of(
            constants[0], terms, constants[1 : n + 1], dict.fromkeys(kinds, source), float(normalisation_ms)
        )

    return made


_CONV_KINDS: tuple[OpKind, ...] = ("pointwise_conv", "grouped_conv")


def _of_parts(base: CostModel, parts: Sequence[Part]) -> Callable[[Sequence[float], str], CostModel]:
    """A cost model whose constants are those of a known device, each part times its factor."""

    def made(constants: Sequence[float], source: str) -> CostModel:
        factors = list(zip(parts, constants[1:], strict=True))

        def times(kind: OpKind, quantity: int) -> float:
            return next((float(f) for p, f in factors if p.factor_of(kind, quantity)), 1.0)

        def scaled(kind: OpKind, cost: OpCost) -> OpCost:
            if cost.overhead_ms is None:
                return cost
            values = cost.model_dump() | {"overhead_ms": cost.overhead_ms * times(kind, ONE)}
            for name, quantity in (("gmacs_per_s", MACS), ("gelements_per_s", ELEMENTS), ("gweights_per_s", WEIGHTS)):
                rate, factor = getattr(cost, name), times(kind, quantity)
                if rate:
                    values[name] = rate / factor if factor > 0 else None
            return OpCost.model_validate(values | {"source": f"{source}; proportions: {cost.source}"})

        normalisation = next((float(f) for p, f in factors if p.normalisation), 0.0)
        return CostModel(
            network_overhead_ms=float(constants[0]), ops={k: scaled(k, c) for k, c in base.ops.items()},
            input_normalisation_ms=base.input_normalisation_ms * normalisation,
        )  # fmt: skip

    return made
