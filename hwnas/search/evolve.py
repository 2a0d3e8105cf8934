"""NSGA-II on arrays: thousands of generations a minute where losses are cheap to compute."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hwnas.pareto import crowding_distance, non_dominated_rank
from hwnas.search.memory import genome_keys
from hwnas.search.region import Region

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Losses = Callable[[IntArray], tuple[FloatArray, FloatArray]]
"""Genomes to ``(n, m)`` losses and ``(n,)`` violations, 0 where within the limits."""


def survivors(losses: FloatArray, violation: FloatArray, k: int) -> IntArray:
    """Return the rows, best first, of the ``k`` that survive: feasibility, then rank, then crowding.

    Args:
        losses: ``(n, m)``; rows with NaN come last.
        violation: ``(n,)``; 0 is feasible.
        k: how many.

    Reference:
        Deb et al., 2002, NSGA-II, sections III-C and VI-A (constraint domination).
    """
    violation = np.where(np.isnan(losses).any(axis=1), np.inf, violation)
    feasible = np.flatnonzero(violation <= 0)
    rank = np.zeros(len(losses))
    rank[feasible] = non_dominated_rank(losses[feasible]) if len(feasible) else 0
    rank[violation > 0] = np.inf
    room = np.zeros(len(losses))
    filled = 0
    for r in np.unique(rank[feasible]):
        rows = np.flatnonzero(rank == r)
        room[rows] = crowding_distance(losses[rows]) if losses.shape[1] > 1 and len(rows) > 2 else np.inf
        filled += len(rows)
        if filled >= k:
            break
    return np.lexsort((-room, rank, violation))[:k]


def evolve(
    region: Region,
    losses_of: Losses,
    rng: np.random.Generator,
    population: int = 100,
    generations: int = 20,
    start: IntArray | None = None,
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Evolve genomes under losses that are cheap to compute.

    Uniform crossover of two tournament winners in 9 of 10, every free gene drawn anew with probability
    1/n; no genome is computed twice. NATv2 uses two-point crossover and integer polynomial mutation.

    Args:
        region: where to look.
        losses_of: called with new distinct genomes only.
        rng: source of randomness.
        population: survivors and offspring of a generation.
        generations: how many, after the first.
        start: ``(k, n_choices)`` genomes to begin with; random ones fill up.

    Returns:
        ``(p, n_choices)`` genomes of the last population, best first, with losses and violations.

    Reference:
        Deb et al., 2002, NSGA-II.
    """
    genomes = region.draw(rng, population)
    if start is not None and len(start):
        genomes = np.concatenate([region.repair(rng, start)[:population], genomes])
    seen: set[bytes] = set()
    genomes = _fresh(genomes, seen)[:population]
    losses, violation = losses_of(genomes)
    free = max(1, int((~region.frozen).sum()))
    for _ in range(generations):
        n = len(genomes)
        # Rows are in order of survival, so the smaller of two row numbers wins the tournament.
        parents = rng.integers(0, n, (2, population, 2)).min(axis=2)
        take = rng.random((population, genomes.shape[1])) < 0.5
        take |= rng.random((population, 1)) >= 0.9
        children = np.where(take, genomes[parents[0]], genomes[parents[1]])
        children = _fresh(region.mutate(rng, children, 1.0 / free), seen)
        if not len(children):
            children = _fresh(region.draw(rng, population), seen)
            if not len(children):
                break
        new_losses, new_violation = losses_of(children)
        genomes = np.concatenate([genomes, children])
        losses = np.concatenate([losses, new_losses])
        violation = np.concatenate([violation, new_violation])
        keep = survivors(losses, violation, population)
        genomes, losses, violation = genomes[keep], losses[keep], violation[keep]
    return genomes, losses, violation


def _fresh(genomes: IntArray, seen: set[bytes]) -> IntArray:
    """Return the rows whose genomes are not in ``seen``, and add them to it."""
    keep = []
    for i, key in enumerate(genome_keys(genomes)):
        if key not in seen:
            seen.add(key)
            keep.append(i)
    return genomes[keep]
