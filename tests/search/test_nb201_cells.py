"""What the benchmark on NAS-Bench-201 lets predictors read: words of paths, of the simplest cell that is equal."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import SpaceError
from hwnas.objectives import Objective
from hwnas.predictors import Encoder
from hwnas.search import Problem
from hwnas.space import SearchSpace

SPEC = importlib.util.spec_from_file_location(
    "nb201_cells", Path(__file__).parents[2] / "benchmarks" / "nb201_cells.py"
)
cells = importlib.util.module_from_spec(SPEC)
sys.modules["nb201_cells"] = cells
SPEC.loader.exec_module(cells)

OPERATORS = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
ENDS = {"0->1": (0, 1), "0->2": (0, 2), "1->2": (1, 2), "0->3": (0, 3), "1->3": (1, 3), "2->3": (2, 3)}
SPACE = SearchSpace.of_choices(dict.fromkeys(ENDS, OPERATORS))
FEATURES = cells.Cells(SPACE, ENDS)


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
    features = cells.Cells(SearchSpace.of_choices(dict.fromkeys(ends, OPERATORS)), ends)
    assert features(np.zeros((1, nodes), dtype=np.int64)).shape[0] == 1
    with pytest.raises(SpaceError, match="more than 5000 that counts are for"):
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
    found = cells.Cells(space, ENDS).simplest(np.array([[1, 3, 2, 0, 0, 1, 0]]))
    assert found.tolist() == [[1, 0, 0, 0, 3, 0, 0]]


def test_too_many_cells_are_refused():
    ends = {f"{i}->{i + 1}": (i, i + 1) for i in range(8)}
    features = cells.Cells(SearchSpace.of_choices(dict.fromkeys(ends, OPERATORS)), ends)
    with pytest.raises(SpaceError, match="390625 cells are more than the 50000"):
        features.simplest(np.zeros((1, 8), dtype=np.int64))


def test_predictors_read_the_simplest_cell_in_the_place_of_each():
    problem = Problem(SPACE, (Objective("error", "min", lambda archs: [0.0 for _ in archs]),))
    genomes = np.array([[3, 2, 0, 0, 1, 0], [0, 0, 0, 3, 0, 0]])
    found = cells.CellEncoder(problem, FEATURES)(genomes)
    for read in (found.genomes, found.one_hot, found.smooth, *found.further):
        np.testing.assert_array_equal(read[0], read[1])
    plain = Encoder(SPACE, problem.known)(genomes)
    assert (plain.smooth[0] != plain.smooth[1]).any()
    assert len(found.groups) == len(plain.groups) + 1
    everything = cells.CellEncoder(problem, FEATURES)(SPACE.all_genomes(20_000))
    assert (everything.further[0] ** 2).sum(axis=1).mean() == pytest.approx(1.0, rel=0.1)
