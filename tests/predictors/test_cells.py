"""Features of a cell's graph, by hand."""

import numpy as np
import pytest

from hwnas.errors import SpaceError
from hwnas.predictors import CellFeatures
from hwnas.space import SearchSpace

OPERATORS = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
ENDS = {"0->1": (0, 1), "0->2": (0, 2), "1->2": (1, 2), "0->3": (0, 3), "1->3": (1, 3), "2->3": (2, 3)}
SPACE = SearchSpace.of_choices(dict.fromkeys(ENDS, OPERATORS))
FEATURES = CellFeatures(SPACE, ENDS)


def test_a_cell_has_four_paths():
    assert FEATURES.paths == [[3], [0, 4], [1, 5], [0, 2, 5]]


def test_counts_of_one_cell():
    # 0->1 3x3, 1->3 skip: one live path; the 1x1 on 0->2 leads nowhere.
    found = FEATURES(np.array([[3, 2, 0, 0, 1, 0]]))[0]
    live, operators = found[:4], found[4:8]
    assert live.tolist() == [0, 1, 0, 0]
    assert operators.tolist() == [1, 0, 1, 0]  # skip, 1x1, 3x3, pool on live edges
    # Maximum and sum over live paths of 1x1, 3x3, pool and all with weights; paths that only skip; whether one is live.
    assert found[8:].tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 0, 1]


def test_dead_edges_change_nothing():
    genomes = np.array([[3, o, 0, 0, 1, 0] for o in range(5)])
    assert (FEATURES(genomes) == FEATURES(genomes)[:1]).all()


def test_an_unknown_edge_is_refused():
    with pytest.raises(SpaceError, match="no choice '3->4'"):
        CellFeatures(SPACE, {"3->4": (3, 4)})
