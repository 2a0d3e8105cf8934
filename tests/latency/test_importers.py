"""Tables of others: keys are looked up for the blocks of a recipe, and damaged files are refused by name."""

import csv
import gzip
import json

import pytest
import yaml

from hwnas.errors import TableError
from hwnas.latency.importers import import_table
from hwnas.latency.table import load_device
from hwnas.latency.values import read_values
from hwnas.runs.recipe import load_recipe
from hwnas.supernet import make_layout
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.head import HeadSpec
from hwnas.supernet.blocks.mbconv import MBConvSpec
from hwnas.supernet.slot_sum import distinct_blocks

# Keys are written here a second time, after the code of the tools that write such tables, so that a mistake in
# `hwnas.latency.keys` cannot hide behind itself.


def shape(size, channels):
    return "x".join(map(str, (size, size, channels)))


def halved(block):
    return -(-block.in_size_px // block.stride)


def by_once_for_all(block, classes=None):
    """``MBv3LatencyTable.query``; the classifier's output is one number."""
    size, cin, cout = block.in_size_px, block.in_channels, block.out_channels
    if isinstance(block, MBConvSpec):
        return [
            f"expanded_conv-input:{shape(size, cin)}-output:{shape(halved(block), cout)}-expand:{block.mid_channels}"
            f"-kernel:{block.kernel_size}-stride:{block.stride}-idskip:{1 if block.residual else 0}"
            f"-se:{1 if block.se else 0}-hs:{1 if block.act == 'hswish' else 0}"
        ]
    if isinstance(block, ConvSpec):
        kind = "Conv_1" if block.kernel_size == 1 else "Conv"
        return [f"{kind}-input:{shape(size, cin)}-output:{shape(halved(block), cout)}"]
    assert isinstance(block, HeadSpec)
    features = block.feature_channels or cin
    keys = [f"AvgPool2D-input:{shape(size, cin)}-output:{shape(1, cin)}"]
    keys += [f"Conv_2-input:{shape(1, cin)}-output:{shape(1, features)}"] if block.feature_channels else []
    return [*keys, f"Logits-input:{shape(1, features)}-output:{cout}"]


def by_once_for_all_with_shapes(block):
    """The same, with the shape of the classifier's output written as height x width x channels."""
    keys = by_once_for_all(block)
    return (
        [*keys[:-1], f"{keys[-1].rsplit(':', 1)[0]}:1x1x{block.out_channels}"] if isinstance(block, HeadSpec) else keys
    )


def by_proxyless(block):
    """``ProxylessNASLatencyTable.query``: the ratio; ``Logits`` is all that follows the last convolution."""
    size, cin, cout = block.in_size_px, block.in_channels, block.out_channels
    if isinstance(block, MBConvSpec):
        return [
            f"expanded_conv-input:{shape(size, cin)}-output:{shape(halved(block), cout)}"
            f"-expand:{block.mid_channels // cin}-kernel:{block.kernel_size}-stride:{block.stride}"
            f"-idskip:{1 if block.residual else 0}"
        ]
    if isinstance(block, ConvSpec):
        return by_once_for_all(block)
    return [f"Logits-input:{shape(size, cin)}-output:{cout}"]


def by_nsganetv2(block):
    """``LatencyEstimator.predict`` and ``look_up_latency``."""
    size, cin, cout = block.in_size_px, block.in_channels, block.out_channels
    if isinstance(block, MBConvSpec):
        return [
            f"MBConv-input:{shape(size, cin)}-output:{shape(halved(block), cout)}-expand:{block.mid_channels // cin}"
            f"-kernel:{block.kernel_size}-stride:{block.stride}-idskip:{1 if block.residual else 0}"
            f"-se:{1 if block.se else 0}"
        ]
    if isinstance(block, ConvSpec):
        name = "final_expand_layer" if block.kernel_size == 1 else "first_conv"
        return [f"{name}-input:{shape(size, cin)}-output:{shape(halved(block), cout)}"]
    features = block.feature_channels or cin
    keys = [f"feature_mix_layer-input:{shape(1, cin)}-output:{shape(1, features)}"] if block.feature_channels else []
    return [*keys, f"classifier-input:{features}-output:{cout}"]


def by_nn_meter(block):
    """The keys of its ONNX Runtime table."""
    size, cin, cout = block.in_size_px, block.in_channels, block.out_channels
    if isinstance(block, MBConvSpec):
        kind = "MobileNetV3ResBlock" if block.se else "MobileNetV2ResBlock"
        return [
            "_".join(
                map(str, (kind, size, cin, cout, block.kernel_size, block.mid_channels // cin, block.stride, block.act))
            )
        ]
    if isinstance(block, ConvSpec):
        kind = "FinalExpandBlock" if block.kernel_size == 1 else "FirstConvBlock"
        return ["_".join(map(str, (kind, size, cin, cout, block.kernel_size, None, block.stride, block.act)))]
    features = block.feature_channels or cin
    keys = [f"FeatureMixBlock_1_{cin}_{features}_1_None_1_{block.act}"] if block.feature_channels else []
    return [*keys, f"LogitsBlock_1_{features}_{cout}_None_None_None_None"]


WRITERS = [
    ("once-for-all", by_once_for_all, "yaml"), ("once-for-all", by_once_for_all_with_shapes, "yaml"),
    ("nsganetv2", by_nsganetv2, "yaml"), ("nn-meter", by_nn_meter, "json"), ("nn-meter", by_nn_meter, "csv"),
]  # fmt: skip


REAL = [
    ("nsganetv2", "MBConv-input:100x100x16-output:50x50x24-expand:3-kernel:5-stride:2-idskip:0-se:0"),
    ("nsganetv2", "first_conv-input:200x200x3-output:100x100x16"),
    ("once-for-all", "expanded_conv-input:100x100x16-output:50x50x24-expand:48-kernel:5-stride:2-idskip:0-se:0-hs:0"),
    ("once-for-all", "Conv_1-input:7x7x160-output:7x7x960"),
    ("once-for-all", "Logits-input:1x1x1280-output:1000"),
]
"""Keys as they stand in the tables of NSGANetV2 for an i7-8700K, and as once-for-all's code asks for them."""


@pytest.mark.parametrize(("table_format", "key"), REAL)
def test_keys_of_real_tables_are_known(table_format, key, tmp_path):
    layout = make_layout(load_recipe("ofa-mbv3-w1.0", ["supernet.resolutions=[200]"]).supernet)
    path = tmp_path / "t.yaml"
    path.write_text(f"{key}:\n  mean: 0.5\n  var: 0.01\n")
    said = "has no block" if key.startswith("Logits") else "no network of the recipe can be priced: every block of kind"
    with pytest.raises(TableError, match=said):  # a part of the head alone is no block; the others are one
        imported(path, table_format, layout, tmp_path)


@pytest.fixture(scope="module")
def whole(layout):
    """The blocks of the tiny space with a time each."""
    return {b: round(0.2 + 0.01 * i, 4) for i, b in enumerate(distinct_blocks(layout))}


def entries(whole, keys_of):
    out = {}
    for block, ms in whole.items():
        keys = keys_of(block)
        for key in keys:
            out.setdefault(key, ms / len(keys))
    return out


def imported(path, table_format, layout, tmp_path, **changes):
    values = {"name": "their-phone", "source": "somebody", "licence": "MIT", **changes}
    return import_table(layout, path, table_format, out=tmp_path / "device", **values)


@pytest.fixture(scope="module")
def published():
    """The space of once-for-all's MobileNetV3 at three resolutions."""
    return make_layout(load_recipe("ofa-mbv3-w1.0", ["supernet.resolutions=[160, 192, 224]"]).supernet)


@pytest.mark.parametrize(("table_format", "keys_of", "suffix"), WRITERS)
def test_a_table_is_found_again_block_by_block(table_format, keys_of, suffix, published, tmp_path):
    layout, whole = published, {b: round(0.2 + 0.001 * i, 4) for i, b in enumerate(distinct_blocks(published))}
    values = entries(whole, keys_of)
    path = tmp_path / f"table.{suffix}"
    if suffix == "yaml":
        path.write_text(yaml.safe_dump({k: {"mean": v, "std": 0.1} for k, v in values.items()}))
    elif suffix == "json":
        path.write_text(json.dumps({"blocks": values}))
    else:
        path.write_text("key,ms\n" + "".join(f"{k},{v}\n" for k, v in values.items()))
    device, notes = imported(path, table_format, layout, tmp_path)
    assert notes == []
    for block in whole:
        expected = sum(values[key] for key in keys_of(block))
        assert device.block_ms(block) == pytest.approx(expected, rel=1e-5)
    assert (device.profile.origin, device.profile.licence) == ("imported", "MIT")
    assert {r.origin for r in device.rows.values()} == {"imported"}
    assert load_device(tmp_path / "device") == device


@pytest.fixture(scope="module")
def proxyless():
    """The space of once-for-all's ProxylessNAS at two resolutions."""
    return make_layout(load_recipe("ofa-proxyless", ["supernet.resolutions=[160, 224]"]).supernet)


def test_the_form_of_proxyless_tables_is_known(proxyless, tmp_path):
    whole = {b: round(0.2 + 0.01 * i, 4) for i, b in enumerate(distinct_blocks(proxyless))}
    path = tmp_path / "mobile_trim.yaml"
    path.write_text(yaml.safe_dump({k: {"count": 154, "mean": v} for k, v in entries(whole, by_proxyless).items()}))
    device, notes = imported(path, "once-for-all", proxyless, tmp_path)
    assert notes == []
    for block, ms in whole.items():
        assert device.block_ms(block) == pytest.approx(ms, rel=1e-5)


def test_a_table_that_can_price_no_network_is_refused_with_what_lacks(layout, whole, tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in entries(whole, by_once_for_all).items() if "Logits" not in k}))
    with pytest.raises(TableError, match=r"no network of the recipe can be priced: every block of kind head lacks"):
        imported(path, "once-for-all", layout, tmp_path)
    assert not (tmp_path / "device").exists()


def test_a_time_far_from_those_of_other_sizes_is_named(published, tmp_path):
    whole = {b: 0.001 * b.in_size_px * b.out_channels for b in distinct_blocks(published)}
    values, stem = entries(whole, by_once_for_all), ConvSpec(3, 16, 192, 3, 2, "hswish")
    values[by_once_for_all(stem)[0]] *= 5
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(values))
    _, notes = imported(path, "once-for-all", published, tmp_path)
    assert len(notes) == 1
    assert f"block [{stem.signature}] takes {5 * whole[stem]:.4g} ms, far from what it takes at the sizes" in notes[0]


