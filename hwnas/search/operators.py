"""Which operators does each layer keep before anything is trained? Those that cost little for what they can learn."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwnas.search.specialise import Specialisation
from hwnas.space import SearchSpace
from hwnas.space.choice import Option

FloatArray = NDArray[np.float64]


def keep_operators(
    space: SearchSpace, cost: Mapping[str, FloatArray], capacity: tuple[Mapping[str, FloatArray], ...], keep: int,
    cost_name: str,
) -> Specialisation:  # fmt: skip
    """Keep the operators of every layer that cost least on a device for their multiply-adds and parameters.

    Within a layer every quantity is divided by its maximum; the score is the cost over the mean of the capacities. The
    cheapest operator stays, so that a limit can be met, and of the others those of the smallest score, ``keep``
    altogether.

    Args:
        space: of the layers; choices that ``cost`` does not name keep every option.
        cost: by the name of a layer's choice, ``(n_options,)`` cost of each operator in this layer.
        capacity: multiply-adds and parameters of the same operators.
        keep: operators that a layer keeps; fewer where it has fewer.
        cost_name: of the cost, with its unit.

    Reference:
        Zhang et al., 2020, HURRICANE: 4 to 5 of a pool of 32 operators are kept in every layer by latency against
        FLOPs and parameters. The formula is ours: the full text was not at hand.
    """
    kept: list[NDArray[np.int64]] = []
    costs: list[FloatArray] = []
    sizes: list[FloatArray] = []
    scores: list[FloatArray] = []
    for choice in space.choices:
        n = len(choice.options)
        if choice.name not in cost:
            kept.append(np.arange(n))
            for column in (costs, sizes, scores):
                column.append(np.zeros(n))
            continue
        own = cost[choice.name]
        size = np.mean([_relative(c[choice.name]) for c in capacity], axis=0)
        score = np.divide(_relative(own), size, out=np.full(n, np.inf), where=size > 0)
        order = [int(np.argmin(own)), *np.argsort(score, kind="stable").tolist()]
        kept.append(np.array(sorted(list(dict.fromkeys(order))[:keep]), dtype=np.int64))
        costs.append(own)
        sizes.append(size)
        scores.append(score)
    return Specialisation(space, tuple(kept), tuple(costs), tuple(sizes), tuple(scores), cost_name)


def operators_table(found: Specialisation) -> str:
    """Return a printable table: what each layer keeps, with cost and score, and how much it drops."""
    fields = next((c.fields for c, cost in zip(found.space.choices, found.cost, strict=True) if cost.any()), ())
    lines = [f"{'layer':<16} kept: {'-'.join(fields)} {found.cost_name} (score) / dropped"]
    for i, choice in enumerate(found.space.choices):
        if not found.cost[i].any():  # no layer
            continue
        kept, cost = found.kept[i].tolist(), found.cost[i]
        order = sorted(kept, key=lambda j: float(cost[j]))
        shown = [f"{_short(choice.options[j])} {cost[j]:.4g} ({found.score[i][j]:.2f})" for j in order]
        rest = np.delete(cost, kept)
        dropped = f"{len(rest)} of {rest.min():.4g} to {rest.max():.4g}" if len(rest) else "none"
        lines.append(f"{choice.name:<16} {', '.join(shown)} / {dropped}")
    lines.append(found.summary())
    return "\n".join(lines)


def _short(option: Option) -> str:
    parts = option if isinstance(option, tuple) else (option,)
    return "-".join(str(part) for part in parts if part is not None)


def _relative(values: FloatArray) -> FloatArray:
    return np.asarray(values / (values.max() or 1.0), dtype=float)
