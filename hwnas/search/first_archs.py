"""Which archs are evaluated first, before any model?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.search.acquire import pick_by_gaps, pick_evenly
from hwnas.search.memory import Memory, genome_keys
from hwnas.search.problem import Problem, evaluate_genomes
from hwnas.search.region import Region

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def first_archs(
    memory: Memory, region: Region, rng: np.random.Generator, n: int, draws_per_arch: int = 100
) -> IntArray:
    """Choose archs without a model: both bounds, and draws of which a third has options evenly, the rest is spread.

    The bounds are the region's smallest and its largest arch, as in NATv2, but for those outside the limits on cheap
    values. Draws are spread over what is known: the cheap losses and, to be large, the capacity; with fewer than two of
    these all are drawn so that options occur evenly. NATv2 thins ten times as many *evaluated* archs by survival.

    Args:
        memory: of the search; its problem says what is known beforehand.
        region: where the archs may be.
        rng: source of randomness.
        n: how many.
        draws_per_arch: draws of which one is kept.

    Returns:
        At most ``n`` new genomes, ``(n, n_choices)``.
    """
    ends = _bounds(memory, region)[:n]
    if len(ends) == n:
        return ends
    return np.concatenate([ends, _draws(memory, region, rng, n - len(ends), n * draws_per_arch, ends)])


def _bounds(memory: Memory, region: Region) -> IntArray:
    """The region's smallest and largest arch, where they are new and inside the limits on cheap values."""
    problem = memory.problem
    ends = np.array([[a[0] for a in region.allowed], [a[-1] for a in region.allowed]], dtype=np.int64)
    ends = problem.space.canonical(ends)
    ends = ends[memory.is_new(ends)]
    if not len(ends) or region.frozen.any():
        return ends[:0]
    losses = problem.cheap_losses(ends)
    there = np.isfinite(losses[:, problem.cheap_columns]).all(axis=1)
    return ends[there & (problem.violation(losses) <= 0)]


def _draws(memory: Memory, region: Region, rng: np.random.Generator, n: int, n_draws: int, taken: IntArray) -> IntArray:
    """At most ``n`` new genomes out of ``n_draws`` draws, none of ``taken``; see `first_archs`."""
    problem = memory.problem
    if region.is_whole and not problem.cheap_limits:
        draws = memory.draw_new(rng, n_draws)
    else:
        draws = _towards_limits(problem, region.draw(rng, n_draws), region, rng)
    draws = _without(draws[memory.is_new(draws)], taken)
    if not len(draws):
        return _without(memory.draw_new(rng, n + len(taken)), taken)[:n]
    losses = problem.cheap_losses(draws)
    cheap = losses[:, problem.cheap_columns[problem.cheap_columns < problem.n_objectives]]
    capacity = [evaluate_genomes(o, problem.space, draws) for o in problem.capacity]
    known = np.concatenate([cheap, -np.array(capacity).reshape(len(capacity), len(draws)).T], axis=1)
    there = np.isfinite(known).all(axis=1) & np.isfinite(losses[:, problem.cheap_columns]).all(axis=1)
    over = np.where(there, problem.violation(losses), np.inf)
    nearest = np.flatnonzero(over == over.min())
    if len(nearest) < n or not np.isfinite(over.min()):
        return np.asarray(draws[np.argsort(over, kind="stable")[:n]], dtype=np.int64)
    even = nearest[pick_evenly(problem.space, draws[nearest], n if known.shape[1] < 2 else -(-n // 3))]
    if len(even) == n:
        return np.asarray(draws[even], dtype=np.int64)
    left = np.setdiff1d(nearest, even)
    low, high = known[left].min(axis=0), np.quantile(known[left], 0.99, axis=0)
    scaled = (known - low) / np.where(high > low, high - low, 1.0)
    spread = pick_by_gaps(scaled[left], np.zeros((0, known.shape[1])), n - len(even))
    return np.asarray(draws[np.concatenate([even, left[spread]])], dtype=np.int64)


def _without(genomes: IntArray, taken: IntArray) -> IntArray:
    """Genomes that are not among ``taken``."""
    known = set(genome_keys(taken))
    return genomes[[key not in known for key in genome_keys(genomes)]]


def _towards_limits(problem: Problem, genomes: IntArray, region: Region, rng: np.random.Generator) -> IntArray:
    """Give archs outside the limits on cheap values ever more genes of archs inside, until they fit.

    Half of them take the genes of the smallest arch, where it is inside: they keep most of their own. Uniform
    draws within a tight limit would all be alike (of the lowest resolution, say), and a predictor cannot know
    what it never saw.
    """

    def outside(genomes: IntArray) -> FloatArray:
        return np.nan_to_num(problem.violation(problem.cheap_losses(genomes)), nan=np.inf)

    if not problem.cheap_limits or not len(genomes):
        return genomes
    smallest = region.repair(rng, problem.space.encode_many([problem.space.smallest()]))
    over = outside(np.concatenate([genomes, smallest]))
    inside = np.flatnonzero(over == over.min())
    donors = np.concatenate([genomes, smallest])[inside[rng.integers(0, len(inside), len(genomes))]]
    if len(genomes) in inside:
        donors = np.where(rng.random((len(genomes), 1)) < 0.5, smallest, donors)
    out, over = genomes.copy(), over[:-1]
    turn = rng.random(genomes.shape)
    for share in np.linspace(0.1, 1.0, 10):
        bad = np.flatnonzero(over > 0)
        if not len(bad):
            break
        out[bad] = problem.space.canonical(np.where(turn[bad] < share, donors[bad], genomes[bad]))
        over[bad] = outside(out[bad])
    return out
