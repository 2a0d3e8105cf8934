"""Tables of others: keys are looked up for the blocks of a recipe, and damaged files are refused by name."""

import csv
import gzip
import json

import pytest
import yaml

from hwnas.errors import TableError
from hwnas.latency.importers import import_table, nn_meter_keys, nsganetv2_keys, once_for_all_keys, read_values
from hwnas.latency.table import load_device
from hwnas.runs.recipe import load_recipe
from hwnas.supernet import make_layout
from hwnas.supernet.blocks.conv import ConvSpec
from hwnas.supernet.blocks.head import HeadSpec
from hwnas.supernet.blocks.mbconv import MBConvSpec
from hwnas.supernet.slot_sum import distinct_blocks

BLOCK = MBConvSpec(24, 32, 56, 72, True, 5, 2, True, "hswish", False)
STEM = ConvSpec(3, 24, 161, 3, 2, "hswish")
HEAD = HeadSpec(1152, 1000, 5, 1536, "hswish", 10)


def test_keys_of_blocks_by_hand():
    assert once_for_all_keys(BLOCK) == [
        ["expanded_conv-input:56x56x24-output:28x28x32-expand:72-kernel:5-stride:2-idskip:0-se:1-hs:1"]
    ]
    assert once_for_all_keys(STEM) == [["Conv-input:161x161x3-output:81x81x24"]]
    assert once_for_all_keys(HEAD) == [
        ["AvgPool2D-input:5x5x1152-output:1x1x1152"],
        ["Conv_2-input:1x1x1152-output:1x1x1536"],
        ["Logits-input:1x1x1536-output:1x1x1000"],
    ]
    assert nsganetv2_keys(BLOCK)[0][1] == (
        "MBConv-input:56x56x24-output:28x28x32-expand:3-kernel:5-stride:2-idskip:0-se:1"
    )
    assert nn_meter_keys(BLOCK) == [["MobileNetV3ResBlock_56_24_32_5_3_2_hswish", "conv_56_24_32_3_2_hard_swish_5_se"]]
    assert nn_meter_keys(STEM)[0] == ["FirstConvBlock_161_3_24_3_None_2_hswish", "firstconv_161_3_24_2_3"]


@pytest.fixture(scope="module")
def whole(layout):
    """The blocks of the tiny space with a time each."""
    return {b: round(0.2 + 0.01 * i, 4) for i, b in enumerate(distinct_blocks(layout))}


def entries(whole, keys_of):
    out = {}
    for block, ms in whole.items():
        parts = keys_of(block)
        for names in parts:
            out.setdefault(names[0], ms / len(parts))
    return out


def imported(path, table_format, layout, tmp_path, **changes):
    values = {"name": "their-phone", "source": "somebody", "licence": "MIT", **changes}
    return import_table(layout, path, table_format, out=tmp_path / "device", **values)


@pytest.mark.parametrize(
    ("table_format", "keys_of", "suffix"),
    [("once-for-all", once_for_all_keys, "yaml"), ("nsganetv2", nsganetv2_keys, "yaml"),
     ("nn-meter", nn_meter_keys, "json"), ("nn-meter", nn_meter_keys, "csv")],
)  # fmt: skip
def test_a_table_is_found_again_block_by_block(table_format, keys_of, suffix, layout, whole, tmp_path):
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
        expected = sum(values[names[0]] for names in keys_of(block))
        assert device.block_ms(block) == pytest.approx(expected, rel=1e-5)
    assert (device.profile.origin, device.profile.licence) == ("imported", "MIT")
    assert {r.origin for r in device.rows.values()} == {"imported"}
    assert load_device(tmp_path / "device") == device


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


def test_blocks_that_lack_are_said(layout, whole, tmp_path):
    kept = {b: ms for b, ms in whole.items() if b.in_size_px != 13}
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(entries(kept, once_for_all_keys)))
    _, notes = imported(path, "once-for-all", layout, tmp_path)
    assert len(notes) == 1
    assert "blocks of the recipe are not in the file; networks at resolutions 13 may lack a time" in notes[0]


def test_other_units_are_flagged_and_converted(layout, whole, tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump({k: 1000 * v for k, v in entries(whole, once_for_all_keys).items()}))
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
        ("key,ms\na\n", "csv", "a has '', which is no time"),
        ("", "yaml", "holds no times"),
        ("", "csv", "must have a column of keys and one of times"),
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
