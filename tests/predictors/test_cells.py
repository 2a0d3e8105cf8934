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
    # Maximum and sum over live paths of 1x1, 3x3, pool and all with weights; paths that only skip.
    assert found[8:].tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 0]


def test_dead_edges_change_nothing():
    genomes = np.array([[3, o, 0, 0, 1, 0] for o in range(5)])
    assert (FEATURES(genomes) == FEATURES(genomes)[:1]).all()


def test_an_unknown_edge_is_refused():
    with pytest.raises(SpaceError, match="no choice '3->4'"):
        CellFeatures(SPACE, {"3->4": (3, 4)})


def test_words_of_one_cell():
    # Live: 3x3; 3x3 and skip, which reads as 3x3; 1x1 and pool.
    found = FEATURES.words(np.array([[3, 2, 0, 3, 1, 4]]))[0]
    said = {FEATURES.vocabulary[i]: found[i] for i in np.flatnonzero(found)}
    assert said == {(2,): 2, (1, 3): 1}  # operators without none: skip, 1x1, 3x3, pool


def test_words_of_skips_and_of_nothing():
    only_skips, nothing = FEATURES.words(np.array([[1, 0, 0, 1, 1, 0], [3, 0, 0, 0, 0, 0]]))
    assert only_skips[FEATURES.vocabulary.index(())] == only_skips.sum() == 2
    assert nothing.sum() == 0


def test_cells_that_compute_the_same_read_alike():
    # One 3x3 from input to output, on three different ways; other ways lead nowhere.
    genomes = np.array([[0, 0, 0, 3, 0, 0], [3, 0, 0, 0, 1, 0], [0, 1, 0, 0, 1, 3]])
    words = FEATURES.words(genomes)
    assert (words == words[0]).all()
    assert len(np.unique(FEATURES.words(SPACE.all_genomes(20_000)), axis=0)) == 4120


def test_too_many_words_are_refused():
    nodes = 8
    ends = {f"{i}->{i + 1}": (i, i + 1) for i in range(nodes)}
    features = CellFeatures(SearchSpace.of_choices(dict.fromkeys(ends, OPERATORS)), ends)
    assert features(np.zeros((1, nodes), dtype=np.int64)).shape[0] == 1
    with pytest.raises(SpaceError, match="more than 5000 that counts are for; leave counts out"):
        features.words(np.zeros((1, nodes), dtype=np.int64))
