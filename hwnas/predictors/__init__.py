"""Archs to predicted objectives: predictors behind one interface, and how well they rank."""

from hwnas.predictors.by_name import PREDICTORS, make_predictor
from hwnas.predictors.cells import CellFeatures
from hwnas.predictors.encoder import Encode, Encoder, Inputs
from hwnas.predictors.fallback import fit_or_fall_back
from hwnas.predictors.predictor import Model, Predictor, RankMetrics, cross_validate, rank_metrics

__all__ = [
    "PREDICTORS",
    "CellFeatures",
    "Encode",
    "Encoder",
    "Inputs",
    "Model",
    "Predictor",
    "RankMetrics",
    "cross_validate",
    "fit_or_fall_back",
    "make_predictor",
    "rank_metrics",
]
