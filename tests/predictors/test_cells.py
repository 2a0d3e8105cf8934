"""Features of a cell's graph, by hand."""

import numpy as np
import pytest

from hwnas.errors import SpaceError
from hwnas.predictors import CellFeatures, Encoder
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


def test_the_simplest_cell_computes_the_same():
    genomes = np.array([
        [3, 0, 0, 0, 1, 0],  # a 3x3, then a skip
        [3, 2, 0, 0, 1, 0],  # and a 1x1 that leads nowhere
        [0, 1, 0, 3, 0, 0],  # the 3x3 on its own way, and a skip that leads nowhere
        [3, 0, 0, 0, 2, 0],  # a 3x3, then a 1x1
        [0, 3, 0, 0, 0, 2],  # by way of the other node
        [2, 0, 0, 0, 3, 0],  # not the same: a 1x1, then a 3x3
    ])  # fmt: skip
    simplest = FEATURES.simplest(genomes)
    assert (simplest[:3] == [0, 0, 0, 3, 0, 0]).all()
    assert (simplest[3] == simplest[4]).all()
    assert (simplest[3] != simplest[5]).any()


def test_the_simplest_of_all_cells():
    genomes = SPACE.all_genomes(20_000)
    simplest = FEATURES.simplest(genomes)
    assert len(np.unique(simplest, axis=0)) == 4930
    assert (FEATURES.simplest(simplest) == simplest).all()
    assert (FEATURES.words(simplest) == FEATURES.words(genomes)).all()


def test_other_genes_stay():
    space = SearchSpace.of_choices({"resolution": [8, 16], **dict.fromkeys(ENDS, OPERATORS)})
    found = CellFeatures(space, ENDS).simplest(np.array([[1, 3, 2, 0, 0, 1, 0]]))
    assert found.tolist() == [[1, 0, 0, 0, 3, 0, 0]]


def test_too_many_cells_are_refused():
    ends = {f"{i}->{i + 1}": (i, i + 1) for i in range(8)}
    features = CellFeatures(SearchSpace.of_choices(dict.fromkeys(ends, OPERATORS)), ends)
    with pytest.raises(SpaceError, match="390625 cells are more than the 50000"):
        features.simplest(np.zeros((1, 8), dtype=np.int64))


def test_predictors_read_the_simplest_cell_in_the_place_of_each():
    def edges(genomes):
        return (genomes > 0).sum(axis=1, keepdims=True)

    encoder = Encoder(SPACE, exact=edges, counts=FEATURES.words, stand_in=FEATURES.simplest)
    found = encoder(np.array([[3, 2, 0, 0, 1, 0], [0, 0, 0, 3, 0, 0]]))
    for read in (found.genomes, found.one_hot, found.smooth, found.counts):
        np.testing.assert_array_equal(read[0], read[1])
    assert (Encoder(SPACE, exact=edges)(np.array([[3, 2, 0, 0, 1, 0]])).smooth != found.smooth[:1]).any()