def test_a_plain_csv_names_blocks_by_their_columns(layout, whole, tmp_path):
    columns = sorted({c for b in whole for c in b.columns})
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["kind", *columns, "median_ms"], restval="")
        writer.writeheader()
        for block, ms in whole.items():
            writer.writerow({"kind": block.kind, **block.columns, "median_ms": ms * 1000})
    device, notes = imported(tmp_path / "t.csv", "csv", layout, tmp_path, unit="us")
    assert notes == []
    for block, ms in whole.items():
        assert device.block_ms(block) == pytest.approx(ms, rel=1e-5)
    assert {(row.n, row.iqr_ms) for row in device.rows.values()} == {(1, 0.0)}


def test_spread_and_number_of_timings_of_a_plain_csv_are_kept(layout, whole, tmp_path):
    columns = sorted({c for b in whole for c in b.columns})
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["kind", *columns, "median_ms", "iqr_ms", "n", "origin"], restval="")
        writer.writeheader()
        for i, (block, ms) in enumerate(whole.items()):
            values = {"median_ms": ms * 1000, "iqr_ms": 10.0 * (i % 2), "n": 7 + i, "origin": "measured"}
            writer.writerow({"kind": block.kind, **block.columns, **values})
    device, _ = imported(tmp_path / "t.csv", "csv", layout, tmp_path, unit="us")
    for i, block in enumerate(whole):
        row = device.rows[block.signature]
        assert (row.n, row.iqr_ms, row.origin) == (7 + i, pytest.approx(0.01 * (i % 2)), "imported")


