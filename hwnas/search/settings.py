"""What steers a search with a predictor: every number, what it means, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from hwnas.errors import SearchError


@dataclass(frozen=True)
class NATv2Settings:
    """Settings of `NATv2` and `Hurricane`; the defaults fit 50 to 2,000 evaluations and should rarely be changed.

    "Measured" means chosen by regret on the tables of NAS-Bench-201 and by top-1 under limits in the Once-For-All space
    (``benchmarks/results/search_nb201.txt``, ``search_ofa_note10.txt``); papers are named where a number is theirs. NAT
    is Lu et al., 2021; NSGANetV2 is Lu et al., 2020; NATv2 is Sarti, Lomurno and Matteucci, 2023.
    """

    # -- how many archs --

    first_archs: int = 12
    """Archs drawn without a model in a search of up to `first_archs_for` evaluations. NATv2 thins 3,000 to 300."""
    first_archs_for: int = 50
    """Evaluations up to which `first_archs` are enough."""
    first_archs_every: int = 12
    """Evaluations beyond `first_archs_for` that add one first arch."""
    most_first_archs: int = 60
    """First archs of the longest search."""
    least_first_archs: int = 4
    """First archs of the shortest search, where a third of the evaluations is less; a model needs two folds of two."""
    most_per_generation: int = 25
    """Archs evaluated between two fits of the predictor, at most; see `per_generation`."""
    training_archs: int = 1000
    """Evaluated archs that a predictor learns from, at most: half of them the best, half spread over the rest. Of the
    best alone it learns little but what they share, and long searches stood still."""

    # -- candidates --

    listed_archs: int = 50_000
    """Spaces of up to so many archs are predicted whole; larger ones are searched by evolution on the predictor."""
    population: int = 100
    """Survivors of a generation of that evolution (NATv2; NSGANetV2 has 40)."""
    generations: int = 20
    """Generations of that evolution (NATv2)."""
    parents: int = 50
    """Best evaluated archs with which evolution begins, and whose neighbours are candidates."""
    neighbours: int = 4
    """Neighbours of each of them."""
    neighbour_changes: float = 1.5
    """Genes of a neighbour that are drawn anew, on average."""
    children_per_survivor: int = 4
    """Children bred for one that is predicted, where limits on exact values reject before that."""
    first_draws: int = 100
    """Draws of which one becomes a first arch."""
    optimism_deviations: float = 0.5
    """Standard deviations by which a prediction is thought better while candidates evolve, and where gaps or
    hypervolume are filled; more was worse (measured: regret 1.49 % at 100 evaluations)."""

    # -- which candidates are evaluated --

    gaps_every: int = 3
    """One generation in so many fills the widest gaps of the front; the others take expected improvement (measured)."""
    improvement_from: float = 0.5
    """Share of the evaluations after which every generation takes expected improvement (measured)."""
    improvement_shortlist: int = 1000
    """Candidates of the largest expected improvement whose improvement is computed again after each choice."""
    hypervolume_samples: int = 4096
    """Points at which hypervolume of three objectives or more is counted: known to about 1.6 % of the box."""
    restart_after: int = 200
    """Evaluations without a change of the front after which a search of a large space begins anew, where twice as many
    are left (measured: of two searches of 2,000 under 40 ms one had stayed at 83.5 % from its 400th evaluation on)."""

    # -- how losses are warped before they are fitted (`hwnas.search.acquire.Warp`) --

    warp_floor: float = 3.0
    """The logarithm's zero lies so many spreads below the best loss. A spread is how far the median of archs drawn
    without a model is above the best."""
    warp_breakpoint: tuple[float, float] = (3.0, 6.0)
    """The map flattens at the poorest of these archs, but at least and at most so many spreads above the best
    (measured: what is cheap on a front must lie before it)."""
    warp_slope_beyond: float = 0.2
    """Slope beyond the breakpoint as a share of that of the logarithm; below 1 the predictor spends its effort where
    the front is."""

    # -- phases of `Hurricane` --

    phase_shares: tuple[float, float] = (0.2, 0.4)
    """Shares of what is left after the first archs at which the later stages' phase ends, and the earlier stages'."""
    phase_evaluations: tuple[int, int] = (100, 200)
    """The same in evaluations, at most: what one half can learn while the other is held is soon learnt."""
    held_archs: int = 8
    """Best archs whose genes are held in one half of the stages while the other half is searched."""
    probe_archs: int = 16
    """Archs in which every option of a choice is tried to score it (`specialise`)."""

    def __post_init__(self) -> None:
        counts = {f.name: getattr(self, f.name) for f in fields(self) if f.type == "int"}
        if bad := {name: n for name, n in counts.items() if not isinstance(n, int) or n < 0}:
            raise SearchError(f"settings {bad} must be whole numbers of 0 or more")
        if not 0 < self.warp_slope_beyond <= 1:
            raise SearchError(f"warp_slope_beyond is {self.warp_slope_beyond}; give more than 0 and at most 1")

    def n_first(self, evaluations: int) -> int:
        """Return how many archs are drawn without a model: about a twelfth of the evaluations, at most a third."""
        more = max(0, evaluations - self.first_archs_for) // self.first_archs_every
        third = max(self.least_first_archs, evaluations // 3)
        return int(min(self.first_archs + more, self.most_first_archs, third))

    def per_generation(self, evaluations: int) -> int:
        """Return how many archs are evaluated between two fits: 1 of 50 evaluations, 4 of 200, 6 of 400."""
        return int(np.clip(round(min(evaluations / 50, np.sqrt(evaluations) / 3.5)), 1, self.most_per_generation))

    @classmethod
    def of(cls, given: NATv2Settings | Mapping[str, Any] | None) -> NATv2Settings:
        """Return settings from themselves, from some of them by name (as in a recipe), or the defaults.

        Raises:
            SearchError: a name that is no setting.
        """
        if isinstance(given, NATv2Settings):
            return given
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in (given or {}).items()}
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise SearchError(f"settings {unknown} are unknown; known are {', '.join(known)}")
        return cls(**values)
