"""How well could a search predict?"""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.predictors import RankMetrics


@dataclass(frozen=True)
class PredictorQuality:
    """How well a search could predict one objective."""

    predictor: str
    """Its name, such as ``gp_groups``."""
    archs: int
    """On which it was judged, each left out of one fit."""
    folds: int
    metrics: RankMetrics
    """Means and deviations over the folds; the error is in the objective's unit."""

    def __str__(self) -> str:
        m = self.metrics
        return (
            f"Kendall's tau {m.kendall_tau:.2f} ± {m.kendall_tau_deviation:.2f}, Spearman {m.spearman:.2f} ± "
            f"{m.spearman_deviation:.2f}, RMSE {m.rmse:.3g} ± {m.rmse_deviation:.2g} "
            f"({self.predictor}, {self.folds} folds of {self.archs} archs)"
        )