def test_blocks_that_lack_are_said(layout, whole, tmp_path):
    kept = {b: ms for b, ms in whole.items() if b.in_size_px != 13}
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(entries(kept, by_once_for_all)))
    _, notes = imported(path, "once-for-all", layout, tmp_path)
    assert len(notes) == 1
    assert "blocks of the recipe are not in the file (" in notes[0]
    assert "% of its networks can be priced; none at resolutions 13." in notes[0]


def test_other_units_are_flagged_and_converted(layout, whole, tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump({k: 1000 * v for k, v in entries(whole, by_once_for_all).items()}))
    _, notes = imported(path, "once-for-all", layout, tmp_path)
    assert "they look like microseconds, not milliseconds" in notes[0]


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [
        ("a: -1.0\n", "yaml", r"a has -1\.0; times must be positive"),
        ("a: 0\n", "yaml", r"a has 0\.0; times must be positive"),
        ("a: .nan\n", "yaml", "a has nan; times must be positive"),
        ("a: fast\n", "yaml", "a has 'fast', which is no time"),
        ("a: {mean: 1}\nb: 2\na: {mean: 3}\n", "yaml", r"a stands twice, with 1\.0 and 3\.0; keep the right one"),
        ('{"a": 1, "a": 2}', "json", r"a stands twice, with 1\.0 and 2\.0"),
        ("key,ms\na,1\na,2\n", "csv", "a stands twice"),
        ("key,ms\na\n", "csv", "line 2: ms is ''; fill in times"),
        ("", "yaml", "holds no times"),
        ("", "csv", "is empty"),
        ("key\na\n", "csv", "must have a column of keys and one of times"),
        ("{", "json", "is no JSON"),
        ("a: [", "yaml", "is no YAML"),
    ],
)
def test_damaged_files_are_refused(text, suffix, message, tmp_path):
    path = tmp_path / f"t.{suffix}"
    path.write_text(text)
    with pytest.raises(TableError, match=message):
        read_values(path)


