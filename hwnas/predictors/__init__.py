"""Archs to predicted objectives: predictors behind one interface, and how well they rank."""

from hwnas.predictors.cells import CellFeatures
from hwnas.predictors.classic import CART, MLP, RBF, SVR, BayesianRidge, LightGBM, ReNAS
from hwnas.predictors.encoder import Encoder, Inputs
from hwnas.predictors.gp import GaussianProcess, GroupedProcess
from hwnas.predictors.predictor import Model, Predictor, RankMetrics, cross_validate, rank_metrics
from hwnas.predictors.select import PREDICTORS, Auto, Blend, fit_or_fall_back, make_predictor

__all__ = [
    "CART",
    "MLP",
    "PREDICTORS",
    "RBF",
    "SVR",
    "Auto",
    "BayesianRidge",
    "Blend",
    "CellFeatures",
    "Encoder",
    "GaussianProcess",
    "GroupedProcess",
    "Inputs",
    "LightGBM",
    "Model",
    "Predictor",
    "RankMetrics",
    "ReNAS",
    "cross_validate",
    "fit_or_fall_back",
    "make_predictor",
    "rank_metrics",
]
