"""NSGA-II and NSGA-III on arrays: thousands of generations a minute where losses are cheap to compute."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from pymoo.algorithms.moo.nsga3 import HyperplaneNormalization, associate_to_niches
from pymoo.util.ref_dirs import get_reference_directions

from hwnas.pareto import crowding_distance, non_dominated_rank
from hwnas.search.memory import genome_keys
from hwnas.search.problem import Problem
from hwnas.search.region import Region

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Losses = Callable[[IntArray], tuple[FloatArray, FloatArray]]
"""Genomes to ``(n, m)`` losses and ``(n,)`` violations, 0 where within the limits."""
Screen = Callable[[IntArray], FloatArray]
"""Genomes to ``(n,)`` violations of what is known without computing losses."""


def survivors(losses: FloatArray, violation: FloatArray, k: int) -> IntArray:
    """Return the rows, best first, of the ``k`` that survive: feasibility, then rank, then room around them.

    Room is crowding distance for two objectives and niches of reference directions for three or more
    (`niche_order`), where crowding says little.

    Args:
        losses: ``(n, m)``; rows with NaN come last.
        violation: ``(n,)``; 0 is feasible.
        k: how many.

    Reference:
        Deb et al., 2002, NSGA-II, sections III-C and VI-A (constraint domination); Deb and Jain, 2014, NSGA-III.
    """
    violation = np.where(np.isnan(losses).any(axis=1), np.inf, violation)
    if losses.shape[1] == 1:
        return np.lexsort((losses[:, 0], violation))[:k]
    feasible = np.flatnonzero(violation <= 0)
    rank = np.full(len(losses), np.inf)
    rank[feasible] = non_dominated_rank(losses[feasible]) if len(feasible) else 0
    if losses.shape[1] > 2 and len(feasible) > k:
        return feasible[niche_order(losses[feasible], rank[feasible], k)]
    room = np.zeros(len(losses))
    filled = 0
    for r in np.unique(rank[feasible]):
        rows = np.flatnonzero(rank == r)
        room[rows] = crowding_distance(losses[rows]) if len(rows) > 2 else np.inf
        filled += len(rows)
        if filled >= k:
            break
    return np.lexsort((-room, rank, violation))[:k]


def fittest(problem: Problem, losses: FloatArray, k: int) -> IntArray:
    """Return the rows, best first, of the ``k`` best evaluated archs: `survivors` by objectives, within all limits.

    Args:
        problem: says which columns are objectives, and the limits.
        losses: ``(n, columns)``; rows with NaN have failed and come last.
        k: how many.
    """
    over = np.where(np.isnan(losses).any(axis=1), np.inf, problem.violation(losses))
    return survivors(losses[:, : problem.n_objectives], over, k)


@cache
def reference_directions(m: int, k: int) -> FloatArray:
    """Return ``(d, m)`` points on the unit simplex, d at most ``k`` but at least ``m``.

    Das and Dennis' lattice, with a second one inside it for five objectives and more. NATv2 spreads points by Riesz
    energy, which takes seconds.
    """

    def lattice(partitions: int) -> FloatArray:
        return np.asarray(get_reference_directions("das-dennis", m, n_partitions=partitions), dtype=float)

    partitions = 1
    while partitions < 100 and len(lattice(partitions + 1)) <= k:
        partitions += 1
    found = lattice(partitions)
    if m >= 5 and len(found) + m <= k:
        found = np.concatenate([found, 0.5 * lattice(1) + 0.5 / m])
    return found


def niche_order(losses: FloatArray, rank: FloatArray, k: int) -> IntArray:
    """Return ``k`` rows, best first: whole ranks while they fit, then those whose niches hold the fewest.

    Losses are scaled between ideal and nadir (by the hyperplane through extreme points) and joined to the nearest
    reference direction; of the rank that does not fit whole, the emptiest niche takes its nearest row in turn. Ties are
    broken by row, not at random.

    Args:
        losses: ``(n, m)`` finite, n more than ``k``.
        rank: ``(n,)``, 0 is the front.
        k: how many.

    Reference:
        Deb and Jain, 2014, NSGA-III, algorithms 1 to 4.
    """
    scale = HyperplaneNormalization(losses.shape[1])
    scale.update(losses, nds=np.flatnonzero(rank == 0))
    directions = reference_directions(losses.shape[1], k)
    niche, away, _ = associate_to_niches(losses, directions, scale.ideal_point, scale.nadir_point)
    order = np.lexsort((away, rank))
    splitting = rank[order[k - 1]]
    taken = order[rank[order] < splitting].tolist()
    count = np.bincount(niche[taken], minlength=len(directions))
    waiting: dict[int, list[int]] = {}
    for row in order[rank[order] == splitting].tolist():  # nearest to its direction first
        waiting.setdefault(int(niche[row]), []).append(row)
    while len(taken) < k:
        emptiest = min(waiting, key=lambda n: (count[n], n))
        taken.append(waiting[emptiest].pop(0))
        count[emptiest] += 1
        if not waiting[emptiest]:
            del waiting[emptiest]
    return np.array(taken, dtype=np.int64)


def evolve(
    region: Region,
    losses_of: Losses,
    rng: np.random.Generator,
    population: int = 100,
    generations: int = 20,
    start: IntArray | None = None,
    screen: Screen | None = None,
    draws: int = 4,
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
        screen: more children are bred than are needed, and those that it finds least outside come first, so that
            losses are hardly computed for what cannot survive.
        draws: with a screen, children bred for one whose losses are computed.

    Returns:
        ``(p, n_choices)`` genomes of the last population, best first, with losses and violations.

    Reference:
        Deb et al., 2002, NSGA-II.
    """
    draws = draws if screen is not None else 1
    seen: set[bytes] = set()
    first = region.draw(rng, draws * population)
    if start is not None and len(start):
        first = np.concatenate([region.repair(rng, start)[:population], first])
    genomes = _fresh(first, seen, population, screen)
    losses, violation = losses_of(genomes)
    keep = survivors(losses, violation, population)
    genomes, losses, violation = genomes[keep], losses[keep], violation[keep]
    free = max(1, int((~region.frozen).sum()))
    for _ in range(generations):
        # Rows are in order of survival, so the smaller of two row numbers wins the tournament.
        parents = rng.integers(0, len(genomes), (2, draws * population, 2)).min(axis=2)
        from_first = rng.random((draws * population, genomes.shape[1])) < 0.5
        from_first |= rng.random((draws * population, 1)) >= 0.9
        from_first[:, region.frozen] = True  # frozen genes stay together, as in one of the region's donors
        bred = region.mutate(rng, np.where(from_first, genomes[parents[0]], genomes[parents[1]]), 1.0 / free)
        children = _fresh(bred, seen, population, screen)
        if not len(children):
            children = _fresh(region.draw(rng, draws * population), seen, population, screen)
            if not len(children):
                break
        new_losses, new_violation = losses_of(children)
        genomes = np.concatenate([genomes, children])
        losses = np.concatenate([losses, new_losses])
        violation = np.concatenate([violation, new_violation])
        keep = survivors(losses, violation, population)
        genomes, losses, violation = genomes[keep], losses[keep], violation[keep]
    return genomes, losses, violation


def _fresh(genomes: IntArray, seen: set[bytes], n: int, screen: Screen | None) -> IntArray:
    """Return at most ``n`` rows whose genomes are not in ``seen``, those inside the screen first; add them to it."""
    keys = genome_keys(genomes)
    order = range(len(genomes)) if screen is None else np.argsort(screen(genomes), kind="stable").tolist()
    keep: list[int] = []
    for i in order:
        if len(keep) == n:
            break
        if keys[i] not in seen:
            seen.add(keys[i])
            keep.append(i)
    return genomes[keep]
