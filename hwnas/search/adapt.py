"""When does a search pause to have its supernet trained on, and with which subnets?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import SearchError
from hwnas.search.evolve import fittest
from hwnas.search.problem import Problem, Searcher
from hwnas.space import Arch, SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BEST = 150
"""Archs from which the shares of options are taken, at most."""


@dataclass(frozen=True)
class Round:
    """One pause of a search, in which its supernet is adapted."""

    share: float
    """Of the evaluations, between 0 and 1, after which it comes."""
    held: tuple[str, ...] = ()
    """Choices that all archs have had alike so far: nothing is known yet of what their weights should become."""


def plan_rounds(searcher: Searcher, n: int) -> tuple[Round, ...]:
    """Return ``n`` pauses of a search.

    They split the evaluations evenly. A searcher with phases of its own (an attribute ``phase_changes``) is paused
    where one phase ends and the next begins: the last changes first, and what is left splits the last phase evenly.
    """
    if n < 1:
        raise SearchError(f"{n} rounds of adaptation; give at least 1")
    changes: tuple[Round, ...] = tuple(getattr(searcher, "phase_changes", ()))
    if n <= len(changes):
        return changes[-n:]
    start = changes[-1].share if changes else 0.0
    more = n - len(changes)
    return (*changes, *(Round(start + (1 - start) * i / (more + 1)) for i in range(1, more + 1)))


def best_shares(problem: Problem, archs: Sequence[Arch], losses: FloatArray, most: int = BEST) -> dict[str, FloatArray]:
    """Return, by choice, how often the best archs take each option; see `gene_distributions`.

    The best are the better half by survival (feasibility, rank, room around them), and at most ``most``. NATv2 takes
    150 of an archive of 300.

    Args:
        problem: says what is better.
        archs: evaluated, by any searcher.
        losses: ``(n, columns)``; rows with NaN have failed and do not count.
        most: archs at most.
    """
    complete = np.asarray(np.isfinite(losses).all(axis=1), dtype=bool)
    n = min(most, -(-int(complete.sum()) // 2))
    best = fittest(problem, losses, n) if n else np.zeros(0, dtype=np.int64)
    genomes = problem.space.encode_many([archs[i] for i in best.tolist() if complete[i]])
    return gene_distributions(problem.space, genomes)


def gene_distributions(space: SearchSpace, genomes: IntArray) -> dict[str, FloatArray]:
    """Return, by choice, the share of archs that take each option, one arch spread evenly added.

    NATv2 fits the best of scipy's continuous distributions to every integer gene and rounds its draws; options
    have no order in general, so shares are used here. `SearchSpace.sample_genomes` draws from them.

    Args:
        space: where the genomes come from.
        genomes: ``(n, n_choices)``; inactive choices are not counted.

    Returns:
        ``(n_options,)`` probabilities by the choice's name.

    Reference:
        Sarti, Lomurno and Matteucci, 2023, NATv2; Lu et al., 2021, NAT.
    """
    active = space.active(genomes)
    out = {}
    for i, choice in enumerate(space.choices):
        n = len(choice.options)
        counts = np.bincount(genomes[active[:, i], i], minlength=n) + 1.0 / n
        out[choice.name] = np.asarray(counts / counts.sum(), dtype=float)
    return out
