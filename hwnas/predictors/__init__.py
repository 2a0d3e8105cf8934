"""Archs to predicted objectives: predictors behind one interface, and how well they rank."""

from hwnas.predictors.inputs import Inputs
from hwnas.predictors.kernel import GaussianProcess
from hwnas.predictors.predictor import Model, Predictor

PREDICTORS = {"gp": GaussianProcess}

__all__ = ["PREDICTORS", "GaussianProcess", "Inputs", "Model", "Predictor"]
