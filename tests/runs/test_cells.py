"""A run on the cell space of NAS-Bench-201: predictors read the cell's graph, XNAS judges the cells."""

import csv
import json

import numpy as np
import pytest

from hwnas.objectives.introspectability import introspectability
from hwnas.predictors import CellFeatures
from hwnas.runs.problem import make_problem
from hwnas.runs.start import open_run, run
from hwnas.space.dialects.nasbench201 import parse_nasbench201

FAMILY = {"family": "nasbench201", "in_channels": 1, "classes": 10, "resolutions": [8], "stem_width": 4,
          "cells_per_stage": 1}  # fmt: skip
TRAIN = {"batch_size": 50, "phases": [{"name": "paths", "epochs": 2, "lr": 0.05, "elastic": {"operator": "all"}}]}
OBJECTIVES = ["top1_percent", "latency_ms", "introspectability"]


@pytest.fixture(scope="module")
def cells(tiny_recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    changes = {
        "supernet": FAMILY, "train": TRAIN, "objectives": OBJECTIVES, "devices": ["hexagon-dsp"],
        "search": {"algorithm": "hurricane", "evaluations": 9}, "export": {"front_size": 2},
    }  # fmt: skip
    (folder / "cells.yaml").write_text(json.dumps({**tiny_recipe, **changes}))
    return run(folder / "cells.yaml", out=folder / "run")


def device_of(run):
    return run.devices["hexagon-dsp"], run.settings("hexagon-dsp")


def test_predictors_read_the_graph_of_the_cell(cells):
    space, problem = cells.layout.space, make_problem(cells.context, *device_of(cells))
    features = problem.features
    assert isinstance(features, CellFeatures)
    texts = [
        "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|",  # one live path of three edges
        "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|skip_connect~2|",  # only the edge from 0 to 3 counts
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    ]
    archs = [parse_nasbench201(text, space.restrict({"resolution": [8]})) for text in texts]
    found = features(space.encode_many([space.arch(a.as_dict()) for a in archs]))
    assert found[:, :4].tolist() == [[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]  # 03, 013, 023, 0123
    assert (found[2] == 0).all()


def test_other_families_have_no_graph(finished_run):
    opened = open_run(finished_run)
    assert make_problem(opened.context, *device_of(opened)).features is None


def test_introspectability_is_that_of_the_extracted_cells(cells):
    with (cells.folder / "devices" / "hexagon-dsp" / "front.csv").open(newline="") as file:
        assert set(OBJECTIVES) <= set(next(csv.DictReader(file)))
    with cells.archive() as archive:
        archs = archive.requested(archive.searches("hexagon-dsp"))
        kept = np.array([archive.values(a, cells.weights.trained, "validation")["introspectability"] for a in archs])
    assert np.isfinite(kept).all()
    assert (kept >= 0).all()
    assert len(set(kept.tolist())) > 1
    best = int(np.argmax(kept))
    net = cells.context.trained_evaluator.subnet(archs[best])
    inputs = cells.context.trained_evaluator.inputs(cells.splits.validation, archs[best])
    assert introspectability(net, inputs) == pytest.approx(kept[best], rel=1e-6)
    model = cells.front("hexagon-dsp")[0]
    metrics = json.loads((model.folder / "metrics.json").read_text())
    assert metrics["introspectability"] == pytest.approx(model.values["introspectability"], rel=1e-5)
