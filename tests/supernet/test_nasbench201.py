"""The cell space: the published network, counted edge by edge, computed by hand."""

import csv
import gzip

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from hwnas.errors import SpaceError
from hwnas.export.graph import trace
from hwnas.latency.table import load_device
from hwnas.objectives.exact import macs_of_space, params_of_space
from hwnas.objectives.introspectability import introspectability
from hwnas.runs.recipe import load_recipe
from hwnas.space.dialects.nasbench201 import EDGES, edge_name, format_nasbench201, parse_cell, parse_nasbench201
from hwnas.supernet import SupernetConfig, build_supernet, calibrate_bn, extract_subnet, make_layout
from hwnas.supernet.slot_sum import distinct_blocks

BY_DIGIT = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""Digits of the cell codes of the real data."""


def small(**changes):
    values = {
        "family": "nasbench201", "in_channels": 2, "classes": 7, "resolutions": [12], "stem_width": 8,
        "cells_per_stage": 2,
    }  # fmt: skip
    return TypeAdapter(SupernetConfig).validate_python({**values, **changes})


@pytest.fixture(scope="module")
def supernet():
    torch.manual_seed(0)
    net = build_supernet(small())
    with torch.no_grad():
        for _ in range(20):  # statistics of every operator
            net(torch.randn(16, 2, 12, 12), net.space.sample(np.random.default_rng(_), 1)[0])
    return net.eval()


def cell(space, code):
    """The arch of six digits."""
    resolution = space["resolution"].options[0]
    operators = {edge_name(*e): BY_DIGIT[int(d)] for e, d in zip(EDGES, code, strict=True)}
    return space.arch({"resolution": resolution, **operators})


def test_an_arch_of_another_space_is_no_cell(layout):
    with pytest.raises(SpaceError, match="has no choice 'edge0to1'; such cells have edge0to1, "):
        format_nasbench201(layout.space.smallest())


def test_the_published_space_has_15625_cells():
    assert make_layout(load_recipe("nasbench201").supernet).space.size == 15_625


def test_params_and_macs_of_every_cell_are_the_published_ones(shared):
    with gzip.open(shared / "nasbench201" / "nb201_accuracy.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    layout = make_layout(load_recipe("nasbench201").supernet)
    archs = [cell(layout.space, r["code"]) for r in rows]
    assert len(set(archs)) == 15_625
    published = np.array([float(r["params_m"]) for r in rows]) * 1e6
    np.testing.assert_allclose(params_of_space(layout).of_archs(archs), published, rtol=0, atol=0.5)
    published = np.array([float(r["flops_m"]) for r in rows]) * 1e6
    np.testing.assert_allclose(macs_of_space(layout).of_archs(archs), published, rtol=1e-6)  # printed to 7 digits


def test_an_exported_cell_has_the_published_macs_without_dead_edges(shared):
    with gzip.open(shared / "nasbench201" / "nb201_accuracy.csv.gz", "rt") as file:
        rows = [r for r in csv.DictReader(file) if r["flops_m"] != r["eff_flops_m"]][::400]
    layout = make_layout(load_recipe("nasbench201").supernet)
    for row in rows:
        # A node that nothing reaches is zero; the published pruned count drops what reads it, a network keeps it.
        arch = cell(layout.space, row["code"])
        unreached = {n for n in (1, 2) if all(arch[edge_name(i, j)] == "none" for i, j in EDGES if j == n)}
        if any(arch[edge_name(i, j)] != "none" for i, j in EDGES if i in unreached):
            continue
        net = layout.build_subnet(arch)
        macs = sum(op.macs for op in trace(net).ops(3, 32))
        assert macs == pytest.approx(float(row["eff_flops_m"]) * 1e6, rel=1e-6)


@pytest.mark.parametrize("code", ["333333", "000000", "200103", "014320", "110003", "444123"])
def test_a_cell_is_the_sum_over_its_edges(supernet, code):
    arch = cell(supernet.space, code)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 2, 12, 12, generator=generator)
    parts = supernet.parts

    def edge(name, operator, y):
        if operator == "none":
            return torch.zeros_like(y)
        return parts[name].candidates[operator](y)

    with torch.no_grad():
        y = parts["stem"](x, dict(supernet.layout.blocks(arch))["stem"])
        for stage in (1, 2, 3):
            if stage > 1:
                y = next(iter(parts[f"reduction{stage}"].candidates.values()))(y)
            for number in (1, 2):
                nodes = [y]
                for target in (1, 2, 3):
                    brought = [
                        edge(f"stage{stage}_cell{number}_{edge_name(i, target)}", arch[edge_name(i, target)], nodes[i])
                        for i in range(target)
                    ]
                    nodes.append(sum(brought))
                y = nodes[-1]
        expected = next(iter(parts["head"].candidates.values()))(y)
        torch.testing.assert_close(supernet(x, arch), expected)
        assert torch.equal(extract_subnet(supernet, arch)(x), supernet(x, arch))


def test_edges_of_a_table_are_few_and_an_identity_is_free():
    layout = make_layout(load_recipe("nasbench201").supernet)
    assert len(distinct_blocks(layout)) == 3 * 9 + 4  # none alone, four operators alone or added; stem, ..., head
    device = load_device("hexagon-dsp")
    skips = cell(layout.space, "100000")
    nothing = cell(layout.space, "000000")
    assert device.estimate_ms(skips) == device.estimate_ms(nothing)
    assert device.compile(layout).of_archs([cell(layout.space, "333333")])[0] == pytest.approx(
        device.estimate_ms(cell(layout.space, "333333"))
    )


def test_introspectability_runs_on_cells(supernet):
    arch = cell(supernet.space, "332113")
    net = extract_subnet(supernet, arch)
    x = torch.randn(64, 2, 12, 12, generator=torch.Generator().manual_seed(2))
    calibrate_bn(net, [x])
    with torch.no_grad():
        assert len(net(x).argmax(1).unique()) > 1
    assert 0 < introspectability(net, x) < 2
    constant = extract_subnet(supernet, cell(supernet.space, "333000"))
    assert introspectability(constant, x) == 0.0  # one class is predicted for everything


def test_cells_are_read_and_written_as_the_benchmark_does(supernet):
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|"
    arch = parse_nasbench201(text, supernet.space)
    assert arch == cell(supernet.space, "301204")
    assert format_nasbench201(arch) == text
    for code in ("000000", "123401"):
        arch = cell(supernet.space, code)
        assert parse_nasbench201(format_nasbench201(arch), supernet.space) == arch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nor_conv_3x3", "is not of the form"),
        ("|nor_conv_3x3~0|+|none~0|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|", "has edges"),
        ("|nor_conv_3x3~1|+|none~0|none~1|+|nor_conv_1x1~0|none~1|avg_pool_3x3~2|", "has edges"),
        ("|conv~0|+|none~0|none~1|+|none~0|none~1|none~2|", "'conv' is not an option of 'edge0to1'"),
    ],
)
def test_other_texts_are_refused(supernet, text, message):
    with pytest.raises(SpaceError, match=message.replace("|", r"\|")):
        parse_nasbench201(text, supernet.space)


def test_a_resolution_is_asked_for_where_there_are_several():
    space = make_layout(small(resolutions=[12, 16])).space
    text = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
    with pytest.raises(SpaceError, match="choose one of"):
        parse_nasbench201(text, space)
    assert parse_nasbench201(text, space, 16)["resolution"] == 16
    assert set(parse_cell(text).values()) == {"none"}
