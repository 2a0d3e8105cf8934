"""A first recipe fits the pictures it was written for, and what a recipe may say is written down."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from hwnas import init
from hwnas.errors import HwnasError
from hwnas.runs.first_recipe import recipe_values
from hwnas.runs.recipe import load_recipe, shipped_recipes
from hwnas.runs.recipe_reference import _models, meanings, recipe_reference, recipe_schema
from hwnas.runs.start import plan

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Make a folder of random pictures below the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(name="my pictures (1)", classes=("a", "b", "c"), n=12, size=(30, 24), splits=("",)):
        rng = np.random.default_rng(0)
        for split in splits:
            for one in classes:
                folder = tmp_path / name / split / one
                folder.mkdir(parents=True)
                for i in range(n):
                    Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(folder / f"{i}.png")
        return Path(name)

    return make


def test_a_recipe_fits_its_pictures(pictures):
    begun = init(pictures(), devices=["hexagon-dsp"])
    assert begun.path == Path("my-pictures-1.yaml")
    recipe = load_recipe(begun.path)
    assert recipe == begun.recipe
    assert (recipe.supernet.classes, recipe.supernet.in_channels) == (3, 3)
    assert max(recipe.supernet.resolutions) == begun.size_px == 24
    assert recipe.devices == ("hexagon-dsp",)
    assert recipe.data.path == "my pictures (1)"  # as it was given, so that the folder can move with it
    assert sum(begun.images.values()) == 36
    assert 1 < recipe.train.batch_size <= begun.images["train"] // 2
    text = begun.path.read_text()
    assert "&" not in text.replace("&&", "")  # a reader looks nothing up
    for section in ("data", "supernet", "train", "search", "finish"):
        assert re.search(rf"^#.*\n(#.*\n)*{section}:", text, re.M), section
    assert "`hwnas plan my-pictures-1.yaml`" in text


def test_a_warning_asks_for_nothing_that_is_refused(pictures):
    begun = init(pictures("pics", size=(4, 4)))
    assert begun.size_px == 8
    assert any("their shorter edge has 4) and are enlarged; a network needs as many" in text for text in begun.warnings)
    begun = init(Path("pics"), out="large.yaml", size_px=64)
    assert any("a smaller --size costs less" in text for text in begun.warnings)


def test_large_pictures_are_decoded_a_few_at_a_time(pictures, monkeypatch):
    most = []
    monkeypatch.setattr("hwnas.data.look._decoded", lambda split, rows, broken: most.append(len(rows)) or [])
    init(pictures("pics"), size_px=5008)
    assert max(most) == 1, "each of them is 75 MB large"


def test_broken_pictures_are_left_out_where_that_is_asked_for(pictures):
    folder = pictures("pics")
    (folder / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    (folder / "b" / "empty.png").write_bytes(b"")
    with pytest.raises(HwnasError, match=r"2 of 38 pictures cannot be read: .*; repair or remove them, or .*--skip-b"):
        init(folder)
    assert not Path("pics.yaml").exists()
    begun = init(folder, skip_broken=True)
    assert any(text.startswith("images that cannot be read: 2") for text in begun.warnings)
    assert load_recipe("pics.yaml").data.broken_images == "skip"
    assert "broken_images: skip" in Path("pics.yaml").read_text()


@pytest.mark.parametrize(
    ("n_train", "size", "batch"), [(40, 200, 8), (400, 200, 32), (400, 64, 32), (50_000, 32, 64), (1_000_000, 224, 64)]
)
def test_sizes_and_phases_follow_from_the_pictures(pictures, n_train, size, batch):
    class Many:
        """A dataset that only counts."""

        classes = ("a", "b")
        train = range(n_train)

    def values(px):
        return recipe_values(
            "x", Path("x"), "x", Many(), load_recipe("digits-mbv3").data, ["local-cpu"], px, None, None
        )

    found, unit = values(size), 4 if size <= 48 else 16
    assert found["train"]["batch_size"] == batch
    steps = found["train"]["phases"][0]["epochs"] * (n_train // batch)
    assert steps >= 4 * (n_train // batch)
    assert 500 <= steps <= max(3000, 4 * (n_train // batch))
    assert max(found["supernet"]["resolutions"]) == size // unit * unit
    halvings = np.prod([s["stride"] for s in found["supernet"]["stages"]]) * found["supernet"]["stem_stride"]
    assert min(found["supernet"]["resolutions"]) // halvings >= 1
    assert (halvings == 4) == (size <= 48)


def test_few_validation_pictures_are_warned_of_and_more_are_held_out(pictures):
    begun = init(pictures())
    assert begun.recipe.data.validation_percent == 30
    assert any("validation has" in text and "too few" in text for text in begun.warnings)
    many = init(pictures("many", classes=("a", "b"), n=250, size=(8, 8)))
    assert many.images["validation"] >= 100
    assert not any("validation has" in text for text in many.warnings)


def test_splits_of_the_folder_stay(pictures):
    begun = init(pictures("split", splits=("train", "val", "test")))
    assert begun.images == {"train": 36, "validation": 36, "test": 36}


def test_pictures_are_not_enlarged_unless_it_is_asked_for(pictures):
    folder = pictures(size=(30, 24))
    assert max(init(folder, "own.yaml").recipe.supernet.resolutions) == 24
    asked = init(folder, "asked.yaml", size_px=64)
    assert max(asked.recipe.supernet.resolutions) == 64
    assert any("smaller than 64 pixels" in text for text in asked.warnings)


def test_a_recipe_like_another_has_its_network(pictures):
    begun = init(pictures(size=(200, 200), n=4), like="ofa-mbv3-w1.0")
    other = load_recipe("ofa-mbv3-w1.0")
    assert begun.recipe.supernet.stages == other.supernet.stages
    assert begun.recipe.supernet.resolutions == (128,)
    assert [p.name for p in begun.recipe.train.phases] == [p.name for p in other.train.phases]


def test_weights_to_begin_with_are_of_a_known_network(pictures, finished_run):
    folder = pictures(n=4)
    (Path("published.pth")).touch()
    begun = init(folder, like="ofa-mbv3-w1.0", start="published.pth")
    assert begun.recipe.train.start_from == "published.pth"
    (phase,) = begun.recipe.train.phases
    assert set(phase.elastic) == {"kernel_size", "depth", "expand_ratio"}
    with pytest.raises(HwnasError, match="does not say which network its weights are of; give --like"):
        init(folder, "b.yaml", start="published.pth")
    with pytest.raises(HwnasError, match="are of networks for pictures of 1 channel"):
        init(folder, "b.yaml", start=finished_run)
    assert not Path("b.yaml").exists()


def test_what_cannot_be_begun_is_one_line_and_leaves_nothing(pictures):
    folder = pictures()
    (folder / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    Path("there.yaml").write_text("mine")
    Path("empty").mkdir()
    for arguments, words in (
        ({"pictures": folder}, "broken.png"), ({"pictures": "nowhere"}, "is no folder"),
        ({"pictures": "empty"}, "no training images"),
        ({"pictures": folder, "out": "there.yaml"}, "is there already and is not overwritten"),
        ({"pictures": folder, "out": "x.txt"}, "ends in .yaml"), ({"pictures": folder, "size_px": 2}, "too small"),
        ({"pictures": folder, "devices": ["toaster"]}, "device 'toaster' is unknown"),
        ({"pictures": folder, "like": "nothing"}, "'nothing' is neither"),
        ({"pictures": folder, "out": "no/such/folder.txt"}, "ends in .yaml"),
    ):  # fmt: skip
        with pytest.raises(HwnasError) as caught:
            init(**arguments)
        assert words in str(caught.value), arguments
        assert "\n" not in str(caught.value)
    assert sorted(p.name for p in Path().glob("*.yaml")) == ["there.yaml"]
    assert Path("there.yaml").read_text() == "mine"


def test_the_commands_that_follow_run_as_printed(pictures, hwnas_command):
    folder = pictures("two words")
    code, out, err = hwnas_command("init", folder, "--devices", "hexagon-dsp", "--out", "a recipe.yaml")
    assert code == 0, err
    assert "warning: validation has" in err
    assert out.splitlines()[-1] == "next: hwnas plan 'a recipe.yaml'"
    code, out, err = hwnas_command("plan", "a recipe.yaml")
    assert code == 0, err
    assert out.splitlines()[-1] == "next: hwnas run 'a recipe.yaml'"
    code, out, err = hwnas_command("data", "a recipe.yaml")
    assert code == 0, err
    assert plan("a recipe.yaml").models
    code, out, _ = hwnas_command("init", folder, "--out", "b.yaml", "--json")
    assert json.loads(out)["classes"] == ["a", "b", "c"]


# -- the reference -----------------------------------------------------------------------------------


def test_the_page_of_every_field_is_up_to_date():
    assert (ROOT / "docs" / "recipe-reference.md").read_text() == recipe_reference(), (
        "write it again with `hwnas recipe --reference > docs/recipe-reference.md`"
    )


def test_every_field_has_its_meaning():
    lacking = [
        f"{model.__name__}.{name}"
        for model in _models()
        for name, info in model.model_fields.items()
        if name not in meanings(model) and not any(inner in _models() for inner in _inner(info.annotation))
    ]
    assert lacking == []
    rows = [line for line in recipe_reference().splitlines() if line.startswith("| `")]
    assert [row for row in rows if row.endswith("|  |")] == []
    assert len(rows) == len({id(row) for row in rows}) > 150


def _inner(annotation):
    from typing import get_args

    return [annotation, *(x for one in get_args(annotation) for x in _inner(one))]


def test_the_schema_describes_every_shipped_recipe():
    schema = recipe_schema()
    assert schema["properties"]["supernet"]["anyOf"]
    definitions = schema["$defs"]

    def check(value, described, where):
        if "$ref" in described:
            described = definitions[described["$ref"].rsplit("/", 1)[1]]
        if isinstance(value, dict) and "properties" in described:
            for name, inner in value.items():
                assert name in described["properties"], f"{where}.{name}"
                check(inner, described["properties"][name], f"{where}.{name}")

    for name in shipped_recipes():
        values = yaml.safe_load((ROOT / "supernets" / f"{name}.yaml").read_text())
        check({k: v for k, v in values.items() if k != "supernet"}, schema, name)
    assert definitions["TrainConfig"]["properties"]["batch_size"]["description"].startswith("Images in a step")


def test_recipes_are_printed(hwnas_command):
    code, out, _ = hwnas_command("recipe", "--schema")
    assert (code, json.loads(out)) == (0, recipe_schema())
    code, out, _ = hwnas_command("recipe", "digits-mbv3", "train.batch_size=16")
    assert yaml.safe_load(out)["train"]["batch_size"] == 16
    assert yaml.safe_load(out)["train"]["momentum"] == 0.9  # a default
    code, out, _ = hwnas_command("recipe")
    assert out.splitlines()[:-1] == shipped_recipes()
    assert out.splitlines()[-1] == f"next: hwnas recipe {shipped_recipes()[0]}"
    assert hwnas_command("recipe", "--reference")[1] == recipe_reference()


def test_limits_that_were_asked_for_stand_in_the_recipe(pictures):
    folder = pictures()
    asked = ["latency_ms<=5", "hexagon-dsp:latency_ms<=3"]
    begun = init(folder, devices=["hexagon-dsp"], limits=asked)
    assert begun.recipe.constraints == tuple(asked)
    assert "# constraints:" not in begun.path.read_text()  # no second place for them
    assert init(folder, "none.yaml").recipe.constraints == ()
    for limits, words in (
        (["edge-tpu:latency_ms<=3"], r"limits name \['edge-tpu'\]; devices here are hexagon-dsp: add the device"),
        (["latency_ms=3"], "latency_ms=3"),
    ):
        with pytest.raises(HwnasError, match=words):
            init(folder, "refused.yaml", devices=["hexagon-dsp"], limits=limits)
        assert not Path("refused.yaml").exists()
