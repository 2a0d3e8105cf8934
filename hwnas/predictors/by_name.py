"""How does the name of a predictor become one?"""

from __future__ import annotations

from collections.abc import Callable

from hwnas.predictors.predictor import Predictor
from hwnas.registry import Registry, made

PREDICTORS: Registry[Callable[..., Predictor]] = Registry(
    "predictor",
    {
        "gp_groups": "hwnas.predictors.gp:GroupedProcess",
        "gp": "hwnas.predictors.gp:GaussianProcess",
        "rbf": "hwnas.predictors.rbf:RBF",
        "svr": "hwnas.predictors.svr:SVR",
        "cart": "hwnas.predictors.trees:CART",
        "lightgbm": "hwnas.predictors.trees:LightGBM",
        "mlp": "hwnas.predictors.networks:MLP",
        "renas": "hwnas.predictors.networks:ReNAS",
    },
    ("__call__",),
    "hwnas.predictors.predictor",
)
"""Factories, each called without arguments; see `hwnas.predictors.predictor.Predictor`."""


def make_predictor(predictor: str | Predictor) -> Predictor:
    """Return the predictor called so, or the one that is given.

    Raises:
        PluginError: the name stands for none.
    """
    return made(PREDICTORS, predictor, {}) if isinstance(predictor, str) else predictor
