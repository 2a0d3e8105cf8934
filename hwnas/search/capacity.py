"""Which archs can learn most at a latency, as far as that is known without training?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.pareto import non_dominated
from hwnas.search.evolve import Losses, evolve
from hwnas.search.region import Region
from hwnas.space import Arch, SearchSpace

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Values = Callable[[IntArray], FloatArray]
"""Genomes to one value each."""

POPULATION, GENERATIONS = 200, 60
"""12,000 genomes, a second or two; the front over capacity and latency has stopped moving by then."""


ROUNDING = 1e-12
"""Of a logarithm of a latency."""


DEPTH_COUNTS = 2.0
"""Weight of the logarithm of the entropy in `capacity`, a compromise.

Among networks of one latency 0.5 to 1 ranks the measured subnets of once-for-all best (ImageNet, inherited weights),
and 2 as well as 0; 2 to 8 ranks the cells of NAS-Bench-201 best after 200 epochs, and it matters little after 12. In
the mbv3 space of worth_it.py (5,400 images of CIFAR-10) 1.4 explains three networks after 35 epochs; four of them
differ by their entropy and multiply-adds after 108, and parameters do not count then (`benchmarks/results/worth_it.txt`
and `proxies_ofa.txt`).
"""


def capacity(macs: FloatArray, params: FloatArray, entropy: FloatArray) -> FloatArray:
    """Return how much a network can learn, roughly.

    The mean of the logarithms of multiply-adds and parameters says how large it is, the logarithm of its entropy
    (`hwnas.objectives.exact.entropy_of_space`) how deep.
    """
    return 0.5 * (np.log(macs) + np.log(params)) + DEPTH_COUNTS * np.log(np.maximum(entropy, 1.0))


@dataclass(frozen=True)
class Capable:
    """Archs of greatest capacity at their latency, in milliseconds of one device."""

    space: SearchSpace
    fronts: tuple[tuple[IntArray, FloatArray], ...]
    """Genomes and the logarithms of their latencies, ascending: of the preferred part of the space, then of all of it.
    Empty where no arch is within the limits."""
    targets: FloatArray
    """Logarithms of the latencies that are wanted, ascending."""

    @property
    def archs(self) -> list[Arch]:
        """Different archs, for each wanted latency that of greatest capacity which is as fast.

        Fewer than the latencies where one serves several or where no arch is as fast.
        """
        chosen: dict[Arch, None] = {}
        for target in self.targets:
            for genomes, at in self.fronts:
                if len(within := np.flatnonzero(at <= target + ROUNDING)):
                    chosen[self.space.decode(genomes[within[-1]])] = None
                    break
        return list(chosen)

    @property
    def all_archs(self) -> list[Arch]:
        """Every arch of the fronts."""
        if not self.fronts:
            return []
        return self.space.decode_many(np.unique(np.concatenate([genomes for genomes, _ in self.fronts]), axis=0))


def most_capable(
    space: SearchSpace,
    capacity_of: Values,
    latency_of: Values,
    violation_of: Values,
    n: int,
    wanted_ms: Sequence[float] = (),
    seed: int = 0,
    preferred: Region | None = None,
) -> Capable:
    """Return for several latencies the archs of greatest capacity that are as fast.

    Args:
        space: of the archs.
        capacity_of: of genomes; greater is better.
        latency_of: of genomes, milliseconds.
        violation_of: how far genomes are outside the limits; 0 is inside.
        n: latencies, even in the logarithm from the fastest arch within the limits to the most capable one.
        wanted_ms: these latencies instead.
        seed: of the search.
        preferred: a part of the space, such as its largest resolution; others are taken only for latencies that none
            of its archs reaches.
    """

    def losses_of(genomes: IntArray) -> tuple[FloatArray, FloatArray]:
        losses = np.stack([-capacity_of(genomes), np.log(latency_of(genomes))], axis=1)
        return losses, violation_of(genomes)

    ends = space.encode_many([space.smallest(), space.largest()])
    whole = Region.whole(space)
    fronts = [_front(region, losses_of, seed, ends) for region in (preferred or whole, whole)]
    fronts = [(genomes, at) for genomes, at in fronts if len(genomes)]
    if not fronts:
        return Capable(space, (), np.zeros(0))
    if wanted_ms:
        targets = np.log(np.sort(np.array(wanted_ms, dtype=float)))
    else:
        first, last = min(at[0] for _, at in fronts), fronts[0][1][-1]
        targets = np.linspace(first, last, n) if n > 1 else np.array([last])
    return Capable(space, tuple(fronts), targets)


def _front(
    region: Region, losses_of: Losses, seed: int, start: IntArray
) -> tuple[IntArray, FloatArray]:  # fmt: skip
    """Genomes of greatest capacity at their latency, and the logarithms of the latencies, ascending."""
    genomes, losses, violation = evolve(
        region, losses_of, np.random.default_rng(seed), POPULATION, GENERATIONS, start
    )  # fmt: skip
    genomes, losses = genomes[violation <= 0], losses[violation <= 0]
    if not len(genomes):
        return genomes, losses[:, 0]
    front = np.flatnonzero(non_dominated(losses))
    front = front[np.argsort(losses[front, 1], kind="stable")]
    return genomes[front], losses[front, 1]
