"""Objectives: one place where signs change, and mistakes that are named."""

import numpy as np
import pytest

from hwnas.errors import RecipeError
from hwnas.objectives import Objective, as_losses, as_values


def objective(name, direction):
    return Objective(name, direction, lambda archs: [0.0 for _ in archs])


OBJECTIVES = [objective("top1_percent", "max"), objective("latency_ms", "min"), objective("introspectability", "max")]


def test_maximised_columns_change_their_sign_by_hand():
    values = np.array([[90.0, 3.0, 0.5], [np.nan, 2.0, -0.25]])
    losses = as_losses(values, OBJECTIVES)
    np.testing.assert_array_equal(losses, [[-90.0, 3.0, -0.5], [np.nan, 2.0, 0.25]])
    np.testing.assert_array_equal(as_values(losses, OBJECTIVES), values)
    assert values[0, 0] == 90.0


def test_no_rows_are_no_rows():
    assert as_losses(np.zeros((0, 3)), OBJECTIVES).shape == (0, 3)


def test_another_direction_names_value_and_choices():
    with pytest.raises(RecipeError, match="'up'; use 'min' or 'max'"):
        objective("macs", "up")


@pytest.mark.parametrize("provider", [None, "accuracy", 3])
def test_an_objective_without_a_provider_is_an_error(provider):
    with pytest.raises(RecipeError, match=r"objective 'energy_mj' has no provider: evaluate must be a function"):
        Objective("energy_mj", "min", provider)
