"""Recipes: read strictly, overridden by dots, and one line for every mistake."""

import pytest
import yaml

from hwnas.errors import RecipeError
from hwnas.files import shipped_folder
from hwnas.runs.recipe import check_recipe, find_recipe, load_recipe, shipped_recipes


@pytest.fixture
def values():
    """The values of a recipe that works."""
    return yaml.safe_load((shipped_folder("supernets") / "digits-mbv3.yaml").read_text())


def write(folder, content):
    path = folder / "mine.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_a_shipped_recipe_is_found_by_name_and_by_path(tmp_path, values):
    assert "digits-mbv3" in shipped_recipes()
    path = shipped_folder("supernets") / "digits-mbv3.yaml"
    assert find_recipe("digits-mbv3") == path
    assert find_recipe("supernets/digits-mbv3.yaml").samefile(path)
    assert load_recipe(write(tmp_path, values)) == load_recipe("digits-mbv3")


@pytest.mark.parametrize("given", ["digits", "nowhere/digits-mbv3.yaml", "", "digits-mbv3.json"])
def test_an_unknown_recipe_names_value_and_choices(given):
    words = "there is no file" if given.endswith(".yaml") else r"is neither a \.yaml file nor a shipped recipe"
    with pytest.raises(RecipeError, match=rf"{words}.* shipped .*digits-mbv3"):
        find_recipe(given)


def test_the_effective_recipe_comes_back(tmp_path):
    recipe = load_recipe("digits-mbv3", ["search.evaluations=31", "devices=[hexagon-dsp]"])
    again = load_recipe(write(tmp_path, recipe.as_yaml()))
    assert again == recipe
    assert again.values_hash() == recipe.values_hash()
    assert again.search.evaluations == 31


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("train.batch_size=33", lambda r: r.train.batch_size == 33),
        ("train.phases.1.lr=0.125", lambda r: r.train.phases[1].lr == 0.125),
        ("data.augment.flip=true", lambda r: r.data.augment.flip is True),
        ("supernet.resolutions=[11, 13]", lambda r: r.supernet.resolutions == (11, 13)),
        ("supernet.stages.0.width=24", lambda r: r.supernet.stages[0].width == 24),
        ("evaluation.validation_images=null", lambda r: r.evaluation.validation_images is None),
        ("constraints=[latency_ms<=5]", lambda r: r.constraints == ("latency_ms<=5",)),
        ("finetune.epochs=3", lambda r: r.finetune.epochs == 3),
        ("description=a=b", lambda r: r.description == "a=b"),
    ],
)
def test_overrides_set_what_they_name(override, read):
    assert read(load_recipe("digits-mbv3", [override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_sise=33", r"unknown key 'train\.batch_sise'; known keys .*; did you mean 'batch_size'"),
        ("trian.batch_size=33", r"unknown key 'trian'; known keys here are .*train.*; did you mean 'train'"),
        ("search.evals=3", r"unknown key 'search\.evals'; known keys here are adaptation, algorithm, evaluations"),
        ("data.augment.mirror=true", r"unknown key 'data\.augment\.mirror'; known keys here are .*flip"),
        ("train.phases.0.rate=1", r"unknown key 'train\.phases\.0\.rate'; known keys here are .*epochs"),
        ("train.batch_size=many", r"train\.batch_size: .*integer.*, got 'many'"),
        ("train.batch_size=1", r"train\.batch_size: .*greater than 1, got 1"),
        ("objectives=[accuracy]", r"override .*: objectives: objective 'accuracy' is unknown; known are top1_percent"),
        ("objectives=[macs, macs]", r"objectives: give every objective once and at least one, got \['macs', 'macs'\]"),
        ("objectives=[]", "objectives: give every objective once"),
        ("constraints=[fast]", r"limit 'fast' is not of the form VALUE<=NUMBER"),
        ("constraints=[energy_mj<=3]", r"override .*: constraints: objective .energy_mj. is unknown; known are top1"),
        ("constraints=[latency_ms<=1, latency_ms>=2]", r"latency_ms>=2 and latency_ms<=1 contradict each other"),
        ("task=guessing", r"task: task 'guessing' is unknown; known are classification, or give one of your own"),
        ("executor.name=nobody", r"executor\.name: executor 'nobody' is unknown; known are this-process"),
        ("executor.nmae=nobody", r"unknown key 'executor\.nmae'; known keys here are name, options; did you mean"),
        ("search.algorithm=magic", r"search\.algorithm: .*'magic' is unknown; .*hurricane"),
        ("search.evaluations=0", r"search\.evaluations: .*greater than or equal to 1, got 0"),
        ("supernet.family=resnet", r"supernet\.family: family 'resnet' is unknown; known are mbv3, .*'resnet50d'\?$"),
        ("supernet.family=3", r"supernet\.family: the settings of a supernet need a family, one of mbv3, .* got 3"),
        ("supernet=3", r"supernet: .*dictionary.*, got 3"),
        (
            "supernet.stages.0.widht=3",
            r"unknown key 'supernet\.stages\.0\.widht'; known keys here are act, .*; did you mean 'width'\?",
        ),
        ("supernet.stem=3", r"unknown key 'supernet\.stem'; known keys here are .*, stem_width, width_multiplier;"),
        ("supernet.stages.0.width=-1", r"supernet\.stages\.0\.width: .*greater than 0, got -1"),
        ("supernet.classes=1", r"supernet\.classes: .*greater than or equal to 2, got 1"),
        ("name=a/b", "name: .*pattern"),
        ("train.phases.9.lr=1", r"override 'train\.phases\.9\.lr=1' does not fit the recipe"),
        ("train.phases.first.lr=1", "does not fit the recipe"),
        ("name.first=1", "does not fit the recipe; 'name.first' leads to no setting"),
        ("train.batch_size", "is not of the form section.key=value"),
        ("=3", "is not of the form"),
        ("train.batch_size=[", "does not fit the recipe"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_key_value_and_choices(override, message):
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe("digits-mbv3", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a list\n", "must hold a mapping of sections, got list"),
        ("", "must hold a mapping of sections, got NoneType"),
        ("name: [unclosed\n", "cannot be read as YAML"),
        ("name: !!python/object/apply:os.getcwd []\n", "cannot be read as YAML"),
        ("name: x\n", "key '.*' is missing"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_section_is_named(values):
    del values["train"]
    with pytest.raises(RecipeError, match="key 'train' is missing"):
        check_recipe(values, "here")


@pytest.mark.parametrize(
    ("override", "changes"),
    [
        ("train.seed=5", True),
        ("supernet.expand_width=104", True),
        ("data.validation_percent=10", True),
        ("evaluation.calibration_images=100", True),
        ("train.checkpoint_every_s=3", False),
        ("search.seed=5", False),
        ("devices=[edge-tpu]", False),
        ("export.front_size=3", False),
        ("constraints=[params<=3]", False),
        ("objectives=[top1_percent, macs]", False),
        ("executor.options={a: 1}", False),
        ("train.device=cpu", False),
        ("description=other", False),
    ],
)
def test_the_hash_changes_with_what_values_mean(override, changes):
    before = load_recipe("digits-mbv3").values_hash()
    assert (load_recipe("digits-mbv3", [override]).values_hash() != before) == changes
