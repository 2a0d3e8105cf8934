"""Which operators of each layer are worth their cost on this device?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.search.problem import Problem, evaluate_genomes
from hwnas.space import SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Specialisation:
    """The options of every choice with what they cost and can learn, and which are kept."""

    space: SearchSpace
    kept: tuple[IntArray, ...]
    """For every choice: the kept options' indices, ascending."""
    cost: tuple[FloatArray, ...]
    """For every choice, ``(n_options,)``: marginal cost, in the unit of the cost; 0 for the cheapest."""
    capacity: tuple[FloatArray, ...]
    """For every choice, ``(n_options,)``: marginal capacity, 0 to 1 within the choice."""
    score: tuple[FloatArray, ...]
    """For every choice, ``(n_options,)``: relative cost over relative capacity; smaller is better."""
    cost_name: str
    """Name of the objective that is the cost; empty: there was none, and everything is kept."""

    @property
    def restricted(self) -> SearchSpace:
        """The specialised space; its ``size`` is exact."""
        keep = {c.name: [c.options[i] for i in k] for c, k in zip(self.space.choices, self.kept, strict=True)}
        return self.space.restrict(keep)

    def summary(self) -> str:
        """Return one line: for what the space was specialised, and both sizes."""
        before, after = self.space.size, self.restricted.size
        return f"space specialised for {self.cost_name}: {after:,} of {before:,} archs ({after / before:.2g})"

    def table(self) -> str:
        """Return a printable table: every choice, what is kept, what is dropped, and both sizes."""
        lines = [f"{'choice':<20} kept / dropped (score; {self.cost_name or 'no cost'} +)"]
        for i, choice in enumerate(self.space.choices):
            kept = set(self.kept[i].tolist())

            def show(rows: list[int], i: int = i) -> str:
                options = self.space.choices[i].options
                return ", ".join(f"{options[j]} ({self.score[i][j]:.2f}; {self.cost[i][j]:.3g})" for j in rows)

            rows = range(len(choice.options))
            dropped = show([j for j in rows if j not in kept])
            lines.append(f"{choice.name:<20} {show([j for j in rows if j in kept])} / {dropped or '-'}")
        lines.append(f"{self.space.size:,} archs before, {self.restricted.size:,} after")
        return "\n".join(lines)


def specialise(problem: Problem, keep: int | None = None, n_probes: int = 16) -> Specialisation:
    """Score every option of every choice by its marginal cost against its marginal capacity.

    Each option is put into the same archs in turn; the mean change of the first cheap minimised value
    (the device's latency, say) is its cost, and of the capacity objectives its capacity. Within a choice both
    are divided by their maximum, and the ``keep`` options with the smallest cost / capacity stay. The cheapest
    always stays, so that a limit can be met, and the one of most capacity, so that the accurate end of the
    front is not cut off. Options of switching choices (depths) all stay.

    The paper scores a pool of 32 operators by latency against FLOPs and params; the formula and the two
    exceptions are ours.

    Args:
        problem: its cheap values and ``capacity`` are read; nothing is evaluated.
        keep: options that a choice keeps by score; None: half of them, at least 4.
        n_probes: archs in which every option of a choice is tried.

    Reference:
        Zhang et al., 2020, HURRICANE, operator selection.
    """
    space = problem.space
    cheap = [o for o in problem.columns if o.cheap and o.direction == "min"]
    names = {o.name for o in cheap[:1]}
    capacity = [o for o in problem.capacity if o.name not in names] or cheap[1:]
    parents = {c.parent for c in space.choices}
    probes = space.sample_genomes(np.random.default_rng(0), 4 * n_probes)
    everything = tuple(np.arange(n) for n in space.n_options)
    zeros = tuple(np.zeros(n) for n in space.n_options)
    if not cheap or not capacity:
        return Specialisation(space, everything, zeros, zeros, zeros, "")
    kept, costs, capacities, scores = [], [], [], []
    for i, choice in enumerate(space.choices):
        n = len(choice.options)
        base = probes[space.active(probes)[:, i]][:n_probes]
        if n == 1 or not len(base):
            kept.append(np.arange(n))
            costs.append(np.zeros(n))
            capacities.append(np.zeros(n))
            scores.append(np.zeros(n))
            continue
        tried = np.repeat(base, n, axis=0)
        tried[:, i] = np.tile(np.arange(n), len(base))
        tried = space.canonical(tried)

        def marginal(values: FloatArray, n: int = n) -> FloatArray:
            mean = np.nanmean(values.reshape(-1, n), axis=0)
            return np.asarray(mean - np.nanmin(mean), dtype=float)

        cost = marginal(evaluate_genomes(cheap[0], space, tried))
        size = np.zeros(n)
        for objective in capacity:
            gain = marginal(evaluate_genomes(objective, space, tried))
            size += gain / (gain.max() or 1.0) / len(capacity)
        score = (cost / (cost.max() or 1.0) + 0.1) / (size + 0.1)
        stay = set(np.argsort(score, kind="stable")[: keep or max(4, -(-n // 2))].tolist())
        stay |= {int(np.argmin(cost)), int(np.argmax(size - 1e-6 * cost / (cost.max() or 1.0)))}
        if choice.name in parents:
            stay = set(range(n))
        kept.append(np.array(sorted(stay), dtype=np.int64))
        costs.append(cost)
        capacities.append(size)
        scores.append(score)
    return Specialisation(space, tuple(kept), tuple(costs), tuple(capacities), tuple(scores), cheap[0].name)