def test_what_must_be_said_is_asked_for(layout, tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text("some-block: 1.0\n")
    with pytest.raises(TableError, match=r"say the licence of .* with --licence"):
        imported(path, "once-for-all", layout, tmp_path, licence=" ")
    with pytest.raises(TableError, match="known are once-for-all, nn-meter, nsganetv2, csv"):
        imported(path, "ofa", layout, tmp_path)
    with pytest.raises(TableError, match="has no block of this recipe in the form of once-for-all"):
        imported(path, "once-for-all", layout, tmp_path)
    with pytest.raises(TableError, match="cannot be read"):
        read_values(tmp_path / "none.yaml")
    assert not (tmp_path / "device").exists()


@pytest.mark.slow
def test_the_note10_table_gives_the_published_sums(shared, tmp_path):
    """Smallest net at 160 pixels 9.9 ms, largest at 224 pixels 92.4 ms (width 1.2), as its authors' code adds up."""
    folder = tmp_path / "note10"  # one table a resolution, as its authors publish them
    folder.mkdir()
    with gzip.open(shared / "ofa" / "ofa_lut_note10_ms.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            key = f"{row['type']}-input:{row['hw_in']}x{row['hw_in']}x{row['cin']}"
            key += f"-output:{row['hw_out']}x{row['hw_out']}x{row['cout']}"
            if row["type"] == "expanded_conv":
                key += f"-expand:{row['mid']}-kernel:{row['kernel']}-stride:{row['stride']}-idskip:{row['idskip']}"
                key += f"-se:{row['se']}-hs:{row['hswish']}"
            with (folder / f"{row['r']}_lookup_table.yaml").open("a") as table:
                table.write(f"{key}: {{count: {row['count']}, mean: {row['mean_ms']}, std: {row['std_ms']}}}\n")
    recipe = load_recipe("ofa-mbv3-w1.2", ["supernet.resolutions=[160, 176, 192, 208, 224]"])
    layout = make_layout(recipe.supernet)
    device, notes = imported(folder, "once-for-all", layout, tmp_path)
    assert notes == []
    assert device.estimate_ms(layout.space.restrict({"resolution": [160]}).smallest()) == pytest.approx(9.9, abs=0.05)
    assert device.estimate_ms(layout.space.restrict({"resolution": [224]}).largest()) == pytest.approx(92.4, abs=0.05)
